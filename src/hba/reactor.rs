//! A reactor: the thread that moves commands.

use std::io;
use std::sync::Arc;
use std::time::Duration;

use super::control::Searches;
use super::mail::{Mail, Reply, answer};
use super::nexus::Logins;
use super::queue::{Queue, Role, State};
use super::session::Session;
use crate::backing::{Completion, IoPort};
use crate::sys::mailbox::{Mailbox, Waker};
use crate::sys::wait::Wait;
use crate::target::Shard;
use crate::tgt::{CmdDone, EventRings, KEvent, RxSlot, TxSlot, UEvent};
use crate::vhost_user::StartError;
use crate::virtio_scsi::{Popped, RingSetup, SplitRing};

/// How many chains one queue may bring in one turn, so that a busy guest does not starve the others.
const BUDGET: usize = 128;

/// The wake-up's token in the wait set; queue numbers are the others.
const WAKER: u64 = u64::MAX;

/// One reactor. See the module documentation of [`crate::hba`].
pub struct Reactor {
    pub(super) index: u8,
    pub(super) wait: Box<dyn Wait>,
    pub(super) waker: Arc<Waker>,
    pub(super) mailbox: Mailbox<Mail>,
    pub(super) post: Arc<super::start::Letters>,
    pub(super) io: IoPort,
    pub(super) shard: Shard,
    pub(super) rings: EventRings,
    pub(super) sessions: Vec<Option<Session>>,
    pub(super) queues: Vec<Option<Queue>>,
    pub(super) touched: Vec<u16>,
    pub(super) searches: Searches,
    pub(super) logins: Logins,
    ready: Vec<u64>,
    completions: Vec<Completion>,
    stopping: bool,
}

/// What a reactor is made of.
pub struct Parts {
    /// Its number.
    pub index: u8,
    /// How it sleeps.
    pub wait: Box<dyn Wait>,
    /// Its mail.
    pub mailbox: Mailbox<Mail>,
    /// Everybody's addresses.
    pub post: Arc<super::start::Letters>,
    /// Its door to the images.
    pub io: IoPort,
    /// Its part of the target.
    pub shard: Shard,
    /// The rings between it and its shard.
    pub rings: EventRings,
}

impl Reactor {
    /// A reactor without queues.
    pub fn new(parts: Parts) -> io::Result<Reactor> {
        let waker = Arc::clone(parts.mailbox.waker());
        let mut wait = parts.wait;
        {
            use std::os::fd::AsFd;
            wait.add(waker.as_fd(), WAKER)?;
        }
        Ok(Reactor {
            index: parts.index,
            wait,
            waker,
            mailbox: parts.mailbox,
            post: parts.post,
            io: parts.io,
            shard: parts.shard,
            rings: parts.rings,
            sessions: Vec::new(),
            queues: Vec::new(),
            touched: Vec::new(),
            searches: Searches::default(),
            logins: Logins::default(),
            ready: Vec::new(),
            completions: Vec::new(),
            stopping: false,
        })
    }

    /// Turns until it is told to stop and nothing is left to do.
    pub fn run(mut self) {
        loop {
            while let Some(mail) = self.mailbox.take() {
                self.read(mail);
            }
            let more = self.pop_all();
            self.submit();
            self.settle();
            if self.stopping && self.queues.iter().all(Option::is_none) && self.shard.tasks() == 0 {
                return;
            }
            self.sleep(more);
        }
    }

    /// Carries on whatever can be carried on without new chains or mail: completions, answers, used rings, `CMD_DONE`s.
    fn settle(&mut self) {
        loop {
            let reaped = self.reap();
            self.drain_events();
            if self.touched.is_empty() && !reaped {
                return;
            }
            self.publish();
            self.drain_events();
            self.submit();
        }
    }

    /// Hands what was submitted to the kernel. A ring that refuses now is entered again with the next turn.
    fn submit(&mut self) {
        if let Err(e) = self.io.flush() {
            log::error!("reactor {}: submitting failed: {e}", self.index);
        }
    }

    fn reap(&mut self) -> bool {
        let mut completions = std::mem::take(&mut self.completions);
        self.io.reap(&mut completions);
        let any = !completions.is_empty();
        for completion in completions.drain(..) {
            self.shard.on_completion(completion, &mut self.io, &mut self.rings);
            self.drain_answers();
        }
        self.completions = completions;
        any
    }

