//! Builds everything from a configuration, waits for the signal that ends it, takes it down in order. SIGUSR1 does not end it: the
//! images are looked at again, for who resized one, or wants a medium loaded that a guest ejected.
//!
//! Order up: inherited descriptors → images (opened and **locked**) → state → units → target → reactors → background → sockets. Order down: background → sockets
//! (sessions drain) → images (flush) → state → nexuses → reactors. State is restored before the first login and closed before the last logout, so that
//! the end of the process is not the loss of its nexuses. Images are locked before anything is read from the state directory or a socket exists: whatever a
//! former process left in flight is done again only by a process that holds the locks, when the former one can do nothing more. A socket file exists only while a guest that connects will be served.

mod space;

use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::thread::JoinHandle;
use std::time::Duration;

use self::space::Watch;
use crate::backing::{self, Image, OpenOptions};
use crate::config::{Config, ConfigError, EndpointConfig, SocketConfig, TargetPortConfig, UnitConfig, WaitChoice};
use crate::device_server;
use crate::hba::{Hba, HbaError, HbaSetup, NexusPorts, TargetPortSetup, WaitKind};
use crate::lu::{self, Background, KeptState, Lu, LuSetup, TargetPort};
use crate::srp::PortId;
use crate::state_dir::{KeptUnit, StateDir, StateError, Writer};
use crate::sys::background::Threads;
use crate::sys::limits;
use crate::sys::signals::{Signal, Termination};
use crate::sys::wait::probe_io_uring;
use crate::target::{HostSetup, Target, TargetError, TargetSetup, UnitMapping};
use crate::tgt::HostNo;
use crate::vhost_user::{DEFAULT_MODE, Endpoint, Inherited, ListenError, Listener, Options, Server};

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
    /// `--wait io_uring` where there is none.
    #[error("--wait io_uring: this system does not allow io_uring (use --wait epoll or auto)")]
    NoIoUring,
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
    // Before anything is opened here: what a number means then is not what it meant to whoever gave it.
    let inherited = inherited(&config)?;
    crate::mem::install_sigbus_handler().map_err(system("cannot handle SIGBUS"))?;
    match limits::raise_open_files() {
        Ok(limit) => log::debug!("up to {limit} open descriptors"),
        Err(e) => log::warn!("the limit of open descriptors cannot be raised: {e}"),
    }
    let images = images(&config)?;
    let state_dir = StateDir::open(&config.state_dir)?;
    let background = Arc::new(Threads::new("vstgt-background"));
    let (units, kept) = units(&config, &images, state_dir.as_ref(), &background)?;
    let of_unit = |(of, unit): (&UnitConfig, &UnitMapping)| (of.file.clone(), Arc::clone(&unit.lu));
    let lus: Arc<[_]> = config.units.iter().zip(&units).map(of_unit).collect();
    let names = config.endpoints.iter().map(|e| (PortId::of_initiator(&e.initiator).0, e.initiator.clone())).collect();
    let setup = TargetSetup { shards: config.reactors, hosts: hosts(&config), units, names, patience: None };
    let target = Target::new(setup)?;
    let hba = Hba::start(HbaSetup {
        reactors: config.reactors,
        wait: wait_kind(config.wait)?,
        target,
        target_ports: hosts(&config)
            .into_iter()
            .map(|HostSetup { host_no, name, .. }| TargetPortSetup { name, host_no })
            .collect(),
        request_queues: config.num_queues,
        nexus_loss_timeout: config.nexus_loss_timeout,
        trace_events: config.trace_events,
    })?;
    let start = |dir| Writer::start(dir, kept, &hba.turns(), config.nexus_loss_timeout);
    let writer = state_dir.as_ref().map(start).transpose()?;
    let watched = lus.iter().map(|(file, lu)| (Arc::clone(lu), file.display().to_string()));
    let watch = Watch::start(watched).map_err(system("cannot start a thread"))?;
    lus.iter().for_each(|(_, lu)| device_server::go_on(lu));
    let served = serve(&config, inherited, &hba, || wait(&termination, &lus), &background);
    // If nothing was served it runs still. It is not to outlast the state that is kept.
    background.stop();
    let drained = !matches!(served, Err(Error::Undrained));
    if drained {
        // Before the state is written for the last time: that an image cannot be flushed is part of it.
        flush(&config, &images);
    }
    if let Some(watch) = watch {
        watch.stop();
    }
    if let Some(writer) = writer {
        writer.stop();
    }
    if !drained {
        // Reactors still own guests' commands: to wait for them would be to wait for ever. Nothing that was answered is lost
        // with them, for what was promised to be durable is.
        return served;
    }
    hba.stop();
    served
}

