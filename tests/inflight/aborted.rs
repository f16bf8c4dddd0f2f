//! Commands that are ended by others, or by a task management function, while their process is killed.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, missing_docs, reason = "test code")]

use std::os::unix::fs::FileExt;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::{Duration, Instant};

use super::client::{Ask, Client, ask};
use super::frontend::guest::REQUESTS;
use super::frontend::{BOUND, Buffer, Guest, Response, Vstgt};
use super::load::Scene;
use super::{kill_under, reserve_out, socket};

/// Responses of virtio-scsi (virtio 1.2 5.6.6.1), and subtypes of task management.
const ABORTED: u8 = 2;
const RESET: u8 = 4;
const ABORT_TASK: u32 = 0;
const ABORT_TASK_SET: u32 = 1;
const CLEAR_TASK_SET: u32 = 3;
const LOGICAL_UNIT_RESET: u32 = 5;

/// The block that is written.
const LBA: u8 = 40;

fn write(byte: u8) -> Ask {
    Ask { out: vec![byte; 512], ..ask(&[0x2a, 0, 0, 0, 0, LBA, 0, 0, 1, 0]) }
}

fn look(client: &mut Client, lba: u8) -> Vec<u8> {
    let (answer, data) = client.one(&Ask { want: 512, ..ask(&[0x28, 0, 0, 0, 0, lba, 0, 0, 1, 0]) });
    assert!(answer.good(), "{answer:?}");
    data
}

/// Writes into the buffer that a front-end keeps that the process before had taken a head of its request ring just now.
fn as_taken(guest: &Guest, head: u16) {
    let (inflight, file) = guest.inflight.as_ref().expect("it keeps a buffer");
    let region = (16 + 16 * u64::from(inflight.queue_size)).next_multiple_of(64);
    let state = inflight.mmap_offset + region * u64::from(REQUESTS) + 16 + 16 * u64::from(head);
    let uptime = std::fs::read_to_string("/proc/uptime").unwrap();
    let seconds: f64 = uptime.split(' ').next().unwrap().parse().unwrap();
    file.write_all_at(&((seconds * 1e9) as u64).to_le_bytes(), state + 8).unwrap();
    file.write_all_at(&[1], state).unwrap();
}

/// A guest has a write in flight when its process is killed. Another guest does this to it before its front-end is there again; what becomes of
/// the write, and what is in its block then.
fn meanwhile(other: impl FnOnce(&mut Client)) -> (Response, Vec<u8>) {
    let start = |dir| Vstgt::start_in(dir, 2, |_| {});
    let dir = tempfile::tempdir().unwrap();
    std::fs::File::create(dir.path().join("disk.img")).unwrap().set_len(super::frontend::process::IMAGE_SIZE).unwrap();
    let vstgt = start(dir);
    let (mut a, mut b) = (Client::new(vstgt.socket(0)), Client::new(vstgt.socket(1)));
    assert!(a.one(&reserve_out(0, 0, 0, 7)).0.good() && b.one(&reserve_out(0, 0, 0, 8)).0.good());
    // Until it is written that they heard of the power on.
    std::thread::sleep(Duration::from_millis(200));
    let dir = vstgt.kill();
    let (header, response, data) = (b.guest.ram.alloc(51), b.guest.ram.alloc(108), b.guest.ram.alloc(512));
    let Ask { cdb, out, .. } = write(0x77);
    b.guest.ram.write(data, &out);
    let (head, _) = b.guest.submit_at(REQUESTS, header, response, &cdb, &[Buffer::out(data, 512)], &[]);
    as_taken(&b.guest, head);
    let vstgt = start(dir);
    other(&mut a);
    a.stay_connected();
    let start = Instant::now();
    let len = loop {
        assert!(start.elapsed() < BOUND, "never answered");
        b.stay_connected();
        if let Some((answered, len)) = b.guest.queue(REQUESTS).pop_used() {
            assert_eq!(answered, head);
            break len;
        }
    };
    let answer = b.guest.parse_response(response, len);
    a.guest.clear_attentions();
    let found = look(&mut a, LBA);
    // It is served as ever.
    b.guest.clear_attentions();
    assert!(b.one(&write(0x99)).0.good());
    assert_eq!(look(&mut a, LBA), [0x99; 512]);
    vstgt.stop();
    (answer, found)
}

