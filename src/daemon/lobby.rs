//! Guests that migrate from one process to another, perhaps on another host (`--outgoing`, `--incoming`).
//!
//! Images and state have one owner at a time, but two processes have connections at once: the destination's front-end says hello while the
//! source's guest still runs. So the sockets stay, and what is behind them (the [`Core`]) comes and goes:
//!
//! * It comes when a ring is started, and is waited for if another process still has it.
//! * It goes when no ring of any guest runs here any more and a guest's rings were stopped while its writes were logged: that is how a
//!   migration's source stops its guest, and nobody else does. It has gone, state written, images flushed, locks given up, before
//!   the front-end is told that the last ring has stopped. So the destination, whose rings are started after that, need not wait.
//! * A migration that fails after that starts the source's rings again: then the core comes back. If the destination has it by then, the
//!   rings do not start: a guest never runs on both sides.
//!
//! A [`Visitor`] is the device behind one connection. It remembers what the front-end said, tells the core's own
//! device of it when there is one, and passes everything on.

use std::collections::BTreeSet;
use std::fs::File;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::mpsc::Receiver;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, RwLock, Weak};
use std::time::{Duration, Instant};

use super::core::{Core, Parts, SharedMaker, Units};
use super::notify::Notifier;
use super::sockets::Sockets;
use super::{Doors, Error, serve, wait, watchdog};
use crate::backing;
use crate::config::{Config, Migration, WaitChoice};
use crate::hba::Hba;
use crate::mem::{DirtyLog, MemoryMap, UsedRingLog};
use crate::sandbox::{self, Fence};
use crate::state_dir::StateDir;
use crate::sys::signals::Termination;
use crate::vhost_user::{Device, Hangup, MakeDevice, RingConfig, StartError};

/// How long a guest that is to run waits for another process to let go.
const PATIENCE: Duration = Duration::from_secs(5);

/// How often it looks.
const LOOK: Duration = Duration::from_millis(20);

/// Serves with a core that comes and goes, until a signal ends it.
///
/// The sandbox leaves open what coming takes: images and state are opened by name while guests are served, and rings are made.
pub(super) fn run(
    config: Config,
    mut sockets: Sockets,
    notifier: &Notifier,
    termination: &Termination,
) -> Result<(), Error> {
    let parts = (config.migration == Migration::Outgoing).then(|| Parts::open(&config)).transpose()?;
    sockets.bind(&config)?;
    // No thread runs yet.
    let confined = config.sandbox.then(|| sandbox::confine(&fence(&config)?).map_err(Error::from)).transpose()?;
    let lobby = Arc::new(Lobby::new(config));
    match parts {
        Some(parts) => *write(&lobby.here) = Some(Here::with(parts, &lobby.config)?),
        None => log::info!("waiting for guests that migrate here"),
    }
    let name = |at: usize| {
        let e = &lobby.config.endpoints[at];
        format!("{} on {}", e.initiator, e.target_port)
    };
    let devices = (0..lobby.config.endpoints.len()).map(|at| (name(at), Lobby::visitors(&lobby, at))).collect();
    let of_watchdog = Arc::clone(&lobby);
    let _watchdog = watchdog(notifier, move || of_watchdog.ping())?;
    let doors = Doors { sockets, devices, confined, notifier };
    let ends = || {
        lobby.ending.store(true, Ordering::Release);
        if let Some(here) = &*read(&lobby.here) {
            here.core.ends();
        }
    };
    let served = serve(&lobby.config, doors, || wait(termination, || lobby.units()), ends);
    if let Some(here) = write(&lobby.here).take() {
        here.core.stop(&lobby.config, matches!(served, Err(Error::Undrained)));
    }
    if let Some(successor) = served? {
        successor.ended(true);
    }
    Ok(())
}

/// What is reached by name while the core comes and goes: what it is without that, and what is looked at as it comes.
fn fence(config: &Config) -> Result<Fence, Error> {
    // Made, if need be: later there are no directories to be made.
    let state_dir = StateDir::open(&config.state_dir)?;
    let fence = super::fence(config, state_dir.as_ref().map(StateDir::path));
    let (images, missing): (Vec<_>, Vec<_>) = fence.images.into_iter().partition(|image| image.path.exists());
    let mut read: Vec<PathBuf> = images.iter().flat_map(|image| backing::limits_of(&image.path)).collect();
    read.extend(Some(StateDir::boot_id()).filter(|path| path.exists()).map(Path::to_owned));
    for image in missing {
        log::warn!(
            "{}: no such image yet; the sandbox lets in only what is there now, and what is below an --image-dir",
            image.path.display()
        );
    }
    // Where no ring is asked for none is made; by default some are.
    let makes_rings = config.wait != WaitChoice::Epoll;
    Ok(Fence { images, read, comes_and_goes: true, makes_rings, ..fence })
}

