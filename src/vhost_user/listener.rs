//! Where front-ends connect: a socket file of ours, or a descriptor that we were started with.
//!
//! # Contract
//!
//! * A listener is bound once and kept for the life of the process: connections come and go, the file stays.
//! * The socket file (0600 unless told otherwise) is never open to more than was asked for: until its group is the one asked
//!   for it is its owner's only, and nobody can connect before it is all that it will be, for it does not listen.
//! * A path that a live process listens on is refused. A stale one, that nobody listens on, is taken over. While
//!   looking and binding, and again while removing, an exclusive `flock` is held on the *directory* of the socket,
//!   so two processes that start at the same time cannot both think it stale. The lock leaves nothing
//!   behind, and no other file is created.
//! * On drop the file is removed, if it is still the one that was bound (same device and inode), unless it was
//!   [left](Listener::leave) to a successor, who [goes on](Listener::going_on) with the same socket.

use std::fs::{self, File};
use std::io;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd, RawFd};
use std::os::unix::fs::{FileTypeExt, MetadataExt, OpenOptionsExt, PermissionsExt, chown};
use std::os::unix::net::{UnixListener, UnixStream};
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use crate::sys::fd;
use crate::sys::unix_socket::{self, Probe};

/// Permissions of a socket file unless told otherwise: its owner only.
pub const DEFAULT_MODE: u32 = 0o600;

/// Connections that may wait to be accepted.
const BACKLOG: u16 = 128;

/// How long another process may hold the lock of a directory before we give up.
const LOCK_BOUND: Duration = Duration::from_secs(5);

/// Why a socket cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum ListenError {
    /// The path does not fit a socket address.
    #[error("socket path {path}: too long ({len} bytes, at most {max})", max = unix_socket::MAX_PATH)]
    PathTooLong {
        /// The path.
        path: PathBuf,
        /// Its length in bytes.
        len: usize,
    },
    /// A live process listens there.
    #[error("socket path {0}: in use by a running process")]
    InUse(PathBuf),
    /// Something that is no socket is in the way.
    #[error("socket path {0}: exists and is not a socket")]
    NotASocket(PathBuf),
    /// The directory stayed locked by another process.
    #[error("socket path {0}: its directory stays locked by another process")]
    Locked(PathBuf),
    /// A system call failed.
    #[error("socket path {path}: {what}: {error}")]
    Path {
        /// The path.
        path: PathBuf,
        /// What was tried.
        what: &'static str,
        /// Why it failed.
        error: io::Error,
    },
    /// The descriptor is neither a listening nor a connected Unix stream socket.
    #[error("descriptor {number}: {what}")]
    BadFd {
        /// Its number.
        number: RawFd,
        /// What is wrong with it.
        what: String,
    },
}

/// A listening socket.
#[derive(Debug)]
pub struct Listener {
    socket: UnixListener,
    file: Option<SocketFile>,
}

/// A descriptor that we were started with, after a look at what it is.
#[derive(Debug)]
pub enum Inherited {
    /// It listens.
    Listening(Listener),
    /// It is connected to a front-end already.
    Connected(UnixStream),
}

impl Listener {
    /// Binds `path` and listens. `mode` are the permissions of the socket file.
    pub fn bind(path: &Path, mode: u32) -> Result<Listener, ListenError> {
        Listener::bind_for(path, mode, None)
    }

