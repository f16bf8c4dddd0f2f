//! One initiator: commands at random on two request queues, and task management between them. What comes back is judged at once.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, missing_docs, dead_code, reason = "test code")]

use std::collections::{BTreeMap, HashMap};
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use super::Own;
use super::functions::Function;
use super::judge::{ACA_ACTIVE, AcaTimes, Attentions, CHECK_CONDITION, Judge, Rules};
use super::ledger::{Cause, Ledger, SHARED, UnitNo};
use super::random::Random;
use super::task::*;
use crate::frontend::guest::{HEADER, LINUX_FEATURES, RESPONSE};
use crate::frontend::{Buffer, Guest, Response};

/// The request queues, which the reactors share out among each other.
pub const RINGS: [u16; 2] = [2, 3];
/// Commands of a front-end on each of them.
const DEPTH: usize = 12;

/// However slow the machine: a command that is so old is not going to be answered.
const TOO_OLD: Duration = Duration::from_secs(60);

const DATA: u64 = LBAS * BLOCK;

pub struct Slot {
    ring: u16,
    header: u64,
    response: u64,
    data: u64,
    pub task: Option<Task>,
    since: Instant,
}

/// What both front-ends have in common.
pub struct Storm<'a> {
    pub ledger: &'a Ledger,
    pub own: Own,
    pub rules: Rules,
    /// Whether there are LOGICAL UNIT RESETs, which make the rules the default ones.
    pub resets: bool,
    /// How many functions each front-end sends.
    pub functions: usize,
    /// Somebody failed: nobody needs to go on.
    pub failed: &'a AtomicBool,
}

pub struct FrontEnd {
    pub who: usize,
    pub guest: Guest,
    /// How each unit is addressed: 0's own, 1's own, the shared one.
    pub luns: [[u8; 8]; 3],
    pub slots: Vec<Slot>,
    pub functions: Vec<Function>,
    /// The slot of each head of a ring.
    heads: HashMap<(u16, u16), usize>,
    pub random: Random,
    number: u64,
    /// What was read last in each block.
    seen: HashMap<(UnitNo, u64), u64>,
    pub aca: HashMap<UnitNo, AcaTimes>,
    attentions: Attentions,
    /// Answers that came: what was asked, and how it ended.
    pub counts: BTreeMap<(String, &'static str), usize>,
    /// Functions that are still to be sent.
    pub left: usize,
    /// At which units a command was answered because of an ACA condition that nobody cleared since.
    pub faulted: [bool; 3],
}

impl FrontEnd {
    /// Starts the rings of a guest that is connected.
    pub fn start(mut guest: Guest, who: usize, luns: [[u8; 8]; 3], seed: u64) -> FrontEnd {
        guest.start(LINUX_FEATURES, &[0, 1, RINGS[0], RINGS[1]], 128);
        let ram = guest.ram.clone();
        let slot = |at: usize| Slot {
            ring: RINGS[at % 2],
            header: ram.alloc(HEADER.into()),
            response: ram.alloc(RESPONSE.into()),
            data: ram.alloc(DATA),
            task: None,
            since: Instant::now(),
        };
        let slots = (0..2 * DEPTH).map(slot).collect();
        let functions = (0..4).map(|_| Function::new(&ram)).collect();
        FrontEnd {
            who,
            guest,
            luns,
            slots,
            functions,
            heads: HashMap::new(),
            random: Random::new(seed),
            number: 0,
            seen: HashMap::new(),
            aca: HashMap::new(),
            attentions: Attentions::new(),
            counts: BTreeMap::new(),
            left: 0,
            faulted: [false; 3],
        }
    }

    /// The units that it sees.
    pub fn units(&self) -> [UnitNo; 2] {
        [self.who, SHARED]
    }

    /// Takes all unit attentions of a unit.
    pub fn clear_attentions(&mut self, unit: UnitNo) -> Vec<(u8, u8, u8)> {
        let mut seen = Vec::new();
        for _ in 0..12 {
            let answer = self.one(unit, What::Ready, 0, 0);
            if answer.good() {
                return seen;
            }
            seen.push(answer.sense_code().unwrap_or_else(|| panic!("front-end {}: {answer:?}", self.who)));
        }
        panic!("unit attentions do not end: {seen:?}");
    }

