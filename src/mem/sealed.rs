//! Memory files of ours that are given away and mapped by others, too.
#![allow(unsafe_code, reason = "creates and seals a memory file; each call argues its arguments")]

use std::ffi::CStr;
use std::fs::File;
use std::io;
use std::os::fd::{AsRawFd, FromRawFd};

/// An anonymous memory file of `size` zero bytes that can be neither shrunk nor grown any more, by anybody, so that nobody who maps it is
/// in danger of SIGBUS. `name` is what `/proc` shows. Close-on-exec.
///
/// # Errors
///
/// What the system says; a `size` of 2^63 or more is one of the things that it refuses.
pub fn sealed_file(name: &CStr, size: u64) -> io::Result<File> {
    // SAFETY: a valid C string and flags.
    let fd = unsafe { libc::memfd_create(name.as_ptr(), libc::MFD_CLOEXEC | libc::MFD_ALLOW_SEALING) };
    if fd < 0 {
        return Err(io::Error::last_os_error());
    }
    // SAFETY: just created, nobody else's.
    let file = unsafe { File::from_raw_fd(fd) };
    file.set_len(size)?;
    let seals = libc::F_SEAL_SHRINK | libc::F_SEAL_GROW | libc::F_SEAL_SEAL;
    // SAFETY: an fcntl that takes an integer, on a descriptor that is open here.
    if unsafe { libc::fcntl(file.as_raw_fd(), libc::F_ADD_SEALS, seals) } < 0 {
        return Err(io::Error::last_os_error());
    }
    Ok(file)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn its_size_cannot_be_changed() {
        let file = sealed_file(c"sealed", 8192).unwrap();
        assert_eq!(file.metadata().unwrap().len(), 8192);
        for size in [0, 4096, 16384] {
            let error = file.set_len(size).unwrap_err();
            assert_eq!(error.kind(), io::ErrorKind::PermissionDenied, "to {size}: {error}");
        }
    }
}
