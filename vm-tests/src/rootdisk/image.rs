//! The disk image: partition table, file systems and boot loaders, written into a plain file.

use super::layout::{self, BIOS_BOOT, ESP, Partition, ROOT, ROOT_UUID};
use super::{TOOL, grub, tool};
use crate::{Context, Result, tools};
use std::ffi::OsStr;
use std::fs::{self, File};
use std::io::Read;
use std::os::unix::fs::FileExt;
use std::path::Path;

/// The root file system's features, named one by one: what mke2fs makes by default differs from host to host, and grub
/// reads only these.
const FEATURES: &str = "none,has_journal,ext_attr,resize_inode,dir_index,filetype,extent,64bit,flex_bg,sparse_super,\
                        large_file,huge_file,dir_nlink,extra_isize,metadata_csum";

/// What an EFI system partition is copied by.
const CHUNK: usize = 1 << 20;

/// Makes `disk.img` in `dir` from the recipe in `source` and the tree `root`.
pub fn make(source: &Path, root: &Path, dir: &Path) -> Result<()> {
    let image = dir.join("disk.img");
    let early = source.join("early.cfg");
    partition(&image, dir)?;
    root_file_system(root, &image)?;
    esp(&early, &image, dir)?;
    bios(&early, &image, dir)
}

fn partition(image: &Path, dir: &Path) -> Result<()> {
    let what = || format!("write {}", image.display());
    let file = File::create_new(image).context(what)?;
    file.set_len(layout::DISK).context(what)?;
    let script = dir.join("layout.sfdisk");
    fs::write(&script, layout::sfdisk_script()).context(|| format!("write {}", script.display()))?;
    // sfdisk reads its script from standard input, which our tools leave empty.
    let words = ["-c", r#"exec "$1" --quiet "$2" < "$3""#, "sh"].map(OsStr::new);
    let sfdisk = tool("sfdisk")?;
    let words = [&words[..], &[sfdisk.as_ref(), image.as_os_str(), script.as_os_str()]].concat();
    tools::run("sh", &words, TOOL)?;
    fs::remove_file(&script).context(|| format!("remove {}", script.display()))
}

/// The file system is made of the tree and in its place at once.
fn root_file_system(root: &Path, image: &Path) -> Result<()> {
    let extended = format!("offset={},lazy_itable_init=0,lazy_journal_init=0,root_owner=0:0", ROOT.start);
    let blocks = format!("{}k", ROOT.size / 1024);
    let words = [
        "-q", "-F", "-t", "ext4", "-b", "4096", "-I", "256", "-m", "1", "-L", "root", "-U", ROOT_UUID, "-O", FEATURES,
        "-E", &extended, "-d",
    ];
    let mut words: Vec<&OsStr> = words.iter().map(OsStr::new).collect();
    words.extend([root.as_os_str(), image.as_os_str(), blocks.as_ref()]);
    tools::run(&tool("mke2fs")?, &words, TOOL).map(drop)
}

fn esp(early: &Path, image: &Path, dir: &Path) -> Result<()> {
    let loader = grub::uefi(early, dir)?;
    let esp = dir.join("esp.img");
    let what = || format!("make {}", esp.display());
    File::create_new(&esp).and_then(|file| file.set_len(ESP.size)).context(what)?;
    // One block a cluster, without which there are too few clusters for FAT32.
    let words = ["-F", "32", "-s", "1", "-n", "ESP", "-i", "76737467"].map(OsStr::new);
    tools::run(&tool("mkfs.vfat")?, &[&words[..], &[esp.as_os_str()]].concat(), TOOL)?;
    let on = |words: &[&str]| -> Vec<std::ffi::OsString> {
        let mut all = vec!["-i".into(), esp.clone().into_os_string()];
        all.extend(words.iter().map(std::ffi::OsString::from));
        all
    };
    tools::run(&tool("mmd")?, &on(&["::/EFI", "::/EFI/BOOT"]), TOOL)?;
    let from = loader.to_string_lossy();
    tools::run(&tool("mcopy")?, &on(&[&from, "::/EFI/BOOT/BOOTX64.EFI"]), TOOL)?;
    copy_into(&esp, image, ESP).context(|| "put the EFI system partition in its place")?;
    for file in [&esp, &loader] {
        fs::remove_file(file).context(|| format!("remove {}", file.display()))?;
    }
    Ok(())
}

/// Copies a file to a partition; what is zero is left as the hole it is.
fn copy_into(from: &Path, image: &Path, to: Partition) -> std::io::Result<()> {
    let mut source = File::open(from)?;
    let target = File::options().write(true).open(image)?;
    let mut chunk = vec![0; CHUNK];
    for offset in (to.start..to.start + to.size).step_by(CHUNK) {
        source.read_exact(&mut chunk)?;
        if chunk.iter().any(|byte| *byte != 0) {
            target.write_all_at(&chunk, offset)?;
        }
    }
    Ok(())
}

fn bios(early: &Path, image: &Path, dir: &Path) -> Result<()> {
    let pieces = grub::bios(early, dir)?;
    let what = || format!("write the boot loader to {}", image.display());
    let file = File::options().write(true).open(image).context(what)?;
    file.write_all_at(&pieces.boot, 0).context(what)?;
    file.write_all_at(&pieces.core, BIOS_BOOT.start).context(what)?;
    let core = dir.join("core.img");
    fs::remove_file(&core).context(|| format!("remove {}", core.display()))
}
