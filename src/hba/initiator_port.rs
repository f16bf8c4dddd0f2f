//! An initiator port: the configured identity behind a socket, and the life of its I_T nexus.
//!
//! The nexus is (initiator port, target port), not the connection:
//!
//! | event | nexus | unit attention |
//! |---|---|---|
//! | first ring start, port idle | created (LOGIN → IT_NEXUS_REQ → RSP) | 29h/00h |
//! | rings stopped and started again on one connection | unchanged | none |
//! | RESET_DEVICE after a start | its tasks ended | 29h/07h |
//! | stopped, then another connection of the port starts | handed over | none |
//! | connection lost, nobody starts within the nexus loss time | destroyed; made anew at the next start | 29h/07h |
//! | rings start while another live connection runs | LOGIN_REJ | – |
//!
//! A connection whose other end is closed is not live, even while its session has not noticed or its commands have not ended: the
//! next one waits for that. Its guest may send again what was under way; the old command must not come after the new one.

use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use super::letters::Letters;
use super::losses::Losses;
use super::mail::{Login, Mail, SessionId};
use crate::srp::{self, PortId};
use crate::sys::rate_limit::RateLimit;
use crate::tgt::{HostNo, ItnId};
use crate::vhost_user::{Hangup, StartError};

/// Bits of an `itn_id` that hold the initiator port's number; the rest counts its nexuses.
const PORT_BITS: u32 = 16;

/// The information unit length that a login asks for, in bytes: a CMD with as many descriptors as a ring has.
const LOGIN_IU_LEN: u32 = 4096;

/// An initiator port.
pub struct InitiatorPort {
    name: String,
    target_name: String,
    /// Both names, for the log.
    label: Arc<str>,
    id: PortId,
    number: u16,
    host_no: HostNo,
    target_port: PortId,
    max_cmds: u32,
    home: u8,
    letters: Arc<Letters>,
    losses: Arc<Losses>,
    /// Budget for log lines that front-ends cause.
    limit: RateLimit,
    state: Mutex<State>,
    /// The owner's rings do not run any more.
    stopped: Condvar,
}

/// How long a connection waits for the commands of the one before.
const LOGIN_PATIENCE: Duration = Duration::from_secs(5);

#[derive(Default)]
struct State {
    /// The nexus, while it exists.
    nexus: Option<ItnId>,
    /// The connection whose rings were started last.
    owner: Option<SessionId>,
    /// Says whether it is over; `None` once it is.
    hangup: Option<Hangup>,
    /// Whether rings of it run.
    running: bool,
    /// When the nexus is lost, if its connection is gone.
    lost_at: Option<Instant>,
    /// How many nexuses there were.
    count: u64,
}

/// Everything that makes an initiator port.
pub struct PortSetup {
    /// Its configured name.
    pub name: String,
    /// Its number among the ports of this process.
    pub number: u16,
    /// The host it is on.
    pub host_no: HostNo,
    /// The target port's name.
    pub target_port: String,
    /// How many commands it may have outstanding.
    pub max_cmds: u32,
    /// The reactor that logs it in and out.
    pub home: u8,
}

impl InitiatorPort {
    pub(super) fn new(setup: PortSetup, letters: Arc<Letters>, losses: Arc<Losses>) -> Arc<InitiatorPort> {
        Arc::new(InitiatorPort {
            label: format!("{} on {}", setup.name, setup.target_port).into(),
            id: PortId::of_initiator(&setup.name),
            target_port: PortId::of_target(&setup.target_port),
            name: setup.name,
            target_name: setup.target_port,
            number: setup.number,
            host_no: setup.host_no,
            max_cmds: setup.max_cmds,
            home: setup.home,
            letters,
            losses,
            limit: RateLimit::per_peer(),
            state: Mutex::default(),
            stopped: Condvar::new(),
        })
    }

    /// Its configured name and its target port's, as the log has them.
    pub fn label(&self) -> &Arc<str> {
        &self.label
    }

    /// The reactor that logs it in and out and has its control queue.
    pub fn home(&self) -> u8 {
        self.home
    }

    /// The host it is on.
    pub fn host_no(&self) -> HostNo {
        self.host_no
    }

