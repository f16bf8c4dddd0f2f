//! Vital product data pages that SPC-4 7.8 defines.

use super::{Designator, Peripheral};
use crate::scsi::ParameterData;

/// PAGE CODE values.
pub mod vpd_page {
    /// Supported VPD Pages.
    pub const SUPPORTED_PAGES: u8 = 0x00;
    /// Unit Serial Number.
    pub const UNIT_SERIAL_NUMBER: u8 = 0x80;
    /// Device Identification.
    pub const DEVICE_IDENTIFICATION: u8 = 0x83;
    /// Extended INQUIRY Data.
    pub const EXTENDED_INQUIRY_DATA: u8 = 0x86;
    /// Mode Page Policy.
    pub const MODE_PAGE_POLICY: u8 = 0x87;
    /// SCSI Ports.
    pub const SCSI_PORTS: u8 = 0x88;
    /// Third-party Copy.
    pub const THIRD_PARTY_COPY: u8 = 0x8f;
    /// Block Limits (SBC).
    pub const BLOCK_LIMITS: u8 = 0xb0;
    /// Block Device Characteristics (SBC).
    pub const BLOCK_DEVICE_CHARACTERISTICS: u8 = 0xb1;
    /// Logical Block Provisioning (SBC).
    pub const LOGICAL_BLOCK_PROVISIONING: u8 = 0xb2;
}

/// A VPD page's header around what `write` adds (SPC-4 table 446).
pub fn vpd(peripheral: Peripheral, page: u8, write: impl FnOnce(&mut ParameterData)) -> ParameterData {
    let mut data = ParameterData::new();
    data.u8(peripheral.byte()).u8(page).counted_u16(write);
    data
}

/// Page 00h; `pages` must be ascending and name 00h too (SPC-4 7.8.18).
pub fn supported_vpd_pages(peripheral: Peripheral, pages: &[u8]) -> ParameterData {
    vpd(peripheral, vpd_page::SUPPORTED_PAGES, |data| {
        data.raw(pages);
    })
}

/// Page 80h (SPC-4 7.8.19).
pub fn unit_serial_number(peripheral: Peripheral, serial: &str) -> ParameterData {
    vpd(peripheral, vpd_page::UNIT_SERIAL_NUMBER, |data| {
        data.ascii(serial, serial.len());
    })
}

/// Page 83h (SPC-4 7.8.5).
pub fn device_identification(peripheral: Peripheral, designators: &[Designator]) -> ParameterData {
    vpd(peripheral, vpd_page::DEVICE_IDENTIFICATION, |data| {
        designators.iter().for_each(|designator| designator.write(data));
    })
}

/// Page 87h: all mode pages and subpages are shared by all nexuses, and by no other unit (SPC-4 7.8).
pub fn mode_page_policy(peripheral: Peripheral) -> ParameterData {
    vpd(peripheral, vpd_page::MODE_PAGE_POLICY, |data| {
        data.u8(0x3f).u8(0xff).u8(0x00).u8(0);
    })
}

/// Page 88h (SPC-4 7.8): for each port its relative identifier and the designators of it as a target port. No port is an
/// initiator port as well, so no TransportID is given.
pub fn scsi_ports(peripheral: Peripheral, ports: &[(u16, Vec<Designator>)]) -> ParameterData {
    vpd(peripheral, vpd_page::SCSI_PORTS, |data| {
        for (relative, designators) in ports {
            data.u16(0).u16(*relative).u16(0).u16(0).u16(0);
            data.counted_u16(|data| designators.iter().for_each(|designator| designator.write(data)));
        }
    })
}

