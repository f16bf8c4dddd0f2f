//! Files in a directory: what a process finds that comes after another, however that one ended.

use std::fs;
use std::os::unix::fs::{MetadataExt, PermissionsExt};
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use super::*;
use crate::lu::reservation::{Registration, ReservationState};
use crate::lu::{Attention, KeepError, Keeper, KeptNexus, KeptState, NexusId};
use crate::scsi::spc::ModeState;
use crate::sys::turns::Turns;

const NAA: u64 = 0x3000_0000_0000_0042;

struct Scratch(tempfile::TempDir);

impl Scratch {
    fn new() -> Scratch {
        Scratch(tempfile::tempdir().unwrap())
    }

    fn path(&self) -> PathBuf {
        self.0.path().join("a/b")
    }

    fn file(&self) -> PathBuf {
        self.path().join("lu-3000000000000042.state")
    }

    fn beside(&self) -> PathBuf {
        self.path().join("lu-3000000000000042.state.new")
    }

    fn open(&self) -> StateDir {
        StateDir::open(&Place::At(self.path())).unwrap().unwrap()
    }

    fn unit(&self) -> Result<(Arc<UnitFile>, Option<KeptState>), StateError> {
        self.open().unit(NAA).map(|found| found.map(|found| (found.file, found.kept)).unwrap())
    }

    fn names(&self) -> Vec<String> {
        let entries = fs::read_dir(self.path()).unwrap();
        let mut names: Vec<_> = entries.map(|e| e.unwrap().file_name().into_string().unwrap()).collect();
        names.sort();
        names
    }
}

fn state(generation: u32) -> KeptState {
    let nexus = NexusId { initiator: [1; 16], port: 1 };
    let registrations = vec![Registration { nexus, key: 7 }];
    let reservations = ReservationState { generation, registrations, aptpl: true, ..ReservationState::default() };
    let attentions = vec![Attention::CapacityChanged];
    let nexuses = vec![KeptNexus { nexus, present: true, attentions, prevent: false }];
    KeptState { reservations, nexuses, ..KeptState::new(ModeState::default()) }
}

#[test]
fn what_is_kept_is_found() {
    let scratch = Scratch::new();
    let (file, kept) = scratch.unit().unwrap();
    assert_eq!(kept, None);
    for generation in 1..4 {
        file.keep(&state(generation)).unwrap();
    }
    drop(file);
    let (_file, kept) = scratch.unit().unwrap();
    assert_eq!(kept, Some(state(3)));
    let names = ["intents", "lock", "state"].map(|kind| format!("lu-3000000000000042.{kind}"));
    assert_eq!(scratch.names(), names);
}

#[test]
fn nobody_else_may_look() {
    let scratch = Scratch::new();
    let (file, _) = scratch.unit().unwrap();
    file.keep(&state(1)).unwrap();
    let mode = |path: PathBuf| fs::metadata(path).unwrap().permissions().mode() & 0o777;
    assert_eq!(mode(scratch.path()), 0o700);
    for name in scratch.names() {
        assert_eq!(mode(scratch.path().join(&name)), 0o600, "{name}");
    }
}

#[test]
fn a_state_that_is_the_same_is_not_written_again() {
    let scratch = Scratch::new();
    let (file, _) = scratch.unit().unwrap();
    let inode = || fs::metadata(scratch.file()).unwrap().ino();
    file.keep(&state(1)).unwrap();
    let first = inode();
    file.keep(&state(1)).unwrap();
    assert_eq!(inode(), first);
    // The file before is there, so that the next one cannot get its number.
    let _held = fs::File::open(scratch.file()).unwrap();
    file.keep(&state(2)).unwrap();
    assert_ne!(inode(), first);
}

#[test]
fn one_process_has_a_unit() {
    let scratch = Scratch::new();
    let (file, _) = scratch.unit().unwrap();
    assert!(matches!(scratch.unit(), Err(StateError::Locked(path)) if path.ends_with("lu-3000000000000042.lock")));
    let other = scratch.open().unit(NAA + 1).unwrap();
    assert!(other.is_some(), "another unit");
    drop(file);
    scratch.unit().unwrap();
}

/// One that ends soon is waited for.
#[test]
fn a_lock_that_lingers_is_waited_for() {
    let scratch = Scratch::new();
    let (file, _) = scratch.unit().unwrap();
    let ending = std::thread::spawn(move || {
        std::thread::sleep(Duration::from_millis(100));
        drop(file);
    });
    scratch.unit().unwrap();
    ending.join().unwrap();
}

