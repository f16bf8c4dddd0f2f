//! What the process under test has of the host: memory, descriptors, threads, mappings, files of state. Samples of comparable moments
//! are compared.

use std::collections::BTreeMap;
use std::fs;
use std::path::Path;
use std::thread;
use std::time::Duration;
use vm_tests::{Context, Error, Result};

/// How often one sample looks: what is there for a moment only is not counted.
const LOOKS: u32 = 6;

/// Between two looks.
const PAUSE: Duration = Duration::from_millis(40);

/// A third of the samples must be so many: a young process starts the threads of its pools, and each brings mappings and memory.
const ENOUGH: usize = 5;

/// By how many KiB files of state differ at most: what they say of a nexus is there or not.
const STATE: u64 = 8;

/// A process at a moment. Sizes are in KiB.
#[derive(Debug, Clone)]
pub struct Sample {
    /// Since the test began.
    pub at: Duration,
    /// Which process it was, and for how long it had been there.
    pub life: usize,
    pub age: Duration,
    /// What had happened last.
    pub after: String,
    pub anon: u64,
    pub resident: u64,
    pub shared: u64,
    pub threads: u64,
    pub descriptors: Descriptors,
    pub mappings: usize,
    pub state_files: usize,
    pub state: u64,
}

/// How many descriptors of each kind there are.
pub type Descriptors = BTreeMap<String, usize>;

pub fn count(descriptors: &Descriptors) -> usize {
    descriptors.values().sum()
}

/// What /proc tells of a process.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Process {
    pub anon: u64,
    pub resident: u64,
    pub shared: u64,
    pub threads: u64,
    pub descriptors: Descriptors,
    pub mappings: usize,
}

impl Process {
    /// Looks at it for a moment.
    pub fn look(pid: u32) -> Result<Process> {
        let mut least = Process::look_once(pid)?;
        for _ in 1..LOOKS {
            thread::sleep(PAUSE);
            let seen = Process::look_once(pid)?;
            let fewer = if count(&seen.descriptors) < count(&least.descriptors) {
                seen.descriptors.clone()
            } else {
                least.descriptors
            };
            least = Process {
                descriptors: fewer,
                mappings: least.mappings.min(seen.mappings),
                threads: least.threads.min(seen.threads),
                ..seen
            };
        }
        Ok(least)
    }

    fn look_once(pid: u32) -> Result<Process> {
        let status = fs::read_to_string(format!("/proc/{pid}/status")).context(|| "ask after vstgt")?;
        let number = |name: &str| -> Result<u64> {
            let line = status.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(':'));
            let word = line.and_then(|line| line.split_whitespace().next()?.parse().ok());
            word.context(|| format!("{name} in\n{status}"))
        };
        let maps = fs::read_to_string(format!("/proc/{pid}/maps")).context(|| "read vstgt's mappings")?;
        Ok(Process {
            anon: number("RssAnon")?,
            resident: number("VmRSS")?,
            shared: number("RssShmem")?,
            threads: threads(pid)?,
            descriptors: descriptors(pid)?,
            mappings: maps.lines().count(),
        })
    }
}

/// Its threads, without those of the pools (I/O, jobs) and the kernel's own for the rings: those come when there is work for so many at
/// once, go when there is none, and are bounded.
fn threads(pid: u32) -> Result<u64> {
    const POOLS: [&str; 3] = ["vstgt-io", "vstgt-job", "iou-"];
    let tasks = fs::read_dir(format!("/proc/{pid}/task")).context(|| "list vstgt's threads")?.flatten();
    let names = tasks.filter_map(|task| fs::read_to_string(task.path().join("comm")).ok());
    Ok(names.filter(|name| !POOLS.iter().any(|pool| name.starts_with(pool))).count() as u64)
}

fn descriptors(pid: u32) -> Result<Descriptors> {
    let mut kinds = Descriptors::new();
    for link in fs::read_dir(format!("/proc/{pid}/fd")).context(|| "list vstgt's descriptors")?.flatten() {
        // One may be closed meanwhile. Sockets and pipes have numbers in brackets.
        if let Ok(name) = fs::read_link(link.path()) {
            let name = name.to_string_lossy();
            let kind = name.split(":[").next().unwrap_or_default();
            let kind = if kind.ends_with(".log") { "log" } else { kind };
            *kinds.entry(kind.to_owned()).or_default() += 1;
        }
    }
    Ok(kinds)
}

/// How many files there are in a folder, and how many KiB are in them.
pub fn folder(path: &Path) -> Result<(usize, u64)> {
    let (mut files, mut bytes) = (0, 0);
    for entry in fs::read_dir(path).context(|| format!("list {}", path.display()))?.flatten() {
        // Who looks at a file that is just replaced finds none.
        if let Ok(metadata) = entry.metadata() {
            files += 1;
            bytes += metadata.len();
        }
    }
    Ok((files, bytes.div_ceil(1024)))
}

/// All samples, as a table.
pub fn table(samples: &[Sample]) -> String {
    let mut lines = vec!["   at s life  age s  anon  rss KiB shmem threads fds maps state files KiB  after".to_owned()];
    for s in samples {
        lines.push(format!(
            "{:7.1} {:4} {:6.1} {:5} {:8} {:5} {:7} {:3} {:4} {:11} {:3}  {}",
            s.at.as_secs_f64(),
            s.life,
            s.age.as_secs_f64(),
            s.anon,
            s.resident,
            s.shared,
            s.threads,
            count(&s.descriptors),
            s.mappings,
            s.state_files,
            s.state,
            s.after
        ));
    }
    lines.join("\n")
}

