//! Copy operations of one I_T_L nexus, by their list identifiers (SPC-4 5.17.4).
//!
//! An operation is here from its beginning on. When it is over, what became of it stays until the nexus begins another one with its
//! identifier, the nexus is lost, the unit is reset, or there are [`MAX_OVER`] younger ones. A token stays only until it was fetched.

use std::sync::atomic::{AtomicBool, AtomicU16, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use crate::scsi::spc::{CopyState, CopyStatus, RodToken};

/// How many operations that are over are remembered for a nexus.
const MAX_OVER: usize = 64;

/// The operations of a nexus at a unit.
#[derive(Debug, Default)]
pub struct CopyOperations(Mutex<Vec<(u32, Arc<CopyOperation>)>>);

/// One of them.
#[derive(Debug)]
pub struct CopyOperation {
    service_action: u8,
    operations: AtomicU16,
    transferred: AtomicU64,
    abort: AtomicBool,
    result: Mutex<Progress>,
}

#[derive(Debug)]
struct Progress {
    state: CopyState,
    token: Option<RodToken>,
}

/// Its list identifier is that of an operation in progress.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct InProgress;

/// An operation that goes on: whoever has this carries it out. One that is dropped was terminated.
#[derive(Debug)]
pub struct CopyRun(Arc<CopyOperation>);

impl CopyOperations {
    /// Begins an operation for a command of this service action. What was known of the one before it with its identifier is forgotten.
    ///
    /// # Errors
    ///
    /// That one is in progress.
    pub fn begin(&self, list: u32, service_action: u8) -> Result<CopyRun, InProgress> {
        let mut operations = self.operations();
        if operations.iter().any(|(of, operation)| *of == list && operation.in_progress()) {
            return Err(InProgress);
        }
        operations.retain(|(of, _)| *of != list);
        let over = operations.iter().filter(|(_, operation)| !operation.in_progress()).count();
        if over >= MAX_OVER
            && let Some(oldest) = operations.iter().position(|(_, operation)| !operation.in_progress())
        {
            operations.remove(oldest);
        }
        let operation = Arc::new(CopyOperation {
            service_action,
            operations: AtomicU16::new(0),
            transferred: AtomicU64::new(0),
            abort: AtomicBool::new(false),
            result: Mutex::new(Progress { state: CopyState::Foreground, token: None }),
        });
        operations.push((list, Arc::clone(&operation)));
        Ok(CopyRun(operation))
    }

    /// The operation of a list identifier.
    pub fn find(&self, list: u32) -> Option<Arc<CopyOperation>> {
        self.operations().iter().find(|(of, _)| *of == list).map(|(_, operation)| Arc::clone(operation))
    }

    /// Forgets those that are over.
    pub fn forget(&self) {
        self.operations().retain(|(_, operation)| operation.in_progress());
    }

    fn operations(&self) -> MutexGuard<'_, Vec<(u32, Arc<CopyOperation>)>> {
        // Every change is one of a whole list, so a panic elsewhere leaves nothing half done.
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl CopyOperation {
    /// What is told of it now.
    pub fn status(&self) -> CopyStatus {
        // The state first: what is over has all its counts.
        let state = self.result().state;
        CopyStatus {
            service_action: self.service_action,
            state,
            operations: self.operations.load(Ordering::Acquire),
            transferred: self.transferred.load(Ordering::Acquire),
        }
    }

    /// Whether it goes on.
    pub fn in_progress(&self) -> bool {
        self.result().state.in_progress()
    }

    /// The token that it made.
    pub fn token(&self) -> Option<RodToken> {
        self.result().token.clone()
    }

    /// The token was fetched, or nobody wants it.
    pub fn discard_token(&self) {
        self.result().token = None;
    }

    /// Asks for its end.
    pub fn abort(&self) {
        self.abort.store(true, Ordering::Release);
    }

    fn result(&self) -> MutexGuard<'_, Progress> {
        // As above.
        self.result.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl CopyRun {
    /// Another transfer is done: so many blocks more are there, without a gap from the first on.
    pub fn progress(&self, blocks: u64) {
        self.0.operations.fetch_add(1, Ordering::AcqRel);
        self.0.transferred.fetch_add(blocks, Ordering::AcqRel);
    }

    /// TRANSFER COUNT.
    pub fn transferred(&self) -> u64 {
        self.0.transferred.load(Ordering::Acquire)
    }

    /// Whether COPY OPERATION ABORT asked for its end.
    pub fn is_aborted(&self) -> bool {
        self.0.abort.load(Ordering::Acquire)
    }

    /// It is over.
    pub fn finish(self, state: CopyState, token: Option<RodToken>) {
        *self.0.result() = Progress { state, token };
    }
}

impl Drop for CopyRun {
    fn drop(&mut self) {
        let mut result = self.0.result();
        if result.state.in_progress() {
            result.state = CopyState::Terminated;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const PT: u8 = 0x10;

    #[test]
    fn from_beginning_to_end() {
        let operations = CopyOperations::default();
        assert!(operations.find(7).is_none());
        let run = operations.begin(7, PT).unwrap();
        assert_eq!(operations.begin(7, PT).unwrap_err(), InProgress);
        run.progress(5);
        run.progress(6);
        let seen = operations.find(7).unwrap();
        let expected = CopyStatus { service_action: PT, state: CopyState::Foreground, operations: 2, transferred: 11 };
        assert_eq!(seen.status(), expected);
        seen.abort();
        assert!(run.is_aborted());
        run.finish(CopyState::Done, None);
        assert_eq!(seen.status().state, CopyState::Done);
        let again = operations.begin(7, 0x11).unwrap();
        assert_eq!(operations.find(7).unwrap().status().transferred, 0);
        drop(again);
        assert_eq!(operations.find(7).unwrap().status().state, CopyState::Terminated);
    }

    #[test]
    fn what_is_over_is_forgotten_some_time() {
        let operations = CopyOperations::default();
        let first = operations.begin(1000, PT).unwrap();
        for list in 0..=MAX_OVER as u32 {
            operations.begin(list, PT).unwrap().finish(CopyState::Done, None);
        }
        assert!(operations.find(0).is_none(), "the oldest that is over");
        assert!(operations.find(1).is_some() && operations.find(MAX_OVER as u32).is_some());
        operations.forget();
        assert!(operations.find(1).is_none());
        assert!(operations.find(1000).is_some(), "it goes on");
        drop(first);
    }
}
