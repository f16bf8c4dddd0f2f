//! Raw images: a file or block device whose bytes are the disk's bytes.
#![allow(unsafe_code, reason = "addresses of I/O buffers go to the kernel")]

use std::io;
use std::os::unix::fs::MetadataExt;

use super::atomic::AtomicFile;
use super::latch::Latch;
use super::mapped::Mapped;
use super::transfer::{FromBuf, FromBytes, IntoBuf, IntoBytes, Memory, Zeros, transfer};
use super::{AtomicUnit, BackingError, Capabilities, Image, Op, OpKind, RawFile, Run, Space, copy, unreadable};
use crate::mem::IoBuf;
use crate::sys::file::{self, DirectAlignment};

/// The most for which the latch is held at a time; a multiple of every block size, so that no block lies in two parts.
const HELD: u64 = 1 << 20;

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

/// A raw image.
#[derive(Debug)]
pub(super) struct RawImage {
    raw: RawFile,
    capabilities: Capabilities,
    latch: Option<Latch>,
    asynchronous: bool,
    atomic: Option<AtomicFile>,
    /// A shorter way for buffers' data.
    mapped: Option<Mapped>,
}

impl RawImage {
    pub(super) fn new(raw: RawFile, capabilities: Capabilities, latched: bool, asynchronous: bool) -> RawImage {
        RawImage { raw, capabilities, latch: latched.then(Latch::new), asynchronous, atomic: None, mapped: None }
    }

    /// The same with a file for writes that are never torn. Not for an image under the latch, which they would pass.
    pub(super) fn with_atomic(self, atomic: Option<AtomicFile>) -> RawImage {
        RawImage { atomic: atomic.filter(|_| self.latch.is_none()), ..self }
    }

    /// The same with its file mapped.
    pub(super) fn with_mapping(self, mapped: Option<Mapped>) -> RawImage {
        RawImage { mapped, ..self }
    }

    /// The file, whether or not asynchronous engines may have it.
    #[cfg(test)]
    pub(super) fn file(&self) -> &RawFile {
        &self.raw
    }

    /// Calls `work` with the bounds, relative to `offset`, of the whole range; or, under the latch, of one part after the other,
    /// each held while it is worked on. Nobody waits long for the latch, and no block lies in two parts.
    fn in_parts(
        &self,
        hold: Hold,
        offset: u64,
        len: u64,
        mut work: impl FnMut(u64, u64) -> Result<(), (BackingError, u64)>,
    ) -> Result<(), (BackingError, u64)> {
        let Some(latch) = &self.latch else { return work(0, len) };
        let mut done = 0;
        while done < len {
            let at = offset + done;
            let part = (HELD - at % HELD).min(len - done);
            match hold {
                Hold::Shared => {
                    let _held = latch.shared(at, part);
                    work(done, done + part)?;
                }
                Hold::Exclusive => {
                    let _held = latch.exclusive(at, part);
                    work(done, done + part)?;
                }
            }
            done += part;
        }
        Ok(())
    }

    /// Reads; an error comes with the bytes that could be read.
    fn read_into(&self, offset: u64, len: u64, mut memory: impl Memory) -> Result<(), (BackingError, u64)> {
        let kind = OpKind::Read;
        self.raw.check(Op { kind, offset, len }).map_err(|e| (e, 0))?;
        self.in_parts(Hold::Shared, offset, len, |from, to| {
            if self.maps(offset, from, to, &mut memory) {
                return Ok(());
            }
            transfer(&self.raw, from, to, &mut memory, |iov, done| {
                // SAFETY: the pieces are `memory`'s, which vouches for them, or a bounce buffer.
                unsafe { file::preadv(self.raw.file(), iov, offset + done) }
            })
            .map_err(|(e, done)| {
                let more = if RawFile::is_of_the_medium(&e) { self.readable(offset + done, to - done) } else { 0 };
                (self.raw.failed(kind, &e), done + more)
            })
        })
    }

