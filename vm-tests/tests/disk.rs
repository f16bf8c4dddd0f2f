//! One guest, five disks: what Linux sees of them, what it writes to them, and what the host finds afterwards.
//!
//! A boot is the dear part, so each kernel boots once and everything is asked in that boot; one of them boots again to see what a
//! reset leaves. One kernel's vstgt waits with epoll, the other's with what the system has, which is io_uring where it is allowed; it
//! holds that guest's memory.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, reason = "test code")]

use std::fs;
use std::path::PathBuf;
use std::thread;
use std::time::Duration;
use vm_tests::guest::Guest;
use vm_tests::kernel::Line;
use vm_tests::process::wait_until;
use vm_tests::qemu::Machine;
use vm_tests::vstgt::{Config, Vstgt};
use vm_tests::workdir::WorkDir;
use vm_tests::{Result, effort, host, provision};

const MIB: u64 = 1 << 20;

/// The disk most is done with: 512-byte blocks.
const MAIN: u64 = 128 * MIB;
/// A disk with 4096-byte blocks.
const LARGE_BLOCKS: u64 = 32 * MIB;
/// A read-only disk.
const FIXED: u64 = MIB;
/// A disk of another target, which has no LUN 0.
const FAR: u64 = 3 * MIB;
/// A disk whose number needs flat space addressing (SAM-5 4.7.7.3).
const FLAT: u64 = 5 * MIB;
/// How many disks that is.
const DISKS: usize = 5;

/// How long fio may take, where guests are fast.
const FIO: Duration = Duration::from_secs(60);

#[test]
fn linux_6_1_has_real_disks() -> Result<()> {
    real_disks(Line::V6_1, &["--wait", "epoll"])
}

/// The kernel holds this guest's memory for vstgt's rings; its memory table changes while firmware and kernel find out what there is.
#[test]
fn linux_6_12_has_real_disks() -> Result<()> {
    real_disks(Line::V6_12, &["--register-memory", "64G"])
}

fn real_disks(line: Line, how: &[&str]) -> Result<()> {
    provision::check()?;
    let mut setup = Setup::new(line, how)?;
    if how.contains(&"--register-memory") {
        holds_memory(&setup.vstgt)?;
    }
    identity(&mut setup.guest)?;
    addresses(&mut setup.guest)?;
    read_only(&mut setup)?;
    large_blocks(&mut setup.guest)?;
    raw_io_and_pauses(&mut setup.guest)?;
    let digests = file_system(&mut setup)?;
    if line == Line::V6_12 {
        reset(&mut setup.guest, &digests)?;
    }
    setup.guest.poweroff()?;
    let log = setup.vstgt.terminate()?;
    // Firmware, kernel, pauses and a reset were one nexus.
    assert_eq!(log.matches("I_T nexus created").count(), 1, "{log}");
    assert_eq!(log.matches("I_T nexus destroyed").count(), 1, "{log}");

    assert_eq!(host::sha256(&setup.main)?, digests.device, "the image is not what the guest read");
    assert_eq!(host::sha256_in_ext4(&setup.main, "/kept")?, digests.file, "a file in the image is not the guest's");
    host::check_ext4(&setup.main)?;
    setup.dir.finish();
    Ok(())
}

/// Nearly all of the guest's memory is held, by the kernel's count (each reactor that has queues of it counts); or as much as this user may lock.
fn holds_memory(vstgt: &Vstgt) -> Result<()> {
    let enough = u64::from(Machine::MEMORY_MIB) << 10;
    let held = wait_until(FIO, || {
        let limited =
            ["without io_uring", "the limit of locked memory"].iter().any(|words| vstgt.log().contains(words));
        Ok(Some(vstgt.pinned_kib()?).filter(|kib| limited || *kib > enough * 9 / 10))
    })?;
    assert!(held.is_some(), "{} KiB of the guest's {enough} KiB are held", vstgt.pinned_kib()?);
    Ok(())
}

/// What a test runs in; dropped from the top down.
struct Setup {
    guest: Guest,
    vstgt: Vstgt,
    main: PathBuf,
    fixed: PathBuf,
    dir: WorkDir,
}

