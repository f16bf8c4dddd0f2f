//! What is copied, and what ends it early.

use super::*;
use crate::backing::BackingError;
use crate::device_server::AbortFlag;
use crate::device_server::testkit::{Call, out_buf, pattern};
use crate::lu::{GateBits, Touches};
use crate::scsi::Status;

const MIB: usize = 1 << 20;

#[test]
fn within_one_unit() {
    let p = Pair::new();
    let token = token(&p.a, &[(0, 10), (30, 10)]);
    assert_eq!(write(&p.a, 1, &token, &[(60, 15), (90, 5)]), good(568));
    let bytes = p.a.image.bytes();
    assert_eq!(bytes[60 * 512..70 * 512], pattern(0, 5120));
    assert_eq!(bytes[70 * 512..75 * 512], pattern(30 * 512, 2560));
    assert_eq!(bytes[90 * 512..95 * 512], pattern(35 * 512, 2560));
    assert_eq!(write(&p.a, 2, &token, &[(40, 20)]), good(552), "once more: it was not written itself");
}

#[test]
fn an_offset() {
    let p = Pair::new();
    let token = token(&p.a, &[(0, 10), (30, 10)]);
    assert_eq!(write_with(&p.b, 1, 0, 9, &token, &[(0, 3)]), good(552));
    assert_eq!(p.b.image.bytes()[..1536], [pattern(9 * 512, 512), pattern(30 * 512, 1024)].concat());
    assert_eq!(write_with(&p.b, 1, 0, 19, &token, &[(0, 1)]), good(552));
    assert_eq!(p.b.image.bytes()[..512], pattern(39 * 512, 512));
    for offset in [20, 21, u64::MAX / 512, u64::MAX] {
        assert_eq!(write_with(&p.b, 1, 0, offset, &token, &[(0, 1)]), check(invalid(8)), "{offset}");
    }
}

/// SBC-3 5.51.2's example: from blocks of 512 bytes to blocks of 4096.
#[test]
fn other_block_lengths() {
    let b = MemImage::holding(vec![0xff; 25 * 4096]);
    let p = Pair::with(MemImage::patterned(51_200), b, |setup| setup.block_size = 4096);
    let small = token(&p.a, &[(15, 6), (40, 60)]);
    let of = |ranges: &[(u64, usize)]| -> Vec<u8> {
        ranges.iter().flat_map(|(lba, blocks)| pattern(lba * 512, blocks * 512)).collect()
    };
    assert_eq!(write(&p.b, 1, &small, &[(3, 1)]), good(552));
    assert_eq!(p.b.image.bytes()[3 * 4096..4 * 4096], of(&[(15, 6), (40, 2)]));
    assert_eq!(status(&p.b, 1), (0x01, 0, 1));
    // "LBA 42".
    assert_eq!(write_with(&p.b, 1, 0, 1, &small, &[(0, 2)]), good(552));
    assert_eq!(p.b.image.bytes()[..8192], of(&[(42, 16)]));
    // 66 blocks are 8 of 4096 bytes and a quarter.
    let underrun = Sense::new(SenseKey::CopyAborted, AdditionalSense(0x0d04)).with_information(9);
    assert_eq!(write(&p.b, 1, &small, &[(10, 15)]), check(underrun));
    let bytes = p.b.image.bytes();
    assert_eq!(bytes[10 * 4096..18 * 4096 + 1024], [of(&[(15, 6)]), of(&[(40, 60)])].concat());
    assert_eq!(bytes[18 * 4096 + 1024..19 * 4096], [0; 3072], "the rest of the last block");
    assert!(bytes[19 * 4096..].iter().all(|byte| *byte == 0xff));
    assert_eq!(status(&p.b, 1), (0x03, 0x02, 9));

    let large = token(&p.b, &[(10, 2)]);
    assert_eq!(write_with(&p.a, 1, 0, 5, &large, &[(0, 4)]), good(552));
    assert_eq!(p.a.image.bytes()[..2048], bytes[10 * 4096 + 2560..][..2048]);
}

