//! The inflight buffer (INFLIGHT_SHMFD): a file that the front-end keeps, in which is written what has been taken from its rings
//! and not been given back, so that a process that comes after one that was killed can carry on.
//!
//! # Contract
//!
//! * GET_INFLIGHT_FD comes once, at the first start, and names the number of *all* rings and their size: [`Buffer::create`]
//!   makes the file, sealed against a change of its size. SET_INFLIGHT_FD comes at every start, before the memory table and the rings:
//!   [`Buffer::open`] maps what came, which need not be a file of ours. The front-end keeps the file as long as the device is not reset,
//!   over reconnects too, and hands back the size that it was given.
//! * What is in the buffer is looked at only when a ring starts, by whoever runs the ring, and then belongs to it alone: an [`InflightRing`] is
//!   handed out with the ring's configuration.
//! * The front-end may write there what it likes, or shrink a file that is not sealed. Nothing read from it is used as an index or a
//!   bound before it was checked; SIGBUS is caught as it is for guest memory. The worst that it can bring about is that its own requests are
//!   carried out twice or not at all.
//! * `layout` says what is where, `ring` how a ring is kept account of and recovered, `slots` what is noted about single requests.

mod layout;
mod ring;
mod slots;

use std::fs::File;
use std::sync::Arc;
use std::sync::atomic::Ordering;

use vhost::vhost_user::VhostUserProtocolFeatures;
use vhost::vhost_user::message::VhostUserInflight;

use self::layout::Layout;
pub use self::ring::{InflightRing, Owed, Recovered};
pub use self::slots::{Earlier, InflightNotes};
use super::session::Refused;
use crate::mem::{LoggedRange, MemoryMap, PinnedRange, Region, RegionSpec, sealed_file};

/// Protocol features to offer for the buffer.
pub(super) const PROTOCOL_FEATURES: VhostUserProtocolFeatures = VhostUserProtocolFeatures::INFLIGHT_SHMFD;

/// A buffer, mapped.
#[derive(Debug)]
pub(super) struct Buffer {
    /// One region, at address 0.
    map: Arc<MemoryMap>,
    layout: Layout,
    /// Whether the tail is there and of a version that is understood.
    tail: bool,
}

impl Buffer {
    /// GET_INFLIGHT_FD: a new file, nothing in flight.
    pub(super) fn create(wanted: &VhostUserInflight) -> Result<(VhostUserInflight, File), Refused> {
        let (rings, size) = (wanted.num_queues, wanted.queue_size);
        let layout = Layout::new(rings, size)
            .ok_or_else(|| Refused::new(format!("no inflight buffer for {rings} rings of {size} descriptors")))?;
        let len = layout.len() as u64;
        let file = sealed_file(c"vstgt-inflight", len)?;
        let answer = VhostUserInflight::new(len, 0, rings, size);
        let given = file.try_clone()?;
        Buffer::map(&answer, file, layout)?.write_tail();
        Ok((answer, given))
    }

    /// SET_INFLIGHT_FD.
    pub(super) fn open(inflight: &VhostUserInflight, file: File) -> Result<Buffer, Refused> {
        let (rings, size) = (inflight.num_queues, inflight.queue_size);
        let refused = |why: &str| Refused::new(format!("the inflight buffer for {rings} rings of {size}: {why}"));
        let layout = Layout::new(rings, size).ok_or_else(|| refused("impossible"))?;
        if inflight.mmap_size > layout::MAX_BUFFER || inflight.mmap_size < layout.tail() as u64 {
            return Err(refused(&format!("cannot have {} bytes", inflight.mmap_size)));
        }
        if !inflight.mmap_offset.is_multiple_of(8) {
            return Err(refused("is not aligned"));
        }
        let mut buffer = Buffer::map(inflight, file, layout).map_err(|e| refused(&e.to_string()))?;
        buffer.tail = buffer.read_tail();
        if !buffer.tail {
            log::warn!(
                "an inflight buffer was made by another version: commands that were not answered are carried out again, \
                 whatever they do"
            );
        }
        Ok(buffer)
    }

    fn map(inflight: &VhostUserInflight, file: File, layout: Layout) -> Result<Buffer, Refused> {
        let (size, mmap_offset) = (inflight.mmap_size, inflight.mmap_offset);
        let region = Region::map(&RegionSpec { guest_addr: 0, size, user_addr: 0, mmap_offset }, file)?;
        Ok(Buffer { map: Arc::new(MemoryMap::new(vec![region])?), layout, tail: true })
    }

    /// So many bytes of it.
    fn part(&self, at: usize, len: usize) -> Option<LoggedRange> {
        // It is no memory of the guest's, whose migration it does not concern.
        Some(LoggedRange::new(PinnedRange::new(&self.map, at as u64, len as u64, 8)?, None))
    }

    fn write_tail(&self) {
        let Some(header) = self.part(self.layout.tail(), layout::HEADER) else { return };
        header.store_u32(layout::VERSION_AT, layout::VERSION, Ordering::Relaxed);
        header.store_u32(layout::SLOT_AT, layout::SLOT as u32, Ordering::Relaxed);
        header.store_u16(layout::RINGS_AT, self.layout.rings, Ordering::Relaxed);
        header.store_u16(layout::SLOTS_AT, self.layout.size, Ordering::Relaxed);
        // What has its name is whole.
        header.store_u64(layout::MAGIC_AT, layout::MAGIC, Ordering::Release);
    }

    /// Whether the tail is one that [`Buffer::write_tail`] wrote for this layout, and has room for all slots.
    fn read_tail(&self) -> bool {
        let Some(header) = self.part(self.layout.tail(), layout::HEADER) else { return false };
        let header = header.range();
        let order = Ordering::Relaxed;
        header.load_u64(layout::MAGIC_AT, Ordering::Acquire) == Some(layout::MAGIC)
            && header.load_u32(layout::VERSION_AT, order) == Some(layout::VERSION)
            && header.load_u32(layout::SLOT_AT, order) == Some(layout::SLOT as u32)
            && header.load_u16(layout::RINGS_AT, order) == Some(self.layout.rings)
            && header.load_u16(layout::SLOTS_AT, order) == Some(self.layout.size)
            && self.part(0, self.layout.len()).is_some()
    }

    /// The account of ring `index`, which has `size` descriptors; `None` if the buffer has no room for one.
    pub(super) fn ring(&self, index: u16, size: u16) -> Option<InflightRing> {
        if index >= self.layout.rings || size > self.layout.size {
            return None;
        }
        let region = self.part(self.layout.region(index), self.layout.region_len())?;
        let notes = || {
            let slots = self.part(self.layout.slots(index), self.layout.slots_len())?;
            Some(Arc::new(InflightNotes::new(slots, region.clone())))
        };
        let notes = if self.tail { notes() } else { None };
        Some(InflightRing::new(region, notes, self.layout.size, size))
    }

    /// Whether the predecessor had taken something from ring `index` that it may not have answered.
    pub(super) fn is_owed(&self, index: u16) -> bool {
        self.ring(index, 1).is_some_and(|ring| ring.owes())
    }
}

#[cfg(test)]
mod tests;
