//! Planned restarts with real processes: a successor takes the sockets over, no connection attempt is refused or lost, registrations go
//! on; whoever of the two goes away at whatever moment, somebody serves, or a process that is started then does.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, missing_docs, reason = "test code")]

mod frontend;
#[path = "storm/random.rs"]
mod random;

use std::fs::{self, File};
use std::io::Read;
use std::net::Shutdown;
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};
use std::process::{Child, ExitStatus};
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use tempfile::TempDir;
use vhost::vhost_user::message::FrontendReq::GET_FEATURES;

use frontend::guest::{LINUX_FEATURES, connect};
use frontend::process::{IMAGE_SIZE, command};
use frontend::{BOUND, Buffer, Guest, Ram, Wire, eventually};
use random::Random;

const NAMES: [&str; 2] = ["a", "b"];
const KEY: u64 = 0x00c0_ffee;

/// A directory with an image, for one process after the other.
struct Place(TempDir);

impl Place {
    fn new() -> Place {
        frontend::watchdog(Duration::from_secs(900));
        let dir = tempfile::tempdir().unwrap();
        File::create(dir.path().join("disk.img")).unwrap().set_len(IMAGE_SIZE).unwrap();
        Place(dir)
    }

    fn path(&self, name: &str) -> PathBuf {
        self.0.path().join(name)
    }

    fn socket(&self, name: &str) -> PathBuf {
        self.path(&format!("{name}.sock"))
    }

    fn log(&self) -> String {
        fs::read_to_string(self.path("log")).unwrap_or_default()
    }

    /// How often the log says this.
    fn said(&self, what: &str) -> usize {
        self.log().matches(what).count()
    }

    fn spawn(&self) -> Running<'_> {
        self.spawn_with(&NAMES, &[])
    }

    fn spawn_with(&self, names: &[&str], more: &[&str]) -> Running<'_> {
        let mut command = command(self.0.path());
        for name in names {
            command.arg("--socket-path").arg(format!("{},initiator={name}", self.socket(name).display()));
        }
        command.arg("--handover").arg(self.path("handover")).args(["--nexus-loss-timeout", "60"]).args(more);
        Running { place: self, child: command.spawn().unwrap() }
    }

    /// The same, and waits until it serves.
    fn start(&self) -> Running<'_> {
        let before = self.said("serving 1 logical units");
        let mut running = self.spawn();
        running.wait_until_serving(before);
        running
    }

    fn guest(&self, name: &str) -> Guest {
        let mut guest = Guest::over(connect(&self.socket(name)), Ram::new(16 << 20));
        guest.negotiate();
        guest.start(LINUX_FEATURES, &[0, 1, 2], 128);
        guest
    }

    /// Fails if there is anything but what belongs there when nobody runs.
    fn assert_tidy(&self) {
        let names = fs::read_dir(self.0.path()).unwrap().map(|entry| entry.unwrap().file_name().into_string().unwrap());
        let mut names: Vec<_> = names.collect();
        names.sort();
        assert_eq!(names, ["disk.img", "log", "state"]);
    }
}

struct Running<'a> {
    place: &'a Place,
    child: Child,
}

