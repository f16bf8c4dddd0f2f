//! `cdb`: commands, task management, logins, completions and failures, in any order, through a whole target.
//!
//! The target has two shards, three units and four initiators; it is driven through its event rings, as an hba drives it. The input is a
//! byte of settings and then steps: a byte that chooses, and the fields of what it chose (see [`Play::step`]).
//!
//! Held to: no panic; each command, function, question and login answered exactly once, on its own nexus; sense data as SPC-4 lays it out,
//! with CHECK CONDITION and with nothing else; nothing written behind what an answer says it moved; no byte of an image changed outside of the
//! command's blocks; reads and writes that move what the image holds; no access that a persistent reservation forbids. The last two need
//! commands that end one by one (bit 0 of the settings).

mod extent;
mod image;
mod reserved;
mod rig;
mod sense;

use crate::input::Input;
use extent::Blocks;
pub use image::SparseImage;
use reserved::Reserved;
use rig::{Answered, Doing, HOST, Rig, SHARDS, Sending};
use std::cell::RefCell;
use std::collections::HashMap;
use std::ops::Range;
use vstgt::backing::{BackingError, OpKind};
use vstgt::mem::{Direction, IoBuf};
use vstgt::scsi::opcode::{self, DataDirection};
use vstgt::scsi::{HostByte, Lun, LunAddress, Status};
use vstgt::tgt::{HostNo, ItnId, Tag};

/// Steps of an input.
const STEPS: usize = 96;
/// The longest data buffer.
const MAX_DATA: usize = 1 << 16;
/// What a buffer holds before the command: whatever is untouched is still that.
const FILL: u8 = 0xee;
/// Initiators that the input plays; the one after them only looks.
const INITIATORS: u8 = 4;

/// Takes any bytes.
pub fn run(bytes: &[u8]) {
    let mut input = Input::new(bytes);
    let mut play = Play::new(input.u8());
    for _ in 0..STEPS {
        if input.is_empty() {
            break;
        }
        play.step(&mut input);
    }
    play.settle();
    play.end();
}

/// A command that was sent.
struct Sent {
    cdb: [u8; 16],
    unit: Option<usize>,
    nexus: (HostNo, ItnId),
    direction: Direction,
    buf_len: usize,
    data_out: Vec<u8>,
    /// The unit's capacity then, in blocks.
    blocks: u64,
}

/// What is known of the commands that were sent: shared with what looks at each piece of work.
#[derive(Default)]
struct Book {
    sent: HashMap<Tag, Sent>,
    /// What was changed since the last answer, in bytes, by unit.
    changed: Vec<(usize, Range<u64>)>,
    /// The input did something to an image's size.
    resized: bool,
}

/// A nexus of an initiator: the one that it has, if it has one.
#[derive(Clone, Copy)]
struct Login {
    host_no: HostNo,
    n: u8,
    itn_id: Option<ItnId>,
}

struct Play {
    rig: Rig,
    book: RefCell<Book>,
    logins: Vec<Login>,
    observer: (HostNo, ItnId),
    /// Each command ends before the next one.
    one_by_one: bool,
    /// Whether a command that reserves was ever GOOD, by unit: PERSISTENT RESERVE OUT, and RESERVE.
    reserved: [bool; 3],
    legacy: bool,
}

impl Play {
    fn new(settings: u8) -> Play {
        let mut rig = Rig::new();
        rig.prompt = settings & 2 == 0;
        let mut logins = Vec::new();
        for n in 1..=INITIATORS {
            // The last one comes by the other target port.
            let host_no = if n == INITIATORS { HOST + 1 } else { HOST };
            let itn_id = rig.create(n % SHARDS, host_no, n);
            logins.push(Login { host_no, n, itn_id: Some(itn_id) });
        }
        let observer = (HOST, rig.create(0, HOST, INITIATORS + 1));
        rig.settle(&mut |_, _| ());
        assert!(rig.nexus_answers.drain(..).all(|(_, result)| result == 0));
        let (book, one_by_one) = (RefCell::default(), settings & 1 != 0);
        let mut play = Play { rig, book, logins, observer, one_by_one, reserved: [false; 3], legacy: false };
        if settings & 4 == 0 {
            play.take_attentions();
        }
        play
    }

    /// The unit attentions of power on, so that commands do what they say.
    fn take_attentions(&mut self) {
        for login in self.logins.clone() {
            for unit in 0..self.rig.units.len() {
                let (target, lun) = self.rig.units[unit].address;
                let lun = Lun::new(target, lun).expect("an address");
                let nexus = (login.host_no, login.itn_id.expect("logged in"));
                self.rig.send(0, nexus, Sending::simple(lun, [0; 16], IoBuf::empty()), |_| ());
                self.rig.settle(&mut |_, _| ());
            }
        }
        self.rig.answers.clear();
    }