/// What is flat is flat: in all comparable samples, in one life, and from life to life. `grown` is how many KiB of anonymous memory may be noise.
pub fn assert_flat(samples: &[Sample], grown: u64) -> Result<()> {
    let Some(first) = samples.first() else { return Err(Error::new("no samples")) };
    for sample in samples {
        let same = |what: &str, then: usize, now: usize| {
            let message = || format!("{what}: {then}, then {now} in {sample:?}");
            if then == now { Ok(()) } else { Err(Error::new(message())) }
        };
        same("threads", first.threads as usize, sample.threads as usize)?;
        if sample.descriptors != first.descriptors {
            let (then, now) = (&first.descriptors, &sample.descriptors);
            return Err(Error::new(format!("descriptors: {then:?}, then {now:?} in {sample:?}")));
        }
        same("files of state", first.state_files, sample.state_files)?;
        if first.state.abs_diff(sample.state) >= STATE {
            return Err(Error::new(format!("KiB of state: {}, then {} in {sample:?}", first.state, sample.state)));
        }
    }
    let lives = samples.iter().map(|sample| sample.life).max().unwrap_or(0);
    let longest = (0..=lives).max_by_key(|life| samples.iter().filter(|sample| sample.life == *life).count());
    let longest: Vec<&Sample> = samples.iter().filter(|sample| Some(sample.life) == longest).collect();
    // What is allocated once and kept comes in the beginning.
    let warm = longest.get(longest.len() / 5..).unwrap_or_default();
    flat("the longest life, once warm", warm, grown)?;
    // The first sample of each life: what a process begins with.
    let begun: Vec<&Sample> = (0..=lives).filter_map(|life| samples.iter().find(|s| s.life == life)).collect();
    flat("the beginnings of all lives", &begun, grown)
}

/// How long the process lived that lived longest, as far as it was sampled.
pub fn longest_life(samples: &[Sample]) -> Duration {
    samples.iter().map(|sample| sample.age).max().unwrap_or_default()
}

/// The median of the last third is not more than that of the first, but for noise.
fn flat(what: &str, samples: &[&Sample], grown: u64) -> Result<()> {
    let third = samples.len() / 3;
    if third < ENOUGH {
        println!("{what}: {} samples are too few to tell growth from a beginning", samples.len());
        return Ok(());
    }
    let median = |part: &[&Sample], of: fn(&Sample) -> u64| {
        let mut values: Vec<u64> = part.iter().map(|sample| of(sample)).collect();
        values.sort_unstable();
        values[values.len() / 2]
    };
    let (early, late) = (&samples[..third], &samples[samples.len() - third..]);
    for (name, of, bound) in
        [("KiB of anonymous memory", (|s| s.anon) as fn(&Sample) -> u64, grown), ("mappings", |s| s.mappings as u64, 8)]
    {
        let (then, now) = (median(early, of), median(late, of));
        println!("{what}, {} samples: {name} {then} in the first third, {now} in the last", samples.len());
        if now > then + bound {
            return Err(Error::new(format!("{what}: {name} grew from {then} to {now}")));
        }
    }
    Ok(())
}

fn sample(life: usize, anon: u64) -> Sample {
    let descriptors = Descriptors::from([("socket".to_owned(), 19), ("anon_inode".to_owned(), 120)]);
    Sample {
        at: Duration::ZERO,
        life,
        age: Duration::ZERO,
        after: String::new(),
        anon,
        resident: 9000,
        shared: 4000,
        threads: 12,
        descriptors,
        mappings: 150,
        state_files: 3,
        state: 2117,
    }
}

#[test]
fn what_is_flat_is_told_from_what_grows() {
    let life = |life: usize, anon: fn(u64) -> u64| (0..30).map(move |i| sample(life, anon(i)));
    let steady: Vec<Sample> = life(0, |i| 2400 + i % 7).chain(life(1, |_| 2300)).collect();
    assert_flat(&steady, 100).unwrap();
    // In a life.
    let growing: Vec<Sample> = life(0, |i| 2400 + 10 * i).collect();
    assert!(assert_flat(&growing, 100).unwrap_err().to_string().contains("anonymous"));
    // From life to life.
    let lives: Vec<Sample> = (0..30).map(|number| sample(number, 2400 + 10 * number as u64)).collect();
    assert!(assert_flat(&lives, 100).unwrap_err().to_string().contains("beginnings"));
    // A descriptor, a thread, a file too many, even once.
    let spoil: [fn(&mut Sample); 4] = [
        |sample| *sample.descriptors.entry("socket".to_owned()).or_default() += 1,
        |sample| sample.threads += 1,
        |sample| sample.state_files += 1,
        |sample| sample.state += 8,
    ];
    for spoil in spoil {
        let mut samples = steady.clone();
        spoil(&mut samples[20]);
        assert!(assert_flat(&samples, 100).is_err());
    }
    assert!(assert_flat(&[], 100).is_err());
}
