//! Killed before and after every store that outlives the process (notes, the medium, what is kept), and gone on with: every command has its
//! effect once, as its initiator and the others see it.
//!
//! The process is one thread here. When it is "killed" it runs on, but nothing that it stores, keeps or writes from then on happens;
//! then all of it is dropped, and another target is made over what is left.

use std::collections::HashMap;
use std::sync::{Arc, Mutex};

use crate::device_server::testkit::{MemImage, out_buf, pattern};
use crate::lu::reservation::{Registration, ReservationState, ReservationType};
use crate::lu::{
    Attention, Intent, IntentName, Intents, Itl, KeepError, Keeper, KeptState, Lu, LuSetup, NexusId, TargetPort,
};
use crate::mem::IoBuf;
use crate::mem::testing::{is_dead, kill_after, revive};
use crate::scsi::{CommandResult, Status};
use crate::target::testkit::{Rig, at, host, mapped, port};
use crate::target::{Notes, TargetSetup};
use crate::tgt::{ItnId, Tag};

mod functions;
mod preempted;

const BYTES: usize = 1 << 16;
const HOST: i32 = crate::target::testkit::HOST;

/// What outlives a process.
#[derive(Debug)]
struct World {
    image: Arc<MemImage>,
    kept: Arc<Kept>,
    notes: Arc<Book>,
    intents: Arc<Drawer>,
}

#[derive(Debug, Default)]
struct Kept(Mutex<Option<KeptState>>);

impl Keeper for Kept {
    fn keep(&self, state: &KeptState) -> Result<(), KeepError> {
        if !is_dead() {
            *self.0.lock().unwrap() = Some(state.clone());
        }
        Ok(())
    }

    fn note(&self) {}

    fn survives_power_loss(&self) -> bool {
        true
    }
}

/// Decisions by head.
#[derive(Debug, Default)]
struct Book(Mutex<HashMap<u16, u64>>);

impl Notes for Book {
    fn note(&self, head: u16, decision: u64) {
        if !is_dead() {
            self.0.lock().unwrap().insert(head, decision);
        }
    }
}

/// Intents, and whether they are committed or finished.
#[derive(Debug, Default)]
struct Drawer(Mutex<Vec<(Intent, Option<bool>)>>);

impl Drawer {
    fn set(&self, name: IntentName, state: Option<bool>) {
        if !is_dead() {
            self.0.lock().unwrap().iter_mut().filter(|(intent, _)| intent.name == name).for_each(|slot| slot.1 = state);
        }
    }
}

impl Intents for Drawer {
    fn prepare(&self, offset: u64, expected: &[u8], replacement: &[u8]) -> Option<IntentName> {
        let mut drawer = self.0.lock().unwrap();
        let name = IntentName(1 << 63 | drawer.len() as u64);
        let (expected, replacement) = (expected.to_vec(), replacement.to_vec());
        drawer.push((Intent { name, offset, expected, replacement }, None));
        Some(name)
    }

    fn commit(&self, name: IntentName) {
        self.set(name, Some(false));
    }

    fn end(&self, name: IntentName) {
        self.set(name, None);
    }

    fn committed(&self) -> Vec<Intent> {
        let drawer = self.0.lock().unwrap();
        drawer.iter().filter(|(_, state)| *state == Some(false)).map(|(intent, _)| intent.clone()).collect()
    }

    fn finished(&self, name: IntentName) {
        self.set(name, Some(true));
    }

    fn was_finished(&self, name: IntentName) -> bool {
        self.0.lock().unwrap().iter().any(|(intent, state)| intent.name == name && *state == Some(true))
    }

    fn forget(&self, name: IntentName) {
        self.set(name, None);
    }
}

impl World {
    fn new() -> World {
        let image = Arc::new(MemImage::patterned(BYTES));
        World { image, kept: Arc::default(), notes: Arc::default(), intents: Arc::default() }
    }

    /// A copy, as it is now.
    fn snapshot(&self) -> World {
        let image = MemImage::new(BYTES);
        image.set_bytes(&self.image.bytes());
        World {
            image: Arc::new(image),
            kept: Arc::new(Kept(Mutex::new(self.kept.0.lock().unwrap().clone()))),
            notes: Arc::new(Book(Mutex::new(self.notes.0.lock().unwrap().clone()))),
            intents: Arc::new(Drawer(Mutex::new(self.intents.0.lock().unwrap().clone()))),
        }
    }
}

