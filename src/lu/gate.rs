//! The gate of one I_T_L nexus: everything that can stop a command before it starts, in one atomic word.
//!
//! # Contract
//!
//! * [`Gate::admit`] is one load and one mask when nothing is in the way.
//! * A unit attention is taken by compare-and-swap: however many commands arrive at once, on however many threads,
//!   exactly one of them reports it.
//! * Whoever changes the word on the cold path does so with [`Gate::establish`], [`Gate::raise`] and [`Gate::lower`], each
//!   one atomic step; no caller can write a word it read earlier.
//!
//! # The word
//!
//! | bits | meaning |
//! |---|---|
//! | 0–31 | pending unit attentions, [`Attention`]'s discriminants; lowest first |
//! | 32 | deny reads: a persistent reservation keeps this nexus from reading |
//! | 33 | deny writes: likewise from writing |
//! | 34 | deny SPC-2: another nexus holds RESERVE(6) |
//! | 40 | not ready: stopped by START STOP UNIT |
//! | 41–44 | the access state of its target port's group: standby, unavailable, offline, on its way; none of them: active |
//! | 45 | not ready: no medium |
//! | 46 | not ready: the medium is occupied, by FORMAT UNIT or SANITIZE |
//! | 47 | a further not-ready cause |
//! | 48 | held: some hold of the unit may concern this nexus; see [`Holds`](super::Holds) |
//! | 49 | low power: the unit is idle or in standby; stops nothing, but who uses the medium wakes it |
//! | 56 | an ACA condition is established for this nexus |
//! | 57 | interlock: a unit attention stays when it is reported (UA_INTLCK_CTRL 10b and 11b) |
//! | 63 | gone |
//!
//! Unit attentions outlive the process where the unit has a [`Keeper`]: it hears of each change of them, after it was made.
//!
//! Deny bits hold the *outcome* of a reservation for this nexus: whoever changes a reservation computes them for every nexus.
//! Admission orders are acquire, changes are release, so a command that passes sees what was done before its
//! gate was opened.

use std::sync::Arc;

use super::gate_word::GateWord;
use super::{AccessState, Attention, Keeper};

/// A set of gate bits.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct GateBits(u64);

impl GateBits {
    /// Nothing.
    pub const NONE: GateBits = GateBits(0);
    /// All unit attentions.
    pub const ATTENTION: GateBits = GateBits(0xffff_ffff);
    /// A reservation keeps this nexus from reading.
    pub const DENY_READ: GateBits = GateBits(1 << 32);
    /// A reservation keeps this nexus from writing.
    pub const DENY_WRITE: GateBits = GateBits(1 << 33);
    /// RESERVE(6) of another nexus keeps this one from everything that SPC-2 does not exempt.
    pub const DENY_SPC2: GateBits = GateBits(1 << 34);
    /// All denials.
    pub const DENY: GateBits = GateBits(0b111 << 32);
    /// Stopped by START STOP UNIT.
    pub const STOPPED: GateBits = GateBits(1 << 40);
    /// There is no medium in the unit: it was ejected.
    pub const NO_MEDIUM: GateBits = GateBits(1 << 45);
    /// Something is done to the whole medium, or was and failed; the unit says what: FORMAT UNIT, SANITIZE.
    pub const OCCUPIED: GateBits = GateBits(1 << 46);
    /// The nexus's target port is in standby state for the unit.
    pub const STANDBY: GateBits = GateBits(1 << 41);
    /// It is in unavailable state.
    pub const UNAVAILABLE: GateBits = GateBits(1 << 42);
    /// It is offline.
    pub const OFFLINE: GateBits = GateBits(1 << 43);
    /// It is on its way from one access state to another.
    pub const TRANSITIONING: GateBits = GateBits(1 << 44);
    /// All access states that keep commands out.
    pub const ACCESS: GateBits = GateBits(0b1111 << 41);
    /// All not-ready causes apart from access states.
    pub const NOT_READY: GateBits = GateBits(0b1110_0001 << 40);
    /// Of them, those that keep even a unit that need not be started from being used.
    pub const NO_USABLE_MEDIUM: GateBits = GateBits(0b11 << 45);
    /// A hold may stop commands of this nexus: look at the unit's holds.
    pub const HELD: GateBits = GateBits(1 << 48);
    /// The unit is idle or in standby: a command that uses the medium makes it active first.
    pub const LOW_POWER: GateBits = GateBits(1 << 49);
    /// An ACA condition is established for this nexus (SAM-5 5.9).
    pub const ACA: GateBits = GateBits(1 << 56);
    /// Unit attentions that were reported with CHECK CONDITION stay pending; only REQUEST SENSE clears them (SPC-4 7.5.10,
    /// UA_INTLCK_CTRL 10b and 11b). It stops nothing by itself.
    pub const INTERLOCK: GateBits = GateBits(1 << 57);
    /// The nexus has lost the unit.
    pub const GONE: GateBits = GateBits(1 << 63);

