//! One I_T nexus: who it is, and the logical units as it sees them.

use std::sync::{Arc, OnceLock};

use super::events::Outlet;
use crate::device_server::Peers;
use crate::lu::{Attention, Itl, Lu, NexusId};
use crate::tgt::{HostNo, ItNexusReq, ItnId};

/// Names a logical unit within its target; units mapped several times have one index.
pub(super) type LuIndex = u32;

/// The "unit" of commands to the REPORT LUNS well-known logical unit.
pub(super) const WELL_KNOWN: LuIndex = u32::MAX;
/// The "unit" of commands to one that is not there.
pub(super) const NO_UNIT: LuIndex = u32::MAX - 1;

/// An I_T nexus. Immutable; what changes is in its [`Itl`]s.
#[derive(Debug)]
pub(super) struct Nexus {
    pub(super) itn_id: ItnId,
    /// As reservations remember it.
    pub(super) id: NexusId,
    pub(super) host_no: HostNo,
    pub(super) initiator: [u8; 16],
    /// The initiator port's name and the target port's, for the log.
    pub(super) names: [String; 2],
    pub(super) max_cmds: u32,
    /// Ascending by target number.
    targets: Vec<TargetView>,
}

/// A unit as a nexus sees it.
#[derive(Debug)]
pub(super) struct Unit {
    pub(super) itl: Arc<Itl>,
    pub(super) lu: LuIndex,
    /// Where its events go, from when the nexus is taken in.
    pub(super) outlet: OnceLock<Arc<Outlet>>,
}

/// The units below one target number.
#[derive(Debug)]
pub(super) struct TargetView {
    pub(super) target: u8,
    /// Their numbers, ascending; `units` is in the same order.
    pub(super) luns: Vec<u16>,
    pub(super) units: Vec<Unit>,
}

impl TargetView {
    fn numbered(&self) -> impl Iterator<Item = (u16, &Unit)> {
        self.luns.iter().copied().zip(&self.units)
    }

    pub(super) fn unit(&self, lun: u16) -> Option<&Unit> {
        // Most guests have LUN 0, and those with many number them from 0 on.
        let at = match self.luns.get(usize::from(lun)) {
            Some(&found) if found == lun => usize::from(lun),
            _ => self.luns.binary_search(&lun).ok()?,
        };
        self.units.get(at)
    }
}

impl Nexus {
    /// The nexus that `req` asks for, on the target port of that relative identifier. It sees `units` (target, LUN, unit and its index), each with the unit attention `first`.
    pub(super) fn new(
        req: &ItNexusReq,
        port: u16,
        names: [String; 2],
        mut units: Vec<(u8, u16, &Arc<Lu>, LuIndex)>,
        first: Attention,
    ) -> Nexus {
        let &ItNexusReq { itn_id, host_no, initiator_id: initiator, max_cmds, .. } = req;
        let id = NexusId { initiator, port };
        units.sort_by_key(|u| (u.0, u.1));
        let mut targets: Vec<TargetView> = Vec::new();
        for (target, lun, lu, index) in units {
            if targets.last().is_none_or(|view| view.target != target) {
                targets.push(TargetView { target, luns: Vec::new(), units: Vec::new() });
            }
            if let Some(view) = targets.last_mut() {
                let itl = Itl::new(Arc::clone(lu), id, Some(first));
                itl.found_at(target, lun);
                view.luns.push(lun);
                view.units.push(Unit { itl, lu: index, outlet: OnceLock::new() });
            }
        }
        Nexus { itn_id, id, host_no, initiator, names, max_cmds, targets }
    }

    /// What it sees below a target number; `None` if there is nothing.
    pub(super) fn target(&self, target: u8) -> Option<&TargetView> {
        match self.targets.first() {
            Some(first) if first.target == target => Some(first),
            _ => {
                let at = self.targets.binary_search_by_key(&target, |view| view.target).ok()?;
                self.targets.get(at)
            }
        }
    }

    /// The lowest target number with a unit, where a command to a well-known unit of the host goes.
    pub(super) fn first_target(&self) -> Option<&TargetView> {
        self.targets.first()
    }

    /// A unit by its address.
    pub(super) fn unit(&self, target: u8, lun: u16) -> Option<&Unit> {
        self.target(target)?.unit(lun)
    }

    /// Its units, each with its target number and LUN.
    pub(super) fn units(&self) -> impl Iterator<Item = ((u8, u16), &Unit)> {
        let views = self.targets.iter();
        views.flat_map(|view| view.numbered().map(|(lun, unit)| ((view.target, lun), unit)))
    }

    /// A unit by its index, at each of its addresses.
    pub(super) fn units_of(&self, lu: LuIndex) -> impl Iterator<Item = &Arc<Itl>> {
        let units = self.targets.iter().flat_map(|view| &view.units);
        units.filter(move |unit| unit.lu == lu).map(|unit| &unit.itl)
    }

    /// The index of a unit that it sees.
    pub(super) fn index_of(&self, lu: &Arc<Lu>) -> LuIndex {
        let mut units = self.targets.iter().flat_map(|view| &view.units);
        units.find(|unit| Arc::ptr_eq(unit.itl.lu(), lu)).map_or(NO_UNIT, |unit| unit.lu)
    }

    /// How many units it sees.
    pub(super) fn unit_count(&self) -> usize {
        self.targets.iter().map(|view| view.units.len()).sum()
    }

    /// I_T nexus loss for the units below one target number, or for all.
    pub(super) fn lose(&self, target: Option<u8>) {
        for view in self.targets.iter().filter(|view| target.is_none_or(|t| t == view.target)) {
            for unit in &view.units {
                unit.itl.lose_nexus();
            }
        }
    }

    /// The nexus is over: what it held is given up, and nothing can be begun through it.
    pub(super) fn end(&self) {
        for unit in self.targets.iter().flat_map(|view| &view.units) {
            unit.itl.end();
        }
    }
}

impl Peers for Nexus {
    fn units(&self) -> Vec<Arc<Itl>> {
        self.targets.iter().flat_map(|view| &view.units).map(|unit| Arc::clone(&unit.itl)).collect()
    }
}
