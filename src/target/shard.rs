//! One reactor's part of the target: its tasks, and a command's way through it.

use std::collections::HashSet;
use std::sync::Arc;
use std::time::Instant;

use super::aca::{self, Place};
use super::changes::Begun;
use super::nexus::{NO_UNIT, Nexus, TargetView, Unit, WELL_KNOWN};
use super::order::Order;
use super::state::slot_of;
use super::task::{Copies, Ending, State, Tasks, Until};
use super::waiting::Again;
use super::{Notes, Post, ShardMail, Spawn, Target, job};
use crate::backing::{Completion, Submit};
use crate::device_server::{self, AbortFlag, Answer, Copying, Decision, Exclusive, Finish, Job, Noted, Plan, Request};
use crate::lu::{Aborted, Attention, Itl, Ports};
use crate::mem::{Direction, IoBuf};
use crate::scsi::opcode::{self, Replay};
use crate::scsi::{
    AdditionalSense, CommandResult, HostByte, LunAddress, Sense, SenseFormat, SenseKey, Status, TaskAttribute,
};
use crate::tgt::{CmdAnswer, CmdData, CmdReq, CmdRsp, EventRings, ItnId, KEvent, RxSlot, Tag, TxSlot, UEvent};

/// SIMPLE in tgt's numbers: what almost every command is.
const SIMPLE: i32 = 0x20;

/// ORDERED in tgt's numbers.
const ORDERED: i32 = 0x22;

/// The most sense data that goes to an initiator, in bytes (SPC-4 4.5.1).
const MAX_SENSE: usize = 252;

/// A task attribute that there is not, or the ACA attribute without an ACA condition (SAM-5 8.5).
const INVALID_ATTRIBUTE: Sense = Sense::new(SenseKey::IllegalRequest, AdditionalSense(0x4900));

/// A nexus as a shard knows it.
#[derive(Debug)]
pub(super) struct Known {
    pub(super) nexus: Arc<Nexus>,
    /// Being destroyed: takes no more commands.
    pub(super) ending: bool,
}

/// An order whose tasks here are not all over.
#[derive(Debug)]
pub(super) struct Pending {
    pub(super) order: Arc<Order>,
    /// The tasks that are missing.
    pub(super) left: HashSet<Tag>,
}

/// One reactor's part of the target.
///
/// Not thread-safe, and driven by its reactor only. Every call returns without waiting.
pub struct Shard {
    pub(super) index: u8,
    pub(super) target: Arc<Target>,
    pub(super) post: Arc<dyn Post>,
    pub(super) pool: Arc<dyn Spawn>,
    /// By slot number.
    nexuses: Vec<Option<Known>>,
    pub(super) tasks: Tasks,
    pub(super) pending: Vec<Pending>,
    /// Changes of units that have begun here.
    pub(super) changes: Vec<Begun>,
    /// Task management functions of this shard that wait, and until when.
    pub(super) open: Vec<(Instant, Arc<Order>)>,
    /// Whether an ORDERED command may be waiting here for the hold of another one to end.
    pub(super) barred: bool,
    /// How many commands were taken.
    pub(super) serial: u64,
}

impl std::fmt::Debug for Shard {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Shard")
            .field("index", &self.index)
            .field("tasks", &self.tasks.in_flight())
            .field("pending", &self.pending)
            .finish_non_exhaustive()
    }
}

impl Shard {
    /// Shard `index` of `target`.
    pub fn new(index: u8, target: Arc<Target>, post: Arc<dyn Post>, pool: Arc<dyn Spawn>) -> Shard {
        Shard {
            index,
            target,
            post,
            pool,
            nexuses: Vec::new(),
            tasks: Tasks::default(),
            pending: Vec::new(),
            changes: Vec::new(),
            open: Vec::new(),
            barred: false,
            serial: 0,
        }
    }

    /// Makes the task table of a virtqueue: `queue` and descriptor heads below `size` are what tags may name.
    pub fn open_queue(&mut self, queue: u16, size: u16) {
        self.tasks.open(queue, size);
    }

    /// Decisions about a virtqueue's commands are noted there from now on.
    pub fn keep_notes(&mut self, queue: u16, notes: Arc<dyn Notes>) {
        self.tasks.keep_notes(queue, notes);
    }

    /// Frees it, now or when its last task is over. It takes no more commands.
    pub fn close_queue(&mut self, queue: u16) {
        self.tasks.close(queue);
    }

