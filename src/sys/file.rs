//! Thin wrappers of the file system calls that std does not have.
//!
//! Each does one system call, retries it when a signal interrupted it, and turns its result into an `io::Result`. What a caller must
//! promise about memory is on the functions that take addresses.
#![allow(unsafe_code, reason = "system calls; each call argues its arguments")]

use std::alloc::{Layout, alloc_zeroed, dealloc, handle_alloc_error};
use std::fs::File;
use std::io;
use std::os::fd::AsRawFd;
use std::os::unix::fs::{FileTypeExt, MetadataExt};
use std::ptr::NonNull;

/// The largest number of pieces that one vectored call takes (`IOV_MAX` of Linux).
pub const IOV_MAX: usize = 1024;

/// Which memory and which ranges of a file direct I/O takes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct DirectAlignment {
    /// Alignment of a piece of memory in bytes.
    pub memory: u32,
    /// Alignment of offsets in the file, and of the length of each piece, in bytes.
    pub offset: u32,
}

/// Memory of our own, aligned to a page: what direct I/O takes on every device. Zeroed at first.
#[derive(Debug)]
pub struct AlignedBuf {
    base: NonNull<u8>,
    layout: Layout,
}

// SAFETY: it owns its memory and has no interior mutability.
unsafe impl Send for AlignedBuf {}

const PAGE: usize = 4096;

impl AlignedBuf {
    /// `len` zeroed bytes (at least one page is taken).
    pub fn new(len: usize) -> AlignedBuf {
        // A length near the address space's end does not come here: lengths are pieces, at most a few MiB.
        let layout = Layout::from_size_align(len.clamp(PAGE, isize::MAX as usize - PAGE), PAGE)
            .unwrap_or_else(|_| Layout::new::<[u8; PAGE]>());
        // SAFETY: the layout's size is not zero.
        let base = unsafe { alloc_zeroed(layout) };
        match NonNull::new(base) {
            Some(base) => AlignedBuf { base, layout },
            None => handle_alloc_error(layout),
        }
    }

    /// An iovec for the first `len` bytes, or for all of them if there are less.
    pub fn iovec(&mut self, len: usize) -> libc::iovec {
        libc::iovec { iov_base: self.base.as_ptr().cast(), iov_len: len.min(self.layout.size()) }
    }
}

impl std::ops::Deref for AlignedBuf {
    type Target = [u8];

    fn deref(&self) -> &[u8] {
        // SAFETY: the memory is ours, initialised and as long as the layout says.
        unsafe { std::slice::from_raw_parts(self.base.as_ptr(), self.layout.size()) }
    }
}

impl std::ops::DerefMut for AlignedBuf {
    fn deref_mut(&mut self) -> &mut [u8] {
        // SAFETY: as above, and borrowed uniquely.
        unsafe { std::slice::from_raw_parts_mut(self.base.as_ptr(), self.layout.size()) }
    }
}

impl Drop for AlignedBuf {
    fn drop(&mut self) {
        // SAFETY: allocated in `new` with this layout.
        unsafe { dealloc(self.base.as_ptr(), self.layout) }
    }
}

/// Repeats a call that a signal interrupted; a negative result becomes the error.
fn retry(mut call: impl FnMut() -> i64) -> io::Result<u64> {
    loop {
        if let Ok(done) = u64::try_from(call()) {
            return Ok(done);
        }
        let e = io::Error::last_os_error();
        if e.kind() != io::ErrorKind::Interrupted {
            return Err(e);
        }
    }
}

/// Reads into at most [`IOV_MAX`] pieces of memory; the count may be short.
///
/// # Safety
///
/// Each piece must be memory that may be written, by the kernel, until the call returns.
pub unsafe fn preadv(file: &File, iov: &[libc::iovec], offset: u64) -> io::Result<u64> {
    let count = iov.len().min(IOV_MAX) as libc::c_int;
    let offset = file_offset(offset)?;
    // SAFETY: `iov` holds at least `count` pieces; the caller vouches for them.
    retry(|| unsafe { libc::preadv(file.as_raw_fd(), iov.as_ptr(), count, offset) } as i64)
}

