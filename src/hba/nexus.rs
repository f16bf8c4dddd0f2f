//! Login, logout and reset of I_T nexuses, on the home reactor of their initiator port.

use super::mail::{Login, Reply, answer};
use super::reactor::Reactor;
use crate::scsi::{Lun, TaskManagementFunction};
use crate::srp::{self, LoginAction, TargetPortSession};
use crate::tgt::{HostNo, ItNexusReq, ItNexusRsp, ItnId, KEvent, NexusFunction, Tag, TskMgmtReq, TskMgmtRsp};

/// The shard number in the names of functions that no guest asked for. No reactor has it.
const INTERNAL: u8 = u8::MAX;

/// What this reactor waits for in the name of initiator ports.
#[derive(Default)]
pub struct Logins {
    pending: Vec<(ItnId, TargetPortSession, Reply<Result<srp::LoginRsp, srp::LoginRej>>)>,
    leaving: Vec<(ItnId, Reply<()>)>,
    resetting: Vec<(u64, Reply<()>)>,
    functions: u32,
}

impl Reactor {
    /// SRP_LOGIN_REQ: the port decides whether it can be, the target whether it is.
    pub(super) fn login(&mut self, login: Login) {
        let mut port = TargetPortSession::new(login.request.target_port_id, login.max_cmds);
        match port.login(&login.request, false) {
            LoginAction::Reject(rejection) => answer(&login.reply, Err(rejection)),
            LoginAction::CreateNexus { initiator_id, max_cmds } => {
                self.logins.pending.push((login.itn_id, port, login.reply));
                self.post_request(
                    KEvent::ItNexusReq(ItNexusReq {
                        host_no: login.host_no,
                        function: NexusFunction::Create,
                        itn_id: login.itn_id,
                        max_cmds,
                        initiator_id,
                    }),
                    None,
                );
                self.drain_events();
            }
        }
    }

    /// The initiator is gone for good: its nexus ends.
    pub(super) fn logout(&mut self, host_no: HostNo, itn_id: ItnId, reply: Reply<()>) {
        self.logins.leaving.push((itn_id, reply));
        let function = NexusFunction::Destroy;
        let event = ItNexusReq { host_no, function, itn_id, max_cmds: 0, initiator_id: [0; 16] };
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
        self.pop_everything();
        self.post_request(KEvent::TskMgmtReq(event), None);
        self.drain_events();
    }

    /// The target made or ended a nexus, or refused to.
    pub(super) fn on_nexus_answer(&mut self, rsp: ItNexusRsp) {
        match rsp.function {
            NexusFunction::Create => {
                let Some(at) = self.logins.pending.iter().position(|(id, ..)| *id == rsp.itn_id) else { return };
                let (_, mut port, reply) = self.logins.pending.swap_remove(at);
                answer(&reply, port.nexus_answer(rsp.result));
            }
            NexusFunction::Destroy => {
                let Some(at) = self.logins.leaving.iter().position(|(id, _)| *id == rsp.itn_id) else { return };
                let (_, reply) = self.logins.leaving.swap_remove(at);
                answer(&reply, ());
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
