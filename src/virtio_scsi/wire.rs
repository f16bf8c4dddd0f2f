//! Wire structs and numbers (virtio 1.2 5.6.3, 5.6.6). Everything is little-endian and without padding; nothing but logical
//! unit numbers and CDBs, which are SCSI's own, big-endian bytes.

use zerocopy::little_endian::{U16, U32, U64};
use zerocopy::{FromBytes, Immutable, IntoBytes, KnownLayout, Unaligned};

/// Feature bit 0, VIRTIO_SCSI_F_INOUT: a request may have Data-Out and Data-In.
pub const F_INOUT: u64 = 1 << 0;
/// Feature bit 1, VIRTIO_SCSI_F_HOTPLUG: units may come and go, with transport reset events.
pub const F_HOTPLUG: u64 = 1 << 1;
/// Feature bit 2, VIRTIO_SCSI_F_CHANGE: parameter change events.
pub const F_CHANGE: u64 = 1 << 2;
/// Feature bit 3, VIRTIO_SCSI_F_T10_PI: command headers carry protection lengths.
pub const F_T10_PI: u64 = 1 << 3;

/// Feature bit 27, VIRTIO_F_ANY_LAYOUT: headers may be split over descriptors at will. Implied by VERSION_1.
pub const F_ANY_LAYOUT: u64 = 1 << 27;
/// Feature bit 28, VIRTIO_F_INDIRECT_DESC: descriptors may refer to tables of descriptors.
pub const F_INDIRECT_DESC: u64 = 1 << 28;
/// Feature bit 29, VIRTIO_F_EVENT_IDX: kicks and interrupts are asked for by index.
pub const F_EVENT_IDX: u64 = 1 << 29;
/// Feature bit 32, VIRTIO_F_VERSION_1: not the legacy interface.
pub const F_VERSION_1: u64 = 1 << 32;

/// What this room serves: offered to a front-end. Legacy drivers are served as well (they acknowledge no VERSION_1; the
/// layout is the same on a little-endian guest).
///
/// HOTPLUG is offered although units neither come nor go while a guest runs: Linux gives buffers for events of any kind only to a
/// device that has it.
pub const OFFERED_FEATURES: u64 = F_HOTPLUG | F_CHANGE | F_ANY_LAYOUT | F_INDIRECT_DESC | F_EVENT_IDX | F_VERSION_1;

/// Most descriptors of a ring that are served.
pub const MAX_RING_SIZE: u16 = 1024;

/// Default of configuration field `cdb_size`, in bytes. Also the largest that is understood here.
pub const CDB_SIZE: usize = 32;
/// Default of configuration field `sense_size`, in bytes.
pub const DEFAULT_SENSE_SIZE: usize = 96;
/// The longest sense data there is (SPC-4 4.5.1), hence the largest `sense_size` of use.
pub const MAX_SENSE_SIZE: usize = 252;

/// Index of the control queue.
pub const CONTROL_QUEUE: u16 = 0;
/// Index of the event queue.
pub const EVENT_QUEUE: u16 = 1;
/// Index of the first request queue.
pub const FIRST_REQUEST_QUEUE: u16 = 2;

/// `struct virtio_scsi_req_cmd`, what the device reads, without protection information (virtio 1.2 5.6.6.1).
#[derive(Clone, Copy, Debug, FromBytes, IntoBytes, Immutable, KnownLayout, Unaligned)]
#[repr(C)]
pub struct CommandHeader {
    /// Logical unit (SAM-5 4.7, first level 1, second level the target).
    pub lun: [u8; 8],
    /// The driver's name for the command; need not be unique.
    pub id: U64,
    /// Task attribute, see [`TASK_ATTR_SIMPLE`] and its neighbours.
    pub task_attr: u8,
    /// SAM command priority.
    pub prio: u8,
    /// Command reference number.
    pub crn: u8,
    /// The CDB. On the wire `cdb_size` bytes.
    pub cdb: [u8; CDB_SIZE],
}

