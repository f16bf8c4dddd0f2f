//! One io_uring instance, shared by those on a thread who use it.
//!
//! # Contract
//!
//! * A [`Ring`] belongs to the thread that made it (it is not `Send`); clones are handles to the same instance. The kernel is
//!   told so (single issuer, deferred completion work) where it understands that.
//! * Each user opens a [`Channel`]: what it submits through it comes back through it, whoever of the users happened to enter the
//!   kernel. One enter submits what all of them queued.
//! * No entry is ever lost: what does not fit into the submission queue waits in a backlog, in order; what does not fit into
//!   the completion queue waits in the kernel (`IORING_FEAT_NODROP` is required) and is fetched by the next enter.
//! * A ring takes only the operations that this program uses (`IORING_REGISTER_RESTRICTIONS`); any other ends with `EACCES`.
//! * A file that is used often is [fixed](Ring::fix): the kernel then need not look it up and count its users for each operation, which all
//!   threads that use the file would do in one place. The ring holds such a file open until the [`FixedFile`] is dropped.
//! * Memory that is used often can be [fixed](Ring::fix_memory), too, on a ring that was made for it: the kernel then need not look up and hold
//!   its pages for each operation. All of it stays in memory until the [`FixedMemory`] is dropped.
//! * The ring does not own what entries point to. Whoever pushes an entry keeps its memory and its file until the
//!   entry's event was taken from the channel, that is why [`Channel::push`] is unsafe. Iovec arrays may go once the entry was
//!   submitted (`IORING_FEAT_SUBMIT_STABLE` is required), but the users here keep them, too.
#![allow(unsafe_code, reason = "entries carry raw addresses to the kernel; see `Channel::push`")]

use std::cell::RefCell;
use std::collections::VecDeque;
use std::io;
use std::os::fd::RawFd;
use std::ptr::NonNull;
use std::rc::Rc;
use std::time::Duration;

use io_uring::register::{Probe, Restriction};
use io_uring::squeue::Entry;
use io_uring::types::{SubmitArgs, Timespec};
use io_uring::{IoUring, opcode, squeue};

/// What the users in this crate submit. A kernel (or a container's filter) without one of them has no ring for us, and a ring of ours takes nothing
/// else, whoever asks: a ring goes past seccomp, and could otherwise open files and sockets.
const OPCODES: [(&str, u8); 8] = [
    ("Read", opcode::Read::CODE),
    ("Write", opcode::Write::CODE),
    ("Readv", opcode::Readv::CODE),
    ("Writev", opcode::Writev::CODE),
    ("Fallocate", opcode::Fallocate::CODE),
    ("PollAdd", opcode::PollAdd::CODE),
    ("PollRemove", opcode::PollRemove::CODE),
    ("AsyncCancel", opcode::AsyncCancel::CODE),
];

/// The same, of a ring that fixes memory.
const MEMORY_OPCODES: [(&str, u8); 2] =
    [("ReadFixed", opcode::ReadFixed::CODE), ("WriteFixed", opcode::WriteFixed::CODE)];

/// Of linux/io_uring.h: `IORING_REGISTER_FILES_UPDATE`, `IORING_REGISTER_BUFFERS_UPDATE`, `IORING_REGISTER_IOWQ_MAX_WORKERS`.
const REGISTER_FILES_UPDATE: u8 = 6;
const REGISTER_BUFFERS_UPDATE: u8 = 16;
const REGISTER_IOWQ_MAX_WORKERS: u8 = 19;

/// Flags that entries may have: `IOSQE_FIXED_FILE`, `IOSQE_ASYNC`.
const FLAGS: u8 = squeue::Flags::FIXED_FILE.bits() | squeue::Flags::ASYNC.bits();

/// Files that a ring fixes at a time; what comes then is used by its descriptor.
const FIXED: u32 = 256;

/// Pieces of memory that a ring fixes at a time: as many as the kernel has places for (`IORING_MAX_REG_BUFFERS`).
const FIXED_MEMORY: u16 = 1 << 14;

