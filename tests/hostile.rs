//! Hostile guests and front-ends against the real `vstgt`: each attempt gets an answer or costs only its own connection, while
//! a second guest's verified I/O runs on undisturbed; and the socket serves the next front-end as if nothing had been.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, missing_docs, reason = "test code")]

mod frontend;

use std::io::{Read, Write};
use std::os::fd::AsRawFd;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use frontend::guest::{LINUX_FEATURES, REQUESTS, lun, pattern, raw, rw10};
use frontend::queue::{F_INDIRECT, F_NEXT, F_WRITE};
use frontend::ram::{Backing, memfd};
use frontend::wire::{NEED_REPLY, PROTOCOL_BITS, VERSION, WireRegion};
use frontend::{BOUND, Buffer, Guest, Ram, VerifiedIo, Vstgt, Wire, eventually};
use vhost::VhostBackend;
use vhost::vhost_user::VhostUserFrontend;
use vhost::vhost_user::message::FrontendReq::{self, *};

const RAM: u64 = 16 << 20;

/// What a hostile act led to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Outcome {
    /// A used entry: head, and bytes written.
    Used(u16, u32),
    /// The ring was declared broken through its error eventfd.
    Broken,
    /// The connection was ended.
    Closed,
}

/// A process with an undisturbed guest on socket 1; the hostile ones come by socket 0.
struct Scene {
    vstgt: Vstgt,
    other: Option<VerifiedIo>,
}

impl Scene {
    fn new() -> Scene {
        let vstgt = Vstgt::start_with(2, |command| {
            command.arg("--nexus-loss-timeout").arg("1");
        });
        let other = VerifiedIo::start(Guest::attached(vstgt.socket(1)));
        Scene { vstgt, other: Some(other) }
    }

    fn guest(&self) -> Guest {
        Guest::attached(self.vstgt.socket(0))
    }

    /// After a hostile act: the process lives, the other guest goes on, and the socket serves whoever comes next.
    fn check(&mut self, what: &str) {
        println!("{what}: survived");
        self.vstgt.assert_alive();
        self.other.as_ref().unwrap().assert_goes_on();
        let mut next = self.guest();
        next.check_io(1);
        next.stop();
    }

    fn end(mut self) {
        drop(self.other.take().unwrap().finish());
        self.vstgt.stop();
    }
}

/// Whether the other side has closed, without waiting.
fn is_closed(guest: &Guest) -> bool {
    guest.wire.0.set_nonblocking(true).unwrap();
    let mut buf = [0; 64];
    let closed = loop {
        match (&guest.wire.0).read(&mut buf) {
            Ok(0) => break true,
            Ok(_) => {}
            Err(e) => break e.kind() != std::io::ErrorKind::WouldBlock,
        }
    };
    guest.wire.0.set_nonblocking(false).unwrap();
    closed
}

/// Waits for what becomes of a ring.
fn outcome_on(guest: &mut Guest, ring: u16) -> Outcome {
    let start = Instant::now();
    loop {
        if let Some((head, len)) = guest.queue(ring).pop_used() {
            return Outcome::Used(head, len);
        }
        if guest.queue(ring).err.read().is_ok() {
            return Outcome::Broken;
        }
        if is_closed(guest) {
            return Outcome::Closed;
        }
        assert!(start.elapsed() < BOUND, "neither answered, nor broken, nor closed");
        std::thread::sleep(Duration::from_millis(1));
    }
}

/// Addresses of a request's parts, ready to be put into descriptors.
struct Parts {
    header: u64,
    response: u64,
    data: u64,
}

fn parts(guest: &Guest, cdb: &[u8]) -> Parts {
    let header = guest.ram.alloc(51);
    guest.ram.write(header, &Guest::header(lun(0, 0), cdb));
    let response = guest.ram.alloc(108);
    guest.ram.write(response, &[0xff; 108]);
    Parts { header, response, data: guest.ram.alloc(65536) }
}

const OUTSIDE: u64 = 0x7000_0000_0000;

