//! That each fence of the sandbox holds, shown by deeds that it is there to stop; and that a running `vstgt` is behind all of them.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, missing_docs, reason = "test code")]
#![allow(unsafe_code, reason = "system calls by their numbers, in children of their own")]

mod fenced;
mod frontend;

use std::collections::BTreeMap;
use std::fs::{self, File};
use std::io::Write;
use std::net::{TcpListener, TcpStream};
use std::os::fd::AsRawFd;
use std::os::unix::fs::{MetadataExt, PermissionsExt};
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::Command;

use fenced::Until::{Confined, Sealed};
use fenced::{End, call, call3, errno, fenced};
use frontend::guest::rw10;
use frontend::{Buffer, Guest, Vstgt, eventually};
use seccompiler::{BpfProgram, SeccompAction, SeccompFilter, apply_filter};
use vstgt::sandbox::{Fence, ImageAccess, confine};

fn am_root() -> bool {
    // SAFETY: a query without memory.
    unsafe { libc::geteuid() == 0 }
}

/// The kernel's version of landlock; 0: it has none.
fn landlock() -> i64 {
    // SAFETY: a query without memory.
    let abi = unsafe { libc::syscall(libc::SYS_landlock_create_ruleset, 0, 0, 1) };
    abi.max(0)
}

/// What a deed that only landlock stops ends with here. A kernel without it stops nothing, which is said.
fn by_landlock(since: i64, refused: i32) -> i32 {
    if landlock() >= since {
        return refused;
    }
    eprintln!(
        "this kernel's landlock is of ABI {}: less than {since}, so this deed is expected to be done",
        landlock()
    );
    0
}

/// Directories as a serving process has them.
struct Place {
    dir: tempfile::TempDir,
    fence: Fence,
}

impl Place {
    fn new() -> Place {
        let dir = tempfile::tempdir().unwrap();
        let path = |name: &str| dir.path().join(name);
        for name in ["images", "later", "sockets", "state", "elsewhere"] {
            fs::create_dir(path(name)).unwrap();
        }
        for name in ["images/a", "images/b", "images/other", "later/c", "sockets/x", "state/s", "elsewhere/f"] {
            fs::write(path(name), "1234").unwrap();
        }
        let image = |name, writable| ImageAccess { path: path(name), writable };
        let fence = Fence {
            images: vec![image("images/a", true), image("images/b", false)],
            image_dirs: vec![path("later")],
            socket_dirs: vec![path("sockets")],
            state_dir: Some(path("state")),
            core_dumps: false,
            ..Fence::default()
        };
        Place { dir, fence }
    }

    fn path(&self, name: &str) -> PathBuf {
        self.dir.path().join(name)
    }

    /// The deed's error.
    fn errno(&self, until: fenced::Until, deed: impl FnOnce() -> i32) -> i32 {
        match fenced(&self.fence, until, deed) {
            (End::Errno(code), said) if code != 255 => {
                eprint!("{said}");
                code
            }
            (end, said) => panic!("{end:?}\n{said}"),
        }
    }
}

fn read(path: &Path) -> i32 {
    errno(File::open(path))
}

fn write(path: &Path) -> i32 {
    errno(File::options().write(true).open(path))
}

fn create(path: &Path) -> i32 {
    errno(File::options().write(true).create_new(true).open(path))
}

