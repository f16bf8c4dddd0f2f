//! The seven events of `struct tgt_event`, as two enums, and three of our own for asynchronous events, of which tgt has none.

use crate::mem::IoBuf;
use crate::scsi::Lun;

/// The number of a Scsi_Host: one target-side HBA.
pub type HostNo = i32;

/// Names one I_T nexus for as long as it exists. Never reused within a process.
pub type ItnId = u64;

/// Names one command between `CMD_REQ` and `CMD_DONE`; made by the hba, opaque to the target but for
/// [`Tag::shard`].
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Tag(pub u64);

impl Tag {
    /// No command: what a task management request carries that names none, or names one that is not there.
    pub const NONE: Tag = Tag(u64::MAX);

    /// Packs a tag: `shard` is the reactor, `queue` its number for the virtqueue, `head` the descriptor head, and
    /// `generation` tells two uses of one head apart.
    pub fn new(shard: u8, queue: u16, head: u16, generation: u16) -> Tag {
        Tag(u64::from(generation) << 48 | u64::from(shard) << 32 | u64::from(queue) << 16 | u64::from(head))
    }

    /// The reactor whose task this is.
    pub fn shard(self) -> u8 {
        (self.0 >> 32) as u8
    }

    /// That reactor's number for the virtqueue.
    pub fn queue(self) -> u16 {
        (self.0 >> 16) as u16
    }

    /// The descriptor head within the virtqueue.
    pub fn head(self) -> u16 {
        self.0 as u16
    }

    /// Which use of the head this is.
    pub fn generation(self) -> u16 {
        (self.0 >> 48) as u16
    }
}

/// An event from the hba to the target (kernel → user in tgt).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum KEvent {
    /// A command arrived on a nexus.
    CmdReq(CmdReq),
    /// A command's response was sent and is visible to its initiator: the target forgets the task.
    CmdDone(CmdDone),
    /// An initiator port came or went.
    ItNexusReq(ItNexusReq),
    /// A task management function.
    TskMgmtReq(TskMgmtReq),
    /// An initiator asks about asynchronous events, or for them. Ours.
    AsyncReq(AsyncReq),
}

/// An event from the target to the hba (user → kernel in tgt).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum UEvent {
    /// A command's answer.
    CmdRsp(CmdRsp),
    /// A nexus was made, is gone, or was refused.
    ItNexusRsp(ItNexusRsp),
    /// A task management function's outcome.
    TskMgmtRsp(TskMgmtRsp),
    /// The answer to a question about asynchronous events. Ours.
    AsyncRsp(AsyncRsp),
    /// An asynchronous event. The target sends it by itself, and nothing answers it. Ours.
    AerReq(AerReq),
}

/// TGT_KEVENT_CMD_REQ.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct CmdReq {
    /// The host it arrived on.
    pub host_no: HostNo,
    /// Length of the data buffer beside it, in bytes.
    pub data_len: u32,
    /// The nexus it arrived on.
    pub itn_id: ItnId,
    /// The first 16 bytes of the CDB, padded with zeros.
    pub scb: [u8; 16],
    /// The logical unit addressed (SAM-5 4.7).
    pub lun: Lun,
    /// The task attribute in tgt's numbers: SIMPLE 0x20, HEAD 0x21, ORDERED 0x22 (the MSG_*_TAG codes), ACA 0x2f.
    pub attribute: i32,
    /// The command's name until `CMD_DONE`.
    pub tag: Tag,
}

/// TGT_KEVENT_CMD_DONE.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct CmdDone {
    /// The host.
    pub host_no: HostNo,
    /// 0, or a negative errno if the response could not be delivered.
    pub result: i32,
    /// The nexus.
    pub itn_id: ItnId,
    /// The command that is over.
    pub tag: Tag,
}

/// TGT_KEVENT_IT_NEXUS_REQ.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ItNexusReq {
    /// The host.
    pub host_no: HostNo,
    /// Create or destroy.
    pub function: NexusFunction,
    /// The nexus meant; chosen by the hba.
    pub itn_id: ItnId,
    /// How many commands the initiator may have outstanding (its request limit).
    pub max_cmds: u32,
    /// The initiator port identifier.
    pub initiator_id: [u8; 16],
}

/// `function` of the IT_NEXUS events.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u32)]
pub enum NexusFunction {
    /// 0.
    Create = 0,
    /// 1.
    Destroy = 1,
}

/// TGT_KEVENT_TSK_MGMT_REQ.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct TskMgmtReq {
    /// The host.
    pub host_no: HostNo,
    /// The function, as [`crate::scsi::TaskManagementFunction`] numbers it.
    pub function: i32,
    /// The nexus it came by.
    pub itn_id: ItnId,
    /// The task meant, for functions that name one.
    pub tag: Tag,
    /// The logical unit meant.
    pub lun: Lun,
    /// This request's own name, given back in the answer.
    pub mid: u64,
}

