//! Opening an image: what is asked for, what the file can do, and clear words when the two do not meet.

use std::fs::{File, Metadata};
use std::io;
use std::os::unix::fs::{FileTypeExt, MetadataExt};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use super::atomic::AtomicFile;
use super::caching::CacheMode;
use super::lock::{Lock, Locking, Who};
use super::mapped::Mapped;
use super::raw::{Access, RawImage};
use super::{Capabilities, Image, RawFile};
use crate::sys::file::{self, DirectAlignment};

/// Which engine does an image's I/O.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum EngineChoice {
    /// The best that the file takes: mapped on tmpfs; io_uring, if there is one, on block devices and file systems of local disks; else I/O threads.
    #[default]
    Auto,
    /// Through a mapping of the file, on the reactor; only on tmpfs, where a page fault waits for no device.
    Mmap,
    /// preadv and pwritev on the reactor; only on tmpfs.
    Inline,
    /// io_uring wherever a port has a ring (I/O threads where it has none); refused for an image that needs the range latch, and on FUSE.
    IoUring,
    /// I/O threads.
    Threads,
}

/// How to open an image.
#[derive(Clone, Debug)]
pub struct OpenOptions {
    /// A regular file or block device.
    pub path: PathBuf,
    /// Open it without write permission.
    pub read_only: bool,
    /// Bytes of a logical block, a power of two from 512 to 65536; the size must be a multiple of it, and a block of a shared image is never torn.
    pub block_size: u32,
    /// More than one initiator may use the image at a time.
    pub shared: bool,
    /// Which engine to use.
    pub engine: EngineChoice,
    /// How it is cached.
    pub cache: CacheMode,
    /// Whether to lock it.
    pub locking: Locking,
    /// How long to wait for somebody else who has it locked. A process that was killed has its locks for some 60 ms more, while the kernel takes down
    /// its io_uring.
    pub patience: Duration,
}

/// How long a start waits for whoever has an image locked: long enough for a killed process, and for one that is being stopped.
pub const PATIENCE: Duration = Duration::from_secs(5);

impl OpenOptions {
    /// Read-write, 512-byte blocks, not shared, the best engine, locked where that can be, with [`PATIENCE`].
    pub fn new(path: impl Into<PathBuf>) -> OpenOptions {
        OpenOptions {
            path: path.into(),
            read_only: false,
            block_size: 512,
            shared: false,
            engine: EngineChoice::Auto,
            cache: CacheMode::Auto,
            locking: Locking::Auto,
            patience: PATIENCE,
        }
    }
}

