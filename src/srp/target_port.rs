//! The target port's side of a login: a state machine per initiator port session.
//!
//! ```text
//!        LOGIN_REQ                 IT_NEXUS_RSP 0
//! Idle ─────────────▶ LoggingIn ─────────────────▶ LoggedIn
//!   ▲  (or LOGIN_REJ)   │ refused: LOGIN_REJ          │ I_LOGOUT, T_LOGOUT, connection lost
//!   │◀──────────────────┘                             ▼
//!   └──────────────────────── nexus gone ─────────  LoggingOut
//! ```
//!
//! A LOGIN_RSP is sent only after the nexus exists. It does no I/O: what is to be done comes back as an action.

use super::{CredReq, FormatSet, ILogout, LoginRej, LoginReq, LoginRsp, LogoutReason, PortId, RejectReason, TLogout};

/// The shortest limit for initiator → target units that makes sense: a LOGIN_REQ must fit (SRP r16a 6.2).
pub const MIN_IU_LEN: u32 = 64;

/// What a target port grants.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct PortLimits {
    /// Requests (commands and task management functions) that an initiator may have outstanding.
    pub request_limit: u32,
    /// Longest unit it may send, in bytes.
    pub max_it_iu_len: u32,
    /// Longest unit that the target will send, in bytes.
    pub max_ti_iu_len: u32,
    /// Descriptor formats it may use.
    pub formats: FormatSet,
}

/// What to do about a LOGIN_REQ.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum LoginAction {
    /// Send this; nothing else happens.
    Reject(LoginRej),
    /// Post IT_NEXUS_REQ(create) with these, and give its outcome to [`TargetPort::nexus_answer`].
    CreateNexus {
        /// The initiator port.
        initiator: PortId,
        /// `max_cmds`: the request limit that it will be granted.
        max_cmds: u32,
    },
}

/// How a login ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum LoginAnswer {
    /// The nexus exists: send this.
    Accepted(LoginRsp),
    /// It does not: send this.
    Rejected(LoginRej),
}

/// The initiator has as many requests outstanding as it may; it is refused this one.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("request limit exceeded")]
pub struct NoCredit;

/// A request limit and how much of it is left.
///
/// A unit that begins a request takes one, the unit that answers it gives it back as its REQUEST LIMIT DELTA.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Credit {
    limit: u32,
    left: u32,
}

impl Credit {
    /// All of `limit` left.
    pub fn new(limit: u32) -> Credit {
        Credit { limit, left: limit }
    }

    /// Begins a request.
    pub fn take(&mut self) -> Result<(), NoCredit> {
        self.left = self.left.checked_sub(1).ok_or(NoCredit)?;
        Ok(())
    }

    /// Answers a request: the REQUEST LIMIT DELTA to send with the answer.
    pub fn give_back(&mut self) -> i32 {
        debug_assert!(self.left < self.limit, "more answers than requests");
        if self.left >= self.limit {
            return 0;
        }
        self.left += 1;
        1
    }

    /// Raises the limit by `extra`; how much it really was raised (a limit must fit a positive i32).
    pub fn raise(&mut self, extra: u32) -> i32 {
        let room = i32::MAX.unsigned_abs() - self.limit.min(i32::MAX.unsigned_abs());
        let granted = extra.min(room);
        self.limit += granted;
        self.left += granted;
        i32::try_from(granted).unwrap_or(i32::MAX)
    }

    /// Requests that may still begin.
    pub fn left(&self) -> u32 {
        self.left
    }

    /// Requests that are outstanding.
    pub fn outstanding(&self) -> u32 {
        self.limit - self.left
    }
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum State {
    Idle,
    LoggingIn { initiator: PortId, tag: u64 },
    LoggedIn { initiator: PortId },
    LoggingOut { initiator: PortId },
}

/// One session of one initiator port with a target port.
#[derive(Debug)]
pub struct TargetPort {
    id: PortId,
    limits: PortLimits,
    state: State,
    credit: Credit,
}

impl TargetPort {
    /// A session that nobody has logged in to.
    pub fn new(id: PortId, limits: PortLimits) -> TargetPort {
        TargetPort { id, limits, state: State::Idle, credit: Credit::default() }
    }

    /// Judges a LOGIN_REQ.
    ///
    /// Refused at once: a second login on a session (channel limit), another target port's identifier, descriptor formats that are not
    /// supported, none at all, units too long or too short, more than one channel per nexus. Whether another connection of the
    /// port is alive is known to the target: see [`TargetPort::nexus_answer`].
    pub fn login(&mut self, req: &LoginReq) -> LoginAction {
        let refuse = |reason| LoginAction::Reject(self.reject(reason, req.tag));
        if self.state != State::Idle {
            return refuse(RejectReason::ChannelLimit);
        }
        if req.req_it_iu_len > self.limits.max_it_iu_len {
            return refuse(RejectReason::IuTooLong);
        }
        if req.req_it_iu_len < MIN_IU_LEN {
            return refuse(RejectReason::CannotEstablish);
        }
        if req.target != self.id {
            return refuse(RejectReason::CannotAssociate);
        }
        if req.formats == FormatSet::default() || !self.limits.formats.contains(req.formats) {
            return refuse(RejectReason::DescriptorFormat);
        }
        if req.multi_channel {
            return refuse(RejectReason::MultiChannel);
        }
        self.state = State::LoggingIn { initiator: req.initiator, tag: req.tag };
        LoginAction::CreateNexus { initiator: req.initiator, max_cmds: self.limits.request_limit }
    }

