use std::sync::Arc;

use super::*;
use crate::mem::testing::memory;
use crate::virtio_scsi::testing::{Driver, INDIRECT, NEXT, WRITE};

mod oracle;

const SIZE: u16 = 8;
/// Where indirect tables are.
const TABLE: u64 = 0x8000;

fn driver() -> Driver {
    Driver::new(&memory(&[(0, 0x10000)]), 0x1000, SIZE, 0, false)
}

fn readable(addr: u64, len: u32) -> Descriptor {
    Descriptor { addr, len, writable: false }
}

fn writable(addr: u64, len: u32) -> Descriptor {
    Descriptor { addr, len, writable: true }
}

/// Offers the chain at `head` and pops it.
fn pop(driver: &mut Driver, ring: &mut SplitRing, head: u16) -> (Popped, Vec<Descriptor>) {
    let mut chain = Chain::default();
    driver.offer(head);
    let popped = ring.pop(&mut chain).unwrap();
    assert_eq!(chain.head, head);
    (popped, chain.descriptors)
}

#[test]
fn a_chain_is_its_descriptors_in_order() {
    let mut driver = driver();
    let mut ring = driver.ring();
    let mut chain = Chain::default();
    assert_eq!(ring.pop(&mut chain), Ok(Popped::Empty));

    driver.put(5, 0xaaaa_0000, 51, NEXT, 2);
    driver.put(2, 0xbbbb_0000, 0, NEXT, 7);
    driver.put(7, 0xcccc_0000, 108, WRITE, 3);
    let expected = vec![readable(0xaaaa_0000, 51), readable(0xbbbb_0000, 0), writable(0xcccc_0000, 108)];
    assert_eq!(pop(&mut driver, &mut ring, 5), (Popped::Chain, expected));
    assert_eq!(ring.pop(&mut chain), Ok(Popped::Empty));
    assert_eq!((ring.next_avail(), ring.in_flight(), ring.size()), (1, 1, SIZE));
}

#[test]
fn a_ring_of_one_descriptor_works() {
    let mut driver = Driver::new(&memory(&[(0, 0x10000)]), 0x1000, 1, 0, false);
    let mut ring = driver.ring();
    driver.put(0, 16, 16, WRITE, 0);
    for i in 0..5 {
        assert_eq!(pop(&mut driver, &mut ring, 0), (Popped::Chain, vec![writable(16, 16)]));
        ring.push_used(0, i);
        ring.publish();
        assert_eq!(driver.used(0), (0, i));
    }
}

#[test]
fn indirect_descriptors_stand_where_they_are_referred_to() {
    let mut driver = driver();
    let mut ring = driver.ring();
    // A direct one before the table; the referring descriptor's WRITE flag means nothing.
    driver.put(0, 0x100, 51, NEXT, 1);
    driver.put(1, TABLE + 3, 3 * 16, INDIRECT | WRITE, 0);
    driver.put_descriptor(TABLE + 3, 0, 0x200, 512, NEXT, 2);
    driver.put_descriptor(TABLE + 3, 2, 0x300, 108, WRITE, 1);
    let expected = vec![readable(0x100, 51), readable(0x200, 512), writable(0x300, 108)];
    assert_eq!(pop(&mut driver, &mut ring, 0), (Popped::Chain, expected));
}

#[test]
fn an_indirect_table_may_be_longer_than_the_ring_and_cross_regions() {
    let mut driver = Driver::new(&memory(&[(0, 0x3000), (0x3000, 0x10000)]), 0x1000, SIZE, 0, false);
    let mut ring = driver.ring();
    let table = 0x3000 - 5 * 16 - 8;
    let expected: Vec<_> = (0..1024).map(|i| readable(u64::from(i) << 12, i)).collect();
    for (i, d) in (0..).zip(&expected) {
        driver.put_descriptor(table, i, d.addr, d.len, if i == 1023 { 0 } else { NEXT }, i + 1);
    }
    driver.put(3, table, 1024 * 16, INDIRECT, 0);
    assert_eq!(pop(&mut driver, &mut ring, 3), (Popped::Chain, expected));
}

