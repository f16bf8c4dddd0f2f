//! Counts of what a unit's commands did.
//!
//! Commands are counted by the reactors that begin them, at every command: so each thread has counters of its own, on cache lines that
//! no other writes, and only who asks for the sums looks at all of them.

use std::cell::Cell;
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};
use std::sync::{Mutex, PoisonError};

use crate::scsi::spc::LogStatistics;

/// Threads that have a line to themselves, and one for all others.
const LINES: usize = 33;

/// What one thread counted.
#[derive(Debug, Default)]
#[repr(align(128))]
struct Line {
    reads: AtomicU64,
    writes: AtomicU64,
    received: AtomicU64,
    transmitted: AtomicU64,
}

/// A unit's counts.
#[derive(Debug)]
pub struct Statistics {
    lines: Box<[Line]>,
    /// What was counted when they were reset.
    base: Mutex<LogStatistics>,
}

impl Default for Statistics {
    fn default() -> Statistics {
        Statistics { lines: (0..LINES).map(|_| Line::default()).collect(), base: Mutex::default() }
    }
}

impl Statistics {
    /// A read command transmits so many blocks.
    pub fn read(&self, blocks: u64) {
        self.count(|line| [(&line.reads, 1), (&line.transmitted, blocks)]);
    }

    /// A write command receives so many blocks.
    pub fn write(&self, blocks: u64) {
        self.count(|line| [(&line.writes, 1), (&line.received, blocks)]);
    }

    fn count<'a>(&'a self, what: impl FnOnce(&'a Line) -> [(&'a AtomicU64, u64); 2]) {
        let (line, alone) = own_line();
        let Some(line) = self.lines.get(line) else { return };
        for (counter, more) in what(line) {
            match alone {
                // Nobody else writes it: no read-modify-write is needed.
                true => counter.store(counter.load(Ordering::Relaxed).wrapping_add(more), Ordering::Relaxed),
                false => drop(counter.fetch_add(more, Ordering::Relaxed)),
            }
        }
    }

    /// What was counted since the unit was made or the counts were reset.
    pub fn get(&self) -> LogStatistics {
        let (all, base) = (self.all(), *self.base());
        let since = |now: u64, then: u64| now.wrapping_sub(then);
        LogStatistics {
            reads: since(all.reads, base.reads),
            writes: since(all.writes, base.writes),
            received: since(all.received, base.received),
            transmitted: since(all.transmitted, base.transmitted),
        }
    }

    /// They count from zero again.
    pub(super) fn reset(&self) {
        *self.base() = self.all();
    }

    fn all(&self) -> LogStatistics {
        let sum = |of: fn(&Line) -> &AtomicU64| {
            self.lines.iter().fold(0u64, |sum, line| sum.wrapping_add(of(line).load(Ordering::Relaxed)))
        };
        LogStatistics {
            reads: sum(|line| &line.reads),
            writes: sum(|line| &line.writes),
            received: sum(|line| &line.received),
            transmitted: sum(|line| &line.transmitted),
        }
    }

    fn base(&self) -> std::sync::MutexGuard<'_, LogStatistics> {
        // Plain numbers, written whole.
        self.base.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Which line the calling thread counts in, in every unit, and whether it does so alone.
fn own_line() -> (usize, bool) {
    static THREADS: AtomicUsize = AtomicUsize::new(0);
    thread_local! {
        static LINE: Cell<usize> = const { Cell::new(usize::MAX) };
    }
    let mut line = LINE.get();
    if line == usize::MAX {
        // Threads that come after the last line all have it. (The count cannot wrap: there is no thread without memory.)
        line = THREADS.fetch_add(1, Ordering::Relaxed).min(LINES - 1);
        LINE.set(line);
    }
    (line, line < LINES - 1)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// However many threads there are.
    #[test]
    fn nothing_is_lost() {
        let statistics = Statistics::default();
        std::thread::scope(|scope| {
            for _ in 0..LINES + 8 {
                scope.spawn(|| {
                    for _ in 0..1000 {
                        statistics.read(3);
                        statistics.write(5);
                    }
                });
            }
        });
        let commands = (LINES as u64 + 8) * 1000;
        let all =
            LogStatistics { reads: commands, writes: commands, transmitted: 3 * commands, received: 5 * commands };
        assert_eq!(statistics.get(), all);
        statistics.reset();
        assert_eq!(statistics.get(), LogStatistics::default());
        statistics.read(7);
        assert_eq!(statistics.get(), LogStatistics { reads: 1, transmitted: 7, ..LogStatistics::default() });
    }
}
