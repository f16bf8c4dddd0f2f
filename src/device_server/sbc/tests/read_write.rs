use super::*;
use crate::backing::{BackingError, OpKind};
use crate::device_server::testkit::{Bench, Call, MemImage, check, contents, good, out_buf, pattern};
use crate::device_server::{Finish, Plan};
use crate::mem::{Direction, IoBuf};

const BLOCKS: u32 = 100;

fn bench() -> Bench {
    Bench::new(MemImage::patterned(BLOCKS as usize * 512))
}

/// READ of one block by each CDB length, at the first and the last LBA.
#[test]
fn read_of_every_length() {
    let b = bench();
    let last = u64::from(BLOCKS - 1);
    for lba in [0, last] {
        let [.., hi, lo] = (lba as u16).to_be_bytes();
        let cdbs: [&[u8]; 4] = [
            &[0x08, 0x00, hi, lo, 0x01, 0x00], // READ(6): LBA 21 bits, 1 block
            &cdb10(0x28, 0, lba as u32, 1),
            &cdb12(0xa8, 0, lba as u32, 1),
            &cdb16(0x88, 0, lba, 1),
        ];
        for cdb in cdbs {
            let ran = b.data_in(cdb, 512);
            assert_eq!(ran.answer, good(512), "{cdb:02x?}");
            assert_eq!(ran.data, pattern(lba * 512, 512), "{cdb:02x?}");
            assert_eq!(b.image.calls(), [Call::Read(lba * 512, 512)]);
        }
    }
}

#[test]
fn a_read_is_exactly_one_operation() {
    let b = bench();
    let mut buf = IoBuf::owned(50 * 512, Direction::In);
    let cdb = cdb10(0x28, 0, 10, 50);
    let Plan::Io(io) = b.plan(&cdb, &mut buf) else { panic!("one operation") };
    assert_eq!((io.op.kind, io.op.offset, io.op.len), (OpKind::Read, 5120, 25_600));
    assert_eq!(io.finish, Finish { lba: 10, transferred: 25_600 });
    assert_eq!(b.image.calls(), []);
}

/// READ(6) and WRITE(6): TRANSFER LENGTH 0 is 256 blocks (SBC-3 5.10).
#[test]
fn six_byte_zero_is_256() {
    let b = Bench::new(MemImage::patterned(300 * 512));
    let ran = b.data_in(&[0x08, 0, 0, 3, 0, 0], 256 * 512);
    assert_eq!(ran.answer, good(256 * 512));
    assert_eq!(ran.data, pattern(3 * 512, 256 * 512));
    assert_eq!(b.data_out(&[0x0a, 0, 0, 44, 0, 0], &vec![7; 256 * 512]), good(256 * 512));
    assert_eq!(b.data_out(&[0x0a, 0, 0, 45, 0, 0], &vec![7; 256 * 512]), check(out_of_range(300, 1, 4)));
}

#[test]
fn ranges_past_the_end() {
    let b = bench();
    let lba_field = |cdb: &[u8]| if cdb.len() == 6 { (1, 4) } else { (2, 7) };
    let past: &[(Vec<u8>, u64)] = &[
        (vec![0x08, 0x00, 0, 100, 1, 0], 100),
        (vec![0x08, 0x00, 0, 99, 2, 0], 100),
        (vec![0x08, 0x1f, 0xff, 0xff, 1, 0], 0x1f_ffff),
        (cdb10(0x28, 0, 100, 1).into(), 100),
        (cdb10(0x28, 0, 99, 2).into(), 100),
        (cdb10(0x28, 0, u32::MAX, 0xffff).into(), u64::from(u32::MAX)),
        (cdb12(0xa8, 0, 0, 101).into(), 100),
        (cdb12(0xa8, 0, u32::MAX, u32::MAX).into(), u64::from(u32::MAX)),
        (cdb16(0x88, 0, u64::MAX, u32::MAX).into(), u64::MAX),
        (cdb16(0x88, 0, 1 << 63, 1).into(), 1 << 63),
        (cdb16(0x88, 0, 1, u32::MAX).into(), 100),
        // With no block to move the first one must exist all the same.
        (cdb10(0x28, 0, 100, 0).into(), 100),
        (cdb16(0x88, 0, u64::MAX, 0).into(), u64::MAX),
    ];
    for (cdb, lba) in past {
        let (byte, bit) = lba_field(cdb);
        let mut write = cdb.clone();
        write[0] += 2;
        assert_eq!(b.data_in(cdb, 1024).answer, check(out_of_range(*lba, byte, bit)), "{cdb:02x?}");
        assert_eq!(b.data_out(&write, &[0; 1024]), check(out_of_range(*lba, byte, bit)), "{write:02x?}");
    }
    assert_eq!(b.image.calls(), []);
}

