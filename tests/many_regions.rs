//! Guest memory in unusual shapes, behind the real `vstgt`: many regions, sparse memory beyond 1 TiB, huge pages, buffers
//! across regions, regions that come and go.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, missing_docs, reason = "test code")]

mod frontend;

use std::sync::Arc;

use frontend::guest::{LINUX_FEATURES, REQUESTS, pattern, rw10};
use frontend::ram::{Backing, memfd, preallocate};
use frontend::{BOUND, Buffer, Guest, Queue, Ram, Vstgt};
use vhost::VhostBackend;
use vhost::vhost_user::VhostUserFrontend;

const MIB: u64 = 1 << 20;
const GIB: u64 = 1 << 30;
const TIB: u64 = 1 << 40;

fn attach(vstgt: &Vstgt, ram: Ram) -> Guest {
    let mut guest = Guest::connect(vstgt.socket(0), ram);
    guest.negotiate();
    guest.start(LINUX_FEATURES, &[0, 1, 2], 128);
    guest.clear_attentions();
    guest
}

/// Writes from a buffer at one place and reads back into a buffer at another.
fn check_between(guest: &mut Guest, seed: u64, from: u64, to: u64, len: u32) {
    let data = pattern(seed, len as usize);
    guest.ram.write(from, &data);
    assert!(guest.command(&rw10(0x2a, 64, len as usize), &[Buffer::out(from, len)], &[]).good());
    guest.ram.write(to, &vec![0; len as usize]);
    assert!(guest.command(&rw10(0x28, 64, len as usize), &[], &[Buffer::input(to, len)]).good());
    assert!(guest.ram.read(to, len as usize) == data, "{len} bytes from {from:#x} to {to:#x}");
}

/// More regions than the 8 of a front-end that cannot add them one by one: 40, scattered, data in each of them.
#[test]
fn forty_regions_added_one_by_one() {
    let vstgt = Vstgt::start(1);
    let places: Vec<(u64, u64)> =
        std::iter::once((0, 16 * MIB)).chain((1..40).map(|i| (i * 7 * GIB, MIB + i * 4096))).collect();
    let mut guest = attach(&vstgt, Ram::with_regions(&places));
    let buffers: Vec<u64> = (0..40).map(|region| guest.ram.alloc_in(region, 8192)).collect();
    for (i, pair) in buffers.windows(2).enumerate() {
        check_between(&mut guest, i as u64, pair[0], pair[1], 8192);
    }
    // One command over all of them.
    let pieces: Vec<Buffer> = buffers.iter().map(|&at| Buffer::out(at, 1536)).collect();
    let all = pattern(4711, 40 * 1536);
    for (piece, data) in pieces.iter().zip(all.chunks(1536)) {
        guest.ram.write(piece.addr, data);
    }
    assert!(guest.command(&rw10(0x2a, 512, all.len()), &pieces, &[]).good());
    assert!(guest.read_blocks(512, all.len()) == all);
    // Half of them go, the rest serves on.
    (20..40).for_each(|region| guest.remove_region(region));
    check_between(&mut guest, 99, buffers[3], buffers[19], 8192);
    let answer = guest.command(&rw10(0x28, 0, 4096), &[], &[Buffer::input(buffers[30], 4096)]);
    assert!(!answer.good(), "memory that is gone is not written: {answer:?}");
    (20..40).for_each(|region| guest.add_region(region));
    check_between(&mut guest, 100, buffers[30], buffers[39], 8192);
}

/// As many as one message can carry.
#[test]
fn thirty_two_regions_in_one_table() {
    let vstgt = Vstgt::start(1);
    let places: Vec<(u64, u64)> = (0..32).map(|i| (i * GIB, 8 * MIB)).collect();
    let mut guest = Guest::connect(vstgt.socket(0), Ram::with_regions(&places));
    guest.negotiate();
    guest.set_features(LINUX_FEATURES);
    guest.set_table();
    guest.start_rings(&[0, 1, 2], 128);
    guest.clear_attentions();
    for i in 1..32 {
        let (from, to) = (guest.ram.alloc_in(i, 4096), guest.ram.alloc_in(32 - i, 4096));
        check_between(&mut guest, i as u64, from, to, 4096);
    }
}

