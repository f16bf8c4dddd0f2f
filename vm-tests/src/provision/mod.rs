//! What the host needs to run guests, and how it gets it: Debian packages, through the machine's own apt configuration.
//!
//! The host is a Debian 12 of any kind (a container, a debootstrap chroot) on which a Rust toolchain works. What is
//! missing is found by looking for the programs and files themselves; only then apt is called. QEMU 10 and Linux 6.12
//! come from Debian's backports. Beyond installing packages, the only thing written outside the cache is one file below
//! `/etc/apt/sources.list.d`, and only where apt does not know backports yet.

mod sources;

use crate::cache::Cache;
use crate::kernel::{Kernel, Line};
use crate::process::Process;
use crate::{Context, Error, Result, guestroot, initramfs, packageroot, sys, tools};
use sources::Source;
use std::collections::BTreeSet;
use std::fs;
use std::path::Path;
use std::process::Command;
use std::time::Duration;

/// The Debian release whose packages are used.
const CODENAME: &str = "bookworm";

/// Names by which a source may mean [`CODENAME`], on a machine that says it runs it.
const SUITES: &[&str] = &[CODENAME, "stable", "oldstable"];

/// Where QEMU 10 and Linux 6.12 are.
const BACKPORTS: &str = "bookworm-backports";

/// The least QEMU: what `vhost-user-scsi-pci` does was written down from this one.
const QEMU_MAJOR: u32 = 10;

/// The package with qemu-storage-daemon, qemu-img and qemu-io.
const STORAGE_DAEMON: &str = "qemu-utils";

/// The cargo-fuzz that is installed if there is none.
const CARGO_FUZZ: &str = "0.13.2";

/// Where apt's configuration lies.
const ETC_APT: &str = "/etc/apt";

/// How long apt may take: the bound is for a machine that hangs, not for a slow network.
const APT: Duration = Duration::from_secs(30 * 60);

/// How long a question to a tool may take.
const ASK: Duration = Duration::from_secs(60);

/// What must be there: a program (found in the usual folders) or, with a leading slash, a file; and the package that
/// brings it.
const NEEDS: &[(&str, &str)] = &[
    // The initramfs, the cache and the root disk are made with these.
    ("busybox", "busybox-static"),
    ("debootstrap", "debootstrap"),
    ("depmod", "kmod"),
    ("grub-mkimage", "grub-common"),
    ("/usr/lib/grub/i386-pc/boot.img", "grub-pc-bin"),
    ("/usr/lib/grub/x86_64-efi/kernel.img", "grub-efi-amd64-bin"),
    ("gzip", "gzip"),
    ("ldd", "libc-bin"),
    ("mcopy", "mtools"),
    ("mke2fs", "e2fsprogs"),
    ("mkfs.vfat", "dosfstools"),
    // A file system whose files can be written atomically, for vstgt's own tests.
    ("mkfs.xfs", "xfsprogs"),
    ("sfdisk", "fdisk"),
    // Looks over the example units.
    ("systemd-analyze", "systemd"),
    ("xz", "xz-utils"),
    // Firmware.
    ("/usr/share/seabios/bios-256k.bin", "seabios"),
    ("/usr/share/OVMF/OVMF_CODE_4M.fd", "ovmf"),
    // Run in the guest, from the host's own binaries.
    ("blkdiscard", "util-linux"),
    ("fio", "fio"),
    // Looks over system calls.
    ("strace", "strace"),
    ("lsscsi", "lsscsi"),
    ("sg_inq", "sg3-utils"),
];

/// What is missing.
#[derive(Debug, Default)]
struct Missing {
    /// Packages of the release itself.
    packages: BTreeSet<&'static str>,
    /// Whether QEMU is missing or too old.
    qemu: bool,
    /// Whether there is no qemu-storage-daemon: the bench wants it, and the tests of image locking, with what comes with it.
    storage_daemon: bool,
    /// Kernel lines not in the cache.
    kernels: Vec<Line>,
    /// The source to add, when something comes from backports and apt does not know them.
    source: Option<Source>,
}

