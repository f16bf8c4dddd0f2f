//! Rings stop, devices are reset, connections break, the process ends.

use super::*;

#[test]
fn one_slow_command_does_not_hold_up_the_others() {
    on_each(|host| {
        let (mut a, b) = (host.guest("a"), host.guest("b"));
        let other = VerifiedIo::start(b.guest);
        host.image.hold(0..4096);
        let slow = a.read(To::ring(2), 0, 512);
        host.image.wait_held(1);
        for lba in 8..40 {
            let quick = a.read(To::ring(2), lba, 512);
            assert_eq!(a.wait_good(&quick), block(lba));
            let flush = a.flush(To::ring(2));
            a.wait_good(&flush);
        }
        other.assert_goes_on();
        a.assert_held(&[slow]);
        host.image.release_all();
        assert_eq!(a.wait_good(&slow), block(0));
        drop(other.finish());
        host.stop();
    });
}

#[test]
fn what_fails_late_fails_with_its_own_sense() {
    on_each(|host| {
        let mut a = host.guest("a");
        host.image.hold_all();
        let [read, write, flush] =
            [a.read(To::ring(2), 0, 512), a.write(To::ring(3), 8, &[9; 512]), a.flush(To::ring(2))];
        for begun in host.image.wait_held(3) {
            let error = match begun.kind {
                Kind::Read => BackingError::ReadFailed,
                Kind::Write => BackingError::NoSpace,
                Kind::Flush => BackingError::FlushFailed,
            };
            host.image.fail(&begun, error);
        }
        // MEDIUM ERROR / UNRECOVERED READ ERROR; DATA PROTECT / SPACE ALLOCATION FAILED WRITE PROTECT; HARDWARE ERROR / INTERNAL
        // TARGET FAILURE.
        let codes = [(3, 0x11, 0), (7, 0x27, 7), (4, 0x44, 0)];
        for (sent, code) in [read, write, flush].iter().zip(codes) {
            let answer = a.wait(sent);
            assert_eq!((answer.response, answer.status), (OK, 2), "{answer:?}");
            assert_eq!(answer.sense_code(), Some(code));
        }
        host.stop();
    });
}

/// GET_VRING_BASE is answered when the last command is, and then nothing is written any more.
#[test]
fn a_ring_stops_when_its_commands_have_ended() {
    on_each(|host| {
        let mut a = host.guest("a");
        host.image.hold(0..4096);
        let held = [a.read(To::ring(2), 0, 512), a.write(To::ring(2), 1, &[7; 512])];
        let begun = host.image.wait_held(2);
        let taken = a.guest.queue(2).avail_idx;
        a.guest.wire.send(GET_VRING_BASE, &Wire::state(2, 0), &[]);
        a.assert_held(&held);
        // What comes now is not taken; other rings go on.
        let late = a.command(To::ring(2), &TEST_UNIT_READY);
        let beside = a.read(To::ring(3), 64, 512);
        a.wait_good(&beside);
        host.image.release(&begun[0]);
        eventually("the first ends", || {
            a.poll();
            a.is_done(&held[0]) || a.is_done(&held[1])
        });
        assert!(!comes_within(&a.guest.wire, A_MOMENT), "one command has not ended");
        host.image.release_all();
        let reply = a.guest.wire.reply(GET_VRING_BASE);
        assert_eq!(reply, Wire::state(2, taken.into()), "it goes on behind what was taken");
        // The answers were there before the reply was.
        a.poll();
        assert!(held.iter().all(|sent| a.is_done(sent)));
        assert_quiet(&a.guest.ram);
        assert!(!a.is_done(&late));
        // It goes on where it stopped.
        let queue = a.guest.queues.iter().find(|queue| queue.index == 2).unwrap();
        a.guest.set_up_at(queue, taken);
        a.guest.frontend.set_vring_kick(2, &queue.kick).unwrap();
        assert!(a.wait(&late).good(), "the nexus is the same: no unit attention");
        assert_eq!(a.wait_good(&held[0]), block(0));
        assert_eq!(host.image.bytes(512..1024), [7; 512]);
        host.stop();
    });
}

/// A ring that the guest broke drains like any other.
#[test]
fn a_broken_ring_finishes_what_it_took() {
    on_each(|host| {
        let mut a = host.guest("a");
        host.image.hold(0..512);
        let held = a.read(To::ring(2), 0, 512);
        host.image.wait_held(1);
        let queue = a.guest.queue(2);
        let taken = queue.avail_idx;
        queue.set_avail_idx(taken.wrapping_add(5000));
        queue.kick();
        eventually("the front-end hears of it", || a.guest.queue(2).err.read().is_ok());
        let beside = a.read(To::ring(3), 64, 512);
        a.wait_good(&beside);
        a.guest.wire.send(GET_VRING_BASE, &Wire::state(2, 0), &[]);
        a.assert_held(&[held]);
        host.image.release_all();
        assert_eq!(a.guest.wire.reply(GET_VRING_BASE), Wire::state(2, taken.into()));
        assert_eq!(a.wait_good(&held), block(0));
        host.stop();
    });
}

