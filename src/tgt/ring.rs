//! The two event rings of a reactor.
//!
//! # What is promised, and how it is kept
//!
//! A ring has [`RING_SLOTS`] slots: 64 KiB of `struct tgt_event`, as in tgt. A reactor may have far more commands in
//! flight than that (254 queues of 1024 each, per guest), so a slot cannot be held for the life of a command. What is counted
//! instead is the *turn*: everything that is in a ring now, or was just taken from rx and will come back as its
//! `CMD_DONE`. A request is admitted only while that count is below the number of slots ([`RingFull`] otherwise: the
//! sender drains the rings and asks again; requests stay where they are, in the virtqueue). Since an answered request
//! moves on as one event (request → answer → done), no ring can fill by the requests of a turn alone.
//!
//! What can come on top are answers to commands of earlier turns (completions, aborted tasks). Their number is bounded by the
//! commands accepted and not yet answered; when a ring has no slot for them they wait in order behind it, in a reserve
//! that grows to what it needs and is given back when it is empty. While anything waits there, requests are refused. So
//! an answer and a `CMD_DONE` can always be posted, events of a ring are taken in the order they were posted,
//! nothing is lost, nobody waits for a slot while holding one (no deadlock), and memory is bounded by the
//! descriptors of the open queues. A reactor that drains rx in every turn and keeps its reaping below
//! [`EventRings::room`] never uses the reserve.
//!
//! Single-threaded: a reactor owns its rings.

use std::collections::VecDeque;

use super::{CmdAnswer, CmdData, CmdDone, EVENT_SIZE, KEvent, UEvent};

/// Slots per ring: 64 KiB of events.
pub const RING_SLOTS: usize = 65536 / EVENT_SIZE;

/// A slot of the tx ring (hba → target).
#[derive(Debug)]
pub struct TxSlot {
    /// The event.
    pub event: KEvent,
    /// With `CMD_REQ`: the command's data.
    pub data: Option<CmdData>,
}

/// A slot of the rx ring (target → hba).
#[derive(Debug)]
pub struct RxSlot {
    /// The event.
    pub event: UEvent,
    /// With `CMD_RSP`: what comes back with it.
    pub answer: Option<CmdAnswer>,
}

/// The ring has no room for another request and its answer. Nothing was taken: ask again after some answers.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("event ring full")]
pub struct RingFull;

/// Sees every event when it is posted, in order: trace, recording, tests.
pub trait Tap: Send {
    /// An event went hba → target.
    fn tx(&mut self, event: &KEvent);
    /// An event went target → hba.
    fn rx(&mut self, event: &UEvent);
}

/// What went through a reactor's rings since it began.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct RingCounters {
    /// Requests accepted (`CMD_REQ`, `IT_NEXUS_REQ`, `TSK_MGMT_REQ`, `ASYNC_REQ`).
    pub requests: u64,
    /// Requests refused with [`RingFull`].
    pub refused: u64,
    /// Answers posted.
    pub answers: u64,
    /// Asynchronous events posted.
    pub events: u64,
    /// `CMD_DONE`s posted.
    pub dones: u64,
    /// Events that had to wait behind a full ring.
    pub spilled: u64,
    /// Answers that no request was waiting for, and `CMD_DONE`s of no `CMD_RSP`: always 0 in a correct program.
    pub unexpected: u64,
}

/// One ring: fixed slots, and what waits behind them. What travels beside events has a queue of its own, in the same order: many events have
/// nothing beside them, and small things are moved fast.
#[derive(Debug)]
struct Ring<E, D> {
    /// Events, and whether something is beside them.
    slots: VecDeque<(E, bool)>,
    reserve: VecDeque<(E, bool)>,
    beside: VecDeque<D>,
}

impl<E, D> Ring<E, D> {
    fn new() -> Ring<E, D> {
        Ring { slots: VecDeque::with_capacity(RING_SLOTS), reserve: VecDeque::new(), beside: VecDeque::new() }
    }

    fn len(&self) -> usize {
        self.slots.len() + self.reserve.len()
    }

    /// Puts an event behind all others; true if it had to wait behind the ring.
    #[inline]
    fn push(&mut self, event: E, beside: Option<D>) -> bool {
        let spill = self.slots.len() >= RING_SLOTS;
        let slots = if spill { &mut self.reserve } else { &mut self.slots };
        slots.push_back((event, beside.is_some()));
        if let Some(beside) = beside {
            self.beside.push_back(beside);
        }
        spill
    }

    #[inline]
    fn pop(&mut self) -> Option<(E, Option<D>)> {
        let (event, has) = self.slots.pop_front()?;
        let beside = if has { self.beside.pop_front() } else { None };
        if !self.reserve.is_empty() {
            self.refill();
        } else if self.slots.is_empty() {
            // An empty ring begins at its first slot again: few events at a time stay in few cache lines.
            self.slots.clear();
            self.beside.clear();
        }
        Some((event, beside))
    }

    #[cold]
    fn refill(&mut self) {
        self.slots.extend(self.reserve.pop_front());
        if self.reserve.is_empty() {
            // They were as many as there will seldom be again.
            self.reserve = VecDeque::new();
            self.beside.shrink_to(RING_SLOTS);
        }
    }
}

