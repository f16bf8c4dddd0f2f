//! vstgt in its many lives, three guests that are booted again when they were killed, the fourth nexus, and what the test knows of them all.

use crate::fourth::Fourth;
use crate::samples::{self, Process, Sample};
use std::collections::BTreeMap;
use std::fs;
use std::path::PathBuf;
use std::time::{Duration, Instant};
use vm_tests::cache::Cache;
use vm_tests::cluster::{Exit, Node, Reservations, SERIAL};
use vm_tests::guest::{Booting, Guest};
use vm_tests::kernel::Line;
use vm_tests::process::wait_until;
use vm_tests::qemu::Machine;
use vm_tests::vstgt::{Config, Vstgt};
use vm_tests::workdir::WorkDir;
use vm_tests::{Context, Error, Result, packageroot};

pub const NAMES: [&str; 3] = ["alpha", "beta", "gamma"];

/// A guest's registration key; the fourth nexus has the one after the last.
pub fn key(number: usize) -> u64 {
    0xa1 + 0x10 * number as u64
}

const MIB: u64 = 1 << 20;

/// The disk: the block in which all count, then an area for each guest and one for the fourth nexus.
const DISK: u64 = 48 * MIB;

/// How large an area is. Its first blocks hold promises; fio has four MiB from the second one on.
pub const AREA: u64 = 8 * MIB;

pub fn area(number: usize) -> u64 {
    (1 + number as u64) * AREA
}

/// How long a guest may take for something, where guests are fast.
const WHILE: Duration = Duration::from_secs(60);

/// What a guest does.
const WORKER: &str = include_str!("worker.py");
const WORK: &str = include_str!("work.sh");

/// What a kernel says when something reached it that should not have.
const TROUBLE: &str =
    "I/O error|critical|timed out|timing out|offline|corrupt|hung_task|blocked for|rcu_.*stall.*scsi|Call Trace|BUG:";

/// What the type of the reservation is called.
pub const KIND: &str = "Write Exclusive, registrants only";

/// The process under test, one after another. Each has a log of its own.
pub struct Lives {
    config: Config,
    pub current: Option<Vstgt>,
    pub since: Instant,
    pub logs: Vec<PathBuf>,
    dir: PathBuf,
    /// How long it took until the next one served.
    pub down: Vec<Duration>,
}

impl Lives {
    fn next_log(&mut self) -> PathBuf {
        let log = self.dir.join(format!("vstgt{}.log", self.logs.len()));
        self.logs.push(log.clone());
        log
    }

    fn start(&mut self) -> Result<()> {
        let log = self.next_log();
        self.current = Some(self.config.clone().start(&log)?);
        self.since = Instant::now();
        Ok(())
    }

    pub fn kill_and_restart(&mut self) -> Result<()> {
        let begin = Instant::now();
        if let Some(mut vstgt) = self.current.take() {
            vstgt.kill();
        }
        self.start()?;
        self.down.push(begin.elapsed());
        Ok(())
    }

    pub fn hand_over(&mut self) -> Result<()> {
        let begin = Instant::now();
        let log = self.next_log();
        let predecessor = self.current.take().context(|| "no vstgt runs")?;
        self.current = Some(self.config.clone().succeed(predecessor, &log)?);
        self.since = Instant::now();
        self.down.push(begin.elapsed());
        Ok(())
    }

    pub fn life(&self) -> usize {
        self.logs.len() - 1
    }

    pub fn pid(&mut self) -> Result<u32> {
        Ok(self.current.as_mut().context(|| "no vstgt runs")?.process().id())
    }
}

/// A guest, and what is known of it.
pub struct Member {
    pub node: Node,
    pub number: usize,
    boots: u32,
    /// How often it was fenced, and let in again.
    pub fences: u64,
    /// What the last one to be asked said.
    pub told: Told,
    /// The sums of what all the dead ones said.
    pub before: Told,
}

/// Numbers by their names.
pub type Told = BTreeMap<String, u64>;

pub fn of(told: &Told, name: &str) -> u64 {
    told.get(name).copied().unwrap_or(0)
}

