//! The device behind one vhost-user connection.

use std::collections::BTreeMap;
use std::collections::btree_map::Entry;
use std::fs::File;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use super::initiator_port::InitiatorPort;
use super::letters::{Late, Letters, Pending};
use super::mail::{Mail, OpenQueue, OpenSession, SessionId};
use super::registrar::{Registrar, Registration};
use crate::mem::{DirtyLog, MemoryMap, UsedRingLog};
use crate::tgt::ItnId;
use crate::vhost_user::{Device, Hangup, RingConfig, StartError};
use crate::virtio_scsi;

static NEXT_SESSION: AtomicU64 = AtomicU64::new(1);

/// How long commands may take to end by themselves when their ring is stopped. Then those that have not begun, and jobs, are
/// ended; what is on its way to or from guest memory is always waited for.
const STOP_PATIENCE: Duration = Duration::from_secs(30);

/// The same when nobody waits for their answers: the connection is over.
const GONE_PATIENCE: Duration = Duration::from_secs(3);

/// One connection of an initiator port. Lives on its session's thread; talks to reactors by mail.
pub struct Connection {
    id: SessionId,
    port: Arc<InitiatorPort>,
    letters: Arc<Letters>,
    registrar: Option<Arc<Registrar>>,
    request_queues: u16,
    hangup: Option<Hangup>,
    map: Arc<MemoryMap>,
    log: Option<Arc<DirtyLog>>,
    itn_id: Option<ItnId>,
    /// Feature bits that the driver acknowledged.
    acked: u64,
    /// No event ring was started since the driver began.
    anew: bool,
    /// Which reactor each running ring is on.
    rings: BTreeMap<u16, u8>,
    /// The reactors that know this connection.
    reactors: Vec<u8>,
    /// Those of them that are to register its memory.
    registrations: BTreeMap<u8, Arc<Registration>>,
}

/// A ring that takes no more chains.
struct Draining {
    ring: u16,
    reactor: u8,
    /// Gets the next available index when nothing of it is touched any more.
    answer: Pending<Option<u16>>,
}

impl Connection {
    /// A connection that has not started rings. `request_queues` is how many it may use; its memory is registered if there is a registrar.
    pub fn new(
        port: Arc<InitiatorPort>,
        letters: Arc<Letters>,
        registrar: Option<Arc<Registrar>>,
        request_queues: u16,
    ) -> Connection {
        Connection {
            id: NEXT_SESSION.fetch_add(1, Ordering::Relaxed),
            port,
            letters,
            registrar,
            request_queues,
            hangup: None,
            map: Arc::default(),
            log: None,
            itn_id: None,
            acked: 0,
            anew: true,
            rings: BTreeMap::new(),
            reactors: Vec::new(),
            registrations: BTreeMap::new(),
        }
    }

    /// Control and event ring are at home, request rings are dealt out from there.
    fn reactor_of(&self, ring: u16) -> u8 {
        let count = u16::from(self.letters.reactors());
        let offset = ring.saturating_sub(virtio_scsi::FIRST_REQUEST_QUEUE);
        ((u16::from(self.port.home()) + offset) % count) as u8
    }

    fn open_on(&mut self, reactor: u8, itn_id: ItnId) {
        if self.reactors.contains(&reactor) {
            return;
        }
        self.reactors.push(reactor);
        let open = OpenSession {
            session: self.id,
            label: Arc::clone(self.port.label()),
            host_no: self.port.host_no(),
            itn_id,
            max_cmds: self.port.max_cmds(),
            map: Arc::clone(&self.map),
            log: self.log.clone(),
            hangup: self.hangup.clone(),
        };
        self.letters.send(reactor, Mail::OpenSession(Box::new(open)));
    }

    /// Lets a ring take no more chains.
    fn begin_stop(&self, ring: u16, reactor: u8) -> Draining {
        let session = self.id;
        let answer = self.letters.begin(reactor, |reply| Mail::CloseQueue { session, ring, reply });
        Draining { ring, reactor, answer }
    }

    /// Lets all rings take no more chains, all at once, so that they drain beside each other.
    fn begin_stop_all(&mut self) -> Vec<Draining> {
        let rings = std::mem::take(&mut self.rings);
        rings.into_iter().map(|(ring, reactor)| self.begin_stop(ring, reactor)).collect()
    }

    /// Waits until nothing of these rings is touched any more; gives back the next available index of the last one.
    fn drain(&self, rings: &[Draining], patience: Duration) -> Option<u16> {
        let deadline = Instant::now() + patience;
        let mut hurried = false;
        let mut next_avail = None;
        for (at, ring) in rings.iter().enumerate() {
            let answer = match ring.answer.wait_until(deadline) {
                Ok(answer) => answer,
                Err(Late) => {
                    if !std::mem::replace(&mut hurried, true) {
                        self.hurry(rings.get(at..).unwrap_or_default());
                    }
                    ring.answer.wait(&format!("commands on ring {} of {} to end", ring.ring, self.port.label()))
                }
            };
            next_avail = answer.flatten();
        }
        next_avail
    }

    fn hurry(&self, rings: &[Draining]) {
        log::warn!("{}: commands take long to end; those that can be aborted are", self.port.label());
        for ring in rings {
            self.letters.send(ring.reactor, Mail::HurryQueue { session: self.id, ring: ring.ring });
        }
    }

