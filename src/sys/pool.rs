//! A bounded number of worker threads for work that may block.
//!
//! # Contract
//!
//! Every job that is spawned runs exactly once. Threads are started when there is work and none is idle, up to the bound; idle ones
//! sleep. Where there is no thread to run a job (none could be started, or the pool was shut down) it runs on the caller's. A job that panics ends the process:
//! nobody would ever hear of its result.

use std::collections::VecDeque;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::thread::{Builder, JoinHandle};

/// A piece of work.
pub type Job = Box<dyn FnOnce() + Send>;

/// The worker threads. Dropping it runs what was spawned and joins the threads.
#[derive(Debug)]
pub struct Pool {
    name: String,
    threads: usize,
    shared: Arc<Shared>,
}

#[derive(Debug, Default)]
struct Shared {
    state: Mutex<State>,
    work: Condvar,
}

#[derive(Default)]
struct State {
    jobs: VecDeque<Job>,
    idle: usize,
    workers: Vec<JoinHandle<()>>,
    stopping: bool,
}

impl std::fmt::Debug for State {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("State").field("jobs", &self.jobs.len()).field("idle", &self.idle).finish_non_exhaustive()
    }
}

impl Shared {
    fn lock(&self) -> MutexGuard<'_, State> {
        // No job runs under the lock, so no panic can have left the state half changed.
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Pool {
    /// A pool of at most `threads` threads (at least one), none of them started yet; `name` shows in thread lists.
    pub fn new(threads: usize, name: &str) -> Pool {
        Pool { name: name.to_owned(), threads: threads.max(1), shared: Arc::default() }
    }

    /// Runs a job on one of the threads, as soon as one is free. Jobs begin in the order in which they were spawned.
    pub fn spawn(&self, job: Job) {
        let mut state = self.shared.lock();
        if state.stopping {
            drop(state);
            return run(job);
        }
        state.jobs.push_back(job);
        if state.idle >= state.jobs.len() || state.workers.len() >= self.threads {
            drop(state);
            self.shared.work.notify_one();
            return;
        }
        let shared = Arc::clone(&self.shared);
        match Builder::new().name(self.name.clone()).spawn(move || work(&shared)) {
            Ok(worker) => state.workers.push(worker),
            Err(e) if state.workers.is_empty() => {
                log::error!("no thread for {}: {e}", self.name);
                // No worker and no thread to be had: the queue holds this job only.
                while let Some(job) = state.jobs.pop_front() {
                    drop(state);
                    run(job);
                    state = self.shared.lock();
                }
            }
            Err(e) => log::warn!("no further thread for {}: {e}", self.name),
        }
    }

    /// Waits until all jobs have run, and ends the threads.
    pub fn shutdown(&self) {
        let workers = {
            let mut state = self.shared.lock();
            state.stopping = true;
            std::mem::take(&mut state.workers)
        };
        self.shared.work.notify_all();
        for worker in workers {
            // A worker cannot have panicked: `run` ends the process first.
            if worker.join().is_err() {
                std::process::abort();
            }
        }
    }
}

impl Drop for Pool {
    fn drop(&mut self) {
        self.shutdown();
    }
}

fn work(shared: &Shared) {
    let mut state = shared.lock();
    loop {
        if let Some(job) = state.jobs.pop_front() {
            drop(state);
            run(job);
            state = shared.lock();
        } else if state.stopping {
            return;
        } else {
            state.idle += 1;
            state = shared.work.wait(state).unwrap_or_else(PoisonError::into_inner);
            state.idle -= 1;
        }
    }
}

fn run(job: Job) {
    if catch_unwind(AssertUnwindSafe(job)).is_err() {
        log::error!("a job panicked");
        std::process::abort();
    }
}
