//! REPORT LUNS, REPORT SUPPORTED OPERATION CODES, REPORT SUPPORTED TASK MANAGEMENT FUNCTIONS.

use super::*;
use crate::device_server::testkit::{check, good};
use crate::lu::Attention;

/// REPORT LUNS A0h: byte 2 SELECT REPORT, bytes 6–9 allocation length.
fn report_luns(select: u8, length: u16) -> Vec<u8> {
    let [hi, lo] = length.to_be_bytes();
    vec![0xa0, 0, select, 0, 0, 0, 0, 0, hi, lo, 0, 0]
}

/// MAINTENANCE IN A3h: byte 1 service action, bytes 6–9 allocation length.
fn maintenance_in(service_action: u8, byte2: u8, opcode: u8, of: u16, length: u16) -> Vec<u8> {
    let [sa, sb] = of.to_be_bytes();
    let [hi, lo] = length.to_be_bytes();
    vec![0xa3, service_action, byte2, opcode, sa, sb, 0, 0, hi, lo, 0, 0]
}

#[test]
fn luns() {
    let mut b = bench();
    b.luns = vec![0, 3, 300];
    let data = at_all_allocation_lengths(&b, |length| report_luns(0, length));
    let mut expected = vec![0, 0, 0, 24, 0, 0, 0, 0];
    expected.extend([0, 0, 0, 0, 0, 0, 0, 0]);
    expected.extend([0, 3, 0, 0, 0, 0, 0, 0]);
    expected.extend([0x41, 0x2c, 0, 0, 0, 0, 0, 0]);
    assert_eq!(data, expected);
    let well_known = b.data_in(&report_luns(1, 100), 100);
    assert_eq!(well_known.answer, good(16));
    assert_eq!(well_known.data[..16], [0, 0, 0, 8, 0, 0, 0, 0, 0xc1, 0x01, 0, 0, 0, 0, 0, 0]);
    assert_eq!(b.data_in(&report_luns(2, 100), 100).answer, good(8 + 32));
    assert_eq!(b.data_in(&report_luns(3, 100), 100).answer, check(invalid_field(2, 7)));
}

#[test]
fn reporting_luns_settles_that_they_changed_and_nothing_else() {
    let b = bench();
    b.itl.gate().establish(Attention::ReportedLunsChanged);
    b.itl.gate().establish(Attention::CapacityChanged);
    assert_eq!(b.data_in(&report_luns(3, 16), 16).answer, check(invalid_field(2, 7)), "refused: settles nothing");
    assert_eq!(b.data_in(&report_luns(0, 16), 16).answer, good(16));
    assert_eq!(b.none(&[0; 6]), check(plain(SenseKey::UnitAttention, 0x2a09)));
    assert_eq!(b.none(&[0; 6]), good(0));
}

#[test]
fn operation_codes() {
    let b = bench();
    // REPORTING OPTIONS 1: READ(10).
    let ran = b.data_in(&maintenance_in(0x0c, 1, 0x28, 0, 64), 64);
    assert_eq!(ran.answer, good(14));
    assert_eq!(ran.data[..4], [0, 0x03, 0, 10]);
    assert_eq!((ran.data[4], ran.data[5]), (0x28, 0x18), "DPO and FUA");
    let all = b.data_in(&maintenance_in(0x0c, 0, 0, 0, 0x1000), 0x1000);
    let len = all.answer.transferred as usize;
    let opcodes: Vec<u8> = all.data[4..len].chunks(8).map(|d| d[0]).collect();
    for opcode in [0x00, 0x03, 0x12, 0x1a, 0x25, 0x28, 0x2a, 0x35, 0x42, 0x88, 0x8a, 0x93, 0x9e, 0xa0, 0xa3] {
        assert!(opcodes.contains(&opcode), "{opcode:02x}");
    }
    let unmap = maintenance_in(0x0c, 1, 0x42, 0, 64);
    assert_eq!(b.data_in(&unmap, 64).data[1], 0x03);
    let thick = Bench::new(MemImage::new(512).without_unmap());
    assert_eq!(thick.data_in(&unmap, 64).data[1], 0x01, "not supported");
    assert_eq!(b.data_in(&maintenance_in(0x0c, 1, 0xa3, 0, 64), 64).answer, check(invalid_field(2, 2)));
}

