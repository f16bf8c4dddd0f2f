//! `session`: what a front-end may send over its socket, to a real session on a real target, with rings started and kicked.
//!
//! The input is a byte of settings and then steps: messages that are right but for what the input puts into their fields, messages that
//! are just bytes with any descriptors, and what a guest does in its memory meanwhile. Nobody waits: reactors and session run
//! as they do in the daemon.
//!
//! Held to: no panic in any thread; whatever was sent, the connection ends when the front-end goes, within seconds; every answer is one to a
//! message that was sent, in its order, and well-formed; no descriptor and no thread is left behind.

use crate::cdb::SparseImage;
use crate::guest::{INDIRECT, NEXT, USER_BASE, WRITE, descriptor, memfd};
use crate::input::Input;
use std::collections::VecDeque;
use std::fs::File;
use std::io::{Read, Write};
use std::os::fd::{AsRawFd, OwnedFd, RawFd};
use std::os::unix::fs::FileExt;
use std::os::unix::net::UnixStream;
use std::sync::{Arc, Once};
use std::thread;
use std::time::{Duration, Instant};
use vmm_sys_util::eventfd::{EFD_NONBLOCK, EventFd};
use vmm_sys_util::sock_ctrl_msg::ScmSocket;
use vstgt::hba::{Hba, HbaSetup, NexusPorts, TargetPortSetup, WaitKind};
use vstgt::lu::{Lu, LuSetup, TargetPort};
use vstgt::srp::PortId;
use vstgt::target::{HostSetup, Target, TargetSetup, UnitMapping};
use vstgt::vhost_user::{Endpoint, Inherited, Options, Peers, Server};

/// Steps of an input.
const STEPS: usize = 64;
/// Bytes of each of the guest's memory files, and how far apart they are in its address space.
const REGION: u64 = 0x4_0000;
const APART: u64 = 0x10_0000;
const FILES: usize = 4;
/// Descriptors of a ring that is set up as it should be.
const RING: u16 = 16;
/// How long a connection may take to end, and the process to take everything down.
const PATIENCE: Duration = Duration::from_secs(5);
/// How long an answer is waited for: most messages have none.
const ANSWER: Duration = Duration::from_millis(20);

/// Takes any bytes.
pub fn run(bytes: &[u8]) {
    static ONCE: Once = Once::new();
    ONCE.call_once(prepare);
    let before = (entries("/proc/self/fd"), entries("/proc/self/task"));
    play(Input::new(bytes));
    // A thread that was joined may still be listed for a moment.
    let start = Instant::now();
    loop {
        let after = (entries("/proc/self/fd"), entries("/proc/self/task"));
        if after.0 <= before.0 && after.1 <= before.1 {
            return;
        }
        assert!(start.elapsed() < PATIENCE, "descriptors and threads: {before:?} before, {after:?} after");
        thread::sleep(Duration::from_millis(1));
    }
}

/// A panic of any thread is a finding, also where panics unwind; and memory that its file no longer has is to be survived.
fn prepare() {
    let hook = std::panic::take_hook();
    std::panic::set_hook(Box::new(move |info| {
        hook(info);
        if thread::current().name().is_some_and(|name| name.starts_with("vstgt-") || name.starts_with("s:")) {
            std::process::abort();
        }
    }));
    vstgt::mem::install_sigbus_handler().expect("a handler");
    // What is opened once for the whole process is opened now: a handshake, two rings, an INQUIRY.
    play(Input::new(&[
        0, 0, 0, 1, 0, 0, 1, 2, 0, 2, 2, 8, 0, 7, 0x12, 0, 0, 0, 96, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 96, 0, 26, 255,
    ]));
}

fn entries(folder: &str) -> usize {
    std::fs::read_dir(folder).map_or(0, Iterator::count)
}

