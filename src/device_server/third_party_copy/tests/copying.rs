//! What is copied, what stops it, and what is left then.

use super::*;
use crate::backing::BackingError;
use crate::device_server::testkit::{Call, good, nexus_of, out_buf, pattern};
use crate::device_server::{AbortFlag, Plan};
use crate::lu::{AccessState, Extent, GateBits, Holding, Provisioning, Touches};
use crate::scsi::Status;

const MIB: usize = 1 << 20;
const FAILURE: AdditionalSense = AdditionalSense(0x0d01);
const INEXACT: AdditionalSense = AdditionalSense(0x260a);

/// Two units of `len` bytes; the first one holds a pattern.
fn large(len: usize) -> (Bench, Bench) {
    joined(unit(1, MemImage::patterned(len), |_| ()), unit(2, MemImage::new(len), |_| ()))
}

/// Units of these block lengths; PAD as said.
fn of_lengths(from: u16, to: u16) -> (Bench, Bench, impl Fn(bool, bool, u8, Vec<u8>) -> Vec<u8>) {
    let sized = |n, image, block: u16| unit(n, image, |setup| setup.block_size = u32::from(block));
    let filled = MemImage::new(BLOCKS * 512);
    let (a, b) = joined(sized(1, MemImage::patterned(BLOCKS * 512), from), sized(2, filled, to));
    let make = move |pad_from: bool, pad_to: bool, flags: u8, mut segment: Vec<u8>| {
        let (mut source, mut destination) = (cscd(1, from), cscd(2, to));
        (source[28], destination[28]) = (u8::from(pad_from) << 2, u8::from(pad_to) << 2);
        segment[1] = flags;
        list(1, &[source, destination], &[segment])
    };
    (a, b, make)
}

#[test]
fn several_segments_in_their_order() {
    let (a, b) = pair();
    // The third one takes what the first one brought.
    let segments = [blocks(0, 1, 8, 0, 0), blocks(0, 1, 8, 64, 120), blocks(1, 0, 4, 2, 100), blocks(1, 1, 2, 0, 60)];
    assert_eq!(send(&b, &between(&segments)), good(16 + 64 + 4 * 28));
    assert_eq!(block(&b, 0, 8), pattern(0, 4096));
    assert_eq!(block(&b, 120, 8), pattern(64 * 512, 4096));
    assert_eq!(block(&b, 60, 2), pattern(0, 1024));
    assert_eq!(block(&a, 100, 4), pattern(2 * 512, 2048));
}

#[test]
fn long_copies_go_in_steps() {
    let (a, b) = large(4 * MIB);
    let count = (5 * MIB / 2 / 512) as u16;
    assert_eq!(send(&a, &between(&[blocks(0, 1, count, 512, 16)])), good(108));
    assert_eq!(block(&b, 16, count as usize), pattern(512 * 512, 5 * MIB / 2));
    let writes: Vec<_> = b.image.calls();
    let mib = MIB as u64;
    let expected = [
        Call::Write(8192, mib, false),
        Call::Write(8192 + mib, mib, false),
        Call::Write(8192 + 2 * mib, mib / 2, false),
    ];
    assert_eq!(writes, expected);
}

/// As if all had been read before any was written.
#[test]
fn overlapping_ranges_of_one_unit() {
    let count = 2 * MIB / 512 + 3;
    for (from, to) in [(0u64, 1u64), (1, 0), (0, 2048), (2048, 0), (0, 2047), (5, 5), (0, 3000), (3000, 0)] {
        let (a, _) = large(4 * MIB);
        let mut expected = a.image.bytes();
        expected.copy_within(from as usize * 512..(from as usize + count) * 512, to as usize * 512);
        assert_eq!(send(&a, &between(&[blocks(0, 0, count as u16, from, to)])), good(108));
        assert!(a.image.bytes() == expected, "{from} {to}");
    }
}