/// SBC-3 4.28.2, 5.51.2.
#[test]
fn more_than_there_is() {
    let p = Pair::new();
    let token = token(&p.a, &[(0, 10)]);
    let underrun = Sense::new(SenseKey::CopyAborted, AdditionalSense(0x0d04)).with_information(10);
    assert_eq!(write(&p.b, 1, &token, &[(0, 4), (50, 4), (20, 4)]), check(underrun));
    let bytes = p.b.image.bytes();
    assert_eq!((&bytes[..2048], &bytes[25_600..27_648]), (&pattern(0, 2048)[..], &pattern(2048, 2048)[..]));
    assert_eq!((&bytes[10_240..11_264], &bytes[11_264..12_288]), (&pattern(4096, 1024)[..], &[0xff; 1024][..]));
    let ran = information(&p.b, 1);
    assert_eq!(ran.data[4..16], [0x11, 0x03, 0, 3, 0xff, 0xff, 0xff, 0xfe, 0x02, 20, 18, 0xf1]);
    assert_eq!(ran.data[23], 10);
    assert_eq!(ran.data[32..50], [0xf0, 0, 0x0a, 0, 0, 0, 10, 10, 0, 0, 0, 0, 0x0d, 0x04, 0, 0, 0, 0]);
    assert_eq!(write_with(&p.b, 2, 1, 0, &token, &[(0, 11)]), good(552), "IMMED");
    assert_eq!(status(&p.b, 2), (0x03, 0x02, 10));
}

#[test]
fn long_ones_go_in_steps() {
    let p = Pair::of(MemImage::patterned(4 * MIB), MemImage::new(4 * MIB).without_unmap());
    let token = token(&p.a, &[(1, 5000)]);
    assert_eq!(write(&p.b, 1, &token, &[(7, 5000)]), good(552));
    assert_eq!(p.b.image.bytes()[7 * 512..][..5000 * 512], pattern(512, 5000 * 512));
    let len = |at: usize| (5000 * 512 - at * MIB).min(MIB) as u64;
    let offset = |at: usize| (7 * 512 + at * MIB) as u64;
    assert_eq!(p.b.image.calls(), [0, 1, 2].map(|at| Call::Write(offset(at), len(at), false)));
    assert_eq!(&information(&p.b, 1).data[6..8], [0, 3], "OPERATION COUNTER");
    // What cannot zero without writing is zeroed in steps as well.
    assert_eq!(write(&p.b, 1, &zero_token(), &[(0, 8192)]), good(552));
    assert_eq!(p.b.image.calls(), [0, 1, 2, 3].map(|at| Call::WriteZeroes(at << 20, 1 << 20, false)));
}

#[test]
fn holes_stay_holes() {
    let a = MemImage::new(51_200).with_holes(&[5120..10_240]);
    let p = Pair::of(a, MemImage::holding(vec![0xff; 51_200]));
    let token = token(&p.a, &[(5, 20)]);
    assert_eq!(write(&p.b, 1, &token, &[(5, 20)]), good(552));
    assert!(p.b.image.calls().contains(&Call::WriteZeroes(5120, 5120, true)));
    assert_eq!(p.b.image.bytes()[2560..12_800], [0; 10_240]);
    assert_eq!(status(&p.b, 1), (0x01, 0, 20));
}

