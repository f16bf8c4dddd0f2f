//! Parameter lists byte by byte.
#![allow(clippy::unwrap_used, reason = "test code")]

use super::*;
use proptest::collection;
use proptest::prelude::*;

const LIMITS: TokenLimits = TokenLimits {
    descriptors: 3,
    maximum_inactivity: 1000,
    default_inactivity: 30,
    blocks: 100,
    optimal_blocks: 10,
    capacity: 1000,
};

/// Block device range descriptors (SBC-3 table 73).
fn descriptors(ranges: &[(u64, u32)]) -> Vec<u8> {
    ranges.iter().flat_map(|(lba, blocks)| [&lba.to_be_bytes()[..], &blocks.to_be_bytes(), &[0; 4]].concat()).collect()
}

fn populate(flags: u8, inactivity: u32, rod_type: u32, ranges: &[(u64, u32)]) -> Vec<u8> {
    let length = 16 * ranges.len() as u16;
    let mut list = (14 + length).to_be_bytes().to_vec();
    list.extend([flags, 0]);
    list.extend([inactivity.to_be_bytes(), rod_type.to_be_bytes()].concat());
    list.extend([0, 0]);
    list.extend(length.to_be_bytes());
    list.extend(descriptors(ranges));
    list
}

fn write(flags: u8, offset: u64, token: u8, ranges: &[(u64, u32)]) -> Vec<u8> {
    let length = 16 * ranges.len() as u16;
    let mut list = (534 + length).to_be_bytes().to_vec();
    list.extend([flags, 0, 0, 0, 0, 0]);
    list.extend(offset.to_be_bytes());
    list.extend([token; 512]);
    list.extend([0; 6]);
    list.extend(length.to_be_bytes());
    list.extend(descriptors(ranges));
    list
}

fn extent(lba: u64, blocks: u64) -> Extent {
    Extent { lba, blocks }
}

fn at(byte: u16) -> Sense {
    Sense::illegal_request(AdditionalSense(0x2600)).with_field(FieldPointer { in_cdb: false, byte, bit: Some(7) })
}

/// SBC-3 tables 72 and 73.
#[test]
fn populate_two_ranges() {
    let bytes = [
        0, 46, 0x01, 0, 0, 0, 0, 7, 0, 0, 0, 0, 0, 0, 0, 32, //
        0, 0, 0, 0, 0, 0, 0, 20, 0, 0, 0, 5, 0, 0, 0, 0, //
        0, 0, 0, 0, 0, 0, 0, 10, 0, 0, 0, 2, 0, 0, 0, 0,
    ];
    let ranges = vec![extent(20, 5), extent(10, 2)];
    let what = PopulateToken { rod_type: 0x0080_0001, inactivity: 7, ranges };
    assert_eq!(populate_token(&bytes, &LIMITS), Ok(Immediate { immed: true, what }));
    assert_eq!(populate(1, 7, 0, &[(20, 5), (10, 2)]), bytes);
}

/// SBC-3 table 159.
#[test]
fn write_one_range() {
    let mut bytes = vec![0x02, 0x26, 0x02, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 1, 2];
    bytes.extend([0xab; 512]);
    bytes.extend([0, 0, 0, 0, 0, 0, 0, 16]);
    bytes.extend([0, 0, 0, 0, 0, 0, 3, 0xe7, 0, 0, 0, 1, 0, 0, 0, 0]);
    let token = RodToken::received(&[0xab; 512]);
    let what = WriteUsingToken { delete: true, offset: 0x0102, token, ranges: vec![extent(999, 1)], fields: vec![536] };
    assert_eq!(write_using_token(&bytes, &LIMITS), Ok(Immediate { immed: false, what }));
    assert_eq!(write(2, 0x0102, 0xab, &[(999, 1)]), bytes);
    bytes[2] = 0x01;
    let read = write_using_token(&bytes, &LIMITS).unwrap();
    assert_eq!((read.immed, read.what.delete), (true, false));
}

