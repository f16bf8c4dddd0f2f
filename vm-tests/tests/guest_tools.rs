//! What administrators run against disks in a guest, smartctl to LVM, RAID and file systems, finds nothing to complain of; and a disk that
//! grew on the host is larger in the guest, on every path to it.
//!
//! One boot for everything. Two initiators: all but one of the disks are the first one's alone.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, reason = "test code")]

use std::fs::{self, OpenOptions};
use std::path::PathBuf;
use std::time::Duration;
use vm_tests::guest::Guest;
use vm_tests::qemu::Machine;
use vm_tests::said::{never_says, says};
use vm_tests::vstgt::{Config, Vstgt};
use vm_tests::workdir::WorkDir;
use vm_tests::{Result, effort, host, provision};

const MIB: u64 = 1 << 20;

/// XFS makes nothing smaller than 300 MiB.
const XFS: u64 = 304 * MIB;
/// A disk of 4096-byte blocks, with everything configured.
const BTRFS: u64 = 128 * MIB;
/// Disks of which larger ones are made.
const PART: u64 = 40 * MIB;
/// The disk that grows, before and after.
const SMALL: u64 = 16 * MIB;
const LARGE: u64 = 48 * MIB;

/// How long what works on a whole disk may take, where guests are fast.
const WORK: Duration = Duration::from_secs(120);

/// What the kernel does not have built in.
const MODULES: &[&str] = &["raid1", "xfs", "btrfs"];

#[test]
fn tools_find_nothing_to_complain_of() -> Result<()> {
    provision::check()?;
    let mut lab = Lab::new()?;
    smartctl(&mut lab)?;
    hdparm_and_sdparm(&mut lab)?;
    lsblk(&mut lab)?;
    udev(&mut lab)?;
    for _ in 0..effort() {
        lvm_and_ext4(&mut lab)?;
        raid(&mut lab)?;
        xfs(&mut lab)?;
        btrfs(&mut lab)?;
    }
    growth(&mut lab)?;
    lab.finish()
}

/// The disks that do not grow: what scripts call them, and their serial numbers.
const DISKS: &[(&str, &str)] = &[("XFS", "XFS01"), ("ACME", "ACME-0002"), ("PART1", "PART01"), ("PART2", "PART02")];

/// Prints what the kernel has to say of disks that are not as they should be.
const COMPLAINTS: &str = "dmesg | grep -E 'sd |scsi|sd[a-z]|md|dm-|XFS|EXT4|BTRFS|[Bb]uffer|I/O' | \
                          grep -iE 'error|fail|abort|timed out|hung|corrupt|sense key|warn|invalid|unable'";

/// What the test runs in; dropped from the top down.
struct Lab {
    guest: Guest,
    vstgt: Vstgt,
    dir: WorkDir,
    /// Begins each script: the disks by their names.
    names: String,
    /// The growing disk as each initiator has it.
    paths: [String; 2],
}

impl Lab {
    fn new() -> Result<Lab> {
        let dir = WorkDir::new("tools")?;
        let (red, blue) = (dir.path("red.sock"), dir.path("blue.sock"));
        let vstgt = Config::new()
            .socket_with(&red, ",initiator=red")
            .socket_with(&blue, ",initiator=blue")
            .lun(&dir.sparse("xfs.img", XFS)?, ",lun=0,serial=XFS01,initiator=red")
            .lun(
                &dir.sparse("btrfs.img", BTRFS)?,
                ",lun=1,initiator=red,serial=ACME-0002,vendor=ACME,product=Disk One,revision=2.1,naa=0x5000c500deadbeef,\
                 block-size=4096,physical-block-size=16384,rotation-rate=7200,write-cache=off,sense-format=descriptor",
            )
            .lun(&dir.sparse("part1.img", PART)?, ",lun=2,serial=PART01,initiator=red")
            .lun(&dir.sparse("part2.img", PART)?, ",lun=3,serial=PART02,initiator=red")
            .lun(&dir.sparse("grows.img", SMALL)?, ",lun=4,serial=GROWS01")
            .arg("-v")
            .start(&dir.path("vstgt.log"))?;
        let machine = Machine::new("guest")?.vhost_user_scsi(&red, 2).vhost_user_scsi(&blue, 1);
        let mut guest = Guest::start_boot_debian_with(machine, MODULES, dir.root())?.ready()?;
        let mut names = String::new();
        for (name, serial) in DISKS {
            names += &format!("{name}={}; ", guest.disk(serial)?);
        }
        let paths = guest.disks("GROWS01", 2)?.try_into().unwrap();
        guest.sh(
            "mkdir /run/fs && udevadm control --version > /dev/null 2>&1; /lib/systemd/systemd-udevd --daemon 2> /dev/null \
             && udevadm trigger --action=add --subsystem-match=block && udevadm settle",
        )?;
        Ok(Lab { guest, vstgt, dir, names, paths })
    }

