//! A raw pattern writer: guests with several commands each under way, all kinds of writes and of what makes them durable, on blocks that
//! they fight for. Each block of each write differs from all others.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, missing_docs, dead_code, reason = "test code")]

use std::collections::HashMap;
use std::time::Instant;

use super::promises::{BLOCK, Blocks, Content, Effect, History};
use super::random::Random;
use crate::frontend::guest::{HEADER, REQUESTS, RESPONSE, pattern};
use crate::frontend::{BOUND, Buffer, Guest};
use crate::write_log::WriteLog;

/// Blocks that are written: few, so that much is written over and over.
pub const BLOCKS: u64 = 1024;

/// Commands of one guest under way.
const DEPTH: usize = 8;
const LONGEST: u64 = 64;

/// What the target can do beyond what all can.
#[derive(Clone, Copy, Debug, Default)]
pub struct Extras {
    /// WRITE ATOMIC.
    pub atomic: bool,
    /// MODE SELECT turns the write cache on and off.
    pub mode_select: bool,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Kind {
    Write10,
    Write16,
    WriteAndVerify,
    WriteSame,
    WriteSameUnmap,
    Unmap,
    CompareAndWrite,
    OrWrite,
    WriteAtomic,
    Synchronize10,
    Synchronize16,
    SynchronizeImmed,
    Standby,
    ReadFua,
    Read,
    Verify,
    PreFetch,
    ModeSelect,
}

const USUAL: &[(u64, Kind)] = &[
    (30, Kind::Write10),
    (14, Kind::Write16),
    (3, Kind::WriteAndVerify),
    (4, Kind::WriteSame),
    (4, Kind::WriteSameUnmap),
    (5, Kind::Unmap),
    (6, Kind::CompareAndWrite),
    (2, Kind::OrWrite),
    (5, Kind::Synchronize10),
    (5, Kind::Synchronize16),
    (1, Kind::SynchronizeImmed),
    (1, Kind::Standby),
    (4, Kind::ReadFua),
    (2, Kind::Read),
    (1, Kind::Verify),
    (1, Kind::PreFetch),
];

/// A command to be sent.
struct Request {
    name: &'static str,
    cdb: Vec<u8>,
    out: Vec<u8>,
    input: usize,
    effect: Effect,
    /// Blocks that it uses, and what they hold afterwards if it changes them.
    blocks: Blocks,
    writes: Vec<(u64, Vec<u8>)>,
    /// Nobody else may use its blocks.
    alone: bool,
}

struct Slot {
    header: u64,
    response: u64,
    data: u64,
}

struct Flight {
    number: usize,
    slot: Slot,
    input: usize,
    name: &'static str,
    blocks: Blocks,
    writes: Vec<(u64, Vec<u8>)>,
    alone: bool,
}

/// What is known of a block.
#[derive(Clone)]
struct Live {
    /// Its content, if that is known.
    bytes: Option<Vec<u8>>,
    /// Commands under way that write it, and whether they were ever several.
    writers: usize,
    several: bool,
    /// Commands under way that use it at all.
    users: usize,
    /// Somebody must be alone with it.
    taken: bool,
}

/// Where one guest's commands are.
struct Port {
    guest: Guest,
    free: Vec<Slot>,
    flights: HashMap<u16, Flight>,
}

pub struct Writer {
    ports: Vec<Port>,
    log: WriteLog,
    pub history: History,
    random: Random,
    live: Vec<Live>,
    kinds: Vec<(u64, Kind)>,
    /// The caching mode page, and whether a MODE SELECT is under way.
    page: Vec<u8>,
    selecting: bool,
    /// Commands that did not end with GOOD.
    pub failed: usize,
}

fn cdb10(opcode: u8, flags: u8, lba: u64, blocks: u64) -> Vec<u8> {
    let (l, n) = ((lba as u32).to_be_bytes(), (blocks as u16).to_be_bytes());
    vec![opcode, flags, l[0], l[1], l[2], l[3], 0, n[0], n[1], 0]
}

fn cdb16(opcode: u8, flags: u8, lba: u64, blocks: u64) -> Vec<u8> {
    let mut cdb = vec![opcode, flags];
    cdb.extend(lba.to_be_bytes());
    cdb.extend((blocks as u32).to_be_bytes());
    cdb.extend([0, 0]);
    cdb
}

const FUA: u8 = 8;

impl Writer {
    /// Guests that see one unit of zeros, WCE one. Their unit attentions must have been taken.
    pub fn new(guests: Vec<Guest>, log: WriteLog, seed: u64, extras: Extras) -> Writer {
        let mut kinds = USUAL.to_vec();
        if extras.atomic {
            kinds.push((5, Kind::WriteAtomic));
        }
        if extras.mode_select {
            kinds.push((1, Kind::ModeSelect));
        }
        let mut ports: Vec<Port> = guests.into_iter().map(Port::new).collect();
        let page = caching_page(&mut ports[0].guest);
        let zeros = Live { bytes: Some(vec![0; BLOCK]), writers: 0, several: false, users: 0, taken: false };
        Writer {
            ports,
            log,
            history: History::default(),
            random: Random::new(seed),
            live: vec![zeros; BLOCKS as usize],
            kinds,
            page,
            selecting: false,
            failed: 0,
        }
    }

