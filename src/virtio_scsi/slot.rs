//! Where a response goes: the first writable bytes of a chain, however they are split over descriptors.

use crate::mem::{GuestWriter, MemoryMap, OutsideMemory};

/// A place for a response in guest memory.
///
/// Kept by the hba for as long as the command runs; its vector is reused. It holds guest physical addresses, which are
/// looked up when the response is written, so a memory map may be replaced in between.
#[derive(Debug, Default)]
pub struct ResponseSlot {
    pieces: Vec<(u64, u32)>,
    len: u32,
}

impl ResponseSlot {
    /// Length in bytes: that of the whole response, or less if the driver left less room.
    pub fn len(&self) -> u32 {
        self.len
    }

    /// Whether there is no room at all.
    pub fn is_empty(&self) -> bool {
        self.len == 0
    }

    /// Writes the response, or as much of it as there is room for; returns how many bytes were written, which is the
    /// length to put on the used ring if no data follows.
    pub fn write(&self, to: GuestWriter<'_>, response: &[u8]) -> u32 {
        let mut rest = response;
        let mut written = 0;
        for &(addr, len) in &self.pieces {
            let (now, later) = rest.split_at(rest.len().min(len as usize));
            if now.is_empty() || to.write(addr, now).is_err() {
                break;
            }
            written += now.len() as u32;
            rest = later;
        }
        written
    }

    /// The length to put on the used ring when `written` bytes of response and then `data` bytes of Data-In were
    /// written: only bytes in an unbroken run from the first writable one may be claimed (virtio 1.2 2.7.8.2).
    pub fn used_len(&self, written: u32, data: u32) -> u32 {
        if written == self.len { written.saturating_add(data) } else { written }
    }

    /// Where it is, as (guest physical address, length in bytes).
    pub fn pieces(&self) -> &[(u64, u32)] {
        &self.pieces
    }

    /// For how many pieces there is memory.
    pub fn capacity(&self) -> usize {
        self.pieces.capacity()
    }

    pub(super) fn clear(&mut self) {
        self.pieces.clear();
        self.len = 0;
    }

    pub(super) fn push(&mut self, addr: u64, len: u32) {
        self.pieces.push((addr, len));
        self.len += len;
    }

    /// Whether all of it is guest memory. It will be written soon.
    pub(super) fn check(&self, map: &MemoryMap) -> Result<(), OutsideMemory> {
        let outside = |&&(addr, len): &&(u64, u32)| !map.contains_to_write(addr, u64::from(len));
        match self.pieces.iter().find(outside) {
            Some(&(addr, len)) => Err(OutsideMemory { addr, len: u64::from(len) }),
            None => Ok(()),
        }
    }
}
