//! Copies between units.

use super::super::{
    Access, Attention, DataDirection, Readiness, Reservation, Row, Usage, decode_third_party_copy as decode,
};

pub(super) const ROWS: &[Row] = &[
    Row {
        opcode: 0x83,
        service_action: Some(0x00),
        name: "EXTENDED COPY(LID1)",
        clause: "SPC-4 6.5",
        usage: Usage::new(&[
            0x83, 0x00, 0x00, 0x00, 0x00, 0x00, 0x00, 0x00, 0x00, 0x00, 0xff, 0xff, 0xff, 0xff, 0x00, 0x04,
        ]),
        direction: DataDirection::Out,
        attention: Attention::Reports,
        readiness: Readiness::Ready,
        access: Access::Active,
        reservation: Reservation::WRITES,
        decode: decode::extended_copy,
    },
    Row {
        opcode: 0x84,
        service_action: Some(0x00),
        name: "RECEIVE COPY STATUS(LID1)",
        clause: "SPC-4 6.25",
        usage: Usage::new(&[
            0x84, 0x00, 0xff, 0x00, 0x00, 0x00, 0x00, 0x00, 0x00, 0x00, 0xff, 0xff, 0xff, 0xff, 0x00, 0x04,
        ]),
        direction: DataDirection::In,
        attention: Attention::Reports,
        readiness: Readiness::Unoccupied,
        access: Access::Standby,
        reservation: Reservation::WRITES,
        decode: decode::receive_copy_status,
    },
    Row {
        opcode: 0x84,
        service_action: Some(0x03),
        name: "RECEIVE COPY OPERATING PARAMETERS",
        clause: "SPC-4 6.22",
        usage: Usage::new(&[
            0x84, 0x03, 0x00, 0x00, 0x00, 0x00, 0x00, 0x00, 0x00, 0x00, 0xff, 0xff, 0xff, 0xff, 0x00, 0x04,
        ]),
        direction: DataDirection::In,
        attention: Attention::Reports,
        readiness: Readiness::Unoccupied,
        access: Access::Standby,
        reservation: Reservation::WRITES,
        decode: decode::receive_copy_operating_parameters,
    },
    Row {
        opcode: 0x84,
        service_action: Some(0x04),
        name: "RECEIVE COPY FAILURE DETAILS(LID1)",
        clause: "SPC-4 6.23",
        usage: Usage::new(&[
            0x84, 0x04, 0xff, 0x00, 0x00, 0x00, 0x00, 0x00, 0x00, 0x00, 0xff, 0xff, 0xff, 0xff, 0x00, 0x04,
        ]),
        direction: DataDirection::In,
        attention: Attention::Reports,
        readiness: Readiness::Unoccupied,
        access: Access::Standby,
        reservation: Reservation::WRITES,
        decode: decode::receive_copy_failure_details,
    },
];
