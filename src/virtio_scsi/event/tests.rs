use super::*;
use crate::mem::OutsideMemory;
use crate::mem::testing::memory;
use crate::virtio_scsi::testing::chain;

const LUN: Lun = Lun([1, 3, 0x40, 5, 0, 0, 0, 0]);

#[test]
fn events_in_bytes() {
    let bytes = |event: [u8; 4], lun: Lun, reason: [u8; 4]| {
        let mut bytes = [0; 16];
        bytes[..4].copy_from_slice(&event);
        bytes[4..12].copy_from_slice(&lun.0);
        bytes[12..].copy_from_slice(&reason);
        bytes
    };
    let none = Lun::default();
    assert_eq!(Event::NoEvent.encode(true), bytes([0, 0, 0, 0x80], none, [0; 4]));
    let reset = |reason| Event::TransportReset { lun: LUN, reason };
    assert_eq!(reset(ResetReason::Hard).encode(false), bytes([1, 0, 0, 0], LUN, [0, 0, 0, 0]));
    assert_eq!(reset(ResetReason::Rescan).encode(false), bytes([1, 0, 0, 0], LUN, [1, 0, 0, 0]));
    assert_eq!(reset(ResetReason::Removed).encode(true), bytes([1, 0, 0, 0x80], LUN, [2, 0, 0, 0]));
    let notify = Event::AsyncNotify { lun: LUN, event: wire::AN_MEDIA_CHANGE };
    assert_eq!(notify.encode(false), bytes([2, 0, 0, 0], LUN, [16, 0, 0, 0]));
    // CAPACITY DATA HAS CHANGED, 2A/09.
    let change = Event::ParamChange { lun: LUN, asc: 0x2a, ascq: 0x09 };
    assert_eq!(change.encode(false), bytes([3, 0, 0, 0], LUN, [0x2a, 0x09, 0, 0]));
}

#[test]
fn an_event_goes_where_the_driver_said() {
    let map = memory(&[(0, 0x1000)]);
    map.unlogged().write(0, &[0xff; 0x1000]).unwrap();
    let mut chain = chain(&[], &[(0x100, 7), (0x200, 100)]);
    chain.head = 9;
    let buffer = EventBuffer::parse(&chain, &map).unwrap();
    assert_eq!(buffer.head, 9);
    let event = Event::TransportReset { lun: LUN, reason: ResetReason::Removed };
    assert_eq!(buffer.write(map.unlogged(), event, false), 16);
    let (mut first, mut second) = ([0; 8], [0; 10]);
    map.read(0x100, &mut first).unwrap();
    map.read(0x200, &mut second).unwrap();
    assert_eq!(first, [1, 0, 0, 0, 1, 3, 0x40, 0xff]);
    assert_eq!(second, [5, 0, 0, 0, 0, 2, 0, 0, 0, 0xff]);
}

#[test]
fn a_buffer_that_holds_no_event_is_given_back() {
    let map = memory(&[(0, 0x1000)]);
    let fault =
        |readable: &[(u64, u32)], writable: &[(u64, u32)]| match EventBuffer::parse(&chain(readable, writable), &map)
            .unwrap_err()
        {
            ChainError::Unanswerable(fault) => fault,
            other => panic!("{other}"),
        };
    assert_eq!(fault(&[(0, 16)], &[]), ChainFault::ShortResponse(0));
    assert_eq!(fault(&[], &[(0, 15)]), ChainFault::ShortResponse(15));
    let outside = OutsideMemory { addr: 0xff8, len: 16 };
    assert_eq!(fault(&[], &[(0xff8, 16)]), ChainFault::ResponseOutside(outside));
}
