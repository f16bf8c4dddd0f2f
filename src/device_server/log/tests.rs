use super::super::testkit::{Bench, MemImage, check, good};
use super::*;
use crate::backing::BackingError;
use crate::device_server::testkit::nexus_of;
use crate::lu::Attention;
use crate::scsi::FieldPointer;
use crate::scsi::spc::LogErrors;

/// LOG SENSE 4Dh: byte 2 PC and page, byte 3 subpage, bytes 5–6 parameter pointer, bytes 7–8 allocation length.
fn log_sense(page: u8, length: u16) -> [u8; 10] {
    let [hi, lo] = length.to_be_bytes();
    [0x4d, 0, 0x40 | page, 0, 0, 0, 0, hi, lo, 0]
}

/// LOG SELECT 4Ch: byte 1 PCR, byte 2 PC and page, byte 3 subpage, bytes 7–8 parameter list length.
fn log_select(pcr: u8, page: u8, subpage: u8, length: u8) -> [u8; 10] {
    [0x4c, pcr << 1, 0x40 | page, subpage, 0, 0, 0, 0, length, 0]
}

fn bench() -> Bench {
    Bench::new(MemImage::patterned(51_200))
}

fn invalid_field(byte: u16, bit: u8) -> Answer {
    check(Sense::invalid_field_in_cdb(FieldPointer::cdb(byte, bit)))
}

/// A bench whose medium cannot be read or written at its first block, after one failed write, read, and two failed VERIFYs.
fn failing() -> Bench {
    let b = bench();
    b.image.fail_reads(0, BackingError::ReadFailed);
    b.image.fail_writes(0, BackingError::WriteFailed);
    // READ(10) with FUA, WRITE AND VERIFY(10), VERIFY(10): jobs.
    assert!(b.data_in(&[0x28, 0x08, 0, 0, 0, 0, 0, 0, 1, 0], 512).answer.sense.is_some());
    assert!(b.data_out(&[0x2e, 0, 0, 0, 0, 0, 0, 0, 1, 0], &[0; 512]).sense.is_some());
    for _ in 0..2 {
        assert!(b.none(&[0x2f, 0, 0, 0, 0, 0, 0, 0, 1, 0]).sense.is_some());
    }
    b
}

/// TOTAL UNCORRECTED ERRORS of a page.
fn count(b: &Bench, page: u8) -> u64 {
    let ran = b.data_in(&log_sense(page, 40), 40);
    assert_eq!(ran.answer, good(40));
    assert_eq!(ran.data[28..32], [0, 6, 0x20, 8]);
    ran.data[32..].iter().fold(0, |count, byte| count << 8 | u64::from(*byte))
}

fn counts(b: &Bench) -> [u64; 3] {
    [0x02, 0x03, 0x05].map(|page| count(b, page))
}

#[test]
fn errors_of_the_medium_are_counted_and_no_others() {
    let b = failing();
    assert_eq!(counts(&b), [1, 1, 2]);
    assert_eq!(b.none(&[0x2f, 0, 0, 0, 0, 1, 0, 0, 1, 0]), good(0));
    assert!(b.none(&[0x2f, 0, 0, 0, 0, 200, 0, 0, 1, 0]).sense.is_some(), "out of range");
    assert!(b.data_out(&[0x2f, 2, 0, 0, 0, 1, 0, 0, 1, 0], &[0xaa; 512]).sense.is_some(), "miscompare");
    assert_eq!(counts(&b), [1, 1, 2]);
}

#[test]
fn stops_are_counted() {
    let b = bench();
    for (start, cycles) in [(0, 1), (0, 1), (1, 1), (0, 2)] {
        assert_eq!(b.none(&[0x1b, 0, 0, 0, start, 0]), good(0));
        let ran = b.data_in(&log_sense(0x0e, 64), 12);
        assert_eq!(ran.data, [0x8e, 0, 0, 8, 0, 4, 0x23, 4, 0, 0, 0, cycles]);
    }
}

#[test]
fn self_tests_are_listed() {
    let b = bench();
    b.image.fail_reads(600, BackingError::ReadFailed);
    assert!(b.none(&[0x1d, 0xa0, 0, 0, 0, 0]).sense.is_some());
    let data = b.data_in(&log_sense(0x10, 1000), 1000).data;
    assert_eq!(data[..12], [0x90, 0, 0x01, 0x90, 0, 1, 0x23, 0x10, 0xa5, 1, 0, 0]);
    assert_eq!(data[12..24], [0, 0, 0, 0, 0, 0, 0, 0, 0x03, 0x11, 0x00, 0]);
    assert_eq!(counts(&b), [0; 3], "a failed test is no failed command");
}

