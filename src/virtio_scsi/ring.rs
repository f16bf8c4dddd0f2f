//! A split virtqueue in guest memory, the device's side (virtio 1.2 2.7).
//!
//! The addresses of its three parts are translated once, when the ring is set up or the memory map changes; then an access
//! is a bounds check and a load or store. Everything that the guest wrote is read once and checked after it was read.

use std::sync::Arc;
use std::sync::atomic::{Ordering, fence};

use super::chain::{Chain, ChainDefect, Descriptor};
use crate::mem::{GuestRange, LoggedRange, MemoryMap, OutsideMemory, PinnedRange, UsedRingLog};

/// Where a ring is and where it goes on. Addresses are guest physical.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct RingSetup {
    /// Number of descriptors; a power of two.
    pub size: u16,
    /// Address of the descriptor table; 16-byte aligned.
    pub desc: u64,
    /// Address of the available ring; 2-byte aligned.
    pub avail: u64,
    /// Address of the used ring; 4-byte aligned.
    pub used: u64,
    /// Index of the next available entry to take.
    pub next_avail: u16,
    /// Index of the next used entry to publish.
    pub next_used: u16,
    /// Whether VIRTIO_RING_F_EVENT_IDX was negotiated.
    pub event_idx: bool,
}

/// What breaks a ring. It takes no more chains until it is set up again.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum RingError {
    /// Not a power of two between 1 and 32768.
    #[error("a ring of {0} descriptors")]
    Size(u16),
    /// A part of it is misaligned or not wholly in one region of guest memory.
    #[error("its {0} at {1:#x} is misaligned or not in one region of guest memory")]
    Address(&'static str, u64),
    /// avail.idx says that more chains are available than there are descriptors.
    #[error("its available index is {idx} where at most {size} entries from {next} on can be")]
    AvailIndex {
        /// What the guest says.
        idx: u16,
        /// Where the device is.
        next: u16,
        /// Number of descriptors.
        size: u16,
    },
    /// An available chain begins at a descriptor that does not exist.
    #[error("an available chain begins at descriptor {0}, which does not exist")]
    Head(u16),
    /// An available chain begins at a descriptor where one that is not yet used began: they could not be told apart.
    #[error("an available chain begins at descriptor {0}, which is in flight")]
    HeadInFlight(u16),
    /// It broke before.
    #[error("it is broken")]
    Broken,
}

/// What [`SplitRing::pop`] found.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[must_use]
pub enum Popped {
    /// No chain is available.
    Empty,
    /// A chain.
    Chain,
    /// A chain that is not well-formed: its head is valid, its descriptors are those before the defect. It is to be given
    /// back with length 0, which costs the guest this request only.
    Malformed(ChainDefect),
}

const DESC_SIZE: usize = 16;
/// Of descriptor flags.
const DESC_F_NEXT: u16 = 1;
const DESC_F_WRITE: u16 = 2;
const DESC_F_INDIRECT: u16 = 4;
/// `flags` of the available ring: the driver wants no interrupts.
const AVAIL_F_NO_INTERRUPT: u16 = 1;
/// `flags` of the used ring: the device wants no kicks.
const USED_F_NO_NOTIFY: u16 = 1;
/// Offsets in both rings: `flags`, `idx`, entries.
const FLAGS: usize = 0;
const IDX: usize = 2;
const ENTRIES: usize = 4;
const AVAIL_ENTRY: usize = 2;
const USED_ENTRY: usize = 8;

/// How many descriptors a chain may have if an indirect table holds them; drivers make such chains longer than the queue
/// (virtio 1.2 2.7.5.3.1 notwithstanding), and QEMU has always taken this many.
const MAX_INDIRECT: usize = 1024;

/// The longest chain in bytes (virtio 1.2 2.7.5.2).
const MAX_BYTES: u64 = 1 << 32;

/// A split virtqueue.
#[derive(Debug)]
pub struct SplitRing {
    setup: RingSetup,
    /// `None` after a map came in which the ring is not.
    areas: Option<Areas>,
    /// How the used ring is logged, if it is.
    log: Option<UsedRingLog>,
    broken: bool,
    next_avail: u16,
    /// The last avail.idx seen: entries before it are there to take.
    seen_avail: u16,
    /// Entries before it are in the used ring, but not yet known to the driver.
    next_used: u16,
    /// used.idx as the driver sees it.
    published: u16,
    /// Whether an interrupt was decided on since the ring was set up: the first one is always sent.
    signalled: bool,
    /// The heads that were popped and not pushed, as a bit set.
    in_flight: Box<[u64]>,
}

