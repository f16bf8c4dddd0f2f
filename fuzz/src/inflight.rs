//! `inflight`: a front-end comes with an inflight buffer that a process before this one is said to have left, with rings that fit it or do not.
//! All of it is the front-end's: what was taken, in which order, what was decided about it, and what was answered.
//!
//! The input is a byte of settings; for each of three rings where its used ring stands, its account, what is available, and sixteen
//! requests; then bytes that are written anywhere into the buffer. The rings are started as QEMU starts them, run dry, and are stopped; then
//! the request ring is started once more.
//!
//! Held to, besides what [`crate::session`] is: rings stop; no chain is given back more often than it was taken; where the account and what is available
//! name no head twice, each of them is given back exactly once, what was answered with the length that was noted and an untouched response,
//! what was not with a response; nothing is in flight then, and the ring goes on.

use crate::account::{Account, anything_in_flight};
use crate::front_end::request::SET_VRING_ENABLE;
use crate::front_end::{FrontEnd, INFLIGHT, RING, guest_ring, lun};
use crate::guest::{INDIRECT, NEXT, WRITE, descriptor};
use crate::input::Input;
use crate::service::{Service, watched};
use crate::session;
use std::os::unix::fs::FileExt;
use std::thread;
use std::time::{Duration, Instant};

/// Rings that a driver sets up: control, event, one for requests.
const RINGS: u16 = 3;
const REQUESTS: u32 = 2;
/// How long what is to be answered may take.
const PATIENCE: Duration = Duration::from_secs(5);
/// How long is waited for what need not come.
const MOMENT: Duration = Duration::from_millis(2);
/// What a response is before it is written.
const UNTOUCHED: u8 = 0xee;
/// Places in the buffer that are written over.
const PATCHES: usize = 8;

/// Takes any bytes.
pub fn run(bytes: &[u8]) {
    watched(session::first, || play(Input::new(bytes)));
}

fn play(mut input: Input<'_>) {
    let settings = input.u8();
    let mut service = Service::start(settings & 3);
    let guest = &mut service.front_ends[0];
    let rings: Vec<Ring> = (0..RINGS.into()).map(|index| Ring::new(guest, index, &mut input)).collect();
    // What is written over is not as it was planned.
    let mut planned = true;
    for _ in 0..PATCHES {
        if input.is_empty() {
            break;
        }
        planned = false;
        let (at, len) = (u64::from(input.u16()) % INFLIGHT, usize::from(input.u8() % 16));
        guest.inflight.write_at(input.take(len), at).expect("the buffer");
    }
    guest.handshake(0x10 | settings >> 6 << 1);
    guest.give_inflight(RINGS, RING, INFLIGHT, 0);
    for ring in [1, 2, 0] {
        guest.set_up_from(ring, rings[ring as usize].used, 4);
    }
    if settings & 8 != 0 {
        // A file that is not sealed goes away under it.
        planned = false;
        guest.inflight.set_len(u64::from(settings >> 4) * 512).expect("a file");
    }
    for ring in 0..RINGS.into() {
        guest.state(SET_VRING_ENABLE, ring, 1);
    }
    let mut ends = Vec::new();
    for ring in &rings {
        let expected = (planned && ring.is_clean()).then(|| ring.all());
        ring.wait(guest, expected.as_ref().map(Vec::len));
        ends.push(expected);
    }
    for (ring, expected) in rings.iter().zip(&ends).rev() {
        let Some(next) = guest.stop_ring(ring.index) else {
            assert!(!planned, "ring {}: it does not stop", ring.index);
            service.stop();
            return;
        };
        ring.check(guest, planned, expected.as_deref(), next);
    }
    if ends[REQUESTS as usize].is_some() {
        go_on(guest);
    }
    service.stop();
}

/// The request ring is started again, and serves.
fn go_on(guest: &mut FrontEnd) {
    assert!(!anything_in_flight(&guest.inflight, REQUESTS as u16), "something is in flight after an orderly stop");
    let used = guest.used_idx(REQUESTS);
    guest.set_up_from(REQUESTS, used, 0);
    guest.avail[REQUESTS as usize] = used;
    // TEST UNIT READY, whatever the unit makes of it.
    Request { readable: header([0; 16], lun(0)), writable: 108, out: 0, data_in: 0 }.write(guest, REQUESTS, 0);
    guest.offer(REQUESTS, 0);
    let start = Instant::now();
    while guest.used_idx(REQUESTS) != used.wrapping_add(1) {
        assert!(start.elapsed() < PATIENCE, "a ring that was in order does not go on");
        guest.kick();
        thread::sleep(Duration::from_micros(50));
    }
    assert_eq!(guest.stop_ring(REQUESTS), Some(used.wrapping_add(1)));
}

