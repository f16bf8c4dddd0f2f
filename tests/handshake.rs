//! The real `vstgt` behind front-ends of every habit: handshake orders, stopping and going on, coming back a hundred times.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, missing_docs, reason = "test code")]

mod frontend;

use std::os::fd::AsRawFd;
use std::os::unix::net::{UnixListener, UnixStream};
use std::os::unix::process::CommandExt;
use std::time::Duration;

use frontend::guest::{A_MOMENT, LINUX_FEATURES, REQUESTS, assert_refused, connect, pattern, raw, rw10};
use frontend::process::{command_keeping, socket_path};
use frontend::wire::{EVENT_IDX, PROTOCOL, PROTOCOL_BITS, VERSION_1};
use frontend::{BOUND, Buffer, Guest, Ram, VerifiedIo, Vstgt, Wire, eventually};
use vhost::vhost_user::VhostUserFrontend;
use vhost::vhost_user::message::FrontendReq::*;
use vhost::{VhostBackend, VhostUserMemoryRegionInfo};

const RAM: u64 = 16 << 20;

fn table_fds(guest: &Guest) -> (Vec<u8>, Vec<i32>) {
    (Wire::table(&guest.ram.regions), guest.ram.fds())
}

/// SET_VRING_NUM, _BASE, _ADDR as raw messages.
fn raw_set_up(guest: &Guest, queue: &frontend::Queue) {
    guest.wire.set_state(SET_VRING_NUM, queue.index.into(), queue.size.into());
    guest.wire.set_state(SET_VRING_BASE, queue.index.into(), 0);
    guest.wire.send(SET_VRING_ADDR, &guest.wire_addresses(queue), &[]);
}

fn raw_connect(guest: &Guest) {
    guest.wire.get(GET_FEATURES);
    guest.wire.get(GET_PROTOCOL_FEATURES);
    guest.wire.set_u64(SET_PROTOCOL_FEATURES, PROTOCOL_BITS);
    assert_eq!(guest.wire.get(GET_QUEUE_NUM), 254);
    assert_eq!(guest.wire.get(GET_MAX_MEM_SLOTS), 509);
    guest.wire.send(SET_OWNER, &[], &[]);
    guest.wire.get(GET_FEATURES);
}

/// QEMU 10: the order of messages recorded from it, firmware first, then a system.
#[test]
fn qemu() {
    let vstgt = Vstgt::start(1);
    let mut guest = raw(vstgt.socket(0), &Ram::new(RAM));
    raw_connect(&guest);
    let spare = vmm_sys_util::eventfd::EventFd::new(0).unwrap();
    for index in 0..6 {
        guest.wire.event(SET_VRING_CALL, index, Some(&spare));
        guest.wire.event(SET_VRING_ERR, index, Some(&spare));
    }
    guest.wire.send(RESET_DEVICE, &[], &[]);
    guest.wire.send(RESET_DEVICE, &[], &[]);

    // SeaBIOS: VERSION_1 only, one ring; every ring is enabled, called and disabled all the same.
    let start = |guest: &mut Guest, features: u64, rings: &[u16]| {
        guest.features = features;
        guest.wire.set_u64(SET_FEATURES, features);
        guest.wire.set_u64(SET_FEATURES, features);
        for &index in rings {
            let queue = guest.make_queue(index, 128);
            raw_set_up(guest, &queue);
            guest.wire.event(SET_VRING_KICK, index as u8, Some(&queue.kick));
            guest.queues.push(queue);
        }
        for index in 0..6 {
            assert_eq!(guest.wire.acked(SET_VRING_ENABLE, &Wire::state(index, 1), &[]), 0);
        }
        for index in 0..6u8 {
            let call = guest.queues.iter().find(|q| q.index == u16::from(index)).map_or(&spare, |q| &q.call);
            guest.wire.event(SET_VRING_CALL, index, Some(call));
        }
    };
    let stop = |guest: &mut Guest| {
        for index in 0..6 {
            assert_eq!(guest.wire.acked(SET_VRING_ENABLE, &Wire::state(index, 0), &[]), 0);
        }
        for queue in std::mem::take(&mut guest.queues) {
            assert_eq!(guest.wire.get_base(queue.index.into()), u32::from(queue.avail_idx));
        }
    };
    let region = Wire::single(&guest.ram.regions[0]);
    assert_eq!(guest.wire.acked(ADD_MEM_REG, &region, &guest.ram.fds()), 0);
    start(&mut guest, PROTOCOL | VERSION_1, &[2]);
    let attention = guest.test_unit_ready();
    assert_eq!(attention.sense_code(), Some((6, 0x29, 0)), "power on: {attention:?}");
    guest.check_io(1);
    stop(&mut guest);
    guest.wire.send(RESET_DEVICE, &[], &[]);

    // Linux: no memory is sent again.
    start(&mut guest, LINUX_FEATURES, &[0, 1, 2]);
    guest.clear_attentions();
    guest.check_io(2);
    stop(&mut guest);
    drop(guest);
    vstgt.stop();
}

