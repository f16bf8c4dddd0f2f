//! The list of differences that are understood.
//!
//! A text of paragraphs, `#` starting a remark line. Each is an explanation:
//!
//! ```text
//! [a-name]
//! differs: end
//! command: 2F 8F 9E/12
//! if: cdb[1] & 0x06 = 0x04
//! if: lba >= end
//! vstgt: 5/24/00
//! peer: GOOD, E/1D/00
//! right: vstgt
//! clause: SBC-3 5.36
//! why: some words,
//!     which may go on
//! ```
//!
//! * `differs` names one [`Aspect`]; a command with two differences needs two explanations. `halt` says what the peer must not be sent.
//! * `command` lists operation codes, with a service action where there are some, or is `*`.
//! * `vstgt` and `peer` list how each ended the command, or are left out: anything. `!GOOD` is anything else than GOOD.
//! * `bytes` (of data): only these bytes may differ, as `0-3 12`; with a trailing dash, to the end.
//! * each `if` is one comparison (`=`, `!=`, `<`, `<=`, `>`, `>=`) of numbers: literal (`0x` for hexadecimal), bytes of the CDB `cdb[2..5]`
//!   or of the data sent `out[1]`, `control` (its last byte), `lba` and `blocks` (what it says), `end` (the disk's number of blocks), `needed` and `room` (the bytes the CDB
//!   says and those the host gave or made room for). A literal may be taken away from one, as `needed-8`; the left one may be masked: `& 0x08`. Of pointers, `vstgt-field` and `peer-field` are the bytes
//!   they point to, `vstgt-bit` and `peer-bit` the bits (8, if none is named).
//! * `right` is `vstgt`, `peer` or `both` (the standard leaves it open); `clause` is where it says so.
//!
//! The first explanation that fits counts.

use super::compare::{Aspect, Difference};
use super::outcome::End;
use super::stream::{Command, Medium, Transfer, get};
use crate::{Context, Error, Result};

/// The list.
#[derive(Debug, Clone, Default)]
pub struct Explained {
    entries: Vec<Entry>,
}

/// An explanation.
#[derive(Debug, Clone, Default)]
pub struct Entry {
    /// Its name.
    pub name: String,
    aspect: Option<Aspect>,
    commands: Vec<(u8, Option<u8>)>,
    any_command: bool,
    conditions: Vec<Condition>,
    ours: Vec<Pattern>,
    peer: Vec<Pattern>,
    bytes: Option<Vec<(usize, usize)>>,
    /// Who is right.
    pub right: String,
    /// By which clause.
    pub clause: String,
    /// Why.
    pub why: String,
}

/// How a command may have ended.
#[derive(Debug, Clone, Copy)]
enum Pattern {
    Exactly(End),
    NotGood,
}

impl Pattern {
    /// Reads a list of them.
    fn list(text: &str) -> Result<Vec<Pattern>> {
        let one = |word: &str| match word.trim() {
            "!GOOD" => Ok(Pattern::NotGood),
            end => end.parse().map(Pattern::Exactly),
        };
        text.split(',').map(one).collect()
    }

    /// Whether an end is in a list; in an empty one are all.
    fn fits(list: &[Pattern], end: End) -> bool {
        let one = |pattern: &Pattern| match pattern {
            Pattern::Exactly(expected) => *expected == end,
            Pattern::NotGood => end != End::Good,
        };
        list.is_empty() || list.iter().any(one)
    }
}

#[derive(Debug, Clone)]
struct Condition {
    left: Term,
    mask: Option<u64>,
    operator: String,
    right: Term,
}

/// What a term names, and what is taken away from it.
#[derive(Debug, Clone, Copy)]
struct Term(Name, u64);

#[derive(Debug, Clone, Copy)]
enum Name {
    Number(u64),
    Cdb(usize, usize),
    Out(usize, usize),
    Lba,
    Blocks,
    End,
    Needed,
    Room,
    Control,
    Field(usize),
    Bit(usize),
}

impl Explained {
    /// Reads a list.
    ///
    /// # Errors
    /// When a line is not understood, or an explanation lacks something; the message names it.
    pub fn parse(text: &str) -> Result<Explained> {
        let mut entries: Vec<Entry> = Vec::new();
        let mut last = String::new();
        for (number, line) in text.lines().enumerate() {
            let place = || format!("line {}: {line}", number + 1);
            if line.trim().is_empty() || line.starts_with('#') {
                continue;
            }
            if let Some(name) = line.strip_prefix('[').and_then(|rest| rest.strip_suffix(']')) {
                if entries.iter().any(|entry| entry.name == name) {
                    return Err(Error::new(format!("{}: the second of this name", place())));
                }
                entries.push(Entry { name: name.to_owned(), ..Entry::default() });
                continue;
            }
            let entry = entries.last_mut().context(|| format!("{}: before the first name", place()))?;
            if line.starts_with(' ') {
                entry.goes_on(&last, line.trim()).context(place)?;
                continue;
            }
            let (key, value) = line.split_once(':').context(|| format!("{}: no key", place()))?;
            entry.set(key, value.trim()).context(place)?;
            last = key.to_owned();
        }
        entries.iter().try_for_each(Entry::is_whole)?;
        Ok(Explained { entries })
    }

