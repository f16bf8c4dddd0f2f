//! The event queue: what a guest is told of the disk without having asked, over real sockets.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, missing_docs, reason = "test code")]

mod drive;
mod frontend;

use std::fs::{self, File};

use vhost::vhost_user::VhostUserFrontend;

use drive::{CONTROL, INCORRECT_LUN, OK};
use frontend::guest::{A_MOMENT, LINUX_FEATURES, connect, lun};
use frontend::queue::{F_NEXT, F_WRITE};
use frontend::{BOUND, Buffer, Guest, Ram, Vstgt};

const EVENTS: u16 = 1;
/// Bytes of an event (virtio 1.2 5.6.6.3).
const EVENT: u32 = 16;

/// VIRTIO_SCSI_F_CHANGE.
const F_CHANGE: u64 = 1 << 2;

/// Asynchronous notification on the control queue: types and classes (virtio 1.2 5.6.6.2).
const QUERY: u32 = 1;
const SUBSCRIBE: u32 = 2;
const OPERATIONAL_CHANGE: u32 = 2;
const MEDIA_CHANGE: u32 = 16;
const MULTI_HOST: u32 = 32;

/// CAPACITY DATA HAS CHANGED.
const CAPACITY_CHANGED: (u8, u8, u8) = (6, 0x2a, 0x09);

/// Two guests on one disk, which grows. The first looks at its size, which is how `vstgt` finds out.
struct Disk {
    vstgt: Vstgt,
    finder: Guest,
}

impl Disk {
    fn new() -> Disk {
        let vstgt = Vstgt::start(2);
        let finder = Guest::attached(vstgt.socket(0));
        Disk { vstgt, finder }
    }

    /// The other guest, with these features and nothing on its rings.
    fn guest(&self, features: u64) -> Guest {
        let mut guest = Guest::over(connect(self.vstgt.socket(1)), Ram::new(16 << 20));
        guest.negotiate();
        guest.start(features, &[0, 1, 2], 64);
        guest.clear_attentions();
        guest
    }

    /// Makes the image larger and lets the first guest find it.
    fn grow(&mut self) {
        let image = self.vstgt.image();
        let size = fs::metadata(&image).unwrap().len() + (1 << 20);
        File::options().write(true).open(image).unwrap().set_len(size).unwrap();
        let at = self.finder.ram.alloc(8);
        let answer = self.finder.command(&[0x25, 0, 0, 0, 0, 0, 0, 0, 0, 0], &[], &[Buffer::input(at, 8)]);
        assert!(answer.good(), "{answer:?}");
        let last = u32::from_be_bytes(self.finder.ram.read(at, 4).try_into().unwrap());
        assert_eq!(u64::from(last), size / 512 - 1);
    }
}

/// Leaves a buffer for an event; where it is. Does not kick.
fn leave(guest: &mut Guest) -> u64 {
    let at = guest.ram.alloc(EVENT.into());
    guest.ram.write(at, &[0xee; EVENT as usize]);
    guest.queue(EVENTS).push(&[Buffer::input(at, EVENT)]);
    at
}

/// The event that comes into the buffer at `at`.
fn event(guest: &mut Guest, at: u64) -> [u8; 16] {
    let (_, len) = guest.queue(EVENTS).wait_used(BOUND).expect("an event in time");
    assert_eq!(len, EVENT);
    guest.ram.read(at, EVENT as usize).try_into().unwrap()
}

fn assert_no_event(guest: &mut Guest) {
    assert_eq!(guest.queue(EVENTS).wait_used(A_MOMENT), None);
}

/// PARAM_CHANGE of LUN 0 with this code.
fn param_change(asc: u8, ascq: u8) -> [u8; 16] {
    [3, 0, 0, 0, 1, 0, 0, 0, 0, 0, 0, 0, asc, ascq, 0, 0]
}

/// The same after events that were lost.
fn after_missed(event: [u8; 16]) -> [u8; 16] {
    let mut event = event;
    event[3] |= 0x80;
    event
}

const GROWN: [u8; 16] = [3, 0, 0, 0, 1, 0, 0, 0, 0, 0, 0, 0, 0x2a, 0x09, 0, 0];
const NO_EVENT: [u8; 16] = [0; 16];

