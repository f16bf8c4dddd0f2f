//! A block of a shared image is never seen half old, half new.
//!
//! Two reactors: one writes the same blocks over and over, each time with a new stamp all over each block, the other reads them, both with
//! some commands at a time. A command
//! of several blocks may be seen in part, but each block of it must be whole. Rounds are counted in writes; the short form ends early
//! on a slow disk, a million for each engine on each file system is what `VSTGT_SOAK=1` asks for.
//!
//! Some writers deallocate in between: then they write to holes, which file systems serve another way.

use std::collections::BTreeSet;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};

use super::guest::{Guest, Scatter};
use super::*;

/// How the blocks of one run look.
#[derive(Clone, Copy, Debug)]
struct Shape {
    /// Bytes of a block.
    block: u64,
    /// Blocks of each command.
    blocks: u64,
    scatter: Scatter,
    /// Pieces of each buffer, about.
    pieces: u64,
    /// Every so often the blocks are deallocated.
    holes: bool,
    /// Of a thousand rounds, so many are of this shape: what moves more takes longer.
    share: u64,
}

const SHAPES: [Shape; 8] = [
    Shape { block: 512, blocks: 1, scatter: Scatter::Sectors, pieces: 1, holes: false, share: 300 },
    Shape { block: 4096, blocks: 1, scatter: Scatter::Pages, pieces: 1, holes: false, share: 300 },
    Shape { block: 4096, blocks: 1, scatter: Scatter::Odd, pieces: 6, holes: false, share: 150 },
    Shape { block: 512, blocks: 24, scatter: Scatter::Odd, pieces: 8, holes: true, share: 50 },
    Shape { block: 4096, blocks: 1, scatter: Scatter::Sectors, pieces: 8, holes: true, share: 150 },
    Shape { block: 4096, blocks: 16, scatter: Scatter::Pages, pieces: 9, holes: false, share: 30 },
    // More pieces than block devices take in one request, so the kernel splits it somewhere.
    Shape { block: 4096, blocks: 64, scatter: Scatter::Sectors, pieces: 512, holes: false, share: 10 },
    Shape { block: 512, blocks: 512, scatter: Scatter::Words, pieces: 512, holes: false, share: 10 },
];

/// How long a run goes on.
#[derive(Clone, Copy, Debug)]
struct Bounds {
    /// Writes, at most.
    rounds: u64,
    /// On a slow disk there are as many as this takes.
    time: Duration,
}

/// Commands of one side in flight.
const AT_A_TIME: u64 = 3;

/// But so many there must be.
const AT_LEAST: u64 = 200;
/// And so many different stamps the reader must see, else nothing was tried: on a busy machine the two may run one after the other.
const STAMPS: u64 = 10;

fn soak() -> bool {
    std::env::var_os("VSTGT_SOAK").is_some()
}

impl Bounds {
    fn of(shape: Shape) -> Bounds {
        match soak() {
            true => Bounds { rounds: 1000 * shape.share, time: Duration::MAX },
            false => Bounds { rounds: 50 * shape.share, time: Duration::from_millis(600) },
        }
    }
}

#[test]
fn no_block_is_torn() {
    each_case(|case| {
        if !case.shared {
            return;
        }
        for shape in SHAPES {
            let seen = run(case, shape, Bounds::of(shape));
            println!("{case:?} {shape:?}: {seen:?}");
            assert_eq!(seen.torn, 0, "{case:?} {shape:?}: {seen:?}");
            assert!(seen.stamps >= STAMPS, "{case:?} {shape:?}: {seen:?}");
        }
    });
}

/// The same where nothing keeps blocks whole, which shows that the test could fail: buffered reads and writes of one block tear, on tmpfs as
/// on ext4. It takes two threads that really run at once; the long form goes on to say how often it happens.
#[test]
fn blocks_tear_where_nothing_keeps_them_whole() {
    if std::thread::available_parallelism().is_ok_and(|threads| threads.get() < 2) {
        return;
    }
    // Much to copy, and little else to do.
    let shape = Shape { block: 4096, blocks: 16, scatter: Scatter::Pages, pieces: 1, holes: false, share: 0 };
    let mut places = [Place::Disk, Place::Memory].map(|place| (place, Seen::default()));
    let start = Instant::now();
    while places.iter().all(|(_, seen)| seen.torn == 0) || soak() && start.elapsed() < Duration::from_secs(60) {
        assert!(start.elapsed() < Duration::from_secs(120), "{places:?}");
        for (place, seen) in &mut places {
            let case = Case { place: *place, shared: false, engine: Engine::Threads };
            *seen += run(case, shape, Bounds { rounds: 2000, time: Duration::from_secs(10) });
        }
    }
    println!("{places:?}");
}

