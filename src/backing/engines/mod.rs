//! The engines behind a port. Each takes a [`Task`] and gives it back, finished.

mod registered;
mod threads;
mod uring;

pub use registered::MemoryBudget;
pub(super) use threads::ThreadEngine;
pub(super) use uring::{Reaped, UringEngine};

use std::ops::Deref;
use std::rc::Rc;
use std::sync::Arc;

use super::{BackingError, Capabilities, Completion, Image, Op, OpKind};
use crate::mem::IoBuf;
use crate::sys::ring::FixedFile;

/// How a port's own thread holds an image: one atomic reference per image and port, and a plain count of the operations that
/// share it. Nothing that two reactors share is written for an operation.
pub(super) type LocalImage = Rc<Local>;

/// An image as one thread uses it.
#[derive(Debug)]
pub(super) struct Local {
    /// Goes before the image.
    pub(super) fixed: Option<FixedFile>,
    /// The image's, which never change.
    pub(super) capabilities: Capabilities,
    pub(super) image: Arc<dyn Image>,
}

impl Deref for Local {
    type Target = Arc<dyn Image>;

    fn deref(&self) -> &Arc<dyn Image> {
        &self.image
    }
}

/// Something that keeps an image open.
pub(super) trait Holds {
    /// The image.
    fn image(&self) -> &Arc<dyn Image>;
}

impl Holds for LocalImage {
    fn image(&self) -> &Arc<dyn Image> {
        &self.image
    }
}

impl Holds for Arc<dyn Image> {
    fn image(&self) -> &Arc<dyn Image> {
        self
    }
}

/// One operation under way. Linear: it ends as a [`Completion`].
#[derive(Debug)]
pub(super) struct Task<I = LocalImage> {
    pub(super) image: I,
    pub(super) op: Op,
    pub(super) buf: IoBuf,
    pub(super) cookie: u64,
    /// Bytes of a read or write that are done already.
    pub(super) done: u64,
    /// Where the ring is to stop for now: the whole length, but for a slice of a transfer that is done in slices.
    pub(super) until: u64,
    /// When this slice was handed over, in flushes of the port.
    pub(super) begun: u32,
}

impl<I> Task<I> {
    /// An operation of which nothing is done.
    pub(super) fn new(image: I, op: Op, buf: IoBuf, cookie: u64) -> Task<I> {
        Task { image, op, buf, cookie, done: 0, until: op.len, begun: 0 }
    }
}

impl Task {
    /// The same, fit for another thread.
    pub(super) fn for_thread(self) -> Task<Arc<dyn Image>> {
        let Task { image, op, buf, cookie, done, until, begun } = self;
        Task { image: Arc::clone(&image.image), op, buf, cookie, done, until, begun }
    }
}

impl<I: Holds> Task<I> {
    /// Ends it. If it failed, it is what comes after the bytes that are done that failed.
    pub(super) fn complete(self, result: Result<(), BackingError>) -> Completion {
        Completion { cookie: self.cookie, result, intact: self.done, buf: self.buf }
    }

    /// Does what is left of it with the image's blocking methods.
    pub(super) fn run(mut self) -> Completion {
        let result = self.run_until(self.op.len);
        self.complete(result)
    }

    /// The same up to byte `until` of a read or write; anything else is done whole.
    ///
    /// # Errors
    ///
    /// The image's. What came before the bytes that failed is done then.
    pub(super) fn run_until(&mut self, until: u64) -> Result<(), BackingError> {
        let Op { kind, offset, len } = self.op;
        let (at, left) = (self.done, until.saturating_sub(self.done));
        let image = self.image.image();
        let result = match kind {
            OpKind::Read => image.read_until(offset.saturating_add(at), left, &mut self.buf, at),
            OpKind::Write { fua } => image.write_until(offset.saturating_add(at), left, &self.buf, at, fua),
            OpKind::Flush => image.flush().map_err(|e| (e, 0)),
            OpKind::Unmap => image.unmap(offset, len).map_err(|e| (e, 0)),
            OpKind::WriteZeroes { unmap } => image.write_zeroes(offset, len, unmap).map_err(|e| (e, 0)),
        };
        self.done = at.saturating_add(match &result {
            Ok(()) => left,
            Err((_, intact)) => *intact,
        });
        result.map_err(|(e, _)| e)
    }

    /// Whether it may still end as cancelled: nothing of it is on the medium.
    pub(super) fn without_effect(&self) -> bool {
        self.done == 0 || self.op.kind == OpKind::Read
    }
}
