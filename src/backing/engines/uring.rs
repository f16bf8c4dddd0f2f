//! The io_uring engine: guest memory goes to the kernel as it is.
//!
//! Whatever the kernel borrows is owned by a [`Slot`] until the operation's last event was taken: the image (its file), the
//! `IoBuf` (its memory and its list of pieces, which lies on the heap and does not move with the `IoBuf`), the slot's own list
//! of pieces, the bounce buffer. Slots are used again, with what they have allocated.
#![allow(unsafe_code, reason = "entries carry raw addresses to the kernel; the slot owns what they point to")]

use std::io;

use io_uring::squeue::Entry;
use io_uring::{opcode, types};

use super::Task;
use crate::backing::transfer::PIECE;
use crate::backing::{BackingError, Completion, OpKind, RawFile};
use crate::sys::file::{AlignedBuf, IOV_MAX};
use crate::sys::ring::{Channel, Event, KEY_MAX, Ring};

/// The key of entries whose event says nothing.
const NOBODY: u64 = KEY_MAX;
const INDEX_BITS: u32 = 24;
const GENERATION_MASK: u32 = (1 << 23) - 1;

const FUA: OpKind = OpKind::Write { fua: true };

/// Bounce buffers kept for later.
const SPARE_BOUNCES: usize = 16;

/// The io_uring engine of one port.
#[derive(Debug)]
pub(in crate::backing) struct UringEngine {
    channel: Channel,
    slots: Vec<Slot>,
    free: Vec<usize>,
    bounces: Vec<AlignedBuf>,
    in_flight: usize,
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
    /// An operation that ended.
    Done(Completion),
    /// One that the ring cannot do: its blocking method has to.
    Refused(Task),
}

/// What to do after an event.
enum Next {
    Again,
    Refused,
    Done(Result<(), BackingError>),
}

impl UringEngine {
    /// An engine on a ring; `None` if the ring has no channel left.
    pub(in crate::backing) fn new(ring: &Ring) -> Option<UringEngine> {
        Some(UringEngine {
            channel: ring.channel()?,
            slots: Vec::new(),
            free: Vec::new(),
            bounces: Vec::new(),
            in_flight: 0,
        })
    }

    pub(in crate::backing) fn ring(&self) -> &Ring {
        self.channel.ring()
    }

    pub(in crate::backing) fn in_flight(&self) -> usize {
        self.in_flight
    }

    /// Whether `reap` may have something to give.
    pub(in crate::backing) fn has_ended(&self) -> bool {
        self.channel.has_events()
    }

    /// Takes a task that passed [`RawFile::check`]; gives it back only if the ring cannot do it.
    pub(in crate::backing) fn submit(&mut self, task: Task) -> Option<Task> {
        let index = match self.free.pop() {
            Some(index) => index,
            None if self.slots.len() >> INDEX_BITS != 0 => return Some(task),
            None => {
                self.slots.push(Slot::default());
                self.slots.len() - 1
            }
        };
        let Some(slot) = self.slots.get_mut(index) else { return Some(task) };
        slot.task = Some(task);
        slot.cancelled = false;
        slot.unsynced = None;
        self.in_flight += 1;
        if self.start(index) { None } else { self.retire(index) }
    }

