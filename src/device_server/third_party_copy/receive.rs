//! RECEIVE COPY OPERATING PARAMETERS, STATUS(LID1) and FAILURE DETAILS(LID1).

use super::page::LIMITS;
use crate::device_server::transfer::{needs, parameter_data};
use crate::device_server::{Planned, Task};
use crate::mem::Direction;
use crate::scsi::spc::{copy_failure_details, copy_operating_parameters, copy_status};
use crate::scsi::{FieldPointer, Sense};

/// A list identifier by which no copy is known.
const UNKNOWN_LIST: Sense = Sense::invalid_field_in_cdb(FieldPointer::cdb(2, 7));

/// RECEIVE COPY OPERATING PARAMETERS (SPC-4 6.22).
pub(in crate::device_server) fn receive_operating_parameters<'a>(
    task: Task<'a, '_>,
    allocation_length: u32,
) -> Planned<'a> {
    parameter_data(task.buf, copy_operating_parameters(&LIMITS), allocation_length)
}

/// RECEIVE COPY STATUS(LID1) (SPC-4 6.25). What became of a copy that is over is told once.
pub(in crate::device_server) fn receive_status<'a>(
    task: Task<'a, '_>,
    list: u8,
    allocation_length: u32,
) -> Planned<'a> {
    // What cannot be told must not be forgotten.
    needs(task.buf, Direction::In, u64::from(allocation_length.min(12)))?;
    let progress = task.itl.copies(|copies| copies.ask(list)).ok_or(UNKNOWN_LIST)?;
    parameter_data(task.buf, copy_status(progress.status, progress.segments, progress.bytes), allocation_length)
}

/// RECEIVE COPY FAILURE DETAILS(LID1) (SPC-4 6.23). The details of a copy that failed are told once.
pub(in crate::device_server) fn receive_failure_details<'a>(
    task: Task<'a, '_>,
    list: u8,
    allocation_length: u32,
) -> Planned<'a> {
    needs(task.buf, Direction::In, u64::from(allocation_length.min(MOST_DETAILS)))?;
    let failure = task.itl.copies(|copies| copies.ask_failure(list)).ok_or(UNKNOWN_LIST)?;
    let format = task.itl.lu().sense_format();
    let failure = failure.map(|(status, sense)| (status as u8, sense.encode(format, usize::MAX)));
    let failure = failure.as_ref().map(|(status, sense)| (*status, &sense[..]));
    parameter_data(task.buf, copy_failure_details(failure), allocation_length)
}

/// What fails to copy has sense data of at most so many bytes.
const MOST_DETAILS: u32 = 60 + 8 + 12 + 12 + 8;
