use super::*;
use crate::scsi::{ByteCheck, LogControl, PageControl, ReserveIn, ReserveOut, Transfer};
use proptest::collection;
use proptest::prelude::*;

/// A CDB with only its operation code and service action, in 32 bytes as transports bring it.
fn bare(row: &Row) -> [u8; 32] {
    let mut cdb = [0; 32];
    cdb[0] = row.opcode;
    match (row.service_action, row.opcode) {
        (Some(service_action), crate::scsi::VARIABLE_LENGTH) => {
            cdb[7] = (row.usage.cdb_length() - 8) as u8;
            cdb[8..10].copy_from_slice(&service_action.to_be_bytes());
        }
        (Some(service_action), _) => cdb[1] = service_action as u8,
        (None, _) => (),
    }
    // The one command that refuses an allocation length of 0.
    if (row.opcode, row.service_action) == (0xa3, Some(0x0d)) {
        cdb[9] = 4;
    }
    cdb
}

fn command(cdb: &[u8]) -> Command {
    decode(cdb).unwrap().1
}

fn pointer(cdb: &[u8]) -> (u16, Option<u8>) {
    let sense = decode(cdb).unwrap_err();
    assert_eq!((sense.key, sense.code), (SenseKey::IllegalRequest, AdditionalSense::INVALID_FIELD_IN_CDB));
    let field = sense.field.unwrap();
    assert!(field.in_cdb);
    (field.byte, field.bit)
}

#[test]
fn rows_are_in_order_and_consistent() {
    for pair in rows().windows(2) {
        assert!((pair[0].opcode, pair[0].service_action) < (pair[1].opcode, pair[1].service_action));
        if pair[0].opcode == pair[1].opcode {
            assert!(pair[0].service_action.is_some() && pair[1].service_action.is_some(), "{}", pair[0].name);
        }
    }
    for row in rows() {
        let usage = row.usage.bytes();
        assert_eq!(usage[0], row.opcode, "{}", row.name);
        assert_eq!(Cdb::new(&bare(row)).unwrap().bytes().len(), usage.len(), "{}", row.name);
        if let Some(service_action) = row.service_action {
            assert_eq!(Cdb::new(usage).unwrap().service_action(), service_action, "{}", row.name);
        }
        let control = Cdb::new(usage).unwrap().control_byte();
        assert_eq!(usage[control], 0x04, "{}: of CONTROL, NACA means something here", row.name);
    }
}

#[test]
fn every_row_is_found_by_its_codes_and_no_other() {
    let mut found = 0;
    for opcode in 0..=255 {
        for service_action in 0..=0x1f {
            let Some(row) = lookup(opcode, service_action) else { continue };
            assert_eq!(row.opcode, opcode);
            assert!(row.service_action.is_none_or(|of_row| of_row == service_action));
            found += usize::from(row.service_action.is_some() || service_action == 0);
        }
    }
    assert_eq!(found, rows().len());
}

#[test]
fn every_row_decodes() {
    for row in rows() {
        let cdb = bare(row);
        let (by_cdb, _) = decode(&cdb).unwrap();
        assert!(std::ptr::eq(by_cdb, row), "{}", row.name);
        assert!(decode(&cdb[..row.usage.cdb_length()]).is_ok(), "{}", row.name);
    }
}

/// Walks every bit of every CDB: one that the usage data has may only be refused for the value of its field (or of another
/// that goes with it), one that it has not is refused with a pointer to it.
#[test]
fn every_bit_of_every_row() {
    for row in rows() {
        for (byte, usage) in row.usage.bytes().iter().enumerate().skip(1) {
            for bit in 0..8 {
                let mut cdb = bare(row);
                if cdb[byte] >> bit & 1 == 1 && row.service_action.is_some() && byte == 1 {
                    continue;
                }
                cdb[byte] |= 1 << bit;
                let service_action = row.service_action.is_some() && byte == 1 && bit < 5;
                match decode(&cdb) {
                    _ if service_action => {
                        assert!(lookup(row.opcode, u16::from(cdb[1])).is_some() || pointer(&cdb) == (1, Some(4)))
                    }
                    _ if usage >> bit & 1 == 0 => assert_eq!(pointer(&cdb), (byte as u16, Some(bit)), "{}", row.name),
                    Ok((found, _)) => assert!(std::ptr::eq(found, row)),
                    Err(sense) => {
                        let field = sense.field.unwrap();
                        let usage = row.usage.bytes()[usize::from(field.byte)];
                        assert_eq!(usage >> field.bit.unwrap() & 1, 1, "{} byte {byte} bit {bit}", row.name);
                    }
                }
            }
        }
    }
}

