//! `cargo xtask fuzz`: every target of `fuzz/` under libFuzzer for a while, and a table of what came of it.
//!
//! The targets are those of cargo-fuzz, which builds them (`fuzz/README.md`). What is found on the way is kept where cargo-fuzz keeps it:
//! inputs that make a target fail below `fuzz/artifacts`; inputs that reach something new below `fuzz/found`, until `--keep` merges those
//! that are worth it into `fuzz/corpus`, which is in the repository.

use crate::process::Process;
use crate::{Context, Error, Result, paths, provision, tools};
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

/// What the compiler is told so that the stable one takes the flags of sanitizers and coverage.
const BOOTSTRAP: (&str, &str) = ("RUSTC_BOOTSTRAP", "1");

/// An input that takes longer is a finding, in seconds.
const SLOW: u32 = 20;

/// A target that takes more memory is a finding, in MiB.
const MEMORY: u32 = 2048;

/// How much longer than asked for a target may run: it begins with the corpus, and may be busy with a last input.
const GRACE: Duration = Duration::from_secs(10 * 60);

/// How it is run.
#[derive(Debug, Clone, clap::Args)]
pub struct Options {
    /// Seconds for each target
    #[arg(long, default_value_t = 60, value_parser = clap::value_parser!(u32).range(1..))]
    pub seconds: u32,
    /// Without the address sanitizer: builds and runs faster, sees less
    #[arg(long)]
    pub plain: bool,
    /// Merge what was found into the corpora that are kept in the repository
    #[arg(long)]
    pub keep: bool,
    /// Targets; all of them if none is named
    pub targets: Vec<String>,
}

/// What came of one target.
#[derive(Debug, Default, PartialEq, Eq)]
struct Outcome {
    /// Inputs that were run.
    executions: u64,
    /// Edges of the program that some input has taken.
    edges: u64,
    /// Edges with how often, values compared, and the like.
    features: u64,
}

/// Builds and runs the targets, one after the other.
///
/// # Errors
/// When something is missing and cannot be installed, a target does not build, or one has a finding.
pub fn run(options: &Options) -> Result<()> {
    provision::ensure_fuzz()?;
    let all = targets()?;
    if let Some(unknown) = options.targets.iter().find(|name| !all.contains(name)) {
        return Err(Error::new(format!("there is no fuzz target {unknown}; there are {}", all.join(", "))));
    }
    let chosen = if options.targets.is_empty() { all } else { options.targets.clone() };
    build(options.plain)?;
    println!(
        "{:<10} {:>12} {:>10} {:>8} {:>9} {:>11} {:>9}",
        "target", "executions", "a second", "edges", "features", "new inputs", "findings"
    );
    let mut failed = Vec::new();
    for name in &chosen {
        let target = Target::new(name)?;
        let (outcome, findings) = target.run(options)?;
        let new = count(&target.found);
        let rate = outcome.executions / u64::from(options.seconds);
        let Outcome { executions, edges, features } = outcome;
        println!("{name:<10} {executions:>12} {rate:>10} {edges:>8} {features:>9} {new:>11} {:>9}", findings.len());
        if options.keep {
            target.keep()?;
        }
        failed.extend(findings);
    }
    match failed.as_slice() {
        [] => Ok(()),
        failed => Err(Error::new(format!(
            "findings, to be run again with `cargo fuzz run TARGET FILE`:\n{}",
            failed.join("\n")
        ))),
    }
}

/// The names of the targets: those of the files in `fuzz/fuzz_targets`.
fn targets() -> Result<Vec<String>> {
    let folder = folder().join("fuzz_targets");
    let entries = fs::read_dir(&folder).context(|| format!("list {}", folder.display()))?;
    let stem = |path: PathBuf| path.file_stem().map(|stem| stem.to_string_lossy().into_owned());
    let mut names: Vec<String> = entries.filter_map(|entry| stem(entry.ok()?.path())).collect();
    names.sort();
    Ok(names)
}

fn folder() -> PathBuf {
    paths::repository().join("fuzz")
}

/// Where the targets are built: apart from everything else, for everything is built with other flags.
fn build_folder() -> PathBuf {
    paths::target().join("fuzz")
}

fn build(plain: bool) -> Result<()> {
    let mut command = Command::new("cargo");
    command.current_dir(folder()).env(BOOTSTRAP.0, BOOTSTRAP.1);
    command.args(["fuzz", "build"]);
    if plain {
        // What is wanted is a look, soon: most of the time a short run takes is the compiler's.
        command.args(["--sanitizer", "none"]).env("CARGO_PROFILE_RELEASE_OPT_LEVEL", "1");
    }
    command.arg("--target-dir").arg(build_folder());
    tools::run_visible(command)
}