    /// Lets the shard take what is on tx and takes what is on rx, until both are empty.
    pub(super) fn drain_events(&mut self) {
        loop {
            let mut any = self.drain_answers();
            while let Some(slot) = self.rings.take_tx() {
                self.shard.on_event(slot, &mut self.io, &mut self.rings);
                self.drain_answers();
                any = true;
            }
            if !any {
                return;
            }
        }
    }

    fn drain_answers(&mut self) -> bool {
        let mut any = false;
        while let Some(slot) = self.rings.take_rx() {
            self.on_answer(slot);
            any = true;
        }
        any
    }

    fn on_answer(&mut self, slot: RxSlot) {
        match slot.event {
            UEvent::CmdRsp(rsp) => self.on_command_answer(rsp, slot.answer.unwrap_or_default()),
            UEvent::TskMgmtRsp(rsp) => self.on_function_answer(rsp),
            UEvent::ItNexusRsp(rsp) => self.on_nexus_answer(rsp),
        }
    }

    /// Posts a request to the shard; if the tx ring is full the shard works it off first.
    pub(super) fn post_request(&mut self, event: KEvent, data: Option<crate::tgt::CmdData>) {
        let mut slot = TxSlot { event, data };
        while let Err((back, _)) = self.rings.post_request(slot) {
            slot = back;
            self.drain_events();
        }
    }

    /// Publishes each ring that got used entries, tells the shard, interrupts the guest.
    fn publish(&mut self) {
        let mut touched = std::mem::take(&mut self.touched);
        for number in touched.drain(..) {
            let Some(queue) = self.queues.get_mut(usize::from(number)).and_then(Option::as_mut) else { continue };
            queue.touched = false;
            if queue.ring.publish() {
                queue.signal();
            }
            let session = queue.session;
            let mut done = std::mem::take(&mut queue.done);
            queue.outstanding = queue.outstanding.saturating_sub(done.len() as u32);
            let role = queue.role;
            if let Some(s) = self.sessions.get_mut(session).and_then(Option::as_mut) {
                if role == Role::Request {
                    for &tag in &done {
                        self.rings.post_done(CmdDone { host_no: s.host_no, result: 0, itn_id: s.itn_id, tag });
                        while let Some(slot) = self.rings.take_tx() {
                            self.shard.on_event(slot, &mut self.io, &mut self.rings);
                        }
                    }
                }
                s.check_memory_waiters();
            }
            done.clear();
            if let Some(queue) = self.queues.get_mut(usize::from(number)).and_then(Option::as_mut) {
                queue.done = done;
            }
            self.finish_draining(number);
        }
        // Answers that came meanwhile may have touched queues again; keep the list's capacity either way.
        touched.append(&mut self.touched);
        self.touched = touched;
    }

    /// Takes chains from every queue that may have some; true if there is more than this turn's share.
    fn pop_all(&mut self) -> bool {
        let mut more = false;
        for number in 0..self.queues.len() {
            if matches!(&self.queues[number], Some(q) if q.more) {
                more |= self.pop_queue(number as u16, BUDGET);
                self.drain_events();
            }
        }
        more
    }

    /// Takes everything the rings of all sessions show.
    pub(super) fn pop_everything(&mut self) {
        for number in 0..self.queues.len() {
            if matches!(&self.queues[number], Some(q) if q.role == Role::Request) {
                while self.pop_queue(number as u16, BUDGET) {
                    self.drain_events();
                }
            }
        }
        self.drain_events();
    }

    /// Takes up to `budget` chains from one queue; true if there are more.
    fn pop_queue(&mut self, number: u16, budget: usize) -> bool {
        let mut left = budget;
        loop {
            let Some(queue) = self.queues.get_mut(usize::from(number)).and_then(Option::as_mut) else { return false };
            if !matches!(queue.state, State::Running) || queue.role == Role::Event {
                queue.more = false;
                return false;
            }
            if left == 0 {
                queue.more = true;
                return true;
            }
            match queue.ring.pop(&mut queue.chain) {
                Ok(Popped::Chain) => {
                    left -= 1;
                    self.on_chain(number, Ok(()));
                }
                Ok(Popped::Malformed(why)) => {
                    left -= 1;
                    self.on_chain(number, Err(why));
                }
                Ok(Popped::Empty) => match queue.ring.enable_kicks() {
                    Ok(true) => queue.ring.disable_kicks(),
                    Ok(false) => {
                        queue.more = false;
                        return false;
                    }
                    Err(e) => return self.break_ring(number, &e.to_string()),
                },
                Err(e) => return self.break_ring(number, &e.to_string()),
            }
        }
    }