    /// What IT_NEXUS_RSP(create) said: 0, or a negative errno. `None` if no login waits for it.
    pub fn nexus_answer(&mut self, result: i32) -> Option<LoginAnswer> {
        let State::LoggingIn { initiator, tag } = self.state else { return None };
        if result != 0 {
            self.state = State::Idle;
            return Some(LoginAnswer::Rejected(self.reject(reason_of(result), tag)));
        }
        self.state = State::LoggedIn { initiator };
        self.credit = Credit::new(0);
        let req_lim_delta = self.credit.raise(self.limits.request_limit);
        Some(LoginAnswer::Accepted(LoginRsp {
            req_lim_delta,
            tag,
            max_it_iu_len: self.limits.max_it_iu_len,
            max_ti_iu_len: self.limits.max_ti_iu_len,
            formats: self.limits.formats,
        }))
    }

    /// The initiator logs out. True: post IT_NEXUS_REQ(destroy); its answer goes to [`TargetPort::nexus_gone`].
    pub fn i_logout(&mut self, _iu: &ILogout) -> bool {
        self.begin_logout()
    }

    /// The connection is gone without a word. True: as for [`TargetPort::i_logout`]. False while a login waits for its nexus
    /// (ask again after [`TargetPort::nexus_answer`]) and when there is nothing to end.
    pub fn connection_lost(&mut self) -> bool {
        self.begin_logout()
    }

    /// The target ends the login: what to send, and then as for [`TargetPort::i_logout`]. `None` if nobody is logged in.
    pub fn t_logout(&mut self, tag: u64, reason: LogoutReason) -> Option<TLogout> {
        self.begin_logout().then_some(TLogout { solicited: false, reason, tag })
    }

    /// IT_NEXUS_RSP(destroy) came: the session can be logged in to again.
    pub fn nexus_gone(&mut self) {
        if let State::LoggingOut { .. } = self.state {
            self.state = State::Idle;
            self.credit = Credit::default();
        }
    }

    /// A request begins; refused when the request limit is used up or nobody is logged in.
    pub fn take_credit(&mut self) -> Result<(), NoCredit> {
        match self.state {
            State::LoggedIn { .. } => self.credit.take(),
            _ => Err(NoCredit),
        }
    }

    /// A request was answered: the REQUEST LIMIT DELTA of the answer.
    pub fn give_credit_back(&mut self) -> i32 {
        self.credit.give_back()
    }

    /// Raises the request limit: the unit to send. `None` if nobody is logged in.
    pub fn raise_limit(&mut self, extra: u32, tag: u64) -> Option<CredReq> {
        let State::LoggedIn { .. } = self.state else { return None };
        Some(CredReq { solicited: false, req_lim_delta: self.credit.raise(extra), tag })
    }

    /// The initiator port that is logged in.
    pub fn logged_in(&self) -> Option<PortId> {
        match self.state {
            State::LoggedIn { initiator } => Some(initiator),
            _ => None,
        }
    }

    /// The initiator port that has begun to log in, is logged in, or has not finished logging out.
    pub fn initiator(&self) -> Option<PortId> {
        match self.state {
            State::Idle => None,
            State::LoggingIn { initiator, .. } | State::LoggedIn { initiator } | State::LoggingOut { initiator } => {
                Some(initiator)
            }
        }
    }

    /// The request limit's state.
    pub fn credit(&self) -> Credit {
        self.credit
    }

    fn begin_logout(&mut self) -> bool {
        let State::LoggedIn { initiator } = self.state else { return false };
        self.state = State::LoggingOut { initiator };
        true
    }

    fn reject(&self, reason: RejectReason, tag: u64) -> LoginRej {
        LoginRej { reason, tag, formats: self.limits.formats }
    }
}

/// Why a login is refused when IT_NEXUS_RSP says `errno` (negative).
fn reason_of(errno: i32) -> RejectReason {
    match errno.saturating_neg() {
        libc::EEXIST | libc::EBUSY => RejectReason::ChannelLimit,
        libc::ENOMEM | libc::ENOSPC | libc::EAGAIN => RejectReason::NoResources,
        libc::ENODEV | libc::ENOENT | libc::ENXIO => RejectReason::CannotAssociate,
        _ => RejectReason::CannotEstablish,
    }
}
