use std::sync::Arc;

use super::*;
use crate::mem::testing::{MappingOf, memfd, memory, spec};
use crate::mem::{MemoryMap, Region};

const PAGE: u64 = 4096;

#[test]
fn a_buffer_is_the_guests_pieces_in_order() {
    let map = memory(&[(0, 4 * PAGE)]);
    let mut set = SnapshotSet::new(Arc::clone(&map));
    let pieces = [(3 * PAGE, 5), (10, 3), (20, 0), (PAGE, 2)];
    let mut buf = set.resolve(Direction::In, pieces.into_iter(), IoBuf::empty()).unwrap();
    assert_eq!((buf.len(), buf.iovecs().len(), buf.direction()), (10, 3, Direction::In));
    assert_eq!(buf.write_at(0, b"0123456789"), 10);
    let mut got = [0; 5];
    map.read(3 * PAGE, &mut got).unwrap();
    assert_eq!(&got, b"01234");
    map.read(10, &mut got).unwrap();
    assert_eq!(&got, b"567\0\0");
    map.read(PAGE, &mut got).unwrap();
    assert_eq!(&got, b"89\0\0\0");
    assert_eq!(set.outstanding(), 1);
    let back = set.release(buf);
    assert_eq!((back.len(), back.iovecs().len(), back.direction()), (0, 0, Direction::None));
    assert_eq!(set.outstanding(), 0);
}

#[test]
fn pieces_join_and_span_regions() {
    let map = memory(&[(0, PAGE), (PAGE, PAGE)]);
    let mut set = SnapshotSet::new(Arc::clone(&map));
    let pages = [(0, 1024), (1024, 1024), (2048, 2048)];
    let buf = set.resolve(Direction::Out, pages.into_iter(), IoBuf::empty()).unwrap();
    assert_eq!(buf.iovecs().len(), 1, "adjoining pieces are one");
    let across = set.resolve(Direction::Out, [(PAGE - 1, 2)].into_iter(), IoBuf::empty()).unwrap();
    assert_eq!(across.len(), 2);
    let outside = set.resolve(Direction::Out, [(0, 4), (2 * PAGE - 1, 2)].into_iter(), IoBuf::empty());
    assert_eq!(outside.unwrap_err(), OutsideMemory { addr: 2 * PAGE, len: 1 });
    let wraps = set.resolve(Direction::Out, [(u64::MAX - 1, u32::MAX)].into_iter(), IoBuf::empty());
    assert!(wraps.is_err());
    assert_eq!(set.outstanding(), 2, "what failed is not out");
    set.release(buf);
    set.release(across);
    assert_eq!(set.outstanding(), 0);
}

#[test]
fn the_list_is_allocated_once() {
    let mut set = SnapshotSet::new(memory(&[(0, 64 * PAGE)]));
    let pieces = || (0..20).map(|i| (i * 2 * PAGE, 100));
    let buf = set.resolve(Direction::In, pieces(), IoBuf::empty()).unwrap();
    let at = buf.iovecs().as_ptr();
    let buf = set.release(buf);
    let buf = set.resolve(Direction::In, pieces(), buf).unwrap();
    assert_eq!(buf.iovecs().as_ptr(), at);
    // One that still holds guest memory is released first.
    let buf = set.resolve(Direction::In, pieces(), buf).unwrap();
    assert_eq!(set.outstanding(), 1);
    set.release(buf);
}

#[test]
fn an_old_map_lives_until_its_last_buffer_is_back() {
    let old = memory(&[(0, PAGE)]);
    let mapping = MappingOf::first(&old);
    let mut set = SnapshotSet::new(old);
    let one = set.resolve(Direction::In, [(0, 8)].into_iter(), IoBuf::empty()).unwrap();
    let two = set.resolve(Direction::In, [(8, 8)].into_iter(), IoBuf::empty()).unwrap();
    set.replace(memory(&[(0, PAGE)]));
    let new = set.resolve(Direction::In, [(0, 8)].into_iter(), IoBuf::empty()).unwrap();
    assert_eq!((set.outstanding(), set.old_in_use()), (3, 2));
    set.release(two);
    assert!(mapping.exists() && set.in_use_outside());
    set.release(one);
    assert!(!mapping.exists() && !set.in_use_outside());
    assert_eq!(set.outstanding(), 1);
    set.release(new);
}

#[test]
fn a_map_without_buffers_goes_at_once() {
    let old = memory(&[(0, PAGE)]);
    let mapping = MappingOf::first(&old);
    let mut set = SnapshotSet::new(old);
    let nothing = set.resolve(Direction::None, std::iter::empty(), IoBuf::empty()).unwrap();
    set.replace(memory(&[(0, PAGE)]));
    assert!(!mapping.exists());
    set.release(nothing);
}

