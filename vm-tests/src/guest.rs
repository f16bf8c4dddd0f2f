//! A shell (bash) inside a guest that runs the test initramfs and root.
//!
//! Its init serves the agent port: the host sends a script, line by line, and gets back every line the script printed
//! and its status. One script runs at a time; what shall go on meanwhile is put in the background with its output
//! redirected. On the wire, host to guest:
//!
//! ```text
//! |first line of the script
//! |second line
//! @@ run 7
//! ```
//!
//! and back, as the lines come:
//!
//! ```text
//! @@ begin 7
//! |a line of output, standard error included
//! @@ end 7 0
//! ```

use crate::cache::Cache;
use crate::kernel::{Kernel, Line};
use crate::qemu::{Machine, Vm};
use crate::{Context, Error, Result};
use crate::{guestroot, initramfs, packageroot};
use std::path::Path;
use std::time::Duration;

/// What a script left behind.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Outcome {
    /// Its exit status.
    pub status: i32,
    /// Both its outputs, line by line.
    pub lines: Vec<String>,
}

impl Outcome {
    /// The output as one text.
    pub fn text(&self) -> String {
        self.lines.join("\n")
    }
}

/// A booted guest.
#[derive(Debug)]
pub struct Guest {
    vm: Vm,
    next: u32,
    slowness: u32,
}

/// A guest that boots.
#[derive(Debug)]
pub struct Booting {
    vm: Vm,
    slowness: u32,
}

impl Booting {
    /// Waits until the guest's agent answers.
    ///
    /// # Errors
    /// When it does not come up; the message holds the console's end.
    pub fn ready(mut self) -> Result<Guest> {
        let ready = self.vm.agent().expect("@@ ready\n", BOOT * self.slowness);
        ready.context(|| self.vm.explain("the guest did not boot"))?;
        Ok(Guest { vm: self.vm, next: 1, slowness: self.slowness })
    }
}

/// How long a guest may take to boot, on KVM.
const BOOT: Duration = Duration::from_secs(20);

/// How long a guest may take to power off, on KVM.
const POWEROFF: Duration = Duration::from_secs(10);

/// The kernel's command line: a serial console, no waiting, no self-tests and nothing the tests do not use.
pub const CMDLINE: &str = "console=ttyS0 panic=-1 nokaslr mitigations=off audit=0 apparmor=0 no_timer_check \
                           tsc=reliable cryptomgr.notests rcupdate.rcu_expedited=1";

impl Guest {
    /// Boots `machine` with a kernel of `line` and the test initramfs; sockets and logs go to `dir`. Returns once the
    /// guest's agent answers.
    ///
    /// # Errors
    /// When something the guest needs cannot be made, or it does not come up; the message holds the console's end.
    pub fn boot(machine: Machine, line: Line, dir: &Path) -> Result<Guest> {
        Guest::start_boot(machine, line, dir)?.ready()
    }

    /// The first half of [`boot`](Guest::boot): returns at once, so that several can boot at the same time.
    ///
    /// # Errors
    /// When something the guest needs cannot be made, or QEMU does not start.
    pub fn start_boot(machine: Machine, line: Line, dir: &Path) -> Result<Booting> {
        let root = guestroot::get(&Cache::open()?)?;
        Guest::start_boot_from(machine, line, &root, dir)
    }

    /// [`start_boot`](Guest::start_boot) with the [root of Debian packages](crate::packageroot) and the kernel with every driver; what is
    /// written to that root is kept in memory.
    ///
    /// # Errors
    /// As [`start_boot`](Guest::start_boot).
    pub fn start_boot_debian(machine: Machine, dir: &Path) -> Result<Booting> {
        Guest::start_boot_debian_with(machine, &[], dir)
    }

    /// [`start_boot_debian`](Guest::start_boot_debian) with further kernel modules, which are loaded before anything else runs.
    ///
    /// # Errors
    /// As [`start_boot`](Guest::start_boot), and when the kernel has no such module.
    pub fn start_boot_debian_with(machine: Machine, modules: &[&str], dir: &Path) -> Result<Booting> {
        let root = packageroot::get(&Cache::open()?)?;
        Guest::start_machine(machine, Line::V6_12Full, modules, &root, dir)
    }

