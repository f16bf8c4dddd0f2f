//! Task management functions: a function is answered after all that it covers is over, on every shard.

use crate::backing::BackingError;
use crate::lu::Attention;
use crate::mem::{Direction, IoBuf};
use crate::scsi::FunctionResponse::{self as Response, Complete, IncorrectLun, Rejected, Succeeded};
use crate::scsi::TaskManagementFunction::*;
use crate::scsi::{HostByte, Lun, Status};
use crate::target::UnitMapping;
use crate::target::testkit::*;
use crate::tgt::Tag;

/// Three shards; LUN 0 and 1 of target 0 and LUN 0 of target 1, two nexuses.
fn rig() -> (Rig, u64, u64) {
    let mut rig = Rig::new(3, vec![mapped(0, 0, &unit()), mapped(0, 1, &unit()), mapped(1, 0, &unit())]);
    let (a, b) = (rig.login(1), rig.login(2));
    (rig, a, b)
}

fn host(rig: &mut Rig, tag: Tag) -> HostByte {
    rig.answer(tag).result.host
}

#[test]
fn abort_before_the_completion() {
    let (mut rig, a, _) = rig();
    for result in [Ok(()), Err(BackingError::Cancelled), Err(BackingError::ReadFailed)] {
        let tag = rig.read(1, a, at(0, 0));
        let mid = rig.request_function(0, a, AbortTask, at(0, 0), tag);
        assert_eq!(rig.mail.needs_pop(1), Some(true));
        assert_eq!((rig.mail.len(0), rig.mail.len(2)), (0, 0), "only the tag's shard is asked");
        rig.settle();
        assert_eq!(rig.reactor(1).io.cancelled.pop(), Some(tag.0));
        assert_eq!(rig.response(mid), None);
        rig.prompt = false;
        rig.complete(tag, result);
        rig.settle();
        let answer = rig.answer(tag);
        assert_eq!((answer.result.host, answer.len, answer.sense.len()), (HostByte::Abort, 0, 0));
        assert_eq!(answer.data.len(), 512, "its buffer came back");
        assert_eq!(rig.response(mid), None, "the initiator cannot have seen the answer yet");
        rig.done(tag);
        rig.settle();
        assert_eq!(rig.response(mid), Some(Complete));
        rig.prompt = true;
    }
    assert_eq!(rig.tasks(), 0);
}

#[test]
fn completion_before_the_abort() {
    let (mut rig, a, _) = rig();
    rig.prompt = false;
    let tag = rig.read(1, a, at(0, 0));
    let mid = rig.request_function(0, a, AbortTask, at(0, 0), tag);
    // The order is on its way when the task ends.
    rig.complete(tag, Ok(()));
    rig.settle();
    assert_eq!(rig.answer(tag).result.status, Status::Good, "it came first, so its own result counts");
    assert!(rig.reactor(1).io.cancelled.is_empty());
    assert_eq!(rig.response(mid), None);
    rig.done(tag);
    rig.settle();
    assert_eq!(rig.response(mid), Some(Complete));
}

#[test]
fn abort_of_what_is_not_there() {
    let (mut rig, a, b) = rig();
    let tag = rig.read(1, a, at(0, 0));
    let gone = Tag::new(1, tag.queue(), tag.head(), tag.generation().wrapping_sub(1));
    for (itn_id, lun, named) in [
        (a, at(0, 0), Tag::NONE),
        (a, at(0, 0), gone),
        (a, at(0, 0), Tag::new(200, 0, 0, 0)),
        // The name of a task says nothing without its nexus and its unit.
        (a, at(0, 1), tag),
        (b, at(0, 0), tag),
    ] {
        let mid = rig.request_function(2, itn_id, AbortTask, lun, named);
        rig.settle();
        assert_eq!(rig.response(mid), Some(Complete), "{named:?}");
    }
    assert!(rig.reactor(1).io.cancelled.is_empty());
    rig.complete(tag, Ok(()));
    assert_eq!(rig.answer(tag).result.status, Status::Good);
}

