//! The control queue: task management and asynchronous notification.
//!
//! A task management function that names a task names it by the guest's own 64-bit id, which may repeat and which only the
//! reactors that took the commands know. So each of them is asked first (it takes what its rings show, then looks); then
//! one TSK_MGMT_REQ goes out for each task found, or one that names no task. The state of all this is in the request's slot, so it
//! goes when the request does.

use super::mail::{Mail, SessionId};
use super::queue::Role;
use super::reactor::Reactor;
use crate::mem::GuestWriter;
use crate::scsi::{FunctionResponse, Lun, LunAddress};
use crate::tgt::{AsyncFunction, AsyncReq, AsyncRsp, KEvent, Tag, TskMgmtReq, TskMgmtRsp};
use crate::virtio_scsi::{ChainError, ControlFunction, ResponseSlot, function_response};

/// Commands with one id that one function is carried out for. A driver has no use for more than one; each costs a round through all
/// reactors.
const SAME_ID_MAX: usize = 64;

impl Reactor {
    /// Takes charge of a chain of a control queue.
    pub(super) fn on_control(&mut self, request: Tag) {
        let Some(Some(queue)) = self.queues.get_mut(usize::from(request.queue())) else { return };
        let Some(Some(session)) = self.sessions.get_mut(queue.session) else { return };
        let Some((slot, chain)) = queue.slot(request) else { return };
        let Some(control) = slot.control() else { return };
        control.searching = 0;
        control.found.clear();
        control.functions = 0;
        control.outcome = None;
        let map = session.snapshots.map();
        match control.request.parse(chain, map) {
            Ok(()) => {}
            Err(ChainError::Answerable(why)) => {
                log::debug!("{}: a control request is refused: {why}", session.label);
                let written = control.request.reject(session.snapshots.writer());
                self.finish_chain(request, written);
                return;
            }
            Err(ChainError::Unanswerable(why)) => {
                log::debug!("{}: a control request cannot be answered: {why}", session.label);
                self.finish_chain(request, 0);
                return;
            }
        }
        let (function, lun, id) = match control.request.function {
            ControlFunction::TaskManagement { function, lun, id } => (function, lun, id),
            ControlFunction::AsyncQuery { lun, events } => {
                return self.ask_async(request, AsyncFunction::Query, lun, events);
            }
            ControlFunction::AsyncSubscribe { lun, events } => {
                return self.ask_async(request, AsyncFunction::Subscribe, lun, events);
            }
        };
        let session = session.id;
        match function {
            None => self.finish_function(request, FunctionResponse::Rejected),
            Some(function) if function.names_a_task() => self.search(request, session, id, lun),
            // The order that this becomes makes every reactor take what its rings show before it is carried out.
            Some(_) => self.manage(request),
        }
    }

    /// Asks all reactors, this one too, for the tasks that a function names.
    fn search(&mut self, request: Tag, session: SessionId, id: u64, lun: Lun) {
        let reactors = self.post.reactors();
        let Some(control) = self.control(request) else { return };
        control.searching = usize::from(reactors);
        for reactor in 0..reactors {
            self.post.send(reactor, Mail::FindTask { session, id, lun, request });
        }
    }

    /// The tasks of this session here that carry the guest's `id` and are addressed to `lun`, in whichever form.
    pub(super) fn find_tasks(&mut self, session: SessionId, id: u64, lun: Lun) -> Vec<Tag> {
        let Some((place, _)) = self.session(session) else { return Vec::new() };
        let mut found = Vec::new();
        for (number, queue) in (0u16..).zip(&self.queues) {
            let Some(queue) = queue.as_ref().filter(|q| q.session == place && q.role == Role::Request) else {
                continue;
            };
            let wanted = |c: &crate::virtio_scsi::CommandRequest| c.id == id && same_unit(c.lun, lun);
            found.extend(queue.find(self.index, number, wanted).take(SAME_ID_MAX + 1));
            if found.len() > SAME_ID_MAX {
                break;
            }
        }
        found
    }

    /// A reactor looked.
    pub(super) fn on_found(&mut self, request: Tag, tags: Vec<Tag>) {
        let Some(control) = self.control(request) else { return };
        control.found.extend(tags);
        control.searching = control.searching.saturating_sub(1);
        if control.searching == 0 {
            self.manage(request);
        }
    }

    /// The control request that `tag` names, while it is not answered.
    fn control(&mut self, tag: Tag) -> Option<&mut super::queue::Control> {
        self.queues.get_mut(usize::from(tag.queue()))?.as_mut()?.slot(tag)?.0.control()
    }