#[derive(Debug)]
struct Areas {
    map: Arc<MemoryMap>,
    desc: PinnedRange,
    avail: PinnedRange,
    used: LoggedRange,
}

impl Areas {
    fn new(map: &Arc<MemoryMap>, s: &RingSetup, log: Option<&UsedRingLog>) -> Result<Areas, RingError> {
        let size = usize::from(s.size);
        let event = if s.event_idx { 2 } else { 0 };
        let part = |what, addr: u64, len: usize, align: usize| {
            let aligned = addr.is_multiple_of(align as u64);
            let range = PinnedRange::new(map, addr, len as u64, align).filter(|_| aligned);
            range.ok_or(RingError::Address(what, addr))
        };
        Ok(Areas {
            map: Arc::clone(map),
            desc: part("descriptor table", s.desc, DESC_SIZE * size, 16)?,
            avail: part("available ring", s.avail, ENTRIES + AVAIL_ENTRY * size + event, 2)?,
            used: LoggedRange::new(part("used ring", s.used, ENTRIES + USED_ENTRY * size + event, 4)?, log.cloned()),
        })
    }
}

impl SplitRing {
    /// A ring as it was set up.
    ///
    /// # Errors
    ///
    /// If the size is impossible or it is not in guest memory.
    pub fn new(map: &Arc<MemoryMap>, setup: &RingSetup) -> Result<Self, RingError> {
        if !setup.size.is_power_of_two() {
            return Err(RingError::Size(setup.size));
        }
        Ok(SplitRing {
            setup: *setup,
            areas: Some(Areas::new(map, setup, None)?),
            log: None,
            broken: false,
            next_avail: setup.next_avail,
            seen_avail: setup.next_avail,
            next_used: setup.next_used,
            published: setup.next_used,
            signalled: false,
            in_flight: vec![0; usize::from(setup.size).div_ceil(64)].into_boxed_slice(),
        })
    }

    /// Marks every write to the used ring from now on, or none.
    pub fn set_log(&mut self, log: Option<UsedRingLog>) {
        if let Some(areas) = &mut self.areas {
            areas.used.set_log(log.clone());
        }
        self.log = log;
    }

    /// Translates its addresses anew, for a map that replaced the one before.
    ///
    /// # Errors
    ///
    /// If it is not in the new map; it is broken then and does not touch the old one again.
    pub fn remap(&mut self, map: &Arc<MemoryMap>) -> Result<(), RingError> {
        self.areas = None;
        match Areas::new(map, &self.setup, self.log.as_ref()) {
            Ok(areas) => {
                self.areas = Some(areas);
                Ok(())
            }
            Err(error) => self.break_with(error),
        }
    }

    /// Takes the next available chain, if there is one, and copies its descriptors, indirect ones included, into `chain`.
    /// From [`Popped::Chain`] and [`Popped::Malformed`] on its head is in flight until [`SplitRing::push_used`].
    ///
    /// # Errors
    ///
    /// If the ring breaks or is broken.
    pub fn pop(&mut self, chain: &mut Chain) -> Result<Popped, RingError> {
        if self.next_avail == self.seen_avail || self.broken {
            self.seen_avail = match self.avail_idx() {
                Ok(idx) => idx,
                Err(error) => return self.break_with(error),
            };
            if self.next_avail == self.seen_avail {
                return Ok(Popped::Empty);
            }
        }
        let Some(areas) = &self.areas else { return Err(RingError::Broken) };
        let entry = ENTRIES + AVAIL_ENTRY * usize::from(self.next_avail & self.mask());
        // The load of avail.idx was an Acquire, so the driver's entry and descriptors are there to be seen.
        let head = areas.avail.range().load_u16(entry, Ordering::Relaxed).unwrap_or(u16::MAX);
        if head >= self.setup.size {
            return self.break_with(RingError::Head(head));
        }
        if !mark(&mut self.in_flight, head) {
            return self.break_with(RingError::HeadInFlight(head));
        }
        self.next_avail = self.next_avail.wrapping_add(1);
        // Where the answer's entry may come; its driver has read there.
        areas.used.range().prefetch_to_write(ENTRIES + USED_ENTRY * usize::from(self.next_used & self.mask()));
        Ok(walk(chain, head, areas, self.setup.size))
    }

