//! Orders: what one shard asks of all of them, and what happens when the last is through.
//!
//! A task management function, the creation and the destruction of a nexus, what a change of a unit must wait for, and what a hold
//! must wait for, are each one order. The shard where the request arrived (its home) mails it to the shards concerned, itself
//! included: that a letter makes the reactor pop its queues first holds for the home reactor too. Each shard does its part at
//! once, waits for those of its tasks that the order covers at that moment, and then acknowledges; the last one mails the order back
//! to its home, which answers the request. Nobody blocks.
//!
//! # Who waits for whom
//!
//! * What runs (I/O, jobs) waits for nothing here.
//! * A change waits for its turn, and then for commands that run. It never waits for commands that wait.
//! * A command with a hold on blocks waits for commands that run. One with a hold on its task set (ORDERED) waits for everything that is
//!   older than the hold; older commands are not stopped by that hold, and never wait for a younger one.
//! * A command that copies between units waits, before it starts, for holds on blocks of any of them, and not for task sets of others than the one
//!   that it is in. Once it runs, whoever needs what it uses waits for it.
//! * Task management waits for what runs, and for changes that have begun; what has not begun it ends at once.
//!
//! So there is nothing that could wait in a circle.

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use super::barrier::Barrier;
use super::nexus::{LuIndex, Nexus};
use super::task::{State, Task, TaskName, Until};
use crate::lu::{Extent, GateBits, HoldId, Itl, Lu};
use crate::scsi::{FunctionResponse, HostByte};
use crate::tgt::{ItNexusReq, ItnId, Tag, TskMgmtReq};

/// Something for all shards to do.
#[derive(Debug)]
pub struct Order {
    pub(super) barrier: Barrier,
    /// Where the request came in.
    pub(super) home: u8,
    pub(super) work: Work,
    /// Nexuses that lost tasks because of another one, and are to be told.
    cleared: Mutex<Vec<Arc<Itl>>>,
}

/// What is to be done.
#[derive(Debug)]
pub(super) enum Work {
    /// Know this nexus from now on.
    Create { request: ItNexusReq, nexus: Arc<Nexus> },
    /// End its tasks and forget it.
    Destroy { request: ItNexusReq, nexus: Arc<Nexus> },
    /// End the tasks in `scope`; when they are over, `effect`, and `request` is answered.
    End { request: Option<TskMgmtReq>, scope: Scope, by: By, effect: Effect },
    /// See whether there are tasks in `scope`.
    Query { request: TskMgmtReq, scope: Scope },
    /// Wait for what a hold of this command has to wait for.
    Quiet { task: TaskName, scope: Scope },
    /// Wait for what the change that this command makes has to wait for: end the tasks in `aborts`, and wait for them and for
    /// those in `scope`.
    Fence { task: TaskName, scope: Scope, aborts: Scope, by: By },
}

/// Who ends tasks, and how they end.
#[derive(Clone, Copy, Debug)]
pub(super) struct By {
    /// The nexus in whose name.
    pub(super) itn_id: ItnId,
    /// How its own tasks end, and those of others unless TAS is one.
    pub(super) how: HostByte,
}

/// Which tasks are meant.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Scope {
    /// None.
    Nothing,
    /// One, if it is of this nexus and unit.
    Task { itn_id: ItnId, lu: LuIndex, tag: Tag },
    /// The task set of a nexus at a unit.
    TaskSet { itn_id: ItnId, lu: LuIndex },
    /// The same, but for one task.
    Others { itn_id: Option<ItnId>, lu: LuIndex, but: Tag },
    /// Every nexus's tasks at a unit.
    Unit { lu: LuIndex },
    /// A nexus's tasks below one target number, or all of them.
    Nexus { itn_id: ItnId, target: Option<u8> },
    /// Nexuses' tasks at a unit, but for one task.
    Nexuses { itns: Vec<ItnId>, lu: LuIndex, but: Tag },
    /// The command with the ACA attribute.
    Aca { itn_id: ItnId, lu: LuIndex },
    /// Tasks of a task set (a nexus's at a unit, or everybody's) that are older than the hold of a task: on its own shard those that came
    /// before it, on others, between which there is no order, those that came before its hold.
    /// If that was made in spite of an older one, because that one waits for the task, `since` is the older one: what came after that waits
    /// for it, and must not be waited for.
    Before { hold: HoldId, since: HoldId, itn_id: Option<ItnId>, lu: LuIndex, than: TaskName },
    /// Tasks that use blocks of a unit now.
    Using { extent: Extent, lu: LuIndex, but: Tag },
    /// Tasks at a unit that run, and need one of these bits of their nexus's gate to be open.
    Needing { losers: Vec<(ItnId, GateBits)>, everybody: GateBits, lu: LuIndex, but: Tag },
}

/// What a function does apart from ending tasks. It happens when they are over, so that a command from before the function, popped
/// only now, cannot take away the unit attention that tells of it.
#[derive(Debug)]
pub(super) enum Effect {
    /// Nothing.
    None,
    /// LOGICAL UNIT RESET.
    ResetUnit(Arc<Lu>),
    /// I_T NEXUS RESET, for the units below one target number or for all.
    LoseNexus(Arc<Nexus>, Option<u8>),
    /// CLEAR ACA.
    ClearAca(Arc<Itl>),
}

