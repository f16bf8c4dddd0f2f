//! One region of guest memory: a piece of a file that a front-end sent, mapped.
#![allow(unsafe_code, reason = "asks the kernel about a file descriptor; each call argues its arguments")]

use std::fs::File;
use std::io;
use std::os::fd::AsRawFd;
use std::os::unix::fs::{FileTypeExt, MetadataExt};
use std::ptr::NonNull;
use std::sync::Arc;

use vm_memory::mmap::{MmapRegionBuilder, MmapRegionError};
use vm_memory::{FileOffset, MmapRegion};

use super::sigbus;

/// A region as the front-end describes it (vhost-user "memory region description"). Addresses and sizes in bytes.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct RegionSpec {
    /// Guest physical address of its first byte.
    pub guest_addr: u64,
    /// Its size.
    pub size: u64,
    /// Where it is in the front-end's own address space; vring addresses are given in those.
    pub user_addr: u64,
    /// Where it begins in the file.
    pub mmap_offset: u64,
}

/// Most guest memory that one front-end may have mapped, in bytes: 16 TiB. A front-end can make a sparse file of any size;
/// without a bound one of them could use up this process's address space, which all share.
pub const MAX_GUEST_MEMORY: u64 = 16 << 40;

/// Why a region, or a table of them, was refused.
#[derive(Debug, thiserror::Error)]
pub enum RegionError {
    /// A region of no bytes.
    #[error("memory region at {0:#x} has size 0")]
    Empty(u64),
    /// An end that does not fit in 64 bits.
    #[error("memory region at {0:#x}: an address or the offset overflows")]
    Overflow(u64),
    /// More than [`MAX_GUEST_MEMORY`].
    #[error("memory region at {0:#x}: more guest memory than is served")]
    TooLarge(u64),
    /// Not a regular file (memfd, tmpfs, hugetlbfs and ordinary files are).
    #[error("memory region at {guest_addr:#x}: its file descriptor is {what}, not a regular file")]
    NotAFile {
        /// Guest physical address of the region.
        guest_addr: u64,
        /// What it is.
        what: &'static str,
    },
    /// On a file system where a page fault may wait for a process that the front-end controls, or for another machine. The page would be
    /// missed by a reactor, and by all guests of that reactor with it.
    #[error(
        "memory region at {guest_addr:#x}: its file is on a file system (type {kind:#x}) that is not one of memory or of a local disk; \
         use a memfd, /dev/shm or huge pages"
    )]
    FileSystem {
        /// Guest physical address of the region.
        guest_addr: u64,
        /// The file system's number (statfs(2)).
        kind: u64,
    },
    /// The file ends before the region does.
    #[error("memory region at {guest_addr:#x}: ends at byte {end:#x} of a file of {file_size:#x} bytes")]
    PastEnd {
        /// Guest physical address of the region.
        guest_addr: u64,
        /// Where the region would end in the file.
        end: u64,
        /// The file's size.
        file_size: u64,
    },
    /// The file could not be examined.
    #[error("memory region at {guest_addr:#x}: cannot examine its file: {source}")]
    Examine {
        /// Guest physical address of the region.
        guest_addr: u64,
        /// The system's error.
        source: io::Error,
    },
    /// The kernel refused the mapping.
    #[error("memory region at {guest_addr:#x}: cannot map {size:#x} bytes: {source}")]
    Map {
        /// Guest physical address of the region.
        guest_addr: u64,
        /// Bytes asked for, rounded to whole pages.
        size: usize,
        /// What the mapping said.
        source: MmapRegionError,
    },
    /// Two regions of one table share a guest physical address.
    #[error("memory regions at {0:#x} and {1:#x} overlap")]
    Overlap(u64, u64),
    /// This process has as many regions mapped as it can watch over.
    #[error("memory region at {0:#x}: too many memory regions in this process")]
    TooMany(u64),
}

/// The file and the byte of it that stand behind a guest address: two mappings of one file are the same memory.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Backing {
    device: u64,
    inode: u64,
    /// File offset of guest physical address 0, modulo 2^64. Equal for two regions exactly if they map an address that
    /// both contain to the same byte.
    origin: u64,
}

