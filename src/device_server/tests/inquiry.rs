use super::*;
use crate::device_server::testkit::{check, good, out_buf};
use crate::lu::{Attention, DEFAULT_VENDOR, Itl, NexusId, TargetPort};

/// INQUIRY 12h: byte 1 EVPD, byte 2 page, bytes 3–4 allocation length.
fn inquiry(evpd: u8, page: u8, length: u16) -> Vec<u8> {
    let [hi, lo] = length.to_be_bytes();
    vec![0x12, evpd, page, hi, lo, 0]
}

fn vpd(b: &Bench, page: u8) -> Vec<u8> {
    at_all_allocation_lengths(b, |length| inquiry(1, page, length))
}

#[test]
fn standard_data() {
    let data = at_all_allocation_lengths(&bench(), |length| inquiry(0, 0, length));
    assert_eq!(data.len(), 96);
    assert_eq!(data[0], 0x00, "connected, direct access");
    assert_eq!(data[1], 0x00, "not removable");
    assert_eq!(data[2], 0x06, "SPC-4");
    assert_eq!(data[3], 0x32, "NORMACA, HISUP, response data format 2");
    assert_eq!(data[4], 91);
    assert_eq!((data[5], data[6]), (0x38, 0x00), "TPGS 11b, 3PC, one port");
    assert_eq!(data[7] & 0x02, 0x02, "CMDQUE");
    assert_eq!(&data[8..36], b"IBM     VDASD blkdev    0001");
    assert_eq!(data[58..74], [0x00, 0xa0, 0x04, 0x60, 0x04, 0xc0, 0x09, 0x40, 0, 0, 0, 0, 0, 0, 0, 0]);
}

#[test]
fn names_can_be_set() {
    let b = Bench::with(MemImage::new(512), |s| {
        s.vendor = "ACME".into();
        s.product = "Disk of sorts".into();
        s.revision = "9".into();
    });
    let data = b.data_in(&inquiry(0, 0, 36), 36).data;
    assert_eq!(&data[8..36], b"ACME    Disk of sorts   9   ");
    assert_eq!(DEFAULT_VENDOR, "IBM");
}

/// What follows IBM's name, and no other vendor's.
#[test]
fn standard_data_tells_where_the_unit_is() {
    let b = bench();
    b.itl.found_at(3, 300);
    let data = at_all_allocation_lengths(&b, |length| inquiry(0, 0, length));
    assert_eq!((data.len(), data[4]), (254, 249));
    assert_eq!(data[96..132], *b"IBM-VSCSI-vstgt-P1-30000001-0-3-300\0");
    assert_eq!(data[132..], [0; 122]);
    let b = Bench::with(MemImage::new(512), |s| s.vendor = "ACME".into());
    b.itl.found_at(3, 300);
    assert_eq!(at_all_allocation_lengths(&b, |length| inquiry(0, 0, length)).len(), 96);
}

#[test]
fn supported_pages_are_all_there() {
    let b = bench();
    assert_eq!(vpd(&b, 0x00), [0, 0x00, 0, 10, 0x00, 0x80, 0x83, 0x86, 0x87, 0x88, 0x8f, 0xb0, 0xb1, 0xb2]);
    for page in 0..=0xff {
        let answer = b.data_in(&inquiry(1, page, 255), 255).answer;
        if [0x00, 0x80, 0x83, 0x86, 0x87, 0x88, 0x8f, 0xb0, 0xb1, 0xb2].contains(&page) {
            assert!(answer.sense.is_none(), "{page:02x}");
        } else {
            assert_eq!(answer, check(invalid_field(2, 7)), "{page:02x}");
        }
    }
}

