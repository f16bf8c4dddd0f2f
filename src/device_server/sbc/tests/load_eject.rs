//! START STOP UNIT 1Bh with LOEJ (byte 4 bit 1), and PREVENT ALLOW MEDIUM REMOVAL 1Eh (byte 4 bit 0).

use std::sync::Arc;

use super::*;
use crate::backing::BackingError;
use crate::device_server::testkit::{Bench, Call, MemImage, check, execute, good, nexus_of};
use crate::device_server::{AbortFlag, Answer, Plan};
use crate::lu::{Attention, GateBits, Itl};
use crate::mem::IoBuf;

const EJECT: [u8; 6] = [0x1b, 0, 0, 0, 0x02, 0];
const EJECT_NO_FLUSH: [u8; 6] = [0x1b, 0, 0, 0, 0x06, 0];
const LOAD: [u8; 6] = [0x1b, 0, 0, 0, 0x03, 0];
const START: [u8; 6] = [0x1b, 0, 0, 0, 0x01, 0];
const STOP: [u8; 6] = [0x1b, 0, 0, 0, 0x00, 0];
const PREVENT: [u8; 6] = [0x1e, 0, 0, 0, 1, 0];
const ALLOW: [u8; 6] = [0x1e, 0, 0, 0, 0, 0];
const TEST_UNIT_READY: [u8; 6] = [0; 6];

const BLOCKS: usize = 100;

fn bench() -> Bench {
    Bench::with(MemImage::patterned(BLOCKS * 512), |setup| setup.removable = true)
}

/// The unit as another nexus sees it.
fn other(b: &Bench) -> Bench {
    Bench::of(Arc::clone(&b.image), nexus_of(b.itl.lu().clone(), None))
}

/// MEDIUM NOT PRESENT.
fn empty() -> Answer {
    check(plain(SenseKey::NotReady, 0x3a00))
}

/// MEDIUM REMOVAL PREVENTED.
fn prevented() -> Answer {
    check(plain(SenseKey::IllegalRequest, 0x5302))
}

/// NOT READY TO READY CHANGE, MEDIUM MAY HAVE CHANGED.
fn may_have_changed() -> Answer {
    check(plain(SenseKey::UnitAttention, 0x2800))
}

#[test]
fn rmb_is_as_configured() {
    let rmb = |b: &Bench| b.data_in(&[0x12, 0, 0, 0, 96, 0], 96).data[1];
    assert_eq!(rmb(&bench()), 0x80);
    assert_eq!(rmb(&Bench::new(MemImage::new(51_200))), 0x00);
}

#[test]
fn it_goes_and_comes_back() {
    let b = bench();
    for immed in [0, 1] {
        let cdb = |byte4| [0x1b, immed, 0, 0, byte4, 0];
        assert_eq!(b.none(&cdb(0x02)), good(0));
        assert_eq!(b.image.calls(), [Call::Flush]);
        assert_eq!(b.none(&TEST_UNIT_READY), empty());
        assert_eq!(b.none(&cdb(0x02)), good(0), "it is out already");
        assert_eq!(b.image.calls(), []);
        assert_eq!(b.none(&cdb(0x03)), good(0));
        assert_eq!(b.image.calls(), [Call::RefreshSize]);
        assert_eq!(b.none(&TEST_UNIT_READY), good(0), "who loaded it need not be told");
        assert_eq!(b.none(&cdb(0x03)), good(0), "it is in already");
        assert_eq!(b.image.calls(), []);
    }
    assert_eq!(b.none(&EJECT_NO_FLUSH), good(0));
    assert_eq!(b.image.calls(), []);
    assert_eq!(b.none(&TEST_UNIT_READY), empty());
}

