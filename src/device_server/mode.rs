//! MODE SENSE and MODE SELECT (SPC-4 6.9 to 6.12).
//!
//! All mode pages are shared by all nexuses (VPD page 87h says so), so MODE SELECT is a [`Change`]: it is judged against the
//! parameters as they are when its turn has come, and what it takes away is gone when it is answered.

use std::sync::Arc;

use super::change::{Change, Fence, Losers};
use super::outcome::sense;
use super::transfer::{parameter_data, parameter_list};
use super::{Answer, Job, Plan, Planned, Task, log};
use crate::lu::{GateBits, Itl, Lu, ModeChange};
use crate::scsi::spc::{self as data, ModeSelectFields, ModeSenseFields, ModeState, ModeUnit};
use crate::scsi::{AdditionalSense, Sense, SenseKey};

/// What mode parameters are of a unit, with `current` ones given.
fn mode_unit(lu: &Lu, current: ModeState) -> ModeUnit {
    let geometry = lu.geometry();
    ModeUnit {
        current,
        default: lu.default_mode(),
        saved: lu.saved_mode(),
        thresholds: lu.threshold_exponent().is_some(),
        self_test_seconds: u16::try_from(lu.extended_self_test_seconds()).unwrap_or(u16::MAX),
        write_protected: lu.read_only() || current.swp,
        dpo_fua: true,
        blocks: geometry.blocks,
        block_length: geometry.block_size,
    }
}

/// MODE SENSE (SPC-4 6.11, 6.12).
pub(super) fn mode_sense<'a>(task: Task<'a, '_>, fields: ModeSenseFields, allocation_length: u32) -> Planned<'a> {
    let lu = task.itl.lu();
    let data = data::mode_sense(&fields, &mode_unit(lu, lu.mode()))?;
    parameter_data(task.buf, data, allocation_length)
}

/// MODE SELECT (SPC-4 6.9, 6.10). The parameter list is copied here: what is judged is what is used.
pub(super) fn mode_select<'a>(task: Task<'a, '_>, fields: ModeSelectFields, parameter_list_length: u16) -> Planned<'a> {
    let list = parameter_list(task.buf, parameter_list_length)?;
    let before = task.itl.lu().mode();
    Ok(Plan::Change(Box::new(ModeSelect {
        itl: Arc::clone(task.itl),
        fields,
        list,
        before,
        after: before,
        saved: None,
        evaluated: false,
    })))
}

/// The unit's state cannot be written down.
const NOT_KEPT: Sense = Sense::new(SenseKey::HardwareError, AdditionalSense::INTERNAL_TARGET_FAILURE);

/// A MODE SELECT on its way.
struct ModeSelect {
    itl: Arc<Itl>,
    fields: ModeSelectFields,
    list: Vec<u8>,
    before: ModeState,
    after: ModeState,
    /// What is saved before it.
    saved: Option<ModeState>,
    /// The unit expects it.
    evaluated: bool,
}

impl ModeSelect {
    fn abandon(&mut self) {
        if std::mem::take(&mut self.evaluated) {
            self.itl.lu().expect_mode(&self.itl, None);
        }
    }

    fn change(&self) -> ModeChange {
        ModeChange { mode: self.after, save: self.fields.save }
    }

    fn turns_on_write_protection(&self) -> bool {
        self.after.swp && !self.before.swp
    }

    fn flush(&self, answer: Answer) -> Plan<'static> {
        let lu = Arc::clone(self.itl.lu());
        let flush = Job::plan(move |_, _| {
            lu.image().flush().map_err(|e| sense(e, 0))?;
            Ok(answer)
        });
        log::counted(flush, &self.itl, false)
    }

    /// Turning WCE off makes everything durable that was written before (SBC-3 6.5.6).
    fn turns_off_write_cache(&self) -> bool {
        self.before.wce && !self.after.wce && !self.itl.lu().read_only()
    }
}

impl Change for ModeSelect {
    fn evaluate(&mut self) -> Result<Fence, Answer> {
        let lu = self.itl.lu();
        self.before = lu.mode();
        let unit = mode_unit(lu, self.before);
        self.after = data::mode_select(self.fields, &self.list, &unit)?;
        self.saved = unit.saved;
        // A write that begins after `apply` is refused, or durable by itself. One that began before has ended when the change is granted:
        // so none is under way under write protection, and the flush misses none.
        let fenced = self.turns_on_write_protection() || self.turns_off_write_cache();
        let losers = if fenced { Losers::Everybody(GateBits::DENY_WRITE) } else { Losers::Nobody };
        let saves = self.fields.save && self.saved != Some(self.after);
        let persists = lu.is_kept() && (self.after != self.before || saves);
        if persists {
            lu.expect_mode(&self.itl, Some(self.change()));
            self.evaluated = true;
        }
        Ok(Fence { persists, losers, ..Fence::default() })
    }

    fn persist(&mut self) -> Result<(), Answer> {
        self.itl.lu().persist().map_err(|_| {
            self.abandon();
            NOT_KEPT.into()
        })
    }

    fn apply(&mut self) {
        self.evaluated = false;
        self.itl.lu().change_mode(&self.itl, self.change());
    }

    fn grant(&mut self) -> Plan<'static> {
        let answer = Answer::good(self.list.len() as u64);
        if self.turns_off_write_cache() { self.flush(answer) } else { answer.into() }
    }

    /// Whether it turned WCE off cannot be told any more: what is off now may have been turned off by it.
    fn made(&mut self) -> Plan<'static> {
        let lu = self.itl.lu();
        let answer = Answer::good(self.list.len() as u64);
        if lu.mode().wce || lu.read_only() { answer.into() } else { self.flush(answer) }
    }
}

impl Drop for ModeSelect {
    fn drop(&mut self) {
        self.abandon();
    }
}
