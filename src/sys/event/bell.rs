//! Ringing an eventfd the way the kernel itself does.
//!
//! An asynchronous I/O request (`io_submit(2)`, the kernel's own, not POSIX's) may name an eventfd that is signalled when it has
//! completed (`IOCB_FLAG_RESFD`). That signal adds one to the counter, or leaves it full; it cannot wait, for the kernel gives it from interrupts,
//! too. The request here writes no bytes to a pipe, which completes before `io_submit` returns.
#![allow(unsafe_code, reason = "asynchronous I/O and preadv2 are reached through libc; each call argues its pointers")]

use std::cell::Cell;
use std::fs::File;
use std::io::{self, PipeWriter};
use std::os::fd::{AsRawFd, RawFd};
use std::ptr;

/// Operations and flags of linux/aio_abi.h.
const PREAD: u16 = 0;
const PWRITE: u16 = 1;
const RESFD: u32 = 1;

/// Completions that are kept before they are thrown away, all at once. The kernel has room for at least twice as many.
const KEPT: usize = 32;

/// `struct iocb` of linux/aio_abi.h on a little-endian host.
#[derive(Default)]
#[repr(C)]
struct Request {
    data: u64,
    key: u32,
    rw_flags: i32,
    opcode: u16,
    priority: i16,
    fd: u32,
    buf: u64,
    bytes: u64,
    offset: i64,
    reserved: u64,
    flags: u32,
    event_fd: u32,
}

/// `struct io_event` of linux/aio_abi.h.
#[derive(Clone, Copy, Default)]
#[repr(C)]
struct Completion {
    _fields: [u64; 4],
}

/// Rings eventfds. Of one thread at a time.
#[derive(Debug)]
pub(super) struct Bell {
    /// `aio_context_t`.
    context: libc::c_ulong,
    /// What nothing is written to: nobody has its other end.
    nowhere: PipeWriter,
    /// Completions since they were last thrown away.
    kept: Cell<usize>,
}

impl Bell {
    /// # Errors
    ///
    /// Where the kernel has no asynchronous I/O, does not allow it, or has given all of it to others (`fs.aio-max-nr`).
    pub(super) fn new() -> io::Result<Bell> {
        let (_, nowhere) = io::pipe()?;
        let mut context: libc::c_ulong = 0;
        // SAFETY: io_setup wants a number and a place for a context, which must be zero.
        check(unsafe { libc::syscall(libc::SYS_io_setup, 2 * KEPT, &raw mut context) })?;
        Ok(Bell { context, nowhere, kept: Cell::new(0) })
    }

    /// Adds one to the counter of an eventfd.
    ///
    /// # Errors
    ///
    /// `InvalidInput` if it is none; else the kernel could not, this time.
    pub(super) fn ring(&self, event: &File) -> io::Result<()> {
        if self.kept.get() >= KEPT {
            self.forget_completions();
        }
        self.submit(PWRITE, event.as_raw_fd())?;
        self.kept.set(self.kept.get() + 1);
        Ok(())
    }

    /// Whether it is an eventfd; it is not signalled.
    pub(super) fn is_eventfd(&self, event: &File) -> io::Result<bool> {
        // The kernel looks at the eventfd first and then finds that nothing can be read from the writing end of a pipe.
        match self.submit(PREAD, event.as_raw_fd()).map_err(|e| e.raw_os_error()) {
            Err(Some(libc::EBADF)) => Ok(true),
            Err(Some(libc::EINVAL)) => Ok(false),
            Err(Some(other)) => Err(io::Error::from_raw_os_error(other)),
            Ok(()) | Err(None) => Err(io::Error::other("a pipe was read from its writing end")),
        }
    }

    fn submit(&self, opcode: u16, event: RawFd) -> io::Result<()> {
        let nothing = [0u8; 0];
        let mut request = Request {
            opcode,
            fd: self.nowhere.as_raw_fd() as u32,
            buf: nothing.as_ptr() as u64,
            flags: RESFD,
            event_fd: event as u32,
            ..Request::default()
        };
        let requests = [&raw mut request];
        // SAFETY: one request, alive through the call, which is over when the call is: it moves no bytes. The context is ours.
        let result = unsafe { libc::syscall(libc::SYS_io_submit, self.context, 1 as libc::c_long, requests.as_ptr()) };
        match check(result)? {
            1 => Ok(()),
            _ => Err(io::Error::from_raw_os_error(libc::EAGAIN)),
        }
    }

    fn forget_completions(&self) {
        let mut completions = [Completion::default(); 2 * KEPT];
        let now = libc::timespec { tv_sec: 0, tv_nsec: 0 };
        // SAFETY: there is room for as many completions as the call is told, and `now` lives through it.
        let result = unsafe {
            let (min, most): (libc::c_long, libc::c_long) = (0, 2 * KEPT as libc::c_long);
            libc::syscall(libc::SYS_io_getevents, self.context, min, most, completions.as_mut_ptr(), &raw const now)
        };
        if let Err(error) = check(result) {
            log::debug!("completions cannot be taken: {error}");
        }
        self.kept.set(0);
    }
}

impl Drop for Bell {
    fn drop(&mut self) {
        // SAFETY: the context is ours, and nobody uses it any more.
        if let Err(error) = check(unsafe { libc::syscall(libc::SYS_io_destroy, self.context) }) {
            log::debug!("asynchronous I/O cannot be given back: {error}");
        }
    }
}

/// Reads an eventfd's counter and empties it; never blocks.
pub(super) fn read(event: &File) -> io::Result<u64> {
    let mut counter = [0u8; 8];
    let iov = libc::iovec { iov_base: counter.as_mut_ptr().cast(), iov_len: counter.len() };
    // SAFETY: one iovec over a live buffer of that length; offset -1 means "as read does".
    let n = unsafe { libc::preadv2(event.as_raw_fd(), ptr::from_ref(&iov), 1, -1, libc::RWF_NOWAIT) };
    check(n as libc::c_long)?;
    Ok(u64::from_ne_bytes(counter))
}

fn check(result: libc::c_long) -> io::Result<libc::c_long> {
    if result < 0 { Err(io::Error::last_os_error()) } else { Ok(result) }
}
