//! Linux kernels to boot: Debian's own packages, downloaded and unpacked into the cache, never installed on the host.

use crate::cache::Cache;
use crate::{Error, Result};
use std::path::PathBuf;

/// A line of kernels guests are tested with.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Line {
    /// Debian 12's own.
    V6_1,
    /// The long-term kernel in Debian 12's backports.
    V6_12,
}

impl Line {
    /// Every line, oldest first.
    pub const ALL: [Line; 2] = [Line::V6_1, Line::V6_12];

    /// What its release starts with, `6.1.` for instance.
    pub fn prefix(self) -> &'static str {
        match self {
            Line::V6_1 => "6.1.",
            Line::V6_12 => "6.12.",
        }
    }
}

/// An unpacked kernel.
#[derive(Debug, Clone)]
pub struct Kernel {
    /// Its release, as `uname -r` prints it in the guest.
    pub release: String,
    /// The compressed image a boot loader takes.
    pub image: PathBuf,
    /// Its modules: the folder that holds `modules.dep`.
    pub modules: PathBuf,
    /// The package's files as unpacked (`boot`, `lib`).
    pub root: PathBuf,
}

impl Kernel {
    /// The newest kernel of a line that apt offers, from the cache when it is there.
    ///
    /// # Errors
    /// When it can be neither found nor downloaded.
    pub fn get(_cache: &Cache, line: Line) -> Result<Kernel> {
        Err(Error::new(format!("no kernel {}", line.prefix())))
    }
}
