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

/// What commands did: counters of the General Statistics and Performance page.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct LogStatistics {
    /// NUMBER OF READ COMMANDS.
    pub reads: u64,
    /// NUMBER OF WRITE COMMANDS.
    pub writes: u64,
    /// NUMBER OF LOGICAL BLOCKS RECEIVED, with write commands.
    pub received: u64,
    /// NUMBER OF LOGICAL BLOCKS TRANSMITTED, for read commands.
    pub transmitted: u64,
}

/// Logical blocks that commands moved, or would have moved but for errors.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct LogProcessed {
    /// By writing.
    pub write: u64,
    /// By reading.
    pub read: u64,
    /// By verifying.
    pub verify: u64,
}

/// The parameters that LOG SELECT can change.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct LogCounters {
    /// They can be set and reset.
    pub errors: LogErrors,
    /// They can be set, to whole blocks, and reset.
    pub processed: LogProcessed,
    /// They can be reset.
    pub statistics: LogStatistics,
}

/// What the Logical Block Provisioning page says, in threshold sets (SBC-3 6.4.5).
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct LogResources {
    /// AVAILABLE LBA MAPPING RESOURCE COUNT; other units may use these, too.
    pub available: u64,
    /// USED LBA MAPPING RESOURCE COUNT; of this unit alone.
    pub used: u64,
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
    pub counters: LogCounters,
    /// Bytes in a logical block.
    pub block_length: u32,
    /// Counters of errors, and lists that grow, are saved now and then (TSD 0).
    pub saved: bool,
    /// LBA mapping resources; `None`: the unit has no thresholds, and no page about this.
    pub resources: Option<LogResources>,
    /// How often the unit was stopped.
    pub cycles: u32,
    /// Newest first, at most [`SELF_TEST_PARAMETERS`].
    pub self_tests: Vec<LogSelfTest>,
}

/// Number of parameters in the Self-Test Results page.
pub const SELF_TEST_PARAMETERS: u16 = 20;

/// PAGE CODE values.
pub(crate) mod log_page {
    pub(crate) const SUPPORTED: u8 = 0x00;
    pub(crate) const WRITE_ERRORS: u8 = 0x02;
    pub(crate) const READ_ERRORS: u8 = 0x03;
    pub(crate) const VERIFY_ERRORS: u8 = 0x05;
    pub(crate) const PROVISIONING: u8 = 0x0c;
    pub(crate) const TEMPERATURE: u8 = 0x0d;
    pub(crate) const START_STOP: u8 = 0x0e;
    pub(crate) const SELF_TESTS: u8 = 0x10;
    pub(crate) const STATISTICS: u8 = 0x19;
    pub(crate) const INFORMATIONAL_EXCEPTIONS: u8 = 0x2f;
}

/// All pages and subpages, ascending.
const PAGES: [(u8, u8); 11] = [
    (log_page::SUPPORTED, 0x00),
    (log_page::SUPPORTED, ALL_SUBPAGES),
    (log_page::WRITE_ERRORS, 0x00),
    (log_page::READ_ERRORS, 0x00),
    (log_page::VERIFY_ERRORS, 0x00),
    (log_page::PROVISIONING, 0x00),
    (log_page::TEMPERATURE, 0x00),
    (log_page::START_STOP, 0x00),
    (log_page::SELF_TESTS, 0x00),
    (log_page::STATISTICS, 0x00),
    (log_page::INFORMATIONAL_EXCEPTIONS, 0x00),
];

const ALL_SUBPAGES: u8 = 0xff;

/// TOTAL ERRORS CORRECTED and TOTAL UNCORRECTED ERRORS, of an error counter page (SPC-4 7.3 and its kind). What the image
/// corrects below the host it does not tell, so the first is 0 here.
const CORRECTED: u16 = 0x0003;
const UNCORRECTED: u16 = 0x0006;
/// TOTAL BYTES PROCESSED.
const PROCESSED: u16 = 0x0005;

/// FORMAT AND LINKING: a counter that stops at its greatest value, one that does not, a binary list.
const COUNTER: u8 = 0b00;
const UNBOUNDED_COUNTER: u8 = 0b10;
const BINARY_LIST: u8 = 0b11;

/// DS, of every page that has parameters: LOG SELECT saves none.
const DS: u8 = 0x80;
/// TSD, of parameters that nobody saves.
const TSD: u8 = 0x20;

