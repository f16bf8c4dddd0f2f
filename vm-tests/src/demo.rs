//! `cargo xtask demo`: a real Debian guest booted from a disk that vstgt serves.

use crate::{Error, Result};

/// Makes a disk, starts vstgt, boots the guest, shows what it sees and powers it off; with `keep`, leaves the caller at
/// the guest's console instead.
///
/// # Errors
/// The first step that failed.
pub fn run(keep: bool) -> Result<()> {
    Err(Error::new(format!("the demonstration (keep: {keep}) is not in this build")))
}
