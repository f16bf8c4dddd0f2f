//! GET LBA STATUS parameter data (SBC-3 5.4.2).

use crate::scsi::ParameterData;

/// Length of the header, and of one LBA status descriptor.
const HEADER: u32 = 8;
const DESCRIPTOR: u32 = 16;

/// PROVISIONING STATUS (SBC-3 5.4.2).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u8)]
pub enum ProvisioningStatus {
    /// 0h: mapped, or not known.
    Mapped = 0x0,
    /// 1h: deallocated.
    Deallocated = 0x1,
    /// 2h: anchored.
    Anchored = 0x2,
}

/// An extent of blocks of one status.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct LbaStatusDescriptor {
    /// First block.
    pub lba: u64,
    /// Number of blocks.
    pub blocks: u32,
    /// Their status.
    pub status: ProvisioningStatus,
}

/// Consecutive extents from a starting LBA on, up to a number of descriptors.
///
/// Neighbours of one status are one extent, unless its length does not fit a descriptor.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct LbaStatus {
    next: u64,
    room: usize,
    descriptors: Vec<LbaStatusDescriptor>,
}

impl LbaStatus {
    /// How many descriptors an allocation length lets through, a cut one included; at least one, for a command tells of its starting
    /// LBA whatever is cut.
    pub fn room(allocation_length: u32) -> usize {
        allocation_length.saturating_sub(HEADER).div_ceil(DESCRIPTOR).max(1) as usize
    }

    /// Nothing yet; the first extent begins at `lba`.
    pub fn new(lba: u64, room: usize) -> LbaStatus {
        LbaStatus { next: lba, room, descriptors: Vec::new() }
    }

    /// No further descriptor is wanted. The last one is still open at its end: more of its status may follow.
    pub fn is_full(&self) -> bool {
        self.descriptors.len() > self.room
    }

    /// Adds the extent that follows. What there is no room for is dropped by [`LbaStatus::data`].
    pub fn push(&mut self, blocks: u64, status: ProvisioningStatus) {
        let mut left = blocks;
        while left > 0 && !self.is_full() {
            let added = match self.descriptors.last_mut() {
                Some(last) if last.status == status && last.blocks < u32::MAX => {
                    let more = u32::try_from(left).unwrap_or(u32::MAX).min(u32::MAX - last.blocks);
                    last.blocks += more;
                    more
                }
                _ => {
                    let blocks = u32::try_from(left).unwrap_or(u32::MAX);
                    self.descriptors.push(LbaStatusDescriptor { lba: self.next, blocks, status });
                    blocks
                }
            };
            left -= u64::from(added);
            self.next = self.next.saturating_add(u64::from(added));
        }
    }

    /// The extents there is room for.
    pub fn descriptors(&self) -> &[LbaStatusDescriptor] {
        self.descriptors.get(..self.room).unwrap_or(&self.descriptors)
    }

    /// The parameter data.
    pub fn data(&self) -> ParameterData {
        let mut data = ParameterData::new();
        // PARAMETER DATA LENGTH counts four reserved bytes, too.
        data.counted_u32(|data| {
            data.zeros(4);
            for each in self.descriptors() {
                data.u64(each.lba).u32(each.blocks).u8(each.status as u8).zeros(3);
            }
        });
        data
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use ProvisioningStatus::{Deallocated, Mapped};

    /// SBC-3 5.4.2: header and descriptors.
    #[test]
    fn two_descriptors() {
        let mut status = LbaStatus::new(0x0102_0304_0506_0708, 8);
        status.push(0x10, Mapped);
        status.push(0x0203_0405, Deallocated);
        assert_eq!(
            status.data().bytes(),
            [
                0, 0, 0, 36, 0, 0, 0, 0, //
                1, 2, 3, 4, 5, 6, 7, 8, 0, 0, 0, 0x10, 0, 0, 0, 0, //
                1, 2, 3, 4, 5, 6, 7, 0x18, 2, 3, 4, 5, 1, 0, 0, 0,
            ]
        );
    }

    #[test]
    fn neighbours_of_one_status_are_one_extent() {
        let mut status = LbaStatus::new(5, 8);
        status.push(0, Deallocated);
        for _ in 0..3 {
            status.push(10, Mapped);
        }
        status.push(0, Deallocated);
        status.push(1, Mapped);
        assert_eq!(status.descriptors(), [LbaStatusDescriptor { lba: 5, blocks: 31, status: Mapped }]);
    }

    #[test]
    fn an_extent_that_does_not_fit_is_told_in_parts() {
        let mut status = LbaStatus::new(0, 8);
        status.push(u64::from(u32::MAX) - 1, Mapped);
        status.push((1 << 32) + 1, Mapped);
        let told: Vec<_> = status.descriptors().iter().map(|d| (d.lba, d.blocks)).collect();
        assert_eq!(told, [(0, u32::MAX), (0xffff_ffff, u32::MAX), (0x1_ffff_fffe, 1)]);
        let mut huge = LbaStatus::new(0, 2);
        huge.push(u64::MAX, Deallocated);
        assert_eq!(huge.descriptors().len(), 2);
        assert!(huge.is_full());
    }

    #[test]
    fn the_last_extent_that_fits_is_whole() {
        let mut status = LbaStatus::new(0, 1);
        status.push(3, Mapped);
        assert!(!status.is_full(), "more of it may follow");
        status.push(4, Mapped);
        status.push(1, Deallocated);
        assert!(status.is_full());
        status.push(9, Deallocated);
        assert_eq!(status.descriptors(), [LbaStatusDescriptor { lba: 0, blocks: 7, status: Mapped }]);
    }

    #[test]
    fn room() {
        for (allocation_length, room) in
            [(0, 1), (1, 1), (8, 1), (23, 1), (24, 1), (25, 2), (40, 2), (41, 3), (u32::MAX, 268_435_456)]
        {
            assert_eq!(LbaStatus::room(allocation_length), room, "{allocation_length}");
        }
    }
}
