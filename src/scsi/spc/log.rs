//! Log pages (SPC-4 7.3) and LOG SELECT parameter lists.

use crate::scsi::{AdditionalSense, FieldPointer, LogControl, ParameterData, Sense, SenseKey, be_bytes};

/// Uncorrected errors, by what was done to the medium when they came up.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct LogErrors {
    /// Of writing.
    pub write: u64,
    /// Of reading.
    pub read: u64,
    /// Of verifying.
    pub verify: u64,
}

/// A parameter of the Self-Test Results page (SPC-4 7.3).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct LogSelfTest {
    /// SELF-TEST CODE.
    pub code: u8,
    /// SELF-TEST RESULTS.
    pub result: u8,
    /// SELF-TEST NUMBER: the segment that failed, else 0.
    pub number: u8,
    /// ACCUMULATED POWER ON HOURS.
    pub hours: u16,
    /// ADDRESS OF FIRST FAILURE.
    pub failure: Option<u64>,
    /// What failed.
    pub sense: Option<(SenseKey, AdditionalSense)>,
}

/// What the log pages say of a unit.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct LogUnit {
    /// The cumulative counters.
    pub errors: LogErrors,
    /// How often the unit was stopped.
    pub cycles: u32,
    /// Newest first, at most [`SELF_TEST_PARAMETERS`].
    pub self_tests: Vec<LogSelfTest>,
}

/// Number of parameters in the Self-Test Results page.
pub const SELF_TEST_PARAMETERS: u16 = 20;

/// PAGE CODE values.
mod page {
    pub(super) const SUPPORTED: u8 = 0x00;
    pub(super) const WRITE_ERRORS: u8 = 0x02;
    pub(super) const READ_ERRORS: u8 = 0x03;
    pub(super) const VERIFY_ERRORS: u8 = 0x05;
    pub(super) const START_STOP: u8 = 0x0e;
    pub(super) const SELF_TESTS: u8 = 0x10;
    pub(super) const INFORMATIONAL_EXCEPTIONS: u8 = 0x2f;
}

/// All pages and subpages, ascending.
const PAGES: [(u8, u8); 8] = [
    (page::SUPPORTED, 0x00),
    (page::SUPPORTED, ALL_SUBPAGES),
    (page::WRITE_ERRORS, 0x00),
    (page::READ_ERRORS, 0x00),
    (page::VERIFY_ERRORS, 0x00),
    (page::START_STOP, 0x00),
    (page::SELF_TESTS, 0x00),
    (page::INFORMATIONAL_EXCEPTIONS, 0x00),
];

const ALL_SUBPAGES: u8 = 0xff;

/// TOTAL ERRORS CORRECTED and TOTAL UNCORRECTED ERRORS, of an error counter page (SPC-4 7.3 and its kind). What the image
/// corrects below the host it does not tell, so the first is 0 here.
const CORRECTED: u16 = 0x0003;
const UNCORRECTED: u16 = 0x0006;

/// Parameter control bytes: TSD, for nothing is saved, and FORMAT AND LINKING 00b (a counter) or 11b (a binary list).
const COUNTER: u8 = 0x20;
const BINARY_LIST: u8 = 0x23;

impl LogErrors {
    /// The counter of a page, if it is an error counter page.
    fn of_page(&mut self, page: u8) -> Option<&mut u64> {
        match page {
            page::WRITE_ERRORS => Some(&mut self.write),
            page::READ_ERRORS => Some(&mut self.read),
            page::VERIFY_ERRORS => Some(&mut self.verify),
            _ => None,
        }
    }
}

/// Refuses a page that is not there.
fn known(page: u8, subpage: u8) -> Result<(), Sense> {
    if PAGES.contains(&(page, subpage)) {
        return Ok(());
    }
    let field = match PAGES.iter().any(|known| known.0 == page) {
        true => FieldPointer::cdb(3, 7),
        false => FieldPointer::cdb(2, 5),
    };
    Err(Sense::invalid_field_in_cdb(field))
}

