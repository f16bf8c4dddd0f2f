//! Events against literal bytes of `struct tgt_event`.

use proptest::prelude::*;

use super::*;

fn hex(text: &str) -> [u8; EVENT_SIZE] {
    let digits: Vec<u8> = text.bytes().filter(|b| !b.is_ascii_whitespace()).collect();
    let bytes = digits.chunks(2).map(|d| u8::from_str_radix(std::str::from_utf8(d).unwrap(), 16).unwrap());
    let mut event = [0; EVENT_SIZE];
    for (to, from) in event.iter_mut().zip(bytes) {
        *to = from;
    }
    event
}

fn kevent(event: KEvent, text: &str) {
    let bytes = hex(text);
    assert_eq!(event.encode(), bytes);
    assert_eq!(KEvent::decode(&bytes), Ok(event));
    assert_eq!(UEvent::decode(&bytes), Err(EventError::Type(event.number())), "never the other way");
}

fn uevent(event: UEvent, text: &str) {
    let bytes = hex(text);
    assert_eq!(event.encode(), bytes);
    assert_eq!(UEvent::decode(&bytes), Ok(event));
    assert_eq!(KEvent::decode(&bytes), Err(EventError::Type(event.number())), "never the other way");
}

#[test]
fn cmd_req() {
    let event = CmdReq {
        host_no: 3,
        data_len: 0x1000,
        itn_id: 0x1122_3344_5566_7788,
        scb: [0x28, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14, 15],
        lun: Lun([1, 2, 0, 3, 0, 0, 0, 0]),
        attribute: 0x20,
        tag: Tag(0x8877_6655_4433_2211),
    };
    kevent(
        KEvent::CmdReq(event),
        "0000 0100 0110 3800  03000000 00100000 8877665544332211 280102030405060708090a0b0c0d0e0f
         0102000300000000 20000000 00000000 1122334455667788",
    );
}

#[test]
fn cmd_done() {
    let event = CmdDone { host_no: -1, result: -5, itn_id: 0x10, tag: Tag(0x20) };
    kevent(KEvent::CmdDone(event), "0000 0100 0210 1800  ffffffff fbffffff 1000000000000000 2000000000000000");
}

#[test]
fn it_nexus_req() {
    for (function, number) in [(NexusFunction::Create, "00000000"), (NexusFunction::Destroy, "01000000")] {
        let event =
            ItNexusReq { host_no: 1, function, itn_id: 0x10, max_cmds: 0x400, initiator_id: *b"0123456789abcdef" };
        kevent(
            KEvent::ItNexusReq(event),
            &format!(
                "0000 0100 0310 2800  01000000 {number} 1000000000000000 00040000 30313233343536373839616263646566"
            ),
        );
    }
}

#[test]
fn tsk_mgmt_req() {
    let event = TskMgmtReq {
        host_no: 1,
        function: 0x08,
        itn_id: 0x10,
        tag: Tag::NONE,
        lun: Lun([1, 0, 0x40, 9, 0, 0, 0, 0]),
        mid: 0x30,
    };
    kevent(
        KEvent::TskMgmtReq(event),
        "0000 0100 0410 2800  01000000 08000000 1000000000000000 ffffffffffffffff 0100400900000000 3000000000000000",
    );
}

#[test]
fn cmd_rsp() {
    let event = CmdRsp {
        host_no: 1,
        result: 0x0008_0002,
        itn_id: 0x10,
        tag: Tag(0x20),
        uaddr: 0x30,
        len: 0x50,
        sense_uaddr: 0x40,
        sense_len: 0x60,
        rw: 1,
    };
    uevent(
        UEvent::CmdRsp(event),
        "0000 0100 0100 3800  01000000 02000800 1000000000000000 2000000000000000 3000000000000000
         4000000000000000 50000000 60000000 01",
    );
}

#[test]
fn it_nexus_rsp() {
    let event = ItNexusRsp { host_no: 1, result: -libc::EEXIST, itn_id: 0x10, function: NexusFunction::Destroy };
    uevent(UEvent::ItNexusRsp(event), "0000 0100 0200 1800  01000000 efffffff 1000000000000000 01000000");
}

