//! Everything behind the sockets: images, state, units, target, reactors.

use std::path::{Path, PathBuf};
use std::sync::mpsc::Receiver;
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use super::space::Watch;
use super::{Error, hosts, images, nexuses, register_memory, units, wait_kind};
use crate::backing::Image;
use crate::config::{Config, UnitConfig};
use crate::device_server;
use crate::hba::{Hba, HbaSetup, TargetPortSetup};
use crate::lu::Lu;
use crate::srp::PortId;
use crate::state_dir::{KeptUnit, StateDir, Writer};
use crate::sys::background::Threads;
use crate::target::{HostSetup, Target, TargetSetup, UnitMapping};
use crate::vhost_user::MakeDevice;

/// Units with the names of their images.
pub(super) type Units = Arc<[(PathBuf, Arc<Lu>)]>;

/// How long whoever still has an image or a state file may take to let go of it when they are handed over.
const LET_GO: Duration = Duration::from_secs(5);

/// What is opened by name.
pub(super) struct Parts {
    images: Vec<Arc<dyn Image>>,
    state_dir: Option<StateDir>,
    background: Arc<Threads>,
    units: Vec<UnitMapping>,
    kept: Vec<KeptUnit>,
}

impl Parts {
    /// Opens images and restores state. No thread is started.
    pub(super) fn open(config: &Config) -> Result<Parts, Error> {
        let images = images(config)?;
        let state_dir = StateDir::open(&config.state_dir)?;
        let background = Arc::new(Threads::new("vstgt-background"));
        let (units, kept) = units(config, &images, state_dir.as_ref(), &background)?;
        Ok(Parts { images, state_dir, background, units, kept })
    }

    /// Where state is kept.
    pub(super) fn state_dir(&self) -> Option<&Path> {
        self.state_dir.as_ref().map(StateDir::path)
    }

    /// Starts reactors.
    pub(super) fn start(self, config: &Config) -> Result<Core, Error> {
        let Parts { images, state_dir, background, units, kept } = self;
        let of_unit = |(of, unit): (&UnitConfig, &UnitMapping)| (of.file.clone(), Arc::clone(&unit.lu));
        let lus: Units = config.units.iter().zip(&units).map(of_unit).collect();
        let names =
            config.endpoints.iter().map(|e| (PortId::of_initiator(&e.initiator).0, e.initiator.clone())).collect();
        let setup = TargetSetup { shards: config.reactors, hosts: hosts(config), units, names, patience: None };
        let target = Target::new(setup)?;
        let wait = wait_kind(config.wait)?;
        let hba = Hba::start(HbaSetup {
            reactors: config.reactors,
            wait,
            target,
            target_ports: hosts(config)
                .into_iter()
                .map(|HostSetup { host_no, name, .. }| TargetPortSetup { name, host_no })
                .collect(),
            request_queues: config.num_queues,
            nexus_loss_timeout: config.nexus_loss_timeout,
            poll: config.poll,
            register_memory: register_memory(config, wait),
            trace_events: config.trace_events,
        })?;
        let start = |dir| Writer::start(dir, kept, &hba.turns(), config.nexus_loss_timeout);
        let writer = state_dir.as_ref().map(start).transpose()?;
        let watched = lus.iter().map(|(file, lu)| (Arc::clone(lu), file.display().to_string()));
        let watch = Watch::start(watched).map_err(|source| Error::System { what: "cannot start a thread", source })?;
        lus.iter().for_each(|(_, lu)| device_server::go_on(lu));
        Ok(Core { images, lus, hba, writer, watch, background })
    }
}

/// Everything behind the sockets, running.
pub(super) struct Core {
    images: Vec<Arc<dyn Image>>,
    lus: Units,
    hba: Hba,
    writer: Option<Writer>,
    watch: Option<Watch>,
    background: Arc<Threads>,
}

impl Core {
    /// The units.
    pub(super) fn units(&self) -> Units {
        Arc::clone(&self.lus)
    }

    /// Asks every reactor for a sign of life, see [`Watchdog`](super::notify::Watchdog).
    pub(super) fn pings(&self) -> impl Fn() -> Vec<Receiver<()>> + Send + use<> {
        self.hba.pings()
    }

    /// What is behind each socket, in the order of their configuration: its name and how its devices are made.
    pub(super) fn devices(&self, config: &Config) -> Vec<(String, MakeDevice)> {
        let ports = self.hba.add_ports(&nexuses(config));
        ports.into_iter().map(|port| (port.label().to_string(), self.hba.connect(port))).collect()
    }

    /// From here on connections end because the process, or this part of it, does: nexuses outlast them. Commands that wait for what runs in
    /// the background are to end, too.
    pub(super) fn ends(&self) {
        self.hba.keep_nexuses();
        self.background.stop();
    }

    /// Ends it. To be called when no session is left, unless they are `undrained`.
    pub(super) fn stop(self, config: &Config, undrained: bool) {
        // If nothing was served it runs still. It is not to outlast the state that is kept.
        self.background.stop();
        if !undrained {
            // Before the state is written for the last time: that an image cannot be flushed is part of it.
            flush(&self.images, config);
        }
        if let Some(watch) = self.watch {
            watch.stop();
        }
        if let Some(writer) = self.writer {
            writer.stop();
        }
        if undrained {
            // Reactors still own guests' commands: to wait for them would be to wait for ever. Nothing that was answered is lost
            // with them, for what was promised to be durable is.
            return;
        }
        self.hba.stop();
    }

    /// Ends it, so that another process can take images and state, perhaps on another host. To be called when no session is left.
    pub(super) fn hand_over(self, config: &Config) {
        let Core { images, lus, hba, writer, watch, background } = self;
        background.stop();
        flush(&images, config);
        if let Some(watch) = watch {
            watch.stop();
        }
        if let Some(writer) = writer {
            writer.hand_over();
        }
        hba.stop();
        drop(lus);
        // Units hold their images, and units are held by whoever does something for them on a thread of his own.
        let until = Instant::now() + LET_GO;
        while images.iter().any(|image| Arc::strong_count(image) > 1) {
            if Instant::now() >= until {
                log::error!("something still uses the images; another vstgt may not be able to take them");
                return;
            }
            std::thread::sleep(Duration::from_millis(1));
        }
    }
}

fn flush(images: &[Arc<dyn Image>], config: &Config) {
    for (image, unit) in images.iter().zip(&config.units) {
        if !image.capabilities().read_only
            && let Err(e) = image.flush()
        {
            log::error!("{}: {e}", unit.file.display());
        }
    }
}

/// What makes devices, where several threads may want one.
pub(super) type SharedMaker = Mutex<MakeDevice>;