#[test]
fn zero_blocks_move_nothing() {
    let b = bench();
    for cdb in [&cdb10(0x28, 0, 0, 0)[..], &cdb12(0xa8, 0, 99, 0), &cdb16(0x88, 0, 5, 0)] {
        assert_eq!(b.none(cdb), good(0));
        assert_eq!(b.data_in(cdb, 512).answer, good(0));
    }
    for cdb in [&cdb10(0x2a, 0, 0, 0)[..], &cdb12(0xaa, 0, 99, 0), &cdb16(0x8a, 0x08, 5, 0)] {
        assert_eq!(b.none(cdb), good(0));
        assert_eq!(b.data_out(cdb, &[1; 512]), good(0));
    }
    assert_eq!(b.image.calls(), []);
}

#[test]
fn writes_of_every_length_land() {
    let cdbs: [&[u8]; 4] =
        [&[0x0a, 0, 0, 99, 1, 0], &cdb10(0x2a, 0, 99, 1), &cdb12(0xaa, 0, 99, 1), &cdb16(0x8a, 0, 99, 1)];
    for (i, cdb) in cdbs.into_iter().enumerate() {
        let b = bench();
        let data = vec![i as u8 + 1; 512];
        assert_eq!(b.data_out(cdb, &data), good(512));
        assert_eq!(b.image.calls(), [Call::Write(99 * 512, 512, false)]);
        assert_eq!(b.image.bytes()[99 * 512..], data);
        assert_eq!(b.image.bytes()[..99 * 512], pattern(0, 99 * 512));
    }
}

#[test]
fn blocks_of_4096_bytes() {
    let b = Bench::with(MemImage::patterned(8 * 4096), |s| s.block_size = 4096);
    let ran = b.data_in(&cdb10(0x28, 0, 7, 1), 4096);
    assert_eq!((ran.answer, ran.data), (good(4096), pattern(7 * 4096, 4096)));
    assert_eq!(b.data_in(&cdb10(0x28, 0, 8, 1), 4096).answer, check(out_of_range(8, 2, 7)));
    assert_eq!(b.data_out(&cdb16(0x8a, 0, 0, 2), &[9; 8192]), good(8192));
}

#[test]
fn a_buffer_too_short_or_backwards_does_nothing() {
    let b = bench();
    let read = cdb10(0x28, 0, 0, 2);
    let write = cdb10(0x2a, 0, 0, 2);
    assert_eq!(b.data_in(&read, 1023).answer, good(1024));
    assert_eq!(b.none(&read), good(1024));
    let wrong = b.run(&read, out_buf(&[0; 4096]));
    assert!(wrong.answer.transferred > 4096);
    assert_eq!(b.data_out(&write, &[0; 512]), good(1024));
    assert_eq!(b.data_in(&write, 1024).answer, good(1025));
    assert_eq!(b.none(&write), good(1024));
    assert_eq!(b.image.calls(), []);
    // A longer buffer is left alone past the end.
    let ran = b.data_in(&read, 1030);
    assert_eq!(ran.answer, good(1024));
    assert_eq!(ran.data[1024..], [0xee; 6]);
}

/// MAXIMUM TRANSFER LENGTH is 16 MiB; more is INVALID FIELD IN CDB at the TRANSFER LENGTH field.
#[test]
fn no_more_than_the_maximum_transfer_length() {
    let b = Bench::new(MemImage::new(512).claiming(1 << 42));
    let max = 32_768;
    let ok = |cdb: &[u8]| b.none(cdb);
    assert_eq!(ok(&cdb10(0x28, 0, 0, max as u16)), good(16 << 20), "only the buffer is missing");
    assert_eq!(ok(&cdb10(0x28, 0, 0, max as u16 + 1)), check(invalid_field(7, 7)));
    assert_eq!(ok(&cdb12(0xa8, 0, 0, max)), good(16 << 20));
    assert_eq!(ok(&cdb12(0xaa, 0, 0, max + 1)), check(invalid_field(6, 7)));
    assert_eq!(ok(&cdb16(0x88, 0, 0, max)), good(16 << 20));
    assert_eq!(ok(&cdb16(0x8a, 0, 0, u32::MAX)), check(invalid_field(10, 7)));
}

