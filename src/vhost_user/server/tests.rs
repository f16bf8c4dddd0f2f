//! Accepting, overlapping, refusing and stopping, with real sockets.

use std::io::Write;
use std::os::fd::OwnedFd;
use std::path::{Path, PathBuf};
use std::sync::mpsc;

use vhost::vhost_user::message::FrontendReq::*;

use super::super::DEFAULT_MODE;
use super::super::testing::wire::{PROTOCOL, PROTOCOL_BITS, VERSION_1, Wire};
use super::super::testing::{Call, Mock};
use super::*;

const BOUND: Duration = Duration::from_secs(20);

fn endpoint(path: &Path, mock: &Mock) -> Endpoint {
    let mock = mock.clone();
    let listener = Listener::bind(path, DEFAULT_MODE).unwrap();
    Endpoint::listening(listener, path.to_string_lossy(), Box::new(move || Box::new(mock.clone())))
}

fn connect(path: &Path) -> Wire {
    Wire::new(UnixStream::connect(path).unwrap())
}

struct Fixture {
    dir: tempfile::TempDir,
    mock: Mock,
    server: Server,
}

impl Fixture {
    fn new(options: Options) -> Fixture {
        let dir = tempfile::tempdir().unwrap();
        let mock = Mock::default();
        let server = Server::start(vec![endpoint(&dir.path().join("a"), &mock)], options).unwrap();
        Fixture { dir, mock, server }
    }

    fn path(&self) -> PathBuf {
        self.dir.path().join("a")
    }

    fn wait_for_connections(&self, count: usize) {
        let start = Instant::now();
        while self.server.connections() != count {
            assert!(start.elapsed() < BOUND, "{} connections, not {count}", self.server.connections());
            thread::sleep(Duration::from_millis(1));
        }
    }
}

fn open_descriptors() -> usize {
    std::fs::read_dir("/proc/self/fd").unwrap().count()
}

#[test]
fn accepts_again_and_again() {
    let f = Fixture::new(Options::default());
    for _ in 0..20 {
        let wire = connect(&f.path());
        assert_ne!(wire.get(GET_FEATURES), 0);
        drop(wire);
        assert!(f.mock.wait_for(&Call::Disconnected));
        f.mock.calls();
    }
    f.wait_for_connections(0);
    f.server.stop(BOUND).unwrap();
    assert!(!f.dir.path().join("a").exists());
}

#[test]
fn connections_overlap_and_sockets_are_independent() {
    let dir = tempfile::tempdir().unwrap();
    let (one, two) = (Mock::default(), Mock::default());
    let paths = [dir.path().join("a"), dir.path().join("b")];
    let endpoints = vec![endpoint(&paths[0], &one), endpoint(&paths[1], &two)];
    let server = Server::start(endpoints, Options::default()).unwrap();
    let (first, second, other) = (connect(&paths[0]), connect(&paths[0]), connect(&paths[1]));
    for wire in [&first, &second, &other] {
        wire.set_u64(SET_FEATURES, VERSION_1);
        wire.barrier();
    }
    assert_eq!(one.calls().len(), 2);
    assert_eq!(two.calls().len(), 1);
    drop(first);
    assert!(one.wait_for(&Call::Disconnected));
    second.barrier();
    other.barrier();
    server.stop(BOUND).unwrap();
    assert_eq!(two.calls(), [Call::Disconnected]);
}

#[test]
fn too_many_connections_are_closed_and_the_others_stay() {
    let f = Fixture::new(Options { max_connections: 3, ..Options::default() });
    let wires: Vec<Wire> = (0..3).map(|_| connect(&f.path())).collect();
    wires.iter().for_each(|wire| wire.set_u64(SET_FEATURES, VERSION_1));
    wires.iter().for_each(Wire::barrier);
    for _ in 0..50 {
        connect(&f.path()).assert_closed();
    }
    wires.iter().for_each(Wire::barrier);
    drop(wires);
    f.wait_for_connections(0);
    connect(&f.path()).barrier();
    f.server.stop(BOUND).unwrap();
}

/// Who connects and says nothing keeps nobody out, nor does who asks and asks.
#[test]
fn silent_connections_make_way() {
    let f = Fixture::new(Options { max_connections: 3, ..Options::default() });
    let established = connect(&f.path());
    established.set_u64(SET_FEATURES, VERSION_1);
    established.barrier();
    let (oldest, newer) = (connect(&f.path()), connect(&f.path()));
    oldest.barrier();
    newer.barrier();
    let next = connect(&f.path());
    next.barrier();
    oldest.assert_closed();
    newer.barrier();
    let last = connect(&f.path());
    last.barrier();
    newer.assert_closed();
    for wire in [&next, &last] {
        wire.set_u64(SET_FEATURES, VERSION_1);
    }
    next.barrier();
    last.barrier();
    connect(&f.path()).assert_closed();
    established.barrier();
    f.server.stop(BOUND).unwrap();
}

