use super::*;
use crate::backing::BackingError;
use crate::device_server::testkit::{Bench, Call, MemImage, check, good, out_buf, pattern};
use crate::device_server::{AbortFlag, Plan, Request, start};
use crate::lu::{Extent, Touches};
use crate::mem::{Direction, IoBuf, SnapshotSet, testing};
use crate::scsi::TaskAttribute;

fn bench() -> Bench {
    Bench::new(MemImage::patterned(51_200))
}

/// COMPARE AND WRITE 89h: byte 1 WRPROTECT, DPO (10h), FUA (08h), bytes 2–9 LBA, byte 13 NUMBER OF LOGICAL BLOCKS.
fn caw(flags: u8, lba: u64, blocks: u8) -> [u8; 16] {
    cdb16(0x89, flags, lba, blocks.into())
}

/// What is compared, then what is written.
fn both(compare: &[u8], write: &[u8]) -> Vec<u8> {
    [compare, write].concat()
}

fn miscompare(at: u64) -> Sense {
    plain(SenseKey::Miscompare, 0x1d00).with_information(at)
}

#[test]
fn what_is_the_same_is_replaced() {
    for blocks in [1u8, 3, 96] {
        let b = bench();
        let len = usize::from(blocks) * 512;
        let new = vec![0x5a; len];
        assert_eq!(b.data_out(&caw(0, 3, blocks), &both(&pattern(1536, len), &new)), good(2 * len as u64));
        assert_eq!(b.image.calls(), [Call::Read(1536, len as u64), Call::Write(1536, len as u64, false)]);
        let bytes = b.image.bytes();
        assert_eq!(bytes[1536..1536 + len], new);
        assert_eq!(bytes[..1536], pattern(0, 1536));
        assert_eq!(bytes[1536 + len..], pattern(1536 + len as u64, 51_200 - 1536 - len));
        // What was there is there no more.
        assert_eq!(b.data_out(&caw(0, 3, blocks), &both(&pattern(1536, len), &new)), check(miscompare(0)));
    }
}

/// INFORMATION is the offset, in the Data-Out buffer, of the first byte that differs.
#[test]
fn what_is_not_the_same_stays() {
    let b = bench();
    for at in [0, 1, 511, 512, 1000, 1535] {
        let mut expected = pattern(5120, 1536);
        expected[at] ^= 0x80;
        expected[1535] ^= 1;
        assert_eq!(b.data_out(&caw(0, 10, 3), &both(&expected, &[0; 1536])), check(miscompare(at as u64)));
        assert_eq!(b.image.calls(), [Call::Read(5120, 1536)]);
    }
    assert_eq!(b.image.bytes(), pattern(0, 51_200));
    let fixed = miscompare(1000).encode(crate::scsi::SenseFormat::Fixed, 18);
    assert_eq!(fixed, [0xf0, 0, 0x0e, 0, 0, 0x03, 0xe8, 10, 0, 0, 0, 0, 0x1d, 0x00, 0, 0, 0, 0]);
}

#[test]
fn blocks_of_4096_bytes() {
    let b = Bench::with(MemImage::patterned(8 * 4096), |s| s.block_size = 4096);
    assert_eq!(b.data_out(&caw(0, 7, 1), &both(&pattern(7 * 4096, 4096), &[1; 4096])), good(8192));
    assert_eq!(b.image.bytes()[7 * 4096..], [1; 4096]);
    assert_eq!(b.data_out(&caw(0, 8, 1), &[0; 8192]), check(out_of_range(8, 2, 7)));
}

#[test]
fn no_blocks_are_no_error() {
    let b = bench();
    assert_eq!(b.none(&caw(0x18, 99, 0)), good(0));
    assert_eq!(b.data_out(&caw(0, 0, 0), &[1; 1024]), good(0));
    assert_eq!(b.none(&caw(0, 100, 0)), check(out_of_range(100, 2, 7)));
    assert_eq!(b.image.calls(), []);
}

