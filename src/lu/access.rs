//! Asymmetric access states of a unit's target port groups, and how they change.
//!
//! # Contract
//!
//! * [`Lu::evaluate_access`] → [`Lu::persist`] → [`Lu::apply_access`] → [`Lu::grant_access`], or [`Lu::abandon_access`] before it is
//!   applied. There is one change at a time; taking turns is the target's business.
//! * Gates are set under the unit's lock only. A group that loses is in its new state from `apply` on. One that gains is
//!   transitioning until `grant`: nobody gains before those who lose have stopped.
//! * A nexus that comes while a change is evaluated and not applied finds the lesser of both states: the change does not wait for commands
//!   of a nexus that it did not know.
//! * States outlive resets, the loss of nexuses and, where the unit has a [`Keeper`](super::Keeper), the process. Offline is the configuration's alone, both ways.

use super::unit::{Cold, live, tell};
use super::{AccessState, Attention, GateBits, Itl, KeptAccess, Lu, NexusId, TargetPort};
use crate::scsi::spc::{AccessStatus, TargetPortGroup};

/// What a change takes away, and from whom.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct AccessTaken {
    /// Whether anything will be different.
    pub changes: bool,
    /// Present nexuses that lose something, and what.
    pub losers: Vec<(NexusId, GateBits)>,
}

/// The groups of a unit, ascending.
#[derive(Debug, Default)]
pub(super) struct Access {
    groups: Vec<Group>,
    /// Whose change is evaluated and not applied.
    by: Option<NexusId>,
}

/// A target port group, as one unit sees it.
#[derive(Debug)]
struct Group {
    number: u16,
    /// RELATIVE TARGET PORT IDENTIFIERs.
    ports: Vec<u16>,
    configured: AccessState,
    state: AccessState,
    status: AccessStatus,
    /// What it will be: evaluated and not applied.
    next: Option<AccessState>,
    /// It gains by a change that is applied and not granted.
    gains: bool,
}

/// How little works in a state.
fn rank(state: AccessState) -> u8 {
    match state {
        AccessState::ActiveOptimized | AccessState::ActiveNonOptimized => 0,
        AccessState::Standby => 1,
        AccessState::Unavailable => 2,
        AccessState::Offline => 3,
        AccessState::Transitioning => 4,
    }
}

impl Group {
    fn shown(&self) -> AccessState {
        if self.gains { AccessState::Transitioning } else { self.state }
    }

    /// The bit of the gates of its nexuses.
    fn bits(&self) -> GateBits {
        let shown = self.shown();
        let lesser = self.next.filter(|next| rank(*next) > rank(shown)).unwrap_or(shown);
        GateBits::of_access(lesser)
    }

    /// The bit that a change will set, if it takes something away.
    fn loses(&self, next: AccessState) -> Option<GateBits> {
        (rank(next) > rank(self.state)).then_some(GateBits::of_access(next))
    }

    /// The state that will be found again, with the change on its way as if it were made.
    fn coming(&self) -> AccessState {
        self.next.unwrap_or(self.state)
    }
}

impl Access {
    /// The groups of these ports; those that `configured` does not name are active/optimized.
    pub(super) fn new(ports: &[TargetPort], configured: &[(u16, AccessState)]) -> Access {
        let mut groups: Vec<Group> = Vec::new();
        for port in ports {
            let at = groups.binary_search_by_key(&port.group, |group| group.number).unwrap_or_else(|at| {
                let said = configured.iter().find(|(group, _)| *group == port.group);
                let configured = said.map(|(_, state)| *state).unwrap_or_default();
                let group = Group {
                    number: port.group,
                    ports: Vec::new(),
                    configured,
                    state: configured,
                    status: AccessStatus::NotTold,
                    next: None,
                    gains: false,
                };
                groups.insert(at, group);
                at
            });
            if let Some(group) = groups.get_mut(at) {
                group.ports.push(port.relative);
            }
        }
        Access { groups, by: None }
    }

    /// Goes on with states that were kept: what an initiator chose stays, whatever it left alone follows the configuration, and a group
    /// that was, or is, offline by configuration is as the configuration has it.
    pub(super) fn go_on(&mut self, kept: &[KeptAccess]) {
        for KeptAccess { group, current, default } in kept {
            let Some(group) = self.groups.iter_mut().find(|of| of.number == *group) else { continue };
            if current != default && *current != AccessState::Offline && group.configured != AccessState::Offline {
                group.state = *current;
                group.status = AccessStatus::Explicit;
            }
        }
    }

    /// Whether some group is not in the state that was kept.
    pub(super) fn differs_from(&self, kept: &[KeptAccess]) -> bool {
        let as_kept = |group: &Group| kept.iter().any(|of| of.group == group.number && of.current == group.state);
        !kept.is_empty() && !self.groups.iter().all(as_kept)
    }

