//! Several front-ends on the same blocks of one unit of the real `vstgt`: blocks are never torn, COMPARE AND WRITE and ORWRITE are atomic.
//!
//! The short form takes some seconds for each engine and file system; `VSTGT_SOAK=1` asks for a million rounds.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, missing_docs, reason = "test code")]

mod frontend;

use std::collections::BTreeSet;
use std::fs::File;
use std::path::Path;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::{Duration, Instant};

use frontend::guest::{HEADER, LINUX_FEATURES, RESPONSE, lun};
use frontend::{BOUND, Buffer, Guest, Ram, Response, Vstgt};

/// The request queues of each guest, which reactors share out among each other.
const RINGS: [u16; 2] = [2, 3];

const READ: u8 = 0x88;
const COMPARE_AND_WRITE: u8 = 0x89;
const WRITE: u8 = 0x8a;
const ORWRITE: u8 = 0x8b;

const GOOD: u8 = 0;
const MISCOMPARE: (u8, u8, u8) = (0x0e, 0x1d, 0x00);

fn soak() -> bool {
    std::env::var_os("VSTGT_SOAK").is_some()
}

/// Where the images are, and `--engine`.
#[derive(Clone, Copy, Debug)]
struct Setting {
    /// On tmpfs, or else beside the test program.
    in_memory: bool,
    engine: &'static str,
}

const SETTINGS: [Setting; 4] = [
    Setting { in_memory: false, engine: "auto" },
    Setting { in_memory: false, engine: "threads" },
    Setting { in_memory: true, engine: "auto" },
    Setting { in_memory: true, engine: "threads" },
];

impl Setting {
    /// Two units: LUN 0 has blocks of 512 bytes, LUN 1 of 4096.
    fn serve(self, sockets: usize) -> Vstgt {
        frontend::watchdog(Duration::from_secs(if soak() { 24 * 3600 } else { 600 }));
        let program = std::env::current_exe().unwrap();
        let place = if self.in_memory { Path::new("/dev/shm") } else { program.parent().unwrap() };
        let dir = tempfile::Builder::new().prefix("vstgt-test-").tempdir_in(place).unwrap();
        for name in ["disk.img", "unit.img"] {
            File::create(dir.path().join(name)).unwrap().set_len(1 << 20).unwrap();
        }
        let unit = format!("file={}/unit.img,lun=1,block-size=4096", dir.path().display());
        Vstgt::start_in(dir, sockets, |command| {
            command.args(["--engine", self.engine, "--reactors", "2", "--lun", &unit]);
        })
    }
}

/// The blocks that everybody uses.
#[derive(Clone, Copy, Debug)]
struct Target {
    lun: u16,
    block: usize,
    blocks: usize,
}

const LBA: u64 = 40;

impl Target {
    fn len(self) -> usize {
        self.block * self.blocks
    }

    /// A sixteen-byte CDB.
    fn cdb(self, opcode: u8) -> [u8; 16] {
        let mut cdb = [0; 16];
        cdb[0] = opcode;
        cdb[2..10].copy_from_slice(&LBA.to_be_bytes());
        cdb[10..14].copy_from_slice(&(self.blocks as u32).to_be_bytes());
        cdb
    }
}

/// A guest with some commands in flight, each with memory of its own.
struct Side {
    guest: Guest,
    target: Target,
    slots: Vec<Slot>,
}

struct Slot {
    ring: u16,
    header: u64,
    response: u64,
    /// Addresses of the buffer's pieces.
    pieces: Vec<u64>,
    piece: u32,
    /// The chain's head, while it is in flight.
    head: Option<u16>,
}

impl Side {
    /// Two slots on each ring, with room for `room` bytes in pieces of `piece` bytes that do not lie side by side.
    fn attach(socket: &Path, target: Target, room: usize, piece: usize) -> Side {
        let mut guest = Guest::connect(socket, Ram::new(16 << 20));
        guest.negotiate();
        guest.start(LINUX_FEATURES, &[0, 1, RINGS[0], RINGS[1]], 512);
        let ram = guest.ram.clone();
        let slots = [RINGS, RINGS].concat().into_iter().map(|ring| {
            let area = ram.alloc(2 * room as u64);
            let pieces = (0..room / piece).map(|i| area + (2 * i * piece) as u64).collect();
            let (header, response) = (ram.alloc(HEADER.into()), ram.alloc(RESPONSE.into()));
            Slot { ring, header, response, pieces, piece: piece as u32, head: None }
        });
        let slots = slots.collect();
        let mut side = Side { guest, target, slots };
        while side.one(&[0; 6], None).status != GOOD {}
        side
    }

