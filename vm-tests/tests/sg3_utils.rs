//! sg3_utils in a guest: what its tools decode is what the units were configured to be, and what its tools do to the medium is on the images.
//!
//! One boot for everything. Each unit is described once ([`Unit`]); from that come its words on vstgt's command line and what every tool is
//! expected to print.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, reason = "test code")]

#[path = "sg3_utils/media.rs"]
mod media;
#[path = "sg3_utils/reports.rs"]
mod reports;
#[path = "sg3_utils/unit.rs"]
mod unit;

use std::fs;
use std::path::PathBuf;
use std::time::Duration;
use unit::Unit;
use vm_tests::guest::Guest;
use vm_tests::qemu::Machine;
use vm_tests::vstgt::{Config, Vstgt};
use vm_tests::workdir::WorkDir;
use vm_tests::{Result, provision};

const KIB: u64 = 1 << 10;
const MIB: u64 = 1 << 20;

/// What most disks are: nothing said but the serial number.
const PLAIN: Unit = Unit { lun: 0, serial: "PLAIN01", bytes: 16 * MIB, ..Unit::DEFAULT };

/// Everything said, and otherwise than by default.
const ACME: Unit = Unit {
    lun: 1,
    serial: "ACME-0002",
    bytes: 24 * MIB,
    vendor: "ACME",
    product: "Disk One",
    revision: "2.1",
    naa: Some(0x5000_c500_dead_beef),
    block: 4 * KIB,
    physical: 16 * KIB,
    rotation: 7200,
    thin: false,
    write_cache: false,
    descriptor_sense: true,
    ..Unit::DEFAULT
};

/// Read-only, with small blocks on large ones, and a number that needs flat space addressing (SAM-5 4.7.7.3).
const FIXED: Unit =
    Unit { lun: 300, serial: "FIXED01", bytes: MIB, physical: 4 * KIB, rotation: 0, read_only: true, ..Unit::DEFAULT };

/// A medium that can be ejected.
const REMOVABLE: Unit = Unit { lun: 2, serial: "EJECT01", bytes: 2 * MIB, removable: true, ..Unit::DEFAULT };

/// By their numbers.
const UNITS: &[Unit] = &[PLAIN, ACME, REMOVABLE, FIXED];

#[test]
fn sg3_utils_finds_what_was_configured_and_changes_what_it_says() -> Result<()> {
    provision::check()?;
    let mut lab = Lab::new()?;
    for unit in UNITS {
        reports::identity(&mut lab, unit)?;
        reports::pages(&mut lab, unit)?;
        reports::modes(&mut lab, unit)?;
        reports::logs(&mut lab, unit)?;
        reports::commands(&mut lab, unit)?;
        reports::sense(&mut lab, unit)?;
    }
    reports::numbers(&mut lab)?;
    for unit in [&PLAIN, &ACME] {
        media::writes(&mut lab, unit)?;
        media::compares(&mut lab, unit)?;
        media::unmaps(&mut lab, unit)?;
    }
    media::writes_atomically(&mut lab, &PLAIN)?;
    media::refuses(&mut lab, &FIXED)?;
    media::copies(&mut lab, &PLAIN, &REMOVABLE)?;
    media::comes_and_goes(&mut lab, &REMOVABLE)?;
    media::erases(&mut lab, &PLAIN)?;
    lab.finish()
}

/// What the test runs in; dropped from the top down.
struct Lab {
    guest: Guest,
    vstgt: Vstgt,
    dir: WorkDir,
}

impl Lab {
    fn new() -> Result<Lab> {
        let dir = WorkDir::new("sg3")?;
        let socket = dir.path("vm.sock");
        let mut config = Config::new().socket(&socket).arg("-v");
        for unit in UNITS {
            let image = dir.sparse(unit.serial, unit.bytes)?;
            if unit.read_only {
                fs::write(&image, unit::pattern(unit.bytes)).unwrap();
            }
            config = config.lun(&image, &unit.options());
        }
        let vstgt = config.start(&dir.path("vstgt.log"))?;
        let machine = Machine::new("guest")?.vhost_user_scsi(&socket, 2);
        let mut guest = Guest::start_boot_debian(machine, dir.root())?.ready()?;
        // For the shell's <(...).
        guest.sh("ln -s /proc/self/fd /dev/fd")?;
        for unit in UNITS {
            // Its generic node under a name of our own: the block device of a read-only disk cannot be opened for writing.
            let disk = guest.disk(unit.serial)?;
            guest.sh(&format!(
                "ln -s /dev/$(ls /sys/block/{}/device/scsi_generic) /tmp/{}",
                &disk[5..],
                unit.serial
            ))?;
        }
        Ok(Lab { guest, vstgt, dir })
    }

    /// A unit's image on the host.
    fn image(&self, unit: &Unit) -> PathBuf {
        self.dir.path(unit.serial)
    }

    /// Runs a script in which `$D` is the unit's generic node; it must succeed.
    fn sh(&mut self, unit: &Unit, script: &str) -> Result<String> {
        self.guest.sh(&format!("exec 2>&1; D=/tmp/{}; B={}\n{script}", unit.serial, unit.block))
    }

    /// The same; its status and what it printed.
    fn run(&mut self, unit: &Unit, script: &str) -> Result<(i32, String)> {
        let script = format!("exec 2>&1; D=/tmp/{}; B={}\n{script}", unit.serial, unit.block);
        let outcome = self.guest.run(&script, Duration::from_secs(30))?;
        Ok((outcome.status, outcome.text()))
    }

    fn finish(mut self) -> Result<()> {
        assert_eq!(self.guest.sh("dmesg | grep -iE 'i/o error|abort|timed out|hung' || true")?, "");
        self.guest.poweroff()?;
        self.vstgt.terminate()?;
        self.dir.finish();
        Ok(())
    }
}
