//! Random interleavings of everything that can happen, on several shards driven by one thread.
//!
//! Whatever the order: each command is answered exactly once and its buffer comes back; a function is answered exactly once,
//! and not before every task that it covers is over; a task ended before its result is not answered with it; as a change that takes
//! access away is answered, nobody who lost it is at the image; and when all that is held is let go, nothing is left.

use std::collections::{BTreeMap, BTreeSet};

use proptest::prelude::*;

use super::medium::removable;
use crate::backing::{BackingError, OpKind};
use crate::lu::GateBits;
use crate::mem::{Direction, IoBuf};
use crate::scsi::{CommandResult, HostByte, Lun, LunAddress, Status, TaskManagementFunction as Function};
use crate::target::testkit::*;
use crate::tgt::{CmdData, CmdReq, ItnId, KEvent, Tag};

const SHARDS: u8 = 3;

#[derive(Clone, Copy, Debug)]
enum Step {
    /// A command of nexus n on a shard to a unit: held at the backing, a job, or over at once.
    Command { shard: u8, nexus: usize, unit: usize, kind: usize, attribute: i32, naca: bool },
    /// One operation ends.
    Complete { pick: usize, fail: bool },
    /// One job runs, or is dropped.
    Job { pick: usize, drop: bool },
    /// One letter is delivered.
    Mail { shard: u8 },
    /// One owed CMD_DONE is posted.
    Done { pick: usize },
    /// A task management function.
    Function { shard: u8, nexus: usize, unit: usize, function: usize, pick: usize },
    /// A nexus is destroyed; the others stay.
    Destroy { shard: u8, nexus: usize },
}

const FUNCTIONS: [Function; 8] = [
    Function::ClearAca,
    Function::AbortTask,
    Function::AbortTaskSet,
    Function::ClearTaskSet,
    Function::LogicalUnitReset,
    Function::ItNexusReset,
    Function::QueryTask,
    Function::QueryTaskSet,
];

/// What is sent: a CDB, and the bytes of its Data-Out buffer, if it has one.
type Kind = fn(nexus: u8) -> ([u8; 16], Option<Vec<u8>>);

/// PERSISTENT RESERVE OUT with 24 bytes of parameters: this key, that service action key.
pub(super) fn reserve_out(action: u8, kind: u8, key: u8, service_key: u8) -> ([u8; 16], Option<Vec<u8>>) {
    let mut scb = [0; 16];
    (scb[0], scb[1], scb[2], scb[8]) = (0x5f, action, kind, 24);
    let mut list = vec![0; 512];
    (list[7], list[15]) = (key, service_key);
    (scb, Some(list))
}

pub(super) fn six(opcode: u8) -> [u8; 16] {
    let mut scb = [0; 16];
    scb[0] = opcode;
    scb
}

