//! The wait set of a thread: sleep until one of many file descriptors is readable.
//!
//! # Contract
//!
//! Level-triggered: each call of [`Wait::wait`] reports every token whose descriptor is readable at that time (and now and then one whose
//! descriptor was emptied a moment ago: a reader must not block on it). Descriptors are duplicated, the caller may close its own at any time;
//! after [`Wait::remove`] a token is not reported any more, whatever happens to numbers of descriptors. Two implementations,
//! [`UringWait`] and [`EpollWait`], face the same tests.

mod epoll;
#[cfg(test)]
mod tests;
mod uring;

pub use epoll::EpollWait;
pub use uring::UringWait;

use std::io;
use std::os::fd::BorrowedFd;
use std::time::Duration;

pub use super::ring::probe_io_uring;

/// A set of file descriptors to wait for.
pub trait Wait {
    /// Adds a descriptor under a token.
    ///
    /// # Errors
    ///
    /// `AlreadyExists` if the token is in the set; `EPERM` if the descriptor is of a kind that cannot be waited for, such as a regular file;
    /// and what the system calls say.
    fn add(&mut self, fd: BorrowedFd<'_>, token: u64) -> io::Result<()>;

    /// Takes a token out.
    ///
    /// # Errors
    ///
    /// `NotFound` if it is not in the set.
    fn remove(&mut self, token: u64) -> io::Result<()>;

    /// Waits until a descriptor is readable (or in error, or hung up), but at most for `timeout` (`None`: without end; zero: not at
    /// all), and appends the tokens of those that are to `ready`. May return earlier with none, for example on a signal, or because
    /// something else that shares the wait is due.
    fn wait(&mut self, timeout: Option<Duration>, ready: &mut Vec<u64>) -> io::Result<()>;
}

fn known(token: u64) -> io::Error {
    io::Error::new(io::ErrorKind::AlreadyExists, format!("token {token} is in the wait set already"))
}

fn unknown(token: u64) -> io::Error {
    io::Error::new(io::ErrorKind::NotFound, format!("token {token} is not in the wait set"))
}
