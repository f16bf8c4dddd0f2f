//! Two guests on two sockets of one vstgt: a disk they share, a disk for each, and one of them killed.

use std::path::Path;
use std::time::Duration;
use vm_tests::guest::{Booting, Guest};
use vm_tests::kernel::Line;
use vm_tests::process::wait_until;
use vm_tests::qemu::Machine;
use vm_tests::vstgt::{Config, Vstgt};
use vm_tests::workdir::WorkDir;
use vm_tests::{Result, effort, provision};

const MIB: u64 = 1 << 20;

/// The disk both see; the first half is red's to write, the second blue's.
const SHARED: u64 = 32 * MIB;
/// Their own disks differ in size, so that a mix-up shows.
const RED: u64 = 16 * MIB;
const BLUE: u64 = 24 * MIB;

/// How long things may take, where guests are fast.
const WHILE: Duration = Duration::from_secs(60);

/// How long a nexus outlives its connection here, and how late its end may be seen.
const LOSS: u64 = 2;
const SLACK: Duration = Duration::from_secs(20);

#[test]
fn a_killed_guest_disturbs_nobody_and_comes_back() -> Result<()> {
    provision::check()?;
    let dir = WorkDir::new("two")?;
    let (red_socket, blue_socket) = (dir.path("red.sock"), dir.path("blue.sock"));
    let mut vstgt = Config::new()
        .socket_with(&red_socket, ",initiator=red")
        .socket_with(&blue_socket, ",initiator=blue")
        .lun(&dir.sparse("shared.img", SHARED)?, ",serial=SHARED01")
        .lun(&dir.sparse("red.img", RED)?, ",lun=1,serial=RED01,initiator=red")
        .lun(&dir.sparse("blue.img", BLUE)?, ",lun=1,serial=BLUE01,initiator=blue")
        .arg("--nexus-loss-timeout")
        .arg(LOSS.to_string())
        .arg("-v")
        .start(&dir.path("vstgt.log"))?;

    let red = boot(&dir, "red", &red_socket)?;
    let mut blue = boot(&dir, "blue", &blue_socket)?.ready()?;
    let mut red = red.ready()?;
    for name in ["red", "blue"] {
        vstgt.wait_for_log(&["I_T nexus created", name], SLACK)?;
    }
    sees(&mut red, &[("SHARED01", SHARED), ("RED01", RED)])?;
    sees(&mut blue, &[("SHARED01", SHARED), ("BLUE01", BLUE)])?;
    shares(&mut red, &mut blue)?;

    for round in 1..=effort() as usize {
        // Red writes without end to both its disks, until it is killed in the midst of blue's writing.
        let (shared, own) = (red.disk("SHARED01")?, red.disk("RED01")?);
        let endless = "--time_based --runtime=36000 > fio.log 2>&1 &";
        red.sh(&format!("{}\n{}", fio(&shared, 0, endless), fio(&own, 0, endless)))?;
        writes(&mut red, &[&shared, &own])?;
        let blues = start_writing(&mut blue)?;
        writes(&mut blue, &[&blues[0], &blues[1]])?;
        red.vm().kill();
        drop(red);
        blue.sh("! ls *.status 2> /dev/null")?;
        finish_writing(&mut blue)?;

        wait_for_lines(&mut vstgt, "I_T nexus destroyed", "red", round)?;
        let log = vstgt.log();
        assert_eq!(lines(&log, "I_T nexus destroyed", "blue"), 0, "{log}");

        red = boot(&dir, &format!("red{round}"), &red_socket)?.ready()?;
        sees(&mut red, &[("SHARED01", SHARED), ("RED01", RED)])?;
        let own = red.disk("RED01")?;
        let outcome = red.run(&fio(&own, 0, "2>&1"), WHILE)?;
        assert_eq!(outcome.status, 0, "{}", outcome.text());
    }
    red.poweroff()?;
    blue.poweroff()?;
    vstgt.wait_for_log(&["I_T nexus destroyed", "blue"], SLACK)?;
    let log = vstgt.terminate()?;
    for (name, times) in [("red", 1 + effort() as usize), ("blue", 1)] {
        assert_eq!(lines(&log, "I_T nexus created", name), times, "{name} in {log}");
        assert_eq!(lines(&log, "I_T nexus destroyed", name), times, "{name} in {log}");
    }
    dir.finish();
    Ok(())
}

