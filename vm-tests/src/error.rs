//! The harness's error: what was being done, to what, and why it failed, as a chain of sentences.
//!
//! Nobody handles these errors by kind; they end in front of a person. So there is one type, made of text, and
//! [`Context`] adds the outer sentence where the inner one alone would not tell which attempt failed.

use std::error::Error as StdError;
use std::fmt;

/// The result of a harness step.
pub type Result<T, E = Error> = std::result::Result<T, E>;

/// Why a harness step failed. [`Display`](fmt::Display) and [`Debug`](fmt::Debug) both print the whole chain, because a
/// test that returns `Err` is printed with `Debug`.
pub struct Error {
    message: String,
    cause: Option<Box<dyn StdError + Send + Sync>>,
}

impl Error {
    /// An error with a message and no cause.
    pub fn new(message: impl Into<String>) -> Error {
        Error { message: message.into(), cause: None }
    }

    /// An error with a message, caused by another.
    pub fn caused(message: impl Into<String>, cause: impl Into<Box<dyn StdError + Send + Sync>>) -> Error {
        Error { message: message.into(), cause: Some(cause.into()) }
    }
}

impl fmt::Display for Error {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.message)?;
        // Our own causes print their own causes, so one level is enough.
        match &self.cause {
            Some(cause) => write!(f, "\n  because: {cause}"),
            None => Ok(()),
        }
    }
}

impl fmt::Debug for Error {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

impl StdError for Error {}

/// Adds to an error what was being done when it happened.
pub trait Context<T> {
    /// Wraps the error in one with the message `what()`.
    fn context<S: Into<String>>(self, what: impl FnOnce() -> S) -> Result<T>;
}

impl<T, E: Into<Box<dyn StdError + Send + Sync>>> Context<T> for std::result::Result<T, E> {
    fn context<S: Into<String>>(self, what: impl FnOnce() -> S) -> Result<T> {
        self.map_err(|cause| Error::caused(what(), cause))
    }
}

impl<T> Context<T> for Option<T> {
    fn context<S: Into<String>>(self, what: impl FnOnce() -> S) -> Result<T> {
        self.ok_or_else(|| Error::new(what()))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_chain_prints_every_link() {
        let inner: Result<()> = Err(std::io::Error::other("disk on fire")).context(|| "read a");
        let outer = inner.context(|| "boot b").unwrap_err();
        assert_eq!(outer.to_string(), "boot b\n  because: read a\n  because: disk on fire");
        assert_eq!(format!("{outer:?}"), outer.to_string());
    }
}
