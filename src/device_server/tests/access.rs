//! Target port groups: what is reported of them, how they change, and what their states keep out.

use std::sync::Mutex;

use super::*;
use crate::device_server::testkit::{check, execute, good, nexus_of, out_buf};
use crate::device_server::{AbortFlag, Change, Fence, Losers, Plan, still_admitted};
use crate::lu::{
    AccessState, Attention, GateBits, Itl, KeepError, Keeper, KeptAccess, KeptNexus, KeptState, Lu, NexusId, TargetPort,
};
use crate::scsi::opcode::{self, Access};
use crate::scsi::{Status, TaskAttribute};

use AccessState::*;

/// Ports 1 and 4 in group 10, port 2 in group 20, port 3 in group 30.
const PORTS: [TargetPort; 4] = [port(1, 10), port(2, 20), port(3, 30), port(4, 10)];

const fn port(relative: u16, group: u16) -> TargetPort {
    TargetPort { relative, id: [relative as u8; 16], group }
}

/// A unit with those ports and states; its nexus is on port 1.
fn bench_with(access: &[(u16, AccessState)]) -> Bench {
    Bench::with(MemImage::patterned(51_200), |s| {
        s.ports = PORTS.to_vec();
        s.access = access.to_vec();
    })
}

/// A nexus of the same initiator and unit by another port.
fn by(b: &Bench, port: u16) -> Bench {
    let itl = Itl::new(b.itl.lu().clone(), NexusId { port, ..b.itl.nexus() }, None);
    Bench::of(b.image.clone(), itl)
}

/// REPORT TARGET PORT GROUPS: byte 1 PARAMETER DATA FORMAT and service action, bytes 6–9 allocation length.
fn report(format: u8, length: u16) -> Vec<u8> {
    let [hi, lo] = length.to_be_bytes();
    vec![0xa3, format << 5 | 0x0a, 0, 0, 0, 0, 0, 0, hi, lo, 0, 0]
}

fn groups(b: &Bench) -> Vec<u8> {
    at_all_allocation_lengths(b, |length| report(0, length))
}

/// The states of the groups 10, 20 and 30, without a command that would meet a unit attention.
fn states(b: &Bench) -> [u8; 3] {
    let groups = b.itl.lu().target_port_groups();
    assert_eq!(groups.iter().map(|group| group.group).collect::<Vec<_>>(), [10, 20, 30]);
    [0, 1, 2].map(|at: usize| groups[at].state as u8)
}

/// A SET TARGET PORT GROUPS parameter list.
fn list(wanted: &[(u16, u8)]) -> Vec<u8> {
    let mut list = vec![0; 4];
    for (group, state) in wanted {
        let [hi, lo] = group.to_be_bytes();
        list.extend([*state, 0, hi, lo]);
    }
    list
}

fn set(length: usize) -> [u8; 12] {
    let [hi, lo] = (length as u16).to_be_bytes();
    [0xa4, 0x0a, 0, 0, 0, 0, 0, 0, hi, lo, 0, 0]
}

fn set_groups(b: &Bench, wanted: &[(u16, u8)]) -> crate::device_server::Answer {
    let list = list(wanted);
    b.data_out(&set(list.len()), &list)
}

const TEST_UNIT_READY: [u8; 6] = [0; 6];
const READ: [u8; 10] = [0x28, 0, 0, 0, 0, 0, 0, 0, 1, 0];
const WRITE: [u8; 10] = [0x2a, 0, 0, 0, 0, 0, 0, 0, 1, 0];

const STANDBY: Sense = Sense::not_ready(AdditionalSense(0x040b));
const UNAVAILABLE: Sense = Sense::not_ready(AdditionalSense(0x040c));
const OFFLINE: Sense = Sense::not_ready(AdditionalSense(0x0412));
const TRANSITION: Sense = Sense::not_ready(AdditionalSense(0x040a));
const CHANGED: Sense = Sense::unit_attention(AdditionalSense(0x2a06));