/// Writes at most [`IOV_MAX`] pieces of memory; the count may be short. With `durable` the data are durable when it returns (`RWF_DSYNC`).
///
/// # Safety
///
/// Each piece must be memory that may be read until the call returns.
pub unsafe fn pwritev(file: &File, iov: &[libc::iovec], offset: u64, durable: bool) -> io::Result<u64> {
    let count = iov.len().min(IOV_MAX) as libc::c_int;
    let offset = file_offset(offset)?;
    let fd = file.as_raw_fd();
    if durable {
        // SAFETY: `iov` holds at least `count` pieces; the caller vouches for them.
        return retry(|| unsafe { libc::pwritev2(fd, iov.as_ptr(), count, offset, libc::RWF_DSYNC) } as i64);
    }
    // SAFETY: as above.
    retry(|| unsafe { libc::pwritev(fd, iov.as_ptr(), count, offset) } as i64)
}

/// Writes one piece of memory whole or not at all (`RWF_ATOMIC`). The file must be open for direct I/O.
///
/// # Safety
///
/// The piece must be memory that may be read until the call returns.
pub unsafe fn pwrite_atomic(file: &File, piece: libc::iovec, offset: u64) -> io::Result<u64> {
    let (fd, offset) = (file.as_raw_fd(), file_offset(offset)?);
    // SAFETY: there is one piece; the caller vouches for it.
    retry(|| unsafe { libc::pwritev2(fd, &piece, 1, offset, libc::RWF_ATOMIC) } as i64)
}

/// Makes `len` bytes of `to` from `to_offset` on share their storage with those of `from` from `from_offset` on (`FICLONERANGE`). Fails with
/// `EOPNOTSUPP`, `EXDEV` or `EINVAL` where the file system cannot do that, or not with this range.
pub fn clone_range(to: &File, to_offset: u64, from: &File, from_offset: u64, len: u64) -> io::Result<()> {
    /// `struct file_clone_range`, see linux/fs.h.
    #[repr(C)]
    struct Range {
        src_fd: i64,
        src_offset: u64,
        src_length: u64,
        dest_offset: u64,
    }
    /// `_IOW(0x94, 13, struct file_clone_range)`.
    const FICLONERANGE: u64 = 1 << 30 | (size_of::<Range>() as u64) << 16 | 0x94 << 8 | 13;
    let src_fd = i64::from(from.as_raw_fd());
    let range = Range { src_fd, src_offset: from_offset, src_length: len, dest_offset: to_offset };
    // SAFETY: this request reads a `file_clone_range` at the address, where `range` is, which has its layout and lives through the call.
    retry(|| unsafe { libc::ioctl(to.as_raw_fd(), FICLONERANGE as libc::Ioctl, &range) }.into()).map(drop)
}

/// Copies at most `len` bytes from one file to another without moving them through our memory (`copy_file_range(2)`); the count may
/// be short, and 0 at the end of `from`. The file system may make the files share storage instead of copying.
pub fn copy_range(to: &File, to_offset: u64, from: &File, from_offset: u64, len: u64) -> io::Result<u64> {
    let (mut to_offset, mut from_offset) = (file_offset(to_offset)?, file_offset(from_offset)?);
    // What the kernel does in one call is less than 2 GiB anyway.
    let len = len.min(1 << 30) as usize;
    let (to, from) = (to.as_raw_fd(), from.as_raw_fd());
    // SAFETY: the two offsets live through the call; no other addresses.
    retry(|| unsafe { libc::copy_file_range(from, &mut from_offset, to, &mut to_offset, len, 0) } as i64)
}

/// `fallocate(2)`.
pub fn fallocate(file: &File, mode: i32, offset: u64, len: u64) -> io::Result<()> {
    let (offset, len) = (file_offset(offset)?, file_offset(len)?);
    // SAFETY: no addresses.
    retry(|| unsafe { libc::fallocate(file.as_raw_fd(), mode, offset, len) }.into()).map(drop)
}

