//! Events in the C layout of `struct tgt_event`, as a compiler lays it out on an LP64 machine.
//!
//! ```text
//! header, 8 bytes: version u16, status u16, type u16, len u16; then the union, 8-byte aligned, 56 bytes:
//!               0             4           8          16            24         32         40      44          48
//! cmd_req       host_no i32   data_len u32 itn_id u64 scb[16]                 lun[8]     attribute i32, pad  tag u64
//! cmd_done      host_no i32   result i32  itn_id u64 tag u64
//! it_nexus_req  host_no s32   function u32 itn_id u64 max_cmds u32, initiator_id[16] (at 20)
//! tsk_mgmt_req  host_no i32   function i32 itn_id u64 tag u64      lun[8]     mid u64
//! cmd_rsp       host_no i32   result i32  itn_id u64 tag u64       uaddr u64  sense_uaddr u64  len u32, sense_len u32, rw u8
//! it_nexus_rsp  host_no s32   result s32  itn_id u64 function u32
//! tsk_mgmt_rsp  host_no i32   result i32  itn_id u64 mid u64
//! ours:
//! async_req     host_no i32   function u32 itn_id u64 lun[8]       mid u64    events u32
//! async_rsp     host_no i32   result i32  itn_id u64 mid u64       events u32
//! aer_req       host_no i32   events u32  itn_id u64 lun[8]        sense_len u32
//! ```
//!
//! (`cmd_rsp`: `sense_uaddr` at 32, `len` at 40, `sense_len` at 44, `rw` at 48.) Integers are in the byte order of the
//! hosts that vstgt runs on, little-endian. `version` is 0, `status` is 1 (the slot is full), `len` is the size of
//! the union's member; a reader takes 0 for it too, as tgt never set it. Padding is written as zeros and not read.

use super::{
    AerReq, AsyncFunction, AsyncReq, AsyncRsp, CmdDone, CmdReq, CmdRsp, ItNexusReq, ItNexusRsp, KEvent, NexusFunction,
    TskMgmtReq, TskMgmtRsp, UEvent,
};
use crate::scsi::Lun;
use crate::tgt::Tag;

/// `sizeof(struct tgt_event)` on an LP64 machine.
pub const EVENT_SIZE: usize = 64;

/// `type` of a user → kernel event: TGT_UEVENT_CMD_RSP.
pub const UEVENT_CMD_RSP: u16 = 0x0001;
/// TGT_UEVENT_IT_NEXUS_RSP.
pub const UEVENT_IT_NEXUS_RSP: u16 = 0x0002;
/// TGT_UEVENT_TSK_MGMT_RSP.
pub const UEVENT_TSK_MGMT_RSP: u16 = 0x0003;
/// `type` of a kernel → user event: TGT_KEVENT_CMD_REQ.
pub const KEVENT_CMD_REQ: u16 = 0x1001;
/// TGT_KEVENT_CMD_DONE.
pub const KEVENT_CMD_DONE: u16 = 0x1002;
/// TGT_KEVENT_IT_NEXUS_REQ.
pub const KEVENT_IT_NEXUS_REQ: u16 = 0x1003;
/// TGT_KEVENT_TSK_MGMT_REQ.
pub const KEVENT_TSK_MGMT_REQ: u16 = 0x1004;

/// [`AsyncRsp`]: the event numbers of our own are outside of tgt's.
pub const UEVENT_ASYNC_RSP: u16 = 0x0101;
/// [`AerReq`].
pub const UEVENT_AER_REQ: u16 = 0x0102;
/// [`AsyncReq`].
pub const KEVENT_ASYNC_REQ: u16 = 0x1101;

const HEADER: usize = 8;
const VERSION: u16 = 0;
const STATUS_FULL: u16 = 1;