#[test]
fn what_a_killed_process_left_beside_is_removed() {
    let scratch = Scratch::new();
    let (file, _) = scratch.unit().unwrap();
    file.keep(&state(1)).unwrap();
    drop(file);
    fs::write(scratch.beside(), b"vstgtLU\nhalf a fi").unwrap();
    let (file, kept) = scratch.unit().unwrap();
    assert_eq!(kept, Some(state(1)));
    assert!(!scratch.beside().exists());
    // And one that a failed replacement of our own left.
    fs::write(scratch.beside(), b"x").unwrap();
    file.keep(&state(2)).unwrap();
    drop(file);
    assert_eq!(scratch.unit().unwrap().1, Some(state(2)));
}

/// Every byte, every length: refused by name, and kept as it is.
#[test]
fn a_damaged_file_is_refused_and_kept() {
    let scratch = Scratch::new();
    let (file, _) = scratch.unit().unwrap();
    file.keep(&state(1)).unwrap();
    drop(file);
    let whole = fs::read(scratch.file()).unwrap();
    let refused = |bytes: &[u8]| {
        fs::write(scratch.file(), bytes).unwrap();
        match scratch.unit() {
            Err(e @ StateError::Damaged { .. }) => {
                let text = e.to_string();
                assert!(text.contains(scratch.file().to_str().unwrap()) && text.contains("move it away"), "{text}");
            }
            other => panic!("{other:?}"),
        }
        assert_eq!(fs::read(scratch.file()).unwrap(), bytes);
    };
    for at in 0..whole.len() {
        let mut bytes = whole.clone();
        bytes[at] = !bytes[at];
        refused(&bytes);
        refused(&whole[..at]);
    }
    refused(&[&whole[..], b"\n"].concat());
    fs::write(scratch.file(), &whole).unwrap();
    assert_eq!(scratch.unit().unwrap().1, Some(state(1)));
}

#[test]
fn a_newer_file_is_refused_and_kept() {
    let scratch = Scratch::new();
    let (file, _) = scratch.unit().unwrap();
    file.keep(&state(1)).unwrap();
    drop(file);
    let mut bytes = fs::read(scratch.file()).unwrap();
    bytes[8] = 3;
    let mut sum = crc32fast::Hasher::new();
    sum.update(&bytes[..16]);
    sum.update(&bytes[20..]);
    bytes[16..20].copy_from_slice(&sum.finalize().to_le_bytes());
    fs::write(scratch.file(), &bytes).unwrap();
    let text = scratch.unit().unwrap_err().to_string();
    assert!(text.contains("newer vstgt (format 3, this one knows up to 2)"), "{text}");
    assert_eq!(fs::read(scratch.file()).unwrap(), bytes);
}

/// A file under another unit's name: somebody copied it.
#[test]
fn another_units_file_is_refused() {
    let scratch = Scratch::new();
    let (file, _) = scratch.unit().unwrap();
    file.keep(&state(1)).unwrap();
    fs::copy(scratch.file(), scratch.path().join("lu-3000000000000043.state")).unwrap();
    let text = scratch.open().unit(NAA + 1).unwrap_err().to_string();
    assert!(text.contains("it is that of another unit, 3000000000000042"), "{text}");
}

/// After a loss of power: what APTPL preserves.
#[test]
fn another_boot_finds_what_aptpl_preserves() {
    for aptpl in [false, true] {
        let scratch = Scratch::new();
        let (file, _) = scratch.unit().unwrap();
        let mut kept = state(5);
        kept.reservations.aptpl = aptpl;
        file.keep(&kept).unwrap();
        drop(file);
        let bytes = fs::read(scratch.file()).unwrap();
        let mut content = format::decode(&bytes).unwrap();
        content.boot = Some(boot::BootId("another".to_owned()));
        fs::write(scratch.file(), format::encode(&content).unwrap()).unwrap();
        let found = scratch.unit().unwrap().1.unwrap();
        assert_eq!(found, kept.after_power_loss());
        assert_eq!(found.reservations.registrations.len(), usize::from(aptpl));
        assert_eq!((found.reservations.generation, found.nexuses.len()), (0, 0));
    }
}

