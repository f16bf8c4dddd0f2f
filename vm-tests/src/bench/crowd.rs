//! Many guests on one vstgt: what they get together beside one guest alone, how evenly they share it, and what they cost while they are idle.
//!
//! They all read one image, read-only, so that nothing but their number tells the two apart.

use super::frontend::{self, Session};
use super::generator::{Generator, memory_for};
use super::images::Images;
use super::memory::Memory;
use super::stats::Spread;
use super::workload::{Medium, Workload};
use super::{Options, cpu, device::Device};
use crate::process::{Process, wait_until};
use crate::workdir::WorkDir;
use crate::{Context, Error, Result, paths};
use std::fs;
use std::path::Path;
use std::process::Command;
use std::sync::Arc;
use std::thread;
use std::time::Duration;

/// How many.
const GUESTS: u16 = 64;

/// Requests that each has out.
const DEPTH: u16 = 4;

/// Those of one guest alone.
const ALONE: u16 = 128;

/// For how long they are idle.
const IDLE: Duration = Duration::from_secs(10);

/// How long vstgt may take to open its sockets.
const BOUND: Duration = Duration::from_secs(20);

/// What a round brought.
#[derive(Debug, Clone, Copy, PartialEq)]
struct Round {
    /// I/Os a second of one guest alone, and of all together.
    alone: f64,
    together: f64,
    /// µs of processor time for an I/O.
    cpu_alone: f64,
    cpu_together: f64,
    /// I/Os of the guest that got least, divided by those of the one that got most.
    evenness: f64,
}

/// What came out.
#[derive(Debug)]
pub struct Crowd {
    rounds: Vec<Round>,
    /// Context switches a second, for each idle guest.
    switches: f64,
    /// KiB of anonymous memory for each idle guest.
    memory: f64,
}

impl Crowd {
    /// As Markdown.
    pub fn markdown(&self) -> String {
        let spread = |figure: fn(&Round) -> f64| Spread::of(self.rounds.iter().map(figure));
        let figure = |figure: fn(&Round) -> f64, digits: usize| match spread(figure) {
            Some(Spread { median, min, max }) => format!("{median:.digits$} ({min:.digits$}–{max:.digits$})"),
            None => "not measured".to_owned(),
        };
        format!(
            "\n## Many guests (tmpfs/randread/4k)\n\n| | IOPS | CPU |\n|---|--:|--:|\n\
             | 1 guest, depth {ALONE} | {} | {} |\n| {GUESTS} guests, depth {DEPTH} each | {} | {} |\n\n\
             Together ÷ alone: {}. The guest that got least ÷ the one that got most: {}.\n\n\
             {GUESTS} idle guests for {} s: {:.2} context switches a second and {:.0} KiB of anonymous memory for each.\n",
            figure(|round| round.alone, 0),
            figure(|round| round.cpu_alone, 2),
            figure(|round| round.together, 0),
            figure(|round| round.cpu_together, 2),
            figure(|round| round.together / round.alone, 2),
            figure(|round| round.evenness, 2),
            IDLE.as_secs(),
            self.switches,
            self.memory,
        )
    }
}

/// Measures it.
///
/// # Errors
/// When vstgt does not serve them.
pub fn measure(options: &Options, images: &Images, time: Duration) -> Result<Crowd> {
    let image = images.get(Medium::Tmpfs, false)?;
    let mut rounds = Vec::new();
    for round in 0..options.rounds {
        println!("many guests: round {} of {}", round + 1, options.rounds);
        let alone = load(options, images, &image, 1, ALONE, time)?;
        let together = load(options, images, &image, GUESTS, DEPTH, time)?;
        rounds.push(Round {
            alone: alone.iops,
            together: together.iops,
            cpu_alone: alone.cpu,
            cpu_together: together.cpu,
            evenness: together.evenness,
        });
        println!("{:?}", rounds.last());
    }
    let (switches, memory) = idle(options, &image)?;
    Ok(Crowd { rounds, switches, memory })
}

struct Loaded {
    iops: f64,
    cpu: f64,
    evenness: f64,
}

fn load(options: &Options, images: &Images, image: &Path, guests: u16, depth: u16, time: Duration) -> Result<Loaded> {
    let workload = Workload { medium: Medium::Tmpfs, write: false, random: true, bytes: 4096, depth, queues: guests };
    let dir = WorkDir::new("crowd")?;
    let process = start(options, image, guests, &dir)?;
    // Rings beside what the requests take.
    let memory = Arc::new(Memory::new(memory_for(&workload) + usize::from(guests) * (64 << 10))?);
    let mut sessions = connect(&dir, guests, &memory)?;
    let rings = sessions.iter_mut().flat_map(|session| std::mem::take(&mut session.queues)).collect();
    let mut generator = Generator::new(&memory, Device::Scsi, rings, &workload, images.bytes(), false, || ())?;
    generator.run(time.min(Duration::from_secs(1)))?;
    let before = cpu::of_process(process.id())?;
    let outcome = generator.run(time)?;
    let spent = cpu::of_process(process.id())?.saturating_sub(before);
    let (least, most) = (outcome.by_queue.iter().min(), outcome.by_queue.iter().max());
    drop(process);
    dir.finish();
    Ok(Loaded {
        iops: outcome.count as f64 / outcome.elapsed.as_secs_f64(),
        cpu: spent.as_secs_f64() * 1e6 / outcome.count.max(1) as f64,
        evenness: least.zip(most).map_or(0.0, |(least, most)| *least as f64 / (*most).max(1) as f64),
    })
}

