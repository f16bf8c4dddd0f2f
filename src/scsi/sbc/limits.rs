//! VPD pages that SBC-3 6.6 defines: block limits, block device characteristics, logical block provisioning.

use crate::scsi::ParameterData;
use crate::scsi::spc::{Peripheral, vpd, vpd_page};

/// Page B0h (SBC-3 6.6.3). Lengths are logical blocks; 0 says that there is no limit (or, for UNMAP, no support).
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct BlockLimits {
    /// WSNZ: WRITE SAME with NUMBER OF LOGICAL BLOCKS 0 is not supported.
    pub write_same_non_zero: bool,
    /// MAXIMUM COMPARE AND WRITE LENGTH; 0: the command is not supported.
    pub maximum_compare_and_write: u8,
    /// OPTIMAL TRANSFER LENGTH GRANULARITY.
    pub optimal_granularity: u16,
    /// MAXIMUM TRANSFER LENGTH.
    pub maximum_transfer: u32,
    /// OPTIMAL TRANSFER LENGTH.
    pub optimal_transfer: u32,
    /// MAXIMUM PREFETCH LENGTH.
    pub maximum_prefetch: u32,
    /// MAXIMUM UNMAP LBA COUNT: of all descriptors of one UNMAP together; FFFFFFFFh is no limit.
    pub maximum_unmap_blocks: u32,
    /// MAXIMUM UNMAP BLOCK DESCRIPTOR COUNT; FFFFFFFFh is no limit.
    pub maximum_unmap_descriptors: u32,
    /// OPTIMAL UNMAP GRANULARITY.
    pub unmap_granularity: u32,
    /// UNMAP GRANULARITY ALIGNMENT, 31 bits, if it is known.
    pub unmap_alignment: Option<u32>,
    /// MAXIMUM WRITE SAME LENGTH.
    pub maximum_write_same: u64,
    /// Of WRITE ATOMIC (SBC-4 6.6.4); all zero: the command is not supported.
    pub atomic: AtomicWrites,
}

/// The fields of page B0h about WRITE ATOMIC (SBC-4 6.6.4), in logical blocks.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct AtomicWrites {
    /// MAXIMUM ATOMIC TRANSFER LENGTH.
    pub maximum: u32,
    /// ATOMIC ALIGNMENT.
    pub alignment: u32,
    /// ATOMIC TRANSFER LENGTH GRANULARITY.
    pub granularity: u32,
    /// MAXIMUM ATOMIC TRANSFER LENGTH WITH ATOMIC BOUNDARY.
    pub maximum_with_boundary: u32,
    /// MAXIMUM ATOMIC BOUNDARY SIZE.
    pub maximum_boundary: u32,
}

impl BlockLimits {
    /// The page.
    pub fn data(&self, peripheral: Peripheral) -> ParameterData {
        let alignment = self.unmap_alignment.map_or(0, |alignment| 1 << 31 | alignment & 0x7fff_ffff);
        vpd(peripheral, vpd_page::BLOCK_LIMITS, |data| {
            data.u8(u8::from(self.write_same_non_zero)).u8(self.maximum_compare_and_write);
            data.u16(self.optimal_granularity).u32(self.maximum_transfer).u32(self.optimal_transfer);
            data.u32(self.maximum_prefetch);
            data.u32(self.maximum_unmap_blocks).u32(self.maximum_unmap_descriptors);
            data.u32(self.unmap_granularity).u32(alignment);
            data.u64(self.maximum_write_same);
            let atomic = self.atomic;
            data.u32(atomic.maximum).u32(atomic.alignment).u32(atomic.granularity);
            data.u32(atomic.maximum_with_boundary).u32(atomic.maximum_boundary);
        })
    }
}

/// Page B1h (SBC-3 6.6.2).
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct BlockDeviceCharacteristics {
    /// MEDIUM ROTATION RATE: 0 not told, 1 not rotating, else rotations per minute.
    pub rotation_rate: u16,
    /// NOMINAL FORM FACTOR; 0 not told.
    pub form_factor: u8,
    /// WABEREQ (SBC-3 table 172): what a read finds after SANITIZE, BLOCK ERASE; 00b not told, 01b it completes without error.
    pub after_block_erase: u8,
    /// FUAB: SYNCHRONIZE CACHE and FUA do what SBC-3 says, for which non-volatile caches are as good as the medium, and not
    /// what SBC-2 says.
    pub fuab: bool,
    /// VBULS: VERIFY and WRITE AND VERIFY compare unmapped blocks (BYTCHK 01b).
    pub verifies_unmapped: bool,
}

impl BlockDeviceCharacteristics {
    /// The page.
    pub fn data(&self, peripheral: Peripheral) -> ParameterData {
        vpd(peripheral, vpd_page::BLOCK_DEVICE_CHARACTERISTICS, |data| {
            let after = self.after_block_erase << 6;
            data.u16(self.rotation_rate).u8(0).u8(after | self.form_factor & 0x0f);
            data.u8(u8::from(self.fuab) << 1 | u8::from(self.verifies_unmapped));
            data.zeros(55);
        })
    }
}