/// How many low bits of an entry's user data belong to the channel's user.
const KEY_BITS: u32 = 48;

/// The most threads that the kernel takes a number for.
const MAX_WORKERS: u32 = 32768;

/// The largest key, and the mask for one.
pub const KEY_MAX: u64 = (1 << KEY_BITS) - 1;

/// A handle to the io_uring instance of this thread.
#[derive(Clone)]
pub struct Ring(Rc<RefCell<Inner>>);

/// One user's way to the ring.
pub struct Channel {
    ring: Ring,
    id: u16,
}

/// The end of one entry.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Event {
    /// What the entry was pushed with.
    pub key: u64,
    /// The entry's result: a count, or a negated errno.
    pub result: i32,
}

/// How long an enter stays in the kernel.
#[derive(Clone, Copy)]
enum Until {
    /// Until everything is submitted.
    Submitted,
    /// Until there is a new event, too, or the time is over.
    Event(Option<Duration>),
}

struct Inner {
    uring: IoUring,
    backlog: VecDeque<Entry>,
    /// Per channel, the events nobody has taken yet; `None` once the channel was closed.
    events: Vec<Option<VecDeque<Event>>>,
    /// How many events lie in `events`.
    untaken: usize,
    /// Places for fixed files that are free.
    places: Vec<u32>,
    /// Places for fixed memory that are free.
    memory_places: Vec<u16>,
}

/// A file that its ring holds open under a number, until this is dropped.
#[derive(Debug)]
pub struct FixedFile {
    ring: Ring,
    index: u32,
}

/// Memory that its ring holds under a number, until this is dropped.
#[derive(Debug)]
pub struct FixedMemory {
    ring: Ring,
    index: u16,
}

impl std::fmt::Debug for Ring {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Ring").finish_non_exhaustive()
    }
}

impl std::fmt::Debug for Channel {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Channel").field("id", &self.id).finish_non_exhaustive()
    }
}

impl Ring {
    /// A ring with room for `entries` submissions at a time (rounded up to a power of two) and four times as many completions.
    ///
    /// # Errors
    ///
    /// The system call's own (`EPERM` and `ENOSYS` are what containers answer that refuse io_uring), or `Unsupported` if the
    /// kernel has a ring that lacks something needed here.
    pub fn new(entries: u32) -> io::Result<Ring> {
        Ring::make(entries, false)
    }

    /// The same, which can [fix memory](Ring::fix_memory) if the kernel has that (Linux 5.19).
    ///
    /// # Errors
    ///
    /// As [`Ring::new`].
    pub fn fixing_memory(entries: u32) -> io::Result<Ring> {
        Ring::make(entries, true)
    }

    fn make(entries: u32, memory: bool) -> io::Result<Ring> {
        let uring = build(entries)?;
        let params = uring.params();
        if !(params.is_feature_nodrop() && params.is_feature_ext_arg() && params.is_feature_submit_stable()) {
            return Err(io::Error::new(io::ErrorKind::Unsupported, "io_uring is too old"));
        }
        let mut probe = Probe::new();
        uring.submitter().register_probe(&mut probe)?;
        if let Some((name, _)) = OPCODES.into_iter().find(|(_, code)| !probe.is_supported(*code)) {
            return Err(io::Error::new(io::ErrorKind::Unsupported, format!("io_uring lacks operation {name}")));
        }
        // Linux 5.19; before, files are used by their descriptors.
        let fixed = uring.submitter().register_files_sparse(FIXED).is_ok();
        let memory = memory
            && MEMORY_OPCODES.iter().all(|(_, code)| probe.is_supported(*code))
            && uring.submitter().register_buffers_sparse(FIXED_MEMORY.into()).is_ok();
        // From here on nothing can be registered but files, a number of threads, and memory if that is wanted.
        let mut allowed: Vec<_> = OPCODES.iter().map(|(_, code)| Restriction::sqe_op(*code)).collect();
        allowed.push(Restriction::register_op(REGISTER_FILES_UPDATE));
        allowed.push(Restriction::register_op(REGISTER_IOWQ_MAX_WORKERS));
        if memory {
            allowed.extend(MEMORY_OPCODES.iter().map(|(_, code)| Restriction::sqe_op(*code)));
            allowed.push(Restriction::register_op(REGISTER_BUFFERS_UPDATE));
        }
        allowed.push(Restriction::sqe_flags_allowed(FLAGS));
        uring.submitter().register_restrictions(&mut allowed)?;
        uring.submitter().register_enable_rings()?;
        let places = if fixed { (0..FIXED).rev().collect() } else { Vec::new() };
        let memory_places = if memory { (0..FIXED_MEMORY).rev().collect() } else { Vec::new() };
        let inner = Inner { uring, backlog: VecDeque::new(), events: Vec::new(), untaken: 0, places, memory_places };
        Ok(Ring(Rc::new(RefCell::new(inner))))
    }

