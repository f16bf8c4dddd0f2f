//! What initiators left with a unit, as lines of its state file; see [`format`](super::format).

use std::fmt::Write;

use super::format::{hex, number};
use crate::lu::{KeptClock, KeptRecords, SelfTestOutcome, SelfTestResult};
use crate::scsi::spc::{IdentifyingInformationType, LogErrors};
use crate::scsi::{AdditionalSense, Sense, SenseKey};

/// Writes the lines.
pub(super) fn write(records: &KeptRecords, text: &mut String) -> std::fmt::Result {
    // Field by field, so that one that is added has to be thought of.
    let KeptRecords { identifying, clock, cycles, errors, self_tests, hours, threshold_reached, lost_writes } = records;
    for kind in IdentifyingInformationType::ALL {
        let information = identifying.get(kind);
        if !information.is_empty() {
            write!(text, "identifying {:x} ", kind.code())?;
            information.iter().try_for_each(|byte| write!(text, "{byte:02x}"))?;
            writeln!(text)?;
        }
    }
    if let Some(KeptClock { milliseconds, since_boot }) = clock {
        writeln!(text, "timestamp {milliseconds} {since_boot}")?;
    }
    writeln!(text, "cycles {cycles}\nhours {hours}")?;
    if *threshold_reached {
        writeln!(text, "reached")?;
    }
    if *lost_writes {
        writeln!(text, "lost-writes")?;
    }
    let LogErrors { write, read, verify } = errors;
    writeln!(text, "errors write {write}\nerrors read {read}\nerrors verify {verify}")?;
    for SelfTestResult { code, outcome, hours } in self_tests {
        let (result, number, lba, key, sense) = match outcome {
            SelfTestOutcome::Passed => (PASSED, 0, 0, 0, 0),
            SelfTestOutcome::AbortedByCommand => (ABORTED_BY_COMMAND, 0, 0, 0, 0),
            // One that runs ends with the process.
            SelfTestOutcome::Aborted | SelfTestOutcome::Running => (ABORTED, 0, 0, 0, 0),
            SelfTestOutcome::Failed { segment, lba, sense } => (FAILED, *segment, *lba, sense.key as u8, sense.code.0),
        };
        writeln!(text, "self-test {code:x} {result:x} {number:x} {hours:x} {lba:x} {key:x} {sense:04x}")?;
    }
    Ok(())
}

/// Takes a line, if it is of a kind that is known here: what it is about, and its other words.
pub(super) fn read<'a>(
    about: &str,
    mut words: impl Iterator<Item = &'a str>,
    records: &mut KeptRecords,
) -> Result<(), String> {
    let mut word = || words.next().ok_or("a word is missing");
    match about {
        "identifying" => {
            let kind = u8::try_from(hex(word()?)?).ok().and_then(IdentifyingInformationType::from_code);
            records.identifying.set(kind.ok_or("there is no such type of information")?, bytes(word()?)?);
        }
        "timestamp" => {
            let (milliseconds, since_boot) = (number(word()?)?, number(word()?)?);
            records.clock = Some(KeptClock { milliseconds, since_boot });
        }
        "cycles" => records.cycles = number(word()?)?,
        "hours" => records.hours = number(word()?)?,
        "reached" => records.threshold_reached = true,
        "lost-writes" => records.lost_writes = true,
        "errors" => {
            let (name, count) = (word()?, number(word()?)?);
            let LogErrors { write, read, verify } = &mut records.errors;
            let counters = [("write", write), ("read", read), ("verify", verify)];
            counters.into_iter().filter(|(known, _)| *known == name).for_each(|(_, counter)| *counter = count);
        }
        "self-test" => {
            let numbers = words.map(hex).collect::<Result<Vec<u64>, _>>()?;
            records.self_tests.extend(self_test(&numbers)?);
        }
        _ => {}
    }
    Ok(())
}

/// SELF-TEST RESULTS values; which segment failed is told by its number.
const PASSED: u64 = 0x0;
const ABORTED_BY_COMMAND: u64 = 0x1;
const ABORTED: u64 = 0x2;
const FAILED: u64 = 0x6;

