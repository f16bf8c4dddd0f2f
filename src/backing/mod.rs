//! Images, and the engines that do I/O on them.
//!
//! # Contract
//!
//! * An [`Image`] is an open disk image: bytes, no SCSI. Its blocking methods may be called from any thread that may wait
//!   (an I/O thread, a job), and inline from a reactor only where [`Capabilities::never_waits`] says so.
//! * A reactor does I/O through its [`IoPort`]: [`IoPort::submit`] takes one operation and its buffer and owns the buffer
//!   until it gives it back in a [`Completion`]. Every submitted operation completes exactly once. Dropping the port
//!   waits for what is in flight.
//! * The image must never panic or touch memory outside the buffer whatever range it is asked for: ranges are
//!   checked against its size here as well as by the device server, an operation that passes the end fails with
//!   [`BackingError::OutOfRange`]. Reads that find the file shorter than the image fail, they never return
//!   stale bytes.
//! * **An image is locked against other programs** (as QEMU's are) from before [`open`] returns until its file is closed, unless its
//!   [`Locking`] says otherwise: whoever has an [`Image`] need not ask. So what is done with it, first of all whatever a former process left undone, is
//!   done by nobody else.
//! * An image's size changes only in [`Image::refresh_size`], whatever becomes of its file meanwhile.
//! * Which engine serves an image is decided when it is opened, by probing: io_uring where the ring is there and the
//!   file system completes inline or truly asynchronously; inline, through a mapping or by preadv/pwritev, where neither can wait for a device
//!   (tmpfs); else preadv/pwritev on an I/O thread. All engines face the same conformance suite.
//! * Guest memory that was [registered](IoPort::register) is named to the kernel by number, anything else by address; which it was, nobody but the kernel
//!   can tell, as long as the guest's pages stay the same ones.
//! * A block of a shared image is never seen half old, half new: it is opened O_DIRECT (buffers in which a block does not lie in one piece are bounced), or
//!   its operations go through a striped range latch.
//! * Whether the page cache is used, and what a flush does, is the image's [`CacheMode`]; engines and callers go by its capabilities.
//! * [`Image::copy_from`] copies between images, by means of the file system where it can and blocks stay whole.

mod atomic;
mod caching;
mod copy;
mod engines;
mod error;
mod held;
mod image;
mod large;
mod latch;
mod lock;
mod mapped;
mod open;
mod port;
mod raw;
mod raw_file;
mod syncs;
mod transfer;
mod unreadable;

pub use atomic::AtomicUnit;
pub use caching::CacheMode;
pub use engines::MemoryBudget;
pub use error::*;
pub use held::HeldEngine;
pub use image::*;
pub use lock::{Locking, Who};
pub use open::{EngineChoice, OpenError, OpenOptions, PATIENCE, limits_of, open};
pub use port::*;
pub use raw_file::RawFile;

#[cfg(test)]
mod conformance;
