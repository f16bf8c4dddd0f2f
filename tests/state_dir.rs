//! What survives the process: nexuses, reservations and unit attentions through restarts in order, kills at any moment, and reboots; and
//! what is refused.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, missing_docs, reason = "test code")]

mod frontend;
#[path = "kill/model.rs"]
mod model;
#[path = "storm/random.rs"]
mod random;

use std::fs;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use tempfile::TempDir;
use vstgt::lu::reservation::{Action, Registrants, ReservationState, ReservationType};
use vstgt::lu::{Attention, NexusId};
use vstgt::srp::PortId;

use frontend::guest::{LINUX_FEATURES, connect};
use frontend::process::{IMAGE_SIZE, command};
use frontend::{BOUND, Buffer, Guest, Ram, Vstgt, eventually};
use model::{CLEARED, Command, Ended, World, explain, full_status, wire};
use random::Random;

const NAMES: [&str; 2] = ["a", "b"];
const POWER_ON: (u8, u8, u8) = (6, 0x29, 0x00);
const NEXUS_LOSS: (u8, u8, u8) = (6, 0x29, 0x07);

fn nexus(at: usize) -> NexusId {
    NexusId { initiator: PortId::of_initiator(NAMES[at]).0, port: 1 }
}

fn new_dir() -> TempDir {
    let dir = tempfile::tempdir().unwrap();
    fs::File::create(dir.path().join("disk.img")).unwrap().set_len(IMAGE_SIZE).unwrap();
    dir
}

fn arguments(dir: &Path, more: &[&str], command: &mut std::process::Command) {
    for name in NAMES {
        command.arg("--socket-path").arg(format!("{}/{name}.sock,initiator={name}", dir.display()));
    }
    command.args(more);
}

fn start(dir: TempDir, more: &[&str]) -> Vstgt {
    let path = dir.path().to_owned();
    Vstgt::start_in(dir, 0, |command| arguments(&path, more, command))
}

/// A guest whose rings run; unit attentions are as they were.
fn guest(dir: &Path, name: &str) -> Guest {
    let mut guest = Guest::over(connect(&dir.join(format!("{name}.sock"))), Ram::new(16 << 20));
    guest.negotiate();
    guest.start(LINUX_FEATURES, &[0, 1, 2], 128);
    guest
}

fn state_file(dir: &Path) -> PathBuf {
    let entries = fs::read_dir(dir.join("state")).unwrap();
    let mut files = entries.map(|e| e.unwrap().path()).filter(|path| path.extension().is_some_and(|e| e == "state"));
    files.next().expect("a state file")
}

/// Whether the state file says this.
fn written(dir: &Path, what: &str) -> bool {
    String::from_utf8_lossy(&fs::read(state_file(dir)).unwrap()).contains(what)
}

/// PERSISTENT RESERVE IN's data, as long as they say they are.
fn reserve_in(guest: &mut Guest, service_action: u8) -> Vec<u8> {
    let at = guest.ram.alloc(4096);
    let cdb = [0x5e, service_action, 0, 0, 0, 0, 0, 0x10, 0, 0];
    let answer = guest.command(&cdb, &[], &[Buffer::input(at, 4096)]);
    assert!(answer.good(), "{answer:?}");
    guest.ram.read(at, 4096 - answer.residual as usize)
}

/// READ FULL STATUS, and PTPL_A of REPORT CAPABILITIES.
fn seen(guest: &mut Guest) -> (Vec<u8>, bool) {
    (reserve_in(guest, 3), reserve_in(guest, 2)[3] & 1 != 0)
}

/// The control mode page; `None` if a reservation keeps the guest from it.
fn control_page(guest: &mut Guest) -> Option<[u8; 12]> {
    let at = guest.ram.alloc(64);
    let answer = guest.command(&[0x1a, 0x08, 0x0a, 0, 64, 0], &[], &[Buffer::input(at, 64)]);
    assert!(answer.good() || answer.status == 0x18, "{answer:?}");
    answer.good().then(|| guest.ram.read(at + 4, 12).try_into().unwrap())
}

fn send(guest: &mut Guest, command: &Command) -> Ended {
    let (cdb, list) = wire(command, [0; 12]);
    let at = guest.ram.alloc(24);
    guest.ram.write(at, &list);
    let out = [Buffer::out(at, 24)];
    let out = if list.is_empty() { &[][..] } else { &out[..] };
    ended(&guest.command(&cdb, out, &[]))
}

