//! Each command's good form, byte by byte.

use super::*;
use crate::device_server::Plan;
use crate::device_server::testkit::{Call, out_buf, pattern};
use crate::lu::{Attention, Extent};

/// Blocks 15–20 and 40–41 of one unit, to blocks 50–57 of another, as the standards write it down.
#[test]
fn from_bytes_to_bytes() {
    let p = Pair::new();
    let list = [
        0, 46, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 32, //
        0, 0, 0, 0, 0, 0, 0, 15, 0, 0, 0, 6, 0, 0, 0, 0, //
        0, 0, 0, 0, 0, 0, 0, 40, 0, 0, 0, 2, 0, 0, 0, 0,
    ];
    let cdb = [0x83, 0x10, 0, 0, 0, 0, 0xca, 0xfe, 0xba, 0xbe, 0, 0, 0, 48, 0, 0];
    assert_eq!(p.a.data_out(&cdb, &list), good(48));
    assert_eq!(p.a.image.calls(), [], "nothing is read");

    let ran = p.a.data_in(&[0x84, 0x07, 0xca, 0xfe, 0xba, 0xbe, 0, 0, 0, 0, 0, 0, 4, 0, 0, 0], 1024);
    assert_eq!(ran.answer, good(550));
    assert_eq!(
        ran.data[..38],
        [
            0, 0, 0x02, 0x22, 0x10, 0x01, 0, 1, 0xff, 0xff, 0xff, 0xfe, 0, 0, 0, 0xf1, //
            0, 0, 0, 0, 0, 0, 0, 8, 0, 0, 0, 0, 0, 0, 0, 0, //
            0, 0, 0x02, 0x02, 0, 0,
        ]
    );
    let token: [u8; 512] = ran.data[38..550].try_into().unwrap();
    assert_eq!(token[..8], [0, 0x80, 0, 1, 0, 0, 0x01, 0xf8]);
    assert_eq!(token[16..32], [0xe4, 0, 0, 0, 1, 3, 0, 8, 0x31, 0x23, 0x45, 0x67, 0x89, 0xab, 0xcd, 0xef]);
    assert_eq!(token[44..64], [0, 0, 2, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0x10, 0], "8 blocks of 512");

    let mut list = vec![0x02, 0x26, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0];
    list.extend(token);
    list.extend([0, 0, 0, 0, 0, 0, 0, 16, 0, 0, 0, 0, 0, 0, 0, 50, 0, 0, 0, 8, 0, 0, 0, 0]);
    let cdb = [0x83, 0x11, 0, 0, 0, 0, 0, 0, 0, 1, 0, 0, 0x02, 0x28, 0, 0];
    assert_eq!(p.b.data_out(&cdb, &list), good(552));
    let bytes = p.b.image.bytes();
    assert_eq!(bytes[50 * 512..56 * 512], pattern(15 * 512, 6 * 512));
    assert_eq!(bytes[56 * 512..58 * 512], pattern(40 * 512, 2 * 512));
    assert!(bytes[..50 * 512].iter().chain(&bytes[58 * 512..]).all(|byte| *byte == 0xff));
    assert_eq!(p.a.image.bytes(), pattern(0, 51_200));

    let ran = p.b.data_in(&[0x84, 0x07, 0, 0, 0, 1, 0, 0, 0, 0, 0, 0, 0, 36, 0, 0], 36);
    assert_eq!(ran.answer, good(36));
    assert_eq!(
        ran.data,
        [
            0, 0, 0, 32, 0x11, 0x01, 0, 2, 0xff, 0xff, 0xff, 0xfe, 0, 0, 0, 0xf1, //
            0, 0, 0, 0, 0, 0, 0, 8, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0,
        ]
    );
    let ran = p.b.data_in(&[0x84, 0x05, 0, 0, 0, 1, 0, 0, 0, 0, 0, 0, 0, 64, 0, 0], 64);
    assert_eq!((ran.answer, &ran.data[..6]), (good(32), &[0, 0, 0, 28, 0x11, 0x01][..]));
}

