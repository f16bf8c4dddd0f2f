//! A whole target, driven by one thread: two shards with their event rings, and backing, threads and mail that hold everything until
//! the input says what goes on.

use super::image::SparseImage;
use std::collections::{BTreeSet, HashMap, VecDeque};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex};
use vstgt::backing::{BackingError, Completion, Image, Op, OpKind, Submit};
use vstgt::lu::{Background, KeepError, Keeper, KeptState, Lu, LuSetup, TargetPort};
use vstgt::mem::IoBuf;
use vstgt::scsi::{CommandResult, Lun, TaskManagementFunction};
use vstgt::target::{HostSetup, Post, Shard, ShardMail, Spawn, Target, TargetSetup, UnitMapping};
use vstgt::tgt::{
    AsyncFunction, AsyncReq, CmdData, CmdDone, CmdReq, EventRings, HostNo, ItNexusReq, ItnId, KEvent, NexusFunction,
    Tag, TskMgmtReq, TxSlot, UEvent,
};

pub const SHARDS: u8 = 2;
/// Descriptors of each queue: how many commands it can have outstanding.
const QUEUE_SIZE: u16 = 32;
/// The host of target port 1; that of port 2 is the next.
pub const HOST: HostNo = 4;
/// Steps in which everything that was begun must have ended.
const STEPS: usize = 20_000;

/// A unit of the target.
pub struct Unit {
    pub image: Arc<SparseImage>,
    pub lu: Arc<Lu>,
    pub block: u64,
    pub address: (u8, u16),
}

/// A command to be sent.
pub struct Sending {
    pub lun: Lun,
    pub cdb: [u8; 16],
    /// In tgt's numbers.
    pub attribute: i32,
    pub buf: IoBuf,
}

impl Sending {
    /// A SIMPLE one.
    pub fn simple(lun: Lun, cdb: [u8; 16], buf: IoBuf) -> Sending {
        Sending { lun, cdb, attribute: 0x20, buf }
    }
}

/// A command that was answered.
#[derive(Debug)]
pub struct Answered {
    pub result: CommandResult,
    pub len: u32,
    pub sense: Vec<u8>,
    pub data: Vec<u8>,
}

/// A held operation.
struct HeldOp {
    cookie: u64,
    image: Arc<dyn Image>,
    op: Op,
    buf: IoBuf,
}

#[derive(Default)]
struct HeldIo {
    held: Vec<HeldOp>,
    cancelled: Vec<u64>,
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

type Work = Box<dyn FnOnce() + Send>;

/// Holds the work of jobs, each with its nexus.
#[derive(Default)]
struct HeldPool(Mutex<VecDeque<(ItnId, Work)>>);

impl Spawn for HeldPool {
    fn spawn(&self, owner: ItnId, work: Work) {
        self.0.lock().expect("no panic").push_back((owner, work));
    }
}

/// Holds what runs in the background.
#[derive(Default)]
struct HeldBackground {
    held: Mutex<VecDeque<Work>>,
    /// A job runs, and may wait for what it starts here.
    at_once: AtomicBool,
}

impl std::fmt::Debug for HeldBackground {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("HeldBackground")
    }
}

impl Background for HeldBackground {
    fn start(&self, work: Work) -> std::io::Result<()> {
        match self.at_once.load(Ordering::Relaxed) {
            true => work(),
            false => self.held.lock().expect("no panic").push_back(work),
        }
        Ok(())
    }

    fn stopping(&self) -> bool {
        false
    }
}

/// Keeps a unit's state, as a disk would.
#[derive(Debug, Default)]
struct Kept(Mutex<Option<KeptState>>);

impl Keeper for Kept {
    fn keep(&self, state: &KeptState) -> Result<(), KeepError> {
        *self.0.lock().expect("no panic") = Some(state.clone());
        Ok(())
    }

    fn note(&self) {}

    fn survives_power_loss(&self) -> bool {
        true
    }
}

struct Mailroom(Mutex<Vec<VecDeque<ShardMail>>>);

