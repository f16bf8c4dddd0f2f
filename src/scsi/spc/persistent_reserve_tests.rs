use super::*;

const PORT_A: TransportId = TransportId([0xaa; 16]);
const PORT_B: TransportId = TransportId(*b"\0\x01\x02\x03\x04\x05\x06\x07\x08\x09\x0a\x0b\x0c\x0d\x0e\x0f");

/// SPC-4 table 207: PRGENERATION, ADDITIONAL LENGTH, keys.
#[test]
fn keys() {
    assert_eq!(read_keys(0x0102_0304, []).bytes(), [1, 2, 3, 4, 0, 0, 0, 0]);
    let data = read_keys(5, [0x1122_3344_5566_7788, 0xabc1]);
    assert_eq!(
        data.bytes(),
        [
            0, 0, 0, 5, 0, 0, 0, 16, //
            0x11, 0x22, 0x33, 0x44, 0x55, 0x66, 0x77, 0x88, //
            0, 0, 0, 0, 0, 0, 0xab, 0xc1,
        ]
    );
    // ADDITIONAL LENGTH is that of all keys, however few the initiator has room for.
    assert_eq!(data.truncated(12), [0, 0, 0, 5, 0, 0, 0, 16, 0x11, 0x22, 0x33, 0x44]);
}

/// SPC-4 tables 208 and 209.
#[test]
fn the_reservation() {
    assert_eq!(read_reservation(7, None).bytes(), [0, 0, 0, 7, 0, 0, 0, 0]);
    assert_eq!(
        read_reservation(7, Some((0xabc1, 0x5))).bytes(),
        [
            0, 0, 0, 7, 0, 0, 0, 16, //
            0, 0, 0, 0, 0, 0, 0xab, 0xc1, //
            0, 0, 0, 0, 0, 0x05, 0, 0,
        ]
    );
}

/// SPC-4 tables 212 to 214: RLR_C, CRH, SIP_C, ATP_C, PTPL_C; TMV, ALLOW COMMANDS 011b, PTPL_A; all six types.
#[test]
fn capabilities() {
    let of = |persists_through_power_loss, persistence_active| {
        report_capabilities(ReservationCapabilities { persists_through_power_loss, persistence_active }).truncated(99)
    };
    assert_eq!(of(false, false), [0, 8, 0b1001_1100, 0b1011_0000, 0b1110_1010, 0b0000_0001, 0, 0]);
    assert_eq!(of(true, false), [0, 8, 0b1001_1101, 0b1011_0000, 0b1110_1010, 0b0000_0001, 0, 0]);
    assert_eq!(of(true, true), [0, 8, 0b1001_1101, 0b1011_0001, 0b1110_1010, 0b0000_0001, 0, 0]);
}

/// SPC-4 tables 215 and 216.
#[test]
fn full_status() {
    assert_eq!(read_full_status(1, []).bytes(), [0, 0, 0, 1, 0, 0, 0, 0]);
    let holder = FullStatus { key: 0xabc1, holds: Some(0x6), port: 1, initiator: PORT_A };
    let registrant = FullStatus { key: 0xabc2, holds: None, port: 0x0102, initiator: PORT_B };
    let data = read_full_status(2, [holder, registrant]);
    let mut expected = vec![0, 0, 0, 2, 0, 0, 0, 96];
    expected.extend([0, 0, 0, 0, 0, 0, 0xab, 0xc1, 0, 0, 0, 0, 0x01, 0x06, 0, 0, 0, 0, 0, 1, 0, 0, 0, 24]);
    expected.extend([0x04, 0, 0, 0, 0, 0, 0, 0]);
    expected.extend([0xaa; 16]);
    expected.extend([0, 0, 0, 0, 0, 0, 0xab, 0xc2, 0, 0, 0, 0, 0x00, 0x00, 0, 0, 0, 0, 1, 2, 0, 0, 0, 24]);
    expected.extend([0x04, 0, 0, 0, 0, 0, 0, 0]);
    expected.extend(0..16);
    assert_eq!(data.bytes(), expected);
}

fn common(flags: u8) -> Vec<u8> {
    let mut list = vec![1, 2, 3, 4, 5, 6, 7, 8, 0x11, 0x12, 0x13, 0x14, 0x15, 0x16, 0x17, 0x18];
    list.extend([0, 0, 0, 0, flags, 0, 0, 0]);
    list
}

fn with_ids(flags: u8, length: u32, ids: &[TransportId]) -> Vec<u8> {
    let mut data = ParameterData::new();
    data.raw(&common(flags)).u32(length);
    ids.iter().for_each(|id| id.write(&mut data));
    data.bytes().to_vec()
}

fn invalid(byte: u16, bit: u8) -> Sense {
    Sense::invalid_field_in_parameter_list(FieldPointer::parameter_list(byte, bit))
}

const LENGTH: Sense = Sense::illegal_request(AdditionalSense::PARAMETER_LIST_LENGTH_ERROR);

/// SPC-4 table 220.
#[test]
fn a_common_list() {
    let plain = ReserveOutList {
        key: 0x0102_0304_0506_0708,
        service_action_key: 0x1112_1314_1516_1718,
        initiators: None,
        all_target_ports: false,
        aptpl: false,
    };
    assert_eq!(reserve_out_list(&common(0), true), Ok(plain.clone()));
    assert_eq!(reserve_out_list(&common(0), false), Ok(plain.clone()));
    let flagged = ReserveOutList { all_target_ports: true, aptpl: true, ..plain.clone() };
    assert_eq!(reserve_out_list(&common(0x05), true), Ok(flagged));
    // Obsolete fields are not looked at.
    let mut list = common(0);
    list[16..20].fill(0xff);
    list[22..24].fill(0xff);
    assert_eq!(reserve_out_list(&list, true), Ok(plain));
}

