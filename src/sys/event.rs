//! Eventfds that somebody else made and shares.
//!
//! # Contract
//!
//! Nothing here ever blocks, whatever the other holder does to the eventfd meanwhile: it shares the open file, so it can fill the
//! counter and clear `O_NONBLOCK` at any time, and a plain `read` or `write` would then wait for as long as it pleases.
//!
//! * Reading has a flag for it (`RWF_NOWAIT`). Writing has none: an eventfd refuses it, io_uring's write goes by `O_NONBLOCK` like
//!   `write`, and to look first is to lose the race. But the kernel signals eventfds itself without waiting, to say that an
//!   operation has completed; so [`signal`] has it complete one that does nothing (`bell`). That costs about half a microsecond more
//!   than `write`.
//! * Where the kernel has no such operations (`CONFIG_AIO`), `write` it is; [`prepare`] says so once.

mod bell;

use std::cell::OnceCell;
use std::fs::File;
use std::io;
use std::sync::{Mutex, OnceLock, PoisonError};

use self::bell::Bell;
use super::fd;

thread_local! {
    /// Each thread that signals has its own, so that none waits for another.
    static BELL: OnceCell<Option<Bell>> = const { OnceCell::new() };
}

/// One for all who examine, and never given back: that takes milliseconds.
static EXAMINER: OnceLock<Option<Mutex<Bell>>> = OnceLock::new();

fn examiner() -> Option<&'static Mutex<Bell>> {
    EXAMINER.get_or_init(|| Bell::new().ok().map(Mutex::new)).as_ref()
}

/// Makes ready what [`signal`] needs on this thread, and [`examine`] on any: from then on neither sets anything up (a process may have
/// given up the right to). Says in the log if signals may block.
pub fn prepare() {
    examiner();
    BELL.with(|cell| {
        cell.get_or_init(|| match Bell::new() {
            Ok(bell) => Some(bell),
            Err(error) => {
                log::warn!(
                    "no asynchronous I/O ({error}): a front-end that misuses its call eventfd may stop a reactor"
                );
                None
            }
        });
    });
}

/// Empties an eventfd.
///
/// # Errors
///
/// Only if it can never be emptied: what it is then is no eventfd, and to wait for it would be to spin. That there is nothing to
/// take is no error.
pub fn take(event: &File) -> io::Result<()> {
    match bell::read(event) {
        Err(e) if !matches!(e.kind(), io::ErrorKind::WouldBlock | io::ErrorKind::Interrupted) => Err(e),
        _ => Ok(()),
    }
}

/// Adds one to an eventfd's counter. A counter that is full is readable, which is all that is wanted.
///
/// # Errors
///
/// `InvalidInput` if it is no eventfd; what the system says.
pub fn signal(event: &File) -> io::Result<()> {
    let rung = BELL.try_with(|cell| cell.get_or_init(|| Bell::new().ok()).as_ref().map(|bell| bell.ring(event)));
    match rung {
        Ok(Some(Ok(()))) => Ok(()),
        Ok(Some(Err(error))) if error.kind() == io::ErrorKind::InvalidInput => Err(error),
        // An interrupt must not be lost for want of memory in the kernel, or because somebody forbids such calls.
        _ => write(event),
    }
}

fn write(mut event: &File) -> io::Result<()> {
    match io::Write::write(&mut event, &1u64.to_ne_bytes()) {
        Err(e) if e.kind() == io::ErrorKind::WouldBlock => Ok(()),
        other => other.map(drop),
    }
}

/// What a descriptor is that somebody sent as an eventfd.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Nature {
    /// An eventfd.
    Eventfd,
    /// An eventfd of which a read takes one (`EFD_SEMAPHORE`): filled once, it is readable for ever.
    Semaphore,
    /// Something else.
    Other,
}

/// How often an eventfd is filled and read before it is taken for a semaphore. It may be in use already, for another ring that runs, whose reactor
/// empties it between the two. Only a count of two or more is a proof, so one that is emptied without end is refused.
const TRIES: usize = 100;

/// Finds out whether a descriptor is an eventfd, by asking the kernel to use it as one. With `emptied` also whether it is a semaphore; then its
/// counter is emptied. For when a descriptor comes, not for each signal.
///
/// # Errors
///
/// What the system says.
pub fn examine(event: &File, emptied: bool) -> io::Result<Nature> {
    let Some(examiner) = examiner() else {
        return Ok(if fd::is_anonymous(event)? { Nature::Eventfd } else { Nature::Other });
    };
    let bell = examiner.lock().unwrap_or_else(PoisonError::into_inner);
    if !bell.is_eventfd(event)? {
        return Ok(Nature::Other);
    }
    if !emptied {
        return Ok(Nature::Eventfd);
    }
    for _ in 0..TRIES {
        bell.ring(event)?;
        bell.ring(event)?;
        match bell::read(event) {
            Ok(2..) => return Ok(Nature::Eventfd),
            // A semaphore, or somebody took the rest.
            Ok(_) => {}
            Err(e) if e.kind() == io::ErrorKind::WouldBlock => {}
            Err(e) => return Err(e),
        }
    }
    Ok(Nature::Semaphore)
}

#[cfg(test)]
mod tests;
