//! The order in which a command is checked, and that no CDB or buffer whatever does harm.

use std::sync::LazyLock;

use proptest::prelude::*;

use super::*;
use crate::device_server::testkit::{check, execute, good, out_buf, pattern};
use crate::device_server::{AbortFlag, Answer, Plan, Request, start};
use crate::lu::{Attention, GateBits, Holding, Touches};
use crate::mem::{Direction, IoBuf};
use crate::scsi::Status;

const TEST_UNIT_READY: [u8; 6] = [0; 6];
const READ: [u8; 10] = [0x28, 0, 0, 0, 0, 0, 0, 0, 1, 0];
const WRITE: [u8; 10] = [0x2a, 0, 0, 0, 0, 0, 0, 0, 1, 0];
const READ_CAPACITY: [u8; 10] = [0x25, 0, 0, 0, 0, 0, 0, 0, 0, 0];

/// An illegal CDB is told before a unit attention, which stays pending.
#[test]
fn cdb_before_gate() {
    let b = bench();
    b.itl.gate().establish(Attention::PowerOn);
    assert_eq!(b.none(&[0xff; 16]), check(plain(SenseKey::IllegalRequest, 0x2000)));
    assert_eq!(b.none(&[0x28, 0xe0, 0, 0, 0, 0, 0, 0, 1, 0]), check(invalid_field(1, 7)), "RDPROTECT");
    assert_eq!(b.none(&TEST_UNIT_READY), check(plain(SenseKey::UnitAttention, 0x2900)));
}

/// A unit attention is told before the range or the buffer is looked at, and costs one command.
#[test]
fn gate_before_run() {
    let b = bench();
    b.itl.gate().establish(Attention::CapacityChanged);
    let past = [0x28, 0, 0, 0, 0, 100, 0, 0, 1, 0];
    assert_eq!(b.none(&past), check(plain(SenseKey::UnitAttention, 0x2a09)));
    assert_eq!(b.none(&past).sense.unwrap().code.0, 0x2100);
    assert_eq!(b.image.calls(), []);
}

#[test]
fn attentions_go_to_one_command_each() {
    let b = bench();
    for a in [Attention::CapacityChanged, Attention::ModeParametersChanged, Attention::NexusLoss] {
        b.itl.gate().establish(a);
    }
    // The nexus loss came last and voids what was before it.
    assert_eq!(b.none(&TEST_UNIT_READY), check(plain(SenseKey::UnitAttention, 0x2907)));
    assert_eq!(b.none(&TEST_UNIT_READY), good(0));
}

#[test]
fn a_held_command_has_no_effect_yet() {
    let b = bench();
    let lu = b.itl.lu();
    b.itl.gate().establish(Attention::CapacityChanged);
    let hold = lu.hold(Holding::TaskSet(Some(b.itl.nexus())), &b.itl, Touches::Nothing, false, &[]).unwrap();
    assert!(matches!(b.plan(&TEST_UNIT_READY, &mut IoBuf::empty()), Plan::Held));
    lu.end_hold(hold);
    assert_eq!(b.none(&TEST_UNIT_READY), check(plain(SenseKey::UnitAttention, 0x2a09)), "it was not taken");
    assert_eq!(b.none(&TEST_UNIT_READY), good(0));
}

/// COMPARE AND WRITE stops what uses its blocks, and nothing else.
#[test]
fn a_hold_on_blocks_stops_what_overlaps() {
    let b = bench();
    let lu = b.itl.lu();
    let extent = lu.geometry().extent(4, 2).unwrap();
    let hold = lu.hold(Holding::Blocks(extent), &b.itl, Touches::Blocks(extent), false, &[]).unwrap();
    assert_eq!(
        lu.hold(Holding::Blocks(extent), &b.itl, Touches::Blocks(extent), false, &[]),
        None,
        "it stops another one"
    );
    let read = |lba: u8, blocks: u8| {
        let cdb = [0x28, 0, 0, 0, 0, lba, 0, 0, blocks, 0];
        matches!(b.plan(&cdb, &mut IoBuf::owned(4096, Direction::In)), Plan::Held)
    };
    assert_eq!([read(3, 1), read(3, 2), read(5, 1), read(6, 1), read(0, 8)], [false, true, true, false, true]);
    assert_eq!(b.none(&TEST_UNIT_READY), good(0));
    lu.end_hold(hold);
    assert!(!read(0, 8));
    assert!(!b.itl.gate().bits().intersects(GateBits::HELD));
}

