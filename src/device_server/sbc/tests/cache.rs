use super::*;
use crate::backing::BackingError;
use crate::device_server::testkit::{Bench, Call, MemImage, check, good};

fn bench() -> Bench {
    Bench::new(MemImage::patterned(51_200))
}

/// SYNCHRONIZE CACHE(10) 35h, (16) 91h: range and IMMED are looked at, everything is flushed.
#[test]
fn synchronize_cache() {
    let b = bench();
    let immed = 0x02;
    for cdb in [
        &cdb10(0x35, 0, 0, 0)[..],
        &cdb10(0x35, immed, 99, 1),
        &cdb10(0x35, 0, 99, 0),
        &cdb16(0x91, 0, 0, 100),
        &cdb16(0x91, immed, 0, 0),
    ] {
        assert_eq!(b.none(cdb), good(0));
        assert_eq!(b.image.calls(), [Call::Flush], "{cdb:02x?}");
    }
    assert_eq!(b.none(&cdb10(0x35, 0, 100, 0)), check(out_of_range(100, 2, 7)));
    assert_eq!(b.none(&cdb10(0x35, 0, 99, 2)), check(out_of_range(100, 2, 7)));
    assert_eq!(b.none(&cdb16(0x91, 0, u64::MAX, 1)), check(out_of_range(u64::MAX, 2, 7)));
    assert_eq!(b.image.calls(), []);
    b.image.fail_flushes(BackingError::FlushFailed);
    assert_eq!(b.none(&cdb10(0x35, 0, 0, 0)), check(plain(SenseKey::HardwareError, 0x4400)));
    b.image.fail_flushes(BackingError::NoSpace);
    assert_eq!(
        b.none(&cdb10(0x35, 0, 3, 0)),
        check(plain(SenseKey::DataProtect, 0x2707).with_information(3)),
        "delayed allocation failed"
    );
}

#[test]
fn a_read_only_unit_has_nothing_to_flush() {
    let b = Bench::new(MemImage::new(51_200).read_only());
    assert_eq!(b.none(&cdb10(0x35, 0, 0, 0)), good(0));
    assert_eq!(b.image.calls(), []);
}

/// PRE-FETCH(10) 34h, (16) 90h.
#[test]
fn pre_fetch() {
    let b = bench();
    assert_eq!(b.none(&cdb10(0x34, 0, 2, 3)), good(0));
    assert_eq!(b.image.calls(), [Call::Read(1024, 1536)]);
    assert_eq!(b.none(&cdb16(0x90, 0, 98, 0)), good(0));
    assert_eq!(b.image.calls(), [Call::Read(98 * 512, 1024)], "to the end");
    assert_eq!(b.none(&cdb10(0x34, 0x02, 0, 3)), good(0));
    assert_eq!(b.image.calls(), [], "IMMED");
    assert_eq!(b.none(&cdb10(0x34, 0, 100, 1)), check(out_of_range(100, 2, 7)));
    assert_eq!(b.none(&cdb16(0x90, 0, 99, 2)), check(out_of_range(100, 2, 7)));
    b.image.fail_reads(0, BackingError::ReadFailed);
    assert_eq!(b.none(&cdb10(0x34, 0, 0, 1)), check(plain(SenseKey::MediumError, 0x1100).with_information(0)));
}

#[test]
fn pre_fetch_is_a_hint_with_a_limit() {
    let b = Bench::new(MemImage::new(20 << 20));
    assert_eq!(b.none(&cdb16(0x90, 0, 0, 0)), good(0));
    let calls = b.image.calls();
    assert_eq!(calls.len(), 16);
    assert_eq!(calls[15], Call::Read(15 << 20, 1 << 20));
}
