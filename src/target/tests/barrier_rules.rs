//! The rules by which what all reactors must see is made, each with its test.
//!
//! | rule | tests |
//! |---|---|
//! | 1: changes of a unit are serial; one that waits has had no effect, one that has begun runs to its end | `rule_1_…` here |
//! | 2: ORDERED is a cancellable wait, HEAD OF QUEUE passes it, task management never queues behind it, TST is 001b | `rule_2_…` here; `ordered_is_between_older_and_younger_on_all_shards`, `head_of_queue_passes_an_ordered_one`, `an_ordered_one_that_waits_can_be_aborted_and_lets_the_others_go` in `task_set` |
//! | 3: evaluate → write down → deny → mail → acknowledgements → grant → answer | `rule_3_…` here |
//! | 4: a command has ended when its `CMD_DONE` has come | `rule_4_…` here; for functions `functions_overlap` in `task_management` and the model in `interleavings` |
//! | 5: what was posted before a function is popped before it | `abort_before_the_completion` and `sets_of_tasks` in `task_management` (`needs_pop`) |
//! | 6: each cause of a wait ends by itself | `rule_6_…` here; `what_waits_as_aca_begins_waits_on` in `task_set` |
//! | 7: letters arrive, in their order, and wake who sleeps | the models in `tests/loom.rs` |
//! | 8: a drain is bounded, and what it abandons is made all the same | `rule_8_…` here; a job's abort flag: `a_job_is_told_and_waited_for` in `task_management` |
//! | 9: what must be atomic holds its blocks | `rule_9_…` here |

use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex};

use super::interleavings::{reserve_out, six};
use crate::backing::BackingError;
use crate::device_server::testkit::{MemImage, out_buf};
use crate::lu::{KeepError, Keeper, KeptState, Lu, LuSetup, NexusId};
use crate::mem::{Direction, IoBuf};
use crate::scsi::FunctionResponse::Complete;
use crate::scsi::TaskManagementFunction::*;
use crate::scsi::{CommandResult, HostByte, Status};
use crate::target::testkit::*;
use crate::tgt::{CmdData, CmdReq, ItnId, KEvent, Tag};

const SIMPLE: i32 = 0x20;
const HEAD: i32 = 0x21;
const ORDERED: i32 = 0x22;

/// Exclusive Access: only the holder reads.
const EXCLUSIVE: u8 = 3;

type Cdb = ([u8; 16], Option<Vec<u8>>);

fn register(key: u8) -> Cdb {
    reserve_out(0x06, 0, 0, key)
}

fn reserve(key: u8) -> Cdb {
    reserve_out(0x01, EXCLUSIVE, key, 0)
}

fn clear(key: u8) -> Cdb {
    reserve_out(0x03, 0, key, 0)
}

fn preempt_and_abort(key: u8, victim: u8) -> Cdb {
    reserve_out(0x05, EXCLUSIVE, key, victim)
}

fn read_at(lba: u8) -> Cdb {
    let mut scb = read10(1);
    scb[5] = lba;
    (scb, None)
}

fn compare_and_write(lba: u8) -> Cdb {
    let mut scb = six(0x89);
    (scb[9], scb[13]) = (lba, 1);
    (scb, Some(vec![0; 1024]))
}

fn orwrite(lba: u8) -> Cdb {
    let mut scb = six(0x8b);
    (scb[9], scb[13]) = (lba, 1);
    (scb, Some(vec![0; 512]))
}

/// Two shards, one unit, nexuses of initiators 1 and 2.
fn rig_of(lu: &Arc<Lu>) -> (Rig, ItnId, ItnId) {
    let mut rig = Rig::new(2, vec![mapped(0, 0, lu)]);
    let (a, b) = (rig.login(1), rig.login(2));
    (rig, a, b)
}

