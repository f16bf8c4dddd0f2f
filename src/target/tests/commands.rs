//! A command's way: CMD_REQ, plan, CMD_RSP, CMD_DONE.

use crate::backing::BackingError;
use crate::mem::{Direction, IoBuf};
use crate::scsi::{HostByte, Lun, Status};
use crate::target::testkit::*;
use crate::tgt::{CmdData, CmdReq, KEvent, Tag};

fn rig() -> (Rig, u64) {
    let mut rig = Rig::new(2, vec![mapped(0, 0, &unit()), mapped(0, 1, &unit())]);
    let itn_id = rig.login(1);
    (rig, itn_id)
}

#[test]
fn data_goes_out_and_comes_back() {
    let (mut rig, itn_id) = rig();
    let mut buf = IoBuf::owned(1024, Direction::Out);
    buf.write_at(0, &[0x5a; 1024]);
    let write = rig.send(1, itn_id, at(0, 0), write10(2), buf);
    assert!(!rig.is_answered(write));
    rig.complete(write, Ok(()));
    let answer = rig.answer(write);
    assert_eq!((answer.result.encode(), answer.len, answer.rw), (0, 1024, 1));

    let read = rig.send(0, itn_id, at(0, 0), read10(2), IoBuf::owned(1024, Direction::In));
    rig.complete(read, Ok(()));
    let answer = rig.answer(read);
    assert_eq!((answer.result.encode(), answer.len, answer.rw), (0, 1024, 0));
    assert_eq!(answer.data, [0x5a; 1024]);
    assert_eq!(rig.tasks(), 0);
}

#[test]
fn a_task_lives_until_cmd_done() {
    let (mut rig, itn_id) = rig();
    rig.prompt = false;
    let tag = rig.send(0, itn_id, at(0, 0), TEST_UNIT_READY, IoBuf::empty());
    assert!(rig.is_answered(tag));
    assert_eq!(rig.tasks(), 1);
    rig.done(tag);
    assert_eq!(rig.tasks(), 0);
}

#[test]
fn backing_errors_become_sense_data() {
    let (mut rig, itn_id) = rig();
    let tag = rig.read(0, itn_id, at(0, 0));
    rig.complete(tag, Err(BackingError::ReadFailed));
    let answer = rig.answer(tag);
    assert_eq!((answer.result.status, answer.len), (Status::CheckCondition, 0));
    assert_eq!(answer.sense(), (3, 0x1100));
}

#[test]
fn errors_of_the_medium_are_counted_with_the_unit() {
    let lu = unit();
    let mut rig = Rig::new(1, vec![mapped(0, 0, &lu)]);
    let itn_id = rig.login(1);
    let results = [Ok(()), Err(BackingError::ReadFailed), Err(BackingError::Cancelled), Err(BackingError::ReadFailed)];
    for result in results {
        let read = rig.read(0, itn_id, at(0, 0));
        rig.complete(read, result);
    }
    let write = rig.send(0, itn_id, at(0, 0), write10(1), IoBuf::owned(512, Direction::Out));
    rig.complete(write, Err(BackingError::WriteFailed));
    assert_eq!(lu.errors().get(), crate::scsi::spc::LogErrors { read: 2, write: 1, verify: 0 });
}

#[test]
fn sense_data_has_the_unit_s_format() {
    let lu = unit();
    let mut rig = Rig::new(1, vec![mapped(0, 0, &lu)]);
    let itn_id = rig.login(1);
    let waiting = rig.read(0, itn_id, at(0, 0));
    let itl = crate::device_server::testkit::nexus_of(lu.clone(), None);
    lu.set_mode(&itl, crate::scsi::spc::ModeState { d_sense: true, ..lu.mode() });
    let tag = rig.send(0, itn_id, at(0, 0), TEST_UNIT_READY, IoBuf::empty());
    assert_eq!(rig.answer(tag).sense[..4], [0x72, 6, 0x2a, 0x01]);
    rig.complete(waiting, Err(BackingError::ReadFailed));
    assert_eq!(rig.answer(waiting).sense[..4], [0x72, 3, 0x11, 0]);
    // What is not there has no mode pages.
    let tag = rig.send(0, itn_id, at(0, 9), TEST_UNIT_READY, IoBuf::empty());
    assert_eq!(rig.answer(tag).sense(), (5, 0x2500));
}

