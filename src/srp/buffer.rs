//! Data-buffer descriptors (SRP r16a 5.5).
//!
//! A descriptor names memory of the initiator. On the data path nothing is copied or encoded: a [`Buffers`] borrows the
//! descriptors of the guest's own chain, one piece being the direct format and several the indirect one.

use super::IuError;

/// Length of a direct descriptor on the wire.
pub const DIRECT_LEN: usize = 16;
/// Length of an indirect descriptor's head on the wire: the table's own descriptor and the total length.
pub const INDIRECT_HEAD_LEN: usize = 20;

/// A direct data-buffer descriptor; 16 bytes on the wire, big-endian.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct DirectDescriptor {
    /// Virtual address: here a guest physical address.
    pub va: u64,
    /// Memory handle: here always 0, a front-end has one memory map.
    pub key: u32,
    /// Length in bytes.
    pub len: u32,
}

impl DirectDescriptor {
    /// The wire form.
    pub fn encode(&self) -> [u8; DIRECT_LEN] {
        let mut b = [0; DIRECT_LEN];
        b[0..8].copy_from_slice(&self.va.to_be_bytes());
        b[8..12].copy_from_slice(&self.key.to_be_bytes());
        b[12..16].copy_from_slice(&self.len.to_be_bytes());
        b
    }

    /// From the wire form.
    pub fn decode(b: &[u8; DIRECT_LEN]) -> DirectDescriptor {
        let [v0, v1, v2, v3, v4, v5, v6, v7, k0, k1, k2, k3, l0, l1, l2, l3] = *b;
        DirectDescriptor {
            va: u64::from_be_bytes([v0, v1, v2, v3, v4, v5, v6, v7]),
            key: u32::from_be_bytes([k0, k1, k2, k3]),
            len: u32::from_be_bytes([l0, l1, l2, l3]),
        }
    }
}

/// DATA-OUT / DATA-IN BUFFER DESCRIPTOR FORMAT codes.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[repr(u8)]
pub enum BufferFormat {
    /// 0h: no buffer.
    #[default]
    None = 0,
    /// 1h: one direct descriptor.
    Direct = 1,
    /// 2h: an indirect descriptor.
    Indirect = 2,
}

impl TryFrom<u8> for BufferFormat {
    type Error = IuError;

    fn try_from(code: u8) -> Result<BufferFormat, IuError> {
        match code {
            0 => Ok(BufferFormat::None),
            1 => Ok(BufferFormat::Direct),
            2 => Ok(BufferFormat::Indirect),
            other => Err(IuError::BufferFormat(other)),
        }
    }
}

/// A set of buffer formats, as LOGIN_REQ asks for and LOGIN_RSP grants: bit 1 direct, bit 2 indirect.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct FormatSet(pub u16);

impl FormatSet {
    /// Direct descriptors.
    pub const DIRECT: FormatSet = FormatSet(1 << 1);
    /// Indirect descriptors.
    pub const INDIRECT: FormatSet = FormatSet(1 << 2);
    /// Both.
    pub const ALL: FormatSet = FormatSet(1 << 1 | 1 << 2);

    /// True if every format of `other` is in it.
    pub fn contains(self, other: FormatSet) -> bool {
        self.0 & other.0 == other.0
    }
}

/// The data buffer of one direction of a command.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Buffers<'a> {
    /// No data.
    #[default]
    None,
    /// One piece.
    Direct(&'a DirectDescriptor),
    /// A list of pieces.
    Indirect(Indirect<'a>),
}

/// An indirect data-buffer descriptor.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Indirect<'a> {
    /// Where the initiator keeps the whole table; its length is 16 bytes per piece. Address 0 when the table is
    /// nowhere but here.
    pub table: DirectDescriptor,
    /// Length of the data buffer in bytes.
    pub total: u32,
    /// The pieces that are here.
    pub list: &'a [DirectDescriptor],
}