/// As many as GET_MAX_MEM_SLOTS promises.
#[test]
fn every_slot() {
    let vstgt = Vstgt::start(1);
    let file = Arc::new(memfd(64 * MIB, 0).unwrap());
    let backings = (0..509)
        .map(|i| {
            let (size, offset) = if i == 0 { (16 * MIB, 0) } else { (64 * 1024, 16 * MIB + i * 64 * 1024) };
            Backing { guest: i * GIB, size, file: Arc::clone(&file), offset }
        })
        .collect();
    let mut guest = attach(&vstgt, Ram::from_backings(backings).unwrap());
    for i in [1, 2, 63, 64, 65, 255, 256, 507, 508] {
        let at = guest.ram.alloc_in(i, 4096);
        let low = guest.ram.alloc(4096);
        check_between(&mut guest, i as u64, at, low, 4096);
        check_between(&mut guest, i as u64, low, at, 4096);
    }
    // The slots above 64 are told apart when memory goes.
    (400..509).for_each(|region| guest.remove_region(region));
    guest.check_io(3);
}

/// One sparse region of 1.5 TiB; rings and buffers at both of its ends.
#[test]
fn a_region_of_more_than_one_tebibyte() {
    let vstgt = Vstgt::start(1);
    let size = TIB + TIB / 2;
    let mut guest = attach(&vstgt, Ram::with_regions(&[(0, 16 * MIB), (4 * GIB, size)]));
    let far = 4 * GIB + size - MIB;
    let middle = 4 * GIB + TIB - 2048;
    let low = guest.ram.alloc(65536);
    check_between(&mut guest, 1, far, low, 65536);
    check_between(&mut guest, 2, low, far + 65536, 65536);
    check_between(&mut guest, 3, middle, far, 4096);
    let answer = guest.command(&rw10(0x28, 0, 4096), &[], &[Buffer::input(4 * GIB + size - 512, 4096)]);
    assert!(!answer.good(), "past the end: {answer:?}");
}

/// Guest addresses far above 1 TiB, rings included.
#[test]
fn rings_at_high_addresses() {
    let vstgt = Vstgt::start(1);
    let mut guest = attach(&vstgt, Ram::with_regions(&[(3 * TIB, 16 * MIB), ((1 << 46) - GIB, 16 * MIB)]));
    guest.check_io(1);
    let top = guest.ram.alloc_in(1, 4096);
    let low = guest.ram.alloc(4096);
    assert!(low >= 3 * TIB && top > 1 << 45);
    check_between(&mut guest, 2, top, low, 4096);
}

/// Buffers over the boundary of adjoining regions, in different files that are far apart here.
#[test]
fn buffers_across_regions() {
    let vstgt = Vstgt::start(1);
    let mut guest = attach(&vstgt, Ram::with_regions(&[(0, 16 * MIB), (16 * MIB, MIB), (17 * MIB, MIB)]));
    let low = guest.ram.alloc(2 * MIB);
    check_between(&mut guest, 1, 16 * MIB - 2048, low, 4096);
    check_between(&mut guest, 2, low, 17 * MIB - 512, 65536);
    // Three regions in one buffer.
    check_between(&mut guest, 3, 16 * MIB - 512, low, (MIB + 1024) as u32);
    // A request's header and response across a boundary.
    let header = 16 * MIB - 20;
    let response = 17 * MIB - 50;
    guest.submit_at(REQUESTS, header, response, &[0; 6], &[], &[]);
    guest.queue(REQUESTS).wait_used(BOUND).expect("an answer");
    assert!(guest.parse_response(response, 0).good());
}

/// A region that begins and ends inside a page of its file.
#[test]
fn regions_at_odd_offsets() {
    let vstgt = Vstgt::start(1);
    let file = Arc::new(memfd(32 * MIB, 0).unwrap());
    let whole = Backing { guest: 0, size: 16 * MIB, file: Arc::clone(&file), offset: 0 };
    // A machine monitor maps whole pages; the guest is shown what begins at an offset that is one.
    let part = Backing { guest: GIB, size: 3 * 4096, file, offset: 20 * MIB + 4096 };
    let mut guest = attach(&vstgt, Ram::from_backings(vec![whole, part]).unwrap());
    let low = guest.ram.alloc(8192);
    check_between(&mut guest, 1, GIB + 4096, low, 8192);
    check_between(&mut guest, 2, low, GIB + 100 * 4, 8192);
}

