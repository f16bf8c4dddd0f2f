//! SANITIZE as a change of the unit: what it waits for, what finds it, and what does not end it.

use std::sync::Arc;

use crate::device_server::testkit::{HeldBackground, MemImage};
use crate::mem::{Direction, IoBuf};
use crate::scsi::{FunctionResponse, HostByte, Lun, Status, TaskManagementFunction};
use crate::target::testkit::*;
use crate::tgt::{CmdData, CmdReq, ItnId, KEvent, Tag};

const LUN: fn() -> Lun = || at(0, 0);

/// LOGICAL UNIT NOT READY, SANITIZE IN PROGRESS.
const SANITIZING: (u8, u16) = (2, 0x041b);

/// SANITIZE, BLOCK ERASE.
fn block_erase(immed: bool) -> [u8; 16] {
    let mut scb = [0; 16];
    (scb[0], scb[1]) = (0x48, 0x02 | u8::from(immed) << 7);
    scb
}

struct Scene {
    rig: Rig,
    image: Arc<MemImage>,
    background: Arc<HeldBackground>,
    a: ItnId,
    b: ItnId,
}

impl Scene {
    fn new() -> Scene {
        let (lu, image, background) = erasable();
        let mut rig = Rig::new(2, vec![mapped(0, 0, &lu)]);
        let (a, b) = (rig.login(1), rig.login(2));
        Scene { rig, image, background, a, b }
    }

    fn send(&mut self, shard: u8, itn_id: ItnId, scb: [u8; 16]) -> Tag {
        self.rig.send(shard, itn_id, LUN(), scb, IoBuf::empty())
    }

    fn write(&mut self, shard: u8, itn_id: ItnId) -> Tag {
        let mut buf = IoBuf::owned(512, Direction::Out);
        buf.write_at(0, &[7; 512]);
        self.rig.send(shard, itn_id, LUN(), write10(1), buf)
    }

    /// A command that is answered at once: its sense data.
    fn refused(&mut self, shard: u8, itn_id: ItnId) -> (u8, u16) {
        let tag = self.send(shard, itn_id, TEST_UNIT_READY);
        self.rig.answer(tag).sense()
    }

    fn is_ready(&mut self, shard: u8, itn_id: ItnId) -> bool {
        let tag = self.send(shard, itn_id, TEST_UNIT_READY);
        self.rig.answer(tag).result.status == Status::Good
    }

    fn assert_good(&mut self, tag: Tag) {
        assert_eq!(self.rig.answer(tag).result.status, Status::Good);
    }
}

/// Erasing begins when the last command has ended that was under way, on any shard; who comes meanwhile is refused.
#[test]
fn it_waits_for_what_is_under_way() {
    let mut s = Scene::new();
    let (a, b) = (s.a, s.b);
    let writes = [s.write(0, a), s.write(1, b)];
    let read = s.rig.read(1, a, LUN());
    let begin = s.send(0, a, block_erase(true));
    for (shard, nexus) in [(0, a), (1, a), (0, b), (1, b)] {
        assert_eq!(s.refused(shard, nexus), SANITIZING);
    }
    // A read that would find what was there, or half of it.
    let late = s.rig.send(1, b, LUN(), read10(1), IoBuf::owned(512, Direction::In));
    assert_eq!(s.rig.answer(late).sense(), SANITIZING);
    for tag in writes.into_iter().chain([read]) {
        s.rig.settle();
        assert_eq!((s.rig.is_answered(begin), s.background.len()), (false, 0), "something is under way");
        s.rig.complete(tag, Ok(()));
        s.assert_good(tag);
    }
    s.rig.settle();
    assert_eq!(s.background.len(), 1);
    s.assert_good(begin);
    assert!(s.image.bytes().iter().any(|byte| *byte != 0), "answered, not done");
    assert_eq!(s.refused(1, b), SANITIZING);
    s.background.run();
    assert!(s.is_ready(0, a) && s.is_ready(1, b));
    assert_eq!(s.image.bytes(), vec![0; 1 << 16], "nothing written before comes back");
    assert_eq!(s.rig.tasks(), 0);
}

/// Commands that wait for something else find it when they go on: one that is in line to change the unit, one that is held.
#[test]
fn what_waited_finds_it() {
    let mut s = Scene::new();
    let (a, b) = (s.a, s.b);
    let write = s.write(1, b);
    let begin = s.send(0, a, block_erase(true));
    // MODE SELECT(6) with an empty list: a change, behind this one.
    let select = s.send(1, b, [0x15, 0x10, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0]);
    assert_eq!(s.rig.answer(select).sense(), SANITIZING);
    let second = s.send(1, b, block_erase(false));
    s.rig.settle();
    assert!(!s.rig.is_answered(second), "it may, when its turn comes");
    s.rig.complete(write, Ok(()));
    s.rig.settle();
    s.assert_good(begin);
    assert_eq!(s.rig.answer(second).sense(), SANITIZING);
    s.background.run();
    assert!(s.is_ready(1, b));
}

