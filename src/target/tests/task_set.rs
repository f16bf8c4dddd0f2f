//! The task set model (SAM-5 clause 8): ORDERED, HEAD OF QUEUE, ACA, QERR, and holds on blocks.

use std::sync::Arc;
use std::time::Duration;

use crate::backing::BackingError;
use crate::device_server::testkit::nexus_of;
use crate::lu::Lu;
use crate::mem::{Direction, IoBuf};
use crate::scsi::FunctionResponse::{Complete, Rejected};
use crate::scsi::TaskManagementFunction::*;
use crate::scsi::spc::ModeState;
use crate::scsi::{HostByte, Status};
use crate::target::TargetSetup;
use crate::target::testkit::*;
use crate::tgt::{CmdData, CmdReq, ItnId, KEvent, Tag};

const ORDERED: i32 = 0x22;
const HEAD: i32 = 0x21;
const ACA: i32 = 0x2f;

fn rig() -> (Rig, ItnId, ItnId, Arc<Lu>) {
    let lu = unit();
    let mut rig = Rig::new(2, vec![mapped(0, 0, &lu)]);
    let (a, b) = (rig.login(1), rig.login(2));
    (rig, a, b, lu)
}

fn send(rig: &mut Rig, shard: u8, itn_id: ItnId, attribute: i32, scb: [u8; 16]) -> Tag {
    let tag = rig.tag(shard);
    let buf = if scb[0] == 0x28 { IoBuf::owned(512, Direction::In) } else { IoBuf::empty() };
    let req = CmdReq { host_no: HOST, data_len: buf.len() as u32, itn_id, scb, lun: at(0, 0), attribute, tag };
    rig.post(shard, KEvent::CmdReq(req), Some(CmdData { buf, cdb_tail: None, earlier: 0, taken: 0 }));
    tag
}

fn set_mode(lu: &Arc<Lu>, change: impl Fn(ModeState) -> ModeState) {
    let by = nexus_of(Arc::clone(lu), None);
    lu.set_mode(&by, change(lu.mode()));
}

/// A nexus's attentions, taken away.
fn quiet(rig: &mut Rig, itn_id: ItnId) {
    while {
        let tag = send(rig, 0, itn_id, 0x20, TEST_UNIT_READY);
        rig.settle();
        rig.answer(tag).result.status != Status::Good
    } {}
}

fn at_backing(rig: &mut Rig, tag: Tag) -> bool {
    rig.reactor(tag.shard()).io.held.iter().any(|held| held.cookie == tag.0)
}

/// SAM-5 8.6.3: not before all older ones have ended; younger ones not before it has.
#[test]
fn ordered_is_between_older_and_younger_on_all_shards() {
    let (mut rig, a, b, _) = rig();
    let older = [rig.read(0, a, at(0, 0)), rig.read(1, a, at(0, 0))];
    let ordered = send(&mut rig, 0, a, ORDERED, read10(1));
    let younger = [send(&mut rig, 0, a, 0x20, read10(1)), send(&mut rig, 1, a, 0x20, read10(1))];
    let foreign = send(&mut rig, 1, b, 0x20, read10(1));
    rig.settle();
    assert!(!at_backing(&mut rig, ordered));
    assert!(younger.iter().all(|&tag| !at_backing(&mut rig, tag)));
    assert!(at_backing(&mut rig, foreign), "with TST 001b it is no concern of another nexus");
    rig.complete(older[0], Ok(()));
    rig.settle();
    assert!(!at_backing(&mut rig, ordered), "one is missing, on the other shard");
    rig.complete(older[1], Ok(()));
    rig.settle();
    assert!(at_backing(&mut rig, ordered));
    assert!(younger.iter().all(|&tag| !at_backing(&mut rig, tag)));
    rig.complete(ordered, Ok(()));
    rig.settle();
    for tag in younger {
        rig.complete(tag, Ok(()));
    }
    rig.complete(foreign, Ok(()));
    assert_eq!(rig.tasks(), 0);
}

#[test]
fn two_ordered_go_one_after_the_other() {
    let (mut rig, a, ..) = rig();
    let first = send(&mut rig, 0, a, ORDERED, read10(1));
    let second = send(&mut rig, 1, a, ORDERED, read10(1));
    rig.settle();
    assert_eq!([at_backing(&mut rig, first), at_backing(&mut rig, second)], [true, false]);
    rig.complete(first, Ok(()));
    rig.settle();
    rig.complete(second, Ok(()));
    rig.settle();
    let after = rig.read(0, a, at(0, 0));
    rig.complete(after, Ok(()));
    assert_eq!(rig.tasks(), 0);
}

