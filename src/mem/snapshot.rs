//! Which memory maps a reactor's commands still point into.

use std::num::NonZeroU64;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use super::io_buf::Piece;
use super::{Direction, DirtyLog, GuestWriter, IoBuf, MemoryMap, OutsideMemory};

/// Names one snapshot of one [`SnapshotSet`]. No two snapshots of a process ever have the same name.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct SnapshotId(NonZeroU64);

/// The next snapshot's name. 64 bits do not wrap.
static NEXT: AtomicU64 = AtomicU64::new(0);

/// A session's memory maps as one reactor sees them: the current one, and older ones that commands in flight still use.
///
/// # Why an `IoBuf` never dangles
///
/// [`SnapshotSet::resolve`] counts the buffer in the snapshot whose name it stamps on it; only
/// [`SnapshotSet::release`], which takes the buffer and empties it, counts it out again; a snapshot's map is
/// dropped only while its count is zero. A buffer cannot be copied, and its name cannot be forged, so while a buffer
/// has pieces, it is counted. What breaks the rule (a buffer that is dropped or forgotten, one released to another
/// set, a set dropped before its buffers are back) leaves a count too high and a map mapped for ever.
#[derive(Debug)]
pub struct SnapshotSet {
    current: Snapshot,
    /// Ascending by age, each with at least one buffer out.
    old: Vec<Snapshot>,
    /// Where writes are marked, while the front-end wants that.
    log: Option<Arc<DirtyLog>>,
}

#[derive(Debug)]
struct Snapshot {
    id: SnapshotId,
    map: Arc<MemoryMap>,
    /// Buffers that are out.
    out: usize,
    /// Of those, how many touch each region, by [`region_bit`].
    touching: Box<[usize; 64]>,
    /// The regions whose memory the current map lacks, by [`region_bit`].
    gone: u64,
}

/// The bit that stands for a region of a map in a set of them. Regions from the 64th on share one: a command that touches one
/// of them is taken to touch all, which can only make a memory change wait longer.
fn region_bit(index: usize) -> u64 {
    1 << index.min(63)
}

/// The bit positions in a set of regions.
fn bits(mut set: u64) -> impl Iterator<Item = usize> {
    std::iter::from_fn(move || {
        let bit = set.trailing_zeros() as usize;
        set &= set.wrapping_sub(1);
        (bit < 64).then_some(bit)
    })
}

impl Snapshot {
    fn new(map: Arc<MemoryMap>) -> Snapshot {
        let id = SnapshotId(NonZeroU64::MIN.saturating_add(NEXT.fetch_add(1, Ordering::Relaxed)));
        Snapshot { id, map, out: 0, touching: Box::new([0; 64]), gone: 0 }
    }

    fn compare_with(&mut self, current: &MemoryMap) {
        let lost = self.map.regions().iter().enumerate().filter(|(_, region)| !current.covers(region));
        self.gone = lost.fold(0, |set, (index, _)| set | region_bit(index));
    }

    fn count_out(&mut self, regions: u64) {
        self.out += 1;
        bits(regions).for_each(|bit| self.touching[bit] += 1);
    }

    fn count_in(&mut self, regions: u64) {
        self.out -= 1;
        bits(regions).for_each(|bit| self.touching[bit] -= 1);
    }
}

impl SnapshotSet {
    /// A set whose current snapshot is `map`.
    pub fn new(map: Arc<MemoryMap>) -> Self {
        SnapshotSet { current: Snapshot::new(map), old: Vec::new(), log: None }
    }

    /// The current map.
    pub fn map(&self) -> &Arc<MemoryMap> {
        &self.current.map
    }

    /// Marks every write from now on in `log`.
    pub fn set_log(&mut self, log: Option<Arc<DirtyLog>>) {
        self.log = log;
    }

    /// Where writes are marked.
    pub fn log(&self) -> Option<&DirtyLog> {
        self.log.as_deref()
    }

