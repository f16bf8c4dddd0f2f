//! WRITE SAME.

use std::sync::Arc;

use super::pieces::{STEP, each};
use super::{extent_to_end, io, writable};
use crate::backing::OpKind;
use crate::device_server::outcome::sense;
use crate::device_server::transfer::needs;
use crate::device_server::{AbortFlag, Answer, Finish, Job, Planned, Task};
use crate::lu::{Extent, Lu};
use crate::mem::Direction;
use crate::scsi::{AdditionalSense, FieldPointer, Sense, Transfer};

/// WRITE SAME (SBC-3 5.48, 5.49).
///
/// Zeros, be it for NDOB or because the block says so, are one operation of the image; UNMAP lets it deallocate, since
/// deallocated blocks read as zeros (LBPRZ). Any other block is written in steps, UNMAP or not: deallocated blocks would not read as
/// that.
///
/// The Data-Out buffer is one block, whatever is done with it. One of another length comes of somebody who believes in another block
/// size, whose half or double block would be wrong data everywhere: INVALID FIELD IN COMMAND INFORMATION UNIT, and nothing is written.
pub(in crate::device_server) fn write_same<'a>(
    task: Task<'a, '_>,
    transfer: Transfer,
    unmap: bool,
    anchor: bool,
    ndob: bool,
) -> Planned<'a> {
    let lu = task.itl.lu();
    if anchor {
        // ANC_SUP is zero.
        return Err(Sense::invalid_field_in_cdb(FieldPointer::cdb(1, 4)).into());
    }
    if unmap && !lu.thin() {
        // LBPWS and LBPWS10 are zero.
        return Err(Sense::invalid_field_in_cdb(FieldPointer::cdb(1, 3)).into());
    }
    let extent = extent_to_end(lu, &transfer)?;
    writable(lu)?;
    let mut block = vec![0; lu.geometry().block_size as usize];
    let transferred = if ndob { 0 } else { block.len() as u64 };
    let sent = (task.buf.direction() == Direction::Out).then_some(task.buf.len());
    if !ndob && sent.is_some_and(|sent| sent != 0 && sent != transferred) {
        return Err(Sense::illegal_request(AdditionalSense::INVALID_FIELD_IN_COMMAND_INFORMATION_UNIT).into());
    }
    needs(task.buf, Direction::Out, transferred)?;
    if !ndob {
        task.buf.read_at(0, &mut block);
    }
    let durable = !lu.mode().wce;
    let zeros = block.iter().all(|byte| *byte == 0);
    let natively = zeros && (unmap || lu.image().capabilities().write_zeroes);
    if natively && !durable {
        let finish = Finish { lba: transfer.lba, transferred };
        return Ok(io(&task, OpKind::WriteZeroes { unmap }, extent, finish));
    }
    let lu = lu.clone();
    Ok(Job::plan(move |_, abort| {
        if natively {
            let zeroed = lu.image().write_zeroes(extent.offset, extent.len, unmap);
            zeroed.map_err(|e| sense(e, transfer.lba))?;
        } else {
            repeat(&lu, extent, &block, abort)?;
        }
        if durable {
            lu.image().flush().map_err(|e| sense(e, transfer.lba))?;
        }
        Ok(Answer::good(transferred))
    }))
}

/// Writes `block` over and over.
fn repeat(lu: &Arc<Lu>, extent: Extent, block: &[u8], abort: &AbortFlag) -> Result<(), Answer> {
    let blocks_in_step = STEP.min(extent.len) as usize / block.len();
    let step = block.repeat(blocks_in_step);
    each(extent, abort, |part| lu.image().write_bytes(part.offset, step.get(..part.len as usize).unwrap_or_default()))
        .map_err(|(e, at)| sense(e, lu.geometry().lba_of(at)).into())
}
