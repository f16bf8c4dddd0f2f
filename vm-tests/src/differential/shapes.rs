//! What commands look like: SPC-4 and SBC-3's layouts, written here a second time so that an error in vstgt's own table is not
//! repeated by its test.

/// A field of a CDB. Numbers are big-endian; `at` is the first byte.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Field {
    /// LOGICAL BLOCK ADDRESS of so many bytes.
    Lba(usize, usize),
    /// The 21-bit LOGICAL BLOCK ADDRESS of 6-byte commands.
    Lba6,
    /// TRANSFER LENGTH, VERIFICATION LENGTH or NUMBER OF LOGICAL BLOCKS, of so many bytes.
    Blocks(usize, usize),
    /// The TRANSFER LENGTH of 6-byte commands, in which 0 is 256.
    Blocks6,
    /// ALLOCATION LENGTH of so many bytes.
    Allocation(usize, usize),
    /// PARAMETER LIST LENGTH of so many bytes.
    List(usize, usize),
    /// Bits of a byte that mean something, each of which may be set.
    Bits(usize, u8),
    /// A byte's bits, and what they are mostly set to.
    Choice(usize, u8, &'static [u8]),
}

/// Which data go with a command.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Data {
    /// None.
    None,
    /// So many blocks to the initiator.
    ReadBlocks,
    /// As many bytes to the initiator as the allocation length allows.
    Parameters,
    /// So many blocks from the initiator.
    WriteBlocks,
    /// One block from the initiator, or none with NDOB (byte 1, bit 0) where the command is WRITE SAME(16).
    OneBlock,
    /// Blocks to compare and as many to write.
    TwiceBlocks,
    /// By BYTCHK (byte 1, bits 1 and 2): none, the blocks, reserved, one block.
    Checked,
    /// The ranges of UNMAP.
    Ranges,
    /// A mode parameter list, with a header of so many bytes.
    Modes(usize),
    /// A parameter list of zeros and small numbers.
    SmallList,
}

/// What a command may change.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Effect {
    /// Nothing two disks could come to differ in.
    None,
    /// The medium.
    Medium,
    /// Mode pages and other settings.
    Settings,
    /// Whether the unit is started.
    Power,
}

/// A command.
#[derive(Debug, Clone, Copy)]
pub struct Shape {
    /// The standard's name.
    pub name: &'static str,
    /// OPERATION CODE.
    pub opcode: u8,
    /// SERVICE ACTION in byte 1.
    pub action: Option<u8>,
    /// The CDB's length.
    pub length: usize,
    /// Its fields.
    pub fields: &'static [Field],
    /// Its data.
    pub data: Data,
    /// What it may change.
    pub effect: Effect,
    /// How often it comes, compared with others.
    pub weight: u64,
}

use Data as D;
use Effect as E;
use Field::{Allocation, Bits, Blocks, Blocks6, Choice, Lba, Lba6, List};

/// The VPD pages of SPC-4 and SBC-3 and some that are not there.
const VPD: &[u8] = &[
    0x00, 0x00, 0x00, 0x80, 0x80, 0x83, 0x85, 0x86, 0x87, 0x88, 0x8F, 0xB0, 0xB1, 0xB2, 0xB3, 0x01, 0x84, 0x89, 0xC0,
    0xFF,
];

/// Mode pages with every page control: current, changeable, default, saved.
const MODE_PAGES: &[u8] = &[
    0x00, 0x01, 0x02, 0x03, 0x04, 0x08, 0x0A, 0x18, 0x19, 0x1A, 0x1C, 0x3F, 0x41, 0x42, 0x48, 0x4A, 0x5A, 0x5C, 0x7F,
    0x81, 0x88, 0x8A, 0x9A, 0x9C, 0xBF, 0xC1, 0xC8, 0xCA, 0xDC, 0xFF,
];

const fn shape(name: &'static str, opcode: u8, length: usize, fields: &'static [Field], data: D, effect: E) -> Shape {
    Shape { name, opcode, action: None, length, fields, data, effect, weight: 4 }
}

impl Shape {
    const fn action(mut self, action: u8) -> Shape {
        self.action = Some(action);
        self
    }

