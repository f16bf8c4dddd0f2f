//! What a nexus can still ask of its copies: EXTENDED COPY(LID1) commands by their list identifiers.

use crate::scsi::spc::CopyManagerStatus;
use crate::scsi::{Sense, Status};

/// The most copies that are known at one time; with a list identifier, that many can run.
pub const MAX_COPIES: usize = 16;

/// What became of a copy, or is becoming of it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct CopyProgress {
    /// Whether it is over, and how.
    pub status: CopyManagerStatus,
    /// Segments that were copied to their end.
    pub segments: u16,
    /// Bytes that were copied.
    pub bytes: u64,
}

/// Why a copy cannot be known by its list identifier.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum CopyRefused {
    /// A copy of this list identifier runs.
    InUse,
    /// Too many run.
    TooMany,
}

#[derive(Debug)]
struct Copy {
    list: u8,
    progress: CopyProgress,
    /// With what its command ended, if it failed.
    failure: Option<(Status, Sense)>,
    /// How it ended was told.
    told: bool,
}

/// The copies of one nexus, in the order in which they began. A finished one stays until it was asked for, until another one gets its list
/// identifier, or until its place is needed; a failed one until both its status and its failure details were asked for.
#[derive(Debug, Default)]
pub struct Copies {
    copies: Vec<Copy>,
}

impl Copies {
    /// A copy begins.
    ///
    /// # Errors
    ///
    /// See [`CopyRefused`].
    pub fn begin(&mut self, list: u8) -> Result<(), CopyRefused> {
        let runs = |copy: &Copy| copy.progress.status == CopyManagerStatus::InProgress;
        if self.copies.iter().any(|copy| copy.list == list && runs(copy)) {
            return Err(CopyRefused::InUse);
        }
        self.forget(list);
        if self.copies.len() >= MAX_COPIES {
            let oldest = self.copies.iter().position(|copy| !runs(copy)).ok_or(CopyRefused::TooMany)?;
            self.copies.remove(oldest);
        }
        let progress = CopyProgress { status: CopyManagerStatus::InProgress, segments: 0, bytes: 0 };
        self.copies.push(Copy { list, progress, failure: None, told: false });
        Ok(())
    }

    /// How far it is.
    pub fn progress(&mut self, list: u8, segments: u16, bytes: u64) {
        if let Some(copy) = self.copies.iter_mut().find(|copy| copy.list == list) {
            (copy.progress.segments, copy.progress.bytes) = (segments, bytes);
        }
    }

    /// It is over: without errors, or its command ends with `failure`.
    pub fn end(&mut self, list: u8, failure: Option<(Status, Sense)>) {
        if let Some(copy) = self.copies.iter_mut().find(|copy| copy.list == list) {
            copy.progress.status = match failure {
                None => CopyManagerStatus::Completed,
                Some(_) => CopyManagerStatus::Failed,
            };
            copy.failure = failure;
        }
    }

    /// It is not to be known any longer.
    pub fn forget(&mut self, list: u8) {
        self.copies.retain(|copy| copy.list != list);
    }

    /// What there is to say of it; `None` if there is none. If it is over this is said once.
    pub fn ask(&mut self, list: u8) -> Option<CopyProgress> {
        let copy = self.copies.iter_mut().find(|copy| copy.list == list && !copy.told)?;
        let progress = copy.progress;
        copy.told = progress.status != CopyManagerStatus::InProgress;
        if copy.told && copy.failure.is_none() {
            self.forget(list);
        }
        Some(progress)
    }

    /// How it failed, which is said once; `Some(None)` if it did not, or not yet, and `None` if there is none.
    pub fn ask_failure(&mut self, list: u8) -> Option<Option<(Status, Sense)>> {
        let copy = self.copies.iter_mut().find(|copy| copy.list == list)?;
        let failure = copy.failure.take();
        if copy.told && failure.is_some() {
            self.forget(list);
        }
        Some(failure)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::scsi::AdditionalSense;

    const FAILURE: (Status, Sense) =
        (Status::CheckCondition, Sense::copy_aborted(AdditionalSense::THIRD_PARTY_DEVICE_FAILURE));

    fn progress(status: CopyManagerStatus, segments: u16, bytes: u64) -> Option<CopyProgress> {
        Some(CopyProgress { status, segments, bytes })
    }

    #[test]
    fn a_copy_that_runs_is_asked_often_and_one_that_is_over_once() {
        let mut copies = Copies::default();
        assert_eq!(copies.ask(7), None);
        copies.begin(7).unwrap();
        assert_eq!(copies.begin(7), Err(CopyRefused::InUse));
        copies.progress(7, 1, 512);
        for _ in 0..2 {
            assert_eq!(copies.ask(7), progress(CopyManagerStatus::InProgress, 1, 512));
            assert_eq!(copies.ask_failure(7), Some(None));
        }
        copies.end(7, None);
        assert_eq!(copies.ask_failure(7), Some(None));
        assert_eq!(copies.ask(7), progress(CopyManagerStatus::Completed, 1, 512));
        assert_eq!((copies.ask(7), copies.ask_failure(7)), (None, None));
    }

    #[test]
    fn a_failed_copy_is_asked_for_two_things() {
        for status_first in [true, false] {
            let mut copies = Copies::default();
            copies.begin(1).unwrap();
            copies.end(1, Some(FAILURE));
            let (mut status, mut details) = (None, None);
            if status_first {
                status = copies.ask(1);
                details = copies.ask_failure(1);
            } else {
                details = details.or(copies.ask_failure(1));
                status = status.or(copies.ask(1));
            }
            assert_eq!((status, details), (progress(CopyManagerStatus::Failed, 0, 0), Some(Some(FAILURE))));
            assert_eq!((copies.ask(1), copies.ask_failure(1)), (None, None), "{status_first}");
        }
    }

    #[test]
    fn a_list_identifier_is_used_again_and_the_oldest_goes() {
        let mut copies = Copies::default();
        for list in 0..MAX_COPIES as u8 {
            copies.begin(list).unwrap();
        }
        assert_eq!(copies.begin(100), Err(CopyRefused::TooMany));
        copies.end(3, None);
        copies.end(2, Some(FAILURE));
        copies.begin(3).unwrap();
        copies.begin(100).unwrap();
        assert_eq!(copies.ask(2), None, "its place was needed");
        assert_eq!(copies.ask(3), progress(CopyManagerStatus::InProgress, 0, 0));
    }
}