    /// Takes a chain that whoever ran the ring before had taken and not given back; [`RingSetup::next_avail`] is behind it.
    /// Otherwise as [`SplitRing::pop`]. To be used for all such chains before the first new one.
    ///
    /// # Errors
    ///
    /// If there is no such head, it is in flight already, or the ring is not in memory any more.
    pub fn pop_again(&mut self, head: u16, chain: &mut Chain) -> Result<Popped, RingError> {
        let Some(areas) = &self.areas else { return Err(RingError::Broken) };
        if head >= self.setup.size {
            return self.break_with(RingError::Head(head));
        }
        if !mark(&mut self.in_flight, head) {
            return self.break_with(RingError::HeadInFlight(head));
        }
        Ok(walk(chain, head, areas, self.setup.size))
    }

    /// Whether it is in memory: what is published is seen.
    pub fn is_mapped(&self) -> bool {
        self.areas.is_some()
    }

    /// Puts a chain that was popped into the used ring: `len` bytes were written to it. The driver does not see it before
    /// [`SplitRing::publish`].
    pub fn push_used(&mut self, head: u16, len: u32) {
        let (word, bit) = (usize::from(head / 64), 1 << (head % 64));
        let in_flight = self.in_flight.get(word).is_some_and(|w| w & bit != 0);
        debug_assert!(in_flight, "descriptor {head} is not in flight");
        // So the used ring never holds more than `size` entries that the driver has not seen.
        if !in_flight {
            return;
        }
        self.in_flight[word] &= !bit;
        let slot = self.next_used & self.mask();
        self.next_used = self.next_used.wrapping_add(1);
        let Some(areas) = &self.areas else { return };
        let used = &areas.used;
        let entry = ENTRIES + USED_ENTRY * usize::from(slot);
        used.store_u32(entry, u32::from(head), Ordering::Relaxed);
        used.store_u32(entry + 4, len, Ordering::Relaxed);
    }

    /// Shows the driver all that was pushed, with one store of used.idx, and returns whether it wants an interrupt.
    pub fn publish(&mut self) -> bool {
        let (old, new) = (self.published, self.next_used);
        if old == new {
            return false;
        }
        self.published = new;
        let Some(areas) = &self.areas else { return false };
        // Release: entries, and the data and responses that they speak of, before the index.
        areas.used.store_u16(IDX, new, Ordering::Release);
        // The driver stores used_event (or flags) and then looks at used.idx; we do it the other way round. With a full
        // fence on both sides at least one sees the other's store (virtio 1.2 2.7.10).
        fence(Ordering::SeqCst);
        let first = !std::mem::replace(&mut self.signalled, true);
        let avail = areas.avail.range();
        if !self.setup.event_idx {
            let flags = avail.load_u16(FLAGS, Ordering::Relaxed).unwrap_or(0);
            return flags & AVAIL_F_NO_INTERRUPT == 0;
        }
        // It wants one when the entry at used_event has become used: old <= event < new, modulo 2^16. Before our first
        // word the driver may have moved used_event for entries that somebody else published.
        let event = avail.load_u16(ENTRIES + AVAIL_ENTRY * usize::from(self.setup.size), Ordering::Relaxed);
        first || event.is_none_or(|event| new.wrapping_sub(event).wrapping_sub(1) < new.wrapping_sub(old))
    }

    /// A hint that chains will be looked for soon: what the driver has written there is fetched from its processor's cache.
    ///
    /// [`SplitRing::prefetch_used`] is the same for publishing.
    pub fn prefetch_avail(&self) {
        let Some(areas) = &self.areas else { return };
        areas.avail.range().prefetch(IDX);
        areas.avail.range().prefetch(ENTRIES + AVAIL_ENTRY * usize::from(self.next_avail & self.mask()));
    }

    /// A hint that used entries will be published soon.
    pub fn prefetch_used(&self) {
        let Some(areas) = &self.areas else { return };
        areas.avail.range().prefetch(ENTRIES + AVAIL_ENTRY * usize::from(self.setup.size));
        areas.used.range().prefetch_to_write(IDX);
    }