    /// The same for a file that has a group of its own.
    pub fn bind_for(path: &Path, mode: u32, group: Option<u32>) -> Result<Listener, ListenError> {
        let len = path.as_os_str().len();
        if len > unix_socket::MAX_PATH {
            return Err(ListenError::PathTooLong { path: path.to_owned(), len });
        }
        let failed = |what| move |error| ListenError::Path { path: path.to_owned(), what, error };
        let lock = lock_directory(path)?;
        make_way(path)?;
        // Nothing for the group while it is another one.
        let at_first = if group.is_some() { mode & 0o700 } else { mode };
        let socket = unix_socket::bind(path, at_first).map_err(failed("cannot bind"))?;
        // From here on the file is ours to remove. It is looked at and changed through a descriptor: its name may come to stand for
        // another file where others may write to the directory.
        let handle = File::options().read(true).custom_flags(libc::O_PATH | libc::O_NOFOLLOW).open(path);
        let handle = handle.map_err(failed("cannot look at it"))?;
        let meta = handle.metadata().map_err(failed("cannot look at it"))?;
        if !meta.file_type().is_socket() {
            return Err(ListenError::NotASocket(path.to_owned()));
        }
        let file = SocketFile { path: path.to_owned(), device: meta.dev(), inode: meta.ino() };
        let itself = PathBuf::from(format!("/proc/self/fd/{}", handle.as_raw_fd()));
        if group.is_some() {
            chown(&itself, None, group).map_err(failed("cannot give it to its group"))?;
        }
        // The umask took something away, or it was kept back from a group.
        if meta.permissions().mode() & 0o777 != mode & 0o777 {
            fs::set_permissions(&itself, fs::Permissions::from_mode(mode))
                .map_err(failed("cannot set its permissions"))?;
        }
        let socket = unix_socket::listen(socket, BACKLOG).map_err(failed("cannot listen"))?;
        drop(lock);
        Ok(Listener { socket, file: Some(file) })
    }

    /// Takes the next connection; blocks if there is none, unless the listener was made non-blocking.
    pub fn accept(&self) -> io::Result<UnixStream> {
        self.socket.accept().map(|(stream, _)| stream)
    }

    /// Makes [`accept`](Self::accept) return `WouldBlock` instead of blocking.
    pub fn set_nonblocking(&self) -> io::Result<()> {
        self.socket.set_nonblocking(true)
    }

    /// The socket file, if this listener has one.
    pub fn path(&self) -> Option<&Path> {
        self.file.as_ref().map(|f| f.path.as_path())
    }

    /// Device and inode of the socket file, if it is ours to remove.
    pub fn file(&self) -> Option<(u64, u64)> {
        self.file.as_ref().map(|f| (f.device, f.inode))
    }

    /// Goes on with a socket that another process has listened on until now, and with the file that it made for it: its path, device
    /// and inode. `None`: the file is no longer that one, or the descriptor no listening Unix stream socket.
    pub fn going_on(socket: OwnedFd, file: Option<(PathBuf, u64, u64)>) -> Option<Listener> {
        let Ok(Inherited::Listening(Listener { socket, .. })) = Inherited::from_fd(socket) else { return None };
        if let Some((path, device, inode)) = &file
            && !is_that_file(path, *device, *inode)
        {
            return None;
        }
        let file = file.map(|(path, device, inode)| SocketFile { path, device, inode });
        Some(Listener { socket, file })
    }

    /// Closes this end and leaves the file: another process goes on with it.
    pub fn leave(mut self) {
        if let Some(file) = self.file.take() {
            std::mem::forget(file);
        }
    }
}

impl AsFd for Listener {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.socket.as_fd()
    }
}

impl Inherited {
    /// Takes the descriptor of this number, which this process was started with (`--fd`): listening, or connected.
    /// Back-ends of either habit exist, so the socket itself is asked.
    pub fn take(number: RawFd) -> Result<Inherited, ListenError> {
        let bad = |what: String| ListenError::BadFd { number, what };
        let owned = fd::take_inherited(number).map_err(|e| bad(e.to_string()))?;
        Inherited::from_fd(owned)
    }

    /// The same for a descriptor that is owned already.
    pub fn from_fd(owned: OwnedFd) -> Result<Inherited, ListenError> {
        let number = owned.as_raw_fd();
        let bad = |what: String| ListenError::BadFd { number, what };
        if !unix_socket::is_unix_stream(&owned).map_err(|e| bad(e.to_string()))? {
            return Err(bad("not a Unix stream socket".into()));
        }
        if unix_socket::is_listening(&owned).map_err(|e| bad(e.to_string()))? {
            return Ok(Inherited::Listening(Listener { socket: UnixListener::from(owned), file: None }));
        }
        let stream = UnixStream::from(owned);
        stream.peer_addr().map_err(|_| bad("neither listening nor connected".into()))?;
        stream.set_nonblocking(false).map_err(|e| bad(e.to_string()))?;
        Ok(Inherited::Connected(stream))
    }
}

