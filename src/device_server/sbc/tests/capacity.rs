use super::*;
use crate::device_server::testkit::{Bench, MemImage, good};

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
    let cdb = |length: u32| {
        let mut cdb = cdb16(0x9e, 0x10, 0, length);
        cdb[2..10].fill(0);
        cdb
    };
    let ran = b.data_in(&cdb(32), 32);
    assert_eq!(ran.answer, good(32));
    let mut expected = [0; 32];
    expected[7] = 99; // last LBA
    expected[10] = 2; // 512
    expected[13] = 3; // physical exponent
    expected[14] = 0xc0; // LBPME, LBPRZ
    assert_eq!(ran.data, expected);
    let b = Bench::new(MemImage::new(51_200).without_unmap());
    assert_eq!(b.data_in(&cdb(32), 32).data[12..16], [0, 0, 0, 0], "fully provisioned");
    for (asked, got) in [(0, 0), (1, 1), (12, 12), (32, 32), (255, 32)] {
        let ran = b.data_in(&cdb(asked), 64);
        assert_eq!(ran.answer, good(got));
        assert!(ran.data[got as usize..].iter().all(|b| *b == 0xee));
    }
}
