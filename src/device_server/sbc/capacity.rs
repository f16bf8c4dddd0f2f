//! READ CAPACITY.

use crate::device_server::transfer::parameter_data;
use crate::device_server::{Planned, Task};
use crate::lu::Lu;
use crate::scsi::sbc::Capacity;

fn capacity(lu: &Lu) -> Capacity {
    let geometry = lu.geometry();
    Capacity {
        blocks: geometry.blocks,
        block_length: geometry.block_size,
        physical_exponent: geometry.physical_exponent,
        lowest_aligned: 0,
        lbpme: lu.thin(),
        lbprz: lu.thin(),
    }
}

/// READ CAPACITY(10) (SBC-3 5.15): eight bytes, no allocation length.
pub(in crate::device_server) fn read_capacity10<'a>(task: Task<'a, '_>) -> Planned<'a> {
    parameter_data(task.buf, capacity(task.itl.lu()).data10(), u32::MAX)
}

/// READ CAPACITY(16) (SBC-3 5.16).
pub(in crate::device_server) fn read_capacity16<'a>(task: Task<'a, '_>, allocation_length: u32) -> Planned<'a> {
    parameter_data(task.buf, capacity(task.itl.lu()).data16(), allocation_length)
}
