//! The one suite that every image and every engine faces.
//!
//! A [`Case`] is a place (a disk's file system, tmpfs, a block device) × how the image is opened × an engine. Each test runs on all
//! cases that this machine has; only io_uring, and direct I/O, may be missing from one. Block devices are loop devices,
//! which takes a privileged user: they are there if `VSTGT_TEST_LOOP_DEVICES` is set.
#![allow(clippy::unwrap_used, clippy::panic, reason = "test code")]

mod atomic;
mod basics;
mod copy;
mod engines;
mod full;
mod guest;
mod large;
mod map;
mod random;
mod resize;
mod tear;

use std::collections::HashMap;
use std::fs::File;
use std::os::fd::AsFd;
use std::os::unix::fs::{FileExt, MetadataExt};
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::Arc;
use std::time::{Duration, Instant};

use super::{
    BackingError, Completion, EngineChoice, Image, IoPort, Locking, MemoryBudget, Op, OpKind, OpenError, OpenOptions,
    Submit, open,
};
use crate::mem::IoBuf;
use crate::sys::mailbox::Waker;
use crate::sys::ring::{Ring, probe_io_uring};
use crate::sys::wait::{EpollWait, UringWait, Wait};

const MIB: u64 = 1 << 20;

/// Where an image lies.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Place {
    /// Beside the test binary: on the file system the repository is built on.
    Disk,
    /// On tmpfs.
    Memory,
    /// A loop device over a file on disk.
    Device,
}

/// Which engine does the I/O.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Engine {
    Uring,
    Inline,
    Mapped,
    Threads,
}

impl Engine {
    /// It is done when `submit` returns.
    fn on_reactor(self) -> bool {
        matches!(self, Engine::Inline | Engine::Mapped)
    }
}

#[derive(Clone, Copy, Debug)]
struct Case {
    place: Place,
    shared: bool,
    engine: Engine,
}

/// A file that goes away by itself, in the given place.
fn scratch(place: Place) -> tempfile::TempDir {
    let binary = std::env::current_exe().unwrap();
    let dir = match place {
        Place::Disk | Place::Device => binary.parent().unwrap(),
        Place::Memory => Path::new("/dev/shm"),
    };
    tempfile::Builder::new().prefix("vstgt-test-").tempdir_in(dir).unwrap()
}

fn places() -> Vec<Place> {
    let mut places = vec![Place::Disk, Place::Memory];
    places.extend(std::env::var_os("VSTGT_TEST_LOOP_DEVICES").map(|_| Place::Device));
    places
}

/// A loop device, detached when dropped.
struct LoopDevice(PathBuf);

impl LoopDevice {
    fn attach(file: &Path, sector: u32) -> LoopDevice {
        let sector = sector.to_string();
        let args = ["--find", "--show", "--sector-size", &sector];
        let output = Command::new("losetup").args(args).arg(file).output().unwrap();
        assert!(output.status.success(), "{output:?}");
        LoopDevice(PathBuf::from(String::from_utf8(output.stdout).unwrap().trim()))
    }
}

impl Drop for LoopDevice {
    fn drop(&mut self) {
        let status = Command::new("losetup").arg("--detach").arg(&self.0).status();
        assert!(status.is_ok_and(|status| status.success()) || std::thread::panicking());
    }
}

/// Calls `test` with each case.
fn each_case(test: impl Fn(Case)) {
    for place in places() {
        for shared in [false, true] {
            for engine in [Engine::Uring, Engine::Inline, Engine::Mapped, Engine::Threads] {
                let case = Case { place, shared, engine };
                if case.exists() {
                    println!("{case:?}");
                    test(case);
                }
            }
        }
    }
}