#[test]
fn durability() {
    let p = Pair::with(MemImage::patterned(51_200), MemImage::new(51_200).without_unmap(), |s| s.write_cache = false);
    let token = token(&p.a, &[(0, 1)]);
    write(&p.b, 1, &token, &[(0, 1)]);
    assert_eq!(p.b.image.calls(), [Call::Write(0, 512, false), Call::Flush]);
    write(&p.b, 1, &zero_token(), &[(0, 1)]);
    assert_eq!(p.b.image.calls().last(), Some(&Call::Flush));
    p.b.image.fail_flushes(BackingError::FlushFailed);
    let failed = Sense::new(SenseKey::HardwareError, AdditionalSense(0x4400));
    assert_eq!(write(&p.b, 1, &token, &[(0, 1)]), check(failed));
    assert_eq!(status(&p.b, 1), (0x02, 0x02, 1));
    assert_eq!(write_with(&p.b, 1, 1, 0, &token, &[(0, 1)]), good(552), "IMMED");
    assert_eq!(status(&p.b, 1), (0x02, 0x02, 1));
}

#[test]
fn errors_of_the_images() {
    let p = Pair::of(MemImage::patterned(4 * MIB), MemImage::new(4 * MIB).without_unmap());
    let token = token(&p.a, &[(0, 8192)]);
    p.b.image.fail_writes(2 * MIB as u64, BackingError::WriteFailed);
    let failed = Sense::new(SenseKey::MediumError, AdditionalSense(0x0c02)).with_information(4096);
    assert_eq!(write(&p.b, 1, &token, &[(0, 8192)]), check(failed));
    assert_eq!(status(&p.b, 1), (0x02, 0x02, 4096));
    assert_eq!(p.b.itl.lu().errors().get().write, 1);
    p.a.image.fail_reads(MIB as u64, BackingError::ReadFailed);
    let failed = Sense::new(SenseKey::CopyAborted, AdditionalSense(0x0d01)).with_information(2048);
    assert_eq!(write(&p.b, 1, &token, &[(0, 8192)]), check(failed));
    assert_eq!(status(&p.b, 1), (0x02, 0x02, 2048));
    assert_eq!((p.a.itl.lu().errors().get().read, p.b.itl.lu().errors().get().read), (1, 0));
    assert_eq!(write_with(&p.b, 1, 1, 0, &token, &[(0, 8192)]), good(552), "IMMED");
    assert_eq!(status(&p.b, 1), (0x02, 0x02, 2048));
}

/// Writes before the token's are not seen, those after it cancel it; one that comes in the middle of a copy ends it, and what it may have
/// spoilt is not counted.
#[test]
fn a_write_in_the_middle() {
    let p = Pair::of(MemImage::patterned(4 * MIB), MemImage::new(4 * MIB).without_unmap());
    let token = token(&p.a, &[(0, 8192)]);
    let writer = other(&p.a);
    // The fourth call at the destination is the fourth step.
    p.b.image.at_call(3, move || assert_eq!(write10(&writer, 77), good(512)));
    let cancelled = illegal(0x2308).with_information(4096);
    assert_eq!(write(&p.b, 1, &token, &[(0, 8192)]), check(cancelled));
    assert_eq!(status(&p.b, 1), (0x02, 0x02, 4096));
    assert_eq!(p.b.image.bytes()[..2 * MIB], pattern(0, 2 * MIB));
    assert_eq!(write(&p.b, 1, &token, &[(0, 1)]), check(illegal(0x2308)));
}

/// SPC-4 5.17.4.7.
#[test]
fn abort_by_command() {
    let p = Pair::of(MemImage::patterned(4 * MIB), MemImage::new(4 * MIB).without_unmap());
    let token = token(&p.a, &[(0, 8192)]);
    let same = Bench::of(p.b.image.clone(), p.b.itl.clone());
    p.b.image.at_call(2, move || {
        assert_eq!(status(&same, 0x0102_0304), (0x11, 0, 2048));
        let cdb = [0x83, 0x1c, 1, 2, 3, 4, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0];
        assert_eq!(same.none(&cdb), good(0));
    });
    let cleared = Sense::new(SenseKey::CopyAborted, AdditionalSense(0x2f02));
    assert_eq!(write(&p.b, 0x0102_0304, &token, &[(0, 8192)]), check(cleared));
    assert_eq!(status(&p.b, 0x0102_0304), (0x60, 0x40, 4096));
    let unknown = check(Sense::invalid_field_in_cdb(FieldPointer::cdb(2, 7)));
    for list in [0x0102_0304_u32, 5] {
        let [a, b, c, d] = list.to_be_bytes();
        let cdb = [0x83, 0x1c, a, b, c, d, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0];
        assert_eq!(p.b.none(&cdb), unknown, "it is over, or never was");
    }
}