    /// Both sets.
    pub const fn and(self, other: GateBits) -> GateBits {
        GateBits(self.0 | other.0)
    }

    /// This set without the bits of `other`.
    pub const fn without(self, other: GateBits) -> GateBits {
        GateBits(self.0 & !other.0)
    }

    /// The bits that both sets have.
    pub const fn common(self, other: GateBits) -> GateBits {
        GateBits(self.0 & other.0)
    }

    /// The bit that stands for an access state; none for the active ones.
    pub const fn of_access(state: AccessState) -> GateBits {
        match state {
            AccessState::ActiveOptimized | AccessState::ActiveNonOptimized => GateBits::NONE,
            AccessState::Standby => GateBits::STANDBY,
            AccessState::Unavailable => GateBits::UNAVAILABLE,
            AccessState::Offline => GateBits::OFFLINE,
            AccessState::Transitioning => GateBits::TRANSITIONING,
        }
    }

    /// The access state that bits stand for; `None` if no state keeps commands out. (While a gate is set there may be two bits.)
    pub fn access_state(self) -> Option<AccessState> {
        use AccessState::*;
        [Transitioning, Offline, Unavailable, Standby].into_iter().find(|&of| self.intersects(GateBits::of_access(of)))
    }

    /// What bits mean for a command when all else lets it pass.
    fn not_ready(self) -> Admission {
        match self.access_state() {
            Some(state) => Admission::Inaccessible(state),
            None if self.intersects(GateBits::OCCUPIED) => Admission::Occupied,
            None if self.intersects(GateBits::NO_MEDIUM) => Admission::NoMedium,
            None => Admission::Stopped,
        }
    }

    /// True if the sets have a bit in common.
    pub const fn intersects(self, other: GateBits) -> bool {
        self.0 & other.0 != 0
    }
}

/// What the gate says to a command.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Admission {
    /// Go on.
    Pass,
    /// The unit is no longer there for this nexus.
    Gone,
    /// An ACA condition is established: end with ACA ACTIVE.
    AcaActive,
    /// Look at the unit's holds; if one stops the command, wait until it is over and ask again.
    Held,
    /// End with this unit attention: it was taken, and this command alone reports it; unless the nexus is interlocked, when every
    /// command does until REQUEST SENSE takes it.
    Attention(Attention),
    /// End with RESERVATION CONFLICT.
    Conflict,
    /// End with NOT READY: the access state of the nexus's target port is this one.
    Inaccessible(AccessState),
    /// End with what the unit says of what is done to its medium.
    Occupied,
    /// End with NOT READY: there is no medium.
    NoMedium,
    /// End with NOT READY: the unit was stopped.
    Stopped,
    /// Go on; the unit is to become active by it.
    LowPower,
}

/// One I_T_L nexus's gate word.
#[derive(Debug, Default)]
pub struct Gate {
    word: GateWord,
    /// Hears of every unit attention that is established or taken.
    keeper: Option<Arc<dyn Keeper>>,
}

const RESET_ATTENTIONS: u64 = Attention::PowerOn.bit() | Attention::LogicalUnitReset.bit() | Attention::NexusLoss.bit();

impl Gate {
    /// An open gate.
    pub fn new() -> Gate {
        Gate::default()
    }

    /// A gate at which these unit attentions are pending; `keeper` hears of others, and when they are taken.
    pub(super) fn kept(pending: &[Attention], keeper: Option<Arc<dyn Keeper>>) -> Gate {
        let word = pending.iter().fold(0, |word, attention| word | attention.bit());
        Gate { word: GateWord::new(word), keeper }
    }