/// SPC-4 6.4.6.1 and table 116: DC says whose blocks are counted, PAD what becomes of part of a block.
#[test]
fn blocks_of_different_lengths() {
    // 16 blocks of 512 are 2 of 4096.
    let (a, b, list) = of_lengths(512, 4096);
    assert_eq!(send(&a, &list(false, false, 0, blocks(0, 1, 16, 8, 3))), good(108));
    assert_eq!(b.image.bytes()[3 * 4096..5 * 4096], pattern(4096, 8192));
    assert_eq!(send(&a, &list(false, false, 0x02, blocks(0, 1, 2, 1, 8))), good(108));
    assert_eq!(b.image.bytes()[8 * 4096..10 * 4096], pattern(512, 8192));
    // 9 blocks of 512 do not fill two: zeros do if PAD of the destination says so.
    let inexact = aborted(INEXACT, 0, 6);
    assert_eq!(send(&a, &list(true, false, 0, blocks(0, 1, 9, 0, 12))), inexact);
    assert_eq!(send(&a, &list(true, true, 0x01, blocks(0, 1, 9, 0, 12))), inexact, "CAT");
    b.image.write_full(12 * 4096, 3 * 4096);
    assert_eq!(send(&a, &list(false, true, 0, blocks(0, 1, 9, 0, 12))), good(108));
    let expected = [pattern(0, 9 * 512), vec![0; 7 * 512], vec![0xff; 4096]].concat();
    assert_eq!(b.image.bytes()[12 * 4096..15 * 4096], expected);

    // 2 blocks of 4096 are 16 of 512, and 9 of 512 are part of 2: the rest is left if PAD of the source says so.
    let (a, b, list) = of_lengths(4096, 512);
    assert_eq!(send(&a, &list(false, false, 0, blocks(0, 1, 2, 1, 5))), good(108));
    assert_eq!(block(&b, 5, 16), pattern(4096, 8192));
    let inexact = aborted(INEXACT, 0, 4);
    assert_eq!(send(&a, &list(false, true, 0x02, blocks(0, 1, 9, 1, 100))), inexact);
    assert_eq!(send(&a, &list(true, true, 0x03, blocks(0, 1, 9, 1, 100))), inexact, "CAT");
    assert_eq!(send(&a, &list(true, false, 0x02, blocks(0, 1, 9, 1, 100))), good(108));
    assert_eq!([block(&b, 100, 9), block(&b, 109, 1)].concat(), [pattern(4096, 9 * 512), vec![0; 512]].concat());
    // Blocks are counted in the unit's own length when it comes to its end.
    assert_eq!(send(&a, &list(false, false, 0, blocks(0, 1, 1, 15, 120))), good(108));
    assert_eq!(send(&a, &list(false, false, 0, blocks(0, 1, 1, 16, 0))), aborted(AdditionalSense(0), 0, 12));
    assert_eq!(send(&a, &list(false, false, 0, blocks(0, 1, 1, 0, 121))), aborted(AdditionalSense(0), 0, 20));
}