/// crosvm: ring by ring, each enabled as soon as it is set up.
#[test]
fn crosvm() {
    let vstgt = Vstgt::start(1);
    let mut guest = raw(vstgt.socket(0), &Ram::new(RAM));
    guest.wire.send(SET_OWNER, &[], &[]);
    guest.wire.get(GET_FEATURES);
    guest.wire.set_u64(SET_FEATURES, LINUX_FEATURES);
    guest.wire.get(GET_PROTOCOL_FEATURES);
    guest.wire.set_u64(SET_PROTOCOL_FEATURES, PROTOCOL_BITS);
    let (table, fds) = table_fds(&guest);
    assert_eq!(guest.wire.acked(SET_MEM_TABLE, &table, &fds), 0);
    guest.features = LINUX_FEATURES;
    for index in [0u16, 1, 2, 3] {
        let queue = guest.make_queue(index, 256);
        guest.wire.set_state(SET_VRING_NUM, index.into(), 256);
        guest.wire.send(SET_VRING_ADDR, &guest.wire_addresses(&queue), &[]);
        guest.wire.set_state(SET_VRING_BASE, index.into(), 0);
        guest.wire.event(SET_VRING_CALL, index as u8, Some(&queue.call));
        guest.wire.event(SET_VRING_KICK, index as u8, Some(&queue.kick));
        assert_eq!(guest.wire.acked(SET_VRING_ENABLE, &Wire::state(index.into(), 1), &[]), 0);
        guest.queues.push(queue);
    }
    guest.clear_attentions();
    guest.check_io(3);
    // On the second request queue as well.
    assert!(guest.try_command_on(3, &[0; 6], &[], &[]).unwrap().good());
}

/// SPDK's virtio-user: calls before everything, GET_FEATURES as a barrier, the memory table again after a stop.
#[test]
fn spdk() {
    let vstgt = Vstgt::start(1);
    let mut guest = raw(vstgt.socket(0), &Ram::new(RAM));
    guest.wire.send(SET_OWNER, &[], &[]);
    raw_connect(&guest);
    let features = PROTOCOL | VERSION_1 | EVENT_IDX;
    guest.wire.set_u64(SET_FEATURES, features);
    guest.features = features;
    for round in 0..3 {
        let mark = guest.ram.mark();
        let queues: Vec<_> = [0, 1, 2].iter().map(|&index| guest.make_queue(index, 128)).collect();
        for queue in &queues {
            guest.wire.event(SET_VRING_CALL, queue.index as u8, Some(&queue.call));
        }
        let (table, fds) = table_fds(&guest);
        guest.wire.send(SET_MEM_TABLE, &table, &fds);
        guest.wire.barrier();
        for mut queue in queues {
            queue.clear();
            raw_set_up(&guest, &queue);
            guest.wire.event(SET_VRING_KICK, queue.index as u8, Some(&queue.kick));
            guest.queues.push(queue);
        }
        for index in 0..3 {
            guest.wire.set_state(SET_VRING_ENABLE, index, 1);
        }
        guest.wire.barrier();
        let attentions = guest.clear_attentions();
        assert_eq!(attentions.is_empty(), round > 0, "a stop and a start are the same nexus: {attentions:?}");
        guest.check_io(round);
        for queue in std::mem::take(&mut guest.queues) {
            assert_eq!(guest.wire.get_base(queue.index.into()), u32::from(queue.avail_idx));
        }
        guest.ram.release(mark);
    }
}

