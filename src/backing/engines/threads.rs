//! The engine of blocking calls: I/O threads that call the image's methods.
//!
//! A disk that hangs keeps the threads that wait for it. So one image gets only its share of them, and there may be as many as all images that have
//! something to do need, and one more: the others' operations go on.

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use super::Task;
use crate::backing::{BackingError, Completion, Image};
use crate::sys::fair::Fair;
use crate::sys::mailbox::Waker;
use crate::sys::pool::Pool;

type Operation = Task<Arc<dyn Image>>;

/// I/O threads of one port.
#[derive(Debug)]
pub(in crate::backing) struct ThreadEngine {
    pool: Pool,
    /// Threads that one image may have.
    share: usize,
    shared: Arc<Shared>,
    in_flight: usize,
}

#[derive(Debug)]
struct Shared {
    /// Not begun yet; its owners are images.
    waiting: Mutex<Fair<Operation>>,
    done: Mutex<Vec<Completion>>,
    waker: Arc<Waker>,
}

/// Tells images apart, while one of their operations lives.
fn name_of(task: &Operation) -> u64 {
    Arc::as_ptr(&task.image).cast::<()>().addr() as u64
}

/// No code that may panic runs under these locks.
fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

impl Shared {
    /// Does what may be done until there is nothing. One pool job is spawned per task, so there is one for each that may begin at once;
    /// one that may not is begun by whoever ends one of its image's.
    fn run(&self) {
        loop {
            // The guard is gone before the work begins.
            let next = lock(&self.waiting).take();
            let Some((name, task)) = next else { return };
            // Until the end is told, no other image may get its address.
            let image = Arc::clone(&task.image);
            let completion = task.run();
            lock(&self.waiting).ended(name);
            drop(image);
            lock(&self.done).push(completion);
            self.waker.wake();
        }
    }
}

impl ThreadEngine {
    /// `threads` threads for one image and another, half of them for each, more if there are more; started when needed. `waker` is woken for
    /// each operation that ends.
    pub(in crate::backing) fn new(threads: usize, waker: Arc<Waker>) -> ThreadEngine {
        let share = threads.div_ceil(2);
        let waiting = Mutex::new(Fair::new(share));
        ThreadEngine {
            share,
            pool: Pool::new(threads, "vstgt-io"),
            shared: Arc::new(Shared { waiting, done: Mutex::default(), waker }),
            in_flight: 0,
        }
    }

    pub(in crate::backing) fn submit(&mut self, task: Operation) {
        self.in_flight += 1;
        let images = lock(&self.shared.waiting).put(name_of(&task), task);
        self.pool.allow(self.share.saturating_mul(images + 1));
        let shared = Arc::clone(&self.shared);
        self.pool.spawn(Box::new(move || shared.run()));
    }

    /// Takes the tasks with one of these names, which are ascending, out of the queues if they have not begun.
    pub(in crate::backing) fn cancel(&mut self, cookies: &[u64]) {
        let named = |task: &Operation| task.without_effect() && cookies.binary_search(&task.cookie).is_ok();
        let cancelled = lock(&self.shared.waiting).remove(named);
        if !cancelled.is_empty() {
            let ended = cancelled.into_iter().map(|task| task.complete(Err(BackingError::Cancelled)));
            lock(&self.shared.done).extend(ended);
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
