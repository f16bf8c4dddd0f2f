//! Orders: what one shard asks of all of them, and what happens when the last is through.
//!
//! A task management function, the destruction of a nexus and its creation are each one order. The shard where the request
//! arrived (its home) mails it to the shards concerned, itself included: that a letter makes the reactor pop its queues
//! first holds for the home reactor too. Each shard does its part at once, waits for those of its tasks that the order
//! covers, and then acknowledges; the last one mails the order back to its home, which answers the request. Nobody blocks.
//!
//! Orders never wait for orders, and tasks never wait for orders, so there is nothing that could wait in a circle.

use std::sync::Arc;

use super::barrier::Barrier;
use super::nexus::{LuIndex, Nexus};
use super::task::Task;
use crate::lu::Lu;
use crate::scsi::{FunctionResponse, HostByte};
use crate::tgt::{ItNexusReq, ItnId, Tag, TskMgmtReq};

/// Something for all shards to do.
#[derive(Debug)]
pub struct Order {
    pub(super) barrier: Barrier,
    /// Where the request came in.
    pub(super) home: u8,
    pub(super) work: Work,
}

/// What is to be done.
#[derive(Debug)]
pub(super) enum Work {
    /// Know this nexus from now on.
    Create { request: ItNexusReq, nexus: Arc<Nexus> },
    /// End its tasks and forget it.
    Destroy { request: ItNexusReq, nexus: Arc<Nexus> },
    /// End the tasks in `scope` with `how`; when they are over, `effect`.
    End { request: TskMgmtReq, scope: Scope, how: HostByte, effect: Effect },
    /// See whether there are tasks in `scope`.
    Query { request: TskMgmtReq, scope: Scope },
}

/// Which tasks are meant.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Scope {
    /// One, if it is of this nexus and unit.
    Task { itn_id: ItnId, lu: LuIndex, tag: Tag },
    /// The task set of a nexus at a unit.
    TaskSet { itn_id: ItnId, lu: LuIndex },
    /// Every nexus's tasks at a unit.
    Unit { lu: LuIndex },
    /// A nexus's tasks below one target number, or all of them.
    Nexus { itn_id: ItnId, target: Option<u8> },
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
}

impl Scope {
    pub(super) fn covers(&self, task: &Task) -> bool {
        match *self {
            Scope::Task { itn_id, lu, tag } => task.tag == tag && task.itn_id == itn_id && task.lu == lu,
            Scope::TaskSet { itn_id, lu } => task.itn_id == itn_id && task.lu == lu,
            Scope::Unit { lu } => task.lu == lu,
            Scope::Nexus { itn_id, target } => task.itn_id == itn_id && target.is_none_or(|t| t == task.target),
        }
    }
}

impl Order {
    /// The tasks that a shard must be rid of before it acknowledges.
    pub(super) fn scope(&self) -> Option<Scope> {
        match &self.work {
            Work::Create { .. } => None,
            Work::Destroy { nexus, .. } => Some(Scope::Nexus { itn_id: nexus.itn_id, target: None }),
            Work::End { scope, .. } | Work::Query { scope, .. } => Some(*scope),
        }
    }

    /// True if commands that the guest posted before the request must be seen first.
    pub(super) fn needs_pop(&self) -> bool {
        match &self.work {
            // The queues of a nexus that is created or destroyed are not running.
            Work::Create { .. } | Work::Destroy { .. } => false,
            Work::End { .. } | Work::Query { .. } => true,
        }
    }

    /// The nexus whose commands those are. Between those of others and the request there is no order that anybody could have seen.
    pub(super) fn judges(&self) -> Option<ItnId> {
        match &self.work {
            Work::Create { .. } | Work::Destroy { .. } => None,
            Work::End { request, .. } | Work::Query { request, .. } => Some(request.itn_id),
        }
    }

    /// The service response to the task management function that it was; all shards are through.
    pub(super) fn response(&self) -> FunctionResponse {
        match &self.work {
            Work::Query { .. } if self.barrier.found() => FunctionResponse::Succeeded,
            _ => FunctionResponse::Complete,
        }
    }
}
