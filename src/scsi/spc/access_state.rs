//! Asymmetric access states of target port groups (SPC-4 6.37).

/// ASYMMETRIC ACCESS STATE of a target port group, for one unit; the discriminant is its code (SPC-4 6.37).
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
#[repr(u8)]
pub enum AccessState {
    /// 0h: everything works, at its best.
    #[default]
    ActiveOptimized = 0x0,
    /// 1h: everything works, perhaps more slowly.
    ActiveNonOptimized = 0x1,
    /// 2h: commands that access the medium do not work; those that manage the unit and its paths do.
    Standby = 0x2,
    /// 3h: only commands that tell of the unit, and of its access states, work.
    Unavailable = 0x3,
    /// Eh: the ports of the group cannot be used for the unit.
    Offline = 0xe,
    /// Fh: on its way from one state to another.
    Transitioning = 0xf,
}

impl AccessState {
    /// The state of a code; `None` for 4h (no unit here is LBA dependent) and reserved ones.
    pub const fn from_code(code: u8) -> Option<AccessState> {
        Some(match code {
            0x0 => AccessState::ActiveOptimized,
            0x1 => AccessState::ActiveNonOptimized,
            0x2 => AccessState::Standby,
            0x3 => AccessState::Unavailable,
            0xe => AccessState::Offline,
            0xf => AccessState::Transitioning,
            _ => return None,
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn codes() {
        for code in 0..=u8::MAX {
            let state = AccessState::from_code(code);
            assert_eq!(state.is_some(), matches!(code, 0..=3 | 0xe | 0xf), "{code:x}");
            assert!(state.is_none_or(|state| state as u8 == code));
        }
    }
}
