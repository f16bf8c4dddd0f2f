//! One ring's account in the inflight buffer: what was taken and not given back.
//!
//! # Order
//!
//! The account has to be right when this process is killed between any two of its instructions. A killed thread's stores have all been
//! done up to some point of its program and none behind that, and whoever looks at the memory afterwards sees exactly those: so it is the
//! order of the stores in the program that counts, and no store must be moved across another by the compiler. Release stores see to that,
//! for what comes before them; they cost nothing on x86. (A loss of power need not be thought of: the guest goes with it.) One thread
//! writes a ring's account and its used ring, so there is but one program order.
//!
//! 1. A chain is taken: its counter, then inflight = 1. Nothing is done for it before. A chain that was popped but not yet entered is just available
//!    still: [`InflightRing::recover`]'s chains are all that was popped and is not on the used ring, so behind them goes the rest.
//! 2. It is put on the used ring: it is linked to the one before it, then it becomes last_batch_head.
//! 3. used.idx is raised (by the ring).
//! 4. inflight = 0 for the batch, then used_idx.
//!
//! Killed between 3 and 4, used_idx differs from used.idx by what was published: so many, from last_batch_head on, are over
//! whatever their states say. Killed between 2 and 3, the guest has not seen them: they are in flight.
//!
//! # Costs
//!
//! A chain's state is 16 bytes in one cache line; with the four stores of a batch's head, six stores for each chain. Nothing is allocated.

use std::sync::Arc;
use std::sync::atomic::Ordering;

use super::layout::{
    COUNTER, DESC_NUM, FEATURES, INFLIGHT, LAST_BATCH_HEAD, NEXT, QUEUE_VERSION, QUEUE_VERSION_AT, STATE, STATES,
    USED_IDX,
};
use super::slots::{Earlier, InflightNotes};
use crate::mem::{GuestRange, LoggedRange};

/// A ring's account.
#[derive(Debug)]
pub struct InflightRing {
    region: LoggedRange,
    /// What is noted about single chains; `None` if the buffer has no tail that is understood.
    notes: Option<Arc<InflightNotes>>,
    /// Descriptor states that the region has.
    states: u16,
    /// Descriptors of the ring; no more than states.
    size: u16,
    /// The next chain's.
    counter: u64,
    /// What is in the buffer, which is not read again.
    last_batch_head: u16,
    /// Heads on the used ring that were not published yet.
    batch: Vec<u16>,
}

/// What a predecessor left behind.
#[derive(Debug, Default, PartialEq, Eq)]
pub struct Recovered {
    /// The chains that it took and did not give back, in the order in which it took them.
    pub owed: Vec<Owed>,
    /// What is wrong with the account: nothing in it was believed then.
    pub defect: Option<&'static str>,
}

/// A chain that a predecessor took and did not give back.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Owed {
    /// Where it begins.
    pub head: u16,
    /// What was noted about it.
    pub earlier: Earlier,
    /// Its counter: it was taken when the account stood there, see [`InflightRing::advance`].
    pub counter: u64,
}

impl InflightRing {
    /// The account in `region`, which has room for so many `states`, of a ring of `size` descriptors.
    pub(super) fn new(region: LoggedRange, notes: Option<Arc<InflightNotes>>, states: u16, size: u16) -> InflightRing {
        let batch = Vec::with_capacity(usize::from(size));
        InflightRing { region, notes, states, size: size.min(states), counter: 0, last_batch_head: 0, batch }
    }

    /// Takes the account over as the ring starts, whose used.idx stands at `used_idx`: what is still in flight is given back in
    /// the order in which it was taken. To be called once, before everything else.
    pub fn recover(&mut self, used_idx: u16) -> Recovered {
        let region = self.region.range();
        let word = |at| region.load_u16(at, Ordering::Relaxed).unwrap_or(0);
        let version = region.load_u16(QUEUE_VERSION_AT, Ordering::Acquire).unwrap_or(0);
        let published = used_idx.wrapping_sub(word(USED_IDX));
        let defect = match version {
            0 => None,
            QUEUE_VERSION if word(DESC_NUM) != self.states => Some("is for a ring of another size"),
            QUEUE_VERSION if published > self.states => Some("is of another life of the ring"),
            QUEUE_VERSION => return self.take_over(used_idx, published),
            _ => Some("is of an unknown version"),
        };
        self.set_up(used_idx);
        Recovered { owed: Vec::new(), defect }
    }

    /// Begins a new account.
    fn set_up(&mut self, used_idx: u16) {
        // First of all it becomes one that says nothing.
        self.region.store_u16(QUEUE_VERSION_AT, 0, Ordering::Release);
        for head in 0..self.states {
            self.region.store_u16(state(head) + INFLIGHT, 0, Ordering::Relaxed);
        }
        self.region.store_u64(FEATURES, 0, Ordering::Relaxed);
        self.region.store_u16(DESC_NUM, self.states, Ordering::Relaxed);
        self.region.store_u16(LAST_BATCH_HEAD, 0, Ordering::Relaxed);
        self.region.store_u16(USED_IDX, used_idx, Ordering::Relaxed);
        self.region.store_u16(QUEUE_VERSION_AT, QUEUE_VERSION, Ordering::Release);
        self.last_batch_head = 0;
        self.counter = self.counters().max().map_or(0, |last| last.wrapping_add(1));
    }

