//! Builds everything from a configuration, waits for the signal that ends it, takes it down in order. SIGUSR1 does not end it: the
//! images are looked at again, for who resized one, or wants a medium loaded that a guest ejected.
//!
//! Order up: inherited descriptors → a predecessor ends → images (opened and **locked**) → state → units → sockets → sandbox → target →
//! reactors → background → system calls restricted → serving. Order down: background → sockets (sessions drain) → images (flush) → state → nexuses →
//! reactors. State is restored before the first login and closed before the last logout, so that the end of the process is not the loss of
//! its nexuses. Images are locked before anything is read from the state directory or a socket: whatever a former process left in flight is done
//! again only by a process that holds the locks, when the former one can do nothing more. A socket file exists only while a guest that
//! connects will be served, at once or when all is up.
//!
//! `core` is everything from the images to the reactors; where guests migrate between processes it comes and goes while the sockets
//! stay, see `lobby`. `handover` is the planned restart, `notify` and `activation` the service manager, `sockets` what comes of all of it.

mod activation;
mod core;
mod handover;
mod lobby;
mod notify;
mod sockets;
mod space;

use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::mpsc::Receiver;
use std::thread::JoinHandle;
use std::time::Duration;

pub use self::activation::ActivationError;
use self::core::{Parts, Units};
pub use self::handover::HandoverError;
use self::handover::{Offering, Successor};
use self::notify::{Notifier, Watchdog};
use self::sockets::Sockets;
use crate::backing::{self, Image, Locking, OpenOptions};
use crate::config::{
    Config, ConfigError, EndpointConfig, Migration, SocketConfig, TargetPortConfig, UnitConfig, WaitChoice,
};
use crate::hba::{HbaError, NexusPorts, WaitKind};
use crate::lu::{self, Background, Intents, KeptState, Lu, LuSetup, TargetPort};
use crate::sandbox::{self, Confined, Fence, ImageAccess};
use crate::srp::PortId;
use crate::state_dir::{KeptUnit, StateDir, StateError};
use crate::sys::background::Threads;
use crate::sys::limits;
use crate::sys::signals::{Signal, Termination};
use crate::sys::wait::probe_io_uring;
use crate::target::{HostSetup, TargetError, UnitMapping};
use crate::tgt::HostNo;
use crate::vhost_user::{self, ListenError, MakeDevice, Options, Server};

/// How long sessions may take to drain when the process ends; then it ends without them.
const STOP_BOUND: Duration = Duration::from_secs(10);

