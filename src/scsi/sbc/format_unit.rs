//! The parameter list of FORMAT UNIT (SBC-3 5.3.2).

use crate::scsi::{FieldPointer, Sense, be_bytes};

/// Length of the header in its two forms, and of an initialization pattern descriptor without its pattern.
const SHORT_HEADER: usize = 4;
const LONG_HEADER: usize = 8;
const DESCRIPTOR: usize = 4;

/// The longest list that there can be where blocks have `block` bytes.
pub const fn longest_format_list(block: usize) -> usize {
    LONG_HEADER + DESCRIPTOR + block
}

/// What a list asks for.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct FormatList {
    /// IMMED: status as soon as the list is validated.
    pub immed: bool,
    /// What to initialize blocks with; `None`: as the device server likes.
    pub pattern: Option<InitializationPattern>,
    /// Bytes of the list.
    pub length: usize,
}

/// What blocks are initialized with, by an initialization pattern descriptor that asks for something.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum InitializationPattern {
    /// The default one, but really written (SI).
    Default,
    /// These bytes, repeated in each block; 1 byte to a block.
    Repeated(Vec<u8>),
}

/// Why a list is not taken.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum FormatListError {
    /// It is wrong.
    Invalid(Sense),
    /// It goes on behind what there is: it has at least so many bytes.
    Longer(usize),
}

/// Takes a list, with a long header or a short one. There are no lists of defects and nothing is certified, so DPRY, DCRT and STPF
/// change nothing; they are taken with FOV, as IP is.
///
/// # Errors
///
/// [`FormatListError::Longer`] if `bytes` end before the list does; else INVALID FIELD IN PARAMETER LIST: protection information, defects,
/// an obsolete, reserved or vendor-specific bit, one that needs FOV without it, a pattern type that is reserved, a pattern length that its type
/// does not have or that is more than `block`.
pub fn format_list(bytes: &[u8], long: bool, block: usize) -> Result<FormatList, FormatListError> {
    let (header, defects) = if long { (LONG_HEADER, 4) } else { (SHORT_HEADER, 2) };
    let head = bytes.get(..header).ok_or(FormatListError::Longer(header))?;
    let [protection, options] = be_bytes(head, 0).ok_or(FormatListError::Longer(header))?;
    refuse(protection, 0xff, 0)?;
    // The obsolete DSP, and a vendor-specific bit.
    refuse(options, 0x05, 1)?;
    let (fov, ip, immed) = (options & 0x80 != 0, options & 0x08 != 0, options & 0x02 != 0);
    if !fov {
        // DPRY, DCRT, STPF, IP.
        refuse(options, 0x78, 1)?;
    }
    // P_I_INFORMATION, PROTECTION INTERVAL EXPONENT.
    for (at, &byte) in head.iter().enumerate().take(defects).skip(2) {
        refuse(byte, 0xff, at)?;
    }
    if head.iter().skip(defects).any(|byte| *byte != 0) {
        return Err(invalid(defects, 7));
    }
    if !ip {
        return Ok(FormatList { immed, pattern: None, length: header });
    }
    let [security, kind, high, low] = be_bytes(bytes, header).ok_or(FormatListError::Longer(header + DESCRIPTOR))?;
    refuse(security, 0xdf, header)?;
    let length = usize::from(u16::from_be_bytes([high, low]));
    let written = security & 0x20 != 0;
    let pattern = match (kind, length) {
        (0x00, 0) => written.then_some(InitializationPattern::Default),
        (0x01, 1..) if length <= block => {
            let at = header + DESCRIPTOR;
            let pattern = bytes.get(at..at + length).ok_or(FormatListError::Longer(at + length))?;
            Some(InitializationPattern::Repeated(pattern.to_vec()))
        }
        (0x00 | 0x01, _) => return Err(invalid(header + 2, 7)),
        _ => return Err(invalid(header + 1, 7)),
    };
    Ok(FormatList { immed, pattern, length: header + DESCRIPTOR + length })
}

/// Refuses a byte of the list with a bit of `bits` set; the field pointer is to that.
fn refuse(byte: u8, bits: u8, at: usize) -> Result<(), FormatListError> {
    match byte & bits {
        0 => Ok(()),
        stray => Err(invalid(at, 7 - stray.leading_zeros() as u8)),
    }
}