    /// Sends so many commands and waits for all of them.
    pub fn run(&mut self, commands: usize) {
        let mut sent = 0;
        while sent < commands {
            let at = self.random.below(self.ports.len() as u64) as usize;
            if !self.ports[at].free.is_empty()
                && let Some(request) = self.request()
            {
                self.send(at, request);
                sent += 1;
            }
            // Now and then they have no more to do than what is under way.
            let quiet = self.random.percent(2);
            self.take_ended(quiet);
        }
        self.take_ended(true);
    }

    /// Sends so many commands and waits for none of those that are under way then.
    pub fn begin(&mut self, commands: usize) {
        for _ in 0..commands {
            let at = self.random.below(self.ports.len() as u64) as usize;
            if !self.ports[at].free.is_empty()
                && let Some(request) = self.request()
            {
                self.send(at, request);
            }
            self.take_ended(false);
        }
    }

    /// Goes on with other guests in place of those that were there: what they had under way will never be answered, and nobody knows
    /// whether it was done.
    pub fn go_on(&mut self, guests: Vec<Guest>) {
        let before = std::mem::replace(&mut self.ports, guests.into_iter().map(Port::new).collect());
        for flight in before.into_iter().flat_map(|port| port.flights.into_values()) {
            for block in flight.blocks {
                let live = &mut self.live[block as usize];
                live.users -= 1;
                live.taken &= !flight.alone;
            }
            for (block, _) in flight.writes {
                let live = &mut self.live[block as usize];
                live.writers -= 1;
                live.bytes = None;
                live.several = false;
            }
        }
        self.selecting = false;
    }

    /// Zeroes the whole unit by SANITIZE (BLOCK ERASE), and waits until it is done.
    pub fn sanitize(&mut self) {
        let zeros = Content::of(&[0; BLOCK]);
        let contents = (0..BLOCKS).map(|block| (block, zeros)).collect();
        let request = Request {
            name: "SANITIZE",
            cdb: vec![0x48, 2, 0, 0, 0, 0, 0, 0, 0, 0],
            out: Vec::new(),
            input: 0,
            effect: Effect::Write { contents, durable: true, atomic: false },
            blocks: 0..BLOCKS,
            writes: (0..BLOCKS).map(|block| (block, vec![0; BLOCK])).collect(),
            alone: true,
        };
        self.send(0, request);
        self.take_ended(true);
    }

    fn send(&mut self, at: usize, request: Request) {
        let number = self.history.len();
        let issued = self.log.mark(2 * number as u64);
        assert_eq!(self.history.issue(request.name, request.effect, issued), number);
        for block in request.blocks.clone() {
            let live = &mut self.live[block as usize];
            live.users += 1;
            live.taken = request.alone;
        }
        for (block, _) in &request.writes {
            let live = &mut self.live[*block as usize];
            live.several |= live.writers > 0;
            live.writers += 1;
        }
        let port = &mut self.ports[at];
        let slot = port.free.pop().unwrap();
        let mut out = Vec::new();
        if !request.out.is_empty() {
            port.guest.ram.write(slot.data, &request.out);
            out.push(Buffer::out(slot.data, request.out.len() as u32));
        }
        let input = match request.input {
            0 => Vec::new(),
            len => vec![Buffer::input(slot.data, len as u32)],
        };
        let (head, _) = port.guest.submit_at(REQUESTS, slot.header, slot.response, &request.cdb, &out, &input);
        let Request { name, input, blocks, writes, alone, .. } = request;
        port.flights.insert(head, Flight { number, slot, input, name, blocks, writes, alone });
    }

