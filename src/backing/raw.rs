//! Raw images: a file or block device whose bytes are the disk's bytes.
//!
//! # Durability
//!
//! A failed `fsync` tells of lost data once; the next one would succeed. So a failure is remembered: from then on every flush
//! and every write with FUA fails, until the image is opened again.
#![allow(unsafe_code, reason = "addresses of I/O buffers go to the kernel")]

use std::fs::File;
use std::io;
use std::os::fd::{AsRawFd, RawFd};
use std::path::PathBuf;
use std::sync::atomic::{AtomicBool, Ordering};

use super::latch::Latch;
use super::transfer::{FromBuf, FromBytes, IntoBuf, IntoBytes, Memory, Zeros, transfer};
use super::{BackingError, Capabilities, Image, Op, OpKind};
use crate::mem::IoBuf;
use crate::sys::file::{self, DirectAlignment, IOV_MAX};

/// `fallocate` mode that deallocates.
pub(super) const PUNCH: i32 = libc::FALLOC_FL_PUNCH_HOLE | libc::FALLOC_FL_KEEP_SIZE;
/// `fallocate` mode that zeroes and keeps blocks allocated.
const ZERO: i32 = libc::FALLOC_FL_ZERO_RANGE | libc::FALLOC_FL_KEEP_SIZE;

/// The most that is bounced, or written as zeros, at a time; a multiple of every block size.
pub(super) const PIECE: u64 = 256 << 10;

/// How the blocks of an image are kept whole.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Access {
    /// Not at all: through the page cache.
    Buffered,
    /// By direct I/O.
    Direct(DirectAlignment),
    /// Through the page cache, under the range latch.
    Latched,
}

/// An open file as an asynchronous engine needs it.
#[derive(Debug)]
pub struct RawFile {
    file: File,
    path: PathBuf,
    size: u64,
    read_only: bool,
    direct: Option<DirectAlignment>,
    /// A sync failed: data that were acknowledged may be lost.
    sync_failed: AtomicBool,
    /// The file system cannot do this `fallocate` mode: do not ask again.
    no_punch: AtomicBool,
    no_zero: AtomicBool,
}

impl RawFile {
    pub(super) fn new(
        file: File,
        path: PathBuf,
        size: u64,
        read_only: bool,
        direct: Option<DirectAlignment>,
    ) -> RawFile {
        RawFile {
            file,
            path,
            size,
            read_only,
            direct,
            sync_failed: AtomicBool::new(false),
            no_punch: AtomicBool::new(false),
            no_zero: AtomicBool::new(false),
        }
    }

    /// The open descriptor; valid while this lives.
    pub(super) fn fd(&self) -> RawFd {
        self.file.as_raw_fd()
    }

    /// Refuses what must not reach the file: ranges that pass the end, changes of a read-only image, durability after it was lost,
    /// ranges that direct I/O cannot do.
    pub(super) fn check(&self, op: Op) -> Result<(), BackingError> {
        if op.kind == OpKind::Flush {
            return self.synced();
        }
        if op.offset.checked_add(op.len).is_none_or(|end| end > self.size) {
            return Err(BackingError::OutOfRange);
        }
        match op.kind {
            OpKind::Read => {}
            _ if self.read_only => return Err(BackingError::ReadOnly),
            OpKind::Write { fua: true } if self.synced().is_err() => return Err(BackingError::WriteFailed),
            _ => {}
        }
        let mask = self.direct.map_or(0, |direct| u64::from(direct.offset) - 1);
        if (op.offset | op.len) & mask != 0 {
            return Err(BackingError::Unsupported);
        }
        Ok(())
    }

    fn synced(&self) -> Result<(), BackingError> {
        if self.sync_failed.load(Ordering::Acquire) { Err(BackingError::FlushFailed) } else { Ok(()) }
    }

    /// Whether direct I/O takes these pieces of memory as they are; always true without it.
    pub(super) fn takes(&self, iov: &[libc::iovec]) -> bool {
        let Some(direct) = self.direct else { return true };
        let (memory, length) = (direct.memory as usize - 1, direct.offset as usize - 1);
        // A list that must be split could be split inside a block.
        iov.len() <= IOV_MAX && iov.iter().all(|p| p.iov_base as usize & memory == 0 && p.iov_len & length == 0)
    }

