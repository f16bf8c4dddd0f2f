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
    /// How many of them there may be.
    threads: usize,
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
        let pool = Pool { name: name.to_owned(), shared: Arc::default() };
        pool.allow(threads.max(1));
        pool
    }

    /// From now on there may be so many threads, unless there may be more already.
    pub fn allow(&self, threads: usize) {
        let mut state = self.shared.lock();
        state.threads = state.threads.max(threads);
    }

    /// Runs a job on one of the threads, as soon as one is free. Jobs begin in the order in which they were spawned.
    pub fn spawn(&self, job: Job) {
        let mut state = self.shared.lock();
        if state.stopping {
            drop(state);
            return run(job);
        }
        state.jobs.push_back(job);
        if state.idle >= state.jobs.len() || state.workers.len() >= state.threads {
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

#[cfg(test)]
mod tests {
    use super::*;
    use std::sync::atomic::{AtomicUsize, Ordering};
    use std::sync::mpsc;
    use std::time::Duration;

    const SOON: Duration = Duration::from_secs(20);

    /// A job that says that it has begun, and ends when the returned sender is dropped.
    fn blocker() -> (Job, mpsc::Receiver<()>, mpsc::Sender<()>) {
        let (begun, has_begun) = mpsc::channel();
        let (end, may_end) = mpsc::channel::<()>();
        let job = Box::new(move || {
            begun.send(()).unwrap();
            assert!(may_end.recv().is_err());
        });
        (job, has_begun, end)
    }

    fn workers(pool: &Pool) -> usize {
        pool.shared.lock().workers.len()
    }

    #[test]
    fn threads_start_when_needed_up_to_the_bound() {
        let pool = Pool::new(2, "test");
        assert_eq!(workers(&pool), 0);
        let (first, first_begun, first_end) = blocker();
        let (second, second_begun, second_end) = blocker();
        let (third, third_begun, third_end) = blocker();
        pool.spawn(first);
        first_begun.recv_timeout(SOON).unwrap();
        assert_eq!(workers(&pool), 1);
        pool.spawn(second);
        second_begun.recv_timeout(SOON).unwrap();
        assert_eq!(workers(&pool), 2);
        pool.spawn(third);
        assert_eq!(workers(&pool), 2);
        assert!(third_begun.recv_timeout(Duration::from_millis(20)).is_err());
        drop(first_end);
        third_begun.recv_timeout(SOON).unwrap();
        drop((second_end, third_end));
    }

    #[test]
    fn more_threads_can_be_allowed() {
        let pool = Pool::new(1, "test");
        let (first, first_begun, first_end) = blocker();
        pool.spawn(first);
        first_begun.recv_timeout(SOON).unwrap();
        pool.allow(2);
        pool.allow(1);
        let (second, second_begun, second_end) = blocker();
        pool.spawn(second);
        second_begun.recv_timeout(SOON).unwrap();
        assert_eq!(workers(&pool), 2);
        drop((first_end, second_end));
    }

    #[test]
    fn an_idle_thread_is_used_again() {
        let pool = Pool::new(8, "test");
        for _ in 0..50 {
            let (job, begun, end) = blocker();
            pool.spawn(job);
            begun.recv_timeout(SOON).unwrap();
            drop(end);
            // Until it sleeps.
            while pool.shared.lock().idle == 0 {
                std::thread::yield_now();
            }
        }
        assert_eq!(workers(&pool), 1);
    }

    #[test]
    fn shutdown_runs_what_was_spawned_and_joins() {
        let ran = Arc::new(AtomicUsize::new(0));
        let count = |ran: &Arc<AtomicUsize>| -> Job {
            let ran = Arc::clone(ran);
            Box::new(move || {
                ran.fetch_add(1, Ordering::SeqCst);
            })
        };
        let pool = Pool::new(3, "test");
        for _ in 0..1000 {
            pool.spawn(count(&ran));
        }
        pool.shutdown();
        assert_eq!(ran.load(Ordering::SeqCst), 1000);
        // The jobs and the threads that held the counter are gone.
        assert_eq!(Arc::strong_count(&ran), 1);
        // Nothing is lost afterwards, either.
        pool.spawn(count(&ran));
        assert_eq!(ran.load(Ordering::SeqCst), 1001);
    }

    #[test]
    fn a_job_that_panics_ends_the_process() {
        const INNER: &str = "VSTGT_TEST_PANICKING_JOB";
        if std::env::var_os(INNER).is_some() {
            Pool::new(1, "test").spawn(Box::new(|| panic!("on purpose")));
            std::thread::sleep(SOON);
            return;
        }
        let output = std::process::Command::new(std::env::current_exe().unwrap())
            .args(["--exact", "sys::pool::tests::a_job_that_panics_ends_the_process", "--nocapture"])
            .env(INNER, "1")
            .output()
            .unwrap();
        let signal = std::os::unix::process::ExitStatusExt::signal(&output.status);
        assert_eq!(signal, Some(libc::SIGABRT), "{output:?}");
    }
}