impl Case {
    /// Whether this case can be had at all here.
    fn exists(&self) -> bool {
        if self.place == Place::Device {
            // Direct I/O on a device is always possible, io_uring as elsewhere.
            return self.engine == Engine::Threads || self.engine == Engine::Uring && probe_io_uring();
        }
        let dir = scratch(self.place);
        let path = dir.path().join("probe");
        File::create(&path).unwrap().set_len(MIB).unwrap();
        if self.engine.on_reactor() {
            let inline = open(&OpenOptions::new(&path)).unwrap().capabilities().never_waits;
            assert!(inline || self.place == Place::Disk, "tmpfs is served inline");
            return inline;
        }
        match open(&self.options(&path)) {
            Ok(_) => self.engine == Engine::Threads || probe_io_uring(),
            // Latched images are not for io_uring.
            Err(OpenError::Engine { .. }) => {
                assert!(self.shared && self.engine == Engine::Uring);
                false
            }
            Err(e) => panic!("{e}"),
        }
    }

    fn options(&self, path: &Path) -> OpenOptions {
        OpenOptions {
            shared: self.shared,
            block_size: self.block() as u32,
            engine: match self.engine {
                Engine::Uring => EngineChoice::IoUring,
                Engine::Inline => EngineChoice::Inline,
                // What is chosen where there is a choice.
                Engine::Mapped => EngineChoice::Auto,
                Engine::Threads => EngineChoice::Threads,
            },
            // Some tests open an image more than once; locks have tests of their own.
            locking: Locking::Off,
            ..OpenOptions::new(path)
        }
    }

    fn block(&self) -> u64 {
        if self.shared { 4096 } else { 512 }
    }

    /// A port, and what a reactor sleeps in.
    fn port(&self) -> Door {
        Door::new(self.engine == Engine::Uring)
    }

    /// A new image of `size` bytes, all holes, with a port.
    fn rig(&self, size: u64) -> Rig {
        self.rig_in(scratch(self.place), size)
    }

    fn rig_in(&self, dir: tempfile::TempDir, size: u64) -> Rig {
        self.rig_of(dir, size, self.block())
    }

    /// The same with blocks of `block` bytes.
    fn rig_of(&self, dir: tempfile::TempDir, size: u64, block: u64) -> Rig {
        let store = dir.path().join("image");
        File::create(&store).unwrap().set_len(size).unwrap();
        let device = (self.place == Place::Device).then(|| {
            // Blocks of 512 on sectors of 4096, and the other way round.
            LoopDevice::attach(&store, if self.shared { 512 } else { 4096 })
        });
        let path = device.as_ref().map_or(store.clone(), |device| device.0.clone());
        let image = open(&OpenOptions { block_size: block as u32, ..self.options(&path) }).unwrap();
        let capabilities = image.capabilities();
        assert_eq!(image.size(), size);
        assert_eq!(capabilities.never_waits, self.engine.on_reactor());
        assert_eq!(image.raw().is_some() && self.engine == Engine::Uring, self.engine == Engine::Uring);
        assert!(self.shared || !capabilities.direct);
        match self.place {
            Place::Disk => {}
            Place::Memory => assert!(!capabilities.direct),
            Place::Device => assert_eq!(self.shared, capabilities.direct),
        }
        Rig { image, door: self.port(), path, store, _device: device, _dir: dir }
    }
}

/// A port and the wait set beside it, driven as a reactor drives them.
struct Door {
    port: IoPort,
    wait: Box<dyn Wait>,
    waker: Arc<Waker>,
    ended: Vec<Completion>,
}

impl Door {
    fn new(uring: bool) -> Door {
        let waker = Arc::new(Waker::new().unwrap());
        // A small ring, so that its queues overflow.
        let ring = uring.then(|| Ring::fixing_memory(8).unwrap());
        let mut wait: Box<dyn Wait> = match &ring {
            Some(ring) => Box::new(UringWait::new(ring.clone()).unwrap()),
            None => Box::new(EpollWait::new().unwrap()),
        };
        wait.add(waker.as_fd(), 0).unwrap();
        Door {
            port: IoPort::new(ring, Arc::clone(&waker), 6, MemoryBudget::new(1 << 40)),
            wait,
            waker,
            ended: Vec::new(),
        }
    }