fn nexus(n: u8) -> NexusId {
    NexusId { initiator: port(n), port: 1 }
}

/// A process, with nexuses 1 and 2.
struct Process {
    rig: Rig,
    lu: Arc<Lu>,
    itns: [ItnId; 2],
}

impl Process {
    fn start(world: &World) -> Process {
        let mut setup = LuSetup::new(world.image.clone(), 0x3123_4567_89ab_cdef, "SERIAL".into());
        setup.ports = vec![TargetPort { relative: 1, id: [0x81; 16], group: 1 }];
        setup.keeper = Some(world.kept.clone());
        setup.intents = Some(world.intents.clone());
        setup.kept = world.kept.0.lock().unwrap().clone();
        let lu = Lu::new(setup).unwrap();
        let names = (1..4).map(|n| (port(n), format!("vm{n}"))).collect();
        let units = vec![mapped(0, 0, &lu)];
        let setup = TargetSetup { shards: 1, hosts: vec![host(HOST, 1)], units, names, patience: None };
        let mut rig = Rig::with(setup);
        for queue in [0, 1] {
            rig.reactor(0).shard.keep_notes(queue, world.notes.clone());
        }
        let itns = [1, 2].map(|n| rig.request_nexus(0, HOST, n));
        rig.finish_all();
        Process { rig, lu, itns }
    }

    /// A command of nexus 1 or 2, to its end.
    fn run(&mut self, n: usize, command: &Command, before: Before) -> (Tag, Ended, bool) {
        let tag = self.rig.tag(0);
        let buf = if command.data.is_empty() { IoBuf::empty() } else { out_buf(&command.data) };
        self.rig.send_again(tag, self.itns[n - 1], at(0, 0), command.cdb, buf, before);
        self.rig.finish_all();
        if self.rig.reactor(0).io.held.iter().any(|held| held.cookie == tag.0) {
            self.rig.complete(tag, Ok(()));
            self.rig.finish_all();
        }
        let answer = self.rig.answer(tag);
        (tag, Ended { result: answer.result, sense: answer.sense, len: answer.len }, answer.once)
    }

    fn good(&mut self, n: usize, command: &Command) {
        let (_, ended, _) = self.run(n, command, NEW);
        assert_eq!(ended.result, GOOD, "{command:?}: {ended:?}");
    }

    fn itl(&self, n: u8) -> Arc<Itl> {
        let itn = self.itns[usize::from(n) - 1];
        self.rig.reactors[0].shard.itl((itn, 0, 0)).expect("it is logged in")
    }

    /// Takes all unit attentions.
    fn clear(&self) {
        for n in [1, 2] {
            while self.itl(n).gate().take_attention().is_some() {}
        }
    }

    fn pending(&self, n: u8) -> Vec<Attention> {
        self.itl(n).gate().pending()
    }

    fn reservations(&self) -> ReservationState {
        self.lu.reservations(Clone::clone)
    }
}

/// What a process before this one decided about a command, and when it took it.
type Before = (u64, u64);

/// Of a command that none took.
const NEW: Before = (0, 0);

/// The time as processes note it when they take commands.
fn now() -> u64 {
    crate::sys::clock::nanoseconds_since_boot()
}

const GOOD: CommandResult = CommandResult::status(Status::Good);

#[derive(Clone, Debug, PartialEq, Eq)]
struct Ended {
    result: CommandResult,
    sense: Vec<u8>,
    len: u32,
}

#[derive(Clone, Debug)]
struct Command {
    cdb: [u8; 16],
    data: Vec<u8>,
}

fn command(bytes: &[u8], data: &[u8]) -> Command {
    let mut cdb = [0; 16];
    cdb[..bytes.len()].copy_from_slice(bytes);
    Command { cdb, data: data.to_vec() }
}

/// PERSISTENT RESERVE OUT.
fn reserve_out(action: u8, kind: u8, key: u64, service_key: u64) -> Command {
    let list = [&key.to_be_bytes()[..], &service_key.to_be_bytes(), &[0; 8]].concat();
    command(&[0x5f, action, kind, 0, 0, 0, 0, 0, 24, 0], &list)
}

fn register(key: u64, new: u64) -> Command {
    reserve_out(0, 0, key, new)
}