#[test]
fn fua_and_dpo() {
    let b = bench();
    let (dpo, fua) = (0x10, 0x08);
    for (opcode, len) in [(0x2a, 10), (0xaa, 12), (0x8a, 16)] {
        let cdb: Vec<u8> = match len {
            10 => cdb10(opcode, dpo | fua, 1, 1).into(),
            12 => cdb12(opcode, dpo | fua, 1, 1).into(),
            _ => cdb16(opcode, dpo | fua, 1, 1).into(),
        };
        assert_eq!(b.data_out(&cdb, &[1; 512]), good(512));
        assert_eq!(b.image.calls(), [Call::Write(512, 512, true)], "{cdb:02x?}");
    }
    // What a FUA read returns is on the medium, even if it was written a moment ago.
    let ran = b.data_in(&cdb10(0x28, dpo | fua, 2, 1), 512);
    assert_eq!((ran.answer, ran.data), (good(512), pattern(1024, 512)));
    assert_eq!(b.image.calls(), [Call::Read(1024, 512), Call::Flush]);
    b.data_in(&cdb10(0x28, dpo, 2, 1), 512);
    assert_eq!(b.image.calls(), [Call::Read(1024, 512)]);
}

#[test]
fn without_a_write_cache_every_write_is_durable() {
    let b = Bench::with(MemImage::patterned(51_200), |s| s.write_cache = false);
    b.data_out(&[0x0a, 0, 0, 0, 1, 0], &[1; 512]);
    b.data_in(&cdb10(0x28, 0x08, 2, 1), 512);
    // A write that is under way may be read before it is durable.
    assert_eq!(b.image.calls(), [Call::Write(0, 512, true), Call::Read(1024, 512), Call::Flush]);
}

#[test]
fn a_read_only_unit_is_never_written() {
    let b = Bench::new(MemImage::new(51_200).read_only());
    let protect = check(plain(SenseKey::DataProtect, 0x2700));
    assert_eq!(b.data_out(&cdb10(0x2a, 0, 0, 1), &[1; 512]), protect);
    assert_eq!(b.data_out(&cdb16(0x8a, 0, 0, 1), &[1; 512]), protect);
    assert_eq!(b.data_in(&cdb10(0x28, 0, 0, 1), 512).answer, good(512));
    let b = Bench::with(MemImage::new(51_200), |s| s.read_only = true);
    assert_eq!(b.data_out(&cdb10(0x2a, 0, 0, 1), &[1; 512]), protect);
}

#[test]
fn errors_become_sense_data() {
    let b = bench();
    b.image.fail_reads(5 * 512, BackingError::ReadFailed);
    let medium = |code| plain(SenseKey::MediumError, code).with_information(4);
    assert_eq!(b.data_in(&cdb10(0x28, 0, 4, 4), 2048).answer, check(medium(0x1100)));
    assert_eq!(b.data_in(&cdb10(0x28, 0x08, 4, 4), 2048).answer, check(medium(0x1100)), "FUA");
    b.image.fail_writes(5 * 512, BackingError::WriteFailed);
    assert_eq!(b.data_out(&cdb10(0x2a, 0, 4, 4), &[0; 2048]), check(medium(0x0c02)));
    b.image.fail_writes(5 * 512, BackingError::NoSpace);
    let no_space = plain(SenseKey::DataProtect, 0x2707).with_information(4);
    assert_eq!(b.data_out(&cdb10(0x2a, 0, 4, 4), &[0; 2048]), check(no_space));
    b.image.fail_flushes(BackingError::FlushFailed);
    assert_eq!(
        b.data_in(&cdb10(0x28, 0x08, 0, 1), 512).answer,
        check(plain(SenseKey::HardwareError, 0x4400)),
        "FUA read that cannot be made good"
    );
    // A file that shrank under us: the unit is bigger than its image.
    let b = Bench::new(MemImage::new(1024).claiming(51_200));
    let gone = plain(SenseKey::IllegalRequest, 0x2100).with_information(1);
    assert_eq!(b.data_in(&cdb10(0x28, 0, 1, 2), 1024).answer, check(gone));
}

#[test]
fn data_is_left_alone_on_refusal() {
    let b = bench();
    let mut buf = IoBuf::owned(512, Direction::In);
    buf.write_at(0, &[0xee; 512]);
    let Plan::Done(answer) = b.plan(&cdb10(0x28, 0, 100, 1), &mut buf) else { panic!("refused") };
    assert_eq!(answer.transferred, 0);
    assert_eq!(contents(&buf), [0xee; 512]);
}