#[test]
fn what_is_no_chain_costs_that_chain() {
    type Setup = fn(&Driver);
    let outside = OutsideMemory { addr: 0x10_0000, len: 16 };
    let cases: &[(&str, ChainDefect, Setup)] = &[
        ("loop", ChainDefect::TooManyDescriptors, |d| {
            d.put(0, 0, 1, NEXT, 1);
            d.put(1, 0, 1, NEXT, 0);
        }),
        ("loop to itself", ChainDefect::TooManyDescriptors, |d| d.put(0, 0, 0, NEXT, 0)),
        ("next", ChainDefect::NextOutOfRange(SIZE), |d| d.put(0, 0, 1, NEXT, SIZE)),
        ("next", ChainDefect::NextOutOfRange(u16::MAX), |d| d.put(0, 0, 1, NEXT, u16::MAX)),
        ("bytes", ChainDefect::TooManyBytes, |d| {
            d.put(0, 0, u32::MAX, NEXT, 1);
            d.put(1, 0, 2, 0, 0);
        }),
        ("order", ChainDefect::ReadableAfterWritable, |d| {
            d.put(0, 0, 1, NEXT | WRITE, 1);
            d.put(1, 0, 1, 0, 0);
        }),
        ("indirect and next", ChainDefect::IndirectWithNext, |d| d.put(0, TABLE, 16, INDIRECT | NEXT, 1)),
        ("nested", ChainDefect::NestedIndirect, |d| {
            d.put(0, TABLE, 16, INDIRECT, 0);
            d.put_descriptor(TABLE, 0, TABLE, 16, INDIRECT, 0);
        }),
        ("empty table", ChainDefect::IndirectLength(0), |d| d.put(0, TABLE, 0, INDIRECT, 0)),
        ("odd table", ChainDefect::IndirectLength(24), |d| d.put(0, TABLE, 24, INDIRECT, 0)),
        ("endless table", ChainDefect::IndirectLength(1 << 20), |d| d.put(0, TABLE, 1 << 20, INDIRECT, 0)),
        ("table outside", ChainDefect::IndirectOutside(outside), |d| d.put(0, 0x10_0000, 32, INDIRECT, 0)),
        ("table partly outside", ChainDefect::IndirectOutside(OutsideMemory { addr: 0x10000, len: 16 }), |d| {
            d.put(0, 0x10000 - 16, 32, INDIRECT, 0);
            d.put_descriptor(0x10000 - 16, 0, 0, 1, NEXT, 1);
        }),
        ("table at the end of the world", ChainDefect::IndirectOutside(OutsideMemory { addr: !15, len: 16 }), |d| {
            d.put(0, !15, 32, INDIRECT, 0)
        }),
        ("next in table", ChainDefect::NextOutOfRange(2), |d| {
            d.put(0, TABLE, 32, INDIRECT, 0);
            d.put_descriptor(TABLE, 0, 0, 1, NEXT, 2);
        }),
        ("loop in table", ChainDefect::TooManyDescriptors, |d| {
            d.put(0, TABLE, 32, INDIRECT, 0);
            d.put_descriptor(TABLE, 0, 0, 1, NEXT, 1);
            d.put_descriptor(TABLE, 1, 0, 1, NEXT, 0);
        }),
        ("order across table", ChainDefect::ReadableAfterWritable, |d| {
            d.put(0, 0, 1, NEXT | WRITE, 1);
            d.put(1, TABLE, 16, INDIRECT, 0);
            d.put_descriptor(TABLE, 0, 0, 1, 0, 0);
        }),
    ];
    let mut driver = driver();
    let mut ring = driver.ring();
    let mut idx = 0;
    for (name, defect, setup) in cases {
        setup(&driver);
        assert_eq!(pop(&mut driver, &mut ring, 0).0, Popped::Malformed(*defect), "{name}");
        // The ring goes on: the chain is given back and the next one is served.
        ring.push_used(0, 0);
        ring.publish();
        assert_eq!(driver.used(idx), (0, 0));
        driver.put(0, 0x40, 4, 0, 0);
        assert_eq!(pop(&mut driver, &mut ring, 0), (Popped::Chain, vec![readable(0x40, 4)]), "after {name}");
        ring.push_used(0, 0);
        idx += 2;
    }
}