/// Why an image could not be opened: one line that names the file and the mend.
#[derive(Debug, thiserror::Error)]
pub enum OpenError {
    /// Nothing there.
    #[error("{path}: no such image; create it first, for example with: truncate -s 10G {path}")]
    Missing {
        /// The file.
        path: PathBuf,
    },
    /// No permission.
    #[error("{path}: not permitted to open it for {what}; check its owner and mode{hint}")]
    Denied {
        /// The file.
        path: PathBuf,
        /// "reading" or "reading and writing".
        what: &'static str,
        /// More to try.
        hint: &'static str,
    },
    /// The file system or device takes no writes.
    #[error("{path}: it cannot be written (read-only file system or device); open it with read-only")]
    ReadOnlyMedium {
        /// The file.
        path: PathBuf,
    },
    /// A directory.
    #[error("{path}: is a directory; name an image file in it")]
    Directory {
        /// The file.
        path: PathBuf,
    },
    /// Neither a regular file nor a block device.
    #[error("{path}: is a {what}; an image is a regular file or a block device")]
    WrongType {
        /// The file.
        path: PathBuf,
        /// What it is.
        what: &'static str,
    },
    /// No bytes in it.
    #[error("{path}: is empty; give it a size, for example with: truncate -s 10G {path}")]
    Empty {
        /// The file.
        path: PathBuf,
    },
    /// The last block is not whole.
    #[error(
        "{path}: its size of {size} bytes is not a multiple of the block size of {block_size}; \
         resize it, for example with: truncate -s %{block_size} {path}"
    )]
    PartialBlock {
        /// The file.
        path: PathBuf,
        /// Its size in bytes.
        size: u64,
        /// What was asked for.
        block_size: u32,
    },
    /// A block size that no disk has.
    #[error("{path}: a block size of {block_size} is not possible; use 512 or 4096")]
    BlockSize {
        /// The file.
        path: PathBuf,
        /// What was asked for.
        block_size: u32,
    },
    /// A shared image that needs the range latch.
    #[error(
        "{path}: io_uring cannot serve it while it is shared without direct I/O (its file system has none in blocks of \
         {block_size} bytes, or cache= says so); leave the choice of the engine to vstgt"
    )]
    Engine {
        /// The file.
        path: PathBuf,
        /// What was asked for.
        block_size: u32,
    },
    /// Direct I/O of a file that has none.
    #[error(
        "{path}: its file system has no direct I/O in blocks of {block_size} bytes, which cache=none and cache=directsync ask for{hint}; \
         or use cache=writeback"
    )]
    NoDirect {
        /// The file.
        path: PathBuf,
        /// What was asked for.
        block_size: u32,
        /// A block size with which it has.
        hint: &'static str,
    },
    /// An engine that does I/O on the reactor, for an image whose I/O may wait for a device.
    #[error(
        "{path}: --engine {engine} is for images in memory (tmpfs): elsewhere it would make all guests wait for a disk; \
         leave the choice of the engine to vstgt"
    )]
    Waits {
        /// The file.
        path: PathBuf,
        /// The engine.
        engine: &'static str,
    },
    /// A file of a FUSE file system.
    #[error(
        "{path}: io_uring cannot serve it: Linux goes on at the wrong place after a short transfer of a FUSE file; leave the choice of \
         the engine to vstgt"
    )]
    EngineFuse {
        /// The file.
        path: PathBuf,
    },
    /// Another program has it locked.
    #[error(
        "{path}: in use: {who} {what}; end that program first (lsof {path} or fuser -v {path}, as root, shows who has the file open). \
         If what it does cannot harm, locking=off serves the image all the same"
    )]
    InUse {
        /// The file.
        path: PathBuf,
        /// What the other program does with it.
        what: &'static str,
        /// Who that is.
        who: Who,
    },
    /// It cannot be locked, and was to be.
    #[error("{path}: its file system has no locks ({source}); locking=auto serves it without")]
    Unlockable {
        /// The file.
        path: PathBuf,
        /// What the system says.
        source: io::Error,
    },
    /// Anything else that the system says.
    #[error("{path}: cannot be opened: {source}")]
    System {
        /// The file.
        path: PathBuf,
        /// What it says.
        source: io::Error,
    },
}

/// Opens an image, locks it, and finds out what it can do. When this returns, nobody else who asks for locks writes the image, and if it is
/// writable nobody else will until it is dropped: what a former process left undone may be done then.
pub fn open(options: &OpenOptions) -> Result<Arc<dyn Image>, OpenError> {
    Ok(Arc::new(open_raw(options)?))
}

