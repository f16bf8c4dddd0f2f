//! Where work runs that outlasts the command which asked for it.
//!
//! A unit knows no threads: it is given something that has them, and hands it work. Whoever ends the process tells it to stop, and waits.

use std::io;

use crate::sys::background::Threads;

/// Runs long work.
pub trait Background: Send + Sync + std::fmt::Debug {
    /// Runs `work` at once, on a thread of its own.
    ///
    /// # Errors
    ///
    /// There is no thread to be had, or the process ends; `work` was dropped.
    fn start(&self, work: Box<dyn FnOnce() + Send>) -> io::Result<()>;

    /// The process ends: work is to return, and what it did not do is for the next one. To be asked at least every 1 MiB or 10 ms.
    fn stopping(&self) -> bool;
}

impl Background for Threads {
    fn start(&self, work: Box<dyn FnOnce() + Send>) -> io::Result<()> {
        Threads::start(self, work)
    }

    fn stopping(&self) -> bool {
        Threads::stopping(self)
    }
}

/// Runs nothing: for a unit that nobody gave anything better.
#[derive(Clone, Copy, Debug)]
pub struct NoBackground;

impl Background for NoBackground {
    fn start(&self, _work: Box<dyn FnOnce() + Send>) -> io::Result<()> {
        Err(io::ErrorKind::Unsupported.into())
    }

    fn stopping(&self) -> bool {
        false
    }
}
