//! What is done to the whole medium: FORMAT UNIT and SANITIZE (SBC-3 4.11, 5.3, 5.24), and what is left of one that failed.
//!
//! # Contract
//!
//! * There is at most one [`Occupation`]. While it [runs](Stage::Running), and after a SANITIZE that failed, every nexus's gate has
//!   [`GateBits::OCCUPIED`]; after a format that failed it has [`GateBits::FORMAT_CORRUPT`]. What stops there is told
//!   [`Lu::occupied_sense`]. Nexuses that come later find the same.
//! * It begins in the steps of a change: [`Lu::evaluate_occupation`] → [`Lu::persist`] → [`Lu::apply_occupation`]; or
//!   [`Lu::abandon_occupation`]. Nothing but its end ends it: no reset, no loss of a nexus.
//! * It ends in [`Lu::end_occupation`], which opens the gates only after the end was written down: else a process that is killed would be
//!   followed by one that goes on erasing what was written since.
//! * Who erases, and how, is not known here.

use std::sync::atomic::{AtomicU16, Ordering};

use super::unit::{Cold, live};
use super::{GateBits, Itl, KeepError, Lu, SelfTestOutcome, Touches};
use crate::scsi::{AdditionalSense, FieldPointer, Sense, SenseKey};

/// What is, or was, done to the whole medium.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Occupation {
    /// What.
    pub erasure: Erasure,
    /// How far it came.
    pub stage: Stage,
}

/// What is to be done.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Erasure {
    /// By which command.
    pub purpose: Purpose,
    /// What becomes of the blocks.
    pub method: Method,
}

/// The command on whose behalf the medium is erased.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Purpose {
    /// FORMAT UNIT.
    Format,
    /// SANITIZE.
    Sanitize {
        /// AUSE: if it fails, EXIT FAILURE MODE may end that (unrestricted completion mode).
        ause: bool,
    },
}

/// What becomes of the blocks.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Method {
    /// They are deallocated where the unit is thin, zeroed where it is not.
    Zero,
    /// They are written.
    Pattern(Pattern),
}

/// What is written, and how often.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Pattern {
    /// Repeated to fill each block, beginning with its first byte; 1 to 4096 bytes.
    pub bytes: Vec<u8>,
    /// How often all blocks are written: 1–31.
    pub passes: u8,
    /// Every other pass writes the inverse, so that the last one does not (SBC-3 5.24.2.2).
    pub invert: bool,
}

/// How far it came.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Stage {
    /// It runs, or is to be gone on with.
    Running {
        /// Bytes that are done, of all passes together, and durable.
        done: u64,
        /// Bytes of one pass, as `done` counts; 0 before any is done.
        len: u64,
    },
    /// It could not be done.
    Failed,
    /// A loss of power ended it (formats only: a sanitize operation goes on).
    Interrupted,
}

impl Erasure {
    /// How often it goes over the medium.
    pub fn passes(&self) -> u8 {
        match &self.method {
            Method::Zero => 1,
            Method::Pattern(pattern) => pattern.passes.max(1),
        }
    }
}

impl Occupation {
    fn begun(erasure: Erasure) -> Occupation {
        Occupation { erasure, stage: Stage::Running { done: 0, len: 0 } }
    }

    /// The gate bits that it sets.
    fn bits(&self) -> GateBits {
        match (self.erasure.purpose, self.stage) {
            (_, Stage::Running { .. }) | (Purpose::Sanitize { .. }, _) => GateBits::OCCUPIED,
            (Purpose::Format, Stage::Failed | Stage::Interrupted) => GateBits::FORMAT_CORRUPT,
        }
    }

