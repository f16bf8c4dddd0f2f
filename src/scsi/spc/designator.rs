//! Designation descriptors of the Device Identification VPD page (SPC-4 7.8.5).

use crate::scsi::ParameterData;

/// PROTOCOL IDENTIFIER of SRP (SPC-4 table 435).
const PROTOCOL_SRP: u8 = 0x4;

/// What a designator names (SPC-4 table 454).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Association {
    /// 00b.
    LogicalUnit = 0b00,
    /// 01b: the target port that the request came by.
    TargetPort = 0b01,
    /// 10b.
    TargetDevice = 0b10,
}

/// One name of the logical unit, its target port or its target device.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Designator {
    /// Type 1h: T10 vendor identification (8 characters) and a vendor-specific identifier, ASCII.
    T10VendorId {
        /// T10 VENDOR IDENTIFICATION.
        vendor: String,
        /// VENDOR SPECIFIC IDENTIFIER; up to 244 characters are kept.
        identifier: String,
    },
    /// Type 2h: EUI-64 (8 bytes), or one of the names made from it (12 or 16 bytes).
    Eui64(Vec<u8>),
    /// Type 3h with 8 bytes: NAA 2h, 3h or 5h.
    Naa8([u8; 8]),
    /// Type 3h with 16 bytes: NAA 6h.
    Naa16([u8; 16]),
    /// Type 4h: relative target port identifier, 1 and up.
    RelativeTargetPort(u16),
    /// Type 5h.
    TargetPortGroup(u16),
    /// Type 6h.
    LogicalUnitGroup(u16),
    /// Type Ah: a UUID (RFC 4122). SPC-5 defines it; to who knows SPC-4 it is of a type that is reserved, to be passed over.
    Uuid([u8; 16]),
    /// Type 8h: a SCSI name string (`naa.`, `eui.`, `iqn.`), UTF-8; up to 247 bytes are kept.
    ScsiName(Association, String),
}

/// A designation descriptor as an initiator sends it, to name a unit that it knows from the Device Identification VPD page.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Designation<'a> {
    /// CODE SET.
    pub code_set: u8,
    /// ASSOCIATION.
    pub association: u8,
    /// DESIGNATOR TYPE.
    pub designator_type: u8,
    /// DESIGNATOR.
    pub designator: &'a [u8],
}

impl Designator {
    /// An NAA Locally Assigned name (3h): 60 bits that an administrator or an algorithm of ours chose (SPC-4 7.8.6.6.4).
    pub const fn naa_locally_assigned(value: u64) -> Designator {
        Designator::Naa8((value & (u64::MAX >> 4) | 0x3 << 60).to_be_bytes())
    }

    /// The name string of an SRP port from its 16-byte identifier.
    pub fn srp_port_name(association: Association, identifier: [u8; 16]) -> Designator {
        Designator::ScsiName(association, format!("eui.{:032X}", u128::from_be_bytes(identifier)))
    }

    /// The thing it names.
    pub const fn association(&self) -> Association {
        match self {
            Designator::T10VendorId { .. }
            | Designator::Eui64(_)
            | Designator::Uuid(_)
            | Designator::Naa8(_)
            | Designator::Naa16(_)
            | Designator::LogicalUnitGroup(_) => Association::LogicalUnit,
            Designator::RelativeTargetPort(_) | Designator::TargetPortGroup(_) => Association::TargetPort,
            Designator::ScsiName(association, _) => *association,
        }
    }

    const fn designator_type(&self) -> u8 {
        match self {
            Designator::T10VendorId { .. } => 0x1,
            Designator::Eui64(_) => 0x2,
            Designator::Naa8(_) | Designator::Naa16(_) => 0x3,
            Designator::RelativeTargetPort(_) => 0x4,
            Designator::TargetPortGroup(_) => 0x5,
            Designator::LogicalUnitGroup(_) => 0x6,
            Designator::ScsiName(..) => 0x8,
            Designator::Uuid(_) => 0xa,
        }
    }

    /// 1h binary, 2h ASCII, 3h UTF-8.
    const fn code_set(&self) -> u8 {
        match self {
            Designator::T10VendorId { .. } => 0x2,
            Designator::ScsiName(..) => 0x3,
            _ => 0x1,
        }
    }

    /// Whether a descriptor that was sent is this name's.
    pub fn is(&self, sent: &Designation<'_>) -> bool {
        let mut data = ParameterData::new();
        self.write_designator(&mut data);
        (sent.code_set, sent.association, sent.designator_type)
            == (self.code_set(), self.association() as u8, self.designator_type())
            && sent.designator == data.bytes()
    }

