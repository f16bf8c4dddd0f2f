//! A guest's driver with many requests under way, which end in any order; and task management.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    missing_docs,
    dead_code,
    reason = "test code; not every test program uses everything"
)]

use std::collections::HashMap;
use std::io::ErrorKind;
use std::time::{Duration, Instant};

use crate::frontend::guest::{A_MOMENT, HEADER, RESPONSE, lun, rw10};
use crate::frontend::{BOUND, Buffer, Guest, Response, Wire};
use vstgt::sys::unix_socket;

/// Response codes (virtio 1.2 5.6.6.1).
pub const OK: u8 = 0;
pub const ABORTED: u8 = 2;
pub const BAD_TARGET: u8 = 3;
pub const RESET: u8 = 4;
pub const FAILURE: u8 = 9;
pub const FUNCTION_SUCCEEDED: u8 = 10;
pub const FUNCTION_REJECTED: u8 = 11;
pub const INCORRECT_LUN: u8 = 12;

/// Task management subtypes (virtio 1.2 5.6.6.2).
pub const ABORT_TASK: u32 = 0;
pub const ABORT_TASK_SET: u32 = 1;
pub const CLEAR_TASK_SET: u32 = 3;
pub const I_T_NEXUS_RESET: u32 = 4;
pub const LOGICAL_UNIT_RESET: u32 = 5;
pub const QUERY_TASK: u32 = 6;
pub const QUERY_TASK_SET: u32 = 7;

pub const CONTROL: u16 = 0;

/// A request under way.
#[derive(Clone, Copy, Debug)]
pub struct Sent {
    pub ring: u16,
    pub head: u16,
    /// Where its response will be.
    pub response: u64,
    /// Where its data is.
    pub data: u64,
    pub len: u32,
}

/// What a command is, apart from its data.
#[derive(Clone, Copy, Debug)]
pub struct To {
    pub ring: u16,
    pub lun: [u8; 8],
    pub id: u64,
    /// Regions of guest memory where its data and its response are.
    pub data_in: usize,
    pub response_in: usize,
}

impl To {
    pub fn ring(ring: u16) -> To {
        To { ring, lun: lun(0, 0), id: 1, data_in: 0, response_in: 0 }
    }

    pub fn id(self, id: u64) -> To {
        To { id, ..self }
    }

    pub fn lun(self, lun: [u8; 8]) -> To {
        To { lun, ..self }
    }

    pub fn data_in(self, region: usize) -> To {
        To { data_in: region, ..self }
    }

    pub fn response_in(self, region: usize) -> To {
        To { response_in: region, ..self }
    }
}

pub struct Driver {
    pub guest: Guest,
    done: HashMap<(u16, u16), u32>,
}

impl Driver {
    pub fn new(guest: Guest) -> Driver {
        Driver { guest, done: HashMap::new() }
    }

    fn put(&mut self, to: To, cdb: &[u8], out: &[Buffer], input: &[Buffer]) -> Sent {
        let ram = self.guest.ram.clone();
        let (header, response) = (ram.alloc(HEADER.into()), ram.alloc_in(to.response_in, RESPONSE.into()));
        let mut bytes = Guest::header(to.lun, cdb);
        bytes[8..16].copy_from_slice(&to.id.to_le_bytes());
        ram.write(header, &bytes);
        ram.write(response, &[0xff; RESPONSE as usize]);
        let mut chain = vec![Buffer::out(header, HEADER)];
        chain.extend(out);
        chain.push(Buffer::input(response, RESPONSE));
        chain.extend(input);
        let head = self.guest.queue(to.ring).push(&chain);
        let data = out.first().or(input.first());
        Sent { ring: to.ring, head, response, data: data.map_or(0, |b| b.addr), len: data.map_or(0, |b| b.len) }
    }

    pub fn command(&mut self, to: To, cdb: &[u8]) -> Sent {
        let sent = self.put(to, cdb, &[], &[]);
        self.guest.queue(to.ring).kick();
        sent
    }

    /// A command with data to write.
    pub fn out(&mut self, to: To, cdb: &[u8], out: &[Buffer]) -> Sent {
        let sent = self.put(to, cdb, out, &[]);
        self.guest.queue(to.ring).kick();
        sent
    }

    /// Puts a command on its ring without a kick.
    pub fn quietly(&mut self, to: To, cdb: &[u8]) -> Sent {
        self.put(to, cdb, &[], &[])
    }

