//! What a state of reservations keeps a nexus from.

use super::{NexusId, Relation, ReservationState, allows};
use crate::lu::GateBits;
use crate::scsi::opcode::Persistent;

/// What a nexus may not do; [`bits`](Denial::bits) are the gate's.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub struct Denial {
    /// Commands that read, as [`Persistent::Reads`].
    pub read: bool,
    /// Commands that write, as [`Persistent::Writes`].
    pub write: bool,
    /// Commands that conflict with RESERVE of another nexus.
    pub spc2: bool,
}

impl Denial {
    /// Nothing.
    pub const NONE: Denial = Denial { read: false, write: false, spc2: false };

    /// The gate's bits for it.
    pub const fn bits(self) -> GateBits {
        let mut bits = GateBits::NONE;
        if self.read {
            bits = bits.and(GateBits::DENY_READ);
        }
        if self.write {
            bits = bits.and(GateBits::DENY_WRITE);
        }
        if self.spc2 {
            bits = bits.and(GateBits::DENY_SPC2);
        }
        bits
    }

    /// What this keeps a nexus from and `other` does not.
    pub const fn without(self, other: Denial) -> Denial {
        Denial { read: self.read && !other.read, write: self.write && !other.write, spc2: self.spc2 && !other.spc2 }
    }
}

impl ReservationState {
    /// Where a nexus stands to the persistent reservation; without one, whether it is registered.
    pub fn relation(&self, nexus: NexusId) -> Relation {
        if self.is_holder(nexus) {
            Relation::Holder
        } else if self.is_registered(nexus) {
            Relation::Registrant
        } else {
            Relation::Stranger
        }
    }

    /// What a nexus may not do.
    pub fn denial(&self, nexus: NexusId) -> Denial {
        let relation = self.relation(nexus);
        let denies = |class| self.reservation.is_some_and(|reservation| !allows(reservation.kind, class, relation));
        Denial {
            read: denies(Persistent::Reads),
            write: denies(Persistent::Writes),
            spc2: self.legacy.is_some_and(|holder| holder != nexus),
        }
    }
}

/// Those of `candidates` from whom a change takes something away, and what: before the change is answered, their commands of
/// that kind must have ended.
pub fn losers(
    before: &ReservationState,
    after: &ReservationState,
    candidates: impl IntoIterator<Item = NexusId>,
) -> Vec<(NexusId, Denial)> {
    let lost = |nexus| (nexus, after.denial(nexus).without(before.denial(nexus)));
    candidates.into_iter().map(lost).filter(|(_, lost)| *lost != Denial::NONE).collect()
}
