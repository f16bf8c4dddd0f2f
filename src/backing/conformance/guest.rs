//! Guest memory for the suite: buffers scattered over it in every awkward way.

use super::*;
use crate::mem::{Direction, SnapshotSet, testing};

const SIZE: u64 = 32 * MIB;

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