fn ended(response: &frontend::Response) -> Ended {
    match (response.response, response.status, response.sense_code()) {
        (0, 0, _) => Ended::Good,
        (0, 0x18, _) => Ended::Conflict,
        (0, 2, Some((6, code, qualifier))) => Ended::Attention(u16::from_be_bytes([code, qualifier])),
        (0, 2, Some((5, code, qualifier))) => Ended::Refused(u16::from_be_bytes([code, qualifier])),
        // ABORTED or RESET: PREEMPT AND ABORT.
        (2 | 4, ..) | (0, 0x40, _) => Ended::Unknown,
        _ => panic!("{response:?}"),
    }
}

fn register(key: u64, aptpl: bool) -> Command {
    let targets = Registrants::THIS_NEXUS;
    Command::Reserve(Action::Register { ignore_existing: true, key: 0, new_key: key, aptpl, targets })
}

/// The host boots: the file is one of another boot.
fn reboot(file: &Path) {
    let mut bytes = fs::read(file).unwrap();
    let text = String::from_utf8(bytes.split_off(20)).unwrap();
    let boot = text.lines().find(|line| line.starts_with("boot ")).expect("it says in which boot");
    let text = text.replacen(boot, "boot 00000000-0000-4000-8000-000000000000", 1);
    bytes[12..16].copy_from_slice(&(text.len() as u32).to_le_bytes());
    let sum = bytes[..16].iter().chain(text.as_bytes()).fold(!0u32, |sum, byte| {
        (0..8).fold(sum ^ u32::from(*byte), |sum, _| sum >> 1 ^ if sum & 1 == 1 { 0xedb8_8320 } else { 0 })
    });
    bytes[16..20].copy_from_slice(&(!sum).to_le_bytes());
    bytes.extend(text.as_bytes());
    fs::write(file, bytes).unwrap();
}

/// Stopped in order and started again: no guest notices.
#[test]
fn a_restart_goes_unnoticed() {
    let mut vstgt = start(new_dir(), &[]);
    let [mut a, mut b] = NAMES.map(|name| guest(vstgt.dir.path(), name));
    assert_eq!(a.clear_attentions(), [POWER_ON]);
    assert_eq!(send(&mut a, &register(7, false)), Ended::Good);
    let reserve = Action::Reserve { key: 7, kind: ReservationType::WriteExclusive };
    assert_eq!(send(&mut a, &Command::Reserve(reserve)), Ended::Good);
    let before = seen(&mut a);
    for round in 0..3 {
        // In the last one the sockets are closed first, so that both nexuses wait for their initiators.
        if round == 2 {
            drop((a, b));
            vstgt = start(vstgt.stop(), &[]);
        } else {
            vstgt = start(vstgt.stop(), &[]);
            drop((a, b));
        }
        [a, b] = NAMES.map(|name| guest(vstgt.dir.path(), name));
        assert_eq!(a.clear_attentions(), [], "round {round}");
        assert_eq!(seen(&mut a), before);
        let told = b.test_unit_ready();
        assert_eq!(told.sense_code(), (round == 0).then_some(POWER_ON), "told once, in whichever process");
        // The reservation still keeps the other one from writing.
        let at = b.ram.alloc(512);
        let write = b.command(&frontend::guest::rw10(0x2a, 0, 512), &[Buffer::out(at, 512)], &[]);
        assert_eq!(write.status, 0x18);
        a.write_blocks(0, &[round as u8; 512]);
    }
    vstgt.stop();
}

/// Kept, but its initiator does not come in time: lost. And lost stays lost.
#[test]
fn a_nexus_that_does_not_come_back_is_lost() {
    let timeout = ["--nexus-loss-timeout", "3"];
    let vstgt = start(new_dir(), &timeout);
    let mut a = guest(vstgt.dir.path(), "a");
    a.clear_attentions();
    assert!(a.command(&[0x16, 0, 0, 0, 0, 0], &[], &[]).good(), "RESERVE(6)");
    let vstgt = start(vstgt.kill(), &timeout);
    drop(a);
    let mut b = guest(vstgt.dir.path(), "b");
    assert_eq!(b.test_unit_ready().sense_code(), Some(POWER_ON));
    assert_eq!(b.test_unit_ready().status, 0x18, "held by RESERVE");
    eventually("RESERVE ends with its nexus", || b.test_unit_ready().good());
    let dir = vstgt.dir.path().to_owned();
    eventually("it is written", || written(&dir, "absent"));
    let vstgt = start(vstgt.kill(), &timeout);
    let mut a = guest(vstgt.dir.path(), "a");
    assert_eq!(a.clear_attentions(), [NEXUS_LOSS]);
    vstgt.stop();
}

