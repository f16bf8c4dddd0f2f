//! Memory goes away under commands.

use std::fs::File;
use std::os::fd::AsRawFd;
use std::os::unix::fs::FileExt;

use super::*;

/// Guest memory in three regions: the first holds rings and headers.
fn three_regions() -> Ram {
    Ram::with_regions(&[(0, 16 << 20), (1 << 32, 1 << 20), (2 << 32, 1 << 20)])
}

#[test]
fn memory_goes_when_no_command_touches_it() {
    on_each(|host| {
        let mut a = host.guest_with("a", three_regions());
        host.image.hold(0..4096);
        let held = a.read(To::ring(2).data_in(1), 0, 512);
        host.image.wait_held(1);
        // Nothing touches the third region.
        a.guest.remove_region(2);
        // Memory that comes waits for nothing.
        a.guest.add_region(2);
        let there = a.read(To::ring(3).data_in(2), 64, 512);
        assert_eq!(a.wait_good(&there), block(64));
        a.assert_held(&[held]);
        ask(&a.guest, REM_MEM_REG, &Wire::single(&a.guest.ram.regions[1]));
        assert!(!comes_within(&a.guest.wire, A_MOMENT), "a command is about to write there");
        // Commands go on meanwhile, but not into memory that is gone.
        let beside = a.read(To::ring(2), 64, 512);
        a.wait_good(&beside);
        let outside = a.read(To::ring(2).data_in(1), 64, 512);
        assert_eq!(a.wait(&outside).response, FAILURE);
        host.image.release_all();
        assert_eq!(a.guest.wire.reply_u64(REM_MEM_REG), 0);
        a.poll();
        assert!(a.is_done(&held), "answered first");
        assert_eq!(a.wait_good(&held), block(0));
        host.stop();
    });
}

/// A response is a use of memory, too: it must arrive although its region goes.
#[test]
fn memory_goes_when_no_response_is_due_there() {
    on_each(|host| {
        let mut a = host.guest_with("a", three_regions());
        host.image.hold_all();
        let flush = a.flush(To::ring(2).response_in(1));
        let read = a.read(To::ring(3).response_in(1), 0, 512);
        let stays = a.read(To::ring(2).response_in(2), 8, 512);
        host.image.wait_held(3);
        ask(&a.guest, REM_MEM_REG, &Wire::single(&a.guest.ram.regions[1]));
        assert!(!comes_within(&a.guest.wire, A_MOMENT));
        for begun in host.image.held().iter().filter(|begun| begun.offset != 8 * 512) {
            host.image.release(begun);
        }
        assert_eq!(a.guest.wire.reply_u64(REM_MEM_REG), 0, "the one that stays is not waited for");
        a.poll();
        assert!(a.is_done(&flush) && a.is_done(&read));
        assert!(a.wait(&flush).good());
        assert_eq!(a.wait_good(&read), block(0));
        a.assert_held(&[stays]);
        host.image.release_all();
        assert_eq!(a.wait_good(&stays), block(8));
        host.stop();
    });
}

#[test]
fn a_new_table_waits_for_what_it_lacks() {
    on_each(|host| {
        let mut a = host.guest_with("a", three_regions());
        host.image.hold(0..4096);
        let held = [a.read(To::ring(2).data_in(1), 0, 512), a.read(To::ring(3).data_in(2), 1, 512)];
        host.image.wait_held(2);
        // The same table again: nothing is gone.
        a.guest.set_table();
        let table = |regions: &[usize], guest: &Guest| {
            let regions: Vec<_> = regions.iter().map(|i| guest.ram.regions[*i]).collect();
            let fds: Vec<_> = guest.ram.fds().into_iter().take(regions.len()).collect();
            let flags = frontend::wire::VERSION | frontend::wire::NEED_REPLY;
            guest.wire.try_send(SET_MEM_TABLE as u32, flags, &Wire::table(&regions), &fds).unwrap();
        };
        table(&[0, 1], &a.guest);
        assert!(!comes_within(&a.guest.wire, A_MOMENT), "a command is about to write to the third region");
        let begun = host.image.held();
        host.image.release(begun.iter().find(|begun| begun.offset == 512).unwrap());
        assert_eq!(a.guest.wire.reply_u64(SET_MEM_TABLE), 0);
        a.assert_held(&held[..1]);
        host.image.release_all();
        assert_eq!(a.wait_good(&held[0]), block(0));
        assert_eq!(a.wait_good(&held[1]), block(1));
        host.stop();
    });
}

/// A log comes, and another one, under a command: what it writes is marked in the one that is in force when it ends, although the memory goes
/// away.
#[test]
fn what_is_under_way_is_marked_where_it_ends() {
    on_each(|host| {
        let mut a = host.guest_with("a", three_regions());
        host.image.hold(0..4096);
        let held = a.read(To::ring(2).data_in(1).response_in(1), 0, 512);
        host.image.wait_held(1);
        // A bit for each page of all three regions.
        let size = ((2 << 32) + (1 << 20)) / 4096 / 8;
        let log = |guest: &Guest| {
            let file = frontend::ram::memfd(size, 0).unwrap();
            guest.wire.set_log_base(size, 0, file.as_raw_fd());
            file
        };
        let is_marked = |log: &File, at: u64| {
            let mut byte = [0];
            log.read_exact_at(&mut byte, at / 4096 / 8).unwrap();
            byte[0] & 1 << (at / 4096 % 8) != 0
        };
        let first = log(&a.guest);
        let features = a.guest.features | frontend::wire::LOG_ALL;
        assert_eq!(a.guest.wire.acked(SET_FEATURES, &features.to_ne_bytes(), &[]), 0);
        let second = log(&a.guest);
        ask(&a.guest, REM_MEM_REG, &Wire::single(&a.guest.ram.regions[1]));
        assert!(!comes_within(&a.guest.wire, A_MOMENT), "a command is about to write there");
        assert!(!is_marked(&second, held.data), "it has not been written");
        host.image.release_all();
        assert_eq!(a.guest.wire.reply_u64(REM_MEM_REG), 0);
        for at in [held.data, held.response] {
            assert!(at >= 1 << 32 && is_marked(&second, at) && !is_marked(&first, at));
        }
        a.poll();
        assert!(a.is_done(&held), "answered first");
        assert_eq!(a.wait_good(&held), block(0));
        host.stop();
    });
}