/// A self-test, if its result is one that is known here.
fn self_test(numbers: &[u64]) -> Result<Option<SelfTestResult>, String> {
    let [code, result, number, hours, lba, key, sense] = numbers else { return Err("a word is missing".to_owned()) };
    fn narrow<T: TryFrom<u64>>(value: u64) -> Result<T, String> {
        T::try_from(value).map_err(|_| format!("{value:x} is too great"))
    }
    let outcome = match *result {
        PASSED => SelfTestOutcome::Passed,
        ABORTED_BY_COMMAND => SelfTestOutcome::AbortedByCommand,
        ABORTED => SelfTestOutcome::Aborted,
        FAILED => SelfTestOutcome::Failed {
            segment: narrow(*number)?,
            lba: *lba,
            sense: Sense::new(
                SenseKey::from_code(narrow(*key)?).ok_or("there is no such sense key")?,
                AdditionalSense(narrow(*sense)?),
            ),
        },
        _ => return Ok(None),
    };
    Ok(Some(SelfTestResult { code: narrow(*code)?, outcome, hours: narrow(*hours)? }))
}

fn bytes(word: &str) -> Result<Vec<u8>, String> {
    let bad = || format!("{word} is not whole bytes");
    if !word.len().is_multiple_of(2) {
        return Err(bad());
    }
    let pairs = (0..word.len()).step_by(2).map(|at| word.get(at..at + 2));
    pairs.map(|pair| pair.and_then(|pair| u8::from_str_radix(pair, 16).ok()).ok_or_else(bad)).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn records() -> KeptRecords {
        let mut records = KeptRecords {
            clock: Some(KeptClock { milliseconds: u64::MAX, since_boot: 1 }),
            cycles: u32::MAX,
            errors: LogErrors { write: 1, read: u64::MAX, verify: 0 },
            hours: 7,
            threshold_reached: true,
            lost_writes: true,
            ..KeptRecords::default()
        };
        records.identifying.set(IdentifyingInformationType::Peripheral, vec![0, 0xff, 0x0a]);
        records.identifying.set(IdentifyingInformationType::Text, b"name\n\0".to_vec());
        let sense = Sense::new(SenseKey::MediumError, AdditionalSense::UNRECOVERED_READ_ERROR);
        let failed = SelfTestOutcome::Failed { segment: 2, lba: u64::MAX, sense };
        let outcomes = [SelfTestOutcome::Passed, failed, SelfTestOutcome::Aborted, SelfTestOutcome::AbortedByCommand];
        let result = |outcome| SelfTestResult { code: 0b110, outcome, hours: u16::MAX };
        records.self_tests = outcomes.map(result).to_vec();
        records
    }

    fn read_all(text: &str) -> Result<KeptRecords, String> {
        let mut records = KeptRecords::default();
        for line in text.lines() {
            let mut words = line.split(' ');
            read(words.next().unwrap(), words, &mut records)?;
        }
        Ok(records)
    }

    #[test]
    fn what_is_written_is_read() {
        let mut text = String::new();
        write(&records(), &mut text).unwrap();
        let expected = "identifying 0 00ff0a\nidentifying 2 6e616d650a00\ntimestamp 18446744073709551615 1\n\
            cycles 4294967295\nhours 7\nreached\nlost-writes\nerrors write 1\nerrors read 18446744073709551615\nerrors verify 0\n\
            self-test 6 0 0 ffff 0 0 0000\nself-test 6 6 2 ffff ffffffffffffffff 3 1100\nself-test 6 2 0 ffff 0 0 0000\n\
            self-test 6 1 0 ffff 0 0 0000\n";
        assert_eq!(text, expected);
        assert_eq!(read_all(&text), Ok(records()));
        for (from, to) in [
            ("identifying 0 00ff0a", "identifying 1 00ff0a"),
            ("identifying 0 00ff0a", "identifying 0 00ff0"),
            ("identifying 0 00ff0a", "identifying 0 00fföa"),
            ("identifying 0 00ff0a", "identifying 0"),
            ("timestamp 1", "timestamp 7"),
            ("self-test 6 2 0", "self-test 6 2"),
            ("ffff ffffffffffffffff 3 1100", "ffff ffffffffffffffff 9 1100"),
            ("ffff ffffffffffffffff 3", "10000 ffffffffffffffff 3"),
        ] {
            let wrong = text.replacen(from, to, 1);
            assert_ne!(wrong, text, "{from}");
            assert!(read_all(&wrong).is_err(), "{from} → {to}");
        }
        // Of a later program.
        let more = format!("{text}errors seek 4\nself-test 6 7 0 0 0 0 0\n");
        assert_eq!(read_all(&more), Ok(records()));
    }
}
