//! Guest memory for the suite: buffers scattered over it in every awkward way.

use super::*;
use crate::mem::{Direction, RegionPart, SnapshotSet, testing};

const SIZE: u64 = 32 * MIB;

/// What is registered at a time: buffers lie inside of parts, across their ends, and between them.
const PART: u64 = 192 << 10;

/// Whose the memory is.
const OWNER: u64 = 7;

/// A guest's memory, of two regions with a hole between.
pub(super) struct Guest {
    set: SnapshotSet,
    next: u64,
}

/// How the pieces of a buffer lie in memory.
#[derive(Clone, Copy, Debug)]
pub(super) enum Scatter {
    /// Page-aligned, whole pages: no device objects.
    Pages,
    /// Addresses and lengths are multiples of 512.
    Sectors,
    /// Addresses are multiples of 4, lengths of 512.
    Words,
    /// Any address and any length.
    Odd,
}

impl Guest {
    pub(super) fn new() -> Guest {
        Guest { set: SnapshotSet::new(testing::memory(&[(0, SIZE), (1 << 32, SIZE)])), next: 0 }
    }

    /// A buffer of `len` bytes in about `pieces` pieces, in no order, none of which overlap each other or those of the
    /// buffers made just before.
    pub(super) fn buffer(&mut self, random: &mut Random, scatter: Scatter, len: u64, pieces: u64) -> IoBuf {
        let (step, align) = match scatter {
            Scatter::Pages => (4096, 4096),
            Scatter::Sectors => (512, 512),
            Scatter::Words => (512, 4),
            Scatter::Odd => (1, 1),
        };
        let mut list = Vec::new();
        let mut left = len;
        while left > 0 {
            let mean = (len / pieces.max(1)).max(step);
            let size = ((1 + random.below(2 * mean)).next_multiple_of(step)).min(left);
            // Odd addresses only if the last was not: a gap keeps pieces apart.
            let gap = (1 + random.below(3)) * align;
            if (self.next % SIZE) + gap + size > SIZE {
                self.next = if self.next < SIZE { 1 << 32 } else { 0 };
            }
            let at = (self.next + gap).next_multiple_of(align);
            self.next = at + size;
            list.push((at, size as u32));
            left -= size;
        }
        for i in (1..list.len()).rev() {
            list.swap(i, random.below(i as u64 + 1) as usize);
        }
        let buf = self.set.resolve(Direction::Out, list.into_iter(), IoBuf::empty()).unwrap();
        assert_eq!(buf.len(), len);
        buf
    }

    /// Registers some of the memory with a port that has a ring.
    pub(super) fn register(&self, random: &mut Random, port: &mut IoPort) {
        for region in self.set.map().regions() {
            let parts = (0..).map_while(|index| RegionPart::of(region, index, PART));
            for part in parts.filter(|_| random.below(3) > 0) {
                part.populate().unwrap();
                port.register(OWNER, part).unwrap();
            }
        }
    }

    /// Registers all of it.
    pub(super) fn register_all(&self, port: &mut IoPort) {
        for region in self.set.map().regions() {
            port.register(OWNER, RegionPart::of(region, 0, SIZE).unwrap()).unwrap();
        }
    }

    /// Takes that back.
    pub(super) fn unregister_all(&self, port: &mut IoPort) {
        port.forget_memory(OWNER, |_| false);
    }

    /// Takes that back, perhaps not for all of the memory.
    pub(super) fn unregister(&self, random: &mut Random, port: &mut IoPort) {
        let kept = &self.set.map().regions()[0];
        let keeps = random.below(2) == 0;
        port.forget_memory(OWNER, |region| keeps && Arc::ptr_eq(region, kept));
    }

    /// Gives its file's pages back to the system: what the memory holds is zeros, in pages of their own.
    pub(super) fn discard(&self) {
        for region in self.set.map().regions() {
            let file = region.file_offset().unwrap().file();
            let mode = libc::FALLOC_FL_PUNCH_HOLE | libc::FALLOC_FL_KEEP_SIZE;
            crate::sys::file::fallocate(file, mode, 0, SIZE).unwrap();
        }
    }

    pub(super) fn release(&mut self, buf: IoBuf) {
        self.set.release(buf);
    }
}

impl Drop for Guest {
    fn drop(&mut self) {
        if !std::thread::panicking() {
            assert_eq!(self.set.outstanding(), 0, "a buffer was lost");
        }
    }
}