/// The first one's hold is over before the second one's shard has heard of it.
#[test]
fn nothing_passes_an_ordered_one_that_waits_for_news() {
    let (mut rig, a, ..) = rig();
    let first = send(&mut rig, 0, a, ORDERED, read10(1));
    let second = send(&mut rig, 1, a, ORDERED, read10(1));
    rig.settle();
    rig.complete(first, Ok(()));
    let late = [0x20, ORDERED].map(|attribute| send(&mut rig, 1, a, attribute, read10(1)));
    assert!(late.iter().all(|&tag| !at_backing(&mut rig, tag)));
    rig.settle();
    assert!(at_backing(&mut rig, second) && late.iter().all(|&tag| !at_backing(&mut rig, tag)));
    for tag in [second, late[0], late[1]] {
        rig.complete(tag, Ok(()));
        rig.settle();
    }
    let after = rig.read(1, a, at(0, 0));
    rig.complete(after, Ok(()));
    assert_eq!(rig.tasks(), 0);
}

#[test]
fn head_of_queue_passes_an_ordered_one() {
    let (mut rig, a, ..) = rig();
    let older = rig.read(0, a, at(0, 0));
    let ordered = send(&mut rig, 0, a, ORDERED, read10(1));
    rig.settle();
    let head = send(&mut rig, 1, a, HEAD, read10(1));
    assert!(at_backing(&mut rig, head));
    for tag in [head, older] {
        rig.complete(tag, Ok(()));
        rig.settle();
    }
    rig.complete(ordered, Ok(()));
    rig.settle();
    assert_eq!(rig.tasks(), 0);
}

#[test]
fn an_ordered_one_that_waits_can_be_aborted_and_lets_the_others_go() {
    let (mut rig, a, ..) = rig();
    let older = rig.read(1, a, at(0, 0));
    let ordered = send(&mut rig, 0, a, ORDERED, read10(1));
    let younger = send(&mut rig, 0, a, 0x20, read10(1));
    rig.settle();
    let mid = rig.request_function(0, a, AbortTask, at(0, 0), ordered);
    rig.settle();
    assert_eq!(rig.response(mid), Some(Complete), "without waiting for the older one");
    assert_eq!(rig.answer(ordered).result.host, HostByte::Abort);
    assert!(at_backing(&mut rig, younger));
    for tag in [older, younger] {
        rig.complete(tag, Ok(()));
    }
    rig.settle();
    assert_eq!(rig.tasks(), 0);
}

#[test]
fn with_one_task_set_for_all_it_holds_everybody() {
    let (mut rig, a, b, lu) = rig();
    set_mode(&lu, |mode| ModeState { tst: 0, ..mode });
    [a, b].iter().for_each(|&itn_id| quiet(&mut rig, itn_id));
    let older = rig.read(1, b, at(0, 0));
    let ordered = send(&mut rig, 0, a, ORDERED, read10(1));
    let younger = send(&mut rig, 1, b, 0x20, read10(1));
    rig.settle();
    assert_eq!([at_backing(&mut rig, ordered), at_backing(&mut rig, younger)], [false, false]);
    rig.complete(older, Ok(()));
    rig.settle();
    rig.complete(ordered, Ok(()));
    rig.settle();
    rig.complete(younger, Ok(()));

    // And CLEAR TASK SET clears everybody's, who are told (SAM-5 7.5).
    let [mine, foreign] = [rig.read(0, a, at(0, 0)), rig.read(1, b, at(0, 0))];
    let mid = rig.request_function(0, a, ClearTaskSet, at(0, 0), Tag::NONE);
    rig.settle();
    assert_eq!(rig.response(mid), None);
    for tag in [mine, foreign] {
        rig.complete(tag, Err(BackingError::Cancelled));
        rig.settle();
        assert_eq!(rig.answer(tag).result.host, HostByte::Abort);
    }
    assert_eq!(rig.response(mid), Some(Complete));
    let told = send(&mut rig, 0, b, 0x20, TEST_UNIT_READY);
    assert_eq!(rig.answer(told).sense(), (6, 0x2f00));
    let not_told = send(&mut rig, 0, a, 0x20, TEST_UNIT_READY);
    assert_eq!(rig.answer(not_told).result.status, Status::Good);
}

