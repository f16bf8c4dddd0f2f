//! How long a token is good, and for what.

use std::time::Duration;

use super::*;
use crate::device_server::testkit::pattern;
use crate::lu::GateBits;

const CANCELLED: u16 = 0x2308;

/// Every command that may change a block of it, from any nexus.
#[test]
fn overlapping_changes_cancel() {
    let block = [0x11; 512];
    let lists = [(0_u64, 1_u32)];
    let unmap = [&[0, 22, 0, 16, 0, 0, 0, 0][..], &descriptors(&[(12, 1)])].concat();
    let write_token = write_list(0, 0, &zero_token(), &[(12, 1)]);
    let cases: [(&[u8], &[u8]); 13] = [
        (&[0x0a, 0, 0, 12, 1, 0], &block),
        (&[0x2a, 0, 0, 0, 0, 12, 0, 0, 1, 0], &block),
        (&[0xaa, 0, 0, 0, 0, 12, 0, 0, 0, 1, 0, 0], &block),
        (&[0x8a, 0, 0, 0, 0, 0, 0, 0, 0, 12, 0, 0, 0, 1, 0, 0], &block),
        (&[0x2e, 0, 0, 0, 0, 12, 0, 0, 1, 0], &block),
        (&[0x41, 0, 0, 0, 0, 12, 0, 0, 1, 0], &block),
        (&[0x93, 0, 0, 0, 0, 0, 0, 0, 0, 12, 0, 0, 0, 1, 0, 0], &[0; 512]),
        (&[0x93, 0x01, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0], &[]),
        (&[0x42, 0, 0, 0, 0, 0, 0, 0, 24, 0], &unmap),
        (&[0x8b, 0, 0, 0, 0, 0, 0, 0, 0, 12, 0, 0, 0, 1, 0, 0], &block),
        (&[0x89, 0, 0, 0, 0, 0, 0, 0, 0, 12, 0, 0, 0, 1, 0, 0], &[[0x11; 512], [0x22; 512]].concat()),
        (&[0x83, 0x11, 0, 0, 0, 0, 0, 0, 0, 3, 0, 0, 0x02, 0x28, 0, 0], &write_token),
        (&[0x2a, 0x08, 0, 0, 0, 10, 0, 0, 3, 0], &[0x11; 1536]),
    ];
    for (cdb, data) in cases {
        let p = Pair::new();
        let (hit, spared) = (token(&p.a, &[(12, 1)]), token(&p.a, &[(60, 10)]));
        other(&p.a).data_out(cdb, data);
        assert_eq!(write(&p.b, 1, &hit, &lists), check(illegal(CANCELLED)), "{cdb:02x?}");
        let everything = cdb[..2] == [0x93, 0x01];
        let expected = if everything { check(illegal(CANCELLED)) } else { good(552) };
        assert_eq!(write(&p.b, 1, &spared, &lists), expected, "{cdb:02x?}");
    }
}

/// What comes back may be another medium.
#[test]
fn an_eject_cancels() {
    let rods: Arc<Rods> = Arc::default();
    let with = |removable| {
        Bench::with(MemImage::patterned(51_200), |setup| (setup.rods, setup.removable) = (rods.clone(), removable))
    };
    let (a, b) = (with(true), with(false));
    let token = token(&a, &[(0, 4)]);
    a.itl.lu().eject().unwrap();
    assert_eq!(write(&b, 1, &token, &[(0, 4)]), check(illegal(CANCELLED)));
}

#[test]
fn others_do_not() {
    let p = Pair::new();
    let token = token(&p.a, &[(10, 5), (20, 5)]);
    let writer = other(&p.a);
    for lba in [9, 15, 19, 25] {
        assert_eq!(write10(&writer, lba), good(512));
    }
    for cdb in [[0x28, 0, 0, 0, 0, 10, 0, 0, 5, 0], [0x28, 0x08, 0, 0, 0, 10, 0, 0, 5, 0]] {
        assert_eq!(writer.data_in(&cdb, 2560).answer, good(2560));
    }
    writer.none(&[0x35, 0, 0, 0, 0, 0, 0, 0, 0, 0]);
    writer.none(&[0x2f, 0, 0, 0, 0, 10, 0, 0, 5, 0]);
    populate(&writer, 1, &[(10, 5)]);
    // Neither do those that are refused.
    p.a.itl.gate().raise(GateBits::DENY_WRITE);
    write10(&p.a, 12);
    p.a.itl.gate().lower(GateBits::DENY_WRITE);
    p.a.data_out(&[0x2a, 0, 0, 0, 0, 12, 0, 0, 100, 0], &[0; 51_200]);
    p.a.data_out(&[0x2a, 0x01, 0, 0, 0, 12, 0, 0, 1, 0], &[0; 512]);
    assert_eq!(write(&p.b, 1, &token, &[(0, 10)]), good(552));
    assert_eq!(p.b.image.bytes()[..2560], pattern(5120, 2560));
    assert_eq!(write10(&writer, 14), good(512));
    assert_eq!(write(&p.b, 1, &token, &[(0, 10)]), check(illegal(CANCELLED)));
}

