//! Logical unit numbers without a unit, and the REPORT LUNS well-known unit.

use super::*;
use crate::device_server::testkit::{Ran, check, contents, execute, good};
use crate::device_server::{AbortFlag, Request, start};
use crate::lu::{GateBits, Ports, TargetPort};
use crate::mem::{Direction, IoBuf};

const PORTS: [TargetPort; 2] =
    [TargetPort { relative: 1, id: [0x11; 16], group: 5 }, TargetPort { relative: 2, id: [0x22; 16], group: 6 }];

fn run(cdb: &[u8], len: usize, well_known: bool) -> Ran {
    let mut buf = IoBuf::owned(len, Direction::In);
    let attribute = crate::scsi::TaskAttribute::Simple;
    let well_known = well_known.then_some(Ports { all: &PORTS, own: 2 });
    let request = Request {
        cdb,
        itl: None,
        luns: &[2, 5],
        peers: &crate::device_server::testkit::NoPeers,
        well_known,
        attribute,
        passes: &[],
    };
    let plan = start(&request, &mut buf).plan;
    let answer = execute(plan, &mut buf, &AbortFlag::default());
    Ran { answer, data: contents(&buf) }
}

fn absent(cdb: &[u8], len: usize) -> Ran {
    run(cdb, len, false)
}

fn well_known(cdb: &[u8], len: usize) -> Ran {
    run(cdb, len, true)
}

const NOT_SUPPORTED: u16 = 0x2500;

/// SPC-4 6.6.1: PERIPHERAL QUALIFIER 011b, PERIPHERAL DEVICE TYPE 1Fh.
#[test]
fn inquiry_of_nothing() {
    let ran = absent(&[0x12, 0, 0, 0, 36, 0], 36);
    assert_eq!(ran.answer, good(36));
    assert_eq!(ran.data[0], 0x7f);
    assert_eq!(ran.data[2..4], [0x06, 0x12]);
    assert_eq!(absent(&[0x12, 0, 0, 0, 0, 0], 36).answer, good(0));
    let vpd = absent(&[0x12, 1, 0, 0, 36, 0], 36).answer;
    assert_eq!(vpd, check(plain(SenseKey::IllegalRequest, NOT_SUPPORTED)));
    assert_eq!(absent(&[0x12, 0, 0x83, 0, 36, 0], 36).answer, check(invalid_field(2, 7)));
}

#[test]
fn request_sense_of_nothing() {
    let ran = absent(&[0x03, 0, 0, 0, 18, 0], 18);
    assert_eq!(ran.answer, good(18));
    assert_eq!((ran.data[0], ran.data[2], ran.data[12], ran.data[13]), (0x70, 0x05, 0x25, 0x00));
    let ran = absent(&[0x03, 1, 0, 0, 18, 0], 18);
    assert_eq!(ran.data[..4], [0x72, 0x05, 0x25, 0x00]);
}

#[test]
fn report_luns_of_nothing() {
    let ran = absent(&[0xa0, 0, 0, 0, 0, 0, 0, 0, 0, 64, 0, 0], 64);
    assert_eq!(ran.answer, good(24));
    assert_eq!((ran.data[9], ran.data[17]), (2, 5));
}

#[test]
fn all_else_is_not_supported() {
    let sense = plain(SenseKey::IllegalRequest, NOT_SUPPORTED);
    for opcode in 0..=0xff {
        if ![0x03, 0x12, 0xa0].contains(&opcode) {
            assert_eq!(absent(&[opcode; 32], 64).answer, check(sense), "{opcode:02x}");
        }
    }
    assert_eq!(absent(&[0x28, 0, 0, 0, 0, 0, 0, 0, 1, 0], 512).answer, check(sense));
    assert_eq!(absent(&[], 512).answer, check(sense));
}

/// A unit that a nexus has lost answers like one that never was.
#[test]
fn a_unit_that_is_gone() {
    let b = bench();
    b.itl.gate().raise(GateBits::GONE);
    assert_eq!(b.none(&[0; 6]), check(plain(SenseKey::IllegalRequest, NOT_SUPPORTED)));
    assert_eq!(b.data_in(&[0x12, 0, 0, 0, 36, 0], 36).data[0], 0x7f);
    assert_eq!(b.data_in(&[0x03, 0, 0, 0, 18, 0], 18).data[12], 0x25);
}

#[test]
fn the_report_luns_unit() {
    let ran = well_known(&[0x12, 0, 0, 0, 96, 0], 96);
    assert_eq!(ran.answer, good(96));
    assert_eq!((ran.data[0], ran.data[5], ran.data[6]), (0x1e, 0x00, 0x10), "well-known, TPGS 0, MULTIP");
    let ran = well_known(&[0x12, 1, 0, 0, 96, 0], 96);
    assert_eq!(ran.data[..7], [0x1e, 0x00, 0, 3, 0x00, 0x83, 0x88]);
    // It has the names of the port that the command came by, and none of its own.
    let ran = well_known(&[0x12, 1, 0x83, 0, 96, 0], 96);
    let mut page = vec![0x1e, 0x83, 0, 60];
    page.extend(*b"\x43\x98\x00\x28eui.22222222222222222222222222222222\0\0\0\0");
    page.extend([0x41, 0x94, 0, 4, 0, 0, 0, 2, 0x41, 0x95, 0, 4, 0, 0, 0, 6]);
    assert_eq!(ran.data[..64], page);
    let ran = well_known(&[0x12, 1, 0x88, 0, 200, 0], 200);
    assert_eq!(ran.data[..16], [0x1e, 0x88, 0, 112, 0, 0, 0, 1, 0, 0, 0, 0, 0, 0, 0, 44]);
    assert_eq!(ran.data[60..72], [0, 0, 0, 2, 0, 0, 0, 0, 0, 0, 0, 44]);
    assert_eq!(well_known(&[0x12, 1, 0x80, 0, 96, 0], 96).answer, check(invalid_field(2, 7)));
    assert_eq!(well_known(&[0; 6], 0).answer, good(0), "TEST UNIT READY");
    let ran = well_known(&[0x03, 0, 0, 0, 18, 0], 18);
    assert_eq!((ran.answer, ran.data[2]), (good(18), 0));
    let ran = well_known(&[0xa0, 0, 2, 0, 0, 0, 0, 0, 0, 64, 0, 0], 64);
    assert_eq!(ran.answer, good(32));
    assert_eq!(ran.data[24..26], [0xc1, 0x01]);
    // REPORT SUPPORTED OPERATION CODES lists exactly these five.
    let ran = well_known(&[0xa3, 0x0c, 0, 0, 0, 0, 0, 0, 0, 100, 0, 0], 100);
    let opcodes: Vec<u8> = ran.data[4..ran.answer.transferred as usize].chunks(8).map(|d| d[0]).collect();
    assert_eq!(opcodes, [0x00, 0x03, 0x12, 0xa0, 0xa3]);
    for cdb in [&[0x28, 0, 0, 0, 0, 0, 0, 0, 1, 0][..], &[0x1a, 0, 0x3f, 0, 64, 0], &[0xff; 16]] {
        assert_eq!(well_known(cdb, 512).answer, check(plain(SenseKey::IllegalRequest, 0x2000)), "{cdb:02x?}");
    }
}
