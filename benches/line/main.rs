//! What a command costs the reactor that serves it, whole: `cargo bench --bench line [FILTER]`.
//!
//! One reactor of this process serves a front-end of this process over an image that does nothing: chain → information unit → CMD_REQ → plan →
//! null operation → CMD_RSP → information unit → response → used ring → CMD_DONE. The front-end polls on another thread and keeps the reactor
//! busy, so that what the reactor's own processor clock says, divided by the commands it answered, is what a command costs; what the front-end
//! spends is not in it. It does what a driver does: it writes each request anew and reads each response, so the reactor finds
//! other processors' cache lines, as it does in earnest.
//!
//! A row is the median of several stretches, with the least and the most, in nanoseconds of processor time for a command. `sleeps` is how
//! often the reactor slept in 1000 commands: more than a few mean that the front-end could not keep up (the machine has other work), and that the figure has
//! waking up in it. `share` is how much of a processor the reactor got.
//!
//! The row `one at a time` is another matter: what a reactor spends from one command to the next one that the driver sends once it has the answer,
//! the looking and the driver's own time in it. It is the response time of a processor that does nothing but that.
//!
//! Without `--bench`, as tests are run, every row is tried for a moment.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, reason = "a bench that cannot go on ends")]

mod clock;
mod driver;
#[path = "../../tests/frontend/mod.rs"]
mod frontend;
#[path = "../null/mod.rs"]
mod null;
mod serve;

use std::time::Duration;

use clock::ThreadClock;
use driver::{Driver, Load, What};
use serve::Served;

/// How long, and how often, is measured.
struct Pace {
    stretch: Duration,
    stretches: usize,
}

const BENCH: Pace = Pace { stretch: Duration::from_millis(500), stretches: 9 };
const TRIAL: Pace = Pace { stretch: Duration::from_millis(10), stretches: 1 };

/// Longer than the driver takes for anything.
const LOOKING: Duration = Duration::from_millis(1);

const LOADS: [(&str, Load); 7] = [
    ("read 4k", Load { what: What::Read, ..Load::USUAL }),
    ("read 4k, direct descriptors", Load { what: What::Read, indirect: false, ..Load::USUAL }),
    ("read 4k, in flight tracked", Load { what: What::Read, tracked: true, ..Load::USUAL }),
    ("write 4k", Load { what: What::Write, ..Load::USUAL }),
    ("write 4k, in flight tracked", Load { what: What::Write, tracked: true, ..Load::USUAL }),
    ("test unit ready", Load { what: What::TestUnitReady, ..Load::USUAL }),
    ("read 4k, one at a time", Load { what: What::Read, alone: true, ..Load::USUAL }),
];

fn main() {
    let words: Vec<String> = std::env::args().skip(1).collect();
    let (options, filters): (Vec<_>, Vec<_>) = words.into_iter().partition(|word| word.starts_with('-'));
    let bench = options.iter().any(|word| word == "--bench") && !options.iter().any(|word| word == "--test");
    let pace = if bench { BENCH } else { TRIAL };
    println!(
        "{:<30}{:>10}{:>10}{:>10}{:>10}{:>10}",
        "ns of the reactor a command", "median", "least", "most", "sleeps", "share"
    );
    for (name, load) in LOADS {
        if filters.is_empty() || filters.iter().any(|filter| name.contains(filter.as_str())) {
            row(name, &load, &pace);
        }
    }
}

fn row(name: &str, load: &Load, pace: &Pace) {
    // What it spends on looking for work is no command's, unless how soon it finds some is the question.
    let served = Served::start(if load.alone { LOOKING } else { Duration::ZERO });
    let clock = ThreadClock::of("vstgt-reactor0");
    let mut driver = Driver::attach(&served.socket, load);
    // Until everything has grown to its size.
    driver.run(pace.stretch / 5);
    let mut figures = Vec::new();
    let (mut commands, mut sleeps, mut share) = (0, 0, 0.0);
    for _ in 0..pace.stretches {
        let (spent, slept) = (clock.spent(), clock.sleeps());
        let ran = driver.run(pace.stretch);
        let spent = clock.spent() - spent;
        figures.push(spent.as_nanos() as f64 / ran.commands as f64);
        commands += ran.commands;
        sleeps += clock.sleeps() - slept;
        share += spent.as_secs_f64() / ran.time.as_secs_f64() / pace.stretches as f64;
    }
    figures.sort_by(f64::total_cmp);
    let (median, least, most) = (figures[figures.len() / 2], figures[0], figures[figures.len() - 1]);
    let sleeps = sleeps as f64 * 1000.0 / commands as f64;
    println!("{name:<30}{median:>10.0}{least:>10.0}{most:>10.0}{sleeps:>10.2}{share:>10.2}");
    drop(driver);
    served.stop();
}
