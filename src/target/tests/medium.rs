//! Ejecting the medium is a barrier: when it is answered, no command of anybody uses it, on any shard.

use std::sync::Arc;

use crate::backing::{BackingError, OpKind};
use crate::device_server::testkit::{MemImage, out_buf};
use crate::lu::{Lu, LuSetup};
use crate::mem::{Direction, IoBuf};
use crate::scsi::{CommandResult, FunctionResponse, Status, TaskManagementFunction};
use crate::target::testkit::*;
use crate::tgt::{AerReq, AsyncFunction, AsyncReq, ItnId, KEvent, Tag, notification};

const EMPTY: Option<(u8, u16)> = Some((2, 0x3a00));
const MAY_HAVE_CHANGED: Option<(u8, u16)> = Some((6, 0x2800));

fn removable() -> Arc<Lu> {
    let mut setup = LuSetup::new(Arc::new(MemImage::new(64 * 512)), 0x3000_0000_0000_0002, "S".to_owned());
    setup.removable = true;
    Lu::new(setup).unwrap()
}

impl Rig {
    /// START STOP UNIT with byte 4 as given.
    fn start_stop(&mut self, shard: u8, itn_id: ItnId, byte4: u8) -> Tag {
        let mut scb = [0; 16];
        (scb[0], scb[4]) = (0x1b, byte4);
        self.send(shard, itn_id, at(0, 0), scb, IoBuf::empty())
    }

    fn eject(&mut self, shard: u8, itn_id: ItnId) -> Tag {
        self.start_stop(shard, itn_id, 0x02)
    }

    fn load(&mut self, shard: u8, itn_id: ItnId) -> Tag {
        self.start_stop(shard, itn_id, 0x03)
    }

    fn write_one(&mut self, shard: u8, itn_id: ItnId) -> Tag {
        self.send(shard, itn_id, at(0, 0), write10(1), out_buf(&[7; 512]))
    }

    fn ready(&mut self, shard: u8, itn_id: ItnId) -> Option<(u8, u16)> {
        let tag = self.send(shard, itn_id, at(0, 0), TEST_UNIT_READY, IoBuf::empty());
        let answer = self.answer(tag);
        (!answer.sense.is_empty()).then(|| answer.sense())
    }

    fn good(&mut self, tag: Tag) {
        assert_eq!(self.answer(tag).result, CommandResult::status(Status::Good));
    }
}

#[test]
fn an_eject_waits_for_what_uses_the_medium_and_flushes_behind_it() {
    let lu = removable();
    let mut rig = Rig::new(2, vec![mapped(0, 0, &lu), mapped(0, 1, &unit())]);
    let (a, b) = (rig.login(1), rig.login(2));
    let running = [rig.write_one(0, b), rig.write_one(1, b), rig.read(1, a, at(0, 0)), rig.read(0, b, at(0, 0))];
    let elsewhere = rig.read(1, b, at(0, 1));
    let eject = rig.eject(0, a);
    // Nobody begins anything from here on, wherever.
    assert_eq!([rig.ready(0, a), rig.ready(0, b), rig.ready(1, b)], [EMPTY; 3]);
    let late = rig.write_one(1, b);
    assert_eq!(rig.answer(late).sense(), (2, 0x3a00));
    for (ended, result) in running.into_iter().zip([Ok(()), Err(BackingError::WriteFailed), Ok(()), Ok(())]) {
        rig.settle();
        assert!(!rig.is_answered(eject), "{ended:?} is at the image");
        assert_eq!(rig.pool.len(), 0, "no flush before the last write");
        rig.complete(ended, result);
        rig.answer(ended);
    }
    rig.settle();
    assert_eq!((rig.is_answered(eject), rig.pool.len()), (false, 1), "the flush");
    rig.pool.take(0)();
    rig.settle();
    rig.good(eject);
    assert!(!rig.is_answered(elsewhere), "another unit's command is no matter");

    // Loading waits for the look at the image's size.
    let load = rig.load(1, b);
    rig.settle();
    assert_eq!((rig.is_answered(load), rig.pool.len()), (false, 1));
    assert_eq!([rig.ready(0, a), rig.ready(0, b)], [EMPTY; 2]);
    rig.pool.take(0)();
    rig.settle();
    rig.good(load);
    assert_eq!([rig.ready(0, a), rig.ready(0, a)], [MAY_HAVE_CHANGED, None]);
    assert_eq!(rig.ready(0, b), None);
    rig.complete(elsewhere, Ok(()));
    rig.good(elsewhere);
    assert_eq!(rig.tasks(), 0);
}

/// A command that asks for its blocks again when they are free finds that there are none any more.
#[test]
fn what_waits_is_not_begun_any_more() {
    let lu = removable();
    let mut rig = Rig::new(2, vec![mapped(0, 0, &lu)]);
    let (a, b) = (rig.login(1), rig.login(2));
    let write = rig.write_one(1, b);
    // COMPARE AND WRITE of the same block: it waits for the write.
    let mut scb = [0; 16];
    (scb[0], scb[13]) = (0x89, 1);
    let waits = rig.send(0, b, at(0, 0), scb, out_buf(&[0; 1024]));
    rig.settle();
    let eject = rig.eject(0, a);
    rig.settle();
    rig.complete(write, Ok(()));
    rig.settle();
    assert_eq!(rig.answer(waits).sense(), (2, 0x3a00));
    assert_eq!(rig.pool.len(), 1, "the flush, and no COMPARE AND WRITE");
    rig.pool.take(0)();
    rig.settle();
    rig.good(eject);
    rig.good(write);
    let kinds: Vec<OpKind> = rig.reactor(0).io.held.iter().map(|held| held.op.kind).collect();
    assert_eq!((kinds, rig.tasks()), (vec![], 0));
}