    /// A command while there are no others; not judged.
    pub fn one(&mut self, unit: UnitNo, what: What, lba: u64, blocks: u64) -> Response {
        let bytes = what.parameters().unwrap_or_default();
        let input = if what == What::Read { (blocks * BLOCK) as u32 } else { 0 };
        self.raw(unit, &what.cdb(lba, blocks, false), SIMPLE, &bytes, input)
    }

    pub fn raw(&mut self, unit: UnitNo, cdb: &[u8], attribute: u8, out: &[u8], input: u32) -> Response {
        self.alone(unit, cdb, attribute, out, input).1
    }

    fn alone(&mut self, unit: UnitNo, cdb: &[u8], attribute: u8, out: &[u8], input: u32) -> (usize, Response) {
        let (at, lun) = (self.random.below(self.slots.len() as u64) as usize, self.luns[unit]);
        let head = self.put(at, lun, 1, attribute, cdb, out, input);
        let ring = self.slots[at].ring;
        let (used, len) = self.guest.queue(ring).wait_used(TOO_OLD).expect("an answer in time");
        assert_eq!(used, head);
        (at, self.guest.parse_response(self.slots[at].response, len))
    }

    /// The stamp in a block.
    pub fn read_block(&mut self, unit: UnitNo, lba: u64) -> u64 {
        let (at, answer) = self.alone(unit, &What::Read.cdb(lba, 1, false), SIMPLE, &[], BLOCK as u32);
        assert!(answer.good(), "{answer:?}");
        let stamps = stamps_of(&self.guest.ram.read(self.slots[at].data, BLOCK as usize));
        assert_eq!(stamps.len(), 1, "a whole block");
        stamps[0]
    }

    #[expect(clippy::too_many_arguments, reason = "a command has so many parts")]
    fn put(&mut self, at: usize, lun: [u8; 8], id: u64, attribute: u8, cdb: &[u8], out: &[u8], input: u32) -> u16 {
        let slot = &self.slots[at];
        let mut header = Guest::header(lun, cdb);
        header[8..16].copy_from_slice(&id.to_le_bytes());
        header[16] = attribute;
        let ram = &self.guest.ram;
        ram.write(slot.header, &header);
        ram.write(slot.response, &[0xff; RESPONSE as usize]);
        let mut chain = vec![Buffer::out(slot.header, HEADER)];
        if !out.is_empty() {
            ram.write(slot.data, out);
            chain.push(Buffer::out(slot.data, out.len() as u32));
        }
        chain.push(Buffer::input(slot.response, RESPONSE));
        if input > 0 {
            ram.write(slot.data, &vec![0xee; input as usize]);
            chain.push(Buffer::input(slot.data, input));
        }
        let queue = self.guest.queue(slot.ring);
        let head = queue.push(&chain);
        queue.kick();
        head
    }

    /// Sends and judges until all functions that were asked for are sent and everything is answered.
    pub fn run(&mut self, storm: &Storm<'_>) {
        self.left = storm.functions;
        let mut idle = 0;
        loop {
            let failed = storm.failed.load(Ordering::Relaxed);
            assert!(!failed, "the other front-end failed; here there is\n{}", self.outstanding());
            let answered = self.poll(storm);
            if self.left > 0 {
                self.fill(storm);
            } else if self.slots.iter().all(|slot| slot.task.is_none()) && self.functions.iter().all(|f| f.is_free()) {
                return;
            }
            if self.random.below(100) < 3 + 12 * answered as u64 {
                self.manage(storm);
            }
            idle = if answered > 0 { 0 } else { idle + 1 };
            if idle > 3 {
                std::thread::sleep(Duration::from_micros(self.random.below(200)));
            }
            self.check_age();
        }
    }

    /// Whoever waits too long waits for ever.
    fn check_age(&self) {
        let old = |since: Instant| since.elapsed() > TOO_OLD;
        let tasks = self.slots.iter().any(|slot| slot.task.is_some() && old(slot.since));
        if tasks || self.functions.iter().any(|f| !f.is_free() && old(f.since)) {
            panic!("not answered in time:\n{}", self.outstanding());
        }
    }

