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
use super::{BackingError, Capabilities, Image, Op, OpKind};
use crate::mem::IoBuf;
use crate::sys::file::{self, AlignedBuf, DirectAlignment, IOV_MAX};

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

/// Yields the pieces of memory of one transfer: those that cover the given range of it.
type Pieces<'a> = &'a dyn Fn(u64, u64, &mut Vec<libc::iovec>);

impl RawImage {
    pub(super) fn new(raw: RawFile, capabilities: Capabilities, latched: bool, asynchronous: bool) -> RawImage {
        RawImage { raw, capabilities, latch: latched.then(Latch::new), asynchronous }
    }

    /// Reads `len` bytes into `pieces`.
    ///
    /// # Safety
    ///
    /// The pieces must be memory that may be written until this returns.
    unsafe fn read_pieces(&self, offset: u64, len: u64, pieces: Pieces<'_>) -> Result<(), BackingError> {
        let kind = OpKind::Read;
        self.raw.check(Op { kind, offset, len })?;
        let _held = self.latch.as_ref().map(|latch| latch.shared(offset, len));
        // SAFETY: passed on to our caller.
        unsafe { self.transfer(len, pieces, Move::In, |iov, done| file::preadv(&self.raw.file, iov, offset + done)) }
            .map_err(|e| self.raw.failed(kind, &e))
    }

