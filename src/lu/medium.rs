//! Whether a unit's medium can be used: ejected and loaded, stopped and started, and in which power condition the unit is.
//!
//! # Contract
//!
//! * **What is ejected is ejected for every nexus**: it is one medium, and who ejects it asks for just that. Who needs it there prevents
//!   its removal ([`Itl::prevent_removal`]), and then it is not ejected, whoever asks. Preventing and ejecting are done under the
//!   unit's lock: of the two the one that came first counts.
//! * [`Lu::eject`] closes every gate at once. Commands that began before are the target's to wait for. What it closed
//!   [`Lu::put_back`] opens again if the eject comes to nothing.
//! * An ejected medium stays ejected until it is loaded: by START STOP UNIT of any nexus, or by the host ([`Lu::look_again`]). Resets, the loss of nexuses,
//!   new nexuses and, where the unit has a [`Keeper`](super::Keeper), a new process on the same boot change nothing: who took the disk away
//!   from all guests is not to find it back because one of them rebooted.
//! * What is loaded is the same image, with the size that it has by then.
//! * **Stopped** is another matter: it lasts until somebody starts the unit, comes, or is reset; see [`Lu::stop`].
//! * **Power conditions** are told of and nothing else: there is nothing to switch off. Any command that uses the medium makes
//!   the unit active again ([`Lu::wake`]), as a reset and a new process do.

use std::sync::Arc;
use std::sync::atomic::Ordering;

use super::unit::{Cold, live, tell};
use super::{Attention, GateBits, Itl, Lu, NexusId, SelfTestOutcome, Touches};
use crate::backing::BackingError;

/// The power condition of a unit that is not stopped (SBC-3 4.20).
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum PowerCondition {
    /// Active.
    #[default]
    Active,
    /// Idle (idle_a), as START STOP UNIT asked for.
    Idle,
    /// Standby (standby_z), likewise.
    Standby,
}

/// Some nexus prevents the removal of the medium.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("medium removal is prevented")]
pub struct RemovalPrevented;

/// Which eject it was: they are counted.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Ejection(u64);

/// The medium of a unit, and what goes with it.
#[derive(Debug, Default)]
pub(super) struct Medium {
    ejected: bool,
    /// How often it was ejected.
    ejections: u64,
    /// It is about to be loaded on behalf of this nexus.
    loading: Option<NexusId>,
    power: PowerCondition,
}

impl Medium {
    /// As it was kept.
    pub(super) fn new(ejected: bool) -> Medium {
        Medium { ejected, ..Medium::default() }
    }

    /// The bits of every gate.
    fn bits(&self) -> GateBits {
        let medium = if self.ejected { GateBits::NO_MEDIUM } else { GateBits::NONE };
        let power = if self.power == PowerCondition::Active { GateBits::NONE } else { GateBits::LOW_POWER };
        medium.and(power)
    }

    /// Sets the gate of a nexus that comes.
    pub(super) fn attach(&self, itl: &Itl) {
        itl.gate().raise(self.bits());
    }

    /// Whether it is ejected once what is on its way is made.
    pub(super) fn will_be_ejected(&self) -> bool {
        self.ejected && self.loading.is_none()
    }

    /// Whether what is on its way comes with a unit attention for a nexus.
    pub(super) fn will_tell(&self, nexus: NexusId) -> bool {
        self.ejected && self.loading.is_some_and(|by| by != nexus)
    }
}

impl Lu {
    /// Takes the medium out of the unit, for every nexus; `None` if it is out already.
    ///
    /// # Errors
    ///
    /// Some nexus prevents it. Nothing has changed.
    pub fn eject(&self) -> Result<Option<Ejection>, RemovalPrevented> {
        let mut cold = self.cold();
        if cold.medium.ejected {
            return Ok(None);
        }
        if live(&cold).any(|itl| itl.prevents_removal()) {
            return Err(RemovalPrevented);
        }
        cold.medium.ejected = true;
        cold.medium.ejections += 1;
        cold.records.self_tests.abort(SelfTestOutcome::Aborted);
        self.disturb_under_lock(&mut cold, Touches::Everything);
        live(&cold).for_each(|itl| itl.gate().raise(GateBits::NO_MEDIUM));
        self.note();
        Ok(Some(Ejection(cold.medium.ejections)))
    }

    /// An eject on behalf of a nexus came to nothing: the medium is back, unless somebody loaded it since. Others may have found it missing:
    /// they are told.
    pub fn put_back(&self, ejection: Ejection, by: &Itl) {
        let mut cold = self.cold();
        if cold.medium.ejected && cold.medium.ejections == ejection.0 {
            self.insert(&mut cold, Some(by));
        }
    }