    /// Gives a ring up: what the guest wrote there makes no sense. Costs this ring only.
    pub(super) fn break_ring(&mut self, number: u16, why: &str) -> bool {
        let Some(queue) = self.queues.get_mut(usize::from(number)).and_then(Option::as_mut) else { return false };
        queue.more = false;
        if matches!(queue.state, State::Running) {
            queue.state = State::Broken;
            queue.signal_error();
            if let Some(s) = self.sessions.get(queue.session).and_then(Option::as_ref) {
                s.limit.warn(format_args!("{}: ring {} is broken: {why}", s.initiator, queue.ring_index));
            }
        }
        false
    }

    fn read(&mut self, mail: Mail) {
        match mail {
            Mail::Shard(mail) => {
                if mail.needs_pop() {
                    self.pop_everything();
                }
                self.shard.on_mail(mail, &mut self.io, &mut self.rings);
                self.drain_events();
            }
            Mail::OpenSession(open) => {
                let place = self.sessions.iter().position(Option::is_none).unwrap_or(self.sessions.len());
                if place == self.sessions.len() {
                    self.sessions.push(None);
                }
                self.sessions[place] = Some(Session::new(*open));
            }
            Mail::CloseSession { session, reply } => {
                if let Some(place) = self.session_place(session) {
                    let queues = self.sessions[place].as_ref().map(|s| s.queues.clone()).unwrap_or_default();
                    for number in queues {
                        self.drop_queue(number);
                    }
                    self.sessions[place] = None;
                }
                answer(&reply, ());
            }
            Mail::OpenQueue(open) => {
                let result = self.open_queue(open.session, open.config);
                answer(&open.reply, result);
            }
            Mail::CloseQueue { session, ring, reply } => self.close_queue(session, ring, reply),
            Mail::SetCall { session, ring, call } => {
                if let Some(q) = self.queue_of(session, ring) {
                    q.call = call;
                    // What was published while there was no interrupt, or the old one, must not be missed.
                    q.signal();
                }
            }
            Mail::SetErr { session, ring, err } => {
                if let Some(q) = self.queue_of(session, ring) {
                    q.err = err;
                }
            }
            Mail::SetMemory { session, map, reply } => self.set_memory(session, map, reply),
            Mail::Login(login) => self.login(*login),
            Mail::Logout { host_no, itn_id, reply } => self.logout(host_no, itn_id, reply),
            Mail::ResetNexus { host_no, itn_id, reply } => self.reset_nexus(host_no, itn_id, reply),
            Mail::FindTask { session, id, lun, asker, search } => {
                self.pop_everything();
                let tags = self.find_tasks(session, id, lun);
                self.post.send(asker, Mail::FoundTasks { search, tags });
            }
            Mail::FoundTasks { search, tags } => self.on_found(search, tags),
            Mail::Stop => self.stopping = true,
        }
    }

    fn session_place(&self, id: u64) -> Option<usize> {
        self.sessions.iter().position(|s| s.as_ref().is_some_and(|s| s.id == id))
    }

    fn queue_number(&self, session: u64, ring: u16) -> Option<u16> {
        let s = self.sessions.get(self.session_place(session)?)?.as_ref()?;
        let is_it = |n: &&u16| matches!(self.queues.get(usize::from(**n)), Some(Some(q)) if q.ring_index == ring);
        s.queues.iter().find(is_it).copied()
    }

    fn queue_of(&mut self, session: u64, ring: u16) -> Option<&mut Queue> {
        let number = self.queue_number(session, ring)?;
        self.queues.get_mut(usize::from(number))?.as_mut()
    }