    /// Writes `len` bytes from `pieces`.
    ///
    /// # Safety
    ///
    /// The pieces must be memory that may be read until this returns.
    unsafe fn write_pieces(&self, offset: u64, len: u64, pieces: Pieces<'_>, fua: bool) -> Result<(), BackingError> {
        let kind = OpKind::Write { fua };
        self.raw.check(Op { kind, offset, len })?;
        let _held = self.latch.as_ref().map(|latch| latch.exclusive(offset, len));
        // SAFETY: passed on to our caller.
        let write = |durable| unsafe {
            self.transfer(len, pieces, Move::Out, |iov, done| {
                file::pwritev(&self.raw.file, iov, offset + done, durable)
            })
        };
        let error = match write(fua) {
            Ok(()) => return Ok(()),
            Err(e) => e,
        };
        match error.raw_os_error() {
            // A sandbox's kernel that does not know RWF_DSYNC.
            Some(libc::EOPNOTSUPP) if fua => {
                write(false).map_err(|e| self.raw.failed(kind, &e))?;
                self.flush().map_err(|_| BackingError::WriteFailed)
            }
            // Either there was no room for the data, and nothing is lost, or there was none when they (or other data of this
            // file) were written out. Writing again without sync tells which.
            Some(libc::ENOSPC | libc::EDQUOT) if fua => {
                write(false).map_err(|e| self.raw.failed(kind, &e))?;
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

    /// Moves `len` bytes with as many calls as it takes, through aligned memory where direct I/O does not take the pieces themselves.
    ///
    /// # Safety
    ///
    /// The pieces must be memory that may be read ([`Move::Out`]) or written ([`Move::In`]) until this returns.
    unsafe fn transfer(
        &self,
        len: u64,
        pieces: Pieces<'_>,
        way: Move,
        mut call: impl FnMut(&[libc::iovec], u64) -> io::Result<u64>,
    ) -> io::Result<()> {
        let mut iov = Vec::new();
        let mut bounce: Option<AlignedBuf> = None;
        let mut done = 0;
        while done < len {
            iov.clear();
            pieces(done, len - done, &mut iov);
            let moved = if self.raw.takes(&iov) {
                iov.truncate(IOV_MAX);
                call(&iov, done)?
            } else {
                let want = (len - done).min(PIECE);
                iov.clear();
                pieces(done, want, &mut iov);
                let buf = bounce.get_or_insert_with(|| AlignedBuf::new(want as usize));
                let piece = buf.iovec(want as usize);
                match way {
                    Move::Out => {
                        // SAFETY: the caller vouches for the pieces; `buf` is ours alone.
                        unsafe { file::gather(&iov, buf) };
                        call(&[piece], done)?
                    }
                    Move::In => {
                        let moved = call(&[piece], done)?;
                        // SAFETY: as above.
                        unsafe { file::scatter(buf.get(..moved as usize).unwrap_or(&[]), &iov) };
                        moved
                    }
                }
            };
            if moved == 0 {
                // The file ends before the image does.
                return Err(io::Error::from(io::ErrorKind::UnexpectedEof));
            }
            done += moved;
        }
        Ok(())
    }

    fn write_zeros(&self, kind: OpKind, offset: u64, len: u64) -> Result<(), BackingError> {
        let mut zeros = AlignedBuf::new(len.min(PIECE) as usize);
        let piece = zeros.iovec(len.min(PIECE) as usize);
        let pieces = |_: u64, len: u64, out: &mut Vec<libc::iovec>| {
            // The same zeros over and over.
            let mut left = len.min(4 * PIECE) as usize;
            while left > 0 {
                let take = left.min(piece.iov_len);
                out.push(libc::iovec { iov_base: piece.iov_base, iov_len: take });
                left -= take;
            }
        };
        // SAFETY: every piece lies in `zeros`, which lives until the end of this function and is only read.
        unsafe {
            self.transfer(len, &pieces, Move::Out, |iov, done| file::pwritev(&self.raw.file, iov, offset + done, false))
        }
        .map_err(|e| self.raw.failed(kind, &e))
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

/// Which way a transfer goes, seen from memory.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Move {
    In,
    Out,
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
        let pieces = |from: u64, len: u64, out: &mut Vec<libc::iovec>| buf.iovecs_range(at + from, len, out);
        // SAFETY: the buffer's memory is valid while it is borrowed, and is ours to write: it is borrowed uniquely.
        unsafe { self.read_pieces(offset, len, &pieces) }
    }

    fn write(&self, offset: u64, len: u64, buf: &IoBuf, at: u64, fua: bool) -> Result<(), BackingError> {
        covers(buf, at, len)?;
        let pieces = |from: u64, len: u64, out: &mut Vec<libc::iovec>| buf.iovecs_range(at + from, len, out);
        // SAFETY: the buffer's memory is valid while it is borrowed.
        unsafe { self.write_pieces(offset, len, &pieces, fua) }
    }

    fn read_bytes(&self, offset: u64, dst: &mut [u8]) -> Result<(), BackingError> {
        let (base, len) = (dst.as_mut_ptr(), dst.len() as u64);
        let pieces = |from: u64, len: u64, out: &mut Vec<libc::iovec>| out.push(part(base, from, len));
        // SAFETY: the pieces lie in `dst`, which is borrowed uniquely.
        unsafe { self.read_pieces(offset, len, &pieces) }
    }

    fn write_bytes(&self, offset: u64, src: &[u8]) -> Result<(), BackingError> {
        let (base, len) = (src.as_ptr().cast_mut(), src.len() as u64);
        let pieces = |from: u64, len: u64, out: &mut Vec<libc::iovec>| out.push(part(base, from, len));
        // SAFETY: the pieces lie in `src` and are only read.
        unsafe { self.write_pieces(offset, len, &pieces, false) }
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
        if self.fallocate(kind, offset, len)? { Ok(()) } else { self.write_zeros(kind, offset, len) }
    }

    fn raw(&self) -> Option<&RawFile> {
        self.asynchronous.then_some(&self.raw)
    }
}

/// The buffer must hold the whole transfer.
fn covers(buf: &IoBuf, at: u64, len: u64) -> Result<(), BackingError> {
    if at.checked_add(len).is_some_and(|end| end <= buf.len()) { Ok(()) } else { Err(BackingError::OutOfRange) }
}

/// A part of contiguous memory.
fn part(base: *mut u8, from: u64, len: u64) -> libc::iovec {
    libc::iovec { iov_base: base.wrapping_add(from as usize).cast(), iov_len: len as usize }
}
