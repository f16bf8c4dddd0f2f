//! Who is loaded: vstgt, its peers, and fio as the floor of what the same machine does without virtio.

use super::device::Device;
use super::spdk;
use super::workload::{Medium, Workload};
use crate::{Error, Result, paths, tools};
use std::path::{Path, PathBuf};
use std::process::Command;

/// QEMU's block layer as a vhost-user-blk back-end.
pub const QSD: &str = "qemu-storage-daemon";

/// One who is loaded.
#[derive(Debug, Clone)]
pub struct Target {
    /// What the report calls it.
    pub name: String,
    /// What it is.
    pub kind: Kind,
}

/// What a target is.
#[derive(Debug, Clone)]
pub enum Kind {
    /// A vstgt binary with further arguments.
    Vstgt(PathBuf, Vec<String>),
    /// The same, with a second socket by which another initiator may come to the same logical unit.
    VstgtShared(PathBuf, Vec<String>),
    /// The same, with the front-end's memory registered with the kernel, as far as the limit of locked memory allows.
    VstgtRegistered(PathBuf, Vec<String>),
    /// qemu-storage-daemon with this `aio`.
    Qsd(&'static str),
    /// The published crate vhost-device-scsi.
    VhostDeviceScsi(PathBuf),
    /// SPDK's vhost application.
    Spdk(PathBuf),
    /// fio with this engine, on the file itself.
    Fio(&'static str),
}

/// vstgt's name in the report: what ratios are relative to.
pub const VSTGT: &str = "vstgt";

impl Target {
    fn new(name: impl Into<String>, kind: Kind) -> Target {
        Target { name: name.into(), kind }
    }

    /// Why it cannot do this workload, if that is known beforehand.
    pub fn excuse(&self, workload: &Workload) -> Option<&'static str> {
        let direct = workload.medium == Medium::Direct;
        match &self.kind {
            Kind::Qsd("native") if !direct => Some("aio=native wants O_DIRECT"),
            Kind::VhostDeviceScsi(_) if workload.write => Some("it does not write"),
            Kind::VhostDeviceScsi(_) if direct => Some("it has no O_DIRECT"),
            Kind::VhostDeviceScsi(_) if workload.queues > 1 => Some("it has one request queue"),
            Kind::Spdk(_) if workload.medium == Medium::Cached => Some("it has no page cache"),
            Kind::VstgtShared(..) if direct => Some("O_DIRECT is what sharing costs: the same"),
            Kind::VstgtRegistered(..) if workload.medium == Medium::Tmpfs => {
                Some("what is mapped is copied by vstgt itself")
            }
            _ => None,
        }
    }

    /// The command that serves `image`, of so many bytes, at `socket` and the device it plays.
    ///
    /// # Errors
    /// When it cannot be prepared, or the target serves nothing but loads the file itself.
    pub fn command(
        &self,
        workload: &Workload,
        image: &Path,
        bytes: u64,
        huge_pages: bool,
        socket: &Path,
    ) -> Result<(Command, Device)> {
        let direct = workload.medium == Medium::Direct;
        // A comma in an option list is doubled, by vstgt and by QEMU alike.
        let escape = |path: &Path| path.to_string_lossy().replace(',', ",,");
        let (image_word, socket_word) = (escape(image), escape(socket));
        match &self.kind {
            Kind::Vstgt(binary, arguments)
            | Kind::VstgtShared(binary, arguments)
            | Kind::VstgtRegistered(binary, arguments) => {
                let mut command = Command::new(binary);
                if matches!(self.kind, Kind::VstgtRegistered(..)) {
                    command.args(["--register-memory", "1T"]);
                }
                let cache = if direct { ",cache=none" } else { "" };
                command.args(["--lun", &format!("file={image_word}{cache}")]).args(["--socket-path", &socket_word]);
                if matches!(self.kind, Kind::VstgtShared(..)) {
                    command.args(["--socket-path", &format!("{socket_word}-other")]);
                }
                command.args(arguments);
                Ok((command, Device::Scsi))
            }
            Kind::Qsd(aio) => {
                let cache = if direct { "on" } else { "off" };
                let mut command = Command::new(QSD);
                command.arg("--blockdev");
                command
                    .arg(format!("driver=file,node-name=image,filename={image_word},aio={aio},cache.direct={cache}"));
                command.arg("--export");
                command.arg(format!(
                    "type=vhost-user-blk,id=export,node-name=image,addr.type=unix,addr.path={socket_word},\
                     writable=on,num-queues={}",
                    workload.queues
                ));
                Ok((command, Device::Blk))
            }
            Kind::VhostDeviceScsi(binary) => {
                let mut command = Command::new(binary);
                command.arg("-r").arg("--socket-path").arg(socket).arg(image);
                Ok((command, Device::Scsi))
            }
            Kind::Spdk(binary) => {
                Ok((spdk::command(binary, workload, image, bytes, huge_pages, socket)?, Device::Scsi))
            }
            Kind::Fio(_) => Err(Error::new("fio serves nobody")),
        }
    }
}

/// Who is here and who is not, and why.
#[derive(Debug, Default)]
pub struct Targets {
    /// Those that can be loaded.
    pub here: Vec<Target>,
    /// Those that cannot: name and reason.
    pub absent: Vec<(String, String)>,
}

impl Targets {
    /// Looks for all of them. `vhost_device_scsi` is what installing that crate came to, `spdk` where somebody says that SPDK's is.
    ///
    /// # Errors
    /// When there is no vstgt.
    pub fn find(
        vstgt_arguments: &[String],
        baseline: Option<&Path>,
        spdk: Option<&Path>,
        vhost_device_scsi: Result<PathBuf>,
    ) -> Result<Targets> {
        let mut targets = Targets::default();
        let vstgt = |binary: PathBuf| Kind::Vstgt(binary, vstgt_arguments.to_vec());
        targets.here.push(Target::new(VSTGT, vstgt(paths::vstgt_binary()?)));
        let shared = Kind::VstgtShared(paths::vstgt_binary()?, vstgt_arguments.to_vec());
        targets.here.push(Target::new("vstgt, shared LUN", shared));
        let registered = Kind::VstgtRegistered(paths::vstgt_binary()?, vstgt_arguments.to_vec());
        targets.here.push(Target::new("vstgt, registered memory", registered));
        if let Some(binary) = baseline {
            targets.here.push(Target::new("vstgt, baseline", vstgt(binary.to_owned())));
        }
        match vhost_device_scsi {
            Ok(binary) => targets.here.push(Target::new("vhost-device-scsi", Kind::VhostDeviceScsi(binary))),
            Err(error) => targets.absent.push(("vhost-device-scsi".to_owned(), error.to_string())),
        }
        match spdk {
            Some(binary) => targets.here.push(Target::new("SPDK vhost-scsi", Kind::Spdk(binary.to_owned()))),
            None => targets.absent.push(("SPDK vhost-scsi".to_owned(), "no --spdk is given".to_owned())),
        }
        for aio in ["threads", "native", "io_uring"] {
            targets.add(QSD, format!("{QSD} {aio}"), Kind::Qsd(aio));
        }
        for engine in ["psync", "io_uring"] {
            targets.add("fio", format!("fio {engine}"), Kind::Fio(engine));
        }
        Ok(targets)
    }

    fn add(&mut self, program: &str, name: String, kind: Kind) {
        match tools::find(program) {
            Some(_) => self.here.push(Target::new(name, kind)),
            None => self.absent.push((name, format!("no {program} here"))),
        }
    }
}
