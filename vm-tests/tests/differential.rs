//! The same random commands to vstgt and to the disks other people wrote that a guest has: the kernel's `scsi_debug` and QEMU's own
//! `scsi-hd`. Every difference must be explained in `differential/*.txt`; every explanation must still be needed.
//!
//! To see one command again, run the guest's program with the seed from the report, and the commands up to its index.

use std::collections::BTreeSet;
use std::fs;
use std::path::{Path, PathBuf};
use std::time::Duration;
use vm_tests::cache::Cache;
use vm_tests::differential::explained::Explained;
use vm_tests::guest::Guest;
use vm_tests::kernel::{Kernel, Line};
use vm_tests::qemu::Machine;
use vm_tests::vstgt::Config;
use vm_tests::workdir::WorkDir;
use vm_tests::{Context, Error, Result, effort, initramfs, provision, tools};

/// The size of all disks: small, so that commands meet.
const SIZE: u64 = 1 << 20;

/// How long so many commands may take where guests are fast.
const BOUND: Duration = Duration::from_secs(100);

/// How many commands a guest is sent at a time.
const BATCH: u64 = 2_000;

/// The folder of lists of explanations.
const LISTS: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/differential");

/// Another implementation a guest has.
struct Peer {
    /// Its list of explanations, without the ending.
    list: &'static str,
    /// The model by which the guest knows its disk.
    model: &'static str,
    /// Random commands: in a short run, and of each seed of a long one.
    commands: [u64; 2],
    /// Seeds of a long run.
    seeds: u64,
}

const PEERS: &[Peer] = &[
    Peer { list: "scsi_debug", model: "scsi_debug", commands: [3_000, 60_000], seeds: 4 },
    Peer { list: "scsi_hd", model: "QEMU HARDDISK", commands: [600, 20_000], seeds: 2 },
];

#[test]
fn every_difference_from_other_disks_is_explained() -> Result<()> {
    provision::check()?;
    let dir = WorkDir::new("differential")?;
    // On a file system in memory nothing waits for a disk of the host.
    let memory = WorkDir::in_memory("differential")?;
    let socket = dir.path("guest.sock");
    let vstgt = Config::new()
        .socket(&socket)
        .lun(&memory.sparse("vstgt.img", SIZE)?, ",serial=DIFF01,product=DIFFERENTIAL")
        .start(&dir.path("vstgt.log"))?;
    let machine = Machine::new("differential")?
        .vhost_user_scsi(&socket, 1)
        .scsi_hd(&memory.sparse("peer.img", SIZE)?, 1, ",dpofua=on")
        .last_disk(&payload(&dir)?, "payload");
    let mut guest = Guest::start_boot(machine, Line::V6_12, dir.root())?.ready()?;
    unpack(&mut guest)?;

    let ours = generic(&mut guest, "DIFFERENTIAL")?;
    let mut wrong = Vec::new();
    for peer in PEERS {
        let theirs = generic(&mut guest, peer.model)?;
        let mut needed = BTreeSet::new();
        let (commands, seeds) = if effort() > 1 { (peer.commands[1], peer.seeds) } else { (peer.commands[0], 1) };
        for (seed, first) in (1..=seeds).flat_map(|seed| (0..commands).step_by(BATCH as usize).map(move |n| (seed, n)))
        {
            let count = BATCH.min(commands - first);
            let script = format!("/tmp/differential /tmp/{}.txt {ours} {theirs} {seed} {count} {first}", peer.list);
            let outcome = guest.run(&script, BOUND)?;
            if outcome.status != 0 {
                return Err(Error::new(format!(
                    "{}: {}\n{}",
                    peer.list,
                    outcome.text(),
                    guest.sh("dmesg | tail -40")?
                )));
            }
            let (summary, unexplained) = judge(&outcome.lines, count, &mut needed)?;
            println!("{}, seed {seed}, from {first} on: {summary}", peer.list);
            wrong.extend(unexplained.map(|report| format!("{}, seed {seed}: {report}", peer.list)));
        }
        let explained = Explained::parse(&fs::read_to_string(list(peer)).context(|| "read a list")?)?;
        let entries = explained.entries();
        let idle: Vec<&str> =
            entries.iter().map(|entry| entry.name.as_str()).filter(|name| !needed.contains(*name)).collect();
        println!("{}: {} of {} explanations fitted, not {idle:?}", peer.list, needed.len(), entries.len());
        if effort() > 1 && !idle.is_empty() {
            wrong.push(format!("{}: explanations that nothing needs: {idle:?}", peer.list));
        }
    }
    guest.poweroff()?;
    vstgt.terminate()?;
    if !wrong.is_empty() {
        return Err(Error::new(wrong.join("\n")));
    }
    memory.finish();
    dir.finish();
    Ok(())
}

