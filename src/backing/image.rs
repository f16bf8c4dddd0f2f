//! The trait behind which image formats stand.

use super::{AtomicUnit, BackingError};
use crate::mem::IoBuf;

/// What an open image can do; fixed when it is opened.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Capabilities {
    /// Opened without write permission.
    pub read_only: bool,
    /// Ranges can be deallocated (holes punched) and then read as zeros.
    pub unmap: bool,
    /// Ranges can be zeroed without writing zeros.
    pub write_zeroes: bool,
    /// Granularity of deallocation in bytes, a power of two.
    pub unmap_granularity: u32,
    /// Inline calls cannot wait for a device (tmpfs).
    pub never_waits: bool,
    /// Opened O_DIRECT.
    pub direct: bool,
    /// Nothing is ever made durable: flushes and FUA are answered, and nothing is done ([`CacheMode::Unsafe`](super::CacheMode)).
    pub volatile: bool,
}

/// Bytes of one kind at some place of an image.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Run {
    /// They hold data; or else they are a hole: they take no space, and read as zeros.
    pub mapped: bool,
    /// How many there are at least, from that place on.
    pub len: u64,
}

/// What an image takes of the file system that it lies in, and what that has left, in bytes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Space {
    /// The image takes so much.
    pub used: u64,
    /// So much could still be allocated, for this image and for whatever else lies there.
    pub available: u64,
}

/// An open disk image.
///
/// Offsets and lengths are bytes. All methods may block unless [`Capabilities::never_waits`].
pub trait Image: Send + Sync + std::fmt::Debug {
    /// Current size in bytes, as it was when it was last looked at.
    fn size(&self) -> u64;

    /// Looks at the size again, for somebody may have made the image larger or smaller: from now on [`Image::size`] is the file's, cut to
    /// whole blocks of `block` bytes. A file that holds no block any more is not believed, for that is what a file looks like
    /// which is about to be replaced. Returns the size that holds now. An image whose size cannot change need not do anything.
    fn refresh_size(&self, block: u32) -> Result<u64, BackingError> {
        let _ = block;
        Ok(self.size())
    }

    /// Whether its path names another file by now: this one is its own, and whoever opens the path gets the other. May wait.
    fn is_replaced(&self) -> bool {
        false
    }

    /// Lets other programs have the image; nobody uses it here until [`Image::lock`]. May wait.
    fn unlock(&self) {}

    /// Has it to itself again, as it had it since it was opened. Does nothing if it is so already. May wait.
    ///
    /// # Errors
    ///
    /// [`BackingError::InUse`]: it stays unlocked.
    fn lock(&self) -> Result<(), BackingError> {
        Ok(())
    }

    /// Whether data that were to be made durable may be lost: no flush and no write with FUA succeeds any more.
    fn has_lost_writes(&self) -> bool {
        false
    }

    /// What happened to a former process happened to this image: see [`Image::has_lost_writes`].
    fn had_lost_writes(&self) {}

    /// Reads what is on the medium from now on, and not what is cached of it: after writes that were lost the two may differ. As far as that can be done.
    fn forget_cached(&self) {}

    /// What it can do; always the same.
    fn capabilities(&self) -> Capabilities;

    /// Reads `len` bytes at `offset` into `buf` from its byte `at` on.
    fn read(&self, offset: u64, len: u64, buf: &mut IoBuf, at: u64) -> Result<(), BackingError>;

    /// Writes `len` bytes of `buf` from its byte `at` on; durable before it returns if `fua`.
    fn write(&self, offset: u64, len: u64, buf: &IoBuf, at: u64, fua: bool) -> Result<(), BackingError>;

    /// As [`Image::read`]; with an error come the bytes, from the first one on, that could be read: what comes then is what could not.
    fn read_until(&self, offset: u64, len: u64, buf: &mut IoBuf, at: u64) -> Result<(), (BackingError, u64)> {
        self.read(offset, len, buf, at).map_err(|e| (e, 0))
    }

    /// As [`Image::write`]; with an error come the bytes, from the first one on, that are known to be written.
    fn write_until(&self, offset: u64, len: u64, buf: &IoBuf, at: u64, fua: bool) -> Result<(), (BackingError, u64)> {
        self.write(offset, len, buf, at, fua).map_err(|e| (e, 0))
    }

    /// Reads into memory of our own.
    fn read_bytes(&self, offset: u64, dst: &mut [u8]) -> Result<(), BackingError>;

    /// Writes memory of our own.
    fn write_bytes(&self, offset: u64, src: &[u8]) -> Result<(), BackingError>;

    /// Makes everything written before durable.
    fn flush(&self) -> Result<(), BackingError>;

    /// Deallocates the range; afterwards it reads as zeros.
    fn unmap(&self, offset: u64, len: u64) -> Result<(), BackingError>;

    /// Zeroes the range; deallocates it if `unmap` and possible.
    fn write_zeroes(&self, offset: u64, len: u64, unmap: bool) -> Result<(), BackingError>;

    /// Which writes are never torn, whatever happens; `None` if the image cannot promise it of any.
    fn atomic_unit(&self) -> Option<AtomicUnit> {
        None
    }

    /// Writes memory of our own so that after a loss of power all of it is there or nothing, as [`Image::atomic_unit`] allows; durable
    /// before it returns if `fua`.
    fn write_atomic(&self, offset: u64, src: &[u8], fua: bool) -> Result<(), BackingError> {
        let _ = (offset, src, fua);
        Err(BackingError::Unsupported)
    }

    /// What lies at `offset`, and how far it goes, up to `len` bytes (at least 1, unless `len` is 0). Neighbouring runs may be of one
    /// kind. An image that cannot tell says that everything is mapped.
    fn run_at(&self, offset: u64, len: u64) -> Result<Run, BackingError> {
        match offset.checked_add(len).is_some_and(|end| end <= self.size()) {
            true => Ok(Run { mapped: true, len }),
            false => Err(BackingError::OutOfRange),
        }
    }

    /// The space that the image takes, and what is left of it; `None` if that cannot be told, as of a block device.
    fn space(&self) -> Option<Space> {
        None
    }

    /// Copies `len` bytes from `from` of `src` on, which may be this very image, to `to` of this one on. Where the ranges overlap the result is
    /// as if all had been read before any was written; blocks stay as whole as with reads and writes. With `share`
    /// the copy may share storage with what it was copied from, so that a later write to either may need new space.
    ///
    /// Of its errors [`BackingError::ReadFailed`] is about `src`, and what was written before it stays written; all others are about this image.
    fn copy_from(&self, to: u64, src: &dyn Image, from: u64, len: u64, share: bool) -> Result<(), BackingError> {
        let _ = share;
        let same = std::ptr::addr_eq(self, src);
        super::copy::through_memory(same, to, src, from, len, |at, len, buf| self.write(at, len, buf, 0, false))
    }

    /// The file whose bytes are the image's bytes, for other images to copy from by means of the file system; `None` if there is
    /// none, or if its blocks stay whole only when they are read through the methods above.
    fn copy_source(&self) -> Option<&super::RawFile> {
        None
    }

    /// The file to hand to an asynchronous engine, with what the engine must know; `None` if operations must go through
    /// the methods above.
    fn raw(&self) -> Option<&super::RawFile>;
}
