//! Copies by token among other commands: what a token stands for, and who waits for whom.

use std::sync::Arc;

use super::interleavings::reserve_out;
use crate::device_server::testkit::{MemImage, out_buf};
use crate::lu::{Lu, LuSetup, TargetPort};
use crate::mem::{Direction, IoBuf};
use crate::scsi::{CommandResult, FunctionResponse, Status, TaskManagementFunction};
use crate::target::testkit::*;
use crate::tgt::{ItnId, Tag};

const GOOD: CommandResult = CommandResult::status(Status::Good);
const TOKEN_CANCELLED: (u8, u16) = (5, 0x2308);

/// Two shards; a unit of 64 KiB and one of 128 blocks, below one target number, which know each other's tokens.
struct Scene {
    rig: Rig,
    destination: Arc<MemImage>,
    a: ItnId,
    b: ItnId,
}

impl Scene {
    fn new() -> Scene {
        let source = LuSetup::new(Arc::new(MemImage::new(1 << 16)), 0x3000_0000_0000_0001, "S1".into());
        let destination = Arc::new(MemImage::new(1 << 16));
        let mut other = LuSetup::new(destination.clone(), 0x3000_0000_0000_0002, "S2".into());
        other.rods = source.rods.clone();
        let port = |relative| TargetPort { relative, id: [0x80 + relative as u8; 16], group: relative };
        let [source, other] = [source, other].map(|setup| LuSetup { ports: vec![port(1), port(2)], ..setup });
        let units = [Lu::new(source).unwrap(), Lu::new(other).unwrap()];
        let mut rig = Rig::new(2, vec![mapped(0, 0, &units[0]), mapped(0, 1, &units[1])]);
        let (a, b) = (rig.login(1), rig.login(2));
        Scene { rig, destination, a, b }
    }

    /// POPULATE TOKEN of blocks 0–3 and 8–11.
    fn populate(&mut self, shard: u8) -> Tag {
        let list = [
            0, 46, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 32, //
            0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 4, 0, 0, 0, 0, //
            0, 0, 0, 0, 0, 0, 0, 8, 0, 0, 0, 4, 0, 0, 0, 0,
        ];
        let cdb = [0x83, 0x10, 0, 0, 0, 0, 0, 0, 0, 7, 0, 0, 0, 48, 0, 0];
        self.rig.send(shard, self.a, at(0, 0), cdb, out_buf(&list))
    }

    fn write(&mut self, shard: u8, itn_id: ItnId, lba: u8, byte: u8) -> Tag {
        let mut cdb = write10(1);
        cdb[5] = lba;
        self.rig.send(shard, itn_id, at(0, 0), cdb, out_buf(&[byte; 512]))
    }

    /// Fetches the token.
    fn token(&mut self) -> [u8; 512] {
        let cdb = [0x84, 0x07, 0, 0, 0, 7, 0, 0, 0, 0, 0, 0, 4, 0, 0, 0];
        let tag = self.rig.send(1, self.a, at(0, 0), cdb, IoBuf::owned(1024, Direction::In));
        let answer = self.rig.answer(tag);
        assert_eq!((answer.result, answer.len, answer.data[5]), (GOOD, 550, 0x01));
        answer.data[38..550].try_into().unwrap()
    }

    /// WRITE USING TOKEN of 8 blocks to the other unit, by the other nexus.
    fn use_token(&mut self, token: &[u8; 512]) -> Tag {
        let mut list = vec![0x02, 0x26, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0];
        list.extend(token);
        list.extend([0, 0, 0, 0, 0, 0, 0, 16, 0, 0, 0, 0, 0, 0, 0, 20, 0, 0, 0, 8, 0, 0, 0, 0]);
        let cdb = [0x83, 0x11, 0, 0, 0, 0, 0, 0, 0, 9, 0, 0, 0x02, 0x28, 0, 0];
        self.rig.send(0, self.b, at(0, 1), cdb, out_buf(&list))
    }

    fn settle(&mut self) {
        self.rig.settle();
        while self.rig.pool.len() > 0 {
            self.rig.pool.take(0)();
            self.rig.settle();
        }
    }
}

/// A write from before the token lands before it: the token stands for what it wrote.
#[test]
fn a_token_waits_for_writes_under_way() {
    let mut s = Scene::new();
    let (early, beside) = (s.write(1, s.b, 9, 0x11), s.write(1, s.b, 30, 0x22));
    let populate = s.populate(0);
    s.settle();
    assert!(!s.rig.is_answered(populate), "block 9 is being written");
    s.rig.complete(early, Ok(()));
    s.settle();
    assert_eq!(s.rig.answer(populate).result, GOOD, "block 30 is no matter");
    let token = s.token();
    s.rig.complete(beside, Ok(()));
    let copy = s.use_token(&token);
    s.settle();
    assert_eq!(s.rig.answer(copy).result, GOOD);
    assert_eq!(s.destination.bytes()[25 * 512..26 * 512], [0x11; 512], "the sixth block is block 9");
    assert_eq!((s.rig.answer(early).result, s.rig.answer(beside).result, s.rig.tasks()), (GOOD, GOOD, 0));
}

