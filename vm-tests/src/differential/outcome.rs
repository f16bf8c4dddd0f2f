//! What came of a command: everything a host sees of it.

use super::stream::hex;
use crate::{Context, Error, Result};
use std::fmt;
use std::str::FromStr;

/// What came of a command.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Outcome {
    /// The SCSI status.
    pub status: u8,
    /// What went wrong in the host bus adapter (`DID_*` of the kernel), 0 if nothing.
    pub host: u16,
    /// Bytes of the transfer that did not go.
    pub residual: i64,
    /// Sense data, as long as they came.
    pub sense: Vec<u8>,
    /// Data from the disk, as many as came by the residual.
    pub data: Vec<u8>,
}

/// CHECK CONDITION.
pub const CHECK_CONDITION: u8 = 0x02;

/// UNIT ATTENTION.
pub const UNIT_ATTENTION: u8 = 0x06;

/// What sense data say, in short: sense key, additional sense code and its qualifier.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub struct Sense(pub u8, pub u8, pub u8);

impl fmt::Display for Sense {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:X}/{:02X}/{:02X}", self.0, self.1, self.2)
    }
}

/// How a command ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum End {
    /// GOOD.
    Good,
    /// CHECK CONDITION with that sense.
    Check(Sense),
    /// Another status.
    Status(u8),
    /// The host bus adapter failed it.
    Host(u16),
}

impl fmt::Display for End {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            End::Good => write!(f, "GOOD"),
            End::Check(sense) => write!(f, "{sense}"),
            End::Status(status) => write!(f, "status {status:02X}"),
            End::Host(host) => write!(f, "host {host:02X}"),
        }
    }
}

impl FromStr for End {
    type Err = Error;

    fn from_str(text: &str) -> Result<End> {
        let hex = |digits: &str| u8::from_str_radix(digits, 16).context(|| format!("the end {text}"));
        if let Some(status) = text.strip_prefix("status ") {
            return Ok(End::Status(hex(status)?));
        }
        if let Some(host) = text.strip_prefix("host ") {
            return Ok(End::Host(u16::from(hex(host)?)));
        }
        match text.split('/').collect::<Vec<_>>()[..] {
            ["GOOD"] => Ok(End::Good),
            [key, code, qualifier] => Ok(End::Check(Sense(hex(key)?, hex(code)?, hex(qualifier)?))),
            _ => Err(Error::new(format!("no end: {text}"))),
        }
    }
}

impl Outcome {
    /// How it ended.
    pub fn end(&self) -> End {
        match (self.host, self.status, self.short_sense()) {
            (0, 0, _) => End::Good,
            (0, CHECK_CONDITION, Some(sense)) => End::Check(sense),
            (0, status, _) => End::Status(status),
            (host, _, _) => End::Host(host),
        }
    }

    /// Whether it ended with a unit attention.
    pub fn is_attention(&self) -> bool {
        matches!(self.end(), End::Check(Sense(UNIT_ATTENTION, _, _)))
    }

    /// The sense in short (SPC-4 4.5.2 and 4.5.3).
    pub fn short_sense(&self) -> Option<Sense> {
        match self.sense.first()? & 0x7F {
            0x70 | 0x71 => Some(Sense(self.sense.get(2)? & 0x0F, *self.sense.get(12)?, *self.sense.get(13)?)),
            0x72 | 0x73 => Some(Sense(self.sense.get(1)? & 0x0F, *self.sense.get(2)?, *self.sense.get(3)?)),
            _ => None,
        }
    }

    /// INFORMATION of fixed format sense data, if it is valid; of descriptor format, the information descriptor's.
    pub fn information(&self) -> Option<u64> {
        match self.sense.first()? {
            0xF0 | 0xF1 => Some(super::stream::get(self.sense.get(3..7)?, 0, 4)),
            0x72 | 0x73 => self.descriptor(0x00).and_then(|d| d.get(4..12)).map(|d| super::stream::get(d, 0, 8)),
            _ => None,
        }
    }

    /// The three sense-key specific bytes, if they are valid (SPC-4 4.5.2.4).
    pub fn specific(&self) -> Option<[u8; 3]> {
        let bytes = match self.sense.first()? & 0x7F {
            0x70 | 0x71 => self.sense.get(15..18)?,
            0x72 | 0x73 => self.descriptor(0x02)?.get(4..7)?,
            _ => return None,
        };
        (bytes[0] & 0x80 != 0).then(|| [bytes[0], bytes[1], bytes[2]])
    }

    fn descriptor(&self, kind: u8) -> Option<&[u8]> {
        let mut rest = self.sense.get(8..)?;
        while let [code, length, ..] = rest {
            let end = 2 + usize::from(*length);
            if *code == kind {
                return rest.get(..end);
            }
            rest = rest.get(end..)?;
        }
        None
    }
}

impl fmt::Display for Outcome {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}, residual {}", self.end(), self.residual)?;
        if !self.sense.is_empty() {
            write!(f, ", sense {}", hex(&self.sense))?;
        }
        if !self.data.is_empty() {
            let shown = &self.data[..self.data.len().min(96)];
            write!(f, ", data {}{}", hex(shown), if shown.len() < self.data.len() { " …" } else { "" })?;
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const FIXED: [u8; 18] = [0xF0, 0, 5, 0, 0, 1, 2, 10, 0, 0, 0, 0, 0x24, 0, 0, 0xCF, 0, 2];
    const DESCRIPTOR: [u8; 28] =
        [0x72, 5, 0x24, 0, 0, 0, 0, 20, 0, 10, 0x80, 0, 0, 0, 0, 0, 0, 0, 1, 2, 2, 6, 0, 0, 0xCF, 0, 2, 0];

    #[test]
    fn both_formats_say_the_same() {
        for sense in [FIXED.to_vec(), DESCRIPTOR.to_vec()] {
            let outcome = Outcome { status: 2, sense, ..Outcome::default() };
            assert_eq!(outcome.end(), End::Check(Sense(5, 0x24, 0)));
            assert_eq!(outcome.information(), Some(0x102));
            assert_eq!(outcome.specific(), Some([0xCF, 0, 2]));
        }
    }

    #[test]
    fn what_is_not_valid_is_not_there() {
        let mut sense = FIXED.to_vec();
        (sense[0], sense[15]) = (0x70, 0x4F);
        let outcome = Outcome { status: 2, sense, ..Outcome::default() };
        assert_eq!((outcome.information(), outcome.specific()), (None, None));
        let short = Outcome { status: 2, sense: vec![0x70, 0, 5], ..Outcome::default() };
        assert_eq!(short.end(), End::Status(2));
        assert_eq!(Outcome { status: 2, host: 7, ..Outcome::default() }.end(), End::Host(7));
        for end in [End::Good, End::Check(Sense(5, 0x24, 0)), End::Status(0x18), End::Host(7)] {
            assert_eq!(end.to_string().parse::<End>().unwrap(), end);
        }
        assert_eq!(Outcome { status: 0x18, ..Outcome::default() }.end().to_string(), "status 18");
    }
}
