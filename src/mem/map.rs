//! One front-end's memory table at one moment.
#![allow(unsafe_code, reason = "computes host addresses inside mapped regions; each argues its bounds")]

use std::fs::File;
use std::ptr::NonNull;
use std::sync::Arc;

use super::range::GuestRange;
use super::region::{MAX_GUEST_MEMORY, Region, RegionError, RegionSpec};
use super::{copy, prefetch, sigbus};

/// An access that is not wholly inside guest memory.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{len} bytes at guest address {addr:#x} are not in guest memory")]
pub struct OutsideMemory {
    /// Guest physical address of the access, or of the part of it that is outside.
    pub addr: u64,
    /// Its length in bytes.
    pub len: u64,
}

/// One front-end's memory at one moment: immutable, its regions sorted by guest physical address.
#[derive(Debug, Default)]
pub struct MemoryMap {
    regions: Vec<Arc<Region>>,
    /// The same in the same order, flat: what a look-up reads.
    spans: Vec<Span>,
}

#[derive(Clone, Copy, Debug)]
struct Span {
    start: u64,
    end: u64,
    host: NonNull<u8>,
}

// SAFETY: a span is the address of memory that the region beside it in the map keeps mapped; it is only accessed by
// atomic operations and may be from any thread.
unsafe impl Send for Span {}
// SAFETY: as above.
unsafe impl Sync for Span {}

impl MemoryMap {
    /// A map of these regions, in any order.
    ///
    /// # Errors
    ///
    /// [`RegionError::Overlap`] if two of them share a guest physical address, [`RegionError::TooLarge`] if they are more
    /// than [`MAX_GUEST_MEMORY`] together.
    pub fn new(mut regions: Vec<Arc<Region>>) -> Result<MemoryMap, RegionError> {
        regions.sort_by_key(|r| r.guest_addr());
        for pair in regions.windows(2) {
            if pair[0].guest_end() > pair[1].guest_addr() {
                return Err(RegionError::Overlap(pair[0].guest_addr(), pair[1].guest_addr()));
            }
        }
        // Sizes are bounded, and so is the number of regions that fit in an address space: no overflow.
        let total = regions.iter().map(|r| r.size()).sum::<u64>();
        if let Some(last) = regions.last().filter(|_| total > MAX_GUEST_MEMORY) {
            return Err(RegionError::TooLarge(last.guest_addr()));
        }
        let spans =
            regions.iter().map(|r| Span { start: r.guest_addr(), end: r.guest_end(), host: r.host() }).collect();
        Ok(MemoryMap { regions, spans })
    }

    /// This map and one region more (ADD_MEM_REG).
    ///
    /// # Errors
    ///
    /// As [`MemoryMap::new`].
    pub fn with_region(&self, region: Arc<Region>) -> Result<MemoryMap, RegionError> {
        let mut regions = self.regions.clone();
        regions.push(region);
        MemoryMap::new(regions)
    }

    /// This map without a region (REM_MEM_REG): the one with this guest address, user address and size; `None` if
    /// there is none. The specification lets a front-end leave the offset out.
    pub fn without_region(&self, spec: &RegionSpec) -> Option<MemoryMap> {
        let at = self.regions.iter().position(|r| {
            let s = r.spec();
            (s.guest_addr, s.user_addr, s.size) == (spec.guest_addr, spec.user_addr, spec.size)
        })?;
        let mut regions = self.regions.clone();
        regions.remove(at);
        // What was sorted and free of overlap stays so.
        let mut spans = self.spans.clone();
        spans.remove(at);
        Some(MemoryMap { regions, spans })
    }

    /// The region that is this memory already, if there is one: a SET_MEM_TABLE repeats regions that have not
    /// changed, and mapping them again would only cost the page tables.
    pub fn same_region(&self, spec: &RegionSpec, file: &File) -> Option<Arc<Region>> {
        self.regions.iter().find(|r| r.is(spec, file)).cloned()
    }

    /// The regions, ascending by guest physical address.
    pub fn regions(&self) -> &[Arc<Region>] {
        &self.regions
    }

    /// Whether this very mapping of a region is one of them.
    pub fn has(&self, region: &Arc<Region>) -> bool {
        self.regions.iter().any(|r| Arc::ptr_eq(r, region))
    }

    /// Whether a region has lost its memory, see [`Region::poisoned`]. One load where no region of this process ever has.
    pub fn poisoned(&self) -> bool {
        sigbus::any_poisoned() && self.regions.iter().any(|r| r.poisoned())
    }

    /// Whether `newer` lacks memory that this map has. The same bytes of the same file at the same guest address are
    /// the same memory, whether mapped once or twice and however cut into regions.
    pub fn loses_memory_in(&self, newer: &MemoryMap) -> bool {
        self.regions.iter().any(|r| !newer.covers(r))
    }

    /// Whether all of `region` is in this map as well, see [`MemoryMap::loses_memory_in`].
    pub(super) fn covers(&self, region: &Arc<Region>) -> bool {
        let mut at = region.guest_addr();
        while at < region.guest_end() {
            match self.index_of(at).map(|i| &self.regions[i]) {
                Some(r) if Arc::ptr_eq(r, region) || r.backing() == region.backing() => at = r.guest_end(),
                _ => return false,
            }
        }
        true
    }

