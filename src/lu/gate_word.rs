//! The atomic word of a [`Gate`](super::Gate), and every way in which it changes. What its bits mean is the gate's business.
//!
//! Checked by the models in `tests/loom.rs`.

use crate::sys::sync::{AtomicU64, Ordering};

/// The word.
#[derive(Debug, Default)]
pub struct GateWord(AtomicU64);

impl GateWord {
    /// A word with these bits.
    pub fn new(word: u64) -> GateWord {
        GateWord(AtomicU64::new(word))
    }

    /// The word as it is now.
    #[inline]
    pub fn read(&self) -> u64 {
        self.0.load(Ordering::Acquire)
    }

    /// Sets bits.
    pub fn set(&self, bits: u64) {
        self.0.fetch_or(bits, Ordering::AcqRel);
    }

    /// Clears bits; gives back which of them were set.
    pub fn clear(&self, bits: u64) -> u64 {
        self.0.fetch_and(!bits, Ordering::AcqRel) & bits
    }

    /// Clears the bits that `pick` chooses from the word, and gives back what it says of them. Of several threads that choose the same
    /// bits one clears them; the others choose again. `word` is what was read last.
    ///
    /// # Errors
    ///
    /// What `pick` refuses with; nothing is cleared then.
    pub fn take<T, E>(&self, mut word: u64, pick: impl Fn(u64) -> Result<(u64, T), E>) -> Result<T, E> {
        loop {
            let (bits, what) = pick(word)?;
            match self.0.compare_exchange_weak(word, word & !bits, Ordering::AcqRel, Ordering::Acquire) {
                Ok(_) => return Ok(what),
                Err(now) => word = now,
            }
        }
    }

    /// Replaces the word by what `update` makes of it.
    pub fn update(&self, update: impl Fn(u64) -> u64) {
        let mut word = self.0.load(Ordering::Relaxed);
        while let Err(now) = self.0.compare_exchange_weak(word, update(word), Ordering::AcqRel, Ordering::Relaxed) {
            word = now;
        }
    }
}
