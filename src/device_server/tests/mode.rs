//! MODE SENSE and MODE SELECT.

use super::*;
use crate::backing::BackingError;
use crate::device_server::testkit::{Call, check, good, nexus_of, out_buf};
use crate::device_server::{Change, Losers, Plan, ended_with};
use crate::lu::{Attention, GateBits};
use crate::scsi::{SenseFormat, Status};

/// MODE SENSE(6) 1Ah: byte 1 DBD, byte 2 page control and page, byte 3 subpage, byte 4 allocation length.
fn mode_sense6(page: u8, length: u8) -> [u8; 6] {
    [0x1a, 0, page, 0, length, 0]
}

/// MODE SELECT(6) 15h with PF of one page behind an empty header.
fn select6(b: &Bench, page: &[u8]) -> crate::device_server::Answer {
    let mut list = vec![0; 4];
    list.extend(page);
    b.data_out(&[0x15, 0x10, 0, 0, list.len() as u8, 0], &list)
}

/// The caching page with this WCE.
fn caching(wce: u8) -> Vec<u8> {
    let mut page = vec![0; 20];
    (page[0], page[1], page[2]) = (0x08, 0x12, wce << 2);
    page
}

/// The page as MODE SENSE has it now, without header and block descriptor.
fn page(b: &Bench, page: u8) -> Vec<u8> {
    let ran = b.data_in(&[0x1a, 0x08, page, 0, 255, 0], 255);
    ran.data[4..ran.answer.transferred as usize].to_vec()
}

#[test]
fn six_and_ten() {
    let b = bench();
    let ran = b.data_in(&mode_sense6(0x08, 255), 255);
    assert_eq!(ran.answer, good(4 + 8 + 20));
    assert_eq!(ran.data[..4], [31, 0, 0x10, 8], "DPOFUA, not write protected");
    assert_eq!(ran.data[4..12], [0, 0, 0, 100, 0, 0, 2, 0], "100 blocks of 512");
    assert_eq!(ran.data[12..15], [0x08, 0x12, 0x04], "WCE");
    let ran = b.data_in(&[0x5a, 0, 0x08, 0, 0, 0, 0, 0, 255, 0], 255);
    assert_eq!(ran.answer, good(8 + 8 + 20));
    assert_eq!(ran.data[..8], [0, 34, 0, 0x10, 0, 0, 0, 8]);
    let all = at_all_allocation_lengths(&b, |length| {
        let [hi, lo] = length.to_be_bytes();
        vec![0x5a, 0, 0x3f, 0, 0, 0, 0, hi, lo, 0]
    });
    assert_eq!(usize::from(all[1]) + 2, all.len());
}

#[test]
fn write_protect_shows() {
    let b = Bench::new(MemImage::new(512).read_only());
    assert_eq!(b.data_in(&mode_sense6(0x3f, 4), 4).data[2], 0x90, "WP, DPOFUA");
    let b = Bench::with(MemImage::new(512), |s| s.write_cache = false);
    assert_eq!(page(&b, 0x08)[2], 0x00, "WCE");
}

#[test]
fn refused_forms() {
    let b = bench();
    assert_eq!(b.data_in(&mode_sense6(0x3e, 255), 255).answer, check(invalid_field(2, 5)));
    let saved = b.data_in(&mode_sense6(0xc8, 255), 255).answer;
    assert_eq!(saved, check(plain(SenseKey::IllegalRequest, 0x3900)));
    let save = b.data_out(&[0x15, 0x11, 0, 0, 4, 0], &[0; 4]);
    assert_eq!(save, check(invalid_field(1, 0)), "nothing is saved");
    assert_eq!(b.none(&[0x15, 0x10, 0, 0, 24, 0]), good(24), "overflow");
    assert_eq!(b.none(&[0x15, 0x10, 0, 0, 0, 0]), good(0));
    let answer = b.data_out(&[0x15, 0x10, 0, 0, 3, 0], &[0; 3]);
    assert_eq!(answer.sense.unwrap().code.0, 0x1a00);
}