impl Running<'_> {
    fn pid(&self) -> i32 {
        self.child.id() as i32
    }

    /// Serving: it said so more than `before` times.
    fn wait_until_serving(&mut self, before: usize) {
        let start = Instant::now();
        while self.place.said("serving 1 logical units") <= before {
            if let Some(status) = self.child.try_wait().unwrap() {
                panic!("vstgt ended: {status}\n{}", self.place.log());
            }
            assert!(start.elapsed() < BOUND, "does not serve\n{}", self.place.log());
            std::thread::sleep(Duration::from_millis(1));
        }
    }

    /// Whether it attends to whoever would succeed it. One that was told to end attends to nobody: it will end, however long that takes it. Those
    /// who came before have been attended to when this returns.
    fn attends(&self) -> bool {
        let handover = self.place.path("handover");
        let came_and_went = || -> std::io::Result<usize> {
            let mut stream = UnixStream::connect(&handover)?;
            stream.set_read_timeout(Some(BOUND))?;
            stream.shutdown(Shutdown::Write)?;
            stream.read(&mut [0])
        };
        // It may be closed unattended, with the socket; then there is none any more.
        matches!(came_and_went(), Ok(0)) && matches!(came_and_went(), Ok(0))
    }

    fn has_ended(&mut self) -> Option<ExitStatus> {
        self.child.try_wait().unwrap()
    }

    fn wait(mut self) -> ExitStatus {
        let start = Instant::now();
        loop {
            if let Some(status) = self.has_ended() {
                return status;
            }
            assert!(start.elapsed() < BOUND, "vstgt does not end\n{}", self.place.log());
            std::thread::sleep(Duration::from_millis(1));
        }
    }

    fn signal(&self, signal: i32) {
        #[allow(unsafe_code, reason = "test code")]
        // SAFETY: a system call that touches no memory; the child is not reaped before `wait`, so the number is its own.
        let result = unsafe { libc::kill(self.pid(), signal) };
        assert_eq!(result, 0, "{}", std::io::Error::last_os_error());
    }

    /// SIGTERM: it ends with status 0, and no socket file is left.
    fn stop(self) {
        let place = self.place;
        self.signal(libc::SIGTERM);
        let status = self.wait();
        assert!(status.success(), "{status}\n{}", place.log());
        place.assert_tidy();
    }
}

impl Drop for Running<'_> {
    fn drop(&mut self) {
        if std::thread::panicking() {
            let log = self.place.log();
            eprintln!("--- end of the log of vstgt ---\n{}", &log[log.len().saturating_sub(6000)..]);
        }
        // It may have ended already.
        drop(self.child.kill());
        drop(self.child.wait());
    }
}

/// PERSISTENT RESERVE OUT, REGISTER AND IGNORE EXISTING KEY.
fn register(guest: &mut Guest) {
    let at = guest.ram.alloc(24);
    let mut list = [0; 24];
    list[8..16].copy_from_slice(&KEY.to_be_bytes());
    guest.ram.write(at, &list);
    let answer = guest.command(&[0x5f, 6, 0, 0, 0, 0, 0, 0, 24, 0], &[Buffer::out(at, 24)], &[]);
    assert!(answer.good(), "{answer:?}");
}

/// PERSISTENT RESERVE IN, READ KEYS: PRGENERATION and the keys.
fn keys(guest: &mut Guest) -> (u32, Vec<u64>) {
    let at = guest.ram.alloc(64);
    let answer = guest.command(&[0x5e, 0, 0, 0, 0, 0, 0, 0, 64, 0], &[], &[Buffer::input(at, 64)]);
    assert!(answer.good(), "{answer:?}");
    let bytes = guest.ram.read(at, 64);
    let length = u32::from_be_bytes(bytes[4..8].try_into().unwrap()) as usize;
    let keys = bytes[8..8 + length].chunks_exact(8).map(|key| u64::from_be_bytes(key.try_into().unwrap()));
    (u32::from_be_bytes(bytes[..4].try_into().unwrap()), keys.collect())
}

/// One connection attempt: made, and its first message answered.
fn attempt(path: &Path) -> Result<Duration, String> {
    let start = Instant::now();
    let stream = UnixStream::connect(path).map_err(|e| format!("refused: {e}"))?;
    let wire = Wire::new(stream);
    wire.try_send(GET_FEATURES as u32, 1, &[], &[]).map_err(|()| "closed before it said anything")?;
    let mut header = [0; 20];
    std::io::Read::read_exact(&mut &wire.0, &mut header).map_err(|e| format!("lost: {e}"))?;
    Ok(start.elapsed())
}

