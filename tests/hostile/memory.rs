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
    scene.end();
}

/// What can no longer be moved did not succeed, and says so; or the connection is over before it can.
#[test]
fn data_that_shrinks() {
    let mut scene = Scene::new();
    let ram = Ram::with_regions(&[(0, RAM), (1 << 32, RAM)]);
    let mut guest = Guest::connect(scene.vstgt.socket(0), ram);
    guest.negotiate();
    guest.start(LINUX_FEATURES, &[0, 1, 2], 128);
    guest.clear_attentions();
    let at = guest.ram.alloc_in(1, 65536);
    guest.ram.files[1].set_len(0).unwrap();
    // It is the kernel that moves these: the medium is not to blame.
    for opcode in [0x28, 0x2a] {
        let data = Buffer { addr: at, len: 65536, write: opcode == 0x28 };
        let (out, input) = if data.write { (&[][..], &[data][..]) } else { (&[data][..], &[][..]) };
        let (_, response) = guest.submit(REQUESTS, &rw10(opcode, 4096, 65536), out, input);
        let Outcome::Used(_, len) = outcome_on(&mut guest, REQUESTS) else { panic!("answered") };
        let answer = guest.parse_response(response, len);
        assert_eq!(answer.sense_code(), Some((0xb, 0x4b, 0)), "ABORTED COMMAND, DATA PHASE ERROR: {answer:?}");
    }
    // And this is moved by us, who see that it is gone.
    guest.submit(REQUESTS, &[0x12, 0, 0, 0, 255, 0], &[], &[Buffer::input(at, 65536)]);
    guest.wire.assert_closed();
    drop(guest);
    scene.check("memory that shrinks under its data");
    scene.end();
}

/// It shrinks, grows, and gets holes, while commands move data from and to it.
#[test]
fn memory_that_changes_under_commands() {
    let mut scene = Scene::new();
    for holes in [true, false] {
        let ram = Ram::with_regions(&[(0, RAM), (1 << 32, RAM)]);
        let mut guest = Guest::connect(scene.vstgt.socket(0), ram);
        guest.negotiate();
        guest.start(LINUX_FEATURES, &[0, 1, 2], 128);
        guest.clear_attentions();
        let at = guest.ram.alloc_in(1, 1 << 20);
        let file = Arc::clone(&guest.ram.files[1]);
        let stop = Arc::new(AtomicBool::new(false));
        let stopped = Arc::clone(&stop);
        let changer = std::thread::spawn(move || {
            while !stopped.load(Ordering::Relaxed) {
                if holes {
                    let (keep, punch) = (libc::FALLOC_FL_KEEP_SIZE, libc::FALLOC_FL_PUNCH_HOLE);
                    // SAFETY: fallocate takes integers only.
                    #[allow(unsafe_code, reason = "there is no safe way to punch a hole")]
                    let rc = unsafe { libc::fallocate(file.as_raw_fd(), keep | punch, 0, RAM as libc::off_t) };
                    assert_eq!(rc, 0);
                } else {
                    file.set_len(0).unwrap();
                    file.set_len(RAM).unwrap();
                }
            }
        });
        let (mut good, mut bad) = (0, 0);
        let start = Instant::now();
        'over: while start.elapsed() < Duration::from_secs(1) {
            let mark = guest.ram.mark();
            // Reads only: what a write of zeros would do to the disk is the guest's own affair.
            let sent: Vec<_> = (0..16)
                .map(|i| {
                    guest.submit(
                        REQUESTS,
                        &rw10(0x28, i * 128, 65536),
                        &[],
                        &[Buffer::input(at + u64::from(i) * 65536, 65536)],
                    )
                })
                .collect();
            for _ in &sent {
                match outcome_on(&mut guest, REQUESTS) {
                    Outcome::Used(..) => {}
                    Outcome::Broken | Outcome::Closed => break 'over,
                }
            }
            for (_, response) in sent {
                if guest.parse_response(response, 108).good() {
                    good += 1;
                } else {
                    bad += 1;
                }
            }
            guest.ram.release(mark);
            scene.assert_undisturbed("memory that changes under commands");
        }
        println!("holes {holes}: {good} good, {bad} bad");
        assert!(!holes || bad == 0, "a hole is memory as any other");
        stop.store(true, Ordering::Relaxed);
        changer.join().unwrap();
        drop(guest);
        scene.check("memory that changes under commands");
    }
    scene.end();
}

