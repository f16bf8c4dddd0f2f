//! Many guests on one vstgt: what they get together beside one guest alone, how evenly they share it, and what they cost while they are idle.
//!
//! They all read one image, read-only, so that nothing but their number tells the two apart.

use super::frontend::{self, Session};
use super::generator::{Generator, memory_for};
use super::images::Images;
use super::memory::Memory;
use super::stats::spread;
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
    /// One guest by itself.
    alone: Loaded,
    /// All of them on one reactor, as the one by itself is.
    on_one: Loaded,
    /// All of them on as many reactors as vstgt chooses.
    together: Loaded,
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
        let row = |what: String, figures: fn(&Round) -> &Loaded| {
            let of = |figure: fn(&Loaded) -> f64, digits| {
                spread(self.rounds.iter().map(|round| figure(figures(round))), digits)
            };
            let ratio = spread(self.rounds.iter().map(|round| figures(round).iops / round.alone.iops), 2);
            let (iops, cpu, evenness) = (of(|l| l.iops, 0), of(|l| l.cpu, 2), of(|l| l.evenness, 2));
            format!("| {what} | {iops} | {cpu} | {ratio} | {evenness} |\n")
        };
        format!(
            "\n## Many guests (tmpfs/randread/4k)\n\n| | IOPS | CPU | ÷ one guest's IOPS | least ÷ most of a guest |\n|---|--:|--:|--:|--:|\n{}{}{}\n\
             The generator is one thread and polls: where there are no more processors than reactors, it shares them.\n\n\
             {GUESTS} idle guests for {} s: {:.2} context switches a second and {:.0} KiB of anonymous memory for each.\n",
            row(format!("1 guest, depth {ALONE}"), |round| &round.alone),
            row(format!("{GUESTS} guests, depth {DEPTH} each, one reactor"), |round| &round.on_one),
            row(format!("{GUESTS} guests, depth {DEPTH} each, a reactor for each processor"), |round| &round.together),
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
        rounds.push(Round {
            alone: load(options, images, &image, (1, ALONE), &["--reactors", "1"], time)?,
            on_one: load(options, images, &image, (GUESTS, DEPTH), &["--reactors", "1"], time)?,
            together: load(options, images, &image, (GUESTS, DEPTH), &[], time)?,
        });
        println!("{:?}", rounds.last());
    }
    let (switches, memory) = idle(options, &image)?;
    Ok(Crowd { rounds, switches, memory })
}

/// What a load brought.
#[derive(Debug, Clone, Copy, PartialEq)]
struct Loaded {
    iops: f64,
    /// µs of processor time for an I/O.
    cpu: f64,
    /// I/Os of the guest that got least, divided by those of the one that got most.
    evenness: f64,
}

fn load(
    options: &Options,
    images: &Images,
    image: &Path,
    (guests, depth): (u16, u16),
    more: &[&str],
    time: Duration,
) -> Result<Loaded> {
    let workload = Workload { medium: Medium::Tmpfs, write: false, random: true, bytes: 4096, depth, queues: guests };
    let dir = WorkDir::new("crowd")?;
    let process = start(options, image, guests, more, &dir)?;
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
    let process = start(options, image, GUESTS, &[], &dir)?;
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

/// vstgt with a socket for each guest, all on one image that they only read.
pub(super) fn start(options: &Options, image: &Path, guests: u16, more: &[&str], dir: &WorkDir) -> Result<Process> {
    let mut command = Command::new(paths::vstgt_binary()?);
    let escaped = |path: &Path| path.to_string_lossy().replace(',', ",,");
    command.args(["--state-dir", "none", "--lun", &format!("file={},read-only=on", escaped(image))]);
    for guest in 0..guests {
        command.args(["--socket-path", &format!("{},initiator=guest{guest}", escaped(&socket(dir, guest)))]);
    }
    command.args(more).args(&options.vstgt_arg);
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

/// A guest on each socket.
pub(super) fn connect(dir: &WorkDir, guests: u16, memory: &Arc<Memory>) -> Result<Vec<Session>> {
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
        let both = number(&status, "voluntary_ctxt_switches:")
            .and_then(|voluntary| Ok(voluntary + number(&status, "nonvoluntary_ctxt_switches:")?));
        match both {
            Ok(both) => sum += both,
            // It ended meanwhile.
            Err(_) if !Path::new(&status).exists() => {}
            Err(e) => return Err(e),
        }
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
        let loaded = |iops| Loaded { iops, cpu: 2.0, evenness: 0.5 };
        let round = |iops| Round { alone: loaded(100.0), on_one: loaded(95.0), together: loaded(iops) };
        let crowd = Crowd { rounds: vec![round(90.0), round(80.0), round(100.0)], switches: 0.0, memory: 300.4 };
        let text = crowd.markdown();
        let together =
            "a reactor for each processor | 90 (80–100) | 2.00 (2.00–2.00) | 0.90 (0.80–1.00) | 0.50 (0.50–0.50) |";
        assert!(text.contains(together), "{text}");
        assert!(text.contains("one reactor | 95 (95–95) | 2.00 (2.00–2.00) | 0.95 (0.95–0.95) |"), "{text}");
        assert!(text.contains("0.00 context switches a second and 300 KiB"), "{text}");
    }

    #[test]
    fn a_process_says_what_it_takes() {
        assert!(anonymous(std::process::id()).unwrap() > 0);
        assert!(switches(std::process::id()).unwrap() > 0);
    }
}