/// Adds what adds up.
fn add(sum: &mut Told, told: &Told) {
    for (name, value) in told {
        let sum = sum.entry(name.clone()).or_default();
        *sum = match name.as_str() {
            "pause_ms" => (*sum).max(*value),
            _ => *sum + value,
        };
    }
}

pub struct Scene {
    pub members: Vec<Member>,
    pub lives: Lives,
    pub fourth: Option<Fourth>,
    pub image: PathBuf,
    pub state: PathBuf,
    pub dir: WorkDir,
    pub start: Instant,
    pub samples: Vec<Sample>,
    /// What vstgt has when nobody is connected.
    pub empty: Process,
    /// The holder's number.
    pub holder: usize,
    /// PRGENERATION, but for what the fourth nexus registers.
    pub generation: u64,
}

impl Scene {
    /// Everybody up and at work.
    pub fn start(seed: u64) -> Result<Scene> {
        let dir = WorkDir::new("endurance")?;
        let image = dir.sparse("shared.img", DISK)?;
        let state = dir.path("state");
        let socket = |name: &str| dir.path(&format!("{name}.sock"));
        let mut config = Config::new().lun(&image, &format!(",serial={SERIAL}")).arg("-v");
        for name in NAMES.iter().chain(&["fourth"]) {
            config = config.socket_with(&socket(name), &format!(",initiator={name}"));
        }
        config = config.arg("--state-dir").arg(&state).arg("--handover").arg(dir.path("handover"));
        // Shorter than some guests stay away, longer than any takes to connect again.
        config = config.args(["--nexus-loss-timeout", "10"]);
        let mut lives = Lives {
            config,
            current: None,
            since: Instant::now(),
            logs: Vec::new(),
            dir: dir.root().to_owned(),
            down: Vec::new(),
        };
        lives.start()?;
        lives.current.as_mut().context(|| "no vstgt runs")?.wait_for_log(&["serving"], WHILE)?;
        let empty = Process::look(lives.pid()?)?;
        let booting: Vec<Booting> = NAMES.iter().map(|name| boot(&dir, name, 0)).collect::<Result<_>>()?;
        let mut members = Vec::new();
        for (number, booting) in booting.into_iter().enumerate() {
            let node = up(NAMES[number], booting)?;
            let (told, before) = (Told::new(), Told::new());
            members.push(Member { node, number, boots: 0, fences: 0, told, before });
        }
        let fourth = Fourth::start(&socket("fourth"), key(3), area(3) / 512, seed);
        let mut scene = Scene {
            members,
            lives,
            fourth: Some(fourth),
            image,
            state,
            dir,
            start: Instant::now(),
            samples: Vec::new(),
            empty,
            holder: 0,
            generation: 0,
        };
        for number in 0..NAMES.len() {
            scene.register(number)?;
        }
        scene.reserve(0)?;
        for number in 0..NAMES.len() {
            scene.work(number)?;
        }
        scene.all_work()?;
        Ok(scene)
    }

    /// A PERSISTENT RESERVE OUT that must be done; once more after each unit attention, which says that it was not.
    pub fn prout(&mut self, number: usize, words: &str) -> Result<()> {
        let node = &mut self.members[number].node;
        for _ in 0..10 {
            match node.prout(words)? {
                Exit::Good => return Ok(()),
                Exit::UnitAttention => {}
                other => return Err(Error::new(format!("{words} on {}: {other:?}", node.name))),
            }
        }
        Err(Error::new(format!("unit attentions on {} do not end", node.name)))
    }

    /// REGISTER AND IGNORE EXISTING KEY.
    pub fn register(&mut self, number: usize) -> Result<()> {
        self.prout(number, &format!("--register-ignore --param-sark={:x}", key(number)))?;
        self.generation += 1;
        Ok(())
    }

    pub fn reserve(&mut self, number: usize) -> Result<()> {
        self.prout(number, &format!("--reserve --param-rk={:x} --prout-type=5", key(number)))?;
        self.holder = number;
        Ok(())
    }

