//! The parameter list of SANITIZE, OVERWRITE (SBC-3 5.24.2.2).

use crate::scsi::{AdditionalSense, FieldPointer, Sense, be_bytes};

/// Bytes before the pattern.
pub const OVERWRITE_HEADER: usize = 4;

/// What is to be written.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Overwrite {
    /// INVERT: between passes the pattern is inverted.
    pub invert: bool,
    /// OVERWRITE COUNT: 1–31.
    pub passes: u8,
    /// INITIALIZATION PATTERN: 1 byte to a block.
    pub pattern: Vec<u8>,
}

/// Takes a list; what follows the pattern is not looked at.
///
/// # Errors
///
/// INVALID FIELD IN PARAMETER LIST: a TEST other than 00b (they are vendor-specific), an OVERWRITE COUNT of 0, a reserved bit, a pattern of no
/// bytes or of more than `block`. PARAMETER LIST LENGTH ERROR if the list ends before the pattern does.
pub fn overwrite_list(list: &[u8], block: usize) -> Result<Overwrite, Sense> {
    let invalid = |byte, bit| Sense::invalid_field_in_parameter_list(FieldPointer::parameter_list(byte, bit));
    let truncated = Sense::illegal_request(AdditionalSense::PARAMETER_LIST_LENGTH_ERROR);
    let [how, reserved, high, low] = be_bytes(list, 0).ok_or(truncated)?;
    let (passes, length) = (how & 0x1f, usize::from(u16::from_be_bytes([high, low])));
    if how & 0x60 != 0 {
        return Err(invalid(0, 6));
    }
    if passes == 0 {
        return Err(invalid(0, 4));
    }
    if reserved != 0 {
        return Err(invalid(1, 7));
    }
    if length == 0 || length > block {
        return Err(invalid(2, 7));
    }
    let pattern = list.get(OVERWRITE_HEADER..OVERWRITE_HEADER + length).ok_or(truncated)?.to_vec();
    Ok(Overwrite { invert: how & 0x80 != 0, passes, pattern })
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::collection;
    use proptest::prelude::*;

    fn invalid(byte: u16, bit: u8) -> Result<Overwrite, Sense> {
        Err(Sense::invalid_field_in_parameter_list(FieldPointer::parameter_list(byte, bit)))
    }

    #[test]
    fn every_field() {
        let list = [0x83, 0x00, 0x00, 0x02, 0xa5, 0x5a];
        assert_eq!(overwrite_list(&list, 512), Ok(Overwrite { invert: true, passes: 3, pattern: vec![0xa5, 0x5a] }));
        let longest = [&[0x1f, 0, 0x02, 0x00][..], &[7; 512]].concat();
        assert_eq!(overwrite_list(&longest, 512), Ok(Overwrite { invert: false, passes: 31, pattern: vec![7; 512] }));
        let followed = [0x01, 0, 0, 1, 0xee, 0xff, 0xff];
        assert_eq!(overwrite_list(&followed, 512).unwrap().pattern, [0xee]);
    }

    #[test]
    fn every_error() {
        for test in [0x20, 0x40, 0x60] {
            assert_eq!(overwrite_list(&[test | 1, 0, 0, 1, 0], 512), invalid(0, 6));
        }
        assert_eq!(overwrite_list(&[0x00, 0, 0, 1, 0], 512), invalid(0, 4));
        assert_eq!(overwrite_list(&[0x80, 0, 0, 1, 0], 512), invalid(0, 4));
        for bit in 0..8 {
            assert_eq!(overwrite_list(&[0x01, 1 << bit, 0, 1, 0], 512), invalid(1, 7));
        }
        assert_eq!(overwrite_list(&[0x01, 0, 0, 0, 0], 512), invalid(2, 7));
        let too_long = [&[0x01, 0, 0x02, 0x01][..], &[0; 513]].concat();
        assert_eq!(overwrite_list(&too_long, 512), invalid(2, 7));
        assert!(overwrite_list(&too_long, 4096).is_ok());
        let whole = [0x01, 0, 0, 3, 1, 2, 3];
        for length in 0..whole.len() {
            let truncated = Sense::illegal_request(AdditionalSense::PARAMETER_LIST_LENGTH_ERROR);
            assert_eq!(overwrite_list(&whole[..length], 512), Err(truncated), "{length}");
        }
    }

    proptest! {
        #[test]
        fn any_bytes(list in collection::vec(prop_oneof![Just(0), Just(1), any::<u8>()], 0..600)) {
            if let Ok(overwrite) = overwrite_list(&list, 512) {
                prop_assert!((1..=512).contains(&overwrite.pattern.len()) && (1..=31).contains(&overwrite.passes));
            }
        }
    }
}
