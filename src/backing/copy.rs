//! Copies from one image to another, or within one.
//!
//! Three ways, tried in this order:
//!
//! * *Sharing* (`FICLONERANGE`): file systems that can (XFS, btrfs, bcachefs …) make the copy refer to the same blocks. It is a change of the
//!   map under the file system's own locks, so that direct I/O sees each block old or new.
//! * *In the kernel* (`copy_file_range`), which may share as well, only where blocks need not be kept whole: it goes through the page
//!   cache, piece by piece.
//! * *Through memory*, with reads and writes of the images, which keep blocks whole as always.

use super::{BackingError, Image, RawFile};
use crate::mem::{Direction, IoBuf};
use crate::sys::file;

/// The most that is in memory at a time; a multiple of every block size.
const PIECE: u64 = 1 << 20;

/// Copies through memory with `write`; `same` says that it writes to `src` itself.
pub(super) fn through_memory(
    same: bool,
    to: u64,
    src: &dyn Image,
    from: u64,
    len: u64,
    mut write: impl FnMut(u64, u64, &IoBuf) -> Result<(), BackingError>,
) -> Result<(), BackingError> {
    // Before anything is written, for a piece that can be read is written before the next one cannot.
    if from.checked_add(len).is_none_or(|end| end > src.size()) {
        return Err(BackingError::ReadFailed);
    }
    if same && to == from {
        return Ok(());
    }
    // Page-aligned: what direct I/O takes as it is.
    let mut buf = IoBuf::owned(PIECE.min(len) as usize, Direction::Out);
    let backwards = same && from < to;
    let mut done = 0;
    while done < len {
        let part = PIECE.min(len - done);
        let at = if backwards { len - done - part } else { done };
        src.read(from + at, part, &mut buf, 0).map_err(|_| BackingError::ReadFailed)?;
        write(to + at, part, &buf)?;
        done += part;
    }
    Ok(())
}

/// Copies without moving the bytes through our memory; false if that cannot be, or went wrong: nothing is known then of what is
/// in the destination's range. `whole`: blocks must not be seen half old, half new.
pub(super) fn by_file_system(
    to_file: &RawFile,
    to: u64,
    from_file: &RawFile,
    from: u64,
    len: u64,
    whole: bool,
) -> bool {
    let same = std::ptr::eq(to_file, from_file);
    if len == 0 || same && from < to.saturating_add(len) && to < from.saturating_add(len) {
        return len == 0;
    }
    if whole { share(to_file, to, from_file, from, len) } else { copy(to_file, to, from_file, from, len) }
}

fn share(to_file: &RawFile, to: u64, from_file: &RawFile, from: u64, len: u64) -> bool {
    if !to_file.may_share() {
        return false;
    }
    match file::clone_range(to_file.file(), to, from_file.file(), from, len) {
        Ok(()) => true,
        Err(e) => {
            if matches!(e.raw_os_error(), Some(libc::EOPNOTSUPP | libc::ENOTTY | libc::ENOSYS)) {
                to_file.forget_sharing();
            }
            false
        }
    }
}

fn copy(to_file: &RawFile, to: u64, from_file: &RawFile, from: u64, len: u64) -> bool {
    let mut done = 0;
    while done < len {
        match file::copy_range(to_file.file(), to + done, from_file.file(), from + done, len - done) {
            Ok(moved @ 1..) => done += moved,
            // The file ends before the image does, or something failed: whoever does it through memory learns which.
            Ok(0) | Err(_) => return false,
        }
    }
    true
}
