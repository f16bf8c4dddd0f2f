//! vstgt is killed (SIGKILL) at random moments, and replaced by successors, under a Linux guest that writes to a bare disk and to a mounted file system and
//! verifies what it reads: to the guest it is a pause. No error reaches it, nothing is read that was not written, the file system is
//! whole, its registration is there, no unit attention is told.
//!
//! The pauses are measured where they count, in the guest: the longest between two reads of a process that reads without end.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, reason = "test code")]

use std::path::PathBuf;
use std::thread;
use std::time::{Duration, Instant};
use vm_tests::guest::Guest;
use vm_tests::kernel::Line;
use vm_tests::qemu::Machine;
use vm_tests::vstgt::{Config, Vstgt};
use vm_tests::workdir::WorkDir;
use vm_tests::{Result, VSTGT_SOAK, provision};

const MIB: u64 = 1 << 20;

/// How often QEMU tries to connect again.
const RECONNECT: &str = ",reconnect-ms=20";

/// How long the guest may take to have its disk back, where guests are fast.
const BACK: Duration = Duration::from_secs(60);

/// How long the last round of the guest's work may take, where guests are fast.
const LAST: Duration = Duration::from_secs(180);

/// What a kernel says when something reached it that should not have.
const TROUBLE: &str =
    "error|fail|timed out|timing out|abort|reset|offline|corrupt|hung|blocked for|sense key|unreachable";

/// xorshift64*
struct Random(u64);

impl Random {
    fn below(&mut self, bound: u64) -> u64 {
        self.0 ^= self.0 >> 12;
        self.0 ^= self.0 << 25;
        self.0 ^= self.0 >> 27;
        (self.0.wrapping_mul(0x2545_f491_4f6c_dd1d) >> 33) % bound
    }
}

/// A process under test that is replaced again and again. Each has a log of its own.
struct Lives {
    config: Config,
    current: Option<Vstgt>,
    dir: WorkDir,
    logs: Vec<PathBuf>,
}

impl Lives {
    fn next_log(&mut self) -> PathBuf {
        let log = self.dir.path(&format!("vstgt{}.log", self.logs.len()));
        self.logs.push(log.clone());
        log
    }

    fn kill_and_restart(&mut self) -> Result<()> {
        if let Some(mut vstgt) = self.current.take() {
            vstgt.kill();
        }
        let log = self.next_log();
        self.current = Some(self.config.clone().start(&log)?);
        Ok(())
    }

    fn hand_over(&mut self) -> Result<()> {
        let log = self.next_log();
        let predecessor = self.current.take().expect("one runs");
        self.current = Some(self.config.clone().succeed(predecessor, &log)?);
        Ok(())
    }

    /// Waits until the guest has its rings running in the current process.
    fn wait_for_guest(&mut self, slowness: u32) -> Result<()> {
        let vstgt = self.current.as_mut().expect("one runs");
        vstgt.wait_for_log(&["I_T nexus created"], BACK * slowness).map(drop)
    }
}

#[test]
fn a_guest_sees_only_pauses() -> Result<()> {
    provision::check()?;
    let long = std::env::var_os(VSTGT_SOAK).is_some();
    let (kills, handovers) = if long { (300, 30) } else { (12, 3) };
    let seed = std::env::var("VSTGT_TEST_SEED").map_or(0x5eed, |seed| seed.parse().unwrap());
    let mut random = Random(0x9e37_79b9_7f4a_7c15 ^ seed);

    let dir = WorkDir::new("restart")?;
    let socket = dir.path("vm.sock");
    let config = Config::new()
        .socket_with(&socket, ",initiator=guest")
        .lun(&dir.sparse("raw.img", 32 * MIB)?, ",serial=RAW01")
        .lun(&dir.sparse("fs.img", 128 * MIB)?, ",lun=1,serial=FS01")
        .arg("--handover")
        .arg(dir.path("handover"))
        .arg("--state-dir")
        .arg(dir.path("state"))
        // Its guest is slow, where it is emulated.
        .args(["--nexus-loss-timeout", "120", "-v"]);
    let machine = Machine::new("guest")?.memory_mib(512).vhost_user_scsi_with(&socket, 2, RECONNECT, "");
    let slowness = machine.accel().slowness();
    let mut lives = Lives { config, current: None, dir, logs: Vec::new() };
    lives.kill_and_restart()?;
    let mut guest = Guest::start_boot(machine, Line::V6_12, lives.dir.root())?.ready()?;
    let (raw, fs) = (guest.disk("RAW01")?, guest.disk("FS01")?);
    guest.sh(&format!("sg_persist -n --out --register --param-sark=abc {raw}"))?;
    start_work(&mut guest, &raw, &fs)?;

    // In which order is random, too.
    let mut left = [kills, handovers];
    let mut down = Vec::new();
    while left[0] + left[1] > 0 {
        let handover = random.below(left[0] + left[1]) >= left[0];
        // Mostly in the middle of work, often enough while the guest comes back.
        if random.below(4) > 0 {
            lives.wait_for_guest(slowness)?;
            thread::sleep(Duration::from_millis(random.below(2500)));
        } else {
            thread::sleep(Duration::from_millis(random.below(300)));
        }
        let start = Instant::now();
        if handover {
            lives.hand_over()?
        } else {
            lives.kill_and_restart()?
        }
        down.push(start.elapsed());
        left[usize::from(handover)] -= 1;
    }
    lives.wait_for_guest(slowness)?;
    let gaps = finish_work(&mut guest, &raw, &fs, down.len())?;
    down.sort();
    println!(
        "{kills} kills, {handovers} handovers: a new process serves after p50 {:?}, max {:?}; the guest pauses for p50 {:.3} s, max {:.3} s \
         (between restarts for {:.3} s)",
        down[down.len() / 2],
        down[down.len() - 1],
        gaps.p50,
        gaps.max,
        gaps.usual
    );
    guest.poweroff()?;
    let last = lives.current.take().expect("one runs").terminate()?;
    for log in lives.logs.iter().map(|log| std::fs::read_to_string(log).unwrap()).chain([last]) {
        let bad = log.lines().find(|line| line.contains(" ERROR ") || line.contains("panicked"));
        assert_eq!(bad, None, "in\n{log}");
    }
    lives.dir.finish();
    Ok(())
}

