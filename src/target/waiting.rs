//! Commands that wait: for a hold to end, or with a hold of their own for older commands.

use std::sync::Arc;

use super::ShardMail;
use super::order::{Scope, Work};
use super::shard::Shard;
use super::task::{State, Task, TaskName, Until, Waiting};
use crate::backing::Submit;
use crate::device_server::passes_task_sets;
use crate::lu::{Extent, HoldId, Holding, Itl, Touches};
use crate::scsi::TaskAttribute;
use crate::tgt::{CmdData, CmdReq, EventRings, Tag};

/// What a command brings with it when it is started again.
#[derive(Debug, Default)]
pub(super) struct Again {
    pub(super) passes: Vec<HoldId>,
    pub(super) seen: Option<HoldId>,
}

impl Shard {
    /// Puts a command aside until `until`.
    pub(super) fn put_aside(&mut self, req: &CmdReq, data: CmdData, again: Again, itl: &Itl, until: Until) {
        let seen = again.seen.unwrap_or_else(|| itl.lu().newest_hold());
        if let Some(task) = self.tasks.get(req.tag) {
            let waiting = Waiting { req: *req, data, passes: again.passes, seen, until };
            task.state = State::Waiting(Box::new(waiting));
        }
    }

    /// An ORDERED command: its task set is held, and when all that is older has ended it starts.
    pub(super) fn order_task_set(&mut self, req: &CmdReq, data: CmdData, mut again: Again, itl: &Arc<Itl>) {
        let shared = itl.lu().mode().tst == 0;
        let holding = Holding::TaskSet((!shared).then(|| itl.nexus()));
        let Some(hold) = itl.lu().hold(holding, itl, Touches::Nothing, false, &again.passes) else {
            self.barred = true;
            return self.put_aside(req, data, again, itl, Until::Released);
        };
        let Some(task) = self.tasks.get(req.tag) else { return };
        task.holds.push(hold);
        again.seen.get_or_insert(hold);
        let (lu, itn_id, name) = (task.lu, (!shared).then_some(task.itn_id), task.name());
        let since = itl.lu().oldest_hold(&again.passes).unwrap_or(hold);
        again.passes.push(hold);
        self.put_aside(req, data, again, itl, Until::Quiet);
        let scope = Scope::Before { hold, since, itn_id, lu, than: name };
        self.give_order(Work::Quiet { task: name, scope });
    }

    /// A command that nobody else's may overlap: its blocks are held, and when what uses them has ended it starts.
    pub(super) fn hold_blocks(
        &mut self,
        req: &CmdReq,
        data: CmdData,
        mut again: Again,
        itl: &Arc<Itl>,
        extent: Extent,
    ) {
        let holding = Holding::Blocks(extent);
        let head = passes_task_sets(TaskAttribute::from_tgt_code(req.attribute).unwrap_or_default());
        let Some(hold) = itl.lu().hold(holding, itl, Touches::Blocks(extent), head, &again.passes) else {
            return self.put_aside(req, data, again, itl, Until::Released);
        };
        let Some(task) = self.tasks.get(req.tag) else { return };
        task.holds.push(hold);
        task.has_blocks = true;
        // Not the newest hold as it is by now: an ORDERED command that came in between has to wait for this one.
        again.seen.get_or_insert(hold);
        let (lu, name) = (task.lu, task.name());
        again.passes.push(hold);
        self.put_aside(req, data, again, itl, Until::Quiet);
        let scope = Scope::Using { extent, lu, but: req.tag };
        self.give_order(Work::Quiet { task: name, scope });
    }

    /// A command that has its blocks cannot start for as long as its nexus likes: it gives them back, and asks for them again.
    pub(super) fn give_blocks_back(&mut self, tag: Tag, itl: &Itl) {
        let Some(task) = self.tasks.get(tag) else { return };
        // The blocks come last: a command that holds its task set did so before.
        if std::mem::take(&mut task.has_blocks)
            && let Some(hold) = task.holds.pop()
        {
            itl.lu().end_hold(hold);
            self.tell_release();
        }
    }

    /// This shard's part of a hold: which commands here it has to wait for. A hold on a task set does not stop those of them that
    /// wait: what it stopped already starts.
    pub(super) fn quiet(&mut self, scope: &Scope, io: &mut dyn Submit, rings: &mut EventRings) -> Vec<Tag> {
        let barred = self.first_barred(scope);
        let covered = self.tasks.iter_mut().filter(|task| scope.covers(task) && !task.is_behind(barred));
        let covered: Vec<Tag> = covered.map(|task| task.tag).collect();
        if let Scope::Before { hold, .. } = scope {
            for &tag in &covered {
                if let Some(State::Waiting(waiting)) = self.tasks.get(tag).map(|task| &mut task.state) {
                    waiting.passes.push(*hold);
                }
            }
            self.release_those(|task| covered.contains(&task.tag), io, rings);
        }
        covered
    }

    /// Where the first ORDERED command of a task set stands that waits here for the hold of one on another shard to end. What is
    /// behind it waits as it does: it must not pass it (SAM-5 8.6).
    fn first_barred(&mut self, scope: &Scope) -> u64 {
        let Scope::Before { itn_id, lu, than, .. } = scope else { return u64::MAX };
        if than.tag.shard() == self.index {
            return u64::MAX;
        }
        let in_set = |task: &&mut Task| task.lu == *lu && itn_id.is_none_or(|itn_id| itn_id == task.itn_id);
        let barred = self.tasks.iter_mut().filter(in_set).filter(|task| task.is_barred());
        barred.map(|task| task.serial).min().unwrap_or(u64::MAX)
    }

    /// What a command's hold had to wait for has ended: it starts.
    pub(super) fn go_on(&mut self, name: TaskName, io: &mut dyn Submit, rings: &mut EventRings) {
        // Else it was ended meanwhile.
        if self.tasks.named(name).is_some_and(|task| task.waits_for_quiet()) {
            self.start_again(name.tag, io, rings);
        }
    }

    /// Holds have ended: asks again for the commands that waited, in their order.
    pub(super) fn release(&mut self, io: &mut dyn Submit, rings: &mut EventRings) {
        self.release_those(|_| true, io, rings);
    }

    fn release_those(&mut self, which: impl Fn(&Task) -> bool, io: &mut dyn Submit, rings: &mut EventRings) {
        let waits = |task: &&mut Task| match &task.state {
            State::Waiting(waiting) => matches!(waiting.until, Until::Released) && which(task),
            _ => false,
        };
        let mut tags: Vec<(u64, Tag)> = self.tasks.iter_mut().filter(waits).map(|t| (t.serial, t.tag)).collect();
        tags.sort_unstable_by_key(|(serial, _)| *serial);
        for (_, tag) in tags {
            self.start_again(tag, io, rings);
        }
    }

    fn start_again(&mut self, tag: Tag, io: &mut dyn Submit, rings: &mut EventRings) {
        let Some(task) = self.tasks.get(tag) else { return };
        if !matches!(task.state, State::Waiting(_)) {
            return;
        }
        let State::Waiting(waiting) = std::mem::replace(&mut task.state, State::Changing) else { return };
        let Waiting { req, data, passes, seen, .. } = *waiting;
        self.start(&req, data, Some(Again { passes, seen: Some(seen) }), io, rings);
    }

    /// Tells all shards to ask again for commands that wait.
    pub(super) fn tell_release(&self) {
        for shard in 0..self.target.shards() {
            self.post.post(shard, ShardMail::Release);
        }
    }
}
