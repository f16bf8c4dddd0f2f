//! PERSISTENT RESERVE OUT, clause by clause.

use super::*;
use crate::lu::Attention::{RegistrationsPreempted, ReservationsPreempted, ReservationsReleased};
use ReservationType as Type;

fn reserve(key: u64, kind: Type) -> Action {
    Action::Reserve { key, kind }
}

fn release(key: u64, kind: Type) -> Action {
    Action::Release { key, kind }
}

fn preempt(key: u64, victim: u64, kind: Type) -> Action {
    Action::Preempt { key, victim, kind, abort: false }
}

fn to_all_ports(action: Action) -> Action {
    match action {
        Action::Register { ignore_existing, key, new_key, aptpl, .. } => {
            let targets = Registrants { all_target_ports: true, initiators: None };
            Action::Register { ignore_existing, key, new_key, aptpl, targets }
        }
        other => other,
    }
}

fn for_initiators(action: Action, all_target_ports: bool, initiators: &[u8]) -> Action {
    let initiators = Some(initiators.iter().map(|initiator| [*initiator; 16]).collect());
    match action {
        Action::Register { ignore_existing, key, new_key, aptpl, .. } => {
            let targets = Registrants { all_target_ports, initiators };
            Action::Register { ignore_existing, key, new_key, aptpl, targets }
        }
        other => other,
    }
}

/// SPC-4 table 67, row by row.
#[test]
fn register_behaves_as_table_67_says() {
    let mut unit = Unit::default();
    assert_eq!(unit.asked(A1, register(0, 0)), Ok(vec![]));
    assert_eq!(unit.0, ReservationState::default(), "do nothing except return GOOD");
    assert_eq!(unit.asked(A1, register(5, 0)), Err(Refusal::Conflict));
    assert_eq!(unit.asked(A1, register(5, 6)), Err(Refusal::Conflict));
    assert_eq!(unit.asked(A1, for_initiators(register(5, 6), false, b"b")), Err(Refusal::Conflict));
    assert_eq!(unit.asked(A1, register(0, 5)), Ok(vec![]));
    assert_eq!(unit.keys(), [(A1, 5)]);
    // Registered: another key conflicts, zero too.
    assert_eq!(unit.asked(A1, register(0, 6)), Err(Refusal::Conflict));
    assert_eq!(unit.asked(A1, register(4, 0)), Err(Refusal::Conflict));
    assert_eq!(unit.asked(A1, for_initiators(register(4, 6), false, b"b")), Err(Refusal::Conflict));
    assert_eq!(unit.asked(A1, for_initiators(register(5, 6), false, b"b")), Err(Refusal::InvalidParameter));
    assert_eq!(unit.asked(A1, for_initiators(register(5, 0), false, b"b")), Err(Refusal::InvalidParameter));
    assert_eq!(unit.asked(A1, register(5, 6)), Ok(vec![]));
    assert_eq!(unit.keys(), [(A1, 6)]);
    assert_eq!(unit.0.generation, 2);
    assert_eq!(unit.asked(A1, register(6, 0)), Ok(vec![]));
    assert_eq!((unit.keys(), unit.0.generation), (vec![], 3));
}

/// SPC-4 table 68, row by row.
#[test]
fn ignoring_behaves_as_table_68_says() {
    let mut unit = Unit::default();
    assert_eq!(unit.asked(A1, ignore_existing(0)), Ok(vec![]));
    assert_eq!(unit.0, ReservationState::default());
    assert_eq!(unit.asked(A1, ignore_existing(5)), Ok(vec![]));
    assert_eq!(unit.asked(B1, ignore_existing(5)), Ok(vec![]), "keys need not differ");
    assert_eq!(unit.asked(A1, ignore_existing(6)), Ok(vec![]));
    assert_eq!(unit.keys(), [(A1, 6), (B1, 5)], "the order stays, the other registration too");
    assert_eq!(unit.asked(A1, ignore_existing(0)), Ok(vec![]));
    assert_eq!((unit.keys(), unit.0.generation), (vec![(B1, 5)], 4));
    // Table 69, note a.
    assert_eq!(unit.asked(C1, for_initiators(ignore_existing(7), false, b"d")), Err(Refusal::InvalidParameter));
}