/// The socket file that we made.
#[derive(Debug)]
struct SocketFile {
    path: PathBuf,
    device: u64,
    inode: u64,
}

impl Drop for SocketFile {
    fn drop(&mut self) {
        let _lock = lock_directory(&self.path);
        let ours = is_that_file(&self.path, self.device, self.inode);
        if ours && let Err(error) = fs::remove_file(&self.path) {
            log::warn!("socket path {}: cannot remove it: {error}", self.path.display());
        }
    }
}

fn is_that_file(path: &Path, device: u64, inode: u64) -> bool {
    fs::symlink_metadata(path).is_ok_and(|m| m.dev() == device && m.ino() == inode)
}

/// The directory of a socket file.
pub fn directory_of(path: &Path) -> &Path {
    match path.parent() {
        Some(parent) if !parent.as_os_str().is_empty() => parent,
        _ => Path::new("."),
    }
}

/// Locks the directory of `path` until the returned file is dropped.
fn lock_directory(path: &Path) -> Result<File, ListenError> {
    let failed = |what| move |error| ListenError::Path { path: path.to_owned(), what, error };
    let file = File::open(directory_of(path)).map_err(failed("cannot open its directory"))?;
    let start = Instant::now();
    loop {
        match fd::try_lock_exclusive(&file) {
            Ok(true) => break,
            Ok(false) => {}
            // A file system that knows no locks: then two that start at the same moment are not told apart.
            Err(e) if matches!(e.raw_os_error(), Some(libc::ENOLCK | libc::EOPNOTSUPP | libc::ENOSYS)) => break,
            Err(e) => return Err(failed("cannot lock its directory")(e)),
        }
        if start.elapsed() > LOCK_BOUND {
            return Err(ListenError::Locked(path.to_owned()));
        }
        std::thread::sleep(Duration::from_millis(5));
    }
    Ok(file)
}