/// Read and write commands that were begun, and their blocks; no others.
#[test]
fn commands_are_counted() {
    let b = bench();
    let other = nexus_of(b.itl.lu().clone(), None);
    let counts = || {
        let data = b.data_in(&log_sense(0x19, 100), 100).data;
        let count = |at: usize| data[at..at + 8].iter().fold(0, |count, byte| count << 8 | u64::from(*byte));
        [count(8), count(16), count(24), count(32)]
    };
    assert_eq!(counts(), [0; 4]);
    assert_eq!(b.data_in(&[0x28, 0, 0, 0, 0, 0, 0, 0, 3, 0], 1536).answer, good(1536));
    assert_eq!(b.data_in(&[0x08, 0, 0, 0, 1, 0], 512).answer, good(512));
    assert_eq!(b.data_out(&[0x2a, 0, 0, 0, 0, 0, 0, 0, 2, 0], &[0; 1024]), good(1024));
    assert_eq!(b.data_out(&[0x2e, 0, 0, 0, 0, 0, 0, 0, 1, 0], &[0; 512]), good(512));
    assert_eq!(counts(), [2, 2, 3, 4]);
    assert!(b.data_in(&[0x28, 0, 0, 0, 0, 200, 0, 0, 1, 0], 512).answer.sense.is_some());
    assert_eq!(b.none(&[0x2f, 0, 0, 0, 0, 0, 0, 0, 1, 0]), good(0));
    assert_eq!(counts(), [2, 2, 3, 4], "refused, or neither reads nor writes");
    // TOTAL BYTES PROCESSED of the error counter pages.
    let processed = |page| b.data_in(&log_sense(page, 40), 40).data[16..28].to_vec();
    for (page, bytes) in [(0x02, 3 * 512u64), (0x03, 4 * 512), (0x05, 512)] {
        assert_eq!(processed(page), [&[0, 5, 0x20, 8], &bytes.to_be_bytes()[..]].concat(), "{page:02x}");
    }
    assert_eq!(b.none(&log_select(1, 0x03, 0, 0)), good(0));
    assert_eq!((processed(0x03)[4..].to_vec(), counts()), (vec![0; 8], [2, 2, 3, 4]));
    assert_eq!(other.gate().take_attention(), Some(Attention::LogParametersChanged));
    assert_eq!(b.none(&log_select(1, 0x19, 0, 0)), good(0));
    assert_eq!(other.gate().take_attention(), Some(Attention::LogParametersChanged));
    assert_eq!(counts(), [0; 4]);
    assert_eq!(b.data_in(&[0x08, 0, 0, 0, 1, 0], 512).answer, good(512));
    assert_eq!(counts(), [1, 0, 0, 1]);
}

#[test]
fn allocation_lengths() {
    let b = bench();
    let whole = [0, 0, 0, 9, 0x00, 0x02, 0x03, 0x05, 0x0d, 0x0e, 0x10, 0x19, 0x2f];
    for (length, moved) in [(0, 0), (1, 1), (13, 13), (14, 13), (0xffff, 13)] {
        let ran = b.data_in(&log_sense(0, length), 64);
        assert_eq!(ran.answer, good(moved as u64));
        assert_eq!(ran.data[..moved], whole[..moved]);
        assert!(ran.data[moved..].iter().all(|byte| *byte == 0xee));
    }
}

#[test]
fn refused() {
    let b = bench();
    assert_eq!(b.data_in(&log_sense(0x0c, 64), 64).answer, invalid_field(2, 5), "no thresholds");
    assert_eq!(b.data_in(&[0x4d, 1, 0x40, 0, 0, 0, 0, 0, 64, 0], 64).answer, invalid_field(1, 0), "SP");
    assert_eq!(b.data_in(&[0x4d, 2, 0x40, 0, 0, 0, 0, 0, 64, 0], 64).answer, invalid_field(1, 1), "PPC is obsolete");
    assert_eq!(b.data_in(&[0x4d, 0, 0x43, 1, 0, 0, 0, 0, 64, 0], 64).answer, invalid_field(3, 7));
    assert_eq!(b.data_in(&[0x4d, 0, 0x43, 0, 0, 0, 7, 0, 64, 0], 64).answer, invalid_field(5, 7));
    assert_eq!(b.data_in(&[0x4d, 0, 0x03, 0, 0, 0, 0, 0, 64, 0], 64).answer, invalid_field(2, 7), "thresholds");
    assert_eq!(b.none(&[0x4c, 1, 0x40, 0, 0, 0, 0, 0, 0, 0]), invalid_field(1, 0), "SP");
    assert_eq!(b.data_out(&log_select(1, 0, 0, 4), &[0; 4]), invalid_field(1, 1), "PCR with a list");
    assert_eq!(b.data_out(&log_select(0, 3, 0, 4), &[0; 4]), invalid_field(2, 5), "a page with a list");
    assert_eq!(b.data_out(&log_select(0, 0, 1, 4), &[0; 4]), invalid_field(3, 7));
    assert_eq!(b.none(&log_select(1, 0x0c, 0, 0)), invalid_field(2, 5));
    assert_eq!(b.none(&log_select(1, 0x03, 1, 0)), invalid_field(3, 7));
}

#[test]
fn resets_and_settings_are_told_to_the_others() {
    let b = failing();
    let other = nexus_of(b.itl.lu().clone(), None);
    assert_eq!(b.none(&log_select(0, 0, 0, 0)), good(0));
    assert_eq!(other.gate().take_attention(), None, "nothing changed");
    assert_eq!(b.none(&log_select(1, 0x03, 0, 0)), good(0));
    assert_eq!(other.gate().take_attention(), Some(Attention::LogParametersChanged));
    assert_eq!(counts(&b), [1, 0, 2]);
    let list = [0x03, 0, 0, 6, 0, 6, 0x20, 2, 1, 0];
    assert_eq!(b.data_out(&log_select(0, 0, 0, 10), &list), good(10));
    assert_eq!(other.gate().take_attention(), Some(Attention::LogParametersChanged));
    assert_eq!(counts(&b), [1, 256, 2]);
    assert_eq!(b.data_out(&log_select(0, 0, 0, 10), &list[..9]), good(10), "overflow");
    let wrong = [0x03, 0, 0, 6, 0, 6, 0x20, 2, 0, 0, 0x04, 0, 0, 0];
    assert!(b.data_out(&log_select(0, 0, 0, 14), &wrong).sense.is_some());
    assert_eq!(counts(&b), [1, 256, 2], "all or nothing");
    assert_eq!(b.none(&log_select(1, 0, 0, 0)), good(0));
    assert_eq!(b.itl.lu().errors().get(), LogErrors::default());
    assert_eq!(b.itl.gate().take_attention(), None);
}
