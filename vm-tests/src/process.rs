//! A process a test owns: in a group of its own, logged to a file, killed and reaped when its owner lets go.

use crate::{Context, Error, Result, sys};
use std::fs::{self, File};
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Command, ExitStatus, Stdio};
use std::thread;
use std::time::{Duration, Instant};

/// How often a wait looks again.
const TICK: Duration = Duration::from_millis(5);

/// How many lines of a log an error shows.
pub const TAIL: usize = 40;

/// A running child. Dropping it kills its process group and reaps it.
#[derive(Debug)]
pub struct Process {
    name: String,
    child: std::process::Child,
    log: PathBuf,
    /// Whether the child leads a process group of its own, which is then signalled as a whole.
    group: bool,
}

impl Process {
    /// Starts `command` in its own process group with an empty standard input and both outputs in the file `log`.
    /// `name` is what errors call it. It is killed should the calling thread end first.
    ///
    /// # Errors
    /// When the log cannot be made or the program cannot be started.
    pub fn start(name: &str, mut command: Command, log: &Path) -> Result<Process> {
        logged(&mut command, log)?;
        sys::die_with_parent(&mut command);
        Process::spawn(name, command, log, true)
    }

    /// [`start`](Process::start) for what must not be cut off in the middle: it goes on when the caller is killed.
    ///
    /// # Errors
    /// As [`start`](Process::start).
    pub fn start_lasting(name: &str, mut command: Command, log: &Path) -> Result<Process> {
        logged(&mut command, log)?;
        Process::spawn(name, command, log, true)
    }

    /// Starts `command` on the caller's terminal: its standard input and outputs, and its process group, so that it may
    /// read what is typed. `log` names where the caller may look for more (it is not written here).
    ///
    /// # Errors
    /// When the program cannot be started.
    pub fn start_foreground(name: &str, mut command: Command, log: &Path) -> Result<Process> {
        sys::die_with_parent(&mut command);
        Process::spawn(name, command, log, false)
    }

    fn spawn(name: &str, mut command: Command, log: &Path, group: bool) -> Result<Process> {
        let child = command.spawn();
        let child = child.context(|| format!("start {name} ({})", command.get_program().to_string_lossy()))?;
        Ok(Process { name: name.to_owned(), child, log: log.to_owned(), group })
    }

    /// What errors call it.
    pub fn name(&self) -> &str {
        &self.name
    }

    /// The process's id.
    pub fn id(&self) -> u32 {
        self.child.id()
    }

    /// The file its output goes to.
    pub fn log(&self) -> &Path {
        &self.log
    }

    /// Everything it has written so far.
    pub fn output(&self) -> String {
        String::from_utf8_lossy(&fs::read(&self.log).unwrap_or_default()).into_owned()
    }

    /// How it ended, or `None` while it runs.
    ///
    /// # Errors
    /// When the kernel does not say.
    pub fn ended(&mut self) -> Result<Option<ExitStatus>> {
        let name = &self.name;
        self.child.try_wait().context(|| format!("ask after {name}"))
    }

    /// Waits at most `bound` for it to end by itself.
    ///
    /// # Errors
    /// When it still runs then (it goes on running); the message holds the end of its log.
    pub fn wait(&mut self, bound: Duration) -> Result<ExitStatus> {
        let ended = wait_until(bound, || self.ended())?;
        ended.context(|| self.explain(&format!("{} did not end within {bound:.0?}", self.name)))
    }

    /// Sends it (it alone, not its group) a signal.
    ///
    /// # Errors
    /// When it has ended and been reaped, or may not be signalled.
    pub fn signal(&mut self, signal: i32) -> Result<()> {
        // Once reaped, the id may be another process's.
        if let Some(status) = self.ended()? {
            return Err(Error::new(
                self.explain(&format!("{} had ended ({status}) before signal {signal}", self.name)),
            ));
        }
        sys::kill(self.id(), false, signal).context(|| format!("send signal {signal} to {}", self.name))
    }