pub(super) fn open_raw(options: &OpenOptions) -> Result<RawImage, OpenError> {
    let path = &options.path;
    if !(512..=65536).contains(&options.block_size) || !options.block_size.is_power_of_two() {
        return Err(OpenError::BlockSize { path: path.clone(), block_size: options.block_size });
    }
    // Looked at before it is opened, because opening a FIFO would wait, and again after, because it may have been replaced.
    check_type(path, &std::fs::metadata(path).map_err(|e| refused(options, e))?)?;
    let file =
        std::fs::OpenOptions::new().read(true).write(!options.read_only).open(path).map_err(|e| refused(options, e))?;
    let system = |source| OpenError::System { path: path.clone(), source };
    let metadata = file.metadata().map_err(system)?;
    check_type(path, &metadata)?;
    // Before anything is asked of the file, let alone tried with it.
    let lock = Lock::new(options.read_only);
    let lock = lock.wait(&file, path, options.locking, options.patience)?;

    let size = file::size(&file).map_err(system)?;
    if size == 0 {
        return Err(OpenError::Empty { path: path.clone() });
    }
    if size % u64::from(options.block_size) != 0 {
        return Err(OpenError::PartialBlock { path: path.clone(), size, block_size: options.block_size });
    }

    file::keep_no_access_times(&file);
    let found = Found::probe(&file, &metadata, size).map_err(system)?;
    let on_reactor = match options.engine {
        EngineChoice::Auto => found.in_memory,
        EngineChoice::IoUring | EngineChoice::Threads => false,
        EngineChoice::Mmap | EngineChoice::Inline if found.in_memory => true,
        EngineChoice::Mmap => return Err(OpenError::Waits { path: path.clone(), engine: "mmap" }),
        EngineChoice::Inline => return Err(OpenError::Waits { path: path.clone(), engine: "inline" }),
    };
    let access = choose_access(options, &file, &found)?;
    if access == Access::Latched && options.engine == EngineChoice::IoUring {
        return Err(OpenError::Engine { path: path.clone(), block_size: options.block_size });
    }
    let capabilities = Capabilities {
        read_only: options.read_only,
        unmap: found.unmap && !options.read_only,
        write_zeroes: found.zero_range && !options.read_only,
        unmap_granularity: found.unmap_granularity,
        never_waits: on_reactor,
        direct: matches!(access, Access::Direct(_)),
        volatile: options.cache == CacheMode::Unsafe,
    };
    let direct = match access {
        Access::Direct(alignment) => Some(alignment),
        Access::Buffered | Access::Latched => None,
    };
    if found.fuse && options.engine == EngineChoice::IoUring {
        return Err(OpenError::EngineFuse { path: path.clone() });
    }
    let asynchronous = match options.engine {
        EngineChoice::Auto | EngineChoice::Mmap | EngineChoice::Inline => access != Access::Latched && found.nowait,
        EngineChoice::IoUring => true,
        EngineChoice::Threads => false,
    };
    let atomic = if options.read_only { None } else { AtomicFile::probe(&file) };
    let map = on_reactor && options.engine != EngineChoice::Inline;
    let mapped = if map { Mapped::new(&file, size, !options.read_only) } else { None };
    let raw = RawFile::new(file, path.clone(), size, options.read_only, direct, options.block_size, found.sector);
    let raw = raw.nowait(found.nowait).locked(lock);
    let image = RawImage::new(raw, capabilities, access == Access::Latched, asynchronous)
        .with_atomic(atomic)
        .with_mapping(mapped);
    if !options.read_only && metadata.file_type().is_file() && !found.in_memory {
        keep_name(path);
    }
    log::debug!("{}: {size} bytes, {access:?}, {capabilities:?}", path.display());
    Ok(image)
}

/// Makes the image's name durable: it may have been created a moment ago, and no sync of the file is sure to keep it. Where that cannot be
/// done the directory is not ours to read, and whoever made the image has to.
fn keep_name(path: &Path) {
    let kept = path.canonicalize().and_then(|path| match path.parent() {
        Some(directory) => File::open(directory)?.sync_all(),
        None => Ok(()),
    });
    if let Err(e) = kept {
        log::info!("{}: whether its name would survive a loss of power is not known: {e}", path.display());
    }
}

fn check_type(path: &Path, metadata: &Metadata) -> Result<(), OpenError> {
    let kind = metadata.file_type();
    let path = path.to_path_buf();
    if kind.is_file() || kind.is_block_device() {
        Ok(())
    } else if kind.is_dir() {
        Err(OpenError::Directory { path })
    } else if kind.is_char_device() {
        Err(OpenError::WrongType { path, what: "character device" })
    } else if kind.is_fifo() {
        Err(OpenError::WrongType { path, what: "FIFO" })
    } else if kind.is_socket() {
        Err(OpenError::WrongType { path, what: "socket" })
    } else {
        Err(OpenError::WrongType { path, what: "file of an unknown type" })
    }
}

