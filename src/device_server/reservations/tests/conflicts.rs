//! Which commands a persistent reservation stops: SPC-4 table 65 and SBC-3 table 13, through [`start`](crate::device_server::start).

use super::*;
use crate::scsi::opcode::{self, Row};

/// What the tables say of a command: does it conflict with Write Exclusive types, with Exclusive Access types?
const ALLOWED: [bool; 2] = [false, false];
const READS: [bool; 2] = [false, true];
const WRITES: [bool; 2] = [true, true];

/// A command, how much data it moves (negative: out), and its row.
type Case = (&'static [u8], i32, [bool; 2]);

const CASES: &[Case] = &[
    // SPC-4 table 65.
    (&[0x00, 0, 0, 0, 0, 0], 0, ALLOWED),                        // TEST UNIT READY
    (&[0x03, 0, 0, 0, 18, 0], 18, ALLOWED),                      // REQUEST SENSE
    (&[0x12, 0, 0, 0, 36, 0], 36, ALLOWED),                      // INQUIRY
    (&[0xa0, 0, 0, 0, 0, 0, 0, 0, 0, 16, 0, 0], 16, ALLOWED),    // REPORT LUNS
    (&[0x4d, 0, 0x40, 0, 0, 0, 0, 0, 4, 0], 4, ALLOWED),         // LOG SENSE
    (&[0x4c, 0, 0x40, 0, 0, 0, 0, 0, 0, 0], 0, WRITES),          // LOG SELECT
    (&[0x1a, 0, 0x0a, 0, 4, 0], 4, READS),                       // MODE SENSE(6)
    (&[0x5a, 0, 0x0a, 0, 0, 0, 0, 0, 8, 0], 8, READS),           // MODE SENSE(10)
    (&[0x15, 0x10, 0, 0, 0, 0], 0, WRITES),                      // MODE SELECT(6)
    (&[0x55, 0x10, 0, 0, 0, 0, 0, 0, 0, 0], 0, WRITES),          // MODE SELECT(10)
    (&[0x1e, 0, 0, 0, 1, 0], 0, WRITES),                         // PREVENT
    (&[0x1e, 0, 0, 0, 0, 0], 0, ALLOWED),                        // ALLOW
    (&[0x3c, 0x03, 0, 0, 0, 0, 0, 0, 4, 0], 4, READS),           // READ BUFFER
    (&[0x3b, 0x02, 0, 0, 0, 0, 0, 0, 4, 0], -4, WRITES),         // WRITE BUFFER
    (&[0x1c, 1, 0, 0, 4, 0], 4, READS),                          // RECEIVE DIAGNOSTIC RESULTS
    (&[0x1d, 0x04, 0, 0, 0, 0], 0, WRITES),                      // SEND DIAGNOSTIC
    (&[0xa3, 0x05, 0, 0, 0, 0, 0, 0, 0, 4, 0, 0], 4, ALLOWED),   // REPORT IDENTIFYING INFORMATION
    (&[0xa4, 0x06, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0], 0, WRITES),    // SET IDENTIFYING INFORMATION
    (&[0xa3, 0x0f, 0, 0, 0, 0, 0, 0, 0, 12, 0, 0], 12, ALLOWED), // REPORT TIMESTAMP
    (&[0xa4, 0x0f, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0], 0, WRITES),    // SET TIMESTAMP
    (&[0xa3, 0x0c, 0, 0, 0, 0, 0, 0, 0, 4, 0, 0], 4, READS),     // REPORT SUPPORTED OPERATION CODES
    (&[0xa3, 0x0d, 0, 0, 0, 0, 0, 0, 0, 4, 0, 0], 4, READS),     // REPORT SUPPORTED TASK MANAGEMENT FUNCTIONS
    (&[0x83, 0x00, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0], 0, WRITES), // EXTENDED COPY
    (&[0x84, 0x00, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 12, 0, 0], 12, WRITES), // RECEIVE COPY RESULTS
    (&[0x84, 0x03, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 4, 0, 0], 4, WRITES),
    (&[0x84, 0x04, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 4, 0, 0], 4, WRITES),
    (&[0x5e, 0x00, 0, 0, 0, 0, 0, 0, 8, 0], 8, ALLOWED), // PERSISTENT RESERVE IN
    (&[0x5e, 0x03, 0, 0, 0, 0, 0, 0, 8, 0], 8, ALLOWED),
    (&[0xa3, 0x0a, 0, 0, 0, 0, 0, 0, 0, 4, 0, 0], 4, ALLOWED), // REPORT TARGET PORT GROUPS
    (&[0xa4, 0x0a, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0], 0, WRITES),  // SET TARGET PORT GROUPS
    (&[0x5e, 0x01, 0, 0, 0, 0, 0, 0, 8, 0], 8, ALLOWED),
    (&[0x5e, 0x02, 0, 0, 0, 0, 0, 0, 8, 0], 8, ALLOWED),
    // SBC-3 table 13.
    (&[0x08, 0, 0, 0, 1, 0], 512, READS), // READ
    (&[0x28, 0, 0, 0, 0, 0, 0, 0, 1, 0], 512, READS),
    (&[0xa8, 0, 0, 0, 0, 0, 0, 0, 0, 1, 0, 0], 512, READS),
    (&[0x88, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 1, 0, 0], 512, READS),
    (&[0x0a, 0, 0, 0, 1, 0], -512, WRITES), // WRITE
    (&[0x2a, 0, 0, 0, 0, 0, 0, 0, 1, 0], -512, WRITES),
    (&[0xaa, 0, 0, 0, 0, 0, 0, 0, 0, 1, 0, 0], -512, WRITES),
    (&[0x8a, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 1, 0, 0], -512, WRITES),
    (&[0x89, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 1, 0, 0], -1024, WRITES), // COMPARE AND WRITE
    (&[0x8b, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 1, 0, 0], -512, WRITES),  // ORWRITE
    (&[0x9c, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 8, 0, 0], -4096, WRITES), // WRITE ATOMIC
    (&[0x2e, 0, 0, 0, 0, 0, 0, 0, 1, 0], -512, WRITES),                    // WRITE AND VERIFY
    (&[0xae, 0, 0, 0, 0, 0, 0, 0, 0, 1, 0, 0], -512, WRITES),
    (&[0x8e, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 1, 0, 0], -512, WRITES),
    (&[0x2f, 0, 0, 0, 0, 0, 0, 0, 1, 0], 0, READS), // VERIFY
    (&[0xaf, 0, 0, 0, 0, 0, 0, 0, 0, 1, 0, 0], 0, READS),
    (&[0x8f, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 1, 0, 0], 0, READS),
    (&[0x34, 0, 0, 0, 0, 0, 0, 0, 1, 0], 0, READS), // PRE-FETCH
    (&[0x90, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 1, 0, 0], 0, READS),
    (&[0x35, 0, 0, 0, 0, 0, 0, 0, 0, 0], 0, WRITES), // SYNCHRONIZE CACHE
    (&[0x91, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0], 0, WRITES),
    (&[0x41, 0, 0, 0, 0, 0, 0, 0, 1, 0], -512, WRITES), // WRITE SAME
    (&[0x93, 0x01, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 1, 0, 0], 0, WRITES),
    (&[0x42, 0, 0, 0, 0, 0, 0, 0, 0, 0], 0, WRITES), // UNMAP
    (&[0x83, 0x10, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0], 0, READS), // POPULATE TOKEN
    (&[0x83, 0x11, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0], 0, WRITES), // WRITE USING TOKEN
    (&[0x83, 0x1c, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0], 0, WRITES), // COPY OPERATION ABORT
    (&[0x84, 0x05, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0], 0, ALLOWED), // RECEIVE COPY STATUS(LID4)
    (&[0x84, 0x07, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0], 0, ALLOWED), // RECEIVE ROD TOKEN INFORMATION
    (&[0x25, 0, 0, 0, 0, 0, 0, 0, 0, 0], 8, ALLOWED), // READ CAPACITY
    (&[0x9e, 0x10, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 32, 0, 0], 32, ALLOWED),
    (&[0x9e, 0x12, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 24, 0, 0], 24, READS), // GET LBA STATUS
    (&[0x37, 0, 0, 0, 0, 0, 0, 0, 4, 0], 4, READS),                        // READ DEFECT DATA
    (&[0xb7, 0, 0, 0, 0, 0, 0, 0, 0, 8, 0, 0], 8, READS),
    (&[0x1b, 0, 0, 0, 1, 0], 0, ALLOWED),   // START
    (&[0x1b, 0, 0, 0, 0x10, 0], 0, WRITES), // a power condition
];

fn status(node: &Bench, cdb: &[u8], data: i32) -> Status {
    match data {
        0 => node.none(cdb).status,
        1.. => node.data_in(cdb, data as usize).answer.status,
        _ => node.data_out(cdb, &vec![0; data.unsigned_abs() as usize]).status,
    }
}

#[test]
fn every_type_every_command_every_relation() {
    for (at, kind) in ALL_TYPES.into_iter().enumerate() {
        let exclusive_access = at % 2;
        let c = Cluster::registered(2);
        assert_eq!(c.out(0, RESERVE, kind, KEYS[0], 0), GOOD);
        for (cdb, data, row) in CASES {
            let conflicts = |node: usize| status(&c.nodes[node], cdb, *data) == Status::ReservationConflict;
            let stranger = row[exclusive_access];
            // With Registrants Only and All Registrants a registered nexus may do everything.
            let registrant = stranger && kind <= 3;
            let expected = [false, registrant, stranger];
            assert_eq!([conflicts(0), conflicts(1), conflicts(2)], expected, "type {kind:x} {cdb:02x?}");
        }
        assert_eq!(c.attentions(), [vec![], vec![], vec![]]);
    }
}

/// No command is forgotten above; those that change what is reserved have tests of their own.
#[test]
fn every_command_is_here() {
    let service_action = |cdb: &[u8]| u16::from(cdb[1] & 0x1f);
    let has = |row: &Row| {
        CASES.iter().any(|(cdb, ..)| std::ptr::eq(opcode::lookup(cdb[0], service_action(cdb)).unwrap(), row))
    };
    let missing: Vec<_> = opcode::rows().iter().filter(|row| !has(row)).map(|row| row.opcode).collect();
    assert_eq!(missing, [&[0x16, 0x17, 0x56, 0x57][..], &[0x5f; 9]].concat());
}

/// What is not reserved stops nobody; nor do registrations alone.
#[test]
fn registrations_alone_stop_nobody() {
    let c = Cluster::registered(1);
    for (cdb, data, _) in CASES {
        for node in &c.nodes {
            assert_ne!(status(node, cdb, *data), Status::ReservationConflict, "{cdb:02x?}");
        }
    }
}

/// A command that conflicts touches nothing.
#[test]
fn what_conflicts_has_no_effect() {
    let c = Cluster::reserved(1);
    c.nodes[0].image.calls();
    let before = c.nodes[0].data_in(&[0x28, 0, 0, 0, 0, 0, 0, 0, 1, 0], 512).data;
    assert_eq!(c.write(1), Status::ReservationConflict);
    assert_eq!(c.nodes[0].data_in(&[0x28, 0, 0, 0, 0, 0, 0, 0, 1, 0], 512).data, before);
}

/// A nexus that comes finds what is reserved; one that was registered before it went finds its registration.
#[test]
fn who_comes_later() {
    let c = Cluster::reserved(6);
    let lu = c.itl(0).lu();
    let late = Bench::of(c.nodes[0].image.clone(), nexus_of(lu.clone(), None));
    assert_eq!(status(&late, &[0x28, 0, 0, 0, 0, 0, 0, 0, 1, 0], 512), Status::ReservationConflict);
    let id = c.itl(1).nexus();
    c.itl(1).lose_nexus();
    let again = Bench::of(c.nodes[0].image.clone(), Itl::new(lu.clone(), id, None));
    while again.itl.gate().take_attention().is_some() {}
    assert_eq!(status(&again, &[0x2a, 0, 0, 0, 0, 0, 0, 0, 1, 0], -512), Status::Good);
}

/// SPC-4 8.2: the REPORT LUNS well-known unit has no reservations.
#[test]
fn the_well_known_unit_has_none() {
    use crate::device_server::testkit::execute;
    use crate::device_server::{AbortFlag, Request, start};
    use crate::lu::{Ports, TargetPort};
    use crate::scsi::TaskAttribute;
    for cdb in [[0x5e, 0, 0, 0, 0, 0, 0, 0, 8, 0], [0x5f, 0, 0, 0, 0, 0, 0, 0, 24, 0]] {
        let attribute = TaskAttribute::Simple;
        let well_known = Some(Ports { all: &[TargetPort::SOLE], own: 1 });
        let request = Request {
            cdb: &cdb,
            itl: None,
            luns: &[0],
            peers: &crate::device_server::testkit::NoPeers,
            well_known,
            attribute,
            passes: &[],
        };
        let mut buf = IoBuf::empty();
        let plan = start(&request, &mut buf).plan;
        assert_eq!(execute(plan, &mut buf, &AbortFlag::default()), illegal(0x2000));
    }
}
