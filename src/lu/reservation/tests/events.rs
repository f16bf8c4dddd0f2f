//! RESERVE and RELEASE of SPC-2, what they are to persistent reservations, and what ends or outlives what.

use super::*;
use ReservationType as Type;

/// The dialogue of two initiators: SPC-2 7.16, 7.21.
#[test]
fn reserve_and_release() {
    let mut unit = Unit::default();
    assert_eq!(unit.asked(A1, Action::Release6), Ok(vec![]));
    assert_eq!(unit.asked(A1, Action::Reserve6), Ok(vec![]));
    assert_eq!(unit.asked(A1, Action::Reserve6), Ok(vec![]), "again");
    assert_eq!(unit.asked(B1, Action::Reserve6), Err(Refusal::Conflict));
    assert_eq!(unit.asked(A2, Action::Reserve6), Err(Refusal::Conflict), "another nexus of the initiator");
    assert_eq!(unit.asked(B1, Action::Release6), Ok(vec![]), "does nothing");
    assert_eq!(unit.0.legacy, Some(A1));
    assert_eq!(unit.asked(A1, Action::Release6), Ok(vec![]));
    assert_eq!(unit.0, ReservationState::default());
    assert_eq!(unit.asked(B1, Action::Reserve6), Ok(vec![]));
}

/// SPC-2 5.5.1: while RESERVE holds the unit, PERSISTENT RESERVE conflicts, "regardless of initiator".
#[test]
fn reserve_keeps_everybody_from_persistent_reserve() {
    let mut unit = Unit::default();
    assert!(!unit.0.refuses_persistent_reserve());
    unit.asked(A1, Action::Reserve6).unwrap();
    assert!(unit.0.refuses_persistent_reserve());
    for by in [A1, B1] {
        for action in [register(0, 1), register(0, 0), ignore_existing(1), Action::ReplaceLostReservation] {
            assert_eq!(unit.asked(by, action), Err(Refusal::Conflict));
        }
    }
    unit.asked(A1, Action::Release6).unwrap();
    assert_eq!(unit.asked(A1, register(0, 1)), Ok(vec![]));
}

/// SPC-4 5.13.3, and for all other cases SPC-2 5.5.1: while anybody is registered, RESERVE and RELEASE conflict.
#[test]
fn registrations_keep_everybody_from_reserve_but_for_the_exceptions() {
    // Nobody holds a persistent reservation.
    let mut unit = Unit::with(&[(A1, 1)]);
    for by in [A1, A2, B1] {
        assert_eq!(unit.asked(by, Action::Reserve6), Err(Refusal::Conflict));
        assert_eq!(unit.asked(by, Action::Release6), Err(Refusal::Conflict));
    }
    for kind in Type::ALL {
        let mut unit = Unit::reserved(kind, &[(A1, 1), (B1, 2)]);
        let before = unit.0.clone();
        for action in [Action::Reserve6, Action::Release6] {
            assert_eq!(unit.asked(A1, action.clone()), Ok(vec![]), "a holder");
            let registered = if matches!(kind.code(), 5..=8) { Ok(vec![]) } else { Err(Refusal::Conflict) };
            assert_eq!(unit.asked(B1, action.clone()), registered, "{kind:?}, registered");
            assert_eq!(unit.asked(C1, action), Err(Refusal::Conflict), "{kind:?}, not registered");
        }
        assert_eq!(unit.0, before, "no reservation is established, the persistent one is not changed");
    }
}

#[test]
fn a_loss_or_a_reset_ends_reserve() {
    let mut unit = Unit(ReservationState { legacy: Some(A1), ..Default::default() });
    assert_eq!(unit.asked(B1, Action::LoseNexus), Ok(vec![]));
    assert_eq!(unit.asked(A2, Action::LoseNexus), Ok(vec![]));
    assert_eq!(unit.0.legacy, Some(A1));
    assert_eq!(unit.asked(A1, Action::LoseNexus), Ok(vec![]));
    assert_eq!(unit.0.legacy, None);
    unit.asked(A1, Action::Reserve6).unwrap();
    assert_eq!(unit.asked(B1, Action::ResetUnit), Ok(vec![]));
    assert_eq!(unit.0.legacy, None);
}

/// SPC-4 5.13.5.1.
#[test]
fn no_loss_or_reset_ends_what_is_persistent() {
    let mut unit = Unit::reserved(Type::ExclusiveAccess, &[(A1, 1), (B1, 2)]);
    let before = unit.0.clone();
    for by in [A1, B1, C1] {
        assert_eq!(unit.asked(by, Action::LoseNexus), Ok(vec![]));
        assert_eq!(unit.asked(by, Action::ResetUnit), Ok(vec![]));
    }
    assert_eq!(unit.0, before);
}

/// SPC-4 5.13.5.1 and 6.15.2.
#[test]
fn a_loss_of_power_ends_it_unless_aptpl() {
    let unit = Unit::reserved(Type::ExclusiveAccess, &[(A1, 1), (B1, 2)]);
    assert_eq!(unit.0.clone().after_power_loss(), ReservationState::default());
    let kept = ReservationState { aptpl: true, ..unit.0.clone() };
    assert_eq!(kept.clone().after_power_loss(), ReservationState { generation: 0, ..kept });
    let legacy = ReservationState { aptpl: true, legacy: Some(A1), ..Default::default() };
    assert_eq!(legacy.after_power_loss(), ReservationState { aptpl: true, ..Default::default() });
}