#[test]
fn files_are_reached_that_are_named_and_no_others() {
    let place = Place::new();
    let refused = by_landlock(1, libc::EACCES);
    for until in [Confined, Sealed] {
        let test = |what: &str, expected: i32, deed: &dyn Fn() -> i32| {
            assert_eq!(place.errno(until, deed), expected, "{what}");
        };
        let path = |name: &str| place.path(name);
        test("an image is written", 0, &|| write(&path("images/a")));
        test("a read-only image is read", 0, &|| read(&path("images/b")));
        test("a read-only image is written", refused, &|| write(&path("images/b")));
        test("another image is read", refused, &|| read(&path("images/other")));
        test("a file appears beside the images", refused, &|| create(&path("images/new")));
        test("an image is removed", refused, &|| errno(fs::remove_file(path("images/a"))));
        test("a later image is written", 0, &|| write(&path("later/c")));
        test("an image is made", refused, &|| create(&path("later/d")));
        test("a socket is removed", 0, &|| {
            let removed = errno(fs::remove_file(path("sockets/x")));
            // For the next time.
            drop(File::create(path("sockets/x")));
            removed
        });
        fs::write(path("sockets/x"), "").unwrap();
        test("a file in the sockets' directory is read", refused, &|| read(&path("sockets/x")));
        test("state is replaced", 0, &|| {
            let written = errno(fs::write(path("state/s.new"), "new"));
            if written == 0 { errno(fs::rename(path("state/s.new"), path("state/s"))) } else { written }
        });
        test("state is moved elsewhere", refused, &|| errno(fs::rename(path("state/s"), path("elsewhere/s"))));
        test("any file is read", refused, &|| read(&path("elsewhere/f")));
        test("any file is written", refused, &|| write(&path("elsewhere/f")));
        test("any file is made", refused, &|| create(&path("elsewhere/g")));
        test("any file is removed", refused, &|| errno(fs::remove_file(path("elsewhere/f"))));
        test("the users are read", refused, &|| read(Path::new("/etc/passwd")));
        test("its own memory is opened", refused, &|| read(Path::new("/proc/self/mem")));
        fs::write(path("elsewhere/f"), "").unwrap();
    }
}

#[test]
fn what_is_open_stays_usable() {
    let place = Place::new();
    let outside = File::options().read(true).write(true).open(place.path("elsewhere/f")).unwrap();
    let deed =
        || errno((&outside).write_all(b"x").and_then(|()| outside.sync_all()).and_then(|()| outside.set_len(100)));
    assert_eq!(place.errno(Sealed, deed), 0);
}

/// Landlock, capabilities and no_new_privs stop these by themselves; the list of system calls would, too.
#[test]
fn nothing_is_executed_reached_or_gained() {
    let place = Place::new();
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = listener.local_addr().unwrap();
    let parent = u64::from(std::process::id());
    let expect = |what: &str, expected: i32, deed: &dyn Fn() -> i32| {
        assert_eq!(place.errno(Confined, deed), expected, "{what}");
    };
    let run = || {
        let words = [c"/bin/true".as_ptr(), std::ptr::null()];
        // SAFETY: a C string, and a list of such with its end.
        unsafe { libc::execv(words[0], words.as_ptr()) };
        errno::<()>(Err(std::io::Error::last_os_error()))
    };
    expect("a program is executed", by_landlock(1, libc::EACCES), &run);
    expect("TCP out", by_landlock(4, libc::EACCES), &|| errno(TcpStream::connect(address)));
    expect("TCP in", by_landlock(4, libc::EACCES), &|| errno(TcpListener::bind("127.0.0.1:0")));
    expect("a signal to another process", by_landlock(6, libc::EPERM), &|| call3(libc::SYS_kill, parent, 0, 0));
    expect("another process is traced", libc::EPERM, &|| {
        call3(libc::SYS_ptrace, libc::PTRACE_ATTACH.into(), parent, 0)
    });
    expect("something is mounted", libc::EPERM, &|| {
        let (from, to) = (c"none".as_ptr() as u64, c"/tmp".as_ptr() as u64);
        call(libc::SYS_mount, [from, to, c"tmpfs".as_ptr() as u64, 0, 0, 0])
    });
    expect("another user's file becomes ours", libc::EPERM, &|| call3(libc::SYS_chroot, c"/".as_ptr() as u64, 0, 0));
    expect("no_new_privs is set", 0, &|| {
        // SAFETY: integers only.
        i32::from(unsafe { libc::prctl(libc::PR_GET_NO_NEW_PRIVS, 0, 0, 0, 0) } != 1)
    });
    expect("there is no core file", 0, &|| {
        let mut limit = libc::rlimit { rlim_cur: 1, rlim_max: 1 };
        // SAFETY: a live struct, and integers.
        let dumpable = unsafe {
            libc::getrlimit(libc::RLIMIT_CORE, &mut limit);
            libc::prctl(libc::PR_GET_DUMPABLE, 0, 0, 0, 0)
        };
        i32::from((limit.rlim_cur, limit.rlim_max, dumpable) != (0, 0, 0))
    });
}