/// One after the other, each on a fresh connection: malformed chains on a request queue. The ring goes on after those that are
/// answered.
#[test]
fn chains() {
    type Act = fn(&mut Guest, &Parts);
    let acts: [(&str, Act); 26] = [
        ("a loop of one", |g, p| {
            g.queue(2).write_desc(0, p.header, 51, F_NEXT, 0);
            g.queue(2).push_head(0);
        }),
        ("a loop of two", |g, p| {
            g.queue(2).write_desc(0, p.header, 51, F_NEXT, 1);
            g.queue(2).write_desc(1, p.response, 108, F_NEXT | F_WRITE, 0);
            g.queue(2).push_head(0);
        }),
        ("a loop in an indirect table", |g, p| {
            let mut entry = p.header.to_le_bytes().to_vec();
            entry.extend(51u32.to_le_bytes());
            entry.extend(F_NEXT.to_le_bytes());
            entry.extend(0u16.to_le_bytes());
            g.ram.write(p.data, &entry);
            g.queue(2).write_desc(0, p.data, 32, F_INDIRECT, 0);
            g.queue(2).push_head(0);
        }),
        ("a next index outside the table", |g, p| {
            g.queue(2).write_desc(0, p.header, 51, F_NEXT, 0xffff);
            g.queue(2).push_head(0);
        }),
        ("a head index outside the table", |g, _| g.queue(2).push_head(0x1000)),
        ("a header outside memory", |g, p| {
            g.queue(2).push(&[Buffer::out(OUTSIDE, 51), Buffer::input(p.response, 108)]);
        }),
        ("a header across the end of memory", |g, p| {
            g.queue(2).push(&[Buffer::out(RAM - 10, 51), Buffer::input(p.response, 108)]);
        }),
        ("a header at the end of the address space", |g, p| {
            g.queue(2).push(&[Buffer::out(u64::MAX - 10, 51), Buffer::input(p.response, 108)]);
        }),
        ("a response outside memory", |g, p| {
            g.queue(2).push(&[Buffer::out(p.header, 51), Buffer::input(OUTSIDE, 108)]);
        }),
        ("data outside memory", |g, p| {
            g.queue(2).push(&[Buffer::out(p.header, 51), Buffer::input(p.response, 108), Buffer::input(OUTSIDE, 4096)]);
        }),
        ("data across the end of memory", |g, p| {
            g.queue(2).push(&[
                Buffer::out(p.header, 51),
                Buffer::input(p.response, 108),
                Buffer::input(RAM - 100, 4096),
            ]);
        }),
        ("data at the end of the address space", |g, p| {
            g.queue(2).push(&[
                Buffer::out(p.header, 51),
                Buffer::input(p.response, 108),
                Buffer::input(u64::MAX - 100, 4096),
            ]);
        }),
        ("four times 4 GiB of data", |g, p| {
            let big = Buffer::input(p.data, u32::MAX);
            g.queue(2).push(&[Buffer::out(p.header, 51), Buffer::input(p.response, 108), big, big, big, big]);
        }),
        ("nothing to read", |g, p| {
            g.queue(2).push(&[Buffer::input(p.response, 108)]);
        }),
        ("nothing to write", |g, p| {
            g.queue(2).push(&[Buffer::out(p.header, 51)]);
        }),
        ("to write before to read", |g, p| {
            g.queue(2).push(&[Buffer::input(p.response, 108), Buffer::out(p.header, 51)]);
        }),
        ("a header of 10 bytes", |g, p| {
            g.queue(2).push(&[Buffer::out(p.header, 10), Buffer::input(p.response, 108)]);
        }),
        ("a response of 5 bytes", |g, p| {
            g.queue(2).push(&[Buffer::out(p.header, 51), Buffer::input(p.response, 5)]);
        }),
        ("buffers of no bytes", |g, p| {
            g.queue(2).push(&[Buffer::out(p.header, 0), Buffer::input(p.response, 0)]);
        }),
        ("data in both directions", |g, p| {
            g.queue(2).push(&[
                Buffer::out(p.header, 51 + 512),
                Buffer::input(p.response, 108),
                Buffer::input(p.data, 512),
            ]);
        }),
        ("an indirect table of no bytes", |g, p| {
            g.queue(2).write_desc(0, p.data, 0, F_INDIRECT, 0);
            g.queue(2).push_head(0);
        }),
        ("an indirect table of 17 bytes", |g, p| {
            g.queue(2).write_desc(0, p.data, 17, F_INDIRECT, 0);
            g.queue(2).push_head(0);
        }),
        ("an indirect table outside memory", |g, _| {
            g.queue(2).write_desc(0, OUTSIDE, 64, F_INDIRECT, 0);
            g.queue(2).push_head(0);
        }),
        ("an indirect table of 4 GiB", |g, p| {
            g.queue(2).write_desc(0, p.data, 0xffff_fff0, F_INDIRECT, 0);
            g.queue(2).push_head(0);
        }),
        ("an indirect table in an indirect table", |g, p| {
            let mut entry = p.data.to_le_bytes().to_vec();
            entry.extend(16u32.to_le_bytes());
            entry.extend(F_INDIRECT.to_le_bytes());
            entry.extend(0u16.to_le_bytes());
            g.ram.write(p.data, &entry);
            g.queue(2).write_desc(0, p.data, 16, F_INDIRECT, 0);
            g.queue(2).push_head(0);
        }),
        ("an indirect descriptor with a next one", |g, p| {
            g.queue(2).write_desc(0, p.data, 16, F_INDIRECT | F_NEXT, 1);
            g.queue(2).write_desc(1, p.response, 108, F_WRITE, 0);
            g.queue(2).push_head(0);
        }),
    ];
    let mut scene = Scene::new();
    for (what, act) in acts {
        let mut guest = scene.guest();
        let parts = parts(&guest, &rw10(0x28, 0, 4096));
        act(&mut guest, &parts);
        guest.queue(REQUESTS).kick();
        let outcome = outcome_on(&mut guest, REQUESTS);
        println!("{what}: {outcome:?}");
        if let Outcome::Used(_, len) = outcome {
            assert!(len <= 108 + 65536, "{what}: not more written than there was room for");
            // The ring goes on.
            assert!(guest.test_unit_ready().good(), "{what}: the ring goes on");
            assert_eq!(guest.stop().len(), 3);
        } else if outcome == Outcome::Broken {
            // It can still be stopped and set up again.
            assert_eq!(guest.stop().len(), 3, "{what}: stopping answers");
            guest.queue(REQUESTS).clear();
            guest.go_on(&[0, 0, 0]);
            assert!(guest.test_unit_ready().good(), "{what}: a new set-up works");
        }
        drop(guest);
        scene.check(what);
    }
    scene.end();
}

