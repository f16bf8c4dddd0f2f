//! `cargo xtask demo`: a real Debian guest booted from a disk that vstgt serves.
//!
//! Two processes, no harness in between: the command lines shown are the ones run, word for word, and work when typed
//! again. So that they do, the disk and the socket have a lasting place in the cache; every run begins with a fresh disk.
//! Both processes end with this one, however it ends.

use crate::accel::Accel;
use crate::cache::Cache;
use crate::port::{Listening, Port};
use crate::process::Process;
use crate::qemu::QEMU;
use crate::rootdisk::debian::{self, Shell};
use crate::rootdisk::{self, RootDisk};
use crate::vstgt::{Config, Vstgt};
use crate::{Context, Error, Result, paths, provision, sys, tools};
use std::env;
use std::fs::{self, File};
use std::io::ErrorKind;
use std::os::fd::OwnedFd;
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};
use std::process::{Command, ExitStatus};
use std::thread;
use std::time::{Duration, Instant};

/// The longest path a Unix socket can have.
const SOCKET_PATH: usize = 107;

/// How long the guest may take to power off, on KVM.
const POWEROFF: Duration = Duration::from_secs(15);

/// What the guest is asked to show.
const SHOWN: &[&str] = &[
    "uname -sr",
    "lsscsi -s",
    "lsblk -o NAME,SIZE,TYPE,MOUNTPOINTS,VENDOR,MODEL",
    "sg_inq /dev/sda",
    "findmnt -n -o SOURCE,FSTYPE,OPTIONS /",
    "dd if=/dev/urandom of=/root/mark bs=1M count=4 conv=fsync && ls -l /root/mark",
];

/// Makes a disk, starts vstgt, boots the guest, shows what it sees and powers it off; with `keep`, leaves the caller at
/// the guest's console instead.
///
/// # Errors
/// The first step that failed.
pub fn run(keep: bool) -> Result<()> {
    let start = Instant::now();
    step("what the host needs (packages, once)");
    provision::ensure()?;
    step("building vstgt");
    build()?;
    let place = Place::open(&Cache::open()?)?;
    let accel = Accel::best()?;

    step("starting vstgt");
    let config = place.vstgt();
    show(&config.command()?);
    let mut vstgt = config.start(&place.path("vstgt.log"))?;
    step("starting the guest (its login prompt takes about half a minute without KVM)");
    let qemu = place.qemu(accel);
    show(&qemu);
    let visit = if keep { at_the_console(qemu, &mut vstgt) } else { tour(qemu, accel, &place) };
    visit.context(|| vstgt.process().explain("the guest did not go as it should; what vstgt said"))?;
    step("the guest is off; ending vstgt");
    vstgt.terminate()?;
    println!("exit status 0");
    step("checking the disk");
    match (rootdisk::check(&place.disk()), keep) {
        (Ok(()), _) => println!("its root file system is clean"),
        // Who is left alone with a machine may also pull its plug.
        (Err(error), true) => println!("{error}"),
        (Err(error), false) => return Err(error),
    }
    println!("\nDone in {:.0?}. The two commands above do it again.", start.elapsed());
    Ok(())
}

fn step(what: &str) {
    println!("\n\x1b[1m── {what}\x1b[0m");
}

fn build() -> Result<()> {
    if env::var_os(paths::VSTGT_BIN).is_some() {
        return Ok(());
    }
    let mut cargo = Command::new(env::var_os("CARGO").unwrap_or_else(|| "cargo".into()));
    cargo.current_dir(paths::repository()).args(["build", "--release", "--quiet", "-p", "vstgt"]);
    tools::run_visible(cargo)
}

/// The folder of the disk and the socket, one demonstration's at a time.
struct Place {
    dir: PathBuf,
    /// Holds the lock.
    _lock: File,
}

impl Place {
    /// Takes the folder and puts a fresh disk in it.
    fn open(cache: &Cache) -> Result<Place> {
        step("a fresh copy of the Debian root disk");
        let dir = cache.root().join("demo");
        fs::create_dir_all(&dir).context(|| format!("make {}", dir.display()))?;
        let lock = dir.join("lock");
        let file = File::create(&lock).context(|| format!("create {}", lock.display()))?;
        if !sys::lock(&file, false).context(|| format!("lock {}", lock.display()))? {
            return Err(Error::new("another demonstration is running"));
        }
        let place = Place { dir, _lock: file };
        let socket = place.socket();
        if socket.as_os_str().len() > SOCKET_PATH {
            return Err(Error::new(format!(
                "{} is too long for a socket: name another folder in VSTGT_CACHE",
                socket.display()
            )));
        }
        remove_if_there(&socket)?;
        RootDisk::get(cache)?.copy(&place.disk())?;
        println!("{}", place.disk().display());
        Ok(place)
    }

    fn path(&self, name: &str) -> PathBuf {
        self.dir.join(name)
    }

    fn disk(&self) -> PathBuf {
        self.path("disk.img")
    }

    fn socket(&self) -> PathBuf {
        self.path("vm.sock")
    }

    fn vstgt(&self) -> Config {
        Config::new().socket(&self.socket()).arg("--blk-file").arg(self.disk())
    }

    /// The machine: what it takes to boot from vstgt, and a serial port on the terminal.
    fn qemu(&self, accel: Accel) -> Command {
        let socket = self.socket().to_string_lossy().replace(',', ",,");
        let mut qemu = Command::new(QEMU);
        qemu.args(["-accel", accel.argument(), "-cpu", accel.cpu()])
            .args(["-machine", "q35,memory-backend=mem", "-smp", "2", "-m", "512M"])
            .args(["-object", "memory-backend-memfd,id=mem,size=512M,share=on"])
            .args(["-chardev", &format!("socket,id=vu,path={socket}")])
            .args(["-device", "vhost-user-scsi-pci,chardev=vu,bootindex=1"])
            .args(["-nodefaults", "-no-reboot", "-display", "none", "-serial", "mon:stdio"]);
        qemu
    }
}

