use std::fs::File;
use std::os::unix::fs::FileExt;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use proptest::prelude::*;

use super::{DirtyLog, MAX_BYTES, RegionError};
use crate::mem::testing::{memfd, memory};
use crate::mem::{Direction, GuestWriter, IoBuf, SnapshotSet};

fn log(size: u64) -> (File, Arc<DirtyLog>) {
    let file = memfd(size);
    let log = DirtyLog::map(file.try_clone().unwrap(), size, 0).unwrap();
    (file, log)
}

fn bytes(file: &File, len: usize) -> Vec<u8> {
    let mut bytes = vec![0; len];
    file.read_exact_at(&mut bytes, 0).unwrap();
    bytes
}

#[test]
fn a_page_of_4_kib_is_a_bit_the_lowest_first() {
    let (file, log) = log(8);
    log.mark(0, 1);
    assert_eq!(bytes(&file, 8), [1, 0, 0, 0, 0, 0, 0, 0]);
    log.mark(0x1fff, 2);
    assert_eq!(bytes(&file, 8), [0b111, 0, 0, 0, 0, 0, 0, 0]);
    log.mark(0x7000, 0x1000);
    log.mark(0x8000, 0x1000);
    assert_eq!(bytes(&file, 8), [0b1000_0111, 1, 0, 0, 0, 0, 0, 0]);
    log.mark(0x1_6fff, 0x1_2002);
    assert_eq!(bytes(&file, 8), [0b1000_0111, 1, 0b1100_0000, 0xff, 0xff, 0b11, 0, 0]);
    log.mark(0x3_5000, 0);
    assert_eq!(bytes(&file, 8)[6], 0, "no byte, no page");
}

#[test]
fn what_is_beyond_the_end_has_no_bit() {
    let (file, log) = log(2);
    log.mark(u64::MAX, u64::MAX);
    log.mark(16 << 12, 4096);
    assert_eq!(bytes(&file, 2), [0, 0]);
    log.mark(15 << 12, u64::MAX);
    assert_eq!(bytes(&file, 2), [0, 0x80]);
    log.mark(0, u64::MAX);
    assert_eq!(bytes(&file, 2), [0xff, 0xff]);
}

#[test]
fn it_may_begin_anywhere_in_its_file() {
    let file = memfd(3 * 4096);
    let log = DirtyLog::map(file.try_clone().unwrap(), 10, 4096 + 5).unwrap();
    log.mark(0, 4096);
    log.mark(79 << 12, 1);
    log.mark(80 << 12, 1);
    let all = bytes(&file, 3 * 4096);
    let set: Vec<_> = all.iter().enumerate().filter(|(_, byte)| **byte != 0).collect();
    assert_eq!(set, [(4096 + 5, &1), (4096 + 14, &0x80)]);
}

#[test]
fn a_log_that_cannot_be_is_refused() {
    assert!(matches!(DirtyLog::map(memfd(4096), 4097, 0), Err(RegionError::PastEnd { .. })));
    assert!(matches!(DirtyLog::map(memfd(4096), 4096, 1), Err(RegionError::PastEnd { .. })));
    assert!(matches!(DirtyLog::map(memfd(4096), 0, 0), Err(RegionError::Empty(_))));
    assert!(matches!(DirtyLog::map(memfd(4096), 8, u64::MAX - 7), Err(RegionError::Overflow(_))));
    assert!(matches!(DirtyLog::map(memfd(4096), MAX_BYTES + 1, 0), Err(RegionError::TooLarge(_))));
    let null = File::open("/dev/null").unwrap();
    assert!(matches!(DirtyLog::map(null, 4096, 0), Err(RegionError::NotAFile { .. })));
}

#[test]
fn a_log_whose_file_shrinks_is_poisoned_and_nobody_dies() {
    let (file, log) = log(3 * 4096);
    log.mark(0, 1);
    file.set_len(4096).unwrap();
    assert!(!log.poisoned());
    log.mark((4096 * 8) << 12, 1);
    assert!(log.poisoned());
    log.mark(0, 1);
}

#[test]
fn the_last_holder_unmaps_it() {
    let (file, log) = log(4096);
    let maps = || {
        let inode = std::os::unix::fs::MetadataExt::ino(&file.metadata().unwrap()).to_string();
        let maps = std::fs::read_to_string("/proc/self/maps").unwrap();
        maps.lines().any(|l| l.contains("memfd:guest") && l.split_ascii_whitespace().nth(4) == Some(inode.as_str()))
    };
    let other = Arc::clone(&log);
    drop(log);
    assert!(maps());
    drop(other);
    assert!(!maps());
}

