use super::*;
use crate::backing::BackingError;
use crate::device_server::Plan;
use crate::device_server::testkit::nexus_of;
use crate::device_server::testkit::{Bench, MemImage, check, execute, good, out_buf};
use crate::device_server::{AbortFlag, Request, start};
use crate::lu::{Attention, Itl};
use crate::mem::{Direction, IoBuf};
use std::sync::Arc;

/// READ CAPACITY(16) 9Eh/10h.
fn cdb(length: u32) -> [u8; 16] {
    let mut cdb = cdb16(0x9e, 0x10, 0, length);
    cdb[2..10].fill(0);
    cdb
}

/// READ CAPACITY(10) 25h: last LBA, block length.
#[test]
fn ten() {
    let b = Bench::new(MemImage::new(51_200));
    let ran = b.data_in(&cdb10(0x25, 0, 0, 0), 8);
    assert_eq!(ran.answer, good(8));
    assert_eq!(ran.data, [0, 0, 0, 99, 0, 0, 2, 0]);
    // Beyond 32 bits: FFFFFFFFh.
    let b = Bench::with(MemImage::new(0).claiming(4096 << 32), |s| s.block_size = 4096);
    assert_eq!(b.data_in(&cdb10(0x25, 0, 0, 0), 8).data, [0xff, 0xff, 0xff, 0xff, 0, 0, 0x10, 0]);
    let b = Bench::with(MemImage::new(0).claiming((1 << 32) * 512 + 512), |_| ());
    assert_eq!(b.data_in(&cdb10(0x25, 0, 0, 0), 8).data[..4], [0xff; 4]);
    assert_eq!(b.data_in(&cdb10(0x25, 0, 0, 0), 4).answer, good(8), "overflow");
}

/// READ CAPACITY(16) 9Eh/10h.
#[test]
fn sixteen() {
    let b = Bench::with(MemImage::new(51_200), |s| s.physical_exponent = 3);
    let ran = b.data_in(&cdb(32), 32);
    assert_eq!(ran.answer, good(32));
    let mut expected = [0; 32];
    expected[7] = 99; // last LBA
    expected[10] = 2; // 512
    expected[13] = 3; // physical exponent
    expected[14] = 0xc0; // LBPME, LBPRZ
    assert_eq!(ran.data, expected);
    let b = Bench::with(MemImage::new(51_200), |s| (s.physical_exponent, s.lowest_aligned) = (3, 7));
    assert_eq!(b.data_in(&cdb(32), 32).data[12..16], [0, 3, 0xc0, 7], "lowest aligned LBA");
    let b = Bench::new(MemImage::new(51_200).without_unmap());
    assert_eq!(b.data_in(&cdb(32), 32).data[12..16], [0, 0, 0, 0], "fully provisioned");
    for (asked, got) in [(0, 0), (1, 1), (12, 12), (32, 32), (255, 32)] {
        let ran = b.data_in(&cdb(asked), 64);
        assert_eq!(ran.answer, good(got));
        assert!(ran.data[got as usize..].iter().all(|b| *b == 0xee));
    }
}

/// Runs a command for another nexus of a bench's unit.
fn by(itl: &Arc<Itl>, cdb: &[u8], len: usize) -> (crate::device_server::Answer, Vec<u8>) {
    let mut buf = IoBuf::owned(len, Direction::In);
    let attribute = crate::scsi::TaskAttribute::Simple;
    let request = Request {
        cdb,
        itl: Some(itl),
        luns: &[0],
        peers: &crate::device_server::testkit::NoPeers,
        well_known: None,
        attribute,
        passes: &[],
    };
    let plan = start(&request, &mut buf).plan;
    let answer = execute(plan, &mut buf, &AbortFlag::default());
    let mut data = vec![0; len];
    buf.read_at(0, &mut data);
    (answer, data)
}

