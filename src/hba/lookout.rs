//! What a reactor does when it runs out of work, before it sleeps: it looks at the queues that were busy a moment ago, for as long as that
//! has paid lately.
//!
//! To sleep and be woken costs the reactor and the guest some microseconds each. Work that comes sooner than that is better waited for;
//! work that comes later is not. So how long is looked follows what the gaps between work have been, and is never more than `--poll-us`; and
//! where it does not pay all the same, it is given up for a while. A reactor whose gaps are long does not look at all: its guests cost nothing while they are idle.
//! A gap that was slept through has waking up in it, which may take longer than the work did to come. So a reactor that does not look tries it now and
//! then, the more seldom the oftener it was in vain.
//!
//! Who brings the work may be waiting for this very processor. So while it looks, a reactor offers it to others now and then; where nobody wants it, that is
//! a short call.
//!
//! A queue that is looked at is *hot*: its driver has been told not to kick. It is looked at in every turn, too, for the reactor may be busy
//! with others; if nothing comes in it for many turns it cools, and its driver has to kick again. No queue is hot while the reactor sleeps.

use std::time::{Duration, Instant};

use super::queue::Role;
use super::reactor::Reactor;

/// Turns that a hot queue may bring nothing, while its reactor is busy with others.
const PATIENCE: u8 = 64;

/// How often the loop looks before it asks for the time.
const LOOKS: u32 = 8;

/// How many times the longest look may be lost before a reactor rests from looking, and how many are kept of what it has won.
const LIMIT: u32 = 8;

/// How often a reactor that looks offers its processor to others: who brings the work may be waiting for this very one.
const YIELD: Duration = Duration::from_micros(3);

/// How much is done at most, turns and requests together, between two questions to the wait set for work that is announced.
const UNASKED: u64 = 32;

/// The fewest and the most sleeps for which it rests, and after which it tries.
const REST: (u32, u32) = (16, 4096);

/// What was done since the wait set was asked: a reactor that finds its work by looking need not ask it in every turn, but others' kicks come that way.
#[derive(Debug, Default)]
pub(super) struct Asked {
    turns: u64,
    /// How much had been done then.
    at: u64,
}

impl Asked {
    /// A turn is over, after so many requests in all, and there is work that was `found` by looking, or is not. Whether the reactor goes on without
    /// asking; if not, it asks now.
    pub(super) fn goes_on(&mut self, found: bool, requests: u64) -> bool {
        self.turns += 1;
        let done = self.turns + requests;
        if found && done - self.at < UNASKED {
            return true;
        }
        self.at = done;
        false
    }
}

/// How long a reactor looks before it sleeps.
#[derive(Debug)]
pub(super) struct Pace {
    /// At most.
    max: Duration,
    /// Now.
    span: Duration,
    /// When it last ran out of work.
    since: Option<Instant>,
    /// What looking has won (what was left of `max` when work came) less what it has cost (looks in vain), in nanoseconds.
    balance: i64,
    /// Sleeps for which it does not look, whatever the gaps are.
    resting: u32,
    /// How long it will rest the next time.
    rest: u32,
    /// The look to come is a trial: it has not been seen to pay.
    trial: bool,
    /// Sleeps until it tries, and how many they will be the next time.
    untried: u32,
    trial_after: u32,
}

impl Pace {
    /// Looks for at most `max`; zero: never.
    pub(super) fn new(max: Duration) -> Pace {
        let (rest, untried, trial_after) = (REST.0, REST.0, REST.0);
        Pace {
            max,
            span: Duration::ZERO,
            since: None,
            balance: 0,
            resting: 0,
            rest,
            trial: false,
            untried,
            trial_after,
        }
    }

    /// Whether it is worth looking.
    pub(super) fn looks(&self) -> bool {
        !self.span.is_zero()
    }

    /// There is nothing to do, as of now.
    fn idle(&mut self, now: Instant) {
        if !self.max.is_zero() {
            self.since = Some(now);
        }
    }

    /// Work came while it looked, after this time.
    fn won(&mut self, after: Duration) {
        let limit = nanoseconds(self.max * LIMIT);
        self.balance = (self.balance + nanoseconds(self.max) - nanoseconds(after)).min(limit);
        if self.balance == limit {
            self.rest = REST.0;
        }
        self.span = (self.span * 2).min(self.max);
        if std::mem::take(&mut self.trial) {
            self.trial_after = REST.0;
        }
    }

    /// It looked in vain. Where that is so again and again, and work comes all the same as soon as it sleeps, the work is waiting for this
    /// very processor.
    fn lost(&mut self) {
        if std::mem::take(&mut self.trial) {
            self.span = Duration::ZERO;
            self.trial_after = (self.trial_after * 2).min(REST.1);
            return;
        }
        self.balance -= nanoseconds(self.span);
        if self.balance < -nanoseconds(self.max * LIMIT) {
            self.balance = 0;
            self.span = Duration::ZERO;
            self.resting = self.rest;
            self.rest = (self.rest * 2).min(REST.1);
        }
    }

