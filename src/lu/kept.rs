//! What of a unit outlives the process, as plain data, and the seam to who keeps it.

use super::reservation::ReservationState;
use super::{AccessState, Attention, IdentifyingInformation, NexusId, Occupation, SelfTestResult};
use crate::scsi::spc::{LogErrors, ModeState};

/// Everything of one unit that the next process goes on with.
///
/// What is not in here ends with the process: commands, holds, ACA conditions, statistics, and data buffers.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct KeptState {
    /// Mode parameters.
    pub mode: KeptMode,
    /// Capacity in blocks as initiators know it; 0: not known.
    pub blocks: u64,
    /// The medium is out.
    pub ejected: bool,
    /// Reservations.
    pub reservations: ReservationState,
    /// Access states of target port groups; those of groups that are not named are as configured.
    pub access: Vec<KeptAccess>,
    /// What initiators left with it.
    pub records: KeptRecords,
    /// What is, or was, done to the whole medium.
    pub occupation: Option<Occupation>,
    /// The last named change of each process that made some, oldest process first.
    pub changes: Vec<KeptChanges>,
    /// Whose commands were aborted, and when.
    pub aborts: Vec<KeptAbort>,
    /// The nexuses that there are, and what waits for those that there are not.
    pub nexuses: Vec<KeptNexus>,
}

/// Commands were aborted at the instance of another nexus: those that were in flight then are not carried out by a later process that
/// is given them once more.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct KeptAbort {
    /// Whose; `None`: everybody's.
    pub nexus: Option<NexusId>,
    /// When: nanoseconds since the host was started.
    pub at: u64,
}

/// Named changes that are in a state: all of one process up to a count. See [`ChangeName`](super::ChangeName).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct KeptChanges {
    /// Which process.
    pub epoch: u32,
    /// The last one.
    pub made: u32,
}

/// What initiators leave with a unit besides data on its medium, and what it counted.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct KeptRecords {
    /// What SET IDENTIFYING INFORMATION set.
    pub identifying: IdentifyingInformation,
    /// What SET TIMESTAMP set.
    pub clock: Option<KeptClock>,
    /// How often it was stopped.
    pub cycles: u32,
    /// Error counters.
    pub errors: LogErrors,
    /// Results of the last self-tests, newest first.
    pub self_tests: Vec<SelfTestResult>,
    /// Hours that it was served for.
    pub hours: u32,
    /// Its threshold is reached, and whoever was there was told.
    pub threshold_reached: bool,
    /// Writes that were to be durable may be lost, and whoever flushed was told.
    pub lost_writes: bool,
}

/// A clock that was set.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct KeptClock {
    /// To how many milliseconds since 1970.
    pub milliseconds: u64,
    /// When: milliseconds since the host was started.
    pub since_boot: u64,
}

/// Mode parameters, and what they would be had nobody changed them: so it shows which of them somebody did.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct KeptMode {
    /// The current ones.
    pub current: ModeState,
    /// The defaults, as they were configured then.
    pub default: ModeState,
    /// What MODE SELECT with SP saved; `None`: nobody saved any.
    pub saved: Option<ModeState>,
}

/// What a MODE SELECT makes of a unit's mode parameters.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ModeChange {
    /// The current ones from then on.
    pub mode: ModeState,
    /// SP: they are the saved ones, too.
    pub save: bool,
}

/// A nexus, as one unit remembers it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct KeptNexus {
    /// Which.
    pub nexus: NexusId,
    /// It is there. Otherwise it was lost, or was never there, and this waits for it.
    pub present: bool,
    /// Pending unit attentions, highest precedence first.
    pub attentions: Vec<Attention>,
    /// PREVENT of PREVENT ALLOW MEDIUM REMOVAL.
    pub prevent: bool,
}

/// The access state of a target port group, and what it would be had nobody changed it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct KeptAccess {
    /// TARGET PORT GROUP.
    pub group: u16,
    /// The current state.
    pub current: AccessState,
    /// The default, as it was configured then.
    pub default: AccessState,
}

impl KeptState {
    /// That of a unit nobody ever used.
    pub fn new(default: ModeState) -> KeptState {
        KeptState {
            mode: KeptMode { current: default, default, saved: None },
            blocks: 0,
            ejected: false,
            reservations: ReservationState::default(),
            access: Vec::new(),
            records: KeptRecords::default(),
            occupation: None,
            changes: Vec::new(),
            aborts: Vec::new(),
            nexuses: Vec::new(),
        }
    }

    /// What is left after a loss of power: what APTPL preserves, mode parameters that were saved, what initiators left, but for the
    /// clock, and what was done to the whole medium. Every nexus is new.
    pub fn after_power_loss(self) -> KeptState {
        let KeptMode { default, saved, .. } = self.mode;
        KeptState {
            mode: KeptMode { current: saved.unwrap_or(default), default, saved },
            reservations: self.reservations.after_power_loss(),
            records: KeptRecords { clock: None, threshold_reached: false, lost_writes: false, ..self.records },
            occupation: self.occupation.map(Occupation::after_power_loss),
            ..KeptState::new(default)
        }
    }
}

impl KeptState {
    /// What goes on where its guests have migrated to another host: everything but what counts from the host's start, which are the clock, and
    /// aborts of commands (no guest that migrates leaves any behind).
    pub fn on_another_host(self) -> KeptState {
        KeptState { records: KeptRecords { clock: None, ..self.records }, aborts: Vec::new(), ..self }
    }
}

