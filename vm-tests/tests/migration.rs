//! A guest migrates from one QEMU to another on one host, over and over, while it writes and reads: its disk is the same, and so is what the
//! disk knows of it.

use std::fs;
use std::path::{Path, PathBuf};
use std::thread;
use std::time::Duration;
use vm_tests::cache::Cache;
use vm_tests::cluster::Exit::{Conflict, Good};
use vm_tests::cluster::{Cluster, Node, Reservations, SERIAL};
use vm_tests::guest::Guest;
use vm_tests::kernel::Line;
use vm_tests::migration;
use vm_tests::qemu::{Machine, Vm};
use vm_tests::vstgt::Config;
use vm_tests::{Context, Result, VSTGT_SOAK, packageroot, provision};

const MIB: u64 = 1 << 20;

/// The disk: the first quarter holds what is read through the page cache, the second what fio writes.
const DISK: u64 = 64 * MIB;

/// How long one thing may take in a guest, where guests are fast.
const WHILE: Duration = Duration::from_secs(30);

/// How often the guest migrates.
fn migrations() -> u32 {
    if std::env::var_os(VSTGT_SOAK).is_some() { 50 } else { 4 }
}

/// The machine that the cluster boots as `name`, once more.
fn machine(name: &str, socket: &Path) -> Result<Machine> {
    Ok(Machine::new(name)?.memory_mib(320).vhost_user_scsi_with(socket, 2, ",reconnect-ms=200", ""))
}

/// A guest's load: fio writes random blocks and verifies each some time later, past the page cache; and what never changes is read
/// into the page cache, and from there.
///
/// A page that was read and not marked is wrong in the destination's page cache, even if nothing reads it while the guest migrates.
const LOAD: &str = r#"
fio --name=verified --filename=$D --thread --ioengine=libaio --iodepth=8 --direct=1 --rw=randwrite --bs=16k --offset=16M --size=16M \
    --verify=crc32c --verify_backlog=32 --verify_fatal=1 --time_based --runtime=36000 --rate_iops=150 > fio.log 2>&1 &
echo $! > fio.pid
cat > reader << 'END'
want=$(cat sum)
while [ ! -e enough ]; do
    echo 3 > /proc/sys/vm/drop_caches
    for from in device cache; do
        got=$(dd if=$1 bs=64k count=96 status=none | sha256sum)
        [ "$got" = "$want" ] || echo "from the $from: $got" >> wrong
        sleep 0.2
    done
    echo >> rounds
done
END
rm -f enough wrong rounds
sh reader $D > reader.log 2>&1 &
echo $! > reader.pid
"#;

/// Fills what is read, and remembers it.
const FILL: &str = "dd if=/dev/urandom of=$D bs=64k count=96 oflag=direct status=none && \
                    dd if=$D bs=64k count=96 iflag=direct status=none | sha256sum > sum";

/// Ends the load: nothing that was read may have been wrong.
const CALM: &str = r#"
touch enough; kill -INT $(cat fio.pid)
while kill -0 $(cat fio.pid) 2> /dev/null || kill -0 $(cat reader.pid) 2> /dev/null; do sleep 0.1; done
[ -e wrong ] && { echo "read wrong:"; cat wrong; exit 1; }
grep -q 'err= 0' fio.log && ! grep -q '^verify:' fio.log || { cat fio.log; exit 1; }
cat reader.log
sed -n 's/.*issued rwts: total=\([0-9]*\),\([0-9]*\).*/fio read \1 wrote \2/p' fio.log
echo rounds: $(wc -l < rounds)
"#;

/// Where a guest is, and how it gets on.
struct Travels {
    root: PathBuf,
    dir: PathBuf,
    name: String,
    count: u32,
}

impl Travels {
    fn new(cluster: &Cluster, name: &str) -> Result<Travels> {
        let root = packageroot::get(&Cache::open()?)?;
        Ok(Travels { root, dir: cluster.dir.root().to_owned(), name: name.to_owned(), count: 0 })
    }

