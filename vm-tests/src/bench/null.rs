//! How much the generator can do: it, with a back-end that answers without I/O.
//!
//! Both halves of the rings run in turn on one thread, and what counts is that thread's processor time: on a machine with
//! other work, two threads that spin for each other measure the scheduler. The device's half is counted as the generator's,
//! the passing of cache lines between two processors is not.

use super::cpu;
use super::device::{Device, Slot};
use super::frontend::RING_SIZE;
use super::generator::{Generator, memory_for};
use super::memory::Memory;
use super::ring::{DeviceRing, Ring};
use super::workload::Workload;
use crate::Result;
use std::sync::Arc;
use std::time::Duration;

/// I/Os a second that the generator reaches with `workload` when nothing is done for them.
///
/// # Errors
/// When guest memory is used up.
pub fn ceiling(workload: &Workload, time: Duration, image: u64) -> Result<f64> {
    let memory = Arc::new(Memory::new(memory_for(workload))?);
    let rings: Vec<Ring> = (0..workload.queues).map(|_| Ring::new(&memory, RING_SIZE, true)).collect::<Result<_>>()?;
    let mut devices: Vec<_> =
        rings.iter().map(Ring::layout).map(|layout| (layout, DeviceRing::new(&memory, layout))).collect();
    let beside = Arc::clone(&memory);
    let mut serve = || {
        for (layout, device) in &mut devices {
            device.turn(|head| {
                let table = u64::from_le_bytes(beside.read(layout.desc + 16 * usize::from(head)));
                Slot::pretend(&beside, table as usize);
            });
        }
    };
    let mut generator = Generator::new(&memory, Device::Scsi, rings, workload, image, false, &mut serve)?;
    let before = cpu::of_this_thread()?;
    let outcome = generator.run_beside(time, &mut serve)?;
    let spent = cpu::of_this_thread()?.saturating_sub(before);
    Ok(outcome.count as f64 / spent.as_secs_f64().max(f64::MIN_POSITIVE))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::bench::workload::all;

    #[test]
    fn the_generator_runs_against_nothing() {
        for workload in all(false) {
            assert!(ceiling(&workload, Duration::from_millis(1), 64 << 20).unwrap() > 0.0, "{workload}");
        }
    }
}
