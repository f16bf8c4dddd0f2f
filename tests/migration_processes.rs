//! Guests that migrate between two `vstgt` processes: images and state go with them.
//!
//! The front-ends here say what two QEMUs say: the source's stops its rings while its writes are logged, the destination's, which has said
//! hello and reset its device long before, starts them.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, missing_docs, reason = "test code")]

mod frontend;

use std::fs::File;
use std::os::fd::AsRawFd;
use std::path::PathBuf;
use std::process::Command;
use std::time::{Duration, Instant};

use vhost::VhostBackend;
use vhost::vhost_user::VhostUserFrontend;
use vhost::vhost_user::message::FrontendReq::*;

use frontend::guest::{A_MOMENT, LINUX_FEATURES, pattern};
use frontend::process::{IMAGE_SIZE, socket_path, watched};
use frontend::ram::memfd;
use frontend::wire::LOG_ALL;
use frontend::{BOUND, Buffer, Guest, Ram, Vstgt, eventually, watchdog};

/// What both processes serve, and where.
struct Place {
    dir: tempfile::TempDir,
}

impl Place {
    fn new() -> Place {
        let dir = tempfile::tempdir().unwrap();
        File::create(dir.path().join("shared.img")).unwrap().set_len(IMAGE_SIZE).unwrap();
        Place { dir }
    }

    fn image(&self) -> PathBuf {
        self.dir.path().join("shared.img")
    }

    /// A process with sockets of its own for the initiators.
    fn process(&self, initiators: &[&str], option: &str) -> Vstgt {
        let own = tempfile::tempdir().unwrap();
        let mut command = Command::new(env!("CARGO_BIN_EXE_vstgt"));
        command.arg("-v").arg(option).arg("--lun").arg(format!("file={},serial=HANDED", self.image().display()));
        command.arg("--state-dir").arg(self.dir.path().join("state"));
        let sockets: Vec<_> = (0..initiators.len()).map(|index| socket_path(own.path(), index)).collect();
        for (socket, initiator) in sockets.iter().zip(initiators) {
            command.arg("--socket-path").arg(format!("{},initiator={initiator}", socket.display()));
        }
        if let Ok(wait) = std::env::var("VSTGT_TEST_WAIT") {
            command.arg("--wait").arg(wait);
        }
        watched(&mut command, own.path());
        watchdog(Duration::from_secs(600));
        Vstgt::spawn(own, sockets, command)
    }
}

/// A front-end's connection to a process where its guest does not run yet, as a migration's destination has it.
fn hello(vstgt: &Vstgt, socket: usize) -> Guest {
    let mut guest = Guest::connect(vstgt.socket(socket), Ram::new(16 << 20));
    guest.negotiate();
    guest.frontend.reset_device().unwrap();
    guest
}

/// Starts its rings; false if that is refused.
fn try_start(guest: &mut Guest) -> bool {
    guest.set_features(LINUX_FEATURES);
    guest.add_region(0);
    for index in [0, 1, 2] {
        let queue = guest.make_queue(index, 64);
        guest.set_up(&queue);
        guest.frontend.set_vring_kick(index.into(), &queue.kick).unwrap();
        guest.queues.push(queue);
    }
    [0, 1, 2].iter().all(|index| guest.frontend.set_vring_enable(*index, true).is_ok())
}

fn start(guest: &mut Guest) {
    assert!(try_start(guest), "rings start");
}

/// Wants its writes logged, or no more.
fn log(guest: &Guest, on: bool) -> File {
    let file = memfd(4096, 0).unwrap();
    guest.wire.set_log_base(4096, 0, file.as_raw_fd());
    let features = guest.features | if on { LOG_ALL } else { 0 };
    assert_eq!(guest.wire.acked(SET_FEATURES, &features.to_ne_bytes(), &[]), 0);
    file
}

/// As a migration's source stops.
fn leave(guest: &mut Guest) -> Vec<u32> {
    drop(log(guest, true));
    guest.stop()
}

fn handed_over(vstgt: &Vstgt) -> usize {
    vstgt.log().matches("images and state are handed over").count()
}

