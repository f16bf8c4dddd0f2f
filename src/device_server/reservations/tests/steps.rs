//! A change step by step, and what can come between.

use proptest::prelude::*;

use super::*;
use crate::device_server::testkit::execute;
use crate::device_server::{AbortFlag, Fence, Losers};
use crate::lu::GateBits;

const RESERVE_6: [u8; 6] = [0x16, 0, 0, 0, 0, 0];
const BOTH: GateBits = GateBits::DENY_READ.and(GateBits::DENY_WRITE);

fn preempt(c: &Cluster, node: usize, action: u8, kind: u8, victim: u64) -> Box<dyn Change> {
    c.change(node, &out_cdb(action, kind, 24), &list(KEYS[node], victim, 0))
}

fn grant(mut change: Box<dyn Change>) -> Answer {
    execute(change.grant(), &mut IoBuf::empty(), &AbortFlag::default())
}

fn denied(c: &Cluster) -> [GateBits; 3] {
    [0, 1, 2].map(|node| c.itl(node).gate().bits().common(GateBits::DENY))
}

#[test]
fn those_who_lose_lose_first_and_those_who_gain_gain_last() {
    let c = Cluster::reserved(3);
    let (first, third) = (c.itl(0).nexus(), c.itl(2).nexus());
    assert_eq!(denied(&c), [GateBits::NONE, BOTH, BOTH]);
    let mut change = preempt(&c, 1, PREEMPT, 3, KEYS[0]);
    assert_eq!(denied(&c), [GateBits::NONE, BOTH, BOTH]);
    let fence = Fence { persists: false, losers: Losers::These(vec![(first, BOTH)]), aborts: vec![] };
    assert_eq!(change.evaluate(), Ok(fence));
    assert_eq!(denied(&c), [GateBits::NONE, BOTH, BOTH], "nothing has happened");
    assert_eq!((c.keys().1, c.attentions()), (KEYS.to_vec(), [vec![], vec![], vec![]]));
    change.apply();
    assert_eq!(denied(&c), [BOTH, BOTH, BOTH], "the new holder has to wait");
    assert_eq!(c.attentions(), [vec![Attention::RegistrationsPreempted], vec![], vec![]]);
    assert_eq!(c.reservation(), Some((KEYS[1], 3)));
    assert_eq!(grant(change), GOOD);
    assert_eq!(denied(&c), [BOTH, GateBits::NONE, BOTH]);
    // A mere registration: nobody loses by it, and its tasks are to be aborted.
    let mut change = preempt(&c, 1, PREEMPT_AND_ABORT, 3, KEYS[2]);
    let fence = Fence { persists: false, losers: Losers::Nobody, aborts: vec![third] };
    assert_eq!(change.evaluate(), Ok(fence));
}

#[test]
fn a_reserve_takes_from_all_others() {
    let c = Cluster::registered(2);
    let nexuses = [0, 1, 2].map(|node| c.itl(node).nexus());
    let losers = |kind| {
        let mut change = c.change(0, &out_cdb(RESERVE, kind, 24), &list(KEYS[0], 0, 0));
        change.evaluate().unwrap().losers
    };
    let write = GateBits::DENY_WRITE;
    assert_eq!(losers(1), Losers::These(vec![(nexuses[1], write), (nexuses[2], write)]));
    assert_eq!(losers(3), Losers::These(vec![(nexuses[1], BOTH), (nexuses[2], BOTH)]));
    assert_eq!(losers(5), Losers::These(vec![(nexuses[2], write)]));
    assert_eq!(losers(8), Losers::These(vec![(nexuses[2], BOTH)]));
    let c = Cluster::new();
    let spc2 = GateBits::DENY_SPC2;
    let fence = c.change(1, &RESERVE_6, &[]).evaluate().unwrap();
    let nexuses = [0, 2].map(|node| c.itl(node).nexus());
    assert_eq!(fence.losers, Losers::These(vec![(nexuses[0], spc2), (nexuses[1], spc2)]));
}

