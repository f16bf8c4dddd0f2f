//! What is where in the inflight buffer. All integers are little-endian.
//!
//! # The specification's part
//!
//! One queue region for each ring, in the order of their indexes ("Inflight I/O tracking" in QEMU's `docs/interop/vhost-user.rst`, split
//! virtqueues):
//!
//! | offset | bytes | what |
//! |---|---|---|
//! | 0 | 8 | features: 0 |
//! | 8 | 2 | version: 1; 0 while nobody has set the region up |
//! | 10 | 2 | number of descriptor states |
//! | 12 | 2 | last_batch_head: the head that was put on the used ring last |
//! | 14 | 2 | used_idx: used.idx when all that was published had been marked as over |
//! | 16 | 16 each | descriptor states: u8 inflight, 5 bytes padding, u16 next, u64 counter |
//!
//! How regions follow on each other is left to whoever makes the buffer; here each begins at a multiple of 64 bytes, a cache line, as
//! those of libvhost-user do.
//!
//! # Our tail
//!
//! Behind the last region, at a multiple of 64 bytes; the front-end hands back a buffer of the size it was given, whatever is in it. First
//! a header:
//!
//! | offset | bytes | what |
//! |---|---|---|
//! | 0 | 8 | [`MAGIC`] |
//! | 8 | 4 | [`VERSION`] |
//! | 12 | 4 | [`SLOT`]: bytes of a slot |
//! | 16 | 2 | number of rings |
//! | 18 | 2 | number of slots of each |
//! | 64 | | slots, ring by ring, one for each head; see [`super::slots`] |

use super::super::vring::MAX_SIZE;

/// Of a queue region.
pub const QUEUE_VERSION: u16 = 1;
pub const FEATURES: usize = 0;
pub const QUEUE_VERSION_AT: usize = 8;
pub const DESC_NUM: usize = 10;
pub const LAST_BATCH_HEAD: usize = 12;
pub const USED_IDX: usize = 14;
pub const STATES: usize = 16;

/// Of a descriptor state. The byte `inflight` is written together with the byte of padding behind it.
pub const STATE: usize = 16;
pub const INFLIGHT: usize = 0;
pub const NEXT: usize = 6;
pub const COUNTER: usize = 8;

/// Of the tail: "vstgtail", as the bytes are in memory.
pub const MAGIC: u64 = u64::from_le_bytes(*b"vstgtail");
/// Of the tail. Another number means that nothing in it is understood.
pub const VERSION: u32 = 1;
pub const MAGIC_AT: usize = 0;
pub const VERSION_AT: usize = 8;
pub const SLOT_AT: usize = 12;
pub const RINGS_AT: usize = 16;
pub const SLOTS_AT: usize = 18;
pub const HEADER: usize = 64;
/// Bytes of a slot.
pub const SLOT: usize = 32;

/// Regions, the tail and its slots begin at multiples of it.
const ALIGN: usize = 64;

/// Rings that a buffer may be for: those that can be named on the wire.
pub const MAX_RINGS: u16 = 256;

/// No buffer is larger: none that is for so many rings of the largest size is.
pub const MAX_BUFFER: u64 = 64 << 20;

/// The places in a buffer for `rings` rings of `size` descriptors.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Layout {
    pub rings: u16,
    pub size: u16,
}

impl Layout {
    /// `None` if there cannot be so many rings, or rings so large.
    pub fn new(rings: u16, size: u16) -> Option<Layout> {
        let possible = (1..=MAX_RINGS).contains(&rings) && (1..=MAX_SIZE).contains(&size);
        possible.then_some(Layout { rings, size })
    }

    /// Bytes of a queue region that are used.
    pub fn region_len(self) -> usize {
        STATES + STATE * usize::from(self.size)
    }

    /// Where a ring's region is.
    pub fn region(self, ring: u16) -> usize {
        self.region_len().next_multiple_of(ALIGN) * usize::from(ring)
    }

    /// Where the tail is; behind the specification's part.
    pub fn tail(self) -> usize {
        self.region(self.rings)
    }

    /// Bytes of a ring's slots.
    pub fn slots_len(self) -> usize {
        SLOT * usize::from(self.size)
    }

    /// Where a ring's slots are.
    pub fn slots(self, ring: u16) -> usize {
        self.tail() + HEADER + self.slots_len() * usize::from(ring)
    }

    /// Bytes of the whole buffer.
    pub fn len(self) -> usize {
        self.slots(self.rings)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_qemu_asks_for() {
        // Control, event, one request ring, 128 descriptors each: as libvhost-user lays the regions out.
        let layout = Layout::new(3, 128).unwrap();
        assert_eq!([0, 1, 2].map(|ring| layout.region(ring)), [0, 2112, 4224]);
        assert_eq!(layout.region_len(), 2064);
        assert_eq!(layout.tail(), 6336);
        assert_eq!(layout.slots(1) - layout.slots(0), 128 * 32);
        assert_eq!(layout.len(), 6336 + 64 + 3 * 128 * 32);
    }

    #[test]
    fn the_largest_is_within_the_bound_and_nothing_overlaps() {
        assert!(Layout::new(MAX_RINGS, MAX_SIZE).unwrap().len() as u64 <= MAX_BUFFER);
        for (rings, size) in [(1, 1), (3, 2), (256, 1024), (7, 100)] {
            let layout = Layout::new(rings, size).unwrap();
            for ring in 0..rings {
                assert!(layout.region(ring).is_multiple_of(64) && layout.slots(ring).is_multiple_of(64));
                assert!(layout.region(ring) + layout.region_len() <= layout.region(ring + 1));
            }
            assert!(layout.tail() + HEADER <= layout.slots(0));
        }
    }

    #[test]
    fn the_impossible_is_refused() {
        for (rings, size) in [(0, 1), (257, 1), (1, 0), (1, 1025), (u16::MAX, u16::MAX)] {
            assert_eq!(Layout::new(rings, size), None);
        }
    }
}