    /// Where `len` bytes at guest physical address `gpa` are in this process; `None` unless they are all in one
    /// region. Valid while this map, or another with that region, lives. An access of no bytes is nowhere.
    pub fn host(&self, gpa: u64, len: u64) -> Option<NonNull<u8>> {
        let (_, host, there) = self.find(gpa)?;
        (len != 0 && len <= there).then_some(host)
    }

    /// A contiguous piece of guest memory, borrowed from this map; `None` unless it is all in one region.
    pub fn range(&self, gpa: u64, len: u64) -> Option<GuestRange<'_>> {
        let host = self.host(gpa, len)?;
        // SAFETY: `host` found `len` bytes mapped there, in a region that lives as long as this map does.
        Some(unsafe { GuestRange::new(host, usize::try_from(len).ok()?) })
    }

    /// The guest physical address of an address in the front-end's own address space.
    pub fn user_to_guest(&self, user_addr: u64) -> Option<u64> {
        self.regions.iter().find_map(|r| {
            let s = r.spec();
            let offset = user_addr.checked_sub(s.user_addr)?;
            (offset < s.size).then(|| s.guest_addr + offset)
        })
    }

    /// Whether all of `len` bytes at `gpa` are guest memory, be it in several adjoining regions.
    pub fn contains(&self, gpa: u64, len: u64) -> bool {
        self.pieces(gpa, len, |_, _, _| ()).is_ok()
    }

    /// The same, for what will be written soon: its beginning is fetched meanwhile, which another processor has had last.
    pub fn contains_to_write(&self, gpa: u64, len: u64) -> bool {
        self.pieces(gpa, len, |_, host, _| prefetch::line_to_write(host.as_ptr())).is_ok()
    }

    /// Fills `dst` from guest memory at `gpa`.
    ///
    /// # Errors
    ///
    /// If not all of it is guest memory; `dst` may then be filled in part.
    pub fn read(&self, gpa: u64, dst: &mut [u8]) -> Result<(), OutsideMemory> {
        let mut rest = &mut *dst;
        self.pieces(gpa, rest.len() as u64, |_, host, len| {
            let (now, later) = std::mem::take(&mut rest).split_at_mut(len);
            // SAFETY: `pieces` yields mapped memory of that length, which no Rust reference covers.
            unsafe { copy::from_guest(host.as_ptr(), now) };
            rest = later;
        })
    }

    /// Writes `src` to guest memory at `gpa`, off the record: others use a [`GuestWriter`](super::GuestWriter).
    ///
    /// # Errors
    ///
    /// If not all of it is guest memory; a part may then have been written.
    pub(super) fn write(&self, gpa: u64, src: &[u8]) -> Result<(), OutsideMemory> {
        let mut rest = src;
        self.pieces(gpa, rest.len() as u64, |_, host, len| {
            let (now, later) = rest.split_at(len);
            #[cfg(test)]
            if super::testing::is_dead() {
                return;
            }
            // SAFETY: as in `read`; all regions are mapped writable.
            unsafe { copy::to_guest(now, host.as_ptr()) };
            rest = later;
        })
    }

    /// Writes without a dirty log: what the other side of a test writes.
    #[cfg(test)]
    pub fn unlogged(&self) -> super::GuestWriter<'_> {
        super::GuestWriter::new(self, None)
    }

    /// Calls `f` with region index, host address and length of each contiguous piece of `len` bytes at `gpa`, in
    /// order. The lengths add up to `len` unless it fails.
    pub(super) fn pieces(
        &self,
        gpa: u64,
        len: u64,
        mut f: impl FnMut(usize, NonNull<u8>, usize),
    ) -> Result<(), OutsideMemory> {
        let mut addr = gpa;
        let mut left = len;
        while left > 0 {
            let outside = OutsideMemory { addr, len: left };
            let (index, host, there) = self.find(addr).ok_or(outside)?;
            let take = left.min(there);
            // `take` is at most the size of a mapping.
            f(index, host, take as usize);
            left -= take;
            // `take` bytes from `addr` on are in a region, whose end does not overflow.
            addr += take;
        }
        Ok(())
    }

    /// Region index, host address, and how many bytes of the region there are from `gpa` on (at least one).
    #[inline]
    fn find(&self, gpa: u64) -> Option<(usize, NonNull<u8>, u64)> {
        let index = self.index_of(gpa)?;
        let span = &self.spans[index];
        // SAFETY: `index_of` found start <= gpa < end, and end - start bytes are mapped at `host`.
        let host = unsafe { span.host.add((gpa - span.start) as usize) };
        Some((index, host, span.end - gpa))
    }

    #[inline]
    fn index_of(&self, gpa: u64) -> Option<usize> {
        let index = self.spans.partition_point(|s| s.end <= gpa);
        self.spans.get(index).filter(|s| s.start <= gpa)?;
        Some(index)
    }
}

#[cfg(test)]
mod tests;
