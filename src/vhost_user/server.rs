//! All sockets of the process: one thread accepts on all of them, for ever; one thread serves each connection.
//!
//! # Contract
//!
//! * Connections of one socket may overlap: during a migration within one host the two ends do, and a front-end that comes back
//!   may do so before its old connection has been noticed to be dead. In the latter case the new connection is served
//!   when the old one is over, lest the initiator port be found in use by it. At most
//!   [`Options::max_connections`] per socket, then new ones are closed at once; but first those make way, the oldest first, whose front-end
//!   has not said which features it uses. Nobody can keep a socket busy by connecting and saying nothing.
//! * Each socket's connections are taken at a bounded rate; the others wait in the kernel, and the other sockets do not.
//! * A connection of somebody who may not connect ([`Endpoint::peers`]) is closed before anything is read from it.
//! * A connection gets its thread when its front-end says something. Until then nothing has been promised to it, and a process that
//!   goes on in this one's place can go on with it: [`Server::retire`].
//! * [`Server::stop`] closes the listeners (which removes their files), ends all connections and waits, for so long as
//!   it was told, until every device has been [disconnected](Device::disconnected). A front-end that does not read, or has sent
//!   half a message, cannot make it wait: its socket is shut down.

use std::collections::HashMap;
use std::io;
use std::os::fd::{AsFd, AsRawFd};
use std::os::unix::net::UnixStream;
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::thread::{self, JoinHandle};
use std::time::{Duration, Instant};

use vmm_sys_util::epoll::{ControlOperation, Epoll, EpollEvent, EventSet};
use vmm_sys_util::eventfd::{EFD_CLOEXEC, EFD_NONBLOCK, EventFd};

use super::ration::Ration;
use super::{Device, Hangup, Inherited, Listener, Peers, connection};
use crate::sys::rate_limit::RateLimit;
use crate::sys::unix_socket;

/// A session thread's stack: it parses small messages.
const SESSION_STACK: usize = 512 * 1024;

/// How long to leave a listener alone on which accepting failed (for want of descriptors or memory).
const ACCEPT_PAUSE: Duration = Duration::from_millis(100);

/// How long a session that is to make way may take: it has nothing to finish, but it may wait for [`SUCCESSION_BOUND`].
const WAY_BOUND: Duration = Duration::from_millis(20);

/// How long a connection is not served because a dead one of the same socket is not over.
const SUCCESSION_BOUND: Duration = Duration::from_secs(5);

/// How long messages that have come may take to be answered when the process ends.
const ANSWER_BOUND: Duration = Duration::from_millis(200);

/// The epoll datum of the event that ends the acceptor or makes it look around; listeners have their index, silent connections their
/// number added to [`SILENT`].
const WAKE: u64 = u64::MAX;

/// Above all indexes of listeners.
const SILENT: u64 = 1 << 32;

/// How many events are taken at a time. The others come next time.
const EVENTS: usize = 64;

/// Makes the device for a new connection.
pub type MakeDevice = Box<dyn FnMut() -> Box<dyn Device> + Send>;

/// Where one initiator port's front-ends come from.
pub struct Endpoint {
    /// A listener, or one connection.
    pub source: Inherited,
    /// Connections that were made to it already, and have said nothing yet.
    pub silent: Vec<UnixStream>,
    /// Its name in the log and on its threads.
    pub name: String,
    /// What is behind each of its connections.
    pub make_device: MakeDevice,
    /// Who may connect.
    pub peers: Peers,
}

impl Endpoint {
    /// An endpoint that listens.
    pub fn listening(listener: Listener, name: impl Into<String>, make_device: MakeDevice) -> Endpoint {
        let (source, peers) = (Inherited::Listening(listener), Peers::Anybody);
        Endpoint { source, silent: Vec::new(), name: name.into(), make_device, peers }
    }
}

/// What is left of an endpoint that accepts no longer.
#[derive(Debug, Default)]
pub struct Retired {
    /// Its listener, if it was one.
    pub listener: Option<Listener>,
    /// Its connections that have said nothing.
    pub silent: Vec<UnixStream>,
}