/// Fifty planned restarts, while somebody connects again and again and a guest uses the disk.
#[test]
fn no_connection_attempt_is_lost_in_fifty_handovers() {
    const ROUNDS: usize = 50;
    let place = Place::new();
    let mut running = place.start();
    let mut guest = place.guest("a");
    assert_eq!(guest.clear_attentions(), [(6, 0x29, 0)]);
    register(&mut guest);
    let (generation, _) = keys(&mut guest);
    let over = AtomicBool::new(false);
    let mut attempts = std::thread::scope(|scope| {
        let hammer = || {
            let (path, mut waits) = (place.socket("b"), Vec::new());
            while !over.load(Ordering::Relaxed) {
                match attempt(&path) {
                    Ok(took) => waits.push(took),
                    Err(e) => {
                        over.store(true, Ordering::Relaxed);
                        panic!("attempt {}: {e}", waits.len());
                    }
                }
            }
            waits
        };
        let hammers = [(); 2].map(|()| scope.spawn(hammer));
        for round in 0..ROUNDS {
            guest.check_io(round as u64);
            let successor = place.start();
            let status = std::mem::replace(&mut running, successor).wait();
            assert!(status.success(), "round {round}: {status}");
            guest = place.guest("a");
            assert_eq!(guest.clear_attentions(), [], "round {round}: to the guest nothing happened");
            assert_eq!(keys(&mut guest), (generation, vec![KEY]), "round {round}");
            assert!(!over.load(Ordering::Relaxed), "an attempt failed");
        }
        over.store(true, Ordering::Relaxed);
        hammers.into_iter().flat_map(|hammer| hammer.join().unwrap()).collect::<Vec<_>>()
    });
    attempts.sort();
    let [p50, max] = [attempts[attempts.len() / 2], attempts[attempts.len() - 1]];
    println!("{ROUNDS} handovers: {} connection attempts, p50 {p50:?}, max {max:?}", attempts.len());
    assert!(attempts.len() > ROUNDS * 10);
    drop(guest);
    running.stop();
}

/// A connection that was made and has said nothing goes along, and does not notice.
#[test]
fn a_silent_connection_goes_along() {
    let place = Place::new();
    let running = place.start();
    let silent = Wire::new(connect(&place.socket("a")));
    let spoken = Wire::new(connect(&place.socket("b")));
    spoken.barrier();
    let successor = place.start();
    assert!(running.wait().success());
    spoken.assert_closed();
    let last = place.start();
    assert!(successor.wait().success());
    silent.barrier();
    last.stop();
}

/// What a successor cannot do it finds out before anything changes for the process that runs.
#[test]
fn a_successor_that_cannot_serve_changes_nothing() {
    let place = Place::new();
    let mut running = place.start();
    let mut guest = place.guest("a");
    guest.clear_attentions();
    let missing = place.path("missing.img");
    let missing = format!("file={},lun=1", missing.display());
    fs::write(place.path("partial.img"), "not a block").unwrap();
    let partial = format!("file={},lun=1", place.path("partial.img").display());
    for more in [["--lun", missing.as_str()], ["--lun", partial.as_str()], ["--fd", "99"]] {
        let status = place.spawn_with(if more[0] == "--fd" { &[] } else { &NAMES }, &more).wait();
        assert_eq!(status.code(), Some(1), "{more:?}");
        guest.check_io(1);
    }
    assert_eq!(running.has_ended(), None);
    fs::remove_file(place.path("partial.img")).unwrap();
    assert_eq!(place.said("does not take over; going on"), 2, "{}", place.log());
    for why in ["no such image", "is not a multiple of the block size", "descriptor 99"] {
        assert!(place.log().contains(why), "{}", place.log());
    }
    // Another one's socket: nothing is taken from it, and nothing is done to it.
    let other = Place::new();
    let sock = format!("{},initiator=x", place.socket("a").display());
    let status = other.spawn_with(&[], &["--socket-path", &sock]).wait();
    assert_eq!(status.code(), Some(1));
    assert!(other.log().contains("in use by a running process"), "{}", other.log());
    guest.check_io(2);
    drop(guest);
    running.stop();
}

/// Sockets that the successor does not want are closed, new ones made.
#[test]
fn a_successor_may_have_other_sockets() {
    let place = Place::new();
    let running = place.start();
    let before = place.said("serving 1 logical units");
    let mut successor = place.spawn_with(&["b", "c"], &[]);
    successor.wait_until_serving(before);
    assert!(running.wait().success());
    assert!(!place.socket("a").exists());
    for name in ["b", "c"] {
        Wire::new(connect(&place.socket(name))).barrier();
    }
    assert!(place.log().contains("a.sock: process"), "{}", place.log());
    successor.stop();
}