/// The tx ring (hba → target) and the rx ring (target → hba) of one reactor.
pub struct EventRings {
    tx: Ring<KEvent, CmdData>,
    rx: Ring<UEvent, CmdAnswer>,
    /// `CMD_RSP`s taken from rx whose `CMD_DONE` has not been posted.
    owed_dones: usize,
    /// Requests accepted and not answered.
    unanswered: usize,
    counters: RingCounters,
    tap: Option<Box<dyn Tap>>,
}

impl std::fmt::Debug for EventRings {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("EventRings")
            .field("tx", &self.tx.len())
            .field("rx", &self.rx.len())
            .field("owed_dones", &self.owed_dones)
            .field("unanswered", &self.unanswered)
            .field("counters", &self.counters)
            .finish_non_exhaustive()
    }
}

impl Default for EventRings {
    fn default() -> Self {
        EventRings::new()
    }
}

impl EventRings {
    /// Two empty rings.
    pub fn new() -> EventRings {
        EventRings {
            tx: Ring::new(),
            rx: Ring::new(),
            owed_dones: 0,
            unanswered: 0,
            counters: RingCounters::default(),
            tap: None,
        }
    }

    /// Lets `tap` see every event from now on; `None` takes it away.
    pub fn set_tap(&mut self, tap: Option<Box<dyn Tap>>) {
        self.tap = tap;
    }

    /// How many more requests this turn can take.
    pub fn room(&self) -> usize {
        RING_SLOTS.saturating_sub(self.in_turn())
    }

    /// Posts `CMD_REQ`, `IT_NEXUS_REQ`, `TSK_MGMT_REQ` or `ASYNC_REQ`, or gives it back. (A `CMD_DONE` given here is posted as by
    /// [`EventRings::post_done`].)
    pub fn post_request(&mut self, slot: TxSlot) -> Result<(), (TxSlot, RingFull)> {
        if let KEvent::CmdDone(done) = slot.event {
            self.post_done(done);
            return Ok(());
        }
        if self.in_turn() >= RING_SLOTS {
            self.counters.refused += 1;
            return Err((slot, RingFull));
        }
        self.counters.requests += 1;
        self.unanswered += 1;
        self.push_tx(slot.event, slot.data);
        Ok(())
    }

    /// Posts the `CMD_DONE` of a `CMD_RSP` that was taken. Cannot fail.
    pub fn post_done(&mut self, done: CmdDone) {
        debug_assert!(self.owed_dones > 0, "CMD_DONE without a CMD_RSP: {done:?}");
        if self.owed_dones == 0 {
            self.counters.unexpected += 1;
        }
        self.owed_dones = self.owed_dones.saturating_sub(1);
        self.counters.dones += 1;
        self.push_tx(KEvent::CmdDone(done), None);
    }

    /// The next event for the target.
    #[inline]
    pub fn take_tx(&mut self) -> Option<TxSlot> {
        let (event, data) = self.tx.pop()?;
        Some(TxSlot { event, data })
    }

    /// Posts an asynchronous event, which answers nothing and is not answered. Cannot fail: whoever posts them bounds how many there
    /// are at one time.
    pub fn post_event(&mut self, slot: RxSlot) {
        self.counters.events += 1;
        self.push_rx(slot);
    }

    /// Posts the answer to a request that was taken, now or in an earlier turn. Cannot fail.
    pub fn post_answer(&mut self, slot: RxSlot) {
        debug_assert!(self.unanswered > 0, "answer without a request: {:?}", slot.event);
        if self.unanswered == 0 {
            self.counters.unexpected += 1;
        }
        self.unanswered = self.unanswered.saturating_sub(1);
        self.counters.answers += 1;
        self.push_rx(slot);
    }

    fn push_rx(&mut self, slot: RxSlot) {
        if let Some(tap) = &mut self.tap {
            tap.rx(&slot.event);
        }
        if self.rx.push(slot.event, slot.answer) {
            self.counters.spilled += 1;
        }
    }

    /// The next event for the hba. Each `CMD_RSP` taken must be followed by its `CMD_DONE`.
    pub fn take_rx(&mut self) -> Option<RxSlot> {
        let (event, answer) = self.rx.pop()?;
        if matches!(event, UEvent::CmdRsp(_)) {
            self.owed_dones += 1;
        }
        Some(RxSlot { event, answer })
    }

    /// True if both rings are empty and no `CMD_DONE` is owed.
    pub fn is_idle(&self) -> bool {
        self.in_turn() == 0
    }

    /// Requests accepted and not answered yet.
    pub fn unanswered(&self) -> usize {
        self.unanswered
    }

    /// What went through.
    pub fn counters(&self) -> RingCounters {
        self.counters
    }

    fn in_turn(&self) -> usize {
        self.tx.len() + self.rx.len() + self.owed_dones
    }

    fn push_tx(&mut self, event: KEvent, data: Option<CmdData>) {
        if let Some(tap) = &mut self.tap {
            tap.tx(&event);
        }
        if self.tx.push(event, data) {
            self.counters.spilled += 1;
        }
    }
}

#[cfg(test)]
#[path = "ring_tests.rs"]
mod tests;