/// Both in turn; the second finds what the first left.
#[test]
fn eject_and_load_of_two_nexuses() {
    let lu = removable();
    let mut rig = Rig::new(2, vec![mapped(0, 0, &lu)]);
    let (a, b) = (rig.login(1), rig.login(2));
    let read = rig.read(1, b, at(0, 0));
    let (eject, load) = (rig.eject(0, a), rig.load(1, b));
    rig.settle();
    assert!(!rig.is_answered(eject) && !rig.is_answered(load), "the load waits for its turn");
    rig.complete(read, Ok(()));
    rig.settle();
    while rig.pool.len() > 0 {
        rig.pool.take(0)();
        rig.settle();
    }
    rig.good(eject);
    rig.good(load);
    assert!(!lu.is_ejected());
    assert_eq!([rig.ready(0, a), rig.ready(0, b)], [MAY_HAVE_CHANGED, None]);
    rig.good(read);
}

/// Its effect stands, though nobody waits for its answer any more.
#[test]
fn an_eject_whose_task_is_aborted() {
    let lu = removable();
    let mut rig = Rig::new(2, vec![mapped(0, 0, &lu)]);
    let (a, b) = (rig.login(1), rig.login(2));
    let write = rig.write_one(1, b);
    let _eject = rig.eject(0, a);
    rig.settle();
    let response = rig.request_function(0, a, TaskManagementFunction::AbortTaskSet, at(0, 0), Tag::NONE);
    rig.complete(write, Ok(()));
    rig.settle();
    while rig.pool.len() > 0 {
        rig.pool.take(0)();
        rig.settle();
    }
    assert!(rig.response(response).is_some());
    assert!(lu.is_ejected());
    assert_eq!([rig.ready(0, a), rig.ready(1, b)], [EMPTY; 2]);
    rig.good(write);
    assert_eq!(rig.tasks(), 0);
}

/// PREVENT of a nexus on another shard, before and after.
#[test]
fn prevention_by_another_nexus() {
    let lu = removable();
    let mut rig = Rig::new(2, vec![mapped(0, 0, &lu)]);
    let (a, b) = (rig.login(1), rig.login(2));
    let mut scb = [0; 16];
    (scb[0], scb[4]) = (0x1e, 1);
    let prevent = rig.send(1, b, at(0, 0), scb, IoBuf::empty());
    rig.good(prevent);
    let read = rig.send(0, a, at(0, 0), read10(1), IoBuf::owned(512, Direction::In));
    let eject = rig.eject(0, a);
    assert_eq!(rig.answer(eject).sense(), (5, 0x5302), "at once");
    rig.complete(read, Ok(()));
    rig.good(read);
    // The nexus is lost: so is what it prevented.
    rig.request_destroy(1, b);
    rig.settle();
    let eject = rig.eject(0, a);
    rig.settle();
    rig.pool.take(0)();
    rig.settle();
    rig.good(eject);
}

/// 28h/00h goes out as an event, too, to nexuses that did not load it.
#[test]
fn a_load_is_an_event() {
    let lu = removable();
    let mut rig = Rig::new(1, vec![mapped(0, 0, &lu)]);
    let (a, b, c) = (rig.login(1), rig.login(2), rig.login(3));
    let media = notification::MEDIA_CHANGE;
    let subscribe = AsyncReq {
        host_no: HOST,
        function: AsyncFunction::Subscribe,
        itn_id: c,
        lun: at(0, 0),
        events: u32::MAX,
        mid: 7,
    };
    rig.post(0, KEvent::AsyncReq(subscribe), None);
    let there_are = notification::SUPPORTED | media;
    assert_eq!(rig.reactor(0).async_responses.pop(), Some((7, FunctionResponse::Complete, there_are)));
    let eject = rig.eject(0, a);
    rig.settle();
    rig.pool.take(0)();
    rig.settle();
    rig.good(eject);
    assert!(rig.reactor(0).reports.is_empty(), "that it is gone everyone sees");
    let load = rig.load(0, a);
    rig.settle();
    rig.pool.take(0)();
    rig.settle();
    rig.good(load);
    let reports = std::mem::take(&mut rig.reactor(0).reports);
    let told = |(report, sense): &(AerReq, Vec<u8>)| (report.itn_id, report.events, sense[2], sense[12], sense[13]);
    let mut told: Vec<_> = reports.iter().map(told).collect();
    told.sort_unstable();
    let mut expected = [(b, 0, 6, 0x28, 0x00), (c, media, 6, 0x28, 0x00)];
    expected.sort_unstable();
    assert_eq!(told, expected);
}
