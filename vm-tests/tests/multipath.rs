//! One guest with two ways to one disk, each by a target port of its own: device-mapper multipath makes one disk of them, keeps writing when
//! a way goes, and reserves over both.

use std::path::PathBuf;
use std::time::Duration;
use vm_tests::guest::Guest;
use vm_tests::process::wait_until;
use vm_tests::qemu::Machine;
use vm_tests::vstgt::{Config, Vstgt};
use vm_tests::workdir::WorkDir;
use vm_tests::{Context, Error, Result, effort, provision};

const MIB: u64 = 1 << 20;

/// How long things may take, where guests are fast.
const WHILE: Duration = Duration::from_secs(30);

/// The sockets of the machine's two HBAs; the one's target port is preferred.
const WAYS: [&str; 2] = ["near", "far"];

/// The key the guest registers.
const KEY: &str = "0xabc123";

/// multipathd's configuration. A disk is taken whether or not it has a second path yet, because one of them goes and comes.
const CONFIGURATION: &str = "\
defaults {
    find_multipaths no
    user_friendly_names no
    polling_interval 1
    max_polling_interval 2
    failback immediate
    no_path_retry queue
    reservation_key file
}
";

#[test]
fn a_map_over_two_target_ports_fails_over() -> Result<()> {
    provision::check()?;
    let mut setup = Setup::new()?;
    setup.both_ways_are_one_disk()?;
    setup.reserve()?;

    // Verified writes, over and over, until told to stop.
    setup.guest.sh(&format!(
        "(while :; do fio --name=v --filename={} --thread --ioengine=libaio --iodepth=16 --direct=1 --rw=randwrite \
         --bssplit=512/20:4k/50:16k/30 --size=8M --verify=crc32c --verify_fatal=1; s=$?; \
         [ $s = 0 -a ! -e stop ] || break; done; echo $s > status) > fio.log 2>&1 &",
        setup.map
    ))?;
    setup.writes_go_on()?;
    for _ in 0..effort() {
        setup.a_path_goes_offline()?;
        setup.ports_change_their_states()?;
        setup.an_hba_is_unplugged()?;
    }
    let outcome = setup
        .guest
        .run("touch stop; until [ -e status ]; do sleep 0.1; done; cat fio.log; exit $(cat status)", WHILE)?;
    assert_eq!(outcome.status, 0, "{}", outcome.text());

    setup.release()?;
    setup.guest.poweroff()?;
    setup.vstgt.terminate()?;
    setup.dir.finish();
    Ok(())
}

/// What the test runs in; dropped from the top down.
struct Setup {
    guest: Guest,
    vstgt: Vstgt,
    /// The map's device: `/dev/dm-0`, or another number.
    map: String,
    dir: WorkDir,
}

impl Setup {
    fn new() -> Result<Setup> {
        let dir = WorkDir::new("multipath")?;
        let sockets: [PathBuf; 2] = WAYS.map(|way| dir.path(&format!("{way}.sock")));
        let mut config = Config::new();
        let mut machine = Machine::new("multipath")?;
        for (n, (way, state)) in WAYS.into_iter().zip(["active", "active-nonoptimized"]).enumerate() {
            let number = n + 1;
            config = config.arg("--target-port").arg(format!("name={way},id={number},group={number},state={state}"));
            config = config.socket_with(&sockets[n], &format!(",initiator=guest,target-port={way}"));
            // Behind a port of its own, from which it can be unplugged.
            machine =
                machine.arg("-device").arg(format!("pcie-root-port,id=slot{number},chassis={number},slot={number}"));
            machine = machine.vhost_user_scsi_with(&sockets[n], 2, "", &format!(",bus=slot{number}"));
        }
        let vstgt = config
            .lun(&dir.sparse("disk.img", 32 * MIB)?, ",serial=SHARED01")
            .arg("-v")
            .start(&dir.path("vstgt.log"))?;
        let mut guest = Guest::start_boot_debian(machine, dir.root())?.ready()?;
        guest.disks("SHARED01", 2)?;
        let configuration = CONFIGURATION;
        guest.sh(&format!(
            "mkdir -p /etc/multipath && cat > /etc/multipath.conf <<'END'\n{configuration}END\n\
             /lib/systemd/systemd-udevd --daemon && udevadm trigger --action=add --subsystem-match=block && udevadm settle && multipathd"
        ))?;
        let mut setup = Setup { guest, vstgt, map: String::new(), dir };
        setup.wait_for_paths("active ready", 2)?;
        setup.map = format!("/dev/{}", setup.guest.sh("multipathd show maps raw format %d")?.trim());
        Ok(setup)
    }

