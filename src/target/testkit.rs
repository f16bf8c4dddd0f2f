//! For tests: several shards driven by one thread, with backing, pool and mail that hold everything until told otherwise.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, reason = "test code")]

use std::collections::VecDeque;
use std::sync::{Arc, Mutex};

use super::{HostSetup, Post, Shard, ShardMail, Spawn, Target, TargetSetup, UnitMapping};
use crate::backing::{BackingError, Completion, Image, Op, OpKind, Submit};
use crate::device_server::testkit::{HeldBackground, MemImage};
use crate::lu::{Lu, LuSetup, TargetPort};
use crate::mem::{Direction, IoBuf};
use crate::scsi::{CommandResult, FunctionResponse, HostByte, Lun, TaskManagementFunction};
use crate::tgt::{
    AerReq, CmdData, CmdDone, CmdReq, EventRings, HostNo, ItNexusReq, ItnId, KEvent, NexusFunction, Tag, TskMgmtReq,
    TxSlot, UEvent,
};

/// A backing that holds every operation until it is told how it ends.
#[derive(Default)]
pub struct HeldIo {
    /// What was submitted and has not ended.
    pub held: Vec<HeldOp>,
    /// What was asked to be cancelled.
    pub cancelled: Vec<u64>,
}

/// A held operation.
pub struct HeldOp {
    pub cookie: u64,
    pub image: Arc<dyn Image>,
    pub op: Op,
    pub buf: IoBuf,
}

impl Submit for HeldIo {
    fn submit(&mut self, image: &Arc<dyn Image>, op: Op, buf: IoBuf, cookie: u64) {
        assert!(self.held.iter().all(|held| held.cookie != cookie), "{cookie:#x} submitted twice");
        self.held.push(HeldOp { cookie, image: Arc::clone(image), op, buf });
    }

    fn cancel(&mut self, cookie: u64) {
        assert!(self.held.iter().any(|held| held.cookie == cookie), "{cookie:#x} is not here to be cancelled");
        self.cancelled.push(cookie);
    }
}

/// A pool that holds all work.
#[derive(Default)]
pub struct HeldPool(Mutex<Vec<Box<dyn FnOnce() + Send>>>);

impl HeldPool {
    /// Takes out held work.
    pub fn take(&self, at: usize) -> Box<dyn FnOnce() + Send> {
        self.0.lock().unwrap().remove(at)
    }

    pub fn len(&self) -> usize {
        self.0.lock().unwrap().len()
    }
}

impl Spawn for HeldPool {
    fn spawn(&self, _owner: ItnId, work: Box<dyn FnOnce() + Send>) {
        self.0.lock().unwrap().push(work);
    }
}

/// Boxes that hold all mail.
pub struct Mailroom(Mutex<Vec<VecDeque<ShardMail>>>);

impl Mailroom {
    pub fn take(&self, shard: u8) -> Option<ShardMail> {
        self.0.lock().unwrap()[usize::from(shard)].pop_front()
    }

    pub fn needs_pop(&self, shard: u8) -> Option<bool> {
        self.0.lock().unwrap()[usize::from(shard)].front().map(ShardMail::needs_pop)
    }

    pub fn len(&self, shard: u8) -> usize {
        self.0.lock().unwrap()[usize::from(shard)].len()
    }
}

impl Post for Mailroom {
    fn post(&self, shard: u8, mail: ShardMail) {
        self.0.lock().unwrap()[usize::from(shard)].push_back(mail);
    }
}

/// A `CMD_RSP` that the hba took.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Answered {
    pub tag: Tag,
    pub result: CommandResult,
    pub len: u32,
    pub rw: u8,
    pub sense: Vec<u8>,
    /// The buffer's contents.
    pub data: Vec<u8>,
    /// It is not to be carried out again.
    pub once: bool,
}

impl Answered {
    /// Sense key, additional sense code and qualifier of fixed-format sense data.
    pub fn sense(&self) -> (u8, u16) {
        assert_eq!(self.sense[0] & 0x7f, 0x70, "fixed format");
        (self.sense[2] & 0x0f, u16::from_be_bytes([self.sense[12], self.sense[13]]))
    }
}

/// One shard with its reactor's things, and an hba that only writes down what it gets.
pub struct Reactor {
    pub shard: Shard,
    pub rings: EventRings,
    pub io: HeldIo,
    /// Commands answered, in order.
    pub answers: Vec<Answered>,
    /// Other requests answered, in order: (itn_id or mid, result).
    pub nexus_responses: Vec<(ItnId, i32)>,
    pub function_responses: Vec<(u64, FunctionResponse)>,
    /// Questions about asynchronous events answered: (mid, result, events).
    pub async_responses: Vec<(u64, FunctionResponse, u32)>,
    /// Asynchronous events, each with its sense data.
    pub reports: Vec<(AerReq, Vec<u8>)>,
    /// CMD_DONEs that are owed.
    pub owed: Vec<CmdDone>,
}