/// COMPARE AND WRITE of whole blocks.
fn caw(lba: u8, compare: &[u8], write: &[u8]) -> Command {
    let blocks = (compare.len() / 512) as u8;
    command(&[0x89, 0, 0, 0, 0, 0, 0, 0, 0, lba, 0, 0, 0, blocks, 0, 0], &[compare, write].concat())
}

/// MODE SELECT(6) of the control mode page with this QERR.
fn set_qerr(process: &mut Process, qerr: u8) -> Command {
    let tag = process.rig.tag(0);
    let buf = IoBuf::owned(16, crate::mem::Direction::In);
    let mut cdb = [0; 16];
    cdb[..6].copy_from_slice(&[0x1a, 0x08, 0x0a, 0, 16, 0]);
    process.rig.send_as(tag, process.itns[0], at(0, 0), cdb, buf);
    process.rig.finish_all();
    let mut list = process.rig.answer(tag).data;
    list[..4].fill(0);
    list[4] &= 0x3f;
    list[4 + 3] = list[4 + 3] & !6 | qerr << 1;
    command(&[0x15, 0x10, 0, 0, 16, 0], &list)
}

/// What is to be seen when a command is over, however often the process was killed on the way.
type Check = Box<dyn Fn(&mut Process, &Ended)>;

/// A command to be killed under.
struct Case {
    name: &'static str,
    /// Brings the unit to where the command finds it; gives it, and what is expected.
    prepare: fn(&mut Process) -> (Command, Check),
}

/// Whether the guest has seen an answer.
enum Fate {
    Seen(Ended),
    /// It was noted that it was answered.
    Noted(Ended),
    /// This was decided, and then it was taken.
    Unknown(Before),
}

/// Runs a command until it is killed after so many stores; true if it was.
fn until_killed(process: &mut Process, world: &World, command: &Command, before: Before, stores: u64) -> (Fate, bool) {
    let taken = if before == NEW { now() } else { before.1 };
    kill_after(stores);
    let (tag, ended, once) = process.run(1, command, before);
    // As the hba does it: what is not to be done again is noted, then the used ring says it.
    let noted = (once || ended.result != GOOD) && !is_dead();
    let seen = !is_dead();
    let killed = revive();
    // The store that came last may have been the last one.
    if seen {
        return (Fate::Seen(ended), killed);
    }
    if noted {
        return (Fate::Noted(ended), killed);
    }
    let decision = world.notes.0.lock().unwrap().get(&tag.head()).copied().unwrap_or(0);
    (Fate::Unknown((if decision == 0 { before.0 } else { decision }, taken)), killed)
}

/// The successor of a process that was killed: it answers, in the end, one way or another.
fn go_on(world: &World, command: &Command, fate: Fate, meanwhile: impl FnOnce(&mut Process)) -> (Process, Ended) {
    let mut process = Process::start(world);
    meanwhile(&mut process);
    let ended = match fate {
        Fate::Seen(ended) | Fate::Noted(ended) => ended,
        Fate::Unknown(before) => process.run(1, command, before).1,
    };
    (process, ended)
}

/// Kills at every point, and under each of those at every point of the successor. Returns at how many points.
fn kill_everywhere(case: &Case) -> usize {
    let mut points = 0;
    for stores in 0.. {
        assert!(stores < 200, "{}: it never ends", case.name);
        let world = World::new();
        let mut process = Process::start(&world);
        process.clear();
        let (command, check) = (case.prepare)(&mut process);
        process.clear();
        process.lu.persist().unwrap();
        world.notes.0.lock().unwrap().clear();
        let (fate, killed) = until_killed(&mut process, &world, &command, NEW, stores);
        drop(process);
        points += 1;
        if let Fate::Unknown(before) = fate {
            // The successor is killed, too.
            for again in 0.. {
                let world = world.snapshot();
                let mut second = Process::start(&world);
                let (fate, killed) = until_killed(&mut second, &world, &command, before, again);
                drop(second);
                let (mut third, ended) = go_on(&world, &command, fate, |_| ());
                check(&mut third, &ended);
                points += 1;
                if !killed {
                    break;
                }
            }
        } else {
            let (mut second, ended) = go_on(&world, &command, fate, |_| ());
            check(&mut second, &ended);
        }
        if !killed {
            break;
        }
    }
    points
}

