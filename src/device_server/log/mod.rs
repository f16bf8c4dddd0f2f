//! LOG SENSE and LOG SELECT.
//!
//! The pages say what is known and nothing else: there is no thermometer, so there is no Temperature page, and
//! no command counts its bytes or its time, so there is no General Statistics and Performance page. All of it begins anew with the
//! process.

#[cfg(test)]
mod tests;

use super::transfer::{parameter_data, parameter_list};
use super::{AbortFlag, Answer, Exclusive, Job, Plan, Planned, Task};
use crate::lu::{Itl, SelfTestOutcome, SelfTestResult};
use crate::mem::IoBuf;
use crate::scsi::spc::{self as data, LogSelfTest, LogUnit};
use crate::scsi::{Command, LogControl, Sense};
use std::sync::Arc;

/// LOG SENSE (SPC-4 6.8).
pub(super) fn sense<'a>(
    task: Task<'a, '_>,
    control: LogControl,
    page: u8,
    subpage: u8,
    pointer: u16,
    allocation_length: u32,
) -> Planned<'a> {
    let lu = task.itl.lu();
    let errors = lu.errors().get();
    let unit = lu.records(|records| LogUnit {
        errors,
        cycles: records.cycles,
        self_tests: records.self_tests.results().map(self_test).collect(),
    });
    parameter_data(task.buf, data::log_sense(control, page, subpage, pointer, &unit)?, allocation_length)
}

fn self_test(test: &SelfTestResult) -> LogSelfTest {
    let SelfTestResult { code, outcome, hours } = *test;
    let (result, number, failure, sense) = match outcome {
        SelfTestOutcome::Passed => (0x0, 0, None, None),
        SelfTestOutcome::Aborted => (0x2, 0, None, None),
        SelfTestOutcome::Failed { segment, lba, sense } => {
            let result = if segment == 1 { 0x5 } else { 0x6 };
            (result, segment, Some(lba), Some((sense.key, sense.code)))
        }
    };
    LogSelfTest { code, result, number, hours, failure, sense }
}

/// LOG SELECT (SPC-4 6.7). All nexuses but this one are told if a counter changed: LOG PARAMETERS CHANGED.
pub(super) fn select<'a>(
    task: Task<'a, '_>,
    pcr: bool,
    control: LogControl,
    page: u8,
    subpage: u8,
    parameter_list_length: u16,
) -> Planned<'a> {
    let list = parameter_list(task.buf, parameter_list_length)?;
    task.itl.lu().change_errors(task.itl, |errors| match list[..] {
        [] => data::log_reset(pcr, control, page, subpage, errors),
        _ => data::log_select(control, &list, errors),
    })?;
    Ok(Answer::good(u64::from(parameter_list_length)).into())
}

/// The same plan; if it is a job, an error of the medium that ends it will be counted.
pub(super) fn counted<'a>(plan: Plan<'a>, itl: &Arc<Itl>, verifies: bool) -> Plan<'a> {
    match plan {
        Plan::Job(job) => Plan::Job(counted_job(job, itl, verifies)),
        Plan::Exclusive(Exclusive { extent, job }) => {
            Plan::Exclusive(Exclusive { extent, job: counted_job(job, itl, verifies) })
        }
        // A copy counts errors where they happen, on whichever unit.
        Plan::Copy(_) | Plan::Done(_) | Plan::Io(_) | Plan::Change(_) | Plan::Held => plan,
    }
}

fn counted_job(Job { run }: Job, itl: &Arc<Itl>, verifies: bool) -> Job {
    let lu = Arc::clone(itl.lu());
    let run = Box::new(move |buf: &mut IoBuf, abort: &AbortFlag| {
        let answer = run(buf, abort);
        if let Some(sense) = &answer.sense {
            lu.errors().count(sense, verifies);
        }
        answer
    });
    Job { run }
}

/// Whether a command reads the medium to verify it.
pub(super) fn verifies(command: &Command) -> bool {
    matches!(command, Command::Verify { .. } | Command::WriteAndVerify { .. })
}

/// Counts the error that ended a command whose plan was one operation.
pub fn io_failed(itl: &Itl, sense: &Sense) {
    itl.lu().errors().count(sense, false);
}
