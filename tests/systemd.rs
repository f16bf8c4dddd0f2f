//! What a service manager says and hears: the test plays systemd's part, with a datagram socket in `NOTIFY_SOCKET` and descriptors from
//! 3 on.
#![allow(unsafe_code, clippy::unwrap_used, clippy::expect_used, clippy::panic, missing_docs, reason = "test code")]

mod frontend;

use std::fs::{self, File};
use std::os::fd::{AsRawFd, RawFd};
use std::os::linux::net::SocketAddrExt;
use std::os::unix::net::{SocketAddr, UnixDatagram, UnixListener, UnixStream};
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use tempfile::TempDir;

use frontend::process::{IMAGE_SIZE, command};
use frontend::{BOUND, Guest, Wire, eventually};

/// A manager with a directory for its service.
struct Manager {
    dir: TempDir,
    socket: UnixDatagram,
    address: String,
    watchdog: Option<Duration>,
    /// Descriptors to pass, and their names.
    passed: Vec<(UnixListener, &'static str)>,
}

impl Manager {
    fn new() -> Manager {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("notify");
        let socket = UnixDatagram::bind(&path).unwrap();
        Manager::over(dir, socket, path.to_str().unwrap().to_owned())
    }

    fn over(dir: TempDir, socket: UnixDatagram, address: String) -> Manager {
        frontend::watchdog(Duration::from_secs(300));
        File::create(dir.path().join("disk.img")).unwrap().set_len(IMAGE_SIZE).unwrap();
        socket.set_read_timeout(Some(BOUND)).unwrap();
        Manager { dir, socket, address, watchdog: None, passed: Vec::new() }
    }

    fn path(&self, name: &str) -> PathBuf {
        self.dir.path().join(name)
    }

    fn log(&self) -> String {
        fs::read_to_string(self.path("log")).unwrap_or_default()
    }

    /// Listens where a guest will connect.
    fn listen(&mut self, path: &str, name: &'static str) {
        let listener = UnixListener::bind(self.path(path)).unwrap();
        self.passed.push((listener, name));
    }

    /// Starts the service, as systemd does: by a process that becomes it, so that `LISTEN_PID` is known.
    fn start(&self, arguments: &[&str]) -> Service {
        let template = command(self.dir.path());
        let mut command = Command::new("/bin/sh");
        command.arg("-c").arg("LISTEN_PID=$$ exec \"$0\" \"$@\"").arg(template.get_program());
        command.args(template.get_args()).args(arguments).env("NOTIFY_SOCKET", &self.address);
        if let Some(period) = self.watchdog {
            command.env("WATCHDOG_USEC", period.as_micros().to_string());
        }
        if !self.passed.is_empty() {
            let names: Vec<_> = self.passed.iter().map(|(_, name)| *name).collect();
            command.env("LISTEN_FDS", names.len().to_string()).env("LISTEN_FDNAMES", names.join(":"));
        }
        let log = File::options().create(true).append(true).open(self.path("log")).unwrap();
        command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(log);
        let fds: Vec<RawFd> = self.passed.iter().map(|(listener, _)| listener.as_raw_fd()).collect();
        // SAFETY: only async-signal-safe system calls on integers. First to numbers that none of them has, then to theirs.
        unsafe {
            command.pre_exec(move || {
                libc::prctl(libc::PR_SET_PDEATHSIG, libc::SIGKILL);
                for (fd, to) in fds.iter().zip(500..) {
                    libc::dup3(*fd, to, libc::O_CLOEXEC);
                }
                for (from, to) in (500..500 + fds.len() as RawFd).zip(3..) {
                    libc::dup2(from, to);
                }
                Ok(())
            });
        }
        Service(command.spawn().unwrap())
    }

    fn hear(&self) -> String {
        let mut bytes = [0; 500];
        match self.socket.recv(&mut bytes) {
            Ok(n) => String::from_utf8(bytes[..n].to_vec()).unwrap(),
            Err(e) => panic!("nothing is said: {e}\n{}", self.log()),
        }
    }

    /// What is said next that is no sign of life.
    fn hear_news(&self) -> String {
        loop {
            let said = self.hear();
            if said != "WATCHDOG=1" {
                return said;
            }
        }
    }

