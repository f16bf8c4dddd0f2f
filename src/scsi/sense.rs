//! Sense data (SPC-4 4.5): what went wrong, as a type, and its two wire formats.
//!
//! [`Sense::encode`] writes the format that D_SENSE of the control mode page (or DESC of REQUEST SENSE) asks for, cut to the
//! room there is, and says so in SDAT_OVFL.

/// SPC-4 table 48 sense keys.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u8)]
pub enum SenseKey {
    /// NO SENSE.
    NoSense = 0x0,
    /// RECOVERED ERROR.
    RecoveredError = 0x1,
    /// NOT READY.
    NotReady = 0x2,
    /// MEDIUM ERROR.
    MediumError = 0x3,
    /// HARDWARE ERROR.
    HardwareError = 0x4,
    /// ILLEGAL REQUEST.
    IllegalRequest = 0x5,
    /// UNIT ATTENTION.
    UnitAttention = 0x6,
    /// DATA PROTECT.
    DataProtect = 0x7,
    /// BLANK CHECK.
    BlankCheck = 0x8,
    /// COPY ABORTED.
    CopyAborted = 0xa,
    /// ABORTED COMMAND.
    AbortedCommand = 0xb,
    /// VOLUME OVERFLOW.
    VolumeOverflow = 0xd,
    /// MISCOMPARE.
    Miscompare = 0xe,
    /// COMPLETED.
    Completed = 0xf,
}

/// ADDITIONAL SENSE CODE and its qualifier, `asc << 8 | ascq`, under SPC's names (constants are in this module).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct AdditionalSense(pub u16);

/// Where in the CDB or the parameter list an illegal field is (SPC-4 4.5.2.4.2).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct FieldPointer {
    /// True: in the CDB; false: in the parameter list.
    pub in_cdb: bool,
    /// Byte offset.
    pub byte: u16,
    /// The field's most significant bit, where it is less than a byte.
    pub bit: Option<u8>,
}

impl FieldPointer {
    /// To the CDB field whose most significant bit is `bit` of byte `byte`.
    pub const fn cdb(byte: u16, bit: u8) -> FieldPointer {
        FieldPointer { in_cdb: true, byte, bit: Some(bit) }
    }

    /// To the parameter-list field whose most significant bit is `bit` of byte `byte`.
    pub const fn parameter_list(byte: u16, bit: u8) -> FieldPointer {
        FieldPointer { in_cdb: false, byte, bit: Some(bit) }
    }
}

/// One error or unit attention condition.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Sense {
    /// Sense key.
    pub key: SenseKey,
    /// Additional sense code and qualifier.
    pub code: AdditionalSense,
    /// INFORMATION field: an LBA, for most.
    pub information: Option<u64>,
    /// Sense-key-specific field pointer.
    pub field: Option<FieldPointer>,
    /// With COPY ABORTED: which segment descriptor was being processed, from 0 on. The field pointer, if there is one, is relative
    /// to it, and else to the parameter list (SPC-4 4.5.2.4.5).
    pub segment: Option<u16>,
}

impl Sense {
    /// A condition without further fields.
    pub const fn new(key: SenseKey, code: AdditionalSense) -> Sense {
        Sense { key, code, information: None, field: None, segment: None }
    }

    /// ILLEGAL REQUEST.
    pub const fn illegal_request(code: AdditionalSense) -> Sense {
        Sense::new(SenseKey::IllegalRequest, code)
    }

    /// UNIT ATTENTION.
    pub const fn unit_attention(code: AdditionalSense) -> Sense {
        Sense::new(SenseKey::UnitAttention, code)
    }

    /// NOT READY.
    pub const fn not_ready(code: AdditionalSense) -> Sense {
        Sense::new(SenseKey::NotReady, code)
    }

    /// DATA PROTECT.
    pub const fn data_protect(code: AdditionalSense) -> Sense {
        Sense::new(SenseKey::DataProtect, code)
    }

    /// ABORTED COMMAND.
    pub const fn aborted_command(code: AdditionalSense) -> Sense {
        Sense::new(SenseKey::AbortedCommand, code)
    }

    /// ILLEGAL REQUEST, INVALID FIELD IN CDB.
    pub const fn invalid_field_in_cdb(field: FieldPointer) -> Sense {
        Sense::illegal_request(AdditionalSense::INVALID_FIELD_IN_CDB).with_field(field)
    }

    /// ILLEGAL REQUEST, INVALID FIELD IN PARAMETER LIST.
    pub const fn invalid_field_in_parameter_list(field: FieldPointer) -> Sense {
        Sense::illegal_request(AdditionalSense::INVALID_FIELD_IN_PARAMETER_LIST).with_field(field)
    }