    /// How many of these bytes, which could not be read together, can be read.
    fn readable(&self, offset: u64, len: u64) -> u64 {
        let mut scratch = vec![0; len as usize];
        unreadable::first(offset, len, |offset, len| {
            let mut memory = IntoBytes::new(scratch.get_mut(..len as usize).unwrap_or_default());
            let read = transfer(&self.raw, 0, len, &mut memory, |iov, done| {
                // SAFETY: the pieces are `memory`'s, which vouches for them, or a bounce buffer.
                unsafe { file::preadv(self.raw.file(), iov, offset + done) }
            });
            read.is_ok()
        })
    }

    /// Writes; an error comes with the bytes that are known to be written.
    fn write_from(&self, offset: u64, len: u64, memory: impl Memory, fua: bool) -> Result<(), (BackingError, u64)> {
        let fua = fua && !self.capabilities.volatile;
        let kind = OpKind::Write { fua };
        self.raw.check(Op { kind, offset, len }).map_err(|e| (e, 0))?;
        if fua && self.raw.is_for_ring(kind) {
            // Each of these hears of its own data.
            self.write_parts(offset, len, memory, fua)?;
            return self.raw.synced().map_err(|_| (BackingError::WriteFailed, 0));
        }
        if fua {
            return self.raw.syncs().run(|| self.write_parts(offset, len, memory, fua));
        }
        self.write_parts(offset, len, memory, fua)
    }

    fn write_parts(
        &self,
        offset: u64,
        len: u64,
        mut memory: impl Memory,
        fua: bool,
    ) -> Result<(), (BackingError, u64)> {
        let kind = OpKind::Write { fua };
        self.in_parts(Hold::Exclusive, offset, len, |from, to| {
            let failed = |(e, done): (io::Error, u64)| (self.raw.failed(kind, &e), done);
            let Err((error, done)) = self.put(offset, from, to, &mut memory, fua) else { return Ok(()) };
            if fua && error.raw_os_error() == Some(libc::EOPNOTSUPP) {
                // A sandbox's kernel that does not know RWF_DSYNC.
                self.put(offset, from, to, &mut memory, false).map_err(failed)?;
                return self.sync().map_err(|_| (BackingError::WriteFailed, from));
            }
            if fua && RawFile::may_be_sync(&error) {
                // If it is the write that fails, it fails again.
                self.put(offset, from, to, &mut memory, false).map_err(failed)?;
                self.raw.sync_failed(&error);
            }
            Err((self.raw.failed(kind, &error), if fua { from } else { done }))
        })
    }

    /// Writes what lies between `from` and `to` of `memory`.
    fn put(
        &self,
        offset: u64,
        from: u64,
        to: u64,
        memory: &mut impl Memory,
        durable: bool,
    ) -> Result<(), (io::Error, u64)> {
        // Nothing is durable where an image is mapped, and nothing can be made so.
        if self.maps(offset, from, to, memory) {
            return Ok(());
        }
        transfer(&self.raw, from, to, memory, |iov, done| {
            // SAFETY: the pieces are `memory`'s, which vouches for them, or a bounce buffer.
            unsafe { file::pwritev(self.raw.file(), iov, offset + done, durable) }
        })
    }

    /// Moves what lies between `from` and `to` of `memory` through the mapping, if that is a way.
    fn maps(&self, offset: u64, from: u64, to: u64, memory: &mut impl Memory) -> bool {
        let through = |mapped: &Mapped| memory.through(mapped, self.raw.file(), offset + from, from, to - from);
        self.mapped.as_ref().is_some_and(through)
    }

    /// One sync, by itself.
    fn sync(&self) -> Result<(), BackingError> {
        self.raw.file().sync_data().map_err(|e| {
            self.raw.sync_failed(&e);
            self.raw.failed(OpKind::Flush, &e)
        })
    }

    /// Unmaps or zeroes.
    fn clear(&self, kind: OpKind, offset: u64, len: u64) -> Result<(), BackingError> {
        self.raw.check(Op { kind, offset, len })?;
        self.in_parts(Hold::Exclusive, offset, len, |from, to| {
            self.clear_part(kind, offset + from, offset + to).map_err(|e| (e, from))
        })
        .map_err(|(e, _)| e)
    }