    /// Puts a command on its ring; with data it is written, else as much as the target's blocks is read.
    fn put(&mut self, slot: usize, cdb: &[u8], out: Option<&[u8]>) {
        let slot = &mut self.slots[slot];
        let ram = &self.guest.ram;
        ram.write(slot.header, &Guest::header(lun(0, self.target.lun), cdb));
        ram.write(slot.response, &[0xff; RESPONSE as usize]);
        let mut chain = vec![Buffer::out(slot.header, HEADER)];
        for (bytes, at) in out.unwrap_or_default().chunks(slot.piece as usize).zip(&slot.pieces) {
            ram.write(*at, bytes);
            chain.push(Buffer::out(*at, slot.piece));
        }
        chain.push(Buffer::input(slot.response, RESPONSE));
        if out.is_none() {
            let pieces = self.target.len() / slot.piece as usize;
            chain.extend(slot.pieces[..pieces].iter().map(|at| Buffer::input(*at, slot.piece)));
        }
        let queue = self.guest.queue(slot.ring);
        slot.head = Some(queue.push(&chain));
        queue.kick();
    }

    /// Waits for all commands in flight; their responses, by slot.
    fn finish(&mut self) -> Vec<Response> {
        let start = Instant::now();
        let mut responses = vec![None; self.slots.len()];
        while self.slots.iter().any(|slot| slot.head.is_some()) {
            for ring in RINGS {
                while let Some((head, len)) = self.guest.queue(ring).pop_used() {
                    let named = |slot: &Slot| slot.ring == ring && slot.head == Some(head);
                    let at = self.slots.iter().position(named).expect("a head of ours");
                    self.slots[at].head = None;
                    responses[at] = Some(self.guest.parse_response(self.slots[at].response, len));
                }
            }
            assert!(start.elapsed() < BOUND, "not answered in time");
            std::thread::sleep(Duration::from_micros(20));
        }
        responses.into_iter().flatten().collect()
    }

    fn one(&mut self, cdb: &[u8], out: Option<&[u8]>) -> Response {
        self.put(0, cdb, out);
        self.finish().pop().unwrap()
    }

    /// The data that a command read.
    fn data(&self, slot: usize) -> Vec<u8> {
        let slot = &self.slots[slot];
        let pieces = self.target.len() / slot.piece as usize;
        slot.pieces[..pieces].iter().flat_map(|at| self.guest.ram.read(*at, slot.piece as usize)).collect()
    }

    /// Reads the blocks with one command.
    fn read(&mut self) -> Vec<u8> {
        let answer = self.one(&self.target.cdb(READ), None);
        assert!(answer.good() && answer.residual == 0, "{answer:?}");
        self.data(0)
    }
}

/// `stamp`, all over.
fn stamped(stamp: u64, len: usize) -> Vec<u8> {
    stamp.to_le_bytes().repeat(len / 8)
}

fn is_whole(block: &[u8]) -> bool {
    block[8..] == block[..block.len() - 8]
}

fn word(bytes: &[u8], index: usize) -> u64 {
    u64::from_le_bytes(bytes[8 * index..8 * index + 8].try_into().unwrap())
}

