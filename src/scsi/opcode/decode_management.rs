//! From CDBs to meanings, for the commands that ask after a unit, or keep something in it, besides its medium.

use crate::scsi::{Cdb, Command, Sense};

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

pub(super) fn report_timestamp(cdb: Cdb<'_>) -> Decoded {
    Ok(Command::ReportTimestamp { allocation_length: cdb.u32(6) })
}

pub(super) fn set_timestamp(cdb: Cdb<'_>) -> Decoded {
    Ok(Command::SetTimestamp { parameter_list_length: cdb.u32(6) })
}