    /// The explanations.
    pub fn entries(&self) -> &[Entry] {
        &self.entries
    }

    /// Which explanation fits a difference of a command.
    pub fn find(&self, command: &Command, medium: Medium, difference: &Difference) -> Option<usize> {
        self.entries.iter().position(|entry| entry.fits(command, medium, difference))
    }
}

impl Entry {
    fn set(&mut self, key: &str, value: &str) -> Result<()> {
        match key {
            "differs" => {
                let aspect = Aspect::ALL.into_iter().find(|aspect| aspect.to_string() == value);
                self.aspect = Some(aspect.context(|| format!("no aspect {value}"))?);
            }
            "command" if value == "*" => self.any_command = true,
            "command" => self.commands = value.split_whitespace().map(code).collect::<Result<_>>()?,
            "if" => self.conditions.push(Condition::parse(value)?),
            "vstgt" => self.ours = Pattern::list(value)?,
            "peer" => self.peer = Pattern::list(value)?,
            "bytes" => self.bytes = Some(value.split_whitespace().map(range).collect::<Result<_>>()?),
            "right" => self.right = value.to_owned(),
            "clause" => self.clause = value.to_owned(),
            "why" => self.why = value.to_owned(),
            _ => return Err(Error::new(format!("no key {key}"))),
        }
        Ok(())
    }

    fn goes_on(&mut self, key: &str, more: &str) -> Result<()> {
        match key {
            "why" => self.why = format!("{} {more}", self.why),
            "command" => self.commands.extend(more.split_whitespace().map(code).collect::<Result<Vec<_>>>()?),
            _ => return Err(Error::new(format!("{key} does not go on"))),
        }
        Ok(())
    }

    fn is_whole(&self) -> Result<()> {
        let missing = [
            (self.aspect.is_none(), "differs"),
            (self.commands.is_empty() && !self.any_command, "command"),
            (!["vstgt", "peer", "both"].contains(&self.right.as_str()), "right"),
            (self.clause.is_empty(), "clause"),
            (self.why.is_empty(), "why"),
        ];
        match missing.iter().find(|(missing, _)| *missing) {
            Some((_, key)) => Err(Error::new(format!("[{}] has no (or no legal) {key}", self.name))),
            None => Ok(()),
        }
    }

    fn fits(&self, command: &Command, medium: Medium, difference: &Difference) -> bool {
        let (opcode, action) = (command.cdb[0], command.cdb[1] & 0x1F);
        self.aspect == Some(difference.aspect)
            && (self.any_command
                || self.commands.iter().any(|(code, a)| *code == opcode && a.is_none_or(|a| a == action)))
            && Pattern::fits(&self.ours, difference.ours)
            && Pattern::fits(&self.peer, difference.peer)
            && self.conditions.iter().all(|condition| condition.holds(command, medium, difference))
            && self.bytes.as_ref().is_none_or(|ranges| {
                difference.bytes.iter().all(|at| ranges.iter().any(|(first, last)| (*first..=*last).contains(at)))
            })
    }
}

fn code(word: &str) -> Result<(u8, Option<u8>)> {
    let byte = |hex: &str| u8::from_str_radix(hex, 16).context(|| format!("the operation code {word}"));
    match word.split_once('/') {
        Some((opcode, action)) => Ok((byte(opcode)?, Some(byte(action)?))),
        None => Ok((byte(word)?, None)),
    }
}

fn range(word: &str) -> Result<(usize, usize)> {
    let number = |text: &str| text.parse().context(|| format!("the bytes {word}"));
    match word.split_once('-') {
        Some((first, "")) => Ok((number(first)?, usize::MAX)),
        Some((first, last)) => Ok((number(first)?, number(last)?)),
        None => Ok((number(word)?, number(word)?)),
    }
}

