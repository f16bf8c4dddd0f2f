//! A connection as one reactor sees it: its memory and its rings here.

use std::collections::VecDeque;
use std::sync::Arc;

use super::events::Events;
use super::judge::Judging;
use super::mail::{OpenSession, Reply, SessionId, answer};
use super::queue::Command;
use crate::mem::{DirtyLog, GuestWriter, IoBuf, MemoryMap, SnapshotSet};
use crate::srp::Credit;
use crate::sys::rate_limit::RateLimit;
use crate::tgt::{HostNo, ItnId};
use crate::vhost_user::Hangup;

/// Descriptors and pieces for which commands of one connection may keep memory on one reactor while they are idle: 64 MiB. A guest
/// with 64 queues of 128 on it, each command with all the segments that QEMU offers, needs less.
const KEPT_MAX: usize = 4 << 20;

/// The same with those under way; what comes on top is told that the task set is full. One table of descriptors, made
/// available again and again, must not cost memory for each time.
const CHARGED_MAX: usize = 2 * KEPT_MAX;

/// One connection on one reactor.
pub struct Session {
    /// Its name.
    pub id: SessionId,
    /// Its nexus's ports, for the log.
    pub label: Arc<str>,
    /// The host it is on.
    pub host_no: HostNo,
    /// Its nexus.
    pub itn_id: ItnId,
    /// Its memory, and what is still used of earlier maps.
    pub snapshots: SnapshotSet,
    /// Requests whose response goes to an earlier map.
    pub kept: usize,
    /// Numbers of its queues on this reactor.
    pub queues: Vec<u16>,
    /// Those of them that may have chains to take, in the order in which it is their turn.
    pub active: VecDeque<u16>,
    /// Listed among the reactor's sessions with such queues.
    pub listed: bool,
    /// Letters that judge its commands; see [`super::judge`].
    pub judging: Judging,
    /// Who waits until nothing touches memory that is gone.
    pub memory_waiters: Vec<Reply<()>>,
    /// Who waits until nothing of it is left: then it goes with its last queue.
    pub closing: Option<Reply<()>>,
    /// What it can be told without having asked.
    pub events: Events,
    /// Ends the connection.
    pub hangup: Option<Hangup>,
    /// The request limit that the login granted, for the rings here.
    pub credit: Credit,
    /// Budget for log lines that the guest causes.
    pub limit: RateLimit,
    /// Descriptors and pieces for which its commands keep memory, in all.
    pub charged: usize,
}

impl Session {
    /// A connection without rings yet.
    pub fn new(open: OpenSession) -> Session {
        let mut snapshots = SnapshotSet::new(open.map);
        snapshots.set_log(open.log);
        Session {
            id: open.session,
            label: open.label,
            host_no: open.host_no,
            itn_id: open.itn_id,
            snapshots,
            kept: 0,
            queues: Vec::new(),
            active: VecDeque::new(),
            listed: false,
            judging: Judging::default(),
            memory_waiters: Vec::new(),
            closing: None,
            events: Events::default(),
            hangup: open.hangup,
            credit: Credit::new(open.max_cmds),
            limit: RateLimit::per_peer(),
            charged: 0,
        }
    }

    /// Writes responses: to the map that was kept for one, or to the current one.
    pub fn writer_to<'a>(&'a self, kept: Option<&'a Arc<MemoryMap>>) -> GuestWriter<'a> {
        self.snapshots.writer_to(kept.unwrap_or(self.snapshots.map()))
    }

    /// Charges a command with what it keeps, with `buf` under way; false if that is too much for one guest.
    pub fn charge(&mut self, command: &mut Command, buf: &IoBuf) -> bool {
        self.recount(command, command.footprint(buf));
        self.charged <= CHARGED_MAX
    }

    /// A command is over: it keeps its memory for the next one, unless all together keep much.
    pub fn settle(&mut self, command: &mut Command) {
        if self.charged > KEPT_MAX {
            command.shrink();
        }
        self.recount(command, command.footprint(&command.spare));
    }

    fn recount(&mut self, command: &mut Command, now: usize) {
        self.charged = self.charged.saturating_sub(command.charged).saturating_add(now);
        command.charged = now;
    }

    /// Answers those who wait for memory, if it is free.
    pub fn check_memory_waiters(&mut self) {
        if !self.memory_waiters.is_empty() && self.kept == 0 && !self.snapshots.in_use_outside() {
            for reply in self.memory_waiters.drain(..) {
                answer(&reply, ());
            }
        }
    }

    /// Ends the connection if the guest's memory turned out to be gone; true if it did.
    pub fn hang_up_if_poisoned(&self) -> bool {
        let why = if self.snapshots.map().poisoned() {
            "the file behind its guest memory was shrunk"
        } else if self.snapshots.log().is_some_and(DirtyLog::poisoned) {
            "the file behind its dirty log was shrunk"
        } else {
            return false;
        };
        if let Some(hangup) = self.hangup.as_ref().filter(|h| h.reason().is_none()) {
            hangup.hang_up(why);
        }
        true
    }
}
