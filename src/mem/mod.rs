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
//! * Long-lived structures (rings) hold the map itself: a [`PinnedRange`] is a contiguous piece of guest memory with
//!   the `Arc` that keeps it mapped.
//! * A [`RegionPart`] is what a ring may hold of a region, and keeps that mapped: its address is nobody else's before the ring has let go of it.
//! * All access to guest memory is by atomic loads and stores or by the kernel: a guest may change it at any time, so
//!   nothing in here hands out a Rust reference to it, and nothing is read twice that must not change in between.
//! * What is written on the guest's behalf is marked in the [`DirtyLog`] of a live migration, if there is one: by [`GuestWriter`] and
//!   [`LoggedRange`], without which nobody outside of this room can write, and for data buffers by [`SnapshotSet::mark`].
//! * The file behind a region may be shrunk while it is mapped. Touching it then raises SIGBUS, which `sigbus` turns
//!   into a *poisoned* region ([`MemoryMap::poisoned`]): reads give zeros, writes go nowhere, and whoever serves the
//!   connection drops it. No other connection notices.
//! * A [`FileWindow`] is an image's file mapped in the same way: copied from and to, and lost if the file shrinks.
//!
//! This room is one of the few that may use `unsafe`.

mod copy;
mod dirty_log;
mod io_buf;
mod map;
mod part;
mod prefetch;
mod range;
mod region;
mod sealed;
mod sigbus;
mod snapshot;
mod window;
mod writer;

#[cfg(test)]
pub(crate) mod testing;

pub use dirty_log::{DirtyLog, UsedRingLog};
pub use io_buf::{Direction, IoBuf};
pub use map::{MemoryMap, OutsideMemory};
pub use part::RegionPart;
pub use range::{GuestRange, LoggedRange, PinnedRange};
pub use region::{MAX_GUEST_MEMORY, Region, RegionError, RegionSpec};
pub use sealed::sealed_file;
pub use sigbus::install_sigbus_handler;
pub use snapshot::{SnapshotId, SnapshotSet};
pub use window::{FileWindow, NotInWindow};
pub use writer::GuestWriter;