/// PERSISTENT RESERVE OUT with a service action, a type and two keys.
fn prout(guest: &mut Guest, action: u8, kind: u8, key: u64, new: u64) -> frontend::Response {
    let mark = guest.ram.mark();
    let at = guest.ram.alloc(24);
    guest.ram.write(at, &[&key.to_be_bytes()[..], &new.to_be_bytes(), &[0; 8]].concat());
    let answer = guest.command(&[0x5f, action, kind, 0, 0, 0, 0, 0, 24, 0], &[Buffer::out(at, 24)], &[]);
    guest.ram.release(mark);
    answer
}

/// READ KEYS and READ RESERVATION: PRGENERATION, keys, and the reservation's key and type.
fn reservations(guest: &mut Guest) -> (u32, Vec<u64>, Option<(u64, u8)>) {
    let mark = guest.ram.mark();
    let at = guest.ram.alloc(256);
    let u32_at = |bytes: &[u8], i: usize| u32::from_be_bytes(bytes[i..i + 4].try_into().unwrap());
    let u64_at = |bytes: &[u8], i: usize| u64::from_be_bytes(bytes[i..i + 8].try_into().unwrap());
    assert!(guest.command(&[0x5e, 0, 0, 0, 0, 0, 0, 1, 0, 0], &[], &[Buffer::input(at, 256)]).good());
    let bytes = guest.ram.read(at, 256);
    let keys = (0..u32_at(&bytes, 4) as usize / 8).map(|i| u64_at(&bytes, 8 + 8 * i)).collect();
    let generation = u32_at(&bytes, 0);
    assert!(guest.command(&[0x5e, 1, 0, 0, 0, 0, 0, 1, 0, 0], &[], &[Buffer::input(at, 256)]).good());
    let bytes = guest.ram.read(at, 256);
    let held = (u32_at(&bytes, 4) != 0).then(|| (u64_at(&bytes, 8), bytes[21] & 0xf));
    guest.ram.release(mark);
    (generation, keys, held)
}

const LUN_RESET: (u8, u8, u8) = (6, 0x29, 0x03);

/// LOGICAL UNIT RESET of the disk.
fn reset_unit(guest: &mut Guest) {
    let (request, response) = (guest.ram.alloc(24), guest.ram.alloc(1));
    let lun = frontend::guest::lun(0, 0);
    guest.ram.write(request, &[&0u32.to_le_bytes()[..], &5u32.to_le_bytes(), &lun, &[0; 8]].concat());
    let queue = guest.queue(0);
    queue.push(&[Buffer::out(request, 24), Buffer::input(response, 1)]);
    queue.kick();
    assert!(queue.wait_used(BOUND).is_some());
    // FUNCTION SUCCEEDED or COMPLETE.
    assert!([0, 10].contains(&guest.ram.read(response, 1)[0]));
}

#[test]
fn a_disk_and_what_is_known_of_it_go_with_its_guests() {
    let place = Place::new();
    let source = place.process(&["alpha", "beta"], "--outgoing");
    let target = place.process(&["alpha", "beta"], "--incoming");
    let mut alpha = hello(&source, 0);
    let mut beta = hello(&source, 1);
    start(&mut alpha);
    start(&mut beta);
    assert_eq!(alpha.clear_attentions(), [(6, 0x29, 0)]);
    beta.clear_attentions();
    assert!(prout(&mut alpha, 0, 0, 0, 0xa1).good());
    assert!(prout(&mut beta, 0, 0, 0, 0xb2).good());
    // Write Exclusive.
    assert!(prout(&mut alpha, 1, 1, 0xa1, 0).good());
    let before = reservations(&mut alpha);
    assert_eq!(before, (2, vec![0xa1, 0xb2], Some((0xa1, 1))));
    alpha.write_blocks(8, &pattern(8, 65536));
    reset_unit(&mut beta);
    beta.clear_attentions();

    // The destinations say hello while the sources run.
    let mut alpha_there = hello(&target, 0);
    let mut beta_there = hello(&target, 1);
    assert!(beta.test_unit_ready().good());
    leave(&mut alpha);
    assert_eq!(handed_over(&source), 0, "beta still runs there");
    assert!(beta.test_unit_ready().good());
    leave(&mut beta);
    assert_eq!(handed_over(&source), 1, "before the front-end is told that its last ring has stopped");

    let begun = Instant::now();
    start(&mut alpha_there);
    println!("the destination's rings took {:?}", begun.elapsed());
    start(&mut beta_there);
    assert_eq!(alpha_there.clear_attentions(), [LUN_RESET], "what waited for it, and nothing else");
    assert_eq!(beta_there.clear_attentions(), []);
    assert_eq!(reservations(&mut beta_there), before);
    assert_eq!(alpha_there.read_blocks(8, 65536), pattern(8, 65536));
    alpha_there.write_blocks(8, &pattern(9, 4096));
    // RESERVATION CONFLICT.
    let at = beta_there.ram.alloc(512);
    let fenced = beta_there.command(&frontend::guest::rw10(0x2a, 8, 512), &[Buffer::out(at, 512)], &[]);
    assert_eq!(fenced.status, 0x18);
    // The sources' machines go.
    drop((alpha, beta));
    assert!(alpha_there.test_unit_ready().good());
    drop((alpha_there, beta_there));
    assert_eq!(handed_over(&target), 0, "a connection that ends is no migration");
    target.stop();
    source.stop();
}