/// The reservation classes: what a nexus that is kept from writing, or from everything, may still do.
#[test]
fn denials() {
    let b = bench();
    let conflict = Answer::status(Status::ReservationConflict);
    let read = || b.data_in(&READ, 512).answer;
    let write = || b.data_out(&WRITE, &[0; 512]);
    b.itl.gate().raise(GateBits::DENY_WRITE);
    assert_eq!((read(), write()), (good(512), conflict.clone()));
    b.itl.gate().raise(GateBits::DENY_READ);
    assert_eq!((read(), write()), (conflict.clone(), conflict.clone()));
    assert_eq!(b.none(&TEST_UNIT_READY), good(0), "SPC-4 table 65: allowed");
    assert_eq!(b.data_in(&READ_CAPACITY, 8).answer, good(8), "SBC-3 table 13: allowed");
    assert_eq!(b.none(&[0x1b, 0, 0, 0, 1, 0]), good(0), "START is allowed");
    assert_eq!(b.none(&[0x1b, 0, 0, 0, 0, 0]), conflict, "STOP is not");
    assert_eq!(b.none(&[0x1e, 0, 0, 0, 0, 0]), good(0), "ALLOW is allowed");
    b.itl.gate().lower(GateBits::DENY);
    b.itl.gate().raise(GateBits::DENY_SPC2);
    assert_eq!((read(), write()), (conflict.clone(), conflict.clone()));
    assert_eq!(b.none(&TEST_UNIT_READY), conflict, "SPC-2 table 10");
    assert_eq!(b.data_in(&[0x12, 0, 0, 0, 36, 0], 36).answer, good(36));
    assert_eq!(b.data_in(&[0x03, 0, 0, 0, 18, 0], 18).answer, good(18));
}

#[test]
fn short_cdbs_are_refused() {
    let b = bench();
    for cdb in [&READ[..9], &WRITE[..1], &[0x88, 0, 0][..], &[][..]] {
        let sense = b.none(cdb).sense.unwrap();
        assert_eq!(sense.key, SenseKey::IllegalRequest, "{cdb:02x?}");
    }
    // What follows the CDB does not matter.
    let mut long = [0xff; 32];
    long[..10].copy_from_slice(&READ);
    assert_eq!(b.data_in(&long, 512).answer, good(512));
}

static PATTERN: LazyLock<Vec<u8>> = LazyLock::new(|| pattern(0, 51_200));

fn any_buffer() -> impl Strategy<Value = (u8, Vec<u8>)> {
    (0u8..3, proptest::collection::vec(any::<u8>(), 0..600))
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(2000))]

    /// Any CDB with any buffer is answered, and an answer that says nothing was moved has moved nothing.
    #[test]
    fn any_cdb_with_any_buffer(
        mut cdb in proptest::collection::vec(any::<u8>(), 0..33),
        sparse in any::<u32>(),
        known in any::<proptest::sample::Index>(),
        (direction, data) in any_buffer(),
        well_known in proptest::bool::weighted(0.1),
        there in proptest::bool::weighted(0.9),
    ) {
        // Mostly known commands, with most bytes zero: others are refused at once.
        let rows = crate::scsi::opcode::rows();
        let row = &rows[known.index(rows.len())];
        for (at, byte) in cdb.iter_mut().enumerate() {
            match at {
                0 => *byte = row.opcode,
                1 if row.service_action.is_some() => *byte = row.service_action.unwrap() as u8,
                _ if sparse & 1 << at != 0 => {
                    *byte &= row.usage.bytes().get(at).copied().unwrap_or(0xff);
                }
                _ => *byte = 0,
            }
        }
        let b = Bench::new(MemImage::holding(PATTERN.clone()));
        let mut buf = match direction {
            0 => IoBuf::empty(),
            1 => out_buf(&data),
            _ => IoBuf::owned(data.len(), Direction::In),
        };
        let attribute = crate::scsi::TaskAttribute::Simple;
        let itl = there.then_some(&b.itl);
        let well_known = well_known.then(|| b.itl.ports());
        let request = Request { cdb: &cdb, itl, luns: &[0, 1], peers: &crate::device_server::testkit::NoPeers, well_known, attribute, passes: &[] };
        let answer = execute(start(&request, &mut buf).plan, &mut buf, &AbortFlag::default());
        prop_assert_eq!(answer.status == Status::CheckCondition, answer.sense.is_some());
        let refused = answer.sense.is_some() || answer.transferred > buf.len();
        if refused && direction == 1 {
            // WRITE AND VERIFY may find a difference only after it wrote.
            let compares = matches!(cdb.first(), Some(0x2e | 0xae | 0x8e));
            prop_assert!(compares || b.image.bytes() == *PATTERN);
        }
    }
}
