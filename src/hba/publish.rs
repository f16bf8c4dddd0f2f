//! The way back: completions, answers, used rings, `CMD_DONE`s, interrupts.

use super::queue::Role;
use super::reactor::Reactor;
use crate::tgt::{CmdData, CmdDone, ItnId, KEvent, RxSlot, Tag, TxSlot, UEvent};

impl Reactor {
    /// Carries on whatever can be carried on without new chains or mail; all answers that there are get published.
    pub(super) fn settle(&mut self) {
        loop {
            if let Err(e) = self.io.flush() {
                log::error!("reactor {}: submitting failed: {e}", self.index);
            }
            let reaped = self.reap();
            let published = self.publish_all();
            // What has ended and was not given is the next turn's: what guests do with these answers is to reach the disk meanwhile.
            if !reaped && !published || self.io.has_ended() {
                return;
            }
        }
    }

    /// Publishes until there is no event and no answer left; whether there was something to publish.
    fn publish_all(&mut self) -> bool {
        let mut any = false;
        loop {
            self.drain_events();
            if self.touched.is_empty() {
                return any;
            }
            self.publish();
            any = true;
        }
    }

    fn reap(&mut self) -> bool {
        let mut completions = std::mem::take(&mut self.completions);
        self.io.reap(&mut completions);
        let any = !completions.is_empty();
        for completion in completions.drain(..) {
            self.shard.on_completion(completion, &mut self.io, &mut self.rings);
            self.drain_answers();
        }
        self.completions = completions;
        any
    }

    /// Lets the shard take what is on tx and takes what is on rx, until both are empty.
    pub(super) fn drain_events(&mut self) {
        self.drain_answers();
        while let Some(slot) = self.rings.take_tx() {
            self.shard.on_event(slot, &mut self.io, &mut self.rings);
            self.drain_answers();
        }
    }

    fn drain_answers(&mut self) {
        while let Some(slot) = self.rings.take_rx() {
            self.on_answer(slot);
        }
    }

    fn on_answer(&mut self, slot: RxSlot) {
        match slot.event {
            UEvent::CmdRsp(rsp) => self.on_command_answer(rsp, slot.answer.unwrap_or_default()),
            UEvent::TskMgmtRsp(rsp) => self.on_function_answer(rsp),
            UEvent::ItNexusRsp(rsp) => self.on_nexus_answer(rsp),
            UEvent::AsyncRsp(rsp) => self.on_async_answer(rsp),
            UEvent::AerReq(report) => {
                let sense = slot.answer.and_then(|answer| answer.sense);
                self.on_report(report, sense.as_deref().unwrap_or_default());
            }
        }
    }

    /// Posts a request to the shard. If the event rings have no room, everything in them is finished first, up to the `CMD_DONE`s.
    pub(super) fn post_request(&mut self, event: KEvent, data: Option<CmdData>) {
        let mut slot = TxSlot { event, data };
        while let Err((back, _)) = self.rings.post_request(slot) {
            slot = back;
            self.drain_events();
            self.publish();
        }
    }

    /// Publishes each ring that got used entries. That a session is over with its last ring may touch others; they are published, too.
    pub(super) fn publish(&mut self) {
        let mut touched = std::mem::take(&mut self.touched);
        loop {
            for at in 0..touched.len() {
                if let Some(Some(next)) = touched.get(at + 1).and_then(|number| self.queues.get(usize::from(*number))) {
                    next.ring.prefetch_used();
                }
                if let Some(&number) = touched.get(at) {
                    self.publish_queue(number);
                }
            }
            touched.clear();
            if self.touched.is_empty() {
                break;
            }
            std::mem::swap(&mut touched, &mut self.touched);
        }
        self.touched = touched;
    }

    /// Shows a guest its used entries, then tells the shard what is over, then interrupts the guest.
    fn publish_queue(&mut self, number: u16) {
        let Some(Some(queue)) = self.queues.get_mut(usize::from(number)) else { return };
        queue.touched = false;
        let wanted = queue.publish();
        let Some(Some(session)) = self.sessions.get_mut(queue.session) else { return };
        let (host_no, itn_id) = (session.host_no, session.itn_id);
        for tag in queue.done.drain(..) {
            self.rings.post_done(CmdDone { host_no, result: 0, itn_id, tag });
            while let Some(slot) = self.rings.take_tx() {
                self.shard.on_event(slot, &mut self.io, &mut self.rings);
            }
        }
        if wanted {
            queue.signal();
        }
        session.check_memory_waiters();
        session.hang_up_if_poisoned();
        if queue.role == Role::Control {
            // There may be requests that had to wait for one to end.
            self.activate(number);
        }
        self.finish_draining(number);
    }

    /// An answer that nobody can be given: the shard's task ends all the same.
    pub(super) fn undeliverable(&mut self, itn_id: ItnId, host_no: i32, tag: Tag) {
        log::error!("an answer came for a command that is over: {tag:?}");
        self.rings.post_done(CmdDone { host_no, result: -libc::ENXIO, itn_id, tag });
    }
}
