//! Sessions and their rings come and go; their memory changes.

use std::io;
use std::sync::Arc;

use super::mail::{OpenQueue, OpenSession, Reply, SessionId, answer};
use super::queue::{Queue, Role, State};
use super::reactor::Reactor;
use super::session::Session;
use crate::mem::{DirtyLog, MemoryMap, RegionPart, UsedRingLog};
use crate::scsi::HostByte;
use crate::sys::clock;
use crate::target::Notes;
use crate::vhost_user::{InflightNotes, Owed, Recovered, RingConfig, StartError};
use crate::virtio_scsi::{Popped, RingSetup, SplitRing};

/// Spreads the places where generations of tags begin over their range.
const GENERATION_STEP: u16 = 0x2f6b;

/// What the process before this one owes on a ring, the last of it first, and where the ring goes on; and what is wrong with the account of
/// that.
///
/// Whatever was taken is on the used ring or in flight. A front-end that has lost its back-end knows less: QEMU goes on at used.idx. After
/// an orderly stop nothing is in flight, and it says what it was told.
pub(super) fn take_over(config: &mut RingConfig) -> (Vec<Owed>, RingSetup, Option<&'static str>) {
    let recovered = config.inflight.as_mut().map(|inflight| inflight.recover(config.next_used));
    let Recovered { mut owed, defect } = recovered.unwrap_or_default();
    if let Some(inflight) = &mut config.inflight {
        inflight.advance(clock::nanoseconds_since_boot());
    }
    owed.reverse();
    let taken = config.next_used.wrapping_add(owed.len() as u16);
    let setup = RingSetup {
        size: config.size,
        desc: config.desc,
        avail: config.avail,
        used: config.used,
        next_avail: if owed.is_empty() { config.next_avail } else { taken },
        next_used: config.next_used,
        event_idx: config.event_idx,
    };
    (owed, setup, defect)
}

/// Decisions about commands, in the inflight buffer.
#[derive(Debug)]
struct QueueNotes(Arc<InflightNotes>);

impl Notes for QueueNotes {
    fn note(&self, head: u16, decision: u64) {
        self.0.decided(head, decision);
    }
}

impl Reactor {
    pub(super) fn open_session(&mut self, open: OpenSession) {
        let session = Some(Session::new(open));
        match self.sessions.iter_mut().find(|s| s.is_none()) {
            Some(place) => *place = session,
            None => self.sessions.push(session),
        }
    }

    pub(super) fn close_session(&mut self, session: SessionId, reply: Reply<()>) {
        let Some((place, s)) = self.session(session) else {
            answer(&reply, ());
            return;
        };
        s.closing = Some(reply);
        for number in s.queues.clone() {
            self.drain_queue(number, None);
        }
        self.forget_session_if_over(place);
    }

    fn forget_session_if_over(&mut self, place: usize) {
        let Some(session) = self.sessions.get_mut(place) else { return };
        if let Some(mut over) = session.take_if(|s| s.closing.is_some() && s.queues.is_empty()) {
            self.active.retain(|p| *p != place);
            for mail in over.judging.take_all() {
                self.read(mail);
            }
            let reply = over.closing.clone();
            self.io.forget_memory(over.id, |_| false);
            drop(over);
            if let Some(reply) = reply {
                answer(&reply, ());
            }
        }
    }

    /// A session by its name, and its place.
    pub(super) fn session(&mut self, id: SessionId) -> Option<(usize, &mut Session)> {
        let mut sessions = self.sessions.iter_mut().enumerate();
        sessions.find_map(|(place, s)| Some((place, s.as_mut().filter(|s| s.id == id)?)))
    }

    fn queue_number(&mut self, session: SessionId, ring: u16) -> Option<u16> {
        let (_, s) = self.session(session)?;
        let numbers = std::mem::take(&mut s.queues);
        let is_it = |n: &&u16| matches!(self.queues.get(usize::from(**n)), Some(Some(q)) if q.ring_index == ring);
        let number = numbers.iter().find(is_it).copied();
        self.session(session)?.1.queues = numbers;
        number
    }

    /// A session's ring, if it is here.
    pub(super) fn queue_of(&mut self, session: SessionId, ring: u16) -> Option<&mut Queue> {
        let number = self.queue_number(session, ring)?;
        self.queues.get_mut(usize::from(number))?.as_mut()
    }

