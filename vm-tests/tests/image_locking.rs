//! Image locks between vstgt and QEMU's programs: whichever has an image first keeps the other from writing it, and readers share.
//!
//! No guest runs here. What a program says when it is refused is its own matter, but that it names the file is ours.

use std::fs;
use std::path::Path;
use std::process::Command;
use std::thread;
use std::time::{Duration, Instant};
use vm_tests::process::{Process, wait_until};
use vm_tests::vstgt::Config;
use vm_tests::workdir::WorkDir;
use vm_tests::{Context, Error, Result, provision, sys, tools};

const MIB: u64 = 1 << 20;
const BOUND: Duration = Duration::from_secs(30);

/// How long vstgt waits for an image to become free.
const PATIENCE: Duration = Duration::from_secs(5);

/// Some program that has the image, all its locks taken.
fn holder(name: &str, dir: &WorkDir, image: &Path, arguments: &[String]) -> Result<Process> {
    let program = tools::find(name).context(|| format!("find {name}"))?;
    let mut command = Command::new(program);
    command.args(arguments);
    let mut process = Process::start(name, command, &dir.path(&format!("{name}.log")))?;
    wait_until(BOUND, || match process.ended()? {
        Some(status) => Err(Error::new(process.explain(&format!("{name} ended early ({status})")))),
        None => Ok(locks(process.id(), image)?.then_some(())),
    })?
    .context(|| process.explain(&format!("{name} does not lock {}", image.display())))?;
    Ok(process)
}

/// Whether a process writes a file or does not share that, as the kernel tells of its descriptors: other bytes QEMU's programs lock for a moment before,
/// while they look at the image. (qemu-storage-daemon shares writing.)
fn locks(process: u32, file: &Path) -> Result<bool> {
    use std::os::unix::fs::MetadataExt;
    let inode = format!(":{} ", fs::metadata(file).context(|| format!("look at {}", file.display()))?.ino());
    let entries = fs::read_dir(format!("/proc/{process}/fdinfo")).context(|| "list descriptors".to_owned())?;
    let ends = |line: &str| [" 101", " 201"].iter().any(|byte| line.ends_with(byte));
    let told = |info: String| info.lines().any(|line| line.starts_with("lock:") && line.contains(&inode) && ends(line));
    Ok(entries.flatten().any(|fd| fs::read_to_string(fd.path()).is_ok_and(told)))
}

fn machine(image: &Path, drive: &str, device: &str) -> Vec<String> {
    let words = ["-machine", "q35", "-nodefaults", "-display", "none", "-S", "-device", "virtio-scsi-pci", "-drive"];
    let mut words: Vec<String> = words.map(str::to_owned).into();
    words.push(format!("if=none,id=d,format=raw,file={}{drive}", image.display()));
    words.extend(["-device".to_owned(), format!("scsi-hd,drive=d{device}")]);
    words
}

/// What a program that must not get at the image says.
fn refused(program: &str, arguments: &[String]) -> Result<String> {
    match tools::run(program, arguments, BOUND) {
        Ok(said) => Err(Error::new(format!("{program} {arguments:?} was not refused: {said}"))),
        Err(error) => Ok(error.to_string()),
    }
}

fn words(line: &str, image: &Path) -> Vec<String> {
    line.split('|').map(|word| word.replace("IMAGE", &image.display().to_string())).collect()
}

fn config(dir: &WorkDir, image: &Path, keys: &str) -> Config {
    Config::new().socket(&dir.path("a.sock")).lun(image, keys)
}

#[test]
fn vstgt_does_not_start_while_qemu_has_the_image() -> Result<()> {
    provision::check()?;
    let dir = WorkDir::new("locking")?;
    let image = dir.sparse("disk.img", 16 * MIB)?;
    let log = dir.path("vstgt.log");
    let storage = words(
        &format!(
            "--blockdev|driver=file,node-name=f,filename=IMAGE|--export|type=vhost-user-blk,id=e,node-name=f,writable=on,\
             addr.type=unix,addr.path={}",
            dir.path("export.sock").display()
        ),
        &image,
    );
    for (name, arguments) in [("qemu-system-x86_64", machine(&image, "", "")), ("qemu-storage-daemon", storage)] {
        let holder = holder(name, &dir, &image, &arguments)?;
        for keys in ["", ",read-only=on", ",locking=on"] {
            let begun = Instant::now();
            let said = config(&dir, &image, keys).refused(&log)?;
            assert!(begun.elapsed() >= PATIENCE, "{:?}: {said}", begun.elapsed());
            // The kernel keeps 15 characters of a program's name.
            let named = format!("{} (process {}) writes it", &name[..15], holder.id());
            assert!(said.contains(&image.display().to_string()) && said.contains(&named), "{said}");
            assert!(said.contains("lsof") && said.contains("locking=off"), "{said}");
            assert!(!dir.path("a.sock").exists());
        }
        drop(holder);
    }

    // Read-only on the other side: writers are kept out, readers are not.
    let holder = holder("qemu-system-x86_64", &dir, &image, &machine(&image, ",readonly=on", ""))?;
    let said = config(&dir, &image, "").refused(&log)?;
    assert!(said.contains("uses it and does not let it be written"), "{said}");
    config(&dir, &image, ",read-only=on").start(&log)?.terminate()?;
    drop(holder);
    config(&dir, &image, "").start(&log)?.terminate()?;
    dir.finish();
    Ok(())
}