/// Shows a command so that it can be typed: quoted, one option a line.
fn show(command: &Command) {
    println!("{}", shown(command));
}

fn shown(command: &Command) -> String {
    let mut text = quoted(&command.get_program().to_string_lossy());
    for word in command.get_args() {
        let word = word.to_string_lossy();
        text.push_str(if word.starts_with('-') { " \\\n    " } else { " " });
        text.push_str(&quoted(&word));
    }
    text
}

/// A word as a shell takes it.
fn quoted(word: &str) -> String {
    let plain = |c: char| c.is_ascii_alphanumeric() || "-_./=,:+@%".contains(c);
    if !word.is_empty() && word.chars().all(plain) {
        return word.to_owned();
    }
    format!("'{}'", word.replace('\'', r"'\''"))
}

/// Boots the machine with a person's terminal replaced by this program, which shows around.
fn tour(qemu: Command, accel: Accel, place: &Place) -> Result<()> {
    let start = Instant::now();
    let (mut qemu, mut console) = start_with_console(qemu, &place.dir)?;
    let slowness = accel.slowness();
    debian::wait_for_login(&mut console, slowness).context(|| qemu.explain("what QEMU said"))?;
    println!("\nSeaBIOS, grub, Linux, systemd: the login prompt is there after {:.0?}", start.elapsed());
    let mut shell = Shell::log_in(&mut console, slowness)?;
    for command in SHOWN {
        step(&format!("in the guest: {command}"));
        print!("{}", shell.run(command)?);
    }
    step("in the guest: poweroff");
    shell.power_off()?;
    let status = qemu.wait(POWEROFF * slowness).context(|| console.explain("power the guest off"))?;
    ended_well(status)?;
    println!("QEMU: exit status 0");
    Ok(())
}

/// Starts QEMU with its standard input and output, where its serial port is, at our end of a socket.
fn start_with_console(mut qemu: Command, dir: &Path) -> Result<(Process, Port)> {
    let (path, log) = (dir.join("console"), dir.join("qemu.log"));
    remove_if_there(&path)?;
    let terminal = Listening::at(&path)?;
    let input = UnixStream::connect(&path).context(|| format!("connect to {}", path.display()))?;
    let output = input.try_clone().context(|| "share a socket")?;
    let words = File::create(&log).context(|| format!("create {}", log.display()))?;
    qemu.stdin(OwnedFd::from(input)).stdout(OwnedFd::from(output)).stderr(words);
    let mut process = Process::start_foreground("QEMU", qemu, &log)?;
    let console = terminal.accept(&mut process, &dir.join("console.log"))?;
    Ok((process, console))
}

/// Boots the machine on the caller's own terminal and waits for its end, which is the caller's to choose.
fn at_the_console(qemu: Command, vstgt: &mut Vstgt) -> Result<()> {
    println!(
        "\nThis terminal becomes the guest's console. Log in as root, without a password.\n\
         `poweroff` ends the guest; Ctrl-A X ends QEMU at once; Ctrl-A H shows more.\n"
    );
    let mut qemu = Process::start_foreground("QEMU", qemu, Path::new("/dev/null"))?;
    loop {
        if let Some(status) = qemu.ended()? {
            return ended_well(status);
        }
        if let Some(status) = vstgt.process().ended()? {
            return Err(Error::new(format!("vstgt ended ({status})")));
        }
        thread::sleep(Duration::from_millis(100));
    }
}

fn ended_well(status: ExitStatus) -> Result<()> {
    match status.success() {
        true => Ok(()),
        false => Err(Error::new(format!("QEMU ended with {status}"))),
    }
}

/// Removes what a run that was interrupted left.
fn remove_if_there(path: &Path) -> Result<()> {
    match fs::remove_file(path) {
        Err(error) if error.kind() != ErrorKind::NotFound => {
            Err(error).context(|| format!("remove {}", path.display()))
        }
        _ => Ok(()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::workdir::WorkDir;

    #[test]
    fn a_command_is_shown_as_a_shell_takes_it() {
        let mut command = Command::new("/a b/vstgt");
        command.args(["--blk-file", "it's", "--socket-path", "/x/y.sock,initiator=a"]);
        let text = shown(&command);
        assert_eq!(text, "'/a b/vstgt' \\\n    --blk-file 'it'\\''s' \\\n    --socket-path /x/y.sock,initiator=a");
        let printed = format!("for word in {text}; do echo \"[$word]\"; done");
        let words = tools::run("sh", &["-c", &printed], Duration::from_secs(10)).unwrap();
        assert_eq!(words, "[/a b/vstgt]\n[--blk-file]\n[it's]\n[--socket-path]\n[/x/y.sock,initiator=a]\n");
    }

    #[test]
    fn the_console_is_the_program_s_standard_input_and_output() {
        let logs = WorkDir::new("demo").unwrap();
        let mut cat = Command::new("sh");
        cat.args(["-c", "read word; echo got $word; echo aside >&2"]);
        let (mut process, mut console) = start_with_console(cat, logs.root()).unwrap();
        console.send("hello\n").unwrap();
        assert_eq!(console.line(Duration::from_secs(10)).unwrap(), "got hello");
        assert!(process.wait(Duration::from_secs(10)).unwrap().success());
        assert_eq!(process.output(), "aside\n");
    }
}
