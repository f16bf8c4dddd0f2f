//! The dirty log of a live migration: every page that `vstgt` writes is marked, whatever makes it write.
//!
//! What the device may write to lies apart from what only the driver writes (an *arena*), so that every change there is the
//! device's.
#![allow(unsafe_code, clippy::unwrap_used, clippy::expect_used, clippy::panic, missing_docs, reason = "test code")]

mod frontend;
#[path = "storm/random.rs"]
mod random;

use std::collections::BTreeSet;
use std::fs::File;
use std::os::fd::AsRawFd;
use std::path::Path;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use vhost::VhostBackend;
use vhost::vhost_user::VhostUserFrontend;
use vhost::vhost_user::message::FrontendReq::*;

use frontend::guest::{A_MOMENT, HEADER, LINUX_FEATURES, REQUESTS, RESPONSE, lun, pattern, rw10};
use frontend::process::IMAGE_SIZE;
use frontend::ram::{Backing, memfd};
use frontend::wire::{LOG_ALL, Wire};
use frontend::{BOUND, Buffer, Guest, Ram, VerifiedIo, Vstgt, eventually};
use random::Random;

const PAGE: u64 = 4096;
const CONTROL: u16 = 0;
const EVENTS: u16 = 1;
const RINGS: [u16; 4] = [0, 1, 2, 3];
const SIZE: u16 = 64;

/// Memory that only the device writes to while a round lasts, beside other memory.
const ARENA: u64 = 2 << 20;

/// A region far up, for which a log of the first one's size is too small.
const HIGH: u64 = 1 << 32;

/// The front-end's side of a log.
struct Log {
    file: File,
    size: u64,
    memory: Ram,
}

impl Log {
    /// For guest addresses below `end`.
    fn new(end: u64) -> Log {
        // QEMU's are whole 64-bit words.
        let size = end.div_ceil(PAGE).div_ceil(64) * 8;
        let file = memfd(size, 0).unwrap();
        let backing =
            Backing { guest: 0, size: size.next_multiple_of(PAGE), file: file.try_clone().unwrap().into(), offset: 0 };
        file.set_len(size.next_multiple_of(PAGE)).unwrap();
        Log { memory: Ram::from_backings(vec![backing]).unwrap(), size, file }
    }

    fn word(&self, index: u64) -> &AtomicU64 {
        assert!(index < self.size / 8);
        // SAFETY: inside of the mapping that `memory` has of the file, aligned, and only reached by atomics.
        unsafe { AtomicU64::from_ptr((self.memory.user(0) + 8 * index) as *mut u64) }
    }

    /// Takes all marks away; the pages that had one.
    fn take(&self) -> BTreeSet<u64> {
        let mut pages = BTreeSet::new();
        for index in 0..self.size / 8 {
            let bits = u64::from_le(self.word(index).swap(0, Ordering::SeqCst));
            pages.extend((0..64).filter(|bit| bits & 1 << bit != 0).map(|bit| index * 64 + bit));
        }
        pages
    }

    fn install(&self, guest: &Guest) {
        guest.wire.set_log_base(self.size, 0, self.file.as_raw_fd());
    }
}

/// Pages that these bytes lie in.
fn pages(at: u64, len: u64) -> impl Iterator<Item = u64> {
    at / PAGE..(at + len).div_ceil(PAGE)
}

/// A guest whose used rings lie in an arena.
struct Scene {
    guest: Guest,
    arena: u64,
    /// The next free byte of it, from the end of the rings on.
    next: u64,
    floor: u64,
}

impl Scene {
    fn new(path: &Path, ram: Ram) -> Scene {
        let mut guest = Guest::connect(path, ram);
        guest.negotiate();
        guest.set_features(LINUX_FEATURES);
        guest.add_region(0);
        let arena = guest.ram.alloc(ARENA);
        let mut next = arena;
        for index in RINGS {
            let mut queue = guest.make_queue(index, SIZE);
            queue.used = next;
            next += PAGE;
            guest.queues.push(queue);
        }
        let mut scene = Scene { guest, arena, next, floor: next };
        scene.start(&[0; RINGS.len()]);
        scene.guest.clear_attentions();
        scene
    }

    fn start(&mut self, bases: &[u32]) {
        self.guest.go_on(bases);
    }

