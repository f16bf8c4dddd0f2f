//! SEND DIAGNOSTIC and RECEIVE DIAGNOSTIC RESULTS.
//!
//! # Self-tests
//!
//! A self-test reads, in steps, and disturbs nothing: other commands run on. The default and the short one read the first and the
//! last MiB of the medium (its two segments), the extended one all of it (its only segment).
//!
//! Those in the foreground last as long as their commands. One in the background outlasts its command (SPC-4 5.14.4.3): GOOD says that
//! it began, REQUEST SENSE how far it is, the Self-Test Results log page how it ended. It leaves the medium to others for as long as it reads.
//! There is one at a time, and meanwhile other self-tests are refused. SEND DIAGNOSTIC with 100b ends it; so do resets, START STOP UNIT that stops or
//! ejects, and FORMAT UNIT and SANITIZE, which end those in the foreground, too. It does not go on in the next process.

#[cfg(test)]
mod tests;

use std::sync::Arc;
use std::time::{Duration, Instant};

use super::outcome::sense;
use super::sbc::pieces::{STEP, each, step_buffer};
use super::transfer::{parameter_data, parameter_list};
use super::{AbortFlag, Answer, Job, Planned, Task};
use crate::backing::BackingError;
use crate::lu::{Extent, Lu, SelfTestOutcome};
use crate::scsi::{AdditionalSense, FieldPointer, ParameterData, Sense, SenseKey, be_bytes};

/// PAGE CODE of Supported Diagnostic Pages, the only one (SPC-4 7.2).
const SUPPORTED_PAGES: u8 = 0x00;

const FAILED: Sense = Sense::new(SenseKey::HardwareError, AdditionalSense::LOGICAL_UNIT_FAILED_SELF_TEST);

/// No thread is to be had for a test.
const NO_RESOURCES: Sense = Sense::illegal_request(AdditionalSense::INSUFFICIENT_RESOURCES);

/// SELF-TEST CODE values (SPC-4 6.42).
mod code {
    /// The default self-test, where SELFTEST asks for it.
    pub(super) const DEFAULT: u8 = 0b000;
    pub(super) const BACKGROUND_SHORT: u8 = 0b001;
    pub(super) const BACKGROUND_EXTENDED: u8 = 0b010;
    pub(super) const ABORT_BACKGROUND: u8 = 0b100;
    pub(super) const FOREGROUND_SHORT: u8 = 0b101;
    pub(super) const FOREGROUND_EXTENDED: u8 = 0b110;
}

/// SEND DIAGNOSTIC (SPC-4 6.42).
pub(super) fn send<'a>(
    task: Task<'a, '_>,
    self_test_code: u8,
    page_format: bool,
    self_test: bool,
    parameter_list_length: u16,
) -> Planned<'a> {
    let lu = task.itl.lu();
    let invalid_code = Sense::invalid_field_in_cdb(FieldPointer::cdb(1, 7));
    match self_test_code {
        code::DEFAULT if !self_test => page(&task, page_format, parameter_list_length),
        code::ABORT_BACKGROUND => {
            match lu.records(|records| records.self_tests.abort(SelfTestOutcome::AbortedByCommand)) {
                true => Ok(Answer::good(0).into()),
                false => Err(invalid_code.into()),
            }
        }
        code::BACKGROUND_SHORT | code::BACKGROUND_EXTENDED => in_background(lu, self_test_code),
        code::DEFAULT | code::FOREGROUND_SHORT | code::FOREGROUND_EXTENDED => in_foreground(lu, self_test_code),
        _ => Err(invalid_code.into()),
    }
}

/// What REQUEST SENSE tells while a test runs in the background (SPC-4 5.14.4.4), and what ends the command that asks for another one.
pub(super) fn in_progress(lu: &Lu) -> Option<Sense> {
    let progress = lu.records(|records| records.self_tests.progress())?;
    Some(Sense::not_ready(AdditionalSense::SELF_TEST_IN_PROGRESS).with_progress(progress))
}

fn in_foreground(lu: &Arc<Lu>, self_test_code: u8) -> Planned<'static> {
    if let Some(sense) = in_progress(lu) {
        return Err(sense.into());
    }
    let segments = segments(lu, self_test_code);
    let lu = Arc::clone(lu);
    Ok(Job::plan(move |_, abort| {
        let outcome = test(&lu, &segments, abort, |_| !lu.is_occupied());
        if self_test_code != code::DEFAULT {
            lu.records(|records| records.self_tests.add(self_test_code, outcome));
        }
        match outcome {
            SelfTestOutcome::Passed => Ok(Answer::good(0)),
            SelfTestOutcome::Failed { .. } => Err(FAILED.into()),
            _ => Err(sense(BackingError::Cancelled, 0).into()),
        }
    }))
}