    /// What is not answered, for whoever has to find out why.
    pub fn outstanding(&self) -> String {
        let mut lines = vec![format!("front-end {}, ACA {:?}", self.who, self.aca)];
        for slot in &self.slots {
            if let Some(task) = &slot.task {
                lines.push(format!("  ring {} since {:?}: {task:?}", slot.ring, slot.since.elapsed()));
            }
        }
        for function in self.functions.iter().filter(|f| !f.is_free()) {
            lines.push(format!("  since {:?}: {function:?}", function.since.elapsed()));
        }
        lines.join("\n")
    }

    /// Takes everything that was answered; how much that was.
    fn poll(&mut self, storm: &Storm<'_>) -> usize {
        // The control queue first: what a function covers is in the used rings before the function's answer is.
        let mut functions = Vec::new();
        while let Some(used) = self.guest.queue(0).pop_used() {
            functions.push(used);
        }
        let mut count = functions.len();
        for ring in RINGS {
            while let Some((head, len)) = self.guest.queue(ring).pop_used() {
                self.answered(storm, ring, head, len);
                count += 1;
            }
        }
        for (head, len) in functions {
            self.function_answered(storm, head, len);
        }
        count
    }

    fn answered(&mut self, storm: &Storm<'_>, ring: u16, head: u16, len: u32) {
        let now = storm.ledger.now();
        let at = self.heads.remove(&(ring, head)).unwrap_or_else(|| panic!("head {head} of ring {ring} is nobody's"));
        let task = self.slots[at].task.take().expect("a task per head");
        let answer = self.guest.parse_response(self.slots[at].response, len);
        let aca = self.aca.entry(task.unit).or_default();
        if task.naca {
            aca.naca_now -= 1;
            aca.naca_until = now;
        }
        // As it was while the task was there.
        let mut aca = *aca;
        aca.naca_now += usize::from(task.naca);
        let judge = Judge { who: self.who, rules: storm.rules, ledger: storm.ledger, aca };
        let kind = judge.answer(&task, &answer, &mut self.attentions).unwrap_or_else(|why| {
            let (posted, other) = (task.posted, self.outstanding());
            panic!("front-end {} at {now}: {why}:\n{task:?}\n{answer:?}\nposted {posted}\n{other}", self.who)
        });
        let name = match task.what {
            What::PersistentReserve { action, .. } => format!("PersistentReserve {action}"),
            what => format!("{what:?}"),
        };
        *self.counts.entry((name, kind)).or_default() += 1;
        for &stamp in &task.stamps {
            storm.ledger.written(stamp, answer.good(), now);
        }
        if let Some(cause) = task.cause {
            storm.ledger.over(cause, now);
        }
        if answer.status == ACA_ACTIVE || task.naca && answer.status == CHECK_CONDITION {
            self.faulted[task.unit] = true;
        }
        if answer.good() {
            self.check_data(storm, at, &task);
        }
    }

    fn check_data(&mut self, storm: &Storm<'_>, at: usize, task: &Task) {
        let mut found = Vec::new();
        match task.what {
            What::Read => {
                let data = self.guest.ram.read(self.slots[at].data, task.input as usize);
                for (lba, block) in (task.lba..).zip(data.chunks(BLOCK as usize)) {
                    let stamps = stamps_of(block);
                    let (whole, may_mix) = (stamps.len() == 1, storm.own == Own::InPageCache && task.unit != SHARED);
                    assert!(whole || may_mix, "torn: {task:?} block {lba}: {stamps:x?}");
                    found.extend(stamps.into_iter().map(|stamp| (lba, stamp, whole)));
                }
            }
            What::CompareAndWrite => found.push((task.lba, task.expected, true)),
            _ => {}
        }
        for (lba, stamp, whole) in found {
            if let Err(why) = storm.ledger.check(stamp, task.unit, lba, task.posted) {
                panic!("front-end {}: {stamp:#x} in block {lba}: {why}\n{task:?}", self.who);
            }
            if whole {
                self.seen.insert((task.unit, lba), stamp);
            }
        }
        if !task.stamps.is_empty() {
            for (lba, &stamp) in (task.lba..).zip(&task.stamps) {
                self.seen.insert((task.unit, lba), stamp);
            }
        }
    }

