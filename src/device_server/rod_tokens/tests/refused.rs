//! What is refused, and how.

use super::*;
use crate::mem::{Direction, IoBuf};
use crate::scsi::Status;
use proptest::collection;
use proptest::prelude::*;

#[test]
fn lists_too_short() {
    let p = Pair::new();
    let token = token(&p.a, &[(0, 4)]);
    let (from, to) = (populate_list(0, 0, &[(0, 1), (5, 1)]), write_list(0, 0, &token, &[(0, 1), (5, 1)]));
    for length in [1, 15] {
        assert_eq!(p.a.data_out(&out_cdb(0x10, 1, length), &from), check(illegal(0x1a00)));
    }
    for length in [1, 15, 535] {
        assert_eq!(p.b.data_out(&out_cdb(0x11, 1, length), &to), check(illegal(0x1a00)));
    }
    // Descriptors that the list cuts off are ignored.
    for (length, blocks) in [(31, 0), (32, 1), (47, 1), (48, 2)] {
        assert_eq!(p.a.data_out(&out_cdb(0x10, 1, length), &from), good(u64::from(length)));
        assert_eq!(status(&p.a, 1).2, blocks);
    }
    for (length, blocks) in [(551, 0), (552, 1), (567, 1), (568, 2)] {
        assert_eq!(p.b.data_out(&out_cdb(0x11, 1, length), &to), good(u64::from(length)));
        assert_eq!(status(&p.b, 1).2, blocks);
    }
    // The buffer must hold the list, and go the right way.
    assert_eq!(p.a.data_out(&out_cdb(0x10, 9, 48), &from[..47]), good(48), "overflow");
    assert_eq!(p.b.data_out(&out_cdb(0x11, 9, 1 << 31), &to), good(1 << 31), "overflow");
    assert!(p.a.data_in(&out_cdb(0x10, 9, 48), 48).answer.transferred > 48);
    assert!(p.a.itl.copy_operations().find(9).is_none() && p.b.itl.copy_operations().find(9).is_none());
}

#[test]
fn fields_of_the_lists() {
    let p = Pair::new();
    let token = token(&p.a, &[(0, 4)]);
    let populated = |change: &dyn Fn(&mut [u8])| {
        let mut data = populate_list(0, 0, &[(0, 1), (5, 1)]);
        change(&mut data);
        p.a.data_out(&out_cdb(0x10, 1, 48), &data)
    };
    assert_eq!(populated(&|data| data[1] = 29), check(invalid(0)));
    assert_eq!(populated(&|data| data[15] = 15), check(invalid(14)));
    assert_eq!(populated(&|data| data[4..8].copy_from_slice(&3600_u32.to_be_bytes())), good(48));
    assert_eq!(populated(&|data| data[4..8].copy_from_slice(&3601_u32.to_be_bytes())), check(invalid(4)));
    assert_eq!(populated(&|data| (data[2], data[9]) = (2, 0x01)), check(invalid(8)), "access upon reference");
    assert_eq!(populated(&|data| (data[2], data[9], data[11]) = (2, 0x80, 2)), check(invalid(8)), "persistent");
    assert_eq!(populated(&|data| data[39] = 0), check(invalid(32)), "a block twice");
    let out = |byte| check(Sense::lba_out_of_range(FieldPointer::parameter_list(byte, 7)));
    assert_eq!(populated(&|data| data[39] = 100), out(32));
    assert_eq!(populated(&|data| data[27] = 101), out(16));
    let written = |change: &dyn Fn(&mut [u8])| {
        let mut data = write_list(0, 0, &token, &[(0, 1), (5, 1)]);
        change(&mut data);
        p.b.data_out(&out_cdb(0x11, 1, 568), &data)
    };
    assert_eq!(written(&|data| (data[0], data[1]) = (0x02, 0x25)), check(invalid(0)));
    assert_eq!(written(&|data| data[535] = 15), check(invalid(534)));
    assert_eq!(written(&|data| data[559] = 0), check(invalid(552)), "a block twice");
    assert_eq!(written(&|data| data[559] = 100), out(552));
    assert_eq!(written(&|data| data[16] = 0xff), check(illegal(0x2301)));
    assert_eq!(written(&|data| data[23] = 0xf9), check(illegal(0x230a)));
    assert_eq!(p.b.image.calls(), []);
}