    /// ILLEGAL REQUEST, LOGICAL BLOCK ADDRESS OUT OF RANGE, pointing at the field that says so.
    pub const fn lba_out_of_range(field: FieldPointer) -> Sense {
        Sense::illegal_request(AdditionalSense::LOGICAL_BLOCK_ADDRESS_OUT_OF_RANGE).with_field(field)
    }

    /// The same with its INFORMATION field.
    pub const fn with_information(self, information: u64) -> Sense {
        Sense { information: Some(information), ..self }
    }

    /// COPY ABORTED.
    pub const fn copy_aborted(code: AdditionalSense) -> Sense {
        Sense::new(SenseKey::CopyAborted, code)
    }

    /// The same with its segment descriptor.
    pub const fn with_segment(self, segment: u16) -> Sense {
        Sense { segment: Some(segment), ..self }
    }

    /// The same with its field pointer.
    pub const fn with_field(self, field: FieldPointer) -> Sense {
        Sense { field: Some(field), ..self }
    }
}

/// The two formats of sense data.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum SenseFormat {
    /// Response code 70h (SPC-4 4.5.3).
    #[default]
    Fixed,
    /// Response code 72h (SPC-4 4.5.2).
    Descriptor,
}

impl SenseFormat {
    /// By D_SENSE or DESC.
    pub const fn from_bit(descriptor: bool) -> SenseFormat {
        if descriptor { SenseFormat::Descriptor } else { SenseFormat::Fixed }
    }
}

impl Sense {
    /// The sense data of a current condition, in at most `room` bytes.
    ///
    /// In fixed format an INFORMATION that does not fit 32 bits is left out (VALID 0), as SBC-3 4.18 has it.
    pub fn encode(&self, format: SenseFormat, room: usize) -> Vec<u8> {
        let (mut data, overflow_byte, overflow_bit) = match format {
            SenseFormat::Fixed => (self.fixed(), 2, 0x10),
            SenseFormat::Descriptor => (self.descriptor(), 4, 0x80),
        };
        if data.len() > room {
            data.truncate(room);
            if let Some(byte) = data.get_mut(overflow_byte) {
                *byte |= overflow_bit;
            }
        }
        data
    }

    fn fixed(&self) -> Vec<u8> {
        let information = self.information.and_then(|information| u32::try_from(information).ok());
        let valid = if information.is_some() { 0x80 } else { 0 };
        let mut data = vec![valid | 0x70, 0, self.key as u8];
        data.extend(information.unwrap_or(0).to_be_bytes());
        data.push(10);
        // COMMAND-SPECIFIC INFORMATION: the segment is in its third and fourth bytes (SPC-4 5.17.7.4).
        data.extend([0; 2]);
        data.extend(self.segment.unwrap_or(0).to_be_bytes());
        data.extend(self.code.0.to_be_bytes());
        data.push(0);
        data.extend(self.field.map_or([0; 3], |field| self.sense_key_specific(field)));
        data
    }

    fn descriptor(&self) -> Vec<u8> {
        let mut descriptors = Vec::with_capacity(20);
        if let Some(information) = self.information {
            descriptors.extend([0x00, 0x0a, 0x80, 0]);
            descriptors.extend(information.to_be_bytes());
        }
        if let Some(segment) = self.segment {
            let [high, low] = segment.to_be_bytes();
            descriptors.extend([0x01, 0x0a, 0, 0, 0, 0, high, low, 0, 0, 0, 0]);
        }
        if let Some(field) = self.field {
            let [first, second, third] = self.sense_key_specific(field);
            descriptors.extend([0x02, 0x06, 0, 0, first, second, third, 0]);
        }
        let [asc, ascq] = self.code.0.to_be_bytes();
        let mut data = vec![0x72, self.key as u8, asc, ascq, 0, 0, 0, descriptors.len() as u8];
        data.append(&mut descriptors);
        data
    }
}

