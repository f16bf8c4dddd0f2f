use super::*;
use crate::scsi::SenseKey;
use crate::scsi::spc::ModeThreshold;
use proptest::collection;
use proptest::prelude::*;

const UNIT: ModeUnit = ModeUnit {
    current: ModeState::DEFAULT,
    default: ModeState::DEFAULT,
    saved: None,
    write_protected: false,
    dpo_fua: true,
    blocks: 0x0001_0000,
    block_length: 512,
    thresholds: false,
    self_test_seconds: 0x0102,
};

const SIX: ModeSelectFields = ModeSelectFields { ten: false, page_format: true, save: false };
const TEN: ModeSelectFields = ModeSelectFields { ten: true, ..SIX };

fn select(list: &[u8]) -> Result<ModeState, Sense> {
    mode_select(SIX, list, &UNIT)
}

fn with_page(page: &[u8]) -> Vec<u8> {
    [&[0, 0, 0, 0], page].concat()
}

const CONTROL: [u8; 12] = [0x0a, 10, 0x22, 0x10, 0, 0, 0, 0, 0, 0, 1, 2];

#[test]
fn an_empty_list_and_a_bare_header_change_nothing() {
    assert_eq!(select(&[]), Ok(UNIT.current));
    assert_eq!(select(&[0; 4]), Ok(UNIT.current));
    assert_eq!(mode_select(ModeSelectFields { page_format: false, ..SIX }, &[0; 4], &UNIT), Ok(UNIT.current));
}

#[test]
fn changeable_bits_change() {
    let mut control = CONTROL;
    control[2] |= 0x04;
    control[4] |= 0x08;
    let caching = [[0x08, 18, 0].as_slice(), &[0; 17]].concat();
    let list = [with_page(&control), caching].concat();
    assert_eq!(select(&list), Ok(ModeState { d_sense: true, swp: true, wce: false, ..ModeState::DEFAULT }));
    let ten = [&[0, 0, 0, 0, 0, 0, 0, 0], control.as_slice()].concat();
    assert_eq!(mode_select(TEN, &ten, &UNIT), Ok(ModeState { d_sense: true, swp: true, ..ModeState::DEFAULT }));
}

/// SPC-4 tables 388, 390 and 391.
#[test]
fn each_field_of_the_control_page() {
    let with = |change: fn(&mut [u8; 12])| {
        let mut page = CONTROL;
        change(&mut page);
        select(&with_page(&page))
    };
    let state = |change: fn(&mut ModeState)| {
        let mut state = UNIT.current;
        change(&mut state);
        Ok(state)
    };
    assert_eq!(with(|p| p[2] &= !0x20), state(|s| s.tst = 0), "TST 000b: one task set for all");
    assert_eq!(with(|p| p[2] |= 0x40), Err(invalid(4 + 2, 6)), "TST 011b");
    assert_eq!(with(|p| p[3] |= 0b01 << 1), state(|s| s.qerr = 1));
    assert_eq!(with(|p| p[3] |= 0b11 << 1), state(|s| s.qerr = 3));
    assert_eq!(with(|p| p[3] |= 0b10 << 1), Err(invalid(4 + 3, 2)), "reserved");
    assert_eq!(with(|p| p[4] |= 0b10 << 4), state(|s| s.ua_intlck = 2));
    assert_eq!(with(|p| p[4] |= 0b11 << 4), state(|s| s.ua_intlck = 3));
    assert_eq!(with(|p| p[4] |= 0b01 << 4), Err(invalid(4 + 4, 5)), "reserved");
    assert_eq!(with(|p| p[5] |= 0x40), state(|s| s.tas = true));
    let list = [with_page(&[0x08, 18, 0]), vec![0; 17], { CONTROL.map(|b| if b == 0x10 { 0x14 } else { b }).to_vec() }];
    assert_eq!(select(&list.concat()), Err(invalid(4 + 20 + 3, 2)), "the pointer counts from the list's beginning");
}

#[test]
fn what_mode_sense_returned_can_be_sent_back() {
    use crate::scsi::PageControl;
    use crate::scsi::spc::{ModeSenseFields, mode_sense};
    let unit = ModeUnit { saved: Some(UNIT.default), write_protected: true, thresholds: true, ..UNIT };
    for (ten, llbaa) in [(false, false), (true, false), (true, true)] {
        let fields =
            ModeSenseFields { ten, llbaa, dbd: false, control: PageControl::Current, page: 0x3f, subpage: 0xff };
        let sensed = mode_sense(&fields, &unit).unwrap();
        assert_eq!(mode_select(ModeSelectFields { ten, ..SIX }, sensed.bytes(), &unit), Ok(UNIT.current));
    }
}

#[test]
fn other_bits_are_refused_with_a_pointer() {
    for (byte, bit) in [(2_usize, 6), (2, 0), (3, 7), (3, 0), (4, 7), (5, 7), (11, 0)] {
        let mut page = CONTROL;
        page[byte] ^= 1 << bit;
        assert_eq!(select(&with_page(&page)), Err(invalid(4 + byte, bit)), "byte {byte}");
    }
}

