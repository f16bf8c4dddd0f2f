//! Killed and started again under guests that never stop: each of their commands is answered, once, and what they wrote is there.
//!
//! `VSTGT_KILLS` is how often the process is killed in all; the short form takes seconds, the long one (`VSTGT_SOAK`) minutes.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, missing_docs, reason = "test code")]

#[path = "inflight/aborted.rs"]
mod aborted;
#[path = "inflight/client.rs"]
mod client;
#[path = "inflight/forgetful.rs"]
mod forgetful;
mod frontend;
#[path = "inflight/load.rs"]
mod load;
#[path = "storm/random.rs"]
mod random;

use std::os::unix::fs::FileExt;
use std::process::Command;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::{Duration, Instant};

use client::{Ask, Client, ask};
use frontend::{Guest, Vstgt, watchdog};
use load::{Load, SPAN, Scene};
use random::Random;

/// Kills in each of the tests below.
fn kills() -> u64 {
    let in_all = if std::env::var_os("VSTGT_SOAK").is_some() { 5_000 } else { 90 };
    std::env::var("VSTGT_KILLS").map_or(in_all, |n| n.parse().expect("a number")) / 6
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

/// Lets it wait so, unless all tests are to wait in one way: that is on its command line already.
fn wait_by(command: &mut Command, wait: &str) {
    if std::env::var_os("VSTGT_TEST_WAIT").is_none() {
        command.args(["--wait", wait]);
    }
}

/// Several guests with several rings each read and write; every block has what was last written when it was written.
fn reads_and_writes(wait: &str, seed: u64) {
    const GUESTS: usize = 2;
    const SHAPE: (u16, usize) = (3, 12);
    watchdog(Duration::from_secs(120 + kills()));
    let start = |dir| {
        Vstgt::start_in(dir, GUESTS, |command| {
            wait_by(command, wait);
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
        std::thread::sleep(Duration::from_micros(10_000 + random.below(100_000)));
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

/// What one guest does.
type Work<R> = Box<dyn FnOnce() -> R + Send>;

/// Kills a process with so many sockets again and again, as long as guests are at work; what they give back.
fn kill_under<R: Send + 'static>(
    wait: &str,
    seed: u64,
    make: impl Fn(&Vstgt, &Arc<Scene>) -> Vec<Work<R>>,
) -> (Vstgt, Vec<R>) {
    watchdog(Duration::from_secs(120 + kills()));
    let start = |dir: tempfile::TempDir| {
        let path = dir.path().to_owned();
        Vstgt::start_in(dir, 0, |command| {
            wait_by(command, wait);
            for name in ["a", "b"] {
                command.arg("--socket-path").arg(format!("{}/{name}.sock,initiator={name}", path.display()));
            }
        })
    };
    let dir = tempfile::tempdir().unwrap();
    std::fs::File::create(dir.path().join("disk.img")).unwrap().set_len(frontend::process::IMAGE_SIZE).unwrap();
    let mut vstgt = start(dir);
    let scene = Arc::new(Scene::default());
    let guests: Vec<_> = make(&vstgt, &scene).into_iter().map(std::thread::spawn).collect();
    // Until it is written that the guests heard of the power on.
    std::thread::sleep(Duration::from_millis(200));
    let mut random = Random::new(seed);
    for _ in 0..kills() {
        std::thread::sleep(Duration::from_micros(10_000 + random.below(120_000)));
        assert!(guests.iter().all(|guest| !guest.is_finished()), "a guest has given up");
        vstgt = start(vstgt.kill());
    }
    scene.stop.store(true, Ordering::Relaxed);
    let results = guests.into_iter().map(|guest| guest.join().expect("the guest saw what it should")).collect();
    (vstgt, results)
}

fn socket(vstgt: &Vstgt, name: &str) -> std::path::PathBuf {
    vstgt.dir.path().join(format!("{name}.sock"))
}

/// COMPARE AND WRITE of one block: a counter, many times over.
fn raise(lba: u8, from: u64) -> Ask {
    let block = |value: u64| value.to_le_bytes().repeat(64);
    let mut cdb = [0; 16];
    (cdb[0], cdb[9], cdb[13]) = (0x89, lba, 1);
    Ask { cdb: cdb.to_vec(), out: [block(from), block(from + 1)].concat(), want: 0 }
}

fn look(lba: u8) -> Ask {
    Ask { want: 512, ..ask(&[0x28, 0, 0, 0, 0, lba, 0, 0, 1, 0]) }
}

fn value(data: &[u8]) -> u64 {
    let value = u64::from_le_bytes(data[..8].try_into().unwrap());
    assert_eq!(data, value.to_le_bytes().repeat(64), "a block is whole");
    value
}

/// Two guests count with COMPARE AND WRITE in the same blocks: each success is one, and there are no others.
fn counters(wait: &str, seed: u64) {
    const COUNTERS: u8 = 3;
    let (vstgt, mut guests): (Vstgt, Vec<([u64; 3], Client)>) = kill_under(wait, seed, |vstgt, scene| {
        let guest = |name: &str| {
            let (mut client, scene) = (Client::new(&socket(vstgt, name)), Arc::clone(scene));
            Box::new(move || {
                let mut known = [0u64; COUNTERS as usize];
                let mut successes = [0u64; COUNTERS as usize];
                while !scene.stop.load(Ordering::Relaxed) {
                    let asks: Vec<_> = (0..COUNTERS).map(|n| raise(n, known[usize::from(n)])).collect();
                    for (n, (answer, _)) in client.all(&asks).into_iter().enumerate() {
                        if answer.good() {
                            successes[n] += 1;
                            known[n] += 1;
                        } else {
                            assert_eq!(answer.sense_code(), Some((0xe, 0x1d, 0)), "{answer:?}");
                            known[n] = value(&client.one(&look(n as u8)).1);
                        }
                    }
                }
                (successes, client)
            }) as Box<dyn FnOnce() -> _ + Send>
        };
        vec![guest("a"), guest("b")]
    });
    let mut total = [0; COUNTERS as usize];
    guests.iter().for_each(|(successes, _)| total.iter_mut().zip(successes).for_each(|(sum, n)| *sum += n));
    let found = [0, 1, 2].map(|n| value(&guests[0].1.one(&look(n)).1));
    println!("{wait}: counted to {found:?}");
    assert_eq!(found, total);
    drop(guests);
    vstgt.stop();
}

#[test]
fn counters_over_epoll() {
    counters("epoll", 3);
}

#[test]
fn counters_over_io_uring() {
    counters("io_uring", 4);
}

/// PERSISTENT RESERVE OUT.
fn reserve_out(action: u8, kind: u8, key: u64, other: u64) -> Ask {
    let out = [&key.to_be_bytes()[..], &other.to_be_bytes(), &[0; 8]].concat();
    Ask { out, ..ask(&[0x5f, action, kind, 0, 0, 0, 0, 0, 24, 0]) }
}

/// PERSISTENT RESERVE OUT, each of which would be refused if it were carried out twice, and task management functions between them. Each raises
/// PRGENERATION once.
fn reservations(wait: &str, seed: u64) {
    let (vstgt, made) = kill_under(wait, seed, |vstgt, scene| {
        let (mut client, scene) = (Client::new(&socket(vstgt, "a")), Arc::clone(scene));
        vec![Box::new(move || {
            let good = |client: &mut Client, ask: &Ask| {
                let (answer, _) = client.one(ask);
                assert!(answer.good(), "{ask:?}: {answer:?}");
            };
            let (mut generation, mut round) = (0u32, 0);
            while !scene.stop.load(Ordering::Relaxed) {
                round += 1;
                let (old, new) = (2 * round, 2 * round + 1);
                good(&mut client, &reserve_out(0, 0, 0, old));
                good(&mut client, &reserve_out(0, 0, old, new));
                // ABORT TASK of nothing.
                assert_eq!(client.function(0, 0xdead), 0);
                good(&mut client, &reserve_out(1, 1, new, 0));
                // PREEMPT of itself, to another type.
                good(&mut client, &reserve_out(4, 3, new, new));
                good(&mut client, &reserve_out(2, 3, new, 0));
                good(&mut client, &reserve_out(3, 0, new, 0));
                // REGISTER twice, PREEMPT, CLEAR.
                generation += 4;
                let keys = Ask { want: 8, ..ask(&[0x5e, 0, 0, 0, 0, 0, 0, 0, 8, 0]) };
                let (answer, data) = client.one(&keys);
                assert!(answer.good());
                let found = u32::from_be_bytes(data[..4].try_into().unwrap());
                assert_eq!((found, &data[4..8]), (generation, &[0; 4][..]), "in round {round}");
            }
            round
        }) as Box<dyn FnOnce() -> _ + Send>]
    });
    println!("{wait}: {made:?} rounds of reservations");
    vstgt.stop();
}

#[test]
fn reservations_over_epoll() {
    reservations("epoll", 5);
}

#[test]
fn reservations_over_io_uring() {
    reservations("io_uring", 6);
}