/// The same, both registered, with keys 1 and 2.
fn registered(lu: &Arc<Lu>) -> (Rig, ItnId, ItnId) {
    let (mut rig, a, b) = rig_of(lu);
    for (itn_id, key) in [(a, 1), (b, 2)] {
        let tag = send(&mut rig, 0, itn_id, SIMPLE, register(key));
        run(&mut rig);
        assert_eq!(rig.answer(tag).result, GOOD);
    }
    (rig, a, b)
}

const GOOD: CommandResult = CommandResult::status(Status::Good);

fn send(rig: &mut Rig, shard: u8, itn_id: ItnId, attribute: i32, (scb, data): Cdb) -> Tag {
    let tag = rig.tag(shard);
    let buf = match data {
        Some(data) => out_buf(&data),
        None => IoBuf::owned(512, Direction::In),
    };
    let req = CmdReq { host_no: HOST, data_len: buf.len() as u32, itn_id, scb, lun: at(0, 0), attribute, tag };
    rig.post(shard, KEvent::CmdReq(req), Some(CmdData { buf, cdb_tail: None, earlier: 0, taken: 0 }));
    tag
}

/// Delivers all mail and lets all work be done.
fn run(rig: &mut Rig) {
    rig.settle();
    while rig.pool.len() > 0 {
        rig.pool.take(0)();
        rig.settle();
    }
}

fn at_backing(rig: &mut Rig, tag: Tag) -> bool {
    rig.reactor(tag.shard()).io.held.iter().any(|held| held.cookie == tag.0)
}

fn status(rig: &mut Rig, tag: Tag) -> Status {
    rig.answer(tag).result.status
}

fn host(rig: &mut Rig, tag: Tag) -> HostByte {
    rig.answer(tag).result.host
}

/// Ends what drains and takes too long.
fn hurry(rig: &mut Rig, tag: Tag) {
    let r = rig.reactor(tag.shard());
    r.shard.abort_queue(tag.queue(), HostByte::Reset, &mut r.io, &mut r.rings);
    rig.turn(tag.shard());
}

fn holder(lu: &Lu) -> Option<NexusId> {
    lu.reservations(|state| state.reservation.as_ref().and_then(|r| r.holder))
}

fn keys(lu: &Lu) -> Vec<u64> {
    lu.reservations(|state| state.registrations.iter().map(|r| r.key).collect())
}

fn id(n: u8) -> NexusId {
    NexusId { initiator: port(n), port: 1 }
}

/// Nothing is left, and the unit can still be changed.
fn finish(mut rig: Rig, itn_id: ItnId, key: u8) {
    run(&mut rig);
    assert_eq!(rig.tasks(), 0);
    let mut quiet = false;
    while !quiet {
        let tag = rig.send(0, itn_id, at(0, 0), TEST_UNIT_READY, IoBuf::empty());
        quiet = status(&mut rig, tag) == Status::Good;
    }
    let next = send(&mut rig, 1, itn_id, SIMPLE, register(key));
    run(&mut rig);
    assert_eq!(rig.answer(next).result, GOOD);
    assert_eq!(rig.tasks(), 0);
}

#[test]
fn rule_1_crossing_preempts_both_end() {
    let (lu, _notebook) = kept_unit();
    let (mut rig, a, b) = registered(&lu);
    let (of_a, of_b) = (rig.read(1, a, at(0, 0)), rig.read(0, b, at(0, 0)));
    let mine = send(&mut rig, 0, a, SIMPLE, preempt_and_abort(1, 2));
    // It comes while the first one is written down, so nothing has told its nexus yet that it lost.
    let crossing = send(&mut rig, 1, b, SIMPLE, preempt_and_abort(2, 1));
    rig.settle();
    assert!(!rig.is_answered(crossing));
    run(&mut rig);
    assert_eq!(host(&mut rig, crossing), HostByte::Abort, "it had not begun");
    assert!(!rig.is_answered(mine), "not while a task of the other one is at the image");
    rig.complete(of_b, Err(BackingError::Cancelled));
    rig.settle();
    assert_eq!(rig.answer(mine).result, GOOD);
    assert_eq!(keys(&lu), [1], "the other one had no effect");
    assert!(at_backing(&mut rig, of_a) && !rig.reactor(1).io.cancelled.contains(&of_a.0));
    rig.complete(of_a, Ok(()));
    finish(rig, a, 1);
}

