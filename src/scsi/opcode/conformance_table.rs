//! `docs/commands.md`: the table of commands as a document. It is generated here and never written by hand.
//!
//! The test fails when the document is not what the table says; with `VSTGT_WRITE_DOCS=1` in the environment it writes it instead.

use std::fmt::Write;
use std::path::Path;

use super::*;

/// Operation codes with their service actions.
type Rows = &'static [(u8, Option<u16>)];

/// Where what a command does is tested: operation codes (and, where they have several rows, service actions), a file or folder below
/// `src/device_server`, and families of libiscsi's tests. That each command decodes as its row says, is stopped by what its row says and is
/// refused by reservations as its row says, is tested of all rows at once.
const TESTS: &[(Rows, &str, &[&str])] = &[
    (&[(0x00, None)], "sbc/tests/start_stop.rs", &["TestUnitReady"]),
    (&[(0x03, None)], "tests/request_sense.rs", &[]),
    (&[(0x04, None)], "erase/tests/format_unit.rs", &[]),
    (&[(0x08, None)], "sbc/tests/read_write.rs", &["Read6"]),
    (&[(0x28, None)], "sbc/tests/read_write.rs", &["Read10"]),
    (&[(0xa8, None)], "sbc/tests/read_write.rs", &["Read12"]),
    (&[(0x88, None)], "sbc/tests/read_write.rs", &["Read16"]),
    (&[(0x0a, None)], "sbc/tests/read_write.rs", &[]),
    (&[(0x2a, None)], "sbc/tests/read_write.rs", &["Write10"]),
    (&[(0xaa, None)], "sbc/tests/read_write.rs", &["Write12"]),
    (&[(0x8a, None)], "sbc/tests/read_write.rs", &["Write16"]),
    (&[(0x12, None)], "tests/inquiry.rs", &["Inquiry"]),
    (&[(0x15, None)], "tests/mode.rs", &[]),
    (&[(0x55, None)], "tests/thresholds.rs", &[]),
    (&[(0x1a, None)], "tests/mode.rs", &["ModeSense6"]),
    (&[(0x5a, None)], "tests/mode.rs", &[]),
    (&[(0x16, None), (0x17, None)], "reservations/tests/legacy.rs", &["Reserve6"]),
    (&[(0x56, None), (0x57, None)], "reservations/tests/legacy.rs", &[]),
    (&[(0x1b, None)], "sbc/tests/load_eject.rs", &["StartStopUnit", "NoMedia"]),
    (&[(0x1e, None)], "sbc/tests/load_eject.rs", &["PreventAllow"]),
    (&[(0x1c, None), (0x1d, None)], "diagnostic/tests.rs", &[]),
    (&[(0x25, None)], "sbc/tests/capacity.rs", &["ReadCapacity10"]),
    (&[(0x9e, Some(0x10))], "sbc/tests/capacity.rs", &["ReadCapacity16"]),
    (&[(0x9e, Some(0x12))], "sbc/tests/lba_status.rs", &["GetLBAStatus"]),
    (&[(0x2e, None)], "sbc/tests/verify.rs", &["WriteVerify10"]),
    (&[(0xae, None)], "sbc/tests/verify.rs", &["WriteVerify12"]),
    (&[(0x8e, None)], "sbc/tests/verify.rs", &["WriteVerify16"]),
    (&[(0x2f, None)], "sbc/tests/verify.rs", &["Verify10"]),
    (&[(0xaf, None)], "sbc/tests/verify.rs", &["Verify12"]),
    (&[(0x8f, None)], "sbc/tests/verify.rs", &["Verify16"]),
    (&[(0x34, None)], "sbc/tests/cache.rs", &["Prefetch10"]),
    (&[(0x90, None)], "sbc/tests/cache.rs", &["Prefetch16"]),
    (&[(0x35, None), (0x91, None)], "sbc/tests/cache.rs", &[]),
    (&[(0x37, None)], "defects.rs", &["ReadDefectData10"]),
    (&[(0xb7, None)], "defects.rs", &["ReadDefectData12"]),
    (&[(0x3b, None), (0x3c, None)], "buffer.rs", &[]),
    (&[(0x41, None)], "sbc/tests/provisioning.rs", &["WriteSame10"]),
    (&[(0x93, None)], "sbc/tests/provisioning.rs", &["WriteSame16"]),
    (&[(0x42, None)], "sbc/tests/provisioning.rs", &["Unmap"]),
    (&[(0x48, Some(0x01)), (0x48, Some(0x02))], "erase/tests/sanitize.rs", &["Sanitize"]),
    (&[(0x48, Some(0x1f))], "erase/tests/failure.rs", &["Sanitize"]),
    (&[(0x4c, None), (0x4d, None)], "log/tests.rs", &[]),
    (&[(0x5e, Some(0x00))], "reservations/tests", &["PrinReadKeys"]),
    (&[(0x5e, Some(0x02))], "reservations/tests", &["PrinReportCapabilities"]),
    (&[(0x5e, Some(0x01)), (0x5e, Some(0x03))], "reservations/tests", &["PrinServiceactionRange"]),
    (&[(0x5f, Some(0x00)), (0x5f, Some(0x06))], "reservations/tests", &["ProutRegister"]),
    (&[(0x5f, Some(0x01)), (0x5f, Some(0x02))], "reservations/tests", &["ProutReserve"]),
    (&[(0x5f, Some(0x03))], "reservations/tests", &["ProutClear"]),
    (&[(0x5f, Some(0x04)), (0x5f, Some(0x05))], "reservations/tests", &["ProutPreempt"]),
    (&[(0x5f, Some(0x07)), (0x5f, Some(0x08))], "reservations/tests", &[]),
    (&[(0x83, Some(0x00))], "third_party_copy/tests", &["ExtendedCopy"]),
    (&[(0x84, Some(0x00)), (0x84, Some(0x03)), (0x84, Some(0x04))], "third_party_copy/tests", &["ReceiveCopyResults"]),
    (&[(0x83, Some(0x10)), (0x83, Some(0x11)), (0x83, Some(0x1c))], "rod_tokens/tests", &[]),
    (&[(0x84, Some(0x05)), (0x84, Some(0x07))], "rod_tokens/tests", &[]),
    (&[(0x89, None)], "sbc/tests/compare_and_write.rs", &["CompareAndWrite"]),
    (&[(0x8b, None)], "sbc/tests/orwrite.rs", &["OrWrite"]),
    (&[(0x9c, None)], "sbc/tests/write_atomic.rs", &["WriteAtomic16"]),
    (&[(0xa0, None)], "tests/report.rs", &[]),
    (&[(0xa3, Some(0x0c))], "tests/report.rs", &["ReportSupportedOpcodes"]),
    (&[(0xa3, Some(0x0d))], "tests/report.rs", &[]),
    (&[(0xa3, Some(0x05)), (0xa4, Some(0x06))], "identifying.rs", &[]),
    (&[(0xa3, Some(0x0f)), (0xa4, Some(0x0f))], "timestamp.rs", &[]),
    (&[(0xa3, Some(0x0a)), (0xa4, Some(0x0a))], "tests/access.rs", &["MultipathIO"]),
];