#[test]
fn the_write_cache_is_switched_off_and_on() {
    let b = bench();
    let other = nexus_of(b.itl.lu().clone(), None);
    assert_eq!(select6(&b, &caching(0)), good(24));
    assert_eq!(b.image.calls(), [Call::Flush], "what was cached is made durable");
    assert_eq!(page(&b, 0x08)[2], 0x00);
    assert_eq!(page(&b, 0x88)[2], 0x04, "default");
    b.data_out(&[0x0a, 0, 0, 0, 1, 0], &[1; 512]);
    assert_eq!(b.image.calls(), [Call::Write(0, 512, true)]);
    assert_eq!(other.gate().take_attention().map(|a| a.code().0), Some(0x2a01));
    assert_eq!(b.none(&[0; 6]), good(0), "no unit attention for who did it");
    assert_eq!(select6(&b, &caching(1)), good(24));
    assert_eq!(b.image.calls(), []);
    b.data_out(&[0x0a, 0, 0, 0, 1, 0], &[1; 512]);
    assert_eq!(b.image.calls(), [Call::Write(0, 512, false)]);
    b.image.fail_flushes(BackingError::FlushFailed);
    assert_eq!(select6(&b, &caching(0)), check(plain(SenseKey::HardwareError, 0x4400)));
}

#[test]
fn software_write_protect_and_sense_format() {
    let b = bench();
    let mut control = page(&b, 0x0a);
    control[4] |= 0x08; // SWP
    control[2] |= 0x04; // D_SENSE
    assert_eq!(select6(&b, &control), good(4 + control.len() as u64));
    assert_eq!(b.itl.lu().sense_format(), SenseFormat::Descriptor);
    assert_eq!(b.data_in(&mode_sense6(0x0a, 4), 4).data[2], 0x90, "WP");
    let protected = check(plain(SenseKey::DataProtect, 0x2702));
    assert_eq!(b.data_out(&[0x0a, 0, 0, 0, 1, 0], &[1; 512]), protected);
    assert_eq!(b.data_out(&[0x41, 0, 0, 0, 0, 0, 0, 0, 1, 0], &[0; 512]), protected);
    let list = [0, 22, 0, 16, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 1, 0, 0, 0, 0];
    assert_eq!(b.data_out(&[0x42, 0, 0, 0, 0, 0, 0, 0, 24, 0], &list), protected);
    assert_eq!(b.data_in(&[0x08, 0, 0, 0, 1, 0], 512).answer, good(512));
    control[4] &= !0x08;
    select6(&b, &control);
    assert_eq!(b.data_out(&[0x0a, 0, 0, 0, 1, 0], &[1; 512]), good(512));
}

#[test]
fn what_is_not_changeable_stays() {
    let b = bench();
    let mut control = page(&b, 0x0a);
    control[2] ^= 0x40; // TST 011b
    let sense = select6(&b, &control).sense.unwrap();
    assert_eq!((sense.code.0, sense.field.map(|f| f.byte)), (0x2600, Some(6)));
    assert!(!b.itl.lu().mode().swp);
}

/// The change that a MODE SELECT(6) of one page is.
fn change<'a>(b: &'a Bench, cdb: &'a mut [u8; 6], page: &[u8]) -> Box<dyn Change> {
    let list = [&[0; 4], page].concat();
    *cdb = [0x15, 0x10, 0, 0, list.len() as u8, 0];
    match b.plan(cdb, &mut out_buf(&list)) {
        Plan::Change(change) => change,
        other => panic!("{other:?}"),
    }
}

/// Who must have ended their commands before it is answered.
fn losers(b: &Bench, page: &[u8]) -> Losers {
    let mut cdb = [0; 6];
    let fence = change(b, &mut cdb, page).evaluate().unwrap();
    assert!(fence.aborts.is_empty() && !fence.persists);
    fence.losers
}

/// When write protection is answered no write is under way, and when the cache is off the flush has missed none; nothing else that
/// MODE SELECT can change takes anything from anybody.
#[test]
fn whom_a_change_waits_for() {
    let b = bench();
    let everybody = Losers::Everybody(GateBits::DENY_WRITE);
    let control = page(&b, 0x0a);
    let with = |at: usize, bits: u8| {
        let mut page = control.clone();
        page[at] ^= bits;
        page
    };
    assert_eq!(losers(&b, &with(4, 0x08)), everybody, "SWP");
    assert_eq!(losers(&b, &caching(0)), everybody, "WCE off");
    assert_eq!(losers(&b, &caching(1)), Losers::Nobody, "WCE stays on");
    for (at, bits) in [(2, 0x20), (2, 0x04), (3, 0x06), (4, 0x20), (5, 0x40)] {
        assert_eq!(losers(&b, &with(at, bits)), Losers::Nobody, "byte {at}");
    }
    select6(&b, &with(4, 0x08));
    assert_eq!(losers(&b, &control), Losers::Nobody, "SWP off");
    let b = Bench::new(MemImage::new(512).read_only());
    assert_eq!(losers(&b, &caching(0)), Losers::Nobody, "nothing was ever written");
}

