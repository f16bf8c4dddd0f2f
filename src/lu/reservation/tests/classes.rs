//! The reservation class of every command, against the standards' tables row by row.

use super::*;
use crate::lu::reservation::{Relation, allows};
use crate::scsi::opcode::{Persistent, Reservation, Row, Spc2, decode, rows};

use ReservationType as Type;

/// What the tables say of a command: operation code, service action, name, and five columns.
///
/// `+` is "Allowed", `-` is "Conflict". The columns: RESERVE of another initiator (the tables of SPC-2 5.5.1 and of the command sets; a
/// command that those do not know is to RESERVE what it is to Exclusive Access), then SPC-4 table 65 or SBC-3 table 13:
/// Write Excl from any I_T nexus, Excl Access from any, Write Excl – RR from not registered, Excl Access – RR from not registered. (The
/// column "From registered, RR all types" says "Allowed" everywhere.)
///
/// A command that is not in vstgt's table of operation codes may be here; the other way round not.
const EXPECTED: &[(u8, Option<u16>, &str, &str)] = &[
    // SPC-4 table 65.
    (0x00, None, "TEST UNIT READY", "-++++"),
    (0x03, None, "REQUEST SENSE", "+++++"),
    (0x12, None, "INQUIRY", "+++++"),
    (0x15, None, "MODE SELECT(6)", "-----"),
    (0x1a, None, "MODE SENSE(6)", "-+-+-"),
    (0x1c, None, "RECEIVE DIAGNOSTIC RESULTS", "-+-+-"),
    (0x1d, None, "SEND DIAGNOSTIC", "-----"),
    (0x3b, None, "WRITE BUFFER", "-----"),
    (0x3c, None, "READ BUFFER", "-+-+-"),
    (0x4c, None, "LOG SELECT", "-----"),
    (0x4d, None, "LOG SENSE", "+++++"),
    (0x55, None, "MODE SELECT(10)", "-----"),
    (0x5a, None, "MODE SENSE(10)", "-+-+-"),
    (0x83, Some(0x00), "EXTENDED COPY(LID1)", "-----"),
    (0x83, Some(0x01), "EXTENDED COPY(LID4)", "-----"),
    (0x83, Some(0x1c), "COPY OPERATION ABORT", "-----"),
    (0x84, Some(0x00), "RECEIVE COPY STATUS(LID1)", "-----"),
    (0x84, Some(0x03), "RECEIVE COPY OPERATING PARAMETERS", "-----"),
    (0x84, Some(0x04), "RECEIVE COPY FAILURE DETAILS(LID1)", "-----"),
    (0x84, Some(0x05), "RECEIVE COPY STATUS(LID4)", "+++++"),
    (0x84, Some(0x07), "RECEIVE ROD TOKEN INFORMATION", "+++++"),
    (0xa0, None, "REPORT LUNS", "+++++"),
    (0xa3, Some(0x05), "REPORT IDENTIFYING INFORMATION", "+++++"),
    (0xa3, Some(0x0a), "REPORT TARGET PORT GROUPS", "+++++"),
    (0xa3, Some(0x0b), "REPORT ALIASES", "+++++"),
    (0xa3, Some(0x0c), "REPORT SUPPORTED OPERATION CODES", "-+-+-"),
    (0xa3, Some(0x0d), "REPORT SUPPORTED TASK MANAGEMENT FUNCTIONS", "-+-+-"),
    (0xa3, Some(0x0e), "REPORT PRIORITY", "+++++"),
    (0xa3, Some(0x0f), "REPORT TIMESTAMP", "+++++"),
    (0xa4, Some(0x06), "SET IDENTIFYING INFORMATION", "-----"),
    (0xa4, Some(0x0a), "SET TARGET PORT GROUPS", "-----"),
    (0xa4, Some(0x0b), "CHANGE ALIASES", "-----"),
    (0xa4, Some(0x0e), "SET PRIORITY", "-----"),
    (0xa4, Some(0x0f), "SET TIMESTAMP", "-----"),
    (0xab, Some(0x01), "READ MEDIA SERIAL NUMBER", "+++++"),
    // "As defined in SPC-2", and SPC-4 5.13.3: the machine judges them. SPC-2 lets RELEASE of another initiator through, to do
    // nothing.
    (0x16, None, "RESERVE(6)", "-++++"),
    (0x17, None, "RELEASE(6)", "+++++"),
    (0x56, None, "RESERVE(10)", "-++++"),
    (0x57, None, "RELEASE(10)", "+++++"),
    // PERSISTENT RESERVE IN is allowed. "See table 66" for OUT: the machine judges it.
    (0x5e, Some(0x00), "READ KEYS", "-++++"),
    (0x5e, Some(0x01), "READ RESERVATION", "-++++"),
    (0x5e, Some(0x02), "REPORT CAPABILITIES", "-++++"),
    (0x5e, Some(0x03), "READ FULL STATUS", "-++++"),
    (0x5f, Some(0x00), "REGISTER", "-++++"),
    (0x5f, Some(0x01), "RESERVE", "-++++"),
    (0x5f, Some(0x02), "RELEASE", "-++++"),
    (0x5f, Some(0x03), "CLEAR", "-++++"),
    (0x5f, Some(0x04), "PREEMPT", "-++++"),
    (0x5f, Some(0x05), "PREEMPT AND ABORT", "-++++"),
    (0x5f, Some(0x06), "REGISTER AND IGNORE EXISTING KEY", "-++++"),
    (0x5f, Some(0x07), "REGISTER AND MOVE", "-++++"),
    (0x5f, Some(0x08), "REPLACE LOST RESERVATION", "-++++"),
    // SBC-3 table 13.
    (0x04, None, "FORMAT UNIT", "-----"),
    (0x07, None, "REASSIGN BLOCKS", "-----"),
    (0x08, None, "READ(6)", "-+-+-"),
    (0x0a, None, "WRITE(6)", "-----"),
    // The stricter of two rows each; the other is below.
    (0x1b, None, "START STOP UNIT", "-----"),
    (0x1e, None, "PREVENT ALLOW MEDIUM REMOVAL", "-----"),
    (0x25, None, "READ CAPACITY(10)", "+++++"),
    (0x28, None, "READ(10)", "-+-+-"),
    (0x2a, None, "WRITE(10)", "-----"),
    (0x2e, None, "WRITE AND VERIFY(10)", "-----"),
    (0x2f, None, "VERIFY(10)", "-+-+-"),
    (0x34, None, "PRE-FETCH(10)", "-+-+-"),
    (0x35, None, "SYNCHRONIZE CACHE(10)", "-----"),
    (0x37, None, "READ DEFECT DATA(10)", "-+-+-"),
    (0x41, None, "WRITE SAME(10)", "-----"),
    (0x42, None, "UNMAP", "-----"),
    (0x48, Some(0x01), "SANITIZE, OVERWRITE", "-----"),
    (0x48, Some(0x02), "SANITIZE, BLOCK ERASE", "-----"),
    (0x48, Some(0x03), "SANITIZE, CRYPTOGRAPHIC ERASE", "-----"),
    (0x48, Some(0x1f), "SANITIZE, EXIT FAILURE MODE", "-----"),
    (0x7f, Some(0x09), "READ(32)", "-+-+-"),
    (0x7f, Some(0x0a), "VERIFY(32)", "-+-+-"),
    (0x7f, Some(0x0b), "WRITE(32)", "-----"),
    (0x7f, Some(0x0c), "WRITE AND VERIFY(32)", "-----"),
    (0x7f, Some(0x0d), "WRITE SAME(32)", "-----"),
    (0x7f, Some(0x0e), "ORWRITE(32)", "-----"),
    (0x83, Some(0x10), "POPULATE TOKEN", "-+-+-"),
    (0x83, Some(0x11), "WRITE USING TOKEN", "-----"),
    (0x88, None, "READ(16)", "-+-+-"),
    (0x89, None, "COMPARE AND WRITE", "-----"),
    (0x8a, None, "WRITE(16)", "-----"),
    (0x8b, None, "ORWRITE(16)", "-----"),
    (0x8e, None, "WRITE AND VERIFY(16)", "-----"),
    (0x8f, None, "VERIFY(16)", "-+-+-"),
    (0x90, None, "PRE-FETCH(16)", "-+-+-"),
    (0x91, None, "SYNCHRONIZE CACHE(16)", "-----"),
    (0x93, None, "WRITE SAME(16)", "-----"),
    (0x9c, None, "WRITE ATOMIC(16)", "-----"),
    (0x9e, Some(0x10), "READ CAPACITY(16)", "+++++"),
    (0x9e, Some(0x12), "GET LBA STATUS", "-+-+-"),
    (0x9e, Some(0x13), "REPORT REFERRALS", "+++++"),
    (0xa8, None, "READ(12)", "-+-+-"),
    (0xaa, None, "WRITE(12)", "-----"),
    (0xae, None, "WRITE AND VERIFY(12)", "-----"),
    (0xaf, None, "VERIFY(12)", "-+-+-"),
    (0xb7, None, "READ DEFECT DATA(12)", "-+-+-"),
];

