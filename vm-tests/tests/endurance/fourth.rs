//! The fourth nexus: a front-end of ours, beside the guests, on blocks of its own of the disk they share. It writes, reads and flushes on two queues, and
//! sends what Linux's driver never sends by itself: ABORT TASK, ABORT TASK SET, QUERY TASK.
//!
//! It is judged as it goes: every command and function is answered once, in a way that something gives reason for; a function that is answered
//! has ended what it covers; a block holds what was last written, or, after a command that was ended, that or what was there before. It connects
//! again whenever vstgt has gone, and goes away and comes anew when it is told to, with commands under way.
#![allow(unsafe_code, clippy::unwrap_used, clippy::expect_used, clippy::panic, reason = "test code")]

use crate::front_end::guest::{HEADER, RESPONSE, lun};
use crate::front_end::{Buffer, Guest, Queue, Ram, Response};
use crate::random::Random;
use std::collections::BTreeMap;
use std::os::fd::AsRawFd;
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

const CONTROL: u16 = 0;
const RINGS: [u16; 2] = [2, 3];
/// Commands under way, each with blocks of its own.
const SLOTS: usize = 8;
/// Blocks of a slot, of 512 bytes.
const BLOCKS: usize = 16;
const BLOCK: usize = 512;

/// However slow the machine: what is so old is not going to be answered.
const TOO_OLD: Duration = Duration::from_secs(120);

/// Between two looks: the guests need the processors.
const REST: Duration = Duration::from_millis(2);

const ABORT_TASK: u32 = 0;
const ABORT_TASK_SET: u32 = 1;
const QUERY_TASK: u32 = 6;

/// What others do to it, and the test tells it.
#[derive(Debug, Default)]
pub struct Shared {
    stop: AtomicBool,
    /// How often it was to come anew, and how often it has.
    asked: AtomicU64,
    done: AtomicU64,
    /// Answers so far.
    pub answers: AtomicU64,
    /// Begun and ended LOGICAL UNIT RESETs: while this is odd, and when it has changed, commands may have been reset.
    pub resets: AtomicU64,
    /// REGISTERs that were done.
    pub registers: AtomicU64,
}

/// How often each kind of thing was answered, and how.
pub type Counts = BTreeMap<String, u64>;

/// It, on a thread of its own.
pub struct Fourth {
    thread: Option<JoinHandle<Counts>>,
    pub shared: Arc<Shared>,
}

impl Fourth {
    /// Connects, registers `key`, and begins. Its blocks begin at `lba`.
    pub fn start(socket: &Path, key: u64, lba: u64, seed: u64) -> Fourth {
        let shared = Arc::new(Shared::default());
        let (socket, theirs) = (socket.to_owned(), Arc::clone(&shared));
        let thread = std::thread::spawn(move || Nexus::new(socket, key, lba, Random::new(seed), theirs).run());
        let fourth = Fourth { thread: Some(thread), shared };
        fourth.wait_for("registers", || fourth.shared.registers.load(Ordering::SeqCst) > 0);
        fourth
    }

    /// Goes away in the middle of what it does, and comes anew.
    pub fn remake(&self) {
        let wanted = self.shared.asked.fetch_add(1, Ordering::SeqCst) + 1;
        self.wait_for("comes anew", || self.shared.done.load(Ordering::SeqCst) == wanted);
    }

    /// Waits until some more was answered.
    pub fn goes_on(&self) {
        let before = self.shared.answers.load(Ordering::SeqCst);
        self.wait_for("goes on", || self.shared.answers.load(Ordering::SeqCst) > before + 20);
    }

    fn wait_for(&self, what: &str, done: impl Fn() -> bool) {
        let start = Instant::now();
        while !done() {
            let failed = self.thread.as_ref().is_none_or(JoinHandle::is_finished);
            assert!(!failed, "the fourth nexus failed before it {what}");
            assert!(start.elapsed() < TOO_OLD, "the fourth nexus {what}: not in time");
            std::thread::sleep(Duration::from_millis(5));
        }
    }

