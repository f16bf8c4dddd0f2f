//! The two disks' request formats: virtio-scsi (virtio 1.2 5.6.6.1) and virtio-blk (5.2.6), one slot a request.
//!
//! A slot is what a driver keeps for a request: header, status, data and an indirect table over them, at places that never
//! change, so that a request costs the generator a few bytes. Every 4 KiB block of an image begins with its
//! [`stamp`]: a read that brings another one has not read, which makes a figure without I/O impossible.

use super::memory::Memory;
use super::ring::{NEXT, WRITE, descriptor};
use crate::{Error, Result};
use std::sync::Arc;

/// Bytes of a block with a stamp.
pub const BLOCK: u64 = 4096;

/// Bytes of a virtio-scsi response: 12 and QEMU's usual 96 of sense data.
const SCSI_RESPONSE: u32 = 108;
/// Bytes of a virtio-scsi command header with a CDB of 32.
const SCSI_HEADER: u32 = 51;

/// READ(10).
const READ_10: u8 = 0x28;
/// WRITE(10).
const WRITE_10: u8 = 0x2a;

/// The first 8 bytes of the block with this number.
pub fn stamp(block: u64) -> [u8; 8] {
    (block ^ 0x7673_7467_745f_6d61).to_le_bytes()
}

/// What the back-end plays.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Device {
    /// virtio-scsi, target 0, LUN 0.
    Scsi,
    /// virtio-blk.
    Blk,
}

impl Device {
    /// Device features the driver can do with: virtio-scsi HOTPLUG and CHANGE; virtio-blk SEG_MAX, BLK_SIZE, FLUSH, MQ.
    pub fn features(self) -> u64 {
        match self {
            Device::Scsi => 1 << 1 | 1 << 2,
            Device::Blk => 1 << 2 | 1 << 6 | 1 << 9 | 1 << 12,
        }
    }

    /// Queues before the first request queue.
    pub fn other_queues(self) -> u16 {
        match self {
            Device::Scsi => 2,
            Device::Blk => 0,
        }
    }
}

/// A request's place in guest memory.
#[derive(Debug)]
pub struct Slot {
    memory: Arc<Memory>,
    device: Device,
    header: usize,
    status: usize,
    data: usize,
    write: bool,
    block: u64,
}

/// Bytes of [`Slot::table`].
pub const TABLE: u32 = 48;

impl Slot {
    /// Room for requests of `bytes` of data in one direction.
    ///
    /// # Errors
    /// When guest memory is used up.
    pub fn new(memory: &Arc<Memory>, device: Device, bytes: u32, write: bool) -> Result<Slot> {
        let header = memory.alloc(512)?;
        let (status, data) = (header + 128, memory.alloc(bytes as usize)?);
        let slot = Slot { memory: Arc::clone(memory), device, header, status, data, write, block: 0 };
        let (head, answer) = match device {
            Device::Scsi => (SCSI_HEADER, SCSI_RESPONSE),
            Device::Blk => (16, 1),
        };
        // What the device reads comes before what it writes; virtio-scsi's response before its data, virtio-blk's
        // status after.
        let head = (header, head, 0);
        let answer = (status, answer, WRITE);
        let data = (data, bytes, if write { 0 } else { WRITE });
        let parts = match (device, write) {
            (Device::Scsi, false) => [head, answer, data],
            _ => [head, data, answer],
        };
        for (i, (address, len, flags)) in parts.into_iter().enumerate() {
            let flags = flags | if i < 2 { NEXT } else { 0 };
            memory.write(slot.table() + 16 * i, &descriptor(address, len, flags, i as u16 + 1));
        }
        slot.write_constant_part(bytes);
        Ok(slot)
    }

    /// Guest address of its indirect table.
    pub fn table(&self) -> usize {
        self.header + 256
    }

    fn write_constant_part(&self, bytes: u32) {
        match self.device {
            Device::Scsi => {
                let mut header = [0; SCSI_HEADER as usize];
                // Logical unit: target 0, LUN 0 in flat space format.
                header[..4].copy_from_slice(&[1, 0, 0x40, 0]);
                // In 512-byte blocks.
                header[19] = if self.write { WRITE_10 } else { READ_10 };
                header[26..28].copy_from_slice(&((bytes / 512) as u16).to_be_bytes());
                self.memory.write(self.header, &header);
            }
            Device::Blk => self.memory.write(self.header, &u64::from(self.write).to_le_bytes()),
        }
    }

    /// Makes it a request that begins at this 4 KiB block.
    pub fn prepare(&mut self, block: u64) {
        self.block = block;
        let sector = block * (BLOCK / 512);
        match self.device {
            Device::Scsi => {
                self.memory.write(self.header + 21, &(sector as u32).to_be_bytes());
                // Status and response, which 0 would make good.
                self.memory.write(self.status + 10, &[0xff; 2]);
            }
            Device::Blk => {
                self.memory.write(self.header + 8, &sector.to_le_bytes());
                self.memory.write(self.status, &[0xff]);
            }
        }
        self.memory.write(self.data, &if self.write { stamp(block) } else { [0; 8] });
    }

    /// Whether the request that was prepared has been done, and truly.
    ///
    /// # Errors
    /// When the device says otherwise, or the data is another block's.
    pub fn check(&self) -> Result<()> {
        let good = match self.device {
            Device::Scsi => self.memory.read(self.status + 10) == [0; 2],
            Device::Blk => self.memory.read(self.status) == [0],
        };
        if !good {
            let bytes: [u8; 32] = self.memory.read(self.status);
            return Err(Error::new(format!("block {} failed, the device says {bytes:02x?}", self.block)));
        }
        if !self.write && self.memory.read(self.data) != stamp(self.block) {
            let bytes: [u8; 8] = self.memory.read(self.data);
            return Err(Error::new(format!("block {} came back as {bytes:02x?}", self.block)));
        }
        Ok(())
    }

    /// Answers the virtio-scsi request behind this indirect table as a device would that does no I/O.
    pub fn pretend(memory: &Memory, table: usize) {
        let address = |index: usize| u64::from_le_bytes(memory.read(table + 16 * index)) as usize;
        let header = address(0);
        // The response is what has its length: behind the header, or behind what is written.
        let reads = u32::from_le_bytes(memory.read(table + 16 + 8)) == SCSI_RESPONSE;
        let (response, data) = if reads { (address(1), Some(address(2))) } else { (address(2), None) };
        memory.write(response + 10, &[0; 2]);
        if let Some(data) = data {
            let sector = u32::from_be_bytes(memory.read(header + 21));
            memory.write(data, &stamp(u64::from(sector) / (BLOCK / 512)));
        }
    }

    /// Makes it TEST UNIT READY, which takes unit attentions away; for virtio-scsi.
    pub fn prepare_test_unit_ready(&mut self) {
        self.memory.write(self.header + 19, &[0; 32]);
        self.memory.write(self.status + 10, &[0xff; 2]);
    }

    /// Whether TEST UNIT READY says good.
    pub fn is_ready(&self) -> bool {
        self.memory.read(self.status + 10) == [0; 2]
    }

    /// Takes [`prepare_test_unit_ready`](Slot::prepare_test_unit_ready) back.
    pub fn restore(&self, bytes: u32) {
        self.write_constant_part(bytes);
    }
}