    /// The request limit that its logins are granted.
    pub fn max_cmds(&self) -> u32 {
        self.max_cmds
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// A connection is about to start its first ring: it gets the nexus, a new one if there is none.
    ///
    /// Waits for the commands of a connection before it that is over.
    pub(super) fn login(&self, connection: SessionId, hangup: Option<&Hangup>) -> Result<ItnId, StartError> {
        // Held over the target's answer: logins of one port are one after the other, and the reactor never takes this lock.
        let mut state = self.state();
        let deadline = Instant::now() + LOGIN_PATIENCE;
        while state.running && state.owner != Some(connection) {
            let left = deadline.saturating_duration_since(Instant::now());
            let dying = state.hangup.as_ref().is_none_or(Hangup::is_over);
            if !dying || left.is_zero() {
                return Err(self.rejected(srp::RejectReason::ChannelLimit));
            }
            state = self.stopped.wait_timeout(state, left).unwrap_or_else(PoisonError::into_inner).0;
        }
        let itn_id = match state.nexus {
            Some(itn_id) => itn_id,
            None => {
                state.count += 1;
                let itn_id = state.count << PORT_BITS | u64::from(self.number);
                self.create(itn_id)?;
                state.nexus = Some(itn_id);
                itn_id
            }
        };
        state.owner = Some(connection);
        state.hangup = hangup.cloned();
        state.running = true;
        state.lost_at = None;
        Ok(itn_id)
    }

    fn create(&self, itn_id: ItnId) -> Result<(), StartError> {
        let request = srp::LoginReq {
            tag: itn_id,
            req_it_iu_len: LOGIN_IU_LEN,
            formats: srp::FormatSet::ALL,
            multi_channel: false,
            initiator: self.id,
            target: self.target_port,
        };
        let login = |reply| {
            let (host_no, max_cmds) = (self.host_no, self.max_cmds);
            Mail::Login(Box::new(Login { request, host_no, itn_id, max_cmds, reply }))
        };
        match self.letters.ask(self.home, "a login", login) {
            Some(srp::LoginAnswer::Accepted(_)) => Ok(()),
            Some(srp::LoginAnswer::Rejected(rejection)) => Err(self.rejected(rejection.reason)),
            None => Err(StartError::ShuttingDown),
        }
    }

    /// SRP_LOGIN_REJ, as the front-end and the log hear of it.
    fn rejected(&self, reason: srp::RejectReason) -> StartError {
        self.limit.warn(format_args!("{}: SRP_LOGIN_REJ {:#010x}: {reason}", self.label, reason as u32));
        let help = match reason {
            srp::RejectReason::ChannelLimit => "; give each guest a socket of its own",
            _ => "",
        };
        let (initiator, target) = (&self.name, &self.target_name);
        StartError::LoginRejected(format!("initiator port '{initiator}' on target port '{target}': {reason}{help}"))
    }

    /// The connection's rings are all stopped; the nexus stays.
    pub(super) fn stopped(&self, connection: SessionId) {
        let mut state = self.state();
        if state.owner == Some(connection) {
            state.running = false;
            self.stopped.notify_all();
        }
    }

    /// RESET_DEVICE came on a connection: if the nexus is its, all tasks of the nexus end.
    pub(super) fn reset(&self, connection: SessionId) {
        let itn_id = {
            let state = self.state();
            if state.owner == Some(connection) { state.nexus } else { None }
        };
        if let Some(itn_id) = itn_id {
            let host_no = self.host_no;
            self.letters.ask(self.home, "a nexus reset", |reply| Mail::ResetNexus { host_no, itn_id, reply });
        }
    }

    /// The connection is gone. If the nexus is its, the nexus is lost unless somebody starts rings in time.
    pub(super) fn disconnected(self: &Arc<Self>, connection: SessionId) {
        let mut state = self.state();
        if state.owner == Some(connection) {
            state.running = false;
            state.hangup = None;
            self.stopped.notify_all();
            if state.nexus.is_some() {
                state.lost_at = self.losses.deadline();
                self.losses.add(self);
            }
        }
    }

    /// Ends the nexus if its time is over; gives back when to look again.
    pub(super) fn expire(&self, now: Instant) -> Option<Instant> {
        let mut state = self.state();
        let lost_at = state.lost_at?;
        if now < lost_at {
            return Some(lost_at);
        }
        log::info!("{}: nobody came back within the nexus loss time", self.label);
        self.end_nexus(&mut state);
        None
    }

    /// Ends the nexus now, as the process ends.
    pub fn shut_down(&self) {
        let mut state = self.state();
        self.end_nexus(&mut state);
    }

    fn end_nexus(&self, state: &mut State) {
        state.lost_at = None;
        state.owner = None;
        state.hangup = None;
        state.running = false;
        if let Some(itn_id) = state.nexus.take() {
            let host_no = self.host_no;
            self.letters.ask(self.home, "a logout", |reply| Mail::Logout { host_no, itn_id, reply });
        }
    }
}
