//! Who changes a unit next.
//!
//! Changes of one unit, whichever shards their commands are on, are made one at a time and in the order in which they came. One
//! that waits has had no effect; it can leave at any time.

use std::collections::VecDeque;
use std::sync::{Mutex, MutexGuard, PoisonError};

use super::task::TaskName;

/// The turns of one unit.
#[derive(Debug, Default)]
pub(super) struct Turns {
    line: Mutex<Line>,
}

#[derive(Debug, Default)]
struct Line {
    /// Whose turn it is.
    now: Option<TaskName>,
    waiting: VecDeque<TaskName>,
}

impl Turns {
    /// Joins the line; true if it is this command's turn.
    pub(super) fn join(&self, task: TaskName) -> bool {
        let mut line = self.line();
        if line.now.is_some() {
            line.waiting.push_back(task);
            return false;
        }
        line.now = Some(task);
        true
    }

    /// Leaves the line. A command whose turn it is stays: it passes the turn on when it hears of it.
    pub(super) fn leave(&self, task: TaskName) {
        self.line().waiting.retain(|waiting| *waiting != task);
    }

    /// The turn of this command is over; whose turn it is now.
    pub(super) fn over(&self, task: TaskName) -> Option<TaskName> {
        let mut line = self.line();
        debug_assert_eq!(line.now, Some(task), "a turn ended that had not begun");
        line.now = line.waiting.pop_front();
        line.now
    }

    fn line(&self) -> MutexGuard<'_, Line> {
        // Every change under this lock is complete in itself, so a panic elsewhere leaves nothing half done.
        self.line.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::tgt::Tag;

    fn task(serial: u64) -> TaskName {
        TaskName { tag: Tag(7), serial }
    }

    #[test]
    fn one_at_a_time_and_in_order() {
        let turns = Turns::default();
        assert!(turns.join(task(1)));
        assert!(!turns.join(task(2)));
        assert!(!turns.join(task(3)));
        assert!(!turns.join(task(4)));
        turns.leave(task(3));
        assert_eq!(turns.over(task(1)), Some(task(2)));
        turns.leave(task(2));
        assert_eq!(turns.over(task(2)), Some(task(4)), "whose turn it is does not lose it by leaving the line");
        assert_eq!(turns.over(task(4)), None);
        assert!(turns.join(task(5)));
    }
}