    /// Writes to the current map.
    pub fn writer(&self) -> GuestWriter<'_> {
        self.writer_to(&self.current.map)
    }

    /// Writes to a map, perhaps an earlier one.
    pub fn writer_to<'a>(&'a self, map: &'a MemoryMap) -> GuestWriter<'a> {
        GuestWriter::new(map, self.log())
    }

    /// Marks the pieces of a data buffer, as (guest physical address, length in bytes): an engine may have written to all of it.
    pub fn mark(&self, pieces: impl Iterator<Item = (u64, u32)>) {
        if let Some(log) = &self.log {
            pieces.for_each(|(addr, len)| log.mark(addr, len.into()));
        }
    }

    /// Makes `map` the current one. The one before lives on until the last [`IoBuf`] resolved against it is back.
    pub fn replace(&mut self, map: Arc<MemoryMap>) {
        let before = std::mem::replace(&mut self.current, Snapshot::new(map));
        if before.out > 0 {
            self.old.push(before);
        }
        for old in &mut self.old {
            old.compare_with(&self.current.map);
        }
    }

    /// A buffer over the pieces of guest memory given by (guest physical address, length in bytes), in that order. A piece
    /// may span adjoining regions; pieces that adjoin in this process become one; pieces of no bytes are left out.
    ///
    /// `reuse` is an empty buffer whose allocation is used again; what it still held is released first. A buffer without
    /// a byte is not counted as out. Without a direction there are no pieces.
    ///
    /// # Errors
    ///
    /// If a byte of it is not guest memory. `reuse` is gone then, allocation and all.
    pub fn resolve(
        &mut self,
        direction: Direction,
        pieces: impl Iterator<Item = (u64, u32)>,
        reuse: IoBuf,
    ) -> Result<IoBuf, OutsideMemory> {
        let mut buf = self.release(reuse);
        if direction == Direction::None {
            return Ok(buf);
        }
        let parts = buf.parts_mut();
        for (addr, len) in pieces {
            self.current.map.pieces(addr, u64::from(len), |index, host, len| {
                parts.regions |= region_bit(index);
                parts.push(Piece { base: host.as_ptr(), len });
            })?;
        }
        parts.direction = direction;
        if !parts.is_empty() {
            parts.snapshot = Some(self.current.id);
            self.current.count_out(parts.regions);
        }
        Ok(buf)
    }

    /// Takes a buffer back and gives its allocation, emptied, for the next [`SnapshotSet::resolve`]. Any buffer may be
    /// given: one without guest memory is just emptied, one of another set leaves that set's count as it is.
    pub fn release(&mut self, mut buf: IoBuf) -> IoBuf {
        if let Some((id, regions)) = buf.parts().and_then(|parts| Some((parts.snapshot?, parts.regions))) {
            if id == self.current.id {
                self.current.count_in(regions);
            } else if let Some(at) = self.old.iter().position(|s| s.id == id) {
                self.old[at].count_in(regions);
                if self.old[at].out == 0 {
                    self.old.remove(at);
                }
            } else {
                debug_assert!(false, "an I/O buffer was released to a set that it is not of");
            }
        }
        buf.clear();
        buf
    }

    /// How many uses of memory that the current map lacks are not over: 0 exactly if no buffer that is out touches
    /// such memory. A buffer that touches several lost regions counts once for each.
    pub fn old_in_use(&self) -> usize {
        self.old.iter().map(|s| bits(s.gone).map(|bit| s.touching[bit]).sum::<usize>()).sum()
    }

    /// Whether a buffer that is out touches memory that the current map lacks.
    pub fn in_use_outside(&self) -> bool {
        self.old_in_use() > 0
    }

    /// How many buffers are out, on all snapshots.
    pub fn outstanding(&self) -> usize {
        self.current.out + self.old.iter().map(|s| s.out).sum::<usize>()
    }
}

impl Default for SnapshotSet {
    /// Over no memory at all.
    fn default() -> Self {
        SnapshotSet::new(Arc::default())
    }
}

impl Drop for SnapshotSet {
    fn drop(&mut self) {
        for snapshot in std::iter::once(&self.current).chain(&self.old) {
            if snapshot.out > 0 {
                // Somebody still has addresses in it: it must never be unmapped.
                std::mem::forget(Arc::clone(&snapshot.map));
            }
        }
    }
}

#[cfg(test)]
mod tests;
