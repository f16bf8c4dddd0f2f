//! What is told of copy operations, and how they are ended.

use std::sync::Arc;

use crate::device_server::transfer::parameter_data;
use crate::device_server::{Answer, Planned, Task};
use crate::lu::CopyOperation;
use crate::scsi::{FieldPointer, Sense};

/// RECEIVE ROD TOKEN INFORMATION (SPC-4 6.26, SBC-3 5.21). A token that was fetched whole, or is not wanted (ALLOCATION LENGTH 0), is told
/// once; the rest stays.
pub(in crate::device_server) fn receive_rod_token_information<'a>(
    task: Task<'a, '_>,
    list_identifier: u32,
    allocation_length: u32,
) -> Planned<'a> {
    let operation = find(&task, list_identifier)?;
    let (status, token) = (operation.status(), operation.token());
    let data = status.rod_token_information(task.itl.lu().sense_format(), token.as_ref());
    let whole = allocation_length as usize >= data.len();
    let plan = parameter_data(task.buf, data, allocation_length)?;
    if !status.state.in_progress() && (whole || allocation_length == 0) {
        operation.discard_token();
    }
    Ok(plan)
}

/// RECEIVE COPY STATUS(LID4) (SPC-4 6.24).
pub(in crate::device_server) fn receive_copy_status<'a>(
    task: Task<'a, '_>,
    list_identifier: u32,
    allocation_length: u32,
) -> Planned<'a> {
    let status = find(&task, list_identifier)?.status();
    parameter_data(task.buf, status.data(task.itl.lu().sense_format()), allocation_length)
}

/// COPY OPERATION ABORT (SPC-4 6.3). The command that originated the operation ends when the operation has ended.
pub(in crate::device_server) fn copy_operation_abort<'a>(task: Task<'a, '_>, list_identifier: u32) -> Planned<'a> {
    let operation = find(&task, list_identifier)?;
    if !operation.in_progress() {
        return Err(UNKNOWN.into());
    }
    operation.abort();
    Ok(Answer::good(0).into())
}

/// No operation of the nexus has this LIST IDENTIFIER.
const UNKNOWN: Sense = Sense::invalid_field_in_cdb(FieldPointer::cdb(2, 7));

fn find(task: &Task<'_, '_>, list_identifier: u32) -> Result<Arc<CopyOperation>, Answer> {
    task.itl.copy_operations().find(list_identifier).ok_or(UNKNOWN.into())
}