/// What it costs where there are no tokens: one load.
#[test]
fn a_unit_forgets_its_watches() {
    let p = Pair::new();
    let lu = p.a.itl.lu().clone();
    assert!(!lu.is_watched());
    let (first, _second) = (token(&p.a, &[(0, 1)]), token(&p.a, &[(50, 1)]));
    assert!(lu.is_watched());
    write10(&p.a, 0);
    assert!(lu.is_watched());
    write10(&p.a, 50);
    assert!(!lu.is_watched());
    write(&p.b, 1, &first, &[(0, 1)]);
    // Deleted ones as well, when something is written.
    let third = token(&p.a, &[(7, 1)]);
    assert_eq!(write_with(&p.b, 1, 2, 0, &third, &[(0, 1)]), good(552));
    write10(&p.a, 99);
    assert!(!lu.is_watched());
}

#[test]
fn deleted() {
    let p = Pair::new();
    let token = token(&p.a, &[(0, 4)]);
    assert_eq!(write(&p.b, 1, &token, &[(0, 4)]), good(552));
    assert_eq!(write_with(&p.b, 1, 2, 0, &token, &[(10, 4)]), good(552));
    assert_eq!(p.b.image.bytes()[5120..7168], pattern(0, 2048));
    assert_eq!(write(&p.b, 1, &token, &[(0, 4)]), check(illegal(0x2309)));
    write10(&p.a, 0);
    assert_eq!(write(&p.b, 1, &token, &[(0, 4)]), check(illegal(0x2309)), "its first end is what is told");
}

#[test]
fn expired() {
    let p = Pair::new();
    let data = populate_list(0, 1, &[(0, 4)]);
    p.a.data_out(&out_cdb(0x10, 1, 32), &data);
    p.a.data_out(&out_cdb(0x10, 2, 32), &data);
    let (used, unused, lasting) = (fetch(&p.a, 1), fetch(&p.a, 2), token(&p.a, &[(0, 4)]));
    std::thread::sleep(Duration::from_millis(600));
    assert_eq!(write(&p.b, 1, &used, &[(0, 4)]), good(552));
    std::thread::sleep(Duration::from_millis(600));
    assert_eq!(write(&p.b, 1, &unused, &[(0, 4)]), check(illegal(0x2307)));
    assert_eq!(write(&p.b, 1, &used, &[(0, 4)]), good(552), "each use begins it anew");
    std::thread::sleep(Duration::from_millis(1100));
    assert_eq!(write(&p.b, 1, &used, &[(0, 4)]), check(illegal(0x2307)));
    assert_eq!(write(&p.b, 1, &lasting, &[(0, 4)]), good(552));
}

/// The oldest make room.
#[test]
fn a_unit_has_so_many() {
    let p = Pair::new();
    let elsewhere = token(&p.b, &[(0, 1)]);
    let tokens: Vec<[u8; 512]> = (0..130).map(|_| token(&p.a, &[(0, 1)])).collect();
    for (at, token) in tokens.iter().enumerate() {
        let expected = if at < 2 { check(illegal(CANCELLED)) } else { good(552) };
        assert_eq!(write(&p.b, 1, token, &[(50, 1)]), expected, "{at}");
    }
    assert_eq!(write(&p.b, 1, &elsewhere, &[(50, 1)]), good(552));
    (0..510).for_each(|_| drop(populate(&p.a, 1, &[(0, 1)])));
    assert_eq!(write(&p.b, 1, &tokens[0], &[(50, 1)]), check(illegal(0x2304)), "forgotten");
    assert_eq!(write(&p.b, 1, &tokens[129], &[(50, 1)]), check(illegal(CANCELLED)));
}

/// Of 4096 bits, any one: not this token, and nothing is written.
#[test]
fn no_token_can_be_forged() {
    let p = Pair::new();
    let token = token(&p.a, &[(0, 1)]);
    for at in 0..512 {
        let mut forged = token;
        forged[at] ^= 1 << (at % 8);
        let answer = write(&p.b, 1, &forged, &[(0, 1)]);
        let code = answer.sense.unwrap().code.0;
        // Type (one bit of it makes another type that there is), length, identifier, and the rest.
        let expected: &[u16] = match at {
            0..=3 => &[0x2301, 0x2305],
            6..=7 => &[0x230a],
            8..=15 => &[0x2304],
            _ => &[0x2305],
        };
        assert!(expected.contains(&code), "byte {at}: {code:04x}");
    }
    assert_eq!(p.b.image.calls(), []);
    assert!(p.b.itl.copy_operations().find(1).is_none());
    assert_eq!(write(&p.b, 1, &token, &[(0, 1)]), good(552));
}

#[test]
fn no_two_tokens_are_alike() {
    let p = Pair::new();
    let (a, b) = (token(&p.a, &[(0, 1)]), token(&p.a, &[(0, 1)]));
    assert_ne!(a[8..16], b[8..16]);
    let same = a[256..].iter().zip(&b[256..]).filter(|(a, b)| a == b).count();
    assert!(same < 32, "of 256 random bytes {same} are the same");
    // A process does not know the tokens of another one.
    assert_eq!(write(&Pair::new().b, 1, &a, &[(0, 1)]), check(illegal(0x2304)));
}
