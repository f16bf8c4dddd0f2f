//! What the bench compares with and does not find on the machine: packages come with
//! [`provision`](crate::provision), a crate is built here.

use crate::cache::{Cache, Recipe};
use crate::{Context, Result, tools};
use std::env;
use std::path::PathBuf;
use std::process::Command;
use std::time::Duration;

/// The crate and its version.
const CRATE: (&str, &str) = ("vhost-device-scsi", "0.1.0");

/// How long building it may take.
const BUILD: Duration = Duration::from_secs(20 * 60);

/// vhost-device-scsi's binary: the one in `$PATH`, else built from the published crate into the cache.
///
/// # Errors
/// When cargo cannot get or build it; it is then left out of the comparison.
pub fn vhost_device_scsi() -> Result<PathBuf> {
    let (name, version) = CRATE;
    if let Some(binary) = tools::find(name) {
        return Ok(binary);
    }
    let recipe = Recipe::new("crate", 1).part(name.as_bytes()).part(version.as_bytes());
    let dir = Cache::open()?.entry(name, &recipe, |draft| {
        println!("building {name} {version}");
        let mut cargo = Command::new(env::var_os("CARGO").unwrap_or_else(|| "cargo".into()));
        cargo.args(["install", "--quiet", "--locked", "--no-track", "--version", version, name, "--root"]).arg(draft);
        // Its own dependencies, not ours: built aside, and nothing of it kept but the binary.
        cargo.arg("--target-dir").arg(draft.join("build"));
        tools::run_command(cargo, BUILD)?;
        std::fs::remove_dir_all(draft.join("build")).context(|| "remove what the build left")
    })?;
    Ok(dir.join("bin").join(name))
}
