//! UNMAP.

use super::{io, writable};
use crate::backing::{BackingError, OpKind};
use crate::device_server::outcome::sense;
use crate::device_server::transfer::parameter_list;
use crate::device_server::{Answer, Finish, Job, Planned, Task};
use crate::lu::{Extent, OutOfRange, Touches};
use crate::scsi::sbc::{UnmapLimits, unmap_extents};
use crate::scsi::{AdditionalSense, FieldPointer, Sense};

/// UNMAP (SBC-3 5.35). All ranges are checked before the first is deallocated. The image sees to the granularity: what
/// it cannot deallocate of a range it zeroes, so every block asked for reads as zeros afterwards (LBPRZ).
pub(in crate::device_server) fn unmap<'a>(task: Task<'a, '_>, anchor: bool, parameter_list_length: u16) -> Planned<'a> {
    let lu = task.itl.lu();
    if !lu.thin() {
        // LBPU is zero: there is no such command.
        return Err(Sense::illegal_request(AdditionalSense::INVALID_COMMAND_OPERATION_CODE).into());
    }
    if anchor {
        // ANC_SUP is zero.
        return Err(Sense::invalid_field_in_cdb(FieldPointer::cdb(1, 0)).into());
    }
    writable(lu)?;
    let list = parameter_list(task.buf, parameter_list_length)?;
    let (geometry, limits) = (lu.geometry(), lu.limits());
    let limits =
        UnmapLimits { blocks: limits.unmap_blocks, descriptors: limits.unmap_descriptors, capacity: geometry.blocks };
    let asked = unmap_extents(&list, limits)?;
    let extents = asked
        .iter()
        .map(|range| geometry.extent(range.lba, range.blocks))
        .collect::<Result<Vec<Extent>, OutOfRange>>()
        .map_err(|out| {
            Sense::illegal_request(AdditionalSense::LOGICAL_BLOCK_ADDRESS_OUT_OF_RANGE).with_information(out.lba)
        })?;
    let transferred = list.len() as u64;
    let durable = !lu.mode().wce;
    for extent in &extents {
        lu.will_change(Touches::Blocks(*extent));
    }
    match extents[..] {
        [] => return Ok(Answer::good(transferred).into()),
        [one] if !durable => {
            let finish = Finish { lba: geometry.lba_of(one.offset), transferred };
            return Ok(io(&task, OpKind::Unmap, one, finish));
        }
        _ => {}
    }
    let lu = lu.clone();
    Ok(Job::plan(move |_, abort| {
        for extent in extents {
            let lba = geometry.lba_of(extent.offset);
            if abort.raised() {
                return Err(sense(BackingError::Cancelled, lba).into());
            }
            lu.image().unmap(extent.offset, extent.len).map_err(|e| sense(e, lba))?;
        }
        if durable {
            lu.image().flush().map_err(|e| sense(e, 0))?;
        }
        Ok(Answer::good(transferred))
    }))
}
