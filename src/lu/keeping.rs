//! How a unit's state is kept, and how a unit goes on with what was kept.
//!
//! # Contract
//!
//! * **A change that is evaluated and on its way counts as made** in a [`snapshot`](Lu::snapshot), with the unit attentions that
//!   come with it. It is written before it is answered, so a snapshot taken meanwhile for another reason must not write over it.
//! * [`persist`](Lu::persist) is for threads that may wait. When it returns, the state is durable.
//! * A nexus that was present when its state was kept is present from the start, without a connection: attentions are
//!   established for it, reservations of other nexuses concern it, START STOP UNIT counts it. Its login finds it so
//!   ([`Arrival::GoesOn`]). If it does not come, it is lost: [`Lu::lose_awaited`].

use std::sync::{Arc, MutexGuard, PoisonError};

use super::unit::{Cold, live};
use super::{
    Attention, GateBits, Itl, KeepError, Keeper, KeptMode, KeptNexus, KeptRecords, KeptState, Lu, ModeChange, NexusId,
};
use crate::scsi::spc::IdentifyingInformationType;

/// How many nexuses a unit remembers that are not there. More than have ever been configured on one host; the oldest are
/// forgotten first.
const MAX_ABSENT: usize = 4096;

/// Nexuses that a unit knows though no connection has them.
#[derive(Debug, Default)]
pub(super) struct Continuity {
    /// They were there when the process before this one ended, and have not come yet. They hold their unit, and the unit them.
    awaited: Vec<Arc<Itl>>,
    /// They are not there; these unit attentions wait for them.
    absent: Vec<(NexusId, Vec<Attention>)>,
}

/// What becomes of a nexus that comes.
pub(super) enum Arrival {
    /// It was there all the time.
    GoesOn(Arc<Itl>),
    /// It begins, with these unit attentions besides that of a new one; a reset among them stands for that one.
    Returns(Vec<Attention>),
}

impl Lu {
    /// What is to outlive the process, as it is now.
    pub fn snapshot(&self) -> KeptState {
        let cold = self.cold();
        let present = live(&cold).filter(|itl| !itl.gate().bits().intersects(GateBits::GONE));
        let mut nexuses: Vec<KeptNexus> = present
            .map(|itl| KeptNexus {
                nexus: itl.nexus(),
                present: true,
                attentions: itl.gate().pending(),
                prevent: itl.prevents_removal(),
            })
            .collect();
        for (nexus, attentions) in &cold.continuity.absent {
            if !nexuses.iter().any(|kept| kept.nexus == *nexus) {
                nexuses.push(KeptNexus {
                    nexus: *nexus,
                    present: false,
                    attentions: attentions.clone(),
                    prevent: false,
                });
            }
        }
        // What comes with a change on its way, as if it were made.
        for (nexus, attention) in cold.reservations.coming() {
            if !nexuses.iter().any(|kept| kept.nexus == nexus) {
                nexuses.push(KeptNexus { nexus, present: false, attentions: Vec::new(), prevent: false });
            }
            // A unit that a nexus sees at several addresses has as many of it.
            let of_it = nexuses.iter_mut().filter(|kept| kept.nexus == nexus);
            of_it.for_each(|kept| pend(&mut kept.attentions, attention));
        }
        let (mut current, mut saved) = (self.mode(), cold.saved_mode);
        if let Some((by, ModeChange { mode, save })) = cold.coming_mode {
            current = mode;
            saved = if save { Some(mode) } else { saved };
            let others = nexuses.iter_mut().filter(|kept| kept.present && kept.nexus != by);
            others.for_each(|kept| pend(&mut kept.attentions, Attention::ModeParametersChanged));
        }
        let lost_writes = self.image().has_lost_writes();
        let mut records = KeptRecords { errors: self.errors().get(), lost_writes, ..cold.records.kept() };
        if let Some((by, identifying)) = &cold.coming_identifying {
            records.identifying = identifying.clone();
            let others = nexuses.iter_mut().filter(|kept| kept.present && kept.nexus != *by);
            others.for_each(|kept| pend(&mut kept.attentions, Attention::DeviceIdentifierChanged));
        }
        let told = nexuses.iter_mut().filter(|kept| kept.present && cold.access.will_tell(kept.nexus));
        told.for_each(|kept| pend(&mut kept.attentions, Attention::AccessStateChanged));
        let told = nexuses.iter_mut().filter(|kept| kept.present && cold.medium.will_tell(kept.nexus));
        told.for_each(|kept| pend(&mut kept.attentions, Attention::MediumMayHaveChanged));
        let mut aborts = cold.aborts.kept();
        aborts.extend(cold.reservations.coming_aborts());
        KeptState {
            mode: KeptMode { current, default: self.default_mode, saved },
            blocks: self.geometry().blocks,
            ejected: cold.medium.will_be_ejected(),
            reservations: cold.reservations.kept().clone(),
            access: cold.access.kept(),
            records,
            occupation: cold.occupations.kept(),
            changes: cold.changes.kept(),
            aborts,
            nexuses,
        }
    }

