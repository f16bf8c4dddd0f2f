//! Both sides of the conversation over real sockets, and every point at which one of them can go away.

use std::io::{Read, Write};
use std::os::fd::AsFd;
use std::os::unix::net::UnixListener;
use std::sync::mpsc::{Receiver, channel};
use std::thread;
use std::time::{Duration, Instant};

use super::wire::{Link, Message, Received, VERSION};
use super::*;
use crate::vhost_user::{DEFAULT_MODE, Listener, Retired};

const BOUND: Duration = Duration::from_secs(20);
const QUICK: Bounds =
    Bounds { offer: Duration::from_secs(20), end: Duration::from_secs(20), patience: Duration::from_millis(50) };

/// A predecessor with sockets `a` and `b`, and who waits for its end.
struct Running {
    dir: tempfile::TempDir,
    listeners: Vec<Listener>,
    offering: Offering,
    told: Receiver<()>,
}

impl Running {
    fn start() -> Running {
        let dir = tempfile::tempdir().unwrap();
        let bind = |name: &str| Listener::bind(&dir.path().join(name), DEFAULT_MODE).unwrap();
        let listeners = vec![bind("a"), bind("b")];
        let offers = listeners.iter().map(|listener| Offer::of(listener).unwrap().unwrap()).collect();
        let (tell, told) = channel();
        let offering = Offering::start(bind("handover"), offers, move || tell.send(()).unwrap()).unwrap();
        Running { dir, listeners, offering, told }
    }

    fn path(&self, name: &str) -> PathBuf {
        self.dir.path().join(name)
    }

    fn key(&self, name: &str) -> PathBuf {
        key(&self.path(name))
    }

    fn ask(&self) -> successor::Predecessor {
        ask(&self.path("handover"), vec![self.key("a"), self.key("c")], QUICK).unwrap().unwrap()
    }
}

fn no_wait(_: Duration) {}

#[test]
fn where_nobody_is_nobody_is_asked() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("handover");
    assert!(ask(&path, Vec::new(), QUICK).unwrap().is_none());
    drop(UnixListener::bind(&path).unwrap());
    assert!(ask(&path, Vec::new(), QUICK).unwrap().is_none(), "stale");
    std::fs::remove_file(&path).unwrap();
    std::fs::write(&path, "a file").unwrap();
    assert!(ask(&path, Vec::new(), QUICK).unwrap().is_none());
}

/// All of it: what was asked for goes over with its file and its silent connections, the rest is closed and removed.
#[test]
fn sockets_and_silent_connections_go_over() {
    let running = Running::start();
    let mut client = UnixStream::connect(running.path("a")).unwrap();
    let silent = running.listeners[0].accept().unwrap();
    let mut waits = UnixStream::connect(running.path("a")).unwrap();
    let predecessor = running.ask();
    assert_eq!(predecessor.pid(), std::process::id());
    let taken = thread::scope(|scope| {
        let taken = scope.spawn(|| predecessor.take_over(QUICK, no_wait).unwrap());
        running.told.recv_timeout(BOUND).unwrap();
        let successor = running.offering.into_successor().unwrap();
        let mut retired: Vec<_> = running
            .listeners
            .into_iter()
            .map(|listener| Retired { listener: Some(listener), silent: Vec::new() })
            .collect();
        retired[0].silent.push(silent);
        successor.leave(retired);
        assert!(!taken.is_finished(), "it has to wait");
        successor.ended(true);
        thread::sleep(Duration::from_millis(20));
        assert!(!taken.is_finished(), "it has to wait until the process is gone");
        drop(successor);
        taken.join().unwrap()
    });
    let mut taken = taken;
    let path = |name| running.dir.path().join(name);
    assert!(path("a").exists() && !path("b").exists() && path("handover").exists());
    let listener = taken.listener(&key(&path("a"))).unwrap();
    assert!(taken.listener(&key(&path("a"))).is_none());
    let mut silent = taken.silent(&key(&path("a")));
    assert_eq!(silent.len(), 1);
    client.write_all(b"hello").unwrap();
    let mut said = [0; 5];
    silent[0].read_exact(&mut said).unwrap();
    assert_eq!(&said, b"hello");
    waits.write_all(b"there").unwrap();
    listener.accept().unwrap().read_exact(&mut said).unwrap();
    assert_eq!(&said, b"there", "from the backlog");
    drop(taken.handover().unwrap());
    drop(listener);
    assert!(!path("a").exists() && !path("handover").exists(), "the files are the successor's");
}

