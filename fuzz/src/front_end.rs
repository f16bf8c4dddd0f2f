//! A front-end with its guest, for targets that talk to a real session: messages that are right but for what the input puts into their
//! fields, messages that are just bytes, and what a guest does in its memory meanwhile.

use crate::account::Account;
use crate::guest::{INDIRECT, NEXT, USER_BASE, WRITE, descriptor, memfd};
use crate::input::Input;
use std::collections::VecDeque;
use std::fs::File;
use std::io::{Read, Write};
use std::os::fd::{AsRawFd, RawFd};
use std::os::unix::fs::FileExt;
use std::os::unix::net::UnixStream;
use std::thread;
use std::time::{Duration, Instant};
use vmm_sys_util::eventfd::{EFD_NONBLOCK, EventFd};
use vmm_sys_util::sock_ctrl_msg::ScmSocket;

/// Bytes of each of the guest's memory files, and how far apart they are in its address space.
const REGION: u64 = 0x4_0000;
const APART: u64 = 0x10_0000;
const FILES: usize = 4;
/// Bytes of the inflight buffer: enough for five rings. And of the dirty log: enough for all memory.
pub(crate) const INFLIGHT: u64 = 0x2000;
const LOG: u64 = 0x1000;
/// Descriptors of a ring that is set up as it should be.
pub(crate) const RING: u16 = 16;
/// How long a ring may take to stop.
const PATIENCE: Duration = Duration::from_secs(5);
/// How long an answer is waited for: most messages have none.
const ANSWER: Duration = Duration::from_millis(20);

/// Message numbers (vhost-user specification).
pub(crate) mod request {
    pub const GET_FEATURES: u32 = 1;
    pub const SET_FEATURES: u32 = 2;
    pub const SET_OWNER: u32 = 3;
    pub const SET_MEM_TABLE: u32 = 5;
    pub const SET_LOG_BASE: u32 = 6;
    pub const SET_VRING_NUM: u32 = 8;
    pub const SET_VRING_ADDR: u32 = 9;
    pub const SET_VRING_BASE: u32 = 10;
    pub const GET_VRING_BASE: u32 = 11;
    pub const SET_VRING_KICK: u32 = 12;
    pub const SET_VRING_CALL: u32 = 13;
    pub const SET_VRING_ERR: u32 = 14;
    pub const GET_PROTOCOL_FEATURES: u32 = 15;
    pub const SET_PROTOCOL_FEATURES: u32 = 16;
    pub const GET_QUEUE_NUM: u32 = 17;
    pub const SET_VRING_ENABLE: u32 = 18;
    pub const GET_INFLIGHT_FD: u32 = 31;
    pub const SET_INFLIGHT_FD: u32 = 32;
    pub const RESET_DEVICE: u32 = 34;
    pub const GET_MAX_MEM_SLOTS: u32 = 36;
    pub const ADD_MEM_REG: u32 = 37;
    pub const REM_MEM_REG: u32 = 38;
}

use request::*;

/// Header flags: version 1, "this is an answer", "an answer is wanted".
const VERSION: u32 = 1;
const REPLY: u32 = 4;
const NEED_REPLY: u32 = 8;

/// One front-end, with its guest.
pub(crate) struct FrontEnd {
    stream: UnixStream,
    files: Vec<File>,
    /// What it keeps as an inflight buffer, and a dirty log.
    pub(crate) inflight: File,
    log: File,
    /// One for each ring: whoever reads one while it is examined for another ring may have it refused.
    kicks: Vec<EventFd>,
    call: EventFd,
    /// Codes of the messages that may be answered, in order.
    sent: VecDeque<u32>,
    heard: Vec<u8>,
    /// The last answer: to which message, and what it said.
    answer: Option<(u32, Vec<u8>)>,
    /// avail.idx of each ring.
    pub(crate) avail: [u16; 8],
    /// Features that were acknowledged in the handshake.
    features: u64,
}

