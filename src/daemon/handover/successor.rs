//! The new process's side: it asks whoever is there, decides, and waits for the end of its predecessor.

use std::collections::HashMap;
use std::io::{self, ErrorKind};
use std::os::fd::OwnedFd;
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use super::wire::{Link, Message, Received, VERSION};
use super::{HandoverError, is_trusted};
use crate::sys::unix_socket::Peer;
use crate::vhost_user::Listener;

/// How long to wait for what.
#[derive(Clone, Copy, Debug)]
pub(in crate::daemon) struct Bounds {
    /// The predecessor's offer. It may have to attend to another successor first, which may take a minute to decide.
    pub(in crate::daemon) offer: Duration,
    /// Its end, from the time that it was told.
    pub(in crate::daemon) end: Duration,
    /// How often to say that it is still waited for.
    pub(in crate::daemon) patience: Duration,
}

impl Default for Bounds {
    fn default() -> Bounds {
        Bounds {
            offer: Duration::from_secs(90),
            // Three times what its sessions may take to drain.
            end: Duration::from_secs(30),
            patience: Duration::from_secs(5),
        }
    }
}

/// A socket that was offered.
#[derive(Debug)]
struct Handed {
    path: PathBuf,
    socket: OwnedFd,
    file: Option<(u64, u64)>,
}

impl Handed {
    /// `None`: its file is no longer there, or no longer its.
    fn into_listener(self) -> Option<Listener> {
        let path = self.path;
        let shown = path.clone();
        let listener = Listener::going_on(self.socket, self.file.map(|(device, inode)| (path, device, inode)));
        if listener.is_none() {
            log::warn!("{}: the socket that was handed over is not there any more; a new one is made", shown.display());
        }
        listener
    }
}

/// A process that has offered its sockets, and serves.
#[derive(Debug)]
pub(in crate::daemon) struct Predecessor {
    path: PathBuf,
    link: Link,
    pid: u32,
    sockets: HashMap<PathBuf, Handed>,
    handover: Option<Handed>,
}

/// What a successor goes on with.
#[derive(Debug, Default)]
pub(in crate::daemon) struct Taken {
    sockets: HashMap<PathBuf, Listener>,
    silent: HashMap<PathBuf, Vec<UnixStream>>,
    handover: Option<Listener>,
}

impl Taken {
    /// The listener for a socket of this [key](super::key), once.
    pub(in crate::daemon) fn listener(&mut self, key: &Path) -> Option<Listener> {
        self.sockets.remove(key)
    }

    /// The connections to that socket which have said nothing, once.
    pub(in crate::daemon) fn silent(&mut self, key: &Path) -> Vec<UnixStream> {
        self.silent.remove(key).unwrap_or_default()
    }

    /// The handover socket, once.
    pub(in crate::daemon) fn handover(&mut self) -> Option<Listener> {
        self.handover.take()
    }
}

