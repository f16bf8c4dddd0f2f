//! SANITIZE.

use std::sync::Arc;

use super::{Begin, NOT_KEPT, has_block_erase};
use crate::device_server::transfer::parameter_list;
use crate::device_server::{Answer, Change, Fence, Plan, Planned, Task};
use crate::lu::{Erasure, Itl, Method, Pattern, Purpose};
use crate::scsi::sbc::{OVERWRITE_HEADER, overwrite_list};
use crate::scsi::{FieldPointer, SanitizeAction, Sense};

/// SANITIZE (SBC-3 5.24).
pub(in crate::device_server) fn sanitize<'a>(
    task: Task<'a, '_>,
    action: SanitizeAction,
    immed: bool,
    ause: bool,
    parameter_list_length: u16,
) -> Planned<'a> {
    let method = match action {
        SanitizeAction::ExitFailureMode => {
            return Ok(Plan::Change(Box::new(Exit { itl: Arc::clone(task.itl), evaluated: false })));
        }
        SanitizeAction::BlockErase if has_block_erase(task.itl.lu()) => Method::Zero,
        SanitizeAction::BlockErase => return Err(Sense::invalid_field_in_cdb(FieldPointer::cdb(1, 4)).into()),
        SanitizeAction::Overwrite => {
            let block = task.itl.lu().geometry().block_size as usize;
            if usize::from(parameter_list_length) > OVERWRITE_HEADER + block {
                return Err(Sense::invalid_field_in_cdb(FieldPointer::cdb(7, 7)).into());
            }
            let overwrite = overwrite_list(&parameter_list(task.buf, parameter_list_length)?, block)?;
            let (bytes, passes, invert) = (overwrite.pattern, overwrite.passes, overwrite.invert);
            Method::Pattern(Pattern { bytes, passes, invert })
        }
    };
    let erasure = Erasure { purpose: Purpose::Sanitize { ause }, method };
    Ok(Begin::plan(task.itl, erasure, immed, u64::from(parameter_list_length)))
}

/// EXIT FAILURE MODE on its way. Without a failure there is nothing to do, and that is no error.
struct Exit {
    itl: Arc<Itl>,
    /// It was evaluated and not applied: if it ends here, the unit has to forget it.
    evaluated: bool,
}

impl Exit {
    fn abandon(&mut self) {
        if std::mem::take(&mut self.evaluated) {
            self.itl.lu().abandon_occupation();
        }
    }
}

impl Change for Exit {
    fn evaluate(&mut self) -> Result<Fence, Answer> {
        let lu = self.itl.lu();
        self.evaluated = lu.evaluate_exit()?;
        Ok(Fence { persists: self.evaluated && lu.is_kept(), ..Fence::default() })
    }

    fn persist(&mut self) -> Result<(), Answer> {
        self.itl.lu().persist().map_err(|_| {
            self.abandon();
            NOT_KEPT.into()
        })
    }

    fn apply(&mut self) {
        if std::mem::take(&mut self.evaluated) {
            self.itl.lu().apply_occupation();
        }
    }

    fn grant(&mut self) -> Plan<'static> {
        self.made()
    }

    fn made(&mut self) -> Plan<'static> {
        Answer::good(0).into()
    }
}

impl Drop for Exit {
    fn drop(&mut self) {
        self.abandon();
    }
}