/// Why bytes are not an event.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum EventError {
    /// Another version of the layout.
    #[error("event version {0}")]
    Version(u16),
    /// The slot is empty.
    #[error("event slot is empty")]
    Empty,
    /// No such event in this direction.
    #[error("event type {0:#06x}")]
    Type(u16),
    /// `len` is not that of the event.
    #[error("event length {0}")]
    Length(u16),
    /// A function of the event that does not exist, such as a nexus function that is neither create nor destroy.
    #[error("event function {0}")]
    Function(u32),
}

impl KEvent {
    /// `type` of this event.
    pub fn number(&self) -> u16 {
        match self {
            KEvent::CmdReq(_) => KEVENT_CMD_REQ,
            KEvent::CmdDone(_) => KEVENT_CMD_DONE,
            KEvent::ItNexusReq(_) => KEVENT_IT_NEXUS_REQ,
            KEvent::TskMgmtReq(_) => KEVENT_TSK_MGMT_REQ,
            KEvent::AsyncReq(_) => KEVENT_ASYNC_REQ,
        }
    }

    /// The event as `struct tgt_event`.
    pub fn encode(&self) -> [u8; EVENT_SIZE] {
        let mut w = Writer::new(self.number());
        match self {
            KEvent::CmdReq(e) => {
                w.put(e.host_no.to_le_bytes());
                w.put(e.data_len.to_le_bytes());
                w.put(e.itn_id.to_le_bytes());
                w.put(e.scb);
                w.put(e.lun.0);
                w.put(e.attribute.to_le_bytes());
                w.pad(4);
                w.put(e.tag.0.to_le_bytes());
            }
            KEvent::CmdDone(e) => {
                w.put(e.host_no.to_le_bytes());
                w.put(e.result.to_le_bytes());
                w.put(e.itn_id.to_le_bytes());
                w.put(e.tag.0.to_le_bytes());
            }
            KEvent::ItNexusReq(e) => {
                w.put(e.host_no.to_le_bytes());
                w.put((e.function as u32).to_le_bytes());
                w.put(e.itn_id.to_le_bytes());
                w.put(e.max_cmds.to_le_bytes());
                w.put(e.initiator_id);
            }
            KEvent::TskMgmtReq(e) => {
                w.put(e.host_no.to_le_bytes());
                w.put(e.function.to_le_bytes());
                w.put(e.itn_id.to_le_bytes());
                w.put(e.tag.0.to_le_bytes());
                w.put(e.lun.0);
                w.put(e.mid.to_le_bytes());
            }
            KEvent::AsyncReq(e) => {
                w.put(e.host_no.to_le_bytes());
                w.put((e.function as u32).to_le_bytes());
                w.put(e.itn_id.to_le_bytes());
                w.put(e.lun.0);
                w.put(e.mid.to_le_bytes());
                w.put(e.events.to_le_bytes());
            }
        }
        w.finish()
    }

    /// Reads a kernel → user event.
    pub fn decode(bytes: &[u8; EVENT_SIZE]) -> Result<KEvent, EventError> {
        let (kind, mut r) = Reader::open(bytes)?;
        let event = match kind {
            KEVENT_CMD_REQ => KEvent::CmdReq(CmdReq {
                host_no: r.i32(),
                data_len: r.u32(),
                itn_id: r.u64(),
                scb: r.take(),
                lun: Lun(r.take()),
                attribute: r.i32(),
                tag: {
                    r.skip(4);
                    Tag(r.u64())
                },
            }),
            KEVENT_CMD_DONE => {
                KEvent::CmdDone(CmdDone { host_no: r.i32(), result: r.i32(), itn_id: r.u64(), tag: Tag(r.u64()) })
            }
            KEVENT_IT_NEXUS_REQ => KEvent::ItNexusReq(ItNexusReq {
                host_no: r.i32(),
                function: r.function()?,
                itn_id: r.u64(),
                max_cmds: r.u32(),
                initiator_id: r.take(),
            }),
            KEVENT_TSK_MGMT_REQ => KEvent::TskMgmtReq(TskMgmtReq {
                host_no: r.i32(),
                function: r.i32(),
                itn_id: r.u64(),
                tag: Tag(r.u64()),
                lun: Lun(r.take()),
                mid: r.u64(),
            }),
            KEVENT_ASYNC_REQ => KEvent::AsyncReq(AsyncReq {
                host_no: r.i32(),
                function: match r.u32() {
                    0 => AsyncFunction::Query,
                    1 => AsyncFunction::Subscribe,
                    other => return Err(EventError::Function(other)),
                },
                itn_id: r.u64(),
                lun: Lun(r.take()),
                mid: r.u64(),
                events: r.u32(),
            }),
            other => return Err(EventError::Type(other)),
        };
        Ok(event)
    }
}

