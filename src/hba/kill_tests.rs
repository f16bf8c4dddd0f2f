//! A ring whose process is killed before any one of its stores, over and over: each chain is given back once, in a whole used ring, and what
//! was answered is not done again.
//!
//! When the process is "killed" it runs on, but nothing that it stores in shared memory happens; then it is dropped, and another one
//! takes over what is there.

use std::collections::{HashMap, HashSet};

use super::queue::Queue;
use super::rings::take_over;
use crate::mem::testing::{by_others, kill_after, memory, revive, was_killed};
use crate::sys::clock::nanoseconds_since_boot;
use crate::vhost_user::{Earlier, InflightRing, RingConfig, for_one_ring};
use crate::virtio_scsi::testing::Driver;
use crate::virtio_scsi::{Popped, SplitRing};

const SIZE: u16 = 8;

/// The driver's side, and what it has seen.
struct World {
    driver: Driver,
    account: Box<dyn Fn() -> InflightRing>,
    /// Heads that are out, each with the number of its request.
    out: HashMap<u16, u32>,
    /// Up to where it has looked at the used ring.
    seen: u16,
    next: u32,
    /// Requests that were answered, and noted as such.
    noted: HashSet<u32>,
    random: u64,
    offers: bool,
}

impl World {
    fn new(start: u16, seed: u64) -> World {
        let driver = Driver::new(&memory(&[(0, 1 << 16)]), 0x1000, SIZE, start, false);
        let account = Box::new(for_one_ring(SIZE));
        World {
            driver,
            account,
            out: HashMap::new(),
            seen: start,
            next: 0,
            noted: HashSet::new(),
            random: seed,
            offers: true,
        }
    }

    fn below(&mut self, end: u64) -> u64 {
        self.random = self.random.wrapping_mul(6364136223846793005).wrapping_add(1442695040888963407);
        (self.random >> 33) % end
    }

    /// The driver makes some chains available.
    fn offer(&mut self) {
        for head in 0..SIZE {
            if self.offers && !self.out.contains_key(&head) && self.below(2) == 0 {
                self.driver.put(head, 0x8000, 4, 0, 0);
                self.driver.offer(head);
                self.out.insert(head, self.next);
                self.next += 1;
            }
        }
    }

    /// The driver takes what is used: each chain once, and none that is not out.
    fn look(&mut self) {
        while self.seen != self.driver.used_idx() {
            let (head, len) = self.driver.used(self.seen);
            let request = self.out.remove(&(head as u16)).expect("a chain that is out");
            assert_eq!(len, request + 1, "the length is that of this request");
            self.seen = self.seen.wrapping_add(1);
        }
    }

    /// A process takes the ring over as the reactor does.
    fn start(&self) -> Queue {
        let setup = self.driver.setup;
        let mut config = RingConfig {
            index: 2,
            size: SIZE,
            desc: setup.desc,
            avail: setup.avail,
            used: setup.used,
            // As QEMU has it after a reconnect.
            next_avail: self.driver.used_idx(),
            next_used: self.driver.used_idx(),
            event_idx: false,
            used_log: None,
            kick: None,
            call: None,
            err: None,
            inflight: Some((self.account)()),
        };
        let (owed, setup, defect) = take_over(&mut config);
        assert_eq!(defect, None);
        let ring = SplitRing::new(&self.driver.map, &setup).unwrap();
        Queue::new(0, ring, config, owed, 0)
    }

