//! Mode parameters as one number, so that they are read with one load.

use std::sync::atomic::{AtomicU64, Ordering};

use crate::scsi::spc::{ModeState, ModeThreshold};

/// A unit's current mode parameters.
#[derive(Debug)]
pub(super) struct ModeWord(AtomicU64);

impl ModeWord {
    pub(super) fn new(mode: ModeState) -> ModeWord {
        ModeWord(AtomicU64::new(pack(mode)))
    }

    pub(super) fn load(&self) -> ModeState {
        unpack(self.0.load(Ordering::Acquire))
    }

    pub(super) fn store(&self, mode: ModeState) {
        self.0.store(pack(mode), Ordering::Release);
    }
}

fn pack(mode: ModeState) -> u64 {
    // Field by field, so that one that is added has to be thought of.
    let ModeState { d_sense, swp, wce, tst, qerr, ua_intlck, tas, lbpere, threshold } = mode;
    u64::from(wce)
        | u64::from(d_sense) << 1
        | u64::from(swp) << 2
        | u64::from(tas) << 3
        | u64::from(qerr & 3) << 4
        | u64::from(ua_intlck & 3) << 6
        | u64::from(tst & 7) << 8
        | u64::from(lbpere) << 11
        | u64::from(threshold.enabled) << 12
        | u64::from(threshold.count) << 32
}

fn unpack(bits: u64) -> ModeState {
    let bit = |at: u32| bits >> at & 1 != 0;
    ModeState {
        wce: bit(0),
        d_sense: bit(1),
        swp: bit(2),
        tas: bit(3),
        qerr: (bits >> 4 & 3) as u8,
        ua_intlck: (bits >> 6 & 3) as u8,
        tst: (bits >> 8 & 7) as u8,
        lbpere: bit(11),
        threshold: ModeThreshold { enabled: bit(12), count: (bits >> 32) as u32 },
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_parameter_has_its_place() {
        let none = unpack(0);
        let threshold = ModeThreshold { enabled: true, count: 0x8000_0001 };
        for mode in [
            ModeState::DEFAULT,
            ModeState { d_sense: true, ..none },
            ModeState { swp: true, ..none },
            ModeState { wce: true, ..none },
            ModeState { tst: 1, ..none },
            ModeState { qerr: 3, ..none },
            ModeState { ua_intlck: 3, ..none },
            ModeState { tas: true, ..none },
            ModeState { lbpere: true, ..none },
            ModeState { threshold, ..none },
        ] {
            assert_eq!(unpack(pack(mode)), mode);
            assert_ne!(pack(mode), 0);
        }
    }
}
