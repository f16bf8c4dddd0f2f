//! What a command costs once everything has grown: no allocation on a reactor, whether the image is read on its ring or inline.
//!
//! This program's allocator counts what reactor threads ask it for; the host runs in this process, its guest comes through
//! the socket.
#![allow(
    unsafe_code,
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    missing_docs,
    reason = "test code; an allocator is unsafe to be one"
)]

mod frontend;

use std::alloc::{GlobalAlloc, Layout, System};
use std::cell::Cell;
use std::fs::File;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use frontend::guest::{HEADER, LINUX_FEATURES, RESPONSE, connect, rw10};
use frontend::{BOUND, Buffer, Guest, Ram, watchdog};
use vstgt::backing::{self, EngineChoice, OpenOptions};
use vstgt::hba::{Hba, HbaSetup, WaitKind};
use vstgt::lu::{Lu, LuSetup};
use vstgt::sys::wait::probe_io_uring;
use vstgt::target::{Target, TargetSetup, UnitMapping};
use vstgt::vhost_user::{DEFAULT_MODE, Endpoint, Listener, Options, Server};

/// Counts for reactor threads, else is the system's.
struct Counting;

#[global_allocator]
static ALLOCATOR: Counting = Counting;

/// Allocations of reactor threads so far.
static COUNT: AtomicU64 = AtomicU64::new(0);

thread_local! {
    /// Whether this is a reactor's thread, once that is known. It needs no allocation and no destructor.
    static REACTOR: Cell<Option<bool>> = const { Cell::new(None) };
}

fn on_reactor() -> bool {
    let known = REACTOR.get();
    known.unwrap_or_else(|| {
        let mut name = [0u8; 16];
        // SAFETY: the name of a thread has at most 16 bytes, the last one zero.
        unsafe { libc::prctl(libc::PR_GET_NAME, name.as_mut_ptr()) };
        let is = name.starts_with(b"vstgt-reactor");
        // A thread allocates before it has its name.
        if is {
            REACTOR.set(Some(true));
        }
        is
    })
}

// SAFETY: all is the system allocator's, which keeps the promises.
unsafe impl GlobalAlloc for Counting {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        if on_reactor() {
            COUNT.fetch_add(1, Ordering::Relaxed);
        }
        // SAFETY: the caller's promise is handed on.
        unsafe { System.alloc(layout) }
    }

    unsafe fn dealloc(&self, ptr: *mut u8, layout: Layout) {
        // SAFETY: the caller's promise is handed on.
        unsafe { System.dealloc(ptr, layout) }
    }
}

const MIB: u64 = 1 << 20;

/// One disk, one initiator port, two reactors.
struct Host {
    hba: Hba,
    server: Server,
    socket: PathBuf,
    inline: bool,
    _dir: tempfile::TempDir,
}

impl Host {
    fn start(wait: WaitKind, place: &Path, engine: EngineChoice) -> Host {
        let dir = tempfile::tempdir_in(place).unwrap();
        let path = dir.path().join("disk.img");
        File::create(&path).unwrap().set_len(16 * MIB).unwrap();
        let image =
            backing::open(&OpenOptions { path, read_only: false, block_size: 512, shared: false, engine }).unwrap();
        let inline = image.capabilities().never_waits;
        let lu = Lu::new(LuSetup::new(image, 0x3000_0000_0000_0001, "S1".to_owned())).unwrap();
        let units = vec![UnitMapping { target: 0, lun: 0, lu, initiators: None }];
        let target = Target::new(TargetSetup { shards: 2, hosts: vec![0], units, names: Vec::new() }).unwrap();
        let hba = Hba::start(HbaSetup {
            reactors: 2,
            wait,
            target,
            target_port: "t".to_owned(),
            host_no: 0,
            request_queues: 254,
            nexus_loss_timeout: Duration::from_secs(60),
            trace_events: false,
        })
        .unwrap();
        let socket = dir.path().join("a.sock");
        let listener = Listener::bind(&socket, DEFAULT_MODE).unwrap();
        let port = hba.add_ports(&["a".to_owned()]).remove(0);
        let endpoint = Endpoint::listening(listener, "a", hba.connect(port));
        let server = Server::start(vec![endpoint], Options::default()).unwrap();
        Host { hba, server, socket, inline, _dir: dir }
    }

    fn stop(self) {
        self.server.stop(BOUND).unwrap();
        self.hba.stop();
    }
}

/// A batch of reads and writes of several sizes, pieces and rings, all under way at once.
fn batch(guest: &mut Guest, places: &[[u64; 3]]) {
    for (i, &[header, response, data]) in places.iter().enumerate() {
        let len = [512, 4096, 65536][i % 3];
        let half = len / 2;
        // Two pieces that do not adjoin, so that a list of pieces is needed.
        let pieces = |buffer: fn(u64, u32) -> Buffer| [buffer(data, half), buffer(data + 65536, half)];
        let ring = 2 + (i % 2) as u16;
        let lba = 256 * i as u32;
        match i % 4 {
            0 => guest.submit_at(ring, header, response, &rw10(0x2a, lba, len as usize), &pieces(Buffer::out), &[]),
            _ => guest.submit_at(ring, header, response, &rw10(0x28, lba, len as usize), &[], &pieces(Buffer::input)),
        };
    }
    for i in 0..places.len() {
        guest.queue(2 + (i % 2) as u16).wait_used(BOUND).expect("an answer in time");
    }
    for &[_, response, _] in places {
        assert!(guest.parse_response(response, 0).good());
    }
}

/// Allocations on reactors while so many commands run, after a warm-up.
fn allocations(host: &Host, commands: usize) -> u64 {
    const DEPTH: usize = 32;
    let mut guest = Guest::over(connect(&host.socket), Ram::new(16 << 20));
    guest.negotiate();
    guest.start(LINUX_FEATURES, &[0, 1, 2, 3], 256);
    guest.clear_attentions();
    let ram = guest.ram.clone();
    let place = |_| [ram.alloc(HEADER.into()), ram.alloc(RESPONSE.into()), ram.alloc(2 * 65536)];
    let places: Vec<_> = (0..DEPTH).map(place).collect();
    // What is asked for is the same each time, but descriptor heads are not: each head's vectors have to grow once.
    for _ in 0..100 {
        batch(&mut guest, &places);
    }
    let before = COUNT.load(Ordering::Relaxed);
    for _ in 0..commands / DEPTH {
        batch(&mut guest, &places);
    }
    COUNT.load(Ordering::Relaxed) - before
}

fn no_allocations(wait: WaitKind, place: &Path, engine: EngineChoice) {
    watchdog(Duration::from_secs(300));
    let host = Host::start(wait, place, engine);
    assert_eq!(host.inline, engine == EngineChoice::Auto, "another engine than the one meant");
    let before = COUNT.load(Ordering::Relaxed);
    let found = allocations(&host, 10_000);
    assert!(COUNT.load(Ordering::Relaxed) > before, "reactors are not counted");
    assert_eq!(found, 0, "allocations for 10,000 commands ({wait:?}, {})", place.display());
    host.stop();
}

/// One test, for the count is the whole program's.
#[test]
fn commands_allocate_nothing() {
    no_allocations(WaitKind::Epoll, Path::new("/dev/shm"), EngineChoice::Auto);
    if probe_io_uring() {
        no_allocations(WaitKind::IoUring, Path::new("/dev/shm"), EngineChoice::Auto);
        no_allocations(WaitKind::IoUring, Path::new(env!("CARGO_TARGET_TMPDIR")), EngineChoice::IoUring);
    }
}
