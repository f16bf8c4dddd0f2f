//! Guests and front-ends that misbehave, with commands under way.

use super::*;

#[test]
fn a_head_that_is_in_flight_breaks_only_its_ring() {
    on_each(|host| {
        let mut a = host.guest("a");
        host.image.hold(0..512);
        let held = a.read(To::ring(2), 0, 512);
        host.image.wait_held(1);
        let queue = a.guest.queue(2);
        queue.push_head(held.head);
        queue.kick();
        eventually("the front-end hears of it", || a.guest.queue(2).err.read().is_ok());
        host.image.release_all();
        assert_eq!(a.wait_good(&held), block(0));
        assert_eq!(host.image.begun().iter().filter(|begun| begun.offset == 0).count(), 1);
        let beside = a.read(To::ring(3), 64, 512);
        a.wait_good(&beside);
        host.stop();
    });
}

/// More functions than are worked on at once: the rest wait in the ring, and get their turn.
#[test]
fn a_flood_of_functions_is_worked_off() {
    on_each(|host| {
        let mut guest = host.connect("a", Ram::new(16 << 20));
        guest.start(LINUX_FEATURES, &[0, 1, 2, 3], 1024);
        guest.clear_attentions();
        let mut a = Driver::new(guest);
        let b = VerifiedIo::start(host.guest("b").guest);
        host.image.hold_all();
        let held = a.read(To::ring(2), 0, 512);
        host.image.wait_held(1);
        let flood: Vec<Sent> = (0..500).map(|_| a.function(ABORT_TASK_SET, LUN0, 0)).collect();
        a.assert_held(&flood);
        b.assert_goes_on();
        host.image.release_all();
        for function in &flood {
            assert_eq!(a.wait_function(function), OK);
        }
        assert_eq!(a.wait(&held).response, ABORTED);
        drop(b.finish());
        host.stop();
    });
}

/// One id on very many commands: each would cost a round through all reactors.
#[test]
fn an_id_that_is_everywhere_is_refused() {
    on_each(|host| {
        let mut a = host.guest("a");
        host.image.hold_all();
        let held: Vec<Sent> = (0..70).map(|i| a.read(To::ring(2 + i % 2).id(3), u32::from(i), 512)).collect();
        let few: Vec<Sent> = (0..4).map(|i| a.read(To::ring(2).id(4), i, 512)).collect();
        let abort = a.function(ABORT_TASK, LUN0, 3);
        assert_eq!(a.wait_function(&abort), FAILURE);
        // These have not begun, so nothing keeps them.
        let abort = a.function(ABORT_TASK, LUN0, 4);
        assert_eq!(a.wait_function(&abort), OK);
        for sent in &few {
            assert_eq!(a.wait(sent).response, ABORTED);
        }
        host.image.release_all();
        for (i, sent) in (0..).zip(&held) {
            assert_eq!(a.wait_good(sent), block(i));
        }
        host.stop();
    });
}

/// Puts so many TEST UNIT READYs on a ring, one descriptor each, without a kick.
fn fill(driver: &mut Driver, ring: u16, count: u16) -> Vec<Sent> {
    let ram = driver.guest.ram.clone();
    let header = ram.alloc(51);
    ram.write(header, &Guest::header(LUN0, &TEST_UNIT_READY));
    let mut one = || {
        let response = ram.alloc(108);
        ram.write(response, &[0xff; 108]);
        let chain = [Buffer::out(header, 51), Buffer::input(response, 108)];
        let head = driver.guest.queue(ring).push_indirect(&chain);
        Sent { ring, head, response, data: 0, len: 0 }
    };
    (0..count).map(|_| one()).collect()
}

/// More commands are answered in one turn than the event rings have slots.
#[test]
fn a_turn_may_be_larger_than_the_event_rings() {
    for wait in kinds() {
        let names: Vec<String> = (0..16).map(|i| format!("guest{i}")).collect();
        let image = Arc::new(HeldImage::of_reactors());
        let (hba, server, dir) = serve_units(wait, 1, &names, vec![(image.clone(), 0, None)]);
        let mut drivers: Vec<Driver> = names
            .iter()
            .map(|name| {
                let mut guest = Guest::over(connect(&dir.path().join(name)), Ram::new(4 << 20));
                guest.negotiate();
                guest.start(LINUX_FEATURES, &[0, 1, 2], 256);
                guest.clear_attentions();
                Driver::new(guest)
            })
            .collect();
        // The only reactor is held up; when it looks again, all guests have their share for it.
        image.hold(0..512);
        let first = drivers[0].read(To::ring(2), 0, 512);
        image.wait_held(1);
        let sent: Vec<Vec<Sent>> = drivers.iter_mut().map(|driver| fill(driver, 2, 250)).collect();
        drivers.iter_mut().for_each(|driver| driver.guest.queue(2).kick());
        image.release_all();
        assert_eq!(drivers[0].wait_good(&first), block(0));
        for (driver, sent) in drivers.iter_mut().zip(&sent) {
            for sent in sent {
                assert!(driver.wait(sent).good());
            }
        }
        server.stop(BOUND).unwrap();
        hba.stop();
    }
}

