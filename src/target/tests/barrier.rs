//! The countdown with real threads; every interleaving of fewer is in `tests/loom.rs`.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use crate::target::barrier::Barrier;

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