/// As if it were HEAD OF QUEUE (SBC-3 5.24.1): not stopped by an ORDERED command that waits for others.
#[test]
fn it_passes_what_is_ordered() {
    for attribute in [0x20, 0x22] {
        let mut s = Scene::new();
        let (a, b) = (s.a, s.b);
        let write = s.write(1, a);
        let ordered = s.rig.tag(0);
        let req =
            |tag, scb, attribute| CmdReq { host_no: HOST, data_len: 0, itn_id: a, scb, lun: LUN(), attribute, tag };
        let send = |s: &mut Scene, tag: Tag, scb, attribute| {
            let data = CmdData { buf: IoBuf::empty(), cdb_tail: None, earlier: 0, taken: 0 };
            s.rig.post(tag.shard(), KEvent::CmdReq(req(tag, scb, attribute)), Some(data));
        };
        send(&mut s, ordered, TEST_UNIT_READY, 0x22);
        s.rig.settle();
        assert!(!s.rig.is_answered(ordered), "it waits for the write");
        let begin = s.rig.tag(0);
        send(&mut s, begin, block_erase(true), attribute);
        assert_eq!(s.refused(1, b), SANITIZING, "{attribute:x}: it has begun");
        s.rig.complete(write, Ok(()));
        s.rig.settle();
        s.assert_good(begin);
        assert_eq!(s.rig.answer(ordered).sense(), SANITIZING);
        s.background.run();
    }
}

/// SBC-3 4.11.2: no task management function ends the operation, whatever becomes of the command.
#[test]
fn task_management_ends_the_command_only() {
    use TaskManagementFunction::*;
    for function in [AbortTask, AbortTaskSet, ClearTaskSet, LogicalUnitReset, ItNexusReset] {
        let mut s = Scene::new();
        let (a, b) = (s.a, s.b);
        let begin = s.send(0, a, block_erase(false));
        s.rig.settle();
        assert_eq!((s.background.len(), s.rig.pool.len()), (1, 1), "a job waits for the end");
        let mid = s.rig.request_function(0, a, function, LUN(), begin);
        s.rig.settle();
        assert_eq!(s.rig.response(mid), None, "{function:?}: the command has not ended yet");
        s.rig.pool.take(0)();
        s.rig.settle();
        assert_eq!(s.rig.response(mid), Some(FunctionResponse::Complete), "{function:?}");
        let resets = matches!(function, LogicalUnitReset | ItNexusReset);
        let ended = if resets { HostByte::Reset } else { HostByte::Abort };
        assert_eq!(s.rig.answer(begin).result.host, ended, "{function:?}");
        while s.refused(1, b) != SANITIZING {}
        assert_eq!(s.background.len(), 1, "{function:?}: the work goes on");
        s.background.run();
        assert!(s.is_ready(1, b));
        assert_eq!(s.image.bytes(), vec![0; 1 << 16]);
    }
}

/// One that is aborted before its turn has no effect.
#[test]
fn aborted_before_its_turn() {
    let mut s = Scene::new();
    let (a, b) = (s.a, s.b);
    let write = s.write(1, b);
    // Write protection waits for the write; SANITIZE waits for its turn.
    let list = [0, 0, 0, 0, 0x0a, 10, 0x20, 0x10, 0x08, 0, 0, 0, 0, 0, 0, 0];
    let mut buf = IoBuf::owned(16, Direction::Out);
    buf.write_at(0, &list);
    let select = s.rig.send(0, a, LUN(), [0x15, 0x10, 0, 0, 16, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0], buf);
    let begin = s.send(0, a, block_erase(true));
    let mid = s.rig.request_function(0, a, TaskManagementFunction::AbortTask, LUN(), begin);
    s.rig.settle();
    assert_eq!(s.rig.response(mid), Some(FunctionResponse::Complete));
    assert_eq!(s.rig.answer(begin).result.host, HostByte::Abort);
    s.rig.complete(write, Ok(()));
    s.rig.settle();
    s.assert_good(select);
    assert!(s.is_ready(0, a));
    assert_eq!(s.background.len(), 0);
}

/// A nexus that comes while it runs finds it, too.
#[test]
fn who_comes_later_finds_it() {
    let mut s = Scene::new();
    let a = s.a;
    let begin = s.send(0, a, block_erase(true));
    s.rig.settle();
    s.assert_good(begin);
    let c = s.rig.login(3);
    let inquiry =
        s.rig.send(0, c, LUN(), [0x12, 0, 0, 0, 36, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0], IoBuf::owned(36, Direction::In));
    s.assert_good(inquiry);
    while s.refused(0, c) != SANITIZING {}
    s.background.run();
    assert!(s.is_ready(0, c));
}
