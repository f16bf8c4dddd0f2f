//! A process that ends, in order or not, and the one that goes on.

use std::sync::Mutex;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};

use super::*;
use crate::device_server::go_on;
use crate::device_server::testkit::{Call, out_buf};
use crate::lu::{KeepError, Keeper, KeptState, Lu, NexusId, Occupation, Stage};

/// Keeps the state in memory.
#[derive(Debug, Default)]
struct Memory {
    kept: Mutex<Option<KeptState>>,
    full: AtomicBool,
    /// How often it could not be written.
    refused: AtomicUsize,
}

impl Keeper for Memory {
    fn keep(&self, state: &KeptState) -> Result<(), KeepError> {
        if self.full.load(Ordering::Acquire) {
            self.refused.fetch_add(1, Ordering::AcqRel);
            return Err(KeepError::Write("full".to_owned()));
        }
        *self.kept.lock().unwrap() = Some(state.clone());
        Ok(())
    }

    fn note(&self) {}

    fn survives_power_loss(&self) -> bool {
        false
    }
}

impl Memory {
    fn occupation(&self) -> Option<Occupation> {
        self.kept.lock().unwrap().as_ref().and_then(|state| state.occupation.clone())
    }
}

/// A unit that is kept, on this image.
fn unit(keeper: &Arc<Memory>, image: &Arc<MemImage>) -> Rig {
    let background = Arc::new(HeldBackground::default());
    let mut setup =
        LuSetup::new(Arc::clone(image) as Arc<dyn crate::backing::Image>, 0x3000_0000_0000_0001, "S".into());
    setup.keeper = Some(Arc::clone(keeper) as Arc<dyn Keeper>);
    setup.kept = keeper.kept.lock().unwrap().clone();
    setup.background = Arc::clone(&background) as Arc<dyn crate::lu::Background>;
    let lu = Lu::new(setup).unwrap();
    let itl = Itl::new(lu, NexusId { initiator: [1; 16], port: 1 }, None);
    Rig { bench: Bench::of(Arc::clone(image), itl), background }
}

/// What began is written down before its command is answered; a process that is killed is followed by one that goes on.
#[test]
fn killed_before_it_did_anything() {
    let (keeper, image) = (Arc::new(Memory::default()), Arc::new(MemImage::patterned(2 * MIB)));
    let first = unit(&keeper, &image);
    assert_eq!(first.overwrite(0xa1, 0x83, &[1, 2, 3]), good(7));
    first.background.kill();
    assert_eq!(keeper.occupation(), first.lu().occupation());
    assert!(matches!(keeper.occupation().unwrap().stage, Stage::Running { done: 0, .. }));

    let second = unit(&keeper, &image);
    assert_eq!(second.test_unit_ready(), sanitizing(0), "before anything runs");
    go_on(second.lu());
    second.background.run();
    assert_eq!(second.test_unit_ready(), good(0));
    assert_eq!(keeper.occupation(), None);
    let block: Vec<u8> = [1, 2, 3].into_iter().cycle().take(512).collect();
    assert_eq!(image.bytes(), block.repeat(2 * MIB / 512));
    go_on(unit(&keeper, &image).lu());
    assert_eq!(unit(&keeper, &image).background.len(), 0, "and that was that");
}

/// A process that ends in order stops it between two steps.
#[test]
fn stopped_on_its_way() {
    let (keeper, image) = (Arc::new(Memory::default()), Arc::new(MemImage::patterned(8 * MIB)));
    let first = unit(&keeper, &image);
    assert_eq!(first.overwrite(0x81, 0x01, &[0xab]), good(5));
    let background = Arc::clone(&first.background);
    image.at_call(3, move || background.set_stopping(true));
    first.background.run();
    assert_eq!(image.bytes()[3 * MIB - 1..=3 * MIB], [0xab, image.bytes()[3 * MIB]]);
    assert_eq!(image.calls().len(), 3, "three steps, and no flush that could take long");
    assert!(matches!(keeper.occupation().unwrap().stage, Stage::Running { .. }));
    assert!(first.test_unit_ready().sense.is_some(), "nobody gets at it while the process ends");

    let second = unit(&keeper, &image);
    go_on(second.lu());
    second.background.run();
    assert_eq!(image.bytes(), vec![0xab; 8 * MIB]);
    assert_eq!(second.test_unit_ready(), good(0));
}

/// The command that waited ends with the process; the work does not.
#[test]
fn a_command_that_waits_ends_with_the_process() {
    let (keeper, image) = (Arc::new(Memory::default()), Arc::new(MemImage::patterned(MIB)));
    let first = unit(&keeper, &image);
    first.background.set_stopping(true);
    let aborted = check(Sense::aborted_command(AdditionalSense(0)));
    assert_eq!(waiting(&first, &sanitize(0x02, 0), IoBuf::empty()), aborted);
    assert!(keeper.occupation().is_some());
}

