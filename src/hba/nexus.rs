//! Login, logout and reset of I_T nexuses, on the home reactor of their initiator port.

use super::mail::{Login, Reply, answer};
use super::reactor::Reactor;
use crate::scsi::{Lun, TaskManagementFunction};
use crate::srp::{FormatSet, LoginAction, LoginAnswer, PortId, PortLimits, TargetPort};
use crate::tgt::{HostNo, ItNexusReq, ItNexusRsp, ItnId, KEvent, NexusFunction, Tag, TskMgmtReq, TskMgmtRsp};

/// The shard number in the names of functions that no guest asked for. No reactor has it.
const INTERNAL: u8 = u8::MAX;

/// Longest information unit either way, in bytes: a CMD with a CDB of 260 bytes and 255 descriptors, rounded up.
const MAX_IU_LEN: u32 = 8192;

/// What this reactor waits for in the name of initiator ports.
#[derive(Default)]
pub struct Logins {
    /// The SRP side of every nexus that is made here, until it is gone.
    sessions: Vec<(ItnId, TargetPort)>,
    pending: Vec<(ItnId, Reply<LoginAnswer>)>,
    leaving: Vec<(ItnId, Reply<()>)>,
    resetting: Vec<(u64, Reply<()>)>,
    functions: u32,
}

impl Reactor {
    /// SRP_LOGIN_REQ: the port decides whether it can be, the target whether it is.
    pub(super) fn login(&mut self, login: Login) {
        let (host_no, itn_id) = (login.host_no, login.itn_id);
        let limits = PortLimits {
            request_limit: login.max_cmds,
            max_it_iu_len: MAX_IU_LEN,
            max_ti_iu_len: MAX_IU_LEN,
            formats: FormatSet::ALL,
        };
        // A host that is nobody's has an identifier that no initiator port knows.
        let port = self.ports.iter().find(|(of, _)| *of == host_no).map_or_else(PortId::default, |(_, id)| *id);
        let mut port = TargetPort::new(port, limits);
        match port.login(&login.request) {
            LoginAction::Reject(rejection) => answer(&login.reply, LoginAnswer::Rejected(rejection)),
            LoginAction::CreateNexus { initiator, max_cmds } => {
                self.logins.sessions.push((itn_id, port));
                self.logins.pending.push((itn_id, login.reply));
                let function = NexusFunction::Create;
                let event = ItNexusReq { host_no, function, itn_id, max_cmds, initiator_id: initiator.0 };
                self.post_request(KEvent::ItNexusReq(event), None);
                self.drain_events();
            }
        }
    }

    /// The initiator is gone for good: its nexus ends.
    pub(super) fn logout(&mut self, host_no: HostNo, itn_id: ItnId, reply: Reply<()>) {
        let Some((_, port)) = self.logins.sessions.iter_mut().find(|(id, _)| *id == itn_id) else {
            answer(&reply, ());
            return;
        };
        if !port.connection_lost() {
            answer(&reply, ());
            return;
        }
        let initiator_id = port.initiator().unwrap_or_default().0;
        self.logins.leaving.push((itn_id, reply));
        let function = NexusFunction::Destroy;
        let event = ItNexusReq { host_no, function, itn_id, max_cmds: 0, initiator_id };
        self.post_request(KEvent::ItNexusReq(event), None);
        self.drain_events();
    }

    /// A device reset: I_T NEXUS RESET in the initiator's name.
    pub(super) fn reset_nexus(&mut self, host_no: HostNo, itn_id: ItnId, reply: Reply<()>) {
        self.logins.functions = self.logins.functions.wrapping_add(1);
        let count = self.logins.functions;
        let mid = Tag::new(INTERNAL, (count >> 16) as u16, count as u16, 0).0;
        self.logins.resetting.push((mid, reply));
        let function = TaskManagementFunction::ItNexusReset as i32;
        // The function is about every unit of the nexus; the LUN is not looked at (SAM-5 7.7).
        let event = TskMgmtReq { host_no, function, itn_id, tag: Tag::NONE, lun: Lun::default(), mid };
        self.post_request(KEvent::TskMgmtReq(event), None);
        self.drain_events();
    }

    /// The target made or ended a nexus, or refused to.
    pub(super) fn on_nexus_answer(&mut self, rsp: ItNexusRsp) {
        let logins = &mut self.logins;
        let Some(at) = logins.sessions.iter().position(|(id, _)| *id == rsp.itn_id) else {
            log::error!("IT_NEXUS_RSP for nexus {:#x}, which nobody asked about", rsp.itn_id);
            return;
        };
        match rsp.function {
            NexusFunction::Create => {
                let login_answer = logins.sessions[at].1.nexus_answer(rsp.result);
                if !matches!(login_answer, Some(LoginAnswer::Accepted(_))) {
                    logins.sessions.swap_remove(at);
                }
                let waiting = logins.pending.iter().position(|(id, _)| *id == rsp.itn_id);
                if let (Some(waiting), Some(login_answer)) = (waiting, login_answer) {
                    answer(&logins.pending.swap_remove(waiting).1, login_answer);
                }
            }
            NexusFunction::Destroy => {
                logins.sessions[at].1.nexus_gone();
                logins.sessions.swap_remove(at);
                if let Some(waiting) = logins.leaving.iter().position(|(id, _)| *id == rsp.itn_id) {
                    answer(&logins.leaving.swap_remove(waiting).1, ());
                }
            }
        }
    }

    /// True if the answer was to a function of our own.
    pub(super) fn on_internal_function_answer(&mut self, rsp: TskMgmtRsp) -> bool {
        let Some(at) = self.logins.resetting.iter().position(|(mid, _)| *mid == rsp.mid) else { return false };
        let (_, reply) = self.logins.resetting.swap_remove(at);
        answer(&reply, ());
        true
    }
}