/// The start of `struct virtio_scsi_req_cmd`, what the device writes; `sense_size` bytes of sense data follow.
#[derive(Clone, Copy, Debug, FromBytes, IntoBytes, Immutable, KnownLayout, Unaligned)]
#[repr(C)]
pub struct CommandResponseHeader {
    /// Bytes of sense data that are valid.
    pub sense_len: U32,
    /// Bytes of the data buffer that the command did not use.
    pub residual: U32,
    /// SAM status qualifier.
    pub status_qualifier: U16,
    /// SAM status.
    pub status: u8,
    /// [`ResponseCode`].
    pub response: u8,
}

/// Length of the fixed part of a command request: all but the CDB.
pub const COMMAND_HEADER_FIXED: usize = size_of::<CommandHeader>() - CDB_SIZE;
/// Length of the fixed part of a command response: all but the sense data.
pub const COMMAND_RESPONSE_FIXED: usize = size_of::<CommandResponseHeader>();

/// `struct virtio_scsi_ctrl_tmf`, what the device reads (virtio 1.2 5.6.6.2). It answers with one byte, a
/// [`ResponseCode`].
#[derive(Clone, Copy, Debug, FromBytes, IntoBytes, Immutable, KnownLayout, Unaligned)]
#[repr(C)]
pub struct TaskManagementHeader {
    /// [`CONTROL_TMF`].
    pub kind: U32,
    /// See [`TMF_ABORT_TASK`] and its neighbours.
    pub subtype: U32,
    /// Logical unit.
    pub lun: [u8; 8],
    /// The `id` of the command meant, for functions that mean one.
    pub id: U64,
}

/// `struct virtio_scsi_ctrl_an`, what the device reads (virtio 1.2 5.6.6.2).
#[derive(Clone, Copy, Debug, FromBytes, IntoBytes, Immutable, KnownLayout, Unaligned)]
#[repr(C)]
pub struct AsyncHeader {
    /// [`CONTROL_AN_QUERY`] or [`CONTROL_AN_SUBSCRIBE`].
    pub kind: U32,
    /// Logical unit.
    pub lun: [u8; 8],
    /// Asynchronous events asked about, see [`AN_OPERATIONAL_CHANGE`] and its neighbours.
    pub event_requested: U32,
}

/// `struct virtio_scsi_ctrl_an`, what the device writes.
#[derive(Clone, Copy, Debug, FromBytes, IntoBytes, Immutable, KnownLayout, Unaligned)]
#[repr(C)]
pub struct AsyncResponse {
    /// Those of the events that are supported or subscribed.
    pub event_actual: U32,
    /// [`ResponseCode`].
    pub response: u8,
}

/// `struct virtio_scsi_event` (virtio 1.2 5.6.6.3).
#[derive(Clone, Copy, Debug, FromBytes, IntoBytes, Immutable, KnownLayout, Unaligned)]
#[repr(C)]
pub struct EventRecord {
    /// See [`EVENT_NONE`] and its neighbours, with [`EVENTS_MISSED`] or not.
    pub event: U32,
    /// Logical unit.
    pub lun: [u8; 8],
    /// What it means depends on the event.
    pub reason: U32,
}

const _: () = {
    assert!(size_of::<CommandHeader>() == 51);
    assert!(size_of::<CommandResponseHeader>() == 12);
    assert!(size_of::<TaskManagementHeader>() == 24);
    assert!(size_of::<AsyncHeader>() == 16);
    assert!(size_of::<AsyncResponse>() == 5);
    assert!(size_of::<EventRecord>() == 16);
};

