//! What is done to a unit's whole medium, in words: the line `erasing` of a state file.
//!
//! `COMMAND STAGE DONE LENGTH [PASSES INVERT PATTERN]`: COMMAND is `format`, `sanitize`, or `sanitize-ause`; STAGE `running`, `failed`, or
//! `interrupted`. DONE and LENGTH are bytes in decimal, 0 but while it runs. Without the rest blocks are deallocated or zeroed; PASSES is
//! decimal, INVERT 0 or 1, PATTERN hexadecimal digits, two for each byte.

use std::fmt::Display;

use super::format::number;
use crate::lu::{Erasure, Method, Occupation, Pattern, Purpose, Stage};

/// The longest pattern: a block.
const MAX_PATTERN: usize = 4096;

/// An occupation as it is written.
pub(super) struct Words<'a>(pub(super) &'a Occupation);

impl Display for Words<'_> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let Occupation { erasure: Erasure { purpose, method }, stage } = self.0;
        let command = match purpose {
            Purpose::Format => "format",
            Purpose::Sanitize { ause: false } => "sanitize",
            Purpose::Sanitize { ause: true } => "sanitize-ause",
        };
        let (stage, done, len) = match *stage {
            Stage::Running { done, len } => ("running", done, len),
            Stage::Failed => ("failed", 0, 0),
            Stage::Interrupted => ("interrupted", 0, 0),
        };
        write!(f, "{command} {stage} {done} {len}")?;
        if let Method::Pattern(Pattern { bytes, passes, invert }) = method {
            write!(f, " {passes} {} ", u8::from(*invert))?;
            bytes.iter().try_for_each(|byte| write!(f, "{byte:02x}"))?;
        }
        Ok(())
    }
}

/// Takes what [`Words`] wrote.
///
/// # Errors
///
/// What is wrong with it: nobody can have written that.
pub(super) fn read<'a>(mut words: impl Iterator<Item = &'a str>) -> Result<Occupation, String> {
    let mut word = || words.next().ok_or("a word is missing");
    let purpose = match word()? {
        "format" => Purpose::Format,
        "sanitize" => Purpose::Sanitize { ause: false },
        "sanitize-ause" => Purpose::Sanitize { ause: true },
        other => return Err(format!("nothing erases for {other}")),
    };
    let stage = word()?;
    let (done, len) = (number(word()?)?, number(word()?)?);
    let stage = match (stage, purpose) {
        ("running", _) => Stage::Running { done, len },
        ("failed", _) => Stage::Failed,
        ("interrupted", Purpose::Format) => Stage::Interrupted,
        (other, _) => return Err(format!("there is no stage {other}")),
    };
    let method = match words.next() {
        None => Method::Zero,
        Some(passes) => {
            let mut word = || words.next().ok_or("a word is missing");
            let (passes, invert, bytes) = (number(passes)?, number::<u8>(word()?)? != 0, pattern(word()?)?);
            if !(1..=31).contains(&passes) {
                return Err(format!("nothing is written {passes} times"));
            }
            Method::Pattern(Pattern { bytes, passes, invert })
        }
    };
    Ok(Occupation { erasure: Erasure { purpose, method }, stage })
}

fn pattern(digits: &str) -> Result<Vec<u8>, String> {
    let byte = |pair: &[u8]| {
        let digits = pair.len() == 2 && pair.iter().all(u8::is_ascii_hexdigit);
        let text = std::str::from_utf8(pair).ok().filter(|_| digits)?;
        u8::from_str_radix(text, 16).ok()
    };
    let bytes: Option<Vec<u8>> = digits.as_bytes().chunks(2).map(byte).collect();
    let fits = bytes.filter(|bytes| (1..=MAX_PATTERN).contains(&bytes.len()));
    fits.ok_or_else(|| format!("{digits} is no pattern"))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn zero(purpose: Purpose, stage: Stage) -> Occupation {
        Occupation { erasure: Erasure { purpose, method: Method::Zero }, stage }
    }

    fn written(occupation: &Occupation) -> String {
        Words(occupation).to_string()
    }

    fn taken(text: &str) -> Result<Occupation, String> {
        read(text.split(' '))
    }

    #[test]
    fn what_is_written_is_read() {
        let running = Stage::Running { done: 1 << 50, len: (1 << 60) + 512 };
        let cases = [
            (zero(Purpose::Sanitize { ause: false }, running), "sanitize running 1125899906842624 1152921504606847488"),
            (zero(Purpose::Sanitize { ause: true }, Stage::Failed), "sanitize-ause failed 0 0"),
            (zero(Purpose::Format, Stage::Interrupted), "format interrupted 0 0"),
        ];
        for (occupation, text) in cases {
            assert_eq!(written(&occupation), text);
            assert_eq!(taken(text), Ok(occupation));
        }
        let method = Method::Pattern(Pattern { bytes: vec![0x00, 0xff, 0x5a], passes: 31, invert: true });
        let occupation = Occupation { erasure: Erasure { purpose: Purpose::Format, method }, stage: Stage::Failed };
        assert_eq!(written(&occupation), "format failed 0 0 31 1 00ff5a");
        assert_eq!(taken("format failed 0 0 31 1 00ff5a"), Ok(occupation));
        let longest = format!("sanitize running 0 0 1 0 {}", "a5".repeat(4096));
        assert_eq!(written(&taken(&longest).unwrap()), longest);
    }

    #[test]
    fn what_nobody_wrote_is_refused() {
        let too_long = format!("format failed 0 0 1 0 {}", "00".repeat(4097));
        let wrong = [
            "",
            "erase running 0 0",
            "sanitize",
            "sanitize running 0",
            "sanitize walking 0 0",
            "sanitize interrupted 0 0",
            "sanitize running -1 0",
            "sanitize running 0 0 0 0 00",
            "sanitize running 0 0 32 0 00",
            "sanitize running 0 0 1 0",
            "sanitize running 0 0 1 0 ",
            "sanitize running 0 0 1 0 0",
            "sanitize running 0 0 1 0 0g",
            "sanitize running 0 0 1 0 +1",
            &too_long,
        ];
        for text in wrong {
            assert!(taken(text).is_err(), "{text}");
        }
    }
}
