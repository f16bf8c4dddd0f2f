//! What is left of a SANITIZE that failed (SBC-3 4.11.3).

use super::*;
use crate::backing::BackingError;
use crate::device_server::testkit::out_buf;

const READ: [u8; 10] = [0x28, 0, 0, 0, 0, 0, 0, 0, 1, 0];
const FORMAT: [u8; 6] = [0x04, 0x10, 0, 0, 0, 0];
const FAILED: u16 = 0x3103;

/// A unit on which a SANITIZE failed.
fn failed(ause: u8) -> Rig {
    let rig = Rig::new(MemImage::patterned(2 * MIB));
    rig.bench.image.fail_writes(MIB as u64, BackingError::WriteFailed);
    assert_eq!(rig.overwrite(0x81 | ause, 0x01, &[0x77]), good(5));
    rig.background.run();
    rig
}

const AUSE: u8 = 0x20;

/// The disk is repaired: all writes fail that touch what there is not.
fn repair(rig: &Rig) {
    rig.bench.image.fail_writes(u64::MAX, BackingError::WriteFailed);
}

#[test]
fn everything_but_three_commands_is_refused() {
    for ause in [0, AUSE] {
        let rig = failed(ause);
        let late = rig.other();
        for bench in [&rig.bench, &late] {
            assert_eq!(bench.none(&TEST_UNIT_READY), medium_error(FAILED));
            assert_eq!(bench.data_in(&READ, 512).answer, medium_error(FAILED));
            assert_eq!(bench.data_in(&[0x1a, 0, 0x3f, 0, 255, 0], 255).answer, medium_error(FAILED), "MODE SENSE");
            assert_eq!(bench.data_in(&[0x25, 0, 0, 0, 0, 0, 0, 0, 0, 0], 8).answer, medium_error(FAILED));
            assert_eq!(bench.data_out(&FORMAT, &[0, 2, 0, 0]), medium_error(FAILED), "FORMAT UNIT is no way out");
            assert_eq!(bench.data_in(&[0x12, 0, 0, 0, 36, 0], 36).answer, good(36));
            assert_eq!(bench.data_in(&[0xa0, 0, 0, 0, 0, 0, 0, 0, 0, 16, 0, 0], 16).answer, good(16));
        }
        assert_eq!(rig.request_sense(), [0x70, 0, 0x03, 0, 0, 0, 0, 10, 0, 0, 0, 0, 0x31, 0x03, 0, 0, 0, 0]);
        assert_eq!(rig.lu().errors().get().write, 1, "the medium is to blame");
        rig.lu().reset();
        assert_eq!(late.none(&TEST_UNIT_READY).sense.unwrap().key, SenseKey::UnitAttention);
        assert_eq!(late.none(&TEST_UNIT_READY), medium_error(FAILED), "a reset is no way out");
    }
}

/// Without IMMED the command itself says so.
#[test]
fn the_command_that_waits_is_told() {
    let rig = Rig::new(MemImage::new(8192));
    rig.bench.image.fail_flushes(BackingError::FlushFailed);
    let list = overwrite_list(0x01, &[0]);
    assert_eq!(waiting(&rig, &sanitize(0x01, 5), out_buf(&list)), medium_error(FAILED));
    assert_eq!(rig.test_unit_ready(), medium_error(FAILED));
}

/// Restricted completion mode: only another SANITIZE, in that mode, gets the unit out of it.
#[test]
fn restricted() {
    let rig = failed(0);
    assert_eq!(rig.bench.none(&EXIT_FAILURE_MODE), invalid_in_cdb(1, 4));
    assert_eq!(rig.overwrite(0x81 | AUSE, 0x01, &[0]), invalid_in_cdb(1, 5));
    assert_eq!(rig.test_unit_ready(), medium_error(FAILED));
    // It fails again, and again.
    assert_eq!(rig.overwrite(0x81, 0x01, &[0]), good(5));
    assert_eq!(rig.test_unit_ready(), sanitizing(0));
    rig.background.run();
    assert_eq!(rig.test_unit_ready(), medium_error(FAILED));
    repair(&rig);
    assert_eq!(rig.bench.none(&BLOCK_ERASE), good(0));
    rig.background.run();
    assert_eq!(rig.test_unit_ready(), good(0));
    assert_eq!(rig.bench.image.bytes(), vec![0; 2 * MIB]);
}

/// Unrestricted: EXIT FAILURE MODE does, too, and what was not erased can be read.
#[test]
fn unrestricted() {
    let rig = failed(AUSE);
    assert_eq!(rig.bench.none(&EXIT_FAILURE_MODE), good(0));
    assert_eq!(rig.test_unit_ready(), good(0));
    assert_eq!(rig.bench.data_in(&READ, 512).data, vec![0x77; 512]);
    let rig = failed(AUSE);
    repair(&rig);
    // Into restricted mode one may always go.
    assert_eq!(rig.overwrite(0x81, 0x01, &[0]), good(5));
    rig.background.run();
    assert_eq!(rig.test_unit_ready(), good(0));
}

/// Where nothing failed there is nothing to exit from; while something runs there is not yet.
#[test]
fn exit_without_a_failure() {
    let rig = Rig::new(MemImage::new(8192));
    assert_eq!(rig.bench.none(&EXIT_FAILURE_MODE), good(0));
    assert_eq!(rig.bench.none(&[0x48, 0xbf, 0, 0, 0, 0, 0, 0, 0, 0]), good(0), "IMMED and AUSE");
    assert_eq!(rig.bench.none(&BLOCK_ERASE), good(0));
    assert_eq!(rig.bench.none(&EXIT_FAILURE_MODE), sanitizing(0));
    rig.background.run();
    assert_eq!(rig.test_unit_ready(), good(0));
}
