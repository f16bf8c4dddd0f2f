//! Two guests and one removable disk: who has it open keeps it in, who ejects it takes it from both, and the host puts it back with
//! another size.

use std::fs::File;
use std::time::Duration;
use vm_tests::cluster::Exit::{Good, IllegalRequest};
use vm_tests::cluster::{Cluster, Exit, Node, SERIAL};
use vm_tests::qemu::Machine;
use vm_tests::vstgt::Config;
use vm_tests::workdir::WorkDir;
use vm_tests::{Context, Result, provision};

const MIB: u64 = 1 << 20;

/// How sg3_utils end on NOT READY.
const NOT_READY: Exit = Exit::Other(2);

/// How long the kernel may take to look at a disk again, where guests are fast.
const LOOK: Duration = Duration::from_secs(20);

/// Sets `$G`: the disk by the kernel's generic driver. (Who opens the disk itself makes the kernel prevent its removal.)
const GENERIC: &str = "G=/dev/$(ls /sys/block/${D##*/}/device/scsi_generic);";

#[test]
fn a_removable_disk_goes_and_comes_back() -> Result<()> {
    provision::check()?;
    let dir = WorkDir::new("removable")?;
    let image = dir.sparse("shared.img", 32 * MIB)?;
    let socket = |name: &str| dir.path(&format!("{name}.sock"));
    let config = Config::new().lun(&image, &format!(",serial={SERIAL},removable=on")).arg("-v");
    let names = ["alpha", "beta"];
    let config =
        names.iter().fold(config, |config, name| config.socket_with(&socket(name), &format!(",initiator={name}")));
    let machine = |name: &&str| -> Result<(String, Machine)> {
        let machine = Machine::new(name)?.memory_mib(320);
        Ok(((*name).to_owned(), machine.vhost_user_scsi_with(&socket(name), 2, "", "")))
    };
    let machines = names.iter().map(machine).collect::<Result<_>>()?;
    let mut cluster = Cluster::of(config, machines, image, dir)?;
    let [alpha, beta] = cluster.all()?;

    assert_eq!(alpha.good("cat /sys/block/${D##*/}/removable")?.trim(), "1");
    beta.good("dd if=/dev/urandom of=$D bs=1M count=4 oflag=direct && sha256sum $D > /tmp/before")?;

    // Beta has it open: its kernel prevents the removal.
    beta.good("sleep 600 < $D > /dev/null 2>&1 & echo $! > /tmp/holder")?;
    assert_eq!(generic(alpha, "sg_start --eject $G")?.0, IllegalRequest);
    let (exit, said) = generic(alpha, "sg_raw $G 1b 00 00 00 02 00")?;
    assert_eq!(exit, IllegalRequest, "{said}");
    assert!(said.contains("Medium removal prevented"), "{said}");
    assert_eq!(generic(beta, "sg_turs $G")?.0, Good);
    beta.good("kill $(cat /tmp/holder); for i in $(seq 50); do [ -d /proc/$(cat /tmp/holder) ] || exit 0; sleep 0.1; done; exit 1")?;

    let (exit, said) = generic(alpha, "sg_start --eject $G")?;
    assert_eq!(exit, Good, "{said}");
    for node in [&mut *alpha, &mut *beta] {
        assert_eq!(generic(node, "sg_turs $G")?.0, NOT_READY, "{}", node.name);
        let (exit, said) = generic(node, "sg_readcap $G")?;
        assert!(exit == NOT_READY && said.contains("ot ready"), "{}: {exit:?} {said}", node.name);
        let (_, said) = node.run("dd if=$D of=/dev/null bs=512 count=1")?;
        assert!(said.contains("No medium found"), "{}: {said}", node.name);
    }

    // The host makes it larger and puts it back: both kernels find the new size, and what was written.
    let file = File::options().write(true).open(&cluster.image).context(|| "open the image")?;
    file.set_len(48 * MIB).context(|| "make the image larger")?;
    cluster.vstgt.process().signal(libc::SIGUSR1)?;
    cluster.vstgt.wait_for_log(&["shared.img: loaded, 98304 blocks"], LOOK)?;
    let [alpha, beta] = cluster.all()?;
    for node in [&mut *alpha, &mut *beta] {
        // Opening a removable disk is looking whether there is a medium.
        node.good(
            "for i in $(seq 100); do dd if=$D of=/dev/null bs=512 count=1 2> /dev/null \
             && [ $(cat /sys/block/${D##*/}/size) = 98304 ] && exit 0; sleep 0.1; done; cat /sys/block/${D##*/}/size; exit 1",
        )?;
    }
    beta.good("head -c 33554432 $D | sha256sum | cut -d' ' -f1 > /tmp/after; grep -q -f /tmp/after /tmp/before")?;

    // Alpha takes it once more; beta puts it back.
    assert_eq!(generic(alpha, "sg_start --eject $G")?.0, Good);
    assert_eq!(generic(beta, "sg_turs $G")?.0, NOT_READY);
    assert_eq!(generic(beta, "sg_start --load $G")?.0, Good);
    assert_eq!(generic(beta, "sg_turs $G")?.0, Good);
    assert_eq!(generic(alpha, "sg_turs $G")?.0, Exit::UnitAttention);
    alpha.good("dd if=$D of=/dev/null bs=1M count=48 iflag=direct")?;
    cluster.finish()
}

/// Runs `command` with `$G` the disk by the generic driver.
fn generic(node: &mut Node, command: &str) -> Result<(Exit, String)> {
    node.run(&format!("{GENERIC} {command}"))
}
