//! The results of a unit's last self-tests.

use std::collections::VecDeque;
use std::time::Instant;

use crate::scsi::Sense;

/// How many results are kept (SPC-4 7.3: twenty).
pub const SELF_TESTS_KEPT: usize = 20;

/// How a self-test ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum SelfTestOutcome {
    /// 0h: without an error.
    Passed,
    /// 2h: it was ended before it was done.
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

/// A unit's last results.
#[derive(Clone, Debug)]
pub struct SelfTests {
    made: Instant,
    /// Hours that it was served for by processes before this one.
    before: u32,
    /// Newest first.
    results: VecDeque<SelfTestResult>,
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
        SelfTests { made: Instant::now(), before: hours, results }
    }

    /// Whole hours that the unit has been served for, as far as is known: what a process begins of one is not counted.
    pub fn hours(&self) -> u32 {
        let hours = u32::try_from(self.made.elapsed().as_secs() / 3600).unwrap_or(u32::MAX);
        self.before.saturating_add(hours)
    }

    /// Keeps a result; the oldest may go.
    pub fn add(&mut self, code: u8, outcome: SelfTestOutcome) {
        let hours = u16::try_from(self.hours()).unwrap_or(u16::MAX);
        self.results.truncate(SELF_TESTS_KEPT - 1);
        self.results.push_front(SelfTestResult { code, outcome, hours });
    }

    /// The results, newest first.
    pub fn results(&self) -> impl Iterator<Item = &SelfTestResult> {
        self.results.iter()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn twenty_are_kept_newest_first() {
        let mut tests = SelfTests::default();
        for code in 0..25 {
            tests.add(code, SelfTestOutcome::Passed);
        }
        let codes: Vec<u8> = tests.results().map(|result| result.code).collect();
        assert_eq!(codes, (5..25).rev().collect::<Vec<u8>>());
        let kept: Vec<SelfTestResult> = tests.results().copied().collect();
        let mut tests = SelfTests::going_on(kept, 70_000);
        assert_eq!((tests.results().count(), tests.hours()), (20, 70_000));
        tests.add(30, SelfTestOutcome::Aborted);
        let codes: Vec<u8> = tests.results().map(|result| result.code).collect();
        assert_eq!((codes.len(), codes[0], codes[1], codes[19]), (20, 30, 24, 6));
        assert_eq!(tests.results().next().map(|result| result.hours), Some(u16::MAX));
    }
}
