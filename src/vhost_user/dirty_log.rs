//! The dirty log of a live migration: which log the front-end gave, and what it wants marked there.
//!
//! # What the front-end says
//!
//! * SET_LOG_BASE brings the log: one bit per 4 KiB of guest physical address space (see [`crate::mem::DirtyLog`]). QEMU sends it
//!   while rings run, and again, larger, before guest memory gets larger.
//! * VHOST_F_LOG_ALL in SET_FEATURES wants everything marked but the used rings. It comes and goes while rings run.
//! * VHOST_VRING_F_LOG in SET_VRING_ADDR wants that ring's used ring marked, at an address that comes with it.
//!
//! They come in any order. Each is answered when it is in force wherever writes are made: what is written after the answer is
//! marked, in the log that is the current one then. When nothing is wanted any more the log is unmapped; its descriptor is kept,
//! for a front-end may want the same log again.

use std::fs::File;
use std::sync::Arc;

use vhost::vhost_user::message::VhostUserLog;
use vhost::vhost_user::{VhostUserProtocolFeatures, VhostUserVirtioFeatures};

use super::session::Refused;
use super::vring::Vring;
use crate::mem::{DirtyLog, UsedRingLog};

/// Virtio features to offer for the log: VHOST_F_LOG_ALL.
pub(super) const FEATURES: u64 = VhostUserVirtioFeatures::LOG_ALL.bits();

/// Protocol features to offer for the log.
pub(super) const PROTOCOL_FEATURES: VhostUserProtocolFeatures = VhostUserProtocolFeatures::LOG_SHMFD;

/// One connection's log.
#[derive(Default)]
pub(super) struct Log {
    /// The last SET_LOG_BASE.
    base: Option<(VhostUserLog, File)>,
    /// The same, mapped.
    mapped: Option<Arc<DirtyLog>>,
    /// What the device was told last.
    told: Wanted,
}

/// What the front-end wants marked.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
struct Wanted {
    /// VHOST_F_LOG_ALL.
    all: bool,
    /// Rings with VHOST_VRING_F_LOG, and the addresses of their used rings.
    rings: Vec<(u16, u64)>,
}

impl Wanted {
    fn anything(&self) -> bool {
        self.all || !self.rings.is_empty()
    }
}

/// What a device is to be told: see [`Device::set_log`](super::Device::set_log).
pub(super) struct Change {
    pub(super) log: Option<Arc<DirtyLog>>,
    pub(super) rings: Vec<(u16, UsedRingLog)>,
}

impl Log {
    /// SET_LOG_BASE. The log that was there is let go of when the device has been told of the new one.
    pub(super) fn set_base(&mut self, base: &VhostUserLog, file: File) -> Result<(), Refused> {
        self.mapped = Some(map(base, file.try_clone()?)?);
        self.base = Some((*base, file));
        // Whatever the device has, it is another.
        self.told = Wanted::default();
        Ok(())
    }

    /// Compares what is wanted with what the device does; gives back what it must be told, if anything.
    pub(super) fn settle(&mut self, all: bool, rings: &[Vring]) -> Result<Option<Change>, Refused> {
        let logged = (0u16..).zip(rings).filter_map(|(index, ring)| Some((index, ring.log_addr()?)));
        let wanted = Wanted { all, rings: logged.collect() };
        let Some((base, file)) = &self.base else { return Ok(None) };
        if wanted == self.told {
            return Ok(None);
        }
        if self.mapped.is_none() && wanted.anything() {
            self.mapped = Some(map(base, file.try_clone()?)?);
        }
        self.told = wanted;
        let change = Change {
            log: self.mapped.clone().filter(|_| all),
            rings: self
                .told
                .rings
                .iter()
                .filter_map(|&(index, _)| Some((index, self.of_ring(rings, index)?)))
                .collect(),
        };
        if !self.told.anything() {
            self.mapped = None;
        }
        Ok(Some(change))
    }

    /// How a ring's used ring is logged.
    pub(super) fn of_ring(&self, rings: &[Vring], index: u16) -> Option<UsedRingLog> {
        let addr = rings.get(usize::from(index))?.log_addr()?;
        Some(UsedRingLog { log: Arc::clone(self.mapped.as_ref()?), addr })
    }
}

fn map(base: &VhostUserLog, file: File) -> Result<Arc<DirtyLog>, Refused> {
    DirtyLog::map(file, base.mmap_size, base.mmap_offset).map_err(|e| Refused::new(format!("the dirty log: {e}")))
}