/// An asynchronous notification request; its answer: events and response code.
fn notification(guest: &mut Guest, kind: u32, lun: [u8; 8], events: u32) -> (u32, u8) {
    let mark = guest.ram.mark();
    let (request, response) = (guest.ram.alloc(16), guest.ram.alloc(5));
    let bytes = [&kind.to_le_bytes()[..], &lun, &events.to_le_bytes()].concat();
    guest.ram.write(request, &bytes);
    guest.ram.write(response, &[0xff; 5]);
    let queue = guest.queue(CONTROL);
    queue.push(&[Buffer::out(request, 16), Buffer::input(response, 5)]);
    queue.kick();
    let (_, len) = queue.wait_used(BOUND).expect("an answer in time");
    assert_eq!(len, 5);
    let answer = guest.ram.read(response, 5);
    guest.ram.release(mark);
    (u32::from_le_bytes(answer[..4].try_into().unwrap()), answer[4])
}

/// Waits until all events that were on their way to the guest have arrived or were lost: the reactor that they go to answers this.
fn settle(guest: &mut Guest) {
    notification(guest, QUERY, lun(0, 0), 0);
}

#[test]
fn a_disk_that_grows_is_told_of() {
    let mut disk = Disk::new();
    let mut guest = disk.guest(LINUX_FEATURES);
    let buffers: Vec<u64> = (0..8).map(|_| leave(&mut guest)).collect();
    guest.queue(EVENTS).kick();
    assert_no_event(&mut guest);
    while guest.queue(EVENTS).call.read().is_ok() {}

    disk.grow();
    assert_eq!(event(&mut guest, buffers[0]), GROWN);
    assert!(guest.queue(EVENTS).wait_interrupt(BOUND), "the guest is interrupted for it");
    assert_no_event(&mut guest);
    // The unit attention is there as well, and once.
    assert_eq!(guest.test_unit_ready().sense_code(), Some(CAPACITY_CHANGED));
    assert!(guest.test_unit_ready().good());
    assert!(disk.finder.test_unit_ready().good(), "who found it knows it");

    // Each time again, whether or not the unit attention was reported, in the order of the buffers.
    for &buffer in &buffers[1..] {
        disk.grow();
        assert_eq!(event(&mut guest, buffer), GROWN);
    }
    assert_eq!(guest.queue(EVENTS).outstanding(), 0);
    drop(guest);
    drop(disk.finder);
    disk.vstgt.stop();
}

/// Units above 255 and other targets are named as REPORT LUNS lists them: that is how guests know them.
#[test]
fn a_unit_is_named_as_it_is_listed() {
    let dir = tempfile::tempdir().unwrap();
    for image in ["disk.img", "far.img"] {
        File::create(dir.path().join(image)).unwrap().set_len(1 << 20).unwrap();
    }
    let far = dir.path().join("far.img");
    let vstgt = Vstgt::start_in(dir, 2, |command| {
        command.arg("--lun").arg(format!("file={},target=2,lun=300", far.display()));
    });
    let mut finder = Guest::attached(vstgt.socket(0));
    let mut guest = Guest::attached(vstgt.socket(1));
    let buffer = leave(&mut guest);
    File::options().write(true).open(&far).unwrap().set_len(2 << 20).unwrap();
    let (header, response, data) = (finder.ram.alloc(51), finder.ram.alloc(108), finder.ram.alloc(8));
    loop {
        finder.ram.write(header, &Guest::header(lun(2, 300), &[0x25, 0, 0, 0, 0, 0, 0, 0, 0, 0]));
        let queue = finder.queue(2);
        queue.push(&[Buffer::out(header, 51), Buffer::input(response, 108), Buffer::input(data, 8)]);
        queue.kick();
        let (_, len) = queue.wait_used(BOUND).unwrap();
        let answer = finder.parse_response(response, len);
        if answer.good() {
            break;
        }
        assert_eq!(answer.sense_code(), Some((6, 0x29, 0)), "a new nexus");
    }
    assert_eq!(event(&mut guest, buffer), [3, 0, 0, 0, 1, 2, 0x41, 0x2c, 0, 0, 0, 0, 0x2a, 0x09, 0, 0]);
}

