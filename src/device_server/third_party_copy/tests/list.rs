//! What is wrong with a parameter list, and where.

use super::*;
use crate::device_server::testkit::{good, out_buf, pattern};
use crate::mem::{Direction, IoBuf};

const DEVICE_FAILURE: AdditionalSense = AdditionalSense(0x0d01);

/// Every byte as the standard has it: 8 blocks from LBA 16 of unit 1 to LBA 100 of unit 2.
#[test]
fn a_list_byte_by_byte() {
    let (a, b) = pair();
    let list = [
        0x09, 0x01, 0, 64, 0, 0, 0, 0, 0, 0, 0, 28, 0, 0, 0, 0, //
        0xe4, 0, 0, 0, 0x01, 0x03, 0, 8, 0x30, 0, 0, 0, 0, 0, 0, 1, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 2,
        0, //
        0xe4, 0, 0, 0, 0x01, 0x03, 0, 8, 0x30, 0, 0, 0, 0, 0, 0, 2, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 2,
        0, //
        0x02, 0, 0, 0x18, 0, 0, 0, 1, 0, 0, 0, 8, 0, 0, 0, 0, 0, 0, 0, 16, 0, 0, 0, 0, 0, 0, 0, 100,
    ];
    let mut cdb = [0x83, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 108, 0, 0];
    assert_eq!(a.data_out(&cdb, &list), good(108));
    assert_eq!(block(&b, 100, 8), pattern(16 * 512, 8 * 512));
    let rest = [block(&b, 0, 100), block(&b, 108, BLOCKS - 108)].concat();
    assert!(rest.iter().all(|byte| *byte == 0), "nothing else was written");
    assert_eq!(a.image.bytes(), pattern(0, BLOCKS * 512));
    // More than the list's descriptors is not looked at, less is an error.
    cdb[13] = 110;
    assert_eq!(a.data_out(&cdb, &[&list[..], &[0xff, 0xff]].concat()), good(110));
    cdb[13] = 107;
    assert_eq!(a.data_out(&cdb, &list), Answer::check(Sense::illegal_request(AdditionalSense(0x1a00))));
}

#[test]
fn nothing_to_copy() {
    let (a, b) = pair();
    b.image.calls();
    assert_eq!(a.none(&extended_copy(0)), good(0));
    assert_eq!(send(&a, &[0; 16]), good(16));
    assert_eq!(send(&a, &between(&[])), good(80));
    // No block; even where there is none behind it.
    assert_eq!(send(&a, &between(&[blocks(0, 1, 0, 0, 127), bytes(0, (0, 511), (0, 0))])), good(140));
    assert_eq!(b.image.calls(), []);
}

#[test]
fn a_buffer_that_is_too_short_or_goes_the_wrong_way() {
    let (a, b) = pair();
    let list = between(&[blocks(0, 1, 8, 0, 0)]);
    let cdb = extended_copy(list.len());
    assert_eq!(a.run(&cdb, out_buf(&list[..107])).answer, good(108));
    assert_eq!(a.run(&cdb, IoBuf::owned(512, Direction::In)).answer, good(513));
    assert_eq!(a.run(&extended_copy(u32::MAX as usize), out_buf(&list)).answer, good(u64::from(u32::MAX)));
    assert_eq!(block(&b, 0, 8), vec![0; 4096]);
}

