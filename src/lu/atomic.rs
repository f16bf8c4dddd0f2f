//! What a unit promises of WRITE ATOMIC (SBC-4 4.29): what its image can do, in blocks, as long as its size allows it.

use super::Lu;
use crate::backing::AtomicUnit;

/// The fields of the Block Limits page about atomic writes (SBC-4 6.6.4).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct AtomicLimits {
    /// ATOMIC ALIGNMENT and ATOMIC TRANSFER LENGTH GRANULARITY in blocks.
    pub granularity: u32,
    /// MAXIMUM ATOMIC TRANSFER LENGTH and MAXIMUM ATOMIC BOUNDARY SIZE in blocks.
    pub maximum: u32,
    /// Which ranges can be written so, in bytes.
    pub unit: AtomicUnit,
}

impl Lu {
    /// What WRITE ATOMIC can do now; `None`: there is no such command.
    ///
    /// The last unit of an image must be a whole one, for a write of less of it is made a write of all of it.
    pub fn atomic_limits(&self) -> Option<AtomicLimits> {
        let unit = self.image().atomic_unit().filter(|_| !self.read_only())?;
        let geometry = self.geometry();
        let (block, size) = (geometry.block_size, geometry.blocks * u64::from(geometry.block_size));
        let whole = 1u64.checked_shl(size.trailing_zeros()).unwrap_or(u64::MAX);
        let max = u32::try_from(whole.min(u64::from(unit.max))).ok()?;
        let min = unit.min.max(block);
        if min > max {
            return None;
        }
        let unit = AtomicUnit { min, max };
        Some(AtomicLimits { granularity: min / block, maximum: max / block, unit })
    }
}
