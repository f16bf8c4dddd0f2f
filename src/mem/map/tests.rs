use std::io::{Read, Seek, SeekFrom, Write};
use std::os::unix::fs::FileExt;

use super::*;
use crate::mem::testing::{MappingOf, USER_BASE, memfd, memory, region, spec};

const PAGE: u64 = 4096;

#[test]
fn a_region_is_the_file_shared() {
    let file = memfd(4 * PAGE);
    file.write_all_at(b"from the front-end", PAGE + 10).unwrap();
    let region = Region::map(&spec(0x10000, 2 * PAGE, PAGE), file.try_clone().unwrap()).unwrap();
    let map = MemoryMap::new(vec![region]).unwrap();

    let mut got = [0; 18];
    map.read(0x10000 + 10, &mut got).unwrap();
    assert_eq!(&got, b"from the front-end");
    map.write(0x10000 + 2 * PAGE - 4, b"back").unwrap();
    let mut got = [0; 4];
    file.read_exact_at(&mut got, 3 * PAGE - 4).unwrap();
    assert_eq!(&got, b"back");
}

#[test]
fn a_region_need_not_begin_or_end_at_a_page() {
    // As QEMU cuts a PC's first megabyte, with one-byte granularity to be nasty.
    let file = memfd(3 * PAGE);
    file.write_all_at(b"here", PAGE + 123).unwrap();
    let map = MemoryMap::new(vec![Region::map(&spec(0x123, 4, PAGE + 123), file).unwrap()]).unwrap();
    let mut got = [0; 4];
    map.read(0x123, &mut got).unwrap();
    assert_eq!(&got, b"here");
    assert!(map.host(0x122, 1).is_none());
    assert!(map.host(0x127, 1).is_none());
    assert!(map.host(0x123, 5).is_none());
    assert!(map.host(0x126, 1).is_some());
}

#[test]
fn what_a_front_end_may_not_map_is_refused() {
    let refused = |s: &RegionSpec, file: File| Region::map(s, file).unwrap_err().to_string();
    assert_eq!(refused(&spec(0x5000, 0, 0), memfd(PAGE)), "memory region at 0x5000 has size 0");
    // The file's real size decides.
    let past = "memory region at 0x0: ends at byte 0x2000 of a file of 0x1fff bytes";
    assert_eq!(refused(&spec(0, 2 * PAGE, 0), memfd(2 * PAGE - 1)), past);
    assert!(matches!(Region::map(&spec(0, PAGE, PAGE), memfd(PAGE)), Err(RegionError::PastEnd { .. })));
    // Nothing may wrap around.
    let wrap = |guest_addr, user_addr, mmap_offset| {
        let s = RegionSpec { guest_addr, size: 2 * PAGE, user_addr, mmap_offset };
        matches!(Region::map(&s, memfd(4 * PAGE)), Err(RegionError::Overflow(_)))
    };
    assert!(wrap(u64::MAX - PAGE, 0, 0));
    assert!(wrap(0, u64::MAX - PAGE, 0));
    assert!(wrap(0, 0, u64::MAX - PAGE));
    // A size that no address space holds, and a file that claims to.
    let error = Region::map(&spec(0, u64::MAX / 2, 0), memfd(i64::MAX as u64)).unwrap_err();
    assert!(matches!(error, RegionError::TooLarge(0)));

    let not_a_file = |file: File| match Region::map(&spec(0, PAGE, 0), file).unwrap_err() {
        RegionError::NotAFile { what, .. } => what,
        other => panic!("{other}"),
    };
    assert_eq!(not_a_file(File::open("/dev/zero").unwrap()), "a character device");
    assert_eq!(not_a_file(File::open("/").unwrap()), "a directory");
    let (reader, _writer) = std::io::pipe().unwrap();
    assert_eq!(not_a_file(File::from(std::os::fd::OwnedFd::from(reader))), "a pipe or socket");
}

#[test]
fn a_file_that_may_only_be_read_is_refused() {
    let named = tempfile::NamedTempFile::new().unwrap();
    named.as_file().set_len(PAGE).unwrap();
    let error = Region::map(&spec(0, PAGE, 0), File::open(named.path()).unwrap()).unwrap_err();
    assert!(matches!(error, RegionError::Map { .. }), "{error}");
}

#[test]
fn huge_sparse_memory_costs_nothing() {
    // 3 TiB, of which two pages are touched; beyond 1 TiB too.
    let size = 3 << 40;
    let map = MemoryMap::new(vec![Region::map(&spec(1 << 32, size, 0), memfd(size)).unwrap()]).unwrap();
    let last = (1 << 32) + size - 8;
    map.write(last, &7u64.to_le_bytes()).unwrap();
    map.write(1 << 32, &8u64.to_le_bytes()).unwrap();
    let mut got = [0; 8];
    map.read(last, &mut got).unwrap();
    assert_eq!(got, 7u64.to_le_bytes());
    assert!(map.write(last + 1, &[0; 8]).is_err());
}

