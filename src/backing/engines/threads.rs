//! The engine of blocking calls: I/O threads that call the image's methods.

use std::collections::VecDeque;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use super::Task;
use crate::backing::{BackingError, Completion, Image};
use crate::sys::mailbox::Waker;
use crate::sys::pool::Pool;

/// I/O threads of one port.
#[derive(Debug)]
pub(in crate::backing) struct ThreadEngine {
    pool: Pool,
    shared: Arc<Shared>,
    in_flight: usize,
}

#[derive(Debug)]
struct Shared {
    /// Not begun yet. One pool job is spawned per task, and takes the first that is there.
    waiting: Mutex<VecDeque<Task<Arc<dyn Image>>>>,
    done: Mutex<Vec<Completion>>,
    waker: Arc<Waker>,
}

/// No code that may panic runs under these locks.
fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

impl Shared {
    fn run_one(&self) {
        // None: it was cancelled.
        let Some(task) = lock(&self.waiting).pop_front() else { return };
        let completion = task.run();
        lock(&self.done).push(completion);
        self.waker.wake();
    }
}

impl ThreadEngine {
    /// At most `threads` threads, started when needed; `waker` is woken for each operation that ends.
    pub(in crate::backing) fn new(threads: usize, waker: Arc<Waker>) -> ThreadEngine {
        ThreadEngine {
            pool: Pool::new(threads, "vstgt-io"),
            shared: Arc::new(Shared { waiting: Mutex::default(), done: Mutex::default(), waker }),
            in_flight: 0,
        }
    }

    pub(in crate::backing) fn submit(&mut self, task: Task<Arc<dyn Image>>) {
        self.in_flight += 1;
        lock(&self.shared.waiting).push_back(task);
        let shared = Arc::clone(&self.shared);
        self.pool.spawn(Box::new(move || shared.run_one()));
    }

    /// Takes the tasks with one of these names, which are ascending, out of the queue if they have not begun.
    pub(in crate::backing) fn cancel(&mut self, cookies: &[u64]) {
        let mut cancelled = Vec::new();
        {
            let mut waiting = lock(&self.shared.waiting);
            // Once around: what stays keeps its order.
            for _ in 0..waiting.len() {
                match waiting.pop_front() {
                    Some(task) if task.without_effect() && cookies.binary_search(&task.cookie).is_ok() => {
                        cancelled.push(task.complete(Err(BackingError::Cancelled)));
                    }
                    Some(task) => waiting.push_back(task),
                    None => break,
                }
            }
        }
        if !cancelled.is_empty() {
            lock(&self.shared.done).append(&mut cancelled);
            self.shared.waker.wake();
        }
    }

    /// Whether `reap` has something to give.
    pub(in crate::backing) fn has_ended(&self) -> bool {
        self.in_flight > 0 && !lock(&self.shared.done).is_empty()
    }

    /// Appends what has ended.
    pub(in crate::backing) fn reap(&mut self, out: &mut Vec<Completion>) {
        if self.in_flight == 0 {
            return;
        }
        let mut done = lock(&self.shared.done);
        self.in_flight -= done.len();
        out.append(&mut done);
    }

    /// Waits until everything has ended; nothing can be submitted any more.
    pub(in crate::backing) fn shutdown(&mut self) {
        self.pool.shutdown();
    }
}