    /// An event of the tx ring. Every request is answered on `rings`, now or later, exactly once; a command's buffer comes
    /// back with its answer.
    pub fn on_event(&mut self, slot: TxSlot, io: &mut dyn Submit, rings: &mut EventRings) {
        match slot.event {
            KEvent::CmdReq(mut req) => self.command(&mut req, slot.data.unwrap_or_default(), io, rings),
            KEvent::CmdDone(done) => self.command_done(done.tag, io, rings),
            KEvent::ItNexusReq(req) => self.nexus_request(req, rings),
            KEvent::TskMgmtReq(req) => self.task_management(req, rings),
            KEvent::AsyncReq(req) => self.async_request(&req, rings),
        }
    }

    /// A completion of this reactor's I/O port; its cookie is the task's tag.
    pub fn on_completion(&mut self, c: Completion, _io: &mut dyn Submit, rings: &mut EventRings) {
        let tag = Tag(c.cookie);
        let Some(task) = self.tasks.get(tag) else {
            // Cannot happen while ports complete each operation once; the buffer is leaked, not reused.
            log::error!("completion of an unknown command {tag:?}");
            debug_assert!(false, "completion of an unknown command {tag:?}");
            return;
        };
        let State::Io(finish) = task.state else {
            log::error!("completion of a command that is not at the backing: {task:?}");
            debug_assert!(false, "completion of a command that is not at the backing: {task:?}");
            return;
        };
        if let (Ok(()), None) = (c.result, task.ended) {
            return self.reply(tag, Reply::good(finish.transferred), c.buf, rings);
        }
        self.ended_otherwise(tag, finish, c, rings);
    }

    /// An operation failed, or its command is to end otherwise than as it did.
    #[cold]
    fn ended_otherwise(&mut self, tag: Tag, finish: Finish, c: Completion, rings: &mut EventRings) {
        let Some(task) = self.tasks.get(tag) else { return };
        let unit = known(&self.nexuses, task.itn_id).and_then(|k| k.nexus.unit(task.target, task.lun));
        let intact = match (c.result, unit) {
            (Err(_), Some(unit)) => c.intact / u64::from(unit.itl.lu().geometry().block_size),
            _ => 0,
        };
        let answer = device_server::io_done(finish, c.result, intact);
        if let (Some(sense), Some(unit)) = (&answer.sense, unit) {
            device_server::io_failed(&unit.itl, sense);
        }
        self.answer(tag, answer, c.buf, rings);
    }

    /// A letter.
    pub fn on_mail(&mut self, mail: ShardMail, io: &mut dyn Submit, rings: &mut EventRings) {
        match mail {
            ShardMail::Order(order) => self.carry_out(order, io, rings),
            ShardMail::OrderDone(order) => self.order_done(&order, io, rings),
            ShardMail::JobDone(done) => self.answer(done.tag, done.answer, done.buf, rings),
            ShardMail::Report { itn_id, target, lun } => self.report(itn_id, target, lun, rings),
            ShardMail::Persisted(done) => self.persisted(done, io, rings),
            ShardMail::Turn { lu, task } => self.take_turn(lu, task, io, rings),
            ShardMail::Release => self.release(io, rings),
        }
    }

    /// Tasks in flight: between `CMD_REQ` and `CMD_DONE`.
    pub fn tasks(&self) -> usize {
        self.tasks.in_flight()
    }

    fn command(&mut self, req: &mut CmdReq, data: CmdData, io: &mut dyn Submit, rings: &mut EventRings) {
        let tag = req.tag;
        let claimed = if tag.shard() == self.index { self.tasks.claim(tag) } else { None };
        let Some(task) = claimed else {
            // The hba's fault, whatever the guest did: heads are its to guard.
            log::error!("command refused: tag {tag:?} is in use or not of an open queue");
            let refused = Reply { result: CommandResult::host(HostByte::Error), len: 0, sense: None };
            return refused.post(req.host_no, req.itn_id, tag, false, data.buf, rings);
        };
        // The rest of it is as it was left: free.
        (task.state, task.tag, task.itn_id, task.host_no) = (State::Changing, tag, req.itn_id, req.host_no);
        (task.serial, task.naca) = (self.serial, aca::naca(&req.scb));
        task.once = opcode::replay_of(&req.scb) != Replay::Repeat;
        self.serial += 1;
        req.attribute = device_server::processed_as(&req.scb, req.attribute);
        self.start(req, data, None, io, rings);
    }