    /// Some turns of a process. Requests end in any order; some answers are noted.
    fn run(&mut self, queue: &mut Queue, turns: usize) {
        let mut held = Vec::new();
        for _ in 0..turns {
            while self.below(4) != 0 {
                match queue.pop() {
                    Ok(Popped::Empty) => break,
                    Ok(Popped::Chain) => {}
                    other => panic!("{other:?}"),
                }
                let earlier = queue.take_earlier();
                let tag = queue.take(0, 0).expect("a head that is not in use");
                let request = self.out[&tag.head()];
                match earlier {
                    Earlier::Answered(len) => {
                        assert_eq!(len, request + 1);
                        assert!(queue.finish(tag, len).is_some());
                    }
                    _ => {
                        assert!(!self.noted.contains(&request), "request {request} is done again");
                        held.push((tag, request));
                    }
                }
            }
            while !held.is_empty() && (!self.offers || self.below(3) != 0) {
                let at = self.below(held.len() as u64) as usize;
                let (tag, request) = held.swap_remove(at);
                if self.below(2) == 0 {
                    queue.note_answer(tag.head(), request + 1);
                    if !was_killed() {
                        self.noted.insert(request);
                    }
                }
                assert!(queue.finish(tag, request + 1).is_some());
            }
            queue.publish();
            if !was_killed() {
                by_others(|| {
                    self.look();
                    self.offer();
                });
            }
        }
    }
}

/// Every chain comes again with a time that tells whether it was taken before something else happened, over several processes.
#[test]
fn chains_come_again_with_the_time_at_which_they_were_taken() {
    let mut world = World::new(0, 1);
    let offer = |world: &mut World, head| {
        world.driver.put(head, 0x8000, 4, 0, 0);
        world.driver.offer(head);
        world.out.insert(head, 0);
    };
    let take = |queue: &mut Queue| {
        assert_eq!(queue.pop(), Ok(Popped::Chain));
        queue.take(0, 0).expect("a head that is not in use");
        (queue.chain.head, queue.taken_before())
    };
    offer(&mut world, 3);
    let mut first = world.start();
    assert_eq!(take(&mut first), (3, 0), "nobody took it before");
    let between = nanoseconds_since_boot();
    // As when tasks of others are ended.
    first.advance(nanoseconds_since_boot());
    offer(&mut world, 5);
    assert_eq!(take(&mut first), (5, 0));
    let after = nanoseconds_since_boot();
    drop(first);
    for _ in 0..2 {
        let mut next = world.start();
        let (three, five) = (take(&mut next), take(&mut next));
        assert_eq!((three.0, five.0), (3, 5));
        assert!(
            0 < three.1 && three.1 < between && between <= five.1 && five.1 <= after,
            "{three:?} {between} {five:?}"
        );
        drop(next);
    }
    // What it took itself is later than what it took over.
    let mut third = world.start();
    let started = nanoseconds_since_boot();
    take(&mut third);
    take(&mut third);
    offer(&mut world, 6);
    assert_eq!(take(&mut third), (6, 0));
    drop(third);
    let mut fourth = world.start();
    let times = [take(&mut fourth), take(&mut fourth), take(&mut fourth)].map(|(_, taken)| taken);
    assert!(times[1] <= after && after <= times[2] && times[2] <= started, "{times:?} {after} {started}");
}

#[test]
fn killed_between_any_two_stores() {
    let mut killed = 0;
    for seed in 0..12u64 {
        for stores in 0..150 {
            // Indexes that wrap around, too.
            let mut world = World::new(0u16.wrapping_sub((seed * 3) as u16), seed * 1000 + stores);
            world.offer();
            // Three processes are killed; each goes on with what the one before left.
            for life in 0..3 {
                let mut queue = None;
                kill_after((stores + life * 7 * seed) % 150);
                queue.replace(world.start());
                world.run(queue.as_mut().unwrap(), 6);
                drop(queue);
                revive();
                world.look();
            }
            // The last one lives, and the driver asks for nothing more.
            world.offers = false;
            let mut queue = world.start();
            world.run(&mut queue, 100);
            assert!(world.out.is_empty(), "seed {seed}, {stores} stores: never given back: {:?}", world.out);
            assert!(queue.is_idle());
            killed += usize::from(world.noted.len() > 3);
        }
    }
    assert!(killed > 100, "the processes did something before they were killed");
}