#[test]
fn spec_i_pt_registers_others_or_nobody() {
    let mut unit = Unit::with(&[(B1, 9)]);
    let before = unit.0.clone();
    assert_eq!(unit.asked(A1, for_initiators(register(0, 5), false, b"cb")), Err(Refusal::InvalidParameter));
    assert_eq!(unit.0, before, "if one fails, no registrations are made (6.16.3)");
    // The nexus itself may be among them.
    assert_eq!(unit.asked(A1, for_initiators(register(0, 5), false, b"cac")), Ok(vec![]));
    assert_eq!(unit.keys(), [(B1, 9), (A1, 5), (C1, 5)]);
    assert_eq!(unit.0.generation, before.generation + 1, "one command, one generation");
    // B is registered by port 1 only.
    assert_eq!(unit.asked(A2, for_initiators(register(0, 5), false, b"b")), Ok(vec![]));
    assert_eq!(unit.keys(), [(B1, 9), (A1, 5), (C1, 5), (A2, 5), (B2, 5)]);
    // An empty list names nobody; SPEC_I_PT is one all the same.
    assert_eq!(unit.asked(A1, for_initiators(register(5, 6), false, b"")), Err(Refusal::InvalidParameter));
}

#[test]
fn all_tg_pt_registers_through_every_port_or_none() {
    let mut unit = Unit::default();
    assert_eq!(unit.asked(A2, to_all_ports(register(0, 5))), Ok(vec![]));
    assert_eq!(unit.keys(), [(A2, 5), (A1, 5)]);
    assert_eq!(unit.asked(A2, register(5, 6)), Ok(vec![]));
    assert_eq!(unit.keys(), [(A2, 6), (A1, 5)]);
    let before = unit.0.clone();
    assert_eq!(unit.asked(A2, to_all_ports(register(6, 7))), Err(Refusal::Conflict), "by port 1 its key is 5");
    assert_eq!(unit.0, before);
    assert_eq!(unit.asked(A1, to_all_ports(ignore_existing(7))), Ok(vec![]));
    assert_eq!(unit.keys(), [(A2, 7), (A1, 7)]);
    assert_eq!(unit.asked(B1, for_initiators(register(0, 3), true, b"c")), Ok(vec![]));
    assert_eq!(unit.keys()[2..], [(B1, 3), (B2, 3), (C1, 3), (nexus(b'c', 2), 3)]);
    assert_eq!(unit.asked(A1, to_all_ports(register(7, 0))), Ok(vec![]));
    assert_eq!(unit.keys()[..1], [(B1, 3)]);
    // Not registered here, but there: only ignoring the key reaches it.
    assert_eq!(unit.asked(B1, register(3, 0)), Ok(vec![]));
    assert_eq!(unit.asked(B1, to_all_ports(register(0, 4))), Err(Refusal::Conflict));
    assert_eq!(unit.asked(B1, to_all_ports(ignore_existing(0))), Ok(vec![]));
    assert_eq!(unit.keys().len(), 2);
}

#[test]
fn there_is_room_for_so_many_registrations() {
    let context = Context { max_registrations: 2, ..CONTEXT };
    let mut unit = Unit::with(&[(A1, 1)]);
    let ask = |unit: &Unit, by, action| perform(&unit.0, by, &action, &context).map(|_| ());
    assert_eq!(ask(&unit, B1, register(0, 2)), Ok(()));
    assert_eq!(ask(&unit, B1, to_all_ports(register(0, 2))), Err(Refusal::NoResources));
    assert_eq!(ask(&unit, B1, for_initiators(register(0, 2), false, b"c")), Err(Refusal::NoResources));
    unit.asked(B1, register(0, 2)).unwrap();
    assert_eq!(ask(&unit, C1, ignore_existing(2)), Err(Refusal::NoResources));
    unit.asked(B1, reserve(2, Type::WriteExclusive)).unwrap();
    let to_c = |unregister| Action::RegisterAndMove { key: 2, new_key: 3, unregister, aptpl: false, to: C1 };
    assert_eq!(ask(&unit, B1, to_c(false)), Err(Refusal::NoResources));
    assert_eq!(ask(&unit, B1, to_c(true)), Ok(()), "one comes, one goes");
    // More than there is room for, from a time with more of it: they can change and go.
    unit.asked(C1, register(0, 3)).unwrap();
    assert_eq!(ask(&unit, C1, register(3, 4)), Ok(()));
    assert_eq!(ask(&unit, C1, register(3, 0)), Ok(()));
    assert_eq!(ask(&unit, A2, register(0, 4)), Err(Refusal::NoResources));
}