    /// Sense data of whom it stops.
    fn sense(&self, progress: u16) -> Sense {
        let failed = |code| Sense::new(SenseKey::MediumError, code);
        match (self.erasure.purpose, self.stage) {
            (Purpose::Sanitize { .. }, Stage::Running { .. }) => {
                Sense::not_ready(AdditionalSense::SANITIZE_IN_PROGRESS).with_progress(progress)
            }
            (Purpose::Format, Stage::Running { .. }) => {
                Sense::not_ready(AdditionalSense::FORMAT_IN_PROGRESS).with_progress(progress)
            }
            (Purpose::Sanitize { .. }, _) => failed(AdditionalSense::SANITIZE_COMMAND_FAILED),
            (Purpose::Format, Stage::Failed) => failed(AdditionalSense::FORMAT_COMMAND_FAILED),
            (Purpose::Format, Stage::Interrupted) => failed(AdditionalSense::MEDIUM_FORMAT_CORRUPTED),
        }
    }

    /// What a loss of power leaves of it: SANITIZE goes on (SBC-3 4.11.2), a format does not.
    pub(super) fn after_power_loss(self) -> Occupation {
        match (self.erasure.purpose, self.stage) {
            (Purpose::Format, Stage::Running { .. }) => Occupation { stage: Stage::Interrupted, ..self },
            _ => self,
        }
    }
}

/// A unit's occupation, and how that is changing.
#[derive(Debug, Default)]
pub(super) struct Occupations {
    now: Option<Occupation>,
    /// What a change on its way makes of it.
    coming: Option<Option<Occupation>>,
}

impl Occupations {
    /// What was kept.
    pub(super) fn new(kept: Option<Occupation>) -> Occupations {
        Occupations { now: kept, coming: None }
    }

    /// What is to be kept: a change on its way counts as made.
    pub(super) fn kept(&self) -> Option<Occupation> {
        self.coming.clone().unwrap_or_else(|| self.now.clone())
    }

    /// Shows it to a nexus that comes.
    pub(super) fn attach(&self, itl: &Itl) {
        if let Some(now) = &self.now {
            itl.gate().raise(now.bits());
        }
    }
}

/// How much is done, for everybody who asks: in 65536ths.
#[derive(Debug, Default)]
pub(super) struct Progress(AtomicU16);

impl Progress {
    fn set(&self, done: u64, total: u64) {
        let share = u128::from(done) * 65536 / u128::from(total.max(1));
        self.0.store(u16::try_from(share).unwrap_or(u16::MAX), Ordering::Relaxed);
    }

    fn get(&self) -> u16 {
        self.0.load(Ordering::Relaxed)
    }
}

impl Lu {
    /// What is, or was, done to the whole medium.
    pub fn occupation(&self) -> Option<Occupation> {
        self.cold().occupations.now.clone()
    }

    /// Whether something is being done to the whole medium.
    pub fn is_occupied(&self) -> bool {
        matches!(self.cold().occupations.now, Some(Occupation { stage: Stage::Running { .. }, .. }))
    }

    /// Sense data of who asks for the medium while something is done to the whole of it, or after that failed.
    pub fn occupied_sense(&self) -> Sense {
        let progress = self.progress.get();
        match &self.cold().occupations.now {
            Some(now) => now.sense(progress),
            // It ended since the gate was asked.
            None => Sense::not_ready(AdditionalSense::BECOMING_READY),
        }
    }

    /// Judges a command that would erase the medium, and expects it: until [`Lu::apply_occupation`] or [`Lu::abandon_occupation`] a
    /// [`snapshot`](Lu::snapshot) shows it as begun.
    ///
    /// # Errors
    ///
    /// Sense data: something is being done to the medium; or a SANITIZE failed that only another one may follow, in the same mode.
    pub fn evaluate_occupation(&self, erasure: Erasure) -> Result<(), Sense> {
        let progress = self.progress.get();
        let cold = &mut *self.cold();
        let occupations = &mut cold.occupations;
        if let Some(now) = &occupations.now {
            match (now.stage, now.erasure.purpose, erasure.purpose) {
                (Stage::Running { .. }, ..) => return Err(now.sense(progress)),
                (_, Purpose::Sanitize { .. }, Purpose::Format) => return Err(now.sense(progress)),
                // SBC-3 4.11.1: a failure in restricted mode is left in restricted mode.
                (_, Purpose::Sanitize { ause: false }, Purpose::Sanitize { ause: true }) => {
                    return Err(Sense::invalid_field_in_cdb(FieldPointer::cdb(1, 5)));
                }
                _ => {}
            }
        }
        occupations.coming = Some(Some(Occupation::begun(erasure)));
        cold.changes.evaluated();
        Ok(())
    }

