//! The io_uring engine: guest memory goes to the kernel as it is.
//!
//! Whatever the kernel borrows is owned by a [`Slot`] until the operation's last event was taken: the image (its file), the
//! `IoBuf` (its memory and its list of pieces, which lies on the heap and does not move with the `IoBuf`), the slot's own list
//! of pieces, the bounce buffer. Slots are used again, with what they have allocated.
#![allow(unsafe_code, reason = "entries carry raw addresses to the kernel; the slot owns what they point to")]

use std::io;
use std::os::fd::RawFd;
use std::sync::Arc;

use io_uring::squeue::Entry;
use io_uring::{opcode, squeue, types};

use super::Task;
use super::registered::{MemoryBudget, Registered};
use crate::backing::transfer::PIECE;
use crate::backing::{BackingError, Completion, OpKind, RawFile};
use crate::mem::{Region, RegionPart};
use crate::sys::fair::Fair;
use crate::sys::file::{AlignedBuf, IOV_MAX};
use crate::sys::ring::{Channel, Event, KEY_MAX, Ring};

/// The key of entries whose event says nothing.
const NOBODY: u64 = KEY_MAX;
const INDEX_BITS: u32 = 24;
const GENERATION_MASK: u32 = (1 << 23) - 1;

const FUA: OpKind = OpKind::Write { fua: true };

/// Threads of the kernel's for one image: no image has more operations on a ring, see [`RawFile::ring_share`]. Few of them are ever started where
/// nothing hangs.
const SHARE_OF_WORKERS: usize = 256;

/// Bounce buffers kept for later.
const SPARE_BOUNCES: usize = 16;

/// The io_uring engine of one port.
#[derive(Debug)]
pub(in crate::backing) struct UringEngine {
    channel: Channel,
    slots: Vec<Slot>,
    free: Vec<usize>,
    bounces: Vec<AlignedBuf>,
    /// Not begun, because the ring has enough of the image's; its owners are images.
    waiting: Fair<Task>,
    /// Ended before they began.
    cancelled: Vec<Completion>,
    /// Begun, and nothing for the ring.
    refused: Vec<Task>,
    /// Submitted and not reaped, those that wait included.
    in_flight: usize,
    /// Threads that the kernel may have for the ring.
    workers: usize,
    registered: Registered,
}

/// Owns what the kernel borrows for one operation.
#[derive(Debug, Default)]
struct Slot {
    generation: u32,
    task: Option<Task>,
    /// The pieces of this round, where the buffer's own list does not fit.
    iov: Vec<libc::iovec>,
    /// This round goes through here.
    bounce: Option<AlignedBuf>,
    cancelled: bool,
    /// A write with FUA failed with this errno: it is done again without sync, to find out whether it was the sync.
    unsynced: Option<i32>,
}

/// What came back from the ring.
#[derive(Debug)]
pub(in crate::backing) enum Reaped {
    /// An operation that ended, and whether it was direct I/O.
    Done(Completion, bool),
    /// One that the ring cannot do: its blocking method has to.
    Refused(Task),
    /// One that was to stop here.
    Sliced(Task),
}

/// What to do after an event.
enum Next {
    Again,
    Refused,
    Sliced,
    Done(Result<(), BackingError>),
}

impl UringEngine {
    /// An engine on a ring, which may register so much memory; `None` if the ring has no channel left.
    pub(in crate::backing) fn new(ring: &Ring, budget: MemoryBudget) -> Option<UringEngine> {
        Some(UringEngine {
            channel: ring.channel()?,
            slots: Vec::new(),
            free: Vec::new(),
            bounces: Vec::new(),
            waiting: Fair::new(1),
            cancelled: Vec::new(),
            refused: Vec::new(),
            in_flight: 0,
            workers: 0,
            registered: Registered::new(budget),
        })
    }

    /// Registers a part of guest memory with the ring.
    pub(in crate::backing) fn register(&mut self, owner: u64, part: RegionPart) -> io::Result<()> {
        self.registered.add(self.channel.ring(), owner, part)
    }

    /// Registers an owner's memory no more, but for the regions that `keeps` names: no entry from now on names it.
    pub(in crate::backing) fn forget_memory(&mut self, owner: u64, keeps: impl Fn(&Arc<Region>) -> bool) {
        self.registered.forget(owner, keeps);
    }

    /// Takes a step at letting go of forgotten memory.
    pub(in crate::backing) fn let_go(&mut self) {
        self.registered.let_go();
    }

    /// Whether there is another such step.
    pub(in crate::backing) fn is_letting_go(&self) -> bool {
        self.registered.is_letting_go()
    }

    pub(in crate::backing) fn ring(&self) -> &Ring {
        self.channel.ring()
    }