/// SPC-4 5.13.11.2.6: PREEMPT AND ABORT aborts the commands of whom it preempts, also where no reservation is held: those, too, that only come
/// again when it has been answered.
#[test]
fn a_preempted_nexus_has_nothing_in_flight_any_more() {
    let (answer, found) = meanwhile(|a| assert!(a.one(&reserve_out(5, 0, 7, 8)).0.good()));
    assert_eq!((answer.response, found), (ABORTED, vec![0; 512]), "{answer:?}");
}

/// PREEMPT does not abort.
#[test]
fn preempt_lets_it_be() {
    let (answer, found) = meanwhile(|a| assert!(a.one(&reserve_out(4, 0, 7, 8)).0.good()));
    // It is told of the preemption first of all, and that is all that becomes of the write.
    assert_eq!((answer.response, answer.sense_code()), (0, Some((6, 0x2a, 5))), "{answer:?}");
    assert_eq!(found, [0; 512]);
    let (answer, found) = meanwhile(|_| ());
    assert_eq!((answer.good(), found), (true, vec![0x77; 512]), "{answer:?}");
}

#[test]
fn a_reset_leaves_nothing_in_flight() {
    let (answer, found) = meanwhile(|a| assert_eq!(a.function(LOGICAL_UNIT_RESET, 0), 0));
    assert_eq!((answer.response, found), (RESET, vec![0; 512]), "{answer:?}");
}

/// Task management with commands under way, and kills. A function is answered once, and so is every command; what is aborted has its effect before that
/// is said or never.
fn functions(wait: &str, seed: u64) {
    const BLOCKS: u8 = 8;
    let (vstgt, rounds) = kill_under(wait, seed, |vstgt, scene: &Arc<Scene>| {
        let (mut client, scene) = (Client::new(&socket(vstgt, "a")), Arc::clone(scene));
        vec![Box::new(move || {
            let mut known = vec![vec![0u8; 512]; usize::from(BLOCKS)];
            let (mut round, mut ended) = (0u32, 0u32);
            while !scene.stop.load(Ordering::Relaxed) {
                round += 1;
                let fill = |n: u8| [round.to_le_bytes(), [n, 0, 0, 0]].concat().repeat(64);
                let asks: Vec<Ask> =
                    (0..BLOCKS).map(|n| Ask { out: fill(n), ..ask(&[0x2a, 0, 0, 0, 0, n, 0, 0, 1, 0]) }).collect();
                let subtype = [ABORT_TASK, ABORT_TASK_SET, CLEAR_TASK_SET, LOGICAL_UNIT_RESET][round as usize % 4];
                let (answers, response) = client.all_and(&asks, |client| client.function(subtype, 7));
                assert_eq!(response, 0, "subtype {subtype}");
                for (n, (answer, _)) in answers.iter().enumerate() {
                    let told = answer.sense_code().is_some_and(|code| code == (6, 0x29, 3));
                    assert!(answer.good() || told || [ABORTED, RESET].contains(&answer.response), "{answer:?}");
                    ended += u32::from(!answer.good());
                    // What is there now stays there.
                    let mut read = || loop {
                        let (answer, data) =
                            client.one(&Ask { want: 512, ..ask(&[0x28, 0, 0, 0, 0, n as u8, 0, 0, 1, 0]) });
                        if answer.good() {
                            break data;
                        }
                        assert_eq!(answer.sense_code(), Some((6, 0x29, 3)), "{answer:?}");
                    };
                    let (first, second) = (read(), read());
                    assert_eq!(first, second, "block {n}");
                    let new = fill(n as u8);
                    assert!(first == new || !answer.good() && first == known[n], "block {n}: {answer:?} {first:02x?}");
                    known[n] = first;
                }
            }
            (round, ended)
        }) as Box<dyn FnOnce() -> _ + Send>]
    });
    println!("{wait}: rounds and commands that did not end well: {rounds:?}");
    vstgt.stop();
}

#[test]
fn functions_over_epoll() {
    functions("epoll", 7);
}

#[test]
fn functions_over_io_uring() {
    functions("io_uring", 8);
}
