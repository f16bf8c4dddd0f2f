//! Between SCSI's terms and virtio-scsi's numbers.

use super::command::CommandResponse;
use super::event::Event;
use super::wire::{self, ResponseCode};
use crate::scsi::{CommandResult, FunctionResponse, HostByte, Status, TaskAttribute, TaskManagementFunction};
use crate::srp;

/// What `task_attr` says; `None` for a value that does not exist.
pub fn task_attribute(task_attr: u8) -> Option<TaskAttribute> {
    match task_attr {
        wire::TASK_ATTR_SIMPLE => Some(TaskAttribute::Simple),
        wire::TASK_ATTR_ORDERED => Some(TaskAttribute::Ordered),
        wire::TASK_ATTR_HEAD => Some(TaskAttribute::HeadOfQueue),
        wire::TASK_ATTR_ACA => Some(TaskAttribute::Aca),
        _ => None,
    }
}

/// What a TMF subtype says; `None` for one that does not exist.
pub fn task_management_function(subtype: u32) -> Option<TaskManagementFunction> {
    match subtype {
        wire::TMF_ABORT_TASK => Some(TaskManagementFunction::AbortTask),
        wire::TMF_ABORT_TASK_SET => Some(TaskManagementFunction::AbortTaskSet),
        wire::TMF_CLEAR_ACA => Some(TaskManagementFunction::ClearAca),
        wire::TMF_CLEAR_TASK_SET => Some(TaskManagementFunction::ClearTaskSet),
        wire::TMF_I_T_NEXUS_RESET => Some(TaskManagementFunction::ItNexusReset),
        wire::TMF_LOGICAL_UNIT_RESET => Some(TaskManagementFunction::LogicalUnitReset),
        wire::TMF_QUERY_TASK => Some(TaskManagementFunction::QueryTask),
        wire::TMF_QUERY_TASK_SET => Some(TaskManagementFunction::QueryTaskSet),
        _ => None,
    }
}

/// The response code for how delivery ended. OK leaves the rest to the SAM status.
pub fn host_response(host: HostByte) -> ResponseCode {
    match host {
        HostByte::Ok => ResponseCode::Ok,
        HostByte::BadTarget => ResponseCode::BadTarget,
        HostByte::Abort => ResponseCode::Aborted,
        HostByte::Error => ResponseCode::Failure,
        HostByte::Reset => ResponseCode::Reset,
        HostByte::TransportDisrupted => ResponseCode::TransportFailure,
    }
}

/// The response code for a task management function's outcome.
pub fn function_response(response: FunctionResponse) -> ResponseCode {
    match response {
        FunctionResponse::Complete => ResponseCode::Ok,
        FunctionResponse::Rejected => ResponseCode::FunctionRejected,
        FunctionResponse::Failed => ResponseCode::Failure,
        FunctionResponse::Succeeded => ResponseCode::FunctionSucceeded,
        FunctionResponse::IncorrectLun => ResponseCode::IncorrectLun,
    }
}

/// The event that says what an SRP_AER_REQ says; `None` if its sense data, in either format, is too short for a code.
pub fn parameter_change(iu: &srp::AerReq<'_>) -> Option<Event> {
    let at = match iu.sense.first()? & 0x7f {
        0x72 | 0x73 => 2,
        _ => 12,
    };
    let &[asc, ascq] = iu.sense.get(at..at + 2)? else { return None };
    Some(Event::ParamChange { lun: iu.lun, asc, ascq })
}

/// The response to a command with a data buffer of `data_len` bytes, of which it moved, or would have moved,
/// `transferred`.
///
/// Fewer leave a residual, whatever the status. More are an overrun, which takes the place of a status that says all is
/// well; any other status, and a failed delivery, tell the driver more than that and stand.
pub fn command_response(result: CommandResult, data_len: u32, transferred: u64, sense: &[u8]) -> CommandResponse<'_> {
    let overrun = transferred > u64::from(data_len);
    let well = matches!(result.status, Status::Good | Status::ConditionMet);
    let response = match host_response(result.host) {
        ResponseCode::Ok if overrun && well => ResponseCode::Overrun,
        other => other,
    };
    let delivered = response == ResponseCode::Ok;
    // Not more than `data_len`, hence a u32.
    let residual = u64::from(data_len).saturating_sub(transferred) as u32;
    CommandResponse {
        response,
        status: if delivered { result.status as u8 } else { 0 },
        status_qualifier: 0,
        residual,
        sense: if delivered { sense } else { &[] },
    }
}

#[cfg(test)]
mod tests;