/// Where it was: the steps before a checkpoint are not done again, if the medium is what it was.
#[test]
fn checkpoints() {
    let mib = MIB as u64;
    for (kept_len, first_write) in [(4 * mib, 3 * mib), (5 * mib, 0)] {
        let (keeper, image) = (Arc::new(Memory::default()), Arc::new(MemImage::new(4 * MIB)));
        let first = unit(&keeper, &image);
        assert_eq!(first.overwrite(0x81, 0x01, &[0xab]), good(5));
        first.lu().checkpoint(3 * mib, kept_len);
        first.lu().persist().unwrap();
        first.background.kill();
        let second = unit(&keeper, &image);
        go_on(second.lu());
        image.calls();
        second.background.run();
        assert_eq!(image.calls()[0], Call::Write(first_write, mib, false));
    }
}

/// The gates open only when it is written that it is over: a process that was killed in between would be followed by one that erases
/// what was written since.
#[test]
fn the_end_is_kept_before_it_is_seen() {
    let (keeper, image) = (Arc::new(Memory::default()), Arc::new(MemImage::new(8192)));
    let rig = unit(&keeper, &image);
    assert_eq!(rig.bench.none(&BLOCK_ERASE), good(0));
    keeper.full.store(true, Ordering::Release);
    std::thread::scope(|scope| {
        let running = scope.spawn(|| rig.background.run());
        while keeper.refused.load(Ordering::Acquire) == 0 {
            std::thread::yield_now();
        }
        assert_eq!(rig.test_unit_ready().sense.unwrap().code, AdditionalSense::SANITIZE_IN_PROGRESS);
        keeper.full.store(false, Ordering::Release);
        running.join().unwrap();
    });
    assert_eq!((keeper.occupation(), rig.test_unit_ready()), (None, good(0)));
}

/// What cannot be written down does not begin.
#[test]
fn without_a_state_nothing_begins() {
    let (keeper, image) = (Arc::new(Memory::default()), Arc::new(MemImage::patterned(8192)));
    let rig = unit(&keeper, &image);
    keeper.full.store(true, Ordering::Release);
    let not_kept = check(Sense::new(SenseKey::HardwareError, AdditionalSense(0x4400)));
    assert_eq!(rig.bench.none(&BLOCK_ERASE), not_kept);
    assert_eq!((rig.background.len(), rig.lu().snapshot().occupation), (0, None));
    assert_eq!(rig.test_unit_ready(), good(0));
    keeper.full.store(false, Ordering::Release);
    assert_eq!(rig.bench.none(&BLOCK_ERASE), good(0));
}

/// SBC-3 4.11.2: SANITIZE goes on after a loss of power; a format does not, and the medium's format is corrupt.
#[test]
fn a_loss_of_power() {
    for (format, code) in [(false, 0x041b), (true, 0x3100)] {
        let (keeper, image) = (Arc::new(Memory::default()), Arc::new(MemImage::patterned(8192)));
        let first = unit(&keeper, &image);
        match format {
            false => assert_eq!(first.bench.none(&BLOCK_ERASE), good(0)),
            true => assert_eq!(first.bench.data_out(&[0x04, 0x10, 0, 0, 0, 0], &[0, 2, 0, 0]), good(4)),
        }
        first.background.kill();
        let kept = keeper.kept.lock().unwrap().take().unwrap();
        *keeper.kept.lock().unwrap() = Some(kept.after_power_loss());
        let second = unit(&keeper, &image);
        go_on(second.lu());
        assert_eq!(second.background.len(), usize::from(!format));
        assert_eq!(second.test_unit_ready().sense.unwrap().code, AdditionalSense(code));
        if format {
            assert_eq!(second.bench.data_out(&[0x04, 0x10, 0, 0, 0, 0], &[0, 2, 0, 0]), good(4));
        }
        second.background.run();
        assert_eq!(second.test_unit_ready(), good(0));
    }
}

/// A failure is kept, with its mode.
#[test]
fn failures_are_kept() {
    for (ause, exit) in [(0, invalid_in_cdb(1, 4)), (0x20, good(0))] {
        let (keeper, image) = (Arc::new(Memory::default()), Arc::new(MemImage::new(8192)));
        let first = unit(&keeper, &image);
        image.fail_writes(0, crate::backing::BackingError::WriteFailed);
        let list = overwrite_list(0x01, &[0]);
        assert_eq!(waiting(&first, &sanitize(0x01 | ause, 5), out_buf(&list)), medium_error(0x3103));
        let second = unit(&keeper, &image);
        go_on(second.lu());
        assert_eq!(second.background.len(), 0);
        assert_eq!(second.test_unit_ready(), medium_error(0x3103));
        assert_eq!(second.bench.none(&EXIT_FAILURE_MODE), exit);
        assert_eq!(keeper.occupation().is_none(), ause != 0, "the exit is kept, too");
    }
}
