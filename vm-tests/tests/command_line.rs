//! What vstgt's command line accepts and refuses, and how it ends. No guest is needed.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, reason = "test code")]

use std::fs;
use std::os::unix::net::{UnixListener, UnixStream};
use std::path::PathBuf;
use std::time::Duration;
use vm_tests::json::Value;
use vm_tests::vstgt::Config;
use vm_tests::workdir::WorkDir;
use vm_tests::{Result, paths, tools};

struct Place {
    dir: WorkDir,
    image: PathBuf,
    socket: PathBuf,
}

impl Place {
    fn new() -> Result<Place> {
        let dir = WorkDir::new("cli")?;
        let image = dir.sparse("disk.img", 1 << 20)?;
        let socket = dir.path("vm.sock");
        Ok(Place { dir, image, socket })
    }

    /// vstgt refuses `config` with one line that has all of `words`, and leaves no socket behind.
    #[track_caller]
    fn refuses(&self, config: &Config, words: &[&str]) {
        let said = config.refused(&self.dir.path("vstgt.log")).unwrap();
        let lines: Vec<&str> = said.lines().collect();
        assert_eq!(lines.len(), 1, "not one line:\n{said}");
        for word in words {
            assert!(said.to_lowercase().contains(&word.to_lowercase()), "no \"{word}\" in: {said}");
        }
    }

    fn one_socket(&self) -> Config {
        Config::new().socket(&self.socket)
    }
}

#[test]
fn images_that_cannot_be_served_are_refused() -> Result<()> {
    let place = Place::new()?;
    let missing = place.dir.path("missing.img");
    place.refuses(&place.one_socket().lun(&missing, ""), &["missing.img", "no such image"]);
    let plain = place.one_socket().arg("--blk-file").arg(&missing);
    place.refuses(&plain, &["missing.img", "no such image"]);
    let odd = place.dir.sparse("odd.img", (1 << 20) + 100)?;
    place.refuses(&place.one_socket().lun(&odd, ""), &["odd.img", "512"]);
    let half = place.dir.sparse("half.img", (1 << 20) + 512)?;
    place.refuses(&place.one_socket().lun(&half, ",block-size=4096"), &["half.img", "4096"]);
    let folder = place.dir.path("folder");
    fs::create_dir(&folder).unwrap();
    place.refuses(&place.one_socket().lun(&folder, ""), &["folder"]);
    assert!(!place.socket.exists(), "a refused start left its socket");
    place.dir.finish();
    Ok(())
}

#[test]
fn options_that_contradict_are_refused() -> Result<()> {
    let place = Place::new()?;
    let other = place.dir.sparse("other.img", 1 << 20)?;
    let one = || place.one_socket().lun(&place.image, "");
    place.refuses(&one().lun(&other, ",lun=0"), &["lun", "0"]);
    place.refuses(&one().socket(&place.socket), &["vm.sock"]);
    let twice = Config::new().lun(&place.image, "").socket_with(&place.socket, ",initiator=a");
    place.refuses(&twice.socket_with(&place.dir.path("b.sock"), ",initiator=a"), &["initiator", "a"]);
    place.refuses(&place.one_socket(), &["disk"]);
    place.refuses(&Config::new().lun(&place.image, ""), &["socket"]);
    place.dir.finish();
    Ok(())
}

#[test]
fn values_that_make_no_sense_are_refused() -> Result<()> {
    let place = Place::new()?;
    for (properties, words) in [
        (",lun=banana", ["lun", "banana"]),
        (",lun=70000", ["lun", "70000"]),
        (",block-size=513", ["block-size", "513"]),
        (",read-only=perhaps", ["read-only", "perhaps"]),
        (",colour=blue", ["colour", "colour"]),
        (",lun=1,lun=2", ["lun", "lun"]),
    ] {
        place.refuses(&place.one_socket().lun(&place.image, properties), &words);
    }
    let valid = || place.one_socket().lun(&place.image, "");
    place.refuses(&valid().arg("--num-queues").arg("0"), &["num-queues"]);
    place.refuses(&valid().arg("--num-queues").arg("255"), &["num-queues"]);
    let closed = Config::new().lun(&place.image, "").arg("--fd").arg("99");
    place.refuses(&closed, &["descriptor", "99"]);
    let long = place.dir.path(&"x".repeat(120));
    place.refuses(&Config::new().socket(&long).lun(&place.image, ""), &["long"]);
    place.dir.finish();
    Ok(())
}

#[test]
fn words_it_does_not_know_are_named_first() -> Result<()> {
    let place = Place::new()?;
    let config = place.one_socket().lun(&place.image, "").arg("--no-such-option");
    let said = config.refused(&place.dir.path("vstgt.log"))?;
    // The usage follows, as with any program.
    let first = said.lines().next().unwrap_or_default();
    assert!(first.starts_with("error: ") && first.contains("--no-such-option"), "{said}");
    assert!(!place.socket.exists());
    place.dir.finish();
    Ok(())
}

#[test]
fn a_live_socket_is_respected_and_a_dead_one_taken_over() -> Result<()> {
    let place = Place::new()?;
    drop(UnixListener::bind(&place.socket).unwrap());
    assert!(place.socket.exists() && UnixStream::connect(&place.socket).is_err(), "not a dead socket");
    let first = place.one_socket().lun(&place.image, "").start(&place.dir.path("first.log"))?;
    let other = place.dir.sparse("other.img", 1 << 20)?;
    place.refuses(&place.one_socket().lun(&other, ""), &["vm.sock", "in use"]);
    assert!(UnixStream::connect(&place.socket).is_ok(), "the first lost its socket");
    first.terminate()?;
    place.dir.finish();
    Ok(())
}

#[test]
fn something_else_at_the_sockets_place_is_kept() -> Result<()> {
    let place = Place::new()?;
    fs::write(&place.socket, "precious").unwrap();
    place.refuses(&place.one_socket().lun(&place.image, ""), &["vm.sock"]);
    assert_eq!(fs::read_to_string(&place.socket).unwrap(), "precious");
    place.dir.finish();
    Ok(())
}

#[test]
fn sigterm_and_sigint_end_it_cleanly() -> Result<()> {
    for signal in [libc::SIGTERM, libc::SIGINT] {
        let place = Place::new()?;
        let config = place.one_socket().socket(&place.dir.path("second.sock"));
        let vstgt = config.arg("--blk-file").arg(&place.image).start(&place.dir.path("vstgt.log"))?;
        vstgt.end_by(signal)?;
        place.dir.finish();
    }
    Ok(())
}

#[test]
fn capabilities_are_printed_as_the_back_end_conventions_say() -> Result<()> {
    let vstgt = paths::vstgt_binary()?;
    let text = tools::run(&vstgt.to_string_lossy(), &["--print-capabilities"], Duration::from_secs(10))?;
    let capabilities = Value::parse(&text).expect("JSON");
    assert_eq!(capabilities.get("type").and_then(Value::text), Some("scsi"));
    Ok(())
}