#[test]
fn aptpl_is_that_of_the_last_that_succeeded() {
    let with = |key, new_key, aptpl| Action::Register {
        ignore_existing: false,
        key,
        new_key,
        aptpl,
        targets: Registrants::THIS_NEXUS,
    };
    let mut unit = Unit::default();
    assert_eq!(unit.asked(A1, with(0, 0, true)), Ok(vec![]));
    assert!(!unit.0.aptpl, "nothing was done");
    unit.asked(A1, with(0, 1, true)).unwrap();
    assert!(unit.0.aptpl);
    unit.asked(B1, with(7, 1, false)).unwrap_err();
    assert!(unit.0.aptpl);
    unit.asked(A1, reserve(1, Type::WriteExclusive)).unwrap();
    assert!(unit.0.aptpl);
    let to_b = Action::RegisterAndMove { key: 1, new_key: 2, unregister: false, aptpl: false, to: B1 };
    unit.asked(A1, to_b).unwrap();
    assert!(!unit.0.aptpl);
    unit.asked(A1, with(1, 0, true)).unwrap();
    assert!(unit.0.aptpl, "unregistering counts, too");
}

/// SPC-4 5.13.7: everything but REGISTER from a nexus that is not registered; 6.16.3: a key that is not its own.
#[test]
fn who_is_not_registered_under_the_key_conflicts() {
    let kind = Type::WriteExclusiveRegistrantsOnly;
    let mut unit = Unit::reserved(kind, &[(A1, 1), (B1, 2)]);
    let before = unit.0.clone();
    for (by, key) in [(C1, 0), (C1, 1), (A2, 1), (B1, 1), (A1, 2), (A1, 0)] {
        let move_to_c = Action::RegisterAndMove { key, new_key: 1, unregister: false, aptpl: true, to: C1 };
        for action in [reserve(key, kind), release(key, kind), Action::Clear { key }, preempt(key, 2, kind), move_to_c]
        {
            assert_eq!(unit.asked(by, action.clone()), Err(Refusal::Conflict), "{by:?} {action:?}");
        }
    }
    assert_eq!(unit.0, before);
}

/// SPC-4 5.13.9.
#[test]
fn reserving() {
    for kind in Type::ALL {
        let mut unit = Unit::reserved(kind, &[(A1, 1), (B1, 2)]);
        let all = kind.is_all_registrants();
        assert_eq!(unit.holder(), Some((kind, (!all).then_some(A1))));
        assert_eq!(unit.0.reservation_key(), Some(if all { 0 } else { 1 }), "5.13.6.3");
        let before = unit.0.clone();
        assert_eq!(before.generation, 2, "RESERVE does not count");
        for again in Type::ALL {
            let holder = if again == kind { Ok(vec![]) } else { Err(Refusal::Conflict) };
            assert_eq!(unit.asked(A1, reserve(1, again)), holder, "{kind:?} {again:?}");
            let other = if again == kind && all { Ok(vec![]) } else { Err(Refusal::Conflict) };
            assert_eq!(unit.asked(B1, reserve(2, again)), other, "{kind:?} {again:?}");
        }
        assert_eq!(unit.0, before);
        // A changed key changes no reservation (5.13.7).
        unit.asked(A1, register(1, 5)).unwrap();
        assert_eq!(unit.0.reservation_key(), Some(if all { 0 } else { 5 }));
    }
}

/// SPC-4 5.13.11.2.2.
#[test]
fn releasing() {
    for kind in Type::ALL {
        let told = matches!(kind.code(), 5..=8);
        let mut unit = Unit::with(&[(A1, 1), (B1, 2), (B2, 3)]);
        assert_eq!(unit.asked(A1, release(1, kind)), Ok(vec![]), "there is none to release");
        unit.asked(A1, reserve(1, kind)).unwrap();
        let before = unit.0.clone();
        for other in Type::ALL.into_iter().filter(|other| *other != kind) {
            assert_eq!(unit.asked(A1, release(1, other)), Err(Refusal::InvalidRelease));
            let of_b = if kind.is_all_registrants() { Err(Refusal::InvalidRelease) } else { Ok(vec![]) };
            assert_eq!(unit.asked(B1, release(2, other)), of_b);
        }
        if !kind.is_all_registrants() {
            assert_eq!(unit.asked(B1, release(2, kind)), Ok(vec![]), "not the holder: GOOD, and nothing");
        }
        assert_eq!(unit.0, before);
        let attentions = if told { vec![(B1, ReservationsReleased), (B2, ReservationsReleased)] } else { vec![] };
        assert_eq!(unit.asked(A1, release(1, kind)), Ok(attentions), "{kind:?}");
        assert_eq!(unit.0, ReservationState { reservation: None, ..before });
    }
}

