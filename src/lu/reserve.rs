//! A unit's reservations while they change.
//!
//! [`reservation`] says what comes of an action; here it is done to the unit, in the steps that changes have.
//!
//! # Contract
//!
//! * [`Lu::evaluate_reservation`] → [`Lu::persist`] → [`Lu::apply_reservation`] → [`Lu::grant_reservation`], or
//!   [`Lu::abandon_reservation`] before it is applied. There is one change at a time; taking turns is the target's business.
//! * Gates are set under the unit's lock only, for all nexuses at once. While a change is applied and not granted a nexus is
//!   denied what it is denied before *or* after it: nobody gains before those who lose have stopped.
//! * A nexus that comes while a change is evaluated and not applied is denied what it will be denied: the change does not wait
//!   for commands of a nexus that it did not know.
//! * The loss of a nexus and the reset of the unit take no turns: they end RESERVE at once, in what is and in what a change on its
//!   way will have made of it.

use super::reservation::{self, Action, Change, Context, Refusal, ReservationState};
use super::unit::{Cold, live};
use super::{Attention, GateBits, Itl, KeptAbort, Lu, NexusId};
use crate::sys::clock;

/// How many registrations a unit holds.
pub const MAX_REGISTRATIONS: usize = 1024;

/// What is reserved, and a change of it on its way.
#[derive(Debug, Default)]
pub(super) struct Reservations {
    /// What is.
    current: ReservationState,
    /// What was evaluated and is not yet.
    pending: Option<Change>,
    /// When that was.
    evaluated_at: u64,
    /// Which change that is, or was the last one: they are counted.
    turn: u64,
    /// What was, while a change is applied and not granted.
    before: Option<ReservationState>,
}

/// What a change takes away, and from whom.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Taken {
    /// Names the change for [`Lu::abandon_reservation`].
    pub turn: u64,
    /// Whether anything will be different.
    pub changes: bool,
    /// Present nexuses that lose something, and what.
    pub losers: Vec<(NexusId, GateBits)>,
    /// Nexuses whose tasks are to be aborted; the one that asked may be among them.
    pub aborts: Vec<NexusId>,
}

impl From<ReservationState> for Reservations {
    fn from(current: ReservationState) -> Reservations {
        Reservations { current, ..Reservations::default() }
    }
}

impl Reservations {
    fn states(&mut self) -> impl Iterator<Item = &mut ReservationState> {
        let pending = self.pending.as_mut().map(|change| &mut change.state);
        [Some(&mut self.current), pending, self.before.as_mut()].into_iter().flatten()
    }

    /// What is, with the change on its way as if it were made: what a unit that is to be found again must be found with.
    pub(super) fn kept(&self) -> &ReservationState {
        self.pending.as_ref().map_or(&self.current, |change| &change.state)
    }

    /// The unit attentions that come with the change on its way.
    pub(super) fn coming(&self) -> impl Iterator<Item = (NexusId, Attention)> {
        self.pending.iter().flat_map(|change| change.attentions.iter().copied())
    }

    /// The aborts that come with it.
    pub(super) fn coming_aborts(&self) -> impl Iterator<Item = KeptAbort> {
        let nexuses = self.pending.iter().flat_map(|change| change.aborts.iter().copied());
        nexuses.map(|nexus| KeptAbort { nexus: Some(nexus), at: self.evaluated_at })
    }

    /// What a nexus's gate is to deny.
    fn denied(&self, nexus: NexusId) -> GateBits {
        let pending = self.pending.as_ref().map(|change| &change.state);
        let states = [Some(&self.current), pending, self.before.as_ref()].into_iter().flatten();
        states.map(|state| state.denial(nexus).bits()).fold(GateBits::NONE, GateBits::and)
    }

    /// Sets the gate of a nexus that comes.
    pub(super) fn attach(&self, itl: &Itl) {
        let denied = self.denied(itl.nexus());
        // What closes, closes before anything opens.
        itl.gate().raise(denied);
        itl.gate().lower(GateBits::DENY.without(denied));
    }
}

