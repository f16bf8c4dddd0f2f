//! The countdown under every order: the last shard that is through with it knows that it is the last.
//!
//! No system calls, no locks; checked by the models in `tests/loom.rs`.

use crate::sys::sync::{AtomicBool, AtomicU32, Ordering};

/// Counts shards down and collects one bit from them.
#[derive(Debug)]
pub struct Barrier {
    missing: AtomicU32,
    found: AtomicBool,
}

impl Barrier {
    /// Waits for so many parties; at least one.
    pub fn new(parties: u32) -> Barrier {
        Barrier { missing: AtomicU32::new(parties.max(1)), found: AtomicBool::new(false) }
    }

    /// A party saw what the order looks for. Before its [`Barrier::ack`].
    pub fn find(&self) {
        // Published by the release half of `ack`.
        self.found.store(true, Ordering::Relaxed);
    }

    /// A party is through; true for exactly one, the last. It sees everything that the others did before their call.
    pub fn ack(&self) -> bool {
        let before = self.missing.fetch_sub(1, Ordering::AcqRel);
        debug_assert!(before > 0, "a party was through twice");
        before == 1
    }

    /// Whether any party found it. For the last one, or whoever heard from it.
    pub fn found(&self) -> bool {
        self.found.load(Ordering::Relaxed)
    }
}
