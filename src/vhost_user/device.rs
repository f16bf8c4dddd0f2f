//! What a session asks of the device behind it.

use std::fs::File;
use std::net::Shutdown;
use std::os::unix::net::UnixStream;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, OnceLock};

use super::InflightRing;
use crate::mem::{DirtyLog, MemoryMap, UsedRingLog};
use crate::sys::unix_socket;

/// Ends a connection from the device's side: what is left to do when the front-end's memory turns out to be broken.
///
/// The session thread then sees the end of the stream, calls [`Device::disconnected`] and logs the reason. From any thread.
#[derive(Clone, Debug)]
pub struct Hangup {
    stream: Arc<UnixStream>,
    reason: Arc<OnceLock<String>>,
    established: Arc<AtomicBool>,
}

impl Hangup {
    /// For the connection over `stream`.
    pub fn new(stream: UnixStream) -> Hangup {
        Hangup { stream: Arc::new(stream), reason: Arc::default(), established: Arc::default() }
    }

    /// Ends the connection. Only the first reason counts. Does not wait.
    pub fn hang_up(&self, reason: impl Into<String>) {
        // A second reason is not kept.
        self.reason.get_or_init(|| reason.into());
        self.shut_down();
    }

    /// Why the connection was ended from this side, if it was.
    pub fn reason(&self) -> Option<&str> {
        self.reason.get().map(String::as_str)
    }

    /// Whether the connection is over, be it from the other side, even if its session has not noticed yet. Does not wait.
    pub fn is_over(&self) -> bool {
        unix_socket::peer_has_closed(&self.stream)
    }

    /// The front-end has said which features it uses: it means it.
    pub(super) fn establish(&self) {
        self.established.store(true, Ordering::Relaxed);
    }

    /// Whether it has.
    pub(super) fn is_established(&self) -> bool {
        self.established.load(Ordering::Relaxed)
    }

    pub(super) fn shut_down(&self) {
        if let Err(error) = self.stream.shutdown(Shutdown::Both) {
            log::trace!("connection was over already: {error}");
        }
    }

    /// Takes no more messages: those that came already are still answered, then the connection ends.
    pub(super) fn shut_reading(&self) {
        if let Err(error) = self.stream.shutdown(Shutdown::Read) {
            log::trace!("connection was over already: {error}");
        }
    }

    pub(super) fn stream(&self) -> &UnixStream {
        &self.stream
    }
}

/// A vring, set up, ready to run.
#[derive(Debug)]
pub struct RingConfig {
    /// Ring index on the wire: 0 control, 1 event, 2… request queues.
    pub index: u16,
    /// Number of descriptors; a power of two, 1…1024.
    pub size: u16,
    /// Guest physical address of the descriptor table; 16-byte aligned and mapped.
    pub desc: u64,
    /// Guest physical address of the available ring; 2-byte aligned and mapped.
    pub avail: u64,
    /// Guest physical address of the used ring; 4-byte aligned and mapped.
    pub used: u64,
    /// Index of the next available entry to take.
    pub next_avail: u16,
    /// Index of the next used entry to publish.
    pub next_used: u16,
    /// Whether VIRTIO_RING_F_EVENT_IDX was negotiated.
    pub event_idx: bool,
    /// How its used ring is logged; `None`: it is not.
    pub used_log: Option<UsedRingLog>,
    /// The front-end's kick, an eventfd; `None`: it will never kick, poll (not used by QEMU). It may have been kicked before,
    /// on another eventfd: look at the available ring when the ring starts.
    ///
    /// All three are eventfds (see [`event`](crate::sys::event)) made non-blocking; but the front-end shares them, and can make them
    /// block again.
    pub kick: Option<File>,
    /// How to interrupt the guest, an eventfd; `None`: it polls.
    pub call: Option<File>,
    /// How to report a broken ring, an eventfd.
    pub err: Option<File>,
    /// Its account in the inflight buffer, if the front-end keeps one. Where anything in it is still in flight, it is that and not
    /// `next_avail` that says where to go on.
    pub inflight: Option<InflightRing>,
}

/// Why rings could not be started.
#[derive(Debug, thiserror::Error)]
pub enum StartError {
    /// The SRP login was rejected (another live connection of this initiator port, no resources …).
    #[error("login rejected: {0}")]
    LoginRejected(String),
    /// The ring's addresses are not inside the memory map.
    #[error("ring {index}: {what}")]
    BadRing {
        /// Ring index.
        index: u16,
        /// What is wrong with it.
        what: &'static str,
    },
    /// What the device is about is somewhere else.
    #[error("{0}")]
    Unavailable(String),
    /// The device is shutting down.
    #[error("shutting down")]
    ShuttingDown,
}

/// The device behind one connection.
///
/// Called by the session thread only, one call at a time. `start_ring` for the first ring is what begins the nexus.
/// Implementations talk to reactors by mail and wait for the answer.
pub trait Device: Send {
    /// Called first: how the device can end the connection by itself, for instance when it finds that the
    /// front-end's memory is [poisoned](MemoryMap::poisoned).
    fn connected(&mut self, hangup: Hangup) {
        drop(hangup);
    }

    /// Virtio feature bits offered (low and high half), without the vhost-user ones.
    fn features(&self) -> u64;

    /// How many *request* queues can be used at most (GET_QUEUE_NUM); rings are `2 +` that.
    fn request_queues(&self) -> u16;

    /// The features that were acknowledged, before any ring starts.
    fn set_features(&mut self, acked: u64);

    /// Starts a ring on the current memory map. The first one logs the initiator in.
    fn start_ring(&mut self, config: RingConfig) -> Result<(), StartError>;

    /// Stops a ring: takes no more chains, waits until every chain taken has been answered and published, and returns the
    /// next available index. Bounded. Stopping a ring that does not run returns `None`.
    fn stop_ring(&mut self, index: u16) -> Option<u16>;

    /// Replaces the interrupt of a running ring.
    fn set_call(&mut self, index: u16, call: Option<File>);

    /// Replaces the error eventfd of a running ring.
    fn set_err(&mut self, index: u16, err: Option<File>);

    /// Installs a new memory map. With `gone` (it lacks memory that the one before had) it returns only when nothing
    /// touches that memory any more. Every ring that runs during the call has the same guest physical addresses in the
    /// new map, all mapped, though perhaps at other host addresses: the session has stopped those for which this does
    /// not hold, and starts them again when they are mapped again.
    fn set_memory(&mut self, map: Arc<MemoryMap>, gone: bool);

    /// Other dirty logs, or none, while rings run. `log` is for all that is written to guest memory but the used rings: those of the
    /// `rings` listed, by their index, are marked as listed, and the others not at all. Returns when no write is marked
    /// elsewhere any more; commands under way are marked when they end.
    fn set_log(&mut self, log: Option<Arc<DirtyLog>>, rings: &[(u16, UsedRingLog)]);

    /// RESET_DEVICE: ends all tasks of this connection and, if it ever started rings, resets its nexus (see the crate
    /// documentation). Rings are stopped.
    fn reset(&mut self);

    /// The connection is over, for whatever reason; nothing is called afterwards. Waits until nothing touches the
    /// guest's memory any more.
    fn disconnected(&mut self);
}
