//! What all shards share: the setup and the nexus table.

use std::collections::HashSet;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use super::nexus::{LuIndex, Nexus};
use super::turns::Turns;
use crate::lu::{Attention, Lu, NexusId, TargetPort};
use crate::scsi::MAX_LUN;
use crate::tgt::{HostNo, HostTable, ItNexusReq, ItnId};

/// Where a logical unit appears.
#[derive(Clone, Debug)]
pub struct UnitMapping {
    /// SCSI target number on the host's bus.
    pub target: u8,
    /// Logical unit number, 0–16383.
    pub lun: u16,
    /// The unit. It may be mapped at several addresses.
    pub lu: Arc<Lu>,
    /// The initiator ports that see it, by the target ports that the unit is reached by; `None`: every one.
    pub initiators: Option<Vec<[u8; 16]>>,
}

/// A host, and the target port that it is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct HostSetup {
    /// Its number in events.
    pub host_no: HostNo,
    /// The port.
    pub port: TargetPort,
    /// The port's name, for the log.
    pub name: String,
}

/// What a target is made of; fixed for its life.
#[derive(Clone, Debug, Default)]
pub struct TargetSetup {
    /// How many shards (reactors) there are.
    pub shards: u8,
    /// The hosts it is bound to, each a target port.
    pub hosts: Vec<HostSetup>,
    /// Its logical units. Two may share an address if no nexus sees both.
    pub units: Vec<UnitMapping>,
    /// Names of initiator ports, for the log.
    pub names: Vec<([u8; 16], String)>,
    /// How long a task management function waits for the tasks that it ends, before it is rejected; `None`: 10 s.
    pub patience: Option<Duration>,
}

/// See [`TargetSetup::patience`]: shorter than Linux waits for a command, and longer than a disk takes for what can be cancelled.
const PATIENCE: Duration = Duration::from_secs(10);

/// Why a target cannot be made.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum TargetError {
    /// No shard.
    #[error("a target needs at least one shard")]
    NoShards,
    /// Two units at one address that one initiator would see.
    #[error("target {target} LUN {lun} is given twice")]
    DuplicateLun {
        /// Target number.
        target: u8,
        /// Logical unit number.
        lun: u16,
    },
    /// A LUN past what the wire can carry.
    #[error("LUN {0} is out of range (0–16383)")]
    LunOutOfRange(u16),
    /// A host number given twice.
    #[error("host {0} is given twice")]
    DuplicateHost(HostNo),
    /// Two ports of one relative identifier.
    #[error("relative target port {0} is given twice")]
    DuplicatePort(u16),
}

/// The nexus's slot in tables: the low 16 bits of its name.
pub(super) fn slot_of(itn_id: ItnId) -> usize {
    usize::from(itn_id as u16)
}

const SLOT_BITS: u32 = 16;
/// How many nexuses there can be at one time.
const MAX_NEXUSES: usize = 1 << SLOT_BITS;

/// The part of the target that all shards share.
#[derive(Debug)]
pub struct Target {
    shards: u8,
    bindings: HostTable,
    hosts: Vec<HostSetup>,
    /// Those of the hosts, ascending by relative identifier.
    ports: Vec<TargetPort>,
    units: Vec<UnitMapping>,
    /// For each mapping, which unit it is.
    indexes: Vec<LuIndex>,
    /// For each unit, by its index, who changes it.
    turns: Vec<Turns>,
    names: Vec<([u8; 16], String)>,
    patience: Duration,
    table: Mutex<Table>,
}

/// The nexus table. Cold: touched when a nexus comes or goes.
#[derive(Debug, Default)]
struct Table {
    slots: Vec<Slot>,
    /// No slot below this one is free.
    lowest: usize,
    serial: u64,
    /// Initiator ports that had a nexus and lost it, by host.
    lost: HashSet<(HostNo, [u8; 16])>,
}

#[derive(Debug, Default)]
enum Slot {
    #[default]
    Free,
    /// Given out as a name.
    Named(ItnId),
    /// Not all shards know the nexus yet.
    Creating(Arc<Nexus>),
    /// There is a nexus.
    Live(Arc<Nexus>),
    /// The nexus is being destroyed.
    Ending(Arc<Nexus>),
}

