//! The machine: what is asked for, what comes of it, and the one function between them.

use super::{NexusId, Registration, ReservationState, ReservationType, legacy, preempt, register, reserve};
use crate::lu::Attention;
use crate::scsi::{AdditionalSense, Sense};

/// What a nexus asks for, or what befalls it.
///
/// All but the last four are service actions of PERSISTENT RESERVE OUT (SPC-4 6.16.2). `key` is the RESERVATION KEY, `kind` the
/// TYPE; the SCOPE was checked to be LU_SCOPE by who decoded it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Action {
    /// REGISTER and REGISTER AND IGNORE EXISTING KEY (SPC-4 5.13.7, 5.13.11.2.3).
    Register {
        /// REGISTER AND IGNORE EXISTING KEY: `key` is not looked at.
        ignore_existing: bool,
        /// RESERVATION KEY.
        key: u64,
        /// SERVICE ACTION RESERVATION KEY; zero unregisters.
        new_key: u64,
        /// APTPL.
        aptpl: bool,
        /// Who is registered or unregistered.
        targets: Registrants,
    },
    /// RESERVE (SPC-4 5.13.9).
    Reserve {
        /// RESERVATION KEY.
        key: u64,
        /// TYPE.
        kind: ReservationType,
    },
    /// RELEASE (SPC-4 5.13.11.2.2).
    Release {
        /// RESERVATION KEY.
        key: u64,
        /// TYPE.
        kind: ReservationType,
    },
    /// CLEAR (SPC-4 5.13.11.2.7).
    Clear {
        /// RESERVATION KEY.
        key: u64,
    },
    /// PREEMPT and PREEMPT AND ABORT (SPC-4 5.13.11.2.4 to 5.13.11.2.6).
    Preempt {
        /// RESERVATION KEY.
        key: u64,
        /// SERVICE ACTION RESERVATION KEY.
        victim: u64,
        /// TYPE; only looked at if the reservation is preempted.
        kind: ReservationType,
        /// PREEMPT AND ABORT.
        abort: bool,
    },
    /// REGISTER AND MOVE (SPC-4 5.13.8).
    RegisterAndMove {
        /// RESERVATION KEY.
        key: u64,
        /// SERVICE ACTION RESERVATION KEY: under which `to` is registered.
        new_key: u64,
        /// UNREG: the nexus that asks is unregistered afterwards.
        unregister: bool,
        /// APTPL.
        aptpl: bool,
        /// TransportID and RELATIVE TARGET PORT IDENTIFIER.
        to: NexusId,
    },
    /// REPLACE LOST RESERVATION (SPC-4 5.13.11.3).
    ReplaceLostReservation,
    /// RESERVE(6) and RESERVE(10), without third party, extents or elements (SPC-2 7.21 and 7.22, SPC-4 5.13.3).
    Reserve6,
    /// RELEASE(6) and RELEASE(10) (SPC-2 7.16 and 7.17, SPC-4 5.13.3).
    Release6,
    /// The nexus is lost, or was reset (SAM-5 6.3.4): its RESERVE is over (SPC-2 5.5.2), what is persistent stays (SPC-4 5.13.5.1).
    LoseNexus,
    /// LOGICAL UNIT RESET or hard reset (SAM-5 6.3.3): RESERVE of whomever is over, what is persistent stays.
    ResetUnit,
}

/// Whose registrations a REGISTER is about (SPC-4 table 69): always those of the nexus it came by.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Registrants {
    /// ALL_TG_PT: through every target port, not only the one it came by.
    pub all_target_ports: bool,
    /// SPEC_I_PT, and the initiator ports that the TransportIDs name; `None` if the bit is zero.
    pub initiators: Option<Vec<[u8; 16]>>,
}

impl Registrants {
    /// Only the nexus that asks: SPEC_I_PT and ALL_TG_PT are zero.
    pub const THIS_NEXUS: Registrants = Registrants { all_target_ports: false, initiators: None };
}

/// What the machine must know of the unit's surroundings.
#[derive(Clone, Copy, Debug)]
pub struct Context<'a> {
    /// RELATIVE TARGET PORT IDENTIFIER of every target port of the device.
    pub target_ports: &'a [u16],
    /// How many registrations the unit can hold.
    pub max_registrations: usize,
}

/// An action that is done: what is to be made so.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Change {
    /// What will be.
    pub state: ReservationState,
    /// Unit attention conditions to establish, at most one for a nexus and none for the one that asked. A nexus here may be absent
    /// now: its condition waits for it.
    pub attentions: Vec<(NexusId, Attention)>,
    /// Whom PREEMPT AND ABORT preempts: their commands are aborted, their ACA ends, and their PREVENT (SPC-4 5.13.11.2.6). The
    /// nexus that asked is among them if the key it named is its own; the command itself is then spared.
    pub aborts: Vec<NexusId>,
}

impl Change {
    /// A change to `state` that nobody else has to be told of.
    pub(super) fn quiet(state: ReservationState) -> Change {
        Change { state, attentions: Vec::new(), aborts: Vec::new() }
    }
}

