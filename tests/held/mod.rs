//! `vstgt` in this process, over images that hold their operations.
#![allow(clippy::unwrap_used, clippy::panic, missing_docs, dead_code, reason = "test code")]

pub mod image;

use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use vstgt::backing::Image;
use vstgt::hba::{Hba, HbaSetup, NexusPorts, TargetPortSetup, WaitKind};
use vstgt::lu::{Lu, LuSetup, TargetPort};
use vstgt::srp::PortId;
use vstgt::sys::wait::probe_io_uring;
use vstgt::target::{HostSetup, Target, TargetSetup, UnitMapping};
use vstgt::vhost_user::{DEFAULT_MODE, Endpoint, Listener, Options, Server};

pub use image::HeldImage;

use crate::drive::Driver;
use crate::frontend::guest::{LINUX_FEATURES, connect};
use crate::frontend::{BOUND, Guest, Ram, watchdog};

/// Two initiator ports, `a` and `b`, on two reactors; `a` is at home on the first.
///
/// Both see LUN 0: each its own, `image` and `other`. Both see LUN 1, which is one image, `shared`.
pub struct Host {
    pub image: Arc<HeldImage>,
    pub other: Arc<HeldImage>,
    pub shared: Arc<HeldImage>,
    pub hba: Option<Hba>,
    pub server: Option<Server>,
    dir: tempfile::TempDir,
}

/// The ways to wait that this system has and the environment does not exclude.
pub fn kinds() -> Vec<WaitKind> {
    let wanted = std::env::var("VSTGT_TEST_WAIT").ok();
    let all = [("io_uring", WaitKind::IoUring, probe_io_uring()), ("epoll", WaitKind::Epoll, true)];
    let kinds = all.into_iter().filter(|(name, _, there)| match &wanted {
        Some(wanted) => wanted == name,
        None => *there,
    });
    kinds.map(|(_, kind, _)| kind).collect()
}

/// Runs a test once for each way to wait.
pub fn on_each(test: impl Fn(Host)) {
    let kinds = kinds();
    assert!(!kinds.is_empty(), "VSTGT_TEST_WAIT names no way to wait");
    for kind in kinds {
        eprintln!("waiting with {kind:?}");
        test(Host::start(kind));
    }
}

/// A LUN below target 0: its image, its number, and the one initiator that sees it, if not all do.
pub type Unit<'a> = (Arc<dyn Image>, u16, Option<&'a str>);

/// Serves LUN 0 of `a`, LUN 0 of `b` and LUN 1 of both from these images, on two reactors.
pub fn serve(wait: WaitKind, images: [Arc<dyn Image>; 3]) -> (Hba, Server, tempfile::TempDir) {
    let [one, two, both] = images;
    let names = ["a", "b"].map(str::to_owned);
    serve_units(wait, 2, &names, vec![(one, 0, Some("a")), (two, 0, Some("b")), (both, 1, None)])
}

/// Serves units to initiators; each has a socket of its name in the directory.
pub fn serve_units(
    wait: WaitKind,
    reactors: u8,
    names: &[String],
    units: Vec<Unit<'_>>,
) -> (Hba, Server, tempfile::TempDir) {
    watchdog(Duration::from_secs(300));
    // RUST_LOG shows what happens; only the first host of the program can set this.
    drop(env_logger::Builder::from_env("RUST_LOG").is_test(true).try_init());
    let port = |name: &str| PortId::of_initiator(name).0;
    let mapped = |(number, (image, lun, initiator)): (u64, Unit<'_>)| UnitMapping {
        target: 0,
        lun,
        lu: Lu::new(LuSetup::new(image, 0x3000_0000_0000_0000 + number, format!("S{number}"))).unwrap(),
        initiators: initiator.map(|name| vec![port(name)]),
    };
    let units = (1..).zip(units).map(mapped).collect();
    let names_of = names.iter().map(|name| (port(name), name.clone())).collect();
    let host = HostSetup { host_no: 0, port: TargetPort::SOLE, name: "t".to_owned() };
    let setup = TargetSetup { shards: reactors, hosts: vec![host], units, names: names_of, patience: None };
    let target = Target::new(setup).unwrap();
    let hba = Hba::start(HbaSetup {
        reactors,
        wait,
        target,
        target_ports: vec![TargetPortSetup { name: "t".to_owned(), host_no: 0 }],
        request_queues: 254,
        nexus_loss_timeout: Duration::from_secs(60),
        poll: Duration::from_micros(50),
        register_memory: 0,
        trace_events: true,
    })
    .unwrap();
    let dir = tempfile::tempdir().unwrap();
    let nexuses: Vec<_> = names.iter().map(|name| NexusPorts { initiator: name.clone(), host_no: 0 }).collect();
    let ports = hba.add_ports(&nexuses).into_iter().zip(names);
    let endpoints = ports.map(|(port, name)| {
        let listener = Listener::bind(&dir.path().join(name), DEFAULT_MODE).unwrap();
        Endpoint::listening(listener, name, hba.connect(port))
    });
    let server = Server::start(endpoints.collect(), Options::default()).unwrap();
    (hba, server, dir)
}

impl Host {
    pub fn start(wait: WaitKind) -> Host {
        let [image, other, shared] = [(); 3].map(|()| Arc::new(HeldImage::new()));
        let (hba, server, dir) = serve(wait, [image.clone(), other.clone(), shared.clone()]);
        Host { image, other, shared, hba: Some(hba), server: Some(server), dir }
    }

    pub fn socket(&self, name: &str) -> PathBuf {
        self.dir.path().join(name)
    }

    /// A guest with two request rings, one on each reactor, and no unit attentions left.
    pub fn guest(&self, name: &str) -> Driver {
        self.guest_with(name, Ram::new(16 << 20))
    }

    pub fn guest_with(&self, name: &str, ram: Ram) -> Driver {
        let mut guest = self.connect(name, ram);
        guest.start(LINUX_FEATURES, &[0, 1, 2, 3], 128);
        guest.clear_attentions();
        let mut driver = Driver::new(guest);
        driver.clear_attentions_of([1, 0, 0, 1, 0, 0, 0, 0]);
        driver
    }

    /// Connected and negotiated.
    pub fn connect(&self, name: &str, ram: Ram) -> Guest {
        let mut guest = Guest::over(connect(&self.socket(name)), ram);
        guest.negotiate();
        guest
    }

    /// Ends everything in order, all of it in time.
    pub fn stop(mut self) {
        self.image.release_all();
        self.other.release_all();
        self.shared.release_all();
        self.server.take().unwrap().stop(BOUND).unwrap();
        self.hba.take().unwrap().stop();
    }
}

impl Driver {
    /// Takes the pending unit attentions of one unit.
    pub fn clear_attentions_of(&mut self, lun: [u8; 8]) {
        for _ in 0..4 {
            let sent = self.command(crate::drive::To::ring(2).lun(lun), &[0; 6]);
            if self.wait(&sent).good() {
                return;
            }
        }
        panic!("unit attentions do not end");
    }
}

impl Drop for Host {
    /// A test that failed must not leave threads waiting.
    fn drop(&mut self) {
        for image in [&self.image, &self.other, &self.shared] {
            image.release_all();
        }
    }
}
