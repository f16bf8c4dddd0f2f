//! One reactor with one unit over a null image, behind a socket.

use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use vstgt::hba::{Hba, HbaSetup, NexusPorts, TargetPortSetup, WaitKind};
use vstgt::lu::{Lu, LuSetup, TargetPort};
use vstgt::srp::PortId;
use vstgt::sys::wait::probe_io_uring;
use vstgt::target::{HostSetup, Target, TargetSetup, UnitMapping};
use vstgt::vhost_user::{DEFAULT_MODE, Endpoint, Listener, Options, Server};

use crate::frontend::{BOUND, watchdog};
use crate::null::NullImage;

/// The initiator port's name, and the socket's.
const GUEST: &str = "guest";

pub struct Served {
    pub socket: PathBuf,
    hba: Hba,
    server: Server,
    _dir: tempfile::TempDir,
}

impl Served {
    /// Its reactor looks for work for so long, before it sleeps.
    pub fn start(poll: Duration) -> Served {
        watchdog(Duration::from_secs(300));
        let setup = LuSetup::new(Arc::new(NullImage), 0x3000_0000_0000_0001, "BENCH".to_owned());
        let target = Target::new(TargetSetup {
            shards: 1,
            hosts: vec![HostSetup { host_no: 0, port: TargetPort::SOLE, name: "t".to_owned() }],
            units: vec![UnitMapping { target: 0, lun: 0, lu: Lu::new(setup).unwrap(), initiators: None }],
            names: vec![(PortId::of_initiator(GUEST).0, GUEST.to_owned())],
            patience: None,
        });
        let hba = Hba::start(HbaSetup {
            reactors: 1,
            wait: if probe_io_uring() { WaitKind::IoUring } else { WaitKind::Epoll },
            target: target.unwrap(),
            target_ports: vec![TargetPortSetup { name: "t".to_owned(), host_no: 0 }],
            request_queues: 254,
            nexus_loss_timeout: Duration::from_secs(60),
            poll,
            register_memory: 0,
            trace_events: false,
        });
        let (hba, dir) = (hba.unwrap(), tempfile::tempdir().unwrap());
        let socket = dir.path().join(GUEST);
        let port = hba.add_ports(&[NexusPorts { initiator: GUEST.to_owned(), host_no: 0 }]).remove(0);
        let listener = Listener::bind(&socket, DEFAULT_MODE).unwrap();
        let endpoint = Endpoint::listening(listener, GUEST, hba.connect(port));
        let server = Server::start(vec![endpoint], Options::default()).unwrap();
        Served { socket, hba, server, _dir: dir }
    }

    /// Ends everything in order; the front-end must be gone.
    pub fn stop(self) {
        self.server.stop(BOUND).unwrap();
        self.hba.stop();
    }
}
