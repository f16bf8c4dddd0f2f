//! The buffer as a file: what is written there, byte by byte, and what becomes of a file that was not written by us.

use std::os::unix::fs::FileExt;

use super::*;
use crate::mem::testing::memfd;

const SIZE: u16 = 8;
/// Bytes of a region: 16 and 16 for each state, to whole 64s.
const REGION: u64 = 192;

fn create() -> (VhostUserInflight, File) {
    Buffer::create(&VhostUserInflight::new(0, 0, 3, SIZE)).unwrap()
}

fn open(inflight: &VhostUserInflight, file: &File) -> Buffer {
    Buffer::open(inflight, file.try_clone().unwrap()).unwrap()
}

fn bytes(file: &File, at: u64, len: usize) -> Vec<u8> {
    let mut bytes = vec![0; len];
    file.read_exact_at(&mut bytes, at).unwrap();
    bytes
}

/// Ring 1, taken over where used.idx stands at `used_idx`.
fn ring(buffer: &Buffer, used_idx: u16) -> (InflightRing, Recovered) {
    let mut ring = buffer.ring(1, SIZE).unwrap();
    let recovered = ring.recover(used_idx);
    (ring, recovered)
}

fn heads(buffer: &Buffer, used_idx: u16) -> Vec<u16> {
    let recovered = ring(buffer, used_idx).1;
    assert_eq!(recovered.defect, None);
    recovered.owed.into_iter().map(|owed| owed.head).collect()
}

#[test]
fn the_file_is_sealed_and_as_large_as_it_says() {
    let (inflight, file) = create();
    assert_eq!((inflight.num_queues, inflight.queue_size, inflight.mmap_offset), (3, SIZE, 0));
    assert_eq!(file.metadata().unwrap().len(), inflight.mmap_size);
    assert!(file.set_len(0).is_err());
    assert!(open(&inflight, &file).tail);
}

/// "Inflight I/O tracking": the states of a split virtqueue, after each step.
#[test]
fn what_is_written_when() {
    let (inflight, file) = create();
    let buffer = open(&inflight, &file);
    assert_eq!(bytes(&file, REGION, 16), [0; 16], "nobody has set it up");
    let (mut ring, recovered) = ring(&buffer, 0x1234);
    assert_eq!(recovered, Recovered::default());
    let header = |last: u16, used: u16| {
        let mut header = vec![0; 8];
        [1, SIZE, last, used].iter().for_each(|field| header.extend(field.to_le_bytes()));
        header
    };
    assert_eq!(bytes(&file, REGION, 16), header(0, 0x1234));
    let state = |head: u64| bytes(&file, REGION + 16 + 16 * head, 16);
    let expected = |inflight: u8, next: u8, counter: u8| {
        [[inflight, 0, 0, 0, 0, 0, next, 0], [counter, 0, 0, 0, 0, 0, 0, 0]].concat()
    };

    ring.begin(5);
    ring.begin(2);
    ring.begin(7);
    assert_eq!([state(5), state(2), state(7)], [expected(1, 0, 1), expected(1, 0, 2), expected(1, 0, 3)]);
    ring.end(2);
    ring.end(5);
    assert_eq!([state(5), state(2)], [expected(1, 2, 1), expected(1, 0, 2)], "linked, not over");
    assert_eq!(bytes(&file, REGION, 16), header(5, 0x1234));
    ring.published(0x1236, |_| false);
    assert_eq!([state(5), state(2), state(7)], [expected(0, 2, 1), expected(0, 0, 2), expected(1, 0, 3)]);
    assert_eq!(bytes(&file, REGION, 16), header(5, 0x1236));
    // Nothing of the neighbours was touched.
    assert_eq!(bytes(&file, 0, REGION as usize), [0; REGION as usize]);
    assert_eq!(bytes(&file, 2 * REGION, REGION as usize), [0; REGION as usize]);
}

