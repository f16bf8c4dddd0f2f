//! The threshold of a thin unit: its initiators hear that space runs low before a write fails for want of it (SBC-3 4.7.3.7).
//!
//! # Contract
//!
//! * A unit has thresholds if it is thin and its image can tell what space there is. What is counted is *available LBA mapping resources*: what
//!   the file system below the image has left, whoever may take it.
//! * Resources are counted in **threshold sets** of 2^[exponent](Lu::threshold_exponent) blocks: about 1/4096 of the unit, and at least
//!   1 MiB. The exponent is that of the capacity with which the unit was made, and stays.
//! * There is one threshold, armed as the resource decreases. It is *reached* when less is available than the count less half a set; it is
//!   armed again when there is more than the count and half a set. Each time that it is reached every nexus is told, once: THIN
//!   PROVISIONING SOFT THRESHOLD REACHED. Changing it arms it. A nexus that begins while it is reached is told, too, and the
//!   next process knows who was told.
//! * [`Lu::look_at_space`] asks the file system and may wait; no command that accesses the medium calls it.

use super::unit::tell;
use super::{Attention, Lu};
use crate::backing::Space;
use crate::scsi::spc::ModeThreshold;

/// The soft threshold that a unit starts with.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum SoftThreshold {
    /// [`DEFAULT_THRESHOLD`], if the unit has thresholds at all.
    #[default]
    AsImage,
    /// Disabled; initiators can enable it.
    Off,
    /// So much of the unit's capacity, in percent. A unit that has no thresholds is refused.
    Percent(u8),
}

/// The threshold that nobody set: this much of the unit's capacity, in percent, is left in the file system.
pub const DEFAULT_THRESHOLD: u8 = 5;

/// The smallest threshold set, in bytes.
const SMALLEST_SET: u64 = 1 << 20;

/// Threshold sets in a unit, about.
const SETS: u64 = 4096;

/// What a look at the space found.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Crossing {
    /// Nothing new.
    None,
    /// The threshold was reached just now; nexuses were told.
    Reached,
    /// There is enough again.
    Left,
}

/// LBA mapping resources, in threshold sets.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct MappingResources {
    /// Available, to this unit or others.
    pub available: u64,
    /// Used by this unit.
    pub used: u64,
}

/// THRESHOLD EXPONENT of a unit of this size.
pub(super) fn exponent(bytes: u64, block_size: u32) -> u8 {
    let set = (bytes / SETS).max(SMALLEST_SET);
    // The next power of two; an exponent is 63 at most.
    (u64::BITS - (set - 1).leading_zeros()) as u8 - block_size.ilog2() as u8
}

/// The default threshold of a unit of this size.
pub(super) fn default(setting: SoftThreshold, bytes: u64, exponent: u8, block_size: u32) -> ModeThreshold {
    let percent = match setting {
        SoftThreshold::Percent(percent) => percent,
        SoftThreshold::AsImage | SoftThreshold::Off => DEFAULT_THRESHOLD,
    };
    let level = u128::from(bytes) * u128::from(percent.min(100)) / 100;
    let sets = level.div_ceil(u128::from(block_size) << exponent);
    ModeThreshold { enabled: setting != SoftThreshold::Off, count: u32::try_from(sets).unwrap_or(u32::MAX) }
}

impl Lu {
    /// THRESHOLD EXPONENT (SBC-3 6.6.4); `None`: there are no thresholds.
    pub fn threshold_exponent(&self) -> Option<u8> {
        (self.threshold_exponent != 0).then_some(self.threshold_exponent)
    }

    /// Looks at what space there is, and tells the nexuses if that is too little. May wait. `None` if the unit has no thresholds, or the
    /// file system does not say.
    pub fn look_at_space(&self) -> Option<(MappingResources, Crossing)> {
        let set = u64::from(self.geometry().block_size) << self.threshold_exponent()?;
        let Space { used, available } = self.image().space()?;
        let mut cold = self.cold();
        // Under the lock, so that of several who look one tells, and none tells what a MODE SELECT has just turned off.
        let mode = self.mode();
        let level = u128::from(mode.threshold.count) * u128::from(set);
        let half = u128::from(set / 2);
        let reached = u128::from(available) + half < level;
        let crossing = if !(mode.lbpere && mode.threshold.enabled) {
            Crossing::None
        } else if reached && !cold.records.threshold_reached {
            cold.records.threshold_reached = true;
            self.note();
            tell(&cold, Attention::ThinProvisioningThreshold, None);
            Crossing::Reached
        } else if cold.records.threshold_reached && u128::from(available) > level + half {
            cold.records.threshold_reached = false;
            self.note();
            Crossing::Left
        } else {
            Crossing::None
        };
        Some((MappingResources { available: available / set, used: used.div_ceil(set) }, crossing))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sets_are_a_4096th_of_the_unit_or_a_mebibyte() {
        for (bytes, block_size, expected) in [
            (512, 512, 11),
            (4 << 30, 512, 11),
            ((4 << 30) + 4096, 512, 12),
            (1 << 40, 512, 19),
            (1 << 40, 4096, 16),
            (u64::MAX, 512, 43),
        ] {
            let exponent = exponent(bytes, block_size);
            assert_eq!(exponent, expected, "{bytes} {block_size}");
            // What SBC-3 6.6.4 asks for.
            assert!((bytes / u64::from(block_size)) >> exponent < 1 << 32);
        }
    }

    #[test]
    fn a_threshold_is_a_share_of_the_unit() {
        let of = |setting, bytes| {
            let ModeThreshold { enabled, count } = default(setting, bytes, exponent(bytes, 512), 512);
            (enabled, count)
        };
        assert_eq!(of(SoftThreshold::AsImage, 1 << 40), (true, 205), "5 % of 4096 sets, rounded up");
        assert_eq!(of(SoftThreshold::Off, 1 << 40), (false, 205));
        assert_eq!(of(SoftThreshold::Percent(100), 1 << 40), (true, 4096));
        assert_eq!(of(SoftThreshold::Percent(1), 512), (true, 1), "never nothing");
        assert_eq!(of(SoftThreshold::Percent(100), u64::MAX), (true, 4096));
    }
}
