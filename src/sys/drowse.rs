//! What a receiver that sleeps and its senders agree on, so that no wake-up is lost and few are written.
//!
//! The receiver says that it is falling asleep, looks once more at what it waits for, and sleeps until it is woken. A sender
//! puts something there and then asks whether it has to wake. Checked by the models in `tests/loom.rs`.

use crate::sys::sync::{AtomicBool, Ordering, fence};

/// Whether the receiver sleeps, or is about to.
///
/// Every change is a read-modify-write, so that all changes are in one order that does not depend on who looks. (A sequentially
/// consistent store is the same instruction on x86.)
#[derive(Debug)]
pub struct Drowse {
    asleep: AtomicBool,
}

impl Default for Drowse {
    fn default() -> Self {
        Drowse::new()
    }
}

impl Drowse {
    /// The receiver is awake.
    pub fn new() -> Drowse {
        Drowse { asleep: AtomicBool::new(false) }
    }

    /// Called by a sender after it put something where the receiver looks: true if it has to wake it. Of several senders
    /// one has to.
    pub fn must_wake(&self) -> bool {
        // The fence pairs with the one of `fall_asleep`: either the receiver's last look sees what was put, or this load sees it
        // asleep.
        fence(Ordering::SeqCst);
        self.asleep.load(Ordering::SeqCst) && self.asleep.swap(false, Ordering::SeqCst)
    }

    /// Called by the receiver before its last look.
    pub fn fall_asleep(&self) {
        self.asleep.swap(true, Ordering::SeqCst);
        fence(Ordering::SeqCst);
    }

    /// Called by the receiver when it is awake again.
    pub fn awake(&self) {
        self.asleep.swap(false, Ordering::SeqCst);
    }
}