#[test]
fn addresses() {
    let (mut rig, itn_id) = rig();
    let mut result = |lun: Lun, scb: [u8; 16]| {
        let tag = rig.send(0, itn_id, lun, scb, IoBuf::owned(36, Direction::In));
        rig.answer(tag)
    };
    let inquiry = [0x12, 0, 0, 0, 36, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0];
    assert_eq!(result(at(0, 0), inquiry).data[0], 0);
    assert_eq!(result(Lun([1, 0, 0x40, 1, 0, 0, 0, 0]), inquiry).data[0], 0, "the other form");
    assert_eq!(result(at(0, 7), inquiry).data[0], 0x7f, "INQUIRY is answered for units that are not there");
    assert_eq!(result(Lun::REPORT_LUNS, inquiry).data[0] & 0x1f, 0x1e, "the well-known unit");
    assert_eq!(result(at(1, 0), inquiry).result.host, HostByte::BadTarget);
    assert_eq!(result(Lun([0; 8]), inquiry).result.host, HostByte::BadTarget);
    assert_eq!(result(Lun([0xff; 8]), inquiry).result.host, HostByte::BadTarget);
}

#[test]
fn task_attributes() {
    let (mut rig, itn_id) = rig();
    for (attribute, lun, sense) in [
        (0x20, at(0, 0), None),
        (0x21, at(0, 0), None),
        (0x22, at(0, 0), None),
        (0x2f, at(0, 0), Some((5, 0x4900))),
        (0, at(0, 0), Some((5, 0x4900))),
        // A unit that is not there comes first.
        (0x2f, at(0, 9), Some((5, 0x2500))),
    ] {
        let tag = rig.tag(0);
        let req = CmdReq { host_no: HOST, data_len: 0, itn_id, scb: TEST_UNIT_READY, lun, attribute, tag };
        rig.post(0, KEvent::CmdReq(req), Some(CmdData::default()));
        rig.settle();
        let answer = rig.answer(tag);
        assert_eq!((!answer.sense.is_empty()).then(|| answer.sense()), sense, "{attribute:#x}");
    }
}

#[test]
fn long_cdbs_travel_beside_the_event() {
    let (mut rig, itn_id) = rig();
    let tag = rig.tag(0);
    // A 32-byte command: known or not, it must be seen whole.
    let mut scb = [0; 16];
    scb[0] = 0x7f;
    scb[7] = 0x18;
    let cdb_tail = Some(vec![0; 16].into_boxed_slice());
    let req = CmdReq { host_no: HOST, data_len: 0, itn_id, scb, lun: at(0, 0), attribute: 0x20, tag };
    rig.post(0, KEvent::CmdReq(req), Some(CmdData { buf: IoBuf::empty(), cdb_tail, earlier: 0, taken: 0 }));
    assert_eq!(rig.answer(tag).sense().0, 5);
}

#[test]
fn a_request_without_its_data_is_answered() {
    let (mut rig, itn_id) = rig();
    let tag = rig.tag(0);
    let req = CmdReq { host_no: HOST, data_len: 512, itn_id, scb: read10(1), lun: at(0, 0), attribute: 0x20, tag };
    rig.post(0, KEvent::CmdReq(req), None);
    assert!(rig.is_answered(tag));
}

#[test]
fn wrong_tags_are_refused_and_harm_nobody() {
    let (mut rig, itn_id) = rig();
    let tag = rig.read(0, itn_id, at(0, 0));
    let stale = Tag::new(0, tag.queue(), tag.head(), tag.generation().wrapping_sub(1));
    for wrong in [
        tag,
        stale,
        Tag::new(0, 7, 0, 1),
        Tag::new(0, u16::MAX, 0, 1),
        Tag::new(0, 0, QUEUE_SIZE, 1),
        Tag::new(0, 0, u16::MAX, 1),
    ] {
        rig.send_as(wrong, itn_id, at(0, 0), read10(1), IoBuf::owned(512, Direction::In));
        let answer = rig.answer(wrong);
        assert_eq!(answer.result.host, HostByte::Error, "{wrong:?}");
        assert_eq!(answer.data.len(), 512, "its buffer came back");
        assert_eq!(rig.tasks(), 1);
    }
    // A tag of another shard, given to this one.
    let foreign = Tag::new(1, 0, 5, 1);
    let req = CmdReq {
        host_no: HOST,
        data_len: 0,
        itn_id,
        scb: TEST_UNIT_READY,
        lun: at(0, 0),
        attribute: 0x20,
        tag: foreign,
    };
    rig.post(0, KEvent::CmdReq(req), Some(CmdData::default()));
    assert_eq!(rig.reactor(0).answers.pop().map(|a| a.result.host), Some(HostByte::Error));
    rig.complete(tag, Ok(()));
    assert_eq!(rig.answer(tag).result.status, Status::Good);
    assert_eq!(rig.tasks(), 0);
}