#[test]
fn with_tas_the_others_tasks_say_it_themselves() {
    let (mut rig, a, b, lu) = rig();
    set_mode(&lu, |mode| ModeState { tst: 0, tas: true, ..mode });
    [a, b].iter().for_each(|&itn_id| quiet(&mut rig, itn_id));
    let [mine, foreign] = [rig.read(0, a, at(0, 0)), rig.read(1, b, at(0, 0))];
    rig.request_function(0, a, ClearTaskSet, at(0, 0), Tag::NONE);
    rig.settle();
    for tag in [mine, foreign] {
        rig.complete(tag, Ok(()));
    }
    assert_eq!(rig.answer(mine).result.host, HostByte::Abort);
    let answer = rig.answer(foreign).result;
    assert_eq!((answer.host, answer.status), (HostByte::Ok, Status::TaskAborted));
    rig.settle();
    let told = send(&mut rig, 0, b, 0x20, TEST_UNIT_READY);
    assert_eq!(rig.answer(told).result.status, Status::Good, "no unit attention as well");
}

/// SPC-4 table 390.
#[test]
fn qerr_ends_the_other_tasks() {
    for (qerr, tst, ends_mine, ends_foreign) in
        [(0, 0, false, false), (1, 0, true, true), (3, 0, true, false), (1, 1, true, false)]
    {
        let (mut rig, a, b, lu) = rig();
        set_mode(&lu, |mode| ModeState { tst, qerr, ..mode });
        [a, b].iter().for_each(|&itn_id| quiet(&mut rig, itn_id));
        let [mine, foreign] = [rig.read(1, a, at(0, 0)), rig.read(1, b, at(0, 0))];
        let faulty = rig.read(0, a, at(0, 0));
        rig.complete(faulty, Err(BackingError::ReadFailed));
        rig.settle();
        assert_eq!(rig.answer(faulty).sense().0, 3);
        for tag in [mine, foreign] {
            rig.complete(tag, Ok(()));
        }
        rig.settle();
        let ended = |answer: Answered| answer.result.host == HostByte::Abort;
        assert_eq!(ended(rig.answer(mine)), ends_mine, "QERR {qerr} TST {tst}");
        assert_eq!(ended(rig.answer(foreign)), ends_foreign, "QERR {qerr} TST {tst}");
        assert_eq!(rig.tasks(), 0);
    }
}

/// READ(10) with NACA.
fn naca(mut scb: [u8; 16]) -> [u8; 16] {
    scb[9] |= 0x04;
    scb
}

/// SAM-5 5.9.
#[test]
fn an_aca_condition_stops_the_faulted_nexus_until_it_is_cleared() {
    let (mut rig, a, b, _) = rig();
    let without = send(&mut rig, 0, a, ACA, TEST_UNIT_READY);
    assert_eq!(rig.answer(without).sense(), (5, 0x4900), "there is no ACA condition yet");
    let faulty = send(&mut rig, 0, a, 0x20, naca(read10(1)));
    let running = rig.read(1, a, at(0, 0));
    rig.complete(faulty, Err(BackingError::ReadFailed));
    rig.settle();
    for (shard, attribute) in [(0, 0x20), (1, 0x20), (0, ORDERED), (1, HEAD)] {
        let stopped = send(&mut rig, shard, a, attribute, TEST_UNIT_READY);
        assert_eq!(rig.answer(stopped).result.status, Status::AcaActive);
    }
    let foreign = send(&mut rig, 1, b, 0x20, TEST_UNIT_READY);
    assert_eq!(rig.answer(foreign).result.status, Status::Good);
    // One command with the ACA attribute at a time.
    let recovering = send(&mut rig, 1, a, ACA, read10(1));
    assert!(at_backing(&mut rig, recovering));
    let second = send(&mut rig, 0, a, ACA, TEST_UNIT_READY);
    assert_eq!(rig.answer(second).result.status, Status::AcaActive);
    rig.complete(recovering, Ok(()));
    assert_eq!(rig.answer(recovering).result.status, Status::Good);
    let third = send(&mut rig, 0, a, ACA, TEST_UNIT_READY);
    assert_eq!(rig.answer(third).result.status, Status::Good);
    rig.complete(running, Ok(()));
    assert_eq!(rig.answer(running).result.status, Status::Good, "it ran already");
    let mid = rig.request_function(0, a, ClearAca, at(0, 0), Tag::NONE);
    rig.settle();
    assert_eq!(rig.response(mid), Some(Complete));
    let free = send(&mut rig, 0, a, 0x20, TEST_UNIT_READY);
    assert_eq!(rig.answer(free).result.status, Status::Good);
    assert_eq!(rig.tasks(), 0);
}