    /// Opens a channel; `None` after 65536 of them, ids are not used twice.
    pub fn channel(&self) -> Option<Channel> {
        let mut inner = self.0.borrow_mut();
        let id = u16::try_from(inner.events.len()).ok()?;
        inner.events.push(Some(VecDeque::new()));
        Some(Channel { ring: self.clone(), id })
    }

    /// Lets the kernel have so many threads for operations on files that it cannot do without waiting. By itself it has a few for each CPU: a
    /// file that hangs has them all, and whatever else needs one waits.
    pub fn allow_workers(&self, workers: usize) {
        let workers = u32::try_from(workers).unwrap_or(u32::MAX).min(MAX_WORKERS);
        // Bounded and unbounded ones; 0 changes nothing.
        let mut limits = [workers, 0];
        if let Err(e) = self.0.borrow().uring.submitter().register_iowq_max_workers(&mut limits) {
            log::warn!("io_uring: a file that hangs may hold up others: no more threads are to be had: {e}");
        }
    }

    /// Holds an open file under a number of its own; `None` if there is no place left, or the kernel does not do it.
    pub fn fix(&self, file: RawFd) -> Option<FixedFile> {
        let mut inner = self.0.borrow_mut();
        let index = inner.places.pop()?;
        match inner.uring.submitter().register_files_update(index, &[file]) {
            Ok(_) => Some(FixedFile { ring: self.clone(), index }),
            Err(e) => {
                log::debug!("a file cannot be fixed in a ring: {e}");
                inner.places.push(index);
                None
            }
        }
    }

    /// Holds `len` bytes of memory, at most 1 GiB, under a number of their own. All of their pages are brought into memory, which takes its time for those
    /// that are not there, and stay there: this is the memory that entries with the number reach, whatever is mapped at its address later.
    ///
    /// # Errors
    ///
    /// `Unsupported` if the ring was not made for it, or cannot be; `ENOMEM` if this is more than the limit of locked memory (`RLIMIT_MEMLOCK`); or the
    /// system's own, for memory that cannot be held: a file's that is neither in memory nor of huge pages.
    pub fn fix_memory(&self, base: NonNull<u8>, len: usize) -> io::Result<FixedMemory> {
        let mut inner = self.0.borrow_mut();
        let index = inner.memory_places.pop().ok_or(io::ErrorKind::Unsupported)?;
        let iov = libc::iovec { iov_base: base.as_ptr().cast(), iov_len: len };
        // SAFETY: only the list of one is read. The kernel has its own hold on the pages, and touches them only for entries that name them, for which
        // whoever pushes those answers.
        match unsafe { inner.uring.submitter().register_buffers_update(index.into(), &[iov], None) } {
            Ok(_) => Ok(FixedMemory { ring: self.clone(), index }),
            Err(e) => {
                inner.memory_places.push(index);
                Err(e)
            }
        }
    }

    /// Submits everything that was pushed and collects what has ended, without waiting. No system call is made if there is
    /// nothing to submit and nothing to fetch.
    pub fn enter(&self) -> io::Result<()> {
        self.0.borrow_mut().enter(Until::Submitted)
    }

