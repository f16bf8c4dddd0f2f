//! The buffer that a command's data moves through: a list of pieces of guest memory (or, for tests and bounces, memory
//! of our own), owned by whoever does I/O on it.
#![allow(unsafe_code, reason = "guest memory is reached by raw pointers; each use argues its bounds")]

use std::alloc::{Layout, alloc_zeroed, dealloc, handle_alloc_error};
use std::ptr::NonNull;

use super::{SnapshotId, copy};

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
/// [`IoBuf::owned`] over memory of its own. One that is dropped instead of given back leaks its guest's mapping.
///
/// A piece may adjoin the next one in guest memory without being one with it, and there may be more pieces than one
/// `preadv` takes (`IOV_MAX`): an engine submits such a buffer in several calls, see [`IoBuf::iovecs_range`].
///
/// It is handed on many times for each command, so what it consists of stays where it is, in a box; an empty one has none, and
/// a box is used again with the buffer.
#[derive(Debug, Default)]
pub struct IoBuf(Option<Box<Parts>>);

/// What a buffer consists of.
#[derive(Debug, Default)]
pub(super) struct Parts {
    iov: Vec<Piece>,
    len: u64,
    pub(super) direction: Direction,
    /// The snapshot that counts this buffer; `None` for own memory and for no memory.
    pub(super) snapshot: Option<SnapshotId>,
    /// Which of the snapshot's regions it touches, in the snapshot's own numbers.
    pub(super) regions: u64,
    storage: Option<Storage>,
}

/// One piece of memory. Has the layout of `struct iovec`, so that a list of them goes to the kernel as it is.
#[derive(Clone, Copy, Debug)]
#[repr(C)]
pub struct Piece {
    pub(super) base: *mut u8,
    pub(super) len: usize,
}

const _: () = {
    assert!(size_of::<Piece>() == size_of::<libc::iovec>() && align_of::<Piece>() == align_of::<libc::iovec>());
    assert!(std::mem::offset_of!(Piece, base) == std::mem::offset_of!(libc::iovec, iov_base));
    assert!(std::mem::offset_of!(Piece, len) == std::mem::offset_of!(libc::iovec, iov_len));
};

// SAFETY: a piece is an address and a length; the memory behind it stays mapped while the IoBuf is out (see the module
// documentation) and is shared with the guest anyway, so which thread touches it makes no difference.
unsafe impl Send for Piece {}

/// Page-aligned, zeroed memory of our own. Reached by raw pointers only: the kernel writes to it behind Rust's back.
#[derive(Debug)]
struct Storage {
    base: NonNull<u8>,
    layout: Layout,
}

// SAFETY: it owns its memory like a `Box<[u8]>` does.
unsafe impl Send for Storage {}

impl Storage {
    /// What O_DIRECT asks of addresses is at most a page.
    const ALIGN: usize = 4096;

    /// `None` for a length that has no memory: zero, or more than an address space holds.
    fn zeroed(len: usize) -> Option<Storage> {
        let layout = Layout::from_size_align(len, Self::ALIGN).ok().filter(|l| l.size() > 0)?;
        // SAFETY: the layout's size is not zero.
        let base = unsafe { alloc_zeroed(layout) };
        let base = NonNull::new(base).unwrap_or_else(|| handle_alloc_error(layout));
        Some(Storage { base, layout })
    }
}

impl Drop for Storage {
    fn drop(&mut self) {
        // SAFETY: allocated in `zeroed` with this very layout; freed once, here.
        unsafe { dealloc(self.base.as_ptr(), self.layout) };
    }
}

impl IoBuf {
    /// An empty buffer: no data, no direction.
    pub fn empty() -> IoBuf {
        IoBuf::default()
    }

    /// A buffer over zeroed, page-aligned memory of its own; `len` in bytes.
    pub fn owned(len: usize, direction: Direction) -> IoBuf {
        let mut parts = Box::new(Parts { direction, ..Parts::default() });
        if let Some(storage) = Storage::zeroed(len) {
            parts.push(Piece { base: storage.base.as_ptr(), len });
            parts.storage = Some(storage);
        }
        IoBuf(Some(parts))
    }

    /// What it consists of, if it has anything.
    pub(super) fn parts(&self) -> Option<&Parts> {
        self.0.as_deref()
    }

    /// The same, to be changed; made if there is nothing.
    pub(super) fn parts_mut(&mut self) -> &mut Parts {
        self.0.get_or_insert_default()
    }

    fn pieces(&self) -> &[Piece] {
        self.parts().map_or(&[], |parts| &parts.iov)
    }