#[test]
fn tsk_mgmt_rsp() {
    let event = TskMgmtRsp { host_no: 1, result: 9, itn_id: 0x10, mid: 0x30 };
    uevent(UEvent::TskMgmtRsp(event), "0000 0100 0300 1800  01000000 09000000 1000000000000000 3000000000000000");
}

/// What tgt never had has numbers beyond its own.
#[test]
fn events_of_our_own() {
    let lun = Lun([1, 0, 0x41, 9, 0, 0, 0, 0]);
    for (function, number) in [(AsyncFunction::Query, "00000000"), (AsyncFunction::Subscribe, "01000000")] {
        let event = AsyncReq { host_no: 1, function, itn_id: 0x10, lun, events: 0x22, mid: 0x30 };
        kevent(
            KEvent::AsyncReq(event),
            &format!(
                "0000 0100 0111 2800  01000000 {number} 1000000000000000 0100410900000000 3000000000000000 22000000"
            ),
        );
    }
    let event = AsyncRsp { host_no: 1, result: 9, itn_id: 0x10, mid: 0x30, events: 0x22 };
    uevent(
        UEvent::AsyncRsp(event),
        "0000 0100 0101 2000  01000000 09000000 1000000000000000 3000000000000000 22000000",
    );
    let event = AerReq { host_no: 1, events: 0x20, itn_id: 0x10, lun, sense_len: 18 };
    uevent(UEvent::AerReq(event), "0000 0100 0201 2000  01000000 20000000 1000000000000000 0100410900000000 12000000");
}

#[test]
fn a_slot_must_be_full_and_of_this_version() {
    let done = KEvent::CmdDone(CmdDone { host_no: 0, result: 0, itn_id: 0, tag: Tag(0) }).encode();
    let with = |at: usize, value: u8| {
        let mut bytes = done;
        bytes[at] = value;
        KEvent::decode(&bytes)
    };
    assert_eq!(with(0, 1), Err(EventError::Version(1)));
    assert_eq!(with(2, 0), Err(EventError::Empty));
    assert_eq!(with(4, 9), Err(EventError::Type(0x1009)));
    assert_eq!(with(6, 25), Err(EventError::Length(25)));
    assert!(with(6, 0).is_ok(), "tgt itself never set it");
}

#[test]
fn a_function_must_exist() {
    let bytes = hex("0000 0100 0310 2800  01000000 02000000");
    assert_eq!(KEvent::decode(&bytes), Err(EventError::Function(2)));
    let bytes = hex("0000 0100 0111 2800  01000000 02000000");
    assert_eq!(KEvent::decode(&bytes), Err(EventError::Function(2)));
}

#[test]
fn a_ring_is_64_kib() {
    assert_eq!(crate::tgt::RING_SLOTS * EVENT_SIZE, 64 * 1024);
}

proptest! {
    #[test]
    fn any_bytes_are_refused_or_mean_one_event(mut bytes in any::<[u8; 32]>(), rest in any::<[u8; 32]>(), kind in prop_oneof![0u16..6, 0x100u16..0x104], user in any::<bool>()) {
        bytes[0..4].copy_from_slice(&[0, 0, 1, 0]);
        bytes[4..6].copy_from_slice(&(kind | if user { 0 } else { 0x1000 }).to_le_bytes());
        bytes[6..8].fill(0);
        let mut event = [0; EVENT_SIZE];
        event[..32].copy_from_slice(&bytes);
        event[32..].copy_from_slice(&rest);
        if let Ok(k) = KEvent::decode(&event) {
            prop_assert_eq!(KEvent::decode(&k.encode()), Ok(k));
            prop_assert!(UEvent::decode(&event).is_err());
        }
        if let Ok(u) = UEvent::decode(&event) {
            prop_assert_eq!(UEvent::decode(&u.encode()), Ok(u));
        }
    }
}
