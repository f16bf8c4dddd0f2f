//! Copies between units: who waits for them, and for whom they wait.

use std::sync::mpsc;
use std::thread::JoinHandle;

use super::interleavings::reserve_out;
use crate::device_server::testkit::{MemImage, out_buf, pattern};
use crate::lu::{Lu, LuSetup, TargetPort};
use crate::mem::{Direction, IoBuf};
use crate::scsi::FunctionResponse::{self, Complete};
use crate::scsi::TaskManagementFunction::{self, *};
use crate::scsi::{CommandResult, HostByte, Lun, Status};
use crate::target::UnitMapping;
use crate::target::testkit::*;
use crate::tgt::{ItnId, Tag};
use std::sync::Arc;

const GOOD: CommandResult = CommandResult::status(Status::Good);
const MIB: usize = 1 << 20;
/// The units: the copy's source, to which its command is sent, and its destination, below other target numbers.
const SOURCE: (u8, u16) = (0, 0);
const DESTINATION: (u8, u16) = (1, 0);

fn lun(of: (u8, u16)) -> Lun {
    at(of.0, of.1)
}

fn unit_of(image: &Arc<MemImage>, n: u64) -> Arc<Lu> {
    let setup = LuSetup::new(image.clone(), 0x3000_0000_0000_0000 | n, format!("S{n}"));
    let port = |relative| TargetPort { relative, id: [0x80 + relative as u8; 16], group: relative };
    Lu::new(LuSetup { ports: vec![port(1), port(2)], ..setup }).unwrap()
}

/// EXTENDED COPY of `blocks` blocks from LBA 0 of the source to LBA 0 of the destination.
fn extended_copy(blocks: u16) -> ([u8; 16], Vec<u8>) {
    let cscd = |n| [&[0xe4, 0, 0, 0, 1, 3, 0, 8, 0x30, 0, 0, 0, 0, 0, 0, n][..], &[0; 14], &[2, 0]].concat();
    let header = [1, 0, 0, 64, 0, 0, 0, 0, 0, 0, 0, 28, 0, 0, 0, 0].to_vec();
    let [high, low] = blocks.to_be_bytes();
    let segment = [&[0x02, 0, 0, 0x18, 0, 0, 0, 1, 0, 0, high, low][..], &[0; 16]].concat();
    ([0x83, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 108, 0, 0], [header, cscd(1), cscd(2), segment].concat())
}

/// Two shards, both units, nexuses of initiators 1 (which copies) and 2.
struct Scene {
    rig: Rig,
    images: [Arc<MemImage>; 2],
    a: ItnId,
    b: ItnId,
}

/// A copy of 2 MiB whose first write is under way on a thread of its own.
struct Underway {
    tag: Tag,
    go_on: mpsc::Sender<()>,
    thread: JoinHandle<()>,
}

impl Scene {
    fn new() -> Scene {
        let images = [Arc::new(MemImage::patterned(2 * MIB)), Arc::new(MemImage::new(2 * MIB))];
        let units = [unit_of(&images[0], 1), unit_of(&images[1], 2)];
        let map = |of: (u8, u16), lu: &Arc<Lu>| -> UnitMapping { mapped(of.0, of.1, lu) };
        let mut rig = Rig::new(2, vec![map(SOURCE, &units[0]), map(DESTINATION, &units[1])]);
        let (a, b) = (rig.login(1), rig.login(2));
        Scene { rig, images, a, b }
    }

    fn send(&mut self, shard: u8, itn_id: ItnId, of: (u8, u16), (cdb, data): ([u8; 16], Option<Vec<u8>>)) -> Tag {
        let buf = data.map_or_else(|| IoBuf::owned(512, Direction::In), |data| out_buf(&data));
        self.rig.send(shard, itn_id, lun(of), cdb, buf)
    }

    /// Sends a command and lets everything run until there is nothing left to do.
    fn run(&mut self, itn_id: ItnId, of: (u8, u16), command: ([u8; 16], Option<Vec<u8>>)) -> Status {
        let tag = self.send(0, itn_id, of, command);
        self.settle();
        self.rig.answer(tag).result.status
    }

    fn settle(&mut self) {
        self.rig.settle();
        while self.rig.pool.len() > 0 {
            self.rig.pool.take(0)();
            self.rig.settle();
        }
    }

