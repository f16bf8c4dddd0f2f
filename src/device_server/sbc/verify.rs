//! VERIFY and WRITE AND VERIFY.

use std::sync::Arc;

use super::pieces::{each, step_buffer};
use super::{extent, nothing, within_limit, writable};
use crate::backing::BackingError;
use crate::device_server::outcome::sense;
use crate::device_server::transfer::needs;
use crate::device_server::{AbortFlag, Answer, Job, Planned, Task};
use crate::lu::{Extent, Lu};
use crate::mem::{Direction, IoBuf};
use crate::scsi::{ByteCheck, Transfer};

/// VERIFY (SBC-3 5.36–5.38).
///
/// Without a comparison the blocks are read: what is verified is that they can be. INFORMATION of a miscompare is the byte offset
/// of the first difference from the beginning of the range.
pub(in crate::device_server) fn verify<'a>(task: Task<'a, '_>, transfer: Transfer, check: ByteCheck) -> Planned<'a> {
    let lu = task.itl.lu();
    let extent = extent(lu, &transfer)?;
    let expected = match check {
        ByteCheck::None => 0,
        ByteCheck::Full => {
            within_limit(lu, task.row, &transfer)?;
            extent.len
        }
        ByteCheck::OneBlock => u64::from(lu.geometry().block_size),
    };
    if transfer.blocks == 0 {
        return Ok(nothing());
    }
    needs(task.buf, Direction::Out, expected)?;
    let lu = lu.clone();
    Ok(Job::plan(move |buf, abort| {
        compare(&lu, extent, check, buf, abort)?;
        Ok(Answer::good(expected))
    }))
}

/// WRITE AND VERIFY (SBC-3 5.44–5.46): the blocks are on the medium when they are verified, so it is flushed in between.
pub(in crate::device_server) fn write_and_verify<'a>(
    task: Task<'a, '_>,
    transfer: Transfer,
    check: ByteCheck,
) -> Planned<'a> {
    let lu = task.itl.lu();
    let extent = extent(lu, &transfer)?;
    within_limit(lu, task.row, &transfer)?;
    writable(lu)?;
    needs(task.buf, Direction::Out, extent.len)?;
    if transfer.blocks == 0 {
        return Ok(nothing());
    }
    let lu = lu.clone();
    Ok(Job::plan(move |buf, abort| {
        each(extent, abort, |part| lu.image().write(part.offset, part.len, buf, part.offset - extent.offset, false))
            .map_err(|(e, at)| sense(e, lu.geometry().lba_of(at)))?;
        lu.image().flush().map_err(|e| sense(e, transfer.lba))?;
        compare(&lu, extent, check, buf, abort)?;
        Ok(Answer::good(extent.len))
    }))
}

/// Reads `extent` and compares it with the Data-Out buffer as `check` says.
fn compare(lu: &Arc<Lu>, extent: Extent, check: ByteCheck, buf: &IoBuf, abort: &AbortFlag) -> Result<(), Answer> {
    let mut medium = step_buffer(extent);
    let mut data = match check {
        ByteCheck::None => Vec::new(),
        ByteCheck::Full => step_buffer(extent),
        ByteCheck::OneBlock => vec![0; lu.geometry().block_size as usize],
    };
    if check == ByteCheck::OneBlock {
        buf.read_at(0, &mut data);
    }
    each(extent, abort, |part| {
        let medium = medium.get_mut(..part.len as usize).unwrap_or_default();
        lu.image().read_bytes(part.offset, medium)?;
        let at = part.offset - extent.offset;
        match check {
            ByteCheck::None => Ok(()),
            ByteCheck::Full => {
                buf.read_at(at, &mut data);
                same(at, medium, &data)
            }
            ByteCheck::OneBlock => same(at, medium, &data),
        }
    })
    .map_err(|(e, at)| sense(e, lu.geometry().lba_of(at)).into())
}

/// Miscompare at the first byte in which `medium` differs from `data`, repeated as often as it takes, counted from `at`.
fn same(at: u64, medium: &[u8], data: &[u8]) -> Result<(), BackingError> {
    for (i, part) in medium.chunks(data.len()).enumerate() {
        // Whole slices first: that is a memcmp.
        if data.get(..part.len()) == Some(part) {
            continue;
        }
        let differs = part.iter().zip(data).position(|(medium, data)| medium != data).unwrap_or(0);
        return Err(BackingError::Miscompare(at + (i * data.len() + differs) as u64));
    }
    Ok(())
}
