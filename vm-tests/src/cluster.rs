//! Several guests and one disk they share, as a cluster has it: each guest on a socket of its own, each an I_T nexus of its own.
//!
//! What nodes ask the disk for goes through sg3_utils, whose exit status tells how the device server answered ([`Exit`]).

use crate::cache::Cache;
use crate::guest::{Booting, Guest};
use crate::kernel::Line;
use crate::qemu::Machine;
use crate::vstgt::{Config, Vstgt};
use crate::workdir::WorkDir;
use crate::{Context, Error, Result, packageroot};
use std::path::{Path, PathBuf};
use std::time::Duration;

/// The shared disk's serial number.
pub const SERIAL: &str = "SHARED01";

/// How long one command may take, where guests are fast.
const COMMAND: Duration = Duration::from_secs(20);

/// How often QEMU tries to connect again when vstgt has gone.
const RECONNECT: &str = ",reconnect-ms=200";

/// How a command of sg3_utils ended (sg3_utils(8), EXIT STATUS).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Exit {
    /// GOOD.
    Good,
    /// CHECK CONDITION, ILLEGAL REQUEST, whatever but an unknown operation code.
    IllegalRequest,
    /// CHECK CONDITION, UNIT ATTENTION.
    UnitAttention,
    /// RESERVATION CONFLICT.
    Conflict,
    /// Anything else.
    Other(i32),
}

impl Exit {
    /// What a status means.
    pub fn from_status(status: i32) -> Exit {
        match status {
            0 => Exit::Good,
            5 => Exit::IllegalRequest,
            6 => Exit::UnitAttention,
            24 => Exit::Conflict,
            other => Exit::Other(other),
        }
    }
}

/// What PERSISTENT RESERVE IN tells of a disk: everything sg_persist shows of READ KEYS and READ RESERVATION.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Reservations {
    /// PRGENERATION.
    pub generation: u32,
    /// The keys, in the order they came.
    pub keys: Vec<u64>,
    /// The reservation's key (zero with the All Registrants types) and the name sg_persist has for its type.
    pub held: Option<(u64, String)>,
}

/// A guest and the name of the shared disk in it.
#[derive(Debug)]
pub struct Node {
    /// Its name, which is its initiator port's name, too.
    pub name: String,
    /// The guest.
    pub guest: Guest,
    /// The shared disk's device, `/dev/sda` for instance.
    pub disk: String,
}

/// The guests, the program that serves them, and the image; dropped from the top down.
#[derive(Debug)]
pub struct Cluster {
    /// In the order they were named.
    pub nodes: Vec<Node>,
    /// The program under test.
    pub vstgt: Vstgt,
    /// The shared disk's image.
    pub image: PathBuf,
    /// Where everything lies.
    pub dir: WorkDir,
    config: Config,
}

impl Cluster {
    /// Boots a guest for each of `names`, all at once, with two vCPUs and two queues each, onto one sparse image of `bytes`
    /// bytes. `more` adds to vstgt's command line.
    ///
    /// # Errors
    /// When vstgt or a guest does not start, or a guest does not find the disk.
    pub fn start(names: &[&str], bytes: u64, more: impl FnOnce(Config, &WorkDir) -> Config) -> Result<Cluster> {
        Cluster::start_in(WorkDir::new("cluster")?, names, bytes, more)
    }

    /// [`start`](Cluster::start) with everything in a given folder.
    ///
    /// # Errors
    /// As [`start`](Cluster::start).
    pub fn start_in(
        dir: WorkDir,
        names: &[&str],
        bytes: u64,
        more: impl FnOnce(Config, &WorkDir) -> Config,
    ) -> Result<Cluster> {
        let image = dir.sparse("shared.img", bytes)?;
        let config = more(serving(names, &image, &dir), &dir);
        let machine = |name: &&str| -> Result<(String, Machine)> {
            let machine = Machine::new(name)?.memory_mib(320);
            Ok(((*name).to_owned(), machine.vhost_user_scsi_with(&socket(&dir, name), 2, RECONNECT, "")))
        };
        let machines = names.iter().map(machine).collect::<Result<_>>()?;
        Cluster::of(config, machines, image, dir)
    }

