//! A split virtqueue as its driver sees it, with the means to misuse it.
#![allow(clippy::unwrap_used, missing_docs, dead_code, reason = "test code")]

use std::collections::HashMap;
use std::time::{Duration, Instant};

use vmm_sys_util::eventfd::{EFD_CLOEXEC, EFD_NONBLOCK, EventFd};

use super::ram::Ram;

pub const F_NEXT: u16 = 1;
pub const F_WRITE: u16 = 2;
pub const F_INDIRECT: u16 = 4;

/// A buffer of a chain.
#[derive(Clone, Copy, Debug)]
pub struct Buffer {
    pub addr: u64,
    pub len: u32,
    /// For the device to write.
    pub write: bool,
}

impl Buffer {
    pub fn out(addr: u64, len: u32) -> Buffer {
        Buffer { addr, len, write: false }
    }

    pub fn input(addr: u64, len: u32) -> Buffer {
        Buffer { addr, len, write: true }
    }
}

pub struct Queue {
    pub index: u16,
    pub size: u16,
    pub desc: u64,
    pub avail: u64,
    pub used: u64,
    pub kick: EventFd,
    pub call: EventFd,
    pub err: EventFd,
    pub event_idx: bool,
    ram: Ram,
    free: Vec<u16>,
    chains: HashMap<u16, Vec<u16>>,
    /// Our copies of the indexes.
    pub avail_idx: u16,
    pub used_idx: u16,
}

impl Queue {
    pub fn new(ram: &Ram, index: u16, size: u16, event_idx: bool) -> Queue {
        Queue::new_in(ram, 0, index, size, event_idx)
    }

    pub fn new_in(ram: &Ram, region: usize, index: u16, size: u16, event_idx: bool) -> Queue {
        let n = u64::from(size);
        // Processes that are started meanwhile are not to have it.
        let event = || EventFd::new(EFD_NONBLOCK | EFD_CLOEXEC).unwrap();
        Queue {
            index,
            size,
            desc: ram.alloc_in(region, 16 * n),
            avail: ram.alloc_in(region, 6 + 2 * n),
            used: ram.alloc_in(region, 6 + 8 * n),
            kick: event(),
            call: event(),
            err: event(),
            event_idx,
            ram: ram.clone(),
            free: (0..size).rev().collect(),
            chains: HashMap::new(),
            avail_idx: 0,
            used_idx: 0,
        }
    }

    /// As the driver's reset leaves it: empty, indexes 0.
    pub fn clear(&mut self) {
        let n = usize::from(self.size);
        self.ram.write(self.desc, &vec![0; 16 * n]);
        self.ram.write(self.avail, &vec![0; 6 + 2 * n]);
        self.ram.write(self.used, &vec![0; 6 + 8 * n]);
        self.free = (0..self.size).rev().collect();
        self.chains.clear();
        self.avail_idx = 0;
        self.used_idx = 0;
    }

    pub fn write_desc(&self, index: u16, addr: u64, len: u32, flags: u16, next: u16) {
        let mut bytes = addr.to_le_bytes().to_vec();
        bytes.extend(len.to_le_bytes());
        bytes.extend(flags.to_le_bytes());
        bytes.extend(next.to_le_bytes());
        self.ram.write(self.desc + 16 * u64::from(index), &bytes);
    }

    /// Puts a head into the available ring and publishes it, whatever it is.
    pub fn push_head(&mut self, head: u16) {
        let slot = u64::from(self.avail_idx % self.size);
        self.ram.store_u16(self.avail + 4 + 2 * slot, head);
        self.set_avail_idx(self.avail_idx.wrapping_add(1));
    }

    pub fn set_avail_idx(&mut self, index: u16) {
        self.avail_idx = index;
        self.ram.store_u16(self.avail + 2, index);
    }

    pub fn kick(&self) {
        self.kick.write(1).unwrap();
    }

    /// Makes a chain of descriptors available; does not kick.
    pub fn push(&mut self, buffers: &[Buffer]) -> u16 {
        let indexes: Vec<u16> = buffers.iter().map(|_| self.free.pop().expect("a free descriptor")).collect();
        for (i, buffer) in buffers.iter().enumerate() {
            let next = indexes.get(i + 1);
            let flags = if next.is_some() { F_NEXT } else { 0 } | if buffer.write { F_WRITE } else { 0 };
            self.write_desc(indexes[i], buffer.addr, buffer.len, flags, next.copied().unwrap_or(0));
        }
        self.publish(indexes)
    }

    /// The same through an indirect table.
    pub fn push_indirect(&mut self, buffers: &[Buffer]) -> u16 {
        let table = self.ram.alloc(16 * buffers.len() as u64);
        for (i, buffer) in buffers.iter().enumerate() {
            let last = i + 1 == buffers.len();
            let flags = if last { 0 } else { F_NEXT } | if buffer.write { F_WRITE } else { 0 };
            let mut bytes = buffer.addr.to_le_bytes().to_vec();
            bytes.extend(buffer.len.to_le_bytes());
            bytes.extend(flags.to_le_bytes());
            bytes.extend((i as u16 + 1).to_le_bytes());
            self.ram.write(table + 16 * i as u64, &bytes);
        }
        let index = self.free.pop().expect("a free descriptor");
        self.write_desc(index, table, 16 * buffers.len() as u32, F_INDIRECT, 0);
        self.publish(vec![index])
    }

    fn publish(&mut self, indexes: Vec<u16>) -> u16 {
        let head = indexes[0];
        self.chains.insert(head, indexes);
        if self.event_idx {
            // used_event: interrupt for the very next completion.
            self.ram.store_u16(self.avail + 4 + 2 * u64::from(self.size), self.used_idx);
        }
        self.push_head(head);
        head
    }

    /// used.idx as the device left it.
    pub fn published(&self) -> u16 {
        self.ram.load_u16(self.used + 2)
    }

    /// How many chains are out.
    pub fn outstanding(&self) -> usize {
        self.chains.len()
    }

    /// The next used entry, if there is one: head and bytes written.
    pub fn pop_used(&mut self) -> Option<(u16, u32)> {
        if self.ram.load_u16(self.used + 2) == self.used_idx {
            return None;
        }
        let slot = self.used + 4 + 8 * u64::from(self.used_idx % self.size);
        self.used_idx = self.used_idx.wrapping_add(1);
        let (head, len) = (self.ram.load_u32(slot) as u16, self.ram.load_u32(slot + 4));
        if self.event_idx {
            self.ram.store_u16(self.avail + 4 + 2 * u64::from(self.size), self.used_idx);
        }
        if let Some(indexes) = self.chains.remove(&head) {
            self.free.extend(indexes.iter().rev());
        }
        Some((head, len))
    }

    /// Waits for a used entry.
    pub fn wait_used(&mut self, bound: Duration) -> Option<(u16, u32)> {
        let start = Instant::now();
        loop {
            if let Some(used) = self.pop_used() {
                return Some(used);
            }
            if start.elapsed() > bound {
                return None;
            }
            std::thread::sleep(Duration::from_micros(50));
        }
    }

    /// Whether the device has interrupted since the last time; waits for it.
    pub fn wait_interrupt(&self, bound: Duration) -> bool {
        let start = Instant::now();
        loop {
            if self.call.read().is_ok() {
                return true;
            }
            if start.elapsed() > bound {
                return false;
            }
            std::thread::sleep(Duration::from_micros(50));
        }
    }
}