    fn sh(&mut self, script: &str) -> Result<String> {
        let outcome = self.guest.run(&format!("exec 2>&1; set -e -o pipefail; {}\n{script}", self.names), WORK)?;
        if outcome.status == 0 {
            return Ok(outcome.text());
        }
        let log = self.guest.sh("dmesg | tail -20")?;
        Err(vm_tests::Error::new(format!("`{script}` ended with {}\n{}\n{log}", outcome.status, outcome.text())))
    }

    fn image(&self, name: &str) -> PathBuf {
        self.dir.path(name)
    }

    fn finish(mut self) -> Result<()> {
        // The disk that mdadm was told to take for failed is the only one the kernel may speak of.
        assert_eq!(self.sh(&format!("{COMPLAINTS} | grep -v 'Disk failure on' || true"))?, "");
        self.guest.poweroff()?;
        let log = self.vstgt.terminate()?;
        never_says(&log, &["ERROR", "panicked"])?;
        host::check_ext4(&self.dir.path("grows.img"))?;
        self.dir.finish();
        Ok(())
    }
}

/// smartctl: identity as configured, health OK, and a short self-test that ends well.
fn smartctl(lab: &mut Lab) -> Result<()> {
    let all = lab.sh("smartctl -a $ACME")?;
    says(&all, &["Vendor: ACME Product: Disk One Revision: 2.1 Compliance: SPC-4"])?;
    says(&all, &["Logical block size: 4096 bytes", "Physical block size: 16384 bytes", "Rotation Rate: 7200 rpm"])?;
    says(&all, &["Logical Unit id: 0x5000c500deadbeef", "Serial number: ACME-0002", "Device type: disk"])?;
    says(&all, &["Transport protocol: RDMA (SRP)", "SMART Health Status: OK", "Elements in grown defect list: 0"])?;
    // Status 4: a log page that is not there (background scans).
    let extended = |lab: &mut Lab, disk: &str| lab.sh(&format!("smartctl -x ${disk} || [ $? = 4 ]"));
    says(&extended(lab, "ACME")?, &["Writeback Cache is: Disabled"])?;
    let all = extended(lab, "XFS")?;
    says(&all, &["Rotation Rate: Solid State Device", "LU is thin provisioned, LBPRZ=1", "Serial number: XFS01"])?;
    says(&all, &["Writeback Cache is: Enabled", "SMART Health Status: OK"])?;
    // The last two columns of the counters: gigabytes and uncorrected errors.
    for row in ["read:", "write:"] {
        let counters = all.lines().find(|line| line.trim_start().starts_with(row)).unwrap();
        assert_eq!(counters.split_whitespace().last(), Some("0"), "{all}");
    }
    let tested = lab.sh("smartctl -t short $XFS; for i in $(seq 50); do smartctl -l selftest $XFS > log; \
         grep -q Completed log && break; sleep 0.2; done; cat log")?;
    says(&tested, &["Short Background Self Test has begun", "# 1 Background short Completed"])
}

/// hdparm, which knows ATA disks, asks for IDENTIFY DEVICE, is refused, and says so; sdparm reads every mode page.
fn hdparm_and_sdparm(lab: &mut Lab) -> Result<()> {
    let outcome = lab.sh("hdparm -i $XFS || hdparm -I $XFS || true")?;
    says(&outcome, &["HDIO_GET_IDENTITY failed: Invalid argument"])?;
    // No data and no sense but INVALID COMMAND OPERATION CODE: nothing of an ATA disk is made up.
    never_says(&outcome, &["Model Number", "Serial Number", "bad/missing sense"])?;
    let geometry = lab.sh("hdparm -g $XFS; hdparm -t --direct $XFS; hdparm -r $XFS")?;
    says(
        &geometry,
        &[&format!("sectors = {}, start = 0", XFS / 512), "Timing O_DIRECT disk reads", "readonly = 0 (off)"],
    )?;

    // Status 5: of the pages it asks for, some are not there.
    for (disk, write_cache, sense) in [("XFS", 1, 0), ("ACME", 0, 1)] {
        let pages = lab.sh(&format!("sdparm --all ${disk} || [ $? = 5 ]"))?;
        says(&pages, &[&format!("WCE {write_cache} [cha: y, def: {write_cache}")])?;
        says(
            &pages,
            &[
                &format!("D_SENSE {sense} [cha: y, def: {sense}"),
                "Control extension mode page",
                "Power condition mode page",
            ],
        )?;
        // Changed, seen by the kernel, and changed back.
        let set =
            |value: i32| format!("sdparm --quiet --set=WCE={value} ${disk}; sdparm --get=WCE ${disk} || [ $? = 5 ]");
        let changed = lab.sh(&format!("{}; {}", set(1 - write_cache), set(write_cache)))?;
        let told = |value: i32| format!("WCE {value} [cha: y, def: {write_cache}]");
        says(&changed, &[&told(1 - write_cache), &told(write_cache)])?;
    }
    let commands = lab.sh(
        "sdparm --command=ready $XFS; sdparm --command=capacity $XFS; sdparm --command=sync $XFS; sdparm -i -a $XFS",
    )?;
    says(&commands, &["Ready", &format!("blocks: {}", XFS / 512), "block_length: 512", "Block limits (SBC) [bl]"])
}

