//! Three guests, one disk, and sg_persist by the book: every service action, all six types, and who is told what.
//!
//! The expectations are SPC-4's (5.13 and 6.15 to 6.16), written here a second time and by hand, not taken from what the target holds
//! its commands against.

use vm_tests::cluster::Exit::{Conflict, Good, IllegalRequest};
use vm_tests::cluster::{Cluster, Exit, Node, Reservations};
use vm_tests::{Result, provision};

const MIB: u64 = 1 << 20;

/// The keys alpha, beta and gamma register.
const KEYS: [u64; 3] = [0xa1, 0xb2, 0xc3];

/// A reservation's type.
#[derive(Clone, Copy)]
struct Kind {
    /// As sg_persist takes it.
    code: u8,
    /// As it shows it.
    name: &'static str,
    /// Whether others may read.
    write_exclusive: bool,
    /// Whether registrants may do as the holder does.
    registrants: bool,
    /// Whether every registrant holds it.
    all_hold: bool,
}

const fn kind(code: u8, name: &'static str) -> Kind {
    Kind { code, name, write_exclusive: code & 1 == 1 && code != 3, registrants: code > 3, all_hold: code > 6 }
}

const KINDS: [Kind; 6] = [
    kind(1, "Write Exclusive"),
    kind(3, "Exclusive Access"),
    kind(5, "Write Exclusive, registrants only"),
    kind(6, "Exclusive Access, registrants only"),
    kind(7, "Write Exclusive, all registrants"),
    kind(8, "Exclusive Access, all registrants"),
];

const RELEASED: &str = "Reservations released";
const PREEMPTED: &str = "Reservations preempted";
const UNREGISTERED: &str = "Registrations preempted";

#[test]
fn three_guests_reserve_by_the_book() -> Result<()> {
    provision::check()?;
    let mut cluster = Cluster::start(&["alpha", "beta", "gamma"], 16 * MIB, |config, _| config)?;
    let mut nodes = cluster.all()?;
    registering(&mut nodes)?;
    for kind in KINDS {
        reserving(&mut nodes, kind)?;
        holder_unregisters(&mut nodes, kind)?;
    }
    other_commands(&mut nodes)?;
    block_layer(&mut nodes)?;
    preempting(&mut nodes, "--preempt")?;
    preempting(&mut nodes, "--preempt-abort")?;
    preempting_all(&mut nodes)?;
    clearing(&mut nodes)?;
    moving(&mut nodes)?;
    registering_others(&mut nodes)?;
    cluster.finish()
}

type Nodes<'a> = [&'a mut Node; 3];

/// PERSISTENT RESERVE OUT must end like this.
#[track_caller]
fn out(node: &mut Node, words: &str, exit: Exit) -> Result<()> {
    assert_eq!(node.prout(words)?, exit, "{}: {words}", node.name);
    Ok(())
}

/// Every node sees exactly this.
#[track_caller]
fn all_see(nodes: &mut Nodes, generation: u32, keys: &[u64], held: Option<(u64, Kind)>) -> Result<()> {
    let held = held.map(|(key, kind)| (if kind.all_hold { 0 } else { key }, kind.name.to_owned()));
    let expected = Reservations { generation, keys: keys.to_vec(), held };
    for node in nodes {
        assert_eq!(node.reservations()?, expected, "{}", node.name);
    }
    Ok(())
}

/// Exactly these unit attentions were pending, for each node in turn; none is left.
#[track_caller]
fn told(nodes: &mut Nodes, expected: [&[&str]; 3]) -> Result<()> {
    for (node, expected) in nodes.iter_mut().zip(expected) {
        assert_eq!(node.attentions()?, expected, "{}", node.name);
    }
    Ok(())
}

/// No keys, no reservation, no unit attentions; then the first `count` nodes register. Returns PRGENERATION.
fn fresh(nodes: &mut Nodes, count: usize) -> Result<u32> {
    out(nodes[0], "--register-ignore --param-sark=ff", Good)?;
    out(nodes[0], "--clear --param-rk=ff", Good)?;
    for node in nodes.iter_mut() {
        node.attentions()?;
    }
    for (node, key) in nodes.iter_mut().zip(KEYS).take(count) {
        out(node, &format!("--register --param-sark={key:x}"), Good)?;
    }
    let now = nodes[0].reservations()?;
    assert_eq!((now.keys, now.held), (KEYS[..count].to_vec(), None));
    Ok(now.generation)
}

