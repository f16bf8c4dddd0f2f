//! Information units against literal bytes of the SRP r16a layouts.

use proptest::prelude::*;

use super::*;
use crate::mem::Direction;
use crate::scsi::{CommandResult, FunctionResponse, HostByte, Lun, Status, TaskAttribute};

const LUN: Lun = Lun([0x01, 0x02, 0x00, 0x03, 0, 0, 0, 0]);
const TAG: u64 = 0x0102_0304_0506_0708;

fn hex(text: &str) -> Vec<u8> {
    let digits: Vec<u8> = text.bytes().filter(|b| !b.is_ascii_whitespace()).collect();
    digits.chunks(2).map(|d| u8::from_str_radix(std::str::from_utf8(d).unwrap(), 16).unwrap()).collect()
}

/// `iu` must encode to `bytes` and `bytes` decode to `iu`; every shorter prefix must be refused.
fn golden(iu: Iu<'_>, bytes: &[u8]) {
    assert_eq!(iu.encode().unwrap(), bytes);
    assert_eq!(Iu::decode(bytes, &mut Vec::new()), Ok(iu));
    for len in 0..bytes.len() {
        assert_eq!(Iu::decode(&bytes[..len], &mut Vec::new()), Err(IuError::Short), "{len} bytes");
    }
}