#[test]
fn sets_of_tasks() {
    for function in [AbortTaskSet, ClearTaskSet] {
        let (mut rig, a, b) = rig();
        let mine = [rig.read(0, a, at(0, 0)), rig.read(1, a, at(0, 0)), rig.read(2, a, at(0, 0))];
        let others = [rig.read(1, a, at(0, 1)), rig.read(1, a, at(1, 0)), rig.read(1, b, at(0, 0))];
        let mid = rig.request_function(0, a, function, at(0, 0), Tag::NONE);
        assert_eq!(rig.mail.needs_pop(0), Some(true), "home pops like all others");
        rig.settle();
        for tag in mine {
            assert_eq!(rig.response(mid), None);
            rig.complete(tag, Ok(()));
            rig.settle();
            assert_eq!(host(&mut rig, tag), HostByte::Abort);
        }
        assert_eq!(rig.response(mid), Some(Complete));
        for tag in others {
            rig.complete(tag, Ok(()));
            assert_eq!(rig.answer(tag).result.status, Status::Good, "{function:?} {tag:?}");
        }
        // No unit attention: each nexus has its own task set.
        let tag = rig.send(0, b, at(0, 0), TEST_UNIT_READY, IoBuf::empty());
        assert_eq!(rig.answer(tag).result.status, Status::Good);
    }
}

#[test]
fn logical_unit_reset_reaches_all_shards_and_all_nexuses() {
    let (mut rig, a, b) = rig();
    let started = [rig.read(0, a, at(0, 0)), rig.read(1, b, at(0, 0)), rig.read(2, b, at(0, 0))];
    let spared = rig.read(2, a, at(0, 1));
    let mid = rig.request_function(1, a, LogicalUnitReset, at(0, 0), Tag::NONE);
    // From before the function, but popped only because of its mail: covered, and not what learns of the reset.
    let popped = rig.read(2, a, at(0, 0));
    rig.settle();
    let hit = [started[0], started[1], started[2], popped];
    // Commands that come meanwhile are new, and run.
    let new = rig.read(0, b, at(0, 0));
    for tag in hit {
        assert_eq!(rig.response(mid), None);
        rig.complete(tag, Err(BackingError::Cancelled));
        rig.settle();
        assert_eq!(host(&mut rig, tag), HostByte::Reset);
    }
    assert_eq!(rig.response(mid), Some(Complete));
    for tag in [new, spared] {
        rig.complete(tag, Ok(()));
        assert_eq!(rig.answer(tag).result.status, Status::Good);
    }
    for itn_id in [a, b] {
        let tag = rig.send(2, itn_id, at(0, 0), TEST_UNIT_READY, IoBuf::empty());
        assert_eq!(rig.answer(tag).sense(), (6, Attention::LogicalUnitReset.code().0), "also who asked for it");
        let tag = rig.send(2, itn_id, at(0, 1), TEST_UNIT_READY, IoBuf::empty());
        assert_eq!(rig.answer(tag).result.status, Status::Good);
    }
}

#[test]
fn a_unit_is_one_unit_at_all_its_addresses() {
    let lu = unit();
    let mut rig = Rig::new(1, vec![mapped(0, 0, &lu), mapped(0, 1, &lu)]);
    let a = rig.login(1);
    let tags = [rig.read(0, a, at(0, 0)), rig.read(0, a, at(0, 1))];
    let mid = rig.request_function(0, a, LogicalUnitReset, at(0, 1), Tag::NONE);
    rig.settle();
    for tag in tags {
        assert_eq!(rig.response(mid), None);
        rig.complete(tag, Ok(()));
        assert_eq!(host(&mut rig, tag), HostByte::Reset);
    }
    assert_eq!(rig.response(mid), Some(Complete));
}