    /// [`start_boot`](Guest::start_boot) with a given root.
    ///
    /// # Errors
    /// As [`start_boot`](Guest::start_boot).
    pub fn start_boot_from(machine: Machine, line: Line, root: &Path, dir: &Path) -> Result<Booting> {
        Guest::start_machine(machine, line, &[], root, dir)
    }

    /// A machine into which a guest can migrate that [`start_boot_from`](Guest::start_boot_from) booted with the same arguments: it waits
    /// for that. See [`crate::migration`].
    ///
    /// # Errors
    /// As [`start_boot`](Guest::start_boot).
    pub fn incoming_from(machine: Machine, line: Line, root: &Path, dir: &Path) -> Result<Vm> {
        let machine = machine.arg("-incoming").arg("defer");
        Ok(Guest::start_machine(machine, line, &[], root, dir)?.vm)
    }

    /// How much longer than on KVM things take in it.
    pub fn slowness(&self) -> u32 {
        self.slowness
    }

    /// Goes on in another machine, where the guest is now; gives back the one where it was.
    pub fn moved_to(&mut self, vm: Vm) -> Vm {
        std::mem::replace(&mut self.vm, vm)
    }

    fn start_machine(machine: Machine, line: Line, modules: &[&str], root: &Path, dir: &Path) -> Result<Booting> {
        let cache = Cache::open()?;
        let kernel = Kernel::get(&cache, line)?;
        let initrd = initramfs::get(&cache, line, &kernel, modules)?;
        let slowness = machine.accel().slowness();
        let machine = machine.read_only_disk(root).kernel(&kernel, &initrd, CMDLINE);
        Ok(Booting { vm: machine.start(dir)?, slowness })
    }

    /// The device (`/dev/sda`, ...) of the logical unit with a serial number, once the guest has found it.
    ///
    /// # Errors
    /// When it does not find it within a while, or finds it more than once.
    pub fn disk(&mut self, serial: &str) -> Result<String> {
        Ok(self.disks(serial, 1)?.remove(0))
    }

    /// The devices of the logical unit with a serial number, once the guest has found so many: as many as it has paths to it. In the
    /// order of their HBAs.
    ///
    /// # Errors
    /// When it does not find them within a while, or finds more.
    pub fn disks(&mut self, serial: &str, paths: usize) -> Result<Vec<String>> {
        // Page 80h is four bytes and then the serial number, which the target may pad. Names are given as disks are found, in any order.
        let script = format!(
            "for i in $(seq 100); do for d in /sys/block/sd*; do \
             [ \"$(tail -c +5 $d/device/vpd_pg80 2> /dev/null | tr -d ' \\000')\" = '{serial}' ] && \
             echo $(basename $(readlink -f $d/device)) /dev/${{d##*/}}; done | sort -V > /tmp/disks; \
             [ $(wc -l < /tmp/disks) = {paths} ] && cut -d ' ' -f 2 /tmp/disks && exit; sleep 0.1; done; lsscsi; dmesg | tail; exit 1"
        );
        Ok(self.sh(&script)?.lines().map(str::to_owned).collect())
    }

    /// The machine it runs on.
    pub fn vm(&mut self) -> &mut Vm {
        &mut self.vm
    }

