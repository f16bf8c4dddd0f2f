//! What both front-ends did, in one time: which values a block may have, and what may have ended a command.
//!
//! The time is a count. It is taken before something is posted and after its answer was seen, so what the target did lies between.
#![allow(clippy::unwrap_used, clippy::panic, missing_docs, dead_code, reason = "test code")]

use std::collections::HashMap;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Mutex, MutexGuard, PoisonError};

pub type Time = u64;

/// Not yet.
pub const NEVER: Time = u64::MAX;

/// Which unit: 0 and 1 are those of one front-end alone, 2 is everybody's.
pub type UnitNo = usize;

pub const SHARED: UnitNo = 2;

/// What ends other commands or is told to other nexuses.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Cause {
    /// ABORT TASK of this id.
    AbortTask(u64),
    AbortTaskSet,
    ClearTaskSet,
    ClearAca,
    UnitReset,
    NexusReset,
    /// PREEMPT AND ABORT.
    PreemptAndAbort,
}

#[derive(Clone, Copy, Debug)]
pub struct Caused {
    pub cause: Cause,
    pub who: usize,
    pub unit: UnitNo,
    pub posted: Time,
    pub answered: Time,
}

#[derive(Debug)]
struct Write {
    unit: UnitNo,
    lba: u64,
    posted: Time,
    answered: Time,
    /// When a write that began after this one had ended was seen to be GOOD.
    superseded: Time,
}

#[derive(Debug, Default)]
struct Books {
    writes: HashMap<u64, Write>,
    /// Per block, those that are not superseded.
    current: HashMap<(UnitNo, u64), Vec<u64>>,
    causes: Vec<Caused>,
}

#[derive(Debug, Default)]
pub struct Ledger {
    clock: AtomicU64,
    books: Mutex<Books>,
}

impl Ledger {
    /// The time, which is another one each time.
    pub fn now(&self) -> Time {
        self.clock.fetch_add(1, Ordering::SeqCst) + 1
    }

    fn books(&self) -> MutexGuard<'_, Books> {
        self.books.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// A value is about to be written; no two writes have the same.
    pub fn write(&self, stamp: u64, unit: UnitNo, lba: u64, posted: Time) {
        let mut books = self.books();
        let write = Write { unit, lba, posted, answered: NEVER, superseded: NEVER };
        assert!(books.writes.insert(stamp, write).is_none(), "a stamp is used twice");
        books.current.entry((unit, lba)).or_default().push(stamp);
    }

    /// The write was answered, whatever with; if GOOD, what was over before it was posted is gone.
    pub fn written(&self, stamp: u64, good: bool, now: Time) {
        let books = &mut *self.books();
        let write = books.writes.get_mut(&stamp).unwrap();
        write.answered = now;
        let (place, posted) = ((write.unit, write.lba), write.posted);
        if good {
            let writes = &mut books.writes;
            books.current.get_mut(&place).unwrap().retain(|other| {
                let other = writes.get_mut(other).unwrap();
                let over = other.answered < posted;
                if over {
                    other.superseded = now;
                }
                !over
            });
        }
    }

    /// Whether a command that was posted then and is answered now can have found this value.
    pub fn check(&self, stamp: u64, unit: UnitNo, lba: u64, posted: Time) -> Result<(), String> {
        let books = self.books();
        if stamp == 0 {
            // What was there at the beginning.
            let over = books.writes.values().find(|w| (w.unit, w.lba) == (unit, lba) && w.superseded < posted);
            return over.map_or(Ok(()), |w| Err(format!("what was there at the beginning is there after {w:?}")));
        }
        match books.writes.get(&stamp) {
            Some(write) if (write.unit, write.lba) != (unit, lba) => Err(format!("another block's: {write:?}")),
            Some(write) if write.superseded < posted => Err(format!("superseded: {write:?}")),
            Some(_) => Ok(()),
            None => Err("nobody wrote that".to_owned()),
        }
    }

    /// Something is about to be posted that ends commands. Names it for [`over`](Self::over).
    pub fn cause(&self, cause: Cause, who: usize, unit: UnitNo, posted: Time) -> usize {
        let mut books = self.books();
        books.causes.push(Caused { cause, who, unit, posted, answered: NEVER });
        books.causes.len() - 1
    }

    /// It was answered.
    pub fn over(&self, index: usize, now: Time) {
        self.books().causes[index].answered = now;
    }

    /// Whether there is such a cause that was under way while a command was that was posted then and is answered now.
    pub fn is_caused(&self, posted: Time, fits: impl Fn(&Caused) -> bool) -> bool {
        self.books().causes.iter().rev().any(|caused| caused.answered > posted && fits(caused))
    }

    /// How many there have been.
    pub fn count(&self, fits: impl Fn(&Caused) -> bool) -> usize {
        self.books().causes.iter().filter(|caused| fits(caused)).count()
    }
}
