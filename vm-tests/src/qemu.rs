//! A virtual machine: the QEMU command line, and the running process with its console, agent port and monitor.
//!
//! A [`Machine`] is a q35 without default devices, whose memory is a shared memfd (a vhost-user back end must be able to
//! map it). Nothing the machine does reaches the network. What a test adds beyond the methods here goes through
//! [`Machine::arg`].

use crate::accel::Accel;
use crate::kernel::Kernel;
use crate::port::{Listening, Port};
use crate::process::Process;
use crate::qmp::Qmp;
use crate::{Context, Result};
use std::ffi::OsString;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, ExitStatus};
use std::time::Duration;

/// The emulator's name.
pub const QEMU: &str = "qemu-system-x86_64";

/// What runs before an operating system.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Firmware {
    /// The BIOS QEMU brings.
    SeaBios,
    /// UEFI, with a variable store of the machine's own.
    Ovmf,
}

impl Firmware {
    /// OVMF's read-only code, as Debian installs it.
    pub const OVMF_CODE: &'static str = "/usr/share/OVMF/OVMF_CODE_4M.fd";
    /// The empty variable store that belongs to it.
    pub const OVMF_VARS: &'static str = "/usr/share/OVMF/OVMF_VARS_4M.fd";
}

/// A virtual machine to be.
#[derive(Debug, Clone)]
pub struct Machine {
    name: String,
    accel: Accel,
    vcpus: u32,
    memory_mib: u32,
    firmware: Firmware,
    arguments: Vec<OsString>,
    disks: u32,
    reboots: bool,
}

impl Machine {
    /// How much memory it has unless told otherwise, in MiB.
    pub const MEMORY_MIB: u32 = 512;

    /// A machine with two vCPUs, 512 MiB of shared memory and SeaBIOS. `name` names its log files and is what errors
    /// call it.
    ///
    /// # Errors
    /// When QEMU cannot be run to find out which accelerator works.
    pub fn new(name: &str) -> Result<Machine> {
        Ok(Machine::with(name, Accel::best()?))
    }

    /// [`new`](Machine::new) with a given accelerator.
    pub fn with(name: &str, accel: Accel) -> Machine {
        Machine {
            name: name.to_owned(),
            accel,
            vcpus: 2,
            memory_mib: Machine::MEMORY_MIB,
            firmware: Firmware::SeaBios,
            arguments: Vec::new(),
            disks: 0,
            reboots: false,
        }
    }

    /// What runs the vCPUs.
    pub fn accel(&self) -> Accel {
        self.accel
    }

    /// Sets the number of vCPUs.
    #[must_use]
    pub fn vcpus(mut self, vcpus: u32) -> Machine {
        self.vcpus = vcpus;
        self
    }

    /// Sets the size of memory.
    #[must_use]
    pub fn memory_mib(mut self, mib: u32) -> Machine {
        self.memory_mib = mib;
        self
    }

    /// Sets the firmware.
    #[must_use]
    pub fn firmware(mut self, firmware: Firmware) -> Machine {
        self.firmware = firmware;
        self
    }

    /// Lets the guest reboot. Otherwise a reset ends QEMU, so that a guest that panics is noticed at once.
    #[must_use]
    pub fn reboots(mut self) -> Machine {
        self.reboots = true;
        self
    }

    /// Boots `kernel` with `initrd` and the command line `cmdline` directly, past the firmware's boot order.
    #[must_use]
    pub fn kernel(self, kernel: &Kernel, initrd: &Path, cmdline: &str) -> Machine {
        self.arg("-kernel").arg(&kernel.image).arg("-initrd").arg(initrd).arg("-append").arg(cmdline)
    }

    /// Attaches a vhost-user SCSI controller to a back end's socket, with `queues` request queues. The first one
    /// attached is the first to be booted from.
    #[must_use]
    pub fn vhost_user_scsi(self, socket: &Path, queues: u32) -> Machine {
        self.vhost_user_scsi_with(socket, queues, "", "")
    }

