//! Threads for jobs: commands of several steps, and what else takes long.
//!
//! Each owner has a share of the threads: one guest's VERIFYs of its whole disk, as many as it likes, keep nobody else's jobs waiting.

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use crate::sys::fair::Fair;
use crate::sys::pool::{Job, Pool};
use crate::target::Spawn;
use crate::tgt::ItnId;

/// Threads for jobs: commands of several steps. Started when needed.
const JOB_THREADS: usize = 16;

/// How many of them one nexus may keep: a VERIFY of a whole disk takes as long as it takes.
const JOB_SHARE: usize = 4;

/// The jobs of one [`Hba`](super::Hba).
pub struct Jobs {
    pool: Pool,
    share: usize,
    waiting: Arc<Mutex<Fair<Job>>>,
}

impl Default for Jobs {
    fn default() -> Jobs {
        Jobs::new(JOB_THREADS, JOB_SHARE)
    }
}

impl Jobs {
    fn new(threads: usize, share: usize) -> Jobs {
        Jobs { pool: Pool::new(threads, "vstgt-job"), share, waiting: Arc::new(Mutex::new(Fair::new(share))) }
    }

    /// Waits for the jobs that run, and ends the threads.
    pub fn shutdown(&self) {
        self.pool.shutdown();
    }
}

/// No job runs under the lock, so no panic can have left the queue half changed.
fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

impl Spawn for Jobs {
    fn spawn(&self, owner: ItnId, work: Job) {
        let owners = lock(&self.waiting).put(owner, work);
        // However many of them hang, there is to be a share for another one.
        self.pool.allow(self.share.saturating_mul(owners + 1));
        let waiting = Arc::clone(&self.waiting);
        // One for each job that may begin at once; one that may not is begun by whoever ends one of its owner's.
        self.pool.spawn(Box::new(move || {
            loop {
                let next = lock(&waiting).take();
                let Some((owner, work)) = next else { return };
                work();
                lock(&waiting).ended(owner);
            }
        }));
    }
}

#[cfg(test)]
mod tests {
    use std::sync::mpsc::channel;
    use std::time::Duration;

    use super::*;

    /// One guest's VERIFYs of its whole disk, as many as it likes, keep nobody else's jobs waiting.
    #[test]
    fn a_nexus_cannot_keep_all_job_threads() {
        let jobs = Jobs::new(3, 2);
        let (begun, begins) = channel();
        let gates: Vec<_> = (0..10)
            .map(|_| {
                let (open, opened) = channel::<()>();
                let begun = begun.clone();
                jobs.spawn(
                    1,
                    Box::new(move || {
                        begun.send(1).unwrap();
                        opened.recv().unwrap();
                    }),
                );
                open
            })
            .collect();
        let bound = Duration::from_secs(20);
        assert_eq!([1, 2].map(|_| begins.recv_timeout(bound).unwrap()), [1, 1]);
        let other = begun.clone();
        jobs.spawn(2, Box::new(move || other.send(2).unwrap()));
        assert_eq!(begins.recv_timeout(bound), Ok(2));
        gates.iter().for_each(|gate| gate.send(()).unwrap());
        jobs.shutdown();
        assert_eq!(begins.try_iter().count(), 8);
    }
}