#[test]
fn nothing_asked_for_is_nothing_done() {
    let p = Pair::new();
    assert_eq!(p.a.none(&out_cdb(0x10, 1, 0)), good(0));
    assert_eq!(p.a.none(&out_cdb(0x11, 1, 0)), good(0));
    assert!(p.a.itl.copy_operations().find(1).is_none());
    assert_eq!(populate(&p.a, 1, &[(5, 0), (100, 0)]), good(48));
    let ran = information(&p.a, 1);
    assert_eq!((ran.answer, ran.data[5], &ran.data[32..36]), (good(36), 0x01, &[0; 4][..]), "and no token");
    let token = token(&p.a, &[(0, 4)]);
    assert_eq!(write(&p.b, 2, &token, &[(5, 0)]), good(552));
    assert_eq!(status(&p.b, 2), (0x01, 0, 0));
    assert_eq!(p.b.image.calls(), []);
}

/// It holds everything between its first and its last block while the token is made.
#[test]
fn populate_is_exclusive() {
    let p = Pair::new();
    let data = populate_list(0, 0, &[(40, 2), (15, 6), (30, 1)]);
    let cdb = out_cdb(0x10, 1, data.len() as u32);
    let mut buf = out_buf(&data);
    let Plan::Exclusive(exclusive) = p.a.plan(&cdb, &mut buf) else { panic!("exclusive") };
    assert_eq!(exclusive.extent, Extent { offset: 15 * 512, len: 27 * 512 });
    assert!(p.a.itl.copy_operations().find(1).is_none() && !p.a.itl.lu().is_watched(), "planned is not done");
}

#[test]
fn write_uses_what_it_writes() {
    let p = Pair::new();
    let data = write_list(0, 0, &token(&p.a, &[(0, 10)]), &[(40, 2), (15, 6)]);
    let cdb = out_cdb(0x11, 1, data.len() as u32);
    let mut buf = out_buf(&data);
    let Plan::Copy(copy) = p.b.plan(&cdb, &mut buf) else { panic!("a copy") };
    let extents: Vec<Extent> = copy.uses.iter().map(|of| of.extent).collect();
    assert_eq!(extents, [Extent { offset: 40 * 512, len: 1024 }, Extent { offset: 15 * 512, len: 3072 }]);
    assert!(copy.uses.iter().all(|of| Arc::ptr_eq(&of.itl, &p.b.itl)));
}

#[test]
fn allocation_lengths() {
    let p = Pair::new();
    populate(&p.a, 1, &[(0, 1)]);
    for length in [1, 4, 32, 36, 549] {
        let ran = p.a.data_in(&in_cdb(0x07, 1, length), length as usize);
        assert_eq!((ran.answer, ran.data[0]), (good(u64::from(length)), 0));
    }
    assert_eq!(p.a.data_in(&in_cdb(0x07, 1, 550), 549).answer, good(550), "overflow: the token stays");
    let first = fetch(&p.a, 1);
    assert_eq!(first[..4], [0, 0x80, 0, 1]);
    let ran = information(&p.a, 1);
    assert_eq!((ran.answer, ran.data[5], ran.data[35]), (good(36), 0x01, 0), "it is told once");
    populate(&p.a, 2, &[(0, 1)]);
    assert_eq!(p.a.none(&in_cdb(0x07, 2, 0)), good(0));
    assert_eq!(information(&p.a, 2).answer, good(36), "nobody wanted it");
    for length in [0, 1, 31, 32, 33] {
        let ran = p.a.data_in(&in_cdb(0x05, 2, length), 64);
        assert_eq!(ran.answer, good(u64::from(length.min(32))));
        assert!(ran.data[length.min(32) as usize..].iter().all(|byte| *byte == 0xee));
    }
}

