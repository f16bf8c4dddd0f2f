//! Fencing: a node that lost its registration writes nothing more, from the moment on in which the command that took it was answered.
//!
//! Everything here runs on three guests that write all the time: the fenced with both its vCPUs and queues, a survivor beside it.

use std::fs::File;
use std::io::Write;
use std::os::unix::fs::FileExt;
use std::path::Path;
use std::thread;
use std::time::Duration;
use vm_tests::cluster::Exit::{Conflict, Good};
use vm_tests::cluster::{Cluster, Node};
use vm_tests::workdir::WorkDir;
use vm_tests::{Context, Error, Result, effort, host, provision};

const MIB: u64 = 1 << 20;

/// The disk, of which each node has an area.
const DISK: u64 = 64 * MIB;

/// How large an area is: one command reads it, so that it is seen at one moment.
const AREA: u64 = MIB;

/// How long things may take, where guests are fast.
const WHILE: Duration = Duration::from_secs(30);

/// For how long the fenced goes on trying.
const TRYING: Duration = Duration::from_secs(2);

/// Preempts and reads, in one guest.
const POUNCE: &str = include_str!("fencing/pounce.py");

/// Where a node's area begins. The first block is the test's own.
fn area(number: usize) -> u64 {
    (1 + number as u64) * 4 * MIB
}

/// Writes at depth from both vCPUs to the area that begins at `offset`, every time other bytes, until it is ended. It goes on
/// when writes end with conflicts (EBADE, 52) or are aborted (EIO, 5).
fn storm(node: &Node, offset: u64, size: &str) -> String {
    format!(
        "dmesg --clear; fio --name=storm --filename={} --thread --numjobs=2 --cpus_allowed=0,1 --cpus_allowed_policy=split --ioengine=libaio \
         --iodepth=32 --direct=1 --rw=randwrite --bs={size} --offset={offset} --size={AREA} --scramble_buffers=1 --norandommap \
         --ignore_error=,5:52 --error_dump=0 --time_based --runtime=36000 --group_reporting > storm.log 2>&1 &\n\
         echo $! > storm.pid\n{}",
        node.disk,
        node.busy()
    )
}

/// Ends the storm: how many of its writes failed, by fio's count, and for how many of them the kernel names a reservation
/// conflict (of which its buffer holds the latest).
fn calm(node: &mut Node) -> Result<(u64, u64)> {
    let script = "kill -INT $(cat storm.pid); while kill -0 $(cat storm.pid) 2> /dev/null; do sleep 0.1; done; cat storm.log\n\
                  echo conflicts: $(dmesg | grep -c 'reservation conflict')";
    let text = node.guest.run(script, WHILE)?.text();
    let number = |line: &str, label: &str| -> Option<u64> {
        let (_, rest) = text.lines().find(|found| found.trim().starts_with(line))?.split_once(label)?;
        rest.split(|c: char| !c.is_ascii_digit()).next()?.parse().ok()
    };
    let counts = number("errors ", "total=").zip(number("conflicts:", ": "));
    counts.context(|| format!("what fio told on {}:\n{text}", node.name))
}

fn bytes(image: &Path, offset: u64) -> Result<Vec<u8>> {
    let file = File::open(image).context(|| format!("open {}", image.display()))?;
    let mut bytes = vec![0; AREA as usize];
    file.read_exact_at(&mut bytes, offset).context(|| format!("read {}", image.display()))?;
    Ok(bytes)
}

/// Writes failed, and not only because they were aborted.
#[track_caller]
fn cut_off((errors, conflicts): (u64, u64)) {
    assert!(errors > 0 && conflicts > 0, "{errors} writes failed, {conflicts} with conflicts");
}

/// The preempted is told why as soon as it sends a command that does not conflict: conflicts come first (SAM-5 5.3.3). Commands that
/// were aborted are told of, too.
#[track_caller]
fn hears(node: &mut Node) -> Result<()> {
    let mut told = node.attentions()?;
    told.retain(|text| text != "Commands cleared by another initiator");
    assert_eq!(told, ["Registrations preempted"], "{}", node.name);
    Ok(())
}

