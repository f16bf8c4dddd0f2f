//! GET LBA STATUS.

use std::sync::Arc;

use crate::backing::BackingError;
use crate::device_server::outcome::sense;
use crate::device_server::transfer::{fill, parameter_data};
use crate::device_server::{AbortFlag, Answer, Job, Planned, Task};
use crate::lu::{Extent, Geometry, Lu};
use crate::scsi::sbc::{LbaStatus, ProvisioningStatus};
use crate::scsi::{FieldPointer, Sense};

/// The most descriptors that one command returns: bounds its walk through the image's map.
const MAX_DESCRIPTORS: usize = 1024;

/// GET LBA STATUS (SBC-3 5.4): from the starting LBA on, extents of mapped and of deallocated blocks, as many as the allocation
/// length has room for, as the image's own map has them. A block that is deallocated in part is mapped.
///
/// No extent is anchored: what the host's file system has set aside but not written is deallocated or mapped, as it chooses to tell. A
/// fully provisioned unit is mapped throughout (SBC-3 4.7.2).
pub(in crate::device_server) fn get_lba_status<'a>(
    task: Task<'a, '_>,
    lba: u64,
    allocation_length: u32,
) -> Planned<'a> {
    let lu = task.itl.lu();
    let geometry = lu.geometry();
    let range = geometry
        .extent_to_end(lba)
        .map_err(|out| Sense::lba_out_of_range(FieldPointer::cdb(2, 7)).with_information(out.lba))?;
    let room = LbaStatus::room(allocation_length).min(MAX_DESCRIPTORS);
    if !lu.thin() {
        let mut status = LbaStatus::new(lba, room);
        status.push(geometry.blocks - lba, ProvisioningStatus::Mapped);
        return parameter_data(task.buf, status.data(), allocation_length);
    }
    let lu = lu.clone();
    Ok(Job::plan(move |buf, abort| {
        let status = walk(&lu, geometry, lba, range, room, abort)?;
        fill(buf, status.data(), allocation_length)
    }))
}

/// Follows the image's map until there is no room left or the range ends.
fn walk(
    lu: &Arc<Lu>,
    geometry: Geometry,
    lba: u64,
    range: Extent,
    room: usize,
    abort: &AbortFlag,
) -> Result<LbaStatus, Answer> {
    let mut status = LbaStatus::new(lba, room);
    let block = u64::from(geometry.block_size);
    let end = range.offset + range.len;
    // Where the next run begins; where the last data ended; what `status` tells of already, in whole blocks.
    let (mut at, mut data_end, mut told) = (range.offset, range.offset, range.offset);
    while at < end && !status.is_full() {
        let fail = |e| Answer::from(sense(e, geometry.lba_of(at)));
        if abort.raised() {
            return Err(fail(BackingError::Cancelled));
        }
        let run = lu.image().run_at(at, end - at).map_err(fail)?;
        // An image that says nothing of a range would keep this going for ever.
        let next = at + run.len.clamp(1, end - at);
        if run.mapped {
            data_end = next;
        } else {
            // Only the whole blocks of a hole are deallocated; the edges belong to blocks with data.
            let (from, to) = (data_end.next_multiple_of(block).max(told), next / block * block);
            if from < to {
                status.push((from - told) / block, ProvisioningStatus::Mapped);
                status.push((to - from) / block, ProvisioningStatus::Deallocated);
                told = to;
            }
        }
        at = next;
    }
    status.push((end - told) / block, ProvisioningStatus::Mapped);
    Ok(status)
}