/// The system calls of intruders, each with the arguments of one. Their number is the last thing that is said.
#[test]
fn a_call_that_is_not_listed_ends_the_process_and_is_named() {
    let place = Place::new();
    let ours = u64::from(std::process::id());
    let path = c"/bin/true".as_ptr() as u64;
    let page = 4096u64;
    let map = (libc::MAP_PRIVATE | libc::MAP_ANONYMOUS) as u64;
    let executable = (libc::PROT_READ | libc::PROT_EXEC) as u64;
    let socket = |family: libc::c_int| [family as u64, libc::SOCK_STREAM as u64, 0, 0, 0, 0];
    let address = [0u8; 16];
    let first = |n: u64| [n, 0, 0, 0, 0, 0];
    let second = |n: u64| [0, n, 0, 0, 0, 0];
    for (what, number, arguments) in [
        ("exec", libc::SYS_execve, first(path)),
        ("exec by descriptor", libc::SYS_execveat, [1, path, 0, 0, 0, 0]),
        ("fork", libc::SYS_clone, first(libc::SIGCHLD as u64)),
        ("a thread in a namespace of its own", libc::SYS_clone, first(0x3d_0f00 | libc::CLONE_NEWUSER as u64)),
        ("namespaces", libc::SYS_unshare, first(libc::CLONE_NEWUSER as u64)),
        ("IPv4", libc::SYS_socket, socket(libc::AF_INET)),
        ("IPv6", libc::SYS_socket, socket(libc::AF_INET6)),
        ("netlink", libc::SYS_socket, socket(libc::AF_NETLINK)),
        ("packets", libc::SYS_socket, socket(libc::AF_PACKET)),
        ("a new Unix socket", libc::SYS_socket, socket(libc::AF_UNIX)),
        ("connecting", libc::SYS_connect, first(1)),
        ("sending to an address", libc::SYS_sendto, [1, 0, 0, 0, address.as_ptr() as u64, 16]),
        ("tracing", libc::SYS_ptrace, first(libc::PTRACE_ATTACH as u64)),
        ("another's memory", libc::SYS_process_vm_readv, first(1)),
        ("another's descriptors", libc::SYS_pidfd_getfd, first(1)),
        ("BPF", libc::SYS_bpf, first(5)),
        ("performance events", libc::SYS_perf_event_open, first(0)),
        ("userfaultfd", libc::SYS_userfaultfd, first(0)),
        ("a module", libc::SYS_finit_module, first(1)),
        ("mounting", libc::SYS_mount, first(path)),
        ("another root", libc::SYS_chroot, first(path)),
        ("keys", libc::SYS_keyctl, first(0)),
        ("becoming root", libc::SYS_setuid, first(0)),
        ("capabilities", libc::SYS_capset, first(0)),
        ("owner", libc::SYS_fchownat, second(path)),
        ("mode", libc::SYS_fchmodat, second(path)),
        ("a link", libc::SYS_linkat, second(path)),
        ("a device node", libc::SYS_mknodat, second(path)),
        ("a directory", libc::SYS_mkdirat, second(path)),
        ("a new ring", libc::SYS_io_uring_setup, first(8)),
        ("registering with a ring", libc::SYS_io_uring_register, first(1)),
        ("another filter", libc::SYS_seccomp, first(1)),
        ("executable memory", libc::SYS_mmap, [0, page, executable, map, u64::MAX, 0]),
        ("memory made executable", libc::SYS_mprotect, [page, page, executable, 0, 0, 0]),
        ("memory made executable by key", libc::SYS_pkey_mprotect, [page, page, executable, 0, 0, 0]),
        ("terminal input", libc::SYS_ioctl, [2, libc::TIOCSTI, 0, 0, 0, 0]),
        ("a signal for input", libc::SYS_fcntl, [2, libc::F_SETOWN as u64, 1, 0, 0, 0]),
        ("dumpable again", libc::SYS_prctl, [libc::PR_SET_DUMPABLE as u64, 1, 0, 0, 0, 0]),
        ("seccomp by prctl", libc::SYS_prctl, [libc::PR_SET_SECCOMP as u64, 1, 0, 0, 0, 0]),
        ("catching our signal", libc::SYS_rt_sigaction, [libc::SIGSYS as u64, 0, 0, 8, 0, 0]),
        ("another process's end", libc::SYS_kill, [ours, 9, 0, 0, 0, 0]),
        ("every process's end", libc::SYS_kill, [u64::MAX, 9, 0, 0, 0, 0]),
        ("another process's thread", libc::SYS_tgkill, [ours, ours, 9, 0, 0, 0]),
        ("another limit", libc::SYS_prlimit64, [0, libc::RLIMIT_CORE as u64, path, 0, 0, 0]),
        ("another process's limits", libc::SYS_prlimit64, [1, libc::RLIMIT_CORE as u64, 0, 0, 0, 0]),
    ] {
        let (end, said) = fenced(&place.fence, Sealed, || call(number, arguments));
        assert_eq!(end, End::Signal(libc::SIGSYS), "{what}: {said}");
        let [a, b, c, ..] = arguments;
        let line =
            format!("vstgt: sandbox: system call {number} ({a:#x}, {b:#x}, {c:#x}) is not allowed; the process ends\n");
        assert_eq!(said, line, "{what}");
    }
}