    /// Ends it: everything is answered, and what it wrote is there.
    pub fn finish(mut self) -> Counts {
        self.shared.stop.store(true, Ordering::SeqCst);
        self.thread.take().expect("it runs").join().expect("the fourth nexus found nothing wrong")
    }
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum What {
    Write,
    Read,
    Flush,
}

#[derive(Clone, Debug)]
struct Task {
    number: u64,
    what: What,
    first: usize,
    count: usize,
    head: u16,
    since: Instant,
    /// What `resets` was.
    resets: u64,
    /// A function that may end it was under way at some moment.
    may_abort: bool,
}

struct Slot {
    ring: u16,
    header: u64,
    response: u64,
    data: u64,
    task: Option<Task>,
    /// What may be in each block.
    held: Vec<Vec<u64>>,
}

/// A task management function under way.
#[derive(Debug)]
struct Function {
    subtype: u32,
    head: u16,
    since: Instant,
    /// Slots and numbers of what it ends.
    covers: Vec<(usize, u64)>,
}

struct Nexus {
    socket: PathBuf,
    key: u64,
    lba: u64,
    random: Random,
    shared: Arc<Shared>,
    guest: Guest,
    slots: Vec<Slot>,
    request: u64,
    function: Option<Function>,
    number: u64,
    counts: Counts,
}

fn attached(socket: &Path) -> Guest {
    Guest::attached_tracked(socket, Ram::new(1 << 20), &[CONTROL, 1, RINGS[0], RINGS[1]], 64)
}

impl Nexus {
    fn new(socket: PathBuf, key: u64, lba: u64, random: Random, shared: Arc<Shared>) -> Nexus {
        let guest = attached(&socket);
        let slot = |at: usize| Slot {
            ring: RINGS[at % 2],
            header: 0,
            response: 0,
            data: 0,
            task: None,
            // The image is new.
            held: vec![vec![0]; BLOCKS],
        };
        let slots = (0..SLOTS).map(slot).collect();
        let (request, function, counts) = (0, None, Counts::new());
        let mut nexus = Nexus { socket, key, lba, random, shared, guest, slots, request, function, number: 0, counts };
        nexus.settle();
        nexus
    }

    /// Places in new memory, and a registration.
    fn settle(&mut self) {
        let ram = self.guest.ram.clone();
        for slot in &mut self.slots {
            slot.header = ram.alloc(HEADER.into());
            slot.response = ram.alloc(RESPONSE.into());
            slot.data = ram.alloc((BLOCKS * BLOCK) as u64);
        }
        self.request = ram.alloc(64);
        let keys = [0u64.to_be_bytes(), self.key.to_be_bytes(), [0; 8]].concat();
        for _ in 0..8 {
            let answer = self.register(&keys);
            if answer.good() {
                self.shared.registers.fetch_add(1, Ordering::SeqCst);
                return;
            }
            assert_eq!(answer.sense_code().map(|code| code.0), Some(6), "{answer:?}");
            self.count("REGISTER AND IGNORE EXISTING KEY: UNIT ATTENTION");
        }
        panic!("unit attentions do not end");
    }

    fn register(&mut self, keys: &[u8]) -> Response {
        let slot = &self.slots[0];
        let (header, response, data) = (slot.header, slot.response, slot.data);
        self.guest.ram.write(data, keys);
        let cdb = [0x5f, 6, 0, 0, 0, 0, 0, 0, 24, 0];
        let (head, _) = self.guest.submit_at(RINGS[0], header, response, &cdb, &[Buffer::out(data, 24)], &[]);
        let start = Instant::now();
        loop {
            if let Some((used, len)) = self.guest.queue(RINGS[0]).pop_used() {
                assert_eq!(used, head);
                return self.guest.parse_response(response, len);
            }
            assert!(start.elapsed() < TOO_OLD, "REGISTER is not answered");
            self.stay_connected();
            std::thread::sleep(REST);
        }
    }

    fn count(&mut self, what: &str) {
        *self.counts.entry(what.to_owned()).or_default() += 1;
    }