/// TGT_UEVENT_CMD_RSP.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct CmdRsp {
    /// The host.
    pub host_no: HostNo,
    /// `host_byte << 16 | SAM status`, see [`crate::scsi::CommandResult`].
    pub result: i32,
    /// The nexus.
    pub itn_id: ItnId,
    /// The command.
    pub tag: Tag,
    /// Address of the data in the daemon; always 0 here: the data is in the guest's memory already.
    pub uaddr: u64,
    /// How many bytes the command moved or would have moved. More than `data_len` means that the buffer was too
    /// short.
    pub len: u32,
    /// Address of the sense data in the daemon; always 0 here: it travels beside the event.
    pub sense_uaddr: u64,
    /// Length of the sense data in bytes.
    pub sense_len: u32,
    /// 1 if the command writes (Data-Out), else 0.
    pub rw: u8,
}

/// TGT_UEVENT_IT_NEXUS_RSP.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ItNexusRsp {
    /// The host.
    pub host_no: HostNo,
    /// 0, or a negative errno: -EEXIST (another live nexus of this initiator port), -ENOENT, -EINVAL.
    pub result: i32,
    /// The nexus.
    pub itn_id: ItnId,
    /// What was asked.
    pub function: NexusFunction,
}

/// TGT_UEVENT_TSK_MGMT_RSP.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct TskMgmtRsp {
    /// The host.
    pub host_no: HostNo,
    /// The response, as [`crate::scsi::FunctionResponse`] numbers it.
    pub result: i32,
    /// The nexus.
    pub itn_id: ItnId,
    /// The request's own name.
    pub mid: u64,
}

/// Classes of asynchronous events, in the numbers of MMC's GET EVENT STATUS NOTIFICATION, as virtio-scsi has them: those that a
/// disk has something to say in. It has no power states that others change, no requests from outside, no other medium and no time
/// in which it is busy for long.
pub mod notification {
    /// Operational change: what the unit is or can do changed.
    pub const OPERATIONAL_CHANGE: u32 = 1 << 1;
    /// Media change: the unit has a medium that may be another one.
    pub const MEDIA_CHANGE: u32 = 1 << 4;
    /// Multiple hosts: another initiator did something to this one's access or commands.
    pub const MULTI_HOST: u32 = 1 << 5;
    /// All that there are for every unit; [`MEDIA_CHANGE`] is for removable ones.
    pub const SUPPORTED: u32 = OPERATIONAL_CHANGE | MULTI_HOST;
}

/// What an [`AsyncReq`] wants.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u32)]
pub enum AsyncFunction {
    /// To know which classes there are.
    Query = 0,
    /// To be told of these classes from now on, and of no others.
    Subscribe = 1,
}

/// An initiator asks about asynchronous events, or for them.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct AsyncReq {
    /// The host.
    pub host_no: HostNo,
    /// What it wants.
    pub function: AsyncFunction,
    /// The nexus it came by.
    pub itn_id: ItnId,
    /// The logical unit meant.
    pub lun: Lun,
    /// Classes asked for, see [`notification`].
    pub events: u32,
    /// This request's own name, given back in the answer.
    pub mid: u64,
}

/// The answer to an [`AsyncReq`].
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct AsyncRsp {
    /// The host.
    pub host_no: HostNo,
    /// The response, as [`crate::scsi::FunctionResponse`] numbers it.
    pub result: i32,
    /// The nexus.
    pub itn_id: ItnId,
    /// The request's own name.
    pub mid: u64,
    /// Of the classes asked for, those that there are.
    pub events: u32,
}

/// An asynchronous event of a logical unit, for one nexus. Sense data of a unit attention travels beside it, if what happened is a
/// change of the unit's parameters.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct AerReq {
    /// The host.
    pub host_no: HostNo,
    /// Its class, if the nexus subscribed to it, or 0.
    pub events: u32,
    /// The nexus to tell.
    pub itn_id: ItnId,
    /// The logical unit, as REPORT LUNS lists it.
    pub lun: Lun,
    /// Length of the sense data in bytes.
    pub sense_len: u32,
}

/// What travels beside a `CMD_REQ`.
#[derive(Debug, Default)]
pub struct CmdData {
    /// The command's data buffer: the guest's own memory.
    pub buf: IoBuf,
    /// CDB bytes past the 16th; empty for most commands.
    pub cdb_tail: Option<Box<[u8]>>,
    /// What a process before this one noted about it; 0: nothing, as of almost all.
    pub earlier: u64,
    /// When a process before this one took it, in nanoseconds since the host was started, or before that; 0: none did, as of almost
    /// all.
    pub taken: u64,
}

/// What travels beside a `CMD_RSP`.
#[derive(Debug, Default)]
pub struct CmdAnswer {
    /// The command's data buffer coming back.
    pub buf: IoBuf,
    /// Sense data as it goes to the initiator, with CHECK CONDITION; with `AER_REQ` what happened, in fixed format.
    pub sense: Option<Box<[u8]>>,
    /// The command is not to be carried out again once it is answered, even with GOOD.
    pub once: bool,
}