/// The calls of the x32 ABI are the same with a bit set in their numbers: no way around the list.
#[cfg(target_arch = "x86_64")]
#[test]
fn another_abi_is_no_way_around() {
    let (end, said) = fenced(&Place::new().fence, Sealed, || call3(0x4000_0000 | libc::SYS_getpid, 0, 0, 0));
    assert_eq!(end, End::Signal(libc::SIGSYS), "{said}");
}

/// What a newer C library tries first gets the answer of an older kernel.
#[test]
fn calls_that_are_better_not_known_are_not_known() {
    let place = Place::new();
    for number in [libc::SYS_clone3, libc::SYS_openat2, libc::SYS_faccessat2, libc::SYS_futex_waitv, 462, 500, 511] {
        assert_eq!(place.errno(Sealed, || call3(number, 0, 0, 0)), libc::ENOSYS, "{number}");
    }
}

/// Threads, memory of all sizes, panics that are caught, as the reactors' helpers have them.
#[test]
fn ordinary_life_goes_on() {
    let place = Place::new();
    let deed = || {
        let threads: Vec<_> = (0..8)
            .map(|n| {
                let builder = std::thread::Builder::new().name(format!("t{n}")).stack_size(256 << 10);
                builder.spawn(move || {
                    let mut grown = Vec::new();
                    (0..(1u64 << 18)).for_each(|i| grown.push(i));
                    grown.shrink_to_fit();
                    std::thread::sleep(std::time::Duration::from_millis(5));
                    grown.len()
                })
            })
            .collect();
        let ended: usize = threads.into_iter().map(|thread| thread.unwrap().join().unwrap()).sum();
        let caught = std::panic::catch_unwind(|| panic!("caught"));
        // What a panic prints where somebody asked for it: it looks for the program and its files.
        let trace = std::backtrace::Backtrace::force_capture().to_string();
        let (ours, theirs) = match File::open(place.path("later/c")).and_then(|file| Ok((file.try_clone()?, file))) {
            Ok(files) => files,
            Err(_) => return 1,
        };
        let different = ours.as_raw_fd() != theirs.as_raw_fd();
        i32::from(ended != 8 << 18 || caught.is_ok() || trace.is_empty() || !different)
    };
    assert_eq!(place.errno(Sealed, deed), 0);
}

/// A process that crashes does so in its own way, and is not said to be an intruder.
#[test]
fn a_crash_stays_a_crash() {
    let place = Place::new();
    let (end, said) = fenced(&place.fence, Sealed, || std::process::abort());
    assert_eq!(end, End::Signal(libc::SIGABRT), "{said}");
    let (end, said) = fenced(&place.fence, Sealed, || {
        // SAFETY: it ends the process, as it is meant to.
        unsafe { std::ptr::null_mut::<u8>().write_volatile(0) };
        0
    });
    assert_eq!(end, End::Signal(libc::SIGSEGV), "{said}");
    assert!(!said.contains("sandbox"), "{said}");
}

#[test]
fn it_is_too_late_once_there_are_threads() {
    // The test harness has some.
    let said = confine(&Place::new().fence).unwrap_err().to_string();
    assert!(said.contains("threads run already") && said.contains("--sandbox=off"), "{said}");
}

#[test]
fn a_path_that_is_not_there_is_named() {
    let place = Place::new();
    let fence = Fence { image_dirs: vec!["/no/such/dir".into()], ..place.fence };
    let (end, said) = fenced(&fence, Sealed, || 0);
    assert_eq!(end, End::Errno(255));
    assert!(said.contains("/no/such/dir"), "{said}");
}