impl Post for Mailroom {
    fn post(&self, shard: u8, mail: ShardMail) {
        self.0.lock().expect("no panic")[usize::from(shard)].push_back(mail);
    }
}

struct Reactor {
    shard: Shard,
    rings: EventRings,
    io: HeldIo,
    owed: Vec<CmdDone>,
}

/// What a piece of work did, to be held against what it was asked for.
#[derive(Debug)]
pub enum Doing {
    /// One operation of this command, on the image of that unit.
    Io(Tag, usize, Op),
    /// The operation is over.
    Ended,
    /// A job of a nexus.
    Job(ItnId),
    /// Something in the background.
    Background,
}

pub struct Rig {
    pub target: Arc<Target>,
    pub units: Vec<Unit>,
    reactors: Vec<Reactor>,
    mail: Arc<Mailroom>,
    pool: Arc<HeldPool>,
    background: Arc<HeldBackground>,
    /// Commands sent and not answered: on which nexus.
    pub open: HashMap<Tag, ItnId>,
    /// Commands whose CMD_DONE is owed.
    done_owed: Vec<Tag>,
    hosts: HashMap<ItnId, HostNo>,
    pub answers: Vec<(Tag, Answered)>,
    functions: Vec<u64>,
    questions: Vec<u64>,
    pub nexus_answers: Vec<(ItnId, i32)>,
    generation: u16,
    mid: u64,
    /// CMD_DONE follows the answer at once.
    pub prompt: bool,
}

fn port(relative: u16) -> TargetPort {
    TargetPort { relative, id: [0x80 + relative as u8; 16], group: relative }
}

impl Rig {
    pub fn new() -> Rig {
        let background = Arc::new(HeldBackground::default());
        let rods = Arc::default();
        let unit = |number: u64, address, size, block: u64, thin, change: &dyn Fn(&mut LuSetup)| {
            let image = Arc::new(SparseImage::new(size, thin));
            let mut setup = LuSetup {
                block_size: block as u32,
                ports: vec![port(1), port(2)],
                access: vec![
                    (1, vstgt::lu::AccessState::ActiveOptimized),
                    (2, vstgt::lu::AccessState::ActiveOptimized),
                ],
                keeper: Some(Arc::new(Kept::default())),
                background: background.clone(),
                rods: Arc::clone(&rods),
                ..LuSetup::new(image.clone(), 0x3123_4567_89ab_cde0 + number, format!("SERIAL{number}"))
            };
            change(&mut setup);
            Unit { image, lu: Lu::new(setup).expect("a unit"), block, address }
        };
        let units = vec![
            unit(0, (0, 0), 1 << 16, 512, true, &|_| ()),
            unit(1, (0, 1), 1 << 18, 4096, false, &|setup| {
                setup.removable = true;
                setup.descriptor_sense = true;
            }),
            unit(2, (1, 0), 1 << 62, 512, true, &|setup| setup.physical_exponent = 3),
        ];
        let mapped = |unit: &Unit| UnitMapping {
            target: unit.address.0,
            lun: unit.address.1,
            lu: Arc::clone(&unit.lu),
            initiators: None,
        };
        let host = |relative: u16| {
            let host_no = HOST + HostNo::from(relative) - 1;
            HostSetup { host_no, port: port(relative), name: format!("port{relative}") }
        };
        let target = Target::new(TargetSetup {
            shards: SHARDS,
            hosts: vec![host(1), host(2)],
            units: units.iter().map(mapped).collect(),
            names: (1..9).map(|n| ([n; 16], format!("vm{n}"))).collect(),
            patience: None,
        });
        let target = target.expect("a target");
        let mail = Arc::new(Mailroom(Mutex::new((0..SHARDS).map(|_| VecDeque::new()).collect())));
        let pool = Arc::new(HeldPool::default());
        let reactors = (0..SHARDS).map(|index| {
            let mut shard = Shard::new(index, Arc::clone(&target), mail.clone(), pool.clone());
            shard.open_queue(0, QUEUE_SIZE);
            Reactor { shard, rings: EventRings::new(), io: HeldIo::default(), owed: Vec::new() }
        });
        let reactors = reactors.collect();
        Rig {
            target,
            units,
            reactors,
            mail,
            pool,
            background,
            open: HashMap::new(),
            done_owed: Vec::new(),
            hosts: HashMap::new(),
            answers: Vec::new(),
            functions: Vec::new(),
            questions: Vec::new(),
            nexus_answers: Vec::new(),
            generation: 0,
            mid: 1000,
            prompt: true,
        }
    }

