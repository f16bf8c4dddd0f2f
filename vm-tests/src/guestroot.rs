//! The test guest's root: a read-only ext4 image with the host's own programs named in `images/guest-root/programs`,
//! the libraries they need, busybox for everything else, and the agent that runs the tests' scripts.
//!
//! It is a disk rather than part of the initramfs because of its size: fio alone brings 80 MB of libraries, of which a
//! guest reads only the pages it touches. One image serves every kernel, and any number of guests at once.

use crate::cache::{Cache, Recipe};
use crate::initramfs::{with_libraries, words};
use crate::{Context, Result, paths, tools};
use std::collections::BTreeSet;
use std::fs;
use std::os::unix::fs::symlink;
use std::path::{Path, PathBuf};
use std::time::Duration;

/// How long a local tool may take.
const TOOL: Duration = Duration::from_secs(300);

/// Where things are mounted; the root itself is never written.
const PLACES: &[&str] = &["bin", "dev", "proc", "sys", "run", "tmp"];

/// The image, from the cache when it is there.
///
/// # Errors
/// When a program of the recipe is missing on the host, or the image cannot be made.
pub fn get(cache: &Cache) -> Result<PathBuf> {
    let (agent, programs) = (paths::images().join("guest-root/agent"), paths::images().join("guest-root/programs"));
    let recipe = Recipe::new("guest-root", 1).file(&agent)?.file(&programs)?;
    let entry = cache.entry("guest-root", &recipe, |dir| {
        let list = fs::read_to_string(&programs).context(|| format!("read {}", programs.display()))?;
        let root = dir.join("root");
        fill(&root, &words(&list))?;
        copy(&agent, &root.join("agent"))?;
        image(&root, &dir.join("root.ext4"))?;
        fs::remove_dir_all(&root).context(|| format!("remove {}", root.display()))
    })?;
    Ok(entry.join("root.ext4"))
}

fn fill(root: &Path, programs: &[&str]) -> Result<()> {
    for place in PLACES {
        fs::create_dir_all(root.join(place)).context(|| format!("make {place} in {}", root.display()))?;
    }
    let mut libraries = BTreeSet::new();
    for program in programs {
        let file = tools::find(program).context(|| format!("the host has no {program}"))?;
        copy(&file, &root.join("bin").join(program))?;
        libraries.extend(with_libraries(&file)?.into_iter().skip(1));
    }
    for library in libraries {
        let inside = library.strip_prefix("/").unwrap_or(&library);
        copy(&library, &root.join(inside))?;
    }
    link_applets(root, &["bin"])
}

/// Links busybox's applets into the first of `folders` of the tree `root`, but for programs that one of the folders has. The first
/// must hold busybox.
pub(crate) fn link_applets(root: &Path, folders: &[&str]) -> Result<()> {
    let applets = tools::run("busybox", &["--list"], TOOL)?;
    for applet in applets.lines() {
        let taken = folders.iter().any(|folder| root.join(folder).join(applet).symlink_metadata().is_ok());
        if !taken {
            symlink("busybox", root.join(folders[0]).join(applet)).context(|| format!("link {applet}"))?;
        }
    }
    Ok(())
}

/// Copies a file, making the folders above it.
pub(crate) fn copy(from: &Path, to: &Path) -> Result<()> {
    let what = || format!("copy {} to {}", from.display(), to.display());
    if let Some(parent) = to.parent() {
        fs::create_dir_all(parent).context(what)?;
    }
    fs::copy(from, to).map(drop).context(what)
}

/// Makes the ext4 image `to` of the tree `root`.
pub(crate) fn image(root: &Path, to: &Path) -> Result<()> {
    // What the files take, room for the file system's own tables, in KiB.
    let used = tools::run("du", &["-sk".as_ref(), root.as_os_str()], TOOL)?;
    let used: u64 =
        used.split_whitespace().next().and_then(|n| n.parse().ok()).context(|| format!("du said {used}"))?;
    let size = format!("{}k", used + used / 10 + 8192);
    let words = ["-q", "-t", "ext4", "-O", "^has_journal", "-m", "0", "-E", "root_owner=0:0", "-d"];
    let mut words: Vec<&std::ffi::OsStr> = words.iter().map(|word| word.as_ref()).collect();
    words.extend([root.as_os_str(), to.as_os_str(), size.as_ref()]);
    let mke2fs = tools::find("mke2fs").context(|| "no mke2fs on the host")?;
    tools::run(&mke2fs.to_string_lossy(), &words, TOOL).map(drop)
}
