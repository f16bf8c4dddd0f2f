//! A file mapped into memory: bytes are copied between it and a buffer without a system call.
//!
//! The file may be truncated while it is mapped, or its file system may run out of memory for a page that it lacks: the access raises SIGBUS,
//! which `sigbus` turns into private zeros in place of the whole mapping. Such a window is *lost*: it says so for every copy that
//! could have met the zeros, and for all later ones. Whoever uses it has the file's own calls to fall back on, which tell what is
//! wrong.
#![allow(unsafe_code, reason = "maps a file and copies by raw pointers; each use argues its bounds")]

use std::fs::File;
use std::io;
use std::sync::atomic::{Ordering, fence};

use vm_memory::FileOffset;
use vm_memory::mmap::{MmapRegion, MmapRegionBuilder};

use super::sigbus::{self, Watch};
use super::{IoBuf, copy};

/// A file mapped into memory, from its beginning on.
///
/// Offsets and lengths are bytes. What is written through it is in the file's page cache at once, as after a `write`.
#[derive(Debug)]
pub struct FileWindow {
    /// Goes before the mapping that it watches.
    watch: Watch,
    mapping: MmapRegion<()>,
}

/// The bytes were not copied, or not all: the window does not cover them, or it is lost.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("the mapping of the file does not have these bytes")]
pub struct NotInWindow;

impl FileWindow {
    /// Maps the first `len` bytes of `file`; only a `writable` window may be written through.
    ///
    /// # Errors
    ///
    /// What `mmap` says; also if this process watches as many mappings as it can.
    pub fn map(file: &File, len: u64, writable: bool) -> io::Result<FileWindow> {
        let size = usize::try_from(len).map_err(io::Error::other)?;
        let write = if writable { libc::PROT_WRITE } else { 0 };
        let mapping = MmapRegionBuilder::new(size)
            .with_file_offset(FileOffset::new(file.try_clone()?, 0))
            .with_mmap_prot(libc::PROT_READ | write)
            .with_mmap_flags(libc::MAP_NORESERVE | libc::MAP_SHARED)
            .build()
            .map_err(io::Error::other)?;
        let too_many = || io::Error::other("too many mappings");
        // The kernel maps whole pages, and a fault may be in any of them.
        let pages = size.next_multiple_of(usize::try_from(super::region::page_size()).unwrap_or(4096));
        let watch = sigbus::watch(mapping.as_ptr() as usize, pages).ok_or_else(too_many)?;
        Ok(FileWindow { watch, mapping })
    }

    /// Whether it has these bytes and is not lost.
    #[inline]
    pub fn has(&self, offset: u64, len: u64) -> bool {
        offset.checked_add(len).is_some_and(|end| end <= self.mapping.size() as u64) && !self.watch.poisoned()
    }

    /// Copies `len` bytes at `offset` of the file into `buf` from its byte `at` on.
    ///
    /// # Errors
    ///
    /// [`NotInWindow`]; the buffer may then hold zeros in their place.
    pub fn read(&self, offset: u64, len: u64, buf: &mut IoBuf, at: u64) -> Result<(), NotInWindow> {
        let mut here = self.address(offset, len)?;
        buf.for_range(at, len, |piece, len| {
            // SAFETY: `address` checked that `len` bytes in all are mapped from `here` on, and the pieces add up to no more;
            // `for_range` yields memory of the buffer. No Rust reference covers either.
            unsafe { copy::between(here, piece, len) };
            here = here.wrapping_add(len);
        });
        self.not_lost()
    }

    /// Copies `len` bytes of `buf` from its byte `at` on to `offset` of the file.
    ///
    /// # Errors
    ///
    /// [`NotInWindow`]; the file may then have any part of them.
    pub fn write(&self, offset: u64, len: u64, buf: &IoBuf, at: u64) -> Result<(), NotInWindow> {
        if self.mapping.prot() & libc::PROT_WRITE == 0 {
            return Err(NotInWindow);
        }
        let mut here = self.address(offset, len)?.cast_mut();
        buf.for_range(at, len, |piece, len| {
            // SAFETY: as in `read`; the mapping is writable.
            unsafe { copy::between(piece, here, len) };
            here = here.wrapping_add(len);
        });
        self.not_lost()
    }

    /// Whether every page of this range is in memory. The kernel says so truthfully only to who owns the file
    /// (`sys::file::tells_residence`).
    ///
    /// # Errors
    ///
    /// If the window does not have the range, or the kernel does not say.
    pub fn is_resident(&self, offset: u64, len: u64) -> io::Result<bool> {
        let page = super::region::page_size();
        let start = offset - offset % page;
        let address = self.address(start, len + offset % page).map_err(io::Error::other)?;
        let mut left = (len + offset % page).div_ceil(page);
        let mut address = address.cast_mut();
        let mut pages = [0u8; 64];
        while left > 0 {
            let now = left.min(pages.len() as u64);
            let bytes = (now * page) as usize;
            // SAFETY: the pages are this mapping's, whose last one is mapped whole; there is a byte for each in `pages`.
            if unsafe { libc::mincore(address.cast(), bytes, pages.as_mut_ptr()) } != 0 {
                return Err(io::Error::last_os_error());
            }
            if pages.iter().take(now as usize).any(|page| page & 1 == 0) {
                return Ok(false);
            }
            left -= now;
            address = address.wrapping_add(bytes);
        }
        Ok(true)
    }