#[test]
fn nexus_reset_is_for_the_units_below_one_target() {
    let (mut rig, a, b) = rig();
    let hit = [rig.read(0, a, at(0, 0)), rig.read(1, a, at(0, 1))];
    let spared = [rig.read(0, a, at(1, 0)), rig.read(0, b, at(0, 0))];
    let mid = rig.request_function(0, a, ItNexusReset, at(0, 77), Tag::NONE);
    rig.settle();
    for tag in hit {
        rig.complete(tag, Ok(()));
        rig.settle();
        assert_eq!(host(&mut rig, tag), HostByte::Reset);
    }
    assert_eq!(rig.response(mid), Some(Complete));
    for tag in spared {
        rig.complete(tag, Ok(()));
        assert_eq!(rig.answer(tag).result.status, Status::Good);
    }
    for (itn_id, lun, lost) in [(a, at(0, 0), true), (a, at(0, 1), true), (a, at(1, 0), false), (b, at(0, 0), false)] {
        let tag = rig.send(0, itn_id, lun, TEST_UNIT_READY, IoBuf::empty());
        let answer = rig.answer(tag);
        assert_eq!((!answer.sense.is_empty()).then(|| answer.sense()), lost.then_some((6, 0x2907)), "{lun:?}");
    }
    // The address that no unit has is for all of them.
    let hit = [rig.read(0, a, at(0, 0)), rig.read(2, a, at(1, 0))];
    let mid = rig.request_function(0, a, ItNexusReset, Lun([0; 8]), Tag::NONE);
    rig.settle();
    for tag in hit {
        rig.complete(tag, Ok(()));
        rig.settle();
        assert_eq!(host(&mut rig, tag), HostByte::Reset);
    }
    assert_eq!(rig.response(mid), Some(Complete));
    for bad in [at(9, 0), Lun([0xff; 8]), Lun::REPORT_LUNS] {
        let mid = rig.request_function(0, a, ItNexusReset, bad, Tag::NONE);
        assert_eq!(rig.response(mid), Some(IncorrectLun));
    }
}

#[test]
fn queries() {
    let (mut rig, a, b) = rig();
    rig.prompt = false;
    let tag = rig.read(2, a, at(0, 0));
    let mut ask = |itn_id, function, lun, tag| {
        let mid = rig.request_function(0, itn_id, function, lun, tag);
        rig.settle();
        rig.response(mid)
    };
    assert_eq!(ask(a, QueryTask, at(0, 0), tag), Some(Succeeded));
    assert_eq!(ask(a, QueryTask, at(0, 1), tag), Some(Complete));
    assert_eq!(ask(b, QueryTask, at(0, 0), tag), Some(Complete));
    assert_eq!(ask(a, QueryTask, at(0, 0), Tag::NONE), Some(Complete));
    assert_eq!(ask(a, QueryTaskSet, at(0, 0), Tag::NONE), Some(Succeeded));
    assert_eq!(ask(a, QueryTaskSet, at(0, 1), Tag::NONE), Some(Complete));
    assert_eq!(ask(b, QueryTaskSet, at(0, 0), Tag::NONE), Some(Complete));
    assert!(rig.reactor(2).io.cancelled.is_empty());

    // That it is not there is said only when its answer can be seen.
    rig.complete(tag, Ok(()));
    let one = rig.request_function(0, a, QueryTask, at(0, 0), tag);
    let set = rig.request_function(1, a, QueryTaskSet, at(0, 0), Tag::NONE);
    rig.settle();
    assert_eq!((rig.response(one), rig.response(set)), (None, None));
    rig.done(tag);
    rig.settle();
    assert_eq!((rig.response(one), rig.response(set)), (Some(Complete), Some(Complete)));
    assert_eq!(rig.answer(tag).result.status, Status::Good);
}

#[test]
fn query_asynchronous_event() {
    let lu = unit();
    let mut rig = Rig::new(1, vec![mapped(0, 0, &lu)]);
    let a = rig.login(1);
    let mut ask = |lun| {
        let mid = rig.request_function(0, a, QueryAsyncEvent, lun, Tag::NONE);
        rig.response(mid)
    };
    assert_eq!(ask(at(0, 0)), Some(Complete));
    lu.establish(Attention::CapacityChanged, None);
    assert_eq!(ask(at(0, 0)), Some(Succeeded));
    assert_eq!(ask(at(0, 0)), Some(Succeeded), "asking does not take it away");
    assert_eq!(ask(Lun::REPORT_LUNS), Some(Complete));
}

#[test]
fn wrong_requests() {
    let (mut rig, a, _) = rig();
    let every =
        [QueryAsyncEvent, ClearAca, AbortTask, AbortTaskSet, ClearTaskSet, QueryTask, QueryTaskSet, LogicalUnitReset];
    let mut ask = |itn_id, code: i32, lun| {
        let mid = rig.request_code(0, itn_id, code, lun, Tag::NONE);
        rig.settle();
        rig.response(mid)
    };
    for function in every {
        for lun in [at(0, 5), at(7, 0), Lun([0; 8]), Lun([0xff; 8])] {
            assert_eq!(ask(a, function as i32, lun), Some(IncorrectLun), "{function:?} {lun:?}");
        }
        assert_eq!(ask(a, function as i32, Lun::REPORT_LUNS), Some(Complete), "{function:?}");
        assert_eq!(ask(a, function as i32, at(0, 0)), Some(Complete), "{function:?}");
        assert_eq!(ask(12345, function as i32, at(0, 0)), Some(Response::Failed), "{function:?}");
    }
    for code in [0, 3, 0x20, 0x83, -1, i32::MAX, 0x102] {
        assert_eq!(ask(a, code, at(0, 0)), Some(Rejected), "{code:#x}");
    }
}

