//! A logical unit: identity, geometry, image, and what each nexus sees of it.
//!
//! # Contract
//!
//! * [`Lu`] is immutable but for atomics and one cold mutex; it is shared by all reactors.
//! * [`Itl`] is one I_T_L nexus: the unit as one nexus sees it. Its [`Gate`] is one atomic word: admission of a command is one
//!   load and one mask. Unit attentions are bits of it in the order of their precedence; taking one is a
//!   compare-and-swap, so each is reported exactly once.
//! * A unit knows nothing of targets.

/// A logical unit.
#[derive(Debug)]
pub struct Lu {}

/// A logical unit as one nexus sees it.
#[derive(Debug)]
pub struct Itl {}