    /// Judges EXIT FAILURE MODE (SBC-3 5.24.2.5), likewise; true if there is something to exit from.
    ///
    /// # Errors
    ///
    /// Sense data: something is being done to the medium, or what failed was in restricted mode.
    pub fn evaluate_exit(&self) -> Result<bool, Sense> {
        let progress = self.progress.get();
        let cold = &mut *self.cold();
        let occupations = &mut cold.occupations;
        match &occupations.now {
            Some(now) if matches!(now.stage, Stage::Running { .. }) => Err(now.sense(progress)),
            Some(Occupation { erasure: Erasure { purpose: Purpose::Sanitize { ause: false }, .. }, .. }) => {
                Err(Sense::invalid_field_in_cdb(FieldPointer::cdb(1, 4)))
            }
            Some(Occupation { erasure: Erasure { purpose: Purpose::Sanitize { ause: true }, .. }, .. }) => {
                occupations.coming = Some(None);
                cold.changes.evaluated();
                Ok(true)
            }
            _ => Ok(false),
        }
    }

    /// What was evaluated is not done.
    pub fn abandon_occupation(&self) {
        let mut cold = self.cold();
        cold.occupations.coming = None;
        cold.changes.abandoned();
        drop(cold);
        // It may have been written meanwhile as if it were.
        self.note();
    }

    /// What was evaluated is done: from here on all gates say so.
    pub fn apply_occupation(&self) {
        let mut cold = self.cold();
        if let Some(coming) = cold.occupations.coming.take() {
            self.progress.set(0, 1);
            cold.records.self_tests.abort(SelfTestOutcome::Aborted);
            if coming.is_some() {
                self.disturb_under_lock(&mut cold, Touches::Everything);
            }
            self.occupy(&mut cold, coming);
        }
    }

    fn occupy(&self, cold: &mut Cold, now: Option<Occupation>) {
        let bits = now.as_ref().map_or(GateBits::NONE, Occupation::bits);
        cold.occupations.now = now;
        for itl in live(cold) {
            // What is set first hides what is cleared next.
            itl.gate().raise(bits);
            itl.gate().lower(GateBits::OCCUPIED.and(GateBits::FORMAT_CORRUPT).without(bits));
        }
    }

    /// What was to run cannot: it failed. It is kept soon, and not waited for: a process that goes on from what was written before tries
    /// again, on a medium that nobody could use since.
    pub fn fail_occupation(&self) {
        let mut cold = self.cold();
        if let Some(now) = cold.occupations.now.take() {
            self.occupy(&mut cold, Some(Occupation { stage: Stage::Failed, ..now }));
        }
        drop(cold);
        self.note();
    }

    /// So much is done.
    pub fn set_progress(&self, done: u64, total: u64) {
        self.progress.set(done, total);
    }

    /// So much is done, and durable: the next process need not do it again.
    pub fn checkpoint(&self, done: u64, len: u64) {
        if let Some(Occupation { stage: stage @ Stage::Running { .. }, .. }) = &mut self.cold().occupations.now {
            *stage = Stage::Running { done, len };
        }
        self.note();
    }

    /// What ran has ended, well or not. That is durable before anybody sees it.
    ///
    /// # Errors
    ///
    /// It was not written, and nothing has changed.
    pub fn end_occupation(&self, well: bool) -> Result<(), KeepError> {
        {
            let occupations = &mut self.cold().occupations;
            let Some(now) = occupations.now.clone() else { return Ok(()) };
            occupations.coming = Some((!well).then_some(Occupation { stage: Stage::Failed, ..now }));
        }
        if let Err(e) = self.persist() {
            self.cold().occupations.coming = None;
            return Err(e);
        }
        let mut cold = self.cold();
        if let Some(coming) = cold.occupations.coming.take() {
            self.occupy(&mut cold, coming);
        }
        Ok(())
    }
}
