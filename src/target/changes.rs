//! Changes of units: commands that take access away, or change what nexuses share, each in its turn.
//!
//! A change is evaluated when its turn has come, and judged against the state as it is then. If it has something to write down, a
//! job does that. Then it is applied: from here on its losers' gates stop what they may not do. All shards are asked for the commands
//! that are running all the same; when they have ended, the change gives what it gives, and is answered. Its effect stands
//! whatever becomes of its task.

use std::sync::Arc;

use super::nexus::LuIndex;
use super::order::{By, Scope, Work};
use super::shard::{Reply, Shard};
use super::task::{State, TaskName, Until};
use super::{Post, ShardMail, job};
use crate::backing::Submit;
use crate::device_server::{self, AbortFlag, Answer, Change, Decision, Fence, Losers, Memo, Plan};
use crate::lu::{GateBits, Itl, NexusId};
use crate::mem::IoBuf;
use crate::scsi::{AdditionalSense, HostByte, Sense};
use crate::tgt::{CmdData, CmdReq, EventRings, ItnId, Tag};

/// A change that has begun on this shard.
#[derive(Debug)]
pub(super) struct Begun {
    task: TaskName,
    lu: LuIndex,
    itn_id: ItnId,
    /// Not here while it is being written down.
    change: Option<Box<dyn Change>>,
    /// The command's buffer, until it is answered.
    data: Option<CmdData>,
    fence: Fence,
    /// Its command is not to wait for others: it is answered as soon as the change is made.
    abandoned: bool,
    /// Until it is made, or will not be.
    named: Option<Named>,
}

/// A change whose name is noted, and that will be in what is kept of the unit.
#[derive(Debug)]
struct Named {
    itl: Arc<Itl>,
    memo: Memo,
}

impl Named {
    /// Names a change, and notes that, if somebody keeps notes of its command and the unit's state. It must not be evaluated yet.
    fn of(itl: Arc<Itl>, memo: Memo) -> Option<Named> {
        let name = itl.lu().expect_change()?;
        memo.decide(Decision::Change(name));
        Some(Named { itl, memo })
    }

    /// It was made, and is written down.
    fn was_made(self) {
        self.itl.lu().change_is_over(true);
    }

    /// It is not made, or it is nothing that is kept. The note goes first: nobody is to look for the name any more.
    fn came_to_nothing(self) {
        self.memo.withdraw();
        self.itl.lu().change_is_over(false);
    }
}

/// A change that was written down, or could not be.
#[derive(Debug)]
pub struct Persisted {
    task: TaskName,
    change: Box<dyn Change>,
    result: Result<(), Answer>,
}

/// The duty to bring a change back. Whatever becomes of the work, the shard hears of it.
struct Ticket {
    task: TaskName,
    post: Arc<dyn Post>,
    change: Option<Box<dyn Change>>,
    result: Result<(), Answer>,
}

impl Ticket {
    fn run(mut self) {
        if let Some(change) = &mut self.change {
            self.result = change.persist();
        }
    }
}

impl Drop for Ticket {
    fn drop(&mut self) {
        let Some(change) = self.change.take() else { return };
        let result = std::mem::replace(&mut self.result, Ok(()));
        let done = Persisted { task: self.task, change, result };
        self.post.post(self.task.tag.shard(), ShardMail::Persisted(done));
    }
}

impl Shard {
    /// A command that changes its unit joins the line.
    pub(super) fn join_line(&mut self, req: &CmdReq, io: &mut dyn Submit, rings: &mut EventRings) {
        let Some((lu, task)) = self.tasks.get(req.tag).map(|task| (task.lu, task.name())) else { return };
        if self.target.turns(lu).is_some_and(|turns| turns.join(task)) {
            self.take_turn(lu, task, io, rings);
        }
    }

    /// It is this command's turn.
    pub(super) fn take_turn(&mut self, lu: LuIndex, name: TaskName, io: &mut dyn Submit, rings: &mut EventRings) {
        let waits = self
            .tasks
            .named(name)
            .filter(|task| matches!(&task.state, State::Waiting(waiting) if matches!(waiting.until, Until::Turn(_))));
        // It was ended while the letter was on its way.
        let Some(task) = waits else { return self.turn_over(lu, name) };
        let (itn_id, needs, place) = (task.itn_id, task.needs, (task.itn_id, task.target, task.lun));
        let State::Waiting(waiting) = std::mem::replace(&mut task.state, State::Changing) else { return };
        let (data, Until::Turn(mut change)) = (waiting.data, waiting.until) else { return };
        let itl = self.itl(place);
        let admitted = match &itl {
            Some(itl) => device_server::still_admitted(itl, needs),
            None => Ok(()),
        };
        let mut named = match (&admitted, itl.zip(self.tasks.memo(name.tag))) {
            (Ok(()), Some((itl, memo))) => Named::of(itl, memo),
            _ => None,
        };
        let evaluated = admitted.and_then(|()| change.evaluate());
        if !matches!(&evaluated, Ok(fence) if fence.persists)
            && let Some(named) = named.take()
        {
            named.came_to_nothing();
        }
        match evaluated {
            Err(answer) => {
                self.turn_over(lu, name);
                self.answer(name.tag, answer, data.buf, rings);
            }
            Ok(fence) => {
                let persists = fence.persists;
                self.changes.push(Begun {
                    task: name,
                    lu,
                    itn_id,
                    change: None,
                    data: Some(data),
                    fence,
                    abandoned: false,
                    named,
                });
                if persists {
                    let post = Arc::clone(&self.post);
                    let ticket = Ticket {
                        task: name,
                        post,
                        change: Some(change),
                        // What is answered if the work is dropped instead of run.
                        result: Err(ABANDONED.into()),
                    };
                    self.pool.spawn(itn_id, Box::new(move || ticket.run()));
                } else {
                    self.apply(name, change, io, rings);
                }
            }
        }
    }