/// SPC-4 6.4.3.
#[test]
fn the_header() {
    let (a, _) = pair();
    let with = |at: usize, value: u8| {
        let mut list = between(&[blocks(0, 1, 1, 0, 0)]);
        list[at] = value;
        send(&a, &list)
    };
    let length_error = Answer::check(Sense::illegal_request(AdditionalSense(0x1a00)));
    for length in 1..16 {
        assert_eq!(send(&a, &[0; 16][..length]), length_error, "{length}");
    }
    // STR and PRIORITY do not matter.
    assert_eq!(with(1, 0x27), good(108));
    // LIST ID USAGE: 01b is reserved, 11b is without an identifier.
    assert_eq!(with(1, 0x08), illegal(0x2600, 1, 4));
    assert_eq!(with(1, 0x10), good(108));
    assert_eq!(with(1, 0x18), illegal(0x2600, 0, 7));
    let mut list = between(&[blocks(0, 1, 1, 0, 0)]);
    (list[0], list[1]) = (0, 0x18);
    assert_eq!(send(&a, &list), good(108));
    assert_eq!((with(1, 0x40), with(1, 0x80)), (illegal(0x2600, 1, 6), illegal(0x2600, 1, 7)));
    assert_eq!(with(6, 1), illegal(0x2600, 6, 7));
    // Lengths that do not fit what there is, or what is taken.
    assert_eq!(with(3, 63), length_error);
    assert_eq!(with(3, 96), length_error);
    assert_eq!(with(11, 27), length_error);
    assert_eq!(with(11, 29), length_error);
    assert_eq!(with(8, 0x80), length_error);
    assert_eq!(with(15, 1), illegal(0x260b, 12, 7));
    // The first descriptor that is cut off.
    for length in [47, 79, 107] {
        let list = between(&[blocks(0, 1, 1, 0, 0)]);
        assert_eq!(a.data_out(&extended_copy(length), &list[..length]), length_error, "{length}");
    }
}

#[test]
fn too_many_descriptors() {
    let (a, _) = pair();
    let cscds = |count| vec![cscd(1, 512); count];
    let segments = |count| vec![blocks(0, 0, 1, 0, 64); count];
    assert_eq!(send(&a, &list(1, &cscds(8), &segments(16))), good(16 + 8 * 32 + 16 * 28));
    assert_eq!(send(&a, &list(1, &cscds(9), &segments(1))), illegal(0x2606, 2, 7));
    assert_eq!(send(&a, &list(1, &cscds(1), &segments(17))), illegal(0x2608, 16 + 32 + 16 * 28, 7));
    // Together longer than MAXIMUM DESCRIPTOR LIST LENGTH.
    let length_error = Answer::check(Sense::illegal_request(AdditionalSense(0x1a00)));
    assert_eq!(send(&a, &list(1, &cscds(9), &segments(18))), length_error);
    let most: Vec<Vec<u8>> = (0..16).map(|_| bytes(0, (0, 0), (0, 0))).collect();
    assert_eq!(send(&a, &list(1, &cscds(8), &most)), good(16 + 768));
}

/// SPC-4 6.4.5.
#[test]
fn cscd_descriptors() {
    let (a, b) = pair();
    let with = |at: usize, value: u8| {
        let mut list = between(&[blocks(0, 1, 1, 0, 0), blocks(0, 1, 1, 0, 0)]);
        list[at] = value;
        send(&a, &list)
    };
    for kind in [0xe0, 0xe3, 0xe5, 0xea, 0xfe, 0xff, 0x00] {
        assert_eq!(with(48, kind), illegal(0x2607, 48, 7), "{kind:02x}");
    }
    // LU ID TYPE and NUL (SPC-3), RELATIVE INITIATOR PORT IDENTIFIER.
    assert_eq!((with(49, 0xe0), with(50, 0xff)), (good(136), good(136)));
    // Another device type, name, code set, association, type or length of it.
    assert_eq!(with(49, 0x01), aborted(AdditionalSense(0x0d03), 0, 6));
    let unreachable = aborted(AdditionalSense(0x0d02), 0, 6);
    for (at, value) in [(63, 3), (52, 0x02), (53, 0x13), (53, 0x01), (55, 7), (55, 9), (55, 0)] {
        assert_eq!(with(at, value), unreachable, "{at} {value}");
    }
    assert_eq!(with(55, 21), illegal(0x2600, 55, 7));
    // DISK BLOCK LENGTH.
    for (at, value) in [(77, 1), (78, 16), (79, 1), (78, 0)] {
        assert_eq!(with(at, value), illegal(0x2600, 48 + 29, 7), "{at} {value}");
    }
    // A descriptor that no segment names is not looked for.
    let spare = list(1, &[cscd(1, 512), cscd(2, 512), cscd(9, 77)], &[blocks(0, 1, 1, 3, 9)]);
    assert_eq!(send(&b, &spare), good(140));
    assert_eq!(block(&b, 9, 1), pattern(3 * 512, 512));
}

