//! Task management functions whose process is killed before, between and after what they do: they are carried out again, by the process that comes
//! next, behind the commands that were in flight before them.

use super::*;
use crate::scsi::FunctionResponse::Complete;
use crate::scsi::HostByte;
use crate::scsi::TaskManagementFunction::{self as Function, *};
use crate::scsi::spc::ModeState;

/// A WRITE(10) of a block at LBA 5, and what is there otherwise.
fn write() -> Command {
    command(&[0x2a, 0, 0, 0, 0, 5, 0, 0, 1, 0], &[1; 512])
}

const OLD: u8 = 0xa5;

fn written(world: &World) -> bool {
    world.image.bytes()[5 * 512 + 100] == 1
}

/// TST 000b: one task set for everybody.
fn share_task_set(lu: &Arc<Lu>) {
    let by = crate::device_server::testkit::nexus_of(Arc::clone(lu), None);
    lu.set_mode(&by, ModeState { tst: 0, ..lu.mode() });
}

/// Where the process is killed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Killed {
    /// The function was taken, and nothing was done for it.
    Before,
    /// It was done, and nothing of that is kept.
    Done,
    /// It was done, what it did is kept, and it was not noted that it was answered.
    Kept,
}

const POINTS: [Killed; 3] = [Killed::Before, Killed::Done, Killed::Kept];

impl Process {
    fn function(&mut self, n: usize, function: Function, tag: Tag) {
        let mid = self.rig.request_function(0, self.itns[n - 1], function, at(0, 0), tag);
        self.rig.settle();
        self.rig.finish_all();
        self.rig.settle();
        assert_eq!(self.rig.response(mid), Some(Complete), "{function:?}");
    }

    /// A write of nexus `n` that is at the medium and stays there.
    fn begin_write(&mut self, n: usize) -> Tag {
        let tag = self.rig.tag(0);
        self.rig.send_as(tag, self.itns[n - 1], at(0, 0), write().cdb, out_buf(&write().data));
        tag
    }
}

/// A world where nexus 1 asked for a function, and a process that was killed there with it. Gives what had been taken before the function.
fn killed(function: Function, at: Killed, aborted: bool) -> (World, u64) {
    let world = World::new();
    world.image.set_bytes(&vec![OLD; BYTES]);
    let mut process = Process::start(&world);
    process.clear();
    process.lu.persist().unwrap();
    let taken = now();
    if at != Killed::Before {
        // Whatever was in flight has ended without an effect, or is not answered yet.
        let tag = if aborted { process.begin_write(1) } else { Tag::NONE };
        process.rig.settle();
        let mid = process.rig.request_function(0, process.itns[0], function, super::at(0, 0), tag);
        process.rig.settle();
        if aborted {
            process.rig.complete(tag, Err(crate::backing::BackingError::Cancelled));
            process.rig.settle();
        }
        assert_eq!(process.rig.response(mid), Some(Complete));
    }
    if at == Killed::Kept {
        process.lu.persist().unwrap();
    }
    (world, taken)
}

/// A reset that is done twice tells each nexus once, as long as that nexus has not heard of the first one.
#[test]
fn logical_unit_reset() {
    for at in POINTS {
        let (world, _) = killed(LogicalUnitReset, at, false);
        let mut second = Process::start(&world);
        let before = second.pending(2);
        assert_eq!(before.contains(&Attention::LogicalUnitReset), at == Killed::Kept, "{at:?}");
        second.function(1, LogicalUnitReset, Tag::NONE);
        assert_eq!(second.pending(1), [Attention::LogicalUnitReset], "{at:?}");
        assert_eq!(second.pending(2), [Attention::LogicalUnitReset], "{at:?}");
        // And a third time, by a process whose predecessor was killed with the answer.
        second.lu.persist().unwrap();
        drop(second);
        let mut third = Process::start(&world);
        third.function(1, LogicalUnitReset, Tag::NONE);
        assert_eq!(third.pending(2), [Attention::LogicalUnitReset], "{at:?}");
        third.clear();
        third.good(2, &write());
        assert!(written(&world), "{at:?}: it is served as before");
    }
}

/// RESERVE(6) ends with the reset, also if the reset that is kept is followed by the one that comes again; and what another nexus reserved between
/// the two ends as well.
#[test]
fn a_reset_ends_reserve_however_often_it_is_done() {
    for at in POINTS {
        let (world, _) = killed(LogicalUnitReset, at, false);
        let mut second = Process::start(&world);
        second.clear();
        second.good(2, &command(&[0x16, 0, 0, 0, 0, 0], &[]));
        second.function(1, LogicalUnitReset, Tag::NONE);
        assert_eq!(second.reservations().legacy, None, "{at:?}");
    }
}