impl KeptMode {
    /// The current parameters to go on with where other defaults are configured now: what an initiator chose stays, whatever it left
    /// alone follows the configuration.
    pub fn under(self, now: ModeState) -> ModeState {
        follow(self.current, self.default, now)
    }

    /// The same for the saved ones.
    pub fn saved_under(self, now: ModeState) -> Option<ModeState> {
        Some(follow(self.saved?, self.default, now))
    }
}

/// What becomes of a state under which the defaults change from `then` to `now`.
fn follow(state: ModeState, then: ModeState, now: ModeState) -> ModeState {
    fn pick<T: PartialEq>(current: T, then: T, now: T) -> T {
        if current == then { now } else { current }
    }
    // Field by field, so that one that is added has to be thought of.
    let ModeState { d_sense, swp, wce, tst, qerr, ua_intlck, tas, lbpere, threshold } = state;
    ModeState {
        d_sense: pick(d_sense, then.d_sense, now.d_sense),
        swp: pick(swp, then.swp, now.swp),
        wce: pick(wce, then.wce, now.wce),
        tst: pick(tst, then.tst, now.tst),
        qerr: pick(qerr, then.qerr, now.qerr),
        ua_intlck: pick(ua_intlck, then.ua_intlck, now.ua_intlck),
        tas: pick(tas, then.tas, now.tas),
        lbpere: pick(lbpere, then.lbpere, now.lbpere),
        threshold: pick(threshold, then.threshold, now.threshold),
    }
}

/// A unit's state could not be kept.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum KeepError {
    /// It could not be written.
    #[error("{0}")]
    Write(String),
    /// The process ends; nothing is kept any more.
    #[error("the unit's state is closed")]
    Closed,
}

/// Keeps one unit's state.
pub trait Keeper: Send + Sync + std::fmt::Debug {
    /// Writes the state; it is durable when this returns. Calls come one at a time, each with a newer state than the one
    /// before. May wait, so never to be called on a reactor.
    ///
    /// # Errors
    ///
    /// What was kept before is kept still.
    fn keep(&self, state: &KeptState) -> Result<(), KeepError>;

    /// Something changed that is to be kept soon: [`Lu::persist`](super::Lu::persist) is to be called. Neither waits nor locks, and
    /// is cheap when it was called just before. Called after the change.
    fn note(&self);

    /// Whether what is kept is still there after a loss of power (PTPL_C in REPORT CAPABILITIES, SPC-4 6.15.4).
    fn survives_power_loss(&self) -> bool;
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::lu::reservation::{PersistentReservation, Registration, ReservationType};

    #[test]
    fn what_nobody_changed_follows_the_configuration() {
        let then = ModeState::default();
        let now = ModeState { wce: false, d_sense: true, ..then };
        assert_eq!(KeptMode { current: then, default: then, saved: None }.under(now), now);
        let chosen = ModeState { swp: true, qerr: 3, wce: false, ..then };
        let kept = KeptMode { current: chosen, default: then, saved: None };
        assert_eq!((kept.under(then), kept.saved_under(now)), (chosen, None));
        let kept = KeptMode { saved: Some(chosen), ..kept };
        assert_eq!(kept.saved_under(now), Some(ModeState { d_sense: true, ..chosen }));
        assert_eq!(kept.under(now), ModeState { d_sense: true, ..chosen });
    }

    /// SPC-4 5.13.5.1: with APTPL registrations and reservation stay, PRGENERATION starts again; the rest is as new.
    #[test]
    fn a_loss_of_power_leaves_what_aptpl_preserves() {
        let nexus = NexusId { initiator: [7; 16], port: 1 };
        let default = ModeState::default();
        let state = |aptpl| KeptState {
            mode: KeptMode { current: ModeState { swp: true, ..default }, default, saved: None },
            blocks: 5,
            ejected: true,
            reservations: ReservationState {
                generation: 9,
                registrations: vec![Registration { nexus, key: 3 }],
                reservation: Some(PersistentReservation { kind: ReservationType::WriteExclusive, holder: Some(nexus) }),
                aptpl,
                legacy: None,
            },
            records: KeptRecords {
                clock: Some(KeptClock { milliseconds: 1, since_boot: 2 }),
                cycles: 3,
                threshold_reached: true,
                lost_writes: true,
                ..KeptRecords::default()
            },
            occupation: None,
            changes: vec![KeptChanges { epoch: 1, made: 2 }],
            aborts: vec![KeptAbort { nexus: Some(nexus), at: 5 }],
            access: vec![KeptAccess { group: 1, current: AccessState::Standby, default: AccessState::ActiveOptimized }],
            nexuses: vec![KeptNexus {
                nexus,
                present: true,
                attentions: vec![Attention::CapacityChanged],
                prevent: true,
            }],
        };
        let records = KeptRecords { cycles: 3, ..KeptRecords::default() };
        let new = || KeptState { records: records.clone(), ..KeptState::new(default) };
        assert_eq!(state(false).after_power_loss(), new());
        let left = state(true).after_power_loss();
        let reservations = ReservationState { generation: 0, ..state(true).reservations };
        assert_eq!(left, KeptState { reservations, ..new() });
        let saved = ModeState { wce: false, ..default };
        let left = KeptState { mode: KeptMode { saved: Some(saved), ..state(false).mode }, ..state(false) };
        let mode = KeptMode { current: saved, default, saved: Some(saved) };
        assert_eq!(left.after_power_loss(), KeptState { mode, ..new() });
    }
}
