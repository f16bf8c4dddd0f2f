//! What it would be to carry a command out a second time, because the process that did it was killed before its answer was seen.

use super::Row;

/// What is done about a command that may have been carried out, and whose answer was not seen.
///
/// However it is classed, an answer that was given is not lost: what is not GOOD is kept (a unit attention that it reports is gone from
/// the unit), and so is GOOD unless the command is of the first class.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Replay {
    /// It is carried out again, even if it had been answered with GOOD: what it reads is as new as it can be, what it writes is the same.
    Repeat,
    /// It is carried out again unless it was answered.
    Answered,
    /// COMPARE AND WRITE: that its comparison succeeded is noted before it writes.
    Compares,
    /// A change of what is kept of the unit: its name is noted before it is made, and what is kept says whether it is in it.
    Changes,
}

/// The class of the command in a CDB's first bytes; one that there is not is answered by what it is told.
pub fn replay_of(cdb: &[u8; 16]) -> Replay {
    replay(cdb[0], u16::from(cdb[1] & 0x1f)).unwrap_or(Replay::Answered)
}

/// The class of an operation code and service action; `None` if there is none such in the table.
pub const fn replay(opcode: u8, service_action: u16) -> Option<Replay> {
    Some(match (opcode, service_action) {
        // They look at something: TEST UNIT READY, INQUIRY, READ CAPACITY, READ BUFFER, LOG SENSE, MODE SENSE, PERSISTENT RESERVE IN, RECEIVE
        // DIAGNOSTIC RESULTS, READ DEFECT DATA, REPORT LUNS, and service actions of 9Eh and A3h.
        (0x00 | 0x12 | 0x25 | 0x3c | 0x4d | 0x1a | 0x5a | 0x5e | 0x1c | 0x37 | 0xb7 | 0xa0 | 0x9e | 0xa3, _) => {
            Replay::Repeat
        }
        // READ, VERIFY, PRE-FETCH, SYNCHRONIZE CACHE.
        (0x08 | 0x28 | 0xa8 | 0x88 | 0x2f | 0xaf | 0x8f | 0x34 | 0x90 | 0x35 | 0x91, _) => Replay::Repeat,
        // WRITE, WRITE AND VERIFY, WRITE SAME, UNMAP, WRITE ATOMIC; and ORWRITE, for bits that are set can be set.
        (0x0a | 0x2a | 0xaa | 0x8a | 0x2e | 0xae | 0x8e | 0x41 | 0x93 | 0x42 | 0x9c | 0x8b, _) => Replay::Repeat,
        (0x89, _) => Replay::Compares,
        // RESERVE and RELEASE, PERSISTENT RESERVE OUT, MODE SELECT, FORMAT UNIT, SANITIZE, SET IDENTIFYING INFORMATION, SET
        // TARGET PORT GROUPS.
        (0x16 | 0x56 | 0x17 | 0x57 | 0x5f | 0x15 | 0x55 | 0x04 | 0x48, _) | (0xa4, 0x06 | 0x0a) => Replay::Changes,
        // REQUEST SENSE takes a unit attention with it.
        (0x03, _) => Replay::Answered,
        // Settings that are set again: START STOP UNIT, PREVENT ALLOW MEDIUM REMOVAL, SEND DIAGNOSTIC, WRITE BUFFER, LOG SELECT, SET TIMESTAMP.
        (0x1b | 0x1e | 0x1d | 0x3b | 0x4c, _) | (0xa4, 0x0f) => Replay::Answered,
        // Third-party copies, by descriptors and by token: what is copied is what the source holds at some time before the answer. And what
        // became of them, which may be told once.
        (0x83 | 0x84, _) => Replay::Answered,
        _ => return None,
    })
}

impl Row {
    /// What is done about it if it may have been carried out, and its answer was not seen.
    pub fn replay(&self) -> Replay {
        // A test sees to it that there is one for each row.
        replay(self.opcode, self.service_action.unwrap_or(0)).unwrap_or(Replay::Answered)
    }
}

#[cfg(test)]
mod tests {
    use super::super::{Persistent, rows};
    use super::*;

    #[test]
    fn every_command_has_its_class() {
        let none: Vec<_> = rows()
            .iter()
            .filter(|r| replay(r.opcode, r.service_action.unwrap_or(0)).is_none())
            .map(|r| r.name)
            .collect();
        assert_eq!(none, Vec::<&str>::new());
    }

    /// What changes a unit, and does not do so by putting given data in given places, is not just done again.
    #[test]
    fn what_is_repeated_is_known_to_be_harmless() {
        let repeated = |r: &&super::Row| r.replay() == Replay::Repeat;
        for row in rows().iter().filter(repeated).filter(|r| r.reservation.persistent == Persistent::Writes) {
            let places = ["WRITE", "ORWRITE", "UNMAP", "SYNCHRONIZE"].iter().any(|verb| row.name.starts_with(verb));
            assert!(places, "{}", row.name);
        }
    }
}