    fn step(&mut self, input: &mut Input<'_>) {
        let what = input.u8();
        match what % 16 {
            0..=7 => self.command(what, input),
            8 => {
                let (who, lun) = (input.u8(), self.lun(input));
                let Some(nexus) = self.nexus(who) else { return };
                let function = if who & 0x80 == 0 { i32::from(input.u8() % 16) } else { input.u32().cast_signed() };
                let tags: Vec<Tag> = self.rig.open.keys().copied().collect();
                let tag = match usize::from(input.u8()).checked_rem(tags.len()) {
                    // The order of a map is not the input's: the smallest ones are named first.
                    Some(at) => {
                        let mut tags = tags;
                        tags.sort_by_key(|tag| tag.0);
                        tags[at]
                    }
                    None => Tag(input.u64() & !(0xff << 32)),
                };
                self.rig.function(who >> 2 & 1, nexus, function, lun, tag);
            }
            9 => {
                let error = match input.u8() % 16 {
                    0 => Some(BackingError::ReadFailed),
                    1 => Some(BackingError::WriteFailed),
                    2 => Some(BackingError::NoSpace),
                    3 => Some(BackingError::FlushFailed),
                    4 => Some(BackingError::OutOfRange),
                    5 => Some(BackingError::Unsupported),
                    6 => Some(BackingError::Cancelled),
                    _ => None,
                };
                self.rig.complete(usize::from(what >> 4), error, &mut look(&self.book));
            }
            10 => drop(self.rig.run_job(usize::from(what >> 4), &mut look(&self.book))),
            11 => drop(self.rig.deliver(what >> 4 & 1)),
            12 => self.come_or_go(what >> 4, input.u8()),
            13 => {
                self.rig.run_background(&mut look(&self.book));
            }
            14 => {
                let (which, how) = (usize::from(what >> 4) % self.rig.units.len(), input.u8());
                let unit = &self.rig.units[which];
                match how % 4 {
                    0 => unit.image.fail_next(input.one_of(&[
                        BackingError::ReadFailed,
                        BackingError::WriteFailed,
                        BackingError::NoSpace,
                        BackingError::FlushFailed,
                    ])),
                    1 => {
                        self.book.borrow_mut().resized = true;
                        unit.image.resize(u64::from(input.u16()) << 9);
                    }
                    2 => drop(unit.lu.look_again()),
                    _ => drop(unit.lu.look_at_space()),
                }
            }
            _ => {
                let (who, lun) = (input.u8(), self.lun(input));
                match self.nexus(who) {
                    Some(nexus) if who & 0x40 != 0 => {
                        self.rig.question(who >> 2 & 1, nexus, who & 0x80 != 0, lun, input.u32());
                    }
                    _ => drop(self.rig.done()),
                }
            }
        }
        if self.one_by_one {
            self.settle();
        }
        self.judge();
    }

    fn nexus(&self, who: u8) -> Option<(HostNo, ItnId)> {
        let login = self.logins[usize::from(who % INITIATORS)];
        login.itn_id.map(|itn_id| (login.host_no, itn_id))
    }

    /// One of the three units, mostly.
    fn lun(&self, input: &mut Input<'_>) -> Lun {
        match input.u8() {
            which @ 0..=0xdf => {
                let (target, lun) = self.rig.units[usize::from(which) % self.rig.units.len()].address;
                Lun::new(target, lun).expect("an address")
            }
            0xe0..=0xe7 => Lun::REPORT_LUNS,
            _ => Lun(input.array()),
        }
    }

    fn command(&mut self, what: u8, input: &mut Input<'_>) {
        let (who, lun) = (input.u8(), self.lun(input));
        let cdb = cdb(what & 0x80 != 0, input.array());
        let len = usize::from(input.u16()) << if what & 0x10 == 0 { 0 } else { 9 };
        let len = len.min(MAX_DATA);
        let inline = usize::from(input.u8());
        let mut data = input.take(inline.min(len)).to_vec();
        let Some(nexus) = self.nexus(who) else { return };
        let known = opcode::decode(&cdb).ok().map(|(row, _)| row.direction);
        let direction = match (who >> 3 & 3, known) {
            (0 | 1, Some(DataDirection::In)) | (2, _) => Direction::In,
            (0 | 1, Some(DataDirection::Out)) | (3, _) => Direction::Out,
            _ => Direction::None,
        };
        let mut buf = match direction {
            Direction::None => IoBuf::empty(),
            some => IoBuf::owned(len, some),
        };
        match direction {
            Direction::Out => {
                data.resize(len, 0);
                buf.write_at(0, &data);
            }
            Direction::In => drop(buf.write_at(0, &vec![FILL; len])),
            Direction::None => {}
        }
        let attribute = [0x20, 0x21, 0x22, 0x2f][usize::from(who >> 5 & 3)];
        let unit = match lun.address() {
            LunAddress::Unit { target, lun } => self.rig.units.iter().position(|unit| unit.address == (target, lun)),
            _ => None,
        };
        let forbidden = self.forbidden(unit, lun, who, &cdb);
        let blocks = unit.map_or(0, |unit| self.rig.units[unit].lu.geometry().blocks);
        let buf_len = buf.len() as usize;
        let sent = Sent { cdb, unit, nexus, direction, buf_len, data_out: data, blocks };
        let book = &self.book;
        let shard = who >> 2 & 1;
        let tag = self.rig.send(shard, nexus, Sending { lun, cdb, attribute, buf }, |tag| {
            drop(book.borrow_mut().sent.insert(tag, sent))
        });
        if let (true, Some(tag)) = (self.one_by_one, tag) {
            self.settle();
            self.judge_alone(tag, forbidden);
        }
    }

