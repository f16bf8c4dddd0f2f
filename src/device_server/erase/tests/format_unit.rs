//! SBC-3 5.3.

use super::*;
use crate::backing::BackingError;
use crate::device_server::testkit::{Call, out_buf, pattern};
use crate::lu::Provisioning;

/// FORMAT UNIT 04h: byte 1 FMTPINFO, LONGLIST, FMTDATA, CMPLST, DEFECT LIST FORMAT.
const fn format(byte1: u8) -> [u8; 6] {
    [0x04, byte1, 0, 0, 0, 0]
}

const READ: [u8; 10] = [0x28, 0, 0, 0, 0, 0, 0, 0, 1, 0];

/// NOT READY, LOGICAL UNIT NOT READY, FORMAT IN PROGRESS.
fn formatting(progress: u16) -> Answer {
    check(Sense::not_ready(AdditionalSense(0x0404)).with_progress(progress))
}

/// Without a parameter list there is no IMMED: it is answered when it is done.
#[test]
fn without_a_list() {
    for byte1 in [0x00, 0x08, 0x28] {
        let rig = Rig::new(MemImage::patterned(2 * MIB));
        assert_eq!(waiting(&rig, &format(byte1), IoBuf::empty()), good(0), "{byte1:02x}");
        assert_eq!(rig.bench.image.bytes(), vec![0; 2 * MIB]);
        assert_eq!(rig.test_unit_ready(), good(0));
    }
}

#[test]
fn with_immed() {
    for (byte1, list) in [(0x10, &[0, 0x02, 0, 0][..]), (0x38, &[0, 0xf2, 0, 0, 0, 0, 0, 0])] {
        let rig = Rig::new(MemImage::patterned(MIB));
        assert_eq!(rig.bench.data_out(&format(byte1), list), good(list.len() as u64));
        assert_eq!(rig.test_unit_ready(), formatting(0));
        assert_eq!(rig.request_sense(), [0x70, 0, 0x02, 0, 0, 0, 0, 10, 0, 0, 0, 0, 0x04, 0x04, 0, 0x80, 0, 0]);
        assert_eq!(rig.bench.image.bytes(), pattern(0, MIB));
        rig.background.run();
        assert_eq!(rig.test_unit_ready(), good(0));
        assert_eq!(rig.bench.image.bytes(), vec![0; MIB]);
    }
}

/// A thin unit is deallocated, one that is fully provisioned keeps its blocks: zeroed if the image can do that, else written.
#[test]
fn what_becomes_of_blocks() {
    let list = [0, 0x02, 0, 0];
    let calls_of = |rig: Rig| {
        rig.bench.image.calls();
        assert_eq!(rig.bench.data_out(&format(0x10), &list), good(4));
        rig.background.run();
        assert_eq!(rig.bench.image.bytes(), vec![0; 8192]);
        rig.bench.image.calls()
    };
    let thin = calls_of(Rig::new(MemImage::patterned(8192)));
    assert!(thin.contains(&Call::Unmap(0, 8192)), "{thin:?}");
    let full = calls_of(Rig::with(MemImage::patterned(8192), |setup| setup.provisioning = Provisioning::Full));
    assert_eq!(full, [Call::WriteZeroes(0, 8192, false), Call::Flush]);
    let plain = calls_of(Rig::new(MemImage::patterned(8192).without_unmap()));
    assert_eq!(plain, [Call::Write(0, 8192, false), Call::Flush]);
}

#[test]
fn initialization_patterns() {
    let cases: [(&[u8], u8, bool); 3] = [
        // The default pattern, as the device likes.
        (&[0, 0x8a, 0, 0, 0, 0, 0, 0], 0x00, false),
        // SI: it is to be written.
        (&[0, 0x8a, 0, 0, 0x20, 0, 0, 0], 0x00, true),
        // One that is given.
        (&[0, 0x8a, 0, 0, 0, 1, 0, 1, 0xc3], 0xc3, true),
    ];
    for (list, byte, written) in cases {
        let rig = Rig::new(MemImage::patterned(8192));
        assert_eq!(rig.bench.data_out(&format(0x10), list), good(list.len() as u64));
        rig.bench.image.calls();
        rig.background.run();
        assert_eq!(rig.bench.image.bytes(), vec![byte; 8192]);
        assert_eq!(rig.bench.image.calls().contains(&Call::Write(0, 8192, false)), written, "{list:02x?}");
    }
    // As long as a block, with a long header; the buffer may be longer than the list.
    let rig = Rig::with(MemImage::new(2 * 4096), |setup| setup.block_size = 4096);
    let block: Vec<u8> = (0..4096).map(|at| (at % 253) as u8).collect();
    let list = [&[0, 0x8a, 0, 0, 0, 0, 0, 0, 0, 1, 0x10, 0][..], &block, &[9; 8]].concat();
    assert_eq!(rig.bench.data_out(&format(0x30), &list), good(4108));
    rig.background.run();
    assert_eq!(rig.bench.image.bytes(), block.repeat(2));
}

