//! Starting and stopping the reactors.

use std::io;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::mpsc::{Receiver, SyncSender, sync_channel};
use std::sync::{Arc, OnceLock};
use std::thread::JoinHandle;
use std::time::Duration;

use super::connection::Connection;
use super::initiator_port::{InitiatorPort, PortSetup};
use super::jobs::Jobs;
use super::letters::Letters;
use super::losses::Losses;
use super::mail::Mail;
use super::reactor::{Parts, Reactor};
use super::registrar::Registrar;
use crate::backing::{IoPort, MemoryBudget};
use crate::srp::PortId;
use crate::sys::event;
use crate::sys::mailbox::{Mailbox, Waker, mailbox};
use crate::sys::ring::Ring;
use crate::sys::turns::Turns;
use crate::sys::wait::{EpollWait, UringWait, Wait};
use crate::target::{Post, Shard, Spawn, Target};
use crate::tgt::{EventRings, HostNo, LogTap};
use crate::vhost_user::MakeDevice;
use crate::virtio_scsi::{MAX_RING_SIZE, OFFERED_FEATURES};

/// Entries of a reactor's io_uring: what may be submitted in one go. More is submitted in several.
const RING_ENTRIES: u32 = 1024;

/// Threads of a reactor for I/O that may wait and that its ring cannot do. They are started when needed; one disk gets half of
/// them, and there are more where there are more disks, so that slow ones do not hold up the others.
const IO_THREADS: usize = 16;

/// How reactors wait.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum WaitKind {
    /// With an io_uring, which also does the I/O.
    IoUring,
    /// With epoll; I/O is done by threads.
    Epoll,
}

/// A target port.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TargetPortSetup {
    /// Its name, from which its identifier is made.
    pub name: String,
    /// The host that it is.
    pub host_no: HostNo,
}

/// The two ports of a nexus to come.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct NexusPorts {
    /// The initiator port's name.
    pub initiator: String,
    /// The host that is the target port.
    pub host_no: HostNo,
}

/// What an [`Hba`] is made of.
pub struct HbaSetup {
    /// Number of reactors.
    pub reactors: u8,
    /// How they wait.
    pub wait: WaitKind,
    /// The target they are shards of; made for as many.
    pub target: Arc<Target>,
    /// The target ports, each a host.
    pub target_ports: Vec<TargetPortSetup>,
    /// Request queues that one connection may use.
    pub request_queues: u16,
    /// How long a nexus waits for its initiator to come back.
    pub nexus_loss_timeout: Duration,
    /// How long a reactor looks for work at most, before it sleeps.
    pub poll: Duration,
    /// How much guest memory, in bytes, may be registered with the reactors' rings; 0: none.
    pub register_memory: u64,
    /// Whether every event is logged.
    pub trace_events: bool,
}

/// Why reactors could not be started.
#[derive(Debug, thiserror::Error)]
pub enum HbaError {
    /// No eventfd, thread or io_uring was to be had.
    #[error("cannot start reactor {index}: {source}")]
    Reactor {
        /// Its number.
        index: u8,
        /// Why.
        source: io::Error,
    },
}

/// The running reactors.
pub struct Hba {
    letters: Arc<Letters>,
    losses: Arc<Losses>,
    jobs: Arc<Jobs>,
    registrar: Option<Arc<Registrar>>,
    turns: Arc<Turns>,
    threads: Vec<JoinHandle<()>>,
    watcher: Option<JoinHandle<()>>,
    ports: OnceLock<Vec<Arc<InitiatorPort>>>,
    target_ports: Arc<[TargetPortSetup]>,
    request_queues: u16,
}

impl Hba {
    /// Virtio features that its devices offer.
    pub const FEATURES: u64 = OFFERED_FEATURES;

