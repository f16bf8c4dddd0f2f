//! EXTENDED COPY(LID1).
//!
//! The whole list is checked, all units are found and asked, and only then the first segment is copied: a list that is wrong in its last
//! segment copies nothing.

use std::sync::Arc;

use super::copy::{Span, copy};
use super::page::LIMITS;
use super::units::find;
use super::{CopyError, Copying, Use};
use crate::device_server::transfer::needs;
use crate::device_server::{AbortFlag, Answer, Planned, Task};
use crate::lu::{CopyRefused, Extent, Itl};
use crate::mem::Direction;
use crate::scsi::spc::{Amount, CSCD_ITSELF, Cscd, ExtendedCopy, ListId, Segment};
use crate::scsi::{AdditionalSense, FieldPointer, Sense, Status};

/// EXTENDED COPY(LID1) (SPC-4 6.5): segments are copied in their order. It ends with COPY ABORTED and the segment's number if one of them
/// cannot be copied; what was copied before stays copied.
///
/// | sense code | what it is about |
/// |---|---|
/// | UNREACHABLE COPY TARGET | a segment's CSCD descriptor ID that names no descriptor |
/// | COPY TARGET DEVICE NOT REACHABLE | the nexus sees no unit of that name |
/// | INCORRECT COPY TARGET DEVICE TYPE | it is not of the device type that its CSCD descriptor says |
/// | UNEXPECTED INEXACT SEGMENT | what is copied is no whole number of blocks, and PAD does not say what to do, or CAT says to go on with it |
/// | NO ADDITIONAL SENSE INFORMATION | blocks that are not there; the segment pointer says which |
/// | THIRD PARTY DEVICE FAILURE | a unit refused or failed what was asked of it, or a function of a unit stopped the copy |
pub(in crate::device_server) fn extended_copy<'a>(task: Task<'a, '_>, parameter_list_length: u32) -> Planned<'a> {
    if parameter_list_length == 0 {
        return Ok(Answer::good(0).into());
    }
    let length = u64::from(parameter_list_length);
    needs(task.buf, Direction::Out, length)?;
    // Copied once, so what is checked is what is used; and no more than can matter.
    let mut list = vec![0; length.min(16 + u64::from(LIMITS.descriptor_list_length)) as usize];
    task.buf.read_at(0, &mut list);
    let list = ExtendedCopy::parse(&list, &LIMITS)?;
    let segments = Resolver::new(&task, &list.cscds).resolve(&list.segments)?;
    let known = Known::begin(task.itl, list.list)?;
    let uses = segments.iter().flat_map(|pass| [pass.from.clone(), pass.to.clone()]).collect();
    Ok(Copying::plan(uses, move |_, abort| run(&segments, known, abort).map(|()| Answer::good(length))))
}

fn run(segments: &[Pass], mut known: Known, abort: &AbortFlag) -> Result<(), Answer> {
    let mut bytes = 0;
    for (number, pass) in (0u16..).zip(segments) {
        let copied = copy(&pass.from, &pass.to, pass.span, abort, |moved| {
            bytes += moved;
            known.progress(number, bytes);
        });
        if let Err(error) = copied {
            let sense = failed(number, &error);
            known.end(Some((Status::CheckCondition, sense)));
            return Err(sense.into());
        }
        known.progress(number + 1, bytes);
    }
    known.end(None);
    Ok(())
}

/// What a copy says of a unit that refused or failed.
fn failed(number: u16, error: &CopyError) -> Sense {
    let sense = Sense::copy_aborted(AdditionalSense::THIRD_PARTY_DEVICE_FAILURE).with_segment(number);
    match error {
        CopyError::Aborted => sense,
        CopyError::Source(_) => sense.with_field(Segment::SOURCE),
        CopyError::Destination(_) => sense.with_field(Segment::DESTINATION),
    }
}

/// What is to be copied for a segment.
struct Pass {
    from: Use,
    to: Use,
    span: Span,
}

/// A unit of a CSCD descriptor.
#[derive(Clone)]
struct Found {
    itl: Arc<Itl>,
    pad: bool,
}

/// Finds the units and blocks that segments name.
struct Resolver<'a> {
    itl: &'a Arc<Itl>,
    peers: &'a dyn crate::device_server::Peers,
    cscds: &'a [Cscd],
    /// For each CSCD descriptor what was found, once it was looked for.
    found: Vec<Option<Found>>,
}

