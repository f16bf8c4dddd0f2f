//! The dirty log of a live migration: a bitmap, shared with the front-end, of the guest's pages that were written.
//!
//! One bit stands for 4 KiB of guest physical address space, whatever the page size of either side: bit `page % 8` of byte
//! `page / 8` (vhost-user, "Migration"). The front-end takes bits away while we set them, so every access is atomic.
//!
//! A bit is set *after* the write that it speaks of. The front-end clears it and then copies the page: it either finds our bit
//! later on and copies again, or it cleared one that was set after the write, and copies what was written.
#![allow(unsafe_code, reason = "the log is reached by raw pointers; each use argues its bounds")]

use std::fs::File;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU8, Ordering, fence};

use super::region::{Region, RegionError, RegionSpec};

/// Guest physical address space that one bit stands for: 4 KiB, as a power of two.
const PAGE_SHIFT: u32 = 12;

/// Largest log in bytes: one for all addresses of 52 bits, which is the most that a CPU has.
const MAX_BYTES: u64 = 1 << (52 - PAGE_SHIFT - 3);

/// A dirty log, mapped. Unmapped when the last holder drops it.
#[derive(Debug)]
pub struct DirtyLog {
    /// The file's piece: mapped and watched like guest memory, for it can be shrunk like guest memory.
    region: Arc<Region>,
    /// A write was beyond its end, which was said.
    overrun: AtomicBool,
}

impl DirtyLog {
    /// Maps the log that is `size` bytes of `file` from byte `offset` on.
    ///
    /// # Errors
    ///
    /// As [`Region::map`]; also if it is larger than any guest's memory needs.
    pub fn map(file: File, size: u64, offset: u64) -> Result<Arc<DirtyLog>, RegionError> {
        let spec = RegionSpec { guest_addr: 0, size, user_addr: 0, mmap_offset: offset };
        if size > MAX_BYTES {
            return Err(RegionError::TooLarge(spec.guest_addr));
        }
        Ok(Arc::new(DirtyLog { region: Region::map(&spec, file)?, overrun: AtomicBool::new(false) }))
    }

    /// Marks the pages of `len` bytes of guest memory at `gpa`, which were written just before.
    ///
    /// What lies beyond the log's end has no bit: the front-end does not migrate it, or has still to send a larger log.
    pub fn mark(&self, gpa: u64, len: u64) {
        let Some(past_first) = len.checked_sub(1) else { return };
        let (first, last) = (gpa >> PAGE_SHIFT, gpa.saturating_add(past_first) >> PAGE_SHIFT);
        // Orders the write before the looks below: a bit that is still set then will be cleared by somebody who sees the write.
        fence(Ordering::SeqCst);
        let bytes = self.region.size();
        for at in first / 8..(last / 8 + 1).min(bytes) {
            let from = if at == first / 8 { first % 8 } else { 0 };
            let to = if at == last / 8 { last % 8 } else { 7 };
            self.set(at, (0xff << from) & (0xff >> (7 - to)));
        }
        if last / 8 >= bytes && !self.overrun.swap(true, Ordering::Relaxed) {
            log::warn!("{len} bytes written at guest address {gpa:#x} are beyond the dirty log of {bytes} bytes");
        }
    }

    /// Whether its file was shrunk, so that marks are lost. The connection should be dropped.
    pub fn poisoned(&self) -> bool {
        self.region.poisoned()
    }

    /// Sets bits of byte `at`, which is within the log.
    fn set(&self, at: u64, bits: u8) {
        debug_assert!(at < self.region.size());
        // SAFETY: `mark` calls with `at` below the region's size, and so many bytes are mapped at `host` while the region lives.
        let byte = unsafe { self.region.host().add(at as usize) };
        // SAFETY: mapped (see above), shared, and reached by atomic operations only; a byte is always aligned.
        let byte = unsafe { AtomicU8::from_ptr(byte.as_ptr()) };
        // Pages are written more often than they are copied, and a load disturbs nobody.
        if byte.load(Ordering::Relaxed) & bits != bits {
            byte.fetch_or(bits, Ordering::SeqCst);
        }
    }
}

/// Where a used ring is logged: at an address of its own (`log_guest_addr` of SET_VRING_ADDR).
#[derive(Clone, Debug)]
pub struct UsedRingLog {
    /// The log.
    pub log: Arc<DirtyLog>,
    /// Guest physical address of the used ring, for the log.
    pub addr: u64,
}

impl UsedRingLog {
    /// Marks `len` bytes from byte `offset` of the used ring on.
    pub(super) fn mark(&self, offset: usize, len: usize) {
        // The address is the front-end's and may be anything.
        self.log.mark(self.addr.saturating_add(offset as u64), len as u64);
    }
}

#[cfg(test)]
mod tests;
