//! The system calls that a serving process makes, and with which arguments.
//!
//! A row says who makes the call. Calls on a command's way are in [`ALWAYS`], where their arguments are not looked at (see [`super::seccomp`]).

use std::collections::BTreeMap;

use seccompiler::{BackendError, SeccompCmpArgLen, SeccompCmpOp, SeccompCondition, SeccompRule};

/// Allowed with any arguments.
const ALWAYS: &[i64] = &[
    // Reactors: rings, events, waiting.
    libc::SYS_io_uring_enter,
    libc::SYS_futex,
    libc::SYS_epoll_pwait,
    libc::SYS_epoll_pwait2,
    libc::SYS_epoll_ctl,
    // A wait set is made to try whether a descriptor can be waited for.
    libc::SYS_epoll_create1,
    libc::SYS_ppoll,
    // I/O on images, state files, sockets, events.
    libc::SYS_read,
    libc::SYS_readv,
    libc::SYS_pread64,
    libc::SYS_preadv,
    libc::SYS_preadv2,
    libc::SYS_write,
    libc::SYS_writev,
    libc::SYS_pwrite64,
    libc::SYS_pwritev,
    libc::SYS_pwritev2,
    libc::SYS_fsync,
    libc::SYS_fdatasync,
    libc::SYS_fallocate,
    libc::SYS_ftruncate,
    libc::SYS_lseek,
    libc::SYS_copy_file_range,
    libc::SYS_fstatfs,
    libc::SYS_fstat,
    libc::SYS_newfstatat,
    libc::SYS_statx,
    libc::SYS_flock,
    libc::SYS_close,
    // By name: landlock says which.
    libc::SYS_openat,
    libc::SYS_unlinkat,
    libc::SYS_renameat2,
    libc::SYS_getdents64,
    // Somebody panicked, and RUST_BACKTRACE asks where: the library looks for the program's file, which landlock does not let it open.
    libc::SYS_getcwd,
    libc::SYS_readlinkat,
    // Sessions. There is no socket(2), bind(2) or connect(2): nobody is talked to who did not come.
    libc::SYS_accept4,
    libc::SYS_recvfrom,
    libc::SYS_recvmsg,
    libc::SYS_sendmsg,
    libc::SYS_shutdown,
    libc::SYS_getsockopt,
    libc::SYS_getsockname,
    libc::SYS_getpeername,
    libc::SYS_geteuid,
    libc::SYS_eventfd2,
    libc::SYS_memfd_create,
    // The kernel's asynchronous I/O signals the eventfds of front-ends, as it does its own: without ever waiting. It reads, writes, syncs and
    // polls what is open, no more.
    libc::SYS_io_setup,
    libc::SYS_io_submit,
    libc::SYS_io_getevents,
    libc::SYS_io_destroy,
    libc::SYS_pipe2,
    // Memory; mmap and mprotect are below.
    libc::SYS_munmap,
    libc::SYS_mremap,
    libc::SYS_madvise,
    // Which chunks of a mapped image are data.
    libc::SYS_mincore,
    libc::SYS_brk,
    // Threads; clone is below.
    libc::SYS_set_robust_list,
    libc::SYS_rseq,
    libc::SYS_sigaltstack,
    libc::SYS_sched_yield,
    libc::SYS_sched_getaffinity,
    libc::SYS_membarrier,
    libc::SYS_exit,
    libc::SYS_exit_group,
    libc::SYS_getpid,
    libc::SYS_gettid,
    // Signals; rt_sigaction, kill and tgkill are below.
    libc::SYS_rt_sigprocmask,
    libc::SYS_rt_sigreturn,
    libc::SYS_rt_sigtimedwait,
    libc::SYS_restart_syscall,
    // Time and chance.
    libc::SYS_clock_gettime,
    libc::SYS_clock_nanosleep,
    libc::SYS_nanosleep,
    libc::SYS_getrandom,
];

