//! Task management with commands under way on two reactors.

use super::*;

/// The id is the guest's and may repeat; its commands may be on several reactors.
#[test]
fn abort_task_is_answered_after_all_that_it_aborts() {
    on_each(|host| {
        let mut a = host.guest("a");
        host.image.hold_all();
        let same = [a.read(To::ring(2).id(7), 0, 512), a.read(To::ring(3).id(7), 8, 512)];
        let spared = a.read(To::ring(2).id(8), 16, 512);
        let begun = host.image.wait_held(3);
        let abort = a.function(ABORT_TASK, LUN0, 7);
        a.assert_held(&[abort, same[0], same[1], spared]);
        host.image.release(begun.iter().find(|begun| begun.offset == 8 * 512).unwrap());
        assert_eq!(a.wait(&same[1]).response, ABORTED);
        a.assert_held(&[abort]);
        host.image.release(begun.iter().find(|begun| begun.offset == 0).unwrap());
        // `poll` looks at the control ring first, so what is seen then was there before.
        assert_eq!(a.wait_function(&abort), OK);
        assert!(a.is_done(&same[0]), "the function's answer overtook the command's");
        assert_eq!(a.wait(&same[0]).response, ABORTED);
        a.assert_held(&[spared]);
        host.image.release_all();
        assert_eq!(a.wait_good(&spared), block(16));
        host.stop();
    });
}

#[test]
fn a_unit_has_two_addresses_for_functions_too() {
    on_each(|host| {
        let mut a = host.guest("a");
        host.image.hold_all();
        let flat = a.read(To::ring(3).id(5).lun(lun(0, 0)), 0, 512);
        host.image.wait_held(1);
        let query = a.function(QUERY_TASK, LUN0, 5);
        assert_eq!(a.wait_function(&query), FUNCTION_SUCCEEDED);
        let abort = a.function(ABORT_TASK, LUN0, 5);
        a.assert_held(&[abort]);
        host.image.release_all();
        assert_eq!(a.wait_function(&abort), OK);
        assert_eq!(a.wait(&flat).response, ABORTED);
        host.stop();
    });
}

/// Commands that are on the rings when the function is posted are covered, whether or not their rings were kicked.
#[test]
fn a_function_sees_what_was_posted_before_it() {
    on_each(|host| {
        let mut a = host.guest("a");
        host.image.hold_all();
        let quiet = [2, 3].map(|ring| a.quietly(To::ring(ring).id(9), &rw10(0x28, u32::from(ring), 0)));
        let at = a.guest.ram.alloc(512);
        let read = |ring| {
            let header = Guest::header(LUN0, &rw10(0x28, 0, 512));
            (ring, header)
        };
        // Two reads without a kick.
        let mut reads = Vec::new();
        for (ring, mut header) in [read(2), read(3)] {
            header[8..16].copy_from_slice(&9u64.to_le_bytes());
            let ram = a.guest.ram.clone();
            let (request, response) = (ram.alloc(51), ram.alloc(108));
            ram.write(request, &header);
            let chain = [Buffer::out(request, 51), Buffer::input(response, 108), Buffer::input(at, 512)];
            let head = a.guest.queue(ring).push(&chain);
            reads.push(Sent { ring, head, response, data: at, len: 512 });
        }
        let query = a.function(QUERY_TASK, LUN0, 9);
        assert_eq!(a.wait_function(&query), FUNCTION_SUCCEEDED);
        host.image.wait_held(2);
        for sent in quiet {
            assert!(a.wait(&sent).good(), "a read of nothing");
        }
        let abort = a.function(ABORT_TASK, LUN0, 9);
        a.assert_held(&[abort, reads[0], reads[1]]);
        host.image.release_all();
        assert_eq!(a.wait_function(&abort), OK);
        for sent in reads {
            assert_eq!(a.wait(&sent).response, ABORTED);
        }
        host.stop();
    });
}

#[test]
fn functions_that_find_nothing_say_so() {
    on_each(|host| {
        let mut a = host.guest("a");
        host.image.hold_all();
        let held = a.read(To::ring(3).id(7), 0, 512);
        host.image.wait_held(1);
        let nowhere = lun(0, 99);
        for (subtype, to, id, expected) in [
            (ABORT_TASK, LUN0, 1234, OK),
            (QUERY_TASK, LUN0, 1234, OK),
            (QUERY_TASK, LUN0, 7, FUNCTION_SUCCEEDED),
            (QUERY_TASK, LUN1, 7, OK),
            (ABORT_TASK, LUN1, 7, OK),
            (QUERY_TASK_SET, LUN0, 0, FUNCTION_SUCCEEDED),
            (QUERY_TASK_SET, LUN1, 0, OK),
            (ABORT_TASK_SET, LUN1, 0, OK),
            (ABORT_TASK, nowhere, 7, INCORRECT_LUN),
            (QUERY_TASK, nowhere, 7, INCORRECT_LUN),
            (ABORT_TASK_SET, nowhere, 0, INCORRECT_LUN),
            (LOGICAL_UNIT_RESET, nowhere, 0, INCORRECT_LUN),
            (LOGICAL_UNIT_RESET, lun(9, 0), 0, INCORRECT_LUN),
            // CLEAR ACA, where there is no such condition.
            (2, LUN0, 0, OK),
            (2, nowhere, 0, INCORRECT_LUN),
            (8, LUN0, 0, FUNCTION_REJECTED),
            (u32::MAX, LUN0, 0, FUNCTION_REJECTED),
        ] {
            let function = a.function(subtype, to, id);
            assert_eq!(a.wait_function(&function), expected, "subtype {subtype} {to:?} {id}");
        }
        a.assert_held(&[held]);
        host.image.release_all();
        assert_eq!(a.wait_good(&held), block(0));
        let query = a.function(QUERY_TASK, LUN0, 7);
        assert_eq!(a.wait_function(&query), OK);
        host.stop();
    });
}

