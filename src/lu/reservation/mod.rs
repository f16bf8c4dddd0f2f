//! Reservations of a logical unit: persistent ones (SPC-4 5.13) and RESERVE/RELEASE (SPC-2 5.5, SPC-4 5.13.3).
//!
//! # Contract
//!
//! Pure data and pure functions: no locks, no atomics, no I/O, no clock. Who applies a change (gates, unit attentions, aborted
//! tasks, the state file) is the unit's business; when, the target's.

mod state;

pub use state::*;