/// Those that come meanwhile get their turn, also from the process after this one.
#[test]
fn a_successor_that_goes_away_changes_nothing() {
    let running = Running::start();
    drop(UnixStream::connect(running.path("handover")).unwrap());
    let mut garbage = UnixStream::connect(running.path("handover")).unwrap();
    garbage.write_all(&[0xff; 64]).unwrap();
    assert_eq!(garbage.read(&mut [0; 8]).unwrap_or(0), 0, "hung up");
    drop(running.ask());
    drop(running.ask());
    let last = running.ask();
    assert!(running.told.try_recv().is_err(), "nobody took over");
    UnixStream::connect(running.path("a")).unwrap();
    running.listeners[0].accept().unwrap();
    drop(last);
    drop(running.offering);
    assert!(running.dir.path().join("a").exists() && !running.dir.path().join("handover").exists());
}

/// A process at `path` that does what the test says.
fn acts(path: &Path, script: impl FnOnce(Link) + Send + 'static) -> thread::JoinHandle<()> {
    let listener = UnixListener::bind(path).unwrap();
    thread::spawn(move || {
        let link = Link::new(listener.accept().unwrap().0);
        link.set_bound(BOUND).unwrap();
        assert!(matches!(link.receive().unwrap(), Received::Message(Message::Ask(_), None)));
        script(link);
    })
}

fn scene() -> (tempfile::TempDir, PathBuf, Listener) {
    let dir = tempfile::tempdir().unwrap();
    let (handover, listener) =
        (dir.path().join("handover"), Listener::bind(&dir.path().join("a"), DEFAULT_MODE).unwrap());
    (dir, handover, listener)
}

fn offer(link: &Link, listener: &Listener) {
    let (path, file) = (key(listener.path().unwrap()), listener.file());
    let message = Message::Listener { path, file, handover: false };
    link.send(&message, Some(listener.as_fd())).unwrap();
}

/// Killed before it has offered everything: nobody is there, and this is a start after a kill.
#[test]
fn a_predecessor_killed_before_its_offer_is_none() {
    for offers in [false, true] {
        let (_dir, path, listener) = scene();
        let actor = acts(&path, move |link| {
            if offers {
                offer(&link, &listener);
            }
        });
        assert!(ask(&path, Vec::new(), QUICK).unwrap().is_none());
        actor.join().unwrap();
    }
}

/// Killed before or after it was told to end: the sockets are there, and connections made meanwhile.
#[test]
fn a_predecessor_killed_later_leaves_its_sockets() {
    for reads_commit in [false, true] {
        let (dir, path, listener) = scene();
        let file = dir.path().join("a");
        let actor = acts(&path, move |link| {
            offer(&link, &listener);
            link.send(&Message::Offered { pid: 7, others: Vec::new() }, None).unwrap();
            // As if killed: its files stay.
            listener.leave();
            if reads_commit {
                assert!(matches!(link.receive().unwrap(), Received::Message(Message::Commit, None)));
            }
        });
        let predecessor = ask(&path, Vec::new(), QUICK).unwrap().unwrap();
        if !reads_commit {
            actor.join().unwrap();
        }
        let mut early = UnixStream::connect(&file).unwrap();
        let mut taken = predecessor.take_over(QUICK, no_wait).unwrap();
        let listener = taken.listener(&key(&file)).unwrap();
        early.write_all(b"x").unwrap();
        listener.accept().unwrap().read_exact(&mut [0]).unwrap();
    }
}

/// It ends in an orderly way while it is asked, and removes its files: they are not taken for ours.
#[test]
fn a_socket_whose_file_is_gone_is_not_taken() {
    for another in [false, true] {
        let (dir, path, listener) = scene();
        let file = dir.path().join("a");
        let again = file.clone();
        let actor = acts(&path, move |link| {
            offer(&link, &listener);
            link.send(&Message::Offered { pid: 7, others: Vec::new() }, None).unwrap();
            drop(listener);
            if another {
                drop(UnixListener::bind(&again).unwrap());
            }
        });
        let predecessor = ask(&path, Vec::new(), QUICK).unwrap().unwrap();
        actor.join().unwrap();
        assert!(predecessor.take_over(QUICK, no_wait).unwrap().listener(&key(&file)).is_none());
        assert_eq!(file.exists(), another, "not removed");
    }
}

