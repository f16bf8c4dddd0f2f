//! The image's locks over the life of real `vstgt` processes: killed under I/O and started again at once, one beside another, one image for
//! several units. What QEMU's programs say to these locks is in `vm-tests/tests/image_locking.rs`.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, missing_docs, reason = "test code")]

mod drive;
mod frontend;

use std::fs::{self, File};
use std::path::Path;
use std::time::{Duration, Instant};

use drive::*;
use frontend::guest::pattern;
use frontend::process::{IMAGE_SIZE, command_keeping};
use frontend::{Guest, Vstgt, eventually};
use vstgt::sys::file;

/// What a writable unit's image is locked with: consistent read and write are used, write is not shared.
const WRITABLE: [u64; 3] = [100, 101, 201];

/// The bytes, of those that matter, that are locked.
fn locked(image: &Path) -> Vec<u64> {
    let file = File::open(image).unwrap();
    let bytes = (100..108).chain(200..208);
    bytes.filter(|byte| file::locked_elsewhere(&file, &[*byte]).unwrap().is_some()).collect()
}

/// Killed while a queue full of reads and writes is with the kernel, and started again at once: the image is locked before the socket is there,
/// and nothing is left to be mended by hand.
#[test]
fn a_killed_process_is_followed_at_once() {
    let rounds = std::env::var("VSTGT_TEST_KILLS").map_or(50, |rounds| rounds.parse().unwrap());
    let mut vstgt = Vstgt::start(1);
    let mut longest = Duration::ZERO;
    for round in 0..rounds {
        assert_eq!(locked(&vstgt.image()), WRITABLE, "round {round}");
        let mut driver = Driver::new(Guest::attached(vstgt.socket(0)));
        let data = pattern(round, 65536);
        for at in 0..24 {
            match at % 3 {
                0 => drop(driver.read(To::ring(2), at * 128, 65536)),
                1 => drop(driver.flush(To::ring(2))),
                _ => drop(driver.write(To::ring(2), at * 128, &data)),
            };
        }
        vstgt.signal(9);
        let killed = Instant::now();
        let dir = vstgt.wait().1;
        vstgt = Vstgt::start_in(dir, 1, |_| {});
        longest = longest.max(killed.elapsed());
    }
    println!("{rounds} kills, at most {longest:?} from the kill to the next socket");
    vstgt.stop();
}

/// A second process for the image is refused after its patience, and says who has it; the first one goes on.
#[test]
fn two_processes_do_not_serve_one_image() {
    let mut vstgt = Vstgt::start(1);
    let mut guest = Guest::attached(vstgt.socket(0));
    let image = vstgt.image();
    let serve = |keys: &str| {
        let mut second = std::process::Command::new(env!("CARGO_BIN_EXE_vstgt"));
        second.arg("--lun").arg(format!("file={}{keys}", image.display())).args(["--state-dir", "none"]);
        second.arg("--socket-path").arg(vstgt.dir.path().join("z.sock")).arg("-v");
        second.stderr(std::process::Stdio::piped()).spawn().unwrap()
    };
    let begun = Instant::now();
    let refused = [serve(""), serve(",read-only=on"), serve(",locking=on")];
    for child in refused {
        let output = child.wait_with_output().unwrap();
        let said = String::from_utf8_lossy(&output.stderr);
        assert_eq!(output.status.code(), Some(1), "{said}");
        let who = format!("{}: in use: vstgt (process {}) writes it", image.display(), vstgt.pid());
        assert!(said.contains(&who), "{said}");
        assert_eq!(said.matches("has it locked; trying for 5s").count(), 1, "{said}");
    }
    assert!(begun.elapsed() >= Duration::from_secs(5));
    assert!(!vstgt.dir.path().join("z.sock").exists());
    assert_eq!(locked(&image), WRITABLE, "the refused ones left nothing behind");
    guest.check_io(1);
    vstgt.assert_alive();
    let _dir = vstgt.stop();
    assert_eq!(locked(&image), [0; 0]);
}

/// Two read-only units of one image, and two processes of them.
#[test]
fn readers_share_an_image() {
    let dir = tempfile::tempdir().unwrap();
    File::create(dir.path().join("disk.img")).unwrap().set_len(IMAGE_SIZE).unwrap();
    let image = dir.path().join("disk.img");
    let second = format!("file={},lun=1,read-only=on", image.display());
    let first = Vstgt::start_keeping(dir, Path::new("none"), 1, |command| {
        command.arg("--read-only").arg("--lun").arg(&second);
    });
    assert_eq!(locked(&image), [100, 201]);
    let mut other = command_keeping(first.dir.path(), Path::new("none"));
    other.arg("--read-only").arg("--socket-path").arg(first.dir.path().join("z.sock"));
    let mut other = other.spawn().unwrap();
    eventually("the other process serves", || first.dir.path().join("z.sock").exists());
    other.kill().unwrap();
    other.wait().unwrap();
    first.stop();
}

/// The old process is told to end when the new one is there already: the new one waits.
#[test]
fn a_successor_waits_for_its_predecessor() {
    let old = Vstgt::start(1);
    let image = old.image();
    let dir = old.dir.path().to_owned();
    let mut new = command_keeping(&dir, Path::new("none"));
    new.arg("--socket-path").arg(dir.join("b.sock"));
    let mut new = new.spawn().unwrap();
    eventually("the new one waits", || old.log().contains("has it locked; trying for 5s"));
    assert!(!dir.join("b.sock").exists());
    let dir = old.stop();
    eventually("the new one serves", || dir.path().join("b.sock").exists());
    assert_eq!(locked(&image), WRITABLE);
    let log = fs::read_to_string(dir.path().join("log")).unwrap();
    assert_eq!(log.matches("has it locked").count(), 1, "{log}");
    new.kill().unwrap();
    new.wait().unwrap();
}
