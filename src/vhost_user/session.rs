//! One connection's state, and what each message does to it.
//!
//! # A ring's life
//!
//! Messages only change the ring's record ([`Vring`]); after each, [`Session::settle`] compares what the record says with what
//! the device does and starts or stops the ring. A ring runs exactly while all of this holds:
//!
//! * it has a size (SET_VRING_NUM), addresses (SET_VRING_ADDR) and has been started (SET_VRING_KICK, with a descriptor
//!   or without; undone by GET_VRING_BASE and RESET_DEVICE);
//! * it is enabled: by SET_VRING_ENABLE, or, before that came, because VHOST_USER_F_PROTOCOL_FEATURES was not
//!   acknowledged;
//! * features have been set (undone by RESET_DEVICE) and its addresses are in the memory table.
//!
//! So the order of messages makes no difference. Disabling a ring, or taking its memory away, stops it where it
//! is; it goes on there when the cause is gone. (QEMU removes a memory region and adds its pieces again in separate messages
//! while rings run.) Changing what a running ring was started with stops it, drained, and starts it again; only
//! its size and base cannot be changed then, which is refused.
//!
//! # Errors
//!
//! A handler that fails makes the `vhost` crate answer with a failure (where the front-end asked for an answer) and ends
//! the connection. [`Refused`] carries the reason, which the connection logs, once.

use std::fs::File;
use std::io;
use std::sync::Arc;

use vhost::vhost_user::message::{
    VhostTransferStateDirection, VhostTransferStatePhase, VhostUserConfigFlags, VhostUserInflight, VhostUserLog,
    VhostUserMemoryRegion, VhostUserShMemConfig, VhostUserSharedMsg, VhostUserSingleMemoryRegion,
    VhostUserVringAddrFlags, VhostUserVringState,
};
use vhost::vhost_user::{
    Error as VhostError, GpuBackend, Result as VhostResult, VhostUserBackendReqHandlerMut, VhostUserProtocolFeatures,
};

use super::inflight::Buffer;
use super::vring::{Addresses, Vring};
use super::{Device, StartError, dirty_log, features, memory};
use crate::mem::{MemoryMap, RegionError};
use crate::sys::event::{self, Nature};
use crate::sys::fd;

/// Rings that a vring index on the wire can name: 8 bits where a descriptor comes with it.
const MAX_RINGS: u16 = 256;

/// The ring for task management, and the first of those for commands.
const CONTROL: u16 = 0;
const FIRST_REQUEST: u16 = 2;

/// Why a message was refused, in words for the log.
#[derive(Debug, thiserror::Error)]
#[error("{0}")]
pub(super) struct Refused(String);

impl Refused {
    pub(super) fn new(why: impl Into<String>) -> Refused {
        Refused(why.into())
    }
}

impl From<Refused> for VhostError {
    fn from(refused: Refused) -> VhostError {
        VhostError::ReqHandlerError(io::Error::other(refused))
    }
}

macro_rules! refused_from {
    ($($error:ty),*) => { $(impl From<$error> for Refused {
        fn from(error: $error) -> Refused {
            Refused(error.to_string())
        }
    })* };
}

refused_from!(RegionError, StartError, io::Error, virtio_queue::Error);

/// Whether a ring that lacks nothing but a place in memory is an error. It is when the front-end says start; while it
/// builds its memory table it is not.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Unmapped {
    IsAnError,
    Waits,
}

/// One connection's state.
pub(super) struct Session {
    name: String,
    device: Box<dyn Device>,
    /// Virtio features of the last SET_FEATURES since the last reset.
    acked: Option<u64>,
    protocol: VhostUserProtocolFeatures,
    map: Arc<MemoryMap>,
    log: dirty_log::Log,
    /// SET_INFLIGHT_FD.
    inflight: Option<Buffer>,
    /// Indexed by ring; grows to the highest index that a message named.
    rings: Vec<Vring>,
}

impl Session {
    pub(super) fn new(name: String, device: Box<dyn Device>) -> Session {
        Session {
            name,
            device,
            acked: None,
            protocol: VhostUserProtocolFeatures::empty(),
            map: Arc::default(),
            log: dirty_log::Log::default(),
            inflight: None,
            rings: Vec::new(),
        }
    }

