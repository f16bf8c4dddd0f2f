//! A vhost-user front-end with a virtio-scsi driver in it, for tests that run the real `vstgt` binary.
//!
//! * [`process`] starts `vstgt`, watches it, ends it; [`ram`] is guest memory; [`queue`] a split ring as a driver sees
//!   it; [`guest`] a whole guest: connection, memory, rings, SCSI commands; [`wire`] messages as bytes.
//! * Whatever waits has a bound; [`watchdog`] ends a test program whose library calls have none.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    missing_docs,
    dead_code,
    unused_imports,
    reason = "test code; not every test program uses everything"
)]

pub mod guest;
pub mod process;
pub mod queue;
pub mod ram;
pub mod wire;

pub use guest::{Guest, Response, VerifiedIo};
pub use process::Vstgt;
pub use queue::{Buffer, Queue};
pub use ram::Ram;
pub use wire::Wire;

use std::time::{Duration, Instant};

/// How long anything may take that should happen at once.
pub const BOUND: Duration = Duration::from_secs(30);

/// Waits until `done` says so; fails the test when it does not in time.
pub fn eventually(what: &str, mut done: impl FnMut() -> bool) {
    let start = Instant::now();
    while !done() {
        assert!(start.elapsed() < BOUND, "did not happen in time: {what}");
        std::thread::sleep(Duration::from_millis(2));
    }
}

/// Ends the whole test program if it lives longer than this: the crate's front-end waits without bound.
pub fn watchdog(bound: Duration) {
    static ONCE: std::sync::Once = std::sync::Once::new();
    ONCE.call_once(|| {
        std::thread::spawn(move || {
            std::thread::sleep(bound);
            eprintln!("the test program took longer than {bound:?}: ended");
            std::process::abort();
        });
    });
}
