//! The control queue: task management and asynchronous notification.
//!
//! A task management function that names a task names it by the guest's own 64-bit id, which may repeat and which only the
//! reactors that took the commands know. So each of them is asked first (it pops what its rings show, then looks); then
//! one TSK_MGMT_REQ goes out for each task found, or one that names no task.

use super::answer::is_current;
use super::mail::Mail;
use super::queue::Role;
use super::reactor::Reactor;
use crate::scsi::{FunctionResponse, Lun, TaskManagementFunction};
use crate::tgt::{KEvent, Tag, TskMgmtReq, TskMgmtRsp};
use crate::virtio_scsi::{ChainError, ControlFunction, ResponseCode, function_response};

/// Searches under way for tasks that functions of this reactor's control queues name.
#[derive(Debug, Default)]
pub struct Searches {
    next: u64,
    open: Vec<Search>,
}

#[derive(Debug)]
struct Search {
    name: u64,
    /// The request on the control queue.
    request: Tag,
    function: TaskManagementFunction,
    lun: Lun,
    /// Reactors that have not answered yet.
    waiting: usize,
    found: Vec<Tag>,
}

impl Reactor {
    /// Takes charge of a chain of a control queue.
    pub(super) fn on_control(&mut self, request: Tag) {
        let Some(Some(queue)) = self.queues.get_mut(usize::from(request.queue())) else { return };
        let Some(Some(session)) = self.sessions.get_mut(queue.session) else { return };
        let Some(slot) = queue.slots.get_mut(usize::from(request.head())) else { return };
        slot.functions = 0;
        slot.function_result = None;
        match slot.control.parse(&queue.chain, session.snapshots.map()) {
            Ok(()) => {}
            Err(ChainError::Answerable(why)) => {
                log::debug!("{}: a control request is refused: {why}", session.initiator);
                let written = slot.control.reject(session.snapshots.map());
                self.finish_chain(request, written);
                return;
            }
            Err(ChainError::Unanswerable(why)) => {
                log::debug!("{}: a control request cannot be answered: {why}", session.initiator);
                self.finish_chain(request, 0);
                return;
            }
        }
        let (function, lun, id) = match slot.control.function {
            ControlFunction::TaskManagement { function, lun, id } => (function, lun, id),
            ControlFunction::AsyncQuery { .. } | ControlFunction::AsyncSubscribe { .. } => {
                // There are no asynchronous events to subscribe to: none of those asked for is.
                let written = slot.control.response.write_async(session.snapshots.map(), 0, ResponseCode::Ok);
                self.finish_chain(request, written);
                return;
            }
        };
        let Some(function) = function else {
            self.finish_function(request, FunctionResponse::Rejected);
            return;
        };
        let session_id = session.id;
        match function {
            TaskManagementFunction::AbortTask | TaskManagementFunction::QueryTask => {
                self.search(request, session_id, function, lun, id);
            }
            _ => {
                // What was posted before the function cannot start after it.
                self.pop_everything();
                self.manage(request, function, lun, &[Tag::NONE]);
            }
        }
    }

    fn search(&mut self, request: Tag, session: u64, function: TaskManagementFunction, lun: Lun, id: u64) {
        let name = self.searches.next;
        self.searches.next += 1;
        self.pop_everything();
        let found = self.find_tasks(session, id, lun);
        let others = self.post.others(self.index);
        let waiting = others.len();
        self.searches.open.push(Search { name, request, function, lun, waiting, found });
        for other in others {
            self.post.send(other, Mail::FindTask { session, id, lun, asker: self.index, search: name });
        }
        self.end_search_if_done(name);
    }

    /// The tasks of this session here that carry the guest's `id`.
    pub(super) fn find_tasks(&self, session: u64, id: u64, lun: Lun) -> Vec<Tag> {
        let mut found = Vec::new();
        for (number, queue) in self.queues.iter().enumerate() {
            let Some(queue) = queue.as_ref().filter(|q| q.role == Role::Request) else { continue };
            if !matches!(self.sessions.get(queue.session), Some(Some(s)) if s.id == session) {
                continue;
            }
            for (head, slot) in queue.slots.iter().enumerate() {
                if slot.busy && slot.command.id == id && slot.command.lun == lun {
                    found.push(Tag::new(self.index, number as u16, head as u16, slot.generation));
                }
            }
        }
        found
    }

    /// Another reactor looked.
    pub(super) fn on_found(&mut self, name: u64, tags: Vec<Tag>) {
        if let Some(search) = self.searches.open.iter_mut().find(|s| s.name == name) {
            search.waiting = search.waiting.saturating_sub(1);
            search.found.extend(tags);
        }
        self.end_search_if_done(name);
    }

    fn end_search_if_done(&mut self, name: u64) {
        let Some(at) = self.searches.open.iter().position(|s| s.name == name && s.waiting == 0) else { return };
        let search = self.searches.open.swap_remove(at);
        let tags = if search.found.is_empty() { vec![Tag::NONE] } else { search.found };
        self.manage(search.request, search.function, search.lun, &tags);
    }

    /// Posts the function for each of `tags`.
    fn manage(&mut self, request: Tag, function: TaskManagementFunction, lun: Lun, tags: &[Tag]) {
        let Some(Some(queue)) = self.queues.get_mut(usize::from(request.queue())) else { return };
        let Some(Some(session)) = self.sessions.get_mut(queue.session) else { return };
        let Some(slot) = queue.slots.get_mut(usize::from(request.head())).filter(|s| is_current(s, request)) else {
            return;
        };
        slot.functions = tags.len() as u32;
        let (host_no, itn_id) = (session.host_no, session.itn_id);
        log::debug!("{}: task management: {function:?} {lun:?}", session.initiator);
        for &tag in tags {
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
        let Some(Some(queue)) = self.queues.get_mut(usize::from(request.queue())) else { return };
        let Some(slot) = queue.slots.get_mut(usize::from(request.head())).filter(|s| is_current(s, request)) else {
            log::error!("a task management answer came for a request that is over");
            return;
        };
        // Of several tasks with one id: one that is still there decides a query, and a failure decides an abort.
        let worst = slot.function_result.map_or(rsp.result, |sofar| sofar.max(rsp.result));
        slot.function_result = Some(worst);
        slot.functions = slot.functions.saturating_sub(1);
        if slot.functions > 0 {
            return;
        }
        self.finish_function(request, FunctionResponse::try_from(worst).unwrap_or(FunctionResponse::Failed));
    }

    /// SRP_TSK_MGMT is answered by an SRP_RSP with a response code, and that by a byte on the control queue.
    fn finish_function(&mut self, request: Tag, response: FunctionResponse) {
        let Some(Some(queue)) = self.queues.get_mut(usize::from(request.queue())) else { return };
        let Some(Some(session)) = self.sessions.get_mut(queue.session) else { return };
        let Some(slot) = queue.slots.get_mut(usize::from(request.head())).filter(|s| is_current(s, request)) else {
            return;
        };
        let map = session.snapshots.map();
        let written = slot.control.response.write_task_management(map, function_response(response));
        self.finish_chain(request, written);
    }
}
