//! A descriptor chain becomes an SRP_CMD information unit, and that a `CMD_REQ`.

use super::queue::Role;
use super::reactor::Reactor;
use crate::mem::Direction;
use crate::scsi::Lun;
use crate::srp;
use crate::tgt::{CmdData, CmdReq, KEvent, Tag};
use crate::virtio_scsi::{ChainError, ChainStatus, Response};

/// CDBs of these operation codes may be longer than 16 bytes (SPC-4 4.3: variable length and extended).
const LONG_CDB: [u8; 2] = [0x7e, 0x7f];

/// Bytes of a CDB that travel in `scb`.
const SCB_LEN: usize = 16;

impl Reactor {
    /// Takes charge of the chain that queue `number` just popped.
    pub(super) fn on_chain(&mut self, number: u16, status: ChainStatus) {
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
        if let ChainStatus::Broken(why) = status {
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
            let why = format!("{}: its memory file was shrunk; the connection is dropped", session.initiator);
            session.hangup.hang_up();
            self.break_ring(tag.queue(), &why);
            self.finish_chain(tag, 0);
            return;
        }
        match slot.command.parse(&queue.chain, map) {
            Ok(()) => {}
            Err(ChainError::Answerable(why)) => {
                log::debug!("{}: a command chain is refused: {why}", session.initiator);
                self.refuse(tag, Response::Failure);
                return;
            }
            Err(ChainError::Unanswerable(why)) => {
                log::debug!("{}: a command chain cannot be answered: {why}", session.initiator);
                self.finish_chain(tag, 0);
                return;
            }
        }
        let iu = slot.command.information_unit();
        let (direction, descriptors) = match (iu.data_out.descriptors(), iu.data_in.descriptors()) {
            ([], []) => (Direction::None, &[][..]),
            (out, []) => (Direction::Out, out),
            (_, data_in) => (Direction::In, data_in),
        };
        let pieces = descriptors.iter().map(|d: &srp::DirectDescriptor| (d.va, d.len));
        let Ok(buf) = session.snapshots.resolve(direction, pieces, std::mem::take(&mut slot.spare)) else {
            log::debug!("{}: a data buffer lies outside guest memory", session.initiator);
            self.refuse(tag, Response::Failure);
            return;
        };
        let mut scb = [0; SCB_LEN];
        scb.copy_from_slice(&iu.cdb[..SCB_LEN]);
        let cdb_tail = LONG_CDB.contains(&scb[0]).then(|| iu.additional_cdb.into());
        let event = KEvent::CmdReq(CmdReq {
            host_no: session.host_no,
            data_len: u32::try_from(buf.len()).unwrap_or(u32::MAX),
            itn_id: session.itn_id,
            scb,
            lun: Lun(iu.lun.0),
            attribute: iu.attribute.to_tgt(),
            tag,
        });
        self.post_request(event, Some(CmdData { buf, cdb_tail }));
    }
}
