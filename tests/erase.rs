//! SANITIZE and FORMAT UNIT on real files: what is left of the data, and what a process that is stopped or killed leaves to the next one.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, missing_docs, reason = "test code")]

mod frontend;

use std::fs;
use std::os::unix::fs::MetadataExt;
use std::path::Path;
use std::time::{Duration, Instant};

use tempfile::TempDir;

use frontend::guest::LINUX_FEATURES;
use frontend::{Buffer, Guest, Ram, Response, Vstgt, eventually};

const SANITIZE_IN_PROGRESS: (u8, u8, u8) = (2, 0x04, 0x1b);
const BLOCK: usize = 512;
const BLOCKS: u32 = 1 << 18;
const SIZE: u64 = BLOCKS as u64 * BLOCK as u64;
const LAST: u32 = BLOCKS - 8;

fn image(dir: &Path) -> std::path::PathBuf {
    dir.join("disk.img")
}

/// A process on an image whose bytes are all `byte`, or a hole.
fn start(dir: TempDir) -> Vstgt {
    Vstgt::start_in(dir, 1, |_| {})
}

fn filled(byte: u8) -> TempDir {
    let dir = tempfile::tempdir().unwrap();
    fs::write(image(dir.path()), vec![byte; SIZE as usize]).unwrap();
    dir
}

fn guest(vstgt: &Vstgt) -> Guest {
    let mut guest = Guest::connect(vstgt.socket(0), Ram::new(16 << 20));
    guest.negotiate();
    guest.start(LINUX_FEATURES, &[0, 1, 2], 128);
    guest
}

fn sanitize(byte1: u8, length: u16) -> [u8; 10] {
    let [high, low] = length.to_be_bytes();
    [0x48, byte1, 0, 0, 0, 0, 0, high, low, 0]
}

/// SANITIZE, OVERWRITE: byte 1 of the CDB, byte 0 of the list, the pattern.
fn overwrite(guest: &mut Guest, byte1: u8, byte0: u8, pattern: &[u8]) -> Response {
    let list = [&[byte0, 0, 0, pattern.len() as u8], pattern].concat();
    let at = guest.ram.alloc(list.len() as u64);
    guest.ram.write(at, &list);
    guest.command(&sanitize(byte1, list.len() as u16), &[Buffer::out(at, list.len() as u32)], &[])
}

/// Attentions may come first.
fn wait_until_ready(guest: &mut Guest) {
    eventually("the unit becomes ready", || guest.test_unit_ready().good());
}

fn in_progress(guest: &mut Guest) -> bool {
    let mut answer = guest.test_unit_ready();
    while answer.sense_code().is_some_and(|code| code.0 == 6) {
        answer = guest.test_unit_ready();
    }
    answer.sense_code() == Some(SANITIZE_IN_PROGRESS)
}

/// Killed again and again before it is through: no process shows anything of the data before it is done, and none erases what is
/// written after.
#[test]
fn killed_on_its_way() {
    let mut vstgt = start(filled(0x11));
    let mut a = guest(&vstgt);
    a.clear_attentions();
    // With 31 passes over 128 MiB, each flushed, it takes a while.
    assert!(overwrite(&mut a, 0x81, 0x9f, &[0xde, 0xad, 0xbe]).good());
    for _ in 0..3 {
        assert!(in_progress(&mut a), "it runs");
        vstgt = start(vstgt.kill());
        a = guest(&vstgt);
    }
    assert!(in_progress(&mut a), "it goes on");
    let read = a.ram.alloc(4096);
    let refused = a.command(&frontend::guest::rw10(0x28, 0, 4096), &[], &[Buffer::input(read, 4096)]);
    assert_eq!(refused.sense_code(), Some(SANITIZE_IN_PROGRESS));
    wait_until_ready(&mut a);
    let block: Vec<u8> = [0xde, 0xad, 0xbe].into_iter().cycle().take(BLOCK).collect();
    for lba in [0, 1000, LAST] {
        assert_eq!(a.read_blocks(lba, 8 * BLOCK), block.repeat(8));
    }
    assert!(fs::read(image(vstgt.dir.path())).unwrap().chunks(BLOCK).all(|b| b == block));
    a.write_blocks(LAST, &[0x42; 8 * BLOCK]);
    let vstgt = start(vstgt.kill());
    let mut a = guest(&vstgt);
    wait_until_ready(&mut a);
    assert_eq!(a.read_blocks(LAST, 8 * BLOCK), vec![0x42; 8 * BLOCK]);
    assert_eq!(a.read_blocks(0, BLOCK), block);
    vstgt.stop();
}