/// One guest writes stamps all over the blocks, four commands at a time on two queues, another reads them.
#[test]
fn no_block_is_torn() {
    let shapes = [
        (Target { lun: 0, block: 512, blocks: 1 }, 512),
        (Target { lun: 1, block: 4096, blocks: 1 }, 512),
        (Target { lun: 1, block: 4096, blocks: 7 }, 512),
        (Target { lun: 1, block: 4096, blocks: 16 }, 4096),
    ];
    let rounds = if soak() { 1_000_000 / shapes.len() as u64 } else { 10_000 };
    let time = if soak() { Duration::MAX } else { Duration::from_millis(600) };
    for setting in SETTINGS {
        let vstgt = setting.serve(2);
        for (target, piece) in shapes {
            let (over, seen) = (&AtomicBool::new(false), &AtomicU64::new(0));
            let attach = |socket| Side::attach(vstgt.socket(socket), target, target.len(), piece);
            let (mut writer, mut reader) = (attach(0), attach(1));
            let (writes, reads) = std::thread::scope(|scope| {
                let writes = scope.spawn(move || {
                    let _over = Raise(over);
                    let start = Instant::now();
                    let mut writes = 0;
                    let tried = || seen.load(Ordering::Relaxed) >= 10 || start.elapsed() > BOUND;
                    while !tried() || writes < rounds && start.elapsed() < time {
                        for slot in 0..4 {
                            writes += 1;
                            writer.put(slot, &target.cdb(WRITE), Some(&stamped(writes, target.len())));
                        }
                        assert!(writer.finish().iter().all(Response::good));
                    }
                    writes
                });
                let mut reads = 0;
                let mut stamps = BTreeSet::new();
                while !over.load(Ordering::Relaxed) {
                    (0..4).for_each(|slot| reader.put(slot, &target.cdb(READ), None));
                    assert!(reader.finish().iter().all(Response::good));
                    for slot in 0..4 {
                        let data = reader.data(slot);
                        let torn = data.chunks(target.block).filter(|block| !is_whole(block)).count();
                        assert_eq!(torn, 0, "{setting:?} {target:?}: read {reads}");
                        stamps.insert(word(&data, 0));
                        reads += 1;
                    }
                    seen.store(stamps.len() as u64, Ordering::Relaxed);
                }
                (writes.join().unwrap(), reads)
            });
            let stamps = seen.load(Ordering::Relaxed);
            println!("{setting:?} {target:?}: {writes} writes, {reads} reads saw {stamps} stamps");
            assert!(stamps >= 10, "{setting:?} {target:?}: nothing was tried");
        }
        vstgt.stop();
    }
}

/// Raises a flag when it goes away.
struct Raise<'a>(&'a AtomicBool);

impl Drop for Raise<'_> {
    fn drop(&mut self) {
        self.0.store(true, Ordering::Relaxed);
    }
}

/// What is in a block while it is a counter: the count, and who counted last.
fn counter(count: u64, who: u64, target: Target) -> Vec<u8> {
    let mut block = stamped(who, target.block);
    block[..8].copy_from_slice(&count.to_le_bytes());
    block.repeat(target.blocks)
}

/// Two guests count in the same blocks, each with four COMPARE AND WRITE at a time that want the same: none is lost, none counts twice. A
/// third one reads, and sees every command of several blocks whole.
#[test]
fn compare_and_write_is_a_lock() {
    let targets = [
        Target { lun: 0, block: 512, blocks: 1 },
        Target { lun: 0, block: 512, blocks: 9 },
        Target { lun: 1, block: 4096, blocks: 2 },
    ];
    let wins = if soak() { 1_000_000 / targets.len() as u64 / 2 } else { 100 };
    for setting in SETTINGS {
        let vstgt = setting.serve(3);
        for target in targets {
            let over = &AtomicBool::new(false);
            let attach = |socket, piece| Side::attach(vstgt.socket(socket), target, 2 * target.len(), piece);
            let (mut sides, mut reader) = (vec![attach(0, 512), attach(1, 256)], attach(2, 512));
            assert!(sides[0].one(&target.cdb(WRITE), Some(&counter(0, 0, target))).good());
            let (won, reads) = std::thread::scope(|scope| {
                let counting: Vec<_> = (1..)
                    .zip(sides.drain(..))
                    .map(|(name, mut side)| {
                        scope.spawn(move || {
                            let _over = Raise(over);
                            let won = count(&mut side, name, wins);
                            (won, side)
                        })
                    })
                    .collect();
                let mut reads = 0u64;
                let mut last = 0;
                while !over.load(Ordering::Relaxed) {
                    let data = reader.read();
                    assert!(data.chunks(target.block).all(|block| *block == data[..target.block]), "{setting:?}");
                    assert!(is_whole(&data[8..target.block]), "{setting:?}");
                    let count = word(&data, 0);
                    assert!(count >= last, "{setting:?}: {count} after {last}");
                    last = count;
                    reads += 1;
                }
                let mut won = Vec::new();
                for counting in counting {
                    let (counts, side) = counting.join().unwrap();
                    won.push(counts);
                    sides.push(side);
                }
                (won, reads)
            });
            let total: usize = won.iter().map(Vec::len).sum();
            let all: BTreeSet<u64> = won.iter().flatten().copied().collect();
            println!("{setting:?} {target:?}: {:?}, {reads} reads", won.iter().map(Vec::len).collect::<Vec<_>>());
            assert_eq!(all, (1..=total as u64).collect(), "{setting:?} {target:?}: each count was made once");
            assert_eq!(word(&reader.read(), 0), total as u64, "{setting:?} {target:?}");
        }
        vstgt.stop();
    }
}