/// Those with room for a response get one that says FAILURE, and nothing outside of it is written.
#[test]
fn answers_to_bad_requests() {
    let vstgt = Vstgt::start(1);
    let mut guest = Guest::attached(vstgt.socket(0));
    let p = parts(&guest, &rw10(0x28, 0, 4096));
    guest.ram.write(p.data, &[0x5a; 4096]);
    let chains: [(&str, Vec<Buffer>); 4] = [
        (
            "a short header",
            vec![Buffer::out(p.header, 50), Buffer::input(p.response, 108), Buffer::input(p.data, 4096)],
        ),
        ("data outside", vec![Buffer::out(p.header, 51), Buffer::input(p.response, 108), Buffer::input(OUTSIDE, 4096)]),
        (
            "both directions",
            vec![
                Buffer::out(p.header, 51),
                Buffer::out(p.data, 4096),
                Buffer::input(p.response, 108),
                Buffer::input(p.data, 4096),
            ],
        ),
        ("header outside", vec![Buffer::out(OUTSIDE, 51), Buffer::input(p.response, 108)]),
    ];
    for (what, chain) in chains {
        guest.ram.write(p.response, &[0xff; 108]);
        let head = guest.queue(REQUESTS).push(&chain);
        guest.queue(REQUESTS).kick();
        let (used, len) = guest.queue(REQUESTS).wait_used(BOUND).expect("an answer");
        assert_eq!(used, head, "{what}");
        assert!((12..=108).contains(&len), "{what}: {len} bytes written");
        assert_eq!(guest.parse_response(p.response, len).response, 9, "{what}: VIRTIO_SCSI_S_FAILURE");
        assert_eq!(guest.ram.read(p.data, 4096), [0x5a; 4096], "{what}: data untouched");
    }
}