/// They come as fast as they can, and go at once or stay: another socket's connections are taken at once.
#[test]
fn a_crowd_at_one_socket_does_not_hold_up_another() {
    let dir = tempfile::tempdir().unwrap();
    let paths = [dir.path().join("a"), dir.path().join("b")];
    let (one, two) = (Mock::default(), Mock::default());
    let endpoints = vec![endpoint(&paths[0], &one), endpoint(&paths[1], &two)];
    let server = Server::start(endpoints, Options::default()).unwrap();
    let stop = std::sync::atomic::AtomicBool::new(false);
    thread::scope(|scope| {
        let crowd = scope.spawn(|| {
            let mut came = 0u32;
            let mut staying = std::collections::VecDeque::new();
            while !stop.load(std::sync::atomic::Ordering::Relaxed) {
                let stream = UnixStream::connect(&paths[0]).unwrap();
                came += 1;
                if came.is_multiple_of(2) {
                    staying.push_back(stream);
                    staying.truncate(100);
                }
            }
            came
        });
        let (start, mut served) = (Instant::now(), 0);
        while start.elapsed() < Duration::from_millis(1500) {
            let other = connect(&paths[1]);
            let asked = Instant::now();
            other.barrier();
            assert!(asked.elapsed() < Duration::from_secs(1), "{:?}", asked.elapsed());
            served += 1;
            thread::sleep(Duration::from_millis(20));
        }
        stop.store(true, std::sync::atomic::Ordering::Relaxed);
        // What waits in the kernel is closed with the listener.
        let came = crowd.join().unwrap();
        assert!(served > 10 && came > 32, "{served} served, {came} came");
        // A burst, and so many a second; as many wait in the kernel.
        assert!(came < 32 + 128 + 70 * 4, "{came} came");
    });
    server.stop(BOUND).unwrap();
}

#[test]
fn stopping_ends_idle_half_sent_and_unread_connections() {
    let f = Fixture::new(Options::default());
    let idle = connect(&f.path());
    idle.barrier();
    let half = connect(&f.path());
    (&half.0).write_all(&[1, 0, 0]).unwrap();
    let half_body = connect(&f.path());
    (&half_body.0).write_all(&[2, 0, 0, 0, 1, 0, 0, 0, 8, 0, 0, 0, 1]).unwrap();
    let half_enable = connect(&f.path());
    (&half_enable.0).write_all(&[18, 0, 0, 0, 1, 0, 0, 0, 8, 0, 0, 0, 1]).unwrap();
    // Asks and asks and never reads an answer, until neither side can send any more.
    let unread = connect(&f.path());
    unread.0.set_write_timeout(Some(Duration::from_millis(500))).unwrap();
    while unread.try_send(GET_FEATURES as u32, 1, &[], &[]).is_ok() {}
    let start = Instant::now();
    f.server.stop(BOUND).unwrap();
    assert!(start.elapsed() < Duration::from_secs(10));
    assert_eq!(f.mock.calls(), vec![Call::Disconnected; 5]);
}

#[test]
fn stopping_does_not_wait_for_ever() {
    let f = Fixture::new(Options::default());
    let wire = connect(&f.path());
    wire.barrier();
    f.mock.book(|book| book.stuck = true);
    let name = f.path().to_string_lossy().into_owned();
    let mock = f.mock.clone();
    assert_eq!(f.server.stop(Duration::from_millis(100)).unwrap_err().0, [name]);
    mock.book(|book| book.stuck = false);
}

#[test]
fn who_comes_back_is_served_after_the_connection_that_died() {
    let f = Fixture::new(Options::default());
    let first = connect(&f.path());
    first.barrier();
    f.mock.book(|book| book.stuck = true);
    drop(first);
    let second = connect(&f.path());
    second.set_u64(SET_FEATURES, VERSION_1);
    assert!(f.mock.wait_for(&Call::Disconnected));
    thread::sleep(Duration::from_millis(50));
    assert_eq!(f.mock.calls(), [Call::Disconnected]);
    f.mock.book(|book| book.stuck = false);
    second.barrier();
    assert_eq!(f.mock.calls(), [Call::Features(VERSION_1)]);
    f.server.stop(BOUND).unwrap();
}

#[test]
fn a_connected_endpoint_is_served_once_and_then_exhausted() {
    let (ours, theirs) = UnixStream::pair().unwrap();
    let mock = Mock::default();
    let device = mock.clone();
    let endpoint = Endpoint {
        silent: Vec::new(),
        source: Inherited::from_fd(OwnedFd::from(theirs)).unwrap(),
        name: "fd 3".into(),
        make_device: Box::new(move || Box::new(device.clone())),
        peers: Peers::Anybody,
    };
    let (tell, told) = mpsc::channel();
    let options = Options { on_exhausted: Some(Box::new(move || tell.send(()).unwrap())), ..Options::default() };
    let server = Server::start(vec![endpoint], options).unwrap();
    let wire = Wire::new(ours);
    wire.barrier();
    assert!(told.try_recv().is_err());
    drop(wire);
    told.recv_timeout(BOUND).unwrap();
    assert_eq!(mock.calls(), [Call::Disconnected]);
    server.stop(BOUND).unwrap();
}

