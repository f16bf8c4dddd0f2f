//! What a CDB means, whether its command may go on, and what is to be done.

use std::fmt;
use std::sync::Arc;

use divan::{Bencher, black_box};
use vstgt::device_server::{self, Plan, Request};
use vstgt::lu::{Admission, GateBits, Itl, Lu, LuSetup, NexusId};
use vstgt::mem::{Direction, IoBuf};
use vstgt::scsi::{TaskAttribute, opcode};

use crate::guest::{DATA, READ_10};
use crate::null::NullImage;

/// A CDB and the standard's name for it.
struct Cdb(&'static str, [u8; 16]);

impl fmt::Display for Cdb {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.0)
    }
}

const WRITE_16: [u8; 16] = [0x8a, 0, 0, 0, 0, 0, 0, 0, 0x12, 0x34, 0, 0, 0, 8, 0, 0];
const INQUIRY: [u8; 16] = [0x12, 0, 0, 0, 96, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0];
const CDBS: [Cdb; 3] = [Cdb("READ(10)", READ_10), Cdb("WRITE(16)", WRITE_16), Cdb("INQUIRY", INQUIRY)];

fn unit() -> Arc<Itl> {
    let setup = LuSetup::new(Arc::new(NullImage), 0x3000_0000_0000_0001, "BENCH".to_owned());
    Itl::new(Lu::new(setup).unwrap(), NexusId { initiator: [1; 16], port: 1 }, None)
}

#[divan::bench(args = CDBS)]
fn decode(bencher: Bencher, cdb: &Cdb) {
    bencher.bench_local(|| opcode::decode(black_box(&cdb.1)).unwrap());
}

/// The gate's word, of which nothing stands in the way.
#[divan::bench]
fn admission(bencher: Bencher) {
    let itl = unit();
    let mask = GateBits::ATTENTION.and(GateBits::DENY).and(GateBits::NOT_READY).and(GateBits::HELD);
    let mask = mask.and(GateBits::ACCESS).and(GateBits::ACA).and(GateBits::GONE);
    bencher.bench_local(|| assert_eq!(black_box(&itl).gate().admit(black_box(mask)), Admission::Pass));
}

/// The device server's whole part: decoding, admission, plan.
#[divan::bench(args = CDBS)]
fn plan(bencher: Bencher, cdb: &Cdb) {
    let (itl, peers) = (unit(), Vec::new());
    let direction = if cdb.1 == WRITE_16 { Direction::Out } else { Direction::In };
    let mut buf = IoBuf::owned(DATA as usize, direction);
    bencher.bench_local(|| {
        let request = Request {
            cdb: black_box(&cdb.1),
            itl: Some(&itl),
            luns: &[0],
            peers: &peers,
            well_known: None,
            attribute: TaskAttribute::Simple,
            passes: &[],
        };
        let started = device_server::start(&request, &mut buf);
        assert!(matches!(started.plan, Plan::Io(_) | Plan::Done(_)));
        black_box(&started);
    });
}
