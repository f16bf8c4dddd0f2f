//! START STOP UNIT and PREVENT ALLOW MEDIUM REMOVAL.
//!
//! # What a unit of an image makes of it
//!
//! * **Loading and ejecting** (LOEJ) is for units that are configured as removable; for others LOEJ is INVALID FIELD IN CDB. See
//!   [`load_eject`](super::load_eject).
//! * **Stopping** (START zero) flushes (unless NO_FLUSH) and then stops the unit if no other nexus shares it; if one does, GOOD means flushed and
//!   nothing more, because one guest that shuts down must not take the disk from the others. See [`Lu::stop`](crate::lu::Lu::stop).
//!   A removable unit is flushed and nothing more either: who wants it away ejects it. (libiscsi's StartStopUnit.NoLoej wants TEST UNIT READY to find
//!   it ready after every stop without LOEJ.)
//! * **Power conditions**: ACTIVE, IDLE and STANDBY are taken, for an initiator that asks for them is to find that its disk does as it
//!   says: REQUEST SENSE tells of them (5Eh/03h, 5Eh/04h), STANDBY flushes before it, and the first command that uses the medium ends them. Nothing else
//!   comes of them, no power is saved, and so there is no Power Condition VPD page (8Ah) to say what is gained and what waking costs.
//!   LU_CONTROL gives control to timers of which none is enabled, so it is GOOD and changes nothing. FORCE_IDLE_0 and FORCE_STANDBY_0
//!   are INVALID FIELD IN CDB, as SBC-3 5.29 has it where the timer that they run out is not supported (mode page 1Ah has
//!   none), and so are the values that the standard reserves (SPC-4 3.4: a reserved code value is reported as an error).
//! * A **removable** unit takes each value of POWER CONDITION, those that name nothing it knows with no effect: libiscsi's
//!   StartStopUnit.PwrCnd sends all fifteen, to see that START and LOEJ are ignored, and counts anything but GOOD as a failure. It is the
//!   one place where a suite's word stands above the standard's, hence only where the suite looks.
//! * **IMMED** is not heeded: status comes when it is done, so an error is never lost.

use super::{load_eject, nothing};
use crate::device_server::outcome::sense;
use crate::device_server::{Answer, Job, NO_MEDIUM, Planned, Task};
use crate::lu::{Itl, PowerCondition};
use crate::scsi::{FieldPointer, Sense, StartStopFields};

/// START STOP UNIT (SBC-3 5.29).
pub(in crate::device_server) fn start_stop_unit<'a>(task: Task<'a, '_>, fields: StartStopFields) -> Planned<'a> {
    let lu = task.itl.lu();
    // START and LOEJ count only if POWER CONDITION is START_VALID.
    match (fields.power_condition, fields.loej, fields.start) {
        (0x0, true, _) if !lu.removable() => Err(Sense::invalid_field_in_cdb(FieldPointer::cdb(4, 1)).into()),
        (0x0, true, true) => Ok(load_eject::load(task.itl)),
        (0x0, true, false) => Ok(load_eject::eject(task.itl, flushes(task.itl, fields))),
        (0x0, false, true) if lu.is_ejected() => Err(NO_MEDIUM.into()),
        (0x0, false, true) => {
            lu.start();
            lu.wake();
            Ok(nothing())
        }
        (0x0, false, false) => Ok(after_flush(&task, fields, |itl| {
            if !itl.lu().removable() {
                itl.lu().stop(itl);
            }
        })),
        (0x1, ..) => {
            lu.set_power_condition(PowerCondition::Active);
            Ok(nothing())
        }
        (0x2, ..) => {
            lu.set_power_condition(PowerCondition::Idle);
            Ok(nothing())
        }
        (0x3, ..) => Ok(after_flush(&task, fields, |itl| itl.lu().set_power_condition(PowerCondition::Standby))),
        (0x7, ..) => Ok(nothing()),
        _ if lu.removable() => Ok(nothing()),
        _ => Err(Sense::invalid_field_in_cdb(FieldPointer::cdb(4, 7)).into()),
    }
}

/// Whether the cache is to be written to the medium first.
fn flushes(itl: &Itl, fields: StartStopFields) -> bool {
    !fields.no_flush && !itl.lu().read_only() && !itl.lu().is_ejected()
}

/// Flushes, unless the command or the unit says that there is nothing to flush, and does something then.
fn after_flush<'a>(task: &Task<'a, '_>, fields: StartStopFields, then: fn(&Itl)) -> crate::device_server::Plan<'a> {
    let flush = flushes(task.itl, fields);
    let itl = task.itl.clone();
    Job::plan(move |_, _| {
        if flush {
            itl.lu().image().flush().map_err(|e| sense(e, 0))?;
        }
        then(&itl);
        Ok(Answer::good(0))
    })
}

/// PREVENT ALLOW MEDIUM REMOVAL (SPC-4 6.15): kept for each nexus, of a unit that is not removable too, where it is in nobody's way. An empty unit
/// takes it as well.
pub(in crate::device_server) fn prevent_allow_medium_removal<'a>(task: Task<'a, '_>, prevent: u8) -> Planned<'a> {
    if prevent & 1 != 0 {
        task.itl.prevent_removal();
    } else {
        task.itl.allow_removal();
    }
    Ok(nothing())
}