    fn post(&mut self, shard: u8, event: KEvent, data: Option<CmdData>) {
        let posted = self.reactors[usize::from(shard)].rings.post_request(TxSlot { event, data });
        assert!(posted.is_ok(), "the ring has room");
        self.turn(shard);
    }

    /// Drains a reactor's rings until both are empty.
    fn turn(&mut self, shard: u8) {
        let r = &mut self.reactors[usize::from(shard)];
        loop {
            while let Some(slot) = r.rings.take_tx() {
                r.shard.on_event(slot, &mut r.io, &mut r.rings);
            }
            let Some(slot) = r.rings.take_rx() else { return };
            match slot.event {
                UEvent::CmdRsp(rsp) => {
                    let answer = slot.answer.expect("an answer beside CMD_RSP");
                    assert_eq!(rsp.sense_len as usize, answer.sense.as_ref().map_or(0, |sense| sense.len()));
                    assert_eq!(self.open.remove(&rsp.tag), Some(rsp.itn_id), "answered twice, or on another nexus");
                    let mut data = vec![0; answer.buf.len() as usize];
                    answer.buf.read_at(0, &mut data);
                    let result = rsp.result.try_into().expect("a result");
                    let sense = answer.sense.unwrap_or_default().into_vec();
                    self.answers.push((rsp.tag, Answered { result, len: rsp.len, sense, data }));
                    let done = CmdDone { host_no: rsp.host_no, result: 0, itn_id: rsp.itn_id, tag: rsp.tag };
                    if self.prompt {
                        r.rings.post_done(done);
                    } else {
                        r.owed.push(done);
                        self.done_owed.push(rsp.tag);
                    }
                }
                UEvent::ItNexusRsp(rsp) => self.nexus_answers.push((rsp.itn_id, rsp.result)),
                UEvent::TskMgmtRsp(rsp) => {
                    let at = self.functions.iter().position(|mid| *mid == rsp.mid);
                    self.functions.swap_remove(at.expect("a function that was asked for, answered once"));
                }
                UEvent::AsyncRsp(rsp) => {
                    let at = self.questions.iter().position(|mid| *mid == rsp.mid);
                    self.questions.swap_remove(at.expect("a question that was asked, answered once"));
                }
                UEvent::AerReq(report) => {
                    let sense = slot.answer.and_then(|answer| answer.sense).unwrap_or_default();
                    assert_eq!(report.sense_len as usize, sense.len());
                }
            }
        }
    }

    /// A name for a command; `None` if the queue is full.
    fn tag(&mut self, shard: u8) -> Option<Tag> {
        for _ in 0..QUEUE_SIZE {
            self.generation = self.generation.wrapping_add(1);
            let head = self.generation % QUEUE_SIZE;
            let busy = |tag: &Tag| tag.shard() == shard && tag.head() == head;
            if !self.open.keys().any(busy) && !self.done_owed.iter().any(busy) {
                return Some(Tag::new(shard, 0, head, self.generation));
            }
        }
        None
    }

    /// The name that [`Rig::send`] gives; to be asked for first, for an answer may come at once.
    pub fn send(
        &mut self,
        shard: u8,
        nexus: (HostNo, ItnId),
        Sending { lun, cdb, attribute, buf }: Sending,
        named: impl FnOnce(Tag),
    ) -> Option<Tag> {
        let tag = self.tag(shard)?;
        let (host_no, itn_id) = nexus;
        self.open.insert(tag, itn_id);
        named(tag);
        let req = CmdReq { host_no, data_len: buf.len() as u32, itn_id, scb: cdb, lun, attribute, tag };
        self.post(shard, KEvent::CmdReq(req), Some(CmdData { buf, ..CmdData::default() }));
        Some(tag)
    }

