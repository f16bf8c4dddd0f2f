//! Ending tasks: what task management, PREEMPT AND ABORT, QERR and the end of a nexus do to commands.

use std::sync::Arc;

use super::order::{By, Order, Scope};
use super::shard::{Reply, Shard};
use super::task::{Ending, State, Until};
use crate::backing::Submit;
use crate::scsi::{CommandResult, HostByte, Status};
use crate::tgt::{EventRings, Tag};

impl Ending {
    pub(super) fn reply(self) -> Reply {
        let result = match self {
            Ending::Host(host) => CommandResult::host(host),
            Ending::TaskAborted => CommandResult::status(Status::TaskAborted),
        };
        Reply { result, len: 0, sense: None }
    }
}

impl Shard {
    /// Ends the tasks in `scope` for an order; gives back those that are not over.
    pub(super) fn end_scope(
        &mut self,
        scope: &Scope,
        by: By,
        order: &Order,
        io: &mut dyn Submit,
        rings: &mut EventRings,
    ) -> Vec<Tag> {
        let tags: Vec<Tag> = self.tasks.iter_mut().filter(|task| scope.covers(task)).map(|task| task.tag).collect();
        for &tag in &tags {
            let how = self.ending(tag, by, order);
            self.end(tag, how, io, rings);
        }
        [tags, self.stop_copies(scope)].concat()
    }

    /// Stops copies that use the units of `scope`, but whose tasks are in the task sets of others; gives back their tasks.
    fn stop_copies(&mut self, scope: &Scope) -> Vec<Tag> {
        let mut stopped = Vec::new();
        for task in self.tasks.iter_mut().filter(|task| scope.stops_copy(task)) {
            if let State::Job(abort) = &task.state {
                abort.raise();
            }
            stopped.push(task.tag);
        }
        stopped
    }

    /// How a task ends. A nexus whose tasks end because of another one is told, unless each of them says so itself (SAM-5 5.6); a
    /// reset tells by a unit attention of its own.
    fn ending(&mut self, tag: Tag, by: By, order: &Order) -> Ending {
        let host = Ending::Host(by.how);
        let Some(task) = self.tasks.get(tag).filter(|task| task.itn_id != by.itn_id && !task.is_answered()) else {
            return host;
        };
        let task = (task.itn_id, task.target, task.lun);
        let Some(itl) = self.itl(task) else { return host };
        if itl.lu().mode().tas {
            return Ending::TaskAborted;
        }
        if by.how == HostByte::Abort {
            order.clear(&itl);
        }
        host
    }

    /// Ends a task. One that has not begun is answered at once; else whoever has it is asked for it, and sees to it that it is not
    /// answered with its own result. The first that ends it determines the answer. A task that was answered stays as it is.
    pub(super) fn end(&mut self, tag: Tag, how: Ending, io: &mut dyn Submit, rings: &mut EventRings) {
        let Some(task) = self.tasks.get(tag) else { return };
        match &task.state {
            State::Free | State::Answered => return,
            State::Io(_) if task.ended.is_none() => io.cancel(tag.0),
            State::Io(_) | State::Changing => {}
            State::Job(abort) => abort.raise(),
            State::Waiting(_) => return self.end_waiting(tag, how, rings),
        }
        task.ended.get_or_insert(how);
    }

    fn end_waiting(&mut self, tag: Tag, how: Ending, rings: &mut EventRings) {
        let Some(task) = self.tasks.get(tag) else { return };
        let State::Waiting(waiting) = std::mem::replace(&mut task.state, State::Changing) else { return };
        if let Until::Turn(_) = waiting.until {
            let (lu, name) = (task.lu, task.name());
            self.target.turns(lu).inspect(|turns| turns.leave(name));
        }
        self.reply(tag, how.reply(), waiting.data.buf, rings);
    }

    /// The tasks of a virtqueue are over, as far as that is in anybody's power, without a task management function: each is
    /// answered with `how` as soon as its buffer is back, and one whose change waits for other commands at once; its effect stands.
    pub fn abort_queue(&mut self, queue: u16, how: HostByte, io: &mut dyn Submit, rings: &mut EventRings) {
        let tags: Vec<Tag> = self.tasks.of_queue(queue).map(|task| task.tag).collect();
        for tag in tags {
            self.end(tag, Ending::Host(how), io, rings);
            self.abandon_change(tag, rings);
        }
    }

    /// Tells the nexuses that lost tasks through an order.
    pub(super) fn tell_cleared(order: &Arc<Order>) {
        for itl in order.cleared().iter() {
            itl.establish(crate::lu::Attention::CommandsCleared);
        }
    }
}
