//! Counts of what went wrong with a unit's medium.
//!
//! They are shared by all reactors, and only a command that failed touches them.

use std::sync::atomic::{AtomicU64, Ordering};

use crate::scsi::spc::LogErrors;
use crate::scsi::{AdditionalSense, Sense, SenseKey};

/// Uncorrected errors of a unit, since it was made or they were set (SPC-4 7.3).
#[derive(Debug, Default)]
pub struct ErrorCounters {
    write: AtomicU64,
    read: AtomicU64,
    verify: AtomicU64,
}

impl ErrorCounters {
    /// Goes on from these counts.
    pub(super) fn going_on(kept: LogErrors) -> ErrorCounters {
        let counters = ErrorCounters::default();
        counters.set(LogErrors::default(), kept);
        counters
    }

    /// Counts the error that ended a command, if the medium is to blame; whether it is. `verifies`: what the command read it read to verify
    /// it.
    pub(super) fn count(&self, sense: &Sense, verifies: bool) -> bool {
        let counter = match (sense.key, sense.code) {
            (SenseKey::MediumError, AdditionalSense::UNRECOVERED_READ_ERROR) if verifies => &self.verify,
            (SenseKey::MediumError, AdditionalSense::UNRECOVERED_READ_ERROR) => &self.read,
            (SenseKey::MediumError, _) => &self.write,
            _ => return false,
        };
        counter.fetch_add(1, Ordering::Relaxed);
        true
    }

    /// The counts now.
    pub fn get(&self) -> LogErrors {
        let load = |counter: &AtomicU64| counter.load(Ordering::Relaxed);
        LogErrors { write: load(&self.write), read: load(&self.read), verify: load(&self.verify) }
    }

    /// Sets those that are to change from `before`; others go on counting.
    pub(super) fn set(&self, before: LogErrors, after: LogErrors) {
        let set = |counter: &AtomicU64, before: u64, after: u64| {
            if before != after {
                counter.store(after, Ordering::Relaxed);
            }
        };
        set(&self.write, before.write, after.write);
        set(&self.read, before.read, after.read);
        set(&self.verify, before.verify, after.verify);
    }
}