#[test]
fn abort_of_the_task() {
    let p = Pair::of(MemImage::patterned(4 * MIB), MemImage::new(4 * MIB).without_unmap());
    let token = token(&p.a, &[(0, 8192)]);
    for data in [write_list(0, 0, &token, &[(0, 8192)]), write_list(0, 0, &zero_token(), &[(0, 8192)])] {
        let abort = AbortFlag::default();
        let flag = abort.clone();
        p.b.image.calls();
        p.b.image.at_call(2, move || flag.raise());
        let ran = p.b.run_with(&out_cdb(0x11, 1, data.len() as u32), out_buf(&data), &abort);
        assert_eq!(ran.answer, check(Sense::aborted_command(AdditionalSense(0))));
        assert_eq!(status(&p.b, 1), (0x60, 0x40, 4096));
        assert_eq!(p.b.image.calls().len(), 2);
    }
    let abort = AbortFlag::default();
    abort.raise();
    let data = populate_list(0, 0, &[(0, 1)]);
    let ran = p.a.run_with(&out_cdb(0x10, 1, 32), out_buf(&data), &abort);
    assert_eq!(ran.answer, check(Sense::aborted_command(AdditionalSense(0))));
}

/// A nexus that loses its right to write stops writing, whatever it was promised.
#[test]
fn access_lost_in_the_middle() {
    let p = Pair::of(MemImage::patterned(4 * MIB), MemImage::new(4 * MIB).without_unmap());
    let token = token(&p.a, &[(0, 8192)]);
    let itl = p.b.itl.clone();
    p.b.image.at_call(2, move || itl.gate().raise(GateBits::DENY_WRITE));
    assert_eq!(write(&p.b, 1, &token, &[(0, 8192)]), Answer::status(Status::ReservationConflict));
    p.b.itl.gate().lower(GateBits::DENY_WRITE);
    assert_eq!(status(&p.b, 1), (0x60, 0x40, 4096));
}

#[test]
fn a_source_that_became_smaller_or_went() {
    let p = Pair::new();
    let small = token(&p.a, &[(90, 10)]);
    p.a.image.resize(95 * 512);
    crate::backing::Image::refresh_size(&*p.a.image, 512).unwrap();
    p.a.itl.lu().update_capacity(Some(&p.a.itl));
    assert_eq!(write(&p.b, 1, &small, &[(0, 1)]), check(illegal(0x2308)));
    let Pair { a, b } = Pair::new();
    let gone = token(&a, &[(0, 10)]);
    drop(a);
    assert_eq!(write(&b, 1, &gone, &[(0, 1)]), check(illegal(0x2308)));
}

/// A ROD stays what it is: its own blocks cannot be written with it.
#[test]
fn not_onto_itself() {
    let p = Pair::new();
    let token = token(&p.a, &[(10, 10), (40, 10)]);
    let refused = |byte| check(illegal(0x2300).with_field(FieldPointer { in_cdb: false, byte, bit: Some(7) }));
    assert_eq!(write(&p.a, 1, &token, &[(5, 6)]), refused(536));
    assert_eq!(write(&p.a, 1, &token, &[(0, 5), (49, 5)]), refused(552));
    assert_eq!(p.a.image.calls(), []);
    assert_eq!(write(&p.a, 1, &token, &[(0, 10), (50, 10)]), good(568));
    p.a.itl.lu().will_change(Touches::Nothing);
    assert_eq!(write(&p.b, 1, &token, &[(10, 10), (40, 10)]), good(568), "on another unit they are others");
}
