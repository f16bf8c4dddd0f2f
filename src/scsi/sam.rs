//! SAM-5's nouns: logical unit numbers, status, task attributes, task management.
//!
//! Numbers that cross a seam (CMD_RSP's result, TSK_MGMT's function and response, tgt's attribute) come back through
//! `TryFrom`, which refuses what has no name with [`UnknownCode`].

/// An 8-byte logical unit number as SAM-5 4.7 lays it out, big-endian.
///
/// A hierarchical form with a bus: bytes 0–1 are peripheral device addressing (bus 1, target TT) and bytes 2–3 the
/// logical unit below that target. It is what virtio-scsi puts on its wire (virtio 1.2 5.6.6.1).
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Lun(pub [u8; 8]);

/// The greatest logical unit number that flat space addressing can say.
pub const MAX_LUN: u16 = 0x3fff;

impl Lun {
    /// The REPORT LUNS well-known logical unit (SAM-5 4.7.7.5.3).
    pub const REPORT_LUNS: Lun = Lun([0xc1, 0x01, 0, 0, 0, 0, 0, 0]);

    /// The address of a target's logical unit; `None` if `lun` is above [`MAX_LUN`].
    ///
    /// Up to 255 it has the peripheral device form, above the flat space form, as REPORT LUNS lists it.
    pub const fn new(target: u8, lun: u16) -> Option<Lun> {
        match single_level(lun) {
            Some([high, low]) => Some(Lun([0x01, target, high, low, 0, 0, 0, 0])),
            None => None,
        }
    }

    /// A logical unit as REPORT LUNS lists it: one level, without the bus and target in front; `None` if `lun` is
    /// above [`MAX_LUN`].
    pub const fn listed(lun: u16) -> Option<Lun> {
        match single_level(lun) {
            Some([high, low]) => Some(Lun([high, low, 0, 0, 0, 0, 0, 0])),
            None => None,
        }
    }

    /// What it addresses. Both forms of a number below 256 address the same unit.
    pub const fn address(self) -> LunAddress {
        match self.0 {
            [0xc1, 0x01, 0, 0, 0, 0, 0, 0] => LunAddress::ReportLuns,
            [0x01, target, high @ (0x00 | 0x40..=0x7f), low, 0, 0, 0, 0] => {
                LunAddress::Unit { target, lun: u16::from_be_bytes([high & 0x3f, low]) }
            }
            _ => LunAddress::Invalid,
        }
    }
}

/// Peripheral device addressing on bus 0, or flat space addressing (SAM-5 4.7.7.2, 4.7.7.3).
const fn single_level(lun: u16) -> Option<[u8; 2]> {
    match lun {
        0..=0xff => Some([0x00, lun as u8]),
        0x100..=MAX_LUN => Some([0x40 | (lun >> 8) as u8, lun as u8]),
        _ => None,
    }
}

/// What a [`Lun`] addresses.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum LunAddress {
    /// The REPORT LUNS well-known logical unit (SAM-5 4.7.7.5.3: C1h 01h).
    ReportLuns,
    /// A logical unit of a target of this host.
    Unit {
        /// SCSI target number on this host's bus.
        target: u8,
        /// Logical unit number, 0–16383.
        lun: u16,
    },
    /// Something that cannot exist here.
    Invalid,
}

/// SAM-5 5.3.1 status codes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u8)]
pub enum Status {
    /// GOOD.
    Good = 0x00,
    /// CHECK CONDITION.
    CheckCondition = 0x02,
    /// CONDITION MET.
    ConditionMet = 0x04,
    /// BUSY.
    Busy = 0x08,
    /// RESERVATION CONFLICT.
    ReservationConflict = 0x18,
    /// TASK SET FULL.
    TaskSetFull = 0x28,
    /// ACA ACTIVE.
    AcaActive = 0x30,
    /// TASK ABORTED.
    TaskAborted = 0x40,
}

/// How delivery of a command ended apart from its SAM status: Linux's host byte, in the numbers of `DID_*`.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[repr(u8)]
pub enum HostByte {
    /// DID_OK: the SAM status tells.
    #[default]
    Ok = 0x00,
    /// DID_BAD_TARGET: no such target.
    BadTarget = 0x04,
    /// DID_ABORT: ended by a task management function other than a reset.
    Abort = 0x05,
    /// DID_ERROR: the command could not be carried out by the transport.
    Error = 0x07,
    /// DID_RESET: ended by a reset.
    Reset = 0x08,
    /// DID_TRANSPORT_DISRUPTED: the nexus went away.
    TransportDisrupted = 0x0e,
}

/// A command's whole result as `CMD_RSP` carries it: `host_byte << 16 | status`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct CommandResult {
    /// The delivery part.
    pub host: HostByte,
    /// The SAM status; meaningful with [`HostByte::Ok`].
    pub status: Status,
}

