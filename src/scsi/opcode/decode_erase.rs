//! From CDBs to meanings, for what is done to the whole medium.

use crate::scsi::{Cdb, Command, FieldPointer, SanitizeAction, Sense};

type Decoded = Result<Command, Sense>;

/// FORMAT UNIT (SBC-3 5.3). FMTPINFO is in no usage data: there is no protection information. LONGLIST, CMPLST and DEFECT LIST FORMAT mean
/// nothing without FMTDATA (the format must be 000b then); with it, the format has to be one that there is, and CMPLST changes
/// nothing, for there are no lists of defects.
pub(super) fn format_unit(cdb: Cdb<'_>) -> Decoded {
    let (long_list, data, format) = (cdb.bit(1, 5), cdb.bit(1, 4), cdb.u8(1) & 0x07);
    // Table 36: 110b is vendor-specific, 111b reserved.
    if format > 0b101 || !data && format != 0 {
        return Err(Sense::invalid_field_in_cdb(FieldPointer::cdb(1, 2)));
    }
    Ok(Command::FormatUnit { long_list, data })
}

fn sanitize(cdb: Cdb<'_>, action: SanitizeAction, parameter_list_length: u16) -> Decoded {
    Ok(Command::Sanitize { action, immed: cdb.bit(1, 7), ause: cdb.bit(1, 5), parameter_list_length })
}

/// Its PARAMETER LIST LENGTH has to leave room for a pattern; that it is not more than a block is for the unit to see.
pub(super) fn overwrite(cdb: Cdb<'_>) -> Decoded {
    let length = cdb.u16(7);
    if length < 5 {
        return Err(Sense::invalid_field_in_cdb(FieldPointer::cdb(7, 7)));
    }
    sanitize(cdb, SanitizeAction::Overwrite, length)
}

pub(super) fn block_erase(cdb: Cdb<'_>) -> Decoded {
    sanitize(cdb, SanitizeAction::BlockErase, 0)
}

/// IMMED and AUSE mean nothing here, and are not refused: SBC-3 does not say that they are reserved.
pub(super) fn exit_failure_mode(cdb: Cdb<'_>) -> Decoded {
    sanitize(cdb, SanitizeAction::ExitFailureMode, 0)
}
