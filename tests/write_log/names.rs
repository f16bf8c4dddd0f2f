//! The files of a directory after a cut: names, and bytes.
//!
//! Changes of names reach the medium in order, and may reach it before the bytes of the files they name: a file that was not synced
//! before it was renamed may be empty. Bytes may be lost as [`medium`](super::medium) says, but in pieces of any length.

use std::collections::BTreeMap;

use super::medium::mix;
use super::{NameChange, Record};

/// How much is lost.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Lost {
    /// So many of the last changes of names.
    pub names: usize,
    /// Which bytes; 0: all that may be, 1: none.
    pub seed: u64,
}

/// A piece of a file that is there or not.
const PIECE: usize = 64;

/// The changes of names that may be lost, by index.
pub fn volatile_names(records: &[Record], directory: u64) -> Vec<usize> {
    let mut volatile = Vec::new();
    for (index, record) in records.iter().enumerate() {
        match record {
            Record::Name { directory: of, .. } if *of == directory => volatile.push(index),
            Record::SyncNames { directory: of, covers } if *of == directory => volatile.retain(|i| i >= covers),
            _ => {}
        }
    }
    volatile
}

/// The files in a directory if `records` is all that happened, and so much of it is lost.
pub fn files_after(records: &[Record], directory: u64, lost: Lost) -> BTreeMap<String, Vec<u8>> {
    let names = names_after(records, directory, lost.names);
    names.into_iter().map(|(name, file)| (name, bytes_after(records, file, lost.seed))).collect()
}

/// What lies in a directory, with its number, if so many of the last changes of names are lost, or all that can be.
pub fn names_after(records: &[Record], directory: u64, lost: usize) -> BTreeMap<String, u64> {
    let volatile = volatile_names(records, directory);
    let gone = &volatile[volatile.len().saturating_sub(lost)..];
    let mut names: BTreeMap<&str, u64> = BTreeMap::new();
    for (index, record) in records.iter().enumerate() {
        let Record::Name { directory: of, change } = record else { continue };
        if *of != directory || gone.contains(&index) {
            continue;
        }
        match change {
            NameChange::Add { name, file } => drop(names.insert(name, *file)),
            NameChange::Remove { name } => drop(names.remove(name.as_str())),
            NameChange::Rename { from, to } => {
                // Without its old name the file was never there.
                let file = names.remove(from.as_str());
                file.and_then(|file| names.insert(to, file));
            }
        }
    }
    names.into_iter().map(|(name, file)| (name.to_owned(), file)).collect()
}

fn bytes_after(records: &[Record], file: u64, seed: u64) -> Vec<u8> {
    let synced = records.iter().rev().find_map(|record| match record {
        Record::Sync { file: of, covers } if *of == file => Some(*covers),
        _ => None,
    });
    let mut bytes = Vec::new();
    for (index, record) in records.iter().enumerate() {
        let Record::Write { file: of, offset, data, synced: by_itself, .. } = record else { continue };
        if *of != file {
            continue;
        }
        let durable = *by_itself || synced.is_some_and(|covers| index < covers);
        for (n, piece) in data.chunks(PIECE).enumerate() {
            let at = *offset as usize + n * PIECE;
            let there = durable || seed == 1 || seed > 1 && mix(seed, (index * 1000 + n) as u64) & 1 == 0;
            if there {
                bytes.resize(bytes.len().max(at + piece.len()), 0);
                bytes[at..at + piece.len()].copy_from_slice(piece);
            }
        }
    }
    bytes
}

#[cfg(test)]
mod tests {
    use super::*;

    fn add(name: &str, file: u64) -> Record {
        Record::Name { directory: 1, change: NameChange::Add { name: name.to_owned(), file } }
    }

    fn rename(from: &str, to: &str) -> Record {
        Record::Name { directory: 1, change: NameChange::Rename { from: from.to_owned(), to: to.to_owned() } }
    }

    fn write(file: u64, data: &[u8]) -> Record {
        Record::Write { file, offset: 0, data: data.to_vec(), synced: false, atomic: false }
    }

    fn seen(files: &BTreeMap<String, Vec<u8>>) -> Vec<(&str, &[u8])> {
        files.iter().map(|(name, bytes)| (name.as_str(), bytes.as_slice())).collect()
    }

    #[test]
    fn a_renamed_file_that_was_not_synced_may_be_empty() {
        let records = [
            add("state", 2),
            write(2, b"old"),
            Record::Sync { file: 2, covers: 2 },
            add("new", 3),
            write(3, b"new"),
            rename("new", "state"),
        ];
        let all = files_after(&records, 1, Lost { names: 0, seed: 0 });
        assert_eq!(seen(&all), [("state", &b""[..])]);
        let kept = files_after(&records, 1, Lost { names: 0, seed: 1 });
        assert_eq!(seen(&kept), [("state", &b"new"[..])]);
        let before = files_after(&records, 1, Lost { names: 1, seed: 0 });
        assert_eq!(seen(&before), [("new", &b""[..]), ("state", &b"old"[..])]);
        assert_eq!(volatile_names(&records, 1), [0, 3, 5]);
        assert!(files_after(&records, 1, Lost { names: 3, seed: 1 }).is_empty());
    }

    #[test]
    fn synced_names_stay() {
        let records = [
            add("state", 2),
            Record::SyncNames { directory: 1, covers: 1 },
            add("other", 3),
            Record::SyncNames { directory: 9, covers: 3 },
        ];
        assert_eq!(volatile_names(&records, 1), [2]);
    }
}
