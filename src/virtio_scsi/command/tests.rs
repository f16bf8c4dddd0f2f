use std::sync::Arc;

use proptest::prelude::*;

use super::*;
use crate::mem::testing::memory;
use crate::virtio_scsi::testing::chain;
use crate::virtio_scsi::wire::DEFAULT_SENSE_SIZE;
use crate::virtio_scsi::{ChainDefect, Descriptor};

/// READ(10) of 8 blocks at LBA 0x12345678 on target 3 LUN 5, ORDERED, as a driver writes it.
const REQUEST: [u8; 51] = [
    0x01, 0x03, 0x40, 0x05, 0, 0, 0, 0, // lun
    0x88, 0x77, 0x66, 0x55, 0x44, 0x33, 0x22, 0x11, // id, little-endian
    0x01, // task_attr: ORDERED
    0x02, // prio
    0x07, // crn
    0x28, 0, 0x12, 0x34, 0x56, 0x78, 0, 0, 8, 0, 0, 0, 0, 0, 0, 0, // cdb
    0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0xee,
];

const HEADER: u64 = 0x1000;
const RESPONSE: u64 = 0x2000;
const DATA: u64 = 0x4000;
const MEMORY: u64 = 0x10000;
const OUTSIDE: u64 = 0x100_0000;

fn guest() -> Arc<MemoryMap> {
    let map = memory(&[(0, MEMORY)]);
    map.unlogged().write(HEADER, &REQUEST).unwrap();
    map
}

fn parse(chain: &Chain, map: &MemoryMap) -> (CommandRequest, Result<(), ChainError>) {
    let mut request = CommandRequest::default();
    let result = request.parse(chain, map, CDB_SIZE, DEFAULT_SENSE_SIZE);
    (request, result)
}

fn direct(va: u64, len: u32) -> DirectDescriptor {
    DirectDescriptor { va, key: 0, len }
}

fn bytes(map: &MemoryMap, addr: u64, len: usize) -> Vec<u8> {
    let mut bytes = vec![0; len];
    map.read(addr, &mut bytes).unwrap();
    bytes
}

fn assert_is_the_request(request: &CommandRequest) {
    assert_eq!(request.lun, Lun([1, 3, 0x40, 5, 0, 0, 0, 0]));
    assert_eq!(request.id, 0x1122_3344_5566_7788);
    assert_eq!(request.task_attr, TaskAttribute::Ordered);
    assert_eq!((request.prio, request.crn), (2, 7));
    assert_eq!(request.cdb[..10], [0x28, 0, 0x12, 0x34, 0x56, 0x78, 0, 0, 8, 0]);
    assert_eq!(request.cdb[31], 0xee);
}

#[test]
fn a_read_as_linux_lays_it_out() {
    let map = guest();
    let writable = [(RESPONSE, 108), (DATA, 2048), (DATA + 0x1000, 2048)];
    let (request, result) = parse(&chain(&[(HEADER, 51)], &writable), &map);
    assert_eq!(result, Ok(()));
    assert_is_the_request(&request);
    assert_eq!(request.data_in, [direct(DATA, 2048), direct(DATA + 0x1000, 2048)]);
    assert_eq!((request.data_in_len, request.data_out_len), (4096, 0));
    assert!(request.data_out.is_empty());
    assert_eq!(request.response.pieces(), [(RESPONSE, 108)]);
}

#[test]
fn a_write_as_linux_lays_it_out() {
    let map = guest();
    let (request, result) = parse(&chain(&[(HEADER, 51), (DATA, 512)], &[(RESPONSE, 108)]), &map);
    assert_eq!(result, Ok(()));
    assert_eq!((&request.data_out[..], request.data_out_len), (&[direct(DATA, 512)][..], 512));
    assert_eq!((request.data_in.len(), request.data_in_len), (0, 0));
}

#[test]
fn header_data_and_response_may_share_descriptors() {
    let map = guest();
    // One readable buffer for header and Data-Out; one writable for response alone.
    let (request, result) = parse(&chain(&[(HEADER, 51 + 100)], &[(RESPONSE, 108)]), &map);
    assert_eq!(result, Ok(()));
    assert_is_the_request(&request);
    assert_eq!(request.data_out, [direct(HEADER + 51, 100)]);
    // One writable buffer for response and Data-In.
    let (request, result) = parse(&chain(&[(HEADER, 51)], &[(RESPONSE, 108 + 512)]), &map);
    assert_eq!(result, Ok(()));
    assert_eq!(request.response.pieces(), [(RESPONSE, 108)]);
    assert_eq!(request.data_in, [direct(RESPONSE + 108, 512)]);
}