/// lsblk: topology, what can be discarded, and the addresses.
fn lsblk(lab: &mut Lab) -> Result<()> {
    let columns = "ALIGNMENT,MIN-IO,PHY-SEC,LOG-SEC,ROTA,DISC-ALN,DISC-GRAN,DISC-MAX,RO,VENDOR,MODEL,REV,SERIAL,WWN,HCTL,SIZE,TYPE";
    let facts = |lab: &mut Lab, disk: &str| {
        lab.sh(&format!("lsblk --nodeps --noheadings --bytes --pairs -o {columns} ${disk}"))
    };
    let acme = facts(lab, "ACME")?;
    says(
        &acme,
        &[
            "ALIGNMENT=\"0\" MIN-IO=\"16384\" PHY-SEC=\"16384\" LOG-SEC=\"4096\" ROTA=\"1\" DISC-ALN=\"0\" DISC-GRAN=\"16384\"",
        ],
    )?;
    says(
        &acme,
        &[
            "RO=\"0\"",
            "VENDOR=\"ACME \" MODEL=\"Disk One\" REV=\"2.1 \"",
            "WWN=\"0x5000c500deadbeef\"",
            "TYPE=\"disk\"",
        ],
    )?;
    says(&acme, &["HCTL=\"0:0:0:1\"", &format!("SIZE=\"{BTRFS}\"")])?;
    let xfs = facts(lab, "XFS")?;
    says(
        &xfs,
        &[
            "MIN-IO=\"512\" PHY-SEC=\"512\" LOG-SEC=\"512\" ROTA=\"0\" DISC-ALN=\"0\" DISC-GRAN=\"4096\"",
            "SERIAL=\"XFS01\"",
        ],
    )?;
    says(&xfs, &["MODEL=\"VDASD blkdev\"", &format!("SIZE=\"{XFS}\"")])?;
    never_says(&xfs, &["DISC-MAX=\"0\""])?;
    // These three are what a person types.
    lab.sh("lsblk -t && lsblk -D && lsblk -O").map(drop)
}

/// udev's names, and the program that names disks for multipath.
fn udev(lab: &mut Lab) -> Result<()> {
    let links = lab.sh("cd /dev/disk/by-id && for link in *; do echo \"$link $(readlink -f $link)\"; done")?;
    let disk = lab.sh("echo $ACME")?;
    for name in [
        "wwn-0x5000c500deadbeef",
        "scsi-35000c500deadbeef",
        "scsi-1ACME_Disk_One_ACME-0002",
        "scsi-SACME_Disk_One_ACME-0002",
    ] {
        says(&links, &[&format!("{name} {disk}")])?;
    }
    let disk = lab.sh("echo $XFS")?;
    for name in ["scsi-1IBM_VDASD_blkdev_XFS01", "scsi-SIBM_VDASD_blkdev_XFS01"] {
        says(&links, &[&format!("{name} {disk}")])?;
    }
    // Every disk has its own name of each kind; the one with two paths has it once.
    for kind in ["wwn-0x", "scsi-3", "scsi-1", "scsi-S"] {
        let names = links.lines().filter(|line| line.starts_with(kind)).count();
        assert_eq!(names, DISKS.len() + 1, "{links}");
    }
    let properties = lab.sh("udevadm info -q property $ACME")?;
    says(
        &properties,
        &["SCSI_IDENT_SERIAL=ACME-0002", "SCSI_IDENT_LUN_NAA_REG=5000c500deadbeef", "ID_MODEL=Disk_One", "ID_BUS=scsi"],
    )?;
    says(&properties, &["SCSI_IDENT_PORT_RELATIVE=1", "SCSI_TPGS=3", "ID_SERIAL=35000c500deadbeef"])?;

    let id = lab.sh(
        "/lib/udev/scsi_id -g -u -d $ACME; /lib/udev/scsi_id -g -p 0x80 -d $ACME; /lib/udev/scsi_id -g -x -d $ACME",
    )?;
    says(
        &id,
        &[
            "35000c500deadbeef",
            "SACME Disk One ACME-0002",
            "ID_SCSI_SERIAL=ACME-0002",
            "ID_TARGET_PORT=1",
            "ID_REVISION=2.1",
        ],
    )?;
    let [one, two] = lab.paths.clone();
    let ids = lab.sh(&format!("for d in {one} {two}; do /lib/udev/scsi_id -g -u -d $d; done | sort | uniq -c"))?;
    assert!(ids.trim().starts_with("2 3"), "two paths to one disk: {ids}");
    Ok(())
}

