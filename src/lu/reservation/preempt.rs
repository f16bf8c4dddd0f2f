//! PREEMPT and PREEMPT AND ABORT (SPC-4 5.13.11.2.4 to 5.13.11.2.6, table 72 and figure 9). That the nexus is registered under the
//! key it gives was checked before.

use super::{Change, NexusId, PersistentReservation, Refusal, ReservationState, ReservationType};
use crate::lu::Attention;

/// `victim` is the SERVICE ACTION RESERVATION KEY.
pub(super) fn preempt(
    state: &ReservationState,
    by: NexusId,
    victim: u64,
    kind: ReservationType,
    abort: bool,
) -> Result<Change, Refusal> {
    // Zero, which is nobody's key, names all who hold an All Registrants reservation.
    let everybody = victim == 0 && state.reservation.is_some_and(|reservation| reservation.holder.is_none());
    let named: Vec<NexusId> = state
        .registrations
        .iter()
        .filter(|registration| everybody || registration.key == victim)
        .map(|registration| registration.nexus)
        .collect();
    let mut change = match state.reservation {
        Some(old) if everybody || old.holder.is_some_and(|holder| named.contains(&holder)) => {
            replace(state, by, &named, old.kind, kind)
        }
        Some(_) if victim == 0 => return Err(Refusal::InvalidParameter),
        _ if named.is_empty() => return Err(Refusal::Conflict),
        _ => remove(state, by, &named),
    };
    if abort {
        change.aborts = named;
    }
    Ok(change)
}

/// The reservation becomes the preempting nexus's; it stays registered itself, even under the key it named (SPC-4 5.13.11.2.4.3).
fn replace(
    state: &ReservationState,
    by: NexusId,
    named: &[NexusId],
    old_kind: ReservationType,
    kind: ReservationType,
) -> Change {
    let mut after = state.clone();
    after.registrations.retain(|registration| registration.nexus == by || !named.contains(&registration.nexus));
    after.reservation = Some(PersistentReservation::of(kind, by));
    after.count_generation();
    let mut attentions = preempted(by, named);
    if kind != old_kind {
        attentions.extend(after.tell_others(by, Attention::ReservationsReleased));
    }
    Change { state: after, attentions, aborts: Vec::new() }
}

/// Only registrations go, that of the nexus itself as well if it named its own key (SPC-4 5.13.11.2.5).
fn remove(state: &ReservationState, by: NexusId, named: &[NexusId]) -> Change {
    let mut after = state.clone();
    after.registrations.retain(|registration| !named.contains(&registration.nexus));
    // Of an All Registrants reservation the last holder can go; nobody is left to be told.
    after.release_if_orphaned();
    after.count_generation();
    Change { state: after, attentions: preempted(by, named), aborts: Vec::new() }
}

fn preempted(by: NexusId, named: &[NexusId]) -> Vec<(NexusId, Attention)> {
    let others = named.iter().filter(|nexus| **nexus != by);
    others.map(|nexus| (*nexus, Attention::RegistrationsPreempted)).collect()
}
