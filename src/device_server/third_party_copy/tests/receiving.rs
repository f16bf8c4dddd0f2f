//! RECEIVE COPY RESULTS, and the Third-party Copy VPD page.

use super::*;
use crate::device_server::AbortFlag;
use crate::device_server::testkit::{good, nexus_of};
use crate::mem::{Direction, IoBuf};
use crate::scsi::Status;

fn receive(action: u8, list: u8, length: u32) -> [u8; 16] {
    let [a, b, c, d] = length.to_be_bytes();
    [0x84, action, list, 0, 0, 0, 0, 0, 0, 0, a, b, c, d, 0, 0]
}

fn status(bench: &Bench, list: u8) -> Result<Vec<u8>, Answer> {
    let ran = bench.data_in(&receive(0x00, list, 1024), 1024);
    if ran.answer.status == Status::Good {
        Ok(ran.data[..ran.answer.transferred as usize].to_vec())
    } else {
        Err(ran.answer)
    }
}

fn details(bench: &Bench, list: u8) -> Result<Vec<u8>, Answer> {
    let ran = bench.data_in(&receive(0x04, list, 1024), 1024);
    if ran.answer.status == Status::Good {
        Ok(ran.data[..ran.answer.transferred as usize].to_vec())
    } else {
        Err(ran.answer)
    }
}

fn unknown<T>() -> Result<T, Answer> {
    Err(Answer::check(Sense::invalid_field_in_cdb(FieldPointer::cdb(2, 7))))
}

/// SPC-4 6.22: SNLID, 8 CSCD descriptors, 16 segments, 768 bytes of them, 256 MiB a segment, nothing inline or held, 16 copies.
#[test]
fn operating_parameters() {
    let (a, _) = pair();
    let expected = [
        0, 0, 0, 43, 0x01, 0, 0, 0, 0, 8, 0, 16, 0, 0, 3, 0, 0x10, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0,
        0, 0, 16, 9, 0, 0, 0, 0, 0, 3, 0x02, 0x0a, 0xe4,
    ];
    for (length, moved) in [(0, 0), (1, 1), (46, 46), (47, 47), (48, 47), (u32::MAX, 47)] {
        let ran = a.data_in(&receive(0x03, 0, length), 64);
        assert_eq!(ran.answer, good(moved));
        assert_eq!(ran.data[..moved as usize], expected[..moved as usize], "{length}");
        assert!(ran.data[moved as usize..].iter().all(|byte| *byte == 0xee), "{length}");
    }
}

#[test]
fn the_vpd_page() {
    let (a, _) = pair();
    let ran = a.data_in(&[0x12, 1, 0x8f, 0x04, 0, 0], 1024);
    let page = &ran.data[..ran.answer.transferred as usize];
    assert_eq!(page[..2], [0x00, 0x8f]);
    assert_eq!(usize::from(u16::from_be_bytes([page[2], page[3]])), page.len() - 4);
    // Descriptors follow each other, by ascending type, in multiples of four bytes.
    let (mut at, mut types) = (4, Vec::new());
    while at < page.len() {
        types.push(u16::from_be_bytes([page[at], page[at + 1]]));
        let length = usize::from(u16::from_be_bytes([page[at + 2], page[at + 3]]));
        assert_eq!(length % 4, 0);
        at += 4 + length;
    }
    assert_eq!(at, page.len());
    assert!(types.is_sorted() && [1, 4, 8, 0x0c, 0x8001, 0xc001].iter().all(|kind| types.contains(kind)), "{types:x?}");
    // Supported Commands: what the table has.
    let commands = &page[9..9 + usize::from(page[8])];
    let end = 2 + usize::from(commands[1]);
    assert_eq!(commands[..3], [0x83, commands[1], 0x00]);
    assert_eq!(commands[end], 0x84);
    assert_eq!(commands[end + 2..end + 5], [0x00, 0x03, 0x04]);
}

/// SPC-4 6.25 for copies that ended well: told once, of the right one.
#[test]
fn the_status_of_a_copy_that_is_over() {
    let (a, b) = pair();
    assert_eq!(status(&a, 1), unknown());
    send(&a, &between(&[blocks(0, 1, 4, 0, 0), blocks(0, 1, 3, 0, 8)]));
    assert_eq!(status(&a, 2), unknown());
    assert_eq!(status(&b, 1), unknown(), "of the unit that the command was sent to");
    let other = Bench::of(Arc::clone(&a.image), nexus_of(Arc::clone(a.itl.lu()), None));
    assert_eq!(status(&other, 1), unknown(), "of the nexus that sent it");
    assert_eq!(details(&a, 1), Ok(vec![0, 0, 0, 0]));
    // What is not told is not forgotten.
    assert_eq!(a.run(&receive(0x00, 1, 12), IoBuf::owned(11, Direction::In)).answer, good(12));
    let expected = vec![0, 0, 0, 8, 0x81, 0, 2, 0x00, 0, 0, 0x0e, 0];
    assert_eq!(status(&a, 1), Ok(expected));
    assert_eq!((status(&a, 1), details(&a, 1)), (unknown(), unknown()));
    for (length, moved) in [(0, 0), (1, 1), (12, 12), (13, 12)] {
        send(&a, &between(&[blocks(0, 1, 4, 0, 0)]));
        assert_eq!(a.data_in(&receive(0x00, 1, length), 64).answer, good(moved), "{length}");
    }
}

