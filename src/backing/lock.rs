//! Image locks as QEMU takes them, so that no two programs write one image.
//!
//! # Contract
//!
//! * QEMU (since 2.10) locks single bytes of an image's open file description (`F_OFD_SETLK`): byte 100 + n says that somebody uses
//!   permission n, byte 200 + n that somebody does *not* share it. All locks are read locks; whoever wants in takes those that say what it
//!   uses and does not share, and then looks whether anybody has the opposite ones. So of two that come at one moment at least one sees the
//!   other. What the bytes cover does not matter: reads and writes of the image do not look at locks.
//! * A unit is to others what QEMU's `scsi-hd` with `share-rw=off` is: it uses *consistent read* (0), a writable one *write* (1) too, and
//!   shares everything but *write*. So nobody writes an image that is served, nor is an image served that somebody writes; readers, of which
//!   QEMU's are some and read-only units others, share it.
//! * The locks are on the very open file that the image's I/O goes through, and end with it: with the process, however it ends.
//!   After a kill they may linger until the kernel has taken down what was in flight.
//! * They are advisory. Programs that know nothing of them (`dd`, `mkfs`) are not kept out.

use std::fs::File;
use std::io;
use std::os::unix::fs::MetadataExt;
use std::path::Path;
use std::time::{Duration, Instant};

use super::OpenError;
use crate::sys::file;

/// Where the bytes begin that say which permissions are used.
const USED: u64 = 100;
/// Where those begin that say which are not shared.
const UNSHARED: u64 = 200;
/// Bytes of either kind that programs may use; QEMU uses four or five.
const KINDS: u64 = 64;

/// Reading what is consistent.
const CONSISTENT_READ: u64 = 0;
/// Writing.
const WRITE: u64 = 1;

/// How often somebody else's locks are looked at while they are waited for.
const INTERVAL: Duration = Duration::from_millis(20);

/// Whether an image is locked against other programs.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Locking {
    /// Yes, unless its file system cannot lock.
    #[default]
    Auto,
    /// Yes, or it is not opened.
    On,
    /// No.
    Off,
}

/// What a unit's image is locked with.
#[derive(Clone, Copy, Debug)]
pub(super) struct Lock {
    read_only: bool,
}

/// Whether it could be locked.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Taken {
    Yes,
    /// Somebody else has it for this.
    InUse(Use),
}

/// What somebody else does with an image.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Use {
    Writes,
    /// It uses it, and would not have it written.
    Uses,
}

impl Lock {
    pub(super) fn new(read_only: bool) -> Lock {
        Lock { read_only }
    }

    /// The permissions that it uses.
    fn used(self) -> &'static [u64] {
        if self.read_only { &[CONSISTENT_READ] } else { &[CONSISTENT_READ, WRITE] }
    }

    /// Takes the locks, or none.
    fn take(self, file: &File) -> io::Result<Taken> {
        let at = |base: u64, kinds: &[u64]| kinds.iter().map(|kind| base + kind).collect::<Vec<_>>();
        let unshared = [WRITE];
        let mine = [at(USED, self.used()), at(UNSHARED, &unshared)].concat();
        let taken = file::lock_bytes_shared(file, &mine).and_then(|locked| {
            if !locked {
                // Nobody who keeps to the rules locks exclusively.
                return Ok(Taken::InUse(Use::Uses));
            }
            if file::locked_elsewhere(file, &at(USED, &unshared))?.is_some() {
                return Ok(Taken::InUse(Use::Writes));
            }
            let refused = file::locked_elsewhere(file, &at(UNSHARED, self.used()))?;
            Ok(refused.map_or(Taken::Yes, |_| Taken::InUse(Use::Uses)))
        });
        if !matches!(taken, Ok(Taken::Yes)) {
            self.release(file)?;
        }
        taken
    }

    /// Gives the locks back.
    pub(super) fn release(self, file: &File) -> io::Result<()> {
        file::unlock_bytes(file, USED, KINDS)?;
        file::unlock_bytes(file, UNSHARED, KINDS)
    }

    /// Takes the locks; while somebody else has the image, tries again for `patience`.
    pub(super) fn wait(self, file: &File, path: &Path, locking: Locking, patience: Duration) -> Result<(), OpenError> {
        if locking == Locking::Off {
            return Ok(());
        }
        let started = Instant::now();
        let mut told = false;
        loop {
            let in_use = match self.take(file) {
                Ok(Taken::Yes) => {
                    if told {
                        log::info!("{}: locked after {:?}", path.display(), started.elapsed());
                    }
                    return Ok(());
                }
                Ok(Taken::InUse(how)) => how,
                Err(e) if cannot(&e) && locking == Locking::Auto => {
                    log::warn!(
                        "{}: its file system has no locks ({e}): nothing keeps another program from writing it",
                        path.display()
                    );
                    return Ok(());
                }
                Err(source) if cannot(&source) => return Err(OpenError::Unlockable { path: path.into(), source }),
                Err(source) => return Err(OpenError::System { path: path.into(), source }),
            };
            if started.elapsed() >= patience {
                let what = match in_use {
                    Use::Writes => "writes it",
                    Use::Uses => "uses it and does not let it be written",
                };
                return Err(OpenError::InUse { path: path.into(), what, who: Who(holders(file)) });
            }
            if !std::mem::replace(&mut told, true) {
                let who = Who(holders(file));
                log::warn!("{}: {who} has it locked; trying for {patience:?}", path.display());
            }
            std::thread::sleep(INTERVAL);
        }
    }
}

