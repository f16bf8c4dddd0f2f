//! Threads for work that takes long: one for each piece of work, until it is done or the process ends.

use std::io;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::thread::{Builder, JoinHandle};

/// The threads. Work that panics ends the process: nobody would ever hear of its result.
#[derive(Debug)]
pub struct Threads {
    name: String,
    stopping: AtomicBool,
    running: Mutex<Vec<JoinHandle<()>>>,
}

impl Threads {
    /// No thread yet; `name` shows in thread lists.
    pub fn new(name: &str) -> Threads {
        Threads { name: name.to_owned(), stopping: AtomicBool::new(false), running: Mutex::default() }
    }

    /// Runs `work` at once, on a thread of its own.
    ///
    /// # Errors
    ///
    /// There is no thread to be had, or [`Threads::stop`] was called; `work` was dropped.
    pub fn start(&self, work: Box<dyn FnOnce() + Send>) -> io::Result<()> {
        let mut running = self.running();
        // Under the lock, so that `stop` misses none.
        if self.stopping() {
            return Err(io::Error::other("the process ends"));
        }
        running.retain(|thread| !thread.is_finished());
        let thread = Builder::new().name(self.name.clone()).spawn(move || {
            if catch_unwind(AssertUnwindSafe(work)).is_err() {
                log::error!("background work panicked");
                std::process::abort();
            }
        })?;
        running.push(thread);
        Ok(())
    }

    /// Whether work is to come to its end soon, done or not.
    pub fn stopping(&self) -> bool {
        self.stopping.load(Ordering::Acquire)
    }

    /// Lets work come to its end, and waits for it. No more is started.
    pub fn stop(&self) {
        let running = {
            let mut running = self.running();
            self.stopping.store(true, Ordering::Release);
            std::mem::take(&mut *running)
        };
        for thread in running {
            // It cannot have panicked: that ends the process first.
            if thread.join().is_err() {
                std::process::abort();
            }
        }
    }

    fn running(&self) -> MutexGuard<'_, Vec<JoinHandle<()>>> {
        // No work runs under the lock, so no panic can have left the list half changed.
        self.running.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::sync::Arc;
    use std::sync::mpsc::channel;

    #[test]
    fn work_runs_side_by_side_and_ends_when_it_is_told_to() {
        let threads = Arc::new(Threads::new("test"));
        let (began, begun) = channel();
        for n in 0..3 {
            let (threads_too, began) = (Arc::clone(&threads), began.clone());
            let work = move || {
                began.send(n).unwrap();
                while !threads_too.stopping() {
                    std::thread::yield_now();
                }
                began.send(n + 10).unwrap();
            };
            threads.start(Box::new(work)).unwrap();
        }
        let mut seen: Vec<i32> = (0..3).map(|_| begun.recv().unwrap()).collect();
        seen.sort_unstable();
        assert_eq!(seen, [0, 1, 2], "all have begun, none has ended");
        threads.stop();
        let mut ended: Vec<i32> = begun.try_iter().collect();
        ended.sort_unstable();
        assert_eq!(ended, [10, 11, 12], "stop waits for all of them");
        assert!(threads.start(Box::new(|| panic!("nobody runs this"))).is_err());
    }

    #[test]
    fn what_is_done_is_forgotten() {
        let threads = Threads::new("test");
        for _ in 0..100 {
            let (done, wait) = channel();
            threads.start(Box::new(move || done.send(()).unwrap())).unwrap();
            wait.recv().unwrap();
        }
        while threads.running().iter().any(|thread| !thread.is_finished()) {
            std::thread::yield_now();
        }
        threads.start(Box::new(|| ())).unwrap();
        assert_eq!(threads.running().len(), 1);
        threads.stop();
    }
}