/// Context switches a second and KiB of anonymous memory, for each guest that is connected and does nothing.
fn idle(options: &Options, image: &Path) -> Result<(f64, f64)> {
    let dir = WorkDir::new("crowd")?;
    let process = start(options, image, GUESTS, &dir)?;
    let before = anonymous(process.id())?;
    let memory = Arc::new(Memory::new(usize::from(GUESTS) * (128 << 10) + (2 << 20))?);
    let sessions = connect(&dir, GUESTS, &memory)?;
    // What they bring with them is done by then.
    thread::sleep(Duration::from_secs(2));
    let memory = anonymous(process.id())?.saturating_sub(before);
    let switched = switches(process.id())?;
    thread::sleep(IDLE);
    let switched = switches(process.id())?.saturating_sub(switched);
    drop(sessions);
    drop(process);
    dir.finish();
    let each = |sum: f64| sum / f64::from(GUESTS);
    Ok((each(switched as f64) / IDLE.as_secs_f64(), each(memory as f64)))
}

fn start(options: &Options, image: &Path, guests: u16, dir: &WorkDir) -> Result<Process> {
    let mut command = Command::new(paths::vstgt_binary()?);
    let escaped = |path: &Path| path.to_string_lossy().replace(',', ",,");
    command.args(["--state-dir", "none", "--lun", &format!("file={},read-only=on", escaped(image))]);
    for guest in 0..guests {
        command.args(["--socket-path", &format!("{},initiator=guest{guest}", escaped(&socket(dir, guest)))]);
    }
    command.args(&options.vstgt_arg);
    let mut process = Process::start("vstgt", command, &dir.path("vstgt.log"))?;
    let there = wait_until(BOUND, || match process.ended()? {
        Some(status) => Err(Error::new(process.explain(&format!("vstgt ended early ({status})")))),
        None => Ok((0..guests).all(|guest| socket(dir, guest).exists()).then_some(())),
    })?;
    there.context(|| process.explain("vstgt opens no sockets"))?;
    Ok(process)
}

fn socket(dir: &WorkDir, guest: u16) -> std::path::PathBuf {
    dir.path(&format!("{guest}"))
}

fn connect(dir: &WorkDir, guests: u16, memory: &Arc<Memory>) -> Result<Vec<Session>> {
    (0..guests).map(|guest| frontend::start(&socket(dir, guest), Device::Scsi, memory, 1)).collect()
}

/// KiB of anonymous memory.
fn anonymous(pid: u32) -> Result<u64> {
    number(&format!("/proc/{pid}/status"), "RssAnon:")
}

/// Context switches of all threads.
fn switches(pid: u32) -> Result<u64> {
    let threads = fs::read_dir(format!("/proc/{pid}/task")).context(|| "look at vstgt's threads")?;
    let mut sum = 0;
    for thread in threads {
        let status = thread.context(|| "look at vstgt's threads")?.path().join("status");
        let status = status.to_string_lossy().into_owned();
        sum += number(&status, "voluntary_ctxt_switches:")? + number(&status, "nonvoluntary_ctxt_switches:")?;
    }
    Ok(sum)
}

fn number(path: &str, label: &str) -> Result<u64> {
    let text = fs::read_to_string(path).context(|| format!("read {path}"))?;
    let line = text.lines().find_map(|line| line.strip_prefix(label));
    let word = line.and_then(|line| line.split_whitespace().next());
    word.and_then(|word| word.parse().ok()).context(|| format!("{path} says nothing of {label}"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn figures_come_with_their_spread() {
        let round = |together| Round { alone: 100.0, together, cpu_alone: 1.0, cpu_together: 2.0, evenness: 0.5 };
        let crowd = Crowd { rounds: vec![round(90.0), round(80.0), round(100.0)], switches: 0.0, memory: 300.4 };
        let text = crowd.markdown();
        assert!(text.contains("| 64 guests, depth 4 each | 90 (80–100) | 2.00 (2.00–2.00) |"), "{text}");
        assert!(text.contains("Together ÷ alone: 0.90 (0.80–1.00)"), "{text}");
        assert!(text.contains("0.00 context switches a second and 300 KiB"), "{text}");
    }

    #[test]
    fn a_process_says_what_it_takes() {
        assert!(anonymous(std::process::id()).unwrap() > 0);
        assert!(switches(std::process::id()).unwrap() > 0);
    }
}
