//! REGISTER, REGISTER AND IGNORE EXISTING KEY and REGISTER AND MOVE.

use super::{Change, Context, NexusId, PersistentReservation, Refusal, Registrants, ReservationState};
use crate::lu::Attention;

/// REGISTER with the RESERVATION KEY `expected`, REGISTER AND IGNORE EXISTING KEY with none (SPC-4 5.13.7, tables 67 to 69).
pub(super) fn register(
    state: &ReservationState,
    by: NexusId,
    expected: Option<u64>,
    new_key: u64,
    aptpl: bool,
    targets: &Registrants,
    context: &Context<'_>,
) -> Result<Change, Refusal> {
    if expected.is_none() && targets.initiators.is_some() {
        return Err(Refusal::InvalidParameter);
    }
    let ports = ports(by, targets, context);
    let own = || ports.iter().map(|port| NexusId { port: *port, ..by });

    // A nexus that is not registered has to give the key zero.
    if expected.is_some_and(|key| own().any(|nexus| state.key_of(nexus).unwrap_or(0) != key)) {
        return Err(Refusal::Conflict);
    }
    if targets.initiators.is_some() && state.is_registered(by) {
        return Err(Refusal::InvalidParameter);
    }
    if new_key == 0 {
        return Ok(unregister(state, by, aptpl, &ports));
    }

    let others = || {
        let initiators = targets.initiators.iter().flatten();
        initiators.flat_map(|initiator| ports.iter().map(|port| NexusId { initiator: *initiator, port: *port }))
    };
    if others().any(|nexus| state.is_registered(nexus)) {
        return Err(Refusal::InvalidParameter);
    }
    let mut after = state.clone();
    for nexus in own().chain(others()) {
        after.set_key(nexus, new_key);
        // At once, lest a long list makes the search for what was named before ever longer.
        within(state, &after, context)?;
    }
    after.aptpl = aptpl;
    after.count_generation();
    Ok(Change::quiet(after))
}

/// The target ports a REGISTER is about, that of the nexus it came by in front.
fn ports(by: NexusId, targets: &Registrants, context: &Context<'_>) -> Vec<u16> {
    let mut ports = vec![by.port];
    if targets.all_target_ports {
        ports.extend(context.target_ports.iter().filter(|port| **port != by.port));
    }
    ports
}

/// Removes the registrations of an initiator port through `ports` (SPC-4 5.13.11.2.3).
fn unregister(state: &ReservationState, by: NexusId, aptpl: bool, ports: &[u16]) -> Change {
    let mut after = state.clone();
    let leaves = |nexus: NexusId| nexus.initiator == by.initiator && ports.contains(&nexus.port);
    after.registrations.retain(|registration| !leaves(registration.nexus));
    if after.registrations.len() == state.registrations.len() {
        return Change::quiet(after);
    }
    after.aptpl = aptpl;
    after.count_generation();
    // With the All Registrants types nobody is left to be told, with the plain types nobody is told.
    let attentions = match after.release_if_orphaned() {
        Some(kind) if kind.is_registrants_only() => after.tell_others(by, Attention::ReservationsReleased),
        _ => Vec::new(),
    };
    Change { state: after, attentions, aborts: Vec::new() }
}

/// REGISTER AND MOVE of a nexus whose key was checked (SPC-4 5.13.8, table 70).
pub(super) fn register_and_move(
    state: &ReservationState,
    by: NexusId,
    new_key: u64,
    unregister: bool,
    aptpl: bool,
    to: NexusId,
    context: &Context<'_>,
) -> Result<Change, Refusal> {
    let Some(reservation) = state.reservation else { return Err(Refusal::InvalidInCdb) };
    // Where all registrants hold it there is nothing to move.
    if reservation.holder != Some(by) {
        return Err(Refusal::Conflict);
    }
    // Not to the same initiator port, by whatever target port.
    if new_key == 0 || to.initiator == by.initiator || !context.target_ports.contains(&to.port) {
        return Err(Refusal::InvalidParameter);
    }

    let mut after = state.clone();
    after.set_key(to, new_key);
    after.reservation = Some(PersistentReservation { holder: Some(to), ..reservation });
    if unregister {
        after.registrations.retain(|registration| registration.nexus != by);
    }
    within(state, &after, context)?;
    after.aptpl = aptpl;
    after.count_generation();
    Ok(Change::quiet(after))
}

/// There is room for what is registered now. What was there before is not too much, should the limit have shrunk.
fn within(before: &ReservationState, after: &ReservationState, context: &Context<'_>) -> Result<(), Refusal> {
    let room = context.max_registrations.max(before.registrations.len());
    if after.registrations.len() <= room { Ok(()) } else { Err(Refusal::NoResources) }
}