/// A ring as it is found.
struct Ring {
    index: u32,
    /// Where the used ring stands.
    used: u16,
    /// What the account says is in flight, and what it says of answers.
    owed: Vec<(u16, Option<u32>)>,
    /// The available ring's entries and index.
    entries: [u16; RING as usize],
    avail_idx: u16,
}

impl Ring {
    /// Makes it up, and writes it into the guest's memory and its inflight buffer.
    fn new(guest: &mut FrontEnd, index: u32, input: &mut Input<'_>) -> Ring {
        let used = input.u16();
        let account = Account::read(input, used);
        account.write(&guest.inflight, RINGS, index as u16);
        let owed = account.owed(used);
        let base = guest_ring(index);
        // The heads that are not owed, one after the other, and what the input says of it.
        let free: Vec<u16> = (0..RING).filter(|head| owed.iter().all(|(owed, _)| owed != head)).collect();
        let first = used.wrapping_add(owed.len() as u16);
        let mut entries = [0; RING as usize];
        for (at, head) in (0u16..).zip(&free) {
            entries[usize::from(first.wrapping_add(at) % RING)] = *head;
        }
        let how = input.u8();
        if how & 0xf0 == 0xf0 {
            entries = [(); RING as usize].map(|()| input.u8().into());
        }
        let more = match how & 0xf0 {
            0xe0 => input.u16(),
            _ => u16::from(how & 0xf).min(free.len() as u16),
        };
        let avail_idx = first.wrapping_add(more);
        let mut bytes = [[0; 2], avail_idx.to_le_bytes()].concat();
        bytes.extend(entries.iter().flat_map(|head| head.to_le_bytes()));
        guest.put(base + 0x400, &bytes);
        guest.put(base + 0x800 + 2, &used.to_le_bytes());
        for head in 0..RING {
            Request::read(index, input).write(guest, index, head);
        }
        Ring { index, used, owed, entries, avail_idx }
    }

    /// The heads that are available behind those that are in flight.
    fn available(&self) -> Vec<u16> {
        let first = self.used.wrapping_add(self.owed.len() as u16);
        let count = self.avail_idx.wrapping_sub(first);
        (0..count.min(RING)).map(|at| self.entries[usize::from(first.wrapping_add(at) % RING)]).collect()
    }

    /// All that is to be answered, with the length of what was.
    fn all(&self) -> Vec<(u16, Option<u32>)> {
        self.owed.iter().copied().chain(self.available().into_iter().map(|head| (head, None))).collect()
    }

    /// Whether all that it names can be answered: no head is out of range, or twice. Event buffers are kept until there is an event.
    fn is_clean(&self) -> bool {
        let first = self.used.wrapping_add(self.owed.len() as u16);
        let mut heads: Vec<u16> = self.all().into_iter().map(|(head, _)| head).collect();
        heads.sort_unstable();
        let twice = heads.windows(2).any(|pair| pair[0] == pair[1]);
        self.index != 1 && !twice && heads.iter().all(|head| *head < RING) && self.avail_idx.wrapping_sub(first) <= RING
    }

    /// Waits until so much is answered, or for a moment.
    fn wait(&self, guest: &FrontEnd, expected: Option<usize>) {
        let start = Instant::now();
        let end = expected.map(|count| self.used.wrapping_add(count as u16));
        let patience = if end.is_some() { PATIENCE } else { MOMENT };
        while end != Some(guest.used_idx(self.index)) {
            if start.elapsed() >= patience {
                assert!(end.is_none(), "ring {}: used.idx is {}, not {end:?}", self.index, guest.used_idx(self.index));
                return;
            }
            thread::sleep(Duration::from_micros(50));
        }
    }

