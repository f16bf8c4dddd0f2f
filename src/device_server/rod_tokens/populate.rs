//! POPULATE TOKEN.

use std::sync::Arc;
use std::time::Duration;

use super::{POPULATE_TOKEN, begin, limits, token_list};
use crate::device_server::{AbortFlag, Answer, Exclusive, Planned, Task};
use crate::lu::{Extent, Itl, Lu, OutOfRange};
use crate::scsi::sbc::{PopulateToken, populate_token};
use crate::scsi::spc::{Association, CopyState, Designator, ROD_TOKEN_RANDOM, RodToken, RodTokenFields};
use crate::scsi::{AdditionalSense, Sense};

/// POPULATE TOKEN (SBC-3 5.6). Nothing is read: the token stands for the blocks themselves. It is made when all commands that use any block
/// between the first and the last of them have ended, and before another one that does begins.
pub(in crate::device_server) fn populate<'a>(task: Task<'a, '_>, list_identifier: u32, length: u32) -> Planned<'a> {
    if length == 0 {
        return Ok(Answer::good(0).into());
    }
    let lu = task.itl.lu();
    let asked = populate_token(&token_list(task.buf, length)?, &limits(lu))?.what;
    let geometry = lu.geometry();
    let extents = asked
        .ranges
        .iter()
        .map(|range| geometry.extent(range.lba, range.blocks))
        .collect::<Result<Vec<Extent>, OutOfRange>>()
        .map_err(|out| {
            Sense::illegal_request(AdditionalSense::LOGICAL_BLOCK_ADDRESS_OUT_OF_RANGE).with_information(out.lba)
        })?;
    let transferred = u64::from(length);
    let Some(all) = hull(&extents) else {
        // Nothing to represent, and so no token.
        begin(task.itl, list_identifier, POPULATE_TOKEN)?.finish(CopyState::Done, None);
        return Ok(Answer::good(transferred).into());
    };
    let itl = Arc::clone(task.itl);
    Ok(Exclusive::plan(all, move |_, abort| make(&itl, list_identifier, &asked, extents, abort, transferred)))
}

fn make(
    itl: &Itl,
    list_identifier: u32,
    asked: &PopulateToken,
    extents: Vec<Extent>,
    abort: &AbortFlag,
    transferred: u64,
) -> Result<Answer, Answer> {
    if abort.raised() {
        return Err(Sense::aborted_command(AdditionalSense::NO_ADDITIONAL_SENSE_INFORMATION).into());
    }
    let run = begin(itl, list_identifier, POPULATE_TOKEN)?;
    let lu = itl.lu();
    let bytes: u64 = extents.iter().map(|extent| extent.len).sum();
    let inactivity = Duration::from_secs(u64::from(asked.inactivity));
    let token = |identifier, random| token(lu, asked.rod_type, identifier, bytes, random);
    match lu.rods().make(lu, extents, inactivity, token) {
        Ok(token) => {
            run.progress(asked.ranges.iter().map(|range| range.blocks).sum());
            run.finish(CopyState::Done, Some(token));
            Ok(Answer::good(transferred))
        }
        Err(error) => {
            log::error!("no token can be made: {error}");
            let sense = Sense::illegal_request(AdditionalSense::INSUFFICIENT_RESOURCES_TO_CREATE_ROD);
            run.finish(CopyState::Failed(sense), None);
            Err(sense.into())
        }
    }
}

fn token(lu: &Lu, rod_type: u32, identifier: u64, bytes: u64, random: [u8; ROD_TOKEN_RANDOM]) -> RodToken {
    let geometry = lu.geometry();
    // All target ports are those of one target device; it goes by the first one's name.
    let id = lu.ports().first().map_or([0; 16], |port| port.id);
    RodTokenFields {
        rod_type,
        identifier,
        naa: lu.identity().naa,
        bytes,
        block_size: geometry.block_size,
        physical_exponent: geometry.physical_exponent,
        thin: lu.thin(),
        target_device: Designator::srp_port_name(Association::TargetDevice, id),
        random,
    }
    .token()
}

/// From the first byte of any to the last byte of any.
fn hull(extents: &[Extent]) -> Option<Extent> {
    let first = extents.iter().map(|extent| extent.offset).min()?;
    let end = extents.iter().map(|extent| extent.offset + extent.len).max()?;
    Some(Extent { offset: first, len: end - first })
}