    /// Goes on with an account that somebody left, `published` chains of which were shown to the driver but perhaps not
    /// marked as over.
    fn take_over(&mut self, used_idx: u16, published: u16) -> Recovered {
        let region = self.region.range();
        let mut head = region.load_u16(LAST_BATCH_HEAD, Ordering::Relaxed).unwrap_or(0);
        self.last_batch_head = if head < self.states { head } else { 0 };
        // No more steps than there are states, whatever `next` says.
        for _ in 0..published {
            if head >= self.states {
                break;
            }
            self.region.store_u16(state(head) + INFLIGHT, 0, Ordering::Release);
            head = region.load_u16(state(head) + NEXT, Ordering::Relaxed).unwrap_or(u16::MAX);
        }
        self.region.store_u16(USED_IDX, used_idx, Ordering::Release);
        // No chain of this ring begins at states past its size.
        for head in self.size..self.states {
            self.region.store_u16(state(head) + INFLIGHT, 0, Ordering::Relaxed);
        }
        let mut taken: Vec<(u64, u16)> =
            self.counters().zip(0..self.size).filter(|(_, head)| in_flight(region, *head)).collect();
        taken.sort_unstable();
        // Greater than any that was given, and not only than those of chains in flight: a counter names a use of a head.
        self.counter = self.counters().max().map_or(0, |last| last.wrapping_add(1));
        let earlier = |head| self.notes.as_ref().map_or(Earlier::Nothing, |notes| notes.earlier(head));
        let owed = taken.into_iter().map(|(counter, head)| Owed { head, earlier: earlier(head), counter }).collect();
        Recovered { owed, defect: None }
    }

    /// Where to note what must not be forgotten about single chains.
    pub fn notes(&self) -> Option<&Arc<InflightNotes>> {
        self.notes.as_ref()
    }

    fn counters(&self) -> impl Iterator<Item = u64> {
        let region = self.region.range();
        (0..self.states).map(move |head| region.load_u64(state(head) + COUNTER, Ordering::Relaxed).unwrap_or(0))
    }

    /// Whether anything in it is in flight, as far as can be told without the ring.
    pub(super) fn owes(&self) -> bool {
        let region = self.region.range();
        let set_up = region.load_u16(QUEUE_VERSION_AT, Ordering::Acquire) == Some(QUEUE_VERSION);
        set_up && (0..self.states).any(|head| in_flight(region, head))
    }

    /// Chains that are taken from now on have counters from `to` on. Whoever calls this with the time, in nanoseconds, as the ring starts
    /// and again later, knows of every chain that was in flight whether it was taken before such a moment: that no ring takes
    /// more than one chain in a nanosecond keeps counters from being ahead of the time.
    pub fn advance(&mut self, to: u64) {
        self.counter = self.counter.max(to);
    }

    /// A chain was taken from the available ring. Nothing may have been done for it.
    #[inline]
    pub fn begin(&mut self, head: u16) {
        self.region.store_u64(state(head) + COUNTER, self.counter, Ordering::Relaxed);
        self.region.store_u16(state(head) + INFLIGHT, 1, Ordering::Release);
        self.counter = self.counter.wrapping_add(1);
    }

    /// A chain was put on the used ring, where the driver does not see it yet.
    #[inline]
    pub fn end(&mut self, head: u16) {
        self.region.store_u16(state(head) + NEXT, self.last_batch_head, Ordering::Relaxed);
        self.region.store_u16(LAST_BATCH_HEAD, head, Ordering::Release);
        self.last_batch_head = head;
        self.batch.push(head);
    }

    /// All that was put on the used ring has been published: used.idx is `used_idx` now. `taken_again` tells of heads that a driver which
    /// did not wait for that had made available once more.
    ///
    /// Whoever raised used.idx did so by a store that later ones cannot be moved before.
    #[inline]
    pub fn published(&mut self, used_idx: u16, taken_again: impl Fn(u16) -> bool) {
        if self.batch.is_empty() {
            return;
        }
        for head in self.batch.drain(..) {
            if !taken_again(head) {
                self.region.store_u16(state(head) + INFLIGHT, 0, Ordering::Relaxed);
            }
        }
        self.region.store_u16(USED_IDX, used_idx, Ordering::Release);
    }
}

fn in_flight(region: GuestRange<'_>, head: u16) -> bool {
    region.load_u16(state(head) + INFLIGHT, Ordering::Relaxed).is_some_and(|word| word & 0xff != 0)
}

/// Where the state of the chain that begins at `head` is. Past the region's end for a head that there is not; then nothing is read or
/// written.
fn state(head: u16) -> usize {
    STATES + STATE * usize::from(head)
}
