//! The test guest's root: a read-only ext4 image with the host's own programs named in `images/guest-root/programs`, the files and
//! folders named in `images/guest-root/files`, the libraries all these need, busybox for everything else, and the agent that runs the
//! tests' scripts.
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
const PLACES: &[&str] = &["dev", "etc", "proc", "run", "sys", "tmp", "usr/bin", "var"];

/// Programs have one folder, under all its names; what a program keeps below `/var/run` is written to `/run`.
const LINKS: &[(&str, &str)] = &[("usr/bin", "bin"), ("usr/bin", "sbin"), ("bin", "usr/sbin"), ("../run", "var/run")];

/// The image, from the cache when it is there.
///
/// # Errors
/// When a program of the recipe is missing on the host, or the image cannot be made.
pub fn get(cache: &Cache) -> Result<PathBuf> {
    let [agent, programs, files] =
        ["agent", "programs", "files"].map(|file| paths::images().join("guest-root").join(file));
    let recipe = Recipe::new("guest-root", 2).file(&agent)?.file(&programs)?.file(&files)?;
    let entry = cache.entry("guest-root", &recipe, |dir| {
        let read = |list: &Path| fs::read_to_string(list).context(|| format!("read {}", list.display()));
        let root = dir.join("root");
        fill(&root, &words(&read(&programs)?), &read(&files)?)?;
        copy(&agent, &root.join("agent"))?;
        image(&root, &dir.join("root.ext4"))?;
        fs::remove_dir_all(&root).context(|| format!("remove {}", root.display()))
    })?;
    Ok(entry.join("root.ext4"))
}

fn fill(root: &Path, programs: &[&str], files: &str) -> Result<()> {
    for place in PLACES {
        fs::create_dir_all(root.join(place)).context(|| format!("make {place} in {}", root.display()))?;
    }
    for (to, link) in LINKS {
        symlink(to, root.join(link)).context(|| format!("link {link}"))?;
    }
    let mut libraries = BTreeSet::new();
    for row in files.lines().map(words).filter(|row| !row.is_empty()) {
        for object in keep(root, &row)? {
            libraries.extend(with_libraries(&object)?.into_iter().skip(1));
        }
    }
    for program in programs {
        let file = tools::find(program).context(|| format!("the host has no {program}"))?;
        copy(&file, &root.join("bin").join(program))?;
        libraries.extend(with_libraries(&file)?.into_iter().skip(1));
    }
    for library in libraries {
        let inside = library.strip_prefix("/").unwrap_or(&library);
        copy(&library, &root.join(inside))?;
    }
    let applets = tools::run("busybox", &["--list"], TOOL)?;
    for applet in applets.lines() {
        let link = root.join("bin").join(applet);
        if !link.exists() {
            symlink("busybox", &link).context(|| format!("link {applet}"))?;
        }
    }
    Ok(())
}

/// Copies what the first word names to the same place below `root`, without the parts the other words name; returns the programs
/// and shared objects among it. Times are kept, by which Python knows whether a compiled file is of its source.
fn keep(root: &Path, row: &[&str]) -> Result<Vec<PathBuf>> {
    let Some((what, without)) = row.split_first() else {
        return Ok(Vec::new());
    };
    let inside = root.join(what.trim_start_matches('/'));
    let parent = inside.parent().context(|| format!("{what} is not a place for a file"))?;
    fs::create_dir_all(parent).context(|| format!("make {}", parent.display()))?;
    tools::run("cp", &["-a".as_ref(), what.as_ref(), parent.as_os_str()], TOOL)?;
    for part in without {
        let part = inside.join(part.trim_start_matches('-'));
        fs::remove_dir_all(&part).context(|| format!("leave out {}", part.display()))?;
    }
    let objects = tools::run(
        "find",
        &[
            inside.as_os_str(),
            "-type".as_ref(),
            "f".as_ref(),
            "(".as_ref(),
            "-name".as_ref(),
            "*.so*".as_ref(),
            "-o".as_ref(),
            "-perm".as_ref(),
            "/111".as_ref(),
            ")".as_ref(),
        ],
        TOOL,
    )?;
    Ok(objects.lines().map(PathBuf::from).collect())
}

fn copy(from: &Path, to: &Path) -> Result<()> {
    let what = || format!("copy {} to {}", from.display(), to.display());
    if let Some(parent) = to.parent() {
        fs::create_dir_all(parent).context(what)?;
    }
    fs::copy(from, to).map(drop).context(what)
}

fn image(root: &Path, to: &Path) -> Result<()> {
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
