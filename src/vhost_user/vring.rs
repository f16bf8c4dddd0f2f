//! What the session knows of one ring: what the front-end has said about it, and whether the device runs it.
//!
//! The queue's size, addresses, indexes, enable flag and eventfds are kept in a [`VringMutex`], whose setters check them as
//! virtio wants. The mutex is only the record's: the device gets a [`RingConfig`] of its own with cloned descriptors, so
//! nothing on a command's way takes it.

use std::fs::File;
use std::sync::Arc;

use vhost_user_backend::{VringMutex, VringT};
use virtio_queue::QueueT;
use vm_memory::GuestMemoryMmap;

use super::session::Refused;
use super::{InflightRing, RingConfig};
use crate::mem::{MemoryMap, UsedRingLog};
use crate::sys::fd;

/// Largest ring, in descriptors.
pub(super) const MAX_SIZE: u16 = 1024;

/// The record holds no memory: the map that counts is [`MemoryMap`].
type NoMemory = Arc<GuestMemoryMmap<()>>;

/// Where the parts of a ring are. In the front-end's address space or in the guest's, as the name of the variable says.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Addresses {
    pub(super) desc: u64,
    pub(super) avail: u64,
    pub(super) used: u64,
}

/// One ring's record.
pub(super) struct Vring {
    record: VringMutex<NoMemory>,
    err: Option<File>,
    /// SET_VRING_NUM came.
    sized: bool,
    /// SET_VRING_ADDR: in the front-end's address space.
    user: Option<Addresses>,
    /// The same message: where its used ring is logged, if it is.
    log_addr: Option<u64>,
    /// SET_VRING_KICK came, with a descriptor or without: the ring is started, in the protocol's words.
    kicked: bool,
    /// SET_VRING_ENABLE; `None`: it never came.
    enable: Option<bool>,
    /// The device runs it.
    running: bool,
}

impl Vring {
    pub(super) fn new() -> Result<Vring, Refused> {
        let record = VringMutex::new(Arc::new(GuestMemoryMmap::new()), MAX_SIZE)?;
        Ok(Vring {
            record,
            err: None,
            sized: false,
            user: None,
            log_addr: None,
            kicked: false,
            enable: None,
            running: false,
        })
    }

    /// Everything that the protocol wants before a ring may run, but for what concerns all rings.
    pub(super) fn complete(&self) -> bool {
        self.sized && self.user.is_some() && self.kicked
    }

    pub(super) fn running(&self) -> bool {
        self.running
    }

    pub(super) fn set_running(&mut self, running: bool) {
        self.running = running;
        self.record.set_queue_ready(running);
    }

    /// Whether SET_VRING_ENABLE allows it to run, if `by_default` is what holds before it comes.
    pub(super) fn enabled(&self, by_default: bool) -> bool {
        self.enable.unwrap_or(by_default)
    }

    /// Whether SET_VRING_ENABLE is still to come.
    pub(super) fn awaits_enable(&self) -> bool {
        self.enable.is_none()
    }

    pub(super) fn set_enabled(&mut self, enabled: bool) {
        self.enable = Some(enabled);
        self.record.set_enabled(enabled);
    }

    pub(super) fn size(&self) -> Option<u16> {
        self.sized.then(|| self.record.get_ref().get_queue().size())
    }

    /// SET_VRING_NUM. The record's own setter ignores a bad size without a word, hence the check.
    pub(super) fn set_size(&mut self, size: u32) -> Result<(), Refused> {
        let refused = || Refused::new(format!("ring size {size} is not a power of two between 1 and {MAX_SIZE}"));
        let size = u16::try_from(size).map_err(|_| refused())?;
        self.record.get_mut().get_queue_mut().try_set_size(size).map_err(|_| refused())?;
        self.sized = true;
        Ok(())
    }

    pub(super) fn next_avail(&self) -> u16 {
        self.record.queue_next_avail()
    }

    pub(super) fn set_next_avail(&mut self, index: u16) {
        self.record.set_queue_next_avail(index);
    }

    pub(super) fn user_addresses(&self) -> Option<Addresses> {
        self.user
    }

    pub(super) fn set_user_addresses(&mut self, user: Addresses) {
        self.user = Some(user);
    }

