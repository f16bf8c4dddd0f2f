//! Block commands (SBC-3).
//!
//! # Durability
//!
//! WCE one means that written data may sit in volatile memory (the host's page cache, a disk's cache) until SYNCHRONIZE CACHE; with
//! WCE zero, and with FUA, a write is durable before it is answered, zeroing and deallocation included.
//!
//! # Atomic commands
//!
//! COMPARE AND WRITE, ORWRITE and WRITE ATOMIC are [`Plan::Exclusive`]: from the first read to the last write nobody else uses their blocks. What they
//! were sent is copied out of the Data-Out buffer once: a guest that changes it meanwhile changes nothing.
//!
//! # Ranges
//!
//! A range is checked before anything else is done. LOGICAL BLOCK ADDRESS OUT OF RANGE carries the first block that does not
//! exist in INFORMATION and points at the LBA field.

mod cache;
mod capacity;
mod compare_and_write;
mod lba_status;
mod load_eject;
mod orwrite;
pub(super) mod pieces;
mod read_write;
mod start_stop;
mod unmap;
mod verify;
mod write_atomic;
mod write_same;

#[cfg(test)]
mod tests;

pub(super) use cache::{pre_fetch, synchronize_cache};
pub(super) use capacity::{read_capacity10, read_capacity16};
pub(super) use compare_and_write::compare_and_write;
pub(super) use lba_status::get_lba_status;
pub(super) use orwrite::orwrite;
pub(super) use read_write::{read, write};
pub(super) use start_stop::{prevent_allow_medium_removal, start_stop_unit};
pub(super) use unmap::unmap;
pub(super) use verify::{verify, write_and_verify};
pub(super) use write_atomic::write_atomic;
pub(super) use write_same::write_same;

use super::{Answer, BlockIo, Finish, Plan, Task};
use crate::backing::{Op, OpKind};
use crate::lu::{Extent, Lu, OutOfRange};
use crate::scsi::opcode::Row;
use crate::scsi::{AdditionalSense, FieldPointer, Sense, Transfer};

/// Refuses a command that writes if the unit may not be written.
pub(super) fn writable(lu: &Lu) -> Result<(), Sense> {
    if lu.read_only() {
        return Err(Sense::data_protect(AdditionalSense::WRITE_PROTECTED));
    }
    if lu.mode().swp {
        return Err(Sense::data_protect(AdditionalSense::LOGICAL_UNIT_SOFTWARE_WRITE_PROTECTED));
    }
    Ok(())
}

/// The bytes of a command's range.
fn extent(lu: &Lu, transfer: &Transfer) -> Result<Extent, Sense> {
    lu.geometry().extent(transfer.lba, transfer.blocks).map_err(|out| out_of_range(transfer, out))
}

/// The bytes of a command's range, where 0 blocks stand for all up to the end of the medium.
fn extent_to_end(lu: &Lu, transfer: &Transfer) -> Result<Extent, Sense> {
    match transfer.blocks {
        0 => lu.geometry().extent_to_end(transfer.lba).map_err(|out| out_of_range(transfer, out)),
        _ => extent(lu, transfer),
    }
}

fn out_of_range(transfer: &Transfer, out: OutOfRange) -> Sense {
    // The LBA of a six-byte CDB begins inside its byte.
    let bit = if transfer.lba_field == 1 { 4 } else { 7 };
    Sense::lba_out_of_range(FieldPointer::cdb(transfer.lba_field, bit)).with_information(out.lba)
}

/// Refuses more blocks than one command may move.
fn within_limit(lu: &Lu, row: &Row, transfer: &Transfer) -> Result<(), Sense> {
    if transfer.blocks > u64::from(lu.limits().transfer_blocks) {
        return Err(Sense::invalid_field_in_cdb(FieldPointer::cdb(length_field(row), 7)));
    }
    Ok(())
}

/// Where TRANSFER LENGTH, or what a command calls it, begins in a CDB of this length (SPC-4 4.2.2).
fn length_field(row: &Row) -> u16 {
    match row.usage.cdb_length() {
        6 => 4,
        10 => 7,
        12 => 6,
        _ => 10,
    }
}

/// A plan of one operation over `extent`, of a command that begins at `lba`.
fn io<'a>(task: &Task<'a, '_>, kind: OpKind, extent: Extent, finish: Finish) -> Plan<'a> {
    let op = Op { kind, offset: extent.offset, len: extent.len };
    Plan::Io(BlockIo { image: task.itl.lu().image(), op, finish })
}

/// Nothing to do.
fn nothing() -> Plan<'static> {
    Answer::good(0).into()
}