    /// Looks at what has ended; with `all`, waits until everything has.
    fn take_ended(&mut self, all: bool) {
        let start = Instant::now();
        loop {
            let mut any = false;
            for at in 0..self.ports.len() {
                while let Some((head, used)) = self.ports[at].guest.queue(REQUESTS).pop_used() {
                    any = true;
                    self.ended(at, head, used);
                }
            }
            let under_way: usize = self.ports.iter().map(|port| port.flights.len()).sum();
            let full = self.ports.iter().all(|port| port.free.is_empty());
            if under_way == 0 || !all && (any || !full) {
                return;
            }
            assert!(start.elapsed() < BOUND, "{under_way} commands are not answered");
            if !any {
                std::thread::sleep(std::time::Duration::from_micros(20));
            }
        }
    }

    fn ended(&mut self, at: usize, head: u16, used: u32) {
        let port = &mut self.ports[at];
        let flight = port.flights.remove(&head).expect("a command that was sent");
        let answer = port.guest.parse_response(flight.slot.response, used);
        let good = answer.good();
        if !good {
            let code = answer.sense_code().expect("sense data");
            // The other guest turned the write cache on or off.
            assert_eq!(code, (6, 0x2a, 0x01), "{} of {:?}: {answer:?}", flight.name, flight.blocks);
            self.failed += 1;
        }
        if good && flight.input > 0 {
            let data = port.guest.ram.read(flight.slot.data, flight.input);
            self.history.read(flight.number, &data);
        }
        port.free.push(flight.slot);
        let ended = self.log.mark(2 * flight.number as u64 + 1);
        self.history.end(flight.number, ended, good);
        self.selecting &= flight.name != "MODE SELECT";
        for block in flight.blocks {
            let live = &mut self.live[block as usize];
            live.users -= 1;
            live.taken &= !flight.alone;
        }
        for (block, bytes) in flight.writes {
            let live = &mut self.live[block as usize];
            live.writers -= 1;
            // Of several at once nobody knows which was last; what failed was not done.
            if live.several {
                live.bytes = None;
            } else if good {
                live.bytes = Some(bytes);
            }
            live.several &= live.writers > 0;
        }
    }

    /// A range that nobody must be alone with.
    fn blocks(&mut self, longest: u64, aligned: u64) -> Option<Blocks> {
        let len = aligned * (1 + self.random.below(longest / aligned));
        let first = aligned * self.random.below((BLOCKS - len) / aligned + 1);
        let free = (first..first + len).all(|block| !self.live[block as usize].taken);
        free.then_some(first..first + len)
    }

    /// One that nobody uses, and what it holds.
    fn lonely_blocks(&mut self, longest: u64) -> Option<(Blocks, Vec<u8>)> {
        let blocks = self.blocks(longest, 1)?;
        let mut bytes = Vec::new();
        for block in blocks.clone() {
            let live = &self.live[block as usize];
            if live.users > 0 {
                return None;
            }
            bytes.extend_from_slice(live.bytes.as_ref()?);
        }
        Some((blocks, bytes))
    }

    /// What the next command would write there.
    fn data(&self, blocks: &Blocks) -> Vec<u8> {
        let seed = (self.history.len() as u64 + 1) << 20;
        blocks.clone().flat_map(|block| pattern(seed | block, BLOCK)).collect()
    }

    fn writing(
        &self,
        name: &'static str,
        cdb: Vec<u8>,
        out: Vec<u8>,
        blocks: Blocks,
        new: &[u8],
        durable: bool,
    ) -> Request {
        let writes: Vec<(u64, Vec<u8>)> =
            blocks.clone().zip(new.chunks(BLOCK)).map(|(block, bytes)| (block, bytes.to_vec())).collect();
        let contents = writes.iter().map(|(block, bytes)| (*block, Content::of(bytes))).collect();
        let effect = Effect::Write { contents, durable, atomic: false };
        Request { name, cdb, out, input: 0, effect, blocks, writes, alone: false }
    }

