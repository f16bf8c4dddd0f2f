//! Guest memory with a driver's requests in it.

use std::fmt;
use std::sync::Arc;

use vstgt::mem::{GuestWriter, MemoryMap, Region, RegionSpec, sealed_file};
use vstgt::virtio_scsi::{Chain, Popped, RingSetup, SplitRing};

use crate::BATCH;

/// Bytes of guest memory, from guest physical address 0 on.
const MEMORY: u64 = 16 << 20;
/// Descriptors of the ring: QEMU's default.
const RING_SIZE: u16 = 128;
/// Where the ring is.
const RING: u64 = 0x1000;
/// Where the requests are, and how far apart.
const REQUESTS: u64 = 0x10_0000;
const STRIDE: u64 = 0x2_0000;

/// Bytes of a command's header and of its response, with the sizes that QEMU always has.
const HEADER: u32 = 51;
pub const RESPONSE: u32 = 108;
/// Bytes that a command reads.
pub const DATA: u32 = 4096;

const NEXT: u16 = 1;
const WRITE: u16 = 2;
const INDIRECT: u16 = 4;

/// READ(10) of [`DATA`] bytes, in blocks of 512.
pub const READ_10: [u8; 16] = [0x28, 0, 0, 0, 0x12, 0x34, 0, 0, 8, 0, 0, 0, 0, 0, 0, 0];

/// Where a chain's descriptors are.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Table {
    /// In the ring's own table.
    Direct,
    /// In a table of its own, as Linux does it.
    Indirect,
}

impl fmt::Display for Table {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Table::Direct => "direct",
            Table::Indirect => "indirect",
        })
    }
}

/// A guest whose ring shows a batch of reads that nobody has taken.
pub struct Guest {
    pub map: Arc<MemoryMap>,
    pub setup: RingSetup,
}

impl Guest {
    /// Each read a chain of header, response, and data in so many pieces.
    pub fn new(table: Table, pieces: u16) -> Guest {
        let file = sealed_file(c"bench", MEMORY).unwrap();
        let spec = RegionSpec { guest_addr: 0, size: MEMORY, user_addr: 0x7f00_0000_0000, mmap_offset: 0 };
        let map = Arc::new(MemoryMap::new(vec![Region::map(&spec, file).unwrap()]).unwrap());
        let (desc, size) = (RING, u64::from(RING_SIZE));
        let avail = desc + 16 * size;
        let used = (avail + 6 + 2 * size).next_multiple_of(4);
        let setup = RingSetup { size: RING_SIZE, desc, avail, used, next_avail: 0, next_used: 0, event_idx: true };
        let guest = Guest { map, setup };
        for number in 0..BATCH as u16 {
            let head = guest.describe(table, number, pieces);
            guest.put(avail + 4 + 2 * u64::from(number), &head.to_le_bytes());
        }
        guest.put(avail + 2, &(BATCH as u16).to_le_bytes());
        guest
    }

    /// Writes a request and the descriptors of its chain; gives back the first one's index.
    fn describe(&self, table: Table, number: u16, pieces: u16) -> u16 {
        let at = REQUESTS + STRIDE * u64::from(number);
        let mut header = [0; HEADER as usize];
        // Target 0, LUN 0, in flat space format; an identifier; the CDB behind attribute, priority and CRN.
        header[..4].copy_from_slice(&[1, 0, 0x40, 0]);
        header[8..10].copy_from_slice(&number.to_le_bytes());
        header[19..35].copy_from_slice(&READ_10);
        self.put(at, &header);
        let piece = DATA / u32::from(pieces);
        // Not adjoining, or they would become one.
        let data = (0..pieces).map(|i| (at + 0x2000 + 0x1800 * u64::from(i), piece, WRITE));
        let buffers: Vec<_> = [(at, HEADER, 0), (at + 0x80, RESPONSE, WRITE)].into_iter().chain(data).collect();
        let (entries, first) = match table {
            Table::Direct => (self.setup.desc, number * buffers.len() as u16),
            Table::Indirect => (at + 0x1000, 0),
        };
        for (index, &(addr, len, flags)) in (first..).zip(&buffers) {
            let more = usize::from(index - first) + 1 < buffers.len();
            self.put_descriptor(entries, index, addr, len, flags | if more { NEXT } else { 0 });
        }
        if table == Table::Indirect {
            self.put_descriptor(self.setup.desc, number, entries, 16 * buffers.len() as u32, INDIRECT);
            return number;
        }
        first
    }

    fn put(&self, addr: u64, bytes: &[u8]) {
        self.writer().write(addr, bytes).unwrap();
    }

    fn put_descriptor(&self, table: u64, index: u16, addr: u64, len: u32, flags: u16) {
        let mut bytes = [0; 16];
        bytes[..8].copy_from_slice(&addr.to_le_bytes());
        bytes[8..12].copy_from_slice(&len.to_le_bytes());
        bytes[12..14].copy_from_slice(&flags.to_le_bytes());
        bytes[14..].copy_from_slice(&(index + 1).to_le_bytes());
        self.put(table + 16 * u64::from(index), &bytes);
    }

    /// Writes without a dirty log.
    pub fn writer(&self) -> GuestWriter<'_> {
        GuestWriter::new(&self.map, None)
    }

    /// The device's half of the ring, at its beginning.
    pub fn ring(&self) -> SplitRing {
        SplitRing::new(&self.map, &self.setup).unwrap()
    }

    /// The first chain.
    pub fn chain(&self) -> Chain {
        let mut chain = Chain::default();
        assert_eq!(self.ring().pop(&mut chain), Ok(Popped::Chain));
        chain
    }
}
