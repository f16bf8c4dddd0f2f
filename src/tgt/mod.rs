//! The Linux tgt event flow: the seven events (and three of our own for asynchronous events), the two rings of a reactor, hosts.
//!
//! # Contract
//!
//! * [`KEvent`] (kernel → daemon there; hba → target here) and [`UEvent`] (daemon → kernel; target → hba) are plain data
//!   with exactly the fields and numbers of `struct tgt_event`. They are two enums so that a user event cannot be posted
//!   kernel-ward. They can be printed, recorded and encoded to the C layout.
//! * What an event speaks about but cannot hold travels beside it in the same slot: [`CmdData`] (the command's guest
//!   memory and the part of a CDB past 16 bytes) with `CMD_REQ`, [`CmdAnswer`] (the memory coming back, sense data)
//!   with `CMD_RSP`. They are linear: what goes in comes out once.
//! * Between hba and target nothing goes around the rings ([`EventRings`]), so one tap sees everything.
//! * When a `CMD_REQ` is accepted by the tx ring, a slot for its `CMD_RSP` on the rx ring and one for its `CMD_DONE` on
//!   the tx ring are reserved; likewise for the other pairs. A full ring refuses new requests ([`RingFull`]); answers
//!   never fail, nothing is ever lost.

mod event;
mod host;
mod layout;
mod ring;
mod trace;

pub use event::*;
pub use host::*;
pub use layout::*;
pub use ring::*;
pub use trace::*;
