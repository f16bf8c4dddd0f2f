use super::*;

const ERRORS: LogErrors = LogErrors { write: 1, read: 0x0203, verify: 4 };
const STATISTICS: LogStatistics = LogStatistics { reads: 1, writes: 0x0203, received: 4, transmitted: u64::MAX };
const PROCESSED_BLOCKS: LogProcessed = LogProcessed { write: 0x81, read: 1, verify: u64::MAX };
const COUNTERS: LogCounters = LogCounters { errors: ERRORS, processed: PROCESSED_BLOCKS, statistics: STATISTICS };

fn with(errors: LogErrors) -> LogCounters {
    LogCounters { errors, ..COUNTERS }
}

fn unit() -> LogUnit {
    let test = LogSelfTest { code: 0b101, result: 0, number: 0, hours: 7, failure: None, sense: None };
    let sense = Some((SenseKey::MediumError, AdditionalSense::UNRECOVERED_READ_ERROR));
    let failed = LogSelfTest { code: 0b110, result: 5, number: 1, hours: 0x0102, failure: Some(9), sense };
    let resources = Some(LogResources { available: 0x0102_0304, used: 1 << 32 });
    let self_tests = vec![failed, test];
    LogUnit { counters: COUNTERS, block_length: 512, saved: false, resources, cycles: 3, self_tests }
}

fn page(control: LogControl, code: u8) -> Vec<u8> {
    log_sense(control, code, 0, 0, &unit()).unwrap().bytes().to_vec()
}

fn in_cdb(byte: u16, bit: u8) -> Sense {
    Sense::invalid_field_in_cdb(FieldPointer::cdb(byte, bit))
}

#[test]
fn pages_of_pages() {
    assert_eq!(page(LogControl::Cumulative, 0x00), [0, 0, 0, 10, 0, 2, 3, 5, 0x0c, 0x0d, 0x0e, 0x10, 0x19, 0x2f]);
    let subpages = log_sense(LogControl::Cumulative, 0x00, 0xff, 0, &unit()).unwrap();
    let mut expected = vec![0x40, 0xff, 0, 22, 0x00, 0x00, 0x00, 0xff, 0x02, 0, 0x03, 0];
    expected.extend([0x05, 0, 0x0c, 0, 0x0d, 0, 0x0e, 0, 0x10, 0, 0x19, 0, 0x2f, 0]);
    assert_eq!(subpages.bytes(), expected);
    let without = LogUnit { resources: None, ..unit() };
    let pages = log_sense(LogControl::Cumulative, 0x00, 0, 0, &without).unwrap();
    assert_eq!(pages.bytes(), [0, 0, 0, 9, 0, 2, 3, 5, 0x0d, 0x0e, 0x10, 0x19, 0x2f]);
    assert_eq!(log_sense(LogControl::Cumulative, 0x0c, 0, 0, &without), Err(in_cdb(2, 5)));
    assert_eq!(log_reset(true, LogControl::Cumulative, 0x0c, 0, false, COUNTERS), Err(in_cdb(2, 5)));
}

#[test]
fn every_page_listed_is_there_and_no_other() {
    for code in 0..0x40 {
        for subpage in 0..=0xff {
            let got = log_sense(LogControl::Cumulative, code, subpage, 0, &unit());
            match PAGES.contains(&(code, subpage)) {
                true => assert!(got.is_ok(), "{code:02x} {subpage:02x}"),
                false if PAGES.iter().any(|known| known.0 == code) => assert_eq!(got, Err(in_cdb(3, 7))),
                false => assert_eq!(got, Err(in_cdb(2, 5))),
            }
        }
    }
}

#[test]
fn error_counters() {
    let expected = |code, bytes: u64, count: u64| {
        let mut page = vec![0x80 | code, 0, 0, 36, 0, 3, 0x20, 8, 0, 0, 0, 0, 0, 0, 0, 0, 0, 5, 0x20, 8];
        page.extend(bytes.to_be_bytes());
        page.extend([0, 6, 0x20, 8]);
        page.extend(count.to_be_bytes());
        page
    };
    for (code, bytes, count) in [(0x02, 0x0001_0200, 1), (0x03, 0x200, 0x0203), (0x05, u64::MAX, 4)] {
        assert_eq!(page(LogControl::Cumulative, code), expected(code, bytes, count));
        assert_eq!(page(LogControl::DefaultCumulative, code), expected(code, 0, 0));
        for control in [LogControl::Threshold, LogControl::DefaultThreshold] {
            assert_eq!(log_sense(control, code, 0, 0, &unit()), Err(in_cdb(2, 7)));
        }
    }
}

