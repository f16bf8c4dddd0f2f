//! `srp`: information units there and back, and a target port's life.
//!
//! The first byte chooses. Even: the rest is an information unit; what is decoded must say the same after it was encoded. Odd: the rest
//! is a sequence of things that happen to a target port, each two bytes and what it needs.

use crate::input::Input;
use vstgt::srp::{
    Credit, DirectDescriptor, FormatSet, ILogout, Iu, LoginAction, LoginAnswer, LoginReq, LogoutReason, PortId,
    PortLimits, TargetPort,
};

/// Takes any bytes.
pub fn run(bytes: &[u8]) {
    let mut input = Input::new(bytes);
    match input.u8() % 2 {
        0 => there_and_back(input.rest()),
        _ => life(input),
    }
}

fn there_and_back(bytes: &[u8]) {
    let (mut pieces, mut again) = (Vec::<DirectDescriptor>::new(), Vec::new());
    let Ok(iu) = Iu::decode(bytes, &mut pieces) else { return };
    let encoded = match iu.encode() {
        Ok(encoded) => encoded,
        Err(error) => panic!("{iu:?} was decoded and cannot be encoded: {error}"),
    };
    // Reserved bytes and padding are lost, nothing else.
    match Iu::decode(&encoded, &mut again) {
        Ok(same) => assert_eq!(same, iu, "{encoded:02x?}"),
        Err(error) => panic!("{iu:?} was encoded and cannot be decoded: {error}"),
    }
    // Every shorter unit is refused: lengths are believed only as far as there are bytes.
    for len in 0..encoded.len() {
        if let Ok(shorter) = Iu::decode(&encoded[..len], &mut Vec::new()) {
            panic!("{len} of {} bytes are {shorter:?}", encoded.len());
        }
    }
}

/// Where a port is, as this model has it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum At {
    Idle,
    LoggingIn(u64),
    LoggedIn,
    LoggingOut,
}

fn life(mut input: Input<'_>) {
    let limits = PortLimits {
        request_limit: u32::from(input.u8()) + 1,
        max_it_iu_len: u32::from(input.u16()).max(64),
        max_ti_iu_len: 256,
        formats: FormatSet(u16::from(input.u8()) & FormatSet::ALL.0),
    };
    let id = PortId([7; 16]);
    let mut port = TargetPort::new(id, limits);
    let (mut at, mut limit, mut outstanding) = (At::Idle, 0u64, 0u64);
    while !input.is_empty() {
        let (what, value) = (input.u8(), input.u8());
        match what % 9 {
            0 => {
                let req = LoginReq {
                    tag: u64::from(value),
                    req_it_iu_len: u32::from(input.u16()),
                    formats: FormatSet(u16::from(input.u8())),
                    multi_channel: value & 0x80 != 0,
                    initiator: PortId([value; 16]),
                    target: if value & 0x40 == 0 { id } else { PortId(input.array()) },
                };
                match port.login(&req) {
                    LoginAction::Reject(rej) => assert_eq!(rej.tag, req.tag),
                    LoginAction::CreateNexus { initiator, max_cmds } => {
                        assert_eq!((at, initiator, max_cmds), (At::Idle, req.initiator, limits.request_limit));
                        assert!((64..=limits.max_it_iu_len).contains(&req.req_it_iu_len), "{req:?}");
                        assert!(limits.formats.contains(req.formats) && req.target == id && !req.multi_channel);
                        at = At::LoggingIn(req.tag);
                    }
                }
            }
            1 => {
                let result = if value < 0x80 { 0 } else { -i32::from(value) };
                match (port.nexus_answer(result), at) {
                    (None, At::LoggingIn(_)) => panic!("a login waits for this answer"),
                    (Some(_), At::Idle | At::LoggedIn | At::LoggingOut) => panic!("no login waits for this answer"),
                    (None, _) => {}
                    (Some(LoginAnswer::Accepted(rsp)), At::LoggingIn(tag)) => {
                        assert_eq!((rsp.tag, result), (tag, 0));
                        (at, limit, outstanding) = (At::LoggedIn, rsp.req_lim_delta as u64, 0);
                        assert_eq!(limit, u64::from(limits.request_limit));
                    }
                    (Some(LoginAnswer::Rejected(rej)), At::LoggingIn(tag)) => {
                        assert_eq!(rej.tag, tag);
                        assert_ne!(result, 0);
                        at = At::Idle;
                    }
                }
            }
            2 | 3 => {
                let ends = if what % 9 == 2 {
                    port.i_logout(&ILogout { tag: u64::from(value) })
                } else {
                    port.connection_lost()
                };
                assert_eq!(ends, at == At::LoggedIn);
                if ends {
                    at = At::LoggingOut;
                }
            }
            4 => {
                let said = port.t_logout(u64::from(value), LogoutReason::None);
                assert_eq!(said.is_some(), at == At::LoggedIn);
                if said.is_some() {
                    at = At::LoggingOut;
                }
            }
            5 => {
                port.nexus_gone();
                if at == At::LoggingOut {
                    (at, limit, outstanding) = (At::Idle, 0, 0);
                }
            }
            6 => {
                let taken = port.take_credit().is_ok();
                assert_eq!(taken, at == At::LoggedIn && outstanding < limit);
                outstanding += u64::from(taken);
            }
            7 if outstanding > 0 => {
                assert_eq!(port.give_credit_back(), 1);
                outstanding -= 1;
            }
            7 => {}
            _ => {
                let extra = input.u32();
                let said = port.raise_limit(extra, u64::from(value));
                assert_eq!(said.is_some(), at == At::LoggedIn);
                if let Some(req) = said {
                    assert!((0..=i64::from(extra)).contains(&i64::from(req.req_lim_delta)));
                    limit += req.req_lim_delta as u64;
                    assert!(limit <= i32::MAX as u64, "a limit that an initiator cannot count");
                }
            }
        }
        let credit: Credit = port.credit();
        assert_eq!((u64::from(credit.left()) + outstanding, u64::from(credit.outstanding())), (limit, outstanding));
        assert_eq!(port.logged_in().is_some(), at == At::LoggedIn);
        assert_eq!(port.initiator().is_some(), at != At::Idle);
    }
}
