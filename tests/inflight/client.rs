//! A guest that sends a few commands at once and waits for their answers, whatever becomes of the process that serves it.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, missing_docs, dead_code, reason = "test code")]

use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use super::frontend::guest::{HEADER, REQUESTS, RESPONSE};
use super::frontend::{BOUND, Buffer, Guest, Queue, Ram, Response};
use super::load::is_over;

/// A command with its data: what it sends, or how many bytes it wants.
#[derive(Clone, Debug)]
pub struct Ask {
    pub cdb: Vec<u8>,
    pub out: Vec<u8>,
    pub want: usize,
}

pub fn ask(cdb: &[u8]) -> Ask {
    Ask { cdb: cdb.to_vec(), out: Vec::new(), want: 0 }
}

pub struct Client {
    pub guest: Guest,
    /// It comes back with nothing in flight in its buffer.
    pub forgets: bool,
    path: PathBuf,
}

impl Client {
    pub fn new(path: &Path) -> Client {
        let mut guest = Guest::attached_tracked(path, Ram::new(16 << 20), &[0, 1, 2], 64);
        guest.clear_attentions();
        Client { guest, forgets: false, path: path.to_owned() }
    }

    /// Sends them all, and waits for every answer; each comes with the data that it brought.
    pub fn all(&mut self, asks: &[Ask]) -> Vec<(Response, Vec<u8>)> {
        self.all_and(asks, |_| ()).0
    }

    /// The same, with something done between the two.
    pub fn all_and<R>(
        &mut self,
        asks: &[Ask],
        meanwhile: impl FnOnce(&mut Client) -> R,
    ) -> (Vec<(Response, Vec<u8>)>, R) {
        let mark = self.guest.ram.mark();
        let mut sent = Vec::new();
        for ask in asks {
            let (header, response) = (self.guest.ram.alloc(HEADER.into()), self.guest.ram.alloc(RESPONSE.into()));
            let data = self.guest.ram.alloc(ask.out.len().max(ask.want).max(1) as u64);
            let (mut out, mut input) = (Vec::new(), Vec::new());
            if !ask.out.is_empty() {
                self.guest.ram.write(data, &ask.out);
                out.push(Buffer::out(data, ask.out.len() as u32));
            } else if ask.want > 0 {
                input.push(Buffer::input(data, ask.want as u32));
            }
            let (head, _) = self.guest.submit_at(REQUESTS, header, response, &ask.cdb, &out, &input);
            sent.push((head, response, data, None));
        }
        let done = meanwhile(self);
        let start = Instant::now();
        while sent.iter().any(|(.., len)| len.is_none()) {
            assert!(start.elapsed() < BOUND, "never answered: {asks:?}");
            while let Some((head, len)) = self.guest.queue(REQUESTS).pop_used() {
                let of_it = sent.iter_mut().find(|sent| sent.0 == head).expect("it was asked for");
                assert_eq!(of_it.3.replace(len), None, "answered twice");
            }
            self.stay_connected();
        }
        let answers = sent.iter().zip(asks).map(|((_, response, data, len), ask)| {
            (self.guest.parse_response(*response, len.unwrap()), self.guest.ram.read(*data, ask.want))
        });
        let answers = answers.collect();
        self.guest.ram.release(mark);
        (answers, done)
    }

    pub fn one(&mut self, ask: &Ask) -> (Response, Vec<u8>) {
        self.all(std::slice::from_ref(ask)).remove(0)
    }

    /// A task management function, with this subtype, for a task id; its response.
    pub fn function(&mut self, subtype: u32, id: u64) -> u8 {
        let mark = self.guest.ram.mark();
        let (request, response) = (self.guest.ram.alloc(24), self.guest.ram.alloc(1));
        let mut bytes = [0u32.to_le_bytes(), subtype.to_le_bytes()].concat();
        bytes.extend(super::frontend::guest::lun(0, 0));
        bytes.extend(id.to_le_bytes());
        self.guest.ram.write(request, &bytes);
        self.guest.ram.write(response, &[0xee]);
        let head = self.guest.queue(0).push(&[Buffer::out(request, 24), Buffer::input(response, 1)]);
        self.guest.queue(0).kick();
        let start = Instant::now();
        loop {
            assert!(start.elapsed() < BOUND, "a function is never answered");
            if let Some((answered, len)) = self.guest.queue(0).pop_used() {
                assert_eq!((answered, len), (head, 1));
                break;
            }
            self.stay_connected();
        }
        let result = self.guest.ram.read(response, 1)[0];
        self.guest.ram.release(mark);
        result
    }

    /// Connects again if the process that served it is gone.
    pub fn stay_connected(&mut self) {
        if !is_over(&self.guest) {
            std::thread::sleep(Duration::from_micros(20));
            return;
        }
        if self.forgets {
            self.guest.forget_inflight();
        }
        let start = Instant::now();
        while !self.guest.reconnect(&self.path) {
            assert!(start.elapsed() < BOUND, "the process does not come back");
            std::thread::sleep(Duration::from_millis(1));
        }
        self.guest.queues.iter().for_each(Queue::kick);
    }
}
