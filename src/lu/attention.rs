//! Unit attention conditions (SAM-5 5.14): what can be pending for a nexus, in the order in which it is reported.

use crate::scsi::{AdditionalSense, Sense};

/// A unit attention condition that vstgt knows.
///
/// The discriminant is the condition's bit in the [`Gate`](super::Gate) and its precedence: the lowest one pending
/// is reported first. SAM-5 5.14 fixes the order of the reset conditions (power on, then logical unit reset, then I_T
/// nexus loss, then all others); among the others any order is allowed, and ours puts first what a cluster node must know
/// before it does anything else.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[repr(u8)]
pub enum Attention {
    /// 29/00 POWER ON, RESET, OR BUS DEVICE RESET OCCURRED: the nexus is new to the unit.
    PowerOn = 0,
    /// 29/03 BUS DEVICE RESET FUNCTION OCCURRED: a LOGICAL UNIT RESET was done.
    LogicalUnitReset = 1,
    /// 29/07 I_T NEXUS LOSS OCCURRED.
    NexusLoss = 2,
    /// 2A/03 RESERVATIONS PREEMPTED.
    ReservationsPreempted = 3,
    /// 2A/04 RESERVATIONS RELEASED.
    ReservationsReleased = 4,
    /// 2A/05 REGISTRATIONS PREEMPTED.
    RegistrationsPreempted = 5,
    /// 2F/00 COMMANDS CLEARED BY ANOTHER INITIATOR.
    CommandsCleared = 6,
    /// 28/00 NOT READY TO READY CHANGE, MEDIUM MAY HAVE CHANGED.
    MediumMayHaveChanged = 7,
    /// 2A/09 CAPACITY DATA HAS CHANGED.
    CapacityChanged = 8,
    /// 2A/01 MODE PARAMETERS CHANGED.
    ModeParametersChanged = 9,
    /// 2A/06 ASYMMETRIC ACCESS STATE CHANGED.
    AccessStateChanged = 10,
    /// 3F/0E REPORTED LUNS DATA HAS CHANGED.
    ReportedLunsChanged = 11,
    /// 3F/03 INQUIRY DATA HAS CHANGED.
    InquiryChanged = 12,
    /// 3F/05 DEVICE IDENTIFIER CHANGED.
    DeviceIdentifierChanged = 13,
    /// 2A/02 LOG PARAMETERS CHANGED.
    LogParametersChanged = 14,
    /// 2A/10 TIMESTAMP CHANGED.
    TimestampChanged = 15,
    /// 38/07 THIN PROVISIONING SOFT THRESHOLD REACHED.
    ThinProvisioningThreshold = 16,
    /// 2C/07 PREVIOUS BUSY STATUS (UA_INTLCK_CTRL 11b, SPC-4 7.5.10).
    PreviousBusy = 17,
    /// 2C/08 PREVIOUS TASK SET FULL STATUS (likewise).
    PreviousTaskSetFull = 18,
    /// 2C/09 PREVIOUS RESERVATION CONFLICT STATUS (likewise).
    PreviousReservationConflict = 19,
}

impl Attention {
    /// All of them, highest precedence first.
    pub const ALL: [Attention; 20] = [
        Attention::PowerOn,
        Attention::LogicalUnitReset,
        Attention::NexusLoss,
        Attention::ReservationsPreempted,
        Attention::ReservationsReleased,
        Attention::RegistrationsPreempted,
        Attention::CommandsCleared,
        Attention::MediumMayHaveChanged,
        Attention::CapacityChanged,
        Attention::ModeParametersChanged,
        Attention::AccessStateChanged,
        Attention::ReportedLunsChanged,
        Attention::InquiryChanged,
        Attention::DeviceIdentifierChanged,
        Attention::LogParametersChanged,
        Attention::TimestampChanged,
        Attention::ThinProvisioningThreshold,
        Attention::PreviousBusy,
        Attention::PreviousTaskSetFull,
        Attention::PreviousReservationConflict,
    ];

    /// The condition's bit in the gate word.
    pub const fn bit(self) -> u64 {
        1 << self as u8
    }

    /// The pending condition of highest precedence in a gate word, if one is pending.
    pub(super) fn first(word: u64) -> Option<Attention> {
        Attention::ALL.get(word.trailing_zeros() as usize).copied()
    }

    /// True if the condition says that what the nexus knew of the unit is void: establishing it clears what was
    /// pending before, and it is reported ahead of a reservation conflict (SAM-5 5.3.3).
    pub const fn is_reset(self) -> bool {
        (self as u8) <= Attention::NexusLoss as u8
    }