/// GOOD; these registrations; this generation; who holds what; and these unit attentions for nexus 2, once each.
fn reserved(
    keys: &'static [(u8, u64)],
    generation: u32,
    holder: Option<(ReservationType, u8)>,
    told: &'static [Attention],
) -> Check {
    Box::new(move |process, ended| {
        assert_eq!(ended.result, GOOD, "{ended:?}");
        let state = process.reservations();
        let expected: Vec<_> = keys.iter().map(|&(n, key)| Registration { nexus: nexus(n), key }).collect();
        assert_eq!(state.registrations, expected);
        assert_eq!(state.generation, generation);
        assert_eq!(state.reservation.map(|r| (r.kind, r.holder.unwrap())), holder.map(|(k, n)| (k, nexus(n))));
        assert_eq!(process.pending(2), told);
        assert_eq!(process.pending(1), []);
    })
}

const WE: ReservationType = ReservationType::WriteExclusive;

#[test]
fn persistent_reserve_out() {
    let cases = [
        Case { name: "REGISTER", prepare: |_| (register(0, 7), reserved(&[(1, 7)], 1, None, &[])) },
        Case {
            name: "REGISTER another key",
            prepare: |p| {
                p.good(1, &register(0, 7));
                (register(7, 9), reserved(&[(1, 9)], 2, None, &[]))
            },
        },
        Case {
            name: "REGISTER that unregisters",
            prepare: |p| {
                p.good(1, &register(0, 7));
                (register(7, 0), reserved(&[], 2, None, &[]))
            },
        },
        Case {
            name: "RESERVE",
            prepare: |p| {
                p.good(1, &register(0, 7));
                (reserve_out(1, 1, 7, 0), reserved(&[(1, 7)], 1, Some((WE, 1)), &[]))
            },
        },
        Case {
            name: "RELEASE",
            prepare: |p| {
                p.good(1, &register(0, 7));
                p.good(2, &register(0, 8));
                p.good(1, &reserve_out(1, 5, 7, 0));
                let told = &[Attention::ReservationsReleased];
                (reserve_out(2, 5, 7, 0), reserved(&[(1, 7), (2, 8)], 2, None, told))
            },
        },
        Case {
            name: "CLEAR",
            prepare: |p| {
                p.good(1, &register(0, 7));
                p.good(2, &register(0, 8));
                (reserve_out(3, 0, 7, 0), reserved(&[], 3, None, &[Attention::ReservationsPreempted]))
            },
        },
        Case {
            name: "PREEMPT",
            prepare: |p| {
                p.good(1, &register(0, 7));
                p.good(2, &register(0, 8));
                p.good(2, &reserve_out(1, 1, 8, 0));
                let told = &[Attention::RegistrationsPreempted];
                (reserve_out(4, 1, 7, 8), reserved(&[(1, 7)], 3, Some((WE, 1)), told))
            },
        },
        Case {
            name: "PREEMPT AND ABORT",
            prepare: |p| {
                p.good(1, &register(0, 7));
                p.good(2, &register(0, 8));
                p.good(2, &reserve_out(1, 1, 8, 0));
                let told = &[Attention::RegistrationsPreempted];
                (reserve_out(5, 1, 7, 8), reserved(&[(1, 7)], 3, Some((WE, 1)), told))
            },
        },
    ];
    for case in cases {
        let points = kill_everywhere(&case);
        assert!(points >= 8, "{}: killed at {points} points only", case.name);
    }
}

/// What refuses a command is its answer, and stays so when the reason is gone.
#[test]
fn refusals() {
    let case = Case {
        name: "a key that is not there",
        prepare: |_| {
            (
                reserve_out(1, 1, 7, 0),
                Box::new(|p, ended| {
                    assert_eq!(ended.result, CommandResult::status(Status::ReservationConflict));
                    assert_eq!(p.reservations(), ReservationState::default());
                }),
            )
        },
    };
    kill_everywhere(&case);
}