#[test]
fn login_req() {
    let iu = LoginReq {
        tag: TAG,
        req_it_iu_len: 0x1234,
        formats: FormatSet::ALL,
        multi_channel: true,
        initiator: PortId(*b"initiator-port-0"),
        target: PortId(*b"target-port-id-1"),
    };
    let bytes = hex("00 00000000000000 0102030405060708 00001234 00000000 0006 01 0000000000
         696e69746961746f722d706f72742d30 7461726765742d706f72742d69642d31");
    assert_eq!(bytes.len(), 64);
    golden(Iu::LoginReq(iu), &bytes);
}

#[test]
fn login_req_with_a_reserved_multi_channel_action() {
    let mut bytes = [0; 64];
    bytes[26] = 0x02;
    assert_eq!(LoginReq::decode(&bytes), Err(IuError::Code(2)));
}

#[test]
fn login_rsp() {
    let iu = LoginRsp {
        req_lim_delta: 0x40,
        tag: TAG,
        max_it_iu_len: 0x1000,
        max_ti_iu_len: 0x200,
        formats: FormatSet::ALL,
    };
    let mut bytes = hex("c0 000000 00000040 0102030405060708 00001000 00000200 0006 00");
    bytes.resize(52, 0);
    golden(Iu::LoginRsp(iu), &bytes);
}

#[test]
fn login_rej() {
    for (reason, code) in [
        (RejectReason::CannotEstablish, "00010000"),
        (RejectReason::NoResources, "00010001"),
        (RejectReason::IuTooLong, "00010002"),
        (RejectReason::CannotAssociate, "00010003"),
        (RejectReason::DescriptorFormat, "00010004"),
        (RejectReason::MultiChannel, "00010005"),
        (RejectReason::ChannelLimit, "00010006"),
    ] {
        let bytes = hex(&format!("c2 000000 {code} 0102030405060708 0000000000000000 0006 000000000000"));
        assert_eq!(bytes.len(), 32);
        golden(Iu::LoginRej(LoginRej { reason, tag: TAG, formats: FormatSet::ALL }), &bytes);
    }
    let unknown = hex("c2 000000 00010007 0102030405060708 0000000000000000 0006 000000000000");
    assert_eq!(LoginRej::decode(&unknown), Err(IuError::Code(0x0001_0007)));
}

#[test]
fn logouts() {
    golden(Iu::ILogout(ILogout { tag: TAG }), &hex("03 00000000000000 0102030405060708"));
    for (reason, code) in [
        (LogoutReason::None, "00000000"),
        (LogoutReason::Inactive, "00000001"),
        (LogoutReason::InvalidType, "00000002"),
        (LogoutReason::SpuriousResponse, "00000003"),
        (LogoutReason::MultiChannelAction, "00000004"),
        (LogoutReason::DataOutFormat, "00000006"),
        (LogoutReason::DataInFormat, "00000007"),
        (LogoutReason::DescriptorCount, "00000008"),
    ] {
        let iu = TLogout { solicited: true, reason, tag: TAG };
        golden(Iu::TLogout(iu), &hex(&format!("80 01 0000 {code} 0102030405060708")));
    }
    assert_eq!(TLogout::decode(&hex("80 01 0000 00000005 0102030405060708")), Err(IuError::Code(5)));
}

#[test]
fn credit_requests() {
    let iu = CredReq { solicited: false, req_lim_delta: -2, tag: TAG };
    golden(Iu::CredReq(iu), &hex("81 00 0000 fffffffe 0102030405060708"));
    golden(Iu::CredRsp(CredRsp { tag: TAG }), &hex("41 00000000000000 0102030405060708"));
}

#[test]
fn asynchronous_events() {
    let iu = AerReq { solicited: true, req_lim_delta: 1, tag: TAG, lun: LUN, sense: &[0x72, 0x06, 0x2a, 0x09] };
    golden(
        Iu::AerReq(iu),
        &hex("82 01 0000 00000001 0102030405060708 00000000 0102000300000000 00000004 00000000 72062a09"),
    );
    golden(Iu::AerRsp(AerRsp { tag: TAG }), &hex("42 00000000000000 0102030405060708"));
}

#[test]
fn task_management() {
    let iu = TskMgmt {
        notify: SolicitedNotification { successful: true, unsuccessful: true },
        tag: TAG,
        lun: LUN,
        function: 0x08,
        managed: 0x1122_3344_5566_7788,
    };
    let bytes = hex("01 06 000000000000 0102030405060708 00000000 0102000300000000 0000 08 00
         1122334455667788 0000000000000000");
    assert_eq!(bytes.len(), 48);
    golden(Iu::TskMgmt(iu), &bytes);
}

#[test]
fn command_without_data() {
    let cdb = [0; 16];
    let iu = Cmd {
        notify: SolicitedNotification { successful: false, unsuccessful: true },
        tag: TAG,
        lun: LUN,
        attribute: TaskAttribute::Ordered,
        cdb: &cdb,
        data_out: Buffers::None,
        data_in: Buffers::None,
    };
    let bytes = hex("02 04 000000 00 00 00 0102030405060708 00000000 0102000300000000 00 02 00 00
         00000000000000000000000000000000");
    assert_eq!(bytes.len(), 48);
    golden(Iu::Cmd(iu), &bytes);
}

#[test]
fn command_with_direct_data_in() {
    let cdb = hex("28000000000800000800000000000000");
    let piece = DirectDescriptor { va: 0x1_0000_2000, key: 0, len: 0x1000 };
    let iu = Cmd {
        notify: SolicitedNotification::default(),
        tag: TAG,
        lun: LUN,
        attribute: TaskAttribute::HeadOfQueue,
        cdb: &cdb,
        data_out: Buffers::None,
        data_in: Buffers::of(std::slice::from_ref(&piece)).unwrap(),
    };
    let bytes = hex("02 00 000000 01 00 00 0102030405060708 00000000 0102000300000000 00 01 00 00
         28000000000800000800000000000000 0000000100002000 00000000 00001000");
    golden(Iu::Cmd(iu), &bytes);
}

#[test]
fn command_with_indirect_data_out_and_a_long_cdb() {
    let cdb = hex("7f00000000000018000920000000000000000000000000000000000000000008");
    let pieces = [
        DirectDescriptor { va: 0x1000, key: 0, len: 0x800 },
        DirectDescriptor { va: 0x5000, key: 0, len: 0x600 },
        DirectDescriptor { va: 0x9000, key: 7, len: 0x200 },
    ];
    let iu = Cmd {
        notify: SolicitedNotification::default(),
        tag: TAG,
        lun: LUN,
        attribute: TaskAttribute::Aca,
        cdb: &cdb,
        data_out: Buffers::of(&pieces).unwrap(),
        data_in: Buffers::None,
    };
    assert_eq!(iu.scb(), cdb[..16]);
    assert_eq!(iu.additional_cdb(), &cdb[16..]);
    let bytes = hex("02 00 000000 20 03 00 0102030405060708 00000000 0102000300000000 00 04 00 10
         7f000000000000180009200000000000 00000000000000000000000000000008
         0000000000000000 00000000 00000030 00001000
         0000000000001000 00000000 00000800
         0000000000005000 00000000 00000600
         0000000000009000 00000007 00000200");
    golden(Iu::Cmd(iu), &bytes);
}

#[test]
fn command_with_data_both_ways() {
    let cdb = [0x53; 16];
    let out = [DirectDescriptor { va: 1, key: 2, len: 3 }];
    let inn = [DirectDescriptor { va: 4, key: 5, len: 6 }, DirectDescriptor { va: 7, key: 8, len: 9 }];
    let iu = Cmd {
        notify: SolicitedNotification::default(),
        tag: 1,
        lun: LUN,
        attribute: TaskAttribute::Simple,
        cdb: &cdb,
        data_out: Buffers::of(&out).unwrap(),
        data_in: Buffers::of(&inn).unwrap(),
    };
    let bytes = iu.encode().unwrap();
    assert_eq!(bytes[5..8], [0x12, 0, 2]);
    golden(Iu::Cmd(iu), &bytes);
}

#[test]
fn a_short_cdb_is_padded() {
    let iu = Cmd {
        notify: SolicitedNotification::default(),
        tag: 1,
        lun: LUN,
        attribute: TaskAttribute::Simple,
        cdb: &[0x12, 0, 0, 0, 36, 0],
        data_out: Buffers::None,
        data_in: Buffers::None,
    };
    assert_eq!(iu.scb(), [0x12, 0, 0, 0, 36, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0]);
    assert!(iu.additional_cdb().is_empty());
    assert_eq!(iu.encode().unwrap().len(), 48);
    let long = vec![0; 16 + 253];
    assert_eq!(Cmd { cdb: &long, ..iu }.encode(), Err(IuError::TooLong));
    assert_eq!(Cmd { cdb: &long[..268], ..iu }.encode().unwrap().len(), 300);
}

#[test]
fn a_table_longer_than_the_count_field_is_cut() {
    let pieces = vec![DirectDescriptor { va: 0, key: 0, len: 1 }; 300];
    let buffers = Buffers::of(&pieces).unwrap();
    assert_eq!((buffers.len(), buffers.count(), buffers.pieces().len()), (300, 255, 300));
    let mut bytes = Vec::new();
    buffers.encode(&mut bytes);
    assert_eq!(bytes.len(), INDIRECT_HEAD_LEN + 255 * DIRECT_LEN);
    assert_eq!(bytes[12..16], (300u32 * 16).to_be_bytes());
}

#[test]
fn buffers_of_pieces() {
    assert_eq!(Buffers::of(&[]), Ok(Buffers::None));
    assert!(Buffers::of(&[]).unwrap().is_empty());
    let big = DirectDescriptor { va: 0, key: 0, len: u32::MAX };
    assert_eq!(Buffers::of(&[big]).unwrap().len(), u32::MAX);
    assert_eq!(Buffers::of(&[big, big]), Err(IuError::TooLong));
}

#[test]
fn rsp_with_sense() {
    let sense = hex("70000500000000 0a 00000000 2400 00 c00000");
    let result = CommandResult { host: HostByte::Ok, status: Status::CheckCondition };
    let iu = Rsp::to_command(TAG, result, 0, 0x1000, Direction::In, &sense);
    let bytes = hex("c1 00 0000 00000001 0102030405060708 0000 22 02 00000000 00001000 00000012 00000000
         70000500000000 0a 00000000 2400 00 c00000");
    golden(Iu::Rsp(iu), &bytes);
}

#[test]
fn rsp_flags_and_residuals() {
    let good = CommandResult { host: HostByte::Ok, status: Status::Good };
    for (moved, data_len, direction, flags, out, inn) in [
        (4096, 4096, Direction::Out, 0x00, 0, 0),
        (512, 4096, Direction::Out, 0x08, 3584, 0),
        (4096, 512, Direction::Out, 0x04, 3584, 0),
        (36, 96, Direction::In, 0x20, 0, 60),
        (96, 36, Direction::In, 0x10, 0, 60),
        (0, 0, Direction::None, 0x00, 0, 0),
        (512, 0, Direction::None, 0x10, 0, 512),
    ] {
        let rsp = Rsp::to_command(TAG, good, moved, data_len, direction, &[]);
        let bytes = rsp.encode().unwrap();
        assert_eq!(bytes[18], flags, "{moved} of {data_len} {direction:?}");
        assert_eq!(bytes[20..24], u32::to_be_bytes(out));
        assert_eq!(bytes[24..28], u32::to_be_bytes(inn));
        assert_eq!(rsp.residual().count(), out + inn);
        golden(Iu::Rsp(rsp), &bytes);
    }
}

#[test]
fn rsp_to_a_command_that_was_not_delivered() {
    for (host, status, response) in [
        (HostByte::Abort, Status::TaskAborted, None),
        (HostByte::Reset, Status::TaskAborted, None),
        (HostByte::TransportDisrupted, Status::TaskAborted, None),
        (HostByte::BadTarget, Status::Good, Some(ResponseCode::FieldsInvalid)),
        (HostByte::Error, Status::Good, Some(ResponseCode::FieldsInvalid)),
    ] {
        let result = CommandResult { host, status: Status::Good };
        let rsp = Rsp::to_command(TAG, result, 0, 0, Direction::None, &[]);
        assert_eq!((rsp.status, rsp.response, rsp.host), (status as u8, response, host));
    }
}

#[test]
fn rsp_to_task_management() {
    for (response, code) in [
        (FunctionResponse::Complete, "00"),
        (FunctionResponse::Rejected, "04"),
        (FunctionResponse::Failed, "05"),
        (FunctionResponse::Succeeded, "08"),
        (FunctionResponse::IncorrectLun, "09"),
    ] {
        let bytes = hex(&format!(
            "c1 00 0000 00000001 0102030405060708 0000 01 00 00000000 00000000 00000000 00000004 000000{code}"
        ));
        golden(Iu::Rsp(Rsp::to_task_management(TAG, response)), &bytes);
    }
}

#[test]
fn residuals_saturate() {
    assert_eq!(Residual::of(u64::MAX, 1), Residual::Over(u32::MAX));
    assert_eq!(Residual::of(0, u64::MAX), Residual::Under(u32::MAX));
}

#[test]
fn port_identifiers_are_frozen() {
    let initiator = PortId::of_initiator("vm1");
    let target = PortId::of_target("vm1");
    assert_eq!(initiator.to_string(), "6ab9ca0cf983d94f:7080d48ba5ef6be8");
    assert_eq!(target.to_string(), "5b6bef826083d94f:70810fc76b6e7d1b");
    assert_ne!(initiator, target);
    assert_ne!(initiator, PortId::of_initiator("vm2"));
    assert_eq!(initiator.0[..8], initiator.extension().to_be_bytes());
    assert_eq!(initiator.0[8..], initiator.guid().to_be_bytes());
}

#[test]
fn unknown_types_are_refused() {
    let known = [0x00, 0x01, 0x02, 0x03, 0x41, 0x42, 0x80, 0x81, 0x82, 0xc0, 0xc1, 0xc2];
    for code in (0..=255).filter(|c| !known.contains(c)) {
        assert_eq!(Iu::decode(&[code; 64], &mut Vec::new()), Err(IuError::Type(code)));
    }
    assert_eq!(LoginReq::decode(&[1; 64]), Err(IuError::Type(1)));
}

fn any_bytes() -> impl Strategy<Value = Vec<u8>> {
    let kinds = vec![0x00u8, 0x01, 0x02, 0x03, 0x41, 0x42, 0x80, 0x81, 0x82, 0xc0, 0xc1, 0xc2];
    (proptest::sample::select(kinds), proptest::collection::vec(any::<u8>(), 0..400)).prop_map(|(kind, mut bytes)| {
        if let Some(first) = bytes.first_mut() {
            *first = kind;
        }
        bytes
    })
}

proptest! {
    #[test]
    fn hostile_bytes_never_panic(bytes in any_bytes()) {
        let mut pieces = Vec::new();
        if let Ok(iu) = Iu::decode(&bytes, &mut pieces) {
            // What was understood can be said again, and means the same.
            let again = iu.encode().unwrap();
            let mut pieces = Vec::new();
            prop_assert_eq!(Iu::decode(&again, &mut pieces), Ok(iu.clone()));
        }
    }

    #[test]
    fn hostile_commands_never_panic(
        formats in any::<u8>(), counts in any::<[u8; 2]>(), attribute in any::<u8>(), extra in any::<u8>(),
        body in proptest::collection::vec(any::<u8>(), 0..600),
    ) {
        let mut bytes = vec![0; 48];
        bytes[0] = 0x02;
        bytes[5] = formats;
        bytes[6..8].copy_from_slice(&counts);
        bytes[29] = attribute;
        bytes[31] = extra;
        bytes.extend_from_slice(&body);
        let mut pieces = Vec::new();
        if let Ok(cmd) = Cmd::decode(&bytes, &mut pieces) {
            prop_assert!(cmd.cdb.len() >= 16);
            prop_assert!(cmd.encode().is_ok());
        }
    }

    #[test]
    fn commands_survive_the_wire(
        tag in any::<u64>(), lun in any::<[u8; 8]>(), words in 0usize..63,
        out in proptest::collection::vec(any::<(u64, u32, u16)>(), 0..20),
        inn in proptest::collection::vec(any::<(u64, u32, u16)>(), 0..20),
    ) {
        let describe = |list: Vec<(u64, u32, u16)>| -> Vec<DirectDescriptor> {
            list.into_iter().map(|(va, key, len)| DirectDescriptor { va, key, len: u32::from(len) }).collect()
        };
        let (out, inn) = (describe(out), describe(inn));
        let cdb: Vec<u8> = (0..16 + words * 4).map(|i| i as u8).collect();
        let cmd = Cmd {
            notify: SolicitedNotification::default(),
            tag,
            lun: Lun(lun),
            attribute: TaskAttribute::Simple,
            cdb: &cdb,
            data_out: Buffers::of(&out).unwrap(),
            data_in: Buffers::of(&inn).unwrap(),
        };
        let bytes = cmd.encode().unwrap();
        let mut pieces = Vec::new();
        prop_assert_eq!(Cmd::decode(&bytes, &mut pieces), Ok(cmd));
    }
}

mod login_machine {
    use super::*;

    const LIMITS: PortLimits =
        PortLimits { request_limit: 3, max_it_iu_len: 4096, max_ti_iu_len: 512, formats: FormatSet::ALL };

    fn port() -> TargetPort {
        TargetPort::new(PortId::of_target("t"), LIMITS)
    }

    fn request() -> LoginReq {
        LoginReq {
            tag: 9,
            req_it_iu_len: 1024,
            formats: FormatSet::ALL,
            multi_channel: false,
            initiator: PortId::of_initiator("i"),
            target: PortId::of_target("t"),
        }
    }

    fn rejected(action: LoginAction) -> RejectReason {
        match action {
            LoginAction::Reject(rej) => rej.reason,
            other => panic!("{other:?}"),
        }
    }

    #[test]
    fn login_answers_after_the_nexus_exists() {
        let mut p = port();
        assert_eq!(p.take_credit(), Err(NoCredit));
        let create = LoginAction::CreateNexus { initiator: PortId::of_initiator("i"), max_cmds: 3 };
        assert_eq!(p.login(&request()), create);
        assert_eq!((p.logged_in(), p.take_credit()), (None, Err(NoCredit)));
        let rsp =
            LoginRsp { req_lim_delta: 3, tag: 9, max_it_iu_len: 4096, max_ti_iu_len: 512, formats: FormatSet::ALL };
        assert_eq!(p.nexus_answer(0), Some(LoginAnswer::Accepted(rsp)));
        assert_eq!(p.logged_in(), Some(PortId::of_initiator("i")));
        assert_eq!(p.nexus_answer(0), None);
    }

    #[test]
    fn refusals() {
        for (change, reason) in [
            ((|r| r.req_it_iu_len = 4097) as fn(&mut LoginReq), RejectReason::IuTooLong),
            (|r| r.req_it_iu_len = 63, RejectReason::CannotEstablish),
            (|r| r.target = PortId::of_target("u"), RejectReason::CannotAssociate),
            (|r| r.formats = FormatSet(0), RejectReason::DescriptorFormat),
            (|r| r.formats = FormatSet(0x0e), RejectReason::DescriptorFormat),
            (|r| r.multi_channel = true, RejectReason::MultiChannel),
        ] {
            let mut p = port();
            let mut req = request();
            change(&mut req);
            assert_eq!(rejected(p.login(&req)), reason);
            // Nothing happened: a good login still works.
            assert!(matches!(p.login(&request()), LoginAction::CreateNexus { .. }));
            assert_eq!(rejected(p.login(&request())), RejectReason::ChannelLimit);
        }
    }

    #[test]
    fn reasons_of_a_refused_nexus() {
        for (errno, reason) in [
            (libc::EEXIST, RejectReason::ChannelLimit),
            (libc::ENOMEM, RejectReason::NoResources),
            (libc::EAGAIN, RejectReason::NoResources),
            (libc::ENODEV, RejectReason::CannotAssociate),
            (libc::EINVAL, RejectReason::CannotEstablish),
            (i32::MIN, RejectReason::CannotEstablish),
        ] {
            let mut p = port();
            p.login(&request());
            let rej = LoginRej { reason, tag: 9, formats: FormatSet::ALL };
            let result = if errno == i32::MIN { errno } else { -errno };
            assert_eq!(p.nexus_answer(result), Some(LoginAnswer::Rejected(rej)));
            assert_eq!(p.initiator(), None);
            assert!(matches!(p.login(&request()), LoginAction::CreateNexus { .. }));
        }
    }

    #[test]
    fn credit_runs_out_and_comes_back() {
        let mut p = port();
        p.login(&request());
        p.nexus_answer(0);
        for _ in 0..3 {
            assert_eq!(p.take_credit(), Ok(()));
        }
        assert_eq!(p.take_credit(), Err(NoCredit));
        assert_eq!(p.give_credit_back(), 1);
        assert_eq!((p.take_credit(), p.take_credit()), (Ok(()), Err(NoCredit)));
        assert_eq!(p.raise_limit(2, 77), Some(CredReq { solicited: false, req_lim_delta: 2, tag: 77 }));
        assert_eq!((p.credit().left(), p.credit().outstanding()), (2, 3));
    }

    #[test]
    fn a_limit_cannot_pass_what_the_field_holds() {
        let mut credit = Credit::new(0);
        assert_eq!(credit.raise(u32::MAX), i32::MAX);
        assert_eq!(credit.raise(1), 0);
    }

    #[test]
    fn logout_ends_the_nexus_once() {
        let mut p = port();
        assert!(!p.i_logout(&ILogout { tag: 1 }), "nobody is logged in");
        p.login(&request());
        assert!(!p.connection_lost(), "the login must be answered first");
        p.nexus_answer(0);
        assert_eq!(p.take_credit(), Ok(()));
        assert!(p.i_logout(&ILogout { tag: 1 }));
        assert!(!p.connection_lost());
        assert_eq!(p.t_logout(5, LogoutReason::None), None);
        assert_eq!(p.take_credit(), Err(NoCredit));
        assert_eq!(rejected(p.login(&request())), RejectReason::ChannelLimit, "the old nexus is still there");
        p.nexus_gone();
        assert!(matches!(p.login(&request()), LoginAction::CreateNexus { .. }));
    }

    #[test]
    fn the_target_can_end_a_login() {
        let mut p = port();
        p.login(&request());
        p.nexus_answer(0);
        let iu = TLogout { solicited: false, reason: LogoutReason::InvalidType, tag: 5 };
        assert_eq!(p.t_logout(5, LogoutReason::InvalidType), Some(iu));
        assert_eq!(p.raise_limit(1, 1), None);
        p.nexus_gone();
        assert_eq!(p.initiator(), None);
    }
}