/// SPC-4 5.13.11.2.3 and table 71.
#[test]
fn unregistering() {
    for kind in Type::ALL {
        for ignoring in [false, true] {
            let leave = |key| if ignoring { ignore_existing(0) } else { register(key, 0) };
            let mut unit = Unit::reserved(kind, &[(A1, 1), (B1, 2), (C1, 2)]);
            assert_eq!(unit.asked(C1, leave(2)), Ok(vec![]));
            assert!(unit.holder().is_some(), "not the holder, or not the last");
            let told = if kind.is_registrants_only() { vec![(B1, ReservationsReleased)] } else { vec![] };
            assert_eq!(unit.asked(A1, leave(1)), Ok(told), "{kind:?}");
            assert_eq!(unit.holder().is_some(), kind.is_all_registrants());
            assert_eq!(unit.asked(B1, leave(2)), Ok(vec![]));
            assert_eq!((unit.holder(), unit.keys(), unit.0.generation), (None, vec![], 6));
        }
    }
    // Through all ports at once, the holder by the other one.
    let mut unit = Unit::reserved(Type::WriteExclusiveRegistrantsOnly, &[(A1, 1), (A2, 1), (B1, 2)]);
    assert_eq!(unit.asked(A2, to_all_ports(register(1, 0))), Ok(vec![(B1, ReservationsReleased)]));
    assert_eq!((unit.holder(), unit.keys()), (None, vec![(B1, 2)]));
}

/// SPC-4 5.13.11.2.7.
#[test]
fn clearing() {
    for kind in Type::ALL.map(Some).into_iter().chain([None]) {
        let registrations = [(A1, 1), (A2, 1), (B1, 2)];
        let mut unit = kind.map_or_else(|| Unit::with(&registrations), |kind| Unit::reserved(kind, &registrations));
        let told = vec![(A1, ReservationsPreempted), (A2, ReservationsPreempted)];
        assert_eq!(unit.asked(B1, Action::Clear { key: 2 }), Ok(told));
        assert_eq!((unit.holder(), unit.keys(), unit.0.generation), (None, vec![], 4));
        assert_eq!(unit.asked(B1, Action::Clear { key: 2 }), Err(Refusal::Conflict));
    }
}

/// SPC-4 table 72, "All other types".
#[test]
fn preempting_a_holder() {
    for old in Type::ALL.into_iter().filter(|kind| !kind.is_all_registrants()) {
        for new in Type::ALL {
            let mut unit = Unit::reserved(old, &[(A1, 1), (A2, 1), (B1, 2), (C1, 3)]);
            assert_eq!(unit.asked(B1, preempt(2, 0, new)), Err(Refusal::InvalidParameter));
            let mut told = vec![(A1, RegistrationsPreempted), (A2, RegistrationsPreempted)];
            if new != old {
                told.push((C1, ReservationsReleased));
            }
            assert_eq!(unit.asked(B1, preempt(2, 1, new)), Ok(told), "{old:?} {new:?}");
            assert_eq!(unit.keys(), [(B1, 2), (C1, 3)]);
            assert_eq!(unit.holder(), Some((new, (!new.is_all_registrants()).then_some(B1))));
            assert_eq!(unit.0.generation, 5);
        }
    }
}

