//! The session against a device that writes down its calls, over a real socket.

use std::fs::File;
use std::io::Read;
use std::os::fd::AsRawFd;
use std::os::unix::fs::FileExt;
use std::os::unix::net::UnixStream;
use std::thread::JoinHandle;
use std::time::Duration;

use vhost::VhostBackend;
use vhost::vhost_user::message::FrontendReq::{self, *};
use vhost::vhost_user::{Frontend, VhostUserFrontend, VhostUserProtocolFeatures};
use vmm_sys_util::eventfd::{EFD_NONBLOCK, EventFd};

use super::super::testing::wire::{EVENT_IDX, LOG_ALL, PROTOCOL, PROTOCOL_BITS, VERSION_1, Wire, WireRegion};
use super::super::testing::{Call, Mock};
use super::super::{Hangup, connection};
use crate::mem::testing::memfd;
use crate::sys::rate_limit::RateLimit;

const USER: u64 = 0x7f12_3400_0000;
const RAM: u64 = 0x10_0000;
const FEATURES: u64 = PROTOCOL | VERSION_1 | EVENT_IDX;

/// A front-end with one region of guest memory, and the session that serves it.
struct Fixture {
    wire: Wire,
    mock: Mock,
    ram: File,
    events: Vec<EventFd>,
    thread: Option<JoinHandle<()>>,
}

const LOW: WireRegion = WireRegion { guest: 0, size: RAM, user: USER, offset: 0 };

impl Fixture {
    fn new() -> Fixture {
        let (ours, theirs) = UnixStream::pair().unwrap();
        let mock = Mock::default();
        let device = Box::new(mock.clone());
        let thread = std::thread::spawn(move || {
            connection::serve("test", &Hangup::new(theirs), device, &RateLimit::new(0, Duration::ZERO));
        });
        Fixture { wire: Wire::new(ours), mock, ram: memfd(RAM), events: Vec::new(), thread: Some(thread) }
    }

    /// With features negotiated as QEMU does.
    fn negotiated() -> Fixture {
        let f = Fixture::new();
        f.connect();
        f.wire.set_u64(SET_FEATURES, FEATURES);
        f.memory();
        f.wire.barrier();
        f.mock.calls();
        f
    }

    /// With ring 2 running.
    fn running() -> Fixture {
        let mut f = Fixture::negotiated();
        f.set_up(2);
        f.kick(2);
        f.enable(2, true);
        assert_eq!(f.calls(), [start(2)]);
        f
    }

    fn connect(&self) {
        self.wire.barrier();
        self.wire.get(GET_PROTOCOL_FEATURES);
        self.wire.set_u64(SET_PROTOCOL_FEATURES, PROTOCOL_BITS);
        self.wire.send(SET_OWNER, &[], &[]);
    }

    fn memory(&self) {
        assert_eq!(self.wire.acked(SET_MEM_TABLE, &Wire::table(&[LOW]), &[self.ram.as_raw_fd()]), 0);
    }

    fn desc(index: u64) -> u64 {
        0x1000 * index
    }

    fn addr(index: u32) -> Vec<u8> {
        let at = USER + Fixture::desc(index.into());
        Wire::addr(index, 0, at, at + 0x900, at + 0x800)
    }

    /// SET_VRING_NUM, _BASE, _ADDR.
    fn set_up(&self, index: u32) {
        self.wire.set_state(SET_VRING_NUM, index, 128);
        self.wire.set_state(SET_VRING_BASE, index, 0);
        self.wire.send(SET_VRING_ADDR, &Fixture::addr(index), &[]);
    }

    fn event(&mut self, request: FrontendReq, index: u8) {
        let event = EventFd::new(EFD_NONBLOCK).unwrap();
        self.wire.event(request, index, Some(&event));
        self.events.push(event);
    }

    fn kick(&mut self, index: u8) {
        self.event(SET_VRING_KICK, index);
    }

    fn enable(&self, index: u32, on: bool) {
        assert_eq!(self.wire.acked(SET_VRING_ENABLE, &Wire::state(index, on.into()), &[]), 0);
    }

    fn calls(&self) -> Vec<Call> {
        self.wire.barrier();
        self.mock.calls()
    }

    /// The connection is ended by the other side and the device told.
    fn assert_ended(&mut self) {
        self.wire.assert_closed();
        self.thread.take().unwrap().join().unwrap();
        assert_eq!(self.mock.calls().last(), Some(&Call::Disconnected));
    }
}

fn start_at(index: u16, next_avail: u16, next_used: u16) -> Call {
    let desc = Fixture::desc(index.into());
    let (avail, used) = (desc + 0x800, desc + 0x900);
    Call::Start { index, size: 128, desc, avail, used, next_avail, next_used, kick: true }
}

