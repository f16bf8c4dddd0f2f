//! Guest memory, and the driver's half of a split ring in it.

use std::ffi::CStr;
use std::fs::File;
use std::os::fd::FromRawFd;
use std::sync::Arc;
use vstgt::mem::{MemoryMap, Region, RegionSpec};
use vstgt::virtio_scsi::RingSetup;

/// Where the front-end's address of guest physical address 0 is.
pub const USER_BASE: u64 = 0x7f00_0000_0000;

/// Descriptor flags.
pub const NEXT: u16 = 1;
/// The device writes the buffer.
pub const WRITE: u16 = 2;
/// The buffer is a table of descriptors.
pub const INDIRECT: u16 = 4;

/// A memfd of `size` bytes.
pub fn memfd(size: u64) -> File {
    const NAME: &CStr = c"fuzz";
    // SAFETY: a valid C string; the descriptor is new and nobody else's.
    #[allow(unsafe_code, reason = "there is no safe way to a memfd in std")]
    let file = unsafe {
        let fd = libc::memfd_create(NAME.as_ptr(), libc::MFD_CLOEXEC);
        assert!(fd >= 0, "no memfd: {}", std::io::Error::last_os_error());
        File::from_raw_fd(fd)
    };
    file.set_len(size).expect("memory");
    file
}

/// A map of one region of `size` bytes from guest physical address 0 on.
pub fn memory(size: u64) -> Arc<MemoryMap> {
    let spec = RegionSpec { guest_addr: 0, size, user_addr: USER_BASE, mmap_offset: 0 };
    let region = Region::map(&spec, memfd(size)).expect("a region");
    Arc::new(MemoryMap::new(vec![region]).expect("a map"))
}

/// The parts of a ring of `size` descriptors, one after the other from `base` on.
pub fn ring_at(base: u64, size: u16, start: u16, event_idx: bool) -> RingSetup {
    let desc = base;
    let avail = desc + 16 * u64::from(size);
    let used = (avail + 6 + 2 * u64::from(size)).next_multiple_of(4);
    RingSetup { size, desc, avail, used, next_avail: start, next_used: start, event_idx }
}

/// The bytes of a descriptor.
pub fn descriptor(addr: u64, len: u32, flags: u16, next: u16) -> [u8; 16] {
    let mut bytes = [0; 16];
    bytes[..8].copy_from_slice(&addr.to_le_bytes());
    bytes[8..12].copy_from_slice(&len.to_le_bytes());
    bytes[12..14].copy_from_slice(&flags.to_le_bytes());
    bytes[14..].copy_from_slice(&next.to_le_bytes());
    bytes
}