/// Over and over, there and back; each side takes up what the other left.
#[test]
fn there_and_back_again() {
    let place = Place::new();
    let processes = [place.process(&["alpha"], "--outgoing"), place.process(&["alpha"], "--incoming")];
    let mut guest = hello(&processes[0], 0);
    start(&mut guest);
    guest.clear_attentions();
    assert!(prout(&mut guest, 0, 0, 0, 0xa1).good());
    let mut slowest = Duration::ZERO;
    let mut before = [(0, 0); 2];
    for round in 0..12u64 {
        if round == 2 {
            // Old connections may not be over yet, which only makes this more.
            std::thread::sleep(A_MOMENT);
            before = processes.each_ref().map(|process| (process.threads(), process.open_descriptors()));
        }
        let next = &processes[(round as usize + 1) % 2];
        let mut there = hello(next, 0);
        guest.write_blocks(round as u32 * 128, &pattern(round, 65536));
        leave(&mut guest);
        let begun = Instant::now();
        start(&mut there);
        slowest = slowest.max(begun.elapsed());
        assert_eq!(there.clear_attentions(), [], "round {round}");
        assert_eq!(reservations(&mut there), (1, vec![0xa1], None));
        for earlier in 0..=round {
            assert!(there.read_blocks(earlier as u32 * 128, 65536) == pattern(earlier, 65536), "round {round}");
        }
        guest = there;
    }
    println!("the slowest start took {slowest:?}");
    // Nothing is left behind in either process.
    for (process, before) in processes.iter().zip(before) {
        let (mut now, begun) = ((0, 0), Instant::now());
        while begun.elapsed() < BOUND {
            now = (process.threads(), process.open_descriptors());
            if now.0 <= before.0 && now.1 <= before.1 {
                break;
            }
            std::thread::sleep(Duration::from_millis(20));
        }
        assert!(now.0 <= before.0 && now.1 <= before.1, "threads and descriptors: {before:?}, then {now:?}");
        assert!(!process.log().contains("ERROR"), "{}", process.log());
    }
    drop(guest);
    for process in processes {
        process.stop();
    }
}

