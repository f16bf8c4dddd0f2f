//! A logical unit and its nexuses by themselves. They are tested here and not in their own room because it takes an image, and
//! an image takes guest memory, of which a unit knows nothing.

use crate::device_server::testkit::nexus_of;
use std::sync::Arc;

use crate::device_server::testkit::MemImage;
use crate::lu::*;
use crate::scsi::SenseFormat;
use crate::scsi::spc::ModeState;

fn setup(image: MemImage) -> LuSetup {
    LuSetup::new(Arc::new(image), 0x3000_0000_0000_0001, "1".into())
}

fn unit() -> Arc<Lu> {
    Lu::new(setup(MemImage::new(51_200))).unwrap()
}

#[test]
fn a_unit_takes_its_size_and_abilities_from_its_image() {
    let lu = unit();
    assert_eq!(lu.geometry(), Geometry { block_size: 512, blocks: 100, physical_exponent: 0 });
    assert!(lu.thin());
    assert!(!lu.read_only());
    assert!(lu.mode().wce);
    assert_eq!(
        lu.limits(),
        Limits {
            transfer_blocks: 32_768,
            compare_and_write_blocks: 128,
            unmap_blocks: u32::MAX,
            unmap_descriptors: 256,
            unmap_granularity: 8
        }
    );

    let lu = Lu::new(LuSetup { block_size: 4096, ..setup(MemImage::new(8192).without_unmap()) }).unwrap();
    assert_eq!(lu.geometry().blocks, 2);
    assert!(!lu.thin());
    assert_eq!(
        lu.limits(),
        Limits {
            transfer_blocks: 4096,
            compare_and_write_blocks: 16,
            unmap_blocks: 0,
            unmap_descriptors: 0,
            unmap_granularity: 0
        }
    );

    assert!(Lu::new(setup(MemImage::new(512).read_only())).unwrap().read_only());
}

#[test]
fn what_does_not_fit_is_refused() {
    let size = |n| Lu::new(setup(MemImage::new(n))).err();
    assert_eq!(size(0), Some(SetupError::Empty));
    assert_eq!(size(513), Some(SetupError::PartialBlock { size: 513, block_size: 512 }));
    let with = |change: fn(&mut LuSetup)| {
        let mut setup = setup(MemImage::new(4096));
        change(&mut setup);
        Lu::new(setup).err()
    };
    assert_eq!(with(|s| s.block_size = 1024), Some(SetupError::BlockSize(1024)));
    assert_eq!(with(|s| s.physical_exponent = 8), Some(SetupError::PhysicalExponent(8)));
    let beyond = with(|s| (s.physical_exponent, s.lowest_aligned) = (3, 8));
    assert_eq!(beyond, Some(SetupError::LowestAligned(8)));
    let eui = SetupError::Identity(IdentityError::EuiLength(9));
    assert_eq!(with(|s| s.eui = Some(vec![1; 9])), Some(eui));
    let mut cannot = setup(MemImage::new(512).without_unmap());
    cannot.provisioning = Provisioning::Thin;
    assert_eq!(Lu::new(cannot).err(), Some(SetupError::NotThin));
    let mut read_only = setup(MemImage::new(512).without_unmap().read_only());
    assert!(!Lu::new(read_only.clone()).unwrap().thin());
    read_only.provisioning = Provisioning::Thin;
    assert!(Lu::new(read_only).unwrap().thin());
    assert_eq!(with(|s| s.serial.clear()), Some(SetupError::Identity(IdentityError::EmptySerial)));
}

#[test]
fn defaults_of_the_mode_pages_can_be_set_up() {
    let lu = Lu::new(LuSetup { write_cache: false, descriptor_sense: true, ..setup(MemImage::new(4096)) }).unwrap();
    assert_eq!(lu.mode(), ModeState { wce: false, d_sense: true, ..ModeState::DEFAULT });
    assert_eq!(lu.mode(), lu.default_mode());
    assert_eq!(lu.sense_format(), SenseFormat::Descriptor);
}

#[test]
fn mode_changes_are_told_to_the_others_once() {
    let lu = unit();
    let (a, b) = (nexus_of(lu.clone(), None), nexus_of(lu.clone(), None));
    let changed = ModeState { d_sense: true, swp: true, ..lu.mode() };
    lu.set_mode(&a, changed);
    assert_eq!(lu.mode(), changed);
    assert_eq!(lu.sense_format(), SenseFormat::Descriptor);
    assert!(!lu.writable());
    assert_eq!(a.gate().take_attention(), None);
    assert_eq!(b.gate().take_attention(), Some(Attention::ModeParametersChanged));
    lu.set_mode(&a, changed);
    assert_eq!(b.gate().take_attention(), None, "nothing changed");
}

#[test]
fn a_new_nexus_has_its_unit_attention() {
    let lu = unit();
    let a = nexus_of(lu.clone(), Some(Attention::PowerOn));
    assert_eq!(a.gate().take_attention(), Some(Attention::PowerOn));
    let b = nexus_of(lu.clone(), None);
    assert_eq!(b.gate().bits(), GateBits::NONE);
    assert_eq!(lu.nexuses(), 2);
    drop(a);
    assert_eq!(lu.nexuses(), 1);
}

