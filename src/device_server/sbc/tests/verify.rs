use super::*;
use crate::backing::BackingError;
use crate::device_server::AbortFlag;
use crate::device_server::testkit::{Bench, Call, MemImage, check, good, out_buf, pattern};
use crate::mem::IoBuf;

const BYTCHK_FULL: u8 = 0b01 << 1;
const BYTCHK_ONE: u8 = 0b11 << 1;

fn bench() -> Bench {
    Bench::new(MemImage::patterned(51_200))
}

/// VERIFY(10) 2Fh, (12) AFh, (16) 8Fh with BYTCHK 00b: the medium is read, no data moves.
#[test]
fn medium_verification() {
    let b = bench();
    for cdb in [&cdb10(0x2f, 0, 98, 2)[..], &cdb12(0xaf, 0, 98, 2), &cdb16(0x8f, 0, 98, 2)] {
        assert_eq!(b.none(cdb), good(0));
        assert_eq!(b.image.calls(), [Call::Read(98 * 512, 1024)]);
    }
    assert_eq!(b.none(&cdb10(0x2f, 0, 5, 0)), good(0));
    assert_eq!(b.image.calls(), []);
    assert_eq!(b.none(&cdb10(0x2f, 0, 100, 0)), check(out_of_range(100, 2, 7)));
    assert_eq!(b.none(&cdb10(0x2f, 0, 99, 2)), check(out_of_range(100, 2, 7)));
    b.image.fail_reads(99 * 512, BackingError::ReadFailed);
    assert_eq!(b.none(&cdb10(0x2f, 0, 98, 2)), check(plain(SenseKey::MediumError, 0x1100).with_information(98)));
}

#[test]
fn long_verification_goes_in_steps_and_says_where_it_failed() {
    let b = Bench::new(MemImage::new(40 << 20));
    // 40 MiB, more than a transfer may have: nothing is transferred.
    assert_eq!(b.none(&cdb16(0x8f, 0, 0, 81_920)), good(0));
    assert_eq!(b.image.calls().len(), 40);
    b.image.fail_reads(5 << 20, BackingError::ReadFailed);
    let failed = plain(SenseKey::MediumError, 0x1100).with_information(5 * 2048);
    assert_eq!(b.none(&cdb16(0x8f, 0, 0, 81_920)), check(failed));
}

#[test]
fn verification_ends_when_its_task_is_aborted() {
    let b = Bench::new(MemImage::new(8 << 20));
    let abort = AbortFlag::default();
    let flag = abort.clone();
    b.image.at_call(3, move || flag.raise());
    let ran = b.run_with(&cdb16(0x8f, 0, 0, 16_384), IoBuf::empty(), &abort);
    assert_eq!(ran.answer, check(plain(SenseKey::AbortedCommand, 0)));
    assert_eq!(b.image.calls().len(), 3);
}

/// BYTCHK 01b: as much Data-Out as blocks.
#[test]
fn comparison() {
    let b = bench();
    let cdb = cdb10(0x2f, BYTCHK_FULL, 10, 3);
    let mut data = pattern(5120, 1536);
    assert_eq!(b.data_out(&cdb, &data), good(1536));
    assert_eq!(b.data_out(&cdb16(0x8f, BYTCHK_FULL, 10, 3), &data), good(1536));
    assert_eq!(b.data_out(&cdb12(0xaf, BYTCHK_FULL, 10, 3), &data), good(1536));
    data[1000] ^= 1;
    data[1200] ^= 1;
    let differs = plain(SenseKey::Miscompare, 0x1d00).with_information(1000);
    assert_eq!(b.data_out(&cdb, &data), check(differs));
    assert_eq!(b.image.bytes(), pattern(0, 51_200), "nothing is ever written");
}

#[test]
fn comparison_across_steps() {
    let b = Bench::new(MemImage::patterned(3 << 20));
    let mut data = pattern(0, 3 << 20);
    let cdb = cdb16(0x8f, BYTCHK_FULL, 0, 6144);
    assert_eq!(b.data_out(&cdb, &data), good(3 << 20));
    *data.last_mut().unwrap() ^= 0x80;
    let differs = plain(SenseKey::Miscompare, 0x1d00).with_information((3 << 20) - 1);
    assert_eq!(b.data_out(&cdb, &data), check(differs));
}