    /// Whether a reservation forbids this access, as far as that is looked at.
    fn forbidden(&mut self, unit: Option<usize>, lun: Lun, who: u8, cdb: &[u8; 16]) -> Option<bool> {
        let reserved = unit.is_some_and(|unit| self.reserved[unit]);
        if !self.one_by_one || !reserved || self.legacy || extent::moved(cdb).is_none() {
            return None;
        }
        let login = self.logins[usize::from(who % INITIATORS)];
        let port = if login.host_no == HOST { 1 } else { 2 };
        let reserved = Reserved::ask(&mut self.rig, self.observer, lun)?;
        Some(reserved.conflicts(login.n, port, !extent::reads(cdb)))
    }

    fn come_or_go(&mut self, which: u8, host: u8) {
        let at = usize::from(which % INITIATORS);
        let login = self.logins[at];
        match login.itn_id {
            Some(itn_id) if host & 0x80 == 0 => {
                self.rig.destroy(which >> 2 & 1, (login.host_no, itn_id));
                self.logins[at].itn_id = None;
                // A number is for one nexus: what is sent on it until it is gone is the hba's to prevent.
                self.settle();
            }
            // A second login of a port that is logged in is refused.
            Some(_) => drop(self.rig.create(which >> 2 & 1, login.host_no, login.n)),
            None => {
                let itn_id = self.rig.create(which >> 2 & 1, login.host_no, login.n);
                self.settle();
                let answer = self.rig.nexus_answers.iter().find(|answer| answer.0 == itn_id);
                assert_eq!(answer.map(|answer| answer.1), Some(0), "nobody else is logged in as this port");
                self.logins[at].itn_id = Some(itn_id);
            }
        }
        self.rig.nexus_answers.clear();
    }

    fn settle(&mut self) {
        self.rig.settle(&mut look(&self.book));
    }

    /// Judges what was answered.
    fn judge(&mut self) {
        for (tag, answer) in std::mem::take(&mut self.rig.answers) {
            let sent = self.book.borrow_mut().sent.remove(&tag);
            if let Some(sent) = sent {
                check(&sent, &answer);
            }
        }
        self.book.borrow_mut().changed.clear();
    }

    /// Judges the one command that there was.
    fn judge_alone(&mut self, tag: Tag, forbidden: Option<bool>) {
        let at = self.rig.answers.iter().position(|(answered, _)| *answered == tag).expect("it was answered");
        let (_, answer) = self.rig.answers.remove(at);
        let mut book = self.book.borrow_mut();
        let sent = book.sent.remove(&tag).expect("it was sent");
        check(&sent, &answer);
        let good = answer.result.host == HostByte::Ok && answer.result.status == Status::Good;
        let changed = std::mem::take(&mut book.changed);
        let resized = book.resized;
        drop(book);
        let Some(at) = sent.unit else { return };
        if good {
            self.reserved[at] |= sent.cdb[0] == 0x5f;
            self.legacy |= matches!(sent.cdb[0], 0x16 | 0x56);
        }
        match forbidden {
            Some(true) => assert!(!good, "{:02x?} in spite of a reservation", sent.cdb),
            Some(false) => assert!(
                answer.result.host != HostByte::Ok || answer.result.status != Status::ReservationConflict,
                "{:02x?} conflicts with nothing",
                sent.cdb
            ),
            None => {}
        }
        let Some((lba, blocks)) = extent::moved(&sent.cdb).filter(|_| good && !resized) else { return };
        let unit = &self.rig.units[at];
        let len = blocks as usize * unit.block as usize;
        assert_eq!(answer.len as usize, len, "{:02x?} moves {len} bytes", sent.cdb);
        if len > sent.buf_len {
            assert!(changed.is_empty(), "{:02x?} overran its buffer, and wrote {changed:?}", sent.cdb);
            return;
        }
        let held = unit.image.peek(lba * unit.block, len);
        match extent::reads(&sent.cdb) {
            true => assert!(answer.data[..len] == held, "{:02x?} reads something else", sent.cdb),
            false => assert!(sent.data_out[..len] == held, "{:02x?} wrote something else", sent.cdb),
        }
    }

