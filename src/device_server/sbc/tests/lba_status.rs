#![allow(clippy::single_range_in_vec_init, reason = "a map with one hole is a list of one range")]

use std::ops::Range;

use super::*;
use crate::backing::BackingError;
use crate::device_server::testkit::{Bench, Call, MemImage, check, good};
use crate::device_server::{AbortFlag, Plan};
use crate::lu::Provisioning;
use crate::mem::{Direction, IoBuf};

const BLOCKS: usize = 100;

/// GET LBA STATUS 9Eh/12h (SBC-3 5.4): starting LBA, allocation length.
fn cdb(lba: u64, length: u32) -> [u8; 16] {
    cdb16(0x9e, 0x12, lba, length)
}

fn bench(holes: &[Range<u64>]) -> Bench {
    Bench::new(MemImage::new(BLOCKS * 512).with_holes(holes))
}

/// The descriptors of an answer that is long enough: LBA, blocks, status.
fn extents(b: &Bench, lba: u64) -> Vec<(u64, u32, u8)> {
    let ran = b.data_in(&cdb(lba, 4096), 4096);
    let len = ran.answer.transferred as usize;
    assert_eq!(ran.answer, good(len as u64));
    assert_eq!(ran.data[..4], (len as u32 - 4).to_be_bytes());
    let parse = |d: &[u8]| {
        assert_eq!(d[13..], [0; 3]);
        (u64::from_be_bytes(d[..8].try_into().unwrap()), u32::from_be_bytes(d[8..12].try_into().unwrap()), d[12])
    };
    ran.data[8..len].chunks_exact(16).map(parse).collect()
}

#[test]
fn three_extents() {
    let b = bench(&[5120..10240]);
    let ran = b.data_in(&cdb(2, 64), 64);
    assert_eq!(ran.answer, good(56));
    assert_eq!(
        ran.data[..56],
        [
            0, 0, 0, 52, 0, 0, 0, 0, //
            0, 0, 0, 0, 0, 0, 0, 2, 0, 0, 0, 8, 0, 0, 0, 0, // mapped
            0, 0, 0, 0, 0, 0, 0, 10, 0, 0, 0, 10, 1, 0, 0, 0, // deallocated
            0, 0, 0, 0, 0, 0, 0, 20, 0, 0, 0, 80, 0, 0, 0, 0, // mapped
        ]
    );
    assert_eq!(ran.data[56..], [0xee; 8]);
}

#[test]
fn the_first_extent_begins_where_it_was_asked() {
    let b = bench(&[5120..10240, 50_688..51_200]);
    assert_eq!(extents(&b, 0), [(0, 10, 0), (10, 10, 1), (20, 79, 0), (99, 1, 1)]);
    assert_eq!(extents(&b, 10), [(10, 10, 1), (20, 79, 0), (99, 1, 1)]);
    assert_eq!(extents(&b, 15), [(15, 5, 1), (20, 79, 0), (99, 1, 1)]);
    assert_eq!(extents(&b, 99), [(99, 1, 1)]);
    assert_eq!(extents(&bench(&[]), 7), [(7, 93, 0)]);
    assert_eq!(extents(&bench(&[0..51_200]), 0), [(0, 100, 1)]);
}

#[test]
fn a_block_that_is_a_hole_in_part_is_mapped() {
    assert_eq!(extents(&bench(&[5121..10239]), 0), [(0, 11, 0), (11, 8, 1), (19, 81, 0)]);
    assert_eq!(extents(&bench(&[5121..5600]), 0), [(0, 100, 0)], "less than a block");
    assert_eq!(extents(&bench(&[5121..6143]), 0), [(0, 100, 0)], "the ends of two blocks");
    assert_eq!(extents(&bench(&[0..1, 51_199..51_200]), 0), [(0, 100, 0)]);
    // Blocks of 4096 on a map of 512.
    let image = MemImage::new(16 * 4096).with_holes(&[512..8192 + 512]);
    let b = Bench::with(image, |s| s.block_size = 4096);
    assert_eq!(extents(&b, 0), [(0, 1, 0), (1, 1, 1), (2, 14, 0)]);
}

/// An image may tell of one hole in several parts, the borders of which may lie inside blocks.
#[test]
fn neighbouring_holes_are_one() {
    assert_eq!(extents(&bench(&[512..700, 700..1300, 1300..2048]), 0), [(0, 1, 0), (1, 3, 1), (4, 96, 0)]);
}

