//! `cargo xtask bench`: vstgt and its peers under the same load, in turn, in one run.
//!
//! ```text
//! workload ─► target (a process) ◄── frontend (handshake) ─► generator ─► Sample ─► report ─► table, picture
//!                                         memory, ring, device ┘   └ stats
//! ```
//!
//! The load comes from a vhost-user front-end of ours ([`frontend`], [`generator`]), not from a guest: what is measured is
//! the back-end. Machines are noisy, so rounds are interleaved (every target in every round) and what counts are ratios
//! within a round. Every read is checked for the block it should bring.
//!
//! A figure in IOPS is the back-end's only where the generator can do clearly more: it is driven against a back-end that
//! does nothing ([`null`]), and figures beyond half of that are marked. Nothing here passes or fails by speed.

pub mod calls;
pub mod cpu;
pub mod crowd;
pub mod device;
pub mod fio;
pub mod frontend;
pub mod generator;
pub mod images;
pub mod memory;
pub mod mixed;
pub mod null;
pub mod peers;
pub mod picture;
pub mod report;
pub mod ring;
pub mod spdk;
pub mod stats;
pub mod target;
pub mod workload;

use crate::process::{Process, wait_until};
use crate::workdir::WorkDir;
use crate::{Context, Error, Result, paths};
use generator::Generator;
use images::Images;
use memory::Memory;
use report::{Entry, Report};
use std::fs;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;
use target::{Kind, Target, Targets};
use workload::{Medium, Workload};

/// How long a back-end may take to open its socket.
const BOUND: Duration = Duration::from_secs(20);

/// How the bench is run.
#[derive(Debug, Clone, clap::Args)]
pub struct Options {
    /// Rounds: every target does every workload once in each
    #[arg(long, default_value_t = 5, value_parser = clap::value_parser!(u32).range(1..))]
    pub rounds: u32,
    /// Seconds of load for each figure
    #[arg(long, default_value_t = 1.0)]
    pub seconds: f64,
    /// Only what has this in its name (MEDIUM/PATTERN/SIZE/DEPTH/QUEUES TARGET); several words must all be there; repeatable
    #[arg(long, value_name = "PATTERN")]
    pub only: Vec<String>,
    /// Few workloads, two rounds, half a second
    #[arg(long)]
    pub quick: bool,
    /// Sleep until the back-end interrupts instead of polling, as Linux's driver does
    #[arg(long)]
    pub interrupts: bool,
    /// Many guests at once on vstgt, too: together, and idle
    #[arg(long)]
    pub crowd: bool,
    /// Small reads beside a stream of large ones on vstgt, too
    #[arg(long)]
    pub mixed: bool,
    /// MiB of an image
    #[arg(long, default_value_t = 1024, value_parser = clap::value_parser!(u64).range(4..))]
    pub image_mib: u64,
    /// Folder on the file system of a disk, for images
    #[arg(long, value_name = "DIR")]
    pub dir: Option<PathBuf>,
    /// Another vstgt binary to compare with
    #[arg(long, value_name = "BIN")]
    pub baseline: Option<PathBuf>,
    /// SPDK's vhost application (build/bin/vhost) to compare with; with free huge pages it is at its best
    #[arg(long, value_name = "BIN")]
    pub spdk: Option<PathBuf>,
    /// An argument more for vstgt; repeatable
    #[arg(long, value_name = "ARG", allow_hyphen_values = true)]
    pub vstgt_arg: Vec<String>,
    /// Copy table and picture into the documentation
    #[arg(long)]
    pub write_docs: bool,
}

impl Options {
    fn wants(&self, workload: &Workload, target: &Target) -> bool {
        let name = format!("{workload} {}", target.name);
        self.only.is_empty() || self.only.iter().any(|only| only.split_whitespace().all(|word| name.contains(word)))
    }
}

/// What one target did with one workload in one round.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Sample {
    /// I/Os a second.
    pub iops: f64,
    /// Response time in µs that half of the I/Os do not exceed.
    pub p50: f64,
    /// That 99 of 100 do not exceed.
    pub p99: f64,
    /// That 999 of 1000 do not exceed.
    pub p999: f64,
    /// µs of processor time that the back-end spent on an I/O.
    pub cpu: f64,
    /// System calls that it made for an I/O, where the kernel counts them.
    pub calls: Option<f64>,
}