/// A migration that fails at its end: the guest goes on where it was. And it never runs on both sides.
#[test]
fn a_guest_that_comes_back_finds_all_as_it_was() {
    let place = Place::new();
    let source = place.process(&["alpha"], "--outgoing");
    let target = place.process(&["alpha"], "--incoming");
    let mut guest = hello(&source, 0);
    start(&mut guest);
    guest.clear_attentions();
    assert!(prout(&mut guest, 0, 0, 0, 0xa1).good());
    for round in 1..=3 {
        let bases = leave(&mut guest);
        assert_eq!(handed_over(&source), round);
        guest.go_on(&bases);
        assert!(guest.test_unit_ready().good());
        guest.check_io(round as u64);
        assert_eq!(reservations(&mut guest), (1, vec![0xa1], None));
    }
    // A destination that runs all the same gets nothing, in bounded time, and the guest does not notice.
    let mut there = hello(&target, 0);
    assert!(!try_start(&mut there), "the disk is on the other side");
    eventually("it says why", || target.log().contains("what it is to be served is not here"));
    guest.check_io(9);
    // Nor does a source that goes on after the destination has begun.
    let mut there = hello(&target, 0);
    let bases = leave(&mut guest);
    start(&mut there);
    there.check_io(10);
    for (queue, base) in guest.queues.iter().zip(&bases) {
        guest.set_up_at(queue, *base as u16);
        guest.frontend.set_vring_kick(queue.index.into(), &queue.kick).unwrap();
    }
    assert!(guest.frontend.set_vring_enable(2, true).is_err());
    there.check_io(11);
    assert_eq!(reservations(&mut there), (1, vec![0xa1], None));
    drop((guest, there));
    target.stop();
    source.stop();
}

/// A guest that is paused, or reboots while it migrates, or whose front-end goes, does not give its disk away.
#[test]
fn only_a_migration_hands_over() {
    let place = Place::new();
    let source = place.process(&["alpha", "beta"], "--outgoing");
    let mut guest = hello(&source, 0);
    start(&mut guest);
    guest.clear_attentions();
    let bases = guest.stop();
    assert_eq!(handed_over(&source), 0, "paused");
    guest.go_on(&bases);
    // A reset in the middle of a migration.
    drop(log(&guest, true));
    guest.frontend.reset_device().unwrap();
    assert_eq!(handed_over(&source), 0, "reset");
    drop(guest);
    let mut guest = hello(&source, 0);
    start(&mut guest);
    guest.clear_attentions();
    drop(log(&guest, true));
    drop(log(&guest, false));
    guest.stop();
    assert_eq!(handed_over(&source), 0, "a migration that was called off, and then a pause");
    drop(guest);

    // One that waits for guests has nothing open, and one that is told to end while it has nothing, ends.
    let target = place.process(&["alpha", "beta"], "--incoming");
    let image = place.image().canonicalize().unwrap();
    let open = |process: &Vstgt| {
        let fds = std::fs::read_dir(format!("/proc/{}/fd", process.pid())).unwrap();
        fds.filter_map(|fd| std::fs::read_link(fd.unwrap().path()).ok()).any(|to| to == image)
    };
    assert!(open(&source) && !open(&target));
    let waiting = hello(&target, 0);
    drop(waiting);
    target.stop();
    let mut guest = hello(&source, 0);
    start(&mut guest);
    guest.clear_attentions();
    leave(&mut guest);
    assert!(!open(&source));
    source.signal(10);
    drop(guest);
    source.stop();
}

/// A process that is killed after it handed over, and one that is killed before it took: what was promised is in the files.
#[test]
fn a_kill_on_either_side_loses_nothing() {
    let place = Place::new();
    let source = place.process(&["alpha"], "--outgoing");
    let mut guest = hello(&source, 0);
    start(&mut guest);
    guest.clear_attentions();
    assert!(prout(&mut guest, 0, 0, 0, 0xa1).good());
    guest.write_blocks(0, &pattern(1, 4096));
    leave(&mut guest);
    source.kill();
    drop(guest);
    for _ in 0..2 {
        let target = place.process(&["alpha"], "--incoming");
        let mut there = hello(&target, 0);
        start(&mut there);
        assert_eq!(reservations(&mut there), (1, vec![0xa1], None));
        assert_eq!(there.read_blocks(0, 4096), pattern(1, 4096));
        target.kill();
    }
}

#[test]
fn it_needs_a_state_directory() {
    for option in ["--outgoing", "--incoming"] {
        for state in [&["--state-dir", "none"][..], &[]] {
            let out = Command::new(env!("CARGO_BIN_EXE_vstgt"))
                .args(["--blk-file", "/nowhere", "--socket-path", "/nowhere/a.sock", option])
                .args(state)
                .output()
                .unwrap();
            let text = String::from_utf8_lossy(&out.stderr).into_owned();
            assert!(!out.status.success() && text.contains(&format!("{option} needs --state-dir")), "{text}");
        }
    }
}