/// BYTCHK 11b: one block of Data-Out, compared with each.
#[test]
fn comparison_with_one_block() {
    let b = Bench::new(MemImage::new(51_200));
    let cdb = cdb10(0x2f, BYTCHK_ONE, 0, 100);
    assert_eq!(b.data_out(&cdb, &[0; 512]), good(512));
    let mut write = vec![0; 512];
    write[3] = 1;
    b.data_out(&cdb10(0x2a, 0, 50, 1), &write);
    let differs = plain(SenseKey::Miscompare, 0x1d00).with_information(50 * 512 + 3);
    assert_eq!(b.data_out(&cdb, &[0; 512]), check(differs));
    assert_eq!(b.data_out(&cdb10(0x2f, BYTCHK_ONE, 50, 1), &write), good(512));
}

#[test]
fn buffers_and_limits() {
    let b = bench();
    assert_eq!(b.data_out(&cdb10(0x2f, BYTCHK_FULL, 0, 3), &[0; 1024]), good(1536));
    assert_eq!(b.none(&cdb10(0x2f, BYTCHK_ONE, 0, 3)), good(512));
    assert!(b.data_in(&cdb10(0x2f, BYTCHK_ONE, 0, 3), 512).answer.transferred > 512);
    assert_eq!(b.none(&cdb10(0x2f, BYTCHK_FULL, 0, 0)), good(0));
    assert_eq!(b.image.calls(), []);
    // 10b is reserved.
    assert_eq!(b.none(&cdb10(0x2f, 0b10 << 1, 0, 1)), check(invalid_field(1, 2)));
    let big = Bench::new(MemImage::new(512).claiming(1 << 42));
    assert_eq!(big.none(&cdb16(0x8f, BYTCHK_FULL, 0, 32_769)), check(invalid_field(10, 7)));
}

/// WRITE AND VERIFY(10) 2Eh, (12) AEh, (16) 8Eh.
#[test]
fn write_and_verify() {
    for check_bits in [0, BYTCHK_FULL] {
        for cdb in [&cdb10(0x2e, check_bits, 4, 2)[..], &cdb12(0xae, check_bits, 4, 2), &cdb16(0x8e, check_bits, 4, 2)]
        {
            let b = bench();
            let data = vec![0x5a; 1024];
            assert_eq!(b.data_out(cdb, &data), good(1024), "{cdb:02x?}");
            assert_eq!(b.image.calls(), [Call::Write(2048, 1024, false), Call::Flush, Call::Read(2048, 1024)]);
            assert_eq!(b.image.bytes()[2048..3072], data);
        }
    }
    let b = bench();
    assert_eq!(b.data_out(&cdb10(0x2e, 0, 4, 2), &[0; 512]), good(1024));
    assert_eq!(b.none(&cdb10(0x2e, 0, 4, 0)), good(0));
    assert_eq!(b.data_out(&cdb10(0x2e, 0, 99, 2), &[0; 1024]), check(out_of_range(100, 2, 7)));
    assert_eq!(b.image.calls(), []);
    b.image.fail_flushes(BackingError::FlushFailed);
    assert_eq!(b.data_out(&cdb10(0x2e, 0, 4, 2), &[0; 1024]), check(plain(SenseKey::HardwareError, 0x4400)));
    b.image.fail_writes(2048, BackingError::NoSpace);
    let no_space = plain(SenseKey::DataProtect, 0x2707).with_information(4);
    assert_eq!(b.run(&cdb10(0x2e, 0, 4, 2), out_buf(&[0; 1024])).answer, check(no_space));
    let b = Bench::new(MemImage::new(51_200).read_only());
    assert_eq!(b.data_out(&cdb10(0x2e, 0, 4, 2), &[0; 1024]), check(plain(SenseKey::DataProtect, 0x2700)));
}