/// Why an action is not done.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Refusal {
    /// RESERVATION CONFLICT.
    Conflict,
    /// INVALID RELEASE OF PERSISTENT RESERVATION (26h/04h).
    InvalidRelease,
    /// INVALID FIELD IN PARAMETER LIST (26h/00h).
    InvalidParameter,
    /// INVALID FIELD IN CDB (24h/00h).
    InvalidInCdb,
    /// INSUFFICIENT REGISTRATION RESOURCES (55h/04h).
    NoResources,
}

impl Refusal {
    /// The sense data of CHECK CONDITION status; `None` for RESERVATION CONFLICT status, which has none.
    pub const fn sense(self) -> Option<Sense> {
        let code = match self {
            Refusal::Conflict => return None,
            Refusal::InvalidRelease => AdditionalSense::INVALID_RELEASE_OF_PERSISTENT_RESERVATION,
            Refusal::InvalidParameter => AdditionalSense::INVALID_FIELD_IN_PARAMETER_LIST,
            Refusal::InvalidInCdb => AdditionalSense::INVALID_FIELD_IN_CDB,
            Refusal::NoResources => AdditionalSense::INSUFFICIENT_REGISTRATION_RESOURCES,
        };
        Some(Sense::illegal_request(code))
    }
}

/// What comes of an action of the nexus `by`.
///
/// # Errors
///
/// How the command ends; nothing has changed then. The two events, [`Action::LoseNexus`] and [`Action::ResetUnit`], are never refused.
pub fn perform(
    state: &ReservationState,
    by: NexusId,
    action: &Action,
    context: &Context<'_>,
) -> Result<Change, Refusal> {
    match *action {
        Action::Reserve6 => legacy::reserve(state, by),
        Action::Release6 => legacy::release(state, by),
        Action::LoseNexus => Ok(legacy::lose_nexus(state, by)),
        Action::ResetUnit => Ok(legacy::reset_unit(state)),
        // The rest is PERSISTENT RESERVE OUT.
        _ if state.refuses_persistent_reserve() => Err(Refusal::Conflict),
        Action::Register { ignore_existing, key, new_key, aptpl, ref targets } => {
            let expected = (!ignore_existing).then_some(key);
            register::register(state, by, expected, new_key, aptpl, targets, context)
        }
        Action::RegisterAndMove { key, new_key, unregister, aptpl, to } => {
            authenticate(state, by, key)?;
            register::register_and_move(state, by, new_key, unregister, aptpl, to, context)
        }
        Action::Reserve { key, kind } => {
            authenticate(state, by, key)?;
            reserve::reserve(state, by, kind)
        }
        Action::Release { key, kind } => {
            authenticate(state, by, key)?;
            reserve::release(state, by, kind)
        }
        Action::Clear { key } => {
            authenticate(state, by, key)?;
            Ok(reserve::clear(state, by))
        }
        Action::Preempt { key, victim, kind, abort } => {
            authenticate(state, by, key)?;
            preempt::preempt(state, by, victim, kind, abort)
        }
        Action::ReplaceLostReservation => Err(reserve::replace_lost(state, by)),
    }
}

/// The nexus must be registered, and under the RESERVATION KEY it gives (SPC-4 5.13.7, 6.16.3).
fn authenticate(state: &ReservationState, by: NexusId, key: u64) -> Result<(), Refusal> {
    if state.key_of(by) == Some(key) { Ok(()) } else { Err(Refusal::Conflict) }
}

/// Steps that several service actions have in common.
impl ReservationState {
    /// PRGENERATION counts on, and wraps (SPC-4 6.15.2).
    pub(super) fn count_generation(&mut self) {
        self.generation = self.generation.wrapping_add(1);
    }

    /// Registers a nexus, or changes its key.
    pub(super) fn set_key(&mut self, nexus: NexusId, key: u64) {
        match self.registrations.iter_mut().find(|registration| registration.nexus == nexus) {
            Some(registration) => registration.key = key,
            None => self.registrations.push(Registration { nexus, key }),
        }
    }

    /// Releases the persistent reservation if nobody who holds it is registered any more (SPC-4 table 71), and says of which type
    /// it was.
    pub(super) fn release_if_orphaned(&mut self) -> Option<ReservationType> {
        let reservation = self.reservation?;
        let orphaned = match reservation.holder {
            Some(holder) => !self.is_registered(holder),
            None => self.registrations.is_empty(),
        };
        orphaned.then(|| {
            self.reservation = None;
            reservation.kind
        })
    }

    /// One unit attention condition for every registered nexus but one.
    pub(super) fn tell_others(&self, by: NexusId, attention: Attention) -> Vec<(NexusId, Attention)> {
        let others = self.registrations.iter().map(|registration| registration.nexus).filter(|nexus| *nexus != by);
        others.map(|nexus| (nexus, attention)).collect()
    }
}
