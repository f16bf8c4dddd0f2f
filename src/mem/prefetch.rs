//! A hint to the processor that memory will be touched soon.
#![allow(unsafe_code, reason = "an instruction without a safe form")]

/// Asks for the line of the cache at an address. It may be any address: nothing is read as far as the program can tell, and nothing faults.
#[inline]
pub(super) fn line(at: *const u8) {
    #[cfg(target_arch = "x86_64")]
    // SAFETY: all x86-64 processors have the instruction, which faults at no address.
    unsafe {
        std::arch::x86_64::_mm_prefetch::<{ std::arch::x86_64::_MM_HINT_T0 }>(at.cast());
    }
    #[cfg(target_arch = "aarch64")]
    // SAFETY: a hint, which faults at no address, and touches no register.
    unsafe {
        std::arch::asm!("prfm pldl1keep, [{0}]", in(reg) at, options(nostack, readonly, preserves_flags));
    }
    #[cfg(not(any(target_arch = "x86_64", target_arch = "aarch64")))]
    let _ = at;
}

/// The same, for memory that will be written: other processors give the line up.
#[inline]
pub(super) fn line_to_write(at: *const u8) {
    #[cfg(target_arch = "x86_64")]
    // SAFETY: all x86-64 processors have the instruction or take it for none; it faults at no address.
    unsafe {
        std::arch::x86_64::_mm_prefetch::<{ std::arch::x86_64::_MM_HINT_ET0 }>(at.cast());
    }
    #[cfg(target_arch = "aarch64")]
    // SAFETY: a hint, which faults at no address, and touches no register.
    unsafe {
        std::arch::asm!("prfm pstl1keep, [{0}]", in(reg) at, options(nostack, readonly, preserves_flags));
    }
    #[cfg(not(any(target_arch = "x86_64", target_arch = "aarch64")))]
    let _ = at;
}