/// One region of guest memory, mapped shared. Unmapped when the last holder drops it.
#[derive(Debug)]
pub struct Region {
    // Dropped before `mapping`: a range must not be watched once it may be mapped by somebody else.
    watch: sigbus::Watch,
    mapping: MmapRegion<()>,
    /// From the start of the mapping to the region's first byte: the region may begin inside a page.
    lead: usize,
    spec: RegionSpec,
    backing: Backing,
}

impl Region {
    /// Maps the region that `spec` describes of `file`, shared, readable and writable.
    ///
    /// What is mapped is whole pages of the file (huge pages on hugetlbfs): a region need not begin or end at a
    /// page boundary, and below 1 MiB of a PC on hugetlbfs it does not.
    ///
    /// # Errors
    ///
    /// See [`RegionError`]. The file's size is checked now; it may shrink later, see [`Region::poisoned`].
    pub fn map(spec: &RegionSpec, file: File) -> Result<Arc<Region>, RegionError> {
        let guest_addr = spec.guest_addr;
        if spec.size == 0 {
            return Err(RegionError::Empty(guest_addr));
        }
        if spec.size > MAX_GUEST_MEMORY {
            return Err(RegionError::TooLarge(guest_addr));
        }
        let overflow = || RegionError::Overflow(guest_addr);
        guest_addr.checked_add(spec.size).ok_or_else(overflow)?;
        spec.user_addr.checked_add(spec.size).ok_or_else(overflow)?;
        let file_end = spec.mmap_offset.checked_add(spec.size).ok_or_else(overflow)?;

        let found = Examined::of(&file, guest_addr)?;
        if file_end > found.size {
            return Err(RegionError::PastEnd { guest_addr, end: file_end, file_size: found.size });
        }

        // Both ends to whole pages. A file's size is below 2^63, so rounding up cannot overflow.
        let start = spec.mmap_offset - spec.mmap_offset % found.page;
        let end = file_end.next_multiple_of(found.page);
        let size = usize::try_from(end - start).map_err(|_| overflow())?;
        let lead = usize::try_from(spec.mmap_offset - start).map_err(|_| overflow())?;

        let mapping = MmapRegionBuilder::new(size)
            .with_file_offset(FileOffset::new(file, start))
            .with_mmap_prot(libc::PROT_READ | libc::PROT_WRITE)
            .with_mmap_flags(libc::MAP_NORESERVE | libc::MAP_SHARED)
            .with_hugetlbfs(found.hugetlbfs)
            .build()
            .map_err(|source| RegionError::Map { guest_addr, size, source })?;
        keep_out_of_core_dumps(&mapping);
        let watch = sigbus::watch(mapping.as_ptr() as usize, size).ok_or(RegionError::TooMany(guest_addr))?;
        let backing =
            Backing { device: found.device, inode: found.inode, origin: spec.mmap_offset.wrapping_sub(guest_addr) };
        Ok(Arc::new(Region { watch, mapping, lead, spec: *spec, backing }))
    }

    /// Guest physical address of the first byte.
    pub fn guest_addr(&self) -> u64 {
        self.spec.guest_addr
    }

    /// Size in bytes.
    pub fn size(&self) -> u64 {
        self.spec.size
    }

    /// Guest physical address past the last byte.
    pub fn guest_end(&self) -> u64 {
        // `map` has checked that this does not overflow.
        self.spec.guest_addr + self.spec.size
    }

    /// How the front-end described it.
    pub fn spec(&self) -> &RegionSpec {
        &self.spec
    }

    /// The file descriptor it is mapped from and the offset of the mapping in it.
    pub fn file_offset(&self) -> Option<&FileOffset> {
        self.mapping.file_offset()
    }

    /// Whether this is exactly the memory that `spec` describes of `file`, so that it need not be mapped again. Never
    /// true for a poisoned region.
    pub fn is(&self, spec: &RegionSpec, file: &File) -> bool {
        self.spec == *spec
            && !self.poisoned()
            && file.metadata().is_ok_and(|m| m.dev() == self.backing.device && m.ino() == self.backing.inode)
    }

