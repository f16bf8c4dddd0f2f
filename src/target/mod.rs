//! tgtd's core: targets bound to hosts, the nexus table, the LUN map, tasks, task management.
//!
//! # Contract
//!
//! * The target is sharded: each reactor owns a [`Shard`] (its tasks); what is shared ([`Target`]) changes only on the
//!   cold path (nexus creation and destruction), under one mutex, and reaches the shards as mail.
//! * A shard is driven by its reactor only: events from the tx ring, completions of its I/O port, mail. It never waits.
//! * A task exists from `CMD_REQ` to `CMD_DONE`. A task management function is answered only after every task that it covers
//!   is over in that sense, on every shard.
//! * Nothing here knows of virtio or SRP.

mod aca;
mod barrier;
mod changes;
mod ending;
mod events;
mod job;
mod mail;
mod nexus;
mod order;
mod requests;
mod shard;
mod state;
mod task;
mod turns;
mod waiting;

pub use crate::device_server::Notes;
pub use mail::{Post, ShardMail, Spawn};
pub use shard::Shard;
pub use state::{HostSetup, Target, TargetError, TargetSetup, UnitMapping};

#[cfg(test)]
mod testkit;
#[cfg(test)]
mod tests;
