//! LOG SENSE and LOG SELECT.
//!
//! The pages say what is known and nothing else: there is no thermometer, so the temperature is unknown, and no command is
//! timed, so statistics count commands and blocks and no intervals.

#[cfg(test)]
mod tests;

use super::transfer::{fill, parameter_data, parameter_list};
use super::{AbortFlag, Answer, Exclusive, Job, Plan, Planned, Task};
use crate::lu::{Itl, Lu, MappingResources, SelfTestOutcome, SelfTestResult};
use crate::mem::IoBuf;
use crate::scsi::spc::{self as data, LogResources, LogSelfTest, LogUnit};
use crate::scsi::{AdditionalSense, Command, LogControl, Sense, SenseKey};
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
    let resources = lu.threshold_exponent().map(|_| LogResources::default());
    let unit = log_unit(lu, resources);
    let data = data::log_sense(control, page, subpage, pointer, &unit)?;
    if page != data::log_page::PROVISIONING {
        return parameter_data(task.buf, data, allocation_length);
    }
    // To ask the file system may take its time.
    let lu = Arc::clone(lu);
    Ok(Job::plan(move |buf, _| {
        let (MappingResources { available, used }, _) = lu.look_at_space().ok_or(UNKNOWN_SPACE)?;
        let unit = LogUnit { resources: Some(LogResources { available, used }), ..unit };
        fill(buf, data::log_sense(control, page, subpage, pointer, &unit)?, allocation_length)
    }))
}

/// The file system does not tell any more what space there is.
const UNKNOWN_SPACE: Sense = Sense::new(SenseKey::HardwareError, AdditionalSense::INTERNAL_TARGET_FAILURE);

fn log_unit(lu: &Lu, resources: Option<LogResources>) -> LogUnit {
    let counters = lu.counters();
    lu.records(|records| LogUnit {
        counters,
        block_length: lu.geometry().block_size,
        saved: lu.survives_power_loss(),
        resources,
        cycles: records.cycles,
        self_tests: records.self_tests.results().map(|test| self_test(&test)).collect(),
    })
}

fn self_test(test: &SelfTestResult) -> LogSelfTest {
    let SelfTestResult { code, outcome, hours } = *test;
    let (result, number, failure, sense) = match outcome {
        SelfTestOutcome::Passed => (0x0, 0, None, None),
        SelfTestOutcome::AbortedByCommand => (0x1, 0, None, None),
        SelfTestOutcome::Aborted => (0x2, 0, None, None),
        SelfTestOutcome::Running => (0xf, 0, None, None),
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
    let lu = task.itl.lu();
    let resources = lu.threshold_exponent().is_some();
    lu.change_counters(task.itl, |counters| match list[..] {
        [] => data::log_reset(pcr, control, page, subpage, resources, counters),
        _ => data::log_select(control, &list, lu.geometry().block_size, counters),
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
            lu.count_error(sense, verifies);
        }
        answer
    });
    Job { run }
}

/// Counts a command that begins, if it reads, writes or verifies. On the way of every command: see [`Statistics`](crate::lu::Statistics).
pub(super) fn tally(itl: &Itl, command: &Command) {
    let statistics = itl.lu().statistics();
    match command {
        Command::Read(transfer) => statistics.read(transfer.blocks),
        Command::Verify { transfer, .. } => statistics.verify(transfer.blocks),
        Command::Write(transfer) | Command::WriteAndVerify { transfer, .. } | Command::WriteAtomic { transfer, .. } => {
            statistics.write(transfer.blocks)
        }
        _ => {}
    }
}

/// Whether a command reads the medium to verify it.
pub(super) fn verifies(command: &Command) -> bool {
    matches!(command, Command::Verify { .. } | Command::WriteAndVerify { .. })
}

/// Counts the error that ended a command whose plan was one operation.
pub fn io_failed(itl: &Itl, sense: &Sense) {
    itl.lu().count_error(sense, false);
}