    /// Whether an access found that the file had shrunk (or its page was lost to a hardware error). What is mapped here now
    /// is private zeros: nothing written reaches the guest. The connection should be dropped.
    pub fn poisoned(&self) -> bool {
        self.watch.poisoned()
    }

    pub(super) fn backing(&self) -> Backing {
        self.backing
    }

    /// The host address of the first byte. `size()` bytes from there on are mapped while the region lives.
    pub(super) fn host(&self) -> NonNull<u8> {
        // SAFETY: `lead` is less than the mapping's size, so this is inside the mapping and hence not null.
        unsafe { NonNull::new_unchecked(self.mapping.as_ptr().add(self.lead)) }
    }
}

/// A crash of ours is not to write every guest's memory to disk, as it would for memfds by default.
fn keep_out_of_core_dumps(mapping: &MmapRegion<()>) {
    // SAFETY: the range is exactly one mapping of ours; the advice does not change its contents.
    let result = unsafe { libc::madvise(mapping.as_ptr().cast(), mapping.size(), libc::MADV_DONTDUMP) };
    if result != 0 {
        log::debug!("guest memory stays in core dumps: {}", io::Error::last_os_error());
    }
}

/// Where guest memory may be (numbers of linux/magic.h and statfs(2)): in memory, or on a disk of this host, as a file for `-mem-path` or a
/// virtual NVDIMM. Not FUSE and what passes faults on to another file system (overlayfs), and nothing with a network below.
const FILE_SYSTEMS: [u64; 9] = [
    // tmpfs (memfds, /dev/shm), ramfs, hugetlbfs.
    0x0102_1994,
    0x8584_58f6,
    0x9584_58f6,
    // ext4, XFS, btrfs, F2FS, bcachefs, ZFS.
    0xef53,
    0x5846_5342,
    0x9123_683e,
    0xf2f5_2010,
    0xca45_1a4e,
    0x2fc1_2fc1,
];

/// What the kernel says about a file.
struct Examined {
    size: u64,
    device: u64,
    inode: u64,
    /// Size of the pages that a mapping of it has.
    page: u64,
    hugetlbfs: bool,
}

impl Examined {
    fn of(file: &File, guest_addr: u64) -> Result<Examined, RegionError> {
        let examine = |source| RegionError::Examine { guest_addr, source };
        let meta = file.metadata().map_err(examine)?;
        let kind = meta.file_type();
        if !kind.is_file() {
            let what = if kind.is_block_device() {
                "a block device"
            } else if kind.is_char_device() {
                "a character device"
            } else if kind.is_dir() {
                "a directory"
            } else {
                "a pipe or socket"
            };
            return Err(RegionError::NotAFile { guest_addr, what });
        }

        // SAFETY: all-zero bytes are a valid `struct statfs`.
        let mut fs: libc::statfs = unsafe { std::mem::zeroed() };
        // SAFETY: the descriptor is open while `file` is borrowed and `fs` is a whole `struct statfs` of ours.
        if unsafe { libc::fstatfs(file.as_raw_fd(), &mut fs) } != 0 {
            return Err(examine(io::Error::last_os_error()));
        }
        // The type of the field differs from system to system; its numbers have 32 bits.
        let kind = fs.f_type as u64 & 0xffff_ffff;
        if !FILE_SYSTEMS.contains(&kind) {
            return Err(RegionError::FileSystem { guest_addr, kind });
        }
        let hugetlbfs = kind == libc::HUGETLBFS_MAGIC as u64;
        // A mapping of hugetlbfs must begin and end at its page size, which it reports as its block size.
        let page = if hugetlbfs { u64::try_from(fs.f_bsize).unwrap_or(0).max(page_size()) } else { page_size() };
        Ok(Examined { size: meta.len(), device: meta.dev(), inode: meta.ino(), page, hugetlbfs })
    }
}

/// The size of an ordinary page of this host in bytes.
pub(super) fn page_size() -> u64 {
    // SAFETY: a query without arguments to point anywhere.
    let size = unsafe { libc::sysconf(libc::_SC_PAGESIZE) };
    // POSIX requires an answer; 4096 is a safe guess on every host that we run on.
    u64::try_from(size).unwrap_or(4096)
}
