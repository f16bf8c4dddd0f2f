//! A descriptor chain as the ring hands it over, and what can be wrong with one.

use crate::mem::OutsideMemory;

/// One buffer of a chain.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Descriptor {
    /// Guest physical address.
    pub addr: u64,
    /// Length in bytes; may be 0, which buffers nothing.
    pub len: u32,
    /// Whether the device writes it (VIRTQ_DESC_F_WRITE); else it reads it.
    pub writable: bool,
}

/// A chain of descriptors, copied out of guest memory once. Reused from chain to chain.
#[derive(Debug, Default)]
pub struct Chain {
    /// Index of its first descriptor: its name on the used ring.
    pub head: u16,
    /// Its buffers, those that the device reads before those that it writes. Indirect ones are in here as if direct.
    pub descriptors: Vec<Descriptor>,
}

impl Chain {
    /// The buffers that the device reads.
    pub fn readable(&self) -> impl Iterator<Item = &Descriptor> {
        self.descriptors.iter().filter(|d| !d.writable)
    }

    /// The buffers that the device writes.
    pub fn writable(&self) -> impl Iterator<Item = &Descriptor> {
        self.descriptors.iter().filter(|d| d.writable)
    }
}

/// Cuts a list of buffers after `at` bytes: what comes before goes to `first`, the rest to `second`, as (guest physical
/// address, length). Returns how many bytes went to each. Buffers of no bytes go nowhere.
pub(super) fn split<'a>(
    buffers: impl Iterator<Item = &'a Descriptor>,
    at: u32,
    mut first: impl FnMut(u64, u32),
    mut second: impl FnMut(u64, u32),
) -> (u32, u64) {
    let (mut before, mut after) = (0, 0);
    for d in buffers {
        let take = d.len.min(at - before);
        if take > 0 {
            first(d.addr, take);
            before += take;
        }
        let rest = d.len - take;
        if rest > 0 {
            // A buffer that wraps around is found to be outside of memory when its first part is used.
            second(d.addr.wrapping_add(u64::from(take)), rest);
            after += u64::from(rest);
        }
    }
    (before, after)
}

/// What makes a chain no chain (virtio 1.2 2.7.5). The ring goes on; the chain is given back with nothing written.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum ChainDefect {
    /// 2.7.5.2: more descriptors than the queue has, that is, a loop; or more in an indirect table than are taken.
    #[error("a descriptor chain is too long or loops")]
    TooManyDescriptors,
    /// A `next` past the end of its table.
    #[error("a descriptor's next index {0} is out of range")]
    NextOutOfRange(u16),
    /// 2.7.5.2: more than 2^32 bytes in total.
    #[error("a descriptor chain has more than 2^32 bytes")]
    TooManyBytes,
    /// 2.7.4.2: a buffer to read follows one to write.
    #[error("a readable buffer follows a writable one")]
    ReadableAfterWritable,
    /// 2.7.5.3.1: a descriptor with both flags.
    #[error("an indirect descriptor has a next one")]
    IndirectWithNext,
    /// 2.7.5.3.1: an indirect descriptor in an indirect table.
    #[error("an indirect table refers to another")]
    NestedIndirect,
    /// A table whose length is 0 or no multiple of 16, or that is longer than a `next` could reach.
    #[error("an indirect table has a length of {0} bytes")]
    IndirectLength(u32),
    /// A table that is not in guest memory.
    #[error("an indirect table: {0}")]
    IndirectOutside(OutsideMemory),
}

/// A chain that is well-formed but no request. Tells how it can be answered.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum ChainError {
    /// There is a place for a response: `reject` writes VIRTIO_SCSI_S_FAILURE there.
    #[error("{0}")]
    Answerable(ChainFault),
    /// There is no place for a response: the chain goes back with length 0.
    #[error("{0} (and cannot be answered)")]
    Unanswerable(ChainFault),
}

impl ChainError {
    /// What is wrong.
    pub fn fault(&self) -> ChainFault {
        match *self {
            ChainError::Answerable(fault) | ChainError::Unanswerable(fault) => fault,
        }
    }
}

/// What is wrong with a request.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum ChainFault {
    /// Fewer readable bytes than the request has.
    #[error("a request of {0} bytes is shorter than its header")]
    ShortRequest(u32),
    /// The header is not in guest memory.
    #[error("a request's header: {0}")]
    RequestOutside(OutsideMemory),
    /// Fewer writable bytes than the response code needs.
    #[error("a response buffer of {0} bytes is too short")]
    ShortResponse(u32),
    /// The response buffer is not in guest memory.
    #[error("a response buffer: {0}")]
    ResponseOutside(OutsideMemory),
    /// Data-Out and Data-In, without VIRTIO_SCSI_F_INOUT.
    #[error("a command has both Data-Out and Data-In")]
    Bidirectional,
    /// A task attribute that does not exist.
    #[error("a command has task attribute {0}")]
    TaskAttribute(u8),
    /// A control request of a type that does not exist.
    #[error("a control request has type {0}")]
    ControlType(u32),
}
