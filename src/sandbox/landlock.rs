//! Which files can still be reached by name, and that nothing is reached by network (landlock).
//!
//! Everything that landlock of ABI 7 (Linux 6.15) knows is forbidden, and then allowed where the [`Fence`] says so. Older kernels
//! leave out what they do not know. No rule allows executing, devices' nodes, links or directories to be made, TCP, a signal to another process or an abstract
//! socket of one.

use std::fmt;
use std::io;
use std::path::Path;

use landlock::{
    ABI, Access, AccessFs, AccessNet, BitFlags, CompatLevel, Compatible, LandlockStatus, PathBeneath, PathFd, Ruleset,
    RulesetAttr, RulesetCreated, RulesetCreatedAttr, RulesetStatus, Scope,
};

use super::{Error, Fence};

/// What of landlock this program was written for and is tested with.
const KNOWN: ABI = ABI::V7;

/// What of landlock holds.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Enforced {
    /// This version, and everything asked for.
    Fully(ABI),
    /// This version, which lacks something.
    Partly(ABI),
    /// Nothing: the kernel was built without it.
    NotBuilt,
    /// Nothing: it is switched off (`lsm=` on the kernel's command line), or forbidden to this process.
    Off,
}

impl Enforced {
    /// How loudly to say it.
    pub(super) fn level(self) -> log::Level {
        match self {
            Enforced::Fully(_) | Enforced::Partly(_) => log::Level::Info,
            Enforced::NotBuilt | Enforced::Off => log::Level::Warn,
        }
    }
}

impl fmt::Display for Enforced {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Enforced::Fully(abi) => write!(f, "landlock ABI {}: files, TCP, signals, abstract sockets", *abi as i32),
            Enforced::Partly(abi) => {
                let parts: &[_] = &[
                    (ABI::V1, "files"),
                    (ABI::V3, "truncation"),
                    (ABI::V4, "TCP"),
                    (ABI::V5, "ioctl on devices"),
                    (ABI::V6, "signals, abstract sockets"),
                ];
                let (held, lacking): (Vec<_>, Vec<_>) = parts.iter().partition(|(since, _)| since <= abi);
                let names = |parts: Vec<(ABI, &'static str)>| {
                    parts.into_iter().map(|(_, name)| name).collect::<Vec<_>>().join(", ")
                };
                write!(f, "landlock ABI {}: {}; this kernel lacks: {}", *abi as i32, names(held), names(lacking))
            }
            Enforced::NotBuilt => {
                f.write_str("no landlock: this kernel has none, files are fenced by their permissions only")
            }
            Enforced::Off => {
                f.write_str("no landlock: it is switched off here, files are fenced by their permissions only")
            }
        }
    }
}

/// Restricts the calling thread and those it will start.
pub(super) fn restrict(fence: &Fence) -> Result<Enforced, Error> {
    let other = |e: landlock::RulesetError| Error::new("landlock")(io::Error::other(e));
    let mut rules = Ruleset::default()
        .set_compatibility(CompatLevel::BestEffort)
        .handle_access(AccessFs::from_all(KNOWN))
        .and_then(|rules| rules.handle_access(AccessNet::from_all(KNOWN)))
        .and_then(|rules| rules.scope(Scope::from_all(KNOWN)))
        .and_then(Ruleset::create)
        .map_err(other)?;
    for image in &fence.images {
        rules = allow(rules, &image.path, image_file(image.writable))?;
    }
    for dir in &fence.image_dirs {
        rules = allow(rules, dir, image_file(true) | AccessFs::ReadDir)?;
    }
    for path in &fence.read {
        rules = allow(rules, path, AccessFs::ReadFile.into())?;
    }
    for dir in &fence.socket_dirs {
        // Opened to be locked, see the listener's contract.
        rules = allow(rules, dir, AccessFs::MakeSock | AccessFs::RemoveFile | AccessFs::ReadDir)?;
    }
    if let Some(dir) = &fence.state_dir {
        let replaced = AccessFs::MakeReg | AccessFs::RemoveFile | AccessFs::Truncate;
        rules = allow(rules, dir, replaced | AccessFs::ReadFile | AccessFs::WriteFile | AccessFs::ReadDir)?;
    }
    let status = rules.restrict_self().map_err(other)?;
    Ok(match (status.ruleset, status.landlock) {
        (RulesetStatus::FullyEnforced, LandlockStatus::Available { effective_abi, .. }) => {
            Enforced::Fully(effective_abi)
        }
        (RulesetStatus::PartiallyEnforced, LandlockStatus::Available { effective_abi, .. }) => {
            Enforced::Partly(effective_abi)
        }
        (_, LandlockStatus::NotImplemented) => Enforced::NotBuilt,
        _ => Enforced::Off,
    })
}

/// Opened for direct I/O, written, and asked for its size, which for a block device is an ioctl.
fn image_file(writable: bool) -> BitFlags<AccessFs> {
    let read = AccessFs::ReadFile | AccessFs::IoctlDev;
    if writable { read | AccessFs::WriteFile } else { read }
}

fn allow(rules: RulesetCreated, path: &Path, access: BitFlags<AccessFs>) -> Result<RulesetCreated, Error> {
    let named = |e: &dyn std::error::Error| Error::new(path.display().to_string())(io::Error::other(e.to_string()));
    let beneath = PathFd::new(path).map_err(|e| named(&e))?;
    rules.add_rule(PathBeneath::new(beneath, access)).map_err(|e| named(&e))
}
