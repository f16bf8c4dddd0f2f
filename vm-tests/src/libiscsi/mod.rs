//! libiscsi's conformance tests of SCSI devices, run inside a guest against a disk the guest has.
//!
//! Their program, `iscsi-test-cu`, reaches a disk by its `/dev/sg*`, and that is what most tests are run on. Some insist on iSCSI: those
//! for which two initiators are needed, which they make by logging in twice, and those that change a command on its way. They are run through
//! a [`Gateway`] in the guest, and the disk sees two I_T nexuses because the guest has it by two HBAs.
//!
//! The program is not to be trusted with its life: a test that ends it, or never ends, costs that test only.

mod expected;
mod gateway;
mod output;

pub use expected::Expected;
pub use gateway::Gateway;

use crate::guest::Guest;
use crate::{Error, Result};
use std::time::Duration;

/// How long one run of the program may take, in seconds. The host's bound is longer where guests are slow.
const HANG: u64 = 240;

/// The program's name for the tests of SCSI ...
const SCSI: &str = "SCSI";

/// ... and for those of what Linux needs of a disk.
const LINUX: &str = "LINUX";

/// How long to wait for it.
const BOUND: Duration = Duration::from_secs(60);

/// A test that ends the program with a signal on anything but iSCSI: it changes the command on the wire and does not ask whether there
/// is one.
const ENDS_THE_PROGRAM: &str = "Sanitize.OverwriteReserved";

/// Tests that insist on iSCSI but want of it what ends at the gateway. They fail whatever disk is behind it.
pub const NOT_BY_GATEWAY: &[&str] = &[
    // The iSCSI session ends at the gateway; the disk's I_T nexus is the HBA's.
    "Reserve6.Logout",
    "Reserve6.ITNexusLoss",
    "PreventAllow.Logout",
    "PreventAllow.ITNexusLoss",
    // The gateway resets its own unit, and knows neither TARGET COLD RESET nor TARGET WARM RESET.
    "MultipathIO.Reset",
    "PreventAllow.LUNReset",
    // It resets, too; and it wants a medium that is overwritten for five seconds at least, and then waits for minutes.
    "Sanitize.Reset",
    "Reserve6.TargetColdReset",
    "Reserve6.TargetWarmReset",
    "PreventAllow.ColdReset",
    "PreventAllow.WarmReset",
];

/// How a test ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Verdict {
    /// It did all it wanted, and everything was as it should.
    Passed,
    /// It, or a part of it, was left out.
    Skipped,
    /// The first thing that was not as it should is a write refused with DATA PROTECT, WRITE PROTECTED.
    WriteProtected,
    /// Something was not as it should.
    Failed,
    /// It ended the program, or did not end.
    Crashed,
}

impl Verdict {
    /// Those that a list of exceptions may have: a program that crashes is no exception.
    const LISTED: &[Verdict] = &[Verdict::Skipped, Verdict::WriteProtected, Verdict::Failed];

    /// What it is called.
    pub fn name(self) -> &'static str {
        match self {
            Verdict::Passed => "passed",
            Verdict::Skipped => "skipped",
            Verdict::WriteProtected => "write-protected",
            Verdict::Failed => "failed",
            Verdict::Crashed => "crashed",
        }
    }
}

/// A test that was run.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Test {
    /// `Family.Test`, as the program lists it.
    pub name: String,
    /// How it ended.
    pub verdict: Verdict,
    /// What it printed, as far as it is telling.
    pub said: String,
}

/// The ways to one disk.
#[derive(Debug, Clone, Default)]
pub struct Disk {
    /// Its generic devices, `/dev/sg*`, one for each path.
    pub generic: Vec<String>,
    /// The URLs by which the gateway exports each path, if it does.
    pub urls: Vec<String>,
    /// Whether its medium may be sanitized.
    pub sanitize: bool,
}

impl Disk {
    /// The disk with a serial number, which the guest has by so many paths.
    ///
    /// # Errors
    /// When it does not have it.
    pub fn find(guest: &mut Guest, serial: &str, paths: usize) -> Result<(Disk, Vec<String>)> {
        let names = guest.disks(serial, paths)?;
        let script = |name: &String| format!("ls {}/device/scsi_generic", name.replace("/dev/", "/sys/block/"));
        let generic: Result<Vec<String>> =
            names.iter().map(|name| Ok(format!("/dev/{}", guest.sh(&script(name))?))).collect();
        Ok((Disk { generic: generic?, ..Disk::default() }, names))
    }
}

