//! COMPARE AND WRITE.

use super::{extent, nothing, writable};
use crate::backing::BackingError;
use crate::device_server::outcome::sense;
use crate::device_server::transfer::needs;
use crate::device_server::{Answer, Decision, Exclusive, Planned, Task};
use crate::mem::{Direction, IoBuf};
use crate::scsi::{FieldPointer, Sense, Transfer};

/// Where NUMBER OF LOGICAL BLOCKS is in the CDB.
const NUMBER_OF_LOGICAL_BLOCKS: FieldPointer = FieldPointer::cdb(13, 7);

/// COMPARE AND WRITE (SBC-3 5.2): the first half of the Data-Out buffer is compared with the medium, and if they are the same, the second
/// half is written.
///
/// Otherwise nothing is, and INFORMATION is the offset in the Data-Out buffer of the first byte that differs. FUA is that of READ for the
/// comparison and that of WRITE for what is written, see [`read`](super::read()). It ends as aborted only where nothing has been written.
pub(in crate::device_server) fn compare_and_write<'a>(task: Task<'a, '_>, transfer: Transfer) -> Planned<'a> {
    let lu = task.itl.lu();
    let extent = extent(lu, &transfer)?;
    if transfer.blocks > u64::from(lu.limits().compare_and_write_blocks) {
        return Err(Sense::invalid_field_in_cdb(NUMBER_OF_LOGICAL_BLOCKS).into());
    }
    writable(lu)?;
    let transferred = 2 * extent.len;
    needs(task.buf, Direction::Out, transferred)?;
    if transfer.blocks == 0 {
        return Ok(nothing());
    }
    if task.noted.earlier == Some(Decision::Written) {
        return Ok(Answer::good(transferred).into());
    }
    // Perhaps it was written, too, or in part.
    let matched = task.noted.earlier == Some(Decision::Matched);
    let noted = task.noted.clone();
    let wce = lu.mode().wce;
    let image = lu.image().clone();
    Ok(Exclusive::plan(extent, move |buf, abort| {
        let mut expected = bytes(extent.len);
        buf.read_at(0, &mut expected);
        let mut replacement = bytes(extent.len);
        buf.read_at(extent.len, &mut replacement);
        // Memory that direct I/O takes as it is, with room for both.
        let mut new = IoBuf::owned(replacement.len(), Direction::Out);
        new.write_at(0, &replacement);

        let failed = |error| sense(error, transfer.lba);
        if transfer.fua && wce {
            image.flush().map_err(failed)?;
        }
        let mut medium = bytes(extent.len);
        image.read_bytes(extent.offset, &mut medium).map_err(failed)?;
        let differs = match matched {
            true => first_stranger(&medium, &expected, &replacement),
            false => first_difference(&medium, &expected),
        };
        if let Some(at) = differs {
            return Err(failed(BackingError::Miscompare(at)).into());
        }
        if abort.raised() && !matched {
            return Err(failed(BackingError::Cancelled).into());
        }
        noted.decide(Decision::Matched);
        image.write(extent.offset, extent.len, &new, 0, transfer.fua || !wce).map_err(failed)?;
        // Before anybody else may use these blocks: what they make of them is not to be taken for what was there before.
        noted.decide(Decision::Written);
        Ok(Answer::good(transferred))
    }))
}

/// What no kill leaves written in part, in bytes: images are read and written in multiples of it.
const SECTOR: usize = 512;

/// The index of the first byte that differs from what was expected, in the first sector that is neither as expected nor as replaced.
fn first_stranger(medium: &[u8], expected: &[u8], replacement: &[u8]) -> Option<u64> {
    let sectors = medium.chunks(SECTOR).zip(expected.chunks(SECTOR).zip(replacement.chunks(SECTOR))).enumerate();
    let mut strangers = sectors.filter(|(_, (is, (was, will_be)))| is != was && is != will_be);
    let (sector, (is, (was, _))) = strangers.next()?;
    Some((sector * SECTOR) as u64 + first_difference(is, was)?)
}

/// Room for so many bytes, of which the limit sees to it that they are few.
fn bytes(len: u64) -> Vec<u8> {
    vec![0; len as usize]
}

/// The index of the first byte in which slices of one length differ.
fn first_difference(a: &[u8], b: &[u8]) -> Option<u64> {
    // Whole slices first: that is a memcmp.
    if a == b {
        return None;
    }
    a.iter().zip(b).position(|(a, b)| a != b).map(|at| at as u64)
}
