//! UNMAP and WRITE SAME.

use super::*;
use crate::backing::{BackingError, OpKind};
use crate::device_server::testkit::{Bench, Call, MemImage, check, good, out_buf, pattern};
use crate::device_server::{AbortFlag, Finish, Plan};
use crate::lu::Provisioning;
use crate::mem::{Direction, IoBuf};

const BLOCKS: u64 = 100;
const WRITE_SAME_UNMAP: u8 = 0x08;
const WRITE_SAME_ANCHOR: u8 = 0x10;
const WRITE_SAME_NDOB: u8 = 0x01;

fn bench() -> Bench {
    Bench::new(MemImage::patterned(BLOCKS as usize * 512))
}

/// UNMAP 42h (SBC-3 5.35) with a parameter list of `len` bytes.
fn unmap(len: usize) -> [u8; 10] {
    cdb10(0x42, 0, 0, len as u16)
}

/// An UNMAP parameter list (SBC-3 table 105).
fn list(ranges: &[(u64, u32)]) -> Vec<u8> {
    let descriptors = ranges.len() as u16 * 16;
    let mut list = Vec::new();
    list.extend((descriptors + 6).to_be_bytes()); // UNMAP DATA LENGTH
    list.extend(descriptors.to_be_bytes()); // UNMAP BLOCK DESCRIPTOR DATA LENGTH
    list.extend([0; 4]);
    for (lba, blocks) in ranges {
        list.extend(lba.to_be_bytes());
        list.extend(blocks.to_be_bytes());
        list.extend([0; 4]);
    }
    list
}

fn run_unmap(b: &Bench, ranges: &[(u64, u32)]) -> crate::device_server::Answer {
    let list = list(ranges);
    b.data_out(&unmap(list.len()), &list)
}

/// LOGICAL BLOCK ADDRESS OUT OF RANGE for the range at this byte of the parameter list.
fn range_error(byte: u16) -> crate::device_server::Answer {
    let field = FieldPointer { in_cdb: false, byte, bit: Some(7) };
    check(plain(SenseKey::IllegalRequest, 0x2100).with_field(field))
}

#[test]
fn one_range_is_one_operation() {
    let b = bench();
    let list = list(&[(8, 16)]);
    let cdb = unmap(24);
    let Plan::Io(io) = b.plan(&cdb, &mut out_buf(&list)) else { panic!("one operation") };
    assert_eq!((io.op.kind, io.op.offset, io.op.len), (OpKind::Unmap, 4096, 8192));
    assert_eq!(io.finish, Finish { lba: 8, transferred: 24 });
    assert_eq!(run_unmap(&b, &[(8, 16)]), good(24));
    assert_eq!(b.image.calls(), [Call::Unmap(4096, 8192)]);
    assert_eq!(b.image.bytes()[4096..12_288], [0; 8192]);
    assert_eq!(b.image.bytes()[..4096], pattern(0, 4096));
    assert_eq!(b.image.bytes()[12_288..], pattern(12_288, 51_200 - 12_288));
}

#[test]
fn several_ranges_are_done_in_order() {
    let b = bench();
    assert_eq!(run_unmap(&b, &[(99, 1), (0, 0), (0, 2)]), good(56));
    assert_eq!(b.image.calls(), [Call::Unmap(99 * 512, 512), Call::Unmap(0, 1024)]);
}

#[test]
fn nothing_to_unmap() {
    let b = bench();
    assert_eq!(b.none(&unmap(0)), good(0));
    assert_eq!(run_unmap(&b, &[]), good(8));
    assert_eq!(run_unmap(&b, &[(5, 0)]), good(24));
    assert_eq!(b.image.calls(), []);
    // Less than a header is PARAMETER LIST LENGTH ERROR.
    assert_eq!(b.data_out(&unmap(7), &[0; 7]).sense.unwrap().code.0, 0x1a00);
}

#[test]
fn a_bad_range_stops_all_of_them() {
    let b = bench();
    assert_eq!(run_unmap(&b, &[(0, 1), (99, 2)]), range_error(24));
    assert_eq!(run_unmap(&b, &[(100, 1)]), range_error(8));
    assert_eq!(run_unmap(&b, &[(u64::MAX, u32::MAX)]), range_error(8));
    assert_eq!(run_unmap(&b, &[(0, 1), (1 << 63, 1), (5, 5)]), range_error(24));
    assert_eq!(b.image.calls(), []);
}