#[test]
fn clear_aca_ends_the_command_with_the_attribute() {
    let (mut rig, a, ..) = rig();
    let faulty = send(&mut rig, 0, a, 0x20, naca(read10(1)));
    rig.complete(faulty, Err(BackingError::ReadFailed));
    let recovering = send(&mut rig, 1, a, ACA, read10(1));
    let mid = rig.request_function(0, a, ClearAca, at(0, 0), Tag::NONE);
    rig.settle();
    assert_eq!(rig.response(mid), None, "not while it is running");
    rig.complete(recovering, Ok(()));
    rig.settle();
    assert_eq!(rig.answer(recovering).result.host, HostByte::Abort);
    assert_eq!(rig.response(mid), Some(Complete));
    assert_eq!(rig.tasks(), 0);
}

#[test]
fn what_waits_as_aca_begins_waits_on() {
    let (mut rig, a, ..) = rig();
    let faulty = send(&mut rig, 1, a, 0x20, naca(read10(1)));
    let ordered = send(&mut rig, 0, a, ORDERED, read10(1));
    rig.settle();
    rig.complete(faulty, Err(BackingError::ReadFailed));
    rig.settle();
    assert!(!rig.is_answered(ordered) && !at_backing(&mut rig, ordered));
    let mid = rig.request_function(0, a, ClearAca, at(0, 0), Tag::NONE);
    rig.settle();
    assert_eq!(rig.response(mid), Some(Complete));
    rig.complete(ordered, Ok(()));
    rig.settle();
    assert_eq!(rig.answer(ordered).result.status, Status::Good);
    assert_eq!(rig.tasks(), 0);
}

#[test]
fn resets_clear_an_aca_condition() {
    for function in [LogicalUnitReset, ItNexusReset] {
        let (mut rig, a, ..) = rig();
        let faulty = send(&mut rig, 1, a, 0x20, naca(read10(1)));
        rig.complete(faulty, Err(BackingError::ReadFailed));
        rig.request_function(0, a, function, at(0, 0), Tag::NONE);
        rig.settle();
        let told = send(&mut rig, 0, a, 0x20, TEST_UNIT_READY);
        assert_eq!(rig.answer(told).sense().0, 6);
    }
}

/// A function whose tasks hang is answered in bounded time, and not with what is not true.
#[test]
fn an_abort_of_what_hangs_is_rejected_in_time() {
    let lu = unit();
    let names = Vec::new();
    let patience = Some(Duration::from_millis(20));
    let setup = TargetSetup { shards: 2, hosts: vec![host(HOST, 1)], units: vec![mapped(0, 0, &lu)], names, patience };
    let mut rig = Rig::with(setup);
    let a = rig.login(1);
    let hung = rig.read(1, a, at(0, 0));
    let mid = rig.request_function(0, a, LogicalUnitReset, at(0, 0), Tag::NONE);
    rig.settle();
    let r = rig.reactor(0);
    let deadline = r.shard.deadline().unwrap();
    r.shard.expire(deadline - Duration::from_millis(1), &mut r.rings);
    rig.turn(0);
    assert_eq!(rig.response(mid), None);
    let r = rig.reactor(0);
    r.shard.expire(deadline, &mut r.rings);
    rig.turn(0);
    assert_eq!(rig.response(mid), Some(Rejected));
    assert_eq!(rig.reactor(0).shard.deadline(), None);
    // It ends after all: nobody is answered again, and nothing that was not promised is done.
    rig.complete(hung, Ok(()));
    rig.settle();
    assert_eq!(rig.answer(hung).result.host, HostByte::Reset);
    assert_eq!(rig.response(mid), Some(Rejected));
    let after = send(&mut rig, 0, a, 0x20, TEST_UNIT_READY);
    assert_eq!(rig.answer(after).result.status, Status::Good);
}
