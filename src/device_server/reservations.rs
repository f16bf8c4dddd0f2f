//! PERSISTENT RESERVE IN and OUT, RESERVE and RELEASE.
//!
//! What has nothing to do with the unit's state is looked at when the command starts: its CDB, its parameter list. The rest is
//! [`ReservationChange`], in its turn; the rules are [`reservation::perform`]'s.

use std::sync::Arc;

use super::transfer::{parameter_data, parameter_list};
use super::{Answer, Change, Fence, Losers, Plan, Planned, Task};
use crate::lu::reservation::{self, Action, Context, Refusal, Registrants, ReservationState, ReservationType};
use crate::lu::{Itl, Lu, NexusId};
use crate::scsi::spc::{self as data, FullStatus, LU_SCOPE, ReservationCapabilities};
use crate::scsi::{
    AdditionalSense, FieldPointer, ParameterData, ReserveIn, ReserveOut, Sense, SenseKey, Status, TransportId,
};

const CONFLICT: Answer = Answer::status(Status::ReservationConflict);

/// PERSISTENT RESERVE IN (SPC-4 6.15): what is reserved now.
pub(super) fn persistent_reserve_in<'a>(task: Task<'a, '_>, action: ReserveIn, allocation_length: u32) -> Planned<'a> {
    let lu = task.itl.lu();
    let report = |state: &ReservationState| match state.refuses_persistent_reserve() {
        true => Err(CONFLICT),
        false => Ok(report(action, state, lu)),
    };
    parameter_data(task.buf, lu.reservations(report)?, allocation_length)
}

fn report(action: ReserveIn, state: &ReservationState, lu: &Lu) -> ParameterData {
    let kind = state.reservation.map(|reservation| reservation.kind.code());
    match action {
        ReserveIn::ReadKeys => {
            data::read_keys(state.generation, state.registrations.iter().map(|registration| registration.key))
        }
        ReserveIn::ReadReservation => data::read_reservation(state.generation, state.reservation_key().zip(kind)),
        ReserveIn::ReportCapabilities => data::report_capabilities(ReservationCapabilities {
            persists_through_power_loss: lu.survives_power_loss(),
            persistence_active: state.aptpl,
        }),
        ReserveIn::ReadFullStatus => {
            let status = state.registrations.iter().map(|registration| FullStatus {
                key: registration.key,
                holds: kind.filter(|_| state.is_holder(registration.nexus)),
                port: registration.nexus.port,
                initiator: TransportId(registration.nexus.initiator),
            });
            data::read_full_status(state.generation, status)
        }
    }
}

/// PERSISTENT RESERVE OUT (SPC-4 6.16).
pub(super) fn persistent_reserve_out<'a>(
    task: Task<'a, '_>,
    action: ReserveOut,
    scope: u8,
    kind: u8,
    parameter_list_length: u32,
) -> Planned<'a> {
    const TOO_LONG: Sense = Sense::illegal_request(AdditionalSense::PARAMETER_LIST_LENGTH_ERROR);
    let length = u16::try_from(parameter_list_length).map_err(|_| TOO_LONG)?;
    let list = parameter_list(task.buf, length)?;
    let asked = asked(task.itl.lu(), action, reservation_type(scope, kind), &list)?;
    ReservationChange::plan(task.itl, asked, u64::from(length))
}

/// RESERVE(6) and RESERVE(10) (SPC-2 7.21).
pub(super) fn reserve<'a>(task: Task<'a, '_>) -> Planned<'a> {
    ReservationChange::plan(task.itl, Action::Reserve6.into(), 0)
}

/// RELEASE(6) and RELEASE(10) (SPC-2 7.16).
pub(super) fn release<'a>(task: Task<'a, '_>) -> Planned<'a> {
    ReservationChange::plan(task.itl, Action::Release6.into(), 0)
}

/// What a command asks for.
struct Asked {
    action: Action,
    /// Where SCOPE or TYPE is none that there is. PREEMPT uses them only if it preempts the reservation, and must ignore them
    /// otherwise (SPC-4 5.13.11.2.4); until that is known the action has any type.
    unfit: Option<FieldPointer>,
}

impl From<Action> for Asked {
    fn from(action: Action) -> Asked {
        Asked { action, unfit: None }
    }
}

/// SCOPE and TYPE; in `Err` which of them is none.
fn reservation_type(scope: u8, kind: u8) -> Result<ReservationType, FieldPointer> {
    match ReservationType::from_code(kind) {
        _ if scope != LU_SCOPE => Err(FieldPointer::cdb(2, 7)),
        Some(kind) => Ok(kind),
        None => Err(FieldPointer::cdb(2, 3)),
    }
}

