//! Which answers a command may get.
#![allow(clippy::unwrap_used, clippy::panic, missing_docs, dead_code, reason = "test code")]

use super::ledger::{Cause, Caused, Ledger, SHARED, Time, UnitNo};
use super::task::{ACA, Task, What};
use crate::drive::{ABORTED, FAILURE, OK, RESET};
use crate::frontend::Response;
use crate::frontend::guest::RESPONSE;

pub const GOOD: u8 = 0;
pub const CHECK_CONDITION: u8 = 2;
pub const RESERVATION_CONFLICT: u8 = 0x18;
pub const ACA_ACTIVE: u8 = 0x30;
pub const TASK_ABORTED: u8 = 0x40;

/// What the Control mode page of all units says.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Rules {
    /// TST: each nexus has a task set of its own.
    pub own_task_sets: bool,
    pub tas: bool,
    pub qerr: u8,
}

pub const DEFAULT: Rules = Rules { own_task_sets: true, tas: false, qerr: 0 };

impl Rules {
    /// The parameter list of MODE SELECT(6) that makes it so.
    pub fn mode_select(self) -> Vec<u8> {
        let (tst, tas) = (u8::from(self.own_task_sets) << 5, u8::from(self.tas) << 6);
        vec![0, 0, 0, 0, 0x0a, 10, tst, 0x10 | self.qerr << 1, 0, tas, 0, 0, 0, 0, 0, 0]
    }

    /// Whether a command that fails takes the other nexus's with it.
    fn fails_for_all(self) -> bool {
        self.qerr == 1 && !self.own_task_sets
    }
}

/// When an ACA condition may have been there, for one nexus at one unit.
#[derive(Clone, Copy, Debug, Default)]
pub struct AcaTimes {
    /// Until then commands with NACA were under way.
    pub naca_until: Time,
    /// How many are.
    pub naca_now: usize,
    /// There was none at that time.
    pub cleared: Time,
}

impl AcaTimes {
    pub fn may_be_active(self, posted: Time) -> bool {
        posted <= self.cleared || self.naca_now > 0 || self.naca_until > self.cleared
    }
}

/// The answers that were seen of each kind, and the unit attentions at each unit.
pub type Attentions = std::collections::HashMap<(UnitNo, (u8, u8, u8)), usize>;

pub struct Judge<'a> {
    pub who: usize,
    pub rules: Rules,
    pub ledger: &'a Ledger,
    pub aca: AcaTimes,
}

