//! Random sequences: the machine against the model, and what must be true after every step.

use std::cell::RefCell;
use std::collections::HashSet;

use proptest::prelude::*;
use proptest::test_runner::{Config, TestRunner};

use super::model::{Done, Model, NEXUSES, id, number};
use super::*;
use crate::lu::Attention;
use crate::lu::reservation::{Denial, losers};

/// A key, by what it is at that moment.
#[derive(Clone, Copy, Debug)]
enum Key {
    /// Under which the nexus that asks is registered; zero if it is not.
    Own,
    /// Under which another is.
    Of(usize),
    /// That of the persistent reservation's holder.
    Holders,
    Number(u64),
}

#[derive(Clone, Debug)]
enum Step {
    Register {
        ignore_existing: bool,
        key: Key,
        new_key: u64,
        aptpl: bool,
        targets: Registrants,
    },
    Reserve(Key, ReservationType),
    /// Of the type that there is, or of this one.
    Release(Key, Option<ReservationType>),
    Clear(Key),
    Preempt {
        key: Key,
        victim: Key,
        kind: ReservationType,
        abort: bool,
    },
    Move {
        key: Key,
        new_key: u64,
        unregister: bool,
        aptpl: bool,
        to: NexusId,
    },
    Plain(Action),
}

impl Step {
    fn action(self, by: usize, model: &Model, state: &ReservationState) -> Action {
        let resolve = |key| match key {
            Key::Own => model.keys[by],
            Key::Of(nexus) => model.keys[nexus],
            Key::Holders => state.reservation_key().unwrap_or(0),
            Key::Number(number) => number,
        };
        match self {
            Step::Register { ignore_existing, key, new_key, aptpl, targets } => {
                Action::Register { ignore_existing, key: resolve(key), new_key, aptpl, targets }
            }
            Step::Reserve(key, kind) => Action::Reserve { key: resolve(key), kind },
            Step::Release(key, kind) => {
                let there = state.reservation.map_or(ReservationType::WriteExclusive, |there| there.kind);
                Action::Release { key: resolve(key), kind: kind.unwrap_or(there) }
            }
            Step::Clear(key) => Action::Clear { key: resolve(key) },
            Step::Preempt { key, victim, kind, abort } => {
                Action::Preempt { key: resolve(key), victim: resolve(victim), kind, abort }
            }
            Step::Move { key, new_key, unregister, aptpl, to } => {
                Action::RegisterAndMove { key: resolve(key), new_key, unregister, aptpl, to }
            }
            Step::Plain(action) => action,
        }
    }
}

/// Keys are few, so that nexuses often share one.
fn any_key() -> impl Strategy<Value = u64> {
    0..4u64
}

fn key() -> impl Strategy<Value = Key> {
    prop_oneof![8 => Just(Key::Own), 1 => (0..NEXUSES).prop_map(Key::Of), 1 => any_key().prop_map(Key::Number)]
}

fn victim() -> impl Strategy<Value = Key> {
    prop_oneof![
        3 => Just(Key::Holders),
        3 => (0..NEXUSES).prop_map(Key::Of),
        1 => Just(Key::Own),
        1 => Just(Key::Number(0)),
        1 => any_key().prop_map(Key::Number),
    ]
}

fn kind() -> impl Strategy<Value = ReservationType> {
    prop::sample::select(ReservationType::ALL.to_vec())
}

fn targets() -> impl Strategy<Value = Registrants> {
    let initiators = prop::collection::vec((b'a'..=b'd').prop_map(|initiator| [initiator; 16]), 0..4);
    let initiators = prop_oneof![3 => Just(None), 1 => initiators.prop_map(Some)];
    (prop::bool::weighted(0.25), initiators)
        .prop_map(|(all_target_ports, initiators)| Registrants { all_target_ports, initiators })
}

/// Who asks.
#[derive(Clone, Copy, Debug)]
enum Who {
    Number(usize),
    /// The holder of the persistent reservation.
    Holder,
    /// One of those that are registered.
    Registered(usize),
}

impl Who {
    fn by(self, state: &ReservationState) -> usize {
        match self {
            Who::Number(nexus) => nexus,
            Who::Holder => state.reservation.and_then(|there| there.holder).map_or(0, number),
            Who::Registered(at) => {
                let registered = state.registrations.iter().cycle().nth(at);
                registered.map_or(at, |one| number(one.nexus))
            }
        }
    }
}

fn who() -> impl Strategy<Value = Who> {
    prop_oneof![
        2 => (0..6usize).prop_map(Who::Number),
        1 => Just(Who::Holder),
        2 => (0..NEXUSES).prop_map(Who::Registered),
    ]
}

