//! One unit's files in the state directory.

use std::fs::{self, File, OpenOptions};
use std::io::{self, ErrorKind, Read, Write};
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, OnceLock, PoisonError};
use std::time::{Duration, Instant};

use super::boot::BootId;
use super::directory::StateDir;
use super::format::{self, Content, Flaw};
use super::writer::Bell;
use super::{StateError, format::VERSION};
use crate::lu::{KeepError, Keeper, KeptState};
use crate::sys::file::try_lock;
use crate::sys::turns::Turns;

/// How long to wait for a process that ends to give up its lock.
const LOCK_PATIENCE: Duration = Duration::from_secs(2);

/// How long a reactor's turn may take. It waits for nothing, so one that takes longer has stopped for good, or the whole process has.
const TURN_BOUND: Duration = Duration::from_secs(1);

/// The most bytes of a file that are read. A state with a hundred thousand registrations is smaller.
const MAX_LENGTH: u64 = 64 << 20;

/// Keeps one unit's state in its file.
#[derive(Debug)]
pub struct UnitFile {
    naa: u64,
    boot: Option<BootId>,
    path: PathBuf,
    beside: PathBuf,
    directory: File,
    survives_power_loss: bool,
    /// What the file holds; `None`: not known.
    written: Mutex<Option<Vec<u8>>>,
    changed: AtomicBool,
    /// What is written from now on is for the process that comes next.
    handed_over: AtomicBool,
    bell: Arc<Bell>,
    turns: OnceLock<Arc<Turns>>,
    /// Locked as long as it is open.
    _lock: File,
}

/// A unit's state as it was found.
#[derive(Debug)]
pub struct FoundUnit {
    /// Keeps it from now on.
    pub file: Arc<UnitFile>,
    /// What was kept until now; `None`: nothing.
    pub kept: Option<KeptState>,
}

impl UnitFile {
    /// Locks a unit's files and reads what was kept.
    pub(super) fn open(dir: &StateDir, naa: u64) -> Result<FoundUnit, StateError> {
        let file = |suffix: &str| dir.path().join(format!("lu-{naa:016x}.{suffix}"));
        let lock = lock(&file("lock"))?;
        let unit = UnitFile {
            naa,
            boot: dir.boot().cloned(),
            path: file("state"),
            beside: file("state.new"),
            directory: dir.handle()?,
            survives_power_loss: dir.survives_power_loss(),
            written: Mutex::default(),
            changed: AtomicBool::new(false),
            handed_over: AtomicBool::new(false),
            bell: dir.bell(),
            turns: OnceLock::new(),
            _lock: lock,
        };
        // Of a process that was killed as it wrote. The state is that of before.
        match fs::remove_file(&unit.beside) {
            Ok(()) => log::info!("{}: removed; a process ended before it was complete", unit.beside.display()),
            Err(e) if e.kind() == ErrorKind::NotFound => {}
            Err(source) => return Err(error(&unit.beside, "cannot remove")(source)),
        }
        let kept = unit.read()?;
        Ok(FoundUnit { file: Arc::new(unit), kept })
    }

    fn read(&self) -> Result<Option<KeptState>, StateError> {
        let mut bytes = Vec::new();
        match File::open(&self.path).and_then(|file| file.take(MAX_LENGTH).read_to_end(&mut bytes)) {
            Ok(_) => {}
            Err(e) if e.kind() == ErrorKind::NotFound => return Ok(None),
            Err(source) => return Err(error(&self.path, "cannot read")(source)),
        }
        let path = || self.path.clone();
        let content = format::decode(&bytes).map_err(|flaw| match flaw {
            Flaw::Damaged(what) => StateError::Damaged { path: path(), what },
            Flaw::Newer(version) => StateError::Newer { path: path(), version, known: VERSION },
        })?;
        if content.naa != self.naa {
            let what = format!("it is that of another unit, {:016x}", content.naa);
            return Err(StateError::Damaged { path: path(), what });
        }
        let same_boot = self.boot.is_some() && content.boot == self.boot;
        let state = match (same_boot, content.handed_over) {
            (true, _) => content.state,
            (false, true) => content.state.on_another_host(),
            (false, false) => content.state.after_power_loss(),
        };
        log::info!(
            "{}: goes on with {} nexuses and {} registrations{}",
            self.path.display(),
            state.nexuses.iter().filter(|nexus| nexus.present).count(),
            state.reservations.registrations.len(),
            match (same_boot, content.handed_over) {
                (true, _) => "",
                (false, true) => " from another host",
                (false, false) => " of an earlier boot",
            },
        );
        Ok(Some(state))
    }