impl Sense {
    /// SENSE KEY SPECIFIC: of ILLEGAL REQUEST SKSV, C/D, BPV, BIT POINTER, FIELD POINTER (SPC-4 4.5.2.4.2); of COPY ABORTED SKSV, SD, BPV,
    /// BIT POINTER, FIELD POINTER (SPC-4 4.5.2.4.5).
    fn sense_key_specific(&self, field: FieldPointer) -> [u8; 3] {
        let whose = match self.segment {
            Some(_) => 0x20,
            None if field.in_cdb => 0x40,
            None => 0,
        };
        let bit = field.bit.map_or(0, |bit| 0x08 | bit & 0x07);
        let [high, low] = field.byte.to_be_bytes();
        [0x80 | whose | bit, high, low]
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// SPC-4 table 53.
    #[test]
    fn fixed_format() {
        let sense =
            Sense::new(SenseKey::MediumError, AdditionalSense::UNRECOVERED_READ_ERROR).with_information(0x0102_0304);
        assert_eq!(
            sense.encode(SenseFormat::Fixed, 96),
            [0xf0, 0, 0x03, 1, 2, 3, 4, 10, 0, 0, 0, 0, 0x11, 0x00, 0, 0, 0, 0]
        );
    }

    #[test]
    fn fixed_format_leaves_out_what_does_not_fit_32_bits() {
        let sense = Sense::new(SenseKey::MediumError, AdditionalSense::WRITE_ERROR);
        let beyond = sense.with_information(1 << 32).encode(SenseFormat::Fixed, 96);
        assert_eq!(beyond, [0x70, 0, 0x03, 0, 0, 0, 0, 10, 0, 0, 0, 0, 0x0c, 0x00, 0, 0, 0, 0]);
        let last = sense.with_information(0xffff_ffff).encode(SenseFormat::Fixed, 96);
        assert_eq!(last[..7], [0xf0, 0, 0x03, 0xff, 0xff, 0xff, 0xff]);
    }

    /// SPC-4 4.5.2.4.2: SKSV 1, C/D 1, BPV 1, bit 3 of byte 1.
    #[test]
    fn field_pointers() {
        let in_cdb = Sense::invalid_field_in_cdb(FieldPointer::cdb(1, 3));
        assert_eq!(
            in_cdb.encode(SenseFormat::Fixed, 18),
            [0x70, 0, 0x05, 0, 0, 0, 0, 10, 0, 0, 0, 0, 0x24, 0x00, 0, 0xcb, 0x00, 0x01]
        );
        let byte = FieldPointer { in_cdb: false, byte: 0x0123, bit: None };
        let in_list = Sense::invalid_field_in_parameter_list(byte);
        assert_eq!(in_list.encode(SenseFormat::Fixed, 18)[12..], [0x26, 0x00, 0, 0x80, 0x01, 0x23]);
    }

    /// SPC-4 4.5.2, 4.5.2.2 and 4.5.2.4.
    #[test]
    fn descriptor_format() {
        let plain = Sense::unit_attention(AdditionalSense::POWER_ON_RESET_OR_BUS_DEVICE_RESET_OCCURRED);
        assert_eq!(plain.encode(SenseFormat::Descriptor, 96), [0x72, 0x06, 0x29, 0x00, 0, 0, 0, 0]);
        let full = Sense::lba_out_of_range(FieldPointer::cdb(2, 7)).with_information(0x0102_0304_0506_0708);
        assert_eq!(
            full.encode(SenseFormat::Descriptor, 96),
            [
                0x72, 0x05, 0x21, 0x00, 0, 0, 0, 20, //
                0x00, 0x0a, 0x80, 0, 1, 2, 3, 4, 5, 6, 7, 8, //
                0x02, 0x06, 0, 0, 0xcf, 0x00, 0x02, 0,
            ]
        );
    }

    /// SPC-4 4.5.2.4.5: SKSV 1, SD 1, BPV 1, bit 7 of byte 20 of the third segment descriptor.
    #[test]
    fn segment_pointers() {
        let sense = Sense::copy_aborted(AdditionalSense::NO_ADDITIONAL_SENSE_INFORMATION).with_segment(2);
        let pointed = sense.with_field(FieldPointer::parameter_list(20, 7));
        assert_eq!(
            pointed.encode(SenseFormat::Fixed, 96),
            [0x70, 0, 0x0a, 0, 0, 0, 0, 10, 0, 0, 0, 2, 0x00, 0x00, 0, 0xaf, 0x00, 0x14]
        );
        assert_eq!(
            pointed.encode(SenseFormat::Descriptor, 96),
            [
                0x72, 0x0a, 0x00, 0x00, 0, 0, 0, 20, //
                0x01, 0x0a, 0, 0, 0, 0, 0, 2, 0, 0, 0, 0, //
                0x02, 0x06, 0, 0, 0xaf, 0x00, 0x14, 0,
            ]
        );
        assert_eq!(sense.encode(SenseFormat::Fixed, 18)[15..], [0, 0, 0], "there need not be a pointer");
    }

    #[test]
    fn what_is_cut_says_so() {
        let sense = Sense::invalid_field_in_cdb(FieldPointer::cdb(1, 3));
        assert_eq!(sense.encode(SenseFormat::Fixed, 8), [0x70, 0, 0x15, 0, 0, 0, 0, 10]);
        assert_eq!(sense.encode(SenseFormat::Descriptor, 8), [0x72, 0x05, 0x24, 0x00, 0x80, 0, 0, 8]);
        assert_eq!(sense.encode(SenseFormat::Descriptor, 16)[4], 0);
        assert_eq!(sense.encode(SenseFormat::Fixed, 1), [0x70]);
        assert_eq!(sense.encode(SenseFormat::Fixed, 0), []);
    }
}
