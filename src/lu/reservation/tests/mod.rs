//! The reservation machine: the standard's tables as data, its prose as dialogues, and random sequences against a model.

mod classes;
mod dialogues;
mod events;
mod exhaustive;
mod model;
mod random;
mod table;

use super::{
    Action, Change, Context, NexusId, PersistentReservation, Refusal, Registrants, Registration, ReservationState,
    ReservationType, perform,
};

/// The nexus of an initiator port, named by a letter, with a target port.
const fn nexus(initiator: u8, port: u16) -> NexusId {
    NexusId { initiator: [initiator; 16], port }
}

const CONTEXT: Context<'static> = Context { target_ports: &[1, 2], max_registrations: 64 };

const A1: NexusId = nexus(b'a', 1);
const A2: NexusId = nexus(b'a', 2);
const B1: NexusId = nexus(b'b', 1);
const B2: NexusId = nexus(b'b', 2);
const C1: NexusId = nexus(b'c', 1);

/// A unit that is asked one thing after the other.
#[derive(Debug, Default)]
struct Unit(ReservationState);

type Told = Vec<(NexusId, crate::lu::Attention)>;

impl Unit {
    /// With nexuses registered under keys.
    fn with(registrations: &[(NexusId, u64)]) -> Unit {
        let mut unit = Unit::default();
        for (nexus, key) in registrations {
            assert_eq!(unit.asked(*nexus, register(0, *key)), Ok(vec![]));
        }
        unit
    }

    /// ... and with a reservation by the first of them.
    fn reserved(kind: ReservationType, registrations: &[(NexusId, u64)]) -> Unit {
        let mut unit = Unit::with(registrations);
        let (by, key) = registrations[0];
        assert_eq!(unit.asked(by, Action::Reserve { key, kind }), Ok(vec![]));
        unit
    }

    /// Who is told what, if it is done; nobody is aborted.
    fn asked(&mut self, by: NexusId, action: Action) -> Result<Told, Refusal> {
        self.change(by, action).map(|change| {
            assert_eq!(change.aborts, []);
            change.attentions
        })
    }

    fn change(&mut self, by: NexusId, action: Action) -> Result<Change, Refusal> {
        let change = perform(&self.0, by, &action, &CONTEXT)?;
        self.0 = change.state.clone();
        Ok(change)
    }

    fn keys(&self) -> Vec<(NexusId, u64)> {
        self.0.registrations.iter().map(|registration| (registration.nexus, registration.key)).collect()
    }

    fn holder(&self) -> Option<(ReservationType, Option<NexusId>)> {
        self.0.reservation.map(|reservation| (reservation.kind, reservation.holder))
    }
}

fn register(key: u64, new_key: u64) -> Action {
    Action::Register { ignore_existing: false, key, new_key, aptpl: false, targets: Registrants::THIS_NEXUS }
}

fn ignore_existing(new_key: u64) -> Action {
    Action::Register { ignore_existing: true, key: 99, new_key, aptpl: false, targets: Registrants::THIS_NEXUS }
}
