//! A thin unit whose file system runs out of space: what it is told by, and when.

use super::*;
use crate::device_server::testkit::{check, good, nexus_of};
use crate::lu::{Attention, Crossing, Lu, LuSetup, SetupError, SoftThreshold};
use crate::scsi::FieldPointer;
use std::sync::Arc;

const MIB: u64 = 1 << 20;

/// A unit of 100 MiB whose image takes 10 and a half of them, with so much left.
fn with(available: u64, change: impl FnOnce(&mut LuSetup)) -> Bench {
    let image = MemImage::new(0).claiming(100 * MIB);
    image.set_space(10 * MIB + MIB / 2, available);
    Bench::with(image, change)
}

fn look(b: &Bench) -> Crossing {
    b.itl.lu().look_at_space().unwrap().1
}

fn left(b: &Bench, available: u64) -> Crossing {
    b.image.set_space(0, available);
    look(b)
}

/// The Logical Block Provisioning page, MODE SENSE(10) 5Ah with DBD, without its header.
fn page(b: &Bench, control: u8) -> Vec<u8> {
    b.data_in(&[0x5a, 0x08, control << 6 | 0x1c, 0x02, 0, 0, 0, 0, 32, 0], 32).data[8..].to_vec()
}

/// MODE SELECT(10) 55h of one page.
fn select(b: &Bench, page: &[u8]) -> crate::device_server::Answer {
    let list = [&[0; 8], page].concat();
    b.data_out(&[0x55, 0x10, 0, 0, 0, 0, 0, 0, list.len() as u8, 0], &list)
}

#[test]
fn every_nexus_is_told_once() {
    let b = with(50 * MIB, |_| ());
    let other = nexus_of(b.itl.lu().clone(), None);
    let told = || [&b.itl, &other].map(|itl| itl.gate().take_attention());
    // 5 % of 100 sets of 1 MiB.
    for (available, crossing) in [
        (50 * MIB, Crossing::None),
        (5 * MIB, Crossing::None),
        (9 * MIB / 2, Crossing::None),
        (9 * MIB / 2 - 1, Crossing::Reached),
        (0, Crossing::None),
        (5 * MIB, Crossing::None),
        (11 * MIB / 2, Crossing::None),
        (MIB, Crossing::None),
        (11 * MIB / 2 + 1, Crossing::Left),
        (50 * MIB, Crossing::None),
        (MIB, Crossing::Reached),
    ] {
        assert_eq!(left(&b, available), crossing, "{available}");
        let expected = (crossing == Crossing::Reached).then_some(Attention::ThinProvisioningThreshold);
        assert_eq!(told(), [expected; 2], "{available}");
    }
    left(&b, 50 * MIB);
    left(&b, MIB);
    assert_eq!(b.none(&[0; 6]), check(plain(SenseKey::UnitAttention, 0x3807)));
}

/// A nexus that begins while there is too little space hears of it; a process that goes on does not say it again.
#[test]
fn who_comes_later_is_told_and_nobody_twice() {
    let b = with(MIB, |_| ());
    assert_eq!(look(&b), Crossing::Reached);
    b.itl.gate().take_attention();
    let late = nexus_of(b.itl.lu().clone(), Some(Attention::PowerOn));
    assert_eq!(late.gate().pending(), [Attention::PowerOn, Attention::ThinProvisioningThreshold]);
    let kept = b.itl.lu().snapshot();
    let next = |percent| {
        with(MIB, |s| {
            s.kept = Some(kept.clone());
            s.threshold = SoftThreshold::Percent(percent);
        })
    };
    assert_eq!(look(&next(5)), Crossing::None, "all know");
    assert_eq!(look(&next(6)), Crossing::Reached, "another one");
    let rebooted = with(MIB, |s| s.kept = Some(kept.clone().after_power_loss()));
    assert_eq!(look(&rebooted), Crossing::Reached);
}

