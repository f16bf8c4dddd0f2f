//! Our reader against virtio-queue's, on random rings.

use proptest::prelude::*;
use virtio_queue::{Queue, QueueOwnedT, QueueT};
use vm_memory::{FileOffset, GuestAddress, GuestMemoryMmap, GuestRegionMmap};

use super::*;

const BASE: u64 = 0x1000;
const TABLES: u64 = 0x20_0000;
const MEMORY: u64 = 0x40_0000;

/// The same memory for virtio-queue: another mapping of the same file.
fn mirror(map: &MemoryMap) -> GuestMemoryMmap {
    let regions = map.regions().iter().map(|r| {
        let file = r.file_offset().unwrap().file().try_clone().unwrap();
        let at = FileOffset::new(file, r.spec().mmap_offset);
        GuestRegionMmap::from_range(GuestAddress(r.guest_addr()), r.size() as usize, Some(at)).unwrap()
    });
    GuestMemoryMmap::from_regions(regions.collect()).unwrap()
}

fn queue(setup: &RingSetup) -> Queue {
    let mut queue = Queue::new(setup.size).unwrap();
    queue.set_size(setup.size);
    queue.try_set_desc_table_address(GuestAddress(setup.desc)).unwrap();
    queue.try_set_avail_ring_address(GuestAddress(setup.avail)).unwrap();
    queue.try_set_used_ring_address(GuestAddress(setup.used)).unwrap();
    queue.set_next_avail(setup.next_avail);
    queue.set_next_used(setup.next_used);
    queue.set_event_idx(setup.event_idx);
    queue.set_ready(true);
    queue
}

/// Head and descriptors of the next chain, as virtio-queue sees them.
fn oracle_pop(queue: &mut Queue, mem: &GuestMemoryMmap) -> Option<(u16, Vec<Descriptor>)> {
    let chain = queue.iter(mem).unwrap().next()?;
    let head = chain.head_index();
    let descriptor = |d: virtio_queue::desc::split::Descriptor| Descriptor {
        addr: d.addr().0,
        len: d.len(),
        writable: d.is_write_only(),
    };
    Some((head, chain.map(descriptor).collect()))
}

#[derive(Clone, Debug)]
struct Entry {
    addr: u64,
    len: u32,
    flags: u16,
    next: u16,
}

/// Buffers of one valid chain, and how many of them stand in the ring's own table before an indirect one.
fn valid_chain() -> impl Strategy<Value = (Vec<Descriptor>, Option<usize>)> {
    let buffers = |writable, n| {
        prop::collection::vec((any::<u64>(), 0u32..0x10_0000), n)
            .prop_map(move |v| v.into_iter().map(|(addr, len)| Descriptor { addr, len, writable }).collect::<Vec<_>>())
    };
    (buffers(false, 0..5), buffers(true, 0..5), prop::option::of(0usize..9)).prop_map(
        |(mut all, writable, indirect_from)| {
            all.extend(writable);
            if all.is_empty() {
                all.push(Descriptor::default());
            }
            let indirect_from = indirect_from.map(|at| at % all.len());
            (all, indirect_from)
        },
    )
}

/// An entry of a table of garbage: near enough to valid to get far.
fn entry(size: u16) -> impl Strategy<Value = Entry> {
    let addr = prop_oneof![Just(TABLES), Just(TABLES + 64), Just(BASE), Just(MEMORY - 16), any::<u64>()];
    let len = prop_oneof![Just(0), Just(16), Just(64), Just(4096), Just(0x8000_0001), any::<u32>()];
    let flags = prop_oneof![8 => 0u16..4, 2 => 4u16..8, 1 => any::<u16>()];
    let next = prop_oneof![8 => 0..size, 1 => any::<u16>()];
    (addr, len, flags, next).prop_map(|(addr, len, flags, next)| Entry { addr, len, flags, next })
}

