//! A second opinion: the same rules as a loop over eight nexuses, from the standard's tables and prose.
//!
//! It shares no step with the machine: a nexus is a number, a key of zero is no registration, and every service action says for
//! each nexus in turn what becomes of it.

use super::*;
use crate::lu::Attention;

/// Four initiator ports times two target ports.
pub const NEXUSES: usize = 8;

pub fn id(nexus: usize) -> NexusId {
    NexusId { initiator: [b'a' + (nexus / 2) as u8; 16], port: (nexus % 2) as u16 + 1 }
}

pub fn number(nexus: NexusId) -> usize {
    (0..NEXUSES).find(|number| id(*number) == nexus).unwrap()
}

/// The persistent reservation: the code of its type, and who made it or got it.
type Held = (u8, usize);

#[derive(Clone, Debug, Default, PartialEq, Eq, Hash)]
pub struct Model {
    pub keys: [u64; NEXUSES],
    pub held: Option<Held>,
    pub generation: u32,
    pub aptpl: bool,
    pub spc2: Option<usize>,
    /// How many registrations there is room for.
    pub room: usize,
}

/// What is done besides: for each nexus its unit attention, and whether it is aborted.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Done {
    pub told: [Option<Attention>; NEXUSES],
    pub aborted: [bool; NEXUSES],
}

type Answer = Result<Done, Refusal>;

fn all() -> std::ops::Range<usize> {
    0..NEXUSES
}

impl Model {
    /// What a machine's state is to the model.
    pub fn of(state: &ReservationState) -> Model {
        let key = |nexus: usize| state.registrations.iter().find(|one| one.nexus == id(nexus)).map_or(0, |one| one.key);
        // Of an All Registrants reservation nobody remembers who made it.
        let held = state.reservation.map(|held| (held.kind.code(), held.holder.map_or(0, number)));
        Model {
            keys: std::array::from_fn(key),
            held,
            generation: state.generation,
            aptpl: state.aptpl,
            spc2: state.legacy.map(number),
            room: 0,
        }
    }

    fn all_registrants(&self) -> bool {
        matches!(self.held, Some((7 | 8, _)))
    }

    fn registrants_only(&self) -> bool {
        matches!(self.held, Some((5 | 6, _)))
    }

    /// 5.13.10.
    fn holds(&self, nexus: usize) -> bool {
        match self.held {
            Some((7 | 8, _)) => self.keys[nexus] != 0,
            Some((_, holder)) => holder == nexus,
            None => false,
        }
    }

    fn reserve_for(&mut self, kind: ReservationType, nexus: usize) {
        self.held = Some((kind.code(), if matches!(kind.code(), 7 | 8) { 0 } else { nexus }));
    }

    /// What reads, writes and whatever conflicts with RESERVE come to (table 65): true is "Conflict".
    pub fn conflicts(&self, nexus: usize) -> [bool; 3] {
        let spc2 = self.spc2.is_some() && self.spc2 != Some(nexus);
        let registered = self.keys[nexus] != 0;
        let [reads, writes] = match self.held {
            None => [false, false],
            Some((1, holder)) => [false, holder != nexus],
            Some((3, holder)) => [holder != nexus, holder != nexus],
            Some((5 | 7, _)) => [false, !registered],
            Some((6 | 8, _)) => [!registered, !registered],
            Some(other) => panic!("no such type: {other:?}"),
        };
        [reads, writes, spc2]
    }

    pub fn ask(&mut self, by: usize, action: &Action) -> Answer {
        let mut next = self.clone();
        let answer = next.judge(by, action);
        if answer.is_ok() {
            *self = next;
        }
        answer
    }