/// libblkio: rings enabled before they are set up, memory added region by region, some of it later.
#[test]
fn libblkio() {
    let vstgt = Vstgt::start(1);
    let ram = Ram::with_regions(&[(0, RAM), (1 << 32, RAM)]);
    let mut guest = raw(vstgt.socket(0), &ram);
    raw_connect(&guest);
    for index in 0..3 {
        // Before any features were acknowledged.
        assert_eq!(guest.wire.acked(SET_VRING_ENABLE, &Wire::state(index, 1), &[]), 0);
    }
    guest.wire.set_u64(SET_FEATURES, LINUX_FEATURES);
    guest.features = LINUX_FEATURES;
    assert_eq!(guest.wire.acked(ADD_MEM_REG, &Wire::single(&ram.regions[0]), &[ram.fds()[0]]), 0);
    for index in [0u16, 1, 2] {
        let queue = guest.make_queue(index, 64);
        raw_set_up(&guest, &queue);
        guest.wire.event(SET_VRING_CALL, index as u8, Some(&queue.call));
        guest.wire.event(SET_VRING_KICK, index as u8, Some(&queue.kick));
        guest.queues.push(queue);
    }
    guest.clear_attentions();
    assert_eq!(guest.wire.acked(ADD_MEM_REG, &Wire::single(&ram.regions[1]), &[ram.fds()[1]]), 0);
    let far = ram.alloc_in(1, 4096);
    ram.write(far, &pattern(5, 4096));
    assert!(guest.command(&rw10(0x2a, 0, 4096), &[Buffer::out(far, 4096)], &[]).good());
    assert_eq!(guest.read_blocks(0, 4096), pattern(5, 4096));
}

/// A driver that kicks before its rings are enabled: what it asked for is done when they are.
#[test]
fn kick_before_enable() {
    let vstgt = Vstgt::start(1);
    let mut guest = Guest::connect(vstgt.socket(0), Ram::new(RAM));
    guest.negotiate();
    guest.set_features(LINUX_FEATURES);
    guest.add_region(0);
    let queue = guest.make_queue(REQUESTS, 128);
    guest.set_up(&queue);
    guest.frontend.set_vring_kick(2, &queue.kick).unwrap();
    guest.queues.push(queue);
    guest.submit(REQUESTS, &[0; 6], &[], &[]);
    assert_eq!(guest.queue(REQUESTS).wait_used(A_MOMENT), None, "not enabled yet");
    guest.frontend.set_vring_enable(2, true).unwrap();
    guest.queue(REQUESTS).wait_used(BOUND).expect("an answer without another kick");
}

/// Without VHOST_USER_F_PROTOCOL_FEATURES rings begin enabled.
#[test]
fn no_protocol_features() {
    let vstgt = Vstgt::start(1);
    let mut guest = raw(vstgt.socket(0), &Ram::new(RAM));
    guest.wire.send(SET_OWNER, &[], &[]);
    guest.wire.set_u64(SET_FEATURES, VERSION_1);
    let (table, fds) = table_fds(&guest);
    guest.wire.send(SET_MEM_TABLE, &table, &fds);
    let queue = guest.make_queue(REQUESTS, 128);
    raw_set_up(&guest, &queue);
    guest.wire.event(SET_VRING_KICK, 2, Some(&queue.kick));
    guest.wire.event(SET_VRING_CALL, 2, Some(&queue.call));
    guest.queues.push(queue);
    guest.clear_attentions();
    guest.check_io(4);
}

/// OVMF: the legacy interface, no VERSION_1.
#[test]
fn legacy_guest() {
    let vstgt = Vstgt::start(1);
    let mut guest = Guest::connect(vstgt.socket(0), Ram::new(RAM));
    guest.negotiate();
    guest.start(PROTOCOL, &[2], 128);
    guest.clear_attentions();
    guest.check_io(5);
    assert!(guest.queue(REQUESTS).wait_interrupt(BOUND));
}

/// QEMU's `stop` and `cont`: the same nexus, no unit attention, indexes go on.
#[test]
fn stop_and_go_on() {
    let vstgt = Vstgt::start(1);
    let mut guest = Guest::attached(vstgt.socket(0));
    for round in 0..10 {
        guest.check_io(round);
        let bases = guest.stop();
        assert_eq!(bases[2], u32::from(guest.queue(REQUESTS).avail_idx));
        // What is asked while it is stopped is done afterwards.
        let (head, _) = guest.submit(REQUESTS, &[0; 6], &[], &[]);
        if round == 0 {
            assert_eq!(guest.queue(REQUESTS).wait_used(A_MOMENT), None, "stopped");
        }
        guest.go_on(&bases);
        assert_eq!(guest.queue(REQUESTS).wait_used(BOUND).expect("an answer").0, head);
        assert!(guest.test_unit_ready().good(), "no unit attention");
    }
}