impl UEvent {
    /// `type` of this event.
    pub fn number(&self) -> u16 {
        match self {
            UEvent::CmdRsp(_) => UEVENT_CMD_RSP,
            UEvent::ItNexusRsp(_) => UEVENT_IT_NEXUS_RSP,
            UEvent::TskMgmtRsp(_) => UEVENT_TSK_MGMT_RSP,
            UEvent::AsyncRsp(_) => UEVENT_ASYNC_RSP,
            UEvent::AerReq(_) => UEVENT_AER_REQ,
        }
    }

    /// The event as `struct tgt_event`.
    pub fn encode(&self) -> [u8; EVENT_SIZE] {
        let mut w = Writer::new(self.number());
        match self {
            UEvent::CmdRsp(e) => {
                w.put(e.host_no.to_le_bytes());
                w.put(e.result.to_le_bytes());
                w.put(e.itn_id.to_le_bytes());
                w.put(e.tag.0.to_le_bytes());
                w.put(e.uaddr.to_le_bytes());
                w.put(e.sense_uaddr.to_le_bytes());
                w.put(e.len.to_le_bytes());
                w.put(e.sense_len.to_le_bytes());
                w.put([e.rw]);
            }
            UEvent::ItNexusRsp(e) => {
                w.put(e.host_no.to_le_bytes());
                w.put(e.result.to_le_bytes());
                w.put(e.itn_id.to_le_bytes());
                w.put((e.function as u32).to_le_bytes());
            }
            UEvent::TskMgmtRsp(e) => {
                w.put(e.host_no.to_le_bytes());
                w.put(e.result.to_le_bytes());
                w.put(e.itn_id.to_le_bytes());
                w.put(e.mid.to_le_bytes());
            }
            UEvent::AsyncRsp(e) => {
                w.put(e.host_no.to_le_bytes());
                w.put(e.result.to_le_bytes());
                w.put(e.itn_id.to_le_bytes());
                w.put(e.mid.to_le_bytes());
                w.put(e.events.to_le_bytes());
            }
            UEvent::AerReq(e) => {
                w.put(e.host_no.to_le_bytes());
                w.put(e.events.to_le_bytes());
                w.put(e.itn_id.to_le_bytes());
                w.put(e.lun.0);
                w.put(e.sense_len.to_le_bytes());
            }
        }
        w.finish()
    }

    /// Reads a user → kernel event.
    pub fn decode(bytes: &[u8; EVENT_SIZE]) -> Result<UEvent, EventError> {
        let (kind, mut r) = Reader::open(bytes)?;
        let event = match kind {
            UEVENT_CMD_RSP => UEvent::CmdRsp(CmdRsp {
                host_no: r.i32(),
                result: r.i32(),
                itn_id: r.u64(),
                tag: Tag(r.u64()),
                uaddr: r.u64(),
                sense_uaddr: r.u64(),
                len: r.u32(),
                sense_len: r.u32(),
                rw: u8::from_le_bytes(r.take()),
            }),
            UEVENT_IT_NEXUS_RSP => UEvent::ItNexusRsp(ItNexusRsp {
                host_no: r.i32(),
                result: r.i32(),
                itn_id: r.u64(),
                function: r.function()?,
            }),
            UEVENT_TSK_MGMT_RSP => {
                UEvent::TskMgmtRsp(TskMgmtRsp { host_no: r.i32(), result: r.i32(), itn_id: r.u64(), mid: r.u64() })
            }
            UEVENT_ASYNC_RSP => UEvent::AsyncRsp(AsyncRsp {
                host_no: r.i32(),
                result: r.i32(),
                itn_id: r.u64(),
                mid: r.u64(),
                events: r.u32(),
            }),
            UEVENT_AER_REQ => UEvent::AerReq(AerReq {
                host_no: r.i32(),
                events: r.u32(),
                itn_id: r.u64(),
                lun: Lun(r.take()),
                sense_len: r.u32(),
            }),
            other => return Err(EventError::Type(other)),
        };
        Ok(event)
    }
}

