use super::*;

const UNIT: ModeUnit = ModeUnit {
    current: ModeState { d_sense: true, ..ModeState::DEFAULT },
    default: ModeState::DEFAULT,
    saved: None,
    write_protected: false,
    dpo_fua: true,
    blocks: 0x0001_0000,
    block_length: 512,
    thresholds: false,
    self_test_seconds: 0x0102,
};

fn fields(page: u8, subpage: u8) -> ModeSenseFields {
    ModeSenseFields { ten: false, llbaa: false, dbd: true, control: PageControl::Current, page, subpage }
}

fn pages(control: PageControl, page: u8, subpage: u8) -> Vec<u8> {
    let data = mode_sense(&ModeSenseFields { control, ..fields(page, subpage) }, &UNIT).unwrap();
    data.bytes()[4..].to_vec()
}

/// SPC-4 tables 376 and 377.
#[test]
fn headers() {
    let six = mode_sense(&fields(0x1c, 0), &UNIT).unwrap();
    assert_eq!(six.bytes()[..5], [15, 0, 0x10, 0, 0x1c]);
    assert_eq!(six.len(), 16);
    let ten = mode_sense(&ModeSenseFields { ten: true, ..fields(0x1c, 0) }, &UNIT).unwrap();
    assert_eq!(ten.bytes()[..9], [0, 18, 0, 0x10, 0, 0, 0, 0, 0x1c]);
    let protected = ModeUnit { write_protected: true, dpo_fua: false, ..UNIT };
    assert_eq!(mode_sense(&fields(0x1c, 0), &protected).unwrap().bytes()[2], 0x80);
}

/// SBC-3 tables 128 and 129.
#[test]
fn block_descriptors() {
    let short = ModeSenseFields { dbd: false, llbaa: true, ..fields(0x08, 0) };
    let six = mode_sense(&short, &UNIT).unwrap();
    assert_eq!(six.bytes()[3..13], [8, 0, 1, 0, 0, 0, 0, 2, 0, 0x08]);
    let large = ModeUnit { blocks: 1 << 32, block_length: 4096, ..UNIT };
    let six = mode_sense(&short, &large).unwrap();
    assert_eq!(six.bytes()[3..12], [8, 0xff, 0xff, 0xff, 0xff, 0, 0, 0x10, 0]);
    let ten = mode_sense(&ModeSenseFields { ten: true, ..short }, &large).unwrap();
    assert_eq!(
        ten.bytes()[..25],
        [0, 42, 0, 0x10, 1, 0, 0, 16, 0, 0, 0, 1, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0x10, 0, 0x08]
    );
    let ten = mode_sense(&ModeSenseFields { ten: true, llbaa: false, ..short }, &large).unwrap();
    assert_eq!(ten.bytes()[4..9], [0, 0, 0, 8, 0xff]);
}

#[test]
fn control_page() {
    assert_eq!(pages(PageControl::Current, 0x0a, 0), [0x0a, 10, 0x26, 0x10, 0, 0, 0, 0, 0, 0, 1, 2]);
    assert_eq!(pages(PageControl::Default, 0x0a, 0), [0x0a, 10, 0x22, 0x10, 0, 0, 0, 0, 0, 0, 1, 2]);
    let changeable = [0x0a, 10, 0x24, 0x06, 0x38, 0x40, 0, 0, 0, 0, 0, 0];
    assert_eq!(pages(PageControl::Changeable, 0x0a, 0), changeable, "TST, D_SENSE; QERR; UA_INTLCK_CTRL, SWP; TAS");
    let all = ModeState { d_sense: true, swp: true, tst: 0, qerr: 3, ua_intlck: 2, tas: true, ..ModeState::DEFAULT };
    let all = ModeUnit { current: all, ..UNIT };
    let data = mode_sense(&fields(0x0a, 0), &all).unwrap();
    assert_eq!(data.bytes()[4..], [0x0a, 10, 0x06, 0x16, 0x28, 0x40, 0, 0, 0, 0, 1, 2]);
    let protected = ModeUnit { current: ModeState { swp: true, ..UNIT.current }, ..UNIT };
    assert_eq!(mode_sense(&fields(0x0a, 0), &protected).unwrap().bytes()[8], 0x08);
}

#[test]
fn caching_page() {
    let mut page = vec![0; 20];
    (page[0], page[1], page[2]) = (0x08, 18, 0x04);
    assert_eq!(pages(PageControl::Current, 0x08, 0), page);
    assert_eq!(pages(PageControl::Changeable, 0x08, 0), page);
    let through = ModeUnit { current: ModeState { wce: false, ..UNIT.current }, ..UNIT };
    assert_eq!(mode_sense(&fields(0x08, 0), &through).unwrap().bytes()[6], 0);
}