#[test]
fn the_first_stray_bit_is_pointed_at() {
    let mut cdb = [0; 10];
    (cdb[0], cdb[1], cdb[6], cdb[9]) = (0x28, 0x27, 0x3f, 0xff);
    assert_eq!(pointer(&cdb), (1, Some(5)));
    cdb[1] = 0x18;
    assert_eq!(pointer(&cdb), (6, Some(5)));
    cdb[6] = 0x1f;
    assert_eq!(pointer(&cdb), (9, Some(7)));
    cdb[9] = 0x06;
    assert_eq!(pointer(&cdb), (9, Some(1)));
    cdb[9] = 0x04;
    assert!(decode(&cdb).is_ok(), "NACA");
}

#[test]
fn every_command_may_have_naca() {
    for row in rows() {
        let mut cdb = bare(row);
        assert!(!naca(&cdb), "{}", row.name);
        cdb[Cdb::new(&cdb).unwrap().control_byte()] = 0x04;
        assert!(decode(&cdb).is_ok() && naca(&cdb), "{}", row.name);
    }
    assert!(!naca(&[]));
    assert!(!naca(&[0x28, 0, 0, 0, 0, 0, 0, 0, 0]), "a CDB that ends early");
}

#[test]
fn every_short_cdb_is_refused() {
    for row in rows() {
        let cdb = bare(row);
        for end in 1..row.usage.cdb_length() {
            let sense = decode(&cdb[..end]).unwrap_err();
            assert_eq!(sense.code, AdditionalSense::INVALID_FIELD_IN_CDB, "{} {end}", row.name);
        }
    }
    assert_eq!(decode(&[]).unwrap_err(), UNKNOWN_OPCODE);
}

#[test]
fn what_follows_the_cdb_is_not_looked_at() {
    for row in rows() {
        let mut cdb = bare(row);
        cdb[row.usage.cdb_length()..].fill(0xff);
        assert!(decode(&cdb).is_ok(), "{}", row.name);
    }
}

#[test]
fn unknown_codes() {
    for opcode in (0..=255).filter(|opcode| rows_of(*opcode).is_empty()) {
        let mut cdb = [0; 32];
        cdb[0] = opcode;
        assert_eq!(decode(&cdb).unwrap_err(), UNKNOWN_OPCODE, "{opcode:02x}");
        assert_eq!(decode(&cdb[..1]).unwrap_err(), UNKNOWN_OPCODE, "{opcode:02x}");
    }
    let mut cdb = [0; 16];
    (cdb[0], cdb[1]) = (0x9e, 0x1f);
    assert_eq!(pointer(&cdb), (1, Some(4)));
}

proptest! {
    /// Any bytes decode or are refused; nothing panics.
    #[test]
    fn any_bytes(row in 0..rows().len(), rest in collection::vec(prop_oneof![3 => Just(0), 1 => any::<u8>()], 0..32)) {
        let cdb = [&[rows()[row].opcode], rest.as_slice()].concat();
        match decode(&cdb) {
            Ok((row, _)) => prop_assert!(cdb.len() >= row.usage.cdb_length()),
            Err(sense) => prop_assert_eq!(sense.code, AdditionalSense::INVALID_FIELD_IN_CDB),
        }
    }
}