/// Runs the bench; prints and writes its report.
///
/// # Errors
/// When there is no vstgt, or files cannot be written. A target that fails is reported, not an error.
pub fn run(mut options: Options) -> Result<()> {
    if options.quick {
        options.rounds = options.rounds.min(2);
        options.seconds = options.seconds.min(0.5);
        options.image_mib = options.image_mib.min(256);
    }
    let time = Duration::try_from_secs_f64(options.seconds).context(|| "--seconds")?;
    let (baseline, spdk) = (options.baseline.as_deref(), options.spdk.as_deref());
    let targets = Targets::find(&options.vstgt_arg, baseline, spdk, peers::vhost_device_scsi())?;
    for (name, reason) in &targets.absent {
        println!("not available: {name}: {reason}");
    }
    let disk = options.dir.clone().unwrap_or_else(paths::target);
    let images = Images::new(&disk, options.image_mib << 20)?;
    let mut report = Report::new(&options, &targets, &images::file_system(&disk));
    for workload in workload::all(options.quick) {
        let wanted: Vec<&Target> = targets.here.iter().filter(|target| options.wants(&workload, target)).collect();
        if wanted.is_empty() {
            continue;
        }
        let ceiling = null::ceiling(&workload, time.min(Duration::from_millis(300)), images.bytes())?;
        report.add(workload, ceiling, wanted.iter().map(|target| Entry::new(&target.name, target.excuse(&workload))));
    }
    for round in 0..options.rounds {
        println!("round {} of {}", round + 1, options.rounds);
        report.each(|workload, entry| {
            let target = targets.here.iter().find(|target| target.name == entry.name);
            let Some(target) = target.filter(|_| entry.failure.is_none()) else {
                return;
            };
            match measure(target, workload, &images, time, options.interrupts) {
                Ok(sample) => {
                    println!(
                        "{workload:32} {:30} {:>9.0} IOPS {:>7.2} µs CPU  p50 {:>8.1} p99 {:>8.1}",
                        target.name, sample.iops, sample.cpu, sample.p50, sample.p99
                    );
                    entry.samples.push(Some(sample));
                }
                Err(error) => {
                    println!("{workload:32} {:30} failed: {error}", target.name);
                    entry.failure = Some(error.to_string());
                }
            }
        });
    }
    let mut more = String::new();
    if options.mixed {
        more += &mixed::measure(&options, &images, time)?.markdown();
    }
    if options.crowd {
        more += &crowd::measure(&options, &images, time)?.markdown();
    }
    drop(images);
    keep(&report, &more, options.write_docs)
}

fn keep(report: &Report, more: &str, docs: bool) -> Result<()> {
    let (table, picture) = (report.markdown() + more, picture::svg(report));
    println!("\n{table}");
    let mut dirs = vec![paths::target().join("bench")];
    if docs {
        dirs.push(paths::repository().join("docs"));
    }
    for dir in dirs {
        fs::create_dir_all(&dir).context(|| format!("make {}", dir.display()))?;
        for (name, text) in [("bench.md", &table), ("bench.svg", &picture)] {
            let path = dir.join(name);
            fs::write(&path, text).context(|| format!("write {}", path.display()))?;
            println!("wrote {}", path.display());
        }
    }
    Ok(())
}

/// One figure: starts the target, loads it for `time` and ends it.
///
/// # Errors
/// When it does not start, fails a request or stops answering.
pub fn measure(
    target: &Target,
    workload: &Workload,
    images: &Images,
    time: Duration,
    interrupts: bool,
) -> Result<Sample> {
    let fio = matches!(target.kind, Kind::Fio(_));
    let medium = match (workload.medium, &target.kind) {
        (Medium::Cached, Kind::VstgtShared(..)) => Medium::Direct,
        (medium, _) => medium,
    };
    let image = images.get(medium, fio && workload.write)?;
    let sample = match target.kind {
        Kind::Fio(engine) => fio::measure(engine, workload, &image, time)?,
        _ => {
            let dir = WorkDir::new("bench")?;
            let sample = measure_served(target, workload, images, &image, &dir, time, interrupts)?;
            dir.finish();
            sample
        }
    };
    if workload.write {
        images.settle(&image)?;
    }
    Ok(sample)
}