#[test]
fn pages_tell_of_it() {
    let b = with(50 * MIB, |_| ());
    let provisioning = b.data_in(&[0x12, 1, 0xb2, 0, 8, 0], 8).data;
    assert_eq!(provisioning, [0, 0xb2, 0, 4, 11, 0xe4, 2, 0], "sets of 2048 blocks");
    let threshold = [0x5c, 0x02, 0, 20, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0x80, 0x01, 0, 0, 0, 0, 0, 5];
    assert_eq!(page(&b, 0b00), threshold);
    assert_eq!(page(&b, 0b10), threshold);
    let recovery = b.data_in(&[0x1a, 0x08, 0x01, 0, 16, 0], 16).data;
    assert_eq!(recovery[4..], [0x01, 10, 0xc0, 0, 0, 0, 0, 0x80, 0, 0, 0, 0], "LBPERE");
    let sense = |length: u16| {
        let [hi, lo] = length.to_be_bytes();
        vec![0x4d, 0, 0x4c, 0, 0, 0, 0, hi, lo, 0]
    };
    let log = at_all_allocation_lengths(&b, sense);
    let mut expected = vec![0x8c, 0, 0, 24, 0, 1, 0x23, 8, 0, 0, 0, 50, 0x02, 0, 0, 0];
    expected.extend([0, 2, 0x23, 8, 0, 0, 0, 11, 0x01, 0, 0, 0]);
    assert_eq!(log, expected);
    let past = b.data_in(&[0x4d, 0, 0x4c, 0, 0, 0, 3, 0, 64, 0], 64).answer;
    assert_eq!(past, check(Sense::invalid_field_in_cdb(FieldPointer::cdb(5, 7))));
}

/// By the threshold itself and by LBPERE; changing it arms it.
#[test]
fn an_initiator_sets_it() {
    let b = with(50 * MIB, |_| ());
    let other = nexus_of(b.itl.lu().clone(), None);
    let mut threshold = page(&b, 0);
    threshold[23] = 60;
    assert_eq!(select(&b, &threshold), good(32));
    assert_eq!(other.gate().take_attention(), Some(Attention::ModeParametersChanged));
    assert_eq!(look(&b), Crossing::Reached);
    assert_eq!(other.gate().take_attention(), Some(Attention::ThinProvisioningThreshold));
    b.itl.gate().take_attention();
    threshold[23] = 70;
    assert_eq!(select(&b, &threshold), good(32));
    assert_eq!(look(&b), Crossing::Reached, "it is another one");
    b.itl.gate().take_attention();
    threshold[16] = 0x00;
    assert_eq!(select(&b, &threshold), good(32));
    assert_eq!(look(&b), Crossing::None, "disabled");
    threshold[16] = 0x80;
    assert_eq!(select(&b, &threshold), good(32));
    let recovery = [0x01, 10, 0xc0, 0, 0, 0, 0, 0, 0, 0, 0, 0];
    assert_eq!(select(&b, &recovery), good(20));
    assert_eq!(look(&b), Crossing::None, "LBPERE is zero");
    b.itl.lu().reset();
    b.itl.gate().take_attention();
    assert_eq!((look(&b), left(&b, MIB)), (Crossing::None, Crossing::Reached), "the default after a reset");
}

#[test]
fn it_is_set_up_or_there_is_none() {
    let off = with(0, |s| s.threshold = SoftThreshold::Off);
    assert_eq!((look(&off), page(&off, 0)[16], page(&off, 0)[23]), (Crossing::None, 0x00, 5));
    let mut enabled = page(&off, 0);
    enabled[16] = 0x80;
    assert_eq!(select(&off, &enabled), good(32));
    assert_eq!(look(&off), Crossing::None, "LBPERE is still zero");
    let all = with(99 * MIB, |s| s.threshold = SoftThreshold::Percent(100));
    assert_eq!(look(&all), Crossing::Reached);
    all.itl.gate().take_attention();
    assert_eq!(page(&all, 0)[23], 100);

    // No thin provisioning, or nobody knows the space.
    let refused = |image: MemImage| {
        let mut setup = LuSetup::new(Arc::new(image), 1, "S".to_owned());
        setup.threshold = SoftThreshold::Percent(5);
        Lu::new(setup).err()
    };
    let full = MemImage::new(512).without_unmap();
    full.set_space(0, 0);
    assert_eq!(refused(full), Some(SetupError::NoThreshold));
    assert_eq!(refused(MemImage::new(512)), Some(SetupError::NoThreshold));
    let read_only = MemImage::new(512).read_only();
    read_only.set_space(0, 0);
    assert_eq!(refused(read_only), Some(SetupError::NoThreshold));
    let b = bench();
    assert_eq!(b.itl.lu().look_at_space(), None);
    let none = b.data_in(&[0x1a, 0x08, 0x1c, 0x02, 32, 0], 32).answer;
    assert_eq!(none, check(invalid_field(3, 7)));
    assert_eq!(b.data_in(&[0x12, 1, 0xb2, 0, 8, 0], 8).data[4], 0);
}