/// The front-end takes bits while we set them: none may be lost, neither ours nor its.
#[test]
fn no_mark_is_lost_to_a_front_end_that_takes_them_away() {
    let (_file, log) = log(1);
    let memory = memory(&[(0, 0x8000)]);
    let done = AtomicBool::new(false);
    std::thread::scope(|scope| {
        let writers: Vec<_> = (0..2u64)
            .map(|writer| {
                let (log, memory) = (&log, &memory);
                scope.spawn(move || {
                    for value in 1..=20_000u64 {
                        let at = (writer * 4 + value % 4) * 0x1000;
                        GuestWriter::new(memory, Some(log)).write(at, &value.to_le_bytes()).unwrap();
                    }
                })
            })
            .collect();
        let (log, memory, done) = (&log, &memory, &done);
        let copier = scope.spawn(move || {
            let mut copy = [[0u8; 8]; 8];
            loop {
                let last = done.load(Ordering::Acquire);
                let bits = take(log);
                for page in (0..8).filter(|page| bits & 1 << page != 0) {
                    memory.read(page * 0x1000, &mut copy[page as usize]).unwrap();
                }
                if last {
                    return copy;
                }
            }
        });
        writers.into_iter().for_each(|writer| writer.join().unwrap());
        done.store(true, Ordering::Release);
        let copy = copier.join().unwrap();
        for page in 0..8u64 {
            let mut now = [0; 8];
            memory.read(page * 0x1000, &mut now).unwrap();
            assert_eq!(copy[page as usize], now, "page {page}");
        }
    });
}

/// What the front-end does: takes all bits of the first byte.
#[allow(unsafe_code, reason = "test code")]
fn take(log: &DirtyLog) -> u8 {
    let byte = log.region.host().as_ptr();
    // SAFETY: the first byte of a mapped log.
    unsafe { super::AtomicU8::from_ptr(byte) }.swap(0, Ordering::SeqCst)
}

#[test]
fn writers_and_buffers_of_a_set_mark_what_its_log_says() {
    let map = memory(&[(0, 0x8000)]);
    let mut set = SnapshotSet::new(map);
    set.writer().write(0x1000, b"unlogged").unwrap();
    let (file, log) = log(1);
    set.set_log(Some(log));
    set.writer().write(0x2fff, b"two").unwrap();
    assert_eq!(bytes(&file, 1), [0b1100]);
    let buf = set.resolve(Direction::In, [(0x5800, 0x1000)].into_iter(), IoBuf::empty()).unwrap();
    set.release(buf);
    set.mark([(0x5800, 0x1000)].into_iter());
    assert_eq!(bytes(&file, 1), [0b0110_1100]);
    set.set_log(None);
    set.writer().write(0, b"unlogged").unwrap();
    set.mark([(0x7000, 1)].into_iter());
    assert_eq!(bytes(&file, 1), [0b0110_1100]);
}

/// A write that is only partly inside of memory may have been made in part.
#[test]
fn a_write_that_fails_is_marked() {
    let map = memory(&[(0, 0x1000)]);
    let (file, log) = log(1);
    assert!(GuestWriter::new(&map, Some(&log)).write(0xffe, b"half").is_err());
    assert_eq!(bytes(&file, 1)[0] & 1, 1);
}

proptest! {
    #![proptest_config(ProptestConfig { failure_persistence: None, ..ProptestConfig::default() })]

    /// Against the definition, page by page.
    #[test]
    fn exactly_the_pages_written_are_marked(
        size in 1..40u64,
        writes in proptest::collection::vec((0..50u64 * 8 * 4096, 0..9u64 * 4096), 1..12),
    ) {
        let (file, log) = log(size);
        let mut expected = vec![0u8; size as usize];
        for (gpa, len) in writes {
            log.mark(gpa, len);
            for page in (0..size * 8).filter(|page| len > 0 && page * 4096 < gpa + len && (page + 1) * 4096 > gpa) {
                expected[(page / 8) as usize] |= 1 << (page % 8);
            }
        }
        prop_assert_eq!(bytes(&file, size as usize), expected);
    }
}