#[test]
fn the_list_is_no_longer_than_the_block_limits_page_says() {
    let b = bench();
    let answer = run_unmap(&b, &[(0, 1); 256]);
    assert_eq!(answer, good(8 + 256 * 16));
    assert_eq!(b.image.calls().len(), 256);
    let sense = run_unmap(&b, &[(0, 1); 257]).sense.unwrap();
    assert_eq!((sense.key, sense.code.0), (SenseKey::IllegalRequest, 0x2600));
    assert_eq!(b.image.calls(), []);
}

#[test]
fn the_buffer_must_hold_the_list() {
    let b = bench();
    let list = list(&[(0, 1)]);
    assert_eq!(b.data_out(&unmap(24), &list[..23]), good(24));
    assert_eq!(b.none(&unmap(24)), good(24));
    assert!(b.run(&unmap(24), IoBuf::owned(100, Direction::In)).answer.transferred > 100);
    assert_eq!(b.image.calls(), []);
}

#[test]
fn refused_forms() {
    let b = bench();
    // ANCHOR: ANC_SUP is 0.
    assert_eq!(b.data_out(&cdb10(0x42, 0x01, 0, 24), &list(&[(0, 1)])), check(invalid_field(1, 0)));
    let b = Bench::new(MemImage::patterned(51_200).read_only());
    assert_eq!(run_unmap(&b, &[(0, 1)]), check(plain(SenseKey::DataProtect, 0x2700)));
    // Thin, and nothing in it may be deallocated.
    let b = Bench::with(MemImage::patterned(51_200).without_unmap().read_only(), |s| s.provisioning = Provisioning::Thin);
    let write_protected = check(plain(SenseKey::DataProtect, 0x2700));
    assert_eq!(run_unmap(&b, &[(0, 1)]), write_protected);
    assert_eq!(b.data_out(&cdb10(0x41, WRITE_SAME_UNMAP, 0, 1), &[0; 512]), write_protected);
    let mut capacity = cdb16(0x9e, 0x10, 0, 32);
    capacity[2..10].fill(0);
    assert_eq!(b.data_in(&capacity, 32).data[14], 0xc0, "LBPME, LBPRZ");
    // LBPU is 0: no such command.
    let b = Bench::new(MemImage::patterned(51_200).without_unmap());
    assert_eq!(run_unmap(&b, &[(0, 1)]), check(plain(SenseKey::IllegalRequest, 0x2000)));
    assert_eq!(b.image.calls(), []);
}

#[test]
fn unmap_errors() {
    let b = bench();
    b.image.fail_writes(99 * 512, BackingError::WriteFailed);
    let failed = check(plain(SenseKey::MediumError, 0x0c02).with_information(98));
    assert_eq!(run_unmap(&b, &[(98, 2)]), failed);
    assert_eq!(run_unmap(&b, &[(0, 1), (98, 2)]), failed);
    b.image.fail_unmaps(BackingError::Unsupported);
    assert_eq!(run_unmap(&b, &[(0, 1)]), check(plain(SenseKey::IllegalRequest, 0x2000)));
}

#[test]
fn unmap_ends_when_its_task_is_aborted() {
    let b = bench();
    let abort = AbortFlag::default();
    let flag = abort.clone();
    b.image.at_call(2, move || flag.raise());
    let list = list(&[(0, 1); 10]);
    let ran = b.run_with(&unmap(list.len()), out_buf(&list), &abort);
    assert_eq!(ran.answer, check(plain(SenseKey::AbortedCommand, 0)));
    assert_eq!(b.image.calls().len(), 2);
}

#[test]
fn without_a_write_cache_deallocation_is_durable() {
    let b = Bench::with(MemImage::patterned(51_200), |s| s.write_cache = false);
    assert_eq!(run_unmap(&b, &[(0, 1)]), good(24));
    assert_eq!(b.image.calls(), [Call::Unmap(0, 512), Call::Flush]);
    b.data_out(&cdb10(0x41, 0, 3, 1), &[0; 512]);
    assert_eq!(b.image.calls(), [Call::WriteZeroes(1536, 512, false), Call::Flush]);
    b.data_out(&cdb10(0x41, 0, 3, 1), &[1; 512]);
    assert_eq!(b.image.calls(), [Call::Write(1536, 512, false), Call::Flush]);
}

