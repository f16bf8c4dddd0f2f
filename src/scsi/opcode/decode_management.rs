//! From CDBs to meanings, for the commands that ask after a unit, or keep something in it, besides its medium.

use crate::scsi::{Cdb, Command, FieldPointer, LogControl, Sense};

type Decoded = Result<Command, Sense>;

/// IDENTIFYING INFORMATION TYPE (SPC-4 6.32, 6.43).
fn identifying_information_type(cdb: Cdb<'_>) -> u8 {
    cdb.u8(10) >> 1
}

pub(super) fn report_identifying_information(cdb: Cdb<'_>) -> Decoded {
    Ok(Command::ReportIdentifyingInformation { kind: identifying_information_type(cdb), allocation_length: cdb.u32(6) })
}

pub(super) fn set_identifying_information(cdb: Cdb<'_>) -> Decoded {
    Ok(Command::SetIdentifyingInformation {
        kind: identifying_information_type(cdb),
        parameter_list_length: cdb.u32(6),
    })
}

/// PARAMETER DATA FORMAT 000b has the length only header, 001b the extended one; the others are reserved.
pub(super) fn report_target_port_groups(cdb: Cdb<'_>) -> Decoded {
    let format = cdb.u8(1) >> 5;
    if format > 0b001 {
        return Err(Sense::invalid_field_in_cdb(FieldPointer::cdb(1, 7)));
    }
    Ok(Command::ReportTargetPortGroups { extended: format == 0b001, allocation_length: cdb.u32(6) })
}

pub(super) fn set_target_port_groups(cdb: Cdb<'_>) -> Decoded {
    Ok(Command::SetTargetPortGroups { parameter_list_length: cdb.u32(6) })
}

pub(super) fn report_timestamp(cdb: Cdb<'_>) -> Decoded {
    Ok(Command::ReportTimestamp { allocation_length: cdb.u32(6) })
}

pub(super) fn set_timestamp(cdb: Cdb<'_>) -> Decoded {
    Ok(Command::SetTimestamp { parameter_list_length: cdb.u32(6) })
}

/// Three bytes.
fn u24(cdb: Cdb<'_>, at: usize) -> u32 {
    u32::from(cdb.u8(at)) << 16 | u32::from(cdb.u16(at + 1))
}

pub(super) fn write_buffer(cdb: Cdb<'_>) -> Decoded {
    Ok(Command::WriteBuffer {
        mode: cdb.u8(1) & 0x1f,
        buffer_id: cdb.u8(2),
        offset: u24(cdb, 3),
        parameter_list_length: u24(cdb, 6),
    })
}

pub(super) fn read_buffer(cdb: Cdb<'_>) -> Decoded {
    Ok(Command::ReadBuffer {
        mode: cdb.u8(1) & 0x1f,
        buffer_id: cdb.u8(2),
        offset: u24(cdb, 3),
        allocation_length: u24(cdb, 6),
    })
}

/// REQ_PLIST, REQ_GLIST and DEFECT LIST FORMAT are in byte `at`. A format that is vendor-specific or reserved is refused.
fn read_defect_data(cdb: Cdb<'_>, twelve: bool, at: u16, allocation_length: u32) -> Decoded {
    let byte = usize::from(at);
    let format = cdb.u8(byte) & 0x07;
    if format > 0b101 {
        return Err(Sense::invalid_field_in_cdb(FieldPointer::cdb(at, 2)));
    }
    Ok(Command::ReadDefectData { twelve, plist: cdb.bit(byte, 4), glist: cdb.bit(byte, 3), format, allocation_length })
}

pub(super) fn read_defect_data10(cdb: Cdb<'_>) -> Decoded {
    read_defect_data(cdb, false, 2, u32::from(cdb.u16(7)))
}

/// ADDRESS DESCRIPTOR INDEX does not matter: there is no descriptor at any.
pub(super) fn read_defect_data12(cdb: Cdb<'_>) -> Decoded {
    read_defect_data(cdb, true, 1, cdb.u32(6))
}

/// A self-test excludes a parameter list, and SELFTEST a SELF-TEST CODE (SPC-4 6.42).
pub(super) fn send_diagnostic(cdb: Cdb<'_>) -> Decoded {
    let (self_test_code, self_test) = (cdb.u8(1) >> 5, cdb.bit(1, 2));
    let parameter_list_length = cdb.u16(3);
    if self_test && self_test_code != 0 {
        return Err(Sense::invalid_field_in_cdb(FieldPointer::cdb(1, 7)));
    }
    if (self_test || self_test_code != 0) && parameter_list_length != 0 {
        return Err(Sense::invalid_field_in_cdb(FieldPointer::cdb(3, 7)));
    }
    Ok(Command::SendDiagnostic { self_test_code, page_format: cdb.bit(1, 4), self_test, parameter_list_length })
}

pub(super) fn receive_diagnostic_results(cdb: Cdb<'_>) -> Decoded {
    let (pcv, page) = (cdb.bit(1, 0), cdb.u8(2));
    if !pcv && page != 0 {
        return Err(Sense::invalid_field_in_cdb(FieldPointer::cdb(2, 7)));
    }
    Ok(Command::ReceiveDiagnosticResults { page: pcv.then_some(page), allocation_length: u32::from(cdb.u16(3)) })
}

fn log_control(cdb: Cdb<'_>) -> LogControl {
    match cdb.u8(2) >> 6 {
        0b00 => LogControl::Threshold,
        0b01 => LogControl::Cumulative,
        0b10 => LogControl::DefaultThreshold,
        _ => LogControl::DefaultCumulative,
    }
}

/// SP is in no usage data: nothing is saved (GLTSD). A list excludes PCR, and PAGE CODE and SUBPAGE CODE (SPC-4 6.7).
pub(super) fn log_select(cdb: Cdb<'_>) -> Decoded {
    let (pcr, page, subpage, parameter_list_length) = (cdb.bit(1, 1), cdb.u8(2) & 0x3f, cdb.u8(3), cdb.u16(7));
    if parameter_list_length != 0 {
        let invalid = |byte, bit| Err(Sense::invalid_field_in_cdb(FieldPointer::cdb(byte, bit)));
        match (pcr, page, subpage) {
            (true, _, _) => return invalid(1, 1),
            (_, 1.., _) => return invalid(2, 5),
            (_, _, 1..) => return invalid(3, 7),
            _ => {}
        }
    }
    Ok(Command::LogSelect { pcr, control: log_control(cdb), page, subpage, parameter_list_length })
}

pub(super) fn log_sense(cdb: Cdb<'_>) -> Decoded {
    Ok(Command::LogSense {
        control: log_control(cdb),
        page: cdb.u8(2) & 0x3f,
        subpage: cdb.u8(3),
        pointer: cdb.u16(5),
        allocation_length: u32::from(cdb.u16(7)),
    })
}