    /// The connection is over.
    pub(super) fn disconnected(&mut self) {
        self.device.disconnected();
        self.rings.clear();
        self.map = Arc::default();
        self.log = dirty_log::Log::default();
        self.inflight = None;
    }

    /// Whether the front-end acknowledged VHOST_USER_F_PROTOCOL_FEATURES.
    pub(super) fn protocol_features_acked(&self) -> bool {
        self.acked.is_some_and(|acked| acked & features::PROTOCOL_FEATURES != 0)
    }

    /// Whether the front-end asked that messages be answered when it says so.
    pub(super) fn reply_ack(&self) -> bool {
        self.protocol.contains(VhostUserProtocolFeatures::REPLY_ACK)
    }

    fn offered(&self) -> u64 {
        features::offered(self.device.features())
    }

    fn event_idx(&self) -> bool {
        self.acked.is_some_and(|acked| acked & features::EVENT_IDX != 0)
    }

    fn ring_count(&self) -> u16 {
        self.device.request_queues().saturating_add(2).min(MAX_RINGS)
    }

    /// The record of the ring that a message names, made if it is the first to do so.
    fn ring(&mut self, index: u32) -> Result<(u16, &mut Vring), Refused> {
        let count = self.ring_count();
        let bad = || Refused::new(format!("ring {index}: there are {count} rings"));
        let index = u16::try_from(index).map_err(|_| bad())?;
        if index >= count {
            return Err(bad());
        }
        while self.rings.len() <= usize::from(index) {
            self.rings.push(Vring::new()?);
        }
        let ring = self.rings.get_mut(usize::from(index)).ok_or_else(bad)?;
        Ok((index, ring))
    }

    /// Stops the ring if it runs; it can go on later where it stopped.
    fn pause(&mut self, index: u16) {
        let Some(ring) = self.rings.get_mut(usize::from(index)) else { return };
        if !ring.running() {
            return;
        }
        if let Some(next_avail) = self.device.stop_ring(index) {
            ring.set_next_avail(next_avail);
        }
        ring.set_running(false);
        log::debug!("{}: ring {index} stopped at {}", self.name, ring.next_avail());
    }

    /// Makes the device log what the front-end wants logged.
    fn settle_log(&mut self) -> Result<(), Refused> {
        let all = self.acked.is_some_and(|acked| acked & features::LOG_ALL != 0);
        if let Some(change) = self.log.settle(all, &self.rings)? {
            log::debug!("{}: writes are logged: {all}, used rings: {}", self.name, change.rings.len());
            self.device.set_log(change.log, &change.rings);
        }
        Ok(())
    }

    /// Starts or stops the ring as its record says, and the control ring if that has waited for it.
    fn settle(&mut self, index: u16, unmapped: Unmapped) -> Result<(), Refused> {
        self.settle_one(index, unmapped)?;
        if index == CONTROL { Ok(()) } else { self.settle_one(CONTROL, Unmapped::Waits) }
    }

    /// Whether a request ring is about to start, so that the control ring should wait for it: a task management function must find the
    /// tasks that the guest had begun before it, be they in flight since before a restart or only available. Rings that are set up are about to be
    /// enabled (QEMU sets them all up, then enables them from 0 on); so are those that a predecessor took something from.
    fn request_rings_are_to_come(&self) -> bool {
        let owed = |index| self.inflight.as_ref().is_some_and(|buffer| buffer.is_owed(index));
        let named = (0u16..).zip(&self.rings).skip(usize::from(FIRST_REQUEST));
        let set_up = self.protocol_features_acked()
            && named.clone().any(|(_, ring)| !ring.running() && ring.awaits_enable() && ring.complete());
        set_up
            || self.inflight.is_some()
                && (FIRST_REQUEST..self.ring_count()).any(|index| match self.rings.get(usize::from(index)) {
                    Some(ring) => !ring.running() && (ring.awaits_enable() || ring.enabled(false)) && owed(index),
                    None => owed(index),
                })
    }

