//! What is said when a system call was made that is not on the list: its number and first arguments, on standard error, and the
//! process dies by SIGSYS.
//!
//! The handler allocates nothing and takes no lock. It is installed so that it is gone when it runs: the signal that it then sends to itself ends the
//! process.
#![allow(unsafe_code, reason = "installs a signal handler; each step argues itself")]

use std::ffi::{c_int, c_void};
use std::fmt::{self, Write};
use std::io;
use std::ptr;

/// Installs the handler.
pub(super) fn install_handler() -> io::Result<()> {
    let handler: extern "C" fn(c_int, *mut libc::siginfo_t, *mut c_void) = on_sigsys;
    // SAFETY: all-zero bytes are a valid `struct sigaction`, with an empty mask.
    let mut action: libc::sigaction = unsafe { std::mem::zeroed() };
    action.sa_flags = libc::SA_SIGINFO | libc::SA_ONSTACK | libc::SA_RESETHAND | libc::SA_NODEFER;
    action.sa_sigaction = handler as usize;
    // SAFETY: `action` is a live struct, and its handler is async-signal-safe (see the module documentation).
    match unsafe { libc::sigaction(libc::SIGSYS, &action, ptr::null_mut()) } {
        0 => Ok(()),
        _ => Err(io::Error::last_os_error()),
    }
}

/// The part of `siginfo_t` that is valid for SIGSYS (sigaction(2)), up to what is read here.
#[repr(C)]
struct SysInfo {
    head: [c_int; 3],
    call_addr: *mut c_void,
    syscall: c_int,
}

/// The last line.
struct Line {
    bytes: [u8; 256],
    len: usize,
}

impl Write for Line {
    fn write_str(&mut self, s: &str) -> fmt::Result {
        let room = self.bytes.get_mut(self.len..).unwrap_or_default();
        let n = s.len().min(room.len());
        for (to, from) in room.iter_mut().zip(s.bytes()) {
            *to = from;
        }
        self.len += n;
        Ok(())
    }
}

extern "C" fn on_sigsys(_signal: c_int, info: *mut libc::siginfo_t, context: *mut c_void) {
    // SAFETY: with SA_SIGINFO the kernel passes a valid siginfo, which for a SIGSYS of its own has these fields; for one that was
    // sent by kill they are other bytes of the same union.
    let number = unsafe { (*info.cast::<SysInfo>()).syscall };
    // SAFETY: the third argument of such a handler points to a valid ucontext.
    let [first, second, third] = arguments(unsafe { &*context.cast::<libc::ucontext_t>() });
    let mut line = Line { bytes: [0; 256], len: 0 };
    let text = format_args!(
        "vstgt: sandbox: system call {number} ({first:#x}, {second:#x}, {third:#x}) is not allowed; the process ends\n"
    );
    // `Line` takes what it has room for and never fails.
    if line.write_fmt(text).is_ok() {
        // SAFETY: the buffer is valid for `len` bytes. There is nobody to tell if it cannot be written.
        unsafe { libc::write(libc::STDERR_FILENO, line.bytes.as_ptr().cast(), line.len) };
    }
    // SAFETY: a signal to this thread, whose handler was reset to the default when this one was entered, which ends the process;
    // should it not, `_exit` does. Both are async-signal-safe.
    unsafe {
        libc::syscall(libc::SYS_tgkill, libc::getpid(), libc::gettid(), libc::SIGSYS);
        libc::_exit(128 + libc::SIGSYS);
    }
}

/// The first three arguments of the interrupted call, from the registers of the calling convention.
#[cfg(target_arch = "x86_64")]
fn arguments(context: &libc::ucontext_t) -> [u64; 3] {
    let register = |name: c_int| context.uc_mcontext.gregs.get(name as usize).map_or(0, |value| *value as u64);
    [register(libc::REG_RDI), register(libc::REG_RSI), register(libc::REG_RDX)]
}

/// The first three arguments of the interrupted call, from the registers of the calling convention.
#[cfg(target_arch = "aarch64")]
fn arguments(context: &libc::ucontext_t) -> [u64; 3] {
    let [first, second, third, ..] = context.uc_mcontext.regs;
    [first, second, third]
}
