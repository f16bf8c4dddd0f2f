//! From the bytes of a CDB to its meaning. Stray bits were refused already, so only fields with reserved values are left
//! to check here.

use crate::scsi::{ByteCheck, Cdb, Command, FieldPointer, PageControl, Sense, StartStopFields, Transfer};

type Decoded = Result<Command, Sense>;

/// INVALID FIELD IN CDB for the field whose most significant bit is `bit` of byte `byte`.
fn invalid(byte: u16, bit: u8) -> Sense {
    Sense::invalid_field_in_cdb(FieldPointer::cdb(byte, bit))
}

/// LBA and TRANSFER LENGTH (or what a command calls it) of a CDB without DPO and FUA, by the CDB's length.
fn range(cdb: Cdb<'_>) -> Transfer {
    let (lba, blocks) = match cdb.bytes().len() {
        10 => (u64::from(cdb.u32(2)), u64::from(cdb.u16(7))),
        12 => (u64::from(cdb.u32(2)), u64::from(cdb.u32(6))),
        _ => (cdb.u64(2), u64::from(cdb.u32(10))),
    };
    Transfer { lba, blocks, dpo: false, fua: false, lba_field: 2 }
}

/// LBA and TRANSFER LENGTH of READ(6) and WRITE(6): 21 bits, and 0 stands for 256 blocks.
fn range6(cdb: Cdb<'_>) -> Transfer {
    let blocks = match cdb.u8(4) {
        0 => 256,
        blocks => u64::from(blocks),
    };
    Transfer { lba: u64::from(cdb.u32(0) & 0x001f_ffff), blocks, dpo: false, fua: false, lba_field: 1 }
}

/// As [`range`], with DPO and FUA.
fn transfer(cdb: Cdb<'_>) -> Transfer {
    Transfer { dpo: cdb.bit(1, 4), fua: cdb.bit(1, 3), ..range(cdb) }
}

pub(super) fn test_unit_ready(_: Cdb<'_>) -> Decoded {
    Ok(Command::TestUnitReady)
}

pub(super) fn request_sense(cdb: Cdb<'_>) -> Decoded {
    Ok(Command::RequestSense { descriptor: cdb.bit(1, 0), allocation_length: u32::from(cdb.u8(4)) })
}

pub(super) fn inquiry(cdb: Cdb<'_>) -> Decoded {
    let (evpd, page) = (cdb.bit(1, 0), cdb.u8(2));
    if !evpd && page != 0 {
        return Err(invalid(2, 7));
    }
    Ok(Command::Inquiry { page: evpd.then_some(page), allocation_length: u32::from(cdb.u16(3)) })
}

pub(super) fn report_luns(cdb: Cdb<'_>) -> Decoded {
    Ok(Command::ReportLuns { select_report: cdb.u8(2), allocation_length: cdb.u32(6) })
}

pub(super) fn report_supported_operation_codes(cdb: Cdb<'_>) -> Decoded {
    let options = cdb.u8(2) & 0x07;
    if options > 0b011 {
        return Err(invalid(2, 2));
    }
    Ok(Command::ReportSupportedOperationCodes {
        rctd: cdb.bit(2, 7),
        options,
        opcode: cdb.u8(3),
        service_action: cdb.u16(4),
        allocation_length: cdb.u32(6),
    })
}

pub(super) fn report_supported_task_management_functions(cdb: Cdb<'_>) -> Decoded {
    let allocation_length = cdb.u32(6);
    if allocation_length < 4 {
        return Err(invalid(6, 7));
    }
    Ok(Command::ReportSupportedTaskManagementFunctions { repd: cdb.bit(2, 7), allocation_length })
}

fn mode_sense(cdb: Cdb<'_>, ten: bool, allocation_length: u32) -> Decoded {
    let control = match cdb.u8(2) >> 6 {
        0b00 => PageControl::Current,
        0b01 => PageControl::Changeable,
        0b10 => PageControl::Default,
        _ => PageControl::Saved,
    };
    Ok(Command::ModeSense {
        ten,
        llbaa: ten && cdb.bit(1, 4),
        dbd: cdb.bit(1, 3),
        control,
        page: cdb.u8(2) & 0x3f,
        subpage: cdb.u8(3),
        allocation_length,
    })
}

pub(super) fn mode_sense6(cdb: Cdb<'_>) -> Decoded {
    mode_sense(cdb, false, u32::from(cdb.u8(4)))
}

pub(super) fn mode_sense10(cdb: Cdb<'_>) -> Decoded {
    mode_sense(cdb, true, u32::from(cdb.u16(7)))
}

fn mode_select(cdb: Cdb<'_>, ten: bool, parameter_list_length: u16) -> Decoded {
    Ok(Command::ModeSelect { ten, page_format: cdb.bit(1, 4), save: cdb.bit(1, 0), parameter_list_length })
}

pub(super) fn mode_select6(cdb: Cdb<'_>) -> Decoded {
    mode_select(cdb, false, u16::from(cdb.u8(4)))
}

