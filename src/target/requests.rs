//! A shard's cold requests: nexuses come and go, task management functions; and the orders that carry them.

use std::sync::Arc;
use std::time::Instant;

use super::ShardMail;
use super::barrier::Barrier;
use super::nexus::{LuIndex, Nexus, WELL_KNOWN};
use super::order::{By, Effect, Order, Scope, Work};
use super::shard::{Pending, Shard};
use crate::backing::Submit;
use crate::lu::{GateBits, Itl};
use crate::scsi::{FunctionResponse, HostByte, Lun, LunAddress, TaskManagementFunction};
use crate::tgt::{EventRings, ItNexusReq, ItNexusRsp, NexusFunction, RxSlot, Tag, TskMgmtReq, TskMgmtRsp, UEvent};

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
        if matches!(work, Work::End { scope: Scope::Unit { .. }, .. })
            && let Some(known) = self.known(request.itn_id)
            && let Ok(Place::Unit(_, itl)) = place_of(&known.nexus, request.lun)
        {
            // Those that no shard has, for their front-end is not here again since the process before this one was killed.
            itl.lu().abort_all();
        }
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
            let by = By { itn_id: nexus.itn_id, how: HostByte::Reset };
            return Ok(Work::End { request: Some(request), scope, by, effect });
        }
        let place = place_of(nexus, request.lun)?;
        let lu = match place {
            Place::Unit(lu, _) => lu,
            Place::WellKnown => WELL_KNOWN,
        };
        let itn_id = nexus.itn_id;
        let task = Scope::Task { itn_id, lu, tag: request.tag };
        let task_set = Scope::TaskSet { itn_id, lu };
        let end = |scope, how, effect| {
            let by = By { itn_id, how };
            Ok(Work::End { request: Some(request), scope, by, effect })
        };
        match function {
            Function::AbortTask => end(task, HostByte::Abort, Effect::None),
            Function::AbortTaskSet => end(task_set, HostByte::Abort, Effect::None),
            // The task set is everybody's, or with TST 001b of the Control mode page this nexus's (SAM-5 7.5).
            Function::ClearTaskSet => match place {
                Place::Unit(lu, itl) if itl.lu().mode().tst == 0 => {
                    end(Scope::Unit { lu }, HostByte::Abort, Effect::None)
                }
                _ => end(task_set, HostByte::Abort, Effect::None),
            },
            Function::LogicalUnitReset => match place {
                Place::Unit(lu, itl) => {
                    end(Scope::Unit { lu }, HostByte::Reset, Effect::ResetUnit(Arc::clone(itl.lu())))
                }
                // The well-known unit has neither state nor tasks that last; every nexus has its own.
                Place::WellKnown => end(task_set, HostByte::Reset, Effect::None),
            },
            // It ends the command with the ACA attribute, too (SAM-5 7.4).
            Function::ClearAca => match place {
                Place::Unit(lu, itl) if itl.has_aca() => {
                    end(Scope::Aca { itn_id, lu }, HostByte::Abort, Effect::ClearAca(Arc::clone(itl)))
                }
                _ => Err(FunctionResponse::Complete),
            },
            Function::QueryTask => Ok(Work::Query { request, scope: task }),
            Function::QueryTaskSet => Ok(Work::Query { request, scope: task_set }),
            Function::QueryAsyncEvent => Err(match place {
                Place::Unit(_, itl) if itl.gate().bits().intersects(GateBits::ATTENTION) => FunctionResponse::Succeeded,
                _ => FunctionResponse::Complete,
            }),
            Function::ItNexusReset => Err(FunctionResponse::Rejected),
        }
    }

    /// Gives an order to all shards.
    pub(super) fn give_order(&mut self, work: Work) {
        let shards = self.target.shards();
        let order = Order::new(work, self.index, shards);
        self.limit(&order);
        for shard in 0..shards {
            self.post.post(shard, ShardMail::Order(Arc::clone(&order)));
        }
    }

    fn give_order_to(&mut self, work: Work, shard: u8) {
        let order = Order::new(work, self.index, 1);
        self.limit(&order);
        self.post.post(shard, ShardMail::Order(order));
    }

    /// A function that somebody waits for is answered in bounded time; only the reset of a whole nexus, which its connection asks for
    /// when its device is reset, is carried out however long that takes.
    fn limit(&mut self, order: &Arc<Order>) {
        let unlimited = matches!(order.work, Work::End { effect: Effect::LoseNexus(_, None), .. });
        if matches!(order.work, Work::End { request: Some(_), .. } | Work::Query { .. }) && !unlimited {
            self.open.push((Instant::now() + self.target.patience(), Arc::clone(order)));
        }
    }

    /// When [`Shard::expire`] has something to do; `None`: nothing waits for a time.
    pub fn deadline(&self) -> Option<Instant> {
        self.open.first().map(|(at, _)| *at)
    }

    /// Rejects the task management functions whose tasks have not ended in time: they are not complete, and that they are is never
    /// said of them (SAM-5 7.1). Their tasks end when they can.
    pub fn expire(&mut self, now: Instant, rings: &mut EventRings) {
        while let Some((at, _)) = self.open.first()
            && *at <= now
        {
            let (_, order) = self.open.remove(0);
            if let Work::End { request: Some(request), .. } | Work::Query { request, .. } = &order.work {
                log::warn!("task management function {:#x} rejected: commands do not end", request.function);
                function_response(request, FunctionResponse::Rejected, rings);
            }
        }
    }

    /// Whether an order that is limited is still waited for.
    fn close(&mut self, order: &Arc<Order>) -> bool {
        let at = self.open.iter().position(|(_, open)| Arc::ptr_eq(open, order));
        at.map(|at| self.open.remove(at)).is_some()
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
                Vec::new()
            }
            Work::Destroy { nexus, .. } => {
                self.begin_end(nexus.itn_id);
                let by = By { itn_id: nexus.itn_id, how: HostByte::TransportDisrupted };
                self.end_scope(&Scope::Nexus { itn_id: nexus.itn_id, target: None }, by, &order, io, rings)
            }
            Work::End { scope, by, .. } => self.end_scope(scope, *by, &order, io, rings),
            Work::Query { scope, .. } => self.query(scope, &order.barrier),
            Work::Quiet { scope, .. } => self.quiet(scope, io, rings),
            Work::Fence { scope, aborts, by, .. } => {
                let mut left = self.end_scope(aborts, *by, &order, io, rings);
                left.extend(self.tasks.iter_mut().filter(|task| scope.covers(task)).map(|task| task.tag));
                left
            }
        };
        if left.is_empty() {
            self.through(&order, io, rings);
        } else {
            self.pending.push(Pending { order, left: left.into_iter().collect() });
        }
    }

    /// Looks for tasks in `scope`. One that is not answered is what was looked for; those that are answered are waited
    /// for, because "not there" may be said only when the initiator can see their answers.
    fn query(&mut self, scope: &Scope, barrier: &Barrier) -> Vec<Tag> {
        let mut answered = Vec::new();
        for task in self.tasks.iter_mut().filter(|task| scope.covers(task)) {
            if !task.is_answered() {
                barrier.find();
                return Vec::new();
            }
            answered.push(task.tag);
        }
        answered
    }

    /// A task is over while orders wait.
    pub(super) fn task_over(&mut self, tag: Tag, io: &mut dyn Submit, rings: &mut EventRings) {
        let ended = |waiting: &mut Pending| waiting.left.remove(&tag) && waiting.left.is_empty();
        let through: Vec<Pending> = self.pending.extract_if(.., ended).collect();
        for Pending { order, .. } in through {
            self.through(&order, io, rings);
        }
    }

    /// This shard has done its part of an order.
    fn through(&mut self, order: &Arc<Order>, io: &mut dyn Submit, rings: &mut EventRings) {
        if let Work::Destroy { nexus, .. } = &order.work {
            self.forget(nexus.itn_id);
        }
        if !order.barrier.ack() {
            return;
        }
        if order.home == self.index {
            self.order_done(order, io, rings);
        } else {
            self.post.post(order.home, ShardMail::OrderDone(Arc::clone(order)));
        }
    }

    /// All shards have done their part of an order of this one: its request is answered.
    pub(super) fn order_done(&mut self, order: &Arc<Order>, io: &mut dyn Submit, rings: &mut EventRings) {
        let waited_for = self.close(order);
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
                let unlimited = matches!(effect, Effect::LoseNexus(_, None));
                Shard::tell_cleared(order);
                if request.is_none() || waited_for || unlimited {
                    self.take_effect(effect);
                }
                if let Some(request) = request.filter(|_| waited_for || unlimited) {
                    function_response(&request, order.response(), rings);
                }
            }
            Work::Query { request, .. } if waited_for => function_response(request, order.response(), rings),
            Work::Query { .. } => {}
            Work::Quiet { task, .. } => self.go_on(*task, io, rings),
            Work::Fence { task, .. } => {
                Shard::tell_cleared(order);
                self.grant(*task, io, rings);
            }
        }
    }

    fn take_effect(&self, effect: &Effect) {
        match effect {
            Effect::None => return,
            Effect::ResetUnit(lu) => lu.reset(),
            Effect::LoseNexus(nexus, target) => nexus.lose(*target),
            Effect::ClearAca(itl) => itl.end_aca(),
        }
        // What waited because of an ACA condition waits no longer.
        self.tell_release();
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
    let [initiator, port] = &nexus.names;
    log::info!(
        "I_T nexus {what}: initiator {initiator} host {} target port {port} itn {:#x} id {id} max_cmds {} units {}",
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
