//! Small reads beside a stream of large ones: how long the small ones take, and what is left of the stream.
//!
//! Two guests on one reactor read one image: one at random places, one request at a time; the other one after another, several at a time.

use super::Options;
use super::crowd::{connect, start};
use super::device::Device;
use super::generator::{Generator, Outcome, memory_for};
use super::images::Images;
use super::memory::Memory;
use super::stats::spread;
use super::workload::{Medium, Workload};
use crate::Result;
use crate::workdir::WorkDir;
use std::sync::Arc;
use std::time::Duration;

const SMALL: Workload =
    Workload { medium: Medium::Tmpfs, write: false, random: true, bytes: 4096, depth: 1, queues: 1 };

const STREAM: Workload =
    Workload { medium: Medium::Tmpfs, write: false, random: false, bytes: 1 << 20, depth: 8, queues: 1 };

/// What a round brought.
#[derive(Debug, Clone, Copy, PartialEq)]
struct Round {
    /// Of the small reads by themselves.
    alone: Times,
    /// Of the small reads beside the stream.
    beside: Times,
    /// MiB/s of the stream by itself, and beside the small reads.
    stream: [f64; 2],
}

/// Response times in µs.
#[derive(Debug, Clone, Copy, PartialEq)]
struct Times {
    p50: f64,
    p99: f64,
    p999: f64,
}

impl Times {
    fn of(outcome: &Outcome) -> Times {
        let percentile = |percent| outcome.times.percentile(percent) as f64 / 1e3;
        Times { p50: percentile(50.0), p99: percentile(99.0), p999: percentile(99.9) }
    }
}

/// What came out, by medium.
#[derive(Debug)]
pub struct Mixed {
    rounds: Vec<(Medium, Vec<Round>)>,
}

impl Mixed {
    /// As Markdown.
    pub fn markdown(&self) -> String {
        let mut text = "\n## A 4 KiB read at a time beside 8 reads of 1 MiB, two guests on one reactor\n\n\
            | | p50 | p99 | p99.9 | stream MiB/s |\n|---|--:|--:|--:|--:|\n"
            .to_owned();
        for (medium, rounds) in &self.rounds {
            for (what, times, stream) in
                [("alone", (|r| r.alone) as fn(&Round) -> Times, 0), ("beside the stream", |r| r.beside, 1)]
            {
                let of = |figure: fn(&Times) -> f64| spread(rounds.iter().map(|round| figure(&times(round))), 1);
                let stream = spread(rounds.iter().map(|round| round.stream[stream]), 0);
                text += &format!(
                    "| {medium}, {what} | {} | {} | {} | {stream} |\n",
                    of(|t| t.p50),
                    of(|t| t.p99),
                    of(|t| t.p999)
                );
            }
        }
        text
    }
}

/// Measures it.
///
/// # Errors
/// When vstgt does not serve them.
pub fn measure(options: &Options, images: &Images, time: Duration) -> Result<Mixed> {
    let mut media = vec![(Medium::Tmpfs, Vec::new()), (Medium::Cached, Vec::new())];
    for round in 0..options.rounds {
        for (medium, rounds) in &mut media {
            let small = load(options, images, *medium, &[&SMALL], time)?;
            let stream = load(options, images, *medium, &[&STREAM], time)?;
            let both = load(options, images, *medium, &[&SMALL, &STREAM], time)?;
            let rate = |outcome: &Outcome| {
                outcome.by_queue.last().copied().unwrap_or_default() as f64 / outcome.elapsed.as_secs_f64()
            };
            rounds.push(Round {
                alone: Times::of(&small),
                beside: Times::of(&both),
                stream: [rate(&stream), rate(&both)],
            });
            println!("mixed load, {medium}, round {} of {}: {:?}", round + 1, options.rounds, rounds.last());
        }
    }
    Ok(Mixed { rounds: media })
}

/// Guests with one load each on one reactor. The first one's response times are noted.
fn load(options: &Options, images: &Images, medium: Medium, loads: &[&Workload], time: Duration) -> Result<Outcome> {
    let image = images.get(medium, false)?;
    let dir = WorkDir::new("mixed")?;
    let guests = loads.len() as u16;
    let process = start(options, &image, guests, &["--reactors", "1"], &dir)?;
    let memory = Arc::new(Memory::new(loads.iter().map(|load| memory_for(load)).sum::<usize>())?);
    let mut sessions = connect(&dir, guests, &memory)?;
    let rings: Vec<_> = sessions.iter_mut().flat_map(|session| std::mem::take(&mut session.queues)).collect();
    let mut generator = Generator::new(&memory, Device::Scsi, Vec::new(), loads[0], images.bytes(), false, || ())?;
    for (index, (ring, load)) in rings.into_iter().zip(loads).enumerate() {
        generator.add(&memory, Device::Scsi, ring, load, images.bytes(), index == 0, || ())?;
    }
    generator.run(time.min(Duration::from_secs(1)))?;
    let outcome = generator.run(time)?;
    drop(process);
    dir.finish();
    Ok(outcome)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn figures_come_with_their_spread() {
        let times = |p99| Times { p50: 2.0, p99, p999: 9.0 };
        let round = |p99| Round { alone: times(3.0), beside: times(p99), stream: [5000.0, 4000.0] };
        let text = Mixed { rounds: vec![(Medium::Tmpfs, vec![round(40.0), round(50.0), round(60.0)])] }.markdown();
        assert!(
            text.contains("| tmpfs, beside the stream | 2.0 (2.0–2.0) | 50.0 (40.0–60.0) | 9.0 (9.0–9.0) | 4000"),
            "{text}"
        );
        assert!(text.contains("| tmpfs, alone | 2.0 (2.0–2.0) | 3.0 (3.0–3.0) | 9.0 (9.0–9.0) | 5000"), "{text}");
    }
}
