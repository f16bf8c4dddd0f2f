//! Whether threads that work in turns have each ended the turn they were in.
//!
//! Each party says when a turn of it begins and when it ends; who asks waits until every turn that had begun by then is over, and so
//! is everything that was to be done in it. To begin and end a turn costs a store to memory of one's own.

use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

/// How often a party that is in its turn is looked at again.
const LOOK: Duration = Duration::from_micros(50);

/// The turns of some parties.
#[derive(Debug)]
pub struct Turns(Box<[Count]>);

/// Begun and ended turns, together: odd within a turn. On a cache line of its own.
#[derive(Debug, Default)]
#[repr(align(128))]
struct Count(AtomicU64);

impl Turns {
    /// For so many parties, none of which is in a turn.
    pub fn new(parties: usize) -> Turns {
        Turns((0..parties).map(|_| Count::default()).collect())
    }

    /// A turn of a party begins. Only the party itself says so.
    pub fn begin(&self, party: usize) {
        self.step(party, 1);
    }

    /// The party's turn is over.
    pub fn end(&self, party: usize) {
        self.step(party, 0);
    }

    /// Waits until every turn is over whose beginning the caller knows of: by anything that was done in it. False if that takes
    /// longer than `bound`.
    pub fn pass(&self, bound: Duration) -> bool {
        let start = Instant::now();
        // Acquire pairs with the release in `step`: whoever saw something done in a turn sees it begun.
        let now = |count: &Count| count.0.load(Ordering::Acquire);
        let begun: Vec<(&Count, u64)> = self.0.iter().map(|count| (count, now(count))).collect();
        for (count, then) in begun {
            while then & 1 == 1 && now(count) == then {
                if start.elapsed() > bound {
                    return false;
                }
                std::thread::sleep(LOOK);
            }
        }
        true
    }

    /// To the next number of this parity. Nobody else writes it.
    fn step(&self, party: usize, parity: u64) {
        if let Some(Count(count)) = self.0.get(party) {
            let now = count.load(Ordering::Relaxed);
            if now & 1 != parity {
                count.store(now.wrapping_add(1), Ordering::Release);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::sync::Arc;
    use std::sync::atomic::AtomicBool;

    const LONG: Duration = Duration::from_secs(20);

    #[test]
    fn who_rests_is_not_waited_for() {
        let turns = Turns::new(2);
        assert!(turns.pass(Duration::ZERO));
        turns.begin(1);
        turns.begin(1);
        assert!(!turns.pass(Duration::from_millis(1)), "in its turn");
        turns.end(1);
        turns.end(1);
        turns.end(7);
        assert!(turns.pass(Duration::ZERO));
    }

    /// What a turn was to do is done when it has passed, though the party is in its next one at once.
    #[test]
    fn a_turn_that_had_begun_is_over() {
        let turns = Arc::new(Turns::new(1));
        let stop = Arc::new(AtomicBool::new(false));
        let [taken, done] = [(); 2].map(|()| Arc::new(AtomicU64::new(0)));
        let party = {
            let (turns, stop, taken, done) = (turns.clone(), stop.clone(), taken.clone(), done.clone());
            std::thread::spawn(move || {
                for turn in 1.. {
                    turns.begin(0);
                    taken.store(turn, Ordering::Release);
                    std::thread::yield_now();
                    done.store(turn, Ordering::Release);
                    turns.end(0);
                    if stop.load(Ordering::Relaxed) {
                        return;
                    }
                }
            })
        };
        for _ in 0..1000 {
            let seen = taken.load(Ordering::Acquire);
            assert!(turns.pass(LONG));
            assert!(done.load(Ordering::Acquire) >= seen);
        }
        stop.store(true, Ordering::Relaxed);
        party.join().unwrap();
    }
}