fn expected(row: &Row) -> Option<&'static str> {
    let same = |entry: &&(u8, Option<u16>, &str, &'static str)| entry.0 == row.opcode && entry.1 == row.service_action;
    EXPECTED.iter().find(same).map(|entry| entry.3)
}

/// What a class comes to in the tables' columns.
fn columns(class: Reservation) -> String {
    let allowed = |kinds: &[Type], relations: &[Relation]| {
        let each = |kind: &Type| relations.iter().map(|relation| allows(*kind, class.persistent, *relation)).collect();
        let answers: Vec<Vec<bool>> = kinds.iter().map(each).collect();
        let answers = answers.concat();
        // One column of the standard, one answer.
        assert!(answers.iter().all(|answer| *answer == answers[0]), "{kinds:?} {class:?}");
        answers[0]
    };
    let any = [Relation::Registrant, Relation::Stranger];
    let (we, ea) = (Type::WriteExclusive, Type::ExclusiveAccess);
    let we_rr = [Type::WriteExclusiveRegistrantsOnly, Type::WriteExclusiveAllRegistrants];
    let ea_rr = [Type::ExclusiveAccessRegistrantsOnly, Type::ExclusiveAccessAllRegistrants];
    assert!(allowed(&[we_rr, ea_rr].concat(), &[Relation::Registrant]), "from registered, RR all types");
    assert!(allowed(&Type::ALL, &[Relation::Holder]));
    let answers = [
        class.spc2 == Spc2::Allowed,
        allowed(&[we], &any),
        allowed(&[ea], &any),
        allowed(&we_rr, &[Relation::Stranger]),
        allowed(&ea_rr, &[Relation::Stranger]),
    ];
    answers.map(|allowed| if allowed { '+' } else { '-' }).iter().collect()
}