/// SPC-4 6.37, literally.
#[test]
fn what_is_reported() {
    let b = bench_with(&[(20, Standby), (30, Offline)]);
    let descriptors = [
        // PREF and active/optimized; every state but LBA dependent is supported; group 10; status 00h; ports 1 and 4.
        0x80, 0xcf, 0x00, 0x0a, 0, 0x00, 0, 2, 0, 0, 0, 1, 0, 0, 0, 4, //
        0x02, 0xcf, 0x00, 0x14, 0, 0x00, 0, 1, 0, 0, 0, 2, //
        0x0e, 0xcf, 0x00, 0x1e, 0, 0x00, 0, 1, 0, 0, 0, 3,
    ];
    assert_eq!(groups(&b), [&[0, 0, 0, 40], &descriptors[..]].concat());
    assert_eq!(groups(&by(&b, 2)), groups(&b), "the same by every port");
    let extended = at_all_allocation_lengths(&b, |length| report(1, length));
    assert_eq!(extended, [&[0, 0, 0, 44, 0x10, 0, 0, 0], &descriptors[..]].concat());
    for format in 2..8 {
        assert_eq!(b.data_in(&report(format, 255), 255).answer, check(invalid_field(1, 7)), "{format}");
    }
    // Where all are alike none is preferred.
    assert_eq!(groups(&bench_with(&[]))[4], 0x00);
}

/// What is performed in each state. The lists are SPC-4's for the states, by operation code and service action.
#[test]
fn what_each_state_keeps_out() {
    let standby = [0x12, 0x4c, 0x4d, 0x15, 0x55, 0x1a, 0x5a, 0xa0, 0x1c, 0x1d, 0x03, 0x5e, 0x5f, 0x3b, 0x3c];
    let unavailable = [0x12, 0xa0, 0x03, 0x3b, 0x3c];
    for row in opcode::rows() {
        let (report, set) = (
            (row.opcode, row.service_action) == (0xa3, Some(0x0a)),
            (row.opcode, row.service_action) == (0xa4, Some(0x0a)),
        );
        if standby.contains(&row.opcode) || report || set {
            assert_ne!(row.access, Access::Active, "{}", row.name);
        }
        if unavailable.contains(&row.opcode) || report || set {
            assert!(matches!(row.access, Access::Settled | Access::Always), "{}", row.name);
        }
        if unavailable.contains(&row.opcode) || report {
            assert_eq!(row.access, Access::Always, "{}", row.name);
        }
        // Nothing gets at the medium but in the active states; capacity is not the medium.
        if matches!(row.readiness, opcode::Readiness::Ready | opcode::Readiness::Occupies) {
            assert_eq!(row.access, Access::Active, "{}", row.name);
        }
    }
    for (state, sense) in
        [(Standby, STANDBY), (Unavailable, UNAVAILABLE), (Offline, OFFLINE), (Transitioning, TRANSITION)]
    {
        let b = bench_with(&[(10, state)]);
        for cdb in [&TEST_UNIT_READY[..], &READ, &WRITE, &[0x35, 0, 0, 0, 0, 0, 0, 0, 0, 0]] {
            assert_eq!(b.data_in(cdb, 512).answer, check(sense), "{state:?} {cdb:02x?}");
        }
        let mode_sense = b.data_in(&[0x1a, 0, 0x3f, 0, 255, 0], 255).answer;
        assert_eq!(mode_sense.status == Status::Good, state == Standby, "{state:?}");
        let read_keys = b.data_in(&[0x5e, 0, 0, 0, 0, 0, 0, 0, 8, 0], 8).answer;
        assert_eq!(read_keys.status == Status::Good, state == Standby, "{state:?}");
        for cdb in [&[0x12, 0, 0, 0, 96, 0][..], &[0x25, 0, 0, 0, 0, 0, 0, 0, 0, 0], &report(0, 255)] {
            assert_eq!(b.data_in(cdb, 255).answer.status, Status::Good, "{state:?} {cdb:02x?}");
        }
        // REQUEST SENSE tells as data what keeps the unit from being ready.
        let told = b.data_in(&[0x03, 0, 0, 0, 18, 0], 18).data;
        assert_eq!((told[2], u16::from_be_bytes([told[12], told[13]])), (0x02, sense.code.0), "{state:?}");
        // Another port is as it was.
        assert_eq!(by(&b, 2).none(&TEST_UNIT_READY), good(0));
    }
    for state in [ActiveOptimized, ActiveNonOptimized] {
        assert_eq!(bench_with(&[(10, state)]).none(&TEST_UNIT_READY), good(0));
    }
}