    /// Enters the pages of a range into the page table, so that no copy meets them with a fault each. Where that cannot be done, copies do it.
    pub fn populate(&self, offset: u64, len: u64) {
        let page = super::region::page_size();
        let start = offset - offset % page;
        let Ok(address) = self.address(start, len + offset % page) else { return };
        let writable = self.mapping.prot() & libc::PROT_WRITE != 0;
        let advice = if writable { libc::MADV_POPULATE_WRITE } else { libc::MADV_POPULATE_READ };
        // SAFETY: the range is this mapping's, and the advice changes no contents; where the file has ended it fails, without a signal.
        let done = unsafe { libc::madvise(address.cast_mut().cast(), (len + offset % page) as usize, advice) };
        if done != 0 {
            log::debug!("pages are not entered beforehand: {}", io::Error::last_os_error());
        }
    }

    fn address(&self, offset: u64, len: u64) -> Result<*const u8, NotInWindow> {
        if !self.has(offset, len) {
            return Err(NotInWindow);
        }
        // It is less than the mapping's size.
        Ok(self.mapping.as_ptr().wrapping_add(offset as usize).cast_const())
    }

    fn not_lost(&self) -> Result<(), NotInWindow> {
        // Whoever met the zeros comes after the mark that was made before they were mapped.
        fence(Ordering::Acquire);
        if self.watch.poisoned() { Err(NotInWindow) } else { Ok(()) }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::mem::Direction;
    use std::os::unix::fs::FileExt;

    fn file(len: u64) -> File {
        let file = tempfile::tempfile_in("/dev/shm").unwrap();
        file.set_len(len).unwrap();
        file
    }

    fn filled(bytes: &[u8]) -> IoBuf {
        let mut buf = IoBuf::owned(bytes.len(), Direction::Out);
        buf.write_at(0, bytes);
        buf
    }

    #[test]
    fn what_goes_in_is_the_files_and_comes_out() {
        let file = file(10_000);
        let window = FileWindow::map(&file, 10_000, true).unwrap();
        let bytes: Vec<u8> = (0..5000u32).map(|i| (i * 7) as u8).collect();
        window.write(4999, 5000, &filled(&bytes), 0).unwrap();
        let mut there = vec![0; 5000];
        file.read_exact_at(&mut there, 4999).unwrap();
        assert!(there == bytes);
        file.write_all_at(b"by another way", 5000).unwrap();
        let mut buf = IoBuf::owned(100, Direction::In);
        window.read(5000, 14, &mut buf, 50).unwrap();
        let mut back = [0; 66];
        buf.read_at(48, &mut back[..52]);
        assert_eq!(&back[..17], b"\0\0by another way\0");
    }

    #[test]
    fn nothing_beyond_it_is_copied() {
        let file = file(8192);
        let window = FileWindow::map(&file, 8192, true).unwrap();
        let buf = filled(&[1; 4096]);
        for (offset, len) in [(8192, 1), (4097, 4096), (u64::MAX, 2), (0, u64::MAX)] {
            assert!(!window.has(offset, len));
            assert_eq!(window.write(offset, len, &buf, 0), Err(NotInWindow));
            assert_eq!(window.read(offset, len, &mut IoBuf::owned(1, Direction::In), 0), Err(NotInWindow));
        }
        assert!(window.has(8192, 0) && window.has(0, 8192));
    }

    #[test]
    fn a_window_for_reading_is_not_written_through() {
        let file = file(4096);
        let window = FileWindow::map(&file, 4096, false).unwrap();
        assert_eq!(window.write(0, 1, &filled(&[1]), 0), Err(NotInWindow));
        assert!(window.read(0, 4096, &mut IoBuf::owned(4096, Direction::In), 0).is_ok());
    }

    #[test]
    fn holes_are_not_resident() {
        let file = file(1 << 20);
        let window = FileWindow::map(&file, (1 << 20) - 100, true).unwrap();
        assert!(!window.is_resident(0, 4096).unwrap());
        file.write_all_at(&[1; 300 << 10], 0).unwrap();
        assert!(window.is_resident(0, 300 << 10).unwrap());
        assert!(window.is_resident(4097, 4000).unwrap());
        assert!(!window.is_resident(4096, 300 << 10).unwrap());
        window.populate(0, 300 << 10);
        // Nothing comes to be by being looked at.
        assert!(!window.is_resident(300 << 10, 4096).unwrap());
        file.write_all_at(&[1], (1 << 20) - 101).unwrap();
        assert!(window.is_resident((1 << 20) - 4096, 3996).unwrap(), "the last page");
        assert!(window.is_resident((1 << 20) - 100, 1).is_err(), "none of its own");
        file.set_len(0).unwrap();
        window.populate(0, 4096);
        assert!(!window.is_resident(0, 4096).unwrap());
    }

    /// A truncated file is not the end of the process, and its bytes are not said to be zeros.
    #[test]
    fn a_file_that_shrinks_loses_the_window() {
        let file = file(1 << 20);
        let window = FileWindow::map(&file, 1 << 20, true).unwrap();
        let other = FileWindow::map(&file, 1 << 20, true).unwrap();
        let mut buf = IoBuf::owned(4096, Direction::In);
        assert!(window.read(1 << 19, 4096, &mut buf, 0).is_ok());
        file.set_len(4096).unwrap();
        assert!(window.read(0, 4096, &mut buf, 0).is_ok(), "nobody has noticed");
        assert_eq!(window.read(1 << 19, 4096, &mut buf, 0), Err(NotInWindow));
        assert!(!window.has(0, 1), "lost is lost");
        assert_eq!(other.write(8192, 4096, &buf, 0), Err(NotInWindow));
        file.set_len(1 << 20).unwrap();
        assert_eq!(window.read(0, 4096, &mut buf, 0), Err(NotInWindow));
        assert!(FileWindow::map(&file, 1 << 20, true).unwrap().read(8192, 4096, &mut buf, 0).is_ok());
    }
}