#[test]
fn a_change_that_is_dropped_has_done_nothing() {
    let c = Cluster::registered(2);
    for evaluated in [false, true] {
        let mut change = c.change(0, &out_cdb(RESERVE, 3, 24), &list(KEYS[0], 0, 0));
        if evaluated {
            change.evaluate().unwrap();
        }
        drop(change);
        assert_eq!((denied(&c), c.reservation()), ([GateBits::NONE; 3], None));
        assert_eq!(nexus_of(c.itl(0).lu().clone(), None).gate().bits(), GateBits::NONE);
    }
}

/// One that is dropped late, when the next one has been evaluated, leaves that one alone.
#[test]
fn a_change_that_is_dropped_leaves_the_next_one() {
    let c = Cluster::registered(2);
    let reserve = |node: usize| c.change(node, &out_cdb(RESERVE, 3, 24), &list(KEYS[node], 0, 0));
    let (mut first, mut next) = (reserve(0), reserve(1));
    first.evaluate().unwrap();
    next.evaluate().unwrap();
    drop(first);
    next.apply();
    assert_eq!(grant(next), GOOD);
    assert_eq!(c.reservation(), Some((KEYS[1], 3)));
}

/// It is judged when its turn comes, not when it arrives.
#[test]
fn a_change_is_judged_in_its_turn() {
    let c = Cluster::registered(2);
    let mut late = preempt(&c, 0, PREEMPT, 1, KEYS[1]);
    assert_eq!(c.out(1, PREEMPT, 1, KEYS[1], KEYS[0]), GOOD);
    assert_eq!(late.evaluate(), Err(CONFLICT), "it is not registered any more");
    assert_eq!(c.keys().1, [KEYS[1]]);
}

/// A nexus that comes while a change is on its way begins nothing that the change forbids.
#[test]
fn who_comes_between() {
    let c = Cluster::registered(1);
    let lu = c.itl(0).lu();
    let mut change = c.change(0, &out_cdb(RESERVE, 3, 24), &list(KEYS[0], 0, 0));
    let come = || nexus_of(lu.clone(), None);
    change.evaluate().unwrap();
    let evaluated = come();
    change.apply();
    let applied = come();
    assert_eq!(grant(change), GOOD);
    for itl in [evaluated, applied, come()] {
        assert_eq!(itl.gate().bits(), BOTH);
    }
    // While a release is on its way it may do no more than before.
    let mut change = c.change(0, &out_cdb(RELEASE, 3, 24), &list(KEYS[0], 0, 0));
    change.evaluate().unwrap();
    let evaluated = come();
    change.apply();
    let applied = come();
    assert_eq!([evaluated.gate().bits(), applied.gate().bits()], [BOTH; 2]);
    assert_eq!(grant(change), GOOD);
    assert_eq!([evaluated.gate().bits(), applied.gate().bits()], [GateBits::NONE; 2]);
}

/// What ends RESERVE takes no turn: it can come at any step of one that makes it.
#[test]
fn loss_and_reset_between() {
    for step in 0..3 {
        for reset in [false, true] {
            let c = Cluster::new();
            let end = |at| {
                if at == step && reset {
                    c.itl(1).lu().reset();
                } else if at == step {
                    c.itl(0).lose_nexus();
                }
            };
            let mut change = c.change(0, &RESERVE_6, &[]);
            change.evaluate().unwrap();
            end(0);
            change.apply();
            end(1);
            assert_eq!(grant(change), Answer::good(0));
            end(2);
            c.attentions();
            assert_eq!(denied(&c), [GateBits::NONE; 3], "{step} {reset}");
            assert_eq!(c.none(1, &RESERVE_6), Answer::good(0), "it is free");
        }
    }
}

/// A nexus that is lost in the middle of another's change keeps what is persistent.
#[test]
fn a_loss_leaves_a_persistent_change_alone() {
    let c = Cluster::reserved(3);
    let mut change = preempt(&c, 1, PREEMPT, 3, KEYS[0]);
    change.evaluate().unwrap();
    c.itl(2).lose_nexus();
    change.apply();
    c.itl(1).lose_nexus();
    assert_eq!(denied(&c), [BOTH, BOTH, BOTH], "nobody gains before the change is granted");
    assert_eq!(grant(change), GOOD);
    assert_eq!(denied(&c), [BOTH, GateBits::NONE, BOTH]);
}

