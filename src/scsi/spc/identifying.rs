//! REPORT IDENTIFYING INFORMATION parameter data and what SET IDENTIFYING INFORMATION takes (SPC-4 6.32, 6.43).

use crate::scsi::{FieldPointer, ParameterData, Sense};

/// The kinds of identifying information that a unit keeps.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum IdentifyingInformationType {
    /// 0000000b: any bytes.
    Peripheral,
    /// 0000010b: UTF-8, ended and padded with NUL.
    Text,
}

/// IDENTIFYING INFORMATION TYPE for the list of types.
pub const IDENTIFYING_INFORMATION_SUPPORTED: u8 = 0x7f;

impl IdentifyingInformationType {
    /// Both, ascending.
    pub const ALL: [IdentifyingInformationType; 2] =
        [IdentifyingInformationType::Peripheral, IdentifyingInformationType::Text];

    /// By the value of the CDB's field.
    pub fn from_code(code: u8) -> Option<IdentifyingInformationType> {
        Self::ALL.into_iter().find(|kind| kind.code() == code)
    }

    /// The value of the CDB's field.
    pub const fn code(self) -> u8 {
        match self {
            IdentifyingInformationType::Peripheral => 0x00,
            IdentifyingInformationType::Text => 0x02,
        }
    }

    /// MAXIMUM IDENTIFYING INFORMATION LENGTH in bytes.
    pub const fn maximum_length(self) -> u16 {
        match self {
            IdentifyingInformationType::Peripheral => 64,
            IdentifyingInformationType::Text => 256,
        }
    }

    /// Checks what is to be kept. Nothing at all is fit for both kinds: it takes away what was there.
    ///
    /// # Errors
    ///
    /// INVALID FIELD IN PARAMETER LIST for text that is not UTF-8 or does not end with a NUL.
    pub fn check(self, information: &[u8]) -> Result<(), Sense> {
        let invalid = |at: usize| {
            Err(Sense::invalid_field_in_parameter_list(FieldPointer::parameter_list(
                u16::try_from(at).unwrap_or(u16::MAX),
                7,
            )))
        };
        let last = match (self, information) {
            (IdentifyingInformationType::Peripheral, _) | (_, []) => return Ok(()),
            (IdentifyingInformationType::Text, [.., last]) => *last,
        };
        match std::str::from_utf8(information) {
            Err(error) => invalid(error.valid_up_to()),
            Ok(_) if last != 0 => invalid(information.len() - 1),
            Ok(_) => Ok(()),
        }
    }
}

/// The parameter data for one kind's information.
pub fn report_identifying_information(information: &[u8]) -> ParameterData {
    let mut data = ParameterData::new();
    data.zeros(2).counted_u16(|data| {
        data.raw(information);
    });
    data
}

/// The parameter data that lists the kinds.
pub fn report_identifying_information_types() -> ParameterData {
    let mut data = ParameterData::new();
    data.zeros(2).counted_u16(|data| {
        for kind in IdentifyingInformationType::ALL {
            data.u8(kind.code() << 1).u8(0).u16(kind.maximum_length());
        }
    });
    data
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lists() {
        assert_eq!(report_identifying_information(b"abc").bytes(), [0, 0, 0, 3, b'a', b'b', b'c']);
        assert_eq!(report_identifying_information_types().bytes(), [0, 0, 0, 8, 0, 0, 0, 64, 4, 0, 1, 0]);
    }

    #[test]
    fn text_is_utf8_with_an_end() {
        let text = IdentifyingInformationType::Text;
        assert_eq!(text.check(b""), Ok(()));
        assert_eq!(text.check("Gerät\0\0".as_bytes()), Ok(()));
        let field = |information: &[u8]| text.check(information).unwrap_err().field.unwrap();
        assert_eq!(field(b"abc"), FieldPointer::parameter_list(2, 7));
        assert_eq!(field(b"ab\xff\0"), FieldPointer::parameter_list(2, 7));
        assert_eq!(IdentifyingInformationType::Peripheral.check(&[0xff; 64]), Ok(()));
    }
}