/// Whenever it is ended before it begins: while it waits in line, or as the letter that it is its turn is on its way.
#[test]
fn rule_1_a_change_that_waits_has_no_effect_when_it_is_ended() {
    for on_its_way in [false, true] {
        let lu = unit();
        let (mut rig, a, b) = registered(&lu);
        let of_b = rig.read(1, b, at(0, 0));
        let first = send(&mut rig, 0, a, SIMPLE, reserve(1));
        let second = send(&mut rig, 1, a, SIMPLE, clear(1));
        let third = send(&mut rig, 1, a, SIMPLE, register(9));
        rig.settle();
        assert!([first, second, third].iter().all(|&tag| !rig.is_answered(tag)));
        if on_its_way {
            rig.complete(of_b, Ok(()));
            // Shard 1 is through; shard 0 hears of it, grants, and passes the turn on.
            while rig.deliver(0) {}
            assert_eq!(rig.mail.len(1), 1);
            hurry(&mut rig, second);
            assert_eq!(host(&mut rig, second), HostByte::Reset);
        } else {
            let mid = rig.request_function(1, a, AbortTask, at(0, 0), second);
            rig.settle();
            assert_eq!(rig.response(mid), Some(Complete), "at once");
            assert_eq!(host(&mut rig, second), HostByte::Abort);
            assert!(!rig.is_answered(first));
            rig.complete(of_b, Ok(()));
        }
        rig.settle();
        assert_eq!(rig.answer(first).result, GOOD);
        assert_eq!(rig.answer(third).result, GOOD, "its turn came");
        assert_eq!((holder(&lu), keys(&lu)), (Some(id(1)), vec![9, 2]), "nothing was cleared");
        finish(rig, a, 1);
    }
}

#[test]
fn rule_1_a_reset_waits_for_a_change_that_has_begun() {
    let lu = unit();
    let (mut rig, a, b) = registered(&lu);
    let of_b = rig.read(1, b, at(0, 0));
    let change = send(&mut rig, 0, a, SIMPLE, reserve(1));
    let mid = rig.request_function(1, b, LogicalUnitReset, at(0, 0), Tag::NONE);
    rig.settle();
    assert!(rig.response(mid).is_none() && !rig.is_answered(change));
    rig.complete(of_b, Err(BackingError::Cancelled));
    rig.settle();
    assert_eq!(host(&mut rig, of_b), HostByte::Reset);
    assert_eq!(host(&mut rig, change), HostByte::Reset);
    assert_eq!(holder(&lu), Some(id(1)), "it was made");
    assert_eq!(rig.response(mid), Some(Complete));
    finish(rig, a, 1);
}

/// A change is judged as its turn comes.
#[test]
fn rule_1_a_change_is_judged_in_its_turn() {
    let lu = unit();
    let (mut rig, a, b) = registered(&lu);
    let of_b = rig.read(1, b, at(0, 0));
    let first = send(&mut rig, 0, a, SIMPLE, reserve(1));
    let second = send(&mut rig, 1, b, SIMPLE, reserve(2));
    rig.settle();
    rig.complete(of_b, Ok(()));
    rig.settle();
    assert_eq!(rig.answer(first).result, GOOD);
    assert_eq!(status(&mut rig, second), Status::ReservationConflict);
    finish(rig, a, 1);
}

/// HEAD OF QUEUE passes, also what has to hold blocks.
#[test]
fn rule_2_head_of_queue_passes_with_blocks_of_its_own() {
    let (mut rig, a, _) = rig_of(&unit());
    let older = rig.read(1, a, at(0, 0));
    let ordered = send(&mut rig, 0, a, ORDERED, read_at(0));
    rig.settle();
    let head = send(&mut rig, 1, a, HEAD, compare_and_write(8));
    run(&mut rig);
    assert_eq!(rig.answer(head).result, GOOD);
    assert!(!at_backing(&mut rig, ordered));
    rig.complete(older, Ok(()));
    rig.settle();
    rig.complete(ordered, Ok(()));
    finish(rig, a, 1);
}