    /// The next machine, waiting, on the same socket.
    fn next(&mut self) -> Result<Vm> {
        let socket = self.dir.join(format!("{}.sock", self.name));
        self.next_on(&socket)
    }

    /// The next machine, waiting, on that socket.
    fn next_on(&mut self, socket: &Path) -> Result<Vm> {
        self.count += 1;
        let machine = machine(&format!("{}{}", self.name, self.count), socket)?;
        Guest::incoming_from(machine, Line::V6_12, &self.root, &self.dir)
    }

    fn socket(&self) -> PathBuf {
        self.dir.join(format!("migrate{}", self.count))
    }
}

/// Alpha has the reservation and beta is fenced off, and both find it so.
fn fenced(alpha: &mut Node, beta: &mut Node, before: &Reservations) -> Result<()> {
    assert_eq!(&alpha.reservations()?, before);
    assert_eq!(&beta.reservations()?, before);
    assert_eq!(alpha.access()?, (Good, Good));
    assert_eq!(beta.access()?, (Good, Conflict));
    Ok(())
}

#[test]
fn a_guest_migrates_over_and_over() -> Result<()> {
    provision::check()?;
    let mut cluster = Cluster::start(&["alpha", "beta"], DISK, |config, _| config)?;
    let mut travels = Travels::new(&cluster, "alpha")?;
    let [alpha, beta] = cluster.all()?;
    alpha.good(FILL)?;
    assert_eq!(alpha.prout("--register --param-sark=a1")?, Good);
    assert_eq!(beta.prout("--register --param-sark=b2")?, Good);
    assert_eq!(alpha.prout("--reserve --param-rk=a1 --prout-type=1")?, Good);
    let before = alpha.reservations()?;
    assert_eq!(before.keys, [0xa1, 0xb2]);
    fenced(alpha, beta, &before)?;
    alpha.good(LOAD)?;

    let mut downtimes = Vec::new();
    for round in 0..migrations() {
        let target = travels.next()?;
        let (migrated, mut source) = alpha.guest.migrate(target, &travels.socket())?;
        println!("round {round}: {migrated:?}");
        assert!(migrated.passes >= 2, "nothing was written while it migrated");
        downtimes.push(migrated.downtime);
        // The machine where it was is still connected, as it is until a management system takes it away.
        let reset = source.qmp().status()?;
        assert_eq!(reset, "postmigrate");
        alpha.good(&alpha.busy())?;
        if round % 2 == 0 {
            fenced(alpha, beta, &before)?;
        }
        source.qmp().quit()?;
        source.wait(WHILE)?;
        alpha.good("[ ! -e wrong ] && kill -0 $(cat fio.pid) || { cat wrong fio.log; exit 1; }")?;
    }
    let text = alpha.good(CALM)?;
    println!("{text}\ndowntimes in ms: {downtimes:?}");
    fenced(alpha, beta, &before)?;
    assert!(alpha.attentions()?.is_empty() && beta.attentions()?.is_empty(), "nobody is told of anything");

    // A unit attention that waits for alpha finds it where it went.
    beta.good("sg_reset -d $D")?;
    let (_, mut source) = alpha.guest.migrate(travels.next()?, &travels.socket())?;
    assert_eq!(alpha.attentions()?, ["Bus device reset function occurred"]);
    source.qmp().quit()?;
    source.wait(WHILE)?;

    // A migration that is called off: the guest stays where it is, with its load.
    beta.attentions()?;
    alpha.good(LOAD)?;
    for patience in [200, 1500] {
        let mut target = travels.next()?;
        migration::begin(alpha.guest.vm(), &mut target, &travels.socket(), 4 << 20)?;
        thread::sleep(Duration::from_millis(patience));
        call_off(alpha, &mut target)?;
        fenced(alpha, beta, &before)?;
    }
    // And one that is not, after that.
    let (_, mut source) = alpha.guest.migrate(travels.next()?, &travels.socket())?;
    source.qmp().quit()?;
    source.wait(WHILE)?;
    println!("{}", alpha.good(CALM)?);
    fenced(alpha, beta, &before)?;
    let log = fs::read_to_string(cluster.dir.path("vstgt.log")).context(|| "read vstgt's log")?;
    assert!(!log.contains("beyond the dirty log") && !log.contains("SRP_LOGIN_REJ"), "{log}");
    cluster.finish()
}