/// The front-end of nexus 2 is there only after nexus 1's reset was carried out again: what it had in flight is over, and nobody carries it out.
#[test]
fn what_comes_again_after_a_reset_is_not_carried_out() {
    for (function, all) in
        [(LogicalUnitReset, true), (ClearTaskSet, true), (ClearTaskSet, false), (AbortTaskSet, false)]
    {
        for at in POINTS {
            let (world, taken) = killed(function, at, false);
            let mut second = Process::start(&world);
            if function == ClearTaskSet && all {
                share_task_set(&second.lu);
            }
            second.function(1, function, Tag::NONE);
            second.clear();
            let (_, ended, _) = second.run(2, &write(), (0, taken));
            if all {
                assert_eq!(ended.result, CommandResult::host(HostByte::Reset), "{function:?} {at:?}");
                assert!(!written(&world), "{function:?} {at:?}");
                second.lu.persist().unwrap();
                drop(second);
                let mut third = Process::start(&world);
                third.clear();
                let (_, ended, _) = third.run(2, &write(), (0, taken));
                assert_eq!(ended.result, CommandResult::host(HostByte::Reset), "{function:?} {at:?}");
                let (_, ended, _) = third.run(2, &write(), NEW);
                assert_eq!((ended.result, written(&world)), (GOOD, true), "{function:?} {at:?}: a new one");
            } else {
                assert_eq!((ended.result, written(&world)), (GOOD, true), "{function:?} {at:?}: it is not nexus 1's");
            }
        }
    }
}

/// ABORT TASK that comes again finds the task that came again before it, or finds it answered already. It is complete either way, and the task has
/// one answer.
#[test]
fn abort_task() {
    for at in POINTS {
        // The task was not answered: it comes again, and is aborted before it is done.
        let (world, taken) = killed(AbortTask, at, true);
        let mut second = Process::start(&world);
        let tag = second.rig.tag(0);
        second.rig.send_again(tag, second.itns[0], super::at(0, 0), write().cdb, out_buf(&write().data), (0, taken));
        let mid = second.rig.request_function(0, second.itns[0], AbortTask, super::at(0, 0), tag);
        second.rig.settle();
        if !second.rig.is_answered(tag) {
            second.rig.complete(tag, Err(crate::backing::BackingError::Cancelled));
            second.rig.settle();
        }
        assert_eq!(second.rig.response(mid), Some(Complete), "{at:?}");
        assert_eq!(second.rig.answer(tag).result, CommandResult::host(HostByte::Abort), "{at:?}");
        assert!(!written(&world), "{at:?}");
        assert!(!second.pending(2).contains(&Attention::CommandsCleared), "{at:?}: it is nobody else's affair");

        // It was answered, and only the function comes again: the task is not in the task set, which is complete (SAM-5 7.2).
        let (world, _) = killed(AbortTask, at, true);
        let mut second = Process::start(&world);
        second.function(1, AbortTask, Tag::NONE);
        assert!(!written(&world), "{at:?}");
    }
}

/// CLEAR TASK SET and ABORT TASK SET end what came again before them.
#[test]
fn task_sets() {
    for function in [ClearTaskSet, AbortTaskSet] {
        for at in POINTS {
            let (world, taken) = killed(function, at, false);
            let mut second = Process::start(&world);
            second.clear();
            let tag = second.rig.tag(0);
            let again = (write().cdb, out_buf(&write().data), (0, taken));
            second.rig.send_again(tag, second.itns[0], super::at(0, 0), again.0, again.1, again.2);
            let mid = second.rig.request_function(0, second.itns[0], function, super::at(0, 0), Tag::NONE);
            second.rig.settle();
            assert_eq!(second.rig.response(mid), None, "{function:?} {at:?}: it waits for what it ends");
            second.rig.complete(tag, Err(crate::backing::BackingError::Cancelled));
            second.rig.settle();
            assert_eq!(second.rig.answer(tag).result, CommandResult::host(HostByte::Abort), "{function:?} {at:?}");
            assert_eq!(second.rig.response(mid), Some(Complete), "{function:?} {at:?}");
            assert!(!written(&world), "{function:?} {at:?}");
        }
    }
}
