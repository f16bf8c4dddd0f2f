//! Guest memory that the kernel holds for the reactors' rings (`--register-memory`), as far as the kernel's own count of it tells: there while the guest is,
//! never more than was allowed, and never in the way of anything.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, missing_docs, reason = "test code")]
#![allow(unsafe_code, reason = "a limit is set between fork and exec")]

mod frontend;

use std::fs;
use std::os::unix::process::CommandExt;
use std::sync::{Mutex, MutexGuard, PoisonError};

use frontend::guest::{LINUX_FEATURES, VerifiedIo, pattern, rw10};
use frontend::{Buffer, Guest, Ram, Vstgt, eventually};

const KIB: u64 = 1 << 10;
const MIB: u64 = 1 << 20;

/// Small enough for the limit of locked memory that a user has who did not ask for one.
const REGIONS: [(u64, u64); 3] = [(0, 3 * MIB), (4 * MIB, 512 * KIB), (1 << 32, 256 * KIB)];

fn status(vstgt: &Vstgt, label: &str) -> String {
    let status = fs::read_to_string(format!("/proc/{}/status", vstgt.pid())).unwrap();
    status.lines().find_map(|line| line.strip_prefix(label)).unwrap().trim().to_owned()
}

/// What the kernel holds for a process, in KiB.
fn pinned(vstgt: &Vstgt) -> u64 {
    status(vstgt, "VmPin:").trim_end_matches("kB").trim().parse().unwrap()
}

/// Locked memory is counted by user, not by process: one test at a time.
static ONE_AT_A_TIME: Mutex<()> = Mutex::new(());

fn alone() -> MutexGuard<'static, ()> {
    ONE_AT_A_TIME.lock().unwrap_or_else(PoisonError::into_inner)
}

/// One reactor, for each holds the memory that its rings use.
fn serve(allowed: &str, locked: Option<u64>) -> Option<Vstgt> {
    let vstgt = Vstgt::start_with(2, |command| {
        command.args(["--reactors", "1", "--register-memory", allowed]);
        if let Some(locked) = locked {
            let limit = move || {
                lock_no_more_than(locked);
                Ok(())
            };
            // SAFETY: system calls between fork and exec.
            unsafe { command.pre_exec(limit) };
        }
    });
    eventually("it serves", || vstgt.log().contains("serving"));
    if vstgt.log().contains("without io_uring") {
        println!("no io_uring here");
        vstgt.stop();
        return None;
    }
    Some(vstgt)
}

fn attach(vstgt: &Vstgt, socket: usize, regions: &[(u64, u64)]) -> Guest {
    let mut guest = Guest::connect(vstgt.socket(socket), Ram::with_regions(regions));
    guest.negotiate();
    guest.start(LINUX_FEATURES, &[0, 1, 2], 128);
    guest.clear_attentions();
    guest
}

/// Writes from one place and reads into another.
fn check_between(guest: &mut Guest, seed: u64, from: u64, to: u64) {
    let data = pattern(seed, 4096);
    guest.ram.write(from, &data);
    guest.ram.write(to, &[0; 4096]);
    let out = guest.command(&rw10(0x2a, 64, 4096), &[Buffer::out(from, 4096)], &[]);
    let input = guest.command(&rw10(0x28, 64, 4096), &[], &[Buffer::input(to, 4096)]);
    assert!(out.good() && input.good(), "{out:?} {input:?}");
    assert!(guest.ram.read(to, 4096) == data, "from {from:#x} to {to:#x}");
}

#[test]
fn memory_is_held_while_it_is_the_guests() {
    let _alone = alone();
    let Some(vstgt) = serve("1G", None) else { return };
    assert_eq!(pinned(&vstgt), 0);
    let mut guest = attach(&vstgt, 0, &REGIONS);
    eventually("all is held", || pinned(&vstgt) == 3840);
    // The capability to lock memory is all that is left, if it was there.
    assert!([0, 1 << 14].contains(&u64::from_str_radix(&status(&vstgt, "CapEff:"), 16).unwrap()));
    guest.check_io(1);
    guest.remove_region(1);
    eventually("what is gone is let go of", || pinned(&vstgt) == 3328);
    guest.check_io(2);
    guest.add_region(1);
    eventually("all is held again", || pinned(&vstgt) == 3840);
    guest.check_io(3);
    let other = attach(&vstgt, 1, &REGIONS[1..]);
    eventually("the other's as well", || pinned(&vstgt) == 3840 + 768);
    drop(guest);
    eventually("one is gone", || pinned(&vstgt) == 768);
    drop(other);
    eventually("all are gone", || pinned(&vstgt) == 0);
    vstgt.stop();
}