#[test]
fn lists() {
    for control in [LogControl::Threshold, LogControl::Cumulative] {
        assert_eq!(page(control, 0x0d), [0x8d, 0, 0, 12, 0, 0, 0x23, 2, 0, 0xff, 0, 1, 0x23, 2, 0, 0xff]);
        assert_eq!(page(control, 0x0e), [0x8e, 0, 0, 8, 0, 4, 0x23, 4, 0, 0, 0, 3]);
        assert_eq!(page(control, 0x2f), [0xaf, 0, 0, 8, 0, 0, 0x23, 4, 0, 0, 0xff, 0xff]);
    }
    let tests = page(LogControl::Cumulative, 0x10);
    assert_eq!((tests.len(), &tests[..4]), (4 + 400, &[0x90, 0, 0x01, 0x90][..]));
    let failed = [0, 1, 0x23, 0x10, 0xc5, 1, 0x01, 0x02, 0, 0, 0, 0, 0, 0, 0, 9, 0x03, 0x11, 0x00, 0];
    assert_eq!(tests[4..24], failed);
    assert_eq!(tests[24..32], [0, 2, 0x23, 0x10, 0xa0, 0, 0, 7]);
    assert_eq!(tests[32..44], [0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0, 0, 0, 0]);
    assert_eq!(tests[44..48], [0, 3, 0x23, 0x10]);
    assert_eq!(tests[48..64], [0; 16]);
    assert_eq!(tests[384..388], [0, 20, 0x23, 0x10]);
}

/// SBC-3 6.4.5.
#[test]
fn resources_are_told_in_threshold_sets() {
    let mut expected = vec![0x8c, 0, 0, 24, 0, 1, 0x23, 8, 1, 2, 3, 4, 0x02, 0, 0, 0];
    expected.extend([0, 2, 0x23, 8, 0xff, 0xff, 0xff, 0xff, 0x01, 0, 0, 0]);
    assert_eq!(page(LogControl::Cumulative, 0x0c), expected);
}

/// SPC-4 7.3: General Statistics and Performance.
#[test]
fn statistics_are_told() {
    let data = page(LogControl::Cumulative, 0x19);
    assert_eq!(data[..8], [0x99, 0, 0, 0x5c, 0, 1, 0x22, 0x40]);
    assert_eq!(data[8..24], [0, 0, 0, 0, 0, 0, 0, 1, 0, 0, 0, 0, 0, 0, 2, 3]);
    assert_eq!(data[24..40], [0, 0, 0, 0, 0, 0, 0, 4, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff]);
    assert_eq!(data[40..72], [0; 32]);
    assert_eq!(data[72..84], [0, 2, 0x22, 8, 0, 0, 0, 0, 0, 0, 0, 0]);
    assert_eq!(data[84..], [0, 3, 0x23, 8, 0, 0, 0, 3, 0, 0, 0, 1]);
    assert_eq!(page(LogControl::DefaultCumulative, 0x19)[8..72], [0; 64]);
    assert_eq!(log_sense(LogControl::Threshold, 0x19, 0, 0, &unit()), Err(in_cdb(2, 7)));
}

/// TSD is 0 of what is saved without being asked for; DS stays, for LOG SELECT saves nothing.
#[test]
fn what_is_saved_says_so() {
    let unit = LogUnit { saved: true, ..unit() };
    let control = |page| log_sense(LogControl::Cumulative, page, 0, 0, &unit).unwrap().bytes()[6];
    assert_eq!(
        [0x02, 0x03, 0x05, 0x0c, 0x0d, 0x0e, 0x10, 0x19, 0x2f].map(control),
        [0x00, 0x00, 0x00, 0x23, 0x23, 0x03, 0x03, 0x22, 0x23]
    );
}

#[test]
fn a_pointer_skips_parameters() {
    let from = |pointer| log_sense(LogControl::Cumulative, 0x03, 0, pointer, &unit());
    assert_eq!(from(3).unwrap().len(), 40);
    assert_eq!(from(4).unwrap().len(), 28);
    assert_eq!(from(5).unwrap().len(), 28);
    assert_eq!(from(6).unwrap().bytes(), [0x83, 0, 0, 12, 0, 6, 0x20, 8, 0, 0, 0, 0, 0, 0, 2, 3]);
    assert_eq!(from(7), Err(in_cdb(5, 7)));
    assert_eq!(log_sense(LogControl::Cumulative, 0x00, 0, 1, &unit()), Err(in_cdb(5, 7)));
}

