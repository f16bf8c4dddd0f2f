//! RESERVE and RELEASE, and how they go with persistent reservations (SPC-2 5.5.1, SPC-4 5.13.3).

use super::*;

const RESERVE_6: [u8; 6] = [0x16, 0, 0, 0, 0, 0];
const RELEASE_6: [u8; 6] = [0x17, 0, 0, 0, 0, 0];
const RESERVE_10: [u8; 10] = [0x56, 0, 0, 0, 0, 0, 0, 0, 0, 0];
const RELEASE_10: [u8; 10] = [0x57, 0, 0, 0, 0, 0, 0, 0, 0, 0];
const TEST_UNIT_READY: [u8; 6] = [0; 6];
const DONE: Answer = Answer::good(0);

#[test]
fn one_nexus_has_the_unit() {
    for (reserve, release) in [(&RESERVE_6[..], &RELEASE_6[..]), (&RESERVE_10, &RELEASE_10), (&RESERVE_6, &RELEASE_10)]
    {
        let c = Cluster::new();
        assert_eq!(c.none(0, reserve), DONE);
        assert_eq!(c.none(0, reserve), DONE, "again");
        assert_eq!(c.none(1, reserve), CONFLICT);
        assert_eq!((c.read(0), c.write(0)), (Status::Good, Status::Good));
        assert_eq!((c.read(1), c.write(2)), (Status::ReservationConflict, Status::ReservationConflict));
        assert_eq!(c.none(1, &TEST_UNIT_READY), CONFLICT, "SPC-2 table 10");
        // What SPC-2 exempts.
        assert_eq!(c.nodes[1].data_in(&[0x12, 0, 0, 0, 36, 0], 36).answer, Answer::good(36));
        assert_eq!(c.nodes[1].data_in(&[0x03, 0, 0, 0, 18, 0], 18).answer, Answer::good(18));
        assert_eq!(c.nodes[1].data_in(&[0xa0, 0, 0, 0, 0, 0, 0, 0, 0, 16, 0, 0], 16).answer, Answer::good(16));
        assert_eq!(c.nodes[1].data_in(&[0x4d, 0, 0x40, 0, 0, 0, 0, 0, 4, 0], 4).answer, Answer::good(4));
        assert_eq!(c.none(1, release), DONE, "it was not its to release");
        assert_eq!(c.read(1), Status::ReservationConflict);
        assert_eq!(c.none(0, release), DONE);
        assert_eq!((c.read(1), c.write(2)), (Status::Good, Status::Good));
        assert_eq!(c.attentions(), [vec![], vec![], vec![]]);
    }
}

/// SPC-2 5.5.1: all PERSISTENT RESERVE IN and OUT conflict, whoever sends them.
#[test]
fn persistent_reserve_conflicts_even_for_the_holder() {
    let c = Cluster::new();
    assert_eq!(c.none(0, &RESERVE_6), DONE);
    for node in 0..3 {
        for action in 0..=3 {
            assert_eq!(c.ask(node, action, 8).answer, CONFLICT, "{node} {action}");
        }
        for action in [0, 1, 2, 3, 4, 5, 6, 8] {
            assert_eq!(c.out(node, action, 1, 0, 1), CONFLICT, "{node} {action}");
        }
        assert_eq!(c.list(node, REGISTER_AND_MOVE, 1, &move_list(0, 1, 0, 1, [1; 16])), CONFLICT);
    }
    assert_eq!(c.none(0, &RELEASE_6), DONE);
    assert_eq!(c.keys(), (0, vec![]));
}

/// SPC-4 5.13.3, as CRH says: with registrations RESERVE and RELEASE conflict; for a nexus that the persistent reservation lets do everything
/// they are GOOD and do nothing.
#[test]
fn with_registrations() {
    let c = Cluster::registered(2);
    for node in 0..3 {
        assert_eq!(c.none(node, &RESERVE_6), CONFLICT, "{node}");
        assert_eq!(c.none(node, &RELEASE_6), CONFLICT, "{node}");
    }
    for (kind, registrant) in [(1, CONFLICT), (3, CONFLICT), (5, DONE), (6, DONE), (7, DONE), (8, DONE)] {
        let c = Cluster::registered(2);
        assert_eq!(c.out(0, RESERVE, kind, KEYS[0], 0), GOOD);
        for cdb in [&RESERVE_6[..], &RESERVE_10, &RELEASE_6, &RELEASE_10] {
            assert_eq!(c.none(0, cdb), DONE, "type {kind:x}");
            assert_eq!(c.none(1, cdb), registrant, "type {kind:x}");
            assert_eq!(c.none(2, cdb), CONFLICT, "type {kind:x}");
        }
        assert_eq!(c.out(0, RELEASE, kind, KEYS[0], 0), GOOD);
        c.attentions();
        assert_eq!((c.read(1), c.read(2)), (Status::Good, Status::Good), "nothing was reserved");
    }
}

/// SPC-2 5.5.2: a reset of the unit, and the loss of the nexus, end it; what befalls others does not.
#[test]
fn what_ends_it() {
    let c = Cluster::new();
    assert_eq!(c.none(0, &RESERVE_6), DONE);
    c.itl(1).lose_nexus();
    c.attentions();
    assert_eq!(c.read(1), Status::ReservationConflict);
    c.itl(0).lose_nexus();
    assert_eq!(c.read(1), Status::Good);
    assert_eq!(c.none(1, &RESERVE_6), DONE);
    c.itl(0).lu().reset();
    c.attentions();
    assert_eq!((c.read(0), c.read(2)), (Status::Good, Status::Good));
    // Persistent ones stay.
    let c = Cluster::reserved(3);
    c.itl(0).lu().reset();
    c.itl(0).lose_nexus();
    c.attentions();
    assert_eq!((c.read(0), c.read(1)), (Status::Good, Status::ReservationConflict));
    assert_eq!(c.keys().1, KEYS);
}