fn registering(nodes: &mut Nodes) -> Result<()> {
    all_see(nodes, 0, &[], None)?;
    let [alpha, beta, gamma] = nodes;
    let capabilities = alpha.good("sg_persist -n --in --report-capabilities $D")?;
    for capability in ["(SIP_C): 1", "(TMV): 1"] {
        assert!(capabilities.contains(capability), "no {capability} in\n{capabilities}");
    }
    for kind in KINDS {
        let line = format!("{}: 1", kind.name);
        assert!(capabilities.lines().any(|told| told.trim() == line), "no \"{line}\" in\n{capabilities}");
    }

    out(alpha, "--register --param-sark=a1", Good)?;
    // A second REGISTER needs the key.
    out(alpha, "--register --param-sark=a2", Conflict)?;
    out(alpha, "--register --param-rk=a2 --param-sark=a2", Conflict)?;
    out(alpha, "--register --param-rk=a1 --param-sark=a2", Good)?;
    out(alpha, "--register-ignore --param-sark=a1", Good)?;
    // Who is not registered has no key.
    out(beta, "--register --param-rk=b2 --param-sark=b2", Conflict)?;
    out(beta, "--register-ignore --param-sark=b2", Good)?;
    out(gamma, "--register --param-sark=c3", Good)?;
    // What did not succeed did not count.
    all_see(nodes, 5, &KEYS, None)?;
    full_status(nodes, 5, None)?;

    let beta = &mut nodes[1];
    out(beta, "--register --param-rk=b2 --param-sark=0", Good)?;
    // Nothing to register, nothing to unregister.
    out(beta, "--register --param-sark=0", Good)?;
    all_see(nodes, 6, &[KEYS[0], KEYS[2]], None)?;
    told(nodes, [&[], &[], &[]])
}

/// READ FULL STATUS, byte for byte (SPC-4 6.15.5), while all three are registered and `holder`, if any, holds the reservation.
fn full_status(nodes: &mut Nodes, generation: u32, holder: Option<(usize, Kind)>) -> Result<()> {
    let mut expected = generation.to_be_bytes().to_vec();
    expected.extend((3_u32 * 48).to_be_bytes());
    for (number, (node, key)) in nodes.iter().zip(KEYS).enumerate() {
        let held = holder.filter(|(holder, kind)| *holder == number || kind.all_hold);
        expected.extend(key.to_be_bytes());
        expected.extend([0, 0, 0, 0, u8::from(held.is_some()), held.map_or(0, |(_, kind)| kind.code)]);
        // Reserved, the target port's number, the length of the TransportID.
        expected.extend([0, 0, 0, 0, 0, 1, 0, 0, 0, 24]);
        expected.extend([4, 0, 0, 0, 0, 0, 0, 0]);
        expected.extend(port_identifier(&node.name).to_be_bytes());
    }
    let expected: String = expected.iter().map(|byte| format!("{byte:02x}")).collect();
    for node in nodes {
        let text = node.good("sg_raw -b -r 1024 $D 5e 03 00 00 00 00 00 04 00 00 2> /dev/null | od -An -v -tx1")?;
        let bytes: String = text.split_whitespace().collect();
        assert_eq!(bytes, expected, "{}", node.name);
    }
    Ok(())
}

/// An initiator port's identifier, as docs/identity.md derives it from its name.
fn port_identifier(name: &str) -> u128 {
    [b"I\0", name.as_bytes()].concat().iter().fold(0x6c62_272e_07bb_0142_62b8_2175_6295_c58d, |hash: u128, byte| {
        (hash ^ u128::from(*byte)).wrapping_mul(0x0000_0000_0100_0000_0000_0000_0000_013b)
    })
}

/// The TransportID of a node's initiator port (SPC-4 7.6.4.6), byte by byte: what sg_persist 1.46 reads behind `srp,` it refuses.
fn transport_id(node: &Node) -> String {
    let bytes = [&[4, 0, 0, 0, 0, 0, 0, 0], port_identifier(&node.name).to_be_bytes().as_slice()].concat();
    bytes.iter().map(|byte| format!("{byte:x}")).collect::<Vec<_>>().join(",")
}

/// What a node may do, as (reading, writing), with a reservation of this type.
fn allowed(kind: Kind, holder: bool, registered: bool) -> (Exit, Exit) {
    let may = |it: bool| if it { Good } else { Conflict };
    let all = holder || (registered && kind.registrants);
    (may(all || kind.write_exclusive), may(all))
}