#[test]
fn reserve_and_release() {
    kill_everywhere(&Case {
        name: "RESERVE(6)",
        prepare: |_| {
            let check: Check = Box::new(|p, ended| {
                assert_eq!(ended.result, GOOD, "{ended:?}");
                assert_eq!(p.reservations().legacy, Some(nexus(1)));
            });
            (command(&[0x16, 0, 0, 0, 0, 0], &[]), check)
        },
    });
    kill_everywhere(&Case {
        name: "RELEASE(6)",
        prepare: |p| {
            p.good(1, &command(&[0x16, 0, 0, 0, 0, 0], &[]));
            let check: Check = Box::new(|p, ended| {
                assert_eq!(ended.result, GOOD, "{ended:?}");
                assert_eq!(p.reservations().legacy, None);
            });
            (command(&[0x17, 0, 0, 0, 0, 0], &[]), check)
        },
    });
}

#[test]
fn settings() {
    kill_everywhere(&Case {
        name: "MODE SELECT",
        prepare: |p| {
            let check: Check = Box::new(|p, ended| {
                assert_eq!(ended.result, GOOD, "{ended:?}");
                assert_eq!(p.lu.mode().qerr, 1);
                assert_eq!(p.pending(2), [Attention::ModeParametersChanged]);
                assert_eq!(p.pending(1), []);
            });
            (set_qerr(p, 1), check)
        },
    });
    kill_everywhere(&Case {
        name: "SET IDENTIFYING INFORMATION",
        prepare: |_| {
            let check: Check = Box::new(|p, ended| {
                assert_eq!((ended.result, ended.len), (GOOD, 3), "{ended:?}");
                assert_eq!(p.pending(2), [Attention::DeviceIdentifierChanged]);
            });
            (command(&[0xa4, 0x06, 0, 0, 0, 0, 0, 0, 0, 3, 0, 0], &[1, 2, 3]), check)
        },
    });
}

/// Somebody else changed the same since, before the command came again: the change that was made is not made once more, over the other one.
#[test]
fn what_was_made_is_not_made_over_what_came_after() {
    let mut made = 0;
    for stores in 0.. {
        let world = World::new();
        let mut process = Process::start(&world);
        process.clear();
        process.good(1, &register(0, 7));
        process.good(2, &register(0, 8));
        process.clear();
        process.lu.persist().unwrap();
        world.notes.0.lock().unwrap().clear();
        let reserve = reserve_out(1, 1, 7, 0);
        let (fate, killed) = until_killed(&mut process, &world, &reserve, NEW, stores);
        drop(process);
        let was_made = world.kept.0.lock().unwrap().as_ref().unwrap().reservations.reservation.is_some();
        let unknown = matches!(fate, Fate::Unknown(_));
        // Nexus 2 preempts: its reservation is the last.
        let (p, ended) = go_on(&world, &reserve, fate, |p| p.good(2, &reserve_out(4, 1, 8, 7)));
        let holder = p.reservations().reservation.map(|r| r.holder.unwrap());
        assert_eq!(holder, was_made.then_some(nexus(2)));
        if was_made {
            assert_eq!(ended.result, GOOD, "it was made, whatever came after");
            made += usize::from(unknown);
        } else {
            // It is told that it was preempted.
            assert_eq!(ended.result, CommandResult::status(Status::CheckCondition), "it was not registered any more");
        }
        if !killed {
            break;
        }
    }
    assert!(made > 0, "no point between the change and its answer");
}

/// Changes of others, made since by processes that were killed as well, are not taken for the one that is asked for.
#[test]
fn names_of_changes_are_not_mixed_up() {
    let world = World::new();
    let mut process = Process::start(&world);
    process.clear();
    process.good(1, &register(0, 7));
    process.clear();
    process.lu.persist().unwrap();
    // Decided, and no more.
    let reserve = reserve_out(1, 1, 7, 0);
    let (fate, _) = until_killed(&mut process, &world, &reserve, NEW, 1);
    drop(process);
    let Fate::Unknown(before) = fate else { panic!("it was answered") };
    assert_ne!(before.0, 0);
    for n in 1..5 {
        let mut between = Process::start(&world);
        between.good(2, &reserve_out(6, 0, 0, n));
        drop(between);
    }
    let (p, ended) = go_on(&world, &reserve, Fate::Unknown(before), |_| ());
    assert_eq!(ended.result, GOOD, "{ended:?}");
    assert_eq!(p.reservations().reservation.unwrap().holder, Some(nexus(1)), "it was carried out");
}

