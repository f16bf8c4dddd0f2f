//! Watches: who relies on blocks to stay as they are hears before they change.
//!
//! # Contract
//!
//! * Whoever is about to change blocks of a unit says so first, with [`Lu::will_change`]; for a unit that nobody watches that is one load.
//! * A [`Watch`] begins to see changes with the next command that starts after [`Lu::watch`]. Those under way are for whoever watches to
//!   wait for.
//! * Once blocks of it may have changed a watch is [disturbed](Watch::is_disturbed), for good. Who read blocks and then finds the
//!   watch undisturbed read them as they were when it began.
//! * A medium that is ejected may be another one when it comes back: that disturbs all.
//! * A unit forgets watches that nobody has any more.

use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Weak};

use super::unit::Cold;
use super::{Extent, Lu, Touches};

/// Someone's interest in blocks of a unit.
#[derive(Debug)]
pub struct Watch {
    extents: Vec<Extent>,
    disturbed: AtomicBool,
}

impl Watch {
    /// The blocks.
    pub fn extents(&self) -> &[Extent] {
        &self.extents
    }

    /// Whether some of them may have changed.
    pub fn is_disturbed(&self) -> bool {
        self.disturbed.load(Ordering::SeqCst)
    }
}

/// The watches of one unit.
#[derive(Debug, Default)]
pub(super) struct Watches(Vec<Weak<Watch>>);

impl Lu {
    /// Watches blocks from now on.
    pub fn watch(&self, extents: Vec<Extent>) -> Arc<Watch> {
        let watch = Arc::new(Watch { extents, disturbed: AtomicBool::new(false) });
        let mut cold = self.cold();
        cold.watches.0.push(Arc::downgrade(&watch));
        self.watched.store(true, Ordering::SeqCst);
        watch
    }

    /// Blocks are about to be changed, by a command that has been admitted and has not begun.
    #[inline]
    pub fn will_change(&self, touches: Touches) {
        if self.watched.load(Ordering::SeqCst) {
            self.disturb(touches);
        }
    }

    #[cold]
    fn disturb(&self, touches: Touches) {
        let mut cold = self.cold();
        self.disturb_under_lock(&mut cold, touches);
    }

    /// The same for who has the unit's lock.
    pub(super) fn disturb_under_lock(&self, cold: &mut Cold, touches: Touches) {
        let watches = &mut cold.watches.0;
        watches.retain(|watch| {
            let Some(watch) = watch.upgrade() else { return false };
            let hit = watch.extents.iter().any(|extent| touches.overlaps(Touches::Blocks(*extent)));
            if hit {
                watch.disturbed.store(true, Ordering::SeqCst);
            }
            !hit
        });
        if watches.is_empty() {
            self.watched.store(false, Ordering::SeqCst);
        }
    }

    /// Whether changes are looked at.
    #[cfg(test)]
    pub(crate) fn is_watched(&self) -> bool {
        self.watched.load(Ordering::SeqCst)
    }
}
