//! The session against a model of the rules in its documentation: random messages, in any order, to three rings whose memory
//! comes and goes.

use std::fs::File;
use std::os::fd::OwnedFd;

use proptest::prelude::*;
use vhost::vhost_user::VhostUserBackendReqHandlerMut;
use vhost::vhost_user::message::{VhostUserSingleMemoryRegion, VhostUserVringAddrFlags};

use super::super::testing::Mock;
use super::super::testing::wire::{PROTOCOL, VERSION_1};
use super::Session;
use crate::mem::testing::memfd;

const RINGS: usize = 3;
const SIZE: u64 = 0x10_0000;
const USER: u64 = 0x7f00_0000_0000;

/// One message, or chains that the device takes meanwhile.
#[derive(Clone, Copy, Debug)]
enum Step {
    /// With VHOST_USER_F_PROTOCOL_FEATURES or without.
    Features(bool),
    Num(usize, u16),
    /// One of two places in the ring's region.
    Addr(usize, u64),
    Base(usize, u16),
    Kick(usize),
    Call(usize),
    Enable(usize, bool),
    GetBase(usize),
    Reset,
    Add(usize),
    Remove(usize),
    /// The whole table at once; false leaves region 1 out.
    Table(bool),
    Takes(usize, u16),
}

fn step() -> impl Strategy<Value = Step> {
    let ring = 0..RINGS;
    prop_oneof![
        2 => any::<bool>().prop_map(Step::Features),
        2 => (ring.clone(), prop_oneof![Just(64u16), Just(128)]).prop_map(|(r, n)| Step::Num(r, n)),
        3 => (ring.clone(), 0..2u64).prop_map(|(r, a)| Step::Addr(r, a)),
        1 => (ring.clone(), any::<u16>()).prop_map(|(r, b)| Step::Base(r, b)),
        3 => ring.clone().prop_map(Step::Kick),
        1 => ring.clone().prop_map(Step::Call),
        4 => (ring.clone(), any::<bool>()).prop_map(|(r, on)| Step::Enable(r, on)),
        1 => ring.clone().prop_map(Step::GetBase),
        1 => Just(Step::Reset),
        2 => (0..2usize).prop_map(Step::Add),
        1 => (0..2usize).prop_map(Step::Remove),
        1 => any::<bool>().prop_map(Step::Table),
        3 => (ring, 1..5u16).prop_map(|(r, n)| Step::Takes(r, n)),
    ]
}

#[derive(Clone, Copy, Default)]
struct Ring {
    size: Option<u16>,
    addr: Option<u64>,
    kicked: bool,
    enable: Option<bool>,
    /// Where it goes on, or where it was started if it runs.
    base: u16,
    taken: u16,
    runs: bool,
}

#[derive(Default)]
struct Model {
    features: Option<bool>,
    rings: [Ring; RINGS],
    regions: [bool; 2],
}

/// Ring 2 lies in region 1, the others in region 0.
fn region_of(ring: usize) -> usize {
    usize::from(ring == 2)
}

fn guest_addr(ring: usize, place: u64) -> u64 {
    (region_of(ring) as u64) * (1 << 32) + (ring as u64) * 0x8000 + place * 0x4000
}

impl Model {
    fn wanted(&self, ring: usize) -> bool {
        let r = &self.rings[ring];
        let Some(protocol) = self.features else { return false };
        r.size.is_some() && r.addr.is_some() && r.kicked && r.enable.unwrap_or(!protocol)
    }

    fn stop(&mut self, ring: usize) {
        let r = &mut self.rings[ring];
        if r.runs {
            r.base = r.base.wrapping_add(r.taken);
            r.taken = 0;
            r.runs = false;
        }
    }

    /// After a message: which rings run. `Err`: one was to start and has no memory, which the front-end is told. The control ring comes
    /// last, and may have waited for the one that the message was about.
    fn settle(&mut self, rings: impl Iterator<Item = usize>, unmapped_is_an_error: bool) -> Result<(), ()> {
        let (zero, others): (Vec<_>, Vec<_>) = rings.partition(|ring| *ring == 0);
        self.settle_in_order(others.into_iter(), unmapped_is_an_error)?;
        self.settle_in_order(std::iter::once(0), unmapped_is_an_error && !zero.is_empty())
    }

    /// A request ring that only has to be enabled.
    fn request_ring_is_to_come(&self) -> bool {
        let Ring { size, addr, kicked, enable, runs, .. } = self.rings[2];
        self.features == Some(true) && size.is_some() && addr.is_some() && kicked && enable.is_none() && !runs
    }

    fn settle_in_order(&mut self, rings: impl Iterator<Item = usize>, unmapped_is_an_error: bool) -> Result<(), ()> {
        let any_memory = self.regions.contains(&true);
        for ring in rings {
            let mapped = self.regions[region_of(ring)];
            match (self.rings[ring].runs, self.wanted(ring)) {
                (false, true) if ring == 0 && any_memory && self.request_ring_is_to_come() => {}
                (false, true) if mapped => self.rings[ring].runs = true,
                (false, true) if any_memory && unmapped_is_an_error => return Err(()),
                (true, false) => self.stop(ring),
                _ => {}
            }
        }
        Ok(())
    }

    fn memory_changed(&mut self) {
        for ring in 0..RINGS {
            if !self.regions[region_of(ring)] {
                self.stop(ring);
            }
        }
        assert_eq!(self.settle(0..RINGS, false), Ok(()));
    }
}

struct World {
    session: Session,
    mock: Mock,
    files: [File; 2],
    model: Model,
}

