//! libiscsi's tests for persistent reservations, SPC-2's RESERVE and two paths, against one disk a guest has through two HBAs of two
//! initiators.
//!
//! They are run through a gateway in the guest (see [`vm_tests::libiscsi`]), which hides what its own end of a session or reset would do
//! to the disk.

use std::collections::BTreeMap;
use vm_tests::guest::Guest;
use vm_tests::libiscsi::{self, Gateway, Test, Verdict};
use vm_tests::qemu::Machine;
use vm_tests::vstgt::Config;
use vm_tests::workdir::WorkDir;
use vm_tests::{Error, Result, effort, provision};

const MIB: u64 = 1 << 20;

/// The size of disks; MultipathIO writes to all of one.
const SIZE: u64 = 32 * MIB;

/// What is run, in this order.
const FAMILIES: &[&str] = &[
    "PrinReadKeys",
    "PrinServiceactionRange",
    "PrinReportCapabilities",
    "ProutRegister",
    "ProutReserve",
    "ProutClear",
    "ProutPreempt",
    "Reserve6",
    "MultipathIO",
];

/// How many tests those families have in libiscsi 1.19, which is Debian 12's.
const TESTS: usize = 31;

/// Tests that do not pass through such a gateway, whatever is behind it, and why.
const EXCEPTIONS: &[(&str, Verdict, &str)] = &[
    ("Reserve6.Logout", Verdict::Failed, "the iSCSI session ends at the gateway; the disk's I_T nexus is the HBA's"),
    ("Reserve6.ITNexusLoss", Verdict::Failed, "the same"),
    (
        "MultipathIO.Reset",
        Verdict::Failed,
        "the gateway resets its own target, which leaves the other one and the disk alone",
    ),
    ("Reserve6.TargetColdReset", Verdict::Skipped, "the gateway refuses TARGET COLD RESET"),
    ("Reserve6.TargetWarmReset", Verdict::Skipped, "the gateway refuses TARGET WARM RESET"),
];

#[test]
fn reservations_hold_between_two_initiators() -> Result<()> {
    provision::check()?;
    let dir = WorkDir::new("libiscsi")?;
    let (red, blue) = (dir.path("red.sock"), dir.path("blue.sock"));
    let vstgt = Config::new()
        .socket_with(&red, ",initiator=red")
        .socket_with(&blue, ",initiator=blue")
        .lun(&dir.sparse("disk.img", SIZE)?, ",serial=SHARED01")
        .arg("-v")
        .start(&dir.path("vstgt.log"))?;
    let machine = Machine::new("gateway")?.vhost_user_scsi(&red, 2).vhost_user_scsi(&blue, 2);
    let mut guest = Guest::start_boot_debian(machine, dir.root())?.ready()?;
    let mut gateway = Gateway::open(&mut guest)?;

    if effort() > 1 {
        // The kernel's own disk through the same gateway: whether the exceptions are the gateway's.
        let disks = gateway.own_disk(&mut guest, SIZE)?;
        let urls = [gateway.export(&mut guest, &disks[0])?, gateway.export(&mut guest, &disks[1])?];
        conforms(&mut guest, &disks[0], &urls)?;
    }
    let disks = guest.disks("SHARED01", 2)?;
    let urls = [gateway.export(&mut guest, &disks[0])?, gateway.export(&mut guest, &disks[1])?];
    for _ in 0..effort() {
        conforms(&mut guest, &disks[0], &urls)?;
    }

    guest.poweroff()?;
    vstgt.terminate()?;
    dir.finish();
    Ok(())
}

/// Every test of the families does what it shall with these two ways to one unit, a disk the guest has, too.
fn conforms(guest: &mut Guest, disk: &str, urls: &[String; 2]) -> Result<()> {
    // CompareAndWrite expects zeros in one block more than it writes them to.
    guest.sh(&format!("sg_write_same --lba=256 --num=1 --xferlen=512 --in=/dev/zero {disk}"))?;
    let listed = libiscsi::list(guest, FAMILIES)?;
    let tests = libiscsi::run(guest, FAMILIES, urls)?;
    println!("{}", counts(&tests));
    assert_eq!(tests.len(), TESTS, "{listed:?}");
    for name in &listed {
        assert!(tests.iter().any(|test| test.name == *name), "{name} did not run");
    }
    let wrong: Vec<String> = tests.iter().filter_map(unexpected).collect();
    if wrong.is_empty() {
        return Ok(());
    }
    Err(Error::new(format!("{}\n{}", wrong.join("\n"), guest.sh("dmesg | tail -40")?)))
}

/// `27 passed, 2 skipped, 3 failed of 32`, for whoever reads the log.
fn counts(tests: &[Test]) -> String {
    let mut counts = BTreeMap::from([(Verdict::Passed, 0), (Verdict::Skipped, 0), (Verdict::Failed, 0)]);
    for test in tests {
        *counts.entry(test.verdict).or_default() += 1;
    }
    let [passed, skipped, failed] =
        [Verdict::Passed, Verdict::Skipped, Verdict::Failed].map(|verdict| counts[&verdict]);
    format!("libiscsi: {passed} passed, {skipped} skipped, {failed} failed of {}", tests.len())
}

/// What is wrong with a test's end, if anything.
fn unexpected(test: &Test) -> Option<String> {
    let exception = EXCEPTIONS.iter().find(|(name, _, _)| *name == test.name);
    let (expected, why) = exception.map_or((Verdict::Passed, ""), |(_, verdict, why)| (*verdict, *why));
    (test.verdict != expected)
        .then(|| format!("{}: {:?} instead of {expected:?} {why}\n{}", test.name, test.verdict, test.said))
}
