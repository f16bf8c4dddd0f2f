//! Images that fail, hang, shrink and are replaced, under the real `vstgt`: what its guests see, and that nobody else sees anything. The table in
//! `docs/faults.md` names these tests.
//!
//! Failures on command come from a FUSE file system (`faulty`). Where none can be mounted those tests say so and are left out; what an image's
//! error means is shown without it by the unit tests of `device_server::outcome` and `backing`, and hanging by `held_io.rs`.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, missing_docs, reason = "test code")]

mod drive;
mod faulty;
mod frontend;

use std::fs::{self, File};
use std::time::{Duration, Instant};

use drive::*;
use faulty::{Faulty, Kind, Then};
use frontend::guest::{A_MOMENT, LINUX_FEATURES, lun};
use frontend::process::IMAGE_SIZE;
use frontend::{Guest, Ram, Response, Vstgt, eventually};

const MEDIUM_ERROR: u8 = 3;
const HARDWARE_ERROR: u8 = 4;
const DATA_PROTECT: u8 = 7;
const READ_ERROR: (u8, u8, u8) = (MEDIUM_ERROR, 0x11, 0x00);
const WRITE_ERROR: (u8, u8, u8) = (MEDIUM_ERROR, 0x0c, 0x02);
const NO_SPACE: (u8, u8, u8) = (DATA_PROTECT, 0x27, 0x07);
const SYNC_FAILED: (u8, u8, u8) = (HARDWARE_ERROR, 0x44, 0x00);

/// Nothing that is well takes longer, on a machine that has other things to do.
const QUICK: Duration = Duration::from_secs(5);

fn dir() -> tempfile::TempDir {
    let dir = tempfile::tempdir().unwrap();
    File::create(dir.path().join("disk.img")).unwrap().set_len(IMAGE_SIZE).unwrap();
    dir
}

/// LUN 0 is a file that is well; LUN n is file n - 1 of the other file system.
fn serve(faulty: &Faulty, files: usize, sockets: usize, more: &[&str]) -> Vstgt {
    Vstgt::start_in(dir(), sockets, |command| {
        for file in 0..files {
            command.arg("--lun").arg(format!("file={},lun={}", faulty.path(file).display(), file + 1));
        }
        command.args(more);
    })
}

/// The ways in which image I/O is done.
const ENGINES: [&[&str]; 2] = [&["--engine", "auto"], &["--engine", "threads"]];

/// A guest with two request queues and no unit attentions of these units.
fn attach(vstgt: &Vstgt, socket: usize, units: u16) -> Driver {
    let mut guest = Guest::over(frontend::guest::connect(vstgt.socket(socket)), Ram::new(256 << 20));
    guest.negotiate();
    guest.start(LINUX_FEATURES, &[0, 1, 2, 3], 256);
    guest.clear_attentions();
    let mut driver = Driver::new(guest);
    for unit in 1..=units {
        settle(&mut driver, to(unit));
    }
    driver
}

fn settle(driver: &mut Driver, to: To) {
    for _ in 0..4 {
        let sent = driver.command(to, &[0; 6]);
        if driver.wait(&sent).good() {
            return;
        }
    }
    panic!("unit attentions do not end");
}

fn to(unit: u16) -> To {
    To::ring(2).lun(lun(0, unit))
}

/// The INFORMATION field, if it is valid (fixed format).
fn information(response: &Response) -> Option<u32> {
    let valid = response.sense[0] & 0x80 != 0;
    valid.then(|| u32::from_be_bytes(response.sense[3..7].try_into().unwrap()))
}

fn read(driver: &mut Driver, unit: u16, lba: u32, len: u32) -> Response {
    let sent = driver.read(to(unit), lba, len);
    driver.wait(&sent)
}

fn write(driver: &mut Driver, unit: u16, lba: u32, data: &[u8]) -> Response {
    let sent = driver.write(to(unit), lba, data);
    driver.wait(&sent)
}

/// WRITE(10) with FUA.
fn durable_write(driver: &mut Driver, to: To, lba: u32, data: &[u8]) -> Sent {
    let at = driver.guest.ram.alloc(data.len() as u64);
    driver.guest.ram.write(at, data);
    let mut cdb = frontend::guest::rw10(0x2a, lba, data.len());
    cdb[1] = 0x08;
    driver.out(to, &cdb, &[frontend::Buffer::out(at, data.len() as u32)])
}