    /// All registrations and the reservation are as they must be, and as many changes were made as were answered.
    pub fn assert_reserved(&mut self, asked: usize, fenced: Option<usize>) -> Result<()> {
        let node = &mut self.members[asked].node;
        let mut seen = node.reservations();
        for _ in 0..5 {
            if seen.is_ok() {
                break;
            }
            // Unit attentions may be pending.
            seen = node.reservations();
        }
        let mut seen = seen?;
        seen.keys.sort_unstable();
        let keys = (0..=NAMES.len()).filter(|number| Some(*number) != fenced).map(key).collect();
        let held = Some((key(self.holder), KIND.to_owned()));
        let by_fourth = |fourth: &Fourth| fourth.shared.registers.load(std::sync::atomic::Ordering::SeqCst);
        let generation = self.generation + self.fourth.as_ref().map_or(0, by_fourth);
        let expected = Reservations { generation: generation as u32, keys, held };
        if seen == expected {
            return Ok(());
        }
        Err(Error::new(format!("on {}: {seen:x?}, expected {expected:x?}", NAMES[asked])))
    }

    /// Begins a guest's work.
    fn work(&mut self, number: usize) -> Result<()> {
        let member = &mut self.members[number];
        let (promised, counted) = (of(&member.told, "promised"), of(&member.told, "counted"));
        member.fences = 0;
        let disk = &member.node.disk;
        let script = format!(
            "cat > worker.py << 'END-OF-FILE'\n{WORKER}\nEND-OF-FILE\ncat > work.sh << 'END-OF-FILE'\n{WORK}\nEND-OF-FILE\n\
             dmesg --clear\nDISK={disk} NUMBER={number} PROMISED={promised} COUNTED={counted}\n. ./work.sh"
        );
        member.node.guest.sh(&script)?;
        Ok(())
    }

    /// Asks a guest how far it is; it must not have failed.
    pub fn ask(&mut self, number: usize) -> Result<Told> {
        let member = &mut self.members[number];
        let script =
            "cat told fio.told 2> /dev/null; ls ./*.failed 2> /dev/null && { tail -n 60 ./*.failed; exit 1; }; exit 0";
        let outcome = member.node.guest.run(script, WHILE)?;
        if outcome.status != 0 {
            let log = self.lives.current.as_ref().map(Vstgt::log).unwrap_or_default();
            let log = vm_tests::process::last_lines(&log);
            return Err(Error::new(format!("work on {} failed:\n{}\n{log}", member.node.name, outcome.text())));
        }
        let text = outcome.text();
        let pairs = text.split_whitespace().filter_map(|word| word.split_once('='));
        let told: Told = pairs.filter_map(|(name, value)| Some((name.to_owned(), value.parse().ok()?))).collect();
        member.told = told.clone();
        Ok(told)
    }

    /// Waits until a guest has kept further promises and counted on.
    pub fn works(&mut self, number: usize) -> Result<()> {
        let before = self.ask(number)?;
        let slowness = self.members[number].node.guest.slowness();
        let went_on = wait_until(WHILE * slowness, || {
            let now = self.ask(number)?;
            let more = |name: &str| of(&now, name) > of(&before, name);
            Ok((more("promised") && more("counted")).then_some(()))
        })?;
        went_on.context(|| format!("{} does not go on: {before:?}", NAMES[number]))
    }

    pub fn all_work(&mut self) -> Result<()> {
        (0..NAMES.len()).try_for_each(|number| self.works(number))?;
        if let Some(fourth) = &self.fourth {
            fourth.goes_on();
        }
        Ok(())
    }

    /// Everybody is up and at work: what does vstgt have?
    pub fn sample(&mut self, after: &str) -> Result<()> {
        let process = Process::look(self.lives.pid()?)?;
        let (state_files, state) = samples::folder(&self.state)?;
        self.samples.push(Sample {
            at: self.start.elapsed(),
            life: self.lives.life(),
            age: self.lives.since.elapsed(),
            after: after.to_owned(),
            anon: process.anon,
            resident: process.resident,
            shared: process.shared,
            threads: process.threads,
            descriptors: process.descriptors,
            mappings: process.mappings,
            state_files,
            state,
        });
        Ok(())
    }

