//! A descriptor chain becomes an SRP_CMD information unit, and that a `CMD_REQ`.

use super::queue::Role;
use super::reactor::Reactor;
use crate::mem::{Direction, GuestWriter};
use crate::scsi::Status;
use crate::srp;
use crate::tgt::{CmdData, CmdReq, KEvent, Tag};
use crate::vhost_user::Earlier;
use crate::virtio_scsi::{ChainDefect, ChainError, CommandRequest, CommandResponse, ResponseCode, wire};

/// CDBs of these operation codes may be longer than 16 bytes (SPC-4 4.3: variable length and extended).
const LONG_CDB: [u8; 2] = [0x7e, 0x7f];

impl Reactor {
    /// Takes charge of the chain that queue `number` just popped; gives back how many bytes of data it is about.
    pub(super) fn on_chain(&mut self, number: u16, chain: Result<(), ChainDefect>) -> u64 {
        let Some(Some(queue)) = self.queues.get_mut(usize::from(number)) else { return 0 };
        let Some(tag) = queue.take(self.index, number) else {
            self.break_ring(number, "a descriptor head was made available again before it was used");
            return 0;
        };
        let taken = queue.taken_before();
        let earlier = match queue.take_earlier() {
            // All that is missing is that the guest is told.
            Earlier::Answered(written) => {
                self.finish_chain(tag, written);
                return 0;
            }
            Earlier::Decided(decision) => decision,
            Earlier::Nothing => 0,
        };
        if let Err(why) = chain {
            log::debug!("ring {}: chain {}: {why}", queue.ring_index, tag.head());
            self.finish_chain(tag, 0);
            return 0;
        }
        match queue.role {
            Role::Request => return self.on_command(tag, earlier, taken),
            Role::Control => self.on_control(tag),
            Role::Event => self.finish_chain(tag, 0),
        }
        0
    }

    fn on_command(&mut self, tag: Tag, earlier: u64, taken: u64) -> u64 {
        let Some(Some(queue)) = self.queues.get_mut(usize::from(tag.queue())) else { return 0 };
        let Some(Some(session)) = self.sessions.get_mut(queue.session) else { return 0 };
        let Some((slot, chain)) = queue.slot(tag) else { return 0 };
        let Some(command) = slot.command() else { return 0 };
        if session.hang_up_if_poisoned() {
            // What can be read there now are zeros, which must not get to the medium.
            self.finish_chain(tag, 0);
            self.break_ring(tag.queue(), "guest memory is gone");
            return 0;
        }
        let map = session.snapshots.map();
        let request = &mut command.request;
        match request.parse(chain, map, wire::CDB_SIZE, wire::DEFAULT_SENSE_SIZE) {
            Ok(()) => {}
            Err(ChainError::Answerable(why)) => {
                log::debug!("{}: a command chain is refused: {why}", session.label);
                let written = refuse(request, session.snapshots.writer(), ResponseCode::Failure);
                session.settle(command);
                self.finish_chain(tag, written);
                return 0;
            }
            Err(ChainError::Unanswerable(why)) => {
                log::debug!("{}: a command chain cannot be answered: {why}", session.label);
                session.settle(command);
                self.finish_chain(tag, 0);
                return 0;
            }
        }
        let Ok(iu) = information_unit(request) else {
            let written = refuse(request, session.snapshots.writer(), ResponseCode::Failure);
            session.settle(command);
            self.finish_chain(tag, written);
            return 0;
        };
        let (direction, descriptors) = match (iu.data_out.pieces(), iu.data_in.pieces()) {
            ([], []) => (Direction::None, &[][..]),
            (out, []) => (Direction::Out, out),
            (_, data_in) => (Direction::In, data_in),
        };
        let pieces = descriptors.iter().map(|d: &srp::DirectDescriptor| (d.va, d.len));
        let Ok(buf) = session.snapshots.resolve(direction, pieces, std::mem::take(&mut command.spare)) else {
            log::debug!("{}: a data buffer lies outside guest memory", session.label);
            let written = refuse(request, session.snapshots.writer(), ResponseCode::Failure);
            session.settle(command);
            self.finish_chain(tag, written);
            return 0;
        };
        let scb = iu.scb();
        let cdb_tail = LONG_CDB.contains(&scb[0]).then(|| iu.additional_cdb().into());
        let (lun, attribute) = (iu.lun, iu.attribute.tgt_code());
        // More chains than descriptors cannot be outstanding, so there is credit; if there were none, it would be the same.
        if !session.charge(command, &buf) || session.credit.take().is_err() {
            let written = full(&command.request, session.snapshots.writer(), buf.len());
            command.spare = session.snapshots.release(buf);
            session.settle(command);
            let itn_id = session.itn_id;
            self.finish_chain(tag, written);
            // Those that came before it are not to report what it leaves behind.
            self.drain_events();
            self.shard.task_set_full(itn_id, lun);
            return 0;
        }
        let data_len = buf.len();
        let event = KEvent::CmdReq(CmdReq {
            host_no: session.host_no,
            data_len: u32::try_from(data_len).unwrap_or(u32::MAX),
            itn_id: session.itn_id,
            scb,
            lun,
            attribute,
            tag,
        });
        self.post_request(event, Some(CmdData { buf, cdb_tail, earlier, taken }));
        data_len
    }
}

/// Answers a command that never becomes one: the length for the used ring.
fn refuse(request: &CommandRequest, to: GuestWriter<'_>, response: ResponseCode) -> u32 {
    request.response.write_command(to, &CommandResponse { response, ..CommandResponse::default() })
}

/// TASK SET FULL (SAM-5 5.3.1): what a command is told for which there is no room, while others of its nexus have it; and there are some,
/// for it is theirs. It is a status and not a response code of virtio-scsi's, so that the guest sends fewer at a time, and
/// sends this one again for as long as it takes: BUSY at the transport is tried a few times and then an error. BUSY, the status, which is for
/// a nexus that has no command in the task set, never comes up. The length for the used ring.
fn full(request: &CommandRequest, to: GuestWriter<'_>, data_len: u64) -> u32 {
    let residual = u32::try_from(data_len).unwrap_or(u32::MAX);
    let response = CommandResponse { status: Status::TaskSetFull as u8, residual, ..CommandResponse::default() };
    request.response.write_command(to, &response)
}

/// The SRP_CMD information unit that a virtio-scsi command is: its data-buffer descriptors are the guest's own.
fn information_unit(command: &CommandRequest) -> Result<srp::Cmd<'_>, srp::IuError> {
    Ok(srp::Cmd {
        notify: srp::SolicitedNotification::default(),
        tag: command.id,
        lun: command.lun,
        attribute: command.task_attr,
        cdb: &command.cdb,
        data_out: srp::Buffers::of(&command.data_out)?,
        data_in: srp::Buffers::of(&command.data_in)?,
    })
}