/// The whole list of a thin disk, as (operation code, service action), with RCTD: each has a timeouts descriptor.
#[test]
fn all_operation_codes_with_timeouts() {
    let b = bench();
    let ran = b.data_in(&maintenance_in(0x0c, 0x80, 0, 0, 0x1000), 0x1000);
    let len = ran.answer.transferred as usize;
    assert_eq!(ran.data[..4], (len as u32 - 4).to_be_bytes());
    let mut reported = Vec::new();
    for d in ran.data[4..len].chunks(20) {
        let servactv = d[5] & 0x01 != 0;
        assert_eq!(d[5] & 0x02, 0x02, "CTDP of {:02x}", d[0]);
        assert_eq!(d[8..], [0, 0x0a, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0], "no timeout of {:02x} is told", d[0]);
        reported.push((d[0], servactv.then_some(u16::from_be_bytes([d[2], d[3]]))));
    }
    let plain = [
        0x00, 0x03, 0x08, 0x0a, 0x12, 0x15, 0x1a, 0x1b, 0x1e, 0x25, 0x28, 0x2a, 0x2e, 0x2f, 0x34, 0x35, 0x41, 0x42,
        0x55, 0x5a, 0x88, 0x8a, 0x8e, 0x8f, 0x90, 0x91, 0x93, 0xa0, 0xa8, 0xaa, 0xae, 0xaf,
    ];
    for opcode in plain {
        assert!(reported.contains(&(opcode, None)), "{opcode:02x}");
    }
    for (opcode, service_action) in [(0x9e, 0x10), (0x9e, 0x12), (0xa3, 0x0c), (0xa3, 0x0d)] {
        assert!(reported.contains(&(opcode, Some(service_action))), "{opcode:02x}/{service_action:02x}");
    }
    assert!(reported.is_sorted());
    // One command, with its timeouts behind the usage data; none of a command that is not there.
    let one = b.data_in(&maintenance_in(0x0c, 0x82, 0x9e, 0x12, 64), 64);
    assert_eq!(one.answer, good(4 + 16 + 12));
    assert_eq!(one.data[..4], [0, 0x83, 0, 16]);
    assert_eq!(one.data[20..32], [0, 0x0a, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0]);
    assert_eq!(b.data_in(&maintenance_in(0x0c, 0x82, 0x9e, 0x1f, 64), 64).answer, good(4));
}

/// Every command that is reported is known to `start`; none that is not.
#[test]
fn what_is_reported_is_performed() {
    let b = bench();
    for opcode in 0..=0xff {
        let ran = b.data_in(&maintenance_in(0x0c, 3, opcode, 0, 64), 64);
        let reported = ran.data[1] == 0x03;
        let known = !matches!(b.none(&[opcode; 32]).sense, Some(sense) if sense.code.0 == 0x2000);
        let has_service_actions = [0x48, 0x9e, 0xa3, 0xa4].contains(&opcode);
        assert_eq!(reported || has_service_actions, known, "{opcode:02x}");
    }
}

#[test]
fn task_management_functions() {
    let b = bench();
    let ran = b.data_in(&maintenance_in(0x0d, 0, 0, 0, 64), 64);
    assert_eq!(ran.answer, good(4));
    // ABORT TASK, ABORT TASK SET, CLEAR ACA, CLEAR TASK SET, LOGICAL UNIT RESET, QUERY TASK; QUERY TASK SET, I_T NEXUS RESET.
    assert_eq!(ran.data[..4], [0x80 | 0x40 | 0x20 | 0x10 | 0x08 | 0x04, 0x02 | 0x01, 0, 0]);
    assert_eq!(b.data_in(&maintenance_in(0x0d, 0x80, 0, 0, 64), 64).answer, good(16));
    assert_eq!(b.data_in(&maintenance_in(0x0d, 0, 0, 0, 3), 64).answer, check(invalid_field(6, 7)));
}
