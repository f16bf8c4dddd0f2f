use super::super::testkit::{Bench, Call, MemImage, check, good, out_buf};
use super::*;
use crate::lu::SelfTestResult;

/// SEND DIAGNOSTIC 1Dh: byte 1 SELF-TEST CODE, PF, SELFTEST, DEVOFFL, UNITOFFL; bytes 3–4 parameter list length.
const fn send(flags: u8, length: u8) -> [u8; 6] {
    [0x1d, flags, 0, 0, length, 0]
}

/// RECEIVE DIAGNOSTIC RESULTS 1Ch: byte 1 PCV, byte 2 page, bytes 3–4 allocation length.
const fn receive(pcv: u8, page: u8, length: u8) -> [u8; 6] {
    [0x1c, pcv, page, 0, length, 0]
}

fn bench() -> Bench {
    Bench::new(MemImage::patterned(51_200))
}

fn big() -> Bench {
    Bench::new(MemImage::new(4 << 20))
}

fn invalid_field(byte: u16, bit: u8) -> Answer {
    check(Sense::invalid_field_in_cdb(FieldPointer::cdb(byte, bit)))
}

fn results(b: &Bench) -> Vec<SelfTestResult> {
    b.itl.lu().records(|records| records.self_tests.results().copied().collect())
}

const MIB: u64 = 1 << 20;

#[test]
fn short_and_default_read_both_ends() {
    let b = big();
    for flags in [0x04, 0x20, 0xa0, 0x07] {
        assert_eq!(b.none(&send(flags, 0)), good(0), "{flags:02x}");
        assert_eq!(b.image.calls(), [Call::Read(0, MIB), Call::Read(3 * MIB, MIB)]);
    }
    let codes: Vec<_> = results(&b).iter().map(|result| (result.code, result.outcome)).collect();
    assert_eq!(codes, [(0b101, SelfTestOutcome::Passed), (0b001, SelfTestOutcome::Passed)]);
    let b = bench();
    assert_eq!(b.none(&send(0x04, 0)), good(0));
    assert_eq!(b.image.calls(), [Call::Read(0, 51_200), Call::Read(0, 51_200)]);
}

#[test]
fn extended_reads_all() {
    let b = big();
    assert_eq!(b.none(&send(0xc0, 0)), good(0));
    assert_eq!(b.image.calls(), [0, 1, 2, 3].map(|step| Call::Read(step * MIB, MIB)));
    assert_eq!(results(&b)[0].code, 0b110);
}

#[test]
fn a_medium_that_cannot_be_read_fails() {
    let b = big();
    b.image.fail_reads(3 * MIB, BackingError::ReadFailed);
    let failed = check(Sense::new(SenseKey::HardwareError, AdditionalSense(0x3e03)));
    assert_eq!(b.none(&send(0x04, 0)), failed, "default");
    assert_eq!(results(&b), [], "the default test's result goes with its status only");
    assert_eq!(b.none(&send(0xa0, 0)), failed);
    assert_eq!(b.none(&send(0x20, 0)), good(0), "in the background only the log tells");
    assert_eq!(b.none(&send(0xc0, 0)), failed);
    let lba = 3 * MIB / 512;
    let sense = sense(BackingError::ReadFailed, lba);
    let outcomes: Vec<_> = results(&b).iter().map(|result| result.outcome).collect();
    let segment = |segment| SelfTestOutcome::Failed { segment, lba, sense };
    assert_eq!(outcomes, [segment(1), segment(2), segment(2)]);
}

#[test]
fn an_abort_ends_it() {
    let b = big();
    let abort = AbortFlag::default();
    abort.raise();
    let ran = b.run_with(&send(0xc0, 0), crate::mem::IoBuf::empty(), &abort);
    assert_eq!(ran.answer.sense.unwrap().key, SenseKey::AbortedCommand);
    assert_eq!(results(&b)[0].outcome, SelfTestOutcome::Aborted);
}

#[test]
fn forms_that_are_refused() {
    let b = bench();
    for code in [0b010, 0b011, 0b100, 0b111] {
        assert_eq!(b.none(&send(code << 5, 0)), invalid_field(1, 7), "{code:03b}");
    }
    assert_eq!(b.none(&send(0x24, 0)), invalid_field(1, 7), "SELFTEST with a code");
    assert_eq!(b.data_out(&send(0x04, 4), &[0; 4]), invalid_field(3, 7), "SELFTEST with a list");
    assert_eq!(b.data_out(&send(0xa0, 4), &[0; 4]), invalid_field(3, 7));
    assert_eq!(b.data_out(&send(0x00, 4), &[0; 4]), invalid_field(1, 4), "a page without PF");
    assert_eq!(b.none(&send(0x08, 0)), invalid_field(1, 3));
    assert_eq!(b.image.calls(), []);
}

#[test]
fn pages() {
    let b = bench();
    assert_eq!(b.none(&send(0x00, 0)), good(0));
    assert_eq!(b.none(&send(0x10, 0)), good(0));
    assert_eq!(b.data_out(&send(0x10, 4), &[0, 0, 0, 0]), good(4));
    let field = |byte| check(Sense::invalid_field_in_parameter_list(FieldPointer::parameter_list(byte, 7)));
    assert_eq!(b.data_out(&send(0x10, 4), &[0x40, 0, 0, 0]), field(0));
    assert_eq!(b.data_out(&send(0x10, 4), &[0, 1, 0, 0]), field(1));
    assert_eq!(b.data_out(&send(0x10, 4), &[0, 0, 0, 1]), field(2));
    let length_error = check(Sense::illegal_request(AdditionalSense(0x1a00)));
    assert_eq!(b.data_out(&send(0x10, 3), &[0, 0, 0]), length_error);
    assert_eq!(b.data_out(&send(0x10, 5), &[0, 0, 0, 0, 0]), length_error);
    assert_eq!(b.data_out(&send(0x10, 4), &[0]), good(4), "overflow");
}

#[test]
fn results_are_the_list_of_pages() {
    let b = bench();
    let whole = [0x00, 0, 0, 1, 0x00];
    for pcv in [0, 1] {
        for (length, moved) in [(0, 0), (1, 1), (5, 5), (6, 5), (255, 5)] {
            let ran = b.data_in(&receive(pcv, 0, length), 16);
            assert_eq!(ran.answer, good(moved as u64));
            assert_eq!(ran.data[..moved], whole[..moved]);
            assert!(ran.data[moved..].iter().all(|byte| *byte == 0xee));
        }
        assert_eq!(b.data_in(&receive(pcv, 0x40, 16), 16).answer, invalid_field(2, 7));
    }
    assert!(b.run(&receive(1, 0, 5), out_buf(&[0; 8])).answer.transferred > 8, "wrong direction");
}
