//! `docs/commands.md`: the table of commands as a document. It is generated here and never written by hand.
//!
//! The test fails when the document is not what the table says; with `VSTGT_WRITE_DOCS=1` in the environment it writes it instead.

use std::fmt::Write;
use std::path::Path;

use super::*;

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

| code | command | standard | CDB usage | data | unit attention | needs | access | RESERVE | persistent |
|---|---|---|---|---|---|---|---|---|---|
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
        let cells = [&code, name, clause, &format!("`{usage}`"), data, attention, needs, access, reserve, persistent];
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