/// Counts so many times; the counts that this side made.
fn count(side: &mut Side, name: u64, wins: u64) -> Vec<u64> {
    let target = side.target;
    let (mut won, mut attempts) = (Vec::new(), 0);
    let mut cdb = target.cdb(COMPARE_AND_WRITE);
    // NUMBER OF LOGICAL BLOCKS is a byte.
    cdb[10..14].copy_from_slice(&[0, 0, 0, target.blocks as u8]);
    while (won.len() as u64) < wins {
        let expected = side.read();
        let count = word(&expected, 0) + 1;
        for slot in 0..4 {
            attempts += 1;
            let new = counter(count, name << 32 | attempts, target);
            side.put(slot, &cdb, Some(&[&expected[..], &new].concat()));
        }
        let mut winners = 0;
        for answer in side.finish() {
            if answer.good() {
                assert_eq!(answer.residual, 0);
                winners += 1;
            } else {
                assert_eq!(answer.sense_code(), Some(MISCOMPARE), "{answer:?}");
                // VALID, and INFORMATION: the counts differ, in their first bytes.
                assert_eq!(answer.sense[0], 0xf0);
                assert!(u32::from_be_bytes(answer.sense[3..7].try_into().unwrap()) < 8, "{answer:?}");
            }
        }
        assert!(winners <= 1, "{winners} of four COMPARE AND WRITE that wanted the same");
        won.extend((winners == 1).then_some(count));
    }
    won
}

/// Three guests set each their bits of the same blocks, four at a time: none is lost.
#[test]
fn orwrite_loses_no_bit() {
    for setting in SETTINGS {
        let vstgt = setting.serve(3);
        for target in [Target { lun: 0, block: 512, blocks: 1 }, Target { lun: 1, block: 4096, blocks: 2 }] {
            let mut sides: Vec<_> =
                (0..3).map(|socket| Side::attach(vstgt.socket(socket), target, target.len(), 512)).collect();
            // Neighbouring bits are different guests'.
            let bits = target.len().min(512) * 8;
            for _ in 0..if soak() { 100 } else { 1 } {
                assert!(sides[0].one(&target.cdb(WRITE), Some(&vec![0; target.len()])).good());
                std::thread::scope(|scope| {
                    for (name, side) in sides.iter_mut().enumerate() {
                        scope.spawn(move || {
                            let mine: Vec<usize> = (0..bits).filter(|bit| bit % 3 == name).step_by(4).collect();
                            for four in mine.chunks(4) {
                                for (slot, bit) in four.iter().enumerate() {
                                    let mut mask = vec![0; target.len()];
                                    mask[bit / 8] = 1 << (bit % 8);
                                    *mask.last_mut().unwrap() |= 1 << name;
                                    side.put(slot, &target.cdb(ORWRITE), Some(&mask));
                                }
                                assert!(side.finish().iter().all(Response::good));
                            }
                        });
                    }
                });
                let mut expected = vec![0; target.len()];
                for name in 0..3 {
                    for bit in (0..bits).filter(|bit| bit % 3 == name).step_by(4) {
                        expected[bit / 8] |= 1 << (bit % 8);
                    }
                    *expected.last_mut().unwrap() |= 1 << name;
                }
                assert!(sides[0].read() == expected, "{setting:?} {target:?}: a bit was lost");
            }
        }
        vstgt.stop();
    }
}
