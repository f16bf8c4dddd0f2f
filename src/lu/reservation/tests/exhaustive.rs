//! A small world, all of it: every state that four nexuses with two keys can reach, and in each of them every
//! action of every nexus, the machine against the model.

use std::collections::{HashSet, VecDeque};

use super::model::{Model, id};
use super::random::{done, is_sound};
use super::*;

/// Both nexuses of two initiator ports.
const WORLD: usize = 4;
const KEYS: [u64; 3] = [0, 1, 2];

fn every_action() -> Vec<Action> {
    let mut actions =
        vec![Action::ReplaceLostReservation, Action::Reserve6, Action::Release6, Action::LoseNexus, Action::ResetUnit];
    let initiators = [None, Some(vec![]), Some(vec![[b'a'; 16]]), Some(vec![[b'b'; 16]])];
    for key in KEYS {
        actions.push(Action::Clear { key });
        for kind in ReservationType::ALL {
            actions.push(Action::Reserve { key, kind });
            actions.push(Action::Release { key, kind });
            actions.extend(KEYS.map(|victim| Action::Preempt { key, victim, kind, abort: true }));
        }
        for new_key in KEYS {
            for to in (0..WORLD).map(id) {
                actions.extend([false, true].map(|unregister| Action::RegisterAndMove {
                    key,
                    new_key,
                    unregister,
                    aptpl: false,
                    to,
                }));
            }
            for initiators in &initiators {
                for (all_target_ports, ignore_existing) in [(false, false), (false, true), (true, false), (true, true)]
                {
                    let targets = Registrants { all_target_ports, initiators: initiators.clone() };
                    actions.push(Action::Register { ignore_existing, key, new_key, aptpl: false, targets });
                }
            }
        }
    }
    actions
}

#[test]
fn every_action_in_every_state() {
    let room = 3;
    let context = Context { target_ports: &[1, 2], max_registrations: room };
    let actions = every_action();
    let first = Model { room, ..Model::default() };
    let mut known = HashSet::from([first]);
    let mut queue = VecDeque::from([ReservationState::default()]);
    while let Some(state) = queue.pop_front() {
        let before = Model { room, ..Model::of(&state) };
        for nexus in 0..WORLD {
            let denial = state.denial(id(nexus));
            assert_eq!([denial.read, denial.write, denial.spc2], before.conflicts(nexus), "{nexus} in {state:?}");
        }
        for by in 0..WORLD {
            for action in &actions {
                let mut model = before.clone();
                let should = model.ask(by, action);
                let is = perform(&state, id(by), action, &context);
                assert_eq!(is.as_ref().map(done).map_err(|refusal| *refusal), should, "{by} {action:?} in {state:?}");
                let Ok(change) = is else { continue };
                assert_eq!(Model { room, ..Model::of(&change.state) }, model, "after {by} {action:?} in {state:?}");
                // How often something was counted makes no other state.
                let (after, model) =
                    (ReservationState { generation: 0, ..change.state }, Model { generation: 0, ..model });
                if known.insert(model) {
                    is_sound(&after);
                    queue.push_back(after);
                }
            }
        }
    }
    // Nobody is registered and RESERVE is nobody's or one of four's; or one is, two are or three, under either key. Then there is no
    // reservation, one of the two types that all registrants hold, or one of the four others that any of them holds.
    let registered = [(8, 1), (24, 2), (32, 3)];
    let states: usize = registered.iter().map(|(ways, nexuses)| ways * (1 + 2 + 4 * nexuses)).sum();
    assert_eq!(known.len(), 1 + WORLD + states);
}