/// The whole target.
pub struct Rig {
    pub target: Arc<Target>,
    pub reactors: Vec<Reactor>,
    pub mail: Arc<Mailroom>,
    pub pool: Arc<HeldPool>,
    /// Post CMD_DONE as soon as an answer is taken.
    pub prompt: bool,
    generation: u16,
    mid: u64,
}

pub const HOST: HostNo = 4;
/// Descriptors of every queue of a rig.
pub const QUEUE_SIZE: u16 = 64;

/// A host that is the target port of that relative identifier.
pub fn host(host_no: HostNo, relative: u16) -> HostSetup {
    HostSetup { host_no, port: target_port(relative), name: format!("port{relative}") }
}

fn target_port(relative: u16) -> TargetPort {
    TargetPort { relative, id: [0x80 + relative as u8; 16], group: relative }
}

/// A unit of 64 KiB that is reached by the target ports 1 and 2.
pub fn unit() -> Arc<Lu> {
    unit_at(&[1, 2])
}

/// The same, reached by these.
pub fn unit_at(ports: &[u16]) -> Arc<Lu> {
    let setup = LuSetup::new(Arc::new(MemImage::new(1 << 16)), 0x3123_4567_89ab_cdef, "SERIAL".into());
    Lu::new(LuSetup { ports: ports.iter().map(|&port| target_port(port)).collect(), ..setup }).unwrap()
}

/// A unit with something in it that can be erased, and what erases it.
pub fn erasable() -> (Arc<Lu>, Arc<MemImage>, Arc<HeldBackground>) {
    let (image, background) = (Arc::new(MemImage::patterned(1 << 16)), Arc::new(HeldBackground::default()));
    let mut setup = LuSetup::new(image.clone(), 0x3123_4567_89ab_cdef, "SERIAL".into());
    setup.ports = vec![target_port(1)];
    setup.background = background.clone();
    (Lu::new(setup).unwrap(), image, background)
}

/// A unit that every initiator sees.
pub fn mapped(target: u8, lun: u16, lu: &Arc<Lu>) -> UnitMapping {
    UnitMapping { target, lun, lu: Arc::clone(lu), initiators: None }
}

/// An initiator port identifier.
pub fn port(n: u8) -> [u8; 16] {
    [n; 16]
}

pub fn at(target: u8, lun: u16) -> Lun {
    Lun::new(target, lun).unwrap()
}

/// READ(10) of some blocks from LBA 0.
pub fn read10(blocks: u16) -> [u8; 16] {
    let [high, low] = blocks.to_be_bytes();
    [0x28, 0, 0, 0, 0, 0, 0, high, low, 0, 0, 0, 0, 0, 0, 0]
}

/// WRITE(10) of some blocks from LBA 0.
pub fn write10(blocks: u16) -> [u8; 16] {
    let mut cdb = read10(blocks);
    cdb[0] = 0x2a;
    cdb
}

pub const TEST_UNIT_READY: [u8; 16] = [0; 16];
/// VERIFY(10) of one block against Data-Out: a job.
pub const VERIFY: [u8; 16] = [0x2f, 0x02, 0, 0, 0, 0, 0, 0, 1, 0, 0, 0, 0, 0, 0, 0];

impl Rig {
    /// `shards` shards with queues 0 and 1 each.
    pub fn new(shards: u8, units: Vec<UnitMapping>) -> Rig {
        let names = (1..9).map(|n| (port(n), format!("vm{n}"))).collect();
        let hosts = vec![host(HOST, 1), host(HOST + 1, 2)];
        Rig::with(TargetSetup { shards, hosts, units, names, patience: None })
    }

    pub fn with(setup: TargetSetup) -> Rig {
        let shards = setup.shards;
        let target = Target::new(setup).unwrap();
        let mail = Arc::new(Mailroom(Mutex::new((0..shards).map(|_| VecDeque::new()).collect())));
        let pool = Arc::new(HeldPool::default());
        let reactors = (0..shards).map(|index| {
            let mut shard = Shard::new(index, Arc::clone(&target), mail.clone(), pool.clone());
            shard.open_queue(0, QUEUE_SIZE);
            shard.open_queue(1, QUEUE_SIZE);
            Reactor {
                shard,
                rings: EventRings::new(),
                io: HeldIo::default(),
                answers: Vec::new(),
                nexus_responses: Vec::new(),
                function_responses: Vec::new(),
                async_responses: Vec::new(),
                reports: Vec::new(),
                owed: Vec::new(),
            }
        });
        let reactors = reactors.collect();
        Rig { target, reactors, mail, pool, prompt: true, generation: 0, mid: 100 }
    }