    /// A change is written down, or could not be.
    pub(super) fn persisted(&mut self, done: Persisted, io: &mut dyn Submit, rings: &mut EventRings) {
        let Persisted { task, change, result } = done;
        match result {
            Ok(()) => self.apply(task, change, io, rings),
            Err(answer) => {
                // What it may still have to undo is undone before the next one is evaluated.
                drop(change);
                let Some(begun) = self.take_begun(task) else { return };
                if let Some(named) = begun.named {
                    named.came_to_nothing();
                }
                self.turn_over(begun.lu, task);
                if let Some(data) = begun.data {
                    self.answer(task.tag, answer, data.buf, rings);
                }
            }
        }
    }

    fn apply(&mut self, task: TaskName, mut change: Box<dyn Change>, io: &mut dyn Submit, rings: &mut EventRings) {
        change.apply();
        let Some(begun) = self.changes.iter_mut().find(|begun| begun.task == task) else { return };
        begun.change = Some(change);
        if let Some(named) = begun.named.take() {
            named.was_made();
        }
        let (lu, itn_id, abandoned) = (begun.lu, begun.itn_id, begun.abandoned);
        let fence = std::mem::take(&mut begun.fence);
        let (losers, everybody) = match fence.losers {
            Losers::Nobody => (Vec::new(), GateBits::NONE),
            Losers::These(losers) => (losers, GateBits::NONE),
            Losers::Everybody(bits) => (Vec::new(), bits),
        };
        let losers: Vec<_> = losers.into_iter().filter_map(|(id, bits)| Some((self.itn_of(id)?, bits))).collect();
        let itns: Vec<_> = fence.aborts.into_iter().filter_map(|id| self.itn_of(id)).collect();
        if losers.is_empty() && everybody == GateBits::NONE && itns.is_empty() {
            return self.grant(task, io, rings);
        }
        self.end_acas(&itns, lu);
        let but = task.tag;
        let scope = Scope::Needing { losers, everybody, lu, but };
        let aborts = if itns.is_empty() { Scope::Nothing } else { Scope::Nexuses { itns, lu, but } };
        self.give_order(Work::Fence { task, scope, aborts, by: By { itn_id, how: HostByte::Abort } });
        if abandoned {
            self.abandon_change(task.tag, rings);
        }
    }

    fn itn_of(&self, id: NexusId) -> Option<ItnId> {
        self.target.itn_of(id)
    }

    /// What the change forbids has ended on all shards.
    pub(super) fn grant(&mut self, name: TaskName, _io: &mut dyn Submit, rings: &mut EventRings) {
        let Some(mut begun) = self.take_begun(name) else { return };
        let tag = name.tag;
        let plan = begun.change.as_mut().map_or(Plan::Done(Answer::good(0)), |change| change.grant());
        self.turn_over(begun.lu, name);
        match (plan, begun.data) {
            (Plan::Job(plan), Some(data)) => {
                let abort = AbortFlag::default();
                if let Some(task) = self.tasks.get(tag) {
                    task.state = State::Job(abort.clone());
                }
                let work = job::work(plan, abort, data.buf, tag, self.index, Arc::clone(&self.post));
                self.pool.spawn(begun.itn_id, work);
            }
            // Nobody waits for its answer any more, but what it does is part of the change.
            (Plan::Job(plan), None) => {
                let run = move || {
                    let _nobody_asks = (plan.run)(&mut IoBuf::empty(), &AbortFlag::default());
                };
                self.pool.spawn(begun.itn_id, Box::new(run));
            }
            (Plan::Done(answer), Some(data)) => self.answer(tag, answer, data.buf, rings),
            (Plan::Done(_), None) => {}
            (plan, data) => {
                // A contract of `Change`.
                log::error!("a change ended in {plan:?}");
                debug_assert!(false, "a change ended in {plan:?}");
                if let Some(data) = data {
                    self.answer(tag, ABANDONED.into(), data.buf, rings);
                }
            }
        }
    }

    /// Answers a command whose change waits for other commands, without waiting for them, now or when it is written down. The change
    /// is made to its end.
    pub(super) fn abandon_change(&mut self, tag: Tag, rings: &mut EventRings) {
        let Some(name) = self.tasks.get(tag).map(|task| task.name()) else { return };
        let Some(begun) = self.changes.iter_mut().find(|begun| begun.task == name) else { return };
        if begun.change.is_none() {
            begun.abandoned = true;
            return;
        }
        let Some(data) = begun.data.take() else { return };
        self.reply(tag, Reply::check(ABANDONED), data.buf, rings);
    }

    fn take_begun(&mut self, task: TaskName) -> Option<Begun> {
        let at = self.changes.iter().position(|begun| begun.task == task)?;
        Some(self.changes.remove(at))
    }

    fn turn_over(&mut self, lu: LuIndex, task: TaskName) {
        let next = self.target.turns(lu).and_then(|turns| turns.over(task));
        if let Some(task) = next {
            self.post.post(task.tag.shard(), ShardMail::Turn { lu, task });
        }
    }
}

/// Sense data of a change whose command is ended before it is answered.
const ABANDONED: Sense = Sense::aborted_command(AdditionalSense::NO_ADDITIONAL_SENSE_INFORMATION);

/// A plan's answer that needs the unit's sense format is made by [`Shard::answer`]; this one is in fixed format.
impl Reply {
    fn check(sense: Sense) -> Reply {
        Reply::of(&Answer::check(sense), crate::scsi::SenseFormat::Fixed)
    }
}