fn event() -> File {
    let event = vmm_sys_util::eventfd::EventFd::new(0).unwrap();
    // SAFETY: the descriptor is given up by `into_raw_fd`.
    #[allow(unsafe_code, reason = "EventFd has no safe way to a File")]
    let fd = unsafe { <OwnedFd as std::os::fd::FromRawFd>::from_raw_fd(std::os::fd::IntoRawFd::into_raw_fd(event)) };
    File::from(fd)
}

fn region(index: usize) -> VhostUserSingleMemoryRegion {
    let guest = (index as u64) << 32;
    VhostUserSingleMemoryRegion::new(guest, SIZE, USER + guest, 0)
}

impl World {
    fn new() -> World {
        let mock = Mock::default();
        let session = Session::new("model".into(), Box::new(mock.clone()));
        World { session, mock, files: [memfd(SIZE), memfd(SIZE)], model: Model::default() }
    }

    /// Does a step on both sides; false if the connection would be over.
    fn step(&mut self, step: Step) -> bool {
        let World { session, mock, files, model } = self;
        let (real, expected) = match step {
            Step::Features(protocol) => {
                let bits = VERSION_1 | if protocol { PROTOCOL } else { 0 };
                model.features = Some(protocol);
                (session.set_features(bits), model.settle(0..RINGS, true))
            }
            Step::Num(r, n) => {
                let refused = model.rings[r].runs && model.rings[r].size != Some(n);
                if !refused {
                    model.rings[r].size = Some(n);
                }
                let settled = if refused { Err(()) } else { model.settle(r..r + 1, true) };
                (session.set_vring_num(r as u32, n.into()), settled)
            }
            Step::Addr(r, place) => {
                let at = USER + guest_addr(r, place);
                if model.rings[r].addr != Some(place) {
                    model.stop(r);
                    model.rings[r].addr = Some(place);
                }
                let flags = VhostUserVringAddrFlags::empty();
                let real = session.set_vring_addr(r as u32, flags, at, at + 0x2000, at + 0x1000, 0);
                (real, model.settle(r..r + 1, true))
            }
            Step::Base(r, base) => {
                let refused = model.rings[r].runs && model.rings[r].base != base;
                if !refused {
                    model.rings[r].base = base;
                }
                (session.set_vring_base(r as u32, base.into()), if refused { Err(()) } else { Ok(()) })
            }
            Step::Kick(r) => {
                model.stop(r);
                model.rings[r].kicked = true;
                (session.set_vring_kick(r as u8, Some(event())), model.settle(r..r + 1, true))
            }
            Step::Call(r) => (session.set_vring_call(r as u8, Some(event())), Ok(())),
            Step::Enable(r, on) => {
                model.rings[r].enable = Some(on);
                (session.set_vring_enable(r as u32, on), model.settle(r..r + 1, true))
            }
            Step::GetBase(r) => {
                model.stop(r);
                model.rings[r].kicked = false;
                let num = session.get_vring_base(r as u32).unwrap().num;
                assert_eq!(num, u32::from(model.rings[r].base), "GET_VRING_BASE");
                (Ok(()), Ok(()))
            }
            Step::Reset => {
                model.rings = Default::default();
                model.features = None;
                (session.reset_device(), Ok(()))
            }
            Step::Add(i) => {
                let file = files[i].try_clone().unwrap();
                let real = session.add_mem_region(&region(i), file, None).map(|_| ());
                if model.regions[i] {
                    (real, Err(()))
                } else {
                    model.regions[i] = true;
                    model.memory_changed();
                    (real, Ok(()))
                }
            }
            Step::Remove(i) => {
                let real = session.remove_mem_region(&region(i));
                if model.regions[i] {
                    model.regions[i] = false;
                    model.memory_changed();
                    (real, Ok(()))
                } else {
                    (real, Err(()))
                }
            }
            Step::Table(both) => {
                let count = if both { 2 } else { 1 };
                let regions: Vec<_> = (0..count).map(|i| *region(i)).collect();
                let files = files[..count].iter().map(|file| file.try_clone().unwrap()).collect();
                model.regions = [true, both];
                model.memory_changed();
                (session.set_mem_table(&regions, files, None).map(|_| ()), Ok(()))
            }
            Step::Takes(r, n) => {
                if model.rings[r].runs {
                    model.rings[r].taken = model.rings[r].taken.wrapping_add(n);
                    mock.book(|book| *book.taken.entry(r as u16).or_default() += n);
                }
                (Ok(()), Ok(()))
            }
        };
        assert_eq!(real.is_ok(), expected.is_ok(), "{step:?}: {real:?}");
        // These change nothing when they are refused, so more can be asked of the same session.
        real.is_ok() || matches!(step, Step::Num(..) | Step::Base(..) | Step::Add(_) | Step::Remove(_))
    }

    fn compare(&self) {
        self.mock.book(|book| {
            for (index, ring) in self.model.rings.iter().enumerate() {
                let real = book.running.get(&(index as u16));
                assert_eq!(real.is_some(), ring.runs, "whether ring {index} runs");
                let Some(config) = real else { continue };
                assert_eq!(Some(config.size), ring.size);
                assert_eq!(config.next_avail, ring.base, "where ring {index} was started");
                assert_eq!(Some(config.desc), ring.addr.map(|place| guest_addr(index, place)));
            }
        });
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 400, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn rings_run_exactly_when_the_rules_say_so(steps in proptest::collection::vec(step(), 1..80)) {
        let mut world = World::new();
        for step in steps {
            let goes_on = world.step(step);
            if !goes_on {
                break;
            }
            world.compare();
        }
        world.session.disconnected();
        prop_assert!(world.mock.book(|book| book.running.is_empty()));
    }
}
