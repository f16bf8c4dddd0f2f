//! T10 vocabulary: everything that can be said about SCSI without doing it.
//!
//! # Contract
//!
//! Pure data and pure functions: no I/O, no logging, no virtio, no threads, no `unsafe`. Bytes that come from a guest are
//! parsed once into a type that cannot be wrong; every parser returns a [`Sense`] (or an error of its own) instead of
//! panicking, whatever the bytes.

mod command;
mod sam;
mod sense;

pub use command::*;
pub use sam::*;
pub use sense::*;
