//! libiscsi's conformance tests of SCSI, all of them, against disks set up in six ways, which guests have through vstgt.
//!
//! What cannot pass is listed, with its reason, in `libiscsi/expected.txt`. Two guests share the work: each is one thread of its emulator.

use std::collections::BTreeSet;
use std::thread;
use std::time::Instant;
use vm_tests::guest::Guest;
use vm_tests::libiscsi::{self, Disk, Expected, Gateway, NOT_BY_GATEWAY, Test, Verdict};
use vm_tests::qemu::Machine;
use vm_tests::vstgt::Config;
use vm_tests::workdir::WorkDir;
use vm_tests::{Result, effort, provision};

const MIB: u64 = 1 << 20;

/// How many tests libiscsi 1.19 has, which is Debian 12's.
const TESTS: usize = 215;

/// How many of them pass in one configuration or another.
const PASS: usize = 168;

/// How a disk is set up.
struct Configuration {
    /// What the list of exceptions calls it; its serial number, too.
    name: &'static str,
    /// What is said of it besides.
    properties: &'static str,
    /// Its size: less than 65536 blocks, because tests read so many at once if there are, and no generic device can.
    bytes: u64,
    /// The guest that has it.
    guest: &'static str,
    /// By how many HBAs, of an initiator each.
    paths: usize,
    /// Whether tests that insist on iSCSI are run.
    gateway: bool,
    /// Whether its medium may be sanitized.
    sanitize: bool,
    /// Whether all families are run in the short form of this test, too, or [`SISTERS`] left out.
    whole: bool,
}

const PLAIN: Configuration =
    Configuration { name: "512", properties: "", bytes: 16 * MIB, guest: "one", paths: 1, gateway: false, sanitize: false, whole: true };

const CONFIGURATIONS: &[Configuration] = &[
    PLAIN,
    Configuration { name: "4096", properties: ",block-size=4096", bytes: 32 * MIB, ..PLAIN },
    // A unit that may not be written is what the guest's gateway refuses to open.
    Configuration { name: "read-only", properties: ",read-only=on,provisioning=thin", whole: false, ..PLAIN },
    Configuration { name: "512-on-4096", properties: ",physical-block-size=4096", guest: "two", whole: false, ..PLAIN },
    Configuration { name: "removable", properties: ",removable=on", guest: "two", paths: 2, gateway: true, whole: false, ..PLAIN },
    Configuration { name: "two-paths", guest: "two", paths: 2, gateway: true, sanitize: true, whole: false, ..PLAIN },
];

/// Families that take long and differ from another one by the length of the CDB only.
const SISTERS: &[&str] = &[
    "Prefetch10",
    "Read6",
    "Read10",
    "Read12",
    "Verify10",
    "Verify12",
    "Write10",
    "Write12",
    "WriteSame10",
    "WriteVerify10",
    "WriteVerify12",
];

/// The HBAs of each guest, and their initiators' names.
const HBAS: &[(&str, &[&str])] = &[("one", &["green"]), ("two", &["red", "blue"])];

#[test]
fn every_configuration_conforms() -> Result<()> {
    provision::check()?;
    let names: Vec<&str> = CONFIGURATIONS.iter().map(|configuration| configuration.name).collect();
    let expected = Expected::read(include_str!("libiscsi/expected.txt"), &names)?;
    let dir = WorkDir::new("libiscsi")?;
    let mut config = Config::new().arg("-v");
    for initiator in HBAS.iter().flat_map(|(_, initiators)| *initiators) {
        config = config.socket_with(&dir.path(&format!("{initiator}.sock")), &format!(",initiator={initiator}"));
    }
    for (lun, one) in CONFIGURATIONS.iter().enumerate() {
        let hbas = HBAS.iter().find(|(guest, _)| *guest == one.guest).map_or(&[][..], |(_, initiators)| *initiators);
        let initiators: String = hbas.iter().take(one.paths).map(|name| format!(",initiator={name}")).collect();
        let image = dir.sparse(&format!("{}.img", one.name), one.bytes)?;
        config = config.lun(&image, &format!(",lun={lun},serial={}{}{initiators}", one.name, one.properties));
    }
    let vstgt = config.start(&dir.path("vstgt.log"))?;

    let ran = thread::scope(|scope| {
        let (dir, expected) = (&dir, &expected);
        let guests: Vec<_> =
            HBAS.iter().map(|(guest, hbas)| scope.spawn(move || in_guest(dir, guest, hbas, expected))).collect();
        guests.into_iter().map(|guest| guest.join().expect("a guest's thread")).collect::<Vec<Result<Ran>>>()
    });

    let mut passed = BTreeSet::new();
    let mut complaints = Vec::new();
    for ran in ran {
        let ran = ran?;
        passed.extend(ran.passed);
        complaints.extend(ran.complaints);
    }
    println!("libiscsi: {} of {TESTS} passed in one configuration or another", passed.len());
    if passed.len() < PASS {
        complaints.push(format!("no more than {passed:?} passed"));
    }
    libiscsi::settle(&complaints)?;
    vstgt.terminate()?;
    dir.finish();
    Ok(())
}