    fn of(&self, nexus: NexusId) -> Option<&Group> {
        self.groups.iter().find(|group| group.ports.contains(&nexus.port))
    }

    /// Sets the gate of a nexus that comes.
    pub(super) fn attach(&self, itl: &Itl) {
        let bits = self.of(itl.nexus()).map_or(GateBits::NONE, Group::bits);
        // What closes, closes before anything opens.
        itl.gate().raise(bits);
        itl.gate().lower(GateBits::ACCESS.without(bits));
    }

    /// Whether a change that is evaluated and not applied will change something.
    fn is_coming(&self) -> bool {
        self.groups.iter().any(|group| group.coming() != group.state)
    }

    /// Whether the change on its way comes with a unit attention for a nexus.
    pub(super) fn will_tell(&self, nexus: NexusId) -> bool {
        self.by.is_some_and(|by| by != nexus) && self.is_coming()
    }

    /// What is to be found again.
    pub(super) fn kept(&self) -> Vec<KeptAccess> {
        let kept =
            |group: &Group| KeptAccess { group: group.number, current: group.coming(), default: group.configured };
        self.groups.iter().map(kept).collect()
    }
}

/// Sets everybody's gate.
fn gate(cold: &Cold) {
    live(cold).for_each(|itl| cold.access.attach(&itl));
}

impl Lu {
    /// The target port groups with the states that they are in for this unit. Preferred are the groups that are configured as
    /// active/optimized, where others are not.
    pub fn target_port_groups(&self) -> Vec<TargetPortGroup> {
        let cold = self.cold();
        let best = |group: &Group| group.configured == AccessState::ActiveOptimized;
        let differ = !cold.access.groups.iter().all(best);
        let group = |group: &Group| TargetPortGroup {
            group: group.number,
            state: group.shown(),
            preferred: differ && best(group),
            status: group.status,
            ports: group.ports.clone(),
        };
        cold.access.groups.iter().map(group).collect()
    }

    /// Whether there is a group of this number and its state is an initiator's to set.
    pub fn can_set_access(&self, group: u16) -> bool {
        let groups = &self.cold().access.groups;
        groups.iter().any(|of| of.number == group && of.configured != AccessState::Offline)
    }

    /// The states as they are to be found again: with a change on its way as if it were made.
    pub fn access_states(&self) -> Vec<KeptAccess> {
        self.cold().access.kept()
    }

    /// First step of a change on behalf of a nexus: these groups are to be in these states; of one that is named twice the last counts. Nothing is
    /// different yet, but for nexuses that come.
    pub fn evaluate_access(&self, by: NexusId, wanted: &[(u16, AccessState)]) -> AccessTaken {
        let mut cold = self.cold();
        cold.access.by = Some(by);
        for (number, state) in wanted {
            if let Some(group) = cold.access.groups.iter_mut().find(|group| group.number == *number) {
                group.next = Some(*state);
            }
        }
        cold.changes.evaluated();
        let lost = |itl: &Itl| {
            let group = cold.access.of(itl.nexus())?;
            Some((itl.nexus(), group.loses(group.next?)?))
        };
        AccessTaken { changes: cold.access.is_coming(), losers: live(&cold).filter_map(|itl| lost(&itl)).collect() }
    }

    /// Third step, when [`Lu::persist`] is done: what was evaluated is, for those who lose by it; those who gain are on their way. Every
    /// other nexus is told (SPC-4 6.45: ASYMMETRIC ACCESS STATE CHANGED), if anything changed.
    pub fn apply_access(&self, by: &Itl) {
        let mut cold = self.cold();
        let changes = cold.access.is_coming();
        cold.access.by = None;
        for group in &mut cold.access.groups {
            let Some(next) = group.next.take() else { continue };
            group.gains = rank(next) < rank(group.state);
            group.state = next;
            group.status = AccessStatus::Explicit;
        }
        gate(&cold);
        if changes {
            tell(&cold, Attention::AccessStateChanged, Some(by));
            self.note();
        }
    }

    /// Last step: who gains has what the change gives.
    pub fn grant_access(&self) {
        let mut cold = self.cold();
        cold.access.groups.iter_mut().for_each(|group| group.gains = false);
        gate(&cold);
    }

    /// A change that was evaluated is not made.
    pub fn abandon_access(&self) {
        let mut cold = self.cold();
        cold.access.by = None;
        cold.access.groups.iter_mut().for_each(|group| group.next = None);
        cold.changes.abandoned();
        gate(&cold);
        // It may have been written meanwhile as if it were made.
        self.note();
    }
}
