//! libiscsi's conformance tests, run inside a guest against a disk the guest has.
//!
//! Their program, `iscsi-test-cu`, reaches disks by `/dev/sg*` too, but not for what takes two I_T nexuses: there it insists on iSCSI.
//! So the guest is its own gateway. The kernel's SCSI target exports each of the guest's disks, by its passthrough back store (pscsi), as an
//! iSCSI target of its own on the loopback:
//!
//! ```text
//! iscsi-test-cu ─┬─ iSCSI ─► target 0 ─► pscsi ─► HBA 0 ─┐
//!                └─ iSCSI ─► target 1 ─► pscsi ─► HBA 1 ─┴─► one logical unit
//! ```
//!
//! Commands pass such a gateway unchanged, also those for reservations, and the unit sees two I_T nexuses. What ends at the gateway are
//! iSCSI's own sessions and task management: no logout and no reset gets through.

use crate::guest::Guest;
use crate::{Context, Error, Result};
use std::time::Duration;

/// How long a family's tests may take, where guests are fast.
const FAMILY: Duration = Duration::from_secs(60);

/// The guest's gateway.
#[derive(Debug)]
pub struct Gateway {
    targets: u32,
}

impl Gateway {
    /// Prepares the guest, which must be one that [boots Debian's packages](Guest::start_boot_debian).
    ///
    /// # Errors
    /// When the kernel has no SCSI target.
    pub fn open(guest: &mut Guest) -> Result<Gateway> {
        guest.sh(
            "mount -t configfs config /sys/kernel/config && ip link set lo up && [ -d /sys/kernel/config/target ]",
        )?;
        Ok(Gateway { targets: 0 })
    }