fn step() -> impl Strategy<Value = Step> {
    let register = (any::<bool>(), key(), any_key(), any::<bool>(), targets()).prop_map(
        |(ignore_existing, key, new_key, aptpl, targets)| Step::Register {
            ignore_existing,
            key,
            new_key,
            aptpl,
            targets,
        },
    );
    let preempt = (key(), victim(), kind(), any::<bool>()).prop_map(|(key, victim, kind, abort)| Step::Preempt {
        key,
        victim,
        kind,
        abort,
    });
    // One destination in nine is by a port that does not exist.
    let to = (0..=NEXUSES).prop_map(|to| if to < NEXUSES { id(to) } else { nexus(b'd', 3) });
    let moves = (key(), any_key(), any::<bool>(), any::<bool>(), to)
        .prop_map(|(key, new_key, unregister, aptpl, to)| Step::Move { key, new_key, unregister, aptpl, to });
    let plain = prop::sample::select(vec![
        Action::ReplaceLostReservation,
        Action::Reserve6,
        Action::Reserve6,
        Action::Release6,
        Action::LoseNexus,
        Action::ResetUnit,
    ]);
    prop_oneof![
        6 => register,
        4 => (key(), kind()).prop_map(|(key, kind)| Step::Reserve(key, kind)),
        2 => (key(), prop::option::weighted(0.3, kind())).prop_map(|(key, kind)| Step::Release(key, kind)),
        1 => key().prop_map(Step::Clear),
        4 => preempt,
        3 => moves,
        3 => plain.prop_map(Step::Plain),
    ]
}

