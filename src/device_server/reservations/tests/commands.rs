//! Each service action: what it does, what it refuses, whom it tells.

use super::*;
use crate::lu::{NexusId, TargetPort};

const NOBODY: [Vec<Attention>; 3] = [vec![], vec![], vec![]];

/// Each of them told the same.
fn told(nodes: &[usize], attention: Attention) -> [Vec<Attention>; 3] {
    [0, 1, 2].map(|node| if nodes.contains(&node) { vec![attention] } else { vec![] })
}

#[test]
fn registering() {
    let c = Cluster::new();
    assert_eq!(c.keys(), (0, vec![]));
    assert_eq!(c.out(0, REGISTER, 0, 0, KEYS[0]), GOOD);
    assert_eq!(c.out(1, REGISTER, 0, 0, KEYS[1]), GOOD);
    assert_eq!(c.keys(), (2, vec![KEYS[0], KEYS[1]]));
    // SCOPE and TYPE are ignored.
    assert_eq!(c.out(0, REGISTER, 0xff, KEYS[0], 0x11), GOOD);
    assert_eq!(c.keys(), (3, vec![0x11, KEYS[1]]));
    assert_eq!(c.out(0, REGISTER, 0, KEYS[0], KEYS[0]), CONFLICT, "not its key any more");
    assert_eq!(c.out(2, REGISTER, 0, KEYS[0], KEYS[2]), CONFLICT, "it has none");
    assert_eq!(c.out(2, REGISTER_AND_IGNORE, 0, 0x99, KEYS[2]), GOOD);
    assert_eq!(c.out(0, REGISTER_AND_IGNORE, 0, 0x99, KEYS[0]), GOOD);
    assert_eq!(c.keys(), (5, vec![KEYS[0], KEYS[1], KEYS[2]]));
    assert_eq!(c.out(1, REGISTER, 0, KEYS[1], 0), GOOD);
    assert_eq!(c.keys(), (6, vec![KEYS[0], KEYS[2]]));
    assert_eq!(c.attentions(), NOBODY);
}

#[test]
fn registering_others_and_through_all_ports() {
    let c = Cluster::new();
    let other = c.itl(1).nexus().initiator;
    let absent = [0x77; 16];
    assert_eq!(c.list(0, REGISTER, 0, &list_with(0, KEYS[0], 0, &[other, absent])), Answer::good(76));
    assert_eq!(c.keys(), (1, vec![KEYS[0]; 3]));
    assert_eq!(c.out(1, RESERVE, 5, KEYS[0], 0), GOOD, "the other one is registered");
    // Who is registered already registers nobody with itself; whom it names must not be registered.
    assert_eq!(c.list(0, REGISTER, 0, &list_with(KEYS[0], 7, 0, &[[0x78; 16]])), illegal(0x2600));
    assert_eq!(c.list(2, REGISTER, 0, &list_with(0, 7, 0, &[absent])), illegal(0x2600));
    assert_eq!(c.list(2, REGISTER_AND_IGNORE, 0, &list_with(0, 7, 0, &[[0x78; 16]])), in_list(20, 3));
    assert_eq!(c.list(2, REGISTER, 0, &list(0, KEYS[2], 0x04)), GOOD, "ALL_TG_PT");
    assert_eq!(c.keys(), (2, vec![KEYS[0], KEYS[0], KEYS[0], KEYS[2]]));
}

