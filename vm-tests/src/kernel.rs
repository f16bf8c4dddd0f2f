//! Linux kernels to boot: Debian's own packages, downloaded and unpacked into the cache, never installed on the host.
//!
//! An entry is kept by its line, not by the package's exact version: a cached kernel needs no network. To take a newer
//! one, delete the entry.

use crate::cache::{Cache, Recipe};
use crate::{Context, Error, Result, tools};
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

/// How long a download may take.
const DOWNLOAD: Duration = Duration::from_secs(15 * 60);

/// How long a local tool may take.
const TOOL: Duration = Duration::from_secs(120);

/// A line of kernels guests are tested with.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Line {
    /// Debian 12's own.
    V6_1,
    /// The long-term kernel in Debian 12's backports.
    V6_12,
    /// The same with every driver Debian builds: what cloud kernels lack is the kernel's own SCSI target, the SCSI device handlers
    /// (ALUA) and the device mapper's multipath.
    V6_12Full,
}

impl Line {
    /// Every line, oldest first.
    pub const ALL: [Line; 3] = [Line::V6_1, Line::V6_12, Line::V6_12Full];

    /// Its name, `6.1` for instance.
    pub fn name(self) -> &'static str {
        match self {
            Line::V6_1 => "6.1",
            Line::V6_12 => "6.12",
            Line::V6_12Full => "6.12-full",
        }
    }

    /// How its versions begin.
    fn version(self) -> &'static str {
        match self {
            Line::V6_1 => "6.1",
            Line::V6_12 | Line::V6_12Full => "6.12",
        }
    }

    /// The package that depends on its newest kernel.
    fn package(self) -> &'static str {
        match self {
            Line::V6_1 | Line::V6_12 => "linux-image-cloud-amd64",
            Line::V6_12Full => "linux-image-amd64",
        }
    }

    /// Whether a version or release such as `6.12.95-1~bpo12+1` belongs to it.
    pub fn has(self, version: &str) -> bool {
        version.strip_prefix(self.version()).is_some_and(|rest| rest.starts_with('.'))
    }

    fn entry(self) -> (String, Recipe) {
        let name = format!("linux-{}", self.name());
        let recipe = Recipe::new("kernel", 1).part(self.name().as_bytes());
        (name, recipe)
    }
}

/// An unpacked kernel.
#[derive(Debug, Clone)]
pub struct Kernel {
    /// Its release, as `uname -r` prints it in the guest.
    pub release: String,
    /// The compressed image a boot loader takes.
    pub image: PathBuf,
    /// Its modules: the folder that holds `modules.dep`.
    pub modules: PathBuf,
    /// The package's files as unpacked (`boot`, `lib`).
    pub root: PathBuf,
}

impl Kernel {
    /// The kernel of a line: from the cache, else the newest that apt offers.
    ///
    /// # Errors
    /// When it is not cached and can be neither found nor downloaded.
    pub fn get(cache: &Cache, line: Line) -> Result<Kernel> {
        let (name, recipe) = line.entry();
        Kernel::at(cache.entry(&name, &recipe, |dir| download(line, dir))?)
    }

    /// The kernel of a line if it is in the cache.
    pub fn cached(cache: &Cache, line: Line) -> Option<Kernel> {
        let (name, recipe) = line.entry();
        cache.find(&name, &recipe).and_then(|root| Kernel::at(root).ok())
    }

    fn at(root: PathBuf) -> Result<Kernel> {
        let boot = fs::read_dir(root.join("boot")).context(|| format!("read {}/boot", root.display()))?;
        let names = boot.flatten().map(|entry| entry.file_name().to_string_lossy().into_owned());
        let release = names.into_iter().find_map(|name| name.strip_prefix("vmlinuz-").map(str::to_owned));
        let release = release.context(|| format!("no kernel in {}", root.display()))?;
        let image = root.join("boot").join(format!("vmlinuz-{release}"));
        let modules = root.join("lib/modules").join(&release);
        Ok(Kernel { release, image, modules, root })
    }
}

fn download(line: Line, dir: &Path) -> Result<()> {
    let package = newest(line)?;
    println!("downloading {package}");
    let mut command = Command::new("apt-get");
    command.current_dir(dir).args(["-q", "-o", "Acquire::Retries=3", "download", &package]);
    tools::run_command(command, DOWNLOAD)?;
    let files = fs::read_dir(dir).context(|| format!("read {}", dir.display()))?;
    let deb = files.flatten().map(|entry| entry.path()).find(|path| path.extension().is_some_and(|e| e == "deb"));
    let deb = deb.context(|| format!("apt-get download {package} left no package"))?;
    tools::run("dpkg-deb", &["-x".as_ref(), deb.as_os_str(), dir.as_os_str()], TOOL)?;
    fs::remove_file(&deb).context(|| format!("remove {}", deb.display()))?;
    let kernel = Kernel::at(dir.to_owned())?;
    // The package's installation would do this; it is not installed.
    tools::run("depmod", &["-b".as_ref(), dir.as_os_str(), kernel.release.as_ref()], TOOL).map(drop)
}

/// The newest package of a line, as `name=version`.
fn newest(line: Line) -> Result<String> {
    let package = line.package();
    let known = tools::run("apt-cache", &["madison", package], TOOL)?;
    let versions = known.lines().filter_map(|row| row.split('|').nth(1)).map(str::trim);
    // apt lists the newest first.
    let version = versions.into_iter().find(|version| line.has(version)).context(|| {
        format!("apt knows no {package} {}; run `cargo xtask install` as root, or `apt-get update`", line.version())
    })?;
    let record = tools::run("apt-cache", &["show", "--no-all-versions", &format!("{package}={version}")], TOOL)?;
    let depends = record.lines().find_map(|field| field.strip_prefix("Depends: "));
    let image = depends
        .and_then(|list| list.split([',', '|']).map(str::trim).find(|package| package.starts_with("linux-image-")));
    let image = image.and_then(|package| package.split_whitespace().next());
    match image {
        Some(image) => Ok(format!("{image}={version}")),
        None => Err(Error::new(format!("{package} {version} depends on no kernel:\n{record}"))),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lines_are_told_apart() {
        assert!(Line::V6_1.has("6.1.192-2") && Line::V6_12.has("6.12.95-1~bpo12+1"));
        assert!(!Line::V6_1.has("6.12.95-1") && !Line::V6_12.has("6.1.12-1"));
        assert!(Line::V6_12Full.has("6.12.95+deb12-amd64"));
    }
}
