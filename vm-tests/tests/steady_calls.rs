//! Which system calls vstgt makes when commands come one upon the other, as strace tells: those that hand over batches, sleep and wake, and none that is
//! a command's own.

use std::collections::BTreeMap;
use std::fs;
use std::path::Path;
use std::process::Command;
use std::sync::Arc;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use vm_tests::bench::device::Device;
use vm_tests::bench::generator::{Generator, memory_for};
use vm_tests::bench::images::Images;
use vm_tests::bench::memory::Memory;
use vm_tests::bench::workload::{Medium, Workload};
use vm_tests::bench::{frontend, ring};
use vm_tests::process::{Process, wait_until};
use vm_tests::workdir::WorkDir;
use vm_tests::{Context, Result, paths};

/// By these a reactor hands over what a turn has collected, looks for more, sleeps, is woken and interrupts a guest.
const OF_A_TURN: [&str; 7] =
    ["io_uring_enter", "sched_yield", "epoll_wait", "epoll_pwait", "preadv2", "io_submit", "read"];

const BOUND: Duration = Duration::from_secs(20);

#[test]
fn no_command_has_system_calls_of_its_own() -> Result<()> {
    let dir = WorkDir::new("calls")?;
    let images = Images::new(dir.root(), 16 << 20)?;
    for (medium, write) in [(Medium::Tmpfs, false), (Medium::Tmpfs, true), (Medium::Cached, false)] {
        let workload = Workload { medium, write, random: true, bytes: 4096, depth: 32, queues: 1 };
        let (commands, calls) = traced(&workload, &images, &dir)?;
        println!("{workload}: {commands} commands, {calls:?}");
        assert!(commands > 5000, "{workload}: {commands} commands are too few to tell");
        let of_commands: Vec<_> = calls.iter().filter(|(name, _)| !OF_A_TURN.contains(&name.as_str())).collect();
        assert!(
            of_commands.iter().all(|(_, count)| **count < 20),
            "{workload}: {of_commands:?} for {commands} commands"
        );
        let all: u64 = calls.values().sum();
        assert!(all < commands / 2, "{workload}: {all} calls for {commands} commands: {calls:?}");
    }
    drop(images);
    dir.finish();
    Ok(())
}

/// How many commands vstgt answered in a while, and how often it made each system call meanwhile.
fn traced(workload: &Workload, images: &Images, dir: &WorkDir) -> Result<(u64, BTreeMap<String, u64>)> {
    let (socket, trace) = (dir.path("socket"), dir.path("trace"));
    let mut command = Command::new("strace");
    // The tracer goes aside: the process that is started is vstgt.
    command.args(["-D", "-f", "-ttt", "-o"]).arg(&trace).arg(paths::vstgt_binary()?);
    command.arg("--lun").arg(format!("file={}", images.get(workload.medium, false)?.display()));
    command.arg("--socket-path").arg(&socket);
    let mut process = Process::start("vstgt", command, &dir.path("vstgt.log"))?;
    wait_until(BOUND, || Ok(socket.exists().then_some(())))?.context(|| process.explain("it opens no socket"))?;
    let memory = Arc::new(Memory::new(memory_for(workload))?);
    let mut session = frontend::start(&socket, Device::Scsi, &memory, workload.queues)?;
    let rings: Vec<ring::Ring> = std::mem::take(&mut session.queues);
    let mut generator = Generator::new(&memory, Device::Scsi, rings, workload, images.bytes(), false, || ())?;
    // Until everything has been touched once, and the reactor has learned when to look.
    generator.run(Duration::from_secs(2))?;
    let begin = now()?;
    let outcome = generator.run(Duration::from_secs(1))?;
    let end = now()?;
    drop(session);
    process.signal(libc::SIGTERM)?;
    process.wait(BOUND)?;
    // The tracer writes its last line when vstgt has ended.
    let over = wait_until(BOUND, || Ok(read(&trace)?.contains("+++ exited").then_some(())))?;
    over.context(|| "strace does not come to its end")?;
    Ok((outcome.count, calls_between(&read(&trace)?, begin, end)))
}

fn read(trace: &Path) -> Result<String> {
    fs::read_to_string(trace).context(|| format!("read {}", trace.display()))
}

fn now() -> Result<f64> {
    Ok(SystemTime::now().duration_since(UNIX_EPOCH).context(|| "the time")?.as_secs_f64())
}

/// Counts the calls that begin in that time. A line is `PID SECONDS NAME(ARGUMENTS…`, or the end of an earlier one: `PID SECONDS <... NAME resumed>…`.
fn calls_between(trace: &str, begin: f64, end: f64) -> BTreeMap<String, u64> {
    let mut calls = BTreeMap::new();
    for line in trace.lines() {
        let mut words = line.splitn(3, ' ').map(str::trim_start);
        let (Some(time), Some(what)) = (words.nth(1).and_then(|time| time.parse::<f64>().ok()), words.next()) else {
            continue;
        };
        let name = what.split('(').next().unwrap_or_default();
        if (begin..end).contains(&time)
            && !name.is_empty()
            && name.chars().all(|c| c.is_ascii_alphanumeric() || c == '_')
        {
            *calls.entry(name.to_owned()).or_default() += 1;
        }
    }
    calls
}

#[test]
fn lines_of_a_trace_are_understood() {
    let trace = "12 1700000000.100000 io_uring_enter(9, 1, 0, 0, NULL, 8) = 1\n\
                 13 1700000000.200000 statx(3, \"\", AT_EMPTY_PATH <unfinished ...>\n\
                 13 1700000000.300000 <... statx resumed>, {}) = 0\n\
                 12 1700000000.400000 --- SIGUSR1 {si_signo=SIGUSR1} ---\n\
                 1234567 1700000000.500000 io_uring_enter(9, 1, 0, 0, NULL, 8) = 1\n\
                 12 1700000001.000000 futex(0x1, FUTEX_WAKE, 1) = 1\n";
    let calls = calls_between(trace, 1_700_000_000.15, 1_700_000_000.9);
    assert_eq!(calls, BTreeMap::from([("io_uring_enter".to_owned(), 1), ("statx".to_owned(), 1)]));
}