impl<'a> Buffers<'a> {
    /// The buffer made of `pieces`: none, direct for one, indirect for more.
    ///
    /// [`IuError::TooLong`] if the sum of their lengths does not fit 32 bits, which is all that SRP can say.
    pub fn of(pieces: &'a [DirectDescriptor]) -> Result<Buffers<'a>, IuError> {
        match pieces {
            [] => Ok(Buffers::None),
            [one] => Ok(Buffers::Direct(one)),
            list => {
                let total = list.iter().map(|d| u64::from(d.len)).sum::<u64>();
                let total = u32::try_from(total).map_err(|_| IuError::TooLong)?;
                let table_len = u32::try_from(list.len() * DIRECT_LEN).map_err(|_| IuError::TooLong)?;
                let table = DirectDescriptor { va: 0, key: 0, len: table_len };
                Ok(Buffers::Indirect(Indirect { table, total, list }))
            }
        }
    }

    /// Length of the data buffer in bytes.
    pub fn len(&self) -> u32 {
        match self {
            Buffers::None => 0,
            Buffers::Direct(d) => d.len,
            Buffers::Indirect(i) => i.total,
        }
    }

    /// True if there is no byte in it.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// Its format.
    pub fn format(&self) -> BufferFormat {
        match self {
            Buffers::None => BufferFormat::None,
            Buffers::Direct(_) => BufferFormat::Direct,
            Buffers::Indirect(_) => BufferFormat::Indirect,
        }
    }

    /// The pieces that are here.
    pub fn pieces(&self) -> &'a [DirectDescriptor] {
        match self {
            Buffers::None => &[],
            Buffers::Direct(d) => std::slice::from_ref(*d),
            Buffers::Indirect(i) => i.list,
        }
    }

    /// The DESCRIPTOR COUNT field of CMD: how many pieces of an indirect list the IU carries (0 with other formats). A longer
    /// table is cut after 255; its own descriptor tells its whole length.
    pub fn count(&self) -> u8 {
        match self {
            Buffers::Indirect(i) => u8::try_from(i.list.len()).unwrap_or(u8::MAX),
            _ => 0,
        }
    }

    /// Appends the wire form to `out`.
    pub fn encode(&self, out: &mut Vec<u8>) {
        match self {
            Buffers::None => {}
            Buffers::Direct(d) => out.extend_from_slice(&d.encode()),
            Buffers::Indirect(i) => {
                out.extend_from_slice(&i.table.encode());
                out.extend_from_slice(&i.total.to_be_bytes());
                for d in i.list.iter().take(usize::from(self.count())) {
                    out.extend_from_slice(&d.encode());
                }
            }
        }
    }
}

/// A data buffer as it was read off the wire, before its pieces (which went into a list) are borrowed.
#[derive(Clone, Copy, Debug)]
pub(super) enum Parsed {
    None,
    Direct,
    Indirect { table: DirectDescriptor, total: u32, count: usize },
}

impl Parsed {
    /// Reads one buffer of `format` from the front of `bytes`, appends its pieces to `list` and returns what is left.
    pub(super) fn decode<'b>(
        format: BufferFormat,
        count: u8,
        bytes: &'b [u8],
        list: &mut Vec<DirectDescriptor>,
    ) -> Result<(Parsed, &'b [u8]), IuError> {
        match format {
            BufferFormat::None => Ok((Parsed::None, bytes)),
            BufferFormat::Direct => {
                let (one, rest) = bytes.split_first_chunk::<DIRECT_LEN>().ok_or(IuError::Short)?;
                list.push(DirectDescriptor::decode(one));
                Ok((Parsed::Direct, rest))
            }
            BufferFormat::Indirect => {
                let (head, rest) = bytes.split_first_chunk::<DIRECT_LEN>().ok_or(IuError::Short)?;
                let (total, mut rest) = rest.split_first_chunk::<4>().ok_or(IuError::Short)?;
                for _ in 0..count {
                    let (one, after) = rest.split_first_chunk::<DIRECT_LEN>().ok_or(IuError::Short)?;
                    list.push(DirectDescriptor::decode(one));
                    rest = after;
                }
                let table = DirectDescriptor::decode(head);
                Ok((Parsed::Indirect { table, total: u32::from_be_bytes(*total), count: usize::from(count) }, rest))
            }
        }
    }

    /// How many pieces it put into the list.
    pub(super) fn pieces(&self) -> usize {
        match self {
            Parsed::None => 0,
            Parsed::Direct => 1,
            Parsed::Indirect { count, .. } => *count,
        }
    }

    /// The buffer over its pieces.
    pub(super) fn over(self, list: &[DirectDescriptor]) -> Buffers<'_> {
        match (self, list) {
            (Parsed::Direct, [one]) => Buffers::Direct(one),
            (Parsed::Indirect { table, total, .. }, list) => Buffers::Indirect(Indirect { table, total, list }),
            _ => Buffers::None,
        }
    }
}