    /// Whether a load would move the medium.
    ///
    /// # Errors
    ///
    /// It would, and some nexus prevents it. (PREVENT locks an empty drive, too.)
    pub fn can_load(&self) -> Result<bool, RemovalPrevented> {
        let cold = self.cold();
        let prevented = cold.medium.ejected && live(&cold).any(|itl| itl.prevents_removal());
        if prevented { Err(RemovalPrevented) } else { Ok(cold.medium.ejected) }
    }

    /// Remembers, until [`Lu::load`], that the medium is about to be loaded on behalf of a nexus; with `None`, that it is not. Nothing is different
    /// yet.
    pub fn expect_load(&self, by: Option<&Itl>) {
        let mut cold = self.cold();
        cold.medium.loading = by.map(Itl::nexus);
        if by.is_some() {
            cold.changes.evaluated()
        } else {
            cold.changes.abandoned()
        }
        drop(cold);
        if by.is_none() {
            // It may have been written meanwhile as if it were made.
            self.note();
        }
    }

    /// Puts the medium back, with the size that the image has now, and starts the unit, on behalf of a nexus, or of the host. Every other nexus is told that
    /// the medium may be another one (SBC-3 4.3: NOT READY TO READY CHANGE); if the capacity is another one, the nexus that asked is
    /// told of that, too. Does nothing if the medium is there.
    pub fn load(&self, by: Option<&Itl>) {
        let mut cold = self.cold();
        cold.medium.loading = None;
        if !cold.medium.ejected {
            return;
        }
        let blocks = self.image().size() / u64::from(self.geometry().block_size);
        if blocks > 0 && self.blocks.swap(blocks, Ordering::AcqRel) != blocks {
            tell(&cold, Attention::CapacityChanged, None);
        }
        self.insert(&mut cold, by);
        start(&cold);
    }

    fn insert(&self, cold: &mut Cold, by: Option<&Itl>) {
        cold.medium.ejected = false;
        // Before the gates open: the first command that gets through reports it.
        tell(cold, Attention::MediumMayHaveChanged, by);
        live(cold).for_each(|itl| itl.gate().lower(GateBits::NO_MEDIUM));
        self.note();
    }

    /// The host says that there may be another medium, or that the image grew: what is out is loaded, and of a capacity that is another one everybody
    /// is told. What initiators prevent does not concern the host. True: it was loaded. Looks at the size of the image, and may wait.
    ///
    /// # Errors
    ///
    /// The size cannot be looked at: nothing has changed.
    pub fn look_again(&self) -> Result<bool, BackingError> {
        self.image().refresh_size(self.geometry().block_size)?;
        let loads = self.is_ejected();
        if loads {
            self.load(None);
        } else {
            self.update_capacity(None);
        }
        Ok(loads)
    }

    /// Whether the medium is out.
    pub fn is_ejected(&self) -> bool {
        self.cold().medium.ejected
    }

    /// Stops the unit for START STOP UNIT; true if it did.
    ///
    /// A stopped unit is stopped for all nexuses (SBC-3 4.20), so a guest that powers its disk down as it shuts down would take
    /// it from every other guest that shares it. Hence it stops only if the nexus that asks is the only one; and it starts
    /// again with START, when another nexus appears, and with every reset, so that a guest which reboots finds its boot disk.
    pub fn stop(&self, by: &Itl) -> bool {
        let mut cold = self.cold();
        let shared = live(&cold).any(|other| !std::ptr::eq(Arc::as_ptr(&other), by));
        if !shared {
            if !by.gate().bits().intersects(GateBits::STOPPED) {
                cold.records.cycles = cold.records.cycles.saturating_add(1);
                self.note();
            }
            cold.records.self_tests.abort(SelfTestOutcome::Aborted);
            by.gate().raise(GateBits::STOPPED);
        }
        !shared
    }

    /// Starts the unit for every nexus.
    pub fn start(&self) {
        start(&self.cold());
    }

    /// The power condition. (A unit that is stopped is in none of these.)
    pub fn power_condition(&self) -> PowerCondition {
        self.cold().medium.power
    }

    /// Goes to a power condition, from another one or from being stopped.
    pub fn set_power_condition(&self, condition: PowerCondition) {
        let mut cold = self.cold();
        set_power(&mut cold, condition);
        start(&cold);
    }

    /// A command uses the medium: the unit is active.
    pub fn wake(&self) {
        set_power(&mut self.cold(), PowerCondition::Active);
    }
}

/// What a reset does: the unit runs.
pub(super) fn reset(cold: &mut Cold) {
    set_power(cold, PowerCondition::Active);
    start(cold);
}

/// Ends a stop.
pub(super) fn start(cold: &Cold) {
    live(cold).for_each(|itl| itl.gate().lower(GateBits::STOPPED));
}

fn set_power(cold: &mut Cold, condition: PowerCondition) {
    cold.medium.power = condition;
    let low = condition != PowerCondition::Active;
    for itl in live(cold) {
        if low { itl.gate().raise(GateBits::LOW_POWER) } else { itl.gate().lower(GateBits::LOW_POWER) }
    }
}
