//! Live migration between two QEMUs on one host, over a Unix socket.

use crate::guest::Guest;
use crate::json::Value;
use crate::process::wait_until;
use crate::qemu::Vm;
use crate::{Context, Error, Result};
use std::path::Path;
use std::time::Duration;

/// How long a migration may take, on KVM.
const BOUND: Duration = Duration::from_secs(60);

/// How fast memory is sent, in bytes a second: so that the guest runs for a while with its writes logged.
pub const BANDWIDTH: u64 = 96 << 20;

/// How long the guest may stand still, in milliseconds: a guest that is emulated writes much between two passes.
const DOWNTIME: u64 = 2000;

/// What a migration was like.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Migrated {
    /// How often the bitmaps of written pages were read, the last time with the guest stopped.
    pub passes: u64,
    /// How long the guest stood still, in milliseconds.
    pub downtime: u64,
    /// How long all of it took, in milliseconds.
    pub total: u64,
}

/// Begins to migrate from `source` to `target`, which waits for it, at `bandwidth` bytes a second.
///
/// # Errors
/// When one of them does not want to.
pub fn begin(source: &mut Vm, target: &mut Vm, socket: &Path, bandwidth: u64) -> Result<()> {
    let uri = format!("unix:{}", socket.display());
    target.qmp().execute("migrate-incoming", &[("uri", &uri)])?;
    let parameters = format!("{{\"max-bandwidth\": {bandwidth}, \"downtime-limit\": {DOWNTIME}}}");
    source.qmp().execute_json("migrate-set-parameters", &parameters)?;
    source.qmp().execute("migrate", &[("uri", &uri)])?;
    Ok(())
}

/// Waits until the migration has ended; what it was like.
///
/// # Errors
/// When it fails or takes long; the message holds what QEMU said.
pub fn complete(source: &mut Vm, slowness: u32) -> Result<Migrated> {
    let mut last = String::new();
    let info = wait_until(BOUND * slowness, || {
        let info = source.qmp().execute("query-migrate", &[])?;
        let status = info.get("status").and_then(Value::text).unwrap_or_default().to_owned();
        last = format!("{info:?}");
        match status.as_str() {
            "completed" => Ok(Some(info)),
            "failed" | "cancelled" => Err(Error::new(source.explain(&format!("the migration failed: {last}")))),
            _ => Ok(None),
        }
    })?;
    let info = info.context(|| source.explain(&format!("the migration took too long: {last}")))?;
    let number = |value: Option<&Value>| value.and_then(Value::number);
    let passes = number(info.get("ram").and_then(|ram| ram.get("dirty-sync-count")));
    let (downtime, total) = (number(info.get("downtime")), number(info.get("total-time")));
    let (Some(passes), Some(downtime), Some(total)) = (passes, downtime, total) else {
        return Err(Error::new(format!("what QEMU tells of the migration: {info:?}")));
    };
    Ok(Migrated { passes, downtime, total })
}

/// Waits until the migration is in the given state.
///
/// # Errors
/// When it is not in time, or fails.
pub fn reach(source: &mut Vm, wanted: &str, slowness: u32) -> Result<()> {
    let there = wait_until(BOUND * slowness, || {
        let info = source.qmp().execute("query-migrate", &[])?;
        match info.get("status").and_then(Value::text) {
            Some(status) if status == wanted => Ok(Some(())),
            Some("failed") => Err(Error::new(source.explain(&format!("the migration failed: {info:?}")))),
            _ => Ok(None),
        }
    })?;
    there.context(|| source.explain(&format!("the migration is not {wanted}")))
}

impl Guest {
    /// Migrates to `target`, where it runs when this returns. The machine where it was has stopped and is given back: that it still is there is what
    /// a real migration has, too.
    ///
    /// # Errors
    /// When the migration fails, or the guest does not run.
    pub fn migrate(&mut self, mut target: Vm, socket: &Path) -> Result<(Migrated, Vm)> {
        let slowness = self.slowness();
        begin(self.vm(), &mut target, socket, BANDWIDTH)?;
        let migrated = complete(self.vm(), slowness)?;
        let source = self.moved_to(target);
        let running = wait_until(BOUND, || Ok((self.vm().qmp().status()? == "running").then_some(())))?;
        running.context(|| self.vm().explain("the guest does not run after its migration"))?;
        Ok((migrated, source))
    }
}