    /// Remembers that a sync failed.
    pub(super) fn sync_failed(&self, error: &io::Error) {
        if !self.sync_failed.swap(true, Ordering::AcqRel) {
            log::error!(
                "{}: data may be lost: sync failed: {error}; flushes fail from now on until the image is opened again",
                self.path.display()
            );
        }
    }

    /// The `fallocate` mode that does this kind of operation, if there is (still believed to be) one.
    pub(super) fn fallocate_mode(&self, kind: OpKind) -> Option<i32> {
        let punch = !self.no_punch.load(Ordering::Relaxed);
        let zero = !self.no_zero.load(Ordering::Relaxed);
        match kind {
            OpKind::Unmap | OpKind::WriteZeroes { unmap: true } if punch => Some(PUNCH),
            OpKind::WriteZeroes { .. } if zero => Some(ZERO),
            _ => None,
        }
    }

    fn forget_mode(&self, mode: i32) {
        let flag = if mode == PUNCH { &self.no_punch } else { &self.no_zero };
        flag.store(true, Ordering::Relaxed);
    }

    /// What an error of the system means for an operation of this kind.
    pub(super) fn failed(&self, kind: OpKind, error: &io::Error) -> BackingError {
        log::debug!("{}: {kind:?}: {error}", self.path.display());
        match (kind, error.raw_os_error()) {
            (OpKind::Read, _) => BackingError::ReadFailed,
            (OpKind::Flush, _) => BackingError::FlushFailed,
            (_, Some(libc::ENOSPC | libc::EDQUOT)) => BackingError::NoSpace,
            (OpKind::Unmap | OpKind::WriteZeroes { .. }, Some(libc::EOPNOTSUPP | libc::ENOSYS)) => {
                BackingError::Unsupported
            }
            _ => BackingError::WriteFailed,
        }
    }
}

/// A raw image.
#[derive(Debug)]
pub(super) struct RawImage {
    raw: RawFile,
    capabilities: Capabilities,
    latch: Option<Latch>,
    asynchronous: bool,
}

impl RawImage {
    pub(super) fn new(raw: RawFile, capabilities: Capabilities, latched: bool, asynchronous: bool) -> RawImage {
        RawImage { raw, capabilities, latch: latched.then(Latch::new), asynchronous }
    }

    /// The file, whether or not asynchronous engines may have it.
    #[cfg(test)]
    pub(super) fn file(&self) -> &RawFile {
        &self.raw
    }

    fn read_into(&self, offset: u64, len: u64, memory: impl Memory) -> Result<(), BackingError> {
        let kind = OpKind::Read;
        self.raw.check(Op { kind, offset, len })?;
        let _held = self.latch.as_ref().map(|latch| latch.shared(offset, len));
        transfer(&self.raw, len, memory, |iov, done| {
            // SAFETY: the pieces are `memory`'s, which vouches for them, or a bounce buffer.
            unsafe { file::preadv(&self.raw.file, iov, offset + done) }
        })
        .map_err(|e| self.raw.failed(kind, &e))
    }

    /// `memory` makes the memory, because a write may have to be done twice.
    fn write_from<M: Memory>(
        &self,
        offset: u64,
        len: u64,
        memory: impl Fn() -> M,
        fua: bool,
    ) -> Result<(), BackingError> {
        let kind = OpKind::Write { fua };
        self.raw.check(Op { kind, offset, len })?;
        let _held = self.latch.as_ref().map(|latch| latch.exclusive(offset, len));
        let error = match self.put(offset, len, memory(), fua) {
            Ok(()) => return Ok(()),
            Err(e) => e,
        };
        match error.raw_os_error() {
            // A sandbox's kernel that does not know RWF_DSYNC.
            Some(libc::EOPNOTSUPP) if fua => {
                self.put(offset, len, memory(), false).map_err(|e| self.raw.failed(kind, &e))?;
                self.flush().map_err(|_| BackingError::WriteFailed)
            }
            // Either there was no room for the data, and nothing is lost, or there was none when they (or other data of this
            // file) were written out. Writing again without sync tells which.
            Some(libc::ENOSPC | libc::EDQUOT) if fua => {
                self.put(offset, len, memory(), false).map_err(|e| self.raw.failed(kind, &e))?;
                self.raw.sync_failed(&error);
                Err(BackingError::WriteFailed)
            }
            _ => {
                if fua {
                    self.raw.sync_failed(&error);
                }
                Err(self.raw.failed(kind, &error))
            }
        }
    }