/// RESET_DEVICE ends what is under way, waits for it, and is told to the next driver.
#[test]
fn a_device_reset_waits_and_is_told() {
    on_each(|host| {
        let mut a = host.guest("a");
        host.image.hold_all();
        let held = [a.read(To::ring(2), 0, 512), a.read(To::ring(3), 8, 512)];
        host.image.wait_held(2);
        ask(&a.guest, RESET_DEVICE, &[]);
        a.assert_held(&held);
        assert!(!comes_within(&a.guest.wire, A_MOMENT));
        host.image.release_all();
        assert_eq!(a.guest.wire.reply_u64(RESET_DEVICE), 0);
        a.poll();
        for sent in &held {
            assert!(a.is_done(sent), "answered before the reset was");
            assert_eq!(a.wait(sent).response, RESET);
        }
        assert_quiet(&a.guest.ram);

        let mut guest = a.guest;
        guest.queues.iter_mut().for_each(|queue| queue.clear());
        guest.set_features(LINUX_FEATURES);
        guest.go_on(&[0; 4]);
        assert_eq!(guest.clear_attentions(), [(6, 0x29, 7)], "I_T NEXUS LOSS OCCURRED");
        host.stop();
    });
}

/// A guest that comes back finds its nexus, and nothing of the old connection gets into the new one.
#[test]
fn a_connection_waits_for_the_commands_of_the_one_before() {
    on_each(|host| {
        let mut a = host.guest("a");
        host.image.hold(0..4096);
        let held = [a.read(To::ring(2), 0, 512), a.write(To::ring(3), 1, &[0x77; 512])];
        host.image.wait_held(2);
        let old_ram = a.guest.ram.clone();
        drop(a);

        let ram = Ram::new(16 << 20);
        let mut guest = host.connect("a", ram.clone());
        std::thread::scope(|scope| {
            let starting = scope.spawn(|| {
                guest.start(LINUX_FEATURES, &[0, 1, 2, 3], 128);
                guest
            });
            std::thread::sleep(A_MOMENT);
            assert!(!starting.is_finished(), "old commands could come after new ones");
            host.image.release_all();
            let mut a = Driver::new(starting.join().unwrap());
            // What the old ones did is done; their guest's memory was theirs until then.
            assert_eq!(host.image.bytes(512..1024), [0x77; 512]);
            assert_eq!(old_ram.read(held[0].data, 512), block(0));
            let first = a.command(To::ring(2), &TEST_UNIT_READY);
            assert!(a.wait(&first).good(), "the same nexus: no unit attention");
            let mine = a.read(To::ring(3), 1, 512);
            assert_eq!(a.wait_good(&mine), [0x77; 512]);
            assert_eq!((a.guest.queue(2).used_idx, a.guest.queue(3).used_idx), (1, 1));
            assert_quiet(&ram);
        });
        host.stop();
    });
}

/// What hangs for good: the new connection is refused, not kept waiting. Commands that have not begun never do.
#[test]
fn a_connection_that_is_gone_gives_up_what_has_not_begun() {
    on_each(|host| {
        let mut a = host.guest("a");
        host.image.hold_all();
        // All threads of ring 2's reactor are busy, and more wait for one.
        for lba in 0..8 {
            a.read(To::ring(2), lba, 512);
        }
        host.image.wait_held(8);
        for lba in 100..120 {
            a.write(To::ring(2), lba, &[0xbb; 512]);
        }
        let taken = a.flush(To::ring(3));
        host.image.wait_held(9);
        drop((a, taken));

        let second = host.connect("a", Ram::new(16 << 20));
        let start = Instant::now();
        second.wire.set_u64(SET_FEATURES, LINUX_FEATURES);
        second.set_table();
        let queue = Guest::make_queue(&second, 2, 128);
        second.set_up(&queue);
        second.frontend.set_vring_kick(2, &queue.kick).unwrap();
        frontend::guest::assert_refused(&second, SET_VRING_ENABLE, &Wire::state(2, 1), &[]);
        let waited = start.elapsed();
        assert!(waited > Duration::from_secs(2) && waited < Duration::from_secs(20), "{waited:?}");

        host.image.release_all();
        let mut a = Driver::new(host.connect("a", Ram::new(16 << 20)));
        a.guest.start(LINUX_FEATURES, &[0, 1, 2], 128);
        let first = a.command(To::ring(2), &TEST_UNIT_READY);
        assert!(a.wait(&first).good());
        let writes = host.image.begun().iter().filter(|begun| begun.kind == Kind::Write).count();
        assert_eq!(writes, 0, "they were aborted before they began");
        assert_eq!(host.image.bytes(100 * 512..101 * 512), block(100));
        host.stop();
    });
}

/// Stopping does not wait for what hangs longer than it was told to, and finishes when it goes on.
#[test]
fn stopping_with_held_io_is_bounded() {
    on_each(|mut host| {
        let mut a = host.guest("a");
        host.image.hold_all();
        let held = a.write(To::ring(2), 0, &[0x5a; 512]);
        host.image.wait_held(1);
        let start = Instant::now();
        let still = host.server.take().unwrap().stop(Duration::from_millis(300)).unwrap_err();
        assert!(start.elapsed() < Duration::from_secs(5));
        assert_eq!(still.0, ["a"]);
        assert!(!host.socket("a").exists() && !host.socket("b").exists());
        a.assert_held(&[held]);
        host.image.release_all();
        assert!(a.wait(&held).good());
        // The rest of the way down goes as if nothing had happened.
        let hba = host.hba.take().unwrap();
        let (done, stopped) = std::sync::mpsc::channel();
        std::thread::spawn(move || {
            hba.stop();
            done.send(()).unwrap();
        });
        stopped.recv_timeout(BOUND).expect("reactors end");
        assert_eq!(host.image.bytes(0..512), [0x5a; 512]);
    });
}
