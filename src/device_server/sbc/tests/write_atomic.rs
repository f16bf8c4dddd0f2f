use super::*;
use crate::backing::BackingError;
use crate::device_server::testkit::{Bench, Call, MemImage, check, good, out_buf, pattern};
use crate::device_server::{AbortFlag, Plan, Request, start};
use crate::lu::{Extent, Touches};
use crate::scsi::TaskAttribute;

const SIZE: usize = 1 << 20;

/// Atomic in 4 KiB to 64 KiB: 8 to 128 blocks.
fn bench() -> Bench {
    Bench::new(MemImage::patterned(SIZE).with_atomic(4096, 65536))
}

/// WRITE ATOMIC(16) 9Ch: byte 1 WRPROTECT, DPO (10h), FUA (08h), bytes 2–9 LBA, 10–11 ATOMIC BOUNDARY, 12–13 TRANSFER LENGTH.
fn write_atomic(flags: u8, lba: u64, boundary: u16, blocks: u16) -> [u8; 16] {
    cdb16(0x9c, flags, lba, u32::from(boundary) << 16 | u32::from(blocks))
}

#[test]
fn a_power_of_two_goes_as_it_is() {
    for (lba, blocks) in [(0, 8), (8, 8), (16, 16), (128, 128), (1920, 128)] {
        let b = bench();
        let (at, len) = (lba * 512, u64::from(blocks) * 512);
        let data = vec![0x5a; len as usize];
        assert_eq!(b.data_out(&write_atomic(0, lba, 0, blocks), &data), good(len));
        assert_eq!(b.image.calls(), [Call::WriteAtomic(at, len, false)]);
        let mut expected = pattern(0, SIZE);
        expected[at as usize..(at + len) as usize].copy_from_slice(&data);
        assert!(b.image.bytes() == expected);
    }
}

/// 24 blocks from 8 on lie in blocks 0 to 31: those are written, with what is there already around them.
#[test]
fn another_length_takes_its_surroundings_along() {
    let b = bench();
    let data: Vec<u8> = (0..24 * 512).map(|at| (at / 7) as u8).collect();
    let cdb = write_atomic(0, 8, 0, 24);
    let mut buf = out_buf(&data);
    let attribute = TaskAttribute::Simple;
    let request = Request {
        cdb: &cdb,
        itl: Some(&b.itl),
        luns: &b.luns,
        peers: &b.peers,
        well_known: None,
        attribute,
        passes: &[],
    };
    let started = start(&request, &mut buf);
    let all = Extent { offset: 0, len: 16384 };
    assert_eq!(started.touches, Touches::Blocks(all), "nobody else may use what is written back");
    let Plan::Exclusive(plan) = started.plan else { panic!("{:?}", started.plan) };
    assert_eq!(plan.extent, all);
    assert_eq!((plan.job.run)(&mut buf, &AbortFlag::default()), good(24 * 512));
    assert_eq!(b.image.calls(), [Call::Read(0, 16384), Call::WriteAtomic(0, 16384, false)]);
    let mut expected = pattern(0, SIZE);
    expected[4096..16384].copy_from_slice(&data);
    assert!(b.image.bytes() == expected);
}

#[test]
fn a_boundary_makes_it_several_operations() {
    let b = bench();
    // From the first block on, whatever multiples there are: 16 to 31, 32 to 47, 48 to 55.
    assert_eq!(b.data_out(&write_atomic(0, 16, 16, 40), &[7; 40 * 512]), good(40 * 512));
    let op = |block: u64, blocks: u64| Call::WriteAtomic(block * 512, blocks * 512, false);
    assert_eq!(b.image.calls(), [op(16, 16), op(32, 16), op(48, 8)]);
    assert_eq!(b.image.bytes()[8192..28672], [7; 20480]);
}

#[test]
fn fua_and_no_write_cache_make_it_durable() {
    let b = bench();
    assert_eq!(b.data_out(&write_atomic(0x18, 0, 0, 8), &[1; 4096]), good(4096));
    assert_eq!(b.image.calls(), [Call::WriteAtomic(0, 4096, true)]);
    let b = Bench::with(MemImage::new(SIZE).with_atomic(4096, 65536), |setup| setup.write_cache = false);
    assert_eq!(b.data_out(&write_atomic(0, 0, 0, 8), &[1; 4096]), good(4096));
    assert_eq!(b.image.calls(), [Call::WriteAtomic(0, 4096, true)]);
}

