//! Capabilities go, and nothing gives them back.
//!
//! All four sets of capabilities(7) that can be emptied: bounding, ambient, permitted and effective with inheritable. A process of
//! root's stays root's, which then is a user like others: files are its by ownership only. One capability may be kept by who needs it and has it:
//! the one to lock memory beyond the limit (`CAP_IPC_LOCK`).
#![allow(unsafe_code, reason = "prctl and capset have no safe wrapper in the crates at hand")]

use std::ffi::CString;
use std::io;
use std::os::unix::ffi::OsStrExt;
use std::path::Path;

/// `_LINUX_CAPABILITY_VERSION_3`: two words for each set.
const VERSION_3: u32 = 0x2008_0522;

/// `struct __user_cap_header_struct`.
#[repr(C)]
struct Header {
    version: u32,
    /// 0: the calling thread.
    pid: i32,
}

/// `struct __user_cap_data_struct`.
#[repr(C)]
#[derive(Clone, Copy, Default)]
struct Data {
    effective: u32,
    permitted: u32,
    inheritable: u32,
}

/// From now on executing a program gives no privilege (`PR_SET_NO_NEW_PRIVS`). Seccomp and landlock want it from who has none.
pub(super) fn never_gain() -> io::Result<()> {
    // SAFETY: integers only.
    check(unsafe { libc::prctl(libc::PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0) })
}

/// Of linux/capability.h.
const CAP_IPC_LOCK: u32 = 14;

/// Drops all capabilities of the calling thread; but for `CAP_IPC_LOCK`, if `locks_memory`. Says whether that one is left.
pub(super) fn drop_all(locks_memory: bool) -> io::Result<bool> {
    empty_bounding_set()?;
    // SAFETY: integers only.
    check(unsafe { libc::prctl(libc::PR_CAP_AMBIENT, libc::PR_CAP_AMBIENT_CLEAR_ALL, 0, 0, 0) })?;
    let header = Header { version: VERSION_3, pid: 0 };
    let mut held = [Data::default(); 2];
    // SAFETY: both are live structs of the layout and number that version 3 has; the second is written.
    check(unsafe { libc::syscall(libc::SYS_capget, &raw const header, held.as_mut_ptr()) } as libc::c_int)?;
    let kept = if locks_memory { held[0].permitted & 1 << CAP_IPC_LOCK } else { 0 };
    let left = [Data { effective: kept, permitted: kept, inheritable: 0 }, Data::default()];
    // SAFETY: both are live structs of the layout and number that version 3 has.
    check(unsafe { libc::syscall(libc::SYS_capset, &raw const header, left.as_ptr()) } as libc::c_int)?;
    Ok(kept != 0)
}

/// Takes every capability that the kernel knows out of the bounding set. Who lacks CAP_SETPCAP may not; then `no_new_privs` has to do, which is
/// as good: only executing a program makes anything of that set.
fn empty_bounding_set() -> io::Result<()> {
    for capability in 0u64.. {
        // SAFETY: integers only.
        let held = unsafe { libc::prctl(libc::PR_CAPBSET_READ, capability, 0, 0, 0) };
        if held < 0 {
            // The first number that is no capability.
            break;
        }
        // SAFETY: integers only.
        match check(unsafe { libc::prctl(libc::PR_CAPBSET_DROP, capability, 0, 0, 0) }) {
            Err(e) if e.raw_os_error() == Some(libc::EPERM) => break,
            dropped => dropped?,
        }
    }
    Ok(())
}

/// Whether files can be made and removed in a directory, by its permissions.
pub(super) fn may_write(dir: &Path) -> io::Result<()> {
    let path = CString::new(dir.as_os_str().as_bytes())?;
    // SAFETY: a C string.
    check(unsafe { libc::access(path.as_ptr(), libc::W_OK | libc::X_OK) })
}

/// Whether a file can be opened, by its permissions.
pub(super) fn may_open(file: &Path, to_write: bool) -> io::Result<()> {
    let path = CString::new(file.as_os_str().as_bytes())?;
    let how = if to_write { libc::R_OK | libc::W_OK } else { libc::R_OK };
    // SAFETY: a C string.
    check(unsafe { libc::access(path.as_ptr(), how) })
}

fn check(result: libc::c_int) -> io::Result<()> {
    if result == 0 { Ok(()) } else { Err(io::Error::last_os_error()) }
}