    fn settle_one(&mut self, index: u16, unmapped: Unmapped) -> Result<(), Refused> {
        let event_idx = self.event_idx();
        let enabled_by_default = self.acked.is_some() && !self.protocol_features_acked();
        let used_log = self.log.of_ring(&self.rings, index);
        let Some(ring) = self.rings.get_mut(usize::from(index)) else { return Ok(()) };
        let may_run = self.acked.is_some() && ring.complete() && ring.enabled(enabled_by_default);
        if ring.running() {
            if !may_run {
                self.pause(index);
            }
            return Ok(());
        }
        if !may_run || self.map.regions().is_empty() {
            return Ok(());
        }
        if index == CONTROL && self.request_rings_are_to_come() {
            return Ok(());
        }
        let Some(ring) = self.rings.get_mut(usize::from(index)) else { return Ok(()) };
        let guest = match ring.locate(&self.map, event_idx) {
            Ok(guest) => guest,
            Err(what) if unmapped == Unmapped::IsAnError => {
                return Err(Refused::new(format!("ring {index} {what}")));
            }
            Err(what) => {
                log::debug!("{}: ring {index} {what}", self.name);
                return Ok(());
            }
        };
        let size = ring.size().unwrap_or(0);
        let account = self.inflight.as_ref().and_then(|buffer| buffer.ring(index, size));
        let config = ring.configure(index, guest, &self.map, event_idx, used_log, account)?;
        log::debug!("{}: ring {index} starts: {config:?}", self.name);
        self.device.start_ring(config)?;
        ring.set_running(true);
        Ok(())
    }

    fn settle_all(&mut self, unmapped: Unmapped) -> Result<(), Refused> {
        // The control ring comes last.
        (1..self.rings.len()).try_for_each(|index| self.settle_one(index as u16, unmapped))?;
        self.settle_one(CONTROL, unmapped)
    }

    /// Puts a new memory map in force.
    fn change_memory(&mut self, next: Arc<MemoryMap>) -> Result<(), Refused> {
        // Rings that would not be where they are stop first, on the old map; the others never notice.
        let event_idx = self.event_idx();
        let stays = |ring: &Vring| ring.locate(&next, event_idx).is_ok_and(|located| ring.runs_at(located));
        let moved: Vec<u16> = (0u16..)
            .zip(&self.rings)
            .filter(|(_, ring)| ring.running() && !stays(ring))
            .map(|(index, _)| index)
            .collect();
        moved.into_iter().for_each(|index| self.pause(index));

        let gone = self.map.loses_memory_in(&next);
        self.device.set_memory(Arc::clone(&next), gone);
        self.map = next;
        self.settle_all(Unmapped::Waits)
    }

    /// An eventfd as the device may use it. A kick is emptied: a ring that starts is looked at, kicked or not.
    fn event(&self, index: u8, event: Option<File>, kick: bool) -> Result<Option<File>, Refused> {
        if let Some(file) = &event {
            match event::examine(file, kick)? {
                Nature::Eventfd => {}
                Nature::Semaphore => {
                    return Err(Refused::new(format!("ring {index}: a semaphore eventfd cannot be waited for")));
                }
                Nature::Other => return Err(Refused::new(format!("ring {index}: the descriptor is not an eventfd"))),
            }
            fd::set_nonblocking(file)?;
        }
        Ok(event)
    }
}

impl VhostUserBackendReqHandlerMut for Session {
    /// The front-end's session starts. QEMU says so again, over a connection it has, when a device is plugged in after the one that used
    /// the connection was unplugged. The new one knows nothing of the rings and the memory table of the one before: it adds every region
    /// anew. While rings run it has no meaning.
    fn set_owner(&mut self) -> VhostResult<()> {
        if self.rings.iter().any(Vring::running) {
            return Ok(());
        }
        self.rings.clear();
        self.inflight = None;
        self.settle_log()?;
        if !self.map.regions().is_empty() {
            self.change_memory(Arc::default())?;
        }
        Ok(())
    }

    /// Deprecated; the specification recommends to ignore it.
    fn reset_owner(&mut self) -> VhostResult<()> {
        Ok(())
    }

    /// Everything but the memory table and where rings report to is as at the beginning.
    fn reset_device(&mut self) -> VhostResult<()> {
        self.device.reset();
        self.rings.iter_mut().for_each(Vring::reset);
        self.acked = None;
        Ok(self.settle_log()?)
    }

