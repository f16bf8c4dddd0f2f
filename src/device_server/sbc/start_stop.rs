//! START STOP UNIT and PREVENT ALLOW MEDIUM REMOVAL, for a medium that cannot be removed.

use super::nothing;
use crate::device_server::outcome::sense;
use crate::device_server::{Answer, Job, Planned, Task};
use crate::scsi::{FieldPointer, Sense};

/// START STOP UNIT (SBC-3 5.29).
///
/// Stopping flushes (unless NO_FLUSH) and then stops the unit if no other nexus shares it; if one does, GOOD means flushed and
/// nothing more, because one guest that shuts down must not take the disk from the others. See [`Lu::stop`](crate::lu::Lu::stop).
/// IMMED is not heeded: the status comes when it is done. There are no power conditions and there is no tray.
pub(in crate::device_server) fn start_stop_unit<'a>(
    task: Task<'a, '_>,
    power_condition: u8,
    no_flush: bool,
    loej: bool,
    start: bool,
) -> Planned<'a> {
    if power_condition != 0 {
        return Err(Sense::invalid_field_in_cdb(FieldPointer::cdb(4, 7)).into());
    }
    if loej {
        return Err(Sense::invalid_field_in_cdb(FieldPointer::cdb(4, 1)).into());
    }
    let lu = task.itl.lu();
    if start {
        lu.start();
        return Ok(nothing());
    }
    let flush = !no_flush && !lu.read_only();
    let itl = task.itl.clone();
    Ok(Job::plan(move |_, _| {
        if flush {
            itl.lu().image().flush().map_err(|e| sense(e, 0))?;
        }
        itl.lu().stop(&itl);
        Ok(Answer::good(0))
    }))
}

/// PREVENT ALLOW MEDIUM REMOVAL (SPC-4 6.15): kept for each nexus, and never in anybody's way.
pub(in crate::device_server) fn prevent_allow_medium_removal<'a>(task: Task<'a, '_>, prevent: u8) -> Planned<'a> {
    if prevent & 1 != 0 {
        task.itl.prevent_removal();
    } else {
        task.itl.allow_removal();
    }
    Ok(nothing())
}
