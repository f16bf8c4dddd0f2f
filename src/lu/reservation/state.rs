//! What there is to know about a unit's reservations.

/// An I_T nexus as reservations remember it: by the names of its two ports, not by a connection (SPC-4 5.13.1).
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct NexusId {
    /// The SRP initiator port identifier.
    pub initiator: [u8; 16],
    /// The RELATIVE TARGET PORT IDENTIFIER, 1 and up.
    pub port: u16,
}

/// The TYPE of a persistent reservation (SPC-4 6.15.3.4); the discriminant is its code.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[repr(u8)]
pub enum ReservationType {
    /// 1h.
    WriteExclusive = 0x1,
    /// 3h.
    ExclusiveAccess = 0x3,
    /// 5h.
    WriteExclusiveRegistrantsOnly = 0x5,
    /// 6h.
    ExclusiveAccessRegistrantsOnly = 0x6,
    /// 7h.
    WriteExclusiveAllRegistrants = 0x7,
    /// 8h.
    ExclusiveAccessAllRegistrants = 0x8,
}

impl ReservationType {
    /// All of them, by ascending code.
    pub const ALL: [ReservationType; 6] = [
        ReservationType::WriteExclusive,
        ReservationType::ExclusiveAccess,
        ReservationType::WriteExclusiveRegistrantsOnly,
        ReservationType::ExclusiveAccessRegistrantsOnly,
        ReservationType::WriteExclusiveAllRegistrants,
        ReservationType::ExclusiveAccessAllRegistrants,
    ];

    /// The type with this code; `None` for a code that is reserved or obsolete.
    pub fn from_code(code: u8) -> Option<ReservationType> {
        ReservationType::ALL.into_iter().find(|kind| kind.code() == code)
    }

    /// What the TYPE field says.
    pub const fn code(self) -> u8 {
        self as u8
    }

    /// One of the two Registrants Only types: one nexus holds the reservation, every registered one may use the unit.
    pub const fn is_registrants_only(self) -> bool {
        matches!(self, ReservationType::WriteExclusiveRegistrantsOnly | ReservationType::ExclusiveAccessRegistrantsOnly)
    }

    /// One of the two All Registrants types: every registered nexus holds the reservation.
    pub const fn is_all_registrants(self) -> bool {
        matches!(self, ReservationType::WriteExclusiveAllRegistrants | ReservationType::ExclusiveAccessAllRegistrants)
    }
}

/// One registration: an I_T nexus and its reservation key.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Registration {
    /// Whose.
    pub nexus: NexusId,
    /// RESERVATION KEY; never zero.
    pub key: u64,
}

/// A persistent reservation of the unit (LU_SCOPE is the only scope).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct PersistentReservation {
    /// TYPE.
    pub kind: ReservationType,
    /// The nexus that holds it; `None` with the All Registrants types, where every registered nexus does.
    pub holder: Option<NexusId>,
}

/// All of a unit's reservations.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct ReservationState {
    /// PRGENERATION.
    pub generation: u32,
    /// In the order in which they were made; at most one for each nexus.
    pub registrations: Vec<Registration>,
    /// The persistent reservation, if there is one: its holder is registered, or with the All Registrants types somebody is.
    pub reservation: Option<PersistentReservation>,
    /// APTPL of the last REGISTER that succeeded: registrations and reservation outlive a loss of power.
    pub aptpl: bool,
    /// Who holds the unit by RESERVE(6) or RESERVE(10).
    pub legacy: Option<NexusId>,
}

impl ReservationState {
    /// The reservation key under which a nexus is registered.
    pub fn key_of(&self, nexus: NexusId) -> Option<u64> {
        self.registrations.iter().find(|registration| registration.nexus == nexus).map(|registration| registration.key)
    }

    /// Whether a nexus is registered.
    pub fn is_registered(&self, nexus: NexusId) -> bool {
        self.key_of(nexus).is_some()
    }

    /// Whether a nexus is a persistent reservation holder (SPC-4 5.13.10): with the All Registrants types, whether it is registered.
    pub fn is_holder(&self, nexus: NexusId) -> bool {
        self.reservation.is_some_and(|reservation| match reservation.holder {
            Some(holder) => holder == nexus,
            None => self.is_registered(nexus),
        })
    }

    /// The RESERVATION KEY that READ RESERVATION reports (SPC-4 5.13.6.3): the holder's, zero with the All Registrants types;
    /// `None` without a persistent reservation.
    pub fn reservation_key(&self) -> Option<u64> {
        let reservation = self.reservation?;
        Some(reservation.holder.and_then(|holder| self.key_of(holder)).unwrap_or(0))
    }

    /// Whether PERSISTENT RESERVE IN and OUT end with RESERVATION CONFLICT whoever sends them: they do while RESERVE holds
    /// the unit, even for the nexus that reserved it (SPC-2 5.5.1). [`perform`](super::perform) sees to that for
    /// PERSISTENT RESERVE OUT; PERSISTENT RESERVE IN changes nothing and never comes there.
    pub fn refuses_persistent_reserve(&self) -> bool {
        self.legacy.is_some()
    }

    /// What is left after a loss of power (SPC-4 5.13.5.1, 6.15.2): registrations and persistent reservation if APTPL says so;
    /// in either case PRGENERATION starts again and RESERVE is over.
    pub fn after_power_loss(self) -> ReservationState {
        match self.aptpl {
            true => ReservationState { generation: 0, legacy: None, ..self },
            false => ReservationState::default(),
        }
    }
}