/// Without VIRTIO_SCSI_F_CHANGE there are no such events, and none are missed.
#[test]
fn who_did_not_ask_for_changes_is_not_told() {
    let mut disk = Disk::new();
    let mut guest = disk.guest(LINUX_FEATURES & !F_CHANGE);
    disk.grow();
    let buffer = leave(&mut guest);
    guest.queue(EVENTS).kick();
    disk.grow();
    assert_no_event(&mut guest);
    assert_eq!(guest.test_unit_ready().sense_code(), Some(CAPACITY_CHANGED));
    // Subscribing needs no feature.
    assert_eq!(notification(&mut guest, SUBSCRIBE, lun(0, 0), OPERATIONAL_CHANGE), (OPERATIONAL_CHANGE, OK));
    disk.grow();
    assert_eq!(event(&mut guest, buffer), [2, 0, 0, 0, 1, 0, 0, 0, 0, 0, 0, 0, 2, 0, 0, 0]);
}

/// A guest without an event queue (firmware) is served like any other, and its successor has missed nothing.
#[test]
fn no_event_ring_at_all() {
    let mut disk = Disk::new();
    let mut guest = Guest::over(connect(disk.vstgt.socket(1)), Ram::new(16 << 20));
    guest.negotiate();
    guest.start(LINUX_FEATURES, &[2], 64);
    guest.clear_attentions();
    disk.grow();
    assert_eq!(guest.test_unit_ready().sense_code(), Some(CAPACITY_CHANGED));
    guest.frontend.reset_device().unwrap();
    guest.queues.clear();
    guest.set_features(LINUX_FEATURES);
    guest.start_rings(&[0, 1, 2], 64);
    let buffer = leave(&mut guest);
    guest.queue(EVENTS).kick();
    assert_no_event(&mut guest);
    disk.grow();
    assert_eq!(event(&mut guest, buffer), GROWN);
}

/// VIRTIO_SCSI_T_EVENTS_MISSED.
#[test]
fn events_without_a_buffer_are_missed() {
    for features in [LINUX_FEATURES, LINUX_FEATURES & !frontend::wire::EVENT_IDX] {
        let mut disk = Disk::new();
        let mut guest = disk.guest(features);
        disk.grow();
        disk.grow();
        settle(&mut guest);
        // As soon as there is a buffer.
        let buffer = leave(&mut guest);
        guest.queue(EVENTS).kick();
        assert_eq!(event(&mut guest, buffer), after_missed(NO_EVENT));
        // Once.
        let buffer = leave(&mut guest);
        guest.queue(EVENTS).kick();
        assert_no_event(&mut guest);
        disk.grow();
        assert_eq!(event(&mut guest, buffer), GROWN);
        // With the next event, if no kick came before it.
        disk.grow();
        settle(&mut guest);
        let buffer = leave(&mut guest);
        disk.grow();
        assert_eq!(event(&mut guest, buffer), after_missed(GROWN));
        let buffer = leave(&mut guest);
        disk.grow();
        assert_eq!(event(&mut guest, buffer), GROWN);
        assert_undisturbed(&mut guest);
    }
}

/// Commands go on as if nothing had been.
fn assert_undisturbed(guest: &mut Guest) {
    guest.clear_attentions();
    guest.check_io(5);
}

/// What happens while a machine is stopped is missed; what happens while its device is reset is not its next driver's business.
#[test]
fn stopping_and_resetting() {
    let mut disk = Disk::new();
    let mut guest = disk.guest(LINUX_FEATURES);
    let first = leave(&mut guest);
    let second = leave(&mut guest);
    disk.grow();
    assert_eq!(event(&mut guest, first), GROWN);
    let bases = guest.stop();
    assert_eq!(bases[usize::from(EVENTS)], 1, "a buffer that was not used is still the ring's");
    disk.grow();
    guest.go_on(&bases);
    assert_eq!(event(&mut guest, second), after_missed(NO_EVENT));
    let third = leave(&mut guest);
    disk.grow();
    assert_eq!(event(&mut guest, third), GROWN);

    guest.stop();
    disk.grow();
    guest.frontend.reset_device().unwrap();
    guest.queues.iter_mut().for_each(|queue| queue.clear());
    guest.set_features(LINUX_FEATURES);
    let bases = vec![0; guest.queues.len()];
    guest.go_on(&bases);
    let buffer = leave(&mut guest);
    guest.queue(EVENTS).kick();
    assert_no_event(&mut guest);
    disk.grow();
    assert_eq!(event(&mut guest, buffer), GROWN);
    assert_undisturbed(&mut guest);
}