#[test]
fn reads_and_writes() {
    let at = |lba, blocks| Transfer { lba, blocks, dpo: false, fua: false, lba_field: 2 };
    let six = Transfer { lba_field: 1, ..at(0x1f_ffff, 256) };
    assert_eq!(command(&[0x08, 0x1f, 0xff, 0xff, 0x00, 0]), Command::Read(six));
    assert_eq!(
        command(&[0x0a, 0x01, 0x02, 0x03, 0x04, 0]),
        Command::Write(Transfer { lba: 0x01_0203, blocks: 4, ..six })
    );
    assert_eq!(command(&[0x28, 0, 1, 2, 3, 4, 0, 5, 6, 0]), Command::Read(at(0x0102_0304, 0x0506)));
    let flags = Transfer { dpo: true, fua: true, ..at(0xffff_ffff, 0) };
    assert_eq!(command(&[0x2a, 0x18, 0xff, 0xff, 0xff, 0xff, 0, 0, 0, 0]), Command::Write(flags));
    let twelve = at(1, 0x0102_0304);
    assert_eq!(command(&[0xa8, 0, 0, 0, 0, 1, 1, 2, 3, 4, 0, 0]), Command::Read(twelve));
    let sixteen = Transfer { fua: true, ..at(0x0102_0304_0506_0708, 0x090a_0b0c) };
    assert_eq!(command(&[0x8a, 0x08, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 0, 0]), Command::Write(sixteen));
}

#[test]
fn an_lba_out_of_range_points_at_its_field() {
    let field = |cdb: &[u8]| match command(cdb) {
        Command::Read(transfer) => transfer.lba_out_of_range().field.unwrap(),
        other => panic!("{other:?}"),
    };
    assert_eq!(field(&[0x08, 0, 0, 0, 1, 0]), FieldPointer::cdb(1, 4));
    assert_eq!(field(&[0x28, 0, 0, 0, 0, 0, 0, 0, 1, 0]), FieldPointer::cdb(2, 7));
}

#[test]
fn verification() {
    let transfer = Transfer { lba: 1, blocks: 2, dpo: true, fua: false, lba_field: 2 };
    let ten = |opcode, flags| [opcode, flags, 0, 0, 0, 1, 0, 0, 2, 0];
    assert_eq!(command(&ten(0x2f, 0x10)), Command::Verify { transfer, check: ByteCheck::None });
    assert_eq!(command(&ten(0x2f, 0x12)), Command::Verify { transfer, check: ByteCheck::Full });
    assert_eq!(command(&ten(0x2f, 0x16)), Command::Verify { transfer, check: ByteCheck::OneBlock });
    assert_eq!(pointer(&ten(0x2f, 0x14)), (1, Some(2)));
    assert_eq!(command(&ten(0x2e, 0x12)), Command::WriteAndVerify { transfer, check: ByteCheck::Full });
    assert_eq!(pointer(&ten(0x2e, 0x16)), (1, Some(2)));
}

#[test]
fn atomic_commands() {
    let transfer = Transfer { lba: 0x0102_0304_0506_0708, blocks: 9, dpo: true, fua: false, lba_field: 2 };
    let sixteen = |opcode, flags, length: [u8; 4]| {
        let [a, b, c, d] = length;
        [opcode, flags, 1, 2, 3, 4, 5, 6, 7, 8, a, b, c, d, 0, 0]
    };
    assert_eq!(command(&sixteen(0x89, 0x10, [0, 0, 0, 9])), Command::CompareAndWrite(transfer));
    assert_eq!(
        command(&sixteen(0x89, 0x08, [0, 0, 0, 255])),
        Command::CompareAndWrite(Transfer { blocks: 255, dpo: false, fua: true, ..transfer })
    );
    // Bytes 10 to 12 are reserved, and WRPROTECT is not supported.
    assert_eq!(pointer(&sixteen(0x89, 0, [0x80, 0, 0, 9])), (10, Some(7)));
    assert_eq!(pointer(&sixteen(0x89, 0, [0, 0, 1, 0])), (12, Some(0)));
    assert_eq!(pointer(&sixteen(0x89, 0x20, [0, 0, 0, 9])), (1, Some(5)));
    let mut group = sixteen(0x89, 0, [0, 0, 0, 9]);
    group[14] = 0x1f;
    assert_eq!(command(&group), Command::CompareAndWrite(Transfer { dpo: false, ..transfer }), "GROUP NUMBER");
    group[14] = 0x20;
    assert_eq!(pointer(&group), (14, Some(5)));

    assert_eq!(command(&sixteen(0x8b, 0x10, [0, 0, 0, 9])), Command::Orwrite(transfer));
    assert_eq!(
        command(&sixteen(0x8b, 0x18, [1, 2, 3, 4])),
        Command::Orwrite(Transfer { blocks: 0x0102_0304, fua: true, ..transfer })
    );
    // ORPROTECT.
    assert_eq!(pointer(&sixteen(0x8b, 0x80, [0, 0, 0, 9])), (1, Some(7)));
    for opcode in [0x89, 0x8b] {
        assert_eq!(lookup(opcode, 0).unwrap().reservation, Reservation::WRITES);
    }
}

