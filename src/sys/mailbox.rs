//! A mailbox: many senders, one receiver that sleeps in its wait set.

use std::io;
use std::os::fd::{AsFd, BorrowedFd};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::mpsc;

use vmm_sys_util::eventfd::{EFD_CLOEXEC, EFD_NONBLOCK, EventFd};

use super::drowse::Drowse;

/// Wakes a sleeping receiver. Cheap when it is awake: one load.
#[derive(Debug)]
pub struct Waker {
    event: EventFd,
    drowse: Drowse,
}

impl Waker {
    /// A waker whose receiver is awake.
    pub fn new() -> io::Result<Waker> {
        Ok(Waker { event: EventFd::new(EFD_NONBLOCK | EFD_CLOEXEC)?, drowse: Drowse::new() })
    }

    /// Called after something was put where the receiver looks: wakes it if it sleeps or is about to.
    pub fn wake(&self) {
        if self.drowse.must_wake() {
            // An eventfd counter that is full (EAGAIN) is readable, which is all we want.
            if let Err(e) = self.event.write(1) {
                log::trace!("wake-up not written: {e}");
            }
        }
    }

    /// Called by the receiver before its last look at what it waits for; after that look it may sleep on the fd.
    pub fn prepare_sleep(&self) {
        self.drowse.fall_asleep();
    }

    /// Called by the receiver when it is awake again: senders need not write any more.
    pub fn awake(&self) {
        self.drowse.awake();
    }

    /// Empties the eventfd so that it can be waited for again.
    pub fn drain(&self) {
        if let Err(e) = self.event.read() {
            log::trace!("wake-up already taken: {e}");
        }
    }
}

impl AsFd for Waker {
    fn as_fd(&self) -> BorrowedFd<'_> {
        use std::os::fd::AsRawFd;
        // The fd lives as long as `self`.
        #[allow(unsafe_code, reason = "EventFd has no AsFd in this version of vmm-sys-util")]
        // SAFETY: the descriptor is open and owned by `self.event` for the borrow's lifetime.
        unsafe {
            BorrowedFd::borrow_raw(self.event.as_raw_fd())
        }
    }
}

/// How many letters there have been. By itself on a cache line, which its receiver looks at all the time.
#[derive(Debug, Default)]
#[repr(align(128))]
struct Count(AtomicU64);

/// The sending end; clone it freely.
#[derive(Debug)]
pub struct Address<T> {
    sender: mpsc::Sender<T>,
    posted: Arc<Count>,
    waker: Arc<Waker>,
}

impl<T> Clone for Address<T> {
    fn clone(&self) -> Self {
        Address { sender: self.sender.clone(), posted: Arc::clone(&self.posted), waker: Arc::clone(&self.waker) }
    }
}

impl<T> Address<T> {
    /// Puts a letter into the box and wakes its owner. `Err` gives the letter back: the owner is gone.
    pub fn post(&self, letter: T) -> Result<(), T> {
        self.sender.send(letter).map_err(|e| e.0)?;
        // After the letter: so many are there to be taken at least.
        self.posted.0.fetch_add(1, Ordering::Release);
        self.waker.wake();
        Ok(())
    }
}

/// The receiving end.
#[derive(Debug)]
pub struct Mailbox<T> {
    receiver: mpsc::Receiver<T>,
    posted: Arc<Count>,
    taken: u64,
    waker: Arc<Waker>,
}

/// A new mailbox and the first sending end; the waker may be shared by several boxes of one owner.
pub fn mailbox<T>(waker: Arc<Waker>) -> (Address<T>, Mailbox<T>) {
    let (sender, receiver) = mpsc::channel();
    let posted = Arc::new(Count::default());
    (
        Address { sender, posted: Arc::clone(&posted), waker: Arc::clone(&waker) },
        Mailbox { receiver, posted, taken: 0, waker },
    )
}

impl<T> Mailbox<T> {
    /// The next letter, if there is one; letters of one sender come in the order they were posted. If there is none it costs a load, where the channel
    /// itself would take a full fence.
    pub fn take(&mut self) -> Option<T> {
        if self.posted.0.load(Ordering::Acquire) == self.taken {
            return None;
        }
        let letter = self.receiver.try_recv().ok()?;
        self.taken += 1;
        Some(letter)
    }

    /// The waker that senders use.
    pub fn waker(&self) -> &Arc<Waker> {
        &self.waker
    }
}
