//! The syncs of one open file, of which none may hide another's failure.
//!
//! The kernel tells of data that it could not write back *once* for each open file: of two syncs that are in it at the same moment one hears of
//! the failure and the other succeeds, though what it vouches for may be what was lost. So a sync that succeeded is believed only when every
//! other one that was under way with it has ended, and none of them has failed; and after a failure none is believed any more, for
//! the next one would succeed without the lost data.

use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Condvar, Mutex, MutexGuard, PoisonError};

use super::BackingError;

/// A sync failed, now or before: data that were to be durable may be lost.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Unsynced;

impl From<Unsynced> for BackingError {
    fn from(_: Unsynced) -> BackingError {
        BackingError::FlushFailed
    }
}

/// For writes that were to be durable: none of it is.
impl From<Unsynced> for (BackingError, u64) {
    fn from(_: Unsynced) -> (BackingError, u64) {
        (BackingError::WriteFailed, 0)
    }
}

/// The syncs of a file.
#[derive(Debug, Default)]
pub(super) struct Syncs {
    under_way: Mutex<UnderWay>,
    ended: Condvar,
    failed: AtomicBool,
}

#[derive(Debug, Default)]
struct UnderWay {
    next: u64,
    /// In no order.
    numbers: Vec<u64>,
}

impl Syncs {
    /// Whether one has failed.
    pub(super) fn have_failed(&self) -> bool {
        self.failed.load(Ordering::Acquire)
    }

    /// Remembers that one has failed; true if it is the first. To be called before the `sync` that failed returns.
    pub(super) fn fail(&self) -> bool {
        !self.failed.swap(true, Ordering::AcqRel)
    }

    /// Does `sync`. Its success is told when all that ran beside it are over. Waits for them: not to be called while something is held that one of them
    /// wants.
    ///
    /// # Errors
    ///
    /// `sync`'s own, or [`Unsynced`] if it succeeded and another one, beside it or before, has failed.
    pub(super) fn run<E: From<Unsynced>>(&self, sync: impl FnOnce() -> Result<(), E>) -> Result<(), E> {
        let number = {
            let mut under_way = self.lock();
            let number = under_way.next;
            under_way.next += 1;
            under_way.numbers.push(number);
            number
        };
        let result = sync();
        let mut under_way = self.lock();
        under_way.numbers.retain(|other| *other != number);
        self.ended.notify_all();
        result?;
        let later = under_way.next;
        let beside = |under_way: &mut UnderWay| under_way.numbers.iter().any(|other| *other < later);
        drop(self.ended.wait_while(under_way, beside).unwrap_or_else(PoisonError::into_inner));
        if self.have_failed() { Err(Unsynced.into()) } else { Ok(()) }
    }

    /// No code that may panic runs under this lock.
    fn lock(&self) -> MutexGuard<'_, UnderWay> {
        self.under_way.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests {
    use std::sync::mpsc;
    use std::time::Duration;

    use super::*;

    const SOON: Duration = Duration::from_secs(10);
    const A_MOMENT: Duration = Duration::from_millis(50);

    #[test]
    fn a_failure_is_final() {
        let syncs = Syncs::default();
        assert_eq!(syncs.run(|| Ok::<(), Unsynced>(())), Ok(()));
        let failing = || {
            assert!(syncs.fail());
            Err(Unsynced)
        };
        assert_eq!(syncs.run(failing), Err(Unsynced));
        assert!(syncs.have_failed() && !syncs.fail());
        assert_eq!(syncs.run(|| Ok(())), Err(Unsynced));
    }

    /// One succeeds while another is under way: what it says depends on the other.
    #[test]
    fn success_waits_for_what_ran_beside_it() {
        for other_fails in [false, true] {
            let syncs = Syncs::default();
            let (begun, has_begun) = mpsc::channel();
            let (end, may_end) = mpsc::channel::<()>();
            let (told, is_told) = mpsc::channel();
            let syncs = &syncs;
            std::thread::scope(|scope| {
                let slow = scope.spawn(move || {
                    syncs.run(|| {
                        begun.send(()).unwrap();
                        may_end.recv().unwrap_err();
                        if other_fails {
                            syncs.fail();
                            return Err(Unsynced);
                        }
                        Ok(())
                    })
                });
                has_begun.recv_timeout(SOON).unwrap();
                scope.spawn(move || told.send(syncs.run(|| Ok(()))).unwrap());
                is_told.recv_timeout(A_MOMENT).unwrap_err();
                drop(end);
                let expected = if other_fails { Err(Unsynced) } else { Ok(()) };
                assert_eq!(is_told.recv_timeout(SOON).unwrap(), expected);
                assert_eq!(slow.join().unwrap(), expected);
            });
        }
    }

    /// Those that come later do not keep it waiting for ever.
    #[test]
    fn success_does_not_wait_for_what_began_after_it() {
        let syncs = &Syncs::default();
        let (end, may_end) = mpsc::channel::<()>();
        let (told, is_told) = mpsc::channel();
        std::thread::scope(|scope| {
            let (begun, has_begun) = mpsc::channel();
            let (end_first, may_end_first) = mpsc::channel::<()>();
            scope.spawn(move || {
                syncs.run(|| {
                    begun.send(()).unwrap();
                    may_end_first.recv().unwrap_err();
                    Ok::<(), Unsynced>(())
                })
            });
            has_begun.recv_timeout(SOON).unwrap();
            scope.spawn(move || told.send(syncs.run(|| Ok::<(), Unsynced>(()))).unwrap());
            is_told.recv_timeout(A_MOMENT).unwrap_err();
            let (begun, has_begun) = mpsc::channel();
            scope.spawn(move || {
                syncs.run(|| {
                    begun.send(()).unwrap();
                    may_end.recv().unwrap_err();
                    Ok::<(), Unsynced>(())
                })
            });
            has_begun.recv_timeout(SOON).unwrap();
            drop(end_first);
            assert_eq!(is_told.recv_timeout(SOON).unwrap(), Ok(()));
            drop(end);
        });
    }
}
