//! What a persistent reservation forbids, asked of the unit by READ FULL STATUS and judged by SPC-4's rules (5.13.1, table 65).

use super::rig::{Rig, Sending};
use vstgt::mem::{Direction, IoBuf};
use vstgt::scsi::{HostByte, Lun, Status};
use vstgt::tgt::{HostNo, ItnId};

/// A unit's persistent reservation.
#[derive(Debug)]
pub struct Reserved {
    /// TYPE; `None` without a reservation.
    kind: Option<u8>,
    /// Initiator port (its first byte) and relative target port of each registration, and whether it holds the reservation.
    registered: Vec<(u8, u16, bool)>,
}

impl Reserved {
    /// Asks for it on a nexus that does nothing else. `None` if the unit does not answer: it is being formatted, say, or another
    /// nexus has reserved it by RESERVE.
    pub fn ask(rig: &mut Rig, observer: (HostNo, ItnId), lun: Lun) -> Option<Reserved> {
        // Unit attentions come first, each once.
        for _ in 0..8 {
            let cdb = [0x5e, 0x03, 0, 0, 0, 0, 0, 0x10, 0, 0, 0, 0, 0, 0, 0, 0];
            let before = rig.answers.len();
            let buf = IoBuf::owned(0x1000, Direction::In);
            rig.send(0, observer, Sending::simple(lun, cdb, buf), |_| ())?;
            rig.settle(&mut |_, _| ());
            let (_, answer) = rig.answers.drain(before..).next_back()?;
            if answer.result.host != HostByte::Ok {
                return None;
            }
            match answer.result.status {
                Status::Good => return Some(Reserved::read(&answer.data)),
                Status::CheckCondition => {}
                _ => return None,
            }
        }
        None
    }

    fn read(data: &[u8]) -> Reserved {
        let number = |at: usize| u32::from_be_bytes([data[at], data[at + 1], data[at + 2], data[at + 3]]) as usize;
        let (mut at, end) = (8, 8 + number(4));
        assert!(end <= data.len(), "few enough registrations");
        let mut reserved = Reserved { kind: None, registered: Vec::new() };
        while at < end {
            let holds = data[at + 12] & 1 != 0;
            if holds {
                assert_eq!(data[at + 13] >> 4, 0, "SCOPE is the logical unit");
                reserved.kind = Some(data[at + 13] & 0x0f);
            }
            let port = u16::from_be_bytes([data[at + 18], data[at + 19]]);
            // An SRP TransportID: the initiator port identifier from byte 8 on.
            assert_eq!(data[at + 24] & 0x0f, 0x04, "the protocol is SRP");
            reserved.registered.push((data[at + 24 + 8], port, holds));
            at += 24 + number(at + 20);
        }
        let holders = reserved.registered.iter().filter(|one| one.2).count();
        match reserved.kind {
            Some(7 | 8) => assert_eq!(holders, reserved.registered.len(), "all registrants hold it: {reserved:?}"),
            Some(1 | 3 | 5 | 6) => assert_eq!(holders, 1, "{reserved:?}"),
            Some(other) => panic!("type {other}"),
            None => {}
        }
        reserved
    }

    /// Whether a read or write of the medium by this nexus conflicts.
    pub fn conflicts(&self, initiator: u8, port: u16, writes: bool) -> bool {
        let mine = self.registered.iter().find(|one| (one.0, one.1) == (initiator, port));
        let (registered, holds) = (mine.is_some(), mine.is_some_and(|one| one.2));
        match self.kind {
            None => false,
            Some(1) => writes && !holds,
            Some(3) => !holds,
            Some(5 | 7) => writes && !registered,
            Some(_) => !registered,
        }
    }
}
