//! The running process's side: it offers its sockets to whoever may ask, and ends when it is told to.

use std::io;
use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::net::{UnixListener, UnixStream};
use std::path::PathBuf;
use std::sync::{Arc, Mutex, PoisonError};
use std::thread;
use std::time::Duration;

use super::wire::{Link, Message, Received, VERSION};
use super::{is_trusted, key};
use crate::sys::unix_socket::{self, Peer};
use crate::vhost_user::{Listener, Retired};

/// How long a successor may take to say what it wants, or to take it.
const TALK_BOUND: Duration = Duration::from_secs(10);

/// How long a successor may take to make up its mind. Others wait for their turn meanwhile.
const DECISION_BOUND: Duration = Duration::from_secs(60);

/// How long to rest when accepting fails.
const PAUSE: Duration = Duration::from_millis(100);

/// A listening socket that may be handed over: another descriptor of it, and what is known of it.
#[derive(Debug)]
pub(in crate::daemon) struct Offer {
    key: PathBuf,
    socket: OwnedFd,
    file: Option<(u64, u64)>,
}

impl Offer {
    /// Of a listener that stays in use; `None` if it has no path, so that nobody could ask for it.
    pub(in crate::daemon) fn of(listener: &Listener) -> io::Result<Option<Offer>> {
        let Some(path) = address(listener)? else { return Ok(None) };
        let socket = listener.as_fd().try_clone_to_owned()?;
        Ok(Some(Offer { key: key(&path), socket, file: listener.file() }))
    }
}

/// The path of a listener, whoever made it.
fn address(listener: &Listener) -> io::Result<Option<PathBuf>> {
    match listener.path() {
        Some(path) => Ok(Some(path.to_owned())),
        None => unix_socket::bound_path(listener),
    }
}

/// Offers sockets for as long as the process runs. Dropped, it removes the handover socket.
#[derive(Debug)]
pub(in crate::daemon) struct Offering {
    listener: Listener,
    committed: Arc<Mutex<Option<Successor>>>,
}

impl Offering {
    /// Starts the thread. `end` is called when a successor wants this process to end.
    ///
    /// # Errors
    ///
    /// There is no thread or descriptor to be had.
    pub(in crate::daemon) fn start(
        listener: Listener,
        offers: Vec<Offer>,
        end: impl Fn() + Send + 'static,
    ) -> io::Result<Offering> {
        let committed = Arc::new(Mutex::new(None));
        let socket = UnixListener::from(listener.as_fd().try_clone_to_owned()?);
        socket.set_nonblocking(false)?;
        let desk = Desk { handover: Offer::of(&listener)?, offers, socket };
        let slot = Arc::clone(&committed);
        thread::Builder::new().name("vstgt-handover".into()).spawn(move || {
            let successor = desk.attend();
            *slot.lock().unwrap_or_else(PoisonError::into_inner) = Some(successor);
            end();
            // Perhaps the process ends for another reason already. Whoever waits for its end must not be told before.
            std::mem::forget(slot);
        })?;
        Ok(Offering { listener, committed })
    }

    /// The successor that this process ends for, if it is for one that it ends. From now on it is too late for others: they see that the
    /// process has ended when it has.
    pub(in crate::daemon) fn into_successor(self) -> Option<Successor> {
        let successor = self.committed.lock().unwrap_or_else(PoisonError::into_inner).take()?;
        self.listener.leave();
        Some(successor)
    }
}

/// What the thread has.
struct Desk {
    socket: UnixListener,
    handover: Option<Offer>,
    offers: Vec<Offer>,
}

impl Desk {
    /// Attends to one after the other until one wants to take over.
    fn attend(&self) -> Successor {
        loop {
            let stream = match self.socket.accept() {
                Ok((stream, _)) => stream,
                Err(e) => {
                    log::warn!("the handover socket fails: {e}");
                    thread::sleep(PAUSE);
                    continue;
                }
            };
            match self.talk(stream) {
                Ok(Some(successor)) => return successor,
                Ok(None) => {}
                Err(e) => log::warn!("a successor asked, and the conversation failed ({e}); going on"),
            }
        }
    }

