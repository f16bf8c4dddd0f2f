//! What shards tell each other, and what they need from their reactor for it.

use std::sync::Arc;

use super::changes::Persisted;
use super::job::JobDone;
use super::nexus::LuIndex;
use super::order::Order;
use super::task::TaskName;
use crate::tgt::ItnId;

/// Carries mail to the shards of one target; the hba does it with its reactors' mailboxes.
pub trait Post: Send + Sync {
    /// Puts `mail` into the box of `shard` and wakes its reactor. Letters of one sender arrive in their order. A shard
    /// may post to itself. A letter must not be lost while the shard lives: it may hold a command's buffer.
    fn post(&self, shard: u8, mail: ShardMail);
}

/// Runs work on threads that may wait.
pub trait Spawn: Send + Sync {
    /// Takes `work`, to be run once. Work that is dropped instead (at shutdown) ends its command with an error.
    /// Work may take long, so no `owner` (a nexus) may keep all the others' waiting.
    fn spawn(&self, owner: ItnId, work: Box<dyn FnOnce() + Send>);
}

/// A letter from a shard, or from a job of its own, to a shard.
#[derive(Debug)]
pub enum ShardMail {
    /// Something for all shards to do.
    Order(Arc<Order>),
    /// All shards are through with an order of this one.
    OrderDone(Arc<Order>),
    /// A job of this shard has ended.
    JobDone(JobDone),
    /// A unit has something to tell to a nexus whose home is this shard.
    Report {
        /// The nexus.
        itn_id: ItnId,
        /// The unit's target number.
        target: u8,
        /// Its LUN.
        lun: u16,
    },
    /// A change of this shard is written down, or could not be.
    Persisted(Persisted),
    /// It is the turn of a command of this shard to change a unit.
    #[expect(missing_docs, reason = "the unit's index and the command")]
    Turn { lu: LuIndex, task: TaskName },
    /// Something that held commands is over.
    Release,
}

impl ShardMail {
    /// True if the reactor must first pop all that its virtqueues show and deliver the `CMD_REQ`s, and only then hand
    /// this letter to [`Shard::on_mail`](super::Shard::on_mail): a command that a guest posted before a task
    /// management function must be seen by it.
    pub fn needs_pop(&self) -> bool {
        match self {
            ShardMail::Order(order) => order.needs_pop(),
            _ => false,
        }
    }

    /// Whether tasks of nexuses other than the one that asks for it are ended by it.
    pub fn ends_tasks_of_others(&self) -> bool {
        match self {
            ShardMail::Order(order) => order.ends_tasks_of_others(),
            _ => false,
        }
    }

    /// The nexus that posted those commands, if [`needs_pop`](Self::needs_pop). Commands of other nexuses that the letter may end as
    /// well have no order with the request that their initiators could have seen: they need not be popped.
    pub fn judges(&self) -> Option<ItnId> {
        match self {
            ShardMail::Order(order) => order.judges(),
            _ => None,
        }
    }
}