impl Condition {
    fn parse(text: &str) -> Result<Condition> {
        let words: Vec<&str> = text.split_whitespace().collect();
        let (left, mask, operator, right) = match words[..] {
            [left, "&", mask, operator, right] => (left, Some(number(mask)?), operator, right),
            [left, operator, right] => (left, None, operator, right),
            _ => return Err(Error::new(format!("no condition: {text}"))),
        };
        if !["=", "!=", "<", "<=", ">", ">="].contains(&operator) {
            return Err(Error::new(format!("no operator {operator}")));
        }
        Ok(Condition { left: Term::parse(left)?, mask, operator: operator.to_owned(), right: Term::parse(right)? })
    }

    /// Whether it holds; one about bytes that are not there does not.
    fn holds(&self, command: &Command, medium: Medium, difference: &Difference) -> bool {
        let value = |term: Term| term.value(command, medium, difference);
        let (Some(left), Some(right)) = (value(self.left), value(self.right)) else {
            return false;
        };
        let left = left & self.mask.unwrap_or(u64::MAX);
        match self.operator.as_str() {
            "=" => left == right,
            "!=" => left != right,
            "<" => left < right,
            "<=" => left <= right,
            ">" => left > right,
            _ => left >= right,
        }
    }
}

fn number(text: &str) -> Result<u64> {
    let parsed = text.strip_prefix("0x").map_or_else(|| text.parse(), |hex| u64::from_str_radix(hex, 16));
    parsed.context(|| format!("the number {text}"))
}

impl Term {
    fn parse(text: &str) -> Result<Term> {
        match text.rsplit_once('-') {
            Some((name, less)) if less.starts_with(|c: char| c.is_ascii_digit()) => {
                Ok(Term(Name::parse(name)?, number(less)?))
            }
            _ => Ok(Term(Name::parse(text)?, 0)),
        }
    }

    /// What it comes to, unless it is about bytes that are not there, or below 0.
    fn value(self, command: &Command, medium: Medium, difference: &Difference) -> Option<u64> {
        self.0.value(command, medium, difference)?.checked_sub(self.1)
    }
}

impl Name {
    fn parse(text: &str) -> Result<Name> {
        if let Some((name, bytes)) = text.strip_suffix(']').and_then(|rest| rest.split_once('[')) {
            let (first, last) = bytes.split_once("..").unwrap_or((bytes, bytes));
            let index = |text| number(text).map(|n| n as usize);
            let (first, last) = (index(first)?, index(last)?);
            return match name {
                _ if last < first || last - first > 7 => Err(Error::new(format!("no bytes {text}"))),
                "cdb" => Ok(Name::Cdb(first, last)),
                "out" => Ok(Name::Out(first, last)),
                _ => Err(Error::new(format!("no bytes of {name}"))),
            };
        }
        Ok(match text {
            "lba" => Name::Lba,
            "blocks" => Name::Blocks,
            "end" => Name::End,
            "needed" => Name::Needed,
            "room" => Name::Room,
            "control" => Name::Control,
            "vstgt-field" => Name::Field(0),
            "peer-field" => Name::Field(1),
            "vstgt-bit" => Name::Bit(0),
            "peer-bit" => Name::Bit(1),
            _ => Name::Number(number(text)?),
        })
    }

