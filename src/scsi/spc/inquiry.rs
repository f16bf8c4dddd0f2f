//! Standard INQUIRY data (SPC-4 6.6.2).

use crate::scsi::ParameterData;

/// PERIPHERAL QUALIFIER (SPC-4 table 141).
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum PeripheralQualifier {
    /// 000b: a device of this type is, or may be, connected.
    #[default]
    Connected = 0b000,
    /// 001b: the type is supported here, but no device is connected.
    NotConnected = 0b001,
    /// 011b: no device can be here. Goes with [`PeripheralDeviceType::Unknown`].
    Incapable = 0b011,
}

/// PERIPHERAL DEVICE TYPE (SPC-4 table 142).
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum PeripheralDeviceType {
    /// 00h: direct-access block device (SBC).
    #[default]
    DirectAccess = 0x00,
    /// 1Eh: well-known logical unit.
    WellKnown = 0x1e,
    /// 1Fh: unknown or none.
    Unknown = 0x1f,
}

/// Byte 0 of standard INQUIRY data and of every VPD page.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Peripheral {
    /// PERIPHERAL QUALIFIER.
    pub qualifier: PeripheralQualifier,
    /// PERIPHERAL DEVICE TYPE.
    pub device_type: PeripheralDeviceType,
}

impl Peripheral {
    /// A disk that is there.
    pub const DISK: Peripheral =
        Peripheral { qualifier: PeripheralQualifier::Connected, device_type: PeripheralDeviceType::DirectAccess };
    /// A well-known logical unit.
    pub const WELL_KNOWN: Peripheral =
        Peripheral { qualifier: PeripheralQualifier::Connected, device_type: PeripheralDeviceType::WellKnown };
    /// What INQUIRY says of a logical unit number without a unit.
    pub const ABSENT: Peripheral =
        Peripheral { qualifier: PeripheralQualifier::Incapable, device_type: PeripheralDeviceType::Unknown };

    /// The byte.
    pub const fn byte(self) -> u8 {
        (self.qualifier as u8) << 5 | self.device_type as u8
    }
}

/// TPGS (SPC-4 6.6.2).
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum TargetPortGroupSupport {
    /// 00b: there are no asymmetric access states.
    #[default]
    None = 0b00,
    /// 11b: they change by themselves and by SET TARGET PORT GROUPS.
    ImplicitAndExplicit = 0b11,
}

/// VERSION DESCRIPTOR values, "no version claimed" (SPC-4 table 144).
const VERSION_DESCRIPTORS: [u16; 4] = [
    0x00a0, // SAM-5
    0x0460, // SPC-4
    0x04c0, // SBC-3
    0x0940, // SRP
];

/// Length of the vendor-specific parameters from byte 96 on, as IBM's virtual SCSI initiators expect them.
const VENDOR_SPECIFIC_LENGTH: usize = 158;

/// What standard INQUIRY data says.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct StandardInquiry<'a> {
    /// Byte 0.
    pub peripheral: Peripheral,
    /// RMB: the medium is removable.
    pub removable: bool,
    /// NORMACA: a NACA of one in a CDB's CONTROL byte is supported (SAM-5 5.9).
    pub normal_aca: bool,
    /// MULTIP: the device has more than one port.
    pub multi_port: bool,
    /// 3PC: the unit copies, for others and itself (SPC-4 5.17).
    pub third_party_copy: bool,
    /// TPGS: how access states of target port groups change.
    pub target_port_groups: TargetPortGroupSupport,
    /// T10 VENDOR IDENTIFICATION, up to 8 characters.
    pub vendor: &'a str,
    /// PRODUCT IDENTIFICATION, up to 16 characters.
    pub product: &'a str,
    /// PRODUCT REVISION LEVEL, up to 4 characters.
    pub revision: &'a str,
    /// Vendor-specific parameters from byte 96 on, up to 158 characters (`IBM-VSCSI-…`, see [`vscsi_location`]); if
    /// empty, the data ends at byte 96.
    pub vendor_specific: &'a str,
}