impl Target {
    /// Makes a target.
    ///
    /// # Errors
    ///
    /// [`TargetError`] names the first thing in `setup` that does not fit.
    pub fn new(setup: TargetSetup) -> Result<Arc<Target>, TargetError> {
        if setup.shards == 0 {
            return Err(TargetError::NoShards);
        }
        let mut bindings = HostTable::new();
        let mut ports: Vec<TargetPort> = Vec::new();
        for HostSetup { host_no, port, .. } in &setup.hosts {
            bindings.bind(*host_no, 0).map_err(|taken| TargetError::DuplicateHost(taken.0))?;
            match ports.binary_search_by_key(&port.relative, |other| other.relative) {
                Ok(_) => return Err(TargetError::DuplicatePort(port.relative)),
                Err(at) => ports.insert(at, *port),
            }
        }
        check_addresses(&setup.units)?;
        Ok(Arc::new(Target {
            shards: setup.shards,
            bindings,
            hosts: setup.hosts,
            ports,
            indexes: index_units(&setup.units),
            turns: setup.units.iter().map(|_| Turns::default()).collect(),
            units: setup.units,
            patience: setup.patience.unwrap_or(PATIENCE),
            names: setup.names,
            table: Mutex::default(),
        }))
    }

    /// A fresh name for a nexus, never given out before. Its low 16 bits are the nexus's slot in the shards' tables, which is
    /// kept for it until its `IT_NEXUS_REQ` is refused or the nexus is destroyed. `None` if there are 65536 already.
    pub fn next_itn_id(&self) -> Option<ItnId> {
        let mut table = self.table();
        let slot = table.free_slot()?;
        table.serial += 1;
        let itn_id = table.serial << SLOT_BITS | slot as u64;
        table.put(slot, Slot::Named(itn_id));
        Some(itn_id)
    }

    /// How many shards there are.
    pub fn shards(&self) -> u8 {
        self.shards
    }

    /// Its target ports, ascending by relative identifier.
    pub fn ports(&self) -> &[TargetPort] {
        &self.ports
    }

    /// Who changes a unit.
    pub(super) fn turns(&self, lu: LuIndex) -> Option<&Turns> {
        self.turns.get(lu as usize)
    }

    /// How long a task management function waits.
    pub(super) fn patience(&self) -> Duration {
        self.patience
    }

    /// The nexus of this name, if there is one; one that is being destroyed may still have tasks.
    pub(super) fn itn_of(&self, id: NexusId) -> Option<ItnId> {
        self.table().slots.iter().find_map(|slot| match slot {
            Slot::Live(nexus) | Slot::Ending(nexus) if nexus.id == id => Some(nexus.itn_id),
            _ => None,
        })
    }

    /// The nexuses that exist: name and initiator port.
    pub fn nexuses(&self) -> Vec<(ItnId, [u8; 16])> {
        let table = self.table();
        let live = table.slots.iter().filter_map(|slot| match slot {
            Slot::Live(nexus) | Slot::Ending(nexus) => Some((nexus.itn_id, nexus.initiator)),
            Slot::Free | Slot::Named(_) | Slot::Creating(_) => None,
        });
        live.collect()
    }

    /// Makes the nexus that an `IT_NEXUS_REQ` asks for; `Err` is its answer, a negative errno:
    ///
    /// * -ENODEV: the host is not bound to this target;
    /// * -EINVAL: no command could ever be sent, or the name is in use;
    /// * -EEXIST: this initiator port has a nexus on this host (alive, or not destroyed to its end).
    pub(super) fn create(&self, req: &ItNexusReq) -> Result<Arc<Nexus>, i32> {
        let mut table = self.table();
        let made = self.try_create(&table, req);
        match &made {
            Ok(nexus) => table.put(slot_of(req.itn_id), Slot::Creating(Arc::clone(nexus))),
            Err(_) => table.give_up(req.itn_id),
        }
        made
    }

    fn try_create(&self, table: &Table, req: &ItNexusReq) -> Result<Arc<Nexus>, i32> {
        if self.bindings.target_of(req.host_no).is_none() {
            return Err(-libc::ENODEV);
        }
        let host = self.hosts.iter().find(|host| host.host_no == req.host_no).ok_or(-libc::ENODEV)?;
        let free = match table.slots.get(slot_of(req.itn_id)) {
            None | Some(Slot::Free) => true,
            Some(Slot::Named(id)) => *id == req.itn_id,
            Some(Slot::Creating(_) | Slot::Live(_) | Slot::Ending(_)) => false,
        };
        if req.max_cmds == 0 || !free {
            return Err(-libc::EINVAL);
        }
        let port = (req.host_no, req.initiator_id);
        let taken = table.slots.iter().any(|slot| match slot {
            Slot::Creating(n) | Slot::Live(n) | Slot::Ending(n) => (n.host_no, n.initiator) == port,
            Slot::Free | Slot::Named(_) => false,
        });
        if taken {
            return Err(-libc::EEXIST);
        }
        let first = if table.lost.contains(&port) { Attention::NexusLoss } else { Attention::PowerOn };
        Ok(Arc::new(Nexus::new(
            req,
            host.port.relative,
            [self.name_of(&req.initiator_id), host.name.clone()],
            self.units_of(&req.initiator_id, host.port.relative),
            first,
        )))
    }