    fn run(mut self) -> Counts {
        loop {
            let stopping = self.shared.stop.load(Ordering::SeqCst);
            let asked = self.shared.asked.load(Ordering::SeqCst);
            self.stay_connected();
            self.poll();
            let idle = self.function.is_none() && self.slots.iter().all(|slot| slot.task.is_none());
            if asked > self.shared.done.load(Ordering::SeqCst) && !idle {
                self.come_anew();
                self.shared.done.store(asked, Ordering::SeqCst);
            }
            if stopping && idle {
                self.read_all();
                return self.counts;
            }
            if !stopping {
                self.fill();
                self.manage();
            }
            self.check_age();
            std::thread::sleep(REST);
        }
    }

    /// Closes its connection and forgets its memory, with what is under way; then connects as a new front-end does.
    fn come_anew(&mut self) {
        for slot in &mut self.slots {
            slot.task = None;
        }
        self.function = None;
        // First the old connection's end, for the new one begins with the end of its commands.
        self.guest = Guest::over(UnixStream::pair().unwrap().0, Ram::new(8192));
        self.guest = attached(&self.socket);
        self.settle();
        self.count("came anew");
    }

    fn stay_connected(&mut self) {
        if !is_over(&self.guest) {
            return;
        }
        let start = Instant::now();
        while !self.guest.reconnect(&self.socket) {
            assert!(start.elapsed() < TOO_OLD, "vstgt does not come back");
            std::thread::sleep(Duration::from_millis(5));
        }
        self.guest.queues.iter().for_each(Queue::kick);
        self.count("connected again");
    }

    fn poll(&mut self) {
        // The control queue first: what a function covers is in the used rings before the function's answer is.
        let functions: Vec<_> = std::iter::from_fn(|| self.guest.queue(CONTROL).pop_used()).collect();
        for ring in RINGS {
            while let Some((head, len)) = self.guest.queue(ring).pop_used() {
                self.answered(ring, head, len);
            }
        }
        for (head, len) in functions {
            self.function_answered(head, len);
        }
    }

    fn answered(&mut self, ring: u16, head: u16, len: u32) {
        let is_it = |slot: &Slot| slot.ring == ring && slot.task.as_ref().is_some_and(|task| task.head == head);
        let at = self.slots.iter().position(is_it);
        let at = at.unwrap_or_else(|| panic!("head {head} of ring {ring} is nobody's: answered twice?"));
        let task = self.slots[at].task.take().unwrap();
        let answer = self.guest.parse_response(self.slots[at].response, len);
        let well = answer.good();
        let data = if well && task.what == What::Read { task.count * BLOCK } else { 0 };
        assert_eq!(answer.used_len, RESPONSE + data as u32, "{task:?} {answer:?}");
        let resets = self.shared.resets.load(Ordering::SeqCst);
        let outcome = match (answer.response, answer.status, answer.sense_code()) {
            (0, 0, None) => "GOOD",
            // Registrants of a reservation that is released, and all after a reset, a restart with too long a pause, or a new login.
            (0, 2, Some((6, 0x29 | 0x2a, _))) => "UNIT ATTENTION",
            (2, 0, None) if task.may_abort => "ABORTED",
            (4, 0, None) if task.resets % 2 == 1 || task.resets != resets => "RESET",
            _ => panic!("nothing happened that could have this answer: {task:?} {answer:?}"),
        };
        self.shared.answers.fetch_add(1, Ordering::SeqCst);
        self.count(&format!("{:?}: {outcome}", task.what));
        let range = task.first..task.first + task.count;
        match (task.what, outcome) {
            (What::Write, "GOOD") => {
                // The newest is what it wrote.
                self.slots[at].held[range].iter_mut().for_each(|held| *held = held.split_off(held.len() - 1));
            }
            (What::Write, "UNIT ATTENTION") => {
                self.slots[at].held[range].iter_mut().for_each(|held| held.truncate(held.len() - 1));
            }
            (What::Read, "GOOD") => {
                let bytes = self.guest.ram.read(self.slots[at].data, task.count * BLOCK);
                for (block, bytes) in range.zip(bytes.chunks(BLOCK)) {
                    self.check(at, block, bytes);
                }
            }
            _ => {}
        }
    }