#[test]
fn asynchronous_notification() {
    let mut disk = Disk::new();
    let mut guest = disk.guest(LINUX_FEATURES);
    let all = u32::MAX;
    assert_eq!(notification(&mut guest, QUERY, lun(0, 0), all), (OPERATIONAL_CHANGE | MULTI_HOST, OK));
    assert_eq!(notification(&mut guest, QUERY, lun(0, 0), MEDIA_CHANGE), (0, OK));
    assert_eq!(notification(&mut guest, QUERY, [1, 0, 0, 0, 0, 0, 0, 0], MULTI_HOST), (MULTI_HOST, OK), "either form");
    for absent in [lun(0, 9), lun(3, 0), [0xff; 8], [0; 8]] {
        assert_eq!(notification(&mut guest, QUERY, absent, all), (0, INCORRECT_LUN));
        assert_eq!(notification(&mut guest, SUBSCRIBE, absent, all), (0, INCORRECT_LUN));
    }
    let buffers: Vec<u64> = (0..6).map(|_| leave(&mut guest)).collect();
    disk.grow();
    assert_eq!(event(&mut guest, buffers[0]), GROWN, "asking is not subscribing");

    let wanted = OPERATIONAL_CHANGE | MEDIA_CHANGE;
    assert_eq!(notification(&mut guest, SUBSCRIBE, lun(0, 0), wanted), (OPERATIONAL_CHANGE, OK));
    disk.grow();
    let changed = [2, 0, 0, 0, 1, 0, 0, 0, 0, 0, 0, 0, 2, 0, 0, 0];
    assert_eq!([event(&mut guest, buffers[1]), event(&mut guest, buffers[2])], [GROWN, changed]);

    // A subscription takes the place of the one before, and none is one, too.
    assert_eq!(notification(&mut guest, SUBSCRIBE, lun(0, 0), 0), (0, OK));
    disk.grow();
    assert_eq!(event(&mut guest, buffers[3]), GROWN);
    assert_no_event(&mut guest);

    // It is kept while the rings are stopped, and ends with the driver.
    assert_eq!(notification(&mut guest, SUBSCRIBE, lun(0, 0), all), (OPERATIONAL_CHANGE | MULTI_HOST, OK));
    let bases = guest.stop();
    guest.go_on(&bases);
    disk.grow();
    assert_eq!([event(&mut guest, buffers[4]), event(&mut guest, buffers[5])], [GROWN, changed]);
    guest.frontend.reset_device().unwrap();
    guest.queues.iter_mut().for_each(|queue| queue.clear());
    guest.set_features(LINUX_FEATURES);
    let bases = vec![0; guest.queues.len()];
    guest.go_on(&bases);
    let buffers: Vec<u64> = (0..2).map(|_| leave(&mut guest)).collect();
    disk.grow();
    assert_eq!(event(&mut guest, buffers[0]), GROWN);
    assert_no_event(&mut guest);
    assert_undisturbed(&mut guest);
}

/// Buffers that hold no event are given back empty; the event goes to the first that does.
#[test]
fn buffers_of_no_use() {
    let mut disk = Disk::new();
    let mut guest = disk.guest(LINUX_FEATURES);
    let ram = guest.ram.clone();
    let at = ram.alloc(4096);
    ram.write(at, &[0xee; 4096]);
    let queue = guest.queue(EVENTS);
    queue.push(&[Buffer::input(at, 15)]);
    queue.push(&[Buffer::out(at, 16)]);
    queue.push(&[Buffer::input(at, 0)]);
    queue.push(&[Buffer::input(u64::MAX - 3, 16)]);
    queue.push(&[Buffer::input((16 << 20) - 8, 16)]);
    queue.push(&[Buffer::input(at, 16), Buffer::out(at, 16)]);
    queue.push_indirect(&[Buffer::input(at, 8)]);
    let bad = queue.outstanding();
    // In pieces, with something to read before it, and larger than it need be.
    let good = queue.push(&[Buffer::out(at + 64, 8), Buffer::input(at + 128, 3), Buffer::input(at + 256, 500)]);
    disk.grow();
    for _ in 0..bad {
        let (head, len) = guest.queue(EVENTS).wait_used(BOUND).expect("it is given back");
        assert_eq!(len, 0, "head {head}");
    }
    assert_eq!(guest.queue(EVENTS).wait_used(BOUND), Some((good, 16)));
    assert_eq!(
        [ram.read(at + 128, 4), ram.read(at + 256, 14)].concat(),
        [&GROWN[..3], &[0xee], &GROWN[3..], &[0xee]].concat()
    );
    assert_eq!(ram.read(at, 16), [0xee; 16], "nothing is written to those that were of no use");
    assert_undisturbed(&mut guest);
}