fn start(index: u16) -> Call {
    start_at(index, 0, 0)
}

#[test]
fn what_is_offered() {
    let f = Fixture::new();
    let features = f.wire.get(GET_FEATURES);
    assert_ne!(features & LOG_ALL, 0);
    assert_ne!(features & PROTOCOL, 0);
    assert_ne!(features & VERSION_1, 0);
    assert_eq!(f.wire.get(GET_PROTOCOL_FEATURES), PROTOCOL_BITS | 1 << 12, "and INFLIGHT_SHMFD");
    f.wire.set_u64(SET_PROTOCOL_FEATURES, PROTOCOL_BITS);
    assert_eq!(f.wire.get(GET_QUEUE_NUM), 254);
    assert_eq!(f.wire.get(GET_MAX_MEM_SLOTS), 509);
}

#[test]
fn qemu_firmware_then_system() {
    let mut f = Fixture::new();
    f.connect();
    for index in 0..6 {
        f.event(SET_VRING_CALL, index);
        f.event(SET_VRING_ERR, index);
    }
    f.wire.send(RESET_DEVICE, &[], &[]);
    f.wire.send(RESET_DEVICE, &[], &[]);
    assert_eq!(f.calls(), [Call::Reset, Call::Reset]);
    // Firmware: one ring, all enabled, calls again.
    f.wire.set_u64(SET_FEATURES, PROTOCOL | VERSION_1);
    f.wire.set_u64(SET_FEATURES, PROTOCOL | VERSION_1);
    assert_eq!(f.wire.acked(ADD_MEM_REG, &Wire::single(&LOW), &[f.ram.as_raw_fd()]), 0);
    f.set_up(2);
    f.kick(2);
    (0..6).for_each(|index| f.enable(index, true));
    (0..6).for_each(|index| f.event(SET_VRING_CALL, index));
    let expected =
        [Call::Features(VERSION_1), Call::Memory { regions: 1, gone: false }, start(2), Call::NewInterrupt(2, true)];
    assert_eq!(f.calls(), expected);
    // Stop.
    f.mock.book(|book| book.taken.insert(2, 260));
    (0..6).for_each(|index| f.enable(index, false));
    assert_eq!(f.wire.get_base(2), 260);
    f.wire.send(RESET_DEVICE, &[], &[]);
    assert_eq!(f.calls(), [Call::Stop(2), Call::Reset]);
    // The system, memory unchanged and not sent again.
    f.wire.set_u64(SET_FEATURES, FEATURES);
    for index in 0..3u8 {
        f.set_up(index.into());
        f.kick(index);
    }
    (0..6).for_each(|index| f.enable(index, true));
    assert_eq!(f.calls(), [Call::Features(VERSION_1 | EVENT_IDX), start(1), start(2), start(0)]);
}

/// QEMU 10: device_del, then device_add with the same chardev, whose connection stays.
#[test]
fn another_device_over_the_same_connection() {
    let mut f = Fixture::new();
    f.connect();
    f.wire.set_u64(SET_FEATURES, FEATURES);
    let plug = |f: &mut Fixture| {
        f.wire.send(SET_OWNER, &[], &[]);
        f.wire.set_u64(SET_FEATURES, FEATURES);
        assert_eq!(f.wire.acked(ADD_MEM_REG, &Wire::single(&LOW), &[f.ram.as_raw_fd()]), 0);
        f.set_up(2);
        f.kick(2);
        f.enable(2, true);
    };
    plug(&mut f);
    f.calls();
    f.mock.book(|book| book.taken.insert(2, 260));
    assert_eq!(f.wire.get_base(2), 260);
    plug(&mut f);
    let gone = Call::Memory { regions: 0, gone: true };
    assert_eq!(f.calls(), [Call::Stop(2), gone, Call::Memory { regions: 1, gone: false }, start(2)]);
}

#[test]
fn the_crates_front_end() {
    let (ours, theirs) = UnixStream::pair().unwrap();
    let mock = Mock::default();
    let device = Box::new(mock.clone());
    let thread = std::thread::spawn(move || {
        connection::serve("test", &Hangup::new(theirs), device, &RateLimit::new(0, Duration::ZERO));
    });
    let mut frontend = Frontend::from_stream(ours, 256);
    frontend.set_owner().unwrap();
    let features = frontend.get_features().unwrap();
    frontend.set_features(features).unwrap();
    let protocol = frontend.get_protocol_features().unwrap();
    assert!(protocol.contains(VhostUserProtocolFeatures::CONFIGURE_MEM_SLOTS));
    frontend.set_protocol_features(protocol).unwrap();
    assert_eq!(frontend.get_queue_num().unwrap(), 254);
    frontend.set_vring_enable(1, true).unwrap();
    frontend.reset_device().unwrap();
    drop(frontend);
    thread.join().unwrap();
    assert_eq!(mock.calls(), [Call::Features(features & !PROTOCOL & !LOG_ALL), Call::Reset, Call::Disconnected]);
}

