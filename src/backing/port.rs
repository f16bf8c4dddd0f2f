//! A reactor's door to its images: submit operations, reap completions.

use std::io;
use std::rc::Rc;
use std::sync::Arc;

use super::engines::{Local, LocalImage, MemoryBudget, Reaped, Task, ThreadEngine, UringEngine};
use super::large::Large;
use super::{BackingError, Capabilities, Image};
use crate::mem::{IoBuf, Region, RegionPart};
use crate::sys::mailbox::Waker;
use crate::sys::ring::Ring;

/// What one operation does.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum OpKind {
    /// image → buffer.
    Read,
    /// buffer → image; durable before it completes if `fua`.
    Write {
        /// Force unit access.
        fua: bool,
    },
    /// Make everything durable that completed before this was submitted.
    Flush,
    /// Deallocate.
    Unmap,
    /// Zero; deallocate if `unmap` and possible.
    WriteZeroes {
        /// Whether blocks may be deallocated.
        unmap: bool,
    },
}

impl OpKind {
    /// What it comes to on an image that can do this.
    pub(super) fn on(self, image: Capabilities) -> OpKind {
        match self {
            OpKind::Write { fua } => OpKind::Write { fua: fua && !image.volatile },
            other => other,
        }
    }
}

/// One operation on an image; offset and length in bytes. Reads and writes use the first `len` bytes of the buffer.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Op {
    /// What to do.
    pub kind: OpKind,
    /// Where.
    pub offset: u64,
    /// How much.
    pub len: u64,
}

/// An operation that ended.
#[derive(Debug)]
pub struct Completion {
    /// What the submitter named it.
    pub cookie: u64,
    /// How it went.
    pub result: Result<(), BackingError>,
    /// If a read or write failed: so many bytes of the range, from its first one on, could be read, or are known to be written. A multiple
    /// of the image's blocks, as far as its system keeps to blocks.
    pub intact: u64,
    /// The buffer, back.
    pub buf: IoBuf,
}

/// Where operations are submitted. Implemented by the reactor's port, and by test engines that hold I/O.
pub trait Submit {
    /// Takes one operation; it completes later (never inside this call) through the port's `reap`. Bits 16 to 31 of `cookie`
    /// say whose it is: large operations of one owner take turns with those of others.
    fn submit(&mut self, image: &Arc<dyn Image>, op: Op, buf: IoBuf, cookie: u64);

    /// Asks that an operation be cancelled if it has not begun; it completes all the same, exactly once.
    fn cancel(&mut self, cookie: u64);
}

/// The most bytes that are copied, zeroed or deallocated inline, in one operation: more would keep a reactor from its other guests.
pub(super) const INLINE_MAX: u64 = 1 << 20;

/// How many operations past the page cache are handed to the kernel at once, and how many ends of such are given at once: a disk that has done all
/// that it had gets something to do as soon as a few of the answers are out, and not when everything is prepared that they bring.
const DISK_BATCH: usize = 8;

/// How many images a port holds on to although nothing uses them at the moment.
const IMAGES_KEPT: usize = 64;

/// A reactor's port: takes operations on any image, and does each with the engine that fits the image.
///
/// * inline, inside `submit`, where the image's calls do not wait for a device (the completion still comes through `reap`);
/// * on the ring, where there is one and the image lets it do such an operation;
/// * else on an I/O thread of the port's own.
///
/// Reads and writes that would keep the reactor long are done a slice a turn, see [`advance`](IoPort::advance): small ones that come meanwhile need
/// not wait for their end.
///
/// An image that hangs keeps to itself: of its operations the ring has a bounded number at a time, and so have the I/O threads; the others wait here. How
/// many threads there may be, of ours and of the kernel's for the ring, goes with the number of images that have something under way, so that each has its share
/// however many of the others hang.
///
/// A turn of the reactor: any number of [`submit`](Submit::submit)s, one [`flush`](IoPort::flush), then
/// [`reap`](IoPort::reap), and in the end [`advance`](IoPort::advance). Before it sleeps, [`has_ended`](IoPort::has_ended) must be false; operations that end later wake it, through the ring (the
/// wait set shares it) or through the waker.
#[derive(Debug)]
pub struct IoPort {
    uring: Option<UringEngine>,
    threads: ThreadEngine,
    /// Ended already, by inline engine or refused at once.
    ended: Vec<Completion>,
    in_flight: usize,
    /// The images it has been given operations on.
    images: Vec<LocalImage>,
    /// Where among them the last one is: mostly the next one is the same.
    recent: usize,
    /// What is to be cancelled with the next `flush` or `reap`: all at once, for each look goes through everything in flight, and a guest that
    /// aborts a task set cancels all it has.
    cancels: Vec<u64>,
    large: Large,
    /// So much direct I/O the kernel has not been given yet.
    unsubmitted: usize,
}

