//! A shard's cold requests: nexuses come and go, task management functions; and the orders that carry them.

use std::sync::Arc;

use super::ShardMail;
use super::barrier::Barrier;
use super::nexus::{LuIndex, Nexus, WELL_KNOWN};
use super::order::{Effect, Order, Scope, Work};
use super::shard::{Pending, Shard, end};
use super::task::Task;
use crate::backing::Submit;
use crate::lu::{GateBits, Itl};
use crate::scsi::{FunctionResponse, HostByte, Lun, LunAddress, TaskManagementFunction};
use crate::tgt::{EventRings, ItNexusReq, ItNexusRsp, NexusFunction, RxSlot, TskMgmtReq, TskMgmtRsp, UEvent};

/// What the LUN of a task management function means for it.
enum Place<'a> {
    Unit(LuIndex, &'a Arc<Itl>),
    WellKnown,
}

impl Shard {
    /// IT_NEXUS_REQ. Its answer comes when every shard has done its part.
    pub(super) fn nexus_request(&mut self, request: ItNexusReq, rings: &mut EventRings) {
        let work = match request.function {
            NexusFunction::Create => self.target.create(&request).map(|nexus| Work::Create { request, nexus }),
            NexusFunction::Destroy => self.target.begin_destroy(&request).map(|nexus| Work::Destroy { request, nexus }),
        };
        match work {
            Ok(work) => self.give_order(work),
            Err(errno) => {
                log::warn!("I_T nexus {:#x}: {:?} refused: errno {}", request.itn_id, request.function, -errno);
                nexus_response(&request, errno, rings);
            }
        }
    }

    /// TSK_MGMT_REQ (SAM-5 clause 7).
    pub(super) fn task_management(&mut self, request: TskMgmtReq, rings: &mut EventRings) {
        let work = match self.plan_function(request) {
            Ok(work) => work,
            Err(response) => return function_response(&request, response, rings),
        };
        log::debug!("task management: {work:?}");
        let single = match &work {
            Work::End { scope: Scope::Task { tag, .. }, .. } | Work::Query { scope: Scope::Task { tag, .. }, .. } => {
                Some(tag.shard())
            }
            _ => None,
        };
        match single {
            None => self.give_order(work),
            Some(shard) if shard < self.target.shards() => self.give_order_to(work, shard),
            // A task that nobody has is not in the task set.
            Some(_) => function_response(&request, FunctionResponse::Complete, rings),
        }
    }

    /// What a task management function is to do; `Err` if it is answered at once.
    fn plan_function(&self, request: TskMgmtReq) -> Result<Work, FunctionResponse> {
        use TaskManagementFunction as Function;
        let known = self.known(request.itn_id).filter(|known| !known.ending && known.nexus.host_no == request.host_no);
        let nexus = &known.ok_or(FunctionResponse::Failed)?.nexus;
        let function = Function::try_from(request.function).map_err(|_| FunctionResponse::Rejected)?;
        // A reset of the nexus is not addressed to a unit.
        if function == Function::ItNexusReset {
            let target = reset_target(nexus, request.lun)?;
            let scope = Scope::Nexus { itn_id: nexus.itn_id, target };
            let effect = Effect::LoseNexus(Arc::clone(nexus), target);
            return Ok(Work::End { request, scope, how: HostByte::Reset, effect });
        }
        // NormACA is zero: there is never an ACA condition to clear.
        if function == Function::ClearAca {
            return Err(FunctionResponse::Rejected);
        }
        let place = place_of(nexus, request.lun)?;
        let lu = match place {
            Place::Unit(lu, _) => lu,
            Place::WellKnown => WELL_KNOWN,
        };
        let itn_id = nexus.itn_id;
        let task = Scope::Task { itn_id, lu, tag: request.tag };
        let task_set = Scope::TaskSet { itn_id, lu };
        let end = |scope, how, effect| Ok(Work::End { request, scope, how, effect });
        match function {
            Function::AbortTask => end(task, HostByte::Abort, Effect::None),
            // With TST 001b of the Control mode page each nexus has a task set of its own, so that CLEAR TASK SET is
            // ABORT TASK SET (SAM-5 7.5).
            Function::AbortTaskSet | Function::ClearTaskSet => end(task_set, HostByte::Abort, Effect::None),
            Function::LogicalUnitReset => match place {
                Place::Unit(lu, itl) => {
                    end(Scope::Unit { lu }, HostByte::Reset, Effect::ResetUnit(Arc::clone(itl.lu())))
                }
                // The well-known unit has neither state nor tasks that last; every nexus has its own.
                Place::WellKnown => end(task_set, HostByte::Reset, Effect::None),
            },
            Function::QueryTask => Ok(Work::Query { request, scope: task }),
            Function::QueryTaskSet => Ok(Work::Query { request, scope: task_set }),
            Function::QueryAsyncEvent => Err(match place {
                Place::Unit(_, itl) if itl.gate().bits().intersects(GateBits::ATTENTION) => FunctionResponse::Succeeded,
                _ => FunctionResponse::Complete,
            }),
            Function::ItNexusReset | Function::ClearAca => Err(FunctionResponse::Rejected),
        }
    }

