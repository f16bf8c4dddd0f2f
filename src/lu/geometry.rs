//! Blocks and bytes: how big a unit is, and which ranges of it exist.

/// Block size, capacity and physical block exponent, as they were at one moment.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Geometry {
    /// Logical block length in bytes: 512 or 4096.
    pub block_size: u32,
    /// Capacity in logical blocks; at least 1.
    pub blocks: u64,
    /// LOGICAL BLOCKS PER PHYSICAL BLOCK EXPONENT.
    pub physical_exponent: u8,
}

/// A range of a unit that exists, in bytes. `offset + len` never passes the capacity.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Extent {
    /// First byte.
    pub offset: u64,
    /// Bytes.
    pub len: u64,
}

/// A range that is not all there.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct OutOfRange {
    /// The first block asked for that does not exist.
    pub lba: u64,
}

impl Geometry {
    /// The LBA of the last block.
    pub fn last_lba(&self) -> u64 {
        self.blocks - 1
    }

    /// The bytes of `blocks` blocks from `lba` on. The first block must exist even if there are none (SBC-3 5.x: the LBA field
    /// names a block of the unit).
    pub fn extent(&self, lba: u64, blocks: u64) -> Result<Extent, OutOfRange> {
        if lba >= self.blocks {
            return Err(OutOfRange { lba });
        }
        if blocks > self.blocks - lba {
            return Err(OutOfRange { lba: self.blocks });
        }
        // Cannot overflow: the capacity in bytes is an image's size, 64 bits.
        let size = u64::from(self.block_size);
        Ok(Extent { offset: lba * size, len: blocks * size })
    }

    /// The bytes from `lba` to the end of the unit.
    pub fn extent_to_end(&self, lba: u64) -> Result<Extent, OutOfRange> {
        self.extent(lba, self.blocks.saturating_sub(lba))
    }

    /// The block that holds the byte at `offset`.
    pub fn lba_of(&self, offset: u64) -> u64 {
        offset / u64::from(self.block_size)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const G: Geometry = Geometry { block_size: 512, blocks: 100, physical_exponent: 3 };

    #[test]
    fn ranges() {
        assert_eq!(G.extent(0, 100), Ok(Extent { offset: 0, len: 51_200 }));
        assert_eq!(G.extent(99, 1), Ok(Extent { offset: 50_688, len: 512 }));
        assert_eq!(G.extent(99, 0), Ok(Extent { offset: 50_688, len: 0 }));
        assert_eq!(G.extent(99, 2), Err(OutOfRange { lba: 100 }));
        assert_eq!(G.extent(100, 0), Err(OutOfRange { lba: 100 }));
        assert_eq!(G.extent(u64::MAX, 1), Err(OutOfRange { lba: u64::MAX }));
        assert_eq!(G.extent(1, u64::MAX), Err(OutOfRange { lba: 100 }));
        assert_eq!(G.extent_to_end(98), Ok(Extent { offset: 50_176, len: 1024 }));
        assert_eq!(G.extent_to_end(100), Err(OutOfRange { lba: 100 }));
        assert_eq!(G.last_lba(), 99);
        assert_eq!(G.lba_of(1023), 1);
    }

    #[test]
    fn the_largest_unit_does_not_overflow() {
        let g = Geometry { block_size: 4096, blocks: u64::MAX / 4096, physical_exponent: 0 };
        assert_eq!(g.extent_to_end(0).unwrap().len, u64::MAX / 4096 * 4096);
        assert_eq!(g.extent(g.last_lba(), 1).unwrap().offset, (u64::MAX / 4096 - 1) * 4096);
    }
}