/// The image grew: who asks is told the new size, everybody else that it changed, once; and what is new can be used.
#[test]
fn growth() {
    for image in [MemImage::new(51_200), MemImage::new(51_200).waiting()] {
        let b = Bench::new(image);
        let (other, third) = (nexus_of(b.itl.lu().clone(), None), nexus_of(b.itl.lu().clone(), None));
        b.image.resize(102_400);
        let write = cdb10(0x2a, 0, 150, 1);
        assert_eq!(b.data_out(&write, &[7; 512]), check(out_of_range(150, 2, 7)), "nobody has asked");

        assert_eq!(b.data_in(&cdb(32), 32).data[..8], [0, 0, 0, 0, 0, 0, 0, 199]);
        assert_eq!(b.none(&[0; 6]), good(0), "it knows");
        assert_eq!(b.data_out(&write, &[7; 512]), good(512));
        let changed = check(plain(SenseKey::UnitAttention, 0x2a09));
        for itl in [&other, &third] {
            assert_eq!(by(itl, &[0; 6], 0).0, changed);
            assert_eq!(by(itl, &[0; 6], 0).0, good(0), "once");
            let ten = by(itl, &cdb10(0x25, 0, 0, 0), 8);
            assert_eq!(ten, (good(8), vec![0, 0, 0, 199, 0, 0, 2, 0]));
            assert_eq!(by(itl, &cdb10(0x28, 0, 150, 1), 512), (good(512), vec![7; 512]));
        }
        assert_eq!(b.none(&[0; 6]), good(0), "that others asked changed nothing");
    }
}

/// READ CAPACITY reports a pending change before it looks for another one.
#[test]
fn a_nexus_that_was_not_told_is_told_first() {
    let b = Bench::new(MemImage::new(51_200));
    let other = nexus_of(b.itl.lu().clone(), None);
    b.image.resize(102_400);
    b.data_in(&cdb(32), 32);
    assert_eq!(by(&other, &cdb(32), 32).0, check(plain(SenseKey::UnitAttention, 0x2a09)));
    b.image.resize(51_200 * 3);
    assert_eq!(by(&other, &cdb(32), 32).1[4..8], 299_u32.to_be_bytes());
    assert_eq!(b.none(&[0; 6]), check(plain(SenseKey::UnitAttention, 0x2a09)));
}

/// READ CAPACITY(10) looks, too; and of a file that grew by less than a block nothing is new.
#[test]
fn ten_looks_too() {
    let b = Bench::with(MemImage::new(8192), |s| s.block_size = 4096);
    let other = nexus_of(b.itl.lu().clone(), None);
    b.image.resize(8192 + 4095);
    assert_eq!(b.data_in(&cdb10(0x25, 0, 0, 0), 8).data[..4], [0, 0, 0, 1]);
    assert_eq!(other.gate().take_attention(), None);
    b.image.resize(8192 + 4096);
    assert_eq!(b.data_in(&cdb10(0x25, 0, 0, 0), 8).data[..4], [0, 0, 0, 2]);
    assert_eq!(other.gate().take_attention(), Some(Attention::CapacityChanged));
}

/// The image became smaller: told likewise, and blocks that are gone are out of range.
#[test]
fn shrinking() {
    let b = Bench::new(MemImage::patterned(51_200));
    let other = nexus_of(b.itl.lu().clone(), None);
    b.image.resize(25_600);
    assert_eq!(b.data_in(&cdb(32), 32).data[..8], [0, 0, 0, 0, 0, 0, 0, 49]);
    assert_eq!(other.gate().take_attention(), Some(Attention::CapacityChanged));
    assert_eq!(b.data_in(&cdb10(0x28, 0, 49, 1), 512).answer, good(512));
    assert_eq!(b.data_in(&cdb10(0x28, 0, 50, 1), 512).answer, check(out_of_range(50, 2, 7)));
}

/// A unit has at least one block, whatever became of its image.
#[test]
fn a_unit_is_never_empty() {
    let b = Bench::new(MemImage::new(51_200));
    let other = nexus_of(b.itl.lu().clone(), None);
    b.image.resize(0);
    assert_eq!(b.data_in(&cdb(32), 32).data[..8], [0, 0, 0, 0, 0, 0, 0, 99]);
    assert_eq!(other.gate().take_attention(), None);
}

/// Asking for the size may wait: only an image that never does is asked on the spot.
#[test]
fn no_waiting_on_the_spot() {
    let b = Bench::new(MemImage::new(51_200).waiting());
    let cdb = cdb(32);
    let mut buf = IoBuf::owned(32, Direction::In);
    assert!(matches!(b.plan(&cdb, &mut buf), Plan::Job(_)));
    assert!(b.image.calls().is_empty());
    // A buffer too short, or of the wrong direction, is found out all the same.
    assert_eq!(b.data_in(&cdb, 31).answer, good(32));
    assert!(b.run(&cdb, out_buf(&[0; 64])).answer.transferred > 64);
}

#[test]
fn an_image_that_cannot_be_asked() {
    for image in [MemImage::new(51_200), MemImage::new(51_200).waiting()] {
        let b = Bench::new(image);
        b.image.fail_size(BackingError::ReadFailed);
        let failed = check(plain(SenseKey::MediumError, 0x1100).with_information(0));
        assert_eq!(b.data_in(&cdb(32), 32).answer, failed);
    }
}