/// A nexus's reservation key is its number and one.
const KINDS: [Kind; 21] = [
    |_| (read10(1), None),
    |_| (read10(1), None),
    |_| (write10(1), Some(vec![7; 512])),
    |_| (write10(1), Some(vec![8; 512])),
    |_| (VERIFY, Some(vec![0; 512])),
    |_| (TEST_UNIT_READY, None),
    // REGISTER AND IGNORE EXISTING KEY; RESERVE, Write Exclusive and Exclusive Access - Registrants Only; RELEASE; CLEAR.
    |n| reserve_out(0x06, 0, 0, n + 1),
    |n| reserve_out(0x01, 0x01, n + 1, 0),
    |n| reserve_out(0x01, 0x06, n + 1, 0),
    |n| reserve_out(0x02, 0x01, n + 1, 0),
    |n| reserve_out(0x03, 0, n + 1, 0),
    // PREEMPT and PREEMPT AND ABORT of the next one.
    |n| reserve_out(0x04, 0x01, n + 1, (n + 1) % 3 + 1),
    |n| reserve_out(0x05, 0x06, n + 1, (n + 1) % 3 + 1),
    |_| (six(0x16), None),
    // COMPARE AND WRITE of one block.
    |_| {
        let mut scb = six(0x89);
        scb[13] = 1;
        (scb, Some(vec![0; 1024]))
    },
    // START STOP UNIT: eject, and load; PREVENT, and ALLOW.
    |_| (six_with(0x1b, EJECT), None),
    |_| (six_with(0x1b, 0x03), None),
    |_| (six_with(0x1b, 0x03), None),
    |_| (six_with(0x1e, 0x01), None),
    |_| (six_with(0x1e, 0x00), None),
    // EXTENDED COPY of one block from the first unit to the one that it is sent to, and back to the next block.
    |_| {
        let mut scb = six(0x83);
        scb[13] = 104;
        let header = [0, 0x18, 0, 32, 0, 0, 0, 0, 0, 0, 0, 56, 0, 0, 0, 0];
        let mut cscd = [0; 32];
        cscd[..16].copy_from_slice(&[0xe4, 0, 0, 0, 1, 3, 0, 8, 0x31, 0x23, 0x45, 0x67, 0x89, 0xab, 0xcd, 0xef]);
        cscd[30] = 2;
        let mut there = [0; 28];
        there[..12].copy_from_slice(&[0x02, 0, 0, 0x18, 0, 0, 0xff, 0xff, 0, 0, 0, 1]);
        let mut back = [0; 28];
        back[..12].copy_from_slice(&[0x02, 0, 0, 0x18, 0xff, 0xff, 0, 0, 0, 0, 0, 1]);
        back[27] = 1;
        (scb, Some([&header[..], &cscd, &there, &back].concat()))
    },
];

/// Byte 4 of START STOP UNIT: LOEJ without START.
const EJECT: u8 = 0x02;

/// A CDB of six bytes, the fourth of which says something.
fn six_with(opcode: u8, byte4: u8) -> [u8; 16] {
    let mut scb = six(opcode);
    scb[4] = byte4;
    scb
}

fn attribute() -> impl Strategy<Value = i32> {
    prop_oneof![8 => Just(0x20), 2 => Just(0x22), 1 => Just(0x21), 1 => Just(0x2f)]
}

fn step() -> impl Strategy<Value = Step> {
    let shard = 0..SHARDS;
    prop_oneof![
        9 => (shard.clone(), 0usize..3, 0usize..3, 0..KINDS.len(), attribute(), proptest::bool::weighted(0.1)).prop_map(
            |(shard, nexus, unit, kind, attribute, naca)| Step::Command { shard, nexus, unit, kind, attribute, naca }
        ),
        4 => (any::<usize>(), any::<bool>()).prop_map(|(pick, fail)| Step::Complete { pick, fail }),
        2 => (any::<usize>(), proptest::bool::weighted(0.1)).prop_map(|(pick, drop)| Step::Job { pick, drop }),
        6 => shard.clone().prop_map(|shard| Step::Mail { shard }),
        4 => any::<usize>().prop_map(|pick| Step::Done { pick }),
        3 => (shard.clone(), 0usize..3, 0usize..3, 0..FUNCTIONS.len(), any::<usize>())
            .prop_map(|(shard, nexus, unit, function, pick)| Step::Function { shard, nexus, unit, function, pick }),
        1 => (shard, 0usize..2).prop_map(|(shard, nexus)| Step::Destroy { shard, nexus }),
    ]
}

/// A command as the model remembers it.
#[derive(Clone, Copy, Debug)]
struct Sent {
    tag: Tag,
    nexus: ItnId,
    lun: Lun,
    /// How long its buffer is.
    len: usize,
    /// It changes what nexuses may do.
    changes: bool,
    /// It ejects the medium.
    ejects: bool,
    /// It never was in a task set: its nexus is going.
    refused: bool,
    over: bool,
}