impl<'a> Resolver<'a> {
    fn new(task: &Task<'a, '_>, cscds: &'a [Cscd]) -> Resolver<'a> {
        Resolver { itl: task.itl, peers: task.peers, cscds, found: vec![None; cscds.len()] }
    }

    fn resolve(mut self, segments: &[Segment]) -> Result<Vec<Pass>, Sense> {
        let mut passes = Vec::with_capacity(segments.len());
        for (number, segment) in (0u16..).zip(segments) {
            let from = self.unit(number, segment.source, Segment::SOURCE)?;
            let to = self.unit(number, segment.destination, Segment::DESTINATION)?;
            let pass = pass(number, segment, &from, &to)?;
            pass.from.admit().map_err(|answer| failed(number, &CopyError::Source(answer)))?;
            pass.to.admit().map_err(|answer| failed(number, &CopyError::Destination(answer)))?;
            passes.push(pass);
        }
        Ok(passes)
    }

    /// The unit of a CSCD descriptor ID, which is in that field of that segment.
    fn unit(&mut self, number: u16, id: u16, field: FieldPointer) -> Result<Found, Sense> {
        if id == CSCD_ITSELF {
            return Ok(Found { itl: Arc::clone(self.itl), pad: false });
        }
        let wrong = |code| Sense::copy_aborted(code).with_segment(number).with_field(field);
        let index = usize::from(id);
        let (Some(cscd), Some(found)) = (self.cscds.get(index), self.found.get_mut(index)) else {
            return Err(wrong(AdditionalSense::UNREACHABLE_COPY_TARGET));
        };
        if let Some(found) = found {
            return Ok(found.clone());
        }
        let named = find(self.peers, &cscd.designation());
        let itl = named.ok_or(wrong(AdditionalSense::COPY_TARGET_DEVICE_NOT_REACHABLE))?;
        if cscd.device_type != 0x00 {
            return Err(wrong(AdditionalSense::INCORRECT_COPY_TARGET_DEVICE_TYPE));
        }
        if cscd.block_length() != itl.lu().geometry().block_size {
            return Err(Sense::invalid_field_in_parameter_list(FieldPointer::parameter_list(cscd.at + 29, 7)));
        }
        Ok(found.insert(Found { itl, pad: cscd.pad() }).clone())
    }
}

/// The blocks of a segment.
fn pass(number: u16, segment: &Segment, from: &Found, to: &Found) -> Result<Pass, Sense> {
    let of = |sense: Sense, field| Err(sense.with_segment(number).with_field(field));
    let inexact = |field| of(Sense::copy_aborted(AdditionalSense::UNEXPECTED_INEXACT_SEGMENT), field);
    let (source, destination) = (from.itl.lu().geometry(), to.itl.lu().geometry());
    let (source_block, block) = (u64::from(source.block_size), u64::from(destination.block_size));
    let (skip, len) = match segment.amount {
        Amount::Blocks { blocks, destination: false } => (0, u64::from(blocks) * source_block),
        Amount::Blocks { blocks, destination: true } => (0, u64::from(blocks) * block),
        Amount::Bytes { bytes, source, .. } => (u64::from(source), u64::from(bytes)),
    };
    // What is left of a block (SPC-4 table 116). Nothing is kept for the next segment.
    match segment.amount {
        Amount::Blocks { .. } => {
            if !len.is_multiple_of(source_block) && (segment.cat || !from.pad) {
                return inexact(Segment::SOURCE);
            }
            if !len.is_multiple_of(block) && (segment.cat || !to.pad) {
                return inexact(Segment::DESTINATION);
            }
        }
        Amount::Bytes { source, destination, .. } => {
            let invalid = |at| Sense::invalid_field_in_parameter_list(FieldPointer::parameter_list(segment.at + at, 7));
            if u64::from(source) >= source_block {
                return Err(invalid(28));
            }
            if u64::from(destination) >= block {
                return Err(invalid(30));
            }
            if !(u64::from(destination) | len).is_multiple_of(block) {
                return inexact(Segment::DESTINATION);
            }
        }
    }
    let missing = Sense::copy_aborted(AdditionalSense::NO_ADDITIONAL_SENSE_INFORMATION);
    let Ok(read) = source.extent(segment.source_lba, (skip + len).div_ceil(source_block)) else {
        return of(missing, Segment::SOURCE_LBA);
    };
    let Ok(written) = destination.extent(segment.destination_lba, len.div_ceil(block)) else {
        return of(missing, Segment::DESTINATION_LBA);
    };
    let nothing = |extent: Extent| if len == 0 { Extent { len: 0, ..extent } } else { extent };
    Ok(Pass {
        from: Use::reads(&from.itl, nothing(read)),
        to: Use::writes(&to.itl, nothing(written)),
        span: Span { skip: if len == 0 { 0 } else { skip }, len },
    })
}

/// A copy that its nexus can ask for. If it is dropped before it ended it never was.
struct Known {
    itl: Arc<Itl>,
    list: Option<u8>,
    kept: bool,
}

impl Known {
    fn begin(itl: &Arc<Itl>, id: ListId) -> Result<Known, Answer> {
        let (list, kept) = match id {
            ListId::Kept(list) => (Some(list), true),
            ListId::Passing(list) => (Some(list), false),
            ListId::None => (None, false),
        };
        if let Some(list) = list {
            itl.copies(|copies| copies.begin(list)).map_err(|refused| match refused {
                CopyRefused::InUse => {
                    let field = FieldPointer::parameter_list(0, 7);
                    Sense::illegal_request(AdditionalSense::OPERATION_IN_PROGRESS).with_field(field)
                }
                CopyRefused::TooMany => Sense::illegal_request(AdditionalSense::INSUFFICIENT_RESOURCES),
            })?;
        }
        Ok(Known { itl: Arc::clone(itl), list, kept })
    }

    fn progress(&self, segments: u16, bytes: u64) {
        if let Some(list) = self.list {
            self.itl.copies(|copies| copies.progress(list, segments, bytes));
        }
    }

    fn end(&mut self, failure: Option<(Status, Sense)>) {
        if let (Some(list), true) = (self.list, self.kept) {
            self.itl.copies(|copies| copies.end(list, failure));
            self.list = None;
        }
    }
}

impl Drop for Known {
    fn drop(&mut self) {
        if let Some(list) = self.list {
            self.itl.copies(|copies| copies.forget(list));
        }
    }
}