    fn open_queue(&mut self, session: u64, config: crate::vhost_user::RingConfig) -> Result<(), StartError> {
        let index = config.index;
        let bad = |what| StartError::BadRing { index, what };
        let place = self.session_place(session).ok_or(StartError::ShuttingDown)?;
        let number = self.queues.iter().position(Option::is_none).unwrap_or(self.queues.len());
        let number = u16::try_from(number).map_err(|_| bad("no queue number is free"))?;
        let Some(s) = self.sessions[place].as_mut() else { return Err(StartError::ShuttingDown) };
        let setup = RingSetup {
            size: config.size,
            desc: config.desc,
            avail: config.avail,
            used: config.used,
            next_avail: config.next_avail,
            next_used: config.next_used,
            event_idx: config.event_idx,
        };
        let mut ring = SplitRing::new(s.snapshots.map(), &setup).map_err(|e| {
            log::warn!("{}: ring {index}: {e}", s.initiator);
            bad("not in guest memory")
        })?;
        let role = Role::of(index);
        if role == Role::Event {
            // Buffers wait here until there is an event; a kick says nothing.
            ring.disable_kicks();
        } else if let Some(kick) = &config.kick {
            use std::os::fd::AsFd;
            self.wait.add(kick.as_fd(), u64::from(number)).map_err(|_| bad("its kick cannot be waited for"))?;
        }
        s.queues.push(number);
        let queue = Queue {
            session: place,
            ring_index: index,
            role,
            ring,
            slots: std::iter::repeat_with(Default::default).take(usize::from(config.size)).collect(),
            chain: Default::default(),
            state: State::Running,
            more: true,
            touched: false,
            done: Vec::with_capacity(usize::from(config.size)),
            outstanding: 0,
            kick: config.kick,
            call: config.call,
            err: config.err,
        };
        log::debug!("{}: ring {index} runs on reactor {} ({role:?}, {} entries)", s.initiator, self.index, config.size);
        if usize::from(number) == self.queues.len() {
            self.queues.push(None);
        }
        self.queues[usize::from(number)] = Some(queue);
        self.shard.open_queue(number, config.size);
        Ok(())
    }

    fn close_queue(&mut self, session: u64, ring: u16, reply: Reply<Option<u16>>) {
        let Some(number) = self.queue_number(session, ring) else {
            answer(&reply, None);
            return;
        };
        if let Some(q) = self.queues[usize::from(number)].as_mut() {
            q.more = false;
            q.state = State::Draining(reply);
        }
        self.finish_draining(number);
    }

    /// Gives a draining queue back once nothing of it is outstanding.
    fn finish_draining(&mut self, number: u16) {
        let Some(Some(q)) = self.queues.get(usize::from(number)) else { return };
        if q.outstanding > 0 {
            return;
        }
        if let State::Draining(reply) = &q.state {
            answer(reply, Some(q.ring.next_avail()));
            self.drop_queue(number);
        }
    }

    fn drop_queue(&mut self, number: u16) {
        let Some(q) = self.queues.get_mut(usize::from(number)).and_then(Option::take) else { return };
        if q.outstanding > 0 {
            log::error!("ring {} was dropped with {} chains outstanding", q.ring_index, q.outstanding);
        }
        if q.kick.is_some()
            && q.role != Role::Event
            && let Err(e) = self.wait.remove(u64::from(number))
        {
            log::error!("cannot stop waiting for a kick: {e}");
        }
        if let Some(Some(s)) = self.sessions.get_mut(q.session) {
            s.queues.retain(|n| *n != number);
        }
        self.shard.close_queue(number);
    }

    fn set_memory(&mut self, session: u64, map: Arc<crate::mem::MemoryMap>, reply: Option<Reply<()>>) {
        let Some(place) = self.session_place(session) else {
            if let Some(reply) = reply {
                answer(&reply, ());
            }
            return;
        };
        let Some(s) = self.sessions[place].as_mut() else { return };
        s.snapshots.replace(Arc::clone(&map));
        s.memory_waiters.extend(reply);
        s.check_memory_waiters();
        for number in s.queues.clone() {
            if let Some(q) = self.queues[usize::from(number)].as_mut()
                && let Err(e) = q.ring.remap(&map)
            {
                let why = e.to_string();
                self.break_ring(number, &why);
            }
        }
    }

    fn sleep(&mut self, more: bool) {
        let timeout = if more {
            Some(Duration::ZERO)
        } else {
            // The order matters: say "asleep", then look once more, then sleep. Whoever puts something in later sees us asleep.
            self.waker.prepare_sleep();
            if let Some(mail) = self.mailbox.take() {
                self.waker.awake();
                self.read(mail);
                return;
            }
            if self.io.has_ended() { Some(Duration::ZERO) } else { None }
        };
        let mut ready = std::mem::take(&mut self.ready);
        if let Err(e) = self.wait.wait(timeout, &mut ready) {
            log::error!("reactor {}: waiting failed: {e}", self.index);
        }
        self.waker.awake();
        for token in ready.drain(..) {
            if token == WAKER {
                self.waker.drain();
            } else if let Some(q) = self.queues.get_mut(token as usize).and_then(Option::as_mut) {
                q.drain_kick();
                q.ring.disable_kicks();
                q.more = true;
            }
        }
        self.ready = ready;
    }
}
