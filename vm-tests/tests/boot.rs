//! A whole Debian system boots from a disk that vstgt serves, through either firmware, and leaves the disk as it should.

use std::time::Duration;
use vm_tests::cache::Cache;
use vm_tests::process::tail;
use vm_tests::qemu::{Firmware, Machine, Vm};
use vm_tests::rootdisk::debian::{self, Shell};
use vm_tests::rootdisk::{self, RootDisk};
use vm_tests::vstgt::Config;
use vm_tests::workdir::WorkDir;
use vm_tests::{Context, Result, provision};

/// How long the guest may take to power off, on KVM.
const POWEROFF: Duration = Duration::from_secs(15);

/// How far the guest counts in the file it writes: about 3 MB that can be told from zeros.
const NUMBERS: u32 = 450_000;

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
    let mut vstgt = Config::new().socket(&socket).arg("--blk-file").arg(&disk).start(&dir.path("vstgt.log"))?;
    // What the firmware says goes to a port of its own.
    let firmware_log = dir.path("firmware.log");
    let machine = Machine::new("debian")?
        .firmware(firmware)
        .vhost_user_scsi(&socket, 1)
        .arg("-chardev")
        .arg(format!("file,id=firmware,path={}", firmware_log.display()))
        .arg("-device")
        .arg("isa-debugcon,iobase=0x402,chardev=firmware");
    let slowness = machine.accel().slowness();
    let mut vm = machine.start(dir.root())?;
    let sum = visit(&mut vm, firmware, slowness).context(|| {
        let firmware = tail(&firmware_log);
        vstgt.process().explain(&vm.explain(&format!("what the firmware said\n{firmware}")))
    })?;
    vstgt.terminate()?;

    rootdisk::check(&disk)?;
    let numbers: String = (1..=NUMBERS).map(|number| format!("{number}\n")).collect();
    assert!(rootdisk::read(&disk, "/root/numbers")? == numbers, "the file on the disk is not what the guest wrote");
    assert_eq!(rootdisk::read(&disk, "/root/sum")?, sum);
    Ok(())
}

/// Logs in, looks around, leaves a file and its checksum (which is returned) behind and powers the guest off.
fn visit(vm: &mut Vm, firmware: Firmware, slowness: u32) -> Result<String> {
    let console = vm.console()?;
    debian::wait_for_login(console, slowness)?;
    let mut shell = Shell::log_in(console, slowness)?;
    let kind = shell.run("[ -d /sys/firmware/efi ] && echo UEFI || echo BIOS")?;
    let expected = match firmware {
        Firmware::SeaBios => "BIOS",
        Firmware::Ovmf => "UEFI",
    };
    assert_eq!(kind.trim(), expected);
    let disks = shell.run("lsscsi")?;
    let words: Vec<&str> = disks.split_whitespace().collect();
    assert!(matches!(words[..], ["[0:0:0:0]", "disk", "IBM", "VDASD", "blkdev", .., "/dev/sda"]), "{disks}");
    assert_eq!(shell.run("findmnt -n -o SOURCE /")?.trim(), "/dev/sda3");
    assert_eq!(shell.run("systemctl is-system-running --wait")?.trim(), "running");
    // Errors of the kernel would be here; SCSI's, for instance, and the file system's.
    assert_eq!(shell.run("dmesg --level=emerg,alert,crit,err --notime")?, "");
    let sum = shell.run(&format!(
        "seq 1 {NUMBERS} > /root/numbers && md5sum < /root/numbers > /root/sum && sync && cat /root/sum"
    ))?;
    shell.power_off()?;
    let status = vm.wait(POWEROFF * slowness)?;
    assert!(status.success(), "QEMU ended with {status}");
    Ok(sum)
}