    /// Writes the designation descriptor. Names of the port and of the device carry SRP's protocol identifier.
    pub(super) fn write(&self, data: &mut ParameterData) {
        let association = self.association();
        let (protocol, piv) = match association {
            Association::LogicalUnit => (0, 0),
            Association::TargetPort | Association::TargetDevice => (PROTOCOL_SRP << 4, 0x80),
        };
        data.u8(protocol | self.code_set());
        data.u8(piv | (association as u8) << 4 | self.designator_type());
        data.u8(0);
        data.counted_u8(|data| self.write_designator(data));
    }

    fn write_designator(&self, data: &mut ParameterData) {
        match self {
            Designator::T10VendorId { vendor, identifier } => {
                data.ascii(vendor, 8).ascii(identifier, identifier.len().min(244));
            }
            Designator::Eui64(name) => {
                data.raw(name);
            }
            Designator::Naa8(name) => {
                data.raw(name);
            }
            Designator::Naa16(name) => {
                data.raw(name);
            }
            // UUID TYPE 1h: a locally assigned UUID; a reserved byte.
            Designator::Uuid(uuid) => {
                data.u8(0x10).u8(0).raw(uuid);
            }
            Designator::RelativeTargetPort(number)
            | Designator::TargetPortGroup(number)
            | Designator::LogicalUnitGroup(number) => {
                data.u16(0).u16(*number);
            }
            Designator::ScsiName(_, name) => {
                // Ended by at least one NUL, padded with NULs to a multiple of four (SPC-4 7.8.6.11).
                let kept = (0..=247).rev().find_map(|end| name.get(..end.min(name.len()))).unwrap_or_default();
                data.raw(kept.as_bytes()).zeros(4 - kept.len() % 4);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn written(designator: &Designator) -> Vec<u8> {
        let mut data = ParameterData::new();
        designator.write(&mut data);
        data.bytes().to_vec()
    }

    /// SPC-4 table 452 for each type.
    #[test]
    fn names_of_the_unit() {
        let vendor = Designator::T10VendorId { vendor: "IBM".into(), identifier: "disk0".into() };
        assert_eq!(written(&vendor), *b"\x02\x01\x00\x0dIBM     disk0");
        let naa = Designator::naa_locally_assigned(0xf123_4567_89ab_cdef);
        assert_eq!(written(&naa), [0x01, 0x03, 0, 8, 0x31, 0x23, 0x45, 0x67, 0x89, 0xab, 0xcd, 0xef]);
        let naa = Designator::Naa16([0x60, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14, 15]);
        assert_eq!(written(&naa)[..6], [0x01, 0x03, 0, 16, 0x60, 1]);
        assert_eq!(written(&Designator::Eui64(vec![9; 8])), [1, 2, 0, 8, 9, 9, 9, 9, 9, 9, 9, 9]);
        assert_eq!(written(&Designator::Eui64(vec![7; 12]))[..5], [1, 2, 0, 12, 7]);
        assert_eq!(written(&Designator::Eui64(vec![9; 16])).len(), 20);
        let uuid = [0x12, 0x34, 0x56, 0x78, 0x9a, 0xbc, 0x4d, 0xef, 0x80, 1, 2, 3, 4, 5, 6, 7];
        assert_eq!(written(&Designator::Uuid(uuid))[..7], [0x01, 0x0a, 0, 18, 0x10, 0, 0x12]);
        assert_eq!(written(&Designator::Uuid(uuid))[6..], uuid);
        assert_eq!(written(&Designator::LogicalUnitGroup(7)), [0x01, 0x06, 0, 4, 0, 0, 0, 7]);
    }

    #[test]
    fn names_of_the_port_carry_the_protocol() {
        assert_eq!(written(&Designator::RelativeTargetPort(0x0102)), [0x41, 0x94, 0, 4, 0, 0, 1, 2]);
        assert_eq!(written(&Designator::TargetPortGroup(1)), [0x41, 0x95, 0, 4, 0, 0, 0, 1]);
        let identifier = [0x02, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0xab];
        let name = Designator::srp_port_name(Association::TargetPort, identifier);
        assert_eq!(written(&name), *b"\x43\x98\x00\x28eui.020000000000000000000000000000AB\0\0\0\0");
    }

    #[test]
    fn name_strings_end_with_nul() {
        let name = |text: &str| written(&Designator::ScsiName(Association::TargetDevice, text.into()));
        assert_eq!(name("abc"), *b"\x43\xa8\x00\x04abc\0");
        assert_eq!(name("abcd"), *b"\x43\xa8\x00\x08abcd\0\0\0\0");
        let long = name(&"ä".repeat(200));
        assert_eq!((long[3], long.len()), (248, 252));
        assert_eq!(long[250..], [0, 0]);
    }

    #[test]
    fn a_long_identifier_is_cut() {
        let vendor = Designator::T10VendorId { vendor: "IBM".into(), identifier: "x".repeat(1000) };
        assert_eq!((written(&vendor)[3], written(&vendor).len()), (252, 256));
    }
}