    pub fn function(&mut self, shard: u8, nexus: (HostNo, ItnId), function: i32, lun: Lun, tag: Tag) {
        self.mid += 1;
        let (host_no, itn_id) = nexus;
        self.functions.push(self.mid);
        self.post(shard, KEvent::TskMgmtReq(TskMgmtReq { host_no, function, itn_id, tag, lun, mid: self.mid }), None);
    }

    pub fn question(&mut self, shard: u8, nexus: (HostNo, ItnId), subscribe: bool, lun: Lun, events: u32) {
        self.mid += 1;
        let (host_no, itn_id) = nexus;
        let function = if subscribe { AsyncFunction::Subscribe } else { AsyncFunction::Query };
        self.questions.push(self.mid);
        self.post(shard, KEvent::AsyncReq(AsyncReq { host_no, function, itn_id, lun, events, mid: self.mid }), None);
    }

    pub fn create(&mut self, shard: u8, host_no: HostNo, n: u8) -> ItnId {
        let itn_id = self.target.next_itn_id().expect("a number");
        self.hosts.insert(itn_id, host_no);
        let req = ItNexusReq { host_no, function: NexusFunction::Create, itn_id, max_cmds: 128, initiator_id: [n; 16] };
        self.post(shard, KEvent::ItNexusReq(req), None);
        itn_id
    }

    pub fn destroy(&mut self, shard: u8, nexus: (HostNo, ItnId)) {
        let (host_no, itn_id) = nexus;
        let function = NexusFunction::Destroy;
        let req = ItNexusReq { host_no, function, itn_id, max_cmds: 0, initiator_id: [0; 16] };
        self.post(shard, KEvent::ItNexusReq(req), None);
    }

    /// Delivers one letter; false if there is none.
    pub fn deliver(&mut self, shard: u8) -> bool {
        let Some(mail) = self.mail.0.lock().expect("no panic")[usize::from(shard)].pop_front() else { return false };
        let r = &mut self.reactors[usize::from(shard)];
        r.shard.on_mail(mail, &mut r.io, &mut r.rings);
        self.turn(shard);
        true
    }

    /// Lets one held operation end: carried out, or with an error. What it is about to do is shown to `look` before.
    pub fn complete(&mut self, at: usize, error: Option<BackingError>, look: &mut dyn FnMut(&Rig, Doing)) -> bool {
        let counts: Vec<usize> = self.reactors.iter().map(|r| r.io.held.len()).collect();
        let total: usize = counts.iter().sum();
        if total == 0 {
            return false;
        }
        let at = at % total;
        let (shard, at) = if at < counts[0] { (0, at) } else { (1, at - counts[0]) };
        let r = &mut self.reactors[shard];
        let HeldOp { cookie, image, op, mut buf } = r.io.held.remove(at);
        let was_cancelled = r.io.cancelled.contains(&cookie);
        r.io.cancelled.retain(|other| *other != cookie);
        let unit = self.units.iter().position(|unit| std::ptr::addr_eq(Arc::as_ptr(&unit.image), Arc::as_ptr(&image)));
        look(self, Doing::Io(Tag(cookie), unit.expect("an image of a unit"), op));
        let Op { kind, offset, len } = op;
        let result = match (error, kind) {
            (Some(BackingError::Cancelled), _) if was_cancelled => Err(BackingError::Cancelled),
            (Some(error), _) if error != BackingError::Cancelled => Err(error),
            (_, OpKind::Read) => image.read(offset, len, &mut buf, 0),
            (_, OpKind::Write { fua }) => image.write(offset, len, &buf, 0, fua),
            (_, OpKind::Flush) => image.flush(),
            (_, OpKind::Unmap) => image.unmap(offset, len),
            (_, OpKind::WriteZeroes { unmap }) => image.write_zeroes(offset, len, unmap),
        };
        look(self, Doing::Ended);
        // Of one that failed nothing is known.
        let intact = if result.is_ok() { len } else { 0 };
        let r = &mut self.reactors[shard];
        r.shard.on_completion(Completion { cookie, result, intact, buf }, &mut r.io, &mut r.rings);
        self.turn(shard as u8);
        true
    }