    /// Waits until multipathd says so of so many paths: as device mapper and checker see them.
    fn wait_for_paths(&mut self, state: &str, count: usize) -> Result<()> {
        self.guest
            .sh(&format!(
                "for i in $(seq 150); do [ $(multipathd show paths raw format '%t %T' 2> /dev/null | grep -c '^{state}') = {count} ] && exit; \
                 sleep 0.2; done; multipath -ll; dmesg | tail -30; exit 1"
            ))
            .map(drop)
            .context(|| format!("waiting for {count} paths to be {state}"))
    }

    /// Waits until the guest has completed another two hundred reads and writes on the map.
    fn writes_go_on(&mut self) -> Result<()> {
        let stat = format!("/sys/block/{}/stat", self.map.trim_start_matches("/dev/"));
        self.guest
            .sh(&format!(
                "completed() {{ awk '{{ print $1 + $5 }}' {stat}; }}; from=$(completed); \
                 for i in $(seq 300); do [ -e status ] && break; [ $(completed) -gt $((from + 200)) ] && exit; sleep 0.1; done; \
                 multipath -ll; tail -5 fio.log; dmesg | tail -30; exit 1"
            ))
            .map(drop)
    }

    /// The disk that the map's I/O goes to.
    fn in_use(&mut self) -> Result<String> {
        // fio starts anew now and then, which takes a while where guests are slow.
        let disk = self.guest.sh(
            "completed() { awk '{ print $1 + $5 }' /sys/block/$1/stat; }\n\
             for i in $(seq 30); do multipathd show paths raw format '%d' | while read -r d; do echo $(completed $d) $d; done > before\n\
             sleep 1; while read -r n d; do if [ $(completed $d) -gt $((n + 20)) ]; then echo $d; fi; done < before > now\n\
             [ -s now ] && break; done; cat now",
        )?;
        match disk.lines().collect::<Vec<_>>()[..] {
            [disk] => Ok(disk.trim().to_owned()),
            _ => Err(Error::new(format!(
                "I/O goes to \"{disk}\" instead of one disk\n{}",
                self.guest.sh("multipath -ll")?
            ))),
        }
    }

    /// The number of the way that a disk is behind: its place in [`WAYS`], plus one, which is also the PCI bus of its slot.
    fn way(&mut self, disk: &str) -> Result<usize> {
        let path = self.guest.sh(&format!("readlink -f /sys/block/{disk}/device"))?;
        let number = (1..=2).find(|number| path.contains(&format!("/0000:0{number}:00.0/")));
        number.context(|| format!("{disk} is behind neither slot: {path}"))
    }