/// Two target ports; a nexus through the second one is another nexus (SPC-4 5.13.7).
#[test]
fn two_target_ports() {
    let c = Cluster::with(|setup| {
        setup.ports = vec![TargetPort::SOLE, TargetPort { relative: 0x0203, id: [2; 16], group: 2 }];
    });
    let path = NexusId { port: 0x0203, ..c.itl(0).nexus() };
    let itl = Itl::new(c.itl(0).lu().clone(), path, None);
    let second = Bench::of(c.nodes[0].image.clone(), itl);
    let out = |action, kind, list: &[u8]| second.data_out(&out_cdb(action, kind, list.len()), list);
    assert_eq!(c.list(0, REGISTER, 0, &list(0, KEYS[0], 0x04)), GOOD, "ALL_TG_PT");
    assert_eq!(c.keys(), (1, vec![KEYS[0]; 2]));
    let data = c.report(0, 3);
    assert_eq!((data[20..22].to_vec(), data[26..28].to_vec()), (vec![0, 0], vec![0, 1]));
    assert_eq!((data[68..70].to_vec(), data[74..76].to_vec()), (vec![0, 0], vec![2, 3]));
    assert_eq!(data[40..56], data[88..104], "one initiator port");
    // It may do what it is registered for, but only the nexus that reserved holds the reservation.
    assert_eq!(out(RESERVE, 3, &list(KEYS[0], 0, 0)), GOOD);
    assert_eq!(c.read(0), Status::ReservationConflict);
    assert_eq!(c.out(0, RELEASE, 3, KEYS[0], 0), GOOD);
    assert_eq!(c.reservation(), Some((KEYS[0], 3)), "the other path does not release it");
    let to = c.itl(1).nexus().initiator;
    assert_eq!(out(REGISTER_AND_MOVE, 0, &move_list(KEYS[0], 5, 0, 0x0203, to)), Answer::good(48));
    assert_eq!(c.read(1), Status::ReservationConflict, "it came by the other port");
    // Through each port, with another one's initiator port as well.
    assert_eq!(c.out(0, CLEAR, 0, KEYS[0], 0), GOOD);
    assert_eq!(c.list(0, REGISTER, 0, &list_with(0, 7, 0x04, &[to])).status, Status::Good);
    assert_eq!(c.keys().1, [7; 4]);
    // Unregistering through all ports is of this initiator port only.
    assert_eq!(c.list(0, REGISTER_AND_IGNORE, 0, &list(0, 0, 0x04)), GOOD);
    assert_eq!(c.keys().1, [7; 2]);
}

#[test]
fn more_registrations_than_there_is_room_for() {
    let c = Cluster::new();
    let initiators: Vec<_> = (0..1023_u16).map(|i| [(i >> 8) as u8, i as u8].repeat(8).try_into().unwrap()).collect();
    let more = [&initiators[..], &[[0xee; 16]]].concat();
    assert_eq!(c.list(0, REGISTER, 0, &list_with(0, 1, 0, &more)), illegal(0x5504));
    assert_eq!(c.keys(), (0, vec![]));
    assert_eq!(c.list(0, REGISTER, 0, &list_with(0, 1, 0, &initiators)).status, Status::Good);
    assert_eq!(c.out(1, REGISTER, 0, 0, 2), illegal(0x5504));
    assert_eq!(c.report(0, 3).len(), 8 + 48 * 1024, "READ FULL STATUS has room for them");
}

