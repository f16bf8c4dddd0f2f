//! A queue of work that has owners, for threads that may be kept long by what they do: no owners, however many, get all of them.
//!
//! # Contract
//!
//! * Of one owner's items at most `share` are out at a time: taken, and not yet [`ended`](Fair::ended). They come in the order in which they
//!   were put.
//! * An owner's first may always go out, whatever the others have. What they have beyond that is at most `common` together.
//! * Owners take turns.
//! * Whoever takes once after each put, and again after each end, leaves nothing behind; then no more are out than there are takers.

use std::collections::VecDeque;

/// The queue.
#[derive(Debug)]
pub struct Fair<T> {
    /// Those that have something here or out, in no order; and idle ones, for their allocations to be used again.
    owners: Vec<Owner<T>>,
    /// Whose turn it is.
    turn: usize,
    share: usize,
    /// How many more may go out beyond their owners' first.
    common: usize,
}

#[derive(Debug)]
struct Owner<T> {
    name: u64,
    waiting: VecDeque<T>,
    out: usize,
}

impl<T> Fair<T> {
    /// An empty queue; `share` is at least one.
    pub fn new(share: usize, common: usize) -> Fair<T> {
        Fair { owners: Vec::new(), turn: 0, share: share.max(1), common }
    }

    /// Puts an item of this owner behind its others.
    pub fn put(&mut self, owner: u64, item: T) {
        let known = self.owners.iter().position(|o| o.name == owner);
        match known.or_else(|| self.owners.iter().position(Owner::is_idle)).and_then(|at| self.owners.get_mut(at)) {
            Some(place) => {
                place.name = owner;
                place.waiting.push_back(item);
            }
            None => self.owners.push(Owner { name: owner, waiting: VecDeque::from([item]), out: 0 }),
        }
    }

    /// The next item that may go out, and whose it is.
    pub fn take(&mut self) -> Option<(u64, T)> {
        let count = self.owners.len();
        for at in (0..count).map(|step| (self.turn + step) % count) {
            let more = if self.common > 0 { self.share } else { 1 };
            let owner = self.owners.get_mut(at).filter(|owner| owner.out < more);
            if let Some(owner) = owner
                && let Some(item) = owner.waiting.pop_front()
            {
                self.common -= usize::from(owner.out > 0);
                owner.out += 1;
                self.turn = at + 1;
                return Some((owner.name, item));
            }
        }
        None
    }

    /// An item of this owner that was taken is over.
    pub fn ended(&mut self, owner: u64) {
        if let Some(owner) = self.owners.iter_mut().find(|o| o.name == owner && o.out > 0) {
            owner.out -= 1;
            self.common += usize::from(owner.out > 0);
        }
    }

    /// Takes out of the queue what waits and fits, without an end to follow; what stays keeps its order.
    pub fn remove(&mut self, fits: impl Fn(&T) -> bool) -> Vec<T> {
        let mut removed = Vec::new();
        for owner in &mut self.owners {
            for _ in 0..owner.waiting.len() {
                match owner.waiting.pop_front() {
                    Some(item) if fits(&item) => removed.push(item),
                    Some(item) => owner.waiting.push_back(item),
                    None => break,
                }
            }
        }
        removed
    }
}

impl<T> Owner<T> {
    fn is_idle(&self) -> bool {
        self.out == 0 && self.waiting.is_empty()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn owners_take_turns_and_none_has_more_than_its_share() {
        let mut queue = Fair::new(2, 9);
        for item in 0..4 {
            queue.put(7, item);
        }
        queue.put(8, 10);
        queue.put(9, 20);
        let taken: Vec<_> = std::iter::from_fn(|| queue.take()).collect();
        assert_eq!(taken, [(7, 0), (8, 10), (9, 20), (7, 1)]);
        queue.ended(8);
        assert_eq!(queue.take(), None);
        queue.ended(7);
        assert_eq!(queue.take(), Some((7, 2)));
        queue.put(8, 11);
        assert_eq!(queue.take(), Some((8, 11)));
        assert_eq!(queue.take(), None);
    }

    #[test]
    fn many_owners_leave_one_for_each() {
        let mut queue = Fair::new(3, 2);
        for owner in 0..4 {
            for item in 0..3 {
                queue.put(owner, item);
            }
        }
        // The first of each, and two in common.
        let taken: Vec<_> = std::iter::from_fn(|| queue.take()).collect();
        assert_eq!(taken, [(0, 0), (1, 0), (2, 0), (3, 0), (0, 1), (1, 1)]);
        queue.put(4, 0);
        assert_eq!(queue.take(), Some((4, 0)));
        assert_eq!(queue.take(), None);
        // Its first is over: it has another first.
        queue.ended(3);
        assert_eq!(queue.take(), Some((3, 1)));
        // One in common is over: there is room for another, and for one only.
        queue.ended(0);
        assert_eq!(queue.take(), Some((0, 2)));
        assert_eq!(queue.take(), None);
        // All ends let all begin, and what was in common is again.
        let mut left = 0;
        for owner in [0, 0, 1, 1, 2, 3, 4] {
            queue.ended(owner);
            left += usize::from(queue.take().is_some());
        }
        assert_eq!(left, 4);
        for owner in [1, 2, 2, 3] {
            queue.ended(owner);
        }
        assert_eq!((queue.common, queue.take()), (2, None));
        assert!(queue.owners.iter().all(Owner::is_idle));
    }

    #[test]
    fn what_is_over_leaves_nothing() {
        let mut queue = Fair::new(1, 9);
        for item in 0..6 {
            queue.put(item % 2, item);
        }
        assert_eq!(queue.take(), Some((0, 0)));
        assert_eq!(queue.remove(|item| item % 3 != 2), [4, 1, 3]);
        assert_eq!(queue.take(), Some((1, 5)));
        queue.ended(1);
        queue.ended(0);
        assert_eq!(queue.take(), Some((0, 2)));
        queue.ended(0);
        queue.ended(0);
        assert!(queue.owners.iter().all(Owner::is_idle));
        // Others come in their places.
        queue.put(2, 6);
        queue.put(3, 7);
        assert_eq!(queue.owners.len(), 2);
        let mut taken: Vec<_> = std::iter::from_fn(|| queue.take()).collect();
        taken.sort_unstable();
        assert_eq!(taken, [(2, 6), (3, 7)]);
    }
}