/// Segment descriptors 0Ah.
#[test]
fn bytes_from_anywhere() {
    let (a, b) = pair();
    assert_eq!(send(&a, &between(&[bytes(1024, (3, 0), (9, 0))])), good(112));
    assert_eq!(block(&b, 9, 2), pattern(3 * 512, 1024));
    assert_eq!(send(&a, &between(&[bytes(1024, (3, 5), (20, 0))])), good(112));
    assert_eq!(block(&b, 20, 2), pattern(3 * 512 + 5, 1024));
    // Blocks of the destination are written whole.
    for segment in [bytes(1023, (0, 0), (0, 0)), bytes(512, (0, 0), (0, 1)), bytes(1, (0, 511), (0, 511))] {
        assert_eq!(send(&a, &between(&[segment])), aborted(INEXACT, 0, 6));
    }
    // An offset is inside the first block.
    assert_eq!(send(&a, &between(&[bytes(512, (0, 512), (0, 0))])), illegal(0x2600, 80 + 28, 7));
    assert_eq!(send(&a, &between(&[bytes(512, (0, 0), (0, 512))])), illegal(0x2600, 80 + 30, 7));
    assert_eq!(send(&a, &between(&[bytes((256 << 20) + 512, (0, 0), (0, 0))])), illegal(0x2600, 80 + 8, 7));
    // To the last byte, and one further.
    assert_eq!(send(&a, &between(&[bytes(512, (127, 0), (127, 0))])), good(112));
    assert_eq!(send(&a, &between(&[bytes(512, (127, 1), (127, 0))])), aborted(AdditionalSense(0), 0, 12));
    assert_eq!(send(&a, &between(&[bytes(1024, (0, 0), (127, 0))])), aborted(AdditionalSense(0), 0, 20));

    // Overlapping, in several steps, in both directions.
    for (from, to) in [(0u64, 4u64), (9, 4)] {
        let (a, _) = large(4 * MIB);
        let (mut segment, len) = (bytes((2 * MIB + 512) as u32, (from, 77), (to, 0)), 2 * MIB + 512);
        segment[7] = 0;
        let mut expected = a.image.bytes();
        expected.copy_within(from as usize * 512 + 77..from as usize * 512 + 77 + len, to as usize * 512);
        assert_eq!(send(&a, &between(&[segment])), good(112));
        assert!(a.image.bytes() == expected, "{from} {to}");
    }
}

/// What takes no space in the source takes none in a thin provisioned destination.
#[test]
fn holes_stay_holes() {
    let source = || MemImage::patterned(BLOCKS * 512).with_holes(&[4096..8192, 16_384..16_896]);
    let (a, b) = joined(unit(1, source(), |_| ()), unit(2, MemImage::patterned(BLOCKS * 512), |_| ()));
    assert_eq!(send(&a, &between(&[blocks(0, 1, 34, 0, 64)])), good(108));
    let at = 64 * 512;
    let expected = [
        Call::Write(at, 4096, false),
        Call::WriteZeroes(at + 4096, 4096, true),
        Call::Write(at + 8192, 8192, false),
        Call::WriteZeroes(at + 16_384, 512, true),
        Call::Write(at + 16_896, 512, false),
    ];
    assert_eq!(b.image.calls(), expected);
    let full = unit(2, MemImage::new(BLOCKS * 512), |setup| setup.provisioning = Provisioning::Full);
    let (a, b) = joined(unit(1, source(), |_| ()), full);
    assert_eq!(send(&a, &between(&[blocks(0, 1, 34, 0, 64)])), good(108));
    assert_eq!(b.image.calls(), [Call::Write(at, 34 * 512, false)]);
    // A hole that is shorter than a block of the destination is copied as it reads.
    let sized = unit(2, MemImage::new(BLOCKS * 512), |setup| setup.block_size = 4096);
    let (a, b) = joined(unit(1, source(), |_| ()), sized);
    let list = list(1, &[cscd(1, 512), cscd(2, 4096)], &[blocks(0, 1, 16, 32, 1)]);
    assert_eq!(send(&a, &list), good(108));
    assert_eq!(b.image.calls(), [Call::Write(4096, 4096, false), Call::Write(8192, 4096, false)]);
}

/// With a write cache that is off what was copied is durable; with one that is on that is SYNCHRONIZE CACHE's business.
#[test]
fn durability() {
    let cached = |on| unit(2, MemImage::new(BLOCKS * 512), move |setup| setup.write_cache = on);
    for on in [false, true] {
        let (a, b) = joined(unit(1, MemImage::patterned(BLOCKS * 512), |_| ()), cached(on));
        send(&a, &between(&[blocks(0, 1, 2, 0, 0)]));
        assert_eq!(b.image.calls().contains(&Call::Flush), !on);
        b.image.fail_flushes(BackingError::FlushFailed);
        let answer = send(&a, &between(&[blocks(0, 1, 2, 0, 0)]));
        assert_eq!(answer, if on { good(108) } else { aborted(FAILURE, 0, 6) });
    }
}

