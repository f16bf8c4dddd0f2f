//! The front-end with which vstgt's own tests are written.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    missing_docs,
    dead_code,
    unused_imports,
    reason = "test code; not every test program uses everything"
)]

#[path = "../../../tests/frontend/guest.rs"]
pub mod guest;
#[path = "../../../tests/frontend/queue.rs"]
pub mod queue;
#[path = "../../../tests/frontend/ram.rs"]
pub mod ram;
#[path = "../../../tests/frontend/wire.rs"]
pub mod wire;

pub use guest::{Guest, Response};
pub use queue::{Buffer, Queue};
pub use ram::Ram;

use std::time::{Duration, Instant};

/// How long anything may take that should happen at once, on a machine on which guests are emulated.
pub const BOUND: Duration = Duration::from_secs(60);

/// Waits until `done` says so; fails the test when it does not in time.
pub fn eventually(what: &str, mut done: impl FnMut() -> bool) {
    let start = Instant::now();
    while !done() {
        assert!(start.elapsed() < BOUND, "did not happen in time: {what}");
        std::thread::sleep(Duration::from_millis(2));
    }
}