/// A MODE SELECT is judged against what its turn finds, not against what it was sent to.
#[test]
fn a_change_is_judged_in_its_turn() {
    let b = bench();
    let mut cdb = [0; 6];
    let mut control = page(&b, 0x0a);
    let mut first = change(&b, &mut cdb, &control);
    control[5] |= 0x40;
    assert_eq!(select6(&b, &control), good(16));
    assert!(b.itl.lu().mode().tas);
    first.evaluate().unwrap();
    assert!(b.itl.lu().mode().tas, "nothing is changed before it is applied");
    first.apply();
    assert!(!b.itl.lu().mode().tas);
    assert!(matches!(first.grant(), Plan::Done(answer) if answer == good(16)));
    // One that is dropped has done nothing, and one that is refused neither.
    control[3] |= 0x04;
    let mut refused = change(&b, &mut cdb, &control);
    assert_eq!(refused.evaluate().unwrap_err().sense.unwrap().code.0, 0x2600);
    assert_eq!(b.itl.lu().mode(), b.itl.lu().default_mode());
}

/// SPC-4 7.5.10, UA_INTLCK_CTRL: who clears a unit attention, and which statuses leave one.
#[test]
fn interlocked_unit_attentions() {
    let b = bench();
    let mut control = page(&b, 0x0a);
    let tur = || b.none(&[0; 6]);
    let ask = || {
        let data = b.data_in(&[0x03, 0, 0, 0, 18, 0], 18).data;
        (data[2], u16::from_be_bytes([data[12], data[13]]))
    };
    let attention = |code| check(plain(SenseKey::UnitAttention, code));
    let conflict = || {
        b.itl.gate().raise(GateBits::DENY_WRITE);
        let answer = b.data_out(&[0x0a, 0, 0, 0, 1, 0], &[1; 512]);
        b.itl.gate().lower(GateBits::DENY_WRITE);
        assert_eq!(answer.status, Status::ReservationConflict);
    };
    conflict();
    assert_eq!(tur(), good(0), "00b");

    control[4] |= 0x20;
    assert_eq!(select6(&b, &control), good(16));
    b.itl.establish(Attention::CapacityChanged);
    assert_eq!((tur(), tur()), (attention(0x2a09), attention(0x2a09)), "10b: reported until it is asked for");
    assert_eq!(ask(), (6, 0x2a09));
    assert_eq!((ask(), tur()), ((0, 0), good(0)));
    conflict();
    ended_with(&b.itl, Status::Busy);
    assert_eq!(tur(), good(0), "10b: no status leaves anything");

    control[4] |= 0x10;
    assert_eq!(select6(&b, &control), good(16));
    for _ in 0..3 {
        conflict();
    }
    assert_eq!((tur(), tur()), (attention(0x2c09), attention(0x2c09)));
    assert_eq!(ask(), (6, 0x2c09));
    assert_eq!(tur(), good(0), "once, however many conflicts there were");
    // PERSISTENT RESERVE OUT, RESERVE, of a nexus that is not registered: judged in its turn.
    let reserve = [0x5f, 0x01, 0x01, 0, 0, 0, 0, 0, 24, 0];
    assert_eq!(b.data_out(&reserve, &[0; 24]).status, Status::ReservationConflict);
    assert_eq!((ask(), tur()), ((6, 0x2c09), good(0)));
    ended_with(&b.itl, Status::TaskSetFull);
    ended_with(&b.itl, Status::Busy);
    ended_with(&b.itl, Status::Good);
    assert_eq!((ask(), ask(), ask()), ((6, 0x2c07), (6, 0x2c08), (0, 0)));
    conflict();
    control[4] &= !0x30;
    assert_eq!(select6(&b, &control), attention(0x2c09), "MODE SELECT reports it, too");
    assert_eq!(ask(), (6, 0x2c09));
    assert_eq!(select6(&b, &control), good(16));
    conflict();
    assert_eq!(tur(), good(0));
}