/// Removes a stale socket; refuses everything else that exists.
fn make_way(path: &Path) -> Result<(), ListenError> {
    let failed = |what| move |error| ListenError::Path { path: path.to_owned(), what, error };
    let meta = match fs::symlink_metadata(path) {
        Err(e) if e.kind() == io::ErrorKind::NotFound => return Ok(()),
        other => other.map_err(failed("cannot look at it"))?,
    };
    if !meta.file_type().is_socket() {
        return Err(ListenError::NotASocket(path.to_owned()));
    }
    match unix_socket::probe(path).map_err(failed("cannot find out whether it is in use"))? {
        Probe::Absent => Ok(()),
        Probe::Live => Err(ListenError::InUse(path.to_owned())),
        Probe::Stale => fs::remove_file(path).map_err(failed("cannot remove the stale socket")),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::sync::Barrier;

    #[test]
    fn binds_with_0600_and_cleans_up() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("vm.sock");
        let listener = Listener::bind(&path, DEFAULT_MODE).unwrap();
        assert_eq!(fs::metadata(&path).unwrap().permissions().mode() & 0o777, 0o600);
        assert_eq!(listener.path(), Some(path.as_path()));
        drop(listener);
        assert!(!path.exists());
        assert_eq!(fs::read_dir(dir.path()).unwrap().count(), 0, "no litter");
    }

    #[test]
    fn a_wider_mode_is_not_narrowed_by_the_umask() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("vm.sock");
        let _listener = Listener::bind(&path, 0o666).unwrap();
        assert_eq!(fs::metadata(&path).unwrap().permissions().mode() & 0o777, 0o666);
    }

    #[test]
    fn a_group_of_its_own() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("vm.sock");
        // The group that the process has is one that it may always give.
        let own = fs::metadata(dir.path()).unwrap().gid();
        let _listener = Listener::bind_for(&path, 0o620, Some(own)).unwrap();
        let meta = fs::metadata(&path).unwrap();
        assert_eq!((meta.permissions().mode() & 0o777, meta.gid()), (0o620, own));
        if meta.uid() == 0 {
            let path = dir.path().join("other.sock");
            let _listener = Listener::bind_for(&path, 0o660, Some(own + 4711)).unwrap();
            assert_eq!(fs::metadata(&path).unwrap().gid(), own + 4711);
        }
    }

    #[test]
    fn live_is_refused_and_stale_is_taken_over() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("vm.sock");
        let live = UnixListener::bind(&path).unwrap();
        assert!(matches!(Listener::bind(&path, DEFAULT_MODE), Err(ListenError::InUse(_))));
        drop(live); // the standard library leaves the file
        assert!(path.exists());
        let ours = Listener::bind(&path, DEFAULT_MODE).unwrap();
        assert!(matches!(Listener::bind(&path, DEFAULT_MODE), Err(ListenError::InUse(_))));
        drop(ours);
    }

    #[test]
    fn a_file_in_the_way_is_left_alone() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("vm.sock");
        fs::write(&path, "precious").unwrap();
        assert!(matches!(Listener::bind(&path, DEFAULT_MODE), Err(ListenError::NotASocket(_))));
        assert_eq!(fs::read(&path).unwrap(), b"precious");
    }

    #[test]
    fn a_path_too_long_is_named() {
        let path = PathBuf::from(format!("/tmp/{}", "x".repeat(200)));
        let text = Listener::bind(&path, DEFAULT_MODE).unwrap_err().to_string();
        assert!(text.contains("too long (205 bytes, at most 107)"), "{text}");
    }

    #[test]
    fn a_missing_directory_is_named() {
        let text = Listener::bind(Path::new("/nonexistent/vm.sock"), DEFAULT_MODE).unwrap_err().to_string();
        assert!(text.contains("/nonexistent/vm.sock") && text.contains("directory"), "{text}");
    }

    #[test]
    fn a_socket_that_replaced_ours_is_not_removed() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("vm.sock");
        let ours = Listener::bind(&path, DEFAULT_MODE).unwrap();
        // Keep the inode alive under another name so that its number cannot be used again.
        fs::rename(&path, dir.path().join("old")).unwrap();
        let theirs = UnixListener::bind(&path).unwrap();
        drop(ours);
        assert!(path.exists());
        drop(theirs);
    }

    #[test]
    fn a_successor_goes_on_with_socket_and_file() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("vm.sock");
        let ours = Listener::bind(&path, DEFAULT_MODE).unwrap();
        let (device, inode) = ours.file().unwrap();
        let file = || Some((path.clone(), device, inode));
        let theirs = || ours.as_fd().try_clone_to_owned().unwrap();
        let successor = Listener::going_on(theirs(), file()).unwrap();
        let none = Listener::going_on(theirs(), Some((path.clone(), device, inode + 1)));
        assert!(none.is_none() && path.exists(), "another file is not touched");
        ours.leave();
        let _client = UnixStream::connect(&path).unwrap();
        successor.accept().unwrap();
        drop(successor);
        assert!(!path.exists());
        assert!(Listener::going_on(tempfile::tempfile().unwrap().into(), None).is_none());
    }

    #[test]
    fn of_many_that_take_over_a_stale_socket_one_wins() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("vm.sock");
        drop(UnixListener::bind(&path).unwrap());
        let barrier = Barrier::new(8);
        let winners: Vec<Listener> = std::thread::scope(|scope| {
            let threads: Vec<_> = (0..8)
                .map(|_| {
                    scope.spawn(|| {
                        barrier.wait();
                        Listener::bind(&path, DEFAULT_MODE)
                    })
                })
                .collect();
            threads.into_iter().filter_map(|t| t.join().unwrap().ok()).collect()
        });
        assert_eq!(winners.len(), 1);
        UnixStream::connect(&path).unwrap();
    }

    #[test]
    fn descriptors_listening_or_connected() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("vm.sock");
        let listener = UnixListener::bind(&path).unwrap();
        let client = UnixStream::connect(&path).unwrap();
        assert!(matches!(Inherited::from_fd(client.into()), Ok(Inherited::Connected(_))));
        assert!(matches!(Inherited::from_fd(listener.into()), Ok(Inherited::Listening(_))));
        assert!(path.exists(), "not ours to remove");
        let bound = unix_socket::bind(&dir.path().join("other"), 0o600).unwrap();
        let text = Inherited::from_fd(bound).unwrap_err().to_string();
        assert!(text.contains("neither listening nor connected"), "{text}");
        assert!(Inherited::from_fd(tempfile::tempfile().unwrap().into()).is_err());
    }
}