/// An ORDERED command waits for a change of its nexus that waits for its turn, and the change not for it.
#[test]
fn rule_2_ordered_waits_for_what_is_in_line() {
    let lu = unit();
    let (mut rig, a, b) = registered(&lu);
    let of_b = rig.read(1, b, at(0, 0));
    let first = send(&mut rig, 0, a, SIMPLE, reserve(1));
    let second = send(&mut rig, 1, a, SIMPLE, register(7));
    let ordered = send(&mut rig, 0, a, ORDERED, read_at(0));
    rig.settle();
    assert!(!at_backing(&mut rig, ordered));
    rig.complete(of_b, Ok(()));
    rig.settle();
    assert_eq!([rig.answer(first).result, rig.answer(second).result], [GOOD, GOOD]);
    rig.complete(ordered, Ok(()));
    assert_eq!(rig.answer(ordered).result, GOOD);
    finish(rig, a, 1);
}

/// A younger ORDERED command does not hold the task set before an older one of its shard does, though no hold stops it: each would
/// wait for what the other stops. A command on another shard, which has no order with them, may start in between.
#[test]
fn rule_2_ordered_ones_do_not_pass_each_other_and_do_not_wait_in_a_circle() {
    let (mut rig, a, _) = rig_of(&unit());
    let running = rig.read(0, a, at(0, 0));
    let first = send(&mut rig, 1, a, ORDERED, read_at(0));
    rig.settle();
    let older = send(&mut rig, 0, a, ORDERED, read_at(0));
    hurry(&mut rig, first);
    // The letter that something was released is on its way.
    let younger = send(&mut rig, 0, a, ORDERED, read_at(0));
    let last = send(&mut rig, 1, a, SIMPLE, read_at(0));
    rig.settle();
    for tag in [running, last, older, younger] {
        assert!(at_backing(&mut rig, tag));
        rig.complete(tag, Ok(()));
        rig.settle();
    }
    finish(rig, a, 1);
}

/// Remembers the last state that was kept; fails when told to.
#[derive(Debug, Default)]
struct Notebook {
    last: Mutex<Option<KeptState>>,
    fails: AtomicBool,
}

impl Keeper for Notebook {
    fn keep(&self, state: &KeptState) -> Result<(), KeepError> {
        if self.fails.load(Ordering::Relaxed) {
            return Err(KeepError::Write("no room".into()));
        }
        *self.last.lock().unwrap() = Some(state.clone());
        Ok(())
    }

    fn note(&self) {}

    fn survives_power_loss(&self) -> bool {
        true
    }
}

fn kept_unit() -> (Arc<Lu>, Arc<Notebook>) {
    let notebook = Arc::new(Notebook::default());
    let setup = LuSetup::new(Arc::new(MemImage::new(1 << 16)), 0x3123_4567_89ab_cdef, "SERIAL".into());
    let ports = unit().ports().to_vec();
    (Lu::new(LuSetup { ports, keeper: Some(notebook.clone()), ..setup }).unwrap(), notebook)
}

#[test]
fn rule_3_written_down_then_denied_then_granted_then_answered() {
    let (lu, notebook) = kept_unit();
    let (mut rig, a, b) = registered(&lu);
    let kept = || notebook.last.lock().unwrap().clone().unwrap().reservations.reservation.is_some();
    let change = send(&mut rig, 0, a, SIMPLE, reserve(1));
    rig.settle();
    assert!(!kept() && holder(&lu).is_none());
    let before = rig.read(1, b, at(0, 0));
    rig.pool.take(0)();
    assert!(kept() && holder(&lu).is_none(), "written down before it is so");
    let between = rig.read(1, b, at(0, 0));
    rig.settle();
    assert_eq!(holder(&lu), Some(id(1)));
    let after = send(&mut rig, 1, b, SIMPLE, read_at(0));
    assert_eq!(status(&mut rig, after), Status::ReservationConflict);
    for tag in [before, between] {
        assert!(!rig.is_answered(change));
        rig.complete(tag, Ok(()));
        assert_eq!(rig.answer(tag).result, GOOD, "it ran to its end");
        rig.settle();
    }
    assert_eq!(rig.answer(change).result, GOOD);
    finish(rig, a, 1);
}