    /// Wants everything logged, or nothing more.
    fn log(&self, on: bool) {
        self.log_data(on);
        self.log_rings(on);
    }

    fn log_data(&self, on: bool) {
        let features = self.guest.features | if on { LOG_ALL } else { 0 };
        assert_eq!(self.guest.wire.acked(SET_FEATURES, &features.to_ne_bytes(), &[]), 0);
    }

    fn log_rings(&self, on: bool) {
        for queue in &self.guest.queues {
            let user = |at| self.guest.ram.user(at);
            let (desc, used, avail) = (user(queue.desc), user(queue.used), user(queue.avail));
            let body = Wire::addr_logged(queue.index.into(), on.into(), desc, used, avail, queue.used);
            assert_eq!(self.guest.wire.acked(SET_VRING_ADDR, &body, &[]), 0);
        }
    }

    /// As `stop` and `go_on` of the guest, but that rings keep their log flag.
    fn stop(&mut self) -> Vec<u32> {
        self.guest.stop()
    }

    fn go_on(&mut self, bases: &[u32]) {
        let queues: Vec<_> = self.guest.queues.iter().zip(bases).collect();
        for (queue, base) in queues {
            let user = |at| self.guest.ram.user(at);
            let (desc, used, avail) = (user(queue.desc), user(queue.used), user(queue.avail));
            assert_eq!(self.guest.wire.acked(SET_VRING_BASE, &Wire::state(queue.index.into(), *base), &[]), 0);
            let body = Wire::addr_logged(queue.index.into(), 1, desc, used, avail, queue.used);
            assert_eq!(self.guest.wire.acked(SET_VRING_ADDR, &body, &[]), 0);
            self.guest.frontend.set_vring_kick(queue.index.into(), &queue.kick).unwrap();
        }
        for queue in &self.guest.queues {
            self.guest.frontend.set_vring_enable(queue.index.into(), true).unwrap();
        }
    }

    /// Bytes of the arena for the device, anywhere in it, `skew` bytes off where the last ones ended.
    fn place(&mut self, len: u64, skew: u64) -> u64 {
        let at = self.next + skew;
        assert!(at + len <= self.arena + ARENA, "the arena is used up");
        self.next = at + len;
        at
    }

    fn contents(&self) -> Vec<u8> {
        self.guest.ram.read(self.arena, ARENA as usize)
    }
}