/// What can happen.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
enum Sight {
    /// An action was done, or refused.
    Outcome(&'static str, Result<(), Refusal>),
    /// Under a reservation of this type (0: none), somebody was told this.
    Told(&'static str, u8, Attention),
    /// ... or was aborted.
    Aborts(u8),
}

/// What happened, lest it is nothing.
type Seen = RefCell<HashSet<Sight>>;

fn name(action: &Action) -> &'static str {
    match action {
        Action::Register { .. } => "REGISTER",
        Action::Reserve { .. } => "RESERVE",
        Action::Release { .. } => "RELEASE",
        Action::Clear { .. } => "CLEAR",
        Action::Preempt { .. } => "PREEMPT",
        Action::RegisterAndMove { .. } => "MOVE",
        Action::ReplaceLostReservation => "REPLACE",
        Action::Reserve6 => "RESERVE(6)",
        Action::Release6 => "RELEASE(6)",
        Action::LoseNexus => "loss",
        Action::ResetUnit => "reset",
    }
}

/// What the machine did, in the model's words.
pub fn done(change: &Change) -> Done {
    let mut done = Done::default();
    for (nexus, attention) in &change.attentions {
        assert_eq!(done.told[number(*nexus)].replace(*attention), None, "told twice");
    }
    for nexus in &change.aborts {
        assert!(!std::mem::replace(&mut done.aborted[number(*nexus)], true), "aborted twice");
    }
    done
}

/// What is true of every state.
pub fn is_sound(state: &ReservationState) {
    for (at, registration) in state.registrations.iter().enumerate() {
        assert_ne!(registration.key, 0);
        let same = |other: &Registration| other.nexus == registration.nexus;
        assert!(!state.registrations[..at].iter().any(same), "registered twice");
    }
    if let Some(reservation) = state.reservation {
        assert_eq!(reservation.holder.is_none(), reservation.kind.is_all_registrants());
        assert!(reservation.holder.is_none_or(|holder| state.is_registered(holder)));
        assert!(!state.registrations.is_empty());
        assert_eq!(state.legacy, None);
    }
    assert!(state.legacy.is_none() || state.registrations.is_empty());
    for nexus in (0..NEXUSES).map(id) {
        if state.is_holder(nexus) {
            assert_eq!(state.denial(nexus), Denial::NONE);
        }
    }
}

/// What is true of every change.
fn is_fair(before: &ReservationState, by: NexusId, action: &Action, change: &Change) {
    let after = &change.state;
    for (nexus, _) in &change.attentions {
        assert_ne!(*nexus, by, "never the one that acted");
        assert!(before.is_registered(*nexus), "only who was registered");
    }
    for nexus in &change.aborts {
        assert!(matches!(action, Action::Preempt { abort: true, .. }) && before.is_registered(*nexus));
    }
    assert!(after.generation == before.generation || after.generation == before.generation + 1);
    // Who stays registered stays in its place, who is new comes last.
    let stayed = before.registrations.iter().filter(|one| after.is_registered(one.nexus)).map(|one| one.nexus);
    let listed: Vec<_> = after.registrations.iter().map(|one| one.nexus).collect();
    assert!(listed.starts_with(&stayed.collect::<Vec<_>>()));
    // Access is lost by who is not exempt any more, and by nobody else.
    let lost = losers(before, after, (0..NEXUSES).map(id));
    for nexus in (0..NEXUSES).map(id) {
        let (had, has) = (before.denial(nexus), after.denial(nexus));
        let less = (has.read && !had.read) || (has.write && !had.write) || (has.spc2 && !had.spc2);
        assert_eq!(lost.iter().any(|(loser, _)| *loser == nexus), less);
    }
    // Whoever is unregistered by another is told so.
    for gone in before.registrations.iter().filter(|one| one.nexus.initiator != by.initiator) {
        let told = change.attentions.iter().any(|(nexus, _)| *nexus == gone.nexus);
        assert!(after.is_registered(gone.nexus) || told);
    }
}

fn run(room: usize, steps: Vec<(Who, Step)>, seen: &Seen) {
    let context = Context { target_ports: &[1, 2], max_registrations: room };
    let mut state = ReservationState::default();
    let mut model = Model { room, ..Model::default() };
    for (who, step) in steps {
        let by = who.by(&state);
        let action = step.action(by, &model, &state);
        let under = model.held.map_or(0, |(kind, _)| kind);
        let should = model.ask(by, &action);
        let is = perform(&state, id(by), &action, &context);
        assert_eq!(is.as_ref().map(done).map_err(|refusal| *refusal), should, "{by} {action:?} in {state:?}");

        let mut seen = seen.borrow_mut();
        let mut see = |sight| seen.insert(sight);
        see(Sight::Outcome(name(&action), is.as_ref().map(|_| ()).map_err(|refusal| *refusal)));
        if let Ok(change) = is {
            is_fair(&state, id(by), &action, &change);
            for (_, attention) in &change.attentions {
                see(Sight::Told(name(&action), under, *attention));
            }
            if !change.aborts.is_empty() {
                see(Sight::Aborts(under));
            }
            state = change.state;
        }
        is_sound(&state);
        assert_eq!(Model { room, ..Model::of(&state) }, model, "after {by} {action:?}");
        for nexus in 0..NEXUSES {
            let denial = state.denial(id(nexus));
            assert_eq!([denial.read, denial.write, denial.spc2], model.conflicts(nexus), "{nexus}");
        }
    }
}

/// All that can happen.
fn all_there_is() -> HashSet<Sight> {
    use Refusal::{Conflict, InvalidInCdb, InvalidParameter, InvalidRelease, NoResources};
    let done_or: [(&str, &[Refusal]); 10] = [
        ("REGISTER", &[Conflict, InvalidParameter, NoResources]),
        ("RESERVE", &[Conflict]),
        ("RELEASE", &[Conflict, InvalidRelease]),
        ("CLEAR", &[Conflict]),
        ("PREEMPT", &[Conflict, InvalidParameter]),
        ("MOVE", &[Conflict, InvalidParameter, InvalidInCdb, NoResources]),
        ("RESERVE(6)", &[Conflict]),
        ("RELEASE(6)", &[Conflict]),
        ("loss", &[]),
        ("reset", &[]),
    ];
    let never_done = [Conflict, InvalidRelease].map(|refusal| Sight::Outcome("REPLACE", Err(refusal)));
    let told: [(&str, &[u8], Attention); 5] = [
        ("REGISTER", &[5, 6], Attention::ReservationsReleased),
        ("RELEASE", &[5, 6, 7, 8], Attention::ReservationsReleased),
        ("CLEAR", &[0, 1, 3, 5, 6, 7, 8], Attention::ReservationsPreempted),
        ("PREEMPT", &[0, 1, 3, 5, 6, 7, 8], Attention::RegistrationsPreempted),
        ("PREEMPT", &[1, 3, 5, 6], Attention::ReservationsReleased),
    ];
    let mut all: HashSet<_> = never_done.into_iter().chain([0, 1, 3, 5, 6, 7, 8].map(Sight::Aborts)).collect();
    for (name, refusals) in done_or {
        all.insert(Sight::Outcome(name, Ok(())));
        all.extend(refusals.iter().map(|refusal| Sight::Outcome(name, Err(*refusal))));
    }
    for (name, kinds, attention) in told {
        all.extend(kinds.iter().map(|kind| Sight::Told(name, *kind, attention)));
    }
    all
}

#[test]
fn the_machine_does_what_the_model_does() {
    let seen = Seen::default();
    let all = all_there_is();
    // Little room as often as enough.
    let sequence = (prop::sample::select(vec![2, 3, 5, NEXUSES]), prop::collection::vec((who(), step()), 1..50));
    // Two rounds, and more if something rare has not happened by then.
    for round in 0..20 {
        if round >= 2 && all.iter().all(|sight| seen.borrow().contains(sight)) {
            break;
        }
        let config = Config { cases: 1000, failure_persistence: None, ..Config::default() };
        let result = TestRunner::new(config).run(&sequence, |(room, steps)| {
            run(room, steps, &seen);
            Ok(())
        });
        if let Err(error) = result {
            panic!("{error}");
        }
    }
    let kinds = seen.into_inner();
    assert!(kinds.is_subset(&all), "cannot happen: {:?}", kinds.difference(&all));
    assert!(all.is_subset(&kinds), "did not happen: {:?}", all.difference(&kinds));
}