/// What is written is what will be, before it is; if it cannot be written nothing is different.
#[test]
fn keeping() {
    let keeper = Arc::new(MemKeeper::default());
    let c = Cluster::with(|setup| setup.keeper = Some(keeper.clone()));
    c.register(2);
    assert_eq!(keeper.count(), 2);
    assert_eq!(c.out(0, RESERVE, 3, KEYS[0], 0), GOOD);
    assert_eq!(c.out(0, RESERVE, 3, KEYS[0], 0), GOOD);
    assert_eq!(keeper.count(), 3, "what changes nothing is not written");

    let mut change = preempt(&c, 1, PREEMPT, 3, KEYS[0]);
    assert!(change.evaluate().unwrap().persists);
    assert_eq!(change.persist(), Ok(()));
    let kept = keeper.last();
    assert_eq!(kept.reservations.registrations.iter().map(|r| r.key).collect::<Vec<_>>(), [KEYS[1]]);
    let of = |node: usize| kept.nexuses.iter().find(|kept| kept.nexus == c.itl(node).nexus()).unwrap();
    assert_eq!(of(0).attentions, [Attention::RegistrationsPreempted], "with what its nexus will be told");
    assert_eq!((&of(1).attentions, &of(2).attentions), (&vec![], &vec![]));
    assert_eq!(c.reservation(), Some((KEYS[0], 3)), "it is not yet");
    change.apply();
    assert_eq!(grant(change), GOOD);
    let shown = c.itl(0).lu().snapshot();
    assert_eq!(shown.reservations, kept.reservations);

    keeper.fails.store(true, Ordering::Relaxed);
    c.attentions();
    let failed = check(Sense::new(SenseKey::HardwareError, AdditionalSense(0x4400)));
    assert_eq!(c.out(1, RELEASE, 3, KEYS[1], 0), failed);
    assert_eq!(c.out(2, REGISTER, 0, 0, KEYS[2]), failed);
    assert_eq!((c.keys().1, c.reservation()), (vec![KEYS[1]], Some((KEYS[1], 3))));
    assert_eq!(denied(&c), [BOTH, GateBits::NONE, BOTH]);
    assert_eq!(c.itl(0).lu().snapshot().reservations, kept.reservations);
    keeper.fails.store(false, Ordering::Relaxed);
    assert_eq!(c.out(1, RELEASE, 3, KEYS[1], 0), GOOD);
}

/// A process that goes on with what was kept finds nexuses, registrations and gates as they were.
#[test]
fn going_on() {
    let keeper = Arc::new(MemKeeper::default());
    let c = Cluster::with(|setup| setup.keeper = Some(keeper.clone()));
    c.register(2);
    assert_eq!(c.out(0, RESERVE, 5, KEYS[0], 0), GOOD);
    assert_eq!(c.out(0, PREEMPT, 5, KEYS[0], KEYS[1]), GOOD);
    let kept = keeper.last();
    let ids = [0, 1, 2].map(|node| c.itl(node).nexus());
    let next = Bench::with(MemImage::patterned(51_200), |setup| setup.kept = Some(kept));
    let lu = next.itl.lu();
    let nexuses = ids.map(|id| Itl::new(lu.clone(), id, Some(Attention::PowerOn)));
    let gates = nexuses.each_ref().map(|itl| itl.gate().bits().common(GateBits::DENY));
    assert_eq!(gates, [GateBits::NONE, GateBits::DENY_WRITE, GateBits::DENY_WRITE]);
    let told = nexuses.each_ref().map(|itl| itl.gate().take_attention());
    assert_eq!(told, [None, Some(Attention::RegistrationsPreempted), None]);
}

