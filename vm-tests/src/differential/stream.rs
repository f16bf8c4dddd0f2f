//! Random commands: which one comes at an index depends on the seed, the index and the medium's size alone.
//!
//! Most are legal, so that something happens. Addresses and lengths keep to the boundaries; one command in seven has a bit flipped
//! anywhere after its operation code; some come with more room for data, or less, than they say. NACA is never set: there is no
//! task management function behind SG_IO that would clear an auto contingent allegiance.

use super::random::Random;
use super::shapes::{Data, Effect, Field, SHAPES, Shape, UNKNOWN};
use std::fmt;

/// The size both disks have.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Medium {
    /// How many logical blocks.
    pub blocks: u64,
    /// Bytes in a logical block.
    pub block: u32,
}

/// No command moves more than this, whatever it says: what a transfer beyond a disk's end would take is not allocated.
pub const MOST: u64 = 256 << 10;

/// Which way data go.
#[derive(Clone, PartialEq, Eq)]
pub enum Transfer {
    /// None go.
    None,
    /// Room for so many bytes from the disk.
    In(usize),
    /// These go to the disk.
    Out(Vec<u8>),
}

impl Transfer {
    /// Bytes that may go.
    pub fn length(&self) -> usize {
        match self {
            Transfer::None => 0,
            Transfer::In(length) => *length,
            Transfer::Out(data) => data.len(),
        }
    }
}

impl fmt::Debug for Transfer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Transfer::None => write!(f, "no data"),
            Transfer::In(length) => write!(f, "room for {length}"),
            Transfer::Out(data) => {
                write!(f, "{} bytes", data.len())?;
                if data.len() <= 64 {
                    write!(f, " {}", hex(data))?;
                }
                Ok(())
            }
        }
    }
}

/// Bytes as people read them.
pub fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02X}")).collect::<Vec<_>>().join(" ")
}

/// A command to be sent.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Command {
    /// The standard's name.
    pub name: &'static str,
    /// The CDB.
    pub cdb: Vec<u8>,
    /// Its data, or the room for them.
    pub transfer: Transfer,
    /// Its LOGICAL BLOCK ADDRESS, if it has one.
    pub lba: u64,
    /// How many blocks it is about, if it is.
    pub blocks: u64,
    /// The bytes it would take if all were as the CDB says.
    pub needed: u64,
    /// What it may change.
    pub effect: Effect,
    /// The blocks it may change, each range by its first one and how many; within the medium.
    pub touched: Vec<(u64, u64)>,
}

impl fmt::Display for Command {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Command { name, cdb, transfer, lba, blocks, .. } = self;
        write!(f, "{name} {} with {transfer:?}, lba {lba} blocks {blocks}", hex(cdb))
    }
}

/// An endless stream of commands.
#[derive(Debug, Clone, Copy)]
pub struct Stream {
    /// What it depends on.
    pub seed: u64,
    /// The disks it is for.
    pub medium: Medium,
}

impl Stream {
    /// The command at an index.
    pub fn command(&self, index: u64) -> Command {
        let mut random = Random::at(self.seed, index);
        if random.once_in(60) {
            return unknown(&mut random);
        }
        let total = SHAPES.iter().map(|shape| shape.weight).sum();
        let mut place = random.below(total);
        let mut chosen = &SHAPES[0];
        for shape in SHAPES {
            chosen = shape;
            if place < shape.weight {
                break;
            }
            place -= shape.weight;
        }
        Draw { random, medium: self.medium, shape: chosen }.command()
    }
}

/// A command no disk has.
fn unknown(random: &mut Random) -> Command {
    let opcode = random.pick(UNKNOWN);
    let length = match opcode >> 5 {
        0 => 6,
        4 => 16,
        5 => 12,
        _ => 10,
    };
    let mut cdb: Vec<u8> = (0..length).map(|_| random.pick(&[0, 0, 1, 0xFF])).collect();
    cdb[0] = opcode;
    cdb[length - 1] = 0;
    let transfer = if random.once_in(2) { Transfer::None } else { Transfer::In(64) };
    Command {
        name: "no command",
        cdb,
        transfer,
        lba: 0,
        blocks: 0,
        needed: 0,
        effect: Effect::None,
        touched: Vec::new(),
    }
}

