//! What all shards share: the setup and the nexus table.

use std::sync::Arc;

use crate::lu::Lu;
use crate::tgt::{HostNo, ItnId};

/// Where a logical unit appears.
#[derive(Clone, Debug)]
pub struct UnitMapping {
    /// SCSI target number on the host's bus.
    pub target: u8,
    /// Logical unit number, 0–16383.
    pub lun: u16,
    /// The unit.
    pub lu: Arc<Lu>,
    /// The initiator ports that see it; `None`: every one.
    pub initiators: Option<Vec<[u8; 16]>>,
}

/// What a target is made of; fixed for its life.
#[derive(Clone, Debug, Default)]
pub struct TargetSetup {
    /// How many shards (reactors) there are.
    pub shards: u8,
    /// The hosts it is bound to.
    pub hosts: Vec<HostNo>,
    /// Its logical units.
    pub units: Vec<UnitMapping>,
    /// Names of initiator ports, for the log.
    pub names: Vec<([u8; 16], String)>,
}

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
}

/// The part of the target that all shards share.
#[derive(Debug)]
pub struct Target {}

impl Target {
    /// Makes a target.
    pub fn new(_setup: TargetSetup) -> Result<Arc<Target>, TargetError> {
        Ok(Arc::new(Target {}))
    }

    /// A fresh name for a nexus. Its low 16 bits are the nexus's slot in the shards' tables.
    pub fn next_itn_id(&self) -> Option<ItnId> {
        None
    }
}