/// Nobody writes any more, and what is not durable yet becomes so.
fn flush(config: &Config, images: &[Arc<dyn Image>]) {
    for (image, unit) in images.iter().zip(&config.units) {
        if !image.capabilities().read_only
            && let Err(e) = image.flush()
        {
            log::error!("{}: {e}", unit.file.display());
        }
    }
}

/// Listens, serves until `wait` returns, and stops serving.
fn serve(
    config: &Config,
    inherited: Vec<Option<Inherited>>,
    hba: &Hba,
    wait: impl FnOnce() -> io::Result<i32>,
    background: &Threads,
) -> Result<(), Error> {
    let mut endpoints = Vec::new();
    let ports = hba.add_ports(&nexuses(config));
    for ((port, e), inherited) in ports.into_iter().zip(&config.endpoints).zip(inherited) {
        let source = match (inherited, &e.socket) {
            (Some(inherited), _) => inherited,
            (None, SocketConfig::Path(path)) => Inherited::Listening(Listener::bind(path, DEFAULT_MODE)?),
            (None, SocketConfig::Fd(fd)) => Inherited::take(*fd)?,
        };
        endpoints.push(Endpoint { source, name: port.label().to_string(), make_device: hba.connect(port) });
    }
    let system = |what| move |source| Error::System { what, source };
    // A process whose every socket was one connection has nothing to do once they are over.
    let on_exhausted: Box<dyn FnOnce() + Send> = Box::new(Termination::raise);
    let options = Options { on_exhausted: Some(on_exhausted), ..Options::default() };
    let server = Server::start(endpoints, options).map_err(system("cannot start serving"))?;
    log::info!("serving {} logical units on {} sockets", config.units.len(), config.endpoints.len());
    let signal = wait();
    // From here on connections end because the process does.
    hba.keep_nexuses();
    // Commands that wait for what runs in the background are to end, too.
    background.stop();
    if let Err(e) = server.stop(STOP_BOUND) {
        log::error!("{e}");
        return Err(Error::Undrained);
    }
    log::info!("ended by signal {}", signal.map_err(system("cannot wait for signals"))?);
    Ok(())
}

/// Waits for the signal that ends the process; gives back its number.
fn wait(termination: &Termination, units: &Arc<[(PathBuf, Arc<Lu>)]>) -> io::Result<i32> {
    let mut looks: Option<JoinHandle<()>> = None;
    loop {
        match termination.wait()? {
            Signal::End(signal) => return Ok(signal),
            Signal::LookAgain if looks.as_ref().is_some_and(|looks| !looks.is_finished()) => {
                log::warn!("SIGUSR1: the images are still being looked at");
            }
            Signal::LookAgain => {
                // On a thread of its own: a file system may hang, and the process is to end all the same.
                let units = Arc::clone(units);
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

/// The sockets that are open already, each in its endpoint's place.
fn inherited(config: &Config) -> Result<Vec<Option<Inherited>>, Error> {
    let take = |e: &EndpointConfig| match e.socket {
        SocketConfig::Path(_) => Ok(None),
        SocketConfig::Fd(fd) => Inherited::take(fd).map(Some),
    };
    Ok(config.endpoints.iter().map(take).collect::<Result<_, _>>()?)
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

fn images(config: &Config) -> Result<Vec<Arc<dyn Image>>, Error> {
    let open = |u: &UnitConfig| {
        backing::open(&OpenOptions {
            path: u.file.clone(),
            read_only: u.read_only,
            block_size: u.block_size,
            shared: u.shared_by(&config.endpoints),
            engine: config.engine,
            locking: u.locking,
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