/// The cell of a row: its tests here, and those of libiscsi.
fn tests(row: &Row) -> String {
    let of = TESTS.iter().find(|(rows, _, _)| rows.contains(&(row.opcode, row.service_action)));
    let (_, here, suites) = of.unwrap_or_else(|| panic!("{} {:?} has no tests", row.name, row.service_action));
    let suites: String = suites.iter().map(|suite| format!(", libiscsi {suite}")).collect();
    format!("`{here}`{suites}")
}

const HEAD: &str = "\
# Commands

Generated from the table of operation codes (`src/scsi/opcode/table/`); do not edit. After a change there:

```sh
VSTGT_WRITE_DOCS=1 cargo test --lib conformance_table
```

* **CDB usage**: as REPORT SUPPORTED OPERATION CODES returns it; a bit that is 0 here and set in a CDB is refused with INVALID
  FIELD IN CDB and a pointer to it. The 04 of every CONTROL byte is NACA.
* **Data**: which way data goes, if there are any.
* **Unit attention**: whether a pending one ends the command (*reported*) or the command is performed all the same.
* **Needs**: what it needs, or else it ends with NOT READY: *a ready unit*, neither stopped nor without a medium; *a medium*, even if the
  unit is stopped; *an idle medium*, to which neither FORMAT UNIT nor SANITIZE is doing something; *nothing*. Each includes what is
  named after it. After a FORMAT UNIT that failed, what needs a ready unit ends with MEDIUM ERROR, after a SANITIZE that failed all that
  needs an idle medium. FORMAT UNIT and SANITIZE need a ready unit, but are what gets it out of such a failure.
* **Access**: in which states of its target port group it is performed: *active* (optimized or not); in *standby*, too; in all that are
  *settled*, unavailable and offline, too; *always*, even between two states.
