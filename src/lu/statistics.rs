//! Counts of what a unit's commands did.
//!
//! Commands are counted by the reactors that begin them, at every command: so each thread has counters of its own, on cache lines that
//! no other writes, and only who asks for the sums looks at all of them.

use std::cell::Cell;
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};
use std::sync::{Mutex, MutexGuard, PoisonError};

use crate::scsi::spc::{LogProcessed, LogStatistics};

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
    verified: AtomicU64,
}

/// A unit's counts.
#[derive(Debug)]
pub struct Statistics {
    lines: Box<[Line]>,
    /// What was counted when they were reset.
    base: Mutex<Base>,
}

/// What is taken off the counts. Of the blocks processed, so much that what LOG SELECT set is left; it may be less than nothing.
#[derive(Clone, Copy, Debug, Default)]
struct Base {
    statistics: LogStatistics,
    processed: LogProcessed,
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

    /// A command verifies so many blocks.
    pub fn verify(&self, blocks: u64) {
        self.count(|line| [(&line.verified, blocks)]);
    }

    fn count<'a, const N: usize>(&'a self, what: impl FnOnce(&'a Line) -> [(&'a AtomicU64, u64); N]) {
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
        let (all, base) = (self.all(), self.base().statistics);
        let since = |now: u64, then: u64| now.wrapping_sub(then);
        LogStatistics {
            reads: since(all.reads, base.reads),
            writes: since(all.writes, base.writes),
            received: since(all.received, base.received),
            transmitted: since(all.transmitted, base.transmitted),
        }
    }

    /// Blocks that were read, written and verified since the unit was made or this was set.
    pub fn processed(&self) -> LogProcessed {
        let (all, base) = (self.all_processed(), self.base().processed);
        LogProcessed {
            write: all.write.wrapping_sub(base.write),
            read: all.read.wrapping_sub(base.read),
            verify: all.verify.wrapping_sub(base.verify),
        }
    }

    /// They count from zero again.
    pub(super) fn reset(&self) {
        self.base().statistics = self.all();
    }

    /// Blocks processed are counted from here on. Those that stay as they were `before` go on.
    pub(super) fn set_processed(&self, before: LogProcessed, after: LogProcessed) {
        let all = self.all_processed();
        let base = &mut self.base().processed;
        let set = |base: &mut u64, all: u64, before: u64, after: u64| {
            if before != after {
                *base = all.wrapping_sub(after);
            }
        };
        set(&mut base.write, all.write, before.write, after.write);
        set(&mut base.read, all.read, before.read, after.read);
        set(&mut base.verify, all.verify, before.verify, after.verify);
    }

    fn all_processed(&self) -> LogProcessed {
        let LogStatistics { received, transmitted, .. } = self.all();
        LogProcessed { write: received, read: transmitted, verify: self.sum(|line| &line.verified) }
    }

    fn sum(&self, of: fn(&Line) -> &AtomicU64) -> u64 {
        self.lines.iter().fold(0, |sum, line| sum.wrapping_add(of(line).load(Ordering::Relaxed)))
    }

    fn all(&self) -> LogStatistics {
        LogStatistics {
            reads: self.sum(|line| &line.reads),
            writes: self.sum(|line| &line.writes),
            received: self.sum(|line| &line.received),
            transmitted: self.sum(|line| &line.transmitted),
        }
    }

    fn base(&self) -> MutexGuard<'_, Base> {
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
        statistics.verify(9);
        let processed = LogProcessed { write: 5 * commands, read: 3 * commands + 7, verify: 9 };
        assert_eq!(statistics.processed(), processed, "by itself");
        statistics.set_processed(processed, LogProcessed { read: u64::MAX, verify: 0, ..processed });
        statistics.read(2);
        statistics.verify(1);
        assert_eq!(statistics.processed(), LogProcessed { read: 1, verify: 1, ..processed });
    }
}
