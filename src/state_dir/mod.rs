//! The state directory: what outlives the process, a file for each logical unit.
//!
//! # Contract
//!
//! * [`StateDir`] is a directory that is there and can be written. [`StateDir::unit`] locks one unit's files in it, reads what was
//!   kept, and gives a [`UnitFile`], the unit's [`Keeper`](crate::lu::Keeper). A file that is damaged, or newer than this program, is
//!   refused and left as it is.
//! * A file is replaced whole, or not at all: written beside, synced, renamed, the directory synced. Its [format](self#format) has a
//!   checksum; there is no instant at which a process that is killed leaves anything but the state before or the one after.
//! * [`IntentFile`] is a file beside it that is mapped, for what has to be written down faster than that: COMPARE AND WRITE.
//! * [`Writer`] is the one thread that writes what changed and need not be written at once. It also ends the wait for nexuses that
//!   have not come since the start.
//! * Of what is written *soon* nothing is lost, but something may come twice: a unit attention is taken out of the file only when the
//!   turn of the reactor that took it is over, its report with the guest. A process killed before that reports it again.
//!
//! # Which boot
//!
//! A file says in which boot of the host it was written. Read in the same one, it is the whole state; the hosts' guests were
//! there all the time. Read in another one, only what APTPL preserves is taken from it (SPC-4 5.13.5.1).
//!
//! # Format
//!
//! See `docs/state.md`.

mod boot;
mod directory;
mod erasing;
mod file;
mod format;
mod intents;
mod records;
#[cfg(test)]
mod tests;
mod writer;

pub use directory::{Place, StateDir};
pub use file::{FoundUnit, UnitFile};
pub use intents::IntentFile;
pub use writer::{KeptUnit, Writer};

use std::io;
use std::path::PathBuf;

/// Why state cannot be kept or restored, in one line for the person who started the program.
#[derive(Debug, thiserror::Error)]
pub enum StateError {
    /// The directory or something in it cannot be used.
    #[error("--state-dir: {path}: {what}: {source}")]
    Io {
        /// The file or directory.
        path: PathBuf,
        /// What was tried.
        what: &'static str,
        /// Why it failed.
        source: io::Error,
    },
    /// Another process has the unit's state.
    #[error("--state-dir: {0} is locked: another vstgt serves this unit with this state directory")]
    Locked(PathBuf),
    /// The file is not as it was written.
    #[error(
        "--state-dir: {path} is damaged ({what}); it is left as it is. To start without it move it away: \
         reservations, registrations and unit attentions of this unit are lost then"
    )]
    Damaged {
        /// The file.
        path: PathBuf,
        /// What does not fit.
        what: String,
    },
    /// The file was written by a later version of the program.
    #[error(
        "--state-dir: {path} was written by a newer vstgt (format {version}, this one knows up to {known}); it is left as it is. \
         Use that one, or move the file away: reservations, registrations and unit attentions of this unit are lost then"
    )]
    Newer {
        /// The file.
        path: PathBuf,
        /// Its format.
        version: u32,
        /// The latest that is known here.
        known: u32,
    },
    /// The state cannot be written from the start.
    #[error("--state-dir: {0}")]
    Keep(#[from] crate::lu::KeepError),
    /// The writing thread cannot be started.
    #[error("--state-dir: cannot start a thread: {0}")]
    Thread(io::Error),
}