    /// Puts commands into some of the slots that are free.
    fn fill(&mut self, storm: &Storm<'_>) {
        for at in 0..self.slots.len() {
            if self.slots[at].task.is_none() && self.random.percent(60) {
                self.post(storm, at);
            }
        }
    }

    fn post(&mut self, storm: &Storm<'_>, at: usize) {
        self.number += 1;
        let number = self.number;
        let random = &mut self.random;
        let unit = if random.percent(70) { SHARED } else { self.who };
        let what = what_next(random, self.who, unit);
        let is_medium = !what.is_reservation() && !matches!(what, What::Ready | What::Flush);
        let (naca, nowhere) = (random.percent(4), is_medium && random.percent(4));
        let attribute = random.weighted(&[(60, SIMPLE), (15, ORDERED), (15, HEAD_OF_QUEUE), (9, ACA), (1, 4)]);
        let blocks = match what {
            What::CompareAndWrite => 1,
            _ if is_medium => 1 + random.below(BLOCKS),
            _ => 0,
        };
        let lba = if nowhere { NOWHERE } else { random.below(LBAS + 1 - blocks.max(1)) };
        // Some ids are several commands'.
        let id = if random.percent(3) { 1 } else { number << 8 | self.who as u64 };
        let writes = matches!(what, What::Write | What::CompareAndWrite);
        let stamp = |i| (self.who as u64 + 1) << 56 | number << 8 | i;
        let stamps: Vec<u64> = if writes && !nowhere { (0..blocks).map(stamp).collect() } else { Vec::new() };
        let expected = self.seen.get(&(unit, lba)).copied().unwrap_or_default();
        let out = match what {
            What::Write => (0..blocks).flat_map(|i| block(stamp(i))).collect(),
            What::CompareAndWrite => [block(expected), block(stamp(0))].concat(),
            _ => what.parameters().unwrap_or_default(),
        };
        let input = if what == What::Read { (blocks * BLOCK) as u32 } else { 0 };

        let posted = storm.ledger.now();
        for (lba, &stamp) in (lba..).zip(&stamps) {
            storm.ledger.write(stamp, unit, lba, posted);
        }
        let aborts = matches!(what, What::PersistentReserve { action: PREEMPT_AND_ABORT, .. });
        let cause = aborts.then(|| storm.ledger.cause(Cause::PreemptAndAbort, self.who, unit, posted));
        if naca {
            self.aca.entry(unit).or_default().naca_now += 1;
        }
        let head = self.put(at, self.luns[unit], id, attribute, &what.cdb(lba, blocks, naca), &out, input);
        let slot = &mut self.slots[at];
        slot.since = Instant::now();
        slot.task = Some(Task {
            number,
            id,
            unit,
            what,
            attribute,
            naca,
            lba,
            blocks,
            stamps,
            expected,
            out: out.len() as u32,
            input,
            posted,
            head,
            cause,
        });
        assert!(self.heads.insert((self.slots[at].ring, head), at).is_none(), "head {head} is in use");
    }
}

fn what_next(random: &mut Random, who: usize, unit: UnitNo) -> What {
    let what = random.weighted(&[
        (12, What::Ready),
        (3, What::Flush),
        (30, What::Read),
        (4, What::Verify),
        (30, What::Write),
        (12, What::CompareAndWrite),
        (2, What::Reserve),
        (3, What::Release),
        (9, What::PersistentReserve { action: 0, kind: 0, key: 0, action_key: 0 }),
    ]);
    match what {
        _ if !what.is_reservation() => what,
        _ if unit != SHARED => What::Ready,
        What::PersistentReserve { .. } => {
            let (mine, other) = (0xa0 + who as u64, 0xa0 + (1 - who as u64));
            let kind = random.one_of(&[1, 3, 5, 6, 7, 8]);
            let (action, action_key) = random.weighted(&[
                (20, (REGISTER_AND_IGNORE, mine)),
                (5, (REGISTER, 0)),
                (10, (RESERVE, 0)),
                (15, (RELEASE, 0)),
                (15, (CLEAR, 0)),
                (10, (PREEMPT, other)),
                (10, (PREEMPT_AND_ABORT, other)),
            ]);
            What::PersistentReserve { action, kind, key: mine, action_key }
        }
        what => what,
    }
}