#[test]
fn one_front_end_cannot_have_the_whole_address_space() {
    let half = MAX_GUEST_MEMORY / 2;
    let region = |addr| Region::map(&spec(addr, half, 0), memfd(half)).unwrap();
    let map = MemoryMap::new(vec![region(0), region(half)]).unwrap();
    let error = map.with_region(crate::mem::testing::region(2 * half, PAGE)).unwrap_err();
    assert!(matches!(error, RegionError::TooLarge(_)), "{error}");
}

#[test]
fn many_regions_are_found_by_address() {
    // More than the 8 that every front-end knows, in an order of their own.
    let order = [5u64, 1, 9, 0, 3, 7, 2, 11, 8, 4, 10, 6];
    let map = MemoryMap::new(order.iter().map(|i| region(i * 0x10_0000, 2 * PAGE)).collect()).unwrap();
    assert!(map.regions().is_sorted_by_key(|r| r.guest_addr()));
    for i in order {
        map.write(i * 0x10_0000 + PAGE, &[i as u8 + 1]).unwrap();
    }
    for i in order {
        let mut byte = [0];
        map.read(i * 0x10_0000 + PAGE, &mut byte).unwrap();
        assert_eq!(byte[0], i as u8 + 1);
        assert_eq!(map.user_to_guest(USER_BASE + i * 0x10_0000 + 17), Some(i * 0x10_0000 + 17));
        assert!(map.host(i * 0x10_0000 + 2 * PAGE, 1).is_none());
    }
    assert_eq!(map.user_to_guest(USER_BASE + 2 * PAGE), None);
    assert_eq!(map.user_to_guest(USER_BASE - 1), None);
}

#[test]
fn overlap_is_refused_and_adjoining_is_not() {
    assert!(MemoryMap::new(vec![region(0, 2 * PAGE), region(2 * PAGE, PAGE)]).is_ok());
    let error = MemoryMap::new(vec![region(PAGE, PAGE), region(0, PAGE + 1)]).unwrap_err();
    assert_eq!(error.to_string(), "memory regions at 0x0 and 0x1000 overlap");
    let map = memory(&[(0, 2 * PAGE)]);
    assert!(map.with_region(region(PAGE, PAGE)).is_err());
    assert_eq!(map.with_region(region(2 * PAGE, PAGE)).unwrap().regions().len(), 2);
}

#[test]
fn an_access_may_span_adjoining_regions_but_no_hole() {
    let map = memory(&[(0, PAGE), (PAGE, PAGE), (3 * PAGE, PAGE)]);
    let data: Vec<u8> = (0..2 * PAGE).map(|i| (i % 251) as u8).collect();
    map.write(0, &data).unwrap();
    let mut back = vec![0; data.len()];
    map.read(0, &mut back).unwrap();
    assert_eq!(back, data);
    assert!(map.contains(0, 2 * PAGE));
    assert!(map.range(PAGE - 4, 8).is_none(), "not contiguous here");
    assert_eq!(map.read(PAGE, &mut back), Err(OutsideMemory { addr: 2 * PAGE, len: PAGE }));
    assert!(!map.contains(2 * PAGE - 1, 2));
    assert!(!map.contains(u64::MAX, 2));
    assert!(map.contains(2 * PAGE, 0), "nothing is everywhere");
    assert!(map.host(0, 0).is_none());
}

#[test]
fn a_region_is_removed_by_what_the_front_end_calls_it() {
    let map = memory(&[(0, PAGE), (PAGE, PAGE)]);
    let mut gone = spec(PAGE, PAGE, 12345);
    let less = map.without_region(&gone).unwrap();
    assert_eq!(less.regions().len(), 1);
    assert!(less.host(PAGE, 1).is_none());
    assert!(less.host(0, 1).is_some());
    assert!(map.host(PAGE, 1).is_some(), "the older map is as it was");
    gone.user_addr += 1;
    assert!(map.without_region(&gone).is_none());
}

#[test]
fn the_same_memory_mapped_again_is_not_lost() {
    let file = memfd(8 * PAGE);
    let dup = || file.try_clone().unwrap();
    let map =
        |specs: &[RegionSpec]| MemoryMap::new(specs.iter().map(|s| Region::map(s, dup()).unwrap()).collect()).unwrap();
    let before = map(&[spec(0x10000, 4 * PAGE, 0)]);
    // The table again, with new descriptors of the same file.
    assert!(!before.loses_memory_in(&map(&[spec(0x10000, 4 * PAGE, 0)])));
    // Cut in two, as firmware does to the first megabyte; and within a larger one.
    assert!(!before.loses_memory_in(&map(&[spec(0x10000, PAGE, 0), spec(0x10000 + PAGE, 3 * PAGE, PAGE)])));
    assert!(!before.loses_memory_in(&map(&[spec(0x10000, 8 * PAGE, 0)])));
    // Smaller, at another address, another part of the file, another file, or not at all.
    assert!(before.loses_memory_in(&map(&[spec(0x10000, 3 * PAGE, 0)])));
    assert!(before.loses_memory_in(&map(&[spec(0x11000, 4 * PAGE, 0)])));
    assert!(before.loses_memory_in(&map(&[spec(0x10000, 4 * PAGE, PAGE)])));
    assert!(before.loses_memory_in(&memory(&[(0x10000, 4 * PAGE)])));
    assert!(before.loses_memory_in(&MemoryMap::default()));
    assert!(!MemoryMap::default().loses_memory_in(&before));
}