    /// Like [`enter`](Self::enter), in the same system call waiting until at least one event can be taken from any channel, or until the
    /// timeout (`None`: without end). May return early with no event.
    pub fn enter_and_wait(&self, timeout: Option<Duration>) -> io::Result<()> {
        let mut inner = self.0.borrow_mut();
        let until = if inner.untaken == 0 { Until::Event(timeout) } else { Until::Submitted };
        inner.enter(until)
    }
}

/// Tries the settings from the best to the plainest; a kernel that does not know one answers `EINVAL`.
fn build(entries: u32) -> io::Result<IoUring> {
    let plain = || {
        let mut builder = IoUring::builder();
        builder.setup_clamp().setup_cqsize(entries.saturating_mul(4)).setup_r_disabled().dontfork();
        builder
    };
    let mut deferred = plain();
    deferred.setup_submit_all().setup_single_issuer().setup_defer_taskrun().setup_taskrun_flag();
    let mut cooperative = plain();
    cooperative.setup_submit_all().setup_coop_taskrun().setup_taskrun_flag();
    let mut last = io::Error::from_raw_os_error(libc::EINVAL);
    for builder in [deferred, cooperative, plain()] {
        match builder.build(entries) {
            Err(e) if e.raw_os_error() == Some(libc::EINVAL) => last = e,
            other => return other,
        }
    }
    Err(last)
}

impl Inner {
    fn enter(&mut self, until: Until) -> io::Result<()> {
        let before = self.untaken;
        self.collect();
        let mut until = if self.untaken == before { until } else { Until::Submitted };
        self.fill();
        // More than one round only while a backlog does not fit or the kernel asks for room in the completion queue.
        loop {
            let entered = match until {
                Until::Event(timeout) if self.backlog.is_empty() && timeout != Some(Duration::ZERO) => {
                    self.submit_and_wait(timeout)
                }
                _ => self.submit(),
            };
            let before = self.untaken;
            self.collect();
            match entered.map_err(|e| (e.raw_os_error(), e)) {
                Ok(()) => {}
                Err((Some(libc::EINTR | libc::ETIME), _)) => {}
                // No room for completions, or no memory for requests: what is in flight has to end first.
                Err((Some(libc::EBUSY | libc::EAGAIN), _)) if self.untaken == before => return Ok(()),
                Err((Some(libc::EBUSY | libc::EAGAIN), _)) => {}
                Err((_, e)) => return Err(e),
            }
            if self.backlog.is_empty() {
                return Ok(());
            }
            if self.untaken != before {
                until = Until::Submitted;
            }
            self.fill();
        }
    }

    fn submit(&mut self) -> io::Result<()> {
        let sq = self.uring.submission();
        if sq.is_empty() && !sq.taskrun() && !sq.cq_overflow() {
            return Ok(());
        }
        drop(sq);
        self.uring.submit().map(drop)
    }

    fn submit_and_wait(&mut self, timeout: Option<Duration>) -> io::Result<()> {
        match timeout {
            None => self.uring.submit_and_wait(1).map(drop),
            Some(timeout) => {
                let spec = Timespec::from(timeout);
                self.uring.submitter().submit_with_args(1, &SubmitArgs::new().timespec(&spec)).map(drop)
            }
        }
    }

    /// Moves the backlog into the submission queue as far as there is room.
    fn fill(&mut self) {
        let mut sq = self.uring.submission();
        while let Some(entry) = self.backlog.front() {
            // SAFETY: the entry came through `Channel::push`, whose caller promised that it is good until its event is taken.
            if unsafe { sq.push(entry) }.is_err() {
                return;
            }
            self.backlog.pop_front();
        }
    }

    /// Sorts the completion queue into the channels.
    fn collect(&mut self) {
        for cqe in self.uring.completion() {
            let id = (cqe.user_data() >> KEY_BITS) as usize;
            if let Some(Some(events)) = self.events.get_mut(id) {
                events.push_back(Event { key: cqe.user_data() & KEY_MAX, result: cqe.result() });
                self.untaken += 1;
            }
        }
    }
}

