//! A reactor: the thread that moves commands.
//!
//! Here are its turn, its mail and its sleep. How long it waits before it sleeps is in `lookout`, how it takes chains is in `pop`, how it publishes answers in `publish`, rings coming and
//! going in `rings`, letters that wait for chains in `judge`; what becomes of a chain in `command`, `answer` and `control`, nexuses in `nexus`.

use std::collections::VecDeque;
use std::io;
use std::os::fd::AsFd;
use std::sync::Arc;
use std::time::{Duration, Instant};

use super::letters::Letters;
use super::lookout::{Asked, Pace};
use super::mail::{Mail, answer};
use super::nexus::Logins;
use super::queue::Queue;
use super::session::Session;
use crate::backing::{Completion, IoPort};
use crate::srp::PortId;
use crate::sys::clock;
use crate::sys::mailbox::{Mailbox, Waker};
use crate::sys::turns::Turns;
use crate::sys::wait::Wait;
use crate::target::Shard;
use crate::tgt::{EventRings, HostNo};

/// The wake-up's token in the wait set; queue numbers are the others.
const WAKER: u64 = u64::MAX;

/// How many letters are read in one turn, so that mail does not starve the rings.
const MAIL_BUDGET: usize = 256;

/// How often rings without a kick are looked at.
const POLL_PERIOD: Duration = Duration::from_millis(1);

/// How long to pause when waiting itself fails, so that a broken system is not made worse.
const FAILURE_PAUSE: Duration = Duration::from_millis(10);

/// One reactor. See the module documentation of [`crate::hba`].
pub struct Reactor {
    pub(super) index: u8,
    pub(super) wait: Box<dyn Wait>,
    turns: Arc<Turns>,
    waker: Arc<Waker>,
    pub(super) mailbox: Mailbox<Mail>,
    /// Letters taken out of the mailbox and not read yet.
    pub(super) letters: Vec<Mail>,
    pub(super) post: Arc<Letters>,
    pub(super) io: IoPort,
    pub(super) shard: Shard,
    pub(super) rings: EventRings,
    /// By place.
    pub(super) sessions: Vec<Option<Session>>,
    /// By number.
    pub(super) queues: Vec<Option<Queue>>,
    /// Places of sessions with queues that may have chains to take, in the order in which it is their turn.
    pub(super) active: VecDeque<usize>,
    /// Places of sessions whose letters may be ready to be read.
    pub(super) to_judge: Vec<usize>,
    /// Queues with used entries to publish.
    pub(super) touched: Vec<u16>,
    /// Queues without a kick.
    pub(super) polled: Vec<u16>,
    /// Queues that are looked at although they have been told not to kick.
    pub(super) hot: Vec<u16>,
    pub(super) pace: Pace,
    asked: Asked,
    /// How many queues there have been.
    pub(super) opened: u16,
    pub(super) logins: Logins,
    /// The target ports: the identifier of each host's.
    pub(super) ports: Vec<(HostNo, PortId)>,
    ready: Vec<u64>,
    pub(super) completions: Vec<Completion>,
    stopping: bool,
}

/// What a reactor is made of.
pub struct Parts {
    /// Its number.
    pub index: u8,
    /// How it sleeps.
    pub wait: Box<dyn Wait>,
    /// Where it says when a turn of it is over.
    pub turns: Arc<Turns>,
    /// Its mail.
    pub mailbox: Mailbox<Mail>,
    /// Everybody's addresses.
    pub post: Arc<Letters>,
    /// Its door to the images.
    pub io: IoPort,
    /// Its part of the target.
    pub shard: Shard,
    /// The rings between it and its shard.
    pub rings: EventRings,
    /// The target ports: the identifier of each host's.
    pub ports: Vec<(HostNo, PortId)>,
    /// How long it looks for work at most, before it sleeps.
    pub poll: Duration,
}

impl Reactor {
    /// A reactor without queues.
    pub fn new(parts: Parts) -> io::Result<Reactor> {
        let waker = Arc::clone(parts.mailbox.waker());
        let mut wait = parts.wait;
        wait.add(waker.as_fd(), WAKER)?;
        Ok(Reactor {
            index: parts.index,
            wait,
            turns: parts.turns,
            waker,
            mailbox: parts.mailbox,
            letters: Vec::new(),
            post: parts.post,
            io: parts.io,
            shard: parts.shard,
            rings: parts.rings,
            sessions: Vec::new(),
            queues: Vec::new(),
            active: VecDeque::new(),
            to_judge: Vec::new(),
            touched: Vec::new(),
            polled: Vec::new(),
            hot: Vec::new(),
            pace: Pace::new(parts.poll),
            asked: Asked::default(),
            opened: 0,
            logins: Logins::default(),
            ports: parts.ports,
            ready: Vec::new(),
            completions: Vec::new(),
            stopping: false,
        })
    }

