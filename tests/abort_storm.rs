//! Abort storms, and fences: task management, reservations and failures from two front-ends while their commands run.
//!
//! The short form takes some seconds; `VSTGT_SOAK=1` asks for 10,000 functions for each way to wait. `VSTGT_SEED` repeats a storm as
//! far as its threads let it.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, missing_docs, reason = "test code")]

mod drive;
mod frontend;
mod held;
mod storm;

#[path = "storm/fence.rs"]
mod fence;

use std::fs::File;
use std::sync::Arc;
use std::time::Instant;

use vstgt::backing::Image;

use frontend::guest::{connect, lun};
use frontend::process::IMAGE_SIZE;
use frontend::{BOUND, Guest, Ram, Vstgt, eventually};
use held::{kinds, serve};
use storm::image::SlowImage;
use storm::{Own, assert_stormy, seed, soak, storms};

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
        let counts = storms(guests, [lun(0, 0), lun(0, 1)], Own::Whole, functions(), seed);
        assert_stormy(&counts);
        server.stop(BOUND).unwrap();
        hba.stop();
        eprintln!("{kind:?}: {:?}", start.elapsed());
    }
}

/// Storms over a real image and the real process: it has as many descriptors, threads and as much memory afterwards as before.
#[test]
fn nothing_is_left_behind() {
    let seed = seed();
    let dir = tempfile::tempdir().unwrap();
    for image in ["disk.img", "a.img", "b.img"] {
        File::create(dir.path().join(image)).unwrap().set_len(IMAGE_SIZE).unwrap();
    }
    let path = dir.path().to_owned();
    let mut vstgt = Vstgt::start_in(dir, 0, |command| {
        command.args(["--reactors", "2"]);
        for name in ["a", "b"] {
            command.arg("--socket-path").arg(format!("{}/{name}.sock,initiator={name}", path.display()));
            command.arg("--lun").arg(format!("file={}/{name}.img,lun=1,initiator={name}", path.display()));
        }
    });
    let round = |seed| {
        let guests = ["a", "b"].map(|name| negotiated(&path.join(format!("{name}.sock"))));
        storms(guests, [lun(0, 1), lun(0, 0)], Own::InPageCache, functions() / 2, seed)
    };
    round(seed);
    eventually("guests are gone", || vstgt.guest_mappings() == 0);
    let (descriptors, threads, resident) = (vstgt.open_descriptors(), vstgt.threads(), vstgt.resident_kib());
    assert_stormy_enough(&round(seed.wrapping_add(1)));
    eventually("all is given back", || {
        vstgt.guest_mappings() == 0 && vstgt.open_descriptors() <= descriptors && vstgt.threads() <= threads
    });
    let grown = vstgt.resident_kib().saturating_sub(resident);
    assert!(grown < 2048, "{grown} KiB more than before");
    vstgt.assert_alive();
    assert!(!vstgt.log().contains("ERROR"), "{}", vstgt.log());
    vstgt.stop();
}

/// A fast image leaves less under way, but some.
fn assert_stormy_enough(counts: &storm::Counts) {
    for wanted in ["GOOD", "ABORTED", "COMPLETE", "ACA ACTIVE", "RESERVATION CONFLICT"] {
        assert!(counts.iter().any(|((_, kind), _)| *kind == wanted), "no {wanted}");
    }
}