impl Channel {
    /// The ring it is a channel of.
    pub fn ring(&self) -> &Ring {
        &self.ring
    }

    /// Queues an entry for the next enter. Its event will carry `key` (at most [`KEY_MAX`]; higher bits are cut off).
    ///
    /// # Safety
    ///
    /// Every address and file descriptor in the entry must stay valid, and memory that the kernel writes must not be used otherwise, until
    /// the entry's event has been taken with [`next`](Self::next). An entry must produce exactly one event.
    pub unsafe fn push(&self, key: u64, entry: Entry) {
        let entry = entry.user_data(self.user_data(key));
        let mut inner = self.ring.0.borrow_mut();
        if inner.backlog.is_empty() {
            // SAFETY: passed on to our caller.
            if unsafe { inner.uring.submission().push(&entry) }.is_ok() {
                return;
            }
        }
        inner.backlog.push_back(entry);
    }

    /// Submits everything, and waits until this channel has an event to take, or any other has got a new one. Without end.
    pub fn enter_and_wait(&self) -> io::Result<()> {
        let mut inner = self.ring.0.borrow_mut();
        let queue = inner.events.get(usize::from(self.id)).and_then(Option::as_ref);
        let until = if queue.is_none_or(VecDeque::is_empty) { Until::Event(None) } else { Until::Submitted };
        inner.enter(until)
    }

    /// The user data that an entry pushed with `key` has, for entries that name another entry (cancel, poll remove).
    pub fn user_data(&self, key: u64) -> u64 {
        u64::from(self.id) << KEY_BITS | (key & KEY_MAX)
    }

    /// Whether [`next`](Self::next) has an event to give.
    pub fn has_events(&self) -> bool {
        let inner = self.ring.0.borrow();
        inner.events.get(usize::from(self.id)).and_then(Option::as_ref).is_some_and(|queue| !queue.is_empty())
    }

    /// Takes the next event of this channel from what the enters have collected.
    pub fn next(&self) -> Option<Event> {
        let mut inner = self.ring.0.borrow_mut();
        let event = inner.events.get_mut(usize::from(self.id))?.as_mut()?.pop_front()?;
        inner.untaken -= 1;
        Some(event)
    }
}

impl FixedFile {
    /// Its number, for entries.
    pub fn index(&self) -> u32 {
        self.index
    }
}

impl Drop for FixedFile {
    /// Operations that were submitted have their own hold on the file.
    fn drop(&mut self) {
        let mut inner = self.ring.0.borrow_mut();
        match inner.uring.submitter().register_files_update(self.index, &[-1]) {
            Ok(_) => inner.places.push(self.index),
            Err(e) => log::warn!("a ring does not let go of a file: {e}"),
        }
    }
}

impl FixedMemory {
    /// Its number, for entries.
    pub fn index(&self) -> u16 {
        self.index
    }
}

impl Drop for FixedMemory {
    /// Operations that were submitted have their own hold on the memory.
    fn drop(&mut self) {
        let mut inner = self.ring.0.borrow_mut();
        let nothing = libc::iovec { iov_base: std::ptr::null_mut(), iov_len: 0 };
        // SAFETY: only the list of one is read.
        match unsafe { inner.uring.submitter().register_buffers_update(self.index.into(), &[nothing], None) } {
            Ok(_) => inner.memory_places.push(self.index),
            Err(e) => log::warn!("a ring does not let go of memory: {e}"),
        }
    }
}

impl Drop for Channel {
    fn drop(&mut self) {
        let mut inner = self.ring.0.borrow_mut();
        if let Some(slot) = inner.events.get_mut(usize::from(self.id)) {
            let left = slot.take().map_or(0, |events| events.len());
            inner.untaken -= left;
        }
    }
}