/// Everything that uses the medium, or tells of its size.
#[test]
fn an_empty_unit_has_no_blocks() {
    let b = bench();
    assert_eq!(b.none(&EJECT), good(0));
    b.image.calls();
    let zeros = |cdb: &[u8], len: usize| b.data_out(cdb, &vec![0; len]);
    for opcode in [0x28, 0x34, 0x2f] {
        assert_eq!(b.data_in(&cdb10(opcode, 0, 0, 1), 512).answer, empty(), "{opcode:x}h");
    }
    assert_eq!(b.data_in(&[0x08, 0, 0, 0, 1, 0], 512).answer, empty());
    assert_eq!(b.data_in(&cdb12(0xa8, 0, 0, 1), 512).answer, empty());
    assert_eq!(b.data_in(&cdb16(0x88, 0, 0, 1), 512).answer, empty());
    assert_eq!(b.data_in(&cdb10(0x28, 0, 1_000, 1), 512).answer, empty(), "before the range is looked at");
    assert_eq!(b.none(&cdb10(0x35, 0, 0, 0)), empty());
    assert_eq!(b.none(&cdb16(0x91, 0, 0, 0)), empty());
    assert_eq!(b.data_in(&cdb10(0x25, 0, 0, 0), 8).answer, empty());
    let mut capacity16 = cdb16(0x9e, 0x10, 0, 32);
    assert_eq!(b.data_in(&capacity16, 32).answer, empty());
    capacity16[1] = 0x12;
    assert_eq!(b.data_in(&capacity16, 32).answer, empty(), "GET LBA STATUS");
    for opcode in [0x2a, 0x2e, 0x41] {
        assert_eq!(zeros(&cdb10(opcode, 0, 0, 1), 512), empty(), "{opcode:x}h");
    }
    assert_eq!(zeros(&[0x0a, 0, 0, 0, 1, 0], 512), empty());
    assert_eq!(zeros(&cdb16(0x8a, 0, 0, 1), 512), empty());
    assert_eq!(zeros(&cdb16(0x8b, 0, 0, 1), 512), empty(), "ORWRITE");
    assert_eq!(zeros(&cdb16(0x93, 0, 0, 1), 512), empty());
    assert_eq!(zeros(&[0x89, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 1, 0, 0], 1024), empty());
    assert_eq!(zeros(&[0x42, 0, 0, 0, 0, 0, 0, 0, 24, 0], 24), empty());
    assert_eq!(b.none(&START), empty(), "there is nothing to start");
    assert_eq!(b.none(&STOP), good(0));
    for code in [0x04, 0x20, 0xa0, 0xc0] {
        assert_eq!(b.none(&[0x1d, code, 0, 0, 0, 0]), empty(), "self-test {code:x}h reads the medium");
    }
    assert_eq!(b.none(&[0x1d, 0x00, 0, 0, 0, 0]), good(0), "none");
    assert_eq!(b.image.calls(), []);
}

/// What is about the unit and not about its medium.
#[test]
fn an_empty_unit_still_speaks() {
    let b = bench();
    assert_eq!(b.none(&EJECT), good(0));
    assert_eq!(b.data_in(&[0x12, 0, 0, 0, 36, 0], 36).answer, good(36));
    assert_eq!(b.data_in(&[0x12, 1, 0x83, 0, 4, 0], 4).answer, good(4));
    assert_eq!(b.data_in(&[0x1a, 0, 0x3f, 0, 4, 0], 4).answer, good(4), "MODE SENSE");
    assert_eq!(b.data_in(&[0x4d, 0, 0x40, 0, 0, 0, 0, 0, 4, 0], 4).answer, good(4), "LOG SENSE");
    assert_eq!(b.data_in(&[0xa0, 0, 0, 0, 0, 0, 0, 0, 0, 16, 0, 0], 16).answer, good(16), "REPORT LUNS");
    assert_eq!(b.data_in(&[0x5e, 0, 0, 0, 0, 0, 0, 0, 8, 0], 8).answer, good(8), "READ KEYS");
    let ran = b.data_in(&[0x03, 0, 0, 0, 18, 0], 18);
    assert_eq!((ran.data[2], ran.data[12], ran.data[13]), (0x02, 0x3a, 0x00));
    let ran = b.data_in(&[0x03, 1, 0, 0, 8, 0], 8);
    assert_eq!(ran.data, [0x72, 0x02, 0x3a, 0x00, 0, 0, 0, 0]);
}

#[test]
fn it_goes_for_every_nexus_and_others_are_told_when_it_is_back() {
    let b = bench();
    let others = [other(&b), other(&b)];
    assert_eq!(b.none(&EJECT), good(0));
    let late = other(&b);
    for nexus in others.iter().chain([&b, &late]) {
        assert_eq!(nexus.none(&TEST_UNIT_READY), empty());
        assert_eq!(nexus.itl.gate().pending(), []);
    }
    // Anybody may load it.
    assert_eq!(others[0].none(&LOAD), good(0));
    for nexus in [&b, &others[1], &late] {
        assert_eq!(nexus.data_in(&cdb10(0x28, 0, 0, 1), 512).answer, may_have_changed());
        assert_eq!(nexus.data_in(&cdb10(0x28, 0, 0, 1), 512).answer, good(512));
    }
    assert_eq!(others[0].data_in(&cdb10(0x28, 0, 0, 1), 512).answer, good(512));
}