    /// What both paths tell is one logical unit, seen by two target ports in two groups, of which the guest prefers one.
    fn both_ways_are_one_disk(&mut self) -> Result<()> {
        let maps = self.guest.sh("multipathd show maps raw format '%w'")?;
        assert_eq!(maps.lines().count(), 1, "{maps}");
        let table = self.guest.sh("dmsetup table")?;
        assert!(table.contains(" 1 alua "), "{table}");
        let mut designators = Vec::new();
        for disk in self.guest.disks("SHARED01", 2)? {
            let way = self.way(disk.trim_start_matches("/dev/"))?;
            let unit = self.guest.sh(&format!("sg_vpd -p di_lu -q {disk}"))?;
            let port = self.guest.sh(&format!("sg_vpd -p di_port {disk}"))?;
            for (label, number) in [("Relative target port: 0x", way), ("Target port group: 0x", way)] {
                assert!(port.contains(&format!("{label}{number}")), "no {label}{number} in what {disk} says:\n{port}");
            }
            designators.push(unit);
        }
        assert_eq!(designators[0], designators[1]);
        // The kernel makes the far port active, too, when it is the first to be found.
        let [near, far] = self.near_and_far()?;
        self.set_states(&near, "ao,an")?;
        self.guest
            .sh(&format!(
                "for i in $(seq 100); do p=$(multipathd show paths raw format '%d %p' | sort | xargs); \
                 [ \"$p\" = \"$(printf '{near} 50\\n{far} 10\\n' | sort | xargs)\" ] && exit; sleep 0.2; done; multipath -ll; exit 1"
            ))
            .map(drop)
    }

    /// Registers a key over both paths and reserves for those who have.
    fn reserve(&mut self) -> Result<()> {
        let map = self.map.clone();
        // Ignoring an existing key, because multipathd may be first on a path that it has just found to be up.
        self.guest.sh(&format!("mpathpersist --out --register-ignore --param-sark={KEY} {map}"))?;
        self.guest.sh(&format!("mpathpersist --out --reserve --param-rk={KEY} --prout-type=5 {map}"))?;
        let reservation = self.guest.sh(&format!("mpathpersist --in --read-reservation {map}"))?;
        assert!(
            reservation.contains(KEY) && reservation.contains("Write Exclusive, registrants only"),
            "{reservation}"
        );
        self.is_registered()
    }

    /// READ FULL STATUS shows one registration for each target port, and the reservation.
    fn is_registered(&mut self) -> Result<()> {
        let map = &self.map;
        let status = self
            .guest
            .sh(&format!("mpathpersist --in --read-full-status {map}; sg_persist --in --read-full-status {map}"))?;
        for way in 1..=2 {
            assert!(status.contains(&format!("Relative port address: 0x{way}")), "no port {way} in:\n{status}");
        }
        assert_eq!(status.matches(KEY).count(), 4, "{status}");
        Ok(())
    }

    /// Releases and unregisters over both paths.
    fn release(&mut self) -> Result<()> {
        self.is_registered()?;
        let map = self.map.clone();
        self.guest.sh(&format!("mpathpersist --out --release --param-rk={KEY} --prout-type=5 {map}"))?;
        let reservation = self.guest.sh(&format!("mpathpersist --in --read-reservation {map}"))?;
        assert!(reservation.contains("NO reservation"), "{reservation}");
        self.guest.sh(&format!("mpathpersist --out --register --param-rk={KEY} --param-sark=0 {map}"))?;
        let keys = self.guest.sh(&format!("mpathpersist --in --read-keys {map}"))?;
        assert!(keys.contains("0 registered reservation key"), "{keys}");
        Ok(())
    }

    /// The guest's kernel takes the path in use from the map, and gets it back.
    fn a_path_goes_offline(&mut self) -> Result<()> {
        let disk = self.in_use()?;
        self.guest.sh(&format!("echo offline > /sys/block/{disk}/device/state"))?;
        self.wait_for_paths("failed", 1)?;
        self.writes_go_on()?;
        assert_ne!(self.in_use()?, disk);
        self.guest.sh(&format!("echo running > /sys/block/{disk}/device/state"))?;
        self.wait_for_paths("active ready", 2)?;
        self.writes_go_on()
    }