    /// ADDITIONAL SENSE CODE and qualifier.
    pub const fn code(self) -> AdditionalSense {
        match self {
            Attention::PowerOn => AdditionalSense::POWER_ON_RESET_OR_BUS_DEVICE_RESET_OCCURRED,
            Attention::LogicalUnitReset => AdditionalSense::BUS_DEVICE_RESET_FUNCTION_OCCURRED,
            Attention::NexusLoss => AdditionalSense::I_T_NEXUS_LOSS_OCCURRED,
            Attention::ReservationsPreempted => AdditionalSense::RESERVATIONS_PREEMPTED,
            Attention::ReservationsReleased => AdditionalSense::RESERVATIONS_RELEASED,
            Attention::RegistrationsPreempted => AdditionalSense::REGISTRATIONS_PREEMPTED,
            Attention::CommandsCleared => AdditionalSense::COMMANDS_CLEARED_BY_ANOTHER_INITIATOR,
            Attention::MediumMayHaveChanged => AdditionalSense::NOT_READY_TO_READY_CHANGE,
            Attention::CapacityChanged => AdditionalSense::CAPACITY_DATA_HAS_CHANGED,
            Attention::ModeParametersChanged => AdditionalSense::MODE_PARAMETERS_CHANGED,
            Attention::AccessStateChanged => AdditionalSense::ASYMMETRIC_ACCESS_STATE_CHANGED,
            Attention::ReportedLunsChanged => AdditionalSense::REPORTED_LUNS_DATA_HAS_CHANGED,
            Attention::InquiryChanged => AdditionalSense::INQUIRY_DATA_HAS_CHANGED,
            Attention::DeviceIdentifierChanged => AdditionalSense::DEVICE_IDENTIFIER_CHANGED,
            Attention::LogParametersChanged => AdditionalSense::LOG_PARAMETERS_CHANGED,
            Attention::TimestampChanged => AdditionalSense(0x2a10),
            Attention::ThinProvisioningThreshold => AdditionalSense::THIN_PROVISIONING_SOFT_THRESHOLD_REACHED,
            Attention::PreviousBusy => AdditionalSense(0x2c07),
            Attention::PreviousTaskSetFull => AdditionalSense(0x2c08),
            Attention::PreviousReservationConflict => AdditionalSense::PREVIOUS_RESERVATION_CONFLICT_STATUS,
        }
    }

    /// True if it tells of a change of the unit itself, of what an initiator reads when it finds a disk: its medium, its size, its mode pages, its
    /// names, the ways to it. Reservations, what counters count and the clock are not of that kind.
    pub const fn changes_parameters(self) -> bool {
        matches!(
            self,
            Attention::MediumMayHaveChanged
                | Attention::CapacityChanged
                | Attention::ModeParametersChanged
                | Attention::AccessStateChanged
                | Attention::InquiryChanged
                | Attention::DeviceIdentifierChanged
        )
    }

    /// True if it tells of what another initiator did to this one's access or commands.
    pub const fn tells_of_others(self) -> bool {
        matches!(
            self,
            Attention::ReservationsPreempted
                | Attention::ReservationsReleased
                | Attention::RegistrationsPreempted
                | Attention::CommandsCleared
        )
    }

    /// The sense data that reports it.
    pub const fn sense(self) -> Sense {
        Sense::unit_attention(self.code())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::scsi::SenseKey;

    #[test]
    fn bits_are_in_the_order_of_the_list() {
        for (i, a) in Attention::ALL.into_iter().enumerate() {
            assert_eq!(a.bit(), 1 << i, "{a:?}");
            assert_eq!(Attention::first(a.bit() | 1 << 40), Some(a));
        }
        assert_eq!(Attention::first(0), None);
        assert_eq!(Attention::first(1 << 40), None, "bits above the attentions are none");
    }

    #[test]
    fn no_two_share_a_code() {
        for (i, a) in Attention::ALL.iter().enumerate() {
            for b in &Attention::ALL[i + 1..] {
                assert_ne!(a.code(), b.code(), "{a:?} {b:?}");
            }
        }
    }

    #[test]
    fn reset_conditions_come_first() {
        let resets: Vec<_> = Attention::ALL.into_iter().filter(|a| a.is_reset()).collect();
        assert_eq!(resets, Attention::ALL[..3]);
        assert_eq!(Attention::PowerOn.sense().key, SenseKey::UnitAttention);
    }
}