#[test]
fn an_unchanged_region_is_found_to_be_used_again() {
    let file = memfd(4 * PAGE);
    let s = spec(0, 4 * PAGE, 0);
    let map = MemoryMap::new(vec![Region::map(&s, file.try_clone().unwrap()).unwrap()]).unwrap();
    let again = map.same_region(&s, &file).unwrap();
    assert!(Arc::ptr_eq(&again, &map.regions()[0]));
    assert!(map.same_region(&s, &memfd(4 * PAGE)).is_none(), "another file");
    assert!(map.same_region(&RegionSpec { user_addr: s.user_addr + PAGE, ..s }, &file).is_none());
    assert!(map.same_region(&spec(0, 2 * PAGE, 0), &file).is_none());
}

#[test]
fn a_map_is_unmapped_when_its_last_holder_goes() {
    let map = memory(&[(0, 64 * PAGE)]);
    let mapping = MappingOf::first(&map);
    assert!(mapping.exists());
    let also = map.clone();
    drop(map);
    assert!(mapping.exists());
    drop(also);
    assert!(!mapping.exists());
}

#[test]
fn guest_memory_is_shared_and_not_dumped() {
    let map = memory(&[(0, 64 * PAGE)]);
    let flags = MappingOf::first(&map).flags();
    for (flag, what) in [("sh", "shared"), ("wr", "writable"), ("nr", "not reserved"), ("dd", "not dumped")] {
        assert!(flags.iter().any(|f| f == flag), "{what}: {flags:?}");
    }
}

#[test]
fn typed_access_is_checked_for_bounds_and_alignment() {
    use std::sync::atomic::Ordering::Relaxed;
    let map = memory(&[(0, PAGE)]);
    let range = map.range(16, 64).unwrap();
    assert!(range.store_u32(4, 0x0403_0201, Relaxed));
    assert_eq!(range.load_u32(4, Relaxed), Some(0x0403_0201));
    assert_eq!(range.load_u16(6, Relaxed), Some(0x0403));
    assert_eq!(range.load_u64(0, Relaxed), Some(0x0403_0201_0000_0000));
    let mut bytes = [0; 4];
    map.read(16 + 4, &mut bytes).unwrap();
    assert_eq!(bytes, [1, 2, 3, 4], "little-endian");
    assert_eq!(range.load_u32(5, Relaxed), None);
    assert_eq!(range.load_u32(61, Relaxed), None);
    assert_eq!(range.load_u32(64, Relaxed), None);
    assert_eq!(range.load_u64(usize::MAX, Relaxed), None);
    assert_eq!(range.load_u64(56, Relaxed), Some(0));
    assert!(!range.store_u16(63, 1, Relaxed));
}

#[test]
fn hugetlbfs_is_mapped_by_its_own_pages() {
    const HUGE: u64 = 2 << 20;
    let file = match crate::mem::testing::huge_memfd(2 * HUGE) {
        Ok(file) => file,
        // A host without hugetlbfs at all; one without free huge pages still maps them (NORESERVE).
        Err(e) => return eprintln!("no hugetlbfs here: {e}"),
    };
    // Not aligned to huge pages at either end, like a PC's memory between 768 KiB and 3 GiB.
    let s = spec(0xc_0000, HUGE, 0xc_0000);
    let map = MemoryMap::new(vec![Region::map(&s, file.try_clone().unwrap()).unwrap()]).unwrap();
    assert_eq!(map.host(0xc_0000, HUGE).unwrap().addr().get() as u64 % HUGE, 0xc_0000);
    assert!(matches!(
        Region::map(&spec(0, 2 * HUGE + 1, 0), file.try_clone().unwrap()),
        Err(RegionError::PastEnd { .. })
    ));
    let mapping = MappingOf::first(&map);
    assert!(mapping.exists());
    drop(map);
    assert!(!mapping.exists(), "unmapped with the right length");
}

#[test]
fn an_ordinary_file_can_be_guest_memory() {
    // memory-backend-file on a disk.
    let mut file = tempfile::tempfile().unwrap();
    file.set_len(PAGE).unwrap();
    let map = MemoryMap::new(vec![Region::map(&spec(0, PAGE, 0), file.try_clone().unwrap()).unwrap()]).unwrap();
    map.write(0, b"seen").unwrap();
    let mut got = [0; 4];
    file.seek(SeekFrom::Start(0)).unwrap();
    file.read_exact(&mut got).unwrap();
    assert_eq!(&got, b"seen");
    file.seek(SeekFrom::Start(0)).unwrap();
    file.write_all(b"also").unwrap();
    map.read(0, &mut got).unwrap();
    assert_eq!(&got, b"also");
}