/// The parameter data of LOG SENSE (SPC-4 6.8): the page's parameters from code `pointer` on.
///
/// PAGE CONTROL matters for counters only. They have no thresholds: nothing is compared (ETC is zero).
///
/// # Errors
///
/// INVALID FIELD IN CDB for a page or subpage that is not supported, thresholds of counters, and a `pointer` past the last
/// parameter.
pub fn log_sense(
    control: LogControl,
    page: u8,
    subpage: u8,
    pointer: u16,
    unit: &LogUnit,
) -> Result<ParameterData, Sense> {
    known(page, subpage)?;
    let parameters = parameters(control, page, unit)?;
    let last = parameters.last().map_or(0, |parameter| parameter.code);
    if pointer > last {
        return Err(Sense::invalid_field_in_cdb(FieldPointer::cdb(5, 7)));
    }
    let mut data = ParameterData::new();
    // SPF, where there is a subpage code.
    data.u8(page | u8::from(subpage != 0) << 6).u8(subpage).counted_u16(|data| {
        match (page, subpage) {
            (page::SUPPORTED, 0x00) => PAGES.iter().filter(|known| known.1 == 0).for_each(|known| {
                data.u8(known.0);
            }),
            (page::SUPPORTED, _) => PAGES.iter().for_each(|known| {
                data.u8(known.0).u8(known.1);
            }),
            _ => parameters.iter().filter(|parameter| parameter.code >= pointer).for_each(|parameter| {
                data.u16(parameter.code).u8(parameter.control).counted_u8(|data| {
                    data.raw(parameter.value.bytes());
                });
            }),
        };
    });
    Ok(data)
}

struct Parameter {
    code: u16,
    control: u8,
    value: ParameterData,
}

impl Parameter {
    fn new(code: u16, control: u8, write: impl FnOnce(&mut ParameterData)) -> Parameter {
        let mut value = ParameterData::new();
        write(&mut value);
        Parameter { code, control, value }
    }
}

fn parameters(control: LogControl, page: u8, unit: &LogUnit) -> Result<Vec<Parameter>, Sense> {
    let mut errors = match control {
        LogControl::DefaultCumulative => LogErrors::default(),
        _ => unit.errors,
    };
    if let Some(count) = errors.of_page(page).map(|count| *count) {
        if matches!(control, LogControl::Threshold | LogControl::DefaultThreshold) {
            return Err(Sense::invalid_field_in_cdb(FieldPointer::cdb(2, 7)));
        }
        let counter = |code, count| {
            Parameter::new(code, COUNTER, |data| {
                data.u64(count);
            })
        };
        return Ok(vec![counter(CORRECTED, 0), counter(UNCORRECTED, count)]);
    }
    Ok(match page {
        page::START_STOP => vec![Parameter::new(0x0004, BINARY_LIST, |data| {
            data.u32(unit.cycles);
        })],
        page::SELF_TESTS => {
            let tests = unit.self_tests.iter().map(Some).chain(std::iter::repeat(None));
            let tests = (1..=SELF_TEST_PARAMETERS).zip(tests);
            tests.map(|(code, test)| Parameter::new(code, BINARY_LIST, |data| self_test(test, data))).collect()
        }
        // No exception, and no temperature that is known.
        page::INFORMATIONAL_EXCEPTIONS => vec![Parameter::new(0x0000, BINARY_LIST, |data| {
            data.raw(&[0x00, 0x00, 0xff, 0x00]);
        })],
        _ => Vec::new(),
    })
}

/// A parameter's 16 bytes; all zeros if there was no such test.
fn self_test(test: Option<&LogSelfTest>, data: &mut ParameterData) {
    let Some(test) = test else {
        data.zeros(16);
        return;
    };
    let (key, AdditionalSense(code)) =
        test.sense.unwrap_or((SenseKey::NoSense, AdditionalSense::NO_ADDITIONAL_SENSE_INFORMATION));
    data.u8(test.code << 5 | test.result & 0x0f).u8(test.number).u16(test.hours);
    data.u64(test.failure.unwrap_or(u64::MAX)).u8(key as u8).u16(code).u8(0);
}

