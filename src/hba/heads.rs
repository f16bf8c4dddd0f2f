//! A set of descriptor heads.

/// Which heads of a ring are in use: small, and quick to walk when few are.
#[derive(Debug)]
pub struct Heads {
    words: Box<[u64]>,
    len: usize,
}

impl Heads {
    /// An empty set of heads below `size`.
    pub fn new(size: u16) -> Heads {
        Heads { words: vec![0; usize::from(size).div_ceil(64)].into_boxed_slice(), len: 0 }
    }

    /// How many are in it.
    pub fn len(&self) -> usize {
        self.len
    }

    /// Whether none is in it.
    pub fn is_empty(&self) -> bool {
        self.len == 0
    }

    /// Whether `head` is in it.
    pub fn contains(&self, head: u16) -> bool {
        let (word, bit) = place(head);
        self.words.get(word).is_some_and(|w| w & bit != 0)
    }

    /// Puts `head` in; false if it was in already, or is too large.
    pub fn insert(&mut self, head: u16) -> bool {
        let (word, bit) = place(head);
        match self.words.get_mut(word) {
            Some(w) if *w & bit == 0 => {
                *w |= bit;
                self.len += 1;
                true
            }
            _ => false,
        }
    }

    /// Takes `head` out; false if it was not in.
    pub fn remove(&mut self, head: u16) -> bool {
        let (word, bit) = place(head);
        match self.words.get_mut(word) {
            Some(w) if *w & bit != 0 => {
                *w &= !bit;
                self.len -= 1;
                true
            }
            _ => false,
        }
    }

    /// Those in it, ascending.
    pub fn iter(&self) -> impl Iterator<Item = u16> + '_ {
        (0u16..).step_by(64).zip(&self.words).flat_map(|(base, &word)| {
            let mut left = word;
            std::iter::from_fn(move || {
                let bit = left.trailing_zeros() as u16;
                left &= left.wrapping_sub(1);
                (bit < 64).then_some(base + bit)
            })
        })
    }
}

fn place(head: u16) -> (usize, u64) {
    (usize::from(head / 64), 1 << (head % 64))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn holds_what_was_put_in() {
        let mut heads = Heads::new(1024);
        for head in [0, 63, 64, 700, 1023] {
            assert!(heads.insert(head));
            assert!(!heads.insert(head), "{head} is in already");
        }
        assert!(!heads.insert(1024), "beyond the ring");
        assert_eq!(heads.iter().collect::<Vec<_>>(), [0, 63, 64, 700, 1023]);
        assert!(heads.remove(64));
        assert!(!heads.remove(64));
        assert!(!heads.remove(5000));
        assert_eq!(heads.iter().collect::<Vec<_>>(), [0, 63, 700, 1023]);
        assert_eq!((heads.len(), heads.is_empty()), (4, false));
        assert!(heads.contains(700) && !heads.contains(701) && !heads.contains(u16::MAX));
    }

    #[test]
    fn a_ring_smaller_than_a_word_has_room() {
        let mut heads = Heads::new(1);
        assert!(heads.insert(0));
        assert_eq!(heads.iter().collect::<Vec<_>>(), [0]);
        assert!(heads.remove(0) && heads.is_empty());
    }
}