/// The available index jumps, the rings lie over each other, heads are repeated.
#[test]
fn rings() {
    type Act = fn(&mut Guest, &Parts);
    let acts: [(&str, Act); 7] = [
        ("the available index jumps ahead by 1000", |g, _| {
            let index = g.queue(2).avail_idx;
            g.queue(2).set_avail_idx(index.wrapping_add(1000));
        }),
        ("the available index goes back", |g, _| {
            let index = g.queue(2).avail_idx;
            g.queue(2).set_avail_idx(index.wrapping_sub(1));
        }),
        ("the available index jumps by the ring's size and one", |g, _| {
            let index = g.queue(2).avail_idx;
            g.queue(2).set_avail_idx(index.wrapping_add(129));
        }),
        ("one head, a ring full of it", |g, p| {
            g.queue(2).write_desc(0, p.header, 51, F_NEXT, 1);
            g.queue(2).write_desc(1, p.response, 108, F_NEXT | F_WRITE, 2);
            g.queue(2).write_desc(2, p.data, 4096, F_WRITE, 0);
            for _ in 0..128 {
                g.queue(2).push_head(0);
            }
        }),
        ("data is read into the descriptor table", |g, p| {
            let desc = g.queue(2).desc;
            g.queue(2).push(&[Buffer::out(p.header, 51), Buffer::input(p.response, 108), Buffer::input(desc, 2048)]);
        }),
        ("data is read into the used ring", |g, p| {
            let used = g.queue(2).used;
            g.queue(2).push(&[Buffer::out(p.header, 51), Buffer::input(p.response, 108), Buffer::input(used, 512)]);
        }),
        ("data is read into the available ring", |g, p| {
            let avail = g.queue(2).avail;
            g.queue(2).push(&[Buffer::out(p.header, 51), Buffer::input(p.response, 108), Buffer::input(avail, 256)]);
        }),
    ];
    let mut scene = Scene::new();
    // What the guest reads into its rings is chosen by itself.
    let mut guest = scene.guest();
    guest.write_blocks(0, &pattern(99, 4096));
    drop(guest);
    for (what, act) in acts {
        let mut guest = scene.guest();
        let parts = parts(&guest, &rw10(0x28, 0, 4096));
        act(&mut guest, &parts);
        guest.queue(REQUESTS).kick();
        let outcome = outcome_on(&mut guest, REQUESTS);
        println!("{what}: {outcome:?}");
        drop(guest);
        scene.check(what);
    }
    // All parts of a ring at one place.
    let mut guest = Guest::connect(scene.vstgt.socket(0), Ram::new(RAM));
    guest.negotiate();
    guest.set_features(LINUX_FEATURES);
    guest.add_region(0);
    let mut queue = guest.make_queue(REQUESTS, 128);
    queue.avail = queue.desc;
    queue.used = queue.desc;
    guest.set_up(&queue);
    guest.frontend.set_vring_kick(2, &queue.kick).unwrap();
    guest.frontend.set_vring_enable(2, true).unwrap();
    for i in 0..1000u16 {
        guest.ram.write(queue.desc, &pattern(i.into(), 2048));
        queue.kick();
    }
    drop(guest);
    scene.check("all parts of a ring at one place");
    scene.end();
}

/// One table of many descriptors, which all heads of many rings refer to, costs no host memory for each of them: neither while the
/// commands run nor after.
#[test]
fn one_table_for_all_heads() {
    const RINGS: u16 = 12;
    const SIZE: u16 = 1024;
    const PIECES: u64 = 1000;
    let mut scene = Scene::new();
    let mut guest = Guest::connect(scene.vstgt.socket(0), Ram::new(RAM));
    guest.negotiate();
    let rings: Vec<u16> = (2..2 + RINGS).collect();
    guest.start(LINUX_FEATURES, &rings, SIZE);
    guest.clear_attentions();
    let before = scene.vstgt.resident_kib();

    let ram = guest.ram.clone();
    let (header, response, data) = (ram.alloc(51), ram.alloc(108), ram.alloc(2 * 512 * PIECES));
    ram.write(header, &Guest::header(lun(0, 0), &rw10(0x28, 0, 512 * PIECES as usize)));
    let table = ram.alloc(16 * (PIECES + 2));
    let entry = |at: u64, addr: u64, len: u32, flags: u16| {
        let mut bytes = addr.to_le_bytes().to_vec();
        bytes.extend(len.to_le_bytes());
        bytes.extend(flags.to_le_bytes());
        bytes.extend((at as u16 + 1).to_le_bytes());
        ram.write(table + 16 * at, &bytes);
    };
    entry(0, header, 51, F_NEXT);
    entry(1, response, 108, F_NEXT | F_WRITE);
    for piece in 0..PIECES {
        // They do not adjoin, so that each stays a piece of its own.
        let next = if piece + 1 < PIECES { F_NEXT } else { 0 };
        entry(2 + piece, data + 1024 * piece, 512, F_WRITE | next);
    }
    for &ring in &rings {
        let queue = guest.queue(ring);
        for head in 0..SIZE {
            queue.write_desc(head, table, 16 * (PIECES as u32 + 2), F_INDIRECT, 0);
            queue.push_head(head);
        }
        queue.kick();
    }
    let mut most = 0;
    for &ring in &rings {
        for _ in 0..SIZE {
            guest.queue(ring).wait_used(BOUND).expect("each is answered");
        }
        most = most.max(scene.vstgt.resident_kib());
    }
    let grown = most.saturating_sub(before) >> 10;
    println!("grown by {grown} MiB");
    // 12 × 1024 × 1000 pieces, as descriptors and as addresses, would be 375 MiB.
    assert!(grown < 250, "grown by {grown} MiB");
    drop(guest);
    scene.check("one table for all heads");
    scene.end();
}