/// What a server may be told.
pub struct Options {
    /// Most connections at once of one socket.
    pub max_connections: usize,
    /// Called once, by the thread that notices, when no connection is left and none can come: every endpoint was a
    /// connection and is over.
    pub on_exhausted: Option<Box<dyn FnOnce() + Send>>,
}

impl Default for Options {
    fn default() -> Options {
        Options { max_connections: 8, on_exhausted: None }
    }
}

/// Sessions that did not end in time.
#[derive(Debug, thiserror::Error)]
#[error("connections did not end in time: {}", .0.join(", "))]
pub struct StillRunning(pub Vec<String>);

/// A server that runs.
pub struct Server {
    shared: Arc<Shared>,
    acceptor: Option<JoinHandle<Vec<Retired>>>,
}

struct Shared {
    wake: EventFd,
    state: Mutex<State>,
    /// A session has ended.
    ended: Condvar,
}

#[derive(Default)]
struct State {
    stopping: bool,
    live: HashMap<u64, Live>,
    /// Threads that are over or about to be, to be joined.
    finished: Vec<JoinHandle<()>>,
}

struct Live {
    endpoint: usize,
    name: String,
    hangup: Hangup,
    /// `None` for a moment, while it is being started.
    thread: Option<JoinHandle<()>>,
}

impl Shared {
    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn wake(&self) {
        if let Err(error) = self.wake.write(1) {
            log::trace!("the acceptor is awake already: {error}");
        }
    }

    /// Waits until these sessions are over, or the bound has passed.
    fn wait_for(&self, dead: &[u64], bound: Duration) {
        let alive = |state: &mut State| !state.stopping && dead.iter().any(|id| state.live.contains_key(id));
        drop(self.ended.wait_timeout_while(self.state(), bound, alive).unwrap_or_else(PoisonError::into_inner));
    }

    /// Waits until no session is left.
    fn all_ended(&self, deadline: Instant) -> Result<(), StillRunning> {
        let mut state = self.state();
        while !state.live.is_empty() {
            let left = deadline.saturating_duration_since(Instant::now());
            if left.is_zero() {
                return Err(StillRunning(state.live.values().map(|live| live.name.clone()).collect()));
            }
            state = self.ended.wait_timeout(state, left).unwrap_or_else(PoisonError::into_inner).0;
        }
        Ok(())
    }

    /// Ends the oldest of an endpoint's sessions that is not established, if there is one, and waits a moment until it is over; true if it
    /// is.
    fn make_way(&self, endpoint: usize) -> bool {
        let oldest = {
            let state = self.state();
            let silent = |live: &Live| live.endpoint == endpoint && !live.hangup.is_established();
            let oldest = state.live.iter().filter(|(_, live)| silent(live)).min_by_key(|(id, _)| **id);
            oldest.map(|(id, live)| (*id, live.hangup.clone()))
        };
        let Some((id, hangup)) = oldest else { return false };
        hangup.hang_up("it said nothing, and another front-end came");
        self.wait_for(&[id], WAY_BOUND);
        !self.state().live.contains_key(&id)
    }

    /// How many sessions an endpoint has, and which of them have been left by their front-ends.
    fn siblings(&self, endpoint: usize) -> (usize, Vec<u64>) {
        let state = self.state();
        let siblings = || state.live.iter().filter(|(_, live)| live.endpoint == endpoint);
        let left = siblings().filter(|(_, live)| unix_socket::peer_has_closed(live.hangup.stream()));
        (siblings().count(), left.map(|(id, _)| *id).collect())
    }

    fn join_finished(&self) {
        let finished = std::mem::take(&mut self.state().finished);
        for thread in finished {
            if thread.join().is_err() {
                log::error!("a session thread panicked");
            }
        }
    }
}

/// Takes a session off the list when its thread ends, even by a panic.
struct Ending {
    shared: Arc<Shared>,
    id: u64,
}

impl Drop for Ending {
    fn drop(&mut self) {
        let mut state = self.shared.state();
        let thread = state.live.remove(&self.id).and_then(|live| live.thread);
        state.finished.extend(thread);
        drop(state);
        self.shared.ended.notify_all();
        self.shared.wake();
    }
}