/// Of all threads, those fields of their status.
fn status_of_threads(vstgt: &Vstgt, fields: &[&str]) -> Vec<Vec<String>> {
    let tasks = fs::read_dir(format!("/proc/{}/task", vstgt.pid())).unwrap();
    let status = |task: std::io::Result<fs::DirEntry>| fs::read_to_string(task.unwrap().path().join("status")).ok();
    let field = |status: &str, name: &str| {
        let line = status.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(':')).unwrap();
        line.trim().to_owned()
    };
    tasks.filter_map(status).map(|status| fields.iter().map(|name| field(&status, name)).collect()).collect()
}

const FENCES: [&str; 6] = ["Seccomp", "NoNewPrivs", "CapEff", "CapPrm", "CapInh", "CapAmb"];
const NONE: &str = "0000000000000000";

#[test]
fn every_thread_of_a_running_process_is_fenced() {
    let mut vstgt = Vstgt::start(2);
    let mut guests: Vec<_> = (0..2).map(|i| Guest::attached(vstgt.socket(i))).collect();
    guests.iter_mut().for_each(|guest| guest.check_io(1));
    let threads = status_of_threads(&vstgt, &FENCES);
    assert!(threads.len() > 4, "{threads:?}");
    assert!(threads.iter().all(|thread| thread[..] == ["2", "1", NONE, NONE, NONE, NONE]), "{threads:?}");
    if am_root() {
        // Who has not CAP_SETPCAP cannot empty this one.
        assert!(status_of_threads(&vstgt, &["CapBnd"]).iter().all(|thread| thread[..] == [NONE]));
        // And tests have it leave core files, see `command_keeping`.
        assert_eq!(core_limit(&vstgt), ["0", "0"]);
    }
    let log = vstgt.log();
    let landlock = if landlock() > 0 { "sandbox: landlock ABI " } else { "sandbox: no landlock" };
    assert!(log.contains(landlock) && log.contains("sandbox: seccomp: "), "{log}");
    vstgt.assert_alive();
    vstgt.stop();
}

/// A process whose images and state come and go opens them by name, and makes rings, behind the same fences but for what that takes.
#[test]
fn a_process_with_guests_that_migrate_is_fenced() {
    let dir = tempfile::tempdir().unwrap();
    let image = dir.path().join("shared.img");
    File::create(&image).unwrap().set_len(frontend::process::IMAGE_SIZE).unwrap();
    let start = |option: &str, wait: &str| {
        let own = tempfile::tempdir().unwrap();
        let mut command = Command::new(env!("CARGO_BIN_EXE_vstgt"));
        command.args(["-v", option, "--wait", wait]).arg("--lun").arg(format!("file={}", image.display()));
        command.arg("--state-dir").arg(dir.path().join("state"));
        let socket = frontend::process::socket_path(own.path(), 0);
        command.arg("--socket-path").arg(format!("{},initiator=a", socket.display()));
        frontend::process::watched(&mut command, own.path());
        Vstgt::spawn(own, vec![socket], command)
    };
    let assert_fenced = |vstgt: &Vstgt| {
        let threads = status_of_threads(vstgt, &FENCES);
        assert!(threads.iter().all(|thread| thread[..] == ["2", "1", NONE, NONE, NONE, NONE]), "{threads:?}");
    };
    let rings = "io_uring instances are made";
    for (wait, makes_rings) in [("epoll", false), ("auto", true)] {
        for option in ["--incoming", "--outgoing"] {
            let mut vstgt = start(option, wait);
            eventually("it serves", || vstgt.log().contains("serving 1 logical units"));
            assert_fenced(&vstgt);
            // With --incoming it is only now that all is opened.
            let mut guest = Guest::attached(vstgt.socket(0));
            guest.clear_attentions();
            guest.check_io(3);
            assert_fenced(&vstgt);
            assert_eq!(vstgt.log().contains(rings), makes_rings, "{}", vstgt.log());
            drop(guest);
            vstgt.assert_alive();
            vstgt.stop();
        }
    }
}