    /// Writes down what is to outlive the process; it is durable when this returns. Does nothing for a unit that has no [`Keeper`].
    ///
    /// # Errors
    ///
    /// Nothing was written. What the unit is now will be written when it can be.
    pub fn persist(&self) -> Result<(), KeepError> {
        let Some(keeper) = &self.keeper else { return Ok(()) };
        let closed = self.writing();
        if *closed {
            return Err(KeepError::Closed);
        }
        keeper.keep(&self.snapshot()).inspect_err(|_| keeper.note())
    }

    /// Writes the state for the last time: what happens to nexuses from now on is the end of the process, and no loss. Nexuses
    /// that have not come since the start are forgotten here, not in what was written.
    ///
    /// # Errors
    ///
    /// The last state that could be written is the one that is kept.
    pub fn close(&self) -> Result<(), KeepError> {
        let mut closed = self.writing();
        let result = match &self.keeper {
            Some(keeper) if !*closed => keeper.keep(&self.snapshot()),
            _ => Ok(()),
        };
        *closed = true;
        let awaited = std::mem::take(&mut self.cold().continuity.awaited);
        // They hold this unit, and are not to go under its lock.
        drop(awaited);
        result
    }

    /// Something changed that is to be kept, but need not be before anybody hears of it.
    pub fn note(&self) {
        if let Some(keeper) = &self.keeper {
            keeper.note();
        }
    }

    /// Whether it has a [`Keeper`]: whether [`Lu::persist`] has something to do.
    pub fn is_kept(&self) -> bool {
        self.keeper.is_some()
    }

    /// Whether what [`Lu::persist`] writes is still there after a loss of power: then APTPL can be promised (PTPL_C, SPC-4
    /// 6.15.4).
    pub fn survives_power_loss(&self) -> bool {
        self.keeper.as_ref().is_some_and(|keeper| keeper.survives_power_loss())
    }

    /// Remembers, until [`Lu::change_mode`], which mode parameters a change is about to set on behalf of a nexus; with `None`, that it
    /// is not made. Nothing is different yet.
    pub fn expect_mode(&self, by: &Itl, change: Option<ModeChange>) {
        let mut cold = self.cold();
        cold.coming_mode = change.map(|change| (by.nexus(), change));
        if change.is_some() {
            cold.changes.evaluated()
        } else {
            cold.changes.abandoned()
        }
        drop(cold);
        if change.is_none() {
            // It may have been written meanwhile as if it were made.
            self.note();
        }
    }

    /// Remembers, until [`Lu::set_identifying`], which identifying information a change is about to set on behalf of a nexus; with `None`, that
    /// it is not made.
    pub fn expect_identifying(&self, by: &Itl, change: Option<(IdentifyingInformationType, Vec<u8>)>) {
        let mut cold = self.cold();
        let all = cold.records.identifying.clone();
        let expected = change.is_some();
        cold.coming_identifying = change.map(|(kind, information)| {
            let mut all = all;
            all.set(kind, information);
            (by.nexus(), all)
        });
        if expected {
            cold.changes.evaluated()
        } else {
            cold.changes.abandoned()
        }
        if !expected {
            self.note();
        }
    }

    /// The nexuses that were to go on from the process before this one and have not come: they are lost. Returns which.
    pub fn lose_awaited(&self) -> Vec<NexusId> {
        let awaited = std::mem::take(&mut self.cold().continuity.awaited);
        awaited.iter().for_each(|itl| itl.end());
        awaited.iter().map(|itl| itl.nexus()).collect()
    }