    /// Starts a command that has its place in the table: for the first time, or `again`, when what it waited for is over.
    pub(super) fn start(
        &mut self,
        req: &CmdReq,
        mut data: CmdData,
        again: Option<Again>,
        io: &mut dyn Submit,
        rings: &mut EventRings,
    ) {
        let tag = req.tag;
        let route = match route(&self.nexuses, req) {
            Ok(route) => route,
            Err(host) => return self.reply(tag, Ending::Host(host).reply(), data.buf, rings),
        };
        let Some(task) = self.tasks.get(tag) else { return };
        (task.lu, task.target, task.lun) = (route.lu, route.view.target, route.lun);
        let once = task.once;
        let mut attribute = TaskAttribute::Simple;
        // What almost every command is: it came just now, SIMPLE, and no ORDERED one stands anywhere. The rest is for the others.
        let plain = again.is_none() && data.taken == 0 && req.attribute == SIMPLE && !self.barred;
        if !plain {
            if let (1.., Some(unit), true) = (data.taken, route.unit, again.is_none())
                && let Some(how) = ended_since(&unit.itl, &data)
            {
                return self.reply(tag, how.reply(), data.buf, rings);
            }
            if let (Some(unit), true, true) = (route.unit, self.barred, again.is_none())
                && matches!(req.attribute, SIMPLE | ORDERED)
                && !unit.itl.has_aca()
            {
                // The hold that an ORDERED command waits for may be over on all shards before this one hears of it: nothing that comes
                // now passes it (SAM-5 8.6). What ends the hold asks for all of them again, in their order.
                let everybody = unit.itl.lu().mode().tst == 0;
                let (itn_id, lu) = (req.itn_id, route.lu);
                let (mut any, mut passed) = (false, false);
                for task in self.tasks.iter_mut().filter(|task| task.is_barred()) {
                    any = true;
                    passed |= task.lu == lu && (everybody || task.itn_id == itn_id);
                }
                self.barred = any;
                if passed {
                    let itl = Arc::clone(&unit.itl);
                    return self.put_aside(req, data, Again::default(), &itl, Until::Released);
                }
            }
            let Some(task) = self.tasks.get(tag) else { return };
            if let Some(unit) = route.unit
                && req.attribute != SIMPLE
            {
                attribute = TaskAttribute::from_tgt_code(req.attribute).unwrap_or_default();
                if again.is_none() {
                    match aca::place(req, &unit.itl) {
                        Place::Usual => {}
                        Place::Taken => task.aca = true,
                        Place::Busy => {
                            return self.answer(tag, Answer::status(Status::AcaActive), data.buf, rings);
                        }
                        Place::Wrong => return self.answer(tag, INVALID_ATTRIBUTE.into(), data.buf, rings),
                    }
                }
                // One that comes now does not wait for CLEAR ACA, as those do that waited when the condition came.
                if attribute == TaskAttribute::Ordered && again.is_none() && unit.itl.has_aca() {
                    return self.answer(tag, Answer::status(Status::AcaActive), data.buf, rings);
                }
                if attribute == TaskAttribute::Ordered && task.holds.is_empty() {
                    // It is not to wait for what ends only when the initiator knows of it (SAM-5 5.9.2).
                    if again.is_none() && unit.itl.has_aca() {
                        return self.answer(tag, Answer::status(Status::AcaActive), data.buf, rings);
                    }
                    let itl = Arc::clone(&unit.itl);
                    return self.order_task_set(req, data, again.unwrap_or_default(), &itl);
                }
            }
            if let (Some(unit), true) = (route.unit, again.is_some())
                && unit.itl.has_aca()
                && !task.aca
            {
                let itl = Arc::clone(&unit.itl);
                self.give_blocks_back(tag, &itl);
                return self.put_aside(req, data, again.unwrap_or_default(), &itl, Until::Released);
            }
        }
        let whole;
        let cdb = match &data.cdb_tail {
            None => &req.scb[..],
            Some(tail) => {
                whole = [&req.scb[..], tail].concat();
                &whole
            }
        };
        let itl = route.unit.map(|unit| &unit.itl);
        let passes = again.as_ref().map_or(&[][..], |again| &again.passes);
        let ports = Ports { all: self.target.ports(), own: route.port };
        let well_known = (route.lu == WELL_KNOWN).then_some(ports);
        let request = Request { cdb, itl, luns: &route.view.luns, peers: route.nexus, well_known, attribute, passes };
        // Of a command that leaves no notes none are looked for.
        let memo = || self.tasks.memo(tag).filter(|_| opcode::replay_of(&req.scb) == Replay::Compares);
        let earlier = if data.earlier == 0 { None } else { Decision::decode(data.earlier) };
        let noted = Noted { earlier, memo: if once { memo() } else { None } };
        let started = device_server::start_noted(&request, &noted, &mut data.buf);
        let Some(task) = self.tasks.get(tag) else { return };
        (task.needs, task.touches, task.copies) = (started.needs, started.touches, None);
        match started.plan {
            Plan::Io(plan) => {
                task.state = State::Io(plan.finish);
                io.submit(plan.image, plan.op, data.buf, tag.0);
            }
            Plan::Done(answer) => self.answer(tag, answer, data.buf, rings),
            Plan::Job(plan) => self.spawn(tag, plan, data.buf),
            Plan::Copy(Copying { uses, job }) => {
                task.copies = Some(Copies::of(route.nexus, &uses));
                self.spawn(tag, job, data.buf);
            }
            Plan::Exclusive(plan) if task.has_blocks => self.spawn(tag, plan.job, data.buf),
            Plan::Exclusive(Exclusive { extent, .. }) => {
                let Some(itl) = itl.cloned() else { return };
                self.hold_blocks(req, data, again.unwrap_or_default(), &itl, extent);
            }
            Plan::Change(change) => {
                let Some(itl) = itl.cloned() else { return };
                self.put_aside(req, data, again.unwrap_or_default(), &itl, Until::Turn(change));
                self.join_line(req, io, rings);
            }
            Plan::Held => {
                let Some(itl) = itl.cloned() else { return };
                self.put_aside(req, data, again.unwrap_or_default(), &itl, Until::Released);
            }
        }
    }