    /// Runs one job; what it did is shown to `look` afterwards. It may wait for something in the background: that runs before.
    pub fn run_job(&mut self, at: usize, look: &mut dyn FnMut(&Rig, Doing)) -> bool {
        while self.run_background(look) {}
        let (owner, work) = {
            let mut jobs = self.pool.0.lock().expect("no panic");
            let Some(at) = at.checked_rem(jobs.len()) else { return false };
            jobs.remove(at).expect("it is there")
        };
        self.background.at_once.store(true, Ordering::Relaxed);
        work();
        self.background.at_once.store(false, Ordering::Relaxed);
        look(self, Doing::Job(owner));
        true
    }

    /// Runs what was to run in the background longest.
    pub fn run_background(&mut self, look: &mut dyn FnMut(&Rig, Doing)) -> bool {
        let Some(work) = self.background.held.lock().expect("no panic").pop_front() else { return false };
        work();
        look(self, Doing::Background);
        true
    }

    /// Posts a CMD_DONE that is owed.
    pub fn done(&mut self) -> bool {
        let Some(tag) = self.done_owed.pop() else { return false };
        let r = &mut self.reactors[usize::from(tag.shard())];
        let at = r.owed.iter().position(|done| done.tag == tag).expect("it is owed");
        let done = r.owed.remove(at);
        r.rings.post_done(done);
        self.turn(tag.shard());
        true
    }

    /// Lets everything go on until nothing is left to go on with. Then nothing may be open, but for commands that wait until an ACA
    /// condition is cleared: it is (SAM-5 5.9).
    pub fn settle(&mut self, look: &mut dyn FnMut(&Rig, Doing)) {
        self.go_on(look);
        // A command that waited may be the cause of the next one.
        for _ in 0..2 * usize::from(QUEUE_SIZE) {
            if self.open.is_empty() {
                break;
            }
            let nexuses: BTreeSet<ItnId> = self.target.nexuses().into_iter().map(|(itn_id, _)| itn_id).collect();
            let addresses: Vec<_> = self.units.iter().map(|unit| unit.address).collect();
            for (itn_id, (target, lun)) in
                nexuses.iter().flat_map(|itn_id| addresses.iter().map(move |at| (*itn_id, *at)))
            {
                let lun = Lun::new(target, lun).expect("an address");
                let nexus = (self.host_of(itn_id), itn_id);
                self.function(0, nexus, TaskManagementFunction::ClearAca as i32, lun, Tag::NONE);
            }
            self.go_on(look);
        }
        assert!(self.open.is_empty(), "never answered: {:?}", self.open);
        assert!(self.functions.is_empty(), "task management functions never answered");
        assert!(self.questions.is_empty(), "questions never answered");
        assert_eq!(self.reactors.iter().map(|r| r.shard.tasks()).sum::<usize>(), 0, "tasks that nobody sent");
    }

    fn go_on(&mut self, look: &mut dyn FnMut(&Rig, Doing)) {
        for _ in 0..STEPS {
            let goes_on = (0..SHARDS).any(|shard| self.deliver(shard))
                || self.done()
                || self.complete(0, None, look)
                || self.run_job(0, look)
                || self.run_background(look);
            if !goes_on {
                return;
            }
        }
        panic!("it goes on for ever");
    }

    /// The host that a nexus was made on.
    fn host_of(&self, itn_id: ItnId) -> HostNo {
        self.hosts.get(&itn_id).copied().unwrap_or(HOST)
    }
}