    const fn weight(mut self, weight: u64) -> Shape {
        self.weight = weight;
        self
    }
}

/// The commands that are drawn.
#[rustfmt::skip]
pub const SHAPES: &[Shape] = &[
    shape("TEST UNIT READY", 0x00, 6, &[], D::None, E::None).weight(2),
    shape("REQUEST SENSE", 0x03, 6, &[Bits(1, 0x01), Allocation(4, 1)], D::Parameters, E::None),
    shape("READ(6)", 0x08, 6, &[Lba6, Blocks6], D::ReadBlocks, E::None),
    shape("WRITE(6)", 0x0A, 6, &[Lba6, Blocks6], D::WriteBlocks, E::Medium),
    shape("INQUIRY", 0x12, 6, &[Choice(1, 0xFF, &[0, 1, 1]), Choice(2, 0xFF, VPD), Allocation(3, 2)], D::Parameters, E::None).weight(8),
    shape("MODE SELECT(6)", 0x15, 6, &[Choice(1, 0x11, &[0x10, 0x10, 0x11]), List(4, 1)], D::Modes(4), E::Settings),
    shape("RESERVE(6)", 0x16, 6, &[], D::None, E::None).weight(1),
    shape("RELEASE(6)", 0x17, 6, &[], D::None, E::None).weight(1),
    shape("MODE SENSE(6)", 0x1A, 6, &[Bits(1, 0x08), Choice(2, 0xFF, MODE_PAGES), Choice(3, 0xFF, &[0, 0, 0, 1, 0xFF]), Allocation(4, 1)], D::Parameters, E::None).weight(8),
    shape("START STOP UNIT", 0x1B, 6, &[Bits(1, 0x01), Choice(4, 0xF7, &[0, 1, 1, 4, 5, 2, 3, 0x10, 0x30])], D::None, E::Power).weight(2),
    shape("RECEIVE DIAGNOSTIC RESULTS", 0x1C, 6, &[Choice(1, 0x01, &[0, 1]), Choice(2, 0xFF, &[0, 0, 1, 0x3F]), Allocation(3, 2)], D::Parameters, E::None).weight(2),
    // Not background self-tests (010b and 001b), which go on while others come.
    shape("SEND DIAGNOSTIC", 0x1D, 6, &[Choice(1, 0xF7, &[0x04, 0x04, 0, 0x10, 0x80]), List(3, 2)], D::SmallList, E::None).weight(2),
    shape("PREVENT ALLOW MEDIUM REMOVAL", 0x1E, 6, &[Bits(4, 0x03)], D::None, E::None).weight(2),
    shape("READ CAPACITY(10)", 0x25, 10, &[], D::Parameters, E::None),
    shape("READ(10)", 0x28, 10, &[Bits(1, 0x18), Lba(2, 4), Blocks(7, 2)], D::ReadBlocks, E::None).weight(10),
    shape("WRITE(10)", 0x2A, 10, &[Bits(1, 0x18), Lba(2, 4), Blocks(7, 2)], D::WriteBlocks, E::Medium).weight(10),
    shape("WRITE AND VERIFY(10)", 0x2E, 10, &[Bits(1, 0x16), Lba(2, 4), Blocks(7, 2)], D::WriteBlocks, E::Medium),
    shape("VERIFY(10)", 0x2F, 10, &[Choice(1, 0x16, &[0, 2, 2, 4, 6]), Lba(2, 4), Blocks(7, 2)], D::Checked, E::None).weight(10),
    shape("PRE-FETCH(10)", 0x34, 10, &[Bits(1, 0x02), Lba(2, 4), Blocks(7, 2)], D::None, E::None),
    shape("SYNCHRONIZE CACHE(10)", 0x35, 10, &[Bits(1, 0x02), Lba(2, 4), Blocks(7, 2)], D::None, E::None),
    shape("READ DEFECT DATA(10)", 0x37, 10, &[Bits(2, 0x1F), Allocation(7, 2)], D::Parameters, E::None).weight(2),
    // Not the modes that download microcode (4 to 7, 0Dh to 0Fh).
    shape("WRITE BUFFER", 0x3B, 10, &[Choice(1, 0x1F, &[2, 0x0A, 0, 0x1A]), List(6, 3)], D::SmallList, E::None).weight(2),
    shape("READ BUFFER(10)", 0x3C, 10, &[Choice(1, 0x1F, &[2, 3, 0x0B, 0, 0x0A]), Allocation(6, 3)], D::Parameters, E::None).weight(2),
    shape("WRITE SAME(10)", 0x41, 10, &[Bits(1, 0x18), Lba(2, 4), Blocks(7, 2)], D::OneBlock, E::Medium).weight(8),
    shape("UNMAP", 0x42, 10, &[Choice(1, 0x01, &[0, 0, 0, 1]), List(7, 2)], D::Ranges, E::Medium).weight(10),
    shape("LOG SELECT", 0x4C, 10, &[Choice(1, 0x03, &[0, 2]), Choice(2, 0xFF, &[0, 0x40, 0xC0]), List(7, 2)], D::SmallList, E::None).weight(2),
    shape("LOG SENSE", 0x4D, 10, &[Choice(2, 0xFF, &[0x40, 0x42, 0x43, 0x45, 0x4C, 0x4D, 0x4E, 0x50, 0x59, 0x6F, 0x00, 0xC2]), Choice(3, 0xFF, &[0, 0, 1, 0xFF]), Allocation(7, 2)], D::Parameters, E::None).weight(6),
    shape("MODE SELECT(10)", 0x55, 10, &[Choice(1, 0x11, &[0x10, 0x10, 0x11]), List(7, 2)], D::Modes(8), E::Settings),
    shape("RESERVE(10)", 0x56, 10, &[], D::None, E::None).weight(1),
    shape("RELEASE(10)", 0x57, 10, &[], D::None, E::None).weight(1),
    shape("MODE SENSE(10)", 0x5A, 10, &[Bits(1, 0x18), Choice(2, 0xFF, MODE_PAGES), Choice(3, 0xFF, &[0, 0, 0, 1, 0xFF]), Allocation(7, 2)], D::Parameters, E::None).weight(8),
    shape("PERSISTENT RESERVE IN, READ KEYS", 0x5E, 10, &[Allocation(7, 2)], D::Parameters, E::None).action(0x00).weight(1),
    shape("PERSISTENT RESERVE IN, READ RESERVATION", 0x5E, 10, &[Allocation(7, 2)], D::Parameters, E::None).action(0x01).weight(1),
    shape("PERSISTENT RESERVE IN, REPORT CAPABILITIES", 0x5E, 10, &[Allocation(7, 2)], D::Parameters, E::None).action(0x02).weight(1),
    shape("PERSISTENT RESERVE IN, READ FULL STATUS", 0x5E, 10, &[Allocation(7, 2)], D::Parameters, E::None).action(0x03).weight(1),
    shape("READ(16)", 0x88, 16, &[Bits(1, 0x18), Lba(2, 8), Blocks(10, 4)], D::ReadBlocks, E::None).weight(10),
    shape("COMPARE AND WRITE", 0x89, 16, &[Bits(1, 0x18), Lba(2, 8), Blocks(13, 1)], D::TwiceBlocks, E::Medium).weight(8),
    shape("WRITE(16)", 0x8A, 16, &[Bits(1, 0x18), Lba(2, 8), Blocks(10, 4)], D::WriteBlocks, E::Medium).weight(10),
    shape("ORWRITE(16)", 0x8B, 16, &[Bits(1, 0x18), Lba(2, 8), Blocks(10, 4)], D::WriteBlocks, E::Medium),
    shape("WRITE AND VERIFY(16)", 0x8E, 16, &[Bits(1, 0x16), Lba(2, 8), Blocks(10, 4)], D::WriteBlocks, E::Medium),
    shape("VERIFY(16)", 0x8F, 16, &[Choice(1, 0x16, &[0, 2, 2, 4, 6]), Lba(2, 8), Blocks(10, 4)], D::Checked, E::None).weight(10),
    shape("PRE-FETCH(16)", 0x90, 16, &[Bits(1, 0x02), Lba(2, 8), Blocks(10, 4)], D::None, E::None),
    shape("SYNCHRONIZE CACHE(16)", 0x91, 16, &[Bits(1, 0x02), Lba(2, 8), Blocks(10, 4)], D::None, E::None),
    shape("WRITE SAME(16)", 0x93, 16, &[Choice(1, 0x19, &[0, 0, 0x08, 0x08, 0x10, 0x18, 0x01, 0x09]), Lba(2, 8), Blocks(10, 4)], D::OneBlock, E::Medium).weight(10),
    shape("READ CAPACITY(16)", 0x9E, 16, &[Allocation(10, 4)], D::Parameters, E::None).action(0x10),
    shape("GET LBA STATUS", 0x9E, 16, &[Lba(2, 8), Allocation(10, 4)], D::Parameters, E::None).action(0x12).weight(6),
    shape("REPORT LUNS", 0xA0, 12, &[Choice(2, 0xFF, &[0, 0, 1, 2, 0x10, 0x11, 0x12]), Allocation(6, 4)], D::Parameters, E::None),
    shape("REPORT IDENTIFYING INFORMATION", 0xA3, 12, &[Allocation(6, 4)], D::Parameters, E::None).action(0x05).weight(1),
    shape("REPORT TARGET PORT GROUPS", 0xA3, 12, &[Choice(1, 0xE0, &[0, 0, 0x20]), Allocation(6, 4)], D::Parameters, E::None).action(0x0A),
    shape("REPORT SUPPORTED OPERATION CODES", 0xA3, 12, &[Choice(2, 0x87, &[0, 1, 1, 2, 2, 3, 3, 0x80, 0x81, 0x82]), Choice(3, 0xFF, OPCODES), Choice(5, 0xFF, &[0, 0, 0x10, 0x12, 0x0A, 0x0C]), Allocation(6, 4)], D::Parameters, E::None).action(0x0C).weight(8),
    shape("REPORT SUPPORTED TASK MANAGEMENT FUNCTIONS", 0xA3, 12, &[Bits(2, 0x80), Allocation(6, 4)], D::Parameters, E::None).action(0x0D),
    shape("REPORT TIMESTAMP", 0xA3, 12, &[Allocation(6, 4)], D::Parameters, E::None).action(0x0F).weight(1),
    shape("SET IDENTIFYING INFORMATION", 0xA4, 12, &[List(6, 4)], D::SmallList, E::None).action(0x06).weight(1),
    shape("SET TIMESTAMP", 0xA4, 12, &[List(6, 4)], D::SmallList, E::None).action(0x0F).weight(1),
    shape("READ(12)", 0xA8, 12, &[Bits(1, 0x18), Lba(2, 4), Blocks(6, 4)], D::ReadBlocks, E::None),
    shape("WRITE(12)", 0xAA, 12, &[Bits(1, 0x18), Lba(2, 4), Blocks(6, 4)], D::WriteBlocks, E::Medium),
    shape("WRITE AND VERIFY(12)", 0xAE, 12, &[Bits(1, 0x16), Lba(2, 4), Blocks(6, 4)], D::WriteBlocks, E::Medium),
    shape("VERIFY(12)", 0xAF, 12, &[Choice(1, 0x16, &[0, 2, 2, 4, 6]), Lba(2, 4), Blocks(6, 4)], D::Checked, E::None),
    shape("READ DEFECT DATA(12)", 0xB7, 12, &[Bits(1, 0x1F), Allocation(6, 4)], D::Parameters, E::None).weight(2),
];

