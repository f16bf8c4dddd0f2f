//! Requests of the request queues (virtio 1.2 5.6.6.1).

use zerocopy::{FromBytes, IntoBytes};

use super::chain::{Chain, ChainError, ChainFault, split};
use super::convert::task_attribute;
use super::slot::ResponseSlot;
use super::wire::{
    CDB_SIZE, COMMAND_HEADER_FIXED, COMMAND_RESPONSE_FIXED, CommandHeader, CommandResponseHeader, MAX_SENSE_SIZE,
    ResponseCode,
};
use crate::mem::{GuestWriter, MemoryMap, OutsideMemory};
use crate::scsi::{Lun, TaskAttribute};
use crate::srp::DirectDescriptor;

/// A command, taken apart. Reused from command to command.
#[derive(Debug, Default)]
pub struct CommandRequest {
    /// The logical unit addressed.
    pub lun: Lun,
    /// The driver's name for the command; need not be unique.
    pub id: u64,
    /// Task attribute.
    pub task_attr: TaskAttribute,
    /// SAM command priority.
    pub prio: u8,
    /// Command reference number.
    pub crn: u8,
    /// The CDB, padded with zeros.
    pub cdb: [u8; CDB_SIZE],
    /// Data-Out: the guest's own descriptors, without the header's bytes.
    pub data_out: Vec<DirectDescriptor>,
    /// Data-In: the guest's own descriptors, without the response's bytes.
    pub data_in: Vec<DirectDescriptor>,
    /// Length of Data-Out in bytes.
    pub data_out_len: u32,
    /// Length of Data-In in bytes.
    pub data_in_len: u32,
    /// Where the response goes.
    pub response: ResponseSlot,
}

impl CommandRequest {
    /// Takes a chain apart: `cdb_size` (at most [`CDB_SIZE`]) and `sense_size` (at most [`MAX_SENSE_SIZE`]) as in
    /// configuration space. Data buffers are not looked up here.
    ///
    /// # Errors
    ///
    /// With [`ChainError::Answerable`] only [`CommandRequest::response`] is of use, by [`CommandRequest::reject`].
    pub fn parse(
        &mut self,
        chain: &Chain,
        map: &MemoryMap,
        cdb_size: usize,
        sense_size: usize,
    ) -> Result<(), ChainError> {
        self.data_out.clear();
        self.data_in.clear();
        self.response.clear();

        let response_len = (COMMAND_RESPONSE_FIXED + sense_size.min(MAX_SENSE_SIZE)) as u32;
        let (data_in, response) = (&mut self.data_in, &mut self.response);
        let (writable, data_in_len) = split(
            chain.writable(),
            response_len,
            |addr, len| response.push(addr, len),
            |va, len| data_in.push(DirectDescriptor { va, key: 0, len }),
        );
        if writable < COMMAND_RESPONSE_FIXED as u32 {
            return Err(ChainError::Unanswerable(ChainFault::ShortResponse(writable)));
        }
        response.check(map).map_err(|outside| ChainError::Unanswerable(ChainFault::ResponseOutside(outside)))?;

        let header_len = COMMAND_HEADER_FIXED + cdb_size.min(CDB_SIZE);
        let data_out = &mut self.data_out;
        let mut header = HeaderReader::new(map);
        let (readable, data_out_len) = split(
            chain.readable(),
            header_len as u32,
            |addr, len| header.read(addr, len),
            |va, len| data_out.push(DirectDescriptor { va, key: 0, len }),
        );
        if (readable as usize) < header_len {
            return Err(ChainError::Answerable(ChainFault::ShortRequest(readable)));
        }
        let header: CommandHeader = header.finish().map_err(ChainError::Answerable)?;
        if data_out_len > 0 && data_in_len > 0 {
            return Err(ChainError::Answerable(ChainFault::Bidirectional));
        }
        self.task_attr = task_attribute(header.task_attr)
            .ok_or(ChainError::Answerable(ChainFault::TaskAttribute(header.task_attr)))?;
        self.lun = Lun(header.lun);
        self.id = header.id.get();
        self.prio = header.prio;
        self.crn = header.crn;
        self.cdb = header.cdb;
        // A chain from the ring has at most 2^32 bytes, its header and response included; any other saturates.
        self.data_out_len = u32::try_from(data_out_len).unwrap_or(u32::MAX);
        self.data_in_len = u32::try_from(data_in_len).unwrap_or(u32::MAX);
        Ok(())
    }