/// One of all kinds of requests, at random; the pages that the device may write to for it, its used ring's apart.
fn request(scene: &mut Scene, random: &mut Random, high: Option<u64>) -> BTreeSet<u64> {
    let mut writable = BTreeSet::new();
    let mut input = |scene: &mut Scene, random: &mut Random, len: u64| {
        let at = match high {
            Some(high) if random.percent(30) => high + random.below(512) * 64,
            _ => {
                let skew = random.below(5000);
                scene.place(len, skew)
            }
        };
        writable.extend(pages(at, len));
        Buffer::input(at, len as u32)
    };
    let ram = scene.guest.ram.clone();
    let kind = random.below(20);
    match kind {
        // The control queue: task management and asynchronous notification, good and bad.
        0..3 => {
            let (kind, len) = random.one_of(&[(0u32, 24u32), (1, 16), (2, 16), (7, 24)]);
            let at = ram.alloc(24);
            let mut bytes = kind.to_le_bytes().to_vec();
            if kind == 0 {
                bytes.extend((random.below(9) as u32).to_le_bytes());
                bytes.extend(lun(random.below(2) as u8, 0));
                bytes.extend(random.below(4).to_le_bytes());
            } else {
                bytes.extend(lun(0, random.below(2) as u16));
                bytes.extend(0xffu32.to_le_bytes());
            }
            ram.write(at, &bytes);
            let response = input(scene, random, 5);
            let len = if random.percent(20) { 6 } else { len };
            scene.guest.queue(CONTROL).push(&[Buffer::out(at, len), response]);
            scene.guest.queue(CONTROL).kick();
        }
        _ => {
            let ring = REQUESTS + random.below(2) as u16;
            let lba = random.below(IMAGE_SIZE / 512 - 4096) as u32;
            let blocks = 1 + random.below(40);
            let len = blocks * 512;
            let cdb: Vec<u8> = match kind {
                3..9 => rw10(0x28, lba, len as usize).to_vec(),
                9..11 => rw10(0x2a, lba, len as usize).to_vec(),
                11 => vec![0x12, 0, 0, 0, 0xff, 0],
                12 => vec![0x12, 1, random.below(0x100) as u8, 0, 0xff, 0],
                13 => vec![0x1a, 0, 0x3f, 0, 0xff, 0],
                14 => vec![0xa0, 0, 0, 0, 0, 0, 0, 0, 2, 0, 0, 0],
                15 => rw10(0x28, u32::MAX, len as usize).to_vec(),
                16 => vec![random.below(0x100) as u8, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0],
                17 => vec![0xa3, 0x0c, 0, 0, 0, 0, 0, 0, 0xff, 0xff, 0, 0],
                _ => vec![0x25, 0, 0, 0, 0, 0, 0, 0, 0, 0],
            };
            // What destroys (FORMAT UNIT, UNMAP, WRITE SAME, SANITIZE) or changes a mode is other tests' business.
            let harmless = [0x28, 0x2a, 0x12, 0x1a, 0xa0, 0xa3, 0x25, 0x00, 0x03, 0x88, 0x9e, 0x2f, 0x35];
            let cdb = if harmless.contains(&cdb[0]) { cdb } else { vec![0x0c, 0, 0, 0, 0, 0] };
            let mut header = Guest::header(lun(u8::from(random.percent(5)), u16::from(random.percent(5))), &cdb);
            if random.percent(4) {
                // No such task attribute.
                header[16] = 9;
            }
            let at = ram.alloc(HEADER.into());
            ram.write(at, &header);
            let short = random.percent(4);
            let mut chain = vec![Buffer::out(at, if short { 20 } else { HEADER })];
            if cdb[0] == 0x2a {
                let data = ram.alloc(len);
                ram.write(data, &pattern(lba.into(), len as usize));
                chain.push(Buffer::out(data, len as u32));
            }
            match random.below(10) {
                // No room for a response; or for less sense data than there is.
                0 if random.percent(50) => chain.push(input(scene, random, 7)),
                0 => chain.push(input(scene, random, 20)),
                // In two pieces.
                1 => {
                    let cut = 1 + random.below(u64::from(RESPONSE) - 1);
                    chain.push(input(scene, random, cut));
                    chain.push(input(scene, random, u64::from(RESPONSE) - cut));
                }
                _ => chain.push(input(scene, random, RESPONSE.into())),
            }
            if cdb[0] != 0x2a && !random.percent(5) {
                let mut left = if cdb[0] == 0x28 { len } else { 0x200 };
                // Now and then more or less than the command moves.
                if random.percent(20) {
                    left = 1 + random.below(2 * left);
                }
                while left > 0 {
                    let piece = left.min(1 + random.below(9000));
                    chain.push(input(scene, random, piece));
                    left -= piece;
                }
            }
            if random.percent(3) {
                // Data outside of guest memory.
                chain.push(Buffer::input(1 << 50, 512));
            }
            let queue = scene.guest.queue(ring);
            if random.percent(40) {
                queue.push_indirect(&chain)
            } else {
                queue.push(&chain)
            };
            queue.kick();
        }
    }
    writable
}

/// Waits until everything is answered.
fn finish(guest: &mut Guest) {
    for queue in guest.queues.iter_mut().filter(|queue| queue.index != EVENTS) {
        while queue.outstanding() > 0 {
            queue.wait_used(BOUND).expect("an answer in time");
        }
    }
}

/// Every page that changes has a mark, and no page has one that nothing could have been written to; by each way to wait.
#[test]
fn every_page_that_changes_is_marked_and_no_other() {
    let seeds = match (std::env::var("VSTGT_TEST_SEED"), std::env::var_os("VSTGT_SOAK")) {
        (Ok(seed), _) => seed.parse().unwrap()..=seed.parse().unwrap(),
        (Err(_), Some(_)) => 1..=40,
        (Err(_), None) => 1..=1,
    };
    seeds.for_each(changes_and_marks);
}