/// Words for an error of `stat` or `open`.
fn refused(options: &OpenOptions, source: io::Error) -> OpenError {
    let path = options.path.clone();
    match source.raw_os_error() {
        Some(libc::ENOENT) => OpenError::Missing { path },
        Some(libc::EROFS) => OpenError::ReadOnlyMedium { path },
        Some(libc::EACCES | libc::EPERM) if options.read_only => OpenError::Denied { path, what: "reading", hint: "" },
        Some(libc::EACCES | libc::EPERM) => {
            OpenError::Denied { path, what: "reading and writing", hint: ", or open it with read-only" }
        }
        _ => OpenError::System { path, source },
    }
}

/// What was found out about a file.
struct Found {
    /// It lives in memory: no call on it waits for a device.
    in_memory: bool,
    direct: Option<DirectAlignment>,
    /// The longest block that always lies in one piece on the medium: a file's may be cut at every block of its file system.
    contiguous: u64,
    unmap: bool,
    zero_range: bool,
    unmap_granularity: u32,
    /// Granularity of `fallocate`.
    sector: u32,
    /// Whoever asks it not to wait is not made to. It is asked whether it knows the question: an old kernel's file system does not, nor does a device made of others
    /// that do not. Some claim it and wait all the same: a FUSE server that hangs would hang a reactor. So of file systems these are known ones, on disks of
    /// this host, too; on others it is the I/O threads that wait.
    nowait: bool,
    /// It is on a FUSE file system. What Linux (6.18) does of a short read or write of such a file on a ring it goes on with where the whole began.
    fuse: bool,
}

const RAMFS_MAGIC: u64 = 0x8584_58f6;
const TMPFS_MAGIC: u64 = 0x0102_1994;
const XFS_MAGIC: u64 = 0x5846_5342;
const EXT4_MAGIC: u64 = 0xef53;
const BTRFS_MAGIC: u64 = 0x9123_683e;
const F2FS_MAGIC: u64 = 0xf2f5_2010;
const FUSE_MAGIC: u64 = 0x6573_5546;
const BCACHEFS_MAGIC: u64 = 0xca45_1a4e;

impl Found {
    fn probe(file: &File, metadata: &Metadata, size: u64) -> io::Result<Found> {
        if metadata.file_type().is_block_device() {
            return Found::probe_device(file, metadata);
        }
        let magic = file::file_system(file)?;
        let in_memory = matches!(magic, TMPFS_MAGIC | RAMFS_MAGIC);
        // tmpfs takes O_DIRECT and copies through the page cache all the same.
        let direct = if in_memory { None } else { file::direct_alignment(file)? };
        // Behind the end there is nothing to lose, and whether the file system can do it is answered all the same.
        let unmap = file::fallocate(file, super::raw_file::PUNCH, size, 4096).is_ok();
        let granularity = u32::try_from(metadata.blksize()).ok().filter(|size| size.is_power_of_two());
        Ok(Found {
            in_memory,
            direct,
            contiguous: file::file_system_block(file)?,
            unmap,
            // Cannot be asked without doing it; where this guess is wrong, zeros are written.
            zero_range: matches!(magic, EXT4_MAGIC | XFS_MAGIC | BTRFS_MAGIC | F2FS_MAGIC),
            unmap_granularity: granularity.unwrap_or(4096),
            sector: 1,
            nowait: in_memory
                || matches!(magic, EXT4_MAGIC | XFS_MAGIC | BTRFS_MAGIC | F2FS_MAGIC | BCACHEFS_MAGIC)
                    && file::takes_nowait(file),
            fuse: magic == FUSE_MAGIC,
        })
    }

    /// Whether direct I/O keeps blocks of this size whole.
    fn keeps_whole(&self, block: u32, alignment: DirectAlignment) -> bool {
        // A sector is always whole.
        block == alignment.offset || block > alignment.offset && block <= PAGE && u64::from(block) <= self.contiguous
    }