#[test]
fn reserving_and_releasing() {
    for kind in ALL_TYPES {
        let c = Cluster::registered(2);
        assert_eq!(c.out(2, RESERVE, kind, 0, 0), CONFLICT, "not registered");
        assert_eq!(c.out(0, RESERVE, kind, KEYS[1], 0), CONFLICT, "another's key");
        assert_eq!(c.reservation(), None);
        assert_eq!(c.out(0, RESERVE, kind, KEYS[0], 0), GOOD);
        let all = kind >= 7;
        let key = if all { 0 } else { KEYS[0] };
        assert_eq!(c.reservation(), Some((key, kind)));
        assert_eq!(c.out(0, RESERVE, kind, KEYS[0], 0), GOOD, "what it has already");
        let again = if all { GOOD } else { CONFLICT };
        assert_eq!(c.out(1, RESERVE, kind, KEYS[1], 0), again);
        // Another type: the holder is told so, a mere registrant's release does nothing.
        let other = if kind == 1 { 3 } else { 1 };
        assert_eq!(c.out(0, RESERVE, other, KEYS[0], 0), CONFLICT);
        assert_eq!(c.out(0, RELEASE, other, KEYS[0], 0), illegal(0x2604));
        assert_eq!(c.out(1, RELEASE, other, KEYS[1], 0), if all { illegal(0x2604) } else { GOOD });
        assert_eq!(c.out(2, RELEASE, kind, 0, 0), CONFLICT);
        assert_eq!(c.reservation(), Some((key, kind)));
        assert_eq!(c.attentions(), NOBODY);
        assert_eq!(c.out(0, RELEASE, kind, KEYS[0], 0), GOOD);
        assert_eq!(c.reservation(), None);
        assert_eq!(c.keys(), (2, vec![KEYS[0], KEYS[1]]), "neither counts");
        let heard = if kind >= 5 { told(&[1], Attention::ReservationsReleased) } else { NOBODY };
        assert_eq!(c.attentions(), heard, "type {kind:x}");
        assert_eq!(c.out(0, RELEASE, kind, KEYS[0], 0), GOOD, "nothing is held");
    }
}

#[test]
fn unregistering_a_holder_releases() {
    for kind in ALL_TYPES {
        let c = Cluster::reserved(kind);
        assert_eq!(c.out(0, REGISTER, 0, KEYS[0], 0), GOOD);
        assert_eq!(c.reservation(), (kind >= 7).then_some((0, kind)), "all registrants hold it still");
        let ro = kind == 5 || kind == 6;
        let heard = if ro { told(&[1, 2], Attention::ReservationsReleased) } else { NOBODY };
        assert_eq!(c.attentions(), heard, "type {kind:x}");
        for node in [1, 2] {
            assert_eq!(c.out(node, REGISTER, 0, KEYS[node], 0), GOOD);
        }
        assert_eq!(c.reservation(), None);
        assert_eq!(c.attentions(), NOBODY);
    }
}

#[test]
fn clearing() {
    let c = Cluster::reserved(1);
    assert_eq!(c.out(1, CLEAR, 0xf9, KEYS[0], 0), CONFLICT);
    assert_eq!(c.out(1, CLEAR, 0xf9, KEYS[1], 0), GOOD, "SCOPE and TYPE are ignored");
    assert_eq!((c.keys(), c.reservation()), ((4, vec![]), None));
    assert_eq!(c.attentions(), told(&[0, 2], Attention::ReservationsPreempted));
}

#[test]
fn preempting_the_reservation() {
    let c = Cluster::reserved(1);
    assert_eq!(c.out(1, PREEMPT, 3, KEYS[0], KEYS[0]), CONFLICT);
    assert_eq!(c.out(1, PREEMPT, 1, KEYS[1], KEYS[0]), GOOD);
    assert_eq!(c.keys(), (4, vec![KEYS[1], KEYS[2]]));
    assert_eq!(c.reservation(), Some((KEYS[1], 1)));
    assert_eq!(c.attentions(), told(&[0], Attention::RegistrationsPreempted));
    assert_eq!((c.write(1), c.write(0)), (Status::Good, Status::ReservationConflict));
    // Another type: those who stay registered are told that the old one is released.
    assert_eq!(c.out(2, PREEMPT, 8, KEYS[2], KEYS[1]), GOOD);
    assert_eq!(c.reservation(), Some((0, 8)));
    assert_eq!(c.attentions(), told(&[1], Attention::RegistrationsPreempted));
    let c = Cluster::reserved(3);
    assert_eq!(c.out(1, PREEMPT, 6, KEYS[1], KEYS[0]), GOOD);
    let mut heard = told(&[0], Attention::RegistrationsPreempted);
    heard[2] = vec![Attention::ReservationsReleased];
    assert_eq!(c.attentions(), heard);
}