    pub fn reactor(&mut self, shard: u8) -> &mut Reactor {
        &mut self.reactors[usize::from(shard)]
    }

    /// Posts an event and lets its shard have it, then takes what came back.
    pub fn post(&mut self, shard: u8, event: KEvent, data: Option<CmdData>) {
        self.reactor(shard).rings.post_request(TxSlot { event, data }).unwrap();
        self.turn(shard);
    }

    /// Drains a reactor's rings until both are empty.
    pub fn turn(&mut self, shard: u8) {
        let prompt = self.prompt;
        let r = self.reactor(shard);
        loop {
            while let Some(slot) = r.rings.take_tx() {
                r.shard.on_event(slot, &mut r.io, &mut r.rings);
            }
            let Some(slot) = r.rings.take_rx() else { return };
            match slot.event {
                UEvent::CmdRsp(rsp) => {
                    let answer = slot.answer.unwrap();
                    assert_eq!(rsp.sense_len as usize, answer.sense.as_ref().map_or(0, |s| s.len()));
                    let mut data = vec![0; answer.buf.len() as usize];
                    answer.buf.read_at(0, &mut data);
                    r.answers.push(Answered {
                        tag: rsp.tag,
                        result: rsp.result.try_into().unwrap(),
                        len: rsp.len,
                        rw: rsp.rw,
                        sense: answer.sense.unwrap_or_default().into_vec(),
                        data,
                        once: answer.once,
                    });
                    let done = CmdDone { host_no: rsp.host_no, result: 0, itn_id: rsp.itn_id, tag: rsp.tag };
                    if prompt { r.rings.post_done(done) } else { r.owed.push(done) }
                }
                UEvent::ItNexusRsp(rsp) => r.nexus_responses.push((rsp.itn_id, rsp.result)),
                UEvent::AsyncRsp(rsp) => r.async_responses.push((rsp.mid, rsp.result.try_into().unwrap(), rsp.events)),
                UEvent::AerReq(report) => {
                    let sense = slot.answer.and_then(|answer| answer.sense).unwrap_or_default().into_vec();
                    assert_eq!(report.sense_len as usize, sense.len());
                    r.reports.push((report, sense));
                }
                UEvent::TskMgmtRsp(rsp) => r.function_responses.push((rsp.mid, rsp.result.try_into().unwrap())),
            }
        }
    }

    /// Posts the CMD_DONE that is owed for `tag`.
    pub fn done(&mut self, tag: Tag) {
        let r = self.reactor(tag.shard());
        let at = r.owed.iter().position(|done| done.tag == tag).expect("a CMD_DONE is owed");
        let done = r.owed.remove(at);
        r.rings.post_done(done);
        self.turn(tag.shard());
    }

    /// Delivers one letter; false if there is none.
    pub fn deliver(&mut self, shard: u8) -> bool {
        let Some(mail) = self.mail.take(shard) else { return false };
        let r = self.reactor(shard);
        r.shard.on_mail(mail, &mut r.io, &mut r.rings);
        self.turn(shard);
        true
    }

    /// Delivers all mail, until there is none.
    pub fn settle(&mut self) {
        while (0..self.target.shards()).any(|shard| self.deliver(shard)) {}
    }

    /// Lets the operation of `tag` end: carried out, if `result` is `Ok`.
    pub fn complete(&mut self, tag: Tag, result: Result<(), BackingError>) {
        let r = self.reactor(tag.shard());
        let at = r.io.held.iter().position(|held| held.cookie == tag.0).expect("the operation is held");
        let HeldOp { image, op, mut buf, .. } = r.io.held.remove(at);
        if result.is_ok() {
            match op.kind {
                OpKind::Read => image.read(op.offset, op.len, &mut buf, 0).unwrap(),
                OpKind::Write { fua } => image.write(op.offset, op.len, &buf, 0, fua).unwrap(),
                other => panic!("{other:?}"),
            }
        }
        r.shard.on_completion(Completion { cookie: tag.0, result, intact: 0, buf }, &mut r.io, &mut r.rings);
        self.turn(tag.shard());
    }

    /// Requests a nexus; its answer comes when the mail is delivered.
    pub fn request_nexus(&mut self, shard: u8, host_no: HostNo, n: u8) -> ItnId {
        let itn_id = self.target.next_itn_id().unwrap();
        let function = NexusFunction::Create;
        let req = ItNexusReq { host_no, function, itn_id, max_cmds: 128, initiator_id: port(n) };
        self.post(shard, KEvent::ItNexusReq(req), None);
        itn_id
    }