fn flush(driver: &mut Driver, unit: u16) -> Response {
    let sent = driver.flush(to(unit));
    driver.wait(&sent)
}

/// The unit beside does what it should, at once.
fn assert_well(driver: &mut Driver, unit: u16) {
    let begun = Instant::now();
    assert!(write(driver, unit, 77, &[9; 8192]).good());
    assert!(flush(driver, unit).good());
    let sent = driver.read(to(unit), 77, 8192);
    assert_eq!(driver.wait_good(&sent), [9; 8192]);
    assert!(begun.elapsed() < QUICK, "{:?}", begun.elapsed());
}

/// EIO somewhere in a long read: MEDIUM ERROR with the first block that cannot be read, whether the kernel says so or it has to be found out.
#[test]
fn a_failed_read_names_the_first_bad_block() {
    for engine in ENGINES {
        let Some(faulty) = Faulty::mount(1) else { return };
        let vstgt = serve(&faulty, 1, 1, engine);
        let mut driver = attach(&vstgt, 0, 1);
        for (bad, then) in [(96, Then::Fail(libc::EIO)), (96, Then::FailWhole(libc::EIO)), (0, Then::FailWhole(libc::EIO))] {
            let bytes = bad * 512..bad * 512 + 4096;
            faulty.fault(0, Kind::Read, bytes, then);
            let answer = read(&mut driver, 1, 0, 65536);
            assert_eq!(answer.sense_code(), Some(READ_ERROR), "{engine:?} {then:?}");
            assert_eq!(information(&answer), Some(bad as u32), "{engine:?} {then:?}");
            // One block of it, and those behind it.
            assert_eq!(information(&read(&mut driver, 1, bad as u32, 512)), Some(bad as u32));
            assert!(read(&mut driver, 1, bad as u32 + 8, 4096).good());
            faulty.heal();
            let sent = driver.read(to(1), 0, 65536);
            assert_eq!(driver.wait_good(&sent), [1; 65536]);
        }
        assert_well(&mut driver, 0);
        vstgt.stop();
    }
}

/// EIO and ENOSPC somewhere in a long write: the first block that is not written.
#[test]
fn a_failed_write_names_the_first_block_that_is_not_written() {
    for engine in ENGINES {
        let Some(faulty) = Faulty::mount(1) else { return };
        let vstgt = serve(&faulty, 1, 1, engine);
        let mut driver = attach(&vstgt, 0, 1);
        for (errno, code) in [(libc::EIO, WRITE_ERROR), (libc::ENOSPC, NO_SPACE), (libc::EDQUOT, NO_SPACE)] {
            faulty.fault(0, Kind::Write, 96 * 512..SIZE, Then::Fail(errno));
            let answer = write(&mut driver, 1, 0, &[7; 65536]);
            assert_eq!(answer.sense_code(), Some(code), "{engine:?} {errno}");
            assert_eq!(information(&answer), Some(96), "{engine:?} {errno}");
            assert!(write(&mut driver, 1, 0, &[8; 4096]).good());
            assert!(flush(&mut driver, 1).good(), "what could not be written was said so, and is not lost");
            faulty.heal();
            assert!(write(&mut driver, 1, 0, &[9; 65536]).good());
            assert_eq!(faulty.bytes(0, 0..65536), [9; 65536]);
        }
        assert_well(&mut driver, 0);
        vstgt.stop();
    }
}

const SIZE: u64 = faulty::SIZE;

/// A sync fails: from then on no flush and no write with FUA succeeds, though the disk is well again. Reads and writes do.
#[test]
fn nothing_is_durable_after_a_failed_flush() {
    for engine in ENGINES {
        let Some(faulty) = Faulty::mount(2) else { return };
        let vstgt = serve(&faulty, 2, 2, engine);
        let mut driver = attach(&vstgt, 0, 2);
        // A unit of two nexuses.
        let mut other = attach(&vstgt, 1, 2);
        assert!(write(&mut driver, 1, 0, &[7; 4096]).good());
        faulty.fault_all(0, Kind::Sync, Then::Fail(libc::EIO));
        assert_eq!(flush(&mut driver, 1).sense_code(), Some(SYNC_FAILED), "{engine:?}");
        faulty.heal();
        for driver in [&mut driver, &mut other] {
            assert_eq!(flush(driver, 1).sense_code(), Some(SYNC_FAILED), "{engine:?}");
            let sent = durable_write(driver, to(1), 0, &[8; 512]);
            assert_eq!(driver.wait(&sent).sense_code(), Some(WRITE_ERROR), "{engine:?}");
            assert!(write(driver, 1, 0, &[8; 4096]).good());
            assert!(read(driver, 1, 0, 4096).good());
            assert_well(driver, 2);
            assert_well(driver, 0);
        }
        assert!(vstgt.log().contains("data may be lost"), "{}", vstgt.log());
        vstgt.stop();
    }
}