impl Setup {
    fn new(line: Line, how: &[&str]) -> Result<Setup> {
        let dir = WorkDir::new("disk")?;
        let main = dir.sparse("main.img", MAIN)?;
        let large = dir.sparse("large.img", LARGE_BLOCKS)?;
        let fixed = dir.path("fixed.img");
        fs::write(&fixed, pattern(FIXED)).unwrap();
        let socket = dir.path("vm.sock");
        let config = how.iter().fold(Config::new(), |config, word| config.arg(*word));
        let vstgt = config
            .socket(&socket)
            .lun(&main, ",serial=MAIN01")
            .lun(&large, ",lun=1,serial=LARGE01,block-size=4096")
            .lun(&fixed, ",lun=2,serial=FIXED01,read-only=on")
            .lun(&dir.sparse("far.img", FAR)?, ",target=1,lun=3,serial=FAR01")
            .lun(&dir.sparse("flat.img", FLAT)?, ",lun=300,serial=FLAT01")
            .arg("-v")
            .start(&dir.path("vstgt.log"))?;
        let machine = Machine::new("guest")?.reboots().vhost_user_scsi(&socket, 2);
        let guest = Guest::boot(machine, line, dir.root())?;
        Ok(Setup { guest, vstgt, main, fixed, dir })
    }
}

/// Bytes in which every position can be told from its neighbours.
fn pattern(size: u64) -> Vec<u8> {
    (0..size).map(|at| ((at * 7) ^ (at >> 8) ^ (at >> 16)) as u8).collect()
}

/// Asserts that a tool's output has every one of these, white space counted as one space.
#[track_caller]
fn assert_says(output: &str, expected: &[&str]) {
    let plain = |text: &str| text.split_whitespace().collect::<Vec<_>>().join(" ").to_lowercase();
    let said = plain(output);
    for phrase in expected {
        assert!(said.contains(&plain(phrase)), "no \"{phrase}\" in:\n{output}");
    }
}

/// The number that follows `label` in a tool's output; sg_vpd prints "no limit" as -1.
#[track_caller]
fn number(output: &str, label: &str) -> i128 {
    let rest = output.split(label).nth(1).unwrap_or_else(|| panic!("no \"{label}\" in:\n{output}"));
    let word = rest.split_whitespace().next().unwrap_or_default();
    let parsed = match word.strip_prefix("0x") {
        Some(digits) => i128::from_str_radix(digits, 16),
        None => word.parse(),
    };
    parsed.unwrap_or_else(|error| panic!("{label}{word}: {error}"))
}