struct Model {
    rig: Rig,
    nexuses: Vec<ItnId>,
    luns: [Lun; 3],
    sent: Vec<Sent>,
    /// Functions that were not answered: the commands that must be over first.
    waiting: BTreeMap<u64, Vec<Tag>>,
    destroying: BTreeMap<ItnId, (u8, Vec<Tag>)>,
    /// Changes whose answers were looked at.
    fenced: BTreeSet<u64>,
    buffers: u64,
}

impl Model {
    fn new() -> Model {
        let shared = removable();
        let mut rig = Rig::new(SHARDS, vec![mapped(0, 0, &shared), mapped(0, 1, &unit()), mapped(1, 0, &shared)]);
        let nexuses = (1..=3).map(|n| rig.login(n)).collect();
        rig.prompt = false;
        let luns = [at(0, 0), at(0, 1), at(1, 0)];
        for r in &mut rig.reactors {
            r.function_responses.clear();
        }
        Model {
            rig,
            nexuses,
            luns,
            sent: Vec::new(),
            waiting: BTreeMap::new(),
            destroying: BTreeMap::new(),
            fenced: BTreeSet::new(),
            buffers: 0,
        }
    }

    /// LUN 0 of target 0 and of target 1 are one unit.
    fn same_unit(&self, a: Lun, b: Lun) -> bool {
        (a == self.luns[1]) == (b == self.luns[1])
    }

    fn live(&self) -> impl Iterator<Item = &Sent> {
        self.sent.iter().filter(|sent| !sent.over)
    }

    fn run(&mut self, step: Step) -> Result<(), TestCaseError> {
        match step {
            Step::Command { shard, nexus, unit, kind, attribute, naca } => {
                let used: BTreeSet<(u16, u16)> =
                    self.live().filter(|s| s.tag.shard() == shard).map(|s| (s.tag.queue(), s.tag.head())).collect();
                let tag = self.rig.tag(shard);
                if used.contains(&(tag.queue(), tag.head())) {
                    return Ok(());
                }
                let (mut scb, data) = KINDS[kind](nexus as u8);
                let (nexus, lun) = (self.nexuses[nexus], self.luns[unit]);
                let buf = match data {
                    Some(data) => crate::device_server::testkit::out_buf(&data),
                    None => IoBuf::owned(512, Direction::In),
                };
                if naca && scb[0] == 0x28 {
                    scb[9] = 0x04;
                }
                let (len, changes) = (buf.len() as usize, matches!(scb[0], 0x5f | 0x16));
                let ejects = scb[0] == 0x1b && scb[4] == EJECT;
                let req = CmdReq { host_no: HOST, data_len: len as u32, itn_id: nexus, scb, lun, attribute, tag };
                self.rig.post(shard, KEvent::CmdReq(req), Some(CmdData { buf, cdb_tail: None, earlier: 0, taken: 0 }));
                let answers = &self.rig.reactor(shard).answers;
                let refused = answers.iter().any(|a| a.tag == tag && a.result.host == HostByte::TransportDisrupted);
                prop_assert!(!refused || self.is_ending(nexus));
                self.sent.push(Sent { tag, nexus, lun, len, changes, ejects, refused, over: false });
            }
            Step::Complete { pick, fail } => {
                let held: Vec<u64> =
                    self.rig.reactors.iter().flat_map(|r| r.io.held.iter().map(|held| held.cookie)).collect();
                if let Some(&cookie) = pick.checked_rem(held.len()).and_then(|at| held.get(at)) {
                    let result = if fail { Err(BackingError::Cancelled) } else { Ok(()) };
                    let ended = self.rig.reactor(Tag(cookie).shard()).io.cancelled.contains(&cookie);
                    self.rig.complete(Tag(cookie), result);
                    let answers = &self.rig.reactor(Tag(cookie).shard()).answers;
                    let answer = answers.iter().find(|a| a.tag.0 == cookie).unwrap();
                    prop_assert_eq!(answer.result.host != HostByte::Ok, ended, "{:?}", answer);
                }
            }
            Step::Job { pick, drop: dropped } => {
                if let Some(at) = pick.checked_rem(self.rig.pool.len()) {
                    let work = self.rig.pool.take(at);
                    if dropped { drop(work) } else { work() }
                }
            }
            Step::Mail { shard } => {
                self.rig.deliver(shard);
            }
            Step::Done { pick } => {
                let owed: Vec<Tag> = self.rig.reactors.iter().flat_map(|r| r.owed.iter().map(|d| d.tag)).collect();
                if let Some(&tag) = pick.checked_rem(owed.len()).and_then(|at| owed.get(at)) {
                    for sent in self.sent.iter_mut().filter(|sent| sent.tag == tag) {
                        sent.over = true;
                    }
                    self.rig.done(tag);
                }
            }
            Step::Function { shard, nexus, unit, function, pick } => {
                let (nexus, lun, function) = (self.nexuses[nexus], self.luns[unit], FUNCTIONS[function]);
                let tags: Vec<Tag> = self.live().map(|s| s.tag).collect();
                let named = pick.checked_rem(tags.len()).map_or(Tag::NONE, |at| tags[at]);
                let ending = self.is_ending(nexus);
                let covered = self.live().filter(|s| !s.refused).filter(|s| match function {
                    Function::AbortTask => s.tag == named && s.nexus == nexus && self.same_unit(s.lun, lun),
                    Function::AbortTaskSet | Function::ClearTaskSet => s.nexus == nexus && self.same_unit(s.lun, lun),
                    Function::LogicalUnitReset => self.same_unit(s.lun, lun),
                    Function::ItNexusReset => s.nexus == nexus && s.lun.0[1] == lun.0[1],
                    _ => false,
                });
                let covered: Vec<Tag> = covered.map(|s| s.tag).filter(|_| !ending).collect();
                let mid = self.rig.request_function(shard, nexus, function, lun, named);
                self.waiting.insert(mid, covered);
            }
            Step::Destroy { shard, nexus } => {
                let nexus = self.nexuses[nexus];
                if !self.is_ending(nexus) {
                    let covered = self.live().filter(|s| s.nexus == nexus).map(|s| s.tag).collect();
                    self.rig.request_destroy(shard, nexus);
                    self.destroying.insert(nexus, (shard, covered));
                }
            }
        }
        self.check()
    }

