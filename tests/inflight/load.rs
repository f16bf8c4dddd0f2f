//! A guest that keeps its rings busy with commands whose outcome it checks, over every death of the process that serves it.
#![allow(
    unsafe_code,
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    missing_docs,
    dead_code,
    reason = "test code"
)]

use std::collections::HashMap;
use std::os::fd::AsRawFd;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::{Duration, Instant};

use super::frontend::guest::{HEADER, REQUESTS, RESPONSE, rw10};
use super::frontend::{BOUND, Buffer, Guest, Ram};
use super::random::Random;

/// Blocks that one slot reads and writes, nobody else.
pub const SPAN: u32 = 32;

/// What the one who kills and those who are killed for share.
#[derive(Default)]
pub struct Scene {
    pub stop: AtomicBool,
    /// When the process was killed last, in nanoseconds since `begin`.
    pub killed_at: AtomicU64,
}

/// Something under way.
#[derive(Clone, Debug)]
enum Op {
    Write { at: u32, blocks: u32 },
    Read { at: u32, blocks: u32 },
    Verify { at: u32, blocks: u32 },
    Synchronize,
}

/// A command's memory and blocks.
struct Slot {
    ring: u16,
    header: u64,
    response: u64,
    data: u64,
    first: u32,
    /// The version of each block.
    versions: Vec<u64>,
    next_version: u64,
    op: Option<Op>,
}

pub struct Load {
    pub guest: Guest,
    path: PathBuf,
    scene: Arc<Scene>,
    begin: Instant,
    random: Random,
    slots: Vec<Slot>,
    by_head: HashMap<(u16, u16), usize>,
    waits_for_first: bool,
    /// It comes back with a new buffer, in which nothing is in flight, in place of the one that it was given.
    pub forgets: bool,
    /// How long its last commands may take.
    pub patience: Duration,
    /// From each kill to the first answer after it.
    pub gaps: Vec<Duration>,
    pub done: u64,
}

impl Load {
    /// Over so many request rings, with so many commands on each at most, on blocks from `first_lba` on.
    pub fn new(
        path: &Path,
        scene: &Arc<Scene>,
        begin: Instant,
        (rings, depth): (u16, usize),
        first_lba: u32,
        seed: u64,
    ) -> Load {
        let ram = Ram::new(32 << 20);
        let rings: Vec<u16> = (0..REQUESTS + rings).collect();
        let mut guest = Guest::attached_tracked(path, ram, &rings, 64);
        guest.clear_attentions();
        let slots = rings[usize::from(REQUESTS)..].iter().flat_map(|ring| std::iter::repeat_n(*ring, depth));
        let slots = slots
            .zip((first_lba..).step_by(SPAN as usize))
            .map(|(ring, first)| Slot {
                ring,
                header: guest.ram.alloc(HEADER.into()),
                response: guest.ram.alloc(RESPONSE.into()),
                data: guest.ram.alloc(u64::from(SPAN) * 512),
                first,
                versions: vec![0; SPAN as usize],
                next_version: 1,
                op: None,
            })
            .collect();
        Load {
            guest,
            path: path.to_owned(),
            scene: Arc::clone(scene),
            begin,
            random: Random::new(seed),
            slots,
            by_head: HashMap::new(),
            waits_for_first: false,
            forgets: false,
            patience: BOUND,
            gaps: Vec::new(),
            done: 0,
        }
    }

    /// Until it is told to stop; then everything is waited for and read back.
    pub fn run(mut self) -> Load {
        while !self.scene.stop.load(Ordering::Relaxed) {
            self.submit_some();
            self.reap();
            self.reconnect_if_lost();
        }
        self.finish();
        self
    }

    /// Waits for everything, then reads every block.
    pub fn finish(&mut self) {
        self.drain();
        for slot in 0..self.slots.len() {
            self.submit(slot, Op::Read { at: 0, blocks: SPAN });
        }
        self.drain();
    }

    fn drain(&mut self) {
        let start = Instant::now();
        while !self.by_head.is_empty() {
            assert!(start.elapsed() < self.patience, "never answered: {:?}", self.by_head);
            if !self.reap() {
                std::thread::sleep(Duration::from_micros(50));
            }
            self.reconnect_if_lost();
        }
    }

    fn submit_some(&mut self) {
        for slot in 0..self.slots.len() {
            if self.slots[slot].op.is_some() || self.random.percent(30) {
                continue;
            }
            let at = self.random.below(u64::from(SPAN)) as u32;
            let blocks = 1 + self.random.below(u64::from(SPAN - at)) as u32;
            let op = match self.random.below(20) {
                0..=9 => Op::Write { at, blocks },
                10..=17 => Op::Read { at, blocks },
                18 => Op::Verify { at, blocks },
                _ => Op::Synchronize,
            };
            self.submit(slot, op);
        }
    }

