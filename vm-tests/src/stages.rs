//! The stages of `cargo xtask test` and `cargo xtask soak`, in order, each with the time it began.

use crate::huge_pages::HugePages;
use std::env;
use std::path::Path;
use std::process::Command;
use std::time::Instant;
use vm_tests::{Context, Result, VSTGT_SOAK, bench, fuzz, paths, provision, sys, tools};

/// Environment variable naming the reactor's way of waiting in vstgt's own tests.
const VSTGT_TEST_WAIT: &str = "VSTGT_TEST_WAIT";

/// Environment variable by which tests know that there are huge pages: they fail without.
const VSTGT_TEST_HUGE_PAGES: &str = "VSTGT_TEST_HUGE_PAGES";

/// Environment variable by which tests know that they may use loop devices as block devices.
const VSTGT_TEST_LOOP_DEVICES: &str = "VSTGT_TEST_LOOP_DEVICES";

/// Everything that shall hold before a change is taken; with `quick`, only what needs no guest.
pub fn test(quick: bool) -> Result<()> {
    let stages = Stages::new();
    stages.run("format", cargo(&["fmt", "--all", "--check"]))?;
    let mut lints = cargo(&["clippy", "--workspace", "--all-targets", "--quiet"]);
    lints.args(["--", "-D", "warnings"]);
    stages.run("lints", lints)?;
    stages.run("format of the fuzz targets", in_fuzz(&["fmt", "--check"]))?;
    let mut lints = in_fuzz(&["clippy", "--no-default-features", "--all-targets", "--quiet"]);
    lints.args(["--", "-D", "warnings"]);
    stages.run("lints of the fuzz targets", lints)?;
    let mut doc = cargo(&["doc", "--workspace", "--no-deps", "--quiet"]);
    doc.env("RUSTDOCFLAGS", "-D warnings");
    stages.run("documentation", doc)?;
    if !quick {
        stages.step("install what guests need, and some tests of vstgt's own", provision::ensure)?;
    }
    units_and_sockets(&stages)?;
    stages.run("inputs that fuzzing has kept", in_fuzz(&["test", "--no-default-features"]))?;
    if quick {
        let words = ["test", "-p", "vm-tests", "--lib", "--bins"];
        return stages.run("harness tests", cargo(&words));
    }
    stages.run("release build", release())?;
    stages.run("harness and guest tests", guest_tests(&[]))
}

/// vstgt's own tests: all of them waiting by io_uring, and those that run a whole target again waiting by epoll. With huge pages and
/// loop devices where they are to be had.
fn units_and_sockets(stages: &Stages) -> Result<()> {
    let pages = HugePages::borrow();
    let loops = loop_devices();
    let with_environment = |words: &[&str], wait: &str| {
        let mut tests = cargo(words);
        tests.env(VSTGT_TEST_WAIT, wait);
        if pages.is_some() {
            tests.env(VSTGT_TEST_HUGE_PAGES, "1");
        }
        if loops {
            tests.env(VSTGT_TEST_LOOP_DEVICES, "1");
        }
        tests
    };
    stages.run("vstgt's tests, waiting by io_uring", with_environment(&["test", "-p", "vstgt"], "io_uring"))?;
    stages.run(
        "its socket tests, waiting by epoll",
        with_environment(&["test", "-p", "vstgt", "--test", "*"], "epoll"),
    )?;
    stages.run("benches, each once", cargo(&["test", "-p", "vstgt", "--bench", "*"]))
}

/// Whether tests may use loop devices as block devices.
fn loop_devices() -> bool {
    sys::is_root() && Path::new("/dev/loop-control").exists()
}

/// How long each fuzz target runs in the long form, in seconds.
const LONG_FUZZING: u32 = 20 * 60;