#[test]
fn the_other_pages() {
    assert_eq!(pages(PageControl::Current, 0x01, 0), [0x01, 10, 0xc0, 0, 0, 0, 0, 0, 0, 0, 0, 0]);
    assert_eq!(pages(PageControl::Current, 0x1c, 0), [0x1c, 10, 0x08, 0, 0, 0, 0, 0, 0, 0, 0, 0]);
    let power = pages(PageControl::Current, 0x1a, 0);
    assert_eq!((power.len(), &power[..2]), (40, &[0x1a, 38][..]));
    let extension = pages(PageControl::Current, 0x0a, 1);
    assert_eq!((extension.len(), &extension[..5]), (32, &[0x4a, 1, 0, 28, 0x06][..]));
    for page in [0x01, 0x1a, 0x1c] {
        assert!(pages(PageControl::Changeable, page, 0)[2..].iter().all(|byte| *byte == 0));
    }
}

/// SBC-3 6.5.9: the Logical Block Provisioning page, which is there where there are thresholds.
#[test]
fn thresholds() {
    let threshold = ModeThreshold { enabled: true, count: 0x0102_0304 };
    let unit = ModeUnit { thresholds: true, current: ModeState { lbpere: true, threshold, ..UNIT.default }, ..UNIT };
    let page = |control, page, subpage| {
        let data = mode_sense(&ModeSenseFields { control, ..fields(page, subpage) }, &unit).unwrap();
        data.bytes()[4..].to_vec()
    };
    let now = page(PageControl::Current, 0x1c, 2);
    assert_eq!(now[..16], [0x5c, 0x02, 0, 20, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0]);
    assert_eq!(now[16..], [0x80, 0x01, 0, 0, 1, 2, 3, 4]);
    assert_eq!(page(PageControl::Default, 0x1c, 2)[16..], [0x00, 0x01, 0, 0, 0, 0, 0, 0]);
    assert_eq!(page(PageControl::Changeable, 0x1c, 2)[4..16], [0; 12]);
    assert_eq!(page(PageControl::Changeable, 0x1c, 2)[16..], [0x80, 0, 0, 0, 0xff, 0xff, 0xff, 0xff]);
    assert_eq!(page(PageControl::Current, 0x01, 0), [0x01, 10, 0xc0, 0, 0, 0, 0, 0x80, 0, 0, 0, 0]);
    assert_eq!(page(PageControl::Changeable, 0x01, 0), [0x01, 10, 0, 0, 0, 0, 0, 0x80, 0, 0, 0, 0]);
    assert_eq!(page(PageControl::Current, 0x3f, 0xff).len(), 12 + 20 + 12 + 32 + 40 + 12 + 24);
    let none = mode_sense(&fields(0x1c, 2), &UNIT);
    assert_eq!(none, Err(Sense::invalid_field_in_cdb(FieldPointer::cdb(3, 7))));
}

/// SPC-4 table 174.
#[test]
fn many_pages_at_once() {
    let sizes = |page, subpage| pages(PageControl::Current, page, subpage).len();
    assert_eq!(sizes(0x3f, 0x00), 12 + 20 + 12 + 40 + 12);
    assert_eq!(sizes(0x3f, 0xff), 12 + 20 + 12 + 32 + 40 + 12);
    assert_eq!(sizes(0x0a, 0xff), 12 + 32);
    assert_eq!(sizes(0x08, 0xff), 20);
    let all = mode_sense(&ModeSenseFields { dbd: false, ..fields(0x3f, 0xff) }, &UNIT).unwrap();
    assert_eq!(usize::from(all.bytes()[0]), all.len() - 1);
}

#[test]
fn what_is_not_there() {
    let refused = |page, subpage| mode_sense(&fields(page, subpage), &UNIT).unwrap_err();
    let at = |byte, bit| Sense::invalid_field_in_cdb(FieldPointer::cdb(byte, bit));
    assert_eq!(refused(0x00, 0), at(2, 5));
    assert_eq!(refused(0x04, 0xff), at(2, 5));
    assert_eq!(refused(0x0a, 2), at(3, 7));
    assert_eq!(refused(0x3f, 1), at(3, 7));
    assert_eq!(refused(0x3f, 0xfe), at(3, 7));
}

#[test]
fn saved_values() {
    let saved = ModeSenseFields { control: PageControl::Saved, ..fields(0x08, 0) };
    let refused = Sense::illegal_request(AdditionalSense::SAVING_PARAMETERS_NOT_SUPPORTED);
    assert_eq!(mode_sense(&saved, &UNIT), Err(refused));
    let unit = ModeUnit { saved: Some(ModeState { wce: false, ..UNIT.default }), ..UNIT };
    assert_eq!(mode_sense(&saved, &unit).unwrap().bytes()[4..7], [0x88, 18, 0]);
    assert_eq!(mode_sense(&fields(0x0a, 1), &unit).unwrap().bytes()[4], 0xca);
}