/// What a file system answers that cannot lock, or not so.
fn cannot(error: &io::Error) -> bool {
    let known = [libc::ENOLCK, libc::EOPNOTSUPP, libc::ENOSYS, libc::EINVAL];
    error.raw_os_error().is_some_and(|errno| known.contains(&errno))
}

/// Those who have an image locked, as far as this user may know.
#[derive(Debug, PartialEq, Eq)]
pub struct Who(Vec<String>);

impl std::fmt::Display for Who {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        if self.0.is_empty() { f.write_str("another program") } else { f.write_str(&self.0.join(", ")) }
    }
}

/// The processes that have locks of this kind on the file. The kernel names no process when it is asked for a lock, because an open file may
/// be many processes'; but it tells of each descriptor which locks are on it. Only one's own processes can be looked at.
fn holders(file: &File) -> Vec<String> {
    let Ok(inode) = file.metadata().map(|metadata| metadata.ino()) else { return Vec::new() };
    let Ok(processes) = std::fs::read_dir("/proc") else { return Vec::new() };
    let mut found = Vec::new();
    for process in processes.flatten() {
        let name = process.file_name();
        let Some(pid) = name.to_str().and_then(|name| name.parse::<u32>().ok()) else { continue };
        if pid == std::process::id() || !has_locked(pid, inode) {
            continue;
        }
        let comm = std::fs::read_to_string(format!("/proc/{pid}/comm")).unwrap_or_default();
        found.push(format!("{} (process {pid})", comm.trim()));
    }
    found
}

/// Whether a descriptor of this process has such a lock on this inode.
fn has_locked(pid: u32, inode: u64) -> bool {
    let Ok(descriptors) = std::fs::read_dir(format!("/proc/{pid}/fdinfo")) else { return false };
    let lines = |info: String| info.lines().any(|line| is_lock_of(line, inode));
    descriptors.flatten().any(|fd| std::fs::read_to_string(fd.path()).is_ok_and(lines))
}

/// Reads a line of `/proc/PID/fdinfo/FD` (proc_pid_fdinfo(5)): `lock: 1: OFDLCK ADVISORY READ -1 fe:00:1234 100 101`, the numbers being
/// device and inode, first and last byte.
fn is_lock_of(line: &str, inode: u64) -> bool {
    let Some(lock) = line.strip_prefix("lock:") else { return false };
    let words: Vec<&str> = lock.split_whitespace().collect();
    let [_, "OFDLCK", _, _, _, place, first, last] = words[..] else { return false };
    let same = place.rsplit(':').next().is_some_and(|number| number.parse() == Ok(inode));
    let (Ok(first), Ok(last)) = (first.parse::<u64>(), last.parse::<u64>()) else { return false };
    same && [USED, UNSHARED].iter().any(|base| first < base + KINDS && last >= *base)
}

#[cfg(test)]
mod tests;