    fn copy(&mut self, blocks: u16) -> Tag {
        let (cdb, list) = extended_copy(blocks);
        self.send(0, self.a, SOURCE, (cdb, Some(list)))
    }

    fn begin_copy(&mut self) -> Underway {
        let (entered, began) = mpsc::channel();
        let (go_on, wait) = mpsc::channel();
        self.images[1].at_call(1, move || {
            entered.send(()).unwrap();
            wait.recv().unwrap();
        });
        let tag = self.copy(4096);
        let work = self.rig.pool.take(0);
        let thread = std::thread::spawn(work);
        began.recv().unwrap();
        Underway { tag, go_on, thread }
    }

    /// Lets the write end, and the copy with it.
    fn end(&mut self, copy: Underway) -> Tag {
        copy.go_on.send(()).unwrap();
        copy.thread.join().unwrap();
        self.settle();
        copy.tag
    }

    fn function(&mut self, itn_id: ItnId, function: TaskManagementFunction, of: (u8, u16)) -> u64 {
        let mid = self.rig.request_function(1, itn_id, function, lun(of), Tag::NONE);
        self.rig.settle();
        mid
    }

    fn response(&mut self, mid: u64) -> Option<FunctionResponse> {
        self.rig.response(mid)
    }

    /// What is in the destination: so many MiB of the source, and zeros.
    fn copied(&self) -> usize {
        let bytes = self.images[1].bytes();
        let mib = (0..3).rev().find(|mib| bytes[..mib * MIB] == pattern(0, mib * MIB)).unwrap();
        assert!(bytes[mib * MIB..].iter().all(|byte| *byte == 0));
        mib
    }

    /// The copy was stopped by a unit, not ended as a task.
    fn was_stopped(&mut self, tag: Tag) {
        let answer = self.rig.answer(tag);
        assert_eq!(answer.result.host, HostByte::Ok);
        assert_eq!(answer.sense(), (0x0a, 0x0d01));
        assert_eq!(self.copied(), 1, "the step that was under way, and no other");
    }

    fn finish(mut self) {
        self.settle();
        assert_eq!(self.rig.tasks(), 0);
    }
}

fn register(key: u8) -> ([u8; 16], Option<Vec<u8>>) {
    reserve_out(0x06, 0, 0, key)
}

fn write(lba: u8) -> ([u8; 16], Option<Vec<u8>>) {
    ([0x2a, 0, 0, 0, 0, lba, 0, 0, 1, 0, 0, 0, 0, 0, 0, 0], Some(vec![0xee; 512]))
}

fn compare_and_write(lba: u8) -> ([u8; 16], Option<Vec<u8>>) {
    ([0x89, 0, 0, 0, 0, 0, 0, 0, 0, lba, 0, 0, 0, 1, 0, 0], Some([vec![0; 512], vec![0xee; 512]].concat()))
}

#[test]
fn a_copy_is_a_command_like_others() {
    let mut scene = Scene::new();
    let copy = scene.copy(4096);
    assert!(!scene.rig.is_answered(copy));
    scene.settle();
    assert_eq!(scene.rig.answer(copy).result, GOOD);
    assert_eq!(scene.copied(), 2);
    scene.finish();
}

