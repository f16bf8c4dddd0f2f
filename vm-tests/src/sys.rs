//! The few system calls the standard library does not offer: signalling a process group, file locks between
//! processes, asking to die with the parent, and waiting for several descriptors.

#![allow(unsafe_code, reason = "system calls std does not wrap; each block argues for itself")]

use std::fs::File;
use std::io;
use std::os::fd::AsRawFd;
use std::os::unix::process::CommandExt;
use std::process::Command;
use std::time::Duration;

/// Sends `signal` to the process `pid`, or to its whole process group.
pub fn kill(pid: u32, group: bool, signal: i32) -> io::Result<()> {
    let pid = libc::pid_t::try_from(pid).map_err(io::Error::other)?;
    // SAFETY: kill takes two integers and touches no memory of ours.
    match unsafe { libc::kill(if group { -pid } else { pid }, signal) } {
        0 => Ok(()),
        _ => Err(io::Error::last_os_error()),
    }
}

/// Takes the exclusive advisory lock of an open file; `false` when another holds it and `wait` is not set.
/// The lock goes with the file's last descriptor.
pub fn lock(file: &File, wait: bool) -> io::Result<bool> {
    let operation = if wait { libc::LOCK_EX } else { libc::LOCK_EX | libc::LOCK_NB };
    loop {
        // SAFETY: flock takes two integers; the descriptor is open as long as `file` is borrowed.
        if unsafe { libc::flock(file.as_raw_fd(), operation) } == 0 {
            return Ok(true);
        }
        let error = io::Error::last_os_error();
        match error.kind() {
            io::ErrorKind::Interrupted => continue,
            io::ErrorKind::WouldBlock => return Ok(false),
            _ => return Err(error),
        }
    }
}

/// Makes the child die when the thread that starts it ends, however that ends: a test that is killed leaves nothing.
pub fn die_with_parent(command: &mut Command) {
    // SAFETY: between fork and exec only prctl runs, which is async-signal-safe and takes integers.
    unsafe {
        command.pre_exec(|| match libc::prctl(libc::PR_SET_PDEATHSIG, libc::SIGKILL) {
            0 => Ok(()),
            _ => Err(io::Error::last_os_error()),
        });
    }
}

/// Whether this process runs as root.
pub fn is_root() -> bool {
    // SAFETY: geteuid always succeeds and touches no memory.
    unsafe { libc::geteuid() == 0 }
}

/// Waits until one of the descriptors is readable or `bound` has passed; returns early on a signal.
pub fn wait_readable(files: &[&impl AsRawFd], bound: Duration) {
    let mut polled: Vec<libc::pollfd> =
        files.iter().map(|file| libc::pollfd { fd: file.as_raw_fd(), events: libc::POLLIN, revents: 0 }).collect();
    let bound = libc::c_int::try_from(bound.as_millis()).unwrap_or(libc::c_int::MAX);
    // SAFETY: the pointer and the length are those of one vector; the descriptors are borrowed meanwhile.
    unsafe { libc::poll(polled.as_mut_ptr(), polled.len() as libc::nfds_t, bound) };
}
