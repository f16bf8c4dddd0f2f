//! Guest memory that the ring holds: entries then name it, and the kernel need not look up its pages for each of them.

use std::io;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use crate::mem::{Region, RegionPart};
use crate::sys::ring::{FixedMemory, Ring};

/// How much memory may be registered, in all, by those who share this. Memory that several rings hold counts for each of them, as it does
/// against the limit of locked memory.
#[derive(Clone, Debug, Default)]
pub struct MemoryBudget(Arc<AtomicU64>);

impl MemoryBudget {
    /// So many bytes.
    pub fn new(bytes: u64) -> MemoryBudget {
        MemoryBudget(Arc::new(AtomicU64::new(bytes)))
    }

    /// What is left, in bytes.
    pub fn left(&self) -> u64 {
        self.0.load(Ordering::Relaxed)
    }

    fn take(&self, bytes: u64) -> Option<Share> {
        let taken = self.0.fetch_update(Ordering::Relaxed, Ordering::Relaxed, |left| left.checked_sub(bytes));
        taken.is_ok().then(|| Share { budget: self.clone(), bytes })
    }
}

/// A part of a budget, until this is dropped.
#[derive(Debug)]
struct Share {
    budget: MemoryBudget,
    bytes: u64,
}

impl Drop for Share {
    fn drop(&mut self) {
        self.budget.0.fetch_add(self.bytes, Ordering::Relaxed);
    }
}

/// What one ring holds.
///
/// Each part keeps its region mapped: as long as an address is found here, nothing else is mapped there.
#[derive(Debug)]
pub(super) struct Registered {
    budget: MemoryBudget,
    /// Ascending by address.
    held: Vec<Held>,
    /// Not found any more, and let go of one by one: each takes its time.
    over: Vec<Held>,
}

#[derive(Debug)]
struct Held {
    start: usize,
    end: usize,
    /// By whom.
    owner: u64,
    // Let go of in this order.
    memory: FixedMemory,
    part: RegionPart,
    _share: Share,
}

impl Registered {
    pub(super) fn new(budget: MemoryBudget) -> Registered {
        Registered { budget, held: Vec::new(), over: Vec::new() }
    }

    /// Has the ring hold a part of guest memory; nothing new if it does already.
    pub(super) fn add(&mut self, ring: &Ring, owner: u64, part: RegionPart) -> io::Result<()> {
        let start = part.host().as_ptr().addr();
        let at = self.held.partition_point(|held| held.start < start);
        if self.held.get(at).is_some_and(|held| held.start == start) {
            return Ok(());
        }
        let share = self.budget.take(part.size()).ok_or_else(|| io::Error::from(io::ErrorKind::QuotaExceeded))?;
        let memory = ring.fix_memory(part.host(), part.size() as usize)?;
        let end = start + part.size() as usize;
        self.held.insert(at, Held { start, end, owner, memory, part, _share: share });
        Ok(())
    }

    /// Forgets what belongs to an owner, but for the regions that `keeps` names.
    pub(super) fn forget(&mut self, owner: u64, keeps: impl Fn(&Arc<Region>) -> bool) {
        self.over.extend(self.held.extract_if(.., |held| held.owner == owner && !keeps(held.part.region())));
    }

    /// Lets go of one part that was forgotten.
    pub(super) fn let_go(&mut self) {
        self.over.pop();
    }

    /// Whether there is more to be let go of.
    pub(super) fn is_letting_go(&self) -> bool {
        !self.over.is_empty()
    }

    /// The number of the memory that has all of these bytes.
    #[inline]
    pub(super) fn find(&self, start: usize, len: usize) -> Option<u16> {
        if self.held.is_empty() {
            return None;
        }
        let at = self.held.partition_point(|held| held.end <= start);
        let held = self.held.get(at).filter(|held| held.start <= start && len <= held.end - start)?;
        Some(held.memory.index())
    }
}