/// Who is registered and not there hears of it when it comes.
#[test]
fn an_absent_nexus_is_told_when_it_comes() {
    let c = Cluster::reserved(5);
    let gone = crate::lu::NexusId { initiator: [0x77; 16], port: 1 };
    let lu = c.itl(0).lu();
    let was = Bench::of(c.nodes[0].image.clone(), Itl::new(lu.clone(), gone, None));
    assert_eq!(was.data_out(&out_cdb(REGISTER, 0, 24), &list(0, 0x77, 0)), GOOD);
    was.itl.end();
    drop(was);
    assert_eq!(c.out(0, PREEMPT, 5, KEYS[0], 0x77), GOOD);
    let again = Itl::new(lu.clone(), gone, Some(Attention::PowerOn));
    let told: Vec<_> = std::iter::from_fn(|| again.gate().take_attention()).collect();
    assert_eq!(told, [Attention::NexusLoss, Attention::RegistrationsPreempted]);
    assert_eq!(again.gate().bits(), GateBits::DENY_WRITE);
}

/// One thing that happens.
#[derive(Clone, Copy, Debug)]
enum Event {
    /// A node sends a PERSISTENT RESERVE OUT with the key it has, naming somebody's.
    Out { node: usize, action: u8, kind: usize, victim: usize },
    /// RESERVE or RELEASE.
    Legacy { node: usize, opcode: u8 },
}

/// What happens in the middle of it, at one of its steps: nothing, the loss of a node, a reset, somebody new.
type Between = (usize, usize);

fn event() -> impl Strategy<Value = (Event, Between)> {
    let out = (0..3_usize, 0..7_u8, 0..6_usize, 0..3_usize).prop_map(|(node, action, kind, victim)| Event::Out {
        node,
        action,
        kind,
        victim,
    });
    let legacy = (0..3_usize, 0x16..=0x17_u8).prop_map(|(node, opcode)| Event::Legacy { node, opcode });
    (prop_oneof![5 => out, 1 => legacy], (0..4_usize, 0..10_usize))
}

proptest! {
    /// Whatever happens in whatever order: between changes each gate says what the state says, and nobody gains in the middle
    /// of one.
    #[test]
    fn gates_say_what_the_state_says(events in proptest::collection::vec(event(), 1..30)) {
        let c = Cluster::new();
        let lu = c.itl(0).lu();
        let mut late: Vec<Arc<Itl>> = Vec::new();
        for (event, (at, what)) in events {
            let before = lu.reservations(Clone::clone);
            let change = match event {
                Event::Out { node, action, kind, victim } => {
                    // REGISTER comes from nodes that are registered as well as from those that are not.
                    let key = lu.reservations(|state| state.key_of(c.itl(node).nexus())).unwrap_or(0);
                    let service_key = if action == REGISTER && victim == 0 { 0 } else { KEYS[victim] };
                    c.unless_stopped(node, &out_cdb(action, ALL_TYPES[kind], 24), &list(key, service_key, 0))
                }
                Event::Legacy { node, opcode } => c.unless_stopped(node, &[opcode, 0, 0, 0, 0, 0], &[]),
            };
            let Some(mut change) = change else { continue };
            let mut between = |step: usize| match what {
                _ if step != at => {}
                0..3 => c.itl(what).lose_nexus(),
                3 => lu.reset(),
                4 => late.push(nexus_of(lu.clone(), None)),
                _ => {}
            };
            between(0);
            if change.evaluate().is_ok() {
                between(1);
                change.apply();
                between(2);
                // Only the end of RESERVE gives anything before the change is granted.
                for itl in &c.nodes.each_ref().map(|node| node.itl.clone()) {
                    let persistent = before.denial(itl.nexus()).bits().without(GateBits::DENY_SPC2);
                    prop_assert_eq!(itl.gate().bits().common(persistent), persistent);
                }
                grant(change);
            }
            between(3);
            for itl in c.nodes.iter().map(|node| &node.itl).chain(&late) {
                let expected = lu.reservations(|state| state.denial(itl.nexus()).bits());
                prop_assert_eq!(itl.gate().bits().common(GateBits::DENY), expected);
            }
            c.attentions();
        }
    }
}
