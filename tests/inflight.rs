//! Killed and started again under guests that never stop: each of their commands is answered, once, and what they wrote is there.
//!
//! `VSTGT_KILLS` is how often the process is killed in all; the short form takes seconds.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, missing_docs, reason = "test code")]

mod frontend;
#[path = "inflight/load.rs"]
mod load;
#[path = "storm/random.rs"]
mod random;

use std::os::unix::fs::FileExt;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::{Duration, Instant};

use frontend::{Guest, Vstgt, watchdog};
use load::{Load, SPAN, Scene};
use random::Random;

/// Kills in each of the tests below.
fn kills() -> u64 {
    std::env::var("VSTGT_KILLS").map_or(15, |n| n.parse::<u64>().expect("a number") / 2)
}

/// Descriptor states that say "in flight", in the buffer that a front-end keeps, ring by ring.
fn in_flight(guest: &Guest) -> Vec<(u16, u16)> {
    let (inflight, file) = guest.inflight.as_ref().expect("it keeps a buffer");
    let region = (16 + 16 * u64::from(inflight.queue_size)).next_multiple_of(64);
    let byte = |at| {
        let mut byte = [0];
        file.read_exact_at(&mut byte, inflight.mmap_offset + at).unwrap();
        byte[0]
    };
    let states = (0..inflight.num_queues).flat_map(|ring| (0..inflight.queue_size).map(move |head| (ring, head)));
    states.filter(|(ring, head)| byte(region * u64::from(*ring) + 16 + 16 * u64::from(*head)) != 0).collect()
}

/// Several guests with several rings each read and write; every block has what was last written when it was written.
fn reads_and_writes(wait: &str, seed: u64) {
    const GUESTS: usize = 2;
    const SHAPE: (u16, usize) = (3, 12);
    watchdog(Duration::from_secs(120 + kills()));
    let start = |dir| {
        Vstgt::start_in(dir, GUESTS, |command| {
            command.args(["--wait", wait]);
        })
    };
    let dir = tempfile::tempdir().unwrap();
    std::fs::File::create(dir.path().join("disk.img")).unwrap().set_len(frontend::process::IMAGE_SIZE).unwrap();
    let mut vstgt = start(dir);
    let (scene, begin) = (Arc::new(Scene::default()), Instant::now());
    let loads: Vec<_> = (0..GUESTS)
        .map(|number| {
            let first = number as u32 * SPAN * 3 * 12;
            let load = Load::new(vstgt.socket(number), &scene, begin, SHAPE, first, seed + number as u64);
            std::thread::spawn(move || load.run())
        })
        .collect();
    // Until it is written that the guests heard of the power on.
    std::thread::sleep(Duration::from_millis(200));
    let mut random = Random::new(seed);
    for _ in 0..kills() {
        std::thread::sleep(Duration::from_micros(5_000 + random.below(60_000)));
        assert!(loads.iter().all(|load| !load.is_finished()), "a guest has given up");
        let dir = vstgt.kill();
        scene.killed_at.store(begin.elapsed().as_nanos() as u64, Ordering::Relaxed);
        vstgt = start(dir);
    }
    std::thread::sleep(Duration::from_millis(100));
    scene.stop.store(true, Ordering::Relaxed);
    let mut gaps = Vec::new();
    for load in loads {
        let mut load = load.join().expect("the guest noticed nothing");
        println!("{} commands", load.done);
        gaps.append(&mut load.gaps);
        load.guest.stop();
        assert_eq!(in_flight(&load.guest), [], "after an orderly stop");
    }
    gaps.sort();
    let (p50, max) = (gaps[gaps.len() / 2], gaps.last().unwrap());
    println!("{wait}: {} restarts seen; from the kill to the first answer: p50 {p50:?}, max {max:?}", gaps.len());
    vstgt.assert_alive();
    vstgt.stop();
}

#[test]
fn reads_and_writes_over_epoll() {
    reads_and_writes("epoll", 1);
}

#[test]
fn reads_and_writes_over_io_uring() {
    reads_and_writes("io_uring", 2);
}
