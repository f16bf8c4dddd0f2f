//! The device behind one vhost-user connection.

use std::collections::BTreeMap;
use std::fs::File;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use super::initiator_port::InitiatorPort;
use super::mail::{Mail, OpenQueue, OpenSession, SessionId};
use super::start::Letters;
use crate::mem::MemoryMap;
use crate::tgt::ItnId;
use crate::vhost_user::{Device, Hangup, RingConfig, StartError};
use crate::virtio_scsi;

static NEXT_SESSION: AtomicU64 = AtomicU64::new(1);

/// One connection of an initiator port. Lives on its session's thread; talks to reactors by mail.
pub struct Connection {
    id: SessionId,
    port: Arc<InitiatorPort>,
    letters: Arc<Letters>,
    request_queues: u16,
    hangup: Option<Hangup>,
    map: Arc<MemoryMap>,
    itn_id: Option<ItnId>,
    /// Which reactor each running ring is on.
    rings: BTreeMap<u16, u8>,
    /// The reactors that know this connection.
    reactors: Vec<u8>,
}

impl Connection {
    /// A connection that has not started rings. `request_queues` is how many it may use.
    pub fn new(port: Arc<InitiatorPort>, letters: Arc<Letters>, request_queues: u16) -> Connection {
        Connection {
            id: NEXT_SESSION.fetch_add(1, Ordering::Relaxed),
            port,
            letters,
            request_queues,
            hangup: None,
            map: Arc::default(),
            itn_id: None,
            rings: BTreeMap::new(),
            reactors: Vec::new(),
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
            initiator: Arc::clone(self.port.name()),
            host_no: self.port.host_no(),
            itn_id,
            max_cmds: self.port.max_cmds(),
            map: Arc::clone(&self.map),
            hangup: self.hangup.clone(),
        };
        self.letters.send(reactor, Mail::OpenSession(Box::new(open)));
    }

    fn stop_all(&mut self) {
        // All at once, so that they drain beside each other.
        let session = self.id;
        let asked: Vec<_> = std::mem::take(&mut self.rings)
            .into_iter()
            .map(|(ring, reactor)| self.letters.begin(reactor, |reply| Mail::CloseQueue { session, ring, reply }))
            .collect();
        for answer in asked {
            answer.wait("a ring to drain");
        }
        self.port.stopped(self.id);
    }

    /// Forgets the connection on all reactors: their next sight of it may be another nexus or another memory map.
    fn close_sessions(&mut self) {
        let session = self.id;
        for reactor in std::mem::take(&mut self.reactors) {
            self.letters.ask(reactor, |reply| Mail::CloseSession { session, reply });
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
        log::debug!("{}: features acknowledged: {acked:#x}", self.port.name());
    }

    fn start_ring(&mut self, config: RingConfig) -> Result<(), StartError> {
        let itn_id = self.port.login(self.id)?;
        if self.itn_id != Some(itn_id) {
            // The nexus was lost while our rings were stopped, or these are our first.
            self.close_sessions();
            self.itn_id = Some(itn_id);
        }
        let (index, reactor) = (config.index, self.reactor_of(config.index));
        self.open_on(reactor, itn_id);
        let session = self.id;
        let open = |reply| Mail::OpenQueue(Box::new(OpenQueue { session, config, reply }));
        let result = self.letters.ask(reactor, open).unwrap_or(Err(StartError::ShuttingDown));
        match &result {
            Ok(()) => {
                self.rings.insert(index, reactor);
            }
            Err(_) if self.rings.is_empty() => self.port.stopped(self.id),
            Err(_) => {}
        }
        result
    }

    fn stop_ring(&mut self, index: u16) -> Option<u16> {
        let reactor = self.rings.remove(&index)?;
        let session = self.id;
        let next = self.letters.begin(reactor, |reply| Mail::CloseQueue { session, ring: index, reply });
        let next = next.wait("a ring to drain").flatten();
        if self.rings.is_empty() {
            self.port.stopped(self.id);
        }
        next
    }

    fn set_call(&mut self, index: u16, call: Option<File>) {
        if let Some(&reactor) = self.rings.get(&index) {
            self.letters.send(reactor, Mail::SetCall { session: self.id, ring: index, call });
        }
    }

    fn set_err(&mut self, index: u16, err: Option<File>) {
        if let Some(&reactor) = self.rings.get(&index) {
            self.letters.send(reactor, Mail::SetErr { session: self.id, ring: index, err });
        }
    }

    fn set_memory(&mut self, map: Arc<MemoryMap>, gone: bool) {
        self.map = Arc::clone(&map);
        let session = self.id;
        let mut asked = Vec::new();
        for &reactor in &self.reactors {
            let map = Arc::clone(&map);
            if gone {
                let mail = |reply| Mail::SetMemory { session, map, reply: Some(reply) };
                asked.push(self.letters.begin(reactor, mail));
            } else {
                self.letters.send(reactor, Mail::SetMemory { session, map, reply: None });
            }
        }
        for answer in asked {
            answer.wait("commands that use memory which goes away");
        }
    }

    fn reset(&mut self) {
        if self.itn_id.is_some() {
            self.port.reset(self.id);
        }
        self.stop_all();
    }

    fn disconnected(&mut self) {
        self.stop_all();
        self.close_sessions();
        self.map = Arc::default();
        self.port.disconnected(self.id);
    }
}