/// Nonsense on the control and on the event queue.
#[test]
fn control_and_event_queues() {
    let mut scene = Scene::new();
    let requests: [(&str, Vec<u8>, u32); 8] = [
        ("an empty request", vec![], 1),
        ("an unknown type", [9u32.to_le_bytes().to_vec(), vec![0; 20]].concat(), 1),
        ("an unknown function", [0u32.to_le_bytes(), 77u32.to_le_bytes()].concat().repeat(3), 1),
        ("half a function", vec![0; 11], 1),
        ("no room for a response", vec![0; 24], 0),
        ("half an asynchronous query", vec![1, 0, 0, 0, 1], 5),
        ("an asynchronous query without room", [1u32.to_le_bytes().to_vec(), vec![0; 12]].concat(), 2),
        ("a subscription for everything", [2u32.to_le_bytes().to_vec(), vec![0xff; 12]].concat(), 5),
    ];
    for (what, request, room) in requests {
        let mut guest = scene.guest();
        let (at, response) = (guest.ram.alloc(64), guest.ram.alloc(64));
        guest.ram.write(at, &request);
        let mut chain = Vec::new();
        if !request.is_empty() {
            chain.push(Buffer::out(at, request.len() as u32));
        }
        if room > 0 {
            chain.push(Buffer::input(response, room));
        }
        guest.queue(0).push(&chain);
        guest.queue(0).kick();
        println!("{what}: {:?}", outcome_on(&mut guest, 0));
        assert!(guest.test_unit_ready().good(), "{what}: commands go on");
    }
    scene.check("nonsense on the control queue");

    // Buffers of the event queue wait; bad ones may come back at once or break it, but nothing else.
    let mut guest = scene.guest();
    let at = guest.ram.alloc(64);
    for chain in [
        vec![Buffer::out(at, 16)],
        vec![Buffer::input(at, 3)],
        vec![Buffer::input(OUTSIDE, 16)],
        vec![Buffer::input(at, 16)],
    ] {
        guest.queue(1).push(&chain);
        guest.queue(1).kick();
    }
    guest.queue(1).write_desc(100, at, 16, F_NEXT | F_WRITE, 100);
    guest.queue(1).push_head(100);
    guest.queue(1).push_head(0xffff);
    guest.queue(1).kick();
    assert!(guest.test_unit_ready().good());
    assert_eq!(guest.stop().len(), 3);
    drop(guest);
    scene.check("nonsense on the event queue");
    scene.end();
}

