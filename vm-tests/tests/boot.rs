//! A whole Debian system boots from a disk that vstgt serves, through either firmware, and leaves the disk as it should.

use std::time::Duration;
use vm_tests::cache::Cache;
use vm_tests::qemu::{Firmware, Machine};
use vm_tests::rootdisk::debian::{self, Shell};
use vm_tests::rootdisk::{self, RootDisk};
use vm_tests::vstgt::Config;
use vm_tests::workdir::WorkDir;
use vm_tests::{Result, provision};

/// How long the guest may take to power off, on KVM.
const POWEROFF: Duration = Duration::from_secs(15);

#[test]
fn debian_boots_through_seabios() -> Result<()> {
    boot(Firmware::SeaBios)
}

#[test]
fn debian_boots_through_ovmf() -> Result<()> {
    boot(Firmware::Ovmf)
}

fn boot(firmware: Firmware) -> Result<()> {
    provision::check()?;
    let dir = WorkDir::new("boot")?;
    let (disk, socket) = (dir.path("disk.img"), dir.path("vm.sock"));
    RootDisk::get(&Cache::open()?)?.copy(&disk)?;
    let vstgt = Config::new().socket(&socket).arg("--blk-file").arg(&disk).start(&dir.path("vstgt.log"))?;
    let machine = Machine::new("debian")?.firmware(firmware).vhost_user_scsi(&socket, 1);
    let slowness = machine.accel().slowness();
    let mut vm = machine.start(dir.root())?;

    let console = vm.console()?;
    debian::wait_for_login(console, slowness)?;
    let mut shell = Shell::log_in(console, slowness)?;
    let firmware_seen = shell.run("[ -d /sys/firmware/efi ] && echo UEFI || echo BIOS")?;
    let expected = match firmware {
        Firmware::SeaBios => "BIOS",
        Firmware::Ovmf => "UEFI",
    };
    assert_eq!(firmware_seen.trim(), expected);
    let disks = shell.run("lsscsi")?;
    assert!(
        disks.lines().any(|disk| {
            let words: Vec<&str> = disk.split_whitespace().collect();
            matches!(words[..], ["[0:0:0:0]", "disk", "IBM", "VDASD", "blkdev", .., "/dev/sda"])
        }),
        "{disks}"
    );
    assert_eq!(shell.run("lsblk -n -o NAME,MOUNTPOINTS -r | grep ' /$'")?.trim(), "sda3 /");
    assert_eq!(shell.run("systemctl is-system-running")?.trim(), "running");
    // 3 MB that can be told from zeros, and their checksum as the guest saw it.
    let sum =
        shell.run("seq 1 450000 > /root/numbers && sync && md5sum < /root/numbers > /root/sum && cat /root/sum")?;
    shell.power_off()?;
    let status = vm.wait(POWEROFF * slowness)?;
    assert!(status.success(), "{}", vm.explain(&format!("QEMU ended with {status}")));
    vstgt.terminate()?;

    rootdisk::check(&disk)?;
    let numbers: String = (1..=450_000).map(|number| format!("{number}\n")).collect();
    assert!(rootdisk::read(&disk, "/root/numbers")? == numbers, "another file on the disk than was written");
    assert_eq!(rootdisk::read(&disk, "/root/sum")?, sum);
    Ok(())
}