/// What those gain who gain is not given while those who lose are at the image.
#[test]
fn rule_3_who_gains_waits_for_who_loses() {
    let lu = unit();
    let (mut rig, a, b) = registered(&lu);
    let first = send(&mut rig, 0, b, SIMPLE, reserve(2));
    rig.settle();
    assert_eq!(rig.answer(first).result, GOOD);
    let of_b = rig.read(1, b, at(0, 0));
    let preempt = send(&mut rig, 0, a, SIMPLE, reserve_out(0x04, EXCLUSIVE, 1, 2));
    rig.settle();
    for itn_id in [a, b] {
        let early = send(&mut rig, 1, itn_id, SIMPLE, read_at(8));
        let answer = rig.answer(early);
        let told = itn_id == b && answer.result.status == Status::CheckCondition;
        assert!(told || answer.result.status == Status::ReservationConflict, "{answer:?}");
    }
    rig.complete(of_b, Ok(()));
    rig.settle();
    assert_eq!(rig.answer(preempt).result, GOOD);
    let gained = rig.read(1, a, at(0, 0));
    rig.complete(gained, Ok(()));
    finish(rig, a, 1);
}

/// It could not be written down, or nobody tried.
#[test]
fn rule_3_what_is_not_written_down_is_not_made() {
    for dropped in [false, true] {
        let (lu, notebook) = kept_unit();
        let (mut rig, a, b) = registered(&lu);
        notebook.fails.store(true, Ordering::Relaxed);
        let failing = send(&mut rig, 0, a, SIMPLE, reserve(1));
        let next = send(&mut rig, 1, b, SIMPLE, reserve(2));
        rig.settle();
        let work = rig.pool.take(0);
        if dropped {
            drop(work)
        } else {
            work()
        }
        notebook.fails.store(false, Ordering::Relaxed);
        rig.settle();
        assert_eq!(rig.answer(failing).sense(), if dropped { (0xb, 0) } else { (4, 0x4400) });
        assert_eq!(holder(&lu), None);
        let free = rig.read(1, b, at(0, 0));
        rig.complete(free, Ok(()));
        run(&mut rig);
        assert_eq!(rig.answer(next).result, GOOD, "its turn came");
        assert_eq!(holder(&lu), Some(id(2)));
        finish(rig, b, 2);
    }
}

#[test]
fn rule_4_a_command_has_ended_when_its_initiator_can_see_it() {
    for change in [reserve(1), preempt_and_abort(1, 2)] {
        let (mut rig, a, b) = registered(&unit());
        rig.prompt = false;
        let of_b = rig.read(1, b, at(0, 0));
        let change = send(&mut rig, 0, a, SIMPLE, change);
        rig.settle();
        rig.complete(of_b, Err(BackingError::Cancelled));
        rig.settle();
        assert!(rig.is_answered(of_b) && !rig.is_answered(change));
        rig.done(of_b);
        rig.settle();
        assert_eq!(rig.answer(change).result, GOOD);
        rig.done(change);
        rig.prompt = true;
        finish(rig, a, 1);
    }
}

