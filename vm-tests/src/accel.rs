//! What runs the vCPUs: KVM where it works, else QEMU's own translator.
//!
//! That `/dev/kvm` exists says little (some hosts offer one that boots no ordinary kernel), so the question is answered
//! by booting a guest, once for each boot of the host and version of QEMU.

use crate::cache::{Cache, Recipe};
use crate::guest::Guest;
use crate::kernel::Line;
use crate::qemu::{Machine, QEMU};
use crate::workdir::WorkDir;
use crate::{Context, Error, Result, tools};
use std::time::Duration;
use std::{env, fs};

/// Environment variable: `kvm` or `tcg`, instead of finding out.
pub const VSTGT_ACCEL: &str = "VSTGT_ACCEL";

/// How long QEMU may take to tell its version.
const ASK: Duration = Duration::from_secs(60);

/// An accelerator.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Accel {
    /// The kernel's.
    Kvm,
    /// QEMU's translator, one thread for all vCPUs of a guest.
    Tcg,
}

impl Accel {
    /// The best that works on this host, or what [`VSTGT_ACCEL`] says.
    ///
    /// # Errors
    /// When QEMU is not installed, or the variable says something else.
    pub fn best() -> Result<Accel> {
        match env::var(VSTGT_ACCEL).as_deref() {
            Ok("kvm") => return Ok(Accel::Kvm),
            Ok("tcg") => return Ok(Accel::Tcg),
            Ok(other) => {
                return Err(Error::new(format!("{VSTGT_ACCEL} is kvm or tcg, not {other}")));
            }
            Err(_) => {}
        }
        if fs::OpenOptions::new().read(true).write(true).open("/dev/kvm").is_err() {
            return Ok(Accel::Tcg);
        }
        let boot = fs::read("/proc/sys/kernel/random/boot_id").context(|| "read the host's boot id")?;
        let version = tools::run(QEMU, &["--version"], ASK)?;
        let recipe = Recipe::new("kvm", 1).part(&boot).part(version.as_bytes());
        let entry = Cache::open()?.entry("kvm", &recipe, |dir| {
            let answer = match probe() {
                Ok(()) => "works".to_owned(),
                Err(error) => format!("does not: {error}"),
            };
            fs::write(dir.join("answer"), answer).context(|| "write the answer")
        })?;
        let answer = fs::read_to_string(entry.join("answer")).context(|| "read whether KVM works")?;
        Ok(if answer == "works" { Accel::Kvm } else { Accel::Tcg })
    }

    /// The value of QEMU's `-accel`.
    ///
    /// With a thread per vCPU the translator sometimes dies of an assertion of its own (`iotlb_to_section`) when one vCPU maps a device while
    /// another looks one up, as in the boot of an SMP guest (QEMU's issue 1921, seen with 10.0.2). Guests still have several vCPUs and use
    /// several queues; they take turns on one thread.
    pub fn argument(self) -> &'static str {
        match self {
            Accel::Kvm => "kvm",
            Accel::Tcg => "tcg,thread=single",
        }
    }

    /// The value of QEMU's `-cpu`: under the translator the plainest model, which boots fastest.
    pub fn cpu(self) -> &'static str {
        match self {
            Accel::Kvm => "host",
            Accel::Tcg => "qemu64",
        }
    }

    /// How much longer than under KVM a guest may take, for time limits.
    pub fn slowness(self) -> u32 {
        match self {
            Accel::Kvm => 1,
            Accel::Tcg => 6,
        }
    }
}

/// Boots a guest on KVM, with the short limits KVM deserves.
fn probe() -> Result<()> {
    let dir = WorkDir::new("kvm")?;
    let machine = Machine::with("probe", Accel::Kvm);
    let answer = Guest::boot(machine, Line::V6_1, dir.root()).and_then(Guest::poweroff);
    // The answer is kept with what explains it; the logs need not be.
    dir.finish();
    answer
}
