//! Numbers over many I/Os and over a few rounds.

/// Buckets for each power of two: a value is known to 1/32 of itself.
const STEPS: u64 = 32;

/// Response times, counted in buckets that grow with the value.
#[derive(Debug, Clone)]
pub struct Histogram {
    counts: Vec<u64>,
    total: u64,
}

impl Default for Histogram {
    fn default() -> Histogram {
        Histogram { counts: vec![0; bucket(u64::MAX) + 1], total: 0 }
    }
}

fn bucket(value: u64) -> usize {
    if value < STEPS {
        return value as usize;
    }
    let shift = value.ilog2() - STEPS.ilog2();
    (u64::from(shift + 1) * STEPS + (value >> shift) - STEPS) as usize
}

/// The middle of a bucket.
fn value(bucket: usize) -> u64 {
    let (row, step) = (bucket as u64 / STEPS, bucket as u64 % STEPS);
    match row {
        0 => step,
        _ => ((STEPS + step) << (row - 1)) + ((1 << (row - 1)) >> 1),
    }
}

impl Histogram {
    /// Counts a value.
    pub fn record(&mut self, value: u64) {
        self.counts[bucket(value)] += 1;
        self.total += 1;
    }

    /// How many there are.
    pub fn total(&self) -> u64 {
        self.total
    }

    /// The least value that at least `percent` of all values do not exceed, to the bucket; 0 without any.
    pub fn percentile(&self, percent: f64) -> u64 {
        let rank = ((percent / 100.0 * self.total as f64).ceil() as u64).max(1);
        let mut below = 0;
        for (index, count) in self.counts.iter().enumerate() {
            below += count;
            if below >= rank {
                return value(index);
            }
        }
        0
    }
}

/// The median of a few rounds and, in brackets, the least and the greatest, as reports have them.
pub fn spread(rounds: impl IntoIterator<Item = f64>, digits: usize) -> String {
    match Spread::of(rounds) {
        Some(Spread { median, min, max }) => format!("{median:.digits$} ({min:.digits$}–{max:.digits$})"),
        None => "not measured".to_owned(),
    }
}

/// The median of a few rounds, and how far they lie apart.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Spread {
    /// Half of the rounds are at most this.
    pub median: f64,
    /// The least round.
    pub min: f64,
    /// The greatest round.
    pub max: f64,
}

impl Spread {
    /// Of these rounds; `None` without any.
    pub fn of(rounds: impl IntoIterator<Item = f64>) -> Option<Spread> {
        let mut sorted: Vec<f64> = rounds.into_iter().collect();
        sorted.sort_by(f64::total_cmp);
        let (min, max) = (*sorted.first()?, *sorted.last()?);
        let middle = sorted.len() / 2;
        let median = if sorted.len() % 2 == 1 { sorted[middle] } else { (sorted[middle - 1] + sorted[middle]) / 2.0 };
        Some(Spread { median, min, max })
    }

    /// Of the quotients, round by round: noise that lasts longer than a round hits both sides of it.
    pub fn of_ratios(pairs: impl IntoIterator<Item = (f64, f64)>) -> Option<Spread> {
        Spread::of(pairs.into_iter().filter(|(_, below)| *below > 0.0).map(|(above, below)| above / below))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn buckets_join_and_know_their_values() {
        let mut last = 0;
        for value in (0..100_000).chain((17..63).flat_map(|p| [(1u64 << p) - 1, 1 << p])) {
            let b = bucket(value);
            if value < 100_000 {
                assert!(b == last || b == last + 1, "{value}");
                last = b;
            }
            let middle = super::value(b);
            assert!(middle.abs_diff(value) * STEPS <= value, "{value} counted as {middle}");
        }
        assert_eq!(bucket(u64::MAX), Histogram::default().counts.len() - 1);
    }

    #[test]
    fn percentiles_are_ranks() {
        let mut histogram = Histogram::default();
        assert_eq!(histogram.percentile(50.0), 0);
        (1..=10).for_each(|value| histogram.record(value));
        assert_eq!(histogram.total(), 10);
        assert_eq!(histogram.percentile(50.0), 5);
        assert_eq!(histogram.percentile(90.0), 9);
        assert_eq!(histogram.percentile(99.9), 10);
        assert_eq!(histogram.percentile(0.0), 1);
    }

    #[test]
    fn a_spread_is_median_and_ends() {
        assert_eq!(Spread::of([]), None);
        assert_eq!(Spread::of([3.0, 1.0, 2.0]), Some(Spread { median: 2.0, min: 1.0, max: 3.0 }));
        assert_eq!(Spread::of([4.0, 1.0]), Some(Spread { median: 2.5, min: 1.0, max: 4.0 }));
    }

    #[test]
    fn ratios_are_taken_within_a_round() {
        // Twice as fast in either round, though the second was slow for both.
        let spread = Spread::of_ratios([(200.0, 100.0), (20.0, 10.0), (1.0, 0.0)]).unwrap();
        assert_eq!(spread, Spread { median: 2.0, min: 2.0, max: 2.0 });
    }
}