#[test]
fn abort_task_set_is_about_one_nexus_and_one_unit() {
    on_each(|host| {
        let (mut a, mut b) = (host.guest("a"), host.guest("b"));
        host.image.hold_all();
        host.shared.hold_all();
        for subtype in [ABORT_TASK_SET, CLEAR_TASK_SET] {
            let mine = [2, 3].map(|ring| a.read(To::ring(ring).lun(LUN1), 0, 512));
            let elsewhere = a.read(To::ring(2), 0, 512);
            let theirs = b.read(To::ring(2).lun(LUN1), 8, 512);
            host.image.wait_held(1);
            let begun = host.shared.wait_held(3);
            let function = a.function(subtype, LUN1, 0);
            a.assert_held(&[function, mine[0], mine[1], elsewhere]);
            for begun in begun.iter().filter(|begun| begun.offset == 0) {
                host.shared.release(begun);
            }
            assert_eq!(a.wait_function(&function), OK);
            for sent in &mine {
                assert!(a.is_done(sent));
                assert_eq!(a.wait(sent).response, ABORTED);
            }
            a.assert_held(&[elsewhere]);
            b.assert_held(&[theirs]);
            host.image.release(&host.image.held()[0]);
            host.shared.release(&host.shared.held()[0]);
            a.wait_good(&elsewhere);
            b.wait_good(&theirs);
        }
        host.stop();
    });
}

#[test]
fn a_unit_reset_ends_everybodys_commands() {
    on_each(|host| {
        let (mut a, mut b) = (host.guest("a"), host.guest("b"));
        host.image.hold_all();
        host.shared.hold_all();
        let mine = a.read(To::ring(3).lun(LUN1), 0, 512);
        let theirs = b.read(To::ring(2).lun(LUN1), 0, 512);
        let elsewhere = a.read(To::ring(2), 0, 512);
        host.shared.wait_held(2);
        host.image.wait_held(1);
        let reset = a.function(LOGICAL_UNIT_RESET, LUN1, 0);
        a.assert_held(&[reset, mine, elsewhere]);
        b.assert_held(&[theirs]);
        host.shared.release_all();
        assert_eq!(a.wait_function(&reset), OK);
        assert!(a.is_done(&mine));
        assert_eq!(a.wait(&mine).response, RESET);
        assert_eq!(b.wait(&theirs).response, RESET);
        for guest in [&mut a, &mut b] {
            let first = guest.command(To::ring(2).lun(LUN1), &TEST_UNIT_READY);
            assert_eq!(guest.wait(&first).sense_code(), Some((6, 0x29, 3)), "BUS DEVICE RESET FUNCTION OCCURRED");
            let second = guest.command(To::ring(2).lun(LUN1), &TEST_UNIT_READY);
            assert!(guest.wait(&second).good());
        }
        a.assert_held(&[elsewhere]);
        host.image.release_all();
        a.wait_good(&elsewhere);
        host.stop();
    });
}

#[test]
fn a_nexus_reset_ends_one_guests_commands() {
    on_each(|host| {
        let (mut a, mut b) = (host.guest("a"), host.guest("b"));
        host.image.hold_all();
        host.shared.hold_all();
        let mine = [a.read(To::ring(2), 0, 512), a.read(To::ring(3).lun(LUN1), 0, 512)];
        let theirs = b.read(To::ring(2).lun(LUN1), 8, 512);
        host.image.wait_held(1);
        let begun = host.shared.wait_held(2);
        let reset = a.function(I_T_NEXUS_RESET, LUN0, 0);
        a.assert_held(&[reset, mine[0], mine[1]]);
        host.image.release_all();
        a.assert_held(&[reset]);
        host.shared.release(begun.iter().find(|begun| begun.offset == 0).unwrap());
        assert_eq!(a.wait_function(&reset), OK);
        for sent in &mine {
            assert!(a.is_done(sent));
            assert_eq!(a.wait(sent).response, RESET);
        }
        b.assert_held(&[theirs]);
        host.shared.release_all();
        assert_eq!(b.wait_good(&theirs), block(8));
        for to in [To::ring(2), To::ring(2).lun(LUN1)] {
            let first = a.command(to, &TEST_UNIT_READY);
            assert_eq!(a.wait(&first).sense_code(), Some((6, 0x29, 7)), "I_T NEXUS LOSS OCCURRED");
        }
        host.stop();
    });
}
