//! SBC-3 5.24.

use super::*;
use crate::device_server::testkit::{Call, out_buf, pattern};
use crate::scsi::sbc::overwrite_list as parsed;

/// With IMMED the command is answered when the work has begun; the blocks are written when it is done.
#[test]
fn overwrite_with_immed() {
    let rig = Rig::new(MemImage::patterned(3 * MIB));
    assert_eq!(rig.overwrite(0x81, 0x01, &[0xde, 0xad, 0xbe]), good(7));
    assert_eq!(rig.bench.image.bytes(), pattern(0, 3 * MIB), "nothing is written by the command itself");
    assert_eq!(rig.test_unit_ready(), sanitizing(0));
    rig.background.run();
    assert_eq!(rig.test_unit_ready(), good(0));
    let block: Vec<u8> = [0xde, 0xad, 0xbe].into_iter().cycle().take(512).collect();
    assert_eq!(rig.bench.image.bytes(), block.repeat(3 * MIB / 512), "each block begins with the pattern's first byte");
}

/// Without it, when it is done.
#[test]
fn overwrite_without_immed() {
    let rig = Rig::new(MemImage::patterned(2 * MIB));
    let list = overwrite_list(0x01, &[0x5a; 512]);
    assert_eq!(waiting(&rig, &sanitize(0x01, 516), out_buf(&list)), good(516));
    assert_eq!(rig.bench.image.bytes(), vec![0x5a; 2 * MIB]);
    assert_eq!(rig.test_unit_ready(), good(0));
}

/// The last pass writes the pattern; with INVERT those before it take turns. Each is durable before the next.
#[test]
fn passes() {
    for (byte0, written) in [(0x02, &[0x0f, 0x0f][..]), (0x82, &[0xf0, 0x0f]), (0x83, &[0x0f, 0xf0, 0x0f])] {
        let rig = Rig::new(MemImage::new(8192));
        rig.bench.image.calls();
        assert_eq!(rig.overwrite(0x81, byte0, &[0x0f]), good(5));
        // What was written can only be seen between two passes.
        let seen = Arc::new(std::sync::Mutex::new(Vec::new()));
        let image = Arc::clone(&rig.bench.image);
        let calls: Vec<Call> = written.iter().flat_map(|_| [Call::Write(0, 8192, false), Call::Flush]).collect();
        let look = {
            let (seen, image) = (Arc::clone(&seen), Arc::clone(&image));
            move || seen.lock().unwrap().push(image.bytes()[8191])
        };
        image.at_call(2, look);
        rig.background.run();
        assert_eq!(image.calls(), calls, "{byte0:02x}");
        assert_eq!(*seen.lock().unwrap(), written[..1], "{byte0:02x}: the first pass");
        assert_eq!(image.bytes(), vec![0x0f; 8192], "{byte0:02x}: the last pass");
    }
}

/// Blocks of 4096 bytes, and a pattern that does not divide them.
#[test]
fn overwrite_of_larger_blocks() {
    let rig = Rig::with(MemImage::new(3 * 4096), |setup| setup.block_size = 4096);
    let longest: Vec<u8> = (0..4096).map(|at| (at % 251) as u8).collect();
    assert_eq!(rig.overwrite(0x81, 0x01, &longest), good(4100));
    rig.background.run();
    assert_eq!(rig.bench.image.bytes(), longest.repeat(3));
    let too_long = [&longest[..], &[0]].concat();
    assert_eq!(rig.overwrite(0x81, 0x01, &too_long), invalid_in_cdb(7, 7));
}

/// A fully provisioned unit is written all the same.
#[test]
fn overwrite_where_nothing_is_deallocated() {
    let rig = Rig::new(MemImage::patterned(MIB + 512).without_unmap());
    assert_eq!(rig.overwrite(0x81, 0x01, &[0]), good(5));
    rig.background.run();
    let mib = MIB as u64;
    assert_eq!(rig.bench.image.calls(), [Call::Write(0, mib, false), Call::Write(mib, 512, false), Call::Flush]);
    assert_eq!(rig.bench.image.bytes(), vec![0; MIB + 512]);
}

/// Zeros are written as anything else is: a hole would leave on the host's disk what was there.
#[test]
fn overwriting_with_zeros_writes() {
    let rig = Rig::new(MemImage::patterned(8192));
    rig.bench.image.calls();
    assert_eq!(rig.overwrite(0x81, 0x01, &[0]), good(5));
    rig.background.run();
    assert_eq!(rig.bench.image.calls(), [Call::Write(0, 8192, false), Call::Flush]);
}

/// Every block is deallocated, holes are passed over.
#[test]
fn block_erase() {
    let rig = Rig::new(
        MemImage::patterned(4 * MIB).with_holes(&[MIB as u64..2 * MIB as u64, 2 * MIB as u64..3 * MIB as u64]),
    );
    rig.bench.image.calls();
    assert_eq!(rig.bench.none(&BLOCK_ERASE), good(0));
    assert_eq!(rig.test_unit_ready(), sanitizing(0));
    rig.background.run();
    let calls = rig.bench.image.calls();
    let mib = MIB as u64;
    let unmapped: Vec<Call> = calls.iter().copied().filter(|call| matches!(call, Call::Unmap(..))).collect();
    assert_eq!(unmapped, [Call::Unmap(0, mib), Call::Unmap(3 * mib, mib)]);
    assert_eq!(calls.last(), Some(&Call::Flush), "durable before anybody sees it");
    assert_eq!(rig.test_unit_ready(), good(0));
    let bytes = rig.bench.image.bytes();
    assert!(bytes[..MIB].iter().chain(&bytes[3 * MIB..]).all(|byte| *byte == 0));
}