/// A volume over two disks, extended with the file system on it; moved off one of them.
fn lvm_and_ext4(lab: &mut Lab) -> Result<()> {
    let made = lab.sh(
        "pvcreate $PART1 $PART2; vgcreate vg $PART1; lvcreate --yes --size 16M --name lv vg
         mkfs.ext4 -q /dev/vg/lv; mount /dev/vg/lv /run/fs; cp -r /usr/lib/udev /run/fs/kept; (cd /run/fs; find kept -type f | xargs sha256sum > /tmp/sums)
         vgextend vg $PART2; lvextend --resizefs --size 40M vg/lv; cp -r /usr/lib/udev /run/fs/more",
    )?;
    never_says(&made, &["warning", "error", "fail"])?;
    says(&made, &["resized"])?;
    let checked = lab.sh(
        "cd /run/fs; sha256sum --quiet -c /tmp/sums; cd /tmp; fstrim -v /run/fs; umount /run/fs; e2fsck -f -n /dev/vg/lv; vgck vg; pvs -o pv_name,pv_size
         lvremove --yes vg/lv; vgremove vg; pvremove $PART1 $PART2",
    )?;
    never_says(&checked, &["warning", "fail", "fix?", "WARNING"])?;
    says(&checked, &["bytes) trimmed", "removed", "wiped"])
}