impl Server {
    /// Starts serving. Fails only for want of system resources.
    pub fn start(endpoints: Vec<Endpoint>, options: Options) -> io::Result<Server> {
        let shared = Arc::new(Shared {
            wake: EventFd::new(EFD_NONBLOCK | EFD_CLOEXEC)?,
            state: Mutex::new(State::default()),
            ended: Condvar::new(),
        });
        let acceptor = Acceptor::new(Arc::clone(&shared), endpoints, options)?;
        let thread = thread::Builder::new().name("vstgt-accept".into()).spawn(move || acceptor.run())?;
        Ok(Server { shared, acceptor: Some(thread) })
    }

    /// How many connections there are.
    pub fn connections(&self) -> usize {
        self.shared.state().live.len()
    }

    /// Stops accepting. Gives back what may go on in another process, in the order of the endpoints; what is dropped is closed, and
    /// socket files removed. Connections that have said something are served until [`Server::stop`].
    pub fn retire(&mut self) -> Vec<Retired> {
        self.shared.state().stopping = true;
        self.shared.ended.notify_all();
        self.shared.wake();
        let Some(acceptor) = self.acceptor.take() else { return Vec::new() };
        acceptor.join().unwrap_or_else(|_| {
            log::error!("the acceptor thread panicked");
            Vec::new()
        })
    }

    /// Stops accepting, removes the socket files, ends all connections, and waits at most `bound` for them.
    pub fn stop(mut self, bound: Duration) -> Result<(), StillRunning> {
        drop(self.retire());
        let start = Instant::now();
        self.shared.state().live.values().for_each(|live| live.hangup.shut_reading());
        // Each message that came is answered. A front-end that does not read its answers, or has sent half a message, is not waited for.
        if self.shared.all_ended(start + ANSWER_BOUND.min(bound)).is_err() {
            self.shared.state().live.values().for_each(|live| live.hangup.shut_down());
            self.shared.all_ended(start + bound)?;
        }
        self.shared.join_finished();
        Ok(())
    }
}

impl Drop for Server {
    /// Stops accepting and ends the connections, without waiting for them.
    fn drop(&mut self) {
        drop(self.retire());
        for live in self.shared.state().live.values() {
            live.hangup.shut_down();
        }
    }
}

/// What the acceptor thread owns.
struct Acceptor {
    shared: Arc<Shared>,
    epoll: Epoll,
    endpoints: Vec<Served>,
    max_connections: usize,
    on_exhausted: Option<Box<dyn FnOnce() + Send>>,
    next_id: u64,
    /// Connections that have said nothing yet, by number, each with its endpoint's index.
    silent: HashMap<u64, (usize, UnixStream)>,
}

/// An endpoint in service.
struct Served {
    name: String,
    make_device: MakeDevice,
    peers: Peers,
    listener: Option<Listener>,
    ration: Ration,
    /// When its listener is looked at again, if its ration is used up.
    paused: Option<Instant>,
    /// For what its front-ends make us say.
    limit: Arc<RateLimit>,
    /// For the lines that say that one came.
    comings: RateLimit,
}

impl Acceptor {
    fn new(shared: Arc<Shared>, endpoints: Vec<Endpoint>, options: Options) -> io::Result<Acceptor> {
        let epoll = Epoll::new()?;
        let watch = |fd: &dyn AsRawFd, datum| {
            epoll.ctl(ControlOperation::Add, fd.as_raw_fd(), EpollEvent::new(EventSet::IN, datum))
        };
        watch(&shared.wake, WAKE)?;
        let mut served = Vec::with_capacity(endpoints.len());
        let mut connected = Vec::new();
        for (index, endpoint) in endpoints.into_iter().enumerate() {
            let listener = match endpoint.source {
                Inherited::Listening(listener) => Some(listener),
                Inherited::Connected(stream) => {
                    connected.push((index, stream));
                    None
                }
            };
            connected.extend(endpoint.silent.into_iter().map(|stream| (index, stream)));
            if let Some(listener) = &listener {
                listener.set_nonblocking()?;
                watch(&listener.as_fd(), index as u64)?;
            }
            let limit = Arc::new(RateLimit::per_peer());
            let comings = RateLimit::per_peer();
            let Endpoint { name, make_device, peers, .. } = endpoint;
            let (ration, paused) = (Ration::new(), None);
            served.push(Served { name, make_device, peers, listener, ration, paused, limit, comings });
        }
        let mut acceptor = Acceptor {
            shared,
            epoll,
            endpoints: served,
            max_connections: options.max_connections,
            on_exhausted: options.on_exhausted,
            next_id: 0,
            silent: HashMap::new(),
        };
        for (index, stream) in connected {
            acceptor.await_word(index, stream)?;
        }
        Ok(acceptor)
    }

