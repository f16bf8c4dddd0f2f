//! Commands that change what nexuses may do with a unit, or what they share of it: reservations, mode parameters, access states.
//!
//! # Contract
//!
//! * Changes of a unit are made one at a time; who takes turns, and when each step is made, is the target's business:
//!   [`evaluate`](Change::evaluate) when the turn has come → [`persist`](Change::persist), if the change says so →
//!   [`apply`](Change::apply) → all shards: the commands that the change forbids, and that began before, have ended →
//!   [`grant`](Change::grant), whose plan answers the command.
//! * A change that is evaluated is made to its end, whatever becomes of its task. One that is dropped before has done nothing.

use super::{Answer, Plan};
use crate::lu::{GateBits, NexusId};

/// A change on its way. Only `persist` may wait.
pub trait Change: Send {
    /// Judges the command against the unit's state as it is now.
    ///
    /// # Errors
    ///
    /// The command's answer; nothing has changed then.
    fn evaluate(&mut self) -> Result<Fence, Answer>;

    /// Writes down what the unit's state will be. Called at most once, on a thread that may wait.
    ///
    /// # Errors
    ///
    /// The command's answer; nothing has changed then.
    fn persist(&mut self) -> Result<(), Answer> {
        Ok(())
    }

    /// Makes the change for those who lose by it: from here on their gates stop what they may not do. Unit attentions are
    /// established. What others gain is not given yet.
    fn apply(&mut self);

    /// No command that the change forbids is running any more: gives what the change gives, and says what is left to do, an answer
    /// or a job.
    fn grant(&mut self) -> Plan<'static>;

    /// The change was made, and written down, by a process that was killed before it had answered: what is left to do. In place of all
    /// other steps. Nothing of that process's commands is running any more, and what the change denies is denied.
    fn made(&mut self) -> Plan<'static>;
}

/// What must have ended before a change is answered.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Fence {
    /// Whether [`Change::persist`] has something to do.
    pub persists: bool,
    /// Whose commands of which kind must have ended: those that need any of these bits of the gate to be open.
    pub losers: Losers,
    /// Nexuses whose tasks are aborted (PREEMPT AND ABORT).
    pub aborts: Vec<NexusId>,
}

/// Nexuses that lose by a change, and what.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub enum Losers {
    /// None.
    #[default]
    Nobody,
    /// These.
    These(Vec<(NexusId, GateBits)>),
    /// Every nexus, the one that asked as well.
    Everybody(GateBits),
}