proptest! {
    #![proptest_config(ProptestConfig { failure_persistence: None, ..ProptestConfig::default() })]

    /// Of rings that are valid both readers see the same.
    #[test]
    fn valid_chains_are_read_alike(
        chains in prop::collection::vec(valid_chain(), 1..8),
        start: u16,
        used_in_between: bool,
    ) {
        let map = memory(&[(0, MEMORY)]);
        let mirror = mirror(&map);
        let mut driver = Driver::new(&map, BASE, 128, start, false);
        let mut ring = driver.ring();
        let mut oracle = queue(&driver.setup);
        let mut chain = Chain::default();
        let (mut free, mut table) = (0, TABLES);
        for (buffers, indirect_from) in chains {
            let head = free;
            let direct = indirect_from.unwrap_or(buffers.len());
            let flags = |d: &Descriptor, last| if last { 0 } else { NEXT } | if d.writable { WRITE } else { 0 };
            for (i, d) in buffers[..direct].iter().enumerate() {
                driver.put(free, d.addr, d.len, flags(d, i + 1 == buffers.len()), free + 1);
                free += 1;
            }
            if direct < buffers.len() {
                let rest = &buffers[direct..];
                driver.put(free, table, rest.len() as u32 * 16, INDIRECT, 0);
                free += 1;
                for (i, d) in (0..).zip(rest) {
                    driver.put_descriptor(table, i, d.addr, d.len, flags(d, usize::from(i) + 1 == rest.len()), i + 1);
                }
                table += rest.len() as u64 * 16;
            }
            driver.offer(head);
            prop_assert_eq!(ring.has_avail(), Ok(true));
            prop_assert_eq!(ring.pop(&mut chain), Ok(Popped::Chain));
            prop_assert_eq!(&chain.descriptors, &buffers);
            let seen = oracle_pop(&mut oracle, &mirror);
            prop_assert_eq!(seen, Some((chain.head, buffers)));
            prop_assert_eq!(ring.next_avail(), oracle.next_avail());
            if used_in_between {
                ring.push_used(head, 5);
                ring.publish();
            }
        }
        prop_assert_eq!(ring.pop(&mut chain), Ok(Popped::Empty));
        prop_assert_eq!(oracle_pop(&mut oracle, &mirror), None);
    }

    /// Of garbage we see a beginning of what virtio-queue sees, and all of it if we call it a chain.
    #[test]
    fn garbage_is_read_alike(
        entries in prop::collection::vec(entry(16), 16),
        tables in prop::collection::vec(entry(8), 16),
        heads in prop::collection::vec(prop_oneof![9 => 0u16..16, 1 => any::<u16>()], 1..16),
        jump in prop_oneof![9 => Just(0u16), 1 => any::<u16>()],
    ) {
        let map = memory(&[(0, MEMORY)]);
        let mirror = mirror(&map);
        let mut driver = Driver::new(&map, BASE, 16, 0, false);
        for (i, e) in (0..).zip(&entries) {
            driver.put(i, e.addr, e.len, e.flags, e.next);
        }
        for (i, e) in (0..).zip(&tables) {
            driver.put_descriptor(TABLES, i, e.addr, e.len, e.flags, e.next);
        }
        let mut ring = driver.ring();
        let mut oracle = queue(&driver.setup);
        heads.iter().for_each(|head| driver.offer(*head));
        driver.set_avail_idx(driver.avail_idx.wrapping_add(jump));
        let mut chain = Chain::default();
        loop {
            let popped = ring.pop(&mut chain);
            if let Err(RingError::AvailIndex { .. }) = popped {
                prop_assert!(oracle.iter(&mirror).is_err());
                break;
            }
            let seen = oracle_pop(&mut oracle, &mirror);
            match popped {
                Ok(Popped::Empty) => {
                    prop_assert_eq!(seen, None);
                    break;
                }
                Ok(Popped::Chain) => prop_assert_eq!(Some((chain.head, chain.descriptors.clone())), seen),
                Ok(Popped::Malformed(_)) => {
                    let (head, descriptors) = seen.unwrap();
                    prop_assert_eq!(head, chain.head);
                    prop_assert!(descriptors.starts_with(&chain.descriptors), "{:?} {:?}", descriptors, chain);
                }
                Err(RingError::Head(head)) => {
                    prop_assert_eq!(seen.map(|s| s.0), Some(head));
                    prop_assert!(head >= 16);
                    break;
                }
                Err(RingError::HeadInFlight(head)) => {
                    prop_assert_eq!(seen.map(|s| s.0), Some(head));
                    break;
                }
                Err(other) => prop_assert!(false, "{}", other),
            }
        }
    }

    /// The used ring and the decision to interrupt are the same, batch by batch, once the first interrupt is sent.
    #[test]
    fn used_entries_and_interrupts_are_alike(
        start: u16,
        batches in prop::collection::vec((prop::collection::vec(any::<u32>(), 1..16), -20i32..20), 1..12),
    ) {
        let (ours, theirs) = (memory(&[(0, 0x10000)]), memory(&[(0, 0x10000)]));
        let mirror = mirror(&theirs);
        let mut driver = Driver::new(&ours, BASE, 16, start, true);
        let other = Driver::new(&theirs, BASE, 16, start, true);
        let mut ring = driver.ring();
        let mut oracle = queue(&driver.setup);
        for head in 0..16 {
            driver.put(head, 0, 1, 0, 0);
        }
        prop_assert!(use_chains(&mut driver, &mut ring, 1));
        oracle.add_used(&mirror, 0, 0).unwrap();
        oracle.needs_notification(&mirror).unwrap();
        for (lengths, event) in batches {
            let event = driver.used_idx().wrapping_add_signed(event as i16);
            driver.set_used_event(event);
            other.set_used_event(event);
            for (head, len) in (0..).zip(lengths) {
                prop_assert_eq!(pop(&mut driver, &mut ring, head).0, Popped::Chain);
                ring.push_used(head, len);
                oracle.add_used(&mirror, head, len).unwrap();
            }
            prop_assert_eq!(ring.publish(), oracle.needs_notification(&mirror).unwrap());
            prop_assert_eq!(ring.next_used(), oracle.next_used());
            prop_assert_eq!(driver.used_idx(), other.used_idx());
            for i in 0..16 {
                prop_assert_eq!(driver.used(i), other.used(i));
            }
            other.put_u16(other.setup.avail + 2, driver.avail_idx);
            oracle.set_next_avail(ring.next_avail());
            prop_assert_eq!(ring.enable_kicks().unwrap(), oracle.enable_notification(&mirror).unwrap());
            prop_assert_eq!(driver.avail_event(), other.avail_event());
        }
    }
}