/// What takes access to the destination, or to the source, away from the copying nexus is answered when the copy has ended: nothing
/// is written, or read, after the answer.
#[test]
fn who_takes_access_away_waits_for_the_copy() {
    const WRITE_EXCLUSIVE: u8 = 1;
    const EXCLUSIVE: u8 = 3;
    for (of, kind) in [(DESTINATION, WRITE_EXCLUSIVE), (DESTINATION, EXCLUSIVE), (SOURCE, EXCLUSIVE)] {
        // PREEMPT, PREEMPT AND ABORT, RESERVE, and RESERVE(6).
        for action in [0x04, 0x05, 0x01, 0x06] {
            let mut scene = Scene::new();
            let (a, b) = (scene.a, scene.b);
            for (itn_id, key) in [(a, 1), (b, 2)] {
                assert_eq!(scene.run(itn_id, of, register(key)), Status::Good);
            }
            let take = match action {
                0x04 | 0x05 => {
                    assert_eq!(scene.run(a, of, reserve_out(0x01, kind, 1, 0)), Status::Good);
                    reserve_out(action, kind, 2, 1)
                }
                0x01 => reserve_out(0x01, kind, 2, 0),
                _ => {
                    for itn_id in [a, b] {
                        let clear = reserve_out(0x06, 0, 0, 0);
                        assert_eq!(scene.run(itn_id, of, clear), Status::Good);
                    }
                    ([0x16, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0], Some(Vec::new()))
                }
            };
            let copy = scene.begin_copy();
            let taking = scene.send(1, b, of, take);
            scene.rig.settle();
            while scene.rig.pool.len() > 0 {
                scene.rig.pool.take(0)();
                scene.rig.settle();
            }
            assert!(!scene.rig.is_answered(taking), "{of:?} {kind} {action:x}: a write is under way");
            let aborted = of == SOURCE && action == 0x05;
            let copy = scene.end(copy);
            assert_eq!(scene.rig.answer(taking).result, GOOD, "{of:?} {kind} {action:x}");
            if aborted {
                // Its command is in the task set of the unit from which its nexus was preempted.
                assert_eq!(scene.rig.answer(copy).result.host, HostByte::Abort);
                assert_eq!(scene.copied(), 1);
            } else {
                scene.was_stopped(copy);
            }
            scene.finish();
        }
    }
}

/// Software write protection is everybody's.
#[test]
fn write_protection_waits_for_copies_that_write() {
    for of in [DESTINATION, SOURCE] {
        let mut scene = Scene::new();
        let b = scene.b;
        let copy = scene.begin_copy();
        let page = [&[0, 0, 0, 0, 0x0a, 0x0a, 0x22, 0x10, 0x08][..], &[0; 7]].concat();
        let protect = scene.send(1, b, of, ([0x15, 0x10, 0, 0, 16, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0], Some(page)));
        scene.settle();
        // Of the source as well: EXTENDED COPY is a command that writes to the unit that it is sent to, as reservations see it.
        assert!(!scene.rig.is_answered(protect), "{of:?}");
        let copy = scene.end(copy);
        assert_eq!(scene.rig.answer(protect).result, GOOD);
        if of == DESTINATION {
            scene.was_stopped(copy);
        } else {
            assert_eq!(scene.rig.answer(copy).result, GOOD);
        }
        scene.finish();
    }
}

/// Functions that end all there is at the destination stop the copy and are answered after it; its own task is not in that task set.
#[test]
fn functions_of_the_destination() {
    for (function, by_other) in [
        (LogicalUnitReset, true),
        (LogicalUnitReset, false),
        (AbortTaskSet, false),
        (ClearTaskSet, false),
        (ItNexusReset, false),
    ] {
        let mut scene = Scene::new();
        let who = if by_other { scene.b } else { scene.a };
        let copy = scene.begin_copy();
        let asked = scene.function(scene.a, QueryTaskSet, DESTINATION);
        assert_eq!(scene.response(asked), Some(Complete), "it is in another task set");
        let mid = scene.function(who, function, DESTINATION);
        assert_eq!(scene.response(mid), None, "{function:?}");
        let copy = scene.end(copy);
        assert_eq!(scene.response(mid), Some(Complete), "{function:?}");
        scene.was_stopped(copy);
        scene.finish();
    }
    // What is the other nexus's own does not concern the copy.
    for function in [AbortTaskSet, ItNexusReset] {
        let mut scene = Scene::new();
        let copy = scene.begin_copy();
        let mid = scene.function(scene.b, function, DESTINATION);
        assert_eq!(scene.response(mid), Some(Complete), "{function:?}");
        let copy = scene.end(copy);
        assert_eq!(scene.rig.answer(copy).result, GOOD);
        scene.finish();
    }
}

/// At the unit that it was sent to it is a task.
#[test]
fn functions_of_the_source() {
    for (function, how) in [(LogicalUnitReset, HostByte::Reset), (AbortTaskSet, HostByte::Abort)] {
        let mut scene = Scene::new();
        let copy = scene.begin_copy();
        let mid = scene.function(scene.a, function, SOURCE);
        assert_eq!(scene.response(mid), None);
        let copy = scene.end(copy);
        assert_eq!(scene.response(mid), Some(Complete));
        assert_eq!(scene.rig.answer(copy).result.host, how);
        assert_eq!(scene.copied(), 1);
        scene.finish();
    }
}