#[test]
fn a_job_is_told_and_waited_for() {
    let (mut rig, a, _) = rig();
    let tag = rig.send(1, a, at(0, 0), VERIFY, IoBuf::owned(512, Direction::Out));
    let mid = rig.request_function(0, a, AbortTask, at(0, 0), tag);
    rig.settle();
    assert_eq!(rig.response(mid), None);
    rig.pool.take(0)();
    rig.settle();
    assert_eq!(host(&mut rig, tag), HostByte::Abort);
    assert_eq!(rig.response(mid), Some(Complete));
    // The result was on its way when it was aborted: the abort came first all the same.
    let tag = rig.send(1, a, at(0, 0), VERIFY, IoBuf::owned(512, Direction::Out));
    let mid = rig.request_function(1, a, AbortTask, at(0, 0), tag);
    rig.pool.take(0)();
    rig.settle();
    assert_eq!(host(&mut rig, tag), HostByte::Abort);
    assert_eq!(rig.response(mid), Some(Complete));
}

#[test]
fn functions_overlap() {
    let (mut rig, a, b) = rig();
    let tag = rig.read(1, a, at(0, 0));
    let foreign = rig.read(2, b, at(0, 0));
    let abort = rig.request_function(0, a, AbortTask, at(0, 0), tag);
    rig.settle();
    let set = rig.request_function(0, a, AbortTaskSet, at(0, 0), Tag::NONE);
    let mine = rig.request_function(2, b, LogicalUnitReset, at(0, 0), Tag::NONE);
    let theirs = rig.request_function(1, a, LogicalUnitReset, at(0, 0), Tag::NONE);
    rig.settle();
    rig.request_destroy(0, a);
    rig.settle();
    rig.complete(tag, Ok(()));
    rig.settle();
    assert_eq!(host(&mut rig, tag), HostByte::Abort, "the first that ends a task determines its answer");
    assert_eq!((rig.response(abort), rig.response(set)), (Some(Complete), Some(Complete)));
    assert_eq!(rig.nexus_response(0), Some((a, 0)), "destroyed while a reset that it asked for goes on");
    assert_eq!((rig.response(mine), rig.response(theirs)), (None, None));
    rig.complete(foreign, Ok(()));
    rig.settle();
    assert_eq!(host(&mut rig, foreign), HostByte::Reset);
    assert_eq!((rig.response(mine), rig.response(theirs)), (Some(Complete), Some(Complete)));
    assert_eq!(rig.tasks(), 0);
}

#[test]
fn a_head_used_again_is_not_waited_for() {
    let (mut rig, a, _) = rig();
    let held = rig.read(0, a, at(0, 0));
    let tag = rig.read(0, a, at(0, 0));
    let mid = rig.request_function(0, a, AbortTaskSet, at(0, 0), Tag::NONE);
    rig.settle();
    rig.complete(tag, Ok(()));
    // The same head again, and over again, while the function waits for the other task.
    let again = Tag::new(0, tag.queue(), tag.head(), tag.generation().wrapping_add(1000));
    rig.send_as(again, a, at(0, 0), TEST_UNIT_READY, IoBuf::empty());
    assert_eq!(rig.answer(again).result.status, Status::Good);
    assert_eq!(rig.response(mid), None);
    rig.complete(held, Ok(()));
    assert_eq!(rig.response(mid), Some(Complete));
}

#[test]
fn a_unit_that_only_others_see_is_not_there() {
    let lu = unit();
    let hidden = UnitMapping { initiators: Some(vec![port(2)]), ..mapped(0, 1, &lu) };
    let mut rig = Rig::new(1, vec![mapped(0, 0, &unit()), hidden]);
    let a = rig.login(1);
    let mid = rig.request_function(0, a, LogicalUnitReset, at(0, 1), Tag::NONE);
    assert_eq!(rig.response(mid), Some(IncorrectLun));
}