    fn plain(name: &'static str, cdb: Vec<u8>, effect: Effect, blocks: Blocks) -> Request {
        Request { name, cdb, out: Vec::new(), input: 0, effect, blocks, writes: Vec::new(), alone: false }
    }

    /// A random command; `None` if what was drawn cannot be sent now.
    fn request(&mut self) -> Option<Request> {
        let kind = self.random.weighted(&self.kinds.clone());
        let fua = self.random.percent(25);
        let flag = if fua { FUA } else { 0 };
        // Most are short.
        let longest = if self.random.percent(20) { LONGEST } else { 8 };
        Some(match kind {
            Kind::Write10 | Kind::Write16 | Kind::WriteAndVerify => {
                let blocks = self.blocks(longest, 1)?;
                let data = self.data(&blocks);
                let (first, len) = (blocks.start, blocks.end - blocks.start);
                let (name, cdb, durable) = match kind {
                    Kind::Write10 => ("WRITE(10)", cdb10(0x2a, flag, first, len), fua),
                    Kind::Write16 => ("WRITE(16)", cdb16(0x8a, flag, first, len), fua),
                    _ => ("WRITE AND VERIFY", cdb10(0x2e, 0, first, len), true),
                };
                // It is verified, so others must not write there meanwhile: that would be a miscompare; without BYTCHK it is none.
                self.writing(name, cdb, data.clone(), blocks, &data, durable)
            }
            Kind::WriteSame => {
                let blocks = self.blocks(longest, 1)?;
                let one = self.data(&(blocks.start..blocks.start + 1));
                let all = one.repeat((blocks.end - blocks.start) as usize);
                let cdb = cdb16(0x93, 0, blocks.start, blocks.end - blocks.start);
                self.writing("WRITE SAME", cdb, one, blocks, &all, false)
            }
            Kind::WriteSameUnmap => {
                let blocks = self.blocks(longest, 1)?;
                let zeros = vec![0; BLOCK * (blocks.end - blocks.start) as usize];
                let (flags, out) = if self.random.percent(50) { (8, vec![0; BLOCK]) } else { (9, Vec::new()) };
                let cdb = cdb16(0x93, flags, blocks.start, blocks.end - blocks.start);
                self.writing("WRITE SAME (UNMAP)", cdb, out, blocks, &zeros, false)
            }
            Kind::Unmap => {
                let blocks = self.blocks(longest, 1)?;
                let len = blocks.end - blocks.start;
                let zeros = vec![0; BLOCK * len as usize];
                // In one descriptor or in two.
                let cut = if self.random.percent(50) { 0 } else { len / 2 };
                let parts = [(blocks.start, cut), (blocks.start + cut, len - cut)];
                let mut list = vec![0; 8];
                for (first, len) in parts.into_iter().filter(|(_, len)| *len > 0) {
                    list.extend(first.to_be_bytes());
                    list.extend((len as u32).to_be_bytes());
                    list.extend([0; 4]);
                }
                let total = list.len() as u16;
                list[..2].copy_from_slice(&(total - 2).to_be_bytes());
                list[2..4].copy_from_slice(&(total - 8).to_be_bytes());
                let [high, low] = total.to_be_bytes();
                let cdb = vec![0x42, 0, 0, 0, 0, 0, 0, high, low, 0];
                self.writing("UNMAP", cdb, list, blocks, &zeros, false)
            }
            Kind::CompareAndWrite => {
                let (blocks, mut out) = self.lonely_blocks(8)?;
                let data = self.data(&blocks);
                out.extend_from_slice(&data);
                let mut cdb = cdb16(0x89, flag, blocks.start, 0);
                cdb[13] = (blocks.end - blocks.start) as u8;
                Request { alone: true, ..self.writing("COMPARE AND WRITE", cdb, out, blocks, &data, fua) }
            }
            Kind::OrWrite => {
                let (blocks, before) = self.lonely_blocks(8)?;
                let data = self.data(&blocks);
                let after: Vec<u8> = before.iter().zip(&data).map(|(a, b)| a | b).collect();
                let cdb = cdb16(0x8b, flag, blocks.start, blocks.end - blocks.start);
                Request { alone: true, ..self.writing("ORWRITE", cdb, data, blocks, &after, fua) }
            }
            Kind::WriteAtomic => {
                let len = self.random.one_of(&[8, 16, 32]);
                let first = len * self.random.below(BLOCKS / len);
                let blocks = first..first + len;
                if blocks.clone().any(|block| self.live[block as usize].taken) {
                    return None;
                }
                let data = self.data(&blocks);
                let mut cdb = cdb16(0x9c, flag, first, 0);
                cdb[12..14].copy_from_slice(&(len as u16).to_be_bytes());
                let mut request = self.writing("WRITE ATOMIC", cdb, data.clone(), blocks, &data, fua);
                if let Effect::Write { atomic, .. } = &mut request.effect {
                    *atomic = true;
                }
                request
            }
            Kind::Synchronize10 => {
                Writer::plain("SYNCHRONIZE CACHE", cdb10(0x35, 0, 0, 0), Effect::Sync(0..u64::MAX), 0..0)
            }
            Kind::Synchronize16 => {
                let first = self.random.below(BLOCKS);
                let len = self.random.below(BLOCKS - first);
                let range = if len == 0 { first..u64::MAX } else { first..first + len };
                Writer::plain("SYNCHRONIZE CACHE", cdb16(0x91, 0, first, len), Effect::Sync(range), 0..0)
            }
            Kind::SynchronizeImmed => {
                Writer::plain("SYNCHRONIZE CACHE (IMMED)", cdb10(0x35, 2, 0, 0), Effect::Nothing, 0..0)
            }
            Kind::Standby => {
                let cdb = vec![0x1b, 0, 0, 0, 0x30, 0];
                Writer::plain("START STOP UNIT (STANDBY)", cdb, Effect::Sync(0..u64::MAX), 0..0)
            }
            Kind::ReadFua | Kind::Read => {
                let blocks = self.blocks(longest, 1)?;
                let len = blocks.end - blocks.start;
                let (name, flag, effect) = match kind {
                    Kind::ReadFua => ("READ (FUA)", FUA, Effect::DurableRead(blocks.clone())),
                    _ => ("READ", 0, Effect::Nothing),
                };
                let request = Writer::plain(name, cdb16(0x88, flag, blocks.start, len), effect, blocks);
                Request { input: len as usize * BLOCK, ..request }
            }
            Kind::Verify | Kind::PreFetch => {
                let blocks = self.blocks(longest, 1)?;
                let (name, opcode) = if kind == Kind::Verify { ("VERIFY", 0x2f) } else { ("PRE-FETCH", 0x34) };
                let cdb = cdb10(opcode, 0, blocks.start, blocks.end - blocks.start);
                Writer::plain(name, cdb, Effect::Nothing, blocks)
            }
            Kind::ModeSelect => {
                if self.selecting {
                    return None;
                }
                self.selecting = true;
                let on = self.random.percent(50);
                let mut list = vec![0; 4];
                list.extend_from_slice(&self.page);
                list[4 + 2] = list[4 + 2] & !4 | u8::from(on) << 2;
                let cdb = vec![0x15, 0x10, 0, 0, list.len() as u8, 0];
                Request { out: list, ..Writer::plain("MODE SELECT", cdb, Effect::WriteCache(on), 0..0) }
            }
        })
    }
}

impl Port {
    fn new(guest: Guest) -> Port {
        let slot = |_| Slot {
            header: guest.ram.alloc(HEADER.into()),
            response: guest.ram.alloc(RESPONSE.into()),
            data: guest.ram.alloc(2 * LONGEST * BLOCK as u64),
        };
        Port { free: (0..DEPTH).map(slot).collect(), guest, flights: HashMap::new() }
    }
}

/// The caching mode page as MODE SELECT takes it.
fn caching_page(guest: &mut Guest) -> Vec<u8> {
    let at = guest.ram.alloc(64);
    let answer = guest.command(&[0x1a, 8, 8, 0, 64, 0], &[], &[Buffer::input(at, 64)]);
    assert!(answer.good(), "{answer:?}");
    let data = guest.ram.read(at, 64);
    let mut page = data[4..4 + 20].to_vec();
    assert_eq!((page[0] & 0x3f, page[1], page[2] & 4), (8, 18, 4), "{page:x?}");
    page[0] &= 0x3f;
    page
}
