//! A logical unit: identity, geometry, image, and what each nexus sees of it.
//!
//! # Contract
//!
//! * [`Lu`] is immutable but for atomics and one cold mutex; it is shared by all reactors.
//! * [`Itl`] is one I_T_L nexus: the unit as one nexus sees it. Its [`Gate`] is one atomic word: admission of a command is one
//!   load and one mask. Unit attentions are bits of it in the order of their precedence; taking one is a
//!   compare-and-swap, so each is reported exactly once.
//! * [`derive()`] makes serial number and NAA designator from an image's canonical path, by rules that never change: two
//!   processes that serve one image agree.
//! * [`Records`] are what initiators leave with the unit besides data.
//! * What a thin unit's file system has left is watched, and initiators are told before it is nothing: [`Lu::look_at_space`].
//! * What is reserved changes in steps, so that nobody gains before those who lose have stopped: [`Lu::evaluate_reservation`] and
//!   what follows it. Each nexus's gate says what it is denied at every step.
//! * What is done to the whole medium, and by whom it is stopped, is an [`Occupation`]; work that outlasts its command runs in the
//!   [`Background`] that a unit was given.
//! * [`KeptState`] is what of a unit outlives the process. A unit that has a [`Keeper`] hands it over: at once and durably
//!   ([`Lu::persist`]) before a change is answered, soon after everything else.
//! * Whether the medium can be used, for all nexuses at once, is [`Lu::eject`]'s and [`Lu::load`]'s to say.
//! * Whoever is about to change blocks says so with [`Lu::will_change`]; a [`Watch`] hears of it. [`Rods`] rely on that: data that tokens represent.
//! * A unit knows nothing of targets; by which [`TargetPort`]s it is reached is data that it was given.

mod aborts;
mod access;
mod atomic;
mod attention;
mod background;
mod changes;
mod copies;
mod copy_operations;
mod errors;
mod gate;
mod gate_word;
mod geometry;
mod holds;
mod identity;
mod intents;
mod itl;
mod keeping;
mod kept;
mod medium;
mod mode_word;
mod occupation;
mod port;
mod records;
pub mod reservation;
mod reserve;
mod rods;
mod self_test;
mod statistics;
mod thresholds;
mod unit;
mod watch;

pub use aborts::Aborted;
pub use access::*;
pub use atomic::AtomicLimits;
pub use attention::*;
pub use background::*;
pub use changes::ChangeName;
pub use copies::*;
pub use copy_operations::*;
pub use errors::*;
pub use gate::*;
pub use geometry::*;
pub use holds::*;
pub use identity::*;
pub use intents::{Intent, IntentName, Intents};
pub use itl::*;
pub use kept::*;
pub use medium::*;
pub use occupation::*;
pub use port::*;
pub use records::*;
pub use reservation::NexusId;
pub use reserve::*;
pub use rods::*;
pub use self_test::*;
pub use statistics::*;
pub use thresholds::*;
pub use unit::*;
pub use watch::*;
