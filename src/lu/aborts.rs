//! Whose commands were aborted by others, and when: so that what was in flight then is not carried out after all by a process that is given it
//! once more.
//!
//! PREEMPT AND ABORT (SPC-4 5.13.11.2.6), LOGICAL UNIT RESET and CLEAR TASK SET (SAM-5 7) end commands of other nexuses. A shard ends
//! those that it has. It does not have those that a process before it had taken, which was killed: their initiator's front-end may not be
//! there yet, or it is this process that is killed when the abort is decided on and they have not ended. They come again,
//! and would be carried out when the one that aborted them believes them gone.
//!
//! # Contract
//!
//! * Times are nanoseconds since the host was started. A command that comes again brings with it when it was taken, or a moment before that,
//!   but after any abort before it. So one that was taken before the last abort of its nexus was in flight then.
//! * An abort that is part of a change is kept with it, in one write. The others are kept soon.
//! * Nothing need be forgotten: commands that were taken later are not concerned. One time is kept for each nexus.

use super::{KeptAbort, Lu, NexusId};
use crate::sys::clock;

/// How many nexuses are remembered; then the oldest abort of one becomes everybody's.
const MAX: usize = 1024;

/// Aborts of one unit.
#[derive(Debug, Default)]
pub(super) struct Aborts {
    /// The last one of all commands; 0: there was none.
    everybody: u64,
    /// The last one of each nexus, if it is later than that.
    nexuses: Vec<(NexusId, u64)>,
}

impl Aborts {
    pub(super) fn after(kept: &[KeptAbort]) -> Aborts {
        let mut aborts = Aborts::default();
        kept.iter().for_each(|abort| aborts.add(abort.nexus, abort.at));
        aborts
    }

    pub(super) fn add(&mut self, nexus: Option<NexusId>, at: u64) {
        match nexus {
            None => self.everybody = self.everybody.max(at),
            Some(nexus) => match self.nexuses.iter_mut().find(|(of, _)| *of == nexus) {
                Some((_, last)) => *last = at.max(*last),
                None => self.nexuses.push((nexus, at)),
            },
        }
        if self.nexuses.len() > MAX
            && let Some(oldest) = self.nexuses.iter().map(|(_, at)| *at).min()
        {
            self.everybody = self.everybody.max(oldest);
        }
        // What came before the last one of all says no more.
        self.nexuses.retain(|(_, at)| *at > self.everybody);
    }

    pub(super) fn kept(&self) -> Vec<KeptAbort> {
        let everybody = (self.everybody > 0).then_some(KeptAbort { nexus: None, at: self.everybody });
        let nexuses = self.nexuses.iter().map(|&(nexus, at)| KeptAbort { nexus: Some(nexus), at });
        everybody.into_iter().chain(nexuses).collect()
    }

    fn ended(&self, nexus: NexusId, taken: u64) -> Option<Aborted> {
        match self.nexuses.iter().find(|(of, _)| *of == nexus) {
            Some((_, at)) if taken < *at => Some(Aborted::ByPreempting),
            _ => (taken < self.everybody).then_some(Aborted::WithTheUnit),
        }
    }
}

/// How a command was aborted.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Aborted {
    /// Its nexus was preempted.
    ByPreempting,
    /// All commands of the unit were.
    WithTheUnit,
}

impl Lu {
    /// All commands are aborted that any nexus has in flight, also those that come again only now.
    pub fn abort_all(&self) {
        self.cold().aborts.add(None, clock::nanoseconds_since_boot());
        self.note();
    }

    /// Whether a command of `nexus` that a process before this one took was aborted since, and how. `taken` is when: nanoseconds
    /// since the host was started.
    pub fn was_aborted(&self, nexus: NexusId, taken: u64) -> Option<Aborted> {
        self.cold().aborts.ended(nexus, taken)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn nexus(n: u8) -> NexusId {
        NexusId { initiator: [n; 16], port: 1 }
    }

    #[test]
    fn what_was_taken_before_the_last_abort_was_aborted() {
        let mut aborts = Aborts::default();
        assert_eq!(aborts.ended(nexus(1), 0), None);
        aborts.add(Some(nexus(1)), 100);
        assert_eq!(aborts.ended(nexus(1), 99), Some(Aborted::ByPreempting));
        assert_eq!((aborts.ended(nexus(1), 100), aborts.ended(nexus(2), 99)), (None, None));
        aborts.add(None, 200);
        for n in [1, 2] {
            assert_eq!(aborts.ended(nexus(n), 199), Some(Aborted::WithTheUnit));
            assert_eq!(aborts.ended(nexus(n), 200), None);
        }
        assert_eq!(aborts.kept(), [KeptAbort { nexus: None, at: 200 }], "the earlier one says no more");
        aborts.add(Some(nexus(2)), 300);
        aborts.add(Some(nexus(2)), 250);
        let again = Aborts::after(&aborts.kept());
        assert_eq!(again.kept(), aborts.kept());
        assert_eq!(again.ended(nexus(2), 299), Some(Aborted::ByPreempting));
        assert_eq!((again.ended(nexus(2), 300), again.ended(nexus(1), 299)), (None, None));
    }

    /// However many: what is forgotten of one is said of all, so that nothing that was aborted is carried out.
    #[test]
    fn they_are_not_without_end() {
        let mut aborts = Aborts::default();
        let id = |n: u64| NexusId { initiator: u128::from(n).to_be_bytes(), port: 1 };
        for n in 0..3000 {
            aborts.add(Some(id(n)), 1000 + n);
            assert!(aborts.kept().len() <= MAX + 1);
        }
        for n in 0..3000 {
            assert!(aborts.ended(id(n), 999 + n).is_some(), "{n}");
            assert_eq!(aborts.ended(id(n), 4000), None);
        }
    }
}