#[test]
fn caches_and_provisioning() {
    let transfer = Transfer { lba: 1, blocks: 2, dpo: false, fua: false, lba_field: 2 };
    let ten = |opcode, flags| [opcode, flags, 0, 0, 0, 1, 0, 0, 2, 0];
    let sixteen = |opcode, flags| [opcode, flags, 0, 0, 0, 0, 0, 0, 0, 1, 0, 0, 0, 2, 0, 0];
    assert_eq!(command(&ten(0x35, 2)), Command::SynchronizeCache { transfer, immed: true });
    assert_eq!(command(&sixteen(0x91, 0)), Command::SynchronizeCache { transfer, immed: false });
    assert_eq!(command(&sixteen(0x90, 2)), Command::PreFetch { transfer, immed: true });
    let same = |unmap, anchor, ndob| Command::WriteSame { transfer, unmap, anchor, ndob };
    assert_eq!(command(&ten(0x41, 0x08)), same(true, false, false));
    assert_eq!(command(&sixteen(0x93, 0x19)), same(true, true, true));
    assert_eq!(command(&sixteen(0x93, 0x01)), same(false, false, true));
    assert_eq!(pointer(&ten(0x41, 0x10)), (1, Some(4)), "ANCHOR without UNMAP");
    assert_eq!(pointer(&ten(0x41, 0x09)), (1, Some(0)), "NDOB is WRITE SAME(16)'s");
    assert_eq!(
        command(&[0x42, 1, 0, 0, 0, 0, 0, 0, 24, 0]),
        Command::Unmap { anchor: true, parameter_list_length: 24 }
    );
}

#[test]
fn inquiries() {
    let inquiry = |page| Command::Inquiry { page, allocation_length: 0x0124 };
    assert_eq!(command(&[0x12, 0, 0, 0x01, 0x24, 0]), inquiry(None));
    assert_eq!(command(&[0x12, 1, 0, 0x01, 0x24, 0]), inquiry(Some(0)));
    assert_eq!(command(&[0x12, 1, 0x83, 0x01, 0x24, 0]), inquiry(Some(0x83)));
    assert_eq!(pointer(&[0x12, 0, 0x83, 0x01, 0x24, 0]), (2, Some(7)));
    assert_eq!(command(&[0x03, 1, 0, 0, 252, 0]), Command::RequestSense { descriptor: true, allocation_length: 252 });
    let luns = Command::ReportLuns { select_report: 2, allocation_length: 0x0102_0304 };
    assert_eq!(command(&[0xa0, 0, 2, 0, 0, 0, 1, 2, 3, 4, 0, 0]), luns);
    assert_eq!(command(&[0x25, 0, 0, 0, 0, 0, 0, 0, 0, 0]), Command::ReadCapacity10);
    let capacity = [0x9e, 0x10, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 32, 0, 0];
    assert_eq!(command(&capacity), Command::ReadCapacity16 { allocation_length: 32 });
    let mut status = [0x9e, 0x12, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 0, 0];
    let decoded = Command::GetLbaStatus { lba: 0x0102_0304_0506_0708, allocation_length: 0x090a_0b0c };
    assert_eq!(command(&status), decoded);
    status[14] = 1;
    assert_eq!(pointer(&status), (14, Some(0)), "SBC-3 has no REPORT TYPE");
}