/// SPC-4 6.4.6.
#[test]
fn segment_descriptors() {
    let (a, b) = pair();
    let with = |at: usize, value: u8| {
        let mut list = between(&[blocks(0, 1, 1, 0, 0), blocks(0, 1, 1, 0, 1)]);
        list[at] = value;
        send(&a, &list)
    };
    for kind in [0x00, 0x03, 0x09, 0x0b, 0x0d, 0xbe, 0xff] {
        assert_eq!(with(108, kind), illegal(0x2609, 108, 7), "{kind:02x}");
    }
    assert_eq!((with(110, 1), with(111, 0x1c)), (illegal(0x2600, 110, 7), illegal(0x2600, 110, 7)));
    assert_eq!((with(109, 0x04), with(109, 0x80)), (illegal(0x2600, 109, 2), illegal(0x2600, 109, 7)));
    // Exact segments have nothing that CAT could mean; DC counts blocks of the same length.
    assert_eq!(with(109, 0x03), good(136));
    b.image.calls();
    // CSCD descriptor IDs without a descriptor, and those that name none.
    for (at, value, field) in [(113, 2, 4), (112, 0xf8, 4), (115, 2, 6), (114, 0xff, 6)] {
        assert_eq!(with(at, value), aborted(AdditionalSense(0x0804), 1, field), "{at} {value}");
    }
    // Blocks that are not there. Nothing was copied, of the first segment neither.
    assert_eq!(with(127, 128), aborted(AdditionalSense(0x0000), 1, 12));
    assert_eq!(with(120, 0xff), aborted(AdditionalSense(0x0000), 1, 12));
    assert_eq!(with(135, 128), aborted(AdditionalSense(0x0000), 1, 20));
    assert_eq!(with(118, 1), aborted(AdditionalSense(0x0000), 1, 12));
    assert_eq!(b.image.calls(), []);
    // To the very end, and one further.
    assert_eq!(send(&a, &between(&[blocks(0, 1, 128, 0, 0)])), good(108));
    assert_eq!(b.image.bytes(), a.image.bytes());
    assert_eq!(send(&a, &between(&[blocks(0, 1, 2, 0, 127)])), aborted(AdditionalSense(0x0000), 0, 20));
}

/// FFFFh is the unit that the command was sent to.
#[test]
fn the_unit_itself() {
    let (a, b) = pair();
    assert_eq!(send(&b, &list(1, &[cscd(1, 512)], &[blocks(0, 0xffff, 4, 0, 0)])), good(16 + 32 + 28));
    assert_eq!(send(&b, &list(1, &[], &[blocks(0xffff, 0xffff, 4, 0, 8)])), good(16 + 28));
    assert_eq!((block(&b, 0, 4), block(&b, 8, 4)), (pattern(0, 2048), pattern(0, 2048)));
    assert_eq!(block(&b, 4, 4), vec![0; 2048]);
    assert_eq!(a.image.bytes(), pattern(0, BLOCKS * 512));
}

/// A nexus copies between what it sees, and nothing else.
#[test]
fn a_unit_that_the_nexus_does_not_see() {
    let (mut a, b) = pair();
    a.peers.pop();
    assert_eq!(send(&a, &between(&[blocks(0, 1, 1, 0, 0)])), aborted(AdditionalSense(0x0d02), 0, 6));
    assert_eq!(send(&b, &between(&[blocks(0, 1, 1, 0, 0)])), good(108));
    b.itl.gate().raise(crate::lu::GateBits::GONE);
    a.peers = vec![Arc::clone(&a.itl), Arc::clone(&b.itl)];
    assert_eq!(send(&a, &between(&[blocks(0, 1, 1, 0, 0)])), aborted(DEVICE_FAILURE, 0, 6));
}