/// What the reader saw.
#[derive(Clone, Copy, Debug, Default)]
struct Seen {
    writes: u64,
    /// Commands.
    reads: u64,
    /// Blocks that were not whole.
    torn: u64,
    /// Commands of which some blocks were old and some new.
    mixed: u64,
    /// Different stamps.
    stamps: u64,
}

impl std::ops::AddAssign for Seen {
    fn add_assign(&mut self, more: Seen) {
        self.writes += more.writes;
        self.reads += more.reads;
        self.torn += more.torn;
        self.mixed += more.mixed;
        self.stamps += more.stamps;
    }
}

/// One writer, one reader.
fn run(case: Case, shape: Shape, bounds: Bounds) -> Seen {
    let rig = case.rig_of(scratch(case.place), MIB, shape.block);
    let image = &rig.image;
    let (over, stamps) = (&AtomicBool::new(false), &AtomicU64::new(0));
    std::thread::scope(|scope| {
        let writer = scope.spawn(move || {
            // However it ends, the reader shall.
            let _over = Raise(over);
            let mut side = Side::new(case, shape);
            let start = Instant::now();
            let mut writes = 0;
            let tried = || stamps.load(Ordering::Relaxed) >= STAMPS || start.elapsed() > Duration::from_secs(30);
            while writes < AT_LEAST || !tried() || writes < bounds.rounds && start.elapsed() < bounds.time {
                side.write(image, writes + 1);
                writes += AT_A_TIME;
                if shape.holes && writes % 4 == 0 {
                    side.run(image, OpKind::WriteZeroes { unmap: true });
                }
            }
            side.end();
            writes
        });
        let mut side = Side::new(case, shape);
        let mut seen = Seen::default();
        let mut different = BTreeSet::new();
        while !over.load(Ordering::Acquire) {
            side.run(image, OpKind::Read);
            side.look(&mut seen, &mut different);
            seen.stamps = different.len() as u64;
            stamps.store(seen.stamps, Ordering::Relaxed);
        }
        side.end();
        Seen { writes: writer.join().unwrap(), ..seen }
    })
}

/// Raises a flag when it goes away.
struct Raise<'a>(&'a AtomicBool);

impl Drop for Raise<'_> {
    fn drop(&mut self) {
        self.0.store(true, Ordering::Release);
    }
}

/// One reactor's side: some commands at a time, all on the same blocks.
struct Side {
    shape: Shape,
    door: Door,
    guest: Guest,
    bufs: Vec<IoBuf>,
    bytes: Vec<u8>,
}

impl Side {
    fn new(case: Case, shape: Shape) -> Side {
        let len = shape.blocks * shape.block;
        let (mut guest, mut random) = (Guest::new(), Random(5));
        let bufs = (0..AT_A_TIME).map(|_| guest.buffer(&mut random, shape.scatter, len, shape.pieces)).collect();
        Side { shape, door: case.port(), guest, bufs, bytes: vec![0; len as usize] }
    }

    /// Writes all blocks with some commands, each with a stamp of its own.
    fn write(&mut self, image: &Arc<dyn Image>, stamp: u64) {
        for (buf, stamp) in self.bufs.iter_mut().zip(stamp..) {
            self.bytes[..8].copy_from_slice(&stamp.to_le_bytes());
            let mut stamped = 8;
            while stamped < self.bytes.len() {
                let more = stamped.min(self.bytes.len() - stamped);
                self.bytes.copy_within(..more, stamped);
                stamped += more;
            }
            buf.write_at(0, &self.bytes);
        }
        self.run(image, OpKind::Write { fua: false });
    }

    /// Looks at what reads brought.
    fn look(&mut self, seen: &mut Seen, stamps: &mut BTreeSet<u64>) {
        for buf in &self.bufs {
            buf.read_at(0, &mut self.bytes);
            seen.reads += 1;
            let blocks = self.bytes.chunks(self.shape.block as usize);
            let stamp = |block: &[u8]| u64::from_le_bytes(block[..8].try_into().unwrap());
            seen.torn += blocks.clone().filter(|block| block[8..] != block[..block.len() - 8]).count() as u64;
            let of_blocks: BTreeSet<u64> = blocks.map(stamp).collect();
            seen.mixed += u64::from(of_blocks.len() > 1);
            stamps.extend(of_blocks);
        }
    }

    /// Commands on the blocks, which lie in the midst of the image.
    fn run(&mut self, image: &Arc<dyn Image>, kind: OpKind) {
        let op = Op { kind, offset: MIB / 2 - 4096, len: self.bytes.len() as u64 };
        for (cookie, buf) in (0..).zip(self.bufs.drain(..)) {
            self.door.port.submit(image, op, buf, cookie);
        }
        for completion in self.door.reap(AT_A_TIME as usize) {
            assert_eq!(completion.result, Ok(()));
            self.bufs.push(completion.buf);
        }
    }

    fn end(mut self) {
        self.bufs.drain(..).for_each(|buf| self.guest.release(buf));
    }
}