/// Where data begin at or after `offset`; `None` if there are none up to the end of the file. Fails with `EINVAL` for what is no regular
/// file. The file's own offset changes, which nobody here uses.
pub fn seek_data(file: &File, offset: u64) -> io::Result<Option<u64>> {
    seek(file, offset, libc::SEEK_DATA)
}

/// Where a hole begins at or after `offset`, the end of the file being one; `None` if `offset` is behind it. Otherwise as [`seek_data`].
pub fn seek_hole(file: &File, offset: u64) -> io::Result<Option<u64>> {
    seek(file, offset, libc::SEEK_HOLE)
}

fn seek(file: &File, offset: u64, whence: libc::c_int) -> io::Result<Option<u64>> {
    let offset = file_offset(offset)?;
    // SAFETY: no addresses.
    match retry(|| unsafe { libc::lseek(file.as_raw_fd(), offset, whence) }) {
        Ok(at) => Ok(Some(at)),
        Err(e) if e.raw_os_error() == Some(libc::ENXIO) => Ok(None),
        Err(e) => Err(e),
    }
}

/// Whether the kernel tells this process which pages of a file are in memory (`mincore`): to others than the owner it says of each that
/// it is. (It tells those, too, who may write to it; that may change when a process gives up privileges.)
pub fn tells_residence(file: &File) -> io::Result<bool> {
    // SAFETY: geteuid always succeeds and touches no memory.
    Ok(file.metadata()?.uid() == unsafe { libc::geteuid() })
}

fn file_offset(offset: u64) -> io::Result<libc::off_t> {
    libc::off_t::try_from(offset).map_err(|_| io::Error::from_raw_os_error(libc::EINVAL))
}

/// Locks a file exclusively (`flock(2)`), for as long as it is open here; false if somebody else, in this process or another, has
/// it locked.
pub fn try_lock(file: &File) -> io::Result<bool> {
    // SAFETY: no addresses.
    match retry(|| unsafe { libc::flock(file.as_raw_fd(), libc::LOCK_EX | libc::LOCK_NB) }.into()) {
        Ok(_) => Ok(true),
        Err(e) if e.kind() == io::ErrorKind::WouldBlock => Ok(false),
        Err(e) => Err(e),
    }
}

/// Lets go of what is cached of the file and is not to be written (`POSIX_FADV_DONTNEED`).
pub fn drop_cached(file: &File) -> io::Result<()> {
    // SAFETY: no addresses.
    match unsafe { libc::posix_fadvise(file.as_raw_fd(), 0, 0, libc::POSIX_FADV_DONTNEED) } {
        0 => Ok(()),
        errno => Err(io::Error::from_raw_os_error(errno)),
    }
}

/// Takes shared locks of one byte each that belong to this open file, not to the process (`F_OFD_SETLK`): they end when its last
/// descriptor is closed. False if somebody else has one of the bytes locked exclusively; those before it stay locked then.
pub fn lock_bytes_shared(file: &File, bytes: &[u64]) -> io::Result<bool> {
    for byte in bytes {
        match ofd_lock(file, libc::F_OFD_SETLK, libc::F_RDLCK, *byte, 1) {
            Ok(_) => {}
            Err(e) if matches!(e.raw_os_error(), Some(libc::EAGAIN | libc::EACCES)) => return Ok(false),
            Err(e) => return Err(e),
        }
    }
    Ok(true)
}

/// Gives back the locks that this open file has on bytes from `first` on (`F_OFD_SETLK`).
pub fn unlock_bytes(file: &File, first: u64, len: u64) -> io::Result<()> {
    ofd_lock(file, libc::F_OFD_SETLK, libc::F_UNLCK, first, len).map(drop)
}