/// SPC-4 table 72, "All Registrants".
#[test]
fn preempting_all_registrants() {
    for old in Type::ALL.into_iter().filter(|kind| kind.is_all_registrants()) {
        for new in Type::ALL {
            let registrations = [(A1, 1), (A2, 1), (B1, 2), (C1, 3)];
            let mut unit = Unit::reserved(old, &registrations);
            let told = [A1, A2, C1].map(|nexus| (nexus, RegistrationsPreempted)).to_vec();
            assert_eq!(unit.asked(B1, preempt(2, 0, new)), Ok(told));
            assert_eq!(unit.keys(), [(B1, 2)]);
            assert_eq!(unit.holder(), Some((new, (!new.is_all_registrants()).then_some(B1))));

            let mut unit = Unit::reserved(old, &registrations);
            let told = [A1, A2].map(|nexus| (nexus, RegistrationsPreempted)).to_vec();
            assert_eq!(unit.asked(B1, preempt(2, 1, new)), Ok(told));
            assert_eq!(unit.holder(), Some((old, None)), "only registrations go, and TYPE is ignored");
            assert_eq!(unit.asked(B1, preempt(2, 4, new)), Err(Refusal::Conflict), "nobody's key");
            // The last one removes itself: nothing is left to hold.
            assert_eq!(unit.asked(B1, preempt(2, 3, new)), Ok(vec![(C1, RegistrationsPreempted)]));
            assert_eq!(unit.asked(B1, preempt(2, 2, new)), Ok(vec![]));
            assert_eq!((unit.holder(), unit.keys(), unit.0.generation), (None, vec![], 7));
        }
    }
}

/// SPC-4 5.13.11.2.5.
#[test]
fn preempting_registrations_alone() {
    let kind = Type::ExclusiveAccess;
    for reserved in [false, true] {
        let registrations = [(A1, 1), (B1, 2), (B2, 2), (C1, 3)];
        let mut unit = if reserved { Unit::reserved(kind, &registrations) } else { Unit::with(&registrations) };
        let holder = unit.holder();
        assert_eq!(unit.asked(C1, preempt(3, 4, kind)), Err(Refusal::Conflict), "nobody's key");
        let zero = if reserved { Refusal::InvalidParameter } else { Refusal::Conflict };
        assert_eq!(unit.asked(C1, preempt(3, 0, kind)), Err(zero));
        // Its own key, and another's that is the same: both go, the other is told.
        let told = vec![(B1, RegistrationsPreempted)];
        assert_eq!(unit.asked(B2, preempt(2, 2, Type::WriteExclusive)), Ok(told));
        assert_eq!((unit.keys(), unit.holder()), (vec![(A1, 1), (C1, 3)], holder));
        assert_eq!(unit.0.generation, 5);
        if !reserved {
            // Without a reservation nothing is made either.
            assert_eq!(unit.asked(C1, preempt(3, 1, kind)), Ok(vec![(A1, RegistrationsPreempted)]));
            assert_eq!((unit.keys(), unit.holder()), (vec![(C1, 3)], None));
        }
    }
}

/// SPC-4 5.13.11.2.4.3: it is no error for a holder to preempt itself.
#[test]
fn preempting_oneself() {
    let mut unit = Unit::reserved(Type::WriteExclusive, &[(A1, 1), (B1, 1), (C1, 3)]);
    let told = vec![(B1, RegistrationsPreempted), (C1, ReservationsReleased)];
    assert_eq!(unit.asked(A1, preempt(1, 1, Type::ExclusiveAccess)), Ok(told));
    assert_eq!(unit.keys(), [(A1, 1), (C1, 3)]);
    assert_eq!(unit.holder(), Some((Type::ExclusiveAccess, Some(A1))));
    // A holder of the same key as one's own: one takes its place.
    let mut unit = Unit::reserved(Type::WriteExclusive, &[(B1, 1), (A1, 1)]);
    assert_eq!(unit.asked(A1, preempt(1, 1, Type::WriteExclusive)), Ok(vec![(B1, RegistrationsPreempted)]));
    assert_eq!((unit.keys(), unit.holder()), (vec![(A1, 1)], Some((Type::WriteExclusive, Some(A1)))));
}

/// SPC-4 5.13.11.2.6.
#[test]
fn preempting_and_aborting() {
    let abort = |key, victim| Action::Preempt { key, victim, kind: Type::WriteExclusive, abort: true };
    let registrations = [(A1, 1), (A2, 1), (B1, 2), (C1, 3)];
    let aborts = |mut unit: Unit, by, action| unit.change(by, action).unwrap().aborts;
    assert_eq!(aborts(Unit::reserved(Type::ExclusiveAccess, &registrations), B1, abort(2, 1)), [A1, A2]);
    assert_eq!(aborts(Unit::reserved(Type::ExclusiveAccess, &registrations), B1, abort(2, 3)), [C1]);
    assert_eq!(aborts(Unit::with(&registrations), B1, abort(2, 1)), [A1, A2], "whether they hold a reservation or not");
    assert_eq!(aborts(Unit::reserved(Type::ExclusiveAccess, &registrations), A1, abort(1, 1)), [A1, A2]);
    assert_eq!(aborts(Unit::with(&registrations), B1, abort(2, 2)), [B1]);
    let all = Unit::reserved(Type::ExclusiveAccessAllRegistrants, &registrations);
    assert_eq!(aborts(all, B1, abort(2, 0)), [A1, A2, B1, C1], "all registered nexuses");
    // Apart from that it is a PREEMPT.
    for (by, key, victim) in [(B1, 2, 1), (B1, 2, 3), (A1, 1, 1), (B1, 2, 2)] {
        let with = |abort| {
            let action = Action::Preempt { key, victim, kind: Type::WriteExclusive, abort };
            Unit::reserved(Type::ExclusiveAccessRegistrantsOnly, &registrations).change(by, action).unwrap()
        };
        assert_eq!(Change { aborts: vec![], ..with(true) }, with(false));
    }
}