#[test]
fn qemu_does_not_write_what_vstgt_serves() -> Result<()> {
    provision::check()?;
    let dir = WorkDir::new("locking")?;
    let image = dir.sparse("disk.img", 16 * MIB)?;
    let source = dir.sparse("source.img", 16 * MIB)?;
    let log = dir.path("vstgt.log");
    let writers = [
        ("qemu-io", words("-f|raw|-c|write 0 512|IMAGE", &image)),
        ("qemu-img", words(&format!("convert|-n|-f|raw|-O|raw|{}|IMAGE", source.display()), &image)),
        ("qemu-img", words("resize|-f|raw|IMAGE|32M", &image)),
        ("qemu-system-x86_64", machine(&image, "", "")),
        ("qemu-system-x86_64", machine(&image, "", ",share-rw=on")),
    ];
    let readers = [
        ("qemu-img", words("info|-f|raw|IMAGE", &image)),
        ("qemu-img", words("info|-U|-f|raw|IMAGE", &image)),
        ("qemu-io", words("-r|-f|raw|-c|read 0 512|IMAGE", &image)),
        ("qemu-io", words("-r|-U|-f|raw|-c|read 0 512|IMAGE", &image)),
    ];
    for keys in ["", ",read-only=on"] {
        let vstgt = config(&dir, &image, keys).start(&log)?;
        for (program, arguments) in &writers {
            let said = refused(program, arguments)?;
            assert!(said.contains(r#"Failed to get "write" lock"#), "{program} {arguments:?}: {said}");
        }
        for (program, arguments) in &readers {
            tools::run(program, arguments, BOUND)?;
        }
        // QEMU's own read-only disk does not let others write.
        let arguments = machine(&image, ",readonly=on", "");
        if keys.is_empty() {
            let said = refused("qemu-system-x86_64", &arguments)?;
            assert!(said.contains(r#"Failed to get shared "write" lock"#), "{said}");
        } else {
            drop(holder("qemu-system-x86_64", &dir, &image, &arguments)?);
        }
        vstgt.terminate()?;
    }
    // It ends with the process; and what is not locked keeps nobody out.
    let (program, arguments) = &writers[0];
    tools::run(program, arguments, BOUND)?;
    let vstgt = config(&dir, &image, ",locking=off").start(&log)?;
    tools::run(program, arguments, BOUND)?;
    vstgt.terminate()?;
    assert_eq!(fs::metadata(&image).context(|| "look at the image".to_owned())?.len(), 16 * MIB);
    dir.finish();
    Ok(())
}

/// The successor may be started before its predecessor is through, be that QEMU or another vstgt.
#[test]
fn vstgt_waits_for_whoever_is_about_to_end() -> Result<()> {
    provision::check()?;
    let dir = WorkDir::new("locking")?;
    let image = dir.sparse("disk.img", 16 * MIB)?;
    let log = dir.path("vstgt.log");
    for name in ["qemu-system-x86_64", "vstgt"] {
        let before = fs::read_to_string(&log).unwrap_or_default().len();
        let qemu = (name != "vstgt").then(|| holder(name, &dir, &image, &machine(&image, "", ""))).transpose()?;
        let old = (name == "vstgt")
            .then(|| Config::new().socket(&dir.path("old.sock")).lun(&image, "").start(&dir.path("old.log")));
        let old = old.transpose()?;
        let ending = thread::spawn(move || {
            thread::sleep(Duration::from_secs(1));
            drop(qemu);
            old.map(|old| old.terminate()).transpose().map(drop)
        });
        let begun = Instant::now();
        let vstgt = config(&dir, &image, "").start(&log)?;
        assert!(begun.elapsed() >= Duration::from_millis(900), "{:?}", begun.elapsed());
        ending.join().map_err(|_| Error::new("the ending thread panicked"))??;
        vstgt.terminate()?;
        let said = fs::read_to_string(&log).context(|| "read the log".to_owned())?;
        let said = said.get(before..).unwrap_or(&said);
        assert_eq!(said.matches("has it locked").count(), 1, "{said}");
    }
    dir.finish();
    Ok(())
}

/// The same locks on a block device; without the rights to make one it is left out.
#[test]
fn block_devices_are_locked() -> Result<()> {
    provision::check()?;
    if !sys::is_root() {
        eprintln!("left out: loop devices are root's");
        return Ok(());
    }
    let dir = WorkDir::new("locking")?;
    let image = dir.sparse("disk.img", 16 * MIB)?;
    let device = match tools::run("losetup", &words("--find|--show|IMAGE", &image), BOUND) {
        Ok(device) => device.trim().to_owned(),
        Err(error) => {
            eprintln!("left out: no loop device is to be had here: {error}");
            return Ok(());
        }
    };
    let result = on_device(&dir, Path::new(&device));
    tools::run("losetup", &["--detach", &device], BOUND)?;
    result?;
    dir.finish();
    Ok(())
}

fn on_device(dir: &WorkDir, device: &Path) -> Result<()> {
    let log = dir.path("vstgt.log");
    let vstgt = config(dir, device, "").start(&log)?;
    let write = words("--image-opts|-c|write 0 512|driver=host_device,filename=IMAGE", device);
    let said = refused("qemu-io", &write)?;
    assert!(said.contains(r#"Failed to get "write" lock"#), "{said}");
    vstgt.terminate()?;
    tools::run("qemu-io", &write, BOUND)?;
    let holder = holder("qemu-system-x86_64", dir, device, &machine(device, "", ""))?;
    let said = config(dir, device, "").refused(&log)?;
    assert!(said.contains("writes it"), "{said}");
    drop(holder);
    Ok(())
}