struct Draw {
    random: Random,
    medium: Medium,
    shape: &'static Shape,
}

impl Draw {
    fn command(mut self) -> Command {
        let mut cdb = vec![0; self.shape.length];
        cdb[0] = self.shape.opcode;
        cdb[1] = self.shape.action.unwrap_or(0);
        let some = self.some_blocks();
        for field in self.shape.fields {
            self.fill(&mut cdb, *field, some);
        }
        let data = self.parameter_list(&mut cdb);
        if self.random.once_in(7) {
            self.flip(&mut cdb);
        }
        let needed = needed(self.shape, self.medium, &cdb);
        let transfer = self.transfer(needed, data, &cdb);
        let touched = if self.shape.effect == Effect::Medium { self.touched(&cdb, &transfer) } else { Vec::new() };
        let (lba, blocks) = (lba(self.shape, &cdb), blocks(self.shape, &cdb));
        Command { name: self.shape.name, cdb, transfer, lba, blocks, needed, effect: self.shape.effect, touched }
    }

    fn fill(&mut self, cdb: &mut [u8], field: Field, blocks: u64) {
        match field {
            Field::Lba(at, width) => {
                let lba = self.some_lba(blocks);
                put(cdb, at, width, lba);
            }
            Field::Lba6 => {
                let lba = self.some_lba(blocks) & 0x1F_FFFF;
                put(cdb, 1, 3, lba);
            }
            Field::Blocks(at, width) => put(cdb, at, width, blocks),
            Field::Blocks6 => cdb[4] = blocks as u8,
            Field::Allocation(at, width) => {
                let length = self.some_allocation();
                put(cdb, at, width, length);
            }
            // Set with the list itself.
            Field::List(..) => {}
            Field::Bits(at, mask) => {
                if self.random.once_in(2) {
                    cdb[at] |= self.random.number() as u8 & mask;
                }
            }
            Field::Choice(at, mask, choices) => cdb[at] |= self.random.pick(choices) & mask,
        }
    }

    fn some_blocks(&mut self) -> u64 {
        match self.random.below(20) {
            0 | 1 => 0,
            2..=9 => 1,
            10..=15 => 1 + self.random.below(16),
            16 | 17 => 1 + self.random.below(128),
            18 => self.medium.blocks - self.random.below(3) + 1,
            _ => self.random.pick(&[0xFF, 0x100, 0xFFFF, 0x1_0000, 0x8000_0000, 0xFFFF_FFFF]),
        }
    }

    fn some_lba(&mut self, blocks: u64) -> u64 {
        let end = self.medium.blocks;
        match self.random.below(24) {
            0 | 1 => 0,
            2 => end - 1,
            3 => end,
            4 => end + 1,
            5 | 6 => end.saturating_sub(blocks),
            7 => end.saturating_sub(blocks) + 1,
            8 => self.random.pick(&[0x1F_FFFF, 0x7FFF_FFFF, 0xFFFF_FFFF, 0x1_0000_0000, 1 << 63, u64::MAX]),
            // Where a file system keeps its blocks, and beside.
            9..=14 => self.random.below(end) & !7,
            15..=18 => self.random.below(64),
            _ => self.random.below(end),
        }
    }

    fn some_allocation(&mut self) -> u64 {
        match self.random.below(12) {
            0 => 0,
            1 => 1 + self.random.below(4),
            2 | 3 => 5 + self.random.below(60),
            4 => self.random.pick(&[0xFFFF, 0x1_0000, 0xFF_FFFF, 0x7FFF_FFFF, 0xFFFF_FFFF]),
            5 => 0x1000,
            _ => 0xFC,
        }
    }