/// CDBs and headers of every byte: each is answered.
#[test]
fn random_requests() {
    let vstgt = Vstgt::start(2);
    let other = VerifiedIo::start(Guest::attached(vstgt.socket(1)));
    // Its own disk is at stake, not the other's blocks: everything but reads may be in here, so it gets a LUN that is not there
    // in two of three requests, and no write-like operation code in the third.
    let mut guest = Guest::attached(vstgt.socket(0));
    let (header, response, data) = (guest.ram.alloc(51), guest.ram.alloc(108), guest.ram.alloc(4096));
    for seed in 0..3000u64 {
        let mut bytes = pattern(seed, 51);
        bytes[..2].copy_from_slice(&[1, 0]);
        if seed % 3 == 0 {
            bytes[2..8].copy_from_slice(&[0x40, 0, 0, 0, 0, 0]);
            // INQUIRY, MODE SENSE, REPORT LUNS, REQUEST SENSE, READ of all sizes, REPORT SUPPORTED OPERATION CODES.
            const OPCODES: [u8; 10] = [0x12, 0x1a, 0x5a, 0xa0, 0x03, 0x08, 0x28, 0xa8, 0x88, 0xa3];
            bytes[19] = OPCODES[(seed / 3 % 10) as usize];
        }
        guest.ram.write(header, &bytes);
        let queue = guest.queue(REQUESTS);
        queue.push(&[Buffer::out(header, 51), Buffer::input(response, 108), Buffer::input(data, 4096)]);
        queue.kick();
        queue.wait_used(BOUND).unwrap_or_else(|| panic!("request {seed} is not answered: {bytes:02x?}"));
    }
    other.finish();
}

/// Messages that make no sense, each on its own connection while it runs.
#[test]
fn messages() {
    let mut scene = Scene::new();
    let region = WireRegion { guest: 0, size: RAM, user: 0, offset: 0 };
    let cases: Vec<(&str, u32, u32, Vec<u8>)> = vec![
        ("no such message", 0, VERSION, vec![]),
        ("no such message either", 99, VERSION, vec![0; 8]),
        ("wrong version", GET_FEATURES as u32, 3, vec![]),
        ("an answer", GET_FEATURES as u32, VERSION | 4, vec![]),
        ("too long", SET_OWNER as u32, VERSION, vec![0; 4096]),
        ("much too long", SET_OWNER as u32, VERSION, vec![0; 100_000]),
        ("too short", SET_FEATURES as u32, VERSION, vec![0; 7]),
        ("ring 256", SET_VRING_NUM as u32, VERSION, Wire::state(256, 128).to_vec()),
        ("ring 4294967295", GET_VRING_BASE as u32, VERSION, Wire::state(u32::MAX, 0).to_vec()),
        ("ring size 3", SET_VRING_NUM as u32, VERSION, Wire::state(3, 3).to_vec()),
        ("ring size 4096", SET_VRING_NUM as u32, VERSION, Wire::state(3, 4096).to_vec()),
        ("ring base 65536", SET_VRING_BASE as u32, VERSION, Wire::state(3, 65536).to_vec()),
        ("size of a live ring", SET_VRING_NUM as u32, VERSION, Wire::state(2, 64).to_vec()),
        ("addresses of nothing", SET_VRING_ADDR as u32, VERSION, Wire::addr(2, 0, 0x10, 0x20, 0x40)),
        ("unaligned addresses", SET_VRING_ADDR as u32, VERSION, Wire::addr(2, 0, 1, 1, 1)),
        ("neither on nor off", SET_VRING_ENABLE as u32, VERSION, Wire::state(2, 2).to_vec()),
        ("a kick without its descriptor", SET_VRING_KICK as u32, VERSION, 2u64.to_ne_bytes().to_vec()),
        ("memory without its descriptor", ADD_MEM_REG as u32, VERSION, Wire::single(&region)),
        ("a table without descriptors", SET_MEM_TABLE as u32, VERSION, Wire::table(&[region])),
        ("an empty table", SET_MEM_TABLE as u32, VERSION, Wire::table(&[])),
        ("a table of 2^32-1 regions", SET_MEM_TABLE as u32, VERSION, (u64::from(u32::MAX)).to_ne_bytes().to_vec()),
        ("no such region", REM_MEM_REG as u32, VERSION, Wire::single(&region)),
        ("dirty log", SET_LOG_BASE as u32, VERSION, vec![0; 16]),
        ("inflight buffer", GET_INFLIGHT_FD as u32, VERSION, vec![0; 24]),
        ("configuration", GET_CONFIG as u32, VERSION, vec![0; 12]),
        ("status", SET_STATUS as u32, VERSION, vec![0; 8]),
    ];
    for (what, code, flags, body) in cases {
        let guest = scene.guest();
        // The send itself may fail when the other side closes in the middle of it.
        let sent = guest.wire.try_send(code, flags, &body, &[]);
        println!("{what}: {sent:?}");
        guest.wire.assert_closed();
        drop(guest);
        scene.check(what);
    }
    scene.end();
}