/// What REPORT SUPPORTED OPERATION CODES is asked for.
const OPCODES: &[u8] = &[
    0x00, 0x03, 0x08, 0x0A, 0x12, 0x15, 0x1A, 0x1B, 0x25, 0x28, 0x2A, 0x2F, 0x34, 0x35, 0x41, 0x42, 0x4D, 0x55, 0x5A,
    0x88, 0x89, 0x8A, 0x8F, 0x90, 0x91, 0x93, 0x9E, 0x9E, 0xA0, 0xA3, 0xA3, 0xA8, 0xAA, 0x02, 0xC0,
];

/// Operation codes no disk of today has, for which both must say so.
pub const UNKNOWN: &[u8] = &[
    0x02, 0x05, 0x06, 0x09, 0x0C, 0x0D, 0x0E, 0x0F, 0x10, 0x14, 0x18, 0x1F, 0x20, 0x23, 0x26, 0x29, 0x2C, 0x2D, 0x33,
    0x38, 0x3D, 0x40, 0x43, 0x46, 0x49, 0x4A, 0x4B, 0x51, 0x58, 0x59, 0x5B, 0x5C, 0x5D, 0x81, 0x82, 0x8C, 0x8D, 0x96,
    0x97, 0x98, 0xA6, 0xA7, 0xAC, 0xAD, 0xB4, 0xB6, 0xBB, 0xBC, 0xBD, 0xBE, 0xC0, 0xD5, 0xE0, 0xFF,
];