    fn spawn(&mut self, tag: Tag, plan: Job, buf: IoBuf) {
        let Some(task) = self.tasks.get(tag) else { return };
        let abort = AbortFlag::default();
        task.state = State::Job(abort.clone());
        let owner = task.itn_id;
        self.pool.spawn(owner, job::work(plan, abort, buf, tag, self.index, Arc::clone(&self.post)));
    }

    /// Answers a command with what it ended with, unless it was ended before.
    pub(super) fn answer(&mut self, tag: Tag, answer: Answer, buf: IoBuf, rings: &mut EventRings) {
        let Some(task) = self.tasks.get(tag).filter(|task| !task.is_answered()) else {
            log::error!("result of a command that waits for none: {tag:?}");
            debug_assert!(false, "result of a command that waits for none: {tag:?}");
            return;
        };
        let ended = task.ended;
        let reply = match ended {
            Some(ending) => ending.reply(),
            None if answer.sense.is_some() => {
                let place = (task.itn_id, task.target, task.lun);
                let format = self.itl(place).map_or(SenseFormat::Fixed, |itl| itl.lu().sense_format());
                self.checked(tag);
                Reply::of(&answer, format)
            }
            None => Reply::of(&answer, SenseFormat::Fixed),
        };
        self.reply(tag, reply, buf, rings);
    }

    /// Posts a command's one answer. What it held is over.
    pub(super) fn reply(&mut self, tag: Tag, reply: Reply, buf: IoBuf, rings: &mut EventRings) {
        let Some(task) = self.tasks.get(tag) else { return };
        task.state = State::Answered;
        let once = task.once;
        reply.post(task.host_no, task.itn_id, tag, once, buf, rings);
        if task.aca || !task.holds.is_empty() {
            self.let_go(tag);
        }
    }

    #[cold]
    fn let_go(&mut self, tag: Tag) {
        let Some(task) = self.tasks.get(tag) else { return };
        let (aca, holds) = (std::mem::take(&mut task.aca), std::mem::take(&mut task.holds));
        let place = (task.itn_id, task.target, task.lun);
        let Some(itl) = self.itl(place) else { return };
        if aca {
            itl.end_aca_task();
        }
        for &hold in &holds {
            itl.lu().end_hold(hold);
        }
        if !holds.is_empty() {
            self.tell_release();
        }
    }

    /// The unit that a task is at: nexus, target number, LUN.
    pub(super) fn itl(&self, (itn_id, target, lun): (ItnId, u8, u16)) -> Option<Arc<Itl>> {
        self.known(itn_id)?.nexus.unit(target, lun).map(|unit| Arc::clone(&unit.itl))
    }

    fn command_done(&mut self, tag: Tag, io: &mut dyn Submit, rings: &mut EventRings) {
        if !self.tasks.free(tag) {
            // After a refused command; the task that its tag may name is another one, or not answered yet.
            log::debug!("CMD_DONE of no answered command: {tag:?}");
            return;
        }
        if !self.pending.is_empty() {
            self.task_over(tag, io, rings);
        }
    }

    pub(super) fn known(&self, itn_id: ItnId) -> Option<&Known> {
        known(&self.nexuses, itn_id)
    }

