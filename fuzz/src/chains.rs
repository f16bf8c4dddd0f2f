//! `chains`: descriptor tables, rings, and requests in guest memory.
//!
//! The input says where a ring is and then, step by step, what the driver writes there and what the device does. What our reader takes
//! for chains is compared with what `virtio-queue` does; what is taken apart as a request must add up; and nothing may be written
//! but the used ring and response slots.

use crate::guest::{descriptor, memory, ring_at};
use crate::input::Input;
use std::sync::Arc;
use virtio_queue::{Queue, QueueOwnedT, QueueT};
use vm_memory::{FileOffset, GuestAddress, GuestMemoryMmap, GuestRegionMmap};
use vstgt::mem::{Direction, GuestWriter, IoBuf, MemoryMap, SnapshotSet};
use vstgt::virtio_scsi::{
    Chain, ChainError, CommandRequest, CommandResponse, ControlFunction, ControlRequest, Descriptor, Event,
    EventBuffer, Popped, ResponseCode, ResponseSlot, RingError, RingSetup, SplitRing,
};

/// Bytes of guest memory.
const MEMORY: u64 = 0x1_0000;
/// Where the ring is, unless the input says otherwise.
const BASE: u64 = 0x1000;
/// Where indirect tables are.
const TABLES: u64 = 0x8000;
/// Steps that an input may have.
const STEPS: usize = 512;

/// Takes any bytes.
pub fn run(bytes: &[u8]) {
    let mut input = Input::new(bytes);
    let map = memory(MEMORY);
    let flags = input.u8();
    let event_idx = flags & 0x10 != 0;
    let setup = if flags & 0xe0 == 0xe0 {
        let (size, desc, avail, used) = (input.u16(), input.u64(), input.u64(), input.u64());
        RingSetup { size, desc, avail, used, next_avail: input.u16(), next_used: input.u16(), event_idx }
    } else {
        ring_at(BASE, 1 << (flags & 7), input.u16(), event_idx)
    };
    let Ok(ring) = SplitRing::new(&map, &setup) else {
        assert!(flags & 0xe0 == 0xe0, "{setup:?}");
        return;
    };
    let mut device = Device::new(map, setup, ring);
    for _ in 0..STEPS {
        if input.is_empty() || !device.step(&mut input) {
            break;
        }
    }
    // Whatever is in flight can be given back, and is seen once each.
    while let Some(head) = device.in_flight.pop() {
        device.ring.push_used(head, 0);
    }
    device.ring.publish();
    assert_eq!(device.ring.in_flight(), 0);
}

struct Device {
    map: Arc<MemoryMap>,
    setup: RingSetup,
    ring: SplitRing,
    oracle: Option<(Queue, GuestMemoryMmap)>,
    avail_idx: u16,
    /// avail.idx when the device looked last.
    seen: u16,
    in_flight: Vec<u16>,
    chain: Chain,
    command: CommandRequest,
    control: ControlRequest,
    snapshots: SnapshotSet,
}

impl Device {
    fn new(map: Arc<MemoryMap>, setup: RingSetup, ring: SplitRing) -> Device {
        let mut device = Device {
            oracle: oracle(&map, &setup),
            avail_idx: setup.next_avail,
            seen: setup.next_avail,
            snapshots: SnapshotSet::new(Arc::clone(&map)),
            map,
            setup,
            ring,
            in_flight: Vec::new(),
            chain: Chain::default(),
            command: CommandRequest::default(),
            control: ControlRequest::default(),
        };
        device.put(setup.avail + 2, &setup.next_avail.to_le_bytes());
        device.put(setup.used + 2, &setup.next_used.to_le_bytes());
        device
    }

    /// The driver writes, perhaps past the end of memory: then nothing.
    fn put(&mut self, addr: u64, bytes: &[u8]) {
        GuestWriter::new(&self.map, None).write(addr, bytes).ok();
    }