impl Scope {
    pub(super) fn covers(&self, task: &Task) -> bool {
        match self {
            Scope::Nothing => false,
            Scope::Task { itn_id, lu, tag } => task.tag == *tag && task.itn_id == *itn_id && task.lu == *lu,
            Scope::TaskSet { itn_id, lu } => task.itn_id == *itn_id && task.lu == *lu,
            Scope::Others { itn_id, lu, but } => {
                task.lu == *lu && task.tag != *but && itn_id.is_none_or(|itn_id| itn_id == task.itn_id)
            }
            Scope::Unit { lu } => task.lu == *lu,
            Scope::Nexus { itn_id, target } => task.itn_id == *itn_id && target.is_none_or(|t| t == task.target),
            Scope::Nexuses { itns, lu, but } => task.lu == *lu && task.tag != *but && itns.contains(&task.itn_id),
            Scope::Aca { itn_id, lu } => task.itn_id == *itn_id && task.lu == *lu && task.aca,
            Scope::Before { since, itn_id, lu, than, .. } => {
                let in_set = task.lu == *lu && itn_id.is_none_or(|itn_id| itn_id == task.itn_id);
                let younger = match &task.state {
                    // What has begun to hold blocks is waited for, wherever it stands: or else it would wait for this hold,
                    // and what is older than both for its blocks.
                    _ if task.has_blocks && task.holds.iter().any(|held| held < since) => false,
                    _ if task.tag.shard() == than.tag.shard() => task.serial >= than.serial,
                    // Of two that both hold their task set the one that held it first goes first.
                    // What is in line for a change is stopped by no hold any more, however new.
                    State::Waiting(waiting) if matches!(waiting.until, Until::Turn(_)) => false,
                    State::Waiting(waiting) => waiting.seen >= *since || waiting.is_ordered(),
                    _ => false,
                };
                in_set && !younger
            }
            Scope::Using { extent, lu, but } => task.tag != *but && task.is_using(*lu, *extent),
            Scope::Needing { losers, everybody, lu, but } => {
                let lost = losers.iter().find(|(itn_id, _)| *itn_id == task.itn_id).map_or(GateBits::NONE, |l| l.1);
                task.tag != *but && task.is_needing(*lu, lost.and(*everybody))
            }
        }
    }

    /// Whether it covers all that a nexus, or everybody, does with a unit, and a task that it does not cover copies from or to that
    /// unit: the copy is to stop, though its task is in the task set of another unit and is not ended.
    pub(super) fn stops_copy(&self, task: &Task) -> bool {
        match self {
            _ if task.copies.is_none() || self.covers(task) => false,
            Scope::TaskSet { itn_id, lu } => task.itn_id == *itn_id && task.is_copying(*lu),
            Scope::Unit { lu } => task.is_copying(*lu),
            Scope::Nexuses { itns, lu, but } => task.tag != *but && itns.contains(&task.itn_id) && task.is_copying(*lu),
            Scope::Nexus { itn_id, target: Some(target) } => task.itn_id == *itn_id && task.is_copying_below(*target),
            _ => false,
        }
    }
}

impl Order {
    /// An order for so many shards.
    pub(super) fn new(work: Work, home: u8, shards: u8) -> Arc<Order> {
        let barrier = Barrier::new(u32::from(shards));
        Arc::new(Order { barrier, home, work, cleared: Mutex::default() })
    }

    /// True if commands that the guest posted before the request must be seen first.
    pub(super) fn needs_pop(&self) -> bool {
        self.judges().is_some()
    }

    /// The nexus whose commands those are. Between those of others and the request there is no order that anybody could have seen.
    pub(super) fn judges(&self) -> Option<ItnId> {
        match &self.work {
            // The queues of a nexus that is created or destroyed are not running. What is popped after a hold was made is younger
            // than it, and what is popped after a change was made is judged by it.
            Work::Create { .. } | Work::Destroy { .. } | Work::Quiet { .. } | Work::Fence { .. } => None,
            Work::End { request, .. } => request.as_ref().map(|request| request.itn_id),
            Work::Query { request, .. } => Some(request.itn_id),
        }
    }

    /// Whether tasks of nexuses other than the one that asks for it are ended by it.
    pub(super) fn ends_tasks_of_others(&self) -> bool {
        match &self.work {
            Work::End { scope, .. } => matches!(scope, Scope::Unit { .. }),
            Work::Fence { aborts, .. } => *aborts != Scope::Nothing,
            Work::Create { .. } | Work::Destroy { .. } | Work::Query { .. } | Work::Quiet { .. } => false,
        }
    }

    /// The service response to the task management function that it was; all shards are through.
    pub(super) fn response(&self) -> FunctionResponse {
        match &self.work {
            Work::Query { .. } if self.barrier.found() => FunctionResponse::Succeeded,
            _ => FunctionResponse::Complete,
        }
    }

    /// A nexus lost a task.
    pub(super) fn clear(&self, itl: &Arc<Itl>) {
        let mut cleared = self.cleared();
        if !cleared.iter().any(|told| Arc::ptr_eq(told, itl)) {
            cleared.push(Arc::clone(itl));
        }
    }

    /// Nexuses that lost tasks.
    pub(super) fn cleared(&self) -> MutexGuard<'_, Vec<Arc<Itl>>> {
        // A list that only grows: a panic elsewhere leaves nothing half done.
        self.cleared.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