#[test]
fn two_to_the_32_bytes_are_a_chain() {
    let mut driver = driver();
    let mut ring = driver.ring();
    driver.put(0, 0, u32::MAX, NEXT, 1);
    driver.put(1, 0, 1, 0, 0);
    assert_eq!(pop(&mut driver, &mut ring, 0).0, Popped::Chain);
}

/// What breaks the ring keeps it broken, whatever the driver does then; chains in flight are still answered.
fn assert_broken(driver: &mut Driver, ring: &mut SplitRing, error: RingError) {
    let mut chain = Chain::default();
    assert_eq!(ring.pop(&mut chain), Err(error));
    assert!(ring.is_broken());
    driver.set_avail_idx(ring.next_avail());
    assert_eq!(ring.pop(&mut chain), Err(RingError::Broken));
    assert_eq!(ring.has_avail(), Err(RingError::Broken));
    assert_eq!(ring.enable_kicks(), Err(RingError::Broken));
}

#[test]
fn an_index_that_jumps_breaks_the_ring() {
    let mut driver = driver();
    let mut ring = driver.ring();
    driver.put(1, 0, 1, 0, 0);
    assert_eq!(pop(&mut driver, &mut ring, 1).0, Popped::Chain);
    driver.set_avail_idx(1 + SIZE + 1);
    let error = RingError::AvailIndex { idx: 2 + SIZE, next: 1, size: SIZE };
    assert_eq!(ring.has_avail(), Err(error));
    assert_broken(&mut driver, &mut ring, error);
    ring.push_used(1, 7);
    ring.publish();
    assert_eq!((driver.used_idx(), driver.used(0)), (1, (1, 7)));
}

#[test]
fn an_index_that_goes_back_breaks_the_ring() {
    let mut driver = driver();
    let mut ring = driver.ring();
    driver.set_avail_idx(u16::MAX);
    let error = RingError::AvailIndex { idx: u16::MAX, next: 0, size: SIZE };
    assert_broken(&mut driver, &mut ring, error);
}

#[test]
fn a_head_that_does_not_exist_breaks_the_ring() {
    let mut driver = driver();
    let mut ring = driver.ring();
    driver.offer(SIZE);
    assert_broken(&mut driver, &mut ring, RingError::Head(SIZE));
}

#[test]
fn a_head_in_flight_breaks_the_ring() {
    let mut driver = driver();
    let mut ring = driver.ring();
    driver.put(6, 0, 1, 0, 0);
    assert_eq!(pop(&mut driver, &mut ring, 6).0, Popped::Chain);
    driver.offer(6);
    assert_broken(&mut driver, &mut ring, RingError::HeadInFlight(6));
}