fn identity(guest: &mut Guest) -> Result<()> {
    let disk = guest.disk("MAIN01")?;
    let row = guest.sh(&format!("lsscsi | grep {disk}"))?;
    assert_says(&row, &["[0:0:0:0] disk IBM VDASD blkdev"]);

    let inquiry = guest.sh(&format!("sg_inq {disk}"))?;
    assert_says(
        &inquiry,
        &["PDT=0", "RMB=0", "CmdQue=1", "Resp_data_format=2", "TPGS=3", "MultiP=0", "Vendor identification: IBM"],
    );
    assert_says(&inquiry, &["Product identification: VDASD blkdev", "Unit serial number: MAIN01"]);

    let pages = guest.sh(&format!("sg_vpd -p 0 {disk}"))?;
    assert_says(&pages, &["[sv]", "[sn]", "[di]", "[sp]", "[bl]", "[bdc]", "[lbpv]"]);
    assert_says(&guest.sh(&format!("sg_vpd -p 0x80 {disk}"))?, &["Unit serial number: MAIN01"]);

    let designators = guest.sh(&format!("sg_vpd -p 0x83 {disk}"))?;
    assert_says(&designators, &["Addressed logical unit", "designator type: NAA", "designator type: T10 vendor"]);
    assert_says(&designators, &["vendor id: IBM"]);
    assert_says(&designators, &["Target port:", "SCSI RDMA Protocol (SRP)", "eui.", "Relative target port: 0x1"]);
    assert_says(&designators, &["Target port group: 0x1"]);
    let ports = guest.sh(&format!("sg_vpd -p 0x88 {disk}"))?;
    assert_says(&ports, &["Relative port=1", "Target port descriptor(s):", "SCSI name string: eui."]);

    let limits = guest.sh(&format!("sg_vpd -p 0xb0 {disk}"))?;
    assert!(number(&limits, "Maximum unmap LBA count:") != 0, "{limits}");
    assert!(number(&limits, "Maximum unmap block descriptor count:") != 0, "{limits}");
    let characteristics = guest.sh(&format!("sg_vpd -p 0xb1 {disk}"))?;
    assert_says(&characteristics, &["Non-rotating medium"]);
    let provisioning = guest.sh(&format!("sg_vpd -p 0xb2 {disk}"))?;
    assert_says(&provisioning, &["Unmap command supported (LBPU): 1", "Provisioning type: 2"]);

    let capacity = guest.sh(&format!("sg_readcap -l {disk}"))?;
    let size = format!("Device size: {MAIN} bytes");
    assert_says(&capacity, &["Logical block length=512 bytes", "lbpme=1", "prot_en=0", &size]);
    assert_eq!(number(&capacity, "Number of logical blocks="), (MAIN / 512).into());

    let luns = guest.sh(&format!("sg_luns {disk}"))?;
    assert_says(&luns, &["4 lun entries", "0000000000000000", "0001000000000000", "0002000000000000"]);
    assert_says(&luns, &["412c000000000000"]);
    commands(&guest.sh(&format!("sg_opcodes {disk}"))?);
    let modes = guest.sh(&format!("sg_modes -a {disk}"))?;
    assert_says(&modes, &["Caching", "Control", "WP=0", "DpoFua=1"]);

    // What the kernel made of all this.
    let name = disk.trim_start_matches("/dev/");
    let queue = format!("/sys/block/{name}/queue");
    let facts = guest.sh(&format!(
        "cd {queue}; cat logical_block_size rotational write_cache fua; cat ../size ../ro; ls ../mq | wc -l; cat discard_max_bytes"
    ))?;
    let facts: Vec<&str> = facts.lines().collect();
    let sectors = (MAIN / 512).to_string();
    assert_eq!(facts[..7], ["512", "0", "write back", "1", &sectors, "0", "2"]);
    assert_ne!(facts[7], "0", "the kernel discards nothing");
    Ok(())
}

/// What REPORT SUPPORTED OPERATION CODES must list, as sg_opcodes names it.
fn commands(opcodes: &str) {
    for name in [
        "Test Unit Ready",
        "Report target port groups",
        "Set target port groups",
        "Request Sense",
        "Read(6)",
        "Write(6)",
        "Inquiry",
        "Mode sense(6)",
        "Start stop unit",
        "Prevent allow medium removal",
        "Read capacity(10)",
        "Read(10)",
        "Write(10)",
        "Verify(10)",
        "Synchronize cache(10)",
        "Write same(10)",
        "Unmap",
        "Mode sense(10)",
        "Read(16)",
        "Write(16)",
        "Verify(16)",
        "Synchronize cache(16)",
        "Write same(16)",
        "Read capacity(16)",
        "Report luns",
        "Report supported operation codes",
        "Read(12)",
        "Write(12)",
    ] {
        assert_says(opcodes, &[name]);
    }
}

