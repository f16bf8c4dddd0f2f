//! Memory tables, and files behind guest memory.

use super::*;

/// Memory that is not what it is said to be.
#[test]
fn memory() {
    let mut scene = Scene::new();
    let file = memfd(0x10000, 0).unwrap();
    let region = |guest, size, offset| WireRegion { guest, size, user: guest / 2, offset };
    let cases = [
        ("larger than its file", region(1 << 32, 0x10001, 0)),
        ("an offset past the file", region(1 << 32, 0x1000, 0x10000)),
        ("an offset that overflows", region(1 << 32, 0x1000, u64::MAX - 0xfff)),
        ("a size that overflows", region(1 << 32, u64::MAX, 0)),
        ("2^63 bytes", region(1 << 32, 1 << 63, 0)),
        ("no bytes", region(1 << 32, 0, 0)),
        ("an address that overflows", region(u64::MAX - 0xfff, 0x2000, 0)),
        ("over memory that is there", region(RAM - 0x1000, 0x2000, 0)),
    ];
    for (what, region) in cases {
        let guest = scene.guest();
        let reply =
            guest.wire.try_send(ADD_MEM_REG as u32, VERSION | NEED_REPLY, &Wire::single(&region), &[file.as_raw_fd()]);
        reply.unwrap();
        guest.wire.assert_closed();
        drop(guest);
        scene.check(what);
    }
    // So many regions that the promise is exceeded.
    let guest = raw(scene.vstgt.socket(0), &Ram::new(RAM));
    guest.wire.get(GET_PROTOCOL_FEATURES);
    guest.wire.set_u64(SET_PROTOCOL_FEATURES, PROTOCOL_BITS);
    guest.wire.set_u64(SET_FEATURES, LINUX_FEATURES);
    for i in 0..509 {
        let body = Wire::single(&region(i << 20, 0x1000, 0));
        assert_eq!(guest.wire.acked(ADD_MEM_REG, &body, &[file.as_raw_fd()]), 0, "region {i}");
    }
    let body = Wire::single(&region(509 << 20, 0x1000, 0));
    assert_eq!(guest.wire.acked(ADD_MEM_REG, &body, &[file.as_raw_fd()]), 1);
    drop(guest);
    scene.check("510 regions");
    scene.end();
}

/// The memory file shrinks under the rings, and under data only.
#[test]
fn memory_that_shrinks() {
    let mut scene = Scene::new();
    // Everything is in the file that shrinks: rings, requests, data.
    for round in 0..3 {
        let mut guest = scene.guest();
        let at = guest.ram.alloc(65536);
        for i in 0..8 {
            guest.submit(REQUESTS, &rw10(0x28, i * 128, 65536), &[], &[Buffer::input(at, 65536)]);
        }
        // From here on nothing here may touch guest memory itself.
        guest.ram.files[0].set_len(0).unwrap();
        for _ in 0..10 {
            let queue = guest.queues.iter().find(|queue| queue.index == REQUESTS).unwrap();
            queue.kick();
            std::thread::sleep(Duration::from_millis(5));
        }
        if round == 0 {
            guest.wire.assert_closed();
        }
        drop(guest);
        scene.check("memory that shrinks under its rings");
    }
    // Only data is in it.
    let ram = Ram::with_regions(&[(0, RAM), (1 << 32, RAM)]);
    let mut guest = Guest::connect(scene.vstgt.socket(0), ram);
    guest.negotiate();
    guest.start(LINUX_FEATURES, &[0, 1, 2], 128);
    guest.clear_attentions();
    let at = guest.ram.alloc_in(1, 65536);
    guest.ram.files[1].set_len(0).unwrap();
    for cdb in [&rw10(0x28, 0, 65536)[..], &[0x12, 0, 0, 0, 255, 0], &rw10(0x28, 0, 65536)] {
        guest.submit(REQUESTS, cdb, &[], &[Buffer::input(at, 65536)]);
        let outcome = outcome_on(&mut guest, REQUESTS);
        println!("data in memory that shrank: {outcome:?}");
        if outcome == Outcome::Closed {
            break;
        }
    }
    drop(guest);
    scene.check("memory that shrinks under its data");
    scene.end();
}

/// A file that is shared with another guest's memory or grows is no matter; one that is read-only is refused.
#[test]
fn memory_that_cannot_be_written() {
    let mut scene = Scene::new();
    let path = scene.vstgt.dir.path().join("ram");
    std::fs::write(&path, vec![0; RAM as usize]).unwrap();
    let file = std::fs::File::open(&path).unwrap();
    let guest = scene.guest();
    let region = WireRegion { guest: 1 << 32, size: RAM, user: 1 << 40, offset: 0 };
    guest.wire.try_send(ADD_MEM_REG as u32, VERSION, &Wire::single(&region), &[file.as_raw_fd()]).unwrap();
    guest.wire.assert_closed();
    drop(guest);
    scene.check("read-only memory");
    scene.end();
}

/// A memory file whose pages are shared by two regions: the guest sees the same memory twice, which is its own affair.
#[test]
fn aliased_memory() {
    let vstgt = Vstgt::start(1);
    let file = Arc::new(memfd(RAM, 0).unwrap());
    let backing = |guest| Backing { guest, size: RAM, file: Arc::clone(&file), offset: 0 };
    let ram = Ram::from_backings(vec![backing(0), backing(1 << 32)]).unwrap();
    let mut guest = Guest::connect(vstgt.socket(0), ram);
    guest.negotiate();
    guest.start(LINUX_FEATURES, &[0, 1, 2], 128);
    guest.clear_attentions();
    guest.check_io(1);
    let at = guest.ram.alloc(4096);
    guest.ram.write(at, &pattern(8, 4096));
    assert!(guest.command(&rw10(0x2a, 0, 4096), &[Buffer::out((1 << 32) + at, 4096)], &[]).good());
    assert_eq!(guest.read_blocks(0, 4096), pattern(8, 4096));
}