/// As the Block Limits VPD page says: byte 5, MAXIMUM COMPARE AND WRITE LENGTH.
#[test]
fn the_longest() {
    for (block_size, longest) in [(512, 128), (4096, 16)] {
        let b = Bench::with(MemImage::new(1 << 20), |s| s.block_size = block_size);
        assert_eq!(b.data_in(&[0x12, 1, 0xb0, 0, 64, 0], 64).data[5], longest);
        assert_eq!(b.data_out(&caw(0, 0, longest + 1), &[0; 256 << 10]), check(invalid_field(13, 7)));
        assert_eq!(b.data_out(&caw(0, 0, 255), &[]), check(invalid_field(13, 7)));
        assert_eq!(b.image.calls(), []);
        assert_eq!(b.data_out(&caw(0, 0, longest), &both(&[0; 64 << 10], &[7; 64 << 10])), good(128 << 10));
        assert_eq!(b.image.bytes()[..64 << 10], [7; 64 << 10]);
        assert_eq!(b.image.bytes()[64 << 10..], [0; (1 << 20) - (64 << 10)]);
    }
}

#[test]
fn out_of_range_and_protected() {
    let b = bench();
    assert_eq!(b.data_out(&caw(0, 100, 1), &[0; 1024]), check(out_of_range(100, 2, 7)));
    assert_eq!(b.data_out(&caw(0, 98, 3), &[0; 3072]), check(out_of_range(100, 2, 7)));
    assert_eq!(b.data_out(&caw(0, u64::MAX, 255), &[0; 1024]), check(out_of_range(u64::MAX, 2, 7)));
    assert_eq!(b.data_out(&caw(0x20, 0, 1), &[0; 1024]), check(invalid_field(1, 5)), "WRPROTECT");
    assert_eq!(b.image.calls(), []);

    let b = Bench::new(MemImage::new(51_200).read_only());
    let protected = check(plain(SenseKey::DataProtect, 0x2700));
    assert_eq!(b.data_out(&caw(0, 0, 1), &both(&[0; 512], &[1; 512])), protected);
    // MODE SELECT(6) of the control mode page with SWP.
    let b = bench();
    let mut control = b.data_in(&[0x1a, 0x08, 0x0a, 0, 16, 0], 16).data;
    control[0] = 0;
    control[2] = 0;
    control[4 + 4] |= 0x08;
    assert_eq!(b.data_out(&[0x15, 0x10, 0, 0, 16, 0], &control), good(16));
    let protected = check(plain(SenseKey::DataProtect, 0x2702));
    assert_eq!(b.data_out(&caw(0, 0, 1), &both(&pattern(0, 512), &[1; 512])), protected);
    assert_eq!(b.image.bytes(), pattern(0, 51_200));
}

/// Twice as many bytes as blocks.
#[test]
fn a_buffer_too_short_costs_the_command_its_effect() {
    let b = bench();
    let same = pattern(0, 1023);
    assert_eq!(b.data_out(&caw(0, 0, 1), &same[..512]), good(1024));
    assert_eq!(b.data_out(&caw(0, 0, 1), &same), good(1024));
    assert_eq!(b.none(&caw(0, 0, 1)), good(1024));
    assert!(b.data_in(&caw(0, 0, 1), 4096).answer.transferred > 4096);
    assert_eq!(b.image.calls(), []);
    // One that is too long is used as far as it goes.
    assert_eq!(b.data_out(&caw(0, 0, 1), &both(&pattern(0, 512), &[9; 2048])), good(1024));
    assert_eq!(b.image.bytes()[..1024], both(&[9; 512], &pattern(512, 512)));
}