    fn value(self, command: &Command, medium: Medium, difference: &Difference) -> Option<u64> {
        let bytes = |from: &[u8], first: usize, last: usize| from.get(first..=last).map(|b| get(b, 0, b.len()));
        match self {
            Name::Number(number) => Some(number),
            Name::Cdb(first, last) => bytes(&command.cdb, first, last),
            Name::Out(first, last) => match &command.transfer {
                Transfer::Out(data) => bytes(data, first, last),
                _ => None,
            },
            Name::Lba => Some(command.lba),
            Name::Blocks => Some(command.blocks),
            Name::End => Some(medium.blocks),
            Name::Needed => Some(command.needed),
            Name::Room => Some(command.transfer.length() as u64),
            Name::Control => command.cdb.last().map(|control| u64::from(*control)),
            Name::Field(whose) => difference.pointers.map(|both| get(&both[whose], 1, 2)),
            // SPC-4 4.5.2.4.2: BPV says whether BIT POINTER is valid.
            Name::Bit(whose) => difference.pointers.map(|both| match both[whose][0] {
                specific if specific & 0x08 != 0 => u64::from(specific & 7),
                _ => 8,
            }),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::super::outcome::Sense;
    use super::super::shapes::Effect;
    use super::*;

    const MEDIUM: Medium = Medium { blocks: 2048, block: 512 };

    const LIST: &str = "# a remark\n\
        [reserved-bytchk]\ndiffers: end\ncommand: 2F\n    8F\nif: cdb[1] & 0x06 = 4\nif: lba < end\nvstgt: 5/24/00\npeer: GOOD, E/1D/00\n\
        right: vstgt\nclause: SBC-3 5.36\nwhy: it is\n    reserved\n\n\
        [names]\ndiffers: data\ncommand: 12 9E/10\nbytes: 8-35 96-\nright: both\nclause: SPC-4 6.6.2\nwhy: they are vendors' own\n";

    fn command(cdb: &[u8]) -> Command {
        let (lba, transfer) = (u64::from(cdb[2]), Transfer::In(4));
        Command {
            name: "x",
            cdb: cdb.to_vec(),
            transfer,
            lba,
            blocks: 0,
            needed: 4,
            effect: Effect::None,
            touched: vec![],
        }
    }

    fn difference(aspect: Aspect, peer: End, bytes: &[usize]) -> Difference {
        Difference { bytes: bytes.to_vec(), ..Difference::of(aspect, End::Check(Sense(5, 0x24, 0)), peer) }
    }

    #[test]
    fn an_explanation_fits_what_it_says_and_nothing_else() {
        let list = Explained::parse(LIST).unwrap();
        assert_eq!(list.entries()[0].why, "it is reserved");
        let find = |cdb: &[u8], difference: &Difference| list.find(&command(cdb), MEDIUM, difference);
        let good = difference(Aspect::End, End::Good, &[]);
        assert_eq!(find(&[0x2F, 4, 0], &good), Some(0));
        assert_eq!(find(&[0x8F, 5, 0], &good), Some(0));
        assert_eq!(find(&[0x8F, 6, 0], &good), None);
        assert_eq!(find(&[0xAF, 4, 0], &good), None);
        assert_eq!(find(&[0x2F, 4, 0], &difference(Aspect::End, End::Status(0x18), &[])), None);
        assert_eq!(find(&[0x2F, 4, 0], &difference(Aspect::Data, End::Good, &[])), None);
        let miscompare = End::Check(Sense(0xE, 0x1D, 0));
        assert_eq!(find(&[0x2F, 4, 0], &difference(Aspect::End, miscompare, &[])), Some(0));
        let mut far = command(&[0x2F, 4, 0]);
        far.lba = 2048;
        assert_eq!(list.find(&far, MEDIUM, &good), None);

        assert_eq!(find(&[0x12, 0, 0], &difference(Aspect::Data, End::Good, &[8, 35, 96, 500])), Some(1));
        assert_eq!(find(&[0x12, 0, 0], &difference(Aspect::Data, End::Good, &[7, 8])), None);
        assert_eq!(find(&[0x9E, 0x10, 0], &difference(Aspect::Data, End::Good, &[8])), Some(1));
        assert_eq!(find(&[0x9E, 0x12, 0], &difference(Aspect::Data, End::Good, &[8])), None);
    }

    #[test]
    fn conditions_know_pointers_and_subtraction() {
        let text = "[a]\ndiffers: pointer\ncommand: *\nif: vstgt-field = peer-field\nif: peer-bit = 8\nif: needed-3 = cdb[0]\n\
                    right: both\nclause: x\nwhy: y\n";
        let list = Explained::parse(text).unwrap();
        let find = |cdb: &[u8], peer| {
            let pointers = Some([[0xCF, 0, 2], peer]);
            let difference = Difference { pointers, ..difference(Aspect::Pointer, End::Check(Sense(5, 0x24, 0)), &[]) };
            list.find(&command(cdb), MEDIUM, &difference)
        };
        assert_eq!(find(&[1, 0, 0], [0xC0, 0, 2]), Some(0));
        assert_eq!(find(&[2, 0, 0], [0xC0, 0, 2]), None);
        assert_eq!(find(&[1, 0, 0], [0xC0, 0, 3]), None);
        assert_eq!(find(&[1, 0, 0], [0xC8, 0, 2]), None);
    }

    #[test]
    fn what_is_missing_is_named() {
        let without = |line: &str| {
            let text: String = LIST.lines().filter(|l| !l.starts_with(line)).map(|l| format!("{l}\n")).collect();
            Explained::parse(&text).unwrap_err().to_string()
        };
        for key in ["differs", "right", "clause"] {
            let error = without(key);
            assert!(error.contains("[reserved-bytchk]") && error.contains(key), "{error}");
        }
        for text in [
            "if: lba ? 4\n",
            "if: cdb[5..1] = 4\n",
            "colour: red\n",
            "differs: smell\n",
            "command: 2G\n",
            "peer: FINE\n",
            "[names]\n",
        ] {
            assert!(Explained::parse(&format!("{LIST}{text}")).is_err(), "{text}");
        }
        assert!(Explained::parse("why: so\n").is_err());
    }
}