#[test]
fn other_sizes_in_configuration_space() {
    let map = guest();
    let mut request = CommandRequest::default();
    // cdb_size 16, sense_size 18: a header of 35 bytes, a response of 30.
    request.parse(&chain(&[(HEADER, 40)], &[(RESPONSE, 30)]), &map, 16, 18).unwrap();
    assert_eq!(request.data_out, [direct(HEADER + 35, 5)]);
    assert_eq!(request.cdb[..9], [0x28, 0, 0x12, 0x34, 0x56, 0x78, 0, 0, 8]);
    assert_eq!(request.cdb[16..], [0; 16], "what follows the header is no CDB");
    assert_eq!(request.response.len(), 30);
    // More than can be: as much as can be.
    let chain = chain(&[(HEADER, 51)], &[(RESPONSE, 300)]);
    request.parse(&chain, &map, usize::MAX, usize::MAX).unwrap();
    assert_eq!((request.response.len(), request.data_in_len), (12 + 252, 300 - 264));
}

#[test]
fn what_is_wrong_and_whether_it_can_be_answered() {
    use ChainError::{Answerable, Unanswerable};
    use ChainFault::*;
    let map = guest();
    let case =
        |readable: &[(u64, u32)], writable: &[(u64, u32)]| parse(&chain(readable, writable), &map).1.unwrap_err();
    let header = [(HEADER, 51)];
    let outside = |addr, len| OutsideMemory { addr, len };

    assert_eq!(case(&header, &[]), Unanswerable(ShortResponse(0)));
    assert_eq!(case(&header, &[(RESPONSE, 11)]), Unanswerable(ShortResponse(11)));
    assert_eq!(case(&[], &[(RESPONSE, 11)]), Unanswerable(ShortResponse(11)));
    assert_eq!(case(&header, &[(OUTSIDE, 108)]), Unanswerable(ResponseOutside(outside(OUTSIDE, 108))));
    assert_eq!(case(&header, &[(MEMORY - 107, 108)]), Unanswerable(ResponseOutside(outside(MEMORY - 107, 108))));
    assert_eq!(case(&header, &[(RESPONSE, 12), (u64::MAX, 96)]), Unanswerable(ResponseOutside(outside(u64::MAX, 96))));

    assert_eq!(case(&[], &[(RESPONSE, 12)]), Answerable(ShortRequest(0)));
    assert_eq!(case(&[(HEADER, 50)], &[(RESPONSE, 108)]), Answerable(ShortRequest(50)));
    assert_eq!(case(&[(OUTSIDE, 51)], &[(RESPONSE, 108)]), Answerable(RequestOutside(outside(OUTSIDE, 51))));
    let halves = [(HEADER, 50), (OUTSIDE, 600)];
    assert_eq!(case(&halves, &[(RESPONSE, 108)]), Answerable(RequestOutside(outside(OUTSIDE, 1))));
    let both = case(&[(HEADER, 52)], &[(RESPONSE, 109)]);
    assert_eq!(both, Answerable(Bidirectional));
    assert_eq!(both.fault().to_string(), "a command has both Data-Out and Data-In");

    map.unlogged().write(HEADER + 16, &[4]).unwrap();
    assert_eq!(case(&header, &[(RESPONSE, 108)]), Answerable(TaskAttribute(4)));
}

#[test]
fn a_request_that_is_refused_is_told_so() {
    let map = guest();
    let (request, result) = parse(&chain(&[(HEADER, 4)], &[(RESPONSE, 108)]), &map);
    assert!(matches!(result, Err(ChainError::Answerable(_))));
    map.unlogged().write(RESPONSE, &[0xff; 120]).unwrap();
    assert_eq!(request.reject(map.unlogged()), 108);
    let mut expected = vec![0; 108];
    expected[11] = 9; // VIRTIO_SCSI_S_FAILURE
    assert_eq!(bytes(&map, RESPONSE, 108), expected);
    assert_eq!(bytes(&map, RESPONSE + 108, 12), [0xff; 12]);
}

