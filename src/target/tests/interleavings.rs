//! Random interleavings of everything that can happen, on several shards driven by one thread.
//!
//! Whatever the order: each command is answered exactly once and its buffer comes back; a function is answered exactly once,
//! and not before every task that it covers is over; a task ended before its result is not answered with it; and when all that
//! is held is let go, nothing is left.

use std::collections::{BTreeMap, BTreeSet};

use proptest::prelude::*;

use crate::backing::BackingError;
use crate::mem::{Direction, IoBuf};
use crate::scsi::{HostByte, Lun, TaskManagementFunction as Function};
use crate::target::testkit::*;
use crate::tgt::{ItnId, Tag};

const SHARDS: u8 = 3;

#[derive(Clone, Copy, Debug)]
enum Step {
    /// A command of nexus n on a shard to a unit: held at the backing, a job, or over at once.
    Command { shard: u8, nexus: usize, unit: usize, kind: u8 },
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

const FUNCTIONS: [Function; 7] = [
    Function::AbortTask,
    Function::AbortTaskSet,
    Function::ClearTaskSet,
    Function::LogicalUnitReset,
    Function::ItNexusReset,
    Function::QueryTask,
    Function::QueryTaskSet,
];

fn step() -> impl Strategy<Value = Step> {
    let shard = 0..SHARDS;
    prop_oneof![
        6 => (shard.clone(), 0usize..3, 0usize..3, 0u8..3)
            .prop_map(|(shard, nexus, unit, kind)| Step::Command { shard, nexus, unit, kind }),
        4 => (any::<usize>(), any::<bool>()).prop_map(|(pick, fail)| Step::Complete { pick, fail }),
        2 => (any::<usize>(), proptest::bool::weighted(0.1)).prop_map(|(pick, drop)| Step::Job { pick, drop }),
        6 => shard.clone().prop_map(|shard| Step::Mail { shard }),
        4 => any::<usize>().prop_map(|pick| Step::Done { pick }),
        3 => (shard.clone(), 0usize..3, 0usize..3, 0usize..7, any::<usize>())
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
    buffers: u64,
}

impl Model {
    fn new() -> Model {
        let shared = unit();
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
            Step::Command { shard, nexus, unit, kind } => {
                let used: BTreeSet<(u16, u16)> =
                    self.live().filter(|s| s.tag.shard() == shard).map(|s| (s.tag.queue(), s.tag.head())).collect();
                let tag = self.rig.tag(shard);
                if used.contains(&(tag.queue(), tag.head())) {
                    return Ok(());
                }
                let (nexus, lun) = (self.nexuses[nexus], self.luns[unit]);
                let (scb, buf) = match kind {
                    0 => (read10(1), IoBuf::owned(512, Direction::In)),
                    1 => (VERIFY, IoBuf::owned(512, Direction::Out)),
                    _ => (TEST_UNIT_READY, IoBuf::owned(512, Direction::In)),
                };
                self.rig.send_as(tag, nexus, lun, scb, buf);
                let answers = &self.rig.reactor(shard).answers;
                let refused = answers.iter().any(|a| a.tag == tag && a.result.host == HostByte::TransportDisrupted);
                prop_assert!(!refused || self.is_ending(nexus));
                self.sent.push(Sent { tag, nexus, lun, refused, over: false });
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
            prop_assert_eq!(answer.data.len(), 512, "its buffer came back");
        }
        self.buffers = answered.len() as u64;
        Ok(())
    }

    /// Lets go of everything that is held; afterwards nothing may be left.
    fn finish(&mut self) -> Result<(), TestCaseError> {
        loop {
            let before = (self.buffers, self.live().count(), self.waiting.len(), self.destroying.len());
            for shard in 0..SHARDS {
                while self.rig.deliver(shard) {}
            }
            self.check()?;
            self.run(Step::Complete { pick: 0, fail: false })?;
            self.run(Step::Job { pick: 0, drop: false })?;
            self.run(Step::Done { pick: 0 })?;
            let held: usize = self.rig.reactors.iter().map(|r| r.io.held.len()).sum();
            let mail: usize = (0..SHARDS).map(|s| self.rig.mail.len(s)).sum();
            let after = (self.buffers, self.live().count(), self.waiting.len(), self.destroying.len());
            if before == after && held == 0 && mail == 0 && self.rig.pool.len() == 0 {
                break;
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