    /// [`vhost_user_scsi`](Machine::vhost_user_scsi) with more properties for the chardev and for the device, such as
    /// `,reconnect-ms=500` and `,virtqueue_size=1024`. The device's QOM path is `/machine/peripheral/scsi<n>`, counted from 1.
    #[must_use]
    pub fn vhost_user_scsi_with(mut self, socket: &Path, queues: u32, chardev: &str, device: &str) -> Machine {
        // A kernel given directly takes boot index 0.
        self.disks += 1;
        let n = self.disks;
        let path = escape(socket);
        self.arg("-chardev")
            .arg(format!("socket,id=vu{n},path={path}{chardev}"))
            .arg("-device")
            .arg(format!("vhost-user-scsi-pci,id=scsi{n},chardev=vu{n},num_queues={queues},bootindex={n}{device}"))
    }

    /// Attaches a raw image through QEMU's own virtio-scsi target: the yardstick, and a second opinion when a test
    /// fails. `device` holds further properties of the `scsi-hd`.
    #[must_use]
    pub fn scsi_hd(mut self, image: &Path, queues: u32, device: &str) -> Machine {
        // A kernel given directly takes boot index 0.
        self.disks += 1;
        let n = self.disks;
        let path = escape(image);
        self.arg("-blockdev")
            .arg(format!("driver=raw,node-name=hd{n},discard=unmap,file.driver=file,file.filename={path}"))
            .arg("-device")
            .arg(format!("virtio-scsi-pci,id=hba{n},num_queues={queues}"))
            .arg("-device")
            .arg(format!("scsi-hd,bus=hba{n}.0,drive=hd{n},bootindex={n}{device}"))
    }

    /// Attaches a raw image as a read-only virtio block device; the first is `/dev/vda`. Any number of machines may.
    #[must_use]
    pub fn read_only_disk(self, image: &Path) -> Machine {
        let path = escape(image);
        self.arg("-drive").arg(format!("if=virtio,format=raw,read-only=on,file={path}"))
    }

    /// Attaches a raw image as one more read-only virtio block device, which is found after all others; `serial` (at most 20 bytes) tells it in
    /// `/sys/block/*/serial`.
    #[must_use]
    pub fn last_disk(self, image: &Path, serial: &str) -> Machine {
        let path = escape(image);
        // Disks are named in the order of their slots; the chipset's own devices have the one above.
        self.arg("-blockdev")
            .arg(format!("driver=raw,node-name={serial},read-only=on,file.driver=file,file.filename={path}"))
            .arg("-device")
            .arg(format!("virtio-blk-pci,drive={serial},serial={serial},addr=0x1e"))
    }

    /// Adds one more word to QEMU's command line.
    #[must_use]
    pub fn arg(mut self, word: impl Into<OsString>) -> Machine {
        self.arguments.push(word.into());
        self
    }

    /// Starts the machine with sockets and logs in `dir`; its first serial port is [`Vm::console`].
    ///
    /// # Errors
    /// When QEMU cannot be started or ends at once; the message holds what it said.
    pub fn start(self, dir: &Path) -> Result<Vm> {
        let console = Listening::at(&dir.join(format!("{}-con", self.name)))?;
        let serial = ["-chardev".into(), chardev("con", console.path()), "-serial".into(), "chardev:con".into()];
        let log = dir.join(format!("{}-console.log", self.name));
        self.launch(dir, &serial, true, |process| console.accept(process, &log).map(Some))
    }

    /// Starts the machine with its first serial port on the caller's terminal (the escape key is Ctrl-A, as ever with
    /// QEMU): for people.
    ///
    /// # Errors
    /// As [`start`](Machine::start).
    pub fn start_on_terminal(self, dir: &Path) -> Result<Vm> {
        self.launch(dir, &["-serial".into(), "mon:stdio".into()], false, |_| Ok(None))
    }

    fn launch(
        self,
        dir: &Path,
        serial: &[OsString],
        background: bool,
        console: impl FnOnce(&mut Process) -> Result<Option<Port>>,
    ) -> Result<Vm> {
        let log = |what: &str| dir.join(format!("{}-{what}.log", self.name));
        let monitor = Listening::at(&dir.join(format!("{}-qmp", self.name)))?;
        let agent = Listening::at(&dir.join(format!("{}-agent", self.name)))?;
        let mut command = Command::new(QEMU);
        command.args(self.basics()).args(self.firmware_arguments(dir)?).args(serial);
        command.arg("-chardev").arg(chardev("qmp", monitor.path())).args(["-mon", "chardev=qmp,mode=control"]);
        command.arg("-chardev").arg(chardev("agent", agent.path())).args([
            "-device",
            "virtio-serial-pci,id=ports,max_ports=2",
            "-device",
            "virtserialport,bus=ports.0,chardev=agent,name=agent",
        ]);
        command.args(&self.arguments);
        let mut process = if background {
            Process::start(&self.name, command, &log("qemu"))?
        } else {
            Process::start_foreground(&self.name, command, &log("qemu"))?
        };
        let connect = || -> Result<(Option<Port>, Port, Qmp)> {
            let console = console(&mut process)?;
            let agent = agent.accept(&mut process, &log("agent"))?;
            let qmp = Qmp::new(monitor.accept(&mut process, &log("qmp"))?)?;
            Ok((console, agent, qmp))
        };
        let (console, agent, qmp) = connect().context(|| process.explain("QEMU did not start"))?;
        Ok(Vm { process, console, agent, qmp })
    }

