//! One reactor's part of the target: its tasks, and a command's way through it.

use std::sync::Arc;

use super::nexus::{NO_UNIT, Nexus, TargetView, Unit, WELL_KNOWN};
use super::order::Order;
use super::state::slot_of;
use super::task::{State, Task, Tasks};
use super::{Post, ShardMail, Spawn, Target, job};
use crate::backing::{Completion, Submit};
use crate::device_server::{self, AbortFlag, Answer, Plan, Request};
use crate::mem::{Direction, IoBuf};
use crate::scsi::{AdditionalSense, CommandResult, HostByte, LunAddress, Sense, SenseFormat, SenseKey, TaskAttribute};
use crate::tgt::{CmdAnswer, CmdData, CmdReq, CmdRsp, EventRings, ItnId, KEvent, RxSlot, Tag, TxSlot, UEvent};

/// The most sense data that goes to an initiator, in bytes (SPC-4 4.5.1).
const MAX_SENSE: usize = 252;

/// The ACA attribute where there is no ACA condition, which here there never is: NormACA is zero (SAM-5 8.5).
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
    /// Commands taken from here on are not covered.
    pub(super) before: u64,
    /// How many tasks are missing.
    pub(super) left: usize,
}

/// One reactor's part of the target.
///
/// Not thread-safe, and driven by its reactor only. Every call returns without waiting.
pub struct Shard {
    pub(super) index: u8,
    pub(super) target: Arc<Target>,
    pub(super) post: Arc<dyn Post>,
    pool: Arc<dyn Spawn>,
    /// By slot number.
    nexuses: Vec<Option<Known>>,
    pub(super) tasks: Tasks,
    pub(super) pending: Vec<Pending>,
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
            serial: 0,
        }
    }

    /// Makes the task table of a virtqueue: `queue` and descriptor heads below `size` are what tags may name.
    pub fn open_queue(&mut self, queue: u16, size: u16) {
        self.tasks.open(queue, size);
    }

    /// Frees it, now or when its last task is over. It takes no more commands.
    pub fn close_queue(&mut self, queue: u16) {
        self.tasks.close(queue);
    }

    /// An event of the tx ring. Every request is answered on `rings`, now or later, exactly once; a command's buffer comes
    /// back with its answer.
    pub fn on_event(&mut self, slot: TxSlot, io: &mut dyn Submit, rings: &mut EventRings) {
        match slot.event {
            KEvent::CmdReq(req) => self.command(&req, slot.data.unwrap_or_default(), io, rings),
            KEvent::CmdDone(done) => self.command_done(done.tag, rings),
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
        let answer = device_server::io_done(finish, c.result);
        if let Some(sense) = &answer.sense
            && let Some(unit) = known(&self.nexuses, task.itn_id).and_then(|k| k.nexus.unit(task.target, task.lun))
        {
            device_server::io_failed(&unit.itl, sense);
        }
        self.answer(tag, answer, c.buf, rings);
    }

    /// A letter.
    pub fn on_mail(&mut self, mail: ShardMail, io: &mut dyn Submit, rings: &mut EventRings) {
        match mail {
            ShardMail::Order(order) => self.carry_out(order, io, rings),
            ShardMail::OrderDone(order) => self.order_done(&order, rings),
            ShardMail::JobDone(done) => self.answer(done.tag, done.answer, done.buf, rings),
            ShardMail::Report { itn_id, target, lun } => self.report(itn_id, target, lun, rings),
        }
    }

    /// Tasks in flight: between `CMD_REQ` and `CMD_DONE`.
    pub fn tasks(&self) -> usize {
        self.tasks.in_flight()
    }

    /// Ends the tasks of a nexus on this shard, without a task management function: each is answered with `how` as
    /// soon as its buffer is back. Does not wait for that.
    pub fn abort_nexus(&mut self, itn_id: ItnId, how: HostByte, io: &mut dyn Submit, _rings: &mut EventRings) {
        for task in self.tasks.iter_mut().filter(|task| task.itn_id == itn_id) {
            end(task, how, io);
        }
    }

    /// The same for the tasks of a virtqueue.
    pub fn abort_queue(&mut self, queue: u16, how: HostByte, io: &mut dyn Submit, _rings: &mut EventRings) {
        for task in self.tasks.of_queue(queue) {
            end(task, how, io);
        }
    }

    fn command(&mut self, req: &CmdReq, data: CmdData, io: &mut dyn Submit, rings: &mut EventRings) {
        let CmdData { mut buf, cdb_tail } = data;
        let tag = req.tag;
        let claimed = if tag.shard() == self.index { self.tasks.claim(tag) } else { None };
        let Some(task) = claimed else {
            // The hba's fault, whatever the guest did: heads are its to guard.
            log::error!("command refused: tag {tag:?} is in use or not of an open queue");
            let refused = Reply { result: CommandResult::host(HostByte::Error), len: 0, sense: None };
            return refused.post(req.host_no, req.itn_id, tag, buf, rings);
        };
        *task = Task {
            state: State::Answered,
            ended: None,
            tag,
            itn_id: req.itn_id,
            host_no: req.host_no,
            lu: NO_UNIT,
            target: 0,
            lun: 0,
            serial: self.serial,
        };
        self.serial += 1;
        let route = match route(&self.nexuses, req) {
            Ok(route) => route,
            Err(host) => {
                let reply = Reply { result: CommandResult::host(host), len: 0, sense: None };
                return reply.post(req.host_no, req.itn_id, tag, buf, rings);
            }
        };
        (task.lu, task.target, task.lun) = (route.lu, route.view.target, route.lun);

        let whole;
        let plan = if route.unit.is_some() && attribute_is_wrong(req.attribute) {
            Plan::Done(Answer::check(INVALID_ATTRIBUTE))
        } else {
            let cdb = match &cdb_tail {
                None => &req.scb[..],
                Some(tail) => {
                    whole = [&req.scb[..], tail].concat();
                    &whole
                }
            };
            let itl = route.unit.map(|unit| &unit.itl);
            let attribute = TaskAttribute::from_tgt_code(req.attribute).unwrap_or_default();
            let luns = &route.view.luns;
            let request = Request { cdb, itl, luns, well_known: route.lu == WELL_KNOWN, attribute, passes: &[] };
            device_server::start(&request, &mut buf).plan
        };
        match plan {
            Plan::Done(answer) => {
                let format = route.unit.map_or(SenseFormat::Fixed, sense_format);
                Reply::of(&answer, format).post(req.host_no, req.itn_id, tag, buf, rings);
            }
            Plan::Io(plan) => {
                task.state = State::Io(plan.finish);
                io.submit(plan.image, plan.op, buf, tag.0);
            }
            Plan::Change(_) | Plan::Held => {
                let answer = Answer::status(crate::scsi::Status::Busy);
                Reply::of(&answer, SenseFormat::Fixed).post(req.host_no, req.itn_id, tag, buf, rings);
            }
            Plan::Job(plan) | Plan::Exclusive(device_server::Exclusive { job: plan, .. }) => {
                let abort = AbortFlag::default();
                task.state = State::Job(abort.clone());
                self.pool.spawn(req.itn_id, job::work(plan, abort, buf, tag, self.index, Arc::clone(&self.post)));
            }
        }
    }

    /// Answers a command that was at the backing or in a job.
    fn answer(&mut self, tag: Tag, answer: Answer, buf: IoBuf, rings: &mut EventRings) {
        let Some(task) = self.tasks.get(tag).filter(|task| !task.is_answered()) else {
            log::error!("result of a command that waits for none: {tag:?}");
            debug_assert!(false, "result of a command that waits for none: {tag:?}");
            return;
        };
        task.state = State::Answered;
        let reply = match task.ended {
            Some(host) => Reply { result: CommandResult::host(host), len: 0, sense: None },
            None => {
                let format = || {
                    let nexus = known(&self.nexuses, task.itn_id)?;
                    nexus.nexus.unit(task.target, task.lun).map(sense_format)
                };
                let format = if answer.sense.is_some() { format() } else { None };
                Reply::of(&answer, format.unwrap_or_default())
            }
        };
        reply.post(task.host_no, task.itn_id, tag, buf, rings);
    }

    fn command_done(&mut self, tag: Tag, rings: &mut EventRings) {
        let Some(task) = self.tasks.free(tag) else {
            // After a refused command; the task that its tag may name is another one, or not answered yet.
            log::debug!("CMD_DONE of no answered command: {tag:?}");
            return;
        };
        if !self.pending.is_empty() {
            self.task_over(&task, rings);
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
    view: &'a TargetView,
    unit: Option<&'a Unit>,
    lu: u32,
    lun: u16,
}

fn known(nexuses: &[Option<Known>], itn_id: ItnId) -> Option<&Known> {
    nexuses.get(slot_of(itn_id))?.as_ref().filter(|known| known.nexus.itn_id == itn_id)
}

fn route<'a>(nexuses: &'a [Option<Known>], req: &CmdReq) -> Result<Route<'a>, HostByte> {
    let nexus = match known(nexuses, req.itn_id) {
        Some(known) if !known.ending && known.nexus.host_no == req.host_no => &known.nexus,
        _ => return Err(HostByte::TransportDisrupted),
    };
    match req.lun.address() {
        LunAddress::Unit { target, lun } => {
            let view = nexus.target(target).ok_or(HostByte::BadTarget)?;
            let unit = view.unit(lun);
            Ok(Route { view, unit, lu: unit.map_or(NO_UNIT, |unit| unit.lu), lun })
        }
        LunAddress::ReportLuns => {
            let view = nexus.first_target().ok_or(HostByte::BadTarget)?;
            Ok(Route { view, unit: None, lu: WELL_KNOWN, lun: 0 })
        }
        LunAddress::Invalid => Err(HostByte::BadTarget),
    }
}