#[test]
fn a_unit_attention_comes_before_the_state() {
    let b = bench_with(&[(10, Standby)]);
    b.itl.establish(Attention::PowerOn);
    assert_eq!(b.none(&TEST_UNIT_READY), check(plain(SenseKey::UnitAttention, 0x2900)));
    assert_eq!(b.none(&TEST_UNIT_READY), check(STANDBY));
}

/// One guest fails over from one of its ports to the other; everybody else is told.
#[test]
fn set_target_port_groups() {
    let b = bench_with(&[(20, Standby)]);
    let (second, other) = (by(&b, 2), nexus_of(b.itl.lu().clone(), None));
    let other = Bench::of(b.image.clone(), other);
    assert_eq!(second.none(&TEST_UNIT_READY), check(STANDBY));
    // By the port in standby, as multipath does it.
    assert_eq!(set_groups(&second, &[(20, 0x0), (10, 0x2)]), good(12));
    assert_eq!(states(&second), [0x2, 0x0, 0x0]);
    let data = groups(&second);
    assert_eq!([data[9], data[25], data[37]], [0x01, 0x01, 0x00], "STATUS CODE: explicit, explicit, none");
    assert_eq!([data[4] & 0x80, data[20] & 0x80, data[32] & 0x80], [0x80, 0, 0x80], "what was preferred still is");
    assert_eq!(second.none(&TEST_UNIT_READY), good(0), "who asked is not told");
    assert_eq!(second.data_in(&READ, 512).answer, good(512));
    for told in [&b, &other] {
        assert_eq!(told.none(&TEST_UNIT_READY), check(CHANGED));
        assert_eq!(told.none(&TEST_UNIT_READY), check(STANDBY));
    }
    // Nothing changes, nobody is told.
    assert_eq!(set_groups(&second, &[(20, 0x0)]), good(8));
    assert_eq!(set_groups(&second, &[]), good(4));
    assert_eq!(second.none(&set(0)), good(0));
    assert_eq!(other.none(&TEST_UNIT_READY), check(STANDBY));
    // A nexus that comes later finds what is.
    let late = by(&b, 4);
    assert_eq!(late.none(&TEST_UNIT_READY), check(STANDBY));
    // Between active states nobody loses, yet it is a change.
    assert_eq!(set_groups(&second, &[(20, 0x1)]), good(8));
    assert_eq!(states(&b), [0x2, 0x1, 0x0]);
    assert_eq!(other.none(&TEST_UNIT_READY), check(CHANGED));
    // Neither a reset nor the loss of a nexus brings the states back.
    b.itl.lu().reset();
    b.itl.lose_nexus();
    assert_eq!(states(&b), [0x2, 0x1, 0x0]);
}

#[test]
fn the_last_descriptor_of_a_group_counts() {
    let b = bench_with(&[]);
    assert_eq!(set_groups(&b, &[(20, 0x3), (20, 0x2)]), good(12));
    assert_eq!(states(&b), [0x0, 0x2, 0x0]);
}