#[test]
fn what_is_in_flight_comes_back_in_the_order_in_which_it_was_taken() {
    let (inflight, file) = create();
    let buffer = open(&inflight, &file);
    let (mut first, _) = ring(&buffer, 0);
    [6, 1, 4, 0].iter().for_each(|head| first.begin(*head));
    first.end(1);
    first.published(1, |_| false);
    drop(first);
    assert!(buffer.is_owed(1) && !buffer.is_owed(0));
    assert_eq!(heads(&buffer, 1), [6, 4, 0]);
    // The next one, too, may be killed before it has done anything, and after it has taken more.
    let (mut second, recovered) = ring(&buffer, 1);
    assert_eq!(recovered.owed.len(), 3);
    second.begin(1);
    assert_eq!(heads(&buffer, 1), [6, 4, 0, 1]);
}

/// Killed when used.idx was raised and the batch not marked: as much of it is over as was published, and not what was in earlier batches.
#[test]
fn a_batch_that_was_published_is_over() {
    let (inflight, file) = create();
    let buffer = open(&inflight, &file);
    let (mut first, _) = ring(&buffer, 0xffff);
    (0..6).for_each(|head| first.begin(head));
    first.end(5);
    first.published(0, |_| false);
    first.end(3);
    first.end(0);
    assert_eq!(heads(&buffer, 0), [0, 1, 2, 3, 4], "not published");
    // used.idx stands at 2.
    assert_eq!(heads(&buffer, 2), [1, 2, 4]);
    assert_eq!(heads(&buffer, 2), [1, 2, 4], "and it was written down");
}

/// Counters name uses of heads: none comes again, even if nothing was in flight.
#[test]
fn counters_go_on() {
    let (inflight, file) = create();
    let buffer = open(&inflight, &file);
    let (mut first, _) = ring(&buffer, 0);
    (0..3).for_each(|head| first.begin(head));
    (0..3).for_each(|head| first.end(head));
    first.published(3, |_| false);
    let (mut second, recovered) = ring(&buffer, 3);
    assert!(recovered.owed.is_empty());
    second.begin(0);
    assert_eq!(bytes(&file, REGION + 16 + 8, 8), 4u64.to_le_bytes());
}

#[test]
fn a_head_that_is_in_flight_again_when_its_batch_is_published_stays_so() {
    let (inflight, file) = create();
    let buffer = open(&inflight, &file);
    let (mut first, _) = ring(&buffer, 0);
    first.begin(4);
    first.begin(3);
    first.end(4);
    first.end(3);
    first.begin(4);
    first.published(2, |head| head == 4);
    assert_eq!(heads(&buffer, 2), [4]);
}

/// The account of another life of the ring (a reset that nobody told of), of another layout, or nonsense.
#[test]
fn an_account_that_cannot_be_right_says_nothing() {
    let taken = |file: &File, inflight: &VhostUserInflight| {
        let buffer = open(inflight, file);
        let (mut first, _) = ring(&buffer, 100);
        (0..4).for_each(|head| first.begin(head));
        buffer
    };
    let cases: [(&str, u64, u16); 3] = [("version", 8, 2), ("desc_num", 10, 9), ("used_idx", 14, 50)];
    for (what, at, value) in cases {
        let (inflight, file) = create();
        let buffer = taken(&file, &inflight);
        file.write_all_at(&value.to_le_bytes(), REGION + at).unwrap();
        let (mut again, recovered) = ring(&buffer, 100);
        assert!(recovered.owed.is_empty() && recovered.defect.is_some(), "{what}: {recovered:?}");
        // It is a good one from then on.
        again.begin(2);
        assert_eq!(heads(&buffer, 100), [2], "{what}");
    }
}

