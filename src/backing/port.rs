//! A reactor's door to its images: submit operations, reap completions.

use std::sync::Arc;

use super::{BackingError, Image};
use crate::mem::IoBuf;

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
    /// The buffer, back.
    pub buf: IoBuf,
}

/// Where operations are submitted. Implemented by the reactor's port, and by test engines that hold I/O.
pub trait Submit {
    /// Takes one operation; it completes later (never inside this call) through the port's `reap`.
    fn submit(&mut self, image: &Arc<dyn Image>, op: Op, buf: IoBuf, cookie: u64);

    /// Asks that an operation be cancelled if it has not begun; it completes all the same, exactly once.
    fn cancel(&mut self, cookie: u64);
}