#[test]
fn lists_that_are_refused_change_nothing() {
    let b = bench_with(&[(30, Offline)]);
    let in_list = |byte, bit| check(Sense::invalid_field_in_parameter_list(FieldPointer::parameter_list(byte, bit)));
    assert_eq!(set_groups(&b, &[(10, 0x2), (11, 0x0)]), in_list(10, 7), "no such group");
    assert_eq!(set_groups(&b, &[(10, 0x2), (30, 0x0)]), in_list(10, 7), "offline is the configuration's");
    for state in [0x4, 0x5, 0xd, 0xe, 0xf] {
        assert_eq!(set_groups(&b, &[(20, 0x2), (10, state)]), in_list(8, 3), "{state:x}");
    }
    assert_eq!(b.data_out(&set(7), &[0; 7]), check(invalid_field(6, 7)));
    assert_eq!(b.none(&[0xa4, 0x0a, 0, 0, 0, 0, 0, 1, 0, 0, 0, 0]), check(invalid_field(6, 7)), "64 KiB");
    assert_eq!(b.data_out(&set(8), &[0; 4]), good(8), "the buffer overflows");
    assert_eq!(states(&b), [0x0, 0x0, 0xe]);
}

fn planned(b: &Bench, wanted: &[(u16, u8)]) -> Box<dyn Change> {
    let list = list(wanted);
    match b.plan(&set(list.len()), &mut out_buf(&list)) {
        Plan::Change(change) => change,
        other => panic!("{other:?}"),
    }
}

/// Who loses is shut out before the commands that began are waited for; who gains comes in after that.
#[test]
fn nobody_gains_before_those_who_lose_have_stopped() {
    let b = bench_with(&[(20, Standby), (30, Unavailable)]);
    let (second, third) = (by(&b, 2), by(&b, 3));
    let mut change = planned(&b, &[(10, 0x3), (20, 0x0), (30, 0x2)]);
    let losers = Losers::These(vec![(b.itl.nexus(), GateBits::UNAVAILABLE)]);
    assert_eq!(change.evaluate(), Ok(Fence { losers, ..Fence::default() }));
    assert_eq!(b.none(&TEST_UNIT_READY), good(0), "nothing is different yet");
    assert_eq!(states(&b), [0x0, 0x2, 0x3]);
    assert_eq!(by(&b, 4).none(&TEST_UNIT_READY), check(UNAVAILABLE), "but for who comes now");
    change.apply();
    assert_eq!(states(&b), [0x3, 0xf, 0xf]);
    assert_eq!(b.none(&TEST_UNIT_READY), check(UNAVAILABLE));
    for gaining in [&second, &third] {
        assert_eq!(gaining.none(&TEST_UNIT_READY), check(CHANGED));
        assert_eq!(gaining.none(&TEST_UNIT_READY), check(TRANSITION));
        assert_eq!(gaining.data_in(&[0x1a, 0, 0x3f, 0, 255, 0], 255).answer, check(TRANSITION));
        assert_eq!(set_groups(gaining, &[]), check(TRANSITION));
    }
    let granted = change.grant();
    assert_eq!(execute(granted, &mut out_buf(&[]), &AbortFlag::default()), good(16));
    assert_eq!(states(&b), [0x3, 0x0, 0x2]);
    assert_eq!(second.none(&TEST_UNIT_READY), good(0));
    assert_eq!(third.none(&TEST_UNIT_READY), check(STANDBY));
}

/// A command that waited is asked again whether it may.
#[test]
fn what_a_command_needs() {
    let b = bench_with(&[]);
    let needs = |cdb: &[u8]| {
        let request = crate::device_server::Request {
            cdb,
            itl: Some(&b.itl),
            luns: &[0],
            peers: &crate::device_server::testkit::NoPeers,
            well_known: None,
            attribute: TaskAttribute::Simple,
            passes: &[],
        };
        crate::device_server::start(&request, &mut crate::mem::IoBuf::owned(512, crate::mem::Direction::In)).needs
    };
    let (read, mode_sense) = (needs(&READ), needs(&[0x1a, 0, 0x3f, 0, 255, 0]));
    assert_eq!(set_groups(&b, &[(10, 0x2)]), good(8));
    assert_eq!(still_admitted(&b.itl, read), Err(check(STANDBY)));
    assert_eq!(still_admitted(&b.itl, mode_sense), Ok(()));
    assert_eq!(set_groups(&b, &[(10, 0x3)]), good(8));
    assert_eq!(still_admitted(&b.itl, mode_sense), Err(check(UNAVAILABLE)));
}

