//! How a unit's mode parameters change: [`Lu::expect_mode`] → [`Lu::persist`] → [`Lu::set_mode`], or [`Lu::abandon_mode`].

use super::unit::tell;
use super::{Attention, Itl, Lu, NexusId};
use crate::scsi::spc::ModeState;

/// Mode parameters that are not in force yet, and who wants them.
#[derive(Debug, Default)]
pub(super) struct ComingMode(Option<(NexusId, ModeState)>);

impl ComingMode {
    /// What is to be kept: those on their way, or the current ones.
    pub(super) fn or(&self, current: ModeState) -> ModeState {
        self.0.map_or(current, |(_, coming)| coming)
    }

    /// Whether a nexus will be told of them: all but the one that wants them are.
    pub(super) fn concerns(&self, nexus: NexusId) -> bool {
        self.0.is_some_and(|(by, _)| by != nexus)
    }
}

impl Lu {
    /// These mode parameters are to be in force soon, on behalf of one nexus: what is kept of the unit from now on says so. Whoever makes
    /// new parameters out of old ones sees to it that nobody else does at the same time.
    pub fn expect_mode(&self, by: &Itl, mode: ModeState) {
        self.cold().mode.0 = Some((by.nexus(), mode));
    }

    /// Sets the mode parameters on behalf of one nexus; every other one is told (SPC-4 6.9: MODE PARAMETERS CHANGED), if anything
    /// changed.
    pub fn set_mode(&self, by: &Itl, mode: ModeState) {
        let mut cold = self.cold();
        cold.mode.0 = None;
        if self.mode() != mode {
            self.store_mode(&cold, mode);
            self.note();
            tell(&cold, Attention::ModeParametersChanged, Some(by));
        }
    }

    /// Nothing comes of what was expected on behalf of this nexus.
    pub fn abandon_mode(&self, by: &Itl, mode: ModeState) {
        let mut cold = self.cold();
        if cold.mode.0 == Some((by.nexus(), mode)) {
            cold.mode.0 = None;
            self.note();
        }
    }
}