    /// False if the ring is broken.
    fn step(&mut self, input: &mut Input<'_>) -> bool {
        let what = input.u8();
        match what % 8 {
            0 => {
                let (addr, len) = (u64::from(input.u16()), usize::from(input.u8()));
                self.put(addr, input.take(len));
            }
            1 | 2 => {
                let table = if what % 8 == 1 { self.setup.desc } else { TABLES };
                let index = u64::from(input.u8());
                let addr = if what & 0x10 == 0 { u64::from(input.u16()) } else { input.u64() };
                let len = if what & 0x20 == 0 { u32::from(input.u16()) } else { input.u32() };
                let flags = if what & 0x40 == 0 { u16::from(input.u8() % 8) } else { input.u16() };
                let bytes = descriptor(addr, len, flags, u16::from(input.u8()));
                self.put(table.wrapping_add(16 * index), &bytes);
            }
            3 => {
                let slot = self.avail_idx % self.setup.size;
                let head = if what & 0x80 == 0 { u16::from(input.u8()) } else { input.u16() };
                self.put(self.setup.avail + 4 + 2 * u64::from(slot), &head.to_le_bytes());
                self.avail_idx = self.avail_idx.wrapping_add(1);
                self.put(self.setup.avail + 2, &self.avail_idx.to_le_bytes());
            }
            4 => {
                self.avail_idx = self.avail_idx.wrapping_add(input.u16());
                self.put(self.setup.avail + 2, &self.avail_idx.to_le_bytes());
            }
            5 => return self.pop(what >> 3, input),
            6 => {
                if let Some(at) = usize::from(what >> 3).checked_rem(self.in_flight.len()) {
                    let head = self.in_flight.swap_remove(at);
                    self.ring.push_used(head, input.u32());
                }
            }
            _ => match what >> 3 & 3 {
                0 => drop(self.ring.publish()),
                1 => drop(self.ring.enable_kicks()),
                2 => self.ring.disable_kicks(),
                _ => drop(self.ring.remap(&self.map)),
            },
        }
        true
    }

    fn pop(&mut self, kind: u8, input: &mut Input<'_>) -> bool {
        let before = self.ring.next_avail();
        // We look at avail.idx only when all that it showed before is taken; the other reader does so each time. A driver that takes back
        // what it showed is not served alike.
        let mut idx = [0; 2];
        self.map.read(self.setup.avail + 2, &mut idx).expect("the ring is there");
        let idx = u16::from_le_bytes(idx);
        if before == self.seen {
            self.seen = idx;
        } else if idx != self.seen {
            self.oracle = None;
        }
        let popped = self.ring.pop(&mut self.chain);
        self.compare(popped);
        match popped {
            Err(_) => {
                assert!(self.ring.is_broken());
                assert!(self.ring.pop(&mut self.chain).is_err(), "a broken ring stays broken");
                return false;
            }
            Ok(Popped::Empty) => {
                assert_eq!(before, self.ring.next_avail());
                return true;
            }
            Ok(Popped::Chain | Popped::Malformed(_)) => {}
        }
        assert!(self.chain.head < self.setup.size && !self.in_flight.contains(&self.chain.head));
        assert_eq!(self.ring.next_avail(), before.wrapping_add(1));
        self.in_flight.push(self.chain.head);
        if popped == Ok(Popped::Chain) {
            let chain = std::mem::take(&mut self.chain);
            self.request(&chain, kind, input);
            self.chain = chain;
        }
        assert_eq!(self.ring.in_flight() as usize, self.in_flight.len());
        true
    }