pub(super) fn mode_select10(cdb: Cdb<'_>) -> Decoded {
    mode_select(cdb, true, cdb.u16(7))
}

pub(super) fn read_capacity10(_: Cdb<'_>) -> Decoded {
    Ok(Command::ReadCapacity10)
}

pub(super) fn read_capacity16(cdb: Cdb<'_>) -> Decoded {
    Ok(Command::ReadCapacity16 { allocation_length: cdb.u32(10) })
}

pub(super) fn get_lba_status(cdb: Cdb<'_>) -> Decoded {
    Ok(Command::GetLbaStatus { lba: cdb.u64(2), allocation_length: cdb.u32(10) })
}

pub(super) fn read6(cdb: Cdb<'_>) -> Decoded {
    Ok(Command::Read(range6(cdb)))
}

pub(super) fn read(cdb: Cdb<'_>) -> Decoded {
    Ok(Command::Read(transfer(cdb)))
}

pub(super) fn write6(cdb: Cdb<'_>) -> Decoded {
    Ok(Command::Write(range6(cdb)))
}

pub(super) fn write(cdb: Cdb<'_>) -> Decoded {
    Ok(Command::Write(transfer(cdb)))
}

/// NUMBER OF LOGICAL BLOCKS is one byte, the last of where other CDBs of 16 bytes have their TRANSFER LENGTH; the rest is reserved.
pub(super) fn compare_and_write(cdb: Cdb<'_>) -> Decoded {
    Ok(Command::CompareAndWrite(transfer(cdb)))
}

pub(super) fn write_atomic(cdb: Cdb<'_>) -> Decoded {
    let blocks = u64::from(cdb.u16(12));
    Ok(Command::WriteAtomic { transfer: Transfer { blocks, ..transfer(cdb) }, boundary: cdb.u16(10) })
}

pub(super) fn orwrite(cdb: Cdb<'_>) -> Decoded {
    Ok(Command::Orwrite(transfer(cdb)))
}

/// BYTCHK of VERIFY (SBC-3 5.36) and of WRITE AND VERIFY, which has no 11b.
fn byte_check(cdb: Cdb<'_>, one_block: bool) -> Result<ByteCheck, Sense> {
    match cdb.u8(1) >> 1 & 0b11 {
        0b00 => Ok(ByteCheck::None),
        0b01 => Ok(ByteCheck::Full),
        0b11 if one_block => Ok(ByteCheck::OneBlock),
        _ => Err(invalid(1, 2)),
    }
}

pub(super) fn verify(cdb: Cdb<'_>) -> Decoded {
    let transfer = Transfer { dpo: cdb.bit(1, 4), ..range(cdb) };
    Ok(Command::Verify { transfer, check: byte_check(cdb, true)? })
}

pub(super) fn write_and_verify(cdb: Cdb<'_>) -> Decoded {
    let transfer = Transfer { dpo: cdb.bit(1, 4), ..range(cdb) };
    Ok(Command::WriteAndVerify { transfer, check: byte_check(cdb, false)? })
}

pub(super) fn synchronize_cache(cdb: Cdb<'_>) -> Decoded {
    Ok(Command::SynchronizeCache { transfer: range(cdb), immed: cdb.bit(1, 1) })
}

pub(super) fn pre_fetch(cdb: Cdb<'_>) -> Decoded {
    Ok(Command::PreFetch { transfer: range(cdb), immed: cdb.bit(1, 1) })
}

pub(super) fn unmap(cdb: Cdb<'_>) -> Decoded {
    Ok(Command::Unmap { anchor: cdb.bit(1, 0), parameter_list_length: cdb.u16(7) })
}

/// ANCHOR means nothing without UNMAP and is refused then (SBC-3 5.48). Bit 0 (NDOB) is in the usage data of WRITE SAME(16) only.
pub(super) fn write_same(cdb: Cdb<'_>) -> Decoded {
    let (anchor, unmap) = (cdb.bit(1, 4), cdb.bit(1, 3));
    if anchor && !unmap {
        return Err(invalid(1, 4));
    }
    Ok(Command::WriteSame { transfer: range(cdb), unmap, anchor, ndob: cdb.bit(1, 0) })
}

/// POWER CONDITION values per SBC-3 table 85; the obsolete and reserved ones are refused.
pub(super) fn start_stop_unit(cdb: Cdb<'_>) -> Decoded {
    Ok(Command::StartStopUnit(StartStopFields {
        power_condition: cdb.u8(4) >> 4,
        no_flush: cdb.bit(4, 2),
        loej: cdb.bit(4, 1),
        start: cdb.bit(4, 0),
    }))
}

/// PREVENT 10b and 11b are obsolete.
pub(super) fn prevent_allow_medium_removal(cdb: Cdb<'_>) -> Decoded {
    let prevent = cdb.u8(4) & 0b11;
    if prevent > 1 {
        return Err(invalid(4, 1));
    }
    Ok(Command::PreventAllowMediumRemoval { prevent })
}
