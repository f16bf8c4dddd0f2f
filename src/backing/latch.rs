//! The range latch: keeps a block from being seen half old, half new where the file system does not.
//!
//! Buffered reads and writes of one block are not atomic to each other on Linux. Where direct I/O (which is) cannot be had, the operations of
//! a shared image go through this latch: reads hold it shared, everything that changes data exclusively.
//!
//! The image is divided into grains, and grains onto a fixed number of stripes, each a lock. An operation takes the stripes
//! of all grains it touches in ascending order, so two operations never wait for each other in a circle. They are held while
//! data are copied, never across anything else.

use std::sync::{PoisonError, RwLock, RwLockReadGuard, RwLockWriteGuard};

/// Bytes that one stripe covers in a row.
const GRAIN: u64 = 64 << 10;
const STRIPES: usize = 64;

/// The latch of one image.
#[derive(Debug)]
pub(super) struct Latch {
    stripes: [RwLock<()>; STRIPES],
}

/// A range held shared.
pub(super) type Shared<'a> = Held<RwLockReadGuard<'a, ()>>;
/// A range held exclusively.
pub(super) type Exclusive<'a> = Held<RwLockWriteGuard<'a, ()>>;

/// The guards of a range.
#[derive(Debug)]
pub(super) enum Held<G> {
    /// Of one stripe, which is what most operations touch: the other kind would cost them more than the lock does.
    One {
        /// Nobody looks at it.
        _guard: G,
    },
    /// Of many.
    Many {
        /// By stripe.
        _guards: [Option<G>; STRIPES],
    },
}

impl Latch {
    pub(super) fn new() -> Latch {
        Latch { stripes: [const { RwLock::new(()) }; STRIPES] }
    }

    /// Waits until nobody changes the range; until dropped, nobody does.
    pub(super) fn shared(&self, offset: u64, len: u64) -> Shared<'_> {
        // The lock protects no data, so there is none that a panic could have left half changed.
        self.hold(offset, len, |stripe| stripe.read().unwrap_or_else(PoisonError::into_inner))
    }

    /// Waits until nobody uses the range; until dropped, nobody else does.
    pub(super) fn exclusive(&self, offset: u64, len: u64) -> Exclusive<'_> {
        self.hold(offset, len, |stripe| stripe.write().unwrap_or_else(PoisonError::into_inner))
    }

    fn hold<'a, G>(&'a self, offset: u64, len: u64, lock: impl Fn(&'a RwLock<()>) -> G) -> Held<G> {
        let touched = Touched::new(offset, len);
        if let (1, Some(stripe)) = (touched.count, self.stripes.get(touched.first)) {
            return Held::One { _guard: lock(stripe) };
        }
        let mut guards = [const { None }; STRIPES];
        for (index, (stripe, slot)) in self.stripes.iter().zip(&mut guards).enumerate() {
            if touched.contains(index) {
                *slot = Some(lock(stripe));
            }
        }
        Held::Many { _guards: guards }
    }
}

/// The stripes of a range: `count` of them from `first` on, around the end.
struct Touched {
    first: usize,
    count: usize,
}

impl Touched {
    fn new(offset: u64, len: u64) -> Touched {
        if len == 0 {
            return Touched { first: 0, count: 0 };
        }
        let (first, last) = (offset / GRAIN, offset.saturating_add(len - 1) / GRAIN);
        let count = (last - first).min(STRIPES as u64 - 1) as usize + 1;
        Touched { first: (first % STRIPES as u64) as usize, count }
    }

    fn contains(&self, stripe: usize) -> bool {
        (stripe + STRIPES - self.first) % STRIPES < self.count
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn stripes(offset: u64, len: u64) -> Vec<usize> {
        let touched = Touched::new(offset, len);
        (0..STRIPES).filter(|index| touched.contains(*index)).collect()
    }

    #[test]
    fn a_range_touches_the_stripes_of_its_grains() {
        assert_eq!(stripes(0, 0), [0; 0]);
        assert_eq!(stripes(0, 1), [0]);
        assert_eq!(stripes(GRAIN - 1, 1), [0]);
        assert_eq!(stripes(GRAIN - 1, 2), [0, 1]);
        assert_eq!(stripes(GRAIN, GRAIN), [1]);
        // Around the end: grains 63 and 64 are stripes 63 and 0, taken 0 first.
        assert_eq!(stripes(63 * GRAIN, 2 * GRAIN), [0, 63]);
        assert_eq!(stripes(5 * GRAIN + 1, 63 * GRAIN).len(), STRIPES);
        assert_eq!(stripes(0, u64::MAX).len(), STRIPES);
        assert_eq!(stripes(u64::MAX, u64::MAX).len(), 1);
    }

    #[test]
    fn readers_share_and_writers_do_not() {
        let latch = Latch::new();
        let read = latch.shared(0, 512);
        drop(latch.shared(0, 512));
        assert!(latch.stripes[0].try_write().is_err());
        assert!(latch.stripes[1].try_write().is_ok());
        drop(read);
        let write = latch.exclusive(0, 2 * GRAIN);
        assert!(latch.stripes[0].try_read().is_err());
        assert!(latch.stripes[1].try_read().is_err());
        assert!(latch.stripes[2].try_read().is_ok());
        drop(write);
        assert!(latch.stripes[0].try_write().is_ok());
    }

    #[test]
    fn crossing_ranges_do_not_wait_in_a_circle() {
        let latch = Latch::new();
        // Each range wraps around the stripes at another place.
        std::thread::scope(|scope| {
            for start in [10u64, 40, 63] {
                let latch = &latch;
                scope.spawn(move || {
                    for _ in 0..2000 {
                        drop(latch.exclusive(start * GRAIN, 50 * GRAIN));
                    }
                });
            }
        });
    }
}
