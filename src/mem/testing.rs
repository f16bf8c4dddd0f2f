//! Guest memory for tests: regions of memfds.
#![allow(unsafe_code, clippy::unwrap_used, reason = "test code")]

use std::cell::Cell;
use std::ffi::CStr;
use std::fs::File;
use std::os::fd::FromRawFd;
use std::os::unix::fs::MetadataExt;
use std::sync::Arc;

use super::{MemoryMap, Region, RegionSpec};

/// Where the front-end's address of guest physical address 0 would be.
pub(crate) const USER_BASE: u64 = 0x7f00_0000_0000;

thread_local! {
    static STORES_LEFT: Cell<Option<u64>> = const { Cell::new(None) };
}

/// The process is killed, as far as shared memory can tell, when this thread has stored there so many times more: later stores do
/// not happen.
pub(crate) fn kill_after(stores: u64) {
    STORES_LEFT.set(Some(stores));
}

/// Another process begins. Whether the one before had been killed already.
pub(crate) fn revive() -> bool {
    STORES_LEFT.take() == Some(0)
}

/// Whether the process is dead, to be asked before each store.
pub(crate) fn is_dead() -> bool {
    match STORES_LEFT.get() {
        None => false,
        Some(0) => true,
        Some(left) => {
            STORES_LEFT.set(Some(left - 1));
            false
        }
    }
}

/// A memfd of `size` bytes.
pub(crate) fn memfd(size: u64) -> File {
    const NAME: &CStr = c"guest";
    // SAFETY: a valid C string.
    let fd = unsafe { libc::memfd_create(NAME.as_ptr(), libc::MFD_CLOEXEC) };
    assert!(fd >= 0);
    // SAFETY: just created, nobody else's.
    let file = unsafe { File::from_raw_fd(fd) };
    file.set_len(size).unwrap();
    file
}

/// The specification of `size` bytes at `guest_addr`, from byte `mmap_offset` of the file on.
pub(crate) fn spec(guest_addr: u64, size: u64, mmap_offset: u64) -> RegionSpec {
    RegionSpec { guest_addr, size, user_addr: USER_BASE + guest_addr, mmap_offset }
}

/// A region of a memfd of its own.
pub(crate) fn region(guest_addr: u64, size: u64) -> Arc<Region> {
    Region::map(&spec(guest_addr, size, 0), memfd(size)).unwrap()
}

/// A map of regions of memfds of their own, given as (guest physical address, size).
pub(crate) fn memory(regions: &[(u64, u64)]) -> Arc<MemoryMap> {
    Arc::new(MemoryMap::new(regions.iter().map(|&(addr, size)| region(addr, size)).collect()).unwrap())
}

/// A memfd of 2 MiB pages.
pub(crate) fn huge_memfd(size: u64) -> std::io::Result<File> {
    const NAME: &CStr = c"guest";
    // SAFETY: a valid C string.
    let fd = unsafe { libc::memfd_create(NAME.as_ptr(), libc::MFD_CLOEXEC | libc::MFD_HUGETLB | libc::MFD_HUGE_2MB) };
    if fd < 0 {
        return Err(std::io::Error::last_os_error());
    }
    // SAFETY: just created, nobody else's.
    let file = unsafe { File::from_raw_fd(fd) };
    file.set_len(size)?;
    Ok(file)
}

/// Tells whether a region's file is still mapped, by its inode: other tests map and unmap at the same time.
pub(crate) struct MappingOf(u64);

impl MappingOf {
    /// Of the first region of a map.
    pub(crate) fn first(map: &MemoryMap) -> MappingOf {
        MappingOf(map.regions()[0].file_offset().unwrap().file().metadata().unwrap().ino())
    }

    /// The kernel's flags of the mapping (`VmFlags` of smaps).
    pub(crate) fn flags(&self) -> Vec<String> {
        let smaps = std::fs::read_to_string("/proc/self/smaps").unwrap();
        let inode = self.0.to_string();
        let mut lines = smaps.lines().skip_while(|l| l.split_ascii_whitespace().nth(4) != Some(inode.as_str()));
        let flags = lines.find_map(|l| l.strip_prefix("VmFlags:")).unwrap();
        flags.split_ascii_whitespace().map(str::to_owned).collect()
    }

    /// Whether this process has it mapped.
    pub(crate) fn exists(&self) -> bool {
        // "start-end perms offset device inode path"
        let maps = std::fs::read_to_string("/proc/self/maps").unwrap();
        maps.lines()
            .filter(|l| l.contains("memfd:guest"))
            .any(|l| l.split_ascii_whitespace().nth(4).unwrap().parse::<u64>().unwrap() == self.0)
    }
}