    pub(in crate::backing) fn in_flight(&self) -> usize {
        self.in_flight
    }

    /// Whether `reap` may have something to give.
    pub(in crate::backing) fn has_ended(&self) -> bool {
        self.channel.has_events() || !self.cancelled.is_empty() || !self.refused.is_empty()
    }

    /// Takes a task that passed [`RawFile::check`]; gives it back only if the ring cannot do it. It begins when its image has not too many on
    /// the ring.
    pub(in crate::backing) fn submit(&mut self, task: Task) -> Option<Task> {
        self.in_flight += 1;
        if self.waiting.pass(name_of(&task)) {
            return self.begin(task);
        }
        let share = task.image.raw().map_or(1, RawFile::ring_share);
        let images = self.waiting.put_sharing(name_of(&task), share, task);
        // Each of them may hang, and there is to be as much for another one.
        let wanted = SHARE_OF_WORKERS.saturating_mul(images + 1);
        if wanted > self.workers {
            self.workers = wanted.next_power_of_two();
            self.ring().allow_workers(self.workers);
        }
        self.begin_waiting();
        // What waits already could not begin before, either.
        self.refused.pop()
    }

    /// Begins what may begin.
    fn begin_waiting(&mut self) {
        while let Some((_, task)) = self.waiting.take() {
            let refused = self.begin(task);
            self.refused.extend(refused);
        }
    }

    /// Begins one; gives it back if the ring cannot do it.
    fn begin(&mut self, task: Task) -> Option<Task> {
        let index = self.free.pop().unwrap_or_else(|| {
            self.slots.push(Slot::default());
            self.slots.len() - 1
        });
        if let Some(slot) = self.slots.get_mut(index) {
            slot.task = Some(task);
            slot.cancelled = false;
            slot.unsynced = None;
        }
        if index >> INDEX_BITS != 0 || !self.start(index) { self.retire(index) } else { None }
    }

    /// Asks the kernel to cancel what has one of these names, which are ascending; of what waits, ends it.
    pub(in crate::backing) fn cancel(&mut self, cookies: &[u64]) {
        let waiting = self.waiting.remove(|task| cookies.binary_search(&task.cookie).is_ok());
        self.in_flight -= waiting.len();
        self.cancelled.extend(waiting.into_iter().map(|task| task.complete(Err(BackingError::Cancelled))));
        for (index, slot) in self.slots.iter_mut().enumerate() {
            let named = slot.task.as_ref().is_some_and(|task| cookies.binary_search(&task.cookie).is_ok());
            if named && !slot.cancelled {
                slot.cancelled = true;
                let target = self.channel.user_data(key(index, slot.generation));
                let entry = opcode::AsyncCancel::new(target).build();
                // SAFETY: the entry holds no address and no descriptor.
                unsafe { self.channel.push(NOBODY, entry) };
            }
        }
    }

    /// The next operation that ended, from what the ring has collected. Operations that the kernel did in part are queued again.
    pub(in crate::backing) fn reap(&mut self) -> Option<Reaped> {
        if let Some(cancelled) = self.cancelled.pop() {
            return Some(Reaped::Done(cancelled, false));
        }
        if let Some(refused) = self.refused.pop() {
            return Some(Reaped::Refused(refused));
        }
        while let Some(event) = self.channel.next() {
            let index = (event.key & ((1 << INDEX_BITS) - 1)) as usize;
            let next = match self.slots.get_mut(index) {
                Some(slot) if event.key == key(index, slot.generation) => slot.ended(event),
                _ => continue,
            };
            match next {
                Some(Next::Again) if self.start(index) => {}
                Some(Next::Again | Next::Refused) => {
                    let refused = self.retire(index);
                    self.begin_waiting();
                    if let Some(task) = refused {
                        return Some(Reaped::Refused(task));
                    }
                }
                Some(Next::Sliced) => {
                    let sliced = self.retire(index);
                    self.begin_waiting();
                    if let Some(task) = sliced {
                        return Some(Reaped::Sliced(task));
                    }
                }
                Some(Next::Done(result)) => {
                    let done = self.retire(index);
                    self.begin_waiting();
                    if let Some(task) = done {
                        let direct = task.image.capabilities.direct;
                        return Some(Reaped::Done(task.complete(result), direct));
                    }
                }
                None => {}
            }
        }
        None
    }

    fn retire(&mut self, index: usize) -> Option<Task> {
        let slot = self.slots.get_mut(index)?;
        let task = slot.task.take()?;
        // A late cancel entry for the former operation names a generation that is over.
        slot.generation = (slot.generation + 1) & GENERATION_MASK;
        if let Some(bounce) = slot.bounce.take()
            && self.bounces.len() < SPARE_BOUNCES
        {
            self.bounces.push(bounce);
        }
        self.free.push(index);
        self.in_flight -= 1;
        self.waiting.ended(name_of(&task));
        Some(task)
    }