    fn put(&self, offset: u64, len: u64, memory: impl Memory, durable: bool) -> io::Result<()> {
        transfer(&self.raw, len, memory, |iov, done| {
            // SAFETY: the pieces are `memory`'s, which vouches for them, or a bounce buffer.
            unsafe { file::pwritev(&self.raw.file, iov, offset + done, durable) }
        })
    }

    /// Tries the `fallocate` modes that do this; `Ok(false)` if there is none.
    fn fallocate(&self, kind: OpKind, offset: u64, len: u64) -> Result<bool, BackingError> {
        while let Some(mode) = self.raw.fallocate_mode(kind) {
            match file::fallocate(&self.raw.file, mode, offset, len) {
                Ok(()) => return Ok(true),
                Err(e) if matches!(e.raw_os_error(), Some(libc::EOPNOTSUPP | libc::ENOSYS)) => {
                    self.raw.forget_mode(mode);
                }
                Err(e) => return Err(self.raw.failed(kind, &e)),
            }
        }
        Ok(false)
    }
}

impl Image for RawImage {
    fn size(&self) -> u64 {
        self.raw.size
    }

    fn capabilities(&self) -> Capabilities {
        self.capabilities
    }

    fn read(&self, offset: u64, len: u64, buf: &mut IoBuf, at: u64) -> Result<(), BackingError> {
        covers(buf, at, len)?;
        self.read_into(offset, len, IntoBuf { buf, at })
    }

    fn write(&self, offset: u64, len: u64, buf: &IoBuf, at: u64, fua: bool) -> Result<(), BackingError> {
        covers(buf, at, len)?;
        self.write_from(offset, len, || FromBuf { buf, at }, fua)
    }

    fn read_bytes(&self, offset: u64, dst: &mut [u8]) -> Result<(), BackingError> {
        let len = dst.len() as u64;
        self.read_into(offset, len, IntoBytes::new(dst))
    }

    fn write_bytes(&self, offset: u64, src: &[u8]) -> Result<(), BackingError> {
        self.write_from(offset, src.len() as u64, || FromBytes(src), false)
    }

    fn flush(&self) -> Result<(), BackingError> {
        self.raw.synced()?;
        if self.raw.read_only {
            return Ok(());
        }
        self.raw.file.sync_data().map_err(|e| {
            self.raw.sync_failed(&e);
            self.raw.failed(OpKind::Flush, &e)
        })?;
        // Another flush may have failed meanwhile, and taken the news that was ours, too.
        self.raw.synced()
    }

    fn unmap(&self, offset: u64, len: u64) -> Result<(), BackingError> {
        let kind = OpKind::Unmap;
        self.raw.check(Op { kind, offset, len })?;
        if len == 0 {
            return Ok(());
        }
        let _held = self.latch.as_ref().map(|latch| latch.exclusive(offset, len));
        if self.fallocate(kind, offset, len)? { Ok(()) } else { Err(BackingError::Unsupported) }
    }

    fn write_zeroes(&self, offset: u64, len: u64, unmap: bool) -> Result<(), BackingError> {
        let kind = OpKind::WriteZeroes { unmap };
        self.raw.check(Op { kind, offset, len })?;
        if len == 0 {
            return Ok(());
        }
        let _held = self.latch.as_ref().map(|latch| latch.exclusive(offset, len));
        if self.fallocate(kind, offset, len)? {
            return Ok(());
        }
        self.put(offset, len, Zeros::new(), false).map_err(|e| self.raw.failed(kind, &e))
    }

