//! The `vstgt` process under test.
#![allow(
    unsafe_code,
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    missing_docs,
    dead_code,
    reason = "test code"
)]

use std::fs::{self, File};
use std::os::unix::net::UnixStream;
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use super::{BOUND, eventually};

/// A running `vstgt` with a directory of its own: sockets `a.sock`, `b.sock` …, image `disk.img`. Killed when dropped.
pub struct Vstgt {
    pub dir: tempfile::TempDir,
    child: Child,
    sockets: Vec<PathBuf>,
}

/// Size of the image in bytes.
pub const IMAGE_SIZE: u64 = 64 << 20;

impl Vstgt {
    /// Serving one image on so many sockets.
    pub fn start(sockets: usize) -> Vstgt {
        Vstgt::start_with(sockets, |_| {})
    }

    pub fn start_with(sockets: usize, more: impl FnOnce(&mut Command)) -> Vstgt {
        super::watchdog(Duration::from_secs(600));
        let dir = tempfile::tempdir().unwrap();
        File::create(dir.path().join("disk.img")).unwrap().set_len(IMAGE_SIZE).unwrap();
        Vstgt::start_in(dir, sockets, more)
    }

    /// In a directory that has an image already, and perhaps stale sockets.
    pub fn start_in(dir: tempfile::TempDir, sockets: usize, more: impl FnOnce(&mut Command)) -> Vstgt {
        let state = state_dir(dir.path());
        Vstgt::start_keeping(dir, &state, sockets, more)
    }

    /// The same with a state directory that others may have, or `none`.
    pub fn start_keeping(
        dir: tempfile::TempDir,
        state_dir: &Path,
        sockets: usize,
        more: impl FnOnce(&mut Command),
    ) -> Vstgt {
        let sockets: Vec<PathBuf> = (0..sockets).map(|i| socket_path(dir.path(), i)).collect();
        let mut command = command_keeping(dir.path(), state_dir);
        for socket in &sockets {
            command.arg("--socket-path").arg(socket);
        }
        more(&mut command);
        Vstgt::spawn(dir, sockets, command)
    }

    /// By a command of one's own, which listens on these sockets; see [`watched`].
    pub fn spawn(dir: tempfile::TempDir, sockets: Vec<PathBuf>, mut command: Command) -> Vstgt {
        let child = command.spawn().expect("vstgt starts");
        let mut vstgt = Vstgt { dir, child, sockets };
        vstgt.wait_for_sockets();
        vstgt
    }

    fn wait_for_sockets(&mut self) {
        for socket in self.sockets.clone() {
            eventually("vstgt listens", || {
                if let Some(status) = self.child.try_wait().unwrap() {
                    panic!("vstgt ended: {status}\n{}", self.log());
                }
                UnixStream::connect(&socket).is_ok()
            });
        }
    }

    pub fn socket(&self, index: usize) -> &Path {
        &self.sockets[index]
    }

    pub fn image(&self) -> PathBuf {
        self.dir.path().join("disk.img")
    }

    pub fn pid(&self) -> u32 {
        self.child.id()
    }

    /// What it wrote to its standard error.
    pub fn log(&self) -> String {
        log_of(self.dir.path())
    }

    /// Fails the test if it has ended.
    pub fn assert_alive(&mut self) {
        if let Some(status) = self.child.try_wait().unwrap() {
            panic!("vstgt ended: {status}\n{}", self.log());
        }
    }

    fn proc_file(&self, name: &str) -> PathBuf {
        PathBuf::from(format!("/proc/{}/{name}", self.pid()))
    }

    pub fn open_descriptors(&self) -> usize {
        fs::read_dir(self.proc_file("fd")).unwrap().count()
    }

    /// Threads, without those of the pools (I/O, jobs) and the kernel's own for the rings: those come when first there is work for
    /// so many at once, and are bounded.
    pub fn threads(&self) -> usize {
        const POOLS: [&str; 3] = ["vstgt-io", "vstgt-job", "iou-"];
        let tasks = fs::read_dir(self.proc_file("task")).unwrap();
        // One that ends while it is looked at counts no more.
        let names = tasks.filter_map(|task| fs::read_to_string(task.unwrap().path().join("comm")).ok());
        names.filter(|name| !POOLS.iter().any(|pool| name.starts_with(pool))).count()
    }

    /// Mapped memory files of guests.
    pub fn guest_mappings(&self) -> usize {
        fs::read_to_string(self.proc_file("maps")).unwrap().lines().filter(|l| l.contains("memfd:guest")).count()
    }