/// Files are named when the process starts: what takes their place later is not let in. State that was kept is found in the same boot.
#[test]
fn what_is_read_as_images_come_is_let_in_and_no_more() {
    let mut place = Place::new();
    let boot = PathBuf::from("/proc/sys/kernel/random/boot_id");
    (place.fence.read, place.fence.comes_and_goes) = (vec![boot.clone(), place.path("elsewhere")], true);
    let refused = by_landlock(1, libc::EACCES);
    for until in [Confined, Sealed] {
        let test = |what: &str, expected: i32, deed: &dyn Fn() -> i32| {
            assert_eq!(place.errno(until, deed), expected, "{what}");
        };
        test("the boot is read", 0, &|| read(&boot));
        test("what is to be read is read", 0, &|| read(&place.path("elsewhere/f")));
        test("what is to be read is written", refused, &|| write(&place.path("elsewhere/f")));
        test("beside the boot", refused, &|| read(Path::new("/proc/sys/kernel/random/uuid")));
        test("an image is opened again", 0, &|| write(&place.path("images/a")));
    }
    let ring = || call(libc::SYS_io_uring_setup, [1, 0, 0, 0, 0, 0]);
    let (end, said) = fenced(&place.fence, Sealed, ring);
    assert_eq!(end, End::Signal(libc::SIGSYS), "{said}");
    place.fence.makes_rings = true;
    assert_ne!(place.errno(Sealed, ring), 0, "without parameters there is no ring, but it may be asked for");
}

/// An image that only root's privileges open is found out when the process starts, not when the guest is there.
#[test]
fn an_image_that_cannot_be_opened_without_privileges_is_refused() {
    if !am_root() {
        eprintln!("only root has privileges to lose");
        return;
    }
    let mut place = Place::new();
    fs::set_permissions(place.path("images/b"), fs::Permissions::from_mode(0o000)).unwrap();
    let (end, _) = fenced(&place.fence, Confined, || 0);
    assert_eq!(end, End::Errno(0), "one that is open may be anybody's");
    place.fence.comes_and_goes = true;
    let (end, said) = fenced(&place.fence, Confined, || 0);
    assert_eq!(end, End::Errno(255), "{said}");
    assert!(said.contains("images/b") && said.contains("--sandbox=off"), "{said}");
}

/// The soft and the hard limit of a core file's size.
fn core_limit(vstgt: &Vstgt) -> [String; 2] {
    let limits = fs::read_to_string(format!("/proc/{}/limits", vstgt.pid())).unwrap();
    let line = limits.lines().find_map(|line| line.strip_prefix("Max core file size")).unwrap();
    let mut words = line.split_whitespace().map(str::to_owned);
    [words.next().unwrap(), words.next().unwrap()]
}

#[test]
fn core_files_are_left_if_asked_for() {
    let limits = |vstgt: Vstgt| {
        let owner = fs::metadata(format!("/proc/{}/mem", vstgt.pid())).unwrap().uid();
        let limit = core_limit(&vstgt);
        vstgt.stop();
        (limit, owner)
    };
    let allowed = limits(Vstgt::start_with(1, |command| {
        if am_root() {
            command.arg("--core-dumps");
        }
    }));
    let unfenced = limits(Vstgt::start_with(1, |command| {
        command.arg("--sandbox=off");
    }));
    assert_eq!(allowed, unfenced, "as it was started with");
}

#[test]
fn it_can_be_switched_off() {
    let vstgt = Vstgt::start_with(1, |command| {
        command.arg("--sandbox=off");
    });
    let ours = fs::read_to_string("/proc/self/status").unwrap();
    let caps = ours.lines().find_map(|line| line.strip_prefix("CapEff:")).unwrap().trim();
    let threads = status_of_threads(&vstgt, &["Seccomp", "NoNewPrivs", "CapEff"]);
    assert!(threads.iter().all(|thread| thread[..] == ["0", "0", caps]), "{threads:?}");
    assert!(!vstgt.log().contains("sandbox"));
    vstgt.stop();
}

