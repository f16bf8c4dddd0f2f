//! What guests may see of reservations: every state that explains the answers they got.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, missing_docs, reason = "test code")]

use vstgt::lu::reservation::{
    Action, Context, PersistentReservation, Registrants, Registration, ReservationState, ReservationType, perform,
};
use vstgt::lu::{Attention, NexusId};

/// A command of the traffic.
#[derive(Clone, Debug)]
pub enum Command {
    TestUnitReady,
    Reserve(Action),
    /// MODE SELECT of the control mode page: QERR.
    SetQerr(u8),
}

/// How a command ended.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Ended {
    Good,
    Conflict,
    /// A unit attention: ADDITIONAL SENSE CODE and qualifier.
    Attention(u16),
    /// Other sense data.
    Refused(u16),
    /// Another command ended it, or there was no answer any more: who knows.
    Unknown,
}

/// COMMANDS CLEARED BY ANOTHER INITIATOR: told if PREEMPT AND ABORT found a command under way, which nobody can foresee.
pub const CLEARED: u16 = 0x2f00;

/// One way things may be: what is reserved, QERR, and what is pending for each guest, most urgent first.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct World {
    pub state: ReservationState,
    pub qerr: u8,
    pub pending: Vec<(NexusId, Vec<Attention>)>,
}

impl World {
    fn pending_of(&mut self, nexus: NexusId) -> &mut Vec<Attention> {
        &mut self.pending.iter_mut().find(|(id, _)| *id == nexus).expect("a guest").1
    }

    /// What becomes of a command, and the world after it. `unseen`: its gate was passed before what is pending was established.
    fn step(&self, by: NexusId, command: &Command, unseen: bool) -> (Ended, World) {
        let mut after = self.clone();
        // Ahead of unit attentions that are no resets; and of those there are none but at the beginning.
        if matches!(command, Command::SetQerr(_)) && self.state.denial(by).write {
            return (Ended::Conflict, after);
        }
        let pending = after.pending_of(by);
        if !pending.is_empty() && !unseen {
            return (Ended::Attention(pending.remove(0).code().0), after);
        }
        let action = match command {
            Command::TestUnitReady => return (Ended::Good, after),
            Command::SetQerr(qerr) => {
                if after.qerr != *qerr {
                    after.qerr = *qerr;
                    let others: Vec<_> = after.pending.iter().map(|(id, _)| *id).filter(|id| *id != by).collect();
                    others.into_iter().for_each(|other| after.tell(other, Attention::ModeParametersChanged));
                }
                return (Ended::Good, after);
            }
            Command::Reserve(action) => action,
        };
        match perform(&self.state, by, action, &Context { target_ports: &[1], max_registrations: 1024 }) {
            Err(refusal) => match refusal.sense() {
                None => (Ended::Conflict, after),
                Some(sense) => (Ended::Refused(sense.code.0), after),
            },
            Ok(change) => {
                after.state = change.state;
                change.attentions.into_iter().for_each(|(nexus, attention)| after.tell(nexus, attention));
                (Ended::Good, after)
            }
        }
    }

    fn tell(&mut self, nexus: NexusId, attention: Attention) {
        let pending = self.pending_of(nexus);
        if !pending.contains(&attention) {
            pending.push(attention);
            pending.sort_by_key(|attention| attention.bit());
        }
    }

    /// What a loss of power leaves.
    pub fn power_loss(&mut self) {
        self.state = std::mem::take(&mut self.state).after_power_loss();
        self.qerr = 0;
        self.pending.iter_mut().for_each(|(_, pending)| *pending = vec![Attention::PowerOn]);
    }
}

/// The worlds that explain commands of several nexuses that were under way at once, and how they ended.
pub fn explain(worlds: &[World], commands: &[(NexusId, Command, Ended)]) -> Vec<World> {
    let mut found: Vec<World> = Vec::new();
    for world in worlds {
        for order in orders(commands.len()) {
            // Gates that let everything pass when the commands came.
            let passed: Vec<bool> = commands.iter().map(|(by, ..)| world.clone().pending_of(*by).is_empty()).collect();
            let mut branches = vec![world.clone()];
            for &at in &order {
                let (by, command, ended) = &commands[at];
                let mut next = Vec::new();
                for branch in branches {
                    if *ended == Ended::Unknown {
                        // Not begun; or ended by what it would have reported, which is reported to nobody then.
                        next.push(branch.clone());
                    }
                    if *ended == Ended::Attention(CLEARED) {
                        next.push(branch);
                        continue;
                    }
                    for unseen in [false, true] {
                        if unseen && !passed[at] {
                            continue;
                        }
                        let (would_end, after) = branch.step(*by, command, unseen);
                        let took = matches!(would_end, Ended::Attention(_));
                        if would_end == *ended || *ended == Ended::Unknown && !took {
                            next.push(after);
                        }
                    }
                }
                branches = next;
            }
            for branch in branches {
                if !found.contains(&branch) {
                    found.push(branch);
                }
            }
        }
    }
    found
}