#[test]
fn every_order_of_set_up_starts_the_ring_once() {
    // Each step of the set-up, in all 720 orders of: memory, size, addresses, kick, enable, features.
    let mut order = vec![0usize, 1, 2, 3, 4, 5];
    let mut orders = Vec::new();
    permute(&mut order, 0, &mut orders);
    assert_eq!(orders.len(), 720);
    for order in orders {
        let mut f = Fixture::new();
        f.connect();
        for step in &order {
            match step {
                0 => f.memory(),
                1 => f.wire.set_state(SET_VRING_NUM, 2, 128),
                2 => f.wire.send(SET_VRING_ADDR, &Fixture::addr(2), &[]),
                3 => f.kick(2),
                4 => f.enable(2, true),
                _ => f.wire.set_u64(SET_FEATURES, FEATURES),
            }
        }
        let starts: Vec<Call> = f.calls().into_iter().filter(|call| matches!(call, Call::Start { .. })).collect();
        assert_eq!(starts, [start(2)], "order {order:?}");
    }
}

fn permute(items: &mut Vec<usize>, from: usize, out: &mut Vec<Vec<usize>>) {
    if from == items.len() {
        out.push(items.clone());
    }
    for other in from..items.len() {
        items.swap(from, other);
        permute(items, from + 1, out);
        items.swap(from, other);
    }
}

#[test]
fn before_anything_else_calls_errors_and_enables_do_not_fail() {
    let mut f = Fixture::new();
    for index in [0u8, 1, 77, 255] {
        f.event(SET_VRING_CALL, index);
        f.event(SET_VRING_ERR, index);
        f.wire.set_state(SET_VRING_ENABLE, index.into(), 1);
        f.wire.set_state(SET_VRING_ENABLE, index.into(), 0);
    }
    f.wire.event(SET_VRING_CALL, 0, None);
    assert_eq!(f.calls(), []);
    f.connect();
    f.enable(7, true); // an early enable is acknowledged too
    assert_eq!(f.calls(), []);
}

#[test]
fn without_protocol_features_rings_begin_enabled() {
    let mut f = Fixture::new();
    f.wire.set_u64(SET_FEATURES, VERSION_1);
    f.wire.send(SET_MEM_TABLE, &Wire::table(&[LOW]), &[f.ram.as_raw_fd()]);
    f.set_up(2);
    f.kick(2);
    assert_eq!(f.calls()[2..], [start(2)]);
}

#[test]
fn a_kick_without_a_descriptor_starts_too() {
    let f = Fixture::negotiated();
    f.set_up(2);
    f.wire.event(SET_VRING_KICK, 2, None);
    f.enable(2, true);
    assert!(matches!(f.calls()[..], [Call::Start { index: 2, kick: false, .. }]));
}

#[test]
fn indexes_come_from_the_message_and_from_the_used_ring() {
    let mut f = Fixture::negotiated();
    f.ram.write_at(&0xfff0u16.to_le_bytes(), Fixture::desc(2) + 0x902).unwrap();
    f.set_up(2);
    f.wire.set_state(SET_VRING_BASE, 2, 0xfffe);
    f.kick(2);
    f.enable(2, true);
    assert_eq!(f.calls(), [start_at(2, 0xfffe, 0xfff0)]);
    f.mock.book(|book| book.taken.insert(2, 5));
    assert_eq!(f.wire.get_base(2), 3, "16 bits, wrapped");
}

#[test]
fn a_ring_that_never_ran_returns_its_base() {
    let f = Fixture::negotiated();
    f.wire.set_state(SET_VRING_BASE, 5, 4711);
    assert_eq!(f.wire.get_base(5), 4711);
    assert_eq!(f.wire.get_base(6), 0);
    assert_eq!(f.calls(), []);
}

#[test]
fn disable_pauses_and_enable_goes_on() {
    let f = Fixture::running();
    f.mock.book(|book| book.taken.insert(2, 9));
    f.enable(2, false);
    f.enable(2, false);
    f.ram.write_at(&9u16.to_le_bytes(), Fixture::desc(2) + 0x902).unwrap();
    f.enable(2, true);
    f.enable(2, true);
    assert_eq!(f.calls(), [Call::Stop(2), start_at(2, 9, 9)]);
}