impl FrontEnd {
    pub(crate) fn new(stream: UnixStream) -> FrontEnd {
        stream.set_nonblocking(true).expect("a socket");
        FrontEnd {
            stream,
            files: (0..FILES).map(|_| memfd(REGION)).collect(),
            inflight: memfd(INFLIGHT),
            log: memfd(LOG),
            kicks: (0..8).map(|_| EventFd::new(EFD_NONBLOCK).expect("an eventfd")).collect(),
            call: EventFd::new(EFD_NONBLOCK).expect("an eventfd"),
            sent: VecDeque::new(),
            heard: Vec::new(),
            answer: None,
            avail: [0; 8],
            features: 0,
        }
    }

    pub(crate) fn step(&mut self, what: u8, input: &mut Input<'_>) {
        let ring = |input: &mut Input<'_>| u32::from(input.u8() % 6);
        match what % 32 {
            0 => self.handshake(input.u8()),
            1 => self.set_up(ring(input), input.u8()),
            2 | 3 => self.command(ring(input), input),
            4 => self.anything(input),
            5 => match what >> 5 {
                0 => self.say(SET_OWNER, &[], &[]),
                1 => self.set_log(input),
                2 => self.number(SET_FEATURES, self.features | u64::from(input.u8() & 1) << 26),
                _ => {
                    let (ring, logged) = (ring(input), input.u8());
                    self.address(ring, (logged & 1 != 0).then_some(u64::from(logged) << 10));
                }
            },
            6 => self.ask(input.one_of(&[GET_FEATURES, GET_PROTOCOL_FEATURES, GET_QUEUE_NUM, GET_MAX_MEM_SLOTS])),
            7 => self.number(SET_FEATURES, input.u64()),
            8 => self.number(SET_PROTOCOL_FEATURES, input.u64()),
            9 => self.memory_table(input),
            10 | 11 => {
                let code = if what % 32 == 10 { ADD_MEM_REG } else { REM_MEM_REG };
                let region = self.region(input);
                let fd = self.files[usize::from(what >> 5) % FILES].as_raw_fd();
                let fds = if code == ADD_MEM_REG || input.u8() & 1 != 0 { vec![fd] } else { Vec::new() };
                self.say(code, &[&0u64.to_le_bytes()[..], &region].concat(), &fds);
            }
            12 => self.state(SET_VRING_NUM, input.u8().into(), input.u16().into()),
            13 => self.state(SET_VRING_BASE, input.u8().into(), input.u16().into()),
            14 => self.state(SET_VRING_ENABLE, input.u8().into(), (input.u8() & 3).into()),
            15 => {
                let index = ring(input);
                self.state(GET_VRING_BASE, index, input.u8().into());
                self.wait(ANSWER);
            }
            16 => {
                let mut payload = Vec::new();
                payload.extend(u32::from(input.u8()).to_le_bytes());
                payload.extend(u32::from(input.u8() & 1).to_le_bytes());
                for _ in 0..4 {
                    payload.extend((USER_BASE + (u64::from(input.u16()) << 4)).to_le_bytes());
                }
                self.say(SET_VRING_ADDR, &payload, &[]);
            }
            17..=19 => {
                let code = [SET_VRING_KICK, SET_VRING_CALL, SET_VRING_ERR][usize::from(what % 32 - 17)];
                let index = ring(input);
                let how = input.u8();
                let number = u64::from(index) | if how & 1 != 0 { 0x100 } else { 0 };
                let fd = if how & 2 == 0 { self.kicks[index as usize].as_raw_fd() } else { self.files[0].as_raw_fd() };
                let fds = if how & 4 == 0 && how & 1 == 0 { vec![fd] } else { Vec::new() };
                self.say(code, &number.to_le_bytes(), &fds);
            }
            20 => self.say(RESET_DEVICE, &[], &[]),
            21 if what >> 5 == 1 => {
                let (at, len) = (u64::from(input.u16()), usize::from(input.u8()));
                drop(self.inflight.write_at(input.take(len), at % INFLIGHT));
            }
            21 if what >> 5 == 2 => {
                let how = input.u8();
                let rings = if how & 1 == 0 { 5 } else { input.u16() };
                let size = if how & 2 == 0 { RING } else { input.u16() };
                let len = if how & 4 == 0 { INFLIGHT } else { input.u32().into() };
                let offset = if how & 8 == 0 { 0 } else { u64::from(input.u16()) << 3 };
                self.give_inflight(rings, size, len, offset);
            }
            21 if what >> 5 == 3 => {
                let ring = ring(input) as u16;
                Account::read(input, self.avail[usize::from(ring)]).write(&self.inflight, 5, ring);
            }
            21 => {
                let payload = [u64::from(input.u16()), 0, u64::from(input.u16()) | u64::from(input.u16()) << 16];
                self.say(GET_INFLIGHT_FD, &payload.map(u64::to_le_bytes).concat(), &[]);
            }
            22 | 23 => {
                let (file, at, len) = (input.u8(), u64::from(input.u32()), usize::from(input.u8()));
                self.put(u64::from(file % FILES as u8) * APART + at % REGION, input.take(len));
            }
            24 => self.kick(),
            // A guest's memory goes away under it.
            25 => drop(self.files[usize::from(what >> 5) % FILES].set_len(u64::from(input.u16()) << 4)),
            26 => thread::sleep(Duration::from_micros(u64::from(input.u8()) * 4)),
            27 => {
                let ring = ring(input);
                self.avail[ring as usize] = self.avail[ring as usize].wrapping_add(input.u16());
                self.show(ring);
            }
            28 => {
                let table = guest_ring(ring(input)) + 16 * u64::from(input.u8());
                let (addr, len) = (u64::from(input.u32()), input.u32());
                self.put(table, &descriptor(addr, len, input.u8().into(), input.u8().into()));
            }
            29 => {
                let ring = ring(input);
                self.offer(ring, input.u16());
                drop(self.kicks[ring as usize].write(1));
            }
            30 => match what >> 5 {
                1 => drop(self.log.set_len(u64::from(input.u16()) & 0x1fff)),
                2 => drop(self.inflight.set_len(u64::from(input.u16()) & 0x3fff)),
                _ => self.hear(),
            },
            _ => drop(self.stream.shutdown(if what & 0x20 == 0 {
                std::net::Shutdown::Write
            } else {
                std::net::Shutdown::Read
            })),
        }
    }