/// The names of all tests of SCSI, as `iscsi-test-cu` lists them.
///
/// # Errors
/// When the guest has no such program.
pub fn list(guest: &mut Guest) -> Result<Vec<String>> {
    list_of(guest, SCSI)
}

/// The names of all tests of what Linux needs of a disk, which are some of those of SCSI.
///
/// # Errors
/// When the guest has no such program.
pub fn list_linux(guest: &mut Guest) -> Result<Vec<String>> {
    list_of(guest, LINUX)
}

fn list_of(guest: &mut Guest, set: &str) -> Result<Vec<String>> {
    let all = guest.sh("iscsi-test-cu --list")?;
    let tests = all.lines().filter_map(|line| line.trim().strip_prefix(set)?.strip_prefix('.'));
    Ok(tests.filter(|test| test.contains('.')).map(str::to_owned).collect())
}

/// Runs tests, as [`list_linux`] names them, against a disk by the names the kernel's disk driver gave its paths, `/dev/sd*`. They write
/// to it.
///
/// # Errors
/// When the guest hangs or goes.
pub fn conform_linux(guest: &mut Guest, names: &[String], paths: &[String]) -> Result<Vec<Test>> {
    let mut tests = Vec::new();
    for family in names.chunk_by(|a, b| family(a) == family(b)) {
        let disk = Disk { generic: paths.to_vec(), ..Disk::default() };
        prepare(guest, &family[0], &disk)?;
        let (ended, crashed) =
            Run { guest, set: LINUX, urls: paths, sanitize: false }.whole(self::family(&family[0]))?;
        tests.extend(ended.into_iter().chain(crashed));
    }
    Ok(tests)
}

/// Runs tests, as [`list`] names them, against a disk, each once and in the order given: on its generic devices, and by the gateway what
/// insists on iSCSI. They write to it.
///
/// # Errors
/// When the guest hangs or goes.
pub fn conform(guest: &mut Guest, names: &[String], disk: &Disk) -> Result<Vec<Test>> {
    let mut tests = Vec::new();
    for family in names.chunk_by(|a, b| family(a) == family(b)) {
        prepare(guest, &family[0], disk)?;
        tests.extend(on_generic(guest, family, disk)?);
    }
    if disk.urls.is_empty() {
        return Ok(tests);
    }
    for test in &mut tests {
        let insists = insists_on_iscsi(test) || disk.sanitize && test.name == ENDS_THE_PROGRAM;
        if insists && !NOT_BY_GATEWAY.contains(&test.name.as_str()) {
            *test = by_gateway(guest, &test.name, disk)?;
        }
    }
    Ok(tests)
}

/// Does for a test what it takes for granted.
fn prepare(guest: &mut Guest, name: &str, disk: &Disk) -> Result<()> {
    match (family(name), &disk.generic[..]) {
        // The second path was told nothing yet of what the first one did to the medium; and CompareAndWrite expects zeros in one block
        // more than it writes them to.
        ("MultipathIO", [path, others @ ..]) if !others.is_empty() => {
            for other in others {
                guest.sh(&format!("for i in 1 2 3 4; do sg_turs {other} && exit; done"))?;
            }
            guest.sh(&format!("sg_write_same --lba=0 --num=1024 --xferlen=512 --in=/dev/zero {path}"))?;
        }
        // It expects that nobody knows of a copy by the list identifier 1. One that is over is known until its status and, if it
        // failed, its failed segment details were asked for.
        ("ReceiveCopyResults", [path, ..]) => {
            let ask = |what| {
                format!("sg_raw -r 1024 {path} 84 {what} 01 00 00 00 00 00 00 00 00 00 04 00 00 00 > /dev/null 2>&1")
            };
            guest.sh(&format!("{}; {}; true", ask("00"), ask("04")))?;
        }
        _ => {}
    }
    Ok(())
}

fn family(name: &str) -> &str {
    name.split_once('.').map_or(name, |(family, _)| family)
}

fn insists_on_iscsi(test: &Test) -> bool {
    let left_out = |line: &str| line.contains("[SKIPPED]") && line.contains("iSCSI");
    test.verdict == Verdict::Skipped && test.said.lines().any(left_out)
}

