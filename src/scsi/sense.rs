//! Sense data (SPC-4 4.5): what went wrong, as a type, and its two wire formats.

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
}

impl Sense {
    /// A condition without further fields.
    pub const fn new(key: SenseKey, code: AdditionalSense) -> Sense {
        Sense { key, code, information: None, field: None }
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

    /// The same with its field pointer.
    pub const fn with_field(self, field: FieldPointer) -> Sense {
        Sense { field: Some(field), ..self }
    }
}
