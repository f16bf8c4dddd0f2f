//! Guest memory: one memory file, mapped here and handed to the back-end.
//!
//! The back-end writes to it whenever it likes, so nothing here makes a Rust reference to plain bytes: ring indexes are
//! atomics, everything else is copied in or out.

#![allow(unsafe_code, reason = "memory shared with another process; each block argues for itself")]

use crate::{Context, Error, Result};
use std::fs::File;
use std::io;
use std::os::fd::{AsRawFd, FromRawFd};
use std::ptr::NonNull;
use std::sync::atomic::{AtomicU16, AtomicUsize, Ordering};

/// Alignment of what is allocated: a page, which satisfies every ring and O_DIRECT.
const ALIGN: usize = 4096;

/// Bytes of a huge page.
const HUGE: usize = 2 << 20;

/// A mapped memory file and an allocator that only grows. Guest addresses are offsets in it.
#[derive(Debug)]
pub struct Memory {
    base: NonNull<u8>,
    len: usize,
    file: File,
    next: AtomicUsize,
}

// SAFETY: the mapping lives as long as the value; all access is by atomics or by copies that no reference aliases.
unsafe impl Send for Memory {}
// SAFETY: as above; threads that use the same bytes order themselves by the ring's indexes.
unsafe impl Sync for Memory {}

impl Memory {
    /// `len` bytes, all of whose pages are there.
    ///
    /// # Errors
    /// When the system has no such memory.
    pub fn new(len: usize) -> Result<Memory> {
        Memory::with_pages(len, false)
    }

    /// The same of huge pages, if so wanted.
    ///
    /// # Errors
    /// When the system has no such memory.
    pub fn with_pages(len: usize, huge: bool) -> Result<Memory> {
        let len = len.next_multiple_of(if huge { HUGE } else { ALIGN });
        let flags = libc::MFD_CLOEXEC | if huge { libc::MFD_HUGETLB | libc::MFD_HUGE_2MB } else { 0 };
        // SAFETY: a valid C string and flags.
        let fd = unsafe { libc::memfd_create(c"bench".as_ptr(), flags) };
        if fd < 0 {
            return Err(io::Error::last_os_error()).context(|| "make a memory file");
        }
        // SAFETY: just made, nobody else's.
        let file = unsafe { File::from_raw_fd(fd) };
        file.set_len(len as u64).context(|| "size the memory file")?;
        let (protection, flags) = (libc::PROT_READ | libc::PROT_WRITE, libc::MAP_SHARED | libc::MAP_POPULATE);
        // SAFETY: a new mapping at a place the kernel picks.
        let base = unsafe { libc::mmap(std::ptr::null_mut(), len, protection, flags, file.as_raw_fd(), 0) };
        if base == libc::MAP_FAILED {
            return Err(io::Error::last_os_error()).context(|| "map the memory file");
        }
        let base = NonNull::new(base.cast()).context(|| "memory mapped at address 0")?;
        Ok(Memory { base, len, file, next: AtomicUsize::new(ALIGN) })
    }

    /// The memory file.
    pub fn file(&self) -> &File {
        &self.file
    }

    /// Bytes of it.
    pub fn len(&self) -> usize {
        self.len
    }

    /// Whether there is none (never).
    pub fn is_empty(&self) -> bool {
        self.len == 0
    }

    /// The address in this process of a guest address.
    pub fn user(&self, at: usize) -> u64 {
        (self.base.as_ptr() as usize + at) as u64
    }

    /// Guest address of `len` bytes of their own, zeroed, on a page boundary.
    ///
    /// # Errors
    /// When all is given away.
    pub fn alloc(&self, len: usize) -> Result<usize> {
        let at = self.next.fetch_add(len.next_multiple_of(ALIGN), Ordering::Relaxed);
        if at + len > self.len {
            return Err(Error::new("the bench's guest memory is used up"));
        }
        Ok(at)
    }

    /// The 16-bit word at `at`, in the guest's byte order, which is little-endian as this machine's.
    pub fn word(&self, at: usize) -> &AtomicU16 {
        assert!(at.is_multiple_of(2) && at + 2 <= self.len, "word outside guest memory");
        // SAFETY: inside the mapping, aligned, and never accessed but atomically or before the ring is started.
        unsafe { AtomicU16::from_ptr(self.base.as_ptr().add(at).cast()) }
    }

    /// Copies bytes in.
    pub fn write(&self, at: usize, bytes: &[u8]) {
        assert!(at + bytes.len() <= self.len, "write outside guest memory");
        // SAFETY: inside the mapping; `bytes` is not, since nobody is given a slice of it.
        unsafe { std::ptr::copy_nonoverlapping(bytes.as_ptr(), self.base.as_ptr().add(at), bytes.len()) }
    }

    /// Copies `N` bytes out.
    pub fn read<const N: usize>(&self, at: usize) -> [u8; N] {
        assert!(at + N <= self.len, "read outside guest memory");
        let mut bytes = [0; N];
        // SAFETY: inside the mapping, into a local array.
        unsafe { std::ptr::copy_nonoverlapping(self.base.as_ptr().add(at), bytes.as_mut_ptr(), N) }
        bytes
    }
}

impl Drop for Memory {
    fn drop(&mut self) {
        // SAFETY: mapped in `new` with this length; no atomic borrowed from it outlives the value.
        unsafe { libc::munmap(self.base.as_ptr().cast(), self.len) };
    }
}