    /// Exports a disk (`/dev/sda`, ...), which nobody in the guest may have open for writing. Returns the unit's URL.
    ///
    /// # Errors
    /// When the kernel refuses.
    pub fn export(&mut self, guest: &mut Guest, disk: &str) -> Result<String> {
        let number = self.targets;
        self.targets += 1;
        let (name, port) = (format!("iqn.2000-01.test:{number}"), 3260 + number);
        guest.sh(&format!(
            "set -e
            disk={disk}
            IFS=: read -r host channel id lun <<< $(basename $(readlink -f /sys/block/${{disk#/dev/}}/device))
            cd /sys/kernel/config/target
            mkdir -p core/pscsi_{number}/disk
            echo scsi_host_id=$host,scsi_channel_id=$channel,scsi_target_id=$id,scsi_lun_id=$lun > core/pscsi_{number}/disk/control
            echo $disk > core/pscsi_{number}/disk/udev_path
            echo 1 > core/pscsi_{number}/disk/enable
            # The kernel does not answer PERSISTENT RESERVE in the disk's stead.
            [ $(cat core/pscsi_{number}/disk/attrib/pgr_support) = 0 ]
            group=iscsi/{name}/tpgt_1
            mkdir -p $group/lun/lun_0 $group/np/127.0.0.1:{port}
            ln -s $PWD/core/pscsi_{number}/disk $group/lun/lun_0/disk
            echo 0 > $group/attrib/authentication
            echo 1 > $group/attrib/generate_node_acls
            echo 0 > $group/attrib/demo_mode_write_protect
            echo 1 > $group/enable"
        ))?;
        Ok(format!("iscsi://127.0.0.1:{port}/{name}/0"))
    }

    /// Makes a disk of the kernel's own target, seen by two HBAs of its own: the yardstick. Returns both its names in the guest.
    ///
    /// # Errors
    /// When the kernel refuses, or finds no disk.
    pub fn own_disk(&self, guest: &mut Guest, bytes: u64) -> Result<[String; 2]> {
        let disks = guest.sh(&format!(
            "set -e
            cd /sys/kernel/config/target
            # Where it keeps what persists through power loss: a reservation is refused when it cannot.
            mkdir -p /var/target/pr /etc/target/pr core/fileio_0/own
            truncate -s {bytes} /tmp/own.img
            echo fd_dev_name=/tmp/own.img,fd_dev_size={bytes} > core/fileio_0/own/control
            echo 1 > core/fileio_0/own/enable
            for n in 0 1; do
                group=loopback/naa.600140500000000$n/tpgt_1
                mkdir -p $group/lun/lun_0
                echo naa.600140510000000$n > $group/nexus
                ln -s $PWD/core/fileio_0/own $group/lun/lun_0/disk
            done
            for i in $(seq 100); do
                disks=$(grep -l ^FILEIO /sys/block/sd*/device/model | cut -d / -f 4 | sed s,^,/dev/,)
                [ $(echo $disks | wc -w) = 2 ] && break
                sleep 0.1
            done
            echo $disks"
        ))?;
        let disks: Vec<String> = disks.split_whitespace().map(str::to_owned).collect();
        disks.try_into().map_err(|disks| Error::new(format!("the guest's own disk has the names {disks:?}")))
    }
}

/// How a test ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Verdict {
    /// It did all it wanted, and everything was as it should.
    Passed,
    /// It, or a part of it, was left out.
    Skipped,
    /// Something was not as it should.
    Failed,
}

/// A test that was run.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Test {
    /// `Family.Test`, as the program lists it.
    pub name: String,
    /// How it ended.
    pub verdict: Verdict,
    /// What it printed.
    pub said: String,
}

/// The names of all tests of these families, as `iscsi-test-cu` lists them.
///
/// # Errors
/// When the guest has no such program.
pub fn list(guest: &mut Guest, families: &[&str]) -> Result<Vec<String>> {
    let all = guest.sh("iscsi-test-cu --list")?;
    let tests = all.lines().filter_map(|line| line.trim().strip_prefix("SCSI."));
    Ok(tests
        .filter(|test| test.split_once('.').is_some_and(|(family, _)| families.contains(&family)))
        .map(str::to_owned)
        .collect())
}

/// Runs the tests of these families against the unit behind both URLs. They write to it.
///
/// # Errors
/// When the program cannot be run, hangs, or says something else than expected.
pub fn run(guest: &mut Guest, families: &[&str], urls: &[String; 2]) -> Result<Vec<Test>> {
    let mut tests = Vec::new();
    for family in families {
        let [one, two] = urls;
        // Thousands of lines say only that one more of them succeeded.
        let outcome = guest.run(
            &format!(
                "iscsi-test-cu --dataloss --Verbose-scsi --test=SCSI.{family} {one} {two} < /dev/null 2>&1 |
                 grep -v -E 'COMPARE_AND_WRITE (success|mismatch|dispatched):'"
            ),
            FAMILY,
        )?;
        tests.extend(parse(&outcome.text())?);
    }
    Ok(tests)
}

/// Reads what the program prints, which is CUnit's
///
/// ```text
/// Suite: ProutReserve
///   Test: Simple ...
///     what it says
/// passed
///   Test: AccessEA ...FAILED
/// ```
///
/// with its own words in between. Each test ends with the one word or the other, alone or followed by words of what comes next.
///
/// # Errors
/// When a test has no end, or there is none at all.
fn parse(output: &str) -> Result<Vec<Test>> {
    let mut tests: Vec<Test> = Vec::new();
    let mut suite = "";
    let mut open: Option<(String, String)> = None;
    for line in output.lines() {
        let mut words = line;
        if let Some(name) = line.strip_prefix("Suite: ") {
            suite = name.trim();
        } else if let Some(rest) = line.strip_prefix("  Test: ") {
            if let Some((name, _)) = &open {
                return Err(Error::new(format!("{name} has no end in:\n{output}")));
            }
            let (test, after) = rest.split_once(" ...").context(|| format!("the line {line}"))?;
            open = Some((format!("{suite}.{test}"), String::new()));
            words = after;
        }
        let Some((name, said)) = &mut open else {
            continue;
        };
        said.push_str(line);
        said.push('\n');
        let verdict = match words {
            _ if words.starts_with("FAILED") => Verdict::Failed,
            _ if words.starts_with("passed") && said.contains("[SKIPPED]") => Verdict::Skipped,
            _ if words.starts_with("passed") => Verdict::Passed,
            _ => continue,
        };
        tests.push(Test { name: std::mem::take(name), verdict, said: std::mem::take(said) });
        open = None;
    }
    if open.is_some() || tests.is_empty() {
        return Err(Error::new(format!("tests without an end, or none at all, in:\n{output}")));
    }
    Ok(tests)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn verdicts(output: &str) -> Vec<(String, Verdict)> {
        parse(output).unwrap().into_iter().map(|test| (test.name, test.verdict)).collect()
    }

    #[test]
    fn ends_are_told_apart() {
        let output = "Suite: A\n  Test: One ...\n    all is well\npassed\n  Test: Two ...    a remark\n    [FAILED] so it is\nFAILED\n    \
                      1. x.c:1 - CU_ASSERT\n  Test: Three ...\n    [SKIPPED] cannot\npassed    of the next\nSuite: B\n  Test: One ...passed\n\
                      Run Summary: passed 2\n";
        let expected = [
            ("A.One", Verdict::Passed),
            ("A.Two", Verdict::Failed),
            ("A.Three", Verdict::Skipped),
            ("B.One", Verdict::Passed),
        ];
        assert_eq!(verdicts(output), expected.map(|(name, verdict)| (name.to_owned(), verdict)));
    }

    #[test]
    fn a_test_without_an_end_is_an_error() {
        assert!(parse("Suite: A\n  Test: One ...\n    hangs\n").is_err());
        assert!(parse("Suite: A\n  Test: One ...\n  Test: Two ...passed\n").is_err());
        assert!(parse("cannot connect\n").is_err());
    }
}