#[test]
fn preempting_registrations() {
    let c = Cluster::reserved(5);
    assert_eq!(c.out(1, PREEMPT, 5, KEYS[1], KEYS[2]), GOOD);
    assert_eq!(c.reservation(), Some((KEYS[0], 5)));
    assert_eq!(c.keys(), (4, vec![KEYS[0], KEYS[1]]));
    assert_eq!(c.attentions(), told(&[2], Attention::RegistrationsPreempted));
    assert_eq!((c.write(1), c.write(2)), (Status::Good, Status::ReservationConflict));
    assert_eq!(c.out(1, PREEMPT, 5, KEYS[1], 0x99), CONFLICT, "nobody's key");
    assert_eq!(c.out(1, PREEMPT, 5, KEYS[1], 0), illegal(0x2600), "zero names those of All Registrants only");
}

/// SPC-4 5.13.11.2.4: what is no SCOPE or TYPE only matters if the reservation is preempted.
#[test]
fn preempt_ignores_scope_and_type_that_it_does_not_use() {
    let c = Cluster::reserved(1);
    for (unfit, bit) in [(0x10, 7), (0x11, 7), (0x00, 3), (0x02, 3), (0x04, 3), (0x09, 3), (0x0f, 3)] {
        assert_eq!(c.out(1, PREEMPT, unfit, KEYS[1], KEYS[0]), in_cdb(2, bit), "{unfit:02x}");
        assert_eq!(c.out(1, PREEMPT_AND_ABORT, unfit, KEYS[1], KEYS[0]), in_cdb(2, bit), "{unfit:02x}");
        assert_eq!(c.out(1, PREEMPT, unfit, KEYS[1], 0x99), CONFLICT, "{unfit:02x}");
    }
    // Its own reservation, with the type that stands in for none and is the very one it has.
    assert_eq!(c.out(0, PREEMPT, 0, KEYS[0], KEYS[0]), in_cdb(2, 3));
    assert_eq!(c.keys(), (3, KEYS.to_vec()));
    assert_eq!(c.out(1, PREEMPT, 0, KEYS[1], KEYS[2]), GOOD);
    assert_eq!((c.keys().1, c.reservation()), (vec![KEYS[0], KEYS[1]], Some((KEYS[0], 1))));
}

#[test]
fn scope_and_type_of_reserve_and_release() {
    let c = Cluster::registered(1);
    for action in [RESERVE, RELEASE] {
        for unfit in [0x11, 0x21, 0xf5] {
            assert_eq!(c.out(0, action, unfit, KEYS[0], 0), in_cdb(2, 7));
        }
        for unfit in [0, 2, 4, 9, 0xa, 0xf] {
            assert_eq!(c.out(0, action, unfit, KEYS[0], 0), in_cdb(2, 3));
        }
    }
    assert_eq!(c.reservation(), None);
}

/// Who is preempted no longer keeps the medium from being removed (SPC-4 5.13.11.2.6).
#[test]
fn preempt_and_abort_ends_prevent() {
    let c = Cluster::reserved(1);
    for node in 0..3 {
        assert_eq!(c.none(node, &[0x1e, 0, 0, 0, 0, 0]).status, Status::Good);
        c.itl(node).prevent_removal();
    }
    assert_eq!(c.out(1, PREEMPT_AND_ABORT, 1, KEYS[1], KEYS[0]), GOOD);
    assert_eq!([0, 1, 2].map(|node| c.itl(node).prevents_removal()), [false, true, true]);
    assert_eq!(c.attentions(), told(&[0], Attention::RegistrationsPreempted));
    assert_eq!(c.out(1, PREEMPT, 1, KEYS[1], KEYS[2]), GOOD);
    assert!(c.itl(2).prevents_removal(), "PREEMPT does not");
}