    /// A guest's kernel has nothing to say against its disk.
    pub fn assert_untroubled(&mut self, number: usize) -> Result<()> {
        let node = &mut self.members[number].node;
        let said = node.guest.sh(&format!("dmesg | grep -iE '{TROUBLE}' | tail -n 30; true"))?;
        if said.is_empty() { Ok(()) } else { Err(Error::new(format!("the kernel of {} says\n{said}", node.name))) }
    }

    /// Kills a guest's QEMU at once.
    pub fn kill_guest(&mut self, number: usize) {
        let member = &mut self.members[number];
        member.node.guest.vm().kill();
        add(&mut member.before, &member.told);
    }

    /// Boots a guest that was killed.
    pub fn boot(&mut self, number: usize) -> Result<Booting> {
        self.members[number].boots += 1;
        boot(&self.dir, NAMES[number], self.members[number].boots)
    }

    /// Waits for it, and lets it register and begin. Its blocks must hold what the one before was told that they do.
    pub fn join(&mut self, number: usize, booting: Booting) -> Result<()> {
        self.members[number].node = up(NAMES[number], booting)?;
        self.register(number)?;
        self.work(number)
    }

    /// What all guests did, in all their lives.
    pub fn totals(&self) -> Told {
        let mut totals = Told::new();
        for member in &self.members {
            add(&mut totals, &member.before);
            add(&mut totals, &member.told);
        }
        totals.remove("promised");
        totals.remove("counted");
        totals
    }

    /// Ends the work of all guests; everything they have must be well.
    pub fn calm(&mut self) -> Result<()> {
        for member in &mut self.members {
            member.node.guest.sh("touch stop")?;
        }
        for number in 0..NAMES.len() {
            let node = &mut self.members[number].node;
            node.guest.run("until [ -e worker.over ] && [ -e fio.over ]; do sleep 0.1; done", WHILE)?;
            self.ask(number)?;
            self.assert_untroubled(number)?;
        }
        Ok(())
    }

    pub fn read_logs(&self) -> Result<Vec<String>> {
        let read = |log: &PathBuf| fs::read_to_string(log).context(|| format!("read {}", log.display()));
        self.lives.logs.iter().map(read).collect()
    }
}

fn boot(dir: &WorkDir, name: &str, boots: u32) -> Result<Booting> {
    // Logs and ports of each boot have a name of their own.
    let machine = Machine::new(&format!("{name}{boots}"))?.memory_mib(320);
    let machine = machine.vhost_user_scsi_with(&dir.path(&format!("{name}.sock")), 2, ",reconnect-ms=50", "");
    Guest::start_boot_from(machine, Line::V6_12, &packageroot::get(&Cache::open()?)?, dir.root())
}

fn up(name: &str, booting: Booting) -> Result<Node> {
    let mut guest = booting.ready()?;
    let disk = guest.disk(SERIAL)?;
    // What the kernel says of each conflict would keep the console busy.
    guest.sh("dmesg -n 1")?;
    Ok(Node { name: name.to_owned(), guest, disk })
}

impl Scene {
    /// Everybody's count is in the shared block, as exactly as its owner knows it, and the promises are in theirs.
    pub fn assert_counted(&self) -> Result<()> {
        let image = fs::read(&self.image).context(|| "read the image")?;
        let number_at = |at: usize| -> Result<u64> {
            let bytes = image.get(at..at + 8).and_then(|bytes| bytes.try_into().ok());
            Ok(u64::from_be_bytes(bytes.context(|| "the image is too short")?))
        };
        let mut sum = 0;
        for member in &self.members {
            let (counted, expected) = (number_at(16 + 8 * member.number)?, of(&member.told, "counted"));
            let promised = of(&member.told, "promised");
            let place = area(member.number) as usize + 512 * (promised % 8) as usize;
            let kept = number_at(place + 8)?;
            if (counted, kept) != (expected, promised) {
                return Err(Error::new(format!(
                    "{} counted {expected} and promised {promised}: the disk has {counted} and {kept}",
                    member.node.name
                )));
            }
            sum += counted;
        }
        let total = number_at(8)?;
        if total == sum { Ok(()) } else { Err(Error::new(format!("{total} counted in all, {sum} one by one"))) }
    }
}
