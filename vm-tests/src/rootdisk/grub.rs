//! Grub's images for both kinds of firmware, made by grub-mkimage and put where the firmware looks.
//!
//! A BIOS loads the disk's first block and runs it. Grub's `boot.img` is that block's code; it loads one more block, the
//! start of the core image, whose number is written into it. That block in turn loads the rest of the core, which lies
//! behind it, by a list of block ranges at its end, of which one range is needed. grub-install would write both numbers
//! through a device; here they are written into files. The formats are those of grub's `boot.S` and `diskboot.S`.
//!
//! UEFI needs none of this: the loader is a file of a fixed name in the EFI system partition.

use super::layout::{BIOS_BOOT, BLOCK};
use super::{TOOL, tool, tree};
use crate::{Context, Error, Result, tools};
use std::fs;
use std::path::{Path, PathBuf};

/// Where Debian's grub packages put what images are made of.
const GRUB: &str = "/usr/lib/grub";

/// Bytes of the first block that are code; a disk signature and the partition table follow.
const BOOT_CODE: usize = 440;

/// In `boot.img`: the core's first block, 8 bytes, little-endian.
const KERNEL_BLOCK: usize = 0x5c;

/// In `boot.img`: a jump that is kept only on floppies; without it, grub does not trust a BIOS to name the drive.
const DRIVE_CHECK: usize = 0x66;

/// What replaces it: two instructions that do nothing.
const NO_OPERATION: [u8; 2] = [0x90, 0x90];

/// In the core's first block: where the rest lies. The first block's number, 8 bytes; the number of blocks, 2 bytes;
/// the real-mode segment to load them at, 2 bytes; all little-endian. Lists grow downwards, and one that is all zero
/// ends them.
const FIRST_RANGE: usize = 512 - 12;

/// What both loaders must know to find and read their configuration on the root partition.
const MODULES: &[&str] = &["part_gpt", "ext2", "search_fs_uuid", "normal", "configfile", "linux", "serial", "terminal"];

/// The two pieces for a BIOS.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Bios {
    /// For the start of the disk.
    pub boot: Vec<u8>,
    /// For the start of [`BIOS_BOOT`].
    pub core: Vec<u8>,
}

/// Makes the pieces for a BIOS; `early` is the configuration built in, `dir` a place for files.
pub fn bios(early: &Path, dir: &Path) -> Result<Bios> {
    let core = mkimage("i386-pc", early, &["biosdisk"], &dir.join("core.img"))?;
    let boot = Path::new(GRUB).join("i386-pc/boot.img");
    let read = |path: &Path| fs::read(path).context(|| format!("read {}", path.display()));
    place(&read(&boot)?, &read(&core)?)
}

/// Makes the loader for UEFI, with `early` built in, in `dir`.
pub fn uefi(early: &Path, dir: &Path) -> Result<PathBuf> {
    mkimage("x86_64-efi", early, &[], &dir.join("BOOTX64.EFI"))
}

fn mkimage(platform: &str, early: &Path, more: &[&str], to: &Path) -> Result<PathBuf> {
    let text = fs::read_to_string(early).context(|| format!("read {}", early.display()))?;
    let config = to.with_extension("cfg");
    fs::write(&config, tree::fill_in(&text)).context(|| format!("write {}", config.display()))?;
    let mut words = vec!["-O".as_ref(), platform.as_ref(), "-p".as_ref(), "/boot/grub".as_ref()];
    words.extend(["-c".as_ref(), config.as_os_str(), "-o".as_ref(), to.as_os_str()]);
    words.extend(MODULES.iter().chain(more).map(std::ffi::OsStr::new));
    tools::run(&tool("grub-mkimage")?, &words, TOOL)?;
    fs::remove_file(&config).context(|| format!("remove {}", config.display()))?;
    Ok(to.to_owned())
}

/// Writes into `boot.img` where the core is, and into the core where the rest of itself is.
fn place(boot: &[u8], core: &[u8]) -> Result<Bios> {
    let (mut boot, mut core) = (boot.to_vec(), core.to_vec());
    if boot.len() != 512 || core.len() <= 512 || core.len() as u64 > BIOS_BOOT.size {
        return Err(Error::new(format!(
            "grub's boot.img has {} bytes and its core {}: neither fits its place",
            boot.len(),
            core.len()
        )));
    }
    boot.truncate(BOOT_CODE);
    boot[KERNEL_BLOCK..][..8].copy_from_slice(&BIOS_BOOT.first_block().to_le_bytes());
    boot[DRIVE_CHECK..][..2].copy_from_slice(&NO_OPERATION);

    // grub-mkimage has filled in the length; checking it checks that this is the format we know.
    let rest = (core.len() as u64 - 512).div_ceil(BLOCK);
    let range = &mut core[FIRST_RANGE..][..12];
    let length = u16::from_le_bytes([range[8], range[9]]);
    if u64::from(length) != rest {
        return Err(Error::new(format!("grub's core has {rest} blocks after its first, but says {length}")));
    }
    range[..8].copy_from_slice(&(BIOS_BOOT.first_block() + 1).to_le_bytes());
    Ok(Bios { boot, core })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn core(blocks: u16, claimed: u16) -> Vec<u8> {
        let mut core = vec![0xcc; 512 + usize::from(blocks) * 512 - 5];
        core[500..512].copy_from_slice(&[2, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0x20, 0x08]);
        core[508..510].copy_from_slice(&claimed.to_le_bytes());
        core
    }

    #[test]
    fn both_blocks_name_the_partitions() {
        let bios = place(&[0xaa; 512], &core(300, 300)).unwrap();
        assert_eq!(bios.boot.len(), 440);
        // The partition is at 1 MiB: block 2048 = 0x800.
        assert_eq!(&bios.boot[0x5b..0x69], [0xaa, 0, 8, 0, 0, 0, 0, 0, 0, 0xaa, 0xaa, 0x90, 0x90, 0xaa]);
        assert_eq!(&bios.core[499..512], [0xcc, 1, 8, 0, 0, 0, 0, 0, 0, 0x2c, 1, 0x20, 0x08]);
    }

    #[test]
    fn an_unknown_format_is_refused() {
        assert!(place(&[0; 512], &core(300, 299)).is_err());
        assert!(place(&[0; 511], &core(300, 300)).is_err());
        assert!(place(&[0; 512], &[0; 512]).is_err());
        assert!(place(&[0; 512], &core(3000, 3000)).is_err());
    }
}