impl StandardInquiry<'_> {
    /// The data: version 6 (SPC-4), response data format 2, HISUP, CMDQUE, four version descriptors.
    pub fn data(&self) -> ParameterData {
        let mut data = ParameterData::new();
        data.u8(self.peripheral.byte());
        data.u8(if self.removable { 0x80 } else { 0 });
        data.u8(0x06);
        data.u8(if self.normal_aca { 0x20 } else { 0 } | 0x10 | 0x02);
        data.counted_u8(|data| {
            data.u8((self.target_port_groups as u8) << 4 | if self.third_party_copy { 0x08 } else { 0 });
            data.u8(if self.multi_port { 0x10 } else { 0 });
            data.u8(0x02);
            data.ascii(self.vendor, 8).ascii(self.product, 16).ascii(self.revision, 4);
            data.zeros(20 + 2);
            for descriptor in VERSION_DESCRIPTORS {
                data.u16(descriptor);
            }
            data.zeros(16 - 2 * VERSION_DESCRIPTORS.len());
            data.zeros(22);
            if !self.vendor_specific.is_empty() {
                data.ascii_nul(self.vendor_specific, VENDOR_SPECIFIC_LENGTH);
            }
        });
        data
    }
}

/// Where a unit is, in the words of IBM's virtual SCSI target: system, partition, unit address, bus, target, unit.
pub fn vscsi_location(system: &str, partition: u32, unit_address: u32, target: u8, lun: u16) -> String {
    format!("IBM-VSCSI-{system}-P{partition}-{unit_address:x}-0-{target}-{lun}")
}

#[cfg(test)]
mod tests {
    use super::*;

    fn disk<'a>() -> StandardInquiry<'a> {
        StandardInquiry {
            peripheral: Peripheral::DISK,
            removable: false,
            normal_aca: false,
            multi_port: true,
            third_party_copy: true,
            target_port_groups: TargetPortGroupSupport::ImplicitAndExplicit,
            vendor: "IBM",
            product: "VDASD blkdev",
            revision: "0001",
            vendor_specific: "",
        }
    }

    /// SPC-4 table 140.
    #[test]
    fn a_disk() {
        let data = disk().data();
        let bytes = data.bytes();
        assert_eq!(bytes.len(), 96);
        assert_eq!(bytes[..8], [0x00, 0x00, 0x06, 0x12, 91, 0x38, 0x10, 0x02]);
        assert_eq!(bytes[8..36], *b"IBM     VDASD blkdev    0001");
        assert_eq!(bytes[36..58], [0; 22]);
        assert_eq!(bytes[58..66], [0x00, 0xa0, 0x04, 0x60, 0x04, 0xc0, 0x09, 0x40]);
        assert_eq!(bytes[66..], [0; 30]);
    }

    #[test]
    fn the_vendor_specific_part_begins_at_byte_96() {
        let location = vscsi_location("vstgt", 1, 0x3000_0002, 0, 17);
        let data = StandardInquiry { vendor_specific: &location, ..disk() }.data();
        let bytes = data.bytes();
        assert_eq!(bytes.len(), 96 + 158);
        assert_eq!(bytes[4], 249);
        assert_eq!(bytes[96..96 + 35], *b"IBM-VSCSI-vstgt-P1-30000002-0-0-17\0");
        assert_eq!(bytes[253], 0);
    }

    #[test]
    fn removable_and_absent() {
        let data = StandardInquiry { removable: true, multi_port: false, ..disk() }.data();
        assert_eq!((data.bytes()[1], data.bytes()[6]), (0x80, 0));
        assert_eq!(Peripheral::ABSENT.byte(), 0x7f);
        assert_eq!(Peripheral::WELL_KNOWN.byte(), 0x1e);
        let not_connected = Peripheral { qualifier: PeripheralQualifier::NotConnected, ..Peripheral::DISK };
        assert_eq!(not_connected.byte(), 0x20);
    }
}
