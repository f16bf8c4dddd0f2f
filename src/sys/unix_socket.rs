//! Unix sockets where the standard library does not reach: binding with a mode, probing without blocking, looking at
//! what comes without taking it.
#![allow(unsafe_code, reason = "socket calls; each use argues its pointers and descriptors")]

use std::io;
use std::mem::{offset_of, size_of};
use std::os::fd::{AsFd, AsRawFd, FromRawFd, OwnedFd};
use std::os::unix::ffi::{OsStrExt, OsStringExt};
use std::os::unix::net::{UnixListener, UnixStream};
use std::path::{Path, PathBuf};

/// Longest path that fits a socket address, in bytes (its terminating zero not counted).
pub const MAX_PATH: usize = size_of::<libc::sockaddr_un>() - offset_of!(libc::sockaddr_un, sun_path) - 1;

/// What [`probe`] found.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Probe {
    /// Somebody listens.
    Live,
    /// A socket file that nobody listens on any more.
    Stale,
    /// No such file.
    Absent,
}

fn address(path: &Path) -> io::Result<(libc::sockaddr_un, libc::socklen_t)> {
    let bytes = path.as_os_str().as_bytes();
    if bytes.is_empty() || bytes.len() > MAX_PATH || bytes.contains(&0) {
        return Err(io::Error::new(io::ErrorKind::InvalidInput, "not usable as a socket path"));
    }
    // SAFETY: sockaddr_un is plain data; all zeroes is a value of it.
    let mut addr: libc::sockaddr_un = unsafe { std::mem::zeroed() };
    addr.sun_family = libc::AF_UNIX as libc::sa_family_t;
    for (to, from) in addr.sun_path.iter_mut().zip(bytes) {
        *to = *from as libc::c_char;
    }
    let len = offset_of!(libc::sockaddr_un, sun_path) + bytes.len() + 1;
    Ok((addr, len as libc::socklen_t))
}

fn stream_socket(flags: libc::c_int) -> io::Result<OwnedFd> {
    // SAFETY: socket takes integers only.
    let fd = unsafe { libc::socket(libc::AF_UNIX, libc::SOCK_STREAM | libc::SOCK_CLOEXEC | flags, 0) };
    if fd < 0 {
        return Err(io::Error::last_os_error());
    }
    // SAFETY: the kernel just gave us this descriptor, nobody else owns it.
    Ok(unsafe { OwnedFd::from_raw_fd(fd) })
}

/// Creates a stream socket file at `path` with at most the permissions of `mode` (the umask is applied), not listening
/// yet: until [`listen`], connecting is refused. The file never exists with wider permissions, not for a moment.
pub fn bind(path: &Path, mode: u32) -> io::Result<OwnedFd> {
    let (addr, len) = address(path)?;
    let socket = stream_socket(0)?;
    // The kernel takes the socket inode's permissions for the file that bind creates.
    // SAFETY: fchmod takes integers only.
    if unsafe { libc::fchmod(socket.as_raw_fd(), mode as libc::mode_t) } < 0 {
        return Err(io::Error::last_os_error());
    }
    // SAFETY: `addr` is a valid address of `len` bytes for the duration of the call.
    if unsafe { libc::bind(socket.as_raw_fd(), (&raw const addr).cast(), len) } < 0 {
        return Err(io::Error::last_os_error());
    }
    Ok(socket)
}

/// Starts listening on a bound socket.
pub fn listen(socket: OwnedFd, backlog: u16) -> io::Result<UnixListener> {
    // SAFETY: listen takes integers only.
    if unsafe { libc::listen(socket.as_raw_fd(), libc::c_int::from(backlog)) } < 0 {
        return Err(io::Error::last_os_error());
    }
    Ok(UnixListener::from(socket))
}

/// Finds out whether somebody listens on the socket file at `path`, without ever blocking.
pub fn probe(path: &Path) -> io::Result<Probe> {
    let (addr, len) = address(path)?;
    let socket = stream_socket(libc::SOCK_NONBLOCK)?;
    // SAFETY: `addr` is a valid address of `len` bytes for the duration of the call.
    if unsafe { libc::connect(socket.as_raw_fd(), (&raw const addr).cast(), len) } == 0 {
        return Ok(Probe::Live);
    }
    let error = io::Error::last_os_error();
    match error.raw_os_error() {
        // A full backlog, or a socket of another type: somebody is there.
        Some(libc::EAGAIN | libc::EINPROGRESS | libc::EPROTOTYPE) => Ok(Probe::Live),
        Some(libc::ECONNREFUSED) => Ok(Probe::Stale),
        Some(libc::ENOENT) => Ok(Probe::Absent),
        _ => Err(error),
    }
}

