//! What the front-ends send.
#![allow(clippy::unwrap_used, clippy::panic, missing_docs, dead_code, reason = "test code")]

use super::ledger::{Time, UnitNo};

pub const BLOCK: u64 = 512;
/// The blocks that everything happens in.
pub const LBAS: u64 = 12;
/// The most blocks of a command.
pub const BLOCKS: u64 = 4;
/// There is no such block.
pub const NOWHERE: u64 = 0x7fff_fff0;

pub const SIMPLE: u8 = 0;
pub const ORDERED: u8 = 1;
pub const HEAD_OF_QUEUE: u8 = 2;
pub const ACA: u8 = 3;

/// A command.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum What {
    Ready,
    Flush,
    Read,
    Verify,
    Write,
    /// Of one block.
    CompareAndWrite,
    /// RESERVE(6) and RELEASE(6).
    Reserve,
    Release,
    /// PERSISTENT RESERVE OUT with this service action and type.
    PersistentReserve {
        action: u8,
        kind: u8,
        key: u64,
        action_key: u64,
    },
}

pub const REGISTER: u8 = 0;
pub const RESERVE: u8 = 1;
pub const RELEASE: u8 = 2;
pub const CLEAR: u8 = 3;
pub const PREEMPT: u8 = 4;
pub const PREEMPT_AND_ABORT: u8 = 5;
pub const REGISTER_AND_IGNORE: u8 = 6;

impl What {
    pub fn is_reservation(self) -> bool {
        matches!(self, What::Reserve | What::Release | What::PersistentReserve { .. })
    }

    /// The CDB, with NACA or without.
    pub fn cdb(self, lba: u64, blocks: u64, naca: bool) -> Vec<u8> {
        let l = (lba as u32).to_be_bytes();
        let ten = |opcode| vec![opcode, 0, l[0], l[1], l[2], l[3], 0, 0, blocks as u8, 0];
        let mut cdb = match self {
            What::Ready => vec![0; 6],
            What::Flush => ten(0x35),
            What::Read => ten(0x28),
            What::Write => ten(0x2a),
            What::Verify => ten(0x2f),
            What::CompareAndWrite => vec![0x89, 0, 0, 0, 0, 0, l[0], l[1], l[2], l[3], 0, 0, 0, 1, 0, 0],
            What::Reserve => vec![0x16, 0, 0, 0, 0, 0],
            What::Release => vec![0x17, 0, 0, 0, 0, 0],
            What::PersistentReserve { action, kind, .. } => vec![0x5f, action, kind, 0, 0, 0, 0, 0, 24, 0],
        };
        *cdb.last_mut().unwrap() = u8::from(naca) << 2;
        cdb
    }

    /// The parameter list of PERSISTENT RESERVE OUT.
    pub fn parameters(self) -> Option<Vec<u8>> {
        let What::PersistentReserve { key, action_key, .. } = self else { return None };
        let mut list = [key.to_be_bytes(), action_key.to_be_bytes()].concat();
        list.resize(24, 0);
        Some(list)
    }
}

/// A command under way.
#[derive(Clone, Debug)]
pub struct Task {
    pub number: u64,
    pub id: u64,
    pub unit: UnitNo,
    pub what: What,
    pub attribute: u8,
    pub naca: bool,
    pub lba: u64,
    pub blocks: u64,
    /// What is in each block that it writes.
    pub stamps: Vec<u64>,
    /// What it compares with.
    pub expected: u64,
    pub out: u32,
    pub input: u32,
    pub posted: Time,
    pub head: u16,
    /// Names what it may do to others in the ledger.
    pub cause: Option<usize>,
}

impl Task {
    pub fn is_nowhere(&self) -> bool {
        self.lba == NOWHERE
    }
}

/// A block that holds nothing but this stamp.
pub fn block(stamp: u64) -> Vec<u8> {
    stamp.to_le_bytes().repeat(BLOCK as usize / 8)
}

/// The stamps of a block, one after the other: one if it is whole.
pub fn stamps_of(block: &[u8]) -> Vec<u64> {
    let (words, _) = block.as_chunks();
    let mut stamps: Vec<u64> = words.iter().map(|word| u64::from_le_bytes(*word)).collect();
    stamps.dedup();
    stamps
}
