//! When an I_T nexus begins and ends, what its initiator is told, and what it sees: the real `vstgt`, its log, and front-ends that
//! stop, reset, hand over, vanish and come back.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, missing_docs, reason = "test code")]

mod drive;
mod frontend;

use std::fs::File;
use std::os::fd::{AsRawFd, RawFd};
use std::os::unix::net::{UnixListener, UnixStream};
use std::os::unix::process::CommandExt;
use std::path::PathBuf;
use std::process::{Command, Stdio};
use std::time::Duration;

use vhost::VhostBackend;
use vhost::vhost_user::VhostUserFrontend;

use drive::*;
use frontend::guest::{A_MOMENT, FrontendReq::*, LINUX_FEATURES, assert_refused, connect, lun};
use frontend::process::{IMAGE_SIZE, command};
use frontend::{Guest, Ram, VerifiedIo, Vstgt, Wire, eventually};

const RAM: u64 = 16 << 20;

const POWER_ON: (u8, u8, u8) = (6, 0x29, 0x00);
const NEXUS_LOSS: (u8, u8, u8) = (6, 0x29, 0x07);

/// `vstgt` with a socket for each of these initiators, and `disk.img` as LUN 0 for all of them.
struct Served {
    vstgt: Vstgt,
}

impl Served {
    fn new(initiators: &[&str], more: &[&str]) -> Served {
        let dir = tempfile::tempdir().unwrap();
        for image in ["disk.img", "one.img", "two.img"] {
            File::create(dir.path().join(image)).unwrap().set_len(IMAGE_SIZE).unwrap();
        }
        let path = dir.path().to_owned();
        let vstgt = Vstgt::start_in(dir, 0, |command| {
            // So that images can be named without their directory.
            command.current_dir(&path);
            for name in initiators {
                command.arg("--socket-path").arg(format!("{}/{name}.sock,initiator={name}", path.display()));
            }
            command.args(more);
        });
        Served { vstgt }
    }

    fn socket(&self, initiator: &str) -> PathBuf {
        self.vstgt.dir.path().join(format!("{initiator}.sock"))
    }

    /// Connected and negotiated.
    fn connect(&self, initiator: &str) -> Guest {
        let mut guest = Guest::over(connect(&self.socket(initiator)), Ram::new(RAM));
        guest.negotiate();
        guest
    }

    /// With rings that run; what it was told is what is returned.
    fn start(&self, initiator: &str) -> (Guest, Vec<(u8, u8, u8)>) {
        let mut guest = self.connect(initiator);
        guest.start(LINUX_FEATURES, &[0, 1, 2], 128);
        let told = guest.clear_attentions();
        (guest, told)
    }

    /// How often a nexus of this initiator was created, and destroyed.
    fn nexuses(&self, initiator: &str) -> (usize, usize) {
        let log = self.vstgt.log();
        let count = |what: &str| log.matches(&format!("I_T nexus {what}: initiator {initiator} ")).count();
        (count("created"), count("destroyed"))
    }

    fn stop(self) {
        let sockets: Vec<_> = ["a", "b"].map(|name| self.socket(name)).into();
        let dir = self.vstgt.stop();
        assert!(sockets.iter().all(|socket| !socket.exists()), "sockets are removed");
        drop(dir);
    }
}

/// As a driver resets its device and sets it up anew.
fn reset_and_start(guest: &mut Guest) {
    guest.frontend.reset_device().unwrap();
    guest.queues.iter_mut().for_each(|queue| queue.clear());
    guest.set_features(LINUX_FEATURES);
    let bases = vec![0; guest.queues.len()];
    guest.go_on(&bases);
}

/// First ring start, port idle: created, POWER ON told once.
#[test]
fn the_first_start_creates_a_nexus() {
    let served = Served::new(&["a", "b"], &[]);
    let mut a = served.connect("a");
    // What QEMU does before any driver runs.
    a.frontend.reset_device().unwrap();
    a.frontend.reset_device().unwrap();
    assert_eq!(served.nexuses("a"), (0, 0), "connecting is not logging in");
    a.start(LINUX_FEATURES, &[0, 1, 2], 128);
    assert_eq!(served.nexuses("a"), (1, 0));
    let first = a.test_unit_ready();
    assert_eq!((first.response, first.status, first.sense_code()), (OK, 2, Some(POWER_ON)));
    for _ in 0..3 {
        assert!(a.test_unit_ready().good(), "told once");
    }

    // Two sockets, two nexuses, each with its own attention.
    let (b, told) = served.start("b");
    assert_eq!(told, [POWER_ON]);
    assert_eq!((served.nexuses("a"), served.nexuses("b")), ((1, 0), (1, 0)));
    assert!(a.test_unit_ready().good());
    let log = served.vstgt.log();
    let ids: Vec<&str> = log
        .lines()
        .filter_map(|l| l.split_once("I_T nexus created: ")?.1.split_once(" id ")?.1.split(' ').next())
        .collect();
    assert_eq!(ids.len(), 2);
    assert_ne!(ids[0], ids[1], "initiator port identifiers differ");
    drop(b);
    served.stop();
}

