//! The copy engine: bytes from one unit to another, or within one.

use std::sync::Arc;

use super::Use;
use crate::backing::BackingError;
use crate::device_server::outcome::sense;
use crate::device_server::sbc::pieces::STEP;
use crate::device_server::{AbortFlag, Answer};
use crate::lu::Lu;
use crate::mem::{Direction, IoBuf};

/// Why a copy ended before its end.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(in crate::device_server) enum CopyError {
    /// Its task is being ended, or a function of another unit stopped it.
    Aborted,
    /// The source said so, as it would have answered a READ.
    Source(Answer),
    /// The destination said so, as it would have answered a WRITE.
    Destination(Answer),
}

/// Bytes to copy that need not be whole blocks of the source. In the destination they begin with a block, and what they do not fill of the
/// last one becomes zeros.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(in crate::device_server) struct Span {
    /// Bytes from the beginning of the source's blocks to the first one that is copied.
    pub(in crate::device_server) skip: u64,
    /// How many bytes.
    pub(in crate::device_server) len: u64,
}

/// Copies the bytes of `span` from the blocks of `from` to those of `to`, in steps of at most 1 MiB. Before each it looks at `abort` and
/// asks both units whether it still may; after each it tells `progress` how many bytes it was.
///
/// Ranges of one unit may overlap: the result is as if all had been read before any was written. What is not allocated in the source is
/// not allocated in a thin provisioned destination. With a write cache that is off the copy is durable when this returns.
///
/// # Errors
///
/// What stopped it. What was copied stays copied, and is where `progress` was told of it: from the beginning on, or up to the end where ranges
/// overlap and the destination lies behind the source.
pub(in crate::device_server) fn copy(
    from: &Use,
    to: &Use,
    span: Span,
    abort: &AbortFlag,
    mut progress: impl FnMut(u64),
) -> Result<(), CopyError> {
    let (source, destination) = (from.itl.lu(), to.itl.lu());
    let (source_block, block) = (block_of(source), block_of(destination));
    let Span { skip, len } = span;
    debug_assert!(skip + len <= from.extent.len && len.next_multiple_of(block) <= to.extent.len);
    let whole = (skip | len).is_multiple_of(source_block) && len.is_multiple_of(block);
    let (from_at, to_at) = (from.extent.offset + skip, to.extent.offset);
    let padded = len.next_multiple_of(block);
    let overlap = Arc::ptr_eq(source, destination) && from_at < to_at + padded && to_at < from_at + len;
    let backwards = overlap && from_at < to_at;
    let mut done = 0;
    while done < len {
        if abort.raised() {
            return Err(CopyError::Aborted);
        }
        from.admit().map_err(CopyError::Source)?;
        to.admit().map_err(CopyError::Destination)?;
        let left = len - done;
        // Each step but the last in the range is of whole blocks.
        let (at, most) = match backwards {
            true => ((left - 1) / STEP * STEP, (left - 1) % STEP + 1),
            false => (done, STEP.min(left)),
        };
        let step = Step { source, from: from_at + at, destination, to: to_at + at, len: most };
        let moved = match whole {
            true if overlap => step.copy().map(|()| most),
            true => step.copy_or_skip(),
            false => step.copy_bytes().map(|()| most),
        };
        let moved = moved.map_err(|error| step.failed(error))?;
        progress(moved);
        done += moved;
    }
    if !destination.mode().wce && !destination.read_only() {
        let end = Step { source, from: from_at, destination, to: to_at, len: 0 };
        destination.image().flush().map_err(|error| end.failed(error))?;
    }
    Ok(())
}

fn block_of(lu: &Lu) -> u64 {
    u64::from(lu.geometry().block_size)
}

/// One step. `to` is the beginning of a block.
pub(in crate::device_server) struct Step<'a> {
    pub(in crate::device_server) source: &'a Arc<Lu>,
    pub(in crate::device_server) from: u64,
    pub(in crate::device_server) destination: &'a Arc<Lu>,
    pub(in crate::device_server) to: u64,
    pub(in crate::device_server) len: u64,
}

impl Step<'_> {
    /// Copies whole blocks.
    fn copy(&self) -> Result<(), BackingError> {
        // A fully provisioned unit has promised that its blocks will not need new space.
        let share = self.destination.thin();
        self.destination.image().copy_from(self.to, &**self.source.image(), self.from, self.len, share)
    }

    /// Copies whole blocks, or deallocates what is a hole in the source; how many bytes of the step it was.
    pub(in crate::device_server) fn copy_or_skip(&self) -> Result<u64, BackingError> {
        if !self.destination.thin() {
            return self.copy().map(|()| self.len);
        }
        let run = self.source.image().run_at(self.from, self.len).map_err(|_| BackingError::ReadFailed)?;
        // Whole blocks of both: a run may end anywhere.
        let block = block_of(self.source).max(block_of(self.destination));
        let hole = run.len / block * block;
        if !run.mapped && hole > 0 {
            self.destination.image().write_zeroes(self.to, hole, true)?;
            return Ok(hole);
        }
        let len = if run.mapped { run.len.next_multiple_of(block) } else { block };
        let part = Step { len: len.min(self.len), ..*self };
        part.copy().map(|()| part.len)
    }

    /// Copies bytes that are not whole blocks of the source, or do not fill those of the destination.
    fn copy_bytes(&self) -> Result<(), BackingError> {
        let (source_block, block) = (block_of(self.source), block_of(self.destination));
        let first = self.from / source_block * source_block;
        let end = (self.from + self.len).next_multiple_of(source_block);
        let mut blocks = vec![0; (end - first) as usize];
        self.source.image().read_bytes(first, &mut blocks).map_err(|_| BackingError::ReadFailed)?;
        let skip = (self.from - first) as usize;
        let bytes = blocks.get(skip..skip + self.len as usize).unwrap_or_default();
        // Zeros at first, and memory that direct I/O takes as it is.
        let padded = self.len.next_multiple_of(block);
        let mut whole = IoBuf::owned(padded as usize, Direction::Out);
        whole.write_at(0, bytes);
        self.destination.image().write(self.to, padded, &whole, 0, false)
    }

    /// Whose error it was, and what that unit says of it. Its log counts it.
    pub(in crate::device_server) fn failed(&self, error: BackingError) -> CopyError {
        let of = |lu: &Lu, at: u64| {
            let sense = sense(error, lu.geometry().lba_of(at));
            lu.errors().count(&sense, false);
            Answer::check(sense)
        };
        match error {
            BackingError::ReadFailed => CopyError::Source(of(self.source, self.from)),
            _ => CopyError::Destination(of(self.destination, self.to)),
        }
    }
}