/// Its size is another one: who loaded it does not know that.
#[test]
fn a_medium_of_another_size() {
    let b = bench();
    let other = other(&b);
    assert_eq!(b.none(&EJECT), good(0));
    b.image.resize(2 * BLOCKS as u64 * 512);
    assert_eq!(b.none(&LOAD), good(0));
    assert_eq!(b.itl.gate().pending(), [Attention::CapacityChanged]);
    assert_eq!(other.itl.gate().pending(), [Attention::MediumMayHaveChanged, Attention::CapacityChanged]);
    assert_eq!(b.none(&TEST_UNIT_READY), check(plain(SenseKey::UnitAttention, 0x2a09)));
    let ran = b.data_in(&cdb10(0x25, 0, 0, 0), 8);
    assert_eq!(ran.data, [0, 0, 0, 199, 0, 0, 2, 0]);
}

#[test]
fn what_cannot_be_loaded_stays_out() {
    let b = bench();
    let other = other(&b);
    assert_eq!(b.none(&EJECT), good(0));
    b.image.resize(0);
    assert_eq!(b.none(&LOAD), empty(), "the image is empty");
    b.image.resize(51_200);
    b.image.fail_size(BackingError::ReadFailed);
    assert_eq!(b.none(&LOAD), check(plain(SenseKey::MediumError, 0x1100).with_information(0)));
    assert_eq!(b.none(&TEST_UNIT_READY), empty());
    assert_eq!(other.itl.gate().pending(), []);
    assert!(b.itl.lu().snapshot().ejected);
}

/// SBC-3 5.9: removal is prevented until every nexus that prevented it allows it.
#[test]
fn whoever_prevents_it_prevents_it_for_all() {
    let b = bench();
    let (other, third) = (other(&b), other(&b));
    for preventer in [&b, &other] {
        assert_eq!(preventer.none(&PREVENT), good(0));
        for nexus in [&b, &other, &third] {
            assert_eq!(nexus.none(&EJECT), prevented());
            assert_eq!(nexus.none(&EJECT_NO_FLUSH), prevented());
            assert_eq!(nexus.none(&TEST_UNIT_READY), good(0));
        }
        assert_eq!(b.none(&LOAD), good(0), "that would move nothing");
        assert_eq!(third.none(&ALLOW), good(0));
        assert_eq!(third.none(&EJECT), prevented(), "it allowed what it had not prevented");
        assert_eq!(preventer.none(&ALLOW), good(0));
    }
    assert_eq!(b.image.calls(), [], "no flush either");
    assert_eq!(third.none(&EJECT), good(0));
    // PREVENT is taken without a medium, and keeps others from being put in.
    assert_eq!(other.none(&PREVENT), good(0));
    assert_eq!(b.none(&LOAD), prevented());
    assert_eq!(b.none(&EJECT), good(0), "nothing moves");
    assert_eq!(b.none(&TEST_UNIT_READY), empty());
    assert_eq!(other.none(&ALLOW), good(0));
    assert_eq!(b.none(&LOAD), good(0));
}

/// SPC-4 6.15: prevention ends with a reset of the unit or of the nexus, and with the nexus.
#[test]
fn what_ends_prevention() {
    type Event = fn(&Itl);
    let events: [(&str, Event); 3] = [
        ("LOGICAL UNIT RESET", |itl| itl.lu().reset()),
        ("I_T NEXUS RESET", |itl| itl.lose_nexus()),
        ("loss of the nexus", |itl| itl.end()),
    ];
    for (what, event) in events {
        let b = bench();
        let other = other(&b);
        assert_eq!(other.none(&PREVENT), good(0));
        assert_eq!(b.none(&EJECT), prevented());
        event(&other.itl);
        b.itl.gate().take_attention();
        assert_eq!(b.none(&EJECT), good(0), "{what}");
        assert_eq!(b.none(&TEST_UNIT_READY), empty());
    }
}

/// Who rebooted, or came, has not put it back in.
#[test]
fn it_stays_out_through_resets() {
    let b = bench();
    assert_eq!(b.none(&EJECT), good(0));
    b.itl.lu().reset();
    assert_eq!(b.none(&TEST_UNIT_READY), check(plain(SenseKey::UnitAttention, 0x2903)));
    assert_eq!(b.none(&TEST_UNIT_READY), empty());
    b.itl.lose_nexus();
    assert_eq!(b.none(&TEST_UNIT_READY), check(plain(SenseKey::UnitAttention, 0x2907)));
    assert_eq!(b.none(&TEST_UNIT_READY), empty());
    assert_eq!(other(&b).none(&TEST_UNIT_READY), empty());
    assert_eq!(b.none(&LOAD), good(0));
}