#[test]
fn reports() {
    let rsoc = Command::ReportSupportedOperationCodes {
        rctd: true,
        options: 2,
        opcode: 0x9e,
        service_action: 0x0010,
        allocation_length: 0x0102_0304,
    };
    assert_eq!(command(&[0xa3, 0x0c, 0x82, 0x9e, 0x00, 0x10, 1, 2, 3, 4, 0, 0]), rsoc);
    assert_eq!(pointer(&[0xa3, 0x0c, 0x04, 0, 0, 0, 0, 0, 0, 4, 0, 0]), (2, Some(2)));
    let functions = Command::ReportSupportedTaskManagementFunctions { repd: true, allocation_length: 16 };
    assert_eq!(command(&[0xa3, 0x0d, 0x80, 0, 0, 0, 0, 0, 0, 16, 0, 0]), functions);
    assert_eq!(pointer(&[0xa3, 0x0d, 0x80, 0, 0, 0, 0, 0, 0, 3, 0, 0]), (6, Some(7)));
}

#[test]
fn modes() {
    let sense = |ten, llbaa, dbd, control, allocation_length| Command::ModeSense {
        ten,
        llbaa,
        dbd,
        control,
        page: 0x0a,
        subpage: 1,
        allocation_length,
    };
    assert_eq!(command(&[0x1a, 0x08, 0x4a, 1, 255, 0]), sense(false, false, true, PageControl::Changeable, 255));
    let ten = [0x5a, 0x10, 0xca, 1, 0, 0, 0, 1, 2, 0];
    assert_eq!(command(&ten), sense(true, true, false, PageControl::Saved, 0x0102));
    let select =
        |ten, parameter_list_length| Command::ModeSelect { ten, page_format: true, save: true, parameter_list_length };
    assert_eq!(command(&[0x15, 0x11, 0, 0, 24, 0]), select(false, 24));
    assert_eq!(command(&[0x55, 0x11, 0, 0, 0, 0, 0, 1, 0, 0]), select(true, 256));
}

#[test]
fn starting_and_allowing_conflict_with_nothing() {
    let class = |cdb: &[u8]| {
        let (row, command) = decode(cdb).unwrap();
        row.reservation(&command)
    };
    assert_eq!(class(&[0x1b, 0, 0, 0, 0x01, 0]), Reservation::ALLOWED);
    assert_eq!(class(&[0x1b, 0, 0, 0, 0x00, 0]), Reservation::WRITES);
    assert_eq!(class(&[0x1b, 0, 0, 0, 0x11, 0]), Reservation::WRITES);
    assert_eq!(class(&[0x1e, 0, 0, 0, 0, 0]), Reservation::ALLOWED);
    assert_eq!(class(&[0x1e, 0, 0, 0, 1, 0]), Reservation::WRITES);
    assert_eq!(pointer(&[0x1e, 0, 0, 0, 2, 0]), (4, Some(1)));
    assert_eq!(class(&[0x28, 0, 0, 0, 0, 0, 0, 0, 1, 0]), Reservation::READS);
    assert_eq!(class(&[0x35, 0, 0, 0, 0, 0, 0, 0, 1, 0]), Reservation::WRITES);
}

#[test]
fn only_three_commands_pass_a_unit_attention() {
    let exempt: Vec<_> = rows().iter().filter(|row| row.attention == Attention::Exempt).map(|row| row.name).collect();
    assert_eq!(exempt, ["REQUEST SENSE", "INQUIRY", "REPORT LUNS"]);
}

#[test]
fn management() {
    let identifying = Command::ReportIdentifyingInformation { kind: 0x7f, allocation_length: 0x0102_0304 };
    assert_eq!(command(&[0xa3, 0x05, 0, 0, 0, 0, 1, 2, 3, 4, 0xfe, 0]), identifying);
    assert_eq!(pointer(&[0xa3, 0x05, 0, 0, 0, 0, 1, 2, 3, 4, 0xff, 0]), (10, Some(0)));
    let identifying = Command::SetIdentifyingInformation { kind: 2, parameter_list_length: 5 };
    assert_eq!(command(&[0xa4, 0x06, 0, 0, 0, 0, 0, 0, 0, 5, 0x04, 0]), identifying);
    let stamp = Command::ReportTimestamp { allocation_length: 12 };
    assert_eq!(command(&[0xa3, 0x0f, 0, 0, 0, 0, 0, 0, 0, 12, 0, 0]), stamp);
    let stamp = Command::SetTimestamp { parameter_list_length: 12 };
    assert_eq!(command(&[0xa4, 0x0f, 0, 0, 0, 0, 0, 0, 0, 12, 0, 0]), stamp);
    assert_eq!(pointer(&[0xa4, 0x0f, 0, 0, 1, 0, 0, 0, 0, 12, 0, 0]), (4, Some(0)));
}