/// A function waits for all that its guest's rings show, over many turns; another guest's does not.
#[test]
fn full_rings_hold_up_only_their_own_guests_functions() {
    on_each(|host| {
        let rings: Vec<u16> = (0..14).collect();
        let mut guest = host.connect("a", Ram::new(16 << 20));
        guest.start(LINUX_FEATURES, &rings, 256);
        guest.clear_attentions();
        let (mut a, mut b) = (Driver::new(guest), host.guest("b"));
        host.image.hold_all();
        let mut sent: Vec<Sent> = (2..14).flat_map(|ring| fill(&mut a, ring, 200)).collect();
        // The last of all, behind what takes two turns.
        let last: Vec<Sent> = (2..14)
            .map(|ring| {
                let to = To::ring(ring).id(77);
                let ram = a.guest.ram.clone();
                let (header, at) = (ram.alloc(51), ram.alloc(512));
                let mut bytes = Guest::header(LUN0, &rw10(0x28, u32::from(ring), 512));
                bytes[8..16].copy_from_slice(&to.id.to_le_bytes());
                ram.write(header, &bytes);
                let response = ram.alloc(108);
                let chain = [Buffer::out(header, 51), Buffer::input(response, 108), Buffer::input(at, 512)];
                let head = a.guest.queue(ring).push_indirect(&chain);
                Sent { ring, head, response, data: at, len: 512 }
            })
            .collect();
        let query = a.function(QUERY_TASK, LUN0, 77);
        let theirs = b.function(LOGICAL_UNIT_RESET, LUN1, 0);
        assert_eq!(b.wait_function(&theirs), OK);
        assert_eq!(a.wait_function(&query), FUNCTION_SUCCEEDED);
        for sent in sent.drain(..) {
            assert!(a.wait(&sent).good());
        }
        let abort = a.function(ABORT_TASK, LUN0, 77);
        a.assert_held(&[abort]);
        host.image.release_all();
        assert_eq!(a.wait_function(&abort), OK);
        for sent in &last {
            assert!(a.is_done(sent));
            assert_eq!(a.wait(sent).response, ABORTED);
        }
        host.stop();
    });
}

/// Chains that are no commands end, too, and count for nothing else.
#[test]
fn chains_without_a_command_are_given_back() {
    on_each(|host| {
        let mut a = host.guest("a");
        host.image.hold(0..512);
        let held = a.read(To::ring(2), 0, 512);
        host.image.wait_held(1);
        let ram = a.guest.ram.clone();
        let at = ram.alloc(4096);
        for round in 0..100u64 {
            let chains: [&[Buffer]; 5] = [
                // No response buffer; too short a request; a buffer outside memory; nothing at all; readable after writable.
                &[Buffer::out(at, 51)],
                &[Buffer::out(at, 20), Buffer::input(at + 64, 108)],
                &[Buffer::out(at, 51), Buffer::input(1 << 40, 108)],
                &[Buffer::out(at, 0)],
                &[Buffer::input(at, 108), Buffer::out(at, 51)],
            ];
            let ring = 2 + (round % 2) as u16;
            let sent = chains.map(|chain| {
                let head = a.guest.queue(ring).push(chain);
                Sent { ring, head, response: at + 64, data: 0, len: 0 }
            });
            a.guest.queue(ring).kick();
            for sent in &sent {
                a.wait(sent);
            }
        }
        let good = a.read(To::ring(2), 64, 512);
        assert_eq!(a.wait_good(&good), block(64));
        a.assert_held(&[held]);
        host.image.release_all();
        assert_eq!(a.wait_good(&held), block(0));
        host.stop();
    });
}

/// A head again and again, without looking at the used ring: it costs its guest, nobody else.
#[test]
fn a_driver_that_never_looks_back_harms_nobody() {
    on_each(|host| {
        let mut a = host.guest("a");
        let b = VerifiedIo::start(host.guest("b").guest);
        let ram = a.guest.ram.clone();
        let at = ram.alloc(64);
        let last = a.guest.queues.iter().position(|queue| queue.index == 3).unwrap();
        let mut queue = a.guest.queues.remove(last);
        queue.write_desc(0, at, 51, 0, 0);
        for round in 0..2000u32 {
            queue.push_head(0);
            if round % 50 == 0 {
                queue.kick();
                std::thread::sleep(Duration::from_micros(200));
            }
        }
        queue.kick();
        b.assert_goes_on();
        let query = a.function(QUERY_TASK_SET, LUN0, 0);
        assert_eq!(a.wait_function(&query), OK);
        let good = a.read(To::ring(2), 64, 512);
        assert_eq!(a.wait_good(&good), block(64));
        drop(b.finish());
        host.stop();
    });
}