/// The number of files in a folder; 0 if there is none.
fn count(folder: &Path) -> usize {
    fs::read_dir(folder).map_or(0, Iterator::count)
}

/// A target that is built, and its folders.
struct Target {
    program: PathBuf,
    name: String,
    corpus: PathBuf,
    found: PathBuf,
    artifacts: PathBuf,
}

impl Target {
    fn new(name: &str) -> Result<Target> {
        let place = |kind: &str| folder().join(kind).join(name);
        let target = Target {
            program: build_folder().join(format!("{}-unknown-linux-gnu/release/{name}", std::env::consts::ARCH)),
            name: name.to_owned(),
            corpus: place("corpus"),
            found: place("found"),
            artifacts: place("artifacts"),
        };
        for folder in [&target.corpus, &target.found, &target.artifacts] {
            fs::create_dir_all(folder).context(|| format!("make {}", folder.display()))?;
        }
        Ok(target)
    }

    /// Runs it; what it printed, and its findings.
    fn run(&self, options: &Options) -> Result<(Outcome, Vec<String>)> {
        let before = self.findings();
        let mut command = Command::new(&self.program);
        // Of a folder it is told first it keeps what is new in there.
        command.arg(&self.found).arg(&self.corpus);
        command.arg(format!("-max_total_time={}", options.seconds));
        command.arg(format!("-timeout={SLOW}")).arg(format!("-rss_limit_mb={MEMORY}"));
        command.arg(format!("-artifact_prefix={}/", self.artifacts.display()));
        let log = folder().join("artifacts").join(format!("{}.log", self.name));
        let mut process = Process::start(&format!("fuzz {}", self.name), command, &log)?;
        let status = process.wait(Duration::from_secs(options.seconds.into()) + GRACE)?;
        let findings: Vec<String> = self.findings().into_iter().filter(|file| !before.contains(file)).collect();
        let said = fs::read_to_string(&log).unwrap_or_default();
        if !status.success() && findings.is_empty() {
            return Err(Error::new(process.explain(&format!("fuzz target {} ended with {status}", self.name))));
        }
        Ok((outcome(&said), findings))
    }

    fn findings(&self) -> Vec<String> {
        let Ok(entries) = fs::read_dir(&self.artifacts) else { return Vec::new() };
        entries.filter_map(|entry| Some(entry.ok()?.path().display().to_string())).collect()
    }

    /// Takes into the corpus what reaches something that nothing in it reaches.
    fn keep(&self) -> Result<()> {
        let mut command = Command::new(&self.program);
        command.arg("-merge=1").arg(&self.corpus).arg(&self.found);
        tools::run_command(command, GRACE)?;
        fs::remove_dir_all(&self.found).context(|| format!("empty {}", self.found.display()))
    }
}

/// Reads libFuzzer's last words: lines like `#123 DONE cov: 5 ft: 6 corp: 7/89b exec/s: 10 rss: 11Mb`.
fn outcome(said: &str) -> Outcome {
    let mut outcome = Outcome::default();
    for line in said.lines().filter(|line| line.starts_with('#')) {
        let mut words = line.split_whitespace();
        let executions = words.next().and_then(|word| word.trim_start_matches('#').parse().ok());
        let words: Vec<&str> = words.collect();
        let after = |what| words.iter().position(|word| *word == what).and_then(|at| words.get(at + 1)?.parse().ok());
        if let (Some(executions), Some(edges), Some(features)) = (executions, after("cov:"), after("ft:")) {
            outcome = Outcome { executions, edges, features };
        }
    }
    outcome
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_last_line_that_counts_is_the_outcome() {
        let said = "INFO: seed corpus: files: 3\n#4\tINITED cov: 10 ft: 20 corp: 3/9b exec/s: 0 rss: 40Mb\n\
                    #77\tDONE   cov: 12 ft: 25 corp: 4/9b lim: 4 exec/s: 7 rss: 41Mb\n###### Recommended dictionary. ######\n\
                    Done 77 runs in 11 second(s)\n";
        assert_eq!(outcome(said), Outcome { executions: 77, edges: 12, features: 25 });
        assert_eq!(outcome(""), Outcome::default());
    }

    #[test]
    fn there_are_targets_and_each_has_a_corpus() {
        let targets = targets().unwrap();
        assert!(targets.contains(&"cdb".to_owned()), "{targets:?}");
        assert!(targets.iter().all(|name| count(&folder().join("corpus").join(name)) > 0), "{targets:?}");
    }
}