#[test]
fn every_command_is_in_its_class() {
    let mut wrong = Vec::new();
    for row in rows() {
        let (name, is) = (row.name, columns(row.reservation));
        match expected(row) {
            Some(should) if should == is => {}
            Some(should) => wrong.push(format!("{name}: is {is}, should be {should}")),
            None => wrong.push(format!("{name}: not in the list")),
        }
    }
    assert!(wrong.is_empty(), "\n{}", wrong.join("\n"));
}

#[test]
fn the_list_names_no_command_twice() {
    let mut seen = std::collections::HashSet::new();
    for (opcode, service_action, name, columns) in EXPECTED {
        assert!(seen.insert((opcode, service_action)), "{name}");
        assert_eq!(columns.len(), 5, "{name}");
    }
}

/// SBC-3 table 13: START STOP UNIT with START 1 and POWER CONDITION 0h, PREVENT ALLOW MEDIUM REMOVAL with PREVENT 0.
#[test]
fn two_commands_are_milder_with_some_fields() {
    let class = |cdb: &[u8]| {
        let (row, command) = decode(cdb).unwrap();
        columns(row.reservation(&command))
    };
    assert_eq!(class(&[0x1b, 0, 0, 0, 0x01, 0]), "+++++");
    assert_eq!(class(&[0x1b, 0, 0, 0, 0x00, 0]), "-----");
    assert_eq!(class(&[0x1b, 0, 0, 0, 0x11, 0]), "-----");
    assert_eq!(class(&[0x1e, 0, 0, 0, 0, 0]), "+++++");
    assert_eq!(class(&[0x1e, 0, 0, 0, 1, 0]), "-----");
}

/// Every command × every type × every relation, by way of the gate's bits: what is denied is what the list says.
#[test]
fn a_gate_stops_what_the_tables_stop() {
    let nexuses = [nexus(b'a', 1), nexus(b'b', 1), nexus(b'c', 1)];
    let [holder, registrant, stranger] = nexuses;
    let registrations = vec![Registration { nexus: holder, key: 1 }, Registration { nexus: registrant, key: 2 }];
    for row in rows() {
        let should = expected(row).unwrap();
        for kind in Type::ALL {
            let reservation =
                Some(PersistentReservation { kind, holder: (!kind.is_all_registrants()).then_some(holder) });
            let state = ReservationState { reservation, registrations: registrations.clone(), ..Default::default() };
            // Column 1 and 2 are WE's and EA's, 3 and 4 those of the RR types.
            let writes_only = matches!(kind.code(), 0x1 | 0x5 | 0x7);
            let rr = kind.code() >= 0x5;
            let column = 1 + usize::from(!writes_only) + 2 * usize::from(rr);
            for nexus in nexuses {
                let exempt = nexus == holder || (rr && nexus == registrant);
                let allowed = exempt || should.chars().nth(column) == Some('+');
                let denial = state.denial(nexus);
                let stopped = match row.reservation.persistent {
                    Persistent::Allowed => false,
                    Persistent::Reads => denial.read,
                    Persistent::Writes => denial.write,
                };
                assert_eq!(stopped, !allowed, "{} {kind:?} {nexus:?}", row.name);
            }
        }
        let state = ReservationState { legacy: Some(holder), ..Default::default() };
        let stopped = |nexus| row.reservation.spc2 == Spc2::Conflicts && state.denial(nexus).spc2;
        assert!(!stopped(holder));
        assert_eq!(stopped(stranger), should.starts_with('-'), "{} RESERVE", row.name);
    }
}
