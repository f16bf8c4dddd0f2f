//! No core file: it would hold what guests read and wrote, in a place that nobody thinks of.
#![allow(unsafe_code, reason = "setrlimit and prctl have no safe wrapper in the crates at hand")]

use std::io;

/// No core file is written, and no other process of this user may read this one's memory or descriptors, or trace it, without the
/// capability to do so with any: a QEMU that was taken over and runs as the same user cannot.
pub(super) fn forbid() -> io::Result<()> {
    let none = libc::rlimit { rlim_cur: 0, rlim_max: 0 };
    // SAFETY: `none` is a live, initialised struct.
    if unsafe { libc::setrlimit(libc::RLIMIT_CORE, &none) } != 0 {
        return Err(io::Error::last_os_error());
    }
    // SAFETY: integers only.
    match unsafe { libc::prctl(libc::PR_SET_DUMPABLE, 0, 0, 0, 0) } {
        0 => Ok(()),
        _ => Err(io::Error::last_os_error()),
    }
}