/// The core, and what makes its devices, by endpoint.
struct Here {
    core: Core,
    makers: Vec<SharedMaker>,
}

impl Here {
    fn start(config: &Config) -> Result<Here, Error> {
        Here::with(Parts::open(config)?, config)
    }

    fn with(parts: Parts, config: &Config) -> Result<Here, Error> {
        let core = parts.start(config)?;
        let makers = core.devices(config).into_iter().map(|(_, make)| Mutex::new(make)).collect();
        Ok(Here { core, makers })
    }
}

/// What all connections share. Locks are taken in the order of the fields.
struct Lobby {
    config: Config,
    /// Held for reading while a device is told something: a drain of one guest does not keep the others waiting.
    here: RwLock<Option<Here>>,
    /// All connections; those that are over drop out.
    guests: Mutex<Vec<Weak<Mutex<Guest>>>>,
    /// Endpoints whose guests have left by migration.
    left: Mutex<BTreeSet<usize>>,
    /// The process ends.
    ending: AtomicBool,
}

// A panic under one of these locks has ended its connection; what they guard is whole between any two statements.
fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

fn read<T>(lock: &RwLock<T>) -> std::sync::RwLockReadGuard<'_, T> {
    lock.read().unwrap_or_else(PoisonError::into_inner)
}

fn write<T>(lock: &RwLock<T>) -> std::sync::RwLockWriteGuard<'_, T> {
    lock.write().unwrap_or_else(PoisonError::into_inner)
}

impl Lobby {
    fn new(config: Config) -> Lobby {
        Lobby {
            config,
            here: RwLock::default(),
            guests: Mutex::default(),
            left: Mutex::default(),
            ending: AtomicBool::new(false),
        }
    }

    fn visitors(lobby: &Arc<Lobby>, endpoint: usize) -> MakeDevice {
        let lobby = Arc::clone(lobby);
        Box::new(move || {
            let guest = Arc::new(Mutex::new(Guest::default()));
            let mut guests = lock(&lobby.guests);
            guests.retain(|guest| guest.strong_count() > 0);
            guests.push(Arc::downgrade(&guest));
            Box::new(Visitor { lobby: Arc::clone(&lobby), endpoint, guest })
        })
    }

    /// The units, if they are here.
    fn units(&self) -> Units {
        read(&self.here).as_ref().map_or_else(|| Arc::from([]), |here| here.core.units())
    }

    /// Asks the reactors that are here for a sign of life. While they come or go there is none to ask.
    fn ping(&self) -> Vec<Receiver<()>> {
        let Ok(here) = self.here.try_read() else { return Vec::new() };
        here.as_ref().map_or_else(Vec::new, |here| here.core.pings()())
    }

    /// Makes the core come, if it is not here: for a guest whose connection says when it has given up.
    fn fetch(&self, hangup: Option<&Hangup>) -> Result<(), StartError> {
        let mut here = write(&self.here);
        let until = Instant::now() + PATIENCE;
        let mut told = false;
        while here.is_none() {
            if self.ending.load(Ordering::Acquire) || hangup.is_some_and(Hangup::is_over) {
                return Err(StartError::ShuttingDown);
            }
            match Here::start(&self.config) {
                Ok(started) => {
                    log::info!("images and state are here now");
                    *here = Some(started);
                }
                Err(e) if Instant::now() >= until => {
                    return Err(StartError::Unavailable(format!("what it is to be served is not here: {e}")));
                }
                Err(e) => {
                    if !std::mem::replace(&mut told, true) {
                        log::info!("a guest is to run here; waiting: {e}");
                    }
                    std::thread::sleep(LOOK);
                }
            }
        }
        Ok(())
    }

    /// Lets the core go if all guests have left.
    fn consider(&self) {
        if lock(&self.left).is_empty() || self.ending.load(Ordering::Acquire) {
            return;
        }
        // From here on no ring starts, and none is being stopped.
        let mut here = write(&self.here);
        let guests: Vec<_> = lock(&self.guests).iter().filter_map(Weak::upgrade).collect();
        if guests.iter().any(|guest| !lock(guest).rings.is_empty()) {
            return;
        }
        let Some(Here { core, makers }) = here.take() else { return };
        core.ends();
        for guest in guests {
            if let Some(mut device) = lock(&guest).device.take() {
                device.disconnected();
            }
        }
        drop(makers);
        core.hand_over(&self.config);
        log::info!("images and state are handed over");
    }
}