    fn run(mut self) -> Vec<Retired> {
        self.accept_until_stopped();
        let mut retired: Vec<Retired> = self
            .endpoints
            .into_iter()
            .map(|served| Retired { listener: served.listener, silent: Vec::new() })
            .collect();
        for (index, stream) in self.silent.into_values() {
            if let Some(retired) = retired.get_mut(index) {
                retired.silent.push(stream);
            }
        }
        retired
    }

    fn accept_until_stopped(&mut self) {
        let mut events = vec![EpollEvent::default(); EVENTS];
        loop {
            self.shared.join_finished();
            self.notice_exhaustion();
            let timeout = self.resume();
            let ready = match self.epoll.wait(timeout, &mut events) {
                Ok(n) => n,
                Err(error) if error.kind() == io::ErrorKind::Interrupted => 0,
                Err(error) => {
                    log::error!("waiting for connections failed: {error}");
                    thread::sleep(ACCEPT_PAUSE);
                    0
                }
            };
            if let Err(error) = self.shared.wake.read() {
                log::trace!("not woken: {error}");
            }
            if self.shared.state().stopping {
                return;
            }
            for event in events.iter().take(ready) {
                match event.data() {
                    WAKE => {}
                    index @ ..SILENT => self.accept(index as usize),
                    number => self.heard(number - SILENT),
                }
            }
        }
    }

    /// Looks again at the listeners whose pause is over. How long until the next one's is, in milliseconds; -1: there is none.
    fn resume(&mut self) -> i32 {
        let now = Instant::now();
        let mut timeout = None;
        for (index, served) in self.endpoints.iter_mut().enumerate() {
            let (Some(at), Some(listener)) = (served.paused, &served.listener) else { continue };
            if at > now {
                timeout = Some(timeout.map_or(at, |sooner: Instant| sooner.min(at)));
                continue;
            }
            served.paused = None;
            if let Err(error) = watch(&self.epoll, ControlOperation::Add, listener, index) {
                log::error!("{}: its listener cannot be waited for: {error}", served.name);
            }
        }
        timeout.map_or(-1, |at| i32::try_from((at - now).as_millis()).unwrap_or(i32::MAX).saturating_add(1))
    }

    /// Takes one connection of a listener that has some.
    fn accept(&mut self, index: usize) {
        let Some(served) = self.endpoints.get_mut(index) else { return };
        let Some(listener) = &served.listener else { return };
        if let Err(allowed) = served.ration.take(Instant::now()) {
            match watch(&self.epoll, ControlOperation::Delete, listener, index) {
                Ok(()) => served.paused = Some(allowed),
                Err(error) => log::error!("{}: its listener cannot be left alone: {error}", served.name),
            }
            return;
        }
        match listener.accept() {
            Ok(stream) => {
                if let Err(error) = self.await_word(index, stream)
                    && let Some(served) = self.endpoints.get(index)
                {
                    served.limit.warn(format_args!("{}: cannot wait for a front-end to speak: {error}", served.name));
                }
            }
            Err(error) => match error.kind() {
                io::ErrorKind::WouldBlock | io::ErrorKind::ConnectionAborted | io::ErrorKind::Interrupted => {}
                _ => {
                    served.limit.warn(format_args!("{}: cannot accept: {error}", served.name));
                    thread::sleep(ACCEPT_PAUSE);
                }
            },
        }
    }