#[test]
fn fence_scsi_fences_and_unfences() -> Result<()> {
    provision::check()?;
    let mut cluster = Cluster::start(&["alpha", "beta", "gamma"], DISK, |config, _| config)?;
    let image = cluster.image.clone();
    let [alpha, beta, gamma] = cluster.all()?;

    for (node, key) in [(&mut *alpha, "a1"), (&mut *beta, "b2"), (&mut *gamma, "c3")] {
        let text = node.good(&format!("fence_scsi --action=on --devices=$D --key={key}"))?;
        assert!(text.contains("Success"), "{text}");
    }
    alpha.good("fence_scsi --action=monitor --devices=$D")?;
    let seen = beta.reservations()?;
    assert_eq!(seen.keys, [0xa1, 0xb2, 0xc3]);
    assert_eq!(seen.held, Some((0xa1, "Write Exclusive, registrants only".to_owned())));

    // Gamma is fenced by beta.
    alpha.good(&storm(alpha, area(0), "32k"))?;
    gamma.good(&storm(gamma, area(2), "32k"))?;
    let text = beta.good("fence_scsi --action=off --devices=$D --key=c3")?;
    let (fenced, survivor) = (bytes(&image, area(2))?, bytes(&image, area(0))?);
    assert!(text.contains("Success"), "{text}");
    assert!(fenced.iter().any(|byte| *byte != 0), "gamma never wrote");
    assert_eq!(beta.reservations()?.keys, [0xa1, 0xb2]);
    let (exit, text) = beta.run("fence_scsi --action=status --devices=$D --key=c3")?;
    assert!(exit != Good && text.contains("Status: OFF"), "{exit:?} {text}");
    thread::sleep(TRYING);
    cut_off(calm(gamma)?);
    assert!(bytes(&image, area(2))? == fenced, "gamma wrote after it was fenced");
    assert!(bytes(&image, area(0))? != survivor, "alpha wrote no more when gamma was fenced");
    hears(gamma)?;
    assert_eq!(gamma.access()?, (Good, Conflict));

    // It comes back: unfenced, as after a reboot.
    gamma.good("fence_scsi --action=on --devices=$D --key=c3")?;
    let text = gamma.good("fence_scsi --action=status --devices=$D --key=c3")?;
    assert!(text.contains("Status: ON"), "{text}");
    gamma.good(&storm(gamma, area(2), "32k"))?;

    // Alpha is fenced, which holds the reservation: beta has it then, and gamma does not notice.
    let text = beta.good("fence_scsi --action=off --devices=$D --key=a1")?;
    let (fenced, survivor) = (bytes(&image, area(0))?, bytes(&image, area(2))?);
    assert!(text.contains("Success"), "{text}");
    let seen = gamma.reservations()?;
    assert_eq!(seen.keys, [0xb2, 0xc3]);
    assert_eq!(seen.held, Some((0xb2, "Write Exclusive, registrants only".to_owned())));
    thread::sleep(TRYING);
    cut_off(calm(alpha)?);
    assert!(bytes(&image, area(0))? == fenced, "alpha wrote after it was fenced");
    assert!(bytes(&image, area(2))? != survivor, "gamma wrote no more when alpha was fenced");
    assert_eq!(calm(gamma)?, (0, 0), "gamma's writes failed when alpha was fenced");

    let (exit, text) = beta.run("fence_scsi --action=off --devices=$D --key=b2")?;
    assert!(exit != Good && text.contains("You can not fence yourself"), "{exit:?} {text}");
    cluster.finish()
}

/// The survivor reads what the fenced may have written about a millisecond after the answer, and that must be all there ever is. The
/// image is in memory, where a read does not queue up behind writes that a disk takes in order. What is over within that millisecond
/// no guest can tell; that takes an engine that holds I/O.
#[test]
fn nothing_lands_after_a_preempt() -> Result<()> {
    provision::check()?;
    let dir = WorkDir::in_memory("fencing")?;
    let mut cluster = Cluster::start_in(dir, &["alpha", "beta", "gamma"], DISK, |config, _| config)?;
    let image = cluster.image.clone();
    let [alpha, beta, gamma] = cluster.all()?;
    beta.good(&format!("cat > pounce.py << 'END'\n{POUNCE}\nEND"))?;
    alpha.good("sg_persist -n --out --register --param-sark=a1 $D")?;
    beta.good("sg_persist -n --out --register --param-sark=b2 $D && sg_persist -n --out --reserve --param-rk=b2 --prout-type=5 $D")?;
    alpha.good(&storm(alpha, area(0), "32k"))?;

    for round in 0..6 * effort() {
        // PREEMPT, and PREEMPT AND ABORT.
        let action = 4 + round % 2;
        gamma.good("sg_persist -n --out --register --param-sark=c3 $D")?;
        gamma.good(&storm(gamma, area(2), "256k"))?;
        let before = bytes(&image, area(2))?;
        let survivor = bytes(&image, area(0))?;
        let seen = beta.good(&format!("python3 pounce.py $D b2 c3 {action:x} {} {AREA}", area(2)))?;
        let moment = bytes(&image, area(2))?;
        thread::sleep(TRYING / 2);
        cut_off(calm(gamma)?);
        let after = bytes(&image, area(2))?;
        assert!(before != after, "round {round}: gamma did not write when it was preempted");
        assert!(moment == after, "round {round}: gamma wrote after it was preempted");
        assert_eq!(digest(&after)?, seen.trim(), "round {round}: a write landed between the answer and a moment later");
        assert!(bytes(&image, area(0))? != survivor, "round {round}: alpha wrote no more");
        assert_eq!(beta.reservations()?.keys, [0xa1, 0xb2]);
        hears(gamma)?;
    }
    assert_eq!(calm(alpha)?, (0, 0), "alpha's writes failed");
    cluster.finish()
}

/// The SHA-256 of bytes, in hexadecimal digits.
fn digest(bytes: &[u8]) -> Result<String> {
    let dir = WorkDir::new("digest")?;
    let path = dir.path("bytes");
    let mut file = File::create(&path).context(|| "keep what was read")?;
    file.write_all(bytes).map_err(|error| Error::new(format!("keep what was read: {error}")))?;
    let digest = host::sha256(&path)?;
    dir.finish();
    Ok(digest)
}
