//! SYNCHRONIZE CACHE and PRE-FETCH.

use super::pieces::{each, step_buffer};
use super::{extent_to_end, io, nothing};
use crate::backing::OpKind;
use crate::device_server::outcome::sense;
use crate::device_server::{Answer, Finish, Job, Planned, Task};
use crate::lu::Extent;
use crate::scsi::Transfer;

/// The most bytes PRE-FETCH reads: it is a hint.
const MAX_PRE_FETCH: u64 = 16 << 20;

/// SYNCHRONIZE CACHE (SBC-3 5.30, 5.31).
///
/// The whole image is flushed whatever the range. IMMED is not heeded: status comes when the data is durable, which
/// an initiator that did not want to wait can tell from one that did only by the clock, and no error is lost.
pub(in crate::device_server) fn synchronize_cache<'a>(task: Task<'a, '_>, transfer: Transfer) -> Planned<'a> {
    let lu = task.itl.lu();
    extent_to_end(lu, &transfer)?;
    if lu.read_only() {
        return Ok(nothing());
    }
    let whole = Extent { offset: 0, len: 0 };
    Ok(io(&task, OpKind::Flush, whole, Finish { lba: transfer.lba, transferred: 0 }))
}

/// PRE-FETCH (SBC-3 5.7, 5.8).
///
/// The cache is the host's page cache, which promises nothing, so the status is GOOD and never CONDITION MET. An image that is
/// opened O_DIRECT has no cache to fetch into; with IMMED there is nobody to wait for the reading.
pub(in crate::device_server) fn pre_fetch<'a>(task: Task<'a, '_>, transfer: Transfer, immed: bool) -> Planned<'a> {
    let lu = task.itl.lu();
    let extent = extent_to_end(lu, &transfer)?;
    if immed || lu.image().capabilities().direct {
        return Ok(nothing());
    }
    let lu = lu.clone();
    let extent = Extent { len: extent.len.min(MAX_PRE_FETCH), ..extent };
    Ok(Job::plan(move |_, abort| {
        let mut scratch = step_buffer(extent);
        each(extent, abort, |part| {
            let scratch = scratch.get_mut(..part.len as usize).unwrap_or_default();
            lu.image().read_bytes(part.offset, scratch)
        })
        .map_err(|(e, at)| sense(e, lu.geometry().lba_of(at)))?;
        Ok(Answer::good(0))
    }))
}