fn play(mut input: Input<'_>) {
    let settings = input.u8();
    let reactors = 1 + (settings & 1);
    let wait = if settings & 2 == 0 { WaitKind::Epoll } else { WaitKind::IoUring };
    let port = TargetPort { relative: 1, id: PortId::of_target("t").0, group: 1 };
    let image = Arc::new(SparseImage::new(1 << 20, true));
    let setup = LuSetup { ports: vec![port], ..LuSetup::new(image, 0x3123_4567_89ab_cdef, "SERIAL".into()) };
    let lu = Lu::new(setup).expect("a unit");
    let target = Target::new(TargetSetup {
        shards: reactors,
        hosts: vec![HostSetup { host_no: 0, port, name: "t".into() }],
        units: vec![UnitMapping { target: 0, lun: 0, lu, initiators: None }],
        names: vec![(PortId::of_initiator("a").0, "a".into()), (PortId::of_initiator("b").0, "b".into())],
        patience: None,
    });
    let hba = Hba::start(HbaSetup {
        reactors,
        wait,
        target: target.expect("a target"),
        target_ports: vec![TargetPortSetup { name: "t".into(), host_no: 0 }],
        request_queues: 3,
        nexus_loss_timeout: Duration::ZERO,
        poll: std::time::Duration::ZERO,
        trace_events: settings & 8 != 0,
    });
    let hba = hba.expect("reactors");
    // Two connections: of two initiators, or of one, which may log in once.
    let nexus = |initiator: &str| NexusPorts { initiator: initiator.into(), host_no: 0 };
    let ports = hba.add_ports(&[nexus("a"), nexus("b")]);
    let second = usize::from(settings & 4 == 0);
    let (mut front_ends, mut endpoints) = (Vec::new(), Vec::new());
    for port in [&ports[0], &ports[second]] {
        let (ours, theirs) = UnixStream::pair().expect("a pair of sockets");
        let source = Inherited::from_fd(OwnedFd::from(theirs)).expect("a socket");
        endpoints.push(Endpoint {
            source,
            silent: Vec::new(),
            name: port.label().to_string(),
            make_device: hba.connect(Arc::clone(port)),
            peers: Peers::Anybody,
        });
        front_ends.push(FrontEnd::new(ours));
    }
    let server = Server::start(endpoints, Options::default()).expect("a server");
    for _ in 0..STEPS {
        if input.is_empty() {
            break;
        }
        let what = input.u8();
        let which = usize::from(what >> 7);
        front_ends[which].step(what & 0x7f, &mut input);
    }
    for front_end in &mut front_ends {
        front_end.hear();
    }
    drop(front_ends);
    if let Err(error) = server.stop(PATIENCE) {
        panic!("{error}");
    }
    hba.stop();
}

/// Message numbers (vhost-user specification).
mod request {
    pub const GET_FEATURES: u32 = 1;
    pub const SET_FEATURES: u32 = 2;
    pub const SET_OWNER: u32 = 3;
    pub const SET_MEM_TABLE: u32 = 5;
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
struct FrontEnd {
    stream: UnixStream,
    files: Vec<File>,
    kick: EventFd,
    call: EventFd,
    /// Codes of the messages that may be answered, in order.
    sent: VecDeque<u32>,
    heard: Vec<u8>,
    /// avail.idx of each ring.
    avail: [u16; 8],
}

impl FrontEnd {
    fn new(stream: UnixStream) -> FrontEnd {
        stream.set_nonblocking(true).expect("a socket");
        FrontEnd {
            stream,
            files: (0..FILES).map(|_| memfd(REGION)).collect(),
            kick: EventFd::new(EFD_NONBLOCK).expect("an eventfd"),
            call: EventFd::new(EFD_NONBLOCK).expect("an eventfd"),
            sent: VecDeque::new(),
            heard: Vec::new(),
            avail: [0; 8],
        }
    }