#[test]
fn a_response_is_written_whole() {
    let map = guest();
    let (request, _) = parse(&chain(&[(HEADER, 51)], &[(RESPONSE, 108 + 512)]), &map);
    map.unlogged().write(RESPONSE, &[0xff; 120]).unwrap();
    let response = CommandResponse {
        response: ResponseCode::Ok,
        status: 0x02,
        status_qualifier: 0x1234,
        residual: 0x0102_0304,
        sense: &[0x70, 0, 0x05, 0, 0, 0, 0, 10, 0, 0, 0, 0, 0x24, 0, 0, 0, 0, 0],
    };
    let written = request.response.write_command(map.unlogged(), &response);
    assert_eq!(written, 108);
    let mut expected = vec![
        18, 0, 0, 0, // sense_len
        0x04, 0x03, 0x02, 0x01, // residual
        0x34, 0x12, // status_qualifier
        0x02, // status: CHECK CONDITION
        0x00, // response: OK
        0x70, 0, 0x05, 0, 0, 0, 0, 10, 0, 0, 0, 0, 0x24, 0, 0, 0, 0, 0, // sense
    ];
    expected.resize(108, 0);
    expected.resize(120, 0xff);
    assert_eq!(bytes(&map, RESPONSE, 120), expected);
    assert_eq!(request.response.used_len(written, 512), 620);
}

#[test]
fn a_response_may_be_split_anywhere() {
    let map = guest();
    let response = CommandResponse { status: 2, residual: 7, sense: &[0xab; 96], ..CommandResponse::default() };
    for at in 1..108u32 {
        let (request, result) = parse(&chain(&[(HEADER, 51)], &[(RESPONSE, at), (DATA, 108 - at)]), &map);
        assert_eq!(result, Ok(()));
        assert_eq!(request.response.write_command(map.unlogged(), &response), 108);
        let mut whole = bytes(&map, RESPONSE, at as usize);
        whole.extend(bytes(&map, DATA, 108 - at as usize));
        assert_eq!(whole[..12], [96, 0, 0, 0, 7, 0, 0, 0, 0, 0, 2, 0]);
        assert_eq!(whole[12..], [0xab; 96]);
    }
}

#[test]
fn a_short_slot_gets_what_fits() {
    let map = guest();
    let (request, result) = parse(&chain(&[(HEADER, 51)], &[(RESPONSE, 20)]), &map);
    assert_eq!(result, Ok(()));
    assert_eq!(request.data_in_len, 0);
    map.unlogged().write(RESPONSE, &[0xff; 24]).unwrap();
    let response = CommandResponse { status: 2, sense: &[0xab; 18], ..CommandResponse::default() };
    assert_eq!(request.response.write_command(map.unlogged(), &response), 20);
    let expected = [8, 0, 0, 0, 0, 0, 0, 0, 0, 0, 2, 0, 0xab, 0xab, 0xab, 0xab, 0xab, 0xab, 0xab, 0xab];
    assert_eq!(bytes(&map, RESPONSE, 24), [&expected[..], &[0xff; 4]].concat());
}

#[test]
fn a_slot_that_vanished_is_not_claimed() {
    let map = guest();
    let (request, _) = parse(&chain(&[(HEADER, 51)], &[(RESPONSE, 50), (DATA, 58 + 512)]), &map);
    // The memory map changed while the command ran.
    let less = memory(&[(0, 0x3000)]);
    let written = request.response.write_command(less.unlogged(), &CommandResponse::default());
    assert_eq!(written, 50);
    assert_eq!(request.response.used_len(written, 512), 50);
    assert_eq!(request.reject(MemoryMap::default().unlogged()), 0);
}

#[test]
fn a_reused_request_keeps_nothing() {
    let map = guest();
    let mut request = CommandRequest::default();
    let writable = [(RESPONSE, 108), (DATA, 512)];
    request.parse(&chain(&[(HEADER, 51)], &writable), &map, CDB_SIZE, DEFAULT_SENSE_SIZE).unwrap();
    let at = request.data_in.as_ptr();
    request.parse(&chain(&[(HEADER, 51)], &writable), &map, CDB_SIZE, DEFAULT_SENSE_SIZE).unwrap();
    assert_eq!((request.data_in.len(), request.response.len()), (1, 108));
    assert_eq!(request.data_in.as_ptr(), at, "nothing is allocated again");
    request.parse(&chain(&[(HEADER, 60)], &[(DATA, 108)]), &map, CDB_SIZE, DEFAULT_SENSE_SIZE).unwrap();
    assert_eq!((request.data_in.len(), request.data_in_len), (0, 0));
    assert_eq!(request.data_out, [direct(HEADER + 51, 9)]);
    assert_eq!(request.response.pieces(), [(DATA, 108)]);
}