fn read_only(setup: &mut Setup) -> Result<()> {
    let guest = &mut setup.guest;
    let disk = guest.disk("FIXED01")?;
    let expected = host::sha256(&setup.fixed)?;
    assert_says(&guest.sh(&format!("cat /sys/block/{}/ro", &disk[5..]))?, &["1"]);
    assert_says(&guest.sh(&format!("sg_modes {disk}"))?, &["WP=1"]);
    assert_says(&guest.sh(&format!("sha256sum {disk}"))?, &[&expected]);
    // Past the kernel's own check: WRITE(10), WRITE(16), WRITE SAME(10) of the first block.
    let sg = format!("/dev/$(cd /sys/block/{}/device/scsi_generic; echo *)", &disk[5..]);
    for command in [
        format!("head -c 512 /dev/zero > block; sg_raw -s 512 -i block {sg} 2a 00 00 00 00 00 00 00 01 00"),
        format!("sg_raw -s 512 -i block {sg} 8a 00 00 00 00 00 00 00 00 00 00 00 00 01 00 00"),
        format!("sg_write_same --10 --lba=0 --num=1 --in=/dev/zero --xferlen=512 {sg}"),
    ] {
        let outcome = guest.run(&format!("exec 2>&1; {command}"), Duration::from_secs(20))?;
        assert_ne!(outcome.status, 0, "{command}: {}", outcome.text());
        assert_says(&outcome.text(), &["Data protect"]);
    }
    assert_eq!(host::sha256(&setup.fixed)?, expected, "a read-only image was written");
    Ok(())
}

fn large_blocks(guest: &mut Guest) -> Result<()> {
    let disk = guest.disk("LARGE01")?;
    let capacity = guest.sh(&format!("sg_readcap -l {disk}"))?;
    assert_says(&capacity, &["Logical block length=4096 bytes"]);
    assert_eq!(number(&capacity, "Number of logical blocks="), (LARGE_BLOCKS / 4096).into());
    assert_eq!(guest.sh(&format!("cat /sys/block/{}/queue/logical_block_size", &disk[5..]))?, "4096");
    // Less than a block is no request: the kernel refuses it.
    let odd = guest.run(&format!("dd if={disk} of=/dev/null bs=512 count=1 iflag=direct"), FIO)?;
    assert_ne!(odd.status, 0, "{}", odd.text());
    let outcome = guest.run(&fio(&disk, "4k/55:16k/30:64k/13:1M/2", 8 * MIB), FIO * effort())?;
    assert_eq!(outcome.status, 0, "{}", outcome.text());
    Ok(())
}

/// Random direct writes of mixed sizes from both vCPUs, each on its own half, then read back and checked.
fn fio(disk: &str, sizes: &str, each: u64) -> String {
    format!(
        "fio --name=v --filename={disk} --thread --numjobs=2 --cpus_allowed=0,1 --cpus_allowed_policy=split \
         --ioengine=libaio --iodepth=32 --direct=1 --rw=randwrite --bssplit={sizes} --verify=crc32c \
         --verify_fatal=1 --size={each} --offset_increment={each} --loops={loops} --group_reporting 2>&1",
        loops = effort()
    )
}

/// All sizes from one block to 1 MiB, while the machine is paused and continued again and again.
fn raw_io_and_pauses(guest: &mut Guest) -> Result<()> {
    let disk = guest.disk("MAIN01")?;
    let writes = fio(&disk, "512/35:4k/35:16k/20:64k/8:1M/2", 32 * MIB);
    let done = "/sys/block/$(basename $d)/stat";
    // The trap makes the marks stop with fio.
    let script = format!(
        "d={disk}; before=$(cat {done}); {writes} > fio.log & \
         while [ \"$(cat {done})\" = \"$before\" ]; do sleep 0.1; done; echo writing; wait $!; s=$?; cat fio.log; exit $s"
    );
    let mut running = guest.start(&script)?;
    running.wait_for("writing", FIO)?;
    for _ in 0..5 * effort() {
        thread::sleep(Duration::from_millis(300));
        let qmp = running.vm().qmp();
        qmp.stop()?;
        assert_eq!(qmp.status()?, "paused");
        thread::sleep(Duration::from_millis(200));
        qmp.cont()?;
        assert_eq!(qmp.status()?, "running");
    }
    let outcome = running.finish(FIO * effort())?;
    assert_eq!(outcome.status, 0, "{}", outcome.text());
    assert_says(&outcome.text(), &["err= 0"]);
    // Each disk's unit attention at its discovery, and nothing since.
    undisturbed(guest)
}