/// What one front-end has said, and the core's device for it.
#[derive(Default)]
struct Guest {
    hangup: Option<Hangup>,
    acked: Option<u64>,
    map: Arc<MemoryMap>,
    log: Option<Arc<DirtyLog>>,
    used_logs: Vec<(u16, UsedRingLog)>,
    /// Those that run.
    rings: BTreeSet<u16>,
    device: Option<Box<dyn Device>>,
}

impl Guest {
    /// The core's device, made if this is the first that it hears.
    fn device(&mut self, maker: &SharedMaker) -> &mut dyn Device {
        let Guest { hangup, acked, map, log, used_logs, device, .. } = self;
        let device = device.get_or_insert_with(|| {
            let mut device = lock(maker)();
            if let Some(hangup) = hangup {
                device.connected(hangup.clone());
            }
            if let Some(acked) = *acked {
                device.set_features(acked);
            }
            device.set_memory(Arc::clone(map), false);
            device.set_log(log.clone(), used_logs);
            device
        });
        device.as_mut()
    }
}

/// The device behind a connection.
struct Visitor {
    lobby: Arc<Lobby>,
    endpoint: usize,
    guest: Arc<Mutex<Guest>>,
}

impl Visitor {
    /// Remembers what the front-end said, and passes it on.
    fn tell<R>(&self, remember: impl FnOnce(&mut Guest), pass_on: impl FnOnce(&mut dyn Device) -> R) -> Option<R> {
        // The core does not go meanwhile.
        let _here = read(&self.lobby.here);
        let mut guest = lock(&self.guest);
        remember(&mut guest);
        guest.device.as_mut().map(|device| pass_on(device.as_mut()))
    }
}

impl Device for Visitor {
    fn connected(&mut self, hangup: Hangup) {
        self.tell(|guest| guest.hangup = Some(hangup.clone()), |device| device.connected(hangup.clone()));
    }

    fn features(&self) -> u64 {
        Hba::FEATURES
    }

    fn request_queues(&self) -> u16 {
        self.lobby.config.num_queues
    }

    fn set_features(&mut self, acked: u64) {
        self.tell(|guest| guest.acked = Some(acked), |device| device.set_features(acked));
    }

    fn start_ring(&mut self, config: RingConfig) -> Result<(), StartError> {
        loop {
            if let Some(here) = &*read(&self.lobby.here)
                && let Some(maker) = here.makers.get(self.endpoint)
            {
                let mut guest = lock(&self.guest);
                let index = config.index;
                guest.device(maker).start_ring(config)?;
                guest.rings.insert(index);
                lock(&self.lobby.left).remove(&self.endpoint);
                return Ok(());
            }
            let hangup = lock(&self.guest).hangup.clone();
            self.lobby.fetch(hangup.as_ref())?;
        }
    }

    fn stop_ring(&mut self, index: u16) -> Option<u16> {
        let (mut ran, mut logged) = (false, false);
        let next = self.tell(
            |guest| {
                ran = guest.rings.remove(&index) && guest.rings.is_empty();
                logged = guest.log.is_some();
            },
            |device| device.stop_ring(index),
        );
        if ran {
            if logged {
                lock(&self.lobby.left).insert(self.endpoint);
            }
            self.lobby.consider();
        }
        next.flatten()
    }

    fn set_call(&mut self, index: u16, call: Option<File>) {
        self.tell(|_| (), |device| device.set_call(index, call));
    }

    fn set_err(&mut self, index: u16, err: Option<File>) {
        self.tell(|_| (), |device| device.set_err(index, err));
    }

    fn set_memory(&mut self, map: Arc<MemoryMap>, gone: bool) {
        self.tell(|guest| guest.map = Arc::clone(&map), |device| device.set_memory(Arc::clone(&map), gone));
    }

    fn set_log(&mut self, log: Option<Arc<DirtyLog>>, rings: &[(u16, UsedRingLog)]) {
        let remember = |guest: &mut Guest| (guest.log, guest.used_logs) = (log.clone(), rings.to_vec());
        self.tell(remember, |device| device.set_log(log.clone(), rings));
    }

    /// A reset is no departure: a guest that reboots while it migrates goes on here.
    fn reset(&mut self) {
        self.tell(|guest| guest.rings.clear(), |device| device.reset());
    }

    fn disconnected(&mut self) {
        self.tell(|guest| guest.rings.clear(), |device| device.disconnected());
        *lock(&self.guest) = Guest::default();
        self.lobby.consider();
    }
}