/// Seals (fcntl(2) F_ADD_SEALS): against shrinking, as QEMU may set them, is welcome; against writing, the memory is of no use.
#[test]
fn sealed_memory() {
    let mut scene = Scene::new();
    let sealed = |seals: libc::c_int| {
        let file = memfd(RAM, libc::MFD_ALLOW_SEALING).unwrap();
        // SAFETY: fcntl with F_ADD_SEALS takes an integer.
        #[allow(unsafe_code, reason = "there is no safe way to seal a memory file")]
        let rc = unsafe { libc::fcntl(file.as_raw_fd(), libc::F_ADD_SEALS, seals) };
        assert_eq!(rc, 0);
        file
    };
    let body = Wire::single(&WireRegion { guest: 1 << 32, size: RAM, user: 1 << 40, offset: 0 });
    for seals in [libc::F_SEAL_WRITE, libc::F_SEAL_FUTURE_WRITE] {
        let guest = scene.guest();
        assert_eq!(guest.wire.acked(ADD_MEM_REG, &body, &[sealed(seals).as_raw_fd()]), 1);
        guest.wire.assert_closed();
        drop(guest);
        scene.check("memory sealed against writing");
    }
    let mut guest = scene.guest();
    let file = sealed(libc::F_SEAL_SHRINK | libc::F_SEAL_GROW | libc::F_SEAL_SEAL);
    assert_eq!(guest.wire.acked(ADD_MEM_REG, &body, &[file.as_raw_fd()]), 0);
    assert!(guest.test_unit_ready().good());
    drop(guest);
    scene.check("memory sealed against shrinking");
    scene.end();
}

/// Descriptors that are no memory, and files whose pages somebody else would have to bring.
#[test]
fn memory_that_is_none() {
    let mut scene = Scene::new();
    let (reader, writer) = std::io::pipe().unwrap();
    let (socket, _other) = UnixStream::pair().unwrap();
    let open = |path: &str, write| std::fs::File::options().read(true).write(write).open(path).unwrap();
    let directory = open("/", false);
    let null = open("/dev/zero", true);
    let memory = open("/proc/self/mem", true);
    let event = vmm_sys_util::eventfd::EventFd::new(0).unwrap();
    let body = Wire::single(&WireRegion { guest: 1 << 32, size: 4096, user: 1 << 40, offset: 0 });
    let kinds: [(&str, RawFd); 7] = [
        ("a pipe's end to read", reader.as_raw_fd()),
        ("a pipe's end to write", writer.as_raw_fd()),
        ("a socket", socket.as_raw_fd()),
        ("a directory", directory.as_raw_fd()),
        ("a device", null.as_raw_fd()),
        ("a file of /proc", memory.as_raw_fd()),
        ("an eventfd", event.as_raw_fd()),
    ];
    for (what, fd) in kinds {
        let guest = scene.guest();
        assert_eq!(guest.wire.acked(ADD_MEM_REG, &body, &[fd]), 1, "{what}");
        guest.wire.assert_closed();
        drop(guest);
        scene.check(what);
    }
    scene.end();
}

/// Tables that contradict themselves, or the descriptors that come with them.
#[test]
fn tables() {
    let mut scene = Scene::new();
    let file = memfd(RAM, 0).unwrap();
    let region = |guest| WireRegion { guest, size: 0x10000, user: 1 << 40 | guest, offset: 0 };
    let apart: Vec<WireRegion> = (0..33).map(|i| region(i << 20)).collect();
    let cases: [(&str, Vec<u8>, usize); 7] = [
        ("regions that overlap", Wire::table(&[region(0), region(0x8000)]), 2),
        ("one region twice", Wire::table(&[region(0), region(0)]), 2),
        ("two regions, one descriptor", Wire::table(&apart[..2]), 1),
        ("one region, two descriptors", Wire::table(&apart[..1]), 2),
        ("more regions than descriptors fit", Wire::table(&apart), 33),
        ("a table that ends too early", Wire::table(&apart[..2])[..50].to_vec(), 2),
        ("a table without regions, with descriptors", Wire::table(&[]), 3),
    ];
    for (what, body, fds) in cases {
        let guest = scene.guest();
        guest.wire.send(SET_MEM_TABLE, &body, &vec![file.as_raw_fd(); fds]);
        guest.wire.assert_closed();
        drop(guest);
        scene.check(what);
    }
    scene.end();
}

/// Memory that comes and goes as fast as it can, under rings that run.
#[test]
fn tables_without_end() {
    let mut scene = Scene::new();
    let mut guest = scene.guest();
    let file = memfd(64 << 20, 0).unwrap();
    let body = Wire::single(&WireRegion { guest: 1 << 32, size: 64 << 20, user: 1 << 40, offset: 0 });
    for _ in 0..1000 {
        guest.wire.send(ADD_MEM_REG, &body, &[file.as_raw_fd()]);
        guest.wire.send(REM_MEM_REG, &body, &[]);
    }
    guest.wire.barrier();
    scene.assert_undisturbed("tables without end");
    assert!(guest.test_unit_ready().good());
    drop(guest);
    scene.check("tables without end");
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