#[test]
fn only_memory_that_is_gone_is_waited_for() {
    let file = memfd(2 * PAGE);
    let kept = || Region::map(&spec(0, 2 * PAGE, 0), file.try_clone().unwrap()).unwrap();
    let removed = memory(&[(8 * PAGE, PAGE)]).regions()[0].clone();
    let mut set = SnapshotSet::new(Arc::new(MemoryMap::new(vec![kept(), removed.clone()]).unwrap()));
    let on_kept = set.resolve(Direction::In, [(0, 8)].into_iter(), IoBuf::empty()).unwrap();
    let on_both = set.resolve(Direction::In, [(0, 8), (8 * PAGE, 8)].into_iter(), IoBuf::empty()).unwrap();

    // The same memory, mapped a second time, and one region less.
    set.replace(Arc::new(MemoryMap::new(vec![kept()]).unwrap()));
    assert_eq!(set.old_in_use(), 1);
    // It comes back: nothing is lost any more.
    set.replace(Arc::new(MemoryMap::new(vec![kept(), removed]).unwrap()));
    assert_eq!(set.old_in_use(), 0);
    set.replace(Arc::new(MemoryMap::new(vec![kept()]).unwrap()));
    assert_eq!(set.old_in_use(), 1);
    set.release(on_both);
    assert_eq!((set.old_in_use(), set.outstanding()), (0, 1));
    set.release(on_kept);
    assert_eq!(set.outstanding(), 0);
}

#[test]
fn more_regions_than_bits_wait_for_too_much_and_never_too_little() {
    let files: Vec<_> = (0..70).map(|_| memfd(PAGE)).collect();
    let regions = |leave: usize| {
        let one = |(i, file): (usize, &std::fs::File)| {
            Region::map(&spec(i as u64 * 2 * PAGE, PAGE, 0), file.try_clone().unwrap()).unwrap()
        };
        Arc::new(MemoryMap::new(files.iter().enumerate().filter(|(i, _)| *i != leave).map(one).collect()).unwrap())
    };
    let at = |i: u64| [(i * 2 * PAGE, 8)].into_iter();
    let mut set = SnapshotSet::new(regions(usize::MAX));
    let on_0 = set.resolve(Direction::In, at(0), IoBuf::empty()).unwrap();
    let on_69 = set.resolve(Direction::In, at(69), IoBuf::empty()).unwrap();
    set.replace(regions(0));
    assert_eq!(set.old_in_use(), 1);
    set.replace(regions(65));
    assert_eq!(set.old_in_use(), 1, "region 69 shares its bit with 65");
    set.release(on_69);
    assert_eq!(set.old_in_use(), 0);
    set.release(on_0);
}

#[test]
fn a_buffer_that_is_lost_keeps_its_memory() {
    let map = memory(&[(0, PAGE)]);
    let mapping = MappingOf::first(&map);
    let mut set = SnapshotSet::new(map);
    let lost = set.resolve(Direction::In, [(0, 8)].into_iter(), IoBuf::empty()).unwrap();
    let kept = set.resolve(Direction::In, [(8, 8)].into_iter(), IoBuf::empty()).unwrap();
    drop(lost);
    set.replace(Arc::default());
    assert!(mapping.exists());
    drop(set);
    assert!(mapping.exists(), "nobody can tell that nobody uses it");
    let mut kept = kept;
    assert_eq!(kept.write_at(0, b"still"), 5);
}

#[test]
fn a_set_without_buffers_out_unmaps() {
    let map = memory(&[(0, PAGE)]);
    let mapping = MappingOf::first(&map);
    let mut set = SnapshotSet::new(map);
    let buf = set.resolve(Direction::In, [(0, 8)].into_iter(), IoBuf::empty()).unwrap();
    set.release(buf);
    drop(set);
    assert!(!mapping.exists());
}

#[test]
fn own_memory_may_be_released_anywhere() {
    let mut set = SnapshotSet::default();
    let buf = set.release(IoBuf::owned(100, Direction::In));
    assert!(buf.is_empty() && buf.iovecs().is_empty());
    assert_eq!(set.outstanding(), 0);
}

/// In debug builds this is a panic; either way no count changes and nothing is unmapped.
#[test]
fn a_release_to_the_wrong_set_leaks() {
    let (mine, other) = (memory(&[(0, PAGE)]), memory(&[(0, PAGE)]));
    let mapping = MappingOf::first(&mine);
    let mut right = SnapshotSet::new(mine);
    let mut wrong = SnapshotSet::new(other);
    let stays = wrong.resolve(Direction::In, [(0, 8)].into_iter(), IoBuf::empty()).unwrap();
    let buf = right.resolve(Direction::In, [(0, 8)].into_iter(), IoBuf::empty()).unwrap();
    let outcome = std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| drop(wrong.release(buf))));
    assert_eq!(outcome.is_err(), cfg!(debug_assertions));
    assert_eq!((right.outstanding(), wrong.outstanding()), (1, 1));
    drop(right);
    assert!(mapping.exists());
    wrong.release(stays);
}