/// A connection that says nothing costs no thread, counts, and can go on elsewhere with what it says meanwhile.
#[test]
fn silent_connections_are_given_back() {
    let mut f = Fixture::new(Options { max_connections: 3, ..Options::default() });
    let spoken = connect(&f.path());
    spoken.barrier();
    let [makes_way, silent, other] = [(); 3].map(|()| connect(&f.path()));
    makes_way.assert_closed();
    assert_eq!(f.server.connections(), 1);
    let mut retired = f.server.retire();
    assert_eq!(retired.len(), 1);
    let waits = connect(&f.path());
    spoken.barrier();
    let Retired { listener, silent: given } = retired.pop().unwrap();
    assert_eq!(given.len(), 2);
    assert!(f.server.retire().is_empty());
    // One speaks while nobody serves it.
    silent.send(GET_FEATURES, &[], &[]);
    let again = f.mock.clone();
    let endpoint = Endpoint {
        silent: given,
        ..Endpoint::listening(listener.unwrap(), "again", Box::new(move || Box::new(again.clone())))
    };
    let server = Server::start(vec![endpoint], Options::default()).unwrap();
    assert_ne!(silent.reply_u64(GET_FEATURES), 0);
    waits.barrier();
    other.barrier();
    f.server.stop(BOUND).unwrap();
    spoken.assert_closed();
    waits.barrier();
    server.stop(BOUND).unwrap();
}

/// Messages that came before the end are answered.
#[test]
fn stopping_answers_what_has_come() {
    for _ in 0..20 {
        let f = Fixture::new(Options::default());
        let wires: Vec<Wire> = (0..5).map(|_| connect(&f.path())).collect();
        wires.iter().for_each(|wire| wire.send(GET_FEATURES, &[], &[]));
        f.wait_for_connections(5);
        f.server.stop(BOUND).unwrap();
        wires.iter().for_each(|wire| assert_ne!(wire.reply_u64(GET_FEATURES), 0));
    }
}

#[test]
fn a_device_that_refuses_costs_only_its_connection() {
    let f = Fixture::new(Options::default());
    let good = connect(&f.path());
    good.barrier();
    for _ in 0..30 {
        let bad = connect(&f.path());
        bad.barrier();
        bad.set_u64(SET_PROTOCOL_FEATURES, PROTOCOL_BITS);
        assert_eq!(bad.acked(SET_FEATURES, &(PROTOCOL | 1 << 34).to_ne_bytes(), &[]), 1);
        bad.assert_closed();
        f.wait_for_connections(1);
    }
    good.barrier();
    f.server.stop(BOUND).unwrap();
}

#[test]
fn connections_leave_nothing_open() {
    // Other tests of this process open and close descriptors too: what counts is that it does not grow with the rounds.
    let f = Fixture::new(Options::default());
    let round = || {
        for _ in 0..50 {
            let wire = connect(&f.path());
            let event = EventFd::new(EFD_NONBLOCK).unwrap();
            for index in 0..10 {
                wire.event(SET_VRING_KICK, index, Some(&event));
                wire.event(SET_VRING_CALL, index, Some(&event));
                wire.event(SET_VRING_ERR, index, Some(&event));
            }
            wire.barrier();
        }
        f.wait_for_connections(0);
    };
    round();
    let before = open_descriptors();
    round();
    round();
    let after = open_descriptors();
    // A leak of one descriptor per connection would be 100, of one per ring 1000.
    assert!(after < before + 90, "{before} descriptors, then {after}");
    f.server.stop(BOUND).unwrap();
}

#[test]
fn names_fit_a_thread() {
    assert_eq!(thread_name("/run/vstgt/vm-1.sock"), "s:tgt/vm-1.sock");
    assert_eq!(thread_name("fd 3"), "s:fd 3");
    assert_eq!(thread_name("nul\0here"), "s:nul?here");
}

#[test]
fn who_may_not_connect_is_closed_before_anything_is_read() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("vm.sock");
    let mock = Mock::default();
    let us = std::os::unix::fs::MetadataExt::uid(&std::fs::metadata(dir.path()).unwrap());
    let serve = |peers| {
        let options = Options::default();
        Server::start(vec![Endpoint { peers, ..endpoint(&path, &mock) }], options).unwrap()
    };
    let server = serve(Peers::Users(vec![us + 1]));
    let mut refused = UnixStream::connect(&path).unwrap();
    refused.set_read_timeout(Some(BOUND)).unwrap();
    // The end, or a reset if something of ours was still there to be read: nothing was.
    assert_eq!(std::io::Read::read(&mut refused, &mut [0; 16]).unwrap(), 0);
    assert_eq!((mock.calls(), server.connections()), (Vec::new(), 0));
    server.stop(BOUND).unwrap();

    let server = serve(Peers::Users(vec![us + 1, us]));
    connect(&path).barrier();
    server.stop(BOUND).unwrap();
}
