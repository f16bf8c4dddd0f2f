//! A contiguous piece of guest memory with typed, bounds-checked, atomic access: what rings are read through.
#![allow(unsafe_code, reason = "guest memory is reached by raw pointers; each use argues its bounds")]

use std::marker::PhantomData;
use std::ptr::NonNull;
use std::sync::Arc;
use std::sync::atomic::{AtomicU16, AtomicU32, AtomicU64, Ordering};

use super::{MemoryMap, UsedRingLog, prefetch};

/// A contiguous piece of guest memory, borrowed from the map that keeps it mapped.
///
/// Integers are little-endian in guest memory (virtio 1.2 1.4) and native here. Accessors take an offset in bytes; what
/// passes the end, or is not aligned to its own size, is `None` for loads and, in a [`LoggedRange`],
/// `false` for stores: nothing is touched.
#[derive(Clone, Copy, Debug)]
pub struct GuestRange<'a> {
    base: NonNull<u8>,
    len: usize,
    map: PhantomData<&'a MemoryMap>,
}

/// A contiguous piece of guest memory that keeps its map mapped. For what lives long: rings.
#[derive(Clone, Debug)]
pub struct PinnedRange {
    base: NonNull<u8>,
    len: usize,
    _map: Arc<MemoryMap>,
}

// SAFETY: the memory is kept mapped by the Arc beside the address, and accessed by atomic operations only.
unsafe impl Send for PinnedRange {}
// SAFETY: as above.
unsafe impl Sync for PinnedRange {}

impl PinnedRange {
    /// `len` bytes at guest physical address `gpa`; `None` unless they are all in one region and the host address is
    /// aligned to `align` bytes (a power of two).
    pub fn new(map: &Arc<MemoryMap>, gpa: u64, len: u64, align: usize) -> Option<PinnedRange> {
        let base = map.host(gpa, len)?;
        base.addr().get().is_multiple_of(align).then_some(())?;
        Some(PinnedRange { base, len: usize::try_from(len).ok()?, _map: Arc::clone(map) })
    }

    /// To access it.
    #[inline]
    pub fn range(&self) -> GuestRange<'_> {
        GuestRange { base: self.base, len: self.len, map: PhantomData }
    }
}

/// A contiguous piece of guest memory that is written to, and how that is logged. For used rings, and without a log for memory that is shared with a
/// front-end and is no guest's.
#[derive(Clone, Debug)]
pub struct LoggedRange {
    range: PinnedRange,
    log: Option<UsedRingLog>,
}

macro_rules! logged_stores {
    ($($store:ident, $int:ty;)*) => { $(
        /// Stores an integer, then marks it in the log. `order` must be one that a store can have.
        #[inline]
        pub fn $store(&self, offset: usize, value: $int, order: Ordering) -> bool {
            let stored = self.range.range().$store(offset, value, order);
            if let Some(log) = &self.log {
                log.mark(offset, size_of::<$int>());
            }
            stored
        }
    )* };
}

impl LoggedRange {
    /// The range, and the log if there is one.
    pub fn new(range: PinnedRange, log: Option<UsedRingLog>) -> LoggedRange {
        LoggedRange { range, log }
    }

    /// To read it.
    #[inline]
    pub fn range(&self) -> GuestRange<'_> {
        self.range.range()
    }

    /// Another log, or none. All of the range is marked in it: a process before this one may have been killed between a write and
    /// its mark.
    pub fn set_log(&mut self, log: Option<UsedRingLog>) {
        if let Some(log) = &log {
            log.mark(0, self.range.len);
        }
        self.log = log;
    }

    logged_stores! {
        store_u16, u16;
        store_u32, u32;
        store_u64, u64;
    }
}

macro_rules! accessors {
    ($load:ident, $store:ident, $int:ty, $atomic:ty) => {
        /// Loads an integer. `order` must be one that a load can have.
        #[inline]
        pub fn $load(&self, offset: usize, order: Ordering) -> Option<$int> {
            let at = self.at(offset, size_of::<$int>())?;
            // SAFETY: `at` checked that the integer is inside this mapped range and aligned; the memory has no
            // references, and all of this process's accesses to it are atomic.
            let atomic = unsafe { <$atomic>::from_ptr(at.as_ptr().cast()) };
            Some(<$int>::from_le(atomic.load(order)))
        }

        /// Stores an integer, off the record: others use a [`LoggedRange`]. `order` must be one that a store can have.
        #[inline]
        pub(super) fn $store(&self, offset: usize, value: $int, order: Ordering) -> bool {
            let Some(at) = self.at(offset, size_of::<$int>()) else { return false };
            #[cfg(test)]
            if super::testing::is_dead() {
                return true;
            }
            // SAFETY: as for the load; regions are mapped writable.
            let atomic = unsafe { <$atomic>::from_ptr(at.as_ptr().cast()) };
            atomic.store(value.to_le(), order);
            true
        }
    };
}

impl<'a> GuestRange<'a> {
    /// # Safety
    ///
    /// `len` bytes at `base` are guest memory that stays mapped for `'a`.
    pub(super) unsafe fn new(base: NonNull<u8>, len: usize) -> GuestRange<'a> {
        GuestRange { base, len, map: PhantomData }
    }

    /// Length in bytes.
    pub fn len(&self) -> usize {
        self.len
    }

    /// True if there is no byte in it.
    pub fn is_empty(&self) -> bool {
        self.len == 0
    }

    /// What is at `offset` will be stored to soon: a hint. Beyond the end nothing is fetched.
    #[inline]
    pub fn prefetch_to_write(&self, offset: usize) {
        if let Some(at) = self.at(offset, 1) {
            prefetch::line_to_write(at.as_ptr());
        }
    }

    /// What is at `offset` will be loaded soon: a hint. Beyond the end nothing is fetched.
    #[inline]
    pub fn prefetch(&self, offset: usize) {
        if let Some(at) = self.at(offset, 1) {
            prefetch::line(at.as_ptr());
        }
    }

    accessors!(load_u16, store_u16, u16, AtomicU16);
    accessors!(load_u32, store_u32, u32, AtomicU32);
    accessors!(load_u64, store_u64, u64, AtomicU64);

    #[inline]
    fn at(&self, offset: usize, size: usize) -> Option<NonNull<u8>> {
        let inside = offset <= self.len && size <= self.len - offset;
        // SAFETY: checked just now: `offset` is within the range.
        let at = inside.then(|| unsafe { self.base.add(offset) })?;
        at.addr().get().is_multiple_of(size).then_some(at)
    }
}