#[test]
fn durability() {
    let data = both(&pattern(512, 512), &pattern(512, 512));
    let b = bench();
    b.data_out(&caw(0x10, 1, 1), &data);
    assert_eq!(b.image.calls(), [Call::Read(512, 512), Call::Write(512, 512, false)], "DPO");
    b.data_out(&caw(0x18, 1, 1), &data);
    // FUA: what is compared is on the medium, too.
    assert_eq!(b.image.calls(), [Call::Flush, Call::Read(512, 512), Call::Write(512, 512, true)]);
    b.image.fail_flushes(BackingError::FlushFailed);
    assert_eq!(b.data_out(&caw(0x08, 1, 1), &data), check(plain(SenseKey::HardwareError, 0x4400)));

    let b = Bench::with(MemImage::patterned(51_200), |s| s.write_cache = false);
    for flags in [0, 0x08] {
        b.data_out(&caw(flags, 1, 1), &data);
        assert_eq!(b.image.calls(), [Call::Read(512, 512), Call::Write(512, 512, true)], "WCE 0");
    }
}

#[test]
fn errors_become_sense_data_and_are_counted() {
    let b = bench();
    let data = both(&pattern(2048, 2048), &[1; 2048]);
    let medium = |code| check(plain(SenseKey::MediumError, code).with_information(4));
    b.image.fail_writes(5 * 512, BackingError::WriteFailed);
    assert_eq!(b.data_out(&caw(0, 4, 4), &data), medium(0x0c02));
    b.image.fail_writes(5 * 512, BackingError::NoSpace);
    let no_space = plain(SenseKey::DataProtect, 0x2707).with_information(4);
    assert_eq!(b.data_out(&caw(0, 4, 4), &data), check(no_space));
    b.image.fail_reads(5 * 512, BackingError::ReadFailed);
    assert_eq!(b.data_out(&caw(0, 4, 4), &data), medium(0x1100));
    assert_eq!(b.image.bytes(), pattern(0, 51_200));
    let errors = b.itl.lu().errors().get();
    assert_eq!((errors.read, errors.write, errors.verify), (1, 1, 0));
}

/// A task that is being ended writes nothing any more; one that has written says so.
#[test]
fn an_abort_comes_before_the_write_or_too_late() {
    let data = both(&pattern(0, 512), &[1; 512]);
    for (call, expected) in [(1, check(plain(SenseKey::AbortedCommand, 0))), (2, good(1024))] {
        let b = bench();
        let abort = AbortFlag::default();
        let flag = abort.clone();
        b.image.at_call(call, move || flag.raise());
        assert_eq!(b.run_with(&caw(0, 0, 1), out_buf(&data), &abort).answer, expected);
        let written = b.image.bytes()[..512] == [1; 512];
        assert_eq!(written, call == 2);
    }
}

/// Its guest changes the buffer while the medium is read: that changes neither what is compared nor what is written.
#[test]
fn the_data_are_copied_once() {
    let mut guest = SnapshotSet::new(testing::memory(&[(0, 1 << 20)]));
    let mut resolve = |direction| guest.resolve(direction, [(0x3000, 1024)].into_iter(), IoBuf::empty()).unwrap();
    let (buf, mut scribble) = (resolve(Direction::Out), resolve(Direction::In));
    scribble.write_at(0, &both(&pattern(0, 512), &[1; 512]));
    let b = bench();
    b.image.at_call(1, move || {
        assert_eq!(scribble.write_at(0, &[0xbd; 1024]), 1024);
    });
    let ran = b.run(&caw(0, 0, 1), buf);
    assert_eq!((ran.answer, ran.data), (good(1024), vec![0xbd; 1024]));
    assert_eq!(b.image.bytes()[..512], [1; 512]);
}

/// Nobody else may use the blocks meanwhile, and it waits for those who use them.
#[test]
fn it_holds_its_blocks() {
    let b = bench();
    let mut buf = out_buf(&[0; 4096]);
    let cdb = caw(0, 10, 4);
    let attribute = TaskAttribute::Simple;
    let request = Request {
        cdb: &cdb,
        itl: Some(&b.itl),
        luns: &b.luns,
        peers: &b.peers,
        well_known: None,
        attribute,
        passes: &[],
    };
    let started = start(&request, &mut buf);
    let blocks = Extent { offset: 5120, len: 2048 };
    assert_eq!(started.touches, Touches::Blocks(blocks));
    let Plan::Exclusive(exclusive) = started.plan else { panic!("exclusive") };
    assert_eq!(exclusive.extent, blocks);
}