    /// Flips a bit after the operation code; not the service action's, which would be another command, and not NACA.
    fn flip(&mut self, cdb: &mut [u8]) {
        let bit = 8 + self.random.below(8 * (cdb.len() as u64 - 1)) as usize;
        let (byte, mask) = (bit / 8, 0x80_u8 >> (bit % 8));
        let naca = byte == cdb.len() - 1 && mask == 0x04;
        let action = self.shape.action.is_some() && byte == 1 && mask & 0x1F != 0;
        if !naca && !action {
            cdb[byte] ^= mask;
        }
    }

    /// The parameter list of commands that have one; sets its length in the CDB, too.
    fn parameter_list(&mut self, cdb: &mut [u8]) -> Option<Vec<u8>> {
        let list = match self.shape.data {
            Data::Ranges => self.ranges(),
            Data::Modes(header) => self.modes(header),
            Data::SmallList => {
                let length = self.random.pick(&[0, 0, 4, 8, 12, 16, 64]);
                (0..length).map(|_| self.random.pick(&[0, 0, 0, 1, 4])).collect()
            }
            _ => return None,
        };
        for field in self.shape.fields {
            if let Field::List(at, width) = *field {
                let length = match self.random.below(12) {
                    0 => 0,
                    1 => (list.len() as u64).saturating_sub(1 + self.random.below(8)),
                    2 => list.len() as u64 + self.random.below(8),
                    _ => list.len() as u64,
                };
                put(cdb, at, width, length);
            }
        }
        Some(list)
    }

    /// UNMAP's parameter list (SBC-3 5.35.2).
    fn ranges(&mut self) -> Vec<u8> {
        let count = self.random.pick(&[0, 1, 1, 1, 1, 2, 3]);
        let mut list = vec![0; 8 + 16 * count];
        let (mut data, mut descriptors) = (6 + 16 * count as u64, 16 * count as u64);
        match self.random.below(16) {
            0 => data = data.saturating_sub(1),
            1 => data += 16,
            2 => descriptors = descriptors.saturating_sub(self.random.below(17)),
            3 => descriptors += 16,
            _ => {}
        }
        put(&mut list, 0, 2, data);
        put(&mut list, 2, 2, descriptors);
        for range in 0..count {
            let mut blocks = self.some_blocks();
            let mut lba = self.some_lba(blocks);
            if self.random.once_in(2) {
                (lba, blocks) = (lba & !7, (blocks + 7) & !7);
            }
            put(&mut list, 8 + 16 * range, 8, lba);
            put(&mut list, 16 + 16 * range, 4, blocks);
        }
        list
    }

    /// A mode parameter list with a header of so many bytes (SPC-4 7.5.5): a page with its honest length and bits set at random.
    fn modes(&mut self, header: usize) -> Vec<u8> {
        let mut list = vec![0; header];
        if self.random.once_in(3) {
            let at = self.random.below(header as u64) as usize;
            list[at] = self.random.pick(&[0, 8, 0x10, 0x80]);
        }
        let (page, length) = self.random.pick(&[
            (0x08, 0x12),
            (0x0A, 0x0A),
            (0x1C, 0x0A),
            (0x01, 0x0A),
            (0x1A, 0x26),
            (0x02, 0x0E),
            (0x03, 0x16),
        ]);
        let at = list.len();
        list.extend([page, length]);
        list.resize(at + 2 + usize::from(length), 0);
        for _ in 0..self.random.below(3) {
            let byte = at + self.random.below(2 + u64::from(length)) as usize;
            list[byte] ^= 1 << self.random.below(8);
        }
        list
    }