/// What a PERSISTENT RESERVE OUT asks for.
fn asked(
    lu: &Lu,
    action: ReserveOut,
    kind: Result<ReservationType, FieldPointer>,
    list: &[u8],
) -> Result<Asked, Sense> {
    let common = || data::reserve_out_list(list, action == ReserveOut::Register);
    let fit = || kind.map_err(Sense::invalid_field_in_cdb);
    let action = match action {
        ReserveOut::Register | ReserveOut::RegisterAndIgnoreExistingKey => {
            let list = common()?;
            can_persist(lu, list.aptpl, data::APTPL_FIELD)?;
            let initiators = list.initiators.map(|ids| ids.into_iter().map(|id| id.0).collect());
            Action::Register {
                ignore_existing: action == ReserveOut::RegisterAndIgnoreExistingKey,
                key: list.key,
                new_key: list.service_action_key,
                aptpl: list.aptpl,
                targets: Registrants { all_target_ports: list.all_target_ports, initiators },
            }
        }
        ReserveOut::Reserve => Action::Reserve { key: common()?.key, kind: fit()? },
        ReserveOut::Release => Action::Release { key: common()?.key, kind: fit()? },
        ReserveOut::Clear => Action::Clear { key: common()?.key },
        ReserveOut::Preempt | ReserveOut::PreemptAndAbort => {
            let list = common()?;
            let (kind, unfit) = match kind {
                Ok(kind) => (kind, None),
                Err(field) => (ReservationType::WriteExclusive, Some(field)),
            };
            let abort = action == ReserveOut::PreemptAndAbort;
            let action = Action::Preempt { key: list.key, victim: list.service_action_key, kind, abort };
            return Ok(Asked { action, unfit });
        }
        ReserveOut::RegisterAndMove => {
            let list = data::register_and_move_list(list)?;
            can_persist(lu, list.aptpl, data::MOVE_APTPL_FIELD)?;
            Action::RegisterAndMove {
                key: list.key,
                new_key: list.service_action_key,
                unregister: list.unregister,
                aptpl: list.aptpl,
                to: NexusId { initiator: list.initiator.0, port: list.port },
            }
        }
        ReserveOut::ReplaceLostReservation => {
            common()?;
            Action::ReplaceLostReservation
        }
    };
    Ok(action.into())
}

/// APTPL is promised only where it can be kept (SPC-4 6.16.3).
fn can_persist(lu: &Lu, aptpl: bool, field: FieldPointer) -> Result<(), Sense> {
    match aptpl && !lu.survives_power_loss() {
        true => Err(Sense::invalid_field_in_parameter_list(field)),
        false => Ok(()),
    }
}

/// A change of what is reserved, on its way.
struct ReservationChange {
    itl: Arc<Itl>,
    asked: Asked,
    /// Bytes of its parameter list.
    transferred: u64,
    /// It was evaluated, as this turn, and not applied: if it ends here, the unit has to forget it.
    evaluated: Option<u64>,
}

impl ReservationChange {
    fn plan<'a>(itl: &Arc<Itl>, asked: Asked, transferred: u64) -> Planned<'a> {
        Ok(Plan::Change(Box::new(ReservationChange { itl: itl.clone(), asked, transferred, evaluated: None })))
    }

    fn judge(&self, state: &ReservationState, context: &Context<'_>) -> Result<reservation::Change, Refusal> {
        let by = self.itl.nexus();
        let change = reservation::perform(state, by, &self.asked.action, context)?;
        let Action::Preempt { key, victim, abort, .. } = self.asked.action else { return Ok(change) };
        // If another type comes to the same, it is not used.
        let other = Action::Preempt { key, victim, kind: ReservationType::ExclusiveAccess, abort };
        match self.asked.unfit.is_some() && reservation::perform(state, by, &other, context)? != change {
            true => Err(Refusal::InvalidInCdb),
            false => Ok(change),
        }
    }

    fn refused(&self, refusal: Refusal) -> Answer {
        match (refusal.sense(), self.asked.unfit) {
            (None, _) => super::ended(&self.itl, CONFLICT),
            (Some(_), Some(field)) if refusal == Refusal::InvalidInCdb => Sense::invalid_field_in_cdb(field).into(),
            (Some(sense), _) => sense.into(),
        }
    }

    fn abandon(&mut self) {
        if let Some(turn) = self.evaluated.take() {
            self.itl.lu().abandon_reservation(turn);
        }
    }
}

impl Change for ReservationChange {
    fn evaluate(&mut self) -> Result<Fence, Answer> {
        let lu = self.itl.lu();
        let judged = lu.evaluate_reservation(|state, context| self.judge(state, context));
        let taken = judged.map_err(|refusal| self.refused(refusal))?;
        self.evaluated = Some(taken.turn);
        let losers = if taken.losers.is_empty() { Losers::Nobody } else { Losers::These(taken.losers) };
        Ok(Fence { persists: taken.changes && self.itl.lu().is_kept(), losers, aborts: taken.aborts })
    }

    fn persist(&mut self) -> Result<(), Answer> {
        const NOT_KEPT: Sense = Sense::new(SenseKey::HardwareError, AdditionalSense::INTERNAL_TARGET_FAILURE);
        self.itl.lu().persist().map_err(|_| {
            self.abandon();
            NOT_KEPT.into()
        })
    }

    fn apply(&mut self) {
        self.evaluated = None;
        self.itl.lu().apply_reservation();
    }

    fn grant(&mut self) -> Plan<'static> {
        self.itl.lu().grant_reservation();
        self.made()
    }

    fn made(&mut self) -> Plan<'static> {
        Answer::good(self.transferred).into()
    }
}

impl Drop for ReservationChange {
    fn drop(&mut self) {
        self.abandon();
    }
}

#[cfg(test)]
mod tests;