/// What a nexus may not do itself it cannot have done.
#[test]
fn what_a_unit_refuses() {
    let both = [blocks(0, 1, 1, 0, 0), blocks(1, 0, 1, 0, 0)];
    let (reads, writes) = (&both[..1], &both[1..]);
    let refused = |segments: &[Vec<u8>], close: &dyn Fn(&Bench)| {
        let (a, b) = pair();
        a.image.calls();
        // The command goes to another unit, which is not concerned.
        let mut c = unit(3, MemImage::new(512), |_| ());
        c.peers = vec![Arc::clone(&a.itl), Arc::clone(&b.itl)];
        close(&a);
        let answer = send(&c, &between(segments));
        assert!(a.image.calls().is_empty() && b.image.calls().is_empty() || answer == good(108));
        answer
    };
    let raise = |bits: GateBits| move |bench: &Bench| bench.itl.gate().raise(bits);
    let (source, destination) = (aborted(FAILURE, 0, 4), aborted(FAILURE, 0, 6));
    for bits in [
        GateBits::DENY_SPC2,
        GateBits::STOPPED,
        GateBits::NO_MEDIUM,
        GateBits::OCCUPIED,
        GateBits::of_access(AccessState::Standby),
        GateBits::of_access(AccessState::Transitioning),
        GateBits::GONE,
    ] {
        assert_eq!(refused(reads, &raise(bits)), source, "{bits:?}");
        assert_eq!(refused(writes, &raise(bits)), destination, "{bits:?}");
    }
    assert_eq!(refused(reads, &raise(GateBits::DENY_READ)), source);
    assert_eq!(refused(writes, &raise(GateBits::DENY_WRITE)), destination);
    // Who may not write may have it read, and an attention is not for this command.
    assert_eq!(refused(reads, &raise(GateBits::DENY_WRITE)), good(108));
    assert_eq!(refused(writes, &raise(GateBits::DENY_READ)), good(108));
    let attention = |bench: &Bench| bench.itl.establish(crate::lu::Attention::CapacityChanged);
    assert_eq!(refused(reads, &attention), good(108));
    let protect = |bench: &Bench| {
        let mode = crate::scsi::spc::ModeState { swp: true, ..bench.itl.lu().mode() };
        bench.itl.lu().set_mode(&bench.itl, mode);
    };
    assert_eq!(refused(reads, &protect), good(108));
    assert_eq!(refused(writes, &protect), destination);
    let read_only = unit(2, MemImage::new(BLOCKS * 512).read_only(), |_| ());
    let (a, _b) = joined(unit(1, MemImage::patterned(BLOCKS * 512), |_| ()), read_only);
    assert_eq!(send(&a, &between(reads)), aborted(FAILURE, 0, 6));
    assert_eq!(send(&a, &between(writes)), good(108));
}

/// A unit attention stays pending for the unit where it is.
#[test]
fn attentions_of_other_units_stay() {
    let (a, b) = pair();
    b.itl.establish(crate::lu::Attention::CapacityChanged);
    assert_eq!(send(&a, &between(&[blocks(0, 1, 1, 0, 0)])), good(108));
    assert_eq!(b.itl.gate().take_attention(), Some(crate::lu::Attention::CapacityChanged));
    a.itl.establish(crate::lu::Attention::CapacityChanged);
    assert_eq!(send(&a, &between(&[])).status, Status::CheckCondition, "of the unit that it is sent to it is reported");
}

