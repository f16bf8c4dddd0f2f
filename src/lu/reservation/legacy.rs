//! RESERVE and RELEASE of SPC-2, beside persistent reservations (SPC-2 5.5.1, SPC-4 5.13.3), and what ends them.
//!
//! The two kinds never meet: while a nexus is registered there is no RESERVE, while RESERVE holds the unit nobody registers.

use super::{Change, NexusId, Refusal, ReservationState};

/// RESERVE(6) and RESERVE(10).
pub(super) fn reserve(state: &ReservationState, by: NexusId) -> Result<Change, Refusal> {
    if does_nothing(state, by) {
        return Ok(Change::quiet(state.clone()));
    }
    if !state.registrations.is_empty() || state.legacy.is_some_and(|holder| holder != by) {
        return Err(Refusal::Conflict);
    }
    Ok(Change::quiet(ReservationState { legacy: Some(by), ..state.clone() }))
}

/// RELEASE(6) and RELEASE(10): of what another holds it is GOOD and does nothing (SPC-2 7.16).
pub(super) fn release(state: &ReservationState, by: NexusId) -> Result<Change, Refusal> {
    if does_nothing(state, by) {
        return Ok(Change::quiet(state.clone()));
    }
    if !state.registrations.is_empty() {
        return Err(Refusal::Conflict);
    }
    Ok(lose_nexus(state, by))
}

/// A nexus is lost or reset.
pub(super) fn lose_nexus(state: &ReservationState, by: NexusId) -> Change {
    let legacy = state.legacy.filter(|holder| *holder != by);
    Change::quiet(ReservationState { legacy, ..state.clone() })
}

/// The unit is reset.
pub(super) fn reset_unit(state: &ReservationState) -> Change {
    Change::quiet(ReservationState { legacy: None, ..state.clone() })
}

/// The exceptions that CRH announces (SPC-4 5.13.3): GOOD, and nothing done, for who holds the persistent reservation and for
/// every registrant under a type that lets registrants use the unit. Without a persistent reservation there is no exception, and
/// SPC-2's rule stands: RESERVATION CONFLICT for everybody while anybody is registered.
fn does_nothing(state: &ReservationState, by: NexusId) -> bool {
    let registrants_may = state.reservation.is_some_and(|reservation| reservation.kind.is_registrants_only());
    state.is_holder(by) || (registrants_may && state.is_registered(by))
}