fn changes_and_marks(seed: u64) {
    let vstgt = Vstgt::start(2);
    let mut finder = Guest::attached(vstgt.socket(0));
    let ram = Ram::with_regions(&[(0, 16 << 20), (HIGH, 1 << 20)]);
    let mut scene = Scene::new(vstgt.socket(1), ram);
    let mut log = Log::new(16 << 20);
    log.install(&scene.guest);
    scene.log(true);
    let mut random = Random::new(seed);
    let (mut changed_in_all, mut marked_in_all, mut events) = (0, 0, 0);
    let mut high = None;
    for round in 0..150 {
        let mut carried = BTreeSet::new();
        if round == 50 {
            // Memory is added; before that the log grows. QEMU takes over what is marked in the one before.
            let larger = Log::new(HIGH + (1 << 20));
            larger.install(&scene.guest);
            carried = log.take();
            log = larger;
            scene.guest.add_region(1);
            high = Some(HIGH);
        }
        if round == 100 {
            // It goes away again while nothing is under way.
            scene.guest.remove_region(1);
            high = None;
        }
        scene.next = scene.floor;
        let mark = scene.guest.ram.mark();
        scene.guest.ram.write(scene.floor, &pattern(round, (scene.arena + ARENA - scene.floor) as usize));
        if round < 100 {
            scene.guest.ram.write(HIGH, &pattern(round, 64 << 10));
        }
        let before = scene.contents();
        let before_high = scene.guest.ram.read(HIGH, 1 << 20);
        let rings: BTreeSet<u64> = scene.guest.queues.iter().map(|queue| queue.used / PAGE).collect();
        let mut writable = rings.clone();
        // A buffer for an event, and an event in it.
        let event = round % 5 == 0;
        if event {
            let at = scene.place(16, random.below(4090));
            writable.extend(pages(at, 16));
            scene.guest.queue(EVENTS).push(&[Buffer::input(at, 16)]);
            grow(&vstgt, &mut finder);
        }
        for _ in 0..1 + random.below(12) {
            writable.extend(request(&mut scene, &mut random, high));
        }
        finish(&mut scene.guest);
        if event {
            assert!(scene.guest.queue(EVENTS).wait_used(BOUND).is_some(), "the event came");
            events += 1;
        }
        // Only when rings are stopped nothing is written any more.
        let bases = scene.stop();
        let mut marked = log.take();
        marked.append(&mut carried);
        let after = scene.contents();
        let after_high = scene.guest.ram.read(HIGH, 1 << 20);
        let mut changed = BTreeSet::new();
        for (at, before, after) in [(scene.arena, &before, &after), (HIGH, &before_high, &after_high)] {
            for (page, (before, after)) in before.chunks(PAGE as usize).zip(after.chunks(PAGE as usize)).enumerate() {
                if before != after {
                    changed.insert(at / PAGE + page as u64);
                }
            }
        }
        let unmarked: Vec<_> = changed.difference(&marked).collect();
        assert!(unmarked.is_empty(), "seed {seed}, round {round}: pages {unmarked:x?} changed without a mark");
        let strange: Vec<_> = marked.difference(&writable).collect();
        assert!(strange.is_empty(), "seed {seed}, round {round}: pages {strange:x?} have a mark");
        changed_in_all += changed.len();
        marked_in_all += marked.len();
        scene.go_on(&bases);
        scene.guest.ram.release(mark);
    }
    println!("{changed_in_all} pages changed, {marked_in_all} marked, {events} events");
    assert!(changed_in_all > 1000 && marked_in_all < 2 * changed_in_all && events == 30);
    drop((scene, finder));
    vstgt.stop();
}

/// Makes the disk larger and lets a guest find that out, so that the others are told.
fn grow(vstgt: &Vstgt, finder: &mut Guest) {
    // The other guest resets the unit now and then.
    finder.clear_attentions();
    let image = vstgt.image();
    let size = std::fs::metadata(&image).unwrap().len() + (1 << 20);
    File::options().write(true).open(image).unwrap().set_len(size).unwrap();
    let at = finder.ram.alloc(8);
    assert!(finder.command(&[0x25, 0, 0, 0, 0, 0, 0, 0, 0, 0], &[], &[Buffer::input(at, 8)]).good());
}

