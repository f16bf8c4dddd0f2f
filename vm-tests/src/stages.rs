//! The stages of `cargo xtask test` and `cargo xtask soak`, in order, each with its time.

use std::env;
use std::process::Command;
use std::time::{Duration, Instant};
use vm_tests::{Result, paths, provision, tools};

/// Environment variable by which tests know that they may take their time.
const VSTGT_SOAK: &str = "VSTGT_SOAK";

/// Environment variable naming the reactor's way of waiting in vstgt's own tests.
const VSTGT_TEST_WAIT: &str = "VSTGT_TEST_WAIT";

/// Everything that shall hold before a change is taken; with `quick`, only what needs no guest.
pub fn test(quick: bool) -> Result<()> {
    let mut stages = Stages::new();
    stages.run("format", cargo(&["fmt", "--all", "--check"]))?;
    stages.run(
        "lints",
        cargo(&[
            "clippy",
            "--workspace",
            "--all-targets",
            "--quiet",
            "--",
            "-D",
            "warnings",
        ]),
    )?;
    let mut doc = cargo(&["doc", "--workspace", "--no-deps", "--quiet"]);
    doc.env("RUSTDOCFLAGS", "-D warnings");
    stages.run("documentation", doc)?;
    for wait in ["io_uring", "epoll"] {
        let mut tests = cargo(&["test", "-p", "vstgt"]);
        tests.env(VSTGT_TEST_WAIT, wait);
        stages.run(&format!("vstgt's tests, waiting by {wait}"), tests)?;
    }
    if !quick {
        stages.step("install what guests need", provision::ensure)?;
        stages.run(
            "release build",
            cargo(&["build", "--release", "--quiet", "-p", "vstgt"]),
        )?;
    }
    // The harness's own tests need no guest, and come last so that the closing line is a test's.
    stages.run("harness tests", cargo(&["test", "-p", "vm-tests", "--lib"]))?;
    if !quick {
        stages.run("guest tests", guest_tests(&[]))?;
    }
    stages.end();
    Ok(())
}

/// The guest tests again, with as much work as finds what a short run does not.
pub fn soak() -> Result<()> {
    let mut stages = Stages::new();
    stages.step("install what guests need", provision::ensure)?;
    stages.run(
        "release build",
        cargo(&["build", "--release", "--quiet", "-p", "vstgt"]),
    )?;
    stages.run("guest tests, long", guest_tests(&[(VSTGT_SOAK, "1")]))?;
    stages.end();
    Ok(())
}

/// Guests share two cores badly: one test at a time.
fn guest_tests(environment: &[(&str, &str)]) -> Command {
    let mut tests = cargo(&[
        "test",
        "-p",
        "vm-tests",
        "--tests",
        "--",
        "--test-threads=1",
    ]);
    tests.envs(environment.iter().copied());
    tests
}

fn cargo(words: &[&str]) -> Command {
    let mut command = Command::new(env::var_os("CARGO").unwrap_or_else(|| "cargo".into()));
    command.current_dir(paths::repository()).args(words);
    command
}

struct Stages {
    start: Instant,
    times: Vec<(String, Duration)>,
}

impl Stages {
    fn new() -> Stages {
        Stages {
            start: Instant::now(),
            times: Vec::new(),
        }
    }

    fn run(&mut self, name: &str, command: Command) -> Result<()> {
        self.step(name, || tools::run_visible(command))
    }

    fn step(&mut self, name: &str, step: impl FnOnce() -> Result<()>) -> Result<()> {
        println!("=== {name}");
        let start = Instant::now();
        step()?;
        self.times.push((name.to_owned(), start.elapsed()));
        Ok(())
    }

    /// Where the time went. On standard error, so that standard output still ends as the tests end.
    fn end(&self) {
        for (name, time) in &self.times {
            eprintln!("{:7.1} s  {name}", time.as_secs_f64());
        }
        eprintln!("{:7.1} s  in all", self.start.elapsed().as_secs_f64());
    }
}
