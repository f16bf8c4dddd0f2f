//! Users and groups by name, as the system's databases know them (getpwnam, getgrnam: files, LDAP and whatever else `nsswitch.conf` names).
#![allow(unsafe_code, reason = "getpwnam_r and getgrnam_r have no safe wrapper in the crates at hand")]

use std::ffi::CString;
use std::io;
use std::mem::MaybeUninit;
use std::ptr;

/// What an entry may take, in bytes. A group's has its members in it.
const MOST: usize = 1 << 20;

/// The user's number; `None`: there is no such user.
pub fn user(name: &str) -> io::Result<Option<u32>> {
    let Ok(name) = CString::new(name) else { return Ok(None) };
    with_buffer(|buffer| {
        let (mut entry, mut found) = (MaybeUninit::<libc::passwd>::uninit(), ptr::null_mut());
        // SAFETY: `name` is a C string, `buffer` is valid for its length, and the others are live places for what the call writes.
        let code = unsafe {
            libc::getpwnam_r(name.as_ptr(), entry.as_mut_ptr(), buffer.as_mut_ptr().cast(), buffer.len(), &mut found)
        };
        // SAFETY: if it is not null it points to `entry`, which then is filled in.
        (code, unsafe { found.as_ref() }.map(|entry| entry.pw_uid))
    })
}

/// The group's number; `None`: there is no such group.
pub fn group(name: &str) -> io::Result<Option<u32>> {
    let Ok(name) = CString::new(name) else { return Ok(None) };
    with_buffer(|buffer| {
        let (mut entry, mut found) = (MaybeUninit::<libc::group>::uninit(), ptr::null_mut());
        // SAFETY: as in `user`.
        let code = unsafe {
            libc::getgrnam_r(name.as_ptr(), entry.as_mut_ptr(), buffer.as_mut_ptr().cast(), buffer.len(), &mut found)
        };
        // SAFETY: as in `user`.
        (code, unsafe { found.as_ref() }.map(|entry| entry.gr_gid))
    })
}

/// Asks with ever more room until it suffices.
fn with_buffer(mut ask: impl FnMut(&mut [u8]) -> (libc::c_int, Option<u32>)) -> io::Result<Option<u32>> {
    let mut size = 1024;
    loop {
        match ask(&mut vec![0; size]) {
            (_, Some(found)) => return Ok(Some(found)),
            // Not found, in the ways that libraries and databases say it (getpwnam(3)).
            (0 | libc::ENOENT | libc::ESRCH | libc::EPERM | libc::EBADF, None) => return Ok(None),
            (libc::ERANGE, None) if size < MOST => size *= 4,
            (libc::EINTR, None) => {}
            (code, None) => return Err(io::Error::from_raw_os_error(code)),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn known_and_unknown_names() {
        assert_eq!(user("root").unwrap(), Some(0));
        assert_eq!(group("root").unwrap(), Some(0));
        for name in ["no-such-name", "", "ro\0ot"] {
            assert_eq!((user(name).unwrap(), group(name).unwrap()), (None, None), "{name}");
        }
    }
}