    pub(super) fn log_addr(&self) -> Option<u64> {
        self.log_addr
    }

    pub(super) fn set_log_addr(&mut self, addr: Option<u64>) {
        self.log_addr = addr;
    }

    pub(super) fn set_kick(&mut self, kick: Option<File>) {
        self.record.set_kick(kick);
        self.kicked = true;
    }

    /// Forgets the kick: the ring is stopped, in the protocol's words.
    pub(super) fn take_kick(&mut self) {
        self.record.set_kick(None);
        self.kicked = false;
    }

    pub(super) fn set_call(&mut self, call: Option<File>) {
        self.record.set_call(call);
    }

    pub(super) fn set_err(&mut self, err: Option<File>) {
        self.err = err;
    }

    /// Back to how a ring is at the beginning of a connection, except for where it reports to: front-ends send those
    /// descriptors once, when they connect.
    pub(super) fn reset(&mut self) {
        self.record.get_mut().get_queue_mut().reset();
        self.record.set_enabled(false);
        self.take_kick();
        self.sized = false;
        self.user = None;
        self.log_addr = None;
        self.enable = None;
        self.running = false;
    }

    /// Where the ring is in guest memory, if that is a place for a ring: mapped, each part in one region, aligned.
    pub(super) fn locate(&self, map: &MemoryMap, event_idx: bool) -> Result<Addresses, &'static str> {
        let (Some(user), Some(size)) = (self.user, self.size()) else {
            return Err("is not set up");
        };
        let size = u64::from(size);
        // virtio 1.2 2.7: sizes of the parts; with EVENT_IDX each of the two rings has one more field.
        let event = if event_idx { 2 } else { 0 };
        let locate = |user, len, align: u64, what| {
            let guest = map.user_to_guest(user).ok_or(what)?;
            if !guest.is_multiple_of(align) {
                return Err("has a part that is not aligned");
            }
            map.host(guest, len).map(|_| guest).ok_or(what)
        };
        Ok(Addresses {
            desc: locate(user.desc, 16 * size, 16, "has a descriptor table outside guest memory")?,
            avail: locate(user.avail, 4 + 2 * size + event, 2, "has an available ring outside guest memory")?,
            used: locate(user.used, 4 + 8 * size + event, 4, "has a used ring outside guest memory")?,
        })
    }

    /// Whether it runs where `located` says.
    pub(super) fn runs_at(&self, located: Addresses) -> bool {
        let record = self.record.get_ref();
        let queue = record.get_queue();
        located == Addresses { desc: queue.desc_table(), avail: queue.avail_ring(), used: queue.used_ring() }
    }

    /// Makes the configuration to start it with at `guest`, and records it.
    pub(super) fn configure(
        &mut self,
        index: u16,
        guest: Addresses,
        map: &MemoryMap,
        event_idx: bool,
        used_log: Option<UsedRingLog>,
        inflight: Option<InflightRing>,
    ) -> Result<RingConfig, Refused> {
        self.record.set_queue_info(guest.desc, guest.avail, guest.used)?;
        self.record.set_queue_event_idx(event_idx);
        // The front-end says only where to go on in the available ring; where the used ring stands is in guest memory.
        let mut used_idx = [0u8; 2];
        map.read(guest.used + 2, &mut used_idx).map_err(|e| Refused::new(e.to_string()))?;
        let next_used = u16::from_le_bytes(used_idx);
        self.record.set_queue_next_used(next_used);

        let record = self.record.get_ref();
        let queue = record.get_queue();
        let kick = record.get_kick().as_ref().map(|k| k.try_clone()).transpose()?;
        let call = record.get_call().as_ref().map(|c| c.try_clone()).transpose()?;
        Ok(RingConfig {
            index,
            size: queue.size(),
            desc: queue.desc_table(),
            avail: queue.avail_ring(),
            used: queue.used_ring(),
            next_avail: queue.next_avail(),
            next_used,
            event_idx,
            used_log,
            kick: kick.map(fd::file_of_consumer),
            call: call.map(fd::file_of_notifier),
            err: self.err.as_ref().map(File::try_clone).transpose()?,
            inflight,
        })
    }
}
