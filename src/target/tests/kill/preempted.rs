//! Commands that were in flight when their process was killed, of a nexus that is preempted with PREEMPT AND ABORT before they come again: they are
//! not carried out any more, whether or not there is a reservation that would forbid it.

use super::*;
use crate::scsi::HostByte;

/// WRITE(10) of a block at LBA 5.
fn write(byte: u8) -> Command {
    command(&[0x2a, 0, 0, 0, 0, 5, 0, 0, 1, 0], &[byte; 512])
}

fn written(world: &World) -> u8 {
    world.image.bytes()[5 * 512 + 100]
}

const OLD: u8 = 0xa5;

/// Both are registered and nobody holds a reservation; nexus 2 has nothing pending.
fn registered() -> (World, Process) {
    let world = World::new();
    world.image.set_bytes(&vec![OLD; BYTES]);
    let mut process = Process::start(&world);
    process.clear();
    process.good(1, &register(0, 7));
    process.good(2, &register(0, 8));
    process.clear();
    process.lu.persist().unwrap();
    world.notes.0.lock().unwrap().clear();
    (world, process)
}

/// What of nexus 2 comes again.
fn replay(process: &mut Process, taken: u64) -> Ended {
    process.run(2, &write(1), (0, taken)).1
}

fn assert_aborted(world: &World, ended: &Ended) {
    assert_eq!(ended.result, CommandResult::host(HostByte::Abort), "{ended:?}");
    assert_eq!(written(world), OLD, "it was carried out");
}

/// Nexus 2's connection breaks with the process; nexus 1 preempts before it is there again, and after that several more processes are killed.
#[test]
fn what_is_in_flight_when_its_nexus_is_preempted_stays_aborted() {
    let (world, first) = registered();
    let taken = now();
    drop(first);
    let mut second = Process::start(&world);
    second.good(1, &reserve_out(5, 0, 7, 8));
    assert_aborted(&world, &replay(&mut second, taken));
    let told = [Attention::RegistrationsPreempted, Attention::CommandsCleared];
    assert_eq!(second.pending(2), told, "as if it had been there");
    drop(second);
    // Its answer was lost, too; or it was on another ring.
    let mut third = Process::start(&world);
    assert_aborted(&world, &replay(&mut third, taken));
    // What it asks for now is another matter: without a reservation nothing forbids it.
    third.clear();
    let later = now();
    assert_eq!(third.run(2, &write(2), NEW).1.result, GOOD);
    assert_eq!(written(&world), 2);
    drop(third);
    let mut fourth = Process::start(&world);
    fourth.clear();
    assert_eq!(fourth.run(2, &write(3), (0, later)).1.result, GOOD, "it was taken after the abort");
    assert_eq!(written(&world), 3);
}

/// A nexus that is not even there, and one whose commands each say that they were aborted.
#[test]
fn task_aborted_status() {
    let (world, mut first) = registered();
    let tag = first.rig.tag(0);
    let buf = IoBuf::owned(16, crate::mem::Direction::In);
    let mut cdb = [0; 16];
    cdb[..6].copy_from_slice(&[0x1a, 0x08, 0x0a, 0, 16, 0]);
    first.rig.send_as(tag, first.itns[0], at(0, 0), cdb, buf);
    first.rig.finish_all();
    let mut list = first.rig.answer(tag).data;
    list[..4].fill(0);
    list[4] &= 0x3f;
    list[4 + 5] |= 0x40;
    first.good(1, &command(&[0x15, 0x10, 0, 0, 16, 0], &list));
    assert!(first.lu.mode().tas);
    first.clear();
    first.lu.persist().unwrap();
    let taken = now();
    drop(first);
    let mut second = Process::start(&world);
    second.good(1, &reserve_out(5, 0, 7, 8));
    let ended = replay(&mut second, taken);
    assert_eq!(ended.result, CommandResult::status(Status::TaskAborted));
    assert_eq!((written(&world), second.pending(2)), (OLD, vec![Attention::RegistrationsPreempted]));
}

/// PREEMPT does not abort, with or without a kill.
#[test]
fn preempt_without_abort_lets_it_be() {
    let (world, first) = registered();
    let taken = now();
    drop(first);
    let mut second = Process::start(&world);
    second.good(1, &reserve_out(4, 0, 7, 8));
    second.clear();
    assert_eq!(replay(&mut second, taken).result, GOOD);
    assert_eq!(written(&world), 1);
}

/// The process that carries PREEMPT AND ABORT out is killed at every point of it, with a write of nexus 2's in flight, and so is the next one. The write is
/// carried out only if it comes again before the preemption was made; never when the preemption is answered.
#[test]
fn killed_at_every_point_of_preempt_and_abort() {
    let preempt = reserve_out(5, 0, 7, 8);
    let mut made_unanswered = 0;
    for stores in 0.. {
        assert!(stores < 50, "it never ends");
        for victim_first in [true, false] {
            for again in 0..8 {
                let (world, mut first) = registered();
                let taken = now();
                let (fate, _) = until_killed(&mut first, &world, &preempt, NEW, stores);
                drop(first);
                let made = |world: &World| {
                    world.kept.0.lock().unwrap().as_ref().is_some_and(|kept| kept.reservations.registrations.len() == 1)
                };
                let answered = !matches!(fate, Fate::Unknown(_));
                made_unanswered += usize::from(made(&world) && !answered);
                let mut second = Process::start(&world);
                let before = made(&world);
                let (fate, ended) = if victim_first {
                    // What it has pending would answer in its place otherwise.
                    if !before {
                        second.clear();
                    }
                    let ended = replay(&mut second, taken);
                    let fate = match fate {
                        Fate::Unknown(before) => until_killed(&mut second, &world, &preempt, before, again).0,
                        fate => fate,
                    };
                    (fate, Some(ended))
                } else {
                    let fate = match fate {
                        Fate::Unknown(before) => until_killed(&mut second, &world, &preempt, before, again).0,
                        fate => fate,
                    };
                    (fate, None)
                };
                if let Some(ended) = ended {
                    match before {
                        true => assert_aborted(&world, &ended),
                        false => assert_eq!(ended.result, GOOD, "{ended:?}"),
                    }
                    if ended.result == GOOD {
                        continue;
                    }
                }
                drop(second);
                // Nexus 1 hears of it, and only then nexus 2's front-end is there.
                let (mut third, preempted) = go_on(&world, &preempt, fate, |_| ());
                assert_eq!(preempted.result, GOOD);
                assert_aborted(&world, &replay(&mut third, taken));
                assert_eq!(third.reservations().registrations.len(), 1);
            }
        }
        let (world, mut first) = registered();
        let (_, killed) = until_killed(&mut first, &world, &preempt, NEW, stores);
        if !killed {
            break;
        }
    }
    assert!(made_unanswered > 0, "no point between the change and its answer");
}

/// The nexus that preempts may name its own key: its other commands are aborted, and the one that does it is answered.
#[test]
fn its_own_commands_too_but_not_the_command_itself() {
    let (world, first) = registered();
    let taken = now();
    drop(first);
    let preempt = reserve_out(5, 0, 7, 7);
    for stores in 0..8 {
        let world = world.snapshot();
        let mut process = Process::start(&world);
        let (fate, _) = until_killed(&mut process, &world, &preempt, NEW, stores);
        drop(process);
        let (mut second, ended) = go_on(&world, &preempt, fate, |_| ());
        assert_eq!(ended.result, GOOD);
        let other = second.run(1, &write(1), (0, taken)).1;
        assert_aborted(&world, &other);
        assert_eq!(replay(&mut second, taken).result, GOOD, "nexus 2 was not preempted");
    }
}