#[test]
fn target_port_groups() {
    let report = |extended| Command::ReportTargetPortGroups { extended, allocation_length: 0x0102_0304 };
    assert_eq!(command(&[0xa3, 0x0a, 0, 0, 0, 0, 1, 2, 3, 4, 0, 0]), report(false));
    assert_eq!(command(&[0xa3, 0x2a, 0, 0, 0, 0, 1, 2, 3, 4, 0, 0]), report(true));
    assert_eq!(pointer(&[0xa3, 0x4a, 0, 0, 0, 0, 1, 2, 3, 4, 0, 0]), (1, Some(7)), "PARAMETER DATA FORMAT");
    let set = Command::SetTargetPortGroups { parameter_list_length: 0x0102_0304 };
    assert_eq!(command(&[0xa4, 0x0a, 0, 0, 0, 0, 1, 2, 3, 4, 0, 0]), set);
    assert_eq!(pointer(&[0xa4, 0x2a, 0, 0, 0, 0, 0, 0, 0, 8, 0, 0]), (1, Some(5)));
    let class = |opcode| lookup(opcode, 0x0a).unwrap().reservation;
    assert_eq!((class(0xa3), class(0xa4)), (Reservation::ALLOWED, Reservation::WRITES));
}

#[test]
fn logs_diagnostics_buffers_and_defects() {
    let log = Command::LogSense {
        control: LogControl::DefaultCumulative,
        page: 0x2f,
        subpage: 1,
        pointer: 0x0203,
        allocation_length: 0x0405,
    };
    assert_eq!(command(&[0x4d, 0, 0xef, 1, 0, 2, 3, 4, 5, 0]), log);
    let control = LogControl::Cumulative;
    let log = Command::LogSelect { pcr: true, control, page: 2, subpage: 0, parameter_list_length: 0 };
    assert_eq!(command(&[0x4c, 2, 0x42, 0, 0, 0, 0, 0, 0, 0]), log);
    let send = Command::SendDiagnostic {
        self_test_code: 0b101,
        page_format: true,
        self_test: false,
        parameter_list_length: 0,
    };
    assert_eq!(command(&[0x1d, 0xb3, 0, 0, 0, 0]), send);
    let receive = Command::ReceiveDiagnosticResults { page: Some(0x40), allocation_length: 0x0102 };
    assert_eq!(command(&[0x1c, 1, 0x40, 1, 2, 0]), receive);
    let write = Command::WriteBuffer { mode: 0x0a, buffer_id: 1, offset: 0x02_0304, parameter_list_length: 0x05_0607 };
    assert_eq!(command(&[0x3b, 0x0a, 1, 2, 3, 4, 5, 6, 7, 0]), write);
    let read = Command::ReadBuffer { mode: 0x1f, buffer_id: 1, offset: 0x02_0304, allocation_length: 0x05_0607 };
    assert_eq!(command(&[0x3c, 0x1f, 1, 2, 3, 4, 5, 6, 7, 0]), read);
    assert_eq!(pointer(&[0x3c, 0x22, 0, 0, 0, 0, 0, 0, 0, 0]), (1, Some(5)), "MODE SPECIFIC");
    let defects = |twelve, allocation_length| Command::ReadDefectData {
        twelve,
        plist: true,
        glist: false,
        format: 0b101,
        allocation_length,
    };
    assert_eq!(command(&[0x37, 0, 0x15, 0, 0, 0, 0, 1, 2, 0]), defects(false, 0x0102));
    assert_eq!(command(&[0xb7, 0x15, 9, 9, 9, 9, 1, 2, 3, 4, 0, 0]), defects(true, 0x0102_0304));
}