    fn end(&mut self) {
        self.judge();
        for login in self.logins.clone() {
            if let Some(itn_id) = login.itn_id {
                self.rig.destroy(0, (login.host_no, itn_id));
            }
        }
        self.rig.destroy(0, self.observer);
        self.settle();
        assert!(self.rig.target.nexuses().is_empty(), "everyone has gone");
        assert!(self.book.borrow().sent.is_empty());
    }
}

/// A CDB: unless it is to be left as it is, one of the commands that there are, with no bit where it has none.
fn cdb(as_it_is: bool, bytes: [u8; 16]) -> [u8; 16] {
    let rows = opcode::rows_of(bytes[0]);
    let with_action = rows.iter().find(|row| row.service_action == Some(u16::from(bytes[1] & 0x1f)));
    let Some(row) = with_action.or(rows.first()).filter(|_| !as_it_is) else { return bytes };
    let mut cdb = [0; 16];
    for ((to, from), usage) in cdb.iter_mut().zip(bytes).zip(row.usage.bytes()) {
        *to = from & usage;
    }
    cdb[0] = row.opcode;
    if let Some(service_action) = row.service_action {
        cdb[1] = cdb[1] & 0xe0 | service_action as u8;
    }
    cdb
}

/// How long a CDB of this operation code is (SPC-4 4.2.5.1).
fn cdb_len(opcode: u8) -> usize {
    match opcode >> 5 {
        0 => 6,
        1 | 2 => 10,
        5 => 12,
        _ => 16,
    }
}

/// What holds of every answer.
fn check(sent: &Sent, answer: &Answered) {
    let Answered { result, len, sense, data } = answer;
    let says = format!("{:02x?} on {:?}: {answer:?}", sent.cdb, sent.nexus);
    if result.host != HostByte::Ok {
        assert!(sense.is_empty() && result.status == Status::Good, "{says}");
        return;
    }
    assert_eq!(!sense.is_empty(), result.status == Status::CheckCondition, "{says}");
    if !sense.is_empty() {
        sense::check(sense, cdb_len(sent.cdb[0]));
    }
    if sent.direction == Direction::In {
        let moved = *len as usize;
        if result.status != Status::Good && result.status != Status::ConditionMet {
            return;
        }
        assert!(moved > data.len() || data[moved..].iter().all(|byte| *byte == FILL), "behind what it moved: {says}");
    }
}

/// What looks at each piece of work: nothing is read or written but what a command that is there asked for.
fn look(book: &RefCell<Book>) -> impl FnMut(&Rig, Doing) + '_ {
    move |rig, doing| {
        let mut book = book.borrow_mut();
        if let Doing::Io(tag, unit, op) = &doing
            && let Some(sent) = book.sent.get(tag)
        {
            assert_eq!(Some(*unit), sent.unit, "on the unit that it was sent to");
            let range = op.offset..op.offset + op.len;
            let block = rig.units[*unit].block;
            match op.kind {
                OpKind::Flush => {}
                OpKind::Read => {
                    let (lba, blocks) = extent::moved(&sent.cdb).expect("it reads");
                    assert!(
                        Blocks::one(lba..lba.saturating_add(blocks)).holds(&range, block),
                        "{:02x?} reads {range:?}",
                        sent.cdb
                    );
                }
                _ => assert!(may_write(sent, &range, block), "{:02x?} writes {range:?}", sent.cdb),
            }
        }
        for (at, unit) in rig.units.iter().enumerate() {
            for range in unit.image.take_changes() {
                if let Doing::Job(owner) = doing {
                    // Which of its commands is not known here: some one of them.
                    let mut of_it = book.sent.values().filter(|sent| sent.nexus.1 == owner);
                    let any = |sent: &Sent| sent.cdb[0] == 0x83;
                    assert!(
                        of_it.any(|sent| any(sent) || sent.unit == Some(at) && may_write(sent, &range, unit.block)),
                        "nobody asked for {range:?} of unit {at} to be written"
                    );
                }
                book.changed.push((at, range));
            }
        }
    }
}

fn may_write(sent: &Sent, range: &Range<u64>, block: u64) -> bool {
    extent::written(&sent.cdb, &sent.data_out, sent.blocks).holds(range, block)
}