/// SPC-4 5.17.4.2, 6.24, 6.26: a nexus's own, until it is lost or the unit is reset.
#[test]
fn whose_list_identifiers() {
    let p = Pair::new();
    let second = other(&p.a);
    populate(&p.a, 1, &[(0, 1)]);
    let unknown = check(Sense::invalid_field_in_cdb(FieldPointer::cdb(2, 7)));
    for cdb in [in_cdb(0x07, 1, 1024), in_cdb(0x05, 1, 1024)] {
        assert_eq!(second.data_in(&cdb, 1024).answer, unknown);
    }
    assert_eq!(p.a.data_in(&in_cdb(0x07, 2, 1024), 1024).answer, unknown);
    populate(&second, 1, &[(0, 2)]);
    assert_eq!((status(&p.a, 1).2, status(&second, 1).2), (1, 2));
    populate(&p.a, 1, &[(0, 3)]);
    assert_eq!(status(&p.a, 1).2, 3, "the last one of that identifier");

    p.a.itl.lose_nexus();
    p.a.itl.gate().clear_attention(Attention::NexusLoss);
    assert_eq!(information(&p.a, 1).answer, unknown);
    assert_eq!(status(&second, 1).2, 2);
    let kept = fetch(&second, 1);
    p.a.itl.lu().reset();
    for bench in [&p.a, &second] {
        bench.itl.gate().clear_attention(Attention::LogicalUnitReset);
        assert_eq!(information(bench, 1).answer, unknown);
    }
    assert_eq!(write(&p.b, 1, &kept, &[(0, 2)]), good(552), "tokens outlive a reset");
}

/// SPC-4 5.17.4.2.
#[test]
fn an_identifier_in_use() {
    let p = Pair::new();
    let token = token(&p.a, &[(0, 1)]);
    let run = p.b.itl.copy_operations().begin(9, 0x11).unwrap();
    let in_progress = check(illegal(0x0016));
    assert_eq!(write(&p.b, 9, &token, &[(0, 1)]), in_progress);
    assert_eq!(populate(&p.b, 9, &[(0, 1)]), in_progress);
    assert_eq!(populate(&p.b, 9, &[(0, 0)]), in_progress);
    assert_eq!(status(&p.b, 9), (0x11, 0, 0));
    assert_eq!(information(&p.b, 9).answer, good(36));
    drop(run);
    assert_eq!(status(&p.b, 9), (0x60, 0x40, 0));
    assert_eq!(write(&p.b, 9, &token, &[(0, 1)]), good(552));
}

/// SBC-3 4.28.4.
#[test]
fn zeros() {
    let p = Pair::new();
    assert_eq!(
        write_with(&p.b, 1, 2, u64::MAX, &zero_token(), &[(10, 3), (50, 50)]),
        good(568),
        "no offset, and DEL_TKN"
    );
    let bytes = p.b.image.bytes();
    assert_eq!((&bytes[5120..6656], &bytes[25_600..]), (&[0; 1536][..], &[0; 25_600][..]));
    assert!(bytes[..5120].iter().chain(&bytes[6656..25_600]).all(|byte| *byte == 0xff));
    assert_eq!(p.b.image.calls(), [Call::WriteZeroes(5120, 1536, false), Call::WriteZeroes(25_600, 25_600, false)]);
    assert_eq!(status(&p.b, 1), (0x01, 0, 53));
    let mut odd = zero_token();
    odd[8..].fill(0x5a);
    assert_eq!(write(&p.b, 1, &odd, &[(0, 1)]), good(552), "only type and length mean something");
}

/// RTV and ROD TYPE; IMMED.
#[test]
fn flags_of_populate() {
    let p = Pair::new();
    for (flags, rod_type, made) in [(2, 0x0080_0000_u32, 0), (2, 0x0080_0001, 1), (2, 0x0080_ffff, 1), (1, 7, 1)] {
        let mut data = populate_list(flags, 5, &[(0, 1)]);
        data[8..12].copy_from_slice(&rod_type.to_be_bytes());
        assert_eq!(p.a.data_out(&out_cdb(0x10, 1, 32), &data), good(32));
        let token = fetch(&p.a, 1);
        assert_eq!(token[..4], [0, 0x80, 0, made]);
        assert_eq!(write(&p.b, 1, &token, &[(0, 1)]), good(552));
    }
}