    /// Writes into the guest's memory.
    pub(crate) fn put(&mut self, addr: u64, bytes: &[u8]) {
        let (file, at) = ((addr / APART) as usize % FILES, addr % APART);
        let len = bytes.len().min(REGION.saturating_sub(at) as usize);
        // A file that was cut short is not made longer again by that.
        if self.files[file].metadata().is_ok_and(|meta| at + len as u64 <= meta.len()) {
            drop(self.files[file].write_at(&bytes[..len], at));
        }
    }

    /// Sends a message; what cannot be sent at once is not sent.
    fn send(&mut self, code: u32, flags: u32, size: u32, payload: &[u8], fds: &[RawFd]) {
        let mut bytes = Vec::with_capacity(12 + payload.len());
        for field in [code, flags, size] {
            bytes.extend(field.to_le_bytes());
        }
        bytes.extend(payload);
        let sent = match fds {
            [] => self.stream.write(&bytes).is_ok(),
            fds => self.stream.send_with_fds(&[&bytes[..]], fds).is_ok(),
        };
        if sent {
            self.sent.push_back(code);
        }
    }

    pub(crate) fn say(&mut self, code: u32, payload: &[u8], fds: &[RawFd]) {
        self.send(code, VERSION | NEED_REPLY, payload.len() as u32, payload, fds);
        self.hear();
    }

    fn ask(&mut self, code: u32) {
        self.send(code, VERSION, 0, &[], &[]);
        self.wait(ANSWER);
    }

    fn number(&mut self, code: u32, number: u64) {
        self.say(code, &number.to_le_bytes(), &[]);
    }

    pub(crate) fn state(&mut self, code: u32, index: u32, number: u32) {
        self.say(code, &[index.to_le_bytes(), number.to_le_bytes()].concat(), &[]);
    }

