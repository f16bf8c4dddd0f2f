//! Dialogues of primary commands, of units that are not there, and the check order.

mod absent;
mod access;
mod check_order;
mod inquiry;
mod keeping;
mod mode;
mod report;
mod request_sense;
mod thresholds;
mod unit;

use super::testkit::{Bench, MemImage};
use crate::scsi::{AdditionalSense, FieldPointer, Sense, SenseKey};

fn bench() -> Bench {
    Bench::new(MemImage::patterned(51_200))
}

/// INVALID FIELD IN CDB.
fn invalid_field(byte: u16, bit: u8) -> Sense {
    plain(SenseKey::IllegalRequest, 0x2400).with_field(FieldPointer { in_cdb: true, byte, bit: Some(bit) })
}

/// Sense data without fields.
fn plain(key: SenseKey, code: u16) -> Sense {
    Sense::new(key, AdditionalSense(code))
}

/// Runs a Data-In command with allocation lengths 0, 1, all and more: the data is cut, its length fields are not, and
/// nothing is written past it. Returns the whole data.
fn at_all_allocation_lengths(bench: &Bench, cdb: impl Fn(u16) -> Vec<u8>) -> Vec<u8> {
    let whole = bench.data_in(&cdb(1000), 2000);
    let len = whole.answer.transferred as usize;
    assert!(len > 1 && len < 1000);
    assert_eq!(whole.data[len..], vec![0xee; 2000 - len]);
    for asked in [0, 1, len - 1, len, len + 1] {
        let ran = bench.data_in(&cdb(asked as u16), 2000);
        let got = asked.min(len);
        assert_eq!(ran.answer, super::testkit::good(got as u64), "allocation length {asked}");
        assert_eq!(ran.data[..got], whole.data[..got]);
        assert_eq!(ran.data[got..], vec![0xee; 2000 - got]);
    }
    // A buffer shorter than what the allocation length lets through is an overflow.
    assert_eq!(bench.data_in(&cdb(1000), len - 1).answer, super::testkit::good(len as u64));
    whole.data[..len].to_vec()
}
