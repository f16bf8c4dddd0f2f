//! The low-level driver's place, ibmvstgt's: reactors that turn descriptor chains into information units and events, and
//! answers into used-ring entries.
//!
//! # Contract
//!
//! * A `Reactor` is one thread. It owns an I/O port, a target shard, the pair of event rings between itself and that
//!   shard, and the virtqueues that were mailed to it. Nobody else touches them. It never waits for a device and never takes
//!   a session's lock; what others want of it they put into its mailbox (`mail`).
//! * A turn: read mail → take chains from the rings that may have some, make them `CMD_REQ`s → let the shard plan them → submit I/O once →
//!   reap completions → turn `CMD_RSP`s into responses → publish each used ring once → `CMD_DONE` → interrupt.
//! * Everything in a turn is bounded: letters; chains and bytes for each guest, however many rings it has. What is left over is the
//!   next turn's, after the others'. A ring that shows nothing is not looked at, unless it was busy a moment ago and looking pays (`lookout`); no ring
//!   is looked at while its reactor sleeps, and then its driver has been asked to kick. Kicks are heard when the wait set is asked: in each turn, but for those
//!   whose work was found by looking, of which a few may come one after the other.
//! * `CMD_DONE` is posted after the used index is stored: what waits for it (task management, draining) never overtakes
//!   the completions it covers.
//! * A letter that judges a nexus's commands is read when everything has been taken that the nexus's rings showed as it came: what
//!   a guest posted before a task management function cannot start after it.
//! * A ring that drains takes no more chains, but finishes those it took, whether or not it is broken. When its answer is given,
//!   nothing touches it or its guest's memory on its behalf. A response, too, keeps memory from going away.
//! * Events wait for nothing: one for which the guest has no buffer is lost, and the next one says so. Every event is a unit attention,
//!   too, and that is never lost.
//! * A [`Connection`] is the [`Device`](crate::vhost_user::Device) behind one vhost-user session. It logs its initiator
//!   port in on the home reactor when the first ring starts, and spreads the rings over the reactors.
//! * Guest memory is registered with a reactor's ring (if at all) by letters from a job (`registrar`), a part at a time: the job waits for pages, the reactor
//!   does not. What is no session's memory any more is forgotten before the letter that took it away is answered, and let go of a part a turn.
//! * An [`InitiatorPort`] outlives its connections: the I_T nexus is its, not theirs.
//! * Nothing is allocated per command once vectors have grown (but for sense data and long CDBs). What one guest's commands
//!   keep in them is bounded: past the bound they are given back, far past it the guest is told TASK SET FULL.
//!
//! Nothing here knows SPC or SBC.

mod answer;
mod command;
mod connection;
mod control;
mod events;
mod heads;
mod initiator_port;
mod jobs;
mod judge;
#[cfg(test)]
mod kill_tests;
mod letters;
mod lookout;
mod losses;
mod mail;
mod nexus;
mod pop;
mod publish;
mod queue;
mod reactor;
mod registrar;
mod rings;
mod session;
mod start;

pub use connection::Connection;
pub use initiator_port::InitiatorPort;
pub use start::{Hba, HbaError, HbaSetup, NexusPorts, TargetPortSetup, WaitKind};