/// Of two or fewer.
fn orders(count: usize) -> Vec<Vec<usize>> {
    match count {
        0 => vec![vec![]],
        1 => vec![vec![0]],
        2 => vec![vec![0, 1], vec![1, 0]],
        _ => panic!("too many at once"),
    }
}

/// What PERSISTENT RESERVE IN shows of a state: READ FULL STATUS's data.
pub fn full_status(state: &ReservationState) -> Vec<u8> {
    let mut data = state.generation.to_be_bytes().to_vec();
    data.extend((48 * state.registrations.len() as u32).to_be_bytes());
    for Registration { nexus, key } in &state.registrations {
        let holds = state.reservation.filter(|r| r.holder.is_none_or(|holder| holder == *nexus));
        data.extend(key.to_be_bytes());
        data.extend([0; 4]);
        data.push(holds.is_some().into());
        data.push(holds.map_or(0, |PersistentReservation { kind, .. }| kind.code()));
        data.extend([0; 4]);
        data.extend(nexus.port.to_be_bytes());
        data.extend(24u32.to_be_bytes());
        // TransportID: SRP, then the initiator port identifier.
        data.extend([4, 0, 0, 0, 0, 0, 0, 0]);
        data.extend(nexus.initiator);
    }
    data
}

/// Random traffic.
pub fn command(random: &mut impl FnMut(u64) -> u64, aptpl: bool) -> Command {
    let kinds = [1, 3, 5, 6, 7, 8].map(|code| ReservationType::from_code(code).unwrap());
    let kind = kinds[random(6) as usize];
    // Few keys, so that they often fit.
    let (key, other) = (random(3), random(3));
    let register = |ignore_existing, random: &mut dyn FnMut(u64) -> u64| Action::Register {
        ignore_existing,
        key,
        new_key: other,
        aptpl: aptpl && random(2) == 0,
        targets: Registrants::THIS_NEXUS,
    };
    Command::Reserve(match random(14) {
        0..=3 => register(true, random),
        4 => register(false, random),
        5 | 6 => Action::Reserve { key, kind },
        7 => Action::Release { key, kind },
        8 => Action::Clear { key },
        9 => Action::Preempt { key, victim: other, kind, abort: false },
        10 => Action::Preempt { key, victim: other, kind, abort: true },
        11 | 12 => return Command::SetQerr([0, 1, 3][random(3) as usize]),
        _ => return Command::TestUnitReady,
    })
}

/// A command's CDB and parameter list; `page` is the control mode page as it is.
pub fn wire(command: &Command, page: [u8; 12]) -> (Vec<u8>, Vec<u8>) {
    let action = match command {
        Command::TestUnitReady => return (vec![0; 6], Vec::new()),
        Command::SetQerr(qerr) => {
            let mut list = [&[0; 4], &page[..]].concat();
            list[4] &= 0x3f;
            list[7] = list[7] & !6 | qerr << 1;
            // PF, no SP.
            return (vec![0x15, 0x10, 0, 0, 16, 0], list);
        }
        Command::Reserve(action) => action,
    };
    let (service, kind, key, service_key, aptpl) = match *action {
        Action::Register { ignore_existing, key, new_key, aptpl, .. } => {
            (if ignore_existing { 6 } else { 0 }, 0, key, new_key, aptpl)
        }
        Action::Reserve { key, kind } => (1, kind.code(), key, 0, false),
        Action::Release { key, kind } => (2, kind.code(), key, 0, false),
        Action::Clear { key } => (3, 0, key, 0, false),
        Action::Preempt { key, victim, kind, abort } => (if abort { 5 } else { 4 }, kind.code(), key, victim, false),
        ref other => panic!("not in the traffic: {other:?}"),
    };
    let mut list = vec![0; 24];
    list[..8].copy_from_slice(&key.to_be_bytes());
    list[8..16].copy_from_slice(&service_key.to_be_bytes());
    list[20] = aptpl.into();
    (vec![0x5f, service, kind, 0, 0, 0, 0, 0, 24, 0], list)
}