    fn check(&mut self, at: usize, block: usize, bytes: &[u8]) {
        let stamp = u64::from_le_bytes(bytes[..8].try_into().unwrap());
        assert!(bytes.chunks(8).all(|chunk| chunk == stamp.to_le_bytes()), "slot {at} block {block} is torn");
        let held = &mut self.slots[at].held[block];
        assert!(held.contains(&stamp), "slot {at} block {block} has {stamp:#x}, not one of {held:x?}");
        *held = vec![stamp];
    }

    fn fill(&mut self) {
        for at in 0..SLOTS {
            if self.slots[at].task.is_none() && self.random.percent(40) {
                let what = match self.random.below(100) {
                    0..50 => What::Write,
                    50..96 => What::Read,
                    _ => What::Flush,
                };
                self.post(at, what);
            }
        }
    }

    fn post(&mut self, at: usize, what: What) {
        self.number += 1;
        let number = self.number;
        let first = self.random.below(BLOCKS as u64) as usize;
        let count = 1 + self.random.below((BLOCKS - first) as u64) as usize;
        let (first, count) = if what == What::Flush { (0, 0) } else { (first, count) };
        let slot = &mut self.slots[at];
        let lba = (self.lba as usize + at * BLOCKS + first) as u32;
        let opcode = match what {
            What::Write => 0x2a,
            What::Read => 0x28,
            What::Flush => 0x35,
        };
        let l = lba.to_be_bytes();
        let cdb = [opcode, 0, l[0], l[1], l[2], l[3], 0, 0, count as u8, 0];
        let mut header = Guest::header(lun(0, 0), &cdb);
        header[8..16].copy_from_slice(&number.to_le_bytes());
        let ram = &self.guest.ram;
        ram.write(slot.header, &header);
        ram.write(slot.response, &[0xff; RESPONSE as usize]);
        let bytes = (count * BLOCK) as u32;
        let mut chain = vec![Buffer::out(slot.header, HEADER)];
        if what == What::Write {
            for block in 0..count {
                let stamp = number << 8 | block as u64;
                ram.write(slot.data + (block * BLOCK) as u64, &stamp.to_le_bytes().repeat(BLOCK / 8));
                slot.held[first + block].push(stamp);
            }
            chain.push(Buffer::out(slot.data, bytes));
        }
        chain.push(Buffer::input(slot.response, RESPONSE));
        if what == What::Read {
            ram.write(slot.data, &vec![0xee; count * BLOCK]);
            chain.push(Buffer::input(slot.data, bytes));
        }
        let resets = self.shared.resets.load(Ordering::SeqCst);
        let may_abort = self.function.as_ref().is_some_and(|function| function.subtype == ABORT_TASK_SET);
        let queue = self.guest.queue(slot.ring);
        let head = queue.push(&chain);
        slot.task = Some(Task { number, what, first, count, head, since: Instant::now(), resets, may_abort });
        queue.kick();
    }