/// Why the daemon could not start, in one line for the person who started it.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The command line makes no sense.
    #[error(transparent)]
    Config(#[from] ConfigError),
    /// An image cannot be served.
    #[error(transparent)]
    Image(#[from] backing::OpenError),
    /// A unit cannot be made of its image.
    #[error("{file}: {what}")]
    Unit {
        /// The image.
        file: PathBuf,
        /// Why.
        what: String,
    },
    /// What was kept cannot be restored, or nothing can be kept.
    #[error(transparent)]
    State(#[from] StateError),
    /// The units do not fit together.
    #[error(transparent)]
    Target(#[from] TargetError),
    /// Reactors cannot be started.
    #[error(transparent)]
    Hba(#[from] HbaError),
    /// A socket cannot be listened on.
    #[error(transparent)]
    Listen(#[from] ListenError),
    /// What the service manager passed does not fit.
    #[error(transparent)]
    Activation(#[from] ActivationError),
    /// The process that runs cannot be succeeded.
    #[error(transparent)]
    Handover(#[from] HandoverError),
    /// `--wait io_uring` where there is none.
    #[error("--wait io_uring: this system does not allow io_uring (use --wait epoll or auto)")]
    NoIoUring,
    /// The process cannot be fenced in.
    #[error(transparent)]
    Sandbox(#[from] sandbox::Error),
    /// Guests' commands did not end in time.
    #[error("commands did not end in time (a disk that hangs?); ended without waiting for them")]
    Undrained,
    /// Signals or threads are not to be had.
    #[error("{what}: {source}")]
    System {
        /// What was tried.
        what: &'static str,
        /// Why it failed.
        source: io::Error,
    },
}

/// Serves until SIGTERM or SIGINT. SIGUSR1: see [`Lu::look_again`].
pub fn run(config: Config) -> Result<(), Error> {
    let system = |what| move |source| Error::System { what, source };
    let termination = Termination::block().map_err(system("cannot block signals"))?;
    let mut sockets = Sockets::inherited(&config)?;
    let notifier = Notifier::from_environment();
    crate::mem::install_sigbus_handler().map_err(system("cannot handle SIGBUS"))?;
    limits::let_large_files_be_errors().map_err(system("cannot ignore SIGXFSZ"))?;
    match limits::raise_open_files() {
        Ok(limit) => log::debug!("up to {limit} open descriptors"),
        Err(e) => log::warn!("the limit of open descriptors cannot be raised: {e}"),
    }
    sockets.succeed(&config, &notifier, || rehearse(&config))?;
    if config.migration != Migration::Never {
        return lobby::run(config, sockets, &notifier, &termination);
    }
    let parts = Parts::open(&config)?;
    sockets.bind(&config)?;
    // No thread runs yet, and what is opened by name is open.
    let confined = config.sandbox.then(|| sandbox::confine(&fence(&config, parts.state_dir()))).transpose()?;
    let core = parts.start(&config)?;
    // To the end: a service manager that wants signs of life wants them while the last commands end, too.
    let _watchdog = watchdog(&notifier, core.pings())?;
    let doors = Doors { sockets, devices: core.devices(&config), confined, notifier: &notifier };
    let served = serve(&config, doors, || wait(&termination, || core.units()), || core.ends());
    core.stop(&config, matches!(served, Err(Error::Undrained)));
    if let Some(successor) = served? {
        successor.ended(true);
    }
    Ok(())
}

/// Whether this process can do what it is to do, as far as that can be found out while another one does it.
fn rehearse(config: &Config) -> Result<(), Error> {
    wait_kind(config.wait)?;
    StateDir::open(&config.state_dir)?;
    // The other one has them locked.
    open_images(config, |_| Locking::Off).map(drop)
}

/// The keep-alive of the service manager, if it wants one.
fn watchdog(
    notifier: &Notifier,
    ping: impl Fn() -> Vec<Receiver<()>> + Send + 'static,
) -> Result<Option<Watchdog>, Error> {
    let watchdog = notify::watchdog_period().map(|period| Watchdog::start(notifier.clone(), period, ping));
    watchdog.transpose().map_err(|source| Error::System { what: "cannot start a thread", source })
}

/// What is needed to serve, but for the signal that ends it.
struct Doors<'a> {
    sockets: Sockets,
    /// What is behind each socket: a name, and how devices are made.
    devices: Vec<(String, MakeDevice)>,
    /// To be sealed before the first byte is read.
    confined: Option<Confined>,
    notifier: &'a Notifier,
}

/// Listens, serves until `wait` returns, and stops serving: first, `ends` tells the rest that it is the process that ends. Gives
/// back who goes on, if somebody does.
fn serve(
    config: &Config,
    doors: Doors<'_>,
    wait: impl FnOnce() -> io::Result<i32>,
    ends: impl FnOnce(),
) -> Result<Option<Successor>, Error> {
    let system = |what| move |source| Error::System { what, source };
    let Doors { sockets, devices, confined, notifier } = doors;
    let (endpoints, offering) = sockets.open(config, devices)?;
    confined.map(Confined::seal).transpose()?;
    // A process whose every socket was one connection has nothing to do once they are over.
    let on_exhausted: Box<dyn FnOnce() + Send> = Box::new(Termination::raise);
    let options = Options { on_exhausted: Some(on_exhausted), ..Options::default() };
    let mut server = Server::start(endpoints, options).map_err(system("cannot start serving"))?;
    let status = format!("serving {} logical units on {} sockets", config.units.len(), config.endpoints.len());
    log::info!("{status}");
    notifier.ready(&status);
    let signal = wait();
    let successor = offering.and_then(Offering::into_successor);
    let retired = server.retire();
    match &successor {
        Some(successor) => {
            successor.leave(retired);
            notifier.main_pid(successor.pid());
        }
        None => {
            drop(retired);
            notifier.stopping();
        }
    }
    ends();
    if let Err(e) = server.stop(STOP_BOUND) {
        log::error!("{e}");
        successor.iter().for_each(|successor| successor.ended(false));
        return Err(Error::Undrained);
    }
    let signal = signal.map_err(system("cannot wait for signals"))?;
    match &successor {
        Some(successor) => log::info!("ended for its successor, process {}", successor.pid()),
        None => log::info!("ended by signal {signal}"),
    }
    Ok(successor)
}

/// Waits for the signal that ends the process; gives back its number.
fn wait(termination: &Termination, units: impl Fn() -> Units) -> io::Result<i32> {
    let mut looks: Option<JoinHandle<()>> = None;
    loop {
        match termination.wait()? {
            Signal::End(signal) => return Ok(signal),
            Signal::LookAgain if looks.as_ref().is_some_and(|looks| !looks.is_finished()) => {
                log::warn!("SIGUSR1: the images are still being looked at");
            }
            Signal::LookAgain => {
                // On a thread of its own: a file system may hang, and the process is to end all the same.
                let units = units();
                let look = move || units.iter().for_each(|(file, lu)| look_again(file, lu));
                looks = Some(std::thread::Builder::new().name("vstgt-look".to_owned()).spawn(look)?);
            }
        }
    }
}

fn look_again(file: &Path, lu: &Lu) {
    let file = file.display();
    match lu.look_again() {
        Ok(true) => log::info!("{file}: loaded, {} blocks", lu.geometry().blocks),
        Ok(false) => log::info!("{file}: {} blocks", lu.geometry().blocks),
        Err(e) => log::error!("{file}: its size cannot be looked at: {e}"),
    }
    if lu.image().is_replaced() {
        log::warn!(
            "{file}: another file has its name now, or none: guests keep the old one until vstgt is started again"
        );
    }
}

/// What the process reaches by name while it serves.
fn fence(config: &Config, state_dir: Option<&Path>) -> Fence {
    let image = |u: &UnitConfig| ImageAccess { path: u.file.clone(), writable: !u.read_only };
    let socket = |e: &EndpointConfig| match &e.socket {
        SocketConfig::Path(path) => Some(path.clone()),
        SocketConfig::Fd(_) | SocketConfig::Named(_) => None,
    };
    let sockets = config.endpoints.iter().filter_map(socket).chain(config.handover.clone());
    Fence {
        images: config.units.iter().map(image).collect(),
        image_dirs: config.image_dirs.clone(),
        socket_dirs: sockets.map(|path| vhost_user::directory_of(&path).to_owned()).collect(),
        state_dir: state_dir.map(Path::to_owned),
        registers_memory: config.register_memory > 0,
        core_dumps: config.core_dumps,
        ..Fence::default()
    }
}

/// The target ports, each a host of its own, numbered from 0 as they are configured.
fn hosts(config: &Config) -> Vec<HostSetup> {
    let host = |(host_no, p): (HostNo, &TargetPortConfig)| HostSetup { host_no, port: port(p), name: p.name.clone() };
    (0..).zip(&config.target_ports).map(host).collect()
}

fn port(config: &TargetPortConfig) -> TargetPort {
    TargetPort { relative: config.relative, id: PortId::of_target(&config.name).0, group: config.group }
}

/// The nexus of each socket.
fn nexuses(config: &Config) -> Vec<NexusPorts> {
    let hosts = hosts(config);
    let nexus = |e: &EndpointConfig| {
        let host = hosts.iter().find(|host| host.name == e.target_port)?;
        Some(NexusPorts { initiator: e.initiator.clone(), host_no: host.host_no })
    };
    config.endpoints.iter().filter_map(nexus).collect()
}

fn wait_kind(choice: WaitChoice) -> Result<WaitKind, Error> {
    match (choice, choice != WaitChoice::Epoll && probe_io_uring()) {
        (WaitChoice::IoUring, false) => Err(Error::NoIoUring),
        (_, true) => Ok(WaitKind::IoUring),
        (_, false) => Ok(WaitKind::Epoll),
    }
}

/// How much guest memory may be registered: it is an io_uring that would hold it.
fn register_memory(config: &Config, wait: WaitKind) -> u64 {
    if config.register_memory > 0 && wait != WaitKind::IoUring {
        log::warn!("--register-memory: no guest memory is registered without io_uring");
        return 0;
    }
    config.register_memory
}

fn images(config: &Config) -> Result<Vec<Arc<dyn Image>>, Error> {
    open_images(config, |u| u.locking)
}

fn open_images(config: &Config, locking: impl Fn(&UnitConfig) -> Locking) -> Result<Vec<Arc<dyn Image>>, Error> {
    let open = |u: &UnitConfig| {
        backing::open(&OpenOptions {
            path: u.file.clone(),
            read_only: u.read_only,
            block_size: u.block_size,
            shared: u.shared_by(&config.endpoints),
            engine: config.engine,
            cache: u.cache,
            locking: locking(u),
            patience: backing::PATIENCE,
        })
    };
    Ok(config.units.iter().map(open).collect::<Result<_, _>>()?)
}

/// The units, and those of them whose state is kept.
fn units(
    config: &Config,
    images: &[Arc<dyn Image>],
    state_dir: Option<&StateDir>,
    background: &Arc<Threads>,
) -> Result<(Vec<UnitMapping>, Vec<KeptUnit>), Error> {
    let (mut units, mut kept_units) = (Vec::new(), Vec::new());
    let rods = Arc::default();
    for (u, image) in config.units.iter().zip(images) {
        let unit = |what: String| Error::Unit { file: u.file.clone(), what };
        let path = u.file.canonicalize().map_err(|e| unit(e.to_string()))?;
        let (naa, serial) = lu::derive(&path, u.serial.as_deref(), u.naa);
        let mut setup = LuSetup {
            block_size: u.block_size,
            read_only: u.read_only,
            removable: u.removable,
            physical_exponent: u.physical_exponent(),
            lowest_aligned: u.lowest_aligned,
            eui: u.eui.clone(),
            uuid: u.uuid,
            rotation_rate: u.rotation_rate,
            provisioning: u.provisioning,
            threshold: u.threshold,
            write_cache: u.write_cache,
            descriptor_sense: u.descriptor_sense,
            ports: reached_by(u, config),
            access: config.target_ports.iter().map(|port| (port.group, port.state)).collect(),
            background: Arc::clone(background) as Arc<dyn Background>,
            rods: Arc::clone(&rods),
            ..LuSetup::new(Arc::clone(image), naa, serial)
        };
        if let Some(vendor) = &u.vendor {
            setup.vendor.clone_from(vendor);
        }
        if let Some(product) = &u.product {
            setup.product.clone_from(product);
        }
        if let Some(revision) = &u.revision {
            setup.revision.clone_from(revision);
        }
        let mut file = None;
        if let Some(found) = state_dir.map(|dir| dir.unit(naa)).transpose()?.flatten() {
            file = Some(Arc::clone(&found.file));
            setup.keeper = Some(found.file);
            setup.kept = found.kept;
            setup.intents = found.intents.map(|file| file as Arc<dyn Intents>);
            lost_writes(u, &**image, setup.kept.as_mut());
        }
        let lu = Lu::new(setup).map_err(|e| unit(e.to_string()))?;
        kept_units.extend(file.map(|file| KeptUnit { lu: Arc::clone(&lu), file }));
        let initiators = (!u.initiators.is_empty())
            .then(|| u.initiators.iter().map(|name| PortId::of_initiator(name).0).collect::<Vec<[u8; 16]>>());
        units.push(UnitMapping { target: u.target, lun: u.lun, lu, initiators });
    }
    Ok((units, kept_units))
}

/// Says what becomes of writes that were lost in a former process; forgets of it if that is accepted.
fn lost_writes(unit: &UnitConfig, image: &dyn Image, kept: Option<&mut KeptState>) {
    let file = unit.file.display();
    match kept.map(|kept| &mut kept.records.lost_writes) {
        Some(lost) if *lost && unit.accept_lost_writes => {
            log::warn!("{file}: writes that were lost before are accepted");
            image.forget_cached();
            *lost = false;
        }
        Some(true) => log::error!(
            "{file}: a sync failed in a former process, data may be lost: flushes go on failing until it is started with lost-writes=accept"
        ),
        Some(false) | None => {}
    }
}

/// The target ports by which a unit is seen.
fn reached_by(unit: &UnitConfig, config: &Config) -> Vec<TargetPort> {
    let seen = |p: &&TargetPortConfig| unit.target_ports.is_empty() || unit.target_ports.contains(&p.name);
    config.target_ports.iter().filter(seen).map(port).collect()
}
