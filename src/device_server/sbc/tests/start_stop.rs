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
fn there_is_no_tray() {
    let b = bench();
    for loej in [0x02, 0x03] {
        assert_eq!(b.none(&[0x1b, 0, 0, 0, loej, 0]), check(invalid_field(4, 1)));
        b.none(&[0x1e, 0, 0, 0, 1, 0]);
    }
    assert_eq!(b.none(&TEST_UNIT_READY), good(0));
}

/// POWER CONDITION, byte 4 bits 7 to 4.
fn power(condition: u8) -> [u8; 6] {
    [0x1b, 0, 0, 0, condition << 4, 0]
}

/// Sense key and code of REQUEST SENSE's data.
fn told(b: &Bench) -> (u8, u16) {
    let data = b.data_in(&[0x03, 0, 0, 0, 18, 0], 18).data;
    (data[2], u16::from_be_bytes([data[12], data[13]]))
}

/// SBC-3 5.29: idle, standby, and back with the first command that uses the medium.
#[test]
fn power_conditions() {
    const IDLE: (u8, u16) = (0x0, 0x5e03);
    const STANDBY: (u8, u16) = (0x0, 0x5e04);
    const ACTIVE: (u8, u16) = (0x0, 0x0000);
    let b = bench();
    let other = Bench::of(b.image.clone(), nexus_of(b.itl.lu().clone(), None));
    assert_eq!(told(&b), ACTIVE);
    for (condition, sense, flushed) in [(0x2, IDLE, &[][..]), (0x3, STANDBY, &[Call::Flush])] {
        assert_eq!(b.none(&power(condition)), good(0));
        assert_eq!(b.image.calls(), flushed);
        assert_eq!([told(&b), told(&other)], [sense, sense]);
        // What does not use the medium leaves it as it is.
        assert_eq!(b.none(&TEST_UNIT_READY), good(0));
        assert_eq!(b.data_in(&[0x12, 0, 0, 0, 36, 0], 36).answer, good(36));
        assert_eq!(b.data_in(&cdb10(0x25, 0, 0, 0), 8).answer, good(8));
        assert_eq!(b.none(&power(0x7)), good(0), "the timers it would start are not enabled");
        assert_eq!(told(&b), sense);
        let late = Bench::of(b.image.clone(), nexus_of(b.itl.lu().clone(), None));
        assert_eq!(told(&late), sense);
        assert_eq!(late.data_in(&cdb10(0x28, 0, 0, 1), 512).answer, good(512));
        assert_eq!([told(&b), told(&other)], [ACTIVE, ACTIVE]);
        b.image.calls();
        for wakes in [power(0x1), START] {
            b.none(&power(condition));
            assert_eq!(b.none(&wakes), good(0));
            assert_eq!(told(&b), ACTIVE);
        }
        b.none(&power(condition));
        b.itl.lu().reset();
        b.itl.gate().take_attention();
        assert_eq!(told(&b), ACTIVE);
        other.itl.gate().take_attention();
        b.image.calls();
    }
    b.none(&[0x1b, 0, 0, 0, 0x34, 0]);
    assert_eq!(b.image.calls(), [], "NO_FLUSH");
    b.image.fail_flushes(BackingError::FlushFailed);
    b.none(&power(0x1));
    assert_eq!(b.none(&power(0x3)), check(plain(SenseKey::HardwareError, 0x4400)));
    assert_eq!(told(&b), ACTIVE);
}

/// From stopped to any of them.
#[test]
fn a_power_condition_ends_a_stop() {
    let b = bench();
    for condition in [0x1, 0x2, 0x3] {
        assert_eq!(b.none(&STOP), good(0));
        assert_eq!(b.none(&TEST_UNIT_READY), not_ready());
        assert_eq!(b.none(&power(condition)), good(0));
        assert_eq!(b.none(&TEST_UNIT_READY), good(0));
    }
    b.none(&STOP);
    assert_eq!(told(&b), (0x02, 0x0402), "standby, and then stopped");
}

/// A unit attention comes first, and does not wake it.
#[test]
fn a_refused_command_wakes_nothing() {
    let b = bench();
    b.none(&power(0x2));
    b.itl.gate().establish(Attention::CapacityChanged);
    let read = cdb10(0x28, 0, 0, 1);
    assert_eq!(b.data_in(&read, 512).answer, check(plain(SenseKey::UnitAttention, 0x2a09)));
    assert_eq!(told(&b), (0x0, 0x5e03));
    assert_eq!(b.data_in(&read, 512).answer, good(512));
    assert_eq!(told(&b), (0x0, 0x0000));
}

/// FORCE_IDLE_0 and FORCE_STANDBY_0 run out timers that there are not; the others are reserved.
#[test]
fn power_conditions_that_there_are_not() {
    let b = bench();
    for condition in [0x4, 0x5, 0x6, 0x8, 0x9, 0xa, 0xb, 0xc, 0xd, 0xe, 0xf] {
        assert_eq!(b.none(&power(condition)), check(invalid_field(4, 7)), "{condition:x}h");
    }
    // POWER CONDITION MODIFIER, byte 3: there is one kind of each.
    assert_eq!(b.none(&[0x1b, 0, 0, 0x01, 0x20, 0]), check(invalid_field(3, 0)));
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