    fn transfer(&mut self, needed: u64, list: Option<Vec<u8>>, cdb: &[u8]) -> Transfer {
        let mut length = needed.min(MOST);
        match self.random.below(24) {
            0 => length = length.saturating_sub(1 + self.random.below(600)),
            1 => length += 1 + self.random.below(600),
            2 => length = self.random.pick(&[0, 4, 512, 4096]),
            _ => {}
        }
        let length = length as usize;
        if length == 0 {
            return Transfer::None;
        }
        match self.shape.data {
            Data::None | Data::ReadBlocks | Data::Parameters => Transfer::In(length),
            Data::Ranges | Data::Modes(_) | Data::SmallList => {
                let mut list = list.unwrap_or_default();
                list.resize(length, 0);
                Transfer::Out(list)
            }
            Data::WriteBlocks | Data::OneBlock | Data::TwiceBlocks | Data::Checked => {
                Transfer::Out(self.contents(length, lba(self.shape, cdb)))
            }
        }
    }

    /// Data for blocks from an address on. Few kinds, so that comparisons succeed now and then, also halfway.
    fn contents(&mut self, length: usize, lba: u64) -> Vec<u8> {
        let half = self.shape.data == Data::TwiceBlocks;
        let block = self.medium.block as usize;
        let (first, second) = (self.random.below(8), self.random.below(8));
        let odd = self.random.once_in(6).then(|| self.random.below(length as u64) as usize);
        let again = if half { length / 2 / block } else { usize::MAX };
        let mut data = Vec::with_capacity(length + block);
        for n in 0..length.div_ceil(block) {
            let (kind, lba) = if n < again {
                (first, lba.wrapping_add(n as u64))
            } else {
                (second, lba.wrapping_add((n - again) as u64))
            };
            fill_block(&mut data, block, kind, lba);
        }
        data.truncate(length);
        if let Some(at) = odd {
            data[at] ^= 0x40;
        }
        data
    }

    /// The blocks a command may change.
    fn touched(&self, cdb: &[u8], transfer: &Transfer) -> Vec<(u64, u64)> {
        if self.shape.data != Data::Ranges {
            let count = blocks(self.shape, cdb);
            // WRITE SAME with no number goes to the end.
            let count = if self.shape.data == Data::OneBlock && count == 0 { self.medium.blocks } else { count };
            return vec![self.inside(lba(self.shape, cdb), count)];
        }
        let Transfer::Out(list) = transfer else { return Vec::new() };
        let ranges = list.get(8..).unwrap_or_default().chunks_exact(16);
        ranges.map(|range| self.inside(get(range, 0, 8), get(range, 8, 4))).collect()
    }

    fn inside(&self, lba: u64, blocks: u64) -> (u64, u64) {
        let lba = lba.min(self.medium.blocks);
        (lba, blocks.min(self.medium.blocks - lba))
    }
}

/// Appends one block's contents: zeros, or what tells its address, or something else.
pub fn fill_block(data: &mut Vec<u8>, block: usize, kind: u64, lba: u64) {
    match kind {
        0..=2 => data.resize(data.len() + block, 0),
        3 => data.resize(data.len() + block, 0xFF),
        _ => {
            let word = lba.wrapping_mul(0x0101_0101_0101_0101) ^ (kind / 6);
            data.extend(word.to_be_bytes().repeat(block / 8));
        }
    }
}

/// Writes a big-endian number of so many bytes; its upper part is lost if it is larger. Bits that are there stay.
fn put(bytes: &mut [u8], at: usize, width: usize, value: u64) {
    for n in 0..width {
        bytes[at + n] |= (value >> (8 * (width - 1 - n))) as u8;
    }
}

/// Reads a big-endian number.
pub fn get(bytes: &[u8], at: usize, width: usize) -> u64 {
    bytes[at..at + width].iter().fold(0, |value, byte| value << 8 | u64::from(*byte))
}

fn lba(shape: &Shape, cdb: &[u8]) -> u64 {
    let fields = shape.fields.iter();
    fields.fold(0, |found, field| match *field {
        Field::Lba(at, width) => get(cdb, at, width),
        Field::Lba6 => get(cdb, 1, 3) & 0x1F_FFFF,
        _ => found,
    })
}

