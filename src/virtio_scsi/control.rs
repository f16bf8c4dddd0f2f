//! Requests of the control queue (virtio 1.2 5.6.6.2).

use zerocopy::IntoBytes;

use super::chain::{Chain, ChainError, ChainFault, split};
use super::command::HeaderReader;
use super::convert::task_management_function;
use super::slot::ResponseSlot;
use super::wire::{
    AsyncHeader, AsyncResponse, CONTROL_AN_QUERY, CONTROL_AN_SUBSCRIBE, CONTROL_TMF, ResponseCode, TaskManagementHeader,
};
use crate::mem::{GuestWriter, MemoryMap};
use crate::scsi::{Lun, TaskManagementFunction};

/// What a control request asks.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ControlFunction {
    /// A task management function; answered by [`ResponseSlot::write_task_management`].
    TaskManagement {
        /// Which; `None` for a subtype that does not exist, to be answered FUNCTION REJECTED.
        function: Option<TaskManagementFunction>,
        /// The logical unit meant.
        lun: Lun,
        /// The `id` of the command meant, for functions that mean one.
        id: u64,
    },
    /// Which of these asynchronous events are supported? Answered by [`ResponseSlot::write_async`].
    AsyncQuery {
        /// The logical unit meant.
        lun: Lun,
        /// Events asked about, see [`super::wire::AN_OPERATIONAL_CHANGE`].
        events: u32,
    },
    /// Send these asynchronous events from now on. Answered by [`ResponseSlot::write_async`].
    AsyncSubscribe {
        /// The logical unit meant.
        lun: Lun,
        /// Events asked for, see [`super::wire::AN_OPERATIONAL_CHANGE`].
        events: u32,
    },
}

impl ControlFunction {
    fn no_function() -> ControlFunction {
        ControlFunction::TaskManagement { function: None, lun: Lun::default(), id: 0 }
    }
}

/// A control request, taken apart. Reused from request to request.
#[derive(Debug)]
pub struct ControlRequest {
    /// What it asks.
    pub function: ControlFunction,
    /// Where the response goes.
    pub response: ResponseSlot,
}

impl Default for ControlRequest {
    fn default() -> Self {
        ControlRequest { function: ControlFunction::no_function(), response: ResponseSlot::default() }
    }
}

impl ControlRequest {
    /// Takes a chain apart. Bytes past the request's own are left alone.
    ///
    /// # Errors
    ///
    /// A request of unknown type is unanswerable: there is no knowing what its response looks like. With
    /// [`ChainError::Answerable`] only [`ControlRequest::reject`] is of use.
    pub fn parse(&mut self, chain: &Chain, map: &MemoryMap) -> Result<(), ChainError> {
        self.function = ControlFunction::no_function();
        self.response.clear();

        let mut header = HeaderReader::new(map);
        let longest = size_of::<TaskManagementHeader>() as u32;
        let (readable, _) = split(chain.readable(), longest, |addr, len| header.read(addr, len), |_, _| ());
        if readable < size_of::<u32>() as u32 {
            return Err(ChainError::Unanswerable(ChainFault::ShortRequest(readable)));
        }
        // What is in a header that lies partly outside of memory is not looked at.
        let tmf: TaskManagementHeader = header.finish().map_err(ChainError::Unanswerable)?;
        let an: AsyncHeader = header.finish().map_err(ChainError::Unanswerable)?;
        let (lun, events) = (Lun(an.lun), an.event_requested.get());
        let (function, request_len, response_len) = match tmf.kind.get() {
            CONTROL_TMF => {
                let function = task_management_function(tmf.subtype.get());
                let function = ControlFunction::TaskManagement { function, lun: Lun(tmf.lun), id: tmf.id.get() };
                (function, size_of::<TaskManagementHeader>(), size_of::<u8>())
            }
            CONTROL_AN_QUERY => {
                (ControlFunction::AsyncQuery { lun, events }, size_of::<AsyncHeader>(), size_of::<AsyncResponse>())
            }
            CONTROL_AN_SUBSCRIBE => {
                (ControlFunction::AsyncSubscribe { lun, events }, size_of::<AsyncHeader>(), size_of::<AsyncResponse>())
            }
            other => return Err(ChainError::Unanswerable(ChainFault::ControlType(other))),
        };
        self.function = function;

        let slot = &mut self.response;
        let (writable, _) = split(chain.writable(), response_len as u32, |addr, len| slot.push(addr, len), |_, _| ());
        if (writable as usize) < response_len {
            return Err(ChainError::Unanswerable(ChainFault::ShortResponse(writable)));
        }
        slot.check(map).map_err(|outside| ChainError::Unanswerable(ChainFault::ResponseOutside(outside)))?;
        if (readable as usize) < request_len {
            return Err(ChainError::Answerable(ChainFault::ShortRequest(readable)));
        }
        Ok(())
    }

    /// Answers a request that could not be parsed but be answered: VIRTIO_SCSI_S_FAILURE. Returns the length for the
    /// used ring.
    pub fn reject(&self, to: GuestWriter<'_>) -> u32 {
        match self.function {
            ControlFunction::TaskManagement { .. } => self.response.write_task_management(to, ResponseCode::Failure),
            ControlFunction::AsyncQuery { .. } | ControlFunction::AsyncSubscribe { .. } => {
                self.response.write_async(to, 0, ResponseCode::Failure)
            }
        }
    }
}

impl ResponseSlot {
    /// Answers a task management function; returns the length for the used ring.
    pub fn write_task_management(&self, to: GuestWriter<'_>, response: ResponseCode) -> u32 {
        self.write(to, &[response as u8])
    }

    /// Answers an asynchronous notification query or subscription with the events supported or subscribed to; returns the
    /// length for the used ring.
    pub fn write_async(&self, to: GuestWriter<'_>, events: u32, response: ResponseCode) -> u32 {
        let response = AsyncResponse { event_actual: events.into(), response: response as u8 };
        self.write(to, response.as_bytes())
    }
}

#[cfg(test)]
mod tests;