#[test]
fn limits() {
    let p = Pair::new();
    let ranges: Vec<(u64, u32)> = (0..257).map(|_| (0, 0)).collect();
    assert_eq!(populate(&p.a, 1, &ranges), check(illegal(0x2608)));
    assert_eq!(write(&p.a, 1, &zero_token(), &ranges), check(illegal(0x2608)));
    assert_eq!(populate(&p.a, 1, &ranges[1..]), good(16 + 16 * 256));
    // 16 GiB are 2^25 blocks.
    let big = Bench::new(MemImage::new(512).claiming(1 << 40));
    assert_eq!(populate(&big, 1, &[(0, 1 << 25)]), good(32));
    assert_eq!(populate(&big, 1, &[(0, 1), (1, 1 << 25)]), check(invalid(40)));
    assert_eq!(write(&big, 1, &zero_token(), &[(0, (1 << 25) + 1)]), check(invalid(544)));
    assert_eq!(
        write(&big, 1, &zero_token(), &[(1 << 31, 1)]),
        check(Sense::lba_out_of_range(FieldPointer::parameter_list(536, 7)))
    );
}

#[test]
fn what_may_not_be_written() {
    let read_only = Pair::with(MemImage::patterned(51_200), MemImage::new(51_200), |setup| setup.read_only = true);
    let source = token(&read_only.a, &[(0, 4)]);
    let protected = Sense::data_protect(AdditionalSense(0x2700));
    assert_eq!(write(&read_only.b, 1, &source, &[(0, 4)]), check(protected));
    assert_eq!(write(&read_only.b, 1, &zero_token(), &[(0, 4)]), check(protected));
    let from_it = token(&read_only.b, &[(0, 4)]);
    assert_eq!(write(&read_only.a, 1, &from_it, &[(50, 4)]), good(552), "it may be read");
}

/// The parameter list is the initiator's to change; what is checked is what is used.
#[test]
fn usage_bits() {
    for cdb in [out_cdb(0x10, 1, 0), out_cdb(0x11, 1, 0)] {
        let mut grouped = cdb;
        grouped[14] = 0x1f;
        assert_eq!(Pair::new().a.none(&grouped), good(0), "GROUP NUMBER");
        for byte in [2, 3, 4, 5] {
            let mut stray = cdb;
            stray[byte] = 0x01;
            assert_eq!(
                Pair::new().a.none(&stray),
                check(Sense::invalid_field_in_cdb(FieldPointer::cdb(byte as u16, 0)))
            );
        }
    }
    for cdb in [in_cdb(0x05, 1, 0), in_cdb(0x07, 1, 0)] {
        for byte in [6, 7, 8, 9, 14] {
            let mut stray = cdb;
            stray[byte] = 0x80;
            assert_eq!(
                Pair::new().a.none(&stray),
                check(Sense::invalid_field_in_cdb(FieldPointer::cdb(byte as u16, 7)))
            );
        }
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(256))]

    /// Whatever the list, the command is answered, and a unit is not written behind its end.
    #[test]
    fn any_list(
        service_action in 0x10_u8..=0x11,
        list in collection::vec(prop_oneof![6 => Just(0), 1 => Just(0xff), 2 => any::<u8>()], 0..640),
        lengths in (0..80_u16, 0..80_u16),
        kind in 0..4,
        length in 0..700_u32,
    ) {
        let p = Pair::new();
        let mut list = list;
        if list.len() > 552 {
            let known = token(&p.b, &[(0, 7)]);
            let (header, token) = if service_action == 0x10 { (14, None) } else { (534, Some(if kind == 1 { zero_token() } else { known })) };
            list[..2].copy_from_slice(&(header + 16 + lengths.0).to_be_bytes());
            list[usize::from(header)..][..2].copy_from_slice(&lengths.1.to_be_bytes());
            if kind > 0 && let Some(token) = token {
                list[16..528].copy_from_slice(&token);
                list[8..16].fill(0);
            }
            if kind == 3 {
                list[2..usize::from(header)].iter_mut().take(14).for_each(|byte| *byte &= 1);
            }
        }
        let mut buf = IoBuf::owned(list.len(), Direction::Out);
        buf.write_at(0, &list);
        let ran = p.a.run(&out_cdb(service_action, 1, length), buf);
        prop_assert!(matches!(ran.answer.status, Status::Good | Status::CheckCondition));
        prop_assert_eq!(p.a.image.bytes().len(), 51_200);
        information(&p.a, 1);
    }
}