impl Missing {
    fn find(cache: &Cache) -> Result<Missing> {
        let absent = |need: &str| match need.starts_with('/') {
            true => !Path::new(need).exists(),
            false => tools::find(need).is_none(),
        };
        let mut missing = Missing {
            packages: NEEDS.iter().filter(|(need, _)| absent(need)).map(|(_, package)| *package).collect(),
            qemu: qemu_major()? < QEMU_MAJOR,
            storage_daemon: tools::find(crate::bench::target::QSD).is_none(),
            kernels: Line::ALL.into_iter().filter(|line| Kernel::cached(cache, *line).is_none()).collect(),
            ..Missing::default()
        };
        if missing.qemu || missing.storage_daemon || missing.kernels.iter().any(|line| *line != Line::V6_1) {
            missing.source = source_to_add()?;
        }
        Ok(missing)
    }

    fn is_empty(&self) -> bool {
        self.packages.is_empty() && !self.qemu && !self.storage_daemon && self.kernels.is_empty()
    }

    /// The shell commands that do by hand what [`ensure`] does.
    fn by_hand(&self) -> String {
        let mut lines = Vec::new();
        if let Some(source) = &self.source {
            lines.push(format!("cat > {} <<'END'\n{}END", source_path(source), source.text));
        }
        lines.push("apt-get update".to_owned());
        if !self.packages.is_empty() {
            let packages: Vec<&str> = self.packages.iter().copied().collect();
            lines.push(format!("apt-get install --no-install-recommends {}", packages.join(" ")));
        }
        if self.qemu {
            lines.push(format!("apt-get install --no-install-recommends -t {BACKPORTS} qemu-system-x86"));
        }
        if self.storage_daemon {
            lines.push(format!("apt-get install --no-install-recommends -t {BACKPORTS} {STORAGE_DAEMON}"));
        }
        lines.join("\n")
    }
}

/// Makes sure everything is there: packages, kernels, test initramfs and guest roots. Installs what is missing when run by root.
///
/// # Errors
/// When something is missing and cannot be installed; for a user who is not root, the message says what to run.
pub fn ensure() -> Result<()> {
    let cache = Cache::open()?;
    let missing = Missing::find(&cache)?;
    let packages = !missing.packages.is_empty() || missing.qemu || missing.storage_daemon || missing.source.is_some();
    if packages && !sys::is_root() {
        return Err(Error::new(format!(
            "guests need packages that are not here. Run `cargo xtask install` as root, or as root:\n{}",
            missing.by_hand()
        )));
    }
    if !missing.is_empty() && sys::is_root() {
        install(&cache, &missing)?;
    }
    let left = Missing::find(&cache)?;
    if !left.packages.is_empty() || left.qemu || left.storage_daemon {
        return Err(Error::new(format!("apt succeeded, but something is still missing:\n{}", left.by_hand())));
    }
    for line in Line::ALL {
        let kernel = Kernel::get(&cache, line)?;
        initramfs::get(&cache, line, &kernel, &[])?;
    }
    packageroot::get(&cache)?;
    guestroot::get(&cache).map(drop)
}

/// Makes sure of what only the bench needs besides fio: `qemu-storage-daemon`, of the same release as the guests' QEMU.
///
/// # Errors
/// When it is missing and cannot be installed; for a user who is not root, the message says what to run.
pub fn ensure_bench() -> Result<()> {
    let mut missing = Missing::default();
    if tools::find("fio").is_none() {
        missing.packages.insert("fio");
    }
    missing.storage_daemon = tools::find(crate::bench::target::QSD).is_none();
    if missing.storage_daemon {
        missing.source = source_to_add()?;
    }
    if missing.is_empty() {
        return Ok(());
    }
    if sys::is_root() {
        return install(&Cache::open()?, &missing);
    }
    Err(Error::new(format!("the bench's peers are not all here. As root:\n{}", missing.by_hand())))
}

/// Makes sure of what fuzzing needs: a C++ compiler, for libFuzzer, and cargo-fuzz, which is installed for whoever runs this.
///
/// # Errors
/// When something is missing and cannot be installed; for a user who is not root, the message says what to run.
pub fn ensure_fuzz() -> Result<()> {
    if tools::find("g++").is_none() {
        let missing = Missing { packages: BTreeSet::from(["g++"]), ..Missing::default() };
        if !sys::is_root() {
            return Err(Error::new(format!(
                "libFuzzer is C++, and there is no compiler for it. As root:\n{}",
                missing.by_hand()
            )));
        }
        install(&Cache::open()?, &missing)?;
    }
    // Cargo looks for its subcommands there, whether it is in $PATH or not.
    if tools::run("cargo", &["fuzz", "--version"], ASK).is_ok() {
        return Ok(());
    }
    println!("installing cargo-fuzz {CARGO_FUZZ}");
    let mut command = Command::new("cargo");
    command.args(["install", "--quiet", "--locked", "cargo-fuzz", "--version", CARGO_FUZZ]);
    tools::run_visible(command)
}

