//! FORMAT UNIT and SANITIZE, command by command. Who waits for whom is the target's tests' business.

mod failure;
mod format_unit;
mod occupied;
mod restart;
mod sanitize;

use std::sync::Arc;

use crate::device_server::Answer;
use crate::device_server::testkit::{Bench, HeldBackground, MemImage, check, good, nexus_of};
use crate::lu::{Itl, LuSetup};
use crate::mem::IoBuf;
use crate::scsi::{AdditionalSense, FieldPointer, Sense, SenseKey};

const MIB: usize = 1 << 20;

const TEST_UNIT_READY: [u8; 6] = [0; 6];

/// SANITIZE 48h: byte 1 IMMED, ZNR, AUSE, service action; bytes 7–8 parameter list length.
fn sanitize(byte1: u8, length: u16) -> [u8; 10] {
    let [high, low] = length.to_be_bytes();
    [0x48, byte1, 0, 0, 0, 0, 0, high, low, 0]
}

const BLOCK_ERASE: [u8; 10] = [0x48, 0x82, 0, 0, 0, 0, 0, 0, 0, 0];
const EXIT_FAILURE_MODE: [u8; 10] = [0x48, 0x1f, 0, 0, 0, 0, 0, 0, 0, 0];

/// A unit, and what runs in its background.
struct Rig {
    bench: Bench,
    background: Arc<HeldBackground>,
}

impl Rig {
    fn new(image: MemImage) -> Rig {
        Rig::with(image, |_| ())
    }

    fn with(image: MemImage, change: impl FnOnce(&mut LuSetup)) -> Rig {
        let background = Arc::new(HeldBackground::default());
        let held = Arc::clone(&background);
        let bench = Bench::with(image, |setup| {
            setup.background = held;
            change(setup);
        });
        Rig { bench, background }
    }

    /// OVERWRITE with IMMED: byte 0 of the parameter list, and the pattern.
    fn overwrite(&self, byte1: u8, byte0: u8, pattern: &[u8]) -> Answer {
        let list = overwrite_list(byte0, pattern);
        self.bench.data_out(&sanitize(byte1, list.len() as u16), &list)
    }

    fn test_unit_ready(&self) -> Answer {
        self.bench.none(&TEST_UNIT_READY)
    }

    /// REQUEST SENSE in fixed format.
    fn request_sense(&self) -> Vec<u8> {
        let ran = self.bench.data_in(&[0x03, 0, 0, 0, 18, 0], 18);
        assert_eq!(ran.answer, good(18));
        ran.data
    }

    /// Another nexus of the unit.
    fn other(&self) -> Bench {
        Bench::of(Arc::clone(&self.bench.image), nexus_of(Arc::clone(self.lu()), None))
    }

    fn lu(&self) -> &Arc<crate::lu::Lu> {
        self.itl().lu()
    }

    fn itl(&self) -> &Arc<Itl> {
        &self.bench.itl
    }
}

fn overwrite_list(byte0: u8, pattern: &[u8]) -> Vec<u8> {
    let [high, low] = (pattern.len() as u16).to_be_bytes();
    [&[byte0, 0, high, low], pattern].concat()
}

/// NOT READY, LOGICAL UNIT NOT READY, SANITIZE IN PROGRESS.
fn sanitizing(progress: u16) -> Answer {
    check(Sense::not_ready(AdditionalSense(0x041b)).with_progress(progress))
}

/// MEDIUM ERROR.
fn medium_error(code: u16) -> Answer {
    check(Sense::new(SenseKey::MediumError, AdditionalSense(code)))
}

fn invalid_in_cdb(byte: u16, bit: u8) -> Answer {
    check(Sense::invalid_field_in_cdb(FieldPointer::cdb(byte, bit)))
}

fn invalid_in_list(byte: u16, bit: u8) -> Answer {
    check(Sense::invalid_field_in_parameter_list(FieldPointer::parameter_list(byte, bit)))
}

/// Runs a command while somebody else runs the background; the command waits for its end.
fn waiting(rig: &Rig, cdb: &[u8], buf: IoBuf) -> Answer {
    std::thread::scope(|scope| {
        let background = &rig.background;
        scope.spawn(move || {
            while background.len() == 0 {
                std::thread::yield_now();
            }
            background.run();
        });
        rig.bench.run(cdb, buf).answer
    })
}