/// With the state lost nothing is known of it: the nexus is new, and the command is a new one of it.
#[test]
fn a_state_that_is_lost() {
    let world = World::new();
    let mut process = Process::start(&world);
    process.clear();
    process.lu.persist().unwrap();
    let (fate, _) = until_killed(&mut process, &world, &register(0, 7), NEW, 2);
    drop(process);
    *world.kept.0.lock().unwrap() = None;
    let (_, ended) = go_on(&world, &register(0, 7), fate, |_| ());
    assert_eq!(ended.sense[2] & 0xf, 6);
    assert_eq!(ended.sense[12..14], [0x29, 0x00]);
}

fn compared(bytes: Vec<u8>) -> Check {
    Box::new(move |p, ended| {
        assert_eq!(ended.result, GOOD, "{ended:?}");
        assert_eq!(ended.len as usize, 2 * bytes.len());
        let image = p.lu.image();
        let mut found = vec![0; bytes.len()];
        image.read_bytes(512 * 3, &mut found).unwrap();
        assert_eq!(found, bytes);
    })
}

#[test]
fn compare_and_write() {
    let points = kill_everywhere(&Case {
        name: "COMPARE AND WRITE",
        prepare: |_| (caw(3, &pattern(1536, 4 * 512), &[0x5a; 4 * 512]), compared(vec![0x5a; 4 * 512])),
    });
    // Before and after each note and each sector, and twice.
    assert!(points > 20, "{points}");
    kill_everywhere(&Case {
        name: "COMPARE AND WRITE that changes some sectors only",
        prepare: |_| {
            let old = pattern(1536, 4 * 512);
            let mut new = old.clone();
            new[600..700].fill(1);
            new[2047] ^= 1;
            (caw(3, &old, &new), compared(new))
        },
    });
    kill_everywhere(&Case {
        name: "COMPARE AND WRITE that miscompares",
        prepare: |_| {
            let check: Check = Box::new(|p, ended| {
                assert_eq!(ended.result, CommandResult::status(Status::CheckCondition));
                assert_eq!((ended.sense[2] & 0xf, ended.sense[12]), (0xe, 0x1d));
                let mut found = vec![0; 512];
                p.lu.image().read_bytes(512 * 3, &mut found).unwrap();
                assert_eq!(found, pattern(1536, 512));
            });
            (caw(3, &[9; 512], &[1; 512]), check)
        },
    });
}

/// A counter that two nexuses raise with COMPARE AND WRITE: it is raised once for each answer that says so, though nexus 2 raises it
/// between the kill and the replay.
#[test]
fn a_counter_is_raised_once_for_each_success() {
    let block = |n: u8| vec![n; 512];
    let raise = |n: u8| caw(3, &block(n), &block(n + 1));
    for stores in 0.. {
        let world = World::new();
        world.image.set_bytes(&vec![5; BYTES]);
        let mut process = Process::start(&world);
        process.clear();
        process.lu.persist().unwrap();
        let (fate, killed) = until_killed(&mut process, &world, &raise(5), NEW, stores);
        drop(process);
        let mut successes = 0;
        let (p, ended) = go_on(&world, &raise(5), fate, |p| {
            let now = world.image.bytes()[1536];
            p.good(2, &raise(now));
            successes += 1;
        });
        match ended.result {
            GOOD => successes += 1,
            _ => assert_eq!(ended.sense[2] & 0xf, 0xe, "MISCOMPARE: {ended:?}"),
        }
        let mut found = vec![0; 512];
        p.lu.image().read_bytes(1536, &mut found).unwrap();
        assert_eq!(found, block(5 + successes), "after {stores} stores");
        if !killed {
            break;
        }
    }
}

/// A unit attention is reported by the command that found it, again if need be, and by no other.
#[test]
fn unit_attentions() {
    for stores in 0..3 {
        let world = World::new();
        let mut process = Process::start(&world);
        process.clear();
        process.itl(1).establish(Attention::CapacityChanged);
        process.lu.persist().unwrap();
        let ready = command(&[0; 6], &[]);
        let (fate, _) = until_killed(&mut process, &world, &ready, NEW, stores);
        let reported = |ended: &Ended| assert_eq!(ended.sense[12..14], [0x2a, 0x09]);
        if let Fate::Seen(ended) | Fate::Noted(ended) = &fate {
            reported(ended);
        }
        drop(process);
        let (_, ended) = go_on(&world, &ready, fate, |_| ());
        reported(&ended);
    }
}