/// Size of the union's member of an event type: up to its last field, with the padding that its alignment asks for.
fn member_size(kind: u16) -> Option<u16> {
    match kind {
        KEVENT_CMD_REQ | UEVENT_CMD_RSP => Some(56),
        KEVENT_IT_NEXUS_REQ | KEVENT_TSK_MGMT_REQ | KEVENT_ASYNC_REQ => Some(40),
        UEVENT_ASYNC_RSP | UEVENT_AER_REQ => Some(32),
        KEVENT_CMD_DONE | UEVENT_IT_NEXUS_RSP | UEVENT_TSK_MGMT_RSP => Some(24),
        _ => None,
    }
}

struct Writer {
    bytes: [u8; EVENT_SIZE],
    at: usize,
}

impl Writer {
    fn new(kind: u16) -> Writer {
        let mut w = Writer { bytes: [0; EVENT_SIZE], at: 0 };
        w.put(VERSION.to_le_bytes());
        w.put(STATUS_FULL.to_le_bytes());
        w.put(kind.to_le_bytes());
        w.put(member_size(kind).unwrap_or(0).to_le_bytes());
        w
    }

    fn put<const N: usize>(&mut self, value: [u8; N]) {
        self.bytes[self.at..self.at + N].copy_from_slice(&value);
        self.at += N;
    }

    fn pad(&mut self, n: usize) {
        self.at += n;
    }

    fn finish(self) -> [u8; EVENT_SIZE] {
        self.bytes
    }
}

struct Reader<'a> {
    bytes: &'a [u8; EVENT_SIZE],
    at: usize,
}

impl<'a> Reader<'a> {
    /// Checks the header; the event's type and a reader of its union.
    fn open(bytes: &'a [u8; EVENT_SIZE]) -> Result<(u16, Reader<'a>), EventError> {
        let mut r = Reader { bytes, at: 0 };
        let [version, status, kind, len] = [r.u16(), r.u16(), r.u16(), r.u16()];
        debug_assert_eq!(r.at, HEADER);
        if status != STATUS_FULL {
            return Err(EventError::Empty);
        }
        if version != VERSION {
            return Err(EventError::Version(version));
        }
        let size = member_size(kind).ok_or(EventError::Type(kind))?;
        if len != 0 && len != size {
            return Err(EventError::Length(len));
        }
        Ok((kind, r))
    }

    fn take<const N: usize>(&mut self) -> [u8; N] {
        let mut value = [0; N];
        value.copy_from_slice(&self.bytes[self.at..self.at + N]);
        self.at += N;
        value
    }

    fn skip(&mut self, n: usize) {
        self.at += n;
    }

    fn u16(&mut self) -> u16 {
        u16::from_le_bytes(self.take())
    }

    fn u32(&mut self) -> u32 {
        u32::from_le_bytes(self.take())
    }

    fn i32(&mut self) -> i32 {
        i32::from_le_bytes(self.take())
    }

    fn u64(&mut self) -> u64 {
        u64::from_le_bytes(self.take())
    }

    fn function(&mut self) -> Result<NexusFunction, EventError> {
        match self.u32() {
            0 => Ok(NexusFunction::Create),
            1 => Ok(NexusFunction::Destroy),
            other => Err(EventError::Function(other)),
        }
    }
}

#[cfg(test)]
#[path = "layout_tests.rs"]
mod tests;