    /// Starts vstgt as configured, and then the machines, by their names; `image` is the one they share, with the serial number [`SERIAL`].
    ///
    /// # Errors
    /// As [`start`](Cluster::start).
    pub fn of(config: Config, machines: Vec<(String, Machine)>, image: PathBuf, dir: WorkDir) -> Result<Cluster> {
        let root = packageroot::get(&Cache::open()?)?;
        let vstgt = config.clone().start(&dir.path("vstgt.log"))?;
        let boot = |(name, machine)| -> Result<(String, Booting)> {
            Ok((name, Guest::start_boot_from(machine, Line::V6_12, &root, dir.root())?))
        };
        let booting: Vec<_> = machines.into_iter().map(boot).collect::<Result<_>>()?;
        let mut nodes = Vec::new();
        for (name, booting) in booting {
            let mut guest = booting.ready()?;
            let disk = guest.disk(SERIAL)?;
            // What the kernel says of each conflict would keep the console busy.
            guest.sh("dmesg -n 1")?;
            nodes.push(Node { name, guest, disk });
        }
        Ok(Cluster { nodes, vstgt, image, dir, config })
    }

    /// Kills vstgt (SIGKILL) under the running guests and starts it again as it was; the guests' QEMU find it by themselves.
    ///
    /// # Errors
    /// When it does not start.
    pub fn kill_and_restart(&mut self) -> Result<()> {
        self.vstgt.kill();
        self.vstgt = self.config.clone().start(&self.dir.path("vstgt.log"))?;
        Ok(())
    }

    /// Ends vstgt (SIGTERM) under the running guests and starts it again as it was.
    ///
    /// # Errors
    /// When it does not end as it should, or does not start.
    pub fn end_and_restart(mut self) -> Result<Cluster> {
        self.vstgt.terminate()?;
        self.vstgt = self.config.clone().start(&self.dir.path("vstgt.log"))?;
        Ok(self)
    }

    /// The nodes as an array, to have them all at hand at once.
    ///
    /// # Errors
    /// When there are not `N` of them.
    pub fn all<const N: usize>(&mut self) -> Result<[&mut Node; N]> {
        let nodes: Vec<&mut Node> = self.nodes.iter_mut().collect();
        nodes.try_into().map_err(|nodes: Vec<_>| Error::new(format!("{} nodes are not {N}", nodes.len())))
    }

    /// Powers the guests off, ends vstgt, which must have served them without an error, and removes everything.
    ///
    /// # Errors
    /// When one of these does not go as it should.
    pub fn finish(self) -> Result<()> {
        for node in self.nodes {
            node.guest.poweroff()?;
        }
        let log = self.vstgt.terminate()?;
        if let Some(line) = log.lines().find(|line| line.contains("ERROR") || line.contains("panicked")) {
            return Err(Error::new(format!("vstgt logged: {line}")));
        }
        self.dir.finish();
        Ok(())
    }
}

/// A command line that serves `image` to `names`.
fn serving(names: &[&str], image: &Path, dir: &WorkDir) -> Config {
    let config = Config::new().lun(image, &format!(",serial={SERIAL}")).arg("-v");
    names.iter().fold(config, |config, name| config.socket_with(&socket(dir, name), &format!(",initiator={name}")))
}

fn socket(dir: &WorkDir, name: &str) -> PathBuf {
    dir.path(&format!("{name}.sock"))
}

impl Node {
    /// Runs `command`, with `$D` the disk; its exit and output.
    ///
    /// # Errors
    /// When it takes long, or the guest goes.
    pub fn run(&mut self, command: &str) -> Result<(Exit, String)> {
        let outcome = self.guest.run(&format!("exec 2>&1; D={}\n{command}", self.disk), COMMAND)?;
        Ok((Exit::from_status(outcome.status), outcome.text()))
    }

    /// [`run`](Node::run), of which GOOD is expected; its output.
    ///
    /// # Errors
    /// As [`run`](Node::run), and when it ends otherwise.
    pub fn good(&mut self, command: &str) -> Result<String> {
        let (exit, text) = self.run(command)?;
        if exit == Exit::Good {
            return Ok(text);
        }
        Err(Error::new(format!("on {}: `{command}` ended with {exit:?}\n{text}", self.name)))
    }

    /// PERSISTENT RESERVE OUT, in sg_persist's words.
    ///
    /// # Errors
    /// As [`run`](Node::run).
    pub fn prout(&mut self, words: &str) -> Result<Exit> {
        self.run(&format!("sg_persist -n --out {words} $D")).map(|(exit, _)| exit)
    }

