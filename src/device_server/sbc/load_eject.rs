//! START STOP UNIT with LOEJ: the medium of a removable unit goes, and comes back.
//!
//! Both are [`Change`]s, made one after the other in their turn.
//!
//! **Eject**: refused with MEDIUM REMOVAL PREVENTED while any nexus prevents removal, the one that asks as well (SBC-3 5.9). Else every nexus's gate closes,
//! what began before ends, the image is flushed, behind the last write, that the medium is out is written down, and then it is
//! answered: whoever is told GOOD knows that nobody uses the image any more. If it cannot be flushed, or not be written down, the medium is
//! back, and the command says why. NO_FLUSH leaves the flush out.
//!
//! **Load**: refused likewise where it would move the medium. The image's size is looked at; that the medium is in is written down; then the gates
//! open. Nexuses that did not ask are told NOT READY TO READY CHANGE, MEDIUM MAY HAVE CHANGED, and everyone, if it
//! is so, CAPACITY DATA HAS CHANGED. (The one that asked knows that there is a medium now. Drives that tell all others and not it are
//! common, and libiscsi's StartStopUnit.Simple expects it.)
//!
//! What moves nothing, to eject an empty unit or to load a full one, is GOOD at once.

use std::sync::Arc;

use crate::backing::BackingError;
use crate::device_server::outcome::sense;
use crate::device_server::{Answer, Change, Fence, Job, Losers, Plan, log};
use crate::lu::{Ejection, GateBits, Itl, Touches};
use crate::scsi::{AdditionalSense, Sense, SenseKey};

/// Some nexus prevents it.
const PREVENTED: Sense = Sense::new(SenseKey::IllegalRequest, AdditionalSense::MEDIUM_REMOVAL_PREVENTED);

/// The unit's state cannot be written down.
const NOT_KEPT: Sense = Sense::new(SenseKey::HardwareError, AdditionalSense::INTERNAL_TARGET_FAILURE);

/// Ejects the medium, after a flush or without one.
pub(super) fn eject(itl: &Arc<Itl>, flush: bool) -> Plan<'static> {
    Plan::Change(Box::new(Eject { itl: Arc::clone(itl), flush, out: None }))
}

/// Loads it.
pub(super) fn load(itl: &Arc<Itl>) -> Plan<'static> {
    Plan::Change(Box::new(Load { itl: Arc::clone(itl), expected: false }))
}

/// An eject on its way.
struct Eject {
    itl: Arc<Itl>,
    flush: bool,
    /// The medium is out, and it is not yet certain that it stays so.
    out: Option<Out>,
}

/// A medium that was taken out. It goes back in if it is not [settled](Out::settle).
struct Out {
    itl: Arc<Itl>,
    ejection: Option<Ejection>,
}

impl Out {
    /// Flushes the image if there is need to, and writes down that the medium is out.
    fn settle(mut self, flush: bool) -> Result<(), Answer> {
        let lu = self.itl.lu();
        // Once more: a POPULATE TOKEN that had begun before the gates closed has made its token since.
        lu.will_change(Touches::Everything);
        if flush {
            lu.image().flush().map_err(|e: BackingError| sense(e, 0))?;
        }
        lu.persist().map_err(|_| NOT_KEPT)?;
        self.ejection = None;
        Ok(())
    }
}

impl Drop for Out {
    fn drop(&mut self) {
        if let Some(ejection) = self.ejection.take() {
            self.itl.lu().put_back(ejection, &self.itl);
        }
    }
}

impl Change for Eject {
    /// Takes the medium out at once: what is judged here, that nobody prevents it, is to hold still when it is done.
    fn evaluate(&mut self) -> Result<Fence, Answer> {
        let Some(ejection) = self.itl.lu().eject().map_err(|_| PREVENTED)? else { return Ok(Fence::default()) };
        self.out = Some(Out { itl: Arc::clone(&self.itl), ejection: Some(ejection) });
        Ok(Fence { losers: Losers::Everybody(GateBits::NO_MEDIUM), ..Fence::default() })
    }

    fn apply(&mut self) {}

    fn grant(&mut self) -> Plan<'static> {
        let Some(out) = self.out.take() else { return Answer::good(0).into() };
        let flush = self.flush;
        let settle = Job::plan(move |_, _| out.settle(flush).map(|()| Answer::good(0)));
        log::counted(settle, &self.itl, false)
    }

    /// Not asked: it has nothing written down before it is made, and is made again.
    fn made(&mut self) -> Plan<'static> {
        Answer::good(0).into()
    }
}

/// A load on its way.
struct Load {
    itl: Arc<Itl>,
    /// The unit expects it.
    expected: bool,
}

impl Load {
    fn abandon(&mut self) {
        if std::mem::take(&mut self.expected) {
            self.itl.lu().expect_load(None);
        }
    }
}

impl Change for Load {
    fn evaluate(&mut self) -> Result<Fence, Answer> {
        let persists = self.itl.lu().can_load().map_err(|_| PREVENTED)?;
        Ok(Fence { persists, ..Fence::default() })
    }

    fn persist(&mut self) -> Result<(), Answer> {
        let lu = self.itl.lu();
        lu.image().refresh_size(lu.geometry().block_size).map_err(|e| sense(e, 0))?;
        lu.expect_load(Some(&self.itl));
        self.expected = true;
        lu.persist().map_err(|_| {
            self.abandon();
            NOT_KEPT.into()
        })
    }

    fn apply(&mut self) {}

    fn grant(&mut self) -> Plan<'static> {
        self.expected = false;
        self.itl.lu().load(Some(&self.itl));
        self.made()
    }

    fn made(&mut self) -> Plan<'static> {
        Answer::good(0).into()
    }
}

impl Drop for Load {
    fn drop(&mut self) {
        self.abandon();
    }
}