impl CommandResult {
    /// Delivered, with this status.
    pub const fn status(status: Status) -> CommandResult {
        CommandResult { host: HostByte::Ok, status }
    }

    /// Not delivered; the status is GOOD and means nothing.
    pub const fn host(host: HostByte) -> CommandResult {
        CommandResult { host, status: Status::Good }
    }

    /// As `CMD_RSP` carries it.
    pub const fn encode(self) -> i32 {
        (self.host as i32) << 16 | self.status as i32
    }
}

impl TryFrom<i32> for CommandResult {
    type Error = UnknownCode;

    fn try_from(code: i32) -> Result<CommandResult, UnknownCode> {
        match code.to_be_bytes() {
            [0, host, 0, status] => Ok(CommandResult { host: host.try_into()?, status: status.try_into()? }),
            _ => Err(UnknownCode(code)),
        }
    }
}

/// SAM-5 8.5 task attributes.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum TaskAttribute {
    /// SIMPLE.
    #[default]
    Simple,
    /// HEAD OF QUEUE.
    HeadOfQueue,
    /// ORDERED.
    Ordered,
    /// ACA.
    Aca,
}

/// SAM-5 clause 7 task management functions, in SRP's numbers where SRP has them.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u8)]
pub enum TaskManagementFunction {
    /// ABORT TASK.
    AbortTask = 0x01,
    /// ABORT TASK SET.
    AbortTaskSet = 0x02,
    /// CLEAR TASK SET.
    ClearTaskSet = 0x04,
    /// LOGICAL UNIT RESET.
    LogicalUnitReset = 0x08,
    /// I_T NEXUS RESET (not in SRP r16a; SRP-2 numbers it so).
    ItNexusReset = 0x10,
    /// CLEAR ACA.
    ClearAca = 0x40,
    /// QUERY TASK.
    QueryTask = 0x80,
    /// QUERY TASK SET.
    QueryTaskSet = 0x81,
    /// QUERY ASYNCHRONOUS EVENT.
    QueryAsyncEvent = 0x82,
}

/// SAM-5 7.x service responses to a task management function.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u8)]
pub enum FunctionResponse {
    /// FUNCTION COMPLETE.
    Complete = 0x00,
    /// FUNCTION REJECTED (SRP: task management function not supported, 04h).
    Rejected = 0x04,
    /// Service delivery or target failure (SRP: task management function failed, 05h).
    Failed = 0x05,
    /// FUNCTION SUCCEEDED.
    Succeeded = 0x08,
    /// INCORRECT LOGICAL UNIT NUMBER.
    IncorrectLun = 0x09,
}

impl TaskAttribute {
    /// tgt's number, as [`crate::tgt::CmdReq::attribute`] carries it (the MSG_*_TAG codes).
    pub const fn tgt_code(self) -> i32 {
        match self {
            TaskAttribute::Simple => 0x20,
            TaskAttribute::HeadOfQueue => 0x21,
            TaskAttribute::Ordered => 0x22,
            TaskAttribute::Aca => 0x2f,
        }
    }

    /// Back from tgt's number.
    ///
    /// # Errors
    ///
    /// The number, if it is none of the four.
    pub const fn from_tgt_code(code: i32) -> Result<TaskAttribute, UnknownCode> {
        match code {
            0x20 => Ok(TaskAttribute::Simple),
            0x21 => Ok(TaskAttribute::HeadOfQueue),
            0x22 => Ok(TaskAttribute::Ordered),
            0x2f => Ok(TaskAttribute::Aca),
            _ => Err(UnknownCode(code)),
        }
    }
}

impl TaskManagementFunction {
    /// Whether the function is about one task, named by its tag.
    pub const fn names_a_task(self) -> bool {
        matches!(self, TaskManagementFunction::AbortTask | TaskManagementFunction::QueryTask)
    }
}

/// A number that has no name here.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("unknown code {0:#x}")]
pub struct UnknownCode(pub i32);

/// `TryFrom` for an enum with a representation, from the number it stands for.
macro_rules! from_code {
    ($enum:ident: $($variant:ident),* $(,)?) => {
        impl TryFrom<i32> for $enum {
            type Error = UnknownCode;

            fn try_from(code: i32) -> Result<$enum, UnknownCode> {
                let all = [$($enum::$variant),*];
                all.into_iter().find(|each| *each as i32 == code).ok_or(UnknownCode(code))
            }
        }

        impl TryFrom<u8> for $enum {
            type Error = UnknownCode;

            fn try_from(code: u8) -> Result<$enum, UnknownCode> {
                $enum::try_from(i32::from(code))
            }
        }

        // Does not compile if a variant was forgotten above.
        const _: fn($enum) = |each| match each {
            $($enum::$variant => (),)*
        };
    };
}

