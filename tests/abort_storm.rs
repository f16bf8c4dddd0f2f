//! Abort storms, and fences: task management, reservations and failures from two front-ends while their commands run.
//!
//! The short form takes some seconds; `VSTGT_SOAK=1` asks for 10,000 functions for each way to wait. `VSTGT_SEED` repeats a storm as
//! far as its threads let it.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, missing_docs, reason = "test code")]

mod drive;
mod frontend;
mod held;
mod storm;

use std::fs::File;
use std::sync::Arc;
use std::time::Instant;

use vstgt::backing::Image;

use frontend::guest::{connect, lun};
use frontend::process::IMAGE_SIZE;
use frontend::{BOUND, Guest, Ram, Vstgt, eventually};
use held::{kinds, serve};
use storm::image::SlowImage;
use storm::{assert_stormy, seed, soak, storms};

/// How many functions.
fn functions() -> usize {
    if soak() { 10_000 } else { 1_000 }
}

fn negotiated(path: &std::path::Path) -> Guest {
    let mut guest = Guest::over(connect(path), Ram::new(4 << 20));
    guest.negotiate();
    guest
}

/// Images that take their time, so that most of what is ended is under way.
#[test]
fn every_task_is_answered_once_and_right() {
    let seed = seed();
    for kind in kinds() {
        let start = Instant::now();
        let images = [0, 1, 2].map(|i| Arc::new(SlowImage::new(seed ^ i)) as Arc<dyn Image>);
        let (hba, server, dir) = serve(kind, images);
        let guests = ["a", "b"].map(|name| negotiated(&dir.path().join(name)));
        let counts = storms(guests, [lun(0, 0), lun(0, 1)], functions(), seed);
        assert_stormy(&counts);
        server.stop(BOUND).unwrap();
        hba.stop();
        eprintln!("{kind:?}: {:?}", start.elapsed());
    }
}
