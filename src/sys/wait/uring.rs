//! Waiting on the I/O ring: one system call submits I/O, re-arms polls and sleeps.
#![allow(unsafe_code, reason = "poll entries carry a raw descriptor; the slot owns it until the poll has ended")]

use std::collections::HashMap;
use std::io;
use std::os::fd::{AsRawFd, BorrowedFd, OwnedFd};
use std::time::Duration;

use io_uring::{opcode, types};

use super::{EpollWait, Wait, known, unknown};
use crate::sys::ring::{Channel, Ring};

/// A key that no slot has, for entries whose event says nothing.
const NOBODY: u64 = crate::sys::ring::KEY_MAX;
const INDEX_BITS: u32 = 20;
const GENERATION_MASK: u32 = (1 << 27) - 1;

/// A wait set on an io_uring instance. Returns from `wait` also when I/O submitted on the same ring has ended.
///
/// A poll is armed once and reports once; it is armed again by the next `wait`, when the kernel looks at the descriptor's state
/// as it is then: that makes it level-triggered.
#[derive(Debug)]
pub struct UringWait {
    channel: Channel,
    slots: Vec<Slot>,
    free: Vec<usize>,
    tokens: HashMap<u64, usize>,
    /// Slots whose poll is not in the kernel.
    unarmed: Vec<usize>,
}

/// Lives until its last poll has ended, so its descriptor is open as long as an entry names it.
#[derive(Debug)]
struct Slot {
    /// `None` once removed.
    token: Option<u64>,
    fd: Option<OwnedFd>,
    armed: bool,
    generation: u32,
}

impl UringWait {
    /// A wait set on `ring`.
    ///
    /// # Errors
    ///
    /// When the ring has no channel left.
    pub fn new(ring: Ring) -> io::Result<UringWait> {
        let channel = ring.channel().ok_or_else(|| io::Error::other("the ring has no channel left"))?;
        Ok(UringWait { channel, slots: Vec::new(), free: Vec::new(), tokens: HashMap::new(), unarmed: Vec::new() })
    }

    fn key(&self, index: usize) -> u64 {
        let generation = self.slots.get(index).map_or(0, |slot| slot.generation);
        u64::from(generation) << INDEX_BITS | index as u64
    }

    fn arm(&mut self) {
        // Emptied, not taken: this is every wake-up's, and must not allocate.
        while let Some(index) = self.unarmed.pop() {
            let key = self.key(index);
            let Some(slot) = self.slots.get_mut(index) else { continue };
            let Some(fd) = slot.fd.as_ref().map(AsRawFd::as_raw_fd) else { continue };
            slot.armed = true;
            let entry = opcode::PollAdd::new(types::Fd(fd), libc::POLLIN as u32).build();
            // SAFETY: the entry names a descriptor and no memory; the slot keeps the descriptor open until the event was taken.
            unsafe { self.channel.push(key, entry) };
        }
    }

    fn retire(&mut self, index: usize) {
        if let Some(slot) = self.slots.get_mut(index) {
            slot.fd = None;
            // A late entry of the former user names a generation that is over.
            slot.generation = (slot.generation + 1) & GENERATION_MASK;
            self.free.push(index);
        }
    }

    fn take_events(&mut self, ready: &mut Vec<u64>) {
        while let Some(event) = self.channel.next() {
            if event.key == NOBODY {
                continue;
            }
            let index = (event.key & ((1 << INDEX_BITS) - 1)) as usize;
            if event.key != self.key(index) {
                continue;
            }
            let Some(slot) = self.slots.get_mut(index) else { continue };
            slot.armed = false;
            match slot.token {
                None => self.retire(index),
                Some(token) => {
                    // A poll that failed is reported, too: whoever reads will see what is wrong.
                    self.unarmed.push(index);
                    ready.push(token);
                }
            }
        }
    }
}

impl Wait for UringWait {
    fn add(&mut self, fd: BorrowedFd<'_>, token: u64) -> io::Result<()> {
        if self.tokens.contains_key(&token) {
            return Err(known(token));
        }
        // io_uring would report for ever what has no notion of readiness; epoll refuses it.
        EpollWait::new()?.add(fd, token)?;
        let fd = fd.try_clone_to_owned()?;
        let index = match self.free.pop() {
            Some(index) => index,
            None if self.slots.len() >> INDEX_BITS != 0 => return Err(io::Error::other("the wait set is full")),
            None => {
                self.slots.push(Slot { token: None, fd: None, armed: false, generation: 0 });
                self.slots.len() - 1
            }
        };
        if let Some(slot) = self.slots.get_mut(index) {
            slot.token = Some(token);
            slot.fd = Some(fd);
            slot.armed = false;
        }
        self.tokens.insert(token, index);
        self.unarmed.push(index);
        Ok(())
    }

    fn remove(&mut self, token: u64) -> io::Result<()> {
        let index = self.tokens.remove(&token).ok_or_else(|| unknown(token))?;
        let key = self.key(index);
        let Some(slot) = self.slots.get_mut(index) else { return Err(unknown(token)) };
        slot.token = None;
        if slot.armed {
            let entry = opcode::PollRemove::new(self.channel.user_data(key)).build();
            // SAFETY: the entry holds no address and no descriptor.
            unsafe { self.channel.push(NOBODY, entry) };
        } else {
            self.unarmed.retain(|i| *i != index);
            self.retire(index);
        }
        Ok(())
    }

    fn wait(&mut self, timeout: Option<Duration>, ready: &mut Vec<u64>) -> io::Result<()> {
        self.arm();
        self.channel.ring().enter_and_wait(timeout)?;
        self.take_events(ready);
        Ok(())
    }
}

impl Drop for UringWait {
    /// Polls in flight hold a reference of their own to the file, but one that was not submitted yet names only the
    /// descriptor: everything is submitted before the slots close theirs.
    fn drop(&mut self) {
        let tokens: Vec<u64> = self.tokens.keys().copied().collect();
        for token in tokens {
            if let Err(e) = self.remove(token) {
                log::warn!("wait set: {e}");
            }
        }
        if let Err(e) = self.channel.ring().enter() {
            log::warn!("wait set not emptied: {e}");
        }
    }
}