    /// Queues the entry for what is left of the slot's operation; false if there is none that would do it.
    fn start(&mut self, index: usize) -> bool {
        let Some(slot) = self.slots.get_mut(index) else { return false };
        let key = key(index, slot.generation);
        let Some(mut entry) = slot.entry(&mut self.bounces, &self.registered) else { return false };
        if slot.waits() {
            entry = entry.flags(squeue::Flags::ASYNC);
        }
        // SAFETY: the slot owns the image (and so the descriptor), the buffer, the list of pieces and the bounce buffer, and
        // changes none of them until the entry's event has been taken: `ended` and `retire` are called only then. Moving the slot (when
        // `slots` grows) moves none of the memory that the entry points to, all of it is on the heap or the guest's.
        unsafe { self.channel.push(key, entry) };
        true
    }
}

impl Drop for UringEngine {
    fn drop(&mut self) {
        loop {
            while let Some(reaped) = self.reap() {
                match reaped {
                    Reaped::Done(..) => {}
                    Reaped::Refused(task) | Reaped::Sliced(task) => drop(task.run()),
                }
            }
            if self.in_flight == 0 {
                return;
            }
            if let Err(e) = self.channel.enter_and_wait() {
                // The kernel may still write into the buffers: they cannot be given up, and there is no way to wait for it.
                log::error!("io_uring failed with {} operations in flight: {e}", self.in_flight);
                std::process::abort();
            }
        }
    }
}

/// Tells images apart, while one of their operations lives.
fn name_of(task: &Task) -> u64 {
    Arc::as_ptr(&task.image.image).cast::<()>().addr() as u64
}

fn key(index: usize, generation: u32) -> u64 {
    u64::from(generation) << INDEX_BITS | index as u64
}

impl Slot {
    /// Whether its file may make wait whoever submits the entry.
    fn waits(&self) -> bool {
        self.task.as_ref().and_then(|task| task.image.raw()).is_some_and(RawFile::waits)
    }

    /// The entry for what is left to do.
    fn entry(&mut self, bounces: &mut Vec<AlignedBuf>, registered: &Registered) -> Option<Entry> {
        let task = self.task.as_ref()?;
        let raw = task.image.raw()?;
        let file = Target::of(task, raw);
        let op = task.op;
        match op.kind {
            OpKind::Read | OpKind::Write { .. } => {
                let offset = op.offset + task.done;
                let durable = op.kind == FUA && self.unsynced.is_none();
                let flags = if durable { libc::RWF_DSYNC } else { 0 };
                let pieces = Slot::pieces(task, raw, &mut self.iov, &mut self.bounce, bounces);
                Some(transfer(op.kind, file, Memory::of(pieces, registered), offset, flags))
            }
            // See `RawFile::is_for_ring`.
            OpKind::Flush => None,
            OpKind::Unmap | OpKind::WriteZeroes { .. } => {
                let mode = raw.fallocate_mode_for(op)?;
                Some(on!(file, fd => opcode::Fallocate::new(fd, op.len).offset(op.offset).mode(mode).build()))
            }
        }
    }

