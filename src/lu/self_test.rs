//! A unit's self-tests: the results of the last ones, and the one that runs in the background, if one does.

use std::collections::VecDeque;
use std::time::Instant;

use crate::scsi::Sense;

/// How many results are kept (SPC-4 7.3: twenty).
pub const SELF_TESTS_KEPT: usize = 20;

/// How a self-test ended, or that it did not.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum SelfTestOutcome {
    /// 0h: without an error.
    Passed,
    /// 1h: SEND DIAGNOSTIC ended it before it was done.
    AbortedByCommand,
    /// 2h: something else did: task management, a reset, a command that takes the medium away.
    Aborted,
    /// 5h, 6h: its first or second segment failed.
    Failed {
        /// 1 or 2.
        segment: u8,
        /// First block of the step that failed.
        lba: u64,
        /// What failed.
        sense: Sense,
    },
    /// Fh: it runs.
    Running,
}

/// One result.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct SelfTestResult {
    /// SELF-TEST CODE of the SEND DIAGNOSTIC that asked for it.
    pub code: u8,
    /// How it ended.
    pub outcome: SelfTestOutcome,
    /// Hours that the unit had been served for.
    pub hours: u16,
}

/// Names a test that runs in the background; never used again.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct SelfTestId(u64);

/// A test that runs in the background.
#[derive(Clone, Copy, Debug)]
struct Running {
    id: SelfTestId,
    code: u8,
    /// In 65536ths.
    progress: u16,
}

/// A unit's self-tests.
#[derive(Clone, Debug)]
pub struct SelfTests {
    made: Instant,
    /// Hours that it was served for by processes before this one.
    before: u32,
    /// Newest first.
    results: VecDeque<SelfTestResult>,
    running: Option<Running>,
    begun: u64,
}

impl Default for SelfTests {
    fn default() -> SelfTests {
        SelfTests::going_on(Vec::new(), 0)
    }
}

impl SelfTests {
    /// Those of a unit that has been served for so many hours before; the newest first.
    pub(super) fn going_on(results: Vec<SelfTestResult>, hours: u32) -> SelfTests {
        let mut results = VecDeque::from(results);
        results.truncate(SELF_TESTS_KEPT);
        SelfTests { made: Instant::now(), before: hours, results, running: None, begun: 0 }
    }

    /// Whole hours that the unit has been served for, as far as is known: what a process begins of one is not counted.
    pub fn hours(&self) -> u32 {
        let hours = u32::try_from(self.made.elapsed().as_secs() / 3600).unwrap_or(u32::MAX);
        self.before.saturating_add(hours)
    }

    /// Keeps a result; the oldest may go.
    pub fn add(&mut self, code: u8, outcome: SelfTestOutcome) {
        let result = self.result(code, outcome);
        self.results.truncate(SELF_TESTS_KEPT - 1);
        self.results.push_front(result);
    }

    fn result(&self, code: u8, outcome: SelfTestOutcome) -> SelfTestResult {
        let hours = u16::try_from(self.hours()).unwrap_or(u16::MAX);
        SelfTestResult { code, outcome, hours }
    }

    /// The results, newest first; in front of them the test that runs.
    pub fn results(&self) -> impl Iterator<Item = SelfTestResult> {
        let running = self.running.map(|running| self.result(running.code, SelfTestOutcome::Running));
        running.into_iter().chain(self.results.iter().copied()).take(SELF_TESTS_KEPT)
    }

    /// A test begins in the background; `None` if there is one.
    pub fn begin(&mut self, code: u8) -> Option<SelfTestId> {
        if self.running.is_some() {
            return None;
        }
        self.begun += 1;
        let id = SelfTestId(self.begun);
        self.running = Some(Running { id, code, progress: 0 });
        Some(id)
    }

    /// How far the test in the background is, in 65536ths; `None`: there is none.
    pub fn progress(&self) -> Option<u16> {
        self.running.map(|running| running.progress)
    }

    /// So much of a test is done, in bytes; false if it is to end.
    pub fn advance(&mut self, id: SelfTestId, done: u64, total: u64) -> bool {
        let Some(running) = self.running.as_mut().filter(|running| running.id == id) else { return false };
        let share = u128::from(done) * 65536 / u128::from(total.max(1));
        running.progress = u16::try_from(share).unwrap_or(u16::MAX);
        true
    }

    /// A test ended. One that was aborted has its result already.
    pub fn end(&mut self, id: SelfTestId, outcome: SelfTestOutcome) {
        if self.running.is_some_and(|running| running.id == id) {
            self.abort(outcome);
        }
    }

    /// A test could not begin, and leaves no result.
    pub fn forget(&mut self, id: SelfTestId) {
        self.running = self.running.filter(|running| running.id != id);
    }

    /// Ends the test in the background, with this outcome; false if there is none.
    pub fn abort(&mut self, outcome: SelfTestOutcome) -> bool {
        let Some(running) = self.running.take() else { return false };
        self.add(running.code, outcome);
        true
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn codes(tests: &SelfTests) -> Vec<u8> {
        tests.results().map(|result| result.code).collect()
    }

    #[test]
    fn twenty_are_kept_newest_first() {
        let mut tests = SelfTests::default();
        for code in 0..25 {
            tests.add(code, SelfTestOutcome::Passed);
        }
        assert_eq!(codes(&tests), (5..25).rev().collect::<Vec<u8>>());
        tests.begin(99).unwrap();
        let with_it: Vec<u8> = [99].into_iter().chain((6..25).rev()).collect();
        assert_eq!(codes(&tests), with_it, "the one that runs is among them");
        tests.abort(SelfTestOutcome::Aborted);
        assert_eq!(codes(&tests), with_it);
    }

    #[test]
    fn what_is_kept_goes_on() {
        let mut tests = SelfTests::default();
        (0..25).for_each(|code| tests.add(code, SelfTestOutcome::Passed));
        let mut tests = SelfTests::going_on(tests.results().collect(), 70_000);
        assert_eq!((tests.results().count(), tests.hours()), (20, 70_000));
        tests.add(30, SelfTestOutcome::Aborted);
        let found = codes(&tests);
        assert_eq!((found.len(), found[0], found[1], found[19]), (20, 30, 24, 6));
        assert_eq!(tests.results().next().map(|result| result.hours), Some(u16::MAX));
    }

    #[test]
    fn there_is_one_in_the_background() {
        let mut tests = SelfTests::default();
        assert_eq!((tests.progress(), tests.abort(SelfTestOutcome::Aborted)), (None, false));
        let first = tests.begin(1).unwrap();
        assert_eq!(tests.begin(2), None);
        assert!(tests.advance(first, 3, 4));
        assert_eq!(tests.progress(), Some(0xc000));
        assert!(tests.advance(first, u64::MAX, u64::MAX));
        assert_eq!(tests.progress(), Some(0xffff), "it is not through before it ends");
        assert!(tests.abort(SelfTestOutcome::AbortedByCommand));
        let second = tests.begin(2).unwrap();
        assert!(!tests.advance(first, 0, 1), "it was ended");
        tests.end(first, SelfTestOutcome::Passed);
        assert_eq!(tests.progress(), Some(0), "that was the other one");
        tests.end(second, SelfTestOutcome::Passed);
        let outcomes: Vec<_> = tests.results().map(|result| (result.code, result.outcome)).collect();
        assert_eq!(outcomes, [(2, SelfTestOutcome::Passed), (1, SelfTestOutcome::AbortedByCommand)]);
    }
}