/// A mirror of two disks: made, checked, one disk lost and taken in again, and both hold the same.
fn raid(lab: &mut Lab) -> Result<()> {
    let made =
        lab.sh("mdadm --create /dev/md0 --run --level=1 --raid-devices=2 --metadata=1.0 --bitmap=none $PART1 $PART2
         head -c 8M /dev/urandom > random; dd if=random of=/dev/md0 bs=1M oflag=direct
         mdadm --wait /dev/md0 || true; echo check > /sys/block/md0/md/sync_action; mdadm --wait /dev/md0 || true
         echo mismatches=$(cat /sys/block/md0/md/mismatch_cnt)")?;
    says(&made, &["mismatches=0", "started"])?;
    let rebuilt = lab.sh(
        "second=$PART2; mdadm /dev/md0 --fail $second --remove $second; dd if=random of=/dev/md0 bs=1M seek=8 oflag=direct
         mdadm --zero-superblock $second; blkdiscard -f $second; mdadm /dev/md0 --add $second; mdadm --wait /dev/md0 || true
         cat /proc/mdstat; cat random random | cmp -n 16777216 - /dev/md0; echo check > /sys/block/md0/md/sync_action; mdadm --wait /dev/md0 || true
         echo mismatches=$(cat /sys/block/md0/md/mismatch_cnt); mdadm --detail /dev/md0; mdadm --stop /dev/md0
         cmp -n 16777216 $PART1 $PART2; mdadm --zero-superblock $PART1 $PART2",
    )?;
    says(&rebuilt, &["[2/2] [UU]", "mismatches=0", "Failed Devices : 0", "stopped"])?;
    // The host sees what the mirror wrote last: metadata 1.0 is at the end.
    let (one, two) = (fs::read(lab.image("part1.img")).unwrap(), fs::read(lab.image("part2.img")).unwrap());
    let (written, length) = (16 * MIB as usize, 8 * MIB as usize);
    assert!(one[..written] == two[..written], "the mirror's halves differ");
    assert!(one[..length] == one[length..written] && one[..length].iter().any(|byte| *byte != 0));
    Ok(())
}

/// XFS: files with verified contents, space given back while mounted, and a clean repair.
fn xfs(lab: &mut Lab) -> Result<()> {
    // Synchronized, so that what is allocated from here on is what is written, and removed, below.
    lab.sh("mkfs.xfs -q -f $XFS; mount -o discard $XFS /run/fs; cp -r /usr/lib/udev /run/fs/kept; sync -f /run/fs")?;
    let wrote = lab.sh(
        "fio --name=f --directory=/run/fs --thread --numjobs=2 --ioengine=libaio --iodepth=16 --direct=1 --rw=randwrite --fsync=64 \
         --bssplit=4k/70:16k/30 --size=4M --verify=crc32c --verify_fatal=1 --group_reporting",
    )?;
    says(&wrote, &["err= 0"])?;
    let full = host::allocated(&lab.image("xfs.img"))?;
    let cleaned = lab.sh("rm /run/fs/f.*; umount /run/fs; mount $XFS /run/fs; fstrim -v /run/fs; diff -r /usr/lib/udev /run/fs/kept; umount /run/fs; xfs_repair -n $XFS")?;
    never_says(&cleaned, &["would", "bad ", "corrupt"])?;
    says(&cleaned, &["Phase 7", "No modify flag set"])?;
    let left = host::allocated(&lab.image("xfs.img"))?;
    assert!(left + 4 * MIB < full, "of {full} bytes {left} are left");
    Ok(())
}

/// btrfs, on 4096-byte blocks: files, a scrub, a check.
fn btrfs(lab: &mut Lab) -> Result<()> {
    let said = lab.sh(
        "mkfs.btrfs -q -f $ACME; mount $ACME /run/fs; cp -r /usr/lib/udev /run/fs/kept; head -c 8M /dev/urandom > /run/fs/random
         sync -f /run/fs; echo 3 > /proc/sys/vm/drop_caches; btrfs scrub start -B /run/fs; btrfs device stats --check /run/fs
         rm /run/fs/random; fstrim /run/fs; diff -r /usr/lib/udev /run/fs/kept; umount /run/fs; btrfs check $ACME",
    )?;
    says(
        &said,
        &[
            "no errors found",
            "write_io_errs 0",
            "read_io_errs 0",
            "flush_io_errs 0",
            "corruption_errs 0",
            "no error found",
        ],
    )
}

/// The image grows under a mounted file system: the path that is rescanned sees it, the other one is told of it (CAPACITY DATA HAS
/// CHANGED), and the file system takes the new room.
fn growth(lab: &mut Lab) -> Result<()> {
    let [one, two] = lab.paths.clone();
    let size = |lab: &mut Lab, disk: &str| lab.sh(&format!("blockdev --getsize64 {disk}"));
    let rescan = |lab: &mut Lab, disk: &str| lab.sh(&format!("echo 1 > /sys/block/{}/device/rescan", &disk[5..]));
    lab.sh(&format!("mkfs.ext4 -q {one}; mount {one} /run/fs; cp -r /usr/lib/udev /run/fs/kept; sync; sg_turs {two}"))?;

    OpenOptions::new().write(true).open(lab.dir.path("grows.img")).unwrap().set_len(LARGE).unwrap();
    assert_eq!([size(lab, &one)?, size(lab, &two)?], [SMALL.to_string(), SMALL.to_string()]);
    rescan(lab, &one)?;
    assert_eq!(size(lab, &one)?, LARGE.to_string());
    // The other path's next command is told, whoever sends it: the kernel does, to all ports of a unit that it rescans. It says of which
    // device; the one that asked for the capacity is not told.
    lab.sh(&format!("sg_turs {two} || [ $? = 6 ]"))?;
    let device = lab.sh(&format!("basename $(readlink -f /sys/block/{}/device)", &two[5..]))?;
    let told = lab.sh("dmesg | grep 'Capacity data has changed'")?;
    assert_eq!(told.lines().count(), 1, "{told}");
    says(&told, &[&format!("sd {device}: Capacity data has changed")])?;
    rescan(lab, &two)?;
    assert_eq!(size(lab, &two)?, LARGE.to_string());

    let grown = lab.sh(&format!("resize2fs {one}; df --output=size -B1 /run/fs | tail -1; diff -r /usr/lib/udev /run/fs/kept; head -c 20M /dev/urandom > /run/fs/more; sha256sum < /run/fs/more"))?;
    let room: u64 = grown.lines().find_map(|line| line.trim().parse().ok()).unwrap();
    assert!(room > SMALL * 2, "{grown}");
    let checked = lab.sh(&format!("umount /run/fs; e2fsck -f -n {one}; blockdev --flushbufs {two}"))?;
    never_says(&checked, &["fix?", "error"])?;
    let digest = host::sha256_in_ext4(&lab.dir.path("grows.img"), "/more")?;
    says(&grown, &[&digest])
}