/// Indexes pass 65535 and begin again, over stops and starts.
#[test]
fn indexes_wrap() {
    let vstgt = Vstgt::start(1);
    let mut guest = Guest::connect(vstgt.socket(0), Ram::new(RAM));
    guest.negotiate();
    guest.set_features(LINUX_FEATURES);
    guest.add_region(0);
    let mut queue = guest.make_queue(REQUESTS, 128);
    queue.set_avail_idx(0xfffa);
    queue.used_idx = 0xfffa;
    guest.ram.store_u16(queue.used + 2, 0xfffa);
    guest.set_up_at(&queue, 0xfffa);
    guest.frontend.set_vring_kick(2, &queue.kick).unwrap();
    guest.queues.push(queue);
    guest.frontend.set_vring_enable(2, true).unwrap();
    guest.clear_attentions();
    for round in 0..4 {
        guest.check_io(round);
        let bases = guest.stop();
        assert_eq!(bases, [u32::from(guest.queue(REQUESTS).avail_idx)]);
        guest.go_on(&bases);
    }
    assert!(guest.queue(REQUESTS).avail_idx < 100);
}

/// Messages to rings that run, while their I/O runs: none is lost, none is done twice.
#[test]
fn live_rings() {
    let vstgt = Vstgt::start(1);
    let mut guest = Guest::attached(vstgt.socket(0));
    let mut slots: Vec<(u64, u64, u64)> = Vec::new();
    for _ in 0..16 {
        slots.push((guest.ram.alloc(51), guest.ram.alloc(108), guest.ram.alloc(4096)));
    }
    for round in 0..60u64 {
        let before = guest.queue(REQUESTS).used_idx;
        for (i, &(header, response, data)) in slots.iter().enumerate() {
            guest.ram.write(data, &pattern(round * 16 + i as u64, 4096));
            let cdb = rw10(0x2a, i as u32 * 8, 4096);
            guest.submit_at(REQUESTS, header, response, &cdb, &[Buffer::out(data, 4096)], &[]);
        }
        let queue = guest.queues.iter().find(|q| q.index == REQUESTS).unwrap();
        match round % 6 {
            // A migration starts: the same addresses. (With the log flag only where the log was offered.)
            0 => guest.frontend.set_vring_addr(2, &guest.addresses(queue, 0)).unwrap(),
            1 => guest.frontend.set_vring_kick(2, &queue.kick).unwrap(),
            2 => guest.frontend.set_vring_call(2, &queue.call).unwrap(),
            3 => {
                guest.frontend.set_vring_enable(2, false).unwrap();
                guest.frontend.set_vring_enable(2, true).unwrap();
            }
            4 => {
                let base = guest.frontend.get_vring_base(2).unwrap();
                guest.set_up_at(queue, base as u16);
                guest.frontend.set_vring_kick(2, &queue.kick).unwrap();
            }
            _ => {
                // Its memory goes away and comes back.
                guest.remove_region(0);
                guest.add_region(0);
            }
        }
        for _ in 0..slots.len() {
            guest.queue(REQUESTS).wait_used(BOUND).expect("every command is answered");
        }
        assert_eq!(guest.queue(REQUESTS).used_idx, before.wrapping_add(slots.len() as u16));
        assert_eq!(guest.queue(REQUESTS).wait_used(Duration::ZERO), None, "nothing is answered twice");
        assert_eq!(guest.queue(REQUESTS).outstanding(), 0, "each answer is for a command of its own");
        for &(_, response, _) in &slots {
            let answer = guest.parse_response(response, 0);
            assert!(answer.good(), "round {round}: {answer:?}");
        }
        for i in 0..slots.len() {
            assert!(guest.read_blocks(i as u32 * 8, 4096) == pattern(round * 16 + i as u64, 4096), "round {round}");
        }
    }
}

