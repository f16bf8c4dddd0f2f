//! The harness held against QEMU's own SCSI target: when these fail, the fault is not vstgt's.

use std::time::Duration;
use vm_tests::guest::Guest;
use vm_tests::kernel::Line;
use vm_tests::qemu::Machine;
use vm_tests::workdir::WorkDir;
use vm_tests::{Result, provision};

const SOON: Duration = Duration::from_secs(10);

#[test]
fn scripts_come_back_whole_and_a_dead_guest_is_told() -> Result<()> {
    provision::check()?;
    let dir = WorkDir::new("harness")?;
    let image = dir.sparse("disk.img", 16 << 20)?;
    let machine = Machine::new("guest")?.scsi_hd(&image, 2, ",serial=S1");
    let mut guest = Guest::boot(machine, Line::V6_1, dir.root())?;

    assert_eq!(guest.disk("S1")?, "/dev/sda");
    assert!(Line::V6_1.has(&guest.sh("uname -r")?));
    assert_eq!(guest.sh("nproc")?, "2");
    let outcome = guest.run("echo one\necho @@ end 1 0 >&2; printf unfinished; exit 7", SOON)?;
    assert_eq!(outcome.status, 7);
    assert_eq!(outcome.lines, ["one", "@@ end 1 0", "unfinished"]);
    let error = guest.sh("echo why; false").map_err(|error| error.to_string());
    assert!(error.is_err_and(|text| text.contains("why") && text.contains("ended with 1")));
    let long = guest.sh("seq 3000")?;
    assert_eq!(long.lines().count(), 3000);

    let mut running = guest.start("echo begun; sleep 3; echo c > /proc/sysrq-trigger; sleep 100")?;
    running.wait_for("begun", SOON)?;
    let late = running.wait_for("never", Duration::from_millis(50)).map_err(|error| error.to_string());
    assert!(late.is_err_and(|text| text.contains("nothing within") && text.contains("guest-console.log")));
    let died = running.finish(SOON).map_err(|error| error.to_string());
    assert!(died.is_err_and(|text| text.contains("the guest has gone") && text.contains("Kernel panic")));
    dir.finish();
    Ok(())
}