    /// Turns until it is told to stop and nothing is left to do.
    ///
    /// A turn's answers are published when it ends, so a response to a guest is there once the turn has passed in which it was decided.
    pub fn run(mut self) {
        let (turns, party) = (Arc::clone(&self.turns), usize::from(self.index));
        loop {
            turns.begin(party);
            self.read_mail();
            self.look();
            self.pop_active();
            self.judge();
            self.expire();
            self.settle();
            self.io.advance();
            turns.end(party);
            if self.stopping && self.queues.iter().all(Option::is_none) && self.shard.tasks() == 0 {
                return;
            }
            self.sleep();
        }
    }

    /// Tells the shard that time has passed, if it waits for that.
    fn expire(&mut self) {
        if self.shard.deadline().is_some() {
            self.shard.expire(Instant::now(), &mut self.rings);
            self.drain_events();
        }
    }

    fn read_mail(&mut self) {
        let mut letters = std::mem::take(&mut self.letters);
        while letters.len() < MAIL_BUDGET
            && let Some(mail) = self.mailbox.take()
        {
            letters.push(mail);
        }
        for mail in letters.drain(..) {
            self.receive(mail);
        }
        self.letters = letters;
    }

    pub(super) fn read(&mut self, mail: Mail) {
        match mail {
            Mail::Shard(mail) => {
                if mail.ends_tasks_of_others() {
                    // What is taken from now on is not what was ended, also to a process after this one.
                    let now = clock::nanoseconds_since_boot();
                    self.queues.iter_mut().flatten().for_each(|queue| queue.advance(now));
                }
                self.shard.on_mail(mail, &mut self.io, &mut self.rings);
                self.drain_events();
            }
            Mail::OpenSession(open) => self.open_session(*open),
            Mail::CloseSession { session, reply } => self.close_session(session, reply),
            Mail::OpenQueue(open) => self.open_queue(*open),
            Mail::CloseQueue { session, ring, reply } => self.close_queue(session, ring, reply),
            Mail::HurryQueue { session, ring } => self.hurry_queue(session, ring),
            Mail::SetCall { session, ring, call, reply } => {
                if let Some(queue) = self.queue_of(session, ring) {
                    queue.set_call(call);
                }
                answer(&reply, ());
            }
            Mail::SetErr { session, ring, err, reply } => {
                if let Some(queue) = self.queue_of(session, ring) {
                    queue.set_err(err);
                }
                answer(&reply, ());
            }
            Mail::SetMemory { session, map, gone, reply } => self.set_memory(session, map, gone, reply),
            Mail::RegisterMemory { session, part, reply } => answer(&reply, self.register_memory(session, part)),
            Mail::SetLog { session, log, rings, reply } => {
                self.set_log(session, log, &rings);
                answer(&reply, ());
            }
            Mail::Login(login) => self.login(*login),
            Mail::Logout { host_no, itn_id, reply } => self.logout(host_no, itn_id, reply),
            Mail::ResetNexus { host_no, itn_id, reply } => self.reset_nexus(host_no, itn_id, reply),
            Mail::FindTask { session, id, lun, request } => {
                // One that was answered in this turn is gone, and "not there" may be said only when the guest can see its answer.
                self.publish();
                let tags = self.find_tasks(session, id, lun);
                self.post.send(request.shard(), Mail::FoundTasks { request, tags });
            }
            Mail::FoundTasks { request, tags } => self.on_found(request, tags),
            Mail::Ping(reply) => answer(&reply, ()),
            Mail::Stop => self.stopping = true,
        }
    }

    fn sleep(&mut self) {
        let may_look = self.active.is_empty() && !self.io.has_ended();
        let found = may_look && self.look_out();
        if self.asked.goes_on(found, self.rings.counters().requests) {
            return;
        }
        let falls_asleep = may_look && !found;
        let timeout = if falls_asleep {
            // The order matters: say "asleep", then look once more, then sleep. Whoever puts something in later sees us asleep.
            self.waker.prepare_sleep();
            if let Some(mail) = self.mailbox.take() {
                self.waker.awake();
                self.letters.push(mail);
                self.woke();
                return;
            }
            match (self.io.has_ended(), self.polled.is_empty()) {
                (true, _) => Some(Duration::ZERO),
                (false, false) => Some(POLL_PERIOD),
                (false, true) => self.shard.deadline().map(|at| at.saturating_duration_since(Instant::now())),
            }
        } else {
            Some(Duration::ZERO)
        };
        let mut ready = std::mem::take(&mut self.ready);
        if let Err(e) = self.wait.wait(timeout, &mut ready) {
            log::error!("reactor {}: waiting failed: {e}", self.index);
            std::thread::sleep(FAILURE_PAUSE);
        }
        if falls_asleep {
            self.waker.awake();
        }
        self.woke();
        for token in ready.drain(..) {
            if token == WAKER {
                self.waker.drain();
            } else if let Ok(number) = u16::try_from(token) {
                self.on_kick(number);
            }
        }
        self.ready = ready;
        for at in 0..self.polled.len() {
            if let Some(&number) = self.polled.get(at) {
                self.activate(number);
            }
        }
    }
}
