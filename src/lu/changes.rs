//! Names for changes of a unit, so that after a kill it can be told whether one was made.
//!
//! A command that changes what is kept (PERSISTENT RESERVE OUT, MODE SELECT and others) is answered only when the change is
//! written down. If the process is killed between the two, its successor gets the command once more and must not carry it out a second
//! time: the reservation key that it names may be gone by its own doing. So whoever keeps notes of commands takes a name for the
//! change, writes it into its note, and only then lets the change be evaluated; and what is written down says which changes are in
//! it.
//!
//! # Contract
//!
//! * A name is an *epoch*, a random number for each process that goes on with a unit, and a count within it. Counts are never used
//!   again, whatever became of the change.
//! * A [`snapshot`](Lu::snapshot) has the count of the last change of each epoch that is in it. Changes are made one at a time, so all
//!   before that were made, or ended without being made, and then their commands have been answered or their notes taken back.
//! * Whether the change on its way is in a snapshot follows it under the unit's lock: from the moment in which it is evaluated
//!   until it is abandoned, see [`Changes::evaluated`] and [`Changes::abandoned`].
//! * [`Lu::was_made`] is about changes of processes before this one. Those of this process have been answered by it.

use super::{KeptChanges, Lu};
use crate::sys::random;

/// How many epochs are remembered: a front-end that was away while so many processes made changes has its command carried out
/// anew.
const MAX_EPOCHS: usize = 256;

/// Names one change of one unit.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ChangeName {
    /// Which process; not 0.
    pub epoch: u32,
    /// Which of its changes.
    pub count: u32,
}

/// The change on its way, if it has a name.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
enum OnItsWay {
    #[default]
    None,
    /// It is not evaluated, or it is not going to be made: it is not in a snapshot.
    Expected(u32),
    /// What is kept of the unit has it.
    Evaluated(u32),
}

/// Which changes were made.
#[derive(Debug, Default)]
pub(super) struct Changes {
    epoch: u32,
    /// The last count that was given away.
    count: u32,
    /// The last change of this epoch that was made; 0: none.
    made: u32,
    on_its_way: OnItsWay,
    /// Those of earlier epochs, the oldest first.
    earlier: Vec<KeptChanges>,
}

impl Changes {
    /// A new epoch after those that were kept.
    pub(super) fn after(earlier: &[KeptChanges]) -> Changes {
        let skip = earlier.len().saturating_sub(MAX_EPOCHS - 1);
        let earlier = earlier.get(skip..).unwrap_or_default().to_vec();
        Changes { epoch: new_epoch(&earlier), count: 0, made: 0, on_its_way: OnItsWay::None, earlier }
    }

    /// For a snapshot.
    pub(super) fn kept(&self) -> Vec<KeptChanges> {
        let made = match self.on_its_way {
            OnItsWay::Evaluated(count) => count,
            OnItsWay::None | OnItsWay::Expected(_) => self.made,
        };
        let this = (made != 0).then_some(KeptChanges { epoch: self.epoch, made });
        self.earlier.iter().copied().chain(this).collect()
    }

    /// The unit expects a change from now on: to be called under the same lock.
    pub(super) fn evaluated(&mut self) {
        if let OnItsWay::Expected(count) = self.on_its_way {
            self.on_its_way = OnItsWay::Evaluated(count);
        }
    }

    /// The unit expects it no more.
    pub(super) fn abandoned(&mut self) {
        if let OnItsWay::Evaluated(count) = self.on_its_way {
            self.on_its_way = OnItsWay::Expected(count);
        }
    }
}

/// One that none of those had. Without random numbers the clock would be no better than to count.
fn new_epoch(earlier: &[KeptChanges]) -> u32 {
    let mut bytes = [0; 4];
    if let Err(e) = random::fill(&mut bytes) {
        log::warn!("no random number for a unit's changes: {e}");
    }
    let mut epoch = u32::from_le_bytes(bytes).max(1);
    while earlier.iter().any(|kept| kept.epoch == epoch) {
        epoch = epoch.checked_add(1).unwrap_or(1);
    }
    epoch
}

impl Lu {
    /// A change is about to be evaluated: its name. `None` if nothing is kept of this unit, so that no successor could say
    /// whether it was made.
    pub fn expect_change(&self) -> Option<ChangeName> {
        self.keeper()?;
        let changes = &mut self.cold().changes;
        changes.count = changes.count.checked_add(1)?;
        changes.on_its_way = OnItsWay::Expected(changes.count);
        Some(ChangeName { epoch: changes.epoch, count: changes.count })
    }

    /// What became of the change that has a name: it was made (applied), or it never will be. In the latter case nobody may look for
    /// it any more.
    pub fn change_is_over(&self, made: bool) {
        let changes = &mut self.cold().changes;
        if let OnItsWay::Expected(count) | OnItsWay::Evaluated(count) = std::mem::take(&mut changes.on_its_way)
            && made
        {
            changes.made = count;
        }
    }

    /// Whether a change that a process before this one gave a name is in what this one goes on with.
    pub fn was_made(&self, name: ChangeName) -> bool {
        let cold = self.cold();
        cold.changes.earlier.iter().any(|kept| kept.epoch == name.epoch && name.count <= kept.made)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn kept(epoch: u32, made: u32) -> KeptChanges {
        KeptChanges { epoch, made }
    }

    fn expect(changes: &mut Changes) {
        changes.count += 1;
        changes.on_its_way = OnItsWay::Expected(changes.count);
    }

    #[test]
    fn a_change_is_in_what_is_kept_from_its_evaluation_on() {
        let mut changes = Changes::after(&[kept(7, 3)]);
        let epoch = changes.epoch;
        assert_eq!(changes.kept(), [kept(7, 3)]);
        expect(&mut changes);
        assert_eq!(changes.kept(), [kept(7, 3)], "expected");
        changes.evaluated();
        assert_eq!(changes.kept(), [kept(7, 3), kept(epoch, 1)]);
        changes.abandoned();
        assert_eq!(changes.kept(), [kept(7, 3)], "abandoned");
        // Its count is not given again.
        expect(&mut changes);
        changes.evaluated();
        assert_eq!(changes.kept(), [kept(7, 3), kept(epoch, 2)]);
    }

    #[test]
    fn one_without_a_name_changes_nothing() {
        let mut changes = Changes::after(&[]);
        changes.evaluated();
        changes.abandoned();
        assert_eq!(changes.kept(), []);
    }

    #[test]
    fn the_oldest_epochs_are_forgotten() {
        let many: Vec<_> = (1..=1000).map(|epoch| kept(epoch, 1)).collect();
        let changes = Changes::after(&many);
        assert_eq!(changes.kept().len(), MAX_EPOCHS - 1);
        assert_eq!(changes.kept().last(), Some(&kept(1000, 1)));
        assert!(changes.epoch != 0 && !many.contains(&kept(changes.epoch, 1)));
    }
}