    /// Index behind the last available entry: where [`SplitRing::next_avail`] is when all that is available now has been taken.
    ///
    /// # Errors
    ///
    /// If avail.idx is impossible, or the ring is broken.
    pub fn end_avail(&self) -> Result<u16, RingError> {
        self.avail_idx()
    }

    /// Whether a chain is available.
    ///
    /// # Errors
    ///
    /// If avail.idx is impossible, or the ring is broken.
    pub fn has_avail(&self) -> Result<bool, RingError> {
        Ok(self.avail_idx()? != self.next_avail)
    }

    /// Tells the driver that no kicks are needed. With EVENT_IDX there is nothing to say: it kicks once for the entry that
    /// [`SplitRing::enable_kicks`] named, and not again.
    pub fn disable_kicks(&mut self) {
        if let Some(areas) = self.areas.as_ref().filter(|_| !self.setup.event_idx) {
            areas.used.store_u16(FLAGS, USED_F_NO_NOTIFY, Ordering::Relaxed);
        }
    }

    /// Asks the driver to kick for the next chain. True if chains have become available meanwhile, perhaps without
    /// a kick.
    ///
    /// # Errors
    ///
    /// As [`SplitRing::has_avail`].
    pub fn enable_kicks(&mut self) -> Result<bool, RingError> {
        let areas = self.areas.as_ref().ok_or(RingError::Broken)?;
        let used = &areas.used;
        if self.setup.event_idx {
            let avail_event = ENTRIES + USED_ENTRY * usize::from(self.setup.size);
            used.store_u16(avail_event, self.next_avail, Ordering::Relaxed);
        } else {
            used.store_u16(FLAGS, 0, Ordering::Relaxed);
        }
        // The driver stores avail.idx and then looks at avail_event (or flags); see `publish`.
        fence(Ordering::SeqCst);
        self.has_avail()
    }

    /// Index of the next available entry to take: what GET_VRING_BASE answers.
    pub fn next_avail(&self) -> u16 {
        self.next_avail
    }

    /// Index of the next used entry to fill.
    pub fn next_used(&self) -> u16 {
        self.next_used
    }

    /// Number of descriptors.
    pub fn size(&self) -> u16 {
        self.setup.size
    }

    /// How many chains were popped and not pushed.
    pub fn in_flight(&self) -> u32 {
        self.in_flight.iter().map(|w| w.count_ones()).sum()
    }

    /// Whether it takes no more chains.
    pub fn is_broken(&self) -> bool {
        self.broken
    }

    fn mask(&self) -> u16 {
        self.setup.size - 1
    }

    fn break_with<T>(&mut self, error: RingError) -> Result<T, RingError> {
        self.broken = true;
        Err(error)
    }

    fn avail_idx(&self) -> Result<u16, RingError> {
        let areas = self.areas.as_ref().filter(|_| !self.broken).ok_or(RingError::Broken)?;
        // Acquire: what the driver wrote before it raised the index.
        let idx = areas.avail.range().load_u16(IDX, Ordering::Acquire).ok_or(RingError::Broken)?;
        if idx.wrapping_sub(self.next_avail) > self.setup.size {
            return Err(RingError::AvailIndex { idx, next: self.next_avail, size: self.setup.size });
        }
        Ok(idx)
    }
}

/// Notes that the chain at `head` is in flight; false if it is already. `head` is below the ring's size.
fn mark(in_flight: &mut [u64], head: u16) -> bool {
    let (word, bit) = (usize::from(head / 64), 1 << (head % 64));
    let free = in_flight[word] & bit == 0;
    in_flight[word] |= bit;
    free
}

/// Copies the chain that begins at `head`.
fn walk(chain: &mut Chain, head: u16, areas: &Areas, size: u16) -> Popped {
    chain.head = head;
    chain.descriptors.clear();
    let mut walk = Walk { chain, bytes: 0, writable: false };
    match walk.table(areas, size) {
        Ok(()) => Popped::Chain,
        Err(defect) => Popped::Malformed(defect),
    }
}

/// A descriptor as it is in a table.
#[derive(Clone, Copy)]
struct RawDescriptor {
    addr: u64,
    len: u32,
    flags: u16,
    next: u16,
}

