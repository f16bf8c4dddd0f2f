//! The load: keeps every queue at its depth, and notes when each request went out and came back.
//!
//! One thread drives all queues. It polls (as SPDK's or a busy guest's driver does), so that what is measured is the
//! back-end; with `interrupts` it sleeps as Linux's driver does when nothing is through, and the back-end pays for waking
//! it. The clock is read once a batch.

use super::device::{BLOCK, Device, Slot, TABLE};
use super::memory::Memory;
use super::ring::{INDIRECT, Ring};
use super::stats::Histogram;
use super::workload::Workload;
use crate::{Error, Result, sys};
use std::sync::Arc;
use std::time::{Duration, Instant};

/// A back-end that answers nothing for so long is stuck.
const STUCK: Duration = Duration::from_secs(15);

/// Looks at a queue without an answer, one queue after the other, after which the processor is offered to others: on a small machine the back-end may
/// need it.
const PATIENCE: u32 = 2_000;

/// What a stretch of load brought.
#[derive(Debug, Clone, Default)]
pub struct Outcome {
    /// Requests that came back.
    pub count: u64,
    /// How long it took.
    pub elapsed: Duration,
    /// Response times in nanoseconds, of the queues that are watched.
    pub times: Histogram,
    /// Kicks written.
    pub kicks: u64,
    /// Requests that came back on each queue.
    pub by_queue: Vec<u64>,
}

/// A queue with its requests.
struct Lane {
    ring: Ring,
    slots: Vec<Slot>,
    since: Vec<Instant>,
    random: bool,
    /// 4 KiB blocks of a request.
    step: u64,
    /// Requests that fit into the image.
    places: u64,
    /// Its response times are noted.
    watched: bool,
}

impl Lane {
    /// Takes the unit attentions that a new nexus has, as a driver's probing does.
    fn attach(&mut self, beside: &mut impl FnMut()) -> Result<()> {
        let bytes = (self.step * BLOCK) as u32;
        for _ in 0..16 {
            self.slots[0].prepare_test_unit_ready();
            self.ring.add(0);
            self.ring.publish()?;
            let start = Instant::now();
            while self.ring.next_used().is_none() {
                if start.elapsed() > STUCK {
                    return Err(Error::new("the back-end does not answer TEST UNIT READY"));
                }
                beside();
                std::thread::yield_now();
            }
            self.ring.ask_for_nothing();
            if self.slots[0].is_ready() {
                self.slots[0].restore(bytes);
                return Ok(());
            }
        }
        Err(Error::new("the logical unit does not become ready"))
    }

    /// Where the next request goes.
    fn place(&self, next: &mut u64) -> u64 {
        if !self.random {
            *next = next.wrapping_add(1);
            return *next % self.places * self.step;
        }
        // xorshift64*, its upper half scaled to the range.
        *next ^= *next >> 12;
        *next ^= *next << 25;
        *next ^= *next >> 27;
        let upper = next.wrapping_mul(0x2545_f491_4f6c_dd1d) >> 32;
        ((upper * self.places) >> 32) * self.step
    }
}

/// A driver with all its requests.
pub struct Generator {
    lanes: Vec<Lane>,
    next: u64,
    interrupts: bool,
    started: bool,
}

/// Guest memory that a workload needs.
pub fn memory_for(workload: &Workload) -> usize {
    let slots = usize::from(workload.depth) * usize::from(workload.queues);
    slots * (workload.bytes as usize + 8192) + (2 << 20)
}

impl Generator {
    /// Requests of `workload` over an image of `image` bytes, on these rings, which may be one device's or several's; `beside` as for
    /// [`run_beside`](Generator::run_beside).
    ///
    /// # Errors
    /// When guest memory is used up, or a logical unit does not become ready.
    pub fn new(
        memory: &Arc<Memory>,
        device: Device,
        rings: Vec<Ring>,
        workload: &Workload,
        image: u64,
        interrupts: bool,
        mut beside: impl FnMut(),
    ) -> Result<Generator> {
        let mut generator = Generator { lanes: Vec::new(), next: 0x9e37_79b9_7f4a_7c15, interrupts, started: false };
        for ring in rings {
            generator.add(memory, device, ring, workload, image, true, &mut beside)?;
        }
        Ok(generator)
    }

