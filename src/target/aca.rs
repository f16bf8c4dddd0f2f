//! What CHECK CONDITION does besides being answered: an ACA condition if the CDB said NACA (SAM-5 5.9), and the end of other tasks if
//! QERR says so (SPC-4 table 390).
//!
//! An ACA condition is the faulted nexus's: with a task set for each nexus (TST 001b) SAM-5 leaves the others alone, and with one
//! task set for all they are left alone here, too. While it is established, commands of the nexus end with ACA ACTIVE, but for one
//! at a time that has the ACA attribute; those that waited keep waiting; those that run, run on.

use std::sync::Arc;

use super::nexus::LuIndex;
use super::order::{By, Effect, Scope, Work};
use super::shard::Shard;
use crate::lu::Itl;
use crate::scsi::{HostByte, TaskAttribute};
use crate::tgt::{CmdReq, ItnId, Tag};

/// NACA of a CDB's CONTROL byte. No, where the operation code does not say how long the CDB is (60h to 7Eh are reserved, C0h and above
/// vendor specific; SPC-4 4.2.5.1): no byte of it is known to be CONTROL.
pub(super) fn naca(scb: &[u8; 16]) -> bool {
    let control = match scb[0] {
        0x00..=0x1F => 5,
        0x20..=0x5F => 9,
        0x7F => 1,
        0x80..=0x9F => 15,
        0xA0..=0xBF => 11,
        0x60..=0x7E | 0xC0..=0xFF => return false,
    };
    scb[control] & 0x04 != 0
}

/// Whether a command may be started in spite of what its task attribute asks for.
pub(super) enum Place {
    /// It has no ACA attribute.
    Usual,
    /// It has, and is the one that may.
    Taken,
    /// It has, and there is another one.
    Busy,
    /// It has, and there is no ACA condition, or the attribute is none.
    Wrong,
}

pub(super) fn place(req: &CmdReq, itl: &Itl) -> Place {
    match TaskAttribute::from_tgt_code(req.attribute) {
        Err(_) => Place::Wrong,
        Ok(TaskAttribute::Aca) if !itl.has_aca() => Place::Wrong,
        Ok(TaskAttribute::Aca) if itl.begin_aca_task() => Place::Taken,
        Ok(TaskAttribute::Aca) => Place::Busy,
        Ok(_) => Place::Usual,
    }
}

impl Shard {
    /// A command is about to be answered with CHECK CONDITION.
    pub(super) fn checked(&mut self, tag: Tag) {
        let Some(task) = self.tasks.get(tag) else { return };
        let (naca, aca, itn_id, lu) = (task.naca, task.aca, task.itn_id, task.lu);
        let place = (task.itn_id, task.target, task.lun);
        let Some(itl) = self.itl(place) else { return };
        if naca {
            itl.begin_aca();
        } else if aca {
            self.clear_aca(&itl);
        }
        let mode = itl.lu().mode();
        if mode.qerr != 0 {
            let everybody = mode.tst == 0 && mode.qerr == 1;
            let scope = Scope::Others { itn_id: (!everybody).then_some(itn_id), lu, but: tag };
            let by = By { itn_id, how: HostByte::Abort };
            self.give_order(Work::End { request: None, scope, by, effect: Effect::None });
        }
    }

    pub(super) fn clear_aca(&self, itl: &Arc<Itl>) {
        if itl.has_aca() {
            itl.end_aca();
            self.tell_release();
        }
    }

    /// PREEMPT AND ABORT clears the ACA conditions of those it preempts (SPC-4 5.13.11.3).
    pub(super) fn end_acas(&self, itns: &[ItnId], lu: LuIndex) {
        for &itn_id in itns {
            if let Some(known) = self.known(itn_id) {
                known.nexus.units_of(lu).for_each(|itl| self.clear_aca(itl));
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::naca;

    #[test]
    fn control_is_where_the_operation_code_puts_it() {
        for (opcode, control) in
            [(0x00, 5), (0x1F, 5), (0x28, 9), (0x5F, 9), (0x7F, 1), (0x88, 15), (0x9F, 15), (0xA0, 11)]
        {
            let mut scb = [0xFB; 16];
            scb[0] = opcode;
            assert!(!naca(&scb), "{opcode:02X}");
            scb[control] = 0x04;
            assert!(naca(&scb), "{opcode:02X}");
        }
    }

    #[test]
    fn a_cdb_of_unknown_length_has_no_control_byte() {
        for opcode in [0x60, 0x7E, 0xC0, 0xD5, 0xFF] {
            let mut scb = [0xFF; 16];
            scb[0] = opcode;
            assert!(!naca(&scb), "{opcode:02X}");
        }
    }
}
