//! A driver that keeps two rings full and polls, or has one command at a time.
//!
//! Two, so that there is always one whose answers the reactor has yet to give while the driver fills the other again.

use std::path::Path;
use std::time::{Duration, Instant};

use vhost::vhost_user::message::VhostUserInflight;
use vhost::vhost_user::{VhostUserFrontend, VhostUserProtocolFeatures};

use crate::frontend::guest::{HEADER, LINUX_FEATURES, REQUESTS, RESPONSE, rw10};
use crate::frontend::queue::{F_INDIRECT, F_NEXT, F_WRITE};
use crate::frontend::{Guest, Queue, Ram};

/// Request rings, and how many commands each has.
const RINGS: u16 = 2;
const DEPTH: u16 = 128;

/// Bytes that a command reads or writes.
const DATA: u32 = 4096;

/// Where the CDB is in a command's header, and where the LBA is in the CDB.
const LBA: u64 = 19 + 2;
/// Status and response of a command's response.
const STATUS: u64 = 10;

/// Nothing was answered for so long: it will never be.
const STUCK: Duration = Duration::from_secs(20);

#[derive(Clone, Copy, PartialEq, Eq)]
pub enum What {
    Read,
    Write,
    TestUnitReady,
}

/// What the driver sends.
#[derive(Clone, Copy)]
pub struct Load {
    pub what: What,
    /// Chains are in tables of their own.
    pub indirect: bool,
    /// With a buffer for what is in flight (INFLIGHT_SHMFD).
    pub tracked: bool,
    /// One command at a time, on one ring; the reactor looks for work all the while.
    pub alone: bool,
}

impl Load {
    /// As Linux and QEMU do it, but for the tracking.
    pub const USUAL: Load = Load { what: What::Read, indirect: true, tracked: false, alone: false };

    /// Request rings, and how many commands each of them has.
    fn size(&self) -> (u16, u16) {
        if self.alone { (1, 1) } else { (RINGS, DEPTH) }
    }
}

/// What a stretch of load brought.
pub struct Ran {
    pub commands: u64,
    pub time: Duration,
}

/// One command's place in guest memory; it is used again as soon as it is answered.
struct Slot {
    header: u64,
    response: u64,
}

struct Lane {
    ring: u16,
    /// By head.
    slots: Vec<Option<Slot>>,
    used_idx: u16,
    avail_idx: u16,
    /// avail.idx as the device sees it.
    published: u16,
}

pub struct Driver {
    guest: Guest,
    lanes: Vec<Lane>,
    what: What,
    lba: u32,
}

impl Driver {
    /// Connects, starts the rings, takes the unit attentions, and fills the rings.
    pub fn attach(socket: &Path, load: &Load) -> Driver {
        let mut guest = Guest::connect(socket, Ram::new(16 << 20));
        let request_rings = REQUESTS..REQUESTS + load.size().0;
        let rings: Vec<u16> = [0, 1].into_iter().chain(request_rings.clone()).collect();
        // Three descriptors to a command, unless they are elsewhere.
        let size = if load.indirect { DEPTH } else { (3 * DEPTH).next_power_of_two() };
        if load.tracked {
            guest.negotiate_with(VhostUserProtocolFeatures::INFLIGHT_SHMFD);
            guest.set_features(LINUX_FEATURES);
            let wanted = VhostUserInflight::new(0, 0, rings.len() as u16, size);
            guest.inflight = Some(guest.frontend.get_inflight_fd(&wanted).unwrap());
            guest.send_inflight();
        } else {
            guest.negotiate();
            guest.set_features(LINUX_FEATURES);
        }
        guest.add_region(0);
        guest.start_rings(&rings, size);
        guest.clear_attentions();
        let mut driver = Driver { guest, lanes: Vec::new(), what: load.what, lba: 0 };
        for ring in request_rings {
            let lane = driver.lane(ring, load);
            driver.lanes.push(lane);
        }
        for lane in &mut driver.lanes {
            for head in 0..size {
                if lane.slots[usize::from(head)].is_some() {
                    lane.post(&driver.guest, driver.what, &mut driver.lba, head);
                }
            }
            lane.publish(&driver.guest);
        }
        driver
    }

