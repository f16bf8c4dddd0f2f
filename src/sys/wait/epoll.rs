//! Waiting with epoll, for where io_uring is refused.
#![allow(unsafe_code, reason = "epoll is reached through libc")]

use std::collections::HashMap;
use std::io;
use std::os::fd::{AsRawFd, BorrowedFd, FromRawFd, OwnedFd};
use std::time::Duration;

use super::{Wait, known, unknown};

/// A wait set on an epoll instance.
#[derive(Debug)]
pub struct EpollWait {
    epoll: OwnedFd,
    fds: HashMap<u64, OwnedFd>,
    events: Vec<libc::epoll_event>,
    /// `epoll_pwait2` (nanoseconds) is there.
    fine: bool,
}

impl EpollWait {
    /// An empty set.
    pub fn new() -> io::Result<EpollWait> {
        // SAFETY: no pointer goes in; the result is checked and owned once.
        let epoll = unsafe {
            let fd = libc::epoll_create1(libc::EPOLL_CLOEXEC);
            if fd < 0 {
                return Err(io::Error::last_os_error());
            }
            OwnedFd::from_raw_fd(fd)
        };
        Ok(EpollWait { epoll, fds: HashMap::new(), events: Vec::new(), fine: true })
    }

    /// As on a kernel without `epoll_pwait2`.
    #[cfg(test)]
    pub(super) fn without_nanoseconds(&mut self) {
        self.fine = false;
    }

    /// Fills `events`; `Err` with `ENOSYS` or `EPERM` if `fine` and the call is not there.
    fn pwait(&mut self, timeout: Option<Duration>) -> io::Result<usize> {
        let (fd, max) = (self.epoll.as_raw_fd(), self.events.len() as libc::c_int);
        let count = if self.fine {
            let spec = timeout.map(|t| libc::timespec {
                tv_sec: libc::time_t::try_from(t.as_secs()).unwrap_or(libc::time_t::MAX),
                tv_nsec: t.subsec_nanos() as libc::c_long,
            });
            let spec = spec.as_ref().map_or(std::ptr::null(), std::ptr::from_ref);
            // SAFETY: `events` has room for `max` entries; `spec` is null or lives through the call.
            unsafe { libc::epoll_pwait2(fd, self.events.as_mut_ptr(), max, spec, std::ptr::null()) }
        } else {
            // Rounded up: waiting a little longer is right, returning early for ever is not.
            let millis = timeout
                .map_or(-1, |t| libc::c_int::try_from(t.as_nanos().div_ceil(1_000_000)).unwrap_or(libc::c_int::MAX));
            // SAFETY: as above.
            unsafe { libc::epoll_wait(fd, self.events.as_mut_ptr(), max, millis) }
        };
        usize::try_from(count).map_err(|_| io::Error::last_os_error())
    }
}

impl Wait for EpollWait {
    fn add(&mut self, fd: BorrowedFd<'_>, token: u64) -> io::Result<()> {
        if self.fds.contains_key(&token) {
            return Err(known(token));
        }
        let fd = fd.try_clone_to_owned()?;
        let mut event = libc::epoll_event { events: libc::EPOLLIN as u32, u64: token };
        // SAFETY: `event` lives through the call; both descriptors are open.
        if unsafe { libc::epoll_ctl(self.epoll.as_raw_fd(), libc::EPOLL_CTL_ADD, fd.as_raw_fd(), &mut event) } < 0 {
            return Err(io::Error::last_os_error());
        }
        self.fds.insert(token, fd);
        Ok(())
    }

    fn remove(&mut self, token: u64) -> io::Result<()> {
        let fd = self.fds.remove(&token).ok_or_else(|| unknown(token))?;
        // SAFETY: both descriptors are open; no event is needed to delete.
        let result = unsafe {
            libc::epoll_ctl(self.epoll.as_raw_fd(), libc::EPOLL_CTL_DEL, fd.as_raw_fd(), std::ptr::null_mut())
        };
        if result < 0 { Err(io::Error::last_os_error()) } else { Ok(()) }
    }

    fn wait(&mut self, timeout: Option<Duration>, ready: &mut Vec<u64>) -> io::Result<()> {
        // Room for all of them, so that each call reports each one that is readable.
        self.events.resize(self.fds.len().max(1), libc::epoll_event { events: 0, u64: 0 });
        let count = match self.pwait(timeout) {
            Err(e) if self.fine && matches!(e.raw_os_error(), Some(libc::ENOSYS | libc::EPERM)) => {
                self.fine = false;
                self.pwait(timeout)
            }
            other => other,
        };
        let count = match count {
            Ok(count) => count,
            Err(e) if e.kind() == io::ErrorKind::Interrupted => 0,
            Err(e) => return Err(e),
        };
        ready.extend(self.events.iter().take(count).map(|event| event.u64));
        Ok(())
    }
}
