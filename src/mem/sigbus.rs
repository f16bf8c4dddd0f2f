//! SIGBUS on guest memory: a file that shrank under its mapping costs its own connection and nothing else.
//!
//! A front-end can truncate the file behind a region at any time; hugetlbfs can run out of pages; a page can be lost to a
//! hardware error. The next access raises SIGBUS on the thread that made it, which by default ends the process and with
//! it every other guest. The handler here looks the address up in a fixed table of watched mappings; if it is in one,
//! it maps private zeros over that *whole mapping*, marks it poisoned and lets the access run again. Replacing all of
//! it and not a page at a time keeps the number of mappings of the process bounded, whatever is touched before somebody
//! looks at the mark. A fault anywhere else goes to the handler that was there before (Rust's own, which ends in the
//! default action).
//!
//! No thread may block SIGBUS: a fault while it is blocked ends the process. Only accesses by this process's own instructions raise SIGBUS; system calls on such memory fail with EFAULT.
//!
//! The handler takes no lock and allocates nothing: it does atomic loads and stores and one `mmap`.
#![allow(unsafe_code, reason = "installs a signal handler and remaps memory from it; each step argues itself")]

use std::ffi::{c_int, c_void};
use std::io;
use std::ptr;
use std::sync::atomic::{AtomicBool, AtomicPtr, AtomicUsize, Ordering, fence};
use std::sync::{Mutex, PoisonError};

/// How many mappings can be watched at once: 254 guests with 64 regions each.
const SLOTS: usize = 16 * 1024;

static TABLE: [Slot; SLOTS] = [const { Slot::new() }; SLOTS];

/// Slots at and past this index were never used.
static USED: AtomicUsize = AtomicUsize::new(0);

/// Whether any mapping was ever poisoned: the one load that asking costs when all is well.
static ANY_POISONED: AtomicBool = AtomicBool::new(false);

/// What was installed before us. Written once, before our handler is.
static PREVIOUS: AtomicPtr<libc::sigaction> = AtomicPtr::new(ptr::null_mut());

/// A watched mapping. Zero-filled when not in use, so that the table takes no memory where it was never touched.
struct Slot {
    /// The lowest two bits say what the slot is; the rest counts its changes, so that a reader can tell that range and state
    /// belong together.
    state: AtomicUsize,
    poisoned: AtomicBool,
    start: AtomicUsize,
    len: AtomicUsize,
}

/// Anybody may claim the slot.
const FREE: usize = 0;
/// Its owner is filling it in; the handler passes it by.
const CLAIMED: usize = 1;
/// Its range is valid.
const WATCHING: usize = 2;
/// The bits of a state that hold one of these; a change adds the next number of changes above them.
const KIND: usize = 3;

impl Slot {
    const fn new() -> Slot {
        Slot {
            state: AtomicUsize::new(FREE),
            poisoned: AtomicBool::new(false),
            start: AtomicUsize::new(0),
            len: AtomicUsize::new(0),
        }
    }

    /// Claims it, if it is free. The claimer's next step is [`Slot::become_`].
    fn claim(&self) -> bool {
        let state = self.state.load(Ordering::Relaxed);
        state & KIND == FREE
            && self.state.compare_exchange(state, next(state, CLAIMED), Ordering::Acquire, Ordering::Relaxed).is_ok()
    }

    /// Changes the state of a slot that is the caller's. Release: whoever sees it sees what was written before.
    fn become_(&self, kind: usize) {
        let state = self.state.load(Ordering::Relaxed);
        self.state.store(next(state, kind), Ordering::Release);
    }

    /// Start and length of the mapping watched here.
    fn range(&self) -> Option<(usize, usize)> {
        let state = self.state.load(Ordering::Acquire);
        let range = (self.start.load(Ordering::Relaxed), self.len.load(Ordering::Relaxed));
        // The slot may be passing to another mapping just now; then `range` may be of both.
        fence(Ordering::Acquire);
        (state & KIND == WATCHING && self.state.load(Ordering::Relaxed) == state).then_some(range)
    }
}

fn next(state: usize, kind: usize) -> usize {
    (state & !KIND).wrapping_add(KIND + 1) | kind
}

/// A mapping under watch, until this is dropped; that must be before it is unmapped.
#[derive(Debug)]
pub(super) struct Watch(usize);

/// Begins to watch `len` bytes at `start`: one mapping, whole pages of its kind. `None` if the table is full.
pub(super) fn watch(start: usize, len: usize) -> Option<Watch> {
    if let Err(error) = install_sigbus_handler() {
        log::warn!("cannot catch SIGBUS, a front-end that shrinks its memory ends this process: {error}");
    }
    let index = TABLE.iter().position(Slot::claim)?;
    USED.fetch_max(index + 1, Ordering::Relaxed);
    let slot = &TABLE[index];
    // A reader that sees any of these stores sees the claim as well, and gives the slot up.
    fence(Ordering::Release);
    slot.poisoned.store(false, Ordering::Relaxed);
    slot.start.store(start, Ordering::Relaxed);
    slot.len.store(len, Ordering::Relaxed);
    slot.become_(WATCHING);
    Some(Watch(index))
}

/// Whether any mapping of this process was ever found to have lost its memory.
pub(super) fn any_poisoned() -> bool {
    ANY_POISONED.load(Ordering::Acquire)
}

impl Watch {
    /// Whether an access faulted, so that the mapping is zeros now.
    pub(super) fn poisoned(&self) -> bool {
        any_poisoned() && TABLE[self.0].poisoned.load(Ordering::Relaxed)
    }
}