    /// What PERSISTENT RESERVE IN tells.
    ///
    /// # Errors
    /// When it is not answered with GOOD.
    pub fn reservations(&mut self) -> Result<Reservations> {
        let text = self.good("sg_persist -n --in --read-keys $D && sg_persist -n --in --read-reservation $D")?;
        parse(&text).context(|| format!("what sg_persist said on {}:\n{text}", self.name))
    }

    /// Takes every unit attention that is pending for this node, in order, in sg3_utils' words for its additional sense code.
    ///
    /// # Errors
    /// When a TEST UNIT READY ends with something else.
    pub fn attentions(&mut self) -> Result<Vec<String>> {
        let text = self.good(
            "for i in $(seq 20); do sg_raw $D 00 00 00 00 00 00 > told 2>&1; s=$?; [ $s = 0 ] && exit 0\n\
             [ $s = 6 ] || { cat told; exit $s; }; sed -n 's/^Additional sense: //p' told; done; exit 1",
        )?;
        Ok(text.lines().map(|line| line.trim().to_owned()).collect())
    }

    /// Reads a block and writes one (the disk's second to last), past the kernel's own block layer: how each ended.
    ///
    /// # Errors
    /// As [`run`](Node::run).
    pub fn access(&mut self) -> Result<(Exit, Exit)> {
        let text = self.good(
            "b=$(printf '%08x' $(($(cat /sys/block/${D##*/}/size) - 2)) | sed 's/../& /g')\n\
             sg_raw -r 512 $D 28 00 $b 00 00 01 00 > told; echo $?\n\
             sg_raw -s 512 -i /dev/urandom $D 2a 00 $b 00 00 01 00 > told; echo $?",
        )?;
        let mut statuses = text.lines().filter_map(|line| line.parse().ok()).map(Exit::from_status);
        statuses.next().zip(statuses.next()).context(|| format!("reading and writing on {} said\n{text}", self.name))
    }
}

impl Node {
    /// A script that waits until the guest has completed fifty more writes to the disk.
    pub fn busy(&self) -> String {
        // The fifth field of a disk's statistics counts completed writes.
        format!(
            "completed() {{ awk '{{ print $5 }}' /sys/block/{}/stat; }}; from=$(completed); \
             until [ $(completed) -gt $((from + 50)) ]; do sleep 0.05; done",
            self.disk.trim_start_matches("/dev/")
        )
    }
}

/// What sg_persist printed for READ KEYS and then READ RESERVATION.
fn parse(text: &str) -> Option<Reservations> {
    let hex = |word: &str| u64::from_str_radix(word.trim().strip_prefix("0x")?, 16).ok();
    let (mut generations, mut keys, mut held_key, mut kind) = (Vec::new(), Vec::new(), None, None);
    for line in text.lines().map(str::trim) {
        if let Some((_, rest)) = line.split_once("PR generation=") {
            generations.push(hex(rest.split(',').next()?)?);
        } else if let Some(key) = line.strip_prefix("Key=") {
            held_key = Some(hex(key)?);
        } else if let Some((_, rest)) = line.split_once("type: ") {
            kind = Some(rest.to_owned());
        } else if line.starts_with("0x") {
            keys.push(hex(line)?);
        }
    }
    let [of_keys, of_reservation] = generations[..] else { return None };
    if of_keys != of_reservation {
        return None;
    }
    Some(Reservations { generation: of_keys.try_into().ok()?, keys, held: held_key.zip(kind) })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_sg_persist_prints_is_read() {
        let none = "  PR generation=0x0, there are NO registered reservation keys\n  PR generation=0x0, there is NO reservation held\n";
        assert_eq!(parse(none).unwrap(), Reservations { generation: 0, keys: vec![], held: None });
        let some = "  PR generation=0x1f, 2 registered reservation keys follow:\n    0xa1\n    0xb200000000000000\n\
                    \x20 PR generation=0x1f, Reservation follows:\n    Key=0xa1\n    scope: LU_SCOPE,  type: Write Exclusive, registrants only\n";
        let held = Some((0xa1, "Write Exclusive, registrants only".to_owned()));
        assert_eq!(
            parse(some).unwrap(),
            Reservations { generation: 0x1f, keys: vec![0xa1, 0xb200_0000_0000_0000], held }
        );
        assert_eq!(parse("PR generation=0x1, x\nPR generation=0x2, x\n"), None);
    }
}