/// Descriptors of the wrong kind, too many, and where none belong: refused, and closed.
#[test]
fn descriptors() {
    let mut scene = Scene::new();
    let before = scene.vstgt.open_descriptors();
    let file = memfd(4096, 0).unwrap();
    let directory = std::fs::File::open("/").unwrap();
    let (reader, writer) = std::io::pipe().unwrap();
    let kinds = [file.as_raw_fd(), directory.as_raw_fd(), reader.as_raw_fd(), writer.as_raw_fd()];
    for fd in kinds {
        for request in [SET_VRING_KICK, SET_VRING_CALL, SET_VRING_ERR] {
            let guest = scene.guest();
            guest.wire.send(request, &2u64.to_ne_bytes(), &[fd]);
            guest.wire.assert_closed();
        }
    }
    let region = WireRegion { guest: 1 << 32, size: 4096, user: 1 << 32, offset: 0 };
    for fd in &kinds[1..] {
        let guest = scene.guest();
        guest.wire.send(ADD_MEM_REG, &Wire::single(&region), &[*fd]);
        guest.wire.assert_closed();
    }
    for count in [1, 2, 32, 33, 250] {
        let guest = scene.guest();
        let fds = vec![file.as_raw_fd(); count];
        guest.wire.send(GET_FEATURES, &[], &fds);
        if count <= 32 {
            guest.wire.assert_closed();
        }
    }
    scene.check("descriptors");
    let vstgt = &scene.vstgt;
    eventually("descriptors are closed", || vstgt.open_descriptors() <= before + 4);
    scene.end();
}

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

/// The front-end's eventfds used against us: full ones, and kicks that are taken away before they are read.
#[test]
fn eventfds() {
    let mut scene = Scene::new();
    let mut guest = scene.guest();
    // A call that is full: an interrupt cannot be written to it, and would block for ever on an eventfd that blocks.
    let call = vmm_sys_util::eventfd::EventFd::new(0).unwrap();
    call.write(u64::MAX - 1).unwrap();
    guest.frontend.set_vring_call(2, &call).unwrap();
    for _ in 0..10 {
        guest.submit(REQUESTS, &[0; 6], &[], &[]);
        guest.queue(REQUESTS).wait_used(BOUND).expect("answers come though no interrupt can");
    }
    scene.other.as_ref().unwrap().assert_goes_on();
    // A kick that the front-end itself takes away as fast as it gives it, made blocking again behind the back of who made
    // it non-blocking: a plain read of it would block.
    let kick = Arc::new(vmm_sys_util::eventfd::EventFd::new(0).unwrap());
    guest.frontend.set_vring_kick(2, &kick).unwrap();
    // SAFETY: fcntl with F_SETFL takes an integer.
    #[allow(unsafe_code, reason = "there is no safe way to make a descriptor blocking again")]
    let rc = unsafe { libc::fcntl(kick.as_raw_fd(), libc::F_SETFL, libc::O_RDWR) };
    assert_eq!(rc, 0);
    let stop = Arc::new(AtomicBool::new(false));
    let thief = {
        let (kick, stop) = (Arc::clone(&kick), Arc::clone(&stop));
        std::thread::spawn(move || {
            while !stop.load(Ordering::Relaxed) {
                kick.write(1).unwrap();
                // If the other side was faster, this blocks until the next kick, which is made below.
                drop(kick.read());
            }
        })
    };
    for _ in 0..10 {
        scene.other.as_ref().unwrap().assert_goes_on();
        kick.write(1).unwrap();
    }
    stop.store(true, Ordering::Relaxed);
    while !thief.is_finished() {
        kick.write(1).unwrap();
        std::thread::sleep(Duration::from_millis(1));
    }
    thief.join().unwrap();
    drop(guest);
    scene.check("eventfds used against us");
    scene.end();
}