    fn give_order(&self, work: Work) {
        let shards = self.target.shards();
        let order = Arc::new(Order { barrier: Barrier::new(u32::from(shards)), home: self.index, work });
        for shard in 0..shards {
            self.post.post(shard, ShardMail::Order(Arc::clone(&order)));
        }
    }

    fn give_order_to(&self, work: Work, shard: u8) {
        let order = Arc::new(Order { barrier: Barrier::new(1), home: self.index, work });
        self.post.post(shard, ShardMail::Order(order));
    }

    /// This shard's part of an order.
    pub(super) fn carry_out(&mut self, order: Arc<Order>, io: &mut dyn Submit, rings: &mut EventRings) {
        let left = match &order.work {
            Work::Create { nexus, .. } => {
                self.learn(nexus);
                if order.home == self.index {
                    // Not before it is known here, for that is where its events go.
                    nexus.listen(self.index, &self.post);
                }
                0
            }
            Work::Destroy { nexus, .. } => {
                self.begin_end(nexus.itn_id);
                self.end_all(Scope::Nexus { itn_id: nexus.itn_id, target: None }, HostByte::TransportDisrupted, io)
            }
            Work::End { scope, how, .. } => self.end_all(*scope, *how, io),
            Work::Query { scope, .. } => self.query(*scope, &order.barrier),
        };
        if left == 0 {
            self.through(&order, rings);
        } else {
            self.pending.push(Pending { order, before: self.serial, left });
        }
    }

    /// Ends the tasks in `scope`; how many there are that are not over.
    fn end_all(&mut self, scope: Scope, how: HostByte, io: &mut dyn Submit) -> usize {
        let covered = self.tasks.iter_mut().filter(|task| scope.covers(task));
        covered.map(|task| end(task, how, io)).count()
    }

    /// Looks for tasks in `scope`. One that is not answered is what was looked for; those that are answered are waited
    /// for, because "not there" may be said only when the initiator can see their answers.
    fn query(&mut self, scope: Scope, barrier: &Barrier) -> usize {
        let (mut running, mut answered) = (false, 0);
        for task in self.tasks.iter_mut().filter(|task| scope.covers(task)) {
            if task.is_answered() {
                answered += 1;
            } else {
                running = true;
            }
        }
        if running {
            barrier.find();
            return 0;
        }
        answered
    }

    /// A task is over while orders wait.
    pub(super) fn task_over(&mut self, task: &Task, rings: &mut EventRings) {
        for waiting in &mut self.pending {
            let covered = waiting.order.scope().is_some_and(|scope| scope.covers(task));
            if covered && task.serial < waiting.before {
                waiting.left = waiting.left.saturating_sub(1);
            }
        }
        let through: Vec<Pending> = self.pending.extract_if(.., |waiting| waiting.left == 0).collect();
        for Pending { order, .. } in through {
            self.through(&order, rings);
        }
    }

