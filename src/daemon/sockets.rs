//! The sockets of the process, wherever they come from: the command line, the service manager, a predecessor.

use std::path::PathBuf;
use std::time::Duration;

use super::Error;
use super::activation::Activation;
use super::handover::{self, Bounds, HandoverError, Offer, Offering, Taken, key};
use super::notify::Notifier;
use crate::config::{Config, EndpointConfig, SocketConfig};
use crate::sys::signals::Termination;
use crate::sys::unix_socket;
use crate::vhost_user::{DEFAULT_MODE, Endpoint, Inherited, Listener, MakeDevice};

/// How much longer than a wait may take the service manager is told that starting takes.
const MARGIN: Duration = Duration::from_secs(20);

/// What there is before anything is served.
#[derive(Debug)]
pub(super) struct Sockets {
    /// Each in its endpoint's place.
    inherited: Vec<Option<Inherited>>,
    taken: Taken,
    /// Where successors ask.
    handover: Option<Listener>,
}

impl Sockets {
    /// Takes what this process was started with. To be called before anything is opened: what a number means then is not what it
    /// meant to whoever gave it.
    pub(super) fn inherited(config: &Config) -> Result<Sockets, Error> {
        let mut activation = Activation::from_environment()?;
        let mut take = |e: &EndpointConfig| -> Result<Option<Inherited>, Error> {
            let passed = match &e.socket {
                SocketConfig::Path(path) => activation.by_path(path),
                SocketConfig::Named(name) => Some(activation.by_name(name)?),
                SocketConfig::Fd(number) => match activation.by_number(*number) {
                    None => return Ok(Some(Inherited::take(*number)?)),
                    passed => passed,
                },
            };
            Ok(passed.map(Inherited::from_fd).transpose()?)
        };
        let inherited = config.endpoints.iter().map(&mut take).collect::<Result<_, _>>()?;
        activation.finish()?;
        Ok(Sockets { inherited, taken: Taken::default(), handover: None })
    }

    /// If a process runs where `--handover` says: ends it, and goes on with its sockets. Before it is told to end `rehearse` has to find
    /// that this process can do what it is to do; until then nothing changes for it.
    pub(super) fn succeed(
        &mut self,
        config: &Config,
        notifier: &Notifier,
        rehearse: impl FnOnce() -> Result<(), Error>,
    ) -> Result<(), Error> {
        let Some(path) = &config.handover else { return Ok(()) };
        let wanted = |(e, inherited): (&EndpointConfig, &Option<Inherited>)| match (&e.socket, inherited) {
            (SocketConfig::Path(path), None) => Some(key(path)),
            _ => None,
        };
        let wanted: Vec<_> = config.endpoints.iter().zip(&self.inherited).filter_map(wanted).collect();
        let bounds = Bounds::default();
        notifier.extend_start(bounds.offer + MARGIN);
        let Some(predecessor) = handover::ask(path, wanted, bounds)? else { return Ok(()) };
        rehearse()?;
        notifier.status(&format!("taking over from process {}", predecessor.pid()));
        self.taken = predecessor.take_over(bounds, |wait| notifier.extend_start(wait + MARGIN))?;
        Ok(())
    }

    /// Binds what is not open yet. Who connects from here on waits until all is up.
    pub(super) fn bind(&mut self, config: &Config) -> Result<(), Error> {
        for (at, e) in config.endpoints.iter().enumerate() {
            let Some(place @ None) = self.inherited.get_mut(at) else { continue };
            if let SocketConfig::Path(path) = &e.socket {
                let listener = match self.taken.listener(&key(path)) {
                    Some(listener) => listener,
                    None => Listener::bind_for(path, e.access.mode, e.access.group)?,
                };
                *place = Some(Inherited::Listening(listener));
            }
        }
        if let Some(path) = &config.handover {
            self.handover = match self.taken.handover() {
                Some(listener) => Some(listener),
                None => Some(Listener::bind(path, DEFAULT_MODE)?),
            };
        }
        Ok(())
    }

    /// What has been bound, with what is behind it: `devices` in the order of the configuration. With `--handover` successors are attended to from now on.
    pub(super) fn open(
        mut self,
        config: &Config,
        devices: Vec<(String, MakeDevice)>,
    ) -> Result<(Vec<Endpoint>, Option<Offering>), Error> {
        let mut endpoints = Vec::new();
        let sources = std::mem::take(&mut self.inherited);
        for (((name, make_device), e), source) in devices.into_iter().zip(&config.endpoints).zip(sources) {
            // All are there: those without a path were inherited.
            let Some(source) = source else { continue };
            let silent = path_of(&source).map(|path| self.taken.silent(&key(&path))).unwrap_or_default();
            endpoints.push(Endpoint { source, silent, name, make_device, peers: e.access.peers.clone() });
        }
        let (Some(path), Some(listener)) = (&config.handover, self.handover.take()) else {
            return Ok((endpoints, None));
        };
        let failed = |source| HandoverError::Io { path: path.clone(), what: "cannot offer the sockets", source };
        let mut offers = Vec::new();
        for endpoint in &endpoints {
            if let Inherited::Listening(listener) = &endpoint.source {
                offers.extend(Offer::of(listener).map_err(failed)?);
            }
        }
        let offering = Offering::start(listener, offers, Termination::raise).map_err(failed)?;
        Ok((endpoints, Some(offering)))
    }
}

/// Where a socket listens, if it does and has a path.
fn path_of(source: &Inherited) -> Option<PathBuf> {
    match source {
        Inherited::Listening(listener) => match listener.path() {
            Some(path) => Some(path.to_owned()),
            None => unix_socket::bound_path(listener).ok().flatten(),
        },
        Inherited::Connected(_) => None,
    }
}