/// What a guest found.
#[derive(Default)]
struct Ran {
    passed: BTreeSet<String>,
    complaints: Vec<String>,
}

/// Runs all tests in a guest's configurations.
fn in_guest(dir: &WorkDir, name: &str, hbas: &[&str], expected: &Expected) -> Result<Ran> {
    let sockets = hbas.iter().map(|initiator| dir.path(&format!("{initiator}.sock")));
    let machine = sockets.fold(Machine::new(name)?, |machine, socket| machine.vhost_user_scsi(&socket, 2));
    let mut guest = Guest::start_boot_debian(machine, dir.root())?.ready()?;
    let mut gateway = Gateway::open(&mut guest)?;
    let listed = libiscsi::list(&mut guest)?;
    assert_eq!(listed.len(), TESTS, "{listed:?}");
    let mut ran = Ran::default();
    for one in CONFIGURATIONS.iter().filter(|one| one.guest == name) {
        let (mut disk, names) = Disk::find(&mut guest, one.name, one.paths)?;
        disk.sanitize = one.sanitize;
        if one.gateway {
            for name in &names {
                disk.urls.push(gateway.export(&mut guest, name)?);
            }
        }
        let all = one.whole || effort() > 1;
        let runs = |name: &&String| all || SISTERS.iter().all(|family| name.split('.').next() != Some(family));
        let names: Vec<String> = listed.iter().filter(runs).cloned().collect();
        for _ in 0..if effort() > 1 { 3 } else { 1 } {
            let start = Instant::now();
            let tests = libiscsi::conform(&mut guest, &names, &disk)?;
            println!("libiscsi, {}: {} in {:.0?}", one.name, libiscsi::counts(&tests), start.elapsed());
            ran.complaints.extend(expected.complaints(one.name, &listed, &names, &tests));
            ran.passed.extend(passed(tests));
        }
    }
    if effort() > 1 && hbas.len() > 1 {
        ends_at_the_gateway(&mut guest, &mut gateway)?;
    }
    if !ran.complaints.is_empty() {
        ran.complaints.push(guest.sh("dmesg | tail -40")?);
    }
    guest.poweroff()?;
    Ok(ran)
}

fn passed(tests: Vec<Test>) -> impl Iterator<Item = String> {
    tests.into_iter().filter(|test| test.verdict == Verdict::Passed).map(|test| test.name)
}

/// What is not run by the gateway would not pass if it were, with the kernel's own disk behind it either.
fn ends_at_the_gateway(guest: &mut Guest, gateway: &mut Gateway) -> Result<()> {
    let names = gateway.own_disk(guest, 16 * MIB)?;
    let urls = [gateway.export(guest, &names[0])?, gateway.export(guest, &names[1])?];
    let disk = Disk { urls: urls.to_vec(), ..Disk::default() };
    for name in NOT_BY_GATEWAY {
        let test = libiscsi::by_gateway(guest, name, &disk)?;
        assert_ne!(test.verdict, Verdict::Passed, "{}", test.said);
    }
    Ok(())
}
