//! What a command may read and write, from its bytes and the standards' layouts alone (SBC-4 clause 5).

use std::ops::Range;

/// Ranges of blocks.
#[derive(Debug, PartialEq, Eq)]
pub enum Blocks {
    /// None at all.
    None,
    /// These.
    Ranges(Vec<Range<u64>>),
    /// Its parameter list says it in ways that are not looked at here, or it is the whole medium.
    Any,
}

impl Blocks {
    /// One range.
    pub fn one(range: Range<u64>) -> Blocks {
        Blocks::Ranges(std::iter::once(range).collect())
    }

    /// Whether a range of bytes lies in it, on a unit of so many bytes a block.
    pub fn holds(&self, bytes: &Range<u64>, block: u64) -> bool {
        match self {
            Blocks::None => bytes.is_empty(),
            Blocks::Any => true,
            Blocks::Ranges(ranges) => ranges.iter().any(|range| {
                let end = u128::from(range.end) * u128::from(block);
                u128::from(range.start) * u128::from(block) <= u128::from(bytes.start) && u128::from(bytes.end) <= end
            }),
        }
    }
}

/// LBA and length of a command that has them in the usual places.
fn usual(cdb: &[u8; 16]) -> Option<(u64, u64)> {
    let number = |range: Range<usize>| cdb[range].iter().fold(0u64, |n, byte| n << 8 | u64::from(*byte));
    Some(match cdb[0] {
        // A TRANSFER LENGTH of 0 means 256 in a six-byte command.
        0x08 | 0x0a => (number(1..4) & 0x1f_ffff, if cdb[4] == 0 { 256 } else { number(4..5) }),
        0x28 | 0x2a | 0x2e | 0x2f | 0x41 => (number(2..6), number(7..9)),
        0xa8 | 0xaa | 0xae | 0xaf => (number(2..6), number(6..10)),
        0x88 | 0x8a | 0x8b | 0x8e | 0x8f | 0x93 => (number(2..10), number(10..14)),
        0x9c => (number(2..10), number(12..14)),
        0x89 => (number(2..10), number(13..14)),
        _ => return None,
    })
}

/// What it may change. `blocks` is the unit's capacity: a length of 0 means "to the end" for WRITE SAME.
pub fn written(cdb: &[u8; 16], data_out: &[u8], blocks: u64) -> Blocks {
    match cdb[0] {
        0x04 | 0x48 | 0x83 => Blocks::Any,
        0x41 | 0x93 => match usual(cdb) {
            Some((lba, 0)) => Blocks::one(lba..blocks.max(lba)),
            other => ranges(other),
        },
        0x0a | 0x2a | 0x2e | 0xaa | 0xae | 0x8a | 0x8b | 0x8e | 0x9c | 0x89 => ranges(usual(cdb)),
        0x42 => {
            let list = data_out.get(8..).unwrap_or_default();
            let range = |one: &[u8]| {
                let number = |range: Range<usize>| one[range].iter().fold(0u64, |n, byte| n << 8 | u64::from(*byte));
                number(0..8)..number(0..8).saturating_add(number(8..12))
            };
            Blocks::Ranges(list.chunks_exact(16).map(range).collect())
        }
        _ => Blocks::None,
    }
}

/// Where a command's data is on the medium, if the command is a plain read or write of all its blocks.
pub fn moved(cdb: &[u8; 16]) -> Option<(u64, u64)> {
    match cdb[0] {
        0x08 | 0x28 | 0xa8 | 0x88 | 0x0a | 0x2a | 0x2e | 0xaa | 0xae | 0x8a | 0x8e | 0x9c => usual(cdb),
        _ => None,
    }
}

/// Whether it is a plain read, of those that [`moved`] knows.
pub fn reads(cdb: &[u8; 16]) -> bool {
    matches!(cdb[0], 0x08 | 0x28 | 0xa8 | 0x88)
}

fn ranges(usual: Option<(u64, u64)>) -> Blocks {
    match usual {
        Some((lba, len)) => Blocks::one(lba..lba.saturating_add(len)),
        None => Blocks::None,
    }
}
