//! MODE SELECT as a change of the unit: whose commands it waits for, and what those find that begin meanwhile.

use crate::backing::OpKind;
use crate::mem::{Direction, IoBuf};
use crate::scsi::{Lun, Status};
use crate::target::testkit::*;
use crate::tgt::{ItnId, Tag};

const LUN: fn() -> Lun = || at(0, 0);

fn out(data: &[u8]) -> IoBuf {
    let mut buf = IoBuf::owned(data.len(), Direction::Out);
    buf.write_at(0, data);
    buf
}

impl Rig {
    /// MODE SELECT(6) of one page.
    fn select(&mut self, shard: u8, itn_id: ItnId, page: &[u8]) -> Tag {
        let list = [&[0; 4], page].concat();
        let mut scb = [0; 16];
        (scb[0], scb[1], scb[4]) = (0x15, 0x10, list.len() as u8);
        self.send(shard, itn_id, LUN(), scb, out(&list))
    }

    /// WRITE of one block.
    fn write(&mut self, shard: u8, itn_id: ItnId) -> Tag {
        self.send(shard, itn_id, LUN(), write10(1), out(&[7; 512]))
    }

    fn assert_good(&mut self, tag: Tag) {
        assert_eq!(self.answer(tag).result.status, Status::Good);
    }
}

/// Control page with SWP and TAS as given.
fn control(swp: u8, tas: u8) -> [u8; 12] {
    [0x0a, 10, 0x20, 0x10, swp << 3, tas << 6, 0, 0, 0, 0, 0, 0]
}

/// Caching page with WCE as given.
fn caching(wce: u8) -> [u8; 20] {
    let mut page = [0; 20];
    (page[0], page[1], page[2]) = (0x08, 18, wce << 2);
    page
}

/// When write protection is answered no write of anybody is under way, on any shard; whoever begins one before the answer finds the unit protected.
#[test]
fn write_protection_waits_for_every_write() {
    let lu = unit();
    let mut rig = Rig::new(2, vec![mapped(0, 0, &lu)]);
    let (a, b) = (rig.login(1), rig.login(2));
    let writes = [rig.write(0, a), rig.write(1, b), rig.write(1, a)];
    let read = rig.read(1, b, LUN());
    let select = rig.select(0, a, &control(1, 0));
    let late = rig.write(0, a);
    assert_eq!(rig.answer(late).sense(), (7, 0x2702), "LOGICAL UNIT SOFTWARE WRITE PROTECTED");
    let late = rig.write(1, b);
    assert_eq!(rig.answer(late).sense(), (6, 0x2a01), "it is told first");
    let late = rig.write(1, b);
    assert_eq!(rig.answer(late).sense(), (7, 0x2702));
    for write in writes {
        rig.settle();
        assert!(!rig.is_answered(select), "a write is under way");
        rig.complete(write, Ok(()));
        rig.assert_good(write);
    }
    rig.settle();
    rig.assert_good(select);
    assert!(!rig.is_answered(read), "reads are not waited for");
    rig.complete(read, Ok(()));
    rig.assert_good(read);

    let select = rig.select(1, b, &control(0, 0));
    rig.settle();
    rig.assert_good(select);
    let write = rig.write(1, b);
    rig.complete(write, Ok(()));
    rig.assert_good(write);
    assert_eq!(rig.tasks(), 0);
}

/// What was written into the cache is durable when the answer comes that says that there is none: the flush comes after the last
/// write that was not durable by itself.
#[test]
fn the_write_cache_is_flushed_behind_the_last_cached_write() {
    let lu = unit();
    let mut rig = Rig::new(2, vec![mapped(0, 0, &lu)]);
    let (a, b) = (rig.login(1), rig.login(2));
    let cached = rig.write(1, b);
    let select = rig.select(0, a, &caching(0));
    rig.settle();
    assert_eq!((rig.is_answered(select), rig.pool.len()), (false, 0), "no flush yet");
    let durable = rig.write(0, a);
    let kinds = |rig: &mut Rig, shard| rig.reactor(shard).io.held.iter().map(|held| held.op.kind).collect::<Vec<_>>();
    assert_eq!(kinds(&mut rig, 1), [OpKind::Write { fua: false }]);
    assert_eq!(kinds(&mut rig, 0), [OpKind::Write { fua: true }]);
    rig.complete(cached, Ok(()));
    rig.settle();
    assert_eq!((rig.is_answered(select), rig.pool.len()), (false, 1));
    rig.pool.take(0)();
    rig.settle();
    rig.assert_good(select);
    assert!(!rig.is_answered(durable), "what began after it is not waited for");
    rig.complete(durable, Ok(()));
    rig.assert_good(durable);
    rig.assert_good(cached);
}

/// What takes nothing from anybody waits for nobody.
#[test]
fn a_harmless_change_does_not_wait() {
    let lu = unit();
    let mut rig = Rig::new(2, vec![mapped(0, 0, &lu)]);
    let (a, b) = (rig.login(1), rig.login(2));
    let write = rig.write(1, b);
    for page in [&control(0, 1)[..], &control(0, 0), &caching(1)] {
        let select = rig.select(0, a, page);
        rig.assert_good(select);
    }
    rig.complete(write, Ok(()));
    rig.assert_good(write);
}