    fn check(&self, guest: &FrontEnd, planned: bool, expected: Option<&[(u16, Option<u32>)]>, next: u16) {
        let index = self.index;
        let count = guest.used_idx(index).wrapping_sub(self.used);
        // Used entries are there to be seen as long as they are no more than the ring has.
        if !planned || count > RING {
            return;
        }
        let used: Vec<(u16, u32)> = (0..count)
            .map(|at| {
                let slot = u64::from(self.used.wrapping_add(at) % RING);
                let entry: [u8; 8] = guest.get(guest_ring(index) + 0x800 + 4 + 8 * slot);
                let word = |at: usize| u32::from_le_bytes([entry[at], entry[at + 1], entry[at + 2], entry[at + 3]]);
                (word(0) as u16, word(4))
            })
            .collect();
        let taken = self.all();
        for head in 0..RING {
            let given = used.iter().filter(|(used, _)| *used == head).count();
            let taken = taken.iter().filter(|(taken, _)| *taken == head).count();
            assert!(given <= taken, "ring {index}: head {head} was taken {taken} times and given back {given} times");
        }
        assert!(used.iter().all(|(head, _)| *head < RING), "ring {index}: {used:?}");
        let Some(expected) = expected else { return };
        assert_eq!(usize::from(count), expected.len(), "ring {index}");
        assert_eq!(next, guest.used_idx(index), "ring {index}: all that was taken was given back");
        for (head, answered) in expected {
            let (_, len) = used.iter().find(|(used, _)| used == head).expect("it was given back");
            let [first] = guest.get(response(index, *head));
            match answered {
                Some(written) => {
                    assert_eq!((len, first), (written, UNTOUCHED), "ring {index}, head {head}: answered again")
                }
                None => {
                    assert_ne!(response_code(guest, index, *head), UNTOUCHED, "ring {index}, head {head}: no answer")
                }
            }
        }
    }
}

/// Where a head's buffers are: the request, the response, the data, and the indirect table.
fn room(ring: u32, head: u16) -> u64 {
    guest_ring(ring) + 0x1000 + 0x800 * u64::from(head)
}

fn response(ring: u32, head: u16) -> u64 {
    room(ring, head) + 0x100
}

/// The byte that every answer has.
fn response_code(guest: &FrontEnd, ring: u32, head: u16) -> u8 {
    let bytes: [u8; 12] = guest.get(response(ring, head));
    // A command's is behind sense length, residual, qualifier and status; a function's is its only one; a notification's behind the
    // events.
    if bytes[0] != UNTOUCHED { bytes[0] } else { bytes[11] }
}

/// One request.
struct Request {
    readable: Vec<u8>,
    writable: u32,
    /// Bytes of data to the unit, and from it.
    out: u32,
    data_in: u32,
}

fn header(cdb: [u8; 16], lun: [u8; 8]) -> Vec<u8> {
    let mut header = vec![0; 51];
    header[..8].copy_from_slice(&lun);
    header[19..35].copy_from_slice(&cdb);
    header
}

impl Request {
    fn read(ring: u32, input: &mut Input<'_>) -> Request {
        let how = input.u8();
        let none = Request { readable: Vec::new(), writable: 16, out: 0, data_in: 0 };
        match ring {
            0 if how & 1 == 0 => {
                let mut readable = vec![0; 24];
                readable[4] = how >> 1 & 0xf;
                readable[8..16].copy_from_slice(&lun(how));
                readable[16] = how >> 5;
                Request { readable, writable: 1, ..none }
            }
            0 => {
                let mut readable = vec![0; 16];
                readable[0] = 1 + (how >> 1 & 1);
                readable[4..12].copy_from_slice(&lun(how));
                readable[12] = how >> 2;
                Request { readable, writable: 5, ..none }
            }
            1 => none,
            _ => {
                let mut cdb: [u8; 16] = input.array();
                // Without NACA: what waits for CLEAR ACA waits for ever (SAM-5 5.9).
                cdb[[5, 9, 9, 1, 15, 11, 5, 5][usize::from(cdb[0] >> 5)]] &= !4;
                let mut readable = header(cdb, lun(how & 0xfe));
                // The id that functions name, and the task attribute.
                readable[8] = how >> 5;
                readable[16] = how >> 1 & 3;
                let data = u32::from(input.u8()) * 4;
                let (out, data_in) = if how & 1 == 0 { (data, 0) } else { (0, data) };
                Request { readable, writable: 108, out, data_in }
            }
        }
    }

    /// Writes it, and the chain of `head` that leads to it.
    fn write(&self, guest: &mut FrontEnd, ring: u32, head: u16) {
        let room = room(ring, head);
        guest.put(room, &self.readable);
        guest.put(response(ring, head), &[UNTOUCHED; 108]);
        let all = [
            (room, self.readable.len() as u32, 0),
            (room + 0x400, self.out, 0),
            (response(ring, head), self.writable, WRITE),
            (room + 0x400, self.data_in, WRITE),
        ];
        let table: Vec<_> = all.into_iter().filter(|(_, len, _)| *len > 0).collect();
        let last = table.len() - 1;
        for (i, (addr, len, flags)) in table.iter().enumerate() {
            let next = if i == last { 0 } else { NEXT };
            guest.put(room + 0x300 + 16 * i as u64, &descriptor(*addr, *len, flags | next, i as u16 + 1));
        }
        let own = guest_ring(ring) + 16 * u64::from(head);
        guest.put(own, &descriptor(room + 0x300, 16 * table.len() as u32, INDIRECT, 0));
    }
}