/// SPC-4 table 65 and SBC-3 table 13; what SPC-2 does not know, and only reports, is allowed.
#[test]
fn management_and_reservations() {
    let class = |opcode, service_action| lookup(opcode, service_action).unwrap().reservation;
    for (opcode, service_action) in [(0x4d, 0), (0xa3, 0x05), (0xa3, 0x0f)] {
        assert_eq!(class(opcode, service_action), Reservation::ALLOWED, "{opcode:02x}");
    }
    for opcode in [0x1c, 0x37, 0x3c, 0xb7] {
        assert_eq!(class(opcode, 0), Reservation::READS, "{opcode:02x}");
    }
    for (opcode, service_action) in [(0x1d, 0), (0x3b, 0), (0x4c, 0), (0xa4, 0x06), (0xa4, 0x0f)] {
        assert_eq!(class(opcode, service_action), Reservation::WRITES, "{opcode:02x}");
    }
}

#[test]
fn reservations() {
    let with = |action, bytes: [u8; 9]| command(&[&[action], &bytes[..]].concat());
    for (code, action) in [
        (0x00, ReserveIn::ReadKeys),
        (0x01, ReserveIn::ReadReservation),
        (0x02, ReserveIn::ReportCapabilities),
        (0x03, ReserveIn::ReadFullStatus),
    ] {
        let decoded = Command::PersistentReserveIn { action, allocation_length: 0x0102 };
        assert_eq!(with(0x5e, [code, 0, 0, 0, 0, 0, 1, 2, 0]), decoded);
        assert_eq!(action as u8, code);
    }
    for (code, action) in [
        (0x00, ReserveOut::Register),
        (0x01, ReserveOut::Reserve),
        (0x02, ReserveOut::Release),
        (0x03, ReserveOut::Clear),
        (0x04, ReserveOut::Preempt),
        (0x05, ReserveOut::PreemptAndAbort),
        (0x06, ReserveOut::RegisterAndIgnoreExistingKey),
        (0x07, ReserveOut::RegisterAndMove),
        (0x08, ReserveOut::ReplaceLostReservation),
    ] {
        let decoded =
            Command::PersistentReserveOut { action, scope: 0x1, kind: 0x5, parameter_list_length: 0x0102_0304 };
        assert_eq!(with(0x5f, [code, 0x15, 0, 0, 1, 2, 3, 4, 0]), decoded);
        assert_eq!(action as u8, code);
    }
    assert_eq!(pointer(&[0x5e, 0x04, 0, 0, 0, 0, 0, 0, 8, 0]), (1, Some(4)));
    assert_eq!(pointer(&[0x5f, 0x09, 0, 0, 0, 0, 0, 0, 24, 0]), (1, Some(4)));
    assert_eq!(pointer(&[0x5e, 0x20, 0, 0, 0, 0, 0, 0, 8, 0]), (1, Some(5)));
    assert_eq!(pointer(&[0x5f, 0, 0, 1, 0, 0, 0, 0, 24, 0]), (3, Some(0)));
    for cdb in [&[0x16, 0, 0, 0, 0, 0][..], &[0x56, 0, 0, 0, 0, 0, 0, 0, 0, 0]] {
        assert_eq!(command(cdb), Command::Reserve);
        let release = [&[cdb[0] + 1], &cdb[1..]].concat();
        assert_eq!(command(&release), Command::Release);
    }
}

/// SPC-2 7.21, 7.22: 3RDPTY, LONGID and EXTENT are refused, not done for the wrong nexus or the whole unit.
#[test]
fn third_parties_and_extents_are_refused() {
    for opcode in [0x16, 0x17] {
        assert_eq!(pointer(&[opcode, 0x10, 0, 0, 0, 0]), (1, Some(4)));
        assert_eq!(pointer(&[opcode, 0x01, 0, 0, 0, 0]), (1, Some(0)));
        assert_eq!(pointer(&[opcode, 0, 0, 0, 8, 0]), (4, Some(3)));
    }
    for opcode in [0x56, 0x57] {
        assert_eq!(pointer(&[opcode, 0x12, 0, 0, 0, 0, 0, 0, 0, 0]), (1, Some(4)));
        assert_eq!(pointer(&[opcode, 0x01, 0, 0, 0, 0, 0, 0, 0, 0]), (1, Some(0)));
        assert_eq!(pointer(&[opcode, 0, 0, 2, 0, 0, 0, 0, 0, 0]), (3, Some(1)));
        assert_eq!(pointer(&[opcode, 0, 0, 0, 0, 0, 0, 0, 8, 0]), (8, Some(3)));
    }
}