/// A unit attention that was established and not reported is reported by the next process; one that was reported is not, once
/// it had the milliseconds to be written.
#[test]
fn unit_attentions_survive_a_kill() {
    let vstgt = start(new_dir(), &[]);
    let [mut a, mut b] = NAMES.map(|name| guest(vstgt.dir.path(), name));
    assert_eq!((a.clear_attentions(), b.clear_attentions()), (vec![POWER_ON], vec![POWER_ON]));
    let dir = vstgt.dir.path().to_owned();
    assert!(written(&dir, "generation 0"));
    eventually("what was reported is written", || !written(&dir, "2900"));
    for guest in [&mut a, &mut b] {
        assert_eq!(send(guest, &register(1, false)), Ended::Good);
    }
    let preempt = Action::Preempt { key: 1, victim: 1, kind: ReservationType::WriteExclusive, abort: false };
    assert_eq!(send(&mut a, &Command::Reserve(preempt)), Ended::Good);
    // At once: what a PREEMPT tells others is written before it is answered.
    let vstgt = start(vstgt.kill(), &[]);
    drop((a, b));
    let [mut a, mut b] = NAMES.map(|name| guest(vstgt.dir.path(), name));
    assert_eq!((a.clear_attentions(), b.clear_attentions()), (vec![], vec![(6, 0x2a, 0x05)]));
    eventually("what was reported is written", || !written(&dir, "2a05"));
    let vstgt = start(vstgt.kill(), &[]);
    drop(b);
    assert_eq!(guest(vstgt.dir.path(), "b").clear_attentions(), []);
    vstgt.stop();
}

/// After a reboot: what APTPL preserves, and everybody is new.
#[test]
fn aptpl_decides_what_a_reboot_leaves() {
    for aptpl in [false, true] {
        let vstgt = start(new_dir(), &[]);
        let mut a = guest(vstgt.dir.path(), "a");
        a.clear_attentions();
        assert_eq!(reserve_in(&mut a, 2)[3] & 1, 0);
        assert_eq!(reserve_in(&mut a, 2)[2] & 1, 1, "PTPL_C");
        assert_eq!(send(&mut a, &register(9, aptpl)), Ended::Good);
        let reserve = Action::Reserve { key: 9, kind: ReservationType::ExclusiveAccess };
        assert_eq!(send(&mut a, &Command::Reserve(reserve)), Ended::Good);
        let dir = vstgt.kill();
        reboot(&state_file(dir.path()));
        let vstgt = start(dir, &[]);
        let mut a = guest(vstgt.dir.path(), "a");
        assert_eq!(a.clear_attentions(), [POWER_ON]);
        let status = reserve_in(&mut a, 3);
        assert_eq!(status[..4], [0; 4], "PRGENERATION");
        assert_eq!(status.len(), if aptpl { 8 + 48 } else { 8 });
        assert_eq!(status.get(8 + 12..8 + 14), aptpl.then_some(&[1, 3][..]), "holder, Exclusive Access");
        vstgt.stop();
    }
}

/// Without a state directory a restart is a loss of power, and APTPL is refused.
#[test]
fn nothing_is_kept_where_nothing_is_to_be() {
    let start = |dir: TempDir| {
        let path = dir.path().to_owned();
        Vstgt::start_keeping(dir, Path::new("none"), 0, |command| arguments(&path, &[], command))
    };
    let dir = new_dir();
    let vstgt = start(dir);
    let mut a = guest(vstgt.dir.path(), "a");
    a.clear_attentions();
    assert_eq!(reserve_in(&mut a, 2)[2] & 1, 0, "PTPL_C");
    assert_eq!(send(&mut a, &register(9, true)), Ended::Refused(0x2600));
    assert_eq!(send(&mut a, &register(9, false)), Ended::Good);
    let vstgt = start(vstgt.stop());
    let mut a = guest(vstgt.dir.path(), "a");
    assert_eq!(a.clear_attentions(), [POWER_ON]);
    assert_eq!(reserve_in(&mut a, 3).len(), 8);
    assert!(!vstgt.dir.path().join("state").exists());
    vstgt.stop();
}

