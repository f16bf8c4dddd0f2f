//! The fences around the running process: what a guest or a front-end that took it over could do with it.
//!
//! # Contract
//!
//! * [`confine`] comes first, when everything that is named on the command line has been opened and bound, and **before any thread is
//!   started**: landlock and capabilities are the thread's that asks, and those it starts have them from it. It says no to a process that
//!   has threads already.
//! * [`Confined::seal`] comes last, when the threads and rings are there that live as long as the process, and before the first
//!   byte of a front-end is read. It fences all threads, and those that they start. From then on no io_uring instance is made, so that those there are, which
//!   are restricted (see [`crate::sys::ring`]), are all there is; unless [`Fence::makes_rings`] says that the process has to make more.
//! * No capability is left; but for the one to lock memory, where [`Fence::registers_memory`] asks for it and it was there.
//! * What was opened before stays open and stays as it was: images, sockets, the log.
//! * Landlock is as good as the kernel's; what it lacks is said in the log and the process goes on. Everything else holds or is an
//!   error, and the error names `--sandbox=off`.
//! * A system call that is not on the list ends the process by SIGSYS, and its number is the last line of the log. It is not answered with an
//!   error: whoever makes it is either an intruder, or a part of this program that relies on it.
//!
//! Who wants to do something new while the process runs (open, connect, ask the kernel) adds it to the table in `calls.rs`,
//! with its arguments, and to the paths of [`Fence`].

mod calls;
mod core_file;
mod landlock;
mod privileges;
mod seccomp;
mod violation;

use std::fs;
use std::io;
use std::path::PathBuf;

/// The sandbox cannot be put up.
#[derive(Debug, thiserror::Error)]
#[error("the sandbox cannot be put up: {what}: {source} (--sandbox=off runs without it)")]
pub struct Error {
    what: String,
    source: io::Error,
}

impl Error {
    fn new(what: impl Into<String>) -> impl FnOnce(io::Error) -> Error {
        move |source| Error { what: what.into(), source }
    }
}

/// An image, and what is done with it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ImageAccess {
    /// The file or block device.
    pub path: PathBuf,
    /// Whether it is written.
    pub writable: bool,
}

/// What the process still reaches by name once it is [confined](confine).
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Fence {
    /// Images that are served.
    pub images: Vec<ImageAccess>,
    /// Directories with images that are to be served later, and everything below them.
    pub image_dirs: Vec<PathBuf>,
    /// Directories in which sockets are made and removed.
    pub socket_dirs: Vec<PathBuf>,
    /// Where state is kept.
    pub state_dir: Option<PathBuf>,
    /// What else is read: files, and everything below directories.
    pub read: Vec<PathBuf>,
    /// Images and state are opened, and perhaps opened again, while the process serves. Then it must be able to without
    /// privileges.
    pub comes_and_goes: bool,
    /// io_uring instances are made while it serves.
    pub makes_rings: bool,
    /// Guest memory is registered with io_uring instances, which may take the capability to lock memory.
    pub registers_memory: bool,
    /// Whether a core file may be written, and a debugger of the same user may look in.
    pub core_dumps: bool,
}

/// A process that is fenced in, and not sealed yet.
#[derive(Debug)]
#[must_use = "a process that is not sealed may still make any system call"]
pub struct Confined {
    table: calls::Table,
}

/// Takes from this thread, and those it will start, all privileges and all files but those named in the fence; from the process its core files.
///
/// # Errors
///
/// There are threads already, a path in the fence is not there, or the kernel refuses.
pub fn confine(fence: &Fence) -> Result<Confined, Error> {
    let threads = fs::read_dir("/proc/self/task").map_err(Error::new("/proc/self/task"))?.count();
    if threads != 1 {
        let source = io::Error::other(format!("{threads} threads run already, which it would not hold"));
        return Err(Error { what: "too late".into(), source });
    }
    if !fence.core_dumps {
        core_file::forbid().map_err(Error::new("core files"))?;
    }
    privileges::never_gain().map_err(Error::new("no_new_privs"))?;
    // Before the capabilities go: a directory above an image may be closed to who has none.
    let enforced = landlock::restrict(fence)?;
    let locks_memory = privileges::drop_all(fence.registers_memory).map_err(Error::new("capabilities"))?;
    still_writable(fence)?;
    let kept = if locks_memory { " but CAP_IPC_LOCK" } else { "" };
    log::log!(enforced.level(), "sandbox: {enforced}; no capabilities{kept}");
    let (makes_rings, registers_memory) = (fence.makes_rings, fence.registers_memory);
    Ok(Confined { table: calls::Table { makes_rings, registers_memory } })
}

/// Root could write to directories that it no longer can: others' are others'.
fn still_writable(fence: &Fence) -> Result<(), Error> {
    if let Some(dir) = &fence.state_dir
        && let Err(source) = privileges::may_write(dir)
    {
        return Err(Error {
            what: format!("{}: state cannot be written there without privileges", dir.display()),
            source,
        });
    }
    if fence.comes_and_goes {
        for image in &fence.images {
            privileges::may_open(&image.path, image.writable).map_err(Error::new(format!(
                "{}: the image is opened while guests are served, and cannot be without privileges",
                image.path.display()
            )))?;
        }
    }
    for dir in &fence.socket_dirs {
        if let Err(e) = privileges::may_write(dir) {
            log::warn!("{}: sockets there cannot be removed when the process ends: {e}", dir.display());
        }
    }
    Ok(())
}

impl Confined {
    /// Restricts all threads to the system calls that serving takes.
    ///
    /// # Errors
    ///
    /// The kernel knows no seccomp filters, or somebody forbids them.
    pub fn seal(self) -> Result<(), Error> {
        // With its first thread the C library makes ready for more of them, which takes calls that are not allowed any more.
        let first = std::thread::Builder::new().spawn(|| ()).map_err(Error::new("a thread"))?;
        if first.join().is_err() {
            log::debug!("a thread that does nothing panicked");
        }
        let table = self.table;
        let sealed = violation::install_handler().and_then(|()| seccomp::apply(table));
        sealed.map_err(Error::new("seccomp"))?;
        let rings = if table.makes_rings { ", io_uring instances are made" } else { "" };
        log::info!("sandbox: seccomp: {} system calls allowed{rings}", table.count());
        Ok(())
    }
}