/// Rings in one region, and that region replaced by its two halves while I/O runs, as QEMU does when firmware changes what is
/// RAM below 1 MiB.
#[test]
fn a_region_split_under_io() {
    let vstgt = Vstgt::start(1);
    let file = Arc::new(memfd(32 * MIB, 0).unwrap());
    let backing = |guest, size, offset| Backing { guest, size, file: Arc::clone(&file), offset };
    let mut guest = attach(&vstgt, Ram::from_backings(vec![backing(0, 32 * MIB, 0)]).unwrap());
    let data = guest.ram.alloc(MIB);
    for round in 0..20u64 {
        for i in 0..8 {
            let at = data + i * 65536;
            guest.ram.write(at, &pattern(round * 8 + i, 65536));
            guest.submit(REQUESTS, &rw10(0x2a, i as u32 * 128, 65536), &[Buffer::out(at, 65536)], &[]);
        }
        // The same addresses in the front-end as before, so the rings are where they were.
        let user = guest.ram.regions[0].user;
        let half = |n: u64| vhost::VhostUserMemoryRegionInfo {
            guest_phys_addr: n * 16 * MIB,
            memory_size: 16 * MIB,
            userspace_addr: user + n * 16 * MIB,
            mmap_offset: n * 16 * MIB,
            mmap_handle: guest.ram.fds()[0],
        };
        let (low, high) = (half(0), half(1));
        guest.remove_region(0);
        guest.frontend.add_mem_region(&high).unwrap();
        guest.frontend.add_mem_region(&low).unwrap();
        for _ in 0..8 {
            guest.queue(REQUESTS).wait_used(BOUND).expect("an answer");
        }
        for i in 0..8u64 {
            let expected = pattern(round * 8 + i, 65536);
            assert!(guest.read_blocks(i as u32 * 128, 65536) == expected, "round {round}");
        }
        guest.frontend.remove_mem_region(&low).unwrap();
        guest.frontend.remove_mem_region(&high).unwrap();
        guest.add_region(0);
        guest.ram.release(data + MIB - guest.ram.regions[0].guest);
    }
}

/// Huge pages, from the kernel's pool if it has any. Where it has none the kernel's refusal is shown, and that is all that can be
/// tested here.
#[test]
fn huge_pages() {
    const SIZE: u64 = 16 * MIB;
    let huge = memfd(SIZE, libc::MFD_HUGETLB | libc::MFD_HUGE_2MB).and_then(|file| {
        // To map it proves nothing, only to touch it does: so the pages are taken from the pool beforehand.
        preallocate(&file, SIZE)?;
        Ok(Arc::new(file))
    });
    let ram = huge.and_then(|file| Ram::from_backings(vec![Backing { guest: 0, size: SIZE, file, offset: 0 }]));
    let ram = match ram {
        Ok(ram) => ram,
        Err(e) => {
            let pool = std::fs::read_to_string("/proc/sys/vm/nr_hugepages").unwrap_or_default();
            // Whoever promised huge pages shall hear that there are none.
            assert!(std::env::var_os("VSTGT_TEST_HUGE_PAGES").is_none(), "{e}; the pool has {} pages", pool.trim());
            println!("no huge pages here ({e}); the pool has {} pages: nothing tested", pool.trim());
            return;
        }
    };
    let vstgt = Vstgt::start(1);
    let mut guest = attach(&vstgt, ram);
    guest.check_io(1);
    let (from, to) = (guest.ram.alloc(65536), guest.ram.alloc(65536));
    check_between(&mut guest, 2, from, to, 65536);
    println!("huge pages tested");
}

/// Rings of every size, in memory of their own.
#[test]
fn ring_sizes() {
    let vstgt = Vstgt::start(1);
    for size in [4u16, 8, 16, 32, 64, 128, 256, 512, 1024] {
        let mut guest = Guest::connect(vstgt.socket(0), Ram::with_regions(&[(0, 16 * MIB), (8 * GIB, 4 * MIB)]));
        guest.negotiate();
        guest.set_features(LINUX_FEATURES);
        guest.add_region(0);
        guest.add_region(1);
        let queue = Queue::new_in(&guest.ram, 1, REQUESTS, size, true);
        guest.set_up(&queue);
        guest.frontend.set_vring_kick(2, &queue.kick).unwrap();
        guest.frontend.set_vring_call(2, &queue.call).unwrap();
        guest.queues.push(queue);
        guest.frontend.set_vring_enable(2, true).unwrap();
        guest.clear_attentions();
        guest.check_io(size.into());
        // As many at once as there are descriptors for.
        let fits = usize::from(size) / 2;
        let mark = guest.ram.mark();
        for _ in 0..fits {
            guest.submit(REQUESTS, &[0; 6], &[], &[]);
        }
        for _ in 0..fits {
            guest.queue(REQUESTS).wait_used(BOUND).expect("an answer");
        }
        guest.ram.release(mark);
        assert_eq!(guest.queue(REQUESTS).outstanding(), 0);
        guest.stop();
    }
}