    /// Asks whether a command may go on for which the bits of `mask` matter.
    ///
    /// Where several things stand in its way the order is SAM-5 5.3.3's: gone and held come before any
    /// status; then unit attentions that report a reset; then RESERVATION CONFLICT; then other unit attentions; then access states;
    /// then the rest.
    #[inline]
    pub fn admit(&self, mask: GateBits) -> Admission {
        let word = self.word.read();
        if word & mask.0 == 0 { Admission::Pass } else { self.judge(word, mask) }
    }

    #[cold]
    fn judge(&self, word: u64, mask: GateBits) -> Admission {
        // If somebody else changes the word meanwhile, perhaps takes this very condition, it is judged again.
        match self.word.take(word, |word| verdict(word, mask)) {
            Ok(attention) => {
                self.note();
                Admission::Attention(attention)
            }
            Err(admission) => admission,
        }
    }

    /// Establishes a unit attention condition. One that is pending already stays pending once.
    ///
    /// A reset condition voids everything that was pending before it; if a reset condition of higher precedence is pending,
    /// that one stays and says it all (SAM-5 5.14).
    pub fn establish(&self, attention: Attention) {
        self.word.update(|word| {
            if !attention.is_reset() {
                return word | attention.bit();
            }
            let others = word & !GateBits::ATTENTION.0;
            // Lowest bit: highest precedence of the reset conditions pending and this one.
            let resets = (word & RESET_ATTENTIONS) | attention.bit();
            others | (resets & resets.wrapping_neg())
        });
        self.note();
    }

    /// Takes the pending unit attention of highest precedence, as REQUEST SENSE does.
    pub fn take_attention(&self) -> Option<Attention> {
        let first =
            |word: u64| Attention::first(word & GateBits::ATTENTION.0).map(|first| (first.bit(), first)).ok_or(());
        let taken = self.word.take(self.word.read(), first).ok()?;
        self.note();
        Some(taken)
    }

    /// Clears one unit attention condition without reporting it.
    pub fn clear_attention(&self, attention: Attention) {
        // A load first: the usual case is that there is nothing to clear, and then nothing is written.
        if self.word.read() & attention.bit() != 0 {
            self.word.clear(attention.bit());
            self.note();
        }
    }

    /// The unit attentions that are pending, highest precedence first.
    pub fn pending(&self) -> Vec<Attention> {
        let word = self.word.read();
        Attention::ALL.into_iter().filter(|attention| word & attention.bit() != 0).collect()
    }

    fn note(&self) {
        if let Some(keeper) = &self.keeper {
            keeper.note();
        }
    }

    /// Sets bits that are no unit attentions.
    pub fn raise(&self, bits: GateBits) {
        debug_assert!(!bits.intersects(GateBits::ATTENTION), "unit attentions are established");
        self.word.set(bits.0);
    }

    /// Clears bits that are no unit attentions.
    pub fn lower(&self, bits: GateBits) {
        debug_assert!(!bits.intersects(GateBits::ATTENTION), "unit attentions are taken");
        self.word.clear(bits.0);
    }

    /// The word as it is now.
    pub fn bits(&self) -> GateBits {
        GateBits(self.word.read())
    }
}