    /// What virtio-queue sees is the same, or ours is a beginning of it that we call malformed.
    fn compare(&mut self, popped: Result<Popped, RingError>) {
        let Some((queue, memory)) = &mut self.oracle else { return };
        let seen = match queue.iter(&*memory) {
            Ok(mut chains) => chains.next(),
            Err(_) => {
                assert!(matches!(popped, Err(RingError::AvailIndex { .. })), "{popped:?}");
                return;
            }
        };
        let descriptor = |d: virtio_queue::desc::split::Descriptor| Descriptor {
            addr: d.addr().0,
            len: d.len(),
            writable: d.is_write_only(),
        };
        let seen = seen.map(|chain| (chain.head_index(), chain.map(descriptor).collect::<Vec<_>>()));
        match popped {
            Ok(Popped::Empty) => assert_eq!(seen, None),
            Ok(Popped::Chain) => assert_eq!(seen, Some((self.chain.head, self.chain.descriptors.clone()))),
            Ok(Popped::Malformed(_)) => {
                let (head, descriptors) = seen.expect("there is a chain");
                assert_eq!(head, self.chain.head);
                assert!(descriptors.starts_with(&self.chain.descriptors), "{descriptors:?} {:?}", self.chain);
            }
            Err(RingError::Head(head) | RingError::HeadInFlight(head)) => assert_eq!(seen.map(|s| s.0), Some(head)),
            Err(other) => panic!("{other}"),
        }
        if popped.is_ok() {
            assert_eq!(queue.next_avail(), self.ring.next_avail());
        }
    }

    /// Takes a chain apart as one of the three kinds of request.
    fn request(&mut self, chain: &Chain, kind: u8, input: &mut Input<'_>) {
        let total = |writable| {
            chain.descriptors.iter().filter(|d| d.writable == writable).map(|d| u64::from(d.len)).sum::<u64>()
        };
        let (readable, writable) = (total(false), total(true));
        let before = self.bytes();
        let (cdb_size, sense_size) = (usize::from(input.u8()), usize::from(input.u8()));
        let slot = match kind % 3 {
            0 => {
                let parsed = self.command.parse(chain, &self.map, cdb_size, sense_size);
                match parsed {
                    Ok(()) => {
                        let header = 19 + cdb_size.min(vstgt::virtio_scsi::wire::CDB_SIZE) as u64;
                        let response = u64::from(self.command.response.len());
                        assert_eq!(u64::from(self.command.data_out_len) + header, readable);
                        assert_eq!(u64::from(self.command.data_in_len) + response, writable);
                        let sum = |pieces: &[vstgt::srp::DirectDescriptor]| {
                            pieces.iter().map(|p| u64::from(p.len)).sum::<u64>()
                        };
                        assert_eq!(sum(&self.command.data_out), u64::from(self.command.data_out_len));
                        assert_eq!(sum(&self.command.data_in), u64::from(self.command.data_in_len));
                        self.resolve();
                        let sense = [0x5a; 300];
                        let response = CommandResponse {
                            response: ResponseCode::Ok,
                            status: 2,
                            residual: input.u32(),
                            sense: &sense[..usize::from(input.u8())],
                            ..CommandResponse::default()
                        };
                        let written = self.command.response.write_command(GuestWriter::new(&self.map, None), &response);
                        assert_eq!(written, self.command.response.len());
                    }
                    Err(ChainError::Answerable(_)) => drop(self.command.reject(GuestWriter::new(&self.map, None))),
                    Err(ChainError::Unanswerable(_)) => return self.assert_only_written(&before, &[]),
                }
                &self.command.response
            }
            1 => {
                match self.control.parse(chain, &self.map) {
                    Ok(()) => {
                        let slot = &self.control.response;
                        let len = match self.control.function {
                            ControlFunction::TaskManagement { .. } => {
                                slot.write_task_management(GuestWriter::new(&self.map, None), ResponseCode::Ok)
                            }
                            _ => slot.write_async(GuestWriter::new(&self.map, None), input.u32(), ResponseCode::Ok),
                        };
                        assert_eq!(len, slot.len());
                    }
                    Err(ChainError::Answerable(_)) => drop(self.control.reject(GuestWriter::new(&self.map, None))),
                    Err(ChainError::Unanswerable(_)) => return self.assert_only_written(&before, &[]),
                }
                &self.control.response
            }
            _ => {
                let Ok(buffer) = EventBuffer::parse(chain, &self.map) else {
                    return self.assert_only_written(&before, &[]);
                };
                let lun = vstgt::scsi::Lun(input.array());
                let len = buffer.write(
                    GuestWriter::new(&self.map, None),
                    Event::ParamChange { lun, asc: 0x2a, ascq: 9 },
                    cdb_size & 1 != 0,
                );
                assert_eq!(len, 16);
                return self.assert_only_written_but(&before, 16, writable);
            }
        };
        let pieces = pieces(slot);
        self.assert_only_written(&before, &pieces);
    }