    fn raw(&self) -> Option<&RawFile> {
        self.asynchronous.then_some(&self.raw)
    }
}

/// The buffer must hold the whole transfer.
fn covers(buf: &IoBuf, at: u64, len: u64) -> Result<(), BackingError> {
    if at.checked_add(len).is_some_and(|end| end <= buf.len()) { Ok(()) } else { Err(BackingError::OutOfRange) }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn raw(direct: Option<DirectAlignment>) -> RawFile {
        RawFile::new(tempfile::tempfile().unwrap(), PathBuf::from("test"), 1 << 20, false, direct)
    }

    #[test]
    fn errors_of_the_system_have_a_meaning() {
        let write = OpKind::Write { fua: false };
        let zero = OpKind::WriteZeroes { unmap: true };
        let table = [
            (OpKind::Read, libc::EIO, BackingError::ReadFailed),
            (OpKind::Read, libc::ENOSPC, BackingError::ReadFailed),
            (OpKind::Read, libc::EFAULT, BackingError::ReadFailed),
            (write, libc::EIO, BackingError::WriteFailed),
            (write, libc::EFBIG, BackingError::WriteFailed),
            (write, libc::ENOSPC, BackingError::NoSpace),
            (write, libc::EDQUOT, BackingError::NoSpace),
            (zero, libc::ENOSPC, BackingError::NoSpace),
            (zero, libc::EOPNOTSUPP, BackingError::Unsupported),
            (zero, libc::EIO, BackingError::WriteFailed),
            (OpKind::Unmap, libc::EOPNOTSUPP, BackingError::Unsupported),
            (OpKind::Flush, libc::EIO, BackingError::FlushFailed),
            (OpKind::Flush, libc::ENOSPC, BackingError::FlushFailed),
        ];
        for (kind, errno, expected) in table {
            assert_eq!(raw(None).failed(kind, &io::Error::from_raw_os_error(errno)), expected, "{kind:?} {errno}");
        }
        assert_eq!(raw(None).failed(OpKind::Read, &io::ErrorKind::UnexpectedEof.into()), BackingError::ReadFailed);
    }

    #[test]
    fn direct_io_takes_aligned_pieces_only() {
        let raw = raw(Some(DirectAlignment { memory: 4, offset: 512 }));
        let piece = |base: usize, len: usize| libc::iovec { iov_base: base as *mut libc::c_void, iov_len: len };
        assert!(raw.takes(&[piece(0x1004, 512), piece(0x8000, 4096)]));
        assert!(!raw.takes(&[piece(0x1002, 512)]));
        assert!(!raw.takes(&[piece(0x1000, 512), piece(0x2000, 511)]));
        assert!(raw.takes(&vec![piece(0x1000, 512); IOV_MAX]));
        assert!(!raw.takes(&vec![piece(0x1000, 512); IOV_MAX + 1]));
        let op = |offset, len| Op { kind: OpKind::Read, offset, len };
        assert_eq!(raw.check(op(512, 1024)), Ok(()));
        assert_eq!(raw.check(op(511, 1024)), Err(BackingError::Unsupported));
        assert_eq!(raw.check(op(512, 1023)), Err(BackingError::Unsupported));
    }

    #[test]
    fn a_mode_that_failed_is_not_tried_again() {
        let raw = raw(None);
        let (keep, unmap) = (OpKind::WriteZeroes { unmap: false }, OpKind::WriteZeroes { unmap: true });
        assert_eq!(raw.fallocate_mode(unmap), Some(PUNCH));
        assert_eq!(raw.fallocate_mode(keep), Some(ZERO));
        raw.forget_mode(PUNCH);
        assert_eq!(raw.fallocate_mode(OpKind::Unmap), None);
        assert_eq!(raw.fallocate_mode(unmap), Some(ZERO));
        raw.forget_mode(ZERO);
        assert_eq!(raw.fallocate_mode(unmap), None);
        assert_eq!(raw.fallocate_mode(keep), None);
    }
}