#[test]
fn serial_and_identification() {
    let b = bench();
    assert_eq!(vpd(&b, 0x80), *b"\x00\x80\x00\x08SERIAL01");
    let mut expected = vec![0x00, 0x83, 0x00, 108];
    // Binary, LU, NAA, 8 bytes.
    expected.extend([0x01, 0x03, 0x00, 0x08, 0x31, 0x23, 0x45, 0x67, 0x89, 0xab, 0xcd, 0xef]);
    // ASCII, LU, T10 vendor ID, 32 bytes.
    expected.extend(*b"\x02\x01\x00\x20IBM     VDASD blkdev    SERIAL01");
    // The target port: UTF-8, SCSI name string; then relative target port and target port group, binary, all of SRP.
    expected.extend(*b"\x43\x98\x00\x28eui.00000000000000000000000000000000\0\0\0\0");
    expected.extend([0x41, 0x94, 0, 4, 0, 0, 0, 1, 0x41, 0x95, 0, 4, 0, 0, 0, 1]);
    assert_eq!(vpd(&b, 0x83), expected);
    // An EUI-64 and a UUID come after the NAA.
    let b = Bench::with(MemImage::new(512), |s| {
        s.eui = Some(vec![0x02, 0x11, 0x22, 0xff, 0xfe, 0x33, 0x44, 0x55]);
        s.uuid = Some([0xa1; 16]);
    });
    let data = vpd(&b, 0x83);
    assert_eq!(data[..4], [0x00, 0x83, 0x00, 108 + 12 + 22]);
    assert_eq!(data[4..16], expected[4..16]);
    assert_eq!(data[16..28], [0x01, 0x02, 0x00, 0x08, 0x02, 0x11, 0x22, 0xff, 0xfe, 0x33, 0x44, 0x55]);
    assert_eq!(data[28..34], [0x01, 0x0a, 0x00, 0x12, 0x10, 0x00]);
    assert_eq!(data[34..50], [0xa1; 16]);
    assert_eq!(data[50..], expected[16..]);
    // The longest serial number still fits its designator.
    let b = Bench::with(MemImage::new(512), |s| s.serial = "x".repeat(crate::lu::MAX_SERIAL));
    let data = b.data_in(&inquiry(1, 0x83, 0xffff), 1000);
    assert_eq!(data.answer, good(4 + 12 + 4 + 252 + 60));
    assert_eq!(data.data[19], 252);
    assert_eq!(data.data[20 + 251], b'x');
}

#[test]
fn block_limits_are_those_that_are_enforced() {
    let data = vpd(&bench(), 0xb0);
    assert_eq!(data.len(), 64);
    assert_eq!(data[..4], [0x00, 0xb0, 0x00, 0x3c]);
    assert_eq!(data[4], 0, "WSNZ 0: WRITE SAME to the end");
    assert_eq!(data[5], 128, "MAXIMUM COMPARE AND WRITE LENGTH: 64 KiB");
    assert_eq!(data[8..12], 32_768u32.to_be_bytes(), "MAXIMUM TRANSFER LENGTH");
    assert_eq!(data[20..24], [0xff; 4], "MAXIMUM UNMAP LBA COUNT");
    assert_eq!(data[24..28], 256u32.to_be_bytes(), "MAXIMUM UNMAP BLOCK DESCRIPTOR COUNT");
    assert_eq!(data[28..32], 8u32.to_be_bytes(), "OPTIMAL UNMAP GRANULARITY: 4096 bytes");
    assert_eq!(data[32..36], [0x80, 0, 0, 0], "UGAVALID");
    assert_eq!(data[36..44], [0; 8], "MAXIMUM WRITE SAME LENGTH: none");
    assert_eq!(data[44..], [0; 20], "no WRITE ATOMIC");
    let b = Bench::with(MemImage::new(8192).without_unmap(), |s| {
        s.block_size = 4096;
        s.physical_exponent = 1;
    });
    let data = b.data_in(&inquiry(1, 0xb0, 64), 64).data;
    assert_eq!(data[6..8], [0, 2], "OPTIMAL TRANSFER LENGTH GRANULARITY");
    assert_eq!(data[5], 16);
    assert_eq!(data[8..12], 4096u32.to_be_bytes());
    assert_eq!(data[20..36], [0; 16], "no UNMAP");
}