    /// Sends a function now and then, one at a time.
    fn manage(&mut self) {
        if self.function.is_some() || !self.random.percent(8) {
            return;
        }
        let under_way = |(at, slot): (usize, &Slot)| slot.task.as_ref().map(|task| (at, task.number));
        let tasks: Vec<(usize, u64)> = self.slots.iter().enumerate().filter_map(under_way).collect();
        let subtype = match self.random.below(10) {
            0..6 => ABORT_TASK,
            6..8 => ABORT_TASK_SET,
            _ => QUERY_TASK,
        };
        let one = tasks.get(self.random.below(tasks.len() as u64) as usize).copied();
        let covers = match subtype {
            ABORT_TASK => one.into_iter().collect(),
            ABORT_TASK_SET => tasks,
            _ => Vec::new(),
        };
        // Now and then a task that was over long ago.
        let id = one.filter(|_| self.random.percent(95)).map_or(1, |(_, number)| number);
        let covers = if subtype == ABORT_TASK && id == 1 { Vec::new() } else { covers };
        for &(at, _) in &covers {
            self.slots[at].task.iter_mut().for_each(|task| task.may_abort = true);
        }
        let id = if subtype == ABORT_TASK_SET { 0 } else { id };
        let mut bytes = [0u32.to_le_bytes(), subtype.to_le_bytes()].concat();
        bytes.extend(lun(0, 0));
        bytes.extend(id.to_le_bytes());
        self.guest.ram.write(self.request, &bytes);
        self.guest.ram.write(self.request + 32, &[0xee]);
        let chain = [Buffer::out(self.request, 24), Buffer::input(self.request + 32, 1)];
        let queue = self.guest.queue(CONTROL);
        let head = queue.push(&chain);
        queue.kick();
        self.function = Some(Function { subtype, head, since: Instant::now(), covers });
    }

    fn function_answered(&mut self, head: u16, len: u32) {
        let function = self.function.take().expect("a function that was sent: answered twice?");
        assert_eq!((head, len), (function.head, 1), "{function:?}");
        let response = self.guest.ram.read(self.request + 32, 1)[0];
        let name = match (function.subtype, response) {
            (ABORT_TASK, 0) => "ABORT TASK",
            (ABORT_TASK_SET, 0) => "ABORT TASK SET",
            (QUERY_TASK, 0) => "QUERY TASK: not there",
            (QUERY_TASK, 10) => "QUERY TASK: there",
            _ => panic!("{function:?} was answered with {response}"),
        };
        for &(at, number) in &function.covers {
            let task = self.slots[at].task.as_ref().filter(|task| task.number == number);
            assert!(task.is_none(), "{function:?} is answered, but not {task:?}");
        }
        self.count(name);
    }

    fn check_age(&self) {
        let tasks = self.slots.iter().filter_map(|slot| slot.task.as_ref());
        let old: Vec<_> = tasks.filter(|task| task.since.elapsed() > TOO_OLD).collect();
        assert!(old.is_empty(), "not answered in time: {old:?}");
        let function = self.function.as_ref().filter(|function| function.since.elapsed() > TOO_OLD);
        assert!(function.is_none(), "not answered in time: {function:?}");
    }

    /// Every block holds what it must.
    fn read_all(&mut self) {
        for at in 0..SLOTS {
            for first in 0..BLOCKS {
                let mut bytes = None;
                // Unit attentions may be pending.
                for _ in 0..8 {
                    let (ram, slot) = (self.guest.ram.clone(), &self.slots[at]);
                    let (header, response, data) = (slot.header, slot.response, slot.data);
                    let l = ((self.lba as usize + at * BLOCKS + first) as u32).to_be_bytes();
                    let cdb = [0x28, 0, l[0], l[1], l[2], l[3], 0, 0, 1, 0];
                    let input = [Buffer::input(data, BLOCK as u32)];
                    self.guest.submit_at(RINGS[0], header, response, &cdb, &[], &input);
                    let (_, len) = self.guest.queue(RINGS[0]).wait_used(TOO_OLD).expect("an answer in time");
                    if self.guest.parse_response(response, len).good() {
                        bytes = Some(ram.read(data, BLOCK));
                        break;
                    }
                }
                self.check(at, first, &bytes.expect("READ ends with GOOD at last"));
            }
        }
    }
}

/// Whether vstgt has gone.
fn is_over(guest: &Guest) -> bool {
    let mut byte = 0u8;
    // SAFETY: a buffer of one byte of ours.
    let n = unsafe {
        let flags = libc::MSG_PEEK | libc::MSG_DONTWAIT;
        libc::recv(guest.wire.0.as_raw_fd(), (&raw mut byte).cast(), 1, flags)
    };
    n == 0 || n < 0 && std::io::Error::last_os_error().kind() != std::io::ErrorKind::WouldBlock
}