/// Alpha reserves and releases; beta is registered, gamma is not.
fn reserving(nodes: &mut Nodes, kind: Kind) -> Result<()> {
    let generation = fresh(nodes, 2)?;
    let code = kind.code;
    let keys = &KEYS[..2];
    out(nodes[0], &format!("--reserve --param-rk=a1 --prout-type={code}"), Good)?;
    all_see(nodes, generation, keys, Some((0xa1, kind)))?;
    assert_eq!(nodes[0].access()?, (Good, Good), "holder, type {code}");
    assert_eq!(nodes[1].access()?, allowed(kind, false, true), "registrant, type {code}");
    assert_eq!(nodes[2].access()?, allowed(kind, false, false), "nobody, type {code}");

    // Once more is fine, another type is not, nor is it for another nexus but one that holds it as well.
    let [alpha, beta, gamma] = nodes;
    let other = if code == 1 { 3 } else { 1 };
    out(alpha, &format!("--reserve --param-rk=a1 --prout-type={code}"), Good)?;
    out(alpha, &format!("--reserve --param-rk=a1 --prout-type={other}"), Conflict)?;
    let betas = if kind.all_hold { Good } else { Conflict };
    out(beta, &format!("--reserve --param-rk=b2 --prout-type={code}"), betas)?;
    out(beta, &format!("--reserve --param-rk=b2 --prout-type={other}"), Conflict)?;
    out(gamma, &format!("--reserve --param-rk=c3 --prout-type={code}"), Conflict)?;

    // Releasing: not with another key, not as another type, not unregistered; a registrant that holds nothing releases nothing.
    out(alpha, &format!("--release --param-rk=bad --prout-type={code}"), Conflict)?;
    out(alpha, &format!("--release --param-rk=a1 --prout-type={other}"), IllegalRequest)?;
    out(gamma, &format!("--release --param-rk=c3 --prout-type={code}"), Conflict)?;
    if !kind.all_hold {
        out(beta, &format!("--release --param-rk=b2 --prout-type={code}"), Good)?;
    }
    all_see(nodes, generation, keys, Some((0xa1, kind)))?;
    told(nodes, [&[], &[], &[]])?;

    out(nodes[0], &format!("--release --param-rk=a1 --prout-type={code}"), Good)?;
    told(nodes, [&[], if kind.registrants { &[RELEASED] } else { &[] }, &[]])?;
    all_see(nodes, generation, keys, None)?;
    for node in nodes {
        assert_eq!(node.access()?, (Good, Good), "{}", node.name);
    }
    Ok(())
}

/// Alpha holds the reservation and unregisters, then beta does.
fn holder_unregisters(nodes: &mut Nodes, kind: Kind) -> Result<()> {
    let generation = fresh(nodes, 2)?;
    let code = kind.code;
    out(nodes[0], &format!("--reserve --param-rk=a1 --prout-type={code}"), Good)?;
    out(nodes[0], "--register --param-rk=a1 --param-sark=0", Good)?;
    let released = kind.registrants && !kind.all_hold;
    told(nodes, [&[], if released { &[RELEASED] } else { &[] }, &[]])?;
    // One that all registrants hold ends with the last of them.
    let left = kind.all_hold.then_some((0, kind));
    all_see(nodes, generation + 1, &[0xb2], left)?;
    assert_eq!(nodes[0].access()?, if kind.all_hold { allowed(kind, false, false) } else { (Good, Good) });
    assert_eq!(nodes[1].access()?, (Good, Good));
    out(nodes[1], "--register --param-rk=b2 --param-sark=0", Good)?;
    all_see(nodes, generation + 2, &[], None)?;
    told(nodes, [&[], &[], &[]])
}

