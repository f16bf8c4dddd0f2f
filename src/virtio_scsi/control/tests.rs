use std::sync::Arc;

use super::*;
use crate::mem::OutsideMemory;
use crate::mem::testing::memory;
use crate::virtio_scsi::testing::chain;

const REQUEST: u64 = 0x100;
const RESPONSE: u64 = 0x200;

/// ABORT TASK of command 0x1122334455667788 on target 3 LUN 5.
const ABORT_TASK: [u8; 24] = [
    0, 0, 0, 0, // type: TMF
    0, 0, 0, 0, // subtype
    0x01, 0x03, 0x40, 0x05, 0, 0, 0, 0, // lun
    0x88, 0x77, 0x66, 0x55, 0x44, 0x33, 0x22, 0x11, // id
];

/// A subscription to media change and operational change on target 3 LUN 5.
const SUBSCRIBE: [u8; 16] = [
    2, 0, 0, 0, // type: AN_SUBSCRIBE
    0x01, 0x03, 0x40, 0x05, 0, 0, 0, 0, // lun
    0x12, 0, 0, 0, // event_requested
];

const LUN: Lun = Lun([1, 3, 0x40, 5, 0, 0, 0, 0]);

fn guest(request: &[u8]) -> Arc<MemoryMap> {
    let map = memory(&[(0, 0x1000)]);
    map.unlogged().write(REQUEST, request).unwrap();
    map.unlogged().write(RESPONSE, &[0xff; 16]).unwrap();
    map
}

fn parse(map: &MemoryMap, readable: &[(u64, u32)], writable: &[(u64, u32)]) -> Result<ControlRequest, ChainError> {
    let mut request = ControlRequest::default();
    request.parse(&chain(readable, writable), map).map(|()| request)
}

fn response(map: &MemoryMap) -> [u8; 6] {
    let mut bytes = [0; 6];
    map.read(RESPONSE, &mut bytes).unwrap();
    bytes
}

#[test]
fn a_task_management_function() {
    let map = guest(&ABORT_TASK);
    let request = parse(&map, &[(REQUEST, 24)], &[(RESPONSE, 1)]).unwrap();
    let id = 0x1122_3344_5566_7788;
    let function = Some(TaskManagementFunction::AbortTask);
    assert_eq!(request.function, ControlFunction::TaskManagement { function, lun: LUN, id });
    assert_eq!(request.response.write_task_management(map.unlogged(), ResponseCode::FunctionSucceeded), 1);
    assert_eq!(response(&map), [10, 0xff, 0xff, 0xff, 0xff, 0xff]);
}

#[test]
fn every_subtype_and_one_that_does_not_exist() {
    use TaskManagementFunction::*;
    let functions =
        [AbortTask, AbortTaskSet, ClearAca, ClearTaskSet, ItNexusReset, LogicalUnitReset, QueryTask, QueryTaskSet];
    let expected = functions.into_iter().map(Some).chain([None]);
    for (subtype, expected) in (0..).zip(expected) {
        let mut bytes = ABORT_TASK;
        bytes[4] = subtype;
        let map = guest(&bytes);
        match parse(&map, &[(REQUEST, 24)], &[(RESPONSE, 1)]).unwrap().function {
            ControlFunction::TaskManagement { function, .. } => assert_eq!(function, expected, "subtype {subtype}"),
            other => panic!("{other:?}"),
        }
    }
}

#[test]
fn asynchronous_notification() {
    let map = guest(&SUBSCRIBE);
    let request = parse(&map, &[(REQUEST, 16)], &[(RESPONSE, 5)]).unwrap();
    assert_eq!(request.function, ControlFunction::AsyncSubscribe { lun: LUN, events: 0x12 });
    assert_eq!(request.response.write_async(map.unlogged(), 0x02, ResponseCode::Ok), 5);
    assert_eq!(response(&map), [2, 0, 0, 0, 0, 0xff]);

    let mut query = SUBSCRIBE;
    query[0] = 1;
    let map = guest(&query);
    let request = parse(&map, &[(REQUEST, 16)], &[(RESPONSE, 5)]).unwrap();
    assert_eq!(request.function, ControlFunction::AsyncQuery { lun: LUN, events: 0x12 });
    assert_eq!(request.reject(map.unlogged()), 5);
    assert_eq!(response(&map), [0, 0, 0, 0, 9, 0xff]);
}

