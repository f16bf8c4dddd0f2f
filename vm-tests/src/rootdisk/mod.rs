//! A bootable Debian 12 root disk, made from the recipe in `images/root-disk` with neither loop devices nor mounted images.
//!
//! ```text
//! mirror ─► tree ───────────────► image ─► check
//! apt's     debootstrap, overlay,  partitions, file systems,   fsck and reading, from outside
//! own       finish: a folder       grub at its places: a file
//!           grub ─────────────────┘
//! ```
//!
//! The same image boots through SeaBIOS (grub in the master boot record and a partition of its own) and through UEFI
//! (grub as the removable-media loader in the EFI system partition). There is a serial console at `ttyS0`, where root
//! logs in without a password; [`debian`] does.
//!
//! What needs root is debootstrap alone: it makes device nodes and files of other owners, and runs the packages' scripts
//! in a chroot. Everything after that works on plain files.

mod check;
pub mod debian;
mod grub;
mod image;
mod layout;
mod mirror;
mod tree;

use crate::cache::{Cache, Recipe};
use crate::{Context, Error, Result, paths, sys, tools};
use std::fs;
use std::path::{Path, PathBuf};
use std::time::Duration;

/// Raised when the code here makes another image from the same recipe.
const VERSION: u32 = 1;

/// How long a local tool may take, on a slow disk.
const TOOL: Duration = Duration::from_secs(300);

/// The Debian root disk: a raw image.
#[derive(Debug, Clone)]
pub struct RootDisk {
    image: PathBuf,
}

impl RootDisk {
    /// The image, from the cache when it is there; else it is made, which takes about two minutes and the network.
    ///
    /// # Errors
    /// When it is not there and cannot be made: without root, without the network, without a tool.
    pub fn get(cache: &Cache) -> Result<RootDisk> {
        let source = paths::images().join("root-disk");
        let entry = cache.entry("root-disk", &recipe(&source)?, |dir| {
            if !sys::is_root() {
                return Err(Error::new(
                    "the Debian root disk is made by debootstrap, which needs root: run this once as root with the same \
                     cache (VSTGT_CACHE)",
                ));
            }
            build(&source, dir)
        })?;
        Ok(RootDisk { image: entry.join("disk.img") })
    }

    /// Makes a copy of its own for a guest to write to: sparse, sharing blocks where the file system can.
    ///
    /// # Errors
    /// When `to` cannot be written.
    pub fn copy(&self, to: &Path) -> Result<()> {
        let words = ["--reflink=auto".as_ref(), "--sparse=always".as_ref(), self.image.as_os_str(), to.as_os_str()];
        tools::run("cp", &words, TOOL).map(drop)
    }
}

/// Checks a guest's root file system after the guest has powered off: the journal is clean and a forced check finds
/// nothing to mend. `disk` is not changed.
///
/// # Errors
/// When something is wrong with it; the message holds what the check said.
pub fn check(disk: &Path) -> Result<()> {
    check::root_file_system(disk)
}

/// The contents of a file of the root file system in a disk nobody writes to.
///
/// # Errors
/// When there is no such file, or no such file system.
pub fn read(disk: &Path, path: &str) -> Result<String> {
    check::read(disk, path)
}

/// Names and contents of the recipe's files, and this code's version. (Whether a file may be executed is part of its
/// contents: its first line says so.)
fn recipe(source: &Path) -> Result<Recipe> {
    let mut recipe = Recipe::new("root-disk", VERSION);
    for file in files(source)? {
        let name = file.strip_prefix(source).unwrap_or(&file);
        recipe = recipe.part(name.to_string_lossy().as_bytes()).file(&file)?;
    }
    Ok(recipe)
}

/// Every file below a folder, in a fixed order.
fn files(dir: &Path) -> Result<Vec<PathBuf>> {
    let what = || format!("read {}", dir.display());
    let mut found = Vec::new();
    for entry in fs::read_dir(dir).context(what)? {
        let entry = entry.context(what)?;
        if entry.file_type().context(what)?.is_dir() {
            found.extend(files(&entry.path())?);
        } else {
            found.push(entry.path());
        }
    }
    found.sort();
    Ok(found)
}

fn build(source: &Path, dir: &Path) -> Result<()> {
    println!("making the Debian root disk (once; about two minutes)");
    let root = dir.join("root");
    tree::make(source, &root)?;
    image::make(source, &root, dir)?;
    fs::remove_dir_all(&root).context(|| format!("remove {}", root.display()))
}

/// Where a tool is; an ordinary user's `$PATH` lacks some of their folders.
fn tool(name: &str) -> Result<String> {
    let path = tools::find(name).context(|| format!("no {name} on this host"))?;
    Ok(path.to_string_lossy().into_owned())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::workdir::WorkDir;

    #[test]
    fn every_file_of_the_recipe_counts() {
        let dir = WorkDir::new("recipe").unwrap();
        let hash = || format!("{:?}", recipe(dir.root()).unwrap());
        fs::create_dir_all(dir.path("overlay/etc")).unwrap();
        fs::write(dir.path("packages"), "a").unwrap();
        let one = hash();
        assert_eq!(one, hash());
        fs::write(dir.path("overlay/etc/fstab"), "x").unwrap();
        let two = hash();
        fs::rename(dir.path("overlay/etc/fstab"), dir.path("overlay/etc/hosts")).unwrap();
        assert!(one != two && two != hash());
    }
}