    /// Answers a request that could not be parsed but be answered: VIRTIO_SCSI_S_FAILURE. Returns the length for the
    /// used ring.
    pub fn reject(&self, to: GuestWriter<'_>) -> u32 {
        let response = CommandResponse { response: ResponseCode::Failure, ..CommandResponse::default() };
        self.response.write_command(to, &response)
    }
}

/// Gathers a header from the pieces that it is in; zeros where there is none.
pub(super) struct HeaderReader<'a> {
    map: &'a MemoryMap,
    bytes: [u8; size_of::<CommandHeader>()],
    filled: usize,
    outside: Option<OutsideMemory>,
}

impl<'a> HeaderReader<'a> {
    pub(super) fn new(map: &'a MemoryMap) -> HeaderReader<'a> {
        HeaderReader { map, bytes: [0; size_of::<CommandHeader>()], filled: 0, outside: None }
    }

    /// Takes the next `len` bytes of the header, which are at `addr`. What does not fit is left out.
    pub(super) fn read(&mut self, addr: u64, len: u32) {
        let end = self.bytes.len().min(self.filled + len as usize);
        if let Err(outside) = self.map.read(addr, &mut self.bytes[self.filled..end]) {
            self.outside.get_or_insert(outside);
        }
        self.filled = end;
    }

    /// The header, as a struct no longer than a command's.
    pub(super) fn finish<T: FromBytes>(&self) -> Result<T, ChainFault> {
        if let Some(outside) = self.outside {
            return Err(ChainFault::RequestOutside(outside));
        }
        T::read_from_prefix(&self.bytes).map(|(header, _)| header).map_err(|_| ChainFault::ShortRequest(0))
    }
}

/// How a command ended, as it goes to the driver.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct CommandResponse<'a> {
    /// The delivery part.
    pub response: ResponseCode,
    /// The SAM status; meaningful with [`ResponseCode::Ok`].
    pub status: u8,
    /// The SAM status qualifier.
    pub status_qualifier: u16,
    /// Bytes of the data buffer that were not used.
    pub residual: u32,
    /// Sense data; what does not fit in the slot is cut off.
    pub sense: &'a [u8],
}

impl ResponseSlot {
    /// Writes a command's response and returns its length in bytes. The whole slot is written, zeros behind the sense
    /// data, so that Data-In behind it may be claimed on the used ring ([`ResponseSlot::used_len`]).
    pub fn write_command(&self, to: GuestWriter<'_>, response: &CommandResponse<'_>) -> u32 {
        let mut bytes = [0; COMMAND_RESPONSE_FIXED + MAX_SENSE_SIZE];
        let slot_len = bytes.len().min(self.len() as usize);
        let (header, sense) = bytes.split_at_mut(COMMAND_RESPONSE_FIXED);
        let room = slot_len.saturating_sub(COMMAND_RESPONSE_FIXED);
        let sense_len = response.sense.len().min(room);
        sense[..sense_len].copy_from_slice(&response.sense[..sense_len]);
        let fields = CommandResponseHeader {
            sense_len: (sense_len as u32).into(),
            residual: response.residual.into(),
            status_qualifier: response.status_qualifier.into(),
            status: response.status,
            response: response.response as u8,
        };
        header.copy_from_slice(fields.as_bytes());
        self.write(to, &bytes[..slot_len])
    }
}

#[cfg(test)]
mod tests;
