//! vstgt ends, by its own will and by a kill, while three guests run on a shared disk: what they agreed on with it is still there, and
//! none of them is told of anything but what it would have been told without.

use std::thread;
use std::time::Duration;
use vm_tests::cluster::Cluster;
use vm_tests::cluster::Exit::{Conflict, Good, UnitAttention};
use vm_tests::{Result, effort, provision};

const MIB: u64 = 1 << 20;

/// What is kept "soon" (docs/state.md) is kept by then: that a unit attention was taken.
const SOON: Duration = Duration::from_millis(500);

#[test]
fn registrations_outlive_the_process() -> Result<()> {
    provision::check()?;
    let mut cluster = Cluster::start(&["alpha", "beta", "gamma"], 16 * MIB, |config, dir| {
        config.arg("--state-dir").arg(dir.path("state"))
    })?;
    let [alpha, beta, gamma] = cluster.all()?;
    for (node, key) in [(&mut *alpha, "a1"), (&mut *beta, "b2"), (&mut *gamma, "c3")] {
        assert_eq!(node.prout(&format!("--register --param-sark={key}"))?, Good);
    }
    assert_eq!(alpha.prout("--reserve --param-rk=a1 --prout-type=5")?, Good);
    // Gamma is fenced, and not yet told.
    assert_eq!(beta.prout("--preempt-abort --param-rk=b2 --param-sark=c3 --prout-type=5")?, Good);
    let before = beta.reservations()?;
    assert_eq!((before.generation, &before.keys[..]), (4, &[0xa1, 0xb2][..]));

    cluster.kill_and_restart()?;
    let [alpha, beta, gamma] = cluster.all()?;
    // Whoever writes first finds itself fenced, or not.
    assert_eq!(gamma.access()?, (UnitAttention, Conflict));
    assert_eq!(alpha.access()?, (Good, Good));
    assert_eq!(beta.access()?, (Good, Good));
    for node in [alpha, beta, gamma] {
        assert_eq!(node.reservations()?, before, "{}", node.name);
        assert!(node.attentions()?.is_empty(), "{}", node.name);
    }

    // Again and again, by either way.
    for _ in 0..2 * effort() {
        thread::sleep(SOON);
        cluster = cluster.end_and_restart()?;
        for node in &mut cluster.nodes {
            assert_eq!(node.reservations()?, before, "{}", node.name);
        }
        thread::sleep(SOON);
        cluster.kill_and_restart()?;
        for node in &mut cluster.nodes {
            assert!(node.attentions()?.is_empty(), "{}", node.name);
            assert_eq!(node.reservations()?, before, "{}", node.name);
        }
    }

    // And it goes on from there.
    let [alpha, beta, gamma] = cluster.all()?;
    assert_eq!(gamma.prout("--register --param-sark=c3")?, Good);
    assert_eq!(beta.prout("--preempt-abort --param-rk=b2 --param-sark=a1 --prout-type=5")?, Good);
    assert_eq!(alpha.attentions()?, ["Registrations preempted"]);
    assert_eq!(alpha.access()?, (Good, Conflict));
    assert_eq!(gamma.access()?, (Good, Good));
    let now = gamma.reservations()?;
    assert_eq!((now.generation, &now.keys[..]), (6, &[0xb2, 0xc3][..]));
    cluster.finish()
}