/// The same when it is a write with FUA whose sync fails.
#[test]
fn nothing_is_durable_after_a_failed_write_with_fua() {
    for engine in ENGINES {
        let Some(faulty) = Faulty::mount(1) else { return };
        let vstgt = serve(&faulty, 1, 1, engine);
        let mut driver = attach(&vstgt, 0, 1);
        faulty.fault_all(0, Kind::DurableWrite, Then::Fail(libc::EIO));
        let sent = durable_write(&mut driver, to(1), 0, &[8; 512]);
        assert_eq!(driver.wait(&sent).sense_code(), Some(WRITE_ERROR), "{engine:?}");
        faulty.heal();
        assert_eq!(flush(&mut driver, 1).sense_code(), Some(SYNC_FAILED), "{engine:?}");
        assert_well(&mut driver, 0);
        vstgt.stop();
    }
}

/// Two flushes are with the disk at one moment, on two reactors; the kernel tells one of them of the failure, and which one is chance. Neither is told GOOD.
#[test]
fn of_two_flushes_at_one_moment_neither_hides_the_other_ones_failure() {
    for engine in ENGINES {
        let Some(faulty) = Faulty::mount(1) else { return };
        let vstgt = serve(&faulty, 1, 1, &[engine, &["--reactors", "2"]].concat());
        let mut driver = attach(&vstgt, 0, 1);
        faulty.fault_all(0, Kind::Sync, Then::Hold);
        let flushes = [2, 3].map(|ring| driver.flush(To { ring, ..to(1) }));
        faulty.wait_held(2);
        // The one that came later ends first, and well.
        faulty.end_youngest(None);
        driver.assert_held(&flushes);
        faulty.end_oldest(Some(libc::EIO));
        for sent in &flushes {
            assert_eq!(driver.wait(sent).sense_code(), Some(SYNC_FAILED), "{engine:?}");
        }
        vstgt.stop();
    }
}

/// The same of a write with FUA beside a flush; and if neither fails both are well.
#[test]
fn a_write_with_fua_waits_for_the_flush_beside_it() {
    for fails in [false, true] {
        let Some(faulty) = Faulty::mount(1) else { return };
        let vstgt = serve(&faulty, 1, 1, &["--reactors", "2"]);
        let mut driver = attach(&vstgt, 0, 1);
        faulty.fault_all(0, Kind::Sync, Then::Hold);
        let flush = driver.flush(to(1));
        faulty.wait_held(1);
        let sent = durable_write(&mut driver, To { ring: 3, ..to(1) }, 0, &[8; 512]);
        eventually("the write is done", || faulty.bytes(0, 0..512) == [8; 512]);
        driver.assert_held(&[flush, sent]);
        faulty.end_oldest(fails.then_some(libc::EIO));
        let (flush, write) = (driver.wait(&flush), driver.wait(&sent));
        match fails {
            false => assert!(flush.good() && write.good(), "{flush:?} {write:?}"),
            true => {
                assert_eq!(flush.sense_code(), Some(SYNC_FAILED));
                assert_eq!(write.sense_code(), Some(WRITE_ERROR));
            }
        }
        faulty.release();
        vstgt.stop();
    }
}

