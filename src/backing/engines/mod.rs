//! The engines behind a port. Each takes a [`Task`] and gives it back, finished.

mod threads;
mod uring;

pub(super) use threads::ThreadEngine;
pub(super) use uring::{Reaped, UringEngine};

use std::sync::Arc;

use super::{BackingError, Completion, Image, Op, OpKind};
use crate::mem::IoBuf;

/// One operation under way. Linear: it ends as a [`Completion`].
#[derive(Debug)]
pub(super) struct Task {
    pub(super) image: Arc<dyn Image>,
    pub(super) op: Op,
    pub(super) buf: IoBuf,
    pub(super) cookie: u64,
    /// Bytes of a read or write that are done already.
    pub(super) done: u64,
}

impl Task {
    pub(super) fn complete(self, result: Result<(), BackingError>) -> Completion {
        Completion { cookie: self.cookie, result, buf: self.buf }
    }

    /// Does what is left of it with the image's blocking methods.
    pub(super) fn run(mut self) -> Completion {
        let Op { kind, offset, len } = self.op;
        let (at, left) = (self.done, len.saturating_sub(self.done));
        let result = match kind {
            OpKind::Read => self.image.read(offset.saturating_add(at), left, &mut self.buf, at),
            OpKind::Write { fua } => self.image.write(offset.saturating_add(at), left, &self.buf, at, fua),
            OpKind::Flush => self.image.flush(),
            OpKind::Unmap => self.image.unmap(offset, len),
            OpKind::WriteZeroes { unmap } => self.image.write_zeroes(offset, len, unmap),
        };
        self.complete(result)
    }

    /// Whether it may still end as cancelled: nothing of it is on the medium.
    pub(super) fn without_effect(&self) -> bool {
        self.done == 0 || self.op.kind == OpKind::Read
    }
}