    /// What every connection begins with.
    pub(crate) fn handshake(&mut self, how: u8) {
        self.say(SET_OWNER, &[], &[]);
        self.ask(GET_FEATURES);
        // MQ, REPLY_ACK, RESET_DEVICE, CONFIGURE_MEM_SLOTS; LOG_SHMFD and INFLIGHT_SHMFD.
        let protocol = 1 << 30;
        let tracked = if how & 16 == 0 { 0 } else { 1 << 1 | 1 << 12 };
        self.number(SET_PROTOCOL_FEATURES, tracked | if how & 1 == 0 { 1 | 1 << 3 | 1 << 13 | 1 << 15 } else { 1 });
        // VERSION_1, EVENT_IDX, INDIRECT_DESC, HOTPLUG and CHANGE.
        let features = 1 << 32 | if how & 2 == 0 { 1 << 29 } else { 0 } | 1 << 28 | 6;
        self.features = features | if how & 4 == 0 { protocol } else { 0 };
        self.number(SET_FEATURES, self.features);
        let regions: Vec<Vec<u8>> = (0..FILES as u64).map(whole).collect();
        if how & 8 == 0 {
            let head = [(FILES as u32).to_le_bytes(), [0; 4]].concat();
            let fds: Vec<RawFd> = self.files.iter().map(AsRawFd::as_raw_fd).collect();
            self.say(SET_MEM_TABLE, &[head, regions.concat()].concat(), &fds);
        } else {
            for (at, region) in regions.iter().enumerate() {
                let fd = self.files[at].as_raw_fd();
                self.say(ADD_MEM_REG, &[&[0; 8][..], region].concat(), &[fd]);
            }
        }
    }

    /// A ring as a driver sets it up.
    pub(crate) fn set_up(&mut self, ring: u32, how: u8) {
        self.set_up_from(ring, self.avail[ring as usize], how);
    }

    /// The same where it goes on at this index.
    pub(crate) fn set_up_from(&mut self, ring: u32, from: u16, how: u8) {
        self.state(SET_VRING_NUM, ring, RING.into());
        self.state(SET_VRING_BASE, ring, from.into());
        self.address(ring, (how & 8 != 0).then_some(guest_ring(ring) + 0x800));
        let (kick, call) = (self.kicks[ring as usize].as_raw_fd(), self.call.as_raw_fd());
        if how & 1 == 0 {
            self.say(SET_VRING_CALL, &u64::from(ring).to_le_bytes(), &[call]);
        }
        if how & 2 == 0 {
            self.say(SET_VRING_KICK, &u64::from(ring).to_le_bytes(), &[kick]);
        } else {
            self.say(SET_VRING_KICK, &(u64::from(ring) | 0x100).to_le_bytes(), &[]);
        }
        if how & 4 == 0 {
            self.state(SET_VRING_ENABLE, ring, 1);
        }
    }

    /// Where a ring is, and where its used ring is logged, if it is.
    fn address(&mut self, ring: u32, log: Option<u64>) {
        let base = USER_BASE + guest_ring(ring);
        let mut payload = [ring.to_le_bytes(), u32::from(log.is_some()).to_le_bytes()].concat();
        for at in [base, base + 0x800, base + 0x400, log.unwrap_or(0)] {
            payload.extend(at.to_le_bytes());
        }
        self.say(SET_VRING_ADDR, &payload, &[]);
    }

    /// SET_LOG_BASE, mostly of a log that is large enough.
    fn set_log(&mut self, input: &mut Input<'_>) {
        let how = input.u8();
        let len = if how & 1 == 0 { LOG } else { input.u32().into() };
        let offset = if how & 2 == 0 { 0 } else { u64::from(input.u16()) << 3 };
        let file = if how & 4 == 0 { &self.log } else { &self.files[0] }.as_raw_fd();
        self.say(SET_LOG_BASE, &[len.to_le_bytes(), offset.to_le_bytes()].concat(), &[file]);
    }

    /// SET_INFLIGHT_FD.
    pub(crate) fn give_inflight(&mut self, rings: u16, size: u16, len: u64, offset: u64) {
        let payload = [len, offset, u64::from(rings) | u64::from(size) << 16];
        let file = self.inflight.as_raw_fd();
        self.say(SET_INFLIGHT_FD, &payload.map(u64::to_le_bytes).concat(), &[file]);
    }

    /// Kicks all rings.
    pub(crate) fn kick(&self) {
        self.kicks.iter().for_each(|kick| drop(kick.write(1)));
    }

