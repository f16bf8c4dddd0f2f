use std::sync::Arc;

use super::*;
use crate::mem::SnapshotSet;
use crate::mem::testing::memory;

fn scattered() -> (Arc<crate::mem::MemoryMap>, SnapshotSet, IoBuf) {
    let map = memory(&[(0, 0x4000)]);
    let mut set = SnapshotSet::new(Arc::clone(&map));
    let pieces = [(0x101, 7), (0x3000, 4), (0x1000, 4096)];
    let buf = set.resolve(Direction::In, pieces.into_iter(), IoBuf::empty()).unwrap();
    (map, set, buf)
}

#[test]
fn owned_memory_is_zeroed_and_page_aligned() {
    for len in [1, 511, 4096, 100_000] {
        let mut buf = IoBuf::owned(len, Direction::Out);
        assert_eq!((buf.len(), buf.direction()), (len as u64, Direction::Out));
        assert_eq!(buf.iovecs().len(), 1);
        assert_eq!(buf.iovecs()[0].iov_base as usize % 4096, 0);
        assert_eq!(buf.is_aligned(512), len % 512 == 0);
        let mut all = vec![1; len];
        assert_eq!(buf.read_at(0, &mut all), len);
        assert!(all.iter().all(|b| *b == 0));
        assert_eq!(buf.write_at(len as u64 - 1, b"xy"), 1, "what does not fit is left out");
    }
    let none = IoBuf::owned(0, Direction::In);
    assert!(none.is_empty() && none.iovecs().is_empty() && !none.is_guest_memory());
}

#[test]
fn copies_cross_pieces_at_any_offset() {
    let (_map, mut set, mut buf) = scattered();
    let len = buf.len() as usize;
    assert_eq!(len, 7 + 4 + 4096);
    let data: Vec<u8> = (0..len).map(|i| (i % 253) as u8 + 1).collect();
    for (offset, take) in [(0, len), (3, 6), (6, 2), (7, 4), (10, 40), (len - 1, 1), (11, 4096)] {
        buf.zero_at(0, u64::MAX);
        assert_eq!(buf.write_at(offset as u64, &data[..take]), take);
        let mut back = vec![0; len];
        assert_eq!(buf.read_at(0, &mut back), len);
        let mut expected = vec![0; len];
        expected[offset..offset + take].copy_from_slice(&data[..take]);
        assert!(back == expected, "offset {offset} take {take}");
        let mut part = vec![0; take];
        assert_eq!(buf.read_at(offset as u64, &mut part), take);
        assert!(part == data[..take]);
    }
    assert_eq!(buf.write_at(len as u64, b"x"), 0);
    assert_eq!(buf.write_at(u64::MAX, b"x"), 0);
    assert_eq!(buf.read_at(len as u64 - 2, &mut [0; 8]), 2);
    set.release(buf);
}

#[test]
fn zeroing_touches_its_range_only() {
    let (_map, mut set, mut buf) = scattered();
    let len = buf.len();
    buf.write_at(0, &vec![0xff; len as usize]);
    assert_eq!(buf.zero_at(5, 4000), 4000);
    assert_eq!(buf.zero_at(len - 1, 100), 1);
    let mut back = vec![0; len as usize];
    buf.read_at(0, &mut back);
    for (i, byte) in back.iter().enumerate() {
        let zero = (5..4005).contains(&i) || i == len as usize - 1;
        assert_eq!(*byte == 0, zero, "byte {i}");
    }
    set.release(buf);
}

#[test]
fn a_range_of_iovecs_covers_just_that_range() {
    let (_map, mut set, buf) = scattered();
    let sizes = |offset, len| {
        let mut out = Vec::new();
        buf.iovecs_range(offset, len, &mut out);
        out.iter().map(|v| v.iov_len).collect::<Vec<_>>()
    };
    assert_eq!(sizes(0, 4107), [7, 4, 4096]);
    assert_eq!(sizes(7, 4), [4]);
    assert_eq!(sizes(6, 7), [1, 4, 2]);
    assert_eq!(sizes(11, u64::MAX), [4096]);
    assert_eq!(sizes(4107, 1), [0usize; 0]);
    assert_eq!(sizes(0, 0), [0usize; 0]);
    let mut out = Vec::new();
    buf.iovecs_range(9, 1, &mut out);
    assert_eq!(out[0].iov_base as usize, buf.iovecs()[1].iov_base as usize + 2);
    set.release(buf);
}