/// LIST ID USAGE 10b and 11b: nothing is kept.
#[test]
fn what_is_not_kept() {
    let (a, _) = pair();
    let mut list = between(&[blocks(0, 1, 4, 0, 0), blocks(0, 1, 1, 0, 200)]);
    list[1] = 0x10;
    send(&a, &list);
    assert_eq!((status(&a, 1), details(&a, 1)), (unknown(), unknown()));
    (list[0], list[1]) = (0, 0x18);
    send(&a, &list);
    assert_eq!((status(&a, 0), details(&a, 0)), (unknown(), unknown()));
}

/// A list that is refused was never begun.
#[test]
fn a_list_that_is_refused() {
    let (a, _) = pair();
    send(&a, &between(&[blocks(0, 1, 4, 0, 0), blocks(0, 1, 1, 0, 200)]));
    assert_eq!((status(&a, 1), details(&a, 1)), (unknown(), unknown()));
}

/// SPC-4 6.23: status, and the sense data of the command, in the format that the unit has.
#[test]
fn the_details_of_a_failure() {
    let (a, b) = pair();
    b.image.fail_writes(9 * 512, crate::backing::BackingError::WriteFailed);
    let answer = send(&a, &between(&[blocks(0, 1, 4, 0, 0), blocks(0, 1, 3, 0, 8)]));
    assert_eq!(answer, aborted(AdditionalSense(0x0d01), 1, 6));
    let sense = [0x70, 0, 0x0a, 0, 0, 0, 0, 10, 0, 0, 0, 1, 0x0d, 0x01, 0, 0xaf, 0, 6];
    let mut expected = vec![0, 0, 0, 74];
    expected.extend([0; 52]);
    expected.extend([0x02, 0, 0, 18]);
    expected.extend(sense);
    assert_eq!(details(&a, 1), Ok(expected));
    // Two segments were begun, one was finished.
    assert_eq!(status(&a, 1), Ok(vec![0, 0, 0, 8, 0x82, 0, 1, 0x00, 0, 0, 0x08, 0]));
    assert_eq!((status(&a, 1), details(&a, 1)), (unknown(), unknown()));
    send(&a, &between(&[blocks(0, 1, 3, 0, 8)]));
    assert_eq!(a.data_in(&receive(0x04, 1, 3), 64).answer, good(3));
}

/// While it runs it is asked again and again, and its list identifier is taken.
#[test]
fn a_copy_that_runs() {
    let (a, b) = pair();
    let a = Arc::new(a);
    let asked = Arc::new(std::sync::Mutex::new(Vec::new()));
    let (during, told) = (Arc::clone(&a), Arc::clone(&asked));
    let first = b.image.clone();
    // During the write of the second segment. (The destination is thin, so each segment first asks for holes, of the source.)
    first.at_call(2, move || {
        let again = send(&during, &between(&[blocks(0, 0, 1, 0, 64)]));
        let another = send(&during, &list(2, &[cscd(1, 512)], &[blocks(0, 0, 1, 0, 64)]));
        told.lock().unwrap().push((status(&during, 1), status(&during, 1), again, another));
    });
    assert_eq!(send(&a, &between(&[blocks(0, 1, 4, 0, 0), blocks(0, 1, 3, 0, 8)])), good(136));
    let running = Ok(vec![0, 0, 0, 8, 0x80, 0, 1, 0x00, 0, 0, 0x08, 0]);
    let in_use = illegal(0x0016, 0, 7);
    assert_eq!(*asked.lock().unwrap(), [(running.clone(), running, in_use, good(76))]);
    assert_eq!(status(&a, 1).unwrap()[4], 0x81);
}

/// A nexus that was lost knows nothing of its copies.
#[test]
fn a_nexus_that_is_lost() {
    let (a, _) = pair();
    send(&a, &between(&[blocks(0, 1, 4, 0, 0)]));
    a.itl.lose_nexus();
    a.itl.gate().take_attention();
    assert_eq!(status(&a, 1), unknown());
}

/// An abort is a failure for who asks, if anybody still does.
#[test]
fn a_copy_that_is_aborted() {
    let (a, _) = pair();
    let (list, abort) = (between(&[blocks(0, 1, 4, 0, 0)]), AbortFlag::default());
    abort.raise();
    let answer = a.run_with(&extended_copy(108), crate::device_server::testkit::out_buf(&list), &abort).answer;
    let sense = Sense::copy_aborted(AdditionalSense(0x0d01)).with_segment(0);
    assert_eq!(answer, Answer::check(sense));
    assert_eq!(status(&a, 1), Ok(vec![0, 0, 0, 8, 0x82, 0, 0, 0, 0, 0, 0, 0]));
}