/// Sets everybody's gate.
fn gate(cold: &Cold) {
    live(cold).for_each(|itl| cold.reservations.attach(&itl));
}

/// RESERVE of a nexus, or of whomever, ends.
fn end_reserve(cold: &mut Cold, by: NexusId, event: &Action) {
    let context = Context { target_ports: &[], max_registrations: 0 };
    for state in cold.reservations.states() {
        if let Ok(change) = reservation::perform(state, by, event, &context) {
            *state = change.state;
        }
    }
    gate(cold);
}

impl Lu {
    /// Looks at what is reserved.
    pub fn reservations<R>(&self, look: impl FnOnce(&ReservationState) -> R) -> R {
        look(&self.cold().reservations.current)
    }

    /// First step of a change: it is judged, and remembered if it can be made. Nothing is different yet.
    ///
    /// # Errors
    ///
    /// What `judge` refuses it with.
    pub fn evaluate_reservation(
        &self,
        judge: impl FnOnce(&ReservationState, &Context<'_>) -> Result<Change, Refusal>,
    ) -> Result<Taken, Refusal> {
        let mut cold = self.cold();
        let target_ports: Vec<u16> = self.ports().iter().map(|port| port.relative).collect();
        let context = Context { target_ports: &target_ports, max_registrations: MAX_REGISTRATIONS };
        let current = &cold.reservations.current;
        let change = judge(current, &context)?;
        let losers = reservation::losers(current, &change.state, live(&cold).map(|itl| itl.nexus()));
        let taken = Taken {
            turn: cold.reservations.turn + 1,
            changes: change.state != *current,
            losers: losers.into_iter().map(|(nexus, lost)| (nexus, lost.bits())).collect(),
            aborts: change.aborts.clone(),
        };
        cold.reservations.turn = taken.turn;
        cold.reservations.pending = Some(change);
        cold.reservations.evaluated_at = clock::nanoseconds_since_boot();
        cold.changes.evaluated();
        Ok(taken)
    }

    /// Third step, when [`Lu::persist`] is done: what was evaluated is. Gates close, unit attentions are established, and whoever
    /// PREEMPT AND ABORT preempts no longer prevents removal (SPC-4 5.13.11.2.6).
    pub fn apply_reservation(&self) {
        let mut cold = self.cold();
        let Some(Change { state, attentions, aborts }) = cold.reservations.pending.take() else { return };
        let before = std::mem::replace(&mut cold.reservations.current, state);
        cold.reservations.before = Some(before);
        gate(&cold);
        for (nexus, attention) in attentions {
            self.establish_under_lock(&mut cold, nexus, attention);
        }
        let at = cold.reservations.evaluated_at;
        aborts.iter().for_each(|nexus| cold.aborts.add(Some(*nexus), at));
        live(&cold).filter(|itl| aborts.contains(&itl.nexus())).for_each(|itl| itl.allow_removal());
        self.note();
    }

    /// Last step: gates open to what the change gives.
    pub fn grant_reservation(&self) {
        let mut cold = self.cold();
        cold.reservations.before = None;
        gate(&cold);
    }

    /// A change that was evaluated is not made; `turn` is its [`Taken::turn`]. The next one may have been evaluated already: it
    /// stays.
    pub fn abandon_reservation(&self, turn: u64) {
        let mut cold = self.cold();
        if cold.reservations.turn == turn {
            cold.reservations.pending = None;
            cold.changes.abandoned();
            gate(&cold);
        }
        // It may have been written meanwhile as if it were made.
        self.note();
    }

    /// The RESERVE of a nexus that is lost ends (SPC-2 5.5.2).
    pub(super) fn lose_reserve(&self, nexus: NexusId) {
        end_reserve(&mut self.cold(), nexus, &Action::LoseNexus);
        self.note();
    }
}

/// RESERVE of whomever ends with a reset of the unit (SPC-2 5.5.2).
pub(super) fn reset_reserve(cold: &mut Cold) {
    // Whose reset it is does not matter.
    end_reserve(cold, NexusId { initiator: [0; 16], port: 0 }, &Action::ResetUnit);
}