/// Rings stopped and started again on one connection: unchanged.
#[test]
fn stopping_and_going_on_is_no_new_nexus() {
    let served = Served::new(&["a"], &["--nexus-loss-timeout", "1"]);
    let (mut a, _) = served.start("a");
    for round in 0..5 {
        let bases = a.stop();
        if round == 0 {
            // However long: the connection is there.
            std::thread::sleep(Duration::from_millis(1500));
        }
        a.go_on(&bases);
        assert!(a.test_unit_ready().good());
        a.check_io(round);
    }
    assert_eq!(served.nexuses("a"), (1, 0));
    served.stop();
}

/// RESET_DEVICE after a start: the same nexus, I_T NEXUS LOSS told once.
#[test]
fn a_device_reset_is_told() {
    let served = Served::new(&["a", "b"], &[]);
    let (mut a, _) = served.start("a");
    let (b, _) = served.start("b");
    let b = VerifiedIo::start(b);
    for _ in 0..3 {
        reset_and_start(&mut a);
        assert_eq!(a.clear_attentions(), [NEXUS_LOSS]);
        a.check_io(3);
    }
    // Stopped first, as a machine that reboots in order.
    a.stop();
    reset_and_start(&mut a);
    assert_eq!(a.clear_attentions(), [NEXUS_LOSS]);
    assert_eq!(served.nexuses("a"), (1, 0));
    let mut b = b.finish();
    assert!(b.test_unit_ready().good(), "nobody else's business");
    served.stop();
}

/// RESET_DEVICE on a second connection that never started: the destination of a migration while the source still runs.
#[test]
fn a_reset_concerns_its_own_connection() {
    let served = Served::new(&["a"], &[]);
    let (a, _) = served.start("a");
    let a = VerifiedIo::start(a);
    let mut second = served.connect("a");
    for _ in 0..3 {
        second.frontend.reset_device().unwrap();
        a.assert_goes_on();
    }
    let mut a = a.finish();
    assert!(a.test_unit_ready().good());
    // And when it has the nexus, the first one's resets do not concern it.
    a.stop();
    second.start(LINUX_FEATURES, &[0, 1, 2], 128);
    assert!(second.test_unit_ready().good());
    a.frontend.reset_device().unwrap();
    assert!(second.test_unit_ready().good());
    second.check_io(4);
    assert_eq!(served.nexuses("a"), (1, 0));
    served.stop();
}

/// Stopped, then another connection of the port starts: handed over, and back.
#[test]
fn a_nexus_is_handed_over() {
    let served = Served::new(&["a"], &["--nexus-loss-timeout", "1"]);
    let (mut source, _) = served.start("a");
    source.write_blocks(5, &[0xa5; 512]);
    let mut destination = served.connect("a");
    destination.frontend.reset_device().unwrap();
    let bases = source.stop();
    destination.start(LINUX_FEATURES, &[0, 1, 2], 128);
    assert!(destination.test_unit_ready().good(), "no unit attention");
    assert_eq!(destination.read_blocks(5, 512), [0xa5; 512]);
    // The source goes: that is not the nexus's loss.
    destination.stop();
    source.go_on(&bases);
    assert!(source.test_unit_ready().good(), "a migration that failed");
    drop(destination);
    std::thread::sleep(Duration::from_millis(1500));
    assert!(source.test_unit_ready().good());
    assert_eq!(served.nexuses("a"), (1, 0));
    served.stop();
}