#[test]
fn resets() {
    let reset = |pcr, control, page| log_reset(pcr, control, page, 0, true, COUNTERS);
    let statistics = LogStatistics::default();
    assert_eq!(reset(true, LogControl::Threshold, 0x00), Ok(LogCounters::default()));
    let read = LogCounters {
        processed: LogProcessed { read: 0, ..PROCESSED_BLOCKS },
        ..with(LogErrors { read: 0, ..ERRORS })
    };
    assert_eq!(reset(true, LogControl::Cumulative, 0x03), Ok(read));
    let write = LogCounters {
        processed: LogProcessed { write: 0, ..PROCESSED_BLOCKS },
        ..with(LogErrors { write: 0, ..ERRORS })
    };
    assert_eq!(reset(false, LogControl::DefaultCumulative, 0x02), Ok(write));
    assert_eq!(reset(false, LogControl::DefaultCumulative, 0x10), Ok(COUNTERS));
    assert_eq!(reset(true, LogControl::Cumulative, 0x19), Ok(LogCounters { statistics, ..COUNTERS }));
    for control in [LogControl::Threshold, LogControl::Cumulative, LogControl::DefaultThreshold] {
        assert_eq!(reset(false, control, 0x00), Ok(COUNTERS));
    }
    assert_eq!(reset(true, LogControl::Cumulative, 0x04), Err(in_cdb(2, 5)));
    assert_eq!(log_reset(true, LogControl::Cumulative, 0x02, 1, true, COUNTERS), Err(in_cdb(3, 7)));
}

fn select(list: &[u8]) -> Result<LogErrors, Sense> {
    let LogCounters { errors, statistics, .. } = log_select(LogControl::Cumulative, list, 512, COUNTERS)?;
    assert_eq!(statistics, STATISTICS);
    Ok(errors)
}

#[test]
fn what_was_sensed_can_be_selected() {
    let mut list = page(LogControl::Cumulative, 0x02);
    list.extend(page(LogControl::Cumulative, 0x03));
    assert_eq!(select(&list), Ok(ERRORS));
    let list = page(LogControl::DefaultCumulative, 0x05);
    assert_eq!(select(&list), Ok(LogErrors { verify: 0, ..ERRORS }));
}

#[test]
fn a_counter_can_be_set() {
    let list = [0x03, 0, 0, 6, 0, 6, 0x00, 2, 0x12, 0x34];
    assert_eq!(select(&list), Ok(LogErrors { read: 0x1234, ..ERRORS }));
    assert_eq!(select(&[0x83, 0, 0, 0]), Ok(ERRORS), "DS, and no parameter");
    for control in [LogControl::Threshold, LogControl::DefaultThreshold, LogControl::DefaultCumulative] {
        assert_eq!(log_select(control, &list, 512, COUNTERS), Err(in_cdb(2, 7)));
    }
}

#[test]
fn bytes_processed_can_be_set() {
    let list = [0x02, 0, 0, 6, 0, 5, 0x20, 2, 0x07, 0xff];
    let processed = LogProcessed { write: 3, ..PROCESSED_BLOCKS };
    let expected = LogCounters { processed, ..COUNTERS };
    assert_eq!(log_select(LogControl::Cumulative, &list, 512, COUNTERS), Ok(expected), "whole blocks");
}

#[test]
fn lists_that_are_refused() {
    let field = |list: &[u8]| {
        let sense = select(list).unwrap_err();
        assert_eq!(sense.code.0, 0x2600);
        let field = sense.field.unwrap();
        assert!(!field.in_cdb);
        (field.byte, field.bit.unwrap())
    };
    assert_eq!(field(&page(LogControl::Cumulative, 0x10)), (0, 5), "a list, not counters");
    assert_eq!(field(&page(LogControl::Cumulative, 0x19)), (0, 5), "to be reset only");
    assert_eq!(field(&[0x00, 0, 0, 0]), (0, 5));
    assert_eq!(field(&[0x02, 1, 0, 0]), (1, 7));
    assert_eq!(field(&[0x42, 0, 0, 0]), (1, 7));
    assert_eq!(field(&[0x02, 0, 0, 5, 0, 4, 0, 1, 0]), (4, 7), "no such parameter");
    assert_eq!(field(&[0x02, 0, 0, 5, 0, 3, 0, 1, 1]), (8, 7), "nothing was corrected");
    assert_eq!(field(&[0x02, 0, 0, 5, 0, 6, 0x10, 1, 1]), (6, 4), "ETC");
    assert_eq!(field(&[0x02, 0, 0, 5, 0, 6, 0x03, 1, 1]), (6, 1), "FORMAT AND LINKING");
    assert_eq!(field(&[0x02, 0, 0, 4, 0, 6, 0, 0]), (7, 7));
    assert_eq!(field(&[0x02, 0, 0, 13, 0, 6, 0, 9, 0, 0, 0, 0, 0, 0, 0, 0, 0]), (7, 7));
}

#[test]
fn lists_that_end_too_soon() {
    let list = [0x03, 0, 0, 6, 0, 6, 0x00, 2, 0x12, 0x34];
    for end in 1..list.len() {
        assert_eq!(select(&list[..end]), Err(TRUNCATED), "{end}");
    }
    assert_eq!(
        select(&[0x03, 0, 0, 5, 0, 6, 0x00, 2, 0x12, 0x34]),
        Err(TRUNCATED),
        "the page ends within its parameter"
    );
}
