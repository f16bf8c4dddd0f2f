//! The harness held against QEMU's own SCSI target: if these fail, the fault is not vstgt's.

use std::time::Duration;
use vm_tests::guest::Guest;
use vm_tests::kernel::Line;
use vm_tests::qemu::Machine;
use vm_tests::workdir::WorkDir;
use vm_tests::{Result, provision};

#[test]
fn a_guest_runs_scripts_and_powers_off() -> Result<()> {
    provision::check()?;
    let dir = WorkDir::new("harness")?;
    let image = dir.sparse("disk.img", 64 << 20)?;
    let mut guest = Guest::boot(
        Machine::new("guest")?.scsi_hd(&image, 2, ""),
        Line::V6_12,
        dir.root(),
    )?;
    eprintln!("{}", guest.sh("uname -r; nproc; lsblk; lsscsi; cat /proc/uptime; time fio --version; cat /proc/uptime; dmesg")?);
    let outcome = guest.run(
        "echo one; echo two >&2; printf unfinished; exit 7",
        Duration::from_secs(10),
    )?;
    assert_eq!(
        (outcome.status, outcome.lines.as_slice()),
        (7, ["one", "two", "unfinished"].map(String::from).as_slice())
    );
    guest.poweroff()
}