#[test]
fn moving() {
    let c = Cluster::registered(2);
    let (own, other) = (c.itl(0).nexus().initiator, c.itl(2).nexus().initiator);
    let moves = |flags, port, key, initiator| {
        c.list(0, REGISTER_AND_MOVE, 0xff, &move_list(KEYS[0], key, flags, port, initiator))
    };
    assert_eq!(moves(0, 1, 0x33, other), illegal(0x2400), "there is nothing to move");
    assert_eq!(c.out(0, RESERVE, 3, KEYS[0], 0), GOOD);
    assert_eq!(moves(0, 1, 0, other), illegal(0x2600), "key zero");
    assert_eq!(moves(0, 1, 0x33, own), illegal(0x2600), "to itself");
    assert_eq!(moves(0, 9, 0x33, other), illegal(0x2600), "no such port");
    assert_eq!(moves(1, 1, 0x33, other), in_list(17, 0), "APTPL");
    assert_eq!(c.list(1, REGISTER_AND_MOVE, 0, &move_list(KEYS[1], 0x33, 0, 1, other)), CONFLICT, "not the holder");
    assert_eq!(c.read(2), Status::ReservationConflict);
    assert_eq!(moves(0, 1, 0x33, other), Answer::good(48));
    assert_eq!((c.keys(), c.reservation()), ((3, vec![KEYS[0], KEYS[1], 0x33]), Some((0x33, 3))));
    assert_eq!((c.read(0), c.read(2)), (Status::ReservationConflict, Status::Good));
    let back = move_list(0x33, 0x44, 2, 1, own);
    assert_eq!(c.list(2, REGISTER_AND_MOVE, 0, &back), Answer::good(48), "UNREG");
    assert_eq!((c.keys(), c.reservation()), ((4, vec![0x44, KEYS[1]]), Some((0x44, 3))));
    assert_eq!(c.attentions(), NOBODY);
}

#[test]
fn nothing_was_lost() {
    let c = Cluster::registered(1);
    assert_eq!(c.out(0, REPLACE_LOST, 1, 0, KEYS[0]), illegal(0x2604));
    assert_eq!(c.out(0, RESERVE, 1, KEYS[0], 0), GOOD);
    assert_eq!(c.out(1, REPLACE_LOST, 1, 0, KEYS[1]), CONFLICT);
}

/// SPC-4 table 216, byte by byte.
#[test]
fn full_status() {
    let c = Cluster::registered(2);
    assert_eq!(c.out(1, RESERVE, 6, KEYS[1], 0), GOOD);
    let mut expected = vec![0, 0, 0, 2, 0, 0, 0, 96];
    for (node, flags, scope_type) in [(0, 0, 0), (1, 1, 6)] {
        expected.extend(KEYS[node].to_be_bytes());
        expected.extend([0, 0, 0, 0, flags, scope_type, 0, 0, 0, 0, 0, 1, 0, 0, 0, 24]);
        expected.extend([4, 0, 0, 0, 0, 0, 0, 0]);
        expected.extend(c.itl(node).nexus().initiator);
    }
    assert_eq!(c.report(2, 3), expected, "who is not registered may ask, too");
    // All hold it.
    assert_eq!(c.out(1, RELEASE, 6, KEYS[1], 0), GOOD);
    c.attentions();
    assert_eq!(c.out(1, RESERVE, 8, KEYS[1], 0), GOOD);
    let data = c.report(2, 3);
    assert_eq!((data[20..22].to_vec(), data[68..70].to_vec()), (vec![1, 8], vec![1, 8]));
}

#[test]
fn allocation_lengths() {
    let c = Cluster::reserved(1);
    for (action, whole) in [(0, 32), (1, 24), (2, 8), (3, 8 + 3 * 48)] {
        let all = c.report(0, action);
        assert_eq!(all.len(), whole);
        for length in [0, 1, 4, 7, 8, 9, whole - 1, whole, whole + 1] {
            let ran = c.ask(0, action, length as u16);
            let moved = length.min(whole);
            assert_eq!(ran.answer, Answer::good(moved as u64), "{action} {length}");
            assert_eq!(ran.data[..moved], all[..moved]);
            assert!(ran.data[moved..].iter().all(|byte| *byte == 0xee));
        }
    }
    assert_eq!(c.ask(0, 0, 8).data[4..8], 24_u32.to_be_bytes(), "ADDITIONAL LENGTH is that of all keys");
}