    /// Signs of life within this time.
    fn signs_within(&self, time: Duration) -> usize {
        let start = Instant::now();
        let mut signs = 0;
        while let Some(left) = time.checked_sub(start.elapsed()).filter(|left| !left.is_zero()) {
            self.socket.set_read_timeout(Some(left)).unwrap();
            signs += usize::from(self.socket.recv(&mut [0; 50]).is_ok());
        }
        self.socket.set_read_timeout(Some(BOUND)).unwrap();
        signs
    }
}

struct Service(Child);

impl Service {
    fn pid(&self) -> i32 {
        self.0.id() as i32
    }

    fn wait(&mut self) -> i32 {
        let start = Instant::now();
        loop {
            if let Some(status) = self.0.try_wait().unwrap() {
                return status.code().unwrap_or(-1);
            }
            assert!(start.elapsed() < BOUND, "it does not end");
            std::thread::sleep(Duration::from_millis(2));
        }
    }

    fn stop(mut self) {
        // SAFETY: a system call that touches no memory; the child is not reaped before `wait`, so the number is its own.
        assert_eq!(unsafe { libc::kill(self.pid(), libc::SIGTERM) }, 0);
        assert_eq!(self.wait(), 0);
    }

    /// The thread of this name.
    fn thread(&self, name: &str) -> Option<i32> {
        let tasks = fs::read_dir(format!("/proc/{}/task", self.0.id())).unwrap();
        let named = |path: &Path| fs::read_to_string(path.join("comm")).is_ok_and(|comm| comm.trim() == name);
        let found = tasks.map(|task| task.unwrap().path()).find(|path| named(path))?;
        found.file_name().unwrap().to_str().unwrap().parse().ok()
    }
}

impl Drop for Service {
    fn drop(&mut self) {
        // It may have ended already.
        drop(self.0.kill());
        drop(self.0.wait());
    }
}

fn socket_argument(manager: &Manager, name: &str) -> String {
    format!("{},initiator={name}", manager.path(&format!("{name}.sock")).display())
}

const SERVING: &str = "READY=1\nSTATUS=serving 1 logical units on 1 sockets";
const STOPPING: &str = "STOPPING=1\nSTATUS=ending";

/// READY=1 when who connects is served, and not before; STOPPING=1 when it ends.
#[test]
fn ready_when_sockets_are_served() {
    let dir = tempfile::tempdir().unwrap();
    let name = format!("vstgt-test-{}", std::process::id());
    let abstract_socket = UnixDatagram::bind_addr(&SocketAddr::from_abstract_name(&name).unwrap()).unwrap();
    for manager in [Manager::new(), Manager::over(dir, abstract_socket, format!("@{name}"))] {
        let service = manager.start(&["--socket-path", &socket_argument(&manager, "a")]);
        assert_eq!(manager.hear(), SERVING);
        Wire::new(UnixStream::connect(manager.path("a.sock")).unwrap()).barrier();
        assert_eq!(service.thread("vstgt-watchdog"), None, "nobody asked for signs of life");
        service.stop();
        assert_eq!(manager.hear(), STOPPING);
    }
}

/// A failure is not READY.
#[test]
fn not_ready_when_it_fails() {
    let manager = Manager::new();
    let mut service = manager.start(&["--socket-path", &socket_argument(&manager, "a"), "--lun", "file=missing,lun=1"]);
    assert_eq!(service.wait(), 1);
    manager.socket.set_nonblocking(true).unwrap();
    assert!(manager.socket.recv(&mut [0; 50]).is_err());
}

/// Sockets that systemd opened: who connects while the service is down, or restarts, waits and is served.
#[test]
fn passed_sockets_are_found_by_path_name_and_number() {
    let mut manager = Manager::new();
    manager.listen("a.sock", "vstgt.socket");
    manager.listen("other.sock", "vm-b");
    let (by_path, by_number) = (socket_argument(&manager, "a"), "4,initiator=b");
    let ways = [vec!["--socket-path", &by_path], vec!["--fd", "vm-b,initiator=b", "--fd", "3,initiator=a"]];
    // One at a time: the other socket belongs to nothing.
    let mut refused = manager.start(&ways[0]);
    assert_eq!(refused.wait(), 1);
    let expected = format!(
        "LISTEN_FDS: descriptor 4 (vm-b, {}) was passed, and no --socket-path has its path, and no --fd its name or number",
        manager.path("other.sock").canonicalize().unwrap().display()
    );
    assert!(manager.log().contains(&expected), "{}", manager.log());
    let mut refused = manager.start(&["--fd", "vm-c"]);
    assert_eq!(refused.wait(), 1);
    let expected = "--fd vm-c: the service manager passed no socket of this name (but: vstgt.socket, vm-b)";
    assert!(manager.log().contains(expected), "{}", manager.log());

    for arguments in [&ways[1], &vec!["--fd", "vstgt.socket,initiator=a", "--fd", by_number]] {
        let early = UnixStream::connect(manager.path("a.sock")).unwrap();
        let service = manager.start(arguments);
        let mut wire = Wire::new(early);
        wire.barrier();
        assert_eq!(manager.hear(), "READY=1\nSTATUS=serving 1 logical units on 2 sockets");
        Guest::attached(&manager.path("other.sock")).check_io(1);
        service.stop();
        wire.assert_closed();
        assert_eq!(manager.hear(), STOPPING);
        wire = Wire::new(UnixStream::connect(manager.path("a.sock")).unwrap());
        drop(wire);
    }
    manager.passed.pop();
    let early = UnixStream::connect(manager.path("a.sock")).unwrap();
    let service = manager.start(&ways[0]);
    Wire::new(early).barrier();
    assert_eq!(manager.hear(), SERVING);
    service.stop();
    assert!(manager.path("a.sock").exists(), "the file is systemd's");
}

/// Variables that were meant for another process are not looked at.
#[test]
fn sockets_of_others_are_left_alone() {
    let manager = Manager::new();
    let mut command = command(manager.dir.path());
    command.arg("--socket-path").arg(socket_argument(&manager, "a"));
    command.env("NOTIFY_SOCKET", &manager.address).env("LISTEN_FDS", "3").env("LISTEN_PID", "1");
    let service = Service(command.spawn().unwrap());
    assert_eq!(manager.hear(), SERVING);
    service.stop();
}

/// Holds one thread of the process, as a hang would. Released when dropped.
struct HeldThread(i32);

impl HeldThread {
    fn hold(thread: i32) -> HeldThread {
        let null = std::ptr::null_mut::<libc::c_void>();
        // SAFETY: PTRACE_SEIZE and PTRACE_INTERRUPT take no pointers that they follow.
        let result = unsafe {
            [
                libc::ptrace(libc::PTRACE_SEIZE, thread, null, null),
                libc::ptrace(libc::PTRACE_INTERRUPT, thread, null, null),
            ]
        };
        assert_eq!(result, [0, 0], "{}", std::io::Error::last_os_error());
        let mut status = 0;
        // SAFETY: `status` is a live integer.
        assert_eq!(unsafe { libc::waitpid(thread, &mut status, libc::__WALL) }, thread);
        assert!(libc::WIFSTOPPED(status));
        HeldThread(thread)
    }
}

impl Drop for HeldThread {
    fn drop(&mut self) {
        let null = std::ptr::null_mut::<libc::c_void>();
        // SAFETY: PTRACE_DETACH takes no pointer that it follows.
        let result = unsafe { libc::ptrace(libc::PTRACE_DETACH, self.0, null, null) };
        assert_eq!(result, 0, "{}", std::io::Error::last_os_error());
    }
}

/// WATCHDOG=1 in every half of the period while all reactors are alive; none while one hangs, though the other is well.
#[test]
fn no_sign_of_life_while_a_reactor_hangs() {
    let mut manager = Manager::new();
    let period = Duration::from_millis(300);
    manager.watchdog = Some(period);
    let service = manager.start(&["--socket-path", &socket_argument(&manager, "a"), "--reactors", "2"]);
    assert_eq!(manager.hear_news(), SERVING);
    let signs = manager.signs_within(period * 5);
    assert!((5..=11).contains(&signs), "{signs} signs of life in five periods");
    for reactor in ["vstgt-reactor1", "vstgt-reactor0"] {
        let held = HeldThread::hold(service.thread(reactor).unwrap());
        // What was on its way.
        manager.signs_within(period / 2);
        assert_eq!(manager.signs_within(period * 4), 0, "{reactor} hangs, and signs of life are given");
        let number = reactor.trim_start_matches("vstgt-reactor");
        eventually("it is said", || manager.log().contains(&format!("reactor {number} does not answer")));
        drop(held);
        assert_eq!(manager.hear(), "WATCHDOG=1");
        assert!(manager.signs_within(period * 3) >= 2, "{reactor} is well again");
    }
    service.stop();
    assert_eq!(manager.hear_news(), STOPPING);
}

/// In a planned restart the manager is told which process is the service now, and hears no end of it.
#[test]
fn a_handover_changes_the_main_process() {
    let manager = Manager::new();
    let (socket, handover) = (socket_argument(&manager, "a"), manager.path("handover"));
    let arguments = ["--socket-path", &socket, "--handover", handover.to_str().unwrap()];
    let mut service = manager.start(&arguments);
    let heard = |what: &str| {
        let said = manager.hear();
        assert!(said.contains(what), "{said}");
    };
    heard("EXTEND_TIMEOUT_USEC=");
    heard(SERVING);
    let successor = manager.start(&arguments);
    let mut said = Vec::new();
    while said.last().is_none_or(|last| last != SERVING) {
        said.push(manager.hear());
    }
    assert_eq!(service.wait(), 0);
    let (main, from) = (format!("MAINPID={}", successor.pid()), format!("taking over from process {}", service.pid()));
    assert!(said.iter().any(|said| said.starts_with(&main)), "{said:?}");
    assert!(said.iter().any(|said| said.contains(&from)), "{said:?}");
    assert!(!said.iter().any(|said| said.contains("STOPPING")), "{said:?}");
    successor.stop();
    heard(STOPPING);
}

/// The units in `docs/systemd` do what they are there for: their sockets are those of their command line.
#[test]
fn the_example_units_fit_together() {
    let units = Path::new(env!("CARGO_MANIFEST_DIR")).join("docs/systemd");
    let unit = |name: &str| fs::read_to_string(units.join(name)).unwrap().replace("\\\n", " ");
    let (service, sockets) = (unit("vstgt.service"), unit("vstgt.socket"));
    let values = |unit: &str, key: &str| -> Vec<String> {
        unit.lines().filter_map(|line| line.strip_prefix(key)?.strip_prefix('=')).map(str::to_owned).collect()
    };
    assert_eq!(values(&service, "Type"), ["notify"]);
    let mut manager = Manager::new();
    let here = |text: &str| {
        let root = manager.dir.path().display().to_string();
        text.replace("/run/vstgt-vms", &root).replace("/var/lib/vstgt", &root)
    };
    let paths: Vec<_> = values(&sockets, "ListenStream").iter().map(|path| here(path)).collect();
    let line = here(&values(&service, "ExecStart")[0]);
    let words: Vec<_> = line.split_whitespace().skip(1).collect();
    // The test's own command line has a state directory and an image already.
    let at = words.iter().position(|word| *word == "--state-dir").unwrap();
    let arguments: Vec<_> = [&words[..at], &words[at + 2..]].concat();
    let arguments: Vec<String> =
        arguments.iter().map(|word| word.replacen("shared.img", "shared.img,lun=1", 1)).collect();
    File::create(manager.path("shared.img")).unwrap().set_len(1 << 20).unwrap();
    for path in &paths {
        manager.passed.push((UnixListener::bind(path).unwrap(), "vstgt.socket"));
    }
    let service = manager.start(&arguments.iter().map(String::as_str).collect::<Vec<_>>());
    let said = manager.hear();
    assert_eq!(said, format!("READY=1\nSTATUS=serving 2 logical units on {} sockets", paths.len()));
    for path in &paths {
        Guest::attached(Path::new(path)).check_io(1);
    }
    service.stop();
}
