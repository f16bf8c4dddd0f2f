//! Initiator ports whose connection is gone, and the time they have to come back.

use std::sync::{Arc, Condvar, Mutex, PoisonError, Weak};
use std::time::{Duration, Instant};

use super::initiator_port::InitiatorPort;

/// Initiator ports whose connection is gone, watched by one thread until they come back or their time is over.
pub struct Losses {
    timeout: Duration,
    state: Mutex<Watch>,
    changed: Condvar,
}

#[derive(Default)]
struct Watch {
    ports: Vec<Weak<InitiatorPort>>,
    stopping: bool,
}

impl Losses {
    /// Nothing is lost yet. `timeout` is how long a nexus waits for its initiator.
    pub(super) fn new(timeout: Duration) -> Arc<Losses> {
        Arc::new(Losses { timeout, state: Mutex::default(), changed: Condvar::new() })
    }

    /// When a nexus that is lost now is over; `None`: never.
    pub(super) fn deadline(&self) -> Option<Instant> {
        Instant::now().checked_add(self.timeout)
    }

    /// Watches a port until its nexus is over or somebody has started it again.
    pub(super) fn add(&self, port: &Arc<InitiatorPort>) {
        let mut watch = self.state.lock().unwrap_or_else(PoisonError::into_inner);
        if !watch.ports.iter().any(|p| p.ptr_eq(&Arc::downgrade(port))) {
            watch.ports.push(Arc::downgrade(port));
        }
        self.changed.notify_one();
    }

    /// Ends the watching thread.
    pub(super) fn stop(&self) {
        self.state.lock().unwrap_or_else(PoisonError::into_inner).stopping = true;
        self.changed.notify_one();
    }

    /// The watching thread. Sleeps without a timer while nothing is lost.
    pub(super) fn run(&self) {
        let mut watch = self.state.lock().unwrap_or_else(PoisonError::into_inner);
        while !watch.stopping {
            let ports = std::mem::take(&mut watch.ports);
            drop(watch);
            let now = Instant::now();
            let mut next: Option<Instant> = None;
            let mut kept = Vec::new();
            for port in ports {
                if let Some(at) = port.upgrade().and_then(|p| p.expire(now)) {
                    next = Some(next.map_or(at, |n| n.min(at)));
                    kept.push(port);
                }
            }
            watch = self.state.lock().unwrap_or_else(PoisonError::into_inner);
            let new_ones = !watch.ports.is_empty();
            for port in kept {
                if !watch.ports.iter().any(|p| p.ptr_eq(&port)) {
                    watch.ports.push(port);
                }
            }
            if new_ones || watch.stopping {
                continue;
            }
            watch = match next {
                None => self.changed.wait(watch).unwrap_or_else(PoisonError::into_inner),
                Some(at) => {
                    let pause = at.saturating_duration_since(Instant::now());
                    self.changed.wait_timeout(watch, pause).unwrap_or_else(PoisonError::into_inner).0
                }
            };
        }
    }
}