/// Front-ends that stop in the middle: half a message, answers never read, connections by the dozen.
#[test]
fn front_ends_that_stop_halfway() {
    let mut scene = Scene::new();
    let path = scene.vstgt.socket(0).to_owned();
    let connect = || std::os::unix::net::UnixStream::connect(&path).unwrap();
    let mut half = connect();
    half.write_all(&[1, 0, 0]).unwrap();
    let mut half_body = connect();
    half_body.write_all(&[2, 0, 0, 0, 1, 0, 0, 0, 8, 0, 0, 0, 1]).unwrap();
    let unread = Wire::new(connect());
    unread.0.set_write_timeout(Some(Duration::from_millis(300))).unwrap();
    while unread.try_send(GET_FEATURES as u32, VERSION, &[], &[]).is_ok() {}
    scene.check("front-ends that stop halfway");
    // No more than so many at once of one socket; the surplus is closed, and when they go others may come.
    let many: Vec<_> = (0..100).map(|_| connect()).collect();
    let vstgt = &scene.vstgt;
    eventually("most are closed", || vstgt.threads() < 40);
    scene.other.as_ref().unwrap().assert_goes_on();
    drop((half, half_body, unread, many));
    scene.check("a crowd of front-ends");
    // None of them keeps the process from ending.
    let mut half = connect();
    half.write_all(&[1, 0, 0]).unwrap();
    scene.end();
}

/// Random messages, some with descriptors: whatever comes, the other guest goes on.
#[test]
fn random_messages() {
    let mut scene = Scene::new();
    let file = memfd(RAM, 0).unwrap();
    let event = vmm_sys_util::eventfd::EventFd::new(libc::EFD_NONBLOCK).unwrap();
    for seed in 0..300u64 {
        let stream = std::os::unix::net::UnixStream::connect(scene.vstgt.socket(0)).unwrap();
        let wire = Wire::new(stream);
        wire.0.set_write_timeout(Some(Duration::from_secs(5))).unwrap();
        for step in 0..40u64 {
            let noise = pattern(seed * 1000 + step, 64);
            let code = u32::from(noise[0] % 45);
            // Mostly plausible fields: few rings, few sizes, few addresses.
            let small = |byte: u8| u64::from(byte % 6);
            let state = Wire::state(small(noise[1]) as u32, [0, 1, 2, 128, 256, 1024][usize::from(noise[2] % 6)]);
            let at = 0x1000 * small(noise[3]);
            let region = WireRegion { guest: at << 10, size: 0x40_0000, user: at << 10, offset: 0 };
            let (body, fds): (Vec<u8>, Vec<i32>) = match FrontendReq::try_from(code) {
                Ok(SET_VRING_NUM | SET_VRING_BASE | GET_VRING_BASE | SET_VRING_ENABLE) => (state.to_vec(), vec![]),
                Ok(SET_VRING_ADDR) => (Wire::addr(small(noise[1]) as u32, 0, at, at + 0x2000, at + 0x1000), vec![]),
                Ok(SET_VRING_KICK | SET_VRING_CALL | SET_VRING_ERR) => {
                    (small(noise[1]).to_ne_bytes().to_vec(), vec![event.as_raw_fd()])
                }
                Ok(SET_MEM_TABLE) => (Wire::table(&[region]), vec![file.as_raw_fd()]),
                Ok(ADD_MEM_REG) => (Wire::single(&region), vec![file.as_raw_fd()]),
                Ok(REM_MEM_REG) => (Wire::single(&region), vec![]),
                Ok(SET_FEATURES) => ((LINUX_FEATURES & u64::MAX << (noise[4] % 2)).to_ne_bytes().to_vec(), vec![]),
                Ok(SET_PROTOCOL_FEATURES) => (PROTOCOL_BITS.to_ne_bytes().to_vec(), vec![]),
                _ if !noise[5].is_multiple_of(4) => continue,
                _ => (noise[8..8 + usize::from(noise[6] % 40)].to_vec(), vec![]),
            };
            let flags = VERSION | if noise[7].is_multiple_of(2) { NEED_REPLY } else { 0 };
            if wire.try_send(code, flags, &body, &fds).is_err() {
                break;
            }
            event.write(1).unwrap();
            drop(event.read());
        }
    }
    // The last of them may not have been seen to go yet, and a socket takes so many at a time.
    eventually("connections are taken again", || {
        let next = Guest::connect(scene.vstgt.socket(0), Ram::new(1 << 20));
        next.frontend.get_features().is_ok()
    });
    scene.check("random messages");
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