    /// Starts the reactors and waits until each can do its work.
    pub fn start(setup: HbaSetup) -> Result<Hba, HbaError> {
        let fail = |index| move |source| HbaError::Reactor { index, source };
        let mut addresses = Vec::new();
        let mut boxes: Vec<Mailbox<Mail>> = Vec::new();
        for index in 0..setup.reactors {
            let (address, mailbox) = mailbox(Arc::new(Waker::new().map_err(fail(index))?));
            addresses.push(address);
            boxes.push(mailbox);
        }
        let letters = Arc::new(Letters::new(addresses));
        let jobs = Arc::new(Jobs::default());
        let turns = Arc::new(Turns::new(usize::from(setup.reactors)));
        let losses = Losses::new(setup.nexus_loss_timeout);
        let budget = (setup.register_memory > 0).then(|| MemoryBudget::new(setup.register_memory));
        let registrar = budget.clone().map(|budget| Registrar::new(Arc::clone(&letters), Arc::clone(&jobs), budget));
        let mut hba = Hba {
            letters: Arc::clone(&letters),
            losses: Arc::clone(&losses),
            jobs: Arc::clone(&jobs),
            turns: Arc::clone(&turns),
            threads: Vec::new(),
            watcher: None,
            registrar: registrar.map(Arc::new),
            ports: OnceLock::new(),
            target_ports: setup.target_ports.into(),
            request_queues: setup.request_queues,
        };
        for (index, mailbox) in (0..).zip(boxes) {
            let start = Start {
                index,
                mailbox,
                letters: Arc::clone(&letters),
                jobs: Arc::clone(&jobs),
                turns: Arc::clone(&turns),
                target: Arc::clone(&setup.target),
                target_ports: Arc::clone(&hba.target_ports),
                wait: setup.wait,
                poll: setup.poll,
                budget: budget.clone(),
                trace_events: setup.trace_events,
            };
            let (ready, started) = sync_channel(1);
            let thread = std::thread::Builder::new()
                .name(format!("vstgt-reactor{index}"))
                .spawn(move || start.run(&ready))
                .map_err(fail(index))?;
            hba.threads.push(thread);
            match started.recv() {
                Ok(Ok(())) => {}
                Ok(Err(e)) => return Err(fail(index)(e)),
                Err(_) => return Err(fail(index)(io::Error::other("the thread ended"))),
            }
        }
        let watch = Arc::clone(&losses);
        let watcher = std::thread::Builder::new().name("vstgt-losses".into()).spawn(move || watch.run());
        hba.watcher = Some(watcher.map_err(fail(0))?);
        Ok(hba)
    }

    /// Makes the initiator ports, one for each nexus, dealt out over the reactors. A login to a host that is no target port's will be
    /// rejected.
    pub fn add_ports(&self, nexuses: &[NexusPorts]) -> Vec<Arc<InitiatorPort>> {
        let ports: Vec<_> = (0u16..)
            .zip(nexuses)
            .map(|(number, NexusPorts { initiator, host_no })| {
                let target_port = self.target_ports.iter().find(|port| port.host_no == *host_no);
                let setup = PortSetup {
                    name: initiator.clone(),
                    number,
                    host_no: *host_no,
                    target_port: target_port.map(|port| port.name.clone()).unwrap_or_default(),
                    max_cmds: u32::from(self.request_queues) * u32::from(MAX_RING_SIZE),
                    home: (number % u16::from(self.letters.reactors())) as u8,
                };
                InitiatorPort::new(setup, Arc::clone(&self.letters), Arc::clone(&self.losses))
            })
            .collect();
        self.ports.get_or_init(|| ports).clone()
    }

    /// What makes the devices behind the connections of `port`.
    pub fn connect(&self, port: Arc<InitiatorPort>) -> MakeDevice {
        let (letters, registrar, request_queues) =
            (Arc::clone(&self.letters), self.registrar.clone(), self.request_queues);
        Box::new(move || {
            Box::new(Connection::new(Arc::clone(&port), Arc::clone(&letters), registrar.clone(), request_queues))
        })
    }

    /// The reactors' turns: a response to a guest is there once the turn has passed in which it was decided.
    pub fn turns(&self) -> Arc<Turns> {
        Arc::clone(&self.turns)
    }

