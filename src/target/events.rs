//! Asynchronous events: what initiators hear of a unit without having asked.
//!
//! A unit attention condition that is established for a nexus is more than the next command's CHECK CONDITION: if it tells of a
//! change of the unit's parameters, or is of a class that the nexus subscribed to, the nexus's home shard, which has its event queue,
//! posts an `AER_REQ` at once. The event takes nothing from the condition, which stays until it is reported; so an event that
//! is lost, or that nobody takes, costs nothing but time.
//!
//! Whoever establishes the condition only leaves a bit and, if there was none, a letter: conditions that come while the letter is
//! on its way go with it, so nobody can fill a shard's mailbox this way.

use std::sync::Arc;
use std::sync::atomic::{AtomicU32, AtomicU64, Ordering};

use super::nexus::Nexus;
use super::shard::Shard;
use super::{Post, ShardMail};
use crate::device_server;
use crate::lu::{Attention, Listener, Lu};
use crate::scsi::{FunctionResponse, Lun, LunAddress, SenseFormat, Status};
use crate::tgt::{
    AerReq, AsyncFunction, AsyncReq, AsyncRsp, CmdAnswer, EventRings, ItnId, RxSlot, UEvent, notification,
};

/// The longest sense data of a unit attention in fixed format, in bytes.
const SENSE: usize = 18;

/// Where events of one unit for one nexus go.
pub(super) struct Outlet {
    itn_id: ItnId,
    target: u8,
    lun: u16,
    /// The shard that the nexus was made on.
    home: u8,
    post: Arc<dyn Post>,
    /// Classes that there are for the unit.
    supported: u32,
    /// Classes that the nexus subscribed to. A nexus that is lost is to be asked again.
    subscribed: AtomicU32,
    /// Conditions to tell of, as bits of [`Attention`]; a letter is on its way unless there are none.
    waiting: AtomicU64,
}

impl std::fmt::Debug for Outlet {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let Outlet { itn_id, target, lun, home, .. } = self;
        write!(f, "Outlet {itn_id:#x} {target}:{lun} at {home}")
    }
}

impl Outlet {
    /// For a unit at an address of a nexus whose home is shard `home`.
    pub(super) fn new(itn_id: ItnId, (target, lun): (u8, u16), lu: &Lu, home: u8, post: Arc<dyn Post>) -> Arc<Outlet> {
        let (subscribed, waiting) = (AtomicU32::new(0), AtomicU64::new(0));
        let of_medium = if lu.removable() { notification::MEDIA_CHANGE } else { 0 };
        let supported = notification::SUPPORTED | of_medium;
        Arc::new(Outlet { itn_id, target, lun, home, post, supported, subscribed, waiting })
    }

    /// The class of a condition, if the nexus subscribed to it, or 0.
    fn class(&self, attention: Attention) -> u32 {
        let class = match attention {
            Attention::MediumMayHaveChanged => notification::MEDIA_CHANGE,
            _ if attention.changes_parameters() => notification::OPERATIONAL_CHANGE,
            _ if attention.tells_of_others() => notification::MULTI_HOST,
            _ => 0,
        };
        class & self.subscribed.load(Ordering::Acquire)
    }
}

impl Listener for Outlet {
    fn established(&self, attention: Attention) {
        if attention == Attention::NexusLoss {
            self.subscribed.store(0, Ordering::Release);
        }
        let is_news = attention.changes_parameters() || self.class(attention) != 0;
        if is_news && self.waiting.fetch_or(attention.bit(), Ordering::AcqRel) == 0 {
            let Outlet { itn_id, target, lun, .. } = *self;
            self.post.post(self.home, ShardMail::Report { itn_id, target, lun });
        }
    }
}

impl Nexus {
    /// From now on its units' events go to shard `home`.
    pub(super) fn listen(&self, home: u8, post: &Arc<dyn Post>) {
        for (address, unit) in self.units() {
            let outlet = Outlet::new(self.itn_id, address, unit.itl.lu(), home, Arc::clone(post));
            if unit.outlet.set(Arc::clone(&outlet)).is_ok() {
                unit.itl.listen(outlet);
            }
        }
    }
}

impl Shard {
    /// Something happened to a unit of a nexus that lives here: it is told.
    pub(super) fn report(&mut self, itn_id: ItnId, target: u8, lun: u16, rings: &mut EventRings) {
        let Some(known) = self.known(itn_id).filter(|known| !known.ending) else { return };
        let (Some(unit), Some(address)) = (known.nexus.unit(target, lun), Lun::new(target, lun)) else { return };
        let Some(outlet) = unit.outlet.get() else { return };
        let waiting = outlet.waiting.swap(0, Ordering::AcqRel);
        for attention in Attention::ALL.into_iter().filter(|attention| waiting & attention.bit() != 0) {
            let sense = attention.changes_parameters().then(|| attention.sense().encode(SenseFormat::Fixed, SENSE));
            let event = AerReq {
                host_no: known.nexus.host_no,
                events: outlet.class(attention),
                itn_id,
                lun: address,
                sense_len: sense.as_ref().map_or(0, |sense| sense.len() as u32),
            };
            let answer = sense.map(|sense| CmdAnswer { sense: Some(sense.into_boxed_slice()), ..CmdAnswer::default() });
            rings.post_event(RxSlot { event: UEvent::AerReq(event), answer });
        }
    }

    /// ASYNC_REQ: which classes there are, or a subscription to some, in place of the one before.
    pub(super) fn async_request(&mut self, request: &AsyncReq, rings: &mut EventRings) {
        let (result, events) = match (self.outlet(request.itn_id, request.lun), request.function) {
            (Err(response), _) => (response, 0),
            (Ok(outlet), AsyncFunction::Query) => (FunctionResponse::Complete, request.events & outlet.supported),
            (Ok(outlet), AsyncFunction::Subscribe) => {
                let events = request.events & outlet.supported;
                outlet.subscribed.store(events, Ordering::Release);
                (FunctionResponse::Complete, events)
            }
        };
        let AsyncReq { host_no, itn_id, mid, .. } = *request;
        let event = AsyncRsp { host_no, result: result as i32, itn_id, mid, events };
        rings.post_answer(RxSlot { event: UEvent::AsyncRsp(event), answer: None });
    }

    fn outlet(&self, itn_id: ItnId, lun: Lun) -> Result<&Outlet, FunctionResponse> {
        let known = self.known(itn_id).filter(|known| !known.ending).ok_or(FunctionResponse::Failed)?;
        let LunAddress::Unit { target, lun } = lun.address() else { return Err(FunctionResponse::IncorrectLun) };
        let unit = known.nexus.unit(target, lun).ok_or(FunctionResponse::IncorrectLun)?;
        unit.outlet.get().map(Arc::as_ref).ok_or(FunctionResponse::Failed)
    }

    /// The hba ended a command of this nexus with TASK SET FULL, for want of something to keep it in.
    pub fn task_set_full(&self, itn_id: ItnId, lun: Lun) {
        if let LunAddress::Unit { target, lun } = lun.address()
            && let Some(unit) = self.known(itn_id).and_then(|known| known.nexus.unit(target, lun))
        {
            device_server::ended_with(&unit.itl, Status::TaskSetFull);
        }
    }
}