/// Commands of vstgt that are not drawn, by operation code and service action (of all of them, if none), and why.
pub const LEFT_OUT: &[(u8, Option<u8>, &str)] = &[
    (0x04, None, "FORMAT UNIT: takes the whole medium's contents, which the standard leaves open afterwards"),
    (0x48, None, "SANITIZE: the same"),
    (0x5F, None, "PERSISTENT RESERVE OUT: neither peer has it; what it changes outlasts the command"),
    (
        0x83,
        None,
        "EXTENDED COPY and POPULATE TOKEN: neither peer has them; what they copy depends on more than one command",
    ),
    (0x84, None, "RECEIVE COPY RESULTS: belongs to EXTENDED COPY"),
    (0x9C, None, "WRITE ATOMIC(16): offered where the backing store can do it, which no test's image can"),
    (0xA4, Some(0x0A), "SET TARGET PORT GROUPS: neither peer has it; a port in standby refuses what comes next"),
];

#[cfg(test)]
mod tests {
    use super::*;
    use std::collections::BTreeSet;
    use std::fs;

    #[test]
    fn every_command_of_the_table_is_drawn_or_left_out_for_a_reason() {
        let docs = fs::read_to_string(crate::paths::repository().join("docs/commands.md")).unwrap();
        let mut rows = 0;
        for row in docs.lines().filter_map(|line| line.strip_prefix("| ")) {
            let code = row.split(" |").next().unwrap();
            let mut hex =
                code.split('/').map(|part| part.strip_suffix('h').and_then(|h| u8::from_str_radix(h, 16).ok()));
            let (Some(Some(opcode)), action) = (hex.next(), hex.next().flatten()) else { continue };
            rows += 1;
            let drawn =
                SHAPES.iter().any(|shape| shape.opcode == opcode && (shape.action.is_none() || shape.action == action));
            let left_out = LEFT_OUT.iter().any(|(code, a, _)| *code == opcode && (a.is_none() || *a == action));
            assert!(drawn || left_out, "{row}: give it a shape in vm-tests/src/differential/shapes.rs, or say why not");
        }
        assert!(rows > 60, "{rows} rows of docs/commands.md were understood");
    }

    #[test]
    fn fields_lie_inside_and_beside_each_other() {
        for shape in SHAPES {
            let mut taken = BTreeSet::new();
            for field in shape.fields {
                let bytes = match *field {
                    Field::Lba(at, width) | Field::Blocks(at, width) => at..at + width,
                    Field::Allocation(at, width) | Field::List(at, width) => at..at + width,
                    Field::Lba6 => 1..4,
                    Field::Blocks6 => 4..5,
                    Field::Bits(at, _) | Field::Choice(at, _, _) => at..at + 1,
                };
                for byte in bytes {
                    assert!((1..shape.length - 1).contains(&byte), "{}: {field:?}", shape.name);
                    assert!(taken.insert(byte), "{}: {field:?}", shape.name);
                }
            }
            let length = match shape.opcode >> 5 {
                0 => 6,
                1 | 2 => 10,
                4 => 16,
                5 => 12,
                group => panic!("group {group}"),
            };
            assert_eq!(shape.length, length, "{}", shape.name);
        }
        assert!(UNKNOWN.iter().all(|code| SHAPES.iter().all(|shape| shape.opcode != *code)));
    }
}