#[test]
fn rod_types() {
    let made =
        |flags, rod_type| populate_token(&populate(flags, 0, rod_type, &[(0, 1)]), &LIMITS).map(|r| r.what.rod_type);
    assert_eq!(made(0, 0x0001_0000), Ok(0x0080_0001), "RTV zero");
    assert_eq!(made(2, 0x0080_0000), Ok(0x0080_0000));
    assert_eq!(made(2, 0x0080_0001), Ok(0x0080_0001));
    assert_eq!(made(2, 0x0080_ffff), Ok(0x0080_0001), "any");
    for refused in [0, 0x0001_0000, 0x0080_0002, 0xffff_0001, u32::MAX] {
        assert_eq!(made(2, refused), Err(at(8)), "{refused:x}");
    }
}

#[test]
fn inactivity() {
    let taken = |asked| populate_token(&populate(0, asked, 0, &[(0, 1)]), &LIMITS).map(|r| r.what.inactivity);
    assert_eq!(taken(0), Ok(30));
    assert_eq!(taken(1), Ok(1));
    assert_eq!(taken(1000), Ok(1000));
    assert_eq!(taken(1001), Err(at(4)));
    assert_eq!(taken(u32::MAX), Err(at(4)));
}

#[test]
fn lengths_of_populate() {
    let whole = populate(0, 0, 0, &[(0, 1), (1, 1)]);
    for end in 0..16 {
        assert_eq!(populate_token(&whole[..end], &LIMITS), Err(TRUNCATED), "{end}");
    }
    // Descriptors that are not all there are ignored.
    for (end, ranges) in [(16, 0), (31, 0), (32, 1), (47, 1), (48, 2)] {
        assert_eq!(populate_token(&whole[..end], &LIMITS).unwrap().what.ranges.len(), ranges, "{end}");
    }
    let longer = [whole.clone(), vec![0xff; 64]].concat();
    assert_eq!(populate_token(&longer, &LIMITS).unwrap().what.ranges.len(), 2);
    let with = |data: u16, length: u16| {
        let mut list = whole.clone();
        list[..2].copy_from_slice(&data.to_be_bytes());
        list[14..16].copy_from_slice(&length.to_be_bytes());
        populate_token(&list, &LIMITS).map(|read| read.what.ranges.len())
    };
    assert_eq!(with(29, 16), Err(at(0)));
    assert_eq!(with(30, 16), Ok(1));
    assert_eq!(with(46, 31), Ok(1));
    assert_eq!(with(46, 15), Err(at(14)));
    assert_eq!(with(46, 0), Err(at(14)));
    assert_eq!(with(45, 32), Err(at(0)));
    assert_eq!(with(u16::MAX, 32), Ok(2));
    assert_eq!(with(u16::MAX, u16::MAX), Err(at(0)));
}

#[test]
fn lengths_of_write() {
    let whole = write(0, 0, 1, &[(0, 1), (1, 1)]);
    for end in [0, 1, 15, 16, 528, 535] {
        assert_eq!(write_using_token(&whole[..end], &LIMITS), Err(TRUNCATED), "{end}");
    }
    for (end, ranges) in [(536, 0), (551, 0), (552, 1), (568, 2)] {
        assert_eq!(write_using_token(&whole[..end], &LIMITS).unwrap().what.ranges.len(), ranges, "{end}");
    }
    let with = |data: u16, length: u16| {
        let mut list = whole.clone();
        list[..2].copy_from_slice(&data.to_be_bytes());
        list[534..536].copy_from_slice(&length.to_be_bytes());
        write_using_token(&list, &LIMITS).map(|read| read.what.ranges.len())
    };
    assert_eq!(with(549, 16), Err(at(0)));
    assert_eq!(with(550, 16), Ok(1));
    assert_eq!(with(566, 15), Err(at(534)));
    assert_eq!(with(565, 32), Err(at(0)));
}