* **RESERVE**, **Persistent**: what it is to a reservation of another nexus, at its strictest: it conflicts with RESERVE(6); as
  one that reads it conflicts with the Exclusive Access types of persistent reservations, as one that writes with Write
  Exclusive, too. (PERSISTENT RESERVE OUT, RESERVE and RELEASE are judged by keys and registrations when they are performed.)
* **Tests**: of what the command does: a file or folder below `src/device_server`, and families of libiscsi's tests, which
  `vm-tests/tests/libiscsi.rs` runs in a guest. `vm-tests/tests` holds what else guests do with commands: sg3_utils, random commands compared with
  other disks, clusters.

| code | command | standard | CDB usage | data | unit attention | needs | access | RESERVE | persistent | tests |
|---|---|---|---|---|---|---|---|---|---|---|
";

fn document() -> String {
    let mut text = HEAD.to_owned();
    for row in rows() {
        let code = match row.service_action {
            Some(service_action) => format!("{:02X}h/{service_action:02X}h", row.opcode),
            None => format!("{:02X}h", row.opcode),
        };
        let usage: Vec<_> = row.usage.bytes().iter().map(|byte| format!("{byte:02X}")).collect();
        let data = match row.direction {
            DataDirection::None => "–",
            DataDirection::In => "in",
            DataDirection::Out => "out",
        };
        let attention = match row.attention {
            Attention::Reports => "reported",
            Attention::Exempt => "performed",
        };
        let needs = match row.readiness {
            Readiness::Ready => "a ready unit",
            Readiness::Medium => "a medium",
            Readiness::Unoccupied => "an idle medium",
            Readiness::Occupies => "a ready unit",
            Readiness::Any => "nothing",
        };
        let access = match row.access {
            Access::Active => "active",
            Access::Standby => "standby",
            Access::Settled => "settled",
            Access::Always => "always",
        };
        let reserve = match row.reservation.spc2 {
            Spc2::Allowed => "allowed",
            Spc2::Conflicts => "conflicts",
        };
        let persistent = match row.reservation.persistent {
            Persistent::Allowed => "allowed",
            Persistent::Reads => "reads",
            Persistent::Writes => "writes",
        };
        let (name, clause, usage) = (row.name, row.clause, usage.join(" "));
        let cells = [
            &code,
            name,
            clause,
            &format!("`{usage}`"),
            data,
            attention,
            needs,
            access,
            reserve,
            persistent,
            &tests(row),
        ];
        writeln!(text, "| {} |", cells.join(" | ")).unwrap();
    }
    text
}

#[test]
fn the_document_is_what_the_table_says() {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("docs/commands.md");
    let document = document();
    if std::env::var_os("VSTGT_WRITE_DOCS").is_some() {
        std::fs::write(&path, document).unwrap();
        return;
    }
    let there = std::fs::read_to_string(&path).unwrap_or_default();
    assert!(
        there == document,
        "docs/commands.md is out of date; write it with: VSTGT_WRITE_DOCS=1 cargo test --lib conformance_table"
    );
}

/// What is named as tests is there, and has tests, and knows the operation code.
#[test]
fn every_command_has_its_tests() {
    let below = Path::new(env!("CARGO_MANIFEST_DIR")).join("src/device_server");
    for (codes, place, _) in TESTS {
        let place = below.join(place);
        let files = match place.is_dir() {
            true => std::fs::read_dir(&place).unwrap().map(|entry| entry.unwrap().path()).collect(),
            false => vec![place.clone()],
        };
        let text: String = files.iter().map(|file| std::fs::read_to_string(file).unwrap()).collect();
        assert!(text.contains("#[test]"), "{}", place.display());
        for (code, action) in *codes {
            let is_sent = text.contains(&format!("0x{code:02x}")) || *code == 0 && text.contains("TEST_UNIT_READY");
            assert!(is_sent, "{code:02x} in {}", place.display());
            assert!(
                rows().iter().any(|row| (row.opcode, row.service_action) == (*code, *action)),
                "{code:02x} {action:?}"
            );
        }
    }
}

#[test]
fn every_command_has_a_clause() {
    let mut seen = std::collections::HashMap::new();
    for row in rows() {
        let (standard, clause) = row.clause.split_once(' ').unwrap();
        assert!(["SPC-4", "SBC-3", "SPC-2", "SBC-4"].contains(&standard), "{}: {}", row.name, row.clause);
        assert!(clause.split('.').count() >= 2 && clause.split('.').all(|n| n.parse::<u8>().is_ok()), "{}", row.name);
        // Service actions of one operation code can share a clause.
        let other = seen.insert(row.clause, row.opcode).filter(|opcode| *opcode != row.opcode);
        assert_eq!(other, None, "{}: {}", row.name, row.clause);
    }
}