/// LOG_ALL is about everything but the used rings, and a ring's flag about its used ring only, at the address that comes with it.
#[test]
fn each_flag_is_for_its_own() {
    let vstgt = Vstgt::start(1);
    let mut scene = Scene::new(vstgt.socket(0), Ram::with_regions(&[(0, 16 << 20), (1 << 30, 1 << 20)]));
    let log = Log::new(16 << 20);
    log.install(&scene.guest);
    let read = |scene: &mut Scene| -> (u64, u64) {
        let response = scene.place(RESPONSE.into(), 100);
        let data = scene.place(8192, 3 * PAGE);
        let header = scene.guest.ram.alloc(HEADER.into());
        let cdb = rw10(0x28, 0, 8192);
        scene.guest.submit_at(REQUESTS, header, response, &cdb, &[], &[Buffer::input(data, 8192)]);
        finish(&mut scene.guest);
        (response, data)
    };
    let quiet = |scene: &mut Scene| {
        let bases = scene.stop();
        scene.guest.go_on(&bases);
    };
    read(&mut scene);
    quiet(&mut scene);
    assert_eq!(log.take(), BTreeSet::new(), "nothing is wanted");

    scene.log_data(true);
    let (response, data) = read(&mut scene);
    let expected: BTreeSet<u64> = pages(response, RESPONSE.into()).chain(pages(data, 8192)).collect();
    quiet(&mut scene);
    assert_eq!(log.take(), expected, "LOG_ALL");

    // The log's address need not be where the ring is, and may be beyond the log's end.
    scene.log_data(false);
    let user = |at| scene.guest.ram.user(at);
    for (index, log_addr) in [(2usize, 0x80_0000u64), (3, u64::MAX - 3)] {
        let queue = &scene.guest.queues[index];
        let (desc, used, avail) = (user(queue.desc), user(queue.used), user(queue.avail));
        let body = Wire::addr_logged(index as u32, 1, desc, used, avail, log_addr);
        assert_eq!(scene.guest.wire.acked(SET_VRING_ADDR, &body, &[]), 0);
    }
    read(&mut scene);
    eventually("the ring's marks", || log.take() == BTreeSet::from([0x800]));
    // Nor does it end when the ring is looked up anew, in another memory map.
    scene.guest.add_region(1);
    log.take();
    read(&mut scene);
    let header = scene.guest.ram.alloc(HEADER.into());
    let response = scene.place(RESPONSE.into(), 0);
    scene.guest.submit_at(3, header, response, &[0; 6], &[], &[]);
    finish(&mut scene.guest);
    eventually("the ring's marks", || log.take() == BTreeSet::from([0x800]));
    drop(scene);
    vstgt.stop();
}