#[test]
fn a_stopped_ring_starts_again_only_with_a_kick() {
    let mut f = Fixture::running();
    assert_eq!(f.wire.get_base(2), 0);
    f.enable(2, false);
    f.enable(2, true);
    f.memory();
    assert_eq!(f.calls(), [Call::Stop(2), Call::Memory { regions: 1, gone: false }]);
    f.kick(2);
    assert_eq!(f.calls(), [start(2)]);
}

#[test]
fn addresses_of_a_live_ring() {
    let f = Fixture::running();
    // What QEMU sends when a migration starts: the same, with the log flag.
    let mut body = Fixture::addr(2);
    body[4] = 1;
    f.wire.send(SET_VRING_ADDR, &body, &[]);
    assert_eq!(f.calls(), []);
    f.mock.book(|book| book.taken.insert(2, 3));
    let at = USER + 0x8000;
    f.wire.send(SET_VRING_ADDR, &Wire::addr(2, 0, at, at + 0x900, at + 0x800), &[]);
    let moved = Call::Start {
        index: 2,
        size: 128,
        desc: 0x8000,
        avail: 0x8800,
        used: 0x8900,
        next_avail: 3,
        next_used: 0,
        kick: true,
    };
    assert_eq!(f.calls(), [Call::Stop(2), moved]);
}

/// SET_VRING_ADDR of ring `index` as it was, with the log flag and an address for the log.
fn logged(index: u32, log: u64) -> Vec<u8> {
    let at = USER + Fixture::desc(index.into());
    Wire::addr_logged(index, 1, at, at + 0x900, at + 0x800, log)
}

#[test]
fn a_log_comes_and_goes_under_a_running_ring() {
    let f = Fixture::running();
    let log = memfd(4096);
    // As QEMU begins.
    f.wire.set_log_base(4096, 0, log.as_raw_fd());
    assert_eq!(f.calls(), [], "nothing is to be logged yet");
    assert_eq!(f.wire.acked(SET_FEATURES, &(FEATURES | LOG_ALL).to_ne_bytes(), &[]), 0);
    assert_eq!(f.calls(), [Call::Log(true, vec![])]);
    assert_eq!(f.wire.acked(SET_VRING_ADDR, &logged(2, 0x2900), &[]), 0);
    assert_eq!(f.calls(), [Call::Log(true, vec![(2, 0x2900)])]);
    // The same again is nothing new.
    assert_eq!(f.wire.acked(SET_VRING_ADDR, &logged(2, 0x2900), &[]), 0);
    assert_eq!(f.wire.acked(SET_FEATURES, &(FEATURES | LOG_ALL).to_ne_bytes(), &[]), 0);
    assert_eq!(f.calls(), []);
    let first = f.mock.book(|book| std::sync::Arc::downgrade(book.log.as_ref().unwrap()));
    // A larger one, and nobody has the one before any more.
    let larger = memfd(8192);
    f.wire.set_log_base(8192, 0, larger.as_raw_fd());
    assert_eq!(f.calls(), [Call::Log(true, vec![(2, 0x2900)])]);
    assert!(first.upgrade().is_none());
    let second = f.mock.book(|book| std::sync::Arc::downgrade(book.log.as_ref().unwrap()));
    // Off again, in QEMU's order.
    f.wire.set_u64(SET_FEATURES, FEATURES);
    assert_eq!(f.calls(), [Call::Log(false, vec![(2, 0x2900)])]);
    assert!(second.upgrade().is_some(), "the used ring is still logged there");
    f.wire.send(SET_VRING_ADDR, &Fixture::addr(2), &[]);
    assert_eq!(f.calls(), [Call::Log(false, vec![])]);
    assert!(second.upgrade().is_none(), "unmapped");
    // On, with the log that it had.
    f.wire.set_u64(SET_FEATURES, FEATURES | LOG_ALL);
    assert_eq!(f.calls(), [Call::Log(true, vec![])]);
}

#[test]
fn a_ring_starts_with_its_log() {
    let mut f = Fixture::negotiated();
    // As QEMU goes on after a migration that failed: flags first, the log last.
    f.wire.set_u64(SET_FEATURES, FEATURES | LOG_ALL);
    f.set_up(2);
    f.wire.send(SET_VRING_ADDR, &logged(2, 77), &[]);
    f.kick(2);
    assert_eq!(f.calls(), []);
    let log = memfd(4096);
    f.wire.set_log_base(4096, 0, log.as_raw_fd());
    f.enable(2, true);
    assert_eq!(f.calls(), [Call::Log(true, vec![(2, 77)]), start(2)]);
    f.mock.book(|book| assert_eq!(book.running[&2].used_log.as_ref().unwrap().addr, 77));
    // A reset takes it all away.
    f.wire.send(RESET_DEVICE, &[], &[]);
    assert_eq!(f.calls(), [Call::Reset, Call::Log(false, vec![])]);
}