/// One that comes while the token is made waits until it is, and then cancels it before it begins.
#[test]
fn a_write_that_comes_meanwhile_waits_and_cancels() {
    let mut s = Scene::new();
    let early = s.write(1, s.b, 9, 0x11);
    let populate = s.populate(0);
    s.rig.settle();
    let late = s.write(1, s.b, 0, 0x22);
    assert_eq!(s.rig.reactor(1).io.held.len(), 1, "only the early one is at the backing");
    s.rig.complete(early, Ok(()));
    s.settle();
    assert_eq!(s.rig.answer(populate).result, GOOD);
    assert_eq!(s.rig.reactor(1).io.held.len(), 1, "now the late one is");
    let token = s.token();
    let copy = s.use_token(&token);
    s.settle();
    assert_eq!(s.rig.answer(copy).sense(), TOKEN_CANCELLED);
    s.rig.complete(late, Ok(()));
    assert_eq!(s.destination.bytes(), vec![0; 1 << 16]);
    s.rig.answer(late);
    s.rig.answer(early);
}

/// Between the blocks of a token there may be others.
#[test]
fn a_write_beside_it_cancels_nothing() {
    let mut s = Scene::new();
    let populate = s.populate(0);
    s.settle();
    assert_eq!(s.rig.answer(populate).result, GOOD);
    let token = s.token();
    let beside = s.write(0, s.a, 5, 0x33);
    let copy = s.use_token(&token);
    s.settle();
    assert_eq!(s.rig.answer(copy).result, GOOD);
    let over = s.write(1, s.b, 11, 0x33);
    let copy = s.use_token(&token);
    s.settle();
    assert_eq!(s.rig.answer(copy).sense(), TOKEN_CANCELLED);
    for tag in [beside, over] {
        s.rig.complete(tag, Ok(()));
        assert_eq!(s.rig.answer(tag).result, GOOD);
    }
}

/// Who takes the unit away from a nexus waits for what it copies there; and it copies no more.
#[test]
fn a_fence_waits_for_copies() {
    let mut s = Scene::new();
    let populate = s.populate(0);
    s.settle();
    assert_eq!(s.rig.answer(populate).result, GOOD);
    let token = s.token();
    let out = |s: &mut Scene, itn_id, command: ([u8; 16], Option<Vec<u8>>)| {
        let tag = s.rig.send(1, itn_id, at(0, 1), command.0, out_buf(&command.1.unwrap()));
        s.rig.settle();
        tag
    };
    for (itn_id, key) in [(s.a, 1), (s.b, 2)] {
        let tag = out(&mut s, itn_id, reserve_out(0x06, 0, 0, key));
        assert_eq!(s.rig.answer(tag).result, GOOD);
    }
    let (a, b) = (s.a, s.b);
    let reserve = out(&mut s, b, reserve_out(0x01, 0x05, 2, 0));
    assert_eq!(s.rig.answer(reserve).result, GOOD);
    let copy = s.use_token(&token);
    let preempt = out(&mut s, a, reserve_out(0x05, 0x05, 1, 2));
    assert!(!s.rig.is_answered(preempt), "the copy has not ended");
    s.settle();
    assert_eq!(s.rig.answer(preempt).result, GOOD);
    assert_ne!(s.rig.answer(copy).result, GOOD);
    assert_eq!(s.destination.bytes(), vec![0; 1 << 16], "nothing was written after it");
    assert_eq!(s.rig.tasks(), 0);
}

/// LOGICAL UNIT RESET ends it, and is answered when it has ended.
#[test]
fn a_reset_waits_for_copies() {
    let mut s = Scene::new();
    let populate = s.populate(0);
    s.settle();
    assert_eq!(s.rig.answer(populate).result, GOOD);
    let token = s.token();
    let copy = s.use_token(&token);
    let reset = s.rig.request_function(1, s.a, TaskManagementFunction::LogicalUnitReset, at(0, 1), Tag::NONE);
    s.rig.settle();
    assert_eq!(s.rig.response(reset), None);
    s.settle();
    assert_eq!(s.rig.response(reset), Some(FunctionResponse::Complete));
    assert_ne!(s.rig.answer(copy).result, GOOD);
    assert_eq!(s.destination.bytes(), vec![0; 1 << 16]);
    assert_eq!(s.rig.tasks(), 0);
}
