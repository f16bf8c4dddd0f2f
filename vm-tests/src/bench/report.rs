//! What came out, as a table.

use super::stats::Spread;
use super::target::{Targets, VSTGT};
use super::workload::Workload;
use super::{Options, Sample};
use std::fmt::Write;

/// How long a reason in the table may be.
const REASON: usize = 160;

/// One target's rounds of one workload.
#[derive(Debug, Clone)]
pub struct Entry {
    /// The target.
    pub name: String,
    /// One for each round.
    pub samples: Vec<Option<Sample>>,
    /// Why there are none.
    pub failure: Option<String>,
}

impl Entry {
    /// Of a target that has not run yet, or has an excuse.
    pub fn new(name: &str, excuse: Option<&str>) -> Entry {
        Entry { name: name.to_owned(), samples: Vec::new(), failure: excuse.map(str::to_owned) }
    }

    /// The spread of one figure over the rounds.
    pub fn spread(&self, figure: impl Fn(&Sample) -> f64) -> Option<Spread> {
        Spread::of(self.samples.iter().flatten().map(figure))
    }

    /// The spread of system calls for an I/O, where they were counted.
    pub fn calls(&self) -> Option<Spread> {
        Spread::of(self.samples.iter().flatten().filter_map(|sample| sample.calls))
    }

    /// The spread of this target's figure divided by another's of the same round.
    pub fn ratio(&self, other: &Entry, figure: impl Fn(&Sample) -> f64) -> Option<Spread> {
        let rounds = self.samples.iter().zip(&other.samples);
        Spread::of_ratios(rounds.filter_map(|(a, b)| Some((figure(a.as_ref()?), figure(b.as_ref()?)))))
    }
}

/// One workload's results.
#[derive(Debug, Clone)]
pub struct Row {
    /// The workload.
    pub workload: Workload,
    /// I/Os a second that the generator reaches against nothing.
    pub ceiling: f64,
    /// What each target did.
    pub entries: Vec<Entry>,
}

/// Everything.
#[derive(Debug, Clone)]
pub struct Report {
    /// How it was measured, in sentences.
    pub preface: String,
    /// The workloads.
    pub rows: Vec<Row>,
}

impl Report {
    /// Without results.
    pub fn new(options: &Options, targets: &Targets, file_system: &str) -> Report {
        let processors = std::thread::available_parallelism().map_or(0, usize::from);
        let waits = if options.interrupts { "sleeps until it is interrupted" } else { "polls" };
        let mut preface = format!(
            "{} interleaved rounds of {} s on {processors} processors, images of {} MiB; *cached* and *direct* are on {file_system}. \
             The front-end {waits}. IOPS and CPU (µs of the back-end's processor time for an I/O): median (least to greatest \
             round). Calls: the back-end's system calls for an I/O, median. Response times in µs, medians. Ratios: vstgt's figure divided by this target's in the same round, median \
             (least to greatest). † more than half of what the generator can do: the back-end might do more.",
            options.rounds, options.seconds, options.image_mib
        );
        for (name, reason) in &targets.absent {
            write!(preface, " Not available: {name} ({}).", brief(reason)).unwrap_or_default();
        }
        Report { preface, rows: Vec::new() }
    }

    /// A workload and who does it.
    pub fn add(&mut self, workload: Workload, ceiling: f64, entries: impl Iterator<Item = Entry>) {
        self.rows.push(Row { workload, ceiling, entries: entries.collect() });
    }

    /// Goes through everything that is to be measured in a round.
    pub fn each(&mut self, mut measure: impl FnMut(&Workload, &mut Entry)) {
        for row in &mut self.rows {
            for entry in &mut row.entries {
                measure(&row.workload, entry);
            }
        }
    }

    /// The report in Markdown.
    pub fn markdown(&self) -> String {
        let mut text = format!("# Measured with `cargo xtask bench`\n\n{}\n", self.preface);
        for row in &self.rows {
            text.push_str(&row.markdown());
        }
        text
    }
}

impl Row {
    /// Whether this many I/Os a second may be the generator's limit rather than the back-end's; fio needs none.
    pub fn limited(&self, entry: &Entry, iops: f64) -> bool {
        !entry.name.starts_with("fio") && iops * 2.0 > self.ceiling
    }