/// Cuts `len` bytes at `addr` into descriptors of these lengths, over and over; zero-length ones included.
fn cut(addr: u64, len: u32, lengths: &[u32]) -> Vec<(u64, u32)> {
    let mut pieces = Vec::new();
    let mut done = 0;
    for length in lengths.iter().cycle() {
        if done == len {
            break;
        }
        let take = (*length).min(len - done);
        pieces.push((addr + u64::from(done), take));
        done += take;
    }
    pieces
}

proptest! {
    #![proptest_config(ProptestConfig { failure_persistence: None, ..ProptestConfig::default() })]

    /// Any legal split means the same.
    #[test]
    fn any_split_is_the_same_request(
        cuts in prop::collection::vec(0u32..80, 1..6).prop_filter("some bytes", |c| c.iter().any(|n| *n > 0)),
        data in 0u32..3000,
        write: bool,
    ) {
        let map = guest();
        let (out, inn) = if write { (data, 0) } else { (0, data) };
        let readable = cut(HEADER, 51 + out, &cuts);
        let writable = cut(RESPONSE, 108 + inn, &cuts);
        let (request, result) = parse(&chain(&readable, &writable), &map);
        prop_assert_eq!(result, Ok(()));
        assert_is_the_request(&request);
        prop_assert_eq!((request.data_out_len, request.data_in_len), (out, inn));
        // The descriptors are the guest's own, end to end, after header and response.
        for (list, start, len) in [(&request.data_out, HEADER + 51, out), (&request.data_in, RESPONSE + 108, inn)] {
            let mut at = start;
            for d in list {
                prop_assert_eq!((d.va, d.key), (at, 0));
                prop_assert!(d.len > 0);
                at += u64::from(d.len);
            }
            prop_assert_eq!(at - start, u64::from(len));
        }
        let response = CommandResponse { residual: 0x0a0b_0c0d, sense: &[0x5a; 96], ..CommandResponse::default() };
        prop_assert_eq!(request.response.write_command(map.unlogged(), &response), 108);
        let got = bytes(&map, RESPONSE, 108);
        prop_assert_eq!(&got[4..8], &[0x0d, 0x0c, 0x0b, 0x0a]);
        prop_assert_eq!(&got[12..], &[0x5a; 96]);
    }

    /// Whatever a driver writes, there is an answer or an error, no panic, and nothing outside of memory is touched.
    #[test]
    fn any_chain_is_survived(
        descriptors in prop::collection::vec(
            (
                prop_oneof![Just(HEADER), Just(RESPONSE), Just(MEMORY - 20), Just(u64::MAX - 10), any::<u64>()],
                prop_oneof![0u32..200, any::<u32>()],
                any::<bool>(),
            ),
            0..20,
        ),
        header in prop::array::uniform32(any::<u8>()),
        cdb_size in 0usize..64,
        sense_size in 0usize..300,
    ) {
        let map = guest();
        map.unlogged().write(HEADER, &header).unwrap();
        let descriptors = descriptors.into_iter().map(|(addr, len, writable)| Descriptor { addr, len, writable });
        let chain = Chain { head: 0, descriptors: descriptors.collect() };
        let mut request = CommandRequest::default();
        match request.parse(&chain, &map, cdb_size, sense_size) {
            Ok(()) => {
                prop_assert!(request.data_out.is_empty() || request.data_in.is_empty());
                prop_assert!(request.response.len() >= 12);
                let written = request.response.write_command(map.unlogged(), &CommandResponse::default());
                prop_assert_eq!(written, request.response.len());
            }
            Err(ChainError::Answerable(_)) => prop_assert!(request.reject(map.unlogged()) >= 12),
            Err(ChainError::Unanswerable(_)) => {}
        }
        let mut control = crate::virtio_scsi::ControlRequest::default();
        match control.parse(&chain, &map) {
            Ok(()) | Err(ChainError::Answerable(_)) => prop_assert!(control.reject(map.unlogged()) >= 1),
            Err(ChainError::Unanswerable(_)) => {}
        }
        if let Ok(buffer) = crate::virtio_scsi::EventBuffer::parse(&chain, &map) {
            prop_assert_eq!(buffer.write(map.unlogged(), crate::virtio_scsi::Event::NoEvent, true), 16);
        }
    }
}

#[test]
fn messages_name_what_is_wrong() {
    let error = ChainError::Unanswerable(ChainFault::ShortResponse(3));
    assert_eq!(error.to_string(), "a response buffer of 3 bytes is too short (and cannot be answered)");
    let defect = ChainDefect::IndirectOutside(OutsideMemory { addr: 0x1000, len: 16 });
    assert_eq!(defect.to_string(), "an indirect table: 16 bytes at guest address 0x1000 are not in guest memory");
}
