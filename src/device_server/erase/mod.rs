//! FORMAT UNIT and SANITIZE: what is done to the whole medium.
//!
//! # How it goes
//!
//! Each is a [`Change`]: judged in its turn, written down, then shown at every nexus's gate, so that nobody's command begins any more;
//! and when all that were under way have ended, it begins: `run` erases, in the unit's [`Background`](crate::lu::Background). With IMMED the
//! command is answered as soon as it began; without, a job waits for the end. Whatever becomes of the command (task management, the
//! loss of its nexus, a reset), the work goes on to its end (SBC-3 4.11.2).
//!
//! Meanwhile INQUIRY, REPORT LUNS and REQUEST SENSE are performed and everything else ends with NOT READY and how far it is (SBC-3
//! 4.11.2, 5.3.1). That is the opcode table's business: [`Readiness`](crate::scsi::opcode::Readiness).
//!
//! # Failure
//!
//! An error of the image ends it. After SANITIZE everything but those three and SANITIZE then ends with MEDIUM ERROR, SANITIZE COMMAND
//! FAILED, until another one succeeds, or EXIT FAILURE MODE where AUSE was one. After FORMAT UNIT whatever needs the medium ends with MEDIUM
//! ERROR, FORMAT COMMAND FAILED, until a FORMAT UNIT or a SANITIZE succeeds.
//!
//! # Restarts
//!
//! What began was written down before anybody heard of it; the next process goes on where this one was ([`go_on`]). After a loss of power
//! SANITIZE goes on and a format is corrupt (MEDIUM FORMAT CORRUPTED).
//!
//! # What erases
//!
//! OVERWRITE writes, pass by pass, each durable before the next one begins. BLOCK ERASE deallocates, so there is one only on a thin
//! unit; all blocks read as zeros afterwards (WABEREQ 01b). FORMAT UNIT deallocates on a thin unit and zeroes on others; with an initialization
//! pattern, or SI, it writes. The block length stays what it was configured to be. CRYPTOGRAPHIC ERASE does not exist, for nothing
//! is encrypted.

mod format_unit;
mod run;
mod sanitize;
#[cfg(test)]
mod tests;

pub(super) use format_unit::format_unit;
pub use run::go_on;
pub(super) use sanitize::sanitize;

use std::sync::Arc;
use std::sync::mpsc::{Receiver, RecvTimeoutError, channel};
use std::time::Duration;

use super::sbc::writable;
use super::{AbortFlag, Answer, Change, Fence, Job, Losers, Plan};
use crate::lu::{Erasure, GateBits, Itl, Lu};
use crate::scsi::opcode::Row;
use crate::scsi::{AdditionalSense, SanitizeAction, Sense, SenseKey};

/// How often a job that waits for the end of the work looks whether its task is being ended.
const LOOK: Duration = Duration::from_millis(10);

/// The unit's state cannot be written down.
const NOT_KEPT: Sense = Sense::new(SenseKey::HardwareError, AdditionalSense::INTERNAL_TARGET_FAILURE);

/// Whether BLOCK ERASE is there: it leaves every block unmapped.
pub(super) fn has_block_erase(lu: &Lu) -> bool {
    lu.thin()
}

/// Whether a command of the table, if it is one of these, is there on a unit.
pub(super) fn is_supported(row: &Row, lu: &Lu) -> bool {
    let block_erase = row.opcode == 0x48 && row.service_action == Some(SanitizeAction::BlockErase as u16);
    !block_erase || has_block_erase(lu)
}

/// A command that erases, on its way.
struct Begin {
    itl: Arc<Itl>,
    erasure: Erasure,
    immed: bool,
    /// Bytes of its parameter list.
    length: u64,
    /// It was evaluated and not applied: if it ends here, the unit has to forget it.
    evaluated: bool,
}

impl Begin {
    fn plan(itl: &Arc<Itl>, erasure: Erasure, immed: bool, length: u64) -> Plan<'static> {
        Plan::Change(Box::new(Begin { itl: Arc::clone(itl), erasure, immed, length, evaluated: false }))
    }

    fn abandon(&mut self) {
        if std::mem::take(&mut self.evaluated) {
            self.itl.lu().abandon_occupation();
        }
    }
}

impl Change for Begin {
    fn evaluate(&mut self) -> Result<Fence, Answer> {
        let lu = self.itl.lu();
        writable(lu)?;
        lu.evaluate_occupation(self.erasure.clone())?;
        self.evaluated = true;
        Ok(Fence { persists: lu.is_kept(), losers: Losers::Everybody(GateBits::OCCUPIED), ..Fence::default() })
    }

    fn persist(&mut self) -> Result<(), Answer> {
        self.itl.lu().persist().map_err(|_| {
            self.abandon();
            NOT_KEPT.into()
        })
    }

    fn apply(&mut self) {
        self.evaluated = false;
        self.itl.lu().apply_occupation();
    }

    /// Nobody's command uses the medium any more.
    fn grant(&mut self) -> Plan<'static> {
        let (ended, end) = channel();
        if let Err(sense) = run::start(self.itl.lu(), Some(ended)) {
            return Answer::check(sense).into();
        }
        let length = self.length;
        if self.immed {
            return Answer::good(length).into();
        }
        Job::plan(move |_, abort| wait(&end, abort).map(|()| Answer::good(length)))
    }

    /// It was begun. What is left of it goes on in the background, whoever asked for it, so the answer of one that was to wait for the end
    /// is how far it is; and that it is over, if it is.
    fn made(&mut self) -> Plan<'static> {
        let lu = self.itl.lu();
        match self.itl.gate().bits().intersects(GateBits::OCCUPIED) && !self.immed {
            true => Answer::check(lu.occupied_sense()).into(),
            false => Answer::good(self.length).into(),
        }
    }
}

impl Drop for Begin {
    fn drop(&mut self) {
        self.abandon();
    }
}

/// Waits for the end of the work, or of the task.
fn wait(end: &Receiver<Result<(), Sense>>, abort: &AbortFlag) -> Result<(), Answer> {
    const ABORTED: Sense = Sense::aborted_command(AdditionalSense::NO_ADDITIONAL_SENSE_INFORMATION);
    while !abort.raised() {
        match end.recv_timeout(LOOK) {
            Ok(result) => return result.map_err(Answer::check),
            Err(RecvTimeoutError::Timeout) => {}
            // The process ends.
            Err(RecvTimeoutError::Disconnected) => break,
        }
    }
    Err(ABORTED.into())
}
