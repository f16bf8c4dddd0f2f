use super::*;

fn respond(host: HostByte, status: Status, data_len: u32, transferred: u64) -> CommandResponse<'static> {
    command_response(CommandResult { host, status }, data_len, transferred, &[0x70])
}

#[test]
fn task_attributes_in_virtios_numbers() {
    use TaskAttribute::*;
    let known = [Some(Simple), Some(Ordered), Some(HeadOfQueue), Some(Aca), None];
    assert_eq!([0, 1, 2, 3, 4].map(task_attribute), known);
    assert_eq!(task_attribute(0xff), None);
}

#[test]
fn a_status_is_delivered_with_its_sense() {
    let response = respond(HostByte::Ok, Status::CheckCondition, 512, 0);
    assert_eq!(response.response, ResponseCode::Ok);
    assert_eq!((response.status, response.residual, response.sense), (0x02, 512, &[0x70][..]));
    let response = respond(HostByte::Ok, Status::ReservationConflict, 0, 0);
    assert_eq!((response.response, response.status, response.residual), (ResponseCode::Ok, 0x18, 0));
}

#[test]
fn residuals_are_what_the_buffer_has_left() {
    // INQUIRY of 36 bytes into 255.
    let response = respond(HostByte::Ok, Status::Good, 255, 36);
    assert_eq!((response.response, response.residual), (ResponseCode::Ok, 219));
    let response = respond(HostByte::Ok, Status::Good, 512, 512);
    assert_eq!((response.response, response.residual), (ResponseCode::Ok, 0));
    let response = respond(HostByte::Ok, Status::Good, u32::MAX, 0);
    assert_eq!((response.response, response.residual), (ResponseCode::Ok, u32::MAX));
}

#[test]
fn more_data_than_buffer_is_an_overrun_unless_there_is_worse_to_tell() {
    for status in [Status::Good, Status::ConditionMet] {
        let response = respond(HostByte::Ok, status, 512, 513);
        assert_eq!((response.response, response.residual), (ResponseCode::Overrun, 0));
        assert_eq!((response.status, response.sense.len()), (0, 0));
    }
    let response = respond(HostByte::Ok, Status::CheckCondition, 512, u64::MAX);
    assert_eq!((response.response, response.status), (ResponseCode::Ok, 0x02));
    let response = respond(HostByte::Reset, Status::Good, 512, 513);
    assert_eq!(response.response, ResponseCode::Reset);
}

#[test]
fn failed_delivery_has_no_status() {
    let cases = [
        (HostByte::BadTarget, 3),
        (HostByte::Abort, 2),
        (HostByte::Reset, 4),
        (HostByte::TransportDisrupted, 6),
        (HostByte::Error, 9),
    ];
    for (host, code) in cases {
        let response = respond(host, Status::TaskAborted, 512, 0);
        assert_eq!((response.response as u8, response.status), (code, 0), "{host:?}");
        assert_eq!((response.residual, response.sense.len()), (512, 0));
    }
}

#[test]
fn task_management_outcomes() {
    let cases = [
        (FunctionResponse::Complete, 0),
        (FunctionResponse::Succeeded, 10),
        (FunctionResponse::Rejected, 11),
        (FunctionResponse::IncorrectLun, 12),
        (FunctionResponse::Failed, 9),
    ];
    for (outcome, code) in cases {
        assert_eq!(function_response(outcome) as u8, code, "{outcome:?}");
    }
}

/// An SRP_AER_REQ is the event that virtio-scsi has for it.
#[test]
fn a_parameter_change_in_either_sense_format() {
    use crate::scsi::{AdditionalSense, Lun, Sense, SenseFormat};
    let lun = Lun([1, 3, 0x41, 5, 0, 0, 0, 0]);
    let change =
        |sense: &[u8]| parameter_change(&srp::AerReq { solicited: false, req_lim_delta: 0, tag: 0, lun, sense });
    let sense = Sense::unit_attention(AdditionalSense::CAPACITY_DATA_HAS_CHANGED);
    for format in [SenseFormat::Fixed, SenseFormat::Descriptor] {
        assert_eq!(change(&sense.encode(format, 252)), Some(Event::ParamChange { lun, asc: 0x2a, ascq: 0x09 }));
    }
    assert_eq!(change(&[]), None);
    assert_eq!(change(&[0x70; 13]), None);
    assert_eq!(change(&[0x72, 6, 0x2a]), None);
}