impl IoPort {
    /// A port on the thread's ring, if it has one, with `io_threads` I/O threads (at least one) for two images, half of them for each, more for
    /// more; they are started when first needed. `waker` is woken when an I/O thread has ended an operation. So much guest memory as is left of
    /// `budget` may be registered with the ring.
    pub fn new(ring: Option<Ring>, waker: Arc<Waker>, io_threads: usize, budget: MemoryBudget) -> IoPort {
        IoPort {
            uring: ring.as_ref().and_then(|ring| UringEngine::new(ring, budget)),
            threads: ThreadEngine::new(io_threads, waker),
            ended: Vec::new(),
            in_flight: 0,
            images: Vec::new(),
            recent: 0,
            cancels: Vec::new(),
            large: Large::default(),
            unsubmitted: 0,
        }
    }

    /// Hands to the kernel what was submitted since the last time: one system call, none if there is nothing. A wait on the same ring
    /// does the same as it begins.
    ///
    /// An error means that the ring is unusable; it does not happen to a ring that worked before.
    pub fn flush(&mut self) -> io::Result<()> {
        self.carry_out_cancels();
        self.large.flushed();
        self.unsubmitted = 0;
        match &self.uring {
            Some(uring) if uring.in_flight() > 0 => uring.ring().enter(),
            _ => Ok(()),
        }
    }

    /// Appends operations that have ended to `out`, without waiting and without a system call: all of them, or some where a disk is at work; then
    /// [`has_ended`](IoPort::has_ended) is still true.
    pub fn reap(&mut self, out: &mut Vec<Completion>) {
        self.carry_out_cancels();
        let before = out.len();
        if out.is_empty() {
            // Both keep what they have allocated.
            std::mem::swap(out, &mut self.ended);
        } else {
            out.append(&mut self.ended);
        }
        if let Some(uring) = &mut self.uring {
            let mut of_disks = 0;
            while of_disks < DISK_BATCH
                && let Some(reaped) = uring.reap()
            {
                match reaped {
                    Reaped::Done(completion, direct) => {
                        out.push(completion);
                        of_disks += usize::from(direct);
                    }
                    Reaped::Refused(task) => self.threads.submit(task.for_thread()),
                    Reaped::Sliced(task) => {
                        if let Some(task) = self.large.sliced(task)
                            && let Some(refused) = uring.submit(task)
                        {
                            self.threads.submit(refused.for_thread());
                        }
                    }
                }
            }
        }
        self.threads.reap(out);
        self.in_flight -= out.len() - before;
    }

    /// Goes on with large operations: by a slice, or by as much as the small ones had that were submitted since the last time. And lets go of some
    /// memory that was forgotten.
    pub fn advance(&mut self) {
        if let Some(uring) = &mut self.uring {
            uring.let_go();
        }
        let mut left = self.large.turn();
        while left > 0
            && let Some(mut task) = self.large.next(left)
        {
            left = left.saturating_sub(task.until - task.done);
            if !task.image.capabilities.never_waits {
                self.begin(task);
                continue;
            }
            match task.run_until(task.until) {
                Ok(()) if task.done < task.op.len => self.large.go_on(task),
                result => self.ended.push(task.complete(result)),
            }
        }
    }

    /// Has the ring hold a part of guest memory that belongs to `owner`, so that operations whose buffer is one piece of it need less of the kernel.
    /// It should be [there](RegionPart::populate): the reactor waits for its pages.
    ///
    /// # Errors
    ///
    /// The budget or the limit of locked memory (`ENOMEM`) is reached; there is no ring, or none that does this (`Unsupported`); or the memory is of a
    /// kind that cannot be held. Operations then name their memory by its address, as they do without.
    pub fn register(&mut self, owner: u64, part: RegionPart) -> io::Result<()> {
        let uring = self.uring.as_mut().ok_or(io::ErrorKind::Unsupported)?;
        uring.register(owner, part)
    }

    /// Takes that back for the owner's regions but those that `keeps` names. Operations under way end as they are, and the memory is let go of bit by
    /// bit.
    pub fn forget_memory(&mut self, owner: u64, keeps: impl Fn(&Arc<Region>) -> bool) {
        if let Some(uring) = &mut self.uring {
            uring.forget_memory(owner, keeps);
        }
    }

    /// How many operations have been submitted and not been reaped.
    pub fn in_flight(&self) -> usize {
        self.in_flight
    }

    /// Whether `reap` has something to give, or `advance` something to do. Called after [`Waker::prepare_sleep`], it is the last look: while it is false, whatever ends later
    /// wakes the reactor.
    pub fn has_ended(&self) -> bool {
        !self.ended.is_empty()
            || !self.large.is_empty()
            || self.threads.has_ended()
            || self.uring.as_ref().is_some_and(|uring| uring.has_ended() || uring.is_letting_go())
    }