/// Between how long it takes until a successor serves, and what may be asked of a test machine.
fn moments(place: &Place) -> u64 {
    let running = place.start();
    let start = Instant::now();
    let successor = place.start();
    assert!(running.wait().success());
    let took = start.elapsed();
    successor.stop();
    (took.as_micros() as u64 * 5 / 4).max(1000)
}

fn rounds() -> usize {
    if std::env::var_os("VSTGT_SOAK").is_some() { 300 } else { 30 }
}

/// Which of the two is ended, by which signal, at a random moment of a handover; what is left is another process's to go on with.
fn ended_at_any_moment(which: usize, signal: i32) {
    let place = Place::new();
    let span = moments(&place);
    let mut random = Random::new(0x5eed + which as u64 * 7 + signal as u64);
    let mut running = place.start();
    let mut guest = place.guest("a");
    guest.clear_attentions();
    register(&mut guest);
    drop(guest);
    let mut outcomes = [0; 4];
    for round in 0..rounds() {
        let mut successor = place.spawn();
        // Some come early, however fast or slow the machine has become meanwhile.
        let latest = if round % 4 == 0 { span / 8 } else { span };
        std::thread::sleep(Duration::from_micros(random.below(latest)));
        let victim = [&running, &successor][which];
        victim.signal(signal);
        let survivor = if which == 0 {
            // The successor always gets through. The other one may have handed over before the signal came.
            let status = running.wait();
            assert!(status.success() || signal == libc::SIGKILL, "round {round}: {status}");
            outcomes[3] += usize::from(!status.success());
            Some(successor)
        } else {
            drop(successor.child.wait());
            // It serves if it had not been told to end; else nobody does.
            if running.attends() {
                Some(running)
            } else {
                let status = running.wait();
                assert!(status.success(), "round {round}: {status}");
                None
            }
        };
        outcomes[if survivor.is_none() { 2 } else { which }] += 1;
        running = survivor.unwrap_or_else(|| place.start());
        eventually("somebody serves", || attempt(&place.socket("a")).is_ok());
        let mut guest = place.guest("a");
        assert_eq!(guest.clear_attentions(), [], "round {round}");
        assert_eq!(keys(&mut guest).1, [KEY], "round {round}");
        guest.check_io(round as u64);
        assert_eq!(running.has_ended(), None);
    }
    println!(
        "{signal} {which}: successor went on {}, predecessor {}, a third one {}",
        outcomes[0], outcomes[1], outcomes[2]
    );
    if signal == libc::SIGKILL {
        let before = if which == 0 { outcomes[3] } else { outcomes[1] };
        assert!(before > 0, "every signal came too late");
    }
    running.stop();
}

#[test]
fn a_successor_killed_at_any_moment() {
    ended_at_any_moment(1, libc::SIGKILL);
}

#[test]
fn a_predecessor_killed_at_any_moment() {
    ended_at_any_moment(0, libc::SIGKILL);
}

#[test]
fn a_predecessor_told_to_end_at_any_moment() {
    ended_at_any_moment(0, libc::SIGTERM);
}

/// Several at once: one after the other gets its turn, and the last one serves.
#[test]
fn successors_take_turns() {
    let place = Place::new();
    let first = place.start();
    let before = place.said("serving 1 logical units");
    let mut waiting: Vec<Running<'_>> = (0..4).map(|_| place.spawn()).collect();
    eventually("all have served", || place.said("serving 1 logical units") == before + 4);
    assert!(first.wait().success());
    let mut last = None;
    eventually("all but one have ended", || {
        let pids = waiting.iter_mut().map(|running| running.has_ended().is_none().then(|| running.pid()));
        let runs: Vec<i32> = pids.flatten().collect();
        last = (runs.len() == 1).then(|| runs[0]);
        last.is_some()
    });
    attempt(&place.socket("a")).unwrap();
    let at = waiting.iter().position(|running| Some(running.pid()) == last).unwrap();
    let last = waiting.remove(at);
    for mut other in waiting {
        assert!(other.has_ended().unwrap().success());
    }
    last.stop();
}