    /// Kills it with its group and reaps it.
    pub fn kill(&mut self) {
        if self.group {
            // Also after its own end: what it started may live on, and the group's id stays taken while any member does.
            drop(sys::kill(self.id(), true, libc::SIGKILL));
        }
        drop(self.child.kill());
        drop(self.child.wait());
    }

    /// `message`, followed by the log's path and last lines.
    pub fn explain(&self, message: &str) -> String {
        format!("{message}\n{}", tail(&self.log))
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        self.kill();
    }
}

/// Gives `command` a process group of its own, an empty standard input and `log` for its outputs.
fn logged(command: &mut Command, log: &Path) -> Result<()> {
    let out = File::create(log).context(|| format!("create {}", log.display()))?;
    let err = out.try_clone().context(|| format!("share {}", log.display()))?;
    command.stdin(Stdio::null()).stdout(out).stderr(err).process_group(0);
    Ok(())
}

/// The path and the last [`TAIL`] lines of a log, for an error message.
pub fn tail(log: &Path) -> String {
    let text = String::from_utf8_lossy(&fs::read(log).unwrap_or_default()).into_owned();
    format!("--- end of {}\n{}\n---", log.display(), last_lines(&text))
}

/// The last [`TAIL`] lines of a text.
pub fn last_lines(text: &str) -> String {
    let lines: Vec<&str> = text.lines().collect();
    lines[lines.len().saturating_sub(TAIL)..].join("\n")
}

/// Asks `question` until it has an answer or `bound` has passed (then `None`).
///
/// # Errors
/// The first error `question` returns.
pub fn wait_until<T>(bound: Duration, mut question: impl FnMut() -> Result<Option<T>>) -> Result<Option<T>> {
    let end = Instant::now() + bound;
    loop {
        if let Some(answer) = question()? {
            return Ok(Some(answer));
        }
        if Instant::now() >= end {
            return Ok(None);
        }
        thread::sleep(TICK);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::workdir::WorkDir;

    fn shell(script: &str) -> Command {
        let mut command = Command::new("sh");
        command.arg("-c").arg(script);
        command
    }

    #[test]
    fn output_and_status_are_kept() {
        let dir = WorkDir::new("process").unwrap();
        let mut process = Process::start("child", shell("echo out; echo err >&2; exit 3"), &dir.path("c.txt")).unwrap();
        assert_eq!(process.wait(Duration::from_secs(10)).unwrap().code(), Some(3));
        assert_eq!(process.output(), "out\nerr\n");
    }

    #[test]
    fn a_wait_that_is_too_long_says_what_the_child_said() {
        let dir = WorkDir::new("process").unwrap();
        let mut process = Process::start("child", shell("echo stuck; sleep 600"), &dir.path("c.txt")).unwrap();
        wait_until(Duration::from_secs(10), || Ok((!process.output().is_empty()).then_some(()))).unwrap().unwrap();
        let error = process.wait(Duration::from_millis(20)).unwrap_err().to_string();
        assert!(error.contains("child did not end within") && error.contains("stuck"), "{error}");
    }

    #[test]
    fn dropping_kills_the_whole_group() {
        let dir = WorkDir::new("process").unwrap();
        let process = Process::start("child", shell("sleep 600 & echo $!; wait"), &dir.path("c.txt")).unwrap();
        let grandchild = wait_until(Duration::from_secs(10), || Ok(process.output().trim().parse::<u32>().ok()));
        let grandchild = grandchild.unwrap().unwrap();
        drop(process);
        // The orphan is a zombie until init reaps it; a zombie runs nothing.
        let gone = wait_until(Duration::from_secs(10), || {
            let stat = fs::read_to_string(format!("/proc/{grandchild}/stat")).unwrap_or_default();
            Ok((stat.is_empty() || stat.contains(") Z ")).then_some(()))
        });
        assert!(gone.unwrap().is_some(), "process {grandchild} still runs");
    }
}
