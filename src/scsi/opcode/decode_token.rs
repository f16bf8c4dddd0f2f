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

#[cfg(test)]
mod tests {
    use crate::scsi::Command;
    use crate::scsi::opcode::decode;

    #[test]
    fn copies_by_token() {
        let command = |cdb: [u8; 16]| decode(&cdb).map(|(_, command)| command);
        let cdb = [0x83, 0x10, 0, 0, 0, 0, 1, 2, 3, 4, 5, 6, 7, 8, 0, 0];
        let (list_identifier, parameter_list_length) = (0x0102_0304, 0x0506_0708);
        assert_eq!(command(cdb), Ok(Command::PopulateToken { list_identifier, parameter_list_length }));
        let cdb = [0x83, 0x11, 0, 0, 0, 0, 1, 2, 3, 4, 5, 6, 7, 8, 0, 0];
        assert_eq!(command(cdb), Ok(Command::WriteUsingToken { list_identifier, parameter_list_length }));
        let cdb = [0x83, 0x1c, 1, 2, 3, 4, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0];
        assert_eq!(command(cdb), Ok(Command::CopyOperationAbort { list_identifier }));
        let allocation_length = 0x0506_0708;
        let cdb = [0x84, 0x05, 1, 2, 3, 4, 0, 0, 0, 0, 5, 6, 7, 8, 0, 0];
        assert_eq!(command(cdb), Ok(Command::ReceiveCopyStatusLid4 { list_identifier, allocation_length }));
        let cdb = [0x84, 0x07, 1, 2, 3, 4, 0, 0, 0, 0, 5, 6, 7, 8, 0, 0];
        assert_eq!(command(cdb), Ok(Command::ReceiveRodTokenInformation { list_identifier, allocation_length }));
    }
}