from_code!(Status: Good, CheckCondition, ConditionMet, Busy, ReservationConflict, TaskSetFull, AcaActive, TaskAborted);
from_code!(HostByte: Ok, BadTarget, Abort, Error, Reset, TransportDisrupted);
from_code!(
    TaskManagementFunction: AbortTask, AbortTaskSet, ClearTaskSet, LogicalUnitReset, ItNexusReset, ClearAca, QueryTask,
    QueryTaskSet, QueryAsyncEvent,
);
from_code!(FunctionResponse: Complete, Rejected, Failed, Succeeded, IncorrectLun);

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn both_forms_address_a_unit() {
        let unit = |target, lun| LunAddress::Unit { target, lun };
        assert_eq!(Lun([1, 0, 0, 0, 0, 0, 0, 0]).address(), unit(0, 0));
        assert_eq!(Lun([1, 7, 0, 255, 0, 0, 0, 0]).address(), unit(7, 255));
        assert_eq!(Lun([1, 255, 0x40, 5, 0, 0, 0, 0]).address(), unit(255, 5));
        assert_eq!(Lun([1, 0, 0x41, 0x02, 0, 0, 0, 0]).address(), unit(0, 0x102));
        assert_eq!(Lun([1, 0, 0x7f, 0xff, 0, 0, 0, 0]).address(), unit(0, 0x3fff));
    }

    #[test]
    fn the_well_known_unit_is_report_luns_only() {
        assert_eq!(Lun([0xc1, 0x01, 0, 0, 0, 0, 0, 0]).address(), LunAddress::ReportLuns);
        assert_eq!(Lun([0xc1, 0x02, 0, 0, 0, 0, 0, 0]).address(), LunAddress::Invalid);
        assert_eq!(Lun([0xc1, 0x01, 0, 0, 0, 0, 0, 1]).address(), LunAddress::Invalid);
    }

    #[test]
    fn other_forms_are_invalid() {
        for bytes in [
            [0, 0, 0, 0, 0, 0, 0, 0],
            [2, 0, 0, 0, 0, 0, 0, 0],
            [1, 0, 0x01, 0, 0, 0, 0, 0],
            [1, 0, 0x3f, 0, 0, 0, 0, 0],
            [1, 0, 0x80, 0, 0, 0, 0, 0],
            [1, 0, 0xc1, 0x01, 0, 0, 0, 0],
            [1, 0, 0, 0, 1, 0, 0, 0],
            [1, 0, 0, 0, 0, 0, 0, 1],
        ] {
            assert_eq!(Lun(bytes).address(), LunAddress::Invalid, "{bytes:02x?}");
        }
    }

    #[test]
    fn every_number_comes_back() {
        for lun in 0..=MAX_LUN {
            assert_eq!(Lun::new(3, lun).unwrap().address(), LunAddress::Unit { target: 3, lun });
        }
        assert_eq!(Lun::new(0, MAX_LUN + 1), None);
        assert_eq!(Lun::listed(255).unwrap().0, [0, 255, 0, 0, 0, 0, 0, 0]);
        assert_eq!(Lun::listed(256).unwrap().0, [0x41, 0, 0, 0, 0, 0, 0, 0]);
        assert_eq!(Lun::listed(0xffff), None);
    }

    #[test]
    fn a_result_is_host_byte_and_status() {
        assert_eq!(CommandResult::status(Status::CheckCondition).encode(), 0x02);
        assert_eq!(CommandResult::host(HostByte::Reset).encode(), 0x0008_0000);
        for code in [0x0000_0002, 0x0004_0000, 0x000e_0000, 0x0000_0028] {
            assert_eq!(CommandResult::try_from(code).unwrap().encode(), code);
        }
        for code in [-1, 0x0100_0000, 0x0000_0100, 0x0001_0000, 0x03] {
            assert_eq!(
                CommandResult::try_from(code),
                Err(match code {
                    0x0001_0000 => UnknownCode(1),
                    0x03 => UnknownCode(3),
                    _ => UnknownCode(code),
                })
            );
        }
    }

    #[test]
    fn codes_without_a_name_are_refused() {
        assert_eq!(TaskManagementFunction::try_from(0x40_i32), Ok(TaskManagementFunction::ClearAca));
        assert_eq!(TaskManagementFunction::try_from(0x03_u8), Err(UnknownCode(3)));
        assert_eq!(FunctionResponse::try_from(0x09_i32), Ok(FunctionResponse::IncorrectLun));
        assert_eq!(FunctionResponse::try_from(-5), Err(UnknownCode(-5)));
        for attribute in [TaskAttribute::Simple, TaskAttribute::HeadOfQueue, TaskAttribute::Ordered, TaskAttribute::Aca]
        {
            assert_eq!(TaskAttribute::from_tgt_code(attribute.tgt_code()), Ok(attribute));
        }
        assert_eq!(TaskAttribute::from_tgt_code(0), Err(UnknownCode(0)));
    }
}
