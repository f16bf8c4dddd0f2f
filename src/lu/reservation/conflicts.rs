//! Which commands a persistent reservation allows (SPC-4 5.13.1 table 65, SBC-3 4.17 table 13).
//!
//! The tables have a row for each command, but only three different rows: those are the classes of
//! [`Persistent`]. Which class a command is in says its row in [`opcode`](crate::scsi::opcode).

use super::ReservationType;
use crate::scsi::opcode::Persistent;

/// Where a nexus stands to a persistent reservation.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Relation {
    /// It holds it (SPC-4 5.13.10); with the All Registrants types every registered nexus does.
    Holder,
    /// It is registered but does not hold it.
    Registrant,
    /// It is not registered.
    Stranger,
}

/// Whether a command of a class is allowed to a nexus while there is a persistent reservation of a type.
///
/// `Registrant` with an All Registrants type does not occur; the answer is the tables' all the same ("from registered I_T nexus").
pub const fn allows(kind: ReservationType, class: Persistent, relation: Relation) -> bool {
    let exempt = match relation {
        Relation::Holder => true,
        Relation::Registrant => kind.is_registrants_only() || kind.is_all_registrants(),
        Relation::Stranger => false,
    };
    exempt
        || match class {
            Persistent::Allowed => true,
            Persistent::Reads => matches!(
                kind,
                ReservationType::WriteExclusive
                    | ReservationType::WriteExclusiveRegistrantsOnly
                    | ReservationType::WriteExclusiveAllRegistrants
            ),
            Persistent::Writes => false,
        }
}
