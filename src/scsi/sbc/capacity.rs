//! READ CAPACITY parameter data (SBC-3 5.15, 5.16).

use crate::scsi::ParameterData;

/// The geometry that READ CAPACITY tells.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Capacity {
    /// Number of logical blocks; 0 is told as 1, for there is no way to say none.
    pub blocks: u64,
    /// Bytes in one.
    pub block_length: u32,
    /// LOGICAL BLOCKS PER PHYSICAL BLOCK EXPONENT, up to 15.
    pub physical_exponent: u8,
    /// LOWEST ALIGNED LOGICAL BLOCK ADDRESS, up to 3FFFh.
    pub lowest_aligned: u16,
    /// LBPME: logical block provisioning management is implemented.
    pub lbpme: bool,
    /// LBPRZ: unmapped blocks read as zeros.
    pub lbprz: bool,
}

impl Capacity {
    /// READ CAPACITY(10); a last LBA that does not fit is told as FFFFFFFFh.
    pub fn data10(&self) -> ParameterData {
        let mut data = ParameterData::new();
        data.u32(u32::try_from(self.last()).unwrap_or(u32::MAX)).u32(self.block_length);
        data
    }

    /// READ CAPACITY(16), without protection information.
    pub fn data16(&self) -> ParameterData {
        let provisioning = u16::from(self.lbpme) << 15 | u16::from(self.lbprz) << 14;
        let mut data = ParameterData::new();
        data.u64(self.last()).u32(self.block_length);
        data.u8(0).u8(self.physical_exponent & 0x0f).u16(provisioning | self.lowest_aligned & 0x3fff);
        data.zeros(16);
        data
    }

    fn last(&self) -> u64 {
        self.blocks.saturating_sub(1)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const DISK: Capacity = Capacity {
        blocks: 0x0020_0000,
        block_length: 512,
        physical_exponent: 3,
        lowest_aligned: 1,
        lbpme: true,
        lbprz: true,
    };

    /// SBC-3 table 61.
    #[test]
    fn ten() {
        assert_eq!(DISK.data10().bytes(), [0x00, 0x1f, 0xff, 0xff, 0, 0, 2, 0]);
        let last = |blocks| Capacity { blocks, ..DISK }.data10().bytes()[..4].to_vec();
        assert_eq!(last(0xffff_ffff), [0xff, 0xff, 0xff, 0xfe]);
        assert_eq!(last(0x1_0000_0000), [0xff, 0xff, 0xff, 0xff]);
        assert_eq!(last(0x1_0000_0001), [0xff, 0xff, 0xff, 0xff]);
        assert_eq!(last(0), [0, 0, 0, 0]);
    }

    /// SBC-3 table 64.
    #[test]
    fn sixteen() {
        let data = DISK.data16();
        assert_eq!(data.len(), 32);
        assert_eq!(data.bytes()[..16], [0, 0, 0, 0, 0, 0x1f, 0xff, 0xff, 0, 0, 2, 0, 0x00, 0x03, 0xc0, 0x01]);
        assert_eq!(data.bytes()[16..], [0; 16]);
        let thick = Capacity { lbpme: false, lbprz: false, block_length: 4096, physical_exponent: 0, ..DISK };
        assert_eq!(thick.data16().bytes()[8..16], [0, 0, 0x10, 0, 0, 0, 0x00, 0x01]);
    }
}