    /// Writes what stays the same of a ring's commands.
    fn lane(&mut self, ring: u16, load: &Load) -> Lane {
        let ram = self.guest.ram.clone();
        let queue = self.guest.queue(ring);
        let mut slots: Vec<Option<Slot>> = (0..queue.size).map(|_| None).collect();
        for number in 0..load.size().1 {
            let slot = Slot { header: ram.alloc(HEADER.into()), response: ram.alloc(RESPONSE.into()) };
            let data = ram.alloc(DATA.into());
            let cdb = match load.what {
                What::Read => rw10(0x28, 0, DATA as usize),
                What::Write => rw10(0x2a, 0, DATA as usize),
                What::TestUnitReady => [0; 10],
            };
            ram.write(slot.header, &Guest::header([1, 0, 0x40, 0, 0, 0, 0, 0], &cdb));
            let (header, response) = ((slot.header, HEADER, 0), (slot.response, RESPONSE, F_WRITE));
            let buffers = match load.what {
                What::Read => vec![header, response, (data, DATA, F_WRITE)],
                What::Write => vec![header, (data, DATA, 0), response],
                What::TestUnitReady => vec![header, response],
            };
            let (table, first) =
                if load.indirect { (ram.alloc(16 * buffers.len() as u64), 0) } else { (queue.desc, 3 * number) };
            for (index, &(addr, len, flags)) in (first..).zip(&buffers) {
                let last = usize::from(index - first) + 1 == buffers.len();
                let flags = flags | if last { 0 } else { F_NEXT };
                ram.write(table + 16 * u64::from(index), &descriptor(addr, len, flags, index + 1));
            }
            let head = if load.indirect {
                queue.write_desc(number, table, 16 * buffers.len() as u32, F_INDIRECT, 0);
                number
            } else {
                first
            };
            slots[usize::from(head)] = Some(slot);
        }
        Lane { ring, slots, used_idx: queue.used_idx, avail_idx: queue.avail_idx, published: queue.avail_idx }
    }

    /// Keeps the rings full for so long; leaves them full.
    pub fn run(&mut self, time: Duration) -> Ran {
        let start = Instant::now();
        let (mut commands, mut last) = (0, start);
        loop {
            let mut answered = 0;
            for lane in &mut self.lanes {
                answered += lane.turn(&self.guest, self.what, &mut self.lba);
            }
            let now = Instant::now();
            if answered > 0 {
                (commands, last) = (commands + answered, now);
            } else {
                assert!(now - last < STUCK, "nothing is answered any more");
                std::hint::spin_loop();
            }
            if now - start >= time && commands > 0 {
                return Ran { commands, time: now - start };
            }
        }
    }
}

impl Lane {
    fn queue<'a>(&self, guest: &'a Guest) -> &'a Queue {
        guest.queues.iter().find(|queue| queue.index == self.ring).expect("a ring of ours")
    }

    /// Takes what was answered, and sends as many commands again; how many.
    fn turn(&mut self, guest: &Guest, what: What, lba: &mut u32) -> u64 {
        let Queue { used, size, .. } = *self.queue(guest);
        let published = guest.ram.load_u16(used + 2);
        let answered = published.wrapping_sub(self.used_idx);
        for _ in 0..answered {
            let head = guest.ram.load_u32(used + 4 + 8 * u64::from(self.used_idx % size)) as u16;
            self.used_idx = self.used_idx.wrapping_add(1);
            let slot = self.slots[usize::from(head)].as_ref().expect("a head of ours");
            assert_eq!(guest.ram.load_u16(slot.response + STATUS), 0, "head {head} is answered with GOOD");
            self.post(guest, what, lba, head);
        }
        if answered > 0 {
            self.publish(guest);
        }
        answered.into()
    }

    /// Writes what differs from command to command, and puts it into the available ring.
    fn post(&mut self, guest: &Guest, what: What, lba: &mut u32, head: u16) {
        let slot = self.slots[usize::from(head)].as_ref().expect("a head of ours");
        if what != What::TestUnitReady {
            *lba = (*lba + 8) % (1 << 30);
            guest.ram.write(slot.header + LBA, &lba.to_be_bytes());
        }
        // Plain writes: that of the index, which is the last, orders them.
        guest.ram.write(slot.response + STATUS, &[0xff; 2]);
        let queue = self.queue(guest);
        guest.ram.write(queue.avail + 4 + 2 * u64::from(self.avail_idx % queue.size), &head.to_le_bytes());
        self.avail_idx = self.avail_idx.wrapping_add(1);
    }

    /// Shows the device what was put there, kicks it if it wants that, and wants no interrupt (virtio 1.2 2.7.7, 2.7.10).
    fn publish(&mut self, guest: &Guest) {
        let (ram, queue) = (&guest.ram, self.queue(guest));
        let size = u64::from(queue.size);
        ram.store_u16(queue.avail + 4 + 2 * size, self.used_idx.wrapping_sub(1));
        ram.store_u16(queue.avail + 2, self.avail_idx);
        let event = ram.load_u16(queue.used + 4 + 8 * size);
        let old = std::mem::replace(&mut self.published, self.avail_idx);
        if self.avail_idx.wrapping_sub(event).wrapping_sub(1) < self.avail_idx.wrapping_sub(old) {
            queue.kick();
        }
    }
}

/// The bytes of a descriptor.
fn descriptor(addr: u64, len: u32, flags: u16, next: u16) -> Vec<u8> {
    [&addr.to_le_bytes()[..], &len.to_le_bytes(), &flags.to_le_bytes(), &next.to_le_bytes()].concat()
}
