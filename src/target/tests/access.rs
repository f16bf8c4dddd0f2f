//! SET TARGET PORT GROUPS is a barrier: when it is answered, no command that it keeps out is at the image, on any shard.

use crate::backing::BackingError;
use crate::device_server::testkit::out_buf;
use crate::mem::{Direction, IoBuf};
use crate::scsi::{CommandResult, Status};
use crate::target::testkit::*;
use crate::tgt::{ItnId, Tag};

const ACTIVE: u8 = 0x0;
const STANDBY: u8 = 0x2;

/// Sets the state of group 1, that of the port that all nexuses of a rig use.
fn set_group(rig: &mut Rig, shard: u8, itn_id: ItnId, state: u8) -> Tag {
    let scb = [0xa4, 0x0a, 0, 0, 0, 0, 0, 0, 0, 8, 0, 0, 0, 0, 0, 0];
    rig.send(shard, itn_id, at(0, 0), scb, out_buf(&[0, 0, 0, 0, state, 0, 0, 1]))
}

fn code(rig: &mut Rig, shard: u8, itn_id: ItnId) -> Option<(u8, u16)> {
    let tag = rig.send(shard, itn_id, at(0, 0), TEST_UNIT_READY, IoBuf::empty());
    let answer = rig.answer(tag);
    (!answer.sense.is_empty()).then(|| answer.sense())
}

fn good(rig: &mut Rig, tag: Tag) {
    assert_eq!(rig.answer(tag).result, CommandResult::status(Status::Good));
}

#[test]
fn it_waits_for_what_it_keeps_out_on_all_shards() {
    let mut rig = Rig::new(2, vec![mapped(0, 0, &unit()), mapped(0, 1, &unit())]);
    let (a, b) = (rig.login(1), rig.login(2));
    let running = [rig.read(0, a, at(0, 0)), rig.read(0, b, at(0, 0)), rig.read(1, b, at(0, 0))];
    let elsewhere = rig.read(1, b, at(0, 1));
    let change = set_group(&mut rig, 1, a, STANDBY);
    rig.settle();
    // Nothing new begins from here on, whoever asks and wherever.
    assert_eq!(code(&mut rig, 0, a), Some((2, 0x040b)));
    assert_eq!(code(&mut rig, 1, b), Some((6, 0x2a06)));
    assert_eq!(code(&mut rig, 0, b), Some((2, 0x040b)));
    for (ended, result) in running.into_iter().zip([Ok(()), Err(BackingError::ReadFailed), Ok(())]) {
        assert!(!rig.is_answered(change), "{ended:?} is at the image");
        rig.complete(ended, result);
        rig.settle();
        rig.answer(ended);
    }
    good(&mut rig, change);
    assert!(!rig.is_answered(elsewhere), "another unit's command is no matter");

    // Back: who loses nothing waits for nobody.
    let change = set_group(&mut rig, 0, b, ACTIVE);
    rig.settle();
    good(&mut rig, change);
    assert_eq!(code(&mut rig, 1, a), Some((6, 0x2a06)));
    assert_eq!([code(&mut rig, 1, a), code(&mut rig, 0, b)], [None, None]);
    rig.complete(elsewhere, Ok(()));
    good(&mut rig, elsewhere);
    assert_eq!(rig.tasks(), 0);
}

/// The second waits for the first, which waits for a command; each takes effect in its turn.
#[test]
fn changes_of_two_nexuses_come_one_after_the_other() {
    let mut rig = Rig::new(2, vec![mapped(0, 0, &unit())]);
    let (a, b) = (rig.login(1), rig.login(2));
    let running = rig.read(0, b, at(0, 0));
    let first = set_group(&mut rig, 0, a, 0x3);
    rig.settle();
    assert_eq!(code(&mut rig, 1, b), Some((6, 0x2a06)));
    let keys =
        rig.send(1, b, at(0, 0), [0x5e, 0, 0, 0, 0, 0, 0, 0, 8, 0, 0, 0, 0, 0, 0, 0], IoBuf::owned(8, Direction::In));
    assert_eq!(rig.answer(keys).sense(), (2, 0x040c), "unavailable keeps it out");
    let second = set_group(&mut rig, 1, b, STANDBY);
    rig.settle();
    assert!(!rig.is_answered(first) && !rig.is_answered(second));
    rig.complete(running, Ok(()));
    rig.settle();
    good(&mut rig, first);
    good(&mut rig, second);
    assert_eq!([code(&mut rig, 0, a), code(&mut rig, 0, a)], [Some((6, 0x2a06)), Some((2, 0x040b))]);
    let keys =
        rig.send(1, b, at(0, 0), [0x5e, 0, 0, 0, 0, 0, 0, 0, 8, 0, 0, 0, 0, 0, 0, 0], IoBuf::owned(8, Direction::In));
    good(&mut rig, keys);
}
