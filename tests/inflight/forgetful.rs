//! The checks of the other tests, checked: where what was in flight is forgotten with the process, they fail. A front-end that comes back with a buffer
//! in which nothing is in flight shows what a process would do that did not look into it.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, missing_docs, reason = "test code")]

use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::{Duration, Instant};

use super::client::Client;
use super::frontend::{Vstgt, process, watchdog};
use super::load::{Load, SPAN, Scene};
use super::random::Random;
use super::{raise, value};

/// How long it is tried. A kill seldom comes just between what is done and its answer: mostly some tens of kills are enough, sometimes not.
const ENOUGH: Duration = Duration::from_secs(90);

fn start(dir: tempfile::TempDir) -> Vstgt {
    Vstgt::start_in(dir, 1, |_| {})
}

fn first() -> Vstgt {
    let dir = tempfile::tempdir().unwrap();
    std::fs::File::create(dir.path().join("disk.img")).unwrap().set_len(process::IMAGE_SIZE).unwrap();
    start(dir)
}

/// Reads and writes: commands are lost, or answered twice.
#[test]
fn lost_reads_and_writes_are_noticed() {
    watchdog(Duration::from_secs(120));
    let mut vstgt = first();
    let (scene, begin) = (Arc::new(Scene::default()), Instant::now());
    let mut load = Load::new(vstgt.socket(0), &scene, begin, (3, 12), SPAN, 9);
    (load.forgets, load.patience) = (true, Duration::from_secs(3));
    let load = std::thread::spawn(move || load.run());
    std::thread::sleep(Duration::from_millis(200));
    let mut random = Random::new(9);
    while !load.is_finished() && begin.elapsed() < ENOUGH {
        std::thread::sleep(Duration::from_micros(10_000 + random.below(50_000)));
        vstgt = start(vstgt.kill());
    }
    scene.stop.store(true, Ordering::Relaxed);
    let ended = load.join();
    let said = ended.err().expect("nothing was noticed");
    let said = said.downcast_ref::<String>().cloned().or_else(|| said.downcast_ref::<&str>().map(|s| (*s).to_owned()));
    println!("{said:?}");
    vstgt.stop();
}

/// COMPARE AND WRITE is carried out twice: a success is told as a miscompare. The ring has the commands in the order in which they end, so none is lost.
#[test]
fn what_is_done_twice_is_noticed() {
    watchdog(Duration::from_secs(120));
    let mut vstgt = first();
    let mut client = Client::new(vstgt.socket(0));
    std::thread::sleep(Duration::from_millis(200));
    let scene = Arc::new(Scene::default());
    let stop = Arc::clone(&scene);
    let guest = std::thread::spawn(move || {
        client.forgets = true;
        let (mut known, mut successes) = (0, 0);
        while known == successes && !stop.stop.load(Ordering::Relaxed) {
            if client.one(&raise(0, known)).0.good() {
                successes += 1;
                known += 1;
            } else {
                known = value(&client.one(&super::look(0)).1);
            }
        }
        (successes, known)
    });
    let (mut random, begin) = (Random::new(10), Instant::now());
    while !guest.is_finished() && begin.elapsed() < ENOUGH {
        std::thread::sleep(Duration::from_micros(5_000 + random.below(20_000)));
        vstgt = start(vstgt.kill());
    }
    scene.stop.store(true, Ordering::Relaxed);
    let (successes, found) = guest.join().unwrap();
    println!("{successes} successes, counted to {found}");
    assert!(successes < found, "nothing was noticed: {successes} successes, counted to {found}");
    vstgt.stop();
}
