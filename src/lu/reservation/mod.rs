//! Reservations of a logical unit: persistent ones (SPC-4 5.13) and RESERVE/RELEASE (SPC-2 5.5, SPC-4 5.13.3).
//!
//! # Contract
//!
//! * Pure data and pure functions: no locks, no atomics, no I/O, no clock. Who applies a change (gates, unit attentions, aborted
//!   tasks, the state file) is the unit's business; when, the target's.
//! * [`perform`] is all that changes a [`ReservationState`]. It is given what a PERSISTENT RESERVE OUT or RESERVE/RELEASE asks
//!   for with its fields decoded, or an event of the unit, and returns the [`Change`] as a whole, or the [`Refusal`]; a
//!   refused action has changed nothing.
//! * [`ReservationState::denial`] says what a nexus may not do under a state; it is the commands' tables of [`allows`] for
//!   where the nexus stands. [`losers`] compares two states.
//!
//! # What the unit reports of itself
//!
//! REPORT CAPABILITIES (SPC-4 6.15.4) has to say what this machine does:
//!
//! | field | value | because |
//! |---|---|---|
//! | RLR_C | 1 | REPLACE LOST RESERVATION is known; see below |
//! | CRH | 1 | RESERVE and RELEASE follow the exceptions of SPC-4 5.13.3 |
//! | SIP_C, ATP_C | 1 | SPEC_I_PT and ALL_TG_PT are done |
//! | PTPL_C | 1 where the unit keeps its state in a file | APTPL is a promise |
//! | PTPL_A | [`ReservationState::aptpl`] | |
//! | ALLOW COMMANDS | 011b | TEST UNIT READY is allowed, MODE SENSE and its like under Write Exclusive |
//! | TYPE MASK | all six | |
//!
//! # Where the standard leaves room
//!
//! * A unit that lost what it is to remember is not served, so REPLACE LOST RESERVATION never finds information lost, and ends as SPC-4
//!   5.13.11.3 says for that: INVALID RELEASE OF PERSISTENT RESERVATION.
//! * A REGISTER that is to "do nothing" (SPC-4 tables 67 and 68: not registered, SERVICE ACTION RESERVATION KEY zero) does
//!   nothing at all: PRGENERATION and APTPL stay.
//! * ALL_TG_PT is "as if received through each port": a port through which it would be refused refuses it as a whole.
//! * PREEMPT AND ABORT ends the commands of every nexus whose key is named, which can be the very nexus it came from; only the
//!   command itself goes on.

mod conflicts;
mod denial;
mod legacy;
mod machine;
mod preempt;
mod register;
mod reserve;
mod state;
#[cfg(test)]
mod tests;

pub use conflicts::*;
pub use denial::*;
pub use machine::*;
pub use state::*;
