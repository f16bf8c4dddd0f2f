//! Three guests, one disk: RESERVE and RELEASE of SPC-2 beside persistent reservations, and LOGICAL UNIT RESET from several guests.

use std::time::Duration;
use vm_tests::cluster::Exit::{Conflict, Good};
use vm_tests::cluster::{Cluster, Exit, Node};
use vm_tests::{Result, effort, provision};

const MIB: u64 = 1 << 20;

const RESERVE: &str = "sg_raw $D 16 00 00 00 00 00";
const RELEASE: &str = "sg_raw $D 17 00 00 00 00 00";
const RESET: &str = "sg_reset --device $D";

/// What every nexus is told after a reset, the one that asked for it, too.
const RESET_TOLD: &[&str] = &["Bus device reset function occurred"];

/// How long the resets under load may take, where guests are fast.
const LOAD: Duration = Duration::from_secs(60);

type Nodes<'a> = [&'a mut Node; 3];

#[test]
fn reserve_and_reset_reach_every_guest() -> Result<()> {
    provision::check()?;
    let mut cluster = Cluster::start(&["alpha", "beta", "gamma"], 32 * MIB, |config, _| config)?;
    let mut nodes = cluster.all()?;
    one_reserves(&mut nodes)?;
    reset_ends_it(&mut nodes)?;
    beside_persistent(&mut nodes)?;
    resets_under_load(&mut nodes)?;
    cluster.finish()
}

#[track_caller]
fn ends(node: &mut Node, command: &str, expected: Exit) -> Result<()> {
    let (exit, text) = node.run(command)?;
    assert_eq!(exit, expected, "{}: {command}\n{text}", node.name);
    Ok(())
}

#[track_caller]
fn all_are_told(nodes: &mut Nodes, expected: &[&str]) -> Result<()> {
    for node in nodes {
        assert_eq!(node.attentions()?, expected, "{}", node.name);
    }
    Ok(())
}

/// SPC-2 5.5.1: the unit is one nexus's, but for what everybody may always ask.
fn one_reserves([alpha, beta, _]: &mut Nodes) -> Result<()> {
    ends(alpha, RESERVE, Good)?;
    ends(alpha, RESERVE, Good)?;
    assert_eq!(alpha.access()?, (Good, Good));
    assert_eq!(beta.access()?, (Conflict, Conflict));
    for (command, expected) in [
        (RESERVE, Conflict),
        ("sg_raw $D 00 00 00 00 00 00", Conflict),
        ("sg_raw -r 8 $D 25 00 00 00 00 00 00 00 00 00", Good),
        ("sg_raw -r 36 $D 12 00 00 00 24 00", Good),
        ("sg_raw -r 18 $D 03 00 00 00 12 00", Good),
        ("sg_raw -r 64 $D a0 00 00 00 00 00 00 00 00 40 00 00", Good),
        // Releasing what another holds is no error and releases nothing.
        (RELEASE, Good),
    ] {
        ends(beta, command, expected)?;
    }
    assert_eq!(beta.access()?, (Conflict, Conflict));
    // Nobody registers meanwhile, not even who reserved.
    for node in [&mut *alpha, &mut *beta] {
        assert_eq!(node.prout("--register --param-sark=1")?, Conflict, "{}", node.name);
    }
    ends(alpha, RELEASE, Good)?;
    assert_eq!(beta.access()?, (Good, Good));
    Ok(())
}

fn reset_ends_it(nodes: &mut Nodes) -> Result<()> {
    ends(nodes[0], RESERVE, Good)?;
    assert_eq!(nodes[1].access()?, (Conflict, Conflict));
    ends(nodes[2], RESET, Good)?;
    all_are_told(nodes, RESET_TOLD)?;
    for node in nodes {
        assert_eq!(node.access()?, (Good, Good), "{}", node.name);
    }
    Ok(())
}

/// RESERVE and PERSISTENT RESERVE exclude each other (SPC-4 5.13.3), and a reset takes nothing from what is persistent.
fn beside_persistent(nodes: &mut Nodes) -> Result<()> {
    let [alpha, beta, gamma] = nodes;
    assert_eq!(alpha.prout("--register --param-sark=a1")?, Good);
    for node in [&mut *alpha, &mut *beta] {
        ends(node, RESERVE, Conflict)?;
        ends(node, RELEASE, Conflict)?;
    }
    assert_eq!(alpha.prout("--reserve --param-rk=a1 --prout-type=5")?, Good);
    // CRH: to the holder both are GOOD and do nothing, so others can go on registering.
    let capabilities = alpha.good("sg_persist -n --in --report-capabilities $D")?;
    assert!(capabilities.contains("(CRH): 1"), "{capabilities}");
    ends(alpha, RESERVE, Good)?;
    ends(beta, RESERVE, Conflict)?;
    assert_eq!(beta.prout("--register --param-sark=b2")?, Good);
    ends(alpha, RELEASE, Good)?;

    let before = gamma.reservations()?;
    assert_eq!(before.keys, [0xa1, 0xb2]);
    ends(gamma, RESET, Good)?;
    all_are_told(nodes, RESET_TOLD)?;
    for node in nodes.iter_mut() {
        assert_eq!(node.reservations()?, before, "{}", node.name);
    }
    assert_eq!(nodes[2].access()?, (Good, Conflict));
    assert_eq!(nodes[0].prout("--clear --param-rk=a1")?, Good);
    assert_eq!(nodes[1].attentions()?, ["Reservations preempted"]);
    Ok(())
}

/// Two guests reset the unit again and again while the third writes and verifies: its commands come back and are sent again.
fn resets_under_load([alpha, beta, gamma]: &mut Nodes) -> Result<()> {
    let (disk, busy) = (&gamma.disk, gamma.busy());
    let mut load = gamma.guest.start(&format!(
        "fio --name=v --filename={disk} --thread --numjobs=2 --cpus_allowed=0,1 --cpus_allowed_policy=split \
         --ioengine=libaio --iodepth=16 --direct=1 --rw=randwrite --bssplit=512/30:4k/40:64k/30 --verify=crc32c \
         --verify_fatal=1 --size=8M --offset_increment=8M --loops=1000 --runtime=12 --group_reporting > fio.log 2>&1 &\n\
         {busy}; echo writing; wait $!; s=$?; cat fio.log; exit $s"
    ))?;
    load.wait_for("writing", LOAD)?;
    let rounds = 10 * effort();
    let resets = |node: &Node| {
        format!("for i in $(seq {rounds}); do sg_reset --device {} || exit 1; sleep 0.2; done", node.disk)
    };
    let (alphas, betas) = (resets(alpha), resets(beta));
    let (alphas, betas) = (alpha.guest.start(&alphas)?, beta.guest.start(&betas)?);
    for resetting in [alphas, betas] {
        let outcome = resetting.finish(LOAD * effort())?;
        assert_eq!(outcome.status, 0, "{}", outcome.text());
    }
    let outcome = load.finish(LOAD * effort())?;
    assert_eq!(outcome.status, 0, "{}", outcome.text());
    let told = gamma.guest.sh("dmesg | grep -c 'Power-on or device reset occurred'")?;
    assert!(told.parse::<u32>().is_ok_and(|count| count > 3), "gamma was told of {told} resets");
    for node in [alpha, beta, gamma] {
        node.attentions()?;
        assert_eq!(node.access()?, (Good, Good), "{}", node.name);
    }
    Ok(())
}