/// SPC-4 5.13.8, table 70.
#[test]
fn registering_and_moving() {
    let to = |key, new_key, unregister, to| Action::RegisterAndMove { key, new_key, unregister, aptpl: false, to };
    for kind in Type::ALL {
        let mut unit = Unit::with(&[(A1, 1), (B1, 2)]);
        assert_eq!(unit.asked(A1, to(1, 5, false, C1)), Err(Refusal::InvalidInCdb), "there is none to move");
        unit.asked(A1, reserve(1, kind)).unwrap();
        if kind.is_all_registrants() {
            assert_eq!(unit.asked(A1, to(1, 5, false, C1)), Err(Refusal::Conflict));
            continue;
        }
        assert_eq!(unit.asked(B1, to(2, 5, false, C1)), Err(Refusal::Conflict), "not the holder");
        assert_eq!(unit.asked(A1, to(1, 0, false, C1)), Err(Refusal::InvalidParameter));
        assert_eq!(unit.asked(A1, to(1, 5, false, A1)), Err(Refusal::InvalidParameter));
        assert_eq!(unit.asked(A1, to(1, 5, false, A2)), Err(Refusal::InvalidParameter), "the same initiator port");
        assert_eq!(unit.asked(A1, to(1, 5, false, nexus(b'c', 3))), Err(Refusal::InvalidParameter), "no such port");
        assert_eq!(unit.0.generation, 2);
        assert_eq!(unit.asked(A1, to(1, 5, false, C1)), Ok(vec![]));
        assert_eq!(unit.keys(), [(A1, 1), (B1, 2), (C1, 5)]);
        assert_eq!((unit.holder(), unit.0.generation), (Some((kind, Some(C1))), 3));
        // To one who is registered, under another key; and UNREG tells nobody, for nothing is released.
        assert_eq!(unit.asked(C1, to(5, 6, true, B1)), Ok(vec![]));
        assert_eq!(unit.keys(), [(A1, 1), (B1, 6)]);
        assert_eq!((unit.holder(), unit.0.generation), (Some((kind, Some(B1))), 4));
    }
}

/// SPC-4 5.13.11.3 and table 66.
#[test]
fn there_is_no_lost_reservation_to_replace() {
    let mut unit = Unit::default();
    assert_eq!(unit.asked(A1, Action::ReplaceLostReservation), Err(Refusal::InvalidRelease));
    unit.asked(A1, register(0, 1)).unwrap();
    unit.asked(A1, reserve(1, Type::WriteExclusive)).unwrap();
    assert_eq!(unit.asked(A1, Action::ReplaceLostReservation), Err(Refusal::InvalidRelease));
    assert_eq!(unit.asked(B1, Action::ReplaceLostReservation), Err(Refusal::Conflict));
}

#[test]
fn refusals_as_sense() {
    let code = |refusal: Refusal| refusal.sense().map(|sense| (sense.key as u8, sense.code.0));
    assert_eq!(code(Refusal::Conflict), None);
    assert_eq!(code(Refusal::InvalidRelease), Some((5, 0x2604)));
    assert_eq!(code(Refusal::InvalidParameter), Some((5, 0x2600)));
    assert_eq!(code(Refusal::InvalidInCdb), Some((5, 0x2400)));
    assert_eq!(code(Refusal::NoResources), Some((5, 0x5504)));
}

#[test]
fn the_generation_wraps() {
    let mut unit = Unit(ReservationState { generation: u32::MAX, ..Default::default() });
    unit.asked(A1, register(0, 1)).unwrap();
    assert_eq!(unit.0.generation, 0);
}