fn int_option(socket: &impl AsFd, option: libc::c_int) -> io::Result<libc::c_int> {
    let mut value: libc::c_int = 0;
    let mut len = size_of::<libc::c_int>() as libc::socklen_t;
    let fd = socket.as_fd().as_raw_fd();
    // SAFETY: `value` and `len` are valid for writing, and `len` says how large `value` is.
    let rc = unsafe { libc::getsockopt(fd, libc::SOL_SOCKET, option, (&raw mut value).cast(), &raw mut len) };
    if rc < 0 { Err(io::Error::last_os_error()) } else { Ok(value) }
}

/// The effective user of the process that made this connection, at the time when it did (`SO_PEERCRED`), in the numbers of this
/// process's user namespace; one that has no number there is the overflow user (65534).
pub fn peer_user(stream: &UnixStream) -> io::Result<u32> {
    let mut peer = libc::ucred { pid: 0, uid: 0, gid: 0 };
    let mut len = size_of::<libc::ucred>() as libc::socklen_t;
    let place = (&raw mut peer).cast();
    // SAFETY: `peer` and `len` are valid for writing, and `len` says how large `peer` is.
    let rc = unsafe { libc::getsockopt(stream.as_raw_fd(), libc::SOL_SOCKET, libc::SO_PEERCRED, place, &raw mut len) };
    if rc < 0 { Err(io::Error::last_os_error()) } else { Ok(peer.uid) }
}

/// Whether the descriptor is a Unix stream socket.
pub fn is_unix_stream(fd: &impl AsFd) -> io::Result<bool> {
    match int_option(fd, libc::SO_DOMAIN) {
        Err(e) if e.raw_os_error() == Some(libc::ENOTSOCK) => Ok(false),
        Err(e) => Err(e),
        Ok(domain) => Ok(domain == libc::AF_UNIX && int_option(fd, libc::SO_TYPE)? == libc::SOCK_STREAM),
    }
}

/// Whether the socket is listening (`SO_ACCEPTCONN`).
pub fn is_listening(socket: &impl AsFd) -> io::Result<bool> {
    Ok(int_option(socket, libc::SO_ACCEPTCONN)? != 0)
}

/// The path that the socket was bound to, as it was given to `bind`; `None` if it has none, or a name of the abstract namespace.
pub fn bound_path(socket: &impl AsFd) -> io::Result<Option<PathBuf>> {
    // SAFETY: sockaddr_un is plain data; all zeroes is a value of it.
    let mut addr: libc::sockaddr_un = unsafe { std::mem::zeroed() };
    let mut len = size_of::<libc::sockaddr_un>() as libc::socklen_t;
    let fd = socket.as_fd().as_raw_fd();
    // SAFETY: `addr` and `len` are valid for writing, and `len` says how large `addr` is.
    if unsafe { libc::getsockname(fd, (&raw mut addr).cast(), &raw mut len) } < 0 {
        return Err(io::Error::last_os_error());
    }
    if i32::from(addr.sun_family) != libc::AF_UNIX {
        return Ok(None);
    }
    let given = (len as usize).saturating_sub(offset_of!(libc::sockaddr_un, sun_path));
    let bytes = addr.sun_path.iter().take(given).map(|byte| *byte as u8).take_while(|byte| *byte != 0);
    let path = PathBuf::from(std::ffi::OsString::from_vec(bytes.collect()));
    Ok((!path.as_os_str().is_empty()).then_some(path))
}

/// Who is at the other end of a connection: what the kernel noted when it was made (`SO_PEERCRED`).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Peer {
    /// Its process, which may be gone.
    pub pid: i32,
    /// Its effective user.
    pub uid: u32,
}

/// Who is at the other end.
pub fn peer(stream: &UnixStream) -> io::Result<Peer> {
    let mut found = libc::ucred { pid: 0, uid: 0, gid: 0 };
    let mut len = size_of::<libc::ucred>() as libc::socklen_t;
    let (fd, into) = (stream.as_raw_fd(), (&raw mut found).cast());
    // SAFETY: `found` and `len` are valid for writing, and `len` says how large `found` is.
    if unsafe { libc::getsockopt(fd, libc::SOL_SOCKET, libc::SO_PEERCRED, into, &raw mut len) } < 0 {
        return Err(io::Error::last_os_error());
    }
    Ok(Peer { pid: found.pid, uid: found.uid })
}

/// The effective user of this process.
pub fn own_uid() -> u32 {
    // SAFETY: geteuid takes nothing and cannot fail.
    unsafe { libc::geteuid() }
}

/// Copies the bytes that wait at the head of the stream, without taking them or descriptors that came with them. Blocks until
/// there is at least one byte; 0 at the end of the stream. May return fewer than have been sent.
pub fn peek(stream: &UnixStream, buf: &mut [u8]) -> io::Result<usize> {
    loop {
        // SAFETY: `buf` is valid for writing `buf.len()` bytes.
        let n = unsafe { libc::recv(stream.as_raw_fd(), buf.as_mut_ptr().cast(), buf.len(), libc::MSG_PEEK) };
        if n >= 0 {
            return Ok(n as usize);
        }
        let error = io::Error::last_os_error();
        if error.kind() != io::ErrorKind::Interrupted {
            return Err(error);
        }
    }
}