/// A command of a nexus waits for the blocks that another one holds, for an ORDERED one, and for the end of an ACA condition. In
/// whichever order they end, it starts after the last.
#[test]
fn rule_6_each_cause_of_a_wait_ends_by_itself() {
    for order in [[0, 1, 2], [0, 2, 1], [1, 0, 2], [1, 2, 0], [2, 0, 1], [2, 1, 0]] {
        let (mut rig, a, b) = rig_of(&unit());
        let mut faulty = read_at(40);
        faulty.0[9] = 0x04;
        let faulty = send(&mut rig, 1, a, SIMPLE, faulty);
        let of_b = rig.read(1, b, at(0, 0));
        let writer = send(&mut rig, 0, b, SIMPLE, compare_and_write(0));
        let older = send(&mut rig, 1, a, SIMPLE, read_at(16));
        rig.settle();
        // ORDERED waits for the faulty one, too.
        let ordered = send(&mut rig, 0, a, ORDERED, read_at(24));
        rig.settle();
        let last = send(&mut rig, 1, a, SIMPLE, read_at(0));
        rig.complete(faulty, Err(BackingError::ReadFailed));
        rig.settle();
        assert_eq!(rig.answer(faulty).sense().0, 3);
        for (n, cause) in order.into_iter().enumerate() {
            assert!(!at_backing(&mut rig, last) && !rig.is_answered(last), "{order:?}: {n}");
            match cause {
                0 => rig.complete(of_b, Ok(())),
                1 => rig.complete(older, Ok(())),
                _ => {
                    let mid = rig.request_function(0, a, ClearAca, at(0, 0), Tag::NONE);
                    rig.settle();
                    assert_eq!(rig.response(mid), Some(Complete));
                }
            }
            run(&mut rig);
            if at_backing(&mut rig, ordered) {
                rig.complete(ordered, Ok(()));
                run(&mut rig);
            }
        }
        assert_eq!([rig.answer(writer).result, rig.answer(ordered).result], [GOOD, GOOD]);
        assert!(at_backing(&mut rig, last), "{order:?}");
        rig.complete(last, Ok(()));
        finish(rig, a, 1);
    }
}

/// SAM-5 5.9.2: what comes while there is an ACA condition is not to wait.
#[test]
fn rule_6_an_ordered_one_that_comes_under_aca_is_answered() {
    let (mut rig, a, _) = rig_of(&unit());
    let mut faulty = read_at(0);
    faulty.0[9] = 0x04;
    let faulty = send(&mut rig, 1, a, SIMPLE, faulty);
    rig.complete(faulty, Err(BackingError::ReadFailed));
    let ordered = send(&mut rig, 0, a, ORDERED, read_at(0));
    rig.settle();
    assert_eq!(status(&mut rig, ordered), Status::AcaActive);
    rig.request_function(0, a, ClearAca, at(0, 0), Tag::NONE);
    finish(rig, a, 1);
}

#[test]
fn rule_8_a_drain_ends_a_parked_change_whose_effect_stands() {
    let lu = unit();
    let (mut rig, a, b) = registered(&lu);
    let hung = rig.read(1, b, at(0, 0));
    let change = send(&mut rig, 0, a, SIMPLE, reserve(1));
    let next = send(&mut rig, 1, a, SIMPLE, register(9));
    rig.settle();
    hurry(&mut rig, change);
    assert_eq!(rig.answer(change).sense(), (0xb, 0));
    hurry(&mut rig, change);
    assert!(!rig.is_answered(change), "once");
    let refused = send(&mut rig, 0, b, SIMPLE, read_at(0));
    assert_eq!(status(&mut rig, refused), Status::ReservationConflict, "the effect stands");
    rig.settle();
    assert!(!rig.is_answered(next), "one after the other, even so");
    rig.complete(hung, Ok(()));
    rig.settle();
    assert_eq!(rig.answer(next).result, GOOD, "its turn came");
    assert_eq!((holder(&lu), keys(&lu)), (Some(id(1)), vec![9, 2]));
    finish(rig, a, 9);
}

/// The drain's bound may come while the change is being written down.
#[test]
fn rule_8_a_change_that_is_being_written_down_is_not_parked_afterwards() {
    let (lu, _notebook) = kept_unit();
    let (mut rig, a, b) = registered(&lu);
    let hung = rig.read(1, b, at(0, 0));
    let change = send(&mut rig, 0, a, SIMPLE, reserve(1));
    rig.settle();
    hurry(&mut rig, change);
    assert!(!rig.is_answered(change), "it is not known yet whether it will be made");
    run(&mut rig);
    assert_eq!(rig.answer(change).sense(), (0xb, 0));
    assert_eq!(holder(&lu), Some(id(1)));
    rig.complete(hung, Ok(()));
    finish(rig, a, 1);
}