    fn carry_out_cancels(&mut self) {
        if self.cancels.is_empty() {
            return;
        }
        self.cancels.sort_unstable();
        if let Some(uring) = &mut self.uring {
            uring.cancel(&self.cancels);
        }
        self.threads.cancel(&self.cancels);
        let ended = self.large.cancel(&self.cancels).into_iter();
        self.ended.extend(ended.map(|task| task.complete(Err(BackingError::Cancelled))));
        self.cancels.clear();
    }

    /// This thread's hold on an image. Made once for each; those that nothing uses are let go when a new one comes and there are many.
    fn hold(&mut self, image: &Arc<dyn Image>) -> LocalImage {
        if let Some(held) = self.images.get(self.recent).filter(|held| Arc::ptr_eq(&held.image, image)) {
            return Rc::clone(held);
        }
        if let Some(at) = self.images.iter().position(|held| Arc::ptr_eq(&held.image, image)) {
            self.recent = at;
            return self.hold(image);
        }
        if self.images.len() >= IMAGES_KEPT {
            self.images.retain(|held| Rc::strong_count(held) > 1);
        }
        let fixed = self.uring.as_ref().zip(image.raw()).and_then(|(uring, raw)| uring.ring().fix(raw.fd()));
        let held = Rc::new(Local { fixed, capabilities: image.capabilities(), image: Arc::clone(image) });
        self.images.push(Rc::clone(&held));
        held
    }

    fn start(&mut self, mut task: Task) {
        if let Err(e) = acceptable(&task) {
            return self.ended.push(task.complete(Err(e)));
        }
        let capabilities = task.image.capabilities;
        task.op.kind = task.op.kind.on(capabilities);
        let op = task.op;
        let nothing_to_flush = capabilities.read_only || capabilities.volatile;
        let idle = if op.kind == OpKind::Flush { nothing_to_flush } else { op.len == 0 };
        if idle {
            return self.ended.push(task.run());
        }
        if self.large.takes(&task, self.uring.is_some()) {
            return self.large.put(task);
        }
        self.large.pass(&task);
        self.begin(task);
    }

    /// A direct operation is on the ring: the kernel gets it when there are some.
    fn hand_over(&mut self) {
        self.unsubmitted += 1;
        if self.unsubmitted == DISK_BATCH
            && let Some(uring) = &self.uring
        {
            self.unsubmitted = 0;
            if let Err(e) = uring.ring().enter() {
                // The turn's own `flush` meets it, too.
                log::debug!("submitting failed: {e}");
            }
        }
    }

    /// Hands an operation to the engine that does it.
    fn begin(&mut self, task: Task) {
        let op = task.op;
        if task.image.capabilities.never_waits && op.len <= INLINE_MAX {
            return self.ended.push(task.run());
        }
        let raw = task.image.raw().filter(|raw| raw.is_for_ring(op.kind));
        let task = match (&mut self.uring, raw.map(|raw| raw.check(op))) {
            (Some(_), Some(Err(e))) => return self.ended.push(task.complete(Err(e))),
            (Some(uring), Some(Ok(()))) => {
                let direct = task.image.capabilities.direct;
                match uring.submit(task) {
                    None if direct => return self.hand_over(),
                    None => return,
                    Some(task) => task,
                }
            }
            _ => task,
        };
        self.threads.submit(task.for_thread());
    }
}

/// What no engine may be asked for: a range that passes the end of the image, or of the buffer.
fn acceptable(task: &Task) -> Result<(), BackingError> {
    let op = task.op;
    let moves = matches!(op.kind, OpKind::Read | OpKind::Write { .. });
    if moves && op.len > task.buf.len() {
        return Err(BackingError::OutOfRange);
    }
    let end = op.offset.checked_add(op.len);
    if op.kind != OpKind::Flush && end.is_none_or(|end| end > task.image.size()) {
        return Err(BackingError::OutOfRange);
    }
    Ok(())
}

impl Submit for IoPort {
    fn submit(&mut self, image: &Arc<dyn Image>, op: Op, buf: IoBuf, cookie: u64) {
        self.in_flight += 1;
        let image = self.hold(image);
        self.start(Task::new(image, op, buf, cookie));
    }

    fn cancel(&mut self, cookie: u64) {
        self.cancels.push(cookie);
    }
}

impl Drop for IoPort {
    /// Waits for everything in flight. The ring's engine is dropped before the threads, and does what it has to wait for itself.
    fn drop(&mut self) {
        self.uring = None;
        self.threads.shutdown();
    }
}
