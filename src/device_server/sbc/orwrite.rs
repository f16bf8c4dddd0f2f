//! ORWRITE.

use super::pieces::{STEP, each, step_buffer};
use super::{extent, nothing, within_limit, writable};
use crate::device_server::outcome::sense;
use crate::device_server::transfer::needs;
use crate::device_server::{Answer, Exclusive, Planned, Task};
use crate::mem::{Direction, IoBuf};
use crate::scsi::Transfer;

/// ORWRITE(16) (SBC-3 5.5): what is written is what was there, with the bits set that are set in the Data-Out buffer.
///
/// FUA is that of READ for what was there and that of WRITE for what is written, see [`read`](super::read()). When it fails or is aborted, it may have been done up to
/// some block.
pub(in crate::device_server) fn orwrite<'a>(task: Task<'a, '_>, transfer: Transfer) -> Planned<'a> {
    let lu = task.itl.lu();
    let extent = extent(lu, &transfer)?;
    within_limit(lu, task.row, &transfer)?;
    writable(lu)?;
    needs(task.buf, Direction::Out, extent.len)?;
    if transfer.blocks == 0 {
        return Ok(nothing());
    }
    let wce = lu.mode().wce;
    let lu = lu.clone();
    Ok(Exclusive::plan(extent, move |buf, abort| {
        let image = lu.image();
        if transfer.fua && wce {
            image.flush().map_err(|e| sense(e, transfer.lba))?;
        }
        let (mut medium, mut mask) = (step_buffer(extent), step_buffer(extent));
        // Memory that direct I/O takes as it is.
        let mut merged = IoBuf::owned(STEP.min(extent.len) as usize, Direction::Out);
        each(extent, abort, |part| {
            let len = part.len as usize;
            let (medium, mask) = (medium.get_mut(..len).unwrap_or_default(), mask.get_mut(..len).unwrap_or_default());
            buf.read_at(part.offset - extent.offset, mask);
            image.read_bytes(part.offset, medium)?;
            medium.iter_mut().zip(mask.iter()).for_each(|(medium, mask)| *medium |= mask);
            merged.write_at(0, medium);
            image.write(part.offset, part.len, &merged, 0, transfer.fua || !wce)
        })
        .map_err(|(e, at)| sense(e, lu.geometry().lba_of(at)))?;
        Ok(Answer::good(extent.len))
    }))
}
