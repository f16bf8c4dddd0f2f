//! A character device of a guest, seen from the host: a serial console, an agent's port, the machine protocol.
//!
//! The host listens and QEMU connects, so nothing the guest says is lost before somebody looks. A thread takes in
//! whatever comes, so the guest never waits for the host; it goes to a log file, too. Reading is by a cursor: what was
//! consumed is not found again.

use crate::process::{Process, last_lines, wait_until};
use crate::{Context, Error, Result};
use std::fs::File;
use std::io::{ErrorKind, Read, Write};
use std::os::unix::net::{UnixListener, UnixStream};
use std::path::{Path, PathBuf};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::thread;
use std::time::{Duration, Instant};

/// How long QEMU may take to connect after its start, on a loaded machine.
const CONNECT: Duration = Duration::from_secs(30);

/// What Linux prints before it stops for good.
const PANIC: &str = "Kernel panic - not syncing";

/// A socket that QEMU is about to connect to.
#[derive(Debug)]
pub struct Listening {
    listener: UnixListener,
    path: PathBuf,
}

impl Listening {
    /// Listens at `path`.
    ///
    /// # Errors
    /// When the socket cannot be made.
    pub fn at(path: &Path) -> Result<Listening> {
        let listener = UnixListener::bind(path).context(|| format!("listen at {}", path.display()))?;
        listener.set_nonblocking(true).context(|| "set a socket non-blocking")?;
        Ok(Listening { listener, path: path.to_owned() })
    }

    /// The socket's path.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// Waits for `qemu` to connect. What comes is written to `log`, too.
    ///
    /// # Errors
    /// When it ends before, or takes too long.
    pub fn accept(self, qemu: &mut Process, log: &Path) -> Result<Port> {
        let stream = wait_until(CONNECT, || match self.listener.accept() {
            Ok((stream, _)) => Ok(Some(stream)),
            Err(error) if error.kind() == ErrorKind::WouldBlock => match qemu.ended()? {
                Some(status) => Err(Error::new(qemu.explain(&format!("{} ended early ({status})", qemu.name())))),
                None => Ok(None),
            },
            Err(error) => Err(error).context(|| format!("accept at {}", self.path.display())),
        })?;
        let what = || qemu.explain(&format!("{} did not connect to {}", qemu.name(), self.path.display()));
        Port::new(stream.context(what)?, log)
    }
}

/// What has come so far.
#[derive(Debug, Default)]
struct Inbox {
    bytes: Vec<u8>,
    closed: bool,
    /// The guest's kernel said that it panics.
    panicked: bool,
}

impl Inbox {
    fn take(&mut self, fresh: &[u8]) {
        // What is old was looked through; the words may have come in two pieces.
        let from = self.bytes.len().saturating_sub(PANIC.len());
        self.bytes.extend_from_slice(fresh);
        self.panicked = self.panicked || find(&self.bytes[from..], PANIC.as_bytes()).is_some();
    }
}

/// The host's end of a guest's character device.
#[derive(Debug)]
pub struct Port {
    stream: UnixStream,
    inbox: Arc<(Mutex<Inbox>, Condvar)>,
    cursor: usize,
    log: PathBuf,
}

impl Port {
    fn new(stream: UnixStream, log: &Path) -> Result<Port> {
        stream.set_nonblocking(false).context(|| "set a socket blocking")?;
        stream.set_write_timeout(Some(CONNECT)).context(|| "bound a socket's writes")?;
        let file = File::create(log).context(|| format!("create {}", log.display()))?;
        let source = stream.try_clone().context(|| "share a socket")?;
        let inbox = Arc::new((Mutex::new(Inbox::default()), Condvar::new()));
        let sink = Arc::clone(&inbox);
        thread::spawn(move || take_in(source, file, &sink));
        Ok(Port { stream, inbox, cursor: 0, log: log.to_owned() })
    }

    /// Everything that ever came.
    pub fn text(&self) -> String {
        String::from_utf8_lossy(&lock(&self.inbox).bytes).into_owned()
    }

    /// The file that holds [`text`](Port::text).
    pub fn log(&self) -> &Path {
        &self.log
    }

    /// Sends `text` as it is; a terminal's return key is `\r` or `\n`.
    ///
    /// # Errors
    /// When QEMU has gone or does not read for long.
    pub fn send(&mut self, text: &str) -> Result<()> {
        self.stream.write_all(text.as_bytes()).context(|| self.explain("send to the guest"))
    }

    /// Waits until `needle` comes after the cursor, moves the cursor behind it and returns what lay between, `needle`
    /// included.
    ///
    /// # Errors
    /// When it does not come within `bound`, the port closes or the guest's kernel panics; the message holds the port's
    /// last lines.
    pub fn expect(&mut self, needle: &str, bound: Duration) -> Result<String> {
        let take = |text: &[u8]| find(text, needle.as_bytes()).map(|at| at + needle.len());
        self.consume(bound, &format!("\"{needle}\""), take)
    }