fn in_background(lu: &Arc<Lu>, self_test_code: u8) -> Planned<'static> {
    let begun = lu.records(|records| records.self_tests.begin(self_test_code));
    let Some(id) = begun else { return Err(in_progress(lu).unwrap_or(NO_RESOURCES).into()) };
    let unit = Arc::clone(lu);
    let work = move || {
        let segments = segments(&unit, self_test_code);
        let total = segments.iter().map(|segment| segment.len).sum();
        let mut last = Instant::now();
        let outcome = test(&unit, &segments, &AbortFlag::default(), |done| {
            // As long as the last step took the medium is others'.
            pause(&unit, last.elapsed());
            last = Instant::now();
            !unit.background().stopping() && unit.records(|records| records.self_tests.advance(id, done, total))
        });
        unit.records(|records| records.self_tests.end(id, outcome));
    };
    if let Err(e) = lu.background().start(Box::new(work)) {
        log::warn!("{}: no self-test: {e}", lu.identity().serial);
        lu.records(|records| records.self_tests.forget(id));
        return Err(NO_RESOURCES.into());
    }
    Ok(Answer::good(0).into())
}

/// Waits, but not when the process ends.
fn pause(lu: &Lu, time: Duration) {
    let until = Instant::now() + time.min(Duration::from_secs(1));
    while Instant::now() < until && !lu.background().stopping() {
        std::thread::sleep(Duration::from_millis(10).min(until.saturating_duration_since(Instant::now())));
    }
}

/// What a self-test reads.
fn segments(lu: &Lu, self_test_code: u8) -> Vec<Extent> {
    let geometry = lu.geometry();
    let len = geometry.blocks.saturating_mul(u64::from(geometry.block_size));
    match self_test_code {
        code::FOREGROUND_EXTENDED | code::BACKGROUND_EXTENDED => vec![Extent { offset: 0, len }],
        _ => {
            let end = STEP.min(len);
            vec![Extent { offset: 0, len: end }, Extent { offset: len - end, len: end }]
        }
    }
}

/// Reads; before each step `go_on` is asked whether to, and told how many bytes were read.
fn test(lu: &Lu, segments: &[Extent], abort: &AbortFlag, mut go_on: impl FnMut(u64) -> bool) -> SelfTestOutcome {
    let mut done = 0;
    for (number, segment) in (1..).zip(segments) {
        let mut buffer = step_buffer(*segment);
        let read = each(*segment, abort, |part| {
            if !go_on(done) {
                return Err(BackingError::Cancelled);
            }
            done += part.len;
            lu.image().read_bytes(part.offset, buffer.get_mut(..part.len as usize).unwrap_or_default())
        });
        match read {
            Ok(()) => {}
            Err((BackingError::Cancelled, _)) => return SelfTestOutcome::Aborted,
            Err((error, at)) => {
                let lba = lu.geometry().lba_of(at);
                return SelfTestOutcome::Failed { segment: number, lba, sense: sense(error, lba) };
            }
        }
    }
    SelfTestOutcome::Passed
}

/// Takes a diagnostic page: the one there is asks for nothing but to be answered, by RECEIVE DIAGNOSTIC RESULTS.
fn page<'a>(task: &Task<'a, '_>, page_format: bool, parameter_list_length: u16) -> Planned<'a> {
    if parameter_list_length == 0 {
        return Ok(Answer::good(0).into());
    }
    if !page_format {
        return Err(Sense::invalid_field_in_cdb(FieldPointer::cdb(1, 4)).into());
    }
    let list = parameter_list(task.buf, parameter_list_length)?;
    let invalid = |byte| Sense::invalid_field_in_parameter_list(FieldPointer::parameter_list(byte, 7));
    let truncated = Sense::illegal_request(AdditionalSense::PARAMETER_LIST_LENGTH_ERROR);
    match be_bytes(&list, 0).ok_or(truncated)? {
        [SUPPORTED_PAGES, 0, 0, 0] if list.len() == 4 => Ok(Answer::good(4).into()),
        [SUPPORTED_PAGES, 0, 0, 0] => Err(truncated.into()),
        [SUPPORTED_PAGES, 0, ..] => Err(invalid(2).into()),
        [SUPPORTED_PAGES, ..] => Err(invalid(1).into()),
        _ => Err(invalid(0).into()),
    }
}

/// RECEIVE DIAGNOSTIC RESULTS (SPC-4 6.27). Without PCV it is the page that SEND DIAGNOSTIC asked for, and that can only be one.
pub(super) fn receive<'a>(task: Task<'a, '_>, page: Option<u8>, allocation_length: u32) -> Planned<'a> {
    if page.is_some_and(|page| page != SUPPORTED_PAGES) {
        return Err(Sense::invalid_field_in_cdb(FieldPointer::cdb(2, 7)).into());
    }
    let mut data = ParameterData::new();
    data.u8(SUPPORTED_PAGES).u8(0).counted_u16(|data| {
        data.u8(SUPPORTED_PAGES);
    });
    parameter_data(task.buf, data, allocation_length)
}