#[test]
fn the_host_loads_it_and_tells_everyone() {
    let b = bench();
    assert_eq!(b.none(&EJECT), good(0));
    b.itl.lu().load(None);
    assert_eq!(b.none(&TEST_UNIT_READY), may_have_changed());
    assert_eq!(b.none(&TEST_UNIT_READY), good(0));
    b.itl.lu().load(None);
    assert_eq!(b.none(&TEST_UNIT_READY), good(0), "it was there");
}

/// The image cannot be flushed: the medium is back, others may have missed it meanwhile.
#[test]
fn an_eject_that_fails() {
    let b = bench();
    let other = other(&b);
    b.image.fail_flushes(BackingError::FlushFailed);
    assert_eq!(b.none(&EJECT), check(plain(SenseKey::HardwareError, 0x4400)));
    assert_eq!(b.none(&TEST_UNIT_READY), good(0));
    assert_eq!(other.none(&TEST_UNIT_READY), may_have_changed());
    assert_eq!(other.none(&TEST_UNIT_READY), good(0));
    assert_eq!(b.none(&EJECT_NO_FLUSH), good(0));
    assert_eq!(b.none(&TEST_UNIT_READY), empty());
}

/// Another nexus loads it while the ejecting one's flush is still under way, and then that fails.
#[test]
fn loaded_before_the_eject_has_failed() {
    let b = bench();
    let other = other(&b);
    b.image.fail_flushes(BackingError::FlushFailed);
    let mut buf = IoBuf::empty();
    let Plan::Change(mut eject) = b.plan(&EJECT, &mut buf) else { panic!("an eject is a change") };
    eject.evaluate().unwrap();
    eject.apply();
    let flush = eject.grant();
    assert_eq!(other.none(&LOAD), good(0));
    assert_eq!(b.none(&TEST_UNIT_READY), may_have_changed());
    assert_eq!(other.none(&EJECT_NO_FLUSH), good(0), "once more");
    let answer = execute(flush, &mut IoBuf::empty(), &AbortFlag::default());
    assert_eq!(answer, check(plain(SenseKey::HardwareError, 0x4400)));
    assert_eq!(b.none(&TEST_UNIT_READY), empty(), "that eject was another one");
}

/// The gates are closed as soon as it is judged, and open again if nothing comes of it.
#[test]
fn an_eject_that_is_given_up() {
    let b = bench();
    let other = other(&b);
    let mut buf = IoBuf::empty();
    let Plan::Change(mut eject) = b.plan(&EJECT, &mut buf) else { panic!("an eject is a change") };
    assert_eq!(other.none(&TEST_UNIT_READY), good(0));
    eject.evaluate().unwrap();
    assert_eq!(other.none(&TEST_UNIT_READY), empty());
    assert_eq!(other.none(&PREVENT), good(0), "too late");
    drop(eject);
    assert_eq!(other.none(&TEST_UNIT_READY), may_have_changed());
    assert!(!b.itl.gate().bits().intersects(GateBits::NO_MEDIUM));
}

/// LOEJ 1 START 1 starts a unit that was stopped; a write-protected one is not flushed.
#[test]
fn other_states() {
    let b = Bench::with(MemImage::new(51_200).read_only(), |setup| setup.removable = true);
    assert_eq!(b.none(&EJECT), good(0));
    assert_eq!(b.image.calls(), []);
    assert_eq!(b.none(&LOAD), good(0));
    assert_eq!(b.data_in(&cdb10(0x28, 0, 0, 1), 512).answer, good(512));
}

/// A removable unit is not stopped: a stop flushes, and is no eject.
#[test]
fn stop_without_loej() {
    let b = bench();
    for immed in [0, 1] {
        for byte4 in [0x00, 0x01, 0x04, 0x05] {
            assert_eq!(b.none(&[0x1b, immed, 0, 0, byte4, 0]), good(0));
            assert_eq!(b.image.calls().as_slice(), if byte4 == 0 { &[Call::Flush][..] } else { &[] });
            assert_eq!(b.none(&TEST_UNIT_READY), good(0));
        }
    }
}

/// START and LOEJ are ignored where POWER CONDITION is not 0h.
#[test]
fn a_power_condition_moves_no_medium() {
    let b = bench();
    for condition in 1..=0xf {
        assert_eq!(b.none(&[0x1b, 1, 0, 0, condition << 4 | 0x02, 0]), good(0), "{condition:x}h");
        assert_eq!(b.none(&TEST_UNIT_READY), good(0));
    }
}