/// A migration in miniature: pages are copied while a guest reads with many commands under way, the log changes, and is switched off
/// and on; when the rings have stopped and the last marks are copied, the copy is the guest's memory, and stays so.
#[test]
fn a_copy_by_the_marks_is_the_memory() {
    let vstgt = Vstgt::start(2);
    let other = VerifiedIo::start(Guest::attached(vstgt.socket(1)));
    let mut scene = Scene::new(vstgt.socket(0), Ram::new(16 << 20));
    for lba in (0..16384).step_by(128) {
        scene.guest.write_blocks(lba, &pattern(lba.into(), 65536));
    }
    let mut random = Random::new(7);
    let slots: Vec<[u64; 3]> = (0..24)
        .map(|_| {
            let header = scene.guest.ram.alloc(HEADER.into());
            [header, scene.place(RESPONSE.into(), 300), scene.place(65536, 700)]
        })
        .collect();
    let mut copies = 0;
    for _migration in 0..if std::env::var_os("VSTGT_SOAK").is_some() { 200 } else { 6 } {
        let mut log = Log::new(16 << 20);
        log.install(&scene.guest);
        scene.log(true);
        let mut copy = scene.contents();
        let first = scene.arena / PAGE;
        let take_over = |scene: &Scene, log: &Log, copy: &mut Vec<u8>| {
            let pages = log.take();
            for &page in &pages {
                let at = ((page - first) * PAGE) as usize;
                copy[at..at + PAGE as usize].copy_from_slice(&scene.guest.ram.read(page * PAGE, PAGE as usize));
            }
            pages.len()
        };
        let begun = Instant::now();
        let mut resized = false;
        let mut free: Vec<usize> = (0..slots.len()).collect();
        let mut under_way: Vec<(u16, u16, usize)> = Vec::new();
        while begun.elapsed() < Duration::from_millis(400) {
            while let Some(slot) = free.pop() {
                let [header, response, data] = slots[slot];
                let ring = REQUESTS + (slot % 2) as u16;
                let blocks = 1 + random.below(128);
                let cdb = rw10(0x28, random.below(16000) as u32, blocks as usize * 512);
                let input = Buffer::input(data, blocks as u32 * 512);
                // The response is not written beforehand: what changes is the device's doing.
                scene.guest.ram.write(header, &Guest::header(lun(0, 0), &cdb));
                let chain = [Buffer::out(header, HEADER), Buffer::input(response, RESPONSE), input];
                let queue = scene.guest.queue(ring);
                let head = queue.push(&chain);
                queue.kick();
                under_way.push((ring, head, slot));
            }
            copies += take_over(&scene, &log, &mut copy);
            for ring in [REQUESTS, REQUESTS + 1] {
                while let Some((head, _)) = scene.guest.queue(ring).pop_used() {
                    let at = under_way.iter().position(|&(r, h, _)| (r, h) == (ring, head)).unwrap();
                    free.push(under_way.swap_remove(at).2);
                }
            }
            if !resized && begun.elapsed() > Duration::from_millis(200) {
                resized = true;
                let next = Log::new(32 << 20);
                next.install(&scene.guest);
                copies += take_over(&scene, &log, &mut copy);
                assert!(log.take().is_empty());
                log = next;
            }
        }
        // With commands under way.
        let bases = scene.stop();
        let next = Log::new(32 << 20);
        copies += take_over(&scene, &log, &mut copy);
        assert!(copy == scene.contents(), "the copy lacks something");
        std::thread::sleep(A_MOMENT);
        assert!(copy == scene.contents(), "memory was touched after the rings had stopped");
        assert!(log.take().is_empty() && next.take().is_empty(), "a mark after the rings had stopped");
        for (queue, &base) in scene.guest.queues.iter_mut().zip(&bases) {
            while queue.pop_used().is_some() {}
            // What came too late to be taken is from the base on, and waits there.
            let not_taken = usize::from(queue.avail_idx.wrapping_sub(base as u16));
            assert!(queue.index == EVENTS || queue.outstanding() == not_taken, "what was taken is answered");
        }
        // The migration is cancelled: the rings go on, nothing is logged any more.
        scene.guest.go_on(&bases);
        assert_eq!(scene.guest.wire.acked(SET_FEATURES, &scene.guest.features.to_ne_bytes(), &[]), 0);
        finish(&mut scene.guest);
        log.take();
        for _ in 0..10 {
            let [header, response, data] = slots[0];
            let cdb = rw10(0x28, 0, 65536);
            scene.guest.submit_at(REQUESTS, header, response, &cdb, &[], &[Buffer::input(data, 65536)]);
            finish(&mut scene.guest);
            assert!(scene.guest.ram.read(data, 65536) == pattern(0, 65536));
        }
        assert!(log.take().is_empty(), "a mark after logging was switched off");
    }
    println!("{copies} pages copied");
    assert!(copies > 2000);
    other.finish();
    drop(scene);
    vstgt.stop();
}

/// The log is mapped while it is wanted, and its descriptor is not kept longer than the connection lasts.
#[test]
fn a_log_that_is_not_wanted_is_unmapped() {
    let mut vstgt = Vstgt::start(1);
    let mut scene = Scene::new(vstgt.socket(0), Ram::new(16 << 20));
    let (mappings, descriptors) = (vstgt.guest_mappings(), vstgt.open_descriptors());
    for _ in 0..20 {
        let log = Log::new(16 << 20);
        log.install(&scene.guest);
        scene.log(true);
        assert_eq!(vstgt.guest_mappings(), mappings + 1);
        assert!(scene.guest.test_unit_ready().good());
        assert!(!log.take().is_empty());
        scene.log(false);
        assert_eq!(vstgt.guest_mappings(), mappings);
    }
    assert!(vstgt.open_descriptors() <= descriptors + 2);
    // Many in a row, as hostile ones send them.
    scene.log(true);
    for _ in 0..200 {
        Log::new(16 << 20).install(&scene.guest);
    }
    assert_eq!(vstgt.guest_mappings(), mappings + 1);
    drop(scene);
    eventually("the connection's mappings are gone", || vstgt.guest_mappings() == 0);
    vstgt.assert_alive();
    vstgt.stop();
}