fn invalid(byte: usize, bit: u8) -> FormatListError {
    // A list has some thousand bytes.
    FormatListError::Invalid(Sense::invalid_field_in_parameter_list(FieldPointer::parameter_list(byte as u16, bit)))
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::collection;
    use proptest::prelude::*;

    fn short(bytes: &[u8]) -> Result<FormatList, FormatListError> {
        format_list(bytes, false, 512)
    }

    fn long(bytes: &[u8]) -> Result<FormatList, FormatListError> {
        format_list(bytes, true, 512)
    }

    fn plain(immed: bool, length: usize) -> Result<FormatList, FormatListError> {
        Ok(FormatList { immed, pattern: None, length })
    }

    #[test]
    fn headers() {
        assert_eq!(short(&[0, 0, 0, 0]), plain(false, 4));
        assert_eq!(short(&[0, 0x02, 0, 0]), plain(true, 4));
        assert_eq!(short(&[0, 0xf2, 0, 0, 0xff]), plain(true, 4), "FOV, DPRY, DCRT, STPF");
        assert_eq!(long(&[0, 0x80, 0, 0, 0, 0, 0, 0]), plain(false, 8));
        for length in 0..4 {
            assert_eq!(short(&[0; 8][..length]), Err(FormatListError::Longer(4)));
        }
        for length in 0..8 {
            assert_eq!(long(&[0; 8][..length]), Err(FormatListError::Longer(8)));
        }
    }

    #[test]
    fn every_bit_of_a_header() {
        for bit in 0..8 {
            assert_eq!(short(&[1 << bit, 0, 0, 0]), Err(invalid(0, bit)), "PROTECTION FIELD USAGE and reserved");
            assert_eq!(long(&[0, 0, 1 << bit, 0, 0, 0, 0, 0]), Err(invalid(2, bit)), "reserved");
            assert_eq!(long(&[0, 0, 0, 1 << bit, 0, 0, 0, 0]), Err(invalid(3, bit)), "protection information");
            for at in 2..4 {
                let mut list = [0; 4];
                list[at] = 1 << bit;
                assert_eq!(short(&list), Err(invalid(2, 7)), "DEFECT LIST LENGTH");
            }
            for at in 4..8 {
                let mut list = [0; 8];
                list[at] = 1 << bit;
                assert_eq!(long(&list), Err(invalid(4, 7)), "DEFECT LIST LENGTH");
            }
        }
        for bit in [0, 2, 3, 4, 5, 6] {
            assert_eq!(short(&[0, 1 << bit, 0, 0]), Err(invalid(1, bit)), "without FOV");
        }
        for bit in [0, 2] {
            assert_eq!(short(&[0, 0x80 | 1 << bit, 0, 0]), Err(invalid(1, bit)), "with FOV");
        }
    }

    #[test]
    fn patterns() {
        let of = |pattern: Option<InitializationPattern>, length| Ok(FormatList { immed: false, pattern, length });
        let repeated = |bytes: &[u8]| Some(InitializationPattern::Repeated(bytes.to_vec()));
        assert_eq!(short(&[0, 0x88, 0, 0, 0, 0, 0, 0]), of(None, 8));
        assert_eq!(short(&[0, 0x88, 0, 0, 0x20, 0, 0, 0]), of(Some(InitializationPattern::Default), 8));
        assert_eq!(short(&[0, 0x88, 0, 0, 0, 1, 0, 2, 0xde, 0xad]), of(repeated(&[0xde, 0xad]), 10));
        assert_eq!(long(&[0, 0x88, 0, 0, 0, 0, 0, 0, 0x20, 1, 0, 1, 0x77]), of(repeated(&[0x77]), 13));
        let block = [&[0, 0x88, 0, 0, 0, 1, 2, 0][..], &[9; 512]].concat();
        assert_eq!(short(&block), of(repeated(&[9; 512]), 520));
        assert_eq!(block.len() + 4, longest_format_list(512));
        for length in 4..8 {
            assert_eq!(short(&block[..length]), Err(FormatListError::Longer(8)));
        }
        for length in [8, 9, 519] {
            assert_eq!(short(&block[..length]), Err(FormatListError::Longer(520)));
        }
    }

    #[test]
    fn every_error_of_a_descriptor() {
        let descriptor = |bytes: [u8; 4]| short(&[&[0, 0x88, 0, 0][..], &bytes, &[0; 1024]].concat());
        for bit in [0, 1, 2, 3, 4, 6, 7] {
            assert_eq!(descriptor([1 << bit, 0, 0, 0]), Err(invalid(4, bit)), "IP MODIFIER and reserved");
        }
        for kind in [0x02, 0x7f, 0x80, 0xff] {
            assert_eq!(descriptor([0, kind, 0, 0]), Err(invalid(5, 7)));
        }
        assert_eq!(descriptor([0, 0, 0, 1]), Err(invalid(6, 7)), "the default pattern has no length");
        assert_eq!(descriptor([0, 1, 0, 0]), Err(invalid(6, 7)), "one that is given has");
        assert_eq!(descriptor([0, 1, 2, 1]), Err(invalid(6, 7)), "more than a block");
    }

    proptest! {
        #[test]
        fn any_bytes(list in collection::vec(prop_oneof![Just(0), Just(0x88), any::<u8>()], 0..600), long_list: bool) {
            match format_list(&list, long_list, 512) {
                Ok(taken) => prop_assert!(taken.length <= list.len() && taken.length <= longest_format_list(512)),
                Err(FormatListError::Longer(length)) => {
                    prop_assert!(length > list.len() && length <= longest_format_list(512));
                }
                Err(FormatListError::Invalid(_)) => {}
            }
        }
    }
}