/// The guest is interrupted when it asks for it.
#[test]
fn interrupts() {
    let vstgt = Vstgt::start(1);
    for features in [LINUX_FEATURES, LINUX_FEATURES & !EVENT_IDX] {
        let mut guest = Guest::connect(vstgt.socket(0), Ram::new(RAM));
        guest.negotiate();
        guest.start(features, &[0, 1, 2], 128);
        for round in 0..50 {
            guest.submit(REQUESTS, &[0; 6], &[], &[]);
            assert!(guest.queue(REQUESTS).wait_interrupt(BOUND), "interrupt {round}");
            eventually("the used entry is there", || guest.queue(REQUESTS).pop_used().is_some());
        }
        // A new call eventfd takes over.
        let call = vmm_sys_util::eventfd::EventFd::new(libc::EFD_NONBLOCK).unwrap();
        guest.frontend.set_vring_call(2, &call).unwrap();
        guest.queue(REQUESTS).call = call;
        guest.submit(REQUESTS, &[0; 6], &[], &[]);
        assert!(guest.queue(REQUESTS).wait_interrupt(BOUND));
        guest.frontend.reset_device().unwrap();
    }
}

/// RESET_DEVICE on a connection that runs: its nexus gets a unit attention; nobody else does.
#[test]
fn reset_is_for_one_connection() {
    let vstgt = Vstgt::start(2);
    let mut other = Guest::attached(vstgt.socket(1));
    let mut guest = Guest::attached(vstgt.socket(0));
    guest.frontend.reset_device().unwrap();
    guest.queues.clear();
    guest.set_features(LINUX_FEATURES);
    guest.start_rings(&[0, 1, 2], 128);
    let attentions = guest.clear_attentions();
    assert!(attentions.iter().any(|&(_, asc, _)| asc == 0x29), "{attentions:?}");
    assert!(other.test_unit_ready().good());
}

/// A second connection of a port whose first one runs: it may connect and be reset, as a migration's destination is, but not
/// start. The first never notices.
#[test]
fn a_second_connection_cannot_start_while_the_first_runs() {
    let vstgt = Vstgt::start(1);
    let first = VerifiedIo::start(Guest::attached(vstgt.socket(0)));
    let mut second = Guest::connect(vstgt.socket(0), Ram::new(RAM));
    second.negotiate();
    second.frontend.reset_device().unwrap();
    second.set_features(LINUX_FEATURES);
    second.add_region(0);
    let queue = second.make_queue(REQUESTS, 128);
    second.set_up(&queue);
    second.frontend.set_vring_kick(2, &queue.kick).unwrap();
    assert_refused(&second, SET_VRING_ENABLE, &Wire::state(2, 1), &[]);
    first.assert_goes_on();
    // When the first has stopped, another one may.
    let mut first = first.finish();
    first.stop();
    let mut third = Guest::connect(vstgt.socket(0), Ram::new(RAM));
    third.negotiate();
    third.start(LINUX_FEATURES, &[0, 1, 2], 128);
    assert!(third.test_unit_ready().good(), "handed over: no unit attention");
    third.check_io(6);
}

/// A hundred times connect, attach, I/O, gone: in every way of going. Nothing is left behind.
#[test]
fn a_hundred_reconnects() {
    let mut vstgt = Vstgt::start_with(2, |command| {
        command.arg("--nexus-loss-timeout").arg("1");
    });
    let other = VerifiedIo::start(Guest::attached(vstgt.socket(1)));
    let round = |round: u64| {
        let mut guest = Guest::attached(vstgt.socket(0));
        guest.check_io(round);
        match round % 4 {
            // Orderly.
            0 => {
                guest.stop();
            }
            // With commands under way, like a machine that is killed.
            1 => {
                for i in 0..20 {
                    let at = guest.ram.alloc(65536);
                    guest.submit(REQUESTS, &rw10(0x28, i * 128, 65536), &[], &[Buffer::input(at, 65536)]);
                }
            }
            // In the middle of a message.
            2 => {
                let half = [18u8, 0, 0, 0, 1, 0];
                std::io::Write::write_all(&mut &guest.wire.0, &half).unwrap();
            }
            // After a reset.
            _ => guest.frontend.reset_device().unwrap(),
        }
        drop(guest);
    };
    let settled = |vstgt: &Vstgt, what: &str, descriptors: usize, threads: usize| {
        eventually(what, || vstgt.open_descriptors() <= descriptors && vstgt.threads() <= threads);
    };
    (0..10).for_each(round);
    eventually("no guest memory but the other's is mapped", || vstgt.guest_mappings() == 1);
    let (descriptors, threads) = (vstgt.open_descriptors(), vstgt.threads());
    let resident = vstgt.resident_kib();
    (10..110).for_each(round);
    eventually("no guest memory but the other's is mapped", || vstgt.guest_mappings() == 1);
    settled(&vstgt, "descriptors and threads are given back", descriptors, threads);
    // Guest memory that was touched counts as resident only while it is mapped; a leak of one session's tables a round
    // would be megabytes.
    let grown = vstgt.resident_kib().saturating_sub(resident);
    assert!(grown < 4096, "{grown} KiB more than before");
    vstgt.assert_alive();
    drop(other.finish());
    vstgt.stop();
}

