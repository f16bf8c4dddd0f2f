//! A `CMD_RSP` becomes an SRP_RSP information unit, and that a virtio-scsi response on the used ring.

use super::reactor::Reactor;
use crate::mem::Direction;
use crate::scsi::{CommandResult, HostByte, Status};
use crate::srp;
use crate::tgt::{CmdAnswer, CmdRsp, Tag};
use crate::virtio_scsi::command_response;

impl Reactor {
    /// The target answered a command.
    pub(super) fn on_command_answer(&mut self, rsp: CmdRsp, answer: CmdAnswer) {
        let tag = rsp.tag;
        let Some(Some(queue)) = self.queues.get_mut(usize::from(tag.queue())) else {
            return self.undeliverable(rsp.itn_id, rsp.host_no, tag);
        };
        let session = self.sessions.get_mut(queue.session).and_then(Option::as_mut);
        let (Some(session), Some((slot, _))) = (session, queue.slot(tag)) else {
            return self.undeliverable(rsp.itn_id, rsp.host_no, tag);
        };
        let kept = slot.kept.clone();
        let Some(command) = slot.command() else {
            return self.undeliverable(rsp.itn_id, rsp.host_no, tag);
        };
        let data_len = answer.buf.len();
        let direction = answer.buf.direction();
        command.spare = session.snapshots.release(answer.buf);
        // However it ended: what was not told of may have been written all the same.
        session.snapshots.mark(command.request.data_in.iter().map(|piece| (piece.va, piece.len)));
        let result = CommandResult::try_from(rsp.result).unwrap_or(CommandResult::host(HostByte::Error));
        let sense = answer.sense.as_deref().unwrap_or_default();
        let moved = u64::from(rsp.len);
        let mut iu = srp::Rsp::to_command(command.request.id, result, moved, data_len, direction, sense);
        iu.req_lim_delta = session.credit.give_back();
        let response = command_response(result, clamp(data_len), moved, iu.sense);
        let place = &command.request.response;
        let written = place.write_command(session.writer_to(kept.as_ref()), &response);
        let data_in = if direction == Direction::In { moved.min(data_len) } else { 0 };
        let used_len = place.used_len(written, clamp(data_in));
        session.settle(command);
        if answer.once || result != CommandResult::status(Status::Good) {
            queue.note_answer(tag.head(), used_len);
        }
        queue.done.push(tag);
        self.finish_chain(tag, used_len);
    }

    /// Puts a chain's head on the used ring with `written` bytes; it is published at the end of the turn.
    pub(super) fn finish_chain(&mut self, tag: Tag, written: u32) {
        let Some(Some(queue)) = self.queues.get_mut(usize::from(tag.queue())) else { return };
        let Some(kept) = queue.finish(tag, written) else { return };
        if !std::mem::replace(&mut queue.touched, true) {
            self.touched.push(tag.queue());
        }
        if kept && let Some(Some(session)) = self.sessions.get_mut(queue.session) {
            session.kept = session.kept.saturating_sub(1);
        }
    }
}

fn clamp(len: u64) -> u32 {
    u32::try_from(len).unwrap_or(u32::MAX)
}
