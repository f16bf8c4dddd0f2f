//! What each step of a command's way costs by itself: `cargo bench --bench inner_loops [FILTER]`.
//!
//! In the order in which a command passes them: [`ring`] (taking chains, giving them back), [`command`] (the request, its information unit,
//! its buffer, its response), [`scsi`] (what the CDB means, the gate, the plan), [`events`] (the event rings), and with [`shard`] the target's
//! whole line at once. How they add up, with everything between them, is `cargo bench --bench line`.
//!
//! Where a row says how many items a second there are, one iteration is a batch, and the time is the batch's: 32 commands, unless the row's name
//! says how many. Everything that a batch needs is made outside of the time that is taken. All of it is in the processor's caches; in a reactor
//! that other processors write to, it is not.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, reason = "a bench that cannot go on ends")]

mod command;
mod events;
mod guest;
#[path = "../null/mod.rs"]
mod null;
mod ring;
mod scsi;
mod shard;

/// Commands of a batch.
const BATCH: usize = 32;

fn main() {
    divan::main();
}
