//! What a command costs once everything has grown to its size: nothing is allocated for it.
#![allow(unsafe_code, clippy::unwrap_used, clippy::expect_used, clippy::panic, missing_docs, reason = "test code")]

mod drive;
mod frontend;
mod held;

use std::alloc::{GlobalAlloc, Layout, System};
use std::cell::Cell;
use std::fs::File;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use vstgt::backing::{EngineChoice, Image, OpenOptions, open};
use vstgt::hba::WaitKind;

use frontend::guest::{LINUX_FEATURES, connect, rw10};
use frontend::{BOUND, Buffer, Guest, Ram};
use held::{kinds, serve};

/// Counts what all threads allocate but those that say that they are the guest.
struct Counting;

static ALLOCATIONS: AtomicU64 = AtomicU64::new(0);

thread_local! {
    static IS_GUEST: Cell<bool> = const { Cell::new(false) };
}

fn count() {
    if !IS_GUEST.try_with(Cell::get).unwrap_or(true) {
        ALLOCATIONS.fetch_add(1, Ordering::Relaxed);
    }
}

// SAFETY: everything is passed on to the system's allocator.
unsafe impl GlobalAlloc for Counting {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        count();
        // SAFETY: the caller's promise is passed on.
        unsafe { System.alloc(layout) }
    }

    unsafe fn dealloc(&self, ptr: *mut u8, layout: Layout) {
        // SAFETY: the caller's promise is passed on.
        unsafe { System.dealloc(ptr, layout) }
    }

    unsafe fn realloc(&self, ptr: *mut u8, layout: Layout, new_size: usize) -> *mut u8 {
        count();
        // SAFETY: the caller's promise is passed on.
        unsafe { System.realloc(ptr, layout, new_size) }
    }
}

#[global_allocator]
static ALLOCATOR: Counting = Counting;

const COMMANDS: u32 = 4000;
const DEPTH: u32 = 16;

/// Reads at some depth through two rings, one on each reactor. Each has a buffer of its own, so that the guest does not run out.
fn reads(guest: &mut Guest, slots: &[(u64, u64, u64)], count: u32) {
    for round in 0..count / DEPTH / 2 {
        for ring in [2, 3] {
            for (i, &(header, response, data)) in (0..DEPTH).zip(slots) {
                guest.ram.write(
                    header,
                    &Guest::header([1, 0, 0, 0, 0, 0, 0, 0], &rw10(0x28, (round * DEPTH + i) % 1000, 4096)),
                );
                let chain = [Buffer::out(header, 51), Buffer::input(response, 108), Buffer::input(data, 4096)];
                guest.queue(ring).push(&chain);
            }
            guest.queue(ring).kick();
            for _ in 0..DEPTH {
                guest.queue(ring).wait_used(BOUND).expect("an answer in time");
            }
        }
    }
    let (_, response, _) = slots[0];
    assert!(guest.parse_response(response, 0).good());
}

fn allocations_of_reads(image: &Path, engine: EngineChoice, wait: WaitKind) -> u64 {
    let open = || {
        let options = OpenOptions { read_only: true, engine, ..OpenOptions::new(image) };
        open(&options).unwrap()
    };
    let images: [Arc<dyn Image>; 3] = [open(), open(), open()];
    let (hba, server, dir) = serve(wait, images);
    IS_GUEST.set(true);
    let mut guest = Guest::over(connect(&dir.path().join("a")), Ram::new(16 << 20));
    guest.negotiate();
    guest.start(LINUX_FEATURES, &[0, 1, 2, 3], 128);
    guest.clear_attentions();
    let slots: Vec<_> =
        (0..DEPTH).map(|_| (guest.ram.alloc(51), guest.ram.alloc(108), guest.ram.alloc(4096))).collect();
    reads(&mut guest, &slots, COMMANDS);
    let before = ALLOCATIONS.load(Ordering::Relaxed);
    reads(&mut guest, &slots, COMMANDS);
    let count = ALLOCATIONS.load(Ordering::Relaxed) - before;
    drop(guest);
    IS_GUEST.set(false);
    server.stop(BOUND).unwrap();
    hba.stop();
    count
}

fn image_in(directory: &Path) -> (tempfile::TempDir, PathBuf) {
    let dir = tempfile::tempdir_in(directory).unwrap();
    let path = dir.path().join("disk.img");
    File::create(&path).unwrap().set_len(16 << 20).unwrap();
    (dir, path)
}

/// One test, for the count is the whole program's.
#[test]
fn a_command_allocates_nothing() {
    // Answered inline, if this is a tmpfs; else as below.
    let (_shm, inline) = image_in(Path::new("/dev/shm"));
    let (_tmp, on_disk) = image_in(&std::env::temp_dir());
    for wait in kinds() {
        // A thread is handed each of its operations in a box.
        let (engine, boxes) = match wait {
            WaitKind::IoUring => (EngineChoice::IoUring, 0),
            WaitKind::Epoll => (EngineChoice::Threads, u64::from(COMMANDS)),
        };
        for (image, engine, allowed) in [(&inline, EngineChoice::Auto, 0), (&on_disk, engine, boxes)] {
            let count = allocations_of_reads(image, engine, wait);
            println!("{wait:?} {}: {count} allocations in {COMMANDS} commands", image.display());
            assert!(count <= allowed + 50, "{wait:?}: {count} allocations in {COMMANDS} commands");
        }
    }
}