/// What LOG SELECT without a parameter list makes of the counters (SPC-4 6.7): PCR, and PAGE CONTROL 11b, set those of a page, or of all
/// pages for page 00h, to their default, which is 0. The other values of PAGE CONTROL change nothing: there are no
/// thresholds, and cumulative values are what they are. Lists (self-test results and the like) are not counters and stay.
///
/// # Errors
///
/// INVALID FIELD IN CDB for a page or subpage that is not supported.
pub fn log_reset(
    pcr: bool,
    control: LogControl,
    page: u8,
    subpage: u8,
    mut errors: LogErrors,
) -> Result<LogErrors, Sense> {
    known(page, subpage)?;
    if !pcr && control != LogControl::DefaultCumulative {
        return Ok(errors);
    }
    if page == page::SUPPORTED {
        return Ok(LogErrors::default());
    }
    if let Some(count) = errors.of_page(page) {
        *count = 0;
    }
    Ok(errors)
}

/// What a LOG SELECT parameter list, not empty, makes of the counters. Nothing is to change unless all of it is right.
///
/// Of all parameters, TOTAL UNCORRECTED ERRORS can be set to another value. Any other parameter, and any other page, is refused. DS, DU and
/// TSD mean nothing here and are not looked at, so that what LOG SENSE returned of a counter page can be sent back.
///
/// # Errors
///
/// INVALID FIELD IN CDB for anything but cumulative values; PARAMETER LIST LENGTH ERROR where the list ends within a page or a
/// parameter; INVALID FIELD IN PARAMETER LIST, with a field pointer, for what cannot be set.
pub fn log_select(control: LogControl, list: &[u8], mut errors: LogErrors) -> Result<LogErrors, Sense> {
    if control != LogControl::Cumulative {
        return Err(Sense::invalid_field_in_cdb(FieldPointer::cdb(2, 7)));
    }
    let mut at = 0;
    while at < list.len() {
        let [code, subpage, high, low] = be_bytes(list, at).ok_or(TRUNCATED)?;
        let count = errors.of_page(code & 0x3f).ok_or(invalid(at, 5))?;
        // SPF and the subpage code; neither page has subpages.
        if code & 0x40 != 0 || subpage != 0 {
            return Err(invalid(at + 1, 7));
        }
        let begin = at + 4;
        let end = begin + usize::from(u16::from_be_bytes([high, low]));
        if end > list.len() {
            return Err(TRUNCATED);
        }
        at = begin;
        while at < end {
            at = take_parameter(list, at, end, count)?;
        }
    }
    Ok(errors)
}

const TRUNCATED: Sense = Sense::illegal_request(AdditionalSense::PARAMETER_LIST_LENGTH_ERROR);

fn invalid(byte: usize, bit: u8) -> Sense {
    // A parameter list has at most 65535 bytes.
    Sense::invalid_field_in_parameter_list(FieldPointer::parameter_list(byte as u16, bit))
}

/// Takes the parameter at `at` of a page that ends at `end`; where the next one begins.
fn take_parameter(list: &[u8], at: usize, end: usize, count: &mut u64) -> Result<usize, Sense> {
    let page = list.get(..end).ok_or(TRUNCATED)?;
    let [high, low, control, length] = be_bytes(page, at).ok_or(TRUNCATED)?;
    let code = u16::from_be_bytes([high, low]);
    if code != CORRECTED && code != UNCORRECTED {
        return Err(invalid(at, 7));
    }
    // ETC, TMC, FORMAT AND LINKING.
    if control & 0x1f != 0 {
        return Err(invalid(at + 2, (control & 0x1f).ilog2() as u8));
    }
    if length == 0 || length > 8 {
        return Err(invalid(at + 3, 7));
    }
    let begin = at + 4;
    let next = begin + usize::from(length);
    let bytes = page.get(begin..next).ok_or(TRUNCATED)?;
    let value = bytes.iter().fold(0, |value, byte| value << 8 | u64::from(*byte));
    match code {
        UNCORRECTED => *count = value,
        _ if value != 0 => return Err(invalid(begin, 7)),
        _ => {}
    }
    Ok(next)
}

#[cfg(test)]
#[path = "log_tests.rs"]
mod tests;
