//! File descriptors that came from somewhere else.
#![allow(unsafe_code, reason = "fcntl, flock and descriptors known by number; each use argues the descriptor is open")]

use std::fs::File;
use std::io;
use std::os::fd::{AsRawFd, FromRawFd, IntoRawFd, OwnedFd, RawFd};
use std::os::unix::fs::MetadataExt;
use std::sync::{Mutex, PoisonError};

use vmm_sys_util::event::{EventConsumer, EventNotifier};

/// The file behind the reading end of an event.
pub fn file_of_consumer(event: EventConsumer) -> File {
    // SAFETY: `into_raw_fd` gives up the descriptor that `event` owned.
    unsafe { File::from_raw_fd(event.into_raw_fd()) }
}

/// The file behind the writing end of an event.
pub fn file_of_notifier(event: EventNotifier) -> File {
    // SAFETY: `into_raw_fd` gives up the descriptor that `event` owned.
    unsafe { File::from_raw_fd(event.into_raw_fd()) }
}

/// Makes the open file behind `file` non-blocking (it is shared with whoever else holds it).
pub fn set_nonblocking(file: &impl AsRawFd) -> io::Result<()> {
    let fd = file.as_raw_fd();
    // SAFETY: F_GETFL takes no argument and touches no memory.
    let flags = unsafe { libc::fcntl(fd, libc::F_GETFL) };
    if flags < 0 {
        return Err(io::Error::last_os_error());
    }
    // SAFETY: F_SETFL takes an integer and touches no memory.
    if unsafe { libc::fcntl(fd, libc::F_SETFL, flags | libc::O_NONBLOCK) } < 0 {
        return Err(io::Error::last_os_error());
    }
    Ok(())
}

/// Whether the file is an anonymous inode of the kernel, as eventfds are: no regular file, device, socket or pipe.
pub fn is_anonymous(file: &File) -> io::Result<bool> {
    Ok(file.metadata()?.mode() & libc::S_IFMT == 0)
}

/// Tries to take an exclusive `flock` on the open file. `Ok(false)`: somebody else holds it. It is given back when the last
/// descriptor of this open file is closed.
pub fn try_lock_exclusive(file: &File) -> io::Result<bool> {
    loop {
        // SAFETY: flock takes integers only.
        if unsafe { libc::flock(file.as_raw_fd(), libc::LOCK_EX | libc::LOCK_NB) } == 0 {
            return Ok(true);
        }
        let error = io::Error::last_os_error();
        match error.kind() {
            io::ErrorKind::WouldBlock => return Ok(false),
            io::ErrorKind::Interrupted => {}
            _ => return Err(error),
        }
    }
}

/// Numbers that [`take_inherited`] has handed out.
static TAKEN: Mutex<Vec<RawFd>> = Mutex::new(Vec::new());

/// Takes ownership of a descriptor that this process was started with and was told by number. Refuses the standard
/// three, a number that is not open, and one that was taken before. It becomes close-on-exec.
///
/// To be called while the process starts, before it opens descriptors of its own: a number that this process opened
/// itself belongs to someone already.
pub fn take_inherited(number: RawFd) -> io::Result<OwnedFd> {
    if number <= libc::STDERR_FILENO {
        return Err(io::Error::new(io::ErrorKind::InvalidInput, "standard descriptors cannot be used"));
    }
    let mut taken = TAKEN.lock().unwrap_or_else(PoisonError::into_inner);
    if taken.contains(&number) {
        return Err(io::Error::new(io::ErrorKind::AlreadyExists, "descriptor is used already"));
    }
    // SAFETY: F_SETFD takes an integer and touches no memory; a number that is not open gives EBADF.
    if unsafe { libc::fcntl(number, libc::F_SETFD, libc::FD_CLOEXEC) } < 0 {
        return Err(io::Error::last_os_error());
    }
    taken.push(number);
    // SAFETY: the number is open (above), it was handed to this process by its parent, and nobody else here takes it:
    // `taken` gives each number out once and the caller's contract excludes descriptors opened by this process.
    Ok(unsafe { OwnedFd::from_raw_fd(number) })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn eventfds_are_anonymous_and_files_are_not() {
        let event = vmm_sys_util::eventfd::EventFd::new(0).unwrap();
        // SAFETY: the descriptor was just given up by `into_raw_fd`.
        let event = unsafe { File::from_raw_fd(event.into_raw_fd()) };
        assert!(is_anonymous(&event).unwrap());
        assert!(!is_anonymous(&tempfile::tempfile().unwrap()).unwrap());
        assert!(!is_anonymous(&File::open("/dev/null").unwrap()).unwrap());
    }

    #[test]
    fn a_lock_excludes_another_open_of_the_same_directory() {
        let dir = tempfile::tempdir().unwrap();
        let one = File::open(dir.path()).unwrap();
        let two = File::open(dir.path()).unwrap();
        assert!(try_lock_exclusive(&one).unwrap());
        assert!(!try_lock_exclusive(&two).unwrap());
        drop(one);
        assert!(try_lock_exclusive(&two).unwrap());
    }

    #[test]
    fn inherited_numbers_are_checked() {
        assert!(take_inherited(0).is_err());
        assert!(take_inherited(-1).is_err());
        assert_eq!(take_inherited(60_000).unwrap_err().raw_os_error(), Some(libc::EBADF));
        let number = tempfile::tempfile().unwrap().into_raw_fd();
        let owned = take_inherited(number).unwrap();
        assert_eq!(take_inherited(number).unwrap_err().kind(), io::ErrorKind::AlreadyExists);
        drop(owned);
    }
}
