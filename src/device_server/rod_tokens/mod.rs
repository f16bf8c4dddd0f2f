//! Copies by token (SBC-3 4.28): what Windows calls Offloaded Data Transfer.
//!
//! # Contract
//!
//! * POPULATE TOKEN makes a token for blocks of a unit; RECEIVE ROD TOKEN INFORMATION fetches it; WRITE USING TOKEN writes to any unit what it
//!   represents. It is good for every nexus of the process: initiators hand tokens on, that is what they are for. What it
//!   lets them read is what whoever made it was allowed to read then.
//! * A token represents a point in time and is change vulnerable: there is no copy of its data. POPULATE TOKEN is an
//!   [exclusive](super::Plan::Exclusive) command, so no write from before it lands after it; every later command that may change one of
//!   the blocks cancels the token before it begins ([`Lu::will_change`](crate::lu::Lu::will_change)). WRITE USING TOKEN looks, after each
//!   step, whether that has happened meanwhile: if so, that step does not count as transferred. So a write never waits for a copy, and what TRANSFER COUNT
//!   says was copied is what was there when the token was made.
//! * An operation is told of by its list identifier, from when its work begins until long after it is over: [`CopyOperations`](crate::lu::CopyOperations).
//! * IMMED makes no difference to when status comes: the work is part of the command, so that whoever takes access to the unit away (PREEMPT AND ABORT,
//!   a reset) waits for its end as for that of any command; a copy that went on in the background after its initiator was fenced off would be
//!   a way around the fence. What IMMED does change is where errors of the work are told: in RECEIVE ROD TOKEN INFORMATION only. SPC-4 5.17.4.3 leaves it
//!   to the copy manager whether the command completes before the work.
//!
//! # Where is what
//!
//! `populate`, `write` and `information` have the commands, `transfer` the work of `write`; the tokens themselves are in [`Rods`](crate::lu::Rods).

mod information;
mod populate;
mod transfer;
mod write;

#[cfg(test)]
mod tests;

pub(super) use information::{copy_operation_abort, receive_copy_status, receive_rod_token_information};
pub(super) use populate::populate;
pub(super) use write::write;

use super::Answer;
use super::transfer::needs;
use crate::lu::{CopyRun, Itl, Lu, ROD_TOKEN_LIFETIME};
use crate::mem::{Direction, IoBuf};
use crate::scsi::sbc::{MAX_TOKEN_LIST, TokenLimits};
use crate::scsi::spc::RodTokenFeatures;
use crate::scsi::{AdditionalSense, Sense};

/// MAXIMUM RANGE DESCRIPTORS; Windows copies no file of more than 64 pieces this way.
const MAX_DESCRIPTORS: u16 = 256;

/// DEFAULT and MAXIMUM INACTIVITY TIMEOUT in seconds. The default is long enough to carry a token through a network to another host, and back.
const DEFAULT_INACTIVITY: u32 = 60;
const MAX_INACTIVITY: u32 = 60 * 60;

/// The most bytes that a token represents, and that one command writes. More than this, in one command, is more than initiators wait for.
const MAX_BYTES: u64 = 16 << 30;

/// The bytes of one command that initiators should ask for: what Windows takes where it is told nothing, and a disk copies within the four seconds that
/// it waits.
const OPTIMAL_BYTES: u64 = 64 << 20;

/// SERVICE ACTION of the commands that originate operations.
const POPULATE_TOKEN: u8 = 0x10;
const WRITE_USING_TOKEN: u8 = 0x11;

/// What the commands may ask for.
pub(super) fn limits(lu: &Lu) -> TokenLimits {
    let geometry = lu.geometry();
    let block = u64::from(geometry.block_size);
    TokenLimits {
        descriptors: MAX_DESCRIPTORS,
        maximum_inactivity: MAX_INACTIVITY,
        default_inactivity: DEFAULT_INACTIVITY,
        blocks: MAX_BYTES / block,
        optimal_blocks: OPTIMAL_BYTES / block,
        capacity: geometry.blocks,
    }
}

/// The same, and how long tokens live.
pub(super) fn features() -> RodTokenFeatures {
    RodTokenFeatures {
        lifetime: ROD_TOKEN_LIFETIME.as_secs() as u32,
        maximum_inactivity: MAX_INACTIVITY,
        maximum_bytes: MAX_BYTES,
        optimal_bytes: OPTIMAL_BYTES,
    }
}

/// A parameter list, up to where anything in it can mean something.
fn token_list(buf: &IoBuf, length: u32) -> Result<Vec<u8>, Answer> {
    needs(buf, Direction::Out, u64::from(length))?;
    let mut list = vec![0; MAX_TOKEN_LIST.min(length as usize)];
    buf.read_at(0, &mut list);
    Ok(list)
}

/// Begins an operation (SPC-4 5.17.4.2).
fn begin(itl: &Itl, list_identifier: u32, service_action: u8) -> Result<CopyRun, Answer> {
    let begun = itl.copy_operations().begin(list_identifier, service_action);
    begun.map_err(|_| Sense::illegal_request(AdditionalSense::OPERATION_IN_PROGRESS).into())
}