/// Several files hang with all that their guest can ask of them: everybody else's go on, on the same reactor.
#[test]
fn hung_files_do_not_hold_up_others() {
    const HUNG: u16 = 4;
    for engine in ENGINES {
        let Some(faulty) = Faulty::mount(usize::from(HUNG) + 1) else { return };
        let vstgt = serve(&faulty, usize::from(HUNG) + 1, 2, &[engine, &["--reactors", "1"]].concat());
        let mut driver = attach(&vstgt, 0, HUNG + 1);
        let mut other = attach(&vstgt, 1, HUNG + 1);
        for file in 0..usize::from(HUNG) {
            for kind in [Kind::Read, Kind::Write, Kind::Sync] {
                faulty.fault_all(file, kind, Then::Hold);
            }
        }
        let mut hung = Vec::new();
        for round in 0..16 {
            for unit in 1..=HUNG {
                hung.push(match round % 4 {
                    0 => driver.write(to(unit), round * 16, &[5; 4096]),
                    1 => driver.flush(to(unit)),
                    _ => driver.read(to(unit), round * 16, 4096),
                });
            }
        }
        faulty.wait_held(usize::from(HUNG) * 8);
        for driver in [&mut driver, &mut other] {
            assert_well(driver, 0);
            assert_well(driver, HUNG + 1);
        }
        driver.assert_held(&hung);
        faulty.release();
        for sent in &hung {
            assert!(driver.wait(sent).good());
        }
        vstgt.stop();
    }
}

/// A command of a hung disk cannot be aborted, and that is what is said, in bounded time; what becomes of the command then is told when it
/// is known. One that has not begun is aborted.
#[test]
fn aborts_of_a_hung_disk_are_answered_truthfully() {
    for engine in ENGINES {
        let Some(faulty) = Faulty::mount(1) else { return };
        let vstgt = serve(&faulty, 1, 1, engine);
        let mut driver = attach(&vstgt, 0, 1);
        faulty.fault_all(0, Kind::Write, Then::Hold);
        let hung = driver.write(to(1).id(1), 8, &[5; 4096]);
        faulty.wait_held(1);
        let begun = Instant::now();
        let function = driver.function(ABORT_TASK, lun(0, 1), 1);
        assert_eq!(driver.wait_function(&function), FUNCTION_REJECTED, "{engine:?}");
        assert!(begun.elapsed() < Duration::from_secs(15), "{:?}", begun.elapsed());
        driver.assert_held(&[hung]);
        assert_well(&mut driver, 0);
        faulty.release();
        let answer = driver.wait(&hung);
        assert!(answer.response == OK && answer.good() || answer.response == ABORTED, "{answer:?}");
        if answer.response == OK {
            assert_eq!(faulty.bytes(0, 8 * 512..8 * 512 + 4096), [5; 4096]);
        }
        vstgt.stop();
    }
}

/// An answer after half a minute is an answer.
#[test]
fn a_disk_that_answers_after_30_seconds() {
    let Some(faulty) = Faulty::mount(1) else { return };
    let vstgt = serve(&faulty, 1, 1, &[]);
    let mut driver = attach(&vstgt, 0, 1);
    let late = Duration::from_secs(29);
    faulty.fault_all(0, Kind::Read, Then::Delay(late));
    faulty.fault_all(0, Kind::Sync, Then::Delay(late));
    let begun = Instant::now();
    let (read, flush) = (driver.read(to(1), 8, 4096), driver.flush(to(1)));
    while begun.elapsed() < late - QUICK {
        assert_well(&mut driver, 0);
        std::thread::sleep(A_MOMENT);
        driver.poll();
        assert!(!driver.is_done(&read) && !driver.is_done(&flush));
    }
    assert_eq!(driver.wait_good(&read), [1; 4096]);
    assert!(driver.wait(&flush).good());
    assert!(begun.elapsed() >= late);
    faulty.heal();
    assert!(flush_of(&mut driver).good());
    vstgt.stop();
}

fn flush_of(driver: &mut Driver) -> Response {
    flush(driver, 1)
}

/// Killed while the disk hangs: the process goes, and the next one is not kept from starting.
#[test]
fn a_process_with_a_hung_disk_can_be_killed() {
    let Some(faulty) = Faulty::mount(1) else { return };
    let vstgt = serve(&faulty, 1, 1, &[]);
    let mut driver = attach(&vstgt, 0, 1);
    for kind in [Kind::Read, Kind::Write, Kind::Sync] {
        faulty.fault_all(0, kind, Then::Hold);
    }
    for at in 0..16 {
        match at % 3 {
            0 => driver.write(to(1), at * 16, &[5; 4096]),
            1 => driver.flush(to(1)),
            _ => driver.read(to(1), at * 16, 4096),
        };
    }
    faulty.wait_held(8);
    let begun = Instant::now();
    drop(vstgt.kill());
    assert!(begun.elapsed() < QUICK, "{:?}", begun.elapsed());
    faulty.release();
    let vstgt = serve(&faulty, 1, 1, &[]);
    let mut driver = attach(&vstgt, 0, 1);
    assert_well(&mut driver, 1);
    vstgt.stop();
}