    fn step(&mut self, what: u8, input: &mut Input<'_>) {
        let ring = |input: &mut Input<'_>| u32::from(input.u8() % 6);
        match what % 32 {
            0 => self.handshake(input.u8()),
            1 => self.set_up(ring(input), input.u8()),
            2 | 3 => self.command(ring(input), input),
            4 => self.anything(input),
            5 => self.say(SET_OWNER, &[], &[]),
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
                let fd = if how & 2 == 0 { self.kick.as_raw_fd() } else { self.files[0].as_raw_fd() };
                let fds = if how & 4 == 0 && how & 1 == 0 { vec![fd] } else { Vec::new() };
                self.say(code, &number.to_le_bytes(), &fds);
            }
            20 => self.say(RESET_DEVICE, &[], &[]),
            21 => {
                let payload = [u64::from(input.u16()), 0, u64::from(input.u16()) | u64::from(input.u16()) << 16];
                self.say(GET_INFLIGHT_FD, &payload.map(u64::to_le_bytes).concat(), &[]);
            }
            22 | 23 => {
                let (file, at, len) = (input.u8(), u64::from(input.u32()), usize::from(input.u8()));
                self.put(u64::from(file % FILES as u8) * APART + at % REGION, input.take(len));
            }
            24 => drop(self.kick.write(1)),
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
                drop(self.kick.write(1));
            }
            30 => self.hear(),
            _ => drop(self.stream.shutdown(if what & 0x20 == 0 {
                std::net::Shutdown::Write
            } else {
                std::net::Shutdown::Read
            })),
        }
    }

    /// Writes into the guest's memory.
    fn put(&mut self, addr: u64, bytes: &[u8]) {
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

    fn say(&mut self, code: u32, payload: &[u8], fds: &[RawFd]) {
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

    fn state(&mut self, code: u32, index: u32, number: u32) {
        self.say(code, &[index.to_le_bytes(), number.to_le_bytes()].concat(), &[]);
    }

    /// What every connection begins with.
    fn handshake(&mut self, how: u8) {
        self.say(SET_OWNER, &[], &[]);
        self.ask(GET_FEATURES);
        // MQ, REPLY_ACK, RESET_DEVICE, CONFIGURE_MEM_SLOTS.
        let protocol = 1 << 30;
        self.number(SET_PROTOCOL_FEATURES, if how & 1 == 0 { 1 | 1 << 3 | 1 << 13 | 1 << 15 } else { 1 });
        // VERSION_1, EVENT_IDX, INDIRECT_DESC, HOTPLUG and CHANGE.
        let features = 1 << 32 | if how & 2 == 0 { 1 << 29 } else { 0 } | 1 << 28 | 6;
        self.number(SET_FEATURES, features | if how & 4 == 0 { protocol } else { 0 });
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
    fn set_up(&mut self, ring: u32, how: u8) {
        self.state(SET_VRING_NUM, ring, RING.into());
        self.state(SET_VRING_BASE, ring, self.avail[ring as usize].into());
        let base = USER_BASE + guest_ring(ring);
        let mut payload = [ring.to_le_bytes(), [0; 4]].concat();
        for at in [0, 0x800, 0x400, 0] {
            payload.extend((base + at).to_le_bytes());
        }
        self.say(SET_VRING_ADDR, &payload, &[]);
        let (kick, call) = (self.kick.as_raw_fd(), self.call.as_raw_fd());
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
        drop(self.kick.write(1));
    }

    fn offer(&mut self, ring: u32, head: u16) {
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
                0 => self.kick.as_raw_fd(),
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
    fn hear(&mut self) {
        let mut bytes = [0; 4096];
        while let Ok(n @ 1..) = self.stream.read(&mut bytes) {
            self.heard.extend(&bytes[..n]);
        }
        while let Some(head) = self.heard.first_chunk::<12>() {
            let word = |at: usize| u32::from_le_bytes([head[at], head[at + 1], head[at + 2], head[at + 3]]);
            let (code, flags, size) = (word(0), word(4), word(8) as usize);
            assert_eq!((flags & 3, flags & REPLY), (VERSION, REPLY), "an answer to {code} with flags {flags:#x}");
            assert!(size <= 4096, "an answer to {code} of {size} bytes");
            let Some(_payload) = self.heard.get(12..12 + size) else { return };
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
fn guest_ring(ring: u32) -> u64 {
    u64::from(ring) % FILES as u64 * APART + u64::from(ring) / FILES as u64 * 0x1_0000
}

/// The region of a whole file.
fn whole(at: u64) -> Vec<u8> {
    [at * APART, REGION, USER_BASE + at * APART, 0].map(u64::to_le_bytes).concat()
}

/// The unit, mostly.
fn lun(which: u8) -> [u8; 8] {
    match which {
        0..=0xef => [1, 0, 0, which >> 7, 0, 0, 0, 0],
        0xf0..=0xf7 => [0xc1, 1, 0, 0, 0, 0, 0, 0],
        _ => [which; 8],
    }
}