/// Asks the process at `path` for the sockets with these [keys](super::key); `None`: nobody is there.
///
/// # Errors
///
/// There is somebody, and no way to go on in its place.
pub(in crate::daemon) fn ask(
    path: &Path,
    wanted: Vec<PathBuf>,
    bounds: Bounds,
) -> Result<Option<Predecessor>, HandoverError> {
    let failed = |what| move |source| HandoverError::Io { path: path.to_owned(), what, source };
    let stream = match UnixStream::connect(path) {
        Err(e) if matches!(e.kind(), ErrorKind::NotFound | ErrorKind::ConnectionRefused) => return Ok(None),
        connected => connected.map_err(failed("cannot connect"))?,
    };
    is_trusted(&stream)
        .map_err(failed("cannot find out who is there"))?
        .map_err(|Peer { uid, .. }| HandoverError::Stranger { path: path.to_owned(), uid })?;
    let link = Link::new(stream);
    link.set_bound(bounds.offer).map_err(failed("cannot set a bound"))?;
    let refused = |why: String| HandoverError::Refused { path: path.to_owned(), why };
    match link.send(&Message::Ask(wanted), None) {
        Err(e) if e.kind() == ErrorKind::BrokenPipe => return Ok(None),
        asked => asked.map_err(failed("cannot ask"))?,
    }
    let mut predecessor = Predecessor { path: path.to_owned(), link, pid: 0, sockets: HashMap::new(), handover: None };
    loop {
        match predecessor.link.receive().map_err(failed("no answer"))? {
            Received::Message(Message::Listener { path, file, handover }, Some(socket)) => {
                let handed = Handed { path: path.clone(), socket, file };
                if handover {
                    predecessor.handover = Some(handed);
                } else {
                    predecessor.sockets.insert(path, handed);
                }
            }
            Received::Message(Message::Offered { pid, others }, _) => {
                for other in others {
                    log::warn!("{}: process {pid} listens there, and this one will not", other.display());
                }
                predecessor.pid = pid;
                return Ok(Some(predecessor));
            }
            Received::Message(Message::Refused(why), _) => return Err(refused(why)),
            Received::Version(version) => {
                return Err(refused(format!("it speaks version {version} of the handover protocol, not {VERSION}")));
            }
            // It has ended since: nobody is there.
            Received::Closed => return Ok(None),
            Received::Message(..) => return Err(refused("its answer makes no sense".into())),
        }
    }
}

impl Predecessor {
    /// Its process.
    pub(in crate::daemon) fn pid(&self) -> u32 {
        self.pid
    }

    /// Tells it to end, and waits until it has. `waiting` is called every now and then with how long the next wait may be.
    ///
    /// # Errors
    ///
    /// It does not end.
    pub(in crate::daemon) fn take_over(
        self,
        bounds: Bounds,
        waiting: impl Fn(Duration),
    ) -> Result<Taken, HandoverError> {
        let mut silent: HashMap<PathBuf, Vec<UnixStream>> = HashMap::new();
        let pid = self.pid;
        let failed = |source| HandoverError::Io { path: self.path.clone(), what: "cannot wait for its end", source };
        // That it is gone shows when its word is waited for.
        if let Err(e) = self.link.send(&Message::Commit, None) {
            log::debug!("process {pid} cannot be told to end: {e}");
        }
        let start = Instant::now();
        let mut said_ended = false;
        loop {
            let left = bounds.end.saturating_sub(start.elapsed());
            if left.is_zero() {
                let (path, seconds) = (self.path.clone(), bounds.end.as_secs());
                return Err(HandoverError::Hangs { path, pid, seconds });
            }
            let wait = left.min(bounds.patience);
            waiting(wait);
            let received = self.link.set_bound(wait).and_then(|()| self.link.receive());
            match received {
                Ok(Received::Message(Message::Connection(path), Some(socket))) => {
                    silent.entry(path).or_default().push(UnixStream::from(socket));
                }
                Ok(Received::Message(Message::Ended(drained), _)) => {
                    said_ended = true;
                    if !drained {
                        log::warn!("process {pid} ends though commands of its guests hang");
                        // It may hang with them. Whether the images are free, their locks say.
                        break;
                    }
                }
                Ok(Received::Closed) => {
                    if !said_ended {
                        log::warn!("process {pid} ended before it was done; going on as after a kill");
                    }
                    break;
                }
                Err(e) if is_late(&e) => {
                    let seconds = start.elapsed().as_secs();
                    log::warn!("process {pid} has not ended for {seconds} s; kill -9 ends it, this one then goes on");
                }
                Ok(_) => return Err(failed(io::Error::new(ErrorKind::InvalidData, "what it says makes no sense"))),
                Err(e) => return Err(failed(e)),
            }
        }
        log::info!("process {pid} ended after {} ms; this one goes on", start.elapsed().as_millis());
        let sockets = self.sockets.into_iter().filter_map(|(key, handed)| Some((key, handed.into_listener()?)));
        Ok(Taken { sockets: sockets.collect(), silent, handover: self.handover.and_then(Handed::into_listener) })
    }
}

fn is_late(e: &io::Error) -> bool {
    matches!(e.kind(), ErrorKind::WouldBlock | ErrorKind::TimedOut)
}