    /// Starts a script; its output is then read with [`Running`].
    ///
    /// # Errors
    /// When the guest has gone.
    pub fn start(&mut self, script: &str) -> Result<Running<'_>> {
        let id = self.next;
        self.next += 1;
        let mut message = String::new();
        for line in script.lines() {
            message.push('|');
            message.push_str(line);
            message.push('\n');
        }
        message.push_str(&format!("@@ run {id}\n"));
        self.vm.agent().send(&message)?;
        Ok(Running { guest: self, id, script: script.to_owned(), begun: false, lines: Vec::new() })
    }

    /// Runs a script to its end.
    ///
    /// # Errors
    /// When it takes longer than `bound` (which is stretched where guests are slow) or the guest goes.
    pub fn run(&mut self, script: &str, bound: Duration) -> Result<Outcome> {
        self.start(script)?.finish(bound)
    }

    /// Runs a script that must end with status 0 within a minute (stretched where guests are slow); returns its output.
    ///
    /// # Errors
    /// As [`run`](Guest::run), or with its output when it fails.
    pub fn sh(&mut self, script: &str) -> Result<String> {
        let outcome = self.run(script, Duration::from_secs(60))?;
        if outcome.status == 0 {
            return Ok(outcome.text());
        }
        Err(Error::new(format!("in the guest: `{script}` ended with {}\n{}", outcome.status, outcome.text())))
    }

    /// Resets the guest's machine from within, as a kernel does that reboots at once, and waits until the agent answers again. The machine
    /// must be one that [reboots](Machine::reboots).
    ///
    /// # Errors
    /// When it does not come up; the message holds the console's end.
    pub fn reboot(&mut self) -> Result<()> {
        self.start("sync; echo b > /proc/sysrq-trigger")?;
        let ready = self.vm.agent().expect("@@ ready\n", BOOT * self.slowness);
        ready.context(|| self.vm.explain("the guest did not come up again"))?;
        Ok(())
    }

    /// Powers the guest off and waits for QEMU's end.
    ///
    /// # Errors
    /// When it does not end, or QEMU ends with another status than 0.
    pub fn poweroff(mut self) -> Result<()> {
        self.vm.agent().send("@@ poweroff\n")?;
        let status = self.vm.wait(POWEROFF * self.slowness)?;
        if status.success() { Ok(()) } else { Err(Error::new(self.vm.explain(&format!("QEMU ended with {status}")))) }
    }
}

/// A script that runs in a guest.
#[derive(Debug)]
pub struct Running<'a> {
    guest: &'a mut Guest,
    id: u32,
    script: String,
    begun: bool,
    lines: Vec<String>,
}

impl Running<'_> {
    /// The machine the script runs on.
    pub fn vm(&mut self) -> &mut Vm {
        &mut self.guest.vm
    }

    /// Waits until the script prints a line that contains `mark`.
    ///
    /// # Errors
    /// When it ends without, takes longer than `bound` (stretched where guests are slow), or the guest goes.
    pub fn wait_for(&mut self, mark: &str, bound: Duration) -> Result<()> {
        loop {
            if let Some(status) = self.step(bound)? {
                let text = self.lines.join("\n");
                return Err(Error::new(format!("in the guest: no \"{mark}\", but the end ({status})\n{text}")));
            }
            if self.lines.last().is_some_and(|line| line.contains(mark)) {
                return Ok(());
            }
        }
    }

    /// Waits for the script's end.
    ///
    /// # Errors
    /// When it takes longer than `bound` (stretched where guests are slow), or the guest goes.
    pub fn finish(mut self, bound: Duration) -> Result<Outcome> {
        loop {
            if let Some(status) = self.step(bound)? {
                return Ok(Outcome { status, lines: self.lines });
            }
        }
    }

    /// Waits for the script's end and looks at each line as soon as it comes.
    ///
    /// # Errors
    /// As [`finish`](Running::finish).
    pub fn watch(mut self, bound: Duration, mut look: impl FnMut(&str)) -> Result<Outcome> {
        loop {
            let seen = self.lines.len();
            let status = self.step(bound)?;
            self.lines.get(seen..).into_iter().flatten().for_each(|line| look(line));
            if let Some(status) = status {
                return Ok(Outcome { status, lines: self.lines });
            }
        }
    }

    /// Takes in one line; the status when it was the last.
    fn step(&mut self, bound: Duration) -> Result<Option<i32>> {
        let bound = bound * self.guest.slowness;
        let line = self.guest.vm.agent().line(bound);
        let line = line.context(|| self.guest.vm.explain(&format!("while the guest ran `{}`", self.script)))?;
        if let Some(output) = line.strip_prefix('|').filter(|_| self.begun) {
            self.lines.push(output.to_owned());
            return Ok(None);
        }
        let words: Vec<&str> = line.split(' ').collect();
        match words[..] {
            ["@@", "begin", id] if id == self.id.to_string() && !self.begun => {
                self.begun = true;
                Ok(None)
            }
            ["@@", "end", id, status] if id == self.id.to_string() && self.begun => {
                status.parse().map(Some).context(|| format!("the agent's line {line}"))
            }
            _ => Err(Error::new(self.guest.vm.explain(&format!("unexpected line from the agent: {line}")))),
        }
    }
}
