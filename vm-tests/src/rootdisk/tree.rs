//! The root file system as a folder: debootstrap's two stages, with the recipe's overlay put in between.
//!
//! The overlay comes before the packages are configured, so that what they do then (unpack without waiting for the disk,
//! leave manuals out, make the initramfs) follows the recipe and is done once.

use super::layout::{ROOT_PARTUUID, ROOT_UUID};
use super::{files, mirror, tool};
use crate::initramfs::words;
use crate::{Context, Result, tools};
use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::Path;
use std::process::Command;
use std::time::Duration;

/// How long one of debootstrap's stages may take: the bound is for a network that hangs, not for a slow one.
const STAGE: Duration = Duration::from_secs(1200);

/// Makes the tree `root` from the recipe in `source`.
pub fn make(source: &Path, root: &Path) -> Result<()> {
    download(source, root)?;
    for host in ["etc/hostname", "etc/resolv.conf"] {
        // debootstrap copied the host's.
        drop(fs::remove_file(root.join(host)));
    }
    overlay(&source.join("overlay"), root)?;
    in_root(root, &["/debootstrap/debootstrap", "--second-stage"])?;
    finish(&source.join("finish"), root)
}

fn download(source: &Path, root: &Path) -> Result<()> {
    let list = source.join("packages");
    let packages = fs::read_to_string(&list).context(|| format!("read {}", list.display()))?;
    let mirror = mirror::find()?;
    let mut debootstrap = isolated(&tool("debootstrap")?)?;
    debootstrap
        .args(["--foreign", "--variant=minbase", "--arch=amd64"])
        .arg(format!("--include={}", words(&packages).join(",")))
        .args([mirror::CODENAME.as_ref(), root.as_os_str()])
        .arg(&mirror.uri);
    if let Some(proxy) = &mirror.proxy {
        debootstrap.env("http_proxy", proxy);
    }
    tools::run_command(debootstrap, STAGE).map(drop)
}

/// Copies the overlay's files into the tree, with their places of the disk's identifiers filled in.
fn overlay(from: &Path, root: &Path) -> Result<()> {
    for file in files(from)? {
        let inside = file.strip_prefix(from).unwrap_or(&file);
        let to = root.join(inside);
        let what = || format!("copy {} to {}", file.display(), to.display());
        if let Some(parent) = to.parent() {
            fs::create_dir_all(parent).context(what)?;
        }
        let text = fs::read_to_string(&file).context(what)?;
        fs::write(&to, fill_in(&text)).context(what)?;
        // Whatever the umask of whoever checked the recipe out.
        let executable = fs::metadata(&file).context(what)?.permissions().mode() & 0o100 != 0;
        let mode = if executable { 0o755 } else { 0o644 };
        fs::set_permissions(&to, fs::Permissions::from_mode(mode)).context(what)?;
    }
    Ok(())
}

/// A recipe's text with the disk's identifiers.
pub fn fill_in(text: &str) -> String {
    text.replace("@ROOT_PARTUUID@", ROOT_PARTUUID).replace("@ROOT_UUID@", ROOT_UUID)
}

fn finish(script: &Path, root: &Path) -> Result<()> {
    let inside = root.join("finish");
    fs::copy(script, &inside).context(|| format!("copy {}", script.display()))?;
    in_root(root, &["/bin/sh", "/finish"])?;
    fs::remove_file(&inside).context(|| format!("remove {}", inside.display()))
}

/// Runs a command in the tree, with an environment that owes nothing to the host's.
fn in_root(root: &Path, words: &[&str]) -> Result<()> {
    let mut command = isolated(&tool("chroot")?)?;
    command
        .arg(root)
        .args(["/usr/bin/env", "-i", "HOME=/root", "LC_ALL=C.UTF-8"])
        .arg("PATH=/usr/sbin:/usr/bin:/sbin:/bin")
        .args(["DEBIAN_FRONTEND=noninteractive", "DEBCONF_NOWARNINGS=yes"])
        .args(words);
    tools::run_command(command, STAGE).map(drop)
}

/// Namespaces that end with the command: debootstrap mounts `/proc` in the tree, and packages' scripts start processes.
const NAMESPACES: &[&str] = &["--mount", "--pid", "--fork", "--kill-child"];

/// A command of which nothing stays, however it ends. A container that forbids namespaces forbids those mounts, too, and
/// debootstrap goes on without.
fn isolated(program: &str) -> Result<Command> {
    let Some(unshare) = tools::find("unshare") else {
        return Ok(Command::new(program));
    };
    let mut probe = Command::new(&unshare);
    let allowed = probe.args(NAMESPACES).arg("true").output();
    if !allowed.is_ok_and(|output| output.status.success()) {
        return Ok(Command::new(program));
    }
    let mut command = Command::new(unshare);
    command.args(NAMESPACES).args(["--", program]);
    Ok(command)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::workdir::WorkDir;
    use std::os::unix::fs::MetadataExt;

    #[test]
    fn the_overlay_is_filled_in_and_readable() {
        let dir = WorkDir::new("overlay").unwrap();
        fs::create_dir_all(dir.path("from/etc/x.d")).unwrap();
        fs::write(dir.path("from/etc/fstab"), "PARTUUID=@ROOT_PARTUUID@ /\n").unwrap();
        fs::write(dir.path("from/etc/x.d/y"), "plain").unwrap();
        fs::write(dir.path("from/etc/x.d/z"), "plain").unwrap();
        for (name, mode) in [("y", 0o600), ("z", 0o700)] {
            let file = dir.path("from/etc/x.d").join(name);
            fs::set_permissions(file, fs::Permissions::from_mode(mode)).unwrap();
        }
        overlay(&dir.path("from"), &dir.path("root")).unwrap();
        assert_eq!(fs::read_to_string(dir.path("root/etc/fstab")).unwrap(), format!("PARTUUID={ROOT_PARTUUID} /\n"));
        let mode = |name| fs::metadata(dir.path("root/etc/x.d").join(name)).unwrap().mode() & 0o777;
        assert_eq!((mode("y"), mode("z")), (0o644, 0o755));
    }

    #[test]
    fn nothing_is_left_to_fill_in() {
        for file in files(&crate::paths::images().join("root-disk")).unwrap() {
            let text = fill_in(&fs::read_to_string(&file).unwrap());
            assert!(!text.contains("@ROOT"), "{}", file.display());
        }
    }
}