/// As a user without privileges, and as root if that is who we are: images of root's that were opened are served on.
#[test]
fn an_ordinary_user_is_fenced_as_well() {
    if !am_root() {
        // Then all tests of this program are of one.
        return;
    }
    const NOBODY: u32 = 65534;
    let dir = tempfile::tempdir().unwrap();
    File::create(dir.path().join("disk.img")).unwrap().set_len(frontend::process::IMAGE_SIZE).unwrap();
    fs::set_permissions(dir.path(), fs::Permissions::from_mode(0o755)).unwrap();
    std::os::unix::fs::chown(dir.path(), Some(NOBODY), Some(NOBODY)).unwrap();
    std::os::unix::fs::chown(dir.path().join("disk.img"), Some(NOBODY), Some(NOBODY)).unwrap();
    let binary = dir.path().join("vstgt");
    // Where the build put it, others than root may not look. Copied by another process: while this one had it open for writing, a child
    // of another test would have it, too, and then it cannot be executed.
    assert!(Command::new("cp").arg(env!("CARGO_BIN_EXE_vstgt")).arg(&binary).status().unwrap().success());
    let log = File::options().create(true).append(true).open(dir.path().join("log")).unwrap();
    let vstgt = Vstgt::start_in(dir, 1, |command| {
        let mut as_nobody = Command::new(&binary);
        as_nobody.args(command.get_args()).uid(NOBODY).gid(NOBODY).stderr(log);
        *command = as_nobody;
    });
    let mut guest = Guest::attached(vstgt.socket(0));
    guest.check_io(1);
    let threads = status_of_threads(&vstgt, &[&FENCES[..], &["Uid"]].concat());
    let uids = [NOBODY; 4].map(|uid| uid.to_string()).join("\t");
    assert!(threads.iter().all(|thread| thread[..] == ["2", "1", NONE, NONE, NONE, NONE, &uids]), "{threads:?}");
    // Not dumpable: what /proc shows of it is root's, so that others of its user may not look in.
    assert_eq!(fs::metadata(format!("/proc/{}/mem", vstgt.pid())).unwrap().uid(), 0);
    drop(guest);
    vstgt.stop();
}

/// What is another user's, root without capabilities cannot write; it is said at the start, not when the first reservation cannot be kept.
#[test]
fn a_state_directory_of_somebody_else_is_refused() {
    if !am_root() {
        // Then it is refused when it is opened.
        return;
    }
    const OTHER: u32 = 64_001;
    let dir = tempfile::tempdir().unwrap();
    File::create(dir.path().join("disk.img")).unwrap().set_len(frontend::process::IMAGE_SIZE).unwrap();
    let state = dir.path().join("state");
    fs::create_dir(&state).unwrap();
    std::os::unix::fs::chown(&state, Some(OTHER), Some(OTHER)).unwrap();
    let mut command = frontend::process::command(dir.path());
    let status = command.arg("--socket-path").arg(dir.path().join("a.sock")).status().unwrap();
    let log = fs::read_to_string(dir.path().join("log")).unwrap();
    let last = log.lines().last().unwrap();
    assert_eq!(status.code(), Some(1), "{log}");
    assert!(last.contains("state: state cannot be written there without privileges: Permission denied"), "{last}");
    assert!(last.contains("--sandbox=off") && !dir.path().join("a.sock").exists(), "{last}");
}

/// A limit of files' sizes is an error of the write that goes beyond it, not the end of the process.
#[test]
fn a_write_beyond_the_limit_of_file_sizes_is_that_writes_error() {
    for engine in ["io_uring", "threads"] {
        let mut vstgt = Vstgt::start_with(1, |command| {
            // SAFETY: setrlimit is async-signal-safe, and the struct lives.
            unsafe {
                command.pre_exec(|| {
                    let limit = libc::rlimit { rlim_cur: 32 << 20, rlim_max: 32 << 20 };
                    match libc::setrlimit(libc::RLIMIT_FSIZE, &limit) {
                        0 => Ok(()),
                        _ => Err(std::io::Error::last_os_error()),
                    }
                })
            };
            command.args(["--engine", engine]);
        });
        let mut guest = Guest::attached(vstgt.socket(0));
        guest.check_io(1);
        // 48 MiB into a disk of 64.
        let at = guest.ram.alloc(4096);
        let beyond = guest.command(&rw10(0x2a, 48 << 11, 4096), &[Buffer::out(at, 4096)], &[]);
        assert_eq!(beyond.sense_code(), Some((3, 0x0c, 2)), "MEDIUM ERROR, WRITE ERROR - AUTO REALLOCATION FAILED");
        guest.check_io(2);
        vstgt.assert_alive();
        vstgt.stop();
    }
}

/// A loop device, detached when dropped.
struct LoopDevice(String);

impl Drop for LoopDevice {
    fn drop(&mut self) {
        drop(Command::new("losetup").args(["--detach", &self.0]).status());
    }
}