    fn talk(&self, stream: UnixStream) -> io::Result<Option<Successor>> {
        let peer = match is_trusted(&stream)? {
            Ok(peer) => peer,
            Err(Peer { pid, uid }) => {
                log::warn!("process {pid} of user {uid} asked for our sockets; refused");
                Link::new(stream).send(&Message::Refused("only its own user and root may ask".into()), None)?;
                return Ok(None);
            }
        };
        let link = Link::new(stream);
        link.set_bound(TALK_BOUND)?;
        let wanted = match link.receive()? {
            Received::Message(Message::Ask(wanted), _) => wanted,
            Received::Version(version) => {
                let why = format!("it speaks version {VERSION} of the handover protocol, not {version}");
                link.send(&Message::Refused(why), None)?;
                return Ok(None);
            }
            Received::Closed => return Ok(None),
            Received::Message(..) => return Err(io::Error::new(io::ErrorKind::InvalidData, "it does not ask")),
        };
        self.offer(&link, &wanted)?;
        log::info!("process {} asked for our sockets", peer.pid);
        link.set_bound(DECISION_BOUND)?;
        match link.receive()? {
            Received::Message(Message::Commit, _) => {
                link.set_bound(TALK_BOUND)?;
                Ok(Some(Successor { link, wanted, pid: peer.pid }))
            }
            Received::Closed => {
                log::info!("process {} does not take over; going on", peer.pid);
                Ok(None)
            }
            _ => Err(io::Error::new(io::ErrorKind::InvalidData, "it does not decide")),
        }
    }

    fn offer(&self, link: &Link, wanted: &[PathBuf]) -> io::Result<()> {
        let (asked, others): (Vec<_>, Vec<_>) = self.offers.iter().partition(|offer| wanted.contains(&offer.key));
        let send = |offer: &Offer, handover| {
            let message = Message::Listener { path: offer.key.clone(), file: offer.file, handover };
            link.send(&message, Some(offer.socket.as_fd()))
        };
        asked.into_iter().try_for_each(|offer| send(offer, false))?;
        self.handover.iter().try_for_each(|offer| send(offer, true))?;
        let others = others.into_iter().map(|offer| offer.key.clone()).collect();
        link.send(&Message::Offered { pid: std::process::id(), others }, None)
    }
}

/// The process that goes on in our place.
#[derive(Debug)]
pub(in crate::daemon) struct Successor {
    link: Link,
    wanted: Vec<PathBuf>,
    pid: i32,
}

impl Successor {
    /// Its process.
    pub(in crate::daemon) fn pid(&self) -> i32 {
        self.pid
    }

    /// Leaves it what it asked for, of what is not served any more, and the connections that have said nothing; closes the rest. What
    /// cannot be sent is closed: its front-end comes again.
    pub(in crate::daemon) fn leave(&self, retired: Vec<Retired>) {
        for Retired { listener, silent } in retired {
            let Some(listener) = listener else { continue };
            let Some(path) = address(&listener).ok().flatten().map(|path| key(&path)) else { continue };
            if !self.wanted.contains(&path) {
                log::warn!("{}: the successor did not ask for this socket; closed", path.display());
                continue;
            }
            listener.leave();
            for stream in silent {
                self.send(&Message::Connection(path.clone()), Some(&stream));
            }
        }
    }

    /// Tells it that nothing is left to be waited for but the end of this process; `drained`: guests' commands have ended, too.
    pub(in crate::daemon) fn ended(&self, drained: bool) {
        self.send(&Message::Ended(drained), None);
    }

    fn send(&self, message: &Message, stream: Option<&UnixStream>) {
        if let Err(e) = self.link.send(message, stream.map(AsFd::as_fd)) {
            log::warn!("the successor (process {}) cannot be told: {e}", self.pid);
        }
    }
}
