//! The session with one vhost-user front-end: handshake, memory table, vrings, drain.
//!
//! # Contract
//!
//! * A [`Server`] accepts connections for ever, on many sockets; each connection is served by one session thread, which reads
//!   messages and calls the [`Device`] behind it. The session never waits for I/O except where the protocol says
//!   drain (GET_VRING_BASE, RESET_DEVICE, disconnect, a ring that is disabled, and memory that goes away).
//! * What comes from the front-end is checked here: indexes, sizes, alignments, memory regions against the file's real
//!   size. The device may rely on it: a [`RingConfig`] has a power-of-two size within the limit, aligned addresses
//!   that lie inside the memory map, and eventfds that are eventfds.
//! * A message that cannot be served costs this connection only, with one log line that names what was wrong.
//! * The session knows nothing of SCSI.
//!
//! # Rooms
//!
//! `listener` socket files · `peers` who may connect · `server` threads · `ration` how fast connections are taken · `connection` one thread's loop ·
//! `session` what each message does · `vring` one ring's record · `memory` the memory table · `features` bits · `dirty_log` what of a live
//! migration's log is wanted · `inflight` what was taken and not given back.

mod connection;
mod device;
mod dirty_log;
mod features;
mod inflight;
mod listener;
mod memory;
mod peers;
mod ration;
mod server;
mod session;
#[cfg(test)]
mod testing;
mod vring;

pub use device::*;
pub use inflight::{Earlier, InflightNotes, InflightRing, Owed, Recovered};
pub use listener::{DEFAULT_MODE, Inherited, ListenError, Listener, directory_of};
pub use peers::Peers;
pub use server::{Endpoint, MakeDevice, Options, Retired, Server, StillRunning};