impl Drop for Watch {
    fn drop(&mut self) {
        TABLE[self.0].become_(FREE);
    }
}

/// Installs the handler, once per process; later calls do nothing. Mapping the first region does it too, but then nobody
/// hears if it fails.
///
/// # Errors
///
/// What `sigaction` says.
pub fn install_sigbus_handler() -> io::Result<()> {
    static INSTALLED: Mutex<bool> = Mutex::new(false);
    let mut installed = INSTALLED.lock().unwrap_or_else(PoisonError::into_inner);
    if *installed {
        return Ok(());
    }
    let handler: extern "C" fn(c_int, *mut libc::siginfo_t, *mut c_void) = on_sigbus;
    // SAFETY: all-zero bytes are a valid `struct sigaction`.
    let mut ours: libc::sigaction = unsafe { std::mem::zeroed() };
    // ONSTACK: Rust gives threads an alternate stack, for faults on a stack that is used up.
    ours.sa_flags = libc::SA_SIGINFO | libc::SA_ONSTACK | libc::SA_RESTART;
    ours.sa_sigaction = handler as usize;
    // SAFETY: as above.
    let mut before: libc::sigaction = unsafe { std::mem::zeroed() };
    // SAFETY: a query into a struct of ours.
    if unsafe { libc::sigaction(libc::SIGBUS, ptr::null(), &mut before) } != 0 {
        return Err(io::Error::last_os_error());
    }
    // Leaked: the handler may read it as long as the process lives.
    PREVIOUS.store(Box::into_raw(Box::new(before)), Ordering::Release);
    // SAFETY: the mask in `ours` is empty and its handler is async-signal-safe (see the module documentation).
    if unsafe { libc::sigaction(libc::SIGBUS, &ours, ptr::null_mut()) } != 0 {
        return Err(io::Error::last_os_error());
    }
    *installed = true;
    Ok(())
}

extern "C" fn on_sigbus(signal: c_int, info: *mut libc::siginfo_t, context: *mut c_void) {
    // SAFETY: a thread's errno location is always valid.
    let errno = unsafe { libc::__errno_location() };
    // SAFETY: as above. Whoever was interrupted may be about to read it.
    let saved = unsafe { *errno };
    // SAFETY: with SA_SIGINFO the kernel passes a valid siginfo, and for SIGBUS it has an address.
    let address = unsafe { (*info).si_addr() } as usize;
    if !replace_mapping_at(address) {
        forward(signal, info, context);
    }
    // SAFETY: as above.
    unsafe { *errno = saved };
}

/// Maps zeros over the watched mapping that contains `address`; false if there is none, or if it cannot be done.
fn replace_mapping_at(address: usize) -> bool {
    // A thread that can fault in a mapping was handed it after its slot was filled in, so it sees slot and USED.
    for slot in &TABLE[..USED.load(Ordering::Relaxed)] {
        let Some((start, len)) = slot.range() else { continue };
        if address.wrapping_sub(start) >= len {
            continue;
        }
        slot.poisoned.store(true, Ordering::Relaxed);
        ANY_POISONED.store(true, Ordering::Release);
        // SAFETY: the faulting thread is accessing guest memory at `address` through a region that it keeps alive, and a
        // region is watched for no longer than it is mapped; so start..start+len is that region's mapping, which only
        // raw pointers with atomic accesses point into. Replacing its pages changes values, as the guest itself might.
        let mapped = unsafe {
            libc::mmap(
                start as *mut c_void,
                len,
                libc::PROT_READ | libc::PROT_WRITE,
                libc::MAP_PRIVATE | libc::MAP_ANONYMOUS | libc::MAP_NORESERVE | libc::MAP_FIXED,
                -1,
                0,
            )
        };
        return mapped != libc::MAP_FAILED;
    }
    false
}

/// Does with a fault that is not ours what would have been done without us.
fn forward(signal: c_int, info: *mut libc::siginfo_t, context: *mut c_void) {
    let previous = PREVIOUS.load(Ordering::Acquire);
    // SAFETY: null, or a leaked box that nobody changes.
    if let Some(previous) = unsafe { previous.as_ref() } {
        let handler = previous.sa_sigaction;
        if handler != libc::SIG_DFL && handler != libc::SIG_IGN {
            if previous.sa_flags & libc::SA_SIGINFO != 0 {
                // SAFETY: it was installed with SA_SIGINFO, so it is a function of this type.
                let handler: extern "C" fn(c_int, *mut libc::siginfo_t, *mut c_void) =
                    unsafe { std::mem::transmute(handler) };
                handler(signal, info, context);
            } else {
                // SAFETY: it was installed without SA_SIGINFO, so it is a function of this type.
                let handler: extern "C" fn(c_int) = unsafe { std::mem::transmute(handler) };
                handler(signal);
            }
            return;
        }
    }
    // The default action: with it in place the access faults again and ends the process. (A SIGBUS that is ignored is
    // not ignored by the kernel when an access raises it.)
    // SAFETY: all-zero bytes are a valid `struct sigaction`, SIG_DFL with an empty mask.
    let default: libc::sigaction = unsafe { std::mem::zeroed() };
    // SAFETY: a valid struct; the old action is not asked for. sigaction is async-signal-safe.
    unsafe { libc::sigaction(signal, &default, ptr::null_mut()) };
}

#[cfg(test)]
mod tests;