fn measure_served(
    target: &Target,
    workload: &Workload,
    images: &Images,
    image: &std::path::Path,
    dir: &WorkDir,
    time: Duration,
    interrupts: bool,
) -> Result<Sample> {
    let socket = dir.path("socket");
    let guest = generator::memory_for(workload).max(generator::memory_for(&FILL));
    // SPDK is not safe with others. The rest gets what machine monitors give by default.
    let huge_pages =
        matches!(target.kind, Kind::Spdk(_)) && spdk::has_huge_pages(workload, images.bytes(), guest as u64);
    let (command, device) = target.command(workload, image, images.bytes(), huge_pages, &socket)?;
    let mut process = Process::start(&target.name, command, &dir.path("back-end.log"))?;
    let there = wait_until(BOUND, || match process.ended()? {
        Some(status) => Err(Error::new(process.explain(&format!("it ended early ({status})")))),
        None => Ok(socket.exists().then_some(())),
    })?;
    there.context(|| process.explain("it opens no socket"))?;
    if matches!(target.kind, Kind::Spdk(_)) && spdk::is_ram(workload) {
        fill(&socket, device, images.bytes(), huge_pages)
            .map_err(|error| Error::caused(process.explain("its memory cannot be filled"), error))?;
    }
    let memory = Arc::new(Memory::with_pages(generator::memory_for(workload), huge_pages)?);
    let mut session = frontend::start(&socket, device, &memory, workload.queues)
        .map_err(|error| Error::caused(process.explain("the handshake failed"), error))?;
    let rings = std::mem::take(&mut session.queues);
    let outcome = (|| {
        let mut generator = Generator::new(&memory, device, rings, workload, images.bytes(), interrupts, || ())?;
        // Caches, frequency and the back-end's own learning.
        generator.run(time.min(Duration::from_secs(1)))?;
        let calls = calls::Counter::of_process(process.id());
        let before = cpu::of_process(process.id())?;
        let outcome = generator.run(time)?;
        let spent = cpu::of_process(process.id())?.saturating_sub(before);
        Ok((outcome, spent, calls.and_then(|calls| calls.read())))
    })();
    let (outcome, spent, calls): (generator::Outcome, Duration, Option<u64>) =
        outcome.map_err(|error: Error| Error::caused(process.explain("the load failed"), error))?;
    drop(session);
    // In good order: of a killed process the kernel keeps the image locked for a moment longer, and the next one may not wait for that.
    process.signal(libc::SIGTERM)?;
    drop(process.wait(BOUND));
    let percentile = |percent| outcome.times.percentile(percent) as f64 / 1e3;
    Ok(Sample {
        iops: outcome.count as f64 / outcome.elapsed.as_secs_f64(),
        p50: percentile(50.0),
        p99: percentile(99.0),
        p999: percentile(99.9),
        cpu: spent.as_secs_f64() * 1e6 / outcome.count.max(1) as f64,
        calls: calls.map(|calls| calls as f64 / outcome.count.max(1) as f64),
    })
}

/// What writes all of an image.
const FILL: Workload =
    Workload { medium: Medium::Tmpfs, write: true, random: false, bytes: device::BLOCK as u32, depth: 32, queues: 1 };

/// Writes every block's stamp through the back-end, as [`Images`] does to files.
fn fill(socket: &std::path::Path, device: device::Device, bytes: u64, huge_pages: bool) -> Result<()> {
    let memory = Arc::new(Memory::with_pages(generator::memory_for(&FILL), huge_pages)?);
    let mut session = frontend::start(socket, device, &memory, FILL.queues)?;
    let rings = std::mem::take(&mut session.queues);
    let mut generator = Generator::new(&memory, device, rings, &FILL, bytes, false, || ())?;
    let mut left = bytes / device::BLOCK + u64::from(FILL.depth);
    while left > 0 {
        left = left.saturating_sub(generator.run(Duration::from_millis(100))?.count);
    }
    Ok(())
}
