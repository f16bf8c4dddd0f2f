//! `state`: a unit's file in the state directory.
//!
//! The first byte says how the rest becomes a file: as it is (0), or as the payload of a file whose header is right, of the version that
//! the byte says. What is accepted is given to a unit, which goes on from there; what the unit then keeps must be read again as the same.

use crate::input::Input;
use std::fs;
use std::path::Path;
use std::sync::Arc;
use vstgt::backing::{Image, OpenOptions};
use vstgt::lu::{Keeper, KeptState, Lu, LuSetup, NexusId, TargetPort};
use vstgt::state_dir::{Place, StateDir, StateError};

const NAA: u64 = 0x3123_4567_89ab_cdef;

/// Takes any bytes.
pub fn run(bytes: &[u8]) {
    let scratch = Scratch::new();
    scratch.write(&file(bytes));
    let Some((keeper, kept)) = scratch.read() else { return };
    // As it was read, it is written and read again.
    keeper.keep(&kept).expect("what was read can be written");
    drop(keeper);
    let (keeper, again) = scratch.read().expect("what was written can be read");
    assert_eq!(again, kept);
    // A unit may find that it cannot be true, but then nothing comes of it.
    let image = vstgt::backing::open(&OpenOptions::new(scratch.image())).expect("an image");
    let Some(lu) = unit(&image, &keeper, again) else { return };
    for port in 1..3 {
        let initiator = [port as u8; 16];
        drop(vstgt::lu::Itl::new(Arc::clone(&lu), NexusId { initiator, port }, None));
    }
    lu.close().expect("it can be written");
    drop((lu, keeper));
    let (keeper, kept) = scratch.read().expect("what a unit kept can be read");
    let lu = unit(&image, &keeper, kept).expect("a unit goes on from what it kept itself");
    // Whoever has not come by now is lost, and the unit stays what it can keep.
    lu.lose_awaited();
    lu.persist().expect("it can be written");
    lu.close().expect("it can be written");
    drop((lu, keeper));
    assert!(scratch.read().is_some());
}

/// Goes on from what was kept.
fn unit(image: &Arc<dyn Image>, keeper: &Arc<dyn Keeper>, kept: KeptState) -> Option<Arc<Lu>> {
    let port = |relative| TargetPort { relative, id: [0x80 + relative as u8; 16], group: relative };
    let setup = LuSetup {
        ports: vec![port(1), port(2)],
        keeper: Some(Arc::clone(keeper)),
        kept: Some(kept),
        ..LuSetup::new(Arc::clone(image), NAA, "SERIAL".into())
    };
    Lu::new(setup).ok()
}

/// The bytes of the file that an input means.
fn file(bytes: &[u8]) -> Vec<u8> {
    let mut input = Input::new(bytes);
    let version = u32::from(input.u8() % 5);
    let rest = input.rest();
    if version == 0 {
        return rest.to_vec();
    }
    // This one's boot, where there is a mark: otherwise the file is of an earlier one, of which little is taken.
    let boot = fs::read_to_string("/proc/sys/kernel/random/boot_id").unwrap_or_default();
    let payload = String::from_utf8_lossy(rest).replace("@BOOT", boot.trim()).into_bytes();
    let mut file = b"vstgtLU\n".to_vec();
    file.extend(version.to_le_bytes());
    file.extend((payload.len() as u32).to_le_bytes());
    let mut sum = crc32fast::Hasher::new();
    sum.update(&file);
    sum.update(&payload);
    file.extend(sum.finalize().to_le_bytes());
    file.extend(payload);
    file
}

/// A state directory, in memory.
struct Scratch(tempfile::TempDir);

impl Scratch {
    fn new() -> Scratch {
        let memory = Path::new("/dev/shm");
        let parent = if memory.is_dir() { memory.to_owned() } else { std::env::temp_dir() };
        let scratch = Scratch(tempfile::tempdir_in(parent).expect("a directory"));
        fs::File::create(scratch.image()).and_then(|file| file.set_len(1 << 20)).expect("an image");
        scratch
    }

    fn image(&self) -> std::path::PathBuf {
        self.0.path().join("image")
    }

    fn write(&self, bytes: &[u8]) {
        fs::write(self.0.path().join(format!("lu-{NAA:016x}.state")), bytes).expect("a file");
    }

    /// Opens the directory as the daemon does; `None` if the file is refused.
    fn read(&self) -> Option<(Arc<dyn Keeper>, KeptState)> {
        let dir = StateDir::open(&Place::At(self.0.path().to_owned())).expect("a directory").expect("a directory");
        match dir.unit(NAA) {
            Ok(found) => {
                let found = found.expect("nobody else has it");
                found.kept.map(|kept| (found.file as Arc<dyn Keeper>, kept))
            }
            Err(error @ (StateError::Damaged { .. } | StateError::Newer { .. })) => {
                assert!(!error.to_string().is_empty());
                None
            }
            Err(error) => panic!("{error}"),
        }
    }
}
