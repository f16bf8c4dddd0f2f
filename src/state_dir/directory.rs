//! Where state is kept.

use std::fs::{DirBuilder, File};
use std::io::{self, ErrorKind};
use std::os::unix::fs::{DirBuilderExt, MetadataExt};
use std::path::{Path, PathBuf};
use std::sync::Arc;

use super::StateError;
use super::boot::BootId;
use super::file::{FoundUnit, UnitFile, error};
use super::writer::Bell;
use crate::sys::file::file_system;

/// What `--state-dir` says.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub enum Place {
    /// Nothing: `vstgt` in the user's runtime directory (`XDG_RUNTIME_DIR`), or in `/run`; nowhere if that cannot be written.
    #[default]
    Runtime,
    /// `none`: nothing is kept.
    Nowhere,
    /// This directory. It is made if it is not there.
    At(PathBuf),
}

/// File systems that are memory (linux/magic.h): tmpfs and ramfs.
const MEMORY: [u64; 2] = [0x0102_1994, 0x8584_58f6];

/// A directory for state.
#[derive(Debug)]
pub struct StateDir {
    path: PathBuf,
    /// The user asked for it; otherwise it is a convenience that may be missing.
    asked_for: bool,
    survives_power_loss: bool,
    boot: Option<BootId>,
    bell: Arc<Bell>,
}

impl StateDir {
    /// Makes it ready; `None` if nothing is to be kept, or cannot be where it would be without being asked for.
    ///
    /// # Errors
    ///
    /// The directory that was asked for cannot be made or read.
    pub fn open(place: &Place) -> Result<Option<StateDir>, StateError> {
        match place {
            Place::Nowhere => Ok(None),
            Place::At(path) => StateDir::at(path, true).map(Some),
            Place::Runtime => {
                let runtime = std::env::var_os("XDG_RUNTIME_DIR").map(PathBuf::from).filter(|path| path.is_absolute());
                Ok(in_runtime(&runtime.unwrap_or_else(|| "/run".into())))
            }
        }
    }

    fn at(path: &Path, asked_for: bool) -> Result<StateDir, StateError> {
        make(path, asked_for).map_err(error(path, "cannot make the directory"))?;
        let handle = File::open(path).map_err(error(path, "cannot open"))?;
        let metadata = handle.metadata().map_err(error(path, "cannot look at it"))?;
        if metadata.mode() & 0o022 != 0 {
            log::warn!("--state-dir: {}: others may write to it", path.display());
        }
        // A probe: rights, a read-only file system, a file system that is full.
        let probe = path.join(".probe");
        File::create(&probe).map_err(error(path, "cannot write"))?;
        match std::fs::remove_file(&probe) {
            // Another process looks at the same time.
            Err(e) if e.kind() == ErrorKind::NotFound => {}
            removed => removed.map_err(error(path, "cannot write"))?,
        }
        // A file system of unknown kind is taken for a disk's: who names a directory on one says so.
        let memory = file_system(&handle).is_ok_and(|kind| MEMORY.contains(&kind));
        Ok(StateDir {
            path: path.to_owned(),
            asked_for,
            survives_power_loss: asked_for && !memory,
            boot: BootId::now(),
            bell: Arc::default(),
        })
    }

    /// Takes charge of a unit's state. `None` if another process has the unit's
    /// state, and nobody asked for a state directory.
    ///
    /// # Errors
    ///
    /// The state cannot be read, or must not be: [`StateError`] says what to do.
    pub fn unit(&self, naa: u64) -> Result<Option<FoundUnit>, StateError> {
        match UnitFile::open(self, naa) {
            Err(e @ StateError::Locked(_)) if !self.asked_for => {
                log::warn!("nothing is kept of unit {naa:016x}: {e}");
                Ok(None)
            }
            opened => opened.map(Some),
        }
    }

    /// Where it is.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// The file that is read as it is opened, besides what is in it.
    pub fn boot_id() -> &'static Path {
        Path::new(super::boot::FILE)
    }

    /// Whether it is still there after a loss of power: it was asked for, and it is not in memory.
    pub fn survives_power_loss(&self) -> bool {
        self.survives_power_loss
    }

    pub(super) fn handle(&self) -> Result<File, StateError> {
        File::open(&self.path).map_err(error(&self.path, "cannot open"))
    }

    pub(super) fn boot(&self) -> Option<&BootId> {
        self.boot.as_ref()
    }

    pub(super) fn bell(&self) -> Arc<Bell> {
        Arc::clone(&self.bell)
    }
}

/// Makes a directory that is not there, with those above it if somebody asked for it: a runtime directory that is missing is not ours
/// to make.
fn make(path: &Path, with_those_above: bool) -> io::Result<()> {
    if path.is_dir() {
        return Ok(());
    }
    let missing: Vec<&Path> =
        path.ancestors().take_while(|above| !above.as_os_str().is_empty() && !above.is_dir()).collect();
    match DirBuilder::new().recursive(with_those_above).mode(0o700).create(path) {
        // Another process was faster.
        Err(e) if e.kind() == ErrorKind::AlreadyExists && path.is_dir() => {}
        made => made?,
    }
    // What lies in a directory whose name is lost is lost, too.
    missing.iter().try_for_each(|made| match made.parent() {
        Some(parent) if !parent.as_os_str().is_empty() => File::open(parent)?.sync_all(),
        _ => File::open(".")?.sync_all(),
    })
}

/// The directory that nobody asked for; `None` if it cannot be used.
pub(super) fn in_runtime(runtime: &Path) -> Option<StateDir> {
    match StateDir::at(&runtime.join("vstgt"), false) {
        Ok(dir) => Some(dir),
        Err(e) => {
            log::info!("nothing is kept for a restart (see --state-dir): {e}");
            None
        }
    }
}
