//! The larger root for test guests: Debian packages named in `images/package-root/packages`, with all they depend on, unpacked into a
//! read-only ext4 image. For what has to come as Debian ships it: daemons, agents in scripting languages, their libraries.
//!
//! The packages are downloaded by apt and unpacked, never installed, neither on the host (where multipathd would start to
//! look for disks) nor in the tree (which would need root). So no package's scripts have run: there are no users but root, and no services. The
//! agent that runs tests' scripts is the [guest root's](crate::guestroot).
//!
//! Like a [kernel](crate::kernel), an image is kept by its recipe, not by its packages' versions: one that is cached needs no network.

use crate::cache::{Cache, Recipe};
use crate::guestroot::{copy, image, link_applets};
use crate::initramfs::words;
use crate::{Context, Error, Result, paths, tools};
use std::fs;
use std::os::unix::fs::symlink;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

/// How long the download may take.
const DOWNLOAD: Duration = Duration::from_secs(15 * 60);

/// How long a local tool may take.
const TOOL: Duration = Duration::from_secs(120);

/// Debian's folders that are links into `/usr`. Packages of Debian 12 still hold files below both names.
const MERGED: &[&str] = &["bin", "sbin", "lib", "lib64"];

/// Where things are mounted.
const PLACES: &[&str] = &["dev", "proc", "sys", "run", "tmp"];

/// The image, from the cache when it is there; else it is made, which takes about a minute and the network.
///
/// # Errors
/// When it is not there and cannot be made; the message holds what apt said.
pub fn get(cache: &Cache) -> Result<PathBuf> {
    let agent = paths::images().join("guest-root/agent");
    let list = paths::images().join("package-root/packages");
    let recipe = Recipe::new("package-root", 1).file(&agent)?.file(&list)?;
    let entry = cache.entry("package-root", &recipe, |dir| {
        println!("making the test guests' root of Debian packages (once; about a minute)");
        let list = fs::read_to_string(&list).context(|| format!("read {}", list.display()))?;
        let (packages, root) = (dir.join("packages"), dir.join("root"));
        download(&words(&list), &packages)?;
        unpack(&packages, &root)?;
        copy(&agent, &root.join("agent"))?;
        image(&root, &dir.join("root.ext4"))?;
        [packages, root]
            .iter()
            .try_for_each(|tree| fs::remove_dir_all(tree).context(|| format!("remove {}", tree.display())))
    })?;
    Ok(entry.join("root.ext4"))
}

/// Downloads `packages`, and what they depend on, into the folder `to`.
fn download(packages: &[&str], to: &Path) -> Result<()> {
    fs::create_dir(to).context(|| format!("make {}", to.display()))?;
    // To apt, a system on which nothing is installed.
    let empty = ["-q", "-o", "Dir::State::status=/dev/null", "--no-install-recommends"];
    let plan = tools::run("apt-get", &[&empty, ["--simulate", "install"].as_slice(), packages].concat(), TOOL)
        .context(|| "the packages of test guests: run `apt-get update` as root if apt does not know them")?;
    let files: Vec<String> = plan.lines().filter_map(planned).collect();
    if files.is_empty() {
        return Err(Error::new(format!("apt plans to install nothing:\n{plan}")));
    }
    let mut command = Command::new("apt-get");
    command.current_dir(to).args(["-q", "-o", "Acquire::Retries=3", "download"]).args(&files);
    tools::run_command(command, DOWNLOAD).map(drop)
}

/// What a line of apt's plan installs, as `name=version`: `Inst name (version origin [architecture])`.
fn planned(line: &str) -> Option<String> {
    let mut words = line.strip_prefix("Inst ")?.split_whitespace();
    let name = words.next()?;
    let version = words.next()?.strip_prefix('(')?;
    Some(format!("{name}={version}"))
}

/// Unpacks every package of a folder into the tree `root`.
fn unpack(packages: &Path, root: &Path) -> Result<()> {
    for place in PLACES {
        fs::create_dir_all(root.join(place)).context(|| format!("make {place} in {}", root.display()))?;
    }
    for name in MERGED {
        fs::create_dir_all(root.join("usr").join(name)).context(|| format!("make usr/{name}"))?;
        symlink(Path::new("usr").join(name), root.join(name)).context(|| format!("link {name}"))?;
    }
    let files = fs::read_dir(packages).context(|| format!("read {}", packages.display()))?;
    for file in files.flatten().map(|entry| entry.path()) {
        // dpkg-deb's own unpacking would put folders in place of the links.
        let script = "dpkg-deb --fsys-tarfile \"$1\" > \"$2.tar\" && tar --extract --file \"$2.tar\" --directory \"$2\" \
                      --keep-directory-symlink --no-same-owner --exclude './usr/share/doc/*' --exclude './usr/share/man/*' \
                      --exclude './usr/share/locale/*' && rm \"$2.tar\"";
        let words = ["-c".as_ref(), script.as_ref(), "sh".as_ref(), file.as_os_str(), root.as_os_str()];
        tools::run("sh", &words, TOOL).context(|| format!("unpack {}", file.display()))?;
    }
    link_applets(root, &["usr/bin", "usr/sbin"])?;
    fs::write(root.join("etc/passwd"), "root:x:0:0:root:/tmp:/bin/bash\n").context(|| "write etc/passwd")?;
    fs::write(root.join("etc/group"), "root:x:0:\ndisk:x:6:\n").context(|| "write etc/group")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_plan_names_packages_and_versions() {
        let line = "Inst fio (3.33-3 Debian:12.15/oldstable [amd64]) []";
        assert_eq!(planned(line).as_deref(), Some("fio=3.33-3"));
        assert_eq!(planned("Conf fio (3.33-3 Debian:12.15/oldstable [amd64])"), None);
    }
}
