//! A planned restart: a successor asks the running process for its listening sockets, and goes on with them.
//!
//! # Contract
//!
//! Both are started with the same `--handover PATH`. Who finds nobody there starts as usual and listens on PATH; who finds a process there
//! is its successor:
//!
//! ```text
//! successor                                    predecessor
//!   checks its command line, images, directories
//!   Ask: the socket paths it wants ──────────▶
//!                           ◀── Listener (one each, with its descriptor), Offered    it serves and accepts as before
//!   what can fail is tried once more
//!   Commit ──────────────────────────────────▶
//!                                              accepts no more; connections wait in the backlog, which both have
//!                           ◀── Connection (those that had said nothing yet)
//!                                              sessions drain, state is written, images are flushed and closed
//!                           ◀── Ended
//!                                              exits
//!   images, state, reactors, sockets as at every start
//! ```
//!
//! * No connection attempt is refused or lost: a listening socket is open in one of them, or in both, all the time. A connection that
//!   had said nothing goes along. One that had said something ends, as it does in any restart, and its front-end makes it again.
//! * Until Commit the predecessor serves and nothing is lost if the successor goes away, for whatever reason. From Commit on it ends,
//!   whatever becomes of the successor.
//! * A predecessor that is killed leaves its successor with the sockets: it goes on as after any kill.
//! * Who ends in an orderly way for another reason (SIGTERM) removes its socket files. A successor that has been offered
//!   the sockets then sees that the files are not those any more, and makes its own.
//! * The socket PATH is handed over, too: of several successors one after the other gets its turn.
//! * PATH has mode 0600. Each end wants the other to be of its own user, or root.
//! * [`wire`] messages have a version; a predecessor refuses one that it does not know, in words, and goes on.

mod predecessor;
mod successor;
#[cfg(test)]
mod tests;
mod wire;

use std::io;
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};

pub(super) use predecessor::{Offer, Offering, Successor};
pub(super) use successor::{Bounds, Taken, ask};

use crate::sys::unix_socket::{self, Peer};

/// Why nothing could be handed over, in one line for the person who started the successor.
#[derive(Debug, thiserror::Error)]
pub enum HandoverError {
    /// The other end cannot be talked to.
    #[error("--handover {path}: {what}: {source}")]
    Io {
        /// The handover socket.
        path: PathBuf,
        /// What was tried.
        what: &'static str,
        /// Why it failed.
        source: io::Error,
    },
    /// It belongs to somebody else.
    #[error("--handover {path}: the process there is another user's (uid {uid})")]
    Stranger {
        /// The handover socket.
        path: PathBuf,
        /// Its user.
        uid: u32,
    },
    /// It said no.
    #[error("--handover {path}: the process there hands nothing over: {why}")]
    Refused {
        /// The handover socket.
        path: PathBuf,
        /// What it said.
        why: String,
    },
    /// It has been told to end, and does not.
    #[error(
        "--handover {path}: the process there (pid {pid}) has handed over and does not end within {seconds} s; end it \
         (kill -9 {pid}) and start again"
    )]
    Hangs {
        /// The handover socket.
        path: PathBuf,
        /// The process.
        pid: u32,
        /// How long it was waited for.
        seconds: u64,
    },
}

/// A path in the form in which two processes that may have been started in different directories can compare it: its directory
/// resolved. The last part may not be there, and is not followed.
pub(super) fn key(path: &Path) -> PathBuf {
    let directory = match path.parent() {
        Some(parent) if !parent.as_os_str().is_empty() => parent,
        _ => Path::new("."),
    };
    match (directory.canonicalize(), path.file_name()) {
        (Ok(directory), Some(name)) => directory.join(name),
        _ => path.to_owned(),
    }
}

/// Whether the process at the other end may have our sockets, or be believed: one of our user, or root.
fn is_trusted(stream: &UnixStream) -> io::Result<Result<Peer, Peer>> {
    let peer = unix_socket::peer(stream)?;
    Ok(if peer.uid == 0 || peer.uid == unix_socket::own_uid() { Ok(peer) } else { Err(peer) })
}