    /// Takes part in the port's life until `count` operations have ended; returns them in order of their end.
    fn reap(&mut self, count: usize) -> Vec<Completion> {
        let deadline = Instant::now() + Duration::from_secs(60);
        loop {
            self.port.flush().unwrap();
            self.port.reap(&mut self.ended);
            self.port.advance();
            if self.ended.len() >= count {
                return self.ended.drain(..count).collect();
            }
            assert!(self.port.in_flight() > 0, "{} of {count} operations were lost", count - self.ended.len());
            assert!(Instant::now() < deadline, "{} operations do not end", self.port.in_flight());
            self.waker.prepare_sleep();
            self.port.reap(&mut self.ended);
            if self.ended.len() < count && !self.port.has_ended() {
                self.wait.wait(Some(Duration::from_secs(10)), &mut Vec::new()).unwrap();
            }
            self.waker.awake();
            self.waker.drain();
        }
    }

    /// Does one operation.
    fn run(&mut self, image: &Arc<dyn Image>, op: Op, buf: IoBuf) -> (Result<(), BackingError>, IoBuf) {
        assert_eq!(self.port.in_flight(), 0);
        self.port.submit(image, op, buf, 42);
        assert_eq!(self.port.in_flight(), 1);
        let ended = self.reap(1).pop().unwrap();
        assert_eq!(ended.cookie, 42);
        assert_eq!(self.port.in_flight(), 0);
        (ended.result, ended.buf)
    }
}

/// An image with a port.
struct Rig {
    image: Arc<dyn Image>,
    door: Door,
    path: PathBuf,
    /// The file that holds it: `path`, or what is behind the device.
    store: PathBuf,
    // Closed, then detached, then removed.
    _device: Option<LoopDevice>,
    _dir: tempfile::TempDir,
}

impl Rig {
    fn op(&mut self, kind: OpKind, offset: u64, len: u64) -> Result<(), BackingError> {
        self.door.run(&self.image, Op { kind, offset, len }, IoBuf::empty()).0
    }

    fn write(&mut self, offset: u64, data: &[u8]) -> Result<(), BackingError> {
        let op = Op { kind: OpKind::Write { fua: false }, offset, len: data.len() as u64 };
        self.door.run(&self.image, op, filled(data)).0
    }

    fn read(&mut self, offset: u64, len: usize) -> Result<Vec<u8>, BackingError> {
        let op = Op { kind: OpKind::Read, offset, len: len as u64 };
        let (result, buf) = self.door.run(&self.image, op, filled(&vec![0x5a; len]));
        result.map(|()| contents(&buf))
    }

    /// What another process sees in the file.
    fn file(&self, offset: u64, len: usize) -> Vec<u8> {
        let mut data = vec![0; len];
        File::open(&self.path).unwrap().read_exact_at(&mut data, offset).unwrap();
        data
    }

    /// Bytes that the file takes on its file system.
    fn allocated(&self) -> u64 {
        std::fs::metadata(&self.store).unwrap().blocks() * 512
    }
}

/// Our own memory with these bytes in it.
fn filled(data: &[u8]) -> IoBuf {
    let mut buf = IoBuf::owned(data.len(), crate::mem::Direction::Out);
    assert_eq!(buf.write_at(0, data), data.len());
    buf
}

fn contents(buf: &IoBuf) -> Vec<u8> {
    let mut data = vec![0; buf.len() as usize];
    assert_eq!(buf.read_at(0, &mut data), data.len());
    data
}

/// Takes completions by cookie; each must be there once.
fn by_cookie(ended: Vec<Completion>) -> HashMap<u64, (Result<(), BackingError>, IoBuf)> {
    let count = ended.len();
    let map: HashMap<_, _> = ended.into_iter().map(|c| (c.cookie, (c.result, c.buf))).collect();
    assert_eq!(map.len(), count, "an operation ended twice");
    map
}

/// Reproducible randomness (xorshift64*).
struct Random(u64);

impl Random {
    fn next(&mut self) -> u64 {
        self.0 ^= self.0 >> 12;
        self.0 ^= self.0 << 25;
        self.0 ^= self.0 >> 27;
        self.0.wrapping_mul(0x2545_f491_4f6c_dd1d) >> 16
    }

    /// Less than `bound`.
    fn below(&mut self, bound: u64) -> u64 {
        self.next() % bound
    }

    fn bytes(&mut self, len: usize) -> Vec<u8> {
        (0..len).map(|_| self.next() as u8).collect()
    }
}