    fn judge(&mut self, by: usize, action: &Action) -> Answer {
        let persistent = !matches!(action, Action::Reserve6 | Action::Release6 | Action::LoseNexus | Action::ResetUnit);
        // SPC-2 5.5.1.
        if persistent && self.spc2.is_some() {
            return Err(Refusal::Conflict);
        }
        let own = self.keys[by];
        let is_own = |key: u64| own != 0 && own == key;
        match action {
            Action::Register { ignore_existing, key, new_key, aptpl, targets } => {
                self.register(by, (*ignore_existing, *key, *new_key, *aptpl), targets)
            }
            Action::Reserve { key, kind } => {
                if !is_own(*key) {
                    return Err(Refusal::Conflict);
                }
                match self.held {
                    None => self.reserve_for(*kind, by),
                    Some((code, _)) if code == kind.code() && self.holds(by) => {}
                    Some(_) => return Err(Refusal::Conflict),
                }
                Ok(Done::default())
            }
            Action::Release { key, kind } => {
                if !is_own(*key) {
                    return Err(Refusal::Conflict);
                }
                if !self.holds(by) {
                    return Ok(Done::default());
                }
                let code = self.held.unwrap().0;
                if code != kind.code() {
                    return Err(Refusal::InvalidRelease);
                }
                let tells = self.registrants_only() || self.all_registrants();
                self.held = None;
                let told =
                    |n: usize| (tells && n != by && self.keys[n] != 0).then_some(Attention::ReservationsReleased);
                Ok(Done { told: std::array::from_fn(told), ..Done::default() })
            }
            Action::Clear { key } => {
                if !is_own(*key) {
                    return Err(Refusal::Conflict);
                }
                let mut done = Done::default();
                for nexus in all() {
                    if self.keys[nexus] != 0 && nexus != by {
                        done.told[nexus] = Some(Attention::ReservationsPreempted);
                    }
                    self.keys[nexus] = 0;
                }
                self.held = None;
                self.generation += 1;
                Ok(done)
            }
            Action::Preempt { key, victim, kind, abort } => {
                if !is_own(*key) {
                    return Err(Refusal::Conflict);
                }
                self.preempt(by, *victim, *kind, *abort)
            }
            Action::RegisterAndMove { key, new_key, unregister, aptpl, to } => {
                if !is_own(*key) {
                    return Err(Refusal::Conflict);
                }
                let Some((code, holder)) = self.held else { return Err(Refusal::InvalidInCdb) };
                if self.all_registrants() || holder != by {
                    return Err(Refusal::Conflict);
                }
                if *new_key == 0 || to.initiator == id(by).initiator || !(1..=2).contains(&to.port) {
                    return Err(Refusal::InvalidParameter);
                }
                self.keys[number(*to)] = *new_key;
                self.held = Some((code, number(*to)));
                if *unregister {
                    self.keys[by] = 0;
                }
                self.aptpl = *aptpl;
                self.generation += 1;
                self.has_room()
            }
            Action::ReplaceLostReservation if own == 0 && self.held.is_some() => Err(Refusal::Conflict),
            Action::ReplaceLostReservation => Err(Refusal::InvalidRelease),
            Action::Reserve6 => {
                if self.exempt(by) {
                    return Ok(Done::default());
                }
                if self.keys != [0; NEXUSES] || self.conflicts(by)[2] {
                    return Err(Refusal::Conflict);
                }
                self.spc2 = Some(by);
                Ok(Done::default())
            }
            Action::Release6 => {
                if !self.exempt(by) && self.keys != [0; NEXUSES] {
                    return Err(Refusal::Conflict);
                }
                if self.spc2 == Some(by) {
                    self.spc2 = None;
                }
                Ok(Done::default())
            }
            Action::LoseNexus => {
                if self.spc2 == Some(by) {
                    self.spc2 = None;
                }
                Ok(Done::default())
            }
            Action::ResetUnit => {
                self.spc2 = None;
                Ok(Done::default())
            }
        }
    }

    /// 5.13.3: a holder, or registered with a registrants only or all registrants type.
    fn exempt(&self, by: usize) -> bool {
        self.holds(by) || (self.keys[by] != 0 && (self.registrants_only() || self.all_registrants()))
    }

