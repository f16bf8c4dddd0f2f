//! Guest memory: memory files mapped here as a machine monitor would, with a bump allocator.
#![allow(unsafe_code, clippy::unwrap_used, clippy::panic, missing_docs, dead_code, reason = "test code")]

use std::ffi::CStr;
use std::fs::File;
use std::io;
use std::os::fd::{AsRawFd, FromRawFd, RawFd};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use vm_memory::{Bytes, FileOffset, GuestAddress, GuestMemoryBackend, GuestMemoryMmap, GuestMemoryRegion};

use super::wire::WireRegion;

/// An anonymous memory file; `flags` are memfd_create's.
pub fn memfd(size: u64, flags: u32) -> io::Result<File> {
    const NAME: &CStr = c"guest";
    // SAFETY: a valid C string.
    let fd = unsafe { libc::memfd_create(NAME.as_ptr(), libc::MFD_CLOEXEC | flags) };
    if fd < 0 {
        return Err(io::Error::last_os_error());
    }
    // SAFETY: just created, nobody else's.
    let file = unsafe { File::from_raw_fd(fd) };
    file.set_len(size)?;
    Ok(file)
}

/// Gives the file all its pages.
pub fn preallocate(file: &File, size: u64) -> io::Result<()> {
    // SAFETY: fallocate takes integers only.
    if unsafe { libc::fallocate(file.as_raw_fd(), 0, 0, size as libc::off_t) } < 0 {
        return Err(io::Error::last_os_error());
    }
    Ok(())
}

/// Where a region is and what is behind it.
pub struct Backing {
    pub guest: u64,
    pub size: u64,
    pub file: Arc<File>,
    pub offset: u64,
}

/// Guest memory. Clones share it.
#[derive(Clone)]
pub struct Ram {
    memory: GuestMemoryMmap<()>,
    pub regions: Vec<WireRegion>,
    pub files: Vec<Arc<File>>,
    /// Next free byte of each region.
    next: Arc<Vec<AtomicU64>>,
}

impl Ram {
    /// One region of this size at guest address 0.
    pub fn new(size: u64) -> Ram {
        Ram::with_regions(&[(0, size)])
    }

    /// Regions given as (guest address, size), each in a memory file of its own.
    pub fn with_regions(regions: &[(u64, u64)]) -> Ram {
        let backing = |&(guest, size)| Backing { guest, size, file: Arc::new(memfd(size, 0).unwrap()), offset: 0 };
        Ram::from_backings(regions.iter().map(backing).collect()).unwrap()
    }

    pub fn from_backings(backings: Vec<Backing>) -> io::Result<Ram> {
        let ranges = backings.iter().map(|b| {
            let file = FileOffset::from_arc(Arc::clone(&b.file), b.offset);
            (GuestAddress(b.guest), b.size as usize, Some(file))
        });
        let memory = GuestMemoryMmap::from_ranges_with_files(ranges).map_err(io::Error::other)?;
        let user = |guest| memory.get_host_address(GuestAddress(guest)).unwrap() as u64;
        let regions = backings
            .iter()
            .map(|b| WireRegion { guest: b.guest, size: b.size, user: user(b.guest), offset: b.offset })
            .collect();
        let files = backings.iter().map(|b| Arc::clone(&b.file)).collect();
        // Address 0 stays free: it is too often what a mistake looks like.
        let next = backings.iter().map(|_| AtomicU64::new(0x1000)).collect();
        Ok(Ram { memory, regions, files, next: Arc::new(next) })
    }

    pub fn fds(&self) -> Vec<RawFd> {
        self.files.iter().map(|file| file.as_raw_fd()).collect()
    }

    /// Guest address of so many bytes, zeroed, aligned to a page if they fill one and to 16 else.
    pub fn alloc(&self, len: u64) -> u64 {
        self.alloc_in(0, len)
    }

    pub fn alloc_in(&self, region: usize, len: u64) -> u64 {
        let align = if len >= 4096 { 4096 } else { 16 };
        let next = &self.next[region];
        let at = next.load(Ordering::Relaxed).next_multiple_of(align);
        assert!(at + len <= self.regions[region].size, "guest memory is used up");
        next.store(at + len, Ordering::Relaxed);
        self.regions[region].guest + at
    }

    /// Where region 0's allocator stands, for [`release`](Self::release).
    pub fn mark(&self) -> u64 {
        self.next[0].load(Ordering::Relaxed)
    }

    /// Frees everything allocated in region 0 since the mark.
    pub fn release(&self, mark: u64) {
        self.next[0].store(mark, Ordering::Relaxed);
    }

    /// The address in this process of a guest address.
    pub fn user(&self, guest: u64) -> u64 {
        self.memory.get_host_address(GuestAddress(guest)).unwrap() as u64
    }

    pub fn write(&self, at: u64, bytes: &[u8]) {
        self.memory.write_slice(bytes, GuestAddress(at)).unwrap();
    }

    pub fn read(&self, at: u64, len: usize) -> Vec<u8> {
        let mut bytes = vec![0; len];
        self.memory.read_slice(&mut bytes, GuestAddress(at)).unwrap();
        bytes
    }

    pub fn load_u16(&self, at: u64) -> u16 {
        u16::from_le(self.memory.load(GuestAddress(at), Ordering::SeqCst).unwrap())
    }

    pub fn store_u16(&self, at: u64, value: u16) {
        self.memory.store(value.to_le(), GuestAddress(at), Ordering::SeqCst).unwrap();
    }

    pub fn load_u32(&self, at: u64) -> u32 {
        u32::from_le(self.memory.load(GuestAddress(at), Ordering::SeqCst).unwrap())
    }
}