/// One that is given up before it is applied leaves no trace.
#[test]
fn a_change_that_ends_early() {
    let b = bench_with(&[]);
    let mut change = planned(&b, &[(10, 0x2)]);
    assert!(change.evaluate().is_ok());
    drop(change);
    assert_eq!(by(&b, 4).none(&TEST_UNIT_READY), good(0));
    assert_eq!(set_groups(&b, &[(20, 0x2)]), good(8));
    assert_eq!(states(&b), [0x0, 0x2, 0x0], "the next change does not make it");
}

/// Writes down what it is given, unless it fails.
#[derive(Debug, Default)]
struct Notes {
    kept: Mutex<Vec<KeptState>>,
    fails: std::sync::atomic::AtomicBool,
}

impl Keeper for Notes {
    fn keep(&self, state: &KeptState) -> Result<(), KeepError> {
        if self.fails.load(std::sync::atomic::Ordering::Relaxed) {
            return Err(KeepError::Write("no".into()));
        }
        self.kept.lock().unwrap().push(state.clone());
        Ok(())
    }

    fn note(&self) {}

    fn survives_power_loss(&self) -> bool {
        true
    }
}

#[test]
fn states_are_written_down_before_they_change() {
    let notes = std::sync::Arc::new(Notes::default());
    let b = Bench::with(MemImage::new(512), |s| {
        s.ports = PORTS.to_vec();
        s.access = vec![(20, Standby)];
        s.keeper = Some(notes.clone());
    });
    let kept = |group, current, default| KeptAccess { group, current, default };
    let now = |first| {
        vec![kept(10, first, ActiveOptimized), kept(20, Standby, Standby), kept(30, ActiveOptimized, ActiveOptimized)]
    };
    let mut change = planned(&b, &[(10, 0x3)]);
    assert!(change.evaluate().unwrap().persists);
    assert_eq!(b.itl.lu().access_states(), now(Unavailable), "what is on its way counts as made");
    let second = by(&b, 2);
    let told = |kept: &KeptNexus| kept.attentions == [Attention::AccessStateChanged];
    let snapshot = b.itl.lu().snapshot();
    let of = |nexus| snapshot.nexuses.iter().find(|kept| kept.nexus == nexus).unwrap();
    assert!(told(of(second.itl.nexus())) && !told(of(b.itl.nexus())), "with what others are told");
    drop(change);
    assert_eq!(b.itl.lu().access_states(), now(ActiveOptimized));

    let mut change = planned(&b, &[(10, 0x0)]);
    assert!(!change.evaluate().unwrap().persists, "nothing changes");
    drop(change);

    notes.fails.store(true, std::sync::atomic::Ordering::Relaxed);
    let failed = Sense::new(SenseKey::HardwareError, AdditionalSense(0x670a));
    assert_eq!(set_groups(&b, &[(10, 0x2)]), check(failed));
    assert_eq!(b.itl.lu().access_states(), now(ActiveOptimized));
    assert_eq!(b.none(&TEST_UNIT_READY), good(0));
    notes.fails.store(false, std::sync::atomic::Ordering::Relaxed);
    assert_eq!(set_groups(&b, &[(10, 0x2)]), good(8));
    assert_eq!(notes.kept.lock().unwrap().len(), 1);
}