/// Access is looked at before each step.
#[test]
fn access_that_is_taken_away_meanwhile() {
    for source in [true, false] {
        let (a, b) = large(4 * MIB);
        let loser = if source { Arc::clone(&a.itl) } else { Arc::clone(&b.itl) };
        let bits = if source { GateBits::DENY_READ } else { GateBits::DENY_WRITE };
        // During the second step's write, of the second segment.
        b.image.at_call(3, move || loser.gate().raise(bits));
        let segments = [blocks(0, 1, 2, 0, 0), blocks(0, 1, 6144, 8, 8)];
        let field = if source { 4 } else { 6 };
        assert_eq!(send(&a, &between(&segments)), aborted(FAILURE, 1, field));
        let copied = 2 * MIB + 8 * 512;
        assert_eq!(b.image.bytes()[4096..copied], pattern(4096, copied - 4096), "to the end of the step");
        assert!(b.image.bytes()[copied..].iter().all(|byte| *byte == 0), "and no further");
        let status = a.data_in(&[0x84, 0, 1, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 12, 0, 0], 12).data;
        assert_eq!(status, [0, 0, 0, 8, 0x82, 0, 1, 0, 0, 0x20, 0x04, 0]);
    }
}

#[test]
fn an_abort_ends_it_between_steps() {
    let (a, b) = large(4 * MIB);
    let abort = AbortFlag::default();
    let raise = abort.clone();
    b.image.at_call(2, move || raise.raise());
    let list = between(&[blocks(0, 1, 8192, 0, 0)]);
    let answer = a.run_with(&extended_copy(list.len()), out_buf(&list), &abort).answer;
    assert_eq!(answer, Answer::check(Sense::copy_aborted(FAILURE).with_segment(0)));
    assert_eq!(b.image.calls().len(), 2);
}

/// Errors of the medium are the unit's, and its log counts them.
#[test]
fn media_that_fail() {
    let (a, b) = pair();
    a.image.fail_reads(9 * 512, BackingError::ReadFailed);
    assert_eq!(send(&b, &between(&[blocks(0, 1, 9, 0, 0)])), good(108));
    assert_eq!(send(&b, &between(&[blocks(0, 1, 1, 9, 20)])), aborted(FAILURE, 0, 4));
    b.image.fail_writes(30 * 512, BackingError::WriteFailed);
    assert_eq!(send(&b, &between(&[blocks(0, 1, 4, 0, 28)])), aborted(FAILURE, 0, 6));
    b.image.fail_writes(30 * 512, BackingError::NoSpace);
    assert_eq!(send(&b, &between(&[bytes(1024, (0, 1), (30, 0))])), aborted(FAILURE, 0, 6));
    let (read, written) = (a.itl.lu().errors().get(), b.itl.lu().errors().get());
    assert_eq!((read.read, read.write, written.read, written.write), (1, 0, 0, 1));
}

/// A command that must be atomic has its blocks for itself: a copy of them waits, and has not been begun.
#[test]
fn blocks_that_are_held() {
    let (a, b) = pair();
    let list = between(&[blocks(0, 1, 4, 0, 10)]);
    let holder = nexus_of(Arc::clone(b.itl.lu()), None);
    for (lba, waits) in [(9, false), (10, true), (13, true), (14, false)] {
        let extent = Extent { offset: lba * 512, len: 512 };
        let hold = b.itl.lu().hold(Holding::Blocks(extent), &holder, Touches::Blocks(extent), false, &[]).unwrap();
        let cdb = extended_copy(list.len());
        let mut buf = out_buf(&list);
        let held = matches!(a.plan(&cdb, &mut buf), Plan::Held);
        assert_eq!(held, waits, "{lba}");
        b.itl.lu().end_hold(hold);
        assert_eq!(send(&a, &list), good(108), "its list identifier is not taken");
    }
    // An ORDERED command of the other unit's task set does not concern it.
    let hold = b.itl.lu().hold(Holding::TaskSet(None), &holder, Touches::Nothing, false, &[]).unwrap();
    assert_eq!(send(&a, &list), good(108));
    b.itl.lu().end_hold(hold);
}
