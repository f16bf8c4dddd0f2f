//! What is said to the service manager (`sd_notify(3)`), and the keep-alive that says it.
//!
//! # Contract
//!
//! * Nothing is said, and nothing done, without `NOTIFY_SOCKET`. Its socket is opened and connected once, as the process starts: the
//!   sandbox may forbid new ones. Saying something never waits: what the manager has no room for is dropped.
//! * A [`Watchdog`] exists only where `WATCHDOG_USEC` asks for one. Every half of that time it posts a letter to each reactor, and says
//!   `WATCHDOG=1` when **all** have read theirs: a reactor that hangs ends the keep-alive, however well the others are. That is the only
//!   time that it wakes an idle reactor; commands cost nothing.

use std::env;
use std::ffi::OsStr;
use std::io;
use std::os::linux::net::SocketAddrExt;
use std::os::unix::ffi::OsStrExt;
use std::os::unix::net::{SocketAddr, UnixDatagram};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::mpsc::{Receiver, TryRecvError};
use std::thread::{self, JoinHandle};
use std::time::{Duration, Instant};

/// How often a letter that has not been read is looked for.
const LOOK: Duration = Duration::from_millis(1);

/// The way to the service manager, if there is one.
#[derive(Clone, Debug, Default)]
pub(super) struct Notifier(Option<Arc<UnixDatagram>>);

impl Notifier {
    /// As the environment says. A socket that cannot be used costs a word in the log: the service manager will miss us soon enough.
    pub(super) fn from_environment() -> Notifier {
        let Some(address) = env::var_os("NOTIFY_SOCKET") else { return Notifier(None) };
        match connect(&address) {
            Ok(socket) => Notifier(Some(Arc::new(socket))),
            Err(e) => {
                log::warn!("NOTIFY_SOCKET={}: {e}", address.display());
                Notifier(None)
            }
        }
    }

    /// Sockets are served.
    pub(super) fn ready(&self, status: &str) {
        self.say(&format!("READY=1\n{}", Self::as_status(status)));
    }

    /// What it is doing, for people.
    pub(super) fn status(&self, status: &str) {
        self.say(&Self::as_status(status));
    }

    /// The process ends.
    pub(super) fn stopping(&self) {
        self.say("STOPPING=1\nSTATUS=ending");
    }

    /// Another process is the service from now on.
    pub(super) fn main_pid(&self, pid: i32) {
        self.say(&format!("MAINPID={pid}\nSTATUS=handed over to process {pid}"));
    }

    /// Starting takes longer than usual: at most so long from now, and more may follow.
    pub(super) fn extend_start(&self, by: Duration) {
        self.say(&format!("EXTEND_TIMEOUT_USEC={}", by.as_micros()));
    }

    fn as_status(status: &str) -> String {
        format!("STATUS={}", status.replace('\n', " "))
    }

    fn say(&self, what: &str) {
        if let Some(socket) = &self.0
            && let Err(e) = socket.send(what.as_bytes())
        {
            log::debug!("the service manager does not hear: {e}");
        }
    }
}

/// A path, or with `@` in front a name of the abstract namespace.
fn connect(address: &OsStr) -> io::Result<UnixDatagram> {
    let address = match address.as_bytes() {
        [b'/', ..] => SocketAddr::from_pathname(address)?,
        [b'@', name @ ..] => SocketAddr::from_abstract_name(name)?,
        _ => return Err(io::Error::new(io::ErrorKind::InvalidInput, "neither a path nor an abstract name")),
    };
    let socket = UnixDatagram::unbound()?;
    socket.set_nonblocking(true)?;
    socket.connect_addr(&address)?;
    Ok(socket)
}

/// How long the service manager waits for a sign of life (`WATCHDOG_USEC`), if it wants one of this process (`WATCHDOG_PID`).
pub(super) fn watchdog_period() -> Option<Duration> {
    period(env::var("WATCHDOG_USEC").ok().as_deref(), env::var("WATCHDOG_PID").ok().as_deref(), std::process::id())
}

fn period(usec: Option<&str>, of: Option<&str>, us: u32) -> Option<Duration> {
    let ours = of.is_none_or(|pid| pid.parse() == Ok(us));
    let usec = usec?.parse().ok().filter(|usec| *usec > 0)?;
    ours.then(|| Duration::from_micros(usec))
}

/// The running keep-alive. Dropped, it ends.
#[derive(Debug)]
pub(super) struct Watchdog {
    stopping: Arc<AtomicBool>,
    thread: JoinHandle<()>,
}

impl Watchdog {
    /// Starts it. `ping` posts a letter to every reactor and gives back what their answers come by; a reactor that has ended (its answer
    /// is dropped) needs no life any more.
    ///
    /// # Errors
    ///
    /// There is no thread to be had.
    pub(super) fn start(
        notifier: Notifier,
        period: Duration,
        ping: impl Fn() -> Vec<Receiver<()>> + Send + 'static,
    ) -> io::Result<Watchdog> {
        let stopping = Arc::new(AtomicBool::new(false));
        let stop = Arc::clone(&stopping);
        let thread = thread::Builder::new().name("vstgt-watchdog".into()).spawn(move || {
            while !stop.load(Ordering::Acquire) {
                let begun = Instant::now();
                if all_answer(&ping(), begun + period, &stop) {
                    notifier.say("WATCHDOG=1");
                }
                thread::park_timeout((period / 2).saturating_sub(begun.elapsed()));
            }
        })?;
        Ok(Watchdog { stopping, thread })
    }
}

impl Drop for Watchdog {
    fn drop(&mut self) {
        self.stopping.store(true, Ordering::Release);
        self.thread.thread().unpark();
    }
}