/// An idle guest costs nothing.
#[test]
fn idle_guests_cost_no_cpu_time() {
    let vstgt = Vstgt::start(4);
    let mut guests: Vec<Guest> = (0..4).map(|i| Guest::attached(vstgt.socket(i))).collect();
    guests.iter_mut().for_each(|guest| guest.check_io(1));
    std::thread::sleep(A_MOMENT);
    let before = vstgt.cpu_ticks();
    std::thread::sleep(Duration::from_secs(2));
    let ticks = vstgt.cpu_ticks() - before;
    // A tick is 10 ms: one thread that spins would be 200.
    assert!(ticks <= 10, "{ticks} ticks in two idle seconds");
}

/// All 254 request queues that are promised are there.
#[test]
fn every_request_queue() {
    let vstgt = Vstgt::start_with(1, |command| {
        // 256 rings have more eventfds than the usual soft limit allows; a process may raise that up to the hard one.
        // SAFETY: setrlimit is async-signal-safe and touches only the struct given.
        #[allow(unsafe_code, reason = "raises the limit of open files in the child")]
        unsafe {
            command.pre_exec(|| {
                let limit = libc::rlimit { rlim_cur: 512, rlim_max: 8192 };
                libc::setrlimit(libc::RLIMIT_NOFILE, &limit);
                Ok(())
            });
        }
    });
    let mut guest = raw(vstgt.socket(0), &Ram::new(64 << 20));
    raw_connect(&guest);
    guest.features = LINUX_FEATURES;
    guest.wire.set_u64(SET_FEATURES, LINUX_FEATURES);
    assert_eq!(guest.wire.acked(ADD_MEM_REG, &Wire::single(&guest.ram.regions[0]), &guest.ram.fds()), 0);
    for index in 0..256u16 {
        let queue = guest.make_queue(index, 16);
        raw_set_up(&guest, &queue);
        guest.wire.event(SET_VRING_KICK, index as u8, Some(&queue.kick));
        assert_eq!(guest.wire.acked(SET_VRING_ENABLE, &Wire::state(index.into(), 1), &[]), 0);
        guest.queues.push(queue);
    }
    guest.clear_attentions();
    for index in 2..256 {
        assert!(guest.try_command_on(index, &[0; 6], &[], &[]).expect("an answer").good(), "ring {index}");
    }
}

/// Features that cannot work are refused with an answer.
#[test]
fn refused_features() {
    let vstgt = Vstgt::start(1);
    for (bit, cure) in [(3, "t10_pi=off"), (33, "iommu_platform=off"), (34, "packed=off")] {
        let guest = raw(vstgt.socket(0), &Ram::new(RAM));
        raw_connect(&guest);
        assert_refused(&guest, SET_FEATURES, &(LINUX_FEATURES | 1 << bit).to_ne_bytes(), &[]);
        eventually("the log names the cure", || vstgt.log().contains(cure));
    }
}

/// `--fd`: a connected socket, and a listening one.
#[test]
fn inherited_sockets() {
    let start = |fd: i32| {
        Vstgt::start_with(0, |command| {
            command.arg("--fd").arg("501");
            // SAFETY: dup2 is async-signal-safe; number 501 is not in use, and is not `fd` (which then would be closed on
            // exec).
            #[allow(unsafe_code, reason = "hands the child a descriptor")]
            unsafe {
                command.pre_exec(move || {
                    if libc::dup2(fd, 501) < 0 {
                        return Err(std::io::Error::last_os_error());
                    }
                    Ok(())
                });
            }
        })
    };
    let (ours, theirs) = UnixStream::pair().unwrap();
    let connected = start(theirs.as_raw_fd());
    drop(theirs);
    let mut guest = Guest::over(ours, Ram::new(RAM));
    guest.negotiate();
    guest.start(LINUX_FEATURES, &[0, 1, 2], 128);
    guest.clear_attentions();
    guest.check_io(7);
    drop(guest);
    // Nothing can come any more: it ends by itself.
    assert!(connected.wait().0.success());

    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("given.sock");
    let listener = UnixListener::bind(&path).unwrap();
    let listening = start(listener.as_raw_fd());
    drop(listener);
    for round in 0..3 {
        Guest::attached(&path).check_io(round);
    }
    listening.stop();
    assert!(path.exists(), "not its file to remove");
}