/// Whether this process may use io_uring.
pub fn probe_io_uring() -> bool {
    match Ring::new(8) {
        Ok(_) => true,
        Err(e) => {
            log::debug!("io_uring is not available: {e}");
            false
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::os::fd::AsRawFd;
    use std::time::Instant;

    fn ring(entries: u32) -> Option<Ring> {
        probe_io_uring().then(|| Ring::new(entries).unwrap())
    }

    /// Ends at once: it is to cancel what is not there.
    fn nop(channel: &Channel, key: u64) {
        // SAFETY: it names no memory and no file.
        unsafe { channel.push(key, opcode::AsyncCancel::new(u64::MAX).build()) };
    }

    fn take(channel: &Channel) -> Vec<u64> {
        std::iter::from_fn(|| channel.next()).map(|event| event.key).collect()
    }

    #[test]
    fn nothing_is_lost_when_the_queues_overflow() {
        let Some(ring) = ring(4) else { return };
        let channel = ring.channel().unwrap();
        for key in 0..1000 {
            nop(&channel, key);
        }
        let mut keys = Vec::new();
        while keys.len() < 1000 {
            ring.enter_and_wait(Some(Duration::from_secs(10))).unwrap();
            let more = take(&channel);
            assert!(!more.is_empty(), "lost after {}", keys.len());
            keys.extend(more);
        }
        keys.sort();
        assert_eq!(keys, (0..1000).collect::<Vec<_>>());
        ring.enter().unwrap();
        assert_eq!(channel.next(), None);
    }

    #[test]
    fn completions_overflow_while_nobody_looks() {
        let Some(ring) = ring(4) else { return };
        let channel = ring.channel().unwrap();
        let (ours, theirs) = std::os::unix::net::UnixStream::pair().unwrap();
        for key in 0..200 {
            let poll = opcode::PollAdd::new(io_uring::types::Fd(ours.as_raw_fd()), libc::POLLIN as u32).build();
            // SAFETY: the socket outlives the ring's use of it: all polls end below.
            unsafe { channel.push(key, poll) };
            ring.enter().unwrap();
        }
        assert!(!channel.has_events());
        // All 200 fire at once; the completion queue holds 16.
        drop(theirs);
        let mut keys = Vec::new();
        while keys.len() < 200 {
            ring.enter_and_wait(Some(Duration::from_secs(10))).unwrap();
            let more = take(&channel);
            assert!(!more.is_empty(), "lost after {}", keys.len());
            keys.extend(more);
        }
        keys.sort();
        assert_eq!(keys, (0..200).collect::<Vec<_>>());
    }

    #[test]
    fn events_come_back_through_their_channel() {
        let Some(ring) = ring(8) else { return };
        let (a, b) = (ring.channel().unwrap(), ring.channel().unwrap());
        nop(&a, KEY_MAX);
        nop(&b, 0);
        nop(&a, 5);
        assert!(!a.has_events());
        ring.enter().unwrap();
        assert!(a.has_events() && b.has_events());
        assert_eq!(take(&a), [KEY_MAX, 5]);
        assert_eq!(take(&b), [0]);
        nop(&a, 1);
        nop(&b, 2);
        drop(a);
        ring.enter().unwrap();
        assert_eq!(take(&b), [2]);
        // What came for the closed channel does not keep anybody awake.
        let start = Instant::now();
        ring.enter_and_wait(Some(Duration::from_millis(20))).unwrap();
        assert!(start.elapsed() >= Duration::from_millis(20));
    }

    #[test]
    fn operations_that_nobody_uses_are_refused() {
        let Some(ring) = ring(8) else { return };
        let channel = ring.channel().unwrap();
        let refused = |entry: Entry| {
            // SAFETY: whatever the entries name is static, or not there.
            unsafe { channel.push(1, entry) };
            ring.enter_and_wait(Some(Duration::from_secs(10))).unwrap();
            assert_eq!(channel.next(), Some(Event { key: 1, result: -libc::EACCES }));
        };
        let cwd = io_uring::types::Fd(libc::AT_FDCWD);
        refused(opcode::OpenAt::new(cwd, c"/etc/passwd".as_ptr()).flags(libc::O_RDONLY).build());
        refused(opcode::Socket::new(libc::AF_INET, libc::SOCK_STREAM, 0).build());
        refused(opcode::Nop::new().build());
        // Nor is a flag that no entry has here.
        refused(opcode::AsyncCancel::new(u64::MAX).build().flags(squeue::Flags::IO_LINK));
        let inner = ring.0.borrow();
        let eventfd = vmm_sys_util::eventfd::EventFd::new(0).unwrap();
        let register = inner.uring.submitter().register_eventfd(eventfd.as_raw_fd());
        assert_eq!(register.unwrap_err().raw_os_error(), Some(libc::EACCES));
        inner.uring.submitter().register_iowq_max_workers(&mut [0, 0]).unwrap();
    }

    #[test]
    fn a_fixed_file_is_held_open_until_it_is_let_go() {
        let Some(ring) = ring(8) else { return };
        let channel = ring.channel().unwrap();
        let read = |index: u32| {
            let mut byte = Box::new(0u8);
            let entry = opcode::Read::new(io_uring::types::Fixed(index), &raw mut *byte, 1).build();
            // SAFETY: the byte lives until the event was taken.
            unsafe { channel.push(1, entry) };
            ring.enter_and_wait(Some(Duration::from_secs(10))).unwrap();
            channel.next().unwrap().result
        };
        let (ours, theirs) = std::os::unix::net::UnixStream::pair().unwrap();
        let fixed = ring.fix(theirs.as_raw_fd()).unwrap();
        drop(theirs);
        std::io::Write::write_all(&mut &ours, b"x").unwrap();
        let index = fixed.index();
        assert_eq!(read(index), 1);
        drop(fixed);
        assert_eq!(std::io::Read::read(&mut &ours, &mut [0]).unwrap(), 0, "nobody has the other end");
        assert_eq!(read(index), -libc::EBADF);
        let many: Vec<_> = std::iter::from_fn(|| ring.fix(ours.as_raw_fd())).collect();
        assert_eq!(many.len(), FIXED as usize);
        drop(many);
        assert!(ring.fix(ours.as_raw_fd()).is_some());
        assert!(ring.fix(-5).is_none());
    }

    /// One that is used and not listed would end with `EACCES` where it is used; this says so before.
    #[test]
    fn every_operation_in_this_crate_is_listed() {
        let mut used = Vec::new();
        let mut directories = vec![std::path::PathBuf::from(concat!(env!("CARGO_MANIFEST_DIR"), "/src"))];
        while let Some(directory) = directories.pop() {
            for entry in std::fs::read_dir(directory).unwrap() {
                let path = entry.unwrap().path();
                if path.is_dir() {
                    directories.push(path);
                } else if path.extension().is_some_and(|extension| extension == "rs") {
                    let text = std::fs::read_to_string(&path).unwrap();
                    let code = text.split("#[cfg(test)]").next().unwrap();
                    used.extend(code.split("opcode::").skip(1).filter_map(|rest| {
                        let name = rest.split("::new(").next()?;
                        name.chars().all(char::is_alphanumeric).then(|| name.to_owned())
                    }));
                }
            }
        }
        used.sort();
        used.dedup();

        let mut listed: Vec<_> = OPCODES.iter().chain(&MEMORY_OPCODES).map(|(name, _)| *name).collect();
        listed.sort();
        assert_eq!(used, listed);
    }

    #[test]
    fn a_wait_does_not_sleep_on_events_that_were_not_taken() {
        let Some(ring) = ring(8) else { return };
        let channel = ring.channel().unwrap();
        nop(&channel, 1);
        ring.enter().unwrap();
        ring.enter_and_wait(None).unwrap();
        channel.enter_and_wait().unwrap();
        assert_eq!(take(&channel), [1]);
        nop(&channel, 2);
        channel.enter_and_wait().unwrap();
        assert_eq!(take(&channel), [2]);
    }
}