    /// Has a reactor with a ring for commands register the memory, if that is wanted.
    fn register_on(&mut self, reactor: u8) {
        let Some(registrar) = &self.registrar else { return };
        if let Entry::Vacant(place) = self.registrations.entry(reactor) {
            let label = Arc::clone(self.port.label());
            place.insert(Registration::new(registrar, self.id, reactor, label)).begin(&self.map);
        }
    }

    /// Forgets the connection on all reactors: their next sight of it may be another nexus or another memory map.
    fn close_sessions(&mut self) {
        let session = self.id;
        self.registrations.clear();
        for reactor in std::mem::take(&mut self.reactors) {
            self.letters.ask(reactor, "a connection to end", |reply| Mail::CloseSession { session, reply });
        }
    }
}

impl Device for Connection {
    fn connected(&mut self, hangup: Hangup) {
        self.hangup = Some(hangup);
    }

    fn features(&self) -> u64 {
        virtio_scsi::OFFERED_FEATURES
    }

    fn request_queues(&self) -> u16 {
        self.request_queues
    }

    fn set_features(&mut self, acked: u64) {
        log::debug!("{}: features acknowledged: {acked:#x}", self.port.label());
        self.acked = acked;
    }

    fn start_ring(&mut self, config: RingConfig) -> Result<(), StartError> {
        let itn_id = self.port.login(self.id, self.hangup.as_ref())?;
        if self.itn_id != Some(itn_id) {
            // The nexus was lost while our rings were stopped, or these are our first.
            self.close_sessions();
            self.itn_id = Some(itn_id);
        }
        let (index, reactor) = (config.index, self.reactor_of(config.index));
        self.open_on(reactor, itn_id);
        let (session, acked) = (self.id, self.acked);
        let anew = index == virtio_scsi::EVENT_QUEUE && std::mem::take(&mut self.anew);
        let open = |reply| Mail::OpenQueue(Box::new(OpenQueue { session, config, acked, anew, reply }));
        let result = self.letters.ask(reactor, "a ring to start", open).unwrap_or(Err(StartError::ShuttingDown));
        match &result {
            Ok(()) => {
                self.rings.insert(index, reactor);
                if index >= virtio_scsi::FIRST_REQUEST_QUEUE {
                    self.register_on(reactor);
                }
            }
            Err(_) if self.rings.is_empty() => self.port.stopped(self.id),
            Err(_) => {}
        }
        result
    }

    fn stop_ring(&mut self, index: u16) -> Option<u16> {
        let reactor = self.rings.remove(&index)?;
        let next = self.drain(&[self.begin_stop(index, reactor)], STOP_PATIENCE);
        if self.rings.is_empty() {
            self.port.stopped(self.id);
        }
        next
    }

    fn set_call(&mut self, index: u16, call: Option<File>) {
        if let Some(&reactor) = self.rings.get(&index) {
            let session = self.id;
            self.letters.ask(reactor, "an interrupt", |reply| Mail::SetCall { session, ring: index, call, reply });
        }
    }

    fn set_err(&mut self, index: u16, err: Option<File>) {
        if let Some(&reactor) = self.rings.get(&index) {
            let session = self.id;
            self.letters.ask(reactor, "an error eventfd", |reply| Mail::SetErr { session, ring: index, err, reply });
        }
    }

    fn set_memory(&mut self, map: Arc<MemoryMap>, gone: bool) {
        self.map = Arc::clone(&map);
        let session = self.id;
        let set = |&reactor: &u8| {
            let map = Arc::clone(&map);
            self.letters.begin(reactor, |reply| Mail::SetMemory { session, map, gone, reply })
        };
        // Waited for even if nothing is gone: once the front-end has its answer, guests use the new memory.
        let asked: Vec<_> = self.reactors.iter().map(set).collect();
        for answer in asked {
            answer.wait("commands that use memory which goes away");
        }
        self.registrations.values().for_each(|registration| registration.begin(&self.map));
    }

    fn set_log(&mut self, log: Option<Arc<DirtyLog>>, rings: &[(u16, UsedRingLog)]) {
        self.log = log;
        let session = self.id;
        let set = |&reactor: &u8| {
            let (log, rings) = (self.log.clone(), rings.to_vec());
            self.letters.begin(reactor, |reply| Mail::SetLog { session, log, rings, reply })
        };
        // Waited for: once the front-end has its answer, it relies on the marks, or on a log being nobody's.
        let asked: Vec<_> = self.reactors.iter().map(set).collect();
        for answer in asked {
            answer.wait("a dirty log to be in force");
        }
    }

    fn reset(&mut self) {
        // First no more commands: one that is taken after the reset would be told of it in place of the next driver.
        let rings = self.begin_stop_all();
        if self.itn_id.is_some() {
            self.port.reset(self.id);
        }
        self.drain(&rings, STOP_PATIENCE);
        self.port.stopped(self.id);
        self.anew = true;
    }

    fn disconnected(&mut self) {
        let rings = self.begin_stop_all();
        self.drain(&rings, GONE_PATIENCE);
        self.close_sessions();
        self.map = Arc::default();
        self.log = None;
        self.port.disconnected(self.id);
    }
}
