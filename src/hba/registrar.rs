//! Guest memory is registered with the reactors' rings, bit by bit, beside everything else.
//!
//! A job makes a part of the memory be there, however long that takes, and then asks the reactor to register it, which is short work when it is. No more than
//! one such job is on its way for a connection and a reactor; when the memory changes, it begins again with what is there then. Nobody waits for it: what
//! is not registered is used by its address.

use std::io;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, Weak};
use std::thread;
use std::time::Duration;

use super::jobs::Jobs;
use super::letters::Letters;
use super::mail::{Mail, SessionId};
use crate::backing::MemoryBudget;
use crate::mem::{MemoryMap, Region, RegionPart};
use crate::sys::rate_limit::RateLimit;
use crate::target::Spawn;
use crate::tgt::ItnId;

/// How much is registered at a time: a reactor can be kept from its guests for so long. A transfer across the end of a part is done by address.
const PART: u64 = 16 << 20;

/// How often a part is tried again, and after what time.
const TRIES: u32 = 3;
const PAUSE: Duration = Duration::from_millis(50);

/// In whose name jobs do this: no nexus's. All connections together have a nexus's share of the threads.
const NOBODY: ItnId = ItnId::MAX;

/// What registers memory.
pub struct Registrar {
    letters: Arc<Letters>,
    jobs: Arc<Jobs>,
    budget: MemoryBudget,
    limit: RateLimit,
}

/// A connection's memory on one reactor.
pub struct Registration {
    registrar: Arc<Registrar>,
    session: SessionId,
    reactor: u8,
    label: Arc<str>,
    state: Mutex<State>,
}

#[derive(Default)]
struct State {
    /// What nobody has begun with.
    wanted: Option<Vec<Weak<Region>>>,
    /// A job is on its way.
    running: bool,
    /// The log says that not all is registered.
    told: bool,
}

/// Why there is no more to do.
enum Stop {
    /// The memory has changed, or the connection is over.
    Changed,
    /// There is no more to be had.
    Failed(io::Error),
}

impl Registrar {
    /// One that registers no more than `budget` has.
    pub fn new(letters: Arc<Letters>, jobs: Arc<Jobs>, budget: MemoryBudget) -> Registrar {
        Registrar { letters, jobs, budget, limit: RateLimit::per_peer() }
    }
}

impl Registration {
    /// For the memory of `session` on `reactor`, of which nothing is registered. `label` names it in the log.
    pub fn new(registrar: &Arc<Registrar>, session: SessionId, reactor: u8, label: Arc<str>) -> Arc<Registration> {
        let registrar = Arc::clone(registrar);
        Arc::new(Registration { registrar, session, reactor, label, state: Mutex::default() })
    }

    /// Registers what of `map` is not registered. The reactor has been given the map before.
    pub fn begin(self: &Arc<Self>, map: &MemoryMap) {
        let mut state = self.state();
        state.wanted = Some(map.regions().iter().map(Arc::downgrade).collect());
        if !std::mem::replace(&mut state.running, true) {
            let job = Arc::clone(self);
            self.registrar.jobs.spawn(NOBODY, Box::new(move || job.run()));
        }
    }

    /// No job runs anything that panics under the lock.
    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// What is wanted now; if nothing is, whoever wants something next begins anew.
    fn next(&self) -> Option<Vec<Weak<Region>>> {
        let mut state = self.state();
        let next = state.wanted.take();
        state.running = next.is_some();
        next
    }

    fn run(&self) {
        while let Some(regions) = self.next() {
            let mut done = 0;
            match regions.iter().try_for_each(|region| self.register(region, &mut done)) {
                Ok(()) => log::debug!(
                    "{}: {} KiB of memory are registered with reactor {}",
                    self.label,
                    done >> 10,
                    self.reactor
                ),
                Err(Stop::Changed) => {}
                Err(Stop::Failed(e)) => self.tell(done, &e),
            }
        }
    }

    /// Once: what comes later is of the same kind.
    fn tell(&self, done: u64, error: &io::Error) {
        if std::mem::replace(&mut self.state().told, true) {
            return;
        }
        let (label, reactor, why) = (&self.label, self.reactor, self.explain(error));
        self.registrar.limit.warn(format_args!(
            "{label}: {} KiB of guest memory are registered with reactor {reactor}, and no more: {why}",
            done >> 10
        ));
    }

    fn register(&self, region: &Weak<Region>, done: &mut u64) -> Result<(), Stop> {
        for index in 0.. {
            let region = region.upgrade().ok_or(Stop::Changed)?;
            let Some(part) = RegionPart::of(&region, index, PART) else { break };
            if self.state().wanted.is_some() {
                return Err(Stop::Changed);
            }
            let size = part.size();
            part.populate().map_err(Stop::Failed)?;
            drop(region);
            self.ask(&part)?;
            *done += size;
        }
        Ok(())
    }

    /// What was held before is let go of bit by bit: where there is no room now, there may be in a moment.
    fn ask(&self, part: &RegionPart) -> Result<(), Stop> {
        let mut tries = 0;
        loop {
            let ask = |reply| Mail::RegisterMemory { session: self.session, part: part.clone(), reply };
            let answer = self.registrar.letters.ask(self.reactor, "memory to be registered", ask).flatten();
            match answer.ok_or(Stop::Changed)? {
                Ok(()) => return Ok(()),
                Err(e) if tries == TRIES => return Err(Stop::Failed(e)),
                Err(_) => {
                    tries += 1;
                    thread::sleep(PAUSE);
                }
            }
        }
    }

    fn explain(&self, error: &io::Error) -> String {
        match error.raw_os_error() {
            Some(libc::ENOMEM) => format!("{error} (the limit of locked memory: ulimit -l, LimitMEMLOCK=)"),
            _ if error.kind() == io::ErrorKind::QuotaExceeded => {
                format!("{error} ({} KiB are left of --register-memory)", self.registrar.budget.left() >> 10)
            }
            _ => error.to_string(),
        }
    }
}
