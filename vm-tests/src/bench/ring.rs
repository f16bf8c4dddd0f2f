//! A split virtqueue (virtio 1.2 2.7): the driver's half, which the load generator drives, and as much of the device's
//! half as a back-end that does nothing needs.
//!
//! EVENT_IDX (2.7.7.1, 2.7.10) is used both ways: the driver kicks only where the device asks for it, and asks for an
//! interrupt only when it is about to sleep. A driver that polls never asks.

use super::memory::Memory;
use crate::{Context, Result};
use std::sync::Arc;
use std::sync::atomic::{Ordering, fence};
use vmm_sys_util::eventfd::{EFD_NONBLOCK, EventFd};

/// Descriptor flag: another one follows.
pub const NEXT: u16 = 1;
/// Descriptor flag: the device writes.
pub const WRITE: u16 = 2;
/// Descriptor flag: a table of descriptors.
pub const INDIRECT: u16 = 4;

/// `used.flags`: the device wants no kicks (without EVENT_IDX).
const NO_NOTIFY: u16 = 1;
/// `avail.flags`: the driver wants no interrupts (without EVENT_IDX).
const NO_INTERRUPT: u16 = 1;

/// Where a ring's parts lie in guest memory.
#[derive(Debug, Clone, Copy)]
pub struct Layout {
    /// Descriptors.
    pub size: u16,
    /// The descriptor table.
    pub desc: usize,
    /// The available ring.
    pub avail: usize,
    /// The used ring.
    pub used: usize,
}

impl Layout {
    fn avail_slot(&self, index: u16) -> usize {
        self.avail + 4 + 2 * usize::from(index % self.size)
    }

    fn used_event(&self) -> usize {
        self.avail + 4 + 2 * usize::from(self.size)
    }

    fn used_slot(&self, index: u16) -> usize {
        self.used + 4 + 8 * usize::from(index % self.size)
    }

    fn avail_event(&self) -> usize {
        self.used + 4 + 8 * usize::from(self.size)
    }
}

/// Whether going from `old` to `new` passes `event` (2.7.7.1, 2.7.10.1).
fn passes(event: u16, new: u16, old: u16) -> bool {
    new.wrapping_sub(event).wrapping_sub(1) < new.wrapping_sub(old)
}

/// The driver's half.
#[derive(Debug)]
pub struct Ring {
    memory: Arc<Memory>,
    layout: Layout,
    event_idx: bool,
    avail_idx: u16,
    published: u16,
    used_idx: u16,
    /// The device waits for it.
    pub kick: EventFd,
    /// The driver waits for it.
    pub call: EventFd,
    /// Kicks so far.
    pub kicks: u64,
}

impl Ring {
    /// A ring of `size` descriptors, nothing in it.
    ///
    /// # Errors
    /// When memory or file descriptors are used up.
    pub fn new(memory: &Arc<Memory>, size: u16, event_idx: bool) -> Result<Ring> {
        let n = usize::from(size);
        let layout = Layout {
            size,
            desc: memory.alloc(16 * n)?,
            avail: memory.alloc(6 + 2 * n)?,
            used: memory.alloc(6 + 8 * n)?,
        };
        let event = || EventFd::new(EFD_NONBLOCK).context(|| "make an eventfd");
        let mut ring = Ring {
            memory: Arc::clone(memory),
            layout,
            event_idx,
            avail_idx: 0,
            published: 0,
            used_idx: 0,
            kick: event()?,
            call: event()?,
            kicks: 0,
        };
        ring.ask_for_nothing();
        Ok(ring)
    }

    /// Where its parts lie.
    pub fn layout(&self) -> Layout {
        self.layout
    }

    /// Fills a descriptor.
    pub fn describe(&self, index: u16, address: usize, len: u32, flags: u16) {
        self.memory.write(self.layout.desc + 16 * usize::from(index), &descriptor(address, len, flags, 0));
    }

    /// Makes a chain available with the next [`publish`](Ring::publish).
    pub fn add(&mut self, head: u16) {
        self.memory.word(self.layout.avail_slot(self.avail_idx)).store(head, Ordering::Relaxed);
        self.avail_idx = self.avail_idx.wrapping_add(1);
    }

    /// Shows the device everything added, and kicks it if it asked for that.
    ///
    /// # Errors
    /// When the kick cannot be written.
    pub fn publish(&mut self) -> Result<()> {
        if self.avail_idx == self.published {
            return Ok(());
        }
        let old = std::mem::replace(&mut self.published, self.avail_idx);
        self.memory.word(self.layout.avail + 2).store(self.avail_idx, Ordering::Release);
        // The index must be seen before the device's wish is read; its half does the reverse.
        fence(Ordering::SeqCst);
        let wanted = if self.event_idx {
            passes(self.memory.word(self.layout.avail_event()).load(Ordering::Acquire), self.avail_idx, old)
        } else {
            self.memory.word(self.layout.used).load(Ordering::Acquire) & NO_NOTIFY == 0
        };
        if wanted {
            self.kicks += 1;
            self.kick.write(1).context(|| "kick the back-end")?;
        }
        Ok(())
    }