#[test]
fn rule_9_what_must_be_atomic_has_its_blocks_for_itself() {
    for atomic in [compare_and_write(4), orwrite(4)] {
        let (mut rig, a, b) = rig_of(&unit());
        let running = send(&mut rig, 1, b, SIMPLE, read_at(4));
        let other = send(&mut rig, 1, b, SIMPLE, read_at(5));
        let writer = send(&mut rig, 0, a, SIMPLE, atomic);
        rig.settle();
        assert_eq!(rig.pool.len(), 0, "somebody reads the block");
        rig.complete(running, Ok(()));
        rig.settle();
        assert_eq!(rig.pool.len(), 1, "who reads another block is not waited for");

        let overlapping: Vec<Tag> =
            [(0, a), (0, b), (1, a), (1, b)].map(|(shard, n)| send(&mut rig, shard, n, SIMPLE, read_at(4))).into();
        let head = send(&mut rig, 1, b, HEAD, read_at(4));
        let second = send(&mut rig, 1, b, SIMPLE, compare_and_write(4));
        let beside: Vec<Tag> = [(0, a), (1, b)].map(|(shard, n)| send(&mut rig, shard, n, SIMPLE, read_at(3))).into();
        rig.settle();
        assert!(overlapping.iter().chain([&head]).all(|&tag| !at_backing(&mut rig, tag)));
        assert!(beside.iter().all(|&tag| at_backing(&mut rig, tag)));
        assert_eq!(rig.pool.len(), 1);

        rig.pool.take(0)();
        rig.settle();
        assert_eq!(rig.answer(writer).result, GOOD);
        let waited: Vec<Tag> = overlapping.into_iter().chain([head]).collect();
        // They and the second one take turns in an order that is nobody's business, but none is left behind.
        while waited.iter().any(|&tag| at_backing(&mut rig, tag)) {
            for &tag in &waited {
                if at_backing(&mut rig, tag) {
                    assert_eq!(rig.pool.len(), 0, "while a reader is there nobody writes");
                    rig.complete(tag, Ok(()));
                }
            }
            run(&mut rig);
        }
        for tag in waited.into_iter().chain([second]) {
            assert_eq!(rig.answer(tag).result, GOOD);
        }
        for tag in beside.into_iter().chain([other]) {
            rig.complete(tag, Ok(()));
        }
        finish(rig, a, 1);
    }
}

/// A nexus that has an ACA condition, for as long as it likes, does not keep blocks from others.
#[test]
fn rule_9_blocks_are_given_back_where_a_command_waits_for_its_initiator() {
    let (mut rig, a, b) = rig_of(&unit());
    let mut faulty = read_at(40);
    faulty.0[9] = 0x04;
    let faulty = send(&mut rig, 1, a, SIMPLE, faulty);
    let running = rig.read(1, b, at(0, 0));
    let writer = send(&mut rig, 0, a, SIMPLE, compare_and_write(0));
    let waits = send(&mut rig, 0, b, SIMPLE, read_at(0));
    rig.settle();
    rig.complete(faulty, Err(BackingError::ReadFailed));
    rig.complete(running, Ok(()));
    rig.settle();
    assert!(at_backing(&mut rig, waits), "the writer cannot start");
    let later = rig.read(1, b, at(0, 0));
    let mid = rig.request_function(0, a, ClearAca, at(0, 0), Tag::NONE);
    rig.settle();
    assert_eq!(rig.response(mid), Some(Complete));
    assert_eq!(rig.pool.len(), 0, "it asks for its blocks again");
    for tag in [waits, later] {
        rig.complete(tag, Ok(()));
        rig.settle();
    }
    run(&mut rig);
    assert_eq!(rig.answer(writer).result, GOOD);
    finish(rig, a, 1);
}