#[test]
fn any_split_is_the_same_request() {
    let map = guest(&ABORT_TASK);
    let whole = parse(&map, &[(REQUEST, 24)], &[(RESPONSE, 1)]).unwrap().function;
    for at in 0..24 {
        let split = [(REQUEST, at), (REQUEST + u64::from(at), 24 - at)];
        assert_eq!(parse(&map, &split, &[(0x300, 0), (RESPONSE, 1)]).unwrap().function, whole);
    }
    // Longer buffers than needed, as drivers with one structure for both kinds have them.
    assert_eq!(parse(&map, &[(REQUEST, 100)], &[(RESPONSE, 5)]).unwrap().function, whole);
    let map = guest(&SUBSCRIBE);
    for at in 0..5 {
        let request = parse(&map, &[(REQUEST, 24)], &[(RESPONSE, at), (0x300, 5 - at)]).unwrap();
        assert_eq!(request.response.write_async(map.unlogged(), 0x0102_0304, ResponseCode::BadTarget), 5);
        let mut got = vec![0; at as usize];
        map.read(RESPONSE, &mut got).unwrap();
        let mut rest = vec![0; 5 - at as usize];
        map.read(0x300, &mut rest).unwrap();
        got.extend(rest);
        assert_eq!(got, [4, 3, 2, 1, 3]);
    }
}

#[test]
fn what_is_wrong_and_whether_it_can_be_answered() {
    use ChainError::{Answerable, Unanswerable};
    use ChainFault::*;
    let map = guest(&ABORT_TASK);
    let fails = |r: &[(u64, u32)], w: &[(u64, u32)]| parse(&map, r, w).unwrap_err();
    assert_eq!(fails(&[], &[(RESPONSE, 5)]), Unanswerable(ShortRequest(0)));
    assert_eq!(fails(&[(REQUEST, 3)], &[(RESPONSE, 5)]), Unanswerable(ShortRequest(3)));
    assert_eq!(fails(&[(REQUEST, 24)], &[]), Unanswerable(ShortResponse(0)));
    assert_eq!(fails(&[(REQUEST, 23)], &[(RESPONSE, 1)]), Answerable(ShortRequest(23)));
    let outside = OutsideMemory { addr: 0x1000, len: 8 };
    assert_eq!(fails(&[(0x1000 - 16, 24)], &[(RESPONSE, 1)]), Unanswerable(RequestOutside(outside)));
    let outside = OutsideMemory { addr: 0x1000, len: 1 };
    assert_eq!(fails(&[(REQUEST, 24)], &[(0x1000, 1)]), Unanswerable(ResponseOutside(outside)));

    let map = guest(&SUBSCRIBE);
    let fails = |r: &[(u64, u32)], w: &[(u64, u32)]| parse(&map, r, w).unwrap_err();
    assert_eq!(fails(&[(REQUEST, 16)], &[(RESPONSE, 4)]), Unanswerable(ShortResponse(4)));
    assert_eq!(fails(&[(REQUEST, 15)], &[(RESPONSE, 5)]), Answerable(ShortRequest(15)));

    let map = guest(&[3, 0, 0, 0]);
    let error = parse(&map, &[(REQUEST, 24)], &[(RESPONSE, 5)]).unwrap_err();
    assert_eq!(error, Unanswerable(ControlType(3)));
}

#[test]
fn a_short_request_is_refused_in_its_own_form() {
    let mut request = ControlRequest::default();
    let map = guest(&SUBSCRIBE);
    assert!(request.parse(&chain(&[(REQUEST, 15)], &[(RESPONSE, 5)]), &map).is_err());
    assert_eq!(request.reject(map.unlogged()), 5);
    assert_eq!(response(&map), [0, 0, 0, 0, 9, 0xff]);
    let map = guest(&ABORT_TASK);
    assert!(request.parse(&chain(&[(REQUEST, 23)], &[(RESPONSE, 5)]), &map).is_err());
    assert_eq!(request.reject(map.unlogged()), 1);
    assert_eq!(response(&map), [9, 0xff, 0xff, 0xff, 0xff, 0xff]);
}
