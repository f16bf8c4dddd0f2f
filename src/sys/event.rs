//! Eventfds that somebody else made and shares.
#![allow(unsafe_code, reason = "preadv2 has no safe wrapper in the crates at hand")]

use std::fs::File;
use std::io::{self, Write};
use std::os::fd::AsRawFd;

/// Empties an eventfd. Never blocks, even if whoever shares it has made it blocking.
///
/// # Errors
///
/// Only if it can never be emptied: what it is then is no eventfd, and to wait for it would be to spin. That there is nothing to
/// take is no error.
pub fn take(event: &File) -> io::Result<()> {
    let mut counter = [0u8; 8];
    let iov = libc::iovec { iov_base: counter.as_mut_ptr().cast(), iov_len: counter.len() };
    // SAFETY: one iovec over a live buffer of that length; offset -1 means "as read does".
    let n = unsafe { libc::preadv2(event.as_raw_fd(), &iov, 1, -1, libc::RWF_NOWAIT) };
    if n >= 0 {
        return Ok(());
    }
    let error = io::Error::last_os_error();
    match error.kind() {
        io::ErrorKind::WouldBlock | io::ErrorKind::Interrupted => Ok(()),
        _ => Err(error),
    }
}

/// Adds one to an eventfd's counter. A counter that is full is readable, which is all that is wanted.
///
/// The descriptor has been made non-blocking; one that its other holder both fills and makes blocking again blocks the caller until that
/// holder reads it. The kernel has no write to an eventfd that could not.
///
/// # Errors
///
/// What `write` says.
pub fn signal(mut event: &File) -> io::Result<()> {
    match event.write(&1u64.to_ne_bytes()) {
        Err(e) if e.kind() == io::ErrorKind::WouldBlock => Ok(()),
        other => other.map(drop),
    }
}

#[cfg(test)]
mod tests {
    use std::os::fd::{FromRawFd, IntoRawFd};

    use vmm_sys_util::eventfd::EventFd;

    use super::*;

    fn eventfd(initial: u64, flags: i32) -> File {
        let event = EventFd::new(flags).unwrap();
        if initial > 0 {
            event.write(initial).unwrap();
        }
        // SAFETY: the descriptor was just given up by `into_raw_fd`.
        unsafe { File::from_raw_fd(event.into_raw_fd()) }
    }

    #[test]
    fn taking_empties_and_never_blocks() {
        let event = eventfd(3, libc::EFD_NONBLOCK);
        take(&event).unwrap();
        signal(&event).unwrap();
        take(&event).unwrap();

        // Blocking and empty: a plain read would wait for ever.
        take(&eventfd(0, 0)).unwrap();
        let blocking = eventfd(7, 0);
        take(&blocking).unwrap();
        take(&blocking).unwrap();
    }

    #[test]
    fn a_full_counter_is_fine() {
        let event = eventfd(u64::MAX - 1, libc::EFD_NONBLOCK);
        signal(&event).unwrap();
    }

    #[test]
    fn what_cannot_be_emptied_is_an_error() {
        // An epoll descriptor is an anonymous file as well, but cannot be read.
        let epoll = vmm_sys_util::epoll::Epoll::new().unwrap();
        // SAFETY: a duplicate of an open descriptor, which nobody else has.
        let epoll = unsafe { File::from_raw_fd(libc::dup(epoll.as_raw_fd())) };
        assert!(take(&epoll).is_err());
    }
}