/// SIGTERM while the disk hangs: the process says that it does not wait for it, and ends in bounded time.
#[test]
fn a_process_with_a_hung_disk_can_be_ended() {
    let Some(faulty) = Faulty::mount(1) else { return };
    let vstgt = serve(&faulty, 1, 1, &[]);
    let mut driver = attach(&vstgt, 0, 1);
    faulty.fault_all(0, Kind::Read, Then::Hold);
    let _hung = driver.read(to(1), 0, 4096);
    faulty.wait_held(1);
    vstgt.signal(libc::SIGTERM);
    let begun = Instant::now();
    let (status, dir) = vstgt.wait();
    assert!(!status.success() && begun.elapsed() < Duration::from_secs(20), "{status} {:?}", begun.elapsed());
    let log = fs::read_to_string(dir.path().join("log")).unwrap();
    assert!(log.contains("a disk that hangs?"), "{log}");
}

/// The image becomes shorter under its guests: what is not there any more cannot be read, and is named; it does not read as zeros.
#[test]
fn a_truncated_image_fails_from_where_it_ends() {
    for engine in ENGINES {
        let vstgt = Vstgt::start_with(2, |command| {
            command.args(engine);
        });
        let (mut driver, mut other) = (attach(&vstgt, 0, 0), attach(&vstgt, 1, 0));
        assert!(write(&mut driver, 0, 2040, &[6; 16384]).good());
        File::options().write(true).open(vstgt.image()).unwrap().set_len(1 << 20).unwrap();
        for driver in [&mut driver, &mut other] {
            let answer = read(driver, 0, 2040, 16384);
            assert_eq!(answer.sense_code(), Some(READ_ERROR), "{engine:?}");
            assert_eq!(information(&answer), Some(2048), "{engine:?}");
            assert!(read(driver, 0, 2040, 4096).good());
        }
        // Somebody asks for the capacity, and everybody is told.
        let sent = driver.command_in(to(0), &[0x25, 0, 0, 0, 0, 0, 0, 0, 0, 0], 8);
        assert_eq!(driver.wait_good(&sent)[..4], 2047_u32.to_be_bytes());
        let sent = other.command(to(0), &[0; 6]);
        assert_eq!(other.wait(&sent).sense_code(), Some((6, 0x2a, 0x09)));
        assert_eq!(read(&mut driver, 0, 2048, 512).sense_code(), Some((5, 0x21, 0x00)));
        vstgt.stop();
    }
}

/// Another file is moved over the image: its guests go on with what they have, which nobody else sees any more, until the process is started again.
/// Whoever asks it to look again is told so.
#[test]
fn a_replaced_image_is_kept_until_the_restart() {
    let vstgt = Vstgt::start(1);
    let mut driver = attach(&vstgt, 0, 0);
    assert!(write(&mut driver, 0, 0, &[6; 4096]).good());
    let new = vstgt.dir.path().join("new.img");
    File::create(&new).unwrap().set_len(IMAGE_SIZE).unwrap();
    fs::rename(&new, vstgt.image()).unwrap();
    let sent = driver.read(to(0), 0, 4096);
    assert_eq!(driver.wait_good(&sent), [6; 4096]);
    assert!(write(&mut driver, 0, 0, &[7; 4096]).good() && flush(&mut driver, 0).good());
    vstgt.signal(libc::SIGUSR1);
    let said = "another file has its name now";
    eventually("it says that the image was replaced", || vstgt.log().contains(said));
    let vstgt = Vstgt::start_in(vstgt.stop(), 1, |_| {});
    let mut driver = attach(&vstgt, 0, 0);
    let sent = driver.read(to(0), 0, 4096);
    assert_eq!(driver.wait_good(&sent), [0; 4096]);
    vstgt.stop();
}
