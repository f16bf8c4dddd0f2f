//! Writing to guest memory, on the record.

use super::{DirtyLog, MemoryMap, OutsideMemory};

/// The way to write to guest memory: marks in the dirty log what it wrote, if there is a log.
///
/// A [`MemoryMap`] cannot be written to from outside of this room, so that nobody forgets the log.
#[derive(Clone, Copy, Debug)]
pub struct GuestWriter<'a> {
    map: &'a MemoryMap,
    log: Option<&'a DirtyLog>,
}

impl<'a> GuestWriter<'a> {
    /// Writes to `map` and marks in `log`.
    pub fn new(map: &'a MemoryMap, log: Option<&'a DirtyLog>) -> GuestWriter<'a> {
        GuestWriter { map, log }
    }

    /// Writes `src` to guest memory at `gpa`.
    ///
    /// # Errors
    ///
    /// If not all of it is guest memory; a part may then have been written.
    pub fn write(&self, gpa: u64, src: &[u8]) -> Result<(), OutsideMemory> {
        let result = self.map.write(gpa, src);
        if let Some(log) = self.log {
            log.mark(gpa, src.len() as u64);
        }
        result
    }
}
