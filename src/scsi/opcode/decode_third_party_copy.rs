//! From CDBs to meanings, for copies between units.

use crate::scsi::{Cdb, Command, Sense};

type Decoded = Result<Command, Sense>;

pub(super) fn extended_copy(cdb: Cdb<'_>) -> Decoded {
    Ok(Command::ExtendedCopy { parameter_list_length: cdb.u32(10) })
}

pub(super) fn receive_copy_status(cdb: Cdb<'_>) -> Decoded {
    Ok(Command::ReceiveCopyStatus { list: cdb.u8(2), allocation_length: cdb.u32(10) })
}

pub(super) fn receive_copy_operating_parameters(cdb: Cdb<'_>) -> Decoded {
    Ok(Command::ReceiveCopyOperatingParameters { allocation_length: cdb.u32(10) })
}

pub(super) fn receive_copy_failure_details(cdb: Cdb<'_>) -> Decoded {
    Ok(Command::ReceiveCopyFailureDetails { list: cdb.u8(2), allocation_length: cdb.u32(10) })
}

#[cfg(test)]
mod tests {
    use super::super::decode;
    use crate::scsi::{AdditionalSense, Command, FieldPointer};

    #[test]
    fn copies() {
        let command = |cdb: [u8; 16]| decode(&cdb).map(|(_, command)| command);
        let cdb = |opcode, action, list| [opcode, action, list, 0, 0, 0, 0, 0, 0, 0, 1, 2, 3, 4, 0, 0];
        let length = 0x0102_0304;
        assert_eq!(command(cdb(0x83, 0, 0)), Ok(Command::ExtendedCopy { parameter_list_length: length }));
        let status = Command::ReceiveCopyStatus { list: 9, allocation_length: length };
        assert_eq!(command(cdb(0x84, 0, 9)), Ok(status));
        let parameters = Command::ReceiveCopyOperatingParameters { allocation_length: length };
        assert_eq!(command(cdb(0x84, 3, 0)), Ok(parameters));
        let details = Command::ReceiveCopyFailureDetails { list: 255, allocation_length: length };
        assert_eq!(command(cdb(0x84, 4, 255)), Ok(details));
        // There is no held data to receive, and no EXTENDED COPY with a list identifier of four bytes.
        for (opcode, action) in [(0x83, 0x01), (0x84, 0x01), (0x84, 0x02), (0x84, 0x06)] {
            let sense = command(cdb(opcode, action, 0)).unwrap_err();
            assert_eq!(sense.code, AdditionalSense::INVALID_FIELD_IN_CDB);
            assert_eq!(sense.field, Some(FieldPointer::cdb(1, 4)), "{opcode:02x}/{action:02x}");
        }
        // The operating parameters are of no list.
        assert_eq!(command(cdb(0x84, 3, 1)).unwrap_err().field, Some(FieldPointer::cdb(2, 0)));
    }
}