    /// This shard has done its part of an order.
    fn through(&mut self, order: &Arc<Order>, rings: &mut EventRings) {
        if let Work::Destroy { nexus, .. } = &order.work {
            self.forget(nexus.itn_id);
        }
        if !order.barrier.ack() {
            return;
        }
        if order.home == self.index {
            self.order_done(order, rings);
        } else {
            self.post.post(order.home, ShardMail::OrderDone(Arc::clone(order)));
        }
    }

    /// All shards have done their part of an order of this one: its request is answered.
    pub(super) fn order_done(&mut self, order: &Order, rings: &mut EventRings) {
        match &order.work {
            Work::Create { request, nexus } => {
                self.target.finish_create(nexus);
                log_nexus("created", nexus);
                nexus_response(request, 0, rings);
            }
            Work::Destroy { request, nexus } => {
                self.target.finish_destroy(nexus);
                log_nexus("destroyed", nexus);
                nexus_response(request, 0, rings);
            }
            Work::End { request, effect, .. } => {
                match effect {
                    Effect::None => {}
                    Effect::ResetUnit(lu) => lu.reset(),
                    Effect::LoseNexus(nexus, target) => nexus.lose(*target),
                }
                function_response(request, order.response(), rings);
            }
            Work::Query { request, .. } => function_response(request, order.response(), rings),
        }
    }
}

/// Which target number's units an I_T NEXUS RESET is for. A virtio-scsi device shows several targets behind one nexus of ours, and its
/// guest means the one it names; an address of zeros, which no unit can have, means all (RESET_DEVICE).
fn reset_target(nexus: &Nexus, lun: Lun) -> Result<Option<u8>, FunctionResponse> {
    match lun.address() {
        LunAddress::Unit { target, .. } if nexus.target(target).is_some() => Ok(Some(target)),
        LunAddress::Invalid if lun == Lun::default() => Ok(None),
        _ => Err(FunctionResponse::IncorrectLun),
    }
}

fn place_of(nexus: &Nexus, lun: Lun) -> Result<Place<'_>, FunctionResponse> {
    match lun.address() {
        LunAddress::Unit { target, lun } => {
            let unit = nexus.unit(target, lun).ok_or(FunctionResponse::IncorrectLun)?;
            Ok(Place::Unit(unit.lu, &unit.itl))
        }
        LunAddress::ReportLuns if nexus.first_target().is_some() => Ok(Place::WellKnown),
        LunAddress::ReportLuns | LunAddress::Invalid => Err(FunctionResponse::IncorrectLun),
    }
}

fn log_nexus(what: &str, nexus: &Nexus) {
    let id: String = nexus.initiator.iter().map(|byte| format!("{byte:02x}")).collect();
    log::info!(
        "I_T nexus {what}: initiator {} host {} itn {:#x} id {id} max_cmds {} units {}",
        nexus.name,
        nexus.host_no,
        nexus.itn_id,
        nexus.max_cmds,
        nexus.unit_count(),
    );
}

fn nexus_response(request: &ItNexusReq, result: i32, rings: &mut EventRings) {
    let event = ItNexusRsp { host_no: request.host_no, result, itn_id: request.itn_id, function: request.function };
    rings.post_answer(RxSlot { event: UEvent::ItNexusRsp(event), answer: None });
}

fn function_response(request: &TskMgmtReq, response: FunctionResponse, rings: &mut EventRings) {
    let event =
        TskMgmtRsp { host_no: request.host_no, result: response as i32, itn_id: request.itn_id, mid: request.mid };
    rings.post_answer(RxSlot { event: UEvent::TskMgmtRsp(event), answer: None });
}
