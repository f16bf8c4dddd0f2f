//! The program under test, running.

use crate::process::{Process, wait_until};
use crate::{Context, Error, Result, paths};
use std::ffi::OsString;
use std::fs;
use std::os::unix::fs::MetadataExt;
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

/// How long it may take to open its sockets, or to end after SIGTERM.
const BOUND: Duration = Duration::from_secs(30);

/// How long it may take to refuse a command line.
const REFUSAL: Duration = Duration::from_secs(10);

/// A vstgt to be: its command line.
#[derive(Debug, Clone, Default)]
pub struct Config {
    arguments: Vec<OsString>,
    sockets: Vec<PathBuf>,
}

impl Config {
    /// No sockets, no disks.
    pub fn new() -> Config {
        Config::default()
    }

    /// Adds a socket at `path`; the initiator port's name is vstgt's default.
    #[must_use]
    pub fn socket(self, path: &Path) -> Config {
        self.socket_with(path, "")
    }

    /// Adds a socket with further properties, such as `,initiator=web1`.
    #[must_use]
    pub fn socket_with(mut self, path: &Path, properties: &str) -> Config {
        self.sockets.push(path.to_owned());
        self.arg("--socket-path").arg(format!("{}{properties}", escape(path)))
    }

    /// Tells of a socket that words added by [`arg`](Config::arg) name, so that the start waits for it.
    #[must_use]
    pub fn listens(mut self, path: &Path) -> Config {
        self.sockets.push(path.to_owned());
        self
    }

    /// Adds a logical unit backed by `file`, with further properties, such as `,lun=1,serial=x`.
    #[must_use]
    pub fn lun(self, file: &Path, properties: &str) -> Config {
        self.arg("--lun").arg(format!("file={}{properties}", escape(file)))
    }

    /// Adds one more word to the command line.
    #[must_use]
    pub fn arg(mut self, word: impl Into<OsString>) -> Config {
        self.arguments.push(word.into());
        self
    }

    /// Adds words to the command line.
    #[must_use]
    pub fn args<const N: usize>(self, words: [&str; N]) -> Config {
        words.into_iter().fold(self, Config::arg)
    }

    /// The command, not yet started. Unless a state directory is given, nothing is kept: tests are not to meet in the one that vstgt
    /// would take by itself.
    ///
    /// # Errors
    /// When the binary does not exist.
    pub fn command(&self) -> Result<Command> {
        let mut command = Command::new(paths::vstgt_binary()?);
        command.args(&self.arguments);
        if !self.arguments.iter().any(|word| word == "--state-dir") {
            command.args(["--state-dir", "none"]);
        }
        Ok(command)
    }

    /// Starts it, with its output in `log`, and waits until it listens at every socket.
    ///
    /// # Errors
    /// When it ends early or does not listen in time; the message holds what it said.
    pub fn start(self, log: &Path) -> Result<Vstgt> {
        // A dead process's socket may lie where ours will be.
        let stale: Vec<_> = self.sockets.iter().map(|socket| birth(socket)).collect();
        let mut process = Process::start("vstgt", self.command()?, log)?;
        for (socket, stale) in self.sockets.iter().zip(stale) {
            let there = wait_until(BOUND, || match process.ended()? {
                Some(status) => Err(Error::new(process.explain(&format!("vstgt ended early ({status})")))),
                None => Ok(birth(socket).filter(|birth| Some(*birth) != stale)),
            })?;
            there.context(|| process.explain(&format!("vstgt did not open {}", socket.display())))?;
        }
        Ok(Vstgt { process, sockets: self.sockets })
    }
}

impl Config {
    /// Starts it beside the one that runs, from which it takes over (`--handover`, the same for both), and waits until it serves
    /// and the other one has ended.
    ///
    /// # Errors
    /// When it does not serve in time, or the other one does not end with status 0; the message holds what it said.
    pub fn succeed(self, mut predecessor: Vstgt, log: &Path) -> Result<Vstgt> {
        let mut vstgt = Vstgt { process: Process::start("vstgt", self.command()?, log)?, sockets: self.sockets };
        vstgt.wait_for_log(&["serving"], BOUND)?;
        let status = predecessor.process.wait(BOUND)?;
        if !status.success() {
            return Err(Error::new(predecessor.process.explain(&format!("vstgt handed over and ended with {status}"))));
        }
        Ok(vstgt)
    }
}

