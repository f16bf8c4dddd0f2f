//! How much processor time a process has used, all its threads together: living ones, ended ones, and the kernel's
//! io_uring workers, which count as threads of the process they work for.

#![allow(unsafe_code, reason = "clock and resource system calls std does not wrap; each block argues for itself")]

use crate::{Context, Error, Result};
use std::io;
use std::time::Duration;

/// The processor time of a running process, to the nanosecond.
///
/// # Errors
/// When there is no such process.
pub fn of_process(pid: u32) -> Result<Duration> {
    let id = libc::pid_t::try_from(pid).context(|| format!("process {pid}"))?;
    let mut clock = 0;
    // SAFETY: writes one clockid to a local.
    let failed = unsafe { libc::clock_getcpuclockid(id, &mut clock) };
    if failed != 0 {
        return Err(io::Error::from_raw_os_error(failed)).context(|| format!("processor clock of {pid}"));
    }
    read(clock).context(|| format!("processor time of {pid}"))
}

/// The processor time of the calling thread.
///
/// # Errors
/// When the kernel does not say.
pub fn of_this_thread() -> Result<Duration> {
    read(libc::CLOCK_THREAD_CPUTIME_ID).context(|| "processor time of this thread")
}

fn read(clock: libc::clockid_t) -> io::Result<Duration> {
    let mut time = libc::timespec { tv_sec: 0, tv_nsec: 0 };
    // SAFETY: writes one timespec to a local.
    match unsafe { libc::clock_gettime(clock, &mut time) } {
        0 => Ok(Duration::new(time.tv_sec as u64, time.tv_nsec as u32)),
        _ => Err(io::Error::last_os_error()),
    }
}

/// The processor time of all children that have ended and been waited for.
///
/// # Errors
/// When the kernel does not say.
pub fn of_ended_children() -> Result<Duration> {
    // SAFETY: plain integers, for which zero bytes are valid.
    let mut usage: libc::rusage = unsafe { std::mem::zeroed() };
    // SAFETY: writes one rusage to a local.
    if unsafe { libc::getrusage(libc::RUSAGE_CHILDREN, &mut usage) } != 0 {
        return Err(Error::caused("ask for the children's processor time", io::Error::last_os_error()));
    }
    let time = |t: libc::timeval| Duration::new(t.tv_sec as u64, t.tv_usec as u32 * 1000);
    Ok(time(usage.ru_utime) + time(usage.ru_stime))
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::time::Instant;

    #[test]
    fn work_is_counted() {
        let before = of_process(std::process::id()).unwrap();
        let start = Instant::now();
        while of_process(std::process::id()).unwrap() < before + Duration::from_millis(5) {
            assert!(start.elapsed() < Duration::from_secs(60));
        }
    }

    #[test]
    fn a_process_that_is_not_there_is_an_error() {
        // Above the greatest id there can be, 4 Mi.
        assert!(of_process(5_000_000).is_err());
    }
}