    /// Takes a nexus into the table.
    pub(super) fn learn(&mut self, nexus: &Arc<Nexus>) {
        let slot = slot_of(nexus.itn_id);
        if self.nexuses.len() <= slot {
            self.nexuses.resize_with(slot + 1, || None);
        }
        if let Some(entry) = self.nexuses.get_mut(slot) {
            debug_assert!(entry.is_none(), "the slot's last nexus was not forgotten");
            *entry = Some(Known { nexus: Arc::clone(nexus), ending: false });
        }
    }

    /// Takes no more commands of a nexus.
    pub(super) fn begin_end(&mut self, itn_id: ItnId) {
        if let Some(Some(known)) = self.nexuses.get_mut(slot_of(itn_id)) {
            known.ending |= known.nexus.itn_id == itn_id;
        }
    }

    /// Takes a nexus out of the table.
    pub(super) fn forget(&mut self, itn_id: ItnId) {
        if let Some(entry) = self.nexuses.get_mut(slot_of(itn_id)) {
            *entry = entry.take().filter(|known| known.nexus.itn_id != itn_id);
        }
    }
}

/// Where a command goes.
struct Route<'a> {
    nexus: &'a Nexus,
    view: &'a TargetView,
    unit: Option<&'a Unit>,
    lu: u32,
    lun: u16,
    /// The relative identifier of the nexus's target port.
    port: u16,
}

fn known(nexuses: &[Option<Known>], itn_id: ItnId) -> Option<&Known> {
    nexuses.get(slot_of(itn_id))?.as_ref().filter(|known| known.nexus.itn_id == itn_id)
}

/// How a command ends that a process before this one had taken, if it was aborted by another nexus since. One whose change was made needs its
/// answer all the same.
fn ended_since(itl: &Itl, data: &CmdData) -> Option<Ending> {
    let lu = itl.lu();
    if let Some(Decision::Change(name)) = Decision::decode(data.earlier)
        && lu.was_made(name)
    {
        return None;
    }
    match lu.was_aborted(itl.nexus(), data.taken)? {
        _ if lu.mode().tas => Some(Ending::TaskAborted),
        Aborted::WithTheUnit => Some(Ending::Host(HostByte::Reset)),
        Aborted::ByPreempting => {
            itl.establish(Attention::CommandsCleared);
            Some(Ending::Host(HostByte::Abort))
        }
    }
}

fn route<'a>(nexuses: &'a [Option<Known>], req: &CmdReq) -> Result<Route<'a>, HostByte> {
    let nexus = match known(nexuses, req.itn_id) {
        Some(known) if !known.ending && known.nexus.host_no == req.host_no => &known.nexus,
        _ => return Err(HostByte::TransportDisrupted),
    };
    let port = nexus.id.port;
    match req.lun.address() {
        LunAddress::Unit { target, lun } => {
            let view = nexus.target(target).ok_or(HostByte::BadTarget)?;
            let unit = view.unit(lun);
            Ok(Route { nexus, view, unit, lu: unit.map_or(NO_UNIT, |unit| unit.lu), lun, port })
        }
        LunAddress::ReportLuns => {
            let view = nexus.first_target().ok_or(HostByte::BadTarget)?;
            Ok(Route { nexus, view, unit: None, lu: WELL_KNOWN, lun: 0, port })
        }
        LunAddress::Invalid => Err(HostByte::BadTarget),
    }
}

/// What a `CMD_RSP` says.
pub(super) struct Reply {
    pub(super) result: CommandResult,
    pub(super) len: u64,
    pub(super) sense: Option<Box<[u8]>>,
}

impl Reply {
    /// GOOD.
    fn good(transferred: u64) -> Reply {
        Reply { result: CommandResult::status(Status::Good), len: transferred, sense: None }
    }

    pub(super) fn of(answer: &Answer, format: SenseFormat) -> Reply {
        Reply {
            result: CommandResult::status(answer.status),
            len: answer.transferred,
            sense: answer.sense.map(|sense| sense.encode(format, MAX_SENSE).into_boxed_slice()),
        }
    }

    fn post(self, host_no: i32, itn_id: ItnId, tag: Tag, once: bool, buf: IoBuf, rings: &mut EventRings) {
        let event = CmdRsp {
            host_no,
            result: self.result.encode(),
            itn_id,
            tag,
            uaddr: 0,
            len: u32::try_from(self.len).unwrap_or(u32::MAX),
            sense_uaddr: 0,
            sense_len: self.sense.as_ref().map_or(0, |sense| sense.len() as u32),
            rw: u8::from(buf.direction() == Direction::Out),
        };
        let answer = CmdAnswer { buf, sense: self.sense, once };
        rings.post_answer(RxSlot { event: UEvent::CmdRsp(event), answer: Some(answer) });
    }
}
