//! Looking at a guest's disk from outside, once nobody writes to it.

use super::layout::ROOT;
use super::{TOOL, tool};
use crate::{Context, Error, Result, tools};
use std::path::Path;

/// The root file system in `disk`, as e2fsprogs name it.
fn root(disk: &Path) -> String {
    format!("{}?offset={}", disk.display(), ROOT.start)
}

/// See [`super::check()`].
pub fn root_file_system(disk: &Path) -> Result<()> {
    // A journal that must be replayed is mended silently by a check, but was not left by a clean shutdown.
    let header = tools::run(&tool("dumpe2fs")?, &["-h", &root(disk)], TOOL)?;
    let features = header.lines().find(|line| line.starts_with("Filesystem features:"));
    let state = header.lines().find(|line| line.starts_with("Filesystem state:"));
    let (features, state) =
        features.zip(state).context(|| format!("dumpe2fs said of {}:\n{header}", disk.display()))?;
    if features.contains("needs_recovery") || state.split_whitespace().last() != Some("clean") {
        return Err(Error::new(format!("the root file system was not unmounted:\n{features}\n{state}")));
    }
    // -n: any answer to "may I mend this?" is no, and the status tells that there was a question.
    tools::run(&tool("e2fsck")?, &["-f", "-n", &root(disk)], TOOL).map(drop)
}

/// See [`super::read()`].
pub fn read(disk: &Path, path: &str) -> Result<String> {
    let debugfs = tool("debugfs")?;
    let ask = |request: &str| tools::run(&debugfs, &["-R", request, &root(disk)], TOOL);
    // debugfs ends with status 0 also when there is no such file.
    if !ask(&format!("stat \"{path}\""))?.starts_with("Inode:") {
        return Err(Error::new(format!("no {path} in the root file system of {}", disk.display())));
    }
    ask(&format!("cat \"{path}\""))
}