#[test]
fn lists_that_are_refused() {
    let rig = Rig::new(MemImage::patterned(8192));
    let short = |list: &[u8]| rig.bench.data_out(&format(0x10), list);
    assert_eq!(short(&[0x01, 0, 0, 0]), invalid_in_list(0, 0), "protection information");
    assert_eq!(short(&[0, 0x40, 0, 0]), invalid_in_list(1, 6), "DPRY without FOV");
    assert_eq!(short(&[0, 0, 0, 4, 0, 0, 0, 0]), invalid_in_list(2, 7), "defects");
    assert_eq!(short(&[0, 0x88, 0, 0, 0, 2, 0, 1, 0]), invalid_in_list(5, 7), "a pattern type that there is not");
    assert_eq!(short(&[0, 0x88, 0, 0, 0, 1, 2, 1]), invalid_in_list(6, 7), "more than a block");
    let long = |list: &[u8]| rig.bench.data_out(&format(0x30), list);
    assert_eq!(long(&[0, 0, 0, 0, 0, 0, 0, 4]), invalid_in_list(4, 7), "defects");
    assert_eq!(long(&[0, 0, 0, 1, 0, 0, 0, 0]), invalid_in_list(3, 0), "PROTECTION INTERVAL EXPONENT");
    // Buffers that are shorter than the list, or go the wrong way: nothing is done.
    assert_eq!(short(&[0, 2, 0]), good(4));
    assert_eq!(long(&[0, 2, 0, 0]), good(8));
    assert_eq!(short(&[0, 0x8a, 0, 0, 0, 1]), good(8));
    assert_eq!(short(&[0, 0x8a, 0, 0, 0, 1, 0, 2, 7]), good(10));
    assert_eq!(rig.bench.none(&format(0x10)), good(4));
    assert_eq!(rig.bench.data_in(&format(0x10), 16).answer, good(17));
    assert_eq!(rig.background.len(), 0);
    assert_eq!((rig.test_unit_ready(), rig.bench.image.bytes()), (good(0), pattern(0, 8192)));
}

/// What needs the medium is refused until a format succeeds; what does not is performed.
#[test]
fn a_format_that_fails() {
    let rig = Rig::new(MemImage::patterned(8192));
    rig.bench.image.fail_unmaps(BackingError::WriteFailed);
    let failed = medium_error(0x3101);
    assert_eq!(waiting(&rig, &format(0x00), IoBuf::empty()), failed);
    let late = rig.other();
    for bench in [&rig.bench, &late] {
        assert_eq!(bench.none(&TEST_UNIT_READY), failed);
        assert_eq!(bench.data_in(&READ, 512).answer, failed);
        assert_eq!(bench.data_in(&[0x1a, 0, 0x0a, 0, 255, 0], 255).answer.sense, None, "MODE SENSE");
        assert_eq!(bench.data_in(&[0x25, 0, 0, 0, 0, 0, 0, 0, 0, 0], 8).answer.sense, None, "READ CAPACITY");
    }
    assert_eq!(rig.request_sense()[12..14], [0x31, 0x01]);
    assert_eq!(rig.bench.none(&EXIT_FAILURE_MODE), good(0), "it is not about formats");
    assert_eq!(rig.test_unit_ready(), failed);
    // Another one, with a pattern, so that nothing need be deallocated.
    assert_eq!(rig.bench.data_out(&format(0x10), &[0, 0x8a, 0, 0, 0, 1, 0, 1, 0xc3]), good(9));
    assert_eq!(rig.test_unit_ready(), formatting(0));
    rig.background.run();
    assert_eq!(rig.test_unit_ready(), good(0));
    assert_eq!(late.data_in(&READ, 512).data, vec![0xc3; 512]);
}

/// A successful overwrite leaves no format that is corrupt (SBC-3 5.24.2.2).
#[test]
fn sanitize_after_a_format_that_failed() {
    let rig = Rig::new(MemImage::patterned(8192));
    rig.bench.image.fail_unmaps(BackingError::NoSpace);
    assert_eq!(rig.bench.data_out(&format(0x10), &[0, 2, 0, 0]), good(4));
    rig.background.run();
    assert_eq!(rig.test_unit_ready(), medium_error(0x3101));
    let list = overwrite_list(0x01, &[0x42]);
    assert_eq!(waiting(&rig, &sanitize(0x01, 5), out_buf(&list)), good(5));
    assert_eq!(rig.test_unit_ready(), good(0));
}
