//! READ CAPACITY.

use std::sync::Arc;

use crate::device_server::outcome::sense;
use crate::device_server::transfer::{fill, parameter_data};
use crate::device_server::{Answer, Job, Planned, Task};
use crate::lu::{Itl, Lu};
use crate::scsi::ParameterData;
use crate::scsi::sbc::Capacity;

/// READ CAPACITY(10) (SBC-3 5.15): eight bytes, no allocation length.
pub(in crate::device_server) fn read_capacity10<'a>(task: Task<'a, '_>) -> Planned<'a> {
    read_capacity(task, Capacity::data10, u32::MAX)
}

/// READ CAPACITY(16) (SBC-3 5.16).
pub(in crate::device_server) fn read_capacity16<'a>(task: Task<'a, '_>, allocation_length: u32) -> Planned<'a> {
    read_capacity(task, Capacity::data16, allocation_length)
}

/// Looks at the image's size first: a unit grows, or shrinks, when an initiator asks after its image did. The one that asks learns it from
/// the answer, all others by CAPACITY DATA HAS CHANGED. A file system may have to ask another machine for the size, which takes a
/// job.
fn read_capacity<'a>(task: Task<'a, '_>, data: fn(&Capacity) -> ParameterData, allocation_length: u32) -> Planned<'a> {
    if task.itl.lu().image().capabilities().never_waits {
        return parameter_data(task.buf, data(&fresh(task.itl)?), allocation_length);
    }
    let itl = Arc::clone(task.itl);
    Ok(Job::plan(move |buf, _| fill(buf, data(&fresh(&itl)?), allocation_length)))
}

fn fresh(itl: &Itl) -> Result<Capacity, Answer> {
    let lu = itl.lu();
    lu.image().refresh_size(lu.geometry().block_size).map_err(|e| sense(e, 0))?;
    lu.update_capacity(Some(itl));
    Ok(capacity(lu))
}

fn capacity(lu: &Lu) -> Capacity {
    let geometry = lu.geometry();
    Capacity {
        blocks: geometry.blocks,
        block_length: geometry.block_size,
        physical_exponent: geometry.physical_exponent,
        lowest_aligned: lu.lowest_aligned(),
        lbpme: lu.thin(),
        lbprz: lu.thin(),
    }
}