#[test]
fn only_the_sole_nexus_stops_a_unit() {
    let lu = unit();
    let a = nexus_of(lu.clone(), None);
    let b = nexus_of(lu.clone(), None);
    assert!(!lu.stop(&a));
    assert_eq!((a.gate().bits(), b.gate().bits()), (GateBits::NONE, GateBits::NONE));
    drop(b);
    assert!(lu.stop(&a));
    assert_eq!(a.gate().bits(), GateBits::STOPPED);
    lu.start();
    assert_eq!(a.gate().bits(), GateBits::NONE);
}

#[test]
fn a_stopped_unit_starts_with_a_new_nexus_and_with_every_reset() {
    let lu = unit();
    let a = nexus_of(lu.clone(), None);
    assert!(lu.stop(&a));
    let b = nexus_of(lu.clone(), None);
    assert!(!a.gate().bits().intersects(GateBits::NOT_READY));
    drop(b);
    assert!(lu.stop(&a));
    a.lose_nexus();
    assert!(!a.gate().bits().intersects(GateBits::NOT_READY));
    assert!(lu.stop(&a));
    lu.reset();
    assert!(!a.gate().bits().intersects(GateBits::NOT_READY));
}

#[test]
fn a_reset_restores_defaults_and_tells_everybody() {
    let lu = Lu::new(LuSetup { write_cache: false, ..setup(MemImage::new(4096)) }).unwrap();
    let (a, b) = (nexus_of(lu.clone(), None), nexus_of(lu.clone(), None));
    a.prevent_removal();
    lu.set_mode(&a, ModeState { wce: true, ua_intlck: 2, ..lu.mode() });
    lu.reset();
    assert_eq!(lu.mode(), lu.default_mode());
    assert!(!lu.mode().wce);
    assert!(!a.prevents_removal());
    for itl in [a, b] {
        let reported = itl.gate().admit(GateBits::ATTENTION);
        assert_eq!(reported, Admission::Attention(Attention::LogicalUnitReset), "the mode change before it is void");
        assert_eq!(itl.gate().bits(), GateBits::NONE, "no interlock any more");
    }
}

#[test]
fn losing_a_nexus_gives_up_what_it_alone_held() {
    let lu = unit();
    let (a, b) = (nexus_of(lu.clone(), None), nexus_of(lu.clone(), None));
    a.prevent_removal();
    b.prevent_removal();
    a.lose_nexus();
    assert!(!a.prevents_removal());
    assert!(b.prevents_removal());
    assert_eq!(a.gate().take_attention(), Some(Attention::NexusLoss));
    assert_eq!(b.gate().take_attention(), None);
}

#[test]
fn the_interlock_is_in_every_gate() {
    let lu = unit();
    let a = nexus_of(lu.clone(), None);
    lu.set_mode(&a, ModeState { ua_intlck: 2, ..lu.mode() });
    let b = nexus_of(lu.clone(), None);
    assert_eq!((a.gate().bits(), b.gate().bits()), (GateBits::INTERLOCK, GateBits::INTERLOCK));
    lu.set_mode(&b, ModeState { ua_intlck: 0, ..lu.mode() });
    assert_eq!(b.gate().bits(), GateBits::NONE);
    assert!(!a.gate().bits().intersects(GateBits::INTERLOCK));
}

#[derive(Debug, Default)]
struct Heard(std::sync::Mutex<Vec<Attention>>);

impl Listener for Heard {
    fn established(&self, attention: Attention) {
        self.0.lock().unwrap().push(attention);
    }
}

/// Whoever listens hears of every condition as it is established, before a command reports it.
#[test]
fn a_listener_hears_of_attentions() {
    let lu = unit();
    let (a, b) = (nexus_of(lu.clone(), None), nexus_of(lu.clone(), Some(Attention::PowerOn)));
    let heard = Arc::new(Heard::default());
    b.listen(heard.clone());
    let told = || std::mem::take(&mut *heard.0.lock().unwrap());
    assert_eq!(told(), [], "of what was before it");
    lu.set_mode(&a, ModeState { tas: true, ..lu.mode() });
    lu.set_mode(&b, ModeState { tas: false, ..lu.mode() });
    assert_eq!(told(), [Attention::ModeParametersChanged], "what others change");
    lu.establish(Attention::CapacityChanged, None);
    b.lose_nexus();
    lu.reset();
    assert_eq!(told(), [Attention::CapacityChanged, Attention::NexusLoss, Attention::LogicalUnitReset]);
}

#[test]
fn attentions_for_all_but_one() {
    let lu = unit();
    let (a, b) = (nexus_of(lu.clone(), None), nexus_of(lu.clone(), None));
    lu.establish(Attention::CapacityChanged, Some(&a));
    assert_eq!(a.gate().take_attention(), None);
    assert_eq!(b.gate().take_attention(), Some(Attention::CapacityChanged));
    lu.establish(Attention::CapacityChanged, None);
    assert_eq!(a.gate().take_attention(), Some(Attention::CapacityChanged));
}