/// Rings of a second live connection: SRP_LOGIN_REJ, the front-end is told, the first one is undisturbed.
#[test]
fn a_second_live_connection_is_refused() {
    let served = Served::new(&["a"], &[]);
    let (a, _) = served.start("a");
    let a = VerifiedIo::start(a);
    for _ in 0..3 {
        let mut second = served.connect("a");
        second.set_features(LINUX_FEATURES);
        second.add_region(0);
        let queue = second.make_queue(2, 128);
        second.set_up(&queue);
        second.frontend.set_vring_kick(2, &queue.kick).unwrap();
        assert_refused(&second, SET_VRING_ENABLE, &Wire::state(2, 1), &[]);
        a.assert_goes_on();
    }
    let log = served.vstgt.log();
    assert!(log.contains("a on vstgt: SRP_LOGIN_REJ 0x00010006"), "{log}");
    assert!(
        log.contains("SET_VRING_ENABLE refused: login rejected: initiator port 'a' on target port 'vstgt'"),
        "{log}"
    );
    assert!(a.finish().test_unit_ready().good());
    assert_eq!(served.nexuses("a"), (1, 0));
    served.stop();
}

/// Socket closed with rings running: the nexus waits for its initiator.
#[test]
fn a_nexus_waits_for_its_initiator() {
    let served = Served::new(&["a"], &["--nexus-loss-timeout", "20"]);
    let (mut a, _) = served.start("a");
    for round in 0..4 {
        a.check_io(round);
        drop(a);
        std::thread::sleep(Duration::from_millis(100 * round));
        let (again, told) = served.start("a");
        assert_eq!(told, [], "unchanged");
        a = again;
    }
    assert_eq!(served.nexuses("a"), (1, 0));
    served.stop();
}

/// … but not for ever; then it is another one.
#[test]
fn a_nexus_is_lost() {
    let served = Served::new(&["a", "b"], &["--nexus-loss-timeout", "1"]);
    let (b, _) = served.start("b");
    let b = VerifiedIo::start(b);
    let (a, _) = served.start("a");
    drop(a);
    std::thread::sleep(A_MOMENT);
    assert_eq!(served.nexuses("a"), (1, 0), "not at once");
    for round in 1..3 {
        eventually("the nexus is destroyed", || served.nexuses("a") == (round, round));
        let (mut a, told) = served.start("a");
        assert_eq!(told, [NEXUS_LOSS]);
        assert_eq!(served.nexuses("a"), (round + 1, round));
        a.check_io(9);
        // Whether it stopped before it went makes no difference.
        if round == 1 {
            a.stop();
        }
        drop(a);
    }
    // A connection that never started keeps nothing alive.
    let idle = served.connect("a");
    eventually("the nexus is destroyed", || served.nexuses("a") == (3, 3));
    drop(idle);
    assert_eq!(served.nexuses("b"), (1, 0));
    assert!(b.finish().test_unit_ready().good());
    served.stop();
}

/// Without a nexus loss time a lost connection is a lost nexus.
#[test]
fn a_nexus_may_be_lost_at_once() {
    let served = Served::new(&["a"], &["--nexus-loss-timeout", "0"]);
    let (a, told) = served.start("a");
    assert_eq!(told, [POWER_ON]);
    drop(a);
    eventually("the nexus is destroyed", || served.nexuses("a") == (1, 1));
    let (_a, told) = served.start("a");
    assert_eq!(told, [NEXUS_LOSS]);
    served.stop();
}

/// The target ends: nexuses with it.
#[test]
fn nexuses_end_with_the_target() {
    let served = Served::new(&["a", "b"], &[]);
    let (mut a, _) = served.start("a");
    let (b, _) = served.start("b");
    drop(b);
    for i in 0..40 {
        let at = a.ram.alloc(4096);
        let read = frontend::guest::rw10(0x28, i * 8, 4096);
        a.submit(2, &read, &[], &[frontend::Buffer::input(at, 4096)]);
    }
    served.vstgt.signal(15);
    let (status, dir) = served.vstgt.wait();
    assert_eq!(status.code(), Some(0));
    let log = std::fs::read_to_string(dir.path().join("log")).unwrap();
    for name in ["a", "b"] {
        assert!(log.contains(&format!("I_T nexus destroyed: initiator {name} ")), "{log}");
        assert!(!dir.path().join(format!("{name}.sock")).exists());
    }
    assert!(!log.contains("ERROR"), "{log}");
}