/// A block device is asked for its size, and made to deallocate, by other calls than a file.
#[test]
fn a_block_device_is_served() {
    if std::env::var_os("VSTGT_TEST_LOOP_DEVICES").is_none() {
        return;
    }
    let place = tempfile::tempdir().unwrap();
    let file = place.path().join("disk");
    let mut size = 8 << 20;
    File::create(&file).unwrap().set_len(size).unwrap();
    let losetup = Command::new("losetup").args(["--find", "--show"]).arg(&file).output().unwrap();
    assert!(losetup.status.success(), "{losetup:?}");
    let device = LoopDevice(String::from_utf8(losetup.stdout).unwrap().trim().to_owned());
    for engine in ["io_uring", "threads"] {
        let dir = tempfile::tempdir().unwrap();
        std::os::unix::fs::symlink(&device.0, dir.path().join("disk.img")).unwrap();
        let mut vstgt = Vstgt::start_in(dir, 1, |command| {
            command.args(["--engine", engine]);
        });
        let mut guest = Guest::attached(vstgt.socket(0));
        guest.check_io(1);
        // UNMAP of 4096 blocks from block 8 on, where the data is.
        let list = [&[0, 22, 0, 16, 0, 0, 0, 0][..], &[0; 7], &[8, 0, 0, 16, 0, 0, 0, 0, 0]].concat();
        let at = guest.ram.alloc(24);
        guest.ram.write(at, &list);
        let unmapped = guest.command(&[0x42, 0, 0, 0, 0, 0, 0, 0, 24, 0], &[Buffer::out(at, 24)], &[]);
        assert!(unmapped.good(), "{unmapped:?}");
        assert!(guest.read_blocks(16, 4096).iter().all(|byte| *byte == 0));
        // Synchronize cache.
        assert!(guest.command(&[0x35, 0, 0, 0, 0, 0, 0, 0, 0, 0], &[], &[]).good());
        size *= 2;
        File::options().write(true).open(&file).unwrap().set_len(size).unwrap();
        assert!(Command::new("losetup").arg("--set-capacity").arg(&device.0).status().unwrap().success());
        vstgt.signal(libc::SIGUSR1);
        let said = format!("disk.img: {} blocks", size / 512);
        eventually("it is looked at", || vstgt.log().contains(&said));
        vstgt.assert_alive();
        vstgt.stop();
    }
}

/// Starts the program on a kernel that answers this call with this error.
fn lacking(command: &mut Command, call: i64, error: i32) {
    let rules = BTreeMap::from([(call, Vec::new())]);
    let architecture = std::env::consts::ARCH.try_into().unwrap();
    let answer = SeccompAction::Errno(error as u32);
    let filter = SeccompFilter::new(rules, SeccompAction::Allow, answer, architecture).unwrap();
    let program = BpfProgram::try_from(filter).unwrap();
    // SAFETY: two system calls, on memory that was allocated before.
    unsafe { command.pre_exec(move || apply_filter(&program).map_err(std::io::Error::other)) };
}

#[test]
fn a_kernel_without_landlock_is_told_of_and_served_on() {
    for (error, said) in [(libc::ENOSYS, "this kernel has none"), (libc::EOPNOTSUPP, "switched off"), (libc::EPERM, "")]
    {
        let mut vstgt = Vstgt::start_with(1, |command| lacking(command, libc::SYS_landlock_create_ruleset, error));
        let mut guest = Guest::attached(vstgt.socket(0));
        guest.check_io(1);
        let log = vstgt.log();
        let line = log.lines().find(|line| line.contains("sandbox: no landlock")).unwrap();
        assert!(line.contains(" WARN ") && line.contains(said), "{line}");
        let threads = status_of_threads(&vstgt, &FENCES);
        assert!(threads.iter().all(|thread| thread[..] == ["2", "1", NONE, NONE, NONE, NONE]), "{threads:?}");
        vstgt.assert_alive();
        vstgt.stop();
    }
}

#[test]
fn without_seccomp_it_does_not_start_and_says_what_does() {
    let dir = tempfile::tempdir().unwrap();
    File::create(dir.path().join("disk.img")).unwrap().set_len(frontend::process::IMAGE_SIZE).unwrap();
    let mut command = frontend::process::command(dir.path());
    command.arg("--socket-path").arg(dir.path().join("a.sock"));
    lacking(&mut command, libc::SYS_seccomp, libc::EPERM);
    let status = command.status().unwrap();
    let log = fs::read_to_string(dir.path().join("log")).unwrap();
    let last = log.lines().last().unwrap();
    assert_eq!(status.code(), Some(1), "{log}");
    assert!(last.contains("the sandbox cannot be put up: seccomp: ") && last.contains("--sandbox=off"), "{last}");
    assert!(!dir.path().join("a.sock").exists());
}