/// WRITE SAME(10) 41h, (16) 93h of zeros: one operation.
#[test]
fn write_same_of_zeros() {
    for cdb in [&cdb10(0x41, 0, 10, 5)[..], &cdb16(0x93, 0, 10, 5)] {
        let b = bench();
        assert_eq!(b.data_out(cdb, &[0; 512]), good(512));
        assert_eq!(b.image.calls(), [Call::WriteZeroes(5120, 2560, false)]);
        assert_eq!(b.image.bytes()[5120..7680], [0; 2560]);
    }
    let b = bench();
    b.data_out(&cdb10(0x41, WRITE_SAME_UNMAP, 10, 5), &[0; 512]);
    b.data_out(&cdb16(0x93, WRITE_SAME_UNMAP, 10, 5), &[0; 512]);
    b.none(&cdb16(0x93, WRITE_SAME_UNMAP | WRITE_SAME_NDOB, 10, 5));
    assert_eq!(b.image.calls(), [Call::WriteZeroes(5120, 2560, true); 3]);
    // NDOB has no data.
    assert_eq!(b.none(&cdb16(0x93, WRITE_SAME_NDOB, 10, 5)), good(0));
    assert_eq!(b.image.calls(), [Call::WriteZeroes(5120, 2560, false)]);
}

/// NUMBER OF LOGICAL BLOCKS 0: to the end of the medium (WSNZ 0).
#[test]
fn write_same_to_the_end() {
    let b = bench();
    assert_eq!(b.data_out(&cdb10(0x41, 0, 98, 0), &[0; 512]), good(512));
    assert_eq!(b.data_out(&cdb16(0x93, 0, 0, 0), &[0; 512]), good(512));
    assert_eq!(b.image.calls(), [Call::WriteZeroes(98 * 512, 1024, false), Call::WriteZeroes(0, 51_200, false)]);
    assert_eq!(b.data_out(&cdb10(0x41, 0, 100, 0), &[0; 512]), check(out_of_range(100, 2, 7)));
    assert_eq!(b.data_out(&cdb10(0x41, 0, 99, 2), &[0; 512]), check(out_of_range(100, 2, 7)));
    assert_eq!(b.data_out(&cdb16(0x93, 0, u64::MAX, 1), &[0; 512]), check(out_of_range(u64::MAX, 2, 7)));
}

#[test]
fn write_same_of_a_pattern() {
    for flags in [0, WRITE_SAME_UNMAP] {
        let b = Bench::new(MemImage::new(3 << 20));
        let block: Vec<u8> = (0..512).map(|i| (i % 251) as u8).collect();
        // 2 MiB and one block, from block 3 on.
        assert_eq!(b.data_out(&cdb16(0x93, flags, 3, 4097), &block), good(512));
        assert_eq!(
            b.image.calls(),
            [
                Call::Write(1536, 1 << 20, false),
                Call::Write(1536 + (1 << 20), 1 << 20, false),
                Call::Write(1536 + (2 << 20), 512, false),
            ]
        );
        let bytes = b.image.bytes();
        assert_eq!(bytes[..1536], [0; 1536]);
        assert!(bytes[1536..1536 + 4097 * 512].chunks(512).all(|c| c == block));
        assert!(bytes[1536 + 4097 * 512..].iter().all(|b| *b == 0));
    }
}

#[test]
fn write_same_errors() {
    let b = Bench::new(MemImage::new(3 << 20));
    b.image.fail_writes((2 << 20) + 5, BackingError::NoSpace);
    let failed = |lba| check(plain(SenseKey::DataProtect, 0x2707).with_information(lba));
    assert_eq!(b.data_out(&cdb16(0x93, 0, 0, 0), &[1; 512]), failed(4096), "where the step began");
    assert_eq!(b.data_out(&cdb16(0x93, 0, 5, 0), &[0; 512]), failed(5));
    let abort = AbortFlag::default();
    let flag = abort.clone();
    b.image.at_call(3, move || flag.raise());
    b.image.calls();
    let ran = b.run_with(&cdb16(0x93, 0, 0, 4096), out_buf(&[1; 512]), &abort);
    assert_eq!(ran.answer.status, crate::scsi::Status::Good, "aborted after its last step: done");
    let ran = b.run_with(&cdb16(0x93, 0, 0, 4096), out_buf(&[1; 512]), &abort);
    assert_eq!(ran.answer, check(plain(SenseKey::AbortedCommand, 0)));
}