/// A front-end that truncates its own memory loses its connection, and nobody else anything.
#[test]
fn memory_that_shrinks_costs_its_own_connection() {
    let served = Served::new(&["a", "b"], &[]);
    let (b, _) = served.start("b");
    let b = VerifiedIo::start(b);
    for _ in 0..3 {
        let (mut a, _) = served.start("a");
        a.check_io(1);
        a.ram.files[0].set_len(0).unwrap();
        a.queue(2).kick.write(1).unwrap();
        a.wire.assert_closed();
        b.assert_goes_on();
    }
    let log = served.vstgt.log();
    assert!(log.contains("a on vstgt: connection ended: the file behind its guest memory was shrunk"), "{log}");
    drop(b.finish());
    served.stop();
}

/// Which initiator sees which unit, under which address.
#[test]
fn each_initiator_sees_its_own_units() {
    let units = ["--lun", "file=one.img,lun=5,initiator=a,read-only=on", "--lun", "file=two.img,lun=300,target=3"];
    let served = Served::new(&["a", "b"], &units);
    let mut a = Driver::new(served.start("a").0);
    let mut b = Driver::new(served.start("b").0);
    let well_known = [0xc1, 0x01, 0, 0, 0, 0, 0, 0];

    // REPORT LUNS, of a unit and of the well-known unit.
    let listed = |driver: &mut Driver, to: [u8; 8], select: u8| {
        let sent = driver.command_in(To::ring(2).lun(to), &[0xa0, 0, select, 0, 0, 0, 0, 0, 1, 0, 0, 0], 256);
        let answer = driver.wait(&sent);
        assert!(answer.good(), "{answer:?}");
        let data = driver.guest.ram.read(sent.data, 256);
        let len = u32::from_be_bytes(data[..4].try_into().unwrap()) as usize;
        assert_eq!(answer.residual as usize, 256 - 8 - len);
        data[8..8 + len].chunks(8).map(|lun| u64::from_be_bytes(lun.try_into().unwrap())).collect::<Vec<_>>()
    };
    assert_eq!(listed(&mut a, lun(0, 0), 0), [0, 5 << 48]);
    assert_eq!(listed(&mut b, lun(0, 0), 0), [0]);
    assert_eq!(listed(&mut a, well_known, 0), [0, 5 << 48]);
    assert_eq!(listed(&mut b, well_known, 1), [0xc101 << 48], "only well-known units");
    assert_eq!(listed(&mut b, lun(3, 300), 0), [0x412c << 48]);

    // INQUIRY: PERIPHERAL QUALIFIER 011b, DEVICE TYPE 1Fh where there is no unit for this initiator.
    let inquiry = |driver: &mut Driver, to: [u8; 8]| {
        let sent = driver.command_in(To::ring(2).lun(to), &[0x12, 0, 0, 0, 36, 0], 36);
        (driver.wait(&sent), driver.guest.ram.read(sent.data, 36)[0])
    };
    let forms = |target: u8, unit: u8| [[1, target, 0, unit, 0, 0, 0, 0], [1, target, 0x40, unit, 0, 0, 0, 0]];
    for form in forms(0, 5) {
        let (answer, first) = inquiry(&mut a, form);
        assert!(answer.good() && first == 0, "{answer:?} {first:#x}");
        let (answer, first) = inquiry(&mut b, form);
        assert!(answer.good() && first == 0x7f, "{answer:?} {first:#x}");
        // Anything else there: LOGICAL UNIT NOT SUPPORTED.
        let sent = b.command(To::ring(2).lun(form), &[0; 6]);
        let answer = b.wait(&sent);
        assert_eq!((answer.status, answer.sense_code()), (2, Some((5, 0x25, 0))));
        let function = b.function(LOGICAL_UNIT_RESET, form, 0);
        assert_eq!(b.wait_function(&function), INCORRECT_LUN);
    }
    for driver in [&mut a, &mut b] {
        let (answer, first) = inquiry(driver, lun(3, 300));
        assert!(answer.good() && first == 0);
        // No target there at all, or no address.
        for to in [lun(1, 0), lun(255, 0), [2, 0, 0, 0, 0, 0, 0, 0], [0; 8], [0xff; 8]] {
            let sent = driver.command(To::ring(2).lun(to), &[0x12, 0, 0, 0, 36, 0]);
            assert_eq!(driver.wait(&sent).response, BAD_TARGET, "{to:02x?}");
        }
    }

    // Both forms are one unit: its attention is told once, and it is read-only by either.
    let [one, other] = forms(0, 5);
    for (to, expected) in [(one, Some(POWER_ON)), (other, None)] {
        let sent = a.command(To::ring(2).lun(to), &[0; 6]);
        assert_eq!(a.wait(&sent).sense_code(), expected);
    }
    let write = a.write(To::ring(2).lun(other), 0, &[1; 512]);
    assert_eq!(a.wait(&write).sense_code(), Some((7, 0x27, 0)), "WRITE PROTECTED");
    let write = a.write(To::ring(2), 0, &[0x3c; 512]);
    assert!(a.wait(&write).good());
    let read = b.read(To::ring(2), 0, 512);
    assert_eq!(b.wait_good(&read), [0x3c; 512], "LUN 0 is one for both");
    assert!(served.vstgt.log().contains("initiator a host 0"));
    served.stop();
}