/// The guest tests again, with as much work as finds what a short run does not.
pub fn soak() -> Result<()> {
    let stages = Stages::new();
    stages.step("install what guests need", provision::ensure)?;
    stages.run("release build", release())?;
    stages.run("vstgt's tests, long", long_tests())?;
    let fuzzing = fuzz::Options { seconds: LONG_FUZZING, plain: false, keep: false, targets: Vec::new() };
    stages.step("fuzzing", || fuzz::run(&fuzzing))?;
    stages.run("guest tests, long", guest_tests(&[(VSTGT_SOAK, "1")]))
}

/// Those of vstgt's own tests that have a long form: blocks that never tear, atomic commands, storms of task management, a process
/// killed at random moments, also in the middle of a handover, losses of power, dirty logs.
fn long_tests() -> Command {
    let mut tests = cargo(&["test", "--release", "-p", "vstgt", "--no-fail-fast", "--lib"]);
    tests.args(["--test", "one_block", "--test", "abort_storm", "--test", "state_dir", "--test", "power_loss"]);
    tests.args(["--test", "dirty_log", "--test", "handover", "--test", "inflight"]);
    tests.args(["--", "conformance::tear", "compare_and_write_is_a_lock", "orwrite_loses_no_bit", "no_block_is_torn"]);
    tests.args(["every_task_is_answered_once", "nothing_is_left_behind", "kill"]);
    tests.args(["over_epoll", "over_io_uring"]);
    tests.args(["keeps_its_promises", "what_is_answered_is_kept"]);
    tests.args(["every_page_that_changes_is_marked", "a_copy_by_the_marks"]);
    tests.env(VSTGT_SOAK, "1");
    if loop_devices() {
        tests.env(VSTGT_TEST_LOOP_DEVICES, "1");
    }
    tests
}

/// The bench: in a release build of this program too, since the load it generates must not be the limit.
pub fn bench(options: bench::Options) -> Result<()> {
    let stages = Stages::new();
    stages.step("install what the bench compares with", provision::ensure_bench)?;
    if env::var_os(paths::VSTGT_BIN).is_none() {
        stages.run("release build", release())?;
    }
    if cfg!(debug_assertions) {
        let mut again = cargo(&["run", "--release", "--quiet", "-p", "vm-tests", "--bin", "xtask", "--"]);
        again.args(env::args_os().skip(1)).env(paths::VSTGT_BIN, paths::vstgt_binary()?);
        return stages.run("bench", again);
    }
    stages.step("bench", || bench::run(options))
}

fn release() -> Command {
    cargo(&["build", "--release", "--quiet", "-p", "vstgt"])
}

/// Guests share two cores badly: one test at a time.
fn guest_tests(environment: &[(&str, &str)]) -> Command {
    let mut tests = cargo(&["test", "-p", "vm-tests", "--tests", "--no-fail-fast", "--", "--test-threads=1"]);
    tests.envs(environment.iter().copied());
    tests
}

fn cargo(words: &[&str]) -> Command {
    let mut command = Command::new(env::var_os("CARGO").unwrap_or_else(|| "cargo".into()));
    command.current_dir(paths::repository()).args(words);
    command
}

/// The fuzz targets are a workspace of their own; what they share with this one is built once.
fn in_fuzz(words: &[&str]) -> Command {
    let mut command = cargo(words);
    command.current_dir(paths::repository().join("fuzz")).env("CARGO_TARGET_DIR", paths::target());
    command
}

/// Says what runs and when it began. Nothing is printed after the last stage: the output ends as its tests end.
struct Stages {
    start: Instant,
}

impl Stages {
    fn new() -> Stages {
        Stages { start: Instant::now() }
    }

    fn run(&self, name: &str, command: Command) -> Result<()> {
        self.step(name, || tools::run_visible(command))
    }

    fn step(&self, name: &str, step: impl FnOnce() -> Result<()>) -> Result<()> {
        println!("=== {:6.1} s: {name}", self.start.elapsed().as_secs_f64());
        step().context(|| format!("stage \"{name}\""))
    }
}