/// Garbage in every field: nothing is looked up outside, nothing goes on for ever, and no head comes twice or is none.
#[test]
fn garbage_is_harmless() {
    let (inflight, file) = create();
    let buffer = open(&inflight, &file);
    let mut state = 1u64;
    for round in 0..2000u32 {
        let mut garbage = vec![0u8; REGION as usize];
        garbage.iter_mut().for_each(|byte| {
            state = state.wrapping_mul(6364136223846793005).wrapping_add(1442695040888963407);
            *byte = (state >> 56) as u8;
        });
        // Right in what is looked at first, so that the rest is looked at, too.
        garbage[8..12].copy_from_slice(&[1, 0, SIZE as u8, 0]);
        garbage[14..16].copy_from_slice(&(round as u16 % 12).to_le_bytes());
        if round % 2 == 0 {
            // A list that goes round.
            garbage[12..14].copy_from_slice(&[3, 0]);
            garbage[16 + 16 * 3 + 6..][..2].copy_from_slice(&[4, 0]);
            garbage[16 + 16 * 4 + 6..][..2].copy_from_slice(&[3, 0]);
        }
        if round % 3 == 0 {
            garbage[16 + 8..][..8].copy_from_slice(&[0xff; 8]);
        }
        file.write_all_at(&garbage, REGION).unwrap();
        let mut small = buffer.ring(1, 4).unwrap();
        let mut heads: Vec<u16> = small.recover(11).owed.iter().map(|owed| owed.head).collect();
        heads.sort_unstable();
        heads.dedup();
        assert!(heads.iter().all(|head| *head < 4));
        let (mut ring, recovered) = ring(&buffer, 11);
        let mut heads: Vec<u16> = recovered.owed.iter().map(|owed| owed.head).collect();
        heads.sort_unstable();
        heads.dedup();
        assert_eq!(heads.len(), recovered.owed.len());
        assert!(heads.iter().all(|head| *head < SIZE));
        // No head, either, that the ring could never give.
        ring.begin(u16::MAX);
        ring.end(u16::MAX);
        ring.published(12, |_| false);
    }
    assert_eq!(bytes(&file, 0, REGION as usize), [0; REGION as usize]);
    assert_eq!(bytes(&file, 2 * REGION, REGION as usize), [0; REGION as usize]);
}

#[test]
fn a_ring_that_the_buffer_has_no_room_for_has_no_account() {
    let (inflight, file) = create();
    let buffer = open(&inflight, &file);
    assert!(buffer.ring(3, SIZE).is_none() && buffer.ring(0, 2 * SIZE).is_none());
    assert!(buffer.ring(2, SIZE / 2).is_some());
}

#[test]
fn messages_that_cannot_be() {
    for (rings, size) in [(257, 8), (3, 1025), (u16::MAX, u16::MAX)] {
        assert!(Buffer::create(&VhostUserInflight::new(0, 0, rings, size)).is_err());
    }
    let (inflight, file) = create();
    let len = inflight.mmap_size;
    let cases = [
        ("more than the file", VhostUserInflight::new(len + 1, 0, 3, SIZE)),
        ("behind the file", VhostUserInflight::new(len, 4096, 3, SIZE)),
        ("an offset that overflows", VhostUserInflight::new(len, u64::MAX - 7, 3, SIZE)),
        ("not aligned", VhostUserInflight::new(len - 4, 4, 3, SIZE)),
        ("no room for the regions", VhostUserInflight::new(3 * REGION - 1, 0, 3, SIZE)),
        ("nothing", VhostUserInflight::new(0, 0, 3, SIZE)),
        ("huge", VhostUserInflight::new(1 << 40, 0, 3, SIZE)),
        ("too many rings", VhostUserInflight::new(len, 0, 300, SIZE)),
    ];
    for (what, message) in cases {
        assert!(Buffer::open(&message, file.try_clone().unwrap()).is_err(), "{what}");
    }
    let (reader, _writer) = std::io::pipe().unwrap();
    let pipe = File::from(std::os::fd::OwnedFd::from(reader));
    assert!(Buffer::open(&inflight, pipe).is_err());
}