/// Hands `vstgt` descriptors by number.
fn with_descriptors(command: &mut Command, given: &[(RawFd, RawFd)]) {
    let given = given.to_vec();
    for (_, number) in &given {
        command.arg("--fd").arg(format!("{number},initiator=fd{number}"));
    }
    // SAFETY: dup2 is async-signal-safe; the numbers are not in use between fork and exec but perhaps for descriptors that
    // are closed on exec anyway.
    #[allow(unsafe_code, reason = "hands the child descriptors")]
    unsafe {
        command.pre_exec(move || {
            for (ours, number) in &given {
                if libc::dup2(*ours, *number) < 0 {
                    return Err(std::io::Error::last_os_error());
                }
            }
            Ok(())
        });
    }
}

/// Sockets that are open already; the process lives as long as a front-end can come.
#[test]
fn inherited_sockets_have_nexuses_too() {
    let (ours, theirs) = UnixStream::pair().unwrap();
    let (ours_too, theirs_too) = UnixStream::pair().unwrap();
    let given = [(theirs.as_raw_fd(), 501), (theirs_too.as_raw_fd(), 502)];
    let vstgt = Vstgt::start_with(0, |command| with_descriptors(command, &given));
    drop((theirs, theirs_too));
    let mut first = Guest::over(ours, Ram::new(RAM));
    first.negotiate();
    first.start(LINUX_FEATURES, &[0, 1, 2], 128);
    assert_eq!(first.clear_attentions(), [POWER_ON]);
    first.check_io(1);
    eventually("it is logged", || vstgt.log().contains("I_T nexus created: initiator fd501 "));
    drop(first);
    std::thread::sleep(A_MOMENT);
    let mut second = Guest::over(ours_too, Ram::new(RAM));
    second.negotiate();
    drop(second);
    let (status, dir) = vstgt.wait();
    assert_eq!(status.code(), Some(0), "ends by itself after the last one");
    drop(dir);

    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("listening.sock");
    let listener = UnixListener::bind(&path).unwrap();
    let (ours, theirs) = UnixStream::pair().unwrap();
    let given = [(listener.as_raw_fd(), 501), (theirs.as_raw_fd(), 502)];
    let mut vstgt = Vstgt::start_with(0, |command| with_descriptors(command, &given));
    drop((listener, theirs));
    drop(ours);
    let mut guest = Guest::attached(&path);
    guest.check_io(2);
    drop(guest);
    std::thread::sleep(A_MOMENT);
    vstgt.assert_alive();
    Guest::attached(&path).check_io(3);
    vstgt.stop();
}

/// Numbers that nobody handed over are refused, not taken for what the process has opened itself meanwhile.
#[test]
fn numbers_that_are_not_open_are_refused() {
    let dir = tempfile::tempdir().unwrap();
    File::create(dir.path().join("disk.img")).unwrap().set_len(IMAGE_SIZE).unwrap();
    for number in 3..20 {
        let output = command(dir.path()).arg("--fd").arg(number.to_string()).stderr(Stdio::piped()).output().unwrap();
        let text = String::from_utf8_lossy(&output.stderr).into_owned();
        assert_eq!(output.status.code(), Some(1), "{text}");
        assert!(text.contains(&number.to_string()) && text.lines().count() == 1, "{text}");
    }
}

/// As the vhost-user back-end conventions ask: JSON on standard output, status 0, whatever else is (not) given.
#[test]
fn capabilities_are_printed() {
    let output = Command::new(env!("CARGO_BIN_EXE_vstgt")).arg("--print-capabilities").output().unwrap();
    assert!(output.status.success() && output.stderr.is_empty());
    let text = String::from_utf8(output.stdout).unwrap();
    let flat: String = text.split_whitespace().collect();
    assert_eq!(flat, r#"{"type":"scsi"}"#);
}