    fn get_features(&mut self) -> VhostResult<u64> {
        Ok(self.offered())
    }

    fn set_features(&mut self, acked: u64) -> VhostResult<()> {
        features::check(acked, self.offered()).map_err(Refused::new)?;
        let for_device = acked & !features::TRANSPORT;
        let changed = self.acked.is_none_or(|before| before & !features::TRANSPORT != for_device);
        if changed {
            if self.rings.iter().any(Vring::running) {
                return Err(Refused::new("features cannot change while rings run").into());
            }
            self.device.set_features(for_device);
        }
        self.acked = Some(acked);
        self.settle_log()?;
        Ok(self.settle_all(Unmapped::IsAnError)?)
    }

    fn set_mem_table(
        &mut self,
        regions: &[VhostUserMemoryRegion],
        files: Vec<File>,
        _postcopy_listening: Option<bool>,
    ) -> VhostResult<Option<Vec<u64>>> {
        let next = memory::replaced(&self.map, regions, files)?;
        self.change_memory(next)?;
        Ok(None)
    }

    fn set_vring_num(&mut self, index: u32, num: u32) -> VhostResult<()> {
        let (index, ring) = self.ring(index)?;
        if ring.running() && ring.size().map(u32::from) != Some(num) {
            return Err(Refused::new(format!("ring {index}: its size cannot change while it runs")).into());
        }
        ring.set_size(num)?;
        Ok(self.settle(index, Unmapped::IsAnError)?)
    }

    fn set_vring_addr(
        &mut self,
        index: u32,
        flags: VhostUserVringAddrFlags,
        descriptor: u64,
        used: u64,
        available: u64,
        log: u64,
    ) -> VhostResult<()> {
        let (index, ring) = self.ring(index)?;
        let user = Addresses { desc: descriptor, avail: available, used };
        ring.set_log_addr(flags.contains(VhostUserVringAddrFlags::VHOST_VRING_F_LOG).then_some(log));
        // QEMU repeats the addresses of live rings when a migration starts, only to set the log flag: such a ring runs on,
        // so no used index can be lost.
        if ring.user_addresses() != Some(user) {
            self.pause(index);
            self.ring(index.into())?.1.set_user_addresses(user);
        }
        self.settle_log()?;
        Ok(self.settle(index, Unmapped::IsAnError)?)
    }

    fn set_vring_base(&mut self, index: u32, base: u32) -> VhostResult<()> {
        let (index, ring) = self.ring(index)?;
        let base = u16::try_from(base).map_err(|_| Refused::new(format!("ring {index}: no index {base}")))?;
        // The record keeps where a running ring was started; saying that again changes nothing.
        if ring.running() && ring.next_avail() != base {
            return Err(Refused::new(format!("ring {index}: its base cannot be set while it runs")).into());
        }
        ring.set_next_avail(base);
        Ok(())
    }

    fn get_vring_base(&mut self, index: u32) -> VhostResult<VhostUserVringState> {
        let (index, _) = self.ring(index)?;
        self.pause(index);
        let (_, ring) = self.ring(index.into())?;
        ring.take_kick();
        Ok(VhostUserVringState::new(index.into(), ring.next_avail().into()))
    }

    fn set_vring_kick(&mut self, index: u8, kick: Option<File>) -> VhostResult<()> {
        let (ring, _) = self.ring(index.into())?;
        // Nobody reads the kick that it had while the one that comes is examined: it may be the same.
        self.pause(ring);
        let kick = self.event(index, kick, true)?;
        let index = ring;
        self.ring(index.into())?.1.set_kick(kick);
        Ok(self.settle(index, Unmapped::IsAnError)?)
    }

    fn set_vring_call(&mut self, index: u8, call: Option<File>) -> VhostResult<()> {
        let call = self.event(index, call, false)?;
        let (index, ring) = self.ring(index.into())?;
        let for_device = call.as_ref().map(File::try_clone).transpose().map_err(Refused::from)?;
        ring.set_call(call);
        if ring.running() {
            self.device.set_call(index, for_device);
        }
        Ok(())
    }