    /// What asks each reactor whether it is alive: it posts a letter to each, which wakes those that sleep, and gives back what their
    /// answers come by.
    pub fn pings(&self) -> impl Fn() -> Vec<Receiver<()>> + Send + use<> {
        let letters = Arc::clone(&self.letters);
        move || {
            let ping = |reactor| {
                let (reply, answer) = sync_channel(1);
                letters.send(reactor, Mail::Ping(reply));
                answer
            };
            (0..letters.reactors()).map(ping).collect()
        }
    }

    /// From now on a nexus is not lost whose connection is gone: it is the process that ends.
    pub fn keep_nexuses(&self) {
        self.losses.stop();
    }

    /// Ends all nexuses, then the reactors. To be called when no session is left: a reactor ends only when it has no rings.
    pub fn stop(mut self) {
        self.losses.stop();
        for port in self.ports.get().into_iter().flatten() {
            port.shut_down();
        }
        self.tell_to_stop();
        for thread in self.threads.drain(..).chain(self.watcher.take()) {
            if thread.join().is_err() {
                log::error!("a thread ended in a panic");
            }
        }
        self.jobs.shutdown();
    }

    fn tell_to_stop(&self) {
        for reactor in 0..self.letters.reactors() {
            self.letters.send(reactor, Mail::Stop);
        }
    }
}

impl Drop for Hba {
    /// Lets the threads end when they can, without waiting for them; after [`Hba::stop`] there are none.
    fn drop(&mut self) {
        if !self.threads.is_empty() {
            self.losses.stop();
            self.tell_to_stop();
        }
    }
}

/// What a reactor thread begins with.
struct Start {
    index: u8,
    mailbox: Mailbox<Mail>,
    letters: Arc<Letters>,
    jobs: Arc<Jobs>,
    turns: Arc<Turns>,
    target: Arc<Target>,
    target_ports: Arc<[TargetPortSetup]>,
    wait: WaitKind,
    poll: Duration,
    budget: Option<MemoryBudget>,
    trace_events: bool,
}

impl Start {
    fn run(self, ready: &SyncSender<io::Result<()>>) {
        event::prepare();
        let tell = |result| {
            if ready.send(result).is_err() {
                log::error!("nobody waits for a reactor to start");
            }
        };
        match self.reactor() {
            Ok(reactor) => {
                tell(Ok(()));
                if catch_unwind(AssertUnwindSafe(|| reactor.run())).is_err() {
                    // Guests and other reactors would wait for ever for one that is gone.
                    log::error!("a reactor panicked");
                    std::process::abort();
                }
            }
            Err(e) => tell(Err(e)),
        }
    }

    fn reactor(self) -> io::Result<Reactor> {
        let (ring, wait): (Option<Ring>, Box<dyn Wait>) = match self.wait {
            WaitKind::IoUring => {
                let make = if self.budget.is_some() { Ring::fixing_memory } else { Ring::new };
                let ring = make(RING_ENTRIES)?;
                (Some(ring.clone()), Box::new(UringWait::new(ring)?))
            }
            WaitKind::Epoll => (None, Box::new(EpollWait::new()?)),
        };
        let io = IoPort::new(ring, Arc::clone(self.mailbox.waker()), IO_THREADS, self.budget.unwrap_or_default());
        let post: Arc<dyn Post> = Arc::clone(&self.letters) as Arc<dyn Post>;
        let shard = Shard::new(self.index, self.target, post, self.jobs as Arc<dyn Spawn>);
        let mut rings = EventRings::new();
        if self.trace_events {
            rings.set_tap(Some(Box::new(LogTap { reactor: self.index })));
        }
        let (index, turns, mailbox, post) = (self.index, self.turns, self.mailbox, self.letters);
        let ports = self.target_ports.iter().map(|port| (port.host_no, PortId::of_target(&port.name))).collect();
        Reactor::new(Parts { index, wait, turns, mailbox, post, io, shard, rings, ports, poll: self.poll })
    }
}