/// An event ring that makes no sense costs its guest the events, and nobody anything else.
#[test]
fn rings_that_make_no_sense() {
    type Misuse = fn(&mut Guest);
    let misuses: [(&str, Misuse); 4] = [
        ("an index that jumps", |guest| guest.queue(EVENTS).set_avail_idx(1000)),
        ("a head that does not exist", |guest| guest.queue(EVENTS).push_head(64)),
        ("a chain without end", |guest| {
            let at = guest.ram.alloc(16);
            let queue = guest.queue(EVENTS);
            queue.write_desc(0, at, 16, F_NEXT | F_WRITE, 0);
            queue.push_head(0);
        }),
        ("one head over and over", |guest| {
            let queue = guest.queue(EVENTS);
            queue.write_desc(0, 0, 1, F_WRITE, 0);
            (0..64).for_each(|_| queue.push_head(0));
        }),
    ];
    let mut disk = Disk::new();
    for (what, misuse) in misuses {
        let mut guest = disk.guest(LINUX_FEATURES);
        misuse(&mut guest);
        for _ in 0..5 {
            guest.queue(EVENTS).kick();
            disk.grow();
        }
        assert_eq!(guest.clear_attentions(), [CAPACITY_CHANGED], "{what}");
        guest.check_io(9);
        assert_eq!(notification(&mut guest, QUERY, lun(0, 0), 2), (2, OK), "{what}");
        disk.finder.check_io(3);
    }
    disk.vstgt.assert_alive();
}

/// A mode page that one guest changes is told to the other; the one that did it knows.
#[test]
fn a_mode_page_that_changes_is_told_of() {
    let mut disk = Disk::new();
    let mut guest = disk.guest(LINUX_FEATURES);
    let buffer = leave(&mut guest);
    let own = leave(&mut disk.finder);
    // MODE SELECT(6), PF: Control page with TAS.
    let list = [0, 0, 0, 0, 0x0a, 10, 0x20, 0x10, 0, 0x40, 0, 0, 0, 0, 0, 0];
    let at = disk.finder.ram.alloc(16);
    disk.finder.ram.write(at, &list);
    let answer = disk.finder.command(&[0x15, 0x10, 0, 0, 16, 0], &[Buffer::out(at, 16)], &[]);
    assert!(answer.good(), "{answer:?}");
    assert_eq!(event(&mut guest, buffer), param_change(0x2a, 0x01));
    assert_eq!(guest.clear_attentions(), [(6, 0x2a, 0x01)]);
    assert_no_event(&mut disk.finder);
    // And the other way.
    guest.ram.write(0x100_0000 - 16, &[0, 0, 0, 0, 0x0a, 10, 0x20, 0x10, 0, 0, 0, 0, 0, 0, 0, 0]);
    let answer = guest.command(&[0x15, 0x10, 0, 0, 16, 0], &[Buffer::out(0x100_0000 - 16, 16)], &[]);
    assert!(answer.good(), "{answer:?}");
    assert_eq!(event(&mut disk.finder, own), param_change(0x2a, 0x01));
}

/// Events go to the reactor that has the guest's event ring, wherever they come from, while commands are under way.
#[test]
fn many_events_under_load() {
    const EVENTS_IN_ALL: usize = 200;
    let mut disk = Disk::new();
    let mut guest = disk.guest(LINUX_FEATURES);
    let mut buffers: std::collections::VecDeque<u64> = (0..32).map(|_| leave(&mut guest)).collect();
    for round in 0..EVENTS_IN_ALL {
        disk.grow();
        let at = buffers.pop_front().unwrap();
        assert_eq!(event(&mut guest, at), GROWN, "round {round}");
        guest.queue(EVENTS).push(&[Buffer::input(at, EVENT)]);
        buffers.push_back(at);
        if round % 10 == 0 {
            assert_undisturbed(&mut guest);
        }
    }
    assert_no_event(&mut guest);
}