/// Runs tests of one family on the generic devices: in one run, and one by one what a test that ended the program took with it.
fn on_generic(guest: &mut Guest, names: &[String], disk: &Disk) -> Result<Vec<Test>> {
    let mut run = Run { guest, set: SCSI, urls: &disk.generic, sanitize: disk.sanitize };
    let mut tests = Vec::new();
    if !disk.sanitize || names.iter().all(|name| name != ENDS_THE_PROGRAM) {
        let of = names.first().map_or("", |name| family(name));
        let (ended, crashed) = run.whole(of)?;
        tests.extend(ended.into_iter().chain(crashed).filter(|test| names.contains(&test.name)));
    }
    for name in names {
        if tests.iter().any(|test| test.name == *name) {
            continue;
        }
        if disk.sanitize && name == ENDS_THE_PROGRAM {
            let said = "    [SKIPPED] not run: it ends the program on anything but iSCSI\n".to_owned();
            tests.push(Test { name: name.clone(), verdict: Verdict::Skipped, said });
        } else {
            tests.push(run.one(name)?);
        }
    }
    Ok(tests)
}

/// Runs one test by the gateway. Afterwards nobody holds what it reserved: a session that ends there leaves the disk's nexus alone.
///
/// # Errors
/// When the guest hangs or goes.
pub fn by_gateway(guest: &mut Guest, name: &str, disk: &Disk) -> Result<Test> {
    prepare(guest, name, disk)?;
    let test = Run { guest, set: SCSI, urls: &disk.urls, sanitize: disk.sanitize }.one(name)?;
    for path in &disk.generic {
        // RELEASE(6), twice: the first may be told of a unit attention.
        guest.sh(&format!("for i in 1 2; do sg_raw {path} 17 00 00 00 00 00 > /dev/null 2>&1; done; true"))?;
    }
    Ok(test)
}

/// How the program is run.
struct Run<'a> {
    guest: &'a mut Guest,
    set: &'static str,
    urls: &'a [String],
    sanitize: bool,
}

impl Run<'_> {
    /// One test; it has crashed if nothing is heard of it.
    fn one(&mut self, name: &str) -> Result<Test> {
        let (ended, crashed) = self.whole(name)?;
        let test = ended.into_iter().chain(crashed).find(|test| test.name == name);
        Ok(test.unwrap_or_else(|| {
            let said = "the program did not come to it\n".to_owned();
            Test { name: name.to_owned(), verdict: Verdict::Crashed, said }
        }))
    }

    /// A family or a test. The second is a test that did not end.
    fn whole(&mut self, what: &str) -> Result<(Vec<Test>, Option<Test>)> {
        let sanitize = if self.sanitize { "--allow-sanitize" } else { "" };
        let (set, urls, telling) = (self.set, self.urls.join(" "), output::TELLING);
        let outcome = self.guest.run(
            &format!(
                "timeout -s KILL {HANG} iscsi-test-cu --dataloss {sanitize} --Verbose-scsi --test={set}.{what} {urls} < /dev/null 2>&1 |
                 grep -a -B 2 --no-group-separator -E '{telling}'
                 exit ${{PIPESTATUS[0]}}"
            ),
            BOUND,
        )?;
        let (ended, mut crashed) = output::parse(&outcome.text());
        if let Some(test) = &mut crashed {
            test.said.push_str(&match outcome.status {
                137 => format!("killed after {HANG} seconds\n"),
                status => format!("the program ended with {status}\n"),
            });
        }
        Ok((ended, crashed))
    }
}

/// `27 passed, 2 skipped, 3 failed of 32`, for whoever reads the log.
pub fn counts(tests: &[Test]) -> String {
    let count = |verdict| tests.iter().filter(|test| test.verdict == verdict).count();
    let verdicts = [Verdict::Passed, Verdict::Skipped, Verdict::WriteProtected, Verdict::Failed, Verdict::Crashed];
    let said: Vec<String> = verdicts
        .iter()
        .map(|verdict| (count(*verdict), verdict.name()))
        .filter(|(count, _)| *count != 0)
        .map(|(count, name)| format!("{count} {name}"))
        .collect();
    format!("{} of {}", said.join(", "), tests.len())
}

/// Nothing went wrong, or everything that did.
///
/// # Errors
/// With all complaints, if there are any.
pub fn settle(complaints: &[String]) -> Result<()> {
    if complaints.is_empty() { Ok(()) } else { Err(Error::new(complaints.join("\n"))) }
}
