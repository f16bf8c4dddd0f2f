//! Writes that happen whole or not at all, whatever happens to the process, the host or its power (`RWF_ATOMIC`, Linux 6.11 and later).
//!
//! # Contract
//!
//! * What a file can do is asked of the kernel (`STATX_WRITE_ATOMIC`), never assumed: XFS makes it of its own (since 6.16), ext4 and
//!   block devices where the drive does.
//! * The kernel does it by direct I/O only, for a power of two of bytes at a multiple of itself, from one piece of memory. So it has an
//!   open file of its own, next to whatever the image's other I/O goes through; the page cache is kept coherent by the kernel.
#![allow(unsafe_code, reason = "addresses of I/O buffers go to the kernel")]

use std::fs::File;
use std::io;
use std::os::fd::AsRawFd;
use std::os::unix::fs::OpenOptionsExt;

use crate::sys::file::{self, AlignedBuf};

/// The smallest and the largest write that is never torn, in bytes, both powers of two. Each lies at a multiple of its own length.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct AtomicUnit {
    /// The smallest.
    pub min: u32,
    /// The largest.
    pub max: u32,
}

impl AtomicUnit {
    /// Whether a write of these bytes is never torn as it is.
    pub fn takes(&self, offset: u64, len: u64) -> bool {
        len.is_power_of_two()
            && (u64::from(self.min)..=u64::from(self.max)).contains(&len)
            && offset.is_multiple_of(len)
    }

    /// The smallest range that holds these bytes and is never torn; `None` if there is none. (There is one for no bytes only by chance.)
    pub fn around(&self, offset: u64, len: u64) -> Option<(u64, u64)> {
        let last = offset.checked_add(len.checked_sub(1)?)?;
        let mut size = u64::from(self.min);
        while size <= u64::from(self.max) {
            if offset / size == last / size {
                return Some((offset - offset % size, size));
            }
            size *= 2;
        }
        None
    }
}

/// A file opened for such writes.
#[derive(Debug)]
pub(super) struct AtomicFile {
    file: File,
    unit: AtomicUnit,
}

/// The longest such write that is asked for: it is copied once, and keeps others from its blocks meanwhile.
const LONGEST: u32 = 1 << 20;

impl AtomicFile {
    /// Opens the file behind `of` once more; `None` if it cannot write atomically.
    pub(super) fn probe(of: &File) -> Option<AtomicFile> {
        let (min, max) = file::atomic_write_unit(of).ok()??;
        let unit = AtomicUnit { min, max: max.min(LONGEST) };
        if unit.min > unit.max {
            return None;
        }
        let path = format!("/proc/self/fd/{}", of.as_raw_fd());
        let file = std::fs::OpenOptions::new().read(true).write(true).custom_flags(libc::O_DIRECT).open(path).ok()?;
        Some(AtomicFile { file, unit })
    }

    pub(super) fn unit(&self) -> AtomicUnit {
        self.unit
    }

    /// Writes all of `src` at `offset`, or nothing. Volatile caches may have it when this returns.
    pub(super) fn write(&self, offset: u64, src: &[u8]) -> io::Result<()> {
        let mut buf = AlignedBuf::new(src.len());
        buf.iter_mut().zip(src).for_each(|(to, from)| *to = *from);
        // SAFETY: the piece is `buf`'s, which lives through the call and is not changed meanwhile.
        let written = unsafe { file::pwrite_atomic(&self.file, buf.iovec(src.len()), offset) }?;
        if written == src.len() as u64 { Ok(()) } else { Err(io::ErrorKind::WriteZero.into()) }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const UNIT: AtomicUnit = AtomicUnit { min: 4096, max: 65536 };

    #[test]
    fn powers_of_two_at_multiples_of_themselves() {
        for (offset, len) in [(0, 4096), (4096, 4096), (8192, 8192), (65536, 65536)] {
            assert!(UNIT.takes(offset, len), "{offset} {len}");
            assert_eq!(UNIT.around(offset, len), Some((offset, len)));
        }
        for (offset, len) in [(0, 0), (0, 512), (512, 4096), (4096, 8192), (0, 12288), (0, 131_072)] {
            assert!(!UNIT.takes(offset, len), "{offset} {len}");
        }
    }

    #[test]
    fn other_ranges_lie_in_one_or_in_none() {
        assert_eq!(UNIT.around(4096, 8192), Some((0, 16384)));
        assert_eq!(UNIT.around(512, 512), Some((0, 4096)));
        assert_eq!(UNIT.around(4095, 2), Some((0, 8192)));
        assert_eq!(UNIT.around(65535, 1), Some((61440, 4096)));
        assert_eq!(UNIT.around(65535, 2), None, "on both sides of the largest");
        assert_eq!(UNIT.around(0, 65537), None);
        assert_eq!(UNIT.around(0, 0), None);
        assert_eq!(UNIT.around(u64::MAX, 2), None);
    }
}
