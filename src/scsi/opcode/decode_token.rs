//! From CDBs to commands: copies by token.

use crate::scsi::{Cdb, Command, Sense};

type Decoded = Result<Command, Sense>;

pub(super) fn populate_token(cdb: Cdb<'_>) -> Decoded {
    Ok(Command::PopulateToken { list_identifier: cdb.u32(6), parameter_list_length: cdb.u32(10) })
}

pub(super) fn write_using_token(cdb: Cdb<'_>) -> Decoded {
    Ok(Command::WriteUsingToken { list_identifier: cdb.u32(6), parameter_list_length: cdb.u32(10) })
}

pub(super) fn copy_operation_abort(cdb: Cdb<'_>) -> Decoded {
    Ok(Command::CopyOperationAbort { list_identifier: cdb.u32(2) })
}

pub(super) fn receive_copy_status_lid4(cdb: Cdb<'_>) -> Decoded {
    Ok(Command::ReceiveCopyStatusLid4 { list_identifier: cdb.u32(2), allocation_length: cdb.u32(10) })
}

pub(super) fn receive_rod_token_information(cdb: Cdb<'_>) -> Decoded {
    Ok(Command::ReceiveRodTokenInformation { list_identifier: cdb.u32(2), allocation_length: cdb.u32(10) })
}