    /// Leaves a unit attention for a nexus: at its gate if it is there, else for when it comes.
    pub fn establish_for(&self, nexus: NexusId, attention: Attention) {
        self.establish_under_lock(&mut self.cold(), nexus, attention);
    }

    /// The same for who has locked the unit.
    pub(super) fn establish_under_lock(&self, cold: &mut Cold, nexus: NexusId, attention: Attention) {
        let mut there = false;
        for itl in live(cold).filter(|itl| itl.nexus() == nexus && !itl.gate().bits().intersects(GateBits::GONE)) {
            itl.establish(attention);
            there = true;
        }
        if !there {
            cold.continuity.wait_for(nexus, attention);
            self.note();
        }
    }

    pub(super) fn keeper(&self) -> Option<&Arc<dyn Keeper>> {
        self.keeper.as_ref()
    }

    /// Goes on with what was kept; mode parameters, reservations and access states are in place.
    pub(super) fn go_on(self: &Arc<Self>, kept: KeptState) {
        let mut news = Vec::new();
        if kept.blocks != 0 && kept.blocks != self.geometry().blocks {
            news.push(Attention::CapacityChanged);
        }
        if kept.ejected && !self.is_ejected() {
            // It is no longer configured as removable.
            news.push(Attention::MediumMayHaveChanged);
        }
        if kept.mode.current != self.mode() {
            news.push(Attention::ModeParametersChanged);
        }
        if self.cold().access.differs_from(&kept.access) {
            news.push(Attention::AccessStateChanged);
        }
        for nexus in kept.nexuses {
            if !nexus.present {
                self.cold().continuity.absent.push((nexus.nexus, nexus.attentions));
                continue;
            }
            let itl = Itl::attached(Arc::clone(self), nexus);
            news.iter().for_each(|attention| itl.gate().establish(*attention));
            self.cold().continuity.awaited.push(itl);
        }
    }

    /// A nexus comes.
    pub(super) fn arrive(&self, nexus: NexusId) -> Arrival {
        let mut cold = self.cold();
        let continuity = &mut cold.continuity;
        if let Some(at) = continuity.awaited.iter().position(|itl| itl.nexus() == nexus) {
            return Arrival::GoesOn(continuity.awaited.remove(at));
        }
        let mut waiting = continuity.leave_for(nexus);
        if cold.records.threshold_reached {
            pend(&mut waiting, Attention::ThinProvisioningThreshold);
        }
        Arrival::Returns(waiting)
    }

    /// A nexus is over.
    pub(super) fn ended(&self, nexus: NexusId) {
        self.cold().continuity.wait_for(nexus, Attention::NexusLoss);
        self.note();
    }

    fn writing(&self) -> MutexGuard<'_, bool> {
        // One flag; a panic leaves it as it was.
        self.writing.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// As at a gate: a reset voids what was pending, and what is pending is so once.
fn pend(waiting: &mut Vec<Attention>, attention: Attention) {
    if attention.is_reset() {
        waiting.clear();
    }
    if !waiting.contains(&attention) {
        waiting.push(attention);
        waiting.sort_by_key(|attention| attention.bit());
    }
}

impl Continuity {
    /// A unit attention is to wait for a nexus that is not there.
    fn wait_for(&mut self, nexus: NexusId, attention: Attention) {
        let at = self.absent.iter().position(|(absent, _)| *absent == nexus).unwrap_or_else(|| {
            if self.absent.len() >= MAX_ABSENT {
                self.absent.remove(0);
            }
            self.absent.push((nexus, Vec::new()));
            self.absent.len() - 1
        });
        let Some((_, waiting)) = self.absent.get_mut(at) else { return };
        pend(waiting, attention);
    }

    /// What waits for a nexus. That it was lost once is told whenever it comes: a unit may be mapped for it several times.
    fn leave_for(&mut self, nexus: NexusId) -> Vec<Attention> {
        let Some((_, waiting)) = self.absent.iter_mut().find(|(absent, _)| *absent == nexus) else { return Vec::new() };
        let all = waiting.clone();
        waiting.retain(|attention| attention.is_reset());
        all
    }
}
