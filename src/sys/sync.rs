//! The atomics of what `tests/loom.rs` model-checks: there this module's place is taken by loom's.
//!
//! Files that are checked name their atomics by `crate::sys::sync` and nothing else of this crate, make no system calls, and have
//! their tests elsewhere.

pub use std::sync::atomic::{AtomicBool, AtomicU32, AtomicU64, Ordering, fence};
