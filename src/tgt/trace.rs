//! Events as lines of text, and a tap that logs them.

use std::fmt::{Display, Formatter, Result};

use super::{AsyncFunction, KEvent, NexusFunction, Tag, Tap, UEvent};

/// Bytes in hexadecimal.
struct Hex<'a>(&'a [u8]);

impl Display for Hex<'_> {
    fn fmt(&self, f: &mut Formatter<'_>) -> Result {
        self.0.iter().try_for_each(|byte| write!(f, "{byte:02x}"))
    }
}

impl Display for Tag {
    /// reactor/queue/head/generation.
    fn fmt(&self, f: &mut Formatter<'_>) -> Result {
        match *self {
            Tag::NONE => f.write_str("none"),
            tag => write!(f, "{}/{}/{}/{}", tag.shard(), tag.queue(), tag.head(), tag.generation()),
        }
    }
}

impl Display for NexusFunction {
    fn fmt(&self, f: &mut Formatter<'_>) -> Result {
        f.write_str(match self {
            NexusFunction::Create => "create",
            NexusFunction::Destroy => "destroy",
        })
    }
}

impl Display for KEvent {
    fn fmt(&self, f: &mut Formatter<'_>) -> Result {
        match self {
            KEvent::CmdReq(e) => write!(
                f,
                "CMD_REQ host {} itn {:#x} tag {} lun {} attribute {:#x} scb {} data_len {}",
                e.host_no,
                e.itn_id,
                e.tag,
                Hex(&e.lun.0),
                e.attribute,
                Hex(&e.scb),
                e.data_len
            ),
            KEvent::CmdDone(e) => {
                write!(f, "CMD_DONE host {} itn {:#x} tag {} result {}", e.host_no, e.itn_id, e.tag, e.result)
            }
            KEvent::ItNexusReq(e) => write!(
                f,
                "IT_NEXUS_REQ host {} itn {:#x} {} max_cmds {} initiator {}",
                e.host_no,
                e.itn_id,
                e.function,
                e.max_cmds,
                Hex(&e.initiator_id)
            ),
            KEvent::TskMgmtReq(e) => write!(
                f,
                "TSK_MGMT_REQ host {} itn {:#x} mid {:#x} function {:#x} lun {} tag {}",
                e.host_no,
                e.itn_id,
                e.mid,
                e.function,
                Hex(&e.lun.0),
                e.tag
            ),
            KEvent::AsyncReq(e) => write!(
                f,
                "ASYNC_REQ host {} itn {:#x} mid {:#x} {} lun {} events {:#x}",
                e.host_no,
                e.itn_id,
                e.mid,
                match e.function {
                    AsyncFunction::Query => "query",
                    AsyncFunction::Subscribe => "subscribe",
                },
                Hex(&e.lun.0),
                e.events
            ),
        }
    }
}

impl Display for UEvent {
    fn fmt(&self, f: &mut Formatter<'_>) -> Result {
        match self {
            UEvent::CmdRsp(e) => write!(
                f,
                "CMD_RSP host {} itn {:#x} tag {} result {:#x} len {} sense_len {} rw {}",
                e.host_no, e.itn_id, e.tag, e.result, e.len, e.sense_len, e.rw
            ),
            UEvent::ItNexusRsp(e) => {
                write!(f, "IT_NEXUS_RSP host {} itn {:#x} {} result {}", e.host_no, e.itn_id, e.function, e.result)
            }
            UEvent::TskMgmtRsp(e) => {
                write!(f, "TSK_MGMT_RSP host {} itn {:#x} mid {:#x} result {:#x}", e.host_no, e.itn_id, e.mid, e.result)
            }
            UEvent::AsyncRsp(e) => write!(
                f,
                "ASYNC_RSP host {} itn {:#x} mid {:#x} result {:#x} events {:#x}",
                e.host_no, e.itn_id, e.mid, e.result, e.events
            ),
            UEvent::AerReq(e) => write!(
                f,
                "AER_REQ host {} itn {:#x} lun {} events {:#x} sense_len {}",
                e.host_no,
                e.itn_id,
                Hex(&e.lun.0),
                e.events,
                e.sense_len
            ),
        }
    }
}

/// A tap that logs every event at debug level, under the target `vstgt::tgt`.
#[derive(Clone, Copy, Debug)]
pub struct LogTap {
    /// Whose rings these are.
    pub reactor: u8,
}

impl Tap for LogTap {
    fn tx(&mut self, event: &KEvent) {
        log::debug!(target: "vstgt::tgt", "reactor {} tx {event}", self.reactor);
    }

    fn rx(&mut self, event: &UEvent) {
        log::debug!(target: "vstgt::tgt", "reactor {} rx {event}", self.reactor);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::scsi::Lun;
    use crate::tgt::{AerReq, AsyncReq, CmdReq, ItNexusReq, TskMgmtRsp};

    #[test]
    fn events_are_one_line_each() {
        let req = CmdReq {
            host_no: 1,
            data_len: 512,
            itn_id: 0x10000,
            scb: [0x28, 0, 0, 0, 0, 8, 0, 0, 1, 0, 0, 0, 0, 0, 0, 0],
            lun: Lun([1, 0, 0, 2, 0, 0, 0, 0]),
            attribute: 0x20,
            tag: Tag::new(3, 2, 1, 9),
        };
        assert_eq!(
            KEvent::CmdReq(req).to_string(),
            "CMD_REQ host 1 itn 0x10000 tag 3/2/1/9 lun 0100000200000000 attribute 0x20 \
             scb 28000000000800000100000000000000 data_len 512"
        );
        let req = ItNexusReq {
            host_no: 1,
            function: NexusFunction::Create,
            itn_id: 2,
            max_cmds: 64,
            initiator_id: [0xab; 16],
        };
        assert_eq!(
            KEvent::ItNexusReq(req).to_string(),
            "IT_NEXUS_REQ host 1 itn 0x2 create max_cmds 64 initiator abababababababababababababababab"
        );
        let rsp = TskMgmtRsp { host_no: 1, result: 9, itn_id: 2, mid: 0x77 };
        assert_eq!(UEvent::TskMgmtRsp(rsp).to_string(), "TSK_MGMT_RSP host 1 itn 0x2 mid 0x77 result 0x9");
        assert_eq!(Tag::NONE.to_string(), "none");
        let lun = Lun([1, 0, 0, 2, 0, 0, 0, 0]);
        let req = AsyncReq { host_no: 1, function: AsyncFunction::Subscribe, itn_id: 2, lun, events: 2, mid: 7 };
        let text = "ASYNC_REQ host 1 itn 0x2 mid 0x7 subscribe lun 0100000200000000 events 0x2";
        assert_eq!(KEvent::AsyncReq(req).to_string(), text);
        let aer = AerReq { host_no: 1, events: 2, itn_id: 2, lun, sense_len: 18 };
        let text = "AER_REQ host 1 itn 0x2 lun 0100000200000000 events 0x2 sense_len 18";
        assert_eq!(UEvent::AerReq(aer).to_string(), text);
    }
}
