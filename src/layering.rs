//! Holds the `use` edges between rooms to a table.
//!
//! The table is the drawing in the crate documentation, as data. A room may use what stands in its row and nothing else; the
//! table has no cycles, which is checked too.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::path::{Path, PathBuf};

/// Each room and the rooms it may use.
const ALLOWED: &[(&str, &[&str])] = &[
    ("sys", &[]),
    ("scsi", &[]),
    ("mem", &[]),
    ("srp", &["scsi", "mem"]),
    ("tgt", &["scsi", "mem"]),
    ("backing", &["mem", "sys"]),
    ("lu", &["scsi", "backing", "mem", "sys"]),
    ("device_server", &["scsi", "lu", "backing", "mem"]),
    ("target", &["scsi", "tgt", "lu", "device_server", "backing", "mem", "sys"]),
    ("virtio_scsi", &["scsi", "srp", "mem"]),
    ("vhost_user", &["mem", "sys"]),
    ("hba", &["scsi", "srp", "tgt", "target", "backing", "virtio_scsi", "vhost_user", "mem", "sys"]),
    ("state_dir", &["scsi", "lu", "sys"]),
    ("cli", &[]),
    ("config", &["cli", "backing", "lu", "state_dir", "vhost_user", "sys"]),
    ("sandbox", &[]),
    (
        "daemon",
        &[
            "config",
            "sandbox",
            "backing",
            "lu",
            "device_server",
            "srp",
            "target",
            "tgt",
            "hba",
            "state_dir",
            "vhost_user",
            "mem",
            "sys",
        ],
    ),
];

/// Files at the top that are no rooms.
const NOT_ROOMS: &[&str] = &["lib", "main", "layering"];

#[test]
fn rooms_use_only_what_the_table_allows() {
    let source = Path::new(env!("CARGO_MANIFEST_DIR")).join("src");
    let allowed: BTreeMap<_, BTreeSet<_>> = ALLOWED.iter().map(|(r, u)| (*r, u.iter().copied().collect())).collect();
    let mut violations = Vec::new();
    let mut seen = BTreeSet::new();
    for file in rust_files(&source) {
        let room = room_of(&source, &file);
        if NOT_ROOMS.contains(&room.as_str()) {
            continue;
        }
        let Some(row) = allowed.get(room.as_str()) else {
            violations.push(format!("{}: room '{room}' is not in the table", file.display()));
            continue;
        };
        seen.insert(room.clone());
        for (line, used) in edges(&fs::read_to_string(&file).unwrap()) {
            if used != room && allowed.contains_key(used.as_str()) && !row.contains(used.as_str()) {
                violations.push(format!("{}:{line}: {room} uses {used}", file.display()));
            }
        }
    }

    assert!(violations.is_empty(), "\n{}", violations.join("\n"));
    assert_eq!(seen.len(), ALLOWED.len(), "the table names rooms that do not exist: have {seen:?}");
}

#[test]
fn the_table_has_no_cycles() {
    let mut done: BTreeSet<&str> = BTreeSet::new();
    loop {
        let ready: Vec<_> = ALLOWED
            .iter()
            .filter(|(room, uses)| !done.contains(room) && uses.iter().all(|u| done.contains(u)))
            .map(|(room, _)| *room)
            .collect();
        if ready.is_empty() {
            break;
        }
        done.extend(ready);
    }

    assert_eq!(done.len(), ALLOWED.len(), "rooms on a cycle: those not in {done:?}");
}

#[test]
fn edges_are_found_wherever_they_are_written() {
    let text = "use crate::mem::IoBuf;\nuse crate::{scsi, sys::ring};\nfn f(x: crate::tgt::Tag) {}\n// crate::hba in a comment\n";

    let found: Vec<_> = edges(text).into_iter().map(|(_, used)| used).collect();

    assert_eq!(found, ["mem", "scsi", "sys", "tgt"]);
}

fn rust_files(directory: &Path) -> Vec<PathBuf> {
    let mut files = Vec::new();
    for entry in fs::read_dir(directory).unwrap() {
        let path = entry.unwrap().path();
        if path.is_dir() {
            files.extend(rust_files(&path));
        } else if path.extension().is_some_and(|e| e == "rs") {
            files.push(path);
        }
    }
    files
}

fn room_of(source: &Path, file: &Path) -> String {
    let first = file.strip_prefix(source).unwrap().components().next().unwrap();
    first.as_os_str().to_string_lossy().trim_end_matches(".rs").to_owned()
}

/// Line numbers and the rooms named there after `crate::`, comments left out.
fn edges(text: &str) -> Vec<(usize, String)> {
    let mut edges = Vec::new();
    for (number, line) in text.lines().enumerate() {
        let code = line.split("//").next().unwrap_or_default();
        let mut rest = code;
        while let Some(at) = rest.find("crate::") {
            rest = &rest[at + "crate::".len()..];
            let names: Vec<&str> = match rest.strip_prefix('{') {
                Some(group) => group.split('}').next().unwrap_or_default().split(',').map(str::trim).collect(),
                None => vec![rest],
            };
            for name in names {
                let room: String = name.chars().take_while(|c| c.is_ascii_lowercase() || *c == '_').collect();
                if !room.is_empty() {
                    edges.push((number + 1, room));
                }
            }
        }
    }
    edges
}