/// The last line of a report, and the whole of it if something in it is not explained. Explanations that fitted go to `needed`.
fn judge(lines: &[String], commands: u64, needed: &mut BTreeSet<String>) -> Result<(String, Option<String>)> {
    for line in lines {
        if let ["explained", count, name] = line.split(' ').collect::<Vec<_>>()[..]
            && count != "0"
        {
            needed.insert(name.to_owned());
        }
    }
    let summary = lines.last().cloned().unwrap_or_default();
    let counts: Vec<u64> = summary.split(' ').filter_map(|word| word.parse().ok()).collect();
    let [sent, good, _, unexplained] = counts[..] else { return Err(Error::new(format!("no summary: {lines:?}"))) };
    assert_eq!(sent, commands, "{summary}");
    // Else little was compared.
    assert!(good > commands / 5, "{summary}");
    let report = || lines.iter().filter(|line| !line.starts_with("explained")).cloned().collect::<Vec<_>>().join("\n");
    Ok((summary, (unexplained > 0).then(report)))
}

/// Where a peer's list of explanations is.
fn list(peer: &Peer) -> PathBuf {
    Path::new(LISTS).join(format!("{}.txt", peer.list))
}

/// Makes the disk image that carries the program, its lists and the kernel's `scsi_debug` to the guest.
fn payload(dir: &WorkDir) -> Result<PathBuf> {
    let files = dir.path("payload");
    fs::create_dir(&files).context(|| "make the payload's folder")?;
    fs::copy(env!("CARGO_BIN_EXE_differential"), files.join("differential")).context(|| "copy the program")?;
    for peer in PEERS {
        fs::copy(list(peer), files.join(format!("{}.txt", peer.list))).context(|| "copy a list")?;
    }
    let kernel = Kernel::get(&Cache::open()?, Line::V6_12)?;
    fs::write(files.join("scsi_debug.ko"), initramfs::module(&kernel, "scsi_debug")?).context(|| "write a module")?;
    let archive = dir.path("payload.tar");
    let words = ["-c".as_ref(), "-f".as_ref(), archive.as_os_str(), "-C".as_ref(), files.as_os_str(), ".".as_ref()];
    tools::run("tar", &words, Duration::from_secs(60))?;
    Ok(archive)
}

/// Unpacks it and makes the `scsi_debug` disk, as much like vstgt's as it can be: strict about reserved bits, thin, and in no hurry
/// to be slow.
fn unpack(guest: &mut Guest) -> Result<()> {
    guest.sh(&format!(
        "set -e
        dmesg -n 1  # A serial console is slow.
        for disk in /sys/block/vd*; do
            if [ \"$(cat $disk/serial)\" = payload ]; then tar -x -f /dev/${{disk##*/}} -C /tmp; fi
        done
        insmod /tmp/scsi_debug.ko dev_size_mb={} strict=1 scsi_level=6 lbpu=1 lbpws=1 lbpws10=1 lbprz=1 delay=0 no_uld=1 \
            unmap_granularity=8",
        SIZE >> 20
    ))?;
    Ok(())
}

/// The generic device of the disk of a model.
fn generic(guest: &mut Guest, model: &str) -> Result<String> {
    guest.sh(&format!(
        "for i in $(seq 100); do
            for device in /sys/class/scsi_device/*/device; do
                if [ \"$(cat $device/model | sed 's/ *$//')\" = '{model}' ] && [ -d $device/scsi_generic ]; then
                    echo /dev/$(ls $device/scsi_generic)
                    exit
                fi
            done
            sleep 0.1
        done
        lsscsi -g
        exit 1"
    ))
}