/// The older forms of some of them, which newer architectures have not, or only some of them.
#[cfg(target_arch = "x86_64")]
const ALWAYS_HERE: &[i64] = &[
    libc::SYS_epoll_wait,
    libc::SYS_poll,
    libc::SYS_unlink,
    libc::SYS_rename,
    libc::SYS_renameat,
    libc::SYS_stat,
    libc::SYS_lstat,
    libc::SYS_readlink,
];
#[cfg(target_arch = "aarch64")]
const ALWAYS_HERE: &[i64] = &[RENAMEAT];
/// renameat(2), which the crate does not name for this architecture.
#[cfg(target_arch = "aarch64")]
const RENAMEAT: i64 = 38;

/// Answered as by a kernel that has them not: clone3, whose flags a filter cannot see (threads are then made by clone), and two
/// more that the C library has another way for.
const ABSENT: &[i64] = &[libc::SYS_clone3, libc::SYS_openat2, libc::SYS_faccessat2];

/// Numbers from here on, the same on all architectures, are of calls younger than anything this program relies on: the first is
/// futex_waitv, of Linux 5.16.
const YOUNG: std::ops::Range<i64> = 449..512;

/// `F_ADD_SEALS` and its like are small numbers; the argument that holds them is the second.
const FCNTL: &[libc::c_int] = &[
    libc::F_DUPFD_CLOEXEC,
    libc::F_GETFD,
    libc::F_SETFD,
    libc::F_GETFL,
    libc::F_SETFL,
    libc::F_OFD_GETLK,
    libc::F_OFD_SETLK,
    libc::F_ADD_SEALS,
    libc::F_GET_SEALS,
];

/// Requests of ioctl: sizes of block devices, cloned extents, sockets that do not block.
const IOCTL: &[u64] = &[BLKGETSIZE64, libc::BLKSSZGET, FICLONERANGE, libc::FIONBIO];
/// `_IOR(0x12, 114, size_t)`.
const BLKGETSIZE64: u64 = 0x8008_1272;
/// `_IOW(0x94, 13, struct file_clone_range)`, 32 bytes.
const FICLONERANGE: u64 = 0x4020_940d;

/// Names of threads, and of the C library's memory.
const PRCTL: &[libc::c_int] = &[libc::PR_SET_NAME, libc::PR_GET_NAME, libc::PR_SET_VMA];

/// How many threads the kernel may have for a ring (`IORING_REGISTER_IOWQ_MAX_WORKERS`).
/// And which files it has fixed (`IORING_REGISTER_FILES_UPDATE`).
const URING_REGISTER: &[u64] = &[6, 19];
/// What is done with a new ring: `IORING_REGISTER_PROBE`, `_RESTRICTIONS`, `_ENABLE_RINGS`, `_FILES2`.
const URING_REGISTER_NEW: &[u64] = &[8, 11, 12, 13];

/// Guest memory: `IORING_REGISTER_BUFFERS2` for a new ring's places, `IORING_REGISTER_BUFFERS_UPDATE`.
const URING_REGISTER_MEMORY: &[u64] = &[15, 16];

/// Signals whose action may change: abort's, and those whose handlers step aside for the default (stack overflow, SIGBUS). Not SIGSYS.
const SIGACTION: &[libc::c_int] = &[libc::SIGABRT, libc::SIGSEGV, libc::SIGBUS];

/// What a thread is, and what is more than a thread (namespaces, processes).
const CLONE_MASK: u64 = THREAD
    | (libc::CLONE_NEWNS
        | libc::CLONE_NEWCGROUP
        | libc::CLONE_NEWUTS
        | libc::CLONE_NEWIPC
        | libc::CLONE_NEWUSER
        | libc::CLONE_NEWPID
        | libc::CLONE_NEWNET
        | libc::CLONE_VFORK
        | libc::CLONE_PIDFD) as u32 as u64;
const THREAD: u64 = (libc::CLONE_THREAD | libc::CLONE_VM | libc::CLONE_SIGHAND) as u64;

/// Calls that are allowed with any arguments.
pub(super) fn always() -> impl Iterator<Item = i64> {
    ALWAYS.iter().chain(ALWAYS_HERE).copied()
}

/// Calls that are answered with ENOSYS.
pub(super) fn absent() -> impl Iterator<Item = i64> {
    ABSENT.iter().copied().chain(YOUNG.filter(|number| !always().any(|allowed| allowed == *number)))
}