    fn clear_part(&self, kind: OpKind, start: u64, end: u64) -> Result<(), BackingError> {
        let (inner, inner_end) = self.raw.whole_sectors(start, end - start);
        if inner == inner_end || !self.fallocate(kind, inner, inner_end - inner)? {
            if kind == OpKind::Unmap && inner != inner_end {
                return Err(BackingError::Unsupported);
            }
            return self.put_zeros(kind, start, end);
        }
        self.put_zeros(kind, start, inner)?;
        self.put_zeros(kind, inner_end, end)
    }

    fn put_zeros(&self, kind: OpKind, start: u64, end: u64) -> Result<(), BackingError> {
        if start >= end {
            return Ok(());
        }
        self.put(start, 0, end - start, &mut Zeros::new(), false).map_err(|(e, _)| self.raw.failed(kind, &e))
    }

    /// Tries the `fallocate` modes that do this; `Ok(false)` if there is none.
    fn fallocate(&self, kind: OpKind, offset: u64, len: u64) -> Result<bool, BackingError> {
        let _punching = self.mapped.as_ref().map(|mapped| mapped.punching(offset, len));
        while let Some(mode) = self.raw.fallocate_mode(kind) {
            match file::fallocate(self.raw.file(), mode, offset, len) {
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

/// How the latch is held.
#[derive(Clone, Copy)]
enum Hold {
    /// By those who read.
    Shared,
    /// By those who change data.
    Exclusive,
}

impl Image for RawImage {
    fn size(&self) -> u64 {
        self.raw.size()
    }

    fn refresh_size(&self, block: u32) -> Result<u64, BackingError> {
        let size = file::size(self.raw.file()).map_err(|e| self.raw.failed(OpKind::Read, &e))?;
        self.raw.resize(size, block);
        if let Some(mapped) = &self.mapped {
            mapped.seen(size);
        }
        Ok(self.raw.size())
    }

    fn unlock(&self) {
        self.raw.unlock();
    }

    fn lock(&self) -> Result<(), BackingError> {
        self.raw.lock()
    }

    fn has_lost_writes(&self) -> bool {
        self.raw.synced().is_err()
    }

    fn had_lost_writes(&self) {
        self.raw.syncs().fail();
    }

    fn forget_cached(&self) {
        if let Err(e) = file::drop_cached(self.raw.file()) {
            log::warn!("{}: what is cached of it cannot be dropped: {e}", self.raw.path().display());
        }
    }

    fn is_replaced(&self) -> bool {
        self.raw.is_replaced()
    }

    fn capabilities(&self) -> Capabilities {
        self.capabilities
    }

    fn read(&self, offset: u64, len: u64, buf: &mut IoBuf, at: u64) -> Result<(), BackingError> {
        self.read_until(offset, len, buf, at).map_err(|(e, _)| e)
    }

    fn write(&self, offset: u64, len: u64, buf: &IoBuf, at: u64, fua: bool) -> Result<(), BackingError> {
        self.write_until(offset, len, buf, at, fua).map_err(|(e, _)| e)
    }

    fn read_until(&self, offset: u64, len: u64, buf: &mut IoBuf, at: u64) -> Result<(), (BackingError, u64)> {
        covers(buf, at, len).map_err(|e| (e, 0))?;
        self.read_into(offset, len, IntoBuf { buf, at })
    }

    fn write_until(&self, offset: u64, len: u64, buf: &IoBuf, at: u64, fua: bool) -> Result<(), (BackingError, u64)> {
        covers(buf, at, len).map_err(|e| (e, 0))?;
        self.write_from(offset, len, FromBuf { buf, at }, fua)
    }

    fn read_bytes(&self, offset: u64, dst: &mut [u8]) -> Result<(), BackingError> {
        let len = dst.len() as u64;
        self.read_into(offset, len, IntoBytes::new(dst)).map_err(|(e, _)| e)
    }

    fn write_bytes(&self, offset: u64, src: &[u8]) -> Result<(), BackingError> {
        self.write_from(offset, src.len() as u64, FromBytes(src), false).map_err(|(e, _)| e)
    }

    fn flush(&self) -> Result<(), BackingError> {
        if self.capabilities.volatile {
            return Ok(());
        }
        self.raw.synced()?;
        if self.capabilities.read_only {
            return Ok(());
        }
        self.raw.syncs().run(|| self.sync())
    }

    fn unmap(&self, offset: u64, len: u64) -> Result<(), BackingError> {
        self.clear(OpKind::Unmap, offset, len)
    }

    fn write_zeroes(&self, offset: u64, len: u64, unmap: bool) -> Result<(), BackingError> {
        self.clear(OpKind::WriteZeroes { unmap }, offset, len)
    }

    fn atomic_unit(&self) -> Option<AtomicUnit> {
        self.atomic.as_ref().map(AtomicFile::unit)
    }

    fn write_atomic(&self, offset: u64, src: &[u8], fua: bool) -> Result<(), BackingError> {
        let (kind, len) = (OpKind::Write { fua }, src.len() as u64);
        let atomic = self.atomic.as_ref().filter(|atomic| atomic.unit().takes(offset, len));
        let atomic = atomic.ok_or(BackingError::Unsupported)?;
        self.raw.check(Op { kind, offset, len })?;
        atomic.write(offset, src).map_err(|e| self.raw.failed(kind, &e))?;
        if fua {
            return self.flush().map_err(|_| BackingError::WriteFailed);
        }
        Ok(())
    }

    /// As `SEEK_DATA` and `SEEK_HOLE` tell. Block devices do not know them and are mapped throughout, and so are file systems
    /// that do not keep track. Preallocated space that was never written is a hole.
    fn run_at(&self, offset: u64, len: u64) -> Result<Run, BackingError> {
        let kind = OpKind::Read;
        self.raw.check_range(offset, len)?;
        let failed = |e: &io::Error| self.raw.failed(kind, e);
        let hole = |len| Ok(Run { mapped: false, len });
        let data = match file::seek_data(self.raw.file(), offset) {
            Ok(Some(at)) => at,
            Ok(None) => {
                // A hole to the end of the file; or the file ends before, because it was truncated under us.
                let size = self.raw.file().metadata().map_err(|e| failed(&e))?.len();
                return if size >= offset + len { hole(len) } else { Err(BackingError::ReadFailed) };
            }
            Err(e) if e.raw_os_error() == Some(libc::EINVAL) => return Ok(Run { mapped: true, len }),
            Err(e) => return Err(failed(&e)),
        };
        if data > offset {
            return hole(len.min(data - offset));
        }
        match file::seek_hole(self.raw.file(), offset) {
            // At the latest there is one at the end of the file.
            Ok(Some(at)) if at > offset => Ok(Run { mapped: true, len: len.min(at - offset) }),
            Ok(_) => Ok(Run { mapped: true, len: len.min(1) }),
            Err(e) => Err(failed(&e)),
        }
    }

    fn space(&self) -> Option<Space> {
        let file = self.raw.file();
        let metadata = file.metadata().ok().filter(|metadata| metadata.file_type().is_file())?;
        if let Some(mapped) = &self.mapped {
            mapped.seen(metadata.len());
        }
        // stat(2) counts in units of 512 bytes, whatever the file system's are.
        let used = metadata.blocks().saturating_mul(512);
        Some(Space { used, available: file::file_system_available(file).ok()? })
    }

    fn copy_from(&self, to: u64, src: &dyn Image, from: u64, len: u64, share: bool) -> Result<(), BackingError> {
        self.raw.check(Op { kind: OpKind::Write { fua: false }, offset: to, len })?;
        if share && let (None, Some(source)) = (&self.latch, src.copy_source()) {
            source.check_range(from, len).map_err(|_| BackingError::ReadFailed)?;
            let whole = self.capabilities.direct || src.capabilities().direct;
            if copy::by_file_system(&self.raw, to, source, from, len, whole) {
                return Ok(());
            }
        }
        let same = std::ptr::addr_eq(self, src);
        copy::through_memory(same, to, src, from, len, |at, len, buf| self.write(at, len, buf, 0, false))
    }

    fn copy_source(&self) -> Option<&RawFile> {
        self.latch.is_none().then_some(&self.raw)
    }

    fn raw(&self) -> Option<&RawFile> {
        self.asynchronous.then_some(&self.raw)
    }
}

/// The buffer must hold the whole transfer.
fn covers(buf: &IoBuf, at: u64, len: u64) -> Result<(), BackingError> {
    if at.checked_add(len).is_some_and(|end| end <= buf.len()) { Ok(()) } else { Err(BackingError::OutOfRange) }
}
