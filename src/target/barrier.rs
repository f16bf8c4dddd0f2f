//! The countdown under every order: the last shard that is through with it knows that it is the last.
//!
//! No system calls, no locks; atomics come through the alias [`sync`] so that a model checker can put its own there.

mod sync {
    pub use std::sync::atomic::{AtomicBool, AtomicU32, Ordering};
}

use sync::{AtomicBool, AtomicU32, Ordering};

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

#[cfg(test)]
mod tests {
    use super::*;
    use std::sync::Arc;
    use std::sync::atomic::AtomicU64;

    #[test]
    fn one_of_many_is_the_last() {
        let barrier = Barrier::new(3);
        assert_eq!([barrier.ack(), barrier.ack(), barrier.ack()], [false, false, true]);
        assert!(!barrier.found());
        assert!(Barrier::new(0).ack());
    }

    #[test]
    fn the_last_sees_what_all_did() {
        for _ in 0..200 {
            let barrier = Arc::new(Barrier::new(4));
            let done = Arc::new([const { AtomicU64::new(0) }; 4]);
            let parties: Vec<_> = (0..4)
                .map(|i| {
                    let (barrier, done) = (Arc::clone(&barrier), Arc::clone(&done));
                    std::thread::spawn(move || {
                        done[i].store(1, Ordering::Relaxed);
                        if i == 2 {
                            barrier.find();
                        }
                        let last = barrier.ack();
                        let sum: u64 = done.iter().map(|d| d.load(Ordering::Relaxed)).sum();
                        last.then_some((sum, barrier.found()))
                    })
                })
                .collect();
            let last: Vec<_> = parties.into_iter().filter_map(|p| p.join().unwrap()).collect();
            assert_eq!(last, [(4, true)]);
        }
    }
}
