//! One blocking transfer between a file and memory, in as many calls as it takes.
#![allow(unsafe_code, reason = "addresses of I/O buffers go to the kernel")]

use std::cell::Cell;
use std::fs::File;
use std::io;
use std::marker::PhantomData;

use super::RawFile;
use super::mapped::Mapped;
use crate::mem::IoBuf;
use crate::sys::file::{AlignedBuf, IOV_MAX};

/// The most that is bounced, or written as zeros, at a time; a multiple of every block size.
pub(super) const PIECE: u64 = 256 << 10;

thread_local! {
    /// A list of pieces, for its allocation to be used again.
    static PIECES: Cell<Vec<libc::iovec>> = const { Cell::new(Vec::new()) };
}

/// The memory of one transfer.
///
/// # Safety
///
/// What [`pieces`](Memory::pieces) yields is valid, and may be read by the kernel, and for a transfer into memory written, while the `Memory` lives.
pub(super) unsafe trait Memory {
    /// The transfer goes into memory.
    const INTO: bool;

    /// Appends the pieces that cover `len` bytes from byte `from` of the transfer.
    fn pieces(&self, from: u64, len: u64, out: &mut Vec<libc::iovec>);

    /// Copies between the bytes from `from` on and a bounce buffer, in the direction of the transfer.
    fn bounce(&mut self, from: u64, bytes: &mut [u8]);

    /// Copies the `len` bytes from `from` on to or from `offset` of the file through its mapping; false if this is not the way.
    fn through(&mut self, mapped: &Mapped, file: &File, offset: u64, from: u64, len: u64) -> bool {
        let _ = (mapped, file, offset, from, len);
        false
    }
}

/// Into a buffer, from its byte `at` on.
pub(super) struct IntoBuf<'a> {
    pub(super) buf: &'a mut IoBuf,
    pub(super) at: u64,
}

// SAFETY: an IoBuf's memory is valid while it lives, and it is borrowed uniquely.
unsafe impl Memory for IntoBuf<'_> {
    const INTO: bool = true;

    fn pieces(&self, from: u64, len: u64, out: &mut Vec<libc::iovec>) {
        self.buf.iovecs_range(self.at.saturating_add(from), len, out);
    }

    fn bounce(&mut self, from: u64, bytes: &mut [u8]) {
        self.buf.write_at(self.at.saturating_add(from), bytes);
    }

    fn through(&mut self, mapped: &Mapped, file: &File, offset: u64, from: u64, len: u64) -> bool {
        mapped.read(file, offset, len, self.buf, self.at.saturating_add(from))
    }
}

/// Out of a buffer, from its byte `at` on.
pub(super) struct FromBuf<'a> {
    pub(super) buf: &'a IoBuf,
    pub(super) at: u64,
}

// SAFETY: an IoBuf's memory is valid while it lives.
unsafe impl Memory for FromBuf<'_> {
    const INTO: bool = false;

    fn pieces(&self, from: u64, len: u64, out: &mut Vec<libc::iovec>) {
        self.buf.iovecs_range(self.at.saturating_add(from), len, out);
    }

    fn bounce(&mut self, from: u64, bytes: &mut [u8]) {
        self.buf.read_at(self.at.saturating_add(from), bytes);
    }

    fn through(&mut self, mapped: &Mapped, file: &File, offset: u64, from: u64, len: u64) -> bool {
        mapped.write(file, offset, len, self.buf, self.at.saturating_add(from))
    }
}

/// Into memory of our own. Kept as an address, for the kernel writes to it behind Rust's back.
pub(super) struct IntoBytes<'a> {
    base: *mut u8,
    len: usize,
    borrow: PhantomData<&'a mut [u8]>,
}

impl<'a> IntoBytes<'a> {
    pub(super) fn new(bytes: &'a mut [u8]) -> IntoBytes<'a> {
        IntoBytes { base: bytes.as_mut_ptr(), len: bytes.len(), borrow: PhantomData }
    }
}

// SAFETY: the piece lies in the slice, which is borrowed uniquely.
unsafe impl Memory for IntoBytes<'_> {
    const INTO: bool = true;

    fn pieces(&self, from: u64, len: u64, out: &mut Vec<libc::iovec>) {
        let from = self.len.min(from as usize);
        let iov_base = self.base.wrapping_add(from).cast();
        out.push(libc::iovec { iov_base, iov_len: (self.len - from).min(len as usize) });
    }