#[test]
fn block_erase_without_immed() {
    let rig = Rig::new(MemImage::patterned(MIB));
    assert_eq!(waiting(&rig, &sanitize(0x02, 0), IoBuf::empty()), good(0));
    assert_eq!(rig.bench.image.bytes(), vec![0; MIB]);
}

/// There is one where blocks can be unmapped, and the unit says so in three places.
#[test]
fn block_erase_is_for_thin_units() {
    let thin = Rig::new(MemImage::new(8192));
    let full = Rig::with(MemImage::new(8192), |setup| setup.provisioning = crate::lu::Provisioning::Full);
    assert_eq!(full.bench.none(&BLOCK_ERASE), invalid_in_cdb(1, 4));
    for (rig, there) in [(&thin, true), (&full, false)] {
        // REPORT SUPPORTED OPERATION CODES, one command with its service action.
        let support =
            |action| rig.bench.data_in(&[0xa3, 0x0c, 0x02, 0x48, 0, action, 0, 0, 0, 64, 0, 0], 64).data[1] & 7;
        assert_eq!(support(1), 3);
        assert_eq!(support(2), if there { 3 } else { 1 });
        assert_eq!(support(3), 1, "nothing is encrypted");
        assert_eq!(support(0x1f), 3);
        // Block device characteristics: WABEREQ and WACEREQ.
        let page = rig.bench.data_in(&[0x12, 1, 0xb1, 0, 64, 0], 64).data;
        assert_eq!(page[7], if there { 0x40 } else { 0x00 });
    }
}

#[test]
fn overwrite_parameter_lists() {
    let rig = Rig::new(MemImage::new(8192));
    assert_eq!(rig.overwrite(0x81, 0x00, &[0]), invalid_in_list(0, 4), "OVERWRITE COUNT 0");
    assert_eq!(rig.overwrite(0x81, 0x21, &[0]), invalid_in_list(0, 6), "TEST");
    let run = |list: &[u8]| rig.bench.data_out(&sanitize(0x81, list.len() as u16), list);
    assert_eq!(run(&[1, 0, 0, 0, 0]), invalid_in_list(2, 7), "no pattern");
    assert_eq!(run(&[1, 0, 2, 1, 0]), invalid_in_list(2, 7), "more than a block");
    assert_eq!(run(&[1, 1, 0, 1, 0]), invalid_in_list(1, 7), "reserved");
    let truncated = check(Sense::illegal_request(AdditionalSense(0x1a00)));
    assert_eq!(run(&[1, 0, 0, 2, 0]), truncated);
    assert_eq!(
        run(&[&[1, 0, 0, 1][..], &[0; 513]].concat()),
        invalid_in_cdb(7, 7),
        "longer than a block and four bytes"
    );
    // A buffer that is shorter than PARAMETER LIST LENGTH, or goes the wrong way.
    assert_eq!(rig.bench.data_out(&sanitize(0x81, 5), &[1, 0, 0, 1]), good(5));
    assert_eq!(rig.bench.data_in(&sanitize(0x81, 5), 5).answer, good(6));
    assert_eq!(rig.bench.none(&sanitize(0x81, 5)), good(5));
    assert_eq!(rig.background.len(), 0, "none of them did anything");
    assert_eq!(rig.test_unit_ready(), good(0));
    assert!(parsed(&[1, 0, 0, 1, 0], 512).is_ok());
}

#[test]
fn what_is_write_protected_is_not_sanitized() {
    let hardware = check(Sense::data_protect(AdditionalSense(0x2700)));
    let software = check(Sense::data_protect(AdditionalSense(0x2702)));
    let read_only = Rig::new(MemImage::new(8192).read_only());
    assert_eq!(read_only.overwrite(0x81, 0x01, &[0]), hardware);
    assert_eq!(read_only.bench.none(&[0x04, 0, 0, 0, 0, 0]), hardware);
    let protected = Rig::new(MemImage::new(8192));
    // MODE SELECT(6) of the control page with SWP.
    let list = [0, 0, 0, 0, 0x0a, 10, 0x20, 0x10, 0x08, 0, 0, 0, 0, 0, 0, 0];
    assert_eq!(protected.bench.data_out(&[0x15, 0x10, 0, 0, 16, 0], &list), good(16));
    assert_eq!(protected.bench.none(&BLOCK_ERASE), software);
    assert_eq!(protected.overwrite(0x01, 0x01, &[0]), software);
    assert_eq!(protected.bench.none(&[0x04, 0, 0, 0, 0, 0]), software);
    assert_eq!(protected.background.len() + read_only.background.len(), 0);
    assert_eq!(protected.test_unit_ready(), good(0));
}

/// The command that is not answered yet may end; the work goes on.
#[test]
fn a_command_that_is_aborted_leaves_the_work() {
    let rig = Rig::new(MemImage::patterned(MIB));
    let abort = crate::device_server::AbortFlag::default();
    abort.raise();
    let answer = rig.bench.run_with(&sanitize(0x02, 0), IoBuf::empty(), &abort).answer;
    assert_eq!(answer, check(Sense::aborted_command(AdditionalSense(0x0000))));
    assert_eq!(rig.test_unit_ready(), sanitizing(0));
    rig.background.run();
    assert_eq!(rig.test_unit_ready(), good(0));
    assert_eq!(rig.bench.image.bytes(), vec![0; MIB]);
}

/// A stopped unit has to be started first (SBC-3 4.20).
#[test]
fn a_stopped_unit_is_not_sanitized() {
    let rig = Rig::new(MemImage::new(8192));
    assert_eq!(rig.bench.none(&[0x1b, 0, 0, 0, 0, 0]), good(0));
    assert_eq!(rig.bench.none(&BLOCK_ERASE), check(Sense::not_ready(AdditionalSense(0x0402))));
    assert_eq!(rig.background.len(), 0);
}