/// The first of these bytes that another open file has locked in whatever way (`F_OFD_GETLK`).
pub fn locked_elsewhere(file: &File, bytes: &[u64]) -> io::Result<Option<u64>> {
    for byte in bytes {
        if ofd_lock(file, libc::F_OFD_GETLK, libc::F_WRLCK, *byte, 1)? != libc::F_UNLCK {
            return Ok(Some(*byte));
        }
    }
    Ok(None)
}

/// One call for locks of an open file; the type of lock that the kernel put into its argument.
fn ofd_lock(file: &File, command: libc::c_int, kind: libc::c_int, first: u64, len: u64) -> io::Result<libc::c_int> {
    // SAFETY: all zeros is a value of this plain struct; `l_pid` has to be 0.
    let mut lock: libc::flock = unsafe { std::mem::zeroed() };
    lock.l_type = kind as libc::c_short;
    lock.l_whence = libc::SEEK_SET as libc::c_short;
    lock.l_start = file_offset(first)?;
    lock.l_len = file_offset(len)?;
    // SAFETY: `lock` is the struct that these commands read and write, and lives through the call.
    retry(|| unsafe { libc::fcntl(file.as_raw_fd(), command, &mut lock) }.into())?;
    Ok(lock.l_type.into())
}

/// The file system's magic number (`statfs(2)`).
pub fn file_system(file: &File) -> io::Result<u64> {
    Ok(statfs(file)?.f_type as u64)
}

/// Bytes of one of the file system's blocks, of which its files are made (`statfs(2)`).
pub fn file_system_block(file: &File) -> io::Result<u64> {
    Ok(statfs(file)?.f_bsize as u64)
}

/// Bytes that the file system has left for files of this process's user (`statfs(2)`).
pub fn file_system_available(file: &File) -> io::Result<u64> {
    let stat = statfs(file)?;
    let fragment = if stat.f_frsize > 0 { stat.f_frsize } else { stat.f_bsize };
    Ok(u64::try_from(fragment).unwrap_or(0).saturating_mul(stat.f_bavail))
}

fn statfs(file: &File) -> io::Result<libc::statfs> {
    // SAFETY: all zeros is a value of this plain struct; the kernel fills it.
    let mut stat: libc::statfs = unsafe { std::mem::zeroed() };
    // SAFETY: `stat` lives through the call.
    retry(|| unsafe { libc::fstatfs(file.as_raw_fd(), &mut stat) }.into())?;
    Ok(stat)
}

/// The least and the most bytes of a write that happens whole or not at all (`STATX_WRITE_ATOMIC`), both powers of two; `None` if this file
/// cannot, or the kernel does not say.
pub fn atomic_write_unit(file: &File) -> io::Result<Option<(u32, u32)>> {
    const STATX_WRITE_ATOMIC: u32 = 0x0001_0000;
    let stat = statx(file, STATX_WRITE_ATOMIC)?;
    let told = stat.stx_mask & STATX_WRITE_ATOMIC != 0;
    let (min, max) = (stat.stx_atomic_write_unit_min, stat.stx_atomic_write_unit_max);
    Ok((told && min.is_power_of_two() && max.is_power_of_two()).then_some((min, max)))
}

/// What direct I/O on this file needs (`STATX_DIOALIGN`); `None` if it cannot be done, or if the kernel does not say, which is no promise either.
pub fn direct_alignment(file: &File) -> io::Result<Option<DirectAlignment>> {
    let stat = statx(file, libc::STATX_DIOALIGN)?;
    let told = stat.stx_mask & libc::STATX_DIOALIGN != 0;
    let (memory, offset) = (stat.stx_dio_mem_align, stat.stx_dio_offset_align);
    Ok((told && memory.is_power_of_two() && offset.is_power_of_two()).then_some(DirectAlignment { memory, offset }))
}

/// Whether a read of this file may be asked not to wait (`RWF_NOWAIT`): that it would have to, or what it brings, is as good an answer as any other.
pub fn takes_nowait(file: &File) -> bool {
    let mut buf = AlignedBuf::new(PAGE);
    let iov = buf.iovec(PAGE);
    // SAFETY: one piece of memory, which lives through the call.
    let read = || unsafe { libc::preadv2(file.as_raw_fd(), &iov, 1, 0, libc::RWF_NOWAIT) } as i64;
    retry(read).map_err(|e| e.raw_os_error()) != Err(Some(libc::EOPNOTSUPP))
}