#[test]
fn a_log_that_cannot_be_ends_the_connection() {
    for (what, size, offset) in
        [("size", 4097u64, 0u64), ("offset", 4096, 8), ("nothing", 0, 0), ("sum", 16, u64::MAX - 8)]
    {
        let mut f = Fixture::running();
        let log = memfd(4096);
        let body = [size.to_ne_bytes(), offset.to_ne_bytes()].concat();
        f.wire.send(SET_LOG_BASE, &body, &[log.as_raw_fd()]);
        f.assert_ended();
        println!("{what}: ended");
    }
    let mut f = Fixture::running();
    f.wire.send(SET_LOG_BASE, &[4096u64.to_ne_bytes(), [0; 8]].concat(), &[]);
    f.assert_ended();
}

#[test]
fn a_second_kick_replaces_the_first() {
    let mut f = Fixture::running();
    f.mock.book(|book| book.taken.insert(2, 3));
    f.kick(2);
    assert_eq!(f.calls(), [Call::Stop(2), start_at(2, 3, 0)]);
}

#[test]
fn size_and_base_of_a_live_ring_are_refused_unless_the_same() {
    let mut f = Fixture::running();
    assert_eq!(f.wire.acked(SET_VRING_NUM, &Wire::state(2, 128), &[]), 0);
    assert_eq!(f.wire.acked(SET_VRING_BASE, &Wire::state(2, 0), &[]), 0);
    assert_eq!(f.calls(), []);
    assert_eq!(f.wire.acked(SET_VRING_NUM, &Wire::state(2, 64), &[]), 1);
    f.assert_ended();
    let mut f = Fixture::running();
    assert_eq!(f.wire.acked(SET_VRING_BASE, &Wire::state(2, 1), &[]), 1);
    f.assert_ended();
}

#[test]
fn calls_and_errors_of_a_live_ring_are_handed_on() {
    let mut f = Fixture::running();
    f.event(SET_VRING_CALL, 2);
    f.wire.event(SET_VRING_CALL, 2, None);
    f.event(SET_VRING_ERR, 2);
    f.event(SET_VRING_CALL, 3);
    assert_eq!(f.calls(), [Call::NewInterrupt(2, true), Call::NewInterrupt(2, false), Call::SetErr(2, true)]);
}

#[test]
fn reset_stops_disables_and_forgets_features_but_keeps_memory() {
    let mut f = Fixture::running();
    f.wire.send(RESET_DEVICE, &[], &[]);
    f.set_up(2);
    f.kick(2);
    f.wire.set_u64(SET_FEATURES, FEATURES);
    assert_eq!(f.calls(), [Call::Reset, Call::Features(FEATURES & !PROTOCOL)], "enabled no more");
    f.enable(2, true);
    assert_eq!(f.calls(), [start(2)]);
}

#[test]
fn owner_messages_are_tolerated() {
    let f = Fixture::running();
    f.wire.send(SET_OWNER, &[], &[]);
    f.wire.send(SET_OWNER, &[], &[]);
    f.wire.send(RESET_OWNER, &[], &[]);
    assert_eq!(f.calls(), []);
}

#[test]
fn features_that_cannot_work_end_the_connection() {
    for bit in [3, 33, 34, 35] {
        let mut f = Fixture::new();
        f.connect();
        let value = (FEATURES | 1 << bit).to_ne_bytes();
        assert_eq!(f.wire.acked(SET_FEATURES, &value, &[]), 1, "bit {bit}");
        f.assert_ended();
    }
}

#[test]
fn bits_that_qemu_leaks_and_legacy_guests_are_accepted() {
    let f = Fixture::new();
    f.connect();
    f.wire.set_u64(SET_FEATURES, PROTOCOL);
    f.wire.set_u64(SET_FEATURES, PROTOCOL | 1 << 24 | 1 << 38 | 1 << 40);
    assert_eq!(f.calls(), [Call::Features(0), Call::Features(1 << 24 | 1 << 38 | 1 << 40)]);
}

#[test]
fn features_of_live_rings_cannot_change() {
    let mut f = Fixture::running();
    f.wire.set_u64(SET_FEATURES, FEATURES);
    assert_eq!(f.calls(), []);
    assert_eq!(f.wire.acked(SET_FEATURES, &PROTOCOL.to_ne_bytes(), &[]), 1);
    f.assert_ended();
}