fn boot(dir: &WorkDir, name: &str, socket: &Path) -> Result<Booting> {
    let machine = Machine::new(name)?.memory_mib(384).vhost_user_scsi(socket, 2);
    Guest::start_boot(machine, Line::V6_12, dir.root())
}

/// Starts verified writes on blue's half of the shared disk and on its own disk; returns both disks.
fn start_writing(blue: &mut Guest) -> Result<[String; 2]> {
    let (shared, own) = (blue.disk("SHARED01")?, blue.disk("BLUE01")?);
    for (name, disk, offset) in [("p", &shared, SHARED / 2), ("q", &own, 0)] {
        let writes = fio(disk, offset, "--loops=3");
        blue.sh(&format!("rm -f {name}.status; ({writes}; echo $? > {name}.status) > {name}.log 2>&1 &"))?;
    }
    Ok([shared, own])
}

/// Waits for their end: without an error, every block read back as it was written.
fn finish_writing(blue: &mut Guest) -> Result<()> {
    let script = "until [ -s p.status -a -s q.status ]; do sleep 0.2; done; cat *.log; exit $(cat p.status q.status | tr -d '\\n')";
    let outcome = blue.run(script, WHILE * 2)?;
    assert_eq!(outcome.status, 0, "{}", outcome.text());
    Ok(())
}

/// Waits until vstgt's log has so many lines with both.
fn wait_for_lines(vstgt: &mut Vstgt, what: &str, name: &str, count: usize) -> Result<()> {
    let there = wait_until(SLACK, || Ok((lines(&vstgt.log(), what, name) >= count).then_some(())))?;
    assert!(there.is_some(), "no {count} of \"{what}\" with {name} in:\n{}", vstgt.log());
    Ok(())
}

/// How many lines of a log have both.
fn lines(log: &str, what: &str, name: &str) -> usize {
    log.lines().filter(|line| line.contains(what) && line.contains(name)).count()
}

/// The guest has exactly these disks, and they have these sizes.
fn sees(guest: &mut Guest, disks: &[(&str, u64)]) -> Result<()> {
    for (serial, size) in disks {
        let disk = guest.disk(serial)?;
        let sectors = guest.sh(&format!("cat /sys/block/{}/size", &disk[5..]))?;
        assert_eq!(sectors, (size / 512).to_string(), "{serial}");
    }
    let all = guest.sh("ls -d /sys/block/sd* | wc -l")?;
    assert_eq!(all, disks.len().to_string());
    Ok(())
}

/// What one writes to the shared disk the other reads.
fn shares(red: &mut Guest, blue: &mut Guest) -> Result<()> {
    let (here, there) = (red.disk("SHARED01")?, blue.disk("SHARED01")?);
    let digest = "| sha256sum";
    let written = red.sh(&format!(
        "dd if=/dev/urandom of=data bs=64k count=16 2> /dev/null; cat data {digest}; \
         dd if=data of={here} bs=64k seek=3 oflag=direct 2> /dev/null"
    ))?;
    let read = blue.sh(&format!("dd if={there} bs=64k skip=3 count=16 iflag=direct 2> /dev/null {digest}"))?;
    assert_eq!(written, read, "blue does not read what red wrote");
    Ok(())
}

/// Verified random writes on 12 MiB from `offset` on.
fn fio(disk: &str, offset: u64, more: &str) -> String {
    format!(
        "fio --name=v --filename={disk} --thread --ioengine=libaio --iodepth=32 --direct=1 --rw=randwrite \
         --bssplit=512/30:4k/40:16k/20:64k/10 --verify=crc32c --verify_fatal=1 --offset={offset} --size=12M {more}"
    )
}

/// Waits until the guest has written to all of these disks.
fn writes(guest: &mut Guest, disks: &[&str]) -> Result<()> {
    for disk in disks {
        // The fifth field of a disk's statistics counts completed writes.
        guest.sh(&format!(
            "stat() {{ awk '{{ print $5 }}' /sys/block/{}/stat; }}; from=$(stat); \
             until [ $(stat) -gt $((from + 50)) ]; do sleep 0.1; done",
            &disk[5..]
        ))?;
    }
    Ok(())
}