    /// Work came after a sleep, at this time: would it have been right to look?
    fn woke(&mut self, now: impl FnOnce() -> Instant) {
        let Some(since) = self.since.take() else { return };
        if self.resting > 0 {
            self.resting -= 1;
            return;
        }
        if now().duration_since(since) <= self.max {
            // Doubled from an eighth on: one short gap does not make it poll for long.
            self.span = (self.span * 2).clamp(self.max / 8, self.max);
        } else {
            self.span /= 2;
            if self.span < self.max / 8 {
                self.span = Duration::ZERO;
            }
        }
        if self.span.is_zero() {
            self.untried = self.untried.saturating_sub(1);
            if self.untried == 0 {
                (self.span, self.trial, self.untried) = (self.max, true, self.trial_after);
            }
        }
    }
}

fn nanoseconds(time: Duration) -> i64 {
    i64::try_from(time.as_nanos()).unwrap_or(i64::MAX / 16)
}

impl Reactor {
    /// A queue has nothing to take; true if it stays under observation, without kicks.
    pub(super) fn keep_hot(&mut self, number: u16) -> bool {
        let Some(Some(queue)) = self.queues.get_mut(usize::from(number)) else { return false };
        if !self.pace.looks() || queue.role != Role::Request {
            return false;
        }
        queue.turns_cold = 0;
        if !std::mem::replace(&mut queue.hot, true) {
            self.hot.push(number);
        }
        true
    }

    /// Looks at the hot queues once, in the course of a turn.
    pub(super) fn look(&mut self) {
        if self.hot.len() > 1 {
            // Drivers have just written there, each on its processor: all of that is fetched at the same time, not one after the other.
            let hot = self.hot.iter().filter_map(|number| self.queues.get(usize::from(*number))?.as_ref());
            hot.for_each(|queue| queue.ring.prefetch_avail());
        }
        for at in (0..self.hot.len()).rev() {
            let Some(&number) = self.hot.get(at) else { continue };
            let Some(Some(queue)) =
                self.queues.get_mut(usize::from(number)).filter(|queue| queue.as_ref().is_some_and(|queue| queue.hot))
            else {
                self.hot.swap_remove(at);
                continue;
            };
            if !queue.takes_chains() {
                queue.hot = false;
                self.hot.swap_remove(at);
            } else if queue.ring.has_avail() != Ok(false) {
                // What is wrong with it, taking from it will tell.
                queue.hot = false;
                self.hot.swap_remove(at);
                self.activate(number);
            } else {
                queue.turns_cold = queue.turns_cold.saturating_add(1);
                if queue.turns_cold > PATIENCE {
                    self.hot.swap_remove(at);
                    self.cool(number);
                }
            }
        }
    }

    /// Has its driver kick again.
    fn cool(&mut self, number: u16) {
        let Some(Some(queue)) = self.queues.get_mut(usize::from(number)) else { return };
        queue.hot = false;
        match self.enable_kicks(number) {
            Ok(false) => {}
            Ok(true) => self.activate(number),
            Err(e) => self.break_ring(number, &e.to_string()),
        }
    }

    /// Looks for work for as long as it pays; true if there is some. If not, no queue is hot any more.
    pub(super) fn look_out(&mut self) -> bool {
        if self.hot.is_empty() {
            if !self.pace.max.is_zero() {
                self.pace.idle(Instant::now());
            }
            return false;
        }
        // What comes at once is taken without asking for the time.
        if self.sees_work_soon() {
            self.pace.won(Duration::ZERO);
            return true;
        }
        let start = Instant::now();
        let (mut end, mut yielded) = (start, start);
        while end.duration_since(start) < self.pace.span {
            if self.sees_work_soon() {
                self.pace.won(end.duration_since(start));
                return true;
            }
            end = Instant::now();
            if end.duration_since(yielded) >= YIELD {
                std::thread::yield_now();
                yielded = end;
            }
        }
        self.pace.idle(start);
        self.pace.lost();
        while let Some(number) = self.hot.pop() {
            self.cool(number);
        }
        !self.active.is_empty()
    }

    /// Looks a few times.
    fn sees_work_soon(&mut self) -> bool {
        for _ in 0..LOOKS {
            if self.sees_work() {
                return true;
            }
            std::hint::spin_loop();
        }
        false
    }