    /// The head of the next chain that is through.
    pub fn next_used(&mut self) -> Option<u16> {
        if !self.has_used() {
            return None;
        }
        let slot = self.layout.used_slot(self.used_idx);
        self.used_idx = self.used_idx.wrapping_add(1);
        Some(u32::from_le_bytes(self.memory.read(slot)) as u16)
    }

    fn has_used(&self) -> bool {
        self.memory.word(self.layout.used + 2).load(Ordering::Acquire) != self.used_idx
    }

    /// Wants no interrupt. To be said again after every batch: with EVENT_IDX it holds for half of the indexes only.
    pub fn ask_for_nothing(&mut self) {
        if self.event_idx {
            let passed = self.used_idx.wrapping_sub(1);
            self.memory.word(self.layout.used_event()).store(passed, Ordering::Relaxed);
        } else {
            self.memory.word(self.layout.avail).store(NO_INTERRUPT, Ordering::Relaxed);
        }
    }

    /// Wants an interrupt for the next chain; whether there is nothing to take yet, so that sleeping is right.
    pub fn ask_for_interrupt(&mut self) -> bool {
        if self.event_idx {
            self.memory.word(self.layout.used_event()).store(self.used_idx, Ordering::Release);
        } else {
            self.memory.word(self.layout.avail).store(0, Ordering::Release);
        }
        fence(Ordering::SeqCst);
        !self.has_used()
    }
}

/// A descriptor as it lies in memory (2.7.5).
pub fn descriptor(address: usize, len: u32, flags: u16, next: u16) -> [u8; 16] {
    let mut bytes = [0; 16];
    bytes[..8].copy_from_slice(&(address as u64).to_le_bytes());
    bytes[8..12].copy_from_slice(&len.to_le_bytes());
    bytes[12..14].copy_from_slice(&flags.to_le_bytes());
    bytes[14..].copy_from_slice(&next.to_le_bytes());
    bytes
}

/// The device's half: takes heads, and uses them at once.
#[derive(Debug)]
pub struct DeviceRing {
    memory: Arc<Memory>,
    layout: Layout,
    taken: u16,
}

impl DeviceRing {
    /// The other half of a ring that has not been used yet. It polls: the driver is told not to kick.
    pub fn new(memory: &Arc<Memory>, layout: Layout) -> DeviceRing {
        let ring = DeviceRing { memory: Arc::clone(memory), layout, taken: 0 };
        ring.ask_for_nothing();
        ring
    }

    /// Where its parts lie.
    pub fn layout(&self) -> Layout {
        self.layout
    }

    fn ask_for_nothing(&self) {
        self.memory.word(self.layout.avail_event()).store(self.taken.wrapping_sub(1), Ordering::Relaxed);
    }

    /// Hands every available head to `done` and puts it into the used ring; how many.
    pub fn turn(&mut self, mut done: impl FnMut(u16)) -> u16 {
        let avail = self.memory.word(self.layout.avail + 2).load(Ordering::Acquire);
        let from = self.taken;
        while self.taken != avail {
            let head = self.memory.word(self.layout.avail_slot(self.taken)).load(Ordering::Relaxed);
            done(head);
            self.memory.write(self.layout.used_slot(self.taken), &u64::from(head).to_le_bytes());
            self.taken = self.taken.wrapping_add(1);
        }
        if self.taken != from {
            self.ask_for_nothing();
            self.memory.word(self.layout.used + 2).store(self.taken, Ordering::Release);
        }
        self.taken.wrapping_sub(from)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_event_is_passed_once() {
        assert!(passes(4, 5, 4));
        assert!(passes(4, 8, 2));
        assert!(!passes(4, 4, 3), "not yet reached");
        assert!(!passes(4, 6, 5), "passed before");
        assert!(passes(u16::MAX, 0, u16::MAX), "over the wrap");
    }

    #[test]
    fn the_halves_meet_and_polling_needs_no_events() {
        let memory = Arc::new(Memory::new(1 << 20).unwrap());
        let mut driver = Ring::new(&memory, 4, true).unwrap();
        let mut device = DeviceRing::new(&memory, driver.layout());
        // Longer than the indexes' range, in uneven steps.
        for round in 0..40_000u32 {
            let count = round % 4 + 1;
            (0..count).for_each(|head| driver.add(head as u16));
            driver.publish().unwrap();
            let mut seen = Vec::new();
            assert_eq!(u32::from(device.turn(|head| seen.push(head))), count);
            assert_eq!(std::iter::from_fn(|| driver.next_used()).collect::<Vec<_>>(), seen);
            driver.ask_for_nothing();
        }
        assert_eq!(driver.kicks, 0);
        assert!(driver.ask_for_interrupt());
        driver.add(0);
        driver.publish().unwrap();
        device.turn(|_| ());
        assert!(!driver.ask_for_interrupt(), "there is something to take");
    }
}
