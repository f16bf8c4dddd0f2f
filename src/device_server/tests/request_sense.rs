use super::*;
use crate::device_server::testkit::{check, good, out_buf};
use crate::lu::Attention;
use crate::mem::IoBuf;

/// REQUEST SENSE 03h: byte 1 bit 0 DESC, byte 4 allocation length.
fn request_sense(desc: u8, length: u8) -> [u8; 6] {
    [0x03, desc, 0, 0, length, 0]
}

const TEST_UNIT_READY: [u8; 6] = [0; 6];

#[test]
fn nothing_to_tell() {
    let b = bench();
    let ran = b.data_in(&request_sense(0, 252), 252);
    assert_eq!(ran.answer, good(18));
    assert_eq!(ran.data[..18], [0x70, 0, 0, 0, 0, 0, 0, 10, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0]);
    let ran = b.data_in(&request_sense(1, 252), 252);
    assert_eq!(ran.answer, good(8));
    assert_eq!(ran.data[..8], [0x72, 0, 0, 0, 0, 0, 0, 0]);
}

/// SAM-5 5.14: REQUEST SENSE returns the unit attention of highest precedence and clears it.
#[test]
fn a_unit_attention_is_told_once() {
    let b = bench();
    b.itl.gate().establish(Attention::CapacityChanged);
    b.itl.gate().establish(Attention::ReservationsPreempted);
    let ran = b.data_in(&request_sense(0, 18), 18);
    assert_eq!((ran.data[2], ran.data[12], ran.data[13]), (0x06, 0x2a, 0x03));
    let ran = b.data_in(&request_sense(1, 8), 8);
    assert_eq!(ran.data, [0x72, 0x06, 0x2a, 0x09, 0, 0, 0, 0]);
    assert_eq!(b.data_in(&request_sense(0, 18), 18).data[2], 0);
    assert_eq!(b.none(&TEST_UNIT_READY), good(0));
}

#[test]
fn allocation_lengths() {
    let b = bench();
    for (asked, got) in [(1, 1), (3, 3), (17, 17), (18, 18), (19, 18), (255, 18)] {
        let ran = b.data_in(&request_sense(0, asked), 255);
        assert_eq!(ran.answer, good(got));
        assert!(ran.data[got as usize..].iter().all(|byte| *byte == 0xee));
    }
    b.itl.gate().establish(Attention::PowerOn);
    assert_eq!(b.none(&request_sense(0, 0)), good(0));
    assert_eq!(b.none(&TEST_UNIT_READY), check(plain(SenseKey::UnitAttention, 0x2900)), "it was not told");
}

#[test]
fn what_cannot_be_told_is_not_cleared() {
    let b = bench();
    b.itl.gate().establish(Attention::PowerOn);
    assert_eq!(b.data_in(&request_sense(0, 18), 17).answer, good(18));
    assert_eq!(b.run(&request_sense(0, 18), IoBuf::empty()).answer, good(18));
    assert_eq!(b.run(&request_sense(0, 18), out_buf(&[0; 96])).answer, good(97));
    assert_eq!(b.none(&TEST_UNIT_READY), check(plain(SenseKey::UnitAttention, 0x2900)));
}
