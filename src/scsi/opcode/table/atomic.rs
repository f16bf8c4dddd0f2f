//! Reading and writing the medium in one step, and writing it whole or not at all.

use super::super::{Access, Attention, DataDirection, Readiness, Reservation, Row, Usage, decode};

pub(super) const ROWS: &[Row] = &[
    Row {
        opcode: 0x89,
        service_action: None,
        name: "COMPARE AND WRITE",
        clause: "SBC-3 5.2",
        usage: Usage::new(&[
            0x89, 0x18, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0x00, 0x00, 0x00, 0xff, 0x1f, 0x04,
        ]),
        direction: DataDirection::Out,
        attention: Attention::Reports,
        readiness: Readiness::Ready,
        access: Access::Active,
        reservation: Reservation::WRITES,
        decode: decode::compare_and_write,
    },
    Row {
        opcode: 0x8b,
        service_action: None,
        name: "ORWRITE(16)",
        clause: "SBC-3 5.5",
        usage: Usage::new(&[
            0x8b, 0x18, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0x1f, 0x04,
        ]),
        direction: DataDirection::Out,
        attention: Attention::Reports,
        readiness: Readiness::Ready,
        access: Access::Active,
        reservation: Reservation::WRITES,
        decode: decode::orwrite,
    },
    Row {
        opcode: 0x9c,
        service_action: None,
        name: "WRITE ATOMIC(16)",
        clause: "SBC-4 5.48",
        usage: Usage::new(&[
            0x9c, 0x18, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0x1f, 0x04,
        ]),
        direction: DataDirection::Out,
        attention: Attention::Reports,
        readiness: Readiness::Ready,
        access: Access::Active,
        reservation: Reservation::WRITES,
        decode: decode::write_atomic,
    },
];