    /// Stops a ring, and says where it would go on; `None` if nobody answers any more.
    pub(crate) fn stop_ring(&mut self, ring: u32) -> Option<u16> {
        self.answer = None;
        self.state(GET_VRING_BASE, ring, 0);
        let start = Instant::now();
        while start.elapsed() < PATIENCE {
            self.hear();
            if let Some((GET_VRING_BASE, answer)) = &self.answer {
                return Some(u16::from_le_bytes([answer[4], answer[5]]));
            }
            thread::sleep(Duration::from_micros(20));
        }
        None
    }

    /// Reads the guest's memory.
    pub(crate) fn get<const N: usize>(&self, addr: u64) -> [u8; N] {
        let mut bytes = [0; N];
        let (file, at) = ((addr / APART) as usize % FILES, addr % APART);
        drop(self.files[file].read_exact_at(&mut bytes, at));
        bytes
    }

    /// used.idx of a ring.
    pub(crate) fn used_idx(&self, ring: u32) -> u16 {
        u16::from_le_bytes(self.get(guest_ring(ring) + 0x800 + 2))
    }

    /// A request in a ring: a command, or what the control and the event queue take. Offered and kicked.
    fn command(&mut self, ring: u32, input: &mut Input<'_>) {
        let how = input.u8();
        let head = (self.avail[ring as usize] % (RING / 4)) * 4;
        let room = guest_ring(ring) + 0x1000 + 0x800 * u64::from(head);
        let (readable, writable) = match ring {
            0 if how & 1 == 0 => {
                let mut request = vec![0; 24];
                request[4] = input.u8() % 10;
                request[8..16].copy_from_slice(&lun(input.u8()));
                request[16] = input.u8();
                (request, 1)
            }
            0 => {
                let mut request = vec![0; 16];
                request[0] = 1 + (how >> 1 & 1);
                request[4..12].copy_from_slice(&lun(input.u8()));
                request[12] = input.u8();
                (request, 5)
            }
            1 => (Vec::new(), 16),
            _ => {
                let mut request = vec![0; 51];
                request[..8].copy_from_slice(&lun(input.u8()));
                request[8] = input.u8();
                request[16] = how >> 4 & 3;
                request[19..35].copy_from_slice(&input.array::<16>());
                (request, 108)
            }
        };
        let data = if ring < 2 { 0 } else { u32::from(input.u16()) };
        self.put(room, &readable);
        let mut table = Vec::new();
        let mut chain = |addr, len, flags| table.push((addr, len, flags));
        if !readable.is_empty() {
            chain(room, readable.len() as u32, 0);
        }
        if data > 0 && how & 8 == 0 {
            chain(room + 0x400, data, 0);
        }
        chain(room + 0x200, writable, WRITE);
        if data > 0 && how & 8 != 0 {
            chain(room + 0x400, data, WRITE);
        }
        // Where the table is: the ring's own, or one beside it.
        let (indirect, own) = (how & 4 != 0, guest_ring(ring) + 16 * u64::from(head));
        let at = if indirect { room + 0x300 } else { own };
        let last = table.len() - 1;
        for (i, (addr, len, flags)) in table.iter().enumerate() {
            let next = if i == last { 0 } else { NEXT };
            let number = i as u16 + 1 + if indirect { 0 } else { head };
            self.put(at + 16 * i as u64, &descriptor(*addr, *len, flags | next, number));
        }
        if indirect {
            self.put(own, &descriptor(at, 16 * table.len() as u32, INDIRECT, 0));
        }
        self.offer(ring, head);
        drop(self.kicks[ring as usize].write(1));
    }

    pub(crate) fn offer(&mut self, ring: u32, head: u16) {
        let slot = u64::from(self.avail[ring as usize] % RING);
        self.put(guest_ring(ring) + 0x400 + 4 + 2 * slot, &head.to_le_bytes());
        self.avail[ring as usize] = self.avail[ring as usize].wrapping_add(1);
        self.show(ring);
    }

    fn show(&mut self, ring: u32) {
        let idx = self.avail[ring as usize].to_le_bytes();
        self.put(guest_ring(ring) + 0x400 + 2, &idx);
    }