    fn submit(&mut self, number: usize, op: Op) {
        let slot = &mut self.slots[number];
        let (header, response, data) = (slot.header, slot.response, slot.data);
        let len = |blocks: u32| blocks * 512;
        let (cdb, out, input) = match op {
            Op::Write { at, blocks } => {
                slot.next_version += 1;
                let bytes: Vec<u8> = (at..at + blocks).flat_map(|b| block(slot.first + b, slot.next_version)).collect();
                self.guest.ram.write(data, &bytes);
                let mut cdb = rw10(0x2a, slot.first + at, bytes.len());
                // FUA, now and then.
                cdb[1] = if self.random.percent(10) { 8 } else { 0 };
                (cdb, Some(Buffer::out(data, len(blocks))), None)
            }
            Op::Read { at, blocks } => {
                self.guest.ram.write(data, &vec![0xee; len(blocks) as usize]);
                (rw10(0x28, slot.first + at, len(blocks) as usize), None, Some(Buffer::input(data, len(blocks))))
            }
            Op::Verify { at, blocks } => (rw10(0x2f, slot.first + at, len(blocks) as usize), None, None),
            Op::Synchronize => (rw10(0x35, 0, 0), None, None),
        };
        let ring = slot.ring;
        slot.op = Some(op);
        let (head, _) = self.guest.submit_at(ring, header, response, &cdb, out.as_slice(), input.as_slice());
        assert_eq!(self.by_head.insert((ring, head), number), None);
    }

    /// Takes what was answered; whether anything was.
    fn reap(&mut self) -> bool {
        let mut any = false;
        for queue in 0..self.guest.queues.len() {
            while let Some((head, len)) = self.guest.queues[queue].pop_used() {
                any = true;
                let ring = self.guest.queues[queue].index;
                let slot = self.by_head.remove(&(ring, head));
                let slot =
                    slot.unwrap_or_else(|| panic!("ring {ring}: head {head} is answered, but was not asked for"));
                self.check(slot, len);
            }
        }
        if any && std::mem::take(&mut self.waits_for_first) {
            let killed = Duration::from_nanos(self.scene.killed_at.load(Ordering::Relaxed));
            self.gaps.push(self.begin.elapsed().saturating_sub(killed));
        }
        any
    }

    fn check(&mut self, number: usize, used_len: u32) {
        let answer = self.guest.parse_response(self.slots[number].response, used_len);
        let slot = &mut self.slots[number];
        let op = slot.op.take().expect("it is under way");
        assert!(answer.good(), "{op:?}: {answer:?}");
        assert_eq!(answer.residual, 0, "{op:?}");
        self.done += 1;
        match op {
            Op::Write { at, blocks } => slot.versions[at as usize..][..blocks as usize].fill(slot.next_version),
            Op::Read { at, blocks } => {
                let data = self.guest.ram.read(slot.data, blocks as usize * 512);
                for (b, found) in (at..).zip(data.chunks(512)) {
                    let version = slot.versions[b as usize];
                    let expected = if version == 0 { vec![0; 512] } else { block(slot.first + b, version) };
                    assert!(
                        found == expected,
                        "block {}: not version {version}: {:02x?}",
                        slot.first + b,
                        &found[..16]
                    );
                }
            }
            Op::Verify { .. } | Op::Synchronize => {}
        }
    }

    fn reconnect_if_lost(&mut self) {
        if !is_over(&self.guest) {
            return;
        }
        let start = Instant::now();
        if self.forgets {
            self.guest.forget_inflight();
        }
        while !self.guest.reconnect(&self.path) {
            assert!(start.elapsed() < BOUND, "the process does not come back");
            std::thread::sleep(Duration::from_millis(1));
        }
        self.waits_for_first = true;
        // QEMU does it, too: whatever was kicked before is not lost.
        self.guest.queues.iter().for_each(super::frontend::Queue::kick);
    }
}

/// What a block of a version has in it.
pub fn block(lba: u32, version: u64) -> Vec<u8> {
    let unit = [u64::from(lba).to_le_bytes(), version.to_le_bytes()].concat();
    unit.repeat(32)
}

/// Whether the other end of its connection is closed.
pub fn is_over(guest: &Guest) -> bool {
    let mut byte = 0u8;
    // SAFETY: a buffer of one byte of ours.
    let n = unsafe {
        let flags = libc::MSG_PEEK | libc::MSG_DONTWAIT;
        libc::recv(guest.wire.0.as_raw_fd(), (&raw mut byte).cast(), 1, flags)
    };
    n == 0 || n < 0 && std::io::Error::last_os_error().kind() != std::io::ErrorKind::WouldBlock
}