/// Each disk has told of one reset since this boot, when it was found, and nothing has gone wrong.
fn undisturbed(guest: &mut Guest) -> Result<()> {
    let attentions = guest.sh("dmesg | grep -c 'Power-on or device reset occurred'")?;
    assert_eq!(attentions, DISKS.to_string());
    assert_eq!(guest.sh("dmesg | grep -iE 'i/o error|abort|timed out|hung' || true")?, "");
    Ok(())
}

/// Disks of other targets than 0, and of numbers that one byte cannot hold, are what they are and hold data.
fn addresses(guest: &mut Guest) -> Result<()> {
    // Linux's number of the second is its address as two bytes: 412Ch.
    for (serial, address, size) in [("FAR01", "[0:0:1:3]", FAR), ("FLAT01", "[0:0:0:16684]", FLAT)] {
        let disk = guest.disk(serial)?;
        assert_says(&guest.sh(&format!("lsscsi | grep {disk}"))?, &[address, "IBM VDASD blkdev"]);
        assert_eq!(guest.sh(&format!("blockdev --getsize64 {disk}"))?, size.to_string());
        let outcome = guest.run(&fio(&disk, "4k/55:16k/45", MIB), FIO)?;
        assert_eq!(outcome.status, 0, "{}", outcome.text());
    }
    assert_eq!(guest.sh("ls -d /sys/block/sd* | wc -l")?, DISKS.to_string());
    Ok(())
}

/// The machine is reset, which for the units is a loss of the nexus (RESET_DEVICE), told once; the data is still there.
fn reset(guest: &mut Guest, digests: &Digests) -> Result<()> {
    guest.reboot()?;
    let disk = guest.disk("MAIN01")?;
    let device = guest.sh(&format!("dd if={disk} bs=1M iflag=direct 2> /dev/null | sha256sum"))?;
    assert_says(&device, &[&digests.device]);
    undisturbed(guest)
}

struct Digests {
    device: String,
    file: String,
}

/// A file system: its making, verified files on it, space given back, and a clean check.
fn file_system(setup: &mut Setup) -> Result<Digests> {
    let guest = &mut setup.guest;
    let disk = guest.disk("MAIN01")?;
    let full = host::allocated(&setup.main)?;
    guest.sh(&format!("mkfs.ext4 -q -E nodiscard {disk} && blkdiscard -f {disk} && mkfs.ext4 -q {disk}"))?;
    let empty = host::allocated(&setup.main)?;
    assert!(empty + 48 * MIB < full, "discarding left {empty} of {full} bytes");

    guest.sh(&format!("mkdir -p /run/fs && mount -t ext4 {disk} /run/fs"))?;
    let files = "fio --name=f --directory=/run/fs --thread --numjobs=2 --ioengine=libaio --iodepth=32 --direct=1 \
                 --rw=randwrite --bssplit=4k/60:16k/30:64k/10 --verify=crc32c --verify_fatal=1 --size=8M \
                 --fsync=64 --group_reporting 2>&1";
    let outcome = guest.run(files, FIO)?;
    assert_eq!(outcome.status, 0, "{}", outcome.text());

    guest.sh("dd if=/dev/urandom of=/run/fs/gone bs=1M count=40 2> /dev/null; sync")?;
    let before = host::allocated(&setup.main)?;
    assert_says(&guest.sh("rm /run/fs/gone; sync; fstrim -v /run/fs")?, &["bytes", "trimmed"]);
    let after = host::allocated(&setup.main)?;
    assert!(after + 36 * MIB < before, "fstrim left {after} of {before} bytes");

    let file = guest.sh("dd if=/dev/urandom of=/run/fs/kept bs=1M count=6 2> /dev/null; sha256sum < /run/fs/kept")?;
    guest.sh("umount /run/fs")?;
    assert_eq!(guest.run(&format!("fsck.ext4 -f -n {disk}"), FIO)?.status, 0);
    // Past the guest's own cache.
    let device = guest.sh(&format!("dd if={disk} bs=1M iflag=direct 2> /dev/null | sha256sum"))?;
    let word = |text: String| text.split_whitespace().next().unwrap_or_default().to_owned();
    Ok(Digests { device: word(device), file: word(file) })
}