impl LogCounters {
    /// The counters of a page, errors and blocks, if it is an error counter page.
    fn of_page(&mut self, page: u8) -> Option<(&mut u64, &mut u64)> {
        let LogCounters { errors, processed, .. } = self;
        match page {
            log_page::WRITE_ERRORS => Some((&mut errors.write, &mut processed.write)),
            log_page::READ_ERRORS => Some((&mut errors.read, &mut processed.read)),
            log_page::VERIFY_ERRORS => Some((&mut errors.verify, &mut processed.verify)),
            _ => None,
        }
    }
}

/// The pages of a unit with or without thresholds.
fn pages(resources: bool) -> impl Iterator<Item = (u8, u8)> {
    PAGES.into_iter().filter(move |known| resources || known.0 != log_page::PROVISIONING)
}

/// Refuses a page that is not there.
fn known(page: u8, subpage: u8, resources: bool) -> Result<(), Sense> {
    if pages(resources).any(|known| known == (page, subpage)) {
        return Ok(());
    }
    let field = match pages(resources).any(|known| known.0 == page) {
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
    known(page, subpage, unit.resources.is_some())?;
    let parameters = parameters(control, page, unit)?;
    let last = parameters.last().map_or(0, |parameter| parameter.code);
    if pointer > last {
        return Err(Sense::invalid_field_in_cdb(FieldPointer::cdb(5, 7)));
    }
    let resources = unit.resources.is_some();
    let mut data = ParameterData::new();
    let ds = if page == log_page::SUPPORTED { 0 } else { DS };
    // SPF, where there is a subpage code.
    data.u8(ds | page | u8::from(subpage != 0) << 6).u8(subpage).counted_u16(|data| {
        match (page, subpage) {
            (log_page::SUPPORTED, 0x00) => pages(resources).filter(|known| known.1 == 0).for_each(|known| {
                data.u8(known.0);
            }),
            (log_page::SUPPORTED, _) => pages(resources).for_each(|known| {
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
    let mut counters = match control {
        LogControl::DefaultCumulative => LogCounters::default(),
        _ => unit.counters,
    };
    let tsd = if unit.saved { 0 } else { TSD };
    let thresholds = matches!(control, LogControl::Threshold | LogControl::DefaultThreshold);
    if let Some((errors, blocks)) = counters.of_page(page).map(|(errors, blocks)| (*errors, *blocks)) {
        if thresholds {
            return Err(Sense::invalid_field_in_cdb(FieldPointer::cdb(2, 7)));
        }
        let counter = |code, tsd, count| {
            Parameter::new(code, tsd | COUNTER, |data| {
                data.u64(count);
            })
        };
        let bytes = blocks.saturating_mul(unit.block_length.into());
        return Ok(vec![counter(CORRECTED, tsd, 0), counter(PROCESSED, TSD, bytes), counter(UNCORRECTED, tsd, errors)]);
    }
    Ok(match page {
        log_page::PROVISIONING => resources(unit.resources.unwrap_or_default()),
        // There is no thermometer: neither the temperature nor the greatest that is good for the unit.
        log_page::TEMPERATURE => [0x0000, 0x0001]
            .map(|code| {
                Parameter::new(code, TSD | BINARY_LIST, |data| {
                    data.u8(0).u8(UNKNOWN_TEMPERATURE);
                })
            })
            .into(),
        log_page::START_STOP => vec![Parameter::new(0x0004, tsd | BINARY_LIST, |data| {
            data.u32(unit.cycles);
        })],
        log_page::SELF_TESTS => {
            let tests = unit.self_tests.iter().map(Some).chain(std::iter::repeat(None));
            let tests = (1..=SELF_TEST_PARAMETERS).zip(tests);
            tests.map(|(code, test)| Parameter::new(code, tsd | BINARY_LIST, |data| self_test(test, data))).collect()
        }
        log_page::STATISTICS if thresholds => return Err(Sense::invalid_field_in_cdb(FieldPointer::cdb(2, 7))),
        log_page::STATISTICS => statistics(counters.statistics),
        // No exception; no temperature is known, nor (vendor-specific, but where disks have it) a threshold of it.
        log_page::INFORMATIONAL_EXCEPTIONS => vec![Parameter::new(0x0000, TSD | BINARY_LIST, |data| {
            data.u8(0x00).u8(0x00).u8(UNKNOWN_TEMPERATURE).u8(UNKNOWN_TEMPERATURE);
        })],
        _ => Vec::new(),
    })
}

/// What a temperature is told as that cannot be measured.
const UNKNOWN_TEMPERATURE: u8 = 0xff;

/// Available and used LBA mapping resources; SCOPE: other units may use what is available (10b), what is used is this one's (01b).
fn resources(resources: LogResources) -> Vec<Parameter> {
    let parameter = |code, count: u64, scope| {
        Parameter::new(code, TSD | BINARY_LIST, |data| {
            data.u32(u32::try_from(count).unwrap_or(u32::MAX)).u8(scope).zeros(3);
        })
    };
    vec![parameter(0x0001, resources.available, 0b10), parameter(0x0002, resources.used, 0b01)]
}

/// Commands and blocks. No command is timed, so intervals and what is weighted with them are zero; the time interval that they would
/// be counted in has to be told all the same: 10^-3 seconds.
fn statistics(statistics: LogStatistics) -> Vec<Parameter> {
    let LogStatistics { reads, writes, received, transmitted } = statistics;
    let counts = Parameter::new(0x0001, TSD | UNBOUNDED_COUNTER, |data| {
        data.u64(reads).u64(writes).u64(received).u64(transmitted).zeros(32);
    });
    let interval = Parameter::new(0x0003, TSD | BINARY_LIST, |data| {
        data.u32(3).u32(1);
    });
    // Of which sg_logs wants to be told before it reads the page at all.
    let idle = Parameter::new(0x0002, TSD | UNBOUNDED_COUNTER, |data| {
        data.u64(0);
    });
    vec![counts, idle, interval]
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
    resources: bool,
    mut counters: LogCounters,
) -> Result<LogCounters, Sense> {
    known(page, subpage, resources)?;
    if !pcr && control != LogControl::DefaultCumulative {
        return Ok(counters);
    }
    match page {
        log_page::SUPPORTED => counters = LogCounters::default(),
        log_page::STATISTICS => counters.statistics = LogStatistics::default(),
        _ => {
            if let Some((errors, blocks)) = counters.of_page(page) {
                (*errors, *blocks) = (0, 0);
            }
        }
    }
    Ok(counters)
}

/// What a LOG SELECT parameter list, not empty, makes of the counters. Nothing is to change unless all of it is right.
///
/// TOTAL UNCORRECTED ERRORS and, rounded down to whole blocks, TOTAL BYTES PROCESSED can be set to another value. Any other parameter, and any other page, is refused. DS, DU and
/// TSD mean nothing here and are not looked at, so that what LOG SENSE returned of a counter page can be sent back.
///
/// # Errors
///
/// INVALID FIELD IN CDB for anything but cumulative values; PARAMETER LIST LENGTH ERROR where the list ends within a page or a
/// parameter; INVALID FIELD IN PARAMETER LIST, with a field pointer, for what cannot be set.
pub fn log_select(
    control: LogControl,
    list: &[u8],
    block_length: u32,
    mut counters: LogCounters,
) -> Result<LogCounters, Sense> {
    if control != LogControl::Cumulative {
        return Err(Sense::invalid_field_in_cdb(FieldPointer::cdb(2, 7)));
    }
    let mut at = 0;
    while at < list.len() {
        let [code, subpage, high, low] = be_bytes(list, at).ok_or(TRUNCATED)?;
        let (errors, blocks) = counters.of_page(code & 0x3f).ok_or(invalid(at, 5))?;
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
            at = take_parameter(list, at, end, block_length, errors, blocks)?;
        }
    }
    Ok(counters)
}

const TRUNCATED: Sense = Sense::illegal_request(AdditionalSense::PARAMETER_LIST_LENGTH_ERROR);

fn invalid(byte: usize, bit: u8) -> Sense {
    // A parameter list has at most 65535 bytes.
    Sense::invalid_field_in_parameter_list(FieldPointer::parameter_list(byte as u16, bit))
}

/// Takes the parameter at `at` of a page that ends at `end`; where the next one begins.
fn take_parameter(
    list: &[u8],
    at: usize,
    end: usize,
    block_length: u32,
    errors: &mut u64,
    blocks: &mut u64,
) -> Result<usize, Sense> {
    let page = list.get(..end).ok_or(TRUNCATED)?;
    let [high, low, control, length] = be_bytes(page, at).ok_or(TRUNCATED)?;
    let code = u16::from_be_bytes([high, low]);
    if !matches!(code, CORRECTED | PROCESSED | UNCORRECTED) {
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
        UNCORRECTED => *errors = value,
        PROCESSED => *blocks = value / u64::from(block_length.max(1)),
        _ if value != 0 => return Err(invalid(begin, 7)),
        _ => {}
    }
    Ok(next)
}

#[cfg(test)]
#[path = "log_tests.rs"]
mod tests;
