//! The buffer that a command's data moves through: a list of pieces of guest memory (or, for tests and bounces, memory
//! of our own), owned by whoever does I/O on it.
#![allow(unsafe_code, reason = "guest memory is reached by raw pointers; each use argues its bounds")]

use super::SnapshotId;

/// Which way a command's data moves, seen from the initiator.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Direction {
    /// The command has no data buffer.
    #[default]
    None,
    /// Data-Out: initiator → target (a write).
    Out,
    /// Data-In: target → initiator (a read).
    In,
}

/// A scatter-gather list of pinned memory, with its direction and total length in bytes.
///
/// Linear: not `Clone`. Made by [`SnapshotSet::resolve`](super::SnapshotSet::resolve) and given back to it; or by
/// [`IoBuf::owned`] over memory of its own.
#[derive(Debug, Default)]
pub struct IoBuf {
    pub(super) iov: Vec<Piece>,
    pub(super) len: u64,
    pub(super) direction: Direction,
    pub(super) snapshot: Option<SnapshotId>,
    pub(super) storage: Option<Box<[u8]>>,
}

/// One piece of memory. Has the layout of `struct iovec`, so that a list of them goes to the kernel as it is.
#[derive(Clone, Copy, Debug)]
#[repr(C)]
pub struct Piece {
    pub(super) base: *mut u8,
    pub(super) len: usize,
}

// SAFETY: a piece is an address and a length; the memory behind it stays mapped while the IoBuf is out (see the module
// documentation) and is shared with the guest anyway, so which thread touches it makes no difference.
unsafe impl Send for Piece {}

impl IoBuf {
    /// An empty buffer: no data, no direction.
    pub fn empty() -> IoBuf {
        IoBuf::default()
    }

    /// A buffer over zeroed memory of its own, page-aligned pieces not guaranteed; `len` in bytes.
    pub fn owned(len: usize, direction: Direction) -> IoBuf {
        let mut storage = vec![0u8; len].into_boxed_slice();
        let iov = if len == 0 { Vec::new() } else { vec![Piece { base: storage.as_mut_ptr(), len }] };
        IoBuf { iov, len: len as u64, direction, snapshot: None, storage: Some(storage) }
    }

    /// Total length in bytes.
    pub fn len(&self) -> u64 {
        self.len
    }

    /// True if there is no byte in it.
    pub fn is_empty(&self) -> bool {
        self.len == 0
    }

    /// Which way its data moves.
    pub fn direction(&self) -> Direction {
        self.direction
    }

    /// The pieces as the kernel takes them. The pointers are valid while this buffer lives.
    pub fn iovecs(&self) -> &[libc::iovec] {
        // SAFETY: `Piece` is repr(C) with the fields of `struct iovec` in its order; lifetime is that of the borrow.
        unsafe { std::slice::from_raw_parts(self.iov.as_ptr().cast::<libc::iovec>(), self.iov.len()) }
    }

    /// Appends to `out` the iovecs that cover `len` bytes from `offset` (both within the buffer; what lies past the end
    /// is left out).
    pub fn iovecs_range(&self, offset: u64, len: u64, out: &mut Vec<libc::iovec>) {
        let mut skip = offset;
        let mut left = len;
        for p in &self.iov {
            let plen = p.len as u64;
            if left == 0 {
                return;
            }
            if skip >= plen {
                skip -= plen;
                continue;
            }
            let take = left.min(plen - skip);
            // SAFETY: skip < p.len, so the address is inside the piece.
            let base = unsafe { p.base.add(skip as usize) };
            out.push(libc::iovec { iov_base: base.cast(), iov_len: take as usize });
            left -= take;
            skip = 0;
        }
    }

    /// Copies `src` into the buffer from byte `offset` on; returns how many bytes fitted.
    pub fn write_at(&mut self, offset: u64, src: &[u8]) -> usize {
        let mut done = 0;
        self.for_range(offset, src.len() as u64, |ptr, len| {
            // SAFETY: `for_range` yields memory inside a piece; `src` is ours and does not overlap guest memory.
            unsafe { std::ptr::copy_nonoverlapping(src.as_ptr().add(done), ptr, len) };
            done += len;
        });
        done
    }

    /// Copies from byte `offset` of the buffer into `dst`; returns how many bytes there were.
    pub fn read_at(&self, offset: u64, dst: &mut [u8]) -> usize {
        let mut done = 0;
        let out = dst.as_mut_ptr();
        self.for_range(offset, dst.len() as u64, |ptr, len| {
            // SAFETY: as in `write_at`; `done + len` never passes `dst.len()`.
            unsafe { std::ptr::copy_nonoverlapping(ptr, out.add(done), len) };
            done += len;
        });
        done
    }

    fn for_range(&self, offset: u64, len: u64, mut f: impl FnMut(*mut u8, usize)) {
        let mut skip = offset;
        let mut left = len;
        for p in &self.iov {
            let plen = p.len as u64;
            if left == 0 {
                return;
            }
            if skip >= plen {
                skip -= plen;
                continue;
            }
            let take = left.min(plen - skip);
            // SAFETY: skip < p.len.
            f(unsafe { p.base.add(skip as usize) }, take as usize);
            left -= take;
            skip = 0;
        }
    }
}