/// Socket files: a live one is refused, a stale one taken over.
#[test]
fn socket_files() {
    let vstgt = Vstgt::start(1);
    let elsewhere = tempfile::tempdir().unwrap();
    std::fs::copy(vstgt.image(), elsewhere.path().join("disk.img")).unwrap();
    let mut second = command_keeping(elsewhere.path(), std::path::Path::new("none"));
    let status = second.arg("--socket-path").arg(vstgt.socket(0)).status().unwrap();
    assert!(!status.success());
    let log = std::fs::read_to_string(elsewhere.path().join("log")).unwrap();
    assert!(log.contains("in use by a running process"), "{log}");
    Guest::attached(vstgt.socket(0)).check_io(8);
    let dir = vstgt.kill();
    assert!(socket_path(dir.path(), 0).exists(), "stale");
    let vstgt = Vstgt::start_in(dir, 1, |_| {});
    Guest::attached(vstgt.socket(0)).check_io(9);
    vstgt.stop();
}

/// SIGTERM with guests attached: commands under way are finished, the process ends.
#[test]
fn termination_with_guests() {
    let vstgt = Vstgt::start(2);
    let mut guest = Guest::attached(vstgt.socket(0));
    let idle = Guest::attached(vstgt.socket(1));
    let data = pattern(77, 65536);
    let at = guest.ram.alloc(65536);
    guest.ram.write(at, &data);
    guest.submit(REQUESTS, &rw10(0x2a, 0, 65536), &[Buffer::out(at, 65536)], &[]);
    guest.queue(REQUESTS).wait_used(BOUND).expect("an answer");
    let image = std::fs::File::open(vstgt.image()).unwrap();
    let dir = vstgt.stop();
    idle.wire.assert_closed();
    guest.wire.assert_closed();
    let mut stored = vec![0; 65536];
    std::os::unix::fs::FileExt::read_exact_at(&image, &mut stored, 0).unwrap();
    assert!(stored == data, "what was answered is in the image");
    drop(dir);
}

/// The crate's own front-end with a whole memory table, and a table that changes while I/O runs.
#[test]
fn memory_tables_change_under_io() {
    let vstgt = Vstgt::start(1);
    let ram = Ram::with_regions(&[(0, RAM), (1 << 32, RAM)]);
    let mut guest = Guest::connect(vstgt.socket(0), ram.clone());
    guest.negotiate();
    guest.set_features(LINUX_FEATURES);
    guest.set_table();
    guest.start_rings(&[0, 1, 2], 128);
    guest.clear_attentions();
    let info = |index: usize| VhostUserMemoryRegionInfo {
        guest_phys_addr: ram.regions[index].guest,
        memory_size: ram.regions[index].size,
        userspace_addr: ram.regions[index].user,
        mmap_offset: 0,
        mmap_handle: ram.fds()[index],
    };
    let far = ram.alloc_in(1, 65536);
    for round in 0..30 {
        // Reads into the region that stays and the one that goes: the table changes only when the latter are done.
        let at = ram.alloc(65536);
        guest.submit(REQUESTS, &rw10(0x28, 0, 65536), &[], &[Buffer::input(at, 65536)]);
        guest.submit(REQUESTS, &rw10(0x28, 128, 65536), &[], &[Buffer::input(far, 65536)]);
        guest.frontend.set_mem_table(&[info(0)]).unwrap();
        for _ in 0..2 {
            guest.queue(REQUESTS).wait_used(BOUND).expect("an answer");
        }
        guest.frontend.set_mem_table(&[info(0), info(1)]).unwrap();
        guest.check_io(round);
    }
    let stream = connect(vstgt.socket(0));
    drop(stream);
}