    fn markdown(&self) -> String {
        let mut text = format!("\n## {} (generator: {:.0} IOPS)\n\n", self.workload, self.ceiling);
        text.push_str("| target | IOPS | CPU | calls | p50 | p99 | p99.9 | vstgt's IOPS ÷ | vstgt's CPU ÷ |\n");
        text.push_str("|---|--:|--:|--:|--:|--:|--:|--:|--:|\n");
        let vstgt = self.entries.iter().find(|entry| entry.name == VSTGT);
        for entry in &self.entries {
            let line = self.line(entry, vstgt);
            let reason = || format!("{} | | | | | | |", brief(entry.failure.as_deref().unwrap_or("not measured")));
            let cells = line.unwrap_or_else(reason);
            let rounds = entry.samples.len();
            let broken = if rounds > 0 && entry.failure.is_some() {
                format!(" (failed in round {})", rounds + 1)
            } else {
                String::new()
            };
            text.push_str(&format!("| {}{broken} | {cells} |\n", entry.name));
        }
        text
    }

    fn line(&self, entry: &Entry, vstgt: Option<&Entry>) -> Option<String> {
        let iops = entry.spread(|s| s.iops)?;
        let mark = if self.limited(entry, iops.median) { "†" } else { "" };
        let cpu = entry.spread(|s| s.cpu)?;
        let median = |figure: fn(&Sample) -> f64| entry.spread(figure).map_or(0.0, |s| s.median);
        let ratio = |figure: fn(&Sample) -> f64| {
            let vstgt = vstgt.filter(|vstgt| vstgt.name != entry.name)?;
            let Spread { median, min, max } = vstgt.ratio(entry, figure)?;
            Some(format!("{median:.2} ({min:.2}–{max:.2})"))
        };
        Some(format!(
            "{:.0}{mark} ({:.0}–{:.0}) | {:.2} ({:.2}–{:.2}) | {} | {:.1} | {:.1} | {:.1} | {} | {}",
            iops.median,
            iops.min,
            iops.max,
            cpu.median,
            cpu.min,
            cpu.max,
            entry.calls().map(|calls| format!("{:.2}", calls.median)).unwrap_or_default(),
            median(|s| s.p50),
            median(|s| s.p99),
            median(|s| s.p999),
            ratio(|s| s.iops).unwrap_or_default(),
            ratio(|s| s.cpu).unwrap_or_default(),
        ))
    }
}

/// A reason that fits into a table.
fn brief(reason: &str) -> String {
    // Of an error with a log, its first line and the log's last.
    let lines: Vec<&str> = reason.lines().map(str::trim).filter(|line| !line.starts_with("---")).collect();
    let kept = match lines.as_slice() {
        [first, .., last] => format!("{first} {last}"),
        _ => lines.join(" "),
    };
    let line = kept.split_whitespace().collect::<Vec<_>>().join(" ").replace('|', "\\|");
    match line.char_indices().nth(REASON) {
        Some((end, _)) => format!("{}…", &line[..end]),
        None => line,
    }
}

#[cfg(test)]
pub(super) mod tests {
    use super::*;
    use crate::bench::workload::all;

    pub fn example() -> Report {
        let sample = |iops, cpu| Some(Sample { iops, p50: 1.0, p99: 2.0, p999: 3.0, cpu, calls: Some(0.25) });
        let entry = |name: &str, samples: Vec<Option<Sample>>| Entry { name: name.into(), samples, failure: None };
        let entries = vec![
            entry(VSTGT, vec![sample(300.0, 1.0), sample(200.0, 2.0)]),
            entry("a & b", vec![sample(100.0, 4.0), sample(100.0, 4.0)]),
            Entry::new("gone", Some("no | such\nthing")),
        ];
        Report { preface: "How.".into(), rows: vec![Row { workload: all(true)[0], ceiling: 450.0, entries }] }
    }

    #[test]
    fn the_table_has_spreads_ratios_and_reasons() {
        let text = example().markdown();
        assert!(
            text.contains("| vstgt | 250† (200–300) | 1.50 (1.00–2.00) | 0.25 | 1.0 | 2.0 | 3.0 |  |  |"),
            "{text}"
        );
        assert!(text.contains("| a & b | 100 (100–100) | 4.00 (4.00–4.00) |"), "{text}");
        assert!(text.contains("| 2.50 (2.00–3.00) | 0.38 (0.25–0.50) |"), "{text}");
        assert!(text.contains("| gone | no \\| such thing |"), "{text}");
    }

    #[test]
    fn a_long_reason_is_cut_between_characters() {
        let text = brief(&"ü".repeat(500));
        assert_eq!(text.chars().count(), REASON + 1);
    }
}
