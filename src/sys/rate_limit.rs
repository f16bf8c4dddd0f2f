//! Log lines that somebody else can cause at will: at most so many per interval, and none lost without a count.
//!
//! # Contract
//!
//! * A [`RateLimit`] lets `burst` lines through per interval. What it holds back it counts, and the next line that passes says
//!   how many there were.
//! * It never blocks for long and never fails: it is a mutex around two counters, taken only where a line would be written.

use std::fmt;
use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant};

/// A budget of log lines that refills every interval.
#[derive(Debug)]
pub struct RateLimit {
    burst: u32,
    interval: Duration,
    state: Mutex<State>,
}

#[derive(Debug)]
struct State {
    window_start: Option<Instant>,
    written: u32,
    held_back: u64,
}

impl RateLimit {
    /// A limit of `burst` lines per `interval`.
    pub const fn new(burst: u32, interval: Duration) -> RateLimit {
        RateLimit { burst, interval, state: Mutex::new(State { window_start: None, written: 0, held_back: 0 }) }
    }

    /// What suits lines that a guest or a front-end causes: 10 lines in 10 seconds.
    pub const fn per_peer() -> RateLimit {
        RateLimit::new(10, Duration::from_secs(10))
    }

    /// Asks for one line. `Some(n)`: write it, `n` lines were held back since the last one that passed. `None`: hold it
    /// back (it has been counted).
    pub fn pass(&self) -> Option<u64> {
        self.pass_at(Instant::now())
    }

    fn pass_at(&self, now: Instant) -> Option<u64> {
        let mut state = self.state.lock().unwrap_or_else(PoisonError::into_inner);
        let expired = state.window_start.is_none_or(|start| now.saturating_duration_since(start) >= self.interval);
        if expired {
            state.window_start = Some(now);
            state.written = 0;
        }
        if state.written >= self.burst {
            state.held_back = state.held_back.saturating_add(1);
            return None;
        }
        state.written = state.written.saturating_add(1);
        Some(std::mem::take(&mut state.held_back))
    }

    /// Writes a line of `level` if the budget allows, with the number of lines held back before it.
    pub fn log(&self, level: log::Level, line: fmt::Arguments<'_>) {
        if !log::log_enabled!(level) {
            return;
        }
        match self.pass() {
            Some(0) => log::log!(level, "{line}"),
            Some(n) => log::log!(level, "{line} ({n} similar lines held back)"),
            None => {}
        }
    }

    /// [`log`](Self::log) as a warning.
    pub fn warn(&self, line: fmt::Arguments<'_>) {
        self.log(log::Level::Warn, line);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn burst_passes_then_lines_are_counted() {
        let limit = RateLimit::new(3, Duration::from_secs(10));
        let t0 = Instant::now();
        assert_eq!(limit.pass_at(t0), Some(0));
        assert_eq!(limit.pass_at(t0), Some(0));
        assert_eq!(limit.pass_at(t0), Some(0));
        for _ in 0..7 {
            assert_eq!(limit.pass_at(t0 + Duration::from_secs(9)), None);
        }
        assert_eq!(limit.pass_at(t0 + Duration::from_secs(10)), Some(7));
        assert_eq!(limit.pass_at(t0 + Duration::from_secs(10)), Some(0));
    }

    #[test]
    fn a_clock_that_goes_back_does_not_panic() {
        let limit = RateLimit::new(1, Duration::from_secs(1));
        let t0 = Instant::now() + Duration::from_secs(100);
        assert_eq!(limit.pass_at(t0), Some(0));
        assert_eq!(limit.pass_at(t0 - Duration::from_secs(50)), None);
    }
}