    fn set_vring_err(&mut self, index: u8, err: Option<File>) -> VhostResult<()> {
        let err = self.event(index, err, false)?;
        let (index, ring) = self.ring(index.into())?;
        let for_device = err.as_ref().map(File::try_clone).transpose().map_err(Refused::from)?;
        ring.set_err(err);
        if ring.running() {
            self.device.set_err(index, for_device);
        }
        Ok(())
    }

    fn get_protocol_features(&mut self) -> VhostResult<VhostUserProtocolFeatures> {
        Ok(features::protocol_offered())
    }

    fn set_protocol_features(&mut self, acked: u64) -> VhostResult<()> {
        let unknown = acked & !features::protocol_offered().bits();
        if unknown != 0 {
            return Err(Refused::new(format!("protocol features {unknown:#x} were not offered")).into());
        }
        self.protocol = VhostUserProtocolFeatures::from_bits_truncate(acked);
        Ok(())
    }

    /// Of request queues: QEMU compares it with `num_queues`, which does not count the control and the event queue.
    fn get_queue_num(&mut self) -> VhostResult<u64> {
        Ok(self.ring_count().saturating_sub(2).into())
    }

    fn set_vring_enable(&mut self, index: u32, enable: bool) -> VhostResult<()> {
        let (index, ring) = self.ring(index)?;
        ring.set_enabled(enable);
        Ok(self.settle(index, Unmapped::IsAnError)?)
    }

    fn get_max_mem_slots(&mut self) -> VhostResult<u64> {
        Ok(memory::MAX_SLOTS as u64)
    }

    fn add_mem_region(
        &mut self,
        region: &VhostUserSingleMemoryRegion,
        file: File,
        _postcopy_listening: Option<bool>,
    ) -> VhostResult<Option<u64>> {
        let next = memory::added(&self.map, region, file)?;
        self.change_memory(next)?;
        Ok(None)
    }

    fn remove_mem_region(&mut self, region: &VhostUserSingleMemoryRegion) -> VhostResult<()> {
        let next = memory::removed(&self.map, region)?;
        Ok(self.change_memory(next)?)
    }

    fn set_log_base(&mut self, log: &VhostUserLog, file: File) -> VhostResult<()> {
        self.log.set_base(log, file)?;
        Ok(self.settle_log()?)
    }

    fn get_inflight_fd(&mut self, wanted: &VhostUserInflight) -> VhostResult<(VhostUserInflight, File)> {
        Ok(Buffer::create(wanted)?)
    }

    fn set_inflight_fd(&mut self, inflight: &VhostUserInflight, file: File) -> VhostResult<()> {
        self.inflight = Some(Buffer::open(inflight, file)?);
        Ok(())
    }

    // What follows belongs to features that are not offered, or to other devices.

    fn get_config(&mut self, _offset: u32, _size: u32, _flags: VhostUserConfigFlags) -> VhostResult<Vec<u8>> {
        Err(NOT_OFFERED)
    }

    fn set_config(&mut self, _offset: u32, _buf: &[u8], _flags: VhostUserConfigFlags) -> VhostResult<()> {
        Err(NOT_OFFERED)
    }

    fn set_gpu_socket(&mut self, _gpu_backend: GpuBackend) -> VhostResult<()> {
        Err(NOT_OFFERED)
    }

    fn get_shared_object(&mut self, _uuid: VhostUserSharedMsg) -> VhostResult<File> {
        Err(NOT_OFFERED)
    }

    fn set_device_state_fd(
        &mut self,
        _direction: VhostTransferStateDirection,
        _phase: VhostTransferStatePhase,
        _file: File,
    ) -> VhostResult<Option<File>> {
        Err(NOT_OFFERED)
    }

    fn check_device_state(&mut self) -> VhostResult<()> {
        Err(NOT_OFFERED)
    }

    fn get_shmem_config(&mut self) -> VhostResult<VhostUserShMemConfig> {
        Err(NOT_OFFERED)
    }
}

const NOT_OFFERED: VhostError = VhostError::InvalidOperation("this was not offered");

#[cfg(test)]
mod model;
#[cfg(test)]
mod tests;