    fn basics(&self) -> Vec<OsString> {
        let mut words: Vec<OsString> = Vec::new();
        let mut add = |list: &[&str]| words.extend(list.iter().map(OsString::from));
        add(&["-name", &self.name, "-nodefaults", "-no-user-config", "-display", "none"]);
        if !self.reboots {
            add(&["-no-reboot"]);
        }
        add(&["-machine", "q35,memory-backend=mem,vmport=off,usb=off,hpet=off,i8042=off"]);
        add(&["-object", &format!("memory-backend-memfd,id=mem,size={}M,share=on", self.memory_mib)]);
        add(&["-m", &format!("{}M", self.memory_mib), "-smp", &self.vcpus.to_string()]);
        add(&["-accel", self.accel.argument(), "-cpu", self.accel.cpu()]);
        add(&["-device", "virtio-rng-pci"]);
        words
    }

    fn firmware_arguments(&self, dir: &Path) -> Result<Vec<OsString>> {
        if self.firmware == Firmware::SeaBios {
            return Ok(Vec::new());
        }
        let vars = dir.join(format!("{}-vars.fd", self.name));
        fs::copy(Firmware::OVMF_VARS, &vars).context(|| format!("copy {}", Firmware::OVMF_VARS))?;
        let code = format!("if=pflash,unit=0,format=raw,readonly=on,file={}", Firmware::OVMF_CODE);
        let store = format!("if=pflash,unit=1,format=raw,file={}", escape(&vars));
        Ok(["-drive".into(), code.into(), "-drive".into(), store.into()].into())
    }
}

/// A path in an option list, where a comma is doubled.
fn escape(path: &Path) -> String {
    path.to_string_lossy().replace(',', ",,")
}

fn chardev(id: &str, socket: &Path) -> OsString {
    format!("socket,id={id},path={}", escape(socket)).into()
}

/// A running virtual machine. Dropping it kills it.
#[derive(Debug)]
pub struct Vm {
    process: Process,
    console: Option<Port>,
    agent: Port,
    qmp: Qmp,
}

impl Vm {
    /// The first serial port.
    ///
    /// # Errors
    /// When the machine was started on the caller's terminal.
    pub fn console(&mut self) -> Result<&mut Port> {
        self.console.as_mut().context(|| "the console is on the terminal")
    }

    /// The port the guest's agent answers at (see [`crate::guest`]).
    pub fn agent(&mut self) -> &mut Port {
        &mut self.agent
    }

    /// The monitor.
    pub fn qmp(&mut self) -> &mut Qmp {
        &mut self.qmp
    }

    /// QEMU's process, for signals.
    pub fn process(&mut self) -> &mut Process {
        &mut self.process
    }

    /// Waits for QEMU to end by itself, as it does when the guest powers off.
    ///
    /// # Errors
    /// When it still runs after `bound`; the message holds the console's end.
    pub fn wait(&mut self, bound: Duration) -> Result<ExitStatus> {
        self.process.wait(bound).context(|| self.explain("the machine did not power off"))
    }

    /// Kills QEMU (SIGKILL), as when the host loses it.
    pub fn kill(&mut self) {
        self.process.kill();
    }

    /// `message`, followed by the ends of the console's log and QEMU's own.
    pub fn explain(&self, message: &str) -> String {
        let message = self.process.explain(message);
        match &self.console {
            Some(console) => console.explain(&message),
            None => message,
        }
    }

    /// Where the logs are.
    pub fn logs(&self) -> Vec<PathBuf> {
        let mut logs = vec![self.process.log().to_owned(), self.agent.log().to_owned()];
        logs.extend(self.console.as_ref().map(|port| port.log().to_owned()));
        logs
    }
}
