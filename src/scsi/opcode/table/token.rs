//! Copies by token.

use super::super::{Access, Attention, DataDirection, Readiness, Reservation, Row, Usage, decode_token};

pub(super) const ROWS: &[Row] = &[
    Row {
        opcode: 0x83,
        service_action: Some(0x10),
        name: "POPULATE TOKEN",
        clause: "SBC-3 5.6",
        usage: Usage::new(&[
            0x83, 0x10, 0x00, 0x00, 0x00, 0x00, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0x1f, 0x04,
        ]),
        direction: DataDirection::Out,
        attention: Attention::Reports,
        readiness: Readiness::Ready,
        access: Access::Active,
        reservation: Reservation::READS,
        decode: decode_token::populate_token,
    },
    Row {
        opcode: 0x83,
        service_action: Some(0x11),
        name: "WRITE USING TOKEN",
        clause: "SBC-3 5.51",
        usage: Usage::new(&[
            0x83, 0x11, 0x00, 0x00, 0x00, 0x00, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0x1f, 0x04,
        ]),
        direction: DataDirection::Out,
        attention: Attention::Reports,
        readiness: Readiness::Ready,
        access: Access::Active,
        reservation: Reservation::WRITES,
        decode: decode_token::write_using_token,
    },
    Row {
        opcode: 0x83,
        service_action: Some(0x1c),
        name: "COPY OPERATION ABORT",
        clause: "SPC-4 6.3",
        usage: Usage::new(&[
            0x83, 0x1c, 0xff, 0xff, 0xff, 0xff, 0x00, 0x00, 0x00, 0x00, 0x00, 0x00, 0x00, 0x00, 0x00, 0x04,
        ]),
        direction: DataDirection::None,
        attention: Attention::Reports,
        readiness: Readiness::Unoccupied,
        access: Access::Standby,
        reservation: Reservation::WRITES,
        decode: decode_token::copy_operation_abort,
    },
    Row {
        opcode: 0x84,
        service_action: Some(0x05),
        name: "RECEIVE COPY STATUS(LID4)",
        clause: "SPC-4 6.24",
        usage: Usage::new(&[
            0x84, 0x05, 0xff, 0xff, 0xff, 0xff, 0x00, 0x00, 0x00, 0x00, 0xff, 0xff, 0xff, 0xff, 0x00, 0x04,
        ]),
        direction: DataDirection::In,
        attention: Attention::Reports,
        readiness: Readiness::Unoccupied,
        access: Access::Standby,
        reservation: Reservation::ALLOWED,
        decode: decode_token::receive_copy_status_lid4,
    },
    Row {
        opcode: 0x84,
        service_action: Some(0x07),
        name: "RECEIVE ROD TOKEN INFORMATION",
        clause: "SPC-4 6.26",
        usage: Usage::new(&[
            0x84, 0x07, 0xff, 0xff, 0xff, 0xff, 0x00, 0x00, 0x00, 0x00, 0xff, 0xff, 0xff, 0xff, 0x00, 0x04,
        ]),
        direction: DataDirection::In,
        attention: Attention::Reports,
        readiness: Readiness::Unoccupied,
        access: Access::Standby,
        reservation: Reservation::ALLOWED,
        decode: decode_token::receive_rod_token_information,
    },
];