#[test]
fn transport_ids_follow_a_common_list() {
    let ids = |list: &[u8]| reserve_out_list(list, true).map(|list| list.initiators);
    assert_eq!(ids(&with_ids(0x08, 48, &[PORT_A, PORT_B])), Ok(Some(vec![PORT_A, PORT_B])));
    assert_eq!(ids(&with_ids(0x08, 0, &[])), Ok(Some(vec![])));
    assert_eq!(reserve_out_list(&with_ids(0x08, 24, &[PORT_A]), false), Err(invalid(20, 3)), "only with REGISTER");
    assert_eq!(reserve_out_list(&common(0x08), false), Err(invalid(20, 3)));
    // Another protocol's, in the second place.
    let mut list = with_ids(0x08, 48, &[PORT_A, PORT_B]);
    list[52] = 0x06;
    assert_eq!(ids(&list), Err(invalid(52, 7)));
    list[52] = 0x04;
    list[55] = 1;
    assert_eq!(ids(&list), Err(invalid(55, 7)));
}

#[test]
fn lists_of_a_wrong_length() {
    for length in 0..24 {
        assert_eq!(reserve_out_list(&common(0)[..length], true), Err(LENGTH), "{length}");
        assert_eq!(register_and_move_list(&common(0)[..length]), Err(LENGTH), "{length}");
    }
    assert_eq!(reserve_out_list(&[&common(0)[..], &[0]].concat(), true), Err(LENGTH));
    assert_eq!(reserve_out_list(&common(0x08), true), Err(LENGTH), "no TRANSPORTID PARAMETER DATA LENGTH");
    for (length, ids) in [(0, 1), (23, 1), (25, 1), (48, 1), (24, 0), (24, 2), (u32::MAX, 1)] {
        let list = with_ids(0x08, length, &[PORT_A; 2][..ids]);
        assert_eq!(reserve_out_list(&list, true), Err(LENGTH), "{length} {ids}");
    }
    // The length is that of the list, but no number of TransportIDs.
    let mut list = with_ids(0x08, 30, &[PORT_A]);
    list.extend([0x04, 0, 0, 0, 0, 0]);
    assert_eq!(reserve_out_list(&list, true), Err(invalid(24, 7)));
}

#[test]
fn reserved_bits_of_a_common_list() {
    for bit in [1, 4, 5, 6, 7] {
        assert_eq!(reserve_out_list(&common(1 << bit), true), Err(invalid(20, bit)));
    }
    for bit in 0..8 {
        let mut list = common(0);
        list[21] = 1 << bit;
        assert_eq!(reserve_out_list(&list, true), Err(invalid(21, bit)));
    }
}

fn moving(flags: u8) -> Vec<u8> {
    let mut data = ParameterData::new();
    data.u64(0x0102_0304_0506_0708).u64(0x1112_1314_1516_1718).u8(0).u8(flags).u16(0x0203).u32(24);
    PORT_B.write(&mut data);
    data.bytes().to_vec()
}

/// SPC-4 table 221.
#[test]
fn a_list_of_register_and_move() {
    let plain = RegisterAndMoveList {
        key: 0x0102_0304_0506_0708,
        service_action_key: 0x1112_1314_1516_1718,
        unregister: false,
        aptpl: false,
        port: 0x0203,
        initiator: PORT_B,
    };
    assert_eq!(moving(0).len(), 48);
    assert_eq!(register_and_move_list(&moving(0)), Ok(plain));
    assert_eq!(register_and_move_list(&moving(1)), Ok(RegisterAndMoveList { aptpl: true, ..plain }));
    assert_eq!(register_and_move_list(&moving(2)), Ok(RegisterAndMoveList { unregister: true, ..plain }));
    for bit in 2..8 {
        assert_eq!(register_and_move_list(&moving(1 << bit)), Err(invalid(17, bit)));
    }
    let with = |at: usize, byte| {
        let mut list = moving(0);
        list[at] = byte;
        register_and_move_list(&list)
    };
    assert_eq!(with(16, 0x40), Err(invalid(16, 6)));
    assert_eq!(with(24, 0x05), Err(invalid(24, 7)), "another protocol");
    assert_eq!(with(27, 1), Err(invalid(27, 7)));
    assert_eq!(with(23, 23), Err(LENGTH));
    assert_eq!(register_and_move_list(&moving(0)[..47]), Err(LENGTH));
    // No TransportID, and two.
    let mut list = moving(0);
    list.truncate(24);
    list[23] = 0;
    assert_eq!(register_and_move_list(&list), Err(invalid(20, 7)));
    let mut list = moving(0);
    list.extend_from_within(24..);
    list[23] = 48;
    assert_eq!(register_and_move_list(&list), Err(invalid(20, 7)));
}

proptest::proptest! {
    /// Any list parses or is refused; nothing panics.
    #[test]
    fn any_list(list in proptest::collection::vec(0..=9_u8, 0..100), register: bool) {
        let _ = (reserve_out_list(&list, register).is_ok(), register_and_move_list(&list).is_ok());
    }
}