#[test]
fn protocol_features_not_offered_are_refused() {
    let mut f = Fixture::new();
    f.wire.barrier();
    f.wire.set_u64(SET_PROTOCOL_FEATURES, PROTOCOL_BITS | 1 << 16);
    f.assert_ended();
}

#[test]
fn a_rejected_login_fails_the_message_that_starts() {
    let mut f = Fixture::negotiated();
    f.set_up(2);
    f.kick(2);
    f.mock.book(|book| book.reject = Some("port is taken"));
    assert_eq!(f.wire.acked(SET_VRING_ENABLE, &Wire::state(2, 1), &[]), 1);
    f.assert_ended();
}

#[test]
fn all_256_rings_run() {
    let mut f = Fixture::negotiated();
    for index in 0..256u32 {
        f.wire.set_state(SET_VRING_NUM, index, 16);
        f.wire.send(SET_VRING_ADDR, &Wire::addr(index, 0, USER, USER + 0x200, USER + 0x100), &[]);
        f.wire.event(SET_VRING_KICK, index as u8, None);
        f.enable(index, true);
    }
    assert_eq!(f.calls().len(), 256);
    assert_eq!(f.wire.acked(SET_VRING_ENABLE, &Wire::state(256, 1), &[]), 1);
    f.assert_ended();
}

#[test]
fn bad_rings_end_the_connection() {
    type Bad = fn(&mut Fixture);
    let cases: [(&str, Bad); 9] = [
        ("size 0", |f| f.wire.set_state(SET_VRING_NUM, 2, 0)),
        ("size 100", |f| f.wire.set_state(SET_VRING_NUM, 2, 100)),
        ("size 2048", |f| f.wire.set_state(SET_VRING_NUM, 2, 2048)),
        ("size 65536+128", |f| f.wire.set_state(SET_VRING_NUM, 2, 0x1_0080)),
        ("base 65536", |f| f.wire.set_state(SET_VRING_BASE, 2, 0x1_0000)),
        ("index 256", |f| f.wire.set_state(SET_VRING_NUM, 256, 128)),
        ("index -1", |f| f.wire.set_state(SET_VRING_NUM, u32::MAX, 128)),
        ("base of index 999", |f| f.wire.set_state(GET_VRING_BASE, 999, 0)),
        ("kick is a memory file", |f| {
            let file = memfd(1);
            f.wire.event(SET_VRING_KICK, 2, Some(&file));
        }),
    ];
    for (what, bad) in cases {
        let mut f = Fixture::negotiated();
        bad(&mut f);
        f.assert_ended();
        println!("{what}: ended");
    }
}

#[test]
fn rings_outside_memory_end_the_connection_when_they_are_started() {
    for (desc, avail, used) in [
        (USER + RAM - 16, USER, USER),
        (USER, USER + RAM - 4, USER),
        (USER, USER, USER + RAM - 64),
        (0, USER, USER),
        (u64::MAX - 15, USER, USER),
    ] {
        let mut f = Fixture::negotiated();
        f.wire.set_state(SET_VRING_NUM, 2, 128);
        f.wire.send(SET_VRING_ADDR, &Wire::addr(2, 0, desc, used, avail), &[]);
        f.kick(2);
        assert_eq!(f.wire.acked(SET_VRING_ENABLE, &Wire::state(2, 1), &[]), 1);
        f.assert_ended();
    }
}

#[test]
fn alignment_is_checked_in_guest_memory() {
    let mut f = Fixture::new();
    f.connect();
    f.wire.set_u64(SET_FEATURES, FEATURES);
    // Aligned for the front-end, 8 bytes off for the guest.
    let region = WireRegion { guest: 8, size: RAM - 8, user: USER, offset: 0 };
    assert_eq!(f.wire.acked(SET_MEM_TABLE, &Wire::table(&[region]), &[f.ram.as_raw_fd()]), 0);
    f.set_up(2);
    f.kick(2);
    assert_eq!(f.wire.acked(SET_VRING_ENABLE, &Wire::state(2, 1), &[]), 1);
    f.assert_ended();
}

#[test]
fn a_ring_without_event_idx_may_end_where_memory_ends() {
    let mut f = Fixture::new();
    f.connect();
    f.wire.set_u64(SET_FEATURES, PROTOCOL | VERSION_1);
    f.memory();
    f.wire.set_state(SET_VRING_NUM, 2, 128);
    f.wire.send(SET_VRING_ADDR, &Wire::addr(2, 0, USER, USER + RAM - 4 - 8 * 128, USER + 0x800), &[]);
    f.kick(2);
    f.enable(2, true);
    assert!(matches!(f.calls().last(), Some(Call::Start { .. })));
}