/// One table of a thousand descriptors, made available by thousands of heads, with all of those commands held: what they keep is
/// bounded. What comes on top is told TASK SET FULL (SAM-5 5.3.1), and under UA_INTLCK_CTRL 11b that is remembered (SPC-4
/// 7.5.10); nothing else is.
#[test]
fn a_task_set_that_is_full_says_so() {
    const RINGS: std::ops::RangeInclusive<u16> = 2..=6;
    const SIZE: u16 = 1024;
    const TASK_SET_FULL: u8 = 0x28;
    let (image, other) = (Arc::new(HeldImage::new()), Arc::new(HeldImage::new()));
    let names = ["a", "b"].map(str::to_owned);
    let units: Vec<held::Unit<'_>> = vec![(image.clone(), 0, Some("a")), (other, 0, Some("b"))];
    let (hba, server, dir) = serve_units(kinds()[0], 1, &names, units);
    let attach = |name: &str, rings: &[u16], size| {
        let mut guest = Guest::over(connect(&dir.path().join(name)), Ram::new(16 << 20));
        guest.negotiate();
        guest.start(LINUX_FEATURES, rings, size);
        guest.clear_attentions();
        guest
    };
    let b = VerifiedIo::start(attach("b", &[0, 1, 2], 128));
    let rings: Vec<u16> = [0].into_iter().chain(RINGS).collect();
    let mut a = attach("a", &rings, SIZE);
    // MODE SELECT(6): UA_INTLCK_CTRL 11b.
    let list = a.ram.alloc(16);
    a.ram.write(list, &[0, 0, 0, 0, 0x0a, 10, 0x20, 0x10, 0x30, 0, 0, 0, 0, 0, 0, 0]);
    let answer = a.command(&[0x15, 0x10, 0, 0, 16, 0], &[Buffer::out(list, 16)], &[]);
    assert!(answer.good(), "{answer:?}");

    image.hold_all();
    let ram = a.ram.clone();
    let (header, response, data) = (ram.alloc(51), ram.alloc(108), ram.alloc(2048));
    ram.write(header, &Guest::header(LUN0, &rw10(0x28, 0, 512)));
    let table = ram.alloc(16 * 1024);
    for (i, at) in (0u16..1024).zip((table..).step_by(16)) {
        let (addr, len, flags) = match i {
            0 => (header, 51, 1u16),
            1 => (response, 108, 3),
            1023 => (data, 2, 2),
            _ => (data, 2, 3),
        };
        let descriptor =
            [&addr.to_le_bytes()[..], &u32::to_le_bytes(len), &flags.to_le_bytes(), &(i + 1).to_le_bytes()];
        ram.write(at, &descriptor.concat());
    }
    for ring in RINGS {
        let queue = a.queue(ring);
        for head in 0..SIZE {
            queue.write_desc(head, table, 16 * 1024, frontend::queue::F_INDIRECT, 0);
            queue.push_head(head);
        }
        queue.kick();
    }
    // A function is answered when all of them have been taken.
    let mut a = Driver::new(a);
    let query = a.function(QUERY_TASK_SET, LUN0, 0);
    assert_eq!(a.wait_function(&query), FUNCTION_SUCCEEDED);
    a.poll();
    let all = RINGS.flat_map(|ring| (0..SIZE).map(move |head| Sent { ring, head, response, data: 0, len: 0 }));
    let held: Vec<Sent> = all.clone().filter(|sent| !a.is_done(sent)).collect();
    let (held_count, full) = (held.len(), all.count() - held.len());
    let answer = a.guest.parse_response(response, RESPONSE);
    assert_eq!((answer.response, answer.status, answer.residual), (OK, TASK_SET_FULL, 2044));
    assert!((2048..6144).contains(&held_count), "{held_count} are held, {full} were told that there is no room");
    b.assert_goes_on();

    image.release_all();
    for sent in &held {
        a.wait(sent);
    }
    let tur = a.command(To::ring(2), &TEST_UNIT_READY);
    assert_eq!(a.wait(&tur).sense_code(), Some((6, 0x2c, 0x08)), "PREVIOUS TASK SET FULL STATUS");
    let sense = a.command_in(To::ring(2), &[0x03, 0, 0, 0, 18, 0], 18);
    assert_eq!(a.wait_good(&sense)[12..14], [0x2c, 0x08]);
    let good = a.read(To::ring(2), 64, 512);
    assert_eq!(a.wait_good(&good), block(64));
    drop((a, b.finish()));
    server.stop(BOUND).unwrap();
    hba.stop();
}

/// Without a kick the ring is looked at now and then.
#[test]
fn a_ring_without_a_kick_is_polled() {
    on_each(|host| {
        let mut guest = host.connect("a", Ram::new(16 << 20));
        guest.set_features(LINUX_FEATURES);
        guest.add_region(0);
        let queue = guest.make_queue(2, 128);
        guest.set_up(&queue);
        guest.wire.event(SET_VRING_KICK, 2, None);
        guest.wire.barrier();
        guest.frontend.set_vring_enable(2, true).unwrap();
        guest.queues.push(queue);
        let mut a = Driver::new(guest);
        for _ in 0..10 {
            let sent = a.quietly(To::ring(2), &TEST_UNIT_READY);
            a.wait(&sent);
            std::thread::sleep(Duration::from_millis(3));
        }
        host.stop();
    });
}
