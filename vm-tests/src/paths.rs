//! Where things are: the repository, the build's output and the program under test.

use crate::{Context, Error, Result};
use std::env;
use std::path::{Path, PathBuf};

/// Environment variable naming the vstgt binary to test.
pub const VSTGT_BIN: &str = "VSTGT_BIN";

/// The repository's root.
pub fn repository() -> &'static Path {
    let member = Path::new(env!("CARGO_MANIFEST_DIR"));
    member.parent().unwrap_or(member)
}

/// The folder of recipes.
pub fn images() -> PathBuf {
    repository().join("images")
}

/// Where cargo puts what it builds: `$CARGO_TARGET_DIR`, else derived from this executable's own place
/// (`<target>/<profile>/xtask` or `<target>/<profile>/deps/<test>`), else `target` in the repository.
pub fn target() -> PathBuf {
    if let Some(dir) = env::var_os("CARGO_TARGET_DIR") {
        return repository().join(dir);
    }
    let tagged = env::current_exe()
        .ok()
        .and_then(|exe| exe.ancestors().find(|dir| dir.join("CACHEDIR.TAG").exists()).map(Path::to_path_buf));
    tagged.unwrap_or_else(|| repository().join("target"))
}

/// The vstgt binary under test: `$VSTGT_BIN`, else the release build.
///
/// # Errors
/// When it does not exist; the message says how to build it.
pub fn vstgt_binary() -> Result<PathBuf> {
    let path = match env::var_os(VSTGT_BIN) {
        Some(path) => PathBuf::from(path),
        None => target().join("release").join("vstgt"),
    };
    let path = std::path::absolute(&path).context(|| format!("resolve {}", path.display()))?;
    if path.is_file() {
        return Ok(path);
    }
    Err(Error::new(format!(
        "no vstgt binary at {}: build it with `cargo build --release -p vstgt`, or name one in {VSTGT_BIN}",
        path.display()
    )))
}