/// VIRTIO_SCSI_S_*: how a request ended.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[repr(u8)]
pub enum ResponseCode {
    /// OK: the SAM status tells. For a task management function: FUNCTION COMPLETE.
    #[default]
    Ok = 0,
    /// The CDB asks for more data than the buffers hold.
    Overrun = 1,
    /// Ended by ABORT TASK or ABORT TASK SET.
    Aborted = 2,
    /// There is no such target.
    BadTarget = 3,
    /// Ended by a bus or device reset.
    Reset = 4,
    /// The target or queue cannot take it now; to be sent again.
    Busy = 5,
    /// The transport to the target failed; another path may do.
    TransportFailure = 6,
    /// The target failed; no other path will do.
    TargetFailure = 7,
    /// The nexus failed; another path may do.
    NexusFailure = 8,
    /// Anything else, in particular a request that is wrong in itself.
    Failure = 9,
    /// FUNCTION SUCCEEDED.
    FunctionSucceeded = 10,
    /// FUNCTION REJECTED.
    FunctionRejected = 11,
    /// INCORRECT LOGICAL UNIT NUMBER, of a task management function.
    IncorrectLun = 12,
}

/// `task_attr`: SIMPLE.
pub const TASK_ATTR_SIMPLE: u8 = 0;
/// `task_attr`: ORDERED.
pub const TASK_ATTR_ORDERED: u8 = 1;
/// `task_attr`: HEAD OF QUEUE.
pub const TASK_ATTR_HEAD: u8 = 2;
/// `task_attr`: ACA.
pub const TASK_ATTR_ACA: u8 = 3;

/// Control request type: task management function.
pub const CONTROL_TMF: u32 = 0;
/// Control request type: asynchronous notification query.
pub const CONTROL_AN_QUERY: u32 = 1;
/// Control request type: asynchronous notification subscription.
pub const CONTROL_AN_SUBSCRIBE: u32 = 2;

/// TMF subtype: ABORT TASK.
pub const TMF_ABORT_TASK: u32 = 0;
/// TMF subtype: ABORT TASK SET.
pub const TMF_ABORT_TASK_SET: u32 = 1;
/// TMF subtype: CLEAR ACA.
pub const TMF_CLEAR_ACA: u32 = 2;
/// TMF subtype: CLEAR TASK SET.
pub const TMF_CLEAR_TASK_SET: u32 = 3;
/// TMF subtype: I_T NEXUS RESET.
pub const TMF_I_T_NEXUS_RESET: u32 = 4;
/// TMF subtype: LOGICAL UNIT RESET.
pub const TMF_LOGICAL_UNIT_RESET: u32 = 5;
/// TMF subtype: QUERY TASK.
pub const TMF_QUERY_TASK: u32 = 6;
/// TMF subtype: QUERY TASK SET.
pub const TMF_QUERY_TASK_SET: u32 = 7;

/// Asynchronous event: operational change (MMC-5's numbers, as all of these).
pub const AN_OPERATIONAL_CHANGE: u32 = 2;
/// Asynchronous event: power management.
pub const AN_POWER_MANAGEMENT: u32 = 4;
/// Asynchronous event: external request.
pub const AN_EXTERNAL_REQUEST: u32 = 8;
/// Asynchronous event: media change.
pub const AN_MEDIA_CHANGE: u32 = 16;
/// Asynchronous event: multiple hosts.
pub const AN_MULTI_HOST: u32 = 32;
/// Asynchronous event: device busy.
pub const AN_DEVICE_BUSY: u32 = 64;

/// Event: none; with [`EVENTS_MISSED`] it says only that.
pub const EVENT_NONE: u32 = 0;
/// Event: a unit or target came, went or was reset; `reason` is one of [`RESET_HARD`] and its neighbours.
pub const EVENT_TRANSPORT_RESET: u32 = 1;
/// Event: an asynchronous event that was subscribed to; `reason` is its bit.
pub const EVENT_ASYNC_NOTIFY: u32 = 2;
/// Event: a parameter of a unit changed; `reason` has the additional sense code and, above it, its qualifier.
pub const EVENT_PARAM_CHANGE: u32 = 3;
/// Flag of an event: events before it were lost for want of buffers.
pub const EVENTS_MISSED: u32 = 0x8000_0000;

/// Transport reset: the target or unit was reset; the driver should look at it again.
pub const RESET_HARD: u32 = 0;
/// Transport reset: something new is there.
pub const RESET_RESCAN: u32 = 1;
/// Transport reset: it is gone.
pub const RESET_REMOVED: u32 = 2;
