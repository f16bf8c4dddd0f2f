//! The conflict table: every type, every class of commands, every relation.

use super::*;
use crate::lu::reservation::{Denial, Relation, allows, losers};
use crate::scsi::opcode::Persistent;

use Relation::{Holder, Registrant, Stranger};
use ReservationType as Type;

/// One column of SPC-4 table 65 (5.13.1) and SBC-3 table 13 (4.17), from a type and a relation to what its three kinds of rows say:
/// a command such as INQUIRY, one such as READ, one such as WRITE. `+` is "Allowed", `-` is "Conflict".
///
/// A holder's commands "should complete normally" (5.13.1). Write Exclusive and Exclusive Access have one column, "From any I_T
/// nexus": being registered does not help. The four others are "RR" in the tables: one column "From registered I_T nexus (RR all
/// types)", one "From not registered I_T nexus" each for Write Excl and Excl Access.
const TABLE: [(Type, Relation, &str); 18] = [
    (Type::WriteExclusive, Holder, "+++"),
    (Type::WriteExclusive, Registrant, "++-"),
    (Type::WriteExclusive, Stranger, "++-"),
    (Type::ExclusiveAccess, Holder, "+++"),
    (Type::ExclusiveAccess, Registrant, "+--"),
    (Type::ExclusiveAccess, Stranger, "+--"),
    (Type::WriteExclusiveRegistrantsOnly, Holder, "+++"),
    (Type::WriteExclusiveRegistrantsOnly, Registrant, "+++"),
    (Type::WriteExclusiveRegistrantsOnly, Stranger, "++-"),
    (Type::ExclusiveAccessRegistrantsOnly, Holder, "+++"),
    (Type::ExclusiveAccessRegistrantsOnly, Registrant, "+++"),
    (Type::ExclusiveAccessRegistrantsOnly, Stranger, "+--"),
    (Type::WriteExclusiveAllRegistrants, Holder, "+++"),
    (Type::WriteExclusiveAllRegistrants, Registrant, "+++"),
    (Type::WriteExclusiveAllRegistrants, Stranger, "++-"),
    (Type::ExclusiveAccessAllRegistrants, Holder, "+++"),
    (Type::ExclusiveAccessAllRegistrants, Registrant, "+++"),
    (Type::ExclusiveAccessAllRegistrants, Stranger, "+--"),
];

const CLASSES: [Persistent; 3] = [Persistent::Allowed, Persistent::Reads, Persistent::Writes];

#[test]
fn every_type_class_and_relation() {
    let mut seen = std::collections::HashSet::new();
    for (kind, relation, cells) in TABLE {
        assert!(seen.insert((kind, relation)), "{kind:?} {relation:?} twice");
        for (class, cell) in CLASSES.into_iter().zip(cells.chars()) {
            assert_eq!(allows(kind, class, relation), cell == '+', "{kind:?} {class:?} {relation:?}");
        }
    }
    assert_eq!(seen.len(), Type::ALL.len() * 3);
}

/// The same table, by way of a state: what it denies to its holder, to one who is registered and to one who is not.
#[test]
fn a_state_denies_what_the_table_says() {
    let (holder, registrant, stranger) = (nexus(b'a', 1), nexus(b'b', 1), nexus(b'c', 1));
    let registrations = [holder, registrant].map(|nexus| Registration { nexus, key: 7 }).to_vec();
    for (kind, relation, cells) in TABLE {
        let all = kind.is_all_registrants();
        let reservation = Some(PersistentReservation { kind, holder: (!all).then_some(holder) });
        let state = ReservationState { reservation, registrations: registrations.clone(), ..Default::default() };
        let who = match relation {
            Holder => holder,
            Registrant => registrant,
            Stranger => stranger,
        };
        // With the All Registrants types one who is registered is a holder.
        assert_eq!(state.relation(who) == relation, !(all && relation == Registrant), "{kind:?} {relation:?}");
        let denied = |at| cells.chars().nth(at) == Some('-');
        let denial = Denial { read: denied(1), write: denied(2), spc2: false };
        assert_eq!(state.denial(who), denial, "{kind:?} {relation:?}");
    }
}

#[test]
fn without_a_reservation_nothing_is_denied() {
    let state =
        ReservationState { registrations: vec![Registration { nexus: nexus(b'a', 1), key: 1 }], ..Default::default() };
    assert_eq!(state.denial(nexus(b'a', 1)), Denial::NONE);
    assert_eq!(state.denial(nexus(b'b', 1)), Denial::NONE);
    assert_eq!(state.relation(nexus(b'a', 1)), Registrant);
}

#[test]
fn a_nexus_is_both_its_ports() {
    let state = ReservationState { legacy: Some(nexus(b'a', 1)), ..Default::default() };
    assert_eq!(state.denial(nexus(b'a', 1)), Denial::NONE);
    let all_but_reads_and_writes = Denial { read: false, write: false, spc2: true };
    assert_eq!(state.denial(nexus(b'a', 2)), all_but_reads_and_writes);
    assert_eq!(state.denial(nexus(b'b', 1)), all_but_reads_and_writes);
}

#[test]
fn losers_are_those_who_lose_and_what_they_lose() {
    use crate::lu::GateBits;
    let (a, b, c) = (nexus(b'a', 1), nexus(b'b', 1), nexus(b'c', 1));
    let reserved = |kind| ReservationState {
        registrations: [a, b].map(|nexus| Registration { nexus, key: 1 }).to_vec(),
        reservation: Some(PersistentReservation { kind, holder: Some(a) }),
        ..Default::default()
    };
    let (shared, own) = (reserved(Type::WriteExclusiveRegistrantsOnly), reserved(Type::ExclusiveAccess));
    let reads = Denial { read: true, ..Denial::NONE };
    let both = Denial { read: true, write: true, spc2: false };
    assert_eq!(losers(&shared, &own, [a, b, c]), [(b, both), (c, reads)]);
    assert_eq!(losers(&shared, &own, [c]), [(c, reads)], "only candidates");
    assert_eq!(losers(&own, &shared, [a, b, c]), [], "gaining is not losing");
    assert_eq!(both.bits(), GateBits::DENY_READ.and(GateBits::DENY_WRITE));
    assert_eq!(Denial { spc2: true, ..Denial::NONE }.bits(), GateBits::DENY_SPC2);
    assert_eq!(Denial::NONE.bits(), GateBits::NONE);
}

#[test]
fn types_and_their_codes() {
    // SPC-4 table 206: 0h, 2h, 4h and 9h to Fh are obsolete or reserved.
    let codes: Vec<_> = (0..=0xff).filter(|code| Type::from_code(*code).is_some()).collect();
    assert_eq!(codes, [1, 3, 5, 6, 7, 8]);
    for kind in Type::ALL {
        assert_eq!(Type::from_code(kind.code()), Some(kind));
    }
    let only: Vec<_> = Type::ALL.into_iter().filter(|kind| kind.is_registrants_only()).map(Type::code).collect();
    let all: Vec<_> = Type::ALL.into_iter().filter(|kind| kind.is_all_registrants()).map(Type::code).collect();
    assert_eq!((only, all), (vec![5, 6], vec![7, 8]));
}