fn blocks(shape: &Shape, cdb: &[u8]) -> u64 {
    let fields = shape.fields.iter();
    fields.fold(0, |found, field| match *field {
        Field::Blocks(at, width) => get(cdb, at, width),
        Field::Blocks6 if cdb[4] == 0 => 256,
        Field::Blocks6 => u64::from(cdb[4]),
        _ => found,
    })
}

/// The bytes a command moves, as its CDB says.
fn needed(shape: &Shape, medium: Medium, cdb: &[u8]) -> u64 {
    let block = u64::from(medium.block);
    let blocks = blocks(shape, cdb);
    let length = shape.fields.iter().fold(0, |found, field| match *field {
        Field::Allocation(at, width) | Field::List(at, width) => get(cdb, at, width),
        _ => found,
    });
    match shape.data {
        Data::None => 0,
        Data::ReadBlocks | Data::WriteBlocks => blocks * block,
        // READ CAPACITY(10), which has no length.
        Data::Parameters if shape.opcode == 0x25 => 8,
        Data::Parameters | Data::Ranges | Data::Modes(_) | Data::SmallList => length,
        Data::OneBlock if shape.opcode == 0x93 && cdb[1] & 1 != 0 => 0,
        Data::OneBlock => block,
        Data::TwiceBlocks => 2 * blocks * block,
        Data::Checked => match cdb[1] >> 1 & 3 {
            0 => 0,
            3 => block,
            _ => blocks * block,
        },
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::collections::BTreeSet;

    const STREAM: Stream = Stream { seed: 1, medium: Medium { blocks: 2048, block: 512 } };

    #[test]
    fn an_index_gives_the_same_command_again() {
        for index in 0..500 {
            assert_eq!(STREAM.command(index), STREAM.command(index));
        }
        let other = Stream { seed: 2, ..STREAM };
        assert!((0..100).filter(|index| STREAM.command(*index) == other.command(*index)).count() < 10);
    }

    #[test]
    fn all_commands_come_and_none_has_naca_or_another_action() {
        let mut names = BTreeSet::new();
        for index in 0..20_000 {
            let command = STREAM.command(index);
            assert_eq!(command.cdb.last().unwrap() & 4, 0, "{command:?}");
            assert!(command.transfer.length() <= MOST as usize + 600, "{command:?}");
            assert!(command.touched.iter().all(|(lba, blocks)| lba + blocks <= 2048), "{command:?}");
            let shape = SHAPES.iter().find(|shape| shape.name == command.name);
            if let Some(action) = shape.and_then(|shape| shape.action) {
                assert_eq!(command.cdb[1] & 0x1F, action, "{command:?}");
            }
            names.insert(command.name);
        }
        assert_eq!(names.len(), SHAPES.len() + 1);
    }

    #[test]
    fn the_layouts_are_read_as_they_are_written() {
        let read6 = SHAPES.iter().find(|shape| shape.opcode == 0x08).unwrap();
        let cdb = [0x08, 0xE1, 0x02, 0x03, 0x00, 0x00];
        assert_eq!((lba(read6, &cdb), blocks(read6, &cdb)), (0x1_0203, 256));
        assert_eq!(needed(read6, STREAM.medium, &cdb), 256 * 512);
        let compare = SHAPES.iter().find(|shape| shape.opcode == 0x89).unwrap();
        let cdb = [0x89, 0, 0, 0, 0, 0, 0, 0, 0, 9, 0, 0, 0, 3, 0, 0];
        assert_eq!((lba(compare, &cdb), blocks(compare, &cdb)), (9, 3));
        assert_eq!(needed(compare, STREAM.medium, &cdb), 2 * 3 * 512);
        let verify = SHAPES.iter().find(|shape| shape.opcode == 0x2F).unwrap();
        for (byte1, bytes) in [(0, 0), (0x02, 2 * 512), (0x04, 2 * 512), (0x06, 512)] {
            assert_eq!(needed(verify, STREAM.medium, &[0x2F, byte1, 0, 0, 0, 0, 0, 0, 2, 0]), bytes);
        }
    }
}