#[test]
fn characteristics_and_provisioning() {
    let b = bench();
    assert_eq!(vpd(&b, 0xb1)[..10], [0, 0xb1, 0, 0x3c, 0, 1, 0, 0, 0x03, 0], "not rotating, FUAB, VBULS");
    assert_eq!(vpd(&b, 0xb2), [0, 0xb2, 0, 4, 0, 0xe4, 2, 0], "LBPU LBPWS LBPWS10 LBPRZ, thin");
    let b = Bench::with(MemImage::new(512).without_unmap(), |s| s.rotation_rate = 7200);
    assert_eq!(vpd(&b, 0xb1)[4..6], 7200u16.to_be_bytes());
    assert_eq!(vpd(&b, 0xb1)[8], 0x02, "FUAB, nothing is unmapped");
    assert_eq!(vpd(&b, 0xb2), [0, 0xb2, 0, 4, 0, 0, 0, 0]);
    assert_eq!(vpd(&b, 0x87), [0, 0x87, 0, 4, 0x3f, 0xff, 0, 0], "all mode pages are shared");
    assert_eq!(vpd(&b, 0x86)[..8], [0, 0x86, 0, 0x3c, 0, 0x17, 0x01, 0]);
}

#[test]
fn refused_forms() {
    let b = bench();
    assert_eq!(b.data_in(&inquiry(0, 0x80, 96), 96).answer, check(invalid_field(2, 7)), "page without EVPD");
    assert_eq!(b.data_in(&[0x12, 0x02, 0, 0, 96, 0], 96).answer, check(invalid_field(1, 1)), "CMDDT is obsolete");
    // Backwards buffer.
    assert!(b.run(&inquiry(0, 0, 96), out_buf(&[0; 200])).answer.transferred > 200);
}

#[test]
fn unit_attentions_stay() {
    let b = bench();
    b.itl.gate().establish(Attention::PowerOn);
    assert_eq!(b.data_in(&inquiry(0, 0, 96), 96).answer, good(96));
    assert_eq!(b.none(&[0; 6]), check(plain(SenseKey::UnitAttention, 0x2900)));
}

/// Two nexuses on two ports: one unit, by one name, and each sees the port that it came by.
#[test]
fn a_unit_with_two_ports() {
    let ports =
        [TargetPort { relative: 7, id: [0x77; 16], group: 3 }, TargetPort { relative: 2, id: [0x22; 16], group: 1 }];
    let first = Bench::with(MemImage::new(512), |s| s.ports = ports.to_vec());
    let nexus = |port| Itl::new(first.itl.lu().clone(), NexusId { initiator: [1; 16], port }, None);
    let on = |port| Bench::of(first.image.clone(), nexus(port));
    let (two, seven) = (on(2), on(7));
    for b in [&two, &seven] {
        assert_eq!(b.data_in(&inquiry(0, 0, 96), 96).data[5..7], [0x38, 0x10], "TPGS 11b, 3PC, MULTIP");
    }
    let (by_two, by_seven) = (vpd(&two, 0x83), vpd(&seven, 0x83));
    assert_eq!(by_two[..52], by_seven[..52]);
    assert_eq!(by_two[56..96], *b"eui.22222222222222222222222222222222\0\0\0\0");
    assert_eq!(by_two[96..], [0x41, 0x94, 0, 4, 0, 0, 0, 2, 0x41, 0x95, 0, 4, 0, 0, 0, 1]);
    assert_eq!(by_seven[56..96], *b"eui.77777777777777777777777777777777\0\0\0\0");
    assert_eq!(by_seven[96..], [0x41, 0x94, 0, 4, 0, 0, 0, 7, 0x41, 0x95, 0, 4, 0, 0, 0, 3]);

    // The SCSI Ports page names both, whichever the command came by.
    let mut page = vec![0x00, 0x88, 0, 112];
    page.extend([0, 0, 0, 2, 0, 0, 0, 0, 0, 0, 0, 44]);
    page.extend(*b"\x43\x98\x00\x28eui.22222222222222222222222222222222\0\0\0\0");
    page.extend([0, 0, 0, 7, 0, 0, 0, 0, 0, 0, 0, 44]);
    page.extend(*b"\x43\x98\x00\x28eui.77777777777777777777777777777777\0\0\0\0");
    assert_eq!(vpd(&two, 0x88), page);
    assert_eq!(vpd(&seven, 0x88), page);
}
