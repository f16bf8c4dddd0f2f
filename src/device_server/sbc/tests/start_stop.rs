use super::*;
use crate::backing::BackingError;
use crate::device_server::testkit::nexus_of;
use crate::device_server::testkit::{Bench, Call, MemImage, check, good};
use crate::lu::Attention;

const STOP: [u8; 6] = [0x1b, 0, 0, 0, 0x00, 0];
const STOP_NO_FLUSH: [u8; 6] = [0x1b, 0, 0, 0, 0x04, 0];
const START: [u8; 6] = [0x1b, 0, 0, 0, 0x01, 0];
const TEST_UNIT_READY: [u8; 6] = [0; 6];

fn bench() -> Bench {
    Bench::new(MemImage::patterned(51_200))
}

fn not_ready() -> crate::device_server::Answer {
    check(plain(SenseKey::NotReady, 0x0402))
}

#[test]
fn a_sole_nexus_stops_and_starts_its_unit() {
    let b = bench();
    assert_eq!(b.none(&STOP), good(0));
    assert_eq!(b.image.calls(), [Call::Flush]);
    assert_eq!(b.none(&TEST_UNIT_READY), not_ready());
    assert_eq!(b.data_in(&cdb10(0x28, 0, 0, 1), 512).answer, not_ready());
    assert_eq!(b.data_in(&cdb10(0x28, 0, 200, 1), 512).answer, not_ready(), "before the range is looked at");
    assert_eq!(b.data_in(&[0x12, 0, 0, 0, 36, 0], 36).answer, good(36), "INQUIRY needs no readiness");
    // REQUEST SENSE tells why.
    let ran = b.data_in(&[0x03, 0, 0, 0, 18, 0], 18);
    assert_eq!((ran.data[2], ran.data[12], ran.data[13]), (0x02, 0x04, 0x02));
    assert_eq!(b.none(&START), good(0));
    assert_eq!(b.none(&TEST_UNIT_READY), good(0));
    assert_eq!(b.image.calls(), []);
}

#[test]
fn a_shared_unit_is_flushed_and_runs_on() {
    let b = bench();
    let other = nexus_of(b.itl.lu().clone(), None);
    assert_eq!(b.none(&STOP), good(0));
    assert_eq!(b.image.calls(), [Call::Flush]);
    assert_eq!(b.none(&TEST_UNIT_READY), good(0));
    drop(other);
    assert_eq!(b.none(&STOP), good(0));
    assert_eq!(b.none(&TEST_UNIT_READY), not_ready());
    // A second guest appears: the unit runs, for both.
    let _other = nexus_of(b.itl.lu().clone(), None);
    assert_eq!(b.none(&TEST_UNIT_READY), good(0));
}

#[test]
fn a_guest_that_reboots_finds_its_disk_running() {
    let b = bench();
    b.none(&STOP);
    b.itl.lose_nexus();
    assert_eq!(b.none(&TEST_UNIT_READY), check(plain(SenseKey::UnitAttention, 0x2907)));
    assert_eq!(b.none(&TEST_UNIT_READY), good(0));
}

#[test]
fn no_flush_and_failing_flush() {
    let b = bench();
    b.image.fail_flushes(BackingError::FlushFailed);
    assert_eq!(b.none(&STOP), check(plain(SenseKey::HardwareError, 0x4400)));
    assert_eq!(b.none(&TEST_UNIT_READY), good(0), "not stopped");
    b.image.calls();
    assert_eq!(b.none(&STOP_NO_FLUSH), good(0));
    assert_eq!(b.image.calls(), []);
    assert_eq!(b.none(&TEST_UNIT_READY), not_ready());
}

#[test]
fn there_is_no_tray_and_no_power_condition() {
    let b = bench();
    for loej in [0x02, 0x03] {
        assert_eq!(b.none(&[0x1b, 0, 0, 0, loej, 0]), check(invalid_field(4, 1)));
    }
    for condition in 1..=0xf {
        let answer = b.none(&[0x1b, 0, 0, 0, condition << 4, 0]);
        assert_eq!(answer, check(invalid_field(4, 7)), "{condition}");
    }
    assert_eq!(b.none(&TEST_UNIT_READY), good(0));
}

#[test]
fn start_of_a_running_unit_with_a_unit_attention_reports_that() {
    let b = bench();
    b.itl.gate().establish(Attention::PowerOn);
    assert_eq!(b.none(&START), check(plain(SenseKey::UnitAttention, 0x2900)));
    assert_eq!(b.none(&START), good(0));
}

/// PREVENT ALLOW MEDIUM REMOVAL 1Eh, byte 4: kept for each nexus.
#[test]
fn prevention_is_kept_for_each_nexus() {
    let b = bench();
    let other = nexus_of(b.itl.lu().clone(), None);
    assert_eq!(b.none(&[0x1e, 0, 0, 0, 1, 0]), good(0));
    assert!(b.itl.prevents_removal());
    assert!(!other.prevents_removal());
    assert_eq!(b.none(&[0x1e, 0, 0, 0, 0, 0]), good(0));
    assert!(!b.itl.prevents_removal());
    // 10b and 11b are obsolete.
    assert_eq!(b.none(&[0x1e, 0, 0, 0, 2, 0]).status as u8, 0x02);
}
