use super::*;
use crate::backing::BackingError;
use crate::device_server::testkit::{Bench, Call, MemImage, check, good, out_buf, pattern};
use crate::device_server::{AbortFlag, Plan};
use crate::lu::Extent;

fn bench() -> Bench {
    Bench::new(MemImage::patterned(51_200))
}

/// ORWRITE(16) 8Bh: byte 1 ORPROTECT, DPO (10h), FUA (08h), bytes 2–9 LBA, 10–13 TRANSFER LENGTH.
fn orwrite(flags: u8, lba: u64, blocks: u32) -> [u8; 16] {
    cdb16(0x8b, flags, lba, blocks)
}

fn merged(medium: &[u8], data: &[u8]) -> Vec<u8> {
    medium.iter().zip(data).map(|(medium, data)| medium | data).collect()
}

#[test]
fn bits_are_set_and_none_cleared() {
    let b = bench();
    let data: Vec<u8> = (0..1536u32).map(|at| (at * 7) as u8).collect();
    assert_eq!(b.data_out(&orwrite(0, 10, 3), &data), good(1536));
    assert_eq!(b.image.calls(), [Call::Read(5120, 1536), Call::Write(5120, 1536, false)]);
    let bytes = b.image.bytes();
    assert_eq!(bytes[5120..6656], merged(&pattern(5120, 1536), &data));
    assert_eq!(bytes[..5120], pattern(0, 5120));
    assert_eq!(bytes[6656..], pattern(6656, 51_200 - 6656));
    assert_eq!(b.data_out(&orwrite(0, 0, 1), &[0; 512]), good(512));
    assert_eq!(b.image.bytes()[..512], pattern(0, 512));
    assert_eq!(b.data_out(&orwrite(0, 0, 1), &[0xff; 512]), good(512));
    assert_eq!(b.image.bytes()[..512], [0xff; 512]);
}

#[test]
fn long_ones_go_in_steps() {
    let b = Bench::new(MemImage::patterned(3 << 20));
    let data = vec![0x81; (2 << 20) + 512];
    assert_eq!(b.data_out(&orwrite(0, 1, 4097), &data), good((2 << 20) + 512));
    assert_eq!(b.image.calls().len(), 6);
    assert_eq!(b.image.bytes()[512..][..data.len()], merged(&pattern(512, data.len()), &data));
    assert_eq!(b.image.bytes()[512 + data.len()..], pattern(512 + data.len() as u64, (1 << 20) - 1024));

    b.image.fail_writes(2 << 20, BackingError::WriteFailed);
    let failed = plain(SenseKey::MediumError, 0x0c02).with_information(2049);
    assert_eq!(b.data_out(&orwrite(0, 1, 4097), &data), check(failed));
    b.image.fail_reads(2 << 20, BackingError::ReadFailed);
    let failed = plain(SenseKey::MediumError, 0x1100).with_information(2049);
    assert_eq!(b.data_out(&orwrite(0, 1, 4097), &data), check(failed));
    let errors = b.itl.lu().errors().get();
    assert_eq!((errors.read, errors.write, errors.verify), (1, 1, 0));
}

#[test]
fn an_abort_ends_it_between_steps() {
    let b = Bench::new(MemImage::new(3 << 20));
    let abort = AbortFlag::default();
    let flag = abort.clone();
    b.image.at_call(2, move || flag.raise());
    let ran = b.run_with(&orwrite(0, 0, 6144), out_buf(&vec![1; 3 << 20]), &abort);
    assert_eq!(ran.answer, check(plain(SenseKey::AbortedCommand, 0)));
    assert_eq!(b.image.calls(), [Call::Read(0, 1 << 20), Call::Write(0, 1 << 20, false)]);
}

#[test]
fn refused() {
    let b = bench();
    assert_eq!(b.data_out(&orwrite(0, 100, 1), &[0; 512]), check(out_of_range(100, 2, 7)));
    assert_eq!(b.data_out(&orwrite(0, 99, 2), &[0; 1024]), check(out_of_range(100, 2, 7)));
    assert_eq!(b.data_out(&orwrite(0, u64::MAX, u32::MAX), &[0; 512]), check(out_of_range(u64::MAX, 2, 7)));
    assert_eq!(b.data_out(&orwrite(0x20, 0, 1), &[0; 512]), check(invalid_field(1, 5)), "ORPROTECT");
    assert_eq!(b.data_out(&orwrite(0, 0, 2), &[0; 1023]), good(1024), "overflow");
    assert!(b.data_in(&orwrite(0, 0, 1), 512).answer.transferred > 512);
    assert_eq!(b.none(&orwrite(0, 99, 0)), good(0));
    assert_eq!(b.image.calls(), []);
    let big = Bench::new(MemImage::new(512).claiming(1 << 42));
    assert_eq!(big.none(&orwrite(0, 0, 32_769)), check(invalid_field(10, 7)));
    let b = Bench::with(MemImage::new(51_200), |s| s.read_only = true);
    assert_eq!(b.data_out(&orwrite(0, 0, 1), &[1; 512]), check(plain(SenseKey::DataProtect, 0x2700)));
}

#[test]
fn durability() {
    let b = bench();
    b.data_out(&orwrite(0x18, 1, 1), &[0; 512]);
    assert_eq!(b.image.calls(), [Call::Flush, Call::Read(512, 512), Call::Write(512, 512, true)]);
    b.image.fail_flushes(BackingError::FlushFailed);
    assert_eq!(b.data_out(&orwrite(0x08, 1, 1), &[0; 512]), check(plain(SenseKey::HardwareError, 0x4400)));
    let b = Bench::with(MemImage::patterned(51_200), |s| s.write_cache = false);
    b.data_out(&orwrite(0, 1, 1), &[0; 512]);
    assert_eq!(b.image.calls(), [Call::Read(512, 512), Call::Write(512, 512, true)], "WCE 0");
}

#[test]
fn it_holds_its_blocks() {
    let b = bench();
    let cdb = orwrite(0, 10, 4);
    let mut buf = out_buf(&[0; 2048]);
    let Plan::Exclusive(exclusive) = b.plan(&cdb, &mut buf) else { panic!("exclusive") };
    assert_eq!(exclusive.extent, Extent { offset: 5120, len: 2048 });
}
