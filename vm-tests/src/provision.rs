//! What the host needs to run guests, and how it gets it: Debian packages, through the machine's own apt configuration.

use crate::{Error, Result};

/// Makes sure everything is there: installs what is missing when run by root, else says what to install.
///
/// # Errors
/// When something is missing and cannot be installed.
pub fn ensure() -> Result<()> {
    Err(Error::new("not checked"))
}

/// Like [`ensure`], but installs nothing: for tests run on their own.
///
/// # Errors
/// When something is missing; the message says what and how to get it.
pub fn check() -> Result<()> {
    Err(Error::new("not checked"))
}