/// Waits until every reactor has answered. Once it is `late` that is said; it is waited for all the same, so that letters
/// do not pile up before a reactor that hangs.
fn all_answer(answers: &[Receiver<()>], late: Instant, stop: &AtomicBool) -> bool {
    let mut said = false;
    for (reactor, answer) in answers.iter().enumerate() {
        // Most answer at once; one that does not is not worth a wake-up every millisecond for ever.
        let mut look = LOOK;
        while let Err(TryRecvError::Empty) = answer.try_recv() {
            if stop.load(Ordering::Acquire) {
                return false;
            }
            if !said && Instant::now() > late {
                said = true;
                log::error!("reactor {reactor} does not answer: the service manager gets no sign of life");
            }
            thread::park_timeout(look);
            look = (look * 2).min(Duration::from_millis(100));
        }
    }
    true
}

#[cfg(test)]
mod tests {
    use std::sync::Mutex;
    use std::sync::mpsc::{SyncSender, sync_channel};

    use super::*;

    const BOUND: Duration = Duration::from_secs(20);

    fn manager() -> (tempfile::TempDir, UnixDatagram, Notifier) {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("notify");
        let socket = UnixDatagram::bind(&path).unwrap();
        socket.set_read_timeout(Some(BOUND)).unwrap();
        let notifier = Notifier(Some(Arc::new(connect(path.as_os_str()).unwrap())));
        (dir, socket, notifier)
    }

    fn heard(socket: &UnixDatagram) -> String {
        let mut bytes = [0; 500];
        let n = socket.recv(&mut bytes).unwrap();
        String::from_utf8(bytes[..n].to_vec()).unwrap()
    }

    #[test]
    fn says_what_the_manual_says() {
        let (_dir, socket, notifier) = manager();
        notifier.ready("two\nlines");
        notifier.stopping();
        notifier.main_pid(7);
        notifier.extend_start(Duration::from_millis(1500));
        assert_eq!(heard(&socket), "READY=1\nSTATUS=two lines");
        assert_eq!(heard(&socket), "STOPPING=1\nSTATUS=ending");
        assert_eq!(heard(&socket), "MAINPID=7\nSTATUS=handed over to process 7");
        assert_eq!(heard(&socket), "EXTEND_TIMEOUT_USEC=1500000");
    }

    #[test]
    fn abstract_names_are_found_and_others_are_refused() {
        let name = format!("vstgt-notify-test-{}", std::process::id());
        let address = SocketAddr::from_abstract_name(&name).unwrap();
        let socket = UnixDatagram::bind_addr(&address).unwrap();
        socket.set_read_timeout(Some(BOUND)).unwrap();
        Notifier(Some(Arc::new(connect(OsStr::new(&format!("@{name}"))).unwrap()))).status("x");
        assert_eq!(heard(&socket), "STATUS=x");
        for bad in ["", "relative", "@", "vsock:2:1234", "/nonexistent/socket"] {
            assert!(connect(OsStr::new(bad)).is_err(), "{bad}");
        }
    }

    /// A manager that reads nothing does not hold us up.
    #[test]
    fn a_full_socket_is_not_waited_for() {
        let (_dir, _socket, notifier) = manager();
        for _ in 0..10_000 {
            notifier.status("again and again");
        }
    }

    #[test]
    fn a_watchdog_is_for_whom_it_is_meant() {
        let second = Some(Duration::from_secs(1));
        assert_eq!(period(None, None, 5), None);
        assert_eq!(period(Some("1000000"), None, 5), second);
        assert_eq!(period(Some("1000000"), Some("5"), 5), second);
        assert_eq!(period(Some("1000000"), Some("6"), 5), None);
        assert_eq!(period(Some("0"), None, 5), None);
        assert_eq!(period(Some("soon"), None, 5), None);
    }

    /// One of two reactors does not answer: no sign of life, and no more letters, until it does.
    #[test]
    fn one_reactor_that_hangs_ends_the_keep_alive() {
        let (_dir, socket, notifier) = manager();
        let hangs = Arc::new(AtomicBool::new(false));
        let held: Arc<Mutex<Vec<SyncSender<()>>>> = Arc::default();
        let ping = {
            let (hangs, held) = (Arc::clone(&hangs), Arc::clone(&held));
            move || {
                let [(one, answer), (other, late)] = [(); 2].map(|()| sync_channel(1));
                one.send(()).unwrap();
                if hangs.load(Ordering::SeqCst) {
                    held.lock().unwrap().push(other);
                } else {
                    other.send(()).unwrap();
                }
                vec![answer, late]
            }
        };
        let period = Duration::from_millis(40);
        let watchdog = Watchdog::start(notifier, period, ping).unwrap();
        let start = Instant::now();
        for _ in 0..5 {
            assert_eq!(heard(&socket), "WATCHDOG=1");
        }
        assert!(start.elapsed() > period / 2 * 3, "every half period, not more often");
        hangs.store(true, Ordering::SeqCst);
        while held.lock().unwrap().is_empty() {
            thread::sleep(LOOK);
        }
        socket.set_read_timeout(Some(Duration::from_millis(1))).unwrap();
        while socket.recv(&mut [0; 50]).is_ok() {}
        socket.set_read_timeout(Some(period * 5)).unwrap();
        assert!(socket.recv(&mut [0; 50]).is_err(), "a sign of life though one hangs");
        hangs.store(false, Ordering::SeqCst);
        let letters = std::mem::take(&mut *held.lock().unwrap());
        assert_eq!(letters.len(), 1, "letters pile up");
        letters[0].send(()).unwrap();
        socket.set_read_timeout(Some(BOUND)).unwrap();
        assert_eq!(heard(&socket), "WATCHDOG=1");
        drop(watchdog);
    }
}