/// Whether the other end has closed the connection, or this one was shut down. What was sent before may still wait to be read.
pub fn peer_has_closed(stream: &UnixStream) -> bool {
    let mut poll = libc::pollfd { fd: stream.as_raw_fd(), events: 0, revents: 0 };
    // SAFETY: `poll` is one valid pollfd for the duration of the call, which does not wait.
    let ready = unsafe { libc::poll(&raw mut poll, 1, 0) };
    ready == 1 && poll.revents & libc::POLLHUP != 0
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::io::{Read, Write};
    use std::os::unix::fs::PermissionsExt;

    #[test]
    fn a_bound_socket_has_its_mode_and_refuses_until_it_listens() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("s");
        assert_eq!(probe(&path).unwrap(), Probe::Absent);
        let socket = bind(&path, 0o600).unwrap();
        assert_eq!(std::fs::metadata(&path).unwrap().permissions().mode() & 0o777, 0o600);
        assert_eq!(probe(&path).unwrap(), Probe::Stale);
        assert!(!is_listening(&socket).unwrap());
        let listener = listen(socket, 1).unwrap();
        assert!(is_listening(&listener).unwrap());
        assert_eq!(probe(&path).unwrap(), Probe::Live);
        drop(listener);
        assert_eq!(probe(&path).unwrap(), Probe::Stale);
    }

    #[test]
    fn a_full_backlog_is_live_and_does_not_block() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("s");
        let listener = listen(bind(&path, 0o600).unwrap(), 0).unwrap();
        for _ in 0..5 {
            assert_eq!(probe(&path).unwrap(), Probe::Live);
        }
        drop(listener);
    }

    #[test]
    fn paths_are_bounded() {
        assert_eq!(MAX_PATH, 107);
        let dir = tempfile::tempdir().unwrap();
        let base = dir.path().as_os_str().len() + 1;
        let fits = dir.path().join("x".repeat(MAX_PATH - base));
        bind(&fits, 0o600).unwrap();
        assert!(bind(&dir.path().join("x".repeat(MAX_PATH - base + 1)), 0o600).is_err());
    }

    #[test]
    fn peeking_takes_nothing() {
        let (mut a, mut b) = UnixStream::pair().unwrap();
        a.write_all(b"abc").unwrap();
        let mut buf = [0u8; 8];
        assert_eq!(peek(&b, &mut buf).unwrap(), 3);
        assert_eq!(peek(&b, &mut buf).unwrap(), 3);
        b.read_exact(&mut buf[..3]).unwrap();
        drop(a);
        assert_eq!(peek(&b, &mut buf).unwrap(), 0);
    }

    #[test]
    fn a_closed_peer_is_seen_before_its_last_bytes_are_read() {
        let (mut a, b) = UnixStream::pair().unwrap();
        assert!(!peer_has_closed(&b));
        a.write_all(b"abc").unwrap();
        assert!(!peer_has_closed(&b));
        drop(a);
        assert!(peer_has_closed(&b));
    }

    #[test]
    fn a_socket_knows_its_path_and_its_peer() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("s");
        let listener = listen(bind(&path, 0o600).unwrap(), 1).unwrap();
        assert_eq!(bound_path(&listener).unwrap(), Some(path.clone()));
        let stream = UnixStream::connect(&path).unwrap();
        assert_eq!(bound_path(&stream).unwrap(), None);
        let us = Peer { pid: std::process::id() as i32, uid: own_uid() };
        assert_eq!(peer(&stream).unwrap(), us);
        assert_eq!(peer(&listener.accept().unwrap().0).unwrap(), us);
    }

    #[test]
    fn only_unix_streams_are_unix_streams() {
        let (a, _b) = UnixStream::pair().unwrap();
        assert!(is_unix_stream(&a).unwrap());
        assert!(!is_unix_stream(&tempfile::tempfile().unwrap()).unwrap());
        let (d, _e) = std::os::unix::net::UnixDatagram::pair().unwrap();
        assert!(!is_unix_stream(&d).unwrap());
    }

    #[test]
    fn a_connection_is_over_when_either_end_is_closed() {
        let (ours, theirs) = UnixStream::pair().unwrap();
        assert!(!peer_has_closed(&ours));
        std::io::Write::write_all(&mut &theirs, b"unread").unwrap();
        drop(theirs);
        assert!(peer_has_closed(&ours), "closed, though there is something to read");

        let (ours, _theirs) = UnixStream::pair().unwrap();
        ours.shutdown(std::net::Shutdown::Both).unwrap();
        assert!(peer_has_closed(&ours));
    }
}