/// Commands that are neither READ nor WRITE, from a nexus that is not registered (SPC-4 table 54, SBC-3 table 14).
fn other_commands(nodes: &mut Nodes) -> Result<()> {
    // A command, and whether Exclusive Access and Write Exclusive let it through.
    let rows = [
        ("sg_raw $D 00 00 00 00 00 00", "TEST UNIT READY", Good, Good),
        ("sg_raw -r 36 $D 12 00 00 00 24 00", "INQUIRY", Good, Good),
        ("sg_raw -r 18 $D 03 00 00 00 12 00", "REQUEST SENSE", Good, Good),
        ("sg_raw -r 64 $D a0 00 00 00 00 00 00 00 00 40 00 00", "REPORT LUNS", Good, Good),
        ("sg_raw -r 8 $D 25 00 00 00 00 00 00 00 00 00", "READ CAPACITY(10)", Good, Good),
        ("sg_raw $D 1b 00 00 00 01 00", "START STOP UNIT, start", Good, Good),
        ("sg_raw $D 1b 00 00 00 00 00", "START STOP UNIT, stop", Conflict, Conflict),
        ("sg_raw $D 2f 00 00 00 00 00 00 00 01 00", "VERIFY(10)", Conflict, Good),
        ("sg_raw $D 35 00 00 00 00 00 00 00 00 00", "SYNCHRONIZE CACHE(10)", Conflict, Conflict),
        ("sg_raw -s 512 -i /dev/zero $D 41 00 00 00 00 00 00 00 01 00", "WRITE SAME(10)", Conflict, Conflict),
        ("sg_unmap --lba=0 --num=1 --force $D", "UNMAP", Conflict, Conflict),
    ];
    for kind in KINDS.into_iter().filter(|kind| kind.code == 5 || kind.code == 6) {
        fresh(nodes, 1)?;
        let [alpha, _, gamma] = nodes;
        out(alpha, &format!("--reserve --param-rk=a1 --prout-type={}", kind.code), Good)?;
        for (command, name, exclusive_access, write_exclusive) in rows {
            let expected = if kind.write_exclusive { write_exclusive } else { exclusive_access };
            let (exit, text) = gamma.run(command)?;
            assert_eq!(exit, expected, "{name}, type {}: {text}", kind.code);
        }
    }
    Ok(())
}

/// What a guest's own block layer makes of a conflict: EBADE, at once.
fn block_layer(nodes: &mut Nodes) -> Result<()> {
    let (read, write) = (
        "dd if=$D of=/dev/null bs=4k count=1 iflag=direct",
        "dd if=/dev/zero of=$D bs=4k count=1 seek=100 oflag=direct",
    );
    for (code, commands) in [(5, &[write][..]), (6, &[read, write])] {
        fresh(nodes, 1)?;
        let [alpha, _, gamma] = nodes;
        out(alpha, &format!("--reserve --param-rk=a1 --prout-type={code}"), Good)?;
        alpha.good(&format!("{write} && {read}"))?;
        for command in commands {
            let (exit, text) = gamma.run(command)?;
            assert!(exit == Exit::Other(1) && text.contains("Invalid exchange"), "{command}: {exit:?} {text}");
        }
        if code == 5 {
            gamma.good(read)?;
        }
    }
    Ok(())
}

/// Beta takes the reservation from alpha, gamma takes it from beta and changes its type, and holders and others are told.
fn preempting(nodes: &mut Nodes, preempt: &str) -> Result<()> {
    let generation = fresh(nodes, 3)?;
    let [_, _, registrants_only, exclusive, ..] = KINDS;
    out(nodes[0], "--reserve --param-rk=a1 --prout-type=5", Good)?;
    full_status(nodes, generation, Some((0, registrants_only)))?;
    // Not with a key nobody has, not with a key of one's own that is wrong; and no key at all means nothing here.
    out(nodes[1], &format!("{preempt} --param-rk=b2 --param-sark=d4 --prout-type=5"), Conflict)?;
    out(nodes[1], &format!("{preempt} --param-rk=d4 --param-sark=a1 --prout-type=5"), Conflict)?;
    out(nodes[1], &format!("{preempt} --param-rk=b2 --param-sark=0 --prout-type=5"), IllegalRequest)?;
    all_see(nodes, generation, &KEYS, Some((0xa1, registrants_only)))?;

    out(nodes[1], &format!("{preempt} --param-rk=b2 --param-sark=a1 --prout-type=5"), Good)?;
    told(nodes, [&[UNREGISTERED], &[], &[]])?;
    all_see(nodes, generation + 1, &KEYS[1..], Some((0xb2, registrants_only)))?;
    assert_eq!(nodes[0].access()?, (Good, Conflict));

    // Alpha comes back; then gamma preempts with another type, which alpha, still registered, is told of.
    out(nodes[0], "--register --param-sark=a1", Good)?;
    out(nodes[2], &format!("{preempt} --param-rk=c3 --param-sark=b2 --prout-type=6"), Good)?;
    told(nodes, [&[RELEASED], &[UNREGISTERED], &[]])?;
    all_see(nodes, generation + 3, &[KEYS[2], KEYS[0]], Some((0xc3, exclusive)))?;
    assert_eq!(nodes[1].access()?, (Conflict, Conflict));

    // Who does not hold it loses the registration only, and whoever preempts itself only changes the type.
    out(nodes[2], &format!("{preempt} --param-rk=c3 --param-sark=a1 --prout-type=6"), Good)?;
    told(nodes, [&[UNREGISTERED], &[], &[]])?;
    all_see(nodes, generation + 4, &[KEYS[2]], Some((0xc3, exclusive)))?;
    out(nodes[2], &format!("{preempt} --param-rk=c3 --param-sark=c3 --prout-type=5"), Good)?;
    all_see(nodes, generation + 5, &[KEYS[2]], Some((0xc3, registrants_only)))?;
    told(nodes, [&[], &[], &[]])
}