    pub(super) fn open_queue(&mut self, open: OpenQueue) {
        let role = Role::of(open.config.index);
        let result = self.start_queue(open.session, open.config);
        let (owed, result) = (matches!(result, Ok(owed) if owed > 0), result.map(|_| ()));
        if let (Ok(()), Role::Event, Some((place, session))) = (&result, role, self.session(open.session)) {
            session.events.start(open.acked, open.anew);
            if owed {
                session.events.may_have_missed();
            }
            self.tell_missed(place);
        }
        answer(&open.reply, result);
    }

    /// How many chains the process before this one had taken and not given back.
    fn start_queue(&mut self, session: SessionId, mut config: RingConfig) -> Result<usize, StartError> {
        let index = config.index;
        let bad = |what| StartError::BadRing { index, what };
        let free = self.queues.iter().position(Option::is_none).unwrap_or(self.queues.len());
        let number = u16::try_from(free).map_err(|_| bad("no queue number is free"))?;
        let reactor = self.index;
        let (place, s) = self.session(session).ok_or(StartError::ShuttingDown)?;
        let (owed, setup, defect) = take_over(&mut config);
        let count = owed.len();
        if let Some(defect) = defect {
            s.limit.warn(format_args!("{}: ring {index}: the account of what was in flight {defect}", s.label));
        }
        if count > 0 {
            log::debug!("{}: ring {index}: {count} requests were in flight", s.label);
        }
        let mut ring = SplitRing::new(s.snapshots.map(), &setup).map_err(|e| {
            s.limit.warn(format_args!("{}: ring {index}: {e}", s.label));
            bad("cannot be where it was put")
        })?;
        ring.set_log(config.used_log.clone());
        let role = Role::of(index);
        log::debug!("{}: ring {index} runs on reactor {reactor} ({role:?}, {} entries)", s.label, config.size);
        s.queues.push(number);
        if role == Role::Event {
            // Buffers wait here until there is an event; a kick says nothing until one is missed.
            ring.disable_kicks();
        }
        match (role, &config.kick) {
            (Role::Event, None) => {}
            (_, None) => self.polled.push(number),
            (_, Some(kick)) => {
                use std::os::fd::AsFd;
                if let Err(e) = self.wait.add(kick.as_fd(), u64::from(number)) {
                    log::warn!("ring {index}: its kick cannot be waited for: {e}");
                    self.forget_number(place, number);
                    return Err(bad("its kick cannot be waited for"));
                }
            }
        }
        self.opened = self.opened.wrapping_add(1);
        let queue = Queue::new(place, ring, config, owed, self.opened.wrapping_mul(GENERATION_STEP));
        self.shard.open_queue(number, queue.ring.size());
        if let Some(notes) = queue.notes() {
            self.shard.keep_notes(number, Arc::new(QueueNotes(Arc::clone(notes))));
        }
        if free == self.queues.len() {
            self.queues.push(None);
        }
        self.queues[free] = Some(queue);
        // It may have been kicked before it was ours.
        self.activate(number);
        Ok(count)
    }

    fn forget_number(&mut self, place: usize, number: u16) {
        if let Some(Some(s)) = self.sessions.get_mut(place) {
            s.queues.retain(|n| *n != number);
            s.active.retain(|n| *n != number);
        }
    }

    pub(super) fn close_queue(&mut self, session: SessionId, ring: u16, reply: Reply<Option<u16>>) {
        match self.queue_number(session, ring) {
            Some(number) => self.drain_queue(number, Some(reply)),
            None => answer(&reply, None),
        }
    }

    /// Takes no more chains from a queue, and gives it up when nothing is outstanding.
    fn drain_queue(&mut self, number: u16, reply: Option<Reply<Option<u16>>>) {
        self.take_owed(number);
        let Some(Some(queue)) = self.queues.get_mut(usize::from(number)) else { return };
        queue.state = State::Draining(reply);
        self.clear_mark(number);
        self.finish_draining(number);
    }

