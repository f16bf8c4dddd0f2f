//! The event queue (virtio 1.2 5.6.6.3): buffers that wait for something to tell.

use zerocopy::IntoBytes;

use super::chain::{Chain, ChainError, ChainFault, split};
use super::slot::ResponseSlot;
use super::wire;
use crate::mem::{GuestWriter, MemoryMap};
use crate::scsi::Lun;

/// What a transport reset event says of a target or logical unit.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u32)]
pub enum ResetReason {
    /// It was reset; all its tasks are over.
    Hard = wire::RESET_HARD,
    /// It is new.
    Rescan = wire::RESET_RESCAN,
    /// It is gone.
    Removed = wire::RESET_REMOVED,
}

/// Something to tell the driver.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Event {
    /// Nothing but that events were missed.
    NoEvent,
    /// A target or logical unit came, went or was reset. With a LUN of 0 below a target all of it may be meant.
    TransportReset {
        /// Which.
        lun: Lun,
        /// What happened.
        reason: ResetReason,
    },
    /// An asynchronous event that was subscribed to.
    AsyncNotify {
        /// Of which unit.
        lun: Lun,
        /// Its bit, see [`wire::AN_OPERATIONAL_CHANGE`].
        event: u32,
    },
    /// A unit's parameters changed; the driver is told what a unit attention would say.
    ParamChange {
        /// Of which unit.
        lun: Lun,
        /// Additional sense code.
        asc: u8,
        /// Additional sense code qualifier.
        ascq: u8,
    },
}

impl Event {
    /// The 16 bytes of `struct virtio_scsi_event`. `missed`: events before this one were lost.
    pub fn encode(self, missed: bool) -> [u8; 16] {
        let (event, lun, reason) = match self {
            Event::NoEvent => (wire::EVENT_NONE, Lun::default(), 0),
            Event::TransportReset { lun, reason } => (wire::EVENT_TRANSPORT_RESET, lun, reason as u32),
            Event::AsyncNotify { lun, event } => (wire::EVENT_ASYNC_NOTIFY, lun, event),
            Event::ParamChange { lun, asc, ascq } => {
                (wire::EVENT_PARAM_CHANGE, lun, u32::from(asc) | u32::from(ascq) << 8)
            }
        };
        let flag = if missed { wire::EVENTS_MISSED } else { 0 };
        let record = wire::EventRecord { event: (event | flag).into(), lun: lun.0, reason: reason.into() };
        let mut bytes = [0; 16];
        bytes.copy_from_slice(record.as_bytes());
        bytes
    }
}

/// A buffer that the driver queued for an event. Kept until there is one.
#[derive(Debug)]
pub struct EventBuffer {
    /// The chain's name on the used ring.
    pub head: u16,
    slot: ResponseSlot,
}

impl EventBuffer {
    /// Takes a chain apart.
    ///
    /// # Errors
    ///
    /// Unanswerable if it is shorter than an event, or not in guest memory.
    pub fn parse(chain: &Chain, map: &MemoryMap) -> Result<EventBuffer, ChainError> {
        let mut slot = ResponseSlot::default();
        let len = size_of::<wire::EventRecord>() as u32;
        let (writable, _) = split(chain.writable(), len, |addr, len| slot.push(addr, len), |_, _| ());
        if writable < len {
            return Err(ChainError::Unanswerable(ChainFault::ShortResponse(writable)));
        }
        slot.check(map).map_err(|outside| ChainError::Unanswerable(ChainFault::ResponseOutside(outside)))?;
        Ok(EventBuffer { head: chain.head, slot })
    }

    /// Writes an event; returns the length for the used ring.
    pub fn write(&self, to: GuestWriter<'_>, event: Event, missed: bool) -> u32 {
        self.slot.write(to, &event.encode(missed))
    }
}

#[cfg(test)]
mod tests;
