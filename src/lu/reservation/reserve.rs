//! RESERVE, RELEASE, CLEAR and REPLACE LOST RESERVATION. That the nexus is registered under the key it gives was checked before.

use super::{Change, NexusId, PersistentReservation, Refusal, ReservationState, ReservationType};
use crate::lu::Attention;

impl PersistentReservation {
    /// The reservation that a nexus makes.
    pub(super) fn of(kind: ReservationType, by: NexusId) -> PersistentReservation {
        PersistentReservation { kind, holder: (!kind.is_all_registrants()).then_some(by) }
    }
}

/// RESERVE (SPC-4 5.13.9): a holder may ask again for what it has, and nobody for anything else.
pub(super) fn reserve(state: &ReservationState, by: NexusId, kind: ReservationType) -> Result<Change, Refusal> {
    match state.reservation {
        None => Ok(Change::quiet(ReservationState {
            reservation: Some(PersistentReservation::of(kind, by)),
            ..state.clone()
        })),
        Some(reservation) if reservation.kind == kind && state.is_holder(by) => Ok(Change::quiet(state.clone())),
        Some(_) => Err(Refusal::Conflict),
    }
}

/// RELEASE (SPC-4 5.13.11.2.2).
pub(super) fn release(state: &ReservationState, by: NexusId, kind: ReservationType) -> Result<Change, Refusal> {
    let Some(reservation) = state.reservation.filter(|_| state.is_holder(by)) else {
        return Ok(Change::quiet(state.clone()));
    };
    if reservation.kind != kind {
        return Err(Refusal::InvalidRelease);
    }
    let after = ReservationState { reservation: None, ..state.clone() };
    let attentions = match kind.is_registrants_only() || kind.is_all_registrants() {
        true => after.tell_others(by, Attention::ReservationsReleased),
        false => Vec::new(),
    };
    Ok(Change { state: after, attentions, aborts: Vec::new() })
}

/// CLEAR (SPC-4 5.13.11.2.7). Whoever was registered is told, whether there was a reservation or not.
pub(super) fn clear(state: &ReservationState, by: NexusId) -> Change {
    let mut after = ReservationState { registrations: Vec::new(), reservation: None, ..state.clone() };
    after.count_generation();
    Change { state: after, attentions: state.tell_others(by, Attention::ReservationsPreempted), aborts: Vec::new() }
}

/// REPLACE LOST RESERVATION: no information has been lost, so there is none to replace (SPC-4 5.13.11.3); one who is not registered
/// learns not even that while there is a reservation (SPC-4 table 66).
pub(super) fn replace_lost(state: &ReservationState, by: NexusId) -> Refusal {
    match state.reservation.is_some() && !state.is_registered(by) {
        true => Refusal::Conflict,
        false => Refusal::InvalidRelease,
    }
}