fn attribute_is_wrong(code: i32) -> bool {
    matches!(TaskAttribute::from_tgt_code(code), Err(_) | Ok(TaskAttribute::Aca))
}

fn sense_format(unit: &Unit) -> SenseFormat {
    unit.itl.lu().sense_format()
}

/// Ends a task: asks whoever has it for it, and sees to it that it is not answered with its own result. The first that
/// ends it determines the answer. A task that was answered stays as it is.
pub(super) fn end(task: &mut Task, how: HostByte, io: &mut dyn Submit) {
    match &task.state {
        State::Free | State::Answered => return,
        State::Io(_) if task.ended.is_none() => io.cancel(task.tag.0),
        State::Io(_) => {}
        State::Job(abort) => abort.raise(),
    }
    task.ended.get_or_insert(how);
}

/// What a `CMD_RSP` says.
struct Reply {
    result: CommandResult,
    len: u64,
    sense: Option<Box<[u8]>>,
}

impl Reply {
    fn of(answer: &Answer, format: SenseFormat) -> Reply {
        Reply {
            result: CommandResult::status(answer.status),
            len: answer.transferred,
            sense: answer.sense.map(|sense| sense.encode(format, MAX_SENSE).into_boxed_slice()),
        }
    }

    fn post(self, host_no: i32, itn_id: ItnId, tag: Tag, buf: IoBuf, rings: &mut EventRings) {
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
        let answer = CmdAnswer { buf, sense: self.sense };
        rings.post_answer(RxSlot { event: UEvent::CmdRsp(event), answer: Some(answer) });
    }
}