/// SBC-4 4.29.1, field by field.
#[test]
fn fields_are_held_to_the_limits() {
    let b = bench();
    let cases = [
        (write_atomic(0, 0, 0, 129), invalid_field(12, 7), "more than the maximum"),
        (write_atomic(0, 0, 0, 136), invalid_field(12, 7), "more than the maximum"),
        (write_atomic(0, 0, 0, 9), invalid_field(12, 7), "no multiple of the granularity"),
        (write_atomic(0, 0, 136, 8), invalid_field(10, 7), "boundary beyond its maximum"),
        (write_atomic(0, 0, 12, 24), invalid_field(10, 7), "boundary no multiple of the granularity"),
        (write_atomic(0, 4, 0, 8), invalid_field(2, 7), "not aligned"),
        (write_atomic(0, 120, 0, 16), invalid_field(2, 7), "on both sides of the largest unit"),
        (write_atomic(0, 8, 128, 128), invalid_field(2, 7), "the same of a part"),
        (write_atomic(0, 2048, 0, 8), out_of_range(2048, 2, 7), "past the end"),
        (write_atomic(0, 2048, 0, 0), out_of_range(2048, 2, 7), "past the end, although it is nothing"),
        (write_atomic(0, 2040, 0, 16), out_of_range(2048, 2, 7), "over the end"),
        (write_atomic(0x20, 0, 0, 8), invalid_field(1, 5), "WRPROTECT"),
    ];
    for (cdb, sense, what) in cases {
        assert_eq!(b.data_out(&cdb, &vec![0; 136 * 512]), check(sense), "{what}");
    }
    assert_eq!(b.data_out(&write_atomic(0, 2040, 0, 0), &[]), good(0), "nothing to write");
    assert_eq!(b.data_out(&write_atomic(0, 2040, 0, 8), &[0; 4095]).transferred, 4096, "overflow");
    assert_eq!(b.image.calls().len(), 0);
    assert_eq!(b.data_out(&write_atomic(0, 2040, 0, 8), &[9; 4096]), good(4096), "the last blocks");
}

#[test]
fn what_cannot_be_written_says_so() {
    let b = bench();
    b.image.fail_writes(8192, BackingError::WriteFailed);
    let failed = plain(SenseKey::MediumError, 0x0c02).with_information(16);
    assert_eq!(b.data_out(&write_atomic(0, 16, 0, 8), &[1; 4096]), check(failed));
    assert!(b.image.bytes() == pattern(0, SIZE), "none of it");
    // The first of two operations is done.
    let incomplete = plain(SenseKey::AbortedCommand, 0x0c10);
    assert_eq!(b.data_out(&write_atomic(0, 8, 8, 16), &[1; 8192]), check(incomplete));
    assert!(b.image.bytes()[4096..8192] == [1; 4096] && b.image.bytes()[8192..] == pattern(0, SIZE)[8192..]);
    let read_only = Bench::new(MemImage::new(SIZE).with_atomic(4096, 65536).read_only());
    assert_eq!(
        read_only.data_out(&write_atomic(0, 0, 0, 8), &[1; 4096]),
        check(plain(SenseKey::IllegalRequest, 0x2000))
    );
    // Software write protection is for a while, and the command stays.
    let b = bench();
    // SWP is bit 3 of byte 4 of the control mode page, behind a header without a block descriptor.
    let mut control = b.data_in(&[0x1a, 0x08, 0x0a, 0, 16, 0], 16).data;
    (control[0], control[2], control[8]) = (0, 0, control[8] | 0x08);
    assert_eq!(b.data_out(&[0x15, 0x10, 0, 0, 16, 0], &control), good(16));
    let protected = plain(SenseKey::DataProtect, 0x2702);
    assert_eq!(b.data_out(&write_atomic(0, 0, 0, 8), &[1; 4096]), check(protected));
}

#[test]
fn an_abort_leaves_whole_operations() {
    let b = bench();
    let abort = AbortFlag::default();
    abort.raise();
    let aborted = plain(SenseKey::AbortedCommand, 0x0000);
    assert_eq!(b.run_with(&write_atomic(0, 0, 0, 8), out_buf(&[1; 4096]), &abort).answer, check(aborted));
    assert_eq!(b.image.calls(), []);
}

/// Bytes 44 to 63 of the Block Limits page: maximum length, alignment, granularity, maximum with a boundary, maximum boundary.
#[test]
fn the_limits_are_told() {
    let atomic = |b: &Bench| b.data_in(&[0x12, 1, 0xb0, 0, 64, 0], 64).data[44..].to_vec();
    let words = |words: [u32; 5]| words.map(u32::to_be_bytes).concat();
    assert_eq!(atomic(&bench()), words([128, 8, 8, 128, 128]));
    let of = |image: MemImage, block| Bench::with(image, |setup| setup.block_size = block);
    assert_eq!(atomic(&of(MemImage::new(SIZE).with_atomic(4096, 65536), 4096)), words([16, 1, 1, 16, 16]));
    assert_eq!(atomic(&of(MemImage::new(SIZE).with_atomic(512, 65536), 4096)), words([16, 1, 1, 16, 16]));
    // 25 times 4096 bytes: no unit may reach over the end.
    assert_eq!(atomic(&of(MemImage::new(102_400).with_atomic(4096, 65536), 512)), words([8, 8, 8, 8, 8]));
    let read_only = MemImage::new(SIZE).with_atomic(4096, 65536).read_only();
    for none in [MemImage::new(SIZE), MemImage::new(51_200).with_atomic(4096, 65536), read_only] {
        let b = Bench::new(none);
        assert_eq!(atomic(&b), [0; 20]);
        assert_eq!(b.data_out(&write_atomic(0, 0, 0, 8), &[0; 4096]), check(plain(SenseKey::IllegalRequest, 0x2000)));
        // REPORT SUPPORTED OPERATION CODES of one: SUPPORT 001b, not supported.
        assert_eq!(b.data_in(&[0xa3, 0x0c, 1, 0x9c, 0, 0, 0, 0, 0, 4, 0, 0], 4).data[1] & 7, 1);
    }
    assert_eq!(bench().data_in(&[0xa3, 0x0c, 1, 0x9c, 0, 0, 0, 0, 0, 4, 0, 0], 4).data[1] & 7, 3);
}