/// A log whose file is shrunk under the device costs its own connection, and nobody else anything.
#[test]
fn a_log_that_is_shrunk_costs_its_connection() {
    let mut vstgt = Vstgt::start(2);
    let other = VerifiedIo::start(Guest::attached(vstgt.socket(1)));
    for _ in 0..5 {
        let mut scene = Scene::new(vstgt.socket(0), Ram::new(16 << 20));
        let log = Log::new(16 << 20);
        log.install(&scene.guest);
        scene.log(true);
        log.file.set_len(0).unwrap();
        let [header, response] = [HEADER, RESPONSE].map(|len| scene.guest.ram.alloc(len.into()));
        scene.guest.submit_at(REQUESTS, header, response, &[0; 6], &[], &[]);
        scene.guest.wire.assert_closed();
        vstgt.assert_alive();
        other.assert_goes_on();
    }
    // Or has never been large enough.
    for (size, offset) in [(8192u64, 0u64), (4096, 1), (0, 0), (1 << 60, 0), (8, u64::MAX - 7)] {
        let scene = Scene::new(vstgt.socket(0), Ram::new(16 << 20));
        let file = memfd(4096, 0).unwrap();
        let body = [size.to_ne_bytes(), offset.to_ne_bytes()].concat();
        scene.guest.wire.send(SET_LOG_BASE, &body, &[file.as_raw_fd()]);
        scene.guest.wire.assert_closed();
        vstgt.assert_alive();
    }
    // What the log does not reach is written all the same.
    let mut scene = Scene::new(vstgt.socket(0), Ram::new(16 << 20));
    let log = Log::new(PAGE);
    log.install(&scene.guest);
    scene.log(true);
    scene.guest.check_io(3);
    let rings: BTreeSet<u64> = scene.guest.queues.iter().map(|queue| queue.used / PAGE).collect();
    assert!(log.take().is_subset(&rings));
    eventually("it is told of", || vstgt.log().contains("beyond the dirty log"));
    drop(scene);
    other.finish();
    vstgt.stop();
}

/// A response that goes to memory that is no longer in the table is marked as any other: the guest may have it elsewhere.
#[test]
fn what_is_written_to_memory_that_goes_away_is_marked() {
    let vstgt = Vstgt::start(1);
    let ram = Ram::with_regions(&[(0, 16 << 20), (1 << 30, 1 << 20)]);
    let mut scene = Scene::new(vstgt.socket(0), ram);
    scene.guest.add_region(1);
    let log = Log::new((1 << 30) + (1 << 20));
    log.install(&scene.guest);
    scene.log(true);
    let mut written = 0;
    for round in 0..40u64 {
        let at = (1 << 30) + (round % 8) * 0x2_0000;
        let mark = scene.guest.ram.mark();
        scene.guest.ram.write(at, &vec![0xee; 0x1_0000]);
        for command in 0..8u64 {
            let header = scene.guest.ram.alloc(HEADER.into());
            scene.guest.ram.write(header, &Guest::header(lun(0, 0), &rw10(0x28, 0, 4096)));
            let response = at + command * 0x2000;
            let chain =
                [Buffer::out(header, HEADER), Buffer::input(response, RESPONSE), Buffer::input(response + PAGE, 4096)];
            scene.guest.queue(REQUESTS).push(&chain);
        }
        scene.guest.queue(REQUESTS).kick();
        // It waits for what was taken; the rest is refused.
        scene.guest.remove_region(1);
        let marked = log.take();
        finish(&mut scene.guest);
        for command in 0..8u64 {
            let response = at + command * 0x2000;
            for (what, place) in [("a response", response), ("data", response + PAGE)] {
                if scene.guest.ram.read(place, 100) != vec![0xee; 100] {
                    written += 1;
                    assert!(marked.contains(&(place / PAGE)), "round {round}: {what} without a mark");
                }
            }
        }
        scene.guest.add_region(1);
        scene.guest.ram.release(mark);
    }
    assert!(written > 0);
    drop(scene);
    vstgt.stop();
}