/// Guests that migrate find everything where they go, be it in another boot or on another host.
#[test]
fn what_is_handed_over_is_all_there_in_another_boot() {
    let scratch = Scratch::new();
    let (file, _) = scratch.unit().unwrap();
    let kept = state(5);
    file.hand_over();
    file.keep(&kept).unwrap();
    drop(file);
    let mut content = format::decode(&fs::read(scratch.file()).unwrap()).unwrap();
    assert!(content.handed_over);
    content.boot = Some(boot::BootId("another".to_owned()));
    fs::write(scratch.file(), format::encode(&content).unwrap()).unwrap();
    let (file, found) = scratch.unit().unwrap();
    assert_eq!(found, Some(kept.clone().on_another_host()));
    assert!(!kept.nexuses.is_empty() && !kept.reservations.registrations.is_empty());
    // Who took it writes for himself.
    file.keep(&kept).unwrap();
    assert!(!format::decode(&fs::read(scratch.file()).unwrap()).unwrap().handed_over);
}

/// What cannot be written is an error, and what was kept is kept still.
#[test]
fn a_directory_that_is_gone_is_an_error() {
    let scratch = Scratch::new();
    let (file, _) = scratch.unit().unwrap();
    file.keep(&state(1)).unwrap();
    let away = scratch.0.path().join("away");
    fs::rename(scratch.path(), &away).unwrap();
    let KeepError::Write(text) = file.keep(&state(2)).unwrap_err() else { panic!() };
    assert!(text.contains("lu-3000000000000042.state: cannot write"), "{text}");
    fs::rename(&away, scratch.path()).unwrap();
    file.keep(&state(3)).unwrap();
    drop(file);
    assert_eq!(scratch.unit().unwrap().1, Some(state(3)));
}

#[test]
fn only_a_directory_on_a_disk_that_was_asked_for_survives_power_loss() {
    let in_memory = tempfile::tempdir_in("/dev/shm").unwrap();
    let dir = StateDir::open(&Place::At(in_memory.path().to_owned())).unwrap().unwrap();
    assert!(!dir.survives_power_loss());
    let scratch = Scratch::new();
    let temporary = crate::sys::file::file_system(&fs::File::open(scratch.0.path()).unwrap()).unwrap() == 0x0102_1994;
    assert_eq!(scratch.open().survives_power_loss(), !temporary);
    let runtime = directory::in_runtime(scratch.0.path()).unwrap();
    assert!(runtime.path().ends_with("vstgt") && !runtime.survives_power_loss());
}

#[test]
fn a_runtime_directory_may_be_missing_and_one_that_was_asked_for_may_not() {
    let scratch = Scratch::new();
    let file = scratch.0.path().join("file");
    fs::write(&file, b"").unwrap();
    assert!(directory::in_runtime(&file).is_none());
    let missing = scratch.0.path().join("missing");
    assert!(directory::in_runtime(&missing).is_none() && !missing.exists(), "it is not ours to make");
    assert!(matches!(StateDir::open(&Place::At(file)), Err(StateError::Io { .. })));
    assert!(StateDir::open(&Place::Nowhere).unwrap().is_none());

    // And two processes of one user may serve one unit.
    let first = directory::in_runtime(scratch.0.path()).unwrap();
    let _held = first.unit(NAA).unwrap().unwrap();
    let second = directory::in_runtime(scratch.0.path()).unwrap();
    assert!(second.unit(NAA).unwrap().is_none());
}

/// What was decided in a turn of a reactor is written when the turn is over.
#[test]
fn a_turn_is_waited_for() {
    let scratch = Scratch::new();
    let (file, _) = scratch.unit().unwrap();
    let turns = Arc::new(Turns::new(1));
    file.set_turns(&turns);
    turns.begin(0);
    let keeping = std::thread::spawn({
        let file = Arc::clone(&file);
        move || file.keep(&state(1)).unwrap()
    });
    std::thread::sleep(Duration::from_millis(100));
    assert!(!scratch.file().exists());
    turns.end(0);
    keeping.join().unwrap();
    assert!(scratch.file().exists());
}

#[test]
fn changes_are_noticed_once() {
    let scratch = Scratch::new();
    let (file, _) = scratch.unit().unwrap();
    assert!(!file.take_changed());
    file.note();
    file.note();
    assert!(file.take_changed());
    assert!(!file.take_changed());
}