    /// One more ring, with requests of its own kind. Response times are noted of rings that are `watched`.
    ///
    /// # Errors
    /// As [`new`](Generator::new).
    #[expect(clippy::too_many_arguments, reason = "all of them are what a ring's load is")]
    pub fn add(
        &mut self,
        memory: &Arc<Memory>,
        device: Device,
        ring: Ring,
        workload: &Workload,
        image: u64,
        watched: bool,
        mut beside: impl FnMut(),
    ) -> Result<()> {
        let slots: Result<Vec<Slot>> =
            (0..workload.depth).map(|_| Slot::new(memory, device, workload.bytes, workload.write)).collect();
        let slots = slots?;
        for (index, slot) in slots.iter().enumerate() {
            ring.describe(index as u16, slot.table(), TABLE, INDIRECT);
        }
        let mut lane = Lane {
            since: vec![Instant::now(); slots.len()],
            ring,
            slots,
            random: workload.random,
            step: u64::from(workload.bytes) / BLOCK,
            places: image / u64::from(workload.bytes),
            watched,
        };
        if device == Device::Scsi {
            lane.attach(&mut beside)?;
        }
        self.lanes.push(lane);
        Ok(())
    }

    /// Runs for `time`, leaving the requests out; call again to go on.
    ///
    /// # Errors
    /// When a request fails, brings wrong data, or never comes back.
    pub fn run(&mut self, time: Duration) -> Result<Outcome> {
        self.run_beside(time, || ())
    }

    /// [`run`](Generator::run) with something else done once a turn, on the same thread.
    ///
    /// # Errors
    /// As [`run`](Generator::run).
    pub fn run_beside(&mut self, time: Duration, mut beside: impl FnMut()) -> Result<Outcome> {
        let kicks = |lanes: &[Lane]| lanes.iter().map(|lane| lane.ring.kicks).sum::<u64>();
        let mut outcome = Outcome { by_queue: vec![0; self.lanes.len()], ..Outcome::default() };
        let kicks_before = kicks(&self.lanes);
        let start = Instant::now();
        if !self.started {
            self.started = true;
            for lane in &mut self.lanes {
                for index in 0..lane.slots.len() {
                    let place = lane.place(&mut self.next);
                    lane.slots[index].prepare(place);
                    lane.since[index] = Instant::now();
                    lane.ring.add(index as u16);
                }
                lane.ring.publish()?;
            }
        }
        let patience = (PATIENCE / self.lanes.len().max(1) as u32).max(1);
        let (mut idle, mut last) = (0u32, start);
        loop {
            beside();
            let mut now = None;
            for (lane, count) in self.lanes.iter_mut().zip(&mut outcome.by_queue) {
                while let Some(head) = lane.ring.next_used() {
                    let now = *now.get_or_insert_with(Instant::now);
                    let index = usize::from(head);
                    let place = lane.place(&mut self.next);
                    let slot = lane.slots.get_mut(index);
                    let slot = slot.ok_or_else(|| Error::new(format!("the back-end used head {head}")))?;
                    slot.check()?;
                    *count += 1;
                    if lane.watched {
                        outcome.times.record(now.duration_since(lane.since[index]).as_nanos() as u64);
                    }
                    slot.prepare(place);
                    lane.since[index] = now;
                    lane.ring.add(head);
                }
                lane.ring.ask_for_nothing();
                lane.ring.publish()?;
            }
            if let Some(now) = now {
                (idle, last) = (0, now);
                if now.duration_since(start) >= time {
                    break;
                }
                continue;
            }
            idle += 1;
            if self.interrupts {
                self.sleep();
            } else if idle.is_multiple_of(patience) {
                std::thread::yield_now();
            } else {
                std::hint::spin_loop();
            }
            if idle.is_multiple_of(patience) && last.elapsed() > STUCK {
                return Err(Error::new("the back-end has stopped answering"));
            }
        }
        outcome.elapsed = start.elapsed();
        outcome.count = outcome.by_queue.iter().sum();
        outcome.kicks = kicks(&self.lanes) - kicks_before;
        Ok(outcome)
    }

    /// Waits for an interrupt from any queue, for a while.
    fn sleep(&mut self) {
        let mut nothing = true;
        for lane in &mut self.lanes {
            nothing &= lane.ring.ask_for_interrupt();
        }
        if nothing {
            let calls: Vec<_> = self.lanes.iter().map(|lane| &lane.ring.call).collect();
            sys::wait_readable(&calls, Duration::from_millis(10));
        }
        for lane in &self.lanes {
            // Empty or not: it only has to be empty before the next sleep.
            drop(lane.ring.call.read());
        }
    }
}