/// A guest that stops its rings and starts them again.
#[test]
fn a_guest_that_starts_again_has_its_memory_held() {
    let _alone = alone();
    let Some(vstgt) = serve("1G", None) else { return };
    let mut guest = attach(&vstgt, 0, &REGIONS);
    eventually("all is held", || pinned(&vstgt) == 3840);
    let bases = guest.stop();
    guest.set_table();
    guest.go_on(&bases);
    guest.check_io(1);
    eventually("all is held", || pinned(&vstgt) == 3840);
    drop(guest);
    eventually("all is gone", || pinned(&vstgt) == 0);
    vstgt.stop();
}

#[test]
fn no_more_is_held_than_was_asked_for() {
    let _alone = alone();
    let Some(vstgt) = serve("3500K", None) else { return };
    let mut guest = attach(&vstgt, 0, &REGIONS);
    eventually("the first region is held", || pinned(&vstgt) == 3072);
    eventually("a word about it", || vstgt.log().contains("428 KiB are left of --register-memory"));
    guest.check_io(1);
    assert_eq!(pinned(&vstgt), 3072);
    let mut other = attach(&vstgt, 1, &REGIONS[2..]);
    eventually("what is left is for another", || pinned(&vstgt) == 3072 + 256);
    other.check_io(2);
    drop((guest, other));
    eventually("all are gone", || pinned(&vstgt) == 0);
    vstgt.stop();
}

#[test]
fn no_more_is_held_than_may_be_locked() {
    let _alone = alone();
    let Some(vstgt) = serve("1G", Some(2 * MIB)) else { return };
    let mut guest = attach(&vstgt, 0, &REGIONS);
    eventually("a word about it", || vstgt.log().contains("the limit of locked memory"));
    assert!(pinned(&vstgt) <= 2048, "{} KiB", pinned(&vstgt));
    guest.check_io(1);
    drop(guest);
    vstgt.stop();
}

/// And takes away what lifts the limit, from who has it.
fn lock_no_more_than(bytes: u64) {
    const CAP_IPC_LOCK: libc::c_ulong = 14;
    let limit = libc::rlimit { rlim_cur: bytes, rlim_max: bytes };
    // SAFETY: a whole structure is read, and numbers. Of the calls one or the other may be refused, and is not needed then.
    unsafe {
        libc::setrlimit(libc::RLIMIT_MEMLOCK, &limit);
        libc::prctl(libc::PR_CAPBSET_DROP, CAP_IPC_LOCK, 0, 0, 0);
    }
}

/// Regions come and go, again and again, before the last ones are held, and nothing is read from where it is not or written where it should not be.
#[test]
fn memory_that_changes_all_the_time() {
    let _alone = alone();
    // Just enough: what comes again has to wait until what it was before is let go of.
    let Some(vstgt) = serve("7680K", None) else { return };
    let io = VerifiedIo::start(attach(&vstgt, 1, &REGIONS));
    let mut guest = attach(&vstgt, 0, &REGIONS);
    let buffers = [1, 2].map(|region| guest.ram.alloc_in(region, 4096));
    for round in 0..200 {
        guest.remove_region(1);
        guest.remove_region(2);
        if round % 3 == 0 {
            guest.check_io(round);
        }
        guest.add_region(1);
        guest.add_region(2);
        check_between(&mut guest, round, buffers[(round % 2) as usize], buffers[1 - (round % 2) as usize]);
    }
    eventually("all is held", || pinned(&vstgt) == 2 * 3840);
    io.assert_goes_on();
    drop((guest, io.finish()));
    eventually("all are gone", || pinned(&vstgt) == 0);
    vstgt.stop();
}