impl RawDescriptor {
    /// From its two halves as little-endian words.
    fn new(addr: u64, rest: u64) -> RawDescriptor {
        RawDescriptor { addr, len: rest as u32, flags: (rest >> 32) as u16, next: (rest >> 48) as u16 }
    }
}

/// Follows a chain.
struct Walk<'a> {
    chain: &'a mut Chain,
    bytes: u64,
    writable: bool,
}

impl Walk<'_> {
    /// Along the ring's own table, from the chain's head on.
    fn table(&mut self, areas: &Areas, size: u16) -> Result<(), ChainDefect> {
        let table = areas.desc.range();
        let mut index = self.chain.head;
        for _ in 0..size {
            let at = DESC_SIZE * usize::from(index);
            let halves = table.load_u64(at, Ordering::Relaxed).zip(table.load_u64(at + 8, Ordering::Relaxed));
            let Some((addr, rest)) = halves else { return Err(ChainDefect::NextOutOfRange(index)) };
            let d = RawDescriptor::new(addr, rest);
            if d.flags & DESC_F_INDIRECT != 0 {
                return self.indirect(&areas.map, d);
            }
            self.take(d)?;
            if d.flags & DESC_F_NEXT == 0 {
                return Ok(());
            }
            index = d.next;
        }
        Err(ChainDefect::TooManyDescriptors)
    }

    /// Along the indirect table that `d` refers to; its WRITE flag means nothing (virtio 1.2 2.7.5.3.2).
    fn indirect(&mut self, map: &MemoryMap, d: RawDescriptor) -> Result<(), ChainDefect> {
        if d.flags & DESC_F_NEXT != 0 {
            return Err(ChainDefect::IndirectWithNext);
        }
        let entries = d.len / DESC_SIZE as u32;
        if entries == 0 || entries > u32::from(u16::MAX) || !(d.len as usize).is_multiple_of(DESC_SIZE) {
            return Err(ChainDefect::IndirectLength(d.len));
        }
        let table = Table { map, addr: d.addr, whole: map.range(d.addr, u64::from(d.len)) };
        let mut index = 0;
        // A chain that visits more entries than there are loops.
        let room = MAX_INDIRECT.saturating_sub(self.chain.descriptors.len());
        for _ in 0..room.min(entries as usize) {
            if u32::from(index) >= entries {
                return Err(ChainDefect::NextOutOfRange(index));
            }
            let entry = table.entry(index).map_err(ChainDefect::IndirectOutside)?;
            if entry.flags & DESC_F_INDIRECT != 0 {
                return Err(ChainDefect::NestedIndirect);
            }
            self.take(entry)?;
            if entry.flags & DESC_F_NEXT == 0 {
                return Ok(());
            }
            index = entry.next;
        }
        Err(ChainDefect::TooManyDescriptors)
    }

    fn take(&mut self, d: RawDescriptor) -> Result<(), ChainDefect> {
        let writable = d.flags & DESC_F_WRITE != 0;
        if self.writable && !writable {
            return Err(ChainDefect::ReadableAfterWritable);
        }
        self.writable = writable;
        self.bytes += u64::from(d.len);
        if self.bytes > MAX_BYTES {
            return Err(ChainDefect::TooManyBytes);
        }
        self.chain.descriptors.push(Descriptor { addr: d.addr, len: d.len, writable });
        Ok(())
    }
}

/// An indirect table.
struct Table<'a> {
    map: &'a MemoryMap,
    addr: u64,
    /// All of it, if it is in one piece in this process.
    whole: Option<GuestRange<'a>>,
}

impl Table<'_> {
    fn entry(&self, index: u16) -> Result<RawDescriptor, OutsideMemory> {
        let offset = DESC_SIZE * usize::from(index);
        let word = |at| self.whole.as_ref().and_then(|table| table.load_u64(at, Ordering::Relaxed));
        if let Some((addr, rest)) = word(offset).zip(word(offset + 8)) {
            return Ok(RawDescriptor::new(addr, rest));
        }
        // Misaligned, or across regions: legal, and nobody does it.
        let addr = self.addr.wrapping_add(offset as u64);
        let mut bytes = [0; DESC_SIZE];
        self.map.read(addr, &mut bytes)?;
        let entry = u128::from_le_bytes(bytes);
        Ok(RawDescriptor::new(entry as u64, (entry >> 64) as u64))
    }
}

#[cfg(test)]
mod tests;
