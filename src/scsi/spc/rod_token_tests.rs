//! Tokens byte by byte.
#![allow(clippy::unwrap_used, reason = "test code")]

use super::*;
use crate::scsi::spc::Association;

fn fields() -> RodTokenFields {
    let mut random = [0; ROD_TOKEN_RANDOM];
    random.iter_mut().enumerate().for_each(|(at, byte)| *byte = at as u8 ^ 0x5a);
    RodTokenFields {
        rod_type: rod_type::POINT_IN_TIME_CHANGE_VULNERABLE,
        identifier: 0x0102_0304_0506_0708,
        naa: 0x3123_4567_89ab_cdef,
        bytes: 0x1_0000_0200,
        block_size: 4096,
        physical_exponent: 3,
        thin: true,
        target_device: Designator::ScsiName(Association::TargetDevice, "eui.0123".into()),
        random,
    }
}

/// A token, whatever it says.
pub(in crate::scsi::spc) fn token() -> RodToken {
    fields().token()
}

/// SPC-4 tables 111, 112 and 140, SBC-3 6.7.
#[test]
fn every_field_is_in_its_place() {
    let token = token();
    let bytes = token.bytes();
    assert_eq!(bytes[..16], [0, 0x80, 0, 1, 0, 0, 0x01, 0xf8, 1, 2, 3, 4, 5, 6, 7, 8]);
    assert_eq!(
        bytes[16..48],
        [
            0xe4, 0, 0, 0, 0x01, 0x03, 0, 8, 0x31, 0x23, 0x45, 0x67, 0x89, 0xab, 0xcd, 0xef, //
            0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0x10, 0x00,
        ]
    );
    assert_eq!(bytes[48..64], [0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 1, 0, 0, 2, 0]);
    assert_eq!(bytes[64..96], [0; 32]);
    assert_eq!(bytes[96..104], [0, 0, 0x10, 0, 0, 3, 0xc0, 0]);
    assert_eq!(bytes[104..128], [0; 24]);
    assert_eq!(bytes[128..144], *b"\x43\xa8\x00\x0ceui.0123\0\0\0\0");
    assert_eq!(bytes[144..256], [0; 112]);
    assert_eq!(bytes[256..], fields().random);
}

#[test]
fn a_long_device_name_does_not_reach_the_secret() {
    let target_device = Designator::ScsiName(Association::TargetDevice, "x".repeat(247));
    let token = RodTokenFields { target_device, ..fields() }.token();
    assert_eq!(token.bytes()[256..], fields().random);
}

#[test]
fn what_is_presented() {
    let made = token();
    assert_eq!(made.presented(), Ok(PresentedToken::Made { identifier: 0x0102_0304_0506_0708 }));
    let with = |at: usize, bytes: &[u8]| {
        let mut changed = *made.bytes();
        changed[at..at + bytes.len()].copy_from_slice(bytes);
        RodToken::received(&changed).presented()
    };
    assert_eq!(with(3, &[0]), Ok(PresentedToken::Made { identifier: 0x0102_0304_0506_0708 }));
    assert_eq!(with(0, &[0xff, 0xff, 0, 1]), Ok(PresentedToken::Zeros));
    let unsupported = Err(Sense::illegal_request(AdditionalSense(0x2301)));
    for other in [[0, 0, 0, 0], [0, 1, 0, 0], [0, 0x80, 0, 2], [0, 0x80, 0xff, 0xff], [0xff, 0xff, 0xff, 0xf0]] {
        assert_eq!(with(0, &other), unsupported, "{other:02x?}");
    }
    let length = Err(Sense::illegal_request(AdditionalSense(0x230a)));
    for other in [[0, 0], [0x01, 0xf7], [0x01, 0xf9], [0xff, 0xff]] {
        assert_eq!(with(6, &other), length, "{other:02x?}");
    }
}

/// SBC-3 table 31: only type and length mean something.
#[test]
fn the_zero_token() {
    let mut bytes = [0; ROD_TOKEN_SIZE];
    bytes[..8].copy_from_slice(&[0xff, 0xff, 0, 1, 0, 0, 0x01, 0xf8]);
    assert_eq!(RodToken::received(&bytes).presented(), Ok(PresentedToken::Zeros));
    bytes[8..].fill(0xaa);
    assert_eq!(RodToken::received(&bytes).presented(), Ok(PresentedToken::Zeros));
}

#[test]
fn tokens_differ_by_any_bit() {
    let made = token();
    assert_eq!(made, RodToken::received(made.bytes()));
    for bit in 0..8 * ROD_TOKEN_SIZE {
        let mut changed = *made.bytes();
        changed[bit / 8] ^= 1 << (bit % 8);
        assert_ne!(made, RodToken::received(&changed), "bit {bit}");
    }
}

#[test]
fn no_secret_in_the_log() {
    let shown = format!("{:?}", token());
    assert!(shown.contains("08]") && shown.len() < 100, "{shown}");
}

/// SPC-4 tables 651 and 653.
#[test]
fn features() {
    let mut data = ParameterData::new();
    let features =
        RodTokenFeatures { lifetime: 1, maximum_inactivity: 2, maximum_bytes: 0x0300, optimal_bytes: 0x0400 };
    features.write(&mut data);
    assert_eq!(data.len(), 96);
    assert_eq!(
        data.bytes()[..28],
        [1, 6, 0, 92, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 1, 0, 0, 0, 1, 0, 0, 0, 2]
    );
    assert_eq!(data.bytes()[28..46], [0; 18]);
    assert_eq!(
        data.bytes()[46..72],
        [0, 48, 0, 0, 0, 0x2c, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 3, 0, 0, 0, 0, 0, 0, 0, 4, 0]
    );
    assert_eq!(data.bytes()[72..88], [0xff; 16]);
    assert_eq!(data.bytes()[88..], [0; 8]);
}

/// SPC-4 tables 656 and 657.
#[test]
fn types() {
    let mut data = ParameterData::new();
    write_supported_rod_types(&mut data);
    assert_eq!(data.len(), 8 + 3 * 64);
    assert_eq!(data.bytes()[..8], [1, 8, 0, 196, 0, 0, 0, 192]);
    assert_eq!(data.bytes()[8..16], [0, 0x80, 0, 0, 3, 0, 0, 0]);
    assert_eq!(data.bytes()[72..80], [0, 0x80, 0, 1, 3, 0, 0, 0]);
    assert_eq!(data.bytes()[136..144], [0xff, 0xff, 0, 1, 2, 0, 0, 0]);
    assert_eq!(data.bytes()[144..], [0; 56]);
}