#[test]
fn a_full_ring_is_taken_whole_and_used_in_any_order() {
    let mut driver = Driver::new(&memory(&[(0, 0x10000)]), 0x1000, 128, 65_500, false);
    let mut ring = driver.ring();
    let mut chain = Chain::default();
    // Across the index's wrap.
    for round in 0..3u32 {
        for head in 0..128 {
            driver.put(head, u64::from(head), 1, 0, 0);
            driver.offer(head);
        }
        assert_eq!(ring.has_avail(), Ok(true));
        for head in 0..128 {
            assert_eq!(ring.pop(&mut chain), Ok(Popped::Chain));
            assert_eq!((chain.head, chain.descriptors[0].addr), (head, u64::from(head)));
        }
        assert_eq!(ring.pop(&mut chain), Ok(Popped::Empty));
        let before = driver.used_idx();
        for head in (0..128).rev() {
            ring.push_used(head, round);
        }
        assert_eq!(driver.used_idx(), before, "not before it is published");
        assert!(ring.publish());
        assert_eq!(driver.used_idx(), before.wrapping_add(128));
        for i in 0..128u16 {
            assert_eq!(driver.used(before.wrapping_add(i)), (127 - u32::from(i), round));
        }
        assert!(!ring.publish(), "nothing new");
    }
    assert_eq!(ring.next_avail(), 65_500u16.wrapping_add(3 * 128));
    assert_eq!(ring.next_used(), ring.next_avail());
}

/// Offers, pops, pushes and publishes `count` one-descriptor chains at once; whether an interrupt is wanted.
fn use_chains(driver: &mut Driver, ring: &mut SplitRing, count: u16) -> bool {
    for head in 0..count {
        driver.put(head, 0, 1, 0, 0);
        assert_eq!(pop(driver, ring, head).0, Popped::Chain);
    }
    (0..count).for_each(|head| ring.push_used(head, 0));
    ring.publish()
}

#[test]
fn without_event_idx_a_flag_says_whether_to_interrupt() {
    let mut driver = driver();
    let mut ring = driver.ring();
    assert!(use_chains(&mut driver, &mut ring, 1));
    driver.set_avail_flags(1);
    assert!(!use_chains(&mut driver, &mut ring, 1));
    driver.set_avail_flags(0);
    assert!(use_chains(&mut driver, &mut ring, 1));
}

#[test]
fn with_event_idx_the_driver_names_the_entry_to_interrupt_for() {
    let start = 65_533;
    let mut driver = Driver::new(&memory(&[(0, 0x10000)]), 0x1000, SIZE, start, true);
    let mut ring = driver.ring();
    // The flag means nothing with EVENT_IDX. The first is always sent, wherever used_event is.
    driver.set_avail_flags(1);
    driver.set_used_event(start.wrapping_add(1000));
    assert!(use_chains(&mut driver, &mut ring, 1));
    // 65534, 65535, 0 become used; asked for is 0: the third.
    driver.set_used_event(0);
    assert!(!use_chains(&mut driver, &mut ring, 1));
    assert!(!use_chains(&mut driver, &mut ring, 1));
    assert!(use_chains(&mut driver, &mut ring, 1));
    assert!(!use_chains(&mut driver, &mut ring, 1), "not twice");
    // In a batch across the entry, at its first and at its last place.
    driver.set_used_event(2);
    assert!(use_chains(&mut driver, &mut ring, 3));
    driver.set_used_event(driver.used_idx());
    assert!(use_chains(&mut driver, &mut ring, 4));
    driver.set_used_event(driver.used_idx().wrapping_add(3));
    assert!(use_chains(&mut driver, &mut ring, 4));
    driver.set_used_event(driver.used_idx().wrapping_add(4));
    assert!(!use_chains(&mut driver, &mut ring, 4));
    driver.set_used_event(driver.used_idx().wrapping_sub(1));
    assert!(!use_chains(&mut driver, &mut ring, 4), "that one is past");
}

#[test]
fn kicks_are_asked_for_by_flag_or_by_index() {
    let mut driver = driver();
    let mut ring = driver.ring();
    ring.disable_kicks();
    assert_eq!(driver.used_flags(), 1);
    assert_eq!(ring.enable_kicks(), Ok(false));
    assert_eq!(driver.used_flags(), 0);
    driver.put(0, 0, 1, 0, 0);
    driver.offer(0);
    assert_eq!(ring.enable_kicks(), Ok(true), "it came before the kick was asked for");

    let start = 65_535;
    let mut driver = Driver::new(&memory(&[(0, 0x10000)]), 0x1000, SIZE, start, true);
    let mut ring = driver.ring();
    ring.disable_kicks();
    assert_eq!(driver.used_flags(), 0);
    assert_eq!((ring.enable_kicks(), driver.avail_event()), (Ok(false), start));
    driver.put(0, 0, 1, 0, 0);
    assert_eq!(pop(&mut driver, &mut ring, 0).0, Popped::Chain);
    assert_eq!(driver.avail_event(), start, "one kick, and then silence");
    assert_eq!((ring.enable_kicks(), driver.avail_event()), (Ok(false), 0));
}