    /// Being destroyed, or destroyed.
    fn is_ending(&self, nexus: ItnId) -> bool {
        self.destroying.contains_key(&nexus) || self.rig.target.nexuses().iter().all(|(itn_id, _)| *itn_id != nexus)
    }

    /// What must hold at any time.
    fn check(&mut self) -> Result<(), TestCaseError> {
        let live: BTreeSet<u64> = self.live().map(|s| s.tag.0).collect();
        let over = |tags: &[Tag]| tags.iter().all(|tag| !live.contains(&tag.0));
        let mids: Vec<u64> = self.waiting.keys().copied().collect();
        for mid in mids {
            if self.rig.response(mid).is_some() {
                let covered = self.waiting.remove(&mid).unwrap();
                prop_assert!(over(&covered), "function {mid} answered before {covered:?} were over");
            }
        }
        for shard in 0..SHARDS {
            while let Some((itn_id, result)) = self.rig.nexus_response(shard) {
                let (home, covered) = self.destroying.remove(&itn_id).unwrap();
                prop_assert_eq!((result, home), (0, shard));
                prop_assert!(over(&covered), "nexus {itn_id} destroyed before {covered:?} were over");
            }
        }
        let mut answered = BTreeSet::new();
        for answer in self.rig.reactors.iter().flat_map(|r| &r.answers) {
            prop_assert!(answered.insert(answer.tag.0), "{:?} answered twice", answer.tag);
            let sent = self.sent.iter().find(|sent| sent.tag == answer.tag).unwrap();
            prop_assert_eq!(answer.data.len(), sent.len, "its buffer came back");
            let good = answer.result == CommandResult::status(Status::Good);
            if (sent.changes || sent.ejects) && good && self.fenced.insert(answer.tag.0) {
                self.nobody_who_lost_is_at_the_image(sent.lun)?;
            }
        }
        self.buffers = answered.len() as u64;
        Ok(())
    }