/// Begins what the guest does until `/tmp/stop` is there. Each piece of work leaves `.rounds` when it is over, and `.failed` if it failed.
fn start_work(guest: &mut Guest, raw: &str, fs: &str) -> Result<()> {
    guest.sh(&format!("mkfs.ext4 -q {fs}; mkdir -p /run/fs; mount {fs} /run/fs"))?;
    let loops = r#"
        work() {
            name=$1; shift; n=0
            while [ ! -e /tmp/stop ]; do
                "$@" > /tmp/$name.log 2>&1 || { echo $? > /tmp/$name.failed; break; }
                n=$((n + 1))
            done
            echo $n > /tmp/$name.rounds
        }
        files() {
            for i in 1 2 3 4; do
                d=/run/fs/d$((n % 3))
                rm -rf $d; mkdir $d
                head -c 60000 /dev/urandom > $d/a; cp $d/a $d/b; sync; mv $d/b $d/c; sync
                echo 3 > /proc/sys/vm/drop_caches
                cmp $d/a $d/c || return 1
            done
        }
        # Microseconds at which a read of the disk was over.
        pulse() {
            while [ ! -e /tmp/stop ]; do
                dd if=$1 of=/dev/null bs=4k count=1 iflag=direct 2> /dev/null || return 1
                echo ${EPOCHREALTIME/./} >> /tmp/pulses
                read -rt 0.02 <&4
            done
            return 0
        }
        mkfifo /tmp/nothing; exec 4<> /tmp/nothing
        echo begun > /dev/kmsg
    "#;
    let verify = "--thread --verify=crc32c --verify_fatal=1";
    let bare = format!(
        "fio --name=raw --filename={raw} --offset=1M --size=12M --ioengine=libaio --iodepth=16 --direct=1 --rw=randwrite \
         --bssplit=512/30:4k/40:16k/20:64k/10 --verify_backlog=64 --fsync=64 {verify}"
    );
    let file = format!(
        "fio --name=fs --directory=/run/fs --size=6M --ioengine=psync --rw=randwrite --bs=4k --fsync=16 {verify}"
    );
    let begin = format!(
        "(work raw {bare}) > /dev/null 2>&1 &\n(work file {file}) > /dev/null 2>&1 &\n(work files files) > /dev/null 2>&1 &\n\
         (work pulse pulse {raw}) > /dev/null 2>&1 &\n"
    );
    guest.sh(&format!("{loops}{begin}until [ -s /tmp/pulses ]; do sleep 0.1; done"))?;
    Ok(())
}

/// Seconds in which the guest got no answer.
struct Gaps {
    p50: f64,
    max: f64,
    /// The median of all others.
    usual: f64,
}

/// Ends the work, and looks at all that it left; the longest pauses, as many as there were `restarts`.
fn finish_work(guest: &mut Guest, raw: &str, fs: &str, restarts: usize) -> Result<Gaps> {
    let stop = "touch /tmp/stop; until [ -s /tmp/raw.rounds -a -s /tmp/file.rounds -a -s /tmp/files.rounds -a -s /tmp/pulse.rounds ]; do \
                sleep 0.2; done\n\
                for n in raw file files pulse; do echo $n $(cat /tmp/$n.rounds) rounds; [ -e /tmp/$n.failed ] && cat /tmp/$n.log; done; ! ls /tmp/*.failed 2> /dev/null";
    let outcome = guest.run(stop, LAST)?;
    let said = guest.sh(&format!("dmesg | sed '1,/begun/d' | grep -iE '{TROUBLE}' | tail -n 50; true"))?;
    assert_eq!((outcome.status, said.as_str()), (0, ""), "{}", outcome.text());
    println!("{}", outcome.lines.join(", "));
    guest.sh(&format!("umount /run/fs && fsck.ext4 -f -n {fs}"))?;
    guest.sh(&format!("sg_turs {raw} && sg_turs {fs} && sg_persist -n --in --read-keys {raw} | grep -q 0xabc"))?;
    let text = guest.sh("cat /tmp/pulses")?;
    let pulses: Vec<u64> = text.lines().map(|line| line.parse().unwrap()).collect();
    let mut gaps: Vec<f64> = pulses.windows(2).map(|pair| (pair[1] - pair[0]) as f64 / 1e6).collect();
    gaps.sort_by(f64::total_cmp);
    assert!(gaps.len() > restarts * 2, "{} reads in {restarts} restarts", gaps.len());
    let (usual, pauses) = gaps.split_at(gaps.len() - restarts);
    Ok(Gaps { p50: pauses[restarts / 2], max: pauses[restarts - 1], usual: usual[usual.len() / 2] })
}
