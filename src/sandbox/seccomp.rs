//! Builds and applies the filters of seccomp(2).
//!
//! Two filters, of whose answers the kernel takes the graver one: the first ends the process (SIGSYS) unless the call is in [`calls`] or among
//! those that the second answers with ENOSYS. Those are calls that the C library tries first and has another way for, and calls that this program's
//! kernel headers did not know: a newer C library then does what it does on an older kernel, instead of ending the process of many guests.
//!
//! Calls that are allowed whatever their arguments cost little: kernels since 5.11 find that out when the filter is applied, and do not run it
//! for them. So none of those on a command's way has its arguments looked at.

use std::collections::BTreeMap;
use std::io;

use seccompiler::{BpfProgram, SeccompAction, SeccompFilter, TargetArch, apply_filter_all_threads};

use super::calls::{self, Table};

#[cfg(target_arch = "x86_64")]
const ARCHITECTURE: TargetArch = TargetArch::x86_64;
#[cfg(target_arch = "aarch64")]
const ARCHITECTURE: TargetArch = TargetArch::aarch64;

/// Applies the filters to all threads of the process.
pub(super) fn apply(table: Table) -> io::Result<()> {
    // In this order: once the first holds, seccomp(2) itself is not allowed.
    for program in [unknown().map_err(io::Error::other)?, listed(table).map_err(io::Error::other)?] {
        apply_filter_all_threads(&program).map_err(|e| match e {
            seccompiler::Error::Prctl(e) | seccompiler::Error::Seccomp(e) => e,
            other => io::Error::other(other),
        })?;
    }
    Ok(())
}

/// Ends the process unless the call is in a table.
fn listed(table: Table) -> Result<BpfProgram, seccompiler::BackendError> {
    let mut rules = table.conditional()?;
    rules.extend(calls::always().map(|number| (number, Vec::new())));
    rules.extend(calls::absent().map(|number| (number, Vec::new())));
    SeccompFilter::new(rules, SeccompAction::Trap, SeccompAction::Allow, ARCHITECTURE)?.try_into()
}

/// Answers ENOSYS to calls that are better not known.
fn unknown() -> Result<BpfProgram, seccompiler::BackendError> {
    let rules: BTreeMap<_, _> = calls::absent().map(|number| (number, Vec::new())).collect();
    let answer = SeccompAction::Errno(libc::ENOSYS as u32);
    SeccompFilter::new(rules, SeccompAction::Allow, answer, ARCHITECTURE)?.try_into()
}