/// What an initiator chose stays; what it left alone follows the configuration; offline is the configuration's.
#[test]
fn states_that_were_kept() {
    let kept = |group, current, default| KeptAccess { group, current, default };
    let goes_on = |configured: &[(u16, AccessState)], access: &[KeptAccess]| {
        let nexus = NexusId { initiator: [9; 16], port: 1 };
        let b = Bench::with(MemImage::new(512), |s| {
            s.ports = PORTS.to_vec();
            s.access = configured.to_vec();
            let there = KeptNexus { nexus, present: true, attentions: Vec::new(), prevent: false };
            let new = KeptState::new(crate::scsi::spc::ModeState::default());
            s.kept = Some(KeptState { access: access.to_vec(), nexuses: vec![there], ..new });
        });
        let itl = Itl::new(b.itl.lu().clone(), nexus, Some(Attention::PowerOn));
        let told = itl.gate().pending();
        (states(&b), told, Bench { itl, ..b })
    };
    let all = |first, second| {
        let others = ActiveOptimized;
        vec![first, second, kept(30, others, others)]
    };
    let active = |group| kept(group, ActiveOptimized, ActiveOptimized);
    let (found, told, b) = goes_on(&[], &all(kept(10, Standby, ActiveOptimized), active(20)));
    assert_eq!((found, told), ([0x2, 0x0, 0x0], vec![]), "as it was");
    assert_eq!(b.none(&TEST_UNIT_READY), check(STANDBY), "the gate, too");
    assert_eq!(groups(&b)[9], 0x01, "STATUS CODE: explicit");
    assert_eq!(b.itl.lu().access_states(), all(kept(10, Standby, ActiveOptimized), active(20)));
    let (found, told, _) = goes_on(&[(10, Unavailable)], &all(kept(10, Standby, Standby), active(20)));
    assert_eq!((found, told), ([0x3, 0x0, 0x0], vec![Attention::AccessStateChanged]), "configured otherwise");
    let (found, told, _) = goes_on(&[(10, Offline)], &all(kept(10, Standby, ActiveOptimized), active(20)));
    assert_eq!((found, told), ([0xe, 0x0, 0x0], vec![Attention::AccessStateChanged]));
    let (found, told, _) = goes_on(&[], &all(kept(10, Offline, Offline), active(20)));
    assert_eq!((found, told), ([0x0, 0x0, 0x0], vec![Attention::AccessStateChanged]));
    // A group that is new, and one that is gone; and a file that does not know of groups.
    let (found, told, _) = goes_on(&[], &[active(10), active(20), kept(77, Unavailable, Standby)]);
    assert_eq!((found, told), ([0x0; 3], vec![Attention::AccessStateChanged]));
    assert_eq!(goes_on(&[(20, Standby)], &[]).1, []);
}

/// Random changes and arrivals against what a list of states says.
#[test]
fn gates_follow_the_states() {
    use proptest::prelude::*;
    let code = prop_oneof![Just(0u8), Just(1), Just(2), Just(3)];
    let change = proptest::collection::vec((prop_oneof![Just(10u16), Just(20), Just(30)], code), 0..4);
    proptest!(ProptestConfig::with_cases(200), |(changes in proptest::collection::vec((1u16..5, change), 1..12))| {
        let b = bench_with(&[]);
        let nexuses: Vec<Bench> = (1..5).map(|port| by(&b, port)).collect();
        let mut model = [0u8; 3];
        for (from, wanted) in changes {
            let asks = &nexuses[usize::from(from) - 1];
            asks.itl.gate().take_attention();
            prop_assert_eq!(set_groups(asks, &wanted), good(4 + 4 * wanted.len() as u64));
            for (group, state) in wanted {
                model[usize::from(group / 10) - 1] = state;
            }
            prop_assert_eq!(states(&b), model);
            for (n, port) in nexuses.iter().zip(PORTS) {
                n.itl.gate().take_attention();
                let expected = match model[usize::from(port.group / 10) - 1] {
                    2 => check(STANDBY),
                    3 => check(UNAVAILABLE),
                    _ => good(0),
                };
                prop_assert_eq!(n.none(&TEST_UNIT_READY), expected);
            }
        }
    });
}

#[test]
fn ports_that_do_not_fit_are_refused() {
    let with = |ports: Vec<TargetPort>| {
        let setup = crate::lu::LuSetup::new(std::sync::Arc::new(MemImage::new(512)), 0x3000_0000_0000_0001, "S".into());
        Lu::new(crate::lu::LuSetup { ports, ..setup }).err()
    };
    assert_eq!(with(PORTS.to_vec()), None);
    for ports in [vec![], vec![port(0, 1)], vec![port(2, 1), port(1, 1), port(2, 3)]] {
        assert_eq!(with(ports), Some(crate::lu::SetupError::Ports));
    }
}