fn statx(file: &File, what: u32) -> io::Result<libc::statx> {
    // SAFETY: all zeros is a value of this plain struct; the kernel fills it.
    let mut stat: libc::statx = unsafe { std::mem::zeroed() };
    let fd = file.as_raw_fd();
    // SAFETY: the path is an empty C string, `stat` lives through the call.
    let mut ask = || unsafe { libc::statx(fd, c"".as_ptr(), libc::AT_EMPTY_PATH, what, &mut stat) };
    retry(|| ask().into())?;
    Ok(stat)
}

/// Has the system keep no times of access of an open file, which cost each read something; if this process may say so.
pub fn keep_no_access_times(file: &File) {
    let fd = file.as_raw_fd();
    // SAFETY: no addresses.
    let flags = retry(|| unsafe { libc::fcntl(fd, libc::F_GETFL) }.into());
    // SAFETY: no addresses.
    let set =
        |flags| retry(|| unsafe { libc::fcntl(fd, libc::F_SETFL, flags as libc::c_int | libc::O_NOATIME) }.into());
    if let Err(e) = flags.and_then(set) {
        log::debug!("times of access are kept: {e}");
    }
}

/// Switches a file to direct I/O; `Ok(false)` if its file system cannot.
pub fn set_direct(file: &File) -> io::Result<bool> {
    let fd = file.as_raw_fd();
    // SAFETY: no addresses.
    let flags = retry(|| unsafe { libc::fcntl(fd, libc::F_GETFL) }.into())?;
    let flags = flags as libc::c_int | libc::O_DIRECT;
    // SAFETY: no addresses.
    match retry(|| unsafe { libc::fcntl(fd, libc::F_SETFL, flags) }.into()) {
        Ok(_) => Ok(true),
        Err(e) if e.raw_os_error() == Some(libc::EINVAL) => Ok(false),
        Err(e) => Err(e),
    }
}

/// The size in bytes of an open regular file or block device.
pub fn size(file: &File) -> io::Result<u64> {
    let metadata = file.metadata()?;
    if metadata.file_type().is_block_device() { block_device_size(file) } else { Ok(metadata.len()) }
}

/// The size in bytes of an open block device.
pub fn block_device_size(file: &File) -> io::Result<u64> {
    /// `_IOR(0x12, 114, size_t)`, see linux/fs.h.
    const BLKGETSIZE64: u64 = 2 << 30 | (size_of::<usize>() as u64) << 16 | 0x12 << 8 | 114;
    let mut size = 0u64;
    // SAFETY: this request stores eight bytes at the address, where `size` is.
    retry(|| unsafe { libc::ioctl(file.as_raw_fd(), BLKGETSIZE64 as libc::Ioctl, &mut size) }.into())?;
    Ok(size)
}

/// The logical sector size in bytes of an open block device: the alignment of direct I/O on it.
pub fn block_device_sector(file: &File) -> io::Result<u32> {
    let mut size: libc::c_int = 0;
    // SAFETY: this request stores an int at the address, where `size` is.
    retry(|| unsafe { libc::ioctl(file.as_raw_fd(), libc::BLKSSZGET, &mut size) }.into())?;
    u32::try_from(size).map_err(|_| io::Error::from_raw_os_error(libc::EINVAL))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn files_say_whether_they_may_be_asked_not_to_wait() {
        let file = tempfile::tempfile_in(std::env::current_exe().unwrap().parent().unwrap()).unwrap();
        // An empty one, and one whose bytes are not all there: the question is understood.
        assert!(takes_nowait(&file));
        file.set_len(1 << 20).unwrap();
        assert!(takes_nowait(&file));
        // Made up when it is read, however long that takes.
        assert!(!takes_nowait(&File::open("/proc/self/status").unwrap()));
    }
}
