//! A `CMD_RSP` becomes an SRP_RSP information unit, and that a virtio-scsi response on the used ring.

use super::queue::Slot;
use super::reactor::Reactor;
use crate::mem::Direction;
use crate::scsi::{CommandResult, HostByte};
use crate::srp;
use crate::tgt::{CmdAnswer, CmdRsp, Tag};
use crate::virtio_scsi::{CommandResponse, ResponseCode, command_response};

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
        let result = CommandResult::try_from(rsp.result).unwrap_or(CommandResult::host(HostByte::Error));
        let sense = answer.sense.as_deref().unwrap_or_default();
        let moved = u64::from(rsp.len);
        let mut iu = srp::Rsp::to_command(slot.command.id, result, moved, data_len, direction, sense);
        iu.req_lim_delta = session.credit.give_back();
        let response = command_response(result, u32::try_from(data_len).unwrap_or(u32::MAX), moved, iu.sense);
        let written = slot.command.response.write_command(session.snapshots.map(), &response);
        let data_in = if direction == Direction::In { moved.min(data_len) } else { 0 };
        self.finish_chain(tag, u32::try_from(data_in).unwrap_or(u32::MAX).saturating_add(written));
    }

    /// Answers a command that never became one.
    pub(super) fn refuse(&mut self, tag: Tag, response: ResponseCode) {
        let Some(Some(queue)) = self.queues.get_mut(usize::from(tag.queue())) else { return };
        let Some(Some(session)) = self.sessions.get_mut(queue.session) else { return };
        let Some(slot) = queue.slots.get_mut(usize::from(tag.head())) else { return };
        let response = CommandResponse { response, ..CommandResponse::default() };
        let written = slot.command.response.write_command(session.snapshots.map(), &response);
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