/// It says which file it is, and what to do; the file stays as it is, and no socket is there.
#[test]
fn a_damaged_file_is_refused_and_kept() {
    let vstgt = start(new_dir(), &[]);
    drop(connect(&vstgt.dir.path().join("a.sock")));
    let dir = vstgt.stop();
    let file = state_file(dir.path());
    let mut bytes = fs::read(&file).unwrap();
    let last = bytes.len() - 1;
    bytes[last] ^= 1;
    fs::write(&file, &bytes).unwrap();
    let mut refused = command(dir.path());
    arguments(dir.path(), &[], &mut refused);
    assert_eq!(refused.status().unwrap().code(), Some(1));
    let log = fs::read_to_string(dir.path().join("log")).unwrap();
    assert!(log.contains(&format!("{} is damaged (its checksum does not match)", file.display())), "{log}");
    assert!(log.contains("move it away"), "{log}");
    assert_eq!(fs::read(&file).unwrap(), bytes);
    assert!(!dir.path().join("a.sock").exists());
    fs::rename(&file, dir.path().join("away")).unwrap();
    let vstgt = start(dir, &[]);
    drop(connect(&vstgt.dir.path().join("a.sock")));
    vstgt.stop();
}

/// Two processes, one unit, one state directory: the second is refused while the first is there. That is so even if nothing keeps them from sharing
/// the image.
#[test]
fn a_second_process_is_refused() {
    let vstgt = start(new_dir(), &[]);
    let dir = vstgt.dir.path();
    drop(connect(&dir.join("a.sock")));
    let second = std::process::Command::new(env!("CARGO_BIN_EXE_vstgt"))
        .arg("--lun")
        .arg(format!("file={},locking=off", vstgt.image().display()))
        .arg("--state-dir")
        .arg(frontend::process::state_dir(dir))
        .arg("--socket-path")
        .arg(dir.join("c.sock"))
        .output()
        .unwrap();
    assert_eq!(second.status.code(), Some(1));
    let said = String::from_utf8_lossy(&second.stderr);
    assert!(said.contains("another vstgt serves this unit with this state directory"), "{said}");
    vstgt.stop();
}

/// What guests know: every world that explains what they saw, and the attentions that were reported to them in this life of the
/// process, which may be reported again after a kill.
struct Knowledge {
    worlds: Vec<World>,
    reported: [Vec<u16>; 2],
    /// The control mode page.
    page: [u8; 12],
}

/// Sends commands of both guests, one of each at a time, until the process is dead. Returns how many were sent.
fn traffic(
    guests: &mut [Guest; 2],
    known: &mut Knowledge,
    random: &mut Random,
    aptpl: bool,
    dead: &AtomicBool,
) -> usize {
    let mut sent = 0;
    loop {
        let marks = guests.each_ref().map(|guest| guest.ram.mark());
        let mut under_way = Vec::new();
        for (at, guest) in guests.iter_mut().enumerate() {
            let command = model::command(&mut |bound| random.below(bound), aptpl);
            let (cdb, list) = wire(&command, known.page);
            let data = guest.ram.alloc(24);
            guest.ram.write(data, &list);
            let out = [Buffer::out(data, 24)];
            let (_, response) = guest.submit(2, &cdb, if list.is_empty() { &[] } else { &out }, &[]);
            under_way.push((at, command, response, None));
        }
        sent += under_way.len();
        let start = Instant::now();
        // Asked before the rings are looked at: what is not there after that will never be.
        let over = loop {
            let over = dead.load(Ordering::Acquire);
            for (at, _, response, ended_as) in &mut under_way {
                if let Some((_, len)) = guests[*at].queue(2).pop_used() {
                    *ended_as = Some(ended(&guests[*at].parse_response(*response, len)));
                }
            }
            if over || under_way.iter().all(|(.., ended_as)| ended_as.is_some()) {
                break over;
            }
            assert!(start.elapsed() < BOUND, "no answer in time");
            std::thread::sleep(Duration::from_micros(20));
        };
        for (at, _, _, ended_as) in &under_way {
            if let Some(Ended::Attention(code)) = ended_as {
                known.reported[*at].push(*code);
            }
        }
        let commands: Vec<_> = under_way
            .into_iter()
            .map(|(at, command, _, ended_as)| (nexus(at), command, ended_as.unwrap_or(Ended::Unknown)))
            .collect();
        let after = explain(&known.worlds, &commands);
        assert!(!after.is_empty(), "nothing explains {commands:?} after {:?}", known.worlds);
        known.worlds = after;
        for (guest, mark) in guests.iter().zip(marks) {
            guest.ram.release(mark);
        }
        if over {
            return sent;
        }
    }
}