#[test]
fn a_table_that_repeats_a_region_keeps_its_mapping() {
    let f = Fixture::running();
    let before = f.mock.book(|book| book.map.clone()).unwrap();
    let high = WireRegion { guest: 1 << 32, size: RAM, user: USER + (1 << 32), offset: 0 };
    let other = memfd(RAM);
    let fds = [f.ram.as_raw_fd(), other.as_raw_fd()];
    assert_eq!(f.wire.acked(SET_MEM_TABLE, &Wire::table(&[LOW, high]), &fds), 0);
    assert_eq!(f.calls(), [Call::Memory { regions: 2, gone: false }]);
    let after = f.mock.book(|book| book.map.clone()).unwrap();
    assert!(std::sync::Arc::ptr_eq(&before.regions()[0], &after.regions()[0]));
    // And away again: now memory is lost, but the ring is not touched.
    f.memory();
    assert_eq!(f.calls(), [Call::Memory { regions: 1, gone: true }]);
    // The same place in another file is other memory.
    assert_eq!(f.wire.acked(SET_MEM_TABLE, &Wire::table(&[LOW]), &[other.as_raw_fd()]), 0);
    assert_eq!(f.calls(), [Call::Memory { regions: 1, gone: true }]);
}

#[test]
fn a_ring_waits_while_its_memory_is_away() {
    let f = Fixture::running();
    f.mock.book(|book| book.taken.insert(2, 7));
    assert_eq!(f.wire.acked(REM_MEM_REG, &Wire::single(&LOW), &[]), 0);
    assert_eq!(f.calls(), [Call::Stop(2), Call::Memory { regions: 0, gone: true }]);
    // It comes back in two pieces.
    let piece = |at: u64| WireRegion { guest: at, size: RAM / 2, user: USER + at, offset: at };
    let high = Wire::single(&piece(RAM / 2));
    assert_eq!(f.wire.acked(ADD_MEM_REG, &high, &[f.ram.as_raw_fd()]), 0);
    assert_eq!(f.calls(), [Call::Memory { regions: 1, gone: false }]);
    assert_eq!(f.wire.acked(ADD_MEM_REG, &Wire::single(&piece(0)), &[f.ram.as_raw_fd()]), 0);
    assert_eq!(f.calls(), [Call::Memory { regions: 2, gone: false }, start_at(2, 7, 0)]);
}

#[test]
fn a_ring_whose_memory_moves_moves_with_it() {
    let f = Fixture::running();
    let moved = WireRegion { guest: 1 << 33, ..LOW };
    assert_eq!(f.wire.acked(SET_MEM_TABLE, &Wire::table(&[moved]), &[f.ram.as_raw_fd()]), 0);
    let calls = f.calls();
    assert_eq!(calls[..2], [Call::Stop(2), Call::Memory { regions: 1, gone: true }]);
    assert!(matches!(calls[2], Call::Start { desc, .. } if desc == (1 << 33) + 0x2000));
}

#[test]
fn removing_needs_a_region_and_tolerates_a_descriptor_and_another_offset() {
    let mut f = Fixture::negotiated();
    let region = WireRegion { offset: 0x1000, ..LOW };
    assert_eq!(f.wire.acked(REM_MEM_REG, &Wire::single(&region), &[f.ram.as_raw_fd()]), 0);
    assert_eq!(f.wire.acked(REM_MEM_REG, &Wire::single(&region), &[]), 1);
    f.assert_ended();
}

#[test]
fn bad_memory_ends_the_connection() {
    let small = memfd(0x1000);
    let pipe = std::io::pipe().unwrap().0;
    let whole = memfd(RAM);
    let cases: [(&str, WireRegion, i32); 5] = [
        ("past the end of its file", LOW, small.as_raw_fd()),
        ("offset past the end", WireRegion { offset: RAM, ..LOW }, whole.as_raw_fd()),
        ("no file", LOW, pipe.as_raw_fd()),
        ("overlap", WireRegion { guest: RAM - 0x1000, user: 0x1000, ..LOW }, whole.as_raw_fd()),
        ("overflow", WireRegion { guest: u64::MAX - 0x1000, ..LOW }, whole.as_raw_fd()),
    ];
    for (what, region, fd) in cases {
        let mut f = Fixture::negotiated();
        f.wire.try_send(ADD_MEM_REG as u32, 1, &Wire::single(&region), &[fd]).unwrap();
        f.assert_ended();
        println!("{what}: ended");
    }
}