    pub fn command_in(&mut self, to: To, cdb: &[u8], len: u32) -> Sent {
        let at = self.guest.ram.alloc_in(to.data_in, len.into());
        self.guest.ram.write(at, &vec![0xee; len as usize]);
        let sent = self.put(to, cdb, &[], &[Buffer::input(at, len)]);
        self.guest.queue(to.ring).kick();
        sent
    }

    pub fn read(&mut self, to: To, lba: u32, len: u32) -> Sent {
        self.command_in(to, &rw10(0x28, lba, len as usize), len)
    }

    pub fn write(&mut self, to: To, lba: u32, data: &[u8]) -> Sent {
        let at = self.guest.ram.alloc_in(to.data_in, data.len() as u64);
        self.guest.ram.write(at, data);
        let len = data.len() as u32;
        let sent = self.put(to, &rw10(0x2a, lba, data.len()), &[Buffer::out(at, len)], &[]);
        self.guest.queue(to.ring).kick();
        sent
    }

    /// SYNCHRONIZE CACHE(10) of everything.
    pub fn flush(&mut self, to: To) -> Sent {
        self.command(to, &[0x35, 0, 0, 0, 0, 0, 0, 0, 0, 0])
    }

    /// A task management function.
    pub fn function(&mut self, subtype: u32, lun: [u8; 8], id: u64) -> Sent {
        let ram = self.guest.ram.clone();
        let (request, response) = (ram.alloc(24), ram.alloc(1));
        let mut bytes = [0; 24];
        bytes[4..8].copy_from_slice(&subtype.to_le_bytes());
        bytes[8..16].copy_from_slice(&lun);
        bytes[16..].copy_from_slice(&id.to_le_bytes());
        ram.write(request, &bytes);
        ram.write(response, &[0xff]);
        let queue = self.guest.queue(CONTROL);
        let head = queue.push(&[Buffer::out(request, 24), Buffer::input(response, 1)]);
        queue.kick();
        Sent { ring: CONTROL, head, response, data: 0, len: 0 }
    }

    /// Looks at all used rings.
    pub fn poll(&mut self) {
        for queue in &mut self.guest.queues {
            while let Some((head, len)) = queue.pop_used() {
                assert!(self.done.insert((queue.index, head), len).is_none(), "head {head} is used twice");
            }
        }
    }

    /// Whether a request has been answered, as far as the last [`poll`](Self::poll) saw.
    pub fn is_done(&self, sent: &Sent) -> bool {
        self.done.contains_key(&(sent.ring, sent.head))
    }

    fn wait_used(&mut self, sent: &Sent) -> u32 {
        let start = Instant::now();
        loop {
            self.poll();
            if let Some(len) = self.done.remove(&(sent.ring, sent.head)) {
                return len;
            }
            assert!(start.elapsed() < BOUND, "not answered in time: {sent:?}");
            std::thread::sleep(Duration::from_micros(50));
        }
    }

    pub fn wait(&mut self, sent: &Sent) -> Response {
        let len = self.wait_used(sent);
        self.guest.parse_response(sent.response, len)
    }

    /// Waits for a command that must succeed; its data.
    pub fn wait_good(&mut self, sent: &Sent) -> Vec<u8> {
        let answer = self.wait(sent);
        assert!(answer.good() && answer.residual == 0, "{answer:?}");
        self.guest.ram.read(sent.data, sent.len as usize)
    }

    /// Waits for a function's response.
    pub fn wait_function(&mut self, sent: &Sent) -> u8 {
        assert_eq!(self.wait_used(sent), 1);
        self.guest.ram.read(sent.response, 1)[0]
    }

    /// None of these is answered, nor will be soon.
    pub fn assert_held(&mut self, sent: &[Sent]) {
        let start = Instant::now();
        while start.elapsed() < A_MOMENT {
            self.poll();
            for sent in sent {
                assert!(!self.is_done(sent), "answered too early: {sent:?}");
            }
            std::thread::sleep(Duration::from_millis(1));
        }
    }
}

/// Whether something comes on the connection within this time.
pub fn comes_within(wire: &Wire, time: Duration) -> bool {
    wire.0.set_read_timeout(Some(time)).unwrap();
    let seen = unix_socket::peek(&wire.0, &mut [0]);
    wire.0.set_read_timeout(Some(BOUND)).unwrap();
    match seen {
        Ok(n) => n > 0,
        Err(e) if e.kind() == ErrorKind::WouldBlock => false,
        Err(e) => panic!("{e}"),
    }
}