/// Kill -9 at random moments during traffic of two initiators; then the state is one that they could have seen, no unit attention
/// is lost, and no nexus is new.
fn killed_at_random_moments(rounds: usize, aptpl: bool) {
    let seed: u64 = std::env::var("VSTGT_TEST_SEED").map_or(0x5eed, |seed| seed.parse().unwrap());
    let mut random = Random::new(seed.wrapping_mul(0x9e37_79b9_7f4a_7c15) | 1);
    let more = ["--nexus-loss-timeout", "60"];
    let mut dir = new_dir();
    let pending = (0..2).map(|at| (nexus(at), vec![Attention::PowerOn])).collect();
    let first = World { state: ReservationState::default(), qerr: 0, pending };
    let mut known = Knowledge { worlds: vec![first], page: [0; 12], reported: Default::default() };
    let (mut sent, mut states) = (0, 0);
    for round in 0..rounds {
        // A process that is killed as it starts changes nothing.
        if random.below(4) == 0 {
            let mut command = command(dir.path());
            arguments(dir.path(), &more, &mut command);
            let mut child = command.spawn().unwrap();
            std::thread::sleep(Duration::from_micros(random.below(30_000)));
            child.kill().unwrap();
            child.wait().unwrap();
        }
        let vstgt = start(dir, &more);
        let mut guests = NAMES.map(|name| guest(vstgt.dir.path(), name));
        known = look(&mut guests, &known).unwrap_or_else(|e| panic!("round {round}, seed {seed}: {e}"));
        states += usize::from(!known.worlds[0].state.registrations.is_empty());

        let dead = AtomicBool::new(false);
        let moment = Duration::from_micros(random.below(80_000));
        let (killed, count) = std::thread::scope(|scope| {
            let killer = scope.spawn(|| {
                std::thread::sleep(moment);
                let killed = vstgt.kill();
                dead.store(true, Ordering::Release);
                killed
            });
            let count = traffic(&mut guests, &mut known, &mut random, aptpl, &dead);
            (killer.join().unwrap(), count)
        });
        dir = killed;
        sent += count;
        if random.below(8) == 0 {
            reboot(&state_file(dir.path()));
            known.reported = Default::default();
            known.worlds.iter_mut().for_each(World::power_loss);
        }
    }
    println!("{sent} commands; {states} of {rounds} times something was registered");
    assert!(sent > rounds * 2 && states > rounds / 4, "{sent} {states}");
}

/// What guests find in a new process, held against what they knew. Afterwards they know exactly.
fn look(guests: &mut [Guest; 2], known: &Knowledge) -> Result<Knowledge, String> {
    let told = guests.each_mut().map(|guest| {
        let told = guest.clear_attentions();
        told.into_iter().map(|(_, code, qualifier)| u16::from_be_bytes([code, qualifier])).collect::<Vec<u16>>()
    });
    let (status, aptpl) = seen(&mut guests[0]);
    // A reservation may keep one of them from it.
    let page = guests.iter_mut().find_map(control_page).expect("one of them may see the mode parameters");
    let found = (status, aptpl, page[3] >> 1 & 3);
    let shows = |world: &&World| (full_status(&world.state), world.state.aptpl, world.qerr) == found;
    let of_state: Vec<&World> = known.worlds.iter().filter(shows).collect();
    if of_state.is_empty() {
        return Err(format!("{found:x?} is none of {:?}", known.worlds));
    }
    let tells = |world: &&&World| {
        (0..2).all(|at| {
            let pending: Vec<u16> = world.pending[at].1.iter().map(|attention| attention.code().0).collect();
            let none_lost = pending.iter().all(|code| told[at].contains(code));
            let explained = |code| pending.contains(code) || known.reported[at].contains(code) || *code == CLEARED;
            let none_new = told[at].iter().all(explained);
            none_lost && none_new
        })
    };
    let Some(world) = of_state.iter().find(tells) else {
        let reported = &known.reported;
        return Err(format!("they were told {told:x?}, reported before was {reported:x?}; it could be {of_state:?}"));
    };
    let pending = (0..2).map(|at| (nexus(at), Vec::new())).collect();
    Ok(Knowledge { worlds: vec![World { pending, ..(**world).clone() }], page, reported: told })
}

fn rounds() -> usize {
    if std::env::var_os("VSTGT_SOAK").is_some() { 200 } else { 20 }
}

#[test]
fn killed_at_any_moment_without_aptpl() {
    killed_at_random_moments(rounds(), false);
}

#[test]
fn killed_at_any_moment_with_aptpl() {
    killed_at_random_moments(rounds(), true);
}
