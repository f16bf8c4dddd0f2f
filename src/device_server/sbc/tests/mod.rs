//! Dialogues: CDBs as the standard lays them out, and what comes of them.

mod cache;
mod capacity;
mod compare_and_write;
mod lba_status;
mod load_eject;
mod orwrite;
mod provisioning;
mod read_write;
mod start_stop;
mod verify;
mod write_atomic;

use crate::scsi::{AdditionalSense, FieldPointer, Sense, SenseKey};

/// LOGICAL BLOCK ADDRESS OUT OF RANGE; first block that is not there, byte and bit of the LBA field.
fn out_of_range(lba: u64, byte: u16, bit: u8) -> Sense {
    Sense::new(SenseKey::IllegalRequest, AdditionalSense(0x2100)).with_information(lba).with_field(FieldPointer {
        in_cdb: true,
        byte,
        bit: Some(bit),
    })
}

/// INVALID FIELD IN CDB.
fn invalid_field(byte: u16, bit: u8) -> Sense {
    Sense::new(SenseKey::IllegalRequest, AdditionalSense(0x2400)).with_field(FieldPointer {
        in_cdb: true,
        byte,
        bit: Some(bit),
    })
}

/// Sense data without fields.
fn plain(key: SenseKey, code: u16) -> Sense {
    Sense::new(key, AdditionalSense(code))
}

/// A ten-byte CDB: opcode, byte 1, LBA, group, two bytes of length, control.
fn cdb10(opcode: u8, flags: u8, lba: u32, blocks: u16) -> [u8; 10] {
    let [a, b, c, d] = lba.to_be_bytes();
    let [e, f] = blocks.to_be_bytes();
    [opcode, flags, a, b, c, d, 0, e, f, 0]
}

/// A twelve-byte CDB.
fn cdb12(opcode: u8, flags: u8, lba: u32, blocks: u32) -> [u8; 12] {
    let [a, b, c, d] = lba.to_be_bytes();
    let [e, f, g, h] = blocks.to_be_bytes();
    [opcode, flags, a, b, c, d, e, f, g, h, 0, 0]
}

/// A sixteen-byte CDB.
fn cdb16(opcode: u8, flags: u8, lba: u64, blocks: u32) -> [u8; 16] {
    let mut cdb = [0; 16];
    cdb[0] = opcode;
    cdb[1] = flags;
    cdb[2..10].copy_from_slice(&lba.to_be_bytes());
    cdb[10..14].copy_from_slice(&blocks.to_be_bytes());
    cdb
}
