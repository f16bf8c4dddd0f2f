//! Where things are on the root disk: a GUID partition table with three partitions.
//!
//! The identifiers are fixed, so the recipe can name them and two images made alike are alike. Two disks made from it
//! are therefore told apart by the disk, not by these.

/// Bytes in a logical block: what partition table and boot loaders count in.
pub const BLOCK: u64 = 512;

/// Bytes of the whole disk.
pub const DISK: u64 = 2 << 30;

const MIB: u64 = 1 << 20;

/// The root partition, as the kernel is told it.
pub const ROOT_PARTUUID: &str = "7d2b5a3e-0003-4c1d-9a51-76737467740a";

/// The root file system, as grub looks for it.
pub const ROOT_UUID: &str = "6b1f0c52-8a5e-4b7d-b2fa-7673746774f5";

/// A range of the disk, in bytes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Partition {
    /// Its first byte's offset.
    pub start: u64,
    /// Its size.
    pub size: u64,
}

/// Grub's core for BIOS machines, without a file system around it.
pub const BIOS_BOOT: Partition = Partition { start: MIB, size: MIB };

/// What UEFI firmware reads: FAT32, large enough to be it (65525 clusters of one block).
pub const ESP: Partition = Partition { start: 2 * MIB, size: 48 * MIB };

/// The root file system, up to where the table's second copy begins.
pub const ROOT: Partition = Partition { start: 50 * MIB, size: DISK - 51 * MIB };

impl Partition {
    /// The number of its first block.
    pub fn first_block(self) -> u64 {
        self.start / BLOCK
    }
}

/// The table as sfdisk(8) takes it.
pub fn sfdisk_script() -> String {
    let entry = |partition: Partition, kind: &str, id: &str, name: &str| {
        let (start, size) = (partition.first_block(), partition.size / BLOCK);
        format!("start={start}, size={size}, type={kind}, uuid={id}, name=\"{name}\"\n")
    };
    let mut script = String::from("label: gpt\nlabel-id: 7d2b5a3e-0000-4c1d-9a51-76737467740a\nunit: sectors\n");
    script +=
        &entry(BIOS_BOOT, "21686148-6449-6E6F-744E-656564454649", "7d2b5a3e-0001-4c1d-9a51-76737467740a", "bios-boot");
    script += &entry(ESP, "C12A7328-F81F-11D2-BA4B-00A0C93EC93B", "7d2b5a3e-0002-4c1d-9a51-76737467740a", "esp");
    script += &entry(ROOT, "0FC63DAF-8483-4772-8E79-3D69D8477DE4", ROOT_PARTUUID, "root");
    script
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn partitions_are_aligned_apart_and_inside() {
        let mut end = MIB;
        for partition in [BIOS_BOOT, ESP, ROOT] {
            assert_eq!(partition.start % MIB, 0);
            assert_eq!(partition.size % 4096, 0);
            assert!(partition.start >= end, "{partition:?}");
            end = partition.start + partition.size;
        }
        // The second table: 32 blocks of entries and a header.
        assert!(end <= DISK - 33 * BLOCK);
        // FAT32's clusters, two tables of 4 bytes for each, and what comes before them.
        const { assert!(ESP.size / BLOCK > 65525 + 2 * 65525 * 4 / BLOCK + 32) };
    }
}
