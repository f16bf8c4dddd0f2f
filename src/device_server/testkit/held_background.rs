//! A background that holds all work until it is told to run it.

use std::io;
use std::sync::Mutex;
use std::sync::atomic::{AtomicBool, Ordering};

use crate::lu::Background;

/// Holds work.
#[derive(Default)]
pub struct HeldBackground {
    held: Mutex<Vec<Box<dyn FnOnce() + Send>>>,
    stopping: AtomicBool,
    full: AtomicBool,
}

impl std::fmt::Debug for HeldBackground {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{} held", self.len())
    }
}

impl HeldBackground {
    /// How much is held.
    pub fn len(&self) -> usize {
        self.held.lock().unwrap().len()
    }

    /// Runs the oldest.
    pub fn run(&self) {
        let work = self.held.lock().unwrap().remove(0);
        work();
    }

    /// Drops what is held: the process was killed.
    pub fn kill(&self) {
        self.held.lock().unwrap().clear();
    }

    /// The process ends from now on, or does not.
    pub fn set_stopping(&self, stopping: bool) {
        self.stopping.store(stopping, Ordering::Release);
    }

    /// There is no thread any more.
    pub fn refuse(&self) {
        self.full.store(true, Ordering::Release);
    }
}

impl Background for HeldBackground {
    fn start(&self, work: Box<dyn FnOnce() + Send>) -> io::Result<()> {
        if self.full.load(Ordering::Acquire) {
            return Err(io::ErrorKind::WouldBlock.into());
        }
        self.held.lock().unwrap().push(work);
        Ok(())
    }

    fn stopping(&self) -> bool {
        self.stopping.load(Ordering::Acquire)
    }
}