/// Where all registrants hold the reservation, preempting key zero takes it from all others.
fn preempting_all(nodes: &mut Nodes) -> Result<()> {
    let generation = fresh(nodes, 3)?;
    let [.., all, _] = KINDS;
    out(nodes[0], "--reserve --param-rk=a1 --prout-type=7", Good)?;
    full_status(nodes, generation, Some((0, all)))?;
    out(nodes[1], "--preempt --param-rk=b2 --param-sark=0 --prout-type=7", Good)?;
    told(nodes, [&[UNREGISTERED], &[], &[UNREGISTERED]])?;
    all_see(nodes, generation + 1, &[KEYS[1]], Some((0xb2, all)))
}

fn clearing(nodes: &mut Nodes) -> Result<()> {
    let generation = fresh(nodes, 2)?;
    out(nodes[0], "--reserve --param-rk=a1 --prout-type=3", Good)?;
    out(nodes[2], "--clear --param-rk=c3", Conflict)?;
    out(nodes[1], "--clear --param-rk=a1", Conflict)?;
    out(nodes[1], "--clear --param-rk=b2", Good)?;
    told(nodes, [&[PREEMPTED], &[], &[]])?;
    all_see(nodes, generation + 1, &[], None)
}

fn moving(nodes: &mut Nodes) -> Result<()> {
    let generation = fresh(nodes, 1)?;
    let [write_exclusive, ..] = KINDS;
    let ports = nodes.each_ref().map(|node| transport_id(node));
    let to = |node: usize, words: &str| {
        format!("--register-move {words} --relative-target-port=1 --transport-id={}", ports[node])
    };
    out(nodes[0], "--reserve --param-rk=a1 --prout-type=1", Good)?;
    // Not by others, not with the wrong key, not to oneself, not to nothing.
    out(nodes[1], &to(2, "--param-rk=a1 --param-sark=c3"), Conflict)?;
    out(nodes[0], &to(1, "--param-rk=a2 --param-sark=b9"), Conflict)?;
    out(nodes[0], &to(0, "--param-rk=a1 --param-sark=b9"), IllegalRequest)?;
    out(nodes[0], &to(1, "--param-rk=a1 --param-sark=0"), IllegalRequest)?;

    out(nodes[0], &to(1, "--param-rk=a1 --param-sark=b9"), Good)?;
    all_see(nodes, generation + 1, &[0xa1, 0xb9], Some((0xb9, write_exclusive)))?;
    assert_eq!(nodes[0].access()?, (Good, Conflict));
    assert_eq!(nodes[1].access()?, (Good, Good));
    out(nodes[1], &to(2, "--param-rk=b9 --param-sark=c3 --unreg"), Good)?;
    all_see(nodes, generation + 2, &[0xa1, 0xc3], Some((0xc3, write_exclusive)))?;
    assert_eq!(nodes[1].access()?, (Good, Conflict));
    assert_eq!(nodes[2].access()?, (Good, Good));
    told(nodes, [&[], &[], &[]])
}

/// SPEC_I_PT: alpha registers others along with itself, under its own key; with one of them registered already, nobody.
fn registering_others(nodes: &mut Nodes) -> Result<()> {
    let generation = fresh(nodes, 0)?;
    let beta = transport_id(nodes[1]);
    out(nodes[0], &format!("--register --param-sark=a1 --transport-id={beta}"), Good)?;
    all_see(nodes, generation + 1, &[0xa1, 0xa1], None)?;
    out(nodes[1], "--reserve --param-rk=a1 --prout-type=5", Good)?;
    out(nodes[2], &format!("--register --param-sark=c3 --transport-id={beta}"), IllegalRequest)?;
    let seen = nodes[2].reservations()?;
    assert_eq!(seen.keys, [0xa1, 0xa1]);
    out(nodes[1], "--clear --param-rk=a1", Good)?;
    told(nodes, [&[PREEMPTED], &[], &[]])
}