/// SIGTERM does not wait for it, whether its command does or not; the next process goes on.
#[test]
fn stopped_on_its_way() {
    for immed in [0x80, 0x00] {
        let vstgt = start(filled(0x11));
        let mut a = guest(&vstgt);
        a.clear_attentions();
        let list = [0x1f, 0, 0, 1, 0x77];
        let at = a.ram.alloc(5);
        a.ram.write(at, &list);
        a.submit(frontend::guest::REQUESTS, &sanitize(0x01 | immed, 5), &[Buffer::out(at, 5)], &[]);
        if immed != 0 {
            a.queue(frontend::guest::REQUESTS).wait_used(frontend::BOUND).expect("answered at once");
        } else {
            std::thread::sleep(Duration::from_millis(200));
        }
        let begun = Instant::now();
        let vstgt = start(vstgt.stop());
        assert!(begun.elapsed() < Duration::from_secs(8), "{:?}", begun.elapsed());
        drop(a);
        let mut a = guest(&vstgt);
        assert!(in_progress(&mut a), "it goes on");
        wait_until_ready(&mut a);
        assert!(fs::read(image(vstgt.dir.path())).unwrap().iter().all(|byte| *byte == 0x77));
        vstgt.stop();
    }
}

/// The command that waits is answered when it is done.
#[test]
fn answered_when_it_is_done() {
    let vstgt = start(filled(0x11));
    let mut a = guest(&vstgt);
    a.clear_attentions();
    assert!(overwrite(&mut a, 0x01, 0x01, &[0x5a]).good());
    assert!(a.test_unit_ready().good());
    assert_eq!(a.read_blocks(LAST, BLOCK), vec![0x5a; BLOCK]);
    assert!(fs::read(image(vstgt.dir.path())).unwrap().iter().all(|byte| *byte == 0x5a));
    vstgt.stop();
}

/// What is deallocated takes no space any more, and GET LBA STATUS says so in one descriptor.
#[test]
fn block_erase_and_format_give_space_back() {
    for cdb in [&sanitize(0x02, 0)[..], &[0x04, 0, 0, 0, 0, 0]] {
        let vstgt = start(filled(0x11));
        let mut a = guest(&vstgt);
        a.clear_attentions();
        assert!(a.command(cdb, &[], &[]).good());
        assert_eq!(a.read_blocks(0, BLOCK), vec![0; BLOCK]);
        assert_eq!(a.read_blocks(LAST, BLOCK), vec![0; BLOCK]);
        let file = fs::metadata(image(vstgt.dir.path())).unwrap();
        assert_eq!((file.len(), file.blocks()), (SIZE, 0));
        let at = a.ram.alloc(64);
        let status = a.command(&[0x9e, 0x12, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 64, 0, 0], &[], &[Buffer::input(at, 64)]);
        assert!(status.good());
        let blocks = BLOCKS.to_be_bytes();
        assert_eq!(
            a.ram.read(at, 24),
            [&[0, 0, 0, 20, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0][..], &blocks, &[1, 0, 0, 0]].concat()
        );
        vstgt.stop();
    }
}

/// Blocks of 4096 bytes, fully provisioned; and a unit that is read-only.
#[test]
fn other_units() {
    let dir = filled(0x11);
    let disk = image(dir.path());
    fs::rename(&disk, dir.path().join("full.img")).unwrap();
    fs::write(&disk, vec![0x11; 1 << 20]).unwrap();
    let (full, read_only) = (dir.path().join("full.img"), dir.path().join("ro.img"));
    fs::write(&read_only, vec![0x11; 1 << 20]).unwrap();
    let vstgt = Vstgt::start_in(dir, 1, |command| {
        command.arg("--lun").arg(format!("file={},lun=1,block-size=4096,provisioning=full", full.display()));
        command.arg("--lun").arg(format!("file={},lun=2,read-only=on", read_only.display()));
    });
    let mut a = guest(&vstgt);
    a.clear_attentions();
    let mut on = |lun: u16, cdb: &[u8]| {
        let (header, response) = (a.ram.alloc(64), a.ram.alloc(128));
        let mut command = Guest::header(frontend::guest::lun(0, lun), cdb);
        command[8] = lun as u8;
        a.ram.write(header, &command);
        let queue = a.queue(frontend::guest::REQUESTS);
        queue.push(&[Buffer::out(header, frontend::guest::HEADER), Buffer::input(response, frontend::guest::RESPONSE)]);
        queue.kick();
        let (_, len) = a.queue(frontend::guest::REQUESTS).wait_used(frontend::BOUND).expect("an answer");
        a.parse_response(response, len)
    };
    for lun in [1, 2] {
        assert_eq!(on(lun, &[0; 6]).sense_code(), Some((6, 0x29, 0)));
    }
    assert_eq!(on(1, &sanitize(0x02, 0)).sense_code(), Some((5, 0x24, 0)), "nothing is unmapped there");
    assert!(on(1, &[0x04, 0, 0, 0, 0, 0]).good());
    assert_eq!(on(2, &[0x04, 0, 0, 0, 0, 0]).sense_code(), Some((7, 0x27, 0)));
    assert_eq!(on(2, &sanitize(0x02, 0)).sense_code(), Some((5, 0x24, 0)), "a read-only image cannot be unmapped");
    assert!(fs::read(&full).unwrap().iter().all(|byte| *byte == 0));
    assert!(fs::read(&read_only).unwrap().iter().all(|byte| *byte == 0x11));
    vstgt.stop();
}