    /// Takes at once what the process before this one had taken: an orderly stop leaves nothing in flight.
    fn take_owed(&mut self, number: u16) {
        while let Some(Some(queue)) = self.queues.get_mut(usize::from(number)) {
            if queue.owed.is_empty() {
                return;
            }
            let chain = match queue.pop() {
                Ok(Popped::Chain) => Ok(()),
                Ok(Popped::Malformed(why)) => Err(why),
                Ok(Popped::Empty) => return,
                // It is in memory no more; what is in flight stays so.
                Err(_) => return,
            };
            self.on_chain(number, chain);
            self.drain_events();
        }
    }

    /// Ends what can be ended of a ring's commands, if it drains.
    pub(super) fn hurry_queue(&mut self, session: SessionId, ring: u16) {
        let Some(number) = self.queue_number(session, ring) else { return };
        let draining = matches!(&self.queues[usize::from(number)], Some(q) if matches!(q.state, State::Draining(_)));
        if draining {
            self.shard.abort_queue(number, HostByte::Reset, &mut self.io, &mut self.rings);
            self.drain_events();
        }
    }

    /// Gives a draining queue back once nothing of it is outstanding. From the answer on nothing of it is touched.
    pub(super) fn finish_draining(&mut self, number: u16) {
        let Some(slot) = self.queues.get_mut(usize::from(number)) else { return };
        let Some(queue) = slot.take_if(|q| q.is_idle() && matches!(q.state, State::Draining(_))) else { return };
        if queue.kick().is_some() {
            // It was taken out before if it could not be read.
            if let Err(e) = self.wait.remove(u64::from(number)) {
                log::debug!("ring {}: its kick was not waited for: {e}", queue.ring_index);
            }
        }
        self.polled.retain(|n| *n != number);
        self.shard.close_queue(number);
        self.forget_number(queue.session, number);
        if let Some(Some(s)) = self.sessions.get_mut(queue.session) {
            s.charged = s.charged.saturating_sub(queue.charged());
        }
        let (next_avail, place) = (queue.ring.next_avail(), queue.session);
        let State::Draining(reply) = queue.state else { return };
        drop(queue.ring);
        if let Some(reply) = reply {
            answer(&reply, Some(next_avail));
        }
        self.forget_session_if_over(place);
    }

    /// Puts other dirty logs in force, on rings that drain too.
    pub(super) fn set_log(&mut self, session: SessionId, log: Option<Arc<DirtyLog>>, rings: &[(u16, UsedRingLog)]) {
        let Some((_, s)) = self.session(session) else { return };
        s.snapshots.set_log(log);
        for number in s.queues.clone() {
            let Some(Some(queue)) = self.queues.get_mut(usize::from(number)) else { continue };
            let used = rings.iter().find(|(index, _)| *index == queue.ring_index);
            queue.ring.set_log(used.map(|(_, log)| log.clone()));
        }
    }

    /// Puts a new memory map in force. Chains that are taken from now on are looked up in it.
    pub(super) fn set_memory(&mut self, session: SessionId, map: Arc<MemoryMap>, gone: bool, reply: Reply<()>) {
        self.io.forget_memory(session, |region| map.has(region));
        let Some((place, s)) = self.session(session) else {
            answer(&reply, ());
            return;
        };
        let before = Arc::clone(s.snapshots.map());
        s.snapshots.replace(Arc::clone(&map));
        let numbers = s.queues.clone();
        let mut kept = 0;
        for number in numbers {
            let Some(Some(queue)) = self.queues.get_mut(usize::from(number)) else { continue };
            if gone {
                kept += queue.keep_responses(&before, &map);
            }
            if let Err(e) = queue.ring.remap(&map) {
                self.break_ring(number, &e.to_string());
            }
        }
        let Some(Some(s)) = self.sessions.get_mut(place) else { return };
        s.kept += kept;
        if gone {
            s.memory_waiters.push(reply);
            s.check_memory_waiters();
        } else {
            answer(&reply, ());
        }
    }

    /// Has the ring hold a part of a session's memory, if it is that still.
    pub(super) fn register_memory(&mut self, session: SessionId, part: RegionPart) -> Option<io::Result<()>> {
        let (_, s) = self.session(session)?;
        let is_its_own = s.closing.is_none() && s.snapshots.map().has(part.region());
        is_its_own.then(|| self.io.register(session, part))
    }
}