impl Judge<'_> {
    /// Whether a task may have been answered so; `Err` says why not. Gives back what it was.
    pub fn answer(
        &self,
        task: &Task,
        answer: &Response,
        attentions: &mut Attentions,
    ) -> Result<&'static str, &'static str> {
        let well = (answer.response, answer.status) == (OK, GOOD);
        let data = if well { task.input } else { 0 };
        if answer.used_len != RESPONSE + data {
            return Err("used length");
        }
        if task.attribute > ACA {
            // Not a command at all.
            return if answer.response == FAILURE { Ok("FAILURE") } else { Err("there is no such attribute") };
        }
        // What did not get there: of a command that failed half way perhaps not all.
        let residual = if well { 0 } else { task.out + task.input };
        let failed_half_way = task.what == What::CompareAndWrite && answer.status == CHECK_CONDITION;
        if answer.residual != residual && !failed_half_way {
            return Err("residual");
        }
        if answer.sense.is_empty() != (answer.status != CHECK_CONDITION) {
            return Err("sense data");
        }
        match (answer.response, answer.status) {
            (OK, GOOD) if task.is_nowhere() => Err("there is no such block"),
            (OK, GOOD) => Ok("GOOD"),
            (OK, CHECK_CONDITION) => self.check(task, answer.sense_code().unwrap(), attentions),
            (OK, RESERVATION_CONFLICT) if task.unit == SHARED => Ok("RESERVATION CONFLICT"),
            (OK, ACA_ACTIVE) if self.aca.may_be_active(task.posted) => Ok("ACA ACTIVE"),
            (OK, TASK_ABORTED) if self.is_ended_by_other(task) && self.rules.tas => Ok("TASK ABORTED"),
            (ABORTED, 0) if self.is_ended_by_own(task) => Ok("ABORTED"),
            (ABORTED, 0) if self.is_ended_by_other(task) && !self.rules.tas => Ok("ABORTED by the other"),
            (RESET, 0) if self.is_reset(task) => Ok("RESET"),
            _ => Err("nothing happened that could have this answer"),
        }
    }

    fn check(
        &self,
        task: &Task,
        code: (u8, u8, u8),
        attentions: &mut Attentions,
    ) -> Result<&'static str, &'static str> {
        match code {
            (5, 0x21, 0) if task.is_nowhere() => Ok("LBA OUT OF RANGE"),
            (5, 0x49, 0) if task.attribute == ACA => Ok("INVALID MESSAGE"),
            (0xe, 0x1d, 0) if task.what == What::CompareAndWrite => Ok("MISCOMPARE"),
            (5, 0x26, 0 | 4) if matches!(task.what, What::PersistentReserve { .. }) => Ok("INVALID RELEASE"),
            (6, asc, ascq) => {
                let seen = attentions.entry((task.unit, code)).or_default();
                *seen += 1;
                let other = |c: &Caused| c.unit == task.unit && c.who != self.who;
                let causes = match (asc, ascq) {
                    (0x29, 3) => self.ledger.count(|c| c.unit == task.unit && c.cause == Cause::UnitReset),
                    (0x29, 7) => {
                        self.ledger.count(|c| c.unit == task.unit && c.who == self.who && c.cause == Cause::NexusReset)
                    }
                    (0x2f, 0) if task.unit != SHARED || self.rules.tas => 0,
                    (0x2f, 0) if self.rules.fails_for_all() => usize::MAX,
                    (0x2f, 0) => self.ledger.count(|c| {
                        let cleared = c.cause == Cause::ClearTaskSet && !self.rules.own_task_sets;
                        other(c) && (cleared || c.cause == Cause::PreemptAndAbort)
                    }),
                    (0x2a, 3..=5) if task.unit == SHARED => usize::MAX,
                    _ => 0,
                };
                if *seen > causes {
                    return Err("a unit attention that nothing established");
                }
                Ok("UNIT ATTENTION")
            }
            _ => Err("sense code"),
        }
    }

    fn is_ended_by_own(&self, task: &Task) -> bool {
        // Something of this nexus's may have failed.
        self.rules.qerr != 0
            || self.ledger.is_caused(task.posted, |c| {
                let fits = match c.cause {
                    Cause::AbortTask(id) => id == task.id,
                    Cause::AbortTaskSet | Cause::ClearTaskSet | Cause::PreemptAndAbort => true,
                    Cause::ClearAca => task.attribute == ACA,
                    Cause::UnitReset | Cause::NexusReset => false,
                };
                fits && c.who == self.who && c.unit == task.unit
            })
    }

    fn is_ended_by_other(&self, task: &Task) -> bool {
        task.unit == SHARED
            && (self.rules.fails_for_all()
                || self.ledger.is_caused(task.posted, |c| {
                    let fits = match c.cause {
                        Cause::ClearTaskSet => !self.rules.own_task_sets,
                        Cause::PreemptAndAbort => true,
                        _ => false,
                    };
                    fits && c.who != self.who && c.unit == task.unit
                }))
    }

    fn is_reset(&self, task: &Task) -> bool {
        self.ledger.is_caused(task.posted, |c| {
            let whose = match c.cause {
                Cause::UnitReset => true,
                Cause::NexusReset => c.who == self.who,
                _ => false,
            };
            whose && c.unit == task.unit
        })
    }
}
