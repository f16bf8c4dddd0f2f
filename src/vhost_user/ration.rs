//! How fast one socket's connections are taken: a crowd that comes and goes costs the process a thread for each, and time that is
//! everybody's.

use std::time::{Duration, Instant};

/// How many may come at once.
const BURST: u32 = 32;

/// How long one of them takes to be allowed again.
const EACH: Duration = Duration::from_millis(15);

/// One socket's ration of connections.
#[derive(Debug)]
pub(super) struct Ration {
    /// When it is full again, if nobody comes.
    full_at: Option<Instant>,
}

impl Ration {
    pub(super) const fn new() -> Ration {
        Ration { full_at: None }
    }

    /// Takes one connection out of the ration.
    ///
    /// # Errors
    ///
    /// There is none left; when there will be.
    pub(super) fn take(&mut self, now: Instant) -> Result<(), Instant> {
        let full_at = self.full_at.map_or(now, |at| at.max(now)) + EACH;
        match full_at.checked_sub(EACH * BURST) {
            Some(allowed) if allowed > now => Err(allowed),
            _ => {
                self.full_at = Some(full_at);
                Ok(())
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_burst_and_then_one_at_a_time() {
        let start = Instant::now() + Duration::from_secs(1000);
        let mut ration = Ration::new();
        for _ in 0..BURST {
            ration.take(start).unwrap();
        }
        let allowed = ration.take(start).unwrap_err();
        assert_eq!(allowed, start + EACH);
        // To have been refused costs nothing.
        assert_eq!(ration.take(start), Err(allowed));
        ration.take(allowed).unwrap();
        assert_eq!(ration.take(allowed), Err(allowed + EACH));
    }

    #[test]
    fn it_is_full_again_after_a_while() {
        let start = Instant::now() + Duration::from_secs(1000);
        let mut ration = Ration::new();
        while ration.take(start).is_ok() {}
        let later = start + EACH * 3;
        assert_eq!((0..10).filter(|_| ration.take(later).is_ok()).count(), 3);
        let much_later = start + EACH * 1000;
        assert_eq!((0..100).filter(|_| ration.take(much_later).is_ok()).count(), BURST as usize);
    }
}
