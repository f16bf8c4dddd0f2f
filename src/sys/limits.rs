//! What this process may have: open descriptors, sizes of files.
#![allow(unsafe_code, reason = "getrlimit and setrlimit have no safe wrapper in the crates at hand")]

use std::io;

/// Raises the limit of open descriptors as far as this process may (from the soft to the hard limit); gives back the limit that
/// holds then. One guest with 254 request queues needs some two thousand.
pub fn raise_open_files() -> io::Result<u64> {
    let mut limit = libc::rlimit { rlim_cur: 0, rlim_max: 0 };
    // SAFETY: `limit` is a live struct of the type that the call fills in.
    if unsafe { libc::getrlimit(libc::RLIMIT_NOFILE, &mut limit) } != 0 {
        return Err(io::Error::last_os_error());
    }
    if limit.rlim_cur < limit.rlim_max {
        limit.rlim_cur = limit.rlim_max;
        // SAFETY: `limit` is a live, initialised struct.
        if unsafe { libc::setrlimit(libc::RLIMIT_NOFILE, &limit) } != 0 {
            return Err(io::Error::last_os_error());
        }
    }
    Ok(limit.rlim_cur)
}

/// Makes a write beyond `RLIMIT_FSIZE` end with an error (`EFBIG`). By default it is SIGXFSZ that comes, which ends the process: a guest that
/// writes at the end of its disk would end all of them.
pub fn let_large_files_be_errors() -> io::Result<()> {
    // SAFETY: no handler is installed, the signal is ignored from now on.
    match unsafe { libc::signal(libc::SIGXFSZ, libc::SIG_IGN) } {
        libc::SIG_ERR => Err(io::Error::last_os_error()),
        _ => Ok(()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_limit_is_the_hard_one_afterwards() {
        let raised = raise_open_files().unwrap();
        let mut now = libc::rlimit { rlim_cur: 0, rlim_max: 0 };
        // SAFETY: as in `raise_open_files`.
        assert_eq!(unsafe { libc::getrlimit(libc::RLIMIT_NOFILE, &mut now) }, 0);
        assert_eq!((now.rlim_cur, now.rlim_cur), (raised, now.rlim_max));
    }
}
