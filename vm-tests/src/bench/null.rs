//! How much the generator can do: it, against a back-end that answers without I/O.

use super::device::{Device, Slot};
use super::frontend::RING_SIZE;
use super::generator::{Generator, memory_for};
use super::memory::Memory;
use super::ring::{DeviceRing, Ring};
use super::workload::Workload;
use crate::{Error, Result};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

/// Parts of the time, the best of which counts.
const SLICES: u32 = 10;

/// Turns without a request after which the processor is offered to others: the generator may be waiting for it.
const PATIENCE: u32 = 2_000;

/// I/Os a second that the generator reaches with `workload` when nothing is done for them.
///
/// # Errors
/// When guest memory is used up.
pub fn ceiling(workload: &Workload, time: Duration, image: u64) -> Result<f64> {
    let memory = Arc::new(Memory::new(memory_for(workload))?);
    let rings: Vec<Ring> = (0..workload.queues).map(|_| Ring::new(&memory, RING_SIZE, true)).collect::<Result<_>>()?;
    let layouts: Vec<_> = rings.iter().map(Ring::layout).collect();
    let devices: Vec<DeviceRing> = layouts.iter().map(|layout| DeviceRing::new(&memory, *layout)).collect();
    let stop = AtomicBool::new(false);
    std::thread::scope(|scope| {
        scope.spawn(|| serve(&memory, devices, &stop));
        let best = Generator::new(&memory, Device::Scsi, rings, workload, image, false).and_then(|mut generator| {
            // The best of some: what else the machine does can only take away from it.
            let rates = (0..SLICES).map(|_| {
                let outcome = generator.run(time / SLICES)?;
                Ok::<f64, Error>(outcome.count as f64 / outcome.elapsed.as_secs_f64())
            });
            rates.reduce(|best, rate| Ok(best?.max(rate?))).unwrap_or(Ok(0.0))
        });
        stop.store(true, Ordering::Relaxed);
        best
    })
}

fn serve(memory: &Memory, devices: Vec<DeviceRing>, stop: &AtomicBool) {
    let mut devices: Vec<_> = devices.into_iter().map(|device| (device.layout(), device)).collect();
    let mut idle = 0u32;
    while !stop.load(Ordering::Relaxed) {
        let mut done = 0;
        for (layout, device) in &mut devices {
            done += device.turn(|head| {
                let table = u64::from_le_bytes(memory.read(layout.desc + 16 * usize::from(head)));
                Slot::pretend(memory, table as usize);
            });
        }
        idle = if done == 0 { idle.wrapping_add(1) } else { 0 };
        match idle {
            0 => {}
            _ if idle.is_multiple_of(PATIENCE) => std::thread::yield_now(),
            _ => std::hint::spin_loop(),
        }
    }
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