    fn sees_work(&mut self) -> bool {
        let available = |number: &u16| {
            let queue = self.queues.get(usize::from(*number)).and_then(Option::as_ref);
            queue.is_some_and(|queue| queue.hot && queue.takes_chains() && queue.ring.has_avail() != Ok(false))
        };
        if self.hot.iter().any(available) {
            self.look();
            return true;
        }
        if let Some(mail) = self.mailbox.take() {
            self.letters.push(mail);
            return true;
        }
        if self.io.in_flight() > 0 {
            if let Err(e) = self.io.flush() {
                log::error!("reactor {}: submitting failed: {e}", self.index);
            }
            return self.io.has_ended();
        }
        false
    }

    /// A sleep is over.
    pub(super) fn woke(&mut self) {
        self.pace.woke(Instant::now);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const MAX: Duration = Duration::from_micros(80);

    fn gap(pace: &mut Pace, gap: Duration) {
        let start = Instant::now();
        pace.idle(start);
        pace.woke(|| start + gap);
    }

    #[test]
    fn short_gaps_make_it_look_and_long_ones_make_it_stop() {
        let mut pace = Pace::new(MAX);
        assert!(!pace.looks(), "it does not know yet");
        gap(&mut pace, Duration::from_millis(5));
        assert!(!pace.looks());
        for expected in [10, 20, 40, 80, 80] {
            gap(&mut pace, Duration::from_micros(30));
            assert_eq!(pace.span, Duration::from_micros(expected));
        }
        for expected in [40, 20, 10, 0, 0] {
            gap(&mut pace, Duration::from_micros(81));
            assert_eq!(pace.span, Duration::from_micros(expected));
        }
    }

    /// On a processor that it has to share, whoever brings the work can only do so when the reactor sleeps: then every gap is short, and every
    /// look is in vain.
    #[test]
    fn it_rests_where_looking_keeps_the_work_away() {
        let mut pace = Pace::new(MAX);
        let (mut looked, mut slept) = (Duration::ZERO, 0);
        for _ in 0..100_000 {
            let start = Instant::now();
            pace.idle(start);
            let span = pace.span;
            if pace.looks() {
                looked += span;
                pace.lost();
            }
            pace.woke(|| start + span + Duration::from_micros(3));
            slept += 1;
        }
        assert!(looked / slept < MAX / 40, "{looked:?} in {slept} gaps");
        assert_eq!(pace.rest, REST.1);
        // When it has the processor to itself again, it finds out.
        for _ in 0..REST.1 + 10 {
            gap(&mut pace, Duration::from_micros(3));
        }
        assert!(pace.looks());
        (0..100).for_each(|_| pace.won(Duration::from_micros(3)));
        assert_eq!(pace.rest, REST.0);
    }

    #[test]
    fn what_pays_now_and_then_is_kept_up() {
        let mut pace = Pace::new(MAX);
        gap(&mut pace, Duration::ZERO);
        pace.span = MAX;
        for _ in 0..1000 {
            pace.won(Duration::from_micros(20));
            pace.won(Duration::from_micros(20));
            pace.lost();
            pace.span = MAX;
        }
        assert_eq!(pace.resting, 0);
    }

    #[test]
    fn it_may_be_forbidden() {
        let mut pace = Pace::new(Duration::ZERO);
        gap(&mut pace, Duration::ZERO);
        assert!(!pace.looks());
    }

    /// Where to be woken takes longer than it may look, it finds out all the same that work comes soon; and where it does not, trying costs little.
    #[test]
    fn it_tries_now_and_then() {
        let long = MAX * 2;
        let mut pace = Pace::new(MAX);
        (0..REST.0).for_each(|_| gap(&mut pace, long));
        assert!(pace.looks());
        pace.won(Duration::from_micros(3));
        assert_eq!((pace.span, pace.trial), (MAX, false), "it pays");

        let mut pace = Pace::new(MAX);
        let mut looks = 0;
        for _ in 0..100_000 {
            gap(&mut pace, long);
            if pace.looks() {
                pace.lost();
                looks += 1;
            }
        }
        assert!(looks < 40, "{looks}");
    }

    /// However much is found by looking: with every 32 turns and requests the wait set is asked, and always when there is nothing.
    #[test]
    fn announced_work_is_asked_for() {
        for a_turn in [0, 1, 3, 100] {
            let (mut asked, mut requests, mut last) = (Asked::default(), 0, 0);
            for turn in 1..10_000 {
                requests += a_turn;
                if !asked.goes_on(true, requests) {
                    last = turn + requests;
                }
                assert!(turn + requests - last < 32);
            }
            assert!(!asked.goes_on(false, requests));
            assert_eq!(asked.goes_on(true, requests + a_turn), a_turn < 31);
        }
    }

    /// A wake that no lack of work came before says nothing.
    #[test]
    fn a_turn_without_a_sleep_teaches_nothing() {
        let mut pace = Pace::new(MAX);
        gap(&mut pace, Duration::ZERO);
        let span = pace.span;
        pace.woke(|| Instant::now() + Duration::from_secs(1));
        assert_eq!(pace.span, span);
    }
}