/// What a word means for a command: a unit attention that it is to take, or what it is told.
fn verdict(word: u64, mask: GateBits) -> Result<(u64, Attention), Admission> {
    let hit = GateBits(word & mask.0);
    if hit == GateBits::NONE {
        return Err(Admission::Pass);
    }
    if hit == GateBits::LOW_POWER {
        return Err(Admission::LowPower);
    }
    if hit.intersects(GateBits::GONE) {
        return Err(Admission::Gone);
    }
    if hit.intersects(GateBits::ACA) {
        return Err(Admission::AcaActive);
    }
    if hit.intersects(GateBits::HELD) {
        return Err(Admission::Held);
    }
    let attention = Attention::first(hit.0);
    if hit.intersects(GateBits::DENY) && !attention.is_some_and(Attention::is_reset) {
        return Err(Admission::Conflict);
    }
    match attention {
        None => Err(hit.not_ready()),
        Some(attention) if word & GateBits::INTERLOCK.0 != 0 => Err(Admission::Attention(attention)),
        Some(attention) => Ok((attention.bit(), attention)),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::sync::Arc;
    use std::sync::atomic::{AtomicUsize, Ordering};

    const ALL: GateBits = GateBits(u64::MAX);

    fn gate(attentions: &[Attention]) -> Gate {
        let g = Gate::new();
        for a in attentions {
            g.establish(*a);
        }
        g
    }

    #[test]
    fn open_gate_passes() {
        assert_eq!(Gate::new().admit(ALL), Admission::Pass);
        assert_eq!(Gate::new().take_attention(), None);
    }

    #[test]
    fn attentions_come_in_precedence_and_once() {
        let g = gate(&[
            Attention::ReportedLunsChanged,
            Attention::ReservationsPreempted,
            Attention::CapacityChanged,
            Attention::CapacityChanged,
        ]);
        assert_eq!(g.admit(ALL), Admission::Attention(Attention::ReservationsPreempted));
        assert_eq!(g.admit(ALL), Admission::Attention(Attention::CapacityChanged));
        assert_eq!(g.take_attention(), Some(Attention::ReportedLunsChanged));
        assert_eq!(g.admit(ALL), Admission::Pass);
    }

    #[test]
    fn a_mask_without_attentions_neither_reports_nor_clears() {
        let g = gate(&[Attention::PowerOn]);
        assert_eq!(g.admit(GateBits::GONE.and(GateBits::HELD)), Admission::Pass);
        assert_eq!(g.take_attention(), Some(Attention::PowerOn));
    }

    #[test]
    fn a_reset_voids_what_was_pending() {
        let g = gate(&[Attention::CapacityChanged, Attention::NexusLoss]);
        g.raise(GateBits::DENY_WRITE);
        g.establish(Attention::LogicalUnitReset);
        assert_eq!(g.bits(), GateBits(Attention::LogicalUnitReset.bit()).and(GateBits::DENY_WRITE));
        // What comes after the reset is a new condition.
        g.establish(Attention::ModeParametersChanged);
        assert_eq!(g.take_attention(), Some(Attention::LogicalUnitReset));
        assert_eq!(g.take_attention(), Some(Attention::ModeParametersChanged));
        assert_eq!(g.take_attention(), None);
    }

    #[test]
    fn a_lower_reset_hides_behind_a_higher_one() {
        let g = gate(&[Attention::PowerOn, Attention::CapacityChanged, Attention::NexusLoss]);
        assert_eq!(g.take_attention(), Some(Attention::PowerOn));
        assert_eq!(g.take_attention(), None);
    }

    #[test]
    fn access_states_come_before_a_stopped_unit_and_after_attentions() {
        use AccessState::*;
        let g = gate(&[Attention::AccessStateChanged]);
        g.raise(GateBits::STOPPED.and(GateBits::STANDBY));
        assert_eq!(g.admit(ALL), Admission::Attention(Attention::AccessStateChanged));
        assert_eq!(g.admit(ALL), Admission::Inaccessible(Standby));
        assert_eq!(g.admit(GateBits::NOT_READY), Admission::Stopped, "not a matter for this command");
        assert_eq!(g.admit(GateBits::UNAVAILABLE.and(GateBits::OFFLINE)), Admission::Pass);
        for state in [Unavailable, Offline, Transitioning] {
            // What is set first hides what is cleared next.
            g.raise(GateBits::of_access(state));
            assert_eq!(g.admit(ALL), Admission::Inaccessible(state));
        }
        g.lower(GateBits::ACCESS);
        assert_eq!(g.admit(ALL), Admission::Stopped);
        for state in [ActiveOptimized, ActiveNonOptimized] {
            assert_eq!(GateBits::of_access(state), GateBits::NONE);
        }
        assert!(!GateBits::NOT_READY.intersects(GateBits::ACCESS));
    }

    /// SAM-5 5.3.3: reset attentions, then RESERVATION CONFLICT, then other attentions.
    #[test]
    fn status_precedence() {
        let g = gate(&[Attention::PowerOn, Attention::RegistrationsPreempted]);
        g.raise(GateBits::DENY_WRITE.and(GateBits::STOPPED));
        let write = GateBits::ATTENTION.and(GateBits::DENY_WRITE).and(GateBits::NOT_READY);
        let read = GateBits::ATTENTION.and(GateBits::DENY_READ).and(GateBits::NOT_READY);
        assert_eq!(g.admit(write), Admission::Attention(Attention::PowerOn));
        assert_eq!(g.admit(write), Admission::Conflict);
        assert_eq!(g.admit(write), Admission::Conflict, "a conflict does not use the attention up");
        assert_eq!(g.admit(read), Admission::Attention(Attention::RegistrationsPreempted));
        assert_eq!(g.admit(read), Admission::Stopped);
        g.lower(GateBits::STOPPED);
        assert_eq!(g.admit(read), Admission::Pass);
    }

    #[test]
    fn gone_and_held_come_first() {
        let g = gate(&[Attention::PowerOn]);
        g.raise(GateBits::HELD);
        assert_eq!(g.admit(ALL), Admission::Held);
        g.raise(GateBits::ACA);
        assert_eq!(g.admit(ALL), Admission::AcaActive);
        g.raise(GateBits::GONE);
        assert_eq!(g.admit(ALL), Admission::Gone);
        g.lower(GateBits::GONE.and(GateBits::HELD).and(GateBits::ACA));
        assert_eq!(g.admit(ALL), Admission::Attention(Attention::PowerOn), "still there");
    }

    #[test]
    fn one_condition_is_cleared_unreported() {
        let g = gate(&[Attention::ReportedLunsChanged, Attention::CapacityChanged]);
        g.clear_attention(Attention::ReportedLunsChanged);
        g.clear_attention(Attention::PowerOn);
        assert_eq!(g.take_attention(), Some(Attention::CapacityChanged));
        assert_eq!(g.take_attention(), None);
    }

    /// SPC-4 7.5.10, UA_INTLCK_CTRL 10b: CHECK CONDITION does not clear a unit attention, REQUEST SENSE does.
    #[test]
    fn an_interlock_keeps_attentions_until_they_are_asked_for() {
        let g = gate(&[Attention::CapacityChanged, Attention::ModeParametersChanged]);
        g.raise(GateBits::INTERLOCK);
        for _ in 0..3 {
            assert_eq!(g.admit(GateBits::ATTENTION), Admission::Attention(Attention::CapacityChanged));
        }
        assert_eq!(g.admit(GateBits::NOT_READY), Admission::Pass, "it stops nothing by itself");
        assert_eq!(g.take_attention(), Some(Attention::CapacityChanged));
        assert_eq!(g.admit(GateBits::ATTENTION), Admission::Attention(Attention::ModeParametersChanged));
        g.lower(GateBits::INTERLOCK);
        assert_eq!(g.admit(GateBits::ATTENTION), Admission::Attention(Attention::ModeParametersChanged));
        assert_eq!(g.admit(GateBits::ATTENTION), Admission::Pass);
    }

    /// Many threads ask while one establishes: every condition is reported exactly as often as it was established anew.
    #[test]
    fn each_is_reported_exactly_once_under_concurrency() {
        const ROUNDS: usize = 20_000;
        let gate = Arc::new(Gate::new());
        let reported = Arc::new(AtomicUsize::new(0));
        let ended = Arc::new(AtomicUsize::new(0));
        let askers: Vec<_> = (0..3)
            .map(|i| {
                let (gate, reported, ended) = (gate.clone(), reported.clone(), ended.clone());
                std::thread::spawn(move || {
                    loop {
                        let last_look = ended.load(Ordering::Acquire) != 0;
                        let got = match i {
                            0 => gate.take_attention(),
                            _ => match gate.admit(GateBits::ATTENTION) {
                                Admission::Attention(a) => Some(a),
                                _ => None,
                            },
                        };
                        match got {
                            Some(a) => {
                                assert_eq!(a, Attention::CapacityChanged);
                                reported.fetch_add(1, Ordering::AcqRel);
                            }
                            None if last_look => return,
                            None => std::thread::yield_now(),
                        }
                    }
                })
            })
            .collect();
        for round in 0..ROUNDS {
            gate.establish(Attention::CapacityChanged);
            // Unrelated bits change at the same time and must survive.
            gate.raise(GateBits::DENY_READ);
            gate.lower(GateBits::DENY_READ);
            while reported.load(Ordering::Acquire) <= round {
                std::thread::yield_now();
            }
        }
        ended.store(1, Ordering::Release);
        for a in askers {
            a.join().unwrap();
        }
        assert_eq!(reported.load(Ordering::Acquire), ROUNDS);
        assert_eq!(gate.bits(), GateBits::NONE);
    }
}
