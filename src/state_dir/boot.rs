//! Which boot of the host this is.

use std::fs;

/// Where the kernel says it.
pub(super) const FILE: &str = "/proc/sys/kernel/random/boot_id";

/// Names one boot of one host.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct BootId(pub(super) String);

impl BootId {
    /// The boot that runs now; `None` if the kernel does not say: then it is never the same as another.
    pub(super) fn now() -> Option<BootId> {
        match fs::read_to_string(FILE) {
            Ok(text) => Some(BootId(text.trim().to_owned())),
            Err(e) => {
                log::warn!("the boot cannot be told from others, so only what APTPL preserves is restored: {e}");
                None
            }
        }
    }
}
