//! REPORT TARGET PORT GROUPS, SET TARGET PORT GROUPS, and what access states keep out.

use std::sync::Arc;

use super::transfer::{parameter_data, parameter_list};
use super::{Answer, Change, Fence, Losers, Plan, Planned, Task};
use crate::lu::{AccessState, Itl};
use crate::scsi::spc as data;
use crate::scsi::{AdditionalSense, FieldPointer, Sense, SenseKey};

/// Sense data of a command that an access state keeps out; `None` for the active states, which keep nothing out.
pub(super) const fn inaccessible(state: AccessState) -> Option<Sense> {
    Some(Sense::not_ready(match state {
        AccessState::ActiveOptimized | AccessState::ActiveNonOptimized => return None,
        AccessState::Standby => AdditionalSense::TARGET_PORT_IN_STANDBY_STATE,
        AccessState::Unavailable => AdditionalSense::TARGET_PORT_IN_UNAVAILABLE_STATE,
        AccessState::Offline => AdditionalSense::LOGICAL_UNIT_NOT_READY_OFFLINE,
        AccessState::Transitioning => AdditionalSense::ASYMMETRIC_ACCESS_STATE_TRANSITION,
    }))
}

/// The answer to a command that an access state keeps out.
pub(super) fn refusal(state: AccessState) -> Answer {
    Answer::check(inaccessible(state).unwrap_or(super::spc::NO_SENSE))
}

/// REPORT TARGET PORT GROUPS (SPC-4 6.37).
pub(super) fn report_target_port_groups<'a>(task: Task<'a, '_>, extended: bool, allocation_length: u32) -> Planned<'a> {
    let groups = task.itl.lu().target_port_groups();
    parameter_data(task.buf, data::report_target_port_groups(extended, &groups), allocation_length)
}

/// SET TARGET PORT GROUPS (SPC-4 6.45). The list is copied here: what is judged is what is used. Groups do not come and go, so it is
/// judged here, too.
pub(super) fn set_target_port_groups<'a>(task: Task<'a, '_>, parameter_list_length: u32) -> Planned<'a> {
    const TOO_LONG: Sense = Sense::invalid_field_in_cdb(FieldPointer::cdb(6, 7));
    let length = u16::try_from(parameter_list_length).map_err(|_| TOO_LONG)?;
    let list = parameter_list(task.buf, length)?;
    let lu = task.itl.lu();
    let wanted = data::set_target_port_groups_list(&list, |group| lu.can_set_access(group))?;
    let change = AccessChange { itl: Arc::clone(task.itl), wanted, length: u64::from(length), evaluated: false };
    Ok(Plan::Change(Box::new(change)))
}

/// A SET TARGET PORT GROUPS on its way.
struct AccessChange {
    itl: Arc<Itl>,
    wanted: Vec<(u16, AccessState)>,
    /// Bytes of its parameter list.
    length: u64,
    /// It was evaluated and not applied: if it ends here, the unit has to forget it.
    evaluated: bool,
}

impl AccessChange {
    fn abandon(&mut self) {
        if std::mem::take(&mut self.evaluated) {
            self.itl.lu().abandon_access();
        }
    }
}

impl Change for AccessChange {
    fn evaluate(&mut self) -> Result<Fence, Answer> {
        let lu = self.itl.lu();
        let taken = lu.evaluate_access(self.itl.nexus(), &self.wanted);
        self.evaluated = true;
        let losers = if taken.losers.is_empty() { Losers::Nobody } else { Losers::These(taken.losers) };
        Ok(Fence { persists: taken.changes && lu.is_kept(), losers, aborts: Vec::new() })
    }

    fn persist(&mut self) -> Result<(), Answer> {
        const NOT_KEPT: Sense =
            Sense::new(SenseKey::HardwareError, AdditionalSense::SET_TARGET_PORT_GROUPS_COMMAND_FAILED);
        self.itl.lu().persist().map_err(|_| {
            self.abandon();
            NOT_KEPT.into()
        })
    }

    fn apply(&mut self) {
        self.evaluated = false;
        self.itl.lu().apply_access(&self.itl);
    }

    fn grant(&mut self) -> Plan<'static> {
        self.itl.lu().grant_access();
        self.made()
    }

    fn made(&mut self) -> Plan<'static> {
        Answer::good(self.length).into()
    }
}

impl Drop for AccessChange {
    fn drop(&mut self) {
        self.abandon();
    }
}