/// Allocation lengths of 0, 1, less than a descriptor, exactly one, one and a part, and more than there is.
#[test]
fn allocation_lengths() {
    let b = bench(&[5120..10240]);
    // What PARAMETER DATA LENGTH tells, what arrives.
    for (asked, told, got) in
        [(0, 0, 0), (1, 20, 1), (8, 20, 8), (23, 20, 23), (24, 20, 24), (25, 36, 25), (40, 36, 40), (200, 52, 56)]
    {
        let ran = b.data_in(&cdb(0, asked), 200);
        assert_eq!(ran.answer, good(got), "{asked}");
        if got >= 4 {
            assert_eq!(ran.data[..4], [0, 0, 0, told], "{asked}");
        }
        assert!(ran.data[got as usize..].iter().all(|byte| *byte == 0xee), "{asked}");
    }
    // The extent that is last because there is room for no more is told whole.
    let b = bench(&[512..1024]);
    assert_eq!(b.data_in(&cdb(0, 40), 40).data[24 + 8..40], [0, 0, 0, 1, 1, 0, 0, 0]);
    // A buffer shorter than the data is an overflow and stays as it was.
    let short = b.data_in(&cdb(0, 40), 39);
    assert_eq!((short.answer, short.data), (good(40), vec![0xee; 39]));
}

#[test]
fn no_more_of_the_map_is_walked_than_is_told() {
    let holes: Vec<_> = (0..40_u64).map(|i| i * 1024..i * 1024 + 512).collect();
    let b = bench(&holes);
    b.data_in(&cdb(0, 24), 24);
    assert_eq!(
        b.image.calls(),
        [Call::RunAt(0, 51_200), Call::RunAt(512, 51_200 - 512), Call::RunAt(1024, 51_200 - 1024)]
    );
    // However much is asked for, one command returns 1024 descriptors.
    let holes: Vec<_> = (0..2000_u64).map(|i| i * 1024..i * 1024 + 512).collect();
    let b = Bench::new(MemImage::new(2000 * 1024).with_holes(&holes));
    let ran = b.data_in(&cdb(0, u32::MAX), 1 << 16);
    assert_eq!(ran.answer, good(8 + 1024 * 16));
    assert_eq!(ran.data[..4], (4 + 1024 * 16_u32).to_be_bytes());
}

#[test]
fn the_starting_lba_must_exist() {
    let b = bench(&[]);
    assert_eq!(b.data_in(&cdb(99, 24), 24).answer, good(24));
    for lba in [100, 101, 1 << 32, u64::MAX] {
        for length in [0, 24] {
            assert_eq!(b.data_in(&cdb(lba, length), 24).answer, check(out_of_range(lba, 2, 7)), "{lba}");
        }
    }
}

#[test]
fn reserved_fields() {
    let b = bench(&[]);
    for (byte, bit) in [(1, 7), (1, 5), (14, 7), (14, 0), (15, 7), (15, 3), (15, 0)] {
        let mut cdb = cdb(0, 24);
        cdb[byte] |= 1 << bit;
        assert_eq!(b.data_in(&cdb, 24).answer, check(invalid_field(byte as u16, bit)), "{byte} {bit}");
    }
}

/// More blocks than 32 bits count.
#[test]
fn a_large_unit() {
    let image = MemImage::new(0).claiming((1 << 33) * 512).with_holes(&[512..(1 << 33) * 512]);
    let b = Bench::new(image);
    assert_eq!(extents(&b, 0), [(0, 1, 0), (1, u32::MAX, 1), (1 << 32, u32::MAX, 1), ((1 << 33) - 1, 1, 1)]);
}

#[test]
fn a_fully_provisioned_unit_is_mapped() {
    for b in [
        Bench::new(MemImage::new(BLOCKS * 512).without_unmap()),
        Bench::with(MemImage::new(BLOCKS * 512).with_holes(&[0..51_200]), |s| s.provisioning = Provisioning::Full),
    ] {
        assert_eq!(extents(&b, 40), [(40, 60, 0)]);
        assert!(b.image.calls().is_empty());
    }
}

#[test]
fn it_may_wait_and_be_aborted_and_fail() {
    let b = bench(&[5120..10240]);
    let cdb = cdb(0, 100);
    assert!(matches!(b.plan(&cdb, &mut IoBuf::owned(100, Direction::In)), Plan::Job(_)));
    let abort = AbortFlag::default();
    abort.raise();
    let ran = b.run_with(&cdb, IoBuf::owned(100, Direction::In), &abort);
    assert_eq!(ran.answer, check(plain(SenseKey::AbortedCommand, 0)));
    b.image.fail_reads(10240, BackingError::ReadFailed);
    let failed = plain(SenseKey::MediumError, 0x1100).with_information(20);
    assert_eq!(b.data_in(&cdb, 100).answer, check(failed));
}