#[test]
fn a_ring_that_is_no_ring_is_refused() {
    let map = memory(&[(0, 0x1000), (0x1000, 0x10000)]);
    let good = Driver::new(&map, 0x1000, SIZE, 0, true).setup;
    let refused = |setup: RingSetup| SplitRing::new(&map, &setup).unwrap_err();
    assert!(SplitRing::new(&map, &good).is_ok());
    for size in [0, 3, 1000, u16::MAX] {
        assert_eq!(refused(RingSetup { size, ..good }), RingError::Size(size));
    }
    for desc in [0x1008, 0x0ff0, 0x11000, 0x10ff0, !15] {
        assert_eq!(refused(RingSetup { desc, ..good }), RingError::Address("descriptor table", desc));
    }
    for avail in [0x1001, 0x0ffe, 0x11000, u64::MAX - 1] {
        assert_eq!(refused(RingSetup { avail, ..good }), RingError::Address("available ring", avail));
    }
    for used in [0x1002, 0x0ffc, 0x11000, u64::MAX - 3] {
        assert_eq!(refused(RingSetup { used, ..good }), RingError::Address("used ring", used));
    }
    // Up to the last byte: 4 + 8 entries of 8 bytes, and 2 more with EVENT_IDX.
    let used = 0x11000 - 68;
    assert!(SplitRing::new(&map, &RingSetup { used, event_idx: false, ..good }).is_ok());
    assert_eq!(refused(RingSetup { used, ..good }), RingError::Address("used ring", used));
}

#[test]
fn a_ring_moves_with_the_memory_map() {
    let mut driver = driver();
    let mut ring = driver.ring();
    driver.put(0, 0x40, 1, 0, 0);
    assert_eq!(pop(&mut driver, &mut ring, 0).0, Popped::Chain);

    // Other memory with the same addresses; what is there is what counts from now on.
    let mut moved = Driver { map: memory(&[(0, 0x10000)]), ..driver };
    ring.remap(&moved.map).unwrap();
    moved.put(1, 0x50, 2, 0, 0);
    assert_eq!(pop(&mut moved, &mut ring, 1), (Popped::Chain, vec![readable(0x50, 2)]));
    ring.push_used(0, 1);
    ring.push_used(1, 2);
    ring.publish();
    assert_eq!((moved.used_idx(), moved.used(0), moved.used(1)), (2, (0, 1), (1, 2)));

    let gone = Arc::new(MemoryMap::default());
    assert_eq!(ring.remap(&gone), Err(RingError::Address("descriptor table", 0x1000)));
    assert_eq!(ring.pop(&mut Chain::default()), Err(RingError::Broken));
    assert!(!ring.publish());
    ring.disable_kicks();
}

#[test]
fn nothing_is_allocated_once_the_vector_has_grown() {
    let mut driver = driver();
    let mut ring = driver.ring();
    let mut chain = Chain { head: 0, descriptors: Vec::with_capacity(2) };
    let at = chain.descriptors.as_ptr();
    driver.put(0, 0, 1, NEXT, 1);
    driver.put(1, 0, 1, WRITE, 0);
    for _ in 0..100 {
        driver.offer(0);
        assert_eq!(ring.pop(&mut chain), Ok(Popped::Chain));
        ring.push_used(0, 0);
        ring.publish();
    }
    assert_eq!(chain.descriptors.as_ptr(), at);
}