    /// A message of any bytes, with any descriptors.
    fn anything(&mut self, input: &mut Input<'_>) {
        let (code, how) = (u32::from(input.u8()), input.u8());
        let flags = if how & 1 == 0 { VERSION | u32::from(how) & NEED_REPLY } else { input.u32() };
        let len = usize::from(input.u8());
        let payload = input.take(len);
        let size = if how & 2 == 0 { payload.len() as u32 } else { input.u32() };
        let mut fds = Vec::new();
        for _ in 0..how >> 4 {
            fds.push(match input.u8() % 4 {
                0 => self.kicks[0].as_raw_fd(),
                1 => self.stream.as_raw_fd(),
                _ => self.files[usize::from(input.u8()) % FILES].as_raw_fd(),
            });
        }
        self.send(code, flags, size, payload, &fds);
        self.hear();
    }

    fn memory_table(&mut self, input: &mut Input<'_>) {
        let count = usize::from(input.u8() % 9);
        let mut payload = [u32::from(input.u8() % 16).min(8).to_le_bytes(), [0; 4]].concat();
        if input.u8() & 1 == 0 {
            payload[0] = count as u8;
        }
        let mut fds = Vec::new();
        for at in 0..count {
            payload.extend(self.region(input));
            fds.push(self.files[at % FILES].as_raw_fd());
        }
        self.say(SET_MEM_TABLE, &payload, &fds);
    }

    /// A region, mostly one of those that a front-end would have.
    fn region(&mut self, input: &mut Input<'_>) -> Vec<u8> {
        let how = input.u8();
        if how & 0xf0 == 0 {
            return whole(u64::from(how) % FILES as u64);
        }
        let mut field = |bit: u8, usual: u64| match how & bit {
            0 => usual,
            _ if how & 8 != 0 => input.u64(),
            _ => u64::from(input.u16()) << 12,
        };
        let at = u64::from(how % FILES as u8);
        let fields =
            [field(0x10, at * APART), field(0x20, REGION), field(0x40, USER_BASE + at * APART), field(0x80, 0)];
        fields.map(u64::to_le_bytes).concat()
    }

    /// Takes what has come from the other side.
    pub(crate) fn hear(&mut self) {
        let mut bytes = [0; 4096];
        while let Ok(n @ 1..) = self.stream.read(&mut bytes) {
            self.heard.extend(&bytes[..n]);
        }
        while let Some(head) = self.heard.first_chunk::<12>() {
            let word = |at: usize| u32::from_le_bytes([head[at], head[at + 1], head[at + 2], head[at + 3]]);
            let (code, flags, size) = (word(0), word(4), word(8) as usize);
            assert_eq!((flags & 3, flags & REPLY), (VERSION, REPLY), "an answer to {code} with flags {flags:#x}");
            assert!(size <= 4096, "an answer to {code} of {size} bytes");
            let Some(payload) = self.heard.get(12..12 + size) else { return };
            self.answer = Some((code, payload.to_vec()));
            while self.sent.pop_front().expect("an answer to something that was sent, in order") != code {}
            self.heard.drain(..12 + size);
        }
    }

    /// Waits until something comes.
    fn wait(&mut self, patience: Duration) {
        let start = Instant::now();
        let before = self.sent.len();
        while start.elapsed() < patience && self.sent.len() == before {
            self.hear();
            thread::yield_now();
        }
    }
}

/// Where a ring's parts are: the table, from 400h the available ring, from 800h the used ring, from 1000h its buffers.
pub(crate) fn guest_ring(ring: u32) -> u64 {
    u64::from(ring) % FILES as u64 * APART + u64::from(ring) / FILES as u64 * 0x1_0000
}

/// The region of a whole file.
fn whole(at: u64) -> Vec<u8> {
    [at * APART, REGION, USER_BASE + at * APART, 0].map(u64::to_le_bytes).concat()
}

/// The unit, mostly.
pub(crate) fn lun(which: u8) -> [u8; 8] {
    match which {
        0..=0xef => [1, 0, 0, which >> 7, 0, 0, 0, 0],
        0xf0..=0xf7 => [0xc1, 1, 0, 0, 0, 0, 0, 0],
        _ => [which; 8],
    }
}
