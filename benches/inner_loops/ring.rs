//! The split ring: taking chains of three descriptors, and giving them back.

use divan::counter::ItemsCount;
use divan::{Bencher, black_box};
use virtio_queue::{Queue, QueueOwnedT, QueueT};
use vm_memory::{FileOffset, GuestAddress, GuestMemoryMmap};
use vstgt::virtio_scsi::{Chain, Descriptor, Popped};

use crate::BATCH;
use crate::guest::{DATA, Guest, RESPONSE, Table};

const TABLES: [Table; 2] = [Table::Direct, Table::Indirect];

#[divan::bench(args = TABLES)]
fn pop(bencher: Bencher, table: Table) {
    let guest = Guest::new(table, 1);
    let mut chain = Chain::default();
    bencher.counter(ItemsCount::new(BATCH)).with_inputs(|| guest.ring()).bench_local_refs(|ring| {
        for _ in 0..BATCH {
            assert_eq!(ring.pop(&mut chain), Ok(Popped::Chain));
            black_box(&chain);
        }
    });
    assert_eq!(chain.descriptors.len(), 3);
}

/// The same with virtio-queue, descriptors copied out as ours are.
#[divan::bench(args = TABLES)]
fn pop_virtio_queue(bencher: Bencher, table: Table) {
    let guest = Guest::new(table, 1);
    let memory = memory_of(&guest);
    let mut descriptors = Vec::new();
    bencher.counter(ItemsCount::new(BATCH)).with_inputs(|| queue_of(&guest, &memory)).bench_local_refs(|queue| {
        let mut count = 0;
        for chain in queue.iter(&memory).unwrap() {
            count += 1;
            black_box(chain.head_index());
            descriptors.clear();
            descriptors.extend(chain.map(|d| Descriptor {
                addr: d.addr().0,
                len: d.len(),
                writable: d.is_write_only(),
            }));
            black_box(&descriptors);
        }
        assert_eq!(count, BATCH);
    });
    assert_eq!(descriptors.len(), 3);
}

/// A batch onto the used ring, which is published once.
#[divan::bench]
fn push_used_and_publish(bencher: Bencher) {
    let guest = Guest::new(Table::Indirect, 1);
    let popped = || {
        let (mut ring, mut chain) = (guest.ring(), Chain::default());
        while ring.pop(&mut chain) == Ok(Popped::Chain) {}
        ring
    };
    bencher.counter(ItemsCount::new(BATCH)).with_inputs(popped).bench_local_refs(|ring| {
        for head in 0..BATCH as u16 {
            ring.push_used(black_box(head), RESPONSE + DATA);
        }
        assert!(ring.publish(), "the first interrupt is always wanted");
    });
}

fn memory_of(guest: &Guest) -> GuestMemoryMmap {
    let region = &guest.map.regions()[0];
    let file = FileOffset::new(region.file_offset().unwrap().file().try_clone().unwrap(), 0);
    let range = (GuestAddress(0), region.size() as usize, Some(file));
    GuestMemoryMmap::from_ranges_with_files([range]).unwrap()
}

fn queue_of(guest: &Guest, memory: &GuestMemoryMmap) -> Queue {
    let setup = &guest.setup;
    let mut queue = Queue::new(setup.size).unwrap();
    queue.set_size(setup.size);
    queue.try_set_desc_table_address(GuestAddress(setup.desc)).unwrap();
    queue.try_set_avail_ring_address(GuestAddress(setup.avail)).unwrap();
    queue.try_set_used_ring_address(GuestAddress(setup.used)).unwrap();
    queue.set_event_idx(setup.event_idx);
    queue.set_ready(true);
    assert!(queue.is_valid(memory));
    queue
}
