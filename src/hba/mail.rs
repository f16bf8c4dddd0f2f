//! What may be asked of a reactor.

use std::fs::File;
use std::io;
use std::sync::Arc;
use std::sync::mpsc::SyncSender;

use crate::mem::{DirtyLog, MemoryMap, RegionPart, UsedRingLog};
use crate::scsi::Lun;
use crate::srp;
use crate::target::ShardMail;
use crate::tgt::{HostNo, ItnId, Tag};
use crate::vhost_user::{Hangup, RingConfig, StartError};

/// Names one connection for the life of the process.
pub type SessionId = u64;

/// Where an answer goes. One answer fits, so that giving it never waits.
pub type Reply<T> = SyncSender<T>;

/// Gives an answer; the asker may have gone.
pub fn answer<T>(reply: &Reply<T>, value: T) {
    if reply.try_send(value).is_err() {
        log::debug!("an answer came too late for its asker");
    }
}

/// A letter to a reactor.
pub enum Mail {
    /// For its target shard.
    Shard(ShardMail),
    /// A connection will have rings here.
    OpenSession(Box<OpenSession>),
    /// Forget a connection and its memory. Its rings here should be closed; those that are not are drained first.
    CloseSession {
        /// Whose.
        session: SessionId,
        /// Answered when nothing of it is left.
        reply: Reply<()>,
    },
    /// Take over a ring.
    OpenQueue(Box<OpenQueue>),
    /// Take no more chains from a ring, finish what was taken, give it back.
    CloseQueue {
        /// Whose.
        session: SessionId,
        /// Which ring.
        ring: u16,
        /// Gets the next available index.
        reply: Reply<Option<u16>>,
    },
    /// A ring drains for too long: end what can be ended of its commands.
    HurryQueue {
        /// Whose.
        session: SessionId,
        /// Which ring.
        ring: u16,
    },
    /// Another interrupt for a ring.
    SetCall {
        /// Whose.
        session: SessionId,
        /// Which ring.
        ring: u16,
        /// The eventfd.
        call: Option<File>,
        /// Answered when it is in place: a front-end that sends them faster than they are taken must not pile descriptors up.
        reply: Reply<()>,
    },
    /// Another error eventfd for a ring.
    SetErr {
        /// Whose.
        session: SessionId,
        /// Which ring.
        ring: u16,
        /// The eventfd.
        err: Option<File>,
        /// Answered when it is in place: a front-end that sends them faster than they are taken must not pile descriptors up.
        reply: Reply<()>,
    },
    /// A new memory map.
    SetMemory {
        /// Whose.
        session: SessionId,
        /// The map.
        map: Arc<MemoryMap>,
        /// Whether it lacks memory that the one before had.
        gone: bool,
        /// Answered when the map is in use and, if memory is `gone`, nothing touches that any more.
        reply: Reply<()>,
    },
    /// A part of its memory, to be held by the ring.
    RegisterMemory {
        /// Whose.
        session: SessionId,
        /// The part.
        part: RegionPart,
        /// Whether it is held now, or why it cannot be. `None` if it is not the session's memory any more.
        reply: Reply<Option<io::Result<()>>>,
    },
    /// Other dirty logs, or none.
    SetLog {
        /// Whose.
        session: SessionId,
        /// Where what is written to its memory is marked, but for the used rings.
        log: Option<Arc<DirtyLog>>,
        /// Each ring's, by its index; a ring that is not listed has none.
        rings: Vec<(u16, UsedRingLog)>,
        /// Answered when they are in force: from then on every write is marked there.
        reply: Reply<()>,
    },
    /// An initiator port logs in (home reactor only).
    Login(Box<Login>),
    /// A nexus ends (home reactor only).
    Logout {
        /// The host it is on.
        host_no: HostNo,
        /// Which.
        itn_id: ItnId,
        /// Answered when it is gone.
        reply: Reply<()>,
    },
    /// A nexus is reset, as a device reset demands (home reactor only).
    ResetNexus {
        /// The host it is on.
        host_no: HostNo,
        /// Which.
        itn_id: ItnId,
        /// Answered when all its tasks are over.
        reply: Reply<()>,
    },
    /// Which of your tasks has the guest's id? (from the reactor of a control queue)
    FindTask {
        /// Whose.
        session: SessionId,
        /// The id as the guest gave it.
        id: u64,
        /// The logical unit that the function is about.
        lun: Lun,
        /// The control request that asks; its reactor gets the answer.
        request: Tag,
    },
    /// The answer to [`Mail::FindTask`].
    FoundTasks {
        /// The control request that asked.
        request: Tag,
        /// What was found.
        tags: Vec<Tag>,
    },
    /// Say that you are alive.
    Ping(Reply<()>),
    /// End, when nothing is left to do.
    Stop,
}

/// A connection's place on a reactor.
pub struct OpenSession {
    /// Its name.
    pub session: SessionId,
    /// Its nexus's ports, for the log.
    pub label: Arc<str>,
    /// The host it is on.
    pub host_no: HostNo,
    /// Its nexus.
    pub itn_id: ItnId,
    /// The request limit that its login granted.
    pub max_cmds: u32,
    /// Its memory.
    pub map: Arc<MemoryMap>,
    /// Where what is written to it is marked, but for the used rings.
    pub log: Option<Arc<DirtyLog>>,
    /// Ends the connection.
    pub hangup: Option<Hangup>,
}

/// A ring to take over.
pub struct OpenQueue {
    /// Whose.
    pub session: SessionId,
    /// The ring.
    pub config: RingConfig,
    /// Feature bits that the driver acknowledged.
    pub acked: u64,
    /// The driver's first event ring: what happened before is none of its business.
    pub anew: bool,
    /// Answered when it runs.
    pub reply: Reply<Result<(), StartError>>,
}

/// A login on its way to the target.
pub struct Login {
    /// The information unit.
    pub request: srp::LoginReq,
    /// The host it goes to.
    pub host_no: HostNo,
    /// The name that the nexus will have.
    pub itn_id: ItnId,
    /// How many commands the initiator may have outstanding.
    pub max_cmds: u32,
    /// Gets LOGIN_RSP or LOGIN_REJ.
    pub reply: Reply<srp::LoginAnswer>,
}