    /// The memory of this round: the buffer's own pieces where they fit, else a list of its own, else a bounce buffer.
    fn pieces<'a>(
        task: &'a Task,
        raw: &RawFile,
        iov: &'a mut Vec<libc::iovec>,
        bounce: &mut Option<AlignedBuf>,
        bounces: &mut Vec<AlignedBuf>,
    ) -> &'a [libc::iovec] {
        let left = task.until - task.done;
        let own = task.buf.iovecs();
        if task.done == 0 && left == task.buf.len() && own.len() <= IOV_MAX && raw.takes(own) {
            return own;
        }
        iov.clear();
        task.buf.iovecs_range(task.done, left, iov);
        if raw.takes(iov) {
            iov.truncate(IOV_MAX);
            return iov;
        }
        let want = left.min(PIECE) as usize;
        let buf = bounce.get_or_insert_with(|| bounces.pop().unwrap_or_else(|| AlignedBuf::new(PIECE as usize)));
        if task.op.kind != OpKind::Read
            && let Some(dst) = buf.get_mut(..want)
        {
            task.buf.read_at(task.done, dst);
        }
        iov.clear();
        iov.push(buf.iovec(want));
        iov
    }

    /// Takes an event's result into account. `None` if there is no operation here.
    fn ended(&mut self, event: Event) -> Option<Next> {
        let task = self.task.as_mut()?;
        let raw = task.image.raw()?;
        let kind = task.op.kind;
        let Ok(moved) = u64::try_from(event.result) else {
            let error = io::Error::from_raw_os_error(-event.result);
            return Some(match -event.result {
                libc::ECANCELED | libc::EINTR if self.cancelled && task.without_effect() => {
                    Next::Done(Err(BackingError::Cancelled))
                }
                libc::ECANCELED | libc::EINTR => Next::Again,
                // Not with this file, not this way, not now; the blocking methods know what else to try.
                libc::EAGAIN | libc::EOPNOTSUPP | libc::ENOSYS | libc::EINVAL => Next::Refused,
                errno if kind == FUA && self.unsynced.is_none() && RawFile::may_be_sync(&error) => {
                    self.unsynced = Some(errno);
                    Next::Again
                }
                // Where in the range that was, the blocking method finds out.
                _ if kind == OpKind::Read
                    && RawFile::is_of_the_medium(&error)
                    && task.op.len - task.done > raw.block() =>
                {
                    Next::Refused
                }
                _ => Next::Done(Err(raw.failed(kind, &error))),
            });
        };
        if !matches!(kind, OpKind::Read | OpKind::Write { .. }) {
            return Some(Next::Done(raw.check(task.op)));
        }
        if moved == 0 {
            // The file ends before the image does.
            return Some(Next::Done(Err(raw.failed(kind, &io::ErrorKind::UnexpectedEof.into()))));
        }
        if kind == OpKind::Read
            && let Some(src) = self.bounce.as_ref().and_then(|bounce| bounce.get(..moved as usize))
        {
            task.buf.write_at(task.done, src);
        }
        task.done = task.done.saturating_add(moved);
        if task.done < task.until {
            return Some(Next::Again);
        }
        if task.done < task.op.len {
            let over = self.cancelled && task.without_effect();
            return Some(if over { Next::Done(Err(BackingError::Cancelled)) } else { Next::Sliced });
        }
        if let Some(errno) = self.unsynced {
            // The write can be done, so it was the sync that could not.
            let error = io::Error::from_raw_os_error(errno);
            raw.sync_failed(&error);
            task.done = 0;
            return Some(Next::Done(Err(raw.failed(kind, &error))));
        }
        if kind == FUA && raw.synced().is_err() {
            task.done = 0;
            return Some(Next::Done(Err(BackingError::WriteFailed)));
        }
        Some(Next::Done(Ok(())))
    }
}

/// How an entry names its file.
#[derive(Clone, Copy)]
enum Target {
    Open(RawFd),
    Fixed(u32),
}

impl Target {
    fn of(task: &Task, raw: &RawFile) -> Target {
        task.image.fixed.as_ref().map_or(Target::Open(raw.fd()), |file| Target::Fixed(file.index()))
    }
}

/// An entry for a [`Target`]: its two ways have two types.
macro_rules! on {
    ($target:expr, $fd:ident => $entry:expr) => {
        match $target {
            Target::Open(fd) => {
                let $fd = types::Fd(fd);
                $entry
            }
            Target::Fixed(index) => {
                let $fd = types::Fixed(index);
                $entry
            }
        }
    };
}
use on;

/// How an entry names its memory.
#[derive(Clone, Copy)]
enum Memory {
    List(*const libc::iovec, u32),
    Piece(*mut u8, u32),
    /// With the number of what the ring holds.
    Fixed(*mut u8, u32, u16),
}

impl Memory {
    fn of(pieces: &[libc::iovec], registered: &Registered) -> Memory {
        if let [one] = pieces
            && let Ok(len) = u32::try_from(one.iov_len)
        {
            let base = one.iov_base.cast::<u8>();
            return match registered.find(base.addr(), one.iov_len) {
                Some(number) => Memory::Fixed(base, len, number),
                None => Memory::Piece(base, len),
            };
        }
        Memory::List(pieces.as_ptr(), pieces.len() as u32)
    }
}

fn transfer(kind: OpKind, file: Target, memory: Memory, offset: u64, flags: i32) -> Entry {
    on!(file, fd => match (kind, memory) {
        (OpKind::Read, Memory::Fixed(base, len, number)) => opcode::ReadFixed::new(fd, base, len, number).offset(offset).build(),
        (OpKind::Read, Memory::Piece(base, len)) => opcode::Read::new(fd, base, len).offset(offset).build(),
        (OpKind::Read, Memory::List(list, count)) => opcode::Readv::new(fd, list, count).offset(offset).build(),
        (_, Memory::Fixed(base, len, number)) => {
            opcode::WriteFixed::new(fd, base, len, number).offset(offset).rw_flags(flags).build()
        }
        (_, Memory::Piece(base, len)) => opcode::Write::new(fd, base, len).offset(offset).rw_flags(flags).build(),
        (_, Memory::List(list, count)) => opcode::Writev::new(fd, list, count).offset(offset).rw_flags(flags).build(),
    })
}