    /// All shards know the nexus: it exists.
    pub(super) fn finish_create(&self, nexus: &Arc<Nexus>) {
        self.table().put(slot_of(nexus.itn_id), Slot::Live(Arc::clone(nexus)));
    }

    /// Begins to destroy a nexus; `Err` is the answer: -ENOENT, there is none (its `IT_NEXUS_REQ` was not answered yet), or it
    /// is being destroyed.
    pub(super) fn begin_destroy(&self, req: &ItNexusReq) -> Result<Arc<Nexus>, i32> {
        let mut table = self.table();
        let slot = table.slots.get_mut(slot_of(req.itn_id)).ok_or(-libc::ENOENT)?;
        match slot {
            Slot::Live(nexus) if nexus.itn_id == req.itn_id && nexus.host_no == req.host_no => {
                let nexus = Arc::clone(nexus);
                *slot = Slot::Ending(Arc::clone(&nexus));
                Ok(nexus)
            }
            _ => Err(-libc::ENOENT),
        }
    }

    /// All shards have forgotten the nexus: its slot and its port are free again.
    pub(super) fn finish_destroy(&self, nexus: &Nexus) {
        nexus.end();
        let mut table = self.table();
        table.lost.insert((nexus.host_no, nexus.initiator));
        table.put(slot_of(nexus.itn_id), Slot::Free);
    }

    /// What an initiator port sees by a target port.
    fn units_of(&self, initiator: &[u8; 16], port: u16) -> Vec<(u8, u16, &Arc<Lu>, LuIndex)> {
        let seen = self.units.iter().zip(&self.indexes).filter(|(unit, _)| {
            unit.initiators.as_ref().is_none_or(|list| list.contains(initiator))
                && unit.lu.ports().iter().any(|reached| reached.relative == port)
        });
        seen.map(|(unit, &index)| (unit.target, unit.lun, &unit.lu, index)).collect()
    }

    fn name_of(&self, initiator: &[u8; 16]) -> String {
        match self.names.iter().find(|(id, _)| id == initiator) {
            Some((_, name)) => name.clone(),
            None => initiator.iter().map(|byte| format!("{byte:02x}")).collect(),
        }
    }

    fn table(&self) -> MutexGuard<'_, Table> {
        // Every change under this lock is complete in itself, so a panic elsewhere leaves nothing half done.
        self.table.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Table {
    /// The lowest free slot; `None` if there is none.
    fn free_slot(&mut self) -> Option<usize> {
        let busy = self.slots.iter().skip(self.lowest).take_while(|slot| !matches!(slot, Slot::Free)).count();
        self.lowest += busy;
        (self.lowest < MAX_NEXUSES).then_some(self.lowest)
    }

    fn put(&mut self, at: usize, content: Slot) {
        if self.slots.len() <= at {
            self.slots.resize_with(at + 1, Slot::default);
        }
        if matches!(content, Slot::Free) {
            self.lowest = self.lowest.min(at);
        }
        if let Some(slot) = self.slots.get_mut(at) {
            *slot = content;
        }
    }

    /// A name that was given out comes to nothing.
    fn give_up(&mut self, itn_id: ItnId) {
        if matches!(self.slots.get(slot_of(itn_id)), Some(Slot::Named(id)) if *id == itn_id) {
            self.put(slot_of(itn_id), Slot::Free);
        }
    }
}

fn check_addresses(units: &[UnitMapping]) -> Result<(), TargetError> {
    for (i, unit) in units.iter().enumerate() {
        if unit.lun > MAX_LUN {
            return Err(TargetError::LunOutOfRange(unit.lun));
        }
        let clash = units.iter().take(i).any(|other| {
            (other.target, other.lun) == (unit.target, unit.lun)
                && overlap(&other.initiators, &unit.initiators)
                && other.lu.ports().iter().any(|a| unit.lu.ports().iter().any(|b| a.relative == b.relative))
        });
        if clash {
            return Err(TargetError::DuplicateLun { target: unit.target, lun: unit.lun });
        }
    }
    Ok(())
}

/// Whether some initiator is in both sets.
fn overlap(a: &Option<Vec<[u8; 16]>>, b: &Option<Vec<[u8; 16]>>) -> bool {
    match (a, b) {
        (Some(a), Some(b)) => a.iter().any(|id| b.contains(id)),
        (Some(some), None) | (None, Some(some)) => !some.is_empty(),
        (None, None) => true,
    }
}

/// An index for each mapping's unit, the same for the same unit.
fn index_units(units: &[UnitMapping]) -> Vec<LuIndex> {
    let first = |lu: &Arc<Lu>| units.iter().position(|other| Arc::ptr_eq(&other.lu, lu)).unwrap_or(0);
    units.iter().map(|unit| first(&unit.lu) as LuIndex).collect()
}