/// A function is answered when the initiator can see the copy's answer.
#[test]
fn a_copy_has_ended_when_it_is_done() {
    let mut scene = Scene::new();
    scene.rig.prompt = false;
    let copy = scene.begin_copy();
    let mid = scene.function(scene.b, LogicalUnitReset, DESTINATION);
    let copy = scene.end(copy);
    assert!(scene.rig.is_answered(copy));
    assert_eq!(scene.response(mid), None);
    scene.rig.done(copy);
    scene.settle();
    assert_eq!(scene.response(mid), Some(Complete));
    scene.finish();
}

/// COMPARE AND WRITE of blocks that a copy writes, or reads, waits for it; elsewhere it does not.
#[test]
fn what_must_be_atomic_waits_for_a_copy() {
    for of in [DESTINATION, SOURCE] {
        let mut scene = Scene::new();
        let (cdb, list) = extended_copy(8);
        let copy = scene.send(0, scene.a, SOURCE, (cdb, Some(list)));
        let b = scene.b;
        let beside = scene.send(1, b, of, compare_and_write(8));
        let inside = scene.send(1, b, of, compare_and_write(7));
        scene.rig.settle();
        // The copy, and the one beside it.
        assert_eq!(scene.rig.pool.len(), 2, "{of:?}");
        scene.rig.pool.take(1)();
        scene.rig.settle();
        assert!(scene.rig.is_answered(beside) && scene.rig.pool.len() == 1);
        scene.settle();
        assert_eq!(scene.rig.answer(copy).result, GOOD);
        assert_ne!(scene.rig.answer(inside).result, GOOD, "it finds what was copied, not zeros");
        scene.rig.answer(beside);
        scene.finish();
    }
}

/// And a copy of blocks that such a command has waits for that.
#[test]
fn a_copy_waits_for_what_must_be_atomic() {
    let mut scene = Scene::new();
    let (a, b) = (scene.a, scene.b);
    // It has its blocks, and waits for a WRITE of another nexus to end.
    let older = scene.send(1, a, DESTINATION, write(3));
    let atomic = scene.send(0, b, DESTINATION, compare_and_write(3));
    scene.rig.settle();
    let (cdb, list) = extended_copy(8);
    let copy = scene.send(1, a, SOURCE, (cdb, Some(list)));
    scene.rig.settle();
    assert_eq!(scene.rig.pool.len(), 0, "neither has started");
    scene.rig.complete(older, Ok(()));
    scene.rig.settle();
    assert_eq!(scene.rig.pool.len(), 1, "only one has");
    scene.rig.pool.take(0)();
    scene.rig.settle();
    assert!(scene.rig.is_answered(atomic));
    assert_eq!(scene.rig.pool.len(), 1);
    scene.settle();
    assert_eq!(scene.rig.answer(copy).result, GOOD);
    assert_eq!(scene.images[1].bytes()[..8 * 512], pattern(0, 8 * 512));
    scene.finish();
}

/// A copy that waits can be aborted.
#[test]
fn a_copy_that_waits_is_aborted_at_once() {
    let mut scene = Scene::new();
    let (a, b) = (scene.a, scene.b);
    let older = scene.send(1, a, DESTINATION, write(3));
    let atomic = scene.send(0, b, DESTINATION, compare_and_write(3));
    scene.rig.settle();
    let copy = scene.copy(8);
    let mid = scene.function(b, LogicalUnitReset, SOURCE);
    assert_eq!(scene.response(mid), Some(Complete));
    assert_eq!(scene.rig.answer(copy).result.host, HostByte::Reset);
    scene.rig.complete(older, Ok(()));
    scene.settle();
    scene.rig.answer(atomic);
    scene.finish();
}

/// The end of a nexus is the end of its copies.
#[test]
fn a_nexus_that_is_destroyed() {
    let mut scene = Scene::new();
    let copy = scene.begin_copy();
    scene.rig.request_destroy(1, scene.a);
    scene.rig.settle();
    assert_eq!(scene.rig.nexus_response(1), None);
    let copy = scene.end(copy);
    assert_eq!(scene.rig.nexus_response(1), Some((scene.a, 0)));
    assert_eq!(scene.rig.answer(copy).result.host, HostByte::TransportDisrupted);
    assert_eq!(scene.copied(), 1);
    scene.finish();
}
