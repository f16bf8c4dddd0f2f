//! A real target behind real sessions, whose front-ends are ours: what targets that talk to one start, and what they are all held to.

use crate::cdb::SparseImage;
use crate::front_end::FrontEnd;
use std::os::fd::OwnedFd;
use std::os::unix::net::UnixStream;
use std::sync::{Arc, Once};
use std::thread;
use std::time::{Duration, Instant};
use vstgt::hba::{Hba, HbaSetup, NexusPorts, TargetPortSetup, WaitKind};
use vstgt::lu::{Lu, LuSetup, TargetPort};
use vstgt::srp::PortId;
use vstgt::target::{HostSetup, Target, TargetSetup, UnitMapping};
use vstgt::vhost_user::{Endpoint, Inherited, Options, Peers, Server};

/// How long a connection may take to end, and the process to take everything down.
const PATIENCE: Duration = Duration::from_secs(5);

/// Plays, and sees that no thread panics, and that no descriptor and no thread is left behind. `first` is played once before, so that
/// what is opened once for the whole process is open.
pub(crate) fn watched(first: impl FnOnce(), play: impl FnOnce()) {
    static ONCE: Once = Once::new();
    ONCE.call_once(|| {
        prepare();
        first();
    });
    let before = (entries("/proc/self/fd"), entries("/proc/self/task"));
    play();
    // A thread that was joined may still be listed for a moment.
    let start = Instant::now();
    loop {
        let after = (entries("/proc/self/fd"), entries("/proc/self/task"));
        if after.0 <= before.0 && after.1 <= before.1 {
            return;
        }
        assert!(start.elapsed() < PATIENCE, "descriptors and threads: {before:?} before, {after:?} after");
        thread::sleep(Duration::from_millis(1));
    }
}

/// A panic of any thread is a finding, also where panics unwind; and memory that its file no longer has is to be survived.
fn prepare() {
    let hook = std::panic::take_hook();
    std::panic::set_hook(Box::new(move |info| {
        hook(info);
        if thread::current().name().is_some_and(|name| name.starts_with("vstgt-") || name.starts_with("s:")) {
            std::process::abort();
        }
    }));
    vstgt::mem::install_sigbus_handler().expect("a handler");
}

fn entries(folder: &str) -> usize {
    std::fs::read_dir(folder).map_or(0, Iterator::count)
}

/// A target with one unit, and two connections to it.
pub(crate) struct Service {
    hba: Hba,
    server: Server,
    pub(crate) front_ends: Vec<FrontEnd>,
}

impl Service {
    /// Settings: two reactors; that wait with io_uring; both connections of one initiator; events are traced.
    pub(crate) fn start(settings: u8) -> Service {
        let reactors = 1 + (settings & 1);
        let wait = if settings & 2 == 0 { WaitKind::Epoll } else { WaitKind::IoUring };
        let port = TargetPort { relative: 1, id: PortId::of_target("t").0, group: 1 };
        let image = Arc::new(SparseImage::new(1 << 20, true));
        let setup = LuSetup { ports: vec![port], ..LuSetup::new(image, 0x3123_4567_89ab_cdef, "SERIAL".into()) };
        let lu = Lu::new(setup).expect("a unit");
        let target = Target::new(TargetSetup {
            shards: reactors,
            hosts: vec![HostSetup { host_no: 0, port, name: "t".into() }],
            units: vec![UnitMapping { target: 0, lun: 0, lu, initiators: None }],
            names: vec![(PortId::of_initiator("a").0, "a".into()), (PortId::of_initiator("b").0, "b".into())],
            patience: None,
        });
        let hba = Hba::start(HbaSetup {
            reactors,
            wait,
            target: target.expect("a target"),
            target_ports: vec![TargetPortSetup { name: "t".into(), host_no: 0 }],
            request_queues: 3,
            nexus_loss_timeout: Duration::ZERO,
            poll: std::time::Duration::ZERO,
            register_memory: 0,
            trace_events: settings & 8 != 0,
        });
        let hba = hba.expect("reactors");
        // Two connections: of two initiators, or of one, which may log in once.
        let nexus = |initiator: &str| NexusPorts { initiator: initiator.into(), host_no: 0 };
        let ports = hba.add_ports(&[nexus("a"), nexus("b")]);
        let second = usize::from(settings & 4 == 0);
        let (mut front_ends, mut endpoints) = (Vec::new(), Vec::new());
        for port in [&ports[0], &ports[second]] {
            let (ours, theirs) = UnixStream::pair().expect("a pair of sockets");
            let source = Inherited::from_fd(OwnedFd::from(theirs)).expect("a socket");
            endpoints.push(Endpoint {
                source,
                silent: Vec::new(),
                name: port.label().to_string(),
                make_device: hba.connect(Arc::clone(port)),
                peers: Peers::Anybody,
            });
            front_ends.push(FrontEnd::new(ours));
        }
        let server = Server::start(endpoints, Options::default()).expect("a server");
        Service { hba, server, front_ends }
    }

    /// Whatever was sent, everything ends when the front-ends go.
    pub(crate) fn stop(self) {
        let Service { hba, server, front_ends } = self;
        drop(front_ends);
        if let Err(error) = server.stop(PATIENCE) {
            panic!("{error}");
        }
        hba.stop();
    }
}