/// The specification's part alone, or another version's tail: it is honoured, and the tail is left alone.
#[test]
fn somebody_elses_buffer() {
    let (inflight, _) = create();
    let standard = 3 * REGION;
    let file = memfd(standard);
    let buffer = open(&VhostUserInflight::new(standard, 0, 3, SIZE), &file);
    assert!(!buffer.tail);
    let (mut first, _) = ring(&buffer, 0);
    first.begin(3);
    assert_eq!(heads(&buffer, 0), [3]);
    for (at, value) in [(0, [b'x'; 4]), (8, [2, 0, 0, 0]), (12, [64, 0, 0, 0]), (16, [4, 0, 8, 0])] {
        let (_, file) = create();
        file.write_all_at(&value, standard + at).unwrap();
        assert!(!open(&inflight, &file).tail, "{at}");
    }
    // At an offset in a larger file.
    let (_, ours) = create();
    let file = memfd(8192);
    let whole = bytes(&ours, 0, inflight.mmap_size as usize);
    file.set_len(4096 + inflight.mmap_size).unwrap();
    file.write_all_at(&whole, 4096).unwrap();
    assert!(open(&VhostUserInflight::new(inflight.mmap_size, 4096, 3, SIZE), &file).tail);
}

/// Notes are about the chain that was in flight when they were made, and about no other one that begins there.
#[test]
fn notes() {
    let earlier = |buffer: &Buffer, used_idx: u16| -> Vec<(u16, Earlier)> {
        ring(buffer, used_idx).1.owed.iter().map(|owed| (owed.head, owed.earlier)).collect()
    };
    let (inflight, file) = create();
    let buffer = open(&inflight, &file);
    let (mut first, _) = ring(&buffer, 0);
    let notes = Arc::clone(first.notes().unwrap());
    [3, 4, 5, 6].iter().for_each(|head| first.begin(*head));
    notes.decided(3, 77);
    notes.decided(4, u64::MAX);
    notes.decided(4, 0);
    notes.decided(5, 1);
    notes.answered(5, 108);
    notes.decided(6, 1);
    notes.decided(6, 2);
    let expected =
        [(3, Earlier::Decided(77)), (4, Earlier::Nothing), (5, Earlier::Answered(108)), (6, Earlier::Decided(2))];
    assert_eq!(earlier(&buffer, 0), expected);
    assert_eq!(earlier(&buffer, 0), expected, "however often it is asked");
    // The next chain that begins there.
    let (mut second, _) = ring(&buffer, 0);
    second.end(3);
    second.end(5);
    second.published(2, |_| false);
    second.begin(5);
    second.begin(3);
    let expected = [(4, Earlier::Nothing), (6, Earlier::Decided(2)), (5, Earlier::Nothing), (3, Earlier::Nothing)];
    assert_eq!(earlier(&buffer, 2), expected);
    // Literally, behind header and the slots of ring 0: the counter's word, the decision, the length.
    let slots = 3 * REGION + 64 + 32 * u64::from(SIZE);
    notes.answered(3, 0x0102_0304);
    notes.decided(4, 0x1122_3344_5566_7788);
    let counter = |head: u64| u64::from_le_bytes(bytes(&file, REGION + 16 + 16 * head + 8, 8).try_into().unwrap());
    assert_eq!(bytes(&file, slots + 32 * 3, 8), (counter(3) << 2 | 2).to_le_bytes());
    assert_eq!(bytes(&file, slots + 32 * 3 + 16, 4), [4, 3, 2, 1]);
    assert_eq!(bytes(&file, slots + 32 * 4, 8), (counter(4) << 2 | 1).to_le_bytes());
    assert_eq!(bytes(&file, slots + 32 * 4 + 8, 8), 0x1122_3344_5566_7788u64.to_le_bytes());
    // No head that there is not.
    notes.answered(SIZE, 1);
    notes.decided(u16::MAX, 1);
}

/// A file that is not sealed, shrunk under us: nothing is known any more, and nothing else happens.
#[test]
fn a_file_that_is_shrunk() {
    let file = memfd(4096);
    let buffer = open(&VhostUserInflight::new(4096, 0, 3, SIZE), &file);
    let (mut first, _) = ring(&buffer, 0);
    first.begin(3);
    file.set_len(0).unwrap();
    first.begin(4);
    first.end(3);
    first.published(1, |_| false);
    assert!(!buffer.is_owed(0));
    drop(ring(&buffer, 1));
}
