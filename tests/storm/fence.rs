//! Fences with reactors that run: what takes access away is answered when the commands that it forbids have ended.
#![allow(clippy::unwrap_used, clippy::panic, missing_docs, reason = "test code")]

use crate::drive::*;
use crate::frontend::guest::lun;
use crate::frontend::{Buffer, Response};
use crate::held::{Host, on_each};

use super::storm::judge::{DEFAULT, RESERVATION_CONFLICT};
use super::storm::task::*;

fn at(ring: u16) -> To {
    To::ring(ring).lun(lun(0, 1))
}

/// Sends a command with a parameter list.
fn list(driver: &mut Driver, cdb: &[u8], bytes: &[u8]) -> Sent {
    let place = driver.guest.ram.alloc(64);
    driver.guest.ram.write(place, bytes);
    driver.out(at(2), cdb, &[Buffer::out(place, bytes.len() as u32)])
}

fn reserve(driver: &mut Driver, action: u8, kind: u8, key: u64, action_key: u64) -> Sent {
    let what = What::PersistentReserve { action, kind, key, action_key };
    list(driver, &what.cdb(0, 0, false), &what.parameters().unwrap())
}

fn good(driver: &mut Driver, sent: Sent) {
    let answer = driver.wait(&sent);
    assert!(answer.good(), "{answer:?}");
}

/// `a` has written on both reactors, and its writes are held; `fence` is what `b` does about it. Gives back how the writes ended, and what
/// a new write of `a` is told meanwhile.
fn fenced(
    host: &Host,
    a: &mut Driver,
    b: &mut Driver,
    fence: impl Fn(&mut Driver) -> Sent,
) -> (Vec<Response>, Response) {
    host.shared.hold_all();
    let writes = [a.write(at(2), 0, &[0x11; 512]), a.write(at(3), 8, &[0x22; 512])];
    let begun = host.shared.wait_held(2);
    let sent = fence(b);
    b.assert_held(&[sent]);
    let late = a.write(at(3), 16, &[0x33; 512]);
    let mut answer = a.wait(&late);
    if answer.sense_code().is_some_and(|code| code.0 == 6) {
        let later = a.write(at(2), 16, &[0x33; 512]);
        answer = a.wait(&later);
    }
    // Other units go on.
    let elsewhere = a.read(To::ring(3), 0, 512);
    a.wait_good(&elsewhere);
    host.shared.release(&begun[0]);
    b.assert_held(&[sent]);
    host.shared.release_all();
    good(b, sent);
    let ended = writes.iter().map(|sent| a.wait(sent)).collect();
    assert_eq!(host.shared.begun().iter().filter(|begun| begun.offset == 16 * 512).count(), 0, "it got to the image");
    (ended, answer)
}

/// `a` holds Write Exclusive – Registrants Only, and `b` is registered.
fn registered(host: &Host) -> (Driver, Driver) {
    let (mut a, mut b) = (host.guest("a"), host.guest("b"));
    for (driver, key) in [(&mut a, 0xa0), (&mut b, 0xa1)] {
        let sent = reserve(driver, REGISTER_AND_IGNORE, 0, 0, key);
        good(driver, sent);
    }
    let sent = reserve(&mut a, RESERVE, 5, 0xa0, 0);
    good(&mut a, sent);
    (a, b)
}

#[test]
fn preempt_waits_for_writes() {
    on_each(|host| {
        let (mut a, mut b) = registered(&host);
        let (ended, late) = fenced(&host, &mut a, &mut b, |b| reserve(b, PREEMPT, 5, 0xa1, 0xa0));
        assert!(ended.iter().all(Response::good), "{ended:?}");
        assert_eq!(late.status, RESERVATION_CONFLICT, "{late:?}");
        host.stop();
    });
}

#[test]
fn preempt_and_abort_waits_for_writes() {
    on_each(|host| {
        let (mut a, mut b) = registered(&host);
        let (ended, late) = fenced(&host, &mut a, &mut b, |b| reserve(b, PREEMPT_AND_ABORT, 5, 0xa1, 0xa0));
        assert!(ended.iter().all(|answer| answer.response == ABORTED), "{ended:?}");
        assert_eq!(late.status, RESERVATION_CONFLICT, "{late:?}");
        host.stop();
    });
}

#[test]
fn reserve_waits_for_writes() {
    on_each(|host| {
        let (mut a, mut b) = (host.guest("a"), host.guest("b"));
        let (ended, late) = fenced(&host, &mut a, &mut b, |b| b.command(at(3), &[0x16, 0, 0, 0, 0, 0]));
        assert!(ended.iter().all(Response::good), "{ended:?}");
        assert_eq!(late.status, RESERVATION_CONFLICT, "{late:?}");
        host.stop();
    });
}

#[test]
fn write_protection_waits_for_writes() {
    on_each(|host| {
        let (mut a, mut b) = (host.guest("a"), host.guest("b"));
        let (ended, late) = fenced(&host, &mut a, &mut b, |b| {
            let mut bytes = DEFAULT.mode_select();
            // SWP.
            bytes[8] |= 0x08;
            list(b, &[0x15, 0x10, 0, 0, bytes.len() as u8, 0], &bytes)
        });
        assert!(ended.iter().all(Response::good), "{ended:?}");
        assert_eq!(late.sense_code().map(|code| (code.0, code.1)), Some((7, 0x27)), "{late:?}");
        let read = a.read(at(2), 8, 512);
        assert_eq!(a.wait_good(&read), [0x22; 512]);
        host.stop();
    });
}
