//! READ and WRITE of every length.

use super::{extent, io, nothing, within_limit, writable};
use crate::backing::OpKind;
use crate::device_server::outcome::sense;
use crate::device_server::transfer::needs;
use crate::device_server::{Answer, Finish, Job, Planned, Task};
use crate::mem::Direction;
use crate::scsi::Transfer;

/// READ (SBC-3 5.10–5.14).
///
/// FUA asks for what is on the medium, or in memory as lasting; what is newer in a volatile cache has to be written to the
/// medium first. The page cache is coherent, so a plain read would return the right bytes, but a power failure
/// could still take back what was read. So FUA reads and flushes then: what another command wrote between a flush and the read would be
/// read and not be lasting. That holds with WCE zero, too, of a write that is under way. Nobody's file system reads that way, so its
/// cost does not matter.
pub(in crate::device_server) fn read<'a>(task: Task<'a, '_>, transfer: Transfer) -> Planned<'a> {
    let lu = task.itl.lu();
    let extent = extent(lu, &transfer)?;
    within_limit(lu, task.row, &transfer)?;
    needs(task.buf, Direction::In, extent.len)?;
    if transfer.blocks == 0 {
        return Ok(nothing());
    }
    if transfer.fua {
        let image = lu.image().clone();
        return Ok(Job::plan(move |buf, _| {
            image.read(extent.offset, extent.len, buf, 0).map_err(|e| sense(e, transfer.lba))?;
            image.flush().map_err(|e| sense(e, transfer.lba))?;
            Ok(Answer::good(extent.len))
        }));
    }
    Ok(io(&task, OpKind::Read, extent, Finish { lba: transfer.lba, transferred: extent.len }))
}

/// WRITE (SBC-3 5.39–5.43).
pub(in crate::device_server) fn write<'a>(task: Task<'a, '_>, transfer: Transfer) -> Planned<'a> {
    let lu = task.itl.lu();
    let extent = extent(lu, &transfer)?;
    within_limit(lu, task.row, &transfer)?;
    writable(lu)?;
    needs(task.buf, Direction::Out, extent.len)?;
    if transfer.blocks == 0 {
        return Ok(nothing());
    }
    let fua = transfer.fua || !lu.mode().wce;
    Ok(io(&task, OpKind::Write { fua }, extent, Finish { lba: transfer.lba, transferred: extent.len }))
}
