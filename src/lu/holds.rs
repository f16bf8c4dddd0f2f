//! Holds: what keeps commands waiting that are not refused.
//!
//! Two things hold commands: an ORDERED command holds the task set it is in (SAM-5 8.6), and a command that must be
//! atomic, such as COMPARE AND WRITE, holds its range of blocks for everybody. Holds are cold: a nexus that a hold may concern
//! has [`GateBits::HELD`](super::GateBits) in its gate, and only then is this table looked at, under the unit's lock.

use super::{Extent, NexusId};

/// Names a hold of one unit, in the order in which they were made; never used again. The default names none, and is before all.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct HoldId(u64);

/// Which blocks a command uses.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Touches {
    /// None.
    Nothing,
    /// These.
    Blocks(Extent),
    /// Any that there are.
    Everything,
}

impl Touches {
    /// Whether both use some block.
    pub fn overlaps(self, other: Touches) -> bool {
        match (self, other) {
            (Touches::Nothing, _) | (_, Touches::Nothing) => false,
            (Touches::Everything, _) | (_, Touches::Everything) => true,
            (Touches::Blocks(a), Touches::Blocks(b)) => {
                let (a_end, b_end) = (a.offset.saturating_add(a.len), b.offset.saturating_add(b.len));
                a.offset < b_end && b.offset < a_end
            }
        }
    }
}

/// What a hold stops.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Holding {
    /// Every command of a task set: one nexus's, or everybody's.
    TaskSet(Option<NexusId>),
    /// Commands of everybody that use these blocks.
    Blocks(Extent),
}

impl Holding {
    /// Whether it concerns a nexus at all.
    pub fn concerns(self, nexus: NexusId) -> bool {
        match self {
            Holding::TaskSet(whose) => whose.is_none_or(|held| held == nexus),
            Holding::Blocks(_) => true,
        }
    }

    /// Whether it stops a command of a nexus. HEAD OF QUEUE passes what holds a task set, but not what holds blocks.
    pub fn stops(self, nexus: NexusId, touches: Touches, head_of_queue: bool) -> bool {
        match self {
            Holding::TaskSet(_) => !head_of_queue && self.concerns(nexus),
            Holding::Blocks(extent) => touches.overlaps(Touches::Blocks(extent)),
        }
    }
}

/// The holds of one unit.
#[derive(Debug, Default)]
pub(super) struct Holds {
    last: u64,
    held: Vec<(HoldId, Holding)>,
}

impl Holds {
    /// A new hold.
    pub(super) fn add(&mut self, holding: Holding) -> HoldId {
        self.last += 1;
        let id = HoldId(self.last);
        self.held.push((id, holding));
        id
    }

    /// The last one made.
    pub(super) fn newest(&self) -> HoldId {
        HoldId(self.last)
    }

    /// The oldest of these that holds a task set and is not over.
    pub(super) fn oldest(&self, of: &[HoldId]) -> Option<HoldId> {
        let task_set = |holding: &Holding| matches!(holding, Holding::TaskSet(_));
        self.held.iter().find(|(id, holding)| task_set(holding) && of.contains(id)).map(|(id, _)| *id)
    }

    /// Ends a hold; `None` if it is over.
    pub(super) fn remove(&mut self, id: HoldId) -> Option<Holding> {
        let at = self.held.iter().position(|(held, _)| *held == id)?;
        Some(self.held.remove(at).1)
    }

    /// Whether any hold concerns a nexus.
    pub(super) fn concern(&self, nexus: NexusId) -> bool {
        self.held.iter().any(|(_, holding)| holding.concerns(nexus))
    }

    /// Whether a hold, apart from those in `passes`, stops a command.
    pub(super) fn stop(&self, nexus: NexusId, touches: Touches, head_of_queue: bool, passes: &[HoldId]) -> bool {
        let mut against = self.held.iter().filter(|(id, _)| !passes.contains(id));
        against.any(|(_, holding)| holding.stops(nexus, touches, head_of_queue))
    }
}
