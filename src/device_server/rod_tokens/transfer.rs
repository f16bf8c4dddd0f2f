//! The work of WRITE USING TOKEN: bytes from where a token's data are to where they are wanted.

use std::sync::Arc;

use super::write::invalid;
use crate::backing::BackingError;
use crate::device_server::outcome::sense;
use crate::device_server::sbc::pieces::STEP;
use crate::device_server::third_party_copy::{CopyError, Step, Use};
use crate::device_server::{AbortFlag, Answer};
use crate::lu::{CopyRun, Extent, Lu, RodError, RodUse};
use crate::scsi::{AdditionalSense, Sense, SenseKey};

/// The most bytes that are zeroed in one step where that is not done by writing zeros.
const ZERO_STEP: u64 = 64 << 20;

/// Where the data come from.
pub(super) enum Source {
    /// There are as many zeros as one likes.
    Zeros,
    /// From what a token represents.
    Rod {
        rod: RodUse,
        unit: Arc<Lu>,
        /// The first byte of it that is written.
        offset: u64,
    },
}

/// Why a transfer ended before its end.
pub(super) enum Stop {
    /// There is no more to be written.
    Short,
    /// The token was cancelled meanwhile, or one of the units said so.
    Failed(Sense),
    /// The nexus may not write any more; this is what a WRITE would be answered.
    Refused(Answer),
    /// COPY OPERATION ABORT.
    Cleared,
    /// The task is being ended.
    Aborted,
}

/// One transfer to a unit.
pub(super) struct Transfer<'a> {
    pub(super) lu: &'a Arc<Lu>,
    pub(super) run: &'a CopyRun,
    pub(super) abort: &'a AbortFlag,
}

impl Transfer<'_> {
    /// Writes all that `writes` say, in their order, in steps of at most 1 MiB; durable in the end if there is no write cache. What was written before
    /// it stopped stays written, and `run` was told how much it was.
    pub(super) fn all(&self, writes: &[Use], source: &Source) -> Result<(), Stop> {
        let done = match source {
            Source::Zeros => writes.iter().try_for_each(|to| self.zero(to)),
            Source::Rod { rod, unit, offset } => self.copy(writes, rod, unit, *offset),
        };
        if matches!(done, Ok(()) | Err(Stop::Short)) && !self.lu.mode().wce {
            self.lu.image().flush().map_err(|error| self.failed(error, 0))?;
        }
        done
    }

    fn zero(&self, to: &Use) -> Result<(), Stop> {
        let image = self.lu.image();
        let most = if image.capabilities().write_zeroes { ZERO_STEP } else { STEP };
        let Extent { mut offset, len } = to.extent;
        let end = offset + len;
        while offset < end {
            self.may_go_on(to)?;
            let len = most.min(end - offset);
            // What is zero afterwards has its space all the same, as if zeros had been written.
            image.write_zeroes(offset, len, false).map_err(|error| self.failed(error, offset))?;
            self.progress(len);
            offset += len;
        }
        Ok(())
    }

    fn copy(&self, writes: &[Use], rod: &RodUse, unit: &Arc<Lu>, mut at: u64) -> Result<(), Stop> {
        for to in writes {
            let Extent { mut offset, len } = to.extent;
            let end = offset + len;
            while offset < end {
                if at >= rod.len() {
                    return Err(Stop::Short);
                }
                self.may_go_on(to)?;
                let moved = self.step(rod, unit, at, Extent { offset, len: end - offset })?;
                if rod.is_cancelled() {
                    // What this step wrote may be newer than the token.
                    return Err(Stop::Failed(invalid(RodError::Cancelled).with_information(self.run.transferred())));
                }
                self.progress(moved);
                at += moved;
                offset += moved;
            }
        }
        Ok(())
    }

    /// Writes whole blocks at the beginning of `to`, as many as lie in one piece in the ROD from its byte `at` on; or one block that does not. How
    /// many bytes of `to` it was.
    fn step(&self, rod: &RodUse, unit: &Arc<Lu>, at: u64, to: Extent) -> Result<u64, Stop> {
        let block = u64::from(self.lu.geometry().block_size);
        let Some((from, len)) = piece(rod.extents(), at) else { return Err(Stop::Short) };
        let whole = len.min(to.len).min(STEP) / block * block;
        if whole > 0 {
            let step = Step { source: unit, from, destination: self.lu, to: to.offset, len: whole };
            return step.copy_or_skip().map_err(|error| match step.failed(error) {
                CopyError::Destination(Answer { sense: Some(sense), .. }) => Stop::Failed(sense),
                CopyError::Destination(answer) => Stop::Refused(answer),
                CopyError::Source(_) | CopyError::Aborted => self.source_failed(),
            });
        }
        // A block that lies in several pieces, or has no end: whole blocks are written, never parts.
        let mut bytes = vec![0; block as usize];
        let mut filled = 0;
        while let Some(rest) = bytes.get_mut(filled..).filter(|rest| !rest.is_empty())
            && let Some((from, len)) = piece(rod.extents(), at + filled as u64)
        {
            let now = rest.len().min(usize::try_from(len).unwrap_or(usize::MAX));
            let rest = rest.get_mut(..now).unwrap_or_default();
            unit.image().read_bytes(from, rest).map_err(|error| {
                unit.errors().count(&sense(error, unit.geometry().lba_of(from)), false);
                self.source_failed()
            })?;
            filled += now;
        }
        self.lu.image().write_bytes(to.offset, &bytes).map_err(|error| self.failed(error, to.offset))?;
        Ok(block)
    }

    fn may_go_on(&self, to: &Use) -> Result<(), Stop> {
        if self.abort.raised() {
            return Err(Stop::Aborted);
        }
        if self.run.is_aborted() {
            return Err(Stop::Cleared);
        }
        to.admit().map_err(Stop::Refused)
    }

    fn progress(&self, bytes: u64) {
        self.run.progress(bytes / u64::from(self.lu.geometry().block_size));
    }

    /// An error of the unit that is written.
    fn failed(&self, error: BackingError, offset: u64) -> Stop {
        let sense = sense(error, self.lu.geometry().lba_of(offset));
        self.lu.errors().count(&sense, false);
        Stop::Failed(sense)
    }

    /// An error of the unit that is read: the initiator need not know it.
    fn source_failed(&self) -> Stop {
        let sense = Sense::new(SenseKey::CopyAborted, AdditionalSense::THIRD_PARTY_DEVICE_FAILURE);
        Stop::Failed(sense.with_information(self.run.transferred()))
    }
}

/// Where the byte `at` of a ROD is, and how many of it follow in one piece, itself included.
fn piece(extents: &[Extent], at: u64) -> Option<(u64, u64)> {
    let mut skip = at;
    for extent in extents {
        if skip < extent.len {
            return Some((extent.offset + skip, extent.len - skip));
        }
        skip -= extent.len;
    }
    None
}
