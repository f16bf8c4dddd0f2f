//! T10 vocabulary: everything that can be said about SCSI without doing it.
//!
//! # Contract
//!
//! Pure data and pure functions: no I/O, no logging, no virtio, no threads, no `unsafe`. Bytes that come from a guest are
//! parsed once into a type that cannot be wrong; every parser returns a [`Sense`] (or an error of its own) instead of
//! panicking, whatever the bytes.
//!
//! # Where is what
//!
//! * SAM: [`TransportId`], [`Lun`], [`Status`], [`TaskAttribute`], [`TaskManagementFunction`].
//! * A command's way in: [`Cdb`] → [`opcode::decode`] (the one table of commands) → [`Command`].
//! * A command's way out: [`Sense`] with the codes of [`AdditionalSense`], and [`ParameterData`] as [`spc`] and [`sbc`]
//!   write it, cut to the allocation length in one place.

mod additional_sense;
mod cdb;
mod command;
pub mod opcode;
mod parameter;
mod sam;
pub mod sbc;
mod sense;
pub mod spc;
mod transport_id;

pub use cdb::*;
pub use command::*;
pub use parameter::*;
pub use sam::*;
pub use sense::*;
pub use transport_id::*;