    /// Data buffers are found in memory, all of them or none; what is found is given back.
    fn resolve(&mut self) {
        for (direction, list) in [(Direction::Out, &self.command.data_out), (Direction::In, &self.command.data_in)] {
            let len: u64 = list.iter().map(|piece| u64::from(piece.len)).sum();
            let inside =
                list.iter().all(|p| p.len == 0 || p.va.checked_add(p.len.into()).is_some_and(|end| end <= MEMORY));
            match self.snapshots.resolve(direction, list.iter().map(|p| (p.va, p.len)), IoBuf::empty()) {
                Ok(buf) => {
                    assert!(inside && buf.len() == len);
                    let mut bytes = vec![0; len.min(MEMORY) as usize];
                    buf.read_at(0, &mut bytes);
                    self.snapshots.release(buf);
                }
                Err(outside) => assert!(!inside, "{outside}"),
            }
        }
        assert_eq!(self.snapshots.outstanding(), 0);
    }

    fn bytes(&self) -> Vec<u8> {
        let mut bytes = vec![0; MEMORY as usize];
        self.map.read(0, &mut bytes).expect("all of it");
        bytes
    }

    fn assert_only_written(&self, before: &[u8], pieces: &[(u64, u32)]) {
        let mut after = self.bytes();
        for (addr, len) in pieces {
            let range = *addr as usize..*addr as usize + *len as usize;
            after[range.clone()].copy_from_slice(&before[range]);
        }
        assert!(after == before, "something was written outside the response's {pieces:x?}");
    }

    /// The same where the slot is not to be seen: so many bytes at most differ.
    fn assert_only_written_but(&self, before: &[u8], len: usize, writable: u64) {
        assert!(writable >= len as u64);
        let differ = self.bytes().iter().zip(before).filter(|(a, b)| a != b).count();
        assert!(differ <= len, "{differ} bytes were written");
    }
}

fn pieces(slot: &ResponseSlot) -> Vec<(u64, u32)> {
    let pieces = slot.pieces().to_vec();
    assert_eq!(pieces.iter().map(|piece| piece.1).sum::<u32>(), slot.len());
    pieces
}

/// The same memory and ring for virtio-queue; `None` where it is more particular about addresses than we are.
fn oracle(map: &MemoryMap, setup: &RingSetup) -> Option<(Queue, GuestMemoryMmap)> {
    let regions = map.regions().iter().map(|region| {
        let file = region.file_offset()?.file().try_clone().ok()?;
        let at = FileOffset::new(file, region.spec().mmap_offset);
        GuestRegionMmap::from_range(GuestAddress(region.guest_addr()), region.size() as usize, Some(at)).ok()
    });
    let memory = GuestMemoryMmap::from_regions(regions.collect::<Option<_>>()?).ok()?;
    let mut queue = Queue::new(setup.size).ok()?;
    queue.set_size(setup.size);
    queue.try_set_desc_table_address(GuestAddress(setup.desc)).ok()?;
    queue.try_set_avail_ring_address(GuestAddress(setup.avail)).ok()?;
    queue.try_set_used_ring_address(GuestAddress(setup.used)).ok()?;
    queue.set_next_avail(setup.next_avail);
    queue.set_next_used(setup.next_used);
    queue.set_event_idx(setup.event_idx);
    queue.set_ready(true);
    // It takes an available ring at address 0 for none at all.
    (setup.avail != 0 && queue.is_valid(&memory)).then_some((queue, memory))
}
