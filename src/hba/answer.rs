//! A `CMD_RSP` becomes an SRP_RSP information unit, and that a virtio-scsi response on the used ring.

use super::queue::Slot;
use super::reactor::Reactor;
use crate::mem::Direction;
use crate::scsi::CommandResult;
use crate::srp;
use crate::tgt::{CmdAnswer, CmdRsp, Tag};
use crate::virtio_scsi::{CommandResponse, Response};

impl Reactor {
    /// The target answered a command.
    pub(super) fn on_command_answer(&mut self, rsp: CmdRsp, answer: CmdAnswer) {
        let tag = rsp.tag;
        let Some(Some(queue)) = self.queues.get_mut(usize::from(tag.queue())) else {
            log::error!("an answer came for a queue that is gone");
            return;
        };
        let Some(Some(session)) = self.sessions.get_mut(queue.session) else { return };
        let Some(slot) = queue.slots.get_mut(usize::from(tag.head())).filter(|s| is_current(s, tag)) else {
            log::error!("an answer came for a command that is over");
            return;
        };
        let data_len = answer.buf.len();
        let direction = answer.buf.direction();
        slot.spare = session.snapshots.release(answer.buf);
        let result = CommandResult::from_tgt(rsp.result);
        let iu = srp::Rsp::for_command(
            slot.command.id(),
            result.status,
            u64::from(rsp.len),
            data_len,
            direction,
            answer.sense.as_deref().unwrap_or_default(),
        );
        let response = CommandResponse::from_srp(&iu, result.host);
        let written = slot.command.respond(&response, session.snapshots.map());
        let moved = if direction == Direction::In { u64::from(rsp.len).min(data_len) } else { 0 };
        self.finish_chain(tag, u32::try_from(moved).unwrap_or(u32::MAX).saturating_add(written));
    }

    /// Answers a command that never became one.
    pub(super) fn refuse(&mut self, tag: Tag, response: Response) {
        let Some(Some(queue)) = self.queues.get_mut(usize::from(tag.queue())) else { return };
        let Some(Some(session)) = self.sessions.get_mut(queue.session) else { return };
        let Some(slot) = queue.slots.get_mut(usize::from(tag.head())) else { return };
        let written = slot.command.respond(&CommandResponse::refusal(response), session.snapshots.map());
        self.finish_chain(tag, written);
    }

    /// Puts a chain's head on the used ring with `written` bytes; it is published at the end of the turn.
    pub(super) fn finish_chain(&mut self, tag: Tag, written: u32) {
        let Some(Some(queue)) = self.queues.get_mut(usize::from(tag.queue())) else { return };
        let Some(slot) = queue.slots.get_mut(usize::from(tag.head())).filter(|s| is_current(s, tag)) else { return };
        slot.busy = false;
        queue.ring.push_used(tag.head(), written);
        queue.done.push(tag);
        if !queue.touched {
            queue.touched = true;
            self.touched.push(tag.queue());
        }
    }
}

/// Whether `tag` names this use of the slot.
pub(super) fn is_current(slot: &Slot, tag: Tag) -> bool {
    slot.busy && slot.generation == tag.generation()
}
