//! The driver's half of a split ring, for tests.
#![allow(clippy::unwrap_used, reason = "test code")]

use std::sync::Arc;

use super::{Chain, Descriptor, RingSetup, SplitRing};
use crate::mem::MemoryMap;

/// Descriptor flags.
pub(crate) const NEXT: u16 = 1;
pub(crate) const WRITE: u16 = 2;
pub(crate) const INDIRECT: u16 = 4;

/// A driver that shares `map` with the device.
#[derive(Debug)]
pub(crate) struct Driver {
    pub map: Arc<MemoryMap>,
    pub setup: RingSetup,
    /// avail.idx.
    pub avail_idx: u16,
}

impl Driver {
    /// A ring of `size` descriptors at guest physical address `base`, page-aligned, with both indexes at `start`.
    pub fn new(map: &Arc<MemoryMap>, base: u64, size: u16, start: u16, event_idx: bool) -> Driver {
        let desc = base;
        let avail = desc + 16 * u64::from(size);
        let used = (avail + 6 + 2 * u64::from(size)).next_multiple_of(4);
        let setup = RingSetup { size, desc, avail, used, next_avail: start, next_used: start, event_idx };
        let driver = Driver { map: Arc::clone(map), setup, avail_idx: start };
        driver.put_u16(avail, 0);
        driver.put_u16(avail + 2, start);
        driver.put_u16(used, 0);
        driver.put_u16(used + 2, start);
        driver
    }

    /// The device's half.
    pub fn ring(&self) -> SplitRing {
        SplitRing::new(&self.map, &self.setup).unwrap()
    }

    pub fn put_u16(&self, addr: u64, value: u16) {
        self.map.unlogged().write(addr, &value.to_le_bytes()).unwrap();
    }

    pub fn get_u16(&self, addr: u64) -> u16 {
        let mut bytes = [0; 2];
        self.map.read(addr, &mut bytes).unwrap();
        u16::from_le_bytes(bytes)
    }

    pub fn get_u32(&self, addr: u64) -> u32 {
        let mut bytes = [0; 4];
        self.map.read(addr, &mut bytes).unwrap();
        u32::from_le_bytes(bytes)
    }

    /// Writes entry `index` of the table at `table`.
    pub fn put_descriptor(&self, table: u64, index: u16, addr: u64, len: u32, flags: u16, next: u16) {
        let mut bytes = Vec::with_capacity(16);
        bytes.extend(addr.to_le_bytes());
        bytes.extend(len.to_le_bytes());
        bytes.extend(flags.to_le_bytes());
        bytes.extend(next.to_le_bytes());
        self.map.unlogged().write(table + 16 * u64::from(index), &bytes).unwrap();
    }

    /// Writes descriptor `index` of the ring.
    pub fn put(&self, index: u16, addr: u64, len: u32, flags: u16, next: u16) {
        self.put_descriptor(self.setup.desc, index, addr, len, flags, next);
    }

    /// Makes a chain available.
    pub fn offer(&mut self, head: u16) {
        let slot = self.avail_idx % self.setup.size;
        self.put_u16(self.setup.avail + 4 + 2 * u64::from(slot), head);
        self.set_avail_idx(self.avail_idx.wrapping_add(1));
    }

    pub fn set_avail_idx(&mut self, idx: u16) {
        self.avail_idx = idx;
        self.put_u16(self.setup.avail + 2, idx);
    }

    /// flags of the available ring.
    pub fn set_avail_flags(&self, flags: u16) {
        self.put_u16(self.setup.avail, flags);
    }

    pub fn set_used_event(&self, event: u16) {
        self.put_u16(self.setup.avail + 4 + 2 * u64::from(self.setup.size), event);
    }

    pub fn avail_event(&self) -> u16 {
        self.get_u16(self.setup.used + 4 + 8 * u64::from(self.setup.size))
    }

    pub fn used_flags(&self) -> u16 {
        self.get_u16(self.setup.used)
    }

    pub fn used_idx(&self) -> u16 {
        self.get_u16(self.setup.used + 2)
    }

    /// Head and length of the used entry at index `idx`.
    pub fn used(&self, idx: u16) -> (u32, u32) {
        let entry = self.setup.used + 4 + 8 * u64::from(idx % self.setup.size);
        (self.get_u32(entry), self.get_u32(entry + 4))
    }
}

/// A chain as the ring would give it; readable and writable buffers as (address, length).
pub(crate) fn chain(readable: &[(u64, u32)], writable: &[(u64, u32)]) -> Chain {
    let buffer = |writable| move |&(addr, len): &(u64, u32)| Descriptor { addr, len, writable };
    let descriptors = readable.iter().map(buffer(false)).chain(writable.iter().map(buffer(true))).collect();
    Chain { head: 0, descriptors }
}