/// What page 86h says; everything else in it is 0.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct ExtendedInquiry {
    /// UASK_SUP: unit attentions carry sense-key-specific data.
    pub unit_attention_sense_key_specific: bool,
    /// GROUP_SUP: commands may have a GROUP NUMBER (SBC-3 4.22).
    pub grouping: bool,
    /// HEADSUP: HEAD OF QUEUE is supported.
    pub head_of_queue: bool,
    /// ORDSUP: ORDERED is supported.
    pub ordered: bool,
    /// SIMPSUP: SIMPLE is supported.
    pub simple: bool,
    /// V_SUP: there is a volatile cache, written by SYNCHRONIZE CACHE.
    pub volatile_cache: bool,
    /// LUICLR: once REPORTED LUNS DATA HAS CHANGED was reported by one unit, no other unit of the I_T nexus reports it.
    pub lu_i_t_nexus_clear: bool,
    /// EXTENDED SELF-TEST COMPLETION MINUTES; 0 says nothing.
    pub extended_self_test_minutes: u16,
    /// MAXIMUM SUPPORTED SENSE DATA LENGTH; 0 says nothing.
    pub maximum_sense_data_length: u8,
}

impl ExtendedInquiry {
    /// Page 86h (SPC-4 7.8.7).
    pub fn data(&self, peripheral: Peripheral) -> ParameterData {
        let bit = |set: bool, bit: u8| u8::from(set) << bit;
        vpd(peripheral, vpd_page::EXTENDED_INQUIRY_DATA, |data| {
            data.u8(0);
            data.u8(bit(self.unit_attention_sense_key_specific, 5)
                | bit(self.grouping, 4)
                | bit(self.head_of_queue, 2)
                | bit(self.ordered, 1)
                | bit(self.simple, 0));
            data.u8(bit(self.volatile_cache, 0));
            data.u8(bit(self.lu_i_t_nexus_clear, 0));
            data.zeros(2).u16(self.extended_self_test_minutes).u8(0);
            data.u8(self.maximum_sense_data_length);
            data.zeros(50);
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// SPC-4 tables 446, 492 and 494.
    #[test]
    fn supported_pages_and_serial() {
        let pages = supported_vpd_pages(Peripheral::DISK, &[0x00, 0x80, 0x83, 0xb0]);
        assert_eq!(pages.bytes(), [0x00, 0x00, 0x00, 0x04, 0x00, 0x80, 0x83, 0xb0]);
        let serial = unit_serial_number(Peripheral::DISK, "A1B2");
        assert_eq!(serial.bytes(), *b"\x00\x80\x00\x04A1B2");
    }

    #[test]
    fn identification_lists_descriptors() {
        let designators = [Designator::naa_locally_assigned(1), Designator::RelativeTargetPort(1)];
        let page = device_identification(Peripheral::DISK, &designators);
        assert_eq!(
            page.bytes(),
            [
                0x00, 0x83, 0x00, 20, //
                0x01, 0x03, 0, 8, 0x30, 0, 0, 0, 0, 0, 0, 1, //
                0x41, 0x94, 0, 4, 0, 0, 0, 1,
            ]
        );
    }

    #[test]
    fn ports_list_their_descriptors() {
        let ports = [(1, vec![Designator::TargetPortGroup(9)]), (0x0203, vec![])];
        assert_eq!(
            scsi_ports(Peripheral::DISK, &ports).bytes(),
            [
                0x00, 0x88, 0x00, 32, //
                0, 0, 0, 1, 0, 0, 0, 0, 0, 0, 0, 8, 0x41, 0x95, 0, 4, 0, 0, 0, 9, //
                0, 0, 2, 3, 0, 0, 0, 0, 0, 0, 0, 0,
            ]
        );
    }

    /// SPC-4 table 465.
    #[test]
    fn extended_inquiry() {
        let page = ExtendedInquiry {
            grouping: true,
            head_of_queue: true,
            ordered: true,
            simple: true,
            volatile_cache: true,
            lu_i_t_nexus_clear: true,
            extended_self_test_minutes: 0x0102,
            maximum_sense_data_length: 96,
            ..ExtendedInquiry::default()
        };
        let data = page.data(Peripheral::DISK);
        assert_eq!(data.len(), 64);
        assert_eq!(data.bytes()[..14], [0x00, 0x86, 0x00, 0x3c, 0, 0x17, 0x01, 0x01, 0, 0, 1, 2, 0, 96]);
        assert_eq!(data.bytes()[14..], [0; 50]);
    }
}