    /// Asks the kernel to cancel what has one of these names, which are ascending.
    pub(in crate::backing) fn cancel(&mut self, cookies: &[u64]) {
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
        while let Some(event) = self.channel.next() {
            let index = (event.key & ((1 << INDEX_BITS) - 1)) as usize;
            let next = match self.slots.get_mut(index) {
                Some(slot) if event.key == key(index, slot.generation) => slot.ended(event),
                _ => continue,
            };
            match next {
                Some(Next::Again) if self.start(index) => {}
                Some(Next::Again | Next::Refused) => {
                    if let Some(task) = self.retire(index) {
                        return Some(Reaped::Refused(task));
                    }
                }
                Some(Next::Done(result)) => {
                    if let Some(task) = self.retire(index) {
                        return Some(Reaped::Done(task.complete(result)));
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
        Some(task)
    }

    /// Queues the entry for what is left of the slot's operation; false if there is none that would do it.
    fn start(&mut self, index: usize) -> bool {
        let Some(slot) = self.slots.get_mut(index) else { return false };
        let key = key(index, slot.generation);
        let Some(entry) = slot.entry(&mut self.bounces) else { return false };
        // SAFETY: the slot owns the image (and so the descriptor), the buffer, the list of pieces and the bounce buffer, and
        // changes none of them until the entry's event has been taken: `ended` and `retire` are called only then. Moving the slot (when
        // `slots` grows) moves none of the memory that the entry points to, all of it is on the heap or the guest's.
        unsafe { self.channel.push(key, entry) };
        true
    }
}

impl Drop for UringEngine {
    fn drop(&mut self) {
        while self.in_flight > 0 {
            if let Err(e) = self.channel.enter_and_wait() {
                // The kernel may still write into the buffers: they cannot be given up, and there is no way to wait for it.
                log::error!("io_uring failed with {} operations in flight: {e}", self.in_flight);
                std::process::abort();
            }
            while let Some(reaped) = self.reap() {
                match reaped {
                    Reaped::Done(_) => {}
                    Reaped::Refused(task) => drop(task.run()),
                }
            }
        }
    }
}

fn key(index: usize, generation: u32) -> u64 {
    u64::from(generation) << INDEX_BITS | index as u64
}

impl Slot {
    /// The entry for what is left to do.
    fn entry(&mut self, bounces: &mut Vec<AlignedBuf>) -> Option<Entry> {
        let task = self.task.as_ref()?;
        let raw = task.image.raw()?;
        let fd = types::Fd(raw.fd());
        let op = task.op;
        match op.kind {
            OpKind::Read | OpKind::Write { .. } => {
                let offset = op.offset + task.done;
                let durable = op.kind == FUA && self.unsynced.is_none();
                let flags = if durable { libc::RWF_DSYNC } else { 0 };
                let pieces = Slot::pieces(task, raw, &mut self.iov, &mut self.bounce, bounces);
                Some(transfer(op.kind, fd, pieces, offset, flags))
            }
            OpKind::Flush => Some(opcode::Fsync::new(fd).flags(types::FsyncFlags::DATASYNC).build()),
            OpKind::Unmap | OpKind::WriteZeroes { .. } => {
                let mode = raw.fallocate_mode_for(op)?;
                Some(opcode::Fallocate::new(fd, op.len).offset(op.offset).mode(mode).build())
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
        let left = task.op.len - task.done;
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
                _ => {
                    if kind == OpKind::Flush {
                        raw.sync_failed(&error);
                    }
                    Next::Done(Err(raw.failed(kind, &error)))
                }
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
        if task.done < task.op.len {
            return Some(Next::Again);
        }
        if let Some(errno) = self.unsynced {
            // The write can be done, so it was the sync that could not.
            let error = io::Error::from_raw_os_error(errno);
            raw.sync_failed(&error);
            return Some(Next::Done(Err(raw.failed(kind, &error))));
        }
        Some(Next::Done(Ok(())))
    }
}

fn transfer(kind: OpKind, fd: types::Fd, pieces: &[libc::iovec], offset: u64, flags: i32) -> Entry {
    let (list, count) = (pieces.as_ptr(), pieces.len() as u32);
    let single = match pieces {
        [one] => u32::try_from(one.iov_len).ok().map(|len| (one.iov_base.cast::<u8>(), len)),
        _ => None,
    };
    match (kind, single) {
        (OpKind::Read, Some((base, len))) => opcode::Read::new(fd, base, len).offset(offset).build(),
        (OpKind::Read, None) => opcode::Readv::new(fd, list, count).offset(offset).build(),
        (_, Some((base, len))) => opcode::Write::new(fd, base, len).offset(offset).rw_flags(flags).build(),
        (_, None) => opcode::Writev::new(fd, list, count).offset(offset).rw_flags(flags).build(),
    }
}
