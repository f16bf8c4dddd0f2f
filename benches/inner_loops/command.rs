//! From a chain to an information unit and a buffer, and from an answer to a response.

use divan::{Bencher, black_box};
use vstgt::mem::{Direction, IoBuf, SnapshotSet};
use vstgt::scsi::{CommandResult, Status};
use vstgt::srp;
use vstgt::virtio_scsi::{CommandRequest, command_response, wire};

use crate::guest::{DATA, Guest, RESPONSE, Table};

/// Pieces that the data of a command are in.
const PIECES: [u16; 2] = [1, 16];

fn parsed(guest: &Guest) -> CommandRequest {
    let mut request = CommandRequest::default();
    request.parse(&guest.chain(), &guest.map, wire::CDB_SIZE, wire::DEFAULT_SENSE_SIZE).unwrap();
    request
}

#[divan::bench(args = PIECES)]
fn parse(bencher: Bencher, pieces: u16) {
    let guest = Guest::new(Table::Indirect, pieces);
    let (chain, mut request) = (guest.chain(), CommandRequest::default());
    bencher.bench_local(|| {
        request.parse(black_box(&chain), &guest.map, wire::CDB_SIZE, wire::DEFAULT_SENSE_SIZE).unwrap();
        black_box(&request);
    });
    assert_eq!(request.data_in_len, DATA);
}

/// SRP_CMD as the reactor makes it: nothing is encoded.
#[divan::bench]
fn information_unit(bencher: Bencher) {
    let request = parsed(&Guest::new(Table::Indirect, 1));
    bencher.bench_local(|| {
        let request = black_box(&request);
        let iu = srp::Cmd {
            notify: srp::SolicitedNotification::default(),
            tag: request.id,
            lun: request.lun,
            attribute: request.task_attr,
            cdb: &request.cdb,
            data_out: srp::Buffers::of(&request.data_out).unwrap(),
            data_in: srp::Buffers::of(&request.data_in).unwrap(),
        };
        (iu.scb(), iu.lun, iu.attribute.tgt_code(), iu.data_out.pieces().len(), iu.data_in.pieces().len())
    });
}

/// Looks a command's buffer up, and gives it back.
#[divan::bench(args = PIECES)]
fn resolve_and_release(bencher: Bencher, pieces: u16) {
    let guest = Guest::new(Table::Indirect, pieces);
    let request = parsed(&guest);
    let mut snapshots = SnapshotSet::new(guest.map.clone());
    let mut spare = IoBuf::empty();
    bencher.bench_local(|| {
        let list = black_box(&request).data_in.iter().map(|piece| (piece.va, piece.len));
        let buf = snapshots.resolve(Direction::In, list, std::mem::take(&mut spare)).unwrap();
        assert_eq!(buf.len(), u64::from(DATA));
        spare = snapshots.release(black_box(buf));
    });
    assert_eq!(snapshots.outstanding(), 0);
}

/// From a result to SRP_RSP to the bytes of the response in guest memory.
#[divan::bench]
fn response(bencher: Bencher) {
    let guest = Guest::new(Table::Indirect, 1);
    let request = parsed(&guest);
    bencher.bench_local(|| {
        let (request, moved) = (black_box(&request), u64::from(DATA));
        let result = black_box(CommandResult::status(Status::Good));
        let iu = srp::Rsp::to_command(request.id, result, moved, moved, Direction::In, &[]);
        let response = command_response(result, DATA, moved, black_box(&iu).sense);
        let written = request.response.write_command(guest.writer(), &response);
        assert_eq!(written, RESPONSE);
        request.response.used_len(written, DATA)
    });
}
