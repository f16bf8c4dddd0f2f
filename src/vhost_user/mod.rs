//! The session with one vhost-user front-end: handshake, memory table, vrings, drain.
//!
//! # Contract
//!
//! * A [`Listener`]-side thread accepts connections for ever; each connection is served by one session thread, which reads
//!   messages and calls the [`Device`] behind it. The session never waits for I/O except where the protocol says
//!   drain (GET_VRING_BASE, RESET_DEVICE, disconnect, and memory that goes away).
//! * What comes from the front-end is checked here: indexes, sizes, alignments, memory regions against the file's real
//!   size. The device may rely on it: a [`RingConfig`] has a power-of-two size within the limit, aligned addresses
//!   that lie inside the memory map, and a kick fd.
//! * A message that cannot be served costs this connection only, with one log line that names what was wrong.
//! * The session knows nothing of SCSI.

mod device;

pub use device::*;