/// PROVISIONING TYPE (SBC-3 table 179).
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum ProvisioningType {
    /// 000b: not told.
    #[default]
    NotReported = 0b000,
    /// 001b: resource provisioned.
    Resource = 0b001,
    /// 010b: thin provisioned.
    Thin = 0b010,
}

/// Page B2h (SBC-3 6.6.4), without a provisioning group.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct LogicalBlockProvisioning {
    /// THRESHOLD EXPONENT: a threshold set is two to its power, in blocks; 0: there are no thresholds.
    pub threshold_exponent: u8,
    /// LBPU: UNMAP is supported.
    pub unmap: bool,
    /// LBPWS: WRITE SAME(16) with UNMAP is.
    pub write_same16: bool,
    /// LBPWS10: WRITE SAME(10) with UNMAP is.
    pub write_same10: bool,
    /// LBPRZ: unmapped blocks read as zeros.
    pub lbprz: bool,
    /// ANC_SUP: anchored blocks are supported.
    pub anchor: bool,
    /// PROVISIONING TYPE.
    pub provisioning: ProvisioningType,
}

impl LogicalBlockProvisioning {
    /// The page.
    pub fn data(&self, peripheral: Peripheral) -> ParameterData {
        let bit = |set: bool, bit: u8| u8::from(set) << bit;
        vpd(peripheral, vpd_page::LOGICAL_BLOCK_PROVISIONING, |data| {
            data.u8(self.threshold_exponent);
            data.u8(bit(self.unmap, 7)
                | bit(self.write_same16, 6)
                | bit(self.write_same10, 5)
                | bit(self.lbprz, 2)
                | bit(self.anchor, 1));
            data.u8(self.provisioning as u8).u8(0);
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// SBC-3 table 174.
    #[test]
    fn block_limits() {
        let page = BlockLimits {
            write_same_non_zero: true,
            maximum_compare_and_write: 1,
            optimal_granularity: 8,
            maximum_transfer: 0x0000_8000,
            optimal_transfer: 0x100,
            maximum_prefetch: 0,
            maximum_unmap_blocks: 0xffff_ffff,
            maximum_unmap_descriptors: 256,
            unmap_granularity: 8,
            unmap_alignment: Some(0x8000_0003),
            maximum_write_same: 0x0102_0304_0506_0708,
            atomic: AtomicWrites {
                maximum: 0x100,
                alignment: 8,
                granularity: 9,
                maximum_with_boundary: 0x200,
                maximum_boundary: 0x80,
            },
        };
        let data = page.data(Peripheral::DISK);
        assert_eq!(data.len(), 64);
        assert_eq!(
            data.bytes()[..44],
            [
                0x00, 0xb0, 0x00, 0x3c, 0x01, 0x01, 0x00, 0x08, //
                0, 0, 0x80, 0, 0, 0, 1, 0, 0, 0, 0, 0, //
                0xff, 0xff, 0xff, 0xff, 0, 0, 1, 0, 0, 0, 0, 8, 0x80, 0, 0, 3, //
                1, 2, 3, 4, 5, 6, 7, 8,
            ]
        );
        assert_eq!(data.bytes()[44..], [0, 0, 1, 0, 0, 0, 0, 8, 0, 0, 0, 9, 0, 0, 2, 0, 0, 0, 0, 0x80]);
        let unknown = BlockLimits::default().data(Peripheral::DISK);
        assert_eq!(unknown.bytes()[4..], [0; 60]);
    }

    /// SBC-3 table 169.
    #[test]
    fn characteristics() {
        let page = BlockDeviceCharacteristics {
            rotation_rate: 1,
            form_factor: 5,
            after_block_erase: 1,
            fuab: true,
            verifies_unmapped: false,
        };
        let data = page.data(Peripheral::DISK);
        assert_eq!(data.len(), 64);
        assert_eq!(data.bytes()[..9], [0x00, 0xb1, 0x00, 0x3c, 0x00, 0x01, 0x00, 0x45, 0x02]);
        let page = BlockDeviceCharacteristics { verifies_unmapped: true, ..BlockDeviceCharacteristics::default() };
        assert_eq!(page.data(Peripheral::DISK).bytes()[4..10], [0, 0, 0, 0, 0x01, 0]);
    }

    /// SBC-3 table 178.
    #[test]
    fn provisioning() {
        let page = LogicalBlockProvisioning {
            threshold_exponent: 11,
            unmap: true,
            write_same16: true,
            write_same10: true,
            lbprz: true,
            anchor: false,
            provisioning: ProvisioningType::Thin,
        };
        assert_eq!(page.data(Peripheral::DISK).bytes(), [0x00, 0xb2, 0x00, 0x04, 0x0b, 0xe4, 0x02, 0x00]);
        let anchored = LogicalBlockProvisioning {
            anchor: true,
            provisioning: ProvisioningType::Resource,
            ..LogicalBlockProvisioning::default()
        };
        assert_eq!(anchored.data(Peripheral::DISK).bytes()[4..], [0x00, 0x02, 0x01, 0x00]);
    }
}
