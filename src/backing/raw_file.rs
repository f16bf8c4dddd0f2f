//! An open image file: what may be asked of it, what it has turned out not to do, what its errors mean.
//!
//! # Durability
//!
//! A failed sync tells of lost data once; the next one would succeed. So a failure is remembered ([`RawFile::sync_failed`]): from then on
//! every flush and every write with FUA fails, until the image is opened again. Of syncs that are in the kernel at the same moment only one hears
//! of the failure, so none of them is believed before all have ended, see [`Syncs`]. For that they are done by the image's blocking methods; but
//! for writes with FUA by direct I/O, of which each hears of its own data.
//!
//! A write with FUA may have failed as a write, with nothing lost but its own data, or as a sync. It is done again without sync to
//! find out, see [`RawFile::may_be_sync`].

use std::fs::File;
use std::io;
use std::os::fd::{AsRawFd, RawFd};
use std::os::unix::fs::MetadataExt;
use std::path::PathBuf;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};

use super::syncs::Syncs;
use super::{BackingError, Op, OpKind};
use crate::sys::file::{DirectAlignment, IOV_MAX};

/// `fallocate` mode that deallocates.
pub(super) const PUNCH: i32 = libc::FALLOC_FL_PUNCH_HOLE | libc::FALLOC_FL_KEEP_SIZE;
/// `fallocate` mode that zeroes and keeps blocks allocated.
const ZERO: i32 = libc::FALLOC_FL_ZERO_RANGE | libc::FALLOC_FL_KEEP_SIZE;

/// Operations that a ring has at a time on a file whose file system makes whoever asks wait.
const WAITING_SHARE: usize = 64;
/// The same where it does not: only a device that has more to do than it can take makes them wait.
const NOWAIT_SHARE: usize = 256;

/// An open file as an asynchronous engine needs it.
#[derive(Debug)]
pub struct RawFile {
    file: File,
    path: PathBuf,
    /// In bytes, when it was last looked at.
    size: AtomicU64,
    read_only: bool,
    direct: Option<DirectAlignment>,
    /// Bytes of a block.
    block: u32,
    /// Ranges that `fallocate` takes are multiples of this: 1 but for block devices.
    sector: u32,
    syncs: Syncs,
    /// Operations on it that a ring may have at a time.
    ring_share: usize,
    /// The file system cannot do this `fallocate` mode: do not ask again.
    no_punch: AtomicBool,
    no_zero: AtomicBool,
    /// The file system cannot make files share storage: do not ask again.
    no_share: AtomicBool,
}

impl RawFile {
    pub(super) fn new(
        file: File,
        path: PathBuf,
        size: u64,
        read_only: bool,
        direct: Option<DirectAlignment>,
        block: u32,
        sector: u32,
    ) -> RawFile {
        RawFile {
            file,
            path,
            size: AtomicU64::new(size),
            read_only,
            direct,
            block,
            sector: sector.max(1),
            syncs: Syncs::default(),
            ring_share: WAITING_SHARE,
            no_punch: AtomicBool::new(false),
            no_zero: AtomicBool::new(false),
            no_share: AtomicBool::new(false),
        }
    }

    /// The same; `nowait` says that its file system can say that an operation would have to wait.
    pub(super) fn nowait(self, nowait: bool) -> RawFile {
        RawFile { ring_share: if nowait { NOWAIT_SHARE } else { WAITING_SHARE }, ..self }
    }

    /// How many operations on it one ring may have at a time. Where an operation cannot be begun without waiting for its end, each takes a thread of
    /// the kernel's, for as long as the file system takes.
    pub(super) fn ring_share(&self) -> usize {
        self.ring_share
    }

    /// Bytes of a block.
    pub(super) fn block(&self) -> u64 {
        self.block.into()
    }

    /// Its syncs.
    pub(super) fn syncs(&self) -> &Syncs {
        &self.syncs
    }

    /// Whether a ring may do this. Syncs whose failure could be told to another one it may not.
    pub(super) fn is_for_ring(&self, kind: OpKind) -> bool {
        match kind {
            OpKind::Flush => false,
            OpKind::Write { fua: true } => self.direct.is_some(),
            _ => true,
        }
    }

    /// The open descriptor; valid while this lives.
    pub(super) fn fd(&self) -> RawFd {
        self.file.as_raw_fd()
    }

    pub(super) fn file(&self) -> &File {
        &self.file
    }

