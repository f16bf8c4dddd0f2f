//! The scene of every attempt: a process, a bystander whose verified I/O never stops, and the account that is taken afterwards.

use std::io::Read;

use super::frontend::process::IMAGE_SIZE;
use super::*;

/// How long the bystander's commands may take while somebody else misbehaves. A stall is what this catches; tests share the machine with
/// each other, so it is no measure of latency.
const UNDISTURBED: Duration = Duration::from_secs(10);

/// How much memory of its own (in KiB) the process may have more at the end of a scene. What is kept for the next use is bounded; a leak is not.
const GROWTH: u64 = 32 << 10;

/// What a hostile act led to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Outcome {
    /// A used entry: head, and bytes written.
    Used(u16, u32),
    /// The ring was declared broken through its error eventfd.
    Broken,
    /// The connection was ended.
    Closed,
}

/// What a process holds.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Holdings {
    descriptors: usize,
    threads: usize,
    mappings: usize,
}

impl Holdings {
    fn of(vstgt: &Vstgt) -> Holdings {
        Holdings { descriptors: vstgt.open_descriptors(), threads: vstgt.threads(), mappings: vstgt.guest_mappings() }
    }

    fn fit_in(self, other: Holdings) -> bool {
        self.descriptors <= other.descriptors && self.threads <= other.threads && self.mappings <= other.mappings
    }
}

/// A process with an undisturbed guest on socket 1; the hostile ones come by socket 0 (and from 2 on, if there are so many).
pub struct Scene {
    pub vstgt: Vstgt,
    bystander: Option<VerifiedIo>,
    before: Holdings,
    memory_before: u64,
}

impl Scene {
    /// All on one reactor: what keeps it from its work, keeps it from the bystander's.
    pub fn new() -> Scene {
        Scene::with(2, |command| {
            command.args(["--reactors", "1"]);
        })
    }

    /// Several reactors, which send each other mail about what they are asked; the bystander's commands and the others' home are not on the
    /// same.
    pub fn on_several_reactors() -> Scene {
        Scene::with(2, |command| {
            command.args(["--reactors", "3"]);
        })
    }

    /// All on one reactor, and the disk on tmpfs: for what keeps all processors busy, from which some kernels never give the threads enough
    /// time that end direct writes. What is asked here is how vstgt shares out its own.
    pub fn in_memory() -> Scene {
        frontend::watchdog(Duration::from_secs(600));
        let dir = tempfile::tempdir_in("/dev/shm").unwrap();
        std::fs::File::create(dir.path().join("disk.img")).unwrap().set_len(IMAGE_SIZE).unwrap();
        Scene::of(Vstgt::start_in(dir, 2, |command| {
            command.args(["--nexus-loss-timeout", "1", "--reactors", "1"]);
        }))
    }

    /// With so many sockets, and more on the command line.
    pub fn with(sockets: usize, more: impl FnOnce(&mut std::process::Command)) -> Scene {
        Scene::of(Vstgt::start_with(sockets, |command| {
            command.arg("--nexus-loss-timeout").arg("1");
            more(command);
        }))
    }

    fn of(vstgt: Vstgt) -> Scene {
        let bystander = VerifiedIo::start(Guest::attached(vstgt.socket(1)));
        bystander.assert_goes_on();
        // What the first guest of a socket brings into being stays.
        let mut first = Guest::attached(vstgt.socket(0));
        first.check_io(1);
        first.stop();
        drop(first);
        let mut before = Holdings::of(&vstgt);
        eventually("the first guest is gone", || {
            before = Holdings::of(&vstgt);
            before.mappings == 1
        });
        std::thread::sleep(Duration::from_millis(20));
        let before = Holdings::of(&vstgt);
        let memory_before = vstgt.anonymous_kib();
        bystander.take_longest();
        Scene { vstgt, bystander: Some(bystander), before, memory_before }
    }

    /// A guest as it usually is, on the socket that is attacked.
    pub fn guest(&self) -> Guest {
        Guest::attached(self.vstgt.socket(0))
    }

    pub fn bystander(&self) -> &VerifiedIo {
        self.bystander.as_ref().unwrap()
    }

    /// While a hostile act goes on: the process lives and the bystander's I/O goes on, each command of it in time.
    pub fn assert_undisturbed(&mut self, what: &str) {
        self.vstgt.assert_alive();
        self.bystander().assert_goes_on();
        let longest = self.bystander().take_longest();
        assert!(longest < UNDISTURBED, "{what}: the other guest's commands took {longest:?}");
    }

    /// The same, and the socket that is attacked serves whoever comes next.
    pub fn assert_serves(&mut self, what: &str) {
        self.assert_undisturbed(what);
        let mut next = self.guest();
        next.check_io(1);
        next.stop();
    }

    /// After a hostile act, with nothing of it connected any more: all of the above, and no descriptor, thread or mapping is left of it.
    pub fn check(&mut self, what: &str) {
        self.assert_serves(what);
        let mut now = Holdings::of(&self.vstgt);
        let start = Instant::now();
        while !now.fit_in(self.before) {
            assert!(start.elapsed() < BOUND, "{what}: left {now:?}, there was {:?}", self.before);
            std::thread::sleep(Duration::from_millis(2));
            now = Holdings::of(&self.vstgt);
        }
        println!("{what}: survived");
    }

    pub fn end(self) {
        self.end_having_kept(GROWTH);
    }

    /// The same where the allocator may keep so much more (in KiB) for the next use.
    pub fn end_having_kept(mut self, most: u64) {
        let grown = self.vstgt.anonymous_kib().saturating_sub(self.memory_before);
        println!("grown by {grown} KiB; the other guest's commands took at most {:?}", self.bystander().longest());
        assert!(grown < most, "grown by {grown} KiB");
        drop(self.bystander.take().unwrap().finish());
        self.vstgt.stop();
    }
}

/// Tells threads to stop when it goes, be it by a failure: else they would be waited for for ever.
pub struct Stopping<'a>(pub &'a AtomicBool);

impl Drop for Stopping<'_> {
    fn drop(&mut self) {
        self.0.store(true, Ordering::Relaxed);
    }
}

/// Whether the other side has closed, without waiting.
pub fn is_closed(guest: &Guest) -> bool {
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
pub fn outcome_on(guest: &mut Guest, ring: u16) -> Outcome {
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
pub struct Parts {
    pub header: u64,
    pub response: u64,
    pub data: u64,
}

pub fn parts(guest: &Guest, cdb: &[u8]) -> Parts {
    let header = guest.ram.alloc(51);
    guest.ram.write(header, &Guest::header(lun(0, 0), cdb));
    let response = guest.ram.alloc(108);
    guest.ram.write(response, &[0xff; 108]);
    Parts { header, response, data: guest.ram.alloc(65536) }
}
