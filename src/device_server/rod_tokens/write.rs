//! WRITE USING TOKEN.

use std::sync::Arc;

use super::transfer::{Source, Stop, Transfer};
use super::{WRITE_USING_TOKEN, begin, limits, token_list};
use crate::device_server::sbc::writable;
use crate::device_server::third_party_copy::{Copying, Use};
use crate::device_server::{Answer, Planned, Task};
use crate::lu::{Extent, Lu, OutOfRange, RodError, RodUse, Touches};
use crate::scsi::sbc::{Immediate, WriteUsingToken, write_using_token};
use crate::scsi::spc::{CopyState, PresentedToken};
use crate::scsi::{AdditionalSense, FieldPointer, Sense, SenseKey};

/// WRITE USING TOKEN (SBC-3 5.51). Where the token represents less than is to be written, as much is written as there is, in whole blocks, the last
/// of them filled up with zeros; then the command ends with COPY TARGET DEVICE DATA UNDERRUN.
///
/// Blocks that the token represents are not written with it: they would have to stay and to change at once.
pub(in crate::device_server) fn write<'a>(task: Task<'a, '_>, list_identifier: u32, length: u32) -> Planned<'a> {
    if length == 0 {
        return Ok(Answer::good(0).into());
    }
    let lu = task.itl.lu();
    let Immediate { immed, what } = write_using_token(&token_list(task.buf, length)?, &limits(lu))?;
    writable(lu)?;
    let geometry = lu.geometry();
    let to = what
        .ranges
        .iter()
        .map(|range| geometry.extent(range.lba, range.blocks))
        .collect::<Result<Vec<Extent>, OutOfRange>>()
        .map_err(|out| {
            Sense::illegal_request(AdditionalSense::LOGICAL_BLOCK_ADDRESS_OUT_OF_RANGE).with_information(out.lba)
        })?;
    let source = source(lu, &what, &to)?;
    let uses: Vec<Use> = to.iter().map(|extent| Use::writes(task.itl, *extent)).collect();
    let (itl, writes, good) = (Arc::clone(task.itl), uses.clone(), Answer::good(u64::from(length)));
    Ok(Copying::plan(uses, move |_, abort| {
        let run = begin(&itl, list_identifier, WRITE_USING_TOKEN)?;
        let ended = Transfer { lu: itl.lu(), run: &run, abort }.all(&writes, &source);
        let (state, answer) = match ended {
            Ok(()) => (CopyState::Done, good.clone()),
            Err(stop) => outcome(stop, run.transferred()),
        };
        if let Source::Rod { rod, .. } = source
            && what.delete
        {
            rod.delete();
        }
        run.finish(state, None);
        Ok(if immed { good } else { answer })
    }))
}

/// What an operation that ended early is told to be, and what its command is answered.
fn outcome(stop: Stop, transferred: u64) -> (CopyState, Answer) {
    match stop {
        Stop::Short => {
            let key = if transferred > 0 { SenseKey::CopyAborted } else { SenseKey::IllegalRequest };
            let code = AdditionalSense::COPY_TARGET_DEVICE_DATA_UNDERRUN;
            let sense = Sense::new(key, code).with_information(transferred);
            (CopyState::Partial(sense), sense.into())
        }
        Stop::Failed(sense) => (CopyState::Failed(sense), sense.into()),
        Stop::Refused(answer) => (CopyState::Terminated, answer),
        Stop::Cleared => {
            let code = AdditionalSense::COMMANDS_CLEARED_BY_DEVICE_SERVER;
            (CopyState::Terminated, Sense::new(SenseKey::CopyAborted, code).into())
        }
        Stop::Aborted => {
            let code = AdditionalSense::NO_ADDITIONAL_SENSE_INFORMATION;
            (CopyState::Terminated, Sense::aborted_command(code).into())
        }
    }
}

/// What the token of a command stands for.
fn source(lu: &Arc<Lu>, what: &WriteUsingToken, to: &[Extent]) -> Result<Source, Sense> {
    let identifier = match what.token.presented()? {
        PresentedToken::Zeros => return Ok(Source::Zeros),
        PresentedToken::Made { identifier } => identifier,
    };
    let rod = lu.rods().open(identifier, &what.token).map_err(|error| invalid(error))?;
    let unit = rod.unit().filter(|unit| has(unit, &rod)).ok_or(invalid(RodError::Cancelled))?;
    let offset = what.offset.checked_mul(u64::from(lu.geometry().block_size)).filter(|offset| *offset < rod.len());
    let offset = offset.ok_or(Sense::invalid_field_in_parameter_list(FieldPointer::parameter_list(8, 7)))?;
    if Arc::ptr_eq(&unit, lu)
        && let Some(at) = to.iter().position(|to| represents(&rod, to))
    {
        let field = what.fields.get(at).copied().unwrap_or_default();
        return Err(Sense::illegal_request(AdditionalSense::INVALID_TOKEN_OPERATION)
            .with_field(FieldPointer::parameter_list(field, 7)));
    }
    Ok(Source::Rod { rod, unit, offset })
}

/// Whether a unit still has all blocks of a ROD: it may have become smaller.
fn has(unit: &Lu, rod: &RodUse) -> bool {
    let geometry = unit.geometry();
    let end = geometry.blocks * u64::from(geometry.block_size);
    rod.extents().iter().all(|extent| extent.offset + extent.len <= end)
}

/// Whether a ROD, of the same unit, has one of these blocks.
fn represents(rod: &RodUse, blocks: &Extent) -> bool {
    rod.extents().iter().any(|extent| Touches::Blocks(*extent).overlaps(Touches::Blocks(*blocks)))
}

/// INVALID TOKEN OPERATION (SPC-4 5.17.6.5.2.3).
pub(super) fn invalid(error: RodError) -> Sense {
    Sense::illegal_request(match error {
        RodError::Unknown => AdditionalSense::TOKEN_UNKNOWN,
        RodError::Corrupt => AdditionalSense::TOKEN_CORRUPT,
        RodError::Expired => AdditionalSense::TOKEN_EXPIRED,
        RodError::Cancelled => AdditionalSense::TOKEN_CANCELLED,
        RodError::Deleted => AdditionalSense::TOKEN_DELETED,
    })
}