    /// Resident memory in KiB.
    pub fn resident_kib(&self) -> u64 {
        self.status_kib("VmRSS:")
    }

    /// Resident memory of its own in KiB: without guests' memory and images.
    pub fn anonymous_kib(&self) -> u64 {
        self.status_kib("RssAnon:")
    }

    fn status_kib(&self, name: &str) -> u64 {
        let status = fs::read_to_string(self.proc_file("status")).unwrap();
        let line = status.lines().find(|line| line.starts_with(name)).unwrap();
        line.split_whitespace().nth(1).unwrap().parse().unwrap()
    }

    /// CPU time used so far, in clock ticks.
    pub fn cpu_ticks(&self) -> u64 {
        let stat = fs::read_to_string(self.proc_file("stat")).unwrap();
        let fields: Vec<&str> = stat.rsplit_once(')').unwrap().1.split_whitespace().collect();
        fields[11].parse::<u64>().unwrap() + fields[12].parse::<u64>().unwrap()
    }

    pub fn signal(&self, signal: i32) {
        // Not the program of that name: a small machine has none.
        let pid = i32::try_from(self.pid()).unwrap();
        // SAFETY: a system call that touches no memory; the child is not reaped before `wait`, so the number is its own.
        let result = unsafe { libc::kill(pid, signal) };
        assert_eq!(result, 0, "{}", std::io::Error::last_os_error());
    }

    /// Waits until it ends by itself.
    pub fn wait(mut self) -> (std::process::ExitStatus, tempfile::TempDir) {
        let start = Instant::now();
        let status = loop {
            if let Some(status) = self.child.try_wait().unwrap() {
                break status;
            }
            assert!(start.elapsed() < BOUND, "vstgt does not end\n{}", self.log());
            std::thread::sleep(Duration::from_millis(5));
        };
        let dir = std::mem::replace(&mut self.dir, tempfile::tempdir().unwrap());
        (status, dir)
    }

    /// SIGTERM; it must end in time with status 0 and remove its sockets.
    pub fn stop(self) -> tempfile::TempDir {
        self.signal(15);
        let sockets = self.sockets.clone();
        let (status, dir) = self.wait();
        assert!(status.success(), "{status}\n{}", log_of(dir.path()));
        assert!(sockets.iter().all(|socket| !socket.exists()), "sockets are removed");
        dir
    }

    /// SIGKILL.
    pub fn kill(self) -> tempfile::TempDir {
        self.signal(9);
        self.wait().1
    }
}

impl Drop for Vstgt {
    fn drop(&mut self) {
        if std::thread::panicking() {
            eprintln!("--- log of vstgt ---\n{}", self.log());
        }
        // It may have ended already.
        drop(self.child.kill());
        drop(self.child.wait());
    }
}

fn log_of(dir: &Path) -> String {
    fs::read_to_string(dir.join("log")).unwrap_or_default()
}

pub fn socket_path(dir: &Path, index: usize) -> PathBuf {
    dir.join(format!("{}.sock", char::from(b'a' + index as u8)))
}

/// `vstgt` with its image and everything but sockets; `VSTGT_TEST_WAIT` chooses how its reactors wait.
pub fn command(dir: &Path) -> Command {
    command_keeping(dir, &state_dir(dir))
}

/// Theirs alone, so that test programs neither meet in one state directory nor leave anything in one.
pub fn state_dir(dir: &Path) -> PathBuf {
    dir.join("state")
}

/// The same with a state directory that others may have, or `none`.
pub fn command_keeping(dir: &Path, state_dir: &Path) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_vstgt"));
    command.arg("-v").arg("--blk-file").arg(dir.join("disk.img"));
    command.arg("--state-dir").arg(state_dir);
    if let Ok(wait) = std::env::var("VSTGT_TEST_WAIT") {
        command.arg("--wait").arg(wait);
    }
    watched(&mut command, dir);
    command
}

/// Writes its log to where tests look for it, and does not outlive them.
pub fn watched(command: &mut Command, dir: &Path) {
    // SAFETY: a query without memory.
    if unsafe { libc::geteuid() } != 0 {
        // Tests count its descriptors and mappings, which only root may of a process that leaves no core file.
        command.arg("--core-dumps");
    }
    let log = File::options().create(true).append(true).open(dir.join("log")).unwrap();
    command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(log);
    // SAFETY: prctl is async-signal-safe and takes integers here.
    unsafe {
        command.pre_exec(|| {
            // It must not outlive a test program that is aborted.
            libc::prctl(libc::PR_SET_PDEATHSIG, libc::SIGKILL);
            Ok(())
        });
    }
}
