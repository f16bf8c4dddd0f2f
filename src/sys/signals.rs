//! Waiting for the signals that end the process, or ask something of it.
#![allow(unsafe_code, reason = "sigset functions and sigwait have no safe wrapper in the crates at hand")]

use std::io;
use std::mem::MaybeUninit;

/// What a signal says.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Signal {
    /// SIGTERM or SIGINT, by its number: the process is to end.
    End(i32),
    /// SIGUSR1: the images are to be looked at again.
    LookAgain,
}

/// SIGTERM, SIGINT and SIGUSR1, blocked in all threads that are started after [`Termination::block`] and waited for by one.
pub struct Termination {
    set: libc::sigset_t,
}

impl Termination {
    /// Blocks the signals in this thread and those it starts from now on. To be called before any thread is started.
    pub fn block() -> io::Result<Termination> {
        let mut set = MaybeUninit::<libc::sigset_t>::uninit();
        // SAFETY: sigemptyset initialises the set it is given; the others get that initialised set and valid signal numbers.
        let (set, result) = unsafe {
            libc::sigemptyset(set.as_mut_ptr());
            libc::sigaddset(set.as_mut_ptr(), libc::SIGTERM);
            libc::sigaddset(set.as_mut_ptr(), libc::SIGINT);
            libc::sigaddset(set.as_mut_ptr(), libc::SIGUSR1);
            let result = libc::pthread_sigmask(libc::SIG_BLOCK, set.as_ptr(), std::ptr::null_mut());
            (set.assume_init(), result)
        };
        if result == 0 { Ok(Termination { set }) } else { Err(io::Error::from_raw_os_error(result)) }
    }

    /// Ends the process as SIGTERM does: [`Termination::wait`] sees it.
    pub fn raise() {
        // SAFETY: sends a signal to this process, which is blocked in all its threads and taken by `wait`.
        if unsafe { libc::kill(libc::getpid(), libc::SIGTERM) } != 0 {
            log::error!("cannot send SIGTERM to ourselves: {}", io::Error::last_os_error());
        }
    }

    /// Waits for one of them.
    pub fn wait(&self) -> io::Result<Signal> {
        let mut signal = 0;
        // SAFETY: both pointers are to live, initialised objects.
        let result = unsafe { libc::sigwait(&self.set, &mut signal) };
        let said = if signal == libc::SIGUSR1 { Signal::LookAgain } else { Signal::End(signal) };
        if result == 0 { Ok(said) } else { Err(io::Error::from_raw_os_error(result)) }
    }
}
