//! SAM-5's nouns: logical unit numbers, status, task attributes, task management.

/// An 8-byte logical unit number as SAM-5 4.7 lays it out, big-endian.
///
/// A hierarchical form with a bus: bytes 0–1 are peripheral device addressing (bus 1, target TT) and bytes 2–3 the
/// logical unit below that target. It is what virtio-scsi puts on its wire (virtio 1.2 5.6.6.1).
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Lun(pub [u8; 8]);

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
