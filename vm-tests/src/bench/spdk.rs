//! SPDK's `vhost` application as a virtio-scsi back-end: over its own RAM disk where the other targets have a file on tmpfs, over its AIO disk,
//! which opens a file past the page cache, where they have O_DIRECT. It has nothing that uses the page cache.
//!
//! It looks for requests on one processor without ever sleeping, so its processor time is the time that passes. It wants huge pages for itself, and
//! maps the front-end's memory safely only if that is of huge pages, too; without any, it is run on ordinary ones.

use super::workload::{Medium, Workload};
use crate::{Context, Result};
use std::fs;
use std::path::Path;
use std::process::Command;

/// Bytes that it uses besides its RAM disk, with some to spare.
const OWN: u64 = 450 << 20;

/// Bytes of a block of its disks.
const BLOCK: u64 = 512;

/// Whether there are huge pages for it and for `guest` bytes of the front-end's memory.
pub fn has_huge_pages(workload: &Workload, image: u64, guest: u64) -> bool {
    let text = fs::read_to_string("/proc/meminfo").unwrap_or_default();
    let field = |name: &str| {
        let line = text.lines().find_map(|line| line.strip_prefix(name))?;
        line.split_whitespace().next()?.parse::<u64>().ok()
    };
    let free = field("HugePages_Free:").zip(field("Hugepagesize:")).map_or(0, |(pages, kib)| pages * (kib << 10));
    free >= memory(workload, image) + guest
}

fn memory(workload: &Workload, image: u64) -> u64 {
    OWN + if is_ram(workload) { image } else { 0 }
}

/// Whether what it serves is in its own memory, and begins with zeros.
pub fn is_ram(workload: &Workload) -> bool {
    workload.medium == Medium::Tmpfs
}

/// The command that serves `image`, or as much memory, at `socket`. What else it needs is written beside the socket.
///
/// # Errors
/// When its configuration cannot be written.
pub fn command(
    binary: &Path,
    workload: &Workload,
    image: &Path,
    bytes: u64,
    huge_pages: bool,
    socket: &Path,
) -> Result<Command> {
    let dir = socket.parent().context(|| "a socket outside of folders")?;
    let name = socket.file_name().and_then(|name| name.to_str()).context(|| "a socket's name")?;
    let config = dir.join("spdk.json");
    let image = image.to_str().context(|| "an image's name")?;
    fs::write(&config, configuration(workload, image, bytes, name))
        .context(|| format!("write {}", config.display()))?;
    let mut command = Command::new(binary);
    // One processor, no PCI devices; memory as it goes, or all of it beforehand.
    command.args(["-m", "0x1", "-u"]);
    if huge_pages {
        command.args(["-s", "64"]);
    } else {
        command.arg("-s").arg((memory(workload, bytes) >> 20).to_string());
        command.arg("--env-context=--no-huge --legacy-mem");
    }
    // It names the socket after the controller, and takes the folder as a prefix.
    command.arg("-S").arg(dir).arg("-c").arg(config);
    command.arg("-r").arg(dir.join("spdk.rpc")).arg("-f").arg(dir.join("spdk.pid"));
    Ok(command)
}

fn configuration(workload: &Workload, image: &str, bytes: u64, controller: &str) -> String {
    let blocks = bytes / BLOCK;
    let disk = if is_ram(workload) {
        format!(
            r#"{{"method":"bdev_malloc_create","params":{{"name":"disk","num_blocks":{blocks},"block_size":{BLOCK}}}}}"#
        )
    } else {
        let image = image.replace('\\', "\\\\").replace('"', "\\\"");
        format!(
            r#"{{"method":"bdev_aio_create","params":{{"name":"disk","filename":"{image}","block_size":{BLOCK}}}}}"#
        )
    };
    format!(
        r#"{{"subsystems":[{{"subsystem":"bdev","config":[{disk}]}},{{"subsystem":"vhost_scsi","config":[
{{"method":"vhost_create_scsi_controller","params":{{"ctrlr":"{controller}","cpumask":"0x1"}}}},
{{"method":"vhost_scsi_controller_add_target","params":{{"ctrlr":"{controller}","scsi_target_num":0,"bdev_name":"disk"}}}}]}}]}}"#
    )
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::json::Value;

    #[test]
    fn its_configuration_is_json_whatever_the_image_is_called() {
        for medium in [Medium::Tmpfs, Medium::Direct] {
            let workload = Workload { medium, write: false, random: true, bytes: 4096, depth: 1, queues: 1 };
            let text = configuration(&workload, r#"/a "b"\c"#, 4 << 20, "socket");
            let value = Value::parse(&text).expect(&text);
            let [disk, _] = value.get("subsystems").unwrap().list() else { panic!("{text}") };
            let params = disk.get("config").and_then(|config| config.list().first()?.get("params")).unwrap();
            match medium {
                Medium::Tmpfs => assert!(matches!(params.get("num_blocks"), Some(Value::Number(8192.0)))),
                _ => assert!(matches!(params.get("filename"), Some(Value::Text(name)) if name == r#"/a "b"\c"#)),
            }
        }
    }
}