#[test]
fn limits() {
    let read = |ranges: &[(u64, u32)]| {
        let populated = populate_token(&populate(0, 0, 0, ranges), &LIMITS).map(|read| read.what.ranges);
        let written = write_using_token(&write(0, 0, 0, ranges), &LIMITS).map(|read| read.what.ranges);
        match (populated, written) {
            (Ok(a), Ok(b)) => {
                assert_eq!(a, b);
                Ok(a)
            }
            (Err(a), Err(b)) => {
                let moved = a.field.map(|field| field.byte + 520);
                assert_eq!((a.code, moved), (b.code, b.field.map(|field| field.byte)));
                Err(a)
            }
            (a, b) => panic!("{a:?} {b:?}"),
        }
    };
    assert_eq!(read(&[(0, 1), (1, 1), (2, 1)]).unwrap().len(), 3);
    let too_many = Sense::illegal_request(AdditionalSense(0x2608));
    assert_eq!(read(&[(0, 1), (1, 1), (2, 1), (3, 1)]), Err(too_many));
    assert!(read(&[(0, 60), (60, 40)]).is_ok());
    assert_eq!(read(&[(0, 60), (60, 41)]), Err(at(40)), "the sum");
    assert_eq!(read(&[(0, 101)]), Err(at(24)));
    let out = |byte| Err(Sense::lba_out_of_range(FieldPointer::parameter_list(byte, 7)));
    assert_eq!(read(&[(999, 1)]), Ok(vec![extent(999, 1)]));
    assert_eq!(read(&[(0, 1), (999, 2)]), out(32));
    assert_eq!(read(&[(1000, 1)]), out(16));
    assert_eq!(read(&[(u64::MAX, 1)]), out(16));
    assert_eq!(read(&[(u64::MAX, u32::MAX)]), out(16));
    assert_eq!(read(&[(1001, 0)]), out(16));
    assert_eq!(read(&[(1000, 0), (5, 0)]), Ok(vec![]), "nothing is asked for");
}

#[test]
fn no_block_twice() {
    let read =
        |ranges: &[(u64, u32)]| populate_token(&populate(0, 0, 0, ranges), &LIMITS).map(|read| read.what.ranges.len());
    assert_eq!(read(&[(10, 5), (15, 5), (5, 5)]), Ok(3));
    assert_eq!(read(&[(10, 5), (14, 1)]), Err(at(32)));
    assert_eq!(read(&[(14, 1), (10, 5)]), Err(at(32)));
    assert_eq!(read(&[(10, 5), (50, 1), (10, 5)]), Err(at(48)));
    assert_eq!(read(&[(0, 100), (50, 0)]), Ok(1), "an empty range has no block");
    let written = write_using_token(&write(0, 0, 0, &[(10, 5), (50, 0), (14, 2)]), &LIMITS);
    assert_eq!(written, Err(at(568)));
}

/// SBC-3 table 284.
#[test]
fn descriptor() {
    let mut data = ParameterData::new();
    LIMITS.write(&mut data);
    assert_eq!(
        data.bytes(),
        [
            0, 0, 0, 0x20, 0, 0, 0, 0, 0, 0, 0, 3, 0, 0, 3, 0xe8, 0, 0, 0, 30, //
            0, 0, 0, 0, 0, 0, 0, 100, 0, 0, 0, 0, 0, 0, 0, 10,
        ]
    );
}

proptest! {
    /// Any bytes are taken or refused; nothing panics, and what is taken is within the limits.
    #[test]
    fn any_bytes(
        mut list in collection::vec(prop_oneof![4 => Just(0), 1 => Just(0xff), 2 => any::<u8>()], 0..700),
        lengths in (0..100_u16, 0..100_u16),
        plausible: bool,
        capacity: u64,
    ) {
        if plausible && list.len() > 536 {
            list[..2].copy_from_slice(&(550 + lengths.0).to_be_bytes());
            list[14..16].copy_from_slice(&lengths.1.to_be_bytes());
            list[534..536].copy_from_slice(&lengths.1.to_be_bytes());
        }
        let limits = TokenLimits { capacity, blocks: u64::MAX, ..LIMITS };
        let populated = populate_token(&list, &limits).map(|read| read.what.ranges);
        let written = write_using_token(&list, &limits).map(|read| read.what.ranges);
        for ranges in [populated, written].into_iter().flatten() {
            prop_assert!(ranges.len() <= 3);
            prop_assert!(ranges.iter().all(|range| range.blocks > 0 && range.lba + range.blocks <= capacity));
            let apart = |a: &Extent, b: &Extent| a.lba + a.blocks <= b.lba || b.lba + b.blocks <= a.lba;
            prop_assert!(ranges.iter().enumerate().all(|(i, a)| ranges[..i].iter().all(|b| apart(a, b))));
        }
    }
}