    /// What is written from now on is all for the process that takes it next, in whichever boot of whichever host.
    pub(super) fn hand_over(&self) {
        self.handed_over.store(true, Ordering::Release);
    }

    /// Whose turns are to be over before what happened in them is written.
    pub(super) fn set_turns(&self, turns: &Arc<Turns>) {
        // Set once, when there are reactors.
        drop(self.turns.set(Arc::clone(turns)));
    }

    /// Whether something changed since it was asked for last.
    pub(super) fn take_changed(&self) -> bool {
        self.changed.swap(false, Ordering::AcqRel)
    }

    pub(super) fn path(&self) -> &Path {
        &self.path
    }

    /// Replaces the file; it is durable when this returns.
    fn replace(&self, bytes: &[u8]) -> io::Result<()> {
        let mut options = OpenOptions::new();
        options.write(true).create_new(true).mode(0o600);
        let mut file = match options.open(&self.beside) {
            // Of a replacement that failed.
            Err(e) if e.kind() == ErrorKind::AlreadyExists => {
                fs::remove_file(&self.beside)?;
                options.open(&self.beside)?
            }
            opened => opened?,
        };
        file.write_all(bytes)?;
        file.sync_all()?;
        drop(file);
        fs::rename(&self.beside, &self.path)?;
        self.directory.sync_all()
    }
}

impl Keeper for UnitFile {
    fn keep(&self, state: &KeptState) -> Result<(), KeepError> {
        let handed_over = self.handed_over.load(Ordering::Acquire);
        let content = Content { naa: self.naa, boot: self.boot.clone(), handed_over, state: state.clone() };
        let write = |e: String| KeepError::Write(format!("{}: cannot write: {e}", self.path.display()));
        let bytes = format::encode(&content).map_err(write)?;
        // It is replaced whole, and not known while it is being written.
        let mut written = self.written.lock().unwrap_or_else(PoisonError::into_inner);
        if written.as_ref() == Some(&bytes) {
            return Ok(());
        }
        // A unit attention that is gone from this state was taken in a turn that has begun. Only when that is over has the guest
        // been told of it.
        if let Some(turns) = self.turns.get()
            && !turns.pass(TURN_BOUND)
        {
            log::warn!("{}: written though a reactor does not get on", self.path.display());
        }
        *written = None;
        self.replace(&bytes).map_err(|e| write(e.to_string()))?;
        *written = Some(bytes);
        Ok(())
    }

    fn note(&self) {
        if !self.changed.swap(true, Ordering::AcqRel) {
            self.bell.ring();
        }
    }

    fn survives_power_loss(&self) -> bool {
        self.survives_power_loss
    }
}

/// Locks a unit's lock file, which is empty and stays: were it removed, two processes could each lock one of that name.
fn lock(path: &Path) -> Result<File, StateError> {
    let mut options = OpenOptions::new();
    options.write(true).create(true).truncate(false).mode(0o600);
    let file = options.open(path).map_err(error(path, "cannot open"))?;
    let start = Instant::now();
    while !try_lock(&file).map_err(error(path, "cannot lock"))? {
        if start.elapsed() > LOCK_PATIENCE {
            return Err(StateError::Locked(path.to_owned()));
        }
        std::thread::sleep(Duration::from_millis(10));
    }
    Ok(file)
}

pub(super) fn error(path: &Path, what: &'static str) -> impl FnOnce(io::Error) -> StateError {
    let path = path.to_owned();
    move |source| StateError::Io { path, what, source }
}