    /// A change was answered with GOOD in this very step. What gates are closed by now is its doing, or was done before it, unless another
    /// change has begun in this step, too: that one's time is still to come.
    fn nobody_who_lost_is_at_the_image(&self, changed: Lun) -> Result<(), TestCaseError> {
        if self.rig.reactors.iter().any(|r| !r.shard.changes.is_empty()) {
            return Ok(());
        }
        for held in self.rig.reactors.iter().flat_map(|r| &r.io.held) {
            let sent = self.sent.iter().find(|sent| sent.tag.0 == held.cookie).unwrap();
            if !self.same_unit(sent.lun, changed) {
                continue;
            }
            let Some(known) = self.rig.reactors[0].shard.known(sent.nexus) else { continue };
            let LunAddress::Unit { target, lun } = sent.lun.address() else { continue };
            let denied = match held.op.kind {
                OpKind::Read => GateBits::DENY_READ,
                _ => GateBits::DENY_WRITE,
            };
            let gate = known.nexus.unit(target, lun).unwrap().itl.gate().bits();
            let denied = denied.and(GateBits::DENY_SPC2).and(GateBits::NO_MEDIUM);
            prop_assert!(!gate.intersects(denied), "{:?} runs: {:?}", sent, held.op);
        }
        Ok(())
    }

    /// Lets go of everything that is held; afterwards nothing may be left.
    fn finish(&mut self) -> Result<(), TestCaseError> {
        let mut rounds = 0;
        loop {
            let before = (self.buffers, self.live().count(), self.waiting.len(), self.destroying.len());
            for shard in 0..SHARDS {
                while self.rig.deliver(shard) {
                    self.check()?;
                }
            }
            self.check()?;
            self.run(Step::Complete { pick: 0, fail: false })?;
            self.run(Step::Job { pick: 0, drop: false })?;
            self.run(Step::Done { pick: 0 })?;
            let held: usize = self.rig.reactors.iter().map(|r| r.io.held.len()).sum();
            let mail: usize = (0..SHARDS).map(|s| self.rig.mail.len(s)).sum();
            let after = (self.buffers, self.live().count(), self.waiting.len(), self.destroying.len());
            if before == after && held == 0 && mail == 0 && self.rig.pool.len() == 0 {
                rounds += 1;
                if self.rig.tasks() == 0 || rounds == 20 {
                    break;
                }
                // Commands may wait for an ACA condition to be cleared.
                for nexus in 0..3 {
                    for unit in 0..3 {
                        self.run(Step::Function { shard: 0, nexus, unit, function: 0, pick: 0 })?;
                    }
                }
            }
        }
        prop_assert_eq!(self.rig.tasks(), 0);
        prop_assert_eq!(self.live().count(), 0);
        prop_assert_eq!(self.buffers, self.sent.len() as u64, "each command was answered");
        prop_assert!(self.waiting.is_empty() && self.destroying.is_empty(), "each request was answered");
        for r in &self.rig.reactors {
            prop_assert!(r.rings.is_idle() && r.rings.unanswered() == 0);
            prop_assert_eq!(r.rings.counters().unexpected, 0);
        }
        Ok(())
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(200))]
    #[test]
    fn nothing_is_lost_doubled_or_answered_too_soon(steps in proptest::collection::vec(step(), 1..120)) {
        let mut model = Model::new();
        for step in steps {
            model.run(step)?;
        }
        model.finish()?;
    }
}

/// Else it would not be a copy that was interleaved.
#[test]
fn the_copy_is_one() {
    let mut model = Model::new();
    let command = Step::Command { shard: 1, nexus: 1, unit: 1, kind: KINDS.len() - 1, attribute: 0x20, naca: false };
    model.run(command).unwrap();
    assert_eq!(model.rig.pool.len(), 1);
    model.finish().unwrap();
    assert_eq!(model.rig.reactor(1).answers[0].result, CommandResult::status(Status::Good));
}