    /// Whether there is another file at its path by now, or none.
    pub(super) fn is_replaced(&self) -> bool {
        let Ok(mine) = self.file.metadata() else { return false };
        match std::fs::metadata(&self.path) {
            Ok(there) => (there.dev(), there.ino()) != (mine.dev(), mine.ino()),
            Err(e) => e.kind() == io::ErrorKind::NotFound,
        }
    }

    pub(super) fn size(&self) -> u64 {
        self.size.load(Ordering::Acquire)
    }

    /// The file has turned out to be `size` bytes long: takes its whole blocks of `block` bytes, if there are any.
    pub(super) fn resize(&self, size: u64, block: u32) {
        let size = size - size % u64::from(block.max(1));
        if size == 0 {
            log::warn!("{}: holds no block any more; its size is taken to be what it was", self.path.display());
            return;
        }
        let before = self.size.swap(size, Ordering::AcqRel);
        if before != size {
            log::info!("{}: was {before} bytes and is {size} bytes now", self.path.display());
        }
    }

    /// Refuses what must not reach the file: ranges that pass the end, changes of a read-only image, durability after it was lost,
    /// ranges that direct I/O cannot do.
    pub(super) fn check(&self, op: Op) -> Result<(), BackingError> {
        if op.kind == OpKind::Flush {
            return self.synced();
        }
        self.check_range(op.offset, op.len)?;
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

    /// Refuses ranges that pass the end.
    pub(super) fn check_range(&self, offset: u64, len: u64) -> Result<(), BackingError> {
        match offset.checked_add(len).is_some_and(|end| end <= self.size()) {
            true => Ok(()),
            false => Err(BackingError::OutOfRange),
        }
    }

    /// Fails if a sync has failed before.
    pub(super) fn synced(&self) -> Result<(), BackingError> {
        if self.syncs.have_failed() { Err(BackingError::FlushFailed) } else { Ok(()) }
    }

    /// Whether direct I/O takes these pieces of memory as they are, and keeps the blocks in them whole; always true without it.
    ///
    /// The kernel splits what is more than the device takes in one request, and does so between any two pages of memory that do not lie
    /// side by side, if that is no place inside a sector. So a block that is several sectors must lie in one page.
    pub(super) fn takes(&self, iov: &[libc::iovec]) -> bool {
        let Some(direct) = self.direct else { return true };
        let (memory, length) = match self.block > direct.offset {
            true => (direct.memory.max(self.block), self.block),
            false => (direct.memory, direct.offset),
        };
        let (memory, length) = (memory as usize - 1, length as usize - 1);
        // A list that must be split could be split inside a block.
        iov.len() <= IOV_MAX && iov.iter().all(|p| p.iov_base as usize & memory == 0 && p.iov_len & length == 0)
    }

    /// Remembers that a sync failed.
    pub(super) fn sync_failed(&self, error: &io::Error) {
        if self.syncs.fail() {
            log::error!(
                "{}: data may be lost: sync failed: {error}; flushes fail from now on until the image is opened again",
                self.path.display()
            );
        }
    }

    /// Whether this error of a write with FUA may be that of the sync. What the write itself says about its arguments is not: a guest
    /// whose memory went away must not be able to spoil flushes for the others.
    pub(super) fn may_be_sync(error: &io::Error) -> bool {
        error.raw_os_error() != Some(libc::EOPNOTSUPP) && RawFile::is_of_the_medium(error)
    }

    /// Whether this error is about what was to be read or written, and not about the arguments of the call or its memory.
    pub(super) fn is_of_the_medium(error: &io::Error) -> bool {
        let of_the_call = [
            libc::EFAULT,
            libc::EINVAL,
            libc::EFBIG,
            libc::ENOMEM,
            libc::EPERM,
            libc::EBADF,
            libc::EAGAIN,
            libc::EINTR,
        ];
        error.raw_os_error().is_some_and(|errno| !of_the_call.contains(&errno))
    }

    /// The part of a range that `fallocate` takes: from its first to its last sector boundary.
    pub(super) fn whole_sectors(&self, offset: u64, len: u64) -> (u64, u64) {
        let sector = u64::from(self.sector);
        let start = offset.next_multiple_of(sector);
        (start, ((offset + len) / sector * sector).max(start))
    }

    /// The `fallocate` mode that does all of this operation, if there is (still believed to be) one.
    pub(super) fn fallocate_mode_for(&self, op: Op) -> Option<i32> {
        let whole = self.whole_sectors(op.offset, op.len) == (op.offset, op.offset + op.len);
        whole.then(|| self.fallocate_mode(op.kind)).flatten()
    }

    /// The `fallocate` mode that does this kind of operation.
    pub(super) fn fallocate_mode(&self, kind: OpKind) -> Option<i32> {
        let punch = !self.no_punch.load(Ordering::Relaxed);
        let zero = !self.no_zero.load(Ordering::Relaxed);
        match kind {
            OpKind::Unmap | OpKind::WriteZeroes { unmap: true } if punch => Some(PUNCH),
            OpKind::WriteZeroes { .. } if zero => Some(ZERO),
            _ => None,
        }
    }

    /// The file system has turned out not to know this mode.
    pub(super) fn forget_mode(&self, mode: i32) {
        let flag = if mode == PUNCH { &self.no_punch } else { &self.no_zero };
        flag.store(true, Ordering::Relaxed);
    }

    /// Whether its file system is still believed to make files share storage.
    pub(super) fn may_share(&self) -> bool {
        !self.no_share.load(Ordering::Relaxed)
    }

    /// It has turned out not to.
    pub(super) fn forget_sharing(&self) {
        self.no_share.store(true, Ordering::Relaxed);
    }

    /// What an error of the system means for an operation of this kind.
    pub(super) fn failed(&self, kind: OpKind, error: &io::Error) -> BackingError {
        log::debug!("{}: {kind:?}: {error}", self.path.display());
        match (kind, error.raw_os_error()) {
            (_, Some(libc::EFAULT)) => BackingError::BufferGone,
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

#[cfg(test)]
mod tests {
    use super::*;

    fn raw(direct: Option<DirectAlignment>) -> RawFile {
        of_blocks(direct, 512)
    }

    fn of_blocks(direct: Option<DirectAlignment>, block: u32) -> RawFile {
        RawFile::new(tempfile::tempfile().unwrap(), PathBuf::from("test"), 1 << 20, false, direct, block, 1)
    }

    #[test]
    fn errors_of_the_system_have_a_meaning() {
        let write = OpKind::Write { fua: false };
        let zero = OpKind::WriteZeroes { unmap: true };
        let table = [
            (OpKind::Read, libc::EIO, BackingError::ReadFailed),
            (OpKind::Read, libc::ENOSPC, BackingError::ReadFailed),
            (OpKind::Read, libc::EFAULT, BackingError::BufferGone),
            (write, libc::EFAULT, BackingError::BufferGone),
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
    fn a_block_of_several_sectors_lies_in_one_page() {
        let raw = of_blocks(Some(DirectAlignment { memory: 4, offset: 512 }), 4096);
        let piece = |base: usize, len: usize| libc::iovec { iov_base: base as *mut libc::c_void, iov_len: len };
        assert!(raw.takes(&[piece(0x1000, 4096), piece(0x8000, 12_288)]));
        assert!(!raw.takes(&[piece(0x1000, 512), piece(0x2000, 3584)]));
        assert!(!raw.takes(&[piece(0x1200, 4096)]));
        // A range of sectors all the same: not everybody who uses an image does so by blocks.
        assert_eq!(raw.check(Op { kind: OpKind::Read, offset: 512, len: 512 }), Ok(()));
        let one_sector = of_blocks(Some(DirectAlignment { memory: 512, offset: 4096 }), 4096);
        assert!(one_sector.takes(&[piece(0x1200, 4096)]));
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

    #[test]
    fn a_guest_cannot_make_a_write_look_like_a_failed_sync() {
        let errno = |errno| io::Error::from_raw_os_error(errno);
        assert!(!RawFile::may_be_sync(&errno(libc::EFAULT)));
        assert!(!RawFile::may_be_sync(&io::ErrorKind::UnexpectedEof.into()));
        assert!(RawFile::may_be_sync(&errno(libc::EIO)));
        assert!(RawFile::may_be_sync(&errno(libc::ENOSPC)));
    }

    #[test]
    fn ranges_are_cut_to_sectors() {
        let raw = RawFile::new(tempfile::tempfile().unwrap(), PathBuf::from("test"), 1 << 20, false, None, 512, 4096);
        assert_eq!(raw.whole_sectors(0, 8192), (0, 8192));
        assert_eq!(raw.whole_sectors(512, 8192), (4096, 8192));
        assert_eq!(raw.whole_sectors(512, 512), (4096, 4096));
        assert_eq!(raw.whole_sectors(4096, 512), (4096, 4096));
        let op = |offset, len| Op { kind: OpKind::Unmap, offset, len };
        assert_eq!(raw.fallocate_mode_for(op(4096, 4096)), Some(PUNCH));
        assert_eq!(raw.fallocate_mode_for(op(4096, 4608)), None);
        assert_eq!(raw.fallocate_mode_for(op(512, 4096)), None);
    }
}
