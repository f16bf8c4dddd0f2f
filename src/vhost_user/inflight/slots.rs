//! The slots of the tail: for each head of a ring, what was decided about the chain that it begins, and that it was answered.
//!
//! # A slot
//!
//! | offset | bytes | what |
//! |---|---|---|
//! | 0 | 8 | phase in the lowest two bits: 1 decided, 2 answered; above them the chain's counter, modulo 2^62 |
//! | 8 | 8 | what was decided; not 0 |
//! | 16 | 4 | bytes written to the chain, for the used ring |
//! | 20 | 12 | 0 |
//!
//! A slot is about the chain in flight only if it has its counter, so that nothing need be cleared, and chains that leave no notes do
//! not touch their slots. The first word is stored last.
//!
//! There is no status and no sense data here: an answer is in guest memory, which outlives this process, before it is noted that there is
//! one. What is missing then is only that the chain goes on the used ring.

use std::sync::atomic::Ordering;

use super::layout::{COUNTER, SLOT, STATE, STATES};
use crate::mem::LoggedRange;

const WORD: usize = 0;
const DECISION: usize = 8;
const WRITTEN: usize = 16;

const DECIDED: u64 = 1;
const ANSWERED: u64 = 2;

/// What a predecessor noted about a chain that it took and did not give back.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Earlier {
    /// Nothing.
    #[default]
    Nothing,
    /// This was decided.
    Decided(u64),
    /// It was answered, and so many bytes were written: only the used ring does not say so.
    Answered(u32),
}

/// A ring's slots. Written by whoever works on a chain, from any thread, but not by two at once.
#[derive(Debug)]
pub struct InflightNotes {
    slots: LoggedRange,
    /// The ring's region, for the counters.
    region: LoggedRange,
}

impl InflightNotes {
    pub(super) fn new(slots: LoggedRange, region: LoggedRange) -> InflightNotes {
        InflightNotes { slots, region }
    }

    /// Notes what was decided about the chain in flight at `head`; 0: nothing, after all.
    pub fn decided(&self, head: u16, decision: u64) {
        let (slot, word) = (SLOT * usize::from(head), self.word(head));
        if decision == 0 {
            self.slots.store_u64(slot + WORD, 0, Ordering::Release);
        } else {
            // Another decision takes the place of the one before with this store alone.
            self.slots.store_u64(slot + DECISION, decision, Ordering::Release);
            self.slots.store_u64(slot + WORD, word | DECIDED, Ordering::Release);
        }
    }

    /// Notes that the chain in flight at `head` was answered, with so many bytes.
    pub fn answered(&self, head: u16, written: u32) {
        let slot = SLOT * usize::from(head);
        self.slots.store_u32(slot + WRITTEN, written, Ordering::Release);
        self.slots.store_u64(slot + WORD, self.word(head) | ANSWERED, Ordering::Release);
    }

    /// What was noted about the chain in flight at `head`.
    pub(super) fn earlier(&self, head: u16) -> Earlier {
        let slot = SLOT * usize::from(head);
        let order = Ordering::Acquire;
        let Some(word) = self.slots.range().load_u64(slot + WORD, order) else { return Earlier::Nothing };
        if word & !3 != self.word(head) {
            return Earlier::Nothing;
        }
        match word & 3 {
            DECIDED => self.slots.range().load_u64(slot + DECISION, order).map_or(Earlier::Nothing, Earlier::Decided),
            ANSWERED => self.slots.range().load_u32(slot + WRITTEN, order).map_or(Earlier::Nothing, Earlier::Answered),
            _ => Earlier::Nothing,
        }
    }

    /// The first word of a slot that is about the chain in flight, without a phase.
    fn word(&self, head: u16) -> u64 {
        let state = STATES + STATE * usize::from(head);
        self.region.range().load_u64(state + COUNTER, Ordering::Relaxed).unwrap_or(0) << 2
    }
}
