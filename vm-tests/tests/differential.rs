//! The same random commands to vstgt and to the disks other people wrote that a guest has: the kernel's `scsi_debug` and QEMU's own
//! `scsi-hd`. Every difference must be explained in `differential/*.txt`; every explanation must still be needed.
//!
//! To see one command again, run the guest's program with the seed from the report, and the commands up to its index.

use std::collections::BTreeSet;
use std::fs;
use std::path::Path;
use std::time::Duration;
use vm_tests::cache::Cache;
use vm_tests::differential::explained::Explained;
use vm_tests::guest::Guest;
use vm_tests::kernel::{Kernel, Line};
use vm_tests::qemu::Machine;
use vm_tests::vstgt::Config;
use vm_tests::workdir::WorkDir;
use vm_tests::{Error, Result, effort, initramfs, provision, tools};

/// The size of all disks: small, so that commands meet.
const SIZE: u64 = 1 << 20;

/// Random commands to each pair of disks, and how many seeds.
const SHORT: (u64, u64) = (3_000, 1);
const LONG: (u64, u64) = (60_000, 4);

/// How long they may take where guests are fast.
const BOUND: Duration = Duration::from_secs(120);

/// Lists of explanations, by peer.
const LISTS: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/differential");

/// The peers: their list, and the model by which the guest knows them.
const PEERS: &[(&str, &str)] = &[("scsi_hd", "QEMU HARDDISK"), ("scsi_debug", "scsi_debug")];

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

    let (commands, seeds) = if effort() > 1 { LONG } else { SHORT };
    let ours = generic(&mut guest, "DIFFERENTIAL")?;
    let mut wrong = Vec::new();
    for (list, model) in PEERS {
        let peer = generic(&mut guest, model)?;
        let mut needed = BTreeSet::new();
        for seed in 1..=seeds {
            let script = format!("/tmp/differential /tmp/{list}.txt {ours} {peer} {seed} {commands}");
            let outcome = guest.run(&script, BOUND)?;
            if outcome.status != 0 {
                return Err(Error::new(format!("{list}: {}\n{}", outcome.text(), guest.sh("dmesg | tail -40")?)));
            }
            let (summary, unexplained) = judge(&outcome.lines, commands, &mut needed);
            println!("{list}, seed {seed}: {summary}");
            if let Some(report) = &unexplained {
                println!("{report}");
            }
            wrong.extend(unexplained.map(|report| format!("{list}, seed {seed}: {report}")));
        }
        let text = fs::read_to_string(Path::new(LISTS).join(format!("{list}.txt"))).unwrap();
        let explained = Explained::parse(&text)?;
        let idle: Vec<&str> = explained
            .entries()
            .iter()
            .map(|entry| entry.name.as_str())
            .filter(|name| !needed.contains(*name))
            .collect();
        println!("{list}: {} of {} explanations fitted", needed.len(), explained.entries().len());
        if effort() > 1 && !idle.is_empty() {
            wrong.push(format!("{list}: explanations that nothing needs: {idle:?}"));
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
fn judge(lines: &[String], commands: u64, needed: &mut BTreeSet<String>) -> (String, Option<String>) {
    for line in lines {
        if let ["explained", count, name] = line.split(' ').collect::<Vec<_>>()[..]
            && count != "0"
        {
            needed.insert(name.to_owned());
        }
    }
    let summary = lines.last().cloned().unwrap_or_default();
    let counts: Vec<u64> = summary.split(' ').filter_map(|word| word.parse().ok()).collect();
    let [sent, good, _, unexplained] = counts[..] else { panic!("no summary: {lines:?}") };
    assert_eq!(sent, commands, "{summary}");
    // Else little was compared.
    assert!(good > commands / 5, "{summary}");
    let report = || lines.iter().filter(|line| !line.starts_with("explained")).cloned().collect::<Vec<_>>().join("\n");
    (summary, (unexplained > 0).then(report))
}

/// Makes the disk image that carries the program, its lists and the kernel's `scsi_debug` to the guest.
fn payload(dir: &WorkDir) -> Result<std::path::PathBuf> {
    let files = dir.path("payload");
    fs::create_dir(&files).unwrap();
    fs::copy(env!("CARGO_BIN_EXE_differential"), files.join("differential")).unwrap();
    for (list, _) in PEERS {
        fs::copy(Path::new(LISTS).join(format!("{list}.txt")), files.join(format!("{list}.txt"))).unwrap();
    }
    let kernel = Kernel::get(&Cache::open()?, Line::V6_12)?;
    fs::write(files.join("scsi_debug.ko"), initramfs::module(&kernel, "scsi_debug")?).unwrap();
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