    fn probe_device(file: &File, metadata: &Metadata) -> io::Result<Found> {
        let sector = file::block_device_sector(file)?;
        let direct = file::direct_alignment(file)?.unwrap_or(DirectAlignment { memory: sector, offset: sector });
        let zeroes = queue_limit(metadata.rdev(), "write_zeroes_max_bytes").unwrap_or(0) > 0;
        let granularity = queue_limit(metadata.rdev(), "discard_granularity").and_then(|g| u32::try_from(g).ok());
        Ok(Found {
            in_memory: false,
            direct: Some(direct),
            contiguous: u64::MAX,
            // Punching a hole into a device is "write zeroes, may unmap".
            unmap: zeroes,
            zero_range: zeroes,
            unmap_granularity: granularity.filter(|g| g.is_power_of_two()).unwrap_or(sector).max(sector),
            sector,
            nowait: file::takes_nowait(file),
            fuse: false,
        })
    }
}

/// A limit of a block device's queue, from sysfs; a partition's queue is its disk's.
fn queue_limit(device: u64, name: &str) -> Option<u64> {
    let read = |queue: PathBuf| std::fs::read_to_string(queue.join(name)).ok();
    queues(device).into_iter().find_map(read)?.trim().parse().ok()
}

/// Where a block device's limits may be; the first of them that is there counts.
fn queues(device: u64) -> [PathBuf; 2] {
    let base = format!("/sys/dev/block/{}:{}", libc::major(device), libc::minor(device));
    ["queue", "../queue"].map(|queue| Path::new(&base).join(queue))
}

/// The directories that are read when this image is opened, besides itself: none, unless it is a block device.
pub fn limits_of(image: &Path) -> Vec<PathBuf> {
    use std::os::unix::fs::{FileTypeExt, MetadataExt};
    let device = std::fs::metadata(image).ok().filter(|metadata| metadata.file_type().is_block_device());
    device.map_or_else(Vec::new, |metadata| queues(metadata.rdev()).into_iter().filter(|dir| dir.is_dir()).collect())
}

/// The longest block that always lies in one piece in memory.
const PAGE: u32 = 4096;

/// How blocks of the image stay whole, where they have to: of an image that several initiators use and some of them write. One that reads a block of
/// its own while it writes it, through the page cache, may see some of both; it has to wait for itself.
///
/// Direct I/O keeps them whole if each goes to the device in one request. What it is a request's worth of must lie in one piece in memory (see
/// [`RawFile::takes`]) and on the medium.
fn choose_access(options: &OpenOptions, file: &File, found: &Found) -> Result<Access, OpenError> {
    let path = || options.path.clone();
    let set_direct = || file::set_direct(file).map_err(|source| OpenError::System { path: path(), source });
    // What is in memory has nothing below it to go to directly.
    if options.cache.is_direct() && !found.in_memory {
        let fits = |alignment: &DirectAlignment| alignment.offset <= options.block_size;
        if let Some(alignment) = found.direct.filter(fits)
            && (!options.shared || options.read_only || found.keeps_whole(options.block_size, alignment))
            && set_direct()?
        {
            return Ok(Access::Direct(alignment));
        }
        let would_fit = options.block_size < PAGE && found.direct.is_some_and(|direct| direct.offset <= PAGE);
        let hint = if would_fit { "; it has with block-size=4096" } else { "" };
        return Err(OpenError::NoDirect { path: path(), block_size: options.block_size, hint });
    }
    if !options.shared || options.read_only {
        return Ok(Access::Buffered);
    }
    match found.direct.filter(|_| options.cache == CacheMode::Auto) {
        Some(alignment) if found.keeps_whole(options.block_size, alignment) && set_direct()? => {
            Ok(Access::Direct(alignment))
        }
        _ => Ok(Access::Latched),
    }
}

#[cfg(test)]
mod tests;