#[test]
fn a_predecessor_that_does_not_end_is_named() {
    let (_dir, path, _listener) = scene();
    let (done, wait) = channel::<()>();
    let actor = acts(&path, move |link| {
        link.send(&Message::Offered { pid: 7, others: Vec::new() }, None).unwrap();
        assert!(wait.recv().is_err());
    });
    let predecessor = ask(&path, Vec::new(), QUICK).unwrap().unwrap();
    let bounds = Bounds { end: Duration::from_millis(200), ..QUICK };
    let told = std::cell::Cell::new(0);
    let start = Instant::now();
    let error = predecessor.take_over(bounds, |_| told.set(told.get() + 1)).unwrap_err();
    assert!(matches!(&error, HandoverError::Hangs { .. }) && error.to_string().contains("kill -9"), "{error}");
    assert!(start.elapsed() >= bounds.end && told.get() >= 4, "{} times", told.get());
    drop(done);
    actor.join().unwrap();
}

/// Its disk hangs, and perhaps it cannot even exit: then it is not waited for. What may be done to the image, its lock says.
#[test]
fn one_that_says_it_has_not_drained_is_not_waited_for() {
    let (_dir, path, _listener) = scene();
    let (done, wait) = channel::<()>();
    let actor = acts(&path, move |link| {
        link.send(&Message::Offered { pid: 7, others: Vec::new() }, None).unwrap();
        link.send(&Message::Ended(false), None).unwrap();
        assert!(wait.recv().is_err());
    });
    let predecessor = ask(&path, Vec::new(), QUICK).unwrap().unwrap();
    predecessor.take_over(QUICK, no_wait).unwrap();
    drop(done);
    actor.join().unwrap();
}

#[test]
fn other_versions_are_refused_in_words() {
    let running = Running::start();
    let stream = UnixStream::connect(running.path("handover")).unwrap();
    let newer = Link::new(stream);
    newer.set_bound(BOUND).unwrap();
    newer.send_as(VERSION + 1, &Message::Ask(Vec::new()), None).unwrap();
    let Received::Message(Message::Refused(why), None) = newer.receive().unwrap() else { panic!("not refused") };
    assert_eq!(why, "it speaks version 1 of the handover protocol, not 2");
    drop(running.ask());

    let (_dir, path, _listener) = scene();
    let actor =
        acts(&path, |link| link.send_as(VERSION + 1, &Message::Offered { pid: 7, others: Vec::new() }, None).unwrap());
    let error = ask(&path, Vec::new(), QUICK).unwrap_err().to_string();
    assert!(error.contains("hands nothing over: it speaks version 2"), "{error}");
    actor.join().unwrap();
}

#[test]
fn messages_arrive_as_they_were_sent() {
    let paths = || vec![PathBuf::from("/a b"), PathBuf::from("/c\nd")];
    let listener = |file, handover| Message::Listener { path: "/x".into(), file, handover };
    let messages = [
        Message::Ask(paths()),
        Message::Ask(Vec::new()),
        Message::Refused("no".into()),
        listener(None, false),
        listener(Some((1 << 40, 7)), true),
        Message::Offered { pid: 7, others: paths() },
        Message::Commit,
        Message::Connection("/x".into()),
        Message::Ended(true),
        Message::Ended(false),
    ];
    let (a, b) = UnixStream::pair().unwrap();
    let (a, b) = (Link::new(a), Link::new(b));
    b.set_bound(BOUND).unwrap();
    let file = tempfile::tempfile().unwrap();
    for message in messages {
        for fd in [None, Some(file.as_fd())] {
            a.send(&message, fd).unwrap();
            let Received::Message(got, with) = b.receive().unwrap() else { panic!("no message") };
            assert_eq!((got, with.is_some()), (message.clone(), fd.is_some()));
        }
    }
    drop(a);
    assert!(matches!(b.receive().unwrap(), Received::Closed));
}

/// Whatever comes is a message or an error, and bounded.
#[test]
fn broken_messages_are_refused() {
    let header = |kind: u32, length: u32| {
        let mut bytes = b"vsHO".to_vec();
        [VERSION, kind, length].iter().for_each(|field| bytes.extend_from_slice(&field.to_le_bytes()));
        bytes
    };
    let with = |kind, payload: &[u8]| [header(kind, payload.len() as u32), payload.to_vec()].concat();
    let broken = [
        with(3, &[1, 0, 5]),
        with(7, &[]),
        with(99, b"x"),
        header(1, u32::MAX),
        header(1, 8),
        b"vsHO".to_vec(),
        vec![7; 16],
    ];
    for bytes in broken {
        let (mut a, b) = UnixStream::pair().unwrap();
        a.write_all(&bytes).unwrap();
        drop(a);
        let link = Link::new(b);
        link.set_bound(BOUND).unwrap();
        assert!(link.receive().is_err(), "{bytes:?}");
    }
}
