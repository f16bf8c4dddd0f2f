use super::super::testkit::{Bench, Call, HeldBackground, MemImage, check, good, out_buf};
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
    b.itl.lu().records(|records| records.self_tests.results().collect())
}

const MIB: u64 = 1 << 20;

#[test]
fn short_and_default_read_both_ends() {
    let b = big();
    for flags in [0x04, 0xa0, 0x07] {
        assert_eq!(b.none(&send(flags, 0)), good(0), "{flags:02x}");
        assert_eq!(b.image.calls(), [Call::Read(0, MIB), Call::Read(3 * MIB, MIB)]);
    }
    let codes: Vec<_> = results(&b).iter().map(|result| (result.code, result.outcome)).collect();
    assert_eq!(codes, [(0b101, SelfTestOutcome::Passed)]);
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
    assert_eq!(b.none(&send(0xc0, 0)), failed);
    let lba = 3 * MIB / 512;
    let sense = sense(BackingError::ReadFailed, lba);
    let outcomes: Vec<_> = results(&b).iter().map(|result| result.outcome).collect();
    let segment = |segment| SelfTestOutcome::Failed { segment, lba, sense };
    assert_eq!(outcomes, [segment(1), segment(2)]);
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
    // 100b: there is no test to abort.
    for code in [0b011, 0b100, 0b111] {
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

const SHORT: [u8; 6] = send(0b001 << 5, 0);
const EXTENDED: [u8; 6] = send(0b010 << 5, 0);
const ABORT: [u8; 6] = send(0b100 << 5, 0);

/// Four MiB, and what runs in the background.
fn rig() -> (Bench, Arc<HeldBackground>) {
    let background = Arc::new(HeldBackground::default());
    let held = Arc::clone(&background);
    (Bench::with(MemImage::new(4 << 20), |setup| setup.background = held), background)
}

/// The first parameter of the Self-Test Results page: SELF-TEST CODE and RESULTS.
fn logged(b: &Bench) -> u8 {
    b.data_in(&[0x4d, 0, 0x50, 0, 0, 0, 0, 0, 64, 0], 64).data[8]
}

fn request_sense(b: &Bench) -> Vec<u8> {
    b.data_in(&[0x03, 0, 0, 0, 18, 0], 18).data
}

fn outcomes(b: &Bench) -> Vec<(u8, SelfTestOutcome)> {
    results(b).iter().map(|result| (result.code, result.outcome)).collect()
}

/// SELF-TEST IN PROGRESS with so much done.
fn in_progress_with(progress: u16) -> Answer {
    check(Sense::not_ready(AdditionalSense(0x0409)).with_progress(progress))
}

/// SPC-4 5.14.4.3: GOOD when it begins; the log says Fh while it runs and then how it ended; other commands are performed.
#[test]
fn in_the_background() {
    for (cdb, code, reads) in [
        (&SHORT, 0b001, vec![Call::Read(0, MIB), Call::Read(3 * MIB, MIB)]),
        (&EXTENDED, 0b010, [0, 1, 2, 3].map(|step| Call::Read(step * MIB, MIB)).to_vec()),
    ] {
        let (b, background) = rig();
        assert_eq!(b.none(cdb), good(0));
        assert_eq!((b.image.calls(), logged(&b)), (vec![], code << 5 | 0x0f));
        assert_eq!(request_sense(&b), [0x70, 0, 0x02, 0, 0, 0, 0, 10, 0, 0, 0, 0, 0x04, 0x09, 0, 0x80, 0, 0]);
        assert_eq!(b.none(&[0; 6]), good(0), "the unit is ready all the same");
        background.run();
        assert_eq!((b.image.calls(), logged(&b)), (reads, code << 5));
        assert_eq!(request_sense(&b)[2..14], [0, 0, 0, 0, 0, 10, 0, 0, 0, 0, 0, 0]);
        assert_eq!(outcomes(&b), [(code, SelfTestOutcome::Passed)]);
    }
}

#[test]
fn progress_in_the_background() {
    let (b, background) = rig();
    assert_eq!(b.none(&EXTENDED), good(0));
    let (lu, seen) = (Arc::clone(b.itl.lu()), Arc::new(std::sync::Mutex::new(None)));
    let look = Arc::clone(&seen);
    b.image.at_call(4, move || *look.lock().unwrap() = in_progress(&lu));
    background.run();
    assert_eq!(*seen.lock().unwrap(), in_progress_with(0xc000).sense);
}

/// What it finds is in the log; nobody is told otherwise.
#[test]
fn failures_in_the_background() {
    let (b, background) = rig();
    b.image.fail_reads(3 * MIB, BackingError::ReadFailed);
    for cdb in [&SHORT, &EXTENDED] {
        assert_eq!(b.none(cdb), good(0));
        background.run();
    }
    let lba = 3 * MIB / 512;
    let failed = |segment| SelfTestOutcome::Failed { segment, lba, sense: sense(BackingError::ReadFailed, lba) };
    assert_eq!(outcomes(&b), [(0b010, failed(1)), (0b001, failed(2))]);
    assert_eq!(b.none(&[0; 6]), good(0));
}

/// There is one at a time; 100b ends it, and the next one may begin at once.
#[test]
fn one_at_a_time() {
    let (b, background) = rig();
    assert_eq!(b.none(&EXTENDED), good(0));
    for flags in [0b001 << 5, 0b010 << 5, 0b101 << 5, 0b110 << 5, 0x04] {
        assert_eq!(b.none(&send(flags, 0)), in_progress_with(0), "{flags:02x}");
    }
    assert_eq!(b.none(&send(0x10, 0)), good(0), "a page is no self-test");
    assert_eq!(b.none(&ABORT), good(0));
    assert_eq!(logged(&b), 0b010 << 5 | 0x1, "aborted by SEND DIAGNOSTIC");
    assert_eq!(b.none(&ABORT), invalid_field(1, 7));
    assert_eq!(b.none(&SHORT), good(0));
    background.run();
    assert_eq!(b.image.calls(), [], "the first one notices");
    background.run();
    assert_eq!(outcomes(&b), [(0b001, SelfTestOutcome::Passed), (0b010, SelfTestOutcome::AbortedByCommand)]);
}

/// What takes the medium away, or resets the unit, ends it.
#[test]
fn what_ends_it() {
    let end: [fn(&Bench); 4] = [
        |b| b.itl.lu().reset(),
        |b| assert_eq!(b.none(&[0x1b, 0, 0, 0, 0, 0]), good(0)),
        |b| assert_eq!(b.none(&[0x48, 0x82, 0, 0, 0, 0, 0, 0, 0, 0]), good(0)),
        |b| assert_eq!(b.data_out(&[0x04, 0x10, 0, 0, 0, 0], &[0, 2, 0, 0]), good(4)),
    ];
    for (at, end) in end.iter().enumerate() {
        let (b, background) = rig();
        assert_eq!(b.none(&EXTENDED), good(0));
        end(&b);
        assert_eq!(outcomes(&b), [(0b010, SelfTestOutcome::Aborted)], "{at}");
        b.image.calls();
        background.run();
        assert_eq!(b.image.calls(), [], "{at}");
    }
}

/// One in the foreground does not keep SANITIZE waiting until it is through.
#[test]
fn sanitize_ends_one_in_the_foreground() {
    let (b, _background) = rig();
    let lu = Arc::clone(b.itl.lu());
    b.image.at_call(2, move || {
        let method = crate::lu::Method::Zero;
        let purpose = crate::lu::Purpose::Sanitize { ause: false };
        lu.evaluate_occupation(crate::lu::Erasure { purpose, method }).unwrap();
        lu.apply_occupation();
    });
    assert_eq!(b.none(&send(0b110 << 5, 0)).sense.unwrap().key, SenseKey::AbortedCommand);
    assert_eq!(outcomes(&b), [(0b110, SelfTestOutcome::Aborted)]);
    assert_eq!(b.image.calls().len(), 2);
}

#[test]
fn without_a_thread() {
    let (b, background) = rig();
    background.refuse();
    assert_eq!(b.none(&SHORT), check(Sense::illegal_request(AdditionalSense(0x5503))));
    assert_eq!(outcomes(&b), []);
    assert_eq!(b.none(&send(0b101 << 5, 0)), good(0), "none is in progress");
}

/// The process ends: so does the test.
#[test]
fn it_ends_with_the_process() {
    let (b, background) = rig();
    assert_eq!(b.none(&EXTENDED), good(0));
    background.set_stopping(true);
    background.run();
    assert_eq!(b.image.calls(), []);
    assert_eq!(outcomes(&b), [(0b010, SelfTestOutcome::Aborted)]);
}
