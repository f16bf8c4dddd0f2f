//! `KEY=VALUE,KEY=VALUE` lists as QEMU writes them: a comma in a value is doubled.

use std::ops::RangeInclusive;

/// What is wrong with a list.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum OptionsError {
    /// An item without `=`.
    #[error("'{0}' is not KEY=VALUE (a comma inside a value is written twice)")]
    NoValue(String),
    /// A key that must be there is not.
    #[error("'{0}=' is missing")]
    Missing(&'static str),
    /// A key that may be there once is there twice.
    #[error("'{0}=' is given twice")]
    Twice(&'static str),
    /// A key that nobody knows.
    #[error("unknown key '{0}'")]
    Unknown(String),
    /// A value outside what the key takes.
    #[error("{key}={value}: must be {what}")]
    Bad {
        /// The key.
        key: &'static str,
        /// The value.
        value: String,
        /// What it has to be.
        what: String,
    },
}

/// A list taken apart; keys are taken out one by one, and what is left over at the end is an error.
#[derive(Debug, Default)]
pub struct Options {
    items: Vec<(String, String)>,
}

impl Options {
    /// Takes `text` apart.
    pub fn parse(text: &str) -> Result<Options, OptionsError> {
        let items = split(text)
            .into_iter()
            .map(|item| match item.split_once('=') {
                Some((key, value)) => Ok((key.to_owned(), value.to_owned())),
                None => Err(OptionsError::NoValue(item)),
            })
            .collect::<Result<_, _>>()?;
        Ok(Options { items })
    }

    /// The same, where the first item is the value of `key` and has no `KEY=` before it.
    pub fn with_leading_value(text: &str, key: &str) -> Result<Options, OptionsError> {
        let mut parts = split(text).into_iter();
        let mut items = vec![(key.to_owned(), parts.next().unwrap_or_default())];
        for item in parts {
            match item.split_once('=') {
                Some((key, value)) => items.push((key.to_owned(), value.to_owned())),
                None => return Err(OptionsError::NoValue(item)),
            }
        }
        Ok(Options { items })
    }

    /// Takes out all values of `key`.
    pub fn repeated(&mut self, key: &str) -> Vec<String> {
        let (taken, left) = std::mem::take(&mut self.items).into_iter().partition::<Vec<_>, _>(|(k, _)| k == key);
        self.items = left;
        taken.into_iter().map(|(_, value)| value).collect()
    }

    /// Takes out the value of `key`, if it is there.
    pub fn optional(&mut self, key: &'static str) -> Result<Option<String>, OptionsError> {
        let mut values = self.repeated(key);
        let first = values.pop();
        if values.is_empty() { Ok(first) } else { Err(OptionsError::Twice(key)) }
    }

    /// Takes out the value of `key`, which must be there and not empty.
    pub fn required(&mut self, key: &'static str) -> Result<String, OptionsError> {
        self.optional(key)?.filter(|v| !v.is_empty()).ok_or(OptionsError::Missing(key))
    }

    /// Takes out a number.
    pub fn number(&mut self, key: &'static str, default: u32, range: RangeInclusive<u32>) -> Result<u32, OptionsError> {
        let Some(value) = self.optional(key)? else { return Ok(default) };
        match value.parse() {
            Ok(n) if range.contains(&n) => Ok(n),
            _ => {
                let what = format!("a number from {} to {}", range.start(), range.end());
                Err(OptionsError::Bad { key, value, what })
            }
        }
    }

    /// Takes out one of a few numbers.
    pub fn choice(&mut self, key: &'static str, default: u32, of: &[u32]) -> Result<u32, OptionsError> {
        let Some(value) = self.optional(key)? else { return Ok(default) };
        match value.parse() {
            Ok(n) if of.contains(&n) => Ok(n),
            _ => {
                let what = of.iter().map(u32::to_string).collect::<Vec<_>>().join(" or ");
                Err(OptionsError::Bad { key, value, what })
            }
        }
    }

    /// Takes out `on` or `off`.
    pub fn switch(&mut self, key: &'static str, default: bool) -> Result<bool, OptionsError> {
        match self.optional(key)?.as_deref() {
            None => Ok(default),
            Some("on") => Ok(true),
            Some("off") => Ok(false),
            Some(value) => Err(OptionsError::Bad { key, value: value.to_owned(), what: "on or off".to_owned() }),
        }
    }

    /// Takes out a value that `parse` understands; `what` says what it has to be.
    pub fn parsed<T>(
        &mut self,
        key: &'static str,
        what: &str,
        parse: impl FnOnce(&str) -> Option<T>,
    ) -> Result<Option<T>, OptionsError> {
        let Some(value) = self.optional(key)? else { return Ok(None) };
        match parse(&value) {
            Some(parsed) => Ok(Some(parsed)),
            None => Err(OptionsError::Bad { key, value, what: what.to_owned() }),
        }
    }

    /// Takes out printable ASCII text of a length between `min` and `max` characters (SPC-4 4.3.1: ASCII data fields).
    pub fn text(&mut self, key: &'static str, min: usize, max: usize) -> Result<Option<String>, OptionsError> {
        match self.optional(key)? {
            Some(v) if (min..=max).contains(&v.len()) && v.bytes().all(|b| (0x20..0x7f).contains(&b)) => Ok(Some(v)),
            Some(value) => {
                let what = format!("{min} to {max} printable ASCII characters");
                Err(OptionsError::Bad { key, value, what })
            }
            None => Ok(None),
        }
    }

    /// Everything known has been taken out: what is left is an error.
    pub fn finish(self) -> Result<(), OptionsError> {
        match self.items.into_iter().next() {
            Some((key, _)) => Err(OptionsError::Unknown(key)),
            None => Ok(()),
        }
    }
}

/// Splits at single commas; a doubled comma stands for one.
fn split(text: &str) -> Vec<String> {
    let mut parts = vec![String::new()];
    let mut chars = text.chars().peekable();
    while let Some(c) = chars.next() {
        if c == ',' && chars.peek() != Some(&',') {
            parts.push(String::new());
            continue;
        }
        if c == ',' {
            chars.next();
        }
        if let Some(last) = parts.last_mut() {
            last.push(c);
        }
    }
    parts
}
