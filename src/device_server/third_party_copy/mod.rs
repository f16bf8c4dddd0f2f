//! Third-party copies (SPC-4 5.17): the copy manager that every unit contains.
//!
//! # Contract
//!
//! * A command of a nexus copies between the units which that nexus sees, on whichever target numbers, and with that nexus's rights: what
//!   it could not READ or WRITE itself it cannot have copied. `units` finds units by their names.
//! * What a command is going to use is known before it starts, as a list of [`Use`]s: each a range of a unit and what must be open
//!   in the nexus's gate there. The plan is a [`Copying`]: the list, and the work. The target keeps the list with the task:
//!     * a change that takes access to one of those units away (PREEMPT, RESERVE, SWP, SET TARGET PORT GROUPS …) is answered only when the
//!       work, which looks at all gates before each step and stops, has ended;
//!     * a function that ends all tasks of one of those units, or those of the nexus there (LOGICAL UNIT RESET, CLEAR TASK SET, ABORT TASK
//!       SET, PREEMPT AND ABORT, I_T NEXUS RESET of a target number), stops the work, and is answered when it has ended. The command itself is in
//!       the task set of the unit that it was sent to, and ends with COPY ABORTED.
//! * COMPARE AND WRITE and ORWRITE stay atomic: a copy does not start while such a command holds blocks that it uses on any of its units,
//!   and while it runs they wait for it where they need those blocks. Between a copy and READs and WRITEs there is no order, as
//!   there is none between READs and WRITEs; a block is seen old or new.
//! * Work goes in steps of at most 1 MiB; its task can be aborted between any two of them, and what was copied stays copied.
//!
//! # Where is what
//!
//! `units` has names and rights, `copy` moves the bytes; `extended_copy` and `receive` are the commands, `page` the Third-party Copy VPD
//! page and its limits.

mod copy;
mod extended_copy;
mod page;
mod receive;
mod units;

#[cfg(test)]
mod tests;

pub use units::Use;

pub(super) use copy::{CopyError, Step};
pub(super) use extended_copy::extended_copy;
pub(super) use page::page;
pub(super) use receive::{receive_failure_details, receive_operating_parameters, receive_status};

use super::{AbortFlag, Answer, Job, Plan};
use crate::mem::IoBuf;

/// A plan of several steps that uses several units.
#[derive(Debug)]
pub struct Copying {
    /// What it uses. All of it was admitted.
    pub uses: Vec<Use>,
    /// The work.
    pub job: Job,
}

impl Copying {
    /// A plan to run `run`, which uses `uses` and nothing else. It is for `run`, before each step, to ask whether it still may; [`copy`]
    /// does.
    pub(super) fn plan(
        uses: Vec<Use>,
        run: impl FnOnce(&mut IoBuf, &AbortFlag) -> Result<Answer, Answer> + Send + 'static,
    ) -> Plan<'static> {
        let run = Box::new(move |buf: &mut IoBuf, abort: &AbortFlag| run(buf, abort).unwrap_or_else(|answer| answer));
        Plan::Copy(Copying { uses, job: Job { run } })
    }
}
