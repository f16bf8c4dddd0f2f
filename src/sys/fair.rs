//! A queue of work that has owners, for threads that may be kept long by what they do: no owner gets all of them.
//!
//! # Contract
//!
//! * Of one owner's items at most its share are out at a time: taken, and not yet [`ended`](Fair::ended). They come in the order in which they
//!   were put.
//! * Owners take turns.
//! * Whoever takes until there is nothing, and again after each end, leaves nothing behind.

use std::collections::VecDeque;

/// The queue.
#[derive(Debug)]
pub struct Fair<T> {
    /// Those that have something here or out, in no order; and idle ones, for their allocations to be used again.
    owners: Vec<Owner<T>>,
    /// Whose turn it is.
    turn: usize,
    /// Where the owner is that was asked for last: mostly it is asked for again.
    recent: usize,
    /// How many items are here.
    here: usize,
    share: usize,
}

#[derive(Debug)]
struct Owner<T> {
    name: u64,
    waiting: VecDeque<T>,
    out: usize,
    share: usize,
}

impl<T> Fair<T> {
    /// An empty queue; `share` is at least one.
    pub fn new(share: usize) -> Fair<T> {
        Fair { owners: Vec::new(), turn: 0, recent: 0, here: 0, share: share.max(1) }
    }

    /// Lets an item out without its coming in; true if it may: its owner is known, has nothing here, and has less than its share out. That is
    /// nearly always so, and costs next to nothing.
    #[inline]
    pub fn pass(&mut self, owner: u64) -> bool {
        let Some(owner) = self.find(owner).filter(|o| o.waiting.is_empty() && o.out > 0 && o.out < o.share) else {
            return false;
        };
        owner.out += 1;
        true
    }

    #[inline]
    fn find(&mut self, name: u64) -> Option<&mut Owner<T>> {
        if self.owners.get(self.recent).is_none_or(|owner| owner.name != name) {
            self.recent = self.owners.iter().position(|owner| owner.name == name)?;
        }
        self.owners.get_mut(self.recent)
    }

    /// Puts an item of this owner behind its others. Returns how many owners there are, or were at a time.
    pub fn put(&mut self, owner: u64, item: T) -> usize {
        self.put_sharing(owner, self.share, item)
    }

    /// The same for an owner with a share of its own, at least one.
    pub fn put_sharing(&mut self, owner: u64, share: usize, item: T) -> usize {
        self.here += 1;
        self.place(owner, share).waiting.push_back(item);
        self.owners.len()
    }

    /// Puts an item of this owner before its others; its turn is over all the same.
    pub fn put_first(&mut self, owner: u64, item: T) {
        self.here += 1;
        let share = self.share;
        self.place(owner, share).waiting.push_front(item);
    }

    /// An owner's place, with this share from now on.
    fn place(&mut self, name: u64, share: usize) -> &mut Owner<T> {
        let known = self.owners.iter().position(|o| o.name == name);
        let at = known.or_else(|| self.owners.iter().position(Owner::is_idle)).unwrap_or_else(|| {
            self.owners.push(Owner { name, waiting: VecDeque::new(), out: 0, share });
            self.owners.len() - 1
        });
        let place = &mut self.owners[at];
        (place.name, place.share) = (name, share.max(1));
        place
    }

    /// Whether nothing is here.
    pub fn is_empty(&self) -> bool {
        self.here == 0
    }

    /// The next item that may go out, and whose it is.
    pub fn take(&mut self) -> Option<(u64, T)> {
        if self.here == 0 {
            return None;
        }
        let count = self.owners.len();
        for at in (0..count).map(|step| (self.turn + step) % count) {
            let owner = self.owners.get_mut(at).filter(|owner| owner.out < owner.share);
            if let Some(owner) = owner
                && let Some(item) = owner.waiting.pop_front()
            {
                owner.out += 1;
                self.here -= 1;
                self.turn = at + 1;
                return Some((owner.name, item));
            }
        }
        None
    }

    /// An item of this owner that was taken is over.
    pub fn ended(&mut self, owner: u64) {
        if let Some(owner) = self.find(owner) {
            owner.out = owner.out.saturating_sub(1);
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
        self.here -= removed.len();
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
        let mut queue = Fair::new(2);
        for item in 0..4 {
            assert_eq!(queue.put(7, item), 1);
        }
        assert_eq!(queue.put(8, 10), 2);
        assert_eq!(queue.put(9, 20), 3);
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
    fn who_has_room_passes_and_nobody_overtakes() {
        let mut queue = Fair::new(3);
        assert!(!queue.pass(7), "nobody knows it");
        queue.put(7, 0);
        queue.put(8, 10);
        assert!(!queue.pass(7), "one of its own waits");
        assert_eq!(queue.take(), Some((7, 0)));
        assert_eq!(queue.take(), Some((8, 10)));
        assert!(queue.pass(7) && queue.pass(8) && queue.pass(7));
        assert!(!queue.pass(7), "its share is out");
        queue.put(7, 1);
        queue.ended(7);
        assert!(!queue.pass(7), "it would overtake");
        assert_eq!(queue.take(), Some((7, 1)));
        for _ in 0..3 {
            queue.ended(7);
        }
        assert!(!queue.pass(7), "its place may be another's by now");
        queue.put(9, 20);
        assert_eq!(queue.owners.len(), 2);
        assert_eq!(queue.take(), Some((9, 20)));
        assert!(!queue.pass(7));
        assert!(queue.pass(9) && queue.pass(8));
    }

    #[test]
    fn an_owner_may_have_a_share_of_its_own() {
        let mut queue = Fair::new(1);
        for item in 0..3 {
            queue.put_sharing(7, 2, item);
            queue.put(8, 10 + item);
        }
        let taken: Vec<_> = std::iter::from_fn(|| queue.take()).collect();
        assert_eq!(taken, [(7, 0), (8, 10), (7, 1)]);
    }

    #[test]
    fn what_comes_back_is_the_next_of_its_owner() {
        let mut queue = Fair::new(1);
        assert!(queue.is_empty());
        queue.put(7, 0);
        queue.put(7, 1);
        queue.put(8, 10);
        assert_eq!(queue.take(), Some((7, 0)));
        queue.ended(7);
        queue.put_first(7, 0);
        assert_eq!(queue.take(), Some((8, 10)), "the other one's turn");
        queue.ended(8);
        assert!(!queue.is_empty());
        assert_eq!(queue.take(), Some((7, 0)));
        queue.ended(7);
        assert_eq!(queue.take(), Some((7, 1)));
        assert!(queue.is_empty());
    }

    #[test]
    fn what_is_over_leaves_nothing() {
        let mut queue = Fair::new(1);
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