    /// Posts the function for each task that was found, or once if none was or none is named.
    fn manage(&mut self, request: Tag) {
        let Some(Some(queue)) = self.queues.get_mut(usize::from(request.queue())) else { return };
        let Some(Some(session)) = self.sessions.get_mut(queue.session) else { return };
        let Some(control) = queue.slot(request).and_then(|(slot, _)| slot.control()) else { return };
        let ControlFunction::TaskManagement { function: Some(function), lun, .. } = control.request.function else {
            return;
        };
        if control.found.len() > SAME_ID_MAX {
            session.limit.warn(format_args!("{}: {function:?} for an id that too many commands have", session.label));
            return self.finish_function(request, FunctionResponse::Failed);
        }
        if control.found.is_empty() {
            control.found.push(Tag::NONE);
        }
        let tags = std::mem::take(&mut control.found);
        control.functions = tags.len();
        let (host_no, itn_id) = (session.host_no, session.itn_id);
        log::debug!("{}: task management: {function:?} {lun:?}", session.label);
        for &tag in &tags {
            let event = TskMgmtReq { host_no, function: function as i32, itn_id, tag, lun, mid: request.0 };
            self.post_request(KEvent::TskMgmtReq(event), None);
        }
    }

    /// The target answered a task management function.
    pub(super) fn on_function_answer(&mut self, rsp: TskMgmtRsp) {
        if self.on_internal_function_answer(rsp) {
            return;
        }
        let request = Tag(rsp.mid);
        let Some(control) = self.control(request) else {
            log::error!("a task management answer came for a request that is over: {rsp:?}");
            return;
        };
        // Of several tasks with one id: one that is still there decides a query, and a failure decides an abort.
        let worst = control.outcome.map_or(rsp.result, |sofar| sofar.max(rsp.result));
        control.outcome = Some(worst);
        control.functions = control.functions.saturating_sub(1);
        if control.functions == 0 {
            self.finish_function(request, FunctionResponse::try_from(worst).unwrap_or(FunctionResponse::Failed));
        }
    }

    /// Asynchronous notification, query or subscription: it is the target that knows the units.
    fn ask_async(&mut self, request: Tag, function: AsyncFunction, lun: Lun, events: u32) {
        let Some(Some(queue)) = self.queues.get(usize::from(request.queue())) else { return };
        let Some(Some(session)) = self.sessions.get(queue.session) else { return };
        let (host_no, itn_id) = (session.host_no, session.itn_id);
        log::debug!("{}: asynchronous notification: {function:?} {lun:?} {events:#x}", session.label);
        let event = AsyncReq { host_no, function, itn_id, lun, events, mid: request.0 };
        self.post_request(KEvent::AsyncReq(event), None);
    }

    /// The target answered it.
    pub(super) fn on_async_answer(&mut self, rsp: AsyncRsp) {
        let response = FunctionResponse::try_from(rsp.result).unwrap_or(FunctionResponse::Failed);
        // A subscription may be made twice.
        self.finish_control(Tag(rsp.mid), false, |place, to| {
            place.write_async(to, rsp.events, function_response(response))
        });
    }

    /// SRP_TSK_MGMT is answered by an SRP_RSP with a response code, and that by a byte on the control queue.
    fn finish_function(&mut self, request: Tag, response: FunctionResponse) {
        self.finish_control(request, true, |place, to| place.write_task_management(to, function_response(response)));
    }

    /// Answers a request, while it is not answered; `write` gives the length for the used ring. Done `once`, it is not to be carried out again.
    fn finish_control(&mut self, request: Tag, once: bool, write: impl FnOnce(&ResponseSlot, GuestWriter<'_>) -> u32) {
        let Some(Some(queue)) = self.queues.get_mut(usize::from(request.queue())) else { return };
        let Some(Some(session)) = self.sessions.get_mut(queue.session) else { return };
        let Some((slot, _)) = queue.slot(request) else { return };
        let kept = slot.kept.clone();
        let Some(control) = slot.control() else { return };
        let written = write(&control.request.response, session.writer_to(kept.as_ref()));
        if once {
            queue.note_answer(request.head(), written);
        }
        self.finish_chain(request, written);
    }
}

/// Whether two numbers address one unit: there are two forms of most.
fn same_unit(a: Lun, b: Lun) -> bool {
    a == b || a.address() == b.address() && a.address() != LunAddress::Invalid
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn both_forms_of_a_number_are_one_unit() {
        let [peripheral, flat] = [Lun([1, 3, 0, 7, 0, 0, 0, 0]), Lun([1, 3, 0x40, 7, 0, 0, 0, 0])];
        assert!(same_unit(peripheral, flat));
        assert!(!same_unit(peripheral, Lun([1, 4, 0, 7, 0, 0, 0, 0])));
        assert!(same_unit(Lun([9; 8]), Lun([9; 8])), "whatever it is, it is itself");
        assert!(!same_unit(Lun([9; 8]), Lun([8; 8])), "what addresses nothing is not one unit");
    }
}