    /// Waits for a whole line after the cursor, moves the cursor behind it and returns it without its end.
    ///
    /// # Errors
    /// As [`expect`](Port::expect).
    pub fn line(&mut self, bound: Duration) -> Result<String> {
        let line =
            self.consume(bound, "a line", |text| text.iter().position(|byte| *byte == b'\n').map(|at| at + 1))?;
        Ok(line.trim_end_matches(['\r', '\n']).to_owned())
    }

    fn consume(&mut self, bound: Duration, what: &str, take: impl Fn(&[u8]) -> Option<usize>) -> Result<String> {
        let end = Instant::now() + bound;
        let mut inbox = lock(&self.inbox);
        loop {
            let fresh = &inbox.bytes[self.cursor..];
            if let Some(length) = take(fresh) {
                let text = String::from_utf8_lossy(&fresh[..length]).into_owned();
                self.cursor += length;
                return Ok(text);
            }
            let left = end.saturating_duration_since(Instant::now());
            let (panicked, closed, late) = (inbox.panicked, inbox.closed, left.is_zero());
            if closed || panicked || late {
                drop(inbox);
                let why = match (panicked, closed) {
                    (true, _) => "the guest's kernel panicked".to_owned(),
                    (_, true) => "the guest has gone".to_owned(),
                    _ => format!("nothing within {bound:.0?}"),
                };
                return Err(Error::new(self.explain(&format!("waited for {what}: {why}"))));
            }
            let waited = self.inbox.1.wait_timeout(inbox, left).unwrap_or_else(PoisonError::into_inner);
            inbox = waited.0;
        }
    }

    /// `message`, followed by the port's log and its last lines.
    pub fn explain(&self, message: &str) -> String {
        let text = self.text();
        // A panic is told first, then a long stack.
        let panic = text.lines().find(|line| line.contains(PANIC)).map(|line| format!("{line}\n"));
        let panic = panic.unwrap_or_default();
        let last = last_lines(&text);
        format!("{message}\n{panic}--- end of {}\n{last}\n---", self.log.display())
    }
}

impl Drop for Port {
    fn drop(&mut self) {
        // Ends the reading thread.
        drop(self.stream.shutdown(std::net::Shutdown::Both));
    }
}

fn lock(inbox: &Arc<(Mutex<Inbox>, Condvar)>) -> MutexGuard<'_, Inbox> {
    // The inbox is whole after every step, so a panic elsewhere spoils nothing.
    inbox.0.lock().unwrap_or_else(PoisonError::into_inner)
}

fn find(text: &[u8], needle: &[u8]) -> Option<usize> {
    text.windows(needle.len()).position(|window| window == needle)
}

/// Moves what comes into the inbox and the log until the other side closes.
fn take_in(mut source: UnixStream, mut log: File, inbox: &Arc<(Mutex<Inbox>, Condvar)>) {
    let mut buffer = [0; 4096];
    loop {
        let got = match source.read(&mut buffer) {
            Ok(0) => break,
            Ok(got) => got,
            Err(error) if error.kind() == ErrorKind::Interrupted => continue,
            Err(_) => break,
        };
        // The log is for people; the inbox has it all.
        drop(log.write_all(&buffer[..got]));
        lock(inbox).take(&buffer[..got]);
        inbox.1.notify_all();
    }
    lock(inbox).closed = true;
    inbox.1.notify_all();
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::workdir::WorkDir;

    const SOON: Duration = Duration::from_secs(10);

    fn pair(dir: &WorkDir) -> (Port, UnixStream) {
        let (ours, theirs) = UnixStream::pair().unwrap();
        (Port::new(ours, &dir.path("port.txt")).unwrap(), theirs)
    }

    #[test]
    fn the_cursor_moves_behind_what_was_found() {
        let dir = WorkDir::new("port").unwrap();
        let (mut port, mut guest) = pair(&dir);
        guest.write_all(b"boot\r\nlogin: login: rest").unwrap();
        assert_eq!(port.line(SOON).unwrap(), "boot");
        assert_eq!(port.expect("login:", SOON).unwrap(), "login:");
        assert_eq!(port.expect("login:", SOON).unwrap(), " login:");
        let error = port.expect("login:", Duration::from_millis(20)).unwrap_err().to_string();
        assert!(error.contains("nothing within") && error.contains("rest"), "{error}");
        port.send("root\n").unwrap();
        let mut typed = [0; 5];
        guest.read_exact(&mut typed).unwrap();
        assert_eq!(&typed, b"root\n");
    }

    #[test]
    fn a_guest_that_goes_or_panics_ends_the_wait_early() {
        let dir = WorkDir::new("port").unwrap();
        let (mut port, mut guest) = pair(&dir);
        guest.write_all(b"half a line").unwrap();
        drop(guest);
        let error = port.line(SOON).unwrap_err().to_string();
        assert!(error.contains("has gone") && error.contains("half a line"), "{error}");

        let (mut port, mut guest) = pair(&dir);
        guest.write_all(b"Kernel pa").unwrap();
        assert!(port.expect("login:", Duration::from_millis(20)).unwrap_err().to_string().contains("nothing within"));
        guest.write_all(b"nic - not syncing: oops\n").unwrap();
        let error = port.expect("login:", SOON).unwrap_err().to_string();
        assert!(error.contains("kernel panicked"), "{error}");
    }
}
