//! SEND DIAGNOSTIC and RECEIVE DIAGNOSTIC RESULTS.
//!
//! # Self-tests
//!
//! A self-test reads, in steps, and disturbs nothing: other commands run on. The default and the short one read the first and the
//! last MiB of the medium (its two segments), the extended one all of it (its only segment).
//!
//! No test outlives its command. So a short background test is done when its command ends, with GOOD whatever was found, as
//! the standard wants; an extended one, which may take hours, is done in the foreground only; and there is never a background
//! test to abort.

#[cfg(test)]
mod tests;

use std::sync::Arc;

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

/// SELF-TEST CODE values (SPC-4 6.42).
mod code {
    /// The default self-test, where SELFTEST asks for it.
    pub(super) const DEFAULT: u8 = 0b000;
    pub(super) const BACKGROUND_SHORT: u8 = 0b001;
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
    match self_test_code {
        code::DEFAULT if self_test => {}
        code::DEFAULT => return page(&task, page_format, parameter_list_length),
        code::BACKGROUND_SHORT | code::FOREGROUND_SHORT | code::FOREGROUND_EXTENDED => {}
        _ => return Err(Sense::invalid_field_in_cdb(FieldPointer::cdb(1, 7)).into()),
    }
    let segments = segments(lu, self_test_code);
    let lu = Arc::clone(lu);
    Ok(Job::plan(move |_, abort| {
        let outcome = test(&lu, &segments, abort);
        if self_test_code != code::DEFAULT {
            lu.records(|records| records.self_tests.add(self_test_code, outcome));
        }
        match outcome {
            SelfTestOutcome::Passed => Ok(Answer::good(0)),
            SelfTestOutcome::Failed { .. } if self_test_code == code::BACKGROUND_SHORT => Ok(Answer::good(0)),
            SelfTestOutcome::Failed { .. } => Err(FAILED.into()),
            SelfTestOutcome::Aborted => Err(sense(BackingError::Cancelled, 0).into()),
        }
    }))
}

/// What a self-test reads.
fn segments(lu: &Lu, self_test_code: u8) -> Vec<Extent> {
    let geometry = lu.geometry();
    let len = geometry.blocks.saturating_mul(u64::from(geometry.block_size));
    match self_test_code {
        code::FOREGROUND_EXTENDED => vec![Extent { offset: 0, len }],
        _ => {
            let end = STEP.min(len);
            vec![Extent { offset: 0, len: end }, Extent { offset: len - end, len: end }]
        }
    }
}

fn test(lu: &Lu, segments: &[Extent], abort: &AbortFlag) -> SelfTestOutcome {
    for (number, segment) in (1..).zip(segments) {
        let mut buffer = step_buffer(*segment);
        let read = each(*segment, abort, |part| {
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