#[test]
fn write_same_refused_forms() {
    let b = bench();
    assert_eq!(
        b.data_out(&cdb16(0x93, WRITE_SAME_UNMAP | WRITE_SAME_ANCHOR, 0, 1), &[0; 512]),
        check(invalid_field(1, 4))
    );
    for wrong in [&[0; 511][..], &[0; 513], &[1; 1024], &[0; 4096]] {
        let refused = check(plain(SenseKey::IllegalRequest, 0x0e03));
        assert_eq!(b.data_out(&cdb10(0x41, 0, 0, 1), wrong), refused, "{} bytes", wrong.len());
        assert_eq!(b.data_out(&cdb16(0x93, WRITE_SAME_UNMAP, 0, 1), wrong), refused, "{} bytes", wrong.len());
        // NDOB has no data, and what is there is not looked at.
        assert_eq!(b.data_out(&cdb16(0x93, WRITE_SAME_UNMAP | WRITE_SAME_NDOB, 0, 1), wrong), good(0));
    }
    assert_eq!(b.image.calls(), [Call::WriteZeroes(0, 512, true); 4]);
    assert_eq!(b.none(&cdb10(0x41, 0, 0, 1)), good(512));
    assert_eq!(b.image.calls(), []);
    let b = Bench::new(MemImage::new(51_200).read_only());
    assert_eq!(b.data_out(&cdb10(0x41, 0, 0, 1), &[0; 512]), check(plain(SenseKey::DataProtect, 0x2700)));
    let b = Bench::new(MemImage::patterned(51_200).without_unmap());
    assert_eq!(b.data_out(&cdb10(0x41, WRITE_SAME_UNMAP, 0, 1), &[0; 512]), check(invalid_field(1, 3)), "LBPWS10 is 0");
    // Zeros are written where they cannot be made otherwise.
    assert_eq!(b.data_out(&cdb10(0x41, 0, 0, 2), &[0; 512]), good(512));
    assert_eq!(b.image.calls(), [Call::Write(0, 1024, false)]);
}

/// A unit that is set up fully provisioned has nothing of provisioning, whatever its image can do.
#[test]
fn full_provisioning() {
    let b = Bench::with(MemImage::patterned(BLOCKS as usize * 512), |s| s.provisioning = Provisioning::Full);
    let not_there = check(plain(SenseKey::IllegalRequest, 0x2000));
    assert_eq!(run_unmap(&b, &[(0, 1)]), not_there);
    let same = b.data_out(&cdb16(0x93, WRITE_SAME_UNMAP, 0, 1), &[0; 512]);
    assert_eq!(same, check(invalid_field(1, 3)));
    let mut capacity = cdb16(0x9e, 0x10, 0, 32);
    capacity[2..10].fill(0);
    assert_eq!(b.data_in(&capacity, 32).data[14], 0, "LBPME, LBPRZ");
    assert_eq!(b.data_in(&[0x12, 1, 0xb2, 0, 8, 0], 8).data, [0, 0xb2, 0, 4, 0, 0, 0, 0]);
    assert_eq!(b.data_in(&[0x12, 1, 0xb0, 0, 64, 0], 64).data[20..36], [0; 16], "no UNMAP limits");
    assert_eq!(b.data_in(&[0xa3, 0x0c, 1, 0x42, 0, 0, 0, 0, 0, 4, 0, 0], 4).data[1], 1, "UNMAP is not reported");
    assert_eq!(b.image.calls(), [Call::RefreshSize]);
    // Zeros may still be written without writing them.
    assert_eq!(b.data_out(&cdb16(0x93, WRITE_SAME_NDOB, 0, 1), &[]), good(0));
    assert_eq!(b.image.calls(), [Call::WriteZeroes(0, 512, false)]);
}
