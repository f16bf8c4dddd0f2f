//! A descriptor chain becomes an SRP_CMD information unit, and that a `CMD_REQ`.

use super::queue::Role;
use super::reactor::Reactor;
use crate::mem::Direction;
use crate::srp;
use crate::tgt::{CmdData, CmdReq, KEvent, Tag};
use crate::virtio_scsi::{ChainDefect, ChainError, CommandRequest, ResponseCode, wire};

/// CDBs of these operation codes may be longer than 16 bytes (SPC-4 4.3: variable length and extended).
const LONG_CDB: [u8; 2] = [0x7e, 0x7f];

impl Reactor {
    /// Takes charge of the chain that queue `number` just popped.
    pub(super) fn on_chain(&mut self, number: u16, chain: Result<(), ChainDefect>) {
        let Some(queue) = self.queues.get_mut(usize::from(number)).and_then(Option::as_mut) else { return };
        let head = queue.chain.head;
        let Some(slot) = queue.slots.get_mut(usize::from(head)) else {
            self.break_ring(number, "a head index beyond the ring");
            return;
        };
        if slot.busy {
            self.break_ring(number, "a descriptor head was made available again before it was used");
            return;
        }
        slot.busy = true;
        slot.generation = slot.generation.wrapping_add(1);
        let tag = Tag::new(self.index, number, head, slot.generation);
        queue.outstanding += 1;
        if let Err(why) = chain {
            log::debug!("ring {}: chain {head}: {why}", queue.ring_index);
            self.finish_chain(tag, 0);
            return;
        }
        match queue.role {
            Role::Request => self.on_command(tag),
            Role::Control => self.on_control(tag),
            Role::Event => self.finish_chain(tag, 0),
        }
    }

    fn on_command(&mut self, tag: Tag) {
        let Some(Some(queue)) = self.queues.get_mut(usize::from(tag.queue())) else { return };
        let Some(Some(session)) = self.sessions.get_mut(queue.session) else { return };
        let Some(slot) = queue.slots.get_mut(usize::from(tag.head())) else { return };
        let map = session.snapshots.map();
        if map.poisoned() {
            if let Some(hangup) = &session.hangup {
                hangup.hang_up("the file behind its guest memory was shrunk");
            }
            self.break_ring(tag.queue(), "guest memory is gone");
            self.finish_chain(tag, 0);
            return;
        }
        match slot.command.parse(&queue.chain, map, wire::CDB_SIZE, wire::DEFAULT_SENSE_SIZE) {
            Ok(()) => {}
            Err(ChainError::Answerable(why)) => {
                log::debug!("{}: a command chain is refused: {why}", session.initiator);
                self.refuse(tag, ResponseCode::Failure);
                return;
            }
            Err(ChainError::Unanswerable(why)) => {
                log::debug!("{}: a command chain cannot be answered: {why}", session.initiator);
                self.finish_chain(tag, 0);
                return;
            }
        }
        let Ok(iu) = information_unit(&slot.command) else {
            self.refuse(tag, ResponseCode::Failure);
            return;
        };
        let (direction, descriptors) = match (iu.data_out.pieces(), iu.data_in.pieces()) {
            ([], []) => (Direction::None, &[][..]),
            (out, []) => (Direction::Out, out),
            (_, data_in) => (Direction::In, data_in),
        };
        let pieces = descriptors.iter().map(|d: &srp::DirectDescriptor| (d.va, d.len));
        let Ok(buf) = session.snapshots.resolve(direction, pieces, std::mem::take(&mut slot.spare)) else {
            log::debug!("{}: a data buffer lies outside guest memory", session.initiator);
            self.refuse(tag, ResponseCode::Failure);
            return;
        };
        if session.credit.take().is_err() {
            // More chains than descriptors cannot be outstanding; if they were, this is what SAM says to it.
            slot.spare = session.snapshots.release(buf);
            self.refuse(tag, ResponseCode::Busy);
            return;
        }
        let scb = iu.scb();
        let cdb_tail = LONG_CDB.contains(&scb[0]).then(|| iu.additional_cdb().into());
        let event = KEvent::CmdReq(CmdReq {
            host_no: session.host_no,
            data_len: u32::try_from(buf.len()).unwrap_or(u32::MAX),
            itn_id: session.itn_id,
            scb,
            lun: iu.lun,
            attribute: iu.attribute.tgt_code(),
            tag,
        });
        self.post_request(event, Some(CmdData { buf, cdb_tail }));
    }
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