/// LBPERE and the threshold descriptor's ENABLED and THRESHOLD COUNT, where there are thresholds.
#[test]
fn thresholds_are_taken() {
    let unit = ModeUnit { thresholds: true, ..UNIT };
    let recovery = |lbpere: u8| [0x01, 10, 0xc0, 0, 0, 0, 0, lbpere, 0, 0, 0, 0];
    let on = mode_select(SIX, &with_page(&recovery(0x80)), &unit).unwrap();
    assert_eq!(on, ModeState { lbpere: true, ..UNIT.current });
    assert_eq!(select(&with_page(&recovery(0x80))), Err(invalid(4 + 7, 7)), "there are none");
    let mut page = [0; 24];
    page[..4].copy_from_slice(&[0x5c, 0x02, 0, 20]);
    page[16..].copy_from_slice(&[0x80, 0x01, 0, 0, 0, 1, 2, 3]);
    let set = mode_select(SIX, &with_page(&page), &unit).unwrap();
    assert_eq!(set.threshold, ModeThreshold { enabled: true, count: 0x0001_0203 });
    assert_eq!(select(&with_page(&page)), Err(invalid(5, 7)), "there is no such subpage");
    for (byte, bit) in [(4, 0), (4, 1), (16, 5), (16, 0), (17, 0), (17, 1), (18, 7)] {
        let mut page = page;
        page[byte] ^= 1 << bit;
        assert_eq!(mode_select(SIX, &with_page(&page), &unit), Err(invalid(4 + byte, bit)), "{byte} {bit}");
    }
}

#[test]
fn nothing_changes_unless_all_is_right() {
    let mut control = CONTROL;
    control[2] |= 0x04;
    let list = [with_page(&control), vec![0x2f, 0]].concat();
    assert_eq!(select(&list), Err(invalid(16, 5)));
}

#[test]
fn pages_must_be_known_and_have_their_length() {
    assert_eq!(select(&with_page(&[0x04, 0x16])), Err(invalid(4, 5)));
    assert_eq!(select(&with_page(&[0x4a, 0x03, 0, 0])), Err(invalid(5, 7)));
    assert_eq!(select(&with_page(&[0x4a, 0x00, 0, 10, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0])), Err(invalid(5, 7)));
    assert_eq!(select(&with_page(&[0x0a, 11])), Err(invalid(5, 7)));
    assert_eq!(select(&with_page(&[0x4a, 0x01, 0, 27])), Err(invalid(6, 7)));
    let page = [[0x4a, 0x01, 0, 28, 0x06].as_slice(), &[0; 27]].concat();
    assert_eq!(select(&with_page(&page)), Ok(UNIT.current));
}

#[test]
fn a_list_that_ends_early() {
    let whole = with_page(&CONTROL);
    for end in (1..4).chain(5..whole.len()) {
        assert_eq!(select(&whole[..end]), Err(TRUNCATED), "{end}");
    }
    assert_eq!(mode_select(TEN, &[0; 7], &UNIT), Err(TRUNCATED));
    assert_eq!(select(&[0, 0, 0, 8, 0, 0, 0]), Err(TRUNCATED));
    assert_eq!(select(&with_page(&[0x4a, 0x01, 0])), Err(TRUNCATED));
}

#[test]
fn block_descriptors_must_agree_with_the_unit() {
    let six = |blocks: u32, length: u32| {
        let [_, l0, l1, l2] = length.to_be_bytes();
        select(&[[0, 0, 0, 8].as_slice(), &blocks.to_be_bytes(), &[0, l0, l1, l2]].concat())
    };
    assert_eq!(six(0x10000, 512), Ok(UNIT.current));
    assert_eq!(six(0, 512), Ok(UNIT.current));
    assert_eq!(six(0xffff_ffff, 512), Ok(UNIT.current));
    assert_eq!(six(0x10001, 512), Err(invalid(4, 7)));
    assert_eq!(six(0, 4096), Err(invalid(9, 7)));
    let long = |blocks: u64, length: u32| {
        let header = [0, 0, 0, 0, 1, 0, 0, 16];
        let list = [header.as_slice(), &blocks.to_be_bytes(), &[0; 4], &length.to_be_bytes()].concat();
        mode_select(TEN, &list, &UNIT)
    };
    assert_eq!(long(0x10000, 512), Ok(UNIT.current));
    assert_eq!(long(1, 512), Err(invalid(8, 7)));
    assert_eq!(long(0, 513), Err(invalid(20, 7)));
    assert_eq!(select(&[&[0, 0, 0, 16], [0; 16].as_slice()].concat()), Err(invalid(3, 7)));
    assert_eq!(mode_select(TEN, &[&[0, 0, 0, 0, 1, 0, 0, 8], [0; 8].as_slice()].concat(), &UNIT), Err(invalid(6, 7)));
}

#[test]
fn the_cdb_must_allow_it() {
    let save = ModeSelectFields { save: true, ..SIX };
    assert_eq!(mode_select(save, &[], &UNIT), Err(Sense::invalid_field_in_cdb(FieldPointer::cdb(1, 0))));
    assert_eq!(mode_select(save, &[], &ModeUnit { saved: Some(UNIT.default), ..UNIT }), Ok(UNIT.current));
    let raw = ModeSelectFields { page_format: false, ..SIX };
    let refused = Sense::invalid_field_in_cdb(FieldPointer::cdb(1, 4));
    assert_eq!(mode_select(raw, &with_page(&CONTROL), &UNIT), Err(refused));
    assert_eq!(select(&[0, 1, 0, 0]), Err(invalid(1, 7)));
    assert_eq!(mode_select(TEN, &[0, 0, 1, 0, 0, 0, 0, 0], &UNIT), Err(invalid(2, 7)));
}

proptest! {
    /// Any bytes are taken or refused; nothing panics.
    #[test]
    fn any_bytes(list in collection::vec(prop_oneof![Just(0), Just(0x0a), Just(0x08), any::<u8>()], 0..80), ten: bool) {
        let fields = ModeSelectFields { ten, ..SIX };
        if let Err(sense) = mode_select(fields, &list, &UNIT) {
            prop_assert_eq!(sense.key, SenseKey::IllegalRequest);
        }
    }
}