/// What tells a file from another one of the same name: its inode (which may be used again) and time of change.
fn birth(file: &Path) -> Option<(u64, i64, i64)> {
    fs::metadata(file).ok().map(|metadata| (metadata.ino(), metadata.ctime(), metadata.ctime_nsec()))
}

impl Config {
    /// Runs it where it must refuse to start, and returns what it says.
    ///
    /// # Errors
    /// When it starts all the same, ends with status 0 or by a signal, or takes long.
    pub fn refused(&self, log: &Path) -> Result<String> {
        let mut process = Process::start("vstgt", self.command()?, log)?;
        let status = process.wait(REFUSAL)?;
        match status.code() {
            Some(code) if code != 0 => Ok(process.output()),
            _ => Err(Error::new(process.explain(&format!("vstgt ended with {status} instead of refusing")))),
        }
    }
}

/// A path in an option list, where a comma is doubled.
fn escape(path: &Path) -> String {
    path.to_string_lossy().replace(',', ",,")
}

/// A running vstgt. Dropping it kills it.
#[derive(Debug)]
pub struct Vstgt {
    process: Process,
    sockets: Vec<PathBuf>,
}

impl Vstgt {
    /// Its process, for signals.
    pub fn process(&mut self) -> &mut Process {
        &mut self.process
    }

    /// How much memory the kernel holds for it, in KiB.
    ///
    /// # Errors
    /// When the kernel does not say.
    pub fn pinned_kib(&self) -> Result<u64> {
        let path = format!("/proc/{}/status", self.process.id());
        let status = fs::read_to_string(&path).context(|| path.clone())?;
        let line = status.lines().find_map(|line| line.strip_prefix("VmPin:"));
        let kib = line.and_then(|line| line.trim().trim_end_matches("kB").trim().parse().ok());
        kib.ok_or_else(|| Error::new(format!("{path}: no VmPin")))
    }

    /// Everything it has logged so far.
    pub fn log(&self) -> String {
        self.process.output()
    }

    /// Waits until a line of its log contains all of `words`.
    ///
    /// # Errors
    /// When none does within `bound`; the message holds the log's end.
    pub fn wait_for_log(&mut self, words: &[&str], bound: Duration) -> Result<String> {
        let line = wait_until(bound, || {
            let log = self.process.output();
            Ok(log.lines().find(|line| words.iter().all(|word| line.contains(word))).map(str::to_owned))
        })?;
        line.context(|| self.process.explain(&format!("vstgt logged no line with {words:?} within {bound:.0?}")))
    }

    /// Asks it to end (SIGTERM) and checks that it does so as it should: status 0, its sockets gone, nobody able to
    /// connect. Returns its whole log.
    ///
    /// # Errors
    /// When it does not; the message holds the log's end.
    pub fn terminate(self) -> Result<String> {
        self.end_by(libc::SIGTERM)
    }

    /// [`terminate`](Vstgt::terminate) by another signal that must do the same.
    ///
    /// # Errors
    /// As [`terminate`](Vstgt::terminate).
    pub fn end_by(mut self, signal: i32) -> Result<String> {
        self.process.signal(signal)?;
        let status = self.process.wait(BOUND)?;
        if !status.success() {
            let what = format!("vstgt ended with {status} after signal {signal}");
            return Err(Error::new(self.process.explain(&what)));
        }
        for socket in &self.sockets {
            if socket.exists() || UnixStream::connect(socket).is_ok() {
                return Err(Error::new(self.process.explain(&format!("vstgt left {} behind", socket.display()))));
            }
        }
        Ok(self.process.output())
    }

    /// Kills it (SIGKILL), as when the host's memory runs out.
    pub fn kill(&mut self) {
        self.process.kill();
    }
}