#[test]
fn as_many_regions_as_were_promised() {
    let mut f = Fixture::new();
    f.connect();
    f.wire.set_u64(SET_FEATURES, FEATURES);
    let region =
        |i: u64| WireRegion { guest: i << 30, size: 0x1000, user: USER + (i << 30), offset: 0x1000 * (i % 256) };
    for i in 0..509 {
        assert_eq!(f.wire.acked(ADD_MEM_REG, &Wire::single(&region(i)), &[f.ram.as_raw_fd()]), 0);
    }
    assert!(f.calls().contains(&Call::Memory { regions: 509, gone: false }));
    assert_eq!(f.wire.acked(ADD_MEM_REG, &Wire::single(&region(509)), &[f.ram.as_raw_fd()]), 1);
    f.assert_ended();
}

#[test]
fn descriptors_on_messages_that_take_none_are_closed() {
    for (request, body, closes_connection) in
        [(GET_FEATURES, vec![], true), (SET_OWNER, vec![], true), (REM_MEM_REG, Wire::single(&LOW), false)]
    {
        let mut f = Fixture::negotiated();
        let (mut reader, writer) = std::io::pipe().unwrap();
        f.wire.send(request, &body, &[writer.as_raw_fd(), writer.as_raw_fd()]);
        drop(writer);
        let mut rest = Vec::new();
        if closes_connection {
            f.assert_ended();
        } else {
            f.wire.barrier();
        }
        assert_eq!(reader.read_to_end(&mut rest).unwrap(), 0, "all copies are closed");
    }
}

#[test]
fn messages_that_are_not_served_end_the_connection() {
    for request in [SET_STATUS, GET_STATUS, IOTLB_MSG, SET_VRING_ENDIAN, VRING_KICK, GET_CONFIG, GET_INFLIGHT_FD] {
        let mut f = Fixture::running();
        f.wire.send(request, &[0; 8], &[]);
        f.assert_ended();
    }
}

#[test]
fn malformed_messages_end_the_connection() {
    for (code, flags, body) in [
        (0u32, 1u32, vec![]),                                       // no such message
        (0xffff_ffff, 1, vec![]),                                   // nor this
        (GET_FEATURES as u32, 2, vec![]),                           // version
        (GET_FEATURES as u32, 5, vec![]),                           // a reply
        (GET_FEATURES as u32, 0xff1, vec![]),                       // reserved flags
        (GET_FEATURES as u32, 1, vec![0; 8]),                       // too long
        (SET_FEATURES as u32, 1, vec![0; 4]),                       // too short
        (SET_VRING_ENABLE as u32, 1, vec![2, 0, 0, 0, 7, 0, 0, 0]), // neither on nor off
        (SET_MEM_TABLE as u32, 1, vec![0; 8]),                      // no regions
        (SET_MEM_TABLE as u32, 1, 33u64.to_ne_bytes().to_vec()),
        (SET_VRING_KICK as u32, 1, 2u64.to_ne_bytes().to_vec()), // descriptor missing
        (ADD_MEM_REG as u32, 1, Wire::single(&LOW)),             // descriptor missing
        (SET_VRING_ADDR as u32, 1, Wire::addr(2, 2, 0, 0, 0)),   // unknown flag
        (SET_VRING_ADDR as u32, 1, Wire::addr(2, 0, 8, 0, 0)),   // not aligned
    ] {
        let mut f = Fixture::running();
        f.wire.try_send(code, flags, &body, &[]).unwrap();
        f.assert_ended();
    }
}

#[test]
fn an_early_enable_that_says_nonsense_is_refused() {
    let mut f = Fixture::new();
    f.connect();
    assert_eq!(f.wire.acked(SET_VRING_ENABLE, &Wire::state(2, 7), &[]), 1);
    f.assert_ended();
    let mut f = Fixture::new();
    f.wire.set_state(SET_VRING_ENABLE, 300, 1);
    f.assert_ended();
}

#[test]
fn a_device_can_hang_up() {
    let mut f = Fixture::running();
    f.mock.book(|book| book.hangup.clone()).unwrap().hang_up("its memory is broken");
    f.assert_ended();
}

#[test]
fn memory_is_unmapped_after_the_connection() {
    let mut f = Fixture::running();
    let map = f.mock.book(|book| std::sync::Arc::downgrade(book.map.as_ref().unwrap()));
    assert!(map.upgrade().is_some());
    f.wire.0.shutdown(std::net::Shutdown::Both).unwrap();
    f.thread.take().unwrap().join().unwrap();
    assert!(map.upgrade().is_none());
}