    /// Waits until the map's I/O goes to a disk alone.
    fn changes_over_to(&mut self, disk: &str) -> Result<()> {
        let there = wait_until(WHILE, || match self.in_use() {
            Ok(now) if now == disk => Ok(Some(())),
            _ => Ok(None),
        })?;
        there.context(|| format!("I/O never goes to {disk}: {:?}", self.guest.sh("multipath -ll; dmesg | tail -30")))
    }

    /// Sets the access states of the near and the far port's groups, in sg_stpg's letters, through a disk.
    fn set_states(&mut self, disk: &str, states: &str) -> Result<()> {
        // Its exit status is 0 even when the target refuses.
        let told = self.guest.sh(&format!("sg_stpg --tp=1,2 --state={states} /dev/{disk} 2>&1"))?;
        if told.contains("Illegal") || told.contains("failed") { Err(Error::new(told)) } else { Ok(()) }
    }

    /// The disks behind the near and the far port.
    fn near_and_far(&mut self) -> Result<[String; 2]> {
        let mut disks = self.guest.disks("SHARED01", 2)?.into_iter().map(|disk| disk.replace("/dev/", ""));
        let (one, two) = disks.next().zip(disks.next()).context(|| "two disks were found")?;
        Ok(if self.way(&one)? == 1 { [one, two] } else { [two, one] })
    }

    /// Access states are told to the target: I/O goes by the better port, one in standby refuses it, and when that is the only one left
    /// the guest's kernel makes it active by itself.
    fn ports_change_their_states(&mut self) -> Result<()> {
        let [near, far] = self.near_and_far()?;
        // What went before may have left both active: the kernel activates the port it fails over to.
        self.set_states(&near, "ao,an")?;
        self.changes_over_to(&near)?;

        self.set_states(&near, "ao,s")?;
        self.wait_for_paths("active ghost", 1)?;
        let read = format!("sg_raw --request=512 /dev/{far} 28 00 00 00 00 00 00 00 01 00");
        let refused = self.guest.run(&read, WHILE)?;
        // sg3_utils' exit status for NOT READY.
        assert_eq!(refused.status, 2, "{}", refused.text());
        assert!(refused.text().to_lowercase().contains("standby"), "{}", refused.text());

        self.guest.sh(&format!("echo offline > /sys/block/{near}/device/state"))?;
        self.changes_over_to(&far)?;
        let groups = self.guest.sh(&format!("sg_rtpg --decode /dev/{far}"))?;
        assert!(!groups.contains("standby state"), "{groups}");
        self.guest.sh(&format!("echo running > /sys/block/{near}/device/state"))?;
        self.set_states(&far, "ao,an")?;
        self.wait_for_paths("active ready", 2)?;
        self.changes_over_to(&near)
    }

    /// The HBA in use is unplugged, and plugged in again.
    fn an_hba_is_unplugged(&mut self) -> Result<()> {
        let disk = self.in_use()?;
        let way = self.way(&disk)?;
        let (id, chardev, bus) = (format!("scsi{way}"), format!("vu{way}"), format!("slot{way}"));
        self.guest.vm().qmp().execute("device_del", &[("id", &id)])?;
        self.wait_for_paths("active ready", 1)?;
        self.writes_go_on()?;
        let plug = [
            ("driver", "vhost-user-scsi-pci"),
            ("id", id.as_str()),
            ("chardev", chardev.as_str()),
            ("bus", bus.as_str()),
        ];
        // QEMU refuses while the guest has not let go of the one before.
        let qmp = self.guest.vm().qmp();
        let mut refusal = None;
        let plugged = wait_until(WHILE, || match qmp.execute("device_add", &plug) {
            Ok(_) => Ok(Some(())),
            Err(error) => {
                refusal = Some(error);
                std::thread::sleep(Duration::from_millis(200));
                Ok(None)
            }
        })?;
        plugged.context(|| format!("{id} could not be plugged in again: {refusal:?}"))?;
        self.wait_for_paths("active ready", 2)?;
        self.writes_go_on()
    }
}
