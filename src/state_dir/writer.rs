//! The thread that writes what changed and need not be written at once.

use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, OnceLock};
use std::thread::{JoinHandle, Thread};
use std::time::{Duration, Instant};

use super::file::UnitFile;
use super::{StateDir, StateError};
use crate::lu::{KeepError, Lu};
use crate::sys::rate_limit::RateLimit;
use crate::sys::turns::Turns;

/// What is at least between two rounds of writing: a guest that makes changes without end costs so many writes and no more.
const PAUSE: Duration = Duration::from_millis(10);

/// When to try again what could not be written.
const RETRY: Duration = Duration::from_secs(1);

/// Wakes the writer. It neither waits nor locks.
#[derive(Debug, Default)]
pub(super) struct Bell(OnceLock<Thread>);

impl Bell {
    /// The writer will look, even if it had just looked.
    pub(super) fn ring(&self) {
        if let Some(thread) = self.0.get() {
            thread.unpark();
        }
    }
}

/// A unit and the file it is kept in.
#[derive(Clone, Debug)]
pub struct KeptUnit {
    /// The unit.
    pub lu: Arc<Lu>,
    /// Its keeper.
    pub file: Arc<UnitFile>,
}

/// The running thread.
#[derive(Debug)]
pub struct Writer {
    units: Vec<KeptUnit>,
    stopping: Arc<AtomicBool>,
    thread: JoinHandle<()>,
}

impl Writer {
    /// Writes each unit's state once, then starts the thread. Nexuses that have not come after `loss_timeout` are lost.
    ///
    /// # Errors
    ///
    /// A state cannot be written, or there is no thread.
    pub fn start(
        dir: &StateDir,
        units: Vec<KeptUnit>,
        turns: &Arc<Turns>,
        loss_timeout: Duration,
    ) -> Result<Writer, StateError> {
        for unit in &units {
            unit.file.set_turns(turns);
            unit.lu.persist()?;
        }
        let stopping = Arc::new(AtomicBool::new(false));
        let work = Work {
            units: units.iter().map(|unit| (unit.clone(), None)).collect(),
            awaited_until: Instant::now().checked_add(loss_timeout),
            limit: RateLimit::per_peer(),
        };
        let (stop, bell) = (Arc::clone(&stopping), dir.bell());
        let thread = std::thread::Builder::new()
            .name("vstgt-state".into())
            .spawn(move || {
                // Set once: a directory has one writer.
                bell.0.get_or_init(std::thread::current);
                work.run(&stop);
            })
            .map_err(StateError::Thread)?;
        Ok(Writer { units, stopping, thread })
    }

    /// The last time that state is written, it is for another process, perhaps on another host: its guests have migrated.
    pub fn hand_over(self) {
        self.units.iter().for_each(|unit| unit.file.hand_over());
        self.stop();
    }

    /// Ends the thread and writes all state for the last time. Whatever becomes of nexuses after this is not kept.
    pub fn stop(self) {
        self.stopping.store(true, Ordering::Release);
        self.thread.thread().unpark();
        if self.thread.join().is_err() {
            log::error!("the thread that keeps state ended in a panic");
        }
        for unit in &self.units {
            if let Err(e) = unit.lu.close() {
                log::error!("{e}; the state before is the one that is kept");
            }
        }
    }
}

struct Work {
    /// Each with the time before which it is not tried again.
    units: Vec<(KeptUnit, Option<Instant>)>,
    /// When nexuses are lost that have not come.
    awaited_until: Option<Instant>,
    limit: RateLimit,
}

impl Work {
    fn run(mut self, stop: &AtomicBool) {
        while !stop.load(Ordering::Acquire) {
            let now = Instant::now();
            if self.awaited_until.is_some_and(|until| until <= now) {
                self.awaited_until = None;
                self.lose_awaited();
            }
            if self.write(now) {
                std::thread::sleep(PAUSE);
                continue;
            }
            let next = self.units.iter().filter_map(|(_, again)| *again).chain(self.awaited_until).min();
            match next {
                Some(at) => std::thread::park_timeout(at.saturating_duration_since(Instant::now())),
                None => std::thread::park(),
            }
        }
    }

    /// Writes what changed; true if anything had.
    fn write(&mut self, now: Instant) -> bool {
        let mut any = false;
        for (unit, again) in &mut self.units {
            if again.is_some_and(|at| now < at) {
                continue;
            }
            *again = None;
            if !unit.file.take_changed() {
                continue;
            }
            any = true;
            match unit.lu.persist() {
                Ok(()) | Err(KeepError::Closed) => {}
                Err(e) => {
                    self.limit.warn(format_args!("{e}; tried again"));
                    *again = now.checked_add(RETRY);
                }
            }
        }
        any
    }

    fn lose_awaited(&self) {
        for (unit, _) in &self.units {
            let lost = unit.lu.lose_awaited();
            if !lost.is_empty() {
                let path = unit.file.path().display();
                log::info!("{path}: {} nexuses did not come back within the nexus loss time", lost.len());
            }
        }
    }
}