/// Calls a migration off: the guest goes on where it was, and the machine where it was to go is gone.
fn call_off(node: &mut Node, target: &mut Vm) -> Result<()> {
    let slowness = node.guest.slowness();
    node.guest.vm().qmp().execute("migrate_cancel", &[])?;
    migration::reach(node.guest.vm(), "cancelled", slowness)?;
    target.kill();
    node.good(&node.busy()).map(drop)
}

/// How often vstgt has given everything up.
fn handed_over(log: &Path) -> Result<usize> {
    let text = fs::read_to_string(log).context(|| "read vstgt's log")?;
    Ok(text.matches("images and state are handed over").count())
}

/// Between two processes, which have the image and the state directory in turn, as on two hosts with shared storage.
#[test]
fn a_guest_migrates_between_two_processes() -> Result<()> {
    provision::check()?;
    let mut cluster = Cluster::start(&["alpha"], DISK, |config, dir| {
        config.arg("--state-dir").arg(dir.path("state")).arg("--outgoing")
    })?;
    let mut travels = Travels::new(&cluster, "alpha")?;
    let here = cluster.dir.path("alpha.sock");
    let there = cluster.dir.path("there.sock");
    let other = Config::new()
        .lun(&cluster.image, &format!(",serial={SERIAL}"))
        .socket_with(&there, ",initiator=alpha")
        .arg("-v")
        .arg("--state-dir")
        .arg(cluster.dir.path("state"))
        .arg("--incoming")
        .start(&cluster.dir.path("there.log"))?;
    let log = cluster.dir.path("vstgt.log");
    let [alpha] = cluster.all()?;
    alpha.good(FILL)?;
    assert_eq!(alpha.prout("--register --param-sark=a1")?, Good);
    assert_eq!(alpha.prout("--reserve --param-rk=a1 --prout-type=3")?, Good);
    let before = alpha.reservations()?;
    alpha.good(LOAD)?;
    for round in 0..migrations() / 4 * 2 {
        let target = travels.next_on(if round % 2 == 0 { &there } else { &here })?;
        let (migrated, mut source) = alpha.guest.migrate(target, &travels.socket())?;
        println!("round {round}: {migrated:?}");
        alpha.good(&alpha.busy())?;
        assert_eq!(alpha.reservations()?, before);
        source.qmp().quit()?;
        source.wait(WHILE)?;
    }
    // Called off at the last moment, when the guest had stopped and everything was given up, it goes on here.
    let capability = r#"{"capabilities": [{"capability": "pause-before-switchover", "state": true}]}"#;
    for _ in 0..2 {
        let mut target = travels.next_on(&there)?;
        alpha.guest.vm().qmp().execute_json("migrate-set-capabilities", capability)?;
        target.qmp().execute_json("migrate-set-capabilities", capability)?;
        let before = handed_over(&log)?;
        let slowness = alpha.guest.slowness();
        migration::begin(alpha.guest.vm(), &mut target, &travels.socket(), migration::BANDWIDTH)?;
        migration::reach(alpha.guest.vm(), "pre-switchover", slowness)?;
        assert_eq!(handed_over(&log)?, before + 1);
        call_off(alpha, &mut target)?;
    }
    println!("{}", alpha.good(CALM)?);
    assert!(alpha.attentions()?.is_empty(), "nobody is told of anything");
    assert_eq!(alpha.access()?, (Good, Good));
    assert_eq!(alpha.reservations()?, before);
    let text = other.terminate()?;
    assert!(text.contains("handed over") && !text.contains("ERROR"), "{text}");
    cluster.finish()
}
