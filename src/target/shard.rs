//! One reactor's part of the target.

use std::sync::Arc;

use super::{Post, ShardMail, Spawn, Target};
use crate::backing::{Completion, Submit};
use crate::scsi::HostByte;
use crate::tgt::{EventRings, ItnId, TxSlot};

/// One reactor's part of the target: its tasks.
pub struct Shard {}

impl Shard {
    /// Shard `index` of `target`.
    pub fn new(_index: u8, _target: Arc<Target>, _post: Arc<dyn Post>, _pool: Arc<dyn Spawn>) -> Shard {
        Shard {}
    }

    /// Makes the task table of a virtqueue.
    pub fn open_queue(&mut self, _queue: u16, _size: u16) {}

    /// Frees it, now or when its last task is over.
    pub fn close_queue(&mut self, _queue: u16) {}

    /// An event of the tx ring.
    pub fn on_event(&mut self, _slot: TxSlot, _io: &mut dyn Submit, _rings: &mut EventRings) {}

    /// A completion of this reactor's I/O port; its cookie is the task's tag.
    pub fn on_completion(&mut self, _c: Completion, _io: &mut dyn Submit, _rings: &mut EventRings) {}

    /// A letter.
    pub fn on_mail(&mut self, mail: ShardMail, _io: &mut dyn Submit, _rings: &mut EventRings) {
        match mail {}
    }

    /// Tasks in flight: between `CMD_REQ` and `CMD_DONE`.
    pub fn tasks(&self) -> usize {
        0
    }

    /// Ends the tasks of a nexus on this shard, without a task management function.
    pub fn abort_nexus(&mut self, _itn_id: ItnId, _how: HostByte, _io: &mut dyn Submit, _rings: &mut EventRings) {}

    /// Ends the tasks of a virtqueue, without a task management function.
    pub fn abort_queue(&mut self, _queue: u16, _how: HostByte, _io: &mut dyn Submit, _rings: &mut EventRings) {}
}
