//! Notes on commands that must not be carried out twice: what one process decided, for the one that goes on after it was killed.
//!
//! # Contract
//!
//! * Most commands leave no note: done twice, they come to the same ([`Replay::Repeat`](crate::scsi::opcode::Replay)). The successor gets such a
//!   command like a new one.
//! * One that is not so writes what it has decided before its effect can be seen, with [`Memo::decide`], and the successor gets that
//!   with the command ([`Noted::earlier`]).
//! * That a command was answered is noted by whoever answers it, not here, and such a command does not come again. So a note
//!   matters from its decision to its answer.
//!
//! # What is decided
//!
//! * COMPARE AND WRITE: [`Matched`](Decision::Matched) before it writes, while nobody else may use its blocks;
//!   [`Written`](Decision::Written) behind that, still before somebody else may. The successor of a process that was killed in between
//!   finds in each sector what was to be compared or what was to be written, and finishes it. If it finds anything else, another
//!   command got there first since the restart, and the answer is MISCOMPARE: what a lock's owner-to-be must hear who is no
//!   owner.
//! * A [`Change`](super::Change) of what is kept of a unit: its [name](crate::lu::ChangeName) before it is evaluated. The successor goes on
//!   with what was written down, which says whether the change is in it. If it is, the command is answered and nothing else; if not, it had no
//!   effect, and is carried out like a new one.

use std::fmt;
use std::sync::Arc;

use crate::lu::ChangeName;

/// Where notes are kept: a place for each descriptor head of a queue.
pub trait Notes: Send + Sync + fmt::Debug {
    /// Notes what was decided about the command that has this head; 0: nothing. Does not wait, and does not allocate.
    fn note(&self, head: u16, decision: u64);
}

/// The place for one command's note.
#[derive(Clone, Debug)]
pub struct Memo {
    notes: Arc<dyn Notes>,
    head: u16,
}

impl Memo {
    /// That of the command with this head.
    pub fn new(notes: Arc<dyn Notes>, head: u16) -> Memo {
        Memo { notes, head }
    }

    /// Notes a decision. In memory that outlives the process when this returns.
    pub fn decide(&self, decision: Decision) {
        self.notes.note(self.head, decision.encode());
    }

    /// Takes it back: it came to nothing.
    pub fn withdraw(&self) {
        self.notes.note(self.head, 0);
    }
}

/// What was decided about a command.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Decision {
    /// COMPARE AND WRITE: what was on the medium was what was expected; it is, or will be, written over.
    Matched,
    /// COMPARE AND WRITE: it was written over.
    Written,
    /// A change of what is kept has this name.
    Change(ChangeName),
}

impl Decision {
    /// As [`Notes`] has it.
    pub fn encode(self) -> u64 {
        match self {
            Decision::Matched => 1,
            Decision::Written => 2,
            // An epoch is not 0.
            Decision::Change(ChangeName { epoch, count }) => u64::from(epoch) << 32 | u64::from(count),
        }
    }

    /// Back; `None` for what no decision is.
    pub fn decode(note: u64) -> Option<Decision> {
        match (note >> 32, note) {
            (0, 1) => Some(Decision::Matched),
            (0, 2) => Some(Decision::Written),
            (0, _) => None,
            (epoch, _) => Some(Decision::Change(ChangeName { epoch: epoch as u32, count: note as u32 })),
        }
    }
}

/// What is known of a command besides what its initiator says.
#[derive(Clone, Debug, Default)]
pub struct Noted {
    /// What a process before this one decided about it.
    pub earlier: Option<Decision>,
    /// Where to note what is decided now, if anybody keeps that.
    pub memo: Option<Memo>,
}

impl Noted {
    /// Notes a decision, if anybody keeps that.
    pub fn decide(&self, decision: Decision) {
        if let Some(memo) = &self.memo {
            memo.decide(decision);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn decisions_come_back_as_they_were() {
        let change = |epoch, count| Decision::Change(ChangeName { epoch, count });
        for decision in [Decision::Matched, Decision::Written, change(1, 0), change(u32::MAX, u32::MAX), change(7, 2)] {
            assert_eq!(Decision::decode(decision.encode()), Some(decision));
            assert_ne!(decision.encode(), 0);
        }
        for nothing in [0, 3, 0xffff_ffff] {
            assert_eq!(Decision::decode(nothing), None);
        }
    }
}
