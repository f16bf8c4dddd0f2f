//! Guest memory: what a front-end gave us, and the buffers that I/O is done on.
//!
//! # Contract
//!
//! * [`MemoryMap`] is one front-end's memory table at one moment: immutable, addressed by guest physical address.
//! * A reactor keeps a [`SnapshotSet`] per session. A command's data buffers are resolved against the current
//!   snapshot into an [`IoBuf`], which is *linear*: it is handed from hand to hand (hba → target → engine → target →
//!   hba) and given back with [`SnapshotSet::release`]. A map is unmapped only after every `IoBuf` resolved
//!   against it has come back; an `IoBuf` that is lost keeps its map mapped for ever, which is a leak and never a
//!   dangling pointer. No atomic operation is done per command.
//! * All access to guest memory is by volatile or kernel copies: a guest may change it at any time, so nothing in here
//!   hands out a Rust reference to it.
//!
//! This room is one of the few that may use `unsafe`.

mod io_buf;
mod map;
mod snapshot;

pub use io_buf::{Direction, IoBuf};
pub use map::{MemoryMap, Region, RegionError};
pub use snapshot::{SnapshotId, SnapshotSet};
