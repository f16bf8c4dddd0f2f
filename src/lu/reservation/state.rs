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