    /// Total length in bytes.
    pub fn len(&self) -> u64 {
        self.parts().map_or(0, |parts| parts.len)
    }

    /// True if there is no byte in it.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// Which way its data moves.
    pub fn direction(&self) -> Direction {
        self.parts().map_or(Direction::None, |parts| parts.direction)
    }

    /// Whether it is guest memory, to be given back to its [`SnapshotSet`](super::SnapshotSet).
    pub fn is_guest_memory(&self) -> bool {
        self.parts().is_some_and(|parts| parts.snapshot.is_some())
    }

    /// Whether each piece's address and length are multiples of `align` bytes (a power of two), as O_DIRECT wants them.
    pub fn is_aligned(&self, align: usize) -> bool {
        self.pieces().iter().all(|p| p.base.addr().is_multiple_of(align) && p.len.is_multiple_of(align))
    }

    /// For how many pieces there is memory.
    pub fn capacity(&self) -> usize {
        self.parts().map_or(0, |parts| parts.iov.capacity())
    }

    /// The pieces as the kernel takes them. The pointers are valid while this buffer lives.
    pub fn iovecs(&self) -> &[libc::iovec] {
        let pieces = self.pieces();
        // SAFETY: `Piece` has the layout of `struct iovec` (asserted above); lifetime is that of the borrow.
        unsafe { std::slice::from_raw_parts(pieces.as_ptr().cast::<libc::iovec>(), pieces.len()) }
    }

    /// Appends to `out` the iovecs that cover `len` bytes from `offset` (both within the buffer; what lies past the end
    /// is left out).
    pub fn iovecs_range(&self, offset: u64, len: u64, out: &mut Vec<libc::iovec>) {
        self.for_range(offset, len, |ptr, len| out.push(libc::iovec { iov_base: ptr.cast(), iov_len: len }));
    }

    /// Copies `src` into the buffer from byte `offset` on; returns how many bytes fitted.
    pub fn write_at(&mut self, offset: u64, src: &[u8]) -> usize {
        let mut rest = src;
        self.for_range(offset, src.len() as u64, |ptr, len| {
            let (now, later) = rest.split_at(len);
            // SAFETY: `for_range` yields memory inside a piece, mapped while this buffer lives; `src` is a Rust slice
            // and no part of it.
            unsafe { copy::to_guest(now, ptr) };
            rest = later;
        });
        src.len() - rest.len()
    }

    /// Copies from byte `offset` of the buffer into `dst`; returns how many bytes there were.
    pub fn read_at(&self, offset: u64, dst: &mut [u8]) -> usize {
        let wanted = dst.len();
        let mut rest = dst;
        self.for_range(offset, wanted as u64, |ptr, len| {
            let (now, later) = std::mem::take(&mut rest).split_at_mut(len);
            // SAFETY: as in `write_at`.
            unsafe { copy::from_guest(ptr, now) };
            rest = later;
        });
        wanted - rest.len()
    }

    /// Fills `len` bytes from `offset` on with zeros; returns how many there were.
    pub fn zero_at(&mut self, offset: u64, len: u64) -> u64 {
        const ZEROS: [u8; 4096] = [0; 4096];
        let mut done = 0;
        self.for_range(offset, len, |ptr, len| {
            for start in (0..len).step_by(ZEROS.len()) {
                let take = ZEROS.len().min(len - start);
                // SAFETY: start + take <= len, all inside the piece.
                unsafe { copy::to_guest(&ZEROS[..take], ptr.add(start)) };
            }
            done += len as u64;
        });
        done
    }

    /// Back to what [`IoBuf::empty`] gives, but for what is allocated.
    pub(super) fn clear(&mut self) {
        let Some(parts) = self.0.as_deref_mut() else { return };
        let Parts { iov, len, direction, snapshot, regions, storage } = parts;
        iov.clear();
        (*len, *direction, *snapshot, *regions, *storage) = (0, Direction::None, None, 0, None);
    }

    pub(super) fn for_range(&self, offset: u64, len: u64, mut f: impl FnMut(*mut u8, usize)) {
        let mut skip = offset;
        let mut left = len;
        for p in self.pieces() {
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

impl Parts {
    /// True if there is no byte in it.
    pub(super) fn is_empty(&self) -> bool {
        self.len == 0
    }

    /// Appends a piece, joining it to the last one if it begins where that ends.
    pub(super) fn push(&mut self, piece: Piece) {
        match self.iov.last_mut() {
            Some(last) if last.base.wrapping_add(last.len) == piece.base => last.len += piece.len,
            _ => self.iov.push(piece),
        }
        self.len += piece.len as u64;
    }
}

#[cfg(test)]
mod tests;