/// What is allowed in this process.
#[derive(Clone, Copy, Debug)]
pub(super) struct Table {
    /// io_uring instances may be made.
    pub(super) makes_rings: bool,
    /// Guest memory is registered with them.
    pub(super) registers_memory: bool,
}

impl Table {
    /// Calls that are allowed with some arguments: by call, the rules of which one has to match, or none for any arguments.
    pub(super) fn conditional(self) -> Result<BTreeMap<i64, Vec<SeccompRule>>, BackendError> {
        let not_executable = || rule(&[when(2, masked(libc::PROT_EXEC as u64), 0)?]);
        let ourselves = u64::from(std::process::id());
        let memory = URING_REGISTER_MEMORY.iter().filter(|_| self.registers_memory);
        let new = URING_REGISTER_NEW.iter().filter(|_| self.makes_rings);
        let registers = URING_REGISTER.iter().chain(new).chain(memory);
        let mut calls = BTreeMap::from([
            (libc::SYS_fcntl, one_of(1, FCNTL.iter().map(|command| *command as u64))?),
            (libc::SYS_io_uring_register, one_of(1, registers.copied())?),
            (libc::SYS_ioctl, one_of(1, IOCTL.iter().copied())?),
            (libc::SYS_prctl, one_of(0, PRCTL.iter().map(|option| *option as u64))?),
            (libc::SYS_rt_sigaction, one_of(0, SIGACTION.iter().map(|signal| *signal as u64))?),
            (libc::SYS_mmap, vec![not_executable()?]),
            (libc::SYS_mprotect, vec![not_executable()?]),
            (libc::SYS_clone, vec![rule(&[when(0, masked(CLONE_MASK), THREAD)?])?]),
            (libc::SYS_kill, one_of(0, [ourselves])?),
            (libc::SYS_tgkill, one_of(0, [ourselves])?),
            // What the limits are, of this process; not what they shall be.
            (
                libc::SYS_prlimit64,
                vec![rule(&[equal(0, 0)?, SeccompCondition::new(2, SeccompCmpArgLen::Qword, SeccompCmpOp::Eq, 0)?])?],
            ),
            // How long a successor may keep us waiting.
            (
                libc::SYS_setsockopt,
                [libc::SO_RCVTIMEO, libc::SO_SNDTIMEO]
                    .into_iter()
                    .map(|option| rule(&[equal(1, libc::SOL_SOCKET as u64)?, equal(2, option as u64)?]))
                    .collect::<Result<_, _>>()?,
            ),
            // On a connected socket, to nobody else.
            (libc::SYS_sendto, vec![rule(&[SeccompCondition::new(4, SeccompCmpArgLen::Qword, SeccompCmpOp::Eq, 0)?])?]),
        ]);
        if self.makes_rings {
            calls.insert(libc::SYS_io_uring_setup, Vec::new());
        }
        Ok(calls)
    }

    /// How many calls are allowed in some form.
    pub(super) fn count(self) -> usize {
        always().count() + self.conditional().map_or(0, |calls| calls.len())
    }
}

fn one_of(argument: u8, values: impl IntoIterator<Item = u64>) -> Result<Vec<SeccompRule>, BackendError> {
    values.into_iter().map(|value| rule(&[equal(argument, value)?])).collect()
}

fn rule(conditions: &[SeccompCondition]) -> Result<SeccompRule, BackendError> {
    SeccompRule::new(conditions.to_vec())
}

/// Arguments of 32 bits: the kernel looks at no more of them.
fn equal(argument: u8, value: u64) -> Result<SeccompCondition, BackendError> {
    when(argument, SeccompCmpOp::Eq, value)
}

fn when(argument: u8, op: SeccompCmpOp, value: u64) -> Result<SeccompCondition, BackendError> {
    let len = match op {
        SeccompCmpOp::MaskedEq(_) => SeccompCmpArgLen::Qword,
        _ => SeccompCmpArgLen::Dword,
    };
    SeccompCondition::new(argument, len, op, value)
}

fn masked(mask: u64) -> SeccompCmpOp {
    SeccompCmpOp::MaskedEq(mask)
}