    /// Makes a nexus for initiator `n` on [`HOST`] and takes its unit attentions away.
    pub fn login(&mut self, n: u8) -> ItnId {
        let itn_id = self.request_nexus(0, HOST, n);
        self.settle();
        assert_eq!(self.reactor(0).nexus_responses.pop(), Some((itn_id, 0)));
        for (target, lun) in [(0, 0), (0, 1), (1, 0)] {
            let tag = self.send(0, itn_id, at(target, lun), TEST_UNIT_READY, IoBuf::empty());
            let answer = self.answer(tag);
            assert!(answer.result.host == HostByte::BadTarget || !answer.sense.is_empty(), "{answer:?}");
        }
        itn_id
    }

    pub fn request_destroy(&mut self, shard: u8, itn_id: ItnId) {
        let function = NexusFunction::Destroy;
        let req = ItNexusReq { host_no: HOST, function, itn_id, max_cmds: 0, initiator_id: [0; 16] };
        self.post(shard, KEvent::ItNexusReq(req), None);
    }

    /// Runs all work and delivers all mail, until there is neither.
    pub fn finish_all(&mut self) {
        loop {
            self.settle();
            if self.pool.len() == 0 {
                return;
            }
            self.pool.take(0)();
        }
    }

    /// A name for a command on a head that is free.
    pub fn tag(&mut self, shard: u8) -> Tag {
        self.generation += 1;
        let head = self.generation % QUEUE_SIZE;
        Tag::new(shard, self.generation % 2, head, self.generation)
    }

    /// Sends a command.
    pub fn send(&mut self, shard: u8, itn_id: ItnId, lun: Lun, scb: [u8; 16], buf: IoBuf) -> Tag {
        let tag = self.tag(shard);
        self.send_as(tag, itn_id, lun, scb, buf);
        tag
    }

    pub fn send_as(&mut self, tag: Tag, itn_id: ItnId, lun: Lun, scb: [u8; 16], buf: IoBuf) {
        self.send_again(tag, itn_id, lun, scb, buf, (0, 0));
    }

    /// Sends a command that a process before this one took, with what that noted about it.
    pub fn send_again(&mut self, tag: Tag, itn_id: ItnId, lun: Lun, scb: [u8; 16], buf: IoBuf, before: (u64, u64)) {
        let (earlier, taken) = before;
        let req = CmdReq { host_no: HOST, data_len: buf.len() as u32, itn_id, scb, lun, attribute: 0x20, tag };
        self.post(tag.shard(), KEvent::CmdReq(req), Some(CmdData { buf, cdb_tail: None, earlier, taken }));
    }

    /// Sends a READ of one block, which stays at the backing.
    pub fn read(&mut self, shard: u8, itn_id: ItnId, lun: Lun) -> Tag {
        let tag = self.send(shard, itn_id, lun, read10(1), IoBuf::owned(512, Direction::In));
        assert!(self.reactor(shard).io.held.iter().any(|held| held.cookie == tag.0), "it is at the backing");
        tag
    }

    /// The one answer to a command; fails if there is none, or more than one.
    pub fn answer(&mut self, tag: Tag) -> Answered {
        let answers = &mut self.reactor(tag.shard()).answers;
        let at = answers.iter().position(|a| a.tag == tag).expect("it was answered");
        let answer = answers.remove(at);
        assert!(answers.iter().all(|a| a.tag != tag), "answered twice");
        answer
    }

    pub fn is_answered(&mut self, tag: Tag) -> bool {
        self.reactor(tag.shard()).answers.iter().any(|a| a.tag == tag)
    }

    /// Requests a task management function; its answer comes when the mail is delivered.
    pub fn request_function(
        &mut self,
        shard: u8,
        itn_id: ItnId,
        function: TaskManagementFunction,
        lun: Lun,
        tag: Tag,
    ) -> u64 {
        self.request_code(shard, itn_id, function as i32, lun, tag)
    }

    pub fn request_code(&mut self, shard: u8, itn_id: ItnId, function: i32, lun: Lun, tag: Tag) -> u64 {
        self.mid += 1;
        let mid = self.mid;
        self.post(shard, KEvent::TskMgmtReq(TskMgmtReq { host_no: HOST, function, itn_id, tag, lun, mid }), None);
        mid
    }

    /// The one answer to a task management function, if there is one yet.
    pub fn response(&mut self, mid: u64) -> Option<FunctionResponse> {
        let all = self.reactors.iter_mut().flat_map(|r| &r.function_responses);
        let mut of_it = all.filter(|r| r.0 == mid).map(|r| r.1);
        let response = of_it.next();
        assert_eq!(of_it.next(), None, "answered twice");
        response
    }

    /// The answer to an IT_NEXUS_REQ, if there is one yet; taken away.
    pub fn nexus_response(&mut self, shard: u8) -> Option<(ItnId, i32)> {
        self.reactor(shard).nexus_responses.pop()
    }

    /// Tasks in flight on all shards.
    pub fn tasks(&self) -> usize {
        self.reactors.iter().map(|r| r.shard.tasks()).sum()
    }
}