    /// Keeps a connection until its front-end says something, if it is one that may connect.
    fn await_word(&mut self, index: usize, stream: UnixStream) -> io::Result<()> {
        let Some(served) = self.endpoints.get(index) else { return Ok(()) };
        if let Some(why) = served.peers.refuse(&stream) {
            served.limit.warn(format_args!("{}: connection closed: {why}", served.name));
            return Ok(());
        }
        let mut silent: Vec<u64> =
            self.silent.iter().filter(|(_, (of, _))| *of == index).map(|(number, _)| *number).collect();
        let count = self.shared.siblings(index).0 + silent.len();
        silent.sort_unstable();
        let made_way = count < self.max_connections
            || match silent.first() {
                // Closed, it is not waited for any more.
                Some(oldest) => self.silent.remove(oldest).is_some(),
                None => self.shared.make_way(index),
            };
        if !made_way {
            served.limit.warn(format_args!("{}: {count} connections already, another one closed", served.name));
            return Ok(());
        }
        let id = self.next_id;
        self.next_id += 1;
        let event = EpollEvent::new(EventSet::IN, SILENT + id);
        self.epoll.ctl(ControlOperation::Add, stream.as_raw_fd(), event)?;
        self.silent.insert(id, (index, stream));
        Ok(())
    }

    /// A silent connection has something to say, or has gone.
    fn heard(&mut self, id: u64) {
        let Some((index, stream)) = self.silent.remove(&id) else { return };
        if let Err(error) = self.epoll.ctl(ControlOperation::Delete, stream.as_raw_fd(), EpollEvent::default()) {
            log::debug!("a connection is not waited for any more, and was not before: {error}");
        }
        // This does not wait: it is readable.
        if matches!(unix_socket::peek(&stream, &mut [0]), Ok(0)) {
            return;
        }
        self.open(index, id, stream);
    }

    /// Starts the thread that serves a connection.
    fn open(&mut self, index: usize, id: u64, stream: UnixStream) {
        let Some(served) = self.endpoints.get_mut(index) else { return };
        let (_, dead) = self.shared.siblings(index);
        let name = served.name.clone();
        let hangup = Hangup::new(stream);
        let device = (served.make_device)();
        let limit = Arc::clone(&served.limit);
        served.comings.log(log::Level::Info, format_args!("{name}: front-end connected (connection {id})"));

        let live = Live { endpoint: index, name: name.clone(), hangup: hangup.clone(), thread: None };
        self.shared.state().live.insert(id, live);
        let ending = Ending { shared: Arc::clone(&self.shared), id };
        let builder = thread::Builder::new().name(thread_name(&name)).stack_size(SESSION_STACK);
        let spawned = builder.spawn(move || {
            ending.shared.wait_for(&dead, SUCCESSION_BOUND);
            connection::serve(&name, &hangup, device, &limit);
            drop(ending);
        });
        match spawned {
            Ok(thread) => {
                let mut state = self.shared.state();
                match state.live.get_mut(&id) {
                    Some(live) => live.thread = Some(thread),
                    None => state.finished.push(thread),
                }
            }
            // The closure is gone by now, and `ending` with it: the session is off the list.
            Err(error) => served.limit.warn(format_args!("{}: no thread for a connection: {error}", served.name)),
        }
    }

    fn notice_exhaustion(&mut self) {
        let none_can_come = self.endpoints.iter().all(|served| served.listener.is_none());
        if none_can_come
            && self.silent.is_empty()
            && self.shared.state().live.is_empty()
            && let Some(call) = self.on_exhausted.take()
        {
            call();
        }
    }
}

fn watch(epoll: &Epoll, operation: ControlOperation, listener: &Listener, index: usize) -> io::Result<()> {
    epoll.ctl(operation, listener.as_fd().as_raw_fd(), EpollEvent::new(EventSet::IN, index as u64))
}

/// The kernel keeps 15 bytes of a thread's name: the end of a socket's name tells more than its beginning.
fn thread_name(name: &str) -> String {
    let skip = name.chars().count().saturating_sub(13);
    let tail: String = name.chars().skip(skip).map(|c| if c == '\0' { '?' } else { c }).collect();
    format!("s:{tail}")
}

#[cfg(test)]
mod tests;