    fn has_room(&self) -> Answer {
        let registered = all().filter(|nexus| self.keys[*nexus] != 0).count();
        if registered <= self.room { Ok(Done::default()) } else { Err(Refusal::NoResources) }
    }

    /// Tables 67 and 68, once for each target port.
    fn register(&mut self, by: usize, fields: (bool, u64, u64, bool), targets: &Registrants) -> Answer {
        let (ignoring, key, new_key, aptpl) = fields;
        let before = self.clone();
        let mut refusals = Vec::new();
        let mut does = false;
        for port in 0..2 {
            if port != by % 2 && !targets.all_target_ports {
                continue;
            }
            let received_on = by / 2 * 2 + port;
            let own = before.keys[received_on];
            let spec_i_pt = targets.initiators.is_some();
            if ignoring && spec_i_pt {
                refusals.push(Refusal::InvalidParameter);
            } else if !ignoring && own != key {
                // A nexus that is not registered has zero here, and zero is what it has to give.
                refusals.push(Refusal::Conflict);
            } else if own != 0 && spec_i_pt {
                refusals.push(Refusal::InvalidParameter);
            } else if own == 0 && new_key == 0 {
                // Do nothing except return GOOD status.
            } else {
                does = true;
                self.keys[received_on] = new_key;
                for initiator in targets.initiators.iter().flatten() {
                    let specified = number(NexusId { initiator: *initiator, port: port as u16 + 1 });
                    if before.keys[specified] != 0 {
                        refusals.push(Refusal::InvalidParameter);
                    }
                    self.keys[specified] = new_key;
                }
            }
        }
        if refusals.contains(&Refusal::Conflict) && !(ignoring && targets.initiators.is_some()) {
            return Err(Refusal::Conflict);
        }
        if !refusals.is_empty() {
            return Err(Refusal::InvalidParameter);
        }
        if !does {
            return Ok(Done::default());
        }
        self.aptpl = aptpl;
        self.generation += 1;
        self.has_room()?;

        // 5.13.11.2.3 and table 71.
        let mut done = Done::default();
        let orphaned = match self.held {
            Some((7 | 8, _)) => self.keys == [0; NEXUSES],
            Some((_, holder)) => self.keys[holder] == 0,
            None => false,
        };
        if orphaned {
            for nexus in all() {
                if self.registrants_only() && nexus != by && self.keys[nexus] != 0 {
                    done.told[nexus] = Some(Attention::ReservationsReleased);
                }
            }
            self.held = None;
        }
        Ok(done)
    }

    /// Table 72.
    fn preempt(&mut self, by: usize, victim: u64, kind: ReservationType, abort: bool) -> Answer {
        let before = self.clone();
        let (replaces, everybody) = match before.held {
            None => (false, false),
            Some((7 | 8, _)) if victim == 0 => (true, true),
            Some((7 | 8, _)) => (false, false),
            Some(_) if victim == 0 => return Err(Refusal::InvalidParameter),
            Some((_, holder)) => (before.keys[holder] == victim, false),
        };
        let named = |nexus: usize| before.keys[nexus] != 0 && (everybody || before.keys[nexus] == victim);
        if !all().any(named) {
            return Err(Refusal::Conflict);
        }
        let mut done = Done::default();
        let changes = before.held.is_some_and(|(code, _)| code != kind.code());
        for nexus in all() {
            let stays = replaces && nexus == by;
            if named(nexus) && !stays {
                self.keys[nexus] = 0;
                done.told[nexus] = Some(Attention::RegistrationsPreempted);
            } else if replaces && changes && before.keys[nexus] != 0 {
                done.told[nexus] = Some(Attention::ReservationsReleased);
            }
            done.aborted[nexus] = abort && named(nexus);
        }
        // Not the nexus on which the command was received.
        done.told[by] = None;
        if replaces {
            self.reserve_for(kind, by);
        } else if self.all_registrants() && self.keys == [0; NEXUSES] {
            self.held = None;
        }
        self.generation += 1;
        Ok(done)
    }
}
