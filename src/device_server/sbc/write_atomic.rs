//! WRITE ATOMIC.

use super::{extent, nothing, writable};
use crate::backing::{AtomicUnit, BackingError, Image};
use crate::device_server::outcome::sense;
use crate::device_server::transfer::needs;
use crate::device_server::{Answer, Exclusive, Planned, Task};
use crate::lu::{AtomicLimits, Extent};
use crate::mem::{Direction, IoBuf};
use crate::scsi::{AdditionalSense, FieldPointer, Sense, Transfer};

/// Where the fields are in the CDB.
const LOGICAL_BLOCK_ADDRESS: FieldPointer = FieldPointer::cdb(2, 7);
const ATOMIC_BOUNDARY: FieldPointer = FieldPointer::cdb(10, 7);
const TRANSFER_LENGTH: FieldPointer = FieldPointer::cdb(12, 7);

/// One atomic write operation.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Operation {
    /// What the initiator writes.
    part: Extent,
    /// What is written: the same, or more around it with what is there already.
    whole: Extent,
}

/// WRITE ATOMIC(16) (SBC-4 4.29, 5.48): nobody ever reads a part of what it writes, neither another command nor whoever comes after a loss
/// of power. With an ATOMIC BOUNDARY that holds for each part of so many blocks.
///
/// The image writes powers of two at multiples of themselves so. Any other range is written with what is around it, which nobody else uses
/// meanwhile. A range that no such power of two holds is refused as not aligned: the Block Limits page cannot say where those are, and
/// initiators ask for powers of two.
pub(in crate::device_server) fn write_atomic<'a>(task: Task<'a, '_>, transfer: Transfer, boundary: u16) -> Planned<'a> {
    let lu = task.itl.lu();
    let Some(limits) = lu.atomic_limits() else {
        return Err(Sense::illegal_request(AdditionalSense::INVALID_COMMAND_OPERATION_CODE).into());
    };
    let extent = extent(lu, &transfer)?;
    check(&limits, &transfer, boundary)?;
    writable(lu)?;
    needs(task.buf, Direction::Out, extent.len)?;
    if transfer.blocks == 0 {
        return Ok(nothing());
    }
    let step = match boundary {
        0 => extent.len,
        blocks => u64::from(blocks) * u64::from(lu.geometry().block_size),
    };
    let operations =
        operations(limits.unit, extent, step).ok_or_else(|| Sense::invalid_field_in_cdb(LOGICAL_BLOCK_ADDRESS))?;
    let fua = transfer.fua || !lu.mode().wce;
    let image = lu.image().clone();
    let block = lu.geometry().block_size;
    Ok(Exclusive::plan(hull(&operations), move |buf, abort| {
        for (done, operation) in operations.iter().enumerate() {
            let result = if abort.raised() {
                Err(BackingError::Cancelled)
            } else {
                write(&*image, *operation, buf, operation.part.offset - extent.offset, fua)
            };
            match result {
                Ok(()) => {}
                Err(error) if done == 0 => {
                    return Err(sense(error, operation.part.offset / u64::from(block)).into());
                }
                Err(_) => return Err(Sense::aborted_command(INCOMPLETE).into()),
            }
        }
        Ok(Answer::good(extent.len))
    }))
}

const INCOMPLETE: AdditionalSense = AdditionalSense::INCOMPLETE_MULTIPLE_ATOMIC_WRITE_OPERATIONS;

/// Holds the fields to the limits (SBC-4 4.29.1).
fn check(limits: &AtomicLimits, transfer: &Transfer, boundary: u16) -> Result<(), Sense> {
    let granularity = u64::from(limits.granularity);
    let refuse = |field| Err(Sense::invalid_field_in_cdb(field));
    if transfer.blocks > u64::from(limits.maximum) {
        return refuse(TRANSFER_LENGTH);
    }
    if u32::from(boundary) > limits.maximum || !u64::from(boundary).is_multiple_of(granularity) {
        return refuse(ATOMIC_BOUNDARY);
    }
    if !transfer.lba.is_multiple_of(granularity) {
        return refuse(LOGICAL_BLOCK_ADDRESS);
    }
    if !transfer.blocks.is_multiple_of(granularity) {
        return refuse(TRANSFER_LENGTH);
    }
    Ok(())
}

/// The operations that write `extent` in parts of `step` bytes; `None` if one of them cannot be done.
fn operations(unit: AtomicUnit, extent: Extent, step: u64) -> Option<Vec<Operation>> {
    let mut operations = Vec::new();
    let mut done = 0;
    while done < extent.len {
        let part = Extent { offset: extent.offset + done, len: step.min(extent.len - done) };
        let (offset, len) = unit.around(part.offset, part.len)?;
        operations.push(Operation { part, whole: Extent { offset, len } });
        done += part.len;
    }
    Some(operations)
}

/// All that the operations use. They are in order and not empty.
fn hull(operations: &[Operation]) -> Extent {
    let offset = operations.first().map_or(0, |first| first.whole.offset);
    let end = operations.iter().map(|operation| operation.whole.offset + operation.whole.len).max().unwrap_or(offset);
    Extent { offset, len: end - offset }
}

/// Does one operation, with the initiator's data from byte `at` of the buffer on.
fn write(image: &dyn Image, operation: Operation, buf: &IoBuf, at: u64, fua: bool) -> Result<(), BackingError> {
    let Operation { part, whole } = operation;
    let mut bytes = vec![0; whole.len as usize];
    if part != whole {
        image.read_bytes(whole.offset, &mut bytes)?;
    }
    let start = (part.offset - whole.offset) as usize;
    if let Some(new) = bytes.get_mut(start..start + part.len as usize) {
        buf.read_at(at, new);
    }
    image.write_atomic(whole.offset, &bytes, fua)
}
