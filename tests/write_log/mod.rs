//! A write log below the image: what a process did to its files, in order, and what a loss of power may make of it.
//!
//! * [`WriteLog`] is the log: writes, deallocations, syncs, changes of names, and marks that the test puts between them.
//! * [`fuse`] is a file system that keeps such a log of whatever is done to it: it sees what leaves the process under test, and nothing
//!   that the process only believes.
//! * [`medium`] replays a log up to a cut: what is on the medium for certain, and what may or may not be.
//!
//! # What a sync covers
//!
//! Everything that was written to that file before the sync began. A write that is synced by itself (`RWF_DSYNC`) covers its own bytes
//! and no others: an earlier write next to it may still be lost.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    missing_docs,
    dead_code,
    reason = "test code; not every test program uses everything"
)]

pub mod fuse;
pub mod medium;
pub mod names;

use std::sync::{Arc, Mutex};

/// What was done. Files and directories are numbered by whoever records.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Record {
    /// Bytes of a file. `synced`: they were durable before the write was answered. `atomic`: on the medium whole or not at all.
    Write { file: u64, offset: u64, data: Vec<u8>, synced: bool, atomic: bool },
    /// Bytes of a file that are zeros now, whether or not they take space.
    Clear { file: u64, offset: u64, len: u64 },
    /// All records of this file with a smaller index than `covers` are durable now.
    Sync { file: u64, covers: usize },
    /// A name in a directory.
    Name { directory: u64, change: NameChange },
    /// All changes of names in this directory with a smaller index than `covers` are durable now.
    SyncNames { directory: u64, covers: usize },
    /// The test's own: a place in the log.
    Mark(u64),
}

/// A change of names in one directory.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum NameChange {
    Add {
        name: String,
        file: u64,
    },
    Remove {
        name: String,
    },
    /// Atomic: the new name is never missing, nor are both there.
    Rename {
        from: String,
        to: String,
    },
}

/// A log that several threads add to. Clones share it.
#[derive(Clone, Debug, Default)]
pub struct WriteLog(Arc<Mutex<Vec<Record>>>);

impl WriteLog {
    pub fn new() -> WriteLog {
        WriteLog::default()
    }

    /// Adds a record; its index.
    pub fn push(&self, record: Record) -> usize {
        let mut records = self.0.lock().unwrap();
        records.push(record);
        records.len() - 1
    }

    pub fn mark(&self, number: u64) -> usize {
        self.push(Record::Mark(number))
    }

    pub fn len(&self) -> usize {
        self.0.lock().unwrap().len()
    }

    /// What has been recorded so far.
    pub fn records(&self) -> Vec<Record> {
        self.0.lock().unwrap().clone()
    }

    /// Looks at the records without copying them. Nobody records meanwhile.
    pub fn with<T>(&self, look: impl FnOnce(&[Record]) -> T) -> T {
        look(&self.0.lock().unwrap())
    }
}