#[test]
fn cmd_done_frees_only_the_command_it_names() {
    let (mut rig, itn_id) = rig();
    rig.prompt = false;
    let tag = rig.send(0, itn_id, at(0, 0), TEST_UNIT_READY, IoBuf::empty());
    let stale = Tag::new(0, tag.queue(), tag.head(), tag.generation().wrapping_sub(1));
    rig.send_as(stale, itn_id, at(0, 0), TEST_UNIT_READY, IoBuf::empty());
    rig.done(stale);
    assert_eq!(rig.tasks(), 1, "the refused command's CMD_DONE is not the task's");
    rig.done(tag);
    assert_eq!(rig.tasks(), 0);
    // A task that is not answered is not freed by anything.
    let tag = rig.read(0, itn_id, at(0, 0));
    rig.send_as(tag, itn_id, at(0, 0), TEST_UNIT_READY, IoBuf::empty());
    rig.done(tag);
    assert_eq!(rig.tasks(), 1);
    rig.reactor(0).answers.clear();
    rig.complete(tag, Ok(()));
    assert_eq!(rig.answer(tag).result.status, Status::Good);
}

#[test]
fn a_job_answers_by_mail() {
    let (mut rig, itn_id) = rig();
    let tag = rig.send(1, itn_id, at(0, 0), VERIFY, IoBuf::owned(512, Direction::Out));
    assert_eq!((rig.pool.len(), rig.is_answered(tag)), (1, false));
    rig.pool.take(0)();
    assert!(!rig.is_answered(tag));
    assert_eq!(rig.mail.needs_pop(1), Some(false));
    rig.settle();
    let answer = rig.answer(tag);
    assert_eq!((answer.result.status, answer.data.len()), (Status::Good, 512));
    assert_eq!(rig.tasks(), 0);
}

#[test]
fn a_job_that_is_never_run_is_answered() {
    let (mut rig, itn_id) = rig();
    let tag = rig.send(1, itn_id, at(0, 0), VERIFY, IoBuf::owned(512, Direction::Out));
    drop(rig.pool.take(0));
    rig.settle();
    let answer = rig.answer(tag);
    assert_eq!((answer.sense(), answer.data.len()), ((0xb, 0), 512));
}

#[test]
fn queues_close_when_their_tasks_are_over() {
    let (mut rig, itn_id) = rig();
    let tag = rig.read(0, itn_id, at(0, 0));
    let again = Tag::new(0, tag.queue(), (tag.head() + 1) % QUEUE_SIZE, 99);
    rig.reactor(0).shard.close_queue(tag.queue());
    rig.send_as(again, itn_id, at(0, 0), TEST_UNIT_READY, IoBuf::empty());
    assert_eq!(rig.answer(again).result.host, HostByte::Error, "a closing queue takes nothing");
    rig.complete(tag, Ok(()));
    assert_eq!(rig.answer(tag).result.status, Status::Good);
    assert_eq!(rig.tasks(), 0);
    rig.send_as(again, itn_id, at(0, 0), TEST_UNIT_READY, IoBuf::empty());
    assert_eq!(rig.answer(again).result.host, HostByte::Error);
    rig.reactor(0).shard.open_queue(tag.queue(), 256);
    let high = Tag::new(0, tag.queue(), 255, 1);
    rig.send_as(high, itn_id, at(0, 0), TEST_UNIT_READY, IoBuf::empty());
    assert_eq!(rig.answer(high).result.status, Status::Good);
}

#[test]
fn tasks_can_be_ended_without_a_function() {
    let (mut rig, itn_id) = rig();
    let mine = rig.read(0, itn_id, at(0, 0));
    let job = rig.send(0, itn_id, at(0, 0), VERIFY, IoBuf::owned(512, Direction::Out));
    let third = rig.send(0, itn_id, at(0, 0), read10(1), IoBuf::owned(512, Direction::In));
    assert_eq!(mine.queue(), third.queue());
    let r = rig.reactor(0);
    r.shard.abort_queue(job.queue(), HostByte::TransportDisrupted, &mut r.io, &mut r.rings);
    assert_eq!(r.io.cancelled, [0; 0], "a job is not at the backing");
    for how in [HostByte::TransportDisrupted, HostByte::Abort] {
        r.shard.abort_queue(mine.queue(), how, &mut r.io, &mut r.rings);
    }
    assert_eq!(r.io.cancelled, [mine.0, third.0], "asked once");
    rig.complete(mine, Err(BackingError::Cancelled));
    rig.pool.take(0)();
    rig.settle();
    assert_eq!(rig.answer(mine).result.host, HostByte::TransportDisrupted);
    assert_eq!(rig.answer(job).result.host, HostByte::TransportDisrupted);

    let r = rig.reactor(0);
    r.shard.abort_queue(77, HostByte::Abort, &mut r.io, &mut r.rings);
    assert_eq!(r.io.cancelled.len(), 2);
    rig.complete(third, Ok(()));
    assert_eq!(rig.answer(third).result.host, HostByte::TransportDisrupted);
    assert_eq!(rig.tasks(), 0);
}