#[test]
fn lists_of_wrong_lengths_and_buffers() {
    let c = Cluster::new();
    for action in 0..=8 {
        for length in [0, 1, 23, 25] {
            assert_eq!(c.list(0, action, 1, &vec![0; length]), illegal(0x1a00), "{action} {length}");
        }
        let node = &c.nodes[0];
        assert_eq!(node.data_out(&out_cdb(action, 1, 0x1_0000), &[0; 24]), illegal(0x1a00), "{action}");
        assert_eq!(node.data_out(&out_cdb(action, 1, u32::MAX as usize), &[0; 24]), illegal(0x1a00), "{action}");
        let short = node.data_out(&out_cdb(action, 1, 24), &[0; 23]);
        assert_eq!(short, Answer::good(24), "more than the buffer has: overflow");
        assert!(node.none(&out_cdb(action, 1, 24)).transferred > 0);
    }
    assert_eq!(c.list(0, REGISTER, 0, &list(0, 1, 0x80)), in_list(20, 7));
    assert_eq!(c.list(0, RESERVE, 1, &list(0, 1, 0x08)), in_list(20, 3), "SPEC_I_PT");
    assert_eq!(c.keys(), (0, vec![]));
}

/// APTPL needs somebody who keeps it through a loss of power.
#[test]
fn aptpl() {
    let c = Cluster::new();
    assert_eq!(c.list(0, REGISTER, 0, &list(0, 1, 1)), in_list(20, 0));
    assert_eq!(c.list(0, REGISTER_AND_IGNORE, 0, &list(0, 1, 1)), in_list(20, 0));
    assert_eq!(c.report(0, 2)[2..4], [0x9c, 0xb0], "no PTPL_C");
    let keeper = Arc::new(MemKeeper { volatile: true, ..MemKeeper::default() });
    let c = Cluster::with(|setup| setup.keeper = Some(keeper));
    assert_eq!(c.list(0, REGISTER, 0, &list(0, 1, 1)), in_list(20, 0), "it keeps through a restart only");
    assert_eq!(c.report(0, 2)[2..4], [0x9c, 0xb0]);

    let c = Cluster::with(|setup| setup.keeper = Some(Arc::new(MemKeeper::default())));
    assert_eq!(c.list(0, REGISTER, 0, &list(0, 1, 1)), GOOD);
    assert_eq!(c.report(0, 2)[2..4], [0x9d, 0xb1]);
    assert_eq!(c.list(0, REGISTER, 0, &list(1, 2, 0)), GOOD);
    assert_eq!(c.report(0, 2)[2..4], [0x9d, 0xb0]);
    assert_eq!(c.list(0, RESERVE, 1, &list(2, 0, 1)), GOOD, "only registering has APTPL");
    assert_eq!(c.report(0, 2)[2..4], [0x9d, 0xb0]);
    let to = c.itl(1).nexus().initiator;
    assert_eq!(c.list(0, REGISTER_AND_MOVE, 0, &move_list(2, 3, 1, 1, to)), Answer::good(48));
    assert_eq!(c.report(0, 2)[2..4], [0x9d, 0xb1]);
}

/// A unit attention goes before any of it.
#[test]
fn attentions_first() {
    let c = Cluster::new();
    c.itl(0).gate().establish(Attention::PowerOn);
    let attention = check(Sense::unit_attention(AdditionalSense(0x2900)));
    assert_eq!(c.ask(0, 0, 8).answer, attention);
    c.itl(0).gate().establish(Attention::PowerOn);
    assert_eq!(c.out(0, REGISTER, 0, 0, 1), attention);
    assert_eq!(c.keys(), (0, vec![]));
}
