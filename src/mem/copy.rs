//! Copies to and from memory that a guest may be changing at this very moment.
//!
//! A plain `memcpy` of such memory is a data race, which Rust leaves undefined. These loops use relaxed atomic accesses,
//! eight bytes at a time where the guest's address allows, for which a race means an old or a new value and nothing
//! else. Nothing is promised about the order in which other CPUs see the pieces: ring indexes order them.
#![allow(unsafe_code, reason = "guest memory is reached by raw pointers; each use argues its bounds")]

use std::sync::atomic::{AtomicU8, AtomicU64, Ordering};

const WORD: usize = size_of::<u64>();

/// How many of `len` bytes from `p` on come before the first word boundary.
fn head_len(p: *const u8, len: usize) -> usize {
    (p as usize).wrapping_neg().rem_euclid(WORD).min(len)
}

/// Fills `dst` from guest memory.
///
/// # Safety
///
/// `src` is the start of `dst.len()` mapped bytes that no Rust reference covers.
pub(super) unsafe fn from_guest(src: *const u8, dst: &mut [u8]) {
    let (head, rest) = dst.split_at_mut(head_len(src, dst.len()));
    // SAFETY: `head` is no longer than `dst`, so every byte lies in the caller's range.
    unsafe { bytes_from_guest(src, head) };
    // SAFETY: still within the caller's range, or one past its end if `rest` is empty.
    let mut at = unsafe { src.add(head.len()) };
    let mut words = rest.chunks_exact_mut(WORD);
    for word in &mut words {
        // SAFETY: `at` is word-aligned (`head` ended at a boundary, every step is a word) and a whole word of the
        // caller's range is left; atomics may be made from mapped memory that has no references.
        let value = unsafe { AtomicU64::from_ptr(at.cast_mut().cast()) }.load(Ordering::Relaxed);
        word.copy_from_slice(&value.to_ne_bytes());
        // SAFETY: that word was inside the range, so its end is at most one past it.
        at = unsafe { at.add(WORD) };
    }
    // SAFETY: what is left of `dst` is what is left of the caller's range.
    unsafe { bytes_from_guest(at, words.into_remainder()) };
}

/// # Safety
///
/// As [`from_guest`].
unsafe fn bytes_from_guest(src: *const u8, dst: &mut [u8]) {
    for (i, byte) in dst.iter_mut().enumerate() {
        // SAFETY: `i < dst.len()`, so the byte is in the caller's range.
        *byte = unsafe { AtomicU8::from_ptr(src.add(i).cast_mut()) }.load(Ordering::Relaxed);
    }
}

/// Writes `src` to guest memory.
///
/// # Safety
///
/// `dst` is the start of `src.len()` mapped, writable bytes that no Rust reference covers.
pub(super) unsafe fn to_guest(src: &[u8], dst: *mut u8) {
    let (head, rest) = src.split_at(head_len(dst, src.len()));
    // SAFETY: `head` is no longer than `src`, so every byte lies in the caller's range.
    unsafe { bytes_to_guest(head, dst) };
    // SAFETY: still within the caller's range, or one past its end if `rest` is empty.
    let mut at = unsafe { dst.add(head.len()) };
    let (words, tail) = rest.as_chunks::<WORD>();
    for word in words {
        // SAFETY: `at` is word-aligned and a whole word of the caller's range is left, as in `from_guest`.
        unsafe { AtomicU64::from_ptr(at.cast()) }.store(u64::from_ne_bytes(*word), Ordering::Relaxed);
        // SAFETY: that word was inside the range, so its end is at most one past it.
        at = unsafe { at.add(WORD) };
    }
    // SAFETY: what is left of `src` is what is left of the caller's range.
    unsafe { bytes_to_guest(tail, at) };
}

/// # Safety
///
/// As [`to_guest`].
unsafe fn bytes_to_guest(src: &[u8], dst: *mut u8) {
    for (i, byte) in src.iter().enumerate() {
        // SAFETY: `i < src.len()`, so the byte is in the caller's range.
        unsafe { AtomicU8::from_ptr(dst.add(i)) }.store(*byte, Ordering::Relaxed);
    }
}

/// Copies between two places that others may be changing. If they overlap, what is in the destination is any of the bytes involved.
///
/// # Safety
///
/// `src` is the start of `len` mapped bytes, `dst` of `len` mapped, writable bytes; no Rust reference covers them.
#[cfg(target_arch = "x86_64")]
pub(super) unsafe fn between(src: *const u8, dst: *mut u8, len: usize) {
    // One instruction that the compiler does not look into, so that a race is the hardware's business: each byte is an old or a new
    // one. It is made for this: no register is spilled, and a page fault or a signal in it resumes where it was.
    // SAFETY: reads and writes the caller's ranges only; the direction flag is clear, as the ABI has it everywhere.
    unsafe {
        std::arch::asm!(
            "rep movsb",
            inout("rcx") len => _,
            inout("rsi") src => _,
            inout("rdi") dst => _,
            options(nostack, preserves_flags)
        );
    }
}

/// Copies between two places that others may be changing. If they overlap, what is in the destination is any of the bytes involved.
///
/// # Safety
///
/// `src` is the start of `len` mapped bytes, `dst` of `len` mapped, writable bytes; no Rust reference covers them.
#[cfg(not(target_arch = "x86_64"))]
pub(super) unsafe fn between(src: *const u8, dst: *mut u8, len: usize) {
    const PIECE: usize = 512;
    let mut piece = [0; PIECE];
    for start in (0..len).step_by(PIECE) {
        let piece = &mut piece[..PIECE.min(len - start)];
        // SAFETY: start + piece.len() <= len.
        unsafe { from_guest(src.add(start), piece) };
        // SAFETY: as above.
        unsafe { to_guest(piece, dst.add(start)) };
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_alignment_and_length_copies_exactly_its_bytes() {
        let pattern: Vec<u8> = (1..=64).collect();
        for start in 0..9 {
            for len in 0..40 {
                let mut memory = [0u8; 64];
                // SAFETY: start + len < 64, the memory is ours.
                unsafe { to_guest(&pattern[..len], memory.as_mut_ptr().add(start)) };
                let mut expected = [0u8; 64];
                expected[start..start + len].copy_from_slice(&pattern[..len]);
                assert_eq!(memory, expected, "to_guest start {start} len {len}");

                let mut back = vec![0u8; len];
                // SAFETY: as above.
                unsafe { from_guest(memory.as_mut_ptr().add(start), &mut back) };
                assert_eq!(back, &pattern[..len], "from_guest start {start} len {len}");

                let mut other = [0u8; 64];
                // SAFETY: as above, and 8 - start % 8 + len < 64.
                unsafe { between(memory.as_ptr().add(start), other.as_mut_ptr().add(8 - start % 8), len) };
                let mut expected = [0u8; 64];
                expected[8 - start % 8..][..len].copy_from_slice(&pattern[..len]);
                assert_eq!(other, expected, "between start {start} len {len}");
            }
        }
    }
}