/// Like [`ensure`], but changes nothing: for tests run on their own.
///
/// # Errors
/// When something is missing; the message says how to get it.
pub fn check() -> Result<()> {
    let missing = Missing::find(&Cache::open()?)?;
    if missing.is_empty() {
        return Ok(());
    }
    Err(Error::new(format!(
        "guest tests need what is not here yet. Run `cargo xtask install` (as root, if packages are missing), or as \
         root:\n{}\nand then `cargo xtask install`",
        missing.by_hand()
    )))
}

fn install(cache: &Cache, missing: &Missing) -> Result<()> {
    if let Some(source) = &missing.source {
        let path = source_path(source);
        println!("adding the apt source {path}");
        fs::write(&path, &source.text).context(|| format!("write {path}"))?;
    }
    // Another repository of the machine may be out of order without concerning us; what does shows in the next step.
    if let Err(error) = apt(cache, &["update"]) {
        println!("apt-get update had trouble, going on: {error}");
    }
    if !missing.packages.is_empty() {
        let packages: Vec<&str> = missing.packages.iter().copied().collect();
        println!("installing {}", packages.join(" "));
        let words = [&["install", "-y", "--no-install-recommends"], packages.as_slice()].concat();
        apt(cache, &words)?;
    }
    if missing.qemu {
        println!("installing qemu-system-x86 from {BACKPORTS}");
        apt(cache, &["install", "-y", "--no-install-recommends", "-t", BACKPORTS, "qemu-system-x86"])?;
    }
    if missing.storage_daemon {
        println!("installing {STORAGE_DAEMON} from {BACKPORTS}");
        apt(cache, &["install", "-y", "--no-install-recommends", "-t", BACKPORTS, STORAGE_DAEMON])?;
    }
    Ok(())
}

/// Runs apt-get so that it asks nothing, waits for another apt rather than fail, and shows its words only on failure.
fn apt(cache: &Cache, words: &[&str]) -> Result<()> {
    let mut command = Command::new("apt-get");
    command.env("DEBIAN_FRONTEND", "noninteractive").env("LC_ALL", "C.UTF-8");
    command.args(["-q", "-o", "DPkg::Lock::Timeout=300", "-o", "Acquire::Retries=3", "-o", "Dpkg::Use-Pty=0"]);
    command.args(words);
    let line = tools::command_line(&command);
    let log = cache.root().join("apt.log");
    let mut process = Process::start_lasting("apt-get", command, &log)?;
    let status = process.wait(APT)?;
    if status.success() {
        return Ok(());
    }
    let advice = "is the network there, and does `apt-get update` work?";
    Err(Error::new(process.explain(&format!("`{line}` ended with {status}; {advice}"))))
}

/// The installed QEMU's major version; 0 without one.
fn qemu_major() -> Result<u32> {
    if tools::find(crate::qemu::QEMU).is_none() {
        return Ok(0);
    }
    let text = tools::run(crate::qemu::QEMU, &["--version"], ASK)?;
    let version = text.split_whitespace().skip_while(|word| *word != "version").nth(1);
    let major = version.and_then(|version| version.split('.').next()).and_then(|major| major.parse().ok());
    major.context(|| format!("no version in what {} says: {text}", crate::qemu::QEMU))
}

/// The source for backports, or `None` when apt has it already.
fn source_to_add() -> Result<Option<Source>> {
    let files = sources::read_all(Path::new(ETC_APT));
    if sources::offers(&files, BACKPORTS) {
        return Ok(None);
    }
    let release = fs::read_to_string("/etc/os-release").unwrap_or_default();
    if !release.lines().any(|line| line == format!("VERSION_CODENAME={CODENAME}")) {
        return Err(Error::new(format!(
            "QEMU {QEMU_MAJOR} and the guests' kernels come from Debian 12 ({CODENAME}) and its backports; this is another system"
        )));
    }
    let source = sources::derive(&files, SUITES, BACKPORTS);
    source.map(Some).context(|| {
        format!("no source for {CODENAME} (component main) in {ETC_APT} to derive one for {BACKPORTS} from")
    })
}

fn source_path(source: &Source) -> String {
    format!("{ETC_APT}/sources.list.d/vstgt-backports.{}", source.extension)
}