    fn bounce(&mut self, from: u64, bytes: &mut [u8]) {
        // SAFETY: the slice that `new` borrowed uniquely, and still does; the kernel is not at work on it now.
        let slice = unsafe { std::slice::from_raw_parts_mut(self.base, self.len) };
        if let Some(dst) = slice.get_mut(from as usize..).and_then(|rest| rest.get_mut(..bytes.len())) {
            dst.copy_from_slice(bytes);
        }
    }
}

/// Out of memory of our own.
pub(super) struct FromBytes<'a>(pub(super) &'a [u8]);

// SAFETY: the piece lies in the slice.
unsafe impl Memory for FromBytes<'_> {
    const INTO: bool = false;

    fn pieces(&self, from: u64, len: u64, out: &mut Vec<libc::iovec>) {
        out.push(part(self.0, from, len));
    }

    fn bounce(&mut self, from: u64, bytes: &mut [u8]) {
        if let Some(src) = self.0.get(from as usize..).and_then(|rest| rest.get(..bytes.len())) {
            bytes.copy_from_slice(src);
        }
    }
}

/// Zeros out of a bounded store, the same ones over and over.
pub(super) struct Zeros(AlignedBuf);

impl Zeros {
    pub(super) fn new() -> Zeros {
        Zeros(AlignedBuf::new(PIECE as usize))
    }
}

// SAFETY: the pieces lie in the buffer, which nobody writes.
unsafe impl Memory for Zeros {
    const INTO: bool = false;

    fn pieces(&self, _from: u64, len: u64, out: &mut Vec<libc::iovec>) {
        // Bounded in each call; the transfer asks again for what is left.
        let mut left = len.min(4 * PIECE);
        while left > 0 {
            let piece = part(&self.0, 0, left);
            left -= piece.iov_len as u64;
            out.push(piece);
        }
    }

    fn bounce(&mut self, _from: u64, bytes: &mut [u8]) {
        bytes.fill(0);
    }
}

/// The part of contiguous memory that begins at byte `from` and has at most `len` bytes.
fn part(bytes: &[u8], from: u64, len: u64) -> libc::iovec {
    let rest = bytes.get(from as usize..).unwrap_or(&[]);
    libc::iovec { iov_base: rest.as_ptr().cast_mut().cast(), iov_len: rest.len().min(len as usize) }
}

/// Moves the bytes of `memory` between `from` and `to` with as many calls as it takes, through aligned memory where direct I/O does not take the pieces
/// themselves. `call` gets pieces and where in `memory` they are; it returns how many bytes it did.
///
/// # Errors
///
/// That of the call that failed, and the byte from which on nothing is known to be moved.
pub(super) fn transfer<M: Memory>(
    raw: &RawFile,
    from: u64,
    to: u64,
    memory: &mut M,
    call: impl FnMut(&[libc::iovec], u64) -> io::Result<u64>,
) -> Result<(), (io::Error, u64)> {
    let mut iov = PIECES.take();
    let result = transfer_with(&mut iov, raw, from, to, memory, call);
    PIECES.set(iov);
    result
}

fn transfer_with<M: Memory>(
    iov: &mut Vec<libc::iovec>,
    raw: &RawFile,
    from: u64,
    to: u64,
    memory: &mut M,
    mut call: impl FnMut(&[libc::iovec], u64) -> io::Result<u64>,
) -> Result<(), (io::Error, u64)> {
    let mut bounce: Option<AlignedBuf> = None;
    let mut done = from;
    while done < to {
        iov.clear();
        memory.pieces(done, to - done, iov);
        let moved = if raw.takes(iov) {
            iov.truncate(IOV_MAX);
            call(iov, done).map_err(|e| (e, done))?
        } else {
            let want = (to - done).min(PIECE) as usize;
            let buf = bounce.get_or_insert_with(|| AlignedBuf::new(want));
            if !M::INTO
                && let Some(bytes) = buf.get_mut(..want)
            {
                memory.bounce(done, bytes);
            }
            let moved = call(&[buf.iovec(want)], done).map_err(|e| (e, done))?;
            if M::INTO
                && let Some(bytes) = buf.get_mut(..moved as usize)
            {
                memory.bounce(done, bytes);
            }
            moved
        };
        if moved == 0 {
            // The file ends before the image does.
            return Err((io::ErrorKind::UnexpectedEof.into(), done));
        }
        done += moved;
    }
    Ok(())
}
